//! No tenant can use the room of all others: its share of requests and bytes, and the cases without a share.

use dashscope_emulator::Fault;
use ocr_gateway::auth::tenant::Tenant;
use serde_json::json;

use crate::harness::{Answer, TestGateway, fixture, jpeg_of};
use crate::wire::Wire;

/// Requests that may be in flight in these tests.
const PLACES: u64 = 8;

/// Bytes that may be in flight, and the longest body.
const BYTES: u64 = 400_000;
const BODY: u64 = 100_000;

async fn gateway(percent: u8) -> TestGateway {
    TestGateway::with(|setup| {
        let server = &mut setup.settings.server;
        server.max_in_flight_requests = PLACES.into();
        server.max_in_flight_bytes = BYTES.into();
        server.max_body_bytes = BODY;
        server.tenant_share_percent = percent;
    })
    .await
}

async fn another_tenant(gateway: &TestGateway) -> String {
    gateway.key_of(&Tenant::new("another".parse().unwrap())).await
}

/// Sends uploads of this size that hang at the upstream, and returns their connections once the upstream has them.
async fn hanging(gateway: &TestGateway, uploads: u64, bytes: usize) -> Vec<Wire> {
    gateway.upstream().add_fault(Fault::hang().times(uploads));
    let mut wires = Vec::new();
    for _ in 0..uploads {
        let mut wire = Wire::to(gateway).await;
        wire.head("POST /ocr", &format!("Content-Length: {bytes}\nPrefer: wait=60")).await;
        wire.send(&jpeg_of(bytes)).await;
        wires.push(wire);
    }
    gateway.until_upstream_has(uploads).await;
    wires
}

async fn estimate(gateway: &TestGateway, key: &str, file: Vec<u8>) -> Answer {
    Answer::of(gateway.post_as(key, "/estimate").body(file)).await
}

#[tokio::test]
async fn one_tenant_cannot_take_every_place() {
    let gateway = gateway(50).await;
    let another = another_tenant(&gateway).await;
    let _held = hanging(&gateway, PLACES / 2, 9_000).await;
    let mut more = Vec::new();
    for _ in 0..PLACES {
        let mut wire = Wire::to(&gateway).await;
        wire.head("POST /ocr", "Content-Length: 9000").await;
        let refused = wire.answer().await;
        assert_eq!((refused.status.as_u16(), refused.code()), (429, "rate_limited"));
        let limit = json!({ "name": "tenant_in_flight_requests", "actual": 5, "allowed": 4 });
        assert_eq!((&refused.json["limit"], refused.header("retry-after")), (&limit, "1"));
        assert!(refused.json["detail"].as_str().unwrap().contains("server.tenant_share_percent"));
        more.push(wire);
    }
    let labels = [("tenant", "test"), ("reason", "share")];
    assert_eq!(gateway.count("refused_total", &labels).await, PLACES);
    for _ in 0..4 {
        assert_eq!(estimate(&gateway, &another, fixture("hello.png")).await.status, 200);
    }
}

#[tokio::test]
async fn one_tenant_cannot_take_every_byte() {
    let gateway = gateway(50).await;
    let another = another_tenant(&gateway).await;
    let _held = hanging(&gateway, 3, 60_000).await;
    let declared = gateway.upload("/ocr", jpeg_of(60_000)).await;
    assert_eq!((declared.status.as_u16(), declared.code()), (429, "rate_limited"));
    let limit = json!({ "name": "tenant_in_flight_bytes", "actual": 240_000, "allowed": 200_000 });
    assert_eq!(declared.json["limit"], limit);
    let mut chunked = Wire::to(&gateway).await;
    chunked.head("POST /ocr", "Transfer-Encoding: chunked").await;
    for _ in 0..6 {
        chunked.chunk(&[7; 10_000]).await;
    }
    let chunked = chunked.answer().await;
    assert_eq!(chunked.json["limit"]["name"], "tenant_in_flight_bytes", "{}", chunked.text);
    assert_eq!(estimate(&gateway, &another, jpeg_of(60_000)).await.status, 200);
}

#[tokio::test]
async fn the_largest_upload_fits_into_any_share() {
    let gateway = gateway(1).await;
    another_tenant(&gateway).await;
    let file = jpeg_of(usize::try_from(BODY).unwrap());
    assert_eq!(gateway.upload("/estimate", file).await.status, 200);
}

#[tokio::test]
async fn a_tenant_that_is_alone_may_take_everything_until_there_is_another() {
    let gateway = gateway(50).await;
    let _held = hanging(&gateway, PLACES, 9_000).await;
    let full = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!((full.status.as_u16(), full.code()), (503, "overloaded"));
    another_tenant(&gateway).await;
    crate::harness::until("the share binds", async || {
        gateway.upload("/ocr", fixture("hello.png")).await.status == 429
    })
    .await;
}

#[tokio::test]
async fn a_share_of_everything_is_no_share() {
    let gateway = gateway(100).await;
    another_tenant(&gateway).await;
    let _held = hanging(&gateway, PLACES, 9_000).await;
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.code(), "overloaded");
}

#[tokio::test]
async fn a_stranger_is_told_so_though_every_place_is_taken() {
    let gateway = gateway(100).await;
    let _held = hanging(&gateway, PLACES, 9_000).await;
    for key in ["", "no-key", "ocrgw_000000000000_00"] {
        let answer = Answer::of(gateway.post_as(key, "/ocr").body("x")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthorized"));
    }
}
