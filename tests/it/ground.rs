//! `ground=true` on `/extract`: each page is read by a second call, values are looked for in its text, and sums are
//! checked.

use std::num::NonZeroU64;

use dashscope_emulator::{EngineChoice, Fault};
use ocr_gateway::auth::tenant::Tenant;
use serde_json::{Value, json};

use crate::budgets::accounts;
use crate::extract::written;
use crate::harness::{Answer, TestGateway, fixture, until};
use crate::pages::{letter, numbered, statuses, width_of};
use crate::pdf::{PdfPage, pdf};

/// What the emulator reads of each image.
const TEXT: &str =
    "ACME TRADING LTD\n12 Main Street\nTown A\nDate: 17/01/2018\nWidget 20.00\nTotal {width}.00";

/// Fields of [`TEXT`].
const SCHEMA: &str = r#"{"type":"object","properties":{"company":{"type":"string"},"address":{"type":"string"},
    "date":{"type":"string","format":"date"},"total":{"type":"number"},"phone":{"type":"string"}}}"#;

fn path(route: &str, more: &str) -> String {
    format!("{route}?schema={SCHEMA}&ground=true{more}")
}

async fn gateway() -> TestGateway {
    TestGateway::with(|setup| setup.emulator.engine = EngineChoice::Scripted(TEXT.to_owned())).await
}

/// An answer for the fields in place of the emulator's. The text is read as ever.
fn fields(fields: &Value) -> Fault {
    written(&fields.to_string(), "null").for_bodies_with("key_information_extraction")
}

fn grounded(answer: &Answer) -> Vec<(&str, &Value)> {
    let fields = answer.json["fields"].as_object().unwrap_or_else(|| panic!("{}", answer.text));
    fields.iter().map(|(pointer, field)| (pointer.as_str(), &field["grounded"])).collect()
}

fn sides(place: &Value) -> [u64; 4] {
    let side = |index: usize| place[index].as_u64().unwrap_or_else(|| panic!("{place}"));
    [side(0), side(1), side(2), side(3)]
}

#[tokio::test]
async fn values_are_looked_for_in_a_text_that_a_second_call_reads_and_both_are_counted() {
    let gateway = gateway().await;
    gateway.upstream().add_fault(fields(&json!({
        "company": "ACME TRADING LTD", "address": "12 Main Street, Town A", "date": "2018-01-17",
        "total": "200", "phone": "12"
    })));
    let answer = gateway.upload(&path("/extract", ""), fixture("hello.png")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        grounded(&answer),
        [
            ("/company", &json!("exact")),
            ("/address", &json!("normalised")),
            ("/date", &json!("normalised")),
            ("/total", &json!("none")),
            ("/phone", &json!("exact")),
        ]
    );
    assert!(answer.json["fields"]["/company"].get("bbox").is_none());
    assert_eq!(answer.json["checks"], json!([]));
    let page = &answer.json["pages"][0];
    assert!(page["text"].as_str().unwrap().starts_with("ACME TRADING LTD\n12 Main"), "{page}");
    assert_eq!(answer.json["text"], page["text"]);
    let (calls, bill) = (gateway.upstream().calls(), gateway.upstream().bill());
    let tasks: Vec<_> = calls.iter().map(|call| call.task.as_deref()).collect();
    assert_eq!(tasks, [Some("key_information_extraction"), None]);
    assert_eq!(calls[0].images[0].bytes, calls[1].images[0].bytes);
    assert_eq!(answer.json["usage"]["total_tokens"], bill.total());
    assert_eq!(answer.json["upstream"]["request_ids"].as_array().map(Vec::len), Some(2));
    assert_eq!(accounts(&gateway, "test").await, (bill.total(), 0));
}

#[tokio::test]
async fn an_estimate_counts_both_calls_and_an_extraction_without_ground_makes_one() {
    let gateway = gateway().await;
    let estimate = gateway.upload(&path("/estimate", "&dpi=72"), numbered(2)).await;
    let alone = format!("/estimate?schema={SCHEMA}&dpi=72");
    let alone = gateway.upload(&alone, numbered(2)).await;
    let [both, one] = [&estimate, &alone].map(|answer| &answer.json["bound"]);
    let doubled = |member: &str| 2 * one[member].as_u64().unwrap();
    assert_eq!(both["image_tokens"], doubled("image_tokens"), "{}", estimate.text);
    assert_eq!(both["output_tokens"], doubled("output_tokens"));
    assert!(both["text_tokens"].as_u64() > one["text_tokens"].as_u64());
    let answer = gateway.upload(&path("/extract", "&dpi=72"), numbered(2)).await;
    assert_eq!(both["image_tokens"], gateway.upstream().bill().image);
    for (page, estimate) in
        [0, 1].map(|at| (&answer.json["pages"][at], &estimate.json["pages"][at]))
    {
        let tokens = &page["image_tokens"];
        assert_eq!(
            (&tokens["estimated"], &tokens["billed"]),
            (&estimate["image_tokens"], &estimate["image_tokens"])
        );
        assert_eq!(page["sent"], estimate["sent"]);
    }
    assert!(answer.json["usage"]["total_tokens"].as_u64() <= both["total_tokens"].as_u64());
    assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 0);
    let before = gateway.upstream().bill().received;
    let plain = gateway.upload(&format!("/extract?schema={SCHEMA}"), fixture("hello.png")).await;
    assert_eq!(gateway.upstream().bill().received, before + 1);
    assert_eq!(plain.json["fields"]["/company"]["grounded"], Value::Null, "{}", plain.text);
    assert!(plain.json.get("checks").is_none());
}

#[tokio::test]
async fn a_value_has_the_box_of_its_line_or_the_box_around_its_lines() {
    let gateway = gateway().await;
    gateway.upstream().add_fault(fields(&json!({
        "company": "ACME TRADING LTD", "address": "12 Main Street, Town A", "date": null, "total": "200",
        "phone": "17/01/2018"
    })));
    let answer = gateway.upload(&path("/extract", "&detail=lines"), fixture("hello.png")).await;
    let lines = &answer.json["pages"][0]["lines"];
    assert_eq!(lines.as_array().map(Vec::len), Some(6), "{}", answer.text);
    let place = |pointer: &str| &answer.json["fields"][pointer];
    assert_eq!(place("/company")["bbox"], lines[0]["bbox"]);
    assert_eq!(place("/company")["polygon"], lines[0]["polygon"]);
    assert_eq!(place("/phone")["bbox"], lines[3]["bbox"]);
    let [first, second] = [1, 2].map(|line: usize| sides(&lines[line]["bbox"]));
    let both = [0, 1].map(|side| first[side].min(second[side]));
    let ends = [2, 3].map(|side: usize| first[side].max(second[side]));
    let [left, top, right, bottom] = [both[0], both[1], ends[0], ends[1]];
    assert_eq!(place("/address")["bbox"], json!([left, top, right, bottom]));
    let corners = json!([[left, top], [right, top], [right, bottom], [left, bottom]]);
    assert_eq!(place("/address")["polygon"], corners);
    for pointer in ["/date", "/total"] {
        assert_eq!(
            (&place(pointer)["bbox"], &place(pointer)["polygon"]),
            (&Value::Null, &Value::Null)
        );
    }
    let task = gateway.upstream().calls()[1].task.clone();
    assert_eq!(task.as_deref(), Some("advanced_recognition"));
}

#[tokio::test]
async fn the_values_of_several_pages_are_looked_for_each_on_its_own() {
    let gateway = gateway().await;
    let answer = gateway.upload(&path("/extract", "&dpi=72&detail=lines"), numbered(3)).await;
    assert_eq!(answer.json["status"], "succeeded", "{}", answer.text);
    assert_eq!(answer.json["data"]["total"], f64::from(width_of(1)));
    assert_eq!(answer.json["fields"]["/total"]["grounded"], "exact");
    assert_eq!(answer.json["fields"]["/total"]["page"], 1);
    let bill = gateway.upstream().bill();
    assert_eq!((bill.received, &answer.json["usage"]["total_tokens"]), (6, &bill.total().into()));
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test]
async fn a_page_is_read_if_both_its_fields_and_its_text_are() {
    let gateway = gateway().await;
    let refused = Fault::code("DataInspectionFailed")
        .for_bodies_with("advanced_recognition")
        .for_images_as_wide_as(width_of(1));
    gateway.upstream().add_fault(refused);
    let answer = gateway.upload(&path("/extract", "&dpi=72&detail=lines"), numbered(2)).await;
    assert_eq!(statuses(&answer.json), ["failed", "succeeded"], "{}", answer.text);
    assert_eq!(answer.json["pages"][0]["error"]["code"], "content_rejected");
    assert_eq!(answer.json["data"]["total"], f64::from(width_of(2)));
    assert_eq!(answer.json["fields"]["/total"]["grounded"], "exact");
    let bill = gateway.upstream().bill();
    assert_eq!((bill.calls, &answer.json["usage"]["total_tokens"]), (3, &bill.total().into()));
    assert_eq!(answer.json["upstream"]["request_ids"].as_array().map(Vec::len), Some(3));
    assert_eq!(answer.header("ocr-pages-failed"), "1");
}

#[tokio::test]
async fn a_budget_that_ends_between_the_two_calls_is_kept_and_the_first_is_told() {
    let gateway = gateway().await;
    let tenant = |name: &str, daily_tokens| Tenant {
        daily_tokens: NonZeroU64::new(daily_tokens),
        max_tokens: NonZeroU64::new(300),
        ..Tenant::new(name.parse().unwrap())
    };
    let probe = gateway.key_of(&tenant("probe", u64::MAX >> 1)).await;
    // The image costs more than what the prompt of the fields is longer.
    let large = "&min_pixels=1000000";
    let alone = format!("/estimate?schema={SCHEMA}{large}");
    let request = gateway.post_as(&probe, &alone).body(fixture("hello.png"));
    let bound = Answer::of(request).await.json["bound"]["total_tokens"].as_u64().unwrap();
    let key = gateway.key_of(&tenant("acme", bound)).await;
    let request = gateway.post_as(&key, &path("/extract", large)).body(fixture("hello.png"));
    let answer = Answer::of(request).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (429, "budget_exhausted"),
        "{}",
        answer.text
    );
    let bill = gateway.upstream().bill();
    assert_eq!((bill.received, &answer.json["usage"]["total_tokens"]), (1, &bill.total().into()));
    assert_eq!(accounts(&gateway, "acme").await, (bill.total(), 0));
}

#[tokio::test]
async fn a_text_that_the_page_has_itself_costs_nothing() {
    let gateway = gateway().await;
    let file = pdf(&[letter(700), PdfPage::of_text(384, 288, &["x"])]);
    gateway.upstream().add_fault(fields(&json!({ "total": "412.50", "company": "nobody" })));
    let prefer = "&dpi=72&pdf_text=prefer&detail=lines";
    let estimate = gateway.upload(&path("/estimate", prefer), file.clone()).await;
    let answer = gateway.upload(&path("/extract", prefer), file.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let tasks: Vec<_> =
        gateway.upstream().calls().iter().filter_map(|call| call.task.clone()).collect();
    let of_text = tasks.iter().filter(|task| *task == "advanced_recognition").count();
    assert_eq!((tasks.len(), of_text), (3, 1));
    let page = &answer.json["pages"][0];
    assert_eq!((&page["source"], &page["sent"]["width"].is_u64()), (&"text_layer".into(), &true));
    assert!(page["text"].as_str().unwrap().contains("total of 412.50"), "{page}");
    assert_eq!(page["image_tokens"]["estimated"], estimate.json["pages"][0]["image_tokens"]);
    assert_eq!(estimate.json["pages"][0]["source"], "text_layer");
    let total = &answer.json["fields"]["/total"];
    assert_eq!((&total["grounded"], &total["page"]), (&"exact".into(), &1.into()));
    let [_, top, right, bottom] = sides(&total["bbox"]);
    assert!(top < bottom && bottom <= 400 && right <= 700, "{total}");
    assert_eq!(answer.json["fields"]["/company"]["grounded"], "none");
    let saved = gateway.count("tokens_saved_total", &[("reason", "text_layer")]).await;
    assert_eq!(page["image_tokens"]["estimated"], saved);
    let before = gateway.upstream().bill();
    assert_eq!(answer.json["usage"]["total_tokens"], before.total());
    gateway.upstream().clear_faults();
    let answer = gateway.upload(&path("/extract", prefer), file).await;
    let spent = gateway.upstream().bill().image - before.image;
    assert_eq!(estimate.json["bound"]["image_tokens"], spent, "{}", answer.text);
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test]
async fn the_sums_of_a_receipt_are_told_if_its_numbers_are_in_the_text() {
    let text = "Pen 2 x 1.50 3.00\nPaper 12.00\nSubtotal 15.00\nGST 0.90\nTotal 15.90";
    let gateway =
        TestGateway::with(|setup| setup.emulator.engine = EngineChoice::Scripted(text.to_owned()))
            .await;
    let receipt = |total: &str| {
        fields(&json!({
            "items": [
                { "description": "Pen", "quantity": "2", "unit_price": "1.50", "amount": "3.00" },
                { "description": "Paper", "amount": "12.00" },
            ],
            "subtotal": "15.00", "tax": "0.90", "total": total
        }))
    };
    gateway.upstream().add_fault(receipt("15.90").times(1));
    gateway.upstream().add_fault(receipt("15.00").times(1));
    gateway.upstream().add_fault(receipt("16.90"));
    let extract = "/extract?template=receipt&ground=true";
    let right = gateway.upload(extract, fixture("hello.png")).await;
    let told = |answer: &Answer| -> Vec<(String, bool)> {
        let checks = answer.json["checks"].as_array().unwrap_or_else(|| panic!("{}", answer.text));
        let rule = |check: &Value| check["rule"].as_str().unwrap().to_owned();
        checks.iter().map(|check| (rule(check), check["holds"].as_bool().unwrap())).collect()
    };
    let all = [("line_amount", true), ("items_sum", true), ("total", true)];
    assert_eq!(told(&right), all.map(|(rule, holds)| (rule.to_owned(), holds)));
    let included = gateway.upload(extract, fixture("hello.png")).await;
    let total = &included.json["checks"][2];
    assert_eq!((&total["reading"], &total["holds"]), (&"tax_included".into(), &true.into()));
    // The text does not hold this total, so nothing is said of the sums that need it.
    let invented = gateway.upload(extract, fixture("hello.png")).await;
    assert_eq!(invented.json["fields"]["/total"]["grounded"], "none");
    assert_eq!(told(&invented), [("line_amount".to_owned(), true)]);
}

#[tokio::test]
async fn ground_is_an_option_of_fields_from_the_query_a_part_and_a_member() {
    let gateway = gateway().await;
    let file = || reqwest::multipart::Part::bytes(fixture("hello.png"));
    let form = reqwest::multipart::Form::new().part("file", file()).text("ground", "true");
    let form = gateway.post("/extract?template=receipt").multipart(form);
    let data = base64_simd::STANDARD.encode_to_string(fixture("hello.png"));
    let document = json!({ "type": "base64", "data": data });
    let body = json!({ "document": document, "template": "receipt", "ground": true }).to_string();
    let member = gateway.post("/extract").header("content-type", "application/json").body(body);
    for request in [form, member] {
        let answer = Answer::of(request).await;
        assert!(answer.json["checks"].is_array(), "{}", answer.text);
    }
    for wrong in
        ["/ocr?ground=true", "/estimate?ground=true", "/extract?template=receipt&detail=lines"]
    {
        let answer = gateway.upload(wrong, fixture("hello.png")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_option"), "{wrong}");
    }
}
