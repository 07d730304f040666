//! The outcome of the last commit, from which readiness is derived.
//!
//! A database may answer every query and still take no commit: a standby, a full disk, a file that another program has
//! locked. So readiness depends on the last post. If that is too long ago, a task of this module commits a heartbeat of
//! the process.
//!
//! The task runs on the runtime where the ledger was opened, because the pools' connections belong to that runtime.
//! Readiness may be queried from another one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::lease::instance::Instance;

/// How long the outcome of a commit counts for readiness. Anybody may query readiness, so this also bounds the load of
/// these queries.
const FRESH: Duration = Duration::from_secs(1);

/// How long a readiness query waits for a heartbeat.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a heartbeat may take before its connection is given up.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);

/// The outcome of the last commit.
#[derive(Debug)]
pub(super) struct Commits {
    last: watch::Sender<Commit>,
    heartbeat_wanted: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Commit {
    was_taken: bool,
    at: Instant,
}

impl Commits {
    /// The process has just been registered, and that was a commit.
    pub(super) fn new(now: Instant) -> Self {
        let (last, _) = watch::channel(Commit { was_taken: true, at: now });
        Self { last, heartbeat_wanted: Notify::new() }
    }

    /// Records the outcome of a commit.
    pub(super) fn note(&self, was_taken: bool, now: Instant) {
        self.last.send_replace(Commit { was_taken, at: now });
    }

    /// Whether the database took a commit within the last second.
    pub(super) async fn are_taken(&self, now: Instant) -> bool {
        let mut commits = self.last.subscribe();
        let last = *commits.borrow_and_update();
        if now.saturating_duration_since(last.at) < FRESH {
            return last.was_taken;
        }
        self.heartbeat_wanted.notify_one();
        let next = timeout(PATIENCE, commits.changed()).await;
        matches!(next, Ok(Ok(()))) && commits.borrow().was_taken
    }

    /// Commits a heartbeat of `instance` whenever readiness is queried.
    pub(super) async fn try_when_wanted(
        self: Arc<Self>,
        instance: Arc<Instance>,
        clock: Arc<dyn Clock>,
    ) {
        loop {
            self.heartbeat_wanted.notified().await;
            let done = timeout(HEARTBEAT_TIMEOUT, instance.heartbeat()).await;
            self.note(matches!(done, Ok(Ok(()))), clock.instant());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::fake::{FakeLedgerStore, instance};
    use super::*;
    use crate::clock::ManualClock;
    use crate::random::SeededRandom;
    use crate::telemetry::metrics::{Metrics, MetricsSettings};

    const OLD: Duration = Duration::from_secs(2);

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(std::time::SystemTime::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn the_last_commit_speaks_for_a_second() {
        let clock = clock();
        let commits = Commits::new(clock.instant());
        assert!(commits.are_taken(clock.instant()).await);
        commits.note(false, clock.instant());
        assert!(!commits.are_taken(clock.instant()).await);
        commits.note(true, clock.instant());
        assert!(commits.are_taken(clock.instant()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_that_nobody_answers_is_no_commit() {
        let clock = clock();
        let commits = Commits::new(clock.instant());
        clock.advance(OLD);
        assert!(!commits.are_taken(clock.instant()).await);
    }

    #[tokio::test]
    async fn a_question_from_another_runtime_is_answered_where_the_ledger_was_opened() {
        let (clock, store) = (clock(), Arc::new(FakeLedgerStore::default()));
        let commits = Arc::new(Commits::new(clock.instant()));
        let own_clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let random = Arc::new(SeededRandom::new(1));
        let metrics = Arc::new(Metrics::new(&MetricsSettings { max_tenants: 9 }).unwrap());
        let instance = instance(store.clone(), own_clock.clone(), random, metrics).await;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(Arc::clone(&commits).try_when_wanted(instance, own_clock));
        clock.advance(OLD);
        let now = clock.instant();
        let asking = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(commits.are_taken(now))
        });
        assert!(asking.await.unwrap());
        assert_eq!(store.heartbeat_on(), Some(thread::current().id()));
    }
}
