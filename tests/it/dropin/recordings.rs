//! Recorded answers of the real service, replayed on all three interfaces.

use dashscope_emulator::Fault;
use serde_json::{Value, json};

use super::{CHAT, GENERATION, chat, generation, send};
use crate::harness::{Answer, TestGateway, fixture, shared_data};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream;charset=UTF-8";

/// A recorded body.
fn recorded(name: &str) -> Option<Vec<u8>> {
    let folder = shared_data()?.join("dashscope_wire");
    Some(std::fs::read(folder.join(format!("{name}.body.txt"))).unwrap())
}

/// A gateway whose upstream always answers with the recording.
async fn replaying(status: u16, media_type: &str, body: &[u8]) -> TestGateway {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::replay(status, media_type, body.to_vec()));
    gateway
}

#[tokio::test]
async fn recorded_lines_come_as_boxes_within_the_page_and_to_the_letter() {
    const NAME: &str = "multimodal-generation-vl-ocr-advanced-recognition-nosse.response";
    let Some(body) = recorded(NAME) else { return };
    let gateway = replaying(200, JSON, &body).await;
    let native = send(&gateway, GENERATION, &generation()).await;
    assert_eq!(native.text.as_bytes(), body);
    // The recorded image was 6000 pixels wide. This one has its proportions.
    let answer = gateway.upload("/ocr?detail=lines", poster()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let lines = answer.json["pages"][0]["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 12);
    assert_eq!(lines[0]["text"], "INTERNATIONAL");
    assert_eq!(lines[0]["bbox"], json!([1704, 390, 4314, 675]));
    let merhaba = lines.iter().find(|line| line["text"] == "Merhaba!").unwrap();
    assert_eq!(merhaba["bbox"][0], 0, "a corner left of the page is moved to its edge");
    // The tokens in the recording were billed twice.
    let stated = gateway.upstream().calls()[0].billed.unwrap().total();
    assert_eq!(gateway.count("tokens_spent_total", &[]).await, 2 * stated);
}

/// The header of a JPEG of 6000 by 3000 pixels.
fn poster() -> Vec<u8> {
    let mut jpeg = fixture("hello.jpg");
    let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x0b, 0xb8, 0x17, 0x70]);
    jpeg
}

#[tokio::test]
async fn recorded_fields_come_as_data_and_to_the_letter() {
    const NAME: &str = "multimodal-generation-vl-ocr-key-information-extraction-nosse.response";
    let Some(body) = recorded(NAME) else { return };
    let gateway = replaying(200, JSON, &body).await;
    let native = send(&gateway, GENERATION, &generation()).await;
    assert_eq!(native.text.as_bytes(), body);
    let schema = json!({ "type": "object", "properties": {
        "乘车日期": { "type": "string", "format": "date" },
        "发票": { "type": "object", "properties": {
            "发票代码": { "type": "string" }, "发票号码": { "type": "string" } } } } });
    let data = base64_simd::STANDARD.encode_to_string(fixture("hello.png"));
    let request = json!({ "document": { "type": "base64", "data": data }, "schema": schema });
    let post = gateway.post("/extract").header("content-type", JSON);
    let answer = Answer::of(post.body(request.to_string())).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let expected = json!({ "乘车日期": "2013-06-29",
        "发票": { "发票代码": "221021325353", "发票号码": "10283819" } });
    assert_eq!(answer.json["data"], expected);
    assert_eq!(answer.json["usage"]["total_tokens"], 589);
}

#[tokio::test]
async fn a_recorded_page_without_details_of_its_bill_is_billed_by_its_totals() {
    let Some(body) = recorded("multimodal-generation-vl-ocr-nosse.response") else { return };
    let gateway = replaying(200, JSON, &body).await;
    let native = send(&gateway, GENERATION, &generation()).await;
    assert_eq!((native.text.as_bytes(), native.header("ocr-tokens-image")), (&body[..], "1219"));
    let answer = gateway.upload("/ocr?task=text_recognition", fixture("hello.png")).await;
    assert_eq!(answer.json["usage"]["total_tokens"], 1248 + 225, "{}", answer.text);
    assert!(answer.json["text"].as_str().unwrap().starts_with("读者对象"));
}

#[tokio::test]
async fn a_recorded_stream_passes_to_the_letter_and_its_last_total_is_the_bill() {
    let Some(body) = recorded("multimodal-generation-vl-ocr-sse.response") else { return };
    let gateway = replaying(200, EVENTS, &body).await;
    let request = gateway.post(GENERATION).header("accept", "text/event-stream");
    let answer = Answer::of(request.body(generation().to_string())).await;
    assert_eq!(answer.text.as_bytes(), body);
    let stated = gateway.upstream().calls()[0].billed.unwrap().total();
    assert_eq!(gateway.count("tokens_spent_total", &[]).await, stated);
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
}

#[tokio::test]
async fn recorded_errors_are_passed_on_where_they_speak_of_the_request() {
    let Some(plain) = recorded("parameter-error-nosse.response") else { return };
    let gateway = replaying(400, JSON, &plain).await;
    for (path, body) in [(CHAT, chat()), (GENERATION, generation())] {
        let answer = send(&gateway, path, &body).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_bytes()), (400, &plain[..]));
    }
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (502, "upstream_error"));

    let Some(events) = recorded("parameter-error-sse.response") else { return };
    let gateway = replaying(200, EVENTS, &events).await;
    let request = gateway.post(GENERATION).header("X-DashScope-SSE", "enable");
    let answer = Answer::of(request.body(generation().to_string())).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_bytes()), (200, &events[..]));
    assert_eq!(answer.header("content-type"), EVENTS);

    let Some(key) = recorded("auth-error-nosse.response") else { return };
    let gateway = replaying(401, JSON, &key).await;
    let answer = send(&gateway, GENERATION, &generation()).await;
    assert_eq!(answer.status, 503, "a key that is not the caller's is not the caller's fault");
}

#[tokio::test]
async fn recorded_requests_are_taken_as_they_are() {
    let Some(folder) = shared_data() else { return };
    let gateway = TestGateway::with(|setup| setup.emulator.keep_bodies = true).await;
    for name in [
        "multimodal-generation-vl-ocr-nosse",
        "multimodal-generation-vl-ocr-sse",
        "multimodal-generation-vl-ocr-advanced-recognition-nosse",
        "multimodal-generation-vl-ocr-key-information-extraction-nosse",
    ] {
        let file = folder.join("dashscope_wire").join(format!("{name}.request.body.json"));
        let body = std::fs::read(file).unwrap();
        let accept = if name.ends_with("-sse") { "text/event-stream" } else { "*/*" };
        let request = gateway.post(GENERATION).header("accept", accept).body(body);
        // The emulator fetches nothing and says so in the vendor's words, which are passed on.
        let answer = Answer::of(request).await;
        assert!(answer.text.contains("Failed to download multimodal content"), "{}", answer.text);
        let call = gateway.upstream().calls().pop().unwrap();
        let received: Value = serde_json::from_str(
            std::str::from_utf8(&call.request_body).unwrap().trim_start_matches('\u{feff}'),
        )
        .unwrap();
        assert!(received["parameters"]["max_tokens"].as_u64() > Some(0), "{received}");
    }
}
