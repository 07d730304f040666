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
//!
//! The steps of a look do not depend on one another, and each asks the store with a bound of time. What
//! one of them cannot do (an entry that breaks a rule, a row that cannot be read) stops neither the
//! others nor the rest of its own work.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::ToSpan;
use jiff::civil::Date;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::books::{Operation, Outcome};
use super::settings::{LedgerSettings, SILENT_LOOKS};
use super::window::Calendar;
use super::writer::POST_TIMEOUT;
use super::{Beats, Holder, Ledger, LedgerStore, LedgerStoreError};
use crate::clock::Clock;
use crate::random::{Random, new_id};
use crate::telemetry::metrics::{KeeperStep, Metrics};

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
    /// Orphans that could not be written off, each of which was logged once.
    stuck: HashSet<Uuid>,
    stop: CancellationToken,
    /// Tells that the last look is over.
    _over: DropGuard,
}

#[derive(Debug, Clone, Copy)]
struct Sight {
    beat: i64,
    silent_looks: u32,
}

/// Asks the store, and waits no longer than for a transaction: a connection that never answers would
/// otherwise end all looks, and with them this process's own beats.
async fn ask<T>(
    question: impl Future<Output = Result<T, LedgerStoreError>>,
) -> Result<T, LedgerStoreError> {
    let answer = timeout(POST_TIMEOUT, question).await;
    answer.unwrap_or_else(|late| Err(LedgerStoreError::unavailable(late)))
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
            stuck: HashSet::new(),
            stop: ledger.keeping.stop.clone(),
            _over: ledger.keeping.over.clone().drop_guard(),
        }
    }

    /// Looks until the ledger is closed.
    pub(super) async fn run(mut self) {
        let mut looks = tokio::time::interval(self.look_every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            self.look().await;
        }
    }

    /// One look: beat, bury the dead, write off what they left, delete what is old.
    pub(super) async fn look(&mut self) {
        let beaten = self.beat().await;
        self.note(KeeperStep::Beat, beaten);
        let today = self.calendar.day_of(self.clock.timestamp());
        let written_off = self.write_off_orphans(today).await;
        self.note(KeeperStep::WriteOff, written_off);
        let pruned = self.prune(today).await;
        self.note(KeeperStep::Prune, pruned);
    }

    /// Tells of a step that failed. The writer tells of an outage, and the next look may find it over;
    /// anything else is not going to pass by itself.
    fn note(&self, step: KeeperStep, done: Result<(), LedgerStoreError>) {
        let Err(error) = done else { return };
        self.metrics.keeper_failed(step);
        let step = step.label();
        match &error {
            LedgerStoreError::Unavailable(cause) => {
                tracing::debug!(step, %cause, "the ledger could not be looked after");
            }
            LedgerStoreError::Broken(cause) => {
                tracing::error!(step, %cause, "the ledger cannot be looked after");
            }
        }
    }

    async fn beat(&mut self) -> Result<(), LedgerStoreError> {
        match ask(self.store.beat(self.holder.id())).await? {
            Some(beats) => {
                self.bury(beats).await;
                Ok(())
            }
            None => self.come_back().await,
        }
    }

    /// Others took this process for dead. It goes on under a new name.
    async fn come_back(&self) -> Result<(), LedgerStoreError> {
        let id = new_id(&*self.clock, &*self.random);
        ask(self.store.register(id)).await?;
        self.holder.rename(id);
        tracing::warn!("other replicas took this process for dead; calls in flight are unverified");
        Ok(())
    }

    /// Forgets the holders whose beat has stood still. One that cannot be forgotten is tried again at
    /// the next look.
    async fn bury(&mut self, beats: Beats) {
        let own = self.holder.id();
        let mut seen = HashMap::with_capacity(beats.len());
        for (holder, beat) in beats.into_iter().filter(|(holder, _)| *holder != own) {
            let before = self.seen.get(&holder).filter(|before| before.beat == beat);
            let silent_looks = before.map_or(0, |before| before.silent_looks.saturating_add(1));
            let mut is_buried = false;
            if silent_looks >= SILENT_LOOKS {
                let forgotten = ask(self.store.forget(holder)).await;
                is_buried = forgotten.is_ok();
                self.note(KeeperStep::Bury, forgotten);
            }
            if !is_buried {
                seen.insert(holder, Sight { beat, silent_looks });
            }
        }
        self.seen = seen;
    }

    async fn write_off_orphans(&mut self, today: Date) -> Result<(), LedgerStoreError> {
        let mut after = Uuid::nil();
        let mut stuck = HashSet::new();
        loop {
            let orphans = ask(self.store.orphans(after, PORTION)).await?;
            let Some(last) = orphans.last() else { break };
            after = *last;
            let written_off = self.write_off(&orphans, today, &mut stuck).await?;
            if written_off > 0 {
                tracing::warn!(
                    calls = written_off,
                    "calls of a process that died were written off"
                );
            }
        }
        self.metrics.orphans_stuck(stuck.len());
        self.stuck = stuck;
        Ok(())
    }

    /// Writes off entries together, or one by one where the store does not take them together, and gives
    /// how many were.
    async fn write_off(
        &self,
        orphans: &[Uuid],
        today: Date,
        stuck: &mut HashSet<Uuid>,
    ) -> Result<u32, LedgerStoreError> {
        let batch: Vec<_> = orphans
            .iter()
            .map(|id| Operation::WriteOff { id: *id, cost: None, endpoint: None })
            .collect();
        let outcomes = match ask(self.store.post(&batch, today)).await {
            Err(LedgerStoreError::Broken(_)) if batch.len() > 1 => {
                let mut written_off = 0_u32;
                for id in orphans {
                    let one = std::slice::from_ref(id);
                    let done = Box::pin(self.write_off(one, today, stuck)).await?;
                    written_off = written_off.saturating_add(done);
                }
                return Ok(written_off);
            }
            Err(LedgerStoreError::Broken(cause)) => {
                self.leave(orphans[0], &cause.to_string(), stuck);
                return Ok(0);
            }
            outcomes => outcomes?,
        };
        let mut written_off = 0_u32;
        for (id, outcome) in orphans.iter().zip(outcomes) {
            match outcome {
                Outcome::Closed(entry, _) => {
                    let charge = &entry.charge;
                    let (tenant, model) = (&*charge.tenant, &*charge.model);
                    self.metrics.tokens_unverified(tenant, model, charge.bound.total());
                    self.metrics.cost_unverified(tenant, model, charge.currency, charge.cost);
                    written_off = written_off.saturating_add(1);
                }
                Outcome::Uncountable => self.leave(*id, "its account cannot count it", stuck),
                // Another replica was faster.
                _ => {}
            }
        }
        Ok(written_off)
    }

    /// Leaves an orphan open that cannot be written off. It is tried again at each look.
    fn leave(&self, id: Uuid, cause: &str, stuck: &mut HashSet<Uuid>) {
        stuck.insert(id);
        if !self.stuck.contains(&id) {
            tracing::error!(
                entry = %id,
                cause,
                "the bound of a call of a process that died stays reserved: its entry cannot be \
                 written off"
            );
        }
    }

    async fn prune(&self, today: Date) -> Result<(), LedgerStoreError> {
        let before = today.saturating_sub(i64::from(self.retention_days).days());
        for _ in 0..PORTIONS_OF_A_LOOK {
            // A stop waits for the look under way.
            if self.stop.is_cancelled() {
                break;
            }
            if ask(self.store.prune(before, PORTION)).await? < u64::from(PORTION) {
                break;
            }
        }
        Ok(())
    }
}
