//! The readings of the machine's clock that a server needs.
//!
//! They are in one place because the lint against hidden time in the gateway applies to this crate too. Code that
//! decides by time (the throttle) takes it as an argument; code that only reports it calls this module.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, the unit of the vendor's `req-arrive-time` header.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub(crate) fn unix_millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

/// Seconds since 1970, the unit of answers of the compatible protocol.
pub(crate) fn unix_seconds() -> u64 {
    u64::try_from(unix_millis() / 1000).unwrap_or(0)
}
