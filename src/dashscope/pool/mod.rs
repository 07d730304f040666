//! Chooses the endpoint of a call.
//!
//! An endpoint may be used if it serves the model in a region where the model is sold to the tenant. The permit has
//! these regions, so a call cannot leave for another region, in any state of the pool. The pool skips endpoints that a
//! breaker has closed or that have failed at this call. Of the others it takes the one where the call can leave first
//! for its weight, and among equals the one with the fewest calls in flight for its weight.
//!
//! A call waits in the queue of its endpoint's account. If that queue is held for a while, or the endpoint fails, the
//! call is removed from it and chooses again.

mod breaker;
pub(crate) mod endpoint;
mod gate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::endpoint::{Endpoint, Entrance};
use super::fault::error::CallFault;
use super::pace::queue::{CallQueue, CallQueues, NoSlot, SendSlot};
use super::settings::UpstreamSettings;
use super::wire::memory::AnswerPool;
use super::wire::transport::{ClientError, Transport};
use crate::admission::Permit;
use crate::catalog::Model;
use crate::clock::Clock;
use crate::redis::cells::SharedCells;
use crate::telemetry::metrics::Metrics;
use crate::units::Tokens;

/// All endpoints.
#[derive(Debug)]
pub(crate) struct Pool {
    /// In the order of the configuration.
    endpoints: Vec<Arc<Endpoint>>,
    queues: CallQueues,
    clock: Arc<dyn Clock>,
}

/// The constraints on the choice of an endpoint for a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search<'a> {
    /// The names of endpoints that have failed at this call. They are used again only if there is no other.
    pub(crate) failed: &'a [String],
    /// Whether only the first endpoint is possible: no other can read the files in its storage.
    pub(crate) first_only: bool,
    /// The time at which the caller stops waiting.
    pub(crate) deadline: Instant,
}

/// An endpoint and a slot for a call: it may be sent.
#[derive(Debug)]
pub(crate) struct Placement {
    pub(crate) entrance: Entrance,
    pub(crate) slot: SendSlot,
}

/// An endpoint that the call could use.
struct Candidate<'a> {
    endpoint: &'a Arc<Endpoint>,
    queue: Arc<CallQueue>,
    wait: Duration,
    /// The delay of the next call caused by this one.
    spacing: Duration,
    /// The time for which it is closed, if it is.
    closed_for: Option<Duration>,
    has_failed: bool,
}

impl Candidate<'_> {
    /// Whether the call could leave here within `left`, from another queue than the excluded ones.
    fn is_in_time(&self, left: Duration, excluded: &[Arc<CallQueue>]) -> bool {
        let is_excluded = excluded.iter().any(|queue| Arc::ptr_eq(queue, &self.queue));
        self.closed_for.is_none() && self.wait <= left && !is_excluded
    }
}

impl Pool {
    pub(crate) fn new(
        settings: &UpstreamSettings,
        shared: Option<Arc<dyn SharedCells>>,
        memory: &AnswerPool,
        metrics: &Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        settings.check()?;
        let endpoints = settings.pool().into_iter().map(|endpoint| {
            let transport =
                Transport::new(settings, &endpoint, memory.clone(), Arc::clone(&clock))?;
            let endpoint = Endpoint::new(endpoint, settings, transport, Arc::clone(metrics));
            Ok::<_, ClientError>(Arc::new(endpoint))
        });
        Ok(Self {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            queues: CallQueues::new(settings, shared, Arc::clone(&clock)),
            clock,
        })
    }

    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Enters the first endpoint that serves `model` for `tenant`. Files for the model are stored there.
    ///
    /// # Errors
    ///
    /// The reason why it may not be used now.
    pub(crate) fn enter_first(&self, model: &Model, tenant: &str) -> Result<Entrance, CallFault> {
        let first = self.endpoints.iter().find(|endpoint| endpoint.serves(model));
        let closed = |retry_after| CallFault::Unavailable { retry_after };
        let first = first.ok_or(closed(Duration::ZERO))?;
        let now = self.clock.instant();
        first.enter(&model.name, tenant, now).ok_or_else(|| {
            let wait = first.closed_for(&model.name, tenant, now).unwrap_or_default();
            first.key_refused(tenant, now).unwrap_or_else(|| closed(wait))
        })
    }

    /// Makes calls of `model` that wait for `endpoint` choose again.
    pub(crate) fn send_away(&self, endpoint: &Endpoint, model: &Model) {
        endpoint.queue(&self.queues, model).send_away();
    }

    /// Finds an endpoint for the permit's call, and waits for a slot there. The call takes at most the model's input
    /// limit from the rate: the provider refuses a longer input, which then costs nothing.
    ///
    /// # Errors
    ///
    /// The reason why there is none in time, as soon as that is known.
    pub(crate) async fn place(
        &self,
        permit: &Permit,
        search: Search<'_>,
    ) -> Result<Placement, CallFault> {
        let (model, tenant) = (permit.model(), permit.tenant());
        let input = permit.bound().input().min(model.figures.max_input_tokens);
        let until = self.queues.patience(search.deadline).ok_or(CallFault::DeadlineExceeded)?;
        let mut too_late: Vec<Arc<CallQueue>> = Vec::new();
        loop {
            let left = until.saturating_duration_since(self.clock.instant());
            let candidates = self.candidates(model, tenant, input, search);
            let best = self.best(candidates, tenant, left, &too_late)?;
            let queue = Arc::clone(&best.queue);
            let slot = match self.queues.slot(&queue, tenant, input, until).await {
                Ok(slot) => slot,
                Err(NoSlot::Removed) => continue,
                Err(NoSlot::TooLate(fault)) => {
                    too_late.push(queue);
                    let left = until.saturating_duration_since(self.clock.instant());
                    let candidates = self.candidates(model, tenant, input, search);
                    if !candidates.iter().any(|other| other.is_in_time(left, &too_late)) {
                        return Err(fault);
                    }
                    continue;
                }
            };
            if let Some(entrance) = best.endpoint.enter(&model.name, tenant, self.clock.instant()) {
                return Ok(Placement { entrance, slot });
            }
            // The endpoint was closed while the call waited.
            slot.unused().await;
        }
    }

    /// Whether a call whose attempt failed could go to an endpoint that has not failed at it; after a throttle, to one
    /// of another account.
    pub(crate) fn has_another(
        &self,
        permit: &Permit,
        search: Search<'_>,
        throttled: Option<&Arc<CallQueue>>,
    ) -> bool {
        let (model, tenant) = (permit.model(), permit.tenant());
        let input = permit.bound().input().min(model.figures.max_input_tokens);
        let Some(until) = self.queues.patience(search.deadline) else { return false };
        let left = until.saturating_duration_since(self.clock.instant());
        let excluded: Vec<_> = throttled.into_iter().map(Arc::clone).collect();
        let candidates = self.candidates(model, tenant, input, search);
        candidates.iter().any(|other| !other.has_failed && other.is_in_time(left, &excluded))
    }

    /// The candidate where the call can leave first. The queues in `late`, known to be too slow, come last.
    fn best<'a>(
        &self,
        candidates: Vec<Candidate<'a>>,
        tenant: &str,
        left: Duration,
        late: &[Arc<CallQueue>],
    ) -> Result<Candidate<'a>, CallFault> {
        /// Waits that differ by less count as equal, so that loads and weights decide.
        const EQUAL: Duration = Duration::from_millis(100);
        let now = self.clock.instant();
        let refused =
            candidates.iter().map(|candidate| candidate.endpoint.key_refused(tenant, now));
        let refused: Option<Vec<_>> = refused.collect();
        let shortest = candidates.iter().filter_map(|candidate| candidate.closed_for).min();
        let none = match refused.and_then(|mut faults| faults.pop()) {
            Some(account) => account,
            None => CallFault::Unavailable { retry_after: shortest.unwrap_or_default() },
        };
        let open = || candidates.iter().filter(|candidate| candidate.closed_for.is_none());
        // A queue does not count as busier because a call has just left it, however large its spacing is. Nor does a
        // queue with three times the weight because three calls wait in it.
        let step = open().map(|candidate| candidate.spacing).min().unwrap_or_default().max(EQUAL);
        let best = open().enumerate().min_by_key(|(_, candidate)| {
            let is_late = !candidate.is_in_time(left, late);
            let share = step.saturating_mul(candidate.endpoint.weight());
            let wait = candidate.wait.as_nanos() / share.as_nanos().max(1);
            (is_late, candidate.has_failed, wait, candidate.endpoint.load())
        });
        let best = best.map(|(index, _)| index);
        let mut open = candidates.into_iter().filter(|candidate| candidate.closed_for.is_none());
        best.and_then(|index| open.nth(index)).ok_or(none)
    }

    fn candidates(
        &self,
        model: &Model,
        tenant: &str,
        input: Tokens,
        search: Search<'_>,
    ) -> Vec<Candidate<'_>> {
        let now = self.clock.instant();
        let most = if search.first_only { 1 } else { usize::MAX };
        let serving = self.endpoints.iter().filter(|endpoint| endpoint.serves(model)).take(most);
        let candidates = serving.map(|endpoint| {
            let queue = endpoint.queue(&self.queues, model);
            let (wait, spacing) = (queue.expected_wait(tenant, input), queue.spacing(input));
            let has_failed = search.failed.iter().any(|name| name == endpoint.name());
            let closed_for = endpoint.closed_for(&model.name, tenant, now);
            Candidate { endpoint, queue, wait, spacing, closed_for, has_failed }
        });
        candidates.collect()
    }
}
