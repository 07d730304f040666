//! Computes the cost of a request before anything is sent.
//!
//! Only this module combines the caller's wish, the tenant's cap and the model's figures. `/estimate`, `/ocr`,
//! `/extract` and the command line all call [`quote`], so an estimate equals the request that is later sent.
//!
//! The number of image tokens is exact. The numbers of text and output tokens are upper bounds, because this service
//! does not contain the vendor's vocabulary. A byte-level tokenizer never makes more tokens than the normalised prompt
//! has bytes ([`prompt_bytes`]). The output is limited by `max_tokens`, which is always sent: the lower of the model's
//! and the tenant's limit.

pub mod auto;
pub mod drawn;
pub mod limits;
pub mod resize;

use std::sync::Arc;

use crate::catalog::Model;
use crate::image::Size;
use crate::units::{Money, Pixels, Tokens, Usage};

use self::resize::{
    Geometry, MARKERS, clamped_image_tokens, image_tokens, most_enlarged, most_image_tokens,
    smart_resize,
};

/// The caller's options for the size of the image, before the cap is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// The requested `min_pixels`: the model enlarges a smaller image.
    pub min_pixels: Option<Pixels>,
    /// The requested `max_pixels`: the model shrinks a larger image.
    pub max_pixels: Option<Pixels>,
    /// Whether the provider straightens the image. This changes the size of the image in an undocumented way.
    pub straighten: bool,
}

/// The tenant's limits for one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cap {
    /// The maximum number of pixels of one image. `None` means the model's own default.
    pub max_pixels: Option<Pixels>,
    /// Whether a request for more pixels is refused and not clamped.
    pub reject: bool,
    /// The maximum number of output tokens. `None` means the model's own limit.
    pub max_tokens: Option<Tokens>,
}

/// What decides the cost of a call beside the size of its image.
#[derive(Debug, Clone, Copy)]
pub struct CallTerms<'a> {
    /// The model of the call.
    pub model: &'a Arc<Model>,
    /// The maximum number of text tokens of the call.
    pub text: Tokens,
    /// The caller's options for the image.
    pub wish: Wish,
    /// The tenant's limits.
    pub cap: Cap,
}

impl<'a> CallTerms<'a> {
    /// The terms of a call with a prompt of at most `prompt_bytes` bytes.
    pub fn of_prompt(model: &'a Arc<Model>, prompt_bytes: u64, wish: Wish, cap: Cap) -> Self {
        Self { model, text: text_tokens(model, prompt_bytes), wish, cap }
    }

    /// The same terms for a tenant that clamps where this one rejects.
    #[must_use]
    pub const fn clamping(self) -> Self {
        Self { cap: Cap { reject: false, ..self.cap }, ..self }
    }
}

/// The parameters with which one image is sent, and its cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageQuote {
    /// The size of the image that is sent, as a viewer shows it.
    pub size: Size,
    /// The size to which the model scales the image.
    pub sent: Size,
    /// The parameters that result in `sent`. Both limits are sent.
    pub geometry: Geometry,
    /// Whether the tenant's cap reduced the requested `max_pixels` or the size of the image.
    pub capped: bool,
    /// The cost of the image. It is exact unless the image is straightened or a sliver.
    pub tokens: Tokens,
    /// The cost of the image according to the published code. It differs from `tokens` only for slivers
    /// (`quote::resize`).
    pub clamped_tokens: Tokens,
    /// The maximum cost of the image: the larger of the two costs, or the cost of any size if it is straightened.
    pub bound: Tokens,
    /// Whether the provider straightens the image.
    pub straightened: bool,
    /// The cost of the image without the cap.
    pub uncapped_tokens: Tokens,
    /// The cost of the image if its pixels are not chosen by its text ([`auto`]).
    pub unchosen_tokens: Tokens,
}

impl ImageQuote {
    /// The quote of an image of `size` that is sent with `geometry`, where neither a cap nor a choice saves anything.
    fn of(size: Size, geometry: Geometry, straightened: bool) -> Self {
        let tokens = image_tokens(size, &geometry);
        let clamped_tokens = clamped_image_tokens(size, &geometry);
        let any_size = if straightened { most_image_tokens(&geometry) } else { Tokens::ZERO };
        Self {
            size,
            sent: smart_resize(size, &geometry),
            geometry,
            capped: false,
            tokens,
            clamped_tokens,
            bound: tokens.max(clamped_tokens).max(any_size),
            straightened,
            uncapped_tokens: tokens,
            unchosen_tokens: tokens,
        }
    }

    /// The number of tokens that the cap saves.
    pub const fn saved(&self) -> Tokens {
        self.uncapped_tokens.saturating_sub(self.unchosen_tokens)
    }

    /// The number of tokens that the choice of its pixels saves beyond the cap.
    pub const fn saved_by_choice(&self) -> Tokens {
        self.unchosen_tokens.saturating_sub(self.tokens)
    }

    /// Whether a bill of this many tokens matches the quote.
    pub fn matches(&self, billed: Tokens) -> bool {
        let is_quoted = [self.tokens, self.clamped_tokens].contains(&billed);
        is_quoted || self.straightened && billed <= self.bound
    }
}

/// The parameters and the maximum cost for an image of unknown size, such as one that is given by URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnseenQuote {
    /// The parameters with which the model scales the image. Both limits are sent.
    pub geometry: Geometry,
    /// The maximum cost of the image.
    pub bound: Tokens,
}

/// The upper bound of the bill for one call.
#[derive(Debug, Clone)]
pub struct Quote {
    /// The model of the call.
    pub model: Arc<Model>,
    /// The quote for the image.
    pub image: ImageQuote,
    /// The maximum number of tokens of each kind.
    pub bound: Usage,
}

impl Quote {
    fn of(&CallTerms { model, text, cap, .. }: &CallTerms<'_>, image: ImageQuote) -> Self {
        let bound = Usage { image: image.bound, text, output: output(model, cap) };
        Self { model: Arc::clone(model), image, bound }
    }

    /// The quote of a call that reads the same image with another prompt of at most `prompt_bytes` bytes. It must not
    /// be longer than that of this quote, for which the image leaves room.
    #[must_use]
    pub fn with_prompt(&self, prompt_bytes: u64) -> Self {
        let text = text_tokens(&self.model, prompt_bytes);
        Self { bound: Usage { text, ..self.bound }, ..self.clone() }
    }

    /// The maximum cost of the call.
    pub fn cost_bound(&self) -> Money {
        self.model.price.of(&self.bound)
    }
}

/// A request that cannot be quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// The requested `min_pixels` is above the resulting `max_pixels`.
    #[error("the option min_pixels is {min}, above max_pixels {max}")]
    MinAboveMax {
        /// The value of `min_pixels` that would be sent.
        min: Pixels,
        /// The value of `max_pixels` that would be sent.
        max: Pixels,
    },
    /// The request exceeds the tenant's cap and must not be clamped, or the model cannot keep the cap.
    #[error("the request asks for {actual} pixels; this key's cap is {allowed}")]
    OverCap {
        /// The requested number of pixels.
        actual: Pixels,
        /// The allowed number of pixels.
        allowed: Pixels,
    },
    /// The prompt leaves no room for an image within the model's input limit.
    #[error("the prompt may take {actual} tokens; the model reads {allowed} in all")]
    PromptTooLong {
        /// The maximum number of tokens of the prompt.
        actual: Tokens,
        /// The model's input limit.
        allowed: Tokens,
    },
}

/// Quotes one call with an image of `size`.
///
/// # Errors
///
/// [`QuoteError`], with the value that the caller must change.
pub fn quote(terms: &CallTerms<'_>, size: Size) -> Result<Quote, QuoteError> {
    Ok(Quote::of(terms, image(terms, size)?))
}

/// The most tokens of a prompt and of the template around it.
fn text_tokens(model: &Model, prompt_bytes: u64) -> Tokens {
    Tokens::new(prompt_bytes).saturating_add(model.figures.template_tokens)
}

/// The maximum number of bytes of `text` after normalisation. Qwen's tokenizers first normalise their input to NFC
/// (according to the configuration that is published with the models).
///
/// NFC shortens sequences that it composes. It lengthens a few characters that are never composed, by a factor of at
/// most three (Unicode FAQ, "Normalization"). None of these characters is ASCII or in the ranges below, which cover
/// nearly all text.
pub fn prompt_bytes(text: &str) -> u64 {
    const MOST_EXPANSION: usize = 3;
    if text.is_ascii() {
        return text.len() as u64;
    }
    let bytes = text.chars().map(|character| match character {
        // Latin, Greek and Cyrillic; punctuation; CJK, kana and hangul; fullwidth forms.
        '\0'..='\u{2ff}'
        | '\u{370}'..='\u{386}'
        | '\u{388}'..='\u{52f}'
        | '\u{2000}'..='\u{2125}'
        | '\u{3000}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{ff00}'..='\u{ffef}' => character.len_utf8(),
        _ => MOST_EXPANSION * character.len_utf8(),
    });
    bytes.sum::<usize>() as u64
}

/// The maximum number of output tokens of one answer: the lower of the model's and the tenant's limit.
pub fn output(model: &Model, cap: Cap) -> Tokens {
    let most = model.figures.max_tokens;
    cap.max_tokens.unwrap_or(most).min(most)
}

/// Quotes an image of `size`.
///
/// # Errors
///
/// [`QuoteError`], with the value that the caller must change.
pub fn image(terms: &CallTerms<'_>, size: Size) -> Result<ImageQuote, QuoteError> {
    image_made_from(terms, size, size)
}

/// Quotes an image of `size` that was drawn or shrunk under the cap. Without a cap, an image of `original` would be
/// sent in its place.
fn image_made_from(
    terms: &CallTerms<'_>,
    original: Size,
    size: Size,
) -> Result<ImageQuote, QuoteError> {
    let CallTerms { model, wish, cap, .. } = *terms;
    let figures = &model.figures;
    let Allowance { wished, cap_pixels, allowed } = allowance(terms)?;
    let uncapped = geometry(model, wish.min_pixels, wished)?;
    let uncapped_size = smart_resize(original, &uncapped);
    let mut geometry = geometry(model, wish.min_pixels, allowed)?;
    let mut sent = smart_resize(size, &geometry);
    // Enlarging rounds up, so a large `min_pixels` can enlarge an image beyond the cap. The size of a straightened
    // image is unknown.
    let most = if wish.straighten { most_enlarged(&geometry) } else { sent.pixels() };
    if most > cap_pixels && geometry.min_pixels > figures.min_pixels {
        geometry.min_pixels = figures.min_pixels;
        sent = smart_resize(size, &geometry);
    }
    let wish_overruled = wish.max_pixels.is_some_and(|wish| wish > allowed) && allowed < wished;
    let capped = wish_overruled || sent != uncapped_size;
    if capped && cap.reject {
        let actual = wish.max_pixels.unwrap_or_else(|| uncapped_size.pixels());
        return Err(QuoteError::OverCap { actual, allowed });
    }
    let uncapped_tokens = image_tokens(original, &uncapped);
    let image = ImageQuote::of(size, geometry, wish.straighten);
    Ok(ImageQuote { capped, uncapped_tokens, ..image })
}

/// Quotes an image of unknown size.
///
/// If the tenant's cap rejects and does not clamp, `max_pixels` must not exceed the cap, because the image may be
/// larger than the cap.
///
/// # Errors
///
/// [`QuoteError`], with the value that the caller must change.
pub fn unseen_image(terms: &CallTerms<'_>) -> Result<UnseenQuote, QuoteError> {
    let CallTerms { model, wish, cap, .. } = *terms;
    let Allowance { wished, allowed, .. } = allowance(terms)?;
    if allowed < wished && cap.reject {
        return Err(QuoteError::OverCap { actual: wished, allowed });
    }
    let mut geometry = geometry(model, wish.min_pixels, allowed)?;
    if cap.max_pixels.is_some_and(|cap| most_enlarged(&geometry) > cap) {
        geometry.min_pixels = model.figures.min_pixels;
    }
    Ok(UnseenQuote { geometry, bound: most_image_tokens(&geometry) })
}

/// The maximum number of pixels of an image, and the values that it results from.
struct Allowance {
    /// The requested value or the model's default, within the model's limits.
    wished: Pixels,
    /// The tenant's cap, or `wished` if the tenant has no cap.
    cap_pixels: Pixels,
    /// The lower of the two.
    allowed: Pixels,
}

fn allowance(terms: &CallTerms<'_>) -> Result<Allowance, QuoteError> {
    let CallTerms { model, text, wish, cap } = *terms;
    let figures = &model.figures;
    let ceiling = figures.largest_max_pixels.min(largest_max_pixels(model, text)?);
    let wished = wish.max_pixels.unwrap_or(figures.default_max_pixels).min(ceiling);
    let cap_pixels = cap.max_pixels.unwrap_or(wished);
    if cap_pixels < figures.min_pixels {
        return Err(QuoteError::OverCap { actual: figures.min_pixels, allowed: cap_pixels });
    }
    Ok(Allowance { wished, cap_pixels, allowed: wished.min(cap_pixels) })
}

/// The largest `max_pixels` that leaves room for the prompt within the model's input limit.
///
/// At the documented maximum an image takes 30,002 tokens, but the input limit is 30,000 (Model Studio, "Text
/// extraction (Qwen-OCR)"). The image is then scaled down a little further and the request is not refused.
fn largest_max_pixels(model: &Model, text: Tokens) -> Result<Pixels, QuoteError> {
    let allowed = model.figures.max_input_tokens;
    let cells = allowed.get().saturating_sub(text.get()).saturating_sub(MARKERS.get());
    let pixels = Pixels::new(cells.saturating_mul(u64::from(model.figures.cell).pow(2)));
    if pixels < model.figures.min_pixels {
        return Err(QuoteError::PromptTooLong { actual: text, allowed });
    }
    Ok(pixels)
}

fn geometry(model: &Model, min: Option<Pixels>, max: Pixels) -> Result<Geometry, QuoteError> {
    let floor = model.figures.min_pixels;
    let min_pixels = min.unwrap_or(floor).max(floor);
    let max_pixels = max.max(floor);
    if min_pixels > max_pixels {
        return Err(QuoteError::MinAboveMax { min: min_pixels, max: max_pixels });
    }
    Ok(Geometry { cell: model.figures.cell, min_pixels, max_pixels })
}

#[cfg(test)]
impl Quote {
    /// The quote of a call of the sample model.
    pub(crate) fn sample(
        size: Size,
        prompt_bytes: u64,
        wish: Wish,
        cap: Cap,
    ) -> Result<Self, QuoteError> {
        quote(&CallTerms::of_prompt(&Model::sample(), prompt_bytes, wish, cap), size)
    }
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization as _;

    use super::*;

    const A4: Size = Size::new(1240, 1754);

    fn wish(max_pixels: u64) -> Wish {
        Wish { max_pixels: Some(Pixels::new(max_pixels)), ..Wish::default() }
    }

    fn cap(max_pixels: u64) -> Cap {
        Cap { max_pixels: Some(Pixels::new(max_pixels)), ..Cap::default() }
    }

    fn quoted(size: Size, wish: Wish, cap: Cap) -> Quote {
        Quote::sample(size, 101, wish, cap).unwrap()
    }

    #[test]
    fn without_wish_and_cap_the_model_s_default_decides() {
        let image = quoted(A4, Wish::default(), Cap::default()).image;
        assert_eq!((image.tokens.get(), image.capped), (2_147, false));
        assert_eq!(image.saved(), Tokens::ZERO);
    }

    #[test]
    fn the_cap_makes_the_image_smaller_and_the_saving_is_told() {
        let image = quoted(A4, Wish::default(), cap(1_048_576)).image;
        assert_eq!((image.tokens.get(), image.capped), (990, true));
        assert_eq!(image.saved().get(), 2_147 - 990);
    }

    #[test]
    fn a_cap_that_changes_nothing_is_not_capped() {
        assert!(!quoted(Size::new(100, 100), Wish::default(), cap(1_048_576)).image.capped);
        assert!(!quoted(A4, wish(524_288), cap(1_048_576)).image.capped);
    }

    #[test]
    fn a_wish_for_many_pixels_does_not_carry_an_image_over_the_cap() {
        let wish = Wish { min_pixels: Some(Pixels::new(10_000)), ..Wish::default() };
        let image = quoted(Size::new(97, 97), wish, cap(10_000)).image;
        assert!(image.capped && image.sent.pixels().get() <= 10_000, "{image:?}");
        let rejecting = Cap { reject: true, ..cap(10_000) };
        assert!(Quote::sample(Size::new(97, 97), 101, wish, rejecting).is_err());
    }

    #[test]
    fn a_cap_that_the_model_cannot_keep_refuses_instead_of_giving_way() {
        let refused = Quote::sample(A4, 101, Wish::default(), cap(3_000)).unwrap_err();
        assert!(matches!(refused, QuoteError::OverCap { .. }), "{refused}");
    }

    #[test]
    fn a_wish_above_the_cap_is_capped_whatever_the_image() {
        let image = quoted(Size::new(100, 100), wish(2_000_000), cap(1_048_576)).image;
        assert!(image.capped);
        assert_eq!(image.geometry.max_pixels.get(), 1_048_576);
    }

    #[test]
    fn a_tenant_that_rejects_is_told_what_was_asked_and_what_is_allowed() {
        let cap = Cap { reject: true, ..cap(1_048_576) };
        let refused = Quote::sample(A4, 101, wish(2_000_000), cap).unwrap_err();
        let (actual, allowed) = (Pixels::new(2_000_000), Pixels::new(1_048_576));
        assert_eq!(refused, QuoteError::OverCap { actual, allowed });
        assert!(Quote::sample(A4, 101, wish(500_000), cap).is_ok());
    }

    #[test]
    fn the_output_is_bounded_by_the_lower_of_the_tenant_s_and_the_model_s_limit() {
        let bound = |max_tokens: Option<u64>| {
            let cap = Cap { max_tokens: max_tokens.map(Tokens::new), ..Cap::default() };
            quoted(A4, Wish::default(), cap).bound.output.get()
        };
        assert_eq!([None, Some(100), Some(8_193)].map(bound), [8_192, 100, 8_192]);
    }

    #[test]
    fn the_largest_image_leaves_room_for_the_prompt() {
        let quote = quoted(Size::new(8_000, 6_000), wish(30_720_000), Cap::default());
        assert!(quote.bound.input().get() <= 30_000, "{:?}", quote.bound);
        assert!(quote.image.tokens.get() > 29_000);
    }

    #[test]
    fn a_prompt_that_leaves_no_room_for_an_image_is_refused() {
        let refused = Quote::sample(A4, 29_990, Wish::default(), Cap::default()).unwrap_err();
        assert!(matches!(refused, QuoteError::PromptTooLong { .. }), "{refused}");
    }

    #[test]
    fn a_straightened_image_is_bounded_by_its_cap_and_not_by_its_size() {
        let straightened = Wish { straighten: true, ..Wish::default() };
        let image = quoted(Size::new(100, 100), straightened, cap(1_048_576)).image;
        assert_eq!((image.tokens.get(), image.bound.get()), (11, 1_026));
        let matches = [11, 12, 1_026, 1_027].map(|billed| image.matches(Tokens::new(billed)));
        assert_eq!(matches, [true, true, true, false]);
        let seen = quoted(Size::new(100, 100), Wish::default(), cap(1_048_576)).image;
        assert!(seen.matches(Tokens::new(11)) && !seen.matches(Tokens::new(10)));
    }

    #[test]
    fn a_sliver_is_bounded_by_both_formulas_and_may_be_billed_by_either() {
        let image = quoted(Size::new(2_000, 12), Wish::default(), Cap::default()).image;
        assert_eq!((image.tokens.get(), image.bound.get()), (25, 64));
        let matches = [24, 25, 26, 64, 65].map(|billed| image.matches(Tokens::new(billed)));
        assert_eq!(matches, [false, true, false, true, false]);
    }

    proptest::proptest! {
        #[test]
        fn the_bound_covers_both_formulas_whatever_is_wished_and_capped(
            width in 11..8_000_u32, height in 11..200_u32,
            least in proptest::option::of(0..2_000_000_u64), most in 3_072..9_000_000_u64,
            capped in proptest::option::of(3_072..2_000_000_u64), straighten: bool,
        ) {
            let wish = Wish {
                min_pixels: least.map(Pixels::new),
                max_pixels: Some(Pixels::new(most)),
                straighten,
            };
            let cap = Cap { max_pixels: capped.map(Pixels::new), ..Cap::default() };
            let size = Size::new(width, height);
            let Ok(quote) = Quote::sample(size, 101, wish, cap) else { return Ok(()) };
            let image = quote.image;
            for tokens in [image_tokens, clamped_image_tokens] {
                let billed = tokens(size, &image.geometry);
                proptest::prop_assert!(billed <= quote.bound.image && image.matches(billed));
            }
        }
    }

    #[test]
    fn a_straightened_image_is_not_enlarged_over_the_cap_whatever_its_size_becomes() {
        let pixels = Some(Pixels::new(1_048_576));
        let wish = Wish { min_pixels: pixels, max_pixels: pixels, straighten: true };
        let image = quoted(Size::new(1024, 1024), wish, cap(1_048_576)).image;
        assert_eq!(image.geometry.min_pixels.get(), 3_072);
    }

    #[test]
    fn an_image_that_is_not_seen_is_bounded_by_the_cap() {
        let unseen = |wish, cap| {
            let (model, text) = (Model::sample(), Tokens::new(100));
            unseen_image(&CallTerms { model: &model, text, wish, cap })
        };
        assert_eq!(unseen(Wish::default(), Cap::default()).unwrap().bound.get(), 8_194);
        assert_eq!(unseen(wish(8_000_000), cap(1_048_576)).unwrap().bound.get(), 1_026);
        let many = Wish { min_pixels: Some(Pixels::new(1_048_576)), ..wish(8_000_000) };
        let quote = unseen(many, cap(1_048_576)).unwrap();
        assert_eq!((quote.geometry.min_pixels.get(), quote.bound.get()), (3_072, 1_026));
    }

    #[test]
    fn a_tenant_that_rejects_takes_an_unseen_image_only_within_its_cap() {
        let cap = Cap { reject: true, ..cap(1_048_576) };
        let unseen = |wish| {
            let (model, text) = (Model::sample(), Tokens::new(100));
            unseen_image(&CallTerms { model: &model, text, wish, cap })
        };
        assert!(unseen(Wish::default()).is_err());
        assert!(unseen(wish(1_048_576)).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_text_has_more_bytes_when_it_is_normalised_than_its_bound(text: String) {
            let normalised: String = text.nfc().collect();
            proptest::prop_assert!(prompt_bytes(&text) >= normalised.len() as u64);
        }
    }

    #[test]
    fn no_character_has_more_bytes_when_it_is_normalised_than_its_bound() {
        for character in '\0'..=char::MAX {
            let normalised: usize = std::iter::once(character).nfc().map(char::len_utf8).sum();
            let text = character.to_string();
            assert!(prompt_bytes(&text) >= normalised as u64, "{}", character.escape_unicode());
        }
        assert_eq!(prompt_bytes("总计 Total: 5 €"), "总计 Total: 5 €".len() as u64);
    }

    #[test]
    fn a_least_above_the_most_is_refused() {
        let wish = Wish { min_pixels: Some(Pixels::new(9_000_000)), ..Wish::default() };
        let refused = Quote::sample(A4, 101, wish, Cap::default()).unwrap_err();
        assert!(matches!(refused, QuoteError::MinAboveMax { .. }), "{refused}");
    }
}
