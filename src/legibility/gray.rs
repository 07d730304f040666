//! The gray picture that is measured: at most 2.4 megapixels.

use std::borrow::Cow;

use crate::image::Size;
use crate::pixels::raster::{Raster, Samples};

/// The most pixels that are measured. A page of A4 has as many at 150 dpi, where its smallest print is still 10 pixels
/// high.
const MOST_PIXELS: u64 = 2_400_000;

/// The largest factor. The sum of so many samples fits 16 bits.
const MOST_FACTOR: u16 = 256;

/// How bright each pixel is of a picture that was reduced by a whole factor.
pub(super) struct Gray<'a> {
    /// The side of the square of the picture that became a pixel.
    pub(super) factor: u16,
    pub(super) width: usize,
    pub(super) height: usize,
    levels: Cow<'a, [u8]>,
}

impl<'a> Gray<'a> {
    /// Reduces a picture by the smallest factor that leaves few enough pixels.
    pub(super) fn of(picture: &'a Raster) -> Self {
        let size = picture.size();
        let factor = factor(size);
        let levels = match picture.samples() {
            Samples::Gray if factor == 1 => Cow::Borrowed(picture.data()),
            Samples::Gray => Cow::Owned(means::<1>(picture, factor)),
            Samples::Rgb => Cow::Owned(means::<3>(picture, factor)),
        };
        let reduced = |length: u32| length.div_ceil(u32::from(factor)) as usize;
        Self { factor, width: reduced(size.width), height: reduced(size.height), levels }
    }

    /// The longer of the two sides.
    pub(super) fn longer_side(&self) -> u32 {
        u32::try_from(self.width.max(self.height)).unwrap_or(u32::MAX)
    }

    /// The shorter of the two sides.
    pub(super) fn shorter_side(&self) -> usize {
        self.width.min(self.height)
    }

    /// A length in pixels of the picture.
    pub(super) fn in_picture(&self, length: f32) -> f32 {
        length * f32::from(self.factor)
    }

    /// The rows from top to bottom.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        self.levels.chunks_exact(self.width)
    }

    /// A row.
    pub(super) fn row(&self, y: usize) -> &[u8] {
        &self.levels[y * self.width..][..self.width]
    }
}

/// The smallest factor that leaves at most [`MOST_PIXELS`].
fn factor(size: Size) -> u16 {
    let is_enough = |factor: &u16| {
        let reduced = |length: u32| u64::from(length.div_ceil(u32::from(*factor)));
        reduced(size.width) * reduced(size.height) <= MOST_PIXELS
    };
    (1..MOST_FACTOR).find(is_enough).unwrap_or(MOST_FACTOR)
}

/// The weights of red, green and blue in 256ths (ITU-R BT.601).
const WEIGHTS: [u32; 3] = [77, 150, 29];

/// The weighted sum of the samples of a pixel, or of several, in 256ths.
#[inline]
fn weighted<const N: usize, T: Copy + Into<u32>>(samples: &[T; N]) -> u32 {
    let weighted = |sample: T, weight: u32| sample.into().wrapping_mul(weight);
    match samples[..] {
        [red, green, blue] => weighted(red, WEIGHTS[0])
            .wrapping_add(weighted(green, WEIGHTS[1]))
            .wrapping_add(weighted(blue, WEIGHTS[2])),
        _ => weighted(samples[0], 256),
    }
}

/// The mean of each square of `factor` by `factor` pixels. The squares at the right and at the bottom have the pixels that are left.
fn means<const N: usize>(picture: &Raster, factor: u16) -> Vec<u8> {
    let pixels = picture.data().as_chunks::<N>().0;
    if factor == 1 {
        let level = |pixel: &[u8; N]| (weighted(pixel) + 128).to_le_bytes()[1];
        return pixels.iter().map(level).collect();
    }
    let (width, height) = (picture.size().width as usize, picture.size().height as usize);
    let side = usize::from(factor);
    let mut means = Vec::with_capacity(width.div_ceil(side) * height.div_ceil(side));
    // The rows of a square are added first, whole rows at once, which the compiler turns into vector code.
    let mut sums = vec![[0_u16; N]; width];
    let mut columns = vec![0_u32; width];
    for band in pixels.chunks(width * side) {
        sums.fill([0; N]);
        for row in band.chunks_exact(width) {
            for (sum, level) in sums.as_flattened_mut().iter_mut().zip(row.as_flattened()) {
                *sum = sum.wrapping_add(u16::from(*level));
            }
        }
        for (column, sum) in columns.iter_mut().zip(&sums) {
            *column = weighted(sum);
        }
        let rows = band.len() / width;
        match side {
            2 => squares::<2>(&columns, rows, &mut means),
            3 => squares::<3>(&columns, rows, &mut means),
            4 => squares::<4>(&columns, rows, &mut means),
            _ => {
                let whole = Mean::of(rows * side);
                let level =
                    |square: &[u32]| whole.level(square.iter().copied().fold(0, u32::wrapping_add));
                means.extend(columns.chunks_exact(side).map(level));
            }
        }
        let rest = columns.chunks_exact(side).remainder();
        if !rest.is_empty() {
            means.push(
                Mean::of(rows * rest.len()).level(rest.iter().copied().fold(0, u32::wrapping_add)),
            );
        }
    }
    means
}

fn squares<const SIDE: usize>(columns: &[u32], rows: usize, means: &mut Vec<u8>) {
    let mean = Mean::of(rows * SIDE);
    let level =
        |square: &[u32; SIDE]| mean.level(square.iter().copied().fold(0, u32::wrapping_add));
    means.extend(columns.as_chunks::<SIDE>().0.iter().map(level));
}

/// Divides sums in 256ths by a number of pixels, by a multiplication.
struct Mean {
    half: u64,
    /// 2^40 divided by 256 times the number of pixels, rounded up: a sum of equal levels gives exactly that level.
    inverse: u64,
}

impl Mean {
    fn of(pixels: usize) -> Self {
        let divisor = 256 * pixels as u64;
        Self { half: divisor / 2, inverse: (1_u64 << 40).div_ceil(divisor) }
    }

    /// The mean, rounded.
    fn level(&self, sum: u32) -> u8 {
        let mean = (u64::from(sum).wrapping_add(self.half)).wrapping_mul(self.inverse) >> 40;
        mean.to_le_bytes()[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(size: Size, samples: Samples) -> Raster {
        let count = size.width * size.height * u32::try_from(samples.count()).unwrap();
        let levels = (0..count).map(|at| u8::try_from(at * 37 % 251).unwrap());
        Raster::new(size, samples, levels.collect()).unwrap()
    }

    /// The mean of the luma of a square, by the definition.
    fn mean(picture: &Raster, factor: usize, (x, y): (usize, usize)) -> f64 {
        let (width, height) = (picture.size().width as usize, picture.size().height as usize);
        let columns = x * factor..((x + 1) * factor).min(width);
        let places = (y * factor..((y + 1) * factor).min(height))
            .flat_map(|y| columns.clone().map(move |x| y * width + x));
        let luma: Vec<f64> = places
            .map(|at| match picture.samples() {
                Samples::Gray => f64::from(picture.data()[at]),
                Samples::Rgb => {
                    let [red, green, blue] = picture.data().as_chunks::<3>().0[at].map(f64::from);
                    (77.0 * red + 150.0 * green + 29.0 * blue) / 256.0
                }
            })
            .collect();
        luma.iter().sum::<f64>() / f64::from(u32::try_from(luma.len()).unwrap())
    }

    #[test]
    fn a_pixel_is_the_mean_of_its_square() {
        for factor in 1..8 {
            for samples in [Samples::Gray, Samples::Rgb] {
                let picture = picture(Size::new(23, 17), samples);
                let means = match samples {
                    Samples::Gray => means::<1>(&picture, factor),
                    Samples::Rgb => means::<3>(&picture, factor),
                };
                let side = usize::from(factor);
                let places = (0..17_usize.div_ceil(side))
                    .flat_map(|y| (0..23_usize.div_ceil(side)).map(move |x| (x, y)));
                let exact: Vec<f64> = places.map(|place| mean(&picture, side, place)).collect();
                assert_eq!(means.len(), exact.len());
                for (level, exact) in means.iter().zip(exact) {
                    let difference = (f64::from(*level) - exact).abs();
                    assert!(difference <= 0.501, "{factor} {samples:?}: {level} for {exact}");
                }
            }
        }
    }

    #[test]
    fn a_picture_of_one_level_keeps_it_at_any_factor() {
        for level in [0, 1, 128, 254, 255] {
            let white = Raster::new(Size::new(300, 299), Samples::Rgb, vec![level; 300 * 299 * 3]);
            let white = white.unwrap();
            for factor in [1, 2, 3, 5, 17, 100, 256] {
                assert!(means::<3>(&white, factor).iter().all(|mean| *mean == level), "{factor}");
            }
        }
    }

    #[test]
    fn the_factor_is_the_smallest_that_leaves_few_enough_pixels() {
        for (size, expected) in [
            (Size::new(1, 1), 1),
            (Size::new(1_240, 1_754), 1),
            (Size::new(1_600, 1_500), 1),
            (Size::new(1_601, 1_500), 2),
            (Size::new(4_000, 3_000), 3),
            (Size::new(4_961, 7_016), 4),
            (Size::new(1, 24_000_000), 10),
            (Size::new(u32::MAX, u32::MAX), MOST_FACTOR),
        ] {
            assert_eq!(factor(size), expected, "{size}");
        }
    }
}
