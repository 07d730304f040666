//! Scripted faults take effect as scripted, and the bill shows their cost.

use dashscope_emulator::Fault;
use serde_json::json;

use crate::client::{CHAT, GENERATION, chat, generation, post, scripted, stream};

#[tokio::test]
async fn a_reset_ends_the_connection_before_any_byte() {
    let emulator = scripted("x").await;
    emulator.world().add_fault(Fault::reset());
    let reply = post(&emulator, CHAT, &chat()).await;
    assert!(reply.reset && reply.status == 0 && reply.body.is_empty(), "{reply:?}");
    let call = &emulator.world().calls()[0];
    assert_eq!((call.status, call.billed, call.delivered), (None, None, false));
}

#[tokio::test]
async fn a_cut_body_promises_more_than_it_sends_and_is_billed() {
    let emulator = scripted("x").await;
    emulator.world().add_fault(Fault::cut_body_at(100));
    let reply = post(&emulator, CHAT, &chat()).await;
    assert!(reply.reset, "the connection was closed in order");
    assert_eq!(reply.body.len(), 100);
    assert!(reply.headers["content-length"].parse::<usize>().unwrap() > 100);
    assert_eq!(emulator.world().bill().calls, 1);
    assert!(!emulator.world().calls()[0].delivered);
}

#[tokio::test]
async fn a_body_cut_far_in_is_sent_up_to_there() {
    let emulator = scripted(&"long ".repeat(400_000)).await;
    emulator.world().add_fault(Fault::cut_body_at(30_000));
    let mut request = chat();
    request["max_tokens"] = json!(8192);
    assert_eq!(post(&emulator, CHAT, &request).await.body.len(), 30_000);
}

#[tokio::test]
async fn a_cut_stream_breaks_after_its_events() {
    let emulator = scripted("a text of several pieces").await;
    emulator.world().add_fault(Fault::cut_stream_after(2));
    let reply = stream(&emulator, &generation()).await;
    assert!(reply.reset);
    assert_eq!(reply.events("id"), ["1", "2"]);
}

#[tokio::test]
async fn a_fault_is_billed_only_where_it_strikes_after_the_inference() {
    let emulator = scripted("x").await;
    emulator.world().add_fault(Fault::status(500).times(1));
    emulator.world().add_fault(Fault::status(500).times(1).after_inference());
    for billed in [0, 1] {
        let reply = post(&emulator, CHAT, &chat()).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (500, &json!("internal_error")));
        assert_eq!(emulator.world().bill().calls, billed);
    }
}

#[tokio::test]
async fn a_code_comes_with_its_status_and_the_seconds_to_wait() {
    let emulator = scripted("x").await;
    emulator.world().add_fault(Fault::code("Throttling.RateQuota").retry_after(7));
    let reply = post(&emulator, CHAT, &chat()).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (429, &json!("limit_requests")));
    assert_eq!(reply.headers["retry-after"], "7");
}

#[tokio::test]
async fn an_error_can_hide_under_status_200() {
    let emulator = scripted("x").await;
    emulator.world().add_fault(Fault::ok_with_error_body("InternalError"));
    let reply = post(&emulator, GENERATION, &generation()).await;
    assert_eq!((reply.status, &reply.json()["code"]), (200, &json!("InternalError")));
    let reply = stream(&emulator, &generation()).await;
    assert_eq!((reply.status, reply.events("event")), (200, vec!["error".to_owned()]));
}

#[tokio::test]
async fn garbage_emptiness_and_false_labels_come_as_scripted() {
    let emulator = scripted("x").await;
    emulator.world().add_fault(Fault::garbage().with_status(502).times(1));
    emulator.world().add_fault(Fault::empty_body().times(1));
    emulator.world().add_fault(Fault::wrong_content_type().times(1));
    let garbage = post(&emulator, CHAT, &chat()).await;
    assert!(garbage.status == 502 && garbage.body.starts_with("<html>"), "{garbage:?}");
    let empty = post(&emulator, CHAT, &chat()).await;
    assert_eq!((empty.status, empty.body.as_str()), (200, ""));
    let mislabelled = post(&emulator, CHAT, &chat()).await;
    assert_eq!(mislabelled.headers["content-type"], "text/html");
    assert_eq!(mislabelled.json()["object"], "chat.completion");
}

#[tokio::test]
async fn a_call_that_hangs_ends_with_the_emulator() {
    let emulator = scripted("x").await;
    emulator.world().add_fault(Fault::hang());
    let world = emulator.world();
    let (body, address) = (chat(), emulator.base_url());
    let request = tokio::task::spawn_blocking(move || hanging(&address, &body.to_string()));
    while world.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    emulator.stop().await;
    assert_eq!(request.await.unwrap(), 0, "a call that hangs was answered");
}

#[tokio::test]
async fn many_calls_at_once_are_all_on_the_bill() {
    let emulator = std::sync::Arc::new(scripted("four words of text").await);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let emulator = std::sync::Arc::clone(&emulator);
        calls.spawn(async move { post(&emulator, CHAT, &chat()).await.status });
    }
    assert!(calls.join_all().await.into_iter().all(|status| status == 200));
    let bill = emulator.world().bill();
    assert_eq!((bill.received, bill.calls), (64, 64));
    assert_eq!((bill.image, bill.text, bill.output), (64 * 11, 64 * 24, 64 * 5));
    assert!(emulator.world().calls().iter().all(|call| call.delivered));
}

/// Posts over a blocking socket and counts the bytes of the answer.
fn hanging(address: &str, body: &str) -> usize {
    use std::io::{Read as _, Write as _};
    let address = address.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(stream, "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer.len()
}
