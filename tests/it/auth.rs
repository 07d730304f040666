//! A valid key gives access to its routes while it is valid. Nothing else gives access.

use jiff::{Timestamp, ToSpan};
use ocr_gateway::auth::key::{ApiKey, KeyId};
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::random::SystemRandom;
use ocr_gateway::units::Pixels;
use serde_json::Value;

use crate::harness::{Answer, TestGateway, fixture, until};
use crate::wire::Wire;

/// The routes that need a key.
const ROUTES: [(&str, &str); 6] = [
    ("POST", "/ocr"),
    ("POST", "/extract"),
    ("POST", "/estimate"),
    ("GET", "/usage"),
    ("GET", "/templates"),
    ("GET", "/templates/receipt"),
];

/// The public ID of a key: the part between its underscores.
pub(crate) fn id_of(key: &str) -> KeyId {
    key.split('_').nth(1).unwrap().parse().unwrap()
}

async fn ocr(gateway: &TestGateway, key: &str) -> Answer {
    Answer::of(gateway.post_as(key, "/ocr").body(fixture("hello.png"))).await
}

#[tokio::test]
async fn every_route_that_is_not_open_asks_for_a_key() {
    let gateway = TestGateway::start().await;
    for (method, path) in ROUTES {
        let method = method.parse().unwrap();
        let request = gateway.http.request(method, format!("{}{path}", gateway.address));
        let answer = Answer::of(request.body(fixture("hello.png"))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthorized"), "{path}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{path}");
    }
    assert_eq!(gateway.upstream().bill().received, 0);
    let refused = [("reason", "unauthorized"), ("tenant", "none")];
    assert_eq!(gateway.count("refused_total", &refused).await, ROUTES.len() as u64);
}

#[tokio::test]
async fn what_needs_no_key_needs_none() {
    let gateway = TestGateway::start().await;
    for path in ["/livez", "/readyz", "/docs", "/openapi.yaml"] {
        let answer = Answer::of(gateway.http.get(format!("{}{path}", gateway.address))).await;
        assert_eq!(answer.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_key_is_taken_from_either_header() {
    let gateway = TestGateway::start().await;
    let url = format!("{}/estimate", gateway.address);
    for (name, value) in [
        ("authorization", format!("Bearer {}", gateway.key)),
        ("authorization", format!("bearer {}", gateway.key)),
        ("authorization", format!("BEARER  {}", gateway.key)),
        ("x-api-key", gateway.key.clone()),
        ("X-API-Key", gateway.key.clone()),
    ] {
        let request = gateway.http.post(&url).header(name, &value).body(fixture("hello.png"));
        assert_eq!(Answer::of(request).await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn what_is_no_key_of_ours_is_401_and_is_not_repeated() {
    let gateway = TestGateway::start().await;
    let (stranger, _) = ApiKey::create(&SystemRandom);
    let cut = &gateway.key[..40];
    let url = format!("{}/ocr", gateway.address);
    for header in [
        "Bearer ".to_owned(),
        format!("Basic {}", gateway.key),
        gateway.key.clone(),
        format!("Bearer {cut}"),
        format!("Bearer {}x", gateway.key),
        format!("Bearer {}", gateway.key.to_uppercase()),
        format!("Bearer {}", stranger.expose()),
        format!("Bearer {}", "k".repeat(5000)),
    ] {
        let request = gateway.http.post(&url).header("authorization", &header);
        let answer = Answer::of(request.body(fixture("hello.png"))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthorized"), "{header}");
        let shown = header.trim_start_matches("Bearer ");
        assert!(shown.is_empty() || !answer.text.contains(shown), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_key_is_found_beside_an_authorization_that_is_not_for_us() {
    let gateway = TestGateway::start().await;
    for foreign in ["", "Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Negotiate abc", "Digest a=b"] {
        let answer =
            ask(&gateway, &[("authorization", foreign), ("x-api-key", &gateway.key)]).await;
        assert_eq!(answer.status, 200, "{foreign:?}: {}", answer.text);
    }
    // The token of a service mesh, and a key with pasted spaces.
    let mesh = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";
    let pasted = format!(" {} ", gateway.key);
    let answer = ask(&gateway, &[("authorization", mesh), ("x-api-key", &pasted)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let own = format!("Bearer {}", gateway.key);
    for foreign in ["", "another-service"] {
        let answer = ask(&gateway, &[("authorization", &own), ("x-api-key", foreign)]).await;
        assert_eq!(answer.status, 200, "{foreign:?}: {}", answer.text);
    }
    let twice = [("authorization", "Basic eA=="), ("authorization", own.as_str())];
    assert_eq!(ask(&gateway, &twice).await.status, 200);
}

#[tokio::test]
async fn two_keys_that_differ_are_refused() {
    let gateway = TestGateway::start().await;
    let own = format!("Bearer {}", gateway.key);
    let same = [("authorization", own.as_str()), ("x-api-key", gateway.key.as_str())];
    assert_eq!(ask(&gateway, &same).await.status, 200);
    let another = gateway.another_key(|_| {}).await;
    let differ = [("authorization", own.as_str()), ("x-api-key", another.as_str())];
    let answer = ask(&gateway, &differ).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthorized"), "{}", answer.text);
    assert!(answer.json["detail"].as_str().unwrap().contains("wo different API keys"));
    for key in [&gateway.key, &another] {
        assert!(!answer.text.contains(key.as_str()));
    }
}

/// The answer to an estimate with these headers.
async fn ask(gateway: &TestGateway, headers: &[(&str, &str)]) -> Answer {
    let url = format!("{}/estimate", gateway.address);
    let request = gateway.http.post(url).body(fixture("hello.png"));
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::of(request).await
}

#[tokio::test]
async fn a_stranger_is_refused_before_the_body_is_read() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::to(&gateway).await;
    wire.send("POST /ocr HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthorized"));
}

#[tokio::test]
async fn a_key_opens_until_it_expires() {
    let gateway = TestGateway::start().await;
    let past = gateway.another_key(|key| key.expires_at = Some(Timestamp::UNIX_EPOCH)).await;
    let future = Timestamp::MAX - 48.hours();
    let future = gateway.another_key(|key| key.expires_at = Some(future)).await;
    assert_eq!(ocr(&gateway, &future).await.status, 200);
    let answer = ocr(&gateway, &past).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthorized"));
    assert!(answer.json["detail"].as_str().unwrap().contains("expired"), "{}", answer.text);
}

#[tokio::test]
async fn a_revoked_key_closes_while_the_tenant_s_others_stay_open() {
    let gateway = TestGateway::start().await;
    let other = gateway.another_key(|_| {}).await;
    assert_eq!(ocr(&gateway, &gateway.key).await.status, 200);
    let id = id_of(&gateway.key);
    gateway.store.tenants().revoke_key(&id, Timestamp::UNIX_EPOCH).await.unwrap();
    until("revoked", async || ocr(&gateway, &gateway.key).await.status == 401).await;
    for _ in 0..20 {
        let answer = ocr(&gateway, &gateway.key).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (401, "unauthorized"),
            "it stays closed"
        );
    }
    assert_eq!(ocr(&gateway, &other).await.status, 200);
}

#[tokio::test]
async fn a_disabled_tenant_is_told_that_it_is_and_not_that_its_key_is_wrong() {
    let gateway = TestGateway::with(|setup| setup.tenant.disabled = true).await;
    let answer = ocr(&gateway, &gateway.key).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (403, "forbidden"));
    assert_eq!(gateway.upstream().bill().received, 0);
    assert_eq!(gateway.count("refused_total", &[("reason", "forbidden")]).await, 1);
}

#[tokio::test]
async fn a_changed_tenant_binds_in_the_running_service() {
    let gateway = TestGateway::start().await;
    assert_eq!(ocr(&gateway, &gateway.key).await.json["pages"][0]["sent"]["capped"], false);
    let max_pixels = Some(Pixels::new(32_768));
    let changed = Tenant { max_pixels, ..Tenant::new("test".parse().unwrap()) };
    assert!(gateway.store.tenants().update_tenant(&changed).await.unwrap());
    until("capped", async || {
        ocr(&gateway, &gateway.key).await.json["pages"][0]["sent"]["max_pixels"] == 32_768
    })
    .await;
}

#[tokio::test]
async fn one_tenant_s_limits_are_no_other_s() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.requests_per_minute = 1.try_into().ok();
    })
    .await;
    let mut other = Tenant::new("other-one".parse().unwrap());
    other.requests_per_minute = 1.try_into().ok();
    let other = gateway.key_of(&other).await;
    assert_eq!(ocr(&gateway, &gateway.key).await.status, 200);
    assert_eq!(ocr(&gateway, &gateway.key).await.status, 429);
    assert_eq!(ocr(&gateway, &other).await.status, 200);
}

#[tokio::test]
async fn all_keys_of_a_tenant_share_its_limits() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.requests_per_minute = 1.try_into().ok();
    })
    .await;
    let another = gateway.another_key(|_| {}).await;
    assert_eq!(ocr(&gateway, &gateway.key).await.status, 200);
    assert_eq!(ocr(&gateway, &another).await.code(), "rate_limited");
}

#[tokio::test]
async fn a_model_that_the_tenant_may_not_use_is_403_and_says_which_it_may() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.models = vec!["qwen3.5-ocr".to_owned()];
    })
    .await;
    let answer = ocr(&gateway, &gateway.key).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (403, "forbidden"));
    assert!(answer.json["detail"].as_str().unwrap().contains("qwen3.5-ocr"), "{}", answer.text);
    assert_eq!(answer.json["usage"], Value::Null);
    let allowed = gateway.upload("/ocr?model=qwen3.5-ocr", fixture("hello.png")).await;
    assert_eq!(allowed.status, 200, "{}", allowed.text);
}
