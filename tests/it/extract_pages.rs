//! `/extract` over the pages of a document: read side by side like those of `/ocr`, and merged in their order.

use std::num::NonZeroU64;

use dashscope_emulator::{EngineChoice, Fault};
use ocr_gateway::auth::tenant::Tenant;
use serde_json::{Value, json};

use crate::budgets::accounts;
use crate::harness::{Answer, Setup, TestGateway, spawn, until};
use crate::pages::{numbered, statuses, width_of};
use crate::pdf::{PdfPage, pdf};

/// A page of a receipt, whose numbers are those of its width.
pub(crate) const RECEIPT: &str =
    "ACME TRADING LTD\nInvoice No: INV-{width}\nWidget {width}.00\nTotal {width}.00";

/// The fields of [`RECEIPT`], at a point for each pixel.
pub(crate) const EXTRACT: &str = r#"/extract?dpi=72&schema={"type":"object","required":["total"],"properties":{
    "company":{"type":"string"},"total":{"type":"number"},"items":{"type":"array","items":{
    "type":"object","properties":{"name":{"type":"string"},"price":{"type":"number"}}}}}}"#;

/// Reads a receipt from each image.
fn reading_receipts(setup: &mut Setup) {
    setup.emulator.engine = EngineChoice::Scripted(RECEIPT.to_owned());
}

async fn gateway() -> TestGateway {
    TestGateway::with(reading_receipts).await
}

/// The data of a document of these pages.
fn data_of(pages: &[u32]) -> Value {
    let item = |page: &u32| json!({ "name": "Widget", "price": f64::from(width_of(*page)) });
    json!({
        "company": "ACME TRADING LTD",
        "total": f64::from(width_of(pages[0])),
        "items": pages.iter().map(item).collect::<Vec<_>>(),
    })
}

/// The warning of these pages, whose totals differ.
fn disagreeing(pages: &[u32]) -> Value {
    json!([{ "code": "pages_disagree", "pointer": "/total", "pages": pages }])
}

#[tokio::test]
async fn the_fields_of_all_pages_are_merged_in_the_order_of_the_pages() {
    let gateway = gateway().await;
    let answer = gateway.upload(EXTRACT, numbered(3)).await;
    assert_eq!((answer.status.as_u16(), &answer.json["status"]), (200, &"succeeded".into()));
    assert_eq!(answer.json["data"], data_of(&[1, 2, 3]), "{}", answer.text);
    assert_eq!(answer.json["warnings"], disagreeing(&[1, 2, 3]));
    for (pointer, page) in [("/total", 1), ("/items/0/price", 1), ("/items/2/name", 3)] {
        assert_eq!(answer.json["fields"][pointer]["page"], page, "{pointer}");
    }
    let pages = answer.json["pages"].as_array().unwrap();
    for (number, page) in (1..).zip(pages) {
        assert_eq!((&page["page"], &page["source"]), (&number.into(), &"rendered".into()));
        assert_eq!(page["image_tokens"]["estimated"], page["image_tokens"]["billed"]);
    }
    let bill = gateway.upstream().bill();
    assert_eq!((bill.received, pages.len()), (3, 3));
    assert_eq!(answer.json["usage"]["total_tokens"], bill.total());
    assert_eq!(answer.header("ocr-tokens-image"), bill.image.to_string());
    assert_eq!(answer.json["upstream"]["request_ids"].as_array().unwrap().len(), 3);
    assert_eq!(accounts(&gateway, "test").await, (bill.total(), 0));
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test]
async fn the_pages_that_are_asked_for_are_extracted_and_estimated_alike() {
    let gateway = gateway().await;
    let answer = gateway.upload(&format!("{EXTRACT}&pages=2,4"), numbered(4)).await;
    assert_eq!(answer.json["data"], data_of(&[2, 4]), "{}", answer.text);
    assert_eq!(answer.json["document"]["pages"], 4);
    let estimate = EXTRACT.replace("/extract", "/estimate");
    let estimate = gateway.upload(&format!("{estimate}&pages=2,4"), numbered(4)).await;
    let pages = estimate.json["pages"].as_array().unwrap();
    let estimated = pages.iter().map(|page| page["image_tokens"].as_u64().unwrap());
    assert_eq!(estimated.sum::<u64>(), gateway.upstream().bill().image);
}

#[tokio::test]
async fn a_page_that_ends_late_changes_nothing_of_the_merged_fields() {
    let gateway = gateway().await;
    let expected = gateway.upload(EXTRACT, numbered(4)).await;
    for late in [1, 2] {
        gateway.upstream().clear_faults();
        gateway.upstream().add_fault(Fault::delay(300).for_images_as_wide_as(width_of(late)));
        let answer = gateway.upload(EXTRACT, numbered(4)).await;
        for member in ["data", "fields", "validation", "warnings", "text", "pages", "status"] {
            assert_eq!(answer.json[member], expected.json[member], "{member}");
        }
    }
}

#[tokio::test]
async fn a_page_that_fails_has_its_own_problem_and_the_fields_of_the_rest_come() {
    let gateway = gateway().await;
    let refused = Fault::code("DataInspectionFailed").for_images_as_wide_as(width_of(1));
    gateway.upstream().add_fault(refused);
    let answer = gateway.upload(EXTRACT, numbered(3)).await;
    assert_eq!((answer.status.as_u16(), &answer.json["status"]), (200, &"partial".into()));
    assert_eq!(statuses(&answer.json), ["failed", "succeeded", "succeeded"]);
    assert_eq!(answer.json["data"], data_of(&[2, 3]), "{}", answer.text);
    assert_eq!(answer.json["fields"]["/total"]["page"], 2);
    assert_eq!(answer.json["warnings"], disagreeing(&[2, 3]));
    let error = &answer.json["pages"][0]["error"];
    assert_eq!((&error["code"], &error["status"]), (&"content_rejected".into(), &422.into()));
    assert!(error["instance"].is_null(), "{error}");
    assert_eq!(answer.header("ocr-pages-failed"), "1");
    assert_eq!(answer.json["usage"]["total_tokens"], gateway.upstream().bill().total());
}

#[tokio::test]
async fn a_required_field_of_a_page_that_failed_is_missing_as_any_other() {
    let gateway = TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Scripted("nothing".to_owned());
    })
    .await;
    let refused = Fault::code("DataInspectionFailed").for_images_as_wide_as(width_of(1));
    gateway.upstream().add_fault(refused);
    let answer = gateway.upload(EXTRACT, numbered(2)).await;
    assert_eq!(answer.json["status"], "partial", "{}", answer.text);
    assert_eq!(answer.json["data"]["total"], Value::Null);
    let error = &answer.json["validation"]["errors"][0];
    assert_eq!((&error["code"], &error["pointer"]), (&"required_missing".into(), &"/total".into()));
}

#[tokio::test]
async fn a_page_whose_fields_cannot_be_parsed_twice_fails_alone_and_both_calls_count() {
    let gateway = gateway().await;
    gateway.upstream().add_fault(Fault::prose_for_result().for_images_as_wide_as(width_of(2)));
    let answer = gateway.upload(EXTRACT, numbered(3)).await;
    assert_eq!(statuses(&answer.json), ["succeeded", "failed", "succeeded"], "{}", answer.text);
    assert_eq!(answer.json["pages"][1]["error"]["code"], "upstream_invalid_output");
    assert_eq!(answer.json["data"], data_of(&[1, 3]));
    let bill = gateway.upstream().bill();
    assert_eq!((bill.calls, &answer.json["usage"]["upstream_calls"]), (4, &4.into()));
    assert_eq!(answer.json["usage"]["total_tokens"], bill.total());
    assert_eq!(answer.json["upstream"]["request_ids"].as_array().unwrap().len(), 4);
    assert_eq!(accounts(&gateway, "test").await, (bill.total(), 0));
}

#[tokio::test]
async fn a_page_whose_fields_are_parsed_at_the_second_call_is_read() {
    let gateway = gateway().await;
    let once = Fault::prose_for_result().for_images_as_wide_as(width_of(2)).times(1);
    gateway.upstream().add_fault(once);
    let answer = gateway.upload(EXTRACT, numbered(2)).await;
    assert_eq!(answer.json["status"], "succeeded", "{}", answer.text);
    assert_eq!(answer.json["data"], data_of(&[1, 2]));
    assert_eq!(answer.json["usage"]["upstream_calls"], 3);
    let bill = gateway.upstream().bill();
    assert_eq!(answer.json["usage"]["total_tokens"], bill.total());
    let tokens = |page: usize, member: &str| {
        answer.json["pages"][page]["image_tokens"][member].as_u64().unwrap()
    };
    assert_eq!(tokens(1, "billed"), 2 * tokens(1, "estimated"));
    assert_eq!(tokens(0, "billed") + tokens(1, "billed"), bill.image);
}

#[tokio::test]
async fn a_document_none_of_whose_pages_is_extracted_is_answered_by_the_problem_of_the_first() {
    let gateway = gateway().await;
    gateway.upstream().add_fault(Fault::code("DataInspectionFailed"));
    let answer = gateway.upload(EXTRACT, numbered(3)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (422, "content_rejected"));
}

#[tokio::test]
async fn a_budget_that_ends_in_the_middle_gives_the_fields_of_the_pages_before() {
    let gateway = gateway().await;
    let tenant = |name: &str, daily_tokens| Tenant {
        daily_tokens: NonZeroU64::new(daily_tokens),
        max_tokens: NonZeroU64::new(300),
        // One page after the other.
        concurrency: 1.try_into().ok(),
        ..Tenant::new(name.parse().unwrap())
    };
    let file = |pages| pdf(&vec![PdfPage::of_text(400, 300, &["x"]); pages]);
    let probe = gateway.key_of(&tenant("probe", u64::MAX >> 1)).await;
    let estimate = EXTRACT.replace("/extract", "/estimate");
    let estimate = Answer::of(gateway.post_as(&probe, &estimate).body(file(1))).await;
    // Of one call.
    let bound = estimate.json["bound"]["total_tokens"].as_u64().unwrap() / 2;
    let one = Answer::of(gateway.post_as(&probe, EXTRACT).body(file(1))).await;
    let cost = one.json["usage"]["total_tokens"].as_u64().unwrap();
    let before = gateway.upstream().bill();
    let key = gateway.key_of(&tenant("acme", bound + 2 * cost)).await;
    let answer = Answer::of(gateway.post_as(&key, EXTRACT).body(file(6))).await;
    assert_eq!(answer.json["status"], "partial", "{}", answer.text);
    let done = statuses(&answer.json).iter().filter(|status| **status == "succeeded").count();
    assert_eq!(done, 3);
    assert_eq!(answer.json["data"]["items"].as_array().map(Vec::len), Some(3));
    let pages = answer.json["pages"].as_array().unwrap();
    for page in pages.iter().filter(|page| page["status"] == "failed") {
        assert_eq!(page["error"]["code"], "budget_exhausted");
    }
    let spent = gateway.upstream().bill().total() - before.total();
    assert_eq!((spent, &answer.json["usage"]["total_tokens"]), (3 * cost, &spent.into()));
    assert_eq!(accounts(&gateway, "acme").await, (spent, 0));
}

#[tokio::test]
async fn a_page_that_hangs_does_not_cost_the_fields_of_the_others() {
    let gateway = gateway().await;
    gateway.upstream().add_fault(Fault::hang().for_images_as_wide_as(width_of(1)));
    let request = gateway.post(EXTRACT).header("prefer", "wait=4").body(numbered(4));
    let answer = Answer::of(request).await;
    assert_eq!((answer.status.as_u16(), &answer.json["status"]), (200, &"partial".into()));
    assert_eq!(answer.json["data"], data_of(&[2, 3, 4]), "{}", answer.text);
    assert_eq!(answer.json["pages"][0]["error"]["status"], 504);
}

#[tokio::test]
async fn the_pages_that_were_not_sent_are_not_sent_for_a_caller_that_left_an_extraction() {
    let gateway = TestGateway::with(|setup| {
        reading_receipts(setup);
        setup.settings.documents.pages_at_once = 2;
    })
    .await;
    gateway.upstream().add_fault(Fault::delay(500));
    let request = gateway.post(EXTRACT).body(numbered(8));
    let asking = spawn(async move { Answer::of(request).await.status });
    gateway.until_upstream_has(2).await;
    asking.abort();
    until("all is given back", async || {
        gateway.count("in_flight_requests", &[]).await == 0
            && accounts(&gateway, "test").await.1 == 0
    })
    .await;
    let bill = gateway.upstream().bill();
    assert_eq!((bill.received, accounts(&gateway, "test").await), (2, (bill.total(), 0)));
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}
