//! `/extract`: fields that validate against the caller's schema, or a clear error that says what it cost.

use std::num::NonZeroU64;

use dashscope_emulator::Fault;
use serde_json::json;

use crate::harness::{Answer, TestGateway, fixture};

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
        setup.tenant.tokens_per_minute = NonZeroU64::new(9_300);
    })
    .await;
    gateway.upstream().add_fault(Fault::prose_for_result());
    let answer = extract(&gateway).await;
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
