//! Damaged answers of the upstream: readable content is delivered, other content is an error, and a stated bill counts
//! in either case.

use dashscope_emulator::Fault;
use serde_json::{Value, json};

use crate::dropin::{CHAT, GENERATION, chat, generation, streamed};
use crate::harness::{Answer, TestGateway, fixture};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream;charset=UTF-8";

/// The bill in each body here: 100 and 29 tokens.
const BILLED: u64 = 129;

/// A gateway whose upstream always answers with `body`.
async fn replaying(status: u16, media_type: &str, body: impl Into<Vec<u8>>) -> TestGateway {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::replay(status, media_type, body.into()));
    gateway
}

/// A whole answer of the compatible protocol, with the JSON of its content.
fn compatible(content: &[u8]) -> Vec<u8> {
    let before = br#"{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"#;
    let behind = br#"}}],"usage":{"prompt_tokens":100,"completion_tokens":29,"total_tokens":129}}"#;
    [before, content, behind].concat()
}

/// The same for the native protocol.
fn native(content: &[u8]) -> Vec<u8> {
    let before = br#"{"output":{"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":[{"text":"#;
    let behind = br#"}]}}]},"usage":{"input_tokens":100,"output_tokens":29,"image_tokens":80},"request_id":"r-1"}"#;
    [before, content, behind].concat()
}

fn delta(content: &[u8]) -> Vec<u8> {
    let before = br#"data: {"choices":[{"index":0,"delta":{"content":"#;
    [before, content, b"},\"finish_reason\":null}]}\n\n"].concat()
}

/// The end of a stream of the compatible protocol.
const END: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":29,\"total_tokens\":129}}\n\n\
    data: [DONE]\n\n";

/// A stream of the compatible protocol, with `middle` between its events.
fn stream_around(middle: &[u8]) -> Vec<u8> {
    [&delta(br#""Invoice 17 ""#), middle, &delta(br#"" on Monday""#), END.as_bytes()].concat()
}

/// The bytes inside the quotes of a JSON string, and the text to be read from them.
fn spoilt() -> [(Vec<u8>, &'static str); 8] {
    [
        (br"total 12.50 \ud83d".to_vec(), "total 12.50 \u{fffd}"),
        (br"\ude00\ud83d x".to_vec(), "\u{fffd}\u{fffd} x"),
        (br"\ud83dA".to_vec(), "\u{fffd}A"),
        (br"\ud83d\n\ud83d\ude00".to_vec(), "\u{fffd}\n\u{1f600}"),
        (b"a\xffb".to_vec(), "a\u{fffd}b"),
        (b"a\xe4\xb8".to_vec(), "a\u{fffd}"),
        (b"a\tb\x01c".to_vec(), "a\tb\u{1}c"),
        (br"a\u00zz".to_vec(), "a\u{fffd}u00zz"),
    ]
}

fn quoted(inside: &[u8]) -> Vec<u8> {
    [b"\"", inside, b"\""].concat()
}

async fn spent(gateway: &TestGateway) -> (u64, u64) {
    let spent = gateway.count("tokens_spent_total", &[]).await;
    (spent, gateway.count("tokens_unverified_total", &[]).await)
}

async fn stream_of(gateway: &TestGateway, path: &str) -> Answer {
    let post = gateway.post(path).header("accept", "text/event-stream");
    Answer::of(post.body(fixture("hello.png"))).await
}

/// The data of the event with that name, or null without it.
fn event(answer: &Answer, name: &str) -> Value {
    let start = format!("event: {name}\ndata: ");
    let mut events = answer.text.split("\n\n");
    let data = events.find_map(|event| event.strip_prefix(&start));
    data.map_or(Value::Null, |data| serde_json::from_str(data).unwrap())
}

#[tokio::test]
async fn a_whole_answer_with_what_is_no_character_is_read_and_settled_at_its_bill() {
    for (inside, expected) in spoilt() {
        let gateway = replaying(200, JSON, compatible(&quoted(&inside))).await;
        let answer = gateway.upload("/ocr", fixture("hello.png")).await;
        assert_eq!((answer.status.as_u16(), answer.json["text"].as_str()), (200, Some(expected)));
        assert_eq!(spent(&gateway).await, (BILLED, 0), "{expected:?}");
        let gateway = replaying(200, JSON, native(&quoted(&inside))).await;
        let answer = gateway.upload("/ocr?task=text_recognition", fixture("hello.png")).await;
        assert_eq!((answer.status.as_u16(), answer.json["text"].as_str()), (200, Some(expected)));
        assert_eq!(spent(&gateway).await, (BILLED, 0), "{expected:?}");
    }
}

#[tokio::test]
async fn a_whole_answer_with_what_is_no_character_passes_byte_for_byte() {
    for (inside, _) in spoilt() {
        for (path, request, body) in [
            (CHAT, chat(), compatible(&quoted(&inside))),
            (GENERATION, generation(), native(&quoted(&inside))),
        ] {
            let gateway = replaying(200, JSON, body.clone()).await;
            let response = gateway.post(path).body(request.to_string()).send().await.unwrap();
            assert_eq!(response.status(), 200, "{}", String::from_utf8_lossy(&body));
            assert_eq!(response.bytes().await.unwrap(), body);
            assert_eq!(spent(&gateway).await, (BILLED, 0));
        }
    }
}

#[tokio::test]
async fn a_damaged_answer_does_not_close_its_endpoint_to_other_tenants() {
    let unreadable = compatible(br#""a" "b""#);
    for body in [compatible(br#""\ud83d""#), unreadable] {
        let gateway = replaying(200, JSON, body).await;
        for _ in 0..7 {
            gateway.post(CHAT).body(chat().to_string()).send().await.unwrap();
        }
        gateway.upstream().clear_faults();
        let answer = gateway.upload("/ocr", fixture("hello.png")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_bill_that_is_stated_in_an_answer_good_for_nothing_else_is_the_bill() {
    let usage = r#""usage":{"prompt_tokens":100,"completion_tokens":29}"#;
    let native_usage = r#""usage":{"input_tokens":100,"output_tokens":29}"#;
    for body in [
        format!(r#"{{"choices":[],{usage}}}"#),
        format!(r#"{{"choices":[{{"message":{{"content":7}}}}],{usage}}}"#),
        format!(r#"{{{usage},"choices":[{{"message":{{"content":"half of it"#),
        format!(r#"{{"choices":[{{"message":{{"content":"a" "b"}}}}],{usage}}}"#),
        format!(r#"{{"output":{{"choices":[{{]}},{native_usage},"request_id":"r"}}"#),
        format!(r#"{{"code":"InternalError","message":"m",{usage}}}"#),
        format!(r#"{{"code":"InternalError","message":"m \q " x,{usage}}}"#),
        format!("data: {{\"choices\":[]}}\n\ndata: {{\"choices\":[],{usage}}}\n\ndata: [DONE]\n\n"),
        format!(
            "event: error\ndata: {{\"code\":\"InternalError\",\"message\":\"m\"}}\n\ndata: {{{usage}}}\n\n"
        ),
    ] {
        for status in [200, 500] {
            let gateway = replaying(status, JSON, body.clone()).await;
            let answer = gateway.upload("/ocr", fixture("hello.png")).await;
            assert!(answer.status.as_u16() >= 500, "{status} {body}: {}", answer.text);
            assert_eq!(spent(&gateway).await, (BILLED, 0), "{status} {body}");
            assert_eq!(gateway.upstream().calls().len(), 1, "{status} {body}: paid for once");
        }
    }
}

#[tokio::test]
async fn a_bill_in_an_answer_that_is_too_long_is_the_bill() {
    let gateway = TestGateway::with(|setup| {
        setup.settings.upstream.max_response_bytes = 64 * 1024;
    })
    .await;
    let usage = r#""usage":{"prompt_tokens":100,"completion_tokens":29}"#;
    let text = "x".repeat(100_000);
    let body = format!(r#"{{{usage},"choices":[{{"message":{{"content":"{text}"}}}}]}}"#);
    gateway.upstream().add_fault(Fault::replay(200, JSON, body.into_bytes()));
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (502, "upstream_invalid_output"));
    assert_eq!(spent(&gateway).await, (BILLED, 0));
}

#[tokio::test]
async fn an_event_with_what_is_no_character_is_told_and_no_text_is_lost() {
    for (inside, expected) in spoilt() {
        let gateway = replaying(200, EVENTS, stream_around(&delta(&quoted(&inside)))).await;
        let answer = stream_of(&gateway, "/ocr").await;
        let text = format!("Invoice 17 {expected} on Monday");
        assert_eq!(event(&answer, "answer")["text"], text, "{}", answer.text);
        assert_eq!(spent(&gateway).await, (BILLED, 0));
    }
}

#[tokio::test]
async fn a_stream_with_what_is_no_character_passes_byte_for_byte() {
    for (inside, _) in spoilt() {
        let gateway = replaying(200, EVENTS, stream_around(&delta(&quoted(&inside)))).await;
        let mut body = chat();
        body["stream_options"] = json!({ "include_usage": true });
        let response = streamed(&gateway, CHAT, body).send().await.unwrap();
        let passed = response.bytes().await.unwrap();
        assert_eq!(passed, stream_around(&delta(&quoted(&inside))));
        assert_eq!(spent(&gateway).await, (BILLED, 0));
    }
}

/// Unreadable events.
const UNREADABLE: [&[u8]; 6] = [
    b"data: {\"choices\":[{\"delta\":{\"content\":\"to\n\n",
    b"data: total 12.50\n\n",
    b"data: [1]\n\n",
    b"data: {\"choices\":[{\"delta\":{\"content\":12.50}}]}\n\n",
    b"data: {\"choices\":[{\"delta\":{\"content\":\"a\" \"b\"}}]}\n\n",
    b"data: \xff\xfe\n\n",
];

#[tokio::test]
async fn an_event_that_cannot_be_read_ends_the_stream_with_an_error_and_its_bill() {
    for middle in UNREADABLE {
        let shown = String::from_utf8_lossy(middle);
        let gateway = replaying(200, EVENTS, stream_around(middle)).await;
        let answer = stream_of(&gateway, "/ocr").await;
        let error = event(&answer, "error");
        assert_eq!(error["code"], "upstream_invalid_output", "{shown}: {}", answer.text);
        assert_eq!(event(&answer, "answer"), Value::Null);
        assert_eq!(spent(&gateway).await, (BILLED, 0), "{shown}");

        let gateway = replaying(200, EVENTS, stream_around(middle)).await;
        let response = streamed(&gateway, CHAT, chat()).send().await.unwrap();
        let (seen, ended_well) = crate::dropin::read(response).await;
        let seen = String::from_utf8(seen).unwrap();
        assert!(!ended_well && seen.contains("Invoice 17 "), "{seen}");
        assert!(seen.contains("\"gateway_code\":\"upstream_invalid_output\""), "{seen}");
        assert!(!seen.contains("on Monday") && !seen.contains("[DONE]"), "{seen}");
        assert_eq!(spent(&gateway).await, (BILLED, 0), "{shown}");
    }
}

#[tokio::test]
async fn streams_whose_first_event_cannot_be_read_do_not_close_their_endpoint() {
    let body = [b"data: ?\n\n", END.as_bytes()].concat();
    let gateway = replaying(200, EVENTS, body).await;
    for _ in 0..7 {
        let answer = stream_of(&gateway, "/ocr").await;
        assert_eq!((answer.status.as_u16(), answer.code()), (502, "upstream_invalid_output"));
    }
    assert_eq!(spent(&gateway).await, (7 * BILLED, 0));
    gateway.upstream().clear_faults();
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
}

#[tokio::test]
async fn what_is_named_an_error_is_one_whatever_it_says() {
    for (middle, code) in [
        ("event: error\ndata: {\"message\":\"boom\"}\n\n", "upstream_error"),
        ("event:error\ndata:boom\n\n", "upstream_error"),
        (":HTTP_STATUS/429\ndata:{\"request_id\":\"r\"}\n\n", "upstream_throttled"),
    ] {
        let gateway = replaying(200, EVENTS, stream_around(middle.as_bytes())).await;
        let answer = stream_of(&gateway, "/ocr").await;
        assert_eq!(event(&answer, "error")["code"], code, "{middle}: {}", answer.text);
        assert_eq!(event(&answer, "answer"), Value::Null);
    }
}

#[tokio::test]
async fn a_stream_that_begins_with_an_error_has_its_status() {
    for (body, status, code) in [
        ("event:error\ndata:boom\n\n", 502, "upstream_error"),
        (":HTTP_STATUS/429\ndata:slow down\n\n", 503, "upstream_throttled"),
        ("event: error\ndata: {\"message\":\"\\ud83d\"}\n\n", 502, "upstream_error"),
    ] {
        let gateway = replaying(200, EVENTS, body).await;
        let answer = stream_of(&gateway, "/ocr").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{body}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn an_error_with_what_is_no_character_is_understood_and_passes_as_it_came() {
    let body = br#"{"error":{"code":"invalid_parameter_error","message":"wrong \ud83d"},"request_id":"r"}"#;
    let gateway = replaying(400, JSON, *body).await;
    let response = gateway.post(CHAT).body(chat().to_string()).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.bytes().await.unwrap().as_ref()),
        (400, &body[..])
    );
    let throttled = br#"{"code":"Throttling.RateQuota","message":"\xff \ud83d"}"#;
    let gateway = replaying(429, JSON, *throttled).await;
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(answer.code(), "upstream_throttled", "{}", answer.text);
}

#[tokio::test]
async fn framing_that_the_standard_allows_loses_nothing() {
    let plain = String::from_utf8(stream_around(&delta(br#""total""#))).unwrap();
    let commented = plain.replace("data: ", ": ping\nretry: 5\nid\ndata:");
    let keep_alive = plain.replace("\n\n", "\n\n: keep-alive\n\ndata:\n\n");
    let several_lines = plain.replace(",\"", ",\ndata: \"");
    let marked = format!("\u{feff}{plain}");
    let not_finite = plain.replace(
        "\"finish_reason\":null",
        "\"finish_reason\":null,\"logprob\":-Infinity,\"p\":NaN",
    );
    let twice = plain.replace("\"index\":0", "\"index\":1,\"index\":0");
    for body in [
        plain.replace('\n', "\r\n"),
        plain.replace('\n', "\r"),
        commented,
        keep_alive,
        several_lines,
        marked,
        not_finite,
        twice,
    ] {
        let gateway = replaying(200, EVENTS, body.clone()).await;
        let answer = stream_of(&gateway, "/ocr").await;
        let text = &event(&answer, "answer")["text"];
        assert_eq!(text, "Invoice 17 total on Monday", "{body:?}: {}", answer.text);
        assert_eq!(spent(&gateway).await, (BILLED, 0));
    }
}

#[tokio::test]
async fn an_answer_with_marks_numbers_and_bytes_around_it_that_mean_nothing_is_read() {
    let plain = String::from_utf8(compatible(br#""total""#)).unwrap();
    for body in [
        format!("\u{feff}{plain}"),
        format!("\r\n {plain}\r\n\0"),
        plain.replace("\"index\":0", "\"logprob\":NaN,\"p\":-Infinity"),
        plain.replace("\"index\":0", "\"index\":1,\"index\":0"),
        plain.replace("100", "100.0"),
    ] {
        let gateway = replaying(200, JSON, body.clone()).await;
        let answer = gateway.upload("/ocr", fixture("hello.png")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json["text"].as_str()),
            (200, Some("total")),
            "{body:?}"
        );
        assert_eq!(spent(&gateway).await, (BILLED, 0), "{body:?}");
    }
}

#[tokio::test]
async fn content_in_any_shape_that_either_protocol_gives_it_is_told() {
    let native = "data:{\"output\":{\"choices\":[{\"message\":{\"content\":\"total\"},\"finish_reason\":\"stop\"}]},\
        \"usage\":{\"input_tokens\":100,\"output_tokens\":29}}\n\n";
    let whole = "data: {\"choices\":[{\"message\":{\"content\":\"total\"},\"finish_reason\":\"stop\"}],\
        \"usage\":{\"prompt_tokens\":100,\"completion_tokens\":29}}\n\ndata: [DONE]\n\n";
    for (path, body) in [
        ("/ocr", stream_around(&delta(br#"[{"type":"text","text":"total"}]"#))),
        ("/ocr?task=text_recognition", native.as_bytes().to_vec()),
        ("/ocr", whole.as_bytes().to_vec()),
    ] {
        let gateway = replaying(200, EVENTS, body).await;
        let answer = stream_of(&gateway, path).await;
        let text = event(&answer, "answer")["text"].as_str().unwrap_or_default().to_owned();
        assert!(text.contains("total"), "{path}: {}", answer.text);
        assert_eq!(spent(&gateway).await, (BILLED, 0), "{path}");
    }
}
