//! An account: the granted amounts of a tenant, and what became of them.
//!
//! Every granted amount stays counted as settled, released or still open. So the equation `granted + excess = settled +
//! released + reserved` holds after every posting. The tables have it as a constraint, so a database refuses a posting
//! that breaks it.

use std::fmt;
use std::sync::Arc;

use jiff::civil::Date;

use super::window::{Period, Window};
use crate::units::Currency;

/// The largest amount that a database column holds.
const LARGEST: u64 = i64::MAX.unsigned_abs();

/// The unit that an account counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Tokens of all kinds.
    Tokens,
    /// Money of one price list, in billionths of the currency's unit.
    Money(Currency),
}

impl Unit {
    /// The unit's name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Money(currency) => currency.code(),
        }
    }

    /// The unit of a name in a table.
    pub fn named(word: &str) -> Option<Self> {
        [Self::Tokens, Self::Money(Currency::Cny), Self::Money(Currency::Usd)]
            .into_iter()
            .find(|unit| unit.as_str() == word)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names an account. The order is the one in which accounts are locked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountKey {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The window.
    pub window: Window,
    /// The unit.
    pub unit: Unit,
}

/// The amounts of one tenant, in one unit and one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Bounds of all calls that were ever reserved.
    pub granted: u64,
    /// Amounts that were billed, or count as billed.
    pub settled: u64,
    /// Amounts that were released.
    pub released: u64,
    /// Amounts that were billed above bounds.
    pub excess: u64,
    /// Bounds of the calls that are open now.
    pub reserved: u64,
}

/// A tenant's token accounts after a posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balances {
    /// The day of the day's account.
    pub day: Date,
    /// The day's account.
    pub daily: Account,
    /// The month's account.
    pub monthly: Account,
}

impl Balances {
    /// The account of a period.
    pub const fn of(&self, period: Period) -> &Account {
        match period {
            Period::Day => &self.daily,
            Period::Month => &self.monthly,
        }
    }
}

impl Account {
    /// The settled and the reserved amount, which a budget limits.
    pub const fn committed(&self) -> u64 {
        self.settled.saturating_add(self.reserved)
    }

    /// Whether the equation of the account holds.
    pub const fn is_balanced(&self) -> bool {
        let came = self.granted as u128 + self.excess as u128;
        came == self.settled as u128 + self.released as u128 + self.reserved as u128
    }

    /// Whether one more bound can be counted at all.
    pub(super) const fn can_count(&self, bound: u64) -> bool {
        match self.granted.checked_add(bound) {
            Some(granted) => granted <= LARGEST,
            None => false,
        }
    }

    /// Reserves a bound.
    pub(super) const fn reserve(&mut self, bound: u64) {
        self.granted = self.granted.saturating_add(bound);
        self.reserved = self.reserved.saturating_add(bound);
    }

    /// The account after the end of a reservation of `bound` that spent `spent`; `None` if that cannot be counted.
    pub(super) fn closed(self, bound: u64, spent: u64) -> Option<Self> {
        let reserved = self.reserved.checked_sub(bound)?;
        let settled = self.settled.checked_add(bound)?;
        Self { settled, reserved, ..self }.corrected(bound, spent)
    }

    /// The account after the bill `spent` replaced the amount `assumed` of a written-off call; `None` if that cannot be
    /// counted.
    pub(super) fn corrected(self, assumed: u64, spent: u64) -> Option<Self> {
        let settled = self.settled.checked_sub(assumed)?.checked_add(spent)?;
        let released = self.released.checked_add(assumed.saturating_sub(spent))?;
        let excess = self.excess.checked_add(spent.saturating_sub(assumed))?;
        let can_be_held = [settled, released, excess].iter().all(|amount| *amount <= LARGEST);
        can_be_held.then_some(Self { settled, released, excess, ..self })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_unit_is_found_by_its_own_word() {
        for unit in [Unit::Tokens, Unit::Money(Currency::Cny), Unit::Money(Currency::Usd)] {
            assert_eq!(Unit::named(unit.as_str()), Some(unit));
        }
        assert_eq!(Unit::named("EUR"), None);
    }

    #[test]
    fn a_bill_below_the_bound_gives_the_rest_back() {
        let mut account = Account::default();
        account.reserve(100);
        let expected = Account { granted: 100, settled: 30, released: 70, ..Account::default() };
        assert_eq!(account.closed(100, 30), Some(expected));
    }

    #[test]
    fn a_bill_above_the_bound_is_counted_in_full() {
        let mut account = Account::default();
        account.reserve(100);
        let expected = Account { granted: 100, settled: 130, excess: 30, ..Account::default() };
        assert_eq!(account.closed(100, 130), Some(expected));
    }

    #[test]
    fn a_bill_beyond_what_can_be_counted_is_not_counted_in_part() {
        let mut account = Account { settled: 5, ..Account::default() };
        account.reserve(1);
        for spent in [LARGEST - 4, LARGEST, u64::MAX] {
            assert_eq!(account.closed(1, spent), None);
            assert_eq!(Account { settled: 6, ..account }.corrected(1, spent), None);
        }
        assert_eq!(account.closed(1, LARGEST - 5).unwrap().settled, LARGEST);
        assert!(!Account { granted: LARGEST, ..Account::default() }.can_count(1));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_whatever_becomes_of_the_calls(
            calls in prop::collection::vec((0_u64..1 << 40, 0_u64..1 << 41, 0_u8..4), 0..40),
        ) {
            let mut account = Account::default();
            for (bound, spent, fate) in calls {
                account.reserve(bound);
                prop_assert!(account.is_balanced());
                match fate {
                    0 => {}
                    1 => account = account.closed(bound, spent).unwrap(),
                    2 => account = account.closed(bound, 0).unwrap(),
                    _ => {
                        account = account.closed(bound, bound).unwrap();
                        account = account.corrected(bound, spent).unwrap();
                    }
                }
                prop_assert!(account.is_balanced(), "{:?}", account);
            }
        }
    }
}
