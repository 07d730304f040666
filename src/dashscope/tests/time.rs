//! Controllable time and randomness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;
use crate::random::Random;

/// The runtime's time, so that a paused runtime pauses it too, plus the time that was skipped.
#[derive(Debug)]
pub(in crate::dashscope) struct RuntimeClock {
    start: tokio::time::Instant,
    skipped_ms: AtomicU64,
}

impl RuntimeClock {
    pub(in crate::dashscope) fn new() -> Arc<Self> {
        let start = tokio::time::Instant::now();
        Arc::new(Self { start, skipped_ms: AtomicU64::new(0) })
    }

    pub(super) fn skip(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.skipped_ms.fetch_add(millis, Ordering::Relaxed);
    }

    fn skipped(&self) -> Duration {
        Duration::from_millis(self.skipped_ms.load(Ordering::Relaxed))
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.start.elapsed() + self.skipped()
    }

    fn instant(&self) -> Instant {
        tokio::time::Instant::now().into_std() + self.skipped()
    }
}

/// Always draws the lowest value, so that no backoff takes time.
#[derive(Debug)]
pub(super) struct Lowest;

impl Random for Lowest {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}
