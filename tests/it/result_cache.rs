//! Equal requests are read once: from the cache, or together with one that is under way.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use dashscope_emulator::Fault;
use futures_util::future::join_all;
use ocr_gateway::auth::tenant::Tenant;
use reqwest::RequestBuilder;
use serde_json::json;

use crate::harness::{
    Answer, SCRIPTED_TEXT, Setup, TestGateway, fixture, jpeg_of, spawn, today, until,
};
use crate::mistral;
use crate::pages::{numbered, width_of};
use crate::shapes::{check, documented};

/// The tenant's setting: longer than any test takes.
const HOUR: u64 = 3600;

/// Fields of the fixtures.
const SCHEMA: &str = r#"{"type":"object","properties":{"total":{"type":"number"}}}"#;

/// A gateway whose tenant has answers kept, with the changes of `change`.
async fn caching_with(change: impl FnOnce(&mut Setup)) -> TestGateway {
    TestGateway::with(|setup| {
        setup.tenant.cache_ttl = HOUR;
        change(setup);
    })
    .await
}

async fn caching() -> TestGateway {
    caching_with(|_| {}).await
}

/// How a file was answered.
async fn status_of(gateway: &TestGateway, path: &str) -> String {
    let answer = gateway.upload(path, fixture("hello.png")).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.header("ocr-cache").to_owned()
}

fn received(gateway: &TestGateway) -> u64 {
    gateway.upstream().bill().received
}

/// How often each word stands in the header of answers, which are all 200 with the text.
fn counted(answers: &[Answer]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json["text"], SCRIPTED_TEXT);
        *counts.entry(answer.header("ocr-cache")).or_default() += 1;
    }
    counts
}

// Hits.

#[tokio::test]
async fn an_equal_request_is_answered_from_the_cache_and_costs_nothing() {
    let gateway = caching().await;
    let first = gateway.upload("/ocr?metadata={\"n\":1}", fixture("hello.png")).await;
    assert_eq!((first.status.as_u16(), first.header("ocr-cache")), (200, "miss"));
    let bill = gateway.upstream().bill();
    let second = gateway.upload("/ocr?metadata={\"n\":2}", fixture("hello.png")).await;
    assert_eq!((second.status.as_u16(), second.header("ocr-cache")), (200, "hit"));
    assert_eq!(gateway.upstream().bill().received, 1);

    let (first, second) = (first.json, second.json);
    assert_ne!(first["id"], second["id"]);
    assert_eq!(second["metadata"], json!({ "n": 2 }));
    for member in ["text", "status", "model", "document", "warnings"] {
        assert_eq!(first[member], second[member], "{member}");
    }
    let mut page = first["pages"][0].clone();
    page["source"] = "cache".into();
    page["image_tokens"] = json!({ "estimated": 0, "billed": 0 });
    assert_eq!(second["pages"][0], page);
    let usage = &second["usage"];
    for member in ["image_tokens", "input_tokens", "output_tokens", "total_tokens"] {
        assert_eq!(usage[member], 0, "{member}");
    }
    assert_eq!((&usage["upstream_calls"], &usage["cost"]["amount"]), (&json!(0), &json!("0")));
    assert_eq!(usage["tokens_saved"], first["usage"]["image_tokens"]);
    assert_eq!(second["upstream"], json!({ "request_ids": [], "endpoint": null }));

    let reason = [("reason", "cache")];
    assert_eq!(gateway.count("tokens_saved_total", &reason).await, bill.image);
    assert_eq!(gateway.count("tokens_spent_total", &[]).await, bill.total());
    for (outcome, count) in [("hit", 1), ("miss", 1), ("shared", 0)] {
        let labels = [("outcome", outcome), ("tenant", "test")];
        assert_eq!(gateway.count("cache_requests_total", &labels).await, count, "{outcome}");
    }
    assert_eq!(gateway.count("cache_entries", &[]).await, 1);
    assert!(gateway.count("cache_bytes", &[]).await > 0);
}

#[tokio::test]
async fn an_answer_from_the_cache_says_how_the_page_was_sent_in_the_same_words() {
    let gateway = caching().await;
    for query in ["max_pixels=auto", "max_pixels=100000", "detail=lines", "min_pixels=500000"] {
        let path = format!("/ocr?{query}");
        let ask = || gateway.upload(&path, fixture("hello.png"));
        let (first, second) = (ask().await, ask().await);
        assert_eq!(second.header("ocr-cache"), "hit", "{query}");
        for member in ["sent", "lines", "width", "height", "finish_reason", "warnings"] {
            let of = |answer: &Answer| answer.json["pages"][0][member].to_string();
            assert_eq!(of(&first), of(&second), "{query}: {member}");
        }
    }
}

#[tokio::test]
async fn a_hit_is_a_row_of_no_cost_in_the_usage_and_the_books_are_right() {
    let gateway = caching().await;
    assert_eq!(status_of(&gateway, "/ocr").await, "miss");
    let bill = gateway.upstream().bill();
    for _ in 0..3 {
        assert_eq!(status_of(&gateway, "/ocr").await, "hit");
    }
    let usage = Answer::of(gateway.get("/usage")).await.json;
    let total = &usage["total"];
    assert_eq!((&total["calls"], &total["unverified_calls"]), (&json!(4), &json!(0)));
    assert_eq!(total["total_tokens"], bill.total());
    assert_eq!(usage["budgets"]["day"]["tokens"]["settled"], bill.total());
    assert_eq!(gateway.store.ledger().audit(today()).await.unwrap(), []);
}

#[tokio::test]
async fn an_answer_in_another_format_is_made_of_the_same_entry() {
    let gateway = caching().await;
    assert_eq!(status_of(&gateway, "/ocr").await, "miss");
    let text = gateway.upload("/ocr?format=text", fixture("hello.png")).await;
    assert_eq!((text.text.as_str(), text.header("ocr-cache")), (SCRIPTED_TEXT, "hit"));
    for header in ["ocr-tokens-image", "ocr-tokens-input", "ocr-tokens-output"] {
        assert_eq!(text.header(header), "0");
    }
    assert_eq!(received(&gateway), 1);
}

#[tokio::test]
async fn fields_are_answered_from_the_cache_digit_for_digit() {
    let text = r#"{"total": 0.30000000000000004, "other": 1}"#;
    let gateway = caching_with(|setup| {
        setup.emulator.engine = dashscope_emulator::EngineChoice::Scripted(text.to_owned());
    })
    .await;
    let path = format!("/extract?schema={SCHEMA}");
    let first = gateway.upload(&path, fixture("hello.png")).await;
    assert_eq!((first.status.as_u16(), first.header("ocr-cache")), (200, "miss"), "{}", first.text);
    let second = gateway.upload(&path, fixture("hello.png")).await;
    assert_eq!(second.header("ocr-cache"), "hit");
    for member in ["data", "fields", "validation", "warnings", "text"] {
        assert_eq!(first.json[member].to_string(), second.json[member].to_string(), "{member}");
    }
    // Grounded fields are another answer, with places.
    let path = format!("{path}&ground=true&detail=lines");
    let [first, second] = [(); 2].map(|()| gateway.upload(&path, fixture("hello.png")));
    let (first, second) = (first.await, second.await);
    assert_eq!((first.header("ocr-cache"), second.header("ocr-cache")), ("miss", "hit"));
    for member in ["data", "fields", "checks"] {
        assert_eq!(first.json[member].to_string(), second.json[member].to_string(), "{member}");
    }
}

#[tokio::test]
async fn a_document_is_answered_from_the_cache_page_by_page() {
    let gateway = caching().await;
    let [first, second] = [(); 2].map(|()| gateway.upload("/ocr?dpi=72", numbered(3)));
    let (first, second) = (first.await, second.await);
    assert_eq!((first.header("ocr-cache"), second.header("ocr-cache")), ("miss", "hit"));
    assert_eq!(second.json["pages"].as_array().unwrap().len(), 3);
    for page in second.json["pages"].as_array().unwrap() {
        assert_eq!(
            (&page["source"], &page["image_tokens"]["billed"]),
            (&json!("cache"), &json!(0))
        );
    }
    assert_eq!(second.json["usage"]["tokens_saved"], first.json["usage"]["image_tokens"]);
    assert_eq!(received(&gateway), 3);
    assert_eq!(gateway.count("pages_total", &[("source", "cache")]).await, 3);
}

#[tokio::test]
async fn mistral_s_path_takes_part() {
    let gateway = caching().await;
    let ask = || {
        let body = mistral::request(&fixture("hello.png")).to_string();
        gateway.post(mistral::OCR).header("content-type", "application/json").body(body)
    };
    let (first, second) = (Answer::of(ask()).await, Answer::of(ask()).await);
    assert_eq!((first.header("ocr-cache"), second.header("ocr-cache")), ("miss", "hit"));
    assert_eq!(first.json["pages"], second.json["pages"]);
    assert_eq!(received(&gateway), 1);
}

#[tokio::test]
async fn a_stream_is_told_a_hit_as_its_pages_and_the_answer() {
    let gateway = caching().await;
    let ask =
        || gateway.post("/ocr").header("accept", "text/event-stream").body(fixture("hello.png"));
    let (first, second) = (Answer::of(ask()).await, Answer::of(ask()).await);
    assert_eq!((first.header("ocr-cache"), second.header("ocr-cache")), ("miss", "hit"));
    assert!(first.text.contains("event: text"));
    let events: Vec<_> =
        second.text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(events, ["page", "answer"]);
    assert!(second.text.contains("\"source\":\"cache\""));
    assert_eq!(status_of(&gateway, "/ocr").await, "hit");
    assert_eq!(received(&gateway), 1);
}

#[tokio::test]
async fn a_hit_needs_no_budget_and_counts_under_the_requests_a_minute() {
    let gateway = caching().await;
    let estimate = gateway.upload("/estimate", fixture("hello.png")).await.json;
    let bound = estimate["bound"]["total_tokens"].as_u64().unwrap();
    let acme = Tenant {
        cache_ttl: HOUR,
        // Room for one call.
        daily_tokens: NonZeroU64::new(bound),
        requests_per_minute: NonZeroU64::new(3),
        ..Tenant::new("acme".parse().unwrap())
    };
    let key = gateway.key_of(&acme).await;
    let ask = |file| Answer::of(gateway.post_as(&key, "/ocr").body(fixture(file)));
    assert_eq!(ask("hello.png").await.header("ocr-cache"), "miss");
    assert_eq!(ask("hello.jpg").await.code(), "budget_exhausted");
    let hit = ask("hello.png").await;
    assert_eq!((hit.status.as_u16(), hit.header("ocr-cache")), (200, "hit"));
    let spent = gateway.upstream().bill().total();
    assert_eq!(hit.json["limits"]["tokens_remaining"]["day"], bound - spent);
    assert_eq!(ask("hello.png").await.code(), "rate_limited");
}

// Misses.

#[tokio::test]
async fn another_file_option_model_or_tenant_is_a_miss() {
    let gateway = caching().await;
    assert_eq!(status_of(&gateway, "/ocr").await, "miss");
    for query in ["prompt=Read", "language=fr", "max_pixels=100000", "detail=lines", "rotate=off"] {
        assert_eq!(status_of(&gateway, &format!("/ocr?{query}")).await, "miss", "{query}");
        assert_eq!(status_of(&gateway, &format!("/ocr?{query}")).await, "hit", "{query}");
    }
    let other = gateway.upload("/ocr", fixture("hello.jpg")).await;
    assert_eq!(other.header("ocr-cache"), "miss");
    let acme = Tenant { cache_ttl: HOUR, ..Tenant::new("acme".parse().unwrap()) };
    let key = gateway.key_of(&acme).await;
    let ask = || gateway.post_as(&key, "/ocr").body(fixture("hello.png"));
    assert_eq!(Answer::of(ask()).await.header("ocr-cache"), "miss");
    assert_eq!(Answer::of(ask()).await.header("ocr-cache"), "hit");
    let key = gateway.another_key(|_| {}).await;
    let own = Answer::of(gateway.post_as(&key, "/ocr").body(fixture("hello.png"))).await;
    assert_eq!(own.header("ocr-cache"), "hit", "the keys of a tenant share its answers");
}

#[tokio::test]
async fn a_tenant_without_the_setting_and_other_routes_take_no_part() {
    let gateway = TestGateway::start().await;
    for _ in 0..2 {
        assert_eq!(status_of(&gateway, "/ocr").await, "");
    }
    assert_eq!(received(&gateway), 2);
    let gateway = caching().await;
    for path in ["/estimate", "/ocr?format=pdf", "/ocr?format=pdf"] {
        assert_eq!(status_of(&gateway, path).await, "", "{path}");
    }
    assert_eq!(received(&gateway), 2);
}

#[tokio::test]
async fn a_request_may_refuse_the_cache() {
    let gateway = caching().await;
    let ask = async |directive: &str| {
        let request = gateway.post("/ocr").header("cache-control", directive);
        let answer = Answer::of(request.body(fixture("hello.png"))).await;
        (answer.header("ocr-cache").to_owned(), received(&gateway))
    };
    assert_eq!(ask("no-store").await, (String::new(), 1));
    assert_eq!(ask("max-age=60").await, ("miss".to_owned(), 2), "no-store keeps nothing");
    assert_eq!(ask("no-store").await, (String::new(), 3));
    assert_eq!(ask("no-cache").await, ("miss".to_owned(), 4));
    assert_eq!(ask("max-age=60").await, ("hit".to_owned(), 4));
    let gateway = caching().await;
    let renewed = gateway.post("/ocr").header("cache-control", "no-cache");
    Answer::of(renewed.body(fixture("hello.png"))).await;
    assert_eq!(status_of(&gateway, "/ocr").await, "hit", "no-cache keeps its answer");
}

#[tokio::test]
async fn an_answer_is_gone_after_its_time() {
    let gateway = caching_with(|setup| setup.tenant.cache_ttl = 1).await;
    assert_eq!(status_of(&gateway, "/ocr").await, "miss");
    until("it is removed", async || gateway.count("cache_entries", &[]).await == 0).await;
    assert_eq!(gateway.count("cache_bytes", &[]).await, 0);
    assert_eq!(status_of(&gateway, "/ocr").await, "miss");
}

#[tokio::test]
async fn an_answer_that_is_not_whole_is_not_kept() {
    let gateway = caching().await;
    let refused = Fault::code("DataInspectionFailed").for_images_as_wide_as(width_of(2)).times(1);
    gateway.upstream().add_fault(refused);
    let first = gateway.upload("/ocr?dpi=72", numbered(2)).await;
    assert_eq!(
        (first.json["status"].as_str(), first.header("ocr-cache")),
        (Some("partial"), "miss")
    );
    let second = gateway.upload("/ocr?dpi=72", numbered(2)).await;
    assert_eq!(second.json["status"], "succeeded");
    assert_eq!(second.header("ocr-cache"), "miss");
}

#[tokio::test]
async fn a_cache_without_memory_keeps_nothing() {
    let gateway = caching_with(|setup| setup.settings.cache.memory_bytes = 0).await;
    for _ in 0..2 {
        assert_eq!(status_of(&gateway, "/ocr").await, "miss");
    }
}

// Requests that are under way.

fn upload(gateway: &TestGateway) -> RequestBuilder {
    gateway.post("/ocr").body(fixture("hello.png"))
}

/// Waits until the service works on so many requests.
async fn until_in_flight(gateway: &TestGateway, requests: u64) {
    let count = async || gateway.count("in_flight_requests", &[]).await;
    until("requests", async || count().await >= requests).await;
}

#[tokio::test]
async fn equal_requests_that_are_under_way_share_one_call() {
    let gateway = caching().await;
    gateway.upstream().add_fault(Fault::delay(1_000));
    let answers = join_all((0..50).map(|_| Answer::of(upload(&gateway)))).await;
    let counts = counted(&answers);
    assert_eq!(counts["miss"], 1, "{counts:?}");
    assert!(counts["shared"] >= 1, "{counts:?}");
    assert_eq!(received(&gateway), 1);
    for answer in answers.iter().filter(|answer| answer.header("ocr-cache") == "shared") {
        assert_eq!(answer.json["usage"]["total_tokens"], 0);
        assert_eq!(answer.json["pages"][0]["source"], "cache");
    }
    assert_eq!(gateway.count("in_flight_bytes", &[]).await, 0);
}

#[tokio::test]
async fn a_failure_about_the_file_is_everybody_s() {
    let gateway = caching().await;
    gateway.upstream().add_fault(Fault::code("DataInspectionFailed").delayed(1_000));
    let answers = join_all((0..10).map(|_| Answer::of(upload(&gateway))));
    let (answers, ()) = tokio::join!(answers, until_in_flight(&gateway, 10));
    assert!(answers.iter().all(|answer| answer.code() == "content_rejected"));
    assert_eq!(received(&gateway), 1);
    gateway.upstream().clear_faults();
    assert_eq!(status_of(&gateway, "/ocr").await, "miss", "a failure is not kept");
}

#[tokio::test]
async fn after_another_failure_the_next_request_reads_the_file() {
    let gateway = caching().await;
    gateway.upstream().add_fault(Fault::code("InvalidParameter").delayed(1_000).times(1));
    let answers = join_all((0..10).map(|_| Answer::of(upload(&gateway))));
    let (answers, ()) = tokio::join!(answers, until_in_flight(&gateway, 10));
    let (failed, read): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status != 200);
    assert_eq!(failed.len(), 1);
    let counts = counted(&read);
    assert_eq!(counts["miss"], 1, "{counts:?}");
    assert_eq!(received(&gateway), 2);
}

#[tokio::test]
async fn a_waiting_request_has_its_own_deadline() {
    let gateway = caching().await;
    gateway.upstream().add_fault(Fault::delay(2_000));
    let first = Answer::of(upload(&gateway));
    let impatient = async {
        gateway.until_upstream_has(1).await;
        Answer::of(upload(&gateway).header("prefer", "wait=1")).await
    };
    let (first, impatient) = tokio::join!(first, impatient);
    assert_eq!((first.status.as_u16(), first.header("ocr-cache")), (200, "miss"));
    assert_eq!(impatient.code(), "deadline_exceeded");
    assert_eq!(received(&gateway), 1);
}

#[tokio::test]
async fn the_deadline_of_the_first_caller_cuts_no_call_that_others_wait_for() {
    let gateway = caching().await;
    gateway.upstream().add_fault(Fault::delay(3_000));
    let first = Answer::of(upload(&gateway).header("prefer", "wait=2"));
    let others = async {
        gateway.until_upstream_has(1).await;
        join_all((0..5).map(|_| Answer::of(upload(&gateway)))).await
    };
    let (first, others) = tokio::join!(first, others);
    assert_eq!((first.status.as_u16(), first.code()), (504, "deadline_exceeded"));
    assert!(first.json["usage"]["unverified_tokens"].as_u64() > Some(0), "its call is under way");
    assert_eq!(counted(&others), BTreeMap::from([("shared", 5)]));
    assert_eq!(received(&gateway), 1);
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
}

#[tokio::test]
async fn retries_of_impatient_callers_pay_one_call_and_find_its_answer() {
    let gateway = caching().await;
    gateway.upstream().add_fault(Fault::delay(5_000));
    let streamed = upload(&gateway).header("accept", "text/event-stream");
    let streamed = Answer::of(streamed.header("prefer", "wait=2"));
    let retry = async {
        gateway.until_upstream_has(1).await;
        Answer::of(upload(&gateway).header("prefer", "wait=2")).await
    };
    let (streamed, retry) = tokio::join!(streamed, retry);
    for late in [streamed, retry] {
        assert_eq!((late.status.as_u16(), late.code()), (504, "deadline_exceeded"));
    }
    until_in_flight(&gateway, 1).await;
    let last = Answer::of(upload(&gateway)).await;
    assert_eq!((last.status.as_u16(), last.header("ocr-cache")), (200, "shared"));
    assert_eq!(received(&gateway), 1);
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
}

/// The answers to one request by an impatient caller that comes first, and by a patient one that waits with it.
async fn impatient_and_patient(
    gateway: &TestGateway,
    path: &str,
    seconds: u32,
    file: Vec<u8>,
) -> [Answer; 2] {
    let ask = || gateway.post(path).body(file.clone());
    let first = Answer::of(ask().header("prefer", format!("wait={seconds}")));
    let other = async {
        gateway.until_upstream_has(1).await;
        Answer::of(ask()).await
    };
    let (first, other) = tokio::join!(first, other);
    assert_eq!((other.status.as_u16(), other.header("ocr-cache")), (200, "shared"), "{path}");
    assert_eq!(other.json["status"], "succeeded", "{}", other.text);
    assert_eq!(other.json["usage"]["total_tokens"], 0);
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
    [first, other]
}

const FIELDS: &str = r#"{"type":"object","properties":{"no":{"type":"string"}}}"#;

#[tokio::test]
async fn the_deadline_of_the_first_caller_cuts_no_page_that_others_wait_for() {
    let ground = format!("/extract?schema={FIELDS}&ground=true");
    for (path, file, calls) in [
        ("/ocr?dpi=72", numbered(3), 3),
        (&ground, fixture("hello.png"), 2),
        ("/ocr?max_pixels=auto", fixture("hello.png"), 1),
    ] {
        let gateway = caching_with(|setup| setup.tenant.escalate = true).await;
        gateway.upstream().add_fault(Fault::delay(3_000));
        let [first, _] = impatient_and_patient(&gateway, path, 2, file).await;
        assert_eq!((first.status.as_u16(), first.code()), (504, "deadline_exceeded"), "{path}");
        assert!(first.json["usage"]["unverified_tokens"].as_u64() > Some(0), "{path}");
        assert_eq!(received(&gateway), calls, "{path}");
    }
}

#[tokio::test]
async fn the_first_caller_gets_the_pages_that_are_read_by_its_deadline_and_others_get_all() {
    let gateway = caching().await;
    let slow = Fault::delay(4_000).for_images_as_wide_as(width_of(1));
    gateway.upstream().add_fault(slow);
    let [first, other] = impatient_and_patient(&gateway, "/ocr?dpi=72", 2, numbered(3)).await;
    assert_eq!((first.status.as_u16(), &first.json["status"]), (200, &"partial".into()));
    assert_eq!(first.json["pages"][0]["error"]["code"], "deadline_exceeded", "{}", first.text);
    for page in [1, 2] {
        assert_eq!(first.json["pages"][page]["text"], other.json["pages"][page]["text"]);
    }
    assert!(first.json["usage"]["unverified_tokens"].as_u64() > Some(0), "{}", first.text);
    assert_eq!(received(&gateway), 3);
}

#[tokio::test]
async fn the_first_caller_gets_its_fields_without_the_text_that_others_wait_for() {
    let gateway = caching().await;
    let slow = Fault::delay(4_000).for_bodies_with("advanced_recognition");
    gateway.upstream().add_fault(slow);
    let path = format!("/extract?schema={FIELDS}&ground=true&detail=lines");
    let [first, other] = impatient_and_patient(&gateway, &path, 2, fixture("hello.png")).await;
    assert_eq!(first.status, 200, "{}", first.text);
    check(&documented("ExtractAnswer"), &first.json);
    let warning = &first.json["pages"][0]["warnings"][0];
    assert_eq!(
        (&warning["code"], &warning["error"]["code"]),
        (&"text_not_read".into(), &"deadline_exceeded".into())
    );
    assert_eq!(
        (&first.json["data"], &other.json["pages"][0]["warnings"]),
        (&other.json["data"], &json!([]))
    );
    assert_eq!(received(&gateway), 2);
}

#[tokio::test]
async fn pages_that_nobody_waits_for_any_more_are_not_sent() {
    let gateway = caching_with(|setup| setup.settings.documents.pages_at_once = 1).await;
    gateway.upstream().add_fault(Fault::delay(3_000));
    let request = gateway.post("/ocr?dpi=72").header("prefer", "wait=2").body(numbered(3));
    let answer = Answer::of(request).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (504, "deadline_exceeded"));
    until("the end", async || gateway.count("in_flight_requests", &[]).await == 0).await;
    assert_eq!(received(&gateway), 1);
}

#[tokio::test]
async fn pages_of_a_caller_who_gave_up_are_read_on_for_a_retry_that_comes_in_time() {
    let gateway = caching_with(|setup| setup.settings.documents.pages_at_once = 1).await;
    gateway.upstream().add_fault(Fault::delay(4_000));
    let ask = || gateway.post("/ocr?dpi=72").body(numbered(3));
    let first = Answer::of(ask().header("prefer", "wait=2")).await;
    assert_eq!((first.status.as_u16(), first.code()), (504, "deadline_exceeded"));
    let retry = Answer::of(ask()).await;
    assert_eq!((retry.status.as_u16(), retry.header("ocr-cache")), (200, "shared"));
    assert_eq!(retry.json["status"], "succeeded", "{}", retry.text);
    assert_eq!(received(&gateway), 3);
}

#[tokio::test]
async fn a_caller_gets_the_pages_that_are_read_by_its_deadline() {
    let gateway = caching().await;
    gateway.upstream().add_fault(Fault::hang().for_images_as_wide_as(width_of(1)));
    let request = gateway.post("/ocr?dpi=72").header("prefer", "wait=4").body(numbered(3));
    let answer = Answer::of(request).await;
    assert_eq!((answer.status.as_u16(), &answer.json["status"]), (200, &"partial".into()));
}

#[tokio::test]
async fn what_is_read_for_a_caller_that_left_answers_the_next_one() {
    let gateway = caching().await;
    gateway.upstream().add_fault(Fault::delay(500));
    let leaving = spawn(upload(&gateway).send());
    gateway.until_upstream_has(1).await;
    leaving.abort();
    let next = Answer::of(upload(&gateway)).await;
    assert_eq!(next.status, 200, "{}", next.text);
    assert!(["hit", "shared"].contains(&next.header("ocr-cache")));
    assert_eq!(received(&gateway), 1);
}

#[tokio::test]
async fn those_who_wait_are_answered_although_the_first_caller_left() {
    let gateway = caching().await;
    gateway.upstream().add_fault(Fault::delay(1_000));
    let leaving = spawn(upload(&gateway).send());
    gateway.until_upstream_has(1).await;
    let waiting = join_all((0..5).map(|_| Answer::of(upload(&gateway))));
    let leave = async {
        until_in_flight(&gateway, 6).await;
        leaving.abort();
    };
    let (answers, ()) = tokio::join!(waiting, leave);
    assert_eq!(counted(&answers), BTreeMap::from([("shared", 5)]));
    assert_eq!(received(&gateway), 1);
}

#[tokio::test]
async fn a_retry_that_comes_while_the_first_call_runs_joins_it() {
    let gateway = caching().await;
    gateway.upstream().add_fault(Fault::delay(1_500));
    let impatient = upload(&gateway).timeout(Duration::from_millis(500)).send();
    assert!(impatient.await.is_err());
    let retry = Answer::of(upload(&gateway)).await;
    assert_eq!((retry.status.as_u16(), retry.header("ocr-cache")), (200, "shared"));
    assert_eq!(received(&gateway), 1);
}

#[tokio::test]
async fn a_waiting_request_holds_no_file() {
    let gateway = caching().await;
    gateway.upstream().add_fault(Fault::delay(1_000));
    let file = jpeg_of(1_000_000);
    let ask = || Answer::of(gateway.post("/ocr").body(file.clone()));
    let bytes = async {
        until_in_flight(&gateway, 20).await;
        let held = async || gateway.count("in_flight_bytes", &[]).await;
        // One file is being read, and one is kept for the next leader.
        until("the others are dropped", async || held().await <= 2_100_000).await;
    };
    let (answers, ()) = tokio::join!(join_all((0..20).map(|_| ask())), bytes);
    counted(&answers);
    assert_eq!(received(&gateway), 1);
}

/// What is documented of an answer holds for one from the cache.
#[tokio::test]
async fn an_answer_from_the_cache_has_the_documented_shape() {
    let gateway = caching().await;
    for _ in 0..2 {
        let answer = gateway.upload("/ocr", fixture("hello.png")).await;
        check(&documented("OcrAnswer"), &answer.json);
    }
}
