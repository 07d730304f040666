//! The generic cell rate algorithm for limits per minute, as pure arithmetic.
//!
//! The state of a bucket is one point in time: the *theoretical arrival time* of ITU-T I.371, at which the bucket will
//! be full again if nothing more is taken. Each take moves it forward. A bucket therefore needs no timer and no refill,
//! a full bucket can be forgotten without loss, and a store shared by several replicas keeps only one point in time. A
//! fixed window would be as small, but all waiting clients would return at its edge. A log of calls is exact but grows.
//!
//! All arithmetic uses integers. One unit of a rate rarely lasts a whole number of nanoseconds (seven a minute:
//! 8,571,428,571.43 ns), and rounding at each take would accumulate. Times are therefore computed in parts of a
//! nanosecond. A nanosecond has as many parts as the rate has units per minute, and a bucket keeps the remaining parts.
//! So an amount can be given back exactly, and a wait is exact to the nanosecond.
//!
//! The module reads no clock and takes no lock. The amounts may be requests, tokens or anything else.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const NANOS_PER_MINUTE: u128 = 60_000_000_000;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A rate: an amount per minute at a constant pace, and the largest amount at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_minute: NonZeroU64,
    burst: NonZeroU64,
}

/// The used part of a rate. The default is a full bucket, with nothing used.
///
/// A bucket is only valid with a [`Rate`] and with times from one origin. If the rate changes between two calls, the
/// used part keeps the *time* that it needs to refill, to the nanosecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// When the bucket is full again, in nanoseconds since the caller's origin.
    full_at: u128,
    /// The remainder below a nanosecond, in parts of a nanosecond; see [`Rate::full_at`].
    parts: u64,
}

impl Bucket {
    /// The time, rounded up to the nanosecond, from which the bucket is full at any rate. From then on its owner may
    /// forget it.
    pub fn full_by(&self) -> Duration {
        duration_of_nanos(self.full_at.saturating_add(u128::from(self.parts > 0)))
    }

    /// Reduces the used part so that the bucket is full at `latest`.
    pub fn forgive_beyond(&mut self, latest: Duration) {
        if self.full_by() > latest {
            *self = Self { full_at: latest.as_nanos(), parts: 0 };
        }
    }
}

impl Rate {
    /// A rate that allows the amount of a whole minute at once.
    pub const fn per_minute(amount: NonZeroU64) -> Self {
        Self { per_minute: amount, burst: amount }
    }

    /// The same rate with at most `burst` at once.
    #[must_use]
    pub const fn with_burst(self, burst: NonZeroU64) -> Self {
        Self { per_minute: self.per_minute, burst }
    }

    /// The capacity of a bucket.
    pub const fn burst(&self) -> NonZeroU64 {
        self.burst
    }

    /// Takes `amount` if the bucket has it, and nothing otherwise.
    ///
    /// A bucket can never hold an amount larger than the burst. Such an amount passes if the bucket is full and leaves
    /// it in debt. One large request is therefore possible, but the next one waits until the rate has made up for all
    /// of it. Taking zero succeeds unless there is a debt.
    ///
    /// # Errors
    ///
    /// The shortest time after which the same take succeeds if nothing else is taken.
    pub fn take(&self, bucket: &mut Bucket, now: Duration, amount: u64) -> Result<(), Duration> {
        let used = self.used(bucket, now);
        let room = parts_of(self.burst.get().saturating_sub(amount));
        if used > room {
            return Err(self.duration(used - room));
        }
        self.charge(bucket, now, amount);
        Ok(())
    }

    /// Takes `amount` unconditionally. An amount above the contents of the bucket becomes debt.
    pub fn charge(&self, bucket: &mut Bucket, now: Duration, amount: u64) {
        let from = self.full_at(bucket).max(self.parts_since_origin(now));
        self.store(bucket, from.saturating_add(parts_of(amount)));
    }

    /// Gives back `amount` of what was taken. The bucket never exceeds the burst.
    pub fn give_back(&self, bucket: &mut Bucket, amount: u64) {
        self.store(bucket, self.full_at(bucket).saturating_sub(parts_of(amount)));
    }

    /// The largest amount, up to the burst, that a take would get now.
    pub fn remaining(&self, bucket: &Bucket, now: Duration) -> u64 {
        self.burst.get().saturating_sub(self.in_use(bucket, now))
    }

    /// The amount that was taken and is not yet available again, rounded up. More than the burst if there is debt.
    pub fn in_use(&self, bucket: &Bucket, now: Duration) -> u64 {
        let units = self.used(bucket, now).div_ceil(NANOS_PER_MINUTE);
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    /// Whether nothing is used. The bucket is then equivalent to a new one.
    pub fn is_full(&self, bucket: &Bucket, now: Duration) -> bool {
        self.used(bucket, now) == 0
    }

    /// The amount that was taken and is not yet available again, in parts.
    fn used(&self, bucket: &Bucket, now: Duration) -> u128 {
        self.full_at(bucket).saturating_sub(self.parts_since_origin(now))
    }

    /// The bucket's time in parts. A nanosecond has `per_minute` parts, so one unit is the same whole number of parts
    /// at every rate.
    fn full_at(&self, bucket: &Bucket) -> u128 {
        // After a change of rate the remainder is in units of the old rate. It stays below a nanosecond.
        let remainder = bucket.parts.min(self.per_minute.get() - 1);
        bucket.full_at.saturating_mul(self.parts_per_nano()).saturating_add(u128::from(remainder))
    }

    fn store(&self, bucket: &mut Bucket, full_at: u128) {
        bucket.full_at = full_at / self.parts_per_nano();
        bucket.parts = u64::try_from(full_at % self.parts_per_nano()).unwrap_or(0);
    }

    fn parts_since_origin(&self, now: Duration) -> u128 {
        now.as_nanos().saturating_mul(self.parts_per_nano())
    }

    /// The time in which `parts` pass, rounded up to the nanosecond.
    fn duration(&self, parts: u128) -> Duration {
        duration_of_nanos(parts.div_ceil(self.parts_per_nano()))
    }

    fn parts_per_nano(&self) -> u128 {
        u128::from(self.per_minute.get())
    }
}

/// The parts of a nanosecond until `amount` is available again.
fn parts_of(amount: u64) -> u128 {
    u128::from(amount) * NANOS_PER_MINUTE
}

/// Converts `nanos` to a duration, limited to the longest one.
fn duration_of_nanos(nanos: u128) -> Duration {
    let Ok(seconds) = u64::try_from(nanos / NANOS_PER_SECOND) else {
        return Duration::MAX;
    };
    Duration::new(seconds, u32::try_from(nanos % NANOS_PER_SECOND).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_hours(1);
    const NANOSECOND: Duration = Duration::from_nanos(1);

    fn rate(per_minute: u64) -> Rate {
        Rate::per_minute(NonZeroU64::new(per_minute).unwrap())
    }

    fn rate_with_burst(per_minute: u64, burst: u64) -> Rate {
        rate(per_minute).with_burst(NonZeroU64::new(burst).unwrap())
    }

    fn any_rate() -> impl Strategy<Value = Rate> {
        let amount = prop_oneof![1..100_u64, 1..100_000_000_u64, 1..u64::MAX];
        (amount.clone(), amount).prop_map(|(per_minute, burst)| rate_with_burst(per_minute, burst))
    }

    #[test]
    fn a_full_minute_may_come_at_once_and_no_more() {
        let (rate, mut bucket) = (rate(60), Bucket::default());
        assert_eq!(rate.take(&mut bucket, NOW, 60), Ok(()));
        assert_eq!(rate.take(&mut bucket, NOW, 1), Err(Duration::from_secs(1)));
        assert_eq!(rate.take(&mut bucket, NOW + Duration::from_secs(1), 1), Ok(()));
    }

    #[test]
    fn a_burst_of_one_spaces_what_passes_evenly() {
        let (rate, mut bucket) = (rate_with_burst(600, 1), Bucket::default());
        assert_eq!(rate.take(&mut bucket, NOW, 1), Ok(()));
        assert_eq!(rate.take(&mut bucket, NOW, 1), Err(Duration::from_millis(100)));
    }

    #[test]
    fn an_amount_over_the_burst_passes_only_a_full_bucket_and_is_paid_for_in_full() {
        let (rate, mut bucket) = (rate(60), Bucket::default());
        assert_eq!(rate.take(&mut bucket, NOW, 180), Ok(()));
        assert_eq!((rate.remaining(&bucket, NOW), rate.in_use(&bucket, NOW)), (0, 180));
        assert_eq!(rate.take(&mut bucket, NOW, 1), Err(Duration::from_secs(121)));
        assert_eq!(rate.take(&mut bucket, NOW, 61), Err(Duration::from_mins(3)));
    }

    #[test]
    fn a_charge_may_leave_a_debt_that_later_takes_wait_for() {
        let (rate, mut bucket) = (rate(60), Bucket::default());
        rate.charge(&mut bucket, NOW, 90);
        assert_eq!(rate.remaining(&bucket, NOW), 0);
        assert_eq!(rate.take(&mut bucket, NOW, 1), Err(Duration::from_secs(31)));
        assert_eq!(rate.take(&mut bucket, NOW, 0), Err(Duration::from_secs(30)));
    }

    #[test]
    fn seven_a_minute_do_not_drift_in_a_million_takes() {
        let (rate, mut bucket) = (rate_with_burst(7, 1), Bucket::default());
        for _ in 0..7_000_000 {
            rate.charge(&mut bucket, NOW, 1);
        }
        let full_again = NOW + Duration::from_mins(1_000_000);
        assert!(rate.is_full(&bucket, full_again));
        assert!(!rate.is_full(&bucket, full_again.saturating_sub(NANOSECOND)));
        assert_eq!(bucket.full_by(), full_again);
    }

    #[test]
    fn a_bucket_is_full_by_the_nanosecond_that_it_names() {
        let (rate, mut bucket) = (rate(7), Bucket::default());
        rate.charge(&mut bucket, NOW, 1);
        assert!(rate.is_full(&bucket, bucket.full_by()));
        assert!(!rate.is_full(&bucket, bucket.full_by().saturating_sub(NANOSECOND)));
    }

    #[test]
    fn giving_back_more_than_was_taken_does_not_raise_the_burst() {
        let (rate, mut bucket) = (rate(60), Bucket::default());
        rate.give_back(&mut bucket, 1_000);
        assert_eq!(rate.remaining(&bucket, NOW), 60);
    }

    #[test]
    fn a_changed_rate_keeps_the_time_that_a_debt_needs() {
        let (slow, fast, mut bucket) = (rate(7), rate(6_000_000), Bucket::default());
        slow.charge(&mut bucket, NOW, 14);
        assert!(!fast.is_full(&bucket, NOW + Duration::from_nanos(119_999_999_999)));
        assert!(fast.is_full(&bucket, NOW + Duration::from_mins(2) + NANOSECOND));
    }

    #[test]
    fn the_largest_amounts_and_times_saturate() {
        for rate in [rate(1), rate(u64::MAX)] {
            let mut bucket = Bucket::default();
            rate.charge(&mut bucket, Duration::MAX, u64::MAX);
            rate.charge(&mut bucket, Duration::MAX, u64::MAX);
            assert!(rate.take(&mut bucket, Duration::ZERO, u64::MAX).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_window_passes_more_than_the_burst_and_the_rate_over_its_length(
            per_minute in 1..1_000_u64,
            burst in 1..200_u64,
            calls in prop::collection::vec((0..2_000_000_000_u64, 1..200_u64), 1..60),
        ) {
            let rate = rate_with_burst(per_minute, burst);
            let (mut bucket, mut now) = (Bucket::default(), NOW);
            let mut passed: Vec<(Duration, u64)> = Vec::new();
            for (pause, amount) in calls {
                now += Duration::from_nanos(pause);
                if amount <= burst && rate.take(&mut bucket, now, amount).is_ok() {
                    passed.push((now, amount));
                }
            }
            for start in 0..passed.len() {
                let mut sum = 0_u128;
                for (end, amount) in &passed[start..] {
                    sum += u128::from(*amount);
                    let window = end.saturating_sub(passed[start].0).as_nanos();
                    let allowed = parts_of(burst) + window * u128::from(per_minute);
                    prop_assert!(sum * NANOS_PER_MINUTE <= allowed);
                }
            }
        }

        #[test]
        fn a_wait_is_enough_and_one_nanosecond_less_is_not(
            rate in any_rate(), used in 0..1_000_000_000_000_u64, amount in any::<u64>(),
        ) {
            let mut bucket = Bucket::default();
            rate.charge(&mut bucket, NOW, used);
            let Err(wait) = rate.take(&mut bucket.clone(), NOW, amount) else { return Ok(()) };
            let just_before = NOW + wait.saturating_sub(NANOSECOND);
            prop_assert!(rate.take(&mut bucket.clone(), just_before, amount).is_err());
            prop_assert_eq!(rate.take(&mut bucket, NOW + wait, amount), Ok(()));
        }

        #[test]
        fn what_is_given_back_in_pieces_restores_the_bucket(
            rate in any_rate(),
            before in 1..u64::MAX,
            pieces in prop::collection::vec(0..1_000_u64, 1..9),
        ) {
            let mut bucket = Bucket::default();
            rate.charge(&mut bucket, NOW, before);
            let untouched = bucket;
            rate.charge(&mut bucket, NOW, pieces.iter().sum());
            for piece in pieces {
                rate.give_back(&mut bucket, piece);
            }
            prop_assert_eq!(bucket, untouched);
        }

        #[test]
        fn what_remains_can_be_taken_and_one_more_cannot(rate in any_rate(), used in any::<u64>()) {
            let mut bucket = Bucket::default();
            rate.charge(&mut bucket, NOW, used);
            let remaining = rate.remaining(&bucket, NOW);
            if remaining < rate.burst().get() {
                prop_assert!(rate.take(&mut bucket.clone(), NOW, remaining + 1).is_err());
            }
            if remaining > 0 {
                prop_assert_eq!(rate.take(&mut bucket, NOW, remaining), Ok(()));
            }
        }
    }
}
