//! Windows bitmaps, from the core header of OS/2 to version 5 (Microsoft, "Bitmap Header Types").
//!
//! The depth and the compression are checked as well as the dimensions, since malformed values have been used to attack
//! decoders, for example a depth of 40 bits.

use super::byte_order::ByteOrder::Little;
use super::format::{Format, Orientation};
use super::header::{ImageHeader, TRUNCATED};
use super::size::Size;

/// The signature of the format.
const MAGIC: &[u8] = b"BM";

/// The offset of the field in the file header that gives the offset of the pixels.
const PIXELS_OFFSET: usize = 10;

/// The offset of the information header, after the file header.
const INFORMATION: usize = 14;

/// The length of the OS/2 core header, whose sides have 16 bits.
const CORE_HEADER: u32 = 12;

/// The lengths of the later headers: information, information with two kinds of masks, OS/2 2, version 4, version 5.
const HEADERS: [u32; 6] = [40, 52, 56, 64, 108, 124];

/// Whether the bytes start like a bitmap. A text may also start with the two letters, so the length of the information
/// header must be below 256.
pub(super) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) && Little.u32(bytes, INFORMATION).is_some_and(|length| length < 256)
}

/// Reads the header of bytes that start like a bitmap.
pub(super) fn read(bytes: &[u8]) -> Result<ImageHeader, &'static str> {
    let header = bytes.get(INFORMATION..).ok_or(TRUNCATED)?;
    let stored = match Little.u32(header, 0).ok_or(TRUNCATED)? {
        CORE_HEADER => core(header)?,
        length if HEADERS.contains(&length) => information(header)?,
        _ => return Err("has a header of unknown length"),
    };
    Ok(ImageHeader::new(Format::Bmp, stored, Orientation::Upright))
}

/// Checks that the pixels start inside the file. If the file header omits their offset, they follow the information
/// header and its palette.
pub(super) fn check_picture(bytes: &[u8]) -> Result<(), &'static str> {
    let told = Little.u32(bytes, PIXELS_OFFSET).ok_or(TRUNCATED)? as usize;
    let header = Little.u32(bytes, INFORMATION).ok_or(TRUNCATED)? as usize;
    let start = if told == 0 { INFORMATION + header } else { told };
    if start < bytes.len() { Ok(()) } else { Err("ends before its pixels") }
}

fn core(header: &[u8]) -> Result<Size, &'static str> {
    let width = Little.u16(header, 4).ok_or(TRUNCATED)?;
    let height = Little.u16(header, 6).ok_or(TRUNCATED)?;
    match Little.u16(header, 10).ok_or(TRUNCATED)? {
        1 | 4 | 8 | 24 => Ok(Size::new(width.into(), height.into())),
        _ => Err("has an unknown number of bits a pixel"),
    }
}

fn information(header: &[u8]) -> Result<Size, &'static str> {
    let width = Little.u32(header, 4).ok_or(TRUNCATED)?.cast_signed();
    // A negative height means that the top row is first.
    let height = Little.u32(header, 8).ok_or(TRUNCATED)?.cast_signed().unsigned_abs();
    let depth = Little.u16(header, 14).ok_or(TRUNCATED)?;
    let compression = Little.u32(header, 16).ok_or(TRUNCATED)?;
    if !matches!(depth, 1 | 4 | 8 | 16 | 24 | 32) {
        return Err("has an unknown number of bits a pixel");
    }
    // No compression; run lengths of 8 and of 4 bits; masks without and with alpha.
    if !matches!((compression, depth), (0, _) | (1, 8) | (2, 4) | (3 | 6, 16 | 32)) {
        return Err("has a compression that its number of bits a pixel does not allow");
    }
    let Ok(width) = u32::try_from(width) else {
        return Err("has a negative width");
    };
    Ok(Size::new(width, height))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn with_depth_and_compression(
        depth: u16,
        compression: u32,
    ) -> Result<ImageHeader, &'static str> {
        let mut file = samples::bmp(40, 30);
        file[28..30].copy_from_slice(&depth.to_le_bytes());
        file[30..34].copy_from_slice(&compression.to_le_bytes());
        read(&file)
    }

    #[test]
    fn rows_from_the_top_have_a_positive_height_too() {
        assert_eq!(read(&samples::bmp(40, -30)).map(|header| header.stored), Ok(Size::new(40, 30)));
        let lowest = read(&samples::bmp(40, i32::MIN)).map(|header| header.stored);
        assert_eq!(lowest, Ok(Size::new(40, 1 << 31)));
    }

    #[test]
    fn a_negative_width_is_malformed() {
        assert_eq!(read(&samples::bmp(-40, 30)), Err("has a negative width"));
    }

    #[test]
    fn a_file_that_ends_before_its_pixels_is_malformed() {
        let mut file = samples::bmp(40, 30);
        assert_eq!(check_picture(&file), Ok(()));
        assert!(check_picture(&file[..54]).is_err());
        file[10] = u8::try_from(file.len()).unwrap();
        assert!(check_picture(&file).is_err());
        file.push(0);
        assert_eq!(check_picture(&file), Ok(()));
    }

    #[test]
    fn the_core_header_gives_its_sides() {
        let file = samples::bmp_core(40, 30);
        assert_eq!(read(&file).map(|header| header.stored), Ok(Size::new(40, 30)));
    }

    #[test]
    fn every_later_header_is_read_and_other_lengths_are_not() {
        let mut file = samples::bmp(40, 30);
        for length in 13..=130 {
            file[14] = length;
            assert_eq!(read(&file).is_ok(), HEADERS.contains(&length.into()), "{length}");
        }
    }

    #[test]
    fn only_legal_pairs_of_depth_and_compression_pass() {
        for (depth, compression) in [(1, 0), (24, 0), (8, 1), (4, 2), (16, 3), (32, 3), (32, 6)] {
            assert!(with_depth_and_compression(depth, compression).is_ok());
        }
        for (depth, compression) in [(40, 0), (0, 0), (4, 1), (24, 3), (8, 4), (8, 5), (32, 99)] {
            assert!(with_depth_and_compression(depth, compression).is_err());
        }
    }
}
