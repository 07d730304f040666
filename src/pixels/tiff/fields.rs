//! The fields of a directory that say how its page is decoded.

use crate::image::Size;
use crate::image::format::{Format, Orientation};
use crate::image::tagged::TagDirectory;
use crate::pixels::error::PixelsError;

const WIDTH: u16 = 256;
const LENGTH: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
pub(super) const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
pub(super) const STRIP_OFFSETS: u16 = 273;
const ORIENTATION: u16 = 274;
const SAMPLES: u16 = 277;
const ROWS_PER_STRIP: u16 = 278;
pub(super) const STRIP_LENGTHS: u16 = 279;
const PLANAR: u16 = 284;
const FAX_OPTIONS: u16 = 292;
pub(super) const COLOUR_MAP: u16 = 320;
const TILE_WIDTH: u16 = 322;
const TILE_LENGTH: u16 = 323;
pub(super) const TILE_OFFSETS: u16 = 324;
pub(super) const TILE_LENGTHS: u16 = 325;
pub(super) const JPEG_TABLES: u16 = 347;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;

/// Values of the field Compression.
const RUNS_OF_FAX: u32 = 2;
const GROUP_3: u32 = 3;
const GROUP_4: u32 = 4;
const JPEG: u32 = 7;

/// The colours that the samples of a pixel stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colours {
    /// Brightness; the other way round where black is the highest level.
    Gray { is_inverted: bool },
    /// An index into the colour map.
    Palette,
    /// Red, green and blue.
    Rgb,
    /// Cyan, magenta, yellow and black.
    Inks,
    /// Luma and chroma, by JPEG.
    Luma,
    /// Another value of the field `PhotometricInterpretation`.
    Other(u32),
}

/// What the sample behind the colours means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opacity {
    /// There is none, or it means something else.
    None,
    /// The colours are multiplied by it already.
    Multiplied,
    /// The colours are not multiplied by it.
    Plain,
}

/// How a fax machine coded the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fax {
    /// Each row by itself, from a whole byte, without an end-of-line code.
    Runs,
    /// Group 3: with end-of-line codes; some rows by the row before, if the options say so.
    Group3 { is_two_dimensional: bool },
    /// Group 4: every row by the row before.
    Group4,
}

/// The fields of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) size: Size,
    pub(super) orientation: Orientation,
    /// Bits of each sample.
    pub(super) bits: u32,
    /// Samples of each pixel.
    pub(super) samples: u32,
    pub(super) colours: Colours,
    pub(super) opacity: Opacity,
    /// Whether the samples of a kind are together instead of those of a pixel.
    pub(super) is_planar: bool,
    /// Whether the first pixel of a byte is its lowest bit.
    pub(super) is_from_low_bit: bool,
    /// The size of a strip or tile, where there is more than one.
    pub(super) chunk: Size,
    pub(super) is_tiled: bool,
    compression: u32,
    fax_options: u32,
    sample_format: u32,
}

impl Fields {
    /// Reads the fields of a directory.
    pub(super) fn of(directory: &TagDirectory<'_>) -> Result<Self, PixelsError> {
        let number = |tag| directory.number(tag).or_else(|| directory.numbers(tag).next());
        let side = |tag| number(tag).filter(|&side| side != 0);
        let (Some(width), Some(height)) = (side(WIDTH), side(LENGTH)) else {
            return Err(damaged("it does not give its width and height"));
        };
        let or = |tag, default| number(tag).unwrap_or(default);
        let (compression, samples) = (or(COMPRESSION, 1), or(SAMPLES, 1));
        // Fax software leaves the field out, and white is zero there.
        let is_fax = matches!(compression, RUNS_OF_FAX | GROUP_3 | GROUP_4);
        let colours = colours_of(or(PHOTOMETRIC, u32::from(!is_fax)));
        let is_tiled = directory.has(TILE_OFFSETS);
        let chunk = if is_tiled {
            Size::new(or(TILE_WIDTH, width), or(TILE_LENGTH, height))
        } else {
            Size::new(width, or(ROWS_PER_STRIP, height).clamp(1, height))
        };
        Ok(Self {
            size: Size::new(width, height),
            orientation: Orientation::from_exif(or(ORIENTATION, 1)),
            bits: or(BITS, 1),
            samples,
            colours,
            opacity: opacity_of(colours, samples, number(EXTRA_SAMPLES)),
            is_planar: samples > 1 && or(PLANAR, 1) == 2,
            is_from_low_bit: or(FILL_ORDER, 1) == 2,
            chunk,
            is_tiled,
            compression,
            fax_options: or(FAX_OPTIONS, 0),
            sample_format: or(SAMPLE_FORMAT, 1),
        })
    }

    /// How a fax machine coded the page; `None` if none did.
    pub(super) fn fax(&self) -> Option<Fax> {
        match self.compression {
            RUNS_OF_FAX => Some(Fax::Runs),
            GROUP_3 => Some(Fax::Group3 { is_two_dimensional: self.fax_options & 1 == 1 }),
            GROUP_4 => Some(Fax::Group4),
            _ => None,
        }
    }

    /// Whether strips and tiles are JPEG files.
    pub(super) fn is_jpeg(&self) -> bool {
        self.compression == JPEG
    }

    /// What keeps the page from being decoded, by its name.
    pub(super) fn unsupported(&self) -> Option<&'static str> {
        self.unsupported_compression()
            .or_else(|| self.unsupported_samples())
            .or_else(|| self.unsupported_colours())
    }

    fn unsupported_compression(&self) -> Option<&'static str> {
        Some(match self.compression {
            RUNS_OF_FAX | GROUP_3 | GROUP_4 if self.is_tiled => {
                "a TIFF with tiles of a fax machine"
            }
            RUNS_OF_FAX | GROUP_3 | GROUP_4 if self.bits != 1 || self.samples != 1 => {
                "a TIFF of a fax machine with more than one bit a pixel"
            }
            1..=5 | JPEG | 8 | 32_773 | 32_946 => return None,
            6 => "a TIFF with JPEG compression of the old kind (6)",
            9 | 10 | 34_661 => "a TIFF with JBIG compression",
            32_766 => "a TIFF with NeXT compression",
            32_809 => "a TIFF with ThunderScan compression",
            34_676 | 34_677 => "a TIFF with SGI LogLuv compression",
            33_003 | 33_005 | 34_712 => "a TIFF with JPEG 2000 compression",
            34_887 => "a TIFF with LERC compression",
            34_892 => "a TIFF with lossy JPEG compression of DNG",
            34_925 => "a TIFF with LZMA compression",
            50_000 => "a TIFF with Zstandard compression",
            50_001 => "a TIFF with WebP compression",
            _ => "a TIFF with an unknown compression",
        })
    }

    fn unsupported_samples(&self) -> Option<&'static str> {
        match (self.sample_format, self.bits) {
            (3, _) => Some("a TIFF of floating-point samples"),
            (2, _) => Some("a TIFF of signed samples"),
            (5 | 6, _) => Some("a TIFF of complex samples"),
            (_, 1 | 2 | 4 | 8 | 16) => None,
            (_, 17..) => Some("a TIFF with more than 16 bits a sample"),
            _ => Some("a TIFF with a number of bits a sample other than 1, 2, 4, 8 and 16"),
        }
    }

    fn unsupported_colours(&self) -> Option<&'static str> {
        let of = |samples, whole_bytes: bool| {
            let is_known = self.samples >= samples && (!whole_bytes || self.bits >= 8);
            (!is_known).then_some("a TIFF with too few samples or bits for its colours")
        };
        match self.colours {
            Colours::Palette if self.bits > 8 => Some("a TIFF with a palette of 65,536 colours"),
            Colours::Gray { .. } | Colours::Palette => of(1, self.samples > 1),
            Colours::Rgb => of(3, true),
            Colours::Inks => of(4, true),
            Colours::Luma if self.is_jpeg() => of(3, true),
            Colours::Luma => Some("a TIFF in YCbCr colours without JPEG compression"),
            Colours::Other(4) => Some("a TIFF mask"),
            Colours::Other(8..=10) => Some("a TIFF in CIE L*a*b* colours"),
            Colours::Other(32_844 | 32_845) => Some("a TIFF in LogLuv colours"),
            Colours::Other(32_803 | 34_892) => Some("a TIFF with the raw data of a camera"),
            Colours::Other(_) => Some("a TIFF in unknown colours"),
        }
    }
}

fn colours_of(photometric: u32) -> Colours {
    match photometric {
        0 => Colours::Gray { is_inverted: true },
        1 => Colours::Gray { is_inverted: false },
        2 => Colours::Rgb,
        3 => Colours::Palette,
        5 => Colours::Inks,
        6 => Colours::Luma,
        other => Colours::Other(other),
    }
}

fn opacity_of(colours: Colours, samples: u32, first_extra: Option<u32>) -> Opacity {
    match (colours, first_extra) {
        (Colours::Palette | Colours::Luma, _) => Opacity::None,
        (_, Some(1)) => Opacity::Multiplied,
        (_, Some(2)) => Opacity::Plain,
        // Programs that leave the field out mean opacity by a fourth sample.
        (Colours::Rgb, None) if samples == 4 => Opacity::Plain,
        _ => Opacity::None,
    }
}

/// The error for a page that violates the format.
pub(super) fn damaged(reason: impl std::fmt::Display) -> PixelsError {
    PixelsError::damaged(Format::Tiff, reason)
}
