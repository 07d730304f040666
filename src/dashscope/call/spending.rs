//! What the end of an attempt means for the permit.
//!
//! The rules of docs/adr/0001-permit.md in one place. A failure whose bill is known is settled. One
//! that surely cost nothing leaves the permit as good as new. One whose bill is unknown writes the
//! permit off at its bound; if the call goes on, it does so on a second permit, so that both bills
//! are covered should both arrive.

use std::time::{Duration, Instant};

use crate::admission::Permit;
use crate::dashscope::fault::error::{CallError, Code, Fault, Verbatim};
use crate::dashscope::fault::verdict::{Bill, Failure};
use crate::dashscope::pace::queue::Turn;

/// What a call has been through so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) attempts: u32,
    /// Retries after failures that may be repeated only once.
    pub(crate) careful_retries: u32,
    /// Time spent waiting for the upstream.
    pub(crate) upstream_time: Duration,
    /// Time spent waiting to be sent.
    pub(crate) queue_time: Duration,
    /// Since when it waits to be sent.
    pub(crate) queued: Option<Instant>,
    /// When the attempt under way began.
    pub(crate) began: Option<Instant>,
    /// The endpoint that was asked last.
    pub(crate) endpoint: Option<String>,
}

/// Why a call ends without a completion.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) fault: Fault,
    pub(crate) request_id: Option<Code>,
    /// The upstream's own words, where a caller may see them.
    pub(crate) verbatim: Option<Box<Verbatim>>,
}

impl Stop {
    /// The stop that `failure` would be.
    pub(crate) fn of(failure: Failure) -> Self {
        let Failure { fault, request_id, verbatim, .. } = failure;
        Self { request_id, verbatim, ..fault.into() }
    }
}

impl Stop {
    /// The stop of a call that found no place after it had failed as `last` says, which tells more; when it
    /// makes sense again, the later tells.
    pub(crate) fn after(last: Option<Self>, fault: Fault) -> Self {
        let Some(mut stop) = last else { return fault.into() };
        if let Fault::Throttled { retry_after, .. } = &mut stop.fault {
            *retry_after = (*retry_after).max(fault.retry_after().unwrap_or_default());
        }
        stop
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self { fault, request_id: None, verbatim: None }
    }
}

impl Progress {
    /// Notes that `endpoint` is about to be asked.
    pub(crate) fn begin(&mut self, endpoint: &str, now: Instant) {
        self.leave_queue(now);
        self.attempts += 1;
        self.began = Some(now);
        self.endpoint = Some(endpoint.to_owned());
    }

    /// Notes that the call no longer waits to be sent.
    pub(crate) fn leave_queue(&mut self, now: Instant) {
        if let Some(since) = self.queued.take() {
            self.queue_time += now.saturating_duration_since(since);
        }
    }

    /// The error of a call that went this way and stopped so.
    pub(crate) fn error(&self, stop: Stop) -> CallError {
        CallError {
            fault: stop.fault,
            attempts: self.attempts,
            request_id: stop.request_id,
            verbatim: stop.verbatim,
        }
    }
}

/// Ends the permit of a call that failed for good.
pub(crate) async fn close(permit: Permit, turn: &Turn, failure: Failure) -> Stop {
    let bill = failure.bill;
    let stop = Stop::of(failure);
    match bill {
        Bill::Nothing => {
            turn.unbilled().await;
            permit.release();
        }
        Bill::Unknown => {
            permit.write_off().await;
        }
        Bill::Known(billed) => {
            let request_id = stop.request_id.as_ref().map(ToString::to_string);
            // On its way to the ledger before anything else is waited for.
            let rated = permit.model().rated(&permit.counted(&billed));
            let settling = permit.settle(billed, request_id);
            turn.billed(rated).await;
            settling.await;
        }
    }
    stop
}

/// The permit for the attempt after `failure`.
///
/// # Errors
///
/// When the tenant's limits have no room for a second permit beside the one written off.
pub(crate) async fn carry_over(
    mut permit: Permit,
    turn: &Turn,
    failure: &Failure,
) -> Result<Permit, Stop> {
    if failure.bill == Bill::Nothing {
        turn.unbilled().await;
        permit.mark_unbilled();
        return Ok(permit);
    }
    permit.renew().await.map_err(|refusal| Stop {
        request_id: failure.request_id.clone(),
        ..Fault::Refused(Box::new(refusal)).into()
    })
}
