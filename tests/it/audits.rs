//! A share of the pages with chosen pixels is read again at the cap, and the height that text keeps follows.

use std::num::NonZeroU64;

use dashscope_emulator::{EngineChoice, Fault};
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::calibration::agreement::{Agreement, Weight};
use ocr_gateway::calibration::controller::Step;
use ocr_gateway::units::{Pixels, Share};
use serde_json::{Value, json};

use crate::budgets::accounts;
use crate::databases::Database;
use crate::harness::{Answer, Setup, TestGateway, has_tesseract, until};
use crate::program::{Installation, Service};

fn receipt() -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read(folder.join("demo/receipt.png")).unwrap()
}

/// A page on which the same text is smaller: the receipt, and its end once more at the end of a long sheet.
fn long_receipt() -> Vec<u8> {
    let receipt = image::load_from_memory(&receipt()).unwrap().to_luma8();
    let (width, height) = receipt.dimensions();
    let end = image::imageops::crop_imm(&receipt, 0, height * 4 / 5, width, height / 5).to_image();
    let mut sheet = image::GrayImage::from_pixel(width, 2 * height, *receipt.get_pixel(0, 0));
    image::imageops::replace(&mut sheet, &receipt, 0, 0);
    image::imageops::replace(&mut sheet, &end, 0, (2 * height - end.height()).into());
    let mut file = std::io::Cursor::new(Vec::new());
    sheet.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

/// A gateway each of whose pages is audited.
async fn gateway(change: impl FnOnce(&mut Tenant)) -> TestGateway {
    gateway_with(|setup| change(&mut setup.tenant)).await
}

async fn gateway_with(change: impl FnOnce(&mut Setup)) -> TestGateway {
    TestGateway::with(|setup| {
        // Every picture reads the same, however small.
        setup.emulator.engine = EngineChoice::Scripted("the whole text of the page".to_owned());
        (setup.settings.auto.latin, setup.settings.auto.cjk) = (8.0, 12.0);
        setup.tenant.auto_pixels = true;
        setup.tenant.auto_audit = Share::ALL;
        change(setup);
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
async fn a_height_far_too_small_rises_until_the_texts_agree() {
    const AIM: f64 = 0.98;
    if !has_tesseract() {
        return;
    }
    let gateway = TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Tesseract { languages: Some(vec!["eng".to_owned()]) };
        // The reader needs half as much again.
        (setup.settings.auto.latin, setup.settings.auto.cjk) = (4.0, 6.0);
        setup.tenant.max_pixels = Some(Pixels::new(1 << 20));
        setup.tenant.auto_pixels = true;
        setup.tenant.auto_audit = Share::ALL;
        setup.tenant.auto_aim = AIM.try_into().unwrap();
    })
    .await;
    let page = long_receipt();
    // The width that is sent, and the agreement that the audit finds, which a long text counts ten times.
    let audited = async || {
        let of = [("tenant", "test")];
        let count = async || gateway.metric("auto_agreement_count", &of).await;
        let sum = async || gateway.metric("auto_agreement_sum", &of).await;
        let all = async || audits(&gateway, "agreed").await + audits(&gateway, "below_aim").await;
        let before = (count().await, sum().await, all().await);
        let answer = gateway.upload("/ocr", page.clone()).await;
        assert_eq!(sent(&answer)["reason"], "auto", "{}", answer.text);
        until("the audit", async || all().await > before.2).await;
        let agreement = (sum().await - before.1) / 10.0;
        assert!(
            (count().await - before.0 - 10.0).abs() < 0.5 && (0.0..=1.0001).contains(&agreement)
        );
        (sent(&answer)["width"].as_u64().unwrap(), agreement)
    };

    let mut found = vec![audited().await];
    assert!(found[0].1 < 0.9, "it is too small: {found:?}");
    while found.len() < 14 && audits(&gateway, "agreed").await == 0 {
        found.push(audited().await);
    }
    for _ in 0..2 {
        found.push(audited().await);
    }

    let last = &found[found.len() - 3..];
    let mean = last.iter().map(|(_, agreement)| agreement / 3.0).sum::<f64>();
    assert!(mean > AIM - 0.02, "{found:?}");
    assert!(last.iter().all(|(width, _)| *width > found[0].0), "{found:?}");
    let factor = gateway.metric("auto_kept_height_factor", &[("tenant", "test")]).await;
    assert!((1.2..4.0).contains(&factor), "{factor} after {found:?}");
    let calls = gateway.upstream().bill().received;
    assert_eq!(calls, 2 * found.len() as u64, "one for the caller, and one to compare");
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
    let labels = [("tenant", "test")];
    for member in ["auto_agreement_sum", "auto_agreement_count"] {
        assert_eq!(gateway.count(member, &labels).await, 10, "{member}");
    }
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
async fn a_stop_drops_an_audit_whose_call_was_not_sent() {
    let gateway = gateway_with(|setup| {
        for model in setup.settings.models.values_mut() {
            // Calls are sent about ten seconds apart.
            model.rpm = 6;
        }
    })
    .await;
    let answer = gateway.upload("/ocr", receipt()).await;
    assert_eq!(sent(&answer)["reason"], "auto");
    until("the audit waits", async || accounts(&gateway, "test").await.1 > 0).await;

    gateway.gateway.close();

    until("it is dropped", async || accounts(&gateway, "test").await.1 == 0).await;
    let bill = gateway.upstream().bill();
    assert_eq!((bill.received, accounts(&gateway, "test").await.0), (1, bill.total()));
    assert_eq!(gateway.count("auto_audits_total", &[]).await, 0);
}

#[tokio::test]
async fn text_on_a_page_that_was_answered_as_blank_is_counted() {
    let gateway = gateway(|_| {}).await;
    let blank = image::GrayImage::from_pixel(1_000, 1_400, image::Luma([250]));
    let mut file = std::io::Cursor::new(Vec::new());
    blank.write_to(&mut file, image::ImageFormat::Png).unwrap();
    let answer = gateway.upload("/ocr", file.into_inner()).await;
    let page = &answer.json["pages"][0];
    assert_eq!(
        (&page["source"], &answer.json["usage"]["total_tokens"]),
        (&json!("blank"), &json!(0))
    );
    until_audits(&gateway, "blank_had_text", 1).await;
    assert_eq!(gateway.upstream().bill().received, 1);
    assert!(gateway.metric("auto_kept_height_factor", &[]).await < 1.0, "there is none");
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
    let lost = Agreement { share: Share::NONE, weight: Weight::FULL };
    let up = Step::after(lost, Share::ALL);
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
async fn a_page_number_that_is_lost_from_a_short_page_raises_the_height_a_little() {
    let gateway = gateway_with(|setup| {
        // The digit is read at the cap only.
        setup.emulator.engine = EngineChoice::Scripted("7".to_owned());
    })
    .await;
    let estimate = gateway.upload("/estimate", receipt()).await.json;
    let width = estimate["pages"][0]["sent"]["width"].as_u64().unwrap().try_into().unwrap();
    let lost = cut_off().for_images_as_wide_as(width);
    gateway.upstream().add_fault(lost);
    let answer = gateway.upload("/ocr", receipt()).await;
    assert_eq!((&sent(&answer)["reason"], &answer.json["text"]), (&json!("auto"), &json!("")));
    until_audits(&gateway, "below_aim", 1).await;
    let labels = [("tenant", "test")];
    assert_eq!(gateway.count("auto_agreement_count", &labels).await, 1);
    let factor = gateway.metric("auto_kept_height_factor", &labels).await;
    assert!((1.005..1.03).contains(&factor), "{factor}");
}

/// A whole answer without text.
fn cut_off() -> Fault {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "qwen-vl-ocr-2025-11-20",
        "choices": [{ "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": "" } }],
        "usage": { "prompt_tokens": 120, "completion_tokens": 1, "total_tokens": 121,
            "prompt_tokens_details": { "image_tokens": 100, "text_tokens": 20 } },
    });
    Fault::replay(200, "application/json", body.to_string().into_bytes())
}

#[tokio::test]
async fn an_audit_saves_nothing_more_by_the_cap() {
    let gateway = gateway(|tenant| tenant.max_pixels = Some(Pixels::new(1 << 20))).await;
    let answer = gateway.upload("/ocr", receipt()).await;
    assert_eq!(sent(&answer)["reason"], "auto");
    until_audits(&gateway, "agreed", 1).await;
    assert_eq!(gateway.upstream().bill().received, 2);
    let saved = async |reason| gateway.count("tokens_saved_total", &[("reason", reason)]).await;
    let by_cap = saved("max_pixels").await;
    assert!(by_cap > 0);
    assert_eq!(answer.json["usage"]["tokens_saved"], by_cap + saved("auto").await);
}

/// An installation on this database whose pages are audited, where each size reads otherwise, with a tenant's key.
async fn audited(database: &str) -> (Installation, String) {
    let text = "{width} {width} {width} {height} {height} {height} {width} {height}";
    let mut installation = Installation::reading(text).await;
    installation.set("AUTO__LATIN_HEIGHT", "8.0");
    installation.set("AUTO__CJK_HEIGHT", "12.0");
    installation.set("DATABASE__URL", database);
    let key = installation.key("acme").await;
    let settings = "tenant set acme --auto-pixels true --auto-audit 1 --auto-aim 0.95";
    assert_eq!(installation.run(settings).await.code, 0);
    (installation, key)
}

/// The factor of the only tenant, as a process has it.
async fn factor(service: &Service) -> Option<f64> {
    let metrics = service.http.get(format!("{}/metrics", service.metrics_address)).send();
    let text = metrics.await.unwrap().text().await.unwrap();
    let mut lines =
        text.lines().filter(|line| line.starts_with("ocr_gateway_auto_kept_height_factor{"));
    lines.next().and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
}

/// The width at which a process sends the receipt, or would.
async fn width(service: &Service, key: &str, route: &str) -> u64 {
    let answer = Answer::of(service.post(key, route).body(receipt())).await;
    assert_eq!(sent(&answer)["reason"], "auto");
    sent(&answer)["width"].as_u64().unwrap()
}

/// Reads a page, and waits until its audit has raised the factor.
async fn teach(service: &Service, key: &str) -> Option<f64> {
    width(service, key, "/ocr").await;
    let is_raised = async || factor(service).await.is_some_and(|factor| factor > 1.1);
    until("the factor", is_raised).await;
    factor(service).await
}

#[tokio::test]
async fn what_audits_have_taught_survives_a_stop_and_a_kill() {
    for database in Database::of_each_engine().await {
        let (installation, key) = audited(&database.url).await;
        let mut service = installation.serve().await;
        let small = width(&service, &key, "/estimate").await;
        let taught = teach(&service, &key).await;
        for signal in ["TERM", "KILL"] {
            service.signal(signal).await;
            assert_eq!(service.ended().await, (signal == "TERM").then_some(0));
            service = installation.serve().await;
            assert_eq!(factor(&service).await, taught, "after {signal}");
            assert!(width(&service, &key, "/estimate").await > small);
        }
    }
}

#[tokio::test]
async fn what_the_audits_of_one_replica_teach_another_one_uses_in_its_estimates() {
    let Some(database) = Database::postgres().await else { return };
    let (installation, key) = audited(&database.url).await;
    let [one, other] = [installation.serve().await, installation.serve().await];
    let small = width(&other, &key, "/estimate").await;
    assert_eq!(width(&one, &key, "/estimate").await, small);
    let taught = teach(&one, &key).await;
    until("the other", async || width(&other, &key, "/estimate").await > small).await;
    assert_eq!(factor(&other).await, taught);
    assert_eq!(width(&one, &key, "/estimate").await, width(&other, &key, "/estimate").await);
}
