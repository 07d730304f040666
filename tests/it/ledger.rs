//! The guarantees of a ledger store, tested on both engines by the same code.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::civil::{Date, date};
use ocr_gateway::clock::{Clock, ManualClock};
use ocr_gateway::lease::instance::Instance;
use ocr_gateway::ledger::account::{Account, Unit};
use ocr_gateway::ledger::books::{Bill, Charge, Operation, Outcome};
use ocr_gateway::ledger::budget::Budgets;
use ocr_gateway::ledger::settings::LedgerSettings;
use ocr_gateway::ledger::usage::{Division, Imbalance, Part, PartRow, Spending, UsageQuery};
use ocr_gateway::ledger::window::{Calendar, Period};
use ocr_gateway::ledger::{Ledger, LedgerStore, LedgerStoreError};
use ocr_gateway::random::{Random as _, SeededRandom, SystemRandom, new_id};
use ocr_gateway::store::Store;
use ocr_gateway::supervisor::Supervisor;
use ocr_gateway::telemetry::metrics::{Metrics, MetricsSettings};
use ocr_gateway::units::{Currency, Money, Tokens, Usage};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::databases::{Database, PrivatePostgres};
use crate::harness::until;

/// The last day of a month.
const DAY: Date = date(2026, 4, 30);
const NEXT_DAY: Date = date(2026, 5, 1);

/// Checks a guarantee on an empty database of each engine.
async fn on_each_engine(promise: impl AsyncFn(&Database, Arc<dyn LedgerStore>)) {
    for database in Database::of_each_engine().await {
        println!("on {}", database.engine);
        let store = database.open().await;
        promise(&database, store.ledger()).await;
        assert_eq!(store.ledger().audit(DAY).await.unwrap(), [], "the ledger does not add up");
    }
}

fn id() -> Uuid {
    // By its ID, it was created on `DAY`.
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_777_550_000));
    new_id(&clock, &SystemRandom)
}

fn tokens(count: u64) -> Usage {
    Usage { image: Tokens::new(count), ..Usage::default() }
}

fn charge(tenant: &str, count: u64) -> Charge {
    Charge {
        tenant: tenant.into(),
        key: None,
        model: "m".into(),
        bound: tokens(count),
        cost: Money::from_nanos(count * 3),
        currency: Currency::Cny,
    }
}

fn reserve(id: Uuid, tenant: &str, count: u64, budgets: Budgets) -> Operation {
    Operation::Reserve { id, instance: Uuid::nil(), charge: charge(tenant, count), budgets }
}

fn settle(id: Uuid, count: u64) -> Operation {
    let (usage, cost) = (tokens(count), Money::from_nanos(count * 3));
    Operation::Settle {
        id,
        bill: Bill { usage, cost, request_id: Some("r".to_owned()), endpoint: None },
    }
}

fn daily(count: u64) -> Budgets {
    Budgets { daily_tokens: Some(Tokens::new(count)), ..Budgets::default() }
}

async fn post(store: &dyn LedgerStore, operation: Operation) -> Outcome {
    post_on(store, operation, DAY).await
}

async fn post_on(store: &dyn LedgerStore, operation: Operation, today: Date) -> Outcome {
    let mut outcomes = store.post(&[operation], today).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

/// The account of a period in a unit.
async fn account(store: &dyn LedgerStore, day: Date, period: Period, unit: Unit) -> Account {
    let accounts = store.accounts(&["acme"], day).await.unwrap();
    let found = accounts.iter().find(|(key, _)| key.unit == unit && key.window.period == period);
    found.map(|(_, account)| *account).unwrap_or_default()
}

async fn day(store: &dyn LedgerStore) -> Account {
    account(store, DAY, Period::Day, Unit::Tokens).await
}

fn query(from: Date, to: Date) -> UsageQuery {
    UsageQuery { tenant: None, from, to }
}

#[tokio::test]
async fn a_call_that_was_not_necessary_is_counted_once_at_nothing_and_needs_no_budget() {
    on_each_engine(async |_, store| {
        let spent = id();
        post(&*store, reserve(spent, "acme", 100, daily(100))).await;
        post(&*store, settle(spent, 100)).await;
        let (call, charge) = (id(), charge("acme", 70));
        let note = Operation::Note { id: call, instance: Uuid::nil(), charge };
        for _ in 0..2 {
            assert_eq!(post(&*store, note.clone()).await, Outcome::Unchanged);
        }
        assert_eq!(day(&*store).await.settled, 100);
        let usage = store.usage(&query(DAY, DAY)).await.unwrap();
        assert_eq!((usage[0].spending.calls, usage[0].spending.usage), (2, tokens(100)));
    })
    .await;
}

#[tokio::test]
async fn a_call_moves_day_and_month_in_tokens_and_money_and_the_usage_of_the_day() {
    on_each_engine(async |_, store| {
        let call = id();
        post(&*store, reserve(call, "acme", 100, Budgets::default())).await;
        post(&*store, settle(call, 30)).await;
        for period in Period::ALL {
            let account_of = async |unit| account(&*store, DAY, period, unit).await;
            let expected =
                Account { granted: 100, settled: 30, released: 70, ..Account::default() };
            assert_eq!(account_of(Unit::Tokens).await, expected);
            let money = account_of(Unit::Money(Currency::Cny)).await;
            assert_eq!((money.settled, money.released), (90, 210));
        }
        let rows = store.usage(&query(DAY, DAY)).await.unwrap();
        assert_eq!(
            (rows.len(), rows[0].spending.calls, rows[0].spending.usage.total().get()),
            (1, 1, 30)
        );
        assert_eq!((rows[0].spending.cost.nanos(), rows[0].spending.unverified_calls), (90, 0));
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_is_posted_again_changes_nothing_more() {
    on_each_engine(async |_, store| {
        let calls = [id(), id(), id(), id()];
        let mut batch: Vec<_> =
            calls.iter().map(|call| reserve(*call, "acme", 100, daily(400))).collect();
        batch.push(settle(calls[0], 120));
        batch.push(Operation::WriteOff { id: calls[1], cost: None, endpoint: None });
        batch.push(Operation::Release { id: calls[2] });
        store.post(&batch, DAY).await.unwrap();
        let before = (day(&*store).await, store.usage(&query(DAY, DAY)).await.unwrap());
        store.post(&batch, DAY).await.unwrap();
        store.post(&batch[4..], NEXT_DAY).await.unwrap();
        let after = (day(&*store).await, store.usage(&query(DAY, DAY)).await.unwrap());
        assert_eq!(before, after);
        assert_eq!((after.0.settled, after.0.reserved, after.0.excess), (220, 100, 20));
    })
    .await;
}

#[tokio::test]
async fn each_budget_binds_and_a_refusal_changes_nothing() {
    let (token, money) = (Some(Tokens::new(99)), Some(Money::from_nanos(299)));
    let budgets = [
        Budgets { daily_tokens: token, ..Budgets::default() },
        Budgets { monthly_tokens: token, ..Budgets::default() },
        Budgets { daily_cost: money, ..Budgets::default() },
        Budgets { monthly_cost: money, ..Budgets::default() },
    ];
    on_each_engine(async |_, store| {
        for budgets in budgets {
            let outcome = post(&*store, reserve(id(), "acme", 100, budgets)).await;
            let Outcome::Refused(exceeded) = outcome else { panic!("{outcome:?}") };
            assert!(exceeded.never_fits());
        }
        assert_eq!(day(&*store).await, Account::default());
    })
    .await;
}

#[tokio::test]
async fn a_tenant_that_was_changed_in_the_database_is_held_to_that_whatever_a_replica_remembers() {
    on_each_engine(async |database, store| {
        let tenants = database.connect().await.tenants();
        let mut tenant = ocr_gateway::auth::tenant::Tenant::new("acme".parse().unwrap());
        tenant.daily_tokens = std::num::NonZeroU64::new(50);
        tenants.create_tenant(&tenant).await.unwrap();
        let outcome = post(&*store, reserve(id(), "acme", 100, daily(1_000))).await;
        assert!(matches!(outcome, Outcome::Refused(exceeded) if exceeded.limit == 50));
        tenant.disabled = true;
        assert!(tenants.update_tenant(&tenant).await.unwrap());
        let outcome = post(&*store, reserve(id(), "acme", 10, daily(1_000))).await;
        assert_eq!(outcome, Outcome::Disabled);
        let of_file = Budgets { of_file: true, ..daily(1_000) };
        let outcome = post(&*store, reserve(id(), "acme", 10, of_file)).await;
        assert!(matches!(outcome, Outcome::Reserved(_, budgets) if budgets == of_file));
    })
    .await;
}

#[tokio::test]
async fn what_only_calls_in_flight_hold_is_told_from_what_is_spent() {
    on_each_engine(async |_, store| {
        let first = id();
        post(&*store, reserve(first, "acme", 80, daily(100))).await;
        let held = post(&*store, reserve(id(), "acme", 80, daily(100))).await;
        assert!(matches!(held, Outcome::Refused(exceeded) if exceeded.is_held()));
        post(&*store, settle(first, 80)).await;
        let spent = post(&*store, reserve(id(), "acme", 80, daily(100))).await;
        assert!(matches!(spent, Outcome::Refused(exceeded) if !exceeded.is_held()));
    })
    .await;
}

#[tokio::test]
async fn a_bill_that_comes_late_sets_a_written_off_call_right() {
    on_each_engine(async |_, store| {
        let (billed, unbilled) = (id(), id());
        for call in [billed, unbilled] {
            post(&*store, reserve(call, "acme", 100, Budgets::default())).await;
            post(&*store, Operation::WriteOff { id: call, cost: None, endpoint: None }).await;
        }
        assert_eq!(store.usage(&query(DAY, DAY)).await.unwrap()[0].spending.unverified_calls, 2);
        post(&*store, settle(billed, 40)).await;
        post(&*store, Operation::Release { id: unbilled }).await;
        let row = store.usage(&query(DAY, DAY)).await.unwrap().remove(0).spending;
        assert_eq!((row.calls, row.unverified_calls), (1, 0));
        assert_eq!((row.usage.total().get(), row.unverified_tokens.get()), (40, 0));
        assert_eq!(day(&*store).await.settled, 40);
        assert_eq!(post(&*store, settle(billed, 90)).await, Outcome::Unchanged);
        assert_eq!(post(&*store, settle(unbilled, 90)).await, Outcome::Unchanged);
    })
    .await;
}

#[tokio::test]
async fn a_call_is_written_off_at_what_it_cost_where_it_was_made_and_never_above_what_was_reserved()
{
    on_each_engine(async |_, store| {
        let write_off = |id, nanos| Operation::WriteOff {
            id,
            cost: Some(Money::from_nanos(nanos)),
            endpoint: None,
        };
        let [known, swept, above] = [id(), id(), id()];
        for call in [known, swept, above] {
            post(&*store, reserve(call, "acme", 100, Budgets::default())).await;
        }
        post(&*store, Operation::WriteOff { id: swept, cost: None, endpoint: None }).await;
        post(&*store, write_off(above, 301)).await;
        // A late report of a process that counts as dead corrects the sweep. A sweep corrects nothing.
        for (call, changes) in [(known, true), (swept, true), (known, false), (swept, false)] {
            let posted = post(&*store, write_off(call, 200)).await;
            assert_eq!(matches!(posted, Outcome::Closed(..)), changes);
        }
        let sweep = Operation::WriteOff { id: known, cost: None, endpoint: None };
        assert_eq!(post(&*store, sweep).await, Outcome::Unchanged);
        let row = store.usage(&query(DAY, DAY)).await.unwrap().remove(0).spending;
        assert_eq!((row.unverified_calls, row.usage.total().get()), (3, 300));
        assert_eq!(row.cost.nanos(), 200 + 200 + 300);
        let accounts = store.accounts(&["acme"], DAY).await.unwrap();
        let money = accounts.iter().find(|(key, _)| key.unit == Unit::Money(Currency::Cny));
        let (_, account) = money.unwrap();
        assert_eq!((account.settled, account.reserved, account.released), (700, 0, 200));
    })
    .await;
}

#[tokio::test]
async fn a_call_belongs_to_the_day_and_month_that_it_was_reserved_in() {
    on_each_engine(async |_, store| {
        let call = id();
        post_on(&*store, reserve(call, "acme", 100, daily(100)), DAY).await;
        post_on(&*store, settle(call, 60), NEXT_DAY).await;
        assert_eq!(day(&*store).await.settled, 60);
        assert_eq!(store.accounts(&["acme"], NEXT_DAY).await.unwrap(), []);
        let tomorrow = post_on(&*store, reserve(id(), "acme", 100, daily(100)), NEXT_DAY).await;
        assert!(matches!(tomorrow, Outcome::Reserved(..)));
        // If the clock goes back, the budget of the day before is unchanged.
        let yesterday = post_on(&*store, reserve(id(), "acme", 100, daily(100)), DAY).await;
        assert!(matches!(yesterday, Outcome::Refused(_)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_first_calls_on_several_connections_no_more_than_fit_are_reserved() {
    on_each_engine(async |database, store| {
        let mut calls = JoinSet::new();
        for _ in 0..4 {
            let replica = database.connect().await.ledger();
            for _ in 0..32 {
                let replica = Arc::clone(&replica);
                calls.spawn(async move {
                    post(&*replica, reserve(id(), "acme", 100, daily(1_250))).await
                });
            }
        }
        let outcomes = calls.join_all().await;
        let reserved = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Reserved(..)));
        assert_eq!(reserved.count(), 12);
        assert_eq!(day(&*store).await.reserved, 1_200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_all_kinds_on_several_connections_add_up_at_every_moment() {
    on_each_engine(async |database, store| {
        let mut replicas = JoinSet::new();
        for replica in 0..3_u64 {
            let store = database.connect().await.ledger();
            replicas.spawn(async move {
                for number in 0..40_u64 {
                    let tenant = ["acme", "umbrella"][usize::try_from(number % 2).unwrap()];
                    let today = if number % 5 == replica { NEXT_DAY } else { DAY };
                    let calls = [id(), id(), id()];
                    let batch: Vec<_> =
                        calls.iter().map(|call| reserve(*call, tenant, 10, daily(400))).collect();
                    store.post(&batch, today).await.unwrap();
                    let ends = [
                        settle(calls[0], number % 12),
                        Operation::Release { id: calls[1] },
                        Operation::WriteOff { id: calls[2], cost: None, endpoint: None },
                    ];
                    store.post(&ends, today).await.unwrap();
                }
            });
        }
        while !replicas.is_empty() {
            assert_eq!(store.audit(DAY).await.unwrap(), []);
            let within = day(&*store).await;
            assert!(within.committed() - within.excess <= 400, "{within:?}");
            while let Some(done) = replicas.try_join_next() {
                done.unwrap();
            }
        }
        assert_eq!(day(&*store).await.reserved, 0);
    })
    .await;
}

#[tokio::test]
async fn the_database_itself_refuses_an_account_that_loses_something() {
    for database in Database::of_each_engine().await {
        let store = database.open().await.ledger();
        post(&*store, reserve(id(), "acme", 100, Budgets::default())).await;
        let refused = database.try_execute("UPDATE ledger_accounts SET reserved = reserved - 1");
        assert!(refused.await.is_err(), "on {}", database.engine);
        database.execute("UPDATE ledger_entries SET state = 'open', model = ''").await;
        assert_eq!(store.audit(DAY).await.unwrap(), []);
    }
}

#[tokio::test]
async fn an_audit_finds_a_daily_sum_that_counts_otherwise_than_its_entries() {
    for database in Database::of_each_engine().await {
        println!("on {}", database.engine);
        let store = database.open().await.ledger();
        let (billed, unknown, unbilled) = (id(), id(), id());
        for call in [billed, unknown, unbilled] {
            post(&*store, reserve(call, "acme", 100, Budgets::default())).await;
        }
        post(&*store, settle(billed, 30)).await;
        post(&*store, Operation::WriteOff { id: unknown, cost: None, endpoint: None }).await;
        post(&*store, Operation::Release { id: unbilled }).await;
        assert_eq!(store.audit(DAY).await.unwrap(), []);
        for (broken, mended) in [
            ("UPDATE ledger_usage SET calls = 3", "UPDATE ledger_usage SET calls = 2"),
            (
                "UPDATE ledger_usage SET unverified_tokens = unverified_tokens - 101",
                "UPDATE ledger_usage SET unverified_tokens = unverified_tokens + 101",
            ),
            (
                "UPDATE ledger_usage SET cost_nanos = cost_nanos + 1",
                "UPDATE ledger_usage SET cost_nanos = cost_nanos - 1",
            ),
            ("UPDATE ledger_usage SET model = 'n'", "UPDATE ledger_usage SET model = 'm'"),
        ] {
            database.execute(broken).await;
            let found = store.audit(DAY).await.unwrap();
            let is_usage = |found: &Imbalance| matches!(found, Imbalance::Usage { .. });
            assert!(!found.is_empty() && found.iter().all(is_usage), "{broken}: {found:?}");
            assert_eq!(store.audit(NEXT_DAY).await.unwrap(), [], "it is of the day before");
            database.execute(mended).await;
            assert_eq!(store.audit(DAY).await.unwrap(), []);
        }
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_an_error_and_not_a_fresh_account() {
    for database in Database::of_each_engine().await {
        let store = database.open().await.ledger();
        post(&*store, reserve(id(), "acme", 100, daily(100))).await;
        database.execute("UPDATE ledger_entries SET day = 'someday'").await;
        let read = store.audit(DAY).await;
        assert!(!matches!(read, Ok(found) if found.is_empty()), "on {}", database.engine);
    }
}

#[tokio::test]
async fn calls_of_an_instance_that_expired_are_orphans_and_written_off_once() {
    on_each_engine(async |database, store| {
        let leases = database.connect().await.leases();
        let (instance, call) = (id(), id());
        leases.register(instance).await.unwrap();
        let charge = charge("acme", 100);
        let budgets = Budgets::default();
        post(&*store, Operation::Reserve { id: call, instance, charge, budgets }).await;
        assert!(store.orphans(Uuid::nil(), 10).await.unwrap().is_empty());
        let beat = || leases.heartbeat(instance);
        let beats = [beat().await.unwrap(), beat().await.unwrap()];
        assert_eq!(beats, [Some(vec![(instance, 1)]), Some(vec![(instance, 2)])]);
        leases.expire(instance).await.unwrap();
        assert_eq!(leases.heartbeat(instance).await.unwrap(), None);
        assert_eq!(store.orphans(Uuid::nil(), 10).await.unwrap(), [call]);
        let sweep = [Operation::WriteOff { id: call, cost: None, endpoint: None }];
        let swept =
            [store.post(&sweep, DAY).await.unwrap(), store.post(&sweep, DAY).await.unwrap()];
        assert!(matches!(swept[0][0], Outcome::Closed(..)));
        assert_eq!(swept[1], [Outcome::Unchanged]);
        assert_eq!(day(&*store).await.settled, 100);
    })
    .await;
}

#[tokio::test]
async fn pruning_deletes_old_closed_entries_in_portions_and_keeps_every_sum() {
    for database in Database::of_each_engine().await {
        let store = database.open().await.ledger();
        let open = id();
        post(&*store, reserve(open, "acme", 5, Budgets::default())).await;
        for _ in 0..5 {
            let call = id();
            post(&*store, reserve(call, "acme", 10, Budgets::default())).await;
            post(&*store, settle(call, 7)).await;
        }
        assert_eq!(store.prune(DAY, 10).await.unwrap(), 0, "entries of the day itself stay");
        let later = date(2026, 5, 2);
        assert_eq!(store.prune(later, 3).await.unwrap(), 3);
        assert_eq!(store.prune(later, 10).await.unwrap(), 2);
        assert_eq!((day(&*store).await.settled, day(&*store).await.reserved), (35, 5));
        assert_eq!(store.usage(&query(DAY, DAY)).await.unwrap()[0].spending.calls, 5);
        assert!(matches!(post(&*store, settle(open, 5)).await, Outcome::Closed(..)));
        assert_eq!(store.audit(NEXT_DAY).await.unwrap(), [], "windows that are kept add up");
    }
}

#[tokio::test]
async fn amounts_that_no_column_holds_are_refused_and_do_not_wrap() {
    on_each_engine(async |_, store| {
        let most = u64::MAX >> 1;
        let large = Charge { cost: Money::ZERO, ..charge("acme", 1) };
        let large = Charge { bound: tokens(most), ..large };
        let reserve = |charge: &Charge| Operation::Reserve {
            id: id(),
            instance: Uuid::nil(),
            charge: charge.clone(),
            budgets: Budgets::default(),
        };
        assert!(matches!(post(&*store, reserve(&large)).await, Outcome::Reserved(..)));
        assert_eq!(post(&*store, reserve(&large)).await, Outcome::Uncountable);
        assert_eq!(day(&*store).await.granted, most);
    })
    .await;
}

#[tokio::test]
async fn usage_is_of_the_days_and_tenant_asked_for_in_order() {
    on_each_engine(async |_, store| {
        for (tenant, today) in [("umbrella", DAY), ("acme", NEXT_DAY), ("acme", DAY)] {
            let call = id();
            post_on(&*store, reserve(call, tenant, 10, Budgets::default()), today).await;
            post_on(&*store, settle(call, 10), today).await;
        }
        let names = async |query: UsageQuery| -> Vec<(Date, String)> {
            let rows = store.usage(&query).await.unwrap();
            rows.into_iter().map(|row| (row.day, row.tenant)).collect()
        };
        let (acme, umbrella) = ("acme".to_owned(), "umbrella".to_owned());
        assert_eq!(
            names(query(DAY, NEXT_DAY)).await,
            [(DAY, acme.clone()), (DAY, umbrella), (NEXT_DAY, acme.clone())]
        );
        let tenant = Some(acme.clone());
        assert_eq!(
            names(UsageQuery { tenant, ..query(NEXT_DAY, NEXT_DAY) }).await,
            [(NEXT_DAY, acme)]
        );
    })
    .await;
}

/// The sum of all spendings: calls, unverified calls, tokens by kind, unverified tokens, and money.
fn sum<'a>(spendings: impl IntoIterator<Item = &'a Spending>) -> [u64; 7] {
    let mut sum = [0; 7];
    for spending in spendings {
        let Spending { calls, unverified_calls, usage, unverified_tokens, cost, .. } = spending;
        let tokens = [usage.image, usage.text, usage.output, *unverified_tokens];
        let [image, text, output, unverified] = tokens.map(Tokens::get);
        let amounts = [*calls, *unverified_calls, image, text, output, unverified, cost.nanos()];
        sum.iter_mut().zip(amounts).for_each(|(sum, amount)| *sum += amount);
    }
    sum
}

const DIVISIONS: [Division; 3] = [Division::Key, Division::Endpoint, Division::Hour];

/// A call of `acme` or of another tenant with one of three keys, with a few hundred tokens of all kinds.
fn some_call(chance: &SeededRandom) -> Charge {
    let below = |most: u64| chance.next_u64() % most;
    let tenant = if below(4) == 0 { "umbrella" } else { "acme" };
    let key = ["a", "b", "c"][usize::try_from(below(3)).unwrap()];
    let currency = if below(5) == 0 { Currency::Usd } else { Currency::Cny };
    let bound = Usage {
        image: Tokens::new(below(900)),
        text: Tokens::new(below(90)),
        output: Tokens::new(1 + below(300)),
    };
    let cost = Money::from_nanos(below(1 << 40));
    Charge { key: Some(key.into()), bound, cost, currency, ..charge(tenant, 0) }
}

/// A possible end of the call, or none.
fn some_end(id: Uuid, charge: &Charge, chance: &SeededRandom) -> Option<Operation> {
    let below = |most: u64| chance.next_u64() % most;
    let endpoint = ["beijing", "singapore"][usize::try_from(below(2)).unwrap()];
    let endpoint: Option<Arc<str>> = (below(4) > 0).then(|| endpoint.into());
    let usage = Usage { image: Tokens::new(below(900)), ..charge.bound };
    let cost = Money::from_nanos(below(1 << 40));
    let bill = Bill { usage, cost, request_id: None, endpoint: endpoint.clone() };
    match below(6) {
        0 => None,
        1 => Some(Operation::Release { id }),
        2 => Some(Operation::WriteOff { id, cost: None, endpoint }),
        3 => Some(Operation::Clamp { id, bill }),
        _ => Some(Operation::Settle { id, bill }),
    }
}

#[tokio::test]
async fn every_division_of_the_usage_sums_to_the_usage_whatever_became_of_the_calls() {
    on_each_engine(async |_, store| {
        let chance = SeededRandom::new(7);
        for _ in 0..12 {
            let calls: Vec<_> = (0..20).map(|_| (id(), some_call(&chance))).collect();
            let reserve = |(id, charge): &(Uuid, Charge)| Operation::Reserve {
                id: *id,
                instance: Uuid::nil(),
                charge: charge.clone(),
                budgets: Budgets::default(),
            };
            let batch: Vec<_> = calls.iter().map(reserve).collect();
            store.post(&batch, DAY).await.unwrap();
            // Some of them twice: later knowledge corrects earlier knowledge.
            for _ in 0..2 {
                let ends = calls.iter().filter_map(|(id, charge)| some_end(*id, charge, &chance));
                store.post(&ends.collect::<Vec<_>>(), NEXT_DAY).await.unwrap();
            }
        }
        for tenant in ["acme", "umbrella"] {
            let query = UsageQuery { tenant: Some(tenant.to_owned()), ..query(DAY, NEXT_DAY) };
            let whole = store.usage(&query).await.unwrap();
            let whole = sum(whole.iter().map(|row| &row.spending));
            assert!(whole.iter().all(|amount| *amount > 0), "{whole:?}");
            for division in DIVISIONS {
                let rows = store.usage_by(division, &query).await.unwrap();
                assert!(rows.iter().all(|row| row.tenant == tenant));
                let parts = sum(rows.iter().map(|row| &row.spending));
                assert_eq!(parts, whole, "{tenant} by {division:?}");
            }
            let keys = store.usage_by(Division::Key, &query).await.unwrap();
            assert_eq!(keys.len(), 6, "three keys in two currencies");
        }
    })
    .await;
}

/// Rows of versions that did not know today's columns: a call that was settled at 7 tokens, and an open one.
const OF_OLDER_VERSIONS: &str = "
    INSERT INTO ledger_entries (id, holder, tenant, model, currency, day, state,
        bound_image, bound_text, bound_output, bound_cost_nanos,
        billed_image, billed_text, billed_output, billed_cost_nanos, request_id)
    VALUES ('019dda00-0000-7000-8000-000000000001', '00000000-0000-0000-0000-000000000000', 'acme',
        'm', 'CNY', '2026-04-30', 'settled', 10, 0, 0, 30, 7, 0, 0, 21, 'r'),
        ('019dda00-0000-7000-8000-000000000002', '00000000-0000-0000-0000-000000000000', 'acme',
        'm', 'CNY', '2026-04-30', 'open', 10, 0, 0, 30, 0, 0, 0, 0, NULL);
    INSERT INTO ledger_accounts (tenant, period, starts_on, unit, granted, settled, released, excess,
        reserved)
    VALUES ('acme', 'day', '2026-04-30', 'tokens', 20, 7, 3, 0, 10),
        ('acme', 'month', '2026-04-01', 'tokens', 20, 7, 3, 0, 10),
        ('acme', 'day', '2026-04-30', 'CNY', 60, 21, 9, 0, 30),
        ('acme', 'month', '2026-04-01', 'CNY', 60, 21, 9, 0, 30);
    INSERT INTO ledger_usage (day, tenant, model, currency, calls, unverified_calls, image_tokens,
        text_tokens, output_tokens, unverified_tokens, cost_nanos)
    VALUES ('2026-04-30', 'acme', 'm', 'CNY', 1, 0, 7, 0, 0, 0, 21)";

/// The open call of [`OF_OLDER_VERSIONS`].
const OPEN_BEFORE: Uuid = Uuid::from_u128(0x019d_da00_0000_7000_8000_0000_0000_0002);

/// Settles the call that an older version left open, and checks that everything is counted and nothing is invented.
async fn assert_kept_whole(store: &dyn LedgerStore) {
    let account = day(store).await;
    assert_eq!((account.settled, account.reserved), (7, 10), "{account:?}");
    assert_eq!(store.audit(DAY).await.unwrap(), []);
    assert!(matches!(post(store, settle(OPEN_BEFORE, 8)).await, Outcome::Closed(..)));
    let account = day(store).await;
    assert_eq!((account.settled, account.reserved), (15, 0), "{account:?}");
    assert_eq!(store.audit(DAY).await.unwrap(), []);
    for division in DIVISIONS {
        let rows = store.usage_by(division, &query(DAY, DAY)).await.unwrap();
        let [PartRow { part, spending, .. }] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((part, spending.usage.total().get()), (&None, 15), "{division:?}");
    }
}

#[tokio::test]
async fn calls_that_the_version_before_enters_after_the_migration_are_counted_without_a_key() {
    on_each_engine(async |database, store| {
        database.execute(OF_OLDER_VERSIONS).await;
        assert_kept_whole(&*store).await;
    })
    .await;
}

#[tokio::test]
async fn a_ledger_of_an_older_version_is_kept_whole_and_its_rules_still_hold() {
    // Before the migration that rewrote the checks, and before entries had origins.
    for version in [4, 8] {
        for database in Database::of_each_engine().await {
            println!("on {} from migration {version}", database.engine);
            database.migrate_to(version).await;
            database.execute(OF_OLDER_VERSIONS).await;
            let store = database.open().await.ledger();
            assert_kept_whole(&*store).await;
            let refused = database.try_execute("UPDATE ledger_entries SET state = 'lost'").await;
            assert!(refused.is_err(), "states are still checked");
            let refused = database.try_execute("UPDATE ledger_accounts SET unit = 'pages'").await;
            assert!(refused.is_err(), "units are still checked");
        }
    }
}

#[tokio::test]
async fn an_entry_tells_its_key_the_hour_it_was_asked_for_in_and_the_endpoint_it_was_made_at() {
    on_each_engine(async |_, store| {
        let call = id();
        let charge = Charge { key: Some("4t0w9x2k7c1m".into()), ..charge("acme", 100) };
        let (instance, budgets) = (Uuid::nil(), Budgets::default());
        post(&*store, Operation::Reserve { id: call, instance, charge, budgets }).await;
        let write_off = Operation::WriteOff { id: call, cost: None, endpoint: Some("cn".into()) };
        post(&*store, write_off).await;
        // The IDs of these calls were created at this time.
        let hour = Part::Hour("2026-04-30T11:00:00Z".parse().unwrap());
        let named = |name: &str| Part::Named(name.to_owned());
        for (division, part) in
            DIVISIONS.into_iter().zip([named("4t0w9x2k7c1m"), named("cn"), hour])
        {
            let rows = store.usage_by(division, &query(DAY, DAY)).await.unwrap();
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0].part, Some(part), "{division:?}");
        }
    })
    .await;
}

async fn open(store: &Store, lease_ms: u64) -> (Ledger, Arc<Instance>, Supervisor) {
    let settings = LedgerSettings { lease_ms, retention_days: 400, time_zone: Calendar::UTC };
    let metrics = Arc::new(Metrics::new(&MetricsSettings { max_tenants: 9 }).unwrap());
    let clock: Arc<dyn Clock> =
        Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_777_550_000)));
    let (random, background) = (Arc::new(SystemRandom), Supervisor::default());
    let (leases, lease) = (store.leases(), settings.lease());
    let (own_clock, shown) = (Arc::clone(&clock), Arc::clone(&metrics));
    let instance =
        Instance::open(leases, lease, own_clock, random.clone(), shown, &background).await.unwrap();
    let (ledger, held_by) = (store.ledger(), Arc::clone(&instance));
    let ledger = Ledger::open(ledger, held_by, &settings, clock, random, metrics, &background);
    (ledger, instance, background)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_process_keeps_what_it_holds_however_long_and_a_dead_one_does_not() {
    on_each_engine(async |database, store| {
        let (living, instance, _tasks) = open(&database.connect().await, 300).await;
        let deadline = ManualClock::new(SystemTime::UNIX_EPOCH).instant() + Duration::from_secs(1);
        let held = living.reserve(charge("acme", 100), Budgets::default(), deadline).await.unwrap();
        let replica = database.connect().await;
        let death = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let (dying, _instance, _tasks) = open(&replica, 300).await;
                let charge = charge("acme", 10);
                let lost = dying.reserve(charge, Budgets::default(), deadline).await.unwrap();
                std::mem::forget(lost);
            });
            runtime.shutdown_background();
        });
        tokio::task::spawn_blocking(move || death.join().unwrap()).await.unwrap();
        until("the dead one's call is written off", async || day(&*store).await.settled == 10)
            .await;
        assert_eq!(day(&*store).await.reserved, 100, "the living one's call is open");
        held.settle(Bill { usage: tokens(40), ..Bill::default() }).await;
        living.flush().await;
        assert_eq!((day(&*store).await.settled, day(&*store).await.reserved), (50, 0));
        living.close().await;
        instance.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_away_refuses_after_a_bounded_wait() {
    let database = Database::sqlite();
    let store = database.open().await;
    let (ledger, _instance, _tasks) = open(&store, 30_000).await;
    store.close().await;
    let deadline = ManualClock::new(SystemTime::UNIX_EPOCH).instant() + Duration::from_mins(1);
    let refused = ledger.reserve(charge("acme", 1), Budgets::default(), deadline).await;
    assert_eq!(refused.unwrap_err(), ocr_gateway::ledger::ReserveError::Unavailable);
    let asked = ledger.usage(&query(DAY, DAY)).await;
    assert!(matches!(asked, Err(LedgerStoreError::Unavailable(_))));
}

/// The results of the callers of a run.
#[derive(Debug, Default)]
struct Seen {
    settled: AtomicU64,
    refused: AtomicU64,
    is_over: AtomicBool,
}

/// Reserves and settles until it is told to stop.
async fn spend(ledger: Ledger, seen: Arc<Seen>) {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    while !seen.is_over.load(Ordering::Relaxed) {
        let deadline = clock.instant() + Duration::from_mins(1);
        match ledger.reserve(charge("acme", 10), daily(1_000_000), deadline).await {
            Ok(reservation) => {
                let bill = Bill { usage: tokens(7), ..Bill::default() };
                reservation.settle(bill).await;
                seen.settled.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                seen.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stands_still_makes_callers_wait_then_refuses_and_loses_nothing() {
    let Some(server) = PrivatePostgres::start() else { return };
    let options = ocr_gateway::store::StoreOptions::default();
    let database = ocr_gateway::store::connect(&server.url(), options).await.unwrap();
    database.migrate().await.unwrap();
    let (store, seen) = (database.ledger(), Arc::new(Seen::default()));
    let (ledger, _instance, _tasks) = open(&database, 30_000).await;
    let mut callers = JoinSet::new();
    for _ in 0..32 {
        callers.spawn(spend(ledger.clone(), Arc::clone(&seen)));
    }
    let settled = || seen.settled.load(Ordering::Relaxed);
    until("calls before", async || settled() >= 200).await;
    server.freeze();
    until("refusals", async || seen.refused.load(Ordering::Relaxed) >= 32).await;
    let before = settled();
    server.thaw();
    until("calls after", async || settled() >= before + 200).await;
    seen.is_over.store(true, Ordering::Relaxed);
    callers.join_all().await;
    ledger.close().await;
    let account = day(&*store).await;
    assert_eq!((account.settled, account.reserved), (settled() * 7, 0), "{account:?}");
    assert_eq!(store.audit(DAY).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_stand_still_leave_connections_for_posts_beats_and_keys() {
    let Some(database) = Database::postgres().await else { return };
    let store = database.open().await;
    let (ledger, tenants, instance) = (store.ledger(), store.tenants(), id());
    let leases = store.leases();
    leases.register(instance).await.unwrap();
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    let lock = "BEGIN; LOCK TABLE ledger_usage IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let mut reports = JoinSet::new();
    for _ in 0..20 {
        let ledger = store.ledger();
        reports
            .spawn(async move { ledger.usage(&query(DAY, NEXT_DAY)).await.map(|rows| rows.len()) });
    }
    let waiting = "SELECT count(*)::text FROM pg_locks WHERE NOT granted";
    until("reports wait", async || database.texts(waiting).await != ["0"]).await;
    let work = async {
        let posted = post(&*ledger, reserve(id(), "acme", 100, Budgets::default())).await;
        assert!(matches!(posted, Outcome::Reserved(..)), "{posted:?}");
        assert!(leases.heartbeat(instance).await.unwrap().is_some());
        assert!(tenants.tenant(&"nobody".parse().unwrap()).await.unwrap().is_none());
    };
    tokio::time::timeout(Duration::from_secs(5), work).await.expect("nobody waits for reports");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    for report in reports.join_all().await {
        assert_eq!(report.unwrap(), 0);
    }
}
