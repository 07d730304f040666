//! Days and months, the spans that budgets are given for.
//!
//! All are UTC, as the contract says: a replica's time zone must not decide when a budget begins
//! anew. A call belongs to the windows of the moment at which it was reserved, however late its bill
//! comes.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// A span of the calendar that a budget is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
}

impl Period {
    /// Both, shorter first.
    pub const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// The word in tables, metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// How a budget of this period is called.
    pub const fn adjective(self) -> &'static str {
        match self {
            Self::Day => "daily",
            Self::Month => "monthly",
        }
    }
}

/// One day or one month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Which of the two.
    pub period: Period,
    /// Its first day.
    pub starts_on: Date,
}

impl Window {
    /// The window that `day` lies in.
    pub fn of(period: Period, day: Date) -> Self {
        let starts_on = match period {
            Period::Day => day,
            Period::Month => day.first_of_month(),
        };
        Self { period, starts_on }
    }

    /// Its first moment.
    pub fn starts_at(&self) -> Timestamp {
        midnight(self.starts_on)
    }

    /// The first moment after it, when the next window begins.
    pub fn ends_at(&self) -> Timestamp {
        let next = match self.period {
            Period::Day => self.starts_on.saturating_add(1.day()),
            Period::Month => self.starts_on.saturating_add(1.month()),
        };
        midnight(next)
    }
}

/// The day of a moment, in UTC.
pub fn day_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

fn midnight(day: Date) -> Timestamp {
    // Fails only at the ends of the calendar, nine thousand years from here.
    day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn a_day_ends_where_the_next_begins() {
        let window = Window::of(Period::Day, date(2028, 2, 28));
        assert_eq!(window.starts_at().to_string(), "2028-02-28T00:00:00Z");
        assert_eq!(window.ends_at().to_string(), "2028-02-29T00:00:00Z");
    }

    #[test]
    fn a_month_is_the_calendars() {
        let window = Window::of(Period::Month, date(2026, 12, 31));
        assert_eq!(window.starts_on, date(2026, 12, 1));
        assert_eq!(window.ends_at().to_string(), "2027-01-01T00:00:00Z");
    }

    #[test]
    fn the_day_of_a_moment_is_that_of_utc() {
        let before: Timestamp = "2026-03-31T23:59:59.999Z".parse().unwrap();
        let after: Timestamp = "2026-04-01T00:00:00+00:00".parse().unwrap();
        assert_eq!((day_of(before), day_of(after)), (date(2026, 3, 31), date(2026, 4, 1)));
    }
}
