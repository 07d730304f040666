//! Requests above the limits are refused before they are read. Their room is released however a request ends.

use dashscope_emulator::Fault;
use serde_json::json;

use crate::dropin::{CHAT, chat, streamed};
use crate::harness::{Answer, TestGateway, fixture, jpeg_of, until};
use crate::program::Installation;
use crate::wire::Wire;

/// Bytes that may be in flight in these tests.
const ALLOWED: u64 = 100_000;

/// More than half of them.
const LARGE: usize = 60_000;

async fn gateway() -> TestGateway {
    TestGateway::with(|setup| {
        setup.settings.server.max_body_bytes = ALLOWED;
        setup.settings.server.max_in_flight_bytes = ALLOWED.into();
    })
    .await
}

/// Sends an upload that hangs at the upstream, and returns its connection once the upstream has it.
async fn hanging(gateway: &TestGateway) -> Wire {
    gateway.upstream().add_fault(Fault::hang().times(1));
    let (mut wire, calls) = (Wire::to(gateway).await, gateway.upstream().bill().received);
    wire.head("POST /ocr", &format!("Content-Length: {LARGE}\nPrefer: wait=60")).await;
    wire.send(&jpeg_of(LARGE)).await;
    gateway.until_upstream_has(calls + 1).await;
    wire
}

async fn held(gateway: &TestGateway) -> u64 {
    gateway.count("in_flight_bytes", &[]).await
}

async fn until_nothing_is_held(gateway: &TestGateway) {
    until("nothing is held", async || held(gateway).await == 0).await;
}

fn assert_overloaded(answer: &Answer, actual: u64) {
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "overloaded"), "{}", answer.text);
    let limit = json!({ "name": "in_flight_bytes", "actual": actual, "allowed": ALLOWED });
    assert_eq!(answer.json["limit"], limit);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(answer.json["retryable"], true);
}

#[tokio::test]
async fn an_upload_that_does_not_fit_is_refused_by_its_announced_length_alone() {
    let gateway = gateway().await;
    let _first = hanging(&gateway).await;
    assert_eq!(held(&gateway).await, LARGE as u64);
    // No byte of a body is sent, so the gateway cannot have waited for one.
    let mut wire = Wire::to(&gateway).await;
    wire.head("POST /ocr", "Content-Length: 40001").await;
    assert_overloaded(&wire.answer().await, 100_001);
    assert_eq!(gateway.count("refused_total", &[("reason", "overloaded")]).await, 1);
    assert_eq!(gateway.upload("/ocr", jpeg_of(40_000)).await.status, 200, "what fits is taken");
}

#[tokio::test]
async fn a_chunked_upload_is_refused_where_it_no_longer_fits() {
    let gateway = gateway().await;
    let _first = hanging(&gateway).await;
    let mut wire = Wire::to(&gateway).await;
    wire.head("POST /ocr", "Transfer-Encoding: chunked").await;
    // The body never ends: the answer comes while the service could still wait for more.
    wire.chunk(&jpeg_of(50_000)).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "overloaded"), "{}", answer.text);
    assert!(answer.json["limit"]["actual"].as_u64() > Some(ALLOWED), "{}", answer.text);
    let refused = [("reason", "overloaded"), ("tenant", "test")];
    assert_eq!(gateway.count("refused_total", &refused).await, 1);
    until("given back", async || held(&gateway).await == LARGE as u64).await;
}

#[tokio::test]
async fn a_chunked_upload_that_fits_is_taken_however_it_is_cut() {
    let gateway = gateway().await;
    let _first = hanging(&gateway).await;
    for piece in [100, 7_000, 17_000] {
        let mut wire = Wire::to(&gateway).await;
        wire.head("POST /estimate", "Transfer-Encoding: chunked").await;
        for piece in jpeg_of(35_000).chunks(piece) {
            wire.chunk(piece).await;
        }
        wire.send("0\r\n\r\n").await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        until("given back", async || held(&gateway).await == LARGE as u64).await;
    }
}

#[tokio::test]
async fn the_largest_upload_fits_alone_in_every_form() {
    let gateway = gateway().await;
    let length = usize::try_from(ALLOWED).unwrap();
    assert_eq!(gateway.upload("/ocr", jpeg_of(length)).await.status, 200);
    let mut wire = Wire::to(&gateway).await;
    wire.head("POST /ocr", "Transfer-Encoding: chunked").await;
    for piece in jpeg_of(length).chunks(30_000) {
        wire.chunk(piece).await;
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 200);
    let part = reqwest::multipart::Part::bytes(jpeg_of(length - 500));
    let form = reqwest::multipart::Form::new().part("file", part);
    assert_eq!(Answer::of(gateway.post("/ocr").multipart(form)).await.status, 200);
    let data = base64_simd::STANDARD.encode_to_string(jpeg_of(length * 3 / 4 - 300));
    let body = json!({ "document": { "type": "base64", "data": data } }).to_string();
    let request = gateway.post("/ocr").header("content-type", "application/json");
    assert_eq!(Answer::of(request.body(body)).await.status, 200);
    until_nothing_is_held(&gateway).await;
}

#[tokio::test]
async fn room_comes_back_after_success_refusal_disconnect_and_timeout() {
    let gateway = TestGateway::with(|setup| {
        setup.settings.server.max_body_bytes = ALLOWED;
        setup.settings.server.max_in_flight_bytes = ALLOWED.into();
        setup.settings.server.idle_timeout_ms = 100;
    })
    .await;
    assert_eq!(gateway.upload("/ocr", jpeg_of(LARGE)).await.status, 200);
    assert_eq!(gateway.upload("/ocr", vec![0; LARGE]).await.status, 415);
    assert_eq!(gateway.upload("/ocr?rotate=up", jpeg_of(LARGE)).await.status, 400);
    let mut silent = Wire::to(&gateway).await;
    silent.head("POST /ocr", &format!("Content-Length: {LARGE}")).await;
    assert_eq!(silent.answer().await.code(), "request_timeout");
    let mut gone = Wire::to(&gateway).await;
    gone.head("POST /ocr", &format!("Content-Length: {LARGE}")).await;
    gone.send(&jpeg_of(LARGE)[..1000]).await;
    drop(gone);
    until_nothing_is_held(&gateway).await;
    gateway.upstream().add_fault(Fault::delay(50).times(1));
    let mut left = Wire::to(&gateway).await;
    left.head("POST /ocr", &format!("Content-Length: {LARGE}")).await;
    left.send(&jpeg_of(LARGE)).await;
    gateway.until_metric("in_flight_bytes", &[], 1.0).await;
    drop(left);
    until_nothing_is_held(&gateway).await;
    assert_eq!(gateway.upload("/ocr", jpeg_of(LARGE)).await.status, 200);
}

#[tokio::test]
async fn an_upload_whose_caller_has_left_is_held_until_it_is_sent() {
    let gateway = gateway().await;
    drop(hanging(&gateway).await);
    gateway.until_metric("requests_total", &[("status", "499")], 1.0).await;
    assert_eq!(held(&gateway).await, LARGE as u64);
    let answer = gateway.upload("/ocr", jpeg_of(LARGE)).await;
    assert_overloaded(&answer, 2 * LARGE as u64);
}

#[tokio::test]
async fn a_picture_is_released_when_the_text_of_its_stream_begins() {
    let gateway = gateway().await;
    gateway.upstream().add_fault(Fault::stall_stream_after(2).times(1));
    let request = gateway.post("/ocr").header("accept", "text/event-stream");
    let stream = request.body(jpeg_of(LARGE)).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    until_nothing_is_held(&gateway).await;
    assert_eq!(gateway.count("in_flight_requests", &[]).await, 1, "it goes on");
}

#[tokio::test]
async fn drop_in_requests_share_the_room_and_are_refused_in_their_protocols_words() {
    let gateway = gateway().await;
    let _first = hanging(&gateway).await;
    let mut body = chat();
    body["messages"][0]["content"][1]["text"] = "x".repeat(LARGE).into();
    let answer = Answer::of(streamed(&gateway, CHAT, body)).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert_eq!(answer.json["error"]["gateway_code"], "overloaded");
    assert!(!answer.header("retry-after").is_empty());
}

#[tokio::test]
async fn a_refusal_for_want_of_room_costs_no_request_of_the_minute() {
    let gateway = TestGateway::with(|setup| {
        setup.settings.server.max_body_bytes = ALLOWED;
        setup.settings.server.max_in_flight_bytes = ALLOWED.into();
        setup.tenant.requests_per_minute = 2.try_into().ok();
    })
    .await;
    let _first = hanging(&gateway).await;
    for _ in 0..3 {
        assert_eq!(gateway.upload("/ocr", jpeg_of(LARGE)).await.code(), "overloaded");
    }
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
}

#[tokio::test]
async fn a_stranger_takes_no_room() {
    let gateway = gateway().await;
    let mut strangers = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::of(&gateway, "no-key").await;
        wire.head("POST /ocr", &format!("Content-Length: {LARGE}")).await;
        assert_eq!(wire.answer().await.status, 401);
        strangers.push(wire);
    }
    assert_eq!(gateway.upload("/ocr", jpeg_of(LARGE)).await.status, 200);
}

#[tokio::test]
async fn health_and_metrics_answer_while_nothing_more_fits() {
    let gateway = gateway().await;
    let _first = hanging(&gateway).await;
    assert_eq!(gateway.upload("/ocr", jpeg_of(LARGE)).await.status, 503);
    for base in [&gateway.address, &gateway.metrics_address] {
        for path in ["/livez", "/readyz"] {
            let answer = Answer::of(gateway.http.get(format!("{base}{path}"))).await;
            assert_eq!(answer.status, 200, "{base}{path}");
        }
    }
    assert!(gateway.metrics().await.contains("ocr_gateway_in_flight_bytes 60000\n"));
}

#[tokio::test]
async fn too_many_requests_are_told_by_the_limit_that_they_met() {
    let gateway =
        TestGateway::with(|setup| setup.settings.server.max_in_flight_requests = 1.into()).await;
    let _first = hanging(&gateway).await;
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(answer.code(), "overloaded");
    let limit = json!({ "name": "in_flight_requests", "actual": 2, "allowed": 1 });
    assert_eq!(answer.json["limit"], limit);
}

#[tokio::test]
async fn an_upload_limit_that_does_not_fit_into_memory_keeps_the_service_from_starting() {
    let mut installation = Installation::reading("").await;
    installation.set("SERVER__MAX_IN_FLIGHT_BYTES", "1000000");
    for command in ["serve", "check"] {
        let ended = installation.run(command).await;
        assert_eq!(ended.code, 1, "{command}");
        let told = format!("{}{}", ended.out, ended.err);
        for named in ["server.max_in_flight_bytes: 1000000", "server.max_body_bytes (20971520)"] {
            assert!(told.contains(named), "{told}");
        }
    }
}

#[tokio::test]
async fn the_limits_that_hold_are_told_at_the_start_and_by_a_check() {
    let mut installation = Installation::reading("").await;
    installation.set("SERVER__MAX_IN_FLIGHT_BYTES", "50000000");
    installation.set("SERVER__MAX_IN_FLIGHT_REQUESTS", "12");
    installation.set("SERVER__MAX_CONNECTIONS", "34");
    let check = installation.run("check").await.out;
    let told = "50000000 bytes of uploads, 12 requests and 34 connections at once";
    assert!(check.contains(&format!("ok      capacity: {told}")), "{check}");
    let service = installation.serve().await;
    assert!(service.log().contains("\"in_flight.bytes\":50000000"), "{}", service.log());
}
