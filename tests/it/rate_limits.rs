//! The guarantees of a rate limiter, tested on both: the one in the process and the one in Redis.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ocr_gateway::clock::ManualClock;
use ocr_gateway::rate_limit::local::LocalRateLimiter;
use ocr_gateway::rate_limit::shared::{RedisRateLimiter, TimeSource};
use ocr_gateway::rate_limit::{LimitExceeded, Quotas, RateLimiter, TakeError, Taken};
use ocr_gateway::redis::link::Link;
use ocr_gateway::redis::settings::OnFailure;
use ocr_gateway::supervisor::Supervisor;
use ocr_gateway::units::Tokens;
use prometheus::IntGauge;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio_util::task::TaskTracker;

use crate::harness::spawn;
use crate::redis::RedisDatabase;

const MICROSECOND: Duration = Duration::from_micros(1);

/// A limiter and its clock.
#[derive(Debug, Clone)]
struct Subject {
    limiter: Arc<dyn RateLimiter>,
    clock: Arc<ManualClock>,
    tasks: TaskTracker,
    database: Option<RedisDatabase>,
}

impl Subject {
    fn local() -> Self {
        let clock = new_clock();
        let limiter = Arc::new(LocalRateLimiter::new(clock.clone()));
        Self { limiter, clock, tasks: TaskTracker::new(), database: None }
    }

    async fn on(database: RedisDatabase, clock: Arc<ManualClock>) -> Self {
        let settings = database.settings(OnFailure::Closed);
        let (time, tasks) = (TimeSource::Clock(clock.clone()), TaskTracker::new());
        let up = IntGauge::new("up", "Of a test.").unwrap();
        let probe = RedisRateLimiter::probe;
        let link = Link::connect(&settings, probe, up, &Supervisor::default()).await.unwrap();
        let limiter = RedisRateLimiter::new(Arc::new(link), time, clock.clone(), tasks.clone());
        Self { limiter: Arc::new(limiter), clock, tasks, database: Some(database) }
    }

    async fn redis() -> Option<Self> {
        Some(Self::on(RedisDatabase::new()?, new_clock()).await)
    }

    async fn of_each_kind() -> Vec<Self> {
        let mut subjects = vec![Self::local()];
        subjects.extend(Self::redis().await);
        subjects
    }

    /// The limiter of another replica: the same store, and nothing else in common.
    async fn other_replica(&self) -> Self {
        match &self.database {
            Some(database) => Self::on(database.clone(), self.clock.clone()).await,
            None => self.clone(),
        }
    }

    async fn request(&self, tenant: &str, quotas: &Quotas) -> Result<(), LimitExceeded> {
        known(self.limiter.take_request(tenant, quotas).await)
    }

    async fn tokens(&self, quotas: &Quotas, bound: u64) -> Result<Taken, LimitExceeded> {
        known(self.limiter.take_tokens("a", quotas, Tokens::new(bound)).await)
    }

    /// Settles, and waits for the result.
    async fn settle(&self, quotas: &Quotas, taken: Taken, billed: u64) {
        self.limiter.settle_tokens("a", quotas, taken, Tokens::new(billed));
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

fn new_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)))
}

fn known<T>(taken: Result<T, TakeError>) -> Result<T, LimitExceeded> {
    taken.map_err(|error| match error {
        TakeError::Exceeded(exceeded) => exceeded,
        TakeError::Unavailable => panic!("the store is away"),
    })
}

fn requests(per_minute: u64) -> Quotas {
    Quotas { requests_per_minute: NonZeroU64::new(per_minute), ..Quotas::default() }
}

fn tokens(per_minute: u64) -> Quotas {
    Quotas { tokens_per_minute: NonZeroU64::new(per_minute), ..Quotas::default() }
}

#[tokio::test]
async fn the_request_after_a_minutes_quota_is_refused_with_both_numbers_and_an_honest_wait() {
    for subject in Subject::of_each_kind().await {
        for _ in 0..3 {
            assert_eq!(subject.request("a", &requests(3)).await, Ok(()));
        }
        let refused = subject.request("a", &requests(3)).await.unwrap_err();
        assert_eq!((refused.limit.as_str(), refused.actual, refused.allowed), ("rpm", 4, 3));
        assert_eq!(refused.retry_after, Duration::from_secs(20));
        subject.clock.advance(refused.retry_after.saturating_sub(MICROSECOND));
        assert!(subject.request("a", &requests(3)).await.is_err());
        subject.clock.advance(MICROSECOND);
        assert_eq!(subject.request("a", &requests(3)).await, Ok(()));
    }
}

#[tokio::test]
async fn a_quota_that_does_not_divide_the_minute_may_come_at_once_all_the_same() {
    for subject in Subject::of_each_kind().await {
        for quota in [7, 11, 999] {
            let tenant = quota.to_string();
            for _ in 0..quota {
                assert_eq!(subject.request(&tenant, &requests(quota)).await, Ok(()));
            }
            assert!(subject.request(&tenant, &requests(quota)).await.is_err());
        }
    }
}

#[tokio::test]
async fn not_even_a_part_of_a_microsecond_is_given_too_early() {
    for subject in Subject::of_each_kind().await {
        for _ in 0..7 {
            assert_eq!(subject.request("a", &requests(7)).await, Ok(()));
        }
        // At seven a minute, one returns after 8,571,428 microseconds and four sevenths.
        subject.clock.advance(Duration::from_micros(8_571_428));
        let refused = subject.request("a", &requests(7)).await.unwrap_err();
        assert!(refused.retry_after <= MICROSECOND, "{refused:?}");
        subject.clock.advance(MICROSECOND);
        assert_eq!(subject.request("a", &requests(7)).await, Ok(()));
    }
}

#[tokio::test]
async fn one_tenant_s_requests_do_not_count_against_another() {
    for subject in Subject::of_each_kind().await {
        assert_eq!(subject.request("a", &requests(1)).await, Ok(()));
        assert_eq!(subject.request("b", &requests(1)).await, Ok(()));
    }
}

#[tokio::test]
async fn requests_do_not_count_as_tokens() {
    for subject in Subject::of_each_kind().await {
        let quotas = Quotas { requests_per_minute: NonZeroU64::new(1), ..tokens(1) };
        assert_eq!(subject.request("a", &quotas).await, Ok(()));
        assert!(subject.tokens(&quotas, 1).await.is_ok());
    }
}

#[tokio::test]
async fn without_quotas_nothing_is_refused() {
    for subject in Subject::of_each_kind().await {
        let none = Quotas::default();
        for _ in 0..2 {
            assert_eq!(subject.request("a", &none).await, Ok(()));
            assert!(subject.tokens(&none, u64::MAX).await.is_ok());
        }
    }
}

#[tokio::test]
async fn what_was_not_billed_may_be_taken_again() {
    for subject in Subject::of_each_kind().await {
        let taken = subject.tokens(&tokens(1_000), 600).await.unwrap();
        assert!(subject.tokens(&tokens(1_000), 600).await.is_err());
        subject.settle(&tokens(1_000), taken, 400).await;
        assert!(subject.tokens(&tokens(1_000), 600).await.is_ok());
    }
}

#[tokio::test]
async fn what_came_back_with_time_does_not_come_back_twice() {
    for subject in Subject::of_each_kind().await {
        let taken = subject.tokens(&tokens(1_000), 600).await.unwrap();
        subject.clock.advance(Duration::from_mins(1));
        subject.settle(&tokens(1_000), taken, 0).await;
        assert!(subject.tokens(&tokens(1_000), 1_000).await.is_ok());
        assert!(subject.tokens(&tokens(1_000), 1).await.is_err());
    }
}

#[tokio::test]
async fn what_was_billed_above_the_bound_is_charged() {
    for subject in Subject::of_each_kind().await {
        let taken = subject.tokens(&tokens(1_000), 100).await.unwrap();
        subject.settle(&tokens(1_000), taken, 1_500).await;
        let refused = subject.tokens(&tokens(1_000), 600).await.unwrap_err();
        let numbers = (refused.limit.as_str(), refused.actual, refused.allowed);
        assert_eq!(numbers, ("tpm", 2_100, 1_000));
    }
}

#[tokio::test]
async fn a_bound_over_the_whole_quota_passes_alone_and_is_paid_for() {
    for subject in Subject::of_each_kind().await {
        assert!(subject.tokens(&tokens(1_000), 3_000).await.is_ok());
        subject.clock.advance(Duration::from_mins(2));
        let refused = subject.tokens(&tokens(1_000), 3_000).await.unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_mins(1));
        assert!(subject.tokens(&tokens(1_000), 1).await.is_err());
        subject.clock.advance(Duration::from_mins(1));
        assert!(subject.tokens(&tokens(1_000), 1_000).await.is_ok());
    }
}

#[tokio::test]
async fn a_changed_quota_holds_from_the_next_call() {
    for subject in Subject::of_each_kind().await {
        assert_eq!(subject.request("a", &requests(2)).await, Ok(()));
        assert_eq!(subject.request("a", &requests(2)).await, Ok(()));
        assert!(subject.request("a", &requests(2)).await.is_err());
        let refused = subject.request("a", &requests(200)).await.unwrap_err();
        assert_eq!((refused.actual, refused.retry_after), (201, Duration::from_millis(300)));
    }
}

#[tokio::test]
async fn a_changed_quota_forgives_not_even_a_part_of_a_microsecond() {
    for subject in Subject::of_each_kind().await {
        subject.request("a", &requests(7)).await.unwrap();
        let refused = subject.request("a", &requests(1)).await.unwrap_err();
        let exact = Duration::from_nanos(8_571_428_571);
        assert!(refused.retry_after >= exact, "{refused:?}");
        assert!(refused.retry_after <= exact + MICROSECOND, "{refused:?}");
    }
}

#[tokio::test]
async fn the_largest_amounts_and_quotas_saturate() {
    for subject in Subject::of_each_kind().await {
        assert!(subject.tokens(&tokens(1), u64::MAX).await.is_ok());
        let refused = subject.tokens(&tokens(1), u64::MAX).await.unwrap_err();
        assert_eq!((refused.actual, refused.allowed), (u64::MAX, 1));
        assert!(refused.retry_after > Duration::from_hours(24 * 365));
        assert!(subject.request("a", &requests(u64::MAX)).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_at_once_on_two_replicas_pass_exactly_the_quota() {
    for subject in Subject::of_each_kind().await {
        let replicas = [subject.clone(), subject.other_replica().await];
        let calls: Vec<_> = (0..400)
            .map(|call: usize| {
                let replica = replicas[call % 2].clone();
                spawn(async move { replica.request("a", &requests(150)).await.is_ok() })
            })
            .collect();
        let mut passed = 0;
        for call in calls {
            passed += usize::from(call.await.unwrap());
        }
        assert_eq!(passed, 150);
    }
}

#[tokio::test]
async fn what_one_replica_gives_back_another_may_take() {
    for subject in Subject::of_each_kind().await {
        let other = subject.other_replica().await;
        let taken = subject.tokens(&tokens(1_000), 900).await.unwrap();
        assert!(other.tokens(&tokens(1_000), 900).await.is_err());
        subject.settle(&tokens(1_000), taken, 100).await;
        assert!(other.tokens(&tokens(1_000), 900).await.is_ok());
    }
}

// Faults that only Redis can have.

#[tokio::test]
async fn a_tenant_at_rest_leaves_nothing_in_redis() {
    let Some(subject) = Subject::redis().await else { return };
    let database = subject.database.clone().unwrap();
    subject.request("a", &requests(1)).await.unwrap();
    let taken = subject.tokens(&tokens(1_000), 500).await.unwrap();
    let lifetime: u64 =
        database.command("PTTL ocr-gateway:{a}:rpm").trim_start_matches(':').parse().unwrap();
    assert!((1..=120_001).contains(&lifetime), "a minute in use and one more: {lifetime} ms");
    subject.settle(&tokens(1_000), taken, 0).await;
    assert_eq!(database.command("EXISTS ocr-gateway:{a}:tpm"), ":0");
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_nobody_wait_longer_than_what_is_in_use() {
    let Some(subject) = Subject::redis().await else { return };
    subject.clock.advance(Duration::from_hours(1));
    subject.request("a", &requests(1)).await.unwrap();
    let earlier = Subject::on(subject.database.unwrap(), new_clock()).await;
    let refused = earlier.request("a", &requests(1)).await.unwrap_err();
    assert_eq!(refused.retry_after, Duration::from_mins(1));
    earlier.clock.advance(Duration::from_mins(1));
    assert_eq!(earlier.request("a", &requests(1)).await, Ok(()));
}

#[tokio::test]
async fn a_redis_that_forgot_the_script_is_told_again() {
    let Some(subject) = Subject::redis().await else { return };
    subject.request("a", &requests(1)).await.unwrap();
    assert_eq!(subject.database.as_ref().unwrap().command("SCRIPT FLUSH"), "+OK");
    assert!(subject.request("a", &requests(1)).await.is_err());
}

#[tokio::test]
async fn a_value_that_is_not_ours_is_a_bucket_with_nothing_in_use() {
    let Some(subject) = Subject::redis().await else { return };
    subject.database.as_ref().unwrap().command("SET ocr-gateway:{a}:rpm strange");
    assert_eq!(subject.request("a", &requests(1)).await, Ok(()));
    assert!(subject.request("a", &requests(1)).await.is_err());
}

/// An event of a limiter.
#[derive(Debug, Clone)]
enum Event {
    Take {
        bound: u64,
    },
    /// Settles the last tokens that were taken.
    Settle {
        billed: u64,
    },
    Pass {
        micros: u64,
    },
}

/// A quota and its events: small amounts, some quotas, and debts of many minutes.
fn histories() -> impl Strategy<Value = (u64, Vec<Event>)> {
    let quota = prop_oneof![1..2_000_u64, 1..60_000_000_u64, 1..=1_u64 << 52];
    quota.prop_flat_map(|quota| {
        let amount = prop_oneof![0..=quota / 10 + 1, 0..=3 * quota, 0..=1_000 * quota];
        let event = prop_oneof![
            3 => amount.clone().prop_map(|bound| Event::Take { bound }),
            2 => amount.prop_map(|billed| Event::Settle { billed }),
            2 => (0..90_000_000_u64).prop_map(|micros| Event::Pass { micros }),
        ];
        (Just(quota), prop::collection::vec(event, 1..40))
    })
}

/// Applies the same events to both. All decisions and numbers must agree. Redis has a clock of microseconds.
async fn compare(local: &Subject, redis: &Subject, quotas: &Quotas, events: &[Event]) {
    let mut taken = Vec::new();
    for event in events {
        match *event {
            Event::Pass { micros } => {
                // Both use this clock.
                local.clock.advance(Duration::from_micros(micros));
            }
            Event::Settle { billed } => {
                let Some((here, there)) = taken.pop() else { continue };
                local.settle(quotas, here, billed).await;
                redis.settle(quotas, there, billed).await;
            }
            Event::Take { bound } => {
                let here = local.tokens(quotas, bound).await;
                let there = redis.tokens(quotas, bound).await;
                match (here, there) {
                    (Ok(here), Ok(there)) => taken.push((here, there)),
                    (Err(here), Err(there)) => {
                        let rounded = there.retry_after.saturating_sub(here.retry_after);
                        assert!(there.retry_after >= here.retry_after, "{here:?} {there:?}");
                        assert!(rounded < MICROSECOND, "{here:?} {there:?}");
                        assert_eq!(here.actual, there.actual);
                    }
                    (here, there) => panic!("here {here:?}, in Redis {there:?}"),
                }
            }
        }
    }
}

#[test]
fn whatever_happens_redis_decides_as_the_process_would() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Some(redis) = runtime.block_on(Subject::redis()) else { return };
    let database = redis.database.as_ref().unwrap();
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let ran = runner.run(&histories(), |(quota, events)| {
        database.command("FLUSHDB");
        let limiter = Arc::new(LocalRateLimiter::new(redis.clock.clone()));
        let local = Subject { limiter, clock: redis.clock.clone(), ..Subject::local() };
        runtime.block_on(compare(&local, &redis, &tokens(quota), &events));
        Ok(())
    });
    ran.unwrap();
}
