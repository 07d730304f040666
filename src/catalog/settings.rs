//! The configured figures of a model.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::units::{Currency, Pixels, PricePerMillion, Tokens};

/// The settings of one model: section `[models.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// Side in pixels of the square that costs one token: 32 or 28.
    pub cell: u32,
    /// The smallest `min_pixels` that the model accepts, and its default.
    pub min_pixels: Pixels,
    /// The value of `max_pixels` for a request without one.
    pub default_max_pixels: Pixels,
    /// The largest allowed `max_pixels`.
    pub largest_max_pixels: Pixels,
    /// The largest number of tokens in one answer. It is always sent, so that the output is bounded.
    pub max_tokens: Tokens,
    /// The largest number of input tokens.
    pub max_input_tokens: Tokens,
    /// An upper bound on the tokens that the chat template and the system line add to a prompt.
    pub template_tokens: Tokens,
    /// Whether the model supports the built-in OCR tasks.
    pub builtin_tasks: bool,
    /// The account's limit of requests per minute for this model.
    pub rpm: u64,
    /// The account's limit of tokens per minute for this model.
    pub tpm: u64,
    /// Prices by region.
    #[serde(default)]
    pub prices: BTreeMap<String, PriceSettings>,
}

/// The price of a model in one region: section `[models.NAME.prices.REGION]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSettings {
    /// Price of a million input tokens.
    pub input: PricePerMillion,
    /// Price of a million output tokens.
    pub output: PricePerMillion,
    /// Currency of both prices.
    pub currency: Currency,
    /// The page that states the price.
    pub source: String,
    /// The day on which the page was read.
    pub checked: String,
}
