//! The client against a scripted upstream, over real connections.

mod cells;
mod memory;
mod pool;
mod time;
mod upstream;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

pub(super) use self::cells::MemoryCells;
use self::time::Lowest;
pub(super) use self::time::RuntimeClock;
use self::upstream::{Step, Upstream, answer, json};
use super::completion::Completion;
use super::fault::error::{CallError, CallFault, Code, Defect, Timeout};
use super::proxy::ProxyVariables;
use super::settings::{UnknownMembers, UpstreamSettings};
use super::wire::check::CheckError;
use super::{Call, Client, Image};
use crate::admission::tab::Tab;
use crate::admission::{Admission, Permit, Refusal};
use crate::auth::tenant::{Tenant, UnknownBill};
use crate::capacity::account::ByteAccount;
use crate::catalog::{Catalog, Model};
use crate::clock::Clock;
use crate::ledger::fake;
use crate::rate_limit::local::LocalRateLimiter;
use crate::telemetry::levels::Levels;
use crate::telemetry::metrics::{Metrics, MetricsSettings};
use crate::units::{Pixels, Tokens, Usage};

/// The maximum bill of every call here; 9,000 tokens in all.
const BOUND: Usage =
    Usage { image: Tokens::new(728), text: Tokens::new(80), output: Tokens::new(8192) };

/// Settings with the documented defaults.
pub(super) fn settings(base_url: &str) -> UpstreamSettings {
    UpstreamSettings {
        name: "beijing".to_owned(),
        region: "beijing".to_owned(),
        base_url: base_url.to_owned(),
        api_key: Some("sk-secret".into()),
        api_key_file: None,
        endpoints: Vec::new(),
        model: "ocr".to_owned(),
        first_byte_timeout_ms: 240_000,
        idle_timeout_ms: 60_000,
        total_timeout_ms: 290_000,
        stream_timeout_ms: 600_000,
        max_response_bytes: 2 * 1024 * 1024,
        max_attempts: 3,
        backoff_base_ms: 500,
        backoff_cap_ms: 8_000,
        retry_budget_floor_per_second: 5,
        queue_timeout_ms: 10_000,
        queue_length: 1_000,
        breaker_failures: 5,
        breaker_cool_down_ms: 1_000,
        key_cool_down_ms: 10_000,
        unknown_members: UnknownMembers::Refuse,
        proxies: ProxyVariables::default(),
    }
}

/// A model of this rate.
pub(super) fn model(rpm: u64, tpm: u64) -> Arc<Model> {
    let text = format!(
        "[ocr]\ncell = 32\nmin_pixels = 3072\ndefault_max_pixels = 8388608\n\
         largest_max_pixels = 30720000\nmax_tokens = 8192\nmax_input_tokens = 30000\n\
         template_tokens = 24\nbuiltin_tasks = true\nrpm = {rpm}\ntpm = {tpm}\n\
         [ocr.prices.beijing]\ninput = \"0.3\"\noutput = \"0.5\"\ncurrency = \"CNY\"\n\
         source = \"a page\"\nchecked = \"2026-02-12\"\n"
    );
    let source = config::File::from_str(&text, config::FileFormat::Toml);
    let parsed = config::Config::builder().add_source(source).build().unwrap();
    let outlets = settings("http://localhost").outlets();
    let catalog = Catalog::new(&parsed.try_deserialize().unwrap(), outlets, "ocr").unwrap();
    catalog.find(None).unwrap().sold_in(&[]).unwrap()
}

/// Bytes that long answers may take.
const MEMORY: u64 = 1 << 20;

/// A client, its upstream, and the account of a tenant.
struct World {
    upstream: Upstream,
    client: Client,
    admission: Admission,
    metrics: Arc<Metrics>,
    clock: Arc<RuntimeClock>,
    memory: Arc<ByteAccount>,
    tenant: Arc<Tenant>,
    model: Arc<Model>,
    tab: Tab,
}

impl World {
    async fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::with(steps, |_| {}).await
    }

    async fn with(
        steps: impl IntoIterator<Item = Step>,
        change: impl FnOnce(&mut UpstreamSettings),
    ) -> Self {
        let upstream = Upstream::start(steps).await;
        let mut settings = settings(&upstream.address());
        change(&mut settings);
        let runtime = RuntimeClock::new();
        let clock: Arc<dyn Clock> = Arc::clone(&runtime) as _;
        let metrics = Arc::new(Metrics::new(&MetricsSettings { max_tenants: 9 }).unwrap());
        let limiter = Arc::new(LocalRateLimiter::new(Arc::clone(&clock)));
        let ledger = fake::ledger(Arc::clone(&clock), Arc::clone(&metrics)).await;
        let memory = Arc::new(ByteAccount::new(MEMORY, metrics.in_flight_bytes().clone()));
        let client = Client::new(
            &settings,
            None,
            Arc::clone(&memory),
            Arc::clone(&metrics),
            Arc::clone(&clock),
            Arc::new(Lowest),
        );
        let tenant = serde_json::from_value(serde_json::json!({"name": "acme"})).unwrap();
        Self {
            upstream,
            client: client.unwrap(),
            admission: Admission::new(limiter, ledger, Arc::clone(&clock), Arc::clone(&metrics)),
            metrics,
            clock: runtime,
            memory,
            tenant: Arc::new(tenant),
            model: model(60_000, 600_000_000),
            tab: Tab::default(),
        }
    }

    async fn permit(&self) -> Permit {
        let deadline = self.clock.instant() + Duration::from_mins(1);
        let admitted =
            self.admission.admit_bound(&self.tenant, &self.model, BOUND, deadline, &self.tab);
        admitted.await.unwrap()
    }

    async fn call(&self) -> Result<Completion, CallError> {
        self.call_with(&page(b"picture".as_slice()), Duration::from_mins(1)).await
    }

    async fn call_with(&self, call: &Call, time: Duration) -> Result<Completion, CallError> {
        self.client.call(self.permit().await, call, self.clock.instant() + time).await
    }

    /// The result of the check of the single endpoint.
    async fn check(&self) -> Result<(), CheckError> {
        self.client.check().await.remove(0).1
    }

    /// The sum of a metric over its labels.
    fn total(&self, name: &str) -> u64 {
        let text = String::from_utf8(self.metrics.encode(&Levels::default()).unwrap()).unwrap();
        let start = format!("ocr_gateway_{name}{{");
        let series = text.lines().filter(|line| line.starts_with(&start));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Tokens settled at a bill, and tokens settled at the bound.
    fn account(&self) -> (u64, u64) {
        let counted = (self.total("tokens_spent_total"), self.total("tokens_unverified_total"));
        let told = self.tab.ended();
        assert_eq!((told.billed.total().get(), told.unverified.get()), counted);
        counted
    }
}

fn page(bytes: impl Into<Bytes>) -> Call {
    let image = Image {
        media_type: "image/png",
        bytes: bytes.into(),
        min_pixels: Pixels::new(3072),
        max_pixels: Pixels::new(786_432),
        rotate: false,
    };
    Call { image, prompt: Some("secret prompt".to_owned()), task: None }
}

#[tokio::test]
async fn a_page_is_read_and_settled_at_its_bill() {
    let world = World::new([answer()]).await;
    let completion = world.call().await.unwrap();
    assert_eq!(completion.text, "text");
    assert_eq!((completion.receipt.verified, completion.receipt.attempts), (true, 1));
    assert_eq!(completion.receipt.settlement.usage.total(), Tokens::new(1184));
    assert_eq!(completion.receipt.settlement.cost.to_string(), "0.0004416");
    assert_eq!(completion.receipt.request_id, Code::new("r-200"));
    assert_eq!(world.account(), (1184, 0));
}

#[tokio::test]
async fn the_body_has_its_exact_length_and_the_whole_picture() {
    let world = World::new([answer()]).await;
    let picture: Vec<u8> = (0..200_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
    world.call_with(&page(picture.clone()), Duration::from_mins(1)).await.unwrap();
    let request = &world.upstream.requests()[0];
    let length = format!("content-length: {}\r\n", request.body.len());
    assert!(request.head.contains(&length) && !request.head.contains("transfer-encoding"));
    assert!(request.head.starts_with("post /compatible-mode/v1/chat/completions http/1.1\r\n"));
    assert!(request.head.contains("\r\nauthorization: bearer sk-secret\r\n"));
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let sent = body["messages"][0]["content"][0]["image_url"]["url"].as_str().unwrap();
    let sent = sent.strip_prefix("data:image/png;base64,").unwrap();
    assert_eq!(base64_simd::STANDARD.decode_to_vec(sent).unwrap(), picture);
    assert_eq!(body["max_tokens"], 8192);
}

#[tokio::test]
async fn an_answer_without_a_bill_is_delivered_and_settled_at_the_bound() {
    let world = World::new([json(200, r#"{"choices":[{"message":{"content":"text"}}]}"#)]).await;
    let completion = world.call().await.unwrap();
    assert_eq!((completion.text.as_str(), completion.receipt.verified), ("text", false));
    assert_eq!(completion.receipt.settlement.usage, BOUND);
    assert_eq!(world.account(), (0, 9_000));
}

/// The outcome of a failure that repeats: label, attempts, tokens written off.
async fn outcome(step: Step) -> (&'static str, u32, u64) {
    let world = World::new(vec![step; 4]).await;
    let error = world.call().await.unwrap_err();
    assert_eq!(world.upstream.requests().len(), error.attempts as usize);
    assert_eq!(u64::from(error.attempts), world.total("upstream_attempts_total"));
    assert_eq!(u64::from(error.retries()), world.total("upstream_retries_total"));
    let (spent, written_off) = world.account();
    assert_eq!(spent, 0);
    (error.fault.label(), error.attempts, written_off)
}

#[tokio::test]
async fn what_was_surely_not_billed_is_retried_on_the_same_permit() {
    let error = |code: &str| format!(r#"{{"code":"{code}","message":"m","request_id":"r"}}"#);
    assert_eq!(outcome(json(500, &error("InternalError"))).await, ("failed", 3, 0));
    assert_eq!(outcome(json(503, &error("ModelUnavailable"))).await, ("failed", 3, 0));
    assert_eq!(outcome(json(429, &error("Throttling.RateQuota"))).await, ("throttled", 3, 0));
    assert_eq!(outcome(json(200, &error("Throttling"))).await, ("throttled", 3, 0));
}

#[tokio::test]
async fn what_is_final_is_not_retried() {
    let error = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#);
    assert_eq!(outcome(json(400, &error("Arrearage"))).await, ("account", 1, 0));
    assert_eq!(outcome(json(429, &error("PrepaidBillOverdue"))).await, ("account", 1, 0));
    assert_eq!(outcome(json(401, &error("invalid_api_key"))).await, ("account", 1, 0));
    let inspection = error("data_inspection_failed");
    assert_eq!(outcome(json(400, &inspection)).await, ("content_rejected", 1, 0));
    assert_eq!(outcome(json(400, &error("invalid_value"))).await, ("rejected", 1, 0));
    assert_eq!(outcome(json(413, "")).await, ("rejected", 1, 0));
}

#[tokio::test]
async fn what_may_have_been_billed_is_retried_once_on_a_second_permit() {
    assert_eq!(outcome(Step::close()).await, ("interrupted", 2, 18_000));
    let cut =
        Step::write("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{\"choices\":").then_close();
    assert_eq!(outcome(cut).await, ("interrupted", 2, 18_000));
    assert_eq!(outcome(json(502, "<html>bad gateway</html>")).await, ("failed", 2, 18_000));
    assert_eq!(outcome(json(504, "")).await, ("timeout", 2, 18_000));
}

#[tokio::test]
async fn a_good_status_without_an_answer_is_written_off_and_not_retried() {
    for body in ["", "<html></html>", "{}", "not json", "{\"choices\":[]}"] {
        assert_eq!(outcome(json(200, body)).await, ("invalid_answer", 1, 9_000), "{body:?}");
    }
}

#[tokio::test]
async fn what_costs_nothing_takes_nothing_of_the_accounts_rate() {
    // One token a second: after a call that counts, the next would wait for minutes.
    let refused = json(400, r#"{"code":"InvalidParameter","message":"m"}"#);
    let world = World { model: model(60_000, 60), ..World::new([refused, answer()]).await };
    assert_eq!(world.call().await.unwrap_err().fault.label(), "rejected");
    assert!(world.call().await.is_ok());
    let failed = json(500, r#"{"code":"InternalError"}"#);
    let world = World { model: model(60_000, 60), ..World::new([failed, answer()]).await };
    assert_eq!(world.call().await.unwrap().receipt.attempts, 2);
}

#[tokio::test]
async fn what_a_call_wrote_is_taken_of_the_accounts_rate_afterwards() {
    let long = json(
        200,
        r#"{"choices":[{"finish_reason":"stop","message":{"content":"text"}}],
        "usage":{"prompt_tokens":752,"completion_tokens":8000}}"#,
    );
    // A hundred tokens a second: the input alone would be waited for.
    let world = World { model: model(60_000, 6_000), ..World::new([long]).await };
    world.call().await.unwrap();
    assert_eq!(world.call().await.unwrap_err().fault.label(), "busy");
}

#[tokio::test]
async fn a_bill_without_an_answer_is_settled_and_told() {
    let body = r#"{"choices":[],"usage":{"prompt_tokens":752,"completion_tokens":7}}"#;
    let world = World::new([json(200, body)]).await;
    let error = world.call().await.unwrap_err();
    assert_eq!(error.fault, CallFault::InvalidAnswer(Defect::NoContent));
    assert_eq!(world.account(), (759, 0));
    let spent = world.tab.ended();
    assert_eq!(spent.cost, world.model.price.of(&spent.billed));
}

#[tokio::test]
async fn a_call_that_succeeds_late_tells_what_the_way_there_cost() {
    let world = World::new([Step::close(), json(500, r#"{"code":"SystemError"}"#), answer()]).await;
    let completion = world.call().await.unwrap();
    assert_eq!((completion.receipt.attempts, completion.receipt.retries()), (3, 2));
    assert_eq!(world.account(), (1184, 9_000));
    let spent = world.tab.ended();
    assert_eq!((spent.calls, spent.repeats), (3, 2));
}

#[tokio::test]
async fn a_connection_that_closes_while_the_picture_is_sent_costs_nothing() {
    let world = World::new(vec![Step::close_before_the_body(); 3]).await;
    let page = page(vec![0; 32 * 1024 * 1024]);
    let error = world.call_with(&page, Duration::from_mins(1)).await.unwrap_err();
    assert_eq!((error.fault.label(), error.attempts), ("interrupted", 3));
    assert_eq!(world.account(), (0, 0));
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_costs_nothing() {
    let mut world = World::new([]).await;
    world.upstream.stop().await;
    let error = world.call().await.unwrap_err();
    assert_eq!((error.fault, error.attempts), (CallFault::Unreachable, 3));
    assert_eq!(world.account(), (0, 0));
}

#[tokio::test]
async fn each_clock_that_runs_out_is_named_and_the_call_written_off() {
    let begun = "HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n{";
    for (step, (first_byte, idle, total), expected) in [
        (Step::hang(), (500, 200_000, 200_000), Timeout::FirstByte),
        (Step::write(begun).then_hang(), (200_000, 500, 200_000), Timeout::Idle),
        (Step::write(begun).then_drip(), (900, 900, 900), Timeout::Total),
    ] {
        let world = World::with([step], |settings| {
            settings.first_byte_timeout_ms = first_byte;
            settings.idle_timeout_ms = idle;
            settings.total_timeout_ms = total;
        });
        let world = world.await;
        let error = world.call().await.unwrap_err();
        assert_eq!((error.fault, error.attempts), (CallFault::Timeout(expected), 1));
        assert_eq!(world.account(), (0, 9_000));
    }
}

#[tokio::test]
async fn a_deadline_ends_an_attempt_and_the_call_is_written_off() {
    let world = World::new([Step::hang()]).await;
    let error = world.call_with(&page(""), Duration::from_millis(900)).await.unwrap_err();
    assert_eq!(error.fault, CallFault::DeadlineExceeded);
    assert_eq!(world.account(), (0, 9_000));
}

#[tokio::test]
async fn a_deadline_that_passed_or_is_too_near_costs_nothing() {
    for left in [0, 200, 450] {
        let world = World::new([]).await;
        let error = world.call_with(&page(""), Duration::from_millis(left)).await.unwrap_err();
        assert_eq!((error.fault, error.attempts), (CallFault::DeadlineExceeded, 0), "{left} ms");
        assert_eq!((world.account(), world.upstream.requests().len()), ((0, 0), 0));
    }
}

#[tokio::test]
async fn an_upload_is_not_asked_leave_for_when_it_is_too_late() {
    let world = World::new([]).await;
    let deadline = world.clock.instant() + Duration::from_millis(300);
    let error =
        world.client.upload_policy(&world.model, "acme", deadline, &world.tab).await.unwrap_err();
    assert_eq!((error.fault, error.attempts), (CallFault::DeadlineExceeded, 0));
}

#[tokio::test]
async fn a_bill_that_is_unknown_is_not_risked_twice_for_a_tenant_that_would_rather_fail() {
    let cut =
        Step::write("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{\"choices\":").then_close();
    for step in [Step::close(), cut, json(502, "<html>bad gateway</html>"), json(504, "")] {
        let mut world = World::new([step, answer()]).await;
        let mut tenant = Tenant::clone(&world.tenant);
        tenant.unknown_bill = UnknownBill::Fail;
        world.tenant = Arc::new(tenant);
        assert_eq!(world.call().await.unwrap_err().attempts, 1);
        assert_eq!(world.account(), (0, 9_000));
    }
}

#[tokio::test]
async fn what_costs_nothing_is_repeated_for_a_tenant_that_risks_no_bill() {
    let mut world = World::new([json(500, r#"{"code":"InternalError"}"#), answer()]).await;
    let mut tenant = Tenant::clone(&world.tenant);
    tenant.unknown_bill = UnknownBill::Fail;
    world.tenant = Arc::new(tenant);
    assert_eq!(world.call().await.unwrap().receipt.attempts, 2);
}

#[tokio::test]
async fn a_caller_s_own_deadline_does_not_count_against_the_endpoint() {
    let world = World::with(vec![Step::hang(); 9], |settings| settings.breaker_failures = 1).await;
    for _ in 0..3 {
        tokio::time::pause();
        let error = world.call_with(&page(""), Duration::from_secs(20)).await.unwrap_err();
        assert_eq!((error.fault, error.attempts), (CallFault::DeadlineExceeded, 1));
        tokio::time::resume();
    }
    assert_eq!(world.total("endpoint_state"), 0);
}

#[tokio::test]
async fn an_endpoint_that_exceeds_its_own_time_is_left_alone() {
    let world = World::with(vec![Step::hang(); 9], |settings| {
        settings.breaker_failures = 1;
        settings.first_byte_timeout_ms = 200;
    })
    .await;
    assert_eq!(world.call().await.unwrap_err().fault, CallFault::Timeout(Timeout::FirstByte));
    assert_eq!(world.total("endpoint_state"), 1);
}

/// The bytes of a picture, and a flag that is set when they are dropped.
struct Watched(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Release);
    }
}

#[tokio::test]
async fn an_answer_before_the_request_was_read_ends_the_connection_and_lets_the_upload_go() {
    let refused = json(400, r#"{"code":"InvalidParameter","message":"m"}"#);
    let world = World::new([refused.before_the_body()]).await;
    let is_gone = Arc::new(AtomicBool::new(false));
    let picture = Bytes::from_owner(Watched(vec![7; 9 << 20], Arc::clone(&is_gone)));
    let error = world.call_with(&page(picture), Duration::from_mins(1)).await.unwrap_err();
    assert_eq!((error.fault.label(), world.account()), ("rejected", (0, 0)));
    let gone = async {
        while !is_gone.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the upload is let go");
    // The upstream reads on only now. The data ends long before the picture would.
    let read = world.upstream.rest_of_the_body().await;
    assert!(read < 9 << 20, "{read} bytes of it were sent all the same");
}

#[tokio::test]
async fn a_call_that_is_dropped_after_it_went_out_is_written_off() {
    let world = World::new([Step::hang()]).await;
    let arrived = async {
        while world.upstream.requests().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = world.call() => panic!("{ended:?}"),
        () = arrived => {}
    }
    assert_eq!(world.account(), (0, 9_000));
}

#[tokio::test]
async fn an_answer_over_the_limit_is_not_read_on() {
    let step = json(200, &format!("{{\"x\":\"{}\"}}", "x".repeat(5_000)));
    let world = World::with([step], |settings| settings.max_response_bytes = 1_000).await;
    let error = world.call().await.unwrap_err();
    assert_eq!(error.fault, CallFault::InvalidAnswer(Defect::TooLong));
    assert_eq!(world.account(), (0, 9_000));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(outcome(Step::write(elsewhere)).await, ("rejected", 1, 0));
}

fn throttled(header: &str) -> Step {
    let body = r#"{"code":"Throttling.RateQuota"}"#;
    Step::write(&format!(
        "HTTP/1.1 429 Too Many Requests\r\n{header}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

#[tokio::test]
async fn a_retry_after_past_the_deadline_ends_the_call_and_holds_back_the_next() {
    // The third is a date; the test's wall clock starts at the epoch.
    for header in
        ["Retry-After: 300", "retry-after-ms: 300000", "Retry-After: Thu, 01 Jan 1970 00:05:00 GMT"]
    {
        let world = World::new([throttled(header), answer()]).await;
        let first = world.call().await.unwrap_err();
        assert_eq!((first.fault.label(), first.attempts), ("throttled", 1));
        let second = world.call().await.unwrap_err();
        assert_eq!((second.fault.label(), second.attempts), ("throttled", 0), "{header}");
        assert!(second.fault.retry_after() > Some(Duration::from_mins(4)));
        assert_eq!(world.upstream.requests().len(), 1);
        assert_eq!(world.account(), (0, 0));
    }
}

#[tokio::test]
async fn a_retry_after_of_a_year_is_not_believed() {
    for header in [
        "Retry-After: 31536000",
        "Retry-After: 99999999999999999999",
        "retry-after-ms: 40000000000",
        "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        let world = World::new([throttled(header)]).await;
        let error = world.call().await.unwrap_err();
        assert_eq!(error.fault.retry_after(), Some(Duration::from_mins(10)), "{header}");
    }
}

#[tokio::test]
async fn a_short_retry_after_is_waited_for() {
    let world = World::new([throttled("retry-after-ms: 20"), answer()]).await;
    assert_eq!(world.call().await.unwrap().receipt.attempts, 2);
}

#[tokio::test]
async fn an_outage_is_not_multiplied_by_retries() {
    let outage = vec![json(500, r#"{"code":"InternalError"}"#); 60];
    let world = World::with(outage, |settings| {
        settings.retry_budget_floor_per_second = 0;
        settings.breaker_failures = 1_000;
    });
    let world = world.await;
    for _ in 0..20 {
        world.call().await.unwrap_err();
    }
    // The budget starts with ten retries, and each call after the first adds a fifth of one.
    assert_eq!(world.upstream.requests().len(), 20 + 13);
}

#[tokio::test]
async fn a_second_permit_that_the_tenant_has_no_room_for_ends_the_call() {
    let mut world = World::new([Step::close(), answer()]).await;
    let mut tenant = Tenant::clone(&world.tenant);
    tenant.tokens_per_minute = NonZeroU64::new(10_000);
    world.tenant = Arc::new(tenant);
    let error = world.call().await.unwrap_err();
    let CallFault::Refused(refusal) = error.fault else { panic!("{error}") };
    assert!(matches!(*refusal, Refusal::Limit(_)));
    assert_eq!((error.attempts, world.account()), (1, (0, 9_000)));
}

#[tokio::test]
async fn the_upstream_s_words_reach_nobody() {
    let body = r#"{"code":"InternalError","message":"quoted secret","request_id":"r-9"}"#;
    let world = World::new(vec![json(500, body); 3]).await;
    let error = world.call().await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("quoted"));
    assert_eq!(error.request_id, Code::new("r-9"));
    assert_eq!(error.fault.code(), Code::new("InternalError").as_ref());
}

#[tokio::test]
async fn content_is_not_printed() {
    let world = World::new([answer()]).await;
    let call = page("picture");
    let completion = world.call_with(&call, Duration::from_mins(1)).await.unwrap();
    let printed = format!("{call:?} {completion:?} {:?}", world.client);
    for content in ["secret", "picture", "\"text\""] {
        assert!(!printed.contains(content), "{content} in {printed}");
    }
}

#[tokio::test]
async fn a_check_tells_a_good_address_from_a_bad_key_and_from_neither() {
    let steps = [json(200, "{}"), json(401, "{}"), json(404, "")];
    let mut world = World::new(steps).await;
    assert_eq!(world.check().await, Ok(()));
    assert!(world.upstream.requests()[0].head.starts_with("get /compatible-mode/v1/models http"));
    assert!(matches!(world.check().await, Err(CheckError::Key { status: 401, .. })));
    assert!(matches!(world.check().await, Err(CheckError::Unexpected { status: 404, .. })));
    world.upstream.stop().await;
    let error = world.check().await.unwrap_err().to_string();
    assert!(error.contains("refused") && error.contains("upstream.base_url"), "{error}");
}
