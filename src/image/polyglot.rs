//! Detects polyglots: files that also open as an image of another format.
//!
//! Pillow tries its formats in sequence, and some formats have no signature at the first byte. A valid TIFF or WebP
//! file can be constructed so that Pillow opens it as one of those formats, with another size. The checks here are the
//! same as in Pillow's plugins. Real pictures do not pass them by chance.

use super::byte_order::ByteOrder::{Big, Little};

/// The offset of the signature of a Photo CD image. The bytes before it are arbitrary.
const PHOTO_CD: usize = 2048;

/// The first line break of an IM file is within this many bytes. This is also its maximum line length.
const IM_LINE: usize = 100;

/// The maximum number of lines of an IM header that are read.
const IM_LINES: usize = 1024;

/// An IM header must have at least one of these names.
const IM_NAMES: [&[u8]; 9] = [
    b"Comment",
    b"Date",
    b"Digitalization equipment",
    b"File size (no of images)",
    b"Image size (x*y)",
    b"Image type",
    b"Lut",
    b"Name",
    b"Scale (x,y)",
];

/// The other format that the file opens as, as the predicate of an error message.
pub(super) fn other_format(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(PHOTO_CD..).is_some_and(|rest| rest.starts_with(b"PCD_")) {
        Some("opens as a Photo CD image too, which has another size")
    } else if is_fli(bytes) {
        Some("opens as a FLI animation too, which has another size")
    } else if is_im(bytes) {
        Some("opens as an IFUNC image (IM) too, which has another size")
    } else if is_spider(bytes) {
        Some("opens as a SPIDER image too, which has another size")
    } else if is_brush(bytes) {
        Some("opens as a GIMP brush too, which has another size")
    } else {
        None
    }
}

/// Version 1 of the GIMP brush format has no signature. The file starts with the header length, the version, the width
/// and height, and the number of bytes per pixel.
fn is_brush(bytes: &[u8]) -> bool {
    let number = |index: usize| Big.u32(bytes, 4 * index);
    number(0).is_some_and(|length| length >= 20)
        && (number(1) == Some(1) || number(1) == Some(2) && bytes.get(20..24) == Some(b"GIMP"))
        && number(2) != Some(0)
        && number(3) != Some(0)
        && matches!(number(4), Some(1 | 4))
}

/// A SPIDER image has no signature. Its header consists of floats. Some of them must be whole numbers, and the fifth is
/// 1 for a single picture. The header length must equal the number of header records times the record length.
fn is_spider(bytes: &[u8]) -> bool {
    let one = Some(1_f32.to_bits());
    [Big, Little].into_iter().any(|order| {
        let whole = |number: usize| {
            let value = f64::from(f32::from_bits(order.u32(bytes, 4 * (number - 1))?));
            (value.fract() == 0.0).then_some(value)
        };
        let are_whole = || [1, 2, 12].into_iter().all(|number| whole(number).is_some());
        let lengths = || Some((whole(13)?, whole(22)?, whole(23)?));
        order.u32(bytes, 16) == one
            && are_whole()
            && lengths().is_some_and(|(records, all, each)| all - records * each == 0.0)
    })
}

/// An Autodesk Animator file has its signature at offset 4, where a TIFF file has the offset of its first directory.
fn is_fli(bytes: &[u8]) -> bool {
    let is_zero = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|part| part.iter().all(|&byte| byte == 0))
    };
    matches!(Little.u16(bytes, 4), Some(0xaf11 | 0xaf12))
        && matches!(Little.u16(bytes, 14), Some(0 | 3))
        && is_zero(20..22)
        && is_zero(42..80)
        && is_zero(88..128)
}

/// An IM file starts with lines of the form `Name: value`, terminated by a NUL or a control-Z.
fn is_im(bytes: &[u8]) -> bool {
    if !bytes[..bytes.len().min(IM_LINE)].contains(&b'\n') {
        return false;
    }
    let (mut rest, mut is_named) = (bytes, false);
    for _ in 0..IM_LINES {
        while let Some(after) = rest.strip_prefix(b"\r") {
            rest = after;
        }
        if rest.first().is_none_or(|byte| matches!(byte, 0 | 0x1a)) {
            return is_named;
        }
        let longest = &rest[..rest.len().min(IM_LINE + 1)];
        let Some(end) = longest.iter().position(|&byte| byte == b'\n') else { return false };
        let Some(colon) = rest[..end].iter().position(|&byte| byte == b':') else { return false };
        if !rest[0].is_ascii_alphabetic() {
            return false;
        }
        is_named |= IM_NAMES.contains(&&rest[..colon]);
        rest = &rest[end + 1..];
    }
    is_named
}

#[cfg(test)]
mod tests {
    use super::super::byte_order::ByteOrder;
    use super::super::samples;
    use super::*;

    fn put(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    }

    #[test]
    fn a_picture_that_is_a_photo_cd_image_too_is_told() {
        for (_, file) in samples::all(40, 30) {
            assert_eq!(other_format(&file), None);
            assert!(other_format(&put(file.clone(), 2_048, b"PCD_")).is_some());
            assert_eq!(other_format(&put(file, 2_049, b"PCD_")), None);
        }
    }

    #[test]
    fn a_tiff_file_whose_directory_stands_where_a_fli_has_its_signature_is_told() {
        let file = samples::tiff(ByteOrder::Little, &[]);
        let file = put(put(file[..4].to_vec(), 4, &[0x11, 0xaf, 0, 0]), 200, &[1]);
        assert!(other_format(&file).is_some());
        assert_eq!(other_format(&put(file, 100, &[1])), None);
    }

    #[test]
    fn a_file_whose_first_bytes_are_lines_of_an_im_header_is_told() {
        for whole in [
            &b"II*\0\x08\x01\0\0: \nImage size (x*y): 8000*8000\n\x1a"[..],
            b"RIFF:\x20\0\0WEBPVP8 \nLut: \n\0",
            b"BM: \n\r\rName:\r\n\x1a",
        ] {
            assert!(other_format(whole).is_some(), "{whole:?}");
        }
        for part in [
            &b"II*\0\x08\x01\0\0 \nName: \n\x1a"[..],
            b"II*\0: \n\x1a",
            b"II*\0: \nName: \n\xff",
            b"\x89PNG:\nName: \n\x1a",
            &[&b"II:"[..], &[b' '; 98], b"\nName: \n\x1a"].concat(),
        ] {
            assert_eq!(other_format(part), None, "{part:?}");
        }
    }

    #[test]
    fn a_file_whose_first_numbers_are_a_brush_header_is_one() {
        for whole in [
            &b"II*\0\0\0\0\x01\0\0\x07\xd0\0\0\x07\xd0\0\0\0\x01"[..],
            b"RIFF\0\0\0\x01WEBPVP8 \0\0\0\x04",
            b"II*\0\0\0\0\x02\0\0\x07\xd0\0\0\x07\xd0\0\0\0\x01GIMP",
        ] {
            assert!(is_brush(whole) && !is_brush(&whole[..19]), "{whole:?}");
        }
        for part in [
            &b"\0\0\0\x13\0\0\0\x01\0\0\x07\xd0\0\0\x07\xd0\0\0\0\x01"[..],
            b"RIFF\0\0\0\x02WEBPVP8 \0\0\0\x04 PMIG",
            b"RIFF\0\0\0\x03WEBPVP8 \0\0\0\x04",
            b"RIFF\0\0\0\x01WEBPVP8 \0\0\0\x03",
            b"II*\0\0\0\0\x01\0\0\0\0\0\0\x07\xd0\0\0\0\x01",
            b"II*\0\0\0\0\x01\0\0\x07\xd0\0\0\0\0\0\0\0\x01",
        ] {
            assert!(!is_brush(part), "{part:?}");
        }
    }

    #[test]
    fn a_file_whose_first_floats_are_a_spider_header_is_one() {
        for order in [Big, Little] {
            let file = |change: usize, value: f32| {
                let mut floats = [0_f32; 27];
                for (number, value) in [
                    (2, 1_300.0),
                    (5, 1.0),
                    (12, 1_300.0),
                    (13, 1.0),
                    (22, 1_024.0),
                    (23, 1_024.0),
                    (change, value),
                ] {
                    floats[number - 1] = value;
                }
                let bytes = floats.map(|float| match order {
                    Big => float.to_be_bytes(),
                    Little => float.to_le_bytes(),
                });
                is_spider(bytes.as_flattened())
            };
            assert!(file(2, 1_300.0) && file(13, 1.0));
            for (number, value) in
                [(1, 0.5), (2, f32::NAN), (5, 3.0), (12, f32::INFINITY), (13, 2.0), (23, 0.5)]
            {
                assert!(!file(number, value), "{number}");
            }
        }
        assert!(!is_spider(&[]) && !is_spider(&[0; 108]));
    }
}
