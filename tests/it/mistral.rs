//! `POST /v1/ocr`: the shapes of Mistral's OCR API. `dropin/sdk.rs` runs its SDKs.

use std::num::NonZeroU64;

use dashscope_emulator::{EngineChoice, Fault};
use ocr_gateway::auth::tenant::Tenant;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::budgets::accounts;
use crate::harness::{Answer, SCRIPTED_TEXT, TestGateway, fixture, until};
use crate::pages::{numbered, tiff};
use crate::shapes::{check, documented};

/// The path.
pub(crate) const OCR: &str = "/v1/ocr";

/// A model of the catalog.
const MODEL: &str = "qwen-vl-ocr-2025-11-20";

/// Widths of the pages of [`three_pages`]. The model reads pictures of these sizes as they are.
const WIDTHS: [u32; 3] = [416, 448, 480];

/// A request for all pages of a file.
pub(crate) fn request(file: &[u8]) -> Value {
    let data = base64_simd::STANDARD.encode_to_string(file);
    let url = format!("data:application/octet-stream;base64,{data}");
    json!({
        "model": "mistral-ocr-latest",
        "document": { "type": "document_url", "document_url": url },
    })
}

/// The same with one more member.
fn with(mut request: Value, member: &str, value: impl Into<Value>) -> Value {
    request[member] = value.into();
    request
}

/// A TIFF of three pages.
fn three_pages() -> Vec<u8> {
    tiff(&WIDTHS.map(|width| (width, 288)))
}

fn post(gateway: &TestGateway, key: &str, body: &Value) -> RequestBuilder {
    gateway.post_as(key, OCR).header("content-type", "application/json").body(body.to_string())
}

async fn ask(gateway: &TestGateway, body: &Value) -> Answer {
    Answer::of(post(gateway, &gateway.key, body)).await
}

async fn reading(text: &str) -> TestGateway {
    let text = text.to_owned();
    TestGateway::with(|setup| setup.emulator.engine = EngineChoice::Scripted(text)).await
}

#[tokio::test]
async fn a_document_is_answered_in_mistrals_shape_with_its_exact_cost() {
    let gateway = reading("# page {width}").await;
    let file = three_pages();
    let asked = request(&file);
    check(&documented("MistralRequest"), &asked);
    let answer = ask(&gateway, &asked).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
    check(&documented("MistralAnswer"), &answer.json);
    for (index, page) in answer.json["pages"].as_array().unwrap().iter().enumerate() {
        let width = WIDTHS[index];
        assert_eq!(
            (&page["index"], &page["markdown"]),
            (&index.into(), &format!("# page {width}").into())
        );
        assert_eq!(page["dimensions"], json!({ "dpi": 72, "height": 288, "width": width }));
    }
    let usage_info = json!({ "pages_processed": 3, "doc_size_bytes": file.len() });
    assert_eq!((&answer.json["usage_info"], &answer.json["model"]), (&usage_info, &MODEL.into()));
    let bill = gateway.upstream().bill();
    assert_eq!(bill.received, 3);
    assert_eq!(answer.json["usage"]["total_tokens"], bill.total());
    assert_eq!(accounts(&gateway, "test").await, (bill.total(), 0));
    let image: u64 = answer.header("ocr-tokens-image").parse().unwrap();
    assert_eq!(answer.json["usage"]["image_tokens"], image);
    // The prompt for Markdown was sent.
    assert!(gateway.upstream().calls().iter().all(|call| call.prompt && call.task.is_none()));
    let counted = [("route", OCR), ("status", "200"), ("tenant", "test")];
    assert_eq!(gateway.count("requests_total", &counted).await, 1);
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test]
async fn pages_of_a_pdf_have_the_resolution_at_which_they_were_drawn() {
    let gateway = TestGateway::start().await;
    let answer = ask(&gateway, &with(request(&numbered(2)), "pages", "1")).await;
    let page = &answer.json["pages"][0];
    let side = |name: &str| page["dimensions"][name].as_f64().unwrap();
    // The page has 416 by 288 points.
    assert!((side("dpi") - side("width") * 72.0 / 416.0).abs() <= 0.5, "{page}");
    assert!((side("dpi") - side("height") * 72.0 / 288.0).abs() <= 1.0, "{page}");
    assert_eq!((&page["index"], &page["markdown"]), (&1.into(), &SCRIPTED_TEXT.into()));
}

#[tokio::test]
async fn a_large_body_is_decoded_too() {
    let gateway = TestGateway::start().await;
    let file = crate::harness::jpeg_of(3_000_000);
    let answer = ask(&gateway, &request(&file)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["usage_info"]["doc_size_bytes"], 3_000_000);
    assert_eq!(gateway.upstream().bill().received, 1);
}

#[tokio::test]
async fn headers_and_footers_that_repeat_come_apart_where_that_is_asked_for() {
    let gateway = reading("ACME Ltd\n\npage {width}\n\nConfidential").await;
    let asked = request(&three_pages());
    let told =
        |page: &Value| [&page["header"], &page["markdown"], &page["footer"]].map(Value::clone);
    let plain = ask(&gateway, &asked).await;
    let whole = json!("ACME Ltd\n\npage 416\n\nConfidential");
    assert_eq!(told(&plain.json["pages"][0]), [Value::Null, whole, Value::Null]);
    assert_eq!(plain.header("ocr-warnings"), "repeated_footer, repeated_header");
    let both = with(with(asked.clone(), "extract_header", true), "extract_footer", true);
    let both = ask(&gateway, &both).await;
    check(&documented("MistralAnswer"), &both.json);
    let apart = [json!("ACME Ltd"), json!("page 448"), json!("Confidential")];
    assert_eq!(told(&both.json["pages"][1]), apart);
    let header = ask(&gateway, &with(asked, "extract_header", true)).await;
    let apart = [json!("ACME Ltd"), json!("page 416\n\nConfidential"), Value::Null];
    assert_eq!(told(&header.json["pages"][0]), apart);
}

/// A page of a receipt, whose numbers are those of its width.
const RECEIPT: &str = "ACME TRADING LTD\nWidget {width}.00\nTotal {width}.00";

/// A `document_annotation_format` of some fields of [`RECEIPT`].
fn annotation() -> Value {
    json!({ "type": "json_schema", "json_schema": { "name": "receipt", "strict": true, "schema": {
        "type": "object",
        "required": ["total", "cashier"],
        "properties": {
            "company": { "type": "string" },
            "total": { "type": "number" },
            "cashier": { "type": "string" },
        },
    } } })
}

#[tokio::test]
async fn fields_of_the_document_come_as_json_beside_the_markdown_of_its_pages() {
    let gateway = reading(RECEIPT).await;
    let asked = with(request(&three_pages()), "document_annotation_format", annotation());
    check(&documented("MistralRequest"), &asked);
    let answer = ask(&gateway, &asked).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    check(&documented("MistralAnswer"), &answer.json);
    let fields: Value =
        serde_json::from_str(answer.json["document_annotation"].as_str().unwrap()).unwrap();
    let expected = json!({ "company": "ACME TRADING LTD", "total": 416.0, "cashier": null });
    assert_eq!(fields, expected);
    assert_eq!(answer.json["validation"]["errors"][0]["pointer"], "/cashier");
    assert!(answer.header("ocr-warnings").contains("pages_disagree"));
    for (page, width) in answer.json["pages"].as_array().unwrap().iter().zip(WIDTHS) {
        let text = RECEIPT.replace("{width}", &width.to_string());
        assert_eq!(page["markdown"], text);
    }
    // Each page is read twice: for its fields and for its text.
    let bill = gateway.upstream().bill();
    assert_eq!(bill.received, 6);
    assert_eq!(answer.json["usage"]["total_tokens"], bill.total());
    assert_eq!(accounts(&gateway, "test").await, (bill.total(), 0));
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test]
async fn an_annotation_without_a_usable_schema_costs_nothing() {
    let gateway = TestGateway::start().await;
    let place = "document_annotation_format.json_schema.schema.properties.total.type";
    let mut wrong = annotation();
    wrong["json_schema"]["schema"]["properties"]["total"]["type"] = "text".into();
    let asked = with(request(&three_pages()), "document_annotation_format", wrong);
    let answer = ask(&gateway, &asked).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (400, &"schema_invalid".into()));
    assert_eq!(answer.json["param"], place, "{}", answer.text);
    let asked = with(request(&three_pages()), "document_annotation_prompt", "Be brief.");
    let answer = ask(&gateway, &asked).await;
    assert_eq!(answer.json["param"], "document_annotation_prompt");
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_page_whose_fields_fail_fails_the_request() {
    let gateway = reading(RECEIPT).await;
    let refused = Fault::code("DataInspectionFailed").for_images_as_wide_as(WIDTHS[2]);
    gateway.upstream().add_fault(refused);
    let asked = with(request(&three_pages()), "document_annotation_format", annotation());
    let answer = ask(&gateway, &asked).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (422, &"content_rejected".into()));
    assert!(
        answer.json["message"].as_str().unwrap().starts_with("Page 2 (from 0)"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_page_whose_markdown_fails_fails_the_request_though_its_fields_were_read() {
    let gateway = reading(RECEIPT).await;
    gateway.upstream().add_fault(Fault::code("DataInspectionFailed").for_bodies_with("Transcribe"));
    let asked = with(request(&fixture("hello.png")), "document_annotation_format", annotation());
    let answer = ask(&gateway, &asked).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (422, &"content_rejected".into()));
    let bill = gateway.upstream().bill();
    assert_eq!((bill.received, &answer.json["usage"]["total_tokens"]), (2, &bill.total().into()));
    assert!(bill.total() > 0);
}

#[tokio::test]
async fn a_name_of_the_table_stands_for_its_model_and_the_tenants_models_apply() {
    let gateway = TestGateway::with(|setup| {
        let models = &mut setup.settings.mistral.models;
        models.insert("mistral-ocr-old".to_owned(), "qwen-vl-ocr".to_owned());
    })
    .await;
    let asked = request(&fixture("hello.png"));
    for (model, read_by) in [
        (json!("mistral-ocr-latest"), MODEL),
        (json!("mistral-ocr-old"), "qwen-vl-ocr"),
        (json!("qwen-vl-ocr-latest"), "qwen-vl-ocr-latest"),
        (Value::Null, MODEL),
    ] {
        let answer = ask(&gateway, &with(asked.clone(), "model", model.clone())).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json["model"]),
            (200, &read_by.into()),
            "{model}"
        );
    }
    let unknown = ask(&gateway, &with(asked.clone(), "model", "mistral-large")).await;
    assert_eq!((unknown.status.as_u16(), &unknown.json["param"]), (404, &"model".into()));
    assert_eq!(unknown.json["gateway_code"], "model_not_found");
    for name in ["mistral-ocr-latest", "mistral-ocr-old", MODEL] {
        assert!(unknown.json["message"].as_str().unwrap().contains(name), "{}", unknown.text);
    }
    let tenant = Tenant { models: vec![MODEL.to_owned()], ..Tenant::new("acme".parse().unwrap()) };
    let key = gateway.key_of(&tenant).await;
    let forbidden = with(asked, "model", "mistral-ocr-old");
    let forbidden = Answer::of(post(&gateway, &key, &forbidden)).await;
    assert_eq!((forbidden.status.as_u16(), &forbidden.json["code"]), (403, &"forbidden".into()));
}

#[tokio::test]
async fn a_page_that_fails_fails_the_request_and_stops_the_pages_after_it() {
    let gateway = TestGateway::with(|setup| setup.settings.documents.pages_at_once = 1).await;
    let refused = Fault::code("DataInspectionFailed").for_images_as_wide_as(WIDTHS[1]);
    gateway.upstream().add_fault(refused);
    let answer = ask(&gateway, &request(&three_pages())).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (422, &"content_rejected".into()));
    check(&documented("MistralError"), &answer.json);
    let message = answer.json["message"].as_str().unwrap();
    assert!(message.starts_with("Page 1 (from 0) was not read"), "{message}");
    assert!(answer.json["detail"][0]["msg"].is_string());
    let bill = gateway.upstream().bill();
    assert_eq!(bill.received, 2);
    // The first page was read and paid.
    assert!(bill.total() > 0);
    assert_eq!(answer.json["usage"]["total_tokens"], bill.total());
    let output: u64 = answer.header("ocr-tokens-output").parse().unwrap();
    assert!(output > 0);
    assert_eq!(answer.header("x-should-retry"), "false");
    // Whether the refused page was billed is not known, so it counts at its bound.
    let unverified = answer.json["usage"]["unverified_tokens"].as_u64().unwrap();
    assert_eq!(accounts(&gateway, "test").await, (bill.total() + unverified, 0));
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test]
async fn a_budget_that_ends_in_a_document_is_used_and_not_exceeded() {
    let gateway = TestGateway::with(|setup| setup.settings.documents.pages_at_once = 1).await;
    let tenant = |name: &str, daily_tokens| Tenant {
        daily_tokens: NonZeroU64::new(daily_tokens),
        max_tokens: NonZeroU64::new(300),
        ..Tenant::new(name.parse().unwrap())
    };
    let one = request(&fixture("hello.png"));
    let probe = gateway.key_of(&tenant("probe", u64::MAX >> 1)).await;
    let estimate = gateway.post_as(&probe, "/estimate?format=markdown").body(three_pages());
    let bound = Answer::of(estimate).await.json["bound"]["total_tokens"].as_u64().unwrap();
    let key = gateway.key_of(&tenant("acme", bound / 2)).await;
    assert_eq!(Answer::of(post(&gateway, &probe, &one)).await.status, 200);
    let before = gateway.upstream().bill().total();
    let answer = Answer::of(post(&gateway, &key, &request(&three_pages()))).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (429, &"budget_exhausted".into()));
    assert!(!answer.header("retry-after").is_empty());
    let spent = gateway.upstream().bill().total() - before;
    assert!(spent > 0 && spent <= bound / 2);
    assert_eq!(answer.json["usage"]["total_tokens"], spent);
    assert_eq!(accounts(&gateway, "acme").await, (spent, 0));
}

#[tokio::test]
async fn what_is_refused_costs_nothing_and_is_told_in_mistrals_shape() {
    let gateway = TestGateway::start().await;
    let asked = request(&three_pages());
    let url = json!({ "type": "document_url", "document_url": "https://example.com/a.pdf" });
    for (body, status, code, param) in [
        (with(asked.clone(), "document", url), 400, "invalid_option", "document.document_url"),
        (with(asked.clone(), "pages", json!(["x"])), 400, "invalid_pages", "pages"),
        (with(asked.clone(), "pages", json!([3])), 422, "page_not_found", "pages"),
        (with(asked.clone(), "table_format", "html"), 400, "invalid_option", "table_format"),
        (with(asked.clone(), "max_pixels", 5), 400, "unknown_option", "max_pixels"),
    ] {
        let answer = ask(&gateway, &body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        check(&documented("MistralError"), &answer.json);
        assert_eq!(
            (&answer.json["gateway_code"], &answer.json["param"]),
            (&code.into(), &param.into())
        );
        assert_eq!(answer.json["detail"].is_array(), status == 422);
    }
    let missing = ask(&gateway, &with(asked, "pages", json!([3]))).await;
    let message = missing.json["message"].as_str().unwrap();
    assert!(
        message.contains("Page 3 ") && message.contains("3 pages, which count from 0"),
        "{message}"
    );
    for (body, code) in [("{", "invalid_json"), ("{}", "missing_file"), ("", "invalid_json")] {
        let answer = Answer::of(gateway.post(OCR).body(body)).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (400, &code.into()));
    }
    let no_base64 = json!({ "document": { "document_url": "data:application/pdf;base64,a_b" } });
    let answer = ask(&gateway, &no_base64).await;
    assert_eq!(
        (&answer.json["code"], &answer.json["param"]),
        (&"invalid_base64".into(), &"document.document_url".into())
    );
    let answer = ask(&gateway, &request(b"no document")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json["code"]),
        (415, &"unsupported_media_type".into())
    );
    let in_query = gateway.post(&format!("{OCR}?max_pixels=100")).body(request(b"x").to_string());
    let answer = Answer::of(in_query).await;
    assert_eq!(
        (&answer.json["gateway_code"], &answer.json["param"]),
        (&"unknown_option".into(), &"max_pixels".into())
    );
    let get = Answer::of(gateway.get(OCR)).await;
    assert_eq!((get.status.as_u16(), &get.json["code"]), (405, &"method_not_allowed".into()));
    let text = gateway.post(OCR).header("accept", "text/plain").body("{}");
    assert_eq!(Answer::of(text).await.status, 406);
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let gateway = TestGateway::with_limit(1000).await;
    let answer = ask(&gateway, &request(&[7; 2000])).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (413, &"body_too_large".into()));
}

#[tokio::test]
async fn a_failure_of_the_upstream_says_whether_a_retry_helps() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::code("Arrearage"));
    let answer = ask(&gateway, &request(&fixture("hello.png"))).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (503, &"upstream_account".into()));
    assert_eq!(answer.json["type"], "server_error");
    assert!(!answer.header("retry-after").is_empty());
}
