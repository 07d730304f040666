//! What was spent, as it is asked for and told.

use jiff::civil::Date;

use super::account::AccountKey;
use crate::units::{Currency, Money, Tokens, Usage};

/// Whose spend of which days is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageQuery {
    /// One tenant; none means all.
    pub tenant: Option<String>,
    /// The first day.
    pub from: Date,
    /// The last day, included.
    pub to: Date,
}

/// What one tenant spent with one model on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The day.
    pub day: Date,
    /// Who spent.
    pub tenant: String,
    /// With which model.
    pub model: String,
    /// Calls that were counted.
    pub calls: u64,
    /// Of them, those counted at their bound because the bill is unknown.
    pub unverified_calls: u64,
    /// Tokens by kind.
    pub usage: Usage,
    /// Of all tokens, those of calls whose bill is unknown.
    pub unverified_tokens: Tokens,
    /// What it cost by the price list.
    pub cost: Money,
    /// In which currency.
    pub currency: Currency,
}

/// An account that does not count what its entries say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imbalance {
    /// The account.
    pub account: AccountKey,
    /// What it counts as granted, settled and reserved.
    pub counted: [u64; 3],
    /// The same by its entries.
    pub recounted: [u64; 3],
}
