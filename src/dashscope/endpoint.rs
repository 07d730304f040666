//! One address with one key, and what every call to it goes through.
//!
//! A call is a loop of attempts. Before each, the [`Pacer`] makes it wait for its turn under the
//! account's rate; after each failure three questions are asked: what was billed, may it be
//! repeated, and is there time and retry budget left. DashScope documents no idempotency key, so an
//! attempt whose bill is unknown is repeated at most once, and no call is ever hedged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::attempt::{Reception, Transport};
use super::check::{self, CheckError};
use super::error::{CallError, Code, Fault};
use super::pacer::{Pacer, Turn};
use super::reply::{Debt, Reply};
use super::request::Request;
use super::retry::RetryPolicy;
use super::settings::UpstreamSettings;
use super::spending::{Progress, Stop};
use super::verdict::{Failure, Repeat};
use super::{ClientError, uploads};
use crate::admission::Permit;
use crate::clock::Clock;
use crate::random::Random;
use crate::telemetry::metrics::Metrics;

/// One address with one key.
#[derive(Debug)]
pub(super) struct Endpoint {
    name: String,
    transport: Transport,
    pacer: Pacer,
    retry: RetryPolicy,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    /// Whether the last word on the account was bad, so that only changes are reported.
    account_refused: AtomicBool,
}

impl Endpoint {
    pub(super) fn new(
        settings: &UpstreamSettings,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ClientError> {
        settings.check()?;
        Ok(Self {
            name: settings.name.clone(),
            transport: Transport::new(settings, &settings.pool()[0], Arc::clone(&clock))?,
            pacer: Pacer::new(settings, Arc::clone(&clock)),
            retry: RetryPolicy::new(settings, Arc::clone(&clock), random),
            metrics,
            clock,
            account_refused: AtomicBool::new(false),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn check(&self) -> Result<(), CheckError> {
        check::check(&self.transport).await
    }

    pub(super) async fn upload_policy(
        &self,
        model: &str,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let left = deadline.saturating_duration_since(self.clock.instant());
        let policy = uploads::policy(&self.transport, model, left).await;
        policy.inspect_err(|error| self.report(model, error))
    }

    /// Makes the call that `request` is until a reply begins that can be used.
    pub(super) async fn call(
        self: &Arc<Self>,
        permit: Permit,
        request: &Request,
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        let model = permit.model().name.clone();
        let mut progress = Progress::default();
        match self.run(permit, request, deadline, &mut progress).await {
            Ok((permit, turn, reception)) => {
                let debt = Debt { endpoint: Arc::clone(self), permit, turn, progress };
                Ok(Reply { debt, reception })
            }
            Err(stop) => Err(self.give_up(&model, &progress, stop)),
        }
    }

    async fn run(
        &self,
        mut permit: Permit,
        request: &Request,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<(Permit, Turn, Reception), Stop> {
        self.retry.deposit();
        loop {
            let turn = self.pacer.turn(permit.model(), permit.bound().input(), deadline).await?;
            let failure = match self.attempt(&mut permit, request, deadline, progress).await {
                Ok(reception) => return Ok((permit, turn, reception)),
                Err(failure) => failure,
            };
            self.hold_back(&permit, &failure);
            let Some(pause) = self.pause(&failure, deadline, progress) else {
                return Err(progress.close(permit, &turn, failure).await);
            };
            permit = progress.carry_over(permit, &turn, &failure).await?;
            self.metrics.upstream_retry(failure.fault.label());
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        permit: &mut Permit,
        request: &Request,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<Reception, Failure> {
        let started = self.clock.instant();
        let left = deadline.saturating_duration_since(started);
        if left.is_zero() {
            return Err(Failure::unsent(Fault::DeadlineExceeded));
        }
        progress.attempts += 1;
        progress.began = Some(started);
        let bound = *permit.bound();
        permit.mark_sent();
        let result = self.transport.exchange(request, left, &bound).await;
        match &result {
            // How a stream ends is not known yet.
            Ok(Reception::Events(_)) => {}
            Ok(_) => self.ended(permit, progress, "ok"),
            Err(failure) => self.ended(permit, progress, failure.fault.label()),
        }
        result
    }

    /// Counts the end of an attempt.
    pub(super) fn ended(&self, permit: &Permit, progress: &mut Progress, outcome: &'static str) {
        let Some(began) = progress.began.take() else { return };
        let took = self.clock.instant().saturating_duration_since(began);
        progress.upstream_time += took;
        self.metrics.upstream_attempt(&self.name, outcome, took);
        tracing::debug!(
            endpoint = self.name,
            model = permit.model().name,
            attempt = progress.attempts,
            outcome,
            // A u128 would be logged as a string.
            took.ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "the upstream was asked"
        );
    }

    /// Notes that the account is taken, which is news after it was refused.
    pub(super) fn account_taken(&self) {
        if self.account_refused.swap(false, Ordering::Relaxed) {
            tracing::info!(endpoint = self.name, "the upstream takes the account again");
        }
    }

    /// Ends a call that failed, with the log line of it.
    pub(super) fn give_up(&self, model: &str, progress: &Progress, stop: Stop) -> CallError {
        let error = progress.error(stop);
        self.report(model, &error);
        error
    }

    /// A `Retry-After` speaks of the account, so it binds every call of the model, not just this
    /// one.
    fn hold_back(&self, permit: &Permit, failure: &Failure) {
        if let (Some(wait), true) = (failure.retry_after, failure.repeat != Repeat::Never) {
            self.pacer.hold(permit.model(), wait);
        }
    }

    /// How long to wait before the next attempt; none where there shall not be one.
    fn pause(
        &self,
        failure: &Failure,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Option<Duration> {
        let careful = failure.is_careful();
        if careful && progress.careful_retries > 0 {
            return None;
        }
        let pause = self.retry.pause(failure, progress.attempts, deadline)?;
        progress.careful_retries += u32::from(careful);
        Some(pause)
    }

    /// Writes the one log line of a failed call; a refused account is an alarm, but only when it
    /// starts.
    fn report(&self, model: &str, error: &CallError) {
        let endpoint = self.name.as_str();
        let request_id = error.request_id.as_ref().map(Code::as_str);
        let code = error.fault.code().map(Code::as_str);
        if matches!(error.fault, Fault::Account { .. })
            && !self.account_refused.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                endpoint,
                upstream.code = code,
                "the upstream refuses the account: check its key, its rights and its bills"
            );
        }
        if error.fault.is_ours() {
            tracing::debug!(endpoint, model, outcome = error.fault.label(), "a call was not made");
            return;
        }
        tracing::warn!(
            endpoint,
            model,
            outcome = error.fault.label(),
            upstream.status = error.fault.status(),
            upstream.code = code,
            upstream.request_id = request_id,
            attempts = error.attempts,
            "a call to the upstream failed"
        );
    }
}
