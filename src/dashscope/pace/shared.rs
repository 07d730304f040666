//! Stores a [`RateController`] in this process, or in a store that all replicas share.
//!
//! The arithmetic is the same in both. A shared controller is read, changed here, and written back if it has not
//! changed meanwhile; otherwise the change is repeated. Its times are those of the store, since replicas' clocks
//! differ. While the store is unavailable, each replica uses a local controller, which starts slowly like any other and
//! learns from throttles. The rate is no promise to a caller, so a missing store is no reason to refuse a call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::controller::RateController;
use crate::clock::Clock;
use crate::redis::cells::SharedCells;

/// How often a change that loses to concurrent changes is repeated before it is made in this process alone.
const MOST_TRIES: usize = 16;

/// How long a store keeps an unused controller: longer than a ceiling is kept, and longer than any `Retry-After`.
const KEEP: Duration = Duration::from_hours(1);

/// A rate controller, shared or not.
#[derive(Debug)]
pub(crate) struct SharedController {
    key: String,
    shared: Option<Arc<dyn SharedCells>>,
    local: Mutex<LocalView>,
    clock: Arc<dyn Clock>,
    origin: Instant,
}

/// The state of this process.
#[derive(Debug, Default)]
struct LocalView {
    /// The controller that is used while the store is unavailable.
    own: RateController,
    /// The last state seen in the store, the store's time then, and the local time.
    seen: Option<(RateController, Duration, Duration)>,
    /// The end of the last `Retry-After` that this process has seen, by its own time. It applies even if the store
    /// loses it.
    held_until: Duration,
}

/// The time at which a slot was taken, by the clock of its controller. The store counts from 1970 and a process from
/// its start, so times of the two cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakenAt {
    /// From the controller of this process.
    Own(Duration),
    /// From the controller in the store.
    Shared(Duration),
}

impl TakenAt {
    /// The time, by the clock of the slot's controller.
    pub(crate) const fn time(self) -> Duration {
        match self {
            Self::Own(time) | Self::Shared(time) => time,
        }
    }
}

impl SharedController {
    pub(crate) fn new(
        key: String,
        shared: Option<Arc<dyn SharedCells>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { key, shared, local: Mutex::default(), origin: clock.instant(), clock }
    }

    /// Reads the last known state of the controller, without a request to the store.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&RateController, Duration) -> R) -> R {
        let (local, now) = (self.local(), self.now());
        let (mut controller, time) = match &local.seen {
            Some((seen, then, ours)) => (*seen, then.saturating_add(now.saturating_sub(*ours))),
            None => (local.own, now),
        };
        controller.hold(time.saturating_add(local.held_until.saturating_sub(now)));
        look(&controller, time)
    }

    /// Lets no call of this process leave before `wait` is over.
    pub(crate) fn hold(&self, wait: Duration) {
        let end = self.now().saturating_add(wait);
        let mut local = self.local();
        local.held_until = local.held_until.max(end);
    }

    /// Changes the controller in use. Returns the result of `change`, and the time that was passed to it.
    pub(crate) async fn update<R>(
        &self,
        change: impl Fn(&mut RateController, Duration) -> R + Send + Sync,
    ) -> (R, TakenAt) {
        if let Some(shared) = &self.shared
            && let Some((result, now)) = self.update_shared(shared.as_ref(), &change).await
        {
            return (result, TakenAt::Shared(now));
        }
        let now = self.now();
        let mut local = self.local();
        local.seen = None;
        let held_until = local.held_until;
        local.own.hold(held_until);
        let result = change(&mut local.own, now);
        local.held_until = held_until.max(local.own.held_until());
        (result, TakenAt::Own(now))
    }

    /// Changes the controller from which a slot was taken. If that is the shared one and the store is unavailable,
    /// nothing is changed: the local controller never had the slot, and the shared one recovers the amount with time.
    pub(crate) async fn update_taken(
        &self,
        taken_at: TakenAt,
        change: impl Fn(&mut RateController, Duration) + Send + Sync,
    ) {
        match (taken_at, &self.shared) {
            (TakenAt::Own(_), _) => change(&mut self.local().own, self.now()),
            (TakenAt::Shared(_), Some(shared)) => {
                let _ = self.update_shared(shared.as_ref(), &change).await;
            }
            (TakenAt::Shared(_), None) => {}
        }
    }

    async fn update_shared<R>(
        &self,
        shared: &dyn SharedCells,
        change: &(impl Fn(&mut RateController, Duration) -> R + Send + Sync),
    ) -> Option<(R, Duration)> {
        for _ in 0..MOST_TRIES {
            let (value, now) = shared.read(&self.key).await?;
            // A value of another version, or one that no replica can have written, is replaced by a new controller.
            let before = serde_json::from_slice(&value).ok();
            let before = before.filter(|read: &RateController| read.is_possible(now, KEEP));
            let before = before.unwrap_or_default();
            let mut controller = before;
            controller.hold(now.saturating_add(self.held_for()));
            let result = change(&mut controller, now);
            let written = controller == before || {
                let text = serde_json::to_vec(&controller).unwrap_or_default();
                shared.replace(&self.key, &value, &text, KEEP).await?
            };
            if written {
                self.note_seen(&controller, now);
                return Some((result, now));
            }
        }
        None
    }

    /// The remaining time of the last `Retry-After` that this process has seen.
    fn held_for(&self) -> Duration {
        let now = self.now();
        self.local().held_until.saturating_sub(now)
    }

    fn note_seen(&self, controller: &RateController, then: Duration) {
        let now = self.now();
        let mut local = self.local();
        let left = controller.held_until().saturating_sub(then);
        local.held_until = local.held_until.max(now.saturating_add(left));
        // Answers of the store may arrive out of order.
        if local.seen.is_none_or(|(_, seen, _)| seen <= then) {
            local.seen = Some((*controller, then, now));
        }
    }

    fn local(&self) -> MutexGuard<'_, LocalView> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.clock.instant().saturating_duration_since(self.origin)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use futures_util::future::join_all;

    use super::super::controller::RateLimits;
    use super::*;
    use crate::dashscope::fault::health::Quota;
    use crate::dashscope::tests::{MemoryCells, RuntimeClock};

    const LIMITS: fn() -> RateLimits = || RateLimits::per_minute(60, 6_000_000);

    fn controller(store: &Arc<MemoryCells>) -> SharedController {
        let shared = Arc::clone(store) as Arc<dyn SharedCells>;
        SharedController::new("key".to_owned(), Some(shared), RuntimeClock::new())
    }

    async fn take(controller: &SharedController) -> Result<(), Duration> {
        controller.update(|rate, now| rate.take(LIMITS(), now, now, 1)).await.0
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_replica_takes_the_others_wait_for() {
        let store = MemoryCells::new();
        let replicas = [controller(&store), controller(&store), controller(&store)];
        let taken = join_all(replicas.iter().map(take)).await;
        assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 1, "{taken:?}");
        let waits = replicas
            .each_ref()
            .map(|controller| controller.peek(|rate, now| rate.wait(LIMITS(), now, 1)));
        assert_eq!(waits, [Duration::from_secs(1); 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_replica_learns_the_others_know() {
        let store = MemoryCells::new();
        let (one, other) = (controller(&store), controller(&store));
        let learn = |controller: &mut RateController, now| {
            controller.throttled(LIMITS(), now, now, Quota::Requests);
            controller.hold(now + Duration::from_secs(7));
        };
        one.update(learn).await;
        assert_eq!(take(&other).await, Err(Duration::from_secs(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_outlives_the_store_that_it_was_written_to_and_one_that_forgot_it() {
        let store = MemoryCells::new();
        let (one, other) = (controller(&store), controller(&store));
        let hold = Duration::from_secs(7);
        one.update(|rate, now| rate.hold(now + hold)).await;
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
        let controller = controller(&store);
        let mut held = RateController::default();
        held.hold(Duration::MAX);
        let mut owing = RateController::default();
        owing.correct(LIMITS(), Duration::from_hours(24 * 365), 0, 1);
        let [held, owing] =
            [held, owing].map(|controller| serde_json::to_string(&controller).unwrap());
        let largest =
            serde_json::to_string(&RateController::default()).unwrap().replace(":0", ":4294967295");
        for value in [held, owing, largest] {
            store.values.lock().unwrap().insert("key".to_owned(), value.into_bytes());
            tokio::time::sleep(Duration::from_hours(1)).await;
            assert_eq!(take(&controller).await, Ok(()));
            controller
                .update(|rate, now| rate.throttled(LIMITS(), now, now, Quota::Requests))
                .await;
            controller.peek(|rate, now| rate.wait(LIMITS(), now, 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_replica_was_told_while_the_store_was_away_binds_it_afterwards() {
        let store = MemoryCells::new();
        let controller = controller(&store);
        store.is_away.store(true, Ordering::Relaxed);
        controller.hold(Duration::from_secs(7));
        store.is_away.store(false, Ordering::Relaxed);
        assert_eq!(take(&controller).await, Err(Duration::from_secs(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_is_away_a_replica_goes_on_by_itself() {
        let store = MemoryCells::new();
        let controller = controller(&store);
        let taken = controller.update(|rate, now| rate.take(LIMITS(), now, now, 1)).await;
        store.is_away.store(true, Ordering::Relaxed);
        assert!(take(&controller).await.is_ok() && take(&controller).await.is_err());
        store.is_away.store(false, Ordering::Relaxed);
        assert!(take(&controller).await.is_err(), "the store knows of the first");
        controller.update_taken(taken.1, |rate, _| rate.give_back(LIMITS(), 1)).await;
        assert!(take(&controller).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_outlives_a_change_of_the_store_corrects_only_the_rate_that_it_took() {
        let throttle = |rate: &mut RateController, now| {
            rate.throttled(LIMITS(), now, now, Quota::Requests);
            rate.correct(LIMITS(), now, 1, 1_000_000);
        };
        for was_away in [false, true] {
            let store = MemoryCells::new();
            let controller = controller(&store);
            store.is_away.store(was_away, Ordering::Relaxed);
            let (taken, at) = controller.update(|rate, now| rate.take(LIMITS(), now, now, 1)).await;
            assert!(taken.is_ok() && matches!(at, TakenAt::Own(_)) == was_away);
            let taken_from = controller.update(|rate, _| *rate).await.0;
            store.is_away.store(!was_away, Ordering::Relaxed);
            let before = controller.update(|rate, _| *rate).await.0;
            controller.update_taken(at, throttle).await;
            assert_eq!(controller.update(|rate, _| *rate).await.0, before, "{was_away}");
            store.is_away.store(was_away, Ordering::Relaxed);
            controller.update_taken(at, throttle).await;
            let corrected = controller.update(|rate, _| *rate).await.0;
            assert_ne!(corrected, taken_from, "the rate that it took is corrected");
        }
    }
}
