//! Every limit refuses at once, with its name, both numbers and a correct wait.

use dashscope_emulator::{EngineChoice, Fault};
use serde_json::{Value, json};

use crate::harness::{Answer, TestGateway, fixture};
use crate::wire::Wire;

/// Sends a request that hangs at the upstream until its deadline, and returns its connection once the upstream has it.
async fn hanging(gateway: &TestGateway, seconds: u64) -> Wire {
    gateway.upstream().add_fault(Fault::hang().times(1));
    let (mut wire, file) = (Wire::to(gateway).await, fixture("hello.png"));
    let headers = format!("Content-Length: {}\nPrefer: wait={seconds}", file.len());
    wire.head("POST /ocr", &headers).await;
    wire.send(&file).await;
    gateway.until_upstream_has(1).await;
    wire
}

#[tokio::test]
async fn a_tenant_s_requests_at_once_are_limited_and_the_place_is_given_back() {
    let gateway = TestGateway::with(|setup| setup.tenant.concurrency = 1.try_into().ok()).await;
    let mut first = hanging(&gateway, 2).await;
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (429, "rate_limited"));
    assert_eq!(answer.json["limit"], json!({ "name": "concurrency", "actual": 2, "allowed": 1 }));
    assert!(!answer.header("retry-after").is_empty());
    let refused = [("tenant", "test"), ("reason", "concurrency")];
    assert_eq!(gateway.count("refused_total", &refused).await, 1);
    assert_eq!(first.answer().await.code(), "deadline_exceeded");
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
}

#[tokio::test]
async fn a_caller_that_left_keeps_its_place_while_its_call_is_under_way() {
    let gateway = TestGateway::with(|setup| setup.tenant.concurrency = 1.try_into().ok()).await;
    drop(hanging(&gateway, 60).await);
    gateway.until_metric("requests_total", &[("status", "499")], 1.0).await;
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (429, "rate_limited"));
}

#[tokio::test]
async fn a_full_service_says_so_instead_of_queueing() {
    let gateway = TestGateway::with(|setup| {
        setup.settings.server.max_in_flight_requests = 1.into();
    })
    .await;
    let _first = hanging(&gateway, 60).await;
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "overloaded"));
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(gateway.count("refused_total", &[("reason", "overloaded")]).await, 1);
    assert_eq!(Answer::of(gateway.get("/livez")).await.status, 200);
    assert_eq!(Answer::of(gateway.get("/readyz")).await.status, 200);
}

#[tokio::test]
async fn requests_a_minute_are_limited_with_a_wait_that_is_not_too_long() {
    let gateway =
        TestGateway::with(|setup| setup.tenant.requests_per_minute = 2.try_into().ok()).await;
    for _ in 0..2 {
        assert_eq!(gateway.upload("/estimate", fixture("hello.png")).await.status, 200);
    }
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (429, "rate_limited"));
    assert_eq!(answer.json["limit"], json!({ "name": "rpm", "actual": 3, "allowed": 2 }));
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&wait), "a request comes back every 30 s: {wait}");
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn tokens_a_minute_are_limited_before_anything_is_sent() {
    let gateway =
        TestGateway::with(|setup| setup.tenant.tokens_per_minute = 9_000.try_into().ok()).await;
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
    let mut answer = gateway.upload("/ocr", fixture("hello.png")).await;
    while answer.status == 200 {
        answer = gateway.upload("/ocr", fixture("hello.png")).await;
    }
    assert_eq!((answer.status.as_u16(), answer.code()), (429, "rate_limited"));
    assert_eq!(answer.json["limit"]["name"], "tpm");
    assert_eq!(answer.json["limit"]["allowed"], 9_000);
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(answer.json["usage"], Value::Null);
}

#[tokio::test]
async fn a_tenant_s_limit_of_written_tokens_is_foretold_sent_and_kept() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.max_tokens = 100.try_into().ok();
        setup.emulator.engine = EngineChoice::Scripted("word ".repeat(400));
    })
    .await;
    let estimate = gateway.upload("/estimate", fixture("hello.png")).await;
    assert_eq!(estimate.json["bound"]["output_tokens"], 100);
    for route in ["/ocr", "/ocr?task=text_recognition"] {
        let answer = gateway.upload(route, fixture("hello.png")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json["usage"]["output_tokens"], 100);
        let page = &answer.json["pages"][0];
        assert_eq!(page["finish_reason"], "length");
        assert!(page["warnings"].to_string().contains("truncated"), "{page}");
    }
    let sent = gateway.upstream().calls();
    assert_eq!(sent.iter().map(|call| call.max_tokens).collect::<Vec<_>>(), [Some(100); 2]);
}

#[tokio::test]
async fn connections_without_a_key_keep_no_known_caller_out() {
    const CONNECTIONS: usize = 4;
    let gateway = TestGateway::with(|setup| {
        setup.settings.server.max_connections = (CONNECTIONS as u64).into();
        setup.settings.server.max_in_flight_requests = 2.into();
    })
    .await;
    let mut known = Wire::to(&gateway).await;
    known.head("GET /usage", "").await;
    assert_eq!(known.answer().await.status, 200);
    // Ways to hold a connection without a key: send nothing, a part of a head, or a request without a key.
    let mut strangers = Vec::new();
    for begin in
        ["", "GET /usage HTTP/1.1\r\nHost: test\r\nX-API", "GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"]
    {
        for _ in 0..CONNECTIONS / 2 {
            let mut stranger = Wire::to(&gateway).await;
            stranger.send(begin).await;
            strangers.push(stranger);
        }
    }
    for _ in 0..2 {
        let mut caller = Wire::to(&gateway).await;
        caller.head("GET /usage", "").await;
        assert_eq!(caller.answer().await.status, 200);
    }
    known.head("GET /usage", "").await;
    assert_eq!(known.answer().await.status, 200, "a known caller's idle connection stays");
    let closed = [("reason", "unknown_connection")];
    assert!(gateway.count("refused_total", &closed).await > 0);
}
