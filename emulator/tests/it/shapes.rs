//! Answers have the shapes, heads and framing of the service.

use serde_json::{Value, json};

use crate::client::{
    CHAT, GENERATION, MODEL, chat, data, generation, generation_with, post, scripted, send, stream,
};

#[tokio::test]
async fn a_compatible_answer_has_the_vendors_shape() {
    let emulator = scripted("read at {width}x{height}").await;
    let answer = post(&emulator, CHAT, &chat()).await.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], MODEL);
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"], json!({"content": "read at 96x96", "role": "assistant"}));
    assert_eq!(choice["finish_reason"], "stop");
    let usage = &answer["usage"];
    assert_eq!(usage["prompt_tokens"], 11 + 24);
    assert_eq!(usage["completion_tokens"], 4);
    assert_eq!(usage["total_tokens"], 39);
    assert_eq!(usage["prompt_tokens_details"]["image_tokens"], 11);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], Value::Null);
}

#[tokio::test]
async fn the_head_names_the_request_and_the_vendors_gateway() {
    let emulator = scripted("x").await;
    let reply = post(&emulator, GENERATION, &generation()).await;
    assert_eq!(reply.headers["x-request-id"], reply.json()["request_id"]);
    assert_eq!(reply.headers["x-dashscope-timeout"], "298");
    assert_eq!(reply.headers["x-dashscope-finished"], "true");
    assert_eq!(reply.headers["server"], "istio-envoy");
    for name in ["x-dashscope-call-gateway", "req-cost-time", "req-arrive-time", "resp-start-time"]
    {
        assert!(reply.headers.contains_key(name), "{name} is missing");
    }
}

#[tokio::test]
async fn a_compatible_stream_gives_the_text_then_usage_then_done() {
    let emulator = scripted("a somewhat longer text").await;
    let mut request = chat();
    request["stream"] = json!(true);
    request["stream_options"] = json!({ "include_usage": true });
    let reply = post(&emulator, CHAT, &request).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream;charset=UTF-8");
    let mut data = reply.events("data");
    assert_eq!(data.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = data.iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let text = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(text.collect::<String>(), "a somewhat longer text");
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(6)));
}

#[tokio::test]
async fn without_include_usage_no_chunk_holds_usage() {
    let emulator = scripted("text").await;
    let mut request = chat();
    request["stream"] = json!(true);
    let reply = post(&emulator, CHAT, &request).await;
    assert!(!reply.body.contains("prompt_tokens"), "{}", reply.body);
}

#[tokio::test]
async fn a_native_stream_gives_pieces_when_increments_are_asked_for() {
    let emulator = scripted("a somewhat longer text").await;
    let mut request = generation();
    request["parameters"] = json!({ "incremental_output": true });
    let reply = stream(&emulator, &request).await;
    assert!(
        reply.body.starts_with("id:1\nevent:result\n:HTTP_STATUS/200\ndata:{"),
        "{}",
        reply.body
    );
    let events: Vec<Value> =
        reply.events("data").iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let choice = |event: &Value| event["output"]["choices"][0].clone();
    let text = |event: &Value| choice(event)["message"]["content"][0]["text"].clone();
    let whole: String =
        events.iter().filter_map(|event| text(event).as_str().map(str::to_owned)).collect();
    assert_eq!(whole, "a somewhat longer text");
    assert_eq!(choice(&events[0])["finish_reason"], "null");
    assert_eq!(choice(events.last().unwrap())["finish_reason"], "stop");
}

#[tokio::test]
async fn a_native_stream_gives_all_so_far_unless_increments_are_asked_for() {
    let emulator = scripted("a somewhat longer text").await;
    for parameters in [json!({}), json!({ "incremental_output": false })] {
        let mut request = generation();
        request["parameters"] = parameters;
        let events = stream(&emulator, &request).await.events("data");
        let events = events.iter().map(|event| serde_json::from_str::<Value>(event).unwrap());
        let texts: Vec<String> = events
            .map(|event| event["output"]["choices"][0]["message"]["content"][0]["text"].clone())
            .map(|text| text.as_str().unwrap().to_owned())
            .collect();
        assert!(texts.is_sorted_by(|one, next| next.starts_with(one.as_str())), "{texts:?}");
        assert_eq!(texts.last().unwrap(), "a somewhat longer text");
    }
}

#[tokio::test]
async fn answers_have_the_members_of_the_recordings() {
    let recording =
        "dashscope_wire/multimodal-generation-vl-ocr-advanced-recognition-nosse.response.body.txt";
    let Some(path) = data(recording) else { return };
    let recorded = std::fs::read_to_string(path).unwrap();
    let recorded: Value = serde_json::from_str(recorded.trim_start_matches('\u{feff}')).unwrap();
    let emulator = scripted("one line\nanother line").await;
    let mut request = generation();
    request["parameters"]["ocr_options"] = json!({ "task": "advanced_recognition" });
    let answer = post(&emulator, GENERATION, &request).await.json();
    assert_eq!(members(&answer), members(&recorded));
}

#[tokio::test]
async fn an_authentication_error_is_the_recorded_one() {
    let Some(path) = data("dashscope_wire/auth-error-nosse.response.body.txt") else { return };
    let mut recorded: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let emulator = dashscope_emulator::Emulator::start(dashscope_emulator::Options {
        api_keys: vec!["sk-other".to_owned()],
        engine: dashscope_emulator::EngineChoice::Scripted(String::new()),
        ..Default::default()
    });
    let reply = post(&emulator.await.unwrap(), GENERATION, &generation()).await;
    let answer = reply.json();
    recorded["request_id"] = answer["request_id"].clone();
    assert_eq!((reply.status, answer), (401, recorded));
}

#[tokio::test]
async fn the_models_are_listed_for_a_key() {
    let emulator = scripted("x").await;
    let path = "GET /compatible-mode/v1/models";
    let list = send(&emulator, path, "authorization: Bearer k\r\n", "").await.json();
    assert!(list["data"].as_array().unwrap().iter().any(|model| model["id"] == MODEL));
    assert_eq!(send(&emulator, path, "", "").await.status, 401);
}

#[tokio::test]
async fn the_smaller_of_two_limits_decides_the_size() {
    let emulator = scripted("{width}x{height}").await;
    let url = crate::client::blank(1000, 1000);
    let item = json!({"type": "image_url", "image_url": {"url": url, "max_pixels": 90_000}, "max_pixels": 500_000});
    let answer = post(&emulator, CHAT, &crate::client::chat_with(&item)).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "288x288");
    let seen = &emulator.world().calls()[0].images[0];
    assert_eq!((seen.max_pixels_inside, seen.max_pixels_beside), (Some(90_000), Some(500_000)));
}

#[tokio::test]
async fn a_text_over_max_tokens_is_cut_and_says_so() {
    let emulator = scripted("0123456789abcdef").await;
    let mut request = generation_with(&json!({ "image": crate::client::blank(100, 100) }));
    request["parameters"] = json!({ "max_tokens": 3 });
    let answer = post(&emulator, GENERATION, &request).await.json();
    let choice = &answer["output"]["choices"][0];
    assert_eq!(choice["message"]["content"][0]["text"], "0123456789ab");
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(answer["usage"]["output_tokens"], 3);
}

/// The paths of all members of a JSON value.
fn members(value: &Value) -> std::collections::BTreeSet<String> {
    fn collect(value: &Value, path: &str, into: &mut std::collections::BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    collect(value, &format!("{path}/{name}"), into);
                }
            }
            Value::Array(elements) => {
                for value in elements {
                    collect(value, &format!("{path}[]"), into);
                }
            }
            _ => {}
        }
        into.insert(path.to_owned());
    }
    let mut paths = std::collections::BTreeSet::new();
    collect(value, "", &mut paths);
    paths
}
