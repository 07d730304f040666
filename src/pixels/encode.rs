//! Encodes pictures for the way to the upstream.

use jpeg_encoder::{ColorType, SamplingFactor};

use super::png;
use super::raster::{Raster, Samples};
use crate::image::format::Format;

/// How a picture is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JPEG of this quality, from 1 to 100.
    Jpeg {
        /// The scale of libjpeg.
        quality: u8,
    },
    /// PNG: without loss.
    Png,
}

/// The quality of a JPEG that is made here. Lower ones save bytes that cost nothing, and may blur small print.
pub const QUALITY: u8 = 90;

/// The longest side that JPEG can express, in pixels.
const MAX_JPEG_SIDE: u32 = 65_535;

impl Encoding {
    /// The format of the file.
    pub const fn format(self) -> Format {
        match self {
            Self::Jpeg { .. } => Format::Jpeg,
            Self::Png => Format::Png,
        }
    }

    /// The encoding that is expected to make the smaller file: PNG for drawings, JPEG for photos and scans.
    ///
    /// Drawings and text of a computer have large areas of one level, which PNG stores in a few bytes and without the
    /// rings that JPEG makes around strokes. Photos and scans have noise, which PNG cannot store in less than a byte or
    /// two a sample. So the picture is drawn if most of its pixels equal the one to their left.
    pub fn fitting(raster: &Raster) -> Self {
        let is_drawn = equal_neighbours(raster) >= DRAWN;
        let is_too_long = raster.size().longer_side() > MAX_JPEG_SIDE;
        if is_drawn || is_too_long { Self::Png } else { Self::Jpeg { quality: QUALITY } }
    }
}

/// The share of pixels that equal their left neighbour from which a picture counts as drawn, in percent.
const DRAWN: u64 = 70;

/// The share of pixels that equal their left neighbour, in percent, by every eighth row.
fn equal_neighbours(raster: &Raster) -> u64 {
    let samples = raster.samples().count();
    let rows = raster.data().chunks_exact(raster.size().width as usize * samples).step_by(8);
    let (mut equal, mut all) = (0_u64, 0_u64);
    for row in rows {
        let (left, right) = (&row[..row.len() - samples], &row[samples..]);
        let pairs = left.chunks_exact(samples).zip(right.chunks_exact(samples));
        equal += pairs.filter(|(left, right)| left == right).count() as u64;
        all += row.len() as u64 / samples as u64;
    }
    equal * 100 / all.max(1)
}

/// A picture that cannot be encoded in a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the picture cannot be encoded as {format}: {reason}")]
pub struct EncodeError {
    /// The format.
    pub format: Format,
    /// What the encoder says.
    pub reason: String,
}

/// The picture as a file.
///
/// A JPEG is baseline. Its chroma is not subsampled, since coloured text on a coloured ground, such as stamps, loses
/// its edges otherwise.
///
/// # Errors
///
/// [`EncodeError`] if a side is too long for the format.
pub fn encode(raster: &Raster, encoding: Encoding) -> Result<Vec<u8>, EncodeError> {
    let failed = |reason: String| EncodeError { format: encoding.format(), reason };
    let quality = match encoding {
        Encoding::Png => return png::encode(raster).map_err(|error| failed(error.to_string())),
        Encoding::Jpeg { quality } => quality.clamp(1, 100),
    };
    let side =
        |side: u32| u16::try_from(side).map_err(|_| failed(format!("a side has {side} pixels")));
    let (width, height) = (side(raster.size().width)?, side(raster.size().height)?);
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    let samples = match raster.samples() {
        Samples::Gray => ColorType::Luma,
        Samples::Rgb => ColorType::Rgb,
    };
    encoder
        .encode(raster.data(), width, height, samples)
        .map_err(|error| failed(error.to_string()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::decode::decode;
    use super::super::drawn::{difference, header, scene};
    use super::*;
    use crate::image::Size;
    use crate::image::probe::probe;

    #[test]
    fn an_encoded_picture_is_read_again_with_the_same_pixels() {
        let size = Size::new(203, 77);
        for samples in [Samples::Gray, Samples::Rgb] {
            let picture = scene(size, samples);
            for (encoding, tolerance) in
                [(Encoding::Png, 0), (Encoding::Jpeg { quality: QUALITY }, 12)]
            {
                let file = encode(&picture, encoding).unwrap();
                let header = header(encoding.format(), size);
                assert_eq!(probe(&file), Ok(header));
                let again = decode(&file, &header).unwrap();
                assert!(difference(&again, &picture) <= tolerance, "{encoding:?} {samples:?}");
            }
        }
    }

    #[test]
    fn drawings_become_png_and_photos_jpeg() {
        let size = Size::new(300, 200);
        let mut drawing = Raster::filled(size, Samples::Rgb, 255).unwrap();
        drawing.data_mut().chunks_exact_mut(7 * 3).for_each(|pixels| pixels[..6].fill(20));
        assert_eq!(Encoding::fitting(&drawing), Encoding::Png);
        let photo = scene(size, Samples::Gray);
        let noise = (0..7).cycle().zip(photo.data()).map(|(index, level)| level ^ index);
        let photo = Raster::new(size, Samples::Gray, noise.collect()).unwrap();
        assert_eq!(Encoding::fitting(&photo), Encoding::Jpeg { quality: QUALITY });
    }

    #[test]
    fn a_picture_of_one_column_can_be_encoded() {
        let column = Raster::filled(Size::new(1, 9), Samples::Rgb, 3).unwrap();
        assert!(encode(&column, Encoding::fitting(&column)).is_ok());
    }

    #[test]
    fn a_side_that_jpeg_cannot_express_is_refused_and_never_chosen() {
        let line = Raster::filled(Size::new(70_000, 2), Samples::Gray, 3).unwrap();
        let refused = encode(&line, Encoding::Jpeg { quality: 80 }).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the picture cannot be encoded as JPEG: a side has 70000 pixels"
        );
        assert_eq!(Encoding::fitting(&line), Encoding::Png);
        assert!(encode(&line, Encoding::Png).is_ok());
    }
}
