//! Takes a picture into a PDF as it is stored: a JPEG with all its bytes, and the compressed data of a PNG.

use super::object::string;
use crate::image::Size;
use crate::image::byte_order::ByteOrder::Big;
use crate::image::format::{Format, Orientation};
use crate::image::resolution::Resolution;

use crate::document::page::PicturePage;

/// The resolution of a picture that states none, in pixels for an inch: a page of A4 then has 2.2 million pixels.
const DEFAULT_RESOLUTION: f64 = 150.0;

/// The longest side of a page that all viewers show, in points (ISO 32000-2, annex C).
const LONGEST_SIDE: f64 = 14_400.0;

const POINTS_IN_AN_INCH: f64 = 72.0;

/// The start of each PNG.
const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A picture as a stream of a PDF.
pub(in crate::document) struct Enclosed {
    /// The entries of the stream's dictionary, without the length.
    pub(in crate::document) entries: Vec<u8>,
    /// Its data.
    pub(in crate::document) data: Vec<u8>,
}

/// The picture of a file, if a PDF can have it as it is stored: a JPEG in gray or in colors, or a PNG that is neither
/// transparent nor interlaced.
///
/// JPEG with four inks is left out, because programs do not agree whether it is inverted.
pub(in crate::document) fn enclosed(file: &[u8], format: Format, size: Size) -> Option<Enclosed> {
    match format {
        Format::Jpeg => jpeg(file, size),
        Format::Png => png(file, size),
        Format::Webp | Format::Bmp | Format::Tiff | Format::Heic => None,
    }
}

/// The page on which a picture of this size stands.
pub(in crate::document) fn page_of(
    stored: Size,
    orientation: Orientation,
    resolution: Option<Resolution>,
) -> PicturePage {
    let resolution = resolution.unwrap_or([DEFAULT_RESOLUTION; 2]);
    let [mut width, mut height] = [(stored.width, resolution[0]), (stored.height, resolution[1])]
        .map(|(pixels, resolution)| f64::from(pixels) / resolution * POINTS_IN_AN_INCH);
    if orientation.swaps_sides() {
        (width, height) = (height, width);
    }
    // Both sides are made smaller alike.
    let scale = (LONGEST_SIDE / width.max(height)).min(1.0);
    let [width, height] = [width * scale, height * scale].map(|side| side.max(1.0));
    PicturePage { points: [width, height], placement: placement(orientation, width, height) }
}

/// Maps the unit square, in which PDF draws each picture, to an upright page.
const fn placement(orientation: Orientation, w: f64, h: f64) -> [f64; 6] {
    match orientation {
        Orientation::Upright => [w, 0.0, 0.0, h, 0.0, 0.0],
        Orientation::MirroredLeftRight => [-w, 0.0, 0.0, h, w, 0.0],
        Orientation::HalfTurn => [-w, 0.0, 0.0, -h, w, h],
        Orientation::MirroredTopBottom => [w, 0.0, 0.0, -h, 0.0, h],
        Orientation::Transposed => [0.0, -h, -w, 0.0, w, h],
        Orientation::QuarterTurnClockwise => [0.0, -h, w, 0.0, 0.0, h],
        Orientation::Transversed => [0.0, h, w, 0.0, 0.0, 0.0],
        Orientation::QuarterTurnCounterClockwise => [0.0, h, -w, 0.0, w, 0.0],
    }
}

fn entries(size: Size, color_space: &[u8], depth: u8, filter: &str) -> Vec<u8> {
    let Size { width, height } = size;
    let start = format!("/Type/XObject/Subtype/Image/Width {width}/Height {height}/ColorSpace ");
    let end = format!("/BitsPerComponent {depth}{filter}");
    [start.as_bytes(), color_space, end.as_bytes()].concat()
}

fn jpeg(file: &[u8], size: Size) -> Option<Enclosed> {
    let mut decoder = jpeg_decoder::Decoder::new(file);
    decoder.read_info().ok()?;
    let found = decoder.info()?;
    let color_space = match found.pixel_format {
        jpeg_decoder::PixelFormat::L8 => "/DeviceGray",
        jpeg_decoder::PixelFormat::RGB24 => "/DeviceRGB",
        jpeg_decoder::PixelFormat::L16 | jpeg_decoder::PixelFormat::CMYK32 => return None,
    };
    if size != Size::new(found.width.into(), found.height.into())
        || found.coding_process == jpeg_decoder::CodingProcess::Lossless
    {
        return None;
    }
    let entries = entries(size, color_space.as_bytes(), 8, "/Filter/DCTDecode");
    Some(Enclosed { entries, data: file.to_vec() })
}

fn png(file: &[u8], size: Size) -> Option<Enclosed> {
    let (mut palette, mut data) = (None, Vec::new());
    let mut chunks = Chunks { rest: file.strip_prefix(PNG_SIGNATURE)? };
    let (kind, header) = chunks.next()?;
    let &[depth, color, _, _, interlace] = header.get(8..)?.first_chunk()?;
    let stated = Size::new(Big.u32(header, 0)?, Big.u32(header, 4)?);
    if kind != b"IHDR" || stated != size || interlace != 0 {
        return None;
    }
    for (kind, chunk) in chunks {
        match kind {
            b"PLTE" => palette = Some(chunk),
            b"tRNS" => return None,
            b"IDAT" => data.extend_from_slice(chunk),
            b"IEND" => break,
            _ => {}
        }
    }
    let (color_space, components) = match color {
        0 => (b"/DeviceGray".to_vec(), 1),
        2 => (b"/DeviceRGB".to_vec(), 3),
        3 => (indexed(palette?)?, 1),
        _ => return None,
    };
    let filter = format!(
        "/Filter/FlateDecode/DecodeParms<</Predictor 15/Colors {components}/BitsPerComponent {depth}/Columns {}>>",
        size.width
    );
    let entries = entries(size, &color_space, depth, &filter);
    (!data.is_empty()).then_some(Enclosed { entries, data })
}

/// The color space of a palette.
fn indexed(palette: &[u8]) -> Option<Vec<u8>> {
    let last = (palette.len() / 3).checked_sub(1).filter(|last| *last < 256)?;
    let start = format!("[/Indexed/DeviceRGB {last}");
    Some([start.as_bytes(), &string(palette.get(..(last + 1) * 3)?), b"]"].concat())
}

/// The chunks of a PNG: the type and the data of each.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::try_from(Big.u32(self.rest, 0)?).ok()?;
        let kind = self.rest.get(4..)?.first_chunk()?;
        let data = self.rest.get(8..)?.get(..length)?;
        self.rest = self.rest.get(length.checked_add(12)?..).unwrap_or_default();
        Some((kind, data))
    }
}
