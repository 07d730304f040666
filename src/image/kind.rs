//! Names the type of a file that is not a supported image, for the error message.
//!
//! The user can act on "this is a PDF" or "this is a web page", but not on "not supported". The name is derived from
//! the first bytes; the rest of the file is not checked.

use super::heic;

/// PDF readers look for the header in this many leading bytes (PDF Reference 1.7, appendix H, note 13).
const PDF_SEARCH: usize = 1024;

/// The number of leading bytes that are examined for markup or text.
const TEXT_SEARCH: usize = 1024;

/// Signatures at the first byte, and the name of each file type.
const MAGIC: [(&[u8], &str); 21] = [
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"\0\0\x01\0", "ICO"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "PSD"),
    (b"AT&TFORM", "DjVu"),
    (b"%!PS-Adobe-3.0 EPSF", "EPS"),
    (b"%!PS-Adobe-2.0 EPSF", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%!PS", "PostScript"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Office"),
    (b"{\\rtf", "RTF"),
    (b"\x1f\x8b", "gzip"),
    (b"Rar!", "RAR"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"PK\x05\x06", "ZIP"),
];

/// The name of a PDF.
pub const PDF: &str = "PDF";

/// Whether there is a PDF header in the bytes in which readers look for it.
pub(super) fn is_pdf(bytes: &[u8]) -> bool {
    contains(start(bytes, PDF_SEARCH), b"%PDF-")
}

/// The probable type of a file that is not a supported image.
pub(super) fn name(bytes: &[u8]) -> &'static str {
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return name;
    }
    if heic::matches_avif(bytes) {
        return "AVIF";
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return "MP4";
    }
    if bytes.starts_with(b"PK\x03\x04") {
        // An Office Open XML file is a ZIP file that begins with its list of content types.
        let is_office = contains(start(bytes, TEXT_SEARCH), b"[Content_Types].xml");
        return if is_office { "Office" } else { "ZIP" };
    }
    if is_pdf(bytes) { PDF } else { name_of_text(bytes) }
}

fn name_of_text(bytes: &[u8]) -> &'static str {
    let text = start(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes), TEXT_SEARCH);
    let is_text = |&byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    if text.is_empty() || !text.iter().all(is_text) {
        return "unknown";
    }
    let markup = text.trim_ascii_start();
    if !markup.starts_with(b"<") {
        // Bytes that are all above 0x7f may be text in some encoding or random data.
        return if text.iter().any(u8::is_ascii) { "text" } else { "unknown" };
    }
    if contains(markup, b"<svg") {
        return "SVG";
    }
    if contains(markup, b"<html") || contains(markup, b"<!doctype html") {
        return "HTML";
    }
    if contains(markup, b"<?xml") { "XML" } else { "text" }
}

fn start(bytes: &[u8], length: usize) -> &[u8] {
    &bytes[..bytes.len().min(length)]
}

/// Whether `bytes` contains `word`, ignoring ASCII case.
fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_upload_by_mistake_is_named() {
        let ftyp = |brand: &str| format!("\0\0\0\x14ftyp{brand}\0\0\0\0mif1");
        for (bytes, named) in [
            ("GIF89a....".to_owned(), "GIF"),
            ("%PDF-1.7".to_owned(), "PDF"),
            (format!("{}%PDF-1.4", "\0".repeat(1_000)), "PDF"),
            ("\u{feff}<?xml version='1.0'?>\n<!-- --><SVG>".to_owned(), "SVG"),
            ("<svg width=\"2\">".to_owned(), "SVG"),
            ("<?xml version='1.0'?><note/>".to_owned(), "XML"),
            ("\r\n<!DOCTYPE HTML><title>".to_owned(), "HTML"),
            ("PK\x03\x04....[Content_Types].xml".to_owned(), "Office"),
            ("PK\x03\x04....mimetype".to_owned(), "ZIP"),
            ("%!PS-Adobe-3.0 EPSF-3.0".to_owned(), "EPS"),
            ("%!PS-Adobe-3.0".to_owned(), "PostScript"),
            (ftyp("avif"), "AVIF"),
            (ftyp("isom"), "MP4"),
            ("\0\0\0\x0cjP  \r\n".to_owned(), "JPEG 2000"),
            ("BMW 520d, total 12.00".to_owned(), "text"),
            ("\0\x01\x02\x03".to_owned(), "unknown"),
        ] {
            assert_eq!(name(bytes.as_bytes()), named, "{bytes:?}");
        }
    }

    #[test]
    fn a_pdf_header_behind_the_first_kibibyte_is_none() {
        let behind = |bytes: usize| format!("{}%PDF-1.4", " ".repeat(bytes));
        assert!(is_pdf(behind(1_019).as_bytes()));
        assert!(!is_pdf(behind(1_020).as_bytes()));
    }
}
