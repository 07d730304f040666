//! The rate at which one model's calls may leave for one account: the configured limits, and the rate learnt from
//! throttles.
//!
//! DashScope limits requests and tokens a minute of an account, may enforce both by the second, throttles a sudden rise
//! even below them, and lowers them before a model is retired (Model Studio, "Rate limits", "Model retirement"). So the
//! configured limits are the highest rate, not the first one:
//!
//! - The rate *starts* at a quarter of the limit and *rises* to it within seconds, but only while calls wait: a rate
//!   that nobody uses proves nothing. After a rest it starts again (RFC 5681, section 4.1, does so for connections).
//! - A *throttle* shows the real quota. The rate drops just below what passed in the second before, stays there, and
//!   rises slowly after some patience. Each time it meets the same ceiling again, the patience doubles (additive
//!   increase, multiplicative decrease, with the plateau of RFC 9438). So an unknown quota costs a throttle now and
//!   then, and one that was raised is found.
//! - A `Retry-After` lets no call leave before its end. A later end replaces an earlier one, never the other way round.
//!
//! Calls leave one by one, spaced by the amount that they take: a limit enforced by the second throttles a burst of one
//! second's worth. Some may leave together only while the rate is far below its limit.
//!
//! All of this is arithmetic over times that are passed in, so it is the same in this process and in a store that
//! replicas share. `docs/adr/0021-own-code.md` names the promise that each part keeps.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dashscope::fault::health::Quota;
use crate::rate_limit::gcra::{Bucket, Rate};

/// The rate a minute below which a slow start has no benefit.
const LEAST_START: u64 = 60;

/// How long calls must have waited until the rate has risen from its start to its limit.
const RISE: Duration = Duration::from_secs(5);

/// After this time without a call the rate starts again.
const REST: Duration = Duration::from_mins(1);

/// A call that leaves late, because a timer or a processor was late, counts as if it had left in time, up to this
/// much. Otherwise the rate would drift below what is allowed.
const LATENESS: Duration = Duration::from_millis(20);

/// How long the rate stays at a ceiling before it rises: at first, and at most.
const PATIENCE: Duration = Duration::from_secs(15);
const MOST_PATIENCE: Duration = Duration::from_mins(4);

/// After a rest, a ceiling older than this is forgotten.
const CEILING_LIFETIME: Duration = Duration::from_mins(10);

/// A throttle within so much busy time of the last one means that the ceiling was too high.
const SOON: Duration = Duration::from_secs(5);

/// The most that calls can owe; any excess is forgiven. It takes effect if limits are so low that a few calls take
/// hours, and it bounds the effect of a faulty bill.
const MOST_DEBT: Duration = Duration::from_mins(30);

/// The rate never falls below this part of its limit. Otherwise throttles that occur at any rate would stop it.
const LEAST_PART: u64 = 20;

/// By how many thousandths a ceiling that was too high is lowered the first time; each further time by as many more.
const STEP: u64 = 50;

/// Thousandths of the ceiling: right after a throttle, and where the rate settles.
const AFTER_THROTTLE: u64 = 950;
const PLATEAU: u64 = 980;

/// The account's limits, a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimits {
    pub(crate) requests: NonZeroU64,
    pub(crate) tokens: NonZeroU64,
}

impl RateLimits {
    /// These limits; a zero counts as one.
    pub(crate) fn per_minute(requests: u64, tokens: u64) -> Self {
        Self { requests: at_least_one(requests), tokens: at_least_one(tokens) }
    }
}

/// The amounts that waiting calls will take: their number and their tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
}

/// The learnt rates of one model's calls for one account. All times count from one origin.
///
/// Replicas share it as JSON, so the names of its fields are part of the stored format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RateController {
    requests: LearntRate,
    tokens: LearntRate,
    /// When the last `Retry-After` ends.
    held_until: Duration,
    /// When the last call left.
    used_at: Duration,
    /// Whether the last call that waited for a rate waited for tokens alone.
    tokens_bind: bool,
}

impl RateController {
    /// Lets a call leave that has waited since `since` and takes `tokens`.
    ///
    /// # Errors
    ///
    /// The time that the call must still wait; nothing is taken then.
    pub(crate) fn take(
        &mut self,
        limits: RateLimits,
        now: Duration,
        since: Duration,
        tokens: u64,
    ) -> Result<(), Duration> {
        let wait = self.wait(limits, now, tokens);
        if !wait.is_zero() {
            return Err(wait);
        }
        if now.saturating_sub(self.used_at) > REST {
            self.requests.rest(now);
            self.tokens.rest(now);
        }
        // Calls that waited for the end of a `Retry-After` did not wait for the rate.
        let idle_since = self.used_at.max(self.held_until.min(now));
        let by_requests = self.requests.take(limits.requests, now, since, idle_since, 1);
        let by_tokens = self.tokens.take(limits.tokens, now, since, idle_since, tokens);
        if by_requests || by_tokens {
            self.tokens_bind = by_tokens && !by_requests;
        }
        self.used_at = now;
        Ok(())
    }

    /// The least time until a call that takes `tokens` could leave if it were next.
    pub(crate) fn wait(&self, limits: RateLimits, now: Duration, tokens: u64) -> Duration {
        self.wait_behind(limits, now, Work::default(), tokens)
    }

    /// The least time until a call that takes `tokens` could leave after this work. A rate that still rises counts as
    /// risen: it will rise while they wait.
    pub(crate) fn wait_behind(
        &self,
        limits: RateLimits,
        now: Duration,
        before: Work,
        tokens: u64,
    ) -> Duration {
        let held = self.held_until.saturating_sub(now);
        let from = now.max(self.held_until);
        let for_requests = self.requests.wait(limits.requests, from, before.requests, 1);
        let for_tokens = self.tokens.wait(limits.tokens, from, before.tokens, tokens);
        held.saturating_add(for_requests.max(for_tokens))
    }

    /// The delay of the next call caused by one that takes `tokens`.
    pub(crate) fn cost(&self, limits: RateLimits, tokens: u64) -> Duration {
        let requests = self.requests.time_of(limits.requests, 1);
        requests.max(self.tokens.time_of(limits.tokens, tokens))
    }

    /// Lets no call leave before `end`.
    pub(crate) fn hold(&mut self, end: Duration) {
        self.held_until = self.held_until.max(end);
    }

    /// When the last `Retry-After` ends.
    pub(crate) const fn held_until(&self) -> Duration {
        self.held_until
    }

    /// Learns from a throttle of a call that left at `sent`.
    pub(crate) fn throttled(
        &mut self,
        limits: RateLimits,
        now: Duration,
        sent: Duration,
        quota: Quota,
    ) {
        let tokens = match quota {
            Quota::Requests => false,
            Quota::Tokens => true,
            Quota::Unknown => self.tokens_bind,
        };
        if tokens {
            self.tokens.throttled(limits.tokens, now, sent);
        } else {
            self.requests.throttled(limits.requests, now, sent);
        }
    }

    /// Replaces the amount that was taken in advance by the billed amount.
    pub(crate) fn correct(&mut self, limits: RateLimits, now: Duration, taken: u64, billed: u64) {
        let rate = self.tokens.rate(limits.tokens);
        if billed >= taken {
            rate.charge(&mut self.tokens.bucket, now, billed - taken);
            self.tokens.bucket.forgive_beyond(now.saturating_add(MOST_DEBT));
            self.tokens.flow.add(now, billed - taken);
        } else {
            rate.give_back(&mut self.tokens.bucket, taken - billed);
        }
    }

    /// Whether a controller can have reached this state by `now`, given that no `Retry-After` is longer than
    /// `longest_hold`.
    pub(crate) fn is_possible(&self, now: Duration, longest_hold: Duration) -> bool {
        let full_by = self.requests.bucket.full_by().max(self.tokens.bucket.full_by());
        let (latest_hold, latest) =
            (now.saturating_add(longest_hold), now.saturating_add(MOST_DEBT));
        self.held_until <= latest_hold && full_by <= latest
    }

    /// Returns the amount that a call took, because it was not sent.
    pub(crate) fn give_back(&mut self, limits: RateLimits, tokens: u64) {
        self.requests.rate(limits.requests).give_back(&mut self.requests.bucket, 1);
        self.tokens.rate(limits.tokens).give_back(&mut self.tokens.bucket, tokens);
    }
}

/// The rate of requests or of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LearntRate {
    bucket: Bucket,
    flow: LastSecond,
    /// How long calls have waited for this rate, since the start or the last throttle.
    busy: Duration,
    found: Option<LearntCeiling>,
}

/// A ceiling that a throttle has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct LearntCeiling {
    /// The throughput at the throttle, a minute.
    ceiling: u64,
    /// How long the rate stays there before it rises.
    patience: Duration,
    at: Duration,
    /// The number of throttles in a row that came soon after the one before.
    in_a_row: u64,
}

impl LearntRate {
    /// Takes `amount`. Returns whether the call had to wait for this rate.
    fn take(
        &mut self,
        limit: NonZeroU64,
        now: Duration,
        since: Duration,
        idle_since: Duration,
        amount: u64,
    ) -> bool {
        let due = self.bucket.full_by();
        let waited = due > since && due > idle_since;
        if waited {
            self.busy = self.busy.saturating_add(now.saturating_sub(idle_since));
        }
        let in_time = due.max(since).max(now.saturating_sub(LATENESS)).min(now);
        self.rate(limit).charge(&mut self.bucket, in_time, amount);
        self.bucket.forgive_beyond(now.saturating_add(MOST_DEBT));
        self.flow.add(now, amount);
        waited
    }

    fn wait(&self, limit: NonZeroU64, from: Duration, before: u64, own: u64) -> Duration {
        let mut bucket = self.bucket;
        let hoped = if self.found.is_some() { self.allowed(limit) } else { limit.get() };
        Rate::per_minute(at_least_one(hoped)).charge(&mut bucket, from, before);
        self.rate(limit).take(&mut bucket, from, own).err().unwrap_or_default()
    }

    fn time_of(&self, limit: NonZeroU64, amount: u64) -> Duration {
        let nanos = u128::from(amount) * 60_000_000_000 / u128::from(self.allowed(limit));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The rate, and the amount that may leave at once.
    fn rate(&self, limit: NonZeroU64) -> Rate {
        let allowed = self.allowed(limit);
        let spare = match self.found {
            Some(_) => 0,
            None => ((limit.get() - allowed) / 60).min(limit.get() / 240),
        };
        Rate::per_minute(at_least_one(allowed)).with_burst(at_least_one(spare))
    }

    /// The rate a minute.
    fn allowed(&self, limit: NonZeroU64) -> u64 {
        let limit = limit.get();
        let Some(LearntCeiling { ceiling, patience, .. }) = self.found else {
            let start = (limit / 4).max(limit.min(LEAST_START));
            return limit.min(start + share(limit - start, self.busy, RISE));
        };
        let millis = if self.busy <= patience {
            AFTER_THROTTLE + share(PLATEAU - AFTER_THROTTLE, self.busy, SOON)
        } else {
            // Half a hundredth a second, and faster the longer no throttle comes.
            let over =
                u64::try_from(self.busy.saturating_sub(patience).as_millis()).unwrap_or(u64::MAX);
            let squared = over.saturating_mul(over) / 2_000_000;
            PLATEAU.saturating_add(over.saturating_mul(5) / 1_000).saturating_add(squared)
        };
        limit.min(of_thousand(ceiling, millis)).max(limit / LEAST_PART).max(1)
    }

    fn throttled(&mut self, limit: NonZeroU64, now: Duration, sent: Duration) {
        let allowed = self.allowed(limit);
        let flow = self.flow.per_minute(now);
        let (ceiling, patience, in_a_row) = match self.found {
            // The call left before the rate was lowered, so its throttle is no news.
            Some(found) if sent <= found.at => return,
            Some(found) if self.busy < SOON => {
                let in_a_row = found.in_a_row.saturating_add(1);
                // The farther the ceiling is off, the longer the step.
                let lower = 1_000_u64.saturating_sub(in_a_row.saturating_mul(STEP)).max(500);
                (of_thousand(allowed, lower), PATIENCE, in_a_row)
            }
            Some(found) => {
                let again = allowed.abs_diff(found.ceiling) <= found.ceiling / 10;
                let longer = found.patience.saturating_mul(2).min(MOST_PATIENCE);
                (allowed, if again { longer } else { PATIENCE }, 0)
            }
            // A first guess, which is soon tested.
            None => (flow.min(allowed).max(allowed / 2), SOON, 0),
        };
        // If no call waited, the calls alone reached the ceiling, and not the rate.
        let flowed = flow.max(allowed / 4);
        let ceiling = if self.busy.is_zero() { ceiling.min(flowed) } else { ceiling };
        let ceiling = ceiling.max(limit.get() / LEAST_PART).max(1);
        self.found = Some(LearntCeiling { ceiling, patience, at: now, in_a_row });
        self.busy = Duration::ZERO;
    }

    /// Starts again. A recent ceiling is kept.
    fn rest(&mut self, now: Duration) {
        self.busy = Duration::ZERO;
        self.found = self.found.filter(|found| now.saturating_sub(found.at) < CEILING_LIFETIME);
    }
}

/// The amount that left within the last second, counted by the second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LastSecond {
    second: u64,
    current: u64,
    previous: u64,
}

impl LastSecond {
    fn add(&mut self, now: Duration, amount: u64) {
        let second = now.as_secs();
        if second != self.second {
            let follows = self.second.checked_add(1) == Some(second);
            self.previous = if follows { self.current } else { 0 };
            (self.second, self.current) = (second, 0);
        }
        self.current = self.current.saturating_add(amount);
    }

    fn per_minute(mut self, now: Duration) -> u64 {
        self.add(now, 0);
        let left = u64::from(1_000 - now.subsec_millis());
        self.current.saturating_add(of_thousand(self.previous, left)).saturating_mul(60)
    }
}

/// The part of `whole` that corresponds to `done` out of `all`, at most all of it.
fn share(whole: u64, done: Duration, all: Duration) -> u64 {
    let part = u128::from(whole) * done.min(all).as_millis() / all.as_millis().max(1);
    u64::try_from(part).unwrap_or(whole)
}

fn of_thousand(whole: u64, thousandths: u64) -> u64 {
    let part = u128::from(whole) * u128::from(thousandths) / 1_000;
    u64::try_from(part).unwrap_or(u64::MAX)
}

fn at_least_one(amount: u64) -> NonZeroU64 {
    NonZeroU64::new(amount).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
mod tests;
