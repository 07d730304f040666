//! `/extract` returns fields that validate against the caller's schema, or a clear error with its cost.

use std::num::NonZeroU64;
use std::time::Duration;

use dashscope_emulator::Fault;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use crate::harness::{Answer, TestGateway, fixture, spawn, until};
use crate::program::{Installation, Service};

const SCHEMA: &str = r#"{"type":"object","properties":{"total":{"type":"number"}}}"#;

async fn extract(gateway: &TestGateway) -> Answer {
    gateway.upload(&format!("/extract?schema={SCHEMA}"), fixture("hello.png")).await
}

#[tokio::test]
async fn what_the_document_does_not_say_is_null_and_never_made_up() {
    let gateway = TestGateway::start().await;
    let answer = extract(&gateway).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["data"], json!({ "total": null }));
    assert_eq!(answer.json["fields"]["/total"]["grounded"], "none");
    assert_eq!(gateway.upstream().calls()[0].task.as_deref(), Some("key_information_extraction"));
}

#[tokio::test]
async fn an_example_in_place_of_a_schema_is_read_as_one_and_told() {
    let gateway = TestGateway::with(|setup| {
        let text = "ACME TRADING LTD\nWidget 5.00\nTotal 5.00".to_owned();
        setup.emulator.engine = dashscope_emulator::EngineChoice::Scripted(text);
    })
    .await;
    let example = r#"{"company":"Some Ltd","total":1.5,"date":"2026-03-14"}"#;
    let answer = gateway.upload(&format!("/extract?schema={example}"), fixture("hello.png")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let data = json!({ "company": "ACME TRADING LTD", "total": 5.0, "date": null });
    assert_eq!(answer.json["data"], data);
    assert_eq!(answer.json["warnings"], json!(["schema_from_example"]));
    let estimate =
        gateway.upload(&format!("/estimate?schema={example}"), fixture("hello.png")).await;
    assert_eq!(estimate.status, 200, "{}", estimate.text);
    for unclear in [r#"{"total":{}}"#, r#"{"items":[1,"a"]}"#, r#"{"total":{"type":"number"}}"#] {
        let refused =
            gateway.upload(&format!("/extract?schema={unclear}"), fixture("hello.png")).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "schema_invalid"), "{unclear}");
        assert!(refused.json["detail"].as_str().unwrap().contains("would begin {"), "{unclear}");
    }
    assert_eq!(gateway.upstream().bill().received, 1);
}

#[tokio::test]
async fn prose_instead_of_fields_is_asked_for_once_more_and_both_calls_are_told() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::prose_for_result().times(1));
    let answer = extract(&gateway).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["usage"]["upstream_calls"], 2);
    assert_eq!(answer.json["usage"]["retries"], 0);
    assert_eq!(answer.json["usage"]["total_tokens"], gateway.upstream().bill().total());
}

#[tokio::test]
async fn prose_twice_is_502_and_says_what_it_cost() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::prose_for_result());
    let answer = extract(&gateway).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (502, "upstream_invalid_output"));
    assert_eq!(answer.json["usage"]["total_tokens"], gateway.upstream().bill().total());
    assert_eq!(gateway.upstream().bill().calls, 2);
}

#[tokio::test]
async fn a_second_call_that_the_limits_refuse_still_says_what_the_first_cost() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.tokens_per_minute = NonZeroU64::new(5_000);
    })
    .await;
    gateway.upstream().add_fault(Fault::prose_for_result());
    // The tokens of the minute come back too late for this caller.
    let request = gateway.post(&format!("/extract?schema={SCHEMA}")).header("prefer", "wait=2");
    let answer = Answer::of(request.body(fixture("hello.png"))).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (429, "rate_limited"), "{}", answer.text);
    assert_eq!(answer.json["usage"]["total_tokens"], gateway.upstream().bill().total());
}

#[tokio::test]
async fn lines_that_did_not_come_are_an_error_and_not_a_blank_page() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::prose_for_result());
    let answer = gateway.upload("/ocr?detail=lines", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (502, "upstream_invalid_output"));
    assert_eq!(answer.json["usage"]["total_tokens"], gateway.upstream().bill().total());
}

#[tokio::test]
async fn an_unknown_template_is_404_and_a_schema_and_a_template_together_are_400() {
    let gateway = TestGateway::start().await;
    let answer = gateway.upload("/extract?template=nope", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (404, "unknown_template"));
    let both = format!("/extract?template=receipt&schema={SCHEMA}");
    let answer = gateway.upload(&both, fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_option"));
    assert_eq!(gateway.upstream().bill().received, 0);
}

/// An answer of the native protocol, with the model's `text` and the provider's `kv_result`.
pub(crate) fn written(text: &str, kv_result: &str) -> Fault {
    let text = serde_json::Value::from(text);
    let body = format!(
        r#"{{"output":{{"choices":[{{"finish_reason":"stop","message":{{"role":"assistant","content":[{{"text":{text},
        "ocr_result":{{"kv_result":{kv_result}}}}}]}}}}]}},"usage":{{"input_tokens":100,"output_tokens":29}}}}"#
    );
    Fault::replay(200, "application/json", body.into_bytes())
}

/// The answer of `/extract` with the schema, for this text of the model.
async fn extracted(schema: &str, text: &str, kv_result: &str) -> Answer {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(written(text, kv_result));
    gateway.upload(&format!("/extract?schema={schema}"), fixture("hello.png")).await
}

const NUMBERS: &str = r#"{"type":"object","properties":{"no":{"type":"string"},"sum":{"type":"number"},
    "rows":{"type":"array","items":{"type":"object","properties":{"price":{"type":"string"}}}}}}"#;

#[tokio::test]
async fn a_long_number_is_given_digit_for_digit_or_not_at_all() {
    let fields =
        r#"{"no": 24952000000010910141, "sum": 24952000000010910141, "rows": [{"price": 12.50}]}"#;
    let fenced = format!("```json\n{fields}\n```");
    let rounded =
        r#"{"no":2.495200000001091e19,"sum":2.495200000001091e19,"rows":[{"price":12.5}]}"#;
    for (text, kv_result) in
        [(fields, "null"), ("", fields), (&fenced, fields), (&fenced, rounded), (&fenced, "{}")]
    {
        let answer = extracted(NUMBERS, text, kv_result).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let number = "24952000000010910141";
        let expected = json!({ "no": number, "sum": null, "rows": [{ "price": "12.50" }] });
        assert_eq!(answer.json["data"], expected, "{text} {kv_result}");
        assert_eq!(answer.json["fields"]["/no"]["raw"], number);
        assert_eq!(answer.json["fields"]["/rows/0/price"]["raw"], "12.50");
        let error = &answer.json["validation"]["errors"][0];
        assert_eq!((&error["code"], &error["raw"]), (&json!("number_too_long"), &json!(number)));
        assert_eq!(answer.json["validation"]["valid"], false);
    }
    let path = "/ocr?task=key_information_extraction";
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(written(fields, fields));
    let answer = gateway.upload(path, fixture("hello.png")).await;
    assert!(
        answer.json["text"].as_str().unwrap().contains("24952000000010910141"),
        "{}",
        answer.text
    );
    assert!(answer.json["text"].as_str().unwrap().contains("12.50"), "{}", answer.text);
}

#[tokio::test]
async fn fields_that_can_mean_one_thing_only_are_taken_at_the_first_call() {
    let object = r#"{"total": 5.5}"#;
    for text in [
        format!("{object}\n{object}"),
        format!("<think>\nIs it {{\"total\": 4}}?\n</think>\n```json\n{object}\n```"),
        serde_json::Value::from(object).to_string(),
        "{'total': 5.5, 'other': None, 'paid': True,}".to_owned(),
        r#"{"total": 5.5, "other": "\ud83d"}"#.to_owned(),
    ] {
        let gateway = TestGateway::start().await;
        gateway.upstream().add_fault(written(&text, "{}"));
        let answer = extract(&gateway).await;
        assert_eq!(answer.status, 200, "{text}: {}", answer.text);
        assert_eq!(answer.json["data"], json!({ "total": 5.5 }), "{text}");
        assert_eq!(gateway.upstream().calls().len(), 1, "{text}");
    }
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(written(r#"{"total": 5} {"total": 6}"#, "{}"));
    assert_eq!(extract(&gateway).await.code(), "upstream_invalid_output");
}

/// A schema with this number of fields. Each has a different pattern that is expensive to compile.
fn heavy_schema(fields: usize) -> String {
    let field = |index| {
        let pattern = format!("^([\\p{{L}}\\p{{N}}\\p{{M}}]{{1,5}}7)$|x{index}");
        (format!("f{index}"), json!({ "type": "string", "pattern": pattern }))
    };
    let properties: Map<String, Value> = (0..fields).map(field).collect();
    json!({ "type": "object", "properties": properties }).to_string()
}

/// A form with an image and a schema.
fn form_with(schema: String) -> reqwest::multipart::Form {
    let file = reqwest::multipart::Part::bytes(fixture("hello.png"));
    reqwest::multipart::Form::new().part("file", file).text("schema", schema)
}

#[tokio::test]
async fn patterns_that_are_too_heavy_together_are_refused_alike_by_extract_and_estimate() {
    let gateway = TestGateway::start().await;
    for path in ["/extract", "/estimate"] {
        let answer = Answer::of(gateway.post(path).multipart(form_with(heavy_schema(100)))).await;
        let refused = (answer.status.as_u16(), answer.code());
        assert_eq!(refused, (400, "schema_unsupported"), "{path}: {}", answer.text);
        let error = &answer.json["errors"][0];
        assert!(error["pointer"].as_str().unwrap().ends_with("/pattern"), "{}", answer.text);
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_schema_of_too_many_values_is_refused_with_both_numbers_however_it_comes() {
    let gateway = TestGateway::start().await;
    let schema = json!({ "type": "object", "properties": { "a": { "enum": vec![""; 20_000] } } });
    let data = base64_simd::STANDARD.encode_to_string(fixture("hello.png"));
    let document = json!({ "type": "base64", "data": data });
    for path in ["/extract", "/estimate"] {
        let form = gateway.post(path).multipart(form_with(schema.to_string()));
        let body = json!({ "document": document, "schema": schema }).to_string();
        let member = gateway.post(path).header("content-type", "application/json").body(body);
        for request in [form, member] {
            let answer = Answer::of(request).await;
            let refused = (answer.status.as_u16(), answer.code());
            assert_eq!(refused, (400, "schema_unsupported"), "{path}: {}", answer.text);
            let detail = answer.json["errors"][0]["detail"].as_str().unwrap();
            assert!(detail.contains("20005") && detail.contains("8000"), "{detail}");
        }
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_list_whose_rows_leave_out_too_many_fields_ends_with_an_error_that_says_so() {
    let gateway = TestGateway::start().await;
    let fields: Map<String, Value> =
        (0..99).map(|index| (format!("f{index}"), json!({ "type": "string" }))).collect();
    let row = json!({ "type": "object", "properties": fields });
    let rows = json!({ "type": "array", "items": row });
    let schema = json!({ "type": "object", "properties": { "rows": rows } });
    let written_rows = json!({ "rows": vec![json!({ "f0": "a" }); 1_600] }).to_string();
    gateway.upstream().add_fault(written(&written_rows, "null"));
    let form = form_with(schema.to_string());
    let answer = Answer::of(gateway.post("/extract").multipart(form)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["data"]["rows"].as_array().map(Vec::len), Some(49));
    assert_eq!(answer.json["validation"]["valid"], false);
    let error = &answer.json["validation"]["errors"][0];
    assert_eq!(
        (&error["code"], &error["pointer"]),
        (&json!("constraint_violated"), &json!("/rows"))
    );
    assert!(error["detail"].as_str().unwrap().contains("49 of its 1600"), "{error}");
    assert_eq!(gateway.count("in_flight_bytes", &[]).await, 0);
}

#[tokio::test]
async fn the_heaviest_patterns_that_are_taken_are_held_to_their_answer() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(written(r#"{"f0": "abc7", "f1": "abc8", "f2": "x2"}"#, "null"));
    let answer = Answer::of(gateway.post("/extract").multipart(form_with(heavy_schema(15)))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let data = &answer.json["data"];
    assert_eq!(
        (&data["f0"], &data["f1"], &data["f2"]),
        (&json!("abc7"), &Value::Null, &json!("x2"))
    );
    assert_eq!(gateway.count("in_flight_bytes", &[]).await, 0);
}

impl Service {
    /// A value of the metrics, by the start of its line.
    async fn figure(&self, line: &str) -> f64 {
        let text = self.http.get(format!("{}/metrics", self.metrics_address)).send().await.unwrap();
        let text = text.text().await.unwrap();
        let value = text.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {line}")).parse().unwrap()
    }
}

/// Uncounted memory of a request in bytes: its task, its buffers, its connections.
const BESIDE: f64 = 512.0 * 1024.0;

#[tokio::test]
async fn what_waits_for_the_upstream_holds_no_compiled_pattern() {
    const CALLS: u32 = 40;
    let mut installation = Installation::reading_after("x", Duration::from_mins(5)).await;
    installation.set("SERVER__DRAIN_TIMEOUT_MS", "1");
    let key = installation.key("acme").await;
    let service = installation.serve().await;
    let warm = service.post(&key, "/estimate").multipart(form_with(heavy_schema(15)));
    assert_eq!(Answer::of(warm).await.status, 200);
    let before = service.figure("process_resident_memory_bytes").await;
    let calls = (0..CALLS).map(|_| {
        let request = service.post(&key, "/extract").multipart(form_with(heavy_schema(15)));
        spawn(async move { request.send().await })
    });
    let _calls: Vec<_> = calls.collect();
    let received = async || installation.upstream().bill().received >= u64::from(CALLS);
    until("all wait for the upstream", received).await;
    let counted = service.figure("ocr_gateway_in_flight_bytes").await;
    let held = service.figure("process_resident_memory_bytes").await - before;
    let accounted = counted + f64::from(CALLS) * BESIDE;
    assert!(held <= accounted, "{held} bytes are held, {counted} are counted");
}

#[tokio::test]
async fn sixty_estimates_at_once_compile_nothing() {
    const CALLERS: u32 = 60;
    let installation = Installation::reading_after("x", Duration::ZERO).await;
    let key = installation.key("acme").await;
    let service = installation.serve().await;
    let before = service.figure("process_resident_memory_bytes").await;
    let answers = join_all((0..CALLERS).map(|_| {
        Answer::of(service.post(&key, "/estimate").multipart(form_with(heavy_schema(15))))
    }));
    for answer in answers.await {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let more = service.figure("process_resident_memory_bytes").await - before;
    assert!(more <= f64::from(CALLERS) * BESIDE, "{more} bytes more are resident");
}
