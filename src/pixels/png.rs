//! Decodes and encodes PNG.
//!
//! Rows are decoded one by one and laid on white at once, so only the finished picture is held. An interlaced picture
//! is held twice, since its rows come in seven passes.

use png::{BitDepth, ColorType, Compression, Decoder, Encoder, EncodingError, Filter, Reader};
use png::{Limits, Transformations};

use super::colour::on_white;
use super::error::{PixelsError, check_size};
use super::raster::{Raster, Samples, bytes};
use crate::image::Size;
use crate::image::format::Format;

/// What the decoder may allocate for chunks, beside the rows, in bytes. Profiles and texts are not read.
const CHUNKS: usize = 1 << 20;

/// The position of the colour type in the file, and of the interlace method.
const COLOUR_TYPE: usize = 25;
const INTERLACE: usize = 28;

/// The samples of the picture that [`decode`] makes of this file.
pub(super) fn samples(file: &[u8]) -> Samples {
    match file.get(COLOUR_TYPE) {
        Some(0 | 4) => Samples::Gray,
        _ => Samples::Rgb,
    }
}

/// An upper bound of the bytes that [`decode`] allocates for a picture of this size.
pub(super) fn memory(size: Size, file: &[u8]) -> u64 {
    let is_interlaced = file.get(INTERLACE) != Some(&0);
    let picture = bytes(size, samples(file)).map_or(u64::MAX, |bytes| bytes as u64);
    // Four samples of eight bits, as the rows come from the decoder.
    let passes = if is_interlaced { size.pixels().get().saturating_mul(4) } else { 0 };
    // Rows of four samples of sixteen bits: filtered, unfiltered (in a buffer of several), transformed.
    let rows = 12 * u64::from(size.width) * 8;
    picture.saturating_add(passes).saturating_add(rows).saturating_add(2 * CHUNKS as u64)
}

/// Decodes a picture whose header gives `size`.
pub(super) fn decode(file: &[u8], size: Size) -> Result<Raster, PixelsError> {
    let damaged = |error: png::DecodingError| PixelsError::damaged(Format::Png, error);
    let mut decoder =
        Decoder::new_with_limits(std::io::Cursor::new(file), Limits { bytes: CHUNKS });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = reader.info().size();
    check_size(size, Size::new(width, height))?;
    let (colours, _) = reader.output_color_type();
    let (samples, stored) = match colours {
        ColorType::Grayscale => (Samples::Gray, 1),
        ColorType::GrayscaleAlpha => (Samples::Gray, 2),
        ColorType::Rgb => (Samples::Rgb, 3),
        ColorType::Rgba => (Samples::Rgb, 4),
        ColorType::Indexed => return Err(PixelsError::Unsupported { what: "a PNG of indices" }),
    };
    let too_large = || PixelsError::damaged(Format::Png, "it is larger than the address space");
    let mut raster = Raster::filled(size, samples, u8::MAX).ok_or_else(too_large)?;
    let rows = raster.data_mut().chunks_exact_mut(width as usize * samples.count());
    let mut is_flattened = false;
    let mut lay = |row: &[u8], into: &mut [u8]| is_flattened |= lay_on_white(colours, row, into);
    if reader.info().interlaced {
        let mut all = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
        reader.next_frame(&mut all).map_err(damaged)?;
        for (into, row) in rows.zip(all.chunks_exact(width as usize * stored)) {
            lay(row, into);
        }
    } else {
        decode_rows(&mut reader, rows, lay).map_err(damaged)?;
    }
    Ok(raster.uncertain_if(is_flattened))
}

fn decode_rows<'a>(
    reader: &mut Reader<std::io::Cursor<&[u8]>>,
    rows: impl Iterator<Item = &'a mut [u8]>,
    mut lay: impl FnMut(&[u8], &mut [u8]),
) -> Result<(), png::DecodingError> {
    for into in rows {
        // The number of rows is that of the header, which was compared before.
        let Some(row) = reader.next_row()? else { return Ok(()) };
        lay(row.data(), into);
    }
    Ok(())
}

/// Lays a row on white. Returns whether one of its pixels is transparent.
fn lay_on_white(colours: ColorType, row: &[u8], into: &mut [u8]) -> bool {
    let mut opacity = u8::MAX;
    match colours {
        ColorType::GrayscaleAlpha => {
            for (into, &[gray, alpha]) in into.iter_mut().zip(row.as_chunks().0) {
                *into = on_white(gray, alpha);
                opacity &= alpha;
            }
        }
        ColorType::Rgba => {
            let pixels = into.as_chunks_mut::<3>().0.iter_mut();
            for (into, &[red, green, blue, alpha]) in pixels.zip(row.as_chunks().0) {
                *into = [red, green, blue].map(|sample| on_white(sample, alpha));
                opacity &= alpha;
            }
        }
        _ => into.copy_from_slice(row),
    }
    opacity < u8::MAX
}

/// Encodes a picture without loss.
pub(super) fn encode(raster: &Raster) -> Result<Vec<u8>, EncodingError> {
    let Size { width, height } = raster.size();
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width, height);
    encoder.set_color(match raster.samples() {
        Samples::Gray => ColorType::Grayscale,
        Samples::Rgb => ColorType::Rgb,
    });
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    encoder.set_filter(Filter::Adaptive);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(raster.data())?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::drawn::scene;
    use super::*;

    const SIZE: Size = Size::new(13, 5);

    fn file(
        colours: ColorType,
        depth: BitDepth,
        row: &[u8],
        edit: impl Fn(&mut png::Info<'_>),
    ) -> Vec<u8> {
        let mut info = png::Info::with_size(SIZE.width, SIZE.height);
        (info.color_type, info.bit_depth) = (colours, depth);
        edit(&mut info);
        let mut file = Vec::new();
        let mut writer = Encoder::with_info(&mut file, info).unwrap().write_header().unwrap();
        writer.write_image_data(&row.repeat(SIZE.height as usize)).unwrap();
        writer.finish().unwrap();
        file
    }

    /// The first pixels of the first row.
    fn first(file: &[u8], count: usize) -> (Samples, Vec<u8>) {
        let picture = decode(file, SIZE).unwrap();
        assert_eq!(picture.samples(), samples(file), "the memory is counted for another kind");
        let row = 13 * picture.samples().count();
        assert_eq!(picture.data()[..row], picture.data()[4 * row..], "all rows are equal");
        (picture.samples(), picture.data()[..count].to_vec())
    }

    #[test]
    fn gray_of_any_depth_is_stretched_to_eight_bits() {
        for (depth, row, expected) in [
            (BitDepth::One, vec![0b0110_0000, 0], [0, 255, 255, 0]),
            (BitDepth::Two, vec![0b0001_1011, 0, 0, 0], [0, 85, 170, 255]),
            (BitDepth::Four, vec![0x01, 0x8f, 0, 0, 0, 0, 0], [0, 17, 136, 255]),
            (BitDepth::Eight, vec![0, 7, 200, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 7, 200, 255]),
            (
                BitDepth::Sixteen,
                [&[0, 9, 7, 0, 200, 99, 255, 255][..], &[0; 18]].concat(),
                [0, 7, 200, 255],
            ),
        ] {
            let file = file(ColorType::Grayscale, depth, &row, |_| {});
            assert_eq!(first(&file, 4), (Samples::Gray, expected.to_vec()), "{depth:?}");
        }
    }

    #[test]
    fn transparent_pixels_are_white_and_half_transparent_ones_half() {
        let row: Vec<u8> = [[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]].concat();
        let row = [&row[..], &[0; 40]].concat();
        let rgba = file(ColorType::Rgba, BitDepth::Eight, &row, |_| {});
        let expected = vec![10, 20, 30, 255, 255, 255, 127, 127, 127];
        assert_eq!(first(&rgba, 9), (Samples::Rgb, expected));
        let row = [&[10, 255, 10, 0, 0, 128][..], &[0; 20]].concat();
        let gray = file(ColorType::GrayscaleAlpha, BitDepth::Eight, &row, |_| {});
        assert_eq!(first(&gray, 3), (Samples::Gray, vec![10, 255, 127]));
        let row = [&[10, 9, 255, 255, 10, 9, 0, 0][..], &[0; 44]].concat();
        let deep = file(ColorType::GrayscaleAlpha, BitDepth::Sixteen, &row, |_| {});
        assert_eq!(first(&deep, 2), (Samples::Gray, vec![10, 255]));
    }

    #[test]
    fn palettes_and_transparent_colours_are_applied() {
        let palette = vec![1, 2, 3, 200, 100, 50, 9, 9, 9];
        let row = [&[0b0001_1000][..], &[0; 3]].concat();
        let indexed = file(ColorType::Indexed, BitDepth::Two, &row, |info| {
            info.palette = Some(palette.clone().into());
            info.trns = Some(vec![255, 0].into());
        });
        let expected = vec![1, 2, 3, 255, 255, 255, 9, 9, 9];
        assert_eq!(first(&indexed, 9), (Samples::Rgb, expected));
        let gray = file(ColorType::Grayscale, BitDepth::Eight, &[7; 13], |info| {
            info.trns = Some(vec![0, 7].into());
        });
        assert_eq!(first(&gray, 2), (Samples::Gray, vec![255, 255]));
    }

    #[test]
    fn only_a_picture_with_transparent_pixels_is_uncertain() {
        let is_flattened = |row: &[u8]| {
            let file = file(ColorType::GrayscaleAlpha, BitDepth::Eight, row, |_| {});
            decode(&file, SIZE).unwrap().is_uncertain()
        };
        let opaque = [9, 255].repeat(13);
        let mut row = opaque.clone();
        row[25] = 254;
        assert!(!is_flattened(&opaque));
        assert!(is_flattened(&row));
        let gray = |of: u8| {
            let row = [of; 13];
            let edit = |info: &mut png::Info<'_>| info.trns = Some(vec![0, 7].into());
            let file = file(ColorType::Grayscale, BitDepth::Eight, &row, edit);
            decode(&file, SIZE).unwrap().is_uncertain()
        };
        assert_eq!([gray(7), gray(8)], [true, false], "one level of gray is transparent");
    }

    #[test]
    fn an_encoded_picture_is_decoded_to_the_same() {
        for samples in [Samples::Gray, Samples::Rgb] {
            let picture = scene(Size::new(131, 77), samples);
            assert_eq!(decode(&encode(&picture).unwrap(), picture.size()), Ok(picture));
        }
    }

    #[test]
    fn a_cut_file_and_another_size_are_refused() {
        let picture = scene(SIZE, Samples::Rgb);
        let file = encode(&picture).unwrap();
        for length in 0..file.len() {
            match decode(&file[..length], SIZE) {
                Ok(whole) => {
                    assert_eq!(whole, picture, "only what follows the last row is missing");
                }
                Err(_) => assert!(length < file.len() - 12, "{length}"),
            }
        }
        assert!(decode(&file[..file.len() / 2], SIZE).is_err());
        let header = Size::new(13, 6);
        assert_eq!(decode(&file, header), Err(PixelsError::SizeDiffers { header, decoded: SIZE }));
    }
}
