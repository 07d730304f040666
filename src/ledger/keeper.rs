//! Writes off what dead processes left open, and deletes what is older than the retention.
//!
//! A process that holds reservations beats: now and then it raises a number beside its name. All
//! others look at the numbers equally often. One that stood still three looks in a row belongs to a process
//! that is gone, or as good as gone, and its open entries are counted at their bound. No clock is
//! compared with another's, so none can be wrong; and looks that failed do not count, so an outage of
//! the database, in which nobody could beat, condemns nobody.
//!
//! A process that was only very slow loses nothing but its name: it takes a new one, and the bills
//! that it still brings set the written-off entries right.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::ToSpan;
use jiff::civil::Date;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::books::{Operation, Outcome};
use super::settings::{LedgerSettings, SILENT_LOOKS};
use super::window::Calendar;
use super::{Beats, Holder, Ledger, LedgerStore, LedgerStoreError, show_balances};
use crate::clock::Clock;
use crate::random::{Random, new_id};
use crate::telemetry::metrics::Metrics;

/// Entries written off or deleted in one transaction.
const PORTION: u32 = 500;

/// Portions deleted at one look: enough to keep up with a thousand calls a second, and little
/// enough to leave the database to others.
const PORTIONS_OF_A_LOOK: u32 = 40;

/// The task.
#[derive(Debug)]
pub(super) struct Keeper {
    store: Arc<dyn LedgerStore>,
    holder: Arc<Holder>,
    calendar: Calendar,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
    look_every: Duration,
    retention_days: u32,
    /// The number of each other holder when it was last looked at, and how often it was the same.
    seen: HashMap<Uuid, Sight>,
    /// The day of the last look.
    today: Option<Date>,
}

#[derive(Debug, Clone, Copy)]
struct Sight {
    beat: i64,
    silent_looks: u32,
}

impl Keeper {
    pub(super) fn new(ledger: &Ledger, settings: &LedgerSettings) -> Self {
        Self {
            store: Arc::clone(&ledger.store),
            holder: Arc::clone(&ledger.holder),
            calendar: ledger.calendar.clone(),
            clock: Arc::clone(&ledger.clock),
            random: Arc::clone(&ledger.random),
            metrics: Arc::clone(&ledger.metrics),
            look_every: settings.look_every(),
            retention_days: settings.retention_days,
            seen: HashMap::new(),
            today: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut looks = tokio::time::interval(self.look_every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            // The writer reports an outage; the next look may find it over.
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "the ledger could not be looked after");
            }
        }
    }

    /// One look: beat, bury the dead, write off what they left, delete what is old.
    pub(super) async fn look(&mut self) -> Result<(), LedgerStoreError> {
        match self.store.beat(self.holder.id()).await? {
            Some(beats) => self.bury(beats).await?,
            None => self.come_back().await?,
        }
        let today = self.calendar.day_of(self.clock.timestamp());
        if self.today.replace(today).is_some_and(|before| before != today) {
            self.metrics.forget_budgets();
        }
        self.write_off_orphans(today).await?;
        self.prune(today).await
    }

    /// Others took this process for dead. It goes on under a new name.
    async fn come_back(&self) -> Result<(), LedgerStoreError> {
        let id = new_id(&*self.clock, &*self.random);
        self.store.register(id).await?;
        self.holder.rename(id);
        tracing::warn!("other replicas took this process for dead; calls in flight are unverified");
        Ok(())
    }

    async fn bury(&mut self, beats: Beats) -> Result<(), LedgerStoreError> {
        let own = self.holder.id();
        let mut seen = HashMap::with_capacity(beats.len());
        for (holder, beat) in beats.into_iter().filter(|(holder, _)| *holder != own) {
            let before = self.seen.get(&holder).filter(|before| before.beat == beat);
            let silent_looks = before.map_or(0, |before| before.silent_looks + 1);
            if silent_looks >= SILENT_LOOKS {
                self.store.forget(holder).await?;
            } else {
                seen.insert(holder, Sight { beat, silent_looks });
            }
        }
        self.seen = seen;
        Ok(())
    }

    async fn write_off_orphans(&self, today: Date) -> Result<(), LedgerStoreError> {
        loop {
            let orphans = self.store.orphans(PORTION).await?;
            if orphans.is_empty() {
                return Ok(());
            }
            let write_off = |id| Operation::WriteOff { id, cost: None };
            let batch: Vec<_> = orphans.into_iter().map(write_off).collect();
            let outcomes = self.store.post(&batch, today).await?;
            let mut written_off = 0_u32;
            for outcome in outcomes {
                let Outcome::Closed(entry, balances) = outcome else { continue };
                let charge = &entry.charge;
                let (tenant, model) = (&*charge.tenant, &*charge.model);
                self.metrics.tokens_unverified(tenant, model, charge.bound.total());
                self.metrics.cost_unverified(tenant, model, charge.currency, charge.cost);
                show_balances(&self.metrics, tenant, &balances, today);
                written_off += 1;
            }
            tracing::warn!(calls = written_off, "calls of a process that died were written off");
        }
    }

    async fn prune(&self, today: Date) -> Result<(), LedgerStoreError> {
        let before = today.saturating_sub(i64::from(self.retention_days).days());
        for _ in 0..PORTIONS_OF_A_LOOK {
            if self.store.prune(before, PORTION).await? < u64::from(PORTION) {
                break;
            }
        }
        Ok(())
    }
}
