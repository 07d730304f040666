//! The attempts and waits of a call so far.

use std::time::{Duration, Instant};

/// The attempts and waits of a call so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) attempts: u32,
    /// Retries after failures that may be repeated only once.
    pub(crate) careful_retries: u32,
    /// Time spent waiting for the upstream.
    pub(crate) upstream_time: Duration,
    /// Time spent waiting to be sent.
    pub(crate) queue_time: Duration,
    /// The time since which the call waits to be sent; `None` while it does not.
    pub(crate) queued: Option<Instant>,
    /// The start of the current attempt.
    pub(crate) began: Option<Instant>,
    /// The endpoint of the latest attempt.
    pub(crate) endpoint: Option<String>,
}

impl Progress {
    /// Records the start of an attempt at `endpoint`.
    pub(crate) fn begin(&mut self, endpoint: &str, now: Instant) {
        self.leave_queue(now);
        self.attempts += 1;
        self.began = Some(now);
        self.endpoint = Some(endpoint.to_owned());
    }

    /// Records that the call no longer waits to be sent.
    pub(crate) fn leave_queue(&mut self, now: Instant) {
        if let Some(since) = self.queued.take() {
            self.queue_time += now.saturating_duration_since(since);
        }
    }
}
