//! Decodes JPEG (ITU-T T.81): baseline and progressive, gray, YCbCr, RGB, CMYK and YCCK.
//!
//! A file that ends within its data is decoded as viewers do: what is missing is gray.
//!
//! Four inks are taken as inverted, with or without Adobe's segment: no program writes them in another way, and Pillow
//! and browsers do the same.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::error::{PixelsError, check_size};
use super::raster::{Raster, Samples, bytes};
use crate::image::Size;
use crate::image::format::Format;

/// The frame header: what the memory and the kind of a JPEG depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    kind: u8,
    precision: u8,
    /// Its width and height.
    pub(super) size: Size,
    components: u8,
}

/// The largest number of bytes between two segments that are searched for the next.
const MAX_SKIPPED: usize = 64 << 10;

impl Frame {
    /// The first frame header of a file; `None` if there is none before the first scan.
    pub(super) fn of(file: &[u8]) -> Option<Self> {
        let mut rest = file.get(2..)?;
        loop {
            let junk = rest.iter().take(MAX_SKIPPED).position(|&byte| byte == 0xff)?;
            let fills = rest[junk..].iter().take(MAX_SKIPPED).position(|&byte| byte != 0xff)?;
            let marker = rest[junk + fills];
            rest = &rest[junk + fills + 1..];
            match marker {
                0xda | 0xd9 => return None,
                // Without a length: stuffing, TEM, restart markers and starts of images.
                0x00 | 0x01 | 0xd0..=0xd8 => {}
                0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                    let &[_, _, precision, high, low, left, right, components, ..] = rest else {
                        return None;
                    };
                    let number = |high, low| u32::from(u16::from_be_bytes([high, low]));
                    let size = Size::new(number(left, right), number(high, low));
                    return Some(Self { kind: marker, precision, size, components });
                }
                _ => {
                    let &[high, low, ..] = rest else { return None };
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    rest = rest.get(length.max(2)..)?;
                }
            }
        }
    }

    fn is_progressive(self) -> bool {
        matches!(self.kind, 0xc2 | 0xc6 | 0xca | 0xce)
    }

    /// What keeps the picture from being decoded, by its name.
    pub(super) fn unsupported(self) -> Option<&'static str> {
        match self.kind {
            0xc0..=0xc2 if self.precision == 8 => None,
            0xc0..=0xc2 => Some("a JPEG with more than 8 bits a sample"),
            0xc3 => Some("a lossless JPEG"),
            0xc9..=0xcb | 0xcd..=0xcf => Some("a JPEG with arithmetic coding"),
            _ => Some("a hierarchical JPEG"),
        }
    }

    fn samples(self) -> Samples {
        if self.components == 1 { Samples::Gray } else { Samples::Rgb }
    }
}

/// The samples of a picture with this frame; of the costliest kind if it is unknown.
pub(super) fn samples(frame: Option<Frame>) -> Samples {
    frame.map_or(Samples::Rgb, Frame::samples)
}

/// An upper bound of the bytes that [`decode`] allocates for a picture of this size.
///
/// A progressive picture keeps all its coefficients, of 16 bits each, until its last scan. Each component is counted at
/// full size, since the bound must hold without subsampling.
pub(super) fn memory(size: Size, frame: Option<Frame>) -> u64 {
    // The side of the largest unit: four blocks of eight.
    let unit = |side: u32| u64::from(side).next_multiple_of(32);
    let components = u64::from(frame.map_or(4, |frame| frame.components));
    let is_progressive = frame.is_none_or(Frame::is_progressive);
    let (width, height) = (unit(size.width), unit(size.height));
    let coefficients = if is_progressive { 2 * components * width * height } else { 0 };
    // Rows of units: their coefficients, and their samples before and after the chroma is scaled up.
    let rows = 3 * 2 * components * width * 32;
    let picture = bytes(size, samples(frame)).map_or(u64::MAX, |bytes| bytes as u64);
    picture.saturating_add(coefficients).saturating_add(rows)
}

/// Decodes a picture whose header gives `size`.
pub(super) fn decode(file: &[u8], size: Size) -> Result<Raster, PixelsError> {
    let damaged = |error: &dyn std::fmt::Display| PixelsError::damaged(Format::Jpeg, error);
    let frame = Frame::of(file).ok_or_else(|| damaged(&"it has no frame header"))?;
    if let Some(what) = frame.unsupported() {
        return Err(PixelsError::Unsupported { what });
    }
    let colours = match frame.samples() {
        Samples::Gray => ColorSpace::Luma,
        Samples::Rgb => ColorSpace::RGB,
    };
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(size.width as usize)
        .set_max_height(size.height as usize)
        .jpeg_set_out_colorspace(colours);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers().map_err(|error| damaged(&error))?;
    let found = decoder.info().map(|info| Size::new(info.width.into(), info.height.into()));
    check_size(size, found.unwrap_or(frame.size))?;
    let data = decoder.decode().map_err(|error| damaged(&error))?;
    Raster::new(size, frame.samples(), data).ok_or_else(|| damaged(&"it has too few samples"))
}

#[cfg(test)]
mod tests {
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

    use super::super::drawn::{difference, scene};
    use super::*;

    const SIZE: Size = Size::new(101, 67);

    fn encoded(
        data: &[u8],
        colours: ColorType,
        edit: impl Fn(&mut Encoder<&mut Vec<u8>>),
    ) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, 98);
        edit(&mut encoder);
        let side = |side: u32| u16::try_from(side).unwrap();
        encoder.encode(data, side(SIZE.width), side(SIZE.height), colours).unwrap();
        file
    }

    /// The four inks that make these colours, without black.
    fn inks(raster: &Raster) -> Vec<u8> {
        let pixels = raster.data().as_chunks::<3>().0.iter();
        pixels.flat_map(|&[red, green, blue]| [255 - red, 255 - green, 255 - blue, 0]).collect()
    }

    #[test]
    fn every_kind_of_colours_is_read_baseline_and_progressive() {
        let (gray, rgb) = (scene(SIZE, Samples::Gray), scene(SIZE, Samples::Rgb));
        let inks = inks(&rgb);
        for (data, colours, expected) in [
            (gray.data(), ColorType::Luma, &gray),
            (rgb.data(), ColorType::Rgb, &rgb),
            (&inks, ColorType::Cmyk, &rgb),
            (&inks, ColorType::CmykAsYcck, &rgb),
        ] {
            for is_progressive in [false, true] {
                let file =
                    encoded(data, colours, |encoder| encoder.set_progressive(is_progressive));
                let picture = decode(&file, SIZE).unwrap();
                assert!(difference(&picture, expected) <= 8, "{colours:?} {is_progressive}");
            }
        }
    }

    #[test]
    fn subsampled_chroma_and_restart_intervals_are_read() {
        let rgb = scene(SIZE, Samples::Rgb);
        for sampling in [SamplingFactor::F_2_2, SamplingFactor::F_2_1, SamplingFactor::F_1_2] {
            let file = encoded(rgb.data(), ColorType::Rgb, |encoder| {
                encoder.set_sampling_factor(sampling);
                encoder.set_restart_interval(3);
            });
            assert!(difference(&decode(&file, SIZE).unwrap(), &rgb) <= 24, "{sampling:?}");
        }
    }

    #[test]
    fn a_kind_that_is_not_decoded_is_refused_by_name() {
        let file = encoded(scene(SIZE, Samples::Gray).data(), ColorType::Luma, |_| {});
        let place = file.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        for (marker, precision, what) in [
            (0xc9, 8, "a JPEG with arithmetic coding"),
            (0xca, 8, "a JPEG with arithmetic coding"),
            (0xc3, 8, "a lossless JPEG"),
            (0xc5, 8, "a hierarchical JPEG"),
            (0xc1, 12, "a JPEG with more than 8 bits a sample"),
        ] {
            let mut file = file.clone();
            (file[place + 1], file[place + 4]) = (marker, precision);
            assert_eq!(decode(&file, SIZE), Err(PixelsError::Unsupported { what }));
        }
    }

    #[test]
    fn a_size_other_than_that_of_the_header_is_refused() {
        let file = encoded(scene(SIZE, Samples::Gray).data(), ColorType::Luma, |_| {});
        for header in [Size::new(101, 66), Size::new(102, 67), Size::new(5000, 5000)] {
            assert!(decode(&file, header).is_err(), "{header}");
        }
    }

    #[test]
    fn a_file_that_ends_within_its_data_keeps_the_rows_before() {
        let rgb = scene(SIZE, Samples::Rgb);
        let file = encoded(rgb.data(), ColorType::Rgb, |_| {});
        let half = decode(&file[..file.len() * 2 / 3], SIZE).unwrap();
        let top = 101 * 3 * 16;
        let pairs = half.data()[..top].iter().zip(&rgb.data()[..top]);
        assert!(pairs.map(|(one, other)| one.abs_diff(*other)).max().unwrap() <= 8);
    }

    #[test]
    fn the_frame_is_found_behind_other_segments() {
        let file = encoded(scene(SIZE, Samples::Rgb).data(), ColorType::Rgb, |encoder| {
            encoder.add_app_segment(1, vec![0xff; 60_000]).unwrap();
        });
        let frame = Frame::of(&file).unwrap();
        assert_eq!((frame.size, frame.components, frame.kind), (SIZE, 3, 0xc0));
        assert_eq!(Frame::of(&file[..100]), None);
    }
}
