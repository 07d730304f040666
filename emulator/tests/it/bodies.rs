//! Requests and answers are recorded byte for byte if the option is set.

use dashscope_emulator::{Emulator, EngineChoice, Fault, Options};
use serde_json::json;

use crate::client::{CHAT, GENERATION, chat, generation, post, scripted, send, stream};

async fn keeping() -> Emulator {
    let engine = EngineChoice::Scripted("a text of several pieces".to_owned());
    Emulator::start(Options { engine, keep_bodies: true, ..Options::default() }).await.unwrap()
}

#[tokio::test]
async fn both_bodies_are_kept_byte_for_byte() {
    let emulator = keeping().await;
    // Spacing and order that no JSON serialiser would choose.
    let sent = format!("{{\"messages\" :[],\n \"model\": {} }}", json!("qwen-vl-ocr"));
    let headers = "authorization: Bearer k\r\n";
    let reply = send(&emulator, &format!("POST {CHAT}"), headers, &sent).await;
    let call = &emulator.world().calls()[0];
    assert_eq!(call.request_body, sent);
    assert_eq!(call.response_body, reply.body.as_bytes());
}

#[tokio::test]
async fn of_a_stream_that_is_cut_the_part_that_went_out_is_kept() {
    let emulator = keeping().await;
    emulator.world().add_fault(Fault::cut_stream_after(2));
    let reply = stream(&emulator, &generation()).await;
    assert_eq!(reply.events("id"), ["1", "2"]);
    assert_eq!(emulator.world().calls()[0].response_body, reply.body.as_bytes());
}

#[tokio::test]
async fn no_body_is_kept_unless_asked_for() {
    let emulator = scripted("x").await;
    post(&emulator, CHAT, &chat()).await;
    let call = &emulator.world().calls()[0];
    assert!(call.request_body.is_empty() && call.response_body.is_empty());
}

#[tokio::test]
async fn header_values_are_recorded_except_secrets() {
    let emulator = scripted("x").await;
    let headers = "authorization: Bearer sk-secret\r\nx-api-key: sk-secret\r\n\
        x-dashscope-sse: enable\r\nx-dashscope-ossresourceresolve: enable\r\n\
        accept: text/event-stream\r\nuser-agent: dashscope/2\r\n";
    send(&emulator, &format!("POST {GENERATION}"), headers, &generation().to_string()).await;
    let values = serde_json::to_value(&emulator.world().calls()[0].header_values).unwrap();
    let expected = json!({
        "accept": "text/event-stream", "content-type": "application/json",
        "user-agent": "dashscope/2", "x-dashscope-ossresourceresolve": "enable",
        "x-dashscope-sse": "enable"
    });
    assert_eq!(values, expected);
}
