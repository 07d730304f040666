//! Several replicas on one database that are killed at random: no budget is exceeded and no bill is lost.
//!
//! The small form is part of each test run. Run the large one by hand:
//!
//! ```text
//! OCR_GATEWAY_REPLICAS=3 OCR_GATEWAY_REQUESTS=1000 cargo test --release --test it -- --nocapture \
//!     replicas::killed
//! ```

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::civil::Date;
use ocr_gateway::auth::tenant::change::TenantChange;
use ocr_gateway::ledger::account::Account;
use ocr_gateway::store::Store;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::databases::Database;
use crate::harness::{SCRIPTED_TEXT, fixture, shared_data, spawn, today, until};
use crate::program::{Installation, Service};
use crate::redis::RedisDatabase;

/// The budget, in bounds.
const BUDGETED: u64 = 12;

/// How long the upstream takes to read a page.
const LATENCY: Duration = Duration::from_millis(50);

/// The size of a run.
struct Scale {
    replicas: usize,
    requests: u64,
}

impl Scale {
    fn from_environment() -> Self {
        let number = |name: &str, default: u64| {
            std::env::var(name).map_or(default, |value| value.parse().unwrap())
        };
        let replicas = usize::try_from(number("OCR_GATEWAY_REPLICAS", 2)).unwrap();
        Self { replicas, requests: number("OCR_GATEWAY_REQUESTS", 150) }
    }
}

/// The replicas. Each of them may be dead for a moment.
struct Fleet {
    installation: Installation,
    replicas: Vec<Mutex<Option<Service>>>,
    addresses: Vec<Mutex<String>>,
    kills: AtomicU64,
}

/// The results of the callers.
#[derive(Debug, Default)]
struct Heard {
    answers: u64,
    told: u64,
    refused: u64,
    broken: u64,
}

impl Fleet {
    async fn start(scale: &Scale, database: &Database) -> Self {
        let mut installation = Installation::reading_after(SCRIPTED_TEXT, LATENCY).await;
        installation.set("DATABASE__URL", &database.url);
        installation.set("LEDGER__LEASE_MS", "900");
        installation.set("SERVER__MAX_IN_FLIGHT_REQUESTS", "2000");
        if let Some(redis) = RedisDatabase::new() {
            installation.set("REDIS__URL", redis.url());
        }
        let mut fleet = Self {
            installation,
            replicas: Vec::new(),
            addresses: Vec::new(),
            kills: AtomicU64::new(0),
        };
        for _ in 0..scale.replicas {
            let service = fleet.installation.serve().await;
            fleet.addresses.push(Mutex::new(service.address.clone()));
            fleet.replicas.push(Mutex::new(Some(service)));
        }
        fleet
    }

    fn address(&self, number: u64) -> String {
        let index = usize::try_from(number).unwrap() % self.addresses.len();
        self.addresses[index].lock().unwrap().clone()
    }

    /// Kills one replica as the system does without memory, and starts it again.
    async fn kill_one(&self) {
        let turn = self.kills.fetch_add(1, Ordering::Relaxed);
        let index = usize::try_from(turn).unwrap() % self.replicas.len();
        let mut victim = self.replicas[index].lock().unwrap().take().unwrap();
        victim.signal("KILL").await;
        victim.ended().await;
        let service = self.installation.serve().await;
        self.addresses[index].lock().unwrap().clone_from(&service.address);
        *self.replicas[index].lock().unwrap() = Some(service);
    }
}

/// Pages to send: real ones if there are any, otherwise the fixtures.
fn pages() -> Vec<Vec<u8>> {
    let Some(data) = shared_data() else { return vec![fixture("hello.png"), fixture("hello.jpg")] };
    let folder = std::fs::read_dir(data.join("sroie/img"));
    let files = folder.into_iter().flatten().flatten().map(|entry| entry.path());
    let pictures = files.filter(|file| file.extension().is_some_and(|name| name == "jpg"));
    let mut pages: Vec<_> = pictures.take(4).map(|file| std::fs::read(file).unwrap()).collect();
    pages.push(fixture("hello.png"));
    pages
}

/// The day's token account of the tenant.
pub(crate) async fn account(store: &Store, today: Date) -> Account {
    let accounts = store.ledger().accounts(&["acme"], today).await.unwrap();
    let found = accounts
        .iter()
        .find(|(key, _)| key.unit.as_str() == "tokens" && key.window.period.as_str() == "day");
    found.map(|(_, account)| *account).unwrap_or_default()
}

/// The largest bound of the pages, by the service's own estimate.
async fn largest_bound(fleet: &Fleet, key: &str, pages: &[Vec<u8>]) -> u64 {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut largest = 0;
    for page in pages {
        let url = format!("{}/estimate", fleet.address(0));
        let request = http.post(url).bearer_auth(key).body(page.clone());
        let estimate: Value =
            serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        largest = largest.max(estimate["bound"]["total_tokens"].as_u64().unwrap());
    }
    largest
}

/// Sends all requests at once, and adds up the results.
async fn send_all(fleet: &Fleet, key: &str, pages: Arc<Vec<Vec<u8>>>, requests: u64) -> Heard {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut callers = JoinSet::new();
    for number in 0..requests {
        let page = pages[usize::try_from(number).unwrap() % pages.len()].clone();
        let request = http.post(format!("{}/ocr", fleet.address(number))).bearer_auth(key);
        callers.spawn(async move {
            let response = request.body(page).send().await.ok()?;
            let status = response.status();
            let body: Value = serde_json::from_str(&response.text().await.ok()?).ok()?;
            Some((status, body))
        });
    }
    let mut heard = Heard::default();
    for answer in callers.join_all().await {
        match answer {
            Some((StatusCode::OK, body)) => {
                heard.answers += 1;
                heard.told += body["usage"]["total_tokens"].as_u64().unwrap();
            }
            Some(_) => heard.refused += 1,
            None => heard.broken += 1,
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_neither_overspend_a_budget_nor_lose_a_bill() {
    let Some(database) = Database::postgres().await else { return };
    let scale = Scale::from_environment();
    let fleet = Fleet::start(&scale, &database).await;
    let key = fleet.installation.key("acme").await;
    let store = database.connect().await;
    let pages = Arc::new(pages());
    set_tenant(&store, r#"{"max_tokens": 300}"#).await;
    let budget = BUDGETED * largest_bound(&fleet, &key, &pages).await;
    set_tenant(&store, &format!(r#"{{"daily_tokens": {budget}}}"#)).await;

    let today = today();
    let is_over = Arc::new(AtomicBool::new(false));
    let auditor = spawn(audit_until(store.clone(), today, budget, Arc::clone(&is_over)));
    let sending = async {
        let heard = send_all(&fleet, &key, pages, scale.requests).await;
        is_over.store(true, Ordering::Relaxed);
        heard
    };
    let (heard, ()) = tokio::join!(sending, kill_until(&fleet, &is_over));
    let audits = auditor.await.unwrap();

    until("nothing is reserved", async || account(&store, today).await.reserved == 0).await;
    let (spent, bill) = (account(&store, today).await, fleet.installation.upstream().bill());
    let kills = fleet.kills.load(Ordering::Relaxed);
    println!(
        "{} requests, {} replicas, {kills} kills, {audits} audits: {heard:?}; budget {budget}, \
         billed {}, settled {}, ratio {:.4}",
        scale.requests,
        scale.replicas,
        bill.total(),
        spent.settled,
        ratio(spent.settled, budget),
    );
    assert!(kills > 0 && audits > 0);
    assert!(spent.is_balanced() && spent.settled <= budget, "{spent:?} of {budget}");
    assert!(bill.total() <= spent.settled, "{bill:?} is in {spent:?}");
    assert!(heard.told <= bill.total(), "{heard:?}");
    assert_every_bill_is_entered(&database, &fleet.installation).await;
    assert_eq!(store.ledger().audit(today).await.unwrap(), []);
}

async fn set_tenant(store: &Store, change: &str) {
    let change: TenantChange = serde_json::from_str(change).unwrap();
    let tenants = store.tenants();
    let tenant = tenants.tenant(&"acme".parse().unwrap()).await.unwrap().unwrap();
    tenants.update_tenant(&change.apply(tenant).unwrap()).await.unwrap();
}

/// Checks again and again whether the ledger is balanced and the budget is kept.
async fn audit_until(store: Store, today: Date, budget: u64, is_over: Arc<AtomicBool>) -> u64 {
    let mut audits = 0;
    while !is_over.load(Ordering::Relaxed) {
        assert_eq!(store.ledger().audit(today).await.unwrap(), []);
        let account = account(&store, today).await;
        assert!(account.is_balanced() && account.committed() <= budget, "{account:?}");
        audits += 1;
    }
    audits
}

/// Kills a replica after each few calls, and at least every second.
async fn kill_until(fleet: &Fleet, is_over: &AtomicBool) {
    let upstream = fleet.installation.upstream();
    let mut next = 3;
    loop {
        let more = async {
            while upstream.bill().received < next && !is_over.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), more).await;
        if is_over.load(Ordering::Relaxed) && fleet.kills.load(Ordering::Relaxed) > 0 {
            return;
        }
        fleet.kill_one().await;
        next = upstream.bill().received + 3;
    }
}

/// Each call that the upstream billed has an entry with its ID and its bill. Or its answer was lost with a replica, and
/// it was written off at its bound.
async fn assert_every_bill_is_entered(database: &Database, installation: &Installation) {
    let entered = database
        .texts(
            "SELECT request_id || ' ' || (billed_image + billed_text + billed_output)::text
             FROM ledger_entries WHERE state = 'settled'",
        )
        .await;
    let entered: HashSet<_> = entered.into_iter().collect();
    let unverified =
        database.texts("SELECT id::text FROM ledger_entries WHERE state = 'unverified'").await;
    let calls = installation.upstream().calls();
    let billed = calls.iter().filter_map(|call| Some((&call.request_id, call.billed?.total())));
    let billed: Vec<_> = billed.map(|(id, total)| format!("{id} {total}")).collect();
    let lost = billed.iter().filter(|call| !entered.contains(*call)).count();
    assert_eq!(billed.len() - lost, entered.len(), "an entry is settled that nobody billed");
    assert!(lost <= unverified.len(), "{lost} bills lost, {} written off", unverified.len());
}

#[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
fn ratio(spent: u64, budget: u64) -> f64 {
    spent as f64 / budget as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_first_requests_on_two_replicas_share_one_budget() {
    let Some(database) = Database::postgres().await else { return };
    let fleet = Fleet::start(&Scale { replicas: 2, requests: 64 }, &database).await;
    let key = fleet.installation.key("acme").await;
    let store = database.connect().await;
    let pages = Arc::new(vec![fixture("hello.png")]);
    set_tenant(&store, r#"{"max_tokens": 300}"#).await;
    let budget = 3 * largest_bound(&fleet, &key, &pages).await;
    set_tenant(&store, &format!(r#"{{"daily_tokens": {budget}}}"#)).await;
    let heard = send_all(&fleet, &key, pages, 64).await;
    let spent = account(&store, today()).await;
    assert_eq!((heard.told, heard.broken), (spent.settled, 0), "{heard:?}");
    assert!(heard.answers > 0 && heard.refused > 0, "{heard:?}");
    assert!(spent.settled <= budget && spent.reserved == 0, "{spent:?} of {budget}");
}

#[tokio::test]
async fn a_call_cut_short_by_a_kill_is_counted_at_its_bound_after_the_restart() {
    let mut installation =
        Installation::reading_after(SCRIPTED_TEXT, Duration::from_mins(10)).await;
    installation.set("LEDGER__LEASE_MS", "300");
    let key = installation.key("acme").await;
    let mut service = installation.serve().await;
    let request = service.post(&key, "/ocr").body(fixture("hello.png"));
    let caller = spawn(request.send());
    until("sent", async || installation.upstream().bill().received == 1).await;
    service.signal("KILL").await;
    service.ended().await;
    assert!(caller.await.unwrap().is_err());
    let _service = installation.serve().await;
    let url = format!("sqlite://{}/gateway.db", installation.folder.path().display());
    let store = ocr_gateway::store::connect(&url, ocr_gateway::store::StoreOptions::default());
    let store = store.await.unwrap();
    until("written off", async || {
        let account = account(&store, today()).await;
        account.reserved == 0 && account.settled == account.granted && account.settled > 0
    })
    .await;
}
