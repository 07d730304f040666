//! The budgets of a tenant for a day and a month, and the refusal of a call that does not fit.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::account::{Balances, Unit};
use super::window::{Calendar, Period, Window};
use crate::units::{Money, Tokens};

/// The budgets of a tenant; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Tokens in a day.
    pub daily_tokens: Option<Tokens>,
    /// Tokens in a month.
    pub monthly_tokens: Option<Tokens>,
    /// Money in a day, of each currency.
    pub daily_cost: Option<Money>,
    /// Money in a month, of each currency.
    pub monthly_cost: Option<Money>,
    /// Whether the tenant is disabled and may spend nothing.
    pub disabled: bool,
    /// Whether the budgets come from the configuration. Then they apply even if a database has a row with the tenant's
    /// name. Otherwise the row's values at the time of the reservation apply.
    pub of_file: bool,
}

impl Budgets {
    /// The budget of a period in a unit's smallest parts.
    pub fn limit(&self, period: Period, unit: Unit) -> Option<u64> {
        match (period, unit) {
            (Period::Day, Unit::Tokens) => self.daily_tokens.map(Tokens::get),
            (Period::Month, Unit::Tokens) => self.monthly_tokens.map(Tokens::get),
            (Period::Day, Unit::Money(_)) => self.daily_cost.map(Money::nanos),
            (Period::Month, Unit::Money(_)) => self.monthly_cost.map(Money::nanos),
        }
    }

    /// Whether there is any budget.
    pub const fn are_any(&self) -> bool {
        self.limit_tokens() || self.daily_cost.is_some() || self.monthly_cost.is_some()
    }

    /// Whether any budget is in tokens.
    pub const fn limit_tokens(&self) -> bool {
        self.daily_tokens.is_some() || self.monthly_tokens.is_some()
    }

    /// Tokens that are left of the budgets.
    pub fn remaining(&self, balances: &Balances) -> RemainingTokens {
        let of = |period| {
            let limit = self.limit(period, Unit::Tokens)?;
            Some(Tokens::new(limit.saturating_sub(balances.of(period).committed())))
        };
        RemainingTokens { day: of(Period::Day), month: of(Period::Month) }
    }
}

/// Tokens left of a tenant's budgets: not spent, and not held by a call in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RemainingTokens {
    /// Left of the day's budget; `None` without one.
    pub day: Option<Tokens>,
    /// Left of the month's budget; `None` without one.
    pub month: Option<Tokens>,
}

/// A budget that has no room for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetExceeded {
    /// The window.
    pub window: Window,
    /// The unit.
    pub unit: Unit,
    /// The budget.
    pub limit: u64,
    /// The settled amount.
    pub settled: u64,
    /// The bounds of the calls in flight.
    pub reserved: u64,
    /// The bound of the call.
    pub asked: u64,
}

impl BudgetExceeded {
    /// Whether the call would fit if the calls in flight cost nothing, so that waiting may help.
    pub const fn is_held(&self) -> bool {
        self.settled.saturating_add(self.asked) <= self.limit
    }

    /// Whether the call would exceed even an unused budget.
    pub const fn never_fits(&self) -> bool {
        self.asked > self.limit
    }

    /// The name of the tenant's setting.
    pub const fn setting(&self) -> &'static str {
        match (self.window.period, self.unit) {
            (Period::Day, Unit::Tokens) => "daily_tokens",
            (Period::Month, Unit::Tokens) => "monthly_tokens",
            (Period::Day, Unit::Money(_)) => "daily_cost",
            (Period::Month, Unit::Money(_)) => "monthly_cost",
        }
    }

    /// The least time after which the same call can pass: the time until the budget's next window, or less if only
    /// calls in flight block the call, since one of them may end soon.
    pub fn retry_after(&self, calendar: &Calendar, now: Timestamp) -> Duration {
        const SOON: Duration = Duration::from_secs(1);
        if self.is_held() {
            return SOON;
        }
        let left = calendar.ends_at(&self.window).duration_since(now);
        Duration::try_from(left).unwrap_or_default().max(SOON)
    }

    fn amount(&self, amount: u64) -> String {
        match self.unit {
            Unit::Tokens => amount.to_string(),
            Unit::Money(_) => Money::from_nanos(amount).to_string(),
        }
    }
}

impl std::fmt::Display for BudgetExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the {} budget is {} {}; {} are spent, {} are held by requests in flight, and this \
             request may take {}",
            self.window.period.adjective(),
            self.amount(self.limit),
            self.unit,
            self.amount(self.settled),
            self.amount(self.reserved),
            self.amount(self.asked),
        )
    }
}

impl std::error::Error for BudgetExceeded {}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::units::Currency;

    fn exceeded(settled: u64, reserved: u64, asked: u64) -> BudgetExceeded {
        let window = Window::of(Period::Day, date(2026, 5, 4));
        BudgetExceeded { window, unit: Unit::Tokens, limit: 100, settled, reserved, asked }
    }

    #[test]
    fn an_exhausted_budget_is_worth_asking_again_when_its_window_ends() {
        let now = "2026-05-04T23:00:00Z".parse().unwrap();
        assert_eq!(exceeded(60, 0, 50).retry_after(&Calendar::UTC, now), Duration::from_hours(1));
        assert_eq!(exceeded(40, 30, 50).retry_after(&Calendar::UTC, now), Duration::from_secs(1));
    }

    #[test]
    fn a_clock_past_the_window_still_gives_a_wait() {
        let now = "2026-05-06T00:00:00Z".parse().unwrap();
        assert_eq!(exceeded(60, 0, 50).retry_after(&Calendar::UTC, now), Duration::from_secs(1));
    }

    #[test]
    fn money_is_told_in_units_and_not_in_billionths() {
        let unit = Unit::Money(Currency::Cny);
        let exceeded = BudgetExceeded {
            unit,
            limit: 1_500_000_000,
            asked: 3_000_000_000,
            ..exceeded(1, 0, 0)
        };
        let text = exceeded.to_string();
        assert!(text.starts_with("the daily budget is 1.5 CNY;") && text.ends_with("take 3"));
        assert_eq!(exceeded.setting(), "daily_cost");
    }
}
