//! Shrinks pictures.
//!
//! [`shrink_to`] says how large a picture may be, and [`Raster::resized`] makes it so.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeError, ResizeOptions, Resizer};

use super::raster::{Raster, Samples, bytes};
use crate::image::Size;
use crate::image::region::Region;
use crate::units::Pixels;

/// The largest size with the shape of `size` and no more than `max_pixels`; `size` itself if that is small enough.
///
/// Both sides are multiplied by the square root of `max_pixels / pixels` and rounded down, so a side may be up to one
/// pixel too short for the exact shape. No side is below one pixel; in a picture that is so narrow, only the longer
/// side is cut.
pub fn shrink_to(size: Size, max_pixels: Pixels) -> Size {
    let max_pixels = max_pixels.get().max(1);
    if size.pixels().get() <= max_pixels {
        return size;
    }
    // The square root of a quotient that is rounded down is, rounded down, that of the exact quotient.
    let shrunk = |now: u32, other: u32| {
        let square = u128::from(now) * u128::from(max_pixels) / u128::from(other.max(1));
        u32::try_from(square.isqrt()).unwrap_or(u32::MAX).clamp(1, now.max(1))
    };
    // Where one side became a whole pixel instead of less, the other is cut to what is left.
    let longest = |other: u32| u32::try_from(max_pixels / u64::from(other)).unwrap_or(u32::MAX);
    let width = shrunk(size.width, size.height).min(longest(1));
    Size::new(width, shrunk(size.height, size.width).min(longest(width)))
}

/// The largest size with the shape of `size` and no side over `longest`; `size` itself if that is small enough.
pub fn shrink_to_side(size: Size, longest: u32) -> Size {
    let (now, longest) = (size.longer_side(), longest.max(1));
    if now <= longest {
        return size;
    }
    let shrunk = |length: u32| {
        let length = u64::from(length) * u64::from(longest) / u64::from(now);
        u32::try_from(length).unwrap_or(longest).max(1)
    };
    Size::new(shrunk(size.width), shrunk(size.height))
}

/// The filter for all ratios. Its support grows with the ratio, so each pixel of the source counts, and thin strokes do
/// not vanish between the pixels of the result.
const FILTER: FilterType = FilterType::Lanczos3;

impl Raster {
    /// The picture at another size, resampled by convolution.
    ///
    /// Neither side of the result is below one pixel.
    #[must_use]
    pub fn resized(self, to: Size) -> Self {
        let whole = Region::of(self.size());
        self.part_resized(whole, to)
    }

    /// A part of the picture at another size. A region that is not within the picture is taken as the whole.
    #[must_use]
    pub fn part_resized(self, part: Region, to: Size) -> Self {
        let whole = Region::of(self.size());
        let part = if part.is_within(self.size()) { part } else { whole };
        let to = Size::new(to.width.max(1), to.height.max(1));
        if part == whole && to == self.size() {
            return self;
        }
        let samples = self.samples();
        let Some(mut resized) = Self::filled(to, samples, 0) else { return self };
        let outcome = match samples {
            Samples::Gray => convolve::<U8>(&self, part, &mut resized),
            Samples::Rgb => convolve::<U8x3>(&self, part, &mut resized),
        };
        debug_assert!(outcome.is_ok(), "both buffers have the lengths of their sizes: {outcome:?}");
        resized
    }
}

/// Resamples a part of `from` into all of `to`.
fn convolve<P: PixelTrait>(
    from: &Raster,
    part: Region,
    to: &mut Raster,
) -> Result<(), Box<dyn std::error::Error>>
where
    ResizeError: std::error::Error,
{
    let (left, top, size) = (f64::from(part.left), f64::from(part.top), part.size());
    let (source, target) = (from.size(), to.size());
    let source = TypedImageRef::<P>::from_buffer(source.width, source.height, from.data())?;
    let mut target = TypedImage::<P>::from_buffer(target.width, target.height, to.data_mut())?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FILTER)).crop(
        left,
        top,
        size.width.into(),
        size.height.into(),
    );
    Resizer::new().resize_typed(&source, &mut target, &options)?;
    Ok(())
}

/// The bytes of the picture between the two passes of a convolution.
pub(super) fn between_passes(from: Size, to: Size, samples: Samples) -> u64 {
    let across = bytes(Size::new(to.width, from.height), samples);
    let down = bytes(Size::new(from.width, to.height), samples);
    across.max(down).map_or(u64::MAX, |bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::drawn::{difference, scene};
    use super::*;

    proptest! {
        #[test]
        fn a_size_is_never_above_the_pixels_and_keeps_its_shape(
            width in 1_u32..200_000, height in 1_u32..200_000, max_pixels in 1_u64..30_000_000,
        ) {
            let size = Size::new(width, height);
            let shrunk = shrink_to(size, Pixels::new(max_pixels));
            prop_assert!(shrunk.pixels().get() <= max_pixels.max(1));
            prop_assert!(shrunk.shorter_side() >= 1);
            prop_assert!(shrunk.width <= width && shrunk.height <= height);
            if size.pixels().get() <= max_pixels {
                prop_assert_eq!(shrunk, size);
            } else if shrunk.shorter_side() > 1 {
                // Each side is the largest that is not above `side * sqrt(max_pixels / pixels)`.
                for (side, other, now) in [
                    (width, height, shrunk.width),
                    (height, width, shrunk.height),
                ] {
                    let below = |now: u32| u128::from(now).pow(2) * u128::from(other);
                    let exact = u128::from(max_pixels) * u128::from(side);
                    prop_assert!(below(now) <= exact && exact < below(now + 1));
                }
            } else {
                // Of a narrow picture, no pixel is given away along the longer side.
                prop_assert!(shrunk.longer_side() == size.longer_side()
                    || u64::from(shrunk.longer_side()) == max_pixels
                    || u64::from(shrunk.longer_side() + 1).pow(2) * u64::from(size.shorter_side())
                        > max_pixels * u64::from(size.longer_side()));
            }
        }

        #[test]
        fn a_size_is_never_above_the_longest_side(
            width in 1_u32..200_000, height in 1_u32..200_000, longest in 1_u32..20_000,
        ) {
            let size = Size::new(width, height);
            let shrunk = shrink_to_side(size, longest);
            prop_assert_eq!(shrunk.longer_side(), size.longer_side().min(longest));
            prop_assert!(shrunk.shorter_side() >= 1);
        }

        #[test]
        fn a_resized_picture_has_exactly_the_size_that_was_asked_for(
            from in (1_u32..70, 1_u32..70), to in (0_u32..70, 0_u32..70), is_gray: bool,
        ) {
            let samples = if is_gray { Samples::Gray } else { Samples::Rgb };
            let picture = scene(Size::new(from.0, from.1), samples);
            let resized = picture.resized(Size::new(to.0, to.1));
            prop_assert_eq!(resized.size(), Size::new(to.0.max(1), to.1.max(1)));
            prop_assert_eq!(resized.samples(), samples);
        }

        #[test]
        fn a_picture_of_one_level_keeps_it(level: u8, width in 1_u32..90, height in 1_u32..90) {
            let picture = Raster::filled(Size::new(57, 33), Samples::Rgb, level).unwrap();
            let resized = picture.resized(Size::new(width, height));
            prop_assert!(resized.data().iter().all(|&sample| sample == level));
        }
    }

    #[test]
    fn a_shrunk_picture_is_the_same_scene() {
        for samples in [Samples::Gray, Samples::Rgb] {
            let resized = scene(Size::new(640, 480), samples).resized(Size::new(160, 120));
            assert!(difference(&resized, &scene(Size::new(160, 120), samples)) <= 3);
        }
    }

    #[test]
    fn a_stroke_of_one_pixel_keeps_its_ink() {
        let mut page = Raster::filled(Size::new(600, 90), Samples::Gray, 255).unwrap();
        for row in page.data_mut().chunks_exact_mut(600) {
            row.iter_mut().skip(30).step_by(60).for_each(|sample| *sample = 0);
        }
        let shrunk = page.resized(Size::new(100, 15));
        for stroke in shrunk.data()[700..800].chunks_exact(10) {
            let ink: u32 = stroke.iter().map(|&level| u32::from(255 - level)).sum();
            assert!((255 / 6 - 4..255 / 6 + 20).contains(&ink), "{stroke:?}");
        }
    }
}
