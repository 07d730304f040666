//! A call is not sent if its key is revoked or its tenant is disabled while it waits.

use std::num::NonZeroU64;
use std::sync::Arc;

use dashscope_emulator::Fault;
use futures_util::future::join_all;
use jiff::Timestamp;
use ocr_gateway::auth::tenant::Tenant;
use reqwest::RequestBuilder;

use crate::auth::id_of;
use crate::budgets::accounts;
use crate::dropin::{CHAT, GENERATION, chat, generation};
use crate::harness::{Answer, MovedClock, TestGateway, fixture, until};

/// All ways to cause a call.
const KINDS: [&str; 7] = [
    "/ocr",
    "/ocr as a stream",
    "/extract",
    "chat",
    "chat as a stream",
    "generation",
    "generation as a stream",
];

fn request(gateway: &TestGateway, key: &str, kind: &str) -> RequestBuilder {
    let file = || fixture("hello.png");
    let (mut streamed, mut native) = (chat(), generation());
    streamed["stream"] = true.into();
    native["parameters"]["incremental_output"] = true.into();
    let events = |post: RequestBuilder| post.header("accept", "text/event-stream");
    match kind {
        "/ocr" => gateway.post_as(key, "/ocr").body(file()),
        "/ocr as a stream" => events(gateway.post_as(key, "/ocr")).body(file()),
        "/extract" => gateway.post_as(key, "/extract?template=receipt").body(file()),
        "chat" => gateway.post_as(key, CHAT).body(chat().to_string()),
        "chat as a stream" => gateway.post_as(key, CHAT).body(streamed.to_string()),
        "generation" => gateway.post_as(key, GENERATION).body(generation().to_string()),
        _ => gateway
            .post_as(key, GENERATION)
            .header("x-dashscope-sse", "enable")
            .body(native.to_string()),
    }
}

async fn revoke(gateway: &TestGateway, key: &str) {
    let tenants = gateway.store.tenants();
    assert!(tenants.revoke_key(&id_of(key), Timestamp::UNIX_EPOCH).await.unwrap());
}

async fn disable(gateway: &TestGateway, _key: &str) {
    let disabled = Tenant { disabled: true, ..Tenant::new("test".parse().unwrap()) };
    assert!(gateway.store.tenants().update_tenant(&disabled).await.unwrap());
}

/// Lets a call of `kind` fail once, runs `end` while it waits for its second attempt, and returns its answer. Nothing
/// may be sent again, and nothing may stay reserved.
async fn after_a_failure(
    gateway: &TestGateway,
    kind: &str,
    end: impl AsyncFnOnce(&TestGateway, &str),
) -> Answer {
    let key = gateway.another_key(|_| {}).await;
    gateway.upstream().add_fault(Fault::status(503).retry_after(2).times(1));
    let ending = async {
        gateway.until_upstream_has(1).await;
        end(gateway, &key).await;
    };
    let (answer, ()) = tokio::join!(Answer::of(request(gateway, &key, kind)), ending);
    assert_eq!(gateway.upstream().bill().received, 1, "{kind}: {}", answer.text);
    assert_eq!(accounts(gateway, "test").await.1, 0, "{kind}");
    answer
}

#[tokio::test]
async fn a_call_whose_key_is_revoked_before_its_retry_is_refused_as_a_new_one() {
    let refused = KINDS.map(async |kind| {
        let gateway = TestGateway::start().await;
        let answer = after_a_failure(&gateway, kind, revoke).await;
        assert_eq!(answer.status, 401, "{kind}: {}", answer.text);
        let labels = [("tenant", "test"), ("reason", "unauthorized")];
        assert_eq!(gateway.count("refused_total", &labels).await, 1, "{kind}");
    });
    join_all(refused).await;
}

#[tokio::test]
async fn a_call_whose_tenant_is_disabled_before_its_retry_is_refused_as_a_new_one() {
    for kind in ["/ocr", "chat"] {
        let gateway = TestGateway::start().await;
        let answer = after_a_failure(&gateway, kind, disable).await;
        assert_eq!(answer.status, 403, "{kind}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_call_whose_key_expires_before_its_retry_is_refused_as_a_new_one() {
    let clock = Arc::new(MovedClock::at("2026-05-14T12:00:00Z"));
    let moved = Arc::clone(&clock);
    let gateway = TestGateway::with(|setup| setup.clock = moved).await;
    let expires_at: Timestamp = "2026-05-14T12:30:00Z".parse().unwrap();
    let key = gateway.another_key(|key| key.expires_at = Some(expires_at)).await;
    gateway.upstream().add_fault(Fault::status(503).retry_after(2).times(1));
    let ending = async {
        gateway.until_upstream_has(1).await;
        clock.set("2026-05-14T12:31:00Z");
    };
    let (answer, ()) = tokio::join!(Answer::of(request(&gateway, &key, "/ocr")), ending);
    assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthorized"));
    assert!(answer.json["detail"].as_str().unwrap().contains("expired"), "{}", answer.text);
    assert_eq!(answer.json["retryable"], false);
    assert_eq!(gateway.upstream().bill().received, 1);
}

#[tokio::test]
async fn a_call_whose_key_is_revoked_in_the_queue_for_the_upstream_is_not_sent() {
    for kind in ["/ocr", "generation"] {
        // One call is sent every two seconds.
        let gateway = TestGateway::with(|setup| {
            for model in setup.settings.models.values_mut() {
                model.rpm = 30;
            }
        })
        .await;
        let key = gateway.another_key(|_| {}).await;
        let first = Answer::of(request(&gateway, &gateway.key, kind)).await;
        assert_eq!(first.status, 200, "{}", first.text);
        let ending = async {
            until("it is reserved", async || accounts(&gateway, "test").await.1 > 0).await;
            revoke(&gateway, &key).await;
        };
        let (answer, ()) = tokio::join!(Answer::of(request(&gateway, &key, kind)), ending);
        assert_eq!(answer.status, 401, "{kind}: {}", answer.text);
        assert_eq!(gateway.upstream().bill().received, 1, "{kind}");
        assert_eq!(accounts(&gateway, "test").await.1, 0, "{kind}");
        let next = Answer::of(request(&gateway, &gateway.key, kind)).await;
        assert_eq!(next.status, 200, "its turn is not lost: {}", next.text);
    }
}

#[tokio::test]
async fn a_call_whose_key_is_revoked_while_it_waits_for_a_budget_is_not_sent() {
    for kind in ["/extract", "chat"] {
        let gateway = TestGateway::start().await;
        let file = fixture("hello.png");
        let bound = gateway.upload("/estimate", file).await.json["bound"].clone();
        let tenant = Tenant {
            // Room for one call at a time.
            daily_tokens: NonZeroU64::new(bound["total_tokens"].as_u64().unwrap() + 4_000),
            ..Tenant::new("acme".parse().unwrap())
        };
        let first_key = gateway.key_of(&tenant).await;
        let key = gateway.another_key(|key| key.tenant = tenant.name.clone()).await;
        gateway.upstream().add_fault(Fault::delay(2_000).times(1));
        let ending = async {
            gateway.until_upstream_has(1).await;
            let waiting = Answer::of(request(&gateway, &key, kind));
            let revoking = async {
                until("it waits", async || gateway.count("in_flight_requests", &[]).await == 2)
                    .await;
                revoke(&gateway, &key).await;
            };
            tokio::join!(waiting, revoking).0
        };
        let first = Answer::of(request(&gateway, &first_key, "/ocr"));
        let (first, answer) = tokio::join!(first, ending);
        assert_eq!((first.status.as_u16(), answer.status.as_u16()), (200, 401), "{}", answer.text);
        assert_eq!(gateway.upstream().bill().received, 1, "{kind}");
        assert_eq!(accounts(&gateway, "acme").await.1, 0, "{kind}");
    }
}
