//! Answers about images and documents have the shape that `openapi.yaml` documents.

use dashscope_emulator::{EngineChoice, Fault};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::harness::{Answer, TestGateway, fixture};
use crate::openapi::contract;

/// Checks values against one of the schemas of the contract.
pub(crate) fn documented(schema: &str) -> Validator {
    let schema = json!({
        "$ref": format!("#/components/schemas/{schema}"),
        "components": contract()["components"],
    });
    jsonschema::validator_for(&schema).unwrap()
}

pub(crate) fn check(validator: &Validator, value: &Value) {
    let faults: Vec<_> = validator.iter_errors(value).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?} in {value}");
}

/// The widths of the pages of [`document`].
const WIDTHS: [u32; 3] = [400, 410, 420];

/// A TIFF of three pages.
fn document() -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut file).unwrap();
    for width in WIDTHS {
        let pixels = vec![200; usize::try_from(width * 300).unwrap()];
        encoder.write_image::<tiff::encoder::colortype::Gray8>(width, 300, &pixels).unwrap();
    }
    file.into_inner()
}

/// A gateway whose upstream refuses the second page of [`document`].
async fn refusing() -> TestGateway {
    let gateway = TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Scripted("page {width}".to_owned());
    })
    .await;
    let refused = Fault::code("DataInspectionFailed").for_images_as_wide_as(WIDTHS[1]);
    gateway.upstream().add_fault(refused);
    gateway
}

#[tokio::test]
async fn an_answer_has_the_documented_shape_also_of_pages_that_failed() {
    let shape = documented("OcrAnswer");
    for (query, file, status) in [
        ("", fixture("hello.png"), "succeeded"),
        ("?detail=lines", fixture("hello.png"), "succeeded"),
        ("", document(), "partial"),
        ("?detail=lines&max_pixels=65536", document(), "succeeded"),
    ] {
        let gateway = refusing().await;
        let answer = gateway.upload(&format!("/ocr{query}"), file).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        assert_eq!(answer.json["status"], status, "{query}");
        check(&shape, &answer.json);
    }
    assert!(!shape.is_valid(&json!({})), "the schema says something");
}

#[tokio::test]
async fn an_estimate_and_fields_have_the_documented_shape() {
    let gateway = TestGateway::start().await;
    for (schema, path, file) in [
        ("EstimateAnswer", "/estimate", fixture("hello.png")),
        ("EstimateAnswer", "/estimate?pages=2-", document()),
        ("ExtractAnswer", "/extract?template=receipt&pages=2", document()),
    ] {
        let answer = gateway.upload(path, file).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        check(&documented(schema), &answer.json);
    }
}

#[tokio::test]
async fn the_events_of_a_stream_have_the_documented_shapes() {
    let gateway = refusing().await;
    let request = gateway.post("/ocr").header("accept", "text/event-stream");
    let stream = Answer::of(request.body(document())).await;
    let [text, page, failed, answer] =
        ["OcrTextEvent", "Page", "FailedPage", "OcrAnswer"].map(documented);
    let mut seen = Vec::new();
    for event in stream.text.split_terminator("\n\n").filter(|event| !event.starts_with(':')) {
        let (name, data) = event.split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        let shape = match name {
            "event: text" => &text,
            "event: page" if data["status"] == "failed" => &failed,
            "event: page" => &page,
            "event: answer" => &answer,
            other => panic!("{other} is not documented"),
        };
        check(shape, &data);
        seen.push((name.to_owned(), data["status"].as_str().unwrap_or_default().to_owned()));
    }
    let count = |name: &str, status: &str| {
        seen.iter().filter(|(seen, of)| (seen.as_str(), of.as_str()) == (name, status)).count()
    };
    assert_eq!((count("event: page", "succeeded"), count("event: page", "failed")), (2, 1));
    assert!(count("event: text", "") > 0);
    assert_eq!(seen.last().unwrap(), &("event: answer".to_owned(), "partial".to_owned()));
}
