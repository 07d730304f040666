//! The figures of a model as they are configured.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::units::{Currency, Pixels, PricePerMillion, Tokens};

/// The settings of one model: section `[models.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// Side in pixels of the square that costs one token: 32 or 28.
    pub cell: u32,
    /// The least `min_pixels` that the model takes, and its default.
    pub min_pixels: Pixels,
    /// What the model takes for `max_pixels` when a request names none.
    pub default_max_pixels: Pixels,
    /// The most that `max_pixels` may be.
    pub largest_max_pixels: Pixels,
    /// The most tokens that one answer may have. Always sent, so that the output is bounded.
    pub max_tokens: Tokens,
    /// The most tokens that may go in.
    pub max_input_tokens: Tokens,
    /// A bound of the tokens that the chat template and the system line add to a prompt.
    pub template_tokens: Tokens,
    /// Whether the model knows the built-in OCR tasks.
    pub builtin_tasks: bool,
    /// The account's limit of requests a minute for this model.
    pub rpm: u64,
    /// The account's limit of tokens a minute for this model.
    pub tpm: u64,
    /// Prices by region.
    #[serde(default)]
    pub prices: BTreeMap<String, PriceSettings>,
}

/// The price of a model in one region: section `[models.NAME.prices.REGION]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSettings {
    /// Price of a million tokens that go in.
    pub input: PricePerMillion,
    /// Price of a million tokens that come out.
    pub output: PricePerMillion,
    /// Currency of both.
    pub currency: Currency,
    /// The page that the price was read on.
    pub source: String,
    /// The day on which it was read there.
    pub checked: String,
}
