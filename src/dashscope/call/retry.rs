//! Whether and when a failed attempt is followed by another.
//!
//! Three bounds hold at once:
//!
//! - The *attempts* of one call: a page that failed three times will fail a fourth time.
//! - The *deadline*: a retry that cannot end in time is not begun, since its tokens would be paid for and thrown away.
//! - A *retry budget* over all calls: in an outage every call fails, and two retries of each would triple the load just
//!   when the upstream can bear it least. Each first attempt adds a fraction of a retry to the budget, and each retry
//!   takes one. So a few failures are all retried, and an outage costs the upstream a fifth more, plus a trickle that
//!   lets a quiet gateway retry, too. When the budget is empty, calls fail at once.
//!
//! Waits are drawn evenly between zero and a ceiling that doubles ("full jitter", AWS Architecture Blog, "Exponential
//! Backoff And Jitter"), so that calls that failed together do not return together. A wait is never shorter than the
//! upstream's `Retry-After`.
//!
//! `docs/adr/0021-own-code.md` compares this with the libraries `backon` and `tower`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::admission::LEAST_TIME_FOR_AN_ATTEMPT;
use crate::clock::Clock;
use crate::dashscope::fault::health::Health;
use crate::dashscope::fault::verdict::{AttemptBill, Failure, Repeat, THROTTLE_BASE};
use crate::dashscope::settings::UpstreamSettings;
use crate::random::Random;

/// The highest ceiling of a wait after a throttle: the vendor says that recovery takes up to a minute (Model Studio,
/// "Rate limits").
const THROTTLE_CAP: Duration = Duration::from_mins(1);

/// Retries for each hundred first attempts. A fifth is enough for ordinary failures and adds little load in an outage.
const RETRY_PERCENT: u64 = 20;

/// The rules, and the retry budget that all calls share.
#[derive(Debug)]
pub(crate) struct RetryPolicy {
    max_attempts: u32,
    /// The longest wait: as long as a call may wait for a slot.
    longest: Duration,
    transient: Backoff,
    throttled: Backoff,
    budget: RetryBudget,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl RetryPolicy {
    pub(crate) fn new(
        settings: &UpstreamSettings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let transient = Backoff {
            base: Duration::from_millis(settings.backoff_base_ms),
            cap: Duration::from_millis(settings.backoff_cap_ms),
        };
        Self {
            max_attempts: settings.max_attempts,
            longest: settings.queue_timeout(),
            transient,
            throttled: Backoff { base: THROTTLE_BASE, cap: THROTTLE_CAP },
            budget: RetryBudget::new(
                RETRY_PERCENT,
                settings.retry_budget_floor_per_second,
                clock.instant(),
            ),
            clock,
            random,
        }
    }

    /// Records a first attempt, which adds to the retry budget.
    pub(crate) fn deposit(&self) {
        self.budget.deposit();
    }

    /// The wait before the attempt after number `attempts`; `None` if there must not be another.
    ///
    /// A wait longer than the queue's timeout is not begun: a new call would be refused at once, so this one is too. If
    /// another endpoint can be asked (`elsewhere`), the call does not wait, and a refused account does not end it.
    pub(crate) fn pause(
        &self,
        failure: &Failure,
        attempts: u32,
        deadline: Instant,
        elsewhere: bool,
    ) -> Option<Duration> {
        let of_endpoint = matches!(
            Health::shown_by(failure),
            Health::KeyRefused | Health::Denied | Health::ModelRefused
        ) && failure.bill == AttemptBill::Nothing;
        let backoff = match failure.repeat {
            Repeat::Never if elsewhere && of_endpoint => &self.transient,
            Repeat::Never => return None,
            Repeat::Once | Repeat::Transient => &self.transient,
            Repeat::Throttled => &self.throttled,
        };
        if attempts >= self.max_attempts {
            return None;
        }
        let drawn = backoff.draw(attempts.saturating_sub(1), self.random.as_ref());
        let here = drawn.max(failure.retry_after.unwrap_or_default());
        let pause = if elsewhere { Duration::ZERO } else { here };
        if pause > self.longest {
            return None;
        }
        let now = self.clock.instant();
        let needed = pause.saturating_add(LEAST_TIME_FOR_AN_ATTEMPT);
        if deadline.saturating_duration_since(now) < needed || !self.budget.withdraw(now) {
            return None;
        }
        Some(pause)
    }
}

/// Exponential backoff with full jitter.
#[derive(Debug)]
struct Backoff {
    base: Duration,
    cap: Duration,
}

impl Backoff {
    fn draw(&self, retries: u32, random: &dyn Random) -> Duration {
        let doubled = self.base.saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX));
        let ceiling = doubled.min(self.cap).as_nanos();
        // The high half of the product is an even draw from 0 to the ceiling.
        let drawn = (u128::from(random.next_u64()) * ceiling) >> 64;
        Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX))
    }
}

/// The cost of a retry. A first attempt adds hundredths of it.
const RETRY: u64 = 100;

/// The budget holds at most the trickle of so many seconds, and starts full.
const FULL_AFTER_SECONDS: u64 = 10;

/// The retries that are still allowed.
#[derive(Debug)]
struct RetryBudget {
    percent: u64,
    floor_per_second: u64,
    most: u64,
    balance: Mutex<Balance>,
}

#[derive(Debug)]
struct Balance {
    balance: u64,
    /// The time up to which the trickle was credited.
    filled_at: Instant,
}

impl RetryBudget {
    fn new(percent: u64, floor_per_second: u64, now: Instant) -> Self {
        let trickle = floor_per_second.saturating_mul(FULL_AFTER_SECONDS);
        // At least ten retries: without a trickle, a small percentage must be able to accumulate a whole retry.
        let most = trickle.max(10).saturating_mul(RETRY);
        let balance = Mutex::new(Balance { balance: most, filled_at: now });
        Self { percent, floor_per_second, most, balance }
    }

    fn deposit(&self) {
        let mut balance = self.balance.lock().unwrap_or_else(PoisonError::into_inner);
        balance.balance = balance.balance.saturating_add(self.percent).min(self.most);
    }

    fn withdraw(&self, now: Instant) -> bool {
        let mut balance = self.balance.lock().unwrap_or_else(PoisonError::into_inner);
        self.trickle(&mut balance, now);
        let Some(left) = balance.balance.checked_sub(RETRY) else { return false };
        balance.balance = left;
        true
    }

    fn trickle(&self, balance: &mut Balance, now: Instant) {
        let seconds = now.saturating_duration_since(balance.filled_at).as_secs();
        let paid = seconds.saturating_mul(self.floor_per_second).saturating_mul(RETRY);
        balance.balance = balance.balance.saturating_add(paid).min(self.most);
        // Only whole seconds are credited; the rest is credited next time.
        balance.filled_at += Duration::from_secs(seconds);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::ManualClock;
    use crate::dashscope::fault::error::{CallFault, Defect};
    use crate::dashscope::fault::verdict::unusable;
    use crate::dashscope::tests::settings;
    use crate::random::SeededRandom;

    const HOUR: Duration = Duration::from_hours(1);

    fn policy(clock: &Arc<ManualClock>, seed: u64) -> RetryPolicy {
        let random = Arc::new(SeededRandom::new(seed));
        RetryPolicy::new(&settings("http://localhost"), Arc::clone(clock) as Arc<dyn Clock>, random)
    }

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH))
    }

    fn transient() -> Failure {
        Failure::new(CallFault::Unreachable, Repeat::Transient, AttemptBill::Nothing)
    }

    proptest! {
        #[test]
        fn a_wait_is_below_its_doubling_ceiling_and_never_below_retry_after(
            seed in any::<u64>(), attempts in 1..3_u32, retry_after in prop::option::of(0..10_000_u64),
        ) {
            let clock = clock();
            let retry_after = retry_after.map(Duration::from_millis);
            let failure = Failure { retry_after, ..transient() };
            let pause = policy(&clock, seed).pause(&failure, attempts, clock.instant() + HOUR, false).unwrap();
            let ceiling = Duration::from_millis(500 << (attempts - 1));
            prop_assert!(pause <= ceiling.max(retry_after.unwrap_or_default()));
            prop_assert!(pause >= retry_after.unwrap_or_default());
        }
    }

    #[test]
    fn waits_are_capped_and_do_not_overflow() {
        let backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(8) };
        let random = SeededRandom::new(1);
        for retries in [4, 31, 32, 1_000] {
            assert!(backoff.draw(retries, &random) <= Duration::from_secs(8));
        }
    }

    #[test]
    fn a_wait_that_leaves_no_time_before_the_deadline_is_not_begun() {
        let clock = clock();
        let failure = Failure { retry_after: Some(Duration::from_secs(9)), ..transient() };
        let policy = policy(&clock, 1);
        let pause = |seconds| {
            policy.pause(&failure, 1, clock.instant() + Duration::from_secs(seconds), false)
        };
        assert_eq!(pause(9), None);
        assert_eq!(pause(10), Some(Duration::from_secs(9)));
    }

    #[test]
    fn a_wait_beyond_the_queue_s_timeout_is_not_begun() {
        let clock = clock();
        let pause = |retry_after| {
            let failure = Failure { retry_after: Some(retry_after), ..transient() };
            policy(&clock, 1).pause(&failure, 1, clock.instant() + HOUR, false)
        };
        let timeout = settings("http://localhost").queue_timeout();
        assert_eq!(pause(timeout), Some(timeout));
        assert_eq!(pause(timeout + Duration::from_millis(1)), None);
    }

    #[test]
    fn what_would_end_the_same_way_is_not_repeated() {
        let clock = clock();
        let deadline = clock.instant() + HOUR;
        assert_eq!(
            policy(&clock, 1).pause(&unusable(Defect::NotJson, None), 1, deadline, false),
            None
        );
        assert_eq!(policy(&clock, 1).pause(&transient(), 3, deadline, false), None);
    }

    #[test]
    fn elsewhere_nothing_is_waited_for_and_a_refused_account_is_no_end() {
        let clock = clock();
        let deadline = clock.instant() + Duration::from_secs(2);
        let policy = policy(&clock, 1);
        let refused =
            Failure::new(CallFault::Account { code: None }, Repeat::Never, AttemptBill::Nothing);
        assert_eq!(policy.pause(&refused, 1, deadline, false), None);
        assert_eq!(policy.pause(&refused, 1, deadline, true), Some(Duration::ZERO));
        let retry_after = Some(Duration::from_mins(1));
        let throttled = Failure { retry_after, ..transient() };
        assert_eq!(policy.pause(&throttled, 1, deadline, true), Some(Duration::ZERO));
        assert_eq!(policy.pause(&throttled, 3, deadline, true), None, "attempts are counted");
    }

    #[test]
    fn in_an_outage_retries_stop_when_the_budget_is_empty() {
        let clock = clock();
        let budget = RetryBudget::new(20, 1, clock.instant());
        let retries = |calls: u64| {
            let tried = (0..calls).filter(|_| {
                budget.deposit();
                budget.withdraw(clock.instant())
            });
            tried.count()
        };
        assert_eq!(retries(12), 12, "ten in the budget, and a fifth of what the calls paid");
        assert_eq!(retries(100), 20);
        clock.advance(Duration::from_millis(2_500));
        assert_eq!(retries(0) + usize::from(budget.withdraw(clock.instant())), 1);
    }

    #[test]
    fn a_trickle_refills_the_budget_up_to_its_size() {
        let clock = clock();
        let budget = RetryBudget::new(0, 2, clock.instant());
        while budget.withdraw(clock.instant()) {}
        clock.advance(Duration::from_millis(1_999));
        assert!(budget.withdraw(clock.instant()) && budget.withdraw(clock.instant()));
        assert!(!budget.withdraw(clock.instant()));
        clock.advance(HOUR);
        assert_eq!((0..100).filter(|_| budget.withdraw(clock.instant())).count(), 20);
    }
}
