//! Queries and rows of usage.

use jiff::Timestamp;
use jiff::civil::Date;

use super::account::AccountKey;
use super::books::UsageKey;
use crate::units::{Currency, Money, Tokens, Usage};

/// A query for the spend of some tenants on some days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageQuery {
    /// The tenant; `None` means all tenants.
    pub tenant: Option<String>,
    /// The first day.
    pub from: Date,
    /// The last day, included.
    pub to: Date,
}

/// An invalid usage query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUsageQuery {
    /// The text is not exactly one day.
    #[error("must be a day like 2026-01-31")]
    Day,
    /// The first day is after the last day.
    #[error("is {from}, which is after the last day, {to}")]
    Order {
        /// The first day.
        from: Date,
        /// The last day.
        to: Date,
    },
}

impl UsageQuery {
    /// Creates a query for a range of days. The default for the last day is `today`. The default for the first day is
    /// the start of the last day's month.
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

/// Parses a day in the form `2026-01-31` and no other. jiff would also accept a timestamp and ignore its time and zone.
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

/// The spend of one tenant on one model on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The day.
    pub day: Date,
    /// The tenant.
    pub tenant: String,
    /// The model.
    pub model: String,
    /// The spend.
    pub spending: Spending,
}

/// The sum of counted calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spending {
    /// Number of counted calls.
    pub calls: u64,
    /// Number of calls that were counted at their bound because the bill is unknown.
    pub unverified_calls: u64,
    /// Tokens by kind.
    pub usage: Usage,
    /// The part of all tokens from calls whose bill is unknown.
    pub unverified_tokens: Tokens,
    /// The cost by the price list.
    pub cost: Money,
    /// The currency of the cost.
    pub currency: Currency,
}

/// The dimension by which a tenant's spend is divided. It is known from the entries of single calls and not from the
/// daily sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// The API key of the calls.
    Key,
    /// The upstream endpoint.
    Endpoint,
    /// The UTC hour of the calls.
    Hour,
}

/// The spend of one tenant for one key, one endpoint or one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRow {
    /// The part; `None` for calls whose part is unknown.
    pub part: Option<Part>,
    /// The tenant.
    pub tenant: String,
    /// The spend.
    pub spending: Spending,
}

/// One part of a [`Division`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A key's id or an endpoint's name.
    Named(String),
    /// The start of an hour.
    Hour(Timestamp),
}

/// The columns of an account that are recomputed from its entries.
pub const RECOUNTED: [&str; 3] = ["granted", "settled", "reserved"];

/// The columns of a daily sum, with money last.
pub const SUMMED: [&str; 7] = [
    "calls",
    "unverified_calls",
    "image_tokens",
    "text_tokens",
    "output_tokens",
    "unverified_tokens",
    "cost_nanos",
];

/// A count that does not match its entries. Amounts are wider than the columns of the tables, because a sum of wrong
/// entries can exceed the range of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imbalance {
    /// An account.
    Account {
        /// The account.
        account: AccountKey,
        /// The stored values, in the order of [`RECOUNTED`].
        counted: [i128; 3],
        /// The values recomputed from the entries.
        recounted: [i128; 3],
    },
    /// A daily sum of spend.
    Usage {
        /// The daily sum.
        usage: UsageKey,
        /// The stored values, in the order of [`SUMMED`].
        counted: Box<[i128; 7]>,
        /// The values recomputed from the entries.
        recounted: Box<[i128; 7]>,
    },
    /// An account or a daily sum whose name this program cannot have written.
    Unreadable {
        /// The columns of the name, as stored in the table.
        name: String,
        /// The fault of the name.
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
