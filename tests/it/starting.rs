//! Starts while the database or Redis is down: what the process waits for, what ends it, and its answers and log lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use sqlx::{Connection, SqliteConnection};
use tokio::net::TcpListener;

use crate::databases::{Database, PrivatePostgres};
use crate::harness::{Answer, SCRIPTED_TEXT, fixture, spawn, until};
use crate::nginx::free_address;
use crate::program::{Installation, Service};
use crate::redis::RedisServer;

/// An address whose listener closes each connection, like a proxy whose server is down.
struct HangsUp {
    address: String,
    visits: Arc<AtomicU32>,
    listening: tokio::task::JoinHandle<()>,
}

impl HangsUp {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, visits) = (listener.local_addr().unwrap().to_string(), Arc::default());
        let counted = Arc::<AtomicU32>::clone(&visits);
        let listening = spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { address, visits, listening }
    }

    /// Waits for several connection attempts.
    async fn until_tried(&self) {
        until("attempts", async || self.visits.load(Ordering::Relaxed) >= 4).await;
    }

    /// Frees the port.
    async fn end(self) -> u16 {
        self.listening.abort();
        let _ = self.listening.await;
        self.address.rsplit_once(':').unwrap().1.parse().unwrap()
    }
}

/// A service whose probes have a known address before it serves.
async fn begin(installation: &mut Installation) -> (Service, String) {
    let probes = free_address();
    installation.set("SERVER__METRICS_LISTEN", &probes);
    let service = installation.begin("serve");
    let probes = format!("http://{probes}");
    let live = format!("{probes}/livez");
    until("it is alive", async || {
        service.http.get(&live).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    (service, probes)
}

/// Waits until `/readyz` refuses with a text that contains `reason`.
async fn until_not_ready(service: &Service, probes: &str, reason: &str) {
    until(reason, async || {
        let answer = Answer::of(service.http.get(format!("{probes}/readyz"))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (503, "not_ready"), "{}", answer.text);
        answer.json["detail"].as_str().unwrap().contains(reason)
    })
    .await;
}

/// The number of log lines that say that the service waits for this.
fn waits(service: &Service, what: &str) -> usize {
    let log = service.log();
    log.lines().filter(|line| line.contains("waits") && line.contains(what)).count()
}

#[tokio::test]
async fn a_service_that_is_started_before_its_database_and_its_redis_serves_once_they_are_there() {
    let (database, redis) = (HangsUp::new().await, HangsUp::new().await);
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set(
        "DATABASE__URL",
        format!("postgres://postgres:hidden-word@{}/postgres", database.address),
    );
    installation.set("REDIS__URL", format!("redis://{}", redis.address));
    let listen = free_address();
    installation.set("SERVER__LISTEN", &listen);
    let (mut service, probes) = begin(&mut installation).await;

    until_not_ready(&service, &probes, "PostgreSQL").await;
    database.until_tried().await;
    assert_eq!(waits(&service, "PostgreSQL"), 1, "{}", service.log());
    let metrics = service.http.get(format!("{probes}/metrics")).send().await.unwrap();
    assert_eq!(metrics.status(), 503);
    let public = service.http.get(format!("http://{listen}/livez")).send().await;
    assert!(public.is_err_and(|error| error.is_connect()), "nobody is made to wait");

    let Some(_postgres) = PrivatePostgres::start_on(database.end().await) else { return };
    until_not_ready(&service, &probes, "Redis").await;
    redis.until_tried().await;
    assert_eq!(waits(&service, "Redis"), 1, "{}", service.log());
    assert!(!service.log().contains("hidden-word"));

    let Some(_redis) = RedisServer::start_on(redis.end().await) else { return };
    service.until_serving().await;
    let key = installation.key("acme").await;
    let read = Answer::of(service.post(&key, "/ocr").body(fixture("hello.png"))).await;
    assert_eq!(read.json["text"], SCRIPTED_TEXT, "{}", read.text);
    let ready = service.http.get(format!("{probes}/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    assert!(service.runs());
}

#[tokio::test]
async fn a_service_that_may_count_by_itself_starts_without_redis_and_shares_when_it_is_there() {
    let redis = HangsUp::new().await;
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("REDIS__URL", format!("redis://{}", redis.address));
    installation.set("REDIS__ON_FAILURE", "local");
    let key = installation.key("acme").await;
    assert_eq!(installation.run("tenant set acme --rpm 1").await.code, 0);
    let service = installation.serve().await;
    assert!(service.log().contains("counts rate limits by itself"), "{}", service.log());
    let ask = || Answer::of(service.post(&key, "/estimate").body(fixture("hello.png")));
    assert_eq!(ask().await.status, 200);
    assert_eq!(ask().await.status, 429);
    let checked = installation.run("check").await;
    assert!(checked.out.contains("failed  redis: "), "{}", checked.out);
    let Some(_redis) = RedisServer::start_on(redis.end().await) else { return };
    until("Redis is used", async || service.log().contains("Redis answers again")).await;
}

#[tokio::test]
async fn a_service_that_waits_for_redis_tells_of_endpoints_and_currencies_once_it_serves() {
    const LEFT_OUT: &str = "only for tenants whose regions are all paid in its currency";
    let redis = HangsUp::new().await;
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    let endpoint = |region: &str| {
        format!(
            "[[upstream.endpoints]]\nname = \"{region}-1\"\nregion = \"{region}\"\n\
             base_url = \"http://127.0.0.1:1\"\napi_key = \"sk-test\"\n"
        )
    };
    let file = installation.folder.path().join("gateway.toml");
    std::fs::write(file, ["beijing", "singapore"].map(endpoint).concat()).unwrap();
    for one_endpoint in ["UPSTREAM__BASE_URL", "UPSTREAM__API_KEY"] {
        installation.unset(one_endpoint);
    }
    installation.set("REDIS__URL", format!("redis://{}", redis.address));
    let mut service = installation.begin("serve --config gateway.toml");
    redis.until_tried().await;
    assert!(waits(&service, "Redis") == 1, "{}", service.log());
    let told = |service: &Service, text| service.log().matches(text).count();
    assert_eq!(told(&service, LEFT_OUT), 0, "{}", service.log());
    assert_eq!(told(&service, "the endpoint is asked"), 0, "{}", service.log());

    let Some(_redis) = RedisServer::start_on(redis.end().await) else { return };
    service.until_serving().await;
    // For both models that have a price in both regions.
    assert_eq!(told(&service, LEFT_OUT), 2, "{}", service.log());
    assert_eq!(told(&service, "the endpoint is asked"), 2, "{}", service.log());
}

#[tokio::test]
async fn a_service_that_waits_ends_at_once_when_it_is_told_to() {
    for signal in ["TERM", "INT"] {
        let database = HangsUp::new().await;
        let mut installation = Installation::reading(SCRIPTED_TEXT).await;
        installation.set("DATABASE__URL", format!("postgres://u@{}/x", database.address));
        let (mut service, _) = begin(&mut installation).await;
        database.until_tried().await;
        service.signal(signal).await;
        assert_eq!(service.ended().await, Some(0), "{signal}: {}", service.log());
    }
}

#[tokio::test]
async fn a_fault_of_the_configuration_is_not_waited_for_even_if_the_database_is_away() {
    let database = HangsUp::new().await;
    let away = format!("postgres://u@{}/x", database.address);
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("sqlite://{}/missing/x.db", folder.path().display());
    for (setting, value, named) in [
        ("DATABASE__URL", "mysql://localhost/x", "database.url"),
        ("DATABASE__URL", &missing, "does not exist"),
        ("DATABASE__MAX_CONNECTIONS", "2", "database.max_connections"),
        ("REDIS__URL", "http://localhost", "redis.url"),
        ("UPSTREAM__API_KEY", "", "api_key"),
        ("UPSTREAM__MODEL", "no-such-model", "no-such-model"),
        ("TENANTS__ACME__REGIONS", "mars", "tenants.acme.regions"),
    ] {
        let mut installation = Installation::reading(SCRIPTED_TEXT).await;
        installation.set("DATABASE__URL", &away);
        installation.set(setting, value);
        let ended = installation.run("serve").await;
        assert_eq!(ended.code, 1, "{setting} {value}: {}", ended.err);
        assert!(ended.err.contains(named), "{setting} {value}: {}", ended.err);
    }
}

#[tokio::test]
async fn a_database_that_refuses_the_user_or_has_another_name_is_not_waited_for() {
    let Some(database) = Database::postgres().await else { return };
    for (wrong, named) in [
        (database.url.replace("postgres@", "nobody@"), "role"),
        (format!("{}_of_another_name", database.url), "does not exist"),
    ] {
        let mut installation = Installation::reading(SCRIPTED_TEXT).await;
        installation.set("DATABASE__URL", wrong);
        let ended = installation.run("serve").await;
        assert!(ended.code == 1 && ended.err.contains(named), "{}", ended.err);
    }
}

#[tokio::test]
async fn a_redis_that_refuses_the_password_is_not_waited_for_whatever_an_outage_does() {
    let Some(server) = RedisServer::start() else { return };
    server.database().command("CONFIG SET requirepass secret");
    for on_failure in ["closed", "local"] {
        for password in ["", "&pass=hidden-word"] {
            let mut installation = Installation::reading(SCRIPTED_TEXT).await;
            installation.set("REDIS__URL", format!("{}{password}", server.url()));
            installation.set("REDIS__ON_FAILURE", on_failure);
            let ended = installation.run("serve").await;
            assert!(ended.code == 1 && ended.err.contains("redis.url"), "{}", ended.err);
            assert!(!ended.err.contains("hidden-word"), "{}", ended.err);
        }
    }
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_now_is_waited_for() {
    let Some(server) = RedisServer::start() else { return };
    server.database().command("CONFIG SET min-replicas-to-write 1");
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("REDIS__URL", server.url());
    let (mut service, probes) = begin(&mut installation).await;
    until_not_ready(&service, &probes, "NOREPLICAS").await;
    server.database().command("CONFIG SET min-replicas-to-write 0");
    service.until_serving().await;
}

#[tokio::test]
async fn a_sqlite_file_that_another_program_has_locked_is_waited_for() {
    let database = Database::sqlite();
    database.migrate_to(1).await;
    let mut other = SqliteConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("DATABASE__URL", &database.url);
    let (mut service, probes) = begin(&mut installation).await;
    until_not_ready(&service, &probes, "locked").await;
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    service.until_serving().await;
}

// Log lines of a failed start.

/// Faults that prevent a start, with the name that each message contains.
const FAULTS: [(&str, &str, &str); 5] = [
    ("SERVER__LISTN", "x", "listn"),
    ("SERVER__LISTEN", "here", "server.listen"),
    ("DATABASE__URL", "mysql://localhost/x", "database.url"),
    ("UPSTREAM__API_KEY", "", "DASHSCOPE_API_KEY"),
    ("SERVER__METRICS_LISTEN", "192.0.2.1:1", "server.metrics_listen"),
];

#[tokio::test]
async fn what_keeps_a_service_from_starting_is_told_in_the_format_of_the_log() {
    for (setting, value, named) in FAULTS {
        let mut installation = Installation::reading(SCRIPTED_TEXT).await;
        installation.set(setting, value);
        let ended = installation.run("serve").await;
        assert_eq!(ended.code, 1, "{setting}");
        let lines: Vec<Value> =
            ended.err.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let last = lines.last().unwrap();
        assert_eq!(last["level"], "ERROR", "{last}");
        assert!(last["message"].as_str().unwrap().contains(named), "{last}");
        // Text format, set by the environment or by the file.
        std::fs::write(installation.folder.path().join("text.toml"), "[log]\nformat = \"text\"\n")
            .unwrap();
        let ended = installation.run("serve --config text.toml").await;
        let last = ended.err.lines().last().unwrap();
        assert!(last.contains("ERROR") && last.contains(named), "{last}");
        assert!(!last.starts_with('{'), "{last}");
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_at_all_is_told_in_the_default_format() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    for text in ["not toml", "[log]\nformat = \"yaml\"\n", "[log]\nfilter = \"=,=\"\n"] {
        std::fs::write(installation.folder.path().join("gateway.toml"), text).unwrap();
        let ended = installation.run("serve --config gateway.toml").await;
        assert_eq!(ended.code, 1, "{text}");
        let line: Value = serde_json::from_str(ended.err.trim_end()).expect(&ended.err);
        assert_eq!(line["level"], "ERROR", "{line}");
    }
    // Other commands print text for a person.
    let ended = installation.run("usage --config gateway.toml").await;
    assert!(ended.err.starts_with("error: log"), "{}", ended.err);
}
