//! Slots, in one process and shared between replicas.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio::time::Instant as RuntimeInstant;

use super::*;
use crate::dashscope::tests::{MemoryCells, RuntimeClock, settings};

const TOKENS: Tokens = Tokens::new(100);

/// Queues, and one of them with this rate.
fn queue(rpm: u64, tpm: u64, queue_length: usize) -> (CallQueues, Arc<CallQueue>) {
    let mut settings = settings("http://localhost");
    settings.queue_length = queue_length;
    let queues = CallQueues::new(&settings, None, RuntimeClock::new());
    let queue = queues.queue("account", "model", RateLimits::per_minute(rpm, tpm));
    (queues, queue)
}

/// A deadline that does not bind: the queue's own timeout does.
fn later() -> Instant {
    RuntimeInstant::now().into_std() + Duration::from_secs(10)
}

async fn slot(
    queues: &CallQueues,
    queue: &Arc<CallQueue>,
    tenant: &str,
) -> Result<SendSlot, CallFault> {
    loop {
        match queues.slot(queue, tenant, TOKENS, later()).await {
            Ok(slot) => return Ok(slot),
            Err(NoSlot::TooLate(fault)) => return Err(fault),
            // Waits as the pool does, with one queue to choose from.
            Err(NoSlot::Removed) => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_leave_spaced_and_in_order() {
    let (queues, queue) = queue(60, 6_000_000, 100);
    let (passed, start) = (Mutex::new(Vec::new()), RuntimeInstant::now());
    join_all((0..4).map(async |number| {
        slot(&queues, &queue, "a").await.unwrap();
        passed.lock().unwrap().push((number, start.elapsed().as_secs()));
    }))
    .await;
    assert_eq!(passed.into_inner().unwrap(), [(0, 0), (1, 1), (2, 2), (3, 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_cannot_come_in_time_is_refused_at_once_with_an_honest_wait() {
    let (queues, queue) = queue(6, 6_000_000, 100);
    let start = RuntimeInstant::now();
    slot(&queues, &queue, "a").await.unwrap();
    let (second, third) = tokio::join!(slot(&queues, &queue, "a"), slot(&queues, &queue, "a"));
    assert!(second.is_ok());
    let Err(CallFault::Busy { retry_after }) = third else { panic!("{third:?}") };
    assert_eq!((retry_after, start.elapsed().as_secs()), (Duration::from_secs(20), 10));
    tokio::time::sleep(retry_after.saturating_sub(start.elapsed())).await;
    assert!(slot(&queues, &queue, "a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_cannot_come_before_the_deadline_is_refused_at_once() {
    let (queues, queue) = queue(60, 6_000_000, 100);
    let start = RuntimeInstant::now();
    slot(&queues, &queue, "a").await.unwrap();
    let deadline = start.into_std() + Duration::from_millis(999);
    let refused = queues.slot(&queue, "a", TOKENS, deadline).await;
    let Err(NoSlot::TooLate(CallFault::Busy { retry_after })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((retry_after.as_secs(), start.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_a_tenant_that_fills_it_and_not_another() {
    let (queues, queue) = queue(60, 6_000_000, 3);
    let many = join_all((0..5).map(|_| slot(&queues, &queue, "many")));
    let one = async {
        tokio::task::yield_now().await;
        slot(&queues, &queue, "one").await
    };
    let (many, one) = tokio::join!(many, one);
    assert!(one.is_ok());
    let refused = many.iter().filter(|slot| matches!(slot, Err(CallFault::Busy { .. }))).count();
    assert_eq!(refused, 2, "one passes, three wait, one is refused, one makes room");
}

#[tokio::test(start_paused = true)]
async fn one_who_leaves_the_queue_makes_room() {
    let (queues, queue) = queue(60, 6_000_000, 1);
    slot(&queues, &queue, "a").await.unwrap();
    let short = Duration::from_millis(10);
    assert!(tokio::time::timeout(short, slot(&queues, &queue, "a")).await.is_err());
    assert!(slot(&queues, &queue, "a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_was_billed_beyond_the_input_is_waited_for_by_the_next() {
    let (queues, queue) = queue(60_000, 60, 9);
    let start = RuntimeInstant::now();
    let first = queues.slot(&queue, "a", Tokens::new(1), later()).await.unwrap();
    first.billed(Tokens::new(5)).await;
    queues.slot(&queue, "a", Tokens::new(1), later()).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_longer_hold_replaces_a_shorter_and_not_the_other_way_round() {
    let (queues, queue) = queue(60_000, 6_000_000, 9);
    let (first, start) = (slot(&queues, &queue, "a").await.unwrap(), RuntimeInstant::now());
    for seconds in [1, 7, 2] {
        first.throttled(None, Some(Duration::from_secs(seconds))).await;
    }
    slot(&queues, &queue, "a").await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_hold_beyond_the_queue_s_timeout_refuses_as_a_throttle() {
    let (queues, queue) = queue(60_000, 6_000_000, 9);
    let first = slot(&queues, &queue, "a").await.unwrap();
    first.throttled(None, Some(Duration::from_mins(1))).await;
    let refused = slot(&queues, &queue, "a").await.unwrap_err();
    let CallFault::Throttled { retry_after, code: None } = refused else { panic!("{refused:?}") };
    assert_eq!(retry_after.as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_hold_sends_those_who_wait_to_look_for_another_queue() {
    let (queues, queue) = queue(60, 6_000_000, 9);
    let first = slot(&queues, &queue, "a").await.unwrap();
    let (waiting, ()) = tokio::join!(
        queues.slot(&queue, "a", TOKENS, later()),
        first.throttled(None, Some(Duration::from_millis(5))),
    );
    assert!(matches!(waiting, Err(NoSlot::Removed)), "{waiting:?}");
}

/// The number of calls that are visited while so many waiting calls are removed and join again.
async fn steps_of_sending_away(waiters: usize) -> u64 {
    let (queues, queue) = queue(60_000, 60_000_000, waiters);
    // No call leaves meanwhile.
    queue.controller.hold(Duration::from_secs(5));
    let ask = async |tenant: &str| {
        while let Err(NoSlot::Removed) = queues.slot(&queue, tenant, TOKENS, later()).await {}
    };
    let tenants = ["a", "b", "c", "d"].iter().cycle();
    let calls = join_all(tenants.take(waiters).map(|tenant| ask(tenant)));
    let sent_away = async {
        let all_wait = async || {
            while queue.waiting().len() < waiters {
                tokio::task::yield_now().await;
            }
        };
        all_wait().await;
        queue.waiting().steps.set(0);
        queue.send_away();
        all_wait().await;
        queue.waiting().steps.get()
    };
    tokio::select! {
        biased;
        _ = calls => panic!("all had their slots"),
        steps = sent_away => steps,
    }
}

#[tokio::test(start_paused = true)]
async fn four_times_as_many_that_are_sent_away_take_little_more_than_four_times_the_work() {
    let (few, many) = (steps_of_sending_away(250).await, steps_of_sending_away(1_000).await);
    assert!(few > 0 && many <= 8 * few, "{few} steps for 250 calls, {many} for 1,000");
}

#[tokio::test(start_paused = true)]
async fn what_another_replica_was_told_sends_those_who_wait_to_look_for_another_queue() {
    let store = MemoryCells::new();
    let replica = || {
        let shared = Arc::clone(&store) as Arc<dyn SharedCells>;
        let queues =
            CallQueues::new(&settings("http://localhost"), Some(shared), RuntimeClock::new());
        let queue = queues.queue("account", "model", RateLimits::per_minute(60, 6_000_000));
        (queues, queue)
    };
    let ((one, of_one), (other, of_other)) = (replica(), replica());
    let told = slot(&one, &of_one, "a").await.unwrap();
    let (waiting, ()) = tokio::join!(
        other.slot(&of_other, "a", TOKENS, later()),
        told.throttled(None, Some(Duration::from_secs(3))),
    );
    assert!(matches!(waiting, Err(NoSlot::Removed)), "{waiting:?}");
}

/// Jain's index: 1 where all have the same, 1/n where one has all.
fn jain(shares: &[u64]) -> f64 {
    let sum: u64 = shares.iter().sum();
    let squares: u64 = shares.iter().map(|share| share * share).sum();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let index = (sum * sum) as f64 / (squares * shares.len() as u64) as f64;
    index
}

#[tokio::test(start_paused = true)]
async fn four_greedy_tenants_share_alike_whatever_they_ask_for_at_once() {
    let (queues, queue) = queue(600, 6_000_000, 1_000);
    let (tokens, end) = (Mutex::new(BTreeMap::new()), later() + Duration::from_secs(290));
    // Callers at once, and the size of their pages.
    let tenants = [("a", 60, 1_000), ("b", 8, 1_000), ("c", 30, 30_000), ("d", 4, 12_000)];
    let greedy = async |tenant: &'static str, size: u64| {
        while RuntimeInstant::now().into_std() < end {
            if queues.slot(&queue, tenant, Tokens::new(size), later()).await.is_ok() {
                // The time that it took from the rate: a tenth of a second is a request, or ten thousand tokens.
                *tokens.lock().unwrap().entry(tenant).or_default() += size.max(10_000);
            } else {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    let callers = tenants.iter().flat_map(|&(tenant, callers, size)| {
        let greedy = &greedy;
        (0..callers).map(move |_| greedy(tenant, size))
    });
    join_all(callers).await;
    let tokens = tokens.into_inner().unwrap();
    let shares: Vec<u64> = tokens.values().copied().collect();
    assert!(shares.len() == 4 && jain(&shares) > 0.98, "{tokens:?}: {}", jain(&shares));
}
