//! Which endpoint a call goes to.
//!
//! Those that may be asked are those that serve the model in a region where the model is sold to whoever
//! asks: residency is part of what the permit says, so a call cannot leave for another region, whatever
//! state the pool is in. Of these, the ones that are closed by a breaker or have failed at this very call
//! are passed over; of the rest, the one is chosen where the call can leave first for its weight, and among equals
//! the one with the least in flight for its weight.
//!
//! A call waits in the lane of the endpoint it was given. When that lane is closed for a while, or the
//! endpoint fails, it is sent away and chooses anew.

mod breaker;
pub(crate) mod endpoint;
mod gate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::endpoint::{Endpoint, Entrance};
use super::fault::error::Fault;
use super::pace::queue::{Blocked, Lane, Pacer, Turn};
use super::settings::UpstreamSettings;
use super::wire::memory::Memory;
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
    pacer: Pacer,
    clock: Arc<dyn Clock>,
}

/// What a call looks for a place with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search<'a> {
    /// Names of endpoints that failed at this call already; taken again only where there is no other.
    pub(crate) failed: &'a [String],
    /// Whether only the first will do: what its storage holds no other can read.
    pub(crate) first_only: bool,
    /// When the caller stops waiting.
    pub(crate) deadline: Instant,
}

/// A call's place at an endpoint: it may be sent.
#[derive(Debug)]
pub(crate) struct Placement {
    pub(crate) entrance: Entrance,
    pub(crate) turn: Turn,
}

/// An endpoint that could be asked.
struct Candidate<'a> {
    endpoint: &'a Arc<Endpoint>,
    lane: Arc<Lane>,
    wait: Duration,
    /// What a call takes of the lane.
    spacing: Duration,
    /// Why not now.
    closed_for: Option<Duration>,
    has_failed: bool,
}

impl Candidate<'_> {
    /// Whether the call could leave here within `left`, by another lane than these.
    fn is_in_time(&self, left: Duration, excluded: &[Arc<Lane>]) -> bool {
        let is_excluded = excluded.iter().any(|lane| Arc::ptr_eq(lane, &self.lane));
        self.closed_for.is_none() && self.wait <= left && !is_excluded
    }
}

impl Pool {
    pub(crate) fn new(
        settings: &UpstreamSettings,
        shared: Option<Arc<dyn SharedCells>>,
        memory: &Memory,
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
            pacer: Pacer::new(settings, shared, Arc::clone(&clock)),
            clock,
        })
    }

    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Enters the first endpoint that serves `model` for `tenant`, which is where files for it are put.
    ///
    /// # Errors
    ///
    /// Why it may not be asked now.
    pub(crate) fn enter_first(&self, model: &Model, tenant: &str) -> Result<Entrance, Fault> {
        let first = self.endpoints.iter().find(|endpoint| endpoint.serves(model));
        let closed = |retry_after| Fault::Unavailable { retry_after };
        let first = first.ok_or(closed(Duration::ZERO))?;
        let now = self.clock.instant();
        first.enter(&model.name, tenant, now).ok_or_else(|| {
            let wait = first.closed_for(&model.name, tenant, now).unwrap_or_default();
            first.key_refused(tenant, now).unwrap_or_else(|| closed(wait))
        })
    }

    /// Lets those who wait for `endpoint` to serve `model` look for another.
    pub(crate) fn send_away(&self, endpoint: &Endpoint, model: &Model) {
        endpoint.lane(&self.pacer, model).send_away();
    }

    /// Finds a place for the call that `permit` is for, and waits for its turn there. More tokens than the
    /// model reads are not reckoned with: the provider refuses such a call, and it costs nothing.
    ///
    /// # Errors
    ///
    /// Why there is none in time, as soon as that is known.
    pub(crate) async fn place(
        &self,
        permit: &Permit,
        search: Search<'_>,
    ) -> Result<Placement, Fault> {
        let (model, tenant) = (permit.model(), permit.tenant());
        let input = permit.bound().input().min(model.figures.max_input_tokens);
        let until = self.pacer.patience(search.deadline).ok_or(Fault::DeadlineExceeded)?;
        let mut too_late: Vec<Arc<Lane>> = Vec::new();
        loop {
            let left = until.saturating_duration_since(self.clock.instant());
            let candidates = self.candidates(model, tenant, input, search);
            let best = self.best(candidates, tenant, left, &too_late)?;
            let lane = Arc::clone(&best.lane);
            let turn = match self.pacer.turn(&lane, tenant, input, until).await {
                Ok(turn) => turn,
                Err(Blocked::Moved) => continue,
                Err(Blocked::Late(fault)) => {
                    too_late.push(lane);
                    let left = until.saturating_duration_since(self.clock.instant());
                    let candidates = self.candidates(model, tenant, input, search);
                    if !candidates.iter().any(|other| other.is_in_time(left, &too_late)) {
                        return Err(fault);
                    }
                    continue;
                }
            };
            if let Some(entrance) = best.endpoint.enter(&model.name, tenant, self.clock.instant()) {
                return Ok(Placement { entrance, turn });
            }
            // It was closed while the call waited.
            turn.unused().await;
        }
    }

    /// Whether a call whose attempt failed could go to an endpoint that has not failed at it; after a
    /// throttle, to one that is not of the same account.
    pub(crate) fn has_another(
        &self,
        permit: &Permit,
        search: Search<'_>,
        throttled: Option<&Arc<Lane>>,
    ) -> bool {
        let (model, tenant) = (permit.model(), permit.tenant());
        let input = permit.bound().input().min(model.figures.max_input_tokens);
        let Some(until) = self.pacer.patience(search.deadline) else { return false };
        let left = until.saturating_duration_since(self.clock.instant());
        let excluded: Vec<_> = throttled.into_iter().map(Arc::clone).collect();
        let candidates = self.candidates(model, tenant, input, search);
        candidates.iter().any(|other| !other.has_failed && other.is_in_time(left, &excluded))
    }

    /// The candidate where the call can leave first. Lanes that are known to be `late` come last.
    fn best<'a>(
        &self,
        candidates: Vec<Candidate<'a>>,
        tenant: &str,
        left: Duration,
        late: &[Arc<Lane>],
    ) -> Result<Candidate<'a>, Fault> {
        /// Waits that differ by less are equal, so that loads and weights count.
        const EQUAL: Duration = Duration::from_millis(100);
        let now = self.clock.instant();
        let refused =
            candidates.iter().map(|candidate| candidate.endpoint.key_refused(tenant, now));
        let refused: Option<Vec<_>> = refused.collect();
        let shortest = candidates.iter().filter_map(|candidate| candidate.closed_for).min();
        let none = match refused.and_then(|mut faults| faults.pop()) {
            Some(account) => account,
            None => Fault::Unavailable { retry_after: shortest.unwrap_or_default() },
        };
        let open = || candidates.iter().filter(|candidate| candidate.closed_for.is_none());
        // A lane is not busier than another for having just let a call leave, however far apart its calls are;
        // nor is one of three times the weight for three calls that wait.
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
            let lane = endpoint.lane(&self.pacer, model);
            let (wait, spacing) = (lane.expected_wait(tenant, input), lane.spacing(input));
            let has_failed = search.failed.iter().any(|name| name == endpoint.name());
            let closed_for = endpoint.closed_for(&model.name, tenant, now);
            Candidate { endpoint, lane, wait, spacing, closed_for, has_failed }
        });
        candidates.collect()
    }
}
