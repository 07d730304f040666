//! A call's turn under the account's rate.
//!
//! DashScope limits requests and tokens a minute for the whole account and model, may enforce both
//! by the second, and throttles a sudden rise even below them (Model Studio, "Rate limits").
//! Running into that costs an upload and a wait for every call that does, so calls wait here
//! instead: in order, evenly spaced, a second's worth at most at once. What a call will write is
//! not known beforehand, so only its input is taken in advance and the rest is charged once billed;
//! later calls wait for it.
//!
//! Waiting is bounded twice, by number and by time, and a call whose turn cannot come in time is
//! told so at once rather than after having waited for nothing. A `Retry-After` closes the lane of
//! the model until it ends; a later end replaces an earlier one and never the other way round.
//!
//! The queue of a lane is a fair semaphore with one permit: its holder is the head, sleeps until
//! there is room, and goes. Numbers sit behind a plain mutex that is never held across an await.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::error::Fault;
use super::settings::UpstreamSettings;
use crate::catalog::Model;
use crate::clock::Clock;
use crate::rate_limit::gcra::{Bucket, Rate};
use crate::units::{Tokens, Usage};

/// The turns of one endpoint, model by model.
#[derive(Debug)]
pub(super) struct Pacer {
    /// As many as the catalog has models.
    lanes: Mutex<HashMap<String, Arc<Lane>>>,
    queue_timeout: Duration,
    queue_length: usize,
    clock: Arc<dyn Clock>,
}

impl Pacer {
    pub(super) fn new(settings: &UpstreamSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            lanes: Mutex::default(),
            queue_timeout: settings.queue_timeout(),
            queue_length: settings.queue_length,
            clock,
        }
    }

    /// Waits until a call of at most `input` tokens may be sent to `model`. More than the model reads are
    /// not reckoned with: the provider refuses such a call, and it costs nothing.
    ///
    /// # Errors
    ///
    /// [`Fault::Busy`] or, while a `Retry-After` runs, [`Fault::Throttled`] when that will not be
    /// before the queue's timeout or the deadline; as soon as it is known.
    pub(super) async fn turn(
        &self,
        model: &Model,
        input: Tokens,
        deadline: Instant,
    ) -> Result<Turn, Fault> {
        let (lane, input) = (self.lane(model), input.min(model.figures.max_input_tokens));
        let until = deadline.min(self.clock.instant() + self.queue_timeout);
        let left = || until.saturating_duration_since(self.clock.instant());
        let _place = Place::at_the_end(&lane, input, left(), self.queue_length)?;
        let Ok(Ok(_head)) = tokio::time::timeout(left(), lane.head.acquire()).await else {
            return Err(lane.refusal(input));
        };
        while let Err(wait) = lane.take(input) {
            if wait > left() {
                return Err(lane.refusal(input));
            }
            tokio::time::sleep(wait).await;
        }
        Ok(Turn { lane: Arc::clone(&lane), taken: input })
    }

    /// Lets no call of `model` be sent before `wait` is over.
    pub(super) fn hold(&self, model: &Model, wait: Duration) {
        let lane = self.lane(model);
        let end = lane.now().saturating_add(wait);
        let mut state = lane.state();
        state.held_until = state.held_until.max(end);
    }

    fn lane(&self, model: &Model) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(&model.name) {
            return Arc::clone(lane);
        }
        let lane = Arc::new(Lane::new(model, Arc::clone(&self.clock)));
        lanes.insert(model.name.clone(), Arc::clone(&lane));
        lane
    }
}

/// A turn that was given: the call may be sent.
#[derive(Debug)]
pub(super) struct Turn {
    lane: Arc<Lane>,
    taken: Tokens,
}

impl Turn {
    /// Gives back what was taken in advance, because the call cost nothing.
    pub(super) fn unbilled(&self) {
        self.billed(Usage::default());
    }

    /// Corrects what was taken in advance to what was billed.
    pub(super) fn billed(&self, usage: Usage) {
        let (taken, billed) = (self.taken.get(), usage.total().get());
        let (rate, now) = (&self.lane.tokens, self.lane.now());
        let tokens = &mut self.lane.state().tokens;
        if billed >= taken {
            rate.charge(tokens, now, billed - taken);
        } else {
            rate.give_back(tokens, taken - billed);
        }
    }
}

/// The way of one model's calls to the upstream.
#[derive(Debug)]
struct Lane {
    requests: Rate,
    tokens: Rate,
    /// Held by the call whose turn is next.
    head: Semaphore,
    state: Mutex<LaneState>,
    clock: Arc<dyn Clock>,
    /// What the buckets count their time from.
    origin: Instant,
}

#[derive(Debug, Default)]
struct LaneState {
    requests: Bucket,
    tokens: Bucket,
    /// Calls that wait, and what they will take.
    waiting: usize,
    waiting_tokens: u64,
    /// When the last `Retry-After` ends, by the lane's time.
    held_until: Duration,
}

impl Lane {
    fn new(model: &Model, clock: Arc<dyn Clock>) -> Self {
        Self {
            requests: a_second_at_once(model.figures.rpm),
            tokens: a_second_at_once(model.figures.tpm),
            head: Semaphore::new(1),
            state: Mutex::default(),
            origin: clock.instant(),
            clock,
        }
    }

    /// Takes a request and its tokens, or nothing of either.
    fn take(&self, input: Tokens) -> Result<(), Duration> {
        let now = self.now();
        let mut state = self.state();
        let held = state.held_until.saturating_sub(now);
        if !held.is_zero() {
            return Err(held);
        }
        let (mut requests, mut tokens) = (state.requests, state.tokens);
        self.requests.take(&mut requests, now, 1)?;
        self.tokens.take(&mut tokens, now, input.get())?;
        (state.requests, state.tokens) = (requests, tokens);
        Ok(())
    }

    /// The least time until a call that joined the queue now would get its turn.
    fn expected_wait(&self, state: &LaneState, now: Duration, input: Tokens) -> Duration {
        let (mut requests, mut tokens) = (state.requests, state.tokens);
        self.requests.charge(&mut requests, now, state.waiting as u64);
        self.tokens.charge(&mut tokens, now, state.waiting_tokens);
        let for_request = self.requests.take(&mut requests, now, 1).err().unwrap_or_default();
        let for_tokens = self.tokens.take(&mut tokens, now, input.get()).err().unwrap_or_default();
        for_request.max(for_tokens).max(state.held_until.saturating_sub(now))
    }

    /// What a call is told that cannot get its turn in time.
    fn refusal(&self, input: Tokens) -> Fault {
        self.refusal_in(&self.state(), input)
    }

    fn refusal_in(&self, state: &LaneState, input: Tokens) -> Fault {
        let now = self.now();
        let retry_after = self.expected_wait(state, now, input);
        if state.held_until > now {
            return Fault::Throttled { retry_after, code: None };
        }
        Fault::Busy { retry_after }
    }

    fn state(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.clock.instant().saturating_duration_since(self.origin)
    }
}

/// A place in a lane's queue, left when dropped.
#[derive(Debug)]
struct Place {
    lane: Arc<Lane>,
    input: Tokens,
}

impl Place {
    /// Joins the queue where there is hope of a turn within `left`.
    fn at_the_end(
        lane: &Arc<Lane>,
        input: Tokens,
        left: Duration,
        queue_length: usize,
    ) -> Result<Self, Fault> {
        let mut state = lane.state();
        let wait = lane.expected_wait(&state, lane.now(), input);
        if wait > left || state.waiting >= queue_length {
            return Err(lane.refusal_in(&state, input));
        }
        state.waiting += 1;
        state.waiting_tokens = state.waiting_tokens.saturating_add(input.get());
        Ok(Self { lane: Arc::clone(lane), input })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        state.waiting -= 1;
        state.waiting_tokens = state.waiting_tokens.saturating_sub(self.input.get());
    }
}

/// A minute's amount, of which a second's worth may be taken at once.
fn a_second_at_once(per_minute: u64) -> Rate {
    let at_least_one = |amount| NonZeroU64::new(amount).unwrap_or(NonZeroU64::MIN);
    Rate::per_minute(at_least_one(per_minute)).with_burst(at_least_one(per_minute / 60))
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::Instant as RuntimeInstant;

    use super::super::tests::{RuntimeClock, model, settings};
    use super::*;

    const TOKENS: Tokens = Tokens::new(100);

    fn pacer(queue_length: usize) -> Pacer {
        let mut settings = settings("http://localhost");
        settings.queue_length = queue_length;
        Pacer::new(&settings, RuntimeClock::new())
    }

    /// A deadline that does not bind.
    fn later() -> Instant {
        RuntimeInstant::now().into_std() + Duration::from_hours(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_s_worth_passes_at_once_and_the_rest_evenly_and_in_order() {
        let (pacer, model, start) = (pacer(100), model(600, 6_000_000), RuntimeInstant::now());
        let passed = Mutex::new(Vec::new());
        join_all((0..13).map(async |number| {
            pacer.turn(&model, TOKENS, later()).await.unwrap();
            passed.lock().unwrap().push((number, start.elapsed().as_millis()));
        }))
        .await;
        let expected: Vec<_> = (0..10).map(|number| (number, 0)).collect();
        let passed = passed.into_inner().unwrap();
        assert_eq!(passed[..10], expected);
        let numbers: Vec<i32> = passed[10..].iter().map(|(number, _)| *number).collect();
        assert_eq!((numbers, start.elapsed().as_millis() / 10), (vec![10, 11, 12], 30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_cannot_come_in_time_is_refused_at_once_with_an_honest_wait() {
        let (pacer, model, start) = (pacer(100), model(6, 6_000_000), RuntimeInstant::now());
        pacer.turn(&model, TOKENS, later()).await.unwrap();
        let (second, third) =
            tokio::join!(pacer.turn(&model, TOKENS, later()), pacer.turn(&model, TOKENS, later()));
        assert!(second.is_ok());
        let Err(Fault::Busy { retry_after }) = third else { panic!("{third:?}") };
        assert_eq!((retry_after, start.elapsed().as_secs()), (Duration::from_secs(20), 10));
        tokio::time::sleep(retry_after.saturating_sub(start.elapsed())).await;
        assert!(pacer.turn(&model, TOKENS, later()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_cannot_come_before_the_deadline_is_refused_at_once() {
        let (pacer, model, start) = (pacer(100), model(60, 6_000_000), RuntimeInstant::now());
        pacer.turn(&model, TOKENS, later()).await.unwrap();
        let deadline = start.into_std() + Duration::from_millis(999);
        let refused = pacer.turn(&model, TOKENS, deadline).await;
        assert!(matches!(refused, Err(Fault::Busy { retry_after }) if retry_after.as_secs() == 1));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses() {
        let (pacer, model) = (pacer(2), model(60, 6_000_000));
        let turns = join_all((0..4).map(|_| pacer.turn(&model, TOKENS, later()))).await;
        let refused = turns.iter().filter(|turn| matches!(turn, Err(Fault::Busy { .. }))).count();
        assert_eq!(refused, 1, "one passes, two wait, one is refused");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_leaves_the_queue_makes_room() {
        let (pacer, model) = (pacer(1), model(60, 6_000_000));
        pacer.turn(&model, TOKENS, later()).await.unwrap();
        let short = Duration::from_millis(10);
        assert!(tokio::time::timeout(short, pacer.turn(&model, TOKENS, later())).await.is_err());
        assert!(pacer.turn(&model, TOKENS, later()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_billed_beyond_the_input_is_waited_for_by_the_next() {
        let (pacer, model, start) = (pacer(9), model(60_000, 6_000), RuntimeInstant::now());
        let turn = pacer.turn(&model, TOKENS, later()).await.unwrap();
        turn.billed(Usage { image: TOKENS, output: Tokens::new(300), ..Usage::default() });
        pacer.turn(&model, TOKENS, later()).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_longer_hold_replaces_a_shorter_and_not_the_other_way_round() {
        let (pacer, model, start) = (pacer(9), model(60_000, 6_000_000), RuntimeInstant::now());
        for seconds in [1, 7, 2] {
            pacer.hold(&model, Duration::from_secs(seconds));
        }
        pacer.turn(&model, TOKENS, later()).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_beyond_the_queue_s_timeout_refuses_as_a_throttle() {
        let (pacer, model) = (pacer(9), model(60_000, 6_000_000));
        pacer.hold(&model, Duration::from_mins(1));
        let refused = pacer.turn(&model, TOKENS, later()).await.unwrap_err();
        let retry_after = Duration::from_mins(1);
        assert_eq!(refused, Fault::Throttled { retry_after, code: None });
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_the_model_reads_is_not_waited_for() {
        let (pacer, model, start) = (pacer(9), model(60_000, 600_000), RuntimeInstant::now());
        pacer.turn(&model, Tokens::new(900_000_000), later()).await.unwrap();
        pacer.turn(&model, TOKENS, later()).await.unwrap();
        // The model reads 30,000 tokens, and its rate is 10,000 a second.
        assert!((1..=3).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }
}
