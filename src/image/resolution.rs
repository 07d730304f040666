//! The resolution that a file states: how large its picture is on paper.

use super::byte_order::ByteOrder::{Big, Little};
use super::format::Format;
use super::tagged::TagDirectory;

/// Pixels for an inch, across and down, as the pixels are stored.
pub(crate) type Resolution = [f64; 2];

/// The resolutions that are believed, in pixels for an inch. Others are mistakes of the writer.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 20.0..=5_000.0;

const INCHES_IN_A_METRE: f64 = 39.370_078_740_157_48;
const CENTIMETRES_IN_AN_INCH: f64 = 2.54;

/// Fields of a TIFF.
const ACROSS: u16 = 282;
const DOWN: u16 = 283;
const UNIT: u16 = 296;

/// The most chunks of a PNG before its resolution.
const MAX_CHUNKS: usize = 64;

/// The resolution that a file of this format states. Of a TIFF, that of the first page. EXIF is not asked: cameras
/// write 72 there, which means nothing.
pub(crate) fn of(file: &[u8], format: Format) -> Option<Resolution> {
    match format {
        Format::Jpeg => of_jfif(file),
        Format::Png => of_png(file),
        Format::Bmp => of_bmp(file),
        Format::Tiff => of_directory(&TagDirectory::first(file)?),
        Format::Webp | Format::Heic => None,
    }
}

/// The resolution of a page of a TIFF.
pub(crate) fn of_directory(directory: &TagDirectory<'_>) -> Option<Resolution> {
    let factor = match directory.number(UNIT) {
        None | Some(2) => 1.0,
        Some(3) => CENTIMETRES_IN_AN_INCH,
        Some(_) => return None,
    };
    plausible([directory.rational(ACROSS)? * factor, directory.rational(DOWN)? * factor])
}

/// JPEG File Interchange Format 1.02: APP0 follows the start of the image.
fn of_jfif(file: &[u8]) -> Option<Resolution> {
    if file.get(2..4)? != [0xff, 0xe0] || file.get(6..11)? != b"JFIF\0" {
        return None;
    }
    let factor = match file.get(13)? {
        1 => 1.0,
        2 => CENTIMETRES_IN_AN_INCH,
        _ => return None,
    };
    let side = |place| Big.u16(file, place).map(|number| f64::from(number) * factor);
    plausible([side(14)?, side(16)?])
}

/// PNG, section 11.3.4.3: the chunk pHYs stands before the picture data.
fn of_png(file: &[u8]) -> Option<Resolution> {
    let mut place = 8_usize;
    for _ in 0..MAX_CHUNKS {
        let length = usize::try_from(Big.u32(file, place)?).ok()?;
        let data = place.checked_add(8)?;
        match file.get(place + 4..data)? {
            b"IDAT" => return None,
            b"pHYs" if file.get(data + 8) == Some(&1) => {
                return plausible(metric([Big.u32(file, data)?, Big.u32(file, data + 4)?]));
            }
            _ => place = data.checked_add(length)?.checked_add(4)?,
        }
    }
    None
}

/// The fields `biXPelsPerMeter` and `biYPelsPerMeter`.
fn of_bmp(file: &[u8]) -> Option<Resolution> {
    if Little.u32(file, 14)? < 40 {
        return None;
    }
    plausible(metric([Little.u32(file, 38)?, Little.u32(file, 42)?]))
}

/// Pixels for an inch, of pixels for a metre.
fn metric(sides: [u32; 2]) -> Resolution {
    // Whole numbers of pixels for an inch are rounded in metric units.
    sides.map(|side| (f64::from(side) / INCHES_IN_A_METRE * 100.0).round() / 100.0)
}

fn plausible(resolution: Resolution) -> Option<Resolution> {
    resolution.iter().all(|side| PLAUSIBLE.contains(side)).then_some(resolution)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_states_its_resolution_by_the_inch_or_by_the_centimetre() {
        let jfif = |unit: u8, sides: [u16; 2]| {
            let mut file = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x02".to_vec();
            file.push(unit);
            file.extend(sides.iter().flat_map(|side| side.to_be_bytes()));
            of(&file, Format::Jpeg)
        };
        assert_eq!(jfif(1, [300, 150]), Some([300.0, 150.0]));
        assert_eq!(jfif(2, [100, 100]), Some([254.0, 254.0]));
        assert_eq!(jfif(0, [1, 1]), None, "an aspect is no resolution");
        assert_eq!(jfif(1, [1, 1]), None, "one pixel for an inch is a mistake");
        assert_eq!(of(b"\xff\xd8\xff\xe1", Format::Jpeg), None);
    }

    #[test]
    fn a_png_and_a_bmp_state_theirs_by_the_metre() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x01gAMA\0\0\0\0\0".to_vec();
        png.extend_from_slice(b"\0\0\0\x09pHYs\0\0\x2e\x23\0\0\x2e\x23\x01");
        assert_eq!(of(&png, Format::Png), Some([300.0, 300.0]));
        let last = png.len() - 1;
        png[last] = 0;
        assert_eq!(of(&png, Format::Png), None);
        let mut bmp = vec![0; 54];
        bmp[14] = 40;
        bmp[38..42].copy_from_slice(&3780_u32.to_le_bytes());
        bmp[42..46].copy_from_slice(&3780_u32.to_le_bytes());
        assert_eq!(of(&bmp, Format::Bmp), Some([96.01, 96.01]));
    }

    #[test]
    fn a_tiff_states_its_resolution_by_its_unit() {
        let tiff = |unit: u8| {
            let mut file = b"II*\0\x08\0\0\0\x03\0".to_vec();
            for (tag, kind, value) in [(ACROSS, 5, 50), (DOWN, 5, 58), (UNIT, 3, u32::from(unit))] {
                file.extend_from_slice(&tag.to_le_bytes());
                file.extend_from_slice(&[kind, 0, 1, 0, 0, 0]);
                file.extend_from_slice(&u32::to_le_bytes(value));
            }
            file.extend_from_slice(&[0; 4]);
            for number in [200_u32, 1, 100, 1] {
                file.extend_from_slice(&number.to_le_bytes());
            }
            of(&file, Format::Tiff)
        };
        assert_eq!(tiff(2), Some([200.0, 100.0]));
        assert_eq!(tiff(3), Some([508.0, 254.0]));
        assert_eq!(tiff(1), None);
    }
}
