//! Callers that close their side. A caller that only closes its sending side gets its answer. Calls do not wait for a
//! caller that may have left.

use std::num::NonZeroU64;

use dashscope_emulator::Fault;
use ocr_gateway::auth::tenant::Tenant;
use serde_json::Value;

use crate::budgets::accounts;
use crate::dropin::{CHAT, GENERATION, chat, generation};
use crate::harness::{Answer, SCRIPTED_TEXT, TestGateway, fixture, until};
use crate::program::Installation;
use crate::wire::Wire;

/// Sends a whole request and closes the sending side.
async fn half_closed(gateway: &TestGateway, path: &str, headers: &str, body: &[u8]) -> Wire {
    let mut wire = Wire::to(gateway).await;
    let headers = format!("{headers}\nContent-Length: {}", body.len());
    wire.head(&format!("POST {path}"), headers.trim()).await;
    wire.send(body).await;
    wire.finish().await;
    wire
}

#[tokio::test]
async fn a_caller_that_closes_its_sending_side_is_answered() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::delay(100));
    let mut wire = half_closed(&gateway, "/ocr", "", &fixture("hello.png")).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status.as_u16(), &answer.json["text"]), (200, &SCRIPTED_TEXT.into()));
    for (path, body) in [(CHAT, chat()), (GENERATION, generation())] {
        let mut wire = half_closed(&gateway, path, "", body.to_string().as_bytes()).await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert!(answer.text.contains(SCRIPTED_TEXT), "{path}");
    }
}

#[tokio::test]
async fn a_caller_that_closes_its_sending_side_while_its_page_is_read_is_answered() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::delay(300));
    let (mut wire, file) = (Wire::to(&gateway).await, fixture("hello.png"));
    wire.head("POST /ocr", &format!("Content-Length: {}", file.len())).await;
    wire.send(&file).await;
    gateway.until_upstream_has(1).await;
    wire.finish().await;
    assert_eq!(wire.answer().await.json["text"], SCRIPTED_TEXT);
}

#[tokio::test]
async fn a_stream_reaches_a_caller_that_closed_its_sending_side() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::delay(100));
    let (mut streaming, mut native) = (chat(), generation());
    streaming["stream"] = true.into();
    native["parameters"]["incremental_output"] = true.into();
    let file = fixture("hello.png");
    for (path, headers, body, end) in [
        ("/ocr", "Accept: text/event-stream", file, "event: answer"),
        (CHAT, "", streaming.to_string().into_bytes(), "data: [DONE]"),
        (GENERATION, "X-DashScope-SSE: enable", native.to_string().into_bytes(), "\"stop\""),
    ] {
        let mut wire = half_closed(&gateway, path, headers, &body).await;
        let told = wire.everything().await;
        assert!(told.starts_with("HTTP/1.1 200") && told.contains(end), "{path}: {told}");
    }
}

#[tokio::test]
async fn a_call_that_was_not_sent_is_not_sent_for_a_caller_that_left() {
    let gateway = TestGateway::start().await;
    let file = fixture("hello.png");
    let bound = gateway.upload("/estimate", file.clone()).await.json["bound"].clone();
    let tenant = Tenant {
        // Room for one call at a time.
        daily_tokens: NonZeroU64::new(bound["total_tokens"].as_u64().unwrap() + 1_000),
        ..Tenant::new("acme".parse().unwrap())
    };
    let key = gateway.key_of(&tenant).await;
    gateway.upstream().add_fault(Fault::delay(4_000).times(1));
    let first = gateway.post_as(&key, "/ocr").body(file.clone());
    let leaving = async {
        gateway.until_upstream_has(1).await;
        let mut wires = Vec::new();
        for (path, body) in [("/ocr", file.clone()), (CHAT, chat().to_string().into_bytes())] {
            let mut wire = Wire::of(&gateway, &key).await;
            wire.head(&format!("POST {path}"), &format!("Content-Length: {}", body.len())).await;
            wire.send(&body).await;
            wires.push(wire);
        }
        until("both wait", async || gateway.count("in_flight_requests", &[]).await == 3).await;
        drop(wires);
        until("both are gone", async || gateway.count("in_flight_requests", &[]).await == 1).await;
    };
    let (first, ()) = tokio::join!(Answer::of(first), leaving);
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!(gateway.upstream().bill().received, 1);
    assert_eq!(accounts(&gateway, "acme").await.1, 0);
}

/// A gateway whose calls are sent one by one, about ten seconds apart.
async fn one_at_a_time() -> TestGateway {
    TestGateway::with(|setup| {
        for model in setup.settings.models.values_mut() {
            model.rpm = 6;
        }
    })
    .await
}

/// Requests to all routes, with whole and with streamed answers.
fn requests() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let (mut streaming, mut native) = (chat(), generation());
    streaming["stream"] = true.into();
    native["parameters"]["incremental_output"] = true.into();
    let file = fixture("hello.png");
    vec![
        ("/ocr", "", file.clone()),
        ("/ocr", "Accept: text/event-stream", file.clone()),
        ("/extract?template=receipt", "", file),
        (CHAT, "", chat().to_string().into_bytes()),
        (CHAT, "", streaming.to_string().into_bytes()),
        (GENERATION, "", generation().to_string().into_bytes()),
        (GENERATION, "X-DashScope-SSE: enable", native.to_string().into_bytes()),
    ]
}

/// A caller whose call waits in the queue for another call.
async fn waiting_for_its_turn(path: &str, headers: &str, body: &[u8]) -> (TestGateway, Wire) {
    let gateway = one_at_a_time().await;
    let first = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let mut wire = Wire::to(&gateway).await;
    let headers = format!("{headers}\nContent-Length: {}", body.len());
    wire.head(&format!("POST {path}"), headers.trim()).await;
    wire.send(body).await;
    until("reserved", async || accounts(&gateway, "test").await.1 > 0).await;
    (gateway, wire)
}

/// Waits until the call is given up. It must have cost nothing.
async fn until_given_up(gateway: &TestGateway, path: &str) {
    until("given back", async || accounts(gateway, "test").await.1 == 0).await;
    assert_eq!(gateway.upstream().bill().received, 1, "{path}");
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0, "{path}");
}

#[tokio::test]
async fn a_call_that_waits_for_its_turn_is_not_sent_for_a_caller_that_left() {
    for (path, headers, body) in requests() {
        let (gateway, wire) = waiting_for_its_turn(path, headers, &body).await;
        drop(wire);
        until_given_up(&gateway, path).await;
    }
}

#[tokio::test]
async fn a_call_that_waits_for_its_turn_is_not_sent_for_a_caller_that_reset_its_connection() {
    for (path, headers, body) in requests() {
        let (gateway, wire) = waiting_for_its_turn(path, headers, &body).await;
        wire.reset();
        until_given_up(&gateway, path).await;
    }
}

#[tokio::test]
async fn a_call_that_waits_to_be_repeated_is_not_repeated_for_a_caller_that_left() {
    for (path, headers, body) in requests() {
        let gateway = TestGateway::start().await;
        let throttle = Fault::code("Throttling.RateQuota").retry_after(9);
        gateway.upstream().add_fault(throttle.times(1));
        let mut wire = Wire::to(&gateway).await;
        let headers = format!("{headers}\nContent-Length: {}", body.len());
        wire.head(&format!("POST {path}"), headers.trim()).await;
        wire.send(&body).await;
        gateway.until_metric("upstream_retries_total", &[], 1.0).await;
        drop(wire);
        until_given_up(&gateway, path).await;
    }
}

#[tokio::test]
async fn a_caller_that_closed_its_sending_side_is_told_what_its_call_waited_for() {
    let gateway = one_at_a_time().await;
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
    let mut wire = half_closed(&gateway, "/ocr", "", &fixture("hello.png")).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status.as_u16(), answer.code()), (429, "rate_limited"));
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(gateway.upstream().bill().received, 1);
}

#[tokio::test]
async fn a_caller_that_closes_its_side_before_its_key_is_known_is_counted_with_its_tenant() {
    let gateway = TestGateway::start().await;
    let file = fixture("hello.png");
    for _ in 0..10 {
        // A new key has to be looked up.
        let key = gateway.another_key(|_| {}).await;
        let mut wire = Wire::of(&gateway, &key).await;
        let head = format!(
            "POST /estimate HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\nContent-Length: {}\r\n\r\n",
            file.len()
        );
        wire.send([head.as_bytes(), &file].concat()).await;
        wire.finish().await;
        assert_eq!(wire.answer().await.status, 200);
    }
    let requests = async |tenant| {
        let labels = [("route", "/estimate"), ("tenant", tenant)];
        gateway.count("requests_total", &labels).await
    };
    assert_eq!((requests("test").await, requests("none").await), (10, 0));
}

#[tokio::test]
async fn the_line_of_a_caller_that_left_names_its_tenant() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    let service = installation.serve().await;
    let key = installation.key("acme").await;
    installation.upstream().add_fault(Fault::hang());
    let request = service.post(&key, "/ocr").body(fixture("hello.png"));
    let asking = crate::harness::spawn(async move { Answer::of(request).await.status });
    until("sent", async || installation.upstream().bill().received == 1).await;
    asking.abort();
    until("told", async || service.log().contains("the caller left")).await;
    let log = service.log();
    let line = log.lines().find(|line| line.contains("the caller left")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["tenant"], &line["status"]), (&"acme".into(), &499.into()), "{line}");
    let url = format!("{}/metrics", service.metrics_address);
    let metrics = service.http.get(url).send().await.unwrap().text().await.unwrap();
    let counted = metrics.lines().find(|line| line.contains("status=\"499\"")).unwrap_or_default();
    assert!(counted.contains("tenant=\"acme\"") && counted.ends_with(" 1"), "{counted}");
}
