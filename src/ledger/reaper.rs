//! Writes off the open entries of expired instances, and deletes entries older than the retention.
//!
//! The reaper runs after each round of heartbeats ([`lease`](crate::lease)). It counts an entry whose instance has
//! expired at its bound. If the process is still alive and was only slow, its bills correct the entries later.
//!
//! The steps are independent, and each store operation has a timeout. A failure of one step (an entry that breaks a
//! rule, a row that cannot be read) stops neither the others nor the rest of its own work.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::ToSpan;
use jiff::civil::Date;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use super::books::{Operation, Outcome};
use super::context::Context;
use super::store::LedgerStoreError;
use super::writer::POST_TIMEOUT;
use crate::telemetry::metrics::LedgerUpkeep;

/// Entries written off or deleted in one transaction.
const PORTION: u32 = 500;

/// Portions deleted after one round: enough to keep up with a thousand calls a second, and few enough to leave the
/// database to others.
const PORTIONS_OF_A_ROUND: u32 = 40;

/// The state of the task.
#[derive(Debug)]
pub(super) struct Reaper {
    context: Arc<Context>,
    retention_days: u32,
    /// Orphans that could not be written off. Each was logged once.
    stuck: HashSet<Uuid>,
}

/// The store's answer within a transaction's timeout: a connection that never answers would otherwise block the reaper
/// for ever.
async fn bounded<T>(
    question: impl Future<Output = Result<T, LedgerStoreError>>,
) -> Result<T, LedgerStoreError> {
    let answer = timeout(POST_TIMEOUT, question).await;
    answer.unwrap_or_else(|late| Err(LedgerStoreError::unavailable(late)))
}

impl Reaper {
    pub(super) fn new(context: Arc<Context>, retention_days: u32) -> Self {
        Self { context, retention_days, stuck: HashSet::new() }
    }

    /// Runs after each round of heartbeats until the instance is closed.
    pub(super) async fn run(mut self, mut rounds: watch::Receiver<u64>) {
        let instance = Arc::clone(&self.context.instance);
        while instance.next_round(&mut rounds).await.is_some() {
            self.reap().await;
        }
    }

    /// Writes off orphans and deletes old entries.
    pub(super) async fn reap(&mut self) {
        let today = self.context.calendar.day_of(self.context.clock.timestamp());
        let written_off = self.write_off_orphans(today).await;
        self.note(LedgerUpkeep::WriteOff, written_off);
        let pruned = self.prune(today).await;
        self.note(LedgerUpkeep::Prune, pruned);
    }

    /// Counts and logs a failed step. The writer logs an outage, which may be over by the next round. Any other failure
    /// is permanent.
    fn note(&self, step: LedgerUpkeep, done: Result<(), LedgerStoreError>) {
        let Err(error) = done else { return };
        self.context.metrics.upkeep_failed(step);
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

    async fn write_off_orphans(&mut self, today: Date) -> Result<(), LedgerStoreError> {
        let mut after = Uuid::nil();
        let mut stuck = HashSet::new();
        loop {
            let orphans = bounded(self.context.store.orphans(after, PORTION)).await?;
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
        self.context.metrics.orphans_stuck(stuck.len());
        self.stuck = stuck;
        Ok(())
    }

    /// Writes off entries together, or one by one if the store refuses them together, and returns their number.
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
        let outcomes = match bounded(self.context.store.post(&batch, today)).await {
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
                    self.context.metrics.tokens_unverified(tenant, model, charge.bound.total());
                    self.context.metrics.cost_unverified(
                        tenant,
                        model,
                        charge.currency,
                        charge.cost,
                    );
                    written_off = written_off.saturating_add(1);
                }
                Outcome::Uncountable => self.leave(*id, "its account cannot count it", stuck),
                // Another replica wrote it off first.
                _ => {}
            }
        }
        Ok(written_off)
    }

    /// Leaves an orphan open if it cannot be written off, and tries again after each round.
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
        for _ in 0..PORTIONS_OF_A_ROUND {
            if self.context.instance.is_closing() {
                break;
            }
            if bounded(self.context.store.prune(before, PORTION)).await? < u64::from(PORTION) {
                break;
            }
        }
        Ok(())
    }
}
