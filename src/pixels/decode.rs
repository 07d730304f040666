//! Decodes a picture of any format that DashScope takes, but HEIC.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::bmp::BmpDecoder;
use image_webp::WebPDecoder;

use super::colour::on_white;
use super::error::{PixelsError, check_size};
use super::finishing::{FIXED, finishing_memory};
use super::raster::{Raster, Samples, bytes};
use super::{jpeg, png, tiff};
use crate::image::Size;
use crate::image::format::Format;
use crate::image::header::ImageHeader;

/// Decodes the picture of a file as it is stored, not yet upright. Of a TIFF, the first page.
///
/// `header` is what [`probe`](crate::image::probe::probe) found in `file`. The caller bounds its pixels: the memory
/// that is allocated follows from them ([`decode_memory`]).
///
/// Transparent pixels are laid on white. Samples of 16 bits keep their upper half.
///
/// # Errors
///
/// - [`PixelsError::Unsupported`] for HEIC, and for rare kinds of the other formats.
/// - [`PixelsError::Damaged`] if the file violates its format.
/// - [`PixelsError::SizeDiffers`] if the decoder finds another size than `header`.
pub fn decode(file: &[u8], header: &ImageHeader) -> Result<Raster, PixelsError> {
    let size = header.stored;
    match header.format {
        Format::Jpeg => jpeg::decode(file, size),
        Format::Png => png::decode(file, size),
        Format::Webp => decode_webp(file, size),
        Format::Bmp => decode_bmp(file, size),
        Format::Tiff => tiff::decode_first(file, size),
        // Every decoder of HEVC is under a licence with duties for its users (docs/adr/0022-documents.md).
        Format::Heic => Err(PixelsError::Unsupported { what: "a HEIC picture" }),
    }
}

/// An upper bound of the bytes that are allocated to [`decode`] a picture, to [resize](Raster::resized) it to a size
/// that is not above `to`, to turn it [upright](Raster::upright) and to [encode](super::encode::encode) it.
///
/// It is computed from the header and the first fields of `file`, and takes microseconds. The file itself is not
/// counted. A damaged file that is refused may take more in a few formats (WebP, TIFF), so the process that decodes
/// needs a limit of its own.
pub fn decode_memory(file: &[u8], header: &ImageHeader, to: Size) -> u64 {
    let size = header.stored;
    let frame = jpeg::Frame::of(file).filter(|_| header.format == Format::Jpeg);
    let (decoding, samples) = match header.format {
        Format::Jpeg => (jpeg::memory(size, frame, file), jpeg::samples(frame)),
        Format::Png => (png::memory(size, file), png::samples(file)),
        Format::Webp => (webp_memory(size), Samples::Rgb),
        Format::Bmp => (bmp_memory(size), Samples::Rgb),
        Format::Tiff => (tiff::first_memory(file, size), Samples::Rgb),
        Format::Heic => return 0,
    };
    decoding.max(finishing_memory(size, samples, to))
}

fn webp_memory(size: Size) -> u64 {
    // The picture and, of one frame, its luma and chroma, or four samples with those of the transforms; of an animation
    // also a canvas. A frame is padded to macroblocks of 16 pixels.
    let padded = |side: u32| u64::from(side).next_multiple_of(16);
    (padded(size.width) * padded(size.height)).saturating_mul(16).saturating_add(FIXED)
}

fn bmp_memory(size: Size) -> u64 {
    // Four samples for each pixel, and a row.
    size.pixels().get().saturating_mul(4).saturating_add(FIXED)
}

fn decode_webp(file: &[u8], size: Size) -> Result<Raster, PixelsError> {
    let damaged = |error: image_webp::DecodingError| PixelsError::damaged(Format::Webp, error);
    let mut decoder = WebPDecoder::new(Cursor::new(file)).map_err(damaged)?;
    decoder.set_memory_limit(usize::try_from(webp_memory(size)).unwrap_or(usize::MAX));
    let (width, height) = decoder.dimensions();
    check_size(size, Size::new(width, height))?;
    let samples = if decoder.has_alpha() { 4 } else { 3 };
    let mut data = buffer(Format::Webp, size, samples)?;
    decoder.read_image(&mut data).map_err(damaged)?;
    from_samples(Format::Webp, size, samples, data)
}

fn decode_bmp(file: &[u8], size: Size) -> Result<Raster, PixelsError> {
    let damaged = |error: image::ImageError| PixelsError::damaged(Format::Bmp, error);
    let mut limits = image::Limits::no_limits();
    limits.max_image_width = Some(size.width);
    limits.max_image_height = Some(size.height);
    limits.max_alloc = Some(bmp_memory(size));
    let mut decoder = BmpDecoder::new(Cursor::new(file)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(size, Size::new(width, height))?;
    decoder.set_limits(limits).map_err(damaged)?;
    let samples = usize::from(decoder.color_type().channel_count());
    let mut data = buffer(Format::Bmp, size, samples)?;
    decoder.read_image(&mut data).map_err(damaged)?;
    from_samples(Format::Bmp, size, samples, data)
}

fn buffer(format: Format, size: Size, samples: usize) -> Result<Vec<u8>, PixelsError> {
    let length = bytes(size, Samples::Gray).and_then(|pixels| pixels.checked_mul(samples));
    let too_large = || PixelsError::damaged(format, "it is larger than the address space");
    length.map(|length| vec![0; length]).ok_or_else(too_large)
}

/// A picture of one, three or four samples, the fourth of which is opacity.
fn from_samples(
    format: Format,
    size: Size,
    samples: usize,
    mut data: Vec<u8>,
) -> Result<Raster, PixelsError> {
    let mut is_flattened = false;
    if samples == 4 {
        // In place: pixel by pixel, the three bytes of the result end before the four that are read next.
        for pixel in 0..data.len() / 4 {
            let alpha = data[4 * pixel + 3];
            is_flattened |= alpha < u8::MAX;
            for sample in 0..3 {
                data[3 * pixel + sample] = on_white(data[4 * pixel + sample], alpha);
            }
        }
        data.truncate(data.len() / 4 * 3);
    }
    let samples = if samples == 1 { Samples::Gray } else { Samples::Rgb };
    Raster::new(size, samples, data)
        .map(|raster| raster.uncertain_if(is_flattened))
        .ok_or_else(|| PixelsError::damaged(format, "it has samples of an unknown kind"))
}

#[cfg(test)]
mod tests {
    use image::ExtendedColorType::{L8, Rgb8, Rgba8};
    use image::ImageEncoder;
    use image::codecs::bmp::BmpEncoder;
    use image::codecs::webp::WebPEncoder;

    use super::super::drawn::{header, low, scene};
    use super::*;

    const SIZE: Size = Size::new(33, 21);

    /// The same picture with an opacity that falls from left to right.
    fn with_opacity(picture: &Raster) -> (Vec<u8>, Raster) {
        let pixels = || picture.data().as_chunks::<3>().0.iter().zip((0..SIZE.width).cycle());
        let alpha = |x: u32| low(255 - 7 * x);
        let data = pixels().flat_map(|(&[red, green, blue], x)| [red, green, blue, alpha(x)]);
        let seen = pixels().flat_map(|(pixel, x)| pixel.map(|sample| on_white(sample, alpha(x))));
        let seen = Raster::new(SIZE, Samples::Rgb, seen.collect()).unwrap();
        (data.collect(), seen.uncertain_if(true))
    }

    #[test]
    fn webp_and_bmp_are_read_with_their_opacity_on_white() {
        let opaque = scene(SIZE, Samples::Rgb);
        let (data, seen) = with_opacity(&opaque);
        for (data, colours, expected) in [(opaque.data(), Rgb8, &opaque), (&data, Rgba8, &seen)] {
            let (mut webp, mut bmp) = (Vec::new(), Vec::new());
            WebPEncoder::new_lossless(&mut webp)
                .write_image(data, SIZE.width, SIZE.height, colours)
                .unwrap();
            BmpEncoder::new(&mut bmp).write_image(data, SIZE.width, SIZE.height, colours).unwrap();
            assert_eq!(&decode(&webp, &header(Format::Webp, SIZE)).unwrap(), expected);
            assert_eq!(&decode(&bmp, &header(Format::Bmp, SIZE)).unwrap(), expected);
        }
        let mut bmp = Vec::new();
        let gray = scene(SIZE, Samples::Gray);
        BmpEncoder::new(&mut bmp).write_image(gray.data(), SIZE.width, SIZE.height, L8).unwrap();
        let read = decode(&bmp, &header(Format::Bmp, SIZE)).unwrap();
        assert_eq!(read.without_empty_colour(), gray);
    }

    #[test]
    fn heic_is_refused_by_name() {
        let refused = decode(b"", &header(Format::Heic, SIZE)).unwrap_err();
        assert_eq!(refused.to_string(), "is a HEIC picture, which is not decoded here");
    }

    #[test]
    fn a_header_that_differs_from_the_file_is_refused_in_every_format() {
        for file in ["hello.bmp", "hello.jpg", "hello.png", "hello.tif", "hello.webp"] {
            let file = std::fs::read(format!("tests/fixtures/{file}")).unwrap();
            let header = crate::image::probe::probe(&file).unwrap();
            assert_eq!(decode(&file, &header).unwrap().size(), header.stored);
            let Size { width, height } = header.stored;
            for stored in
                [Size::new(width + 1, height), Size::new(width, height - 1), Size::new(1, 1)]
            {
                assert!(decode(&file, &ImageHeader { stored, ..header }).is_err(), "{header:?}");
            }
        }
    }
}
