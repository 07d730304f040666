//! The cost of the ledger: calls of one hot tenant, and queries over many entries.
//!
//! ```text
//! bench/ledger                      # SQLite and a private PostgreSQL, both durable
//! bench/ledger --entries 10000000   # the same, then questions over so many entries
//! ```

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::print_stdout, reason = "the figures are the result")]
#![expect(clippy::disallowed_methods, reason = "what is measured is the machine's own time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::ToSpan;
use jiff::civil::Date;
use ocr_gateway::clock::{Clock, SystemClock};
use ocr_gateway::lease::instance::Instance;
use ocr_gateway::ledger::Ledger;
use ocr_gateway::ledger::books::{Bill, Charge};
use ocr_gateway::ledger::budget::Budgets;
use ocr_gateway::ledger::settings::LedgerSettings;
use ocr_gateway::ledger::usage::UsageQuery;
use ocr_gateway::ledger::window::Calendar;
use ocr_gateway::random::SystemRandom;
use ocr_gateway::store::{self, Engine, Store};
use ocr_gateway::supervisor::Supervisor;
use ocr_gateway::telemetry::metrics::{Metrics, MetricsSettings};
use ocr_gateway::units::{Currency, Money, Tokens, Usage};
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};
use tokio::task::JoinSet;

/// The duration of one measurement.
const WINDOW: Duration = Duration::from_secs(5);

/// Concurrent calls.
const CALLERS: [usize; 3] = [1, 16, 256];

/// The numbers of tenants and days over which the entries are spread.
const TENANTS: u64 = 100;
const DAYS: u64 = 400;

const BOUND: Usage =
    Usage { image: Tokens::new(990), text: Tokens::new(133), output: Tokens::new(8192) };
const BILLED: Usage =
    Usage { image: Tokens::new(990), text: Tokens::new(23), output: Tokens::new(120) };

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut urls, mut entries) = (Vec::new(), 0_u64);
    while let Some(argument) = arguments.next() {
        if argument == "--entries" {
            entries = arguments.next().unwrap().parse().unwrap();
        } else {
            urls.push(argument);
        }
    }
    for url in urls {
        let store = store::connect(&url, store::StoreOptions::default()).await.unwrap();
        store.migrate().await.unwrap();
        println!("\n{}", store.engine());
        let ledger = open(&store).await;
        for callers in CALLERS {
            hot_tenant(&ledger, callers).await;
        }
        if entries > 0 {
            fill(&store, &url, entries).await;
            questions(&ledger, &store).await;
        }
        ledger.close().await;
    }
}

async fn open(store: &Store) -> Ledger {
    let time_zone = Calendar::UTC;
    let settings = LedgerSettings { lease_ms: 30_000, retention_days: 10_000, time_zone };
    let metrics = Metrics::new(&MetricsSettings { max_tenants: 10 }).unwrap();
    let (clock, random, metrics) =
        (Arc::new(SystemClock), Arc::new(SystemRandom), Arc::new(metrics));
    let background = Supervisor::default();
    let (leases, lease) = (store.leases(), settings.lease());
    let parts = (clock.clone(), random.clone(), metrics.clone());
    let instance = Instance::open(leases, lease, parts.0, parts.1, parts.2, &background);
    let (ledger, instance) = (store.ledger(), instance.await.unwrap());
    Ledger::open(ledger, instance, &settings, clock, random, metrics, &background)
}

/// Pairs of reserve and settle of one tenant, as fast as so many callers can make them.
async fn hot_tenant(ledger: &Ledger, callers: usize) {
    let (started, cpu) = (Instant::now(), cpu_time());
    let mut work = JoinSet::new();
    for _ in 0..callers {
        let ledger = ledger.clone();
        work.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < WINDOW {
                let began = Instant::now();
                let deadline = began + Duration::from_mins(1);
                let reserved = ledger.reserve(charge(), budgets(), deadline).await.unwrap();
                let bill =
                    Bill { usage: BILLED, cost: Money::ZERO, request_id: None, endpoint: None };
                reserved.settle(bill).await;
                times.push(began.elapsed());
            }
            times
        });
    }
    let mut times: Vec<_> = work.join_all().await.into_iter().flatten().collect();
    let (took, cpu) = (started.elapsed(), cpu_time().saturating_sub(cpu));
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "  {callers:>3} callers: {:>6.0} reserve+settle/s; both add p50 {:.2} ms, p99 {:.2} ms; \
         {:.0} µs of this process's CPU time",
        count(times.len()) / took.as_secs_f64(),
        at(50),
        at(99),
        cpu.as_secs_f64() * 1e6 / count(times.len()),
    );
}

/// The CPU time that this process has used: the fields `utime` and `stime` of its `stat`, in hundredths of a
/// second (proc(5)).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The second field is the program's name, in brackets, and may contain any character.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

fn charge() -> Charge {
    Charge {
        tenant: "hot".into(),
        key: Some("4t0w9x2k7c1m".into()),
        model: "qwen-vl-ocr".into(),
        bound: BOUND,
        cost: Money::from_nanos(4_000_000),
        currency: Currency::Cny,
    }
}

fn budgets() -> Budgets {
    let most = Some(Tokens::new(1 << 60));
    Budgets { daily_tokens: most, monthly_tokens: most, ..Budgets::default() }
}

/// Writes so many settled entries, spread evenly, and the daily usage that they sum to.
async fn fill(store: &Store, url: &str, entries: u64) {
    let started = Instant::now();
    let today = Calendar::UTC.day_of(SystemClock.timestamp());
    let first = today.saturating_sub(i64::try_from(DAYS).unwrap().days());
    let (numbers, day, id) = match store.engine() {
        Engine::Postgres => (
            format!("generate_series(0, {entries} - 1) AS n"),
            format!("to_char(date '{first}' + (n % {DAYS})::int, 'YYYY-MM-DD')"),
            "(lpad(to_hex(n), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid",
        ),
        Engine::Sqlite => (
            format!(
                "(WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c \
                 WHERE n < {entries} - 1) SELECT n FROM c)"
            ),
            format!("date('{first}', '+' || (n % {DAYS}) || ' days')"),
            "printf('%08x-0000-7000-8000-%012x', n, n)",
        ),
    };
    let holder = match store.engine() {
        Engine::Postgres => "gen_random_uuid()",
        Engine::Sqlite => "'00000000-0000-7000-8000-000000000000'",
    };
    let insert = format!(
        "INSERT INTO ledger_entries SELECT {id}, {holder}, 'tenant-' || ((n / {DAYS}) % {TENANTS}),
            'qwen-vl-ocr', 'CNY', {day}, 'settled', 990, 133, 8192, 4000000, 990, 23, 120, 363900,
            NULL FROM {numbers}"
    );
    let sum = "INSERT INTO ledger_usage
        SELECT day, tenant, model, currency, count(*), 0, sum(billed_image), sum(billed_text),
            sum(billed_output), 0, sum(billed_cost_nanos)
        FROM ledger_entries WHERE tenant <> 'hot' GROUP BY day, tenant, model, currency";
    for statement in [insert.as_str(), sum] {
        let statement = AssertSqlSafe(statement.to_owned());
        match store.engine() {
            Engine::Postgres => {
                let pool = PgPool::connect(url).await.unwrap();
                sqlx::raw_sql(statement).execute(&pool).await.unwrap();
            }
            Engine::Sqlite => {
                let pool = SqlitePool::connect(url).await.unwrap();
                sqlx::raw_sql(statement).execute(&pool).await.unwrap();
            }
        }
    }
    println!("  {entries} entries written in {:.0} s", started.elapsed().as_secs_f64());
}

/// Queries of operators and callers, each the slowest of five runs.
async fn questions(ledger: &Ledger, store: &Store) {
    let today = Calendar::UTC.day_of(SystemClock.timestamp());
    let month = today.first_of_month();
    let year = today.saturating_sub(365.days());
    let one = Some("tenant-7".to_owned());
    for (name, tenant, from) in [
        ("one tenant, this month", one.clone(), month),
        ("one tenant, a year", one, year),
        ("all tenants, this month", None, month),
        ("all tenants, a year", None, year),
    ] {
        let query = UsageQuery { tenant, from, to: today };
        let (mut slowest, mut rows) = (Duration::ZERO, 0);
        for _ in 0..5 {
            let began = Instant::now();
            rows = ledger.usage(&query).await.unwrap().len();
            slowest = slowest.max(began.elapsed());
        }
        println!("  usage of {name}: {rows} rows, at most {:.1} ms", millis(slowest));
    }
    let began = Instant::now();
    ledger.balances("tenant-7").await.unwrap();
    println!("  balances of one tenant: {:.1} ms", millis(began.elapsed()));
    hot_tenant(ledger, 16).await;
    prune(store, today).await;
}

/// Deletes the oldest entries in ten batches.
async fn prune(store: &Store, today: Date) {
    let began = Instant::now();
    let mut deleted = 0;
    for _ in 0..10 {
        let before = today.saturating_sub(300.days());
        deleted += store.ledger().prune(before, 500).await.unwrap();
    }
    println!("  pruning {deleted} entries: {:.0} ms", millis(began.elapsed()));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "a count of calls, far below 2^53")]
const fn count(calls: usize) -> f64 {
    calls as f64
}
