//! The cost and other figures of a request's calls, as an answer reports them.

use serde::Serialize;

use crate::admission::tab::Spent;
use crate::dashscope::completion::Receipt;
use crate::ledger::budget::RemainingTokens;
use crate::units::{Cost, Currency, Tokens};

/// The amount that all calls of a request charged to the tenant's budgets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spend {
    /// Tokens of the images, as billed.
    pub image_tokens: Tokens,
    /// Tokens of images and prompt, as billed.
    pub input_tokens: Tokens,
    /// Tokens that the model wrote, as billed.
    pub output_tokens: Tokens,
    /// All tokens that the upstream said it billed.
    pub total_tokens: Tokens,
    /// Tokens that are counted in addition to `total_tokens`: the bounds of calls whose bill is unknown.
    pub unverified_tokens: Tokens,
    /// Calls made to the upstream, repeated ones included.
    pub upstream_calls: u32,
    /// Calls that were repeats.
    pub retries: u32,
    /// Image tokens that were not spent: because of the cap, because pages have their own text, or because an equal
    /// request had spent them.
    pub tokens_saved: Tokens,
    /// Cost of the billed tokens.
    pub cost: Cost,
    /// Cost of the unverified tokens.
    pub unverified_cost: Cost,
}

/// Figures of a request's answered calls other than their cost.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The upstream's own ids of its answers.
    pub request_ids: Vec<String>,
    /// The endpoint that answered last; none if there was no call.
    pub endpoint: Option<String>,
    /// The rest of the tenant's budgets after the last call; none if there was no call.
    pub remaining: Option<RemainingTokens>,
}

impl Spend {
    /// The cost of the calls; `None` if no call was made.
    pub fn on_calls(spent: &Spent) -> Option<Self> {
        spent.currency.map(|currency| Self::of(spent, currency))
    }

    /// The cost in the currency that the model is sold in.
    pub const fn of(spent: &Spent, currency: Currency) -> Self {
        Self {
            image_tokens: spent.billed.image,
            input_tokens: spent.billed.input(),
            output_tokens: spent.billed.output,
            total_tokens: spent.billed.total(),
            unverified_tokens: spent.unverified,
            upstream_calls: spent.calls,
            retries: spent.repeats,
            tokens_saved: spent.saved,
            cost: Cost::of(spent.cost, currency),
            unverified_cost: Cost::of(spent.unverified_cost, currency),
        }
    }
}

impl Tally {
    /// Adds an answered call.
    pub fn add(&mut self, receipt: &Receipt) {
        self.remaining = Some(receipt.settlement.remaining);
        self.endpoint = Some(receipt.endpoint.clone());
        self.request_ids.extend(receipt.request_id.as_ref().map(ToString::to_string));
    }
}
