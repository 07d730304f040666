//! The levels of all tenants' budgets, for the metrics.
//!
//! A scrape shows the accounts in the database. So it also shows tenants without calls, after a restart and in a new
//! day or month. The figures are reused for two seconds, so many scrapers cost no more than one.
//!
//! A scrape never depends on the database. It waits half a second for new figures, and does not wait if the last
//! attempt failed. Then it shows the last figures of those windows that have not ended.
//!
//! A task reads the database on the runtime that its connections belong to. A scrape comes from the runtime of the
//! metrics listener.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::budgets;
use crate::auth::directory::Directory;
use crate::auth::tenant::Tenant;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::ledger::account::{Account, AccountKey, Unit};
use crate::ledger::budget::Budgets;
use crate::ledger::window::{Period, Window};
use crate::telemetry::levels::{BudgetAmounts, BudgetLevel, BudgetLevels, BudgetUse};
use crate::units::{Money, Tokens};

/// How long figures are reused before they are read anew.
const FRESH: Duration = Duration::from_secs(2);

/// How long a scrape waits for new figures.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long the database may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the levels of the budgets.
#[derive(Debug)]
pub struct BudgetWatch {
    directory: Arc<Directory>,
    ledger: Ledger,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    /// Tenants that are shown at most.
    most: usize,
    last: watch::Sender<BudgetReading>,
    wanted: Notify,
}

/// The last reading.
#[derive(Debug, Clone, Default)]
struct BudgetReading {
    levels: BudgetLevels,
    /// The day of the levels.
    day: Option<Date>,
    tried_at: Option<Instant>,
    has_failed: bool,
}

/// The reason why the budgets could not be read.
type ReadFailure = Box<dyn std::error::Error + Send + Sync>;

impl BudgetWatch {
    /// A watch over the tenants of `directory`, of which `most` are shown.
    pub fn new(
        directory: Arc<Directory>,
        ledger: Ledger,
        catalog: Arc<Catalog>,
        clock: Arc<dyn Clock>,
        most: usize,
    ) -> Self {
        let (last, _) = watch::channel(BudgetReading::default());
        Self { directory, ledger, catalog, clock, most, last, wanted: Notify::new() }
    }

    /// The levels of the budgets. May be called from any runtime.
    pub async fn levels(&self) -> BudgetLevels {
        let (today, now) = (self.ledger.today(), self.clock.instant());
        let mut readings = self.last.subscribe();
        let last = readings.borrow_and_update().clone();
        if !last.has_failed {
            // A scrape shows lingering ends too, so they are posted first.
            self.ledger.flush().await;
        }
        if !last.is_fresh(today, now) {
            self.wanted.notify_one();
            if !last.has_failed {
                // If no new figures come in time, the last ones are used.
                let _ = timeout(PATIENCE, readings.changed()).await;
            }
        }
        let reading = readings.borrow().clone();
        reading.levels_on(today)
    }

    /// Reads the figures whenever a scrape requests new ones.
    pub async fn read_when_wanted(self: Arc<Self>) {
        loop {
            self.wanted.notified().await;
            let read = timeout(READ_TIMEOUT, self.read()).await;
            let read = read.unwrap_or_else(|late| Err(late.into()));
            let tried_at = Some(self.clock.instant());
            self.last.send_modify(|last| match read {
                Ok((day, levels)) => {
                    *last = BudgetReading { levels, day: Some(day), tried_at, has_failed: false };
                }
                Err(error) => {
                    if !last.has_failed {
                        tracing::warn!(
                            error = &*error as &dyn std::error::Error,
                            "the metrics show old budgets: the accounts cannot be read"
                        );
                    }
                    (last.tried_at, last.has_failed) = (tried_at, true);
                }
            });
        }
    }

    async fn read(&self) -> Result<(Date, BudgetLevels), ReadFailure> {
        let (day, read_at) = (self.ledger.today(), self.clock.now());
        let mut tenants = self.directory.tenants().await?;
        tenants.retain(|tenant| budgets(tenant).are_any());
        let names: Vec<_> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        let accounts = self.ledger.accounts_of(&names).await?;
        let mut by_tenant: HashMap<Arc<str>, Vec<(AccountKey, Account)>> = HashMap::new();
        for (key, account) in accounts {
            by_tenant.entry(Arc::clone(&key.tenant)).or_default().push((key, account));
        }
        let standings = tenants.iter().map(|tenant| {
            let accounts = by_tenant.get(tenant.name.as_str()).map_or(&[][..], Vec::as_slice);
            self.standing(tenant, day, accounts)
        });
        let mut standings: Vec<_> = standings.collect();
        // The sort is stable, and the directory is sorted by name.
        standings.sort_by_key(|standing| Reverse(standing.used));
        let left_out = standings.len().saturating_sub(self.most);
        standings.truncate(self.most);
        let shown = standings.into_iter().flat_map(|standing| standing.levels).collect();
        Ok((day, BudgetLevels { shown, left_out, read_at: Some(read_at) }))
    }

    /// The levels of a tenant with these accounts.
    fn standing(
        &self,
        tenant: &Tenant,
        day: Date,
        accounts: &[(AccountKey, Account)],
    ) -> TenantStanding {
        let (name, budgets): (Arc<str>, _) = (tenant.name.as_str().into(), budgets(tenant));
        let spent = accounts.iter().map(|(key, _)| key.unit);
        let priced = self.catalog.sold_in(&tenant.regions);
        let priced = priced.map(|model| Unit::Money(model.price.currency));
        let units: BTreeSet<_> = [Unit::Tokens].into_iter().chain(priced).chain(spent).collect();
        let mut standing = TenantStanding::default();
        for window in Period::ALL.map(|period| Window::of(period, day)) {
            for unit in &units {
                let key = AccountKey { tenant: Arc::clone(&name), window, unit: *unit };
                let account = accounts.iter().find(|(known, _)| *known == key);
                let account = account.map(|(_, account)| *account).unwrap_or_default();
                standing.add(&key, &account, &budgets);
            }
        }
        standing
    }
}

/// The accounts of one tenant.
#[derive(Debug, Default)]
struct TenantStanding {
    levels: Vec<BudgetLevel>,
    /// The used part of the budget that is used most, in millionths.
    used: u128,
}

impl TenantStanding {
    fn add(&mut self, key: &AccountKey, account: &Account, budgets: &Budgets) {
        let (period, limit) = (key.window.period, budgets.limit(key.window.period, key.unit));
        if let Some(limit) = limit {
            let used = u128::from(account.committed()) * 1_000_000 / u128::from(limit.max(1));
            self.used = self.used.max(used);
        }
        let Account { settled, reserved, .. } = *account;
        let amounts = match key.unit {
            Unit::Tokens => BudgetAmounts::Tokens(BudgetUse {
                limit: limit.map(Tokens::new),
                settled: Tokens::new(settled),
                reserved: Tokens::new(reserved),
            }),
            Unit::Money(currency) => BudgetAmounts::Money(
                currency,
                BudgetUse {
                    limit: limit.map(Money::from_nanos),
                    settled: Money::from_nanos(settled),
                    reserved: Money::from_nanos(reserved),
                },
            ),
        };
        let tenant = key.tenant.to_string();
        self.levels.push(BudgetLevel { tenant, period: period.as_str(), amounts });
    }
}

impl BudgetReading {
    fn is_fresh(&self, today: Date, now: Instant) -> bool {
        let is_young = |at: Instant| now.saturating_duration_since(at) < FRESH;
        (self.has_failed || self.day == Some(today)) && self.tried_at.is_some_and(is_young)
    }

    /// The levels of the windows that `today` lies in.
    fn levels_on(self, today: Date) -> BudgetLevels {
        let Self { mut levels, day, .. } = self;
        let is_of = |period: Period| {
            day.is_some_and(|day| Window::of(period, day) == Window::of(period, today))
        };
        let current = Period::ALL.map(|period| (period.as_str(), is_of(period)));
        levels.shown.retain(|level| current.contains(&(level.period, true)));
        levels
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use jiff::civil::date;

    use super::*;
    use crate::clock::ManualClock;

    fn reading(day: Date) -> BudgetReading {
        let standing = BudgetUse { limit: None, settled: Tokens::ZERO, reserved: Tokens::ZERO };
        let level = |period: Period| BudgetLevel {
            tenant: "acme".to_owned(),
            period: period.as_str(),
            amounts: BudgetAmounts::Tokens(standing),
        };
        let shown = Period::ALL.map(level).to_vec();
        let levels = BudgetLevels { shown, ..BudgetLevels::default() };
        BudgetReading { levels, day: Some(day), ..BudgetReading::default() }
    }

    #[test]
    fn what_was_read_before_midnight_is_not_shown_as_of_the_new_day() {
        let periods = |today| -> Vec<_> {
            let levels = reading(date(2026, 5, 30)).levels_on(today);
            levels.shown.iter().map(|level| level.period).collect()
        };
        assert_eq!(periods(date(2026, 5, 30)), ["day", "month"]);
        assert_eq!(periods(date(2026, 5, 31)), ["month"]);
        assert!(periods(date(2026, 6, 1)).is_empty());
    }

    #[test]
    fn a_new_day_is_read_at_once_and_a_database_that_is_away_is_not_asked_all_the_time() {
        let now = ManualClock::new(SystemTime::UNIX_EPOCH).instant();
        let day = date(2026, 5, 30);
        let reading = BudgetReading { tried_at: Some(now), ..reading(day) };
        assert!(reading.is_fresh(day, now) && !reading.is_fresh(date(2026, 5, 31), now));
        assert!(!reading.is_fresh(day, now + FRESH));
        let failed = BudgetReading { has_failed: true, ..reading };
        assert!(failed.is_fresh(date(2026, 5, 31), now));
    }
}
