//! A call's turn under the account's rate.
//!
//! DashScope limits requests and tokens a minute for the whole account and model, may enforce both by
//! the second, and throttles a sudden rise even below them (Model Studio, "Rate limits"). Running into
//! that costs an upload and a wait for every call that does, so calls wait here instead: in order,
//! evenly spaced, a second's worth at most at once. What a call will write is not known beforehand, so
//! only its input is taken in advance and the rest is charged once billed; later calls wait for it.
//!
//! Waiting is bounded twice, by number and by time, and a call whose turn cannot come in time is told so
//! at once rather than after having waited for nothing. A `Retry-After` closes the lane of the model until
//! it ends; a later end replaces an earlier one and never the other way round.
//!
//! The queue of a lane is a fair semaphore with one permit: its holder is the head, sleeps until there is
//! room, and goes. Numbers sit behind a plain mutex that is never held across an await.

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

/// The longest that one `Retry-After` is believed. The vendor says that recovery takes a minute; a date
/// that a wrong clock put into next year must not close a model until the next restart.
const LONGEST_HOLD: Duration = Duration::from_mins(10);

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

    /// Waits until a call of `input` tokens may be sent to `model`.
    ///
    /// # Errors
    ///
    /// [`Fault::Busy`] or, while a `Retry-After` runs, [`Fault::Throttled`] when that will not be before
    /// the queue's timeout or the deadline; as soon as it is known.
    pub(super) async fn turn(
        &self,
        model: &Model,
        input: Tokens,
        deadline: Instant,
    ) -> Result<Turn, Fault> {
        let lane = self.lane(model);
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
        let end = lane.now().saturating_add(wait.min(LONGEST_HOLD));
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
#[must_use = "what the call is billed must be told to the turn"]
#[derive(Debug)]
pub(super) struct Turn {
    lane: Arc<Lane>,
    taken: Tokens,
}

impl Turn {
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
        if state.held_until > now {
            return Err(state.held_until - now);
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
