//! The drop-in paths: both of DashScope's protocols, with a key of the gateway.

mod bounds;
mod dialects;
mod members;
mod paths;
mod recordings;
mod sdk;
mod streams;
mod transparency;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

pub(crate) use self::streams::read;
use crate::harness::{Answer, TestGateway, fixture};

pub(crate) const CHAT: &str = "/compatible-mode/v1/chat/completions";
pub(crate) const GENERATION: &str = "/api/v1/services/aigc/multimodal-generation/generation";

const MODEL: &str = "qwen-vl-ocr-2025-11-20";

/// A fixture in a data URL.
pub(crate) fn data_url(name: &str) -> String {
    let letters = base64_simd::STANDARD.encode_to_string(fixture(name));
    let media_type =
        if name.ends_with("jpg") { "jpeg" } else { name.split('.').next_back().unwrap() };
    format!("data:image/{media_type};base64,{letters}")
}

/// A request of the compatible protocol with one image.
pub(crate) fn chat() -> Value {
    json!({
        "model": MODEL,
        "messages": [{ "role": "user", "content": [
            { "type": "image_url", "image_url": { "url": data_url("hello.png") } },
            { "type": "text", "text": "Read the text." },
        ]}],
    })
}

/// The same of the native protocol.
pub(crate) fn generation() -> Value {
    json!({
        "model": MODEL,
        "input": { "messages": [{ "role": "user", "content": [
            { "image": data_url("hello.png") },
            { "text": "Read the text." },
        ]}]},
        "parameters": {},
    })
}

/// Both, each with its path.
fn both() -> [(&'static str, Value); 2] {
    [(CHAT, chat()), (GENERATION, generation())]
}

/// Asks for a stream, in the form of the path's protocol.
pub(crate) fn streamed(gateway: &TestGateway, path: &str, mut body: Value) -> RequestBuilder {
    if path == GENERATION {
        body["parameters"]["incremental_output"] = true.into();
        return gateway.post(path).header("X-DashScope-SSE", "enable").body(body.to_string());
    }
    body["stream"] = true.into();
    gateway.post(path).body(body.to_string())
}

async fn send(gateway: &TestGateway, path: &str, body: &Value) -> Answer {
    Answer::of(gateway.post(path).body(body.to_string())).await
}

/// The first item with an image, in a request of either protocol.
fn item<'a>(path: &str, body: &'a mut Value) -> &'a mut Value {
    let messages =
        if path == CHAT { &mut body["messages"] } else { &mut body["input"]["messages"] };
    &mut messages[0]["content"][0]
}

/// The vendor's code of an error in the shape of the path's protocol. Panics for another shape.
fn code<'a>(path: &str, answer: &'a Answer) -> &'a str {
    assert_eq!(answer.header("content-type"), "application/json", "{}", answer.text);
    let error = if path == GENERATION { &answer.json } else { &answer.json["error"] };
    assert!(
        error["message"].is_string() && answer.json["request_id"].is_string(),
        "{}",
        answer.text
    );
    error["code"].as_str().unwrap()
}
