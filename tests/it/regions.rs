//! A tenant is served only in its regions, at their prices.

use std::net::TcpListener;

use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::dashscope::settings::EndpointSettings;
use reqwest::RequestBuilder;
use serde_json::Value;

use crate::dropin::{CHAT, GENERATION, chat, generation, streamed};
use crate::harness::{Answer, Setup, TestGateway, fixture, until};
use crate::program::Installation;

const UPLOADS: &str = "/api/v1/uploads?action=getPolicy&model=qwen-vl-ocr-2025-11-20";

fn of_regions(name: &str, regions: &[&str]) -> Tenant {
    let regions = regions.iter().map(|&region| region.to_owned()).collect();
    Tenant { regions, ..Tenant::new(name.parse().unwrap()) }
}

/// A request to each route that sends something to the upstream or quotes it.
fn requests(gateway: &TestGateway) -> Vec<(&'static str, RequestBuilder)> {
    let file = || fixture("hello.png");
    vec![
        ("ocr", gateway.post("/ocr").body(file())),
        ("ocr stream", gateway.post("/ocr").header("accept", "text/event-stream").body(file())),
        ("extract", gateway.post("/extract?template=receipt").body(file())),
        ("estimate", gateway.post("/estimate").body(file())),
        ("chat", gateway.post(CHAT).body(chat().to_string())),
        ("short chat", gateway.post("/v1/chat/completions").body(chat().to_string())),
        ("streamed chat", streamed(gateway, CHAT, chat())),
        ("generation", gateway.post(GENERATION).body(generation().to_string())),
        ("streamed generation", streamed(gateway, GENERATION, generation())),
        ("uploads", gateway.get(UPLOADS)),
    ]
}

/// Endpoints in these regions that are never called.
fn endpoints(setup: &mut Setup, regions: &[&str]) {
    let alone = setup.settings.upstream.pool().remove(0);
    let endpoint = |region: &&str| EndpointSettings {
        name: (*region).to_owned(),
        region: (*region).to_owned(),
        base_url: "http://127.0.0.1:1".to_owned(),
        ..alone.clone()
    };
    setup.settings.upstream.endpoints = regions.iter().map(endpoint).collect();
}

async fn estimate(gateway: &TestGateway, key: &str, query: &str) -> Answer {
    let request = gateway.post_as(key, &format!("/estimate{query}"));
    Answer::of(request.body(fixture("hello.png"))).await
}

#[tokio::test]
async fn without_an_endpoint_in_its_regions_a_tenant_is_refused_on_every_route_and_nothing_is_sent()
{
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = TestGateway::with(|setup| {
        setup.settings.upstream.base_url = format!("http://{}", upstream.local_addr().unwrap());
        setup.tenant = of_regions("test", &["singapore", "virginia"]);
    })
    .await;
    for (route, request) in requests(&gateway) {
        let Answer { status, json, text, .. } = Answer::of(request).await;
        assert_eq!(status, 403, "{route}: {text}");
        let codes = [&json["code"], &json["gateway_code"], &json["error"]["gateway_code"]];
        assert!(codes.contains(&&Value::from("region_not_allowed")), "{route}: {text}");
        for words in
            ["qwen-vl-ocr-2025-11-20", "regions (singapore, virginia)", "available in: beijing"]
        {
            assert!(text.contains(words), "{route}: {text}");
        }
    }
    upstream.set_nonblocking(true).unwrap();
    let nobody = upstream.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn the_refusal_is_told_in_the_words_of_the_path_and_invites_no_retry() {
    let refused = |setup: &mut Setup| setup.tenant = of_regions("test", &["singapore"]);
    let gateway = TestGateway::with(refused).await;
    let ocr = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!((ocr.code(), &ocr.json["retryable"]), ("region_not_allowed", &Value::from(false)));
    assert_eq!(
        (&ocr.json["usage"], &ocr.json["errors"][0]["pointer"]),
        (&Value::Null, &Value::from("/model"))
    );
    let compatible = Answer::of(gateway.post(CHAT).body(chat().to_string())).await;
    assert_eq!(compatible.json["error"]["code"], "access_denied");
    let native = Answer::of(gateway.post(GENERATION).body(generation().to_string())).await;
    assert_eq!(native.json["code"], "AccessDenied");
    for answer in [compatible, native] {
        assert_eq!(answer.header("x-should-retry"), "false");
    }
}

#[tokio::test]
async fn with_an_endpoint_in_its_regions_a_tenant_is_served_on_every_route_at_their_price() {
    let gateway = TestGateway::with(|setup| {
        setup.settings.upstream.region = "singapore".to_owned();
        setup.tenant = of_regions("test", &["virginia", "singapore"]);
    })
    .await;
    for (route, request) in requests(&gateway) {
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, 200, "{route}: {}", answer.text);
    }
    let ocr = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(ocr.json["usage"]["cost"]["currency"], "USD");
    let usage = Answer::of(gateway.get("/usage")).await;
    assert_eq!(usage.json["total"]["cost"].as_array().unwrap().len(), 1, "{}", usage.text);
    assert_eq!(usage.json["total"]["cost"][0]["currency"], "USD");
}

#[tokio::test]
async fn a_tenant_sees_the_models_that_are_sold_in_its_regions() {
    let gateway = TestGateway::with(|setup| {
        endpoints(setup, &["beijing", "singapore"]);
        setup.tenant = of_regions("test", &["singapore"]);
    })
    .await;
    let list = Answer::of(gateway.get("/v1/models")).await;
    let names: Vec<_> = list.json["data"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert_eq!(names, ["qwen-vl-ocr", "qwen-vl-ocr-2025-11-20"]);
    assert_eq!(Answer::of(gateway.get("/v1/models/qwen-vl-ocr")).await.status, 200);
    assert_eq!(Answer::of(gateway.get("/v1/models/qwen3.5-ocr")).await.status, 404);
    let elsewhere = estimate(&gateway, &gateway.key, "?model=qwen3.5-ocr").await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.code()), (403, "region_not_allowed"));
    let unknown = estimate(&gateway, &gateway.key, "?model=gpt").await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (400, "invalid_option"));
    assert!(!unknown.text.contains("qwen3.5-ocr"), "{}", unknown.text);
}

#[tokio::test]
async fn a_model_outside_the_tenants_models_is_told_before_its_regions() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant =
            Tenant { models: vec!["qwen-vl-ocr".to_owned()], ..of_regions("test", &["singapore"]) };
    })
    .await;
    let answer = estimate(&gateway, &gateway.key, "?model=qwen3.5-ocr").await;
    assert_eq!((answer.status.as_u16(), answer.code()), (403, "forbidden"));
}

#[tokio::test]
async fn what_is_reserved_is_the_dearest_of_the_tenants_regions() {
    let gateway = TestGateway::with(|setup| endpoints(setup, &["beijing", "virginia"])).await;
    let beijing = gateway.key_of(&of_regions("mainland", &["beijing"])).await;
    for (key, input, output) in [(&gateway.key, 514, 1_174), (&beijing, 300, 500)] {
        let bound = estimate(&gateway, key, "").await.json["bound"].clone();
        let tokens = |kind: &str| bound[kind].as_u64().unwrap();
        let inputs = tokens("image_tokens") + tokens("text_tokens");
        let nanos = inputs * input + tokens("output_tokens") * output;
        let amount = ocr_gateway::units::Money::from_nanos(nanos).to_string();
        assert_eq!(
            (&bound["cost"]["amount"], &bound["cost"]["currency"]),
            (&amount.into(), &"CNY".into())
        );
    }
}

#[tokio::test]
async fn who_may_be_served_anywhere_pays_in_the_currency_of_the_first_endpoint() {
    let gateway = TestGateway::with(|setup| endpoints(setup, &["singapore", "beijing"])).await;
    let beijing = gateway.key_of(&of_regions("mainland", &["beijing"])).await;
    for (key, currency) in [(&gateway.key, "USD"), (&beijing, "CNY")] {
        let answer = estimate(&gateway, key, "").await;
        assert_eq!(answer.json["bound"]["cost"]["currency"], currency, "{}", answer.text);
    }
}

#[tokio::test]
async fn changed_regions_bind_in_the_running_service() {
    let gateway = TestGateway::start().await;
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
    let confined = of_regions("test", &["singapore"]);
    assert!(gateway.store.tenants().update_tenant(&confined).await.unwrap());
    until("refused", async || gateway.upload("/ocr", fixture("hello.png")).await.status == 403)
        .await;
}

/// A configuration file with endpoints in these regions, and `more`.
fn configured(installation: &Installation, regions: &[&str], more: &str) {
    let endpoint = |region: &&str| {
        format!(
            "[[upstream.endpoints]]\nname = \"{region}-1\"\nregion = \"{region}\"\n\
             base_url = \"http://127.0.0.1:1\"\napi_key = \"sk-test\"\n"
        )
    };
    let endpoints: String = regions.iter().map(endpoint).collect();
    let file = installation.folder.path().join("gateway.toml");
    std::fs::write(file, format!("{endpoints}{more}")).unwrap();
}

#[tokio::test]
async fn what_could_never_be_served_keeps_the_service_from_starting() {
    let installation = Installation::reading("").await;
    let confined = "[tenants.acme]\nmodels = [\"qwen3.5-ocr\"]\nregions = [\"virginia\"]\n";
    for (regions, more, named) in [
        (
            &["beijing", "virginia"][..],
            "[tenants.acme]\nregions = [\"mars\"]",
            "tenants.acme.regions",
        ),
        (&["beijing", "virginia"], confined, "tenants.acme.models"),
        (&["beijing", "mars"], "", "upstream.endpoints: no model has a price for region"),
        (&["mars"], "", "upstream.model"),
    ] {
        configured(&installation, regions, more);
        let ended = installation.run("serve --config gateway.toml").await;
        assert_eq!(ended.code, 1, "{}", ended.err);
        assert!(ended.err.contains(named), "{named}: {}", ended.err);
    }
}

#[tokio::test]
async fn an_endpoint_that_is_left_out_for_its_currency_is_logged_at_the_start() {
    let installation = Installation::reading("").await;
    for (regions, warned) in [(["beijing", "virginia"], false), (["beijing", "singapore"], true)] {
        configured(&installation, &regions, "");
        let log = installation.serve_by("serve --config gateway.toml").await.log();
        let line = log.lines().find(|line| line.contains("give tenants `regions`"));
        assert_eq!(line.is_some(), warned, "{log}");
        let words = ["WARN", "qwen-vl-ocr", "singapore-1", "USD", "CNY"];
        assert!(line.is_none_or(|line| words.iter().all(|word| line.contains(word))), "{log}");
    }
}

#[tokio::test]
async fn a_tenant_is_made_in_a_region_without_endpoints_with_a_warning() {
    let installation = Installation::reading("").await;
    assert_eq!(installation.run("migrate").await.code, 0);
    let created = installation.run("tenant create acme --regions mars,beijing").await;
    assert_eq!((created.code, created.out.as_str()), (0, ""), "{}", created.err);
    assert!(
        created.err.contains("no endpoint of the configuration is in mars;"),
        "{}",
        created.err
    );
    let shown = installation.run("tenant show acme --json").await;
    let tenant: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(tenant["regions"], serde_json::json!(["mars", "beijing"]));
}
