//! The forecast of a call: its maximum cost and the expected image tokens, both computed before the call is sent.

use std::sync::Arc;

use crate::catalog::Model;
use crate::quote::{ImageQuote, Quote};
use crate::units::{Tokens, Usage};

/// The maximum cost of a call, and the image tokens that its bill should state.
#[derive(Debug, Clone)]
pub struct Forecast {
    /// The model that is called.
    pub model: Arc<Model>,
    /// The most that the call can be billed.
    pub bound: Usage,
    /// Image tokens that the tenant's cap saves.
    pub saved: Tokens,
    /// Image tokens that the choice of pixels saves beyond that.
    pub saved_by_choice: Tokens,
    /// The image tokens that the bill should state.
    pub images: ExpectedImages,
}

/// The image tokens that a bill should state.
#[derive(Debug, Clone)]
pub enum ExpectedImages {
    /// The image tokens of a single image.
    One(Box<ImageQuote>),
    /// The image tokens of several images together: by the formula of the vendor's documentation, and by the formula in
    /// the code that the vendor has published. A bill may follow either.
    Sum([Tokens; 2]),
    /// The image tokens are unknown: the gateway did not see an image, the provider straightens one, or the model may
    /// skip one.
    Unknown,
}

impl From<&Quote> for Forecast {
    fn from(quote: &Quote) -> Self {
        Self {
            model: Arc::clone(&quote.model),
            bound: quote.bound,
            saved: quote.image.saved(),
            saved_by_choice: quote.image.saved_by_choice(),
            images: ExpectedImages::One(Box::new(quote.image.clone())),
        }
    }
}

impl Forecast {
    /// The same for a call that repeats another: it saves nothing more.
    #[must_use]
    pub fn without_savings(self) -> Self {
        Self { saved: Tokens::ZERO, saved_by_choice: Tokens::ZERO, ..self }
    }
}

impl ExpectedImages {
    /// The image tokens by the documented formula, if they are known.
    pub(super) const fn tokens(&self) -> Option<Tokens> {
        match self {
            Self::One(quote) => Some(quote.tokens),
            Self::Sum([documented, _]) => Some(*documented),
            Self::Unknown => None,
        }
    }

    /// The quote of the image, if there is only one.
    pub(super) fn only(&self) -> Option<&ImageQuote> {
        match self {
            Self::One(quote) => Some(quote),
            Self::Sum(_) | Self::Unknown => None,
        }
    }

    /// Whether a bill of `billed` image tokens matches.
    pub(super) fn matches(&self, billed: Tokens) -> bool {
        match self {
            Self::One(quote) => quote.matches(billed),
            Self::Sum(expected) => expected.contains(&billed),
            Self::Unknown => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Size;
    use crate::quote::{Cap, Wish};

    #[test]
    fn a_bill_matches_by_either_formula_and_always_where_nothing_is_known() {
        let sum = ExpectedImages::Sum([600, 602].map(Tokens::new));
        let matches = |images: &ExpectedImages, billed| images.matches(Tokens::new(billed));
        assert!(matches(&sum, 600) && matches(&sum, 602) && !matches(&sum, 601));
        assert!(matches(&ExpectedImages::Unknown, 601));
        let size = Size::new(640, 480);
        let quote = Quote::sample(size, 101, Wish::default(), Cap::default());
        let Forecast { images, bound, .. } = Forecast::from(&quote.unwrap());
        assert!(matches(&images, bound.image.get()) && !matches(&images, bound.image.get() + 1));
    }
}
