//! The rate controller against simulated accounts whose quota it does not know.

use proptest::prelude::*;

use super::*;

const LIMITS: RateLimits = RateLimits {
    requests: NonZeroU64::new(1_200).unwrap(),
    tokens: NonZeroU64::new(6_000_000).unwrap(),
};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How an account counts.
#[derive(Debug, Clone, Copy)]
enum Counting {
    /// Windows of a second that begin with the first call after the last one.
    FixedWindows,
    /// The second before each call.
    SlidingWindow,
    /// A bucket that refills with time, to at most a second's worth.
    TokenBucket,
}

/// An account with a quota for each second.
struct SimulatedAccount {
    counting: Counting,
    requests: u64,
    tokens: u64,
    passed: Vec<(Duration, u64)>,
    window: Duration,
    bucket: (Bucket, Bucket),
}

impl SimulatedAccount {
    fn new(counting: Counting, requests: u64, tokens: u64) -> Self {
        let (passed, bucket) = (Vec::new(), Default::default());
        Self { counting, requests, tokens, passed, window: Duration::ZERO, bucket }
    }

    fn lets_pass(&mut self, now: Duration, tokens: u64) -> bool {
        let second = Duration::from_secs(1);
        let fits = match self.counting {
            Counting::TokenBucket => {
                let rate = |each: u64| {
                    Rate::per_minute(at_least_one(each * 60)).with_burst(at_least_one(each))
                };
                let (mut requests, mut all) = self.bucket;
                let fits = rate(self.requests).take(&mut requests, now, 1).is_ok()
                    && rate(self.tokens).take(&mut all, now, tokens).is_ok();
                if fits {
                    self.bucket = (requests, all);
                }
                fits
            }
            Counting::FixedWindows => {
                if now >= self.window + second {
                    self.window = now;
                }
                self.fits_since(self.window, tokens)
            }
            Counting::SlidingWindow => self.fits_since(now.saturating_sub(millis(999)), tokens),
        };
        if fits {
            self.passed.push((now, tokens));
        }
        fits
    }

    fn fits_since(&self, start: Duration, tokens: u64) -> bool {
        let recent = self.passed.iter().rev().take_while(|(at, _)| *at >= start);
        let (count, sum) = recent.fold((0, 0), |(count, sum), (_, each)| (count + 1, sum + each));
        count < self.requests && sum + tokens <= self.tokens
    }
}

/// A minute and more of callers who always have another page. `sizes` gives the tokens of the pages in turn.
struct Run {
    passed: u64,
    tokens: u64,
    throttled: u64,
}

fn run(
    account: &mut SimulatedAccount,
    quota: Quota,
    lasts: Duration,
    hold: Duration,
    sizes: &[u64],
) -> Run {
    const LATENCY: Duration = millis(60);
    let (mut controller, mut now, mut since) =
        (RateController::default(), Duration::ZERO, Duration::ZERO);
    let mut run = Run { passed: 0, tokens: 0, throttled: 0 };
    let mut answers = std::collections::VecDeque::new();
    let mut sizes = sizes.iter().cycle();
    let mut size = *sizes.next().unwrap();
    while now < lasts {
        while answers.front().is_some_and(|(at, _)| *at <= now) {
            let (at, sent) = answers.pop_front().unwrap();
            controller.throttled(LIMITS, at, sent, quota);
            controller.hold(at + hold);
        }
        match controller.take(LIMITS, now, since, size) {
            Ok(()) => {
                since = now;
                if account.lets_pass(now + millis(20), size) {
                    run.passed += 1;
                    run.tokens += size;
                } else {
                    run.throttled += 1;
                    answers.push_back((now + LATENCY, now));
                }
                size = *sizes.next().unwrap();
            }
            // Timers have a resolution of a millisecond, and an answer may come earlier.
            Err(wait) => {
                let next = answers.front().map_or(Duration::MAX, |(at, _)| at.saturating_sub(now));
                now += wait.min(next).max(millis(1)).min(Duration::from_secs(1))
                    + Duration::from_micros(300);
            }
        }
    }
    run
}

/// Goodput and throttles in thousandths: of the account's quota, and of all calls.
fn outcome(
    mut account: SimulatedAccount,
    quota: Quota,
    minutes: u64,
    hold: u64,
    sizes: &[u64],
) -> (u64, u64) {
    let lasts = Duration::from_mins(minutes);
    let run = run(&mut account, quota, lasts, millis(hold), sizes);
    let of = |passed: u64, each_second: u64| passed * 1_000 / (each_second * lasts.as_secs());
    let goodput = of(run.passed, account.requests).max(of(run.tokens, account.tokens));
    (goodput, run.throttled * 1_000 / (run.passed + run.throttled))
}

/// Ten requests and a hundred thousand tokens a second, where twice as many requests are configured.
#[test]
fn a_quota_that_nobody_told_us_is_used_to_95_hundredths_with_a_throttle_in_a_hundred_calls() {
    for counting in [Counting::FixedWindows, Counting::SlidingWindow, Counting::TokenBucket] {
        // Without a `Retry-After`, and with one of a second at each throttle.
        for hold in [0, 1_000] {
            let account = SimulatedAccount::new(counting, 10, 100_000);
            let (goodput, throttled) = outcome(account, Quota::Unknown, 5, hold, &[1_300]);
            assert!(goodput >= 950, "{counting:?} {hold}: {goodput} thousandths");
            assert!(throttled < 10, "{counting:?} {hold}: {throttled} thousandths throttled");
        }
    }
}

#[test]
fn a_quota_that_is_configured_is_used_and_hardly_ever_met() {
    for counting in [Counting::FixedWindows, Counting::SlidingWindow, Counting::TokenBucket] {
        let account = SimulatedAccount::new(counting, 20, 100_000);
        let (goodput, throttled) = outcome(account, Quota::Requests, 5, 1_000, &[1_300]);
        assert!(goodput >= 970, "{counting:?}: {goodput} thousandths");
        assert!(throttled < 2, "{counting:?}: {throttled} thousandths throttled");
    }
}

/// Seven pages of these sizes fit into a second's 100,000 tokens, and then no eighth: nine tenths of it are
/// all that whole pages can use.
#[test]
fn a_quota_of_tokens_is_found_as_well() {
    for counting in [Counting::FixedWindows, Counting::SlidingWindow] {
        for quota in [Quota::Tokens, Quota::Unknown] {
            let account = SimulatedAccount::new(counting, 100, 100_000);
            let (goodput, throttled) = outcome(account, quota, 5, 0, &[11_000, 13_000, 15_000]);
            assert!(goodput >= 850, "{counting:?} {quota:?}: {goodput} thousandths");
            assert!(throttled < 10, "{counting:?} {quota:?}: {throttled} thousandths throttled");
        }
    }
}

#[test]
fn a_quota_that_is_raised_is_found_again() {
    let mut controller = RateController::default();
    let mut now = Duration::ZERO;
    controller.throttled(LIMITS, now, millis(1), Quota::Requests);
    let allowed = |controller: &RateController| controller.requests.allowed(LIMITS.requests);
    assert!(allowed(&controller) < LIMITS.requests.get() / 2);
    while now < Duration::from_mins(4) {
        let since = now;
        while let Err(wait) = controller.take(LIMITS, now, since, 1) {
            now += wait;
        }
    }
    assert_eq!(allowed(&controller), LIMITS.requests.get());
}

#[test]
fn throttles_of_calls_that_left_before_the_rate_was_lowered_lower_it_once() {
    let mut controller = RateController::default();
    let (sent, later) = (Duration::from_secs(1), Duration::from_secs(2));
    for _ in 0..5 {
        controller.take(LIMITS, sent, sent, 1).unwrap();
    }
    controller.throttled(LIMITS, later, sent, Quota::Requests);
    let lowered = controller;
    for _ in 0..5 {
        controller.throttled(LIMITS, later + millis(1), sent, Quota::Requests);
    }
    assert_eq!(controller, lowered);
}

#[test]
fn a_throttle_of_tokens_leaves_the_rate_of_requests_alone() {
    let mut controller = RateController::default();
    controller.throttled(LIMITS, Duration::from_secs(1), Duration::from_secs(1), Quota::Tokens);
    assert!(controller.requests.found.is_none() && controller.tokens.found.is_some());
}

#[test]
fn after_a_rest_the_rate_starts_again() {
    let mut controller = RateController::default();
    let mut now = Duration::ZERO;
    let allowed = |controller: &RateController| controller.requests.allowed(LIMITS.requests);
    assert_eq!(allowed(&controller), 300);
    while now < Duration::from_secs(10) {
        let since = now;
        while let Err(wait) = controller.take(LIMITS, now, since, 1) {
            now += wait;
        }
    }
    assert_eq!(allowed(&controller), 1_200);
    now += REST + millis(1);
    controller.take(LIMITS, now, now, 1).unwrap();
    assert_eq!(allowed(&controller), 300);
}

#[test]
fn a_rate_that_nobody_waits_for_does_not_rise() {
    let mut controller = RateController::default();
    for second in 1..60 {
        let now = Duration::from_secs(second);
        controller.take(LIMITS, now, now, 1).unwrap();
    }
    assert_eq!(controller.requests.allowed(LIMITS.requests), 300);
}

proptest! {
    #[test]
    fn within_any_second_no_more_leave_than_the_limit_allows(
        pauses in prop::collection::vec(0..400_u64, 100..300), rpm in 60..3_000_u64,
    ) {
        let limits = RateLimits::per_minute(rpm, 6_000_000);
        let (mut controller, mut now, mut left) = (RateController::default(), Duration::ZERO, Vec::new());
        for pause in pauses {
            // Callers arrive in groups of five.
            now += millis(pause);
            let since = now;
            for _ in 0..5 {
                while let Err(wait) = controller.take(limits, now, since, 1) {
                    now += wait;
                }
                left.push(now);
            }
        }
        for (index, start) in left.iter().enumerate() {
            let within = left[index..].iter().take_while(|at| **at < *start + Duration::from_secs(1));
            // One more may fall on the boundary.
            prop_assert!(within.count() as u64 <= rpm / 60 + 2);
        }
    }

    #[test]
    fn whatever_happens_a_call_leaves_when_it_was_told_and_holds_bind(
        events in prop::collection::vec((0..6_u8, 0..20_000_u64), 1..100),
    ) {
        let (mut controller, mut now) = (RateController::default(), Duration::ZERO);
        for (what, amount) in events {
            now += millis(amount % 700);
            match what {
                0 => controller.throttled(LIMITS, now, now, Quota::Requests),
                1 => controller.throttled(LIMITS, now, now, Quota::Tokens),
                2 => controller.hold(now + millis(amount)),
                3 => controller.correct(LIMITS, now, 100, amount),
                _ => {
                    let text = serde_json::to_vec(&controller).unwrap();
                    prop_assert_eq!(serde_json::from_slice::<RateController>(&text).unwrap(), controller);
                    if let Err(wait) = controller.take(LIMITS, now, now, amount) {
                        prop_assert!(controller.take(LIMITS, now + wait, now, amount).is_ok());
                        now += wait;
                    }
                    prop_assert!(now >= controller.held_until());
                }
            }
        }
    }
}
