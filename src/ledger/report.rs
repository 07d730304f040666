//! Reports of spend and remaining budgets for the API and the command line.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use super::account::{Account, AccountKey, Unit};
use super::budget::Budgets;
use super::usage::{PartRow, Spending, UsageQuery, UsageRow};
use super::window::{Calendar, Period, Window};
use crate::units::{Cost, Currency, Money, Tokens, Usage};

/// The answer of `GET /usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageReport {
    /// The tenant.
    pub tenant: String,
    /// The first day.
    pub from: Date,
    /// The last day, included.
    pub to: Date,
    /// The current budgets.
    pub budgets: BudgetsReport,
    /// Spend by day and model.
    pub days: Vec<DayReport>,
    /// The sum of all rows.
    pub total: TotalReport,
}

/// The current budgets and what remains of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BudgetsReport {
    /// The budgets of today.
    pub day: WindowReport,
    /// The budgets of this month.
    pub month: WindowReport,
}

/// The budgets of one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowReport {
    /// The start of the window.
    pub starts_at: Timestamp,
    /// The start of the next window.
    pub ends_at: Timestamp,
    /// The token budget.
    pub tokens: BalanceReport<Tokens>,
    /// The money budgets, one for each currency in the price list and each currency that was spent.
    pub cost: Vec<CostBalanceReport>,
}

/// A budget and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BalanceReport<T> {
    /// The budget; null if there is none.
    pub limit: Option<T>,
    /// The settled amount.
    pub settled: T,
    /// The amount that calls in flight have reserved.
    pub reserved: T,
    /// The remaining amount; null if there is no budget.
    pub remaining: Option<T>,
}

/// A money budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CostBalanceReport {
    /// The currency.
    pub currency: Currency,
    /// The budget.
    #[serde(flatten)]
    pub balance: BalanceReport<Money>,
}

/// The spend on one model on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DayReport {
    /// The day.
    pub date: Date,
    /// The model.
    pub model: String,
    /// Tokens and calls.
    #[serde(flatten)]
    pub spent: SpentReport,
    /// The cost.
    pub cost: Cost,
}

/// Tokens and calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SpentReport {
    /// Number of counted calls. A request that is answered from the cache counts as one, of no tokens.
    pub calls: u64,
    /// Number of calls that were counted at their bound because the bill is unknown.
    pub unverified_calls: u64,
    /// Image tokens.
    pub image_tokens: Tokens,
    /// Input tokens: images and prompts.
    pub input_tokens: Tokens,
    /// Output tokens.
    pub output_tokens: Tokens,
    /// All tokens.
    pub total_tokens: Tokens,
    /// The part of all tokens from calls whose bill is unknown.
    pub unverified_tokens: Tokens,
}

/// The sum over all days and models.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TotalReport {
    /// Tokens and calls.
    #[serde(flatten)]
    pub spent: SpentReport,
    /// The cost by currency.
    pub cost: Vec<Cost>,
}

/// The sum of the rows exceeds the range of a ledger, so at least one row is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Uncountable {
    /// The sum of daily rows is too large.
    #[error(
        "the rows of these days add up to more than can be counted{}",
        .0.as_ref().map_or(String::new(), |row| format!("; the largest is ledger_usage, row of {row}"))
    )]
    Days(Option<Box<RowName>>),
    /// The sum of single calls is too large.
    #[error(
        "the calls of these days add up to more than can be counted; `ocr-gateway audit` names the sums that \
         they are in"
    )]
    Calls,
}

/// The key of a daily sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowName {
    day: Date,
    tenant: String,
    model: String,
    currency: Currency,
}

impl std::fmt::Display for RowName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { day, tenant, model, currency } = self;
        write!(f, "{day}, {tenant}, {model}, {currency}")
    }
}

impl UsageReport {
    /// Builds the report of one tenant from the rows for `query`.
    ///
    /// # Errors
    ///
    /// [`Uncountable`].
    pub fn new(
        tenant: String,
        query: &UsageQuery,
        budgets: BudgetsReport,
        rows: Vec<UsageRow>,
    ) -> Result<Self, Uncountable> {
        let total = TotalReport::of(&rows)?;
        let days = rows.into_iter().map(DayReport::from).collect();
        Ok(Self { tenant, from: query.from, to: query.to, budgets, days, total })
    }
}

impl SpentReport {
    /// Converts a spending to tokens and calls.
    pub const fn of(spending: &Spending) -> Self {
        let calls = [spending.calls, spending.unverified_calls];
        Self::new(calls, &spending.usage, spending.unverified_tokens)
    }

    const fn new(calls: [u64; 2], usage: &Usage, unverified_tokens: Tokens) -> Self {
        Self {
            calls: calls[0],
            unverified_calls: calls[1],
            image_tokens: usage.image,
            input_tokens: usage.input(),
            output_tokens: usage.output,
            total_tokens: usage.total(),
            unverified_tokens,
        }
    }
}

impl TotalReport {
    /// Adds up the rows.
    ///
    /// # Errors
    ///
    /// [`Uncountable`].
    pub fn of(rows: &[UsageRow]) -> Result<Self, Uncountable> {
        let sum = Self::sum(rows.iter().map(|row| &row.spending));
        sum.ok_or_else(|| Uncountable::Days(largest(rows).map(Box::new)))
    }

    /// Adds up the parts.
    ///
    /// # Errors
    ///
    /// [`Uncountable`].
    pub fn of_parts(rows: &[PartRow]) -> Result<Self, Uncountable> {
        Self::sum(rows.iter().map(|row| &row.spending)).ok_or(Uncountable::Calls)
    }

    /// Adds up spendings; `None` if the sum exceeds the range of a ledger.
    fn sum<'a>(spendings: impl IntoIterator<Item = &'a Spending>) -> Option<Self> {
        let (mut calls, mut usage, mut unverified) = ([0_u64; 2], Usage::default(), Tokens::ZERO);
        let mut cost: BTreeMap<Currency, Money> = BTreeMap::new();
        for row in spendings {
            calls =
                [calls[0].saturating_add(row.calls), calls[1].saturating_add(row.unverified_calls)];
            usage = usage.plus(&row.usage);
            unverified = unverified.saturating_add(row.unverified_tokens);
            let sum = cost.entry(row.currency).or_default();
            *sum = sum.saturating_add(row.cost);
        }
        // These sums saturate at the largest number.
        let counts = [calls[0], calls[1], usage.total().get(), unverified.get()];
        let money = cost.values().map(|amount| amount.nanos());
        if counts.into_iter().chain(money).any(|sum| sum == u64::MAX) {
            return None;
        }
        let cost = cost.into_iter().map(|(currency, amount)| Cost::of(amount, currency));
        Some(Self { spent: SpentReport::new(calls, &usage, unverified), cost: cost.collect() })
    }
}

/// The name of the row with the largest number.
fn largest(rows: &[UsageRow]) -> Option<RowName> {
    let largest = rows.iter().max_by_key(|row| {
        let Spending { calls, unverified_calls, usage, unverified_tokens, cost, .. } =
            &row.spending;
        let tokens = usage.total().max(*unverified_tokens).get();
        tokens.max(cost.nanos()).max(*calls).max(*unverified_calls)
    })?;
    let UsageRow { day, tenant, model, spending } = largest;
    let (tenant, model) = (tenant.clone(), model.clone());
    Some(RowName { day: *day, tenant, model, currency: spending.currency })
}

impl BudgetsReport {
    /// Reports the budgets of the windows that contain `today`, from the tenant's accounts. `priced` are the currencies
    /// with a price; they are reported even if nothing was spent in them.
    pub fn of(
        budgets: &Budgets,
        accounts: &[(AccountKey, Account)],
        priced: impl IntoIterator<Item = Currency>,
        calendar: &Calendar,
        today: Date,
    ) -> Self {
        let priced: BTreeSet<_> = priced.into_iter().collect();
        let of = |period| {
            let window = Window::of(period, today);
            WindowReport::of(budgets, accounts, &priced, calendar, window)
        };
        Self { day: of(Period::Day), month: of(Period::Month) }
    }
}

impl WindowReport {
    fn of(
        budgets: &Budgets,
        accounts: &[(AccountKey, Account)],
        priced: &BTreeSet<Currency>,
        calendar: &Calendar,
        window: Window,
    ) -> Self {
        let of_window: BTreeMap<_, _> = accounts
            .iter()
            .filter(|(key, _)| key.window == window)
            .map(|(key, account)| (key.unit, *account))
            .collect();
        let account = |unit| of_window.get(&unit).copied().unwrap_or_default();
        let limit = |unit| budgets.limit(window.period, unit);
        let spent = of_window.keys().filter_map(|unit| match unit {
            Unit::Money(currency) => Some(*currency),
            Unit::Tokens => None,
        });
        let currencies: BTreeSet<_> = priced.iter().copied().chain(spent).collect();
        let cost = currencies.into_iter().map(|currency| {
            let unit = Unit::Money(currency);
            let balance = BalanceReport::of(limit(unit), &account(unit), Money::from_nanos);
            CostBalanceReport { currency, balance }
        });
        Self {
            starts_at: calendar.starts_at(&window),
            ends_at: calendar.ends_at(&window),
            tokens: BalanceReport::of(limit(Unit::Tokens), &account(Unit::Tokens), Tokens::new),
            cost: cost.collect(),
        }
    }
}

impl<T> BalanceReport<T> {
    fn of(limit: Option<u64>, account: &Account, unit: fn(u64) -> T) -> Self {
        Self {
            limit: limit.map(unit),
            settled: unit(account.settled),
            reserved: unit(account.reserved),
            remaining: limit.map(|limit| unit(limit.saturating_sub(account.committed()))),
        }
    }
}

impl From<UsageRow> for DayReport {
    fn from(row: UsageRow) -> Self {
        let UsageRow { day, model, spending, .. } = row;
        let spent = SpentReport::of(&spending);
        Self { date: day, model, spent, cost: Cost::of(spending.cost, spending.currency) }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn spending(cost: u64, currency: Currency) -> Spending {
        Spending {
            calls: 3,
            unverified_calls: 1,
            usage: Usage { image: Tokens::new(7), text: Tokens::new(2), output: Tokens::new(1) },
            unverified_tokens: Tokens::new(5),
            cost: Money::from_nanos(cost),
            currency,
        }
    }

    #[test]
    fn a_total_adds_tokens_and_keeps_currencies_apart() {
        let spendings = [(1, Currency::Cny), (2, Currency::Cny), (4, Currency::Usd)];
        let spendings = spendings.map(|(cost, currency)| spending(cost, currency));
        let total = TotalReport::sum(&spendings).unwrap();
        assert_eq!((total.spent.calls, total.spent.total_tokens.get()), (9, 30));
        let cost: Vec<_> = total.cost.iter().map(|cost| cost.amount.nanos()).collect();
        assert_eq!(cost, [3, 4]);
    }

    #[test]
    fn a_window_without_a_budget_tells_what_was_spent_and_nothing_of_a_rest() {
        let today = date(2026, 5, 4);
        let account = Account { granted: 10, settled: 6, reserved: 4, ..Account::default() };
        let window = Window::of(Period::Day, today);
        let key = AccountKey { tenant: "acme".into(), window, unit: Unit::Tokens };
        let budgets = Budgets { monthly_tokens: Some(Tokens::new(5)), ..Budgets::default() };
        let report = BudgetsReport::of(&budgets, &[(key, account)], [], &Calendar::UTC, today);
        assert_eq!((report.day.tokens.limit, report.day.tokens.remaining), (None, None));
        assert_eq!(report.day.tokens.settled, Tokens::new(6));
        assert_eq!(report.month.tokens.remaining, Some(Tokens::new(5)));
    }

    #[test]
    fn a_budget_of_money_is_told_before_anything_is_spent_and_a_currency_apart_from_another() {
        let today = date(2026, 5, 4);
        let account = Account { granted: 7, settled: 3, reserved: 4, ..Account::default() };
        let window = Window::of(Period::Month, today);
        let key = AccountKey { tenant: "acme".into(), window, unit: Unit::Money(Currency::Usd) };
        let budget = Some(Money::from_nanos(5));
        let budgets = Budgets { daily_cost: budget, monthly_cost: budget, ..Budgets::default() };
        let report =
            BudgetsReport::of(&budgets, &[(key, account)], [Currency::Cny], &Calendar::UTC, today);
        let left = |window: &WindowReport| -> Vec<_> {
            let left = window.cost.iter().map(|cost| (cost.currency, cost.balance.remaining));
            left.collect()
        };
        assert_eq!(left(&report.day), [(Currency::Cny, budget)]);
        let nothing = Some(Money::ZERO);
        assert_eq!(left(&report.month), [(Currency::Cny, budget), (Currency::Usd, nothing)]);
    }
}
