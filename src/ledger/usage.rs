//! What was spent, as it is asked for and told.

use jiff::Timestamp;
use jiff::civil::Date;

use super::account::AccountKey;
use super::books::UsageKey;
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

/// A wish for usage that cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUsageQuery {
    /// No day, or a text that says more than a day.
    #[error("must be a day like 2026-01-31")]
    Day,
    /// The days are the wrong way round.
    #[error("is {from}, which is after the last day, {to}")]
    Order {
        /// The first day.
        from: Date,
        /// The last day.
        to: Date,
    },
}

impl UsageQuery {
    /// The spend from one day to another. Without a last day until `today`; without a first one from
    /// the beginning of the last day's month.
    ///
    /// # Errors
    ///
    /// [`InvalidUsageQuery::Order`].
    pub fn of(
        tenant: Option<String>,
        from: Option<Date>,
        to: Option<Date>,
        today: Date,
    ) -> Result<Self, InvalidUsageQuery> {
        let to = to.unwrap_or(today);
        let from = from.unwrap_or_else(|| to.first_of_month());
        if from > to {
            return Err(InvalidUsageQuery::Order { from, to });
        }
        Ok(Self { tenant, from, to })
    }
}

/// Reads a day as it is asked for: `2026-01-31` and no other form. jiff would also take a moment, and
/// pass over its time and zone.
///
/// # Errors
///
/// [`InvalidUsageQuery::Day`].
pub fn day_named(text: &str) -> Result<Date, InvalidUsageQuery> {
    let is_plain = text.len() == "2026-01-31".len()
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let day = is_plain.then(|| text.parse().ok()).flatten();
    day.ok_or(InvalidUsageQuery::Day)
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
    /// What.
    pub spending: Spending,
}

/// Calls that were counted, added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spending {
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

/// What the spend of a tenant is divided by. The entries of single calls tell it, not the daily sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// The key that the calls were asked for with.
    Key,
    /// The endpoint of the upstream.
    Endpoint,
    /// The hour of UTC in which they were asked for.
    Hour,
}

/// What one tenant spent with one key, at one endpoint or in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRow {
    /// Which; none for the calls of which it is not known.
    pub part: Option<Part>,
    /// Who spent.
    pub tenant: String,
    /// What.
    pub spending: Spending,
}

/// A part of a [`Division`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A key's id or an endpoint's name.
    Named(String),
    /// The beginning of an hour.
    Hour(Timestamp),
}

/// The columns of an account that its entries recount.
pub const RECOUNTED: [&str; 3] = ["granted", "settled", "reserved"];

/// The columns of a daily sum, money last.
pub const SUMMED: [&str; 7] = [
    "calls",
    "unverified_calls",
    "image_tokens",
    "text_tokens",
    "output_tokens",
    "unverified_tokens",
    "cost_nanos",
];

/// What does not count what the entries say. Amounts are wider than the columns of the tables, because a
/// sum of entries that are wrong can be larger than a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imbalance {
    /// An account.
    Account {
        /// Which.
        account: AccountKey,
        /// What it counts, as [`RECOUNTED`] names it.
        counted: [i128; 3],
        /// The same by its entries.
        recounted: [i128; 3],
    },
    /// A daily sum of what was spent.
    Usage {
        /// Which.
        usage: UsageKey,
        /// What it counts, as [`SUMMED`] names it.
        counted: Box<[i128; 7]>,
        /// The same by its entries.
        recounted: Box<[i128; 7]>,
    },
    /// An account or a daily sum under a name that this program does not write.
    Unreadable {
        /// The columns of the name, as they stand in the table.
        name: String,
        /// What is wrong with it.
        cause: String,
    },
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn a_day_has_one_form() {
        assert_eq!(day_named("2026-01-31"), Ok(date(2026, 1, 31)));
        assert_eq!(day_named("2028-02-29"), Ok(date(2028, 2, 29)));
        for wrong in [
            "",
            "today",
            "20260131",
            "2026-1-31",
            "2026-01-32",
            "2026-02-29",
            "2026-W05-6",
            "+2026-01-31",
            "2026-01-31T00:00",
            "2026-01-31Z",
            " 2026-01-31",
            "２０２６-01-31",
        ] {
            assert_eq!(day_named(wrong), Err(InvalidUsageQuery::Day), "{wrong:?}");
        }
    }

    #[test]
    fn a_first_day_after_the_last_is_refused_and_the_same_day_is_one_day() {
        let today = date(2026, 5, 14);
        let of = |from, to| UsageQuery::of(None, from, to, today);
        assert!(of(Some(today), Some(today)).is_ok());
        let refusal = of(Some(date(2026, 5, 15)), None).unwrap_err().to_string();
        assert_eq!(refusal, "is 2026-05-15, which is after the last day, 2026-05-14");
    }
}
