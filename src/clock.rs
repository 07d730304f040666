//! The time, passed as an argument.
//!
//! Only this module and tokio's timers, which a test can pause, read the machine's clock (`clippy.toml` refuses other
//! uses). So a test sets the time and never sleeps. Wall time may jump when an administrator or NTP sets it, and
//! monotonic time may not, so the two are kept apart.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

/// A source of time.
pub trait Clock: std::fmt::Debug + Send + Sync {
    /// Wall time: for expiry dates and for people. May jump.
    fn now(&self) -> SystemTime;

    /// Monotonic time: for durations, limits and deadlines. Never goes back.
    fn instant(&self) -> Instant;

    /// Wall time in whole milliseconds, as it is stored.
    ///
    /// A clock after the year 9999 reads as the last moment of the calendar. Every key with a date has expired then,
    /// which is the safe error.
    fn timestamp(&self) -> Timestamp {
        Timestamp::try_from(self.now())
            .and_then(|now| Timestamp::from_millisecond(now.as_millisecond()))
            .unwrap_or(Timestamp::MAX)
    }
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

/// A clock that changes only when a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    reading: Mutex<ClockReading>,
}

#[derive(Debug, Clone, Copy)]
struct ClockReading {
    wall: SystemTime,
    elapsed: Duration,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: SystemTime) -> Self {
        let reading = ClockReading { wall: now, elapsed: Duration::ZERO };
        Self { start: SystemClock.instant(), reading: Mutex::new(reading) }
    }

    /// Moves both readings forward.
    pub fn advance(&self, by: Duration) {
        let mut reading = self.reading();
        reading.wall += by;
        reading.elapsed += by;
    }

    /// Sets the wall time, forward or back, as an administrator or NTP would.
    pub fn set(&self, now: SystemTime) {
        self.reading().wall = now;
    }

    fn reading(&self) -> MutexGuard<'_, ClockReading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.reading().wall
    }

    fn instant(&self) -> Instant {
        self.start + self.reading().elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_cut_to_the_milliseconds_that_the_stores_hold() {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_999_999));
        assert_eq!(clock.timestamp(), Timestamp::from_millisecond(1).unwrap());
    }

    #[test]
    fn setting_the_wall_time_does_not_move_the_monotonic_one() {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_hours(2));
        let before = clock.instant();
        clock.set(SystemTime::UNIX_EPOCH);
        assert_eq!((clock.now(), clock.instant()), (SystemTime::UNIX_EPOCH, before));
    }
}
