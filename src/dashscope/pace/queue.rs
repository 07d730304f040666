//! A call's wait for a slot under the account's rate.
//!
//! A call that exceeds the account's limits costs an upload and a wait, so calls wait here instead: `fair_queue`
//! chooses the next call, and `controller` decides when it may leave. The output tokens of a call are not known
//! beforehand. So only its input is taken in advance, and the rest is charged once it is billed; later calls wait for
//! it.
//!
//! Waiting is bounded by number and by time. A call that cannot get a slot in time is refused as soon as that is known.
//!
//! One [`CallQueue`] holds the calls of one model for one account. Endpoints whose keys belong to one account share it,
//! as the vendor limits accounts. The call at its head sleeps until there is room, and leaves; the others sleep until
//! an earlier call has changed. Plain mutexes, which are never held across an await, protect the state, or a store that
//! the replicas share holds it (`shared`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::controller::{RateController, RateLimits, Work};
use super::fair_queue::{Arrival, FairQueue, Ticket};
use super::shared::{SharedController, TakenAt};
use crate::admission;
use crate::clock::Clock;
use crate::dashscope::fault::error::CallFault;
use crate::dashscope::fault::health::Quota;
use crate::dashscope::settings::UpstreamSettings;
use crate::redis::cells::SharedCells;
use crate::units::Tokens;

/// The queues of all accounts and models.
#[derive(Debug)]
pub(crate) struct CallQueues {
    /// As many as accounts times models.
    queues: Mutex<HashMap<(String, String), Arc<CallQueue>>>,
    timeout: Duration,
    length: usize,
    shared: Option<Arc<dyn SharedCells>>,
    clock: Arc<dyn Clock>,
}

impl CallQueues {
    pub(crate) fn new(
        settings: &UpstreamSettings,
        shared: Option<Arc<dyn SharedCells>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            queues: Mutex::default(),
            timeout: settings.queue_timeout(),
            length: settings.queue_length,
            shared,
            clock,
        }
    }

    /// The queue of `model` for `account`, which has these limits.
    pub(crate) fn queue(&self, account: &str, model: &str, limits: RateLimits) -> Arc<CallQueue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (account.to_owned(), model.to_owned());
        let new = || {
            let key = format!("ocr-gateway:pace:1:{{{account}}}:{model}");
            let clock = Arc::clone(&self.clock);
            let controller = SharedController::new(key, self.shared.clone(), Arc::clone(&clock));
            Arc::new(CallQueue { limits, controller, waiting: Mutex::default(), clock })
        };
        Arc::clone(queues.entry(key).or_insert_with(new))
    }

    /// The latest time until which a call with this deadline may wait for a slot; `None` if it is too late to send it
    /// at all.
    pub(crate) fn patience(&self, deadline: Instant) -> Option<Instant> {
        let now = self.clock.instant();
        let latest = admission::latest_start(deadline, now)?;
        Some(latest.min(now + self.timeout))
    }

    /// Waits in `queue` until a call of `tenant` that takes `input` tokens may be sent.
    ///
    /// # Errors
    ///
    /// [`NoSlot::TooLate`] as soon as it is known that there will be no slot before `until`.
    pub(crate) async fn slot(
        &self,
        queue: &Arc<CallQueue>,
        tenant: &str,
        input: Tokens,
        until: Instant,
    ) -> Result<SendSlot, NoSlot> {
        let left = || until.saturating_duration_since(self.clock.instant());
        let waiter = Waiter::join(queue, tenant, input, left(), self.length)?;
        loop {
            let pause = match waiter.position() {
                Position::Behind(wait) if wait > left() => return Err(queue.late(tenant, input)),
                Position::Behind(_) => left(),
                Position::Removed => return Err(NoSlot::Removed),
                Position::First => match waiter.try_leave().await {
                    Ok(slot) => return Ok(slot),
                    Err(wait) if wait > left() => return Err(queue.late(tenant, input)),
                    Err(wait) => wait,
                },
            };
            if left().is_zero() {
                return Err(queue.late(tenant, input));
            }
            // Waits until the time has come, or until an earlier call has changed.
            let _ = tokio::time::timeout(pause, waiter.notify.notified()).await;
        }
    }
}

/// The reason why a call got no slot.
#[derive(Debug)]
pub(crate) enum NoSlot {
    /// No slot is free in time.
    TooLate(CallFault),
    /// The call was removed from the queue and should choose one again: the rate has changed so much that another
    /// queue may be better, or a call of another tenant displaced it.
    Removed,
}

/// The calls of one model that wait for one account.
#[derive(Debug)]
pub(crate) struct CallQueue {
    limits: RateLimits,
    controller: SharedController,
    waiting: Mutex<FairQueue>,
    clock: Arc<dyn Clock>,
}

impl CallQueue {
    /// The least time until a call of `tenant` that joined now would get a slot.
    pub(crate) fn expected_wait(&self, tenant: &str, input: Tokens) -> Duration {
        let before = self.waiting().work_before(tenant);
        self.wait_behind(before, input)
    }

    /// The delay of the next call caused by one that takes `input` tokens.
    pub(crate) fn spacing(&self, input: Tokens) -> Duration {
        self.controller.peek(|rate, _| rate.cost(self.limits, input.get()))
    }

    fn wait_behind(&self, before: Work, input: Tokens) -> Duration {
        self.controller.peek(|rate, now| rate.wait_behind(self.limits, now, before, input.get()))
    }

    /// Removes all waiting calls, so that they choose a better queue.
    pub(crate) fn send_away(&self) {
        self.waiting().clear();
    }

    /// Whether a `Retry-After` is in effect.
    fn is_held(&self) -> bool {
        self.controller.peek(|rate, now| rate.held_until() > now)
    }

    fn late(&self, tenant: &str, input: Tokens) -> NoSlot {
        NoSlot::TooLate(self.refusal(self.expected_wait(tenant, input)))
    }

    /// The answer to a call that cannot get a slot in time.
    fn refusal(&self, retry_after: Duration) -> CallFault {
        if self.is_held() {
            return CallFault::Throttled { retry_after, code: None };
        }
        CallFault::Busy { retry_after }
    }

    fn waiting(&self) -> MutexGuard<'_, FairQueue> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in a queue. Dropping it leaves the queue.
#[derive(Debug)]
struct Waiter<'a> {
    queue: &'a Arc<CallQueue>,
    ticket: Ticket,
    input: Tokens,
    notify: Arc<Notify>,
    since: Instant,
}

/// A call's position in its queue.
enum Position {
    First,
    /// Other calls come first, for at least this long.
    Behind(Duration),
    Removed,
}

impl<'a> Waiter<'a> {
    /// Joins the queue if a slot within `left` is possible.
    fn join(
        queue: &'a Arc<CallQueue>,
        tenant: &str,
        input: Tokens,
        left: Duration,
        queue_length: usize,
    ) -> Result<Self, NoSlot> {
        let cost = queue.spacing(input);
        let mut waiting = queue.waiting();
        let wait = queue.wait_behind(waiting.work_before(tenant), input);
        if wait > left || !waiting.make_room(tenant, queue_length) {
            return Err(NoSlot::TooLate(queue.refusal(wait)));
        }
        let notify = Arc::new(Notify::new());
        let ticket = waiting.join(Arrival {
            tenant: tenant.into(),
            cost,
            tokens: input.get(),
            notify: Arc::clone(&notify),
        });
        Ok(Self { queue, ticket, input, notify, since: queue.clock.instant() })
    }

    fn position(&self) -> Position {
        let waiting = self.queue.waiting();
        if !waiting.holds(self.ticket) {
            Position::Removed
        } else if waiting.is_first(self.ticket) {
            Position::First
        } else {
            let before = waiting.work_ahead_of(self.ticket);
            Position::Behind(self.queue.wait_behind(before, self.input))
        }
    }

    /// Takes a slot, or returns the time that remains to wait.
    async fn try_leave(&self) -> Result<SendSlot, Duration> {
        let waited = self.queue.clock.instant().saturating_duration_since(self.since);
        let (limits, tokens) = (self.queue.limits, self.input.get());
        let was_held = self.queue.is_held();
        let take = |rate: &mut RateController, now: Duration| {
            rate.take(limits, now, now.saturating_sub(waited), tokens)
        };
        let (taken, taken_at) = self.queue.controller.update(take).await;
        if taken.is_err() && !was_held && self.queue.is_held() {
            // Another replica got a `Retry-After`: calls that wait here choose another queue.
            self.queue.send_away();
        }
        taken?;
        self.queue.waiting().serve(self.ticket);
        Ok(SendSlot { queue: Arc::clone(self.queue), taken: self.input, taken_at })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting();
        waiting.leave(self.ticket);
        waiting.notify_first();
    }
}

/// The right to send one call.
#[derive(Debug)]
pub(crate) struct SendSlot {
    queue: Arc<CallQueue>,
    taken: Tokens,
    taken_at: TakenAt,
}

impl SendSlot {
    /// The queue that the slot belongs to.
    pub(crate) const fn queue(&self) -> &Arc<CallQueue> {
        &self.queue
    }

    /// Gives back the tokens that were taken in advance, because the call cost nothing.
    pub(crate) async fn unbilled(&self) {
        self.billed(Tokens::ZERO).await;
    }

    /// Replaces the tokens that were taken in advance by the billed ones. This delays the calls of all tenants, so
    /// `rated` must not exceed what one call can take ([`Model::rated`](crate::catalog::Model::rated)).
    pub(crate) async fn billed(&self, rated: Tokens) {
        let (limits, taken, billed) = (self.queue.limits, self.taken.get(), rated.get());
        let correct = |rate: &mut RateController, now| rate.correct(limits, now, taken, billed);
        self.queue.controller.update_taken(self.taken_at, correct).await;
    }

    /// Gives the slot back, because nothing was sent.
    pub(crate) async fn unused(&self) {
        let (limits, taken) = (self.queue.limits, self.taken.get());
        let give_back = |rate: &mut RateController, _| rate.give_back(limits, taken);
        self.queue.controller.update_taken(self.taken_at, give_back).await;
    }

    /// Learns from a throttle of the call, and lets no other call leave the same queue before `wait` is over; waiting
    /// calls choose another queue.
    pub(crate) async fn throttled(&self, quota: Option<Quota>, wait: Option<Duration>) {
        let (limits, sent) = (self.queue.limits, self.taken_at.time());
        if let Some(wait) = wait {
            // At once in this process, even if the store cannot be reached.
            self.queue.controller.hold(wait);
            self.queue.send_away();
        }
        let learn = |rate: &mut RateController, now: Duration| {
            if let Some(quota) = quota {
                rate.throttled(limits, now, sent, quota);
            }
            if let Some(wait) = wait {
                rate.hold(now.saturating_add(wait));
            }
        };
        self.queue.controller.update_taken(self.taken_at, learn).await;
        // The rate has changed: for some calls it is too late now.
        self.queue.waiting().notify_all();
    }
}

#[cfg(test)]
mod tests;
