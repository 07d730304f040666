//! The loop of attempts that every call runs through.
//!
//! Before each attempt, the [`Pool`] finds an endpoint and waits for a slot there. After each failure the loop
//! determines the cause, the bill, whether the call may be repeated at this or another endpoint, and whether time and
//! retry budget are left. DashScope documents no idempotency key, so an attempt whose bill is unknown is repeated at
//! most once, and no call is hedged. Once an answer begins, nothing is repeated: the caller may have seen it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::progress::Progress;
use super::record::{Recorder, give_up};
use super::reply::UpstreamReply;
use super::retry::RetryPolicy;
use super::settle::{self, UnsettledCall};
use crate::admission::tab::{Tab, Wait};
use crate::admission::{self, LEAST_TIME_FOR_AN_ATTEMPT, Permit};
use crate::capacity::account::{ByteAccount, NoRoom};
use crate::clock::Clock;
use crate::dashscope::fault::error::{CallError, CallFault};
use crate::dashscope::fault::verdict::{AttemptBill, Failure};
use crate::dashscope::pool::{Placement, Pool, Search};
use crate::dashscope::settings::UpstreamSettings;
use crate::dashscope::wire::memory::{AnswerPool, AnswerRoom};
use crate::dashscope::wire::request::UpstreamRequest;
use crate::dashscope::wire::transport::{ClientError, Reception};
use crate::random::Random;
use crate::redis::cells::SharedCells;
use crate::telemetry::metrics::Metrics;
use crate::units::Tokens;

/// How much longer a call waits for a slot after its caller may have left.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// Makes calls.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pool: Pool,
    memory: AnswerPool,
    retry: RetryPolicy,
    recorder: Arc<Recorder>,
    clock: Arc<dyn Clock>,
}

/// The state that all attempts of a call share.
#[derive(Clone, Copy)]
struct AttemptContext<'a> {
    request: &'a UpstreamRequest,
    room: &'a Arc<AnswerRoom>,
    /// The time at which the caller stops waiting.
    deadline: Instant,
}

impl Dispatcher {
    pub(crate) fn new(
        settings: &UpstreamSettings,
        shared: Option<Arc<dyn SharedCells>>,
        memory: Arc<ByteAccount>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ClientError> {
        let memory = AnswerPool::new(memory, settings.max_response_bytes);
        Ok(Self {
            pool: Pool::new(settings, shared, &memory, &metrics, Arc::clone(&clock))?,
            memory,
            retry: RetryPolicy::new(settings, Arc::clone(&clock), random),
            recorder: Arc::new(Recorder { metrics, clock: Arc::clone(&clock) }),
            clock,
        })
    }

    /// Room for an answer of at most `written` tokens.
    pub(crate) async fn room_for(&self, written: Tokens) -> Result<Arc<AnswerRoom>, NoRoom> {
        self.memory.room_for(written).await
    }

    pub(crate) const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Makes attempts until a usable reply begins.
    pub(crate) async fn call(
        &self,
        permit: Permit,
        request: &UpstreamRequest,
        deadline: Instant,
    ) -> Result<UpstreamReply, CallError> {
        let (model, tab) = (permit.model().name.clone(), permit.tab().clone());
        let mut progress = Progress::default();
        let ran = self.run(permit, request, deadline, &mut progress).await;
        if ran.is_err() {
            let now = self.clock.instant();
            progress.leave_queue(now);
            tab.waits_for(None, now);
        }
        self.recorder.metrics.upstream_queue(&model, progress.queue_time);
        match ran {
            Ok((permit, placement, reception)) => {
                let recorder = Arc::clone(&self.recorder);
                let call = UnsettledCall { recorder, permit, placement, progress };
                Ok(UpstreamReply { call, reception })
            }
            Err(error) => Err(give_up(&model, &progress, error)),
        }
    }

    async fn run(
        &self,
        mut permit: Permit,
        request: &UpstreamRequest,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(Permit, Placement, Reception), CallError> {
        let mut failed = Vec::new();
        let mut last: Option<CallError> = None;
        // Room is taken before anything is sent: an answer that was paid for must not be lost for lack of memory.
        let room = match &request.room {
            Some(room) => Arc::clone(room),
            None => self.room_for(permit.bound().output).await.map_err(CallFault::NoRoom)?,
        };
        self.retry.deposit();
        self.queue(permit.tab(), progress);
        loop {
            let first_only = request.resolves_oss;
            let search = Search { failed: &failed, first_only, deadline };
            let mut placement = match self.place(&permit, search).await {
                Ok(placement) => placement,
                // The upstream's last answer is a better explanation than "no endpoint is left".
                Err(fault) => return Err(CallError::after(last, fault)),
            };
            if let Err(refusal) = permit.check_key().await {
                placement.slot.unused().await;
                return Err(CallFault::Refused(Box::new(refusal)).into());
            }
            if admission::latest_start(deadline, self.clock.instant()).is_none() {
                placement.slot.unused().await;
                return Err(CallError::after(last, CallFault::DeadlineExceeded));
            }
            let context = AttemptContext { request, room: &room, deadline };
            let attempt = self.attempt(&mut permit, &mut placement, context, progress);
            let failure = match attempt.await {
                Ok(reception) => return Ok((permit, placement, reception)),
                Err(failure) => failure,
            };
            if let Some(id) = &failure.request_id {
                permit.tab().answered(id.as_str());
            }
            self.recorder.learn(&mut placement, &failure).await;
            failed.push(placement.entrance.endpoint().name().to_owned());
            let search = Search { failed: &failed, first_only, deadline };
            let is_throttled = matches!(failure.fault, CallFault::Throttled { .. });
            let throttled = is_throttled.then(|| placement.slot.queue());
            let elsewhere = self.pool.has_another(&permit, search, throttled);
            let may_repeat = failure.bill != AttemptBill::Unknown || permit.repeats_unknown_bills();
            let pause = || self.pause(&failure, deadline, elsewhere, progress);
            let Some(pause) = may_repeat.then(pause).flatten() else {
                return Err(settle::close(permit, &placement.slot, failure).await);
            };
            let Placement { entrance, slot } = placement;
            drop(entrance);
            permit = settle::carry_over(permit, &slot, &failure).await?;
            self.recorder.metrics.upstream_retry(failure.fault.label());
            let failed = CallError::from(failure);
            self.queue(permit.tab(), progress);
            if permit.presence().bears(tokio::time::sleep(pause)).await.is_none() {
                return Err(failed);
            }
            last = Some(failed);
        }
    }

    /// Marks the call as waiting to be sent from now on.
    fn queue(&self, tab: &Tab, progress: &mut Progress) {
        let now = self.clock.instant();
        progress.queued = Some(now);
        tab.waits_for(Some(Wait::Turn), now);
    }

    /// Finds an endpoint and a slot for the call while its caller is there.
    async fn place(&self, permit: &Permit, search: Search<'_>) -> Result<Placement, CallFault> {
        let presence = permit.presence();
        if let Some(placed) = presence.bears(self.pool.place(permit, search)).await {
            return placed;
        }
        if presence.has_left() {
            return Err(CallFault::Abandoned);
        }
        // The caller may still be there: it gets the reason for its wait, or is served if a slot is free.
        let soon = self.clock.instant() + LEAST_TIME_FOR_AN_ATTEMPT + LAST_LOOK;
        self.pool.place(permit, Search { deadline: search.deadline.min(soon), ..search }).await
    }

    async fn attempt(
        &self,
        permit: &mut Permit,
        placement: &mut Placement,
        AttemptContext { request, room, deadline }: AttemptContext<'_>,
        progress: &mut Progress,
    ) -> Result<Reception, Failure> {
        let started = self.clock.instant();
        let left = deadline.saturating_duration_since(started);
        let endpoint = placement.entrance.endpoint();
        progress.begin(endpoint.name(), started);
        let bound = *permit.bound();
        permit.place_at(endpoint.name(), endpoint.region());
        permit.tab().waits_for(Some(Wait::Upstream), started);
        permit.mark_sent();
        let result = endpoint.transport().exchange(request, left, &bound, room).await;
        match &result {
            // The end of a stream is not known yet.
            Ok(Reception::Events(_)) => placement.entrance.began(),
            Ok(_) => {
                placement.entrance.succeeded();
                self.recorder.ended(permit, progress, "ok");
            }
            Err(failure) => self.recorder.ended(permit, progress, failure.fault.label()),
        }
        result
    }

    /// The wait before the next attempt; `None` if there must not be one.
    fn pause(
        &self,
        failure: &Failure,
        deadline: Instant,
        elsewhere: bool,
        progress: &mut Progress,
    ) -> Option<Duration> {
        let careful = failure.is_careful();
        if careful && progress.careful_retries > 0 {
            return None;
        }
        let pause = self.retry.pause(failure, progress.attempts, deadline, elsewhere)?;
        progress.careful_retries += u32::from(careful);
        Some(pause)
    }
}
