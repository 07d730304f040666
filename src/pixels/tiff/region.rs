//! Decodes strips and tiles with the crate `tiff`, and turns their samples into gray and RGB.
//!
//! The crate neither knows palettes nor inverts several samples. So it is told, by a patch of the directory, that such
//! a page is plain gray, and the colour map is applied to what it returns. Strips are decoded one by one: a page of 16
//! bits never exists as a whole.

use std::ops::Range;

use ::tiff::ColorType;
use ::tiff::decoder::{Decoder, Limits};

use super::fax::check_total;
use super::fields::{
    COLOUR_MAP, Colours, Fields, JPEG_TABLES, Opacity, PHOTOMETRIC, STRIP_LENGTHS, STRIP_OFFSETS,
    TILE_LENGTHS, TILE_OFFSETS, damaged,
};
use super::patched::{Patch, Patched};
use crate::image::Size;
use crate::image::byte_order::ByteOrder;
use crate::image::tagged::TagDirectory;
use crate::pixels::colour::{from_inks, from_luma_and_chroma, multiplied_on_white, on_white};
use crate::pixels::error::{PixelsError, check_size};
use crate::pixels::jpeg::{self, Frame};
use crate::pixels::raster::{Raster, Samples};

/// The value of `PhotometricInterpretation` for plain gray.
const BLACK_IS_ZERO: u32 = 1;

/// The position of the offset of the first directory.
const FIRST_DIRECTORY: usize = 4;

/// What the decompressors of a strip take at most, in bytes.
const DECOMPRESSOR: u64 = 1 << 20;

/// An upper bound of the bytes that [`decode`] allocates.
pub(super) fn memory(file: &[u8], fields: &Fields) -> u64 {
    let pixels = fields.size.pixels().get();
    let page = pixels.saturating_mul(3);
    let shown = Size::new(
        fields.chunk.width.min(fields.size.width),
        fields.chunk.height.min(fields.size.height),
    );
    let bits = u64::from(fields.bits.min(64)) * u64::from(fields.samples.min(8));
    let strip = shown.pixels().get().saturating_mul(bits.div_ceil(8));
    let jpeg = if fields.is_jpeg() {
        let frame = TagDirectory::first(file).and_then(|first| {
            let offset = first.numbers(STRIP_OFFSETS).chain(first.numbers(TILE_OFFSETS)).next()?;
            Frame::of(file.get(offset as usize..)?)
        });
        // The strip is copied behind the tables.
        jpeg::memory(padded(fields.chunk, fields.size), frame, &[])
            .saturating_add(file.len() as u64)
    } else {
        0
    };
    let row = u64::from(fields.size.width) * bits;
    page.saturating_add(strip).saturating_add(jpeg).saturating_add(row + DECOMPRESSOR)
}

/// The size of a strip or tile with the padding of JPEG, but no more than a page has with it.
fn padded(chunk: Size, page: Size) -> Size {
    let side = |chunk: u32, page: u32| {
        chunk.min(page.saturating_add(256)).checked_next_multiple_of(32).unwrap_or(u32::MAX)
    };
    Size::new(side(chunk.width, page.width), side(chunk.height, page.height))
}

/// Decodes a page.
pub(super) fn decode(
    file: &[u8],
    directory: &TagDirectory<'_>,
    fields: &Fields,
) -> Result<Raster, PixelsError> {
    let jpegs = fields.is_jpeg().then(|| Jpegs::new(file, directory, fields)).transpose()?;
    let painter = Painter::new(directory, fields)?;
    let too_large = || damaged("it is larger than the address space");
    let samples = painter.samples();
    let mut page = Raster::filled(fields.size, samples, u8::MAX).ok_or_else(too_large)?;
    let mut decoder = open(file, directory, fields)?;
    let (width, height) = decoder.dimensions().map_err(damaged)?;
    check_size(fields.size, Size::new(width, height))?;
    let stored = stored_samples(decoder.colortype().map_err(damaged)?);
    if stored < painter.needed() {
        return Err(damaged("it has too few samples for its colours"));
    }
    let planes = if fields.is_planar { stored } else { 1 };
    let across = fields.size.width.div_ceil(fields.chunk.width.max(1));
    let down = fields.size.height.div_ceil(fields.chunk.height.max(1));
    let regions = across.checked_mul(down).ok_or_else(|| damaged("it has too many tiles"))?;
    let mut strips = vec![Vec::new(); planes];
    let (mut row, mut is_flattened) = (Vec::new(), false);
    for region in 0..regions {
        let (left, top) =
            (region % across * fields.chunk.width, region / across * fields.chunk.height);
        let area = Area {
            columns: left..fields.size.width.min(left.saturating_add(fields.chunk.width)),
            rows: top..fields.size.height.min(top.saturating_add(fields.chunk.height)),
        };
        let mut stride = 0;
        for (plane, strip) in (0..).zip(&mut strips) {
            let index = plane * regions + region;
            stride = match &jpegs {
                Some(jpegs) => jpegs.read(index, &area, stored / planes, strip)?,
                None => read_strip(&mut decoder, index, &area, strip)?,
            };
        }
        let layout = Layout { bits: fields.bits, stored, stride, is_index: painter.is_index() };
        is_flattened |= paint_region(&mut page, &area, &strips, &layout, &mut row, &painter);
    }
    Ok(page.uncertain_if(is_flattened))
}

/// A decoder that takes the directory as the first, and a palette as gray.
fn open<'a>(
    file: &'a [u8],
    directory: &TagDirectory<'_>,
    fields: &Fields,
) -> Result<Decoder<Patched<'a>>, PixelsError> {
    let order = directory.order();
    let number = |value: u32, length: usize| match (order, length) {
        (ByteOrder::Big, _) => value.to_be_bytes()[4 - length..].to_vec(),
        (ByteOrder::Little, _) => value.to_le_bytes()[..length].to_vec(),
    };
    let place = u32::try_from(directory.offset()).unwrap_or(u32::MAX);
    // As the last directory too: the crate refuses a chain that comes back to itself.
    let mut patches = vec![
        Patch { start: FIRST_DIRECTORY, bytes: number(place, 4) },
        Patch { start: directory.place_of_next(), bytes: number(0, 4) },
    ];
    let is_taken_as_gray =
        matches!(fields.colours, Colours::Palette | Colours::Gray { is_inverted: true });
    if is_taken_as_gray && let Some(place) = directory.place_of_number(PHOTOMETRIC) {
        patches.push(Patch { start: place.start, bytes: number(BLACK_IS_ZERO, place.len()) });
    }
    // No more than the file can be read, whatever the fields say, and what is decoded goes into a buffer of ours.
    let mut limits = Limits::default();
    limits.intermediate_buffer_size = usize::MAX;
    limits.decoding_buffer_size = 0;
    let decoder = Decoder::new(Patched { file, patches, position: 0 }).map_err(damaged)?;
    Ok(decoder.with_limits(limits))
}

/// The strips or tiles of a page of JPEG. The crate `tiff` would decode them too, but it fills what is damaged with
/// gray.
struct Jpegs<'a> {
    /// Tables that all share; empty where each has its own.
    tables: &'a [u8],
    strips: Vec<&'a [u8]>,
}

impl<'a> Jpegs<'a> {
    /// Finds the strips, and checks that each is no larger than its place, before anything is allocated for it.
    fn new(
        file: &'a [u8],
        directory: &TagDirectory<'a>,
        fields: &Fields,
    ) -> Result<Self, PixelsError> {
        let (offsets, lengths) = if fields.is_tiled {
            (TILE_OFFSETS, TILE_LENGTHS)
        } else {
            (STRIP_OFFSETS, STRIP_LENGTHS)
        };
        check_total(file, directory.numbers(lengths).map(|length| length as usize))?;
        let most = padded(fields.chunk, fields.size);
        let places = directory.numbers(offsets).zip(directory.numbers(lengths));
        let strips = places.map(|(offset, length)| {
            let rest = file.get(offset as usize..).unwrap_or_default();
            let strip = &rest[..rest.len().min(length as usize)];
            match Frame::of(strip) {
                Some(frame) if frame.size.width > most.width || frame.size.height > most.height => {
                    Err(PixelsError::SizeDiffers { header: fields.chunk, decoded: frame.size })
                }
                _ => Ok(strip),
            }
        });
        let tables = directory.bytes(JPEG_TABLES).unwrap_or_default();
        Ok(Self { tables, strips: strips.collect::<Result<_, _>>()? })
    }

    /// Decodes a strip or tile for an area, and returns the bytes of one of its rows.
    fn read(
        &self,
        index: u32,
        area: &Area,
        components: usize,
        into: &mut Vec<u8>,
    ) -> Result<usize, PixelsError> {
        let strip = *self.strips.get(index as usize).ok_or_else(|| damaged("it lacks a strip"))?;
        // The tables are a file without a picture: its end and the start of the strip are left out.
        let (tables, rest) = match self.tables {
            [tables @ .., 0xff, 0xd9] => (tables, strip.get(2..).unwrap_or_default()),
            _ => (&[][..], strip),
        };
        let (size, found, data) = jpeg::decode_strip(&[tables, rest].concat())?;
        let is_large_enough =
            size.width as usize >= area.columns.len() && size.height as usize >= area.rows.len();
        if found != components || !is_large_enough {
            return Err(damaged("one of its strips is of another size or kind"));
        }
        *into = data;
        Ok(size.width as usize * components)
    }
}

/// The samples of a pixel that the crate returns.
fn stored_samples(colours: ColorType) -> usize {
    match colours {
        ColorType::Gray(_) | ColorType::Palette(_) => 1,
        ColorType::GrayA(_) => 2,
        ColorType::RGB(_) | ColorType::YCbCr(_) | ColorType::Lab(_) => 3,
        ColorType::RGBA(_) | ColorType::CMYK(_) => 4,
        ColorType::CMYKA(_) => 5,
        ColorType::Multiband { num_samples, .. } => usize::from(num_samples),
        _ => 0,
    }
}

/// The part of a page that a strip or tile fills.
struct Area {
    columns: Range<u32>,
    rows: Range<u32>,
}

/// How the samples of a row are stored.
struct Layout {
    bits: u32,
    /// Samples of a pixel.
    stored: usize,
    /// The bytes of a row.
    stride: usize,
    /// Whether a sample is an index, which is not scaled to 255.
    is_index: bool,
}

/// Decodes a strip or tile, and returns the bytes of one of its rows.
fn read_strip(
    decoder: &mut Decoder<Patched<'_>>,
    index: u32,
    area: &Area,
    strip: &mut Vec<u8>,
) -> Result<usize, PixelsError> {
    let layout = decoder.image_chunk_buffer_layout(index).map_err(damaged)?;
    let stride = layout.row_stride.map_or(0, usize::from);
    if layout.len < stride.saturating_mul(area.rows.len()) {
        return Err(damaged("one of its strips is too short"));
    }
    strip.resize(layout.len, 0);
    decoder.read_chunk_bytes(index, strip).map_err(damaged)?;
    Ok(stride)
}

/// Paints the rows of a strip or tile, which has one buffer for each plane. Returns whether a pixel is transparent.
fn paint_region(
    page: &mut Raster,
    area: &Area,
    strips: &[Vec<u8>],
    layout: &Layout,
    row: &mut Vec<u8>,
    painter: &Painter,
) -> bool {
    let (width, samples) = (page.size().width as usize, page.samples().count());
    let columns = area.columns.len();
    row.resize(columns * layout.stored, 0);
    let mut is_flattened = false;
    for (index, line) in area.rows.clone().enumerate() {
        let stored = index * layout.stride..(index + 1) * layout.stride;
        if let [strip] = strips {
            unpack(&strip[stored], layout, row.iter_mut());
        } else {
            for (plane, strip) in strips.iter().enumerate() {
                let places = row.iter_mut().skip(plane).step_by(layout.stored);
                unpack(&strip[stored.clone()], layout, places);
            }
        }
        let start = (line as usize * width + area.columns.start as usize) * samples;
        let into = &mut page.data_mut()[start..][..columns * samples];
        painter.paint(row, layout.stored, into);
        is_flattened |= painter.is_transparent(row, layout.stored);
    }
    is_flattened
}

/// Makes each sample of a row a byte.
fn unpack<'a>(row: &[u8], layout: &Layout, places: impl Iterator<Item = &'a mut u8>) {
    match layout.bits {
        16 => {
            for (place, &pair) in places.zip(row.as_chunks().0) {
                // The crate returns the byte order of this machine.
                *place = u16::from_ne_bytes(pair).to_be_bytes()[0];
            }
        }
        8 => {
            for (place, &sample) in places.zip(row) {
                *place = sample;
            }
        }
        bits => {
            let highest = u8::MAX >> (8 - bits.clamp(1, 7));
            let scale = if layout.is_index { 1 } else { u8::MAX / highest };
            let shifts = (0..8 / bits).map(|place| 8 - bits - place * bits);
            let levels = row
                .iter()
                .flat_map(|&byte| shifts.clone().map(move |shift| byte >> shift & highest));
            for (place, level) in places.zip(levels) {
                *place = level * scale;
            }
        }
    }
}

/// Turns the samples of a page into gray or RGB.
struct Painter {
    colours: Colours,
    opacity: Opacity,
    palette: Vec<[u8; 3]>,
}

impl Painter {
    fn new(directory: &TagDirectory<'_>, fields: &Fields) -> Result<Self, PixelsError> {
        let palette = match fields.colours {
            Colours::Palette => palette(directory, fields.bits)?,
            _ => Vec::new(),
        };
        Ok(Self { colours: fields.colours, opacity: fields.opacity, palette })
    }

    fn samples(&self) -> Samples {
        let is_gray = |[red, green, blue]: &[u8; 3]| red == green && green == blue;
        match self.colours {
            Colours::Gray { .. } => Samples::Gray,
            Colours::Palette if self.palette.iter().all(is_gray) => Samples::Gray,
            _ => Samples::Rgb,
        }
    }

    /// The samples that it reads of each pixel.
    fn needed(&self) -> usize {
        let colours = match self.colours {
            Colours::Gray { .. } | Colours::Palette | Colours::Other(_) => 1,
            Colours::Rgb | Colours::Luma => 3,
            Colours::Inks => 4,
        };
        colours + usize::from(self.opacity != Opacity::None)
    }

    /// Whether a pixel of a row is transparent.
    fn is_transparent(&self, row: &[u8], stored: usize) -> bool {
        let alpha = self.needed() - 1;
        self.opacity != Opacity::None
            && row.chunks_exact(stored).any(|pixel| pixel[alpha] < u8::MAX)
    }

    fn is_index(&self) -> bool {
        self.colours == Colours::Palette
    }

    /// Paints a row of pixels of `stored` samples each.
    fn paint(&self, row: &[u8], stored: usize, into: &mut [u8]) {
        let pixels = row.chunks_exact(stored);
        if self.samples() == Samples::Gray {
            for (into, pixel) in into.iter_mut().zip(pixels) {
                *into = self.gray(pixel);
            }
        } else {
            for (into, pixel) in into.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
                *into = self.rgb(pixel);
            }
        }
    }

    fn gray(&self, pixel: &[u8]) -> u8 {
        match self.colours {
            Colours::Palette => self.palette.get(usize::from(pixel[0])).map_or(0, |rgb| rgb[0]),
            Colours::Gray { is_inverted: true } => self.laid_on_white(255 - pixel[0], &pixel[1..]),
            _ => self.laid_on_white(pixel[0], &pixel[1..]),
        }
    }

    fn rgb(&self, pixel: &[u8]) -> [u8; 3] {
        match self.colours {
            Colours::Palette => {
                self.palette.get(usize::from(pixel[0])).copied().unwrap_or_default()
            }
            Colours::Inks => from_inks([pixel[0], pixel[1], pixel[2], pixel[3]])
                .map(|sample| self.laid_on_white(sample, &pixel[4..])),
            Colours::Luma => from_luma_and_chroma([pixel[0], pixel[1], pixel[2]]),
            _ => {
                [pixel[0], pixel[1], pixel[2]].map(|sample| self.laid_on_white(sample, &pixel[3..]))
            }
        }
    }

    fn laid_on_white(&self, sample: u8, extra: &[u8]) -> u8 {
        match (self.opacity, extra.first()) {
            (Opacity::Plain, Some(&alpha)) => on_white(sample, alpha),
            (Opacity::Multiplied, Some(&alpha)) => multiplied_on_white(sample, alpha),
            _ => sample,
        }
    }
}

/// The colours of a palette: all reds, then all greens, then all blues, of 16 bits.
///
/// Some programs write levels up to 255 in these fields.
fn palette(directory: &TagDirectory<'_>, bits: u32) -> Result<Vec<[u8; 3]>, PixelsError> {
    let colours = 1_usize << bits.min(8);
    let levels: Vec<u32> = directory.numbers(COLOUR_MAP).take(3 * colours).collect();
    if levels.len() < 3 * colours {
        return Err(damaged("its palette is too short"));
    }
    let shift = if levels.iter().all(|&level| level < 256) { 0 } else { 8 };
    let level = |index: usize| u8::try_from(levels[index] >> shift).unwrap_or(u8::MAX);
    Ok((0..colours).map(|index| [0, 1, 2].map(|part| level(part * colours + index))).collect())
}
