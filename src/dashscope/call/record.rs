//! Records the end of an attempt or of a call: in the metrics, in the log, and in the state that later calls use.

use std::sync::Arc;

use super::progress::Progress;
use crate::admission::Permit;
use crate::clock::Clock;
use crate::dashscope::fault::error::{CallError, CallFault, Code};
use crate::dashscope::fault::health;
use crate::dashscope::fault::verdict::Failure;
use crate::dashscope::pool::Placement;
use crate::telemetry::metrics::{Counted, Metrics};

/// Records how attempts end.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Recorder {
    /// Counts the end of an attempt.
    pub(crate) fn ended(&self, permit: &Permit, progress: &mut Progress, outcome: &'static str) {
        let Some(began) = progress.began.take() else { return };
        let now = self.clock.instant();
        let took = now.saturating_duration_since(began);
        permit.tab().waits_for(None, now);
        progress.upstream_time += took;
        let endpoint = progress.endpoint.as_deref().unwrap_or_default();
        self.metrics.upstream_attempt(endpoint, outcome, took);
        tracing::debug!(
            endpoint,
            model = permit.model().name,
            attempt = progress.attempts,
            outcome,
            // A u128 would be logged as a string.
            took.ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "the upstream was asked"
        );
    }

    /// Counts a stream as open until the returned value is dropped.
    pub(crate) fn stream(&self) -> Counted {
        self.metrics.stream()
    }

    /// Updates the account's rate and the endpoint's state, so that later calls take the failure into account.
    pub(crate) async fn learn(&self, placement: &mut Placement, failure: &Failure) {
        let Placement { entrance, slot } = placement;
        if entrance.failed(failure, self.clock.instant()) {
            // Calls that wait for the endpoint choose again.
            slot.queue().send_away();
        }
        let is_throttled = matches!(failure.fault, CallFault::Throttled { .. });
        let quota = is_throttled.then(|| health::quota(failure)).flatten();
        // The `Retry-After` of a throttle is about the account, so it binds every call of the model. The one of another
        // failure may be due to the request, so it binds only the tenant (`gate`).
        let wait = failure.retry_after.filter(|_| is_throttled);
        if quota.is_some() || wait.is_some() {
            slot.throttled(quota, wait).await;
        }
    }
}

/// Ends a failed call: counts its attempts in `error` and writes its log line.
pub(crate) fn give_up(model: &str, progress: &Progress, error: CallError) -> CallError {
    let error = CallError { attempts: progress.attempts, ..error };
    report(progress.endpoint.as_deref(), model, &error);
    error
}

/// Writes the single log line of a failed call.
fn report(endpoint: Option<&str>, model: &str, error: &CallError) {
    if error.attempts == 0 {
        tracing::debug!(endpoint, model, outcome = error.fault.label(), "a call was not made");
        return;
    }
    tracing::warn!(
        endpoint,
        model,
        outcome = error.fault.label(),
        upstream.status = error.fault.status(),
        upstream.code = error.fault.code().map(Code::as_str),
        upstream.request_id = error.request_id.as_ref().map(Code::as_str),
        attempts = error.attempts,
        "a call to the upstream failed"
    );
}
