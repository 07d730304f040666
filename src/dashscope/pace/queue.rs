//! A call's turn under the account's rate.
//!
//! Running into the account's limits costs an upload and a wait for every call that does, so calls wait
//! here instead: who is next says `queue`, when it may leave `pace`. What a call will write is not known
//! beforehand, so only its input is taken in advance and the rest is charged once billed; later calls
//! wait for it.
//!
//! Waiting is bounded twice, by number and by time, and a call whose turn cannot come in time is
//! told so at once rather than after having waited for nothing.
//!
//! One [`Lane`] is the way of one model's calls through one account; endpoints whose keys belong to one
//! account share it, as the vendor limits accounts. The call at the head of its queue sleeps until there is
//! room, and goes; the others sleep until something before them has changed. The numbers sit behind plain
//! mutexes that are never held across an await, or in a store that the replicas share (`cell`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::controller::{Limits, Pace, Work};
use super::fair_queue::{Arrival, FairQueue, Ticket};
use super::shared::{Cell, Moment};
use crate::admission;
use crate::clock::Clock;
use crate::dashscope::fault::error::Fault;
use crate::dashscope::fault::health::Quota;
use crate::dashscope::settings::UpstreamSettings;
use crate::redis::cells::SharedCells;
use crate::units::Tokens;

/// The lanes of all accounts.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// As many as accounts times models.
    lanes: Mutex<HashMap<(String, String), Arc<Lane>>>,
    queue_timeout: Duration,
    queue_length: usize,
    shared: Option<Arc<dyn SharedCells>>,
    clock: Arc<dyn Clock>,
}

impl Pacer {
    pub(crate) fn new(
        settings: &UpstreamSettings,
        shared: Option<Arc<dyn SharedCells>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            lanes: Mutex::default(),
            queue_timeout: settings.queue_timeout(),
            queue_length: settings.queue_length,
            shared,
            clock,
        }
    }

    /// The lane of `model` through `account`, which has these limits.
    pub(crate) fn lane(&self, account: &str, model: &str, limits: Limits) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (account.to_owned(), model.to_owned());
        let new = || {
            let key = format!("ocr-gateway:pace:1:{{{account}}}:{model}");
            let cell = Cell::new(key, self.shared.clone(), Arc::clone(&self.clock));
            Arc::new(Lane { limits, cell, line: Mutex::default(), clock: Arc::clone(&self.clock) })
        };
        Arc::clone(lanes.entry(key).or_insert_with(new))
    }

    /// Until when a call with this deadline may wait for a turn; none where it is too late to be sent at all.
    pub(crate) fn patience(&self, deadline: Instant) -> Option<Instant> {
        let now = self.clock.instant();
        let latest = admission::latest_start(deadline, now)?;
        Some(latest.min(now + self.queue_timeout))
    }

    /// Waits in `lane` until a call of `tenant` that takes `input` tokens may be sent.
    ///
    /// # Errors
    ///
    /// [`Blocked::Late`] as soon as it is known that it will not be before `until`.
    pub(crate) async fn turn(
        &self,
        lane: &Arc<Lane>,
        tenant: &str,
        input: Tokens,
        until: Instant,
    ) -> Result<Turn, Blocked> {
        let left = || until.saturating_duration_since(self.clock.instant());
        let waiter = Waiter::join(lane, tenant, input, left(), self.queue_length)?;
        loop {
            let pause = match waiter.standing() {
                Standing::Behind(wait) if wait > left() => return Err(lane.late(tenant, input)),
                Standing::Behind(_) => left(),
                Standing::Displaced => return Err(lane.late(tenant, input)),
                Standing::Moved => return Err(Blocked::Moved),
                Standing::First => match waiter.try_leave().await {
                    Ok(turn) => return Ok(turn),
                    Err(wait) if wait > left() => return Err(lane.late(tenant, input)),
                    Err(wait) => wait,
                },
            };
            if left().is_zero() {
                return Err(lane.late(tenant, input));
            }
            // Either the time has come, or somebody rings because something has changed.
            let _ = tokio::time::timeout(pause, waiter.bell.notified()).await;
        }
    }
}

/// Why a call got no turn.
#[derive(Debug)]
pub(crate) enum Blocked {
    /// It would come too late.
    Late(Fault),
    /// The lane has changed so much that another may be better.
    Moved,
}

/// The way of one model's calls through one account.
#[derive(Debug)]
pub(crate) struct Lane {
    limits: Limits,
    cell: Cell,
    line: Mutex<Line>,
    clock: Arc<dyn Clock>,
}

/// Those who wait.
#[derive(Debug, Default)]
struct Line {
    queue: FairQueue,
    /// Counts how often all were sent away.
    epoch: u64,
}

impl Lane {
    /// The least time until a call of `tenant` that joined now would get its turn.
    pub(crate) fn expected_wait(&self, tenant: &str, input: Tokens) -> Duration {
        let before = self.line().queue.work_before(tenant);
        self.wait_behind(before, input)
    }

    /// The time that a call takes of the lane, which the next call waits for.
    pub(crate) fn spacing(&self, input: Tokens) -> Duration {
        self.cell.peek(|pace, _| pace.cost(self.limits, input.get()))
    }

    fn wait_behind(&self, before: Work, input: Tokens) -> Duration {
        self.cell.peek(|pace, now| pace.wait_behind(self.limits, now, before, input.get()))
    }

    /// Sends all who wait away to look for a better lane.
    pub(crate) fn send_away(&self) {
        let mut line = self.line();
        line.epoch += 1;
        line.queue.clear();
    }

    /// Whether a `Retry-After` runs.
    fn is_held(&self) -> bool {
        self.cell.peek(|pace, now| pace.held_until() > now)
    }

    fn late(&self, tenant: &str, input: Tokens) -> Blocked {
        Blocked::Late(self.refusal(self.expected_wait(tenant, input)))
    }

    /// What a call is told that cannot get its turn in time.
    fn refusal(&self, retry_after: Duration) -> Fault {
        if self.is_held() {
            return Fault::Throttled { retry_after, code: None };
        }
        Fault::Busy { retry_after }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in a lane's queue; dropped, it leaves.
#[derive(Debug)]
struct Waiter<'a> {
    lane: &'a Arc<Lane>,
    ticket: Ticket,
    epoch: u64,
    input: Tokens,
    bell: Arc<Notify>,
    since: Instant,
}

/// How a call stands in its queue.
enum Standing {
    First,
    /// Others come first, for at least so long.
    Behind(Duration),
    /// It had to make room for another tenant's.
    Displaced,
    /// All were sent away.
    Moved,
}

impl<'a> Waiter<'a> {
    /// Joins the queue where there is hope of a turn within `left`.
    fn join(
        lane: &'a Arc<Lane>,
        tenant: &str,
        input: Tokens,
        left: Duration,
        queue_length: usize,
    ) -> Result<Self, Blocked> {
        let cost = lane.cell.peek(|pace, _| pace.cost(lane.limits, input.get()));
        let mut queued = lane.line();
        let wait = lane.wait_behind(queued.queue.work_before(tenant), input);
        if wait > left || !queued.queue.make_room(tenant, queue_length) {
            return Err(Blocked::Late(lane.refusal(wait)));
        }
        let bell = Arc::new(Notify::new());
        let arrival =
            Arrival { tenant: tenant.into(), cost, tokens: input.get(), bell: Arc::clone(&bell) };
        let (ticket, epoch) = (queued.queue.join(arrival), queued.epoch);
        Ok(Self { lane, ticket, epoch, input, bell, since: lane.clock.instant() })
    }

    fn standing(&self) -> Standing {
        let line = self.lane.line();
        if line.epoch != self.epoch {
            Standing::Moved
        } else if !line.queue.holds(self.ticket) {
            Standing::Displaced
        } else if line.queue.is_first(self.ticket) {
            Standing::First
        } else {
            let before = line.queue.work_ahead_of(self.ticket);
            Standing::Behind(self.lane.wait_behind(before, self.input))
        }
    }

    /// Leaves for the upstream, or says how long to wait yet.
    async fn try_leave(&self) -> Result<Turn, Duration> {
        let waited = self.lane.clock.instant().saturating_duration_since(self.since);
        let (limits, tokens) = (self.lane.limits, self.input.get());
        let was_held = self.lane.is_held();
        let taken = self
            .lane
            .cell
            .update(|pace, now| pace.take(limits, now, now.saturating_sub(waited), tokens));
        let (taken, left_at) = taken.await;
        if taken.is_err() && !was_held && self.lane.is_held() {
            // Another replica was told of it: those who wait look for another lane.
            self.lane.send_away();
        }
        taken?;
        self.lane.line().queue.serve(self.ticket);
        Ok(Turn { lane: Arc::clone(self.lane), taken: self.input, left_at })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut line = self.lane.line();
        line.queue.leave(self.ticket);
        line.queue.ring_first();
    }
}

/// A turn that was given: the call may be sent.
#[derive(Debug)]
pub(crate) struct Turn {
    lane: Arc<Lane>,
    taken: Tokens,
    left_at: Moment,
}

impl Turn {
    /// Whose turn it is.
    pub(crate) const fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// Gives back what was taken in advance, because the call cost nothing.
    pub(crate) async fn unbilled(&self) {
        self.billed(Tokens::ZERO).await;
    }

    /// Corrects what was taken in advance to what was billed. That holds the lane for all tenants, so it must be
    /// no more than one call can take ([`Model::rated`](crate::catalog::Model::rated)).
    pub(crate) async fn billed(&self, rated: Tokens) {
        let (limits, taken, billed) = (self.lane.limits, self.taken.get(), rated.get());
        let correct = |pace: &mut Pace, now| pace.correct(limits, now, taken, billed);
        self.lane.cell.update_if_there(self.left_at, correct).await;
    }

    /// Gives the turn back, because nothing was sent.
    pub(crate) async fn unused(&self) {
        let (limits, taken) = (self.lane.limits, self.taken.get());
        let give_back = |pace: &mut Pace, _| pace.give_back(limits, taken);
        self.lane.cell.update_if_there(self.left_at, give_back).await;
    }

    /// Learns from the upstream's having throttled the call, and lets no other leave by the same lane before
    /// `wait` is over; those who wait look for another.
    pub(crate) async fn throttled(&self, quota: Option<Quota>, wait: Option<Duration>) {
        let (limits, sent) = (self.lane.limits, self.left_at.at());
        if let Some(wait) = wait {
            // At once in this process, whatever becomes of the store.
            self.lane.cell.hold(wait);
            self.lane.send_away();
        }
        let learn = |pace: &mut Pace, now: Duration| {
            if let Some(quota) = quota {
                pace.throttled(limits, now, sent, quota);
            }
            if let Some(wait) = wait {
                pace.hold(now.saturating_add(wait));
            }
        };
        self.lane.cell.update_if_there(self.left_at, learn).await;
        // The pace is another: for some it is too late now.
        self.lane.line().queue.ring_all();
    }
}

#[cfg(test)]
mod tests;
