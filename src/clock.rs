//! What time it is, as an argument.
//!
//! Nothing else in the crate reads the machine's clock (`clippy.toml` refuses it) but tokio's timers, which
//! a test can pause, so a test decides what time it is and never sleeps. Two readings are kept apart because they fail differently: wall
//! time may jump when an administrator or NTP sets it, monotonic time may not.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// A source of time.
pub trait Clock: std::fmt::Debug + Send + Sync {
    /// Wall time: for expiry dates and for what a person reads. May jump.
    fn now(&self) -> SystemTime;

    /// Monotonic time: for durations, limits and deadlines. Never goes back.
    fn instant(&self) -> Instant;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    start: (SystemTime, Instant),
    elapsed: Mutex<Duration>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: SystemTime) -> Self {
        Self { start: (now, SystemClock.instant()), elapsed: Mutex::new(Duration::ZERO) }
    }

    /// Moves both readings forward.
    pub fn advance(&self, by: Duration) {
        let mut elapsed = self.elapsed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *elapsed += by;
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.start.0 + self.elapsed()
    }

    fn instant(&self) -> Instant {
        self.start.1 + self.elapsed()
    }
}
