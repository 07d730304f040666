//! Ends that linger until a reservation shares their commit.

use super::*;

const LONG: Duration = Duration::from_hours(1);

/// A ledger over `store`, whose writer runs as long as `tasks` lives.
async fn ledger_over(store: &Arc<FakeLedgerStore>, tasks: &mut JoinSet<()>) -> Ledger {
    let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + START));
    let random = Arc::new(SeededRandom::new(1));
    let instance = instance(store.clone(), clock.clone(), random.clone(), metrics()).await;
    let (ledger, writer, _) =
        Ledger::assemble(store.clone(), instance, &SETTINGS, clock, random, metrics());
    tasks.spawn(writer.run());
    ledger
}

async fn reserved(ledger: &Ledger, tokens: u64) -> Reservation {
    let charge = Charge {
        tenant: "acme".into(),
        key: None,
        model: "m".into(),
        bound: usage(tokens),
        cost: Money::from_nanos(tokens),
        currency: Currency::Cny,
    };
    let deadline = ledger.context.clock.instant() + LONG;
    ledger.reserve(charge, budgets(), deadline).await.unwrap()
}

fn bill(tokens: u64) -> Bill {
    Bill { usage: usage(tokens), cost: Money::from_nanos(tokens), request_id: None, endpoint: None }
}

fn state(store: &FakeLedgerStore, id: Uuid) -> EntryState {
    store.tables().entries[&id].state
}

#[tokio::test(start_paused = true)]
async fn an_end_is_posted_with_the_next_reservation_and_its_caller_waits_for_neither() {
    let store = Arc::new(FakeLedgerStore::with_linger(LONG));
    let mut tasks = JoinSet::new();
    let ledger = ledger_over(&store, &mut tasks).await;
    let first = reserved(&ledger, 300).await;
    let id = first.id();
    let balances = first.settle(bill(100)).await;
    assert_eq!((balances.daily.settled, balances.daily.reserved), (100, 0));
    assert_eq!(state(&store, id), EntryState::Open);
    let second = reserved(&ledger, 900).await;
    assert_eq!((state(&store, id), store.tables().batches), (EntryState::Settled, 2));
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn an_end_without_company_is_posted_when_its_time_is_over() {
    let store = Arc::new(FakeLedgerStore::with_linger(Duration::from_millis(2)));
    let mut tasks = JoinSet::new();
    let ledger = ledger_over(&store, &mut tasks).await;
    let reservation = reserved(&ledger, 300).await;
    let id = reservation.id();
    drop(reservation.settle(bill(100)));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(state(&store, id), EntryState::Settled);
}

#[tokio::test(start_paused = true)]
async fn who_reads_after_an_answer_reads_of_it() {
    let store = Arc::new(FakeLedgerStore::with_linger(LONG));
    let mut tasks = JoinSet::new();
    let ledger = ledger_over(&store, &mut tasks).await;
    let reservation = reserved(&ledger, 300).await;
    drop(reservation.settle(bill(100)));
    let balances = ledger.balances("acme").await.unwrap();
    assert_eq!((balances.daily.settled, balances.daily.reserved), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_room_gets_it_from_an_end_at_once() {
    let store = Arc::new(FakeLedgerStore::with_linger(LONG));
    let mut tasks = JoinSet::new();
    let ledger = ledger_over(&store, &mut tasks).await;
    let first = reserved(&ledger, 900).await;
    let mut waiting = JoinSet::new();
    waiting.spawn({
        let ledger = ledger.clone();
        async move { reserved(&ledger, 400).await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(waiting.try_join_next().is_none());
    drop(first.settle(bill(100)));
    let second = tokio::time::timeout(Duration::from_secs(1), waiting.join_next()).await;
    let second = second.unwrap().unwrap().unwrap();
    assert_eq!(state(&store, second.id()), EntryState::Open);
}

#[tokio::test(start_paused = true)]
async fn nothing_lingers_when_the_process_takes_leave() {
    let store = Arc::new(FakeLedgerStore::with_linger(LONG));
    let mut tasks = JoinSet::new();
    let ledger = ledger_over(&store, &mut tasks).await;
    let reservation = reserved(&ledger, 300).await;
    let id = reservation.id();
    drop(reservation.settle(bill(100)));
    ledger.close().await;
    assert_eq!(state(&store, id), EntryState::Settled);
}
