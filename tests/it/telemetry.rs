//! The data that operators see, and the data that must stay private.
//!
//! The metrics have the documented labels, and the number of label values is bounded. Metrics and logs contain no part
//! of a document, a prompt, a file name or a key, even at level `trace`.

use dashscope_emulator::Fault;
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::units::Pixels;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::dropin::{self, CHAT, GENERATION};
use crate::harness::{Answer, TestGateway, fixture, until};
use crate::program::{Installation, Service, UPSTREAM_KEY};

/// Words in place of all private content. Each is sent or read somewhere.
mod private {
    pub(super) const TEXT: &str = "textual-marker-93c1";
    pub(super) const PROMPT: &str = "prompting-marker-93c2";
    pub(super) const FILE_NAME: &str = "filename-marker-93c3.png";
    pub(super) const METADATA: &str = "metadata-marker-93c4";
    pub(super) const FIELD: &str = "fieldname-marker-93c5";
    pub(super) const UPSTREAM_WORDS: &str = "upstream-marker-93c6";
    pub(super) const OPTION: &str = "optional-marker-93c7";
    pub(super) const PATH: &str = "pathlike-marker-93c8";
    pub(super) const BODY: &str = "bodily-marker-93c9";
}

/// Uses all features a little, so that each series exists.
async fn busy() -> TestGateway {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.max_pixels = Some(Pixels::new(32_768));
        setup.tenant.requests_per_minute = 4.try_into().ok();
    })
    .await;
    gateway.upload("/ocr", fixture("hello.png")).await;
    gateway.upstream().add_fault(Fault::status(500).times(1));
    gateway.upload("/ocr", fixture("hello.png")).await;
    gateway.upstream().add_fault(Fault::empty_body().times(1));
    gateway.upload("/ocr", fixture("hello.png")).await;
    gateway.upload("/nowhere", "").await;
    gateway.upload("/ocr", fixture("hello.png")).await;
    gateway.upload("/ocr", fixture("hello.png")).await;
    gateway
}

/// The names of the labels of a metric's series.
fn labels(metrics: &str, name: &str) -> Vec<String> {
    let start = format!("ocr_gateway_{name}");
    let mut lines = metrics.lines().filter_map(|line| line.strip_prefix(&start));
    let series =
        lines.find(|rest| rest.starts_with(['{', ' '])).unwrap_or_else(|| panic!("{name}"));
    let Some((labels, _)) = series.trim_start_matches('{').split_once('}') else { return vec![] };
    let names = labels.split(',').map(|label| label.split_once('=').unwrap().0.to_owned());
    let mut names: Vec<_> = names.filter(|name| name != "le").collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_metrics_of_the_contract_are_there_with_their_labels() {
    let metrics = busy().await.metrics().await;
    for (name, expected) in [
        ("tokens_spent_total", "kind model tenant"),
        ("tokens_unverified_total", "model tenant"),
        ("tokens_saved_total", "reason tenant"),
        ("cost_total", "currency model tenant"),
        ("token_estimate_mismatch_total", "model"),
        ("requests_total", "route status tenant"),
        ("request_duration_seconds_bucket", "route"),
        ("overhead_seconds_bucket", "route"),
        ("upstream_queue_seconds_bucket", "model"),
        ("upstream_attempts_total", "endpoint outcome"),
        ("upstream_duration_seconds_bucket", "endpoint"),
        ("upstream_retries_total", "reason"),
        ("refused_total", "reason tenant"),
        ("in_flight_requests", ""),
        ("in_flight_requests_limit", ""),
        ("in_flight_bytes", ""),
        ("in_flight_bytes_limit", ""),
        ("connections", ""),
        ("connections_limit", ""),
        ("streams", ""),
        ("ledger_time_zone", "time_zone"),
        ("build_info", "version"),
    ] {
        let expected: Vec<_> = expected.split_whitespace().collect();
        assert_eq!(labels(&metrics, name), expected, "{name}");
    }
    assert!(metrics.contains("\nprocess_resident_memory_bytes "));
}

#[tokio::test]
async fn every_metric_of_ours_says_what_it_is() {
    let metrics = busy().await.metrics().await;
    let typed = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ocr_gateway_"));
    let mut count = 0;
    for name in typed.map(|rest| rest.split(' ').next().unwrap()) {
        assert!(metrics.contains(&format!("# HELP ocr_gateway_{name} ")), "{name}");
        count += 1;
    }
    assert!(count >= 14, "{metrics}");
}

#[tokio::test]
async fn metrics_are_on_their_own_listener_and_the_public_api_is_not() {
    let gateway = TestGateway::start().await;
    let public = Answer::of(gateway.get("/metrics")).await;
    assert_eq!((public.status.as_u16(), public.code()), (404, "not_found"));
    for (path, status) in
        [("/metrics", 200), ("/livez", 200), ("/readyz", 200), ("/templates", 404)]
    {
        let request = gateway.http.get(format!("{}{path}", gateway.metrics_address));
        assert_eq!(Answer::of(request).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn tenants_past_the_bound_are_counted_together() {
    let gateway = TestGateway::with(|setup| setup.settings.metrics.max_tenants = 3).await;
    for number in 0..6 {
        let tenant = Tenant::new(format!("tenant-{number}").parse().unwrap());
        let key = gateway.key_of(&tenant).await;
        Answer::of(gateway.post_as(&key, "/ocr").body(fixture("hello.png"))).await;
    }
    let requests = async |tenant: &str| {
        gateway.count("requests_total", &[("route", "/ocr"), ("tenant", tenant)]).await
    };
    assert_eq!(requests("tenant-2").await, 1);
    assert_eq!(requests("tenant-3").await, 0);
    assert_eq!(requests("other").await, 3);
    let spent = gateway.count("tokens_spent_total", &[]).await;
    assert_eq!(spent, gateway.upstream().bill().total(), "and nobody is left out");
}

#[tokio::test]
async fn strangers_and_made_up_paths_add_no_series() {
    let gateway = TestGateway::start().await;
    let knock = async |number: usize| {
        let key = format!("stranger-{number}");
        let path = format!("/made/up/{number}");
        for request in [gateway.post_as(&key, "/ocr"), gateway.post_as(&key, &path)] {
            assert!(Answer::of(request).await.status.is_client_error());
        }
        let path = format!("/templates/made-up-{number}");
        Answer::of(gateway.get(&path)).await;
    };
    knock(0).await;
    gateway.metrics().await;
    let before = gateway.metrics().await.lines().count();
    for number in 1..30 {
        knock(number).await;
    }
    assert_eq!(gateway.metrics().await.lines().count(), before);
}

/// Sends private words in all places for them.
async fn send_private_words(service: &Service, key: &str) {
    let file = || Part::bytes(fixture("hello.png")).file_name(private::FILE_NAME);
    let metadata = json!({ "note": private::METADATA }).to_string();
    let form = Form::new().part("file", file()).text("metadata", metadata);
    let form = form.text("prompt", private::PROMPT);
    let answer = Answer::of(service.post(key, "/ocr").multipart(form)).await;
    assert_eq!(answer.json["text"], private::TEXT, "{}", answer.text);

    let data = base64_simd::STANDARD.encode_to_string(fixture("hello.png"));
    let schema =
        json!({ "type": "object", "properties": { private::FIELD: { "type": "string" } } });
    let document = json!({ "type": "base64", "data": data, "filename": private::FILE_NAME });
    let body = json!({ "document": document, "schema": schema }).to_string();
    let request = service.post(key, "/extract").header("content-type", "application/json");
    let answer = Answer::of(request.body(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);

    let stream = service.post(key, "/ocr").header("accept", "text/event-stream");
    let answer = Answer::of(stream.body(fixture("hello.png"))).await;
    assert!(answer.text.contains("event: answer"), "{}", answer.text);
    for streams in [true, false] {
        let answer = Answer::of(service.post(key, CHAT).body(private_chat(streams))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

/// A request of the compatible protocol with private words in all members.
fn private_chat(streams: bool) -> String {
    let mut body = dropin::chat();
    body["stream"] = streams.into();
    body[private::OPTION] = private::METADATA.into();
    body["messages"][0]["content"][1]["text"] = private::PROMPT.into();
    body.to_string()
}

/// Sends private words in requests that fail.
async fn fail_with_private_words(installation: &Installation, service: &Service, key: &str) {
    let said = Fault::code("InternalError").with_message(private::UPSTREAM_WORDS);
    installation.upstream().add_fault(said.times(1));
    Answer::of(service.post(key, "/ocr").body(fixture("hello.png"))).await;
    for (path, body) in [
        (format!("/ocr?{}=1", private::OPTION), fixture("hello.png")),
        (format!("/ocr?model={}", private::OPTION), fixture("hello.png")),
        (format!("/{}", private::PATH), Vec::new()),
        (format!("/ocr?prompt={}", private::PROMPT), private::BODY.into()),
    ] {
        assert!(Answer::of(service.post(key, &path).body(body)).await.status.is_client_error());
    }
    let request = service.post(key, "/ocr").header("content-type", "application/json");
    Answer::of(request.body(format!("{{\"document\": {}", private::BODY))).await;
    Answer::of(service.post(&key.replace(&key[20..24], "zzzz"), "/ocr").body("x")).await;
    for fault in [
        Fault::code("InvalidParameter").with_message(private::UPSTREAM_WORDS),
        Fault::error_event_after(2, "Arrearage").with_message(private::UPSTREAM_WORDS),
        Fault::cut_stream_after(2),
    ] {
        installation.upstream().add_fault(fault.times(1));
        // A stream that breaks off has no whole answer.
        let request = service.post(key, CHAT).body(private_chat(true));
        let _ = request.send().await.unwrap().bytes().await;
    }
    let body = private_chat(false).replacen('{', "{\"maxTokens\":1,", 1);
    assert_eq!(Answer::of(service.post(key, CHAT).body(body)).await.status, 400);
    assert_eq!(Answer::of(service.post(key, CHAT).body(private::BODY)).await.status, 400);
}

/// All words that must not be found.
fn private_words(key: &str) -> Vec<String> {
    let picture = base64_simd::STANDARD.encode_to_string(fixture("hello.png"));
    let words = [
        private::TEXT,
        private::PROMPT,
        private::FILE_NAME,
        private::METADATA,
        private::FIELD,
        private::UPSTREAM_WORDS,
        private::OPTION,
        private::PATH,
        private::BODY,
        UPSTREAM_KEY,
        key,
        key.split('_').next_back().unwrap(),
        &picture[..40],
        &picture[2000..2040],
    ];
    words.map(str::to_owned).into()
}

#[tokio::test]
async fn no_log_line_or_metric_holds_anything_private_even_at_trace() {
    let mut installation = Installation::reading(private::TEXT).await;
    installation.set("LOG__FILTER", "ocr_gateway=trace,info");
    installation.set("UPSTREAM__UNKNOWN_MEMBERS", "pass");
    installation.set("UPSTREAM__BACKOFF_CAP_MS", "1");
    installation.set("UPSTREAM__BACKOFF_BASE_MS", "1");
    let mut service = installation.serve().await;
    let key = installation.key("acme").await;
    send_private_words(&service, &key).await;
    fail_with_private_words(&installation, &service, &key).await;
    let metrics = service.http.get(format!("{}/metrics", service.metrics_address));
    let metrics = Answer::of(metrics).await.text;
    service.signal("TERM").await;
    assert_eq!(service.ended().await, Some(0));
    until("the log is whole", async || service.log().contains("stopped")).await;
    let log = service.log();
    assert!(log.contains("the upstream was asked") && metrics.contains("tenant=\"acme\""), "{log}");
    for word in private_words(&key) {
        assert!(!log.contains(&word), "{word} in {log}");
        assert!(!metrics.contains(&word), "{word} in {metrics}");
    }
}

#[tokio::test]
async fn a_request_is_one_line_with_its_id_its_cost_and_its_outcome() {
    let installation = Installation::reading("a page").await;
    let service = installation.serve().await;
    let key = installation.key("acme").await;
    let request = service.post(&key, "/ocr").header("x-request-id", "order-66");
    let answer = Answer::of(request.body(fixture("hello.png"))).await;
    until("logged", async || service.log().contains("order-66")).await;
    let log = service.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("order-66")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    let line: Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!((&line["status"], &line["tenant"]), (&json!(200), &json!("acme")), "{line}");
    assert_eq!(line["route"], "/ocr");
    assert_eq!(line["tokens.image"], answer.json["usage"]["image_tokens"]);
    assert_eq!(line["span"]["request_id"], "order-66");
    assert!(line["took.ms"].is_number(), "{line}");
}

#[tokio::test]
async fn probes_that_succeed_are_not_logged() {
    let installation = Installation::reading("a page").await;
    let service = installation.serve().await;
    let before = service.log();
    for path in ["/livez", "/readyz", "/metrics"] {
        let request = service.http.get(format!("{}{path}", service.metrics_address));
        assert_eq!(Answer::of(request).await.status, 200);
    }
    assert_eq!(service.log(), before);
}

#[tokio::test]
async fn a_line_names_the_tenant_whose_key_was_shown_on_every_route() {
    let installation = Installation::reading("a page").await;
    let service = installation.serve().await;
    let key = installation.key("acme").await;
    for (number, path) in [
        "/usage",
        "/usage?x=1",
        "/templates",
        "/templates/receipt",
        "/templates/none",
        "/v1/models",
        "/compatible-mode/v1/models",
        "/compatible-mode/v1/models/none",
        "/api/v1/uploads",
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("line-{number}-");
        let request = service.http.get(format!("{}{path}", service.address));
        Answer::of(request.bearer_auth(&key).header("x-request-id", &id)).await;
        until("logged", async || service.log().contains(&id)).await;
        let log = service.log();
        let line = log.lines().find(|line| line.contains(&id)).unwrap();
        assert!(line.contains("\"tenant\":\"acme\""), "{path}: {line}");
    }
}

/// A request for a stream, on a path with streams.
fn streaming(service: &Service, key: &str, path: &str) -> reqwest::RequestBuilder {
    let request = service.post(key, path);
    match path {
        CHAT => {
            let mut body = dropin::chat();
            body["stream"] = true.into();
            request.body(body.to_string())
        }
        GENERATION => {
            request.header("x-dashscope-sse", "enable").body(dropin::generation().to_string())
        }
        _ => request.header("accept", "text/event-stream").body(fixture("hello.png")),
    }
}

/// A request for each route that spends.
fn spending(service: &Service, key: &str) -> Vec<reqwest::RequestBuilder> {
    let picture = fixture("hello.png");
    vec![
        service.post(key, "/ocr").body(picture.clone()),
        service.post(key, "/extract?template=receipt").body(picture),
        service.post(key, CHAT).body(dropin::chat().to_string()),
        service.post(key, GENERATION).body(dropin::generation().to_string()),
        streaming(service, key, "/ocr"),
        streaming(service, key, CHAT),
        streaming(service, key, GENERATION),
    ]
}

#[tokio::test]
async fn what_a_bill_is_matched_by_is_logged_on_every_route_that_spends() {
    let installation = Installation::reading("a page").await;
    let service = installation.serve().await;
    let key = installation.key("acme").await;
    let key_id = key.split('_').nth(1).unwrap();
    for (number, request) in spending(&service, &key).into_iter().enumerate() {
        let id = format!("bill-{number}-");
        let answer = Answer::of(request.header("x-request-id", &id)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let billed = || {
            let log = service.log();
            let lines = log.lines().filter(|line| line.contains(&id));
            let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.filter(|line| line["cost.amount"].is_string()).collect::<Vec<_>>()
        };
        until("logged", async || !billed().is_empty()).await;
        let line = billed().remove(0);
        let call = installation.upstream().calls().pop().unwrap();
        let bill = call.billed.unwrap();
        assert_eq!(line["tenant"], "acme", "{line}");
        assert_eq!(line["key.id"], key_id, "{line}");
        assert_eq!(line["model"], "qwen-vl-ocr-2025-11-20", "{line}");
        assert_eq!(line["endpoint"], "beijing", "{line}");
        assert_eq!(line["tokens.image"], bill.image, "{line}");
        assert_eq!(line["tokens.output"], bill.output, "{line}");
        assert_eq!(line["upstream.request_id"], call.request_id.as_str(), "{line}");
        assert_eq!(line["cost.currency"], "CNY", "{line}");
    }
}

#[tokio::test]
async fn the_key_is_named_also_where_nothing_is_spent_and_where_a_request_is_refused() {
    let installation = Installation::reading("a page").await;
    let service = installation.serve().await;
    let key = installation.key("acme").await;
    let key_id = key.split('_').nth(1).unwrap();
    for (number, request) in [
        service.http.get(format!("{}/usage", service.address)).bearer_auth(&key),
        service.post(&key, "/estimate").body(fixture("hello.png")),
        service.post(&key, "/ocr").body("no picture"),
        service.post(&key, CHAT).body("no json"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("named-{number}-");
        Answer::of(request.header("x-request-id", &id)).await;
        until("logged", async || service.log().contains(&id)).await;
        let log = service.log();
        let line = log.lines().find(|line| line.contains(&id)).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["key.id"], key_id, "{line}");
    }
}
