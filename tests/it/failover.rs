//! A failover of PostgreSQL: a standby is promoted and the address is moved, while the old primary still runs and
//! refuses writes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ocr_gateway::auth::tenant::change::TenantChange;
use ocr_gateway::store::{self, Store, StoreOptions};
use reqwest::StatusCode;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

use crate::databases::{PostgresPair, PostgresServer};
use crate::harness::{SCRIPTED_TEXT, fixture, spawn, today, until};
use crate::program::{Installation, Service};
use crate::replicas::account;

/// The longest time for which callers may notice a failover, after the address leads to the new primary.
const LONGEST_OUTAGE: Duration = Duration::from_secs(10);

/// Callers that send requests one after another.
const CALLERS: usize = 4;

/// An address that can be moved to another server. Open connections stay with the old server.
struct Address {
    port: u16,
    socket: Arc<Mutex<PathBuf>>,
}

impl Address {
    async fn of(server: &PostgresServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = Arc::new(Mutex::new(server.socket()));
        let target = Arc::clone(&socket);
        spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.lock().unwrap().clone();
                spawn(async move {
                    if let Ok(mut server) = UnixStream::connect(target).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { port, socket }
    }

    fn move_to(&self, server: &PostgresServer) {
        *self.socket.lock().unwrap() = server.socket();
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }
}

/// Callers that never stop, and their answers.
struct Load {
    is_over: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    callers: JoinSet<()>,
}

impl Load {
    fn on(service: &Service, key: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (served, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let request = service.post(key, "/ocr").body(fixture("hello.png"));
            let (is_over, served, refused) =
                (Arc::clone(&is_over), Arc::clone(&served), Arc::clone(&refused));
            callers.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let answer = request.try_clone().unwrap().send().await.unwrap();
                    match answer.status() {
                        StatusCode::OK => served.fetch_add(1, Ordering::Relaxed),
                        StatusCode::TOO_MANY_REQUESTS => refused.fetch_add(1, Ordering::Relaxed),
                        _ => 0,
                    };
                }
            });
        }
        Self { is_over, served, refused, callers }
    }

    /// Waits for this number of further answers.
    async fn serves(&self, more: u64) {
        let before = self.served.load(Ordering::Relaxed);
        until("served", async || self.served.load(Ordering::Relaxed) >= before + more).await;
    }

    async fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
    }
}

async fn is_ready(service: &Service) -> bool {
    let url = format!("{}/readyz", service.metrics_address);
    service.http.get(url).send().await.unwrap().status() == StatusCode::OK
}

async fn tells_usage(service: &Service, key: &str) -> bool {
    let url = format!("{}/usage", service.address);
    service.http.get(url).bearer_auth(key).send().await.unwrap().status() == StatusCode::OK
}

async fn set_tenant(store: &Store, change: &str) {
    let change: TenantChange = serde_json::from_str(change).unwrap();
    let tenants = store.tenants();
    let tenant = tenants.tenant(&"acme".parse().unwrap()).await.unwrap().unwrap();
    tenants.update_tenant(&change.apply(tenant).unwrap()).await.unwrap();
}

/// Makes a server refuse writes, and waits until the writes that have begun are committed.
async fn fence(server: &PostgresServer) {
    let read_only = "ALTER SYSTEM SET default_transaction_read_only = on";
    server.execute(&[read_only, "SELECT pg_reload_conf()"]).await;
    let writing = "SELECT count(*) FROM pg_stat_activity
        WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()";
    until("nobody writes", async || server.number(writing).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_the_service_is_back_within_ten_seconds_and_the_ledger_balanced() {
    let Some(pair) = PostgresPair::start() else { return };
    let (old, new) = (pair.first(), pair.second());
    let address = Address::of(&old).await;
    let mut installation =
        Installation::reading_after(SCRIPTED_TEXT, Duration::from_millis(20)).await;
    installation.set("DATABASE__URL", address.url());
    let key = installation.key("acme").await;
    let before = store::connect(&old.url(), StoreOptions::default()).await.unwrap();
    set_tenant(&before, r#"{"max_tokens": 300}"#).await;
    let service = installation.serve().await;
    let load = Load::on(&service, &key);
    load.serves(20).await;
    assert!(tells_usage(&service, &key).await && is_ready(&service).await);

    fence(&old).await;
    until("the outage is told", async || !is_ready(&service).await).await;
    new.execute(&["SELECT pg_promote()"]).await;
    address.move_to(&new);
    let recovered = async {
        load.serves(20).await;
        until("reports", async || tells_usage(&service, &key).await).await;
        until("ready", async || is_ready(&service).await).await;
    };
    tokio::time::timeout(LONGEST_OUTAGE, recovered).await.expect("served again in time");

    // The callers use up the small rest.
    let store = store::connect(&new.url(), StoreOptions::default()).await.unwrap();
    let spent = account(&store, today()).await;
    let budget = spent.committed() + 5_000;
    set_tenant(&store, &format!(r#"{{"daily_tokens": {budget}}}"#)).await;
    until("the budget is used up", async || load.refused.load(Ordering::Relaxed) > 0).await;
    load.stop().await;
    until("nothing is reserved", async || account(&store, today()).await.reserved == 0).await;
    let (spent, bill) = (account(&store, today()).await, installation.upstream().bill());
    assert!(spent.is_balanced() && spent.settled <= budget, "{spent:?} of {budget}");
    assert!(bill.total() <= spent.settled, "{bill:?} is in {spent:?}");
    assert_eq!(store.ledger().audit(today()).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_leads_to_a_standby_is_refused_and_named() {
    let Some(pair) = PostgresPair::start() else { return };
    let refusal = store::connect(&pair.second().url(), StoreOptions::default()).await.unwrap_err();
    let refusal = format!("{refusal}");
    assert!(refusal.contains("takes no writes: it is a standby"), "{refusal}");
}
