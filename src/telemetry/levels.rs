//! Gauges that a scrape reads: usage, limits and budgets.
//!
//! Other modules count these already for their own purpose, so a gauge always equals the count. Each scrape writes its
//! own set: a tenant whose budget was removed has no series in the next scrape, and concurrent scrapes are independent.
//!
//! Budgets are shown for single tenants and never as a sum under `other`: an alert that divides the spending by the
//! limit would mix different tenants.

use std::time::SystemTime;

use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Registry};

use super::registrar::Registrar;
use crate::units::{Currency, Money, Tokens};

/// The values of one scrape.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Levels {
    /// Requests in flight.
    pub in_flight_requests: Level,
    /// The limit of bytes of uploads and long answers in memory.
    pub in_flight_bytes_limit: u64,
    /// Open connections of the public listener.
    pub connections: Level,
    /// Bytes of answers that are kept in memory.
    pub cache_bytes: u64,
    /// Answers that are kept in memory.
    pub cache_entries: u64,
    /// The budgets.
    pub budgets: BudgetLevels,
}

/// A usage and its limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Level {
    /// The amount in use.
    pub used: usize,
    /// The maximum.
    pub limit: usize,
}

/// The budgets of tenants at the last read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BudgetLevels {
    /// The budgets that are shown.
    pub shown: Vec<BudgetLevel>,
    /// The number of tenants with budgets that are not shown.
    pub left_out: usize,
    /// When they were read; `None` before the first read.
    pub read_at: Option<SystemTime>,
}

/// One account of one tenant: a window, a unit, and its budget if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetLevel {
    /// The tenant.
    pub tenant: String,
    /// `day` or `month`.
    pub period: &'static str,
    /// The amounts in their unit.
    pub amounts: BudgetAmounts,
}

/// The amounts of an account in their unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetAmounts {
    /// Tokens.
    Tokens(BudgetUse<Tokens>),
    /// Money.
    Money(Currency, BudgetUse<Money>),
}

/// A budget and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetUse<T> {
    /// The budget; `None` if the window has none in this unit.
    pub limit: Option<T>,
    /// The amount spent.
    pub settled: T,
    /// The amount reserved by calls in flight.
    pub reserved: T,
}

impl<T: Copy> BudgetUse<T> {
    /// The amounts by the names of the gauges.
    const fn named(&self) -> [(&'static str, Option<T>); 3] {
        [("limit", self.limit), ("settled", Some(self.settled)), ("reserved", Some(self.reserved))]
    }
}

impl Levels {
    /// The gauges.
    pub(super) fn families(&self) -> Result<Vec<MetricFamily>, prometheus::Error> {
        let registry = Registry::new();
        let new = Registrar { registry: &registry };
        let set = |name: &str, help: &str, value: i64| {
            new.gauge(name, help).map(|gauge| gauge.set(value))
        };
        let Self { in_flight_requests: requests, connections, .. } = *self;
        set(
            "in_flight_requests",
            "Requests that hold one of in_flight_requests_limit places, streams until their end included.",
            whole(requests.used),
        )?;
        set(
            "in_flight_requests_limit",
            "Requests at once; past it they are refused.",
            whole(requests.limit),
        )?;
        set(
            "in_flight_bytes_limit",
            "Bytes of uploads and long answers at once; past it requests are refused.",
            i64::try_from(self.in_flight_bytes_limit).unwrap_or(i64::MAX),
        )?;
        let bytes = i64::try_from(self.cache_bytes).unwrap_or(i64::MAX);
        set("cache_bytes", "Bytes of answers that are kept in memory for equal requests.", bytes)?;
        let entries = i64::try_from(self.cache_entries).unwrap_or(i64::MAX);
        set("cache_entries", "Answers that are kept in memory for equal requests.", entries)?;
        set("connections", "Open connections of the public listener.", whole(connections.used))?;
        set(
            "connections_limit",
            "Connections of the public listener at once; further ones wait.",
            whole(connections.limit),
        )?;
        self.budgets.register(&new)?;
        Ok(registry.gather())
    }
}

impl BudgetLevels {
    fn register(&self, new: &Registrar<'_>) -> Result<(), prometheus::Error> {
        let hidden = "Tenants with budgets that have no budget gauges: more than metrics.max_tenants have budgets, and those are shown whose budgets are used most.";
        new.gauge("budget_tenants_left_out", hidden)?.set(whole(self.left_out));
        if let Some(read_at) = self.read_at {
            let since = read_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let help = "When the budget gauges were read from the database, in seconds since 1970.";
            let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            new.gauge("budget_read_timestamp_seconds", help)?.set(seconds);
        }
        self.register_tokens(new)?;
        self.register_money(new)
    }

    fn register_tokens(&self, new: &Registrar<'_>) -> Result<(), prometheus::Error> {
        let help = "Tokens of the current window: the budget, what is settled, and what calls in flight hold. The sum over states means nothing; budget_tokens_limit, _settled and _reserved are the same.";
        let by_state = new.gauges("budget_tokens", help, &["tenant", "period", "state"])?;
        let gauges = |name, help| new.gauges(name, help, &["tenant", "period"]);
        let apart: [IntGaugeVec; 3] = [
            gauges("budget_tokens_limit", "Tokens that may be spent in the current window.")?,
            gauges("budget_tokens_settled", "Tokens that are spent of the current window.")?,
            gauges(
                "budget_tokens_reserved",
                "Tokens of the current window that calls in flight hold.",
            )?,
        ];
        for BudgetLevel { tenant, period, amounts } in &self.shown {
            let BudgetAmounts::Tokens(standing) = amounts else { continue };
            for ((state, tokens), gauge) in standing.named().iter().zip(&apart) {
                let Some(tokens) = tokens else { continue };
                let tokens = i64::try_from(tokens.get()).unwrap_or(i64::MAX);
                let labels = [tenant.as_str(), period, state];
                by_state.with_label_values(&labels).set(tokens);
                gauge.with_label_values(&labels[..2]).set(tokens);
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    fn register_money(&self, new: &Registrar<'_>) -> Result<(), prometheus::Error> {
        let gauges = |name, help| new.amounts(name, help, &["tenant", "period", "currency"]);
        let apart = [
            gauges(
                "budget_cost_limit",
                "Money that may be spent in the current window, in units of the currency.",
            )?,
            gauges(
                "budget_cost_settled",
                "Money that is spent of the current window, in units of the currency.",
            )?,
            gauges(
                "budget_cost_reserved",
                "Money of the current window that calls in flight hold, in units of the currency.",
            )?,
        ];
        for BudgetLevel { tenant, period, amounts } in &self.shown {
            let BudgetAmounts::Money(currency, standing) = amounts else { continue };
            for ((_, money), gauge) in standing.named().iter().zip(&apart) {
                let Some(money) = money else { continue };
                let labels = [tenant.as_str(), period, currency.code()];
                gauge.with_label_values(&labels).set(money.nanos() as f64 / 1e9);
            }
        }
        Ok(())
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
