//! A whole service for one test: the gateway on free ports, an emulator, and a database in a folder.
//!
//! A test sets only what differs from the defaults, acts over HTTP like a caller, and checks the calls that the
//! emulator received and the metrics.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use dashscope_emulator::{Emulator, EngineChoice, Options as EmulatorOptions, World};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use ocr_gateway::auth::key::{ApiKey, KeyRecord};
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::clock::{Clock, SystemClock};
use ocr_gateway::gateway::Gateway;
use ocr_gateway::ledger::window::Calendar;
use ocr_gateway::random::{Random, SystemRandom};
use ocr_gateway::server::{self, Listeners};
use ocr_gateway::settings::{ServerSettings, Settings};
use ocr_gateway::store::{self, Store};
use ocr_gateway::supervisor::TaskEnded;
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The text that the emulator reads from each image, unless a test sets another.
pub(crate) const SCRIPTED_TEXT: &str = "the text of the page";

/// A time that only a hang exceeds. It is much longer than any step of a test.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Values that a test may set before the service starts.
pub(crate) struct Setup {
    /// The settings; addresses and the upstream are filled in.
    pub(crate) settings: Settings,
    /// The tenant `test`. The service's callers use its key.
    pub(crate) tenant: Tenant,
    /// The emulator. Scripted unless a test needs real OCR.
    pub(crate) emulator: EmulatorOptions,
    /// The clock. The machine's own time unless a test moves it.
    pub(crate) clock: Arc<dyn Clock>,
}

/// The machine's clocks, with a wall time that a test sets.
#[derive(Debug)]
pub(crate) struct MovedClock {
    ahead_ms: AtomicI64,
}

impl MovedClock {
    /// A clock that starts at `moment`.
    pub(crate) fn at(moment: &str) -> Self {
        let clock = Self { ahead_ms: AtomicI64::new(0) };
        clock.set(moment);
        clock
    }

    /// Sets the time to `moment`.
    pub(crate) fn set(&self, moment: &str) {
        let moment: Timestamp = moment.parse().unwrap();
        let ahead = moment.as_millisecond() - SystemClock.timestamp().as_millisecond();
        self.ahead_ms.store(ahead, Ordering::Relaxed);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> SystemTime {
        let now = SystemClock.timestamp().as_millisecond() + self.ahead_ms.load(Ordering::Relaxed);
        Timestamp::from_millisecond(now).unwrap().into()
    }

    fn instant(&self) -> Instant {
        SystemClock.instant()
    }
}

/// Days of a time zone in which it is about noon, so that no test crosses midnight.
pub(crate) fn calendar() -> Calendar {
    static CALENDAR: LazyLock<Calendar> = LazyLock::new(|| {
        let hour = SystemClock.timestamp().to_zoned(TimeZone::UTC).hour();
        // The sign of these names is inverted.
        Calendar::named(&format!("Etc/GMT{:+}", hour - 12)).unwrap()
    });
    CALENDAR.clone()
}

/// The current day of the services of this run.
pub(crate) fn today() -> Date {
    calendar().day_of(SystemClock.timestamp())
}

/// A running service.
pub(crate) struct TestGateway {
    /// Address of the public API: `http://127.0.0.1:PORT`.
    pub(crate) address: String,
    /// Address of metrics and health.
    pub(crate) metrics_address: String,
    /// The key of the tenant `test`.
    pub(crate) key: String,
    /// A client without limits of its own.
    pub(crate) http: reqwest::Client,
    /// The database of the service.
    pub(crate) store: Store,
    /// The gateway in the service.
    pub(crate) gateway: Arc<Gateway>,
    /// The outcome of the service.
    pub(crate) served: JoinHandle<Result<(), TaskEnded>>,
    emulator: Emulator,
    _folder: TempDir,
}

/// An answer, read completely.
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body as JSON, or null if it is not JSON.
    pub(crate) json: Value,
    /// The body as text.
    pub(crate) text: String,
}

impl TestGateway {
    /// The service with defaults.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The service with the changes of `change`.
    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        install_tls();
        let mut setup = Setup {
            settings: defaults(),
            tenant: Tenant::new("test".parse().unwrap()),
            emulator: EmulatorOptions {
                engine: EngineChoice::Scripted(SCRIPTED_TEXT.to_owned()),
                ..EmulatorOptions::default()
            },
            clock: Arc::new(SystemClock),
        };
        change(&mut setup);
        let Setup { mut settings, tenant, emulator, clock } = setup;
        let emulator = Emulator::start(emulator).await.unwrap();
        if settings.upstream.base_url.is_empty() {
            settings.upstream.base_url = emulator.base_url();
        }
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/test.db", folder.path().display());
        let store = store::connect(&url, store::StoreOptions::default()).await.unwrap();
        store.migrate().await.unwrap();
        store.tenants().create_tenant(&tenant).await.unwrap();
        let key = create_key(&store, "test", |_| {}).await;
        let gateway = Gateway::build(&settings, store.clone(), clock, Arc::new(Impatient)).await;
        Self::serve(gateway.unwrap(), settings.server, store, key, emulator, folder).await
    }

    /// The service with this upload limit in bytes.
    pub(crate) async fn with_limit(bytes: u64) -> Self {
        Self::with(|setup| setup.settings.server.max_body_bytes = bytes).await
    }

    async fn serve(
        gateway: Arc<Gateway>,
        settings: ServerSettings,
        store: Store,
        key: String,
        emulator: Emulator,
        folder: TempDir,
    ) -> Self {
        let listeners = Listeners {
            public: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            metrics: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        };
        let address = format!("http://{}", listeners.public.local_addr().unwrap());
        let metrics_address = format!("http://{}", listeners.metrics.local_addr().unwrap());
        // It ends with the runtime of the test.
        let inside = Arc::clone(&gateway);
        let served = spawn(async move {
            server::run(inside, listeners, &settings, std::future::pending()).await
        });
        Self {
            address,
            metrics_address,
            key,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            store,
            gateway,
            served,
            emulator,
            _folder: folder,
        }
    }

    /// The emulator's script, and the calls that it received.
    pub(crate) fn upstream(&self) -> Arc<World> {
        self.emulator.world()
    }

    /// A POST of the tenant `test`.
    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.address)).bearer_auth(&self.key)
    }

    /// A GET of the tenant `test`.
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.address)).bearer_auth(&self.key)
    }

    /// Sends the file as the body.
    pub(crate) async fn upload(&self, path: &str, file: impl Into<reqwest::Body>) -> Answer {
        Answer::of(self.post(path).body(file)).await
    }

    /// All metrics in the text format.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.metrics_address);
        self.http.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// The sum of the series of `name` (without the prefix) that have all the `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let start = format!("ocr_gateway_{name}");
        let wanted: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let metrics = self.metrics().await;
        let series = metrics.lines().filter(|line| {
            let rest = line.strip_prefix(&start).unwrap_or("x");
            (rest.starts_with('{') || rest.starts_with(' '))
                && wanted.iter().all(|label| line.contains(label))
        });
        series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Adds a tenant and returns its key.
    pub(crate) async fn key_of(&self, tenant: &Tenant) -> String {
        self.store.tenants().create_tenant(tenant).await.unwrap();
        self.another_key(|record| record.tenant = tenant.name.clone()).await
    }

    /// Adds a key of the tenant `test`, with the changes of `change`.
    pub(crate) async fn another_key(&self, change: impl FnOnce(&mut KeyRecord)) -> String {
        create_key(&self.store, "test", change).await
    }

    /// A POST with another key.
    pub(crate) fn post_as(&self, key: &str, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.address)).bearer_auth(key)
    }

    /// [`metric`](Self::metric) of a value that is counted in whole numbers.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters and gauges of whole things, far below 2^53"
    )]
    pub(crate) async fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let value = self.metric(name, labels).await;
        assert!(value >= 0.0 && value.fract() == 0.0, "{name} is {value}");
        value as u64
    }

    /// Waits until the metric has at least this value.
    pub(crate) async fn until_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        until(name, async || self.metric(name, labels).await >= value).await;
    }

    /// Waits until the emulator has received this number of calls.
    pub(crate) async fn until_upstream_has(&self, calls: u64) {
        until("calls", async || self.upstream().bill().received >= calls).await;
    }
}

impl Answer {
    /// Sends the request and reads the answer.
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, headers, json, text }
    }

    /// The stable code of a problem. Panics if the answer is not a problem of the documented shape.
    pub(crate) fn code(&self) -> &str {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        for member in ["type", "title", "detail", "instance", "request_id"] {
            assert!(self.json[member].is_string(), "{member} in {}", self.text);
        }
        assert_eq!(self.json["status"], self.status.as_u16());
        assert!(self.json["retryable"].is_boolean());
        self.json["code"].as_str().unwrap()
    }

    /// A header's text, or an empty text without the header.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Polls until `reached`. Fails after a time that only a hang exceeds.
pub(crate) async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let looked = tokio::time::timeout(LONGEST_WAIT, looking).await;
    assert!(looked.is_ok(), "waited in vain: {what}");
}

/// The bytes of a picture of the fixtures.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::read(folder.join(name)).unwrap()
}

/// A JPEG of exactly `length` bytes: a fixture with comments after its first marker.
pub(crate) fn jpeg_of(length: usize) -> Vec<u8> {
    const LONGEST_COMMENT: usize = 65_537;
    let picture = fixture("hello.jpg");
    let mut left = length - picture.len();
    let mut jpeg = picture[..2].to_vec();
    while left > 0 {
        // The rest must be long enough for a comment of its own.
        let segment = if left > LONGEST_COMMENT { left.min(LONGEST_COMMENT) - 4 } else { left };
        let announced = u16::try_from(segment - 2).unwrap().to_be_bytes();
        jpeg.extend([0xff, 0xfe, announced[0], announced[1]]);
        jpeg.resize(jpeg.len() + segment - 4, b'x');
        left -= segment;
    }
    jpeg.extend_from_slice(&picture[2..]);
    jpeg
}

/// The shared test data, if this machine has it.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let folder = std::env::var_os("OCR_GATEWAY_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: there is no test data (set OCR_GATEWAY_TEST_DATA)");
    None
}

/// Whether Tesseract is installed. A run that must not skip tests fails without it.
pub(crate) fn has_tesseract() -> bool {
    let found = std::process::Command::new("tesseract").arg("--version").output().is_ok();
    let required = std::env::var("OCR_GATEWAY_REQUIRE_PROGRAMS").is_ok_and(|value| value == "1");
    assert!(found || !required, "tesseract is missing and OCR_GATEWAY_REQUIRE_PROGRAMS is 1");
    if !found {
        println!("skipped: tesseract is not installed");
    }
    found
}

/// A task of the test.
#[expect(clippy::disallowed_methods, reason = "a test's tasks end with it")]
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// A source of randomness without waits before retries. The keys and IDs that it fills are still random.
#[derive(Debug)]
struct Impatient;

impl Random for Impatient {
    fn fill(&self, bytes: &mut [u8]) {
        SystemRandom.fill(bytes);
    }

    fn next_u64(&self) -> u64 {
        0
    }
}

/// The compiled-in settings, with rates and stops for which a test need not wait.
fn defaults() -> Settings {
    let environment = HashMap::from([
        ("OCR_GATEWAY__UPSTREAM__API_KEY".to_owned(), "sk-test".to_owned()),
        ("OCR_GATEWAY__UPSTREAM__RETRY_BUDGET_FLOOR_PER_SECOND".to_owned(), "1000".to_owned()),
        ("OCR_GATEWAY__SERVER__DRAIN_TIMEOUT_MS".to_owned(), "5000".to_owned()),
    ]);
    let mut settings = Settings::load_with(None, environment).unwrap();
    settings.upstream.base_url = String::new();
    // The program that runs the tests has no workers.
    settings.documents.program = env!("CARGO_BIN_EXE_ocr-gateway").into();
    settings.ledger.time_zone = calendar();
    for model in settings.models.values_mut() {
        (model.rpm, model.tpm) = (1_000_000, 1_000_000_000);
    }
    settings
}

async fn create_key(store: &Store, tenant: &str, change: impl FnOnce(&mut KeyRecord)) -> String {
    let (key, hash) = ApiKey::create(&SystemRandom);
    let mut record = KeyRecord {
        id: key.id().clone(),
        tenant: tenant.parse().unwrap(),
        hash,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
        revoked_at: None,
        label: None,
    };
    change(&mut record);
    store.tenants().create_key(&record).await.unwrap();
    key.expose().to_owned()
}

/// Several tests of one process call this. Only the first call has an effect.
pub(crate) fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
