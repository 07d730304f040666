//! Calls that wait: for room in a budget, for their turn, and for a commit whose answer does not come.

use super::*;
use crate::ledger::budget::BudgetExceeded;

/// The longest that a test of waiting calls takes in virtual time.
const LONG: Duration = Duration::from_mins(10);

/// The reply that a call received.
type Answer = Result<Reservation, ReserveError>;

/// Processes on one store, whose tasks run as long as this lives.
struct Replicas {
    store: Arc<FakeLedgerStore>,
    clock: Arc<ManualClock>,
    tasks: JoinSet<()>,
}

impl Replicas {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + START));
        Self { store: Arc::default(), clock, tasks: JoinSet::new() }
    }

    /// One more process.
    async fn start(&mut self) -> Ledger {
        let random = Arc::new(SeededRandom::new(self.tasks.len() as u64));
        let (clock, store) = (self.clock.clone(), self.store.clone());
        let instance = instance(store.clone(), clock.clone(), random.clone(), metrics()).await;
        let (ledger, writer, _) =
            Ledger::assemble(store, instance, &SETTINGS, clock, random, metrics());
        self.tasks.spawn(writer.run());
        ledger
    }

    /// Keeps the process busy with another tenant. Its pauses are shorter than the time between two tries.
    fn keep_busy(&mut self, ledger: &Ledger) {
        let ledger = ledger.clone();
        self.tasks.spawn(async move {
            loop {
                let call = asked(&ledger, "busy", 1, Duration::from_secs(1)).await;
                call.unwrap().release();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    /// The reserved amount of the day.
    fn reserved(&self, tenant: &str) -> u64 {
        let tables = self.store.tables();
        let of_day = tables.accounts.iter().filter(|(key, _)| {
            &*key.tenant == tenant && key.unit == Unit::Tokens && key.window.period == Period::Day
        });
        of_day.map(|(_, account)| account.reserved).sum()
    }
}

/// A call of so many tokens that waits for at most so long.
async fn asked(ledger: &Ledger, tenant: &str, tokens: u64, patience: Duration) -> Answer {
    let charge = Charge {
        tenant: tenant.into(),
        key: None,
        model: "m".into(),
        bound: usage(tokens),
        cost: Money::from_nanos(tokens),
        currency: Currency::Cny,
    };
    let deadline = ledger.context.clock.instant() + patience;
    ledger.reserve(charge, budgets(), deadline).await
}

/// A call in a task of its own; returns once the call waits.
async fn waiting(ledger: &Ledger, tokens: u64) -> JoinSet<Answer> {
    let (ledger, mut calls) = (ledger.clone(), JoinSet::new());
    calls.spawn(async move { asked(&ledger, "acme", tokens, LONG).await });
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(calls.try_join_next().is_none(), "it does not wait");
    calls
}

/// The reply that a waiting call receives within a second.
async fn heard(calls: &mut JoinSet<Answer>) -> Answer {
    let answer = tokio::time::timeout(Duration::from_secs(1), calls.join_next()).await;
    answer.expect("it waits although there is room").unwrap().unwrap()
}

fn bill(tokens: u64) -> Bill {
    Bill { usage: usage(tokens), cost: Money::from_nanos(tokens), request_id: None, endpoint: None }
}

#[tokio::test(start_paused = true)]
async fn room_that_was_freed_on_another_replica_is_found_however_busy_this_one_is() {
    let mut replicas = Replicas::new();
    let (one, other) = (replicas.start().await, replicas.start().await);
    let first = asked(&one, "acme", 900, LONG).await.unwrap();
    let mut second = waiting(&other, 400).await;
    replicas.keep_busy(&other);
    drop(first.settle(bill(100)));
    assert!(heard(&mut second).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn room_of_a_new_day_is_found_however_busy_the_process_is() {
    let mut replicas = Replicas::new();
    let ledger = replicas.start().await;
    // The last day of a month, so that both windows begin anew.
    let _held = asked(&ledger, "acme", 900, LONG).await.unwrap();
    let mut second = waiting(&ledger, 400).await;
    replicas.keep_busy(&ledger);
    replicas.clock.set(SystemTime::UNIX_EPOCH + START + Duration::from_mins(1));
    assert!(heard(&mut second).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_raised_budget_reaches_the_calls_that_wait() {
    let mut replicas = Replicas::new();
    let ledger = replicas.start().await;
    replicas.store.tables().budgets.insert("acme".into(), budgets());
    let _held = asked(&ledger, "acme", 900, LONG).await.unwrap();
    let mut second = waiting(&ledger, 400).await;
    replicas.keep_busy(&ledger);
    let daily_tokens = Some(Tokens::new(1_400));
    let raised = Budgets { daily_tokens, ..budgets() };
    replicas.store.tables().budgets.insert("acme".into(), raised);
    assert!(heard(&mut second).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lowered_budget_refuses_the_calls_that_wait() {
    let mut replicas = Replicas::new();
    let ledger = replicas.start().await;
    replicas.store.tables().budgets.insert("acme".into(), budgets());
    let _held = asked(&ledger, "acme", 900, LONG).await.unwrap();
    let mut second = waiting(&ledger, 400).await;
    let lowered = Budgets { daily_tokens: Some(Tokens::new(300)), ..budgets() };
    replicas.store.tables().budgets.insert("acme".into(), lowered);
    let refused = heard(&mut second).await.unwrap_err();
    let is_lowered = matches!(refused, ReserveError::Exceeded(BudgetExceeded { limit: 300, .. }));
    assert!(is_lowered, "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_small_call_does_not_pass_a_large_one_that_asked_before_it() {
    let mut replicas = Replicas::new();
    let ledger = replicas.start().await;
    let first = asked(&ledger, "acme", 900, LONG).await.unwrap();
    let mut large = waiting(&ledger, 500).await;
    let mut small = waiting(&ledger, 50).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(small.try_join_next().is_none(), "it fits, but another asked first");
    drop(first.settle(bill(100)));
    let _served = (heard(&mut large).await.unwrap(), heard(&mut small).await.unwrap());
    assert_eq!(replicas.reserved("acme"), 550);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_with_many_calls_delays_another_by_no_whole_batch() {
    let mut replicas = Replicas::new();
    let ledger = replicas.start().await;
    let ask = |tenant: &'static str| {
        let ledger = ledger.clone();
        async move { asked(&ledger, tenant, 1, LONG).await }
    };
    // The writer pauses before it posts the first call again. All other calls arrive meanwhile.
    let mut fates = vec![Fate::Lost];
    replicas.store.let_decide(move || fates.pop().unwrap_or(Fate::Posted));
    let mut calls = JoinSet::new();
    calls.spawn(ask("first"));
    tokio::time::sleep(Duration::from_millis(5)).await;
    (0..900).for_each(|_| drop(calls.spawn(ask("acme"))));
    tokio::time::sleep(Duration::from_millis(5)).await;
    // Its request comes last, and its name sorts last.
    let _other = ask("zeta").await.unwrap();
    assert_eq!(replicas.store.tables().batches, 2);
    calls.join_all().await.into_iter().for_each(|answer| drop(answer.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn every_call_of_a_long_queue_is_told_that_it_waits_and_the_4097th_that_there_is_no_room() {
    let mut replicas = Replicas::new();
    let ledger = replicas.start().await;
    let held = asked(&ledger, "acme", 1_000, LONG).await.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..4_096 {
        let ledger = ledger.clone();
        calls.spawn(async move { asked(&ledger, "acme", 1, LONG).await });
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    let refused = std::iter::from_fn(|| calls.try_join_next()).collect::<Vec<_>>();
    // One call has found no room: the reserved call has the first of 4,096 places.
    assert_eq!(refused.len(), 1, "of 4,096 that wait");
    assert_eq!(refused[0].as_ref().unwrap().as_ref().unwrap_err(), &ReserveError::Unavailable);
    drop(held.settle(bill(0)));
    let mut served = 0;
    while let Some(Ok(answer)) = calls.join_next().await {
        drop(answer.unwrap().settle(bill(0)));
        served += 1;
    }
    assert_eq!(served, 4_095);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_lands_after_its_repeat_has_read_leaves_nothing_reserved() {
    for late in [4_500, 6_500, 9_000, 30_000] {
        let mut replicas = Replicas::new();
        let ledger = replicas.start().await;
        let mut fates = vec![Fate::Late(Duration::from_millis(late))];
        replicas.store.let_decide(move || fates.pop().unwrap_or(Fate::Posted));
        let refused = asked(&ledger, "acme", 600, LONG).await.unwrap_err();
        assert_eq!(refused, ReserveError::Unavailable);
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(replicas.store.tables().accounts.len(), 4, "it has landed");
        assert_eq!(replicas.reserved("acme"), 0, "after {late} ms");
        let next = asked(&ledger, "acme", 600, LONG).await;
        assert!(next.is_ok(), "{next:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_after_a_late_commit_holds_its_bound_once() {
    let mut replicas = Replicas::new();
    let (one, other) = (replicas.start().await, replicas.start().await);
    let first = asked(&other, "acme", 500, LONG).await.unwrap();
    let mut fates = vec![Fate::Late(Duration::from_millis(5_500)), Fate::Lost];
    replicas.store.let_decide(move || fates.pop().unwrap_or(Fate::Posted));
    let _ = asked(&one, "acme", 300, LONG).await;
    drop(first.settle(bill(500)));
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(replicas.reserved("acme"), 0);
}
