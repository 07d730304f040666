//! The size at which a page is drawn, and to which a picture is shrunk, before it is sent.
//!
//! Pixels that the model does not read cost time and bytes. Pixels that are not sent are not billed, also if an
//! upstream ignores `max_pixels`. So a picture that is made here has no more pixels than are allowed.
//!
//! - A **page** of a PDF has no pixels of its own. It is drawn at the largest size of its aspect that has at most the
//!   allowed pixels and at most 600 dots per inch, or the resolution that the caller asks for. Both sides are rounded
//!   down.
//! - A **picture** is shrunk to exactly the size at which the model reads it: whole cells, by the formula of
//!   [`resize`](super::resize). So it is resampled once, here, and costs the same tokens as the original. Where that
//!   size is not within the limits, as for slivers, it keeps its aspect and both sides are rounded down.

use super::limits::{LONGER_SIDE_8K, WIDEST_ASPECT};
use super::{
    Allowance, CallTerms, Cap, ImageQuote, Quote, QuoteError, allowance, image, image_made_from,
};
use crate::image::Size;
use crate::units::Pixels;

/// The resolution of a page if the caller asks for none and its pixels are not limited otherwise, in dots per inch.
/// Print has no more detail.
const FINEST_DPI: u32 = 600;

/// Points per inch.
const POINTS: f64 = 72.0;

/// A page without pixels of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paper {
    /// From left to right, in points.
    pub width: f32,
    /// From top to bottom, in points.
    pub height: f32,
    /// The resolution that the caller asks for, in dots per inch.
    pub dpi: Option<u32>,
}

impl Paper {
    /// The largest size at which the page is drawn with at most `most` pixels.
    pub fn size_within(self, most: Pixels) -> Size {
        let scale = f64::from(self.dpi.unwrap_or(FINEST_DPI)) / POINTS;
        fitted(f64::from(self.width) * scale, f64::from(self.height) * scale, most)
    }
}

/// The resolution of a page that has so many points and pixels in a row, in whole dots per inch.
pub fn dpi(pixels: u32, points: f32) -> u32 {
    let dpi = f64::from(pixels) * POINTS / f64::from(points.max(1.0));
    // A page has at most some ten thousand pixels in a row.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast keeps to the bounds of the type"
    )]
    let dpi = dpi.round() as u32;
    dpi.max(1)
}

/// Quotes one call with a drawn page. The `size` of its image is the one to draw at: it has no more pixels than the
/// wish and the cap allow, and no more than `most`.
///
/// A tenant that rejects instead of clamping gets a page that fits its cap, unless the caller asks for more.
///
/// # Errors
///
/// [`QuoteError`] says what the caller must change.
pub fn quote_page(terms: &CallTerms<'_>, paper: Paper, most: Pixels) -> Result<Quote, QuoteError> {
    let mut terms = *terms;
    if terms.cap.reject && terms.wish.max_pixels.is_none() && paper.dpi.is_none() {
        // Nothing was asked for that could be above the cap.
        terms.wish.max_pixels = Some(allowance(&terms)?.allowed);
    }
    let Allowance { wished, allowed, .. } = allowance(&terms)?;
    let [original, size] = [wished, allowed].map(|pixels| paper.size_within(pixels.min(most)));
    Ok(Quote::of(&terms, image_made_from(&terms, original, size)?))
}

/// Quotes one call with a picture of `original` that is shrunk to the pixels that it is allowed. The `size` of its
/// image is the one to shrink to: it has no more pixels than the wish and the cap allow, and no more than `most`.
///
/// # Errors
///
/// [`QuoteError`] says what the caller must change.
pub fn quote_shrunk(
    terms: &CallTerms<'_>,
    original: Size,
    most: Pixels,
) -> Result<Quote, QuoteError> {
    let shrunk = |terms: &CallTerms<'_>| {
        let whole = image(terms, original)?;
        Ok(shrunk_size(original, &whole, whole.geometry.max_pixels.min(most)))
    };
    let size = shrunk(terms)?;
    let uncapped = CallTerms { cap: Cap { max_pixels: None, ..terms.cap }, ..*terms };
    let without_cap = shrunk(&uncapped)?;
    Ok(Quote::of(terms, image_made_from(terms, without_cap, size)?))
}

/// The size to which a picture of `original` is shrunk, which has at most `most` pixels. `whole` is its quote without
/// shrinking.
fn shrunk_size(original: Size, whole: &ImageQuote, most: Pixels) -> Size {
    let sent = whole.sent;
    let is_smaller = sent.width <= original.width && sent.height <= original.height;
    // The model enlarges what has fewer pixels than `min_pixels`.
    let is_kept = sent.pixels() >= whole.geometry.min_pixels;
    if is_sendable(original, most) {
        original
    } else if is_smaller && is_kept && is_sendable(sent, most) {
        sent
    } else {
        fitted(original.width.into(), original.height.into(), most)
    }
}

/// Whether a picture of this size has at most `most` pixels, and is accepted as a JPEG or PNG.
pub(super) fn is_sendable(size: Size, most: Pixels) -> bool {
    let aspect = u64::from(size.longer_side()).div_ceil(u64::from(size.shorter_side()).max(1));
    size.pixels() <= most && size.longer_side() <= LONGER_SIDE_8K && aspect <= WIDEST_ASPECT
}

/// The largest size with these proportions that is not larger, has at most `most` pixels, and is accepted as a JPEG or
/// PNG.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the sides are clamped to the longest side, and pixels are exact up to 2^53"
)]
fn fitted(width: f64, height: f64, most: Pixels) -> Size {
    // A side that is a whole number of pixels must not lose one because of the last bit of a float. The area grows by
    // much less than a pixel, so it stays within `most`.
    const LAST_BIT: f64 = 1e-6;
    let by_area = (most.get() as f64 / (width * height)).sqrt();
    let by_side = f64::from(LONGER_SIDE_8K) / width.max(height);
    let shrink = by_area.min(by_side).min(1.0);
    let side = |length: f64| (length * shrink + LAST_BIT).clamp(1.0, LONGER_SIDE_8K.into()) as u32;
    Size::new(side(width), side(height))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Wish;
    use super::super::resize::{most_image_tokens, smart_resize};
    use super::*;
    use crate::catalog::Model;
    use crate::units::Tokens;

    const ANY: Pixels = Pixels::new(u64::MAX);

    const A4: Paper = Paper { width: 595.276, height: 841.89, dpi: None };

    fn cap(max_pixels: u64) -> Cap {
        Cap { max_pixels: Some(Pixels::new(max_pixels)), ..Cap::default() }
    }

    fn page(paper: Paper, wish: Wish, cap: Cap) -> Result<Quote, QuoteError> {
        quote_page(&CallTerms::of_prompt(&Model::sample(), 101, wish, cap), paper, ANY)
    }

    fn shrunk_within(most: Pixels, original: Size, cap: Cap) -> Quote {
        let model = Model::sample();
        let terms = CallTerms::of_prompt(&model, 101, Wish::default(), cap);
        quote_shrunk(&terms, original, most).unwrap()
    }

    fn shrunk(original: Size, cap: Cap) -> Quote {
        shrunk_within(ANY, original, cap)
    }

    #[test]
    fn a_page_is_drawn_at_the_pixels_that_the_cap_can_use() {
        let drawn = |cap| page(A4, Wish::default(), cap).unwrap().image;
        let image = drawn(cap(1_048_576));
        assert_eq!((image.size, image.capped), (Size::new(861, 1217), true));
        assert_eq!((image.tokens.get(), image.saved().get()), (990, 8_134 - 990));
        let image = drawn(Cap::default());
        assert_eq!((image.size, image.capped), (Size::new(2_435, 3_444), false));
    }

    #[test]
    fn a_page_is_drawn_at_the_resolution_that_is_asked_for_and_no_larger_than_the_cap_allows() {
        let letter = |dpi| Paper { width: 612.0, height: 792.0, dpi };
        let drawn = |dpi, cap| page(letter(Some(dpi)), Wish::default(), cap).unwrap().image;
        for (dpi, size) in [(50, (425, 550)), (150, (1_275, 1_650)), (300, (2_550, 3_300))] {
            let image = drawn(dpi, cap(9_000_000));
            let expected =
                if dpi == 300 { Size::new(2_545, 3_294) } else { Size::new(size.0, size.1) };
            assert_eq!(image.size, expected, "{dpi}");
        }
        let image = drawn(300, cap(1_048_576));
        assert!(image.capped && image.size.pixels().get() <= 1_048_576, "{image:?}");
        assert!(!drawn(72, cap(1_048_576)).capped);
    }

    #[test]
    fn a_small_page_is_drawn_no_finer_than_print() {
        let stamp = Paper { width: 72.0, height: 36.0, dpi: None };
        assert_eq!(stamp.size_within(ANY), Size::new(600, 300));
    }

    #[test]
    fn a_tenant_that_rejects_gets_a_page_that_fits_unless_more_is_asked_for() {
        let cap = Cap { reject: true, ..cap(1_048_576) };
        let fitting = page(A4, Wish::default(), cap).unwrap();
        assert!(!fitting.image.capped);
        let wish = Wish { max_pixels: Some(Pixels::new(2_000_000)), ..Wish::default() };
        assert!(matches!(page(A4, wish, cap), Err(QuoteError::OverCap { .. })));
        let fine = page(Paper { dpi: Some(300), ..A4 }, Wish::default(), cap);
        assert!(matches!(fine, Err(QuoteError::OverCap { .. })), "{fine:?}");
        assert!(page(Paper { dpi: Some(72), ..A4 }, Wish::default(), cap).is_ok());
    }

    #[test]
    fn a_photo_is_shrunk_to_what_the_model_reads_at_the_same_tokens() {
        let image = shrunk(Size::new(4_032, 3_024), cap(1_048_576)).image;
        assert_eq!((image.size, image.sent), (Size::new(1_152, 864), Size::new(1_152, 864)));
        assert!(image.capped && image.saved().get() > 7_000);
    }

    #[test]
    fn a_picture_within_its_pixels_keeps_its_size() {
        assert_eq!(shrunk(Size::new(800, 600), Cap::default()).image.size, Size::new(800, 600));
        let wide = shrunk(Size::new(9_000, 100), Cap::default()).image;
        assert_eq!(wide.size, Size::new(7_680, 85));
    }

    #[test]
    fn a_picture_that_only_a_limit_of_the_vendor_shrinks_is_not_called_capped() {
        for (original, most) in
            [((9_000, 100), ANY), ((1_000, 8_000), ANY), ((3_000, 2_000), Pixels::new(3_000_000))]
        {
            let original = Size::new(original.0, original.1);
            for cap in [Cap::default(), Cap { reject: true, ..cap(9_000_000) }] {
                let image = shrunk_within(most, original, cap).image;
                assert!(image.size != original && !image.capped, "{image:?}");
                assert_eq!(image.saved(), Tokens::ZERO);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_drawn_has_no_more_pixels_than_are_allowed(
            width in 1_f32..20_000.0, height in 1_f32..20_000.0,
            dpi in proptest::option::of(50_u32..=600), capped in 3_072..9_000_000_u64,
        ) {
            let paper = Paper { width, height, dpi };
            let Ok(quote) = page(paper, Wish::default(), cap(capped)) else { return Ok(()) };
            let image = quote.image;
            // A sliver is refused.
            let size = image.size;
            if size.longer_side() <= 200 * size.shorter_side() && size.shorter_side() > 10 {
                prop_assert!(size.pixels() <= image.geometry.max_pixels, "{:?}", image);
                prop_assert!(image.bound <= most_image_tokens(&image.geometry), "{:?}", image);
            }
        }

        #[test]
        fn a_shrunk_picture_has_no_more_pixels_than_are_allowed_and_costs_no_more_than_they_do(
            width in 11..30_000_u32, height in 11..30_000_u32, capped in 10_000..9_000_000_u64,
        ) {
            let original = Size::new(width, height);
            if original.longer_side() > 200 * original.shorter_side() { return Ok(()) }
            let image = shrunk(original, cap(capped)).image;
            prop_assert!(image.size.pixels() <= image.geometry.max_pixels, "{:?}", image);
            prop_assert!(image.size.width <= width && image.size.height <= height);
            prop_assert_eq!(image.sent, smart_resize(image.size, &image.geometry));
            prop_assert!(image.bound <= most_image_tokens(&image.geometry), "{:?}", image);
        }
    }
}
