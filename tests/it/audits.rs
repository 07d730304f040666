//! A share of the pages with chosen pixels is read again at the cap, and the height that text keeps follows.

use std::num::NonZeroU64;

use dashscope_emulator::EngineChoice;
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::calibration::controller::Step;
use ocr_gateway::units::Share;
use serde_json::{Value, json};

use crate::harness::{Answer, TestGateway, until};
use crate::program::Installation;

fn receipt() -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read(folder.join("demo/receipt.png")).unwrap()
}

/// A gateway each of whose pages is audited.
async fn gateway(change: impl FnOnce(&mut Tenant)) -> TestGateway {
    TestGateway::with(|setup| {
        // Every picture reads the same, however small.
        setup.emulator.engine = EngineChoice::Scripted("the whole text of the page".to_owned());
        (setup.settings.auto.latin, setup.settings.auto.cjk) = (8.0, 12.0);
        setup.tenant.auto_pixels = true;
        setup.tenant.auto_audit = Share::ALL;
        change(&mut setup.tenant);
    })
    .await
}

async fn audits(gateway: &TestGateway, outcome: &str) -> u64 {
    gateway.count("auto_audits_total", &[("tenant", "test"), ("outcome", outcome)]).await
}

async fn until_audits(gateway: &TestGateway, outcome: &str, count: u64) {
    until("audits", async || audits(gateway, outcome).await >= count).await;
}

fn sent(answer: &Answer) -> &Value {
    assert_eq!(answer.status, 200, "{}", answer.text);
    &answer.json["pages"][0]["sent"]
}

#[tokio::test]
async fn an_audit_is_a_call_at_the_cap_on_the_budget_that_its_caller_does_not_see() {
    let gateway = gateway(|_| {}).await;
    let answer = gateway.upload("/ocr", receipt()).await;
    assert_eq!(
        (&sent(&answer)["reason"], &answer.json["usage"]["upstream_calls"]),
        (&json!("auto"), &json!(1))
    );
    until_audits(&gateway, "agreed", 1).await;
    let calls = gateway.upstream().calls();
    let widths: Vec<_> = calls.iter().map(|call| call.images[0].width.unwrap()).collect();
    let [small, large] = widths[..] else { panic!("{widths:?}") };
    assert!(small < large, "{widths:?}");
    let usage = Answer::of(gateway.get("/usage")).await;
    let spent = &usage.json["total"]["total_tokens"];
    assert_eq!(*spent, gateway.upstream().bill().total(), "{}", usage.text);
    assert_eq!(
        gateway.metric("auto_agreement_sum", &[("tenant", "test")]).await.to_bits(),
        1f64.to_bits()
    );
}

#[tokio::test]
async fn an_audit_for_which_a_budget_has_no_room_is_skipped() {
    let free = gateway(|tenant| tenant.auto_audit = Share::NONE).await;
    let cap =
        free.upload("/estimate?max_pixels=auto", receipt()).await.json["limits"]["max_pixels"]
            .clone();
    let whole = free.upload(&format!("/estimate?max_pixels={cap}"), receipt()).await;
    // The audit needs all of it, and the answer has used some.
    let budget = NonZeroU64::new(whole.json["bound"]["total_tokens"].as_u64().unwrap());
    let gateway = gateway(|tenant| tenant.daily_tokens = budget).await;
    let answer = gateway.upload("/ocr", receipt()).await;
    assert_eq!(sent(&answer)["reason"], "auto");
    until_audits(&gateway, "skipped_refused", 1).await;
    assert_eq!(gateway.upstream().bill().received, 1);
}

#[tokio::test]
async fn no_page_is_audited_without_the_setting_or_with_pixels_that_were_asked_for() {
    let silent = gateway(|tenant| tenant.auto_audit = Share::NONE).await;
    silent.upload("/ocr", receipt()).await;
    let audited = gateway(|_| {}).await;
    let asked = audited.upload("/ocr?max_pixels=400000", receipt()).await;
    assert_eq!(sent(&asked)["reason"], "asked");
    // An audit of the next page shows that there was none before.
    audited.upload("/ocr", receipt()).await;
    until_audits(&audited, "agreed", 1).await;
    assert_eq!(audited.upstream().bill().received, 3);
    assert_eq!(silent.upstream().bill().received, 1);
}

#[tokio::test]
async fn the_fields_of_a_page_are_compared_by_their_values() {
    const SCHEMA: &str = r#"{"type":"object","properties":{"title":{"type":"string"}}}"#;
    let gateway = gateway(|_| {}).await;
    let fields = r#"{"title":"a title that is long enough to be compared"}"#;
    gateway.upstream().add_fault(crate::extract::written(fields, fields));
    let answer = gateway.upload(&format!("/extract?schema={SCHEMA}"), receipt()).await;
    assert_eq!(sent(&answer)["reason"], "auto", "{}", answer.text);
    until_audits(&gateway, "agreed", 1).await;
    assert_eq!(gateway.upstream().bill().received, 2);
}

#[tokio::test]
async fn a_factor_that_keeps_all_pages_at_the_cap_falls_again_without_a_call() {
    let gateway = gateway(|_| {}).await;
    let up = Step::after(Share::NONE, Share::ALL);
    let heights = gateway.store.heights();
    for _ in 0..10 {
        heights.apply("test", up).await.unwrap();
    }
    // The replica reads what others have learnt.
    let labels = [("tenant", "test")];
    gateway.until_metric("auto_kept_height_factor", &labels, 4.0).await;
    // Its margins are not cut either.
    let answer = gateway.upload("/ocr?downscale=never", receipt()).await;
    assert_ne!(sent(&answer)["reason"], "auto", "{}", answer.text);
    until_audits(&gateway, "at_the_cap", 1).await;
    assert!(gateway.metric("auto_kept_height_factor", &labels).await < 4.0);
    assert_eq!(gateway.upstream().bill().received, 1);
}

#[tokio::test]
async fn what_audits_have_taught_survives_a_restart() {
    // Each size reads otherwise.
    let text = "{width} {width} {width} {height} {height} {height} {width} {height}";
    let mut installation = Installation::reading(text).await;
    installation.set("AUTO__LATIN_HEIGHT", "8.0");
    installation.set("AUTO__CJK_HEIGHT", "12.0");
    let key = installation.key("acme").await;
    let settings = "tenant set acme --auto-pixels true --auto-audit 1 --auto-aim 0.95";
    assert_eq!(installation.run(settings).await.code, 0);
    let mut service = installation.serve().await;
    let factor = async |address: &str, http: &reqwest::Client| {
        let text =
            http.get(format!("{address}/metrics")).send().await.unwrap().text().await.unwrap();
        let mut lines =
            text.lines().filter(|line| line.starts_with("ocr_gateway_auto_kept_height_factor{"));
        lines.next().and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
    };
    let answer = Answer::of(service.post(&key, "/ocr").body(receipt())).await;
    assert_eq!(sent(&answer)["reason"], "auto");
    let is = async |service: &crate::program::Service| {
        factor(&service.metrics_address, &service.http).await
    };
    until("the factor", async || is(&service).await.is_some_and(|factor| factor > 1.1)).await;
    let taught = is(&service).await;
    service.signal("TERM").await;
    assert_eq!(service.ended().await, Some(0));

    let service = installation.serve().await;
    assert_eq!(is(&service).await, taught);
    let wider = Answer::of(service.post(&key, "/ocr").body(receipt())).await;
    assert!(sent(&wider)["width"].as_u64() > sent(&answer)["width"].as_u64());
}
