//! Calls that wait for room in a budget, and late commits, on a real PostgreSQL with two replicas. One of the replicas
//! is always busy.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::clock::{Clock, ManualClock};
use ocr_gateway::lease::instance::Instance;
use ocr_gateway::ledger::books::{Bill, Charge};
use ocr_gateway::ledger::budget::Budgets;
use ocr_gateway::ledger::settings::LedgerSettings;
use ocr_gateway::ledger::window::Calendar;
use ocr_gateway::ledger::{Ledger, Reservation, ReserveError};
use ocr_gateway::random::SystemRandom;
use ocr_gateway::store::Store;
use ocr_gateway::supervisor::Supervisor;
use ocr_gateway::telemetry::metrics::{Metrics, MetricsSettings};
use ocr_gateway::units::{Currency, Money, Tokens, Usage};
use tokio::task::JoinSet;

use crate::databases::Database;
use crate::harness::{LONGEST_WAIT, until};

/// A time in the middle of the last day of a month.
const NOON: Duration = Duration::from_hours(493_764);

/// A process with a database.
struct Replica {
    ledger: Ledger,
    clock: Arc<ManualClock>,
    store: Store,
    _background: Supervisor,
}

impl Replica {
    async fn on(database: &Database, clock: &Arc<ManualClock>) -> Self {
        let store = database.connect().await;
        let settings =
            LedgerSettings { lease_ms: 30_000, retention_days: 400, time_zone: Calendar::UTC };
        let metrics = Arc::new(Metrics::new(&MetricsSettings { max_tenants: 9 }).unwrap());
        let (random, background) = (Arc::new(SystemRandom), Supervisor::default());
        let (leases, lease) = (store.leases(), settings.lease());
        let (own_clock, chance, shown) = (clock.clone(), random.clone(), Arc::clone(&metrics));
        let instance =
            Instance::open(leases, lease, own_clock, chance, shown, &background).await.unwrap();
        let (held_by, own_clock) = (instance, clock.clone());
        let ledger = store.ledger();
        let ledger =
            Ledger::open(ledger, held_by, &settings, own_clock, random, metrics, &background);
        Self { ledger, clock: clock.clone(), store, _background: background }
    }

    /// Reserves this number of tokens for a tenant that may spend 1,000 a day.
    async fn ask(&self, count: u64) -> Result<Reservation, ReserveError> {
        ask(&self.ledger, "acme", count, self.clock.instant() + LONGEST_WAIT).await
    }

    /// Reserves in a separate task, and returns once the call waits. A later call that would fit then waits for this
    /// one.
    async fn wait_for(&self, count: u64) -> JoinSet<Result<Reservation, ReserveError>> {
        let (ledger, mut call) = (self.ledger.clone(), JoinSet::new());
        let now = self.clock.instant();
        call.spawn(async move { ask(&ledger, "acme", count, now + LONGEST_WAIT).await });
        until("it waits", async || ask(&self.ledger, "acme", 1, now).await.is_err()).await;
        call
    }

    /// Keeps it busy with another tenant while the set exists.
    fn keep_busy(&self) -> JoinSet<()> {
        let mut callers = JoinSet::new();
        for _ in 0..4 {
            let (ledger, deadline) = (self.ledger.clone(), self.clock.instant() + LONGEST_WAIT);
            callers.spawn(async move {
                loop {
                    ask(&ledger, "busy", 1, deadline).await.unwrap().settle(Bill::default()).await;
                }
            });
        }
        callers
    }

    /// The amount reserved for the day.
    async fn reserved(&self) -> u64 {
        self.ledger.balances("acme").await.unwrap().daily.reserved
    }
}

async fn ask(
    ledger: &Ledger,
    tenant: &str,
    count: u64,
    deadline: Instant,
) -> Result<Reservation, ReserveError> {
    let charge = Charge {
        tenant: tenant.into(),
        key: None,
        model: "m".into(),
        bound: Usage { image: Tokens::new(count), ..Usage::default() },
        cost: Money::from_nanos(count),
        currency: Currency::Cny,
    };
    let daily_tokens = Some(Tokens::new(1_000));
    ledger.reserve(charge, Budgets { daily_tokens, ..Budgets::default() }, deadline).await
}

/// Two replicas. The first holds 900 of 1,000 tokens; a call of 400 waits at the second, which is busy. `free` makes
/// room.
async fn room_is_found_when(free: impl AsyncFnOnce(&Replica, &ManualClock, Reservation)) {
    let Some(database) = Database::postgres().await else { return };
    let store = database.open().await;
    let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + NOON));
    let mut tenant = Tenant::new("acme".parse().unwrap());
    tenant.daily_tokens = std::num::NonZeroU64::new(1_000);
    store.tenants().create_tenant(&tenant).await.unwrap();
    let (one, other) = (Replica::on(&database, &clock).await, Replica::on(&database, &clock).await);
    let held = one.ask(900).await.unwrap();
    let busy = other.keep_busy();
    let mut waiting = other.wait_for(400).await;
    free(&one, &clock, held).await;
    let answer = tokio::time::timeout(LONGEST_WAIT, waiting.join_next()).await;
    let answer = answer.expect("the call waits although there is room").unwrap().unwrap();
    assert!(answer.is_ok(), "{answer:?}");
    drop(busy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_that_another_replica_freed_is_found_by_a_busy_one() {
    room_is_found_when(async |_, _, held| {
        held.settle(Bill::default()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_of_the_next_day_is_found_by_a_busy_replica() {
    room_is_found_when(async |_, clock, held| {
        clock.set(SystemTime::UNIX_EPOCH + NOON + Duration::from_hours(12));
        std::mem::forget(held);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_of_a_raised_budget_is_found_by_a_busy_replica() {
    room_is_found_when(async |one, _, held| {
        let tenants = one.store.tenants();
        let raised = |mut tenant: Tenant| {
            tenant.daily_tokens = std::num::NonZeroU64::new(2_000);
            tenant.checked()
        };
        let name = "acme".parse().unwrap();
        let tenant = tenants.tenant(&name).await.unwrap().unwrap();
        tenants.update_tenant(&raised(tenant).unwrap()).await.unwrap();
        std::mem::forget(held);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_lands_after_its_repeat_has_read_leaves_nothing_reserved() {
    let Some(database) = Database::postgres().await else { return };
    let store = database.open().await;
    // The first commit takes longer than its caller (3 s) and the writer (4 s) wait.
    for statement in [
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.bound_image = 600 THEN PERFORM pg_sleep(6); END IF;
            RETURN NEW; END $$",
        "CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON ledger_entries
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dawdle()",
    ] {
        database.execute(statement).await;
    }
    let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + NOON));
    let replica = Replica::on(&database, &clock).await;
    // The accounts then exist, so that the batch is one transaction.
    drop(replica.ask(1).await.unwrap());
    assert_eq!(replica.ask(600).await.unwrap_err(), ReserveError::Unavailable);
    until("it has landed", async || {
        let day = jiff::civil::date(2026, 4, 30);
        let accounts = store.ledger().accounts(&["acme"], day).await.unwrap();
        accounts.iter().any(|(_, account)| account.granted >= 601)
    })
    .await;
    until("nothing is reserved", async || replica.reserved().await == 0).await;
    assert!(replica.ask(700).await.is_ok(), "there is room again");
}
