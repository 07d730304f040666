//! What is known of a document and of its pages before they are read.

use std::borrow::Cow;
use std::iter;

use serde::{Deserialize, Serialize};

use super::request::Reading;
use crate::image::Size;
use crate::image::region::Region;
use crate::quote::Quote;
use crate::units::{Tokens, Usage};

/// The uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentFacts {
    /// Its type, by its bytes.
    pub media_type: Cow<'static, str>,
    /// Its size in bytes.
    pub bytes: usize,
    /// The number of its pages, also of those that were not asked for.
    pub pages: u32,
}

/// What the text of a page comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A picture of the document, as it is stored or made smaller.
    Image,
    /// A picture that was drawn of the page.
    Rendered,
    /// The text that the page carries.
    TextLayer,
    /// The answer to an equal request.
    Cache,
    /// Nothing: the page is blank.
    Blank,
}

/// A page that was quoted.
#[derive(Debug, Clone)]
pub(super) struct PageFacts {
    /// Its number, from 1.
    pub(super) number: u32,
    /// What its text comes from.
    pub(super) source: Source,
    /// Its size in the answer: the size of the drawn page, or of the picture before it was made smaller.
    pub(super) shown: Size,
    /// Its resolution in pixels for an inch, if it is a page of a PDF.
    pub(super) dpi: Option<u32>,
    /// Whether what is sent of it is turned by an orientation tag.
    pub(super) is_turned: bool,
    /// Whether the caller asked for a size.
    pub(super) is_size_asked: bool,
    /// The quote of the first call for it. If no model reads the page, it is what a call would have cost.
    pub(super) quote: Quote,
    /// The quote of the call that reads its text beside its fields, if such a call is made.
    pub(super) beside: Option<Quote>,
    /// Whether a model reads the page.
    pub(super) is_read: bool,
    /// How its pixels were chosen; none if they are not chosen.
    pub(super) choice: Option<ChoiceFacts>,
}

/// How the pixels of a page were chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ChoiceFacts {
    /// The height of its smallest body text, in pixels of the page as it is shown.
    pub(super) text_height: Option<f32>,
    /// The part that is sent, if its margins are cut.
    pub(super) crop: Option<Region>,
    /// Whether the choice changes how it is sent.
    pub(super) is_other: bool,
    /// The most that its calls could be billed without the choice, if the choice changes how it is sent.
    pub(super) unchosen: Usage,
    /// Whether only the factor of the tenant keeps it from being sent with fewer pixels.
    pub(super) is_held_by_factor: bool,
}

impl PageFacts {
    /// A page of this size that a model reads by one call, without a choice of its pixels.
    pub(super) const fn of(number: u32, source: Source, shown: Size, quote: Quote) -> Self {
        Self {
            number,
            source,
            shown,
            dpi: None,
            is_turned: false,
            is_size_asked: false,
            quote,
            beside: None,
            is_read: true,
            choice: None,
        }
    }

    /// The quotes of the calls that read the page, if the first is made so often.
    fn calls(&self, first: usize) -> impl Iterator<Item = &Quote> {
        iter::repeat_n(&self.quote, if self.is_read { first } else { 0 }).chain(&self.beside)
    }

    /// The image tokens of the calls, each made once.
    pub(super) fn image_tokens(&self) -> Tokens {
        self.calls(1).map(|quote| quote.image.tokens).sum()
    }

    /// The part of the page that is sent.
    pub(super) fn part(&self) -> Region {
        let crop = self.choice.and_then(|choice| choice.crop);
        crop.unwrap_or(Region::of(self.shown))
    }

    /// The most that calls at the cap can be billed, if the page may be read again there.
    pub(super) fn bound_again(&self) -> Usage {
        self.choice.map(|choice| choice.unchosen).unwrap_or_default()
    }

    /// The most that the calls can be billed. `first` is what the first of them reads.
    pub(super) fn bound(&self, first: Reading) -> Usage {
        let calls = self.calls(first.most_calls());
        calls.fold(Usage::default(), |sum, quote| sum.plus(&quote.bound))
    }
}

impl Source {
    /// The name in answers and metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Rendered => "rendered",
            Self::TextLayer => "text_layer",
            Self::Cache => "cache",
            Self::Blank => "blank",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quote::{Cap, Wish};

    fn page(size: Size, is_read: bool, beside: Option<u64>) -> PageFacts {
        let quote = Quote::sample(size, 500, Wish::default(), Cap::default()).unwrap();
        let beside = beside.map(|prompt| quote.with_prompt(prompt));
        PageFacts { beside, is_read, ..PageFacts::of(1, Source::Image, size, quote) }
    }

    proptest! {
        /// One reading of a page is these calls at most: two for its fields, one for its text.
        #[test]
        fn no_calls_that_read_a_page_cost_more_than_its_bound(
            (width, height) in (20_u32..4_000, 20_u32..4_000),
            beside in prop::option::of(0_u64..1_000),
            calls in 1_usize..=2,
        ) {
            let page = page(Size::new(width, height), true, beside);
            let total = |bounds: &[&Usage]| bounds.iter().map(|bound| bound.total().get()).sum::<u64>();
            let beside: Vec<_> = page.beside.iter().map(|quote| &quote.bound).collect();
            let made = [vec![&page.quote.bound; calls], beside.clone()].concat();
            let bound = page.bound(Reading::Fields);
            prop_assert!(total(&made) <= bound.total().get());
            prop_assert_eq!(total(&made) == bound.total().get(), calls == 2);
            let once = [vec![&page.quote.bound], beside].concat();
            prop_assert_eq!(page.bound(Reading::Text).total().get(), total(&once));
            let image = once.iter().map(|bound| bound.image.get()).sum::<u64>();
            prop_assert_eq!(page.image_tokens().get(), image);
        }
    }

    #[test]
    fn a_page_that_no_model_reads_costs_nothing() {
        let page = page(Size::new(400, 300), false, None);
        assert_eq!(page.bound(Reading::Fields), Usage::default());
    }
}
