//! What became of the last commit, which is what readiness goes by.
//!
//! A database may answer every question and take no commit: a standby, a full disk, a file that
//! somebody else has locked. So readiness does not ask a question. It goes by the last post; where
//! that was some time ago, a task of this module commits a beat of the process.
//!
//! The task runs where the ledger was opened. Whoever asks for readiness may do so on another runtime,
//! to which the pools' connections would otherwise be bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::{Holder, LedgerStore};
use crate::clock::Clock;

/// For how long the fate of a commit tells what will become of the next. Anybody may ask for
/// readiness, so this also bounds what the questions cost.
const FRESH: Duration = Duration::from_secs(1);

/// How long whoever asks waits for a beat.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a beat may take before its connection is given up.
const BEAT_TIMEOUT: Duration = Duration::from_secs(3);

/// The fate of the last commit.
#[derive(Debug)]
pub(super) struct Commits {
    last: watch::Sender<Commit>,
    beat_wanted: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Commit {
    was_taken: bool,
    at: Instant,
}

impl Commits {
    /// The process has just been registered, which was a commit.
    pub(super) fn new(now: Instant) -> Self {
        let (last, _) = watch::channel(Commit { was_taken: true, at: now });
        Self { last, beat_wanted: Notify::new() }
    }

    /// Notes what became of a commit.
    pub(super) fn note(&self, was_taken: bool, now: Instant) {
        self.last.send_replace(Commit { was_taken, at: now });
    }

    /// Whether the database takes commits, as far as the last second tells.
    pub(super) async fn are_taken(&self, now: Instant) -> bool {
        let mut commits = self.last.subscribe();
        let last = *commits.borrow_and_update();
        if now.saturating_duration_since(last.at) < FRESH {
            return last.was_taken;
        }
        self.beat_wanted.notify_one();
        let next = timeout(PATIENCE, commits.changed()).await;
        matches!(next, Ok(Ok(()))) && commits.borrow().was_taken
    }

    /// Beats whenever somebody wants to know.
    pub(super) async fn beat_when_wanted(
        self: Arc<Self>,
        store: Arc<dyn LedgerStore>,
        holder: Arc<Holder>,
        clock: Arc<dyn Clock>,
    ) {
        loop {
            self.beat_wanted.notified().await;
            let beaten = timeout(BEAT_TIMEOUT, store.beat(holder.id())).await;
            self.note(matches!(beaten, Ok(Ok(_))), clock.instant());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::fake::FakeLedgerStore;
    use super::*;
    use crate::clock::ManualClock;
    use uuid::Uuid;

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
    async fn a_beat_that_nobody_answers_is_no_commit() {
        let clock = clock();
        let commits = Commits::new(clock.instant());
        clock.advance(OLD);
        assert!(!commits.are_taken(clock.instant()).await);
    }

    #[tokio::test]
    async fn a_question_from_another_runtime_is_answered_where_the_ledger_was_opened() {
        let (clock, store) = (clock(), Arc::new(FakeLedgerStore::default()));
        let commits = Arc::new(Commits::new(clock.instant()));
        let holder = Arc::new(Holder(std::sync::Mutex::new(Uuid::nil())));
        let (beating, beats) = (Arc::clone(&commits), Arc::clone(&store));
        let own_clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(beating.beat_when_wanted(beats, holder, own_clock));
        clock.advance(OLD);
        let now = clock.instant();
        let asking = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(commits.are_taken(now))
        });
        assert!(asking.await.unwrap());
        assert_eq!(store.beat_on(), Some(thread::current().id()));
    }
}
