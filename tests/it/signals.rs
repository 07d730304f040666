//! Signals that do not end the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::harness::{Answer, SCRIPTED_TEXT, fixture, until};
use crate::program::Installation;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_under_load_is_a_line_of_the_log_and_fails_no_request() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    let mut service = installation.serve().await;
    let key = installation.key("acme").await;
    let (answers, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut callers = JoinSet::new();
    for _ in 0..6 {
        let request = service.post(&key, "/ocr").body(fixture("hello.png"));
        let (answers, is_over) = (Arc::clone(&answers), Arc::clone(&is_over));
        callers.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let answer = Answer::of(request.try_clone().unwrap()).await;
                assert_eq!(answer.status, 200, "{}", answer.text);
                answers.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for times in 1..=3 {
        let before = answers.load(Ordering::Relaxed);
        service.signal("HUP").await;
        until("it is told", async || service.log().matches("SIGHUP").count() == times).await;
        until("answers", async || answers.load(Ordering::Relaxed) >= before + 30).await;
    }
    is_over.store(true, Ordering::Relaxed);
    callers.join_all().await;
    assert!(service.runs());
    service.signal("TERM").await;
    assert_eq!(service.ended().await, Some(0));
}

#[tokio::test]
async fn a_service_whose_terminal_was_closed_serves_on() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    let mut service = installation.serve().await;
    let key = installation.key("acme").await;
    service.close_log().await;
    service.signal("HUP").await;
    for _ in 0..3 {
        let answer = Answer::of(service.post(&key, "/ocr").body(fixture("hello.png"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    service.signal("TERM").await;
    assert_eq!(service.ended().await, Some(0));
}
