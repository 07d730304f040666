use std::time::{Duration, SystemTime};

use super::presence::Watch;
use super::*;
use crate::clock::ManualClock;
use crate::departure::Departure;
use crate::ledger::account::Unit;
use crate::ledger::fake;
use crate::ledger::window::Period;
use crate::rate_limit::local::LocalRateLimiter;
use crate::telemetry::levels::Levels;
use crate::telemetry::metrics::MetricsSettings;
use crate::units::Currency;

const BOUND: Usage =
    Usage { image: Tokens::new(600), text: Tokens::new(100), output: Tokens::new(300) };

/// An admission and a tenant of 1,000 tokens a minute, which is one bound.
async fn admission() -> (Admission, Arc<Tenant>) {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
    let metrics = Arc::new(Metrics::new(&MetricsSettings { max_tenants: 10 }).unwrap());
    let ledger = fake::ledger(Arc::clone(&clock), Arc::clone(&metrics)).await;
    let limiter = Arc::new(LocalRateLimiter::new(Arc::clone(&clock)));
    let admission = Admission::new(limiter, ledger, clock, metrics);
    let mut tenant = Tenant::new("acme".parse().unwrap());
    tenant.tokens_per_minute = NonZeroU64::new(1_000);
    (admission, Arc::new(tenant))
}

/// A deadline that leaves time for an attempt but not for a wait.
fn soon(admission: &Admission) -> Instant {
    admission.clock.instant() + LEAST_TIME_FOR_AN_ATTEMPT
}

/// Asks for a bound without waiting for calls in flight.
async fn admit(admission: &Admission, tenant: &Arc<Tenant>) -> Result<Permit, Refusal> {
    admission.admit_bound(tenant, &Model::sample(), BOUND, soon(admission), &Tab::default()).await
}

/// A tenant that may spend one and a half bounds a day, without a rate limit.
fn budgeted() -> Arc<Tenant> {
    let mut tenant = Tenant::new("acme".parse().unwrap());
    tenant.daily_tokens = NonZeroU64::new(1_500);
    Arc::new(tenant)
}

fn unverified(admission: &Admission) -> bool {
    let metrics = String::from_utf8(admission.metrics.encode(&Levels::default()).unwrap()).unwrap();
    metrics.contains(r#"tokens_unverified_total{model="sample",tenant="acme"} 1000"#)
}

#[tokio::test]
async fn a_second_bound_is_refused_while_the_first_is_out() {
    let (admission, tenant) = admission().await;
    let first = admit(&admission, &tenant).await.unwrap();
    assert!(admit(&admission, &tenant).await.is_err());
    first.release();
    assert!(admit(&admission, &tenant).await.is_ok());
}

#[tokio::test]
async fn a_call_that_could_not_end_in_time_takes_nothing() {
    let (admission, tenant) = admission().await;
    let left = LEAST_TIME_FOR_AN_ATTEMPT.saturating_sub(Duration::from_millis(1));
    let deadline = admission.clock.instant() + left;
    let refused =
        admission.admit_bound(&tenant, &Model::sample(), BOUND, deadline, &Tab::default()).await;
    assert_eq!(refused.unwrap_err(), Refusal::TooLate { left });
    assert!(admit(&admission, &tenant).await.is_ok(), "the minute's tokens are all there");
}

#[tokio::test]
async fn a_permit_dropped_before_it_was_sent_gives_everything_back() {
    let (admission, tenant) = admission().await;
    drop(admit(&admission, &tenant).await.unwrap());
    assert!(!unverified(&admission));
    assert!(admit(&admission, &tenant).await.is_ok());
}

#[tokio::test]
async fn a_permit_dropped_after_it_was_sent_is_written_off() {
    let (admission, tenant) = admission().await;
    let mut permit = admit(&admission, &tenant).await.unwrap();
    permit.mark_sent();
    drop(permit);
    assert!(unverified(&admission));
    assert!(admit(&admission, &tenant).await.is_err());
}

#[tokio::test]
async fn a_settled_permit_gives_back_what_was_not_billed() {
    let (admission, tenant) = admission().await;
    let mut permit = admit(&admission, &tenant).await.unwrap();
    permit.mark_sent();
    permit.settle(Usage::default(), None).await;
    assert!(admit(&admission, &tenant).await.is_ok());
}

#[tokio::test]
async fn a_bill_above_the_bound_is_counted_in_full_and_alarmed() {
    let (admission, tenant) = admission().await;
    let permit = admit(&admission, &tenant).await.unwrap();
    let billed = Usage { output: Tokens::new(400), ..BOUND };
    assert_eq!(permit.settle(billed, None).await.usage, billed);
    let metrics = String::from_utf8(admission.metrics.encode(&Levels::default()).unwrap()).unwrap();
    assert!(metrics.contains(r#"tokens_above_bound_total{model="sample",tenant="acme"} 100"#));
}

#[tokio::test]
async fn a_bill_beyond_what_a_call_can_cost_is_counted_at_that_alarmed_and_marked() {
    for (image, text, output, counted) in [
        (600, 100, u64::MAX, 600 + 100 + 8_192),
        (u64::MAX, u64::MAX, u64::MAX, 30_000 + 30_000 + 8_192),
        // If one number is impossible, the other numbers of the bill are not trusted either.
        (1 << 62, 0, 0, 30_000 + 100 + 300),
        (30_001, 100, 5, 30_000 + 100 + 300),
    ] {
        let (admission, _) = admission().await;
        let (tenant, tab) = (budgeted(), Tab::default());
        let now = soon(&admission);
        let model = Model::sample();
        let permit = admission.admit_bound(&tenant, &model, BOUND, now, &tab).await;
        let mut permit = permit.unwrap();
        permit.mark_sent();
        let [image, text, output] = [image, text, output].map(Tokens::new);
        let settlement = permit.settle(Usage { image, text, output }, None).await;
        let told = (settlement.usage.total().get(), settlement.verified);
        assert_eq!(told, (counted, false));
        assert_eq!(tab.ended().unverified.get(), counted);
        let balances = admission.ledger.balances("acme").await.unwrap();
        assert_eq!((balances.daily.settled, balances.daily.reserved), (counted, 0));
        let metrics =
            String::from_utf8(admission.metrics.encode(&Levels::default()).unwrap()).unwrap();
        assert!(metrics.contains(r#"bills_clamped_total{model="sample",tenant="acme"} 1"#));
        let unverified = r#"tokens_unverified_total{model="sample",tenant="acme"}"#;
        assert!(metrics.contains(&format!("{unverified} {counted}")), "{metrics}");
    }
}

#[tokio::test]
async fn a_renewed_permit_needs_room_for_a_second_bound() {
    let (admission, tenant) = admission().await;
    let mut permit = admit(&admission, &tenant).await.unwrap();
    permit.mark_sent();
    assert!(permit.renew().await.is_err());
    assert!(unverified(&admission));
}

#[tokio::test]
async fn a_call_of_a_caller_who_may_have_left_can_be_repeated_until_its_deadline() {
    let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
    let (mut admission, _) = admission().await;
    admission.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    let (tenant, model, tab) =
        (Arc::new(Tenant::new("acme".parse().unwrap())), Model::sample(), Tab::default());
    let (left, deadline) = (Departure::default(), clock.instant() + Duration::from_mins(1));
    left.note();
    let admit = |until| admission.admit_bound(&tenant, &model, BOUND, until, &tab);
    let watch = Watch { may_have_left: left, ..Watch::default() };
    let mut permit = admission.until_left(&Presence::of(watch).0, deadline, admit).await.unwrap();
    permit.mark_sent();
    clock.advance(Duration::from_secs(5));
    assert!(permit.renew().await.is_ok());
}

#[tokio::test]
async fn a_bound_over_what_is_left_of_a_budget_is_refused_until_the_window_ends() {
    let (admission, _) = admission().await;
    let spent = admit(&admission, &budgeted()).await.unwrap().write_off().await;
    assert_eq!(spent.remaining.day, Some(Tokens::new(500)));
    let refusal = admit(&admission, &budgeted()).await.unwrap_err();
    let Refusal::Budget { exceeded, retry_after } = refusal else { panic!("{refusal}") };
    assert_eq!((exceeded.settled, exceeded.asked), (1_000, 1_000));
    assert_eq!(retry_after, Duration::from_hours(24));
}

#[tokio::test]
async fn a_bill_below_the_bound_leaves_its_rest_to_the_budget() {
    let (admission, _) = admission().await;
    let billed = Usage { output: Tokens::ZERO, ..BOUND };
    let permit = admit(&admission, &budgeted()).await.unwrap();
    assert_eq!(permit.settle(billed, None).await.remaining.day, Some(Tokens::new(800)));
    let left = admission.remaining(&budgeted()).await.unwrap();
    assert_eq!((left.day, left.month), (Some(Tokens::new(800)), None));
}

#[tokio::test]
async fn a_call_waits_for_one_in_flight_that_may_leave_it_room() {
    let (admission, _) = admission().await;
    let first = admit(&admission, &budgeted()).await.unwrap();
    let deadline = admission.clock.instant() + Duration::from_mins(1);
    let (model, tenant) = (Model::sample(), budgeted());
    let tab = Tab::default();
    let second = admission.admit_bound(&tenant, &model, BOUND, deadline, &tab);
    let (second, ()) = tokio::join!(second, async {
        tokio::task::yield_now().await;
        first.release();
    });
    assert!(second.is_ok());
}

/// The admission's clock does not move, so all elapsed time was spent waiting.
#[tokio::test(start_paused = true)]
async fn a_call_waits_for_room_only_as_long_as_it_could_still_be_sent() {
    let (admission, _) = admission().await;
    let _first = admit(&admission, &budgeted()).await.unwrap();
    let (tenant, model, tab) = (budgeted(), Model::sample(), Tab::default());
    let deadline = admission.clock.instant() + Duration::from_secs(2);
    let began = tokio::time::Instant::now();
    let second = admission.admit_bound(&tenant, &model, BOUND, deadline, &tab).await;
    assert!(matches!(second, Err(Refusal::Budget { .. })), "{second:?}");
    assert!(began.elapsed() + LEAST_TIME_FOR_AN_ATTEMPT <= Duration::from_secs(2));
}

#[tokio::test]
async fn a_refusal_by_a_budget_gives_the_minutes_tokens_back() {
    let (admission, tenant) = admission().await;
    let poor = Arc::new(Tenant { daily_tokens: NonZeroU64::new(10), ..(*tenant).clone() });
    assert!(matches!(admit(&admission, &poor).await, Err(Refusal::Budget { .. })));
    assert!(admit(&admission, &tenant).await.is_ok());
}

/// A model of two regions, in which a bound costs 1,000 and 2,600 nanos, and 2,700 at most.
fn of_two_regions() -> Arc<Model> {
    Model::priced(&[("beijing", 1, 1), ("virginia", 3, 2)])
}

const DEAREST: u64 = 3 * 700 + 2 * 300;

async fn admit_in_two_regions(admission: &Admission) -> Permit {
    let (tenant, deadline) = (budgeted(), soon(admission));
    let model = of_two_regions();
    admission.admit_bound(&tenant, &model, BOUND, deadline, &Tab::default()).await.unwrap()
}

/// The day's account of money: settled, reserved, released.
async fn money(admission: &Admission) -> [u64; 3] {
    let accounts = admission.ledger.accounts("acme").await.unwrap();
    let (_, account) = accounts
        .iter()
        .find(|(key, _)| key.window.period == Period::Day && key.unit == Unit::Money(Currency::Cny))
        .unwrap();
    assert!(account.is_balanced(), "{account:?}");
    [account.settled, account.reserved, account.released]
}

#[tokio::test]
async fn a_call_reserves_the_dearest_price_and_is_settled_at_that_of_its_last_region() {
    let (admission, _) = admission().await;
    let mut permit = admit_in_two_regions(&admission).await;
    assert_eq!(money(&admission).await, [0, DEAREST, 0]);
    permit.place_at("us", "virginia");
    permit.mark_sent();
    permit.mark_unbilled();
    permit.place_at("cn", "beijing");
    permit.mark_sent();
    let settled = permit.settle(BOUND, None).await;
    assert_eq!(settled.cost.nanos(), 1_000);
    assert_eq!(money(&admission).await, [1_000, 0, DEAREST - 1_000]);
    let metrics = String::from_utf8(admission.metrics.encode(&Levels::default()).unwrap()).unwrap();
    let cost = r#"cost_total{currency="CNY",model="sample",tenant="acme"} 0.000001"#;
    assert!(metrics.contains(cost), "{metrics}");
}

#[tokio::test]
async fn a_call_whose_bill_is_unknown_is_written_off_at_the_price_of_its_region() {
    let (admission, _) = admission().await;
    let mut permit = admit_in_two_regions(&admission).await;
    permit.place_at("cn", "beijing");
    assert_eq!(permit.write_off().await.cost.nanos(), 1_000);
    assert_eq!(money(&admission).await, [1_000, 0, DEAREST - 1_000]);
}

#[tokio::test]
async fn a_dropped_call_that_went_out_is_written_off_at_the_price_of_its_region() {
    let (admission, _) = admission().await;
    let mut permit = admit_in_two_regions(&admission).await;
    permit.place_at("cn", "beijing");
    permit.mark_sent();
    drop(permit);
    admission.ledger.close().await;
    assert_eq!(money(&admission).await, [1_000, 0, DEAREST - 1_000]);
}

#[tokio::test]
async fn a_call_that_was_placed_nowhere_is_written_off_at_the_dearest_price() {
    let (admission, _) = admission().await;
    let permit = admit_in_two_regions(&admission).await;
    assert_eq!(permit.write_off().await.cost.nanos(), DEAREST);
    assert_eq!(money(&admission).await, [DEAREST, 0, 0]);
}

#[tokio::test]
async fn a_renewed_permit_may_go_to_any_region_again() {
    let (admission, _) = admission().await;
    let tenant = Arc::new(Tenant::new("acme".parse().unwrap()));
    let (model, now) = (of_two_regions(), soon(&admission));
    let mut permit =
        admission.admit_bound(&tenant, &model, BOUND, now, &Tab::default()).await.unwrap();
    permit.place_at("cn", "beijing");
    permit.mark_sent();
    let second = permit.renew().await.unwrap();
    assert_eq!(money(&admission).await, [1_000, DEAREST, DEAREST - 1_000]);
    second.release();
}

/// The figures on the tab after `end` has ended a call: tokens as billed, unverified, calls, repeats.
async fn told(end: impl AsyncFnOnce(Permit)) -> (u64, u64, u32, u32) {
    let ((admission, _), tab) = (admission().await, Tab::default());
    let (tenant, now) = (Arc::new(Tenant::new("acme".parse().unwrap())), soon(&admission));
    let admitted = admission.admit_bound(&tenant, &Model::sample(), BOUND, now, &tab).await;
    end(admitted.unwrap()).await;
    let spent = tab.ended();
    assert_eq!(tab.at_most(), spent, "all calls have ended");
    (spent.billed.total().get(), spent.unverified.get(), spent.calls, spent.repeats)
}

#[tokio::test]
async fn however_a_permit_ends_its_request_is_told_what_the_ledger_counts() {
    let billed = Usage { output: Tokens::new(1), ..BOUND };
    let sent = |mut permit: Permit| {
        permit.mark_sent();
        permit
    };
    assert_eq!(told(async |permit| drop(permit)).await, (0, 0, 0, 0));
    assert_eq!(told(async |permit| sent(permit).release()).await, (0, 0, 1, 0));
    assert_eq!(told(async |permit| drop(sent(permit).settle(billed, None))).await, (701, 0, 1, 0));
    assert_eq!(told(async |permit| drop(sent(permit).write_off())).await, (0, 1_000, 1, 0));
    assert_eq!(told(async |permit| drop(sent(permit))).await, (0, 1_000, 1, 0));
    let renewed = told(async |permit| {
        let renewed = sent(permit).renew().await.unwrap();
        sent(renewed).settle(billed, None).await;
    });
    assert_eq!(renewed.await, (701, 1_000, 2, 1));
    let repeated = told(async |permit| {
        let mut permit = sent(permit);
        permit.mark_unbilled();
        sent(permit).settle(billed, None).await;
    });
    assert_eq!(repeated.await, (701, 0, 2, 1));
}

#[tokio::test]
async fn a_call_that_panics_is_told_at_its_bound() {
    let panicked = told(async |mut permit| {
        permit.mark_sent();
        let panicking = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            panic!("as a call might");
        });
        assert!(panicking.await.is_err());
    });
    assert_eq!(panicked.await, (0, 1_000, 1, 0));
}

#[tokio::test]
async fn a_call_under_way_can_cost_its_bound() {
    let (admission, tenant) = admission().await;
    let (tab, now) = (Tab::default(), soon(&admission));
    let admitted = admission.admit_bound(&tenant, &Model::sample(), BOUND, now, &tab).await;
    let mut permit = admitted.unwrap();
    permit.mark_sent();
    assert_eq!((tab.ended().unverified, tab.at_most().unverified.get()), (Tokens::ZERO, 1_000));
    assert_eq!(tab.at_most().unverified_cost, permit.price.of(&BOUND));
}
