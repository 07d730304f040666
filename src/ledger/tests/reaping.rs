//! The tasks of a ledger: how they handle invalid rows, and how they end.

use super::super::books::{Books, Operation, Outcome};
use super::*;
use crate::lease::expiry::MISSED_HEARTBEATS;
use crate::lease::instance::Instance;
use crate::supervisor::Supervisor;
use crate::telemetry::levels::Levels;

/// A ledger whose tasks are supervised, with metrics of its own.
struct Opened {
    store: Arc<FakeLedgerStore>,
    instance: Arc<Instance>,
    ledger: Ledger,
    supervisor: Supervisor,
    metrics: Arc<Metrics>,
}

impl Opened {
    /// A ledger after its first round.
    async fn new(store: FakeLedgerStore) -> Self {
        let (store, supervisor) = (Arc::new(store), Supervisor::default());
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + START));
        let metrics = Arc::new(Metrics::new(&MetricsSettings { max_tenants: 9 }).unwrap());
        let (random, lease) = (Arc::new(SeededRandom::new(1)), SETTINGS.lease());
        let parts = (store.clone(), clock.clone(), random.clone(), Arc::clone(&metrics));
        let opened = Instance::open(parts.0, lease, parts.1, parts.2, parts.3, &supervisor).await;
        let instance = opened.unwrap();
        let parts = (store.clone(), Arc::clone(&instance), Arc::clone(&metrics));
        let ledger = Ledger::open(parts.0, parts.1, &SETTINGS, clock, random, parts.2, &supervisor);
        let opened = Self { store, instance, ledger, supervisor, metrics };
        tokio::time::sleep(Duration::from_secs(1)).await;
        opened
    }

    async fn reserve(&self, tokens: u64) -> Result<Reservation, ReserveError> {
        let charge = Charge {
            tenant: "acme".into(),
            key: None,
            model: "m".into(),
            bound: usage(tokens),
            cost: Money::from_nanos(tokens),
            currency: Currency::Cny,
        };
        let deadline = self.ledger.context.clock.instant() + Duration::from_secs(1);
        self.ledger.reserve(charge, budgets(), deadline).await
    }

    /// A reservation that its process loses.
    async fn lost(&self, tokens: u64) -> Uuid {
        let reservation = self.reserve(tokens).await.unwrap();
        let id = reservation.id();
        std::mem::forget(reservation);
        id
    }

    fn state(&self, id: Uuid) -> EntryState {
        self.store.tables().entries[&id].state
    }

    fn metric(&self, name: &str) -> Option<u64> {
        let text = String::from_utf8(self.metrics.encode(&Levels::default()).unwrap()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }
}

/// Long enough for a round.
async fn a_round() {
    tokio::time::sleep(SETTINGS.lease() / MISSED_HEARTBEATS + Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_written_off_keeps_no_other_from_it_and_is_alarmed() {
    let opened = Opened::new(FakeLedgerStore::default()).await;
    let calls = [opened.lost(1).await, opened.lost(2).await, opened.lost(3).await];
    let stuck = calls[1];
    {
        let mut tables = opened.store.tables();
        tables.broken.insert(stuck);
        for entry in tables.entries.values_mut() {
            entry.instance = Uuid::nil();
        }
    }
    for _ in 0..2 {
        a_round().await;
        let states = calls.map(|call| opened.state(call));
        let [open, off] = [EntryState::Open, EntryState::Unverified];
        assert_eq!(states, [off, open, off]);
        assert_eq!(opened.metric("ocr_gateway_ledger_stuck_orphans"), Some(1));
    }
    opened.store.tables().broken.clear();
    a_round().await;
    assert_eq!(opened.state(stuck), EntryState::Unverified);
    assert_eq!(opened.metric("ocr_gateway_ledger_stuck_orphans"), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_round_goes_on_although_the_store_does_not_answer_one_of_its_questions() {
    let opened = Opened::new(FakeLedgerStore::default()).await;
    let call = opened.lost(1).await;
    opened.store.tables().entries.get_mut(&call).unwrap().instance = Uuid::nil();
    // The answer does not arrive before the next round is due.
    let mut fates = vec![Fate::Late(Duration::from_mins(1)), Fate::Posted, Fate::Posted];
    opened.store.let_decide(move || fates.pop().unwrap_or(Fate::Posted));
    a_round().await;
    a_round().await;
    a_round().await;
    let instance = opened.instance.id();
    assert!(
        opened.store.tables().instances[&instance] >= 3,
        "the process sends no heartbeats any more"
    );
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(opened.state(call), EntryState::Unverified);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_call_that_the_ledger_cannot_count_leaves_it_at_its_bound_and_is_alarmed() {
    let opened = Opened::new(FakeLedgerStore::default()).await;
    let reservation = opened.reserve(10).await.unwrap();
    let id = reservation.id();
    let beyond =
        Bill { usage: usage(u64::MAX), cost: Money::ZERO, request_id: None, endpoint: None };
    reservation.settle(beyond).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(opened.state(id), EntryState::Unverified);
    let balances = opened.ledger.balances("acme").await.unwrap();
    assert_eq!((balances.daily.settled, balances.daily.reserved), (10, 0));
    assert_eq!(opened.metric("ocr_gateway_ledger_stuck_ends_total"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_was_closed_does_not_register_again() {
    let opened = Opened::new(FakeLedgerStore::default()).await;
    assert_eq!(opened.store.tables().instances.len(), 1);
    opened.supervisor.let_end();
    opened.ledger.close().await;
    opened.instance.close().await;
    a_round().await;
    a_round().await;
    assert_eq!(opened.store.tables().instances.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_panics_is_told_of_and_refuses_at_once() {
    let opened = Opened::new(FakeLedgerStore::default()).await;
    opened.store.let_decide(|| panic!("as the test wants"));
    let refused = opened.reserve(1).await.unwrap_err();
    assert_eq!(refused, ReserveError::Unavailable);
    let told = opened.supervisor.check().unwrap_err().to_string();
    assert!(told.contains("\"ledger writer\""), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_panics_is_told_of() {
    let opened = Opened::new(FakeLedgerStore::default()).await;
    opened.store.let_decide(|| panic!("as the test wants"));
    a_round().await;
    let told = opened.supervisor.check().unwrap_err().to_string();
    assert!(told.contains("\"heartbeat\""), "{told}");
}

#[test]
fn a_clamped_bill_is_not_lowered_to_the_bound_by_a_reaper_that_comes_late() {
    let (id, today) = (Uuid::from_u128(1), jiff::civil::date(2026, 5, 4));
    let charge = Charge {
        tenant: "acme".into(),
        key: None,
        model: "m".into(),
        bound: usage(100),
        cost: Money::from_nanos(100),
        currency: Currency::Cny,
    };
    let bill =
        Bill { usage: usage(300), cost: Money::from_nanos(300), request_id: None, endpoint: None };
    let mut books = Books::default();
    let instance = Uuid::nil();
    books.post(&Operation::Reserve { id, instance, charge, budgets: Budgets::default() }, today);
    let clamped = books.post(&Operation::Clamp { id, bill }, today);
    assert!(matches!(clamped, Outcome::Closed(..)), "{clamped:?}");
    // The reaper of another process saw the entry while it was open.
    let written_off = books.post(&Operation::WriteOff { id, cost: None, endpoint: None }, today);
    assert_eq!(written_off, Outcome::Unchanged);
}

#[tokio::test(start_paused = true)]
async fn a_bill_whose_reservation_the_database_has_lost_is_an_alarm() {
    let opened = Opened::new(FakeLedgerStore::default()).await;
    let stuck = "ocr_gateway_ledger_stuck_ends_total";
    let [billed, unbilled] = [opened.reserve(5).await.unwrap(), opened.reserve(5).await.unwrap()];
    opened.store.tables().entries.clear();
    unbilled.release();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(opened.metric(stuck), Some(0));
    billed.settle(Bill { usage: usage(3), ..Bill::default() }).await;
    assert_eq!(opened.metric(stuck), Some(1));
}
