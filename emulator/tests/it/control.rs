//! The control API has the same functions over HTTP as `World` in Rust.

use serde_json::json;

use crate::client::{CHAT, chat, post, scripted, send};

#[tokio::test]
async fn faults_are_added_shown_and_cleared_over_http() {
    let emulator = scripted("x").await;
    let faults = json!([{"code": "Throttling", "times": 1}, {"delay_ms": 1}]);
    assert_eq!(post(&emulator, "/__emulator/faults", &faults).await.status, 201);
    assert_eq!(post(&emulator, CHAT, &chat()).await.status, 429);
    let left = send(&emulator, "GET /__emulator/faults", "", "").await.json();
    assert_eq!(left, json!([{ "delay_ms": 1 }]));
    assert_eq!(send(&emulator, "DELETE /__emulator/faults", "", "").await.status, 204);
    assert!(emulator.world().faults().is_empty());
}

#[tokio::test]
async fn a_fault_that_is_misspelt_is_refused_and_adds_nothing() {
    let emulator = scripted("x").await;
    let reply =
        post(&emulator, "/__emulator/faults", &json!([{"reset": true}, {"rset": true}])).await;
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("`rset`"), "{}", reply.body);
    assert!(emulator.world().faults().is_empty());
}

#[tokio::test]
async fn calls_and_the_bill_are_shown_and_cleared_over_http() {
    let emulator = scripted("four").await;
    post(&emulator, CHAT, &chat()).await;
    let calls = send(&emulator, "GET /__emulator/calls", "", "").await.json();
    assert_eq!(calls[0]["key_suffix"], "1234");
    assert_eq!(calls[0]["images"][0]["width"], 100);
    assert_eq!(calls[0]["billed"], json!({"image": 11, "text": 24, "output": 1}));
    let bill = send(&emulator, "GET /__emulator/bill", "", "").await.json();
    assert_eq!(bill, json!({"received": 1, "calls": 1, "image": 11, "text": 24, "output": 1}));
    assert_eq!(send(&emulator, "DELETE /__emulator/calls", "", "").await.status, 204);
    assert_eq!(emulator.world().bill(), dashscope_emulator::Bill::default());
}
