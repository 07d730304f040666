//! The readings of the machine's clock that a server needs.
//!
//! Kept in one place because the lint that guards the gateway against hidden time guards this crate
//! too. What decides by time (the throttle) takes it as an argument; what only reports it asks here.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, as the vendor's `req-arrive-time` header counts them.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub(crate) fn unix_millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

/// Seconds since 1970, as answers of the compatible protocol count them.
pub(crate) fn unix_seconds() -> u64 {
    u64::try_from(unix_millis() / 1000).unwrap_or(0)
}
