//! The fewest pixels of a page at which its text stays legible.
//!
//! The model bills pixels. A page of large letters is read as well at a fraction of them, and blank margins are billed
//! like text. So only the part of a page that holds anything is sent, at the scale at which its smallest body text is
//! just legible ([`LegibleHeights`]).
//!
//! If the height of the text is unknown, the part is sent at its own size, or at the cap if that is smaller. Nothing is
//! chosen if it would not cost less than the whole page without a choice. Both sides are whole cells, and `max_pixels`
//! is their product. So the picture is resampled once, here, and an upstream that changes its size cannot exceed the
//! chosen pixels.

use std::sync::Arc;

use serde::Deserialize;

use super::drawn::is_sendable;
use super::resize::{Geometry, smart_resize};
use super::{ImageQuote, Quote};
use crate::image::Size;
use crate::image::region::Region;
use crate::legibility::{Legibility, TextHeight};
use crate::units::{Pixels, Usage};

/// How many strokes a column of pixels crosses in a line of Latin text, and in one of Chinese or Japanese text.
const STROKES: [f32; 2] = [1.8, 2.4];

/// The fewest pixels that are chosen. In smaller pictures readers lose whole lines, whatever the height of the text,
/// and what can be saved is less than what the prompt and the answer cost.
const FEWEST_PIXELS: f64 = 262_144.0;

/// The smallest scale that is chosen. Beside text of such a height there is smaller text that was not measured.
const SMALLEST_SCALE: f64 = 0.1;

/// Margins are cut if the content takes less than this share of the page. Other cuts save little, and each cut changes
/// how a reader sees the layout.
const CUT_BELOW: f64 = 0.9;

/// The least heights, in pixels of what is sent, at which text is legible, by script.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LegibleHeights {
    /// Of the letter x and of digits.
    #[serde(rename = "latin_height")]
    pub latin: f32,
    /// Of a Chinese or Japanese character.
    #[serde(rename = "cjk_height")]
    pub cjk: f32,
}

/// A height that is not legible, or that saves nothing.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("auto.{key}: {actual} is not between {LEAST_HEIGHT} and {MOST_HEIGHT} pixels")]
pub struct InvalidHeight {
    key: &'static str,
    actual: f32,
}

/// The least height that can be set: no reader finds the strokes of a letter in fewer pixels.
const LEAST_HEIGHT: f32 = 4.0;

/// The most height that can be set: larger text is sent at the cap.
const MOST_HEIGHT: f32 = 200.0;

impl LegibleHeights {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`InvalidHeight`].
    pub fn validate(&self) -> Result<(), InvalidHeight> {
        for (key, actual) in [("latin_height", self.latin), ("cjk_height", self.cjk)] {
            if !(LEAST_HEIGHT..=MOST_HEIGHT).contains(&actual) {
                return Err(InvalidHeight { key, actual });
            }
        }
        Ok(())
    }

    /// Both heights, multiplied by `factor`.
    #[must_use]
    pub fn times(self, factor: f32) -> Self {
        Self { latin: self.latin * factor, cjk: self.cjk * factor }
    }

    /// The height at which text is legible whose columns cross so many strokes. More strokes in one height are finer
    /// detail.
    fn of(self, strokes: f32) -> f64 {
        let [latin, cjk] = STROKES;
        let share = ((strokes - latin) / (cjk - latin)).clamp(0.0, 1.0);
        f64::from(self.latin + share * (self.cjk - self.latin))
    }

    /// The scale at which text is just legible. It is not enlarged.
    fn scale_of(self, text: Option<TextHeight>) -> f64 {
        let scale = |text: TextHeight| self.of(text.strokes) / f64::from(text.height);
        text.map_or(1.0, scale).clamp(SMALLEST_SCALE, 1.0)
    }
}

/// What is sent of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The part of the page that is sent, in its pixels.
    pub region: Region,
    /// The size at which it is sent: whole cells.
    pub size: Size,
    /// Whether the cap and not the text decided its size.
    pub at_cap: bool,
}

/// Chooses the fewest pixels at which the text of a page stays legible; `None` if that saves no tokens.
///
/// `found` is in pixels of the page at size `page`, and `whole` is the quote of the page without a choice. The margins
/// are cut if `cuts`.
pub fn fewest(
    found: &Legibility,
    page: Size,
    whole: &ImageQuote,
    legible: LegibleHeights,
    cuts: bool,
) -> Option<Chosen> {
    let region = found.content.filter(|content| cuts && is_worth_cutting(*content, page));
    let region = region.unwrap_or(Region::of(page));
    let geometry = &whole.geometry;
    let at_cap = smart_resize(region.size(), geometry);
    let legible = legible_size(region.size(), legible.scale_of(found.text), geometry);
    let is_at_cap = legible.pixels() >= at_cap.pixels();
    let size = if is_at_cap { at_cap } else { legible };
    let is_less = size.pixels() < whole.sent.pixels();
    (is_less && is_sendable(size, geometry.max_pixels)).then_some(Chosen {
        region,
        size,
        at_cap: is_at_cap,
    })
}

fn is_worth_cutting(content: Region, page: Size) -> bool {
    area(content.size()) < CUT_BELOW * area(page)
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 pixels")]
fn area(size: Size) -> f64 {
    size.pixels().get() as f64
}

/// The size of a part at this scale, in whole cells. If it has fewer pixels than may be chosen, the next larger size
/// that has enough.
fn legible_size(part: Size, scale: f64, geometry: &Geometry) -> Size {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 pixels")]
    let least = FEWEST_PIXELS.max(geometry.min_pixels.get() as f64);
    let cell = f64::from(geometry.cell.max(1));
    let sides = [part.width, part.height].map(|side| f64::from(side.max(1)) / cell);
    let [mut across, mut down] = sides.map(|side| (side * scale).round().max(1.0));
    while across * down * cell * cell < least {
        // The side that is rounded up first as the scale grows.
        let grows_at = [across + 0.5, down + 0.5];
        let [first, second] = [grows_at[0] / sides[0], grows_at[1] / sides[1]];
        across += f64::from(u8::from(first <= second));
        down += f64::from(u8::from(second <= first));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole numbers that are not negative; the cast stops at the largest side"
    )]
    let side = |cells: f64| (cells * cell) as u32;
    Size::new(side(across), side(down))
}

impl Quote {
    /// The quote of a call that reads the chosen part in place of the whole page.
    #[must_use]
    pub fn of_chosen(&self, chosen: &Chosen) -> Self {
        let image = self.image.bounded_by(chosen.size, chosen.size.pixels());
        let capped = self.image.capped && chosen.at_cap;
        self.with_image(ImageQuote { capped, ..image })
    }

    /// The quote of a call that reads the same picture with this `max_pixels`.
    #[must_use]
    pub fn at_most(&self, pixels: Pixels) -> Self {
        self.with_image(self.image.bounded_by(self.image.size, pixels))
    }

    fn with_image(&self, image: ImageQuote) -> Self {
        let bound = Usage { image: image.bound, ..self.bound };
        Self { model: Arc::clone(&self.model), image, bound }
    }
}

impl ImageQuote {
    /// The quote of an image of `size` that is sent in place of this one, with `max_pixels`. It is not capped.
    fn bounded_by(&self, size: Size, max_pixels: Pixels) -> Self {
        let Self { geometry, straightened, uncapped_tokens, unchosen_tokens, .. } = *self;
        let geometry = Geometry { max_pixels, ..geometry };
        Self { uncapped_tokens, unchosen_tokens, ..Self::of(size, geometry, straightened) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::resize::most_image_tokens;
    use super::super::{Cap, Wish};
    use super::*;
    use crate::units::Tokens;

    const HEIGHTS: LegibleHeights = LegibleHeights { latin: 14.0, cjk: 21.0 };

    const PAGE: Size = Size::new(1_240, 1_754);

    const fn text(height: f32) -> TextHeight {
        TextHeight { height, strokes: 1.6 }
    }

    fn whole(size: Size, wish: Wish, cap: Cap) -> Quote {
        Quote::sample(size, 101, wish, cap).unwrap()
    }

    fn plain(size: Size) -> Quote {
        whole(size, Wish::default(), Cap::default())
    }

    fn chosen(text: impl Into<Option<TextHeight>>, content: Region) -> Option<Chosen> {
        let found = Legibility { text: text.into(), content: Some(content) };
        fewest(&found, PAGE, &plain(PAGE).image, HEIGHTS, true)
    }

    #[test]
    fn large_text_is_sent_at_the_scale_at_which_it_keeps_its_height() {
        let choice = chosen(text(28.0), Region::of(PAGE)).unwrap();
        assert_eq!(choice.size, Size::new(608, 864), "half of the page, in cells of 32");
        assert_eq!((choice.region, choice.at_cap), (Region::of(PAGE), false));
        let quote = plain(PAGE).of_chosen(&choice);
        let image = &quote.image;
        assert_eq!((image.tokens.get(), image.unchosen_tokens.get()), (19 * 27 + 2, 2_147));
        assert_eq!(image.saved_by_choice().get(), 2_147 - 515);
        assert_eq!((image.sent, image.geometry.max_pixels), (image.size, image.size.pixels()));
        assert_eq!((image.capped, image.saved()), (false, Tokens::ZERO));
        assert_eq!(quote.bound.image, image.tokens);
    }

    #[test]
    fn text_of_many_strokes_keeps_more_height_and_what_is_between_the_scripts_is_between_them() {
        let size = |strokes| {
            let text = Some(TextHeight { height: 28.0, strokes });
            chosen(text, Region::of(PAGE)).unwrap().size
        };
        assert_eq!([1.4, 1.8].map(size), [Size::new(608, 864); 2]);
        assert_eq!([2.4, 3.0].map(size), [Size::new(928, 1_312); 2]);
        assert_eq!(size(2.1), Size::new(768, 1_088));
    }

    #[test]
    fn nothing_is_chosen_for_small_text_without_margins_or_where_the_text_is_unknown() {
        for text in [Some(text(14.0)), Some(text(3.0)), None] {
            assert_eq!(chosen(text, Region::of(PAGE)), None);
        }
        let nearly_all = Region { bottom: 1_700, ..Region::of(PAGE) };
        assert_eq!(chosen(None, nearly_all), None, "margins of a few percent stay");
    }

    #[test]
    fn margins_are_cut_also_where_the_text_is_small_or_unknown() {
        let content = Region { left: 100, top: 200, right: 1_060, bottom: 840 };
        for text in [Some(text(10.0)), None] {
            let choice = chosen(text, content).unwrap();
            assert_eq!((choice.region, choice.size), (content, Size::new(960, 640)));
            assert!(choice.at_cap && !plain(PAGE).of_chosen(&choice).image.capped);
        }
        let found = Legibility { text: None, content: Some(content) };
        assert_eq!(fewest(&found, PAGE, &plain(PAGE).image, HEIGHTS, false), None);
    }

    #[test]
    fn a_part_that_the_cap_makes_smaller_is_capped() {
        let cap = Cap { max_pixels: Some(Pixels::new(1_048_576)), ..Cap::default() };
        let whole = whole(PAGE, Wish::default(), cap);
        let content = Region::of(Size::new(900, 1_200));
        let found = Legibility { text: None, content: Some(content) };
        let choice = fewest(&found, PAGE, &whole.image, HEIGHTS, true).unwrap();
        let image = whole.of_chosen(&choice).image;
        assert!(image.capped && image.tokens < whole.image.tokens, "{image:?}");
        assert!(image.saved() > Tokens::ZERO && image.saved_by_choice() > Tokens::ZERO);
    }

    #[test]
    fn a_straightened_page_is_bound_by_the_pixels_that_were_chosen() {
        let wish = Wish { straighten: true, ..Wish::default() };
        let whole = whole(PAGE, wish, Cap::default());
        let found = Legibility { text: Some(text(56.0)), content: Some(Region::of(PAGE)) };
        let choice = fewest(&found, PAGE, &whole.image, HEIGHTS, true).unwrap();
        let image = whole.of_chosen(&choice).image;
        assert_eq!(image.bound, most_image_tokens(&image.geometry));
        assert!(image.bound < whole.image.bound);
    }

    #[test]
    fn heights_of_no_text_and_of_posters_are_refused() {
        assert_eq!(HEIGHTS.validate(), Ok(()));
        for height in [0.0, -1.0, 3.9, 201.0, f32::NAN, f32::INFINITY] {
            assert!(LegibleHeights { latin: height, ..HEIGHTS }.validate().is_err(), "{height}");
            assert!(LegibleHeights { cjk: height, ..HEIGHTS }.validate().is_err(), "{height}");
        }
    }

    prop_compose! {
        /// A page, and a region within it.
        fn any_page()(width in 11_u32..9_000, height in 11_u32..9_000)(
            page in Just(Size::new(width, height)),
            left in 0..width, top in 0..height, across in 1..=width, down in 1..=height,
        ) -> (Size, Region) {
            let (right, bottom) = ((left + across).min(page.width), (top + down).min(page.height));
            (page, Region { left, top, right, bottom })
        }
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_whole_cells_within_the_page_and_the_cap_and_costs_less(
            (page, content) in any_page(), height in proptest::option::of(1_f32..400.0),
            strokes in 0_f32..4.0, capped in proptest::option::of(10_000..9_000_000_u64),
            least in proptest::option::of(3_072..400_000_u64), cuts: bool,
        ) {
            if page.longer_side() > 200 * page.shorter_side() { return Ok(()) }
            let wish = Wish { min_pixels: least.map(Pixels::new), ..Wish::default() };
            let cap = Cap { max_pixels: capped.map(Pixels::new), ..Cap::default() };
            let Ok(whole) = Quote::sample(page, 101, wish, cap) else { return Ok(()) };
            let text = height.map(|height| TextHeight { height, strokes });
            let found = Legibility { text, content: Some(content) };
            let choice = fewest(&found, page, &whole.image, HEIGHTS, cuts);
            let Some(choice) = choice else { return Ok(()) };
            prop_assert!(choice.region.is_within(page));
            prop_assert!(cuts || choice.region == Region::of(page));
            let image = whole.of_chosen(&choice).image;
            prop_assert_eq!((image.size.width % 32, image.size.height % 32), (0, 0));
            prop_assert_eq!(image.sent, image.size, "the model does not resize it");
            prop_assert!(image.size.pixels() <= whole.image.geometry.max_pixels);
            prop_assert!(image.geometry.min_pixels <= image.geometry.max_pixels);
            for (own, other) in [
                (image.tokens, whole.image.tokens),
                (image.clamped_tokens, whole.image.clamped_tokens),
                (image.bound, whole.image.bound),
            ] {
                prop_assert!(own < other, "{own:?} {other:?}");
            }
            prop_assert!(image.size.pixels() >= whole.image.geometry.min_pixels);
            let least = smart_resize(choice.region.size(), &whole.image.geometry).pixels();
            prop_assert!(image.size.pixels() >= least.min(Pixels::new(262_144)), "{image:?}");
            let at_most = whole.at_most(choice.size.pixels()).image;
            prop_assert!(at_most.tokens <= whole.image.tokens);
            prop_assert!(at_most.bound <= whole.image.bound);
        }

        #[test]
        fn larger_text_never_costs_more(
            (page, content) in any_page(), low in 1_f32..300.0, more in 0_f32..300.0,
        ) {
            if page.longer_side() > 200 * page.shorter_side() { return Ok(()) }
            let whole = plain(page).image;
            let tokens = |height| {
                let found = Legibility { text: Some(text(height)), content: Some(content) };
                let choice = fewest(&found, page, &whole, HEIGHTS, true);
                choice.map_or(whole.sent.pixels(), |choice| choice.size.pixels())
            };
            prop_assert!(tokens(low + more) <= tokens(low));
        }
    }
}
