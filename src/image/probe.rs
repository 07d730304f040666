//! Reads the format, dimensions and orientation of an image.
//!
//! The first bytes decide the format. File names and declared types are ignored: they are often wrong, and a data URL
//! must name the real type.
//!
//! Only the header fields and the structure of the file are read. The structure shows whether there is any picture
//! data, and whether another part of the file gives another size. Nothing is decoded or allocated. The number of
//! segments, chunks, boxes and fields that are read is bounded, so malicious files take no more time than valid ones.
//!
//! A header that every decoder refuses is refused here, before any tokens are spent. Defects that decoders tolerate
//! are tolerated, such as junk between JPEG segments or a broken EXIF block. A truncated picture is accepted if there
//! is something to decode. A file with two sizes is refused, since decoders differ about which one they use.

use super::format::Format;
use super::header::ImageHeader;
use super::jpeg::{CodedData, Ending};
use super::second_size::Fault;
use super::size::Size;
use super::{bmp, heic, jpeg, kind, png, polyglot, tiff, webp};

pub use super::jpeg::Marker;
pub use super::kind::PDF;

/// Why bytes are refused as an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The file is not in a supported image format.
    #[error(
        "the file is no supported image (seen: {seen}; supported: JPEG, PNG, WebP, BMP, TIFF, HEIC)"
    )]
    Unsupported {
        /// The probable type: a short name such as `GIF`, `PDF` or `HTML`, or `unknown`.
        seen: &'static str,
    },
    /// The file has the signature of a supported format but violates a rule of that format.
    #[error("the {format} image {what}")]
    Malformed {
        /// The format that the signature names.
        format: Format,
        /// The rule, as the predicate of a sentence about the image.
        what: &'static str,
    },
    /// The file gives two sizes, and decoders differ about which one they use.
    #[error("the {format} image has two sizes: {stored} in its header and {other} {place}")]
    SecondSize {
        /// The format.
        format: Format,
        /// The size in the header.
        stored: Size,
        /// The other size.
        other: Size,
        /// Where the other size is.
        place: &'static str,
    },
}

/// Reads the header of an image, and checks that the file has picture data and gives only one size.
///
/// # Errors
///
/// - [`ProbeError::Empty`] if there are no bytes.
/// - [`ProbeError::Unsupported`] if the first bytes match none of the supported formats.
/// - [`ProbeError::Malformed`] if the header is truncated, violates a rule of its format, or gives a side of zero, or
///   if the file has no picture data.
/// - [`ProbeError::SecondSize`] if the file gives two sizes.
pub fn probe(bytes: &[u8]) -> Result<ImageHeader, ProbeError> {
    if bytes.is_empty() {
        return Err(ProbeError::Empty);
    }
    let Some(format) = format_of(bytes) else {
        return Err(ProbeError::Unsupported { seen: kind::name(bytes) });
    };
    read(format, bytes).map_err(|fault| match fault {
        Fault::Rule(what) => ProbeError::Malformed { format, what },
        Fault::SecondSize { stored, other, place } => {
            ProbeError::SecondSize { format, stored, other, place }
        }
    })
}

/// Reads the header of a JPEG from the beginning of the file, and returns it with the state of the coded data. If only
/// coded data follows up to the end of the image, [`probe`] returns the same header for the whole file. `None` if the
/// whole file is needed.
pub fn probe_beginning(bytes: &[u8]) -> Option<(ImageHeader, CodedData)> {
    let header = probe(bytes).ok().filter(|header| header.format == Format::Jpeg)?;
    let ending = jpeg::check_sizes(bytes, header.stored).ok()?;
    (ending == Ending::InCodedData).then(|| (header, CodedData::behind(bytes)))
}

fn read(format: Format, bytes: &[u8]) -> Result<ImageHeader, Fault> {
    let header = match format {
        Format::Jpeg => jpeg::read(bytes),
        Format::Png => png::read(bytes),
        Format::Webp => webp::read(bytes),
        Format::Bmp => bmp::read(bytes),
        Format::Tiff => tiff::read(bytes),
        Format::Heic => heic::read(bytes),
    }?;
    if header.stored.shorter_side() == 0 {
        return Err(Fault::Rule("has a side of zero pixels"));
    }
    match format {
        Format::Jpeg => jpeg::check_picture(bytes),
        Format::Png => png::check_picture(bytes),
        Format::Webp => webp::check_picture(bytes),
        Format::Bmp => bmp::check_picture(bytes),
        Format::Tiff => tiff::check_picture(bytes),
        Format::Heic => heic::check_picture(bytes),
    }?;
    match format {
        Format::Jpeg => jpeg::check_sizes(bytes, header.stored).map(drop),
        Format::Png => png::check_sizes(bytes, header.stored),
        Format::Webp => webp::check_sizes(bytes, header.stored),
        Format::Tiff => tiff::check_sizes(bytes, header.stored),
        Format::Heic => heic::check_sizes(bytes),
        // Only the header of a bitmap gives a size.
        Format::Bmp => Ok(()),
    }?;
    polyglot::other_format(bytes).map_or(Ok(header), |what| Err(Fault::Rule(what)))
}

fn format_of(bytes: &[u8]) -> Option<Format> {
    if bytes.starts_with(jpeg::START_OF_IMAGE) {
        Some(Format::Jpeg)
    } else if bytes.starts_with(png::MAGIC) {
        Some(Format::Png)
    } else if webp::matches(bytes) {
        Some(Format::Webp)
    } else if bmp::matches(bytes) {
        Some(Format::Bmp)
    } else if tiff::matches(bytes) {
        Some(Format::Tiff)
    } else if heic::matches(bytes) {
        Some(Format::Heic)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::header::TRUNCATED;
    use super::super::samples;
    use super::*;

    #[test]
    fn every_format_gives_its_sides() {
        for (format, file) in samples::all(40, 30) {
            let header = probe(&file).map(|header| (header.format, header.stored, header.pages));
            assert_eq!(header, Ok((format, Size::new(40, 30), 1)), "{format}");
        }
    }

    #[test]
    fn a_side_of_zero_is_malformed_in_every_format_that_can_say_it() {
        for (format, file) in samples::all(0, 30).into_iter().chain(samples::all(30, 0)) {
            assert!(matches!(probe(&file), Err(ProbeError::Malformed { .. })), "{format}");
        }
    }

    #[test]
    fn a_header_cut_anywhere_is_refused_and_never_gives_other_sides() {
        for (format, file) in samples::all(40, 30) {
            for length in 0..file.len() {
                if let Ok(header) = probe(&file[..length]) {
                    assert_eq!(header.stored, Size::new(40, 30), "{format} cut at {length}");
                }
            }
            assert!(probe(&file[..8]).is_err(), "{format}");
        }
    }

    #[test]
    fn no_bytes_and_foreign_bytes_are_told_apart() {
        assert_eq!(probe(&[]), Err(ProbeError::Empty));
        assert_eq!(probe(b"%PDF-1.7"), Err(ProbeError::Unsupported { seen: "PDF" }));
        assert_eq!(probe(b"\xff"), Err(ProbeError::Unsupported { seen: "unknown" }));
        assert_eq!(probe(b"BMW 520d, 12.00"), Err(ProbeError::Unsupported { seen: "text" }));
    }

    #[test]
    fn an_image_with_a_pdf_inside_is_an_image() {
        let polyglot = [samples::whole_png(40, 30), b"%PDF-1.7".to_vec()].concat();
        assert!(probe(&polyglot).is_ok());
        assert_eq!(probe(b"\xef\xbb\xbf%PDF-1.7"), Err(ProbeError::Unsupported { seen: "PDF" }));
    }

    #[test]
    fn a_message_reads_as_a_sentence_and_names_the_format() {
        let malformed = ProbeError::Malformed { format: Format::Png, what: TRUNCATED };
        assert_eq!(malformed.to_string(), "the PNG image ends before its width and height");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _answered = probe(&bytes);
        }

        #[test]
        fn any_bytes_behind_a_known_start_are_answered(
            sample in 0..samples::all(40, 30).len(),
            kept in 0..64_usize,
            bytes in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let file = &samples::all(40, 30)[sample].1;
            let _answered = probe(&[&file[..kept.min(file.len())], &bytes].concat());
        }

        #[test]
        fn a_mutated_header_is_answered_without_a_side_of_zero(
            sample in 0..samples::all(40, 30).len(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut file = samples::all(40, 30)[sample].1.clone();
            for (position, byte) in changes {
                let position = position.index(file.len());
                file[position] = byte;
            }
            if let Ok(header) = probe(&file) {
                prop_assert!(header.stored.shorter_side() > 0 && header.pages > 0);
            }
        }

        #[test]
        fn all_sides_that_every_format_can_say_are_read(
            width in 1..16_384_u32, height in 1..16_384_u32,
        ) {
            for (format, file) in samples::all(width, height) {
                let stored = probe(&file).map(|header| header.stored);
                prop_assert_eq!(stored, Ok(Size::new(width, height)), "{}", format);
            }
        }
    }
}
