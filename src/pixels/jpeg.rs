//! Decodes JPEG (ITU-T T.81): baseline and progressive, gray, YCbCr, RGB, CMYK and YCCK.
//!
//! The decoder is strict: a file that is cut or damaged is refused. Viewers show what is left and fill the rest with
//! gray, but a page of which a part is missing would be billed and answered without a word about it.
//!
//! Four inks are taken as inverted, with or without Adobe's segment: no program writes them in another way, and Pillow
//! and browsers do the same.

use std::borrow::Cow;
use std::ops::Range;

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

const START_OF_IMAGE: &[u8] = &[0xff, 0xd8];
const START_OF_SCAN: u8 = 0xda;

/// A segment before the coded data of the first scan.
struct Segment {
    marker: u8,
    /// From the last 0xff before the marker to the end of its data.
    place: Range<usize>,
    /// Whether other bytes are before it.
    is_behind_junk: bool,
}

/// The segments of a file up to the header of the first scan, or up to what is no segment.
fn segments(file: &[u8]) -> impl Iterator<Item = Segment> {
    let mut position = START_OF_IMAGE.len();
    std::iter::from_fn(move || {
        let start = position;
        loop {
            let rest = file.get(position..)?;
            let junk = rest.iter().take(MAX_SKIPPED).position(|&byte| byte == 0xff)?;
            let fills = rest[junk..].iter().take(MAX_SKIPPED).position(|&byte| byte != 0xff)?;
            let (marker, behind) = (rest[junk + fills], position + junk + fills + 1);
            position = behind;
            match marker {
                0xd9 => return None,
                // Without a length: stuffing, TEM, restart markers and starts of images.
                0x00 | 0x01 | 0xd0..=0xd8 => continue,
                _ => {}
            }
            let &[high, low] = file.get(behind..)?.first_chunk()?;
            let end = behind + usize::from(u16::from_be_bytes([high, low])).max(2);
            position = if marker == START_OF_SCAN { usize::MAX } else { end };
            let place = behind - 2..end;
            return Some(Segment { marker, is_behind_junk: place.start != start, place });
        }
    })
}

/// The file without what is between its segments. Cameras and editors leave bytes there, which a strict decoder
/// refuses.
fn without_junk(file: &[u8]) -> Cow<'_, [u8]> {
    if !segments(file).any(|segment| segment.is_behind_junk) {
        return Cow::Borrowed(file);
    }
    let mut clean = START_OF_IMAGE.to_vec();
    for Segment { marker, place, .. } in segments(file) {
        let end = if marker == START_OF_SCAN { file.len() } else { place.end };
        clean.extend_from_slice(file.get(place.start..end).unwrap_or_default());
    }
    Cow::Owned(clean)
}

impl Frame {
    /// The first frame header of a file; `None` if there is none before the first scan.
    pub(super) fn of(file: &[u8]) -> Option<Self> {
        let is_frame =
            |marker| matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
        let Segment { marker, place, .. } =
            segments(file).find(|segment| is_frame(segment.marker))?;
        let [precision, sides @ .., components] =
            file.get(place.start + 4..)?.first_chunk::<6>()?;
        let number = |high, low| u32::from(u16::from_be_bytes([high, low]));
        let &[high, low, left, right] = sides;
        Some(Self {
            kind: marker,
            precision: *precision,
            size: Size::new(number(left, right), number(high, low)),
            components: *components,
        })
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
/// full size, since the bound must hold without subsampling. A file with bytes between its segments is copied.
pub(super) fn memory(size: Size, frame: Option<Frame>, file: &[u8]) -> u64 {
    let is_copied = segments(file).any(|segment| segment.is_behind_junk);
    let copy = if is_copied { file.len() as u64 } else { 0 };
    // The side of the largest unit: four blocks of eight.
    let unit = |side: u32| u64::from(side).next_multiple_of(32);
    let components = u64::from(frame.map_or(4, |frame| frame.components));
    let is_progressive = frame.is_none_or(Frame::is_progressive);
    let (width, height) = (unit(size.width), unit(size.height));
    let coefficients = if is_progressive { 2 * components * width * height } else { 0 };
    // Rows of units: their coefficients, and their samples before and after the chroma is scaled up.
    let rows = 3 * 2 * components * width * 32;
    let picture = bytes(size, samples(frame)).map_or(u64::MAX, |bytes| bytes as u64);
    picture.saturating_add(coefficients).saturating_add(rows + copy)
}

/// Decodes a picture whose header gives `size`.
pub(super) fn decode(file: &[u8], size: Size) -> Result<Raster, PixelsError> {
    let file = without_junk(file);
    let (mut decoder, frame) = open(&file)?;
    check_size(size, frame.size)?;
    let colours = match frame.samples() {
        Samples::Gray => ColorSpace::Luma,
        Samples::Rgb => ColorSpace::RGB,
    };
    decoder.set_options(options().jpeg_set_out_colorspace(colours));
    let data = decoder.decode().map_err(damaged)?;
    Raster::new(size, frame.samples(), data).ok_or_else(|| damaged("it has too few samples"))
}

/// Decodes a strip or tile of a TIFF to the samples of its components, whose colours the TIFF gives. Returns its width,
/// the number of components and the samples.
pub(super) fn decode_strip(strip: &[u8]) -> Result<(Size, usize, Vec<u8>), PixelsError> {
    let (mut decoder, frame) = open(strip)?;
    let colours = decoder.input_colorspace().ok_or_else(|| damaged("it has no colours"))?;
    decoder.set_options(options().jpeg_set_out_colorspace(colours));
    let data = decoder.decode().map_err(damaged)?;
    let components = usize::from(frame.components);
    let is_whole = frame.size.pixels().get() * components as u64 == data.len() as u64;
    if is_whole {
        Ok((frame.size, components, data))
    } else {
        Err(damaged("it has too few samples"))
    }
}

/// A decoder that has read the headers, and the frame header among them.
type Opened<'a> = (JpegDecoder<ZCursor<&'a [u8]>>, Frame);

/// Reads the headers of a file.
fn open(file: &[u8]) -> Result<Opened<'_>, PixelsError> {
    let frame = Frame::of(file).ok_or_else(|| damaged("it has no frame header"))?;
    if let Some(what) = frame.unsupported() {
        return Err(PixelsError::Unsupported { what });
    }
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options());
    decoder.decode_headers().map_err(damaged)?;
    let found = decoder.info().map(|info| Size::new(info.width.into(), info.height.into()));
    check_size(frame.size, found.unwrap_or(Size::new(0, 0)))?;
    Ok((decoder, frame))
}

/// The size is compared by the callers, so only that of the format is a limit.
fn options() -> DecoderOptions {
    let most = usize::from(u16::MAX);
    DecoderOptions::default().set_strict_mode(true).set_max_width(most).set_max_height(most)
}

fn damaged(reason: impl std::fmt::Display) -> PixelsError {
    PixelsError::damaged(Format::Jpeg, reason)
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
    fn a_file_that_is_cut_or_damaged_within_its_data_is_refused() {
        let rgb = scene(SIZE, Samples::Rgb);
        for is_progressive in [false, true] {
            let mut file = encoded(rgb.data(), ColorType::Rgb, |encoder| {
                encoder.set_progressive(is_progressive);
            });
            let cut = decode(&file[..file.len() * 2 / 3], SIZE);
            assert!(matches!(cut, Err(PixelsError::Damaged { .. })), "{is_progressive}");
            let middle = file.len() / 2;
            file[middle..middle + 2].copy_from_slice(&[0xff, 0xc8]);
            assert!(decode(&file, SIZE).is_err(), "{is_progressive}");
        }
    }

    #[test]
    fn bytes_between_segments_do_not_matter() {
        let rgb = scene(SIZE, Samples::Rgb);
        let file = encoded(rgb.data(), ColorType::Rgb, |_| {});
        for junk in [&[0xff_u8; 9][..], b"left by a camera", &[0xff, 0, 0xff, 0xd0, 7]] {
            let first = segments(&file).next().unwrap().place.end;
            let with_junk = [&file[..first], junk, &file[first..], b"behind the end"].concat();
            assert_eq!(decode(&with_junk, SIZE), decode(&file, SIZE), "{junk:?}");
        }
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
