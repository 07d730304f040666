//! Recorded answers are sent unchanged, and their stated usage is billed.

use dashscope_emulator::{Emulator, EngineChoice, Fault, Options, Usage};
use serde_json::json;

use crate::client::{CHAT, GENERATION, Reply, data, generation, open, post, scripted, send};
use tokio::io::AsyncReadExt as _;

/// The usage in each recording, read by a person; `None` if it is an error.
const RECORDINGS: [(&str, Option<Usage>); 7] = [
    ("multimodal-generation-vl-ocr-sse", Some(Usage { image: 947, text: 24, output: 155 })),
    ("multimodal-generation-vl-ocr-nosse", Some(Usage { image: 1219, text: 29, output: 225 })),
    (
        "multimodal-generation-vl-ocr-advanced-recognition-nosse",
        Some(Usage { image: 1862, text: 33, output: 432 }),
    ),
    (
        "multimodal-generation-vl-ocr-key-information-extraction-nosse",
        Some(Usage { image: 310, text: 214, output: 65 }),
    ),
    ("auth-error-nosse", None),
    ("parameter-error-nosse", None),
    ("parameter-error-sse", None),
];

/// Status, content type and body of a recording, if it exists.
fn recorded(name: &str) -> Option<(u16, String, Vec<u8>)> {
    let read = |part: &str| {
        Some(std::fs::read(data(&format!("dashscope_wire/{name}.response.{part}.txt"))?).unwrap())
    };
    let head = String::from_utf8(read("header")?).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    let content_type = content_type.unwrap_or("application/json").to_owned();
    Some((status, content_type, read("body")?))
}

#[tokio::test]
async fn recordings_come_back_byte_for_byte_and_are_billed_as_they_say() {
    let engine = EngineChoice::Scripted(String::new());
    let options = Options { engine, keep_bodies: true, ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    for (name, usage) in RECORDINGS {
        let Some((status, content_type, body)) = recorded(name) else { return };
        let world = emulator.world();
        world.clear_calls();
        world.add_fault(Fault::replay(status, content_type.clone(), body.clone()).times(1));
        let reply = post(&emulator, GENERATION, &generation()).await;
        assert_eq!((reply.status, &reply.headers["content-type"]), (status, &content_type));
        assert_eq!(reply.body.as_bytes(), body, "{name}");
        let call = &world.calls()[0];
        assert_eq!(call.response_body, body);
        assert_eq!((call.billed, call.delivered), (usage, true), "{name}");
    }
}

#[tokio::test]
async fn a_replay_judges_nothing_and_can_be_kept_off_the_bill() {
    let emulator = scripted("x").await;
    let body = "{\"usage\":{\"input_tokens\":1}}";
    emulator.world().add_fault(Fault::replay(200, "application/json", body).unbilled());
    let reply = send(&emulator, &format!("POST {CHAT}"), "", "not JSON").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, body));
    assert_eq!(emulator.world().bill().calls, 0);
}

#[tokio::test]
async fn the_events_of_a_replayed_stream_are_chunks_of_their_own() {
    let emulator = scripted("x").await;
    let fault =
        json!({"replay": {"content_type": "text/event-stream", "body": "data: 1\n\ndata: 2\n\n"}});
    assert_eq!(post(&emulator, "/__emulator/faults", &fault).await.status, 201);
    let mut stream = open(&emulator, &format!("POST {CHAT}"), "", b"{}").await;
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    let framed = String::from_utf8(received.clone()).unwrap();
    assert!(framed.ends_with("9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"), "{framed}");
    assert_eq!(Reply::of(&received, false).events("data"), ["1", "2"]);
}
