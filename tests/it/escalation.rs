//! A page with chosen pixels whose answer is in doubt is read again at the cap, if its tenant wants that.
//!
//! The emulator misbehaves for the smaller picture only, by its width.

use std::num::NonZeroU64;

use dashscope_emulator::{EngineChoice, Fault};
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::units::Pixels;
use serde_json::{Value, json};

use crate::extract::written;
use crate::harness::{Answer, TestGateway};

/// The text that is read from each picture.
const TEXT: &str = "the whole text of the page";

/// A picture with large text, of which fewer pixels suffice.
pub(crate) fn receipt() -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read(folder.join("demo/receipt.png")).unwrap()
}

async fn gateway(change: impl FnOnce(&mut Tenant)) -> TestGateway {
    TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Scripted(TEXT.to_owned());
        setup.tenant.auto_pixels = true;
        setup.tenant.escalate = true;
        change(&mut setup.tenant);
    })
    .await
}

/// How the picture is sent with chosen pixels and at the cap: the two estimates.
async fn estimates(gateway: &TestGateway) -> [Value; 2] {
    let small = gateway.upload("/estimate?max_pixels=auto", receipt()).await.json;
    let cap = &small["limits"]["max_pixels"];
    let large = gateway.upload(&format!("/estimate?max_pixels={cap}"), receipt()).await.json;
    assert_eq!(small["pages"][0]["sent"]["reason"], "auto", "{small}");
    assert!(width(&small) < width(&large), "{small} {large}");
    [small, large]
}

fn width(estimate: &Value) -> u32 {
    estimate["pages"][0]["sent"]["width"].as_u64().unwrap().try_into().unwrap()
}

/// The width of the picture that the estimate would send: drawn with chosen pixels, and the file itself at the cap.
pub(crate) fn picture_width(estimate: &Value) -> u32 {
    let page = &estimate["pages"][0];
    let is_drawn = page["sent"]["reason"] == "auto";
    let width = if is_drawn { &page["sent"]["width"] } else { &page["width"] };
    width.as_u64().unwrap().try_into().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// An answer with this text that stopped at its limit.
fn cut(text: &str, image_tokens: &Value) -> Fault {
    let image = number(image_tokens);
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "qwen-vl-ocr-2025-11-20",
        "choices": [{ "index": 0, "finish_reason": "length",
            "message": { "role": "assistant", "content": text } }],
        "usage": { "prompt_tokens": image + 20, "completion_tokens": 9, "total_tokens": image + 29,
            "prompt_tokens_details": { "image_tokens": image, "text_tokens": 20 } },
    });
    Fault::replay(200, "application/json", body.to_string().into_bytes())
}

/// The page of an answer of one.
fn page(answer: &Answer) -> &Value {
    assert_eq!(answer.status, 200, "{}", answer.text);
    &answer.json["pages"][0]
}

#[tokio::test]
async fn a_page_whose_text_is_cut_is_read_again_at_the_cap_and_costs_both_calls() {
    let gateway = gateway(|_| {}).await;
    let [small, large] = estimates(&gateway).await;
    let fault = cut("the whole", &small["pages"][0]["image_tokens"]);
    gateway.upstream().add_fault(fault.for_images_as_wide_as(picture_width(&small)));

    let answer = gateway.upload("/ocr", receipt()).await;

    let page = page(&answer);
    assert_eq!((&page["text"], &answer.json["text"]), (&json!(TEXT), &json!(TEXT)));
    assert_eq!((&page["warnings"], &page["finish_reason"]), (&json!([]), &json!("stop")));
    assert_eq!((&page["sent"]["escalated"], width(&answer.json)), (&json!(true), width(&large)));
    let tokens = [&small, &large].map(|estimate| number(&estimate["pages"][0]["image_tokens"]));
    assert_eq!(page["image_tokens"]["billed"], tokens.iter().sum::<u64>());
    assert_eq!(page["image_tokens"]["estimated"], page["image_tokens"]["billed"]);
    let usage = &answer.json["usage"];
    assert_eq!((&usage["upstream_calls"], &usage["retries"]), (&json!(2), &json!(0)));
    assert_eq!(usage["image_tokens"], page["image_tokens"]["billed"]);
    assert_eq!(answer.json["upstream"]["request_ids"].as_array().unwrap().len(), 2);
    let labels = [("tenant", "test"), ("reason", "truncated")];
    assert_eq!(gateway.count("escalations_total", &labels).await, 1);
}

#[tokio::test]
async fn a_second_reading_saves_nothing_more_by_the_cap() {
    let gateway = gateway(|tenant| tenant.max_pixels = Some(Pixels::new(2_000_000))).await;
    let [small, _] = estimates(&gateway).await;
    let fault = cut("the whole", &small["pages"][0]["image_tokens"]);
    gateway.upstream().add_fault(fault.times(1));
    let answer = gateway.upload("/ocr", receipt()).await;
    assert_eq!(page(&answer)["sent"]["escalated"], true);
    let saved = async |reason| gateway.count("tokens_saved_total", &[("reason", reason)]).await;
    let of_both = [saved("max_pixels").await, saved("auto").await];
    assert_eq!(answer.json["usage"]["tokens_saved"], of_both.iter().sum::<u64>());
    // The same page without a choice saves as much by it.
    let plain = |tenant: &mut Tenant| {
        (tenant.auto_pixels, tenant.max_pixels) = (false, Some(Pixels::new(2_000_000)));
    };
    let plain = TestGateway::with(|setup| plain(&mut setup.tenant)).await;
    let once = plain.upload("/ocr", receipt()).await;
    assert!(of_both[0] > 0);
    assert_eq!(once.json["usage"]["tokens_saved"], of_both[0]);
}

#[tokio::test]
async fn each_call_for_fields_that_are_asked_for_twice_saves_by_the_cap() {
    let gateway = gateway(|tenant| {
        tenant.auto_pixels = false;
        tenant.max_pixels = Some(Pixels::new(1 << 20));
    })
    .await;
    let extract = format!("/extract?schema={}", SCHEMA.replace(r#","required":["no"]"#, ""));
    let once = gateway.upload(&extract, receipt()).await;
    gateway.upstream().add_fault(Fault::prose_for_result().times(1));
    let twice = gateway.upload(&extract, receipt()).await;
    assert_eq!(twice.json["usage"]["upstream_calls"], 2, "{}", twice.text);
    assert_ne!(once.json["usage"]["tokens_saved"], 0);
    let saved = |answer: &Answer| answer.json["usage"]["tokens_saved"].as_u64().unwrap();
    assert_eq!(saved(&twice), 2 * saved(&once));
}

#[tokio::test]
async fn no_page_is_read_again_without_the_setting_without_a_doubt_or_at_the_cap() {
    let plain = gateway(|tenant| tenant.escalate = false).await;
    let [small, _] = estimates(&plain).await;
    let fault = || cut("the whole", &small["pages"][0]["image_tokens"]);
    plain.upstream().add_fault(fault());
    let answer = plain.upload("/ocr", receipt()).await;
    assert_eq!(page(&answer)["warnings"], json!(["truncated"]));
    assert_eq!(page(&answer)["sent"]["escalated"], Value::Null);
    assert_eq!(plain.upstream().bill().received, 1);

    let escalating = gateway(|_| {}).await;
    let answer = escalating.upload("/ocr", receipt()).await;
    assert_eq!((&page(&answer)["text"], escalating.upstream().bill().received), (&json!(TEXT), 1));
    escalating.upstream().add_fault(fault());
    let cap = &small["limits"]["max_pixels"];
    let answer = escalating.upload(&format!("/ocr?max_pixels={cap}"), receipt()).await;
    assert_eq!(page(&answer)["warnings"][0], "truncated");
    assert_eq!(escalating.upstream().bill().received, 2);
}

#[tokio::test]
async fn an_answer_in_doubt_is_delivered_with_a_warning_if_a_budget_has_no_room_for_a_second() {
    let free = gateway(|_| {}).await;
    let [small, large] = estimates(&free).await;
    // The second call needs all of it, and the first has used some.
    let budget = NonZeroU64::new(number(&large["bound"]["total_tokens"]));
    let gateway = gateway(|tenant| tenant.daily_tokens = budget).await;
    gateway.upstream().add_fault(cut("the whole", &small["pages"][0]["image_tokens"]));

    let answer = gateway.upload("/ocr", receipt()).await;

    let page = page(&answer);
    assert_eq!(page["text"], "the whole");
    assert_eq!(page["warnings"][0], "truncated");
    assert_eq!(page["warnings"][1]["code"], "not_read_again");
    assert_eq!(page["warnings"][1]["error"]["code"], "budget_exhausted");
    assert_eq!(
        (&page["sent"]["escalated"], &page["sent"]["reason"]),
        (&Value::Null, &json!("auto"))
    );
    assert_eq!(gateway.upstream().bill().received, 1);
}

#[tokio::test]
async fn the_answer_at_the_cap_is_delivered_unless_it_has_more_doubts() {
    let gateway = gateway(|_| {}).await;
    let [small, large] = estimates(&gateway).await;
    let of = |text: &str, estimate: &Value| {
        let fault = cut(text, &estimate["pages"][0]["image_tokens"]);
        fault.for_images_as_wide_as(picture_width(estimate)).times(1)
    };
    gateway.upstream().add_fault(of("a long text that was cut", &small));
    gateway.upstream().add_fault(of("short", &large));
    let answer = gateway.upload("/ocr", receipt()).await;
    assert_eq!(page(&answer)["text"], "short", "both are cut");
    assert_eq!(page(&answer)["sent"]["escalated"], true);

    gateway.upstream().add_fault(of("a text that was cut", &small));
    gateway.upstream().add_fault(of(&"the same row again\n".repeat(200), &large));
    let answer = gateway.upload("/ocr", receipt()).await;
    let page = page(&answer);
    assert_eq!(
        (&page["text"], &page["sent"]["reason"]),
        (&json!("a text that was cut"), &json!("auto"))
    );
    assert_eq!(
        (&page["sent"]["escalated"], &answer.json["usage"]["upstream_calls"]),
        (&json!(true), &json!(2))
    );
}

#[tokio::test]
async fn an_estimate_has_room_for_the_second_call_only_if_there_may_be_one() {
    let escalating = gateway(|_| {}).await;
    let [both, cap] = estimates(&escalating).await;
    let plain = gateway(|tenant| tenant.escalate = false).await;
    let [once, _] = estimates(&plain).await;
    for member in ["image_tokens", "text_tokens", "output_tokens", "total_tokens"] {
        let [both, once, cap] =
            [&both, &once, &cap].map(|estimate| number(&estimate["bound"][member]));
        assert_eq!(both, once + cap, "{member}");
    }
    assert_eq!(both["pages"][0]["image_tokens"], once["pages"][0]["image_tokens"]);
}

const SCHEMA: &str = r#"{"type":"object","properties":{"no":{"type":"string"},"date":{"type":"string"}},"required":["no"]}"#;

#[tokio::test]
async fn a_page_whose_required_field_is_missing_is_read_again_at_the_cap() {
    let gateway = gateway(|_| {}).await;
    let [small, large] = estimates(&gateway).await;
    let of = |fields: &str, estimate: &Value| {
        written(fields, fields).for_images_as_wide_as(picture_width(estimate)).times(1)
    };
    gateway.upstream().add_fault(of(r#"{"date":"7 May"}"#, &small));
    gateway.upstream().add_fault(of(r#"{"no":"A-17","date":"7 May"}"#, &large));

    let answer = gateway.upload(&format!("/extract?schema={SCHEMA}"), receipt()).await;

    let page = page(&answer);
    assert_eq!(answer.json["data"], json!({ "no": "A-17", "date": "7 May" }));
    assert_eq!(
        (&answer.json["validation"]["valid"], &page["sent"]["escalated"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        (width(&answer.json), &answer.json["usage"]["upstream_calls"]),
        (width(&large), &json!(2))
    );
    let labels = [("tenant", "test"), ("reason", "field_missing")];
    assert_eq!(gateway.count("escalations_total", &labels).await, 1);
}

#[tokio::test]
async fn the_first_fields_stay_if_the_cap_shows_fewer() {
    let gateway = gateway(|_| {}).await;
    let [small, large] = estimates(&gateway).await;
    let schema = SCHEMA.replace(r#"["no"]"#, r#"["no","date"]"#);
    let of = |fields: &str, estimate: &Value| {
        written(fields, fields).for_images_as_wide_as(picture_width(estimate)).times(1)
    };
    gateway.upstream().add_fault(of(r#"{"date":"7 May"}"#, &small));
    gateway.upstream().add_fault(of("{}", &large));
    let answer = gateway.upload(&format!("/extract?schema={schema}"), receipt()).await;
    assert_eq!(answer.json["data"], json!({ "no": null, "date": "7 May" }), "{}", answer.text);
    let sent = &page(&answer)["sent"];
    assert_eq!((&sent["escalated"], &sent["reason"]), (&json!(true), &json!("auto")));
}

#[tokio::test]
async fn a_page_whose_sums_do_not_add_up_is_read_again_at_the_cap() {
    let text = "Pen 3.00\nPaper 12.00\nSubtotal 15.00\nGST 0.90\nTotal 15.90\nCash 16.90";
    let gateway = TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Scripted(text.to_owned());
        (setup.tenant.auto_pixels, setup.tenant.escalate) = (true, true);
    })
    .await;
    let [small, large] = estimates(&gateway).await;
    let of = |total: &str, estimate: &Value| {
        let fields = json!({ "subtotal": "15.00", "tax": "0.90", "total": total }).to_string();
        let fault = written(&fields, "null").for_bodies_with("key_information_extraction");
        fault.for_images_as_wide_as(picture_width(estimate)).times(1)
    };
    gateway.upstream().add_fault(of("16.90", &small));
    gateway.upstream().add_fault(of("15.90", &large));

    let answer = gateway.upload("/extract?template=receipt&ground=true", receipt()).await;

    let page = page(&answer);
    assert_eq!(answer.json["data"]["total"], 15.9, "{}", answer.text);
    let checks = answer.json["checks"].as_array().unwrap();
    assert!(!checks.is_empty() && checks.iter().all(|check| check["holds"] == true), "{checks:?}");
    assert_eq!((&page["sent"]["escalated"], width(&answer.json)), (&json!(true), width(&large)));
    assert_eq!(answer.json["usage"]["upstream_calls"], 4, "each reading has a call for its text");
    let labels = [("tenant", "test"), ("reason", "sum_wrong")];
    assert_eq!(gateway.count("escalations_total", &labels).await, 1);
}
