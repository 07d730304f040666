//! Streams with all kinds of ends: the client's view, and the ledger's.

use dashscope_emulator::Fault;
use futures_util::StreamExt as _;
use ocr_gateway::capacity::Ceiling;
use reqwest::Response;
use serde_json::Value;

use super::{CHAT, GENERATION, both, streamed};
use crate::budgets::accounts;
use crate::harness::{Answer, SCRIPTED_TEXT, Setup, TestGateway, until};
use crate::wire::Wire;

/// A gateway whose upstream records what it sent.
async fn gateway() -> TestGateway {
    TestGateway::with(|setup: &mut Setup| {
        setup.emulator.keep_bodies = true;
        // Otherwise each stream that is cut here would count as a failure.
        setup.settings.upstream.breaker_failures = 1_000;
    })
    .await
}

/// The bytes of a stream, and whether its connection ended properly.
pub(crate) async fn read(response: Response) -> (Vec<u8>, bool) {
    let mut stream = response.bytes_stream();
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(_) => return (all, false),
        }
    }
    (all, true)
}

/// Reads this number of events and then leaves.
async fn leave_after(response: Response, events: usize) {
    let mut stream = response.bytes_stream();
    let mut all = Vec::new();
    while all.windows(2).filter(|pair| *pair == b"\n\n").count() < events {
        let Some(Ok(piece)) = stream.next().await else { return };
        all.extend_from_slice(&piece);
    }
}

/// The number of events that the upstream sends in a whole stream of the path.
async fn events_of(path: &str, body: &Value) -> u64 {
    let gateway = gateway().await;
    read(streamed(&gateway, path, body.clone()).send().await.unwrap()).await;
    let sent = gateway.upstream().calls().pop().unwrap().response_body;
    sent.windows(2).filter(|pair| *pair == b"\n\n").count() as u64
}

/// The settled and the unverified tokens, from the metrics. Both are in the ledger.
async fn accounted(gateway: &TestGateway) -> (u64, u64) {
    let mut counted = (0, 0);
    until("the ledger", async || {
        let spent = gateway.count("tokens_spent_total", &[("tenant", "test")]).await;
        let unverified = gateway.count("tokens_unverified_total", &[("tenant", "test")]).await;
        counted = (spent, unverified);
        accounts(gateway, "test").await == (spent + unverified, 0)
    })
    .await;
    counted
}

#[tokio::test]
async fn a_stream_cut_after_any_event_is_an_error_to_the_client_and_counts_at_its_bound() {
    for (path, body) in both() {
        let whole = events_of(path, &body).await;
        let gateway = gateway().await;
        for events in 1..whole {
            gateway.upstream().clear_faults();
            gateway.upstream().add_fault(Fault::cut_stream_after(events));
            let before = accounted(&gateway).await;
            let response = streamed(&gateway, path, body.clone()).send().await.unwrap();
            let (seen, ended_well) = read(response).await;
            let seen = String::from_utf8(seen).unwrap();
            assert!(!ended_well, "{path} after {events}: {seen}");
            assert!(seen.contains("gateway_code\":\"upstream_error\""), "{seen}");
            assert!(!seen.contains("[DONE]"));
            let sent = gateway.upstream().calls().pop().unwrap().response_body;
            assert!(seen.as_bytes().starts_with(without_bill(path, &sent).as_slice()), "{seen}");
            // If the bill has arrived, it is known although the end is missing.
            let (after, call) =
                (accounted(&gateway).await, gateway.upstream().calls().pop().unwrap());
            let billed = call.billed.unwrap().total();
            if path == CHAT && events + 1 == whole {
                assert_eq!((after.0 - before.0, after.1 - before.1), (billed, 0));
            } else {
                assert_eq!(after.0, before.0);
                assert!(after.1 - before.1 >= billed, "{path} after {events}");
            }
        }
    }
}

/// The part of the upstream's compatible stream that the client gets.
fn without_bill(path: &str, sent: &[u8]) -> Vec<u8> {
    if path == GENERATION {
        return sent.to_vec();
    }
    let text = std::str::from_utf8(sent).unwrap();
    let events = text.split_inclusive("\n\n").filter(|event| !event.contains("\"choices\":[],"));
    events.collect::<String>().into_bytes()
}

#[tokio::test]
async fn a_stream_cut_inside_an_event_breaks_off_between_two() {
    for (path, body) in both() {
        let gateway = gateway().await;
        for bytes in [1, 40, 400, 700] {
            gateway.upstream().clear_faults();
            gateway.upstream().add_fault(Fault::cut_body_at(bytes));
            let response = streamed(&gateway, path, body.clone()).send().await.unwrap();
            let status = response.status();
            let (seen, ended_well) = read(response).await;
            let seen = String::from_utf8(seen).unwrap();
            if status != 200 {
                // Nothing was passed on yet, so the error has its own status.
                assert_eq!(status, 502, "cut at {bytes}: {seen}");
                continue;
            }
            assert!(!ended_well);
            let sent = gateway.upstream().calls().pop().unwrap().response_body;
            let (passed, told) = seen.trim_end().rsplit_once("\n\n").unwrap();
            assert!(sent.starts_with(passed.as_bytes()), "cut at {bytes}: {seen}");
            assert!(told.contains("gateway_code\":\"upstream_error\""), "{told}");
        }
        let (spent, unverified) = accounted(&gateway).await;
        assert!(spent == 0 && unverified >= gateway.upstream().bill().total());
    }
}

#[tokio::test]
async fn a_stream_that_ends_politely_before_its_end_is_no_clean_end() {
    for (path, body) in both() {
        let gateway = gateway().await;
        gateway.upstream().add_fault(Fault::end_stream_after(2));
        let response = streamed(&gateway, path, body).send().await.unwrap();
        let (seen, ended_well) = read(response).await;
        assert!(!ended_well, "{}", String::from_utf8(seen).unwrap());
        assert!(accounted(&gateway).await.1 >= gateway.upstream().bill().total());
    }
}

#[tokio::test]
async fn an_error_that_a_stream_tells_of_the_request_is_passed_on_and_nothing_is_added() {
    for (path, body) in both() {
        let gateway = gateway().await;
        gateway.upstream().add_fault(Fault::error_event_after(2, "DataInspectionFailed"));
        let response = streamed(&gateway, path, body).send().await.unwrap();
        let (seen, ended_well) = read(response).await;
        assert!(ended_well, "the upstream told of it itself");
        let sent = gateway.upstream().calls().pop().unwrap().response_body;
        assert_eq!(String::from_utf8(seen).unwrap(), String::from_utf8(sent).unwrap());
        assert!(accounted(&gateway).await.1 >= gateway.upstream().bill().total());
    }
}

#[tokio::test]
async fn an_error_that_would_be_free_at_once_is_not_after_the_model_has_begun() {
    for (path, body) in both() {
        for code in ["Throttling.RateQuota", "InvalidParameter"] {
            let gateway = gateway().await;
            gateway.upstream().add_fault(Fault::error_event_after(2, code));
            read(streamed(&gateway, path, body.clone()).send().await.unwrap()).await;
            let billed = gateway.upstream().bill().total();
            let (spent, unverified) = accounted(&gateway).await;
            assert!(billed > 0 && spent == 0 && unverified >= billed, "{path} {code}");
        }
    }
}

#[tokio::test]
async fn an_error_that_a_stream_tells_of_the_account_is_told_in_the_gateways_words() {
    for (path, body) in both() {
        let gateway = gateway().await;
        let told = "account 1188 of Example Ltd is overdue";
        let fault = Fault::error_event_after(2, "Arrearage").with_message(told);
        gateway.upstream().add_fault(fault);
        let response = streamed(&gateway, path, body).send().await.unwrap();
        let (seen, ended_well) = read(response).await;
        let seen = String::from_utf8(seen).unwrap();
        assert!(!ended_well && !seen.contains("1188"), "{seen}");
        assert!(seen.contains("\"gateway_code\":\"upstream_account\""), "{seen}");
    }
}

#[tokio::test]
async fn a_stream_without_a_bill_counts_at_its_bound_and_passes() {
    for (path, body) in both() {
        let gateway = gateway().await;
        gateway.upstream().add_fault(Fault::no_usage());
        let response = streamed(&gateway, path, body).send().await.unwrap();
        let (seen, ended_well) = read(response).await;
        assert!(ended_well && !seen.is_empty());
        let (spent, unverified) = accounted(&gateway).await;
        assert!(spent == 0 && unverified >= gateway.upstream().bill().total());
    }
}

#[tokio::test]
async fn a_stream_that_stalls_is_broken_off_when_its_time_is_over() {
    for (path, body) in both() {
        let gateway =
            TestGateway::with(|setup| setup.settings.upstream.idle_timeout_ms = 1_500).await;
        gateway.upstream().add_fault(Fault::stall_stream_after(2));
        let response = streamed(&gateway, path, body).send().await.unwrap();
        let (seen, ended_well) = read(response).await;
        assert!(!ended_well);
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("\"gateway_code\":\"upstream_timeout\""), "{seen}");
        assert_eq!(gateway.count("upstream_attempts_total", &[("outcome", "timeout")]).await, 1);
    }
}

/// A gateway with frequent comments in its streams, and an upstream with slow events.
async fn talkative() -> TestGateway {
    let gateway = TestGateway::with(|setup| {
        setup.emulator.keep_bodies = true;
        setup.settings.server.stream_keep_alive_ms = 20;
    })
    .await;
    gateway.upstream().add_fault(Fault::interval(200));
    gateway
}

#[tokio::test]
async fn comments_stand_between_the_events_of_a_stream_that_is_silent_and_nowhere_else() {
    const COMMENT: &str = ": keep-alive\n\n";
    for (path, mut body) in both() {
        if path == CHAT {
            body["stream_options"] = serde_json::json!({ "include_usage": true });
        }
        let gateway = talkative().await;
        let (seen, ended_well) = read(streamed(&gateway, path, body).send().await.unwrap()).await;
        let seen = String::from_utf8(seen).unwrap();
        assert!(ended_well && seen.contains(COMMENT), "{path}: {seen}");
        assert!(!seen.starts_with(COMMENT), "the first event decides the status");
        let sent = gateway.upstream().calls().pop().unwrap().response_body;
        assert_eq!(seen.replace(COMMENT, "").as_bytes(), sent, "{path}");
        let events = seen.split_terminator("\n\n").filter(|event| event.contains("keep-alive"));
        assert!(events.into_iter().all(|event| event == ": keep-alive"), "{seen}");
    }
}

#[tokio::test]
async fn a_call_that_fails_before_its_first_event_has_its_status_and_no_comment() {
    for (path, body) in both() {
        let gateway = talkative().await;
        gateway.upstream().clear_faults();
        gateway.upstream().add_fault(Fault::code("Arrearage").delayed(200));
        let response = streamed(&gateway, path, body).send().await.unwrap();
        assert_eq!(response.status(), 503);
        assert!(!response.text().await.unwrap().contains("keep-alive"));
    }
}

#[tokio::test]
async fn a_stream_takes_no_longer_in_all_than_a_stream_may() {
    for (path, body) in both() {
        let gateway =
            TestGateway::with(|setup| setup.settings.upstream.stream_timeout_ms = 300).await;
        gateway.upstream().add_fault(Fault::stall_stream_after(2));
        let response = streamed(&gateway, path, body).send().await.unwrap();
        let (seen, ended_well) = read(response).await;
        let seen = String::from_utf8(seen).unwrap();
        assert!(!ended_well && seen.contains("\"gateway_code\":\"upstream_timeout\""), "{seen}");
        let (spent, unverified) = accounted(&gateway).await;
        assert!(spent == 0 && unverified >= gateway.upstream().bill().total());
    }
}

#[tokio::test]
async fn a_client_that_leaves_after_any_event_is_charged_what_its_stream_was_billed() {
    for (path, body) in both() {
        let whole = events_of(path, &body).await;
        let gateway = gateway().await;
        for events in 0..whole {
            let response = streamed(&gateway, path, body.clone()).send().await.unwrap();
            leave_after(response, usize::try_from(events).unwrap()).await;
        }
        // A stream counts only after it has been read to its end.
        until("the bills of all streams", async || {
            let bill = gateway.upstream().bill();
            bill.calls == whole && accounted(&gateway).await == (bill.total(), 0)
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_the_model_writes_is_charged_what_its_stream_was_billed() {
    for (path, body) in both() {
        let gateway = gateway().await;
        gateway.upstream().add_fault(Fault::interval(20));
        let response = streamed(&gateway, path, body.clone()).send().await.unwrap();
        leave_after(response, 1).await;
        until("the bill", async || {
            let billed = gateway.upstream().bill().total();
            billed > 0 && accounted(&gateway).await == (billed, 0)
        })
        .await;
    }
}

#[tokio::test]
async fn the_bill_is_hidden_from_a_client_that_did_not_ask_for_it_and_shown_to_one_that_did() {
    let gateway = gateway().await;
    let body = super::chat();
    let hidden = streamed(&gateway, CHAT, body.clone()).send().await.unwrap().text().await.unwrap();
    let sent = gateway.upstream().calls().pop().unwrap().response_body;
    assert_eq!(hidden.as_bytes(), without_bill(CHAT, &sent));
    assert!(hidden.len() < sent.len() && hidden.ends_with("data: [DONE]\n\n"), "{hidden}");
    let mut body = body;
    body["stream_options"] = serde_json::json!({ "include_usage": true });
    let shown = streamed(&gateway, CHAT, body).send().await.unwrap().text().await.unwrap();
    let sent = gateway.upstream().calls().pop().unwrap().response_body;
    assert_eq!(shown.as_bytes(), sent);
}

#[tokio::test]
async fn without_increments_each_event_holds_all_so_far_and_the_last_total_is_the_bill() {
    let gateway = gateway().await;
    let request = gateway.post(GENERATION).header("X-DashScope-SSE", "enable");
    let text = request.body(super::generation().to_string()).send().await.unwrap().text().await;
    let text = text.unwrap();
    assert!(text.rsplit("data:").next().unwrap().contains(SCRIPTED_TEXT), "{text}");
    assert_eq!(accounted(&gateway).await, (gateway.upstream().bill().total(), 0));
}

#[tokio::test]
async fn an_event_is_passed_on_before_the_next_is_there() {
    let gateway = gateway().await;
    for (path, body) in both() {
        gateway.upstream().clear_faults();
        gateway.upstream().add_fault(Fault::stall_stream_after(1));
        let response = streamed(&gateway, path, body).send().await.unwrap();
        // It arrives although the upstream never sends anything more.
        let first = response.bytes_stream().next().await.unwrap().unwrap();
        assert!(first.ends_with(b"\n\n"), "{path}");
    }
}

#[tokio::test]
async fn a_stream_that_goes_on_holds_its_place_and_not_its_request() {
    let gateway =
        TestGateway::with(|setup| setup.tenant.concurrency = std::num::NonZeroU64::new(1)).await;
    gateway.upstream().add_fault(Fault::stall_stream_after(1).times(1));
    let body = super::chat();
    let response = streamed(&gateway, CHAT, body.clone()).send().await.unwrap();
    let mut stream = response.bytes_stream();
    stream.next().await.unwrap().unwrap();
    until("released memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
    let second = streamed(&gateway, CHAT, body).send().await.unwrap();
    assert_eq!(second.status(), 429);
}

#[tokio::test]
async fn a_client_of_http_1_0_that_could_not_tell_a_cut_stream_is_given_none() {
    let gateway = gateway().await;
    for (path, mut body) in both() {
        let accept = if path == CHAT { "*/*" } else { "text/event-stream" };
        body["stream"] = (path == CHAT).into();
        let body = body.to_string();
        let mut wire = Wire::to(&gateway).await;
        let (length, key) = (body.len(), &gateway.key);
        wire.send(format!(
            "POST {path} HTTP/1.0\r\nX-API-Key: {key}\r\nAccept: {accept}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
        .await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains("proxy_http_version"), "{}", answer.text);
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_client_of_http_1_0_that_asked_for_no_stream_is_given_a_whole_answer() {
    let gateway = gateway().await;
    let counted = async || {
        let spent = gateway.count("tokens_spent_total", &[]).await;
        spent + gateway.count("tokens_unverified_total", &[]).await
    };
    for (path, body) in both() {
        // A stream of this protocol, for an upstream that sends one although none was requested.
        let stream = Answer::of(streamed(&gateway, path, body.clone())).await.text;
        for (cut, status) in [(stream.len(), 200), (stream.len() / 3, 502)] {
            let replay = Fault::replay(200, "text/event-stream", stream[..cut].to_owned());
            gateway.upstream().add_fault(replay.times(1));
            let (body, key, before) = (body.to_string(), &gateway.key, counted().await);
            let mut wire = Wire::to(&gateway).await;
            wire.send(format!(
                "POST {path} HTTP/1.0\r\nX-API-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
            let answer = wire.answer().await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text);
            assert!(!answer.header("content-length").is_empty(), "{path}");
            let names = ["ocr-tokens-input", "ocr-tokens-output", "ocr-tokens-unverified"];
            let told = names.iter().map(|name| answer.header(name).parse::<u64>().unwrap());
            assert_eq!(told.sum::<u64>(), counted().await - before, "{path}: {:?}", answer.headers);
            assert!(status != 200 || answer.text == stream, "{path}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_is_given_what_was_paid_for_where_memory_ends() {
    const ROOM: u64 = 1 << 20;
    let gateway = TestGateway::with(|setup: &mut Setup| {
        setup.settings.server.max_body_bytes = ROOM;
        setup.settings.server.max_in_flight_bytes = Ceiling::Fixed(ROOM);
    })
    .await;
    let body = super::chat();
    let stream = Answer::of(streamed(&gateway, CHAT, body.clone())).await.text;
    // Comments are part of a stream, and reading them needs no memory.
    let long = format!("{}{stream}", format!(": {}\n\n", "-".repeat(1_000)).repeat(2_000));
    gateway.upstream().add_fault(Fault::replay(200, "text/event-stream", long.clone()).times(1));
    let (body, key) = (body.to_string(), &gateway.key);
    let mut wire = Wire::to(&gateway).await;
    wire.send(format!(
        "POST {CHAT} HTTP/1.0\r\nX-API-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let answer = wire.everything().await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{:?}", answer.get(..400));
    assert!(answer.ends_with("data: [DONE]\n\n"), "{} bytes", answer.len());
}
