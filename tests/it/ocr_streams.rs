//! `/ocr` with `Accept: text/event-stream`: the text as it is written, then the usual answer.

use dashscope_emulator::Fault;
use futures_util::StreamExt as _;
use reqwest::RequestBuilder;
use serde_json::Value;

use crate::harness::{Answer, SCRIPTED_TEXT, TestGateway, fixture, until};

fn listening(gateway: &TestGateway, path: &str) -> RequestBuilder {
    let request = gateway.post(path).header("accept", "text/event-stream");
    request.body(fixture("hello.png"))
}

/// The events of a stream by name, without comments.
async fn events(gateway: &TestGateway, path: &str) -> Vec<(String, Value)> {
    let answer = Answer::of(listening(gateway, path)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let events = answer.text.split_terminator("\n\n").filter(|event| !event.starts_with(':'));
    let parsed = events.map(|event| {
        let (name, data) = event.split_once('\n').unwrap();
        let (name, data) = (name.strip_prefix("event: "), data.strip_prefix("data: "));
        (name.unwrap().to_owned(), serde_json::from_str(data.unwrap()).unwrap())
    });
    parsed.collect()
}

/// The text of the events before the last one.
fn told(events: &[(String, Value)]) -> String {
    let texts = events.iter().filter(|(name, _)| name == "text");
    texts.map(|(_, data)| data["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_text_is_told_while_it_is_read_and_the_usual_answer_comes_last() {
    for path in ["/ocr", "/ocr?prompt=Read", "/ocr?task=multi_lan", "/ocr?format=markdown"] {
        let gateway = TestGateway::start().await;
        let events = events(&gateway, path).await;
        assert!(events.len() > 2, "{path}: {events:?}");
        assert_eq!(told(&events), SCRIPTED_TEXT);
        let [.., page, (name, answer)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((page.0.as_str(), &page.1), ("page", &answer["pages"][0]));
        assert_eq!((name.as_str(), answer["text"].as_str()), ("answer", Some(SCRIPTED_TEXT)));
        let bill = gateway.upstream().bill();
        assert_eq!(answer["usage"]["total_tokens"], bill.total());
        assert_eq!(gateway.count("tokens_spent_total", &[]).await, bill.total());
        assert!(gateway.upstream().calls()[0].stream);
    }
}

#[tokio::test]
async fn a_fence_is_told_as_it_is_written_and_taken_off_in_the_answer() {
    let gateway = TestGateway::start().await;
    let events = events(&gateway, "/ocr?task=table_parsing").await;
    assert!(told(&events).starts_with("```html\n"));
    let answer = &events.last().unwrap().1;
    assert!(answer["text"].as_str().unwrap().starts_with("<table"), "{answer}");
}

#[tokio::test]
async fn what_does_not_come_as_text_comes_with_the_answer_alone() {
    let gateway = TestGateway::start().await;
    let events = events(&gateway, "/ocr?detail=lines").await;
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["page", "answer"]);
    assert!(!events[1].1["pages"][0]["lines"].as_array().unwrap().is_empty());
    assert!(!gateway.upstream().calls()[0].stream);
}

#[tokio::test]
async fn what_is_refused_before_anything_was_told_has_a_status_of_its_own() {
    let gateway = TestGateway::start().await;
    let wrong = Answer::of(listening(&gateway, "/ocr?x=1")).await;
    assert_eq!((wrong.status.as_u16(), wrong.code()), (400, "unknown_option"));
    gateway.upstream().add_fault(Fault::code("Arrearage"));
    let refused = Answer::of(listening(&gateway, "/ocr")).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "upstream_account"));
    let fields = Answer::of(listening(&gateway, "/extract?template=receipt")).await;
    assert_eq!((fields.status.as_u16(), fields.code()), (406, "not_acceptable"));
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_a_problem_and_counts_at_its_bound() {
    for path in ["/ocr", "/ocr?task=text_recognition"] {
        for fault in [Fault::cut_stream_after(3), Fault::end_stream_after(3)] {
            let gateway = TestGateway::start().await;
            gateway.upstream().add_fault(fault);
            let events = events(&gateway, path).await;
            let (name, problem) = events.last().unwrap();
            assert_eq!((name.as_str(), &problem["code"]), ("error", &"upstream_error".into()));
            assert!(problem["request_id"].is_string() && problem["retryable"] == true);
            assert!(!told(&events).is_empty());
            let unverified = gateway.count("tokens_unverified_total", &[]).await;
            assert!(unverified >= gateway.upstream().bill().total());
        }
    }
}

#[tokio::test]
async fn a_listener_that_leaves_is_charged_what_was_billed() {
    let gateway = TestGateway::start().await;
    let response = listening(&gateway, "/ocr").send().await.unwrap();
    response.bytes_stream().next().await.unwrap().unwrap();
    until("the bill", async || {
        let bill = gateway.upstream().bill().total();
        bill > 0 && gateway.count("tokens_spent_total", &[]).await == bill
    })
    .await;
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
}
