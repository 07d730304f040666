//! `ground=true` on `/extract`: each page is read by a second call, values are looked for in its text, and sums are
//! checked.

use std::num::NonZeroU64;

use dashscope_emulator::{EngineChoice, Fault};
use ocr_gateway::auth::tenant::Tenant;
use serde_json::{Value, json};

use crate::budgets::accounts;
use crate::extract::written;
use crate::extract_pages::{EXTRACT, RECEIPT};
use crate::harness::{Answer, TestGateway, fixture, until};
use crate::pages::{letter, numbered, statuses, width_of};
use crate::pdf::{PdfPage, pdf};
use crate::shapes::{check, documented};

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
    // Fields may be asked for twice, the text may not.
    for member in ["image_tokens", "output_tokens"] {
        let [both, one] = [both, one].map(|bound| bound[member].as_u64().unwrap());
        assert_eq!(2 * both, 3 * one, "{member}");
    }
    assert!(both["text_tokens"].as_u64() > one["text_tokens"].as_u64());
    let answer = gateway.upload(&path("/extract", "&dpi=72"), numbered(2)).await;
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

/// The code of the error for which page `page` has no text.
fn unread(answer: &Answer, page: usize) -> Option<&str> {
    let page = &answer.json["pages"][page];
    let warnings = page["warnings"].as_array().unwrap_or_else(|| panic!("{}", answer.text));
    let warning = warnings.iter().find(|warning| warning["code"] == "text_not_read")?;
    assert_eq!((&page["text"], &page["lines"]), (&"".into(), &Value::Null), "{page}");
    warning["error"]["code"].as_str()
}

#[tokio::test]
async fn a_page_whose_text_fails_has_its_fields_and_says_that_they_were_not_looked_for() {
    let gateway = gateway().await;
    let refused = Fault::code("DataInspectionFailed")
        .for_bodies_with("advanced_recognition")
        .for_images_as_wide_as(width_of(1));
    gateway.upstream().add_fault(refused);
    let answer = gateway.upload(&path("/extract", "&dpi=72&detail=lines"), numbered(2)).await;
    check(&documented("ExtractAnswer"), &answer.json);
    assert_eq!(statuses(&answer.json), ["succeeded", "succeeded"], "{}", answer.text);
    assert_eq!([0, 1].map(|page| unread(&answer, page)), [Some("content_rejected"), None]);
    assert_eq!(answer.json["data"]["total"], f64::from(width_of(1)));
    let total = &answer.json["fields"]["/total"];
    assert_eq!((&total["page"], &total["grounded"]), (&1.into(), &Value::Null));
    assert_eq!((total.get("bbox"), total.get("polygon")), (Some(&Value::Null), Some(&Value::Null)));
    assert_eq!(answer.json["checks"], json!([]));
    let tokens = &answer.json["pages"][0]["image_tokens"];
    assert_eq!(tokens["estimated"].as_u64(), tokens["billed"].as_u64().map(|billed| 2 * billed));
    let bill = gateway.upstream().bill();
    assert_eq!((bill.calls, &answer.json["usage"]["total_tokens"]), (3, &bill.total().into()));
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test]
async fn lines_that_did_not_come_cost_no_fields() {
    let gateway = gateway().await;
    gateway.upstream().add_fault(Fault::prose_for_result().for_bodies_with("advanced_recognition"));
    let answer = gateway.upload(&path("/extract", "&detail=lines"), fixture("hello.png")).await;
    assert_eq!(unread(&answer, 0), Some("upstream_invalid_output"), "{}", answer.text);
    let bill = gateway.upstream().bill();
    assert_eq!((bill.calls, &answer.json["usage"]["total_tokens"]), (2, &bill.total().into()));
    assert_eq!(answer.json["pages"][0]["image_tokens"]["billed"], bill.image);
    assert_eq!(answer.json["data"]["company"], "ACME TRADING LTD");
}

#[tokio::test]
async fn a_text_that_does_not_come_before_the_deadline_costs_no_fields() {
    let gateway = gateway().await;
    gateway.upstream().add_fault(Fault::hang().for_bodies_with("advanced_recognition"));
    let request = gateway.post(&path("/extract", "&detail=lines")).header("prefer", "wait=3");
    let answer = Answer::of(request.body(fixture("hello.png"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(unread(&answer, 0).is_some(), "{}", answer.text);
    assert_eq!(answer.json["pages"][0]["warnings"][0]["error"]["status"], 504);
    assert_eq!(answer.json["data"]["company"], "ACME TRADING LTD");
    let unverified = answer.json["usage"]["unverified_tokens"].as_u64().unwrap();
    let spent = gateway.upstream().bill().total() + unverified;
    assert!(unverified > 0);
    until("the ledger", async || accounts(&gateway, "test").await == (spent, 0)).await;
}

/// What the two calls for a page cost.
struct Costs {
    /// The most that the call for its fields can cost.
    fields: u64,
    /// The same of its text.
    text: u64,
    /// The bill of the call for its fields.
    fields_billed: u64,
    /// The bill of both.
    both_billed: u64,
}

impl Costs {
    /// Those of `file`, for a tenant like [`limited`].
    async fn of(gateway: &TestGateway, extract: &str, file: Vec<u8>) -> Self {
        let key = gateway.key_of(&limited("probe")).await;
        let told = async |path: &str, [member, tokens]: [&str; 2]| {
            let answer = Answer::of(gateway.post_as(&key, path).body(file.clone())).await;
            answer.json[member][tokens].as_u64().unwrap_or_else(|| panic!("{}", answer.text))
        };
        let [bound, usage] = [["bound", "total_tokens"], ["usage", "total_tokens"]];
        let estimate = extract.replace("/extract", "/estimate");
        let ground = |path: &str| format!("{path}&ground=true");
        // The bound has a second call for the fields.
        let fields = told(&estimate, bound).await / 2;
        Self {
            fields,
            text: told(&ground(&estimate), bound).await - 2 * fields,
            fields_billed: told(extract, usage).await,
            both_billed: told(&ground(extract), usage).await,
        }
    }
}

/// A tenant whose answers are short, so that bills are not far from their bounds.
fn limited(name: &str) -> Tenant {
    Tenant { max_tokens: NonZeroU64::new(300), ..Tenant::new(name.parse().unwrap()) }
}

/// The image costs more than what the prompt of the fields is longer than that of the text.
fn large() -> String {
    format!("/extract?schema={SCHEMA}&min_pixels=1000000")
}

#[tokio::test]
async fn a_text_waits_for_tokens_of_the_minute_which_the_fields_of_its_page_have_used() {
    let gateway = gateway().await;
    let costs = Costs::of(&gateway, &large(), fixture("hello.png")).await;
    let before = gateway.upstream().bill();
    // A thirtieth of the tokens is missing, which come in two seconds.
    let tokens = (costs.fields_billed + costs.text) * 30 / 31;
    let tenant = Tenant { tokens_per_minute: NonZeroU64::new(tokens), ..limited("acme") };
    let key = gateway.key_of(&tenant).await;
    let request = gateway.post_as(&key, &format!("{}&ground=true", large()));
    let answer = Answer::of(request.body(fixture("hello.png"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["fields"]["/company"]["grounded"], "exact");
    let spent = gateway.upstream().bill().total() - before.total();
    assert_eq!((&answer.json["usage"]["total_tokens"], spent), (&spent.into(), costs.both_billed));
    assert_eq!(accounts(&gateway, "acme").await, (spent, 0));
    assert_eq!(gateway.count("refused_total", &[("tenant", "acme")]).await, 0);
}

#[tokio::test]
async fn a_text_that_finds_no_tokens_of_the_minute_in_time_costs_no_fields() {
    let gateway = gateway().await;
    let costs = Costs::of(&gateway, &large(), fixture("hello.png")).await;
    let before = gateway.upstream().bill();
    let tokens = (costs.fields_billed + costs.text) * 2 / 3;
    let tenant = Tenant { tokens_per_minute: NonZeroU64::new(tokens), ..limited("acme") };
    let key = gateway.key_of(&tenant).await;
    let request = gateway.post_as(&key, &format!("{}&ground=true", large()));
    let request = request.header("prefer", "wait=5").body(fixture("hello.png"));
    let answer = Answer::of(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(unread(&answer, 0), Some("rate_limited"));
    assert_eq!(answer.json["data"]["company"], "ACME TRADING LTD");
    let spent = gateway.upstream().bill().total() - before.total();
    assert_eq!(
        (&answer.json["usage"]["total_tokens"], spent),
        (&spent.into(), costs.fields_billed)
    );
    assert_eq!(accounts(&gateway, "acme").await, (spent, 0));
    let refused = [("tenant", "acme"), ("reason", "tpm")];
    assert_eq!(gateway.count("refused_total", &refused).await, 1);
}

#[tokio::test]
async fn a_budget_that_ends_between_the_two_calls_is_kept_and_the_fields_are_answered() {
    let gateway = gateway().await;
    let costs = Costs::of(&gateway, &large(), fixture("hello.png")).await;
    let before = gateway.upstream().bill();
    let tenant = Tenant { daily_tokens: NonZeroU64::new(costs.fields), ..limited("acme") };
    let key = gateway.key_of(&tenant).await;
    let request = gateway.post_as(&key, &format!("{}&ground=true", large()));
    let answer = Answer::of(request.body(fixture("hello.png"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    check(&documented("ExtractAnswer"), &answer.json);
    assert_eq!(unread(&answer, 0), Some("budget_exhausted"));
    let error = &answer.json["pages"][0]["warnings"][0]["error"];
    assert_eq!(error["limit"]["name"], "daily_tokens", "{error}");
    assert_eq!(answer.json["data"]["company"], "ACME TRADING LTD");
    assert_eq!(answer.json["fields"]["/company"]["grounded"], Value::Null);
    let spent = gateway.upstream().bill().total() - before.total();
    assert_eq!(
        (&answer.json["usage"]["total_tokens"], spent),
        (&spent.into(), costs.fields_billed)
    );
    assert_eq!(accounts(&gateway, "acme").await, (spent, 0));
    let refused = [("tenant", "acme"), ("reason", "budget")];
    assert_eq!(gateway.count("refused_total", &refused).await, 1);
}

#[tokio::test]
async fn all_fields_that_a_budget_paid_for_are_answered_of_a_document_that_it_does_not_cover() {
    let gateway = TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Scripted(RECEIPT.to_owned());
    })
    .await;
    let file = |pages| pdf(&vec![PdfPage::of_text(400, 300, &["x"]); pages]);
    let extract = format!("{EXTRACT}&min_pixels=1200000");
    let costs = Costs::of(&gateway, &extract, file(1)).await;
    assert!(costs.fields - costs.fields_billed < costs.text);
    // One page after the other, and all at once.
    for (name, concurrency) in [("one", NonZeroU64::new(1)), ("all", None)] {
        let before = gateway.upstream().bill().total();
        let sent = gateway.upstream().calls().len();
        // After two pages there is room for the fields of a third, and not for its text.
        let daily_tokens = NonZeroU64::new(2 * costs.both_billed + costs.fields);
        let key = gateway.key_of(&Tenant { daily_tokens, concurrency, ..limited(name) }).await;
        let request = gateway.post_as(&key, &format!("{extract}&ground=true")).body(file(6));
        let answer = Answer::of(request).await;
        assert_eq!(answer.json["status"], "partial", "{}", answer.text);
        let calls = gateway.upstream().calls();
        let of_fields = |task: &str| task == "key_information_extraction";
        let fields =
            calls[sent..].iter().filter(|call| call.task.as_deref().is_some_and(of_fields));
        let (fields, calls) = (fields.count(), calls.len() - sent);
        let told = statuses(&answer.json);
        let done: Vec<_> = (0..6).filter(|page| told[*page] == "succeeded").collect();
        assert_eq!(
            (done.len(), answer.json["data"]["items"].as_array().unwrap().len()),
            (fields, fields)
        );
        let unread: Vec<_> = done.iter().filter_map(|page| unread(&answer, *page)).collect();
        assert_eq!(unread, vec!["budget_exhausted"; 2 * fields - calls], "{name}");
        assert!(!unread.is_empty());
        if concurrency.is_some() {
            assert_eq!((fields, calls), (3, 5));
        }
        let billed = gateway.upstream().bill().total() - before;
        assert_eq!(answer.json["usage"]["total_tokens"], billed);
        assert_eq!(accounts(&gateway, name).await, (billed, 0));
    }
}

#[tokio::test]
async fn a_page_counts_the_image_of_each_call_that_read_it() {
    let gateway = gateway().await;
    let lines = "&detail=lines";
    let estimate = gateway.upload(&path("/estimate", lines), fixture("hello.png")).await;
    let once = estimate.json["pages"][0]["image_tokens"].as_u64().unwrap() / 2;
    gateway.upstream().add_fault(Fault::prose_for_result().times(1));
    let answer = gateway.upload(&path("/extract", lines), fixture("hello.png")).await;
    assert_eq!(answer.json["usage"]["upstream_calls"], 3, "{}", answer.text);
    let tokens = &answer.json["pages"][0]["image_tokens"];
    assert_eq!(tokens, &json!({ "estimated": 2 * once, "billed": 3 * once }));
    assert_eq!(tokens["billed"], answer.json["usage"]["image_tokens"]);
    assert_eq!(tokens["billed"], gateway.upstream().bill().image);
    gateway.upstream().add_fault(Fault::no_usage().for_bodies_with("advanced_recognition"));
    let answer = gateway.upload(&path("/extract", lines), fixture("hello.png")).await;
    assert_eq!(answer.json["pages"][0]["image_tokens"]["billed"], Value::Null, "{}", answer.text);
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
    let pages = estimate.json["pages"].as_array().unwrap();
    let estimated = pages.iter().map(|page| page["image_tokens"].as_u64().unwrap());
    assert_eq!(estimated.sum::<u64>(), spent, "{}", answer.text);
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
