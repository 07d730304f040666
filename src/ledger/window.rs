//! Budget windows: days and months in the time zone of the ledger.
//!
//! The whole service uses one zone (`ledger.time_zone`), so the local time of a replica's machine does not decide when
//! a budget starts again. A call belongs to the windows of its reservation time, however late its bill arrives.
//!
//! A window is stored by the date of its first day. The zone is needed only for the conversion between times and dates,
//! which [`Calendar`] performs.

use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// The length of a budget window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
}

impl Period {
    /// Both periods, the shorter one first.
    pub const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// The word for tables, metrics and API responses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The adjective for a budget of this period.
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
    /// The period.
    pub period: Period,
    /// Its first day.
    pub starts_on: Date,
}

impl Window {
    /// The window that contains `day`.
    pub fn of(period: Period, day: Date) -> Self {
        let starts_on = match period {
            Period::Day => day,
            Period::Month => day.first_of_month(),
        };
        Self { period, starts_on }
    }

    /// The first day after the window.
    fn next_starts_on(self) -> Date {
        match self.period {
            Period::Day => self.starts_on.saturating_add(1.day()),
            Period::Month => self.starts_on.saturating_add(1.month()),
        }
    }
}

/// The calendar days of a time zone.
///
/// A day starts at the first moment at which the zone's clocks show its date, and ends when the next day starts. Days
/// therefore have no gaps and no overlaps, whatever the clock changes:
///
/// - A day with a clock change has 23 or 25 hours.
/// - If midnight is skipped, the day starts when the clocks jump, as a rule to 01:00.
/// - If the clocks are set back across midnight, the day is longer; a date that is shown again does not start twice.
/// - A date that the zone leaves out has no length.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Calendar {
    zone: TimeZone,
}

/// A name that is not a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a time zone of the IANA database; write a name like \"Asia/Shanghai\" or \"UTC\""
)]
pub struct UnknownTimeZone(String);

impl Calendar {
    /// The calendar in UTC.
    pub const UTC: Self = Self { zone: TimeZone::UTC };

    /// The calendar for an IANA time zone name.
    ///
    /// The database is compiled in, and that of the machine is never used. A slim image has none, and two replicas with
    /// databases of different years would disagree on when a day ends.
    ///
    /// # Errors
    ///
    /// [`UnknownTimeZone`].
    pub fn named(name: &str) -> Result<Self, UnknownTimeZone> {
        let zone = TimeZoneDatabase::bundled().get(name).ok();
        // jiff also accepts "Etc/Unknown", its name for a zone that was not found.
        let zone = zone.filter(|zone| !zone.is_unknown());
        let zone = zone.ok_or_else(|| UnknownTimeZone(name.to_owned()))?;
        Ok(Self { zone })
    }

    /// The name of the zone.
    pub fn name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The day that contains a moment.
    pub fn day_of(&self, at: Timestamp) -> Date {
        let mut day = self.zone.to_datetime(at).date();
        // After clocks were set back across midnight, they show a day that is already over.
        while let Ok(next) = day.tomorrow()
            && self.begins_at(next) <= at
        {
            day = next;
        }
        day
    }

    /// Formats the hour that starts at this moment in local time with its offset. The offset distinguishes the two
    /// equal hours when clocks are set back.
    pub fn hour_text(&self, begins_at: Timestamp) -> String {
        begins_at.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M%:z").to_string()
    }

    /// The first moment of a window.
    pub fn starts_at(&self, window: &Window) -> Timestamp {
        self.begins_at(window.starts_on)
    }

    /// The first moment after a window, at which the next one starts.
    pub fn ends_at(&self, window: &Window) -> Timestamp {
        self.begins_at(window.next_starts_on())
    }

    /// The first moment at which clocks show `day` or a later date.
    fn begins_at(&self, day: Date) -> Timestamp {
        let midnight = day.to_datetime(Time::midnight());
        let moment = match self.zone.to_ambiguous_timestamp(midnight).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(midnight),
            // Midnight occurs twice: the day starts at the first one.
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(midnight),
            // Midnight is skipped: the day starts when the clocks jump. With the offset after the jump, midnight is
            // shortly before the jump.
            AmbiguousOffset::Gap { after, .. } => {
                after.to_timestamp(midnight).map(|shortly_before| {
                    let mut changes = self.zone.following(shortly_before);
                    let jump = changes.find(|change| change.offset() == after);
                    jump.map_or(shortly_before, |jump| jump.timestamp())
                })
            }
        };
        // This fails only at the ends of the calendar, eight thousand years from now.
        moment.unwrap_or(Timestamp::MAX)
    }
}

impl TryFrom<String> for Calendar {
    type Error = UnknownTimeZone;

    fn try_from(name: String) -> Result<Self, UnknownTimeZone> {
        Self::named(&name)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    /// Zones that cover every kind of clock change, past or present.
    const ZONES: [&str; 16] = [
        "UTC",
        "Asia/Shanghai",
        "Europe/Berlin",
        "America/New_York",
        // 30 minutes of daylight saving time.
        "Australia/Lord_Howe",
        // Midnight is skipped.
        "America/Sao_Paulo",
        "Asia/Beirut",
        "Africa/Cairo",
        // Midnight occurs twice.
        "America/Havana",
        // Clocks were set back at one minute past midnight.
        "America/St_Johns",
        // Clocks were set forward at half past eleven in the evening.
        "America/Toronto",
        // A date was left out.
        "Pacific/Apia",
        "Pacific/Kwajalein",
        // A date was shown twice.
        "America/Juneau",
        "Africa/Monrovia",
        "Asia/Kathmandu",
    ];

    fn calendar(zone: &str) -> Calendar {
        Calendar::named(zone).unwrap()
    }

    /// The start of a day and its length in minutes.
    fn day(zone: &str, day: Date) -> (String, i64) {
        let (calendar, window) = (calendar(zone), Window::of(Period::Day, day));
        let (start, end) = (calendar.starts_at(&window), calendar.ends_at(&window));
        (start.to_string(), (end.as_second() - start.as_second()) / 60)
    }

    #[test]
    fn a_day_ends_where_the_next_begins() {
        let window = Window::of(Period::Day, date(2028, 2, 28));
        assert_eq!(Calendar::UTC.starts_at(&window).to_string(), "2028-02-28T00:00:00Z");
        assert_eq!(Calendar::UTC.ends_at(&window).to_string(), "2028-02-29T00:00:00Z");
    }

    #[test]
    fn a_month_is_the_calendars_in_its_zone() {
        let window = Window::of(Period::Month, date(2026, 12, 31));
        assert_eq!(window.starts_on, date(2026, 12, 1));
        assert_eq!(Calendar::UTC.ends_at(&window).to_string(), "2027-01-01T00:00:00Z");
        let shanghai = calendar("Asia/Shanghai");
        assert_eq!(shanghai.starts_at(&window).to_string(), "2026-11-30T16:00:00Z");
        assert_eq!(shanghai.ends_at(&window).to_string(), "2026-12-31T16:00:00Z");
    }

    #[test]
    fn a_month_with_a_change_of_the_clocks_begins_and_ends_at_its_own_midnights() {
        let (berlin, window) =
            (calendar("Europe/Berlin"), Window::of(Period::Month, date(2026, 3, 9)));
        assert_eq!(berlin.starts_at(&window).to_string(), "2026-02-28T23:00:00Z");
        assert_eq!(berlin.ends_at(&window).to_string(), "2026-03-31T22:00:00Z");
    }

    #[test]
    fn the_day_of_a_moment_is_that_of_the_zone() {
        let before: Timestamp = "2026-03-31T15:59:59.999Z".parse().unwrap();
        let after: Timestamp = "2026-03-31T16:00:00Z".parse().unwrap();
        let days = |calendar: &Calendar| (calendar.day_of(before), calendar.day_of(after));
        assert_eq!(days(&calendar("Asia/Shanghai")), (date(2026, 3, 31), date(2026, 4, 1)));
        assert_eq!(days(&Calendar::UTC), (date(2026, 3, 31), date(2026, 3, 31)));
    }

    #[test]
    fn a_day_on_which_the_clocks_change_has_23_or_25_hours() {
        let change = |zone, on| day(zone, on).1;
        assert_eq!(change("Europe/Berlin", date(2026, 3, 29)), 23 * 60);
        assert_eq!(change("Europe/Berlin", date(2026, 10, 25)), 25 * 60);
        assert_eq!(change("Australia/Lord_Howe", date(2026, 4, 5)), 24 * 60 + 30);
        assert_eq!(change("Asia/Shanghai", date(2026, 10, 25)), 24 * 60);
    }

    #[test]
    fn a_day_without_a_midnight_begins_when_the_clocks_jump() {
        let noon = (date(2018, 11, 4), 23 * 60);
        assert_eq!(day("America/Sao_Paulo", noon.0), ("2018-11-04T03:00:00Z".to_owned(), noon.1));
        // From 23:30 to 00:30: the jump is half an hour before the midnight that was skipped.
        let began = day("America/Toronto", date(1919, 3, 31)).0;
        assert_eq!(began, "1919-03-31T04:30:00Z");
    }

    #[test]
    fn a_day_with_two_midnights_begins_at_the_first() {
        // From 01:00 back to 00:00.
        let havana = day("America/Havana", date(2025, 11, 2));
        assert_eq!(havana, ("2025-11-02T04:00:00Z".to_owned(), 25 * 60));
        // From 00:01 back to 23:01 of the previous day, which does not start again.
        let zone = calendar("America/St_Johns");
        let second_evening: Timestamp = "2010-11-07T02:45:00Z".parse().unwrap();
        assert_eq!(zone.zone.to_datetime(second_evening).date(), date(2010, 11, 6));
        assert_eq!(zone.day_of(second_evening), date(2010, 11, 7));
        assert_eq!(day("America/St_Johns", date(2010, 11, 7)).1, 25 * 60);
    }

    #[test]
    fn a_date_that_a_zone_leaves_out_has_no_length() {
        let (skipped, next) = (date(2011, 12, 30), date(2011, 12, 31));
        assert_eq!(day("Pacific/Apia", skipped), ("2011-12-30T10:00:00Z".to_owned(), 0));
        assert_eq!(day("Pacific/Apia", next), ("2011-12-30T10:00:00Z".to_owned(), 24 * 60));
    }

    #[test]
    fn a_name_of_no_zone_is_refused_and_the_case_of_letters_does_not_matter() {
        for wrong in ["", "Beijing", "CST-8", "+08:00", "Etc/Unknown", "local", "Asia/Shanghai "] {
            let refusal = Calendar::named(wrong).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("{wrong:?} is not a time zone")), "{refusal}");
        }
        assert_eq!(calendar("asia/shanghai").name(), "Asia/Shanghai");
        assert_eq!(calendar("utc"), Calendar::UTC);
        assert_eq!(Calendar::UTC.name(), "UTC");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn windows_follow_each_other_without_a_gap_or_an_overlap(
            zone in prop::sample::select(&ZONES[..]),
            // From 1850 to 2150, so that each zone's whole history is among them.
            second in -3_786_912_000_i64..5_680_281_600,
            // Half of the moments are near the next clock change.
            near_change in prop::option::of(-100_000_i64..100_000),
        ) {
            let calendar = calendar(zone);
            let mut at = Timestamp::from_second(second).unwrap();
            if let Some(distance) = near_change {
                let change = calendar.zone.following(at).next();
                at = change.map_or(at, |change| change.timestamp()) + distance.seconds();
            }
            let day = calendar.day_of(at);
            for period in Period::ALL {
                let window = Window::of(period, day);
                let (start, end) = (calendar.starts_at(&window), calendar.ends_at(&window));
                prop_assert!(start <= at && at < end, "{zone} {at}: {start} to {end}");
                // The first moment is in the window, and the moments at its edges are in the neighbouring windows.
                prop_assert_eq!(Window::of(period, calendar.day_of(start)), window);
                let before = Window::of(period, calendar.day_of(start - 1.nanosecond()));
                prop_assert!(before < window && calendar.ends_at(&before) <= start);
                let after = Window::of(period, calendar.day_of(end));
                prop_assert!(after > window && calendar.starts_at(&after) == end);
                prop_assert_eq!(Window::of(period, calendar.day_of(end - 1.nanosecond())), window);
            }
        }
    }
}
