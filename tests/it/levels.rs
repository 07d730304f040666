//! Gauges of usage and limits: exact at the time of the scrape.

use std::time::Duration;

use dashscope_emulator::Fault;

use crate::dropin::{CHAT, GENERATION, chat, generation, streamed};
use crate::harness::{Answer, TestGateway, fixture, spawn, until};

async fn in_flight(gateway: &TestGateway) -> u64 {
    gateway.count("in_flight_requests", &[]).await
}

/// A request for a stream, for each of the paths with streams.
fn stream(gateway: &TestGateway, path: &str) -> reqwest::RequestBuilder {
    match path {
        CHAT => streamed(gateway, CHAT, chat()),
        GENERATION => streamed(gateway, GENERATION, generation()),
        _ => gateway.post(path).header("accept", "text/event-stream").body(fixture("hello.png")),
    }
}

#[tokio::test]
async fn nothing_is_in_flight_on_an_idle_gateway_however_often_it_is_asked() {
    let gateway = TestGateway::start().await;
    for _ in 0..3 {
        assert_eq!(in_flight(&gateway).await, 0);
    }
}

#[tokio::test]
async fn fifty_open_streams_are_fifty_requests_in_flight() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::stall_stream_after(2));
    let mut open = Vec::new();
    for number in 0..50 {
        let path = ["/ocr", CHAT, GENERATION][number % 3];
        let response = stream(&gateway, path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        open.push(response);
        assert_eq!(in_flight(&gateway).await, open.len() as u64, "{path}");
    }
    assert_eq!(gateway.count("streams", &[]).await, 50);
    drop(open);
    assert_eq!(in_flight(&gateway).await, 50, "they are read on for their bills");
}

#[tokio::test]
async fn a_stream_that_is_over_is_no_longer_in_flight() {
    let gateway = TestGateway::start().await;
    for path in ["/ocr", CHAT, GENERATION] {
        let answer = Answer::of(stream(&gateway, path)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        until("it is over", async || in_flight(&gateway).await == 0).await;
        assert_eq!(gateway.count("streams", &[]).await, 0);
    }
}

#[tokio::test]
async fn a_gateway_that_sheds_shows_its_limit() {
    let gateway =
        TestGateway::with(|setup| setup.settings.server.max_in_flight_requests = 3.into()).await;
    assert_eq!(gateway.count("in_flight_requests_limit", &[]).await, 3);
    gateway.upstream().add_fault(Fault::hang());
    for number in 1..=3 {
        let request = gateway.post("/ocr").body(fixture("hello.png"));
        spawn(async move { request.send().await });
        gateway.until_upstream_has(number).await;
        assert_eq!(in_flight(&gateway).await, number);
    }
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(answer.code(), "overloaded");
    assert_eq!(in_flight(&gateway).await, 3);
}

#[tokio::test]
async fn every_limit_of_what_is_in_flight_is_a_gauge() {
    let gateway = TestGateway::with(|setup| {
        setup.settings.server.max_in_flight_bytes = 50_000_000.into();
        setup.settings.server.max_in_flight_requests = 7.into();
        setup.settings.server.max_connections = 9.into();
    })
    .await;
    for (name, limit) in [
        ("in_flight_bytes_limit", 50_000_000),
        ("in_flight_requests_limit", 7),
        ("connections_limit", 9),
    ] {
        assert_eq!(gateway.count(name, &[]).await, limit, "{name}");
    }
    // The test's client keeps the connection of this answer open.
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
    assert_eq!(gateway.count("connections", &[]).await, 1);
}

/// The sum of a histogram of durations.
async fn seconds(gateway: &TestGateway, name: &str, labels: &[(&str, &str)]) -> Duration {
    Duration::from_secs_f64(gateway.metric(&format!("{name}_seconds_sum"), labels).await)
}

#[tokio::test]
async fn the_time_of_the_upstream_is_told_from_our_own() {
    let gateway = TestGateway::start().await;
    let slow = Duration::from_millis(700);
    let file = fixture("hello.png");
    for path in ["/ocr", "/extract?template=receipt"] {
        gateway.upstream().add_fault(Fault::delay(700).times(1));
        assert_eq!(gateway.upload(path, file.clone()).await.status, 200);
    }
    for path in ["/ocr", CHAT, GENERATION] {
        gateway.upstream().add_fault(Fault::delay(700).times(1));
        let answer = Answer::of(stream(&gateway, path)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    for (route, requests) in [("/ocr", 2), ("/extract", 1), (CHAT, 1), (GENERATION, 1)] {
        let labels = [("route", route)];
        let all = seconds(&gateway, "request_duration", &labels).await;
        let ours = seconds(&gateway, "overhead", &labels).await;
        assert!(all >= slow * requests, "{route}: {all:?}");
        assert!(ours + slow * requests <= all, "{route}: {ours:?} of {all:?}");
        let counted = gateway.count("overhead_seconds_count", &labels).await;
        assert_eq!(counted, u64::from(requests), "{route}");
    }
}

#[tokio::test]
async fn the_wait_for_a_turn_is_neither_our_time_nor_the_upstreams() {
    let gateway = TestGateway::with(|setup| {
        for model in setup.settings.models.values_mut() {
            // One call is sent every tenth of a second.
            model.rpm = 600;
        }
    })
    .await;
    let calls = (0..12).map(|_| gateway.upload("/ocr", fixture("hello.png")));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let labels = [("route", "/ocr")];
    let (all, ours) = (
        seconds(&gateway, "request_duration", &labels).await,
        seconds(&gateway, "overhead", &labels).await,
    );
    let waited = seconds(&gateway, "upstream_queue", &[]).await;
    let upstream = seconds(&gateway, "upstream_duration", &[]).await;
    assert!(waited > Duration::from_millis(500), "{waited:?}");
    let sum = ours + waited + upstream;
    let apart = sum.abs_diff(all);
    // A float is less precise than a clock.
    assert!(apart < Duration::from_millis(1), "{sum:?} of {all:?}");
    assert_eq!(gateway.count("upstream_queue_seconds_count", &[]).await, 12);
}

#[tokio::test]
async fn a_pause_before_a_repeat_counts_as_waiting_for_the_upstream() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::code("Throttling.RateQuota").retry_after(1).times(1));
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
    let ours = seconds(&gateway, "overhead", &[("route", "/ocr")]).await;
    let all = seconds(&gateway, "request_duration", &[("route", "/ocr")]).await;
    assert!(all >= Duration::from_secs(1), "{all:?}");
    assert!(ours + Duration::from_millis(900) < all, "{ours:?} of {all:?}");
}
