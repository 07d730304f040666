//! Several endpoints, from outside: the cost of their outages, and the state that replicas share about them.

use dashscope_emulator::{Emulator, EngineChoice, Fault, Options as EmulatorOptions};
use futures_util::future::join_all;
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::dashscope::settings::EndpointSettings;
use ocr_gateway::redis::settings::OnFailure;

use crate::dropin::{CHAT, chat};
use crate::harness::{Answer, SCRIPTED_TEXT, Setup, TestGateway, fixture};
use crate::program::Installation;
use crate::redis::RedisDatabase;

/// The default model.
const MODEL: &str = "qwen-vl-ocr-2025-11-20";

async fn emulator() -> Emulator {
    let engine = EngineChoice::Scripted(SCRIPTED_TEXT.to_owned());
    Emulator::start(EmulatorOptions { engine, ..EmulatorOptions::default() }).await.unwrap()
}

/// Endpoints `a`, `b`, … in place of the single one.
fn endpoints(setup: &mut Setup, emulators: &[&Emulator]) {
    let alone = setup.settings.upstream.pool().remove(0);
    let endpoint = |(emulator, name): (&&Emulator, char)| EndpointSettings {
        name: name.into(),
        base_url: emulator.base_url(),
        ..alone.clone()
    };
    setup.settings.upstream.endpoints = emulators.iter().zip('a'..).map(endpoint).collect();
}

async fn two() -> (TestGateway, Emulator, Emulator) {
    let (a, b) = (emulator().await, emulator().await);
    (TestGateway::with(|setup| endpoints(setup, &[&a, &b])).await, a, b)
}

#[tokio::test]
async fn an_answer_says_which_endpoint_gave_it_and_both_are_used() {
    let (gateway, _a, _b) = two().await;
    let mut answered = Vec::new();
    for _ in 0..2 {
        let answer = gateway.upload("/ocr", fixture("hello.png")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answered.push(answer.json["upstream"]["endpoint"].as_str().unwrap().to_owned());
    }
    answered.sort();
    assert_eq!(answered, ["a", "b"]);
    for endpoint in ["a", "b"] {
        let labels = [("endpoint", endpoint), ("outcome", "ok")];
        assert_eq!(gateway.count("upstream_attempts_total", &labels).await, 1);
    }
}

#[tokio::test]
async fn an_outage_of_one_of_two_endpoints_costs_nobody_an_answer_and_the_ledger_is_the_bill() {
    let (gateway, a, b) = two().await;
    a.world().add_fault(Fault::reset());
    let answers = join_all((0..60).map(|_| gateway.upload("/ocr", fixture("hello.png")))).await;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let billed = a.world().bill().total() + b.world().bill().total();
    assert_eq!(gateway.count("tokens_spent_total", &[]).await, billed);
    let state = [("endpoint", "a"), ("model", "qwen-vl-ocr-2025-11-20")];
    assert_eq!(gateway.count("endpoint_state", &state).await, 1);
    // Later calls do not use the endpoint that is down.
    let received = a.world().bill().received;
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
    assert!(a.world().bill().received <= received + 1, "a probe at most");
}

#[tokio::test]
async fn while_every_endpoint_is_down_callers_are_told_at_once_when_to_come_back() {
    let gateway = TestGateway::with(|setup| {
        // Long enough for any machine.
        setup.settings.upstream.breaker_cool_down_ms = 600_000;
    })
    .await;
    gateway.upstream().add_fault(Fault::status(500));
    for _ in 0..5 {
        let _ = gateway.upload("/ocr", fixture("hello.png")).await;
    }
    let received = gateway.upstream().bill().received;
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "upstream_unavailable"));
    let retry_after: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=600).contains(&retry_after) && answer.json["retryable"] == true);
    assert_eq!((gateway.upstream().bill().received, received), (received, 5));
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
}

/// A text in a request on which the upstream fails.
const POISON: &str = "indigestible";

async fn tenant(gateway: &TestGateway, name: &str) -> String {
    gateway.key_of(&Tenant::new(name.parse().unwrap())).await
}

/// A gateway with cool-downs longer than the test, and the key of a second tenant.
async fn that_never_cools_down() -> (TestGateway, String) {
    let gateway = TestGateway::with(|setup| {
        setup.settings.upstream.breaker_cool_down_ms = 600_000;
        setup.settings.upstream.key_cool_down_ms = 600_000;
        setup.settings.upstream.first_byte_timeout_ms = 2_000;
    });
    let gateway = gateway.await;
    let key = tenant(&gateway, "another").await;
    (gateway, key)
}

async fn poisoned(gateway: &TestGateway) -> Answer {
    let body = chat().to_string().replace("Read the text.", POISON);
    Answer::of(gateway.post(CHAT).body(body)).await
}

#[tokio::test]
async fn failures_that_follow_one_tenant_s_requests_close_the_endpoint_to_that_tenant_alone() {
    for fault in [
        Fault::status(500),
        Fault::code("ServiceUnavailable").retry_after(600),
        Fault::reset(),
        Fault::garbage(),
        Fault::garbage().with_status(403),
        Fault::garbage().with_status(502),
        Fault::code("AccessDenied"),
        Fault::hang(),
    ] {
        let (gateway, other) = that_never_cools_down().await;
        gateway.upstream().add_fault(fault.clone().for_bodies_with(POISON));
        join_all((0..8).map(|_| poisoned(&gateway))).await;
        let received = gateway.upstream().bill().received;
        let refused = poisoned(&gateway).await;
        assert_eq!(refused.status, 503, "{fault:?}: {}", refused.text);
        assert_eq!(gateway.upstream().bill().received, received, "{fault:?}");
        for path in ["/ocr", "/ocr?task=text_recognition", "/extract?template=receipt"] {
            let request = gateway.post_as(&other, path).body(fixture("hello.png"));
            let answer = Answer::of(request).await;
            assert_ne!(answer.status, 503, "{fault:?} {path}: {}", answer.text);
        }
        let request = gateway.post_as(&other, CHAT).body(chat().to_string());
        assert_eq!(Answer::of(request).await.status, 200, "{fault:?}");
        assert_eq!(gateway.count("endpoint_state", &[]).await, 0, "{fault:?}");
    }
}

#[tokio::test]
async fn failures_of_two_tenants_close_the_endpoint_to_all() {
    let (gateway, other) = that_never_cools_down().await;
    let third = tenant(&gateway, "third").await;
    gateway.upstream().add_fault(Fault::status(500));
    for key in [&gateway.key, &other] {
        for _ in 0..5 {
            let request = gateway.post_as(key, "/ocr").body(fixture("hello.png"));
            Answer::of(request).await;
        }
    }
    let received = gateway.upstream().bill().received;
    assert!(received <= 5 + 2, "{received}");
    let request = gateway.post_as(&third, "/ocr").body(fixture("hello.png"));
    let answer = Answer::of(request).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "upstream_unavailable"));
    assert_eq!(gateway.upstream().bill().received, received);
    assert_eq!(gateway.count("endpoint_state", &[]).await, 1);
}

#[tokio::test]
async fn replicas_obey_a_retry_after_that_only_one_of_them_was_told() {
    let Some(database) = RedisDatabase::new() else { return };
    let upstream = emulator().await;
    let start = || {
        TestGateway::with(|setup| {
            setup.settings.redis = database.settings(OnFailure::Closed);
            endpoints(setup, &[&upstream]);
        })
    };
    let (one, other) = (start().await, start().await);
    assert_eq!(other.upload("/ocr", fixture("hello.png")).await.status, 200);
    let throttle = Fault::code("Throttling.RateQuota").retry_after(60).times(1);
    upstream.world().add_fault(throttle);
    for replica in [&one, &other, &one] {
        let answer = replica.upload("/ocr", fixture("hello.png")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (503, "upstream_throttled"));
        let retry_after: u64 = answer.header("retry-after").parse().unwrap();
        assert!((2..=60).contains(&retry_after), "{retry_after}");
    }
    assert_eq!(upstream.world().bill().received, 2);
}

#[tokio::test]
async fn what_one_replica_is_told_of_an_account_sends_the_others_to_another() {
    let Some(database) = RedisDatabase::new() else { return };
    let (a, b) = (emulator().await, emulator().await);
    let start = || {
        TestGateway::with(|setup| {
            setup.settings.redis = database.settings(OnFailure::Closed);
            endpoints(setup, &[&a, &b]);
        })
    };
    let (one, other) = (start().await, start().await);
    a.world().add_fault(Fault::code("Throttling.RateQuota").retry_after(600).times(1));
    for replica in [&one, &one, &other, &other, &other, &one] {
        let answer = replica.upload("/ocr", fixture("hello.png")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(a.world().bill().received, 1, "nobody asks before the Retry-After ends");
}

#[tokio::test]
async fn a_check_asks_every_endpoint_with_its_own_key() {
    let (mut installation, other) = (Installation::reading("text").await, emulator().await);
    let first = installation.upstream_address();
    let second = other.base_url();
    std::fs::write(
        installation.folder.path().join("gateway.toml"),
        format!(
            "[[upstream.endpoints]]\nname = \"eu-1\"\nregion = \"beijing\"\nbase_url = \"{first}\"\n\
             [[upstream.endpoints]]\nname = \"eu-2\"\nregion = \"beijing\"\nbase_url = \"{second}\"\n"
        ),
    )
    .unwrap();
    installation.variable("DASHSCOPE_API_KEY_EU_1", "sk-one");
    let ended = installation.run("check --config gateway.toml").await;
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("endpoints[1].api_key"), "{}", ended.out);
    assert!(ended.out.contains("DASHSCOPE_API_KEY_EU_2"), "{}", ended.out);
    installation.variable("DASHSCOPE_API_KEY_EU_2", "sk-two");
    let ended = installation.run("check --config gateway.toml").await;
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    for endpoint in ["eu-1", "eu-2"] {
        let line = format!("ok      upstream: {endpoint} answers and takes the key");
        assert!(ended.out.contains(&line), "{}", ended.out);
    }
    drop(other);
    let ended = installation.run("check --config gateway.toml").await;
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("failed  upstream: http"), "{}", ended.out);
}

#[tokio::test]
async fn a_tenant_s_thousand_pages_do_not_keep_another_s_one_waiting_for_all_of_them() {
    let gateway = TestGateway::with(|setup| {
        for model in setup.settings.models.values_mut() {
            // Ten a second, so that forty calls wait for some seconds.
            model.rpm = 600;
        }
    })
    .await;
    let key = tenant(&gateway, "another").await;
    let many = (0..40).map(|_| gateway.upload("/ocr", fixture("hello.png")));
    let one = async {
        gateway.until_upstream_has(6).await;
        let request = gateway.post_as(&key, "/ocr").body(fixture("hello.png"));
        let answer = Answer::of(request).await;
        (answer.status, gateway.upstream().bill().received)
    };
    let (many, (status, received)) = tokio::join!(join_all(many), one);
    assert_eq!(status, 200);
    assert!(received < 40, "{received} were sent when the other tenant's page had been read");
    assert!(many.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn a_key_that_is_refused_for_an_upload_s_policy_is_not_shown_with_the_next_call() {
    let engine = EngineChoice::Scripted(SCRIPTED_TEXT.to_owned());
    let strict = EmulatorOptions { engine, api_keys: vec!["another".into()], ..Default::default() };
    let (a, b) = (Emulator::start(strict).await.unwrap(), emulator().await);
    let gateway = TestGateway::with(|setup| endpoints(setup, &[&a, &b])).await;
    for _ in 0..2 {
        let policy = policy(&gateway).await;
        assert_eq!(policy.status, 503, "{}", policy.text);
        assert_eq!(policy.json["gateway_code"], "upstream_account");
        let refused = [("endpoint", "a"), ("model", "")];
        assert_eq!(gateway.count("endpoint_state", &refused).await, 2);
    }
    for _ in 0..4 {
        assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
    }
    assert_eq!(a.world().bill().received, 0);
}

#[tokio::test]
async fn an_endpoint_that_gives_no_policy_cools_down_as_for_calls() {
    let (a, b) = (emulator().await, emulator().await);
    let gateway = TestGateway::with(|setup| {
        endpoints(setup, &[&a, &b]);
        setup.settings.upstream.breaker_failures = 2;
    })
    .await;
    a.stop().await;
    for _ in 0..2 {
        assert_eq!(policy(&gateway).await.json["gateway_code"], "upstream_unavailable");
    }
    let labels = [("endpoint", "a"), ("model", MODEL)];
    assert_eq!(gateway.count("endpoint_state", &labels).await, 1);
}

/// The answer to a request for an upload policy.
async fn policy(gateway: &TestGateway) -> Answer {
    let path = format!("/api/v1/uploads?action=getPolicy&model={MODEL}");
    Answer::of(gateway.get(&path)).await
}
