//! Where a [`Pace`] is kept: in this process, or in a store that all replicas share.
//!
//! The arithmetic is the same in both (`pace`). A shared pace is read, changed here, and written back on
//! condition that nobody has changed it meanwhile, else all of it again; times are then the store's, since
//! replicas' clocks differ. While the store is away each replica keeps a pace of its own, which begins
//! slowly like any other and learns from throttles: a pace is not a promise to anybody, so a missing store
//! is no reason to refuse a call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::controller::Pace;
use crate::clock::Clock;
use crate::redis::cells::SharedCells;

/// How often a change is tried against others' before it is made in this process alone.
const MOST_TRIES: usize = 16;

/// How long a store keeps what nobody uses: longer than any ceiling is believed in, and than any
/// `Retry-After`.
const KEEP: Duration = Duration::from_hours(1);

/// One pace.
#[derive(Debug)]
pub(crate) struct Cell {
    key: String,
    shared: Option<Arc<dyn SharedCells>>,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    origin: Instant,
}

#[derive(Debug, Default)]
struct State {
    own: Pace,
    /// What was last seen in the store, the store's time then, and ours.
    seen: Option<(Pace, Duration, Duration)>,
    /// When the last `Retry-After` that this process knows of ends, by its own time: it holds whatever the
    /// store forgets.
    held_until: Duration,
}

/// A time, and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Of this process.
    Here(Duration),
    /// Of the store.
    InStore(Duration),
}

impl Moment {
    pub(crate) const fn at(self) -> Duration {
        match self {
            Self::Here(at) | Self::InStore(at) => at,
        }
    }
}

impl Cell {
    pub(crate) fn new(
        key: String,
        shared: Option<Arc<dyn SharedCells>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { key, shared, state: Mutex::default(), origin: clock.instant(), clock }
    }

    /// Looks at the pace as it was last seen, without asking the store.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&Pace, Duration) -> R) -> R {
        let (state, now) = (self.state(), self.now());
        let (mut pace, frame) = match &state.seen {
            Some((pace, then, ours)) => (*pace, then.saturating_add(now.saturating_sub(*ours))),
            None => (state.own, now),
        };
        pace.hold(frame.saturating_add(state.held_until.saturating_sub(now)));
        look(&pace, frame)
    }

    /// Lets no call leave before `wait` is over, as far as this process goes.
    pub(crate) fn hold(&self, wait: Duration) {
        let end = self.now().saturating_add(wait);
        let mut state = self.state();
        state.held_until = state.held_until.max(end);
    }

    /// Changes the pace; what came of it, and when that was.
    pub(crate) async fn update<R>(
        &self,
        change: impl Fn(&mut Pace, Duration) -> R + Send + Sync,
    ) -> (R, Moment) {
        if let Some(shared) = &self.shared
            && let Some((result, at)) = self.update_shared(shared.as_ref(), &change).await
        {
            return (result, Moment::InStore(at));
        }
        let now = self.now();
        let mut state = self.state();
        state.seen = None;
        let held_until = state.held_until;
        state.own.hold(held_until);
        let result = change(&mut state.own, now);
        state.held_until = held_until.max(state.own.held_until());
        (result, Moment::Here(now))
    }

    /// Changes the pace that was in use at `moment`, if it still is.
    pub(crate) async fn update_if_there(
        &self,
        moment: Moment,
        change: impl Fn(&mut Pace, Duration) + Send + Sync,
    ) {
        match (moment, &self.shared) {
            (Moment::InStore(_), Some(shared)) => {
                // Where it is away, what was taken comes back with time.
                let _ = self.update_shared(shared.as_ref(), &change).await;
            }
            (Moment::Here(_), _) => change(&mut self.state().own, self.now()),
            (Moment::InStore(_), None) => {}
        }
    }

    async fn update_shared<R>(
        &self,
        shared: &dyn SharedCells,
        change: &(impl Fn(&mut Pace, Duration) -> R + Send + Sync),
    ) -> Option<(R, Duration)> {
        for _ in 0..MOST_TRIES {
            let (value, now) = shared.read(&self.key).await?;
            // What another version wrote differently, or nobody did, is begun anew.
            let before = serde_json::from_slice(&value).ok();
            let before = before.filter(|pace: &Pace| pace.is_possible(now, KEEP));
            let before = before.unwrap_or_default();
            let mut pace = before;
            pace.hold(now.saturating_add(self.held_for()));
            let result = change(&mut pace, now);
            let written = pace == before || {
                let text = serde_json::to_vec(&pace).unwrap_or_default();
                shared.replace(&self.key, &value, &text, KEEP).await?
            };
            if written {
                self.note_seen(&pace, now);
                return Some((result, now));
            }
        }
        None
    }

    /// How long a `Retry-After` that this process knows of still runs.
    fn held_for(&self) -> Duration {
        let now = self.now();
        self.state().held_until.saturating_sub(now)
    }

    fn note_seen(&self, pace: &Pace, then: Duration) {
        let now = self.now();
        let mut state = self.state();
        let left = pace.held_until().saturating_sub(then);
        state.held_until = state.held_until.max(now.saturating_add(left));
        // An answer that was overtaken knows less.
        if state.seen.is_none_or(|(_, seen, _)| seen <= then) {
            state.seen = Some((*pace, then, now));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.clock.instant().saturating_duration_since(self.origin)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use futures_util::future::join_all;

    use super::super::controller::Limits;
    use super::*;
    use crate::dashscope::fault::health::Quota;
    use crate::dashscope::tests::{MemoryCells, RuntimeClock};

    const LIMITS: fn() -> Limits = || Limits::per_minute(60, 6_000_000);

    fn cell(store: &Arc<MemoryCells>) -> Cell {
        let shared = Arc::clone(store) as Arc<dyn SharedCells>;
        Cell::new("key".to_owned(), Some(shared), RuntimeClock::new())
    }

    async fn take(cell: &Cell) -> Result<(), Duration> {
        cell.update(|pace, now| pace.take(LIMITS(), now, now, 1)).await.0
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_replica_takes_the_others_wait_for() {
        let store = MemoryCells::new();
        let replicas = [cell(&store), cell(&store), cell(&store)];
        let taken = join_all(replicas.iter().map(take)).await;
        assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 1, "{taken:?}");
        let waits =
            replicas.each_ref().map(|cell| cell.peek(|pace, now| pace.wait(LIMITS(), now, 1)));
        assert_eq!(waits, [Duration::from_secs(1); 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_replica_learns_the_others_know() {
        let store = MemoryCells::new();
        let (one, other) = (cell(&store), cell(&store));
        let learn = |pace: &mut Pace, now| {
            pace.throttled(LIMITS(), now, now, Quota::Requests);
            pace.hold(now + Duration::from_secs(7));
        };
        one.update(learn).await;
        assert_eq!(take(&other).await, Err(Duration::from_secs(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_outlives_the_store_that_it_was_written_to_and_one_that_forgot_it() {
        let store = MemoryCells::new();
        let (one, other) = (cell(&store), cell(&store));
        let hold = Duration::from_secs(7);
        one.update(|pace, now| pace.hold(now + hold)).await;
        assert_eq!(take(&other).await, Err(hold));
        store.is_away.store(true, Ordering::Relaxed);
        assert_eq!([take(&one).await, take(&other).await], [Err(hold), Err(hold)]);
        store.is_away.store(false, Ordering::Relaxed);
        store.values.lock().unwrap().clear();
        assert_eq!([take(&one).await, take(&other).await], [Err(hold), Err(hold)]);
        tokio::time::sleep(hold).await;
        assert!(take(&one).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_replica_can_have_written_holds_no_call_up() {
        let store = MemoryCells::new();
        let cell = cell(&store);
        let mut held = Pace::default();
        held.hold(Duration::MAX);
        let mut owing = Pace::default();
        owing.correct(LIMITS(), Duration::from_hours(24 * 365), 0, 1);
        let [held, owing] = [held, owing].map(|pace| serde_json::to_string(&pace).unwrap());
        let largest = serde_json::to_string(&Pace::default()).unwrap().replace(":0", ":4294967295");
        for value in [held, owing, largest] {
            store.values.lock().unwrap().insert("key".to_owned(), value.into_bytes());
            tokio::time::sleep(Duration::from_hours(1)).await;
            assert_eq!(take(&cell).await, Ok(()));
            cell.update(|pace, now| pace.throttled(LIMITS(), now, now, Quota::Requests)).await;
            cell.peek(|pace, now| pace.wait(LIMITS(), now, 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_replica_was_told_while_the_store_was_away_binds_it_afterwards() {
        let store = MemoryCells::new();
        let cell = cell(&store);
        store.is_away.store(true, Ordering::Relaxed);
        cell.hold(Duration::from_secs(7));
        store.is_away.store(false, Ordering::Relaxed);
        assert_eq!(take(&cell).await, Err(Duration::from_secs(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_is_away_a_replica_goes_on_by_itself() {
        let store = MemoryCells::new();
        let cell = cell(&store);
        let taken = cell.update(|pace, now| pace.take(LIMITS(), now, now, 1)).await;
        store.is_away.store(true, Ordering::Relaxed);
        assert!(take(&cell).await.is_ok() && take(&cell).await.is_err());
        store.is_away.store(false, Ordering::Relaxed);
        assert!(take(&cell).await.is_err(), "the store knows of the first");
        cell.update_if_there(taken.1, |pace, _| pace.give_back(LIMITS(), 1)).await;
        assert!(take(&cell).await.is_ok());
    }
}
