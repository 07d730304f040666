//! How a page is sent, as an answer tells it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::facts::{ChoiceFacts, PageFacts};
use crate::image::region::Region;
use crate::units::Pixels;

/// How an image is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Width that the model reads.
    pub width: u32,
    /// Height that the model reads.
    pub height: u32,
    /// The parameter as sent.
    pub min_pixels: Pixels,
    /// The parameter as sent.
    pub max_pixels: Pixels,
    /// Whether the tenant's cap overruled the wish or made the image smaller.
    pub capped: bool,
    /// What decided the size.
    pub reason: SentReason,
    /// Whether the page was read with chosen pixels and again at the cap, because its answer was in doubt. The other
    /// members are those of the reading that is delivered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub escalated: bool,
    /// What was found in the page to choose its pixels; none if they are not chosen.
    #[serde(flatten)]
    pub choice: Option<SentChoice>,
}

/// What was found in a page to choose its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentChoice {
    /// The height of its smallest body text, in pixels of the page; null if there is too little to be sure.
    // With a function of its own, a missing member is no choice instead of null.
    #[serde(deserialize_with = "Option::deserialize")]
    pub text_height: Option<Tenths>,
    /// The part of the page that is sent, if its margins are cut: `[x0, y0, x1, y1]`, in pixels of the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<[u32; 4]>,
    /// Whether only the factor of the tenant keeps it from being sent with fewer pixels.
    #[serde(skip)]
    pub(super) is_held_by_factor: bool,
}

/// A number with one decimal, in tenths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenths(pub u32);

/// What decided the size at which an image is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SentReason {
    /// The model's default, or the image's own size below it.
    Default,
    /// The tenant's cap.
    Cap,
    /// The caller, by `max_pixels`, `min_pixels` or `dpi`.
    Asked,
    /// The text of the page, or its margins: fewer pixels than without a choice.
    Auto,
}

impl Sent {
    pub(super) fn of(facts: &PageFacts) -> Self {
        let image = &facts.quote.image;
        Self {
            width: image.sent.width,
            height: image.sent.height,
            min_pixels: image.geometry.min_pixels,
            max_pixels: image.geometry.max_pixels,
            capped: image.capped,
            reason: match (image.capped, facts.is_size_asked) {
                _ if facts.choice.is_some_and(|choice| choice.is_other) => SentReason::Auto,
                (true, _) => SentReason::Cap,
                (false, true) => SentReason::Asked,
                (false, false) => SentReason::Default,
            },
            escalated: false,
            choice: facts.choice.map(SentChoice::of),
        }
    }
}

impl SentChoice {
    fn of(choice: ChoiceFacts) -> Self {
        let ChoiceFacts { text_height, crop, is_held_by_factor, .. } = choice;
        let corners = |Region { left, top, right, bottom }| [left, top, right, bottom];
        let text_height = text_height.map(|height| Tenths::of(height.into()));
        Self { text_height, crop: crop.map(corners), is_held_by_factor }
    }
}

impl Tenths {
    /// The nearest number of tenths.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast keeps to the bounds of the type"
    )]
    fn of(number: f64) -> Self {
        Self((number * 10.0).round() as u32)
    }
}

impl Serialize for Tenths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 10.0)
    }
}

impl<'de> Deserialize<'de> for Tenths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self::of)
    }
}
