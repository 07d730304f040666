//! Streams break, stall, end early and are delayed as scripted.

use std::time::Duration;

use dashscope_emulator::{Emulator, EngineChoice, Fault, Options};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use crate::client::{CHAT, GENERATION, Reply, chat, generation, open, post, scripted, stream};

/// Six events of the native protocol: five pieces and, with the last text, the end.
const TEXT: &str = "a text of several pieces";

fn streamed_chat() -> Value {
    let mut request = chat();
    request["stream"] = json!(true);
    request["stream_options"] = json!({ "include_usage": true });
    request
}

#[tokio::test]
async fn a_stalled_stream_sends_its_events_and_then_nothing() {
    let emulator = scripted(TEXT).await;
    emulator.world().add_fault(Fault::stall_stream_after(2));
    let headers = "authorization: Bearer k\r\nx-dashscope-sse: enable\r\n";
    let body = generation().to_string();
    let mut stream = open(&emulator, &format!("POST {GENERATION}"), headers, body.as_bytes()).await;
    let mut received = Vec::new();
    while Reply::of(&received, false).events("data").len() < 2 {
        assert!(stream.read_buf(&mut received).await.unwrap() > 0, "the stream ended");
    }
    let world = emulator.world();
    emulator.stop().await;
    let _ = stream.read_to_end(&mut received).await;
    let reply = Reply::of(&received, false);
    assert_eq!((reply.events("id").len(), reply.whole), (2, false));
    assert_eq!((world.bill().calls, world.calls()[0].delivered), (1, false));
}

#[tokio::test]
async fn an_answer_that_is_not_a_stream_stalls_in_the_middle() {
    let emulator = scripted(TEXT).await;
    emulator.world().add_fault(Fault::stall_stream_after(2));
    let headers = "authorization: Bearer k\r\n";
    let body = chat().to_string();
    let mut stream = open(&emulator, &format!("POST {CHAT}"), headers, body.as_bytes()).await;
    let mut received = Vec::new();
    while Reply::of(&received, false).body.is_empty() {
        assert!(stream.read_buf(&mut received).await.unwrap() > 0, "the answer ended");
    }
    emulator.stop().await;
    let _ = stream.read_to_end(&mut received).await;
    let reply = Reply::of(&received, false);
    assert_eq!(reply.headers["content-length"].parse::<usize>().unwrap() / 2, reply.body.len());
}

#[tokio::test]
async fn a_stream_that_ends_early_ends_in_order_without_its_marker() {
    let emulator = scripted(TEXT).await;
    emulator.world().add_fault(Fault::end_stream_after(2));
    let reply = post(&emulator, CHAT, &streamed_chat()).await;
    assert!(reply.whole && !reply.reset, "{reply:?}");
    assert_eq!(reply.events("data").len(), 2);
    assert_eq!(emulator.world().bill().calls, 1);
    assert!(!emulator.world().calls()[0].delivered);
    let half = post(&emulator, CHAT, &chat()).await;
    assert!(half.whole && serde_json::from_str::<Value>(&half.body).is_err(), "{half:?}");
}

#[tokio::test]
async fn an_error_breaks_off_a_native_stream_as_an_event() {
    let emulator = scripted(TEXT).await;
    emulator.world().add_fault(Fault::error_event_after(2, "InternalError"));
    let reply = stream(&emulator, &generation()).await;
    assert!(reply.whole && reply.status == 200, "{reply:?}");
    let (_, last) = reply.body.trim_end().rsplit_once("\n\n").unwrap();
    assert!(
        last.starts_with("id:3\nevent:error\n:HTTP_STATUS/500\ndata:{\"code\":\"InternalError\""),
        "{last}"
    );
    assert_eq!(emulator.world().bill().calls, 1);
}

#[tokio::test]
async fn an_error_breaks_off_a_compatible_stream_as_a_chunk_of_its_own() {
    let emulator = scripted(TEXT).await;
    emulator.world().add_fault(Fault::error_event_after(2, "InternalError"));
    let reply = post(&emulator, CHAT, &streamed_chat()).await;
    let events = reply.events("data");
    assert_eq!(events.len(), 3);
    let last: Value = serde_json::from_str(&events[2]).unwrap();
    assert_eq!(last["error"]["code"], "internal_error");
    assert!(last["request_id"].is_string());
    assert_eq!(post(&emulator, CHAT, &chat()).await.status, 500, "not a stream");
}

#[tokio::test]
async fn an_answer_can_keep_its_usage_to_itself_and_is_billed() {
    let emulator = scripted(TEXT).await;
    emulator.world().add_fault(Fault::no_usage());
    assert_eq!(post(&emulator, CHAT, &chat()).await.json()["usage"], Value::Null);
    let chunks = post(&emulator, CHAT, &streamed_chat()).await;
    assert!(!chunks.body.contains("prompt_tokens") && chunks.body.ends_with("data: [DONE]\n\n"));
    let native = post(&emulator, GENERATION, &generation()).await.json();
    assert_eq!(
        (native.get("usage"), &native["output"]["choices"][0]["finish_reason"]),
        (None, &json!("stop"))
    );
    assert!(!stream(&emulator, &generation()).await.body.contains("usage"));
    assert_eq!(emulator.world().bill().calls, 4);
}

#[tokio::test]
async fn a_stream_is_cut_at_any_byte() {
    let emulator = scripted(TEXT).await;
    let whole = stream(&emulator, &generation()).await.body.len() as u64;
    // Within the head of an event, within its data, between two, and before the last byte.
    for bytes in [0, 3, 50, whole / 2, whole - 1] {
        emulator.world().add_fault(Fault::cut_body_at(bytes).times(1));
        let reply = stream(&emulator, &generation()).await;
        assert_eq!((reply.body.len() as u64, reply.reset), (bytes, true));
    }
}

/// Elapsed seconds, on a paused clock, until a stream of six events is over.
async fn seconds(options: Options, fault: Option<Fault>) -> u64 {
    let engine = EngineChoice::Scripted(TEXT.to_owned());
    let emulator = Emulator::start(Options { engine, ..options }).await.unwrap();
    if let Some(fault) = fault {
        emulator.world().add_fault(fault);
    }
    let began = Instant::now();
    assert_eq!(stream(&emulator, &generation()).await.events("id").len(), 6);
    began.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn events_come_at_the_interval_of_the_fault_before_that_of_the_options() {
    let options = Options { stream_interval: Duration::from_secs(2), ..Options::default() };
    assert_eq!(seconds(Options::default(), None).await, 0);
    assert_eq!(seconds(options.clone(), None).await, 10);
    assert_eq!(seconds(options, Some(Fault::interval(3000))).await, 15);
}
