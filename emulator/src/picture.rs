//! Images: their headers, and the pixels that the model would see.
//!
//! The header is read and checked first; only an image within the pixel ceiling is decoded. Then the image is rotated
//! upright and scaled to exactly the size of the token formula, so that a lower `max_pixels` costs legibility as it
//! does at the service. The vendor documents neither of two assumptions: EXIF orientation is applied before anything is
//! measured, and transparent parts are shown on white.
//!
//! HEIC is documented for the service and not decoded here; GIF is not documented and refused. Of a TIFF with several
//! pages the first is read.

use std::io::Cursor;

use bytes::Bytes;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};

use crate::geometry::Scaled;

/// Pixels of the largest image that is decoded. The vendor advises at most 15.68 million; the largest
/// worked example has 48 million.
const MOST_PIXELS: u64 = 80_000_000;

/// The most memory of a decoder, in bytes.
const MOST_DECODED_BYTES: u64 = 640 * 1024 * 1024;

/// Both sides must be larger than this many pixels.
const SHORTEST_SIDE: u32 = 10;

/// The maximum ratio of the sides.
const MOST_ELONGATED: u64 = 200;

/// An image with a valid header.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    bytes: Bytes,
    format: ImageFormat,
    /// Width in pixels after orientation.
    pub(crate) width: u32,
    /// Height in pixels after orientation.
    pub(crate) height: u32,
}

/// The reason why an image is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Not an image of a known format, or a broken one.
    Undecodable,
    /// Larger than the ceiling.
    TooLarge,
    /// A side is too short.
    TooSmall { width: u32, height: u32 },
    /// The ratio of the sides is too large.
    TooElongated,
}

impl Unreadable {
    /// The vendor's error for it.
    pub(crate) fn message(self) -> String {
        const MODEL: &str = "The image length and width do not meet the model restrictions.";
        match self {
            Self::Undecodable => {
                "Failed to decode the image during the data inspection.".to_owned()
            }
            Self::TooLarge => "Multimodal file size is too large".to_owned(),
            Self::TooSmall { width, height } => {
                format!("{MODEL} [height:{height} or width:{width} must be larger than 10]")
            }
            Self::TooElongated => {
                format!("{MODEL} [absolute aspect ratio must be smaller than 200]")
            }
        }
    }
}

impl Picture {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// [`Unreadable::Undecodable`] for anything but JPEG, PNG, WebP, BMP and TIFF.
    pub(crate) fn probe(bytes: Bytes) -> Result<Self, Unreadable> {
        let format = image::guess_format(&bytes).map_err(|_| Unreadable::Undecodable)?;
        let bytes = if format == ImageFormat::Png { with_last_header(bytes) } else { bytes };
        let mut decoder = decoder(&bytes, format)?;
        let (width, height) = decoder.dimensions();
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        drop(decoder);
        let (width, height) =
            if lies_on_its_side(orientation) { (height, width) } else { (width, height) };
        Ok(Self { bytes, format, width, height })
    }

    /// Checks the sides against the vendor's limits.
    ///
    /// # Errors
    ///
    /// The [`Unreadable`] for the limit.
    pub(crate) fn judge(&self) -> Result<(), Unreadable> {
        let (width, height) = (self.width, self.height);
        if width <= SHORTEST_SIDE || height <= SHORTEST_SIDE {
            return Err(Unreadable::TooSmall { width, height });
        }
        if u64::from(width) * u64::from(height) > MOST_PIXELS {
            return Err(Unreadable::TooLarge);
        }
        let (longer, shorter) = (u64::from(width.max(height)), u64::from(width.min(height)));
        if longer > MOST_ELONGATED * shorter {
            return Err(Unreadable::TooElongated);
        }
        Ok(())
    }

    /// Whether a declared media type matches the format of the bytes.
    pub(crate) fn is_a(&self, media_type: &str) -> bool {
        let subtype = media_type.trim().to_ascii_lowercase();
        let names: &[&str] = match self.format {
            ImageFormat::Jpeg => &["image/jpeg", "image/jpg"],
            ImageFormat::Png => &["image/png"],
            ImageFormat::WebP => &["image/webp"],
            ImageFormat::Bmp => &["image/bmp"],
            ImageFormat::Tiff => &["image/tiff", "image/tif"],
            _ => &[],
        };
        names.contains(&subtype.as_str())
    }

    /// Decodes the image, rotates it upright and scales it. Slow: run it on the blocking pool.
    ///
    /// # Errors
    ///
    /// [`Unreadable::Undecodable`] if the pixels are broken, [`Unreadable::TooLarge`] if they would take too much
    /// memory.
    pub(crate) fn shown_at(&self, scaled: Scaled) -> Result<RgbImage, Unreadable> {
        self.judge()?;
        let mut decoder = decoder(&self.bytes, self.format)?;
        if decoder.total_bytes() > MOST_DECODED_BYTES {
            return Err(Unreadable::TooLarge);
        }
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(|_| Unreadable::Undecodable)?;
        image.apply_orientation(orientation);
        let image = on_white(image);
        if image.dimensions() == (scaled.width, scaled.height) {
            return Ok(image);
        }
        let filter = image::imageops::FilterType::CatmullRom;
        // Through `DynamicImage`, because the image crate has that code compiled with optimisation.
        Ok(DynamicImage::ImageRgb8(image)
            .resize_exact(scaled.width, scaled.height, filter)
            .into_rgb8())
    }
}

/// Bytes of a PNG file before its first chunk, and of a chunk beside its data.
const SIGNATURE: usize = 8;
const CHUNK: usize = 12;

/// A PNG file as Pillow reads it: of several IHDR chunks before the picture data, the last counts.
fn with_last_header(bytes: Bytes) -> Bytes {
    let (mut headers, mut others) = (Vec::new(), Vec::new());
    let mut at = SIGNATURE;
    while let Some(head) = bytes.get(at..at + SIGNATURE) {
        let (length, kind) = head.split_at(4);
        let length = length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        let Some(chunk) = bytes.get(at..at + CHUNK + length).filter(|_| kind != b"IDAT") else {
            break;
        };
        let chunks = if kind == b"IHDR" { &mut headers } else { &mut others };
        chunks.push(chunk);
        at += chunk.len();
    }
    match headers[..] {
        [.., _, last] => {
            [&bytes[..SIGNATURE], last, &others.concat(), &bytes[at..]].concat().into()
        }
        _ => bytes,
    }
}

fn decoder(bytes: &[u8], format: ImageFormat) -> Result<impl ImageDecoder + '_, Unreadable> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_DECODED_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    reader.into_decoder().map_err(|_| Unreadable::Undecodable)
}

fn lies_on_its_side(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// The image without transparency, on a white background.
fn on_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let pixels = image.into_rgba8();
    let mut paper = RgbImage::new(pixels.width(), pixels.height());
    for (shown, pixel) in paper.pixels_mut().zip(pixels.pixels()) {
        let [red, green, blue, alpha] = pixel.0;
        *shown = Rgb([red, green, blue].map(|channel| blend(channel, alpha)));
    }
    paper
}

/// One channel blended by its alpha with white.
fn blend(channel: u8, alpha: u8) -> u8 {
    let (channel, alpha) = (u32::from(channel), u32::from(alpha));
    let mixed = (channel * alpha + 255 * (255 - alpha) + 127) / 255;
    u8::try_from(mixed).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use image::Rgba;

    use super::*;

    fn png(image: &DynamicImage) -> Bytes {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner().into()
    }

    fn blank(width: u32, height: u32) -> Picture {
        let page = RgbImage::from_pixel(width, height, Rgb([255; 3]));
        Picture::probe(png(&DynamicImage::ImageRgb8(page))).unwrap()
    }

    #[test]
    fn an_image_is_shown_at_the_size_of_the_formula() {
        let scaled = Scaled { width: 96, height: 64, tokens: 8 };
        assert_eq!(blank(100, 70).shown_at(scaled).unwrap().dimensions(), (96, 64));
    }

    #[test]
    fn the_vendors_limits_of_sides_are_exclusive_of_ten_and_inclusive_of_two_hundred() {
        assert_eq!(blank(11, 2200).judge(), Ok(()));
        assert_eq!(blank(11, 2201).judge(), Err(Unreadable::TooElongated));
        assert_eq!(blank(10, 50).judge(), Err(Unreadable::TooSmall { width: 10, height: 50 }));
    }

    /// A JPEG with an EXIF block of one entry, the orientation (TIFF 6.0, tag 274).
    fn turned_jpeg(width: u32, height: u32, orientation: u8) -> Bytes {
        let mut plain = Cursor::new(Vec::new());
        RgbImage::new(width, height).write_to(&mut plain, ImageFormat::Jpeg).unwrap();
        let plain = plain.into_inner();
        let mut block =
            b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        block.extend([orientation, 0, 0, 0, 0, 0, 0]);
        [&plain[..2], &block, &plain[2..]].concat().into()
    }

    #[test]
    fn an_image_is_measured_and_shown_as_its_exif_orientation_turns_it() {
        let picture = Picture::probe(turned_jpeg(160, 96, 6)).unwrap();
        assert_eq!((picture.width, picture.height), (96, 160));
        let shown = picture.shown_at(Scaled { width: 96, height: 160, tokens: 17 }).unwrap();
        assert_eq!(shown.dimensions(), (96, 160));
        let upright = Picture::probe(turned_jpeg(160, 96, 1)).unwrap();
        assert_eq!((upright.width, upright.height), (160, 96));
    }

    #[test]
    fn the_last_of_two_headers_of_a_png_counts_as_in_pillow() {
        let header = |side| png(&DynamicImage::new_luma8(side, side))[8..33].to_vec();
        let large = png(&DynamicImage::new_luma8(2_000, 2_000));
        let two = Bytes::from([&large[..8], &header(64), &large[8..]].concat());
        let picture = Picture::probe(two).unwrap();
        assert_eq!((picture.width, picture.height), (2_000, 2_000));
        assert!(picture.shown_at(Scaled { width: 64, height: 64, tokens: 6 }).is_ok());
    }

    #[test]
    fn what_is_transparent_is_shown_as_white() {
        let glass = image::RgbaImage::from_pixel(64, 64, Rgba([0, 0, 0, 0]));
        let picture = Picture::probe(png(&DynamicImage::ImageRgba8(glass))).unwrap();
        let shown = picture.shown_at(Scaled { width: 64, height: 64, tokens: 6 }).unwrap();
        assert!(shown.pixels().all(|pixel| pixel.0 == [255; 3]));
    }

    #[test]
    fn formats_that_are_not_read_are_undecodable() {
        for bytes in
            [&b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"[..], b"\0\0\0\x18ftypheic", b"<html>", b""]
        {
            let outcome = Picture::probe(Bytes::copy_from_slice(bytes));
            assert_eq!(outcome.unwrap_err(), Unreadable::Undecodable);
        }
    }
}
