//! Replicas restart under load without failed requests. A request that a stop cuts off says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dashscope_emulator::Fault;
use futures_util::StreamExt as _;
use ocr_gateway::store::Store;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::databases::Database;
use crate::dropin::{CHAT, chat};
use crate::harness::{Answer, SCRIPTED_TEXT, fixture, jpeg_of, spawn, today, until};
use crate::nginx::{Nginx, free_address};
use crate::program::{Installation, Service};
use crate::replicas::account;

/// Callers that send the next request as soon as they have an answer.
const CALLERS: usize = 9;

/// How long the upstream takes to read a page.
const LATENCY: Duration = Duration::from_millis(30);

/// How long a stopping replica still accepts requests.
const GRACE: Duration = Duration::from_millis(700);

/// Two replicas that can be restarted at the same address.
pub(crate) struct Pair {
    pub(crate) installation: Installation,
    pub(crate) addresses: [String; 2],
}

impl Pair {
    pub(crate) async fn on(database: &Database) -> Self {
        let mut installation = Installation::reading_after(SCRIPTED_TEXT, LATENCY).await;
        installation.set("DATABASE__URL", &database.url);
        installation.set("SERVER__DRAIN_GRACE_MS", GRACE.as_millis().to_string());
        Self { installation, addresses: [free_address(), free_address()] }
    }

    pub(crate) async fn start(&mut self, index: usize) -> Service {
        self.installation.set("SERVER__LISTEN", self.addresses[index].clone());
        self.installation.serve().await
    }

    /// Stops a busy replica, and starts one in its place.
    pub(crate) async fn restart(&mut self, index: usize, replica: &mut Service) {
        until("it has work", async || requests_of(replica).await > 10.0).await;
        replica.signal("TERM").await;
        assert_eq!(replica.ended().await, Some(0));
        *replica = self.start(index).await;
    }
}

/// A connection to the upstream that is blocked until a test opens it.
struct Gate {
    address: String,
    /// Number of requests that have arrived.
    arrived: Arc<AtomicU64>,
    is_open: watch::Sender<bool>,
}

impl Gate {
    async fn before(upstream: String) -> Self {
        let upstream: Arc<str> = upstream.trim_start_matches("http://").into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (arrived, (is_open, opened)) = (Arc::<AtomicU64>::default(), watch::channel(false));
        let count = Arc::clone(&arrived);
        spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let (upstream, count) = (Arc::clone(&upstream), Arc::clone(&count));
                let mut opened = opened.clone();
                spawn(async move {
                    connection.readable().await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                    opened.wait_for(|is_open| *is_open).await.unwrap();
                    let mut onwards = TcpStream::connect(&*upstream).await.unwrap();
                    // It ends when one side closes the connection.
                    let _ = tokio::io::copy_bidirectional(&mut connection, &mut onwards).await;
                });
            }
        });
        Self { address, arrived, is_open }
    }
}

/// Callers in front of nginx that send the next request as soon as they have an answer.
pub(crate) struct Load {
    told: Arc<Told>,
    callers: JoinSet<Result<(), String>>,
}

impl Load {
    pub(crate) fn on(nginx: &Nginx, key: &str) -> Self {
        let (told, mut callers) = (Arc::new(Told::default()), JoinSet::new());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let pages = [fixture("hello.png"), jpeg_of(20_000), jpeg_of(200_000)];
        for page in pages.iter().cycle().take(CALLERS) {
            let request = http.post(format!("{}/ocr", nginx.address)).bearer_auth(key);
            callers.spawn(Arc::clone(&told).call(request.body(page.clone())));
        }
        Self { told, callers }
    }

    /// Ends the load, and checks that no request failed and that all were counted as they were billed.
    pub(crate) async fn end(self, database: &Database, pair: &Pair, nginx: &Nginx) {
        let Self { told, callers } = self;
        told.until_more(20).await;
        told.is_over.store(true, Ordering::Relaxed);
        for called in callers.join_all().await {
            assert_eq!(called, Ok(()), "{}", nginx.log());
        }
        let (tokens, bill) =
            (told.tokens.load(Ordering::Relaxed), pair.installation.upstream().bill());
        let store = database.connect().await;
        until("nothing is reserved", async || account(&store, today()).await.reserved == 0).await;
        let settled = account(&store, today()).await.settled;
        assert_eq!((tokens, settled), (bill.total(), bill.total()));
        assert_eq!(store.ledger().audit(today()).await.unwrap(), []);
        let (answers, log) = (told.answers.load(Ordering::Relaxed), nginx.log().len());
        println!("{answers} requests, {log} bytes of nginx's log");
    }
}

/// The results of the callers.
#[derive(Default)]
struct Told {
    is_over: AtomicBool,
    answers: AtomicU64,
    tokens: AtomicU64,
}

impl Told {
    async fn call(self: Arc<Self>, request: RequestBuilder) -> Result<(), String> {
        while !self.is_over.load(Ordering::Relaxed) {
            let request = request.try_clone().ok_or("the body is read")?;
            let response = request.send().await.map_err(|error| format!("{error:?}"))?;
            let (status, text) = (response.status(), response.text().await);
            let text = text.map_err(|error| format!("{error:?}"))?;
            if status != 200 {
                return Err(format!("{status}: {text}"));
            }
            let body: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let tokens = body["usage"]["total_tokens"].as_u64().ok_or("no usage")?;
            self.answers.fetch_add(1, Ordering::Relaxed);
            self.tokens.fetch_add(tokens, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits for this number of further answers.
    async fn until_more(&self, answers: u64) {
        let before = self.answers.load(Ordering::Relaxed);
        until("answers", async || self.answers.load(Ordering::Relaxed) >= before + answers).await;
    }
}

async fn metrics_of(service: &Service) -> String {
    let url = format!("{}/metrics", service.metrics_address);
    service.http.get(url).send().await.unwrap().text().await.unwrap()
}

async fn requests_in_flight(service: &Service) -> f64 {
    let metrics = metrics_of(service).await;
    let series = "ocr_gateway_in_flight_requests ";
    metrics.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).unwrap()
}

async fn requests_of(service: &Service) -> f64 {
    let metrics = metrics_of(service).await;
    let series = metrics.lines().filter(|line| {
        line.starts_with("ocr_gateway_requests_total") && line.contains("route=\"/ocr\"")
    });
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_behind_nginx_are_restarted_under_load_and_no_request_fails() {
    let Some(database) = Database::postgres().await else { return };
    let mut pair = Pair::on(&database).await;
    let mut replicas = [pair.start(0).await, pair.start(1).await];
    let Some(nginx) = Nginx::before(&pair.addresses).await else { return };
    let key = pair.installation.key("acme").await;

    let load = Load::on(&nginx, &key);
    for (index, replica) in replicas.iter_mut().enumerate() {
        pair.restart(index, replica).await;
    }
    load.end(&database, &pair, &nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_outlast_a_rolling_restart_behind_nginx_are_answered_all_the_same() {
    let Some(database) = Database::postgres().await else { return };
    let mut pair = Pair::on(&database).await;
    let gate = Gate::before(pair.installation.upstream_address()).await;
    pair.installation.set("UPSTREAM__BASE_URL", gate.address.clone());
    let replicas = [pair.start(0).await, pair.start(1).await];
    let Some(nginx) = Nginx::before(&pair.addresses).await else { return };
    let key = pair.installation.key("acme").await;

    let (http, mut pages) =
        (reqwest::Client::builder().no_proxy().build().unwrap(), JoinSet::new());
    for _ in 0..CALLERS {
        let request = http.post(format!("{}/ocr", nginx.address)).bearer_auth(&key);
        pages.spawn(Answer::of(request.body(fixture("hello.png"))));
    }
    until("all are read", async || gate.arrived.load(Ordering::Relaxed) == CALLERS as u64).await;
    let mut successors = Vec::new();
    for (index, replica) in replicas.iter().enumerate() {
        assert!(requests_in_flight(replica).await > 0.0);
        replica.signal("TERM").await;
        let address = pair.addresses[index].clone();
        until("it is closed", async || TcpStream::connect(&address).await.is_err()).await;
        successors.push(pair.start(index).await);
    }
    gate.is_open.send_replace(true);
    for page in pages.join_all().await {
        assert_eq!(page.status, 200, "{} {}", page.text, nginx.log());
    }
    for mut replica in replicas {
        assert_eq!(replica.ended().await, Some(0));
    }
    let (store, bill) = (database.connect().await, pair.installation.upstream().bill());
    let account = account(&store, today()).await;
    assert_eq!((account.reserved, account.settled), (0, bill.total()));
    assert_eq!(store.ledger().audit(today()).await.unwrap(), []);
}

#[tokio::test]
async fn a_request_on_a_kept_connection_is_served_while_the_replica_goes() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("SERVER__DRAIN_GRACE_MS", "600000");
    let service = installation.serve().await;
    let key = installation.key("acme").await;
    let ask = || Answer::of(service.post(&key, "/ocr").body(fixture("hello.png")));
    assert_eq!(ask().await.header("connection"), "");
    service.signal("TERM").await;
    let readiness = format!("{}/readyz", service.metrics_address);
    until("not ready", async || {
        service.http.get(&readiness).send().await.is_ok_and(|answer| answer.status() == 503)
    })
    .await;
    // The first request uses the kept connection, the second a new one.
    for _ in 0..2 {
        let answer = ask().await;
        assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, "close"));
    }
}

#[tokio::test]
async fn a_connection_that_was_made_before_the_listener_closed_may_still_ask() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("SERVER__DRAIN_GRACE_MS", "400");
    let mut service = installation.serve().await;
    let address = service.address.trim_start_matches("http://").to_owned();
    service.signal("TERM").await;
    // Opens connections until one is refused. The last accepted one sends its request only then.
    let mut last = None;
    until("closed", async || match TcpStream::connect(&address).await {
        Ok(stream) => {
            last = Some(stream);
            false
        }
        Err(_) => true,
    })
    .await;
    let mut last = last.unwrap();
    let answer = exchange(&mut last, "GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert_eq!(service.ended().await, Some(0));
}

/// Sends a request and reads until the connection ends.
async fn exchange(stream: &mut TcpStream, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Reads a stream to its end, and returns whether it ended properly.
async fn read(response: Response) -> (String, bool) {
    let (mut stream, mut all) = (response.bytes_stream(), Vec::new());
    loop {
        match stream.next().await {
            Some(Ok(piece)) => all.extend_from_slice(&piece),
            ended => return (String::from_utf8(all).unwrap(), ended.is_none()),
        }
    }
}

async fn sqlite(installation: &Installation) -> Store {
    let url = format!("sqlite://{}/gateway.db", installation.folder.path().display());
    ocr_gateway::store::connect(&url, ocr_gateway::store::StoreOptions::default()).await.unwrap()
}

#[tokio::test]
async fn a_stream_that_outlives_the_stop_is_cut_as_such_and_counts_at_its_bound() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("SERVER__DRAIN_TIMEOUT_MS", "200");
    let key = installation.key("acme").await;
    let store = sqlite(&installation).await;
    let mut chat = chat();
    chat["stream"] = true.into();
    let ocr_stream = |service: &Service| {
        let request = service.post(&key, "/ocr").header("accept", "text/event-stream");
        request.body(fixture("hello.png"))
    };
    for is_drop_in in [true, false] {
        let before = account(&store, today()).await.settled;
        let mut service = installation.serve().await;
        installation.upstream().add_fault(Fault::stall_stream_after(3).times(1));
        let request = if is_drop_in {
            service.post(&key, CHAT).body(chat.to_string())
        } else {
            ocr_stream(&service)
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let reading = spawn(read(response));
        service.signal("TERM").await;
        assert_eq!(service.ended().await, Some(0));
        let (seen, ended_well) = reading.await.unwrap();
        assert!(!seen.is_empty() && !ended_well && !seen.contains("[DONE]"), "{seen}");
        let _successor = installation.serve().await;
        until("written off", async || {
            let account = account(&store, today()).await;
            account.reserved == 0 && account.settled > before
        })
        .await;
        let billed = installation.upstream().calls().pop().unwrap().billed.unwrap().total();
        assert!(account(&store, today()).await.settled - before >= billed);
    }
}
