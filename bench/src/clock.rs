//! A clock that two processes of one machine share.
//!
//! An event carries the time at which the upstream sent it. The receiver, in another process,
//! computes the delay from it. The standard library's instants cannot be sent.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since a fixed moment before the measurement.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // The monotonic clock is never negative.
    let (seconds, nanoseconds) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1_000_000_000 + nanoseconds
}
