//! The rate limits of the options apply, with the vendor's messages.

use dashscope_emulator::{Emulator, EngineChoice, Options};
use serde_json::json;

use crate::client::{CHAT, GENERATION, chat, generation, post};

async fn limited(rpm: Option<u64>, tpm: Option<u64>) -> Emulator {
    let engine = EngineChoice::Scripted("x".to_owned());
    Emulator::start(Options { engine, rpm, tpm, ..Options::default() }).await.unwrap()
}

#[tokio::test]
async fn a_second_request_in_one_window_is_throttled() {
    let emulator = limited(Some(1), None).await;
    assert_eq!(post(&emulator, CHAT, &chat()).await.status, 200);
    let compatible = post(&emulator, CHAT, &chat()).await;
    assert_eq!(
        (compatible.status, &compatible.json()["error"]["code"]),
        (429, &json!("limit_requests"))
    );
    let native = post(&emulator, GENERATION, &generation()).await;
    assert_eq!((native.status, &native.json()["code"]), (429, &json!("Throttling.RateQuota")));
    assert_eq!(emulator.world().bill().calls, 1);
}

#[tokio::test]
async fn tokens_spent_throttle_the_next_call() {
    let emulator = limited(None, Some(30)).await;
    assert_eq!(post(&emulator, CHAT, &chat()).await.status, 200);
    let reply = post(&emulator, CHAT, &chat()).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (429, &json!("insufficient_quota")));
}
