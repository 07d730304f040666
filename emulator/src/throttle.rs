//! The vendor's rate limits: requests and tokens a minute, enforced by the second.
//!
//! The page "Rate limits" says that a limit of N a minute may be enforced as N/60 a second, so both windows are
//! counted. The tokens of a call are known only when it has ended. A call is admitted while its windows are not full
//! and its tokens are added afterwards, which lets one large call exceed a window. Limits apply to each key here; the
//! vendor sums them over the keys of an account.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::Refusal;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// The maximum number of keys counted separately; beyond it the counts restart.
const MOST_KEYS: usize = 10_000;

/// Counts calls and tokens by key.
#[derive(Debug)]
pub(crate) struct Throttle {
    rpm: Option<u64>,
    tpm: Option<u64>,
    keys: HashMap<String, Counts>,
}

#[derive(Debug)]
struct Counts {
    requests: [Window; 2],
    tokens: [Window; 2],
}

/// A count that restarts when its window is over.
#[derive(Debug)]
struct Window {
    length: Duration,
    since: Instant,
    count: u64,
}

impl Throttle {
    /// A throttle for so many requests and tokens a minute.
    pub(crate) fn new(rpm: Option<u64>, tpm: Option<u64>) -> Self {
        Self { rpm, tpm, keys: HashMap::new() }
    }

    /// Counts one request.
    ///
    /// # Errors
    ///
    /// The refusal of a call that exceeds a limit.
    pub(crate) fn admit(&mut self, key: &str, now: Instant) -> Result<(), Refusal> {
        let (rpm, tpm) = (self.rpm, self.tpm);
        let counts = self.counts(key, now);
        if rpm.is_some_and(|rpm| full(&mut counts.requests, rpm, now)) {
            return Err(Refusal::of_code("Throttling.RateQuota"));
        }
        if tpm.is_some_and(|tpm| full(&mut counts.tokens, tpm, now)) {
            return Err(Refusal::of_code("Throttling.AllocationQuota"));
        }
        add(&mut counts.requests, 1, now);
        Ok(())
    }

    /// Counts the tokens of a call that has ended.
    pub(crate) fn spend(&mut self, key: &str, tokens: u64, now: Instant) {
        add(&mut self.counts(key, now).tokens, tokens, now);
    }

    fn counts(&mut self, key: &str, now: Instant) -> &mut Counts {
        if self.keys.len() >= MOST_KEYS && !self.keys.contains_key(key) {
            self.keys.clear();
        }
        let windows = || [SECOND, MINUTE].map(|length| Window { length, since: now, count: 0 });
        let fresh = || Counts { requests: windows(), tokens: windows() };
        self.keys.entry(key.to_owned()).or_insert_with(fresh)
    }
}

/// Whether the window of the second or of the minute is full, given a limit a minute.
fn full(windows: &mut [Window; 2], per_minute: u64, now: Instant) -> bool {
    let [second, minute] = windows;
    second.at(now) >= per_minute.div_ceil(60) || minute.at(now) >= per_minute
}

fn add(windows: &mut [Window; 2], count: u64, now: Instant) {
    for window in windows {
        window.count = window.at(now).saturating_add(count);
    }
}

impl Window {
    /// The count of the window that `now` falls into.
    fn at(&mut self, now: Instant) -> u64 {
        if now.duration_since(self.since) >= self.length {
            self.since = now;
            self.count = 0;
        }
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(throttle: &mut Throttle, times: usize, now: Instant) -> Vec<bool> {
        (0..times).map(|_| throttle.admit("key", now).is_ok()).collect()
    }

    #[test]
    fn requests_are_limited_by_the_second_and_by_the_minute() {
        let mut throttle = Throttle::new(Some(90), None);
        let start = crate::clock::instant();
        assert_eq!(codes(&mut throttle, 3, start), [true, true, false]);
        assert_eq!(codes(&mut throttle, 1, start + SECOND), [true]);
        let all: usize = (2..60)
            .map(|second| codes(&mut throttle, 2, start + SECOND * second))
            .map(|admitted| admitted.into_iter().filter(|ok| *ok).count())
            .sum();
        assert_eq!(all, 90 - 3);
    }

    #[test]
    fn tokens_spent_close_the_window_for_the_next_call() {
        let mut throttle = Throttle::new(None, Some(6_000));
        let start = crate::clock::instant();
        throttle.spend("key", 100, start);
        let refusal = throttle.admit("key", start).unwrap_err();
        assert_eq!(refusal.compatible_code(), "insufficient_quota");
        assert!(throttle.admit("other key", start).is_ok());
        assert!(throttle.admit("key", start + SECOND).is_ok());
    }
}
