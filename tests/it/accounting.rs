//! Each billed token is in the answers and in the metrics, or counts as lost.
//!
//! A thousand requests of several tenants go through an upstream that fails in every way that the emulator can script.
//! Afterwards three accounts must agree: the answers to the callers, the metrics, and the emulator's bill.

use std::sync::Arc;

use dashscope_emulator::{Fault, World};
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::units::Pixels;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::dropin::{CHAT, chat};
use crate::harness::{Answer, TestGateway, fixture};

const REQUESTS: usize = 1000;
const WORKERS: usize = 16;

/// Sums of the callers' answers. Money is in billionths.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Told {
    tokens: u64,
    nanos: u64,
    answers: u64,
    problems: u64,
}

impl Told {
    fn hear(&mut self, answer: &Answer) {
        let usage = &answer.json["usage"];
        self.tokens += usage["total_tokens"].as_u64().unwrap_or(0);
        self.nanos += usage["cost"]["amount"].as_str().map_or(0, nanos);
        *(if answer.status == 200 { &mut self.answers } else { &mut self.problems }) += 1;
    }

    fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            nanos: self.nanos + other.nanos,
            answers: self.answers + other.answers,
            problems: self.problems + other.problems,
        }
    }
}

/// A decimal amount in billionths, computed without floats.
fn nanos(amount: &str) -> u64 {
    let (units, decimals) = amount.split_once('.').unwrap_or((amount, ""));
    assert!(decimals.len() <= 9, "{amount}");
    format!("{units}{decimals:0<9}").parse().unwrap()
}

/// All kinds of failure. Each affects some of the calls, about a quarter in total.
fn faults() -> [Fault; 9] {
    [
        Fault::code("Throttling.RateQuota").every(17),
        Fault::status(500).every(23),
        Fault::cut_body_at(40).every(29),
        Fault::reset().after_inference().every(31),
        Fault::reset().every(37),
        Fault::empty_body().after_inference().every(41),
        Fault::garbage().after_inference().every(43),
        Fault::ok_with_error_body("InvalidParameter").every(47),
        Fault::code("DataInspectionFailed").every(53),
    ]
}

/// The bill of calls whose answer was spoilt by a fault.
fn lost(upstream: &World) -> u64 {
    let calls = upstream.calls();
    let spoilt = calls.iter().filter(|call| call.faulted);
    spoilt.filter_map(|call| call.billed).map(|usage| usage.total()).sum()
}

/// The keys of three tenants: without a cap, with a cap, and with a cap that shrinks each image.
async fn keys(gateway: &TestGateway) -> Vec<String> {
    let mut keys = Vec::new();
    for (name, cap) in [("free", None), ("capped", Some(65_536)), ("tight", Some(16_384))] {
        let max_pixels = cap.map(Pixels::new);
        let tenant = Tenant { max_pixels, ..Tenant::new(name.parse().unwrap()) };
        keys.push(gateway.key_of(&tenant).await);
    }
    keys
}

/// Sends every `WORKERS`-th request, one after another.
async fn work(gateway: Arc<TestGateway>, keys: Arc<[String]>, first: usize) -> Told {
    let images = ["hello.png", "hello.jpg", "hello.webp", "sideways.jpg", "blank.png"];
    let routes =
        ["/ocr", "/extract?template=receipt", "/ocr?detail=lines", "/ocr?prompt=Read%20it"];
    let mut told = Told::default();
    for number in (first..REQUESTS).step_by(WORKERS) {
        let url = format!("{}{}", gateway.address, routes[number % routes.len()]);
        let request = gateway.http.post(url).bearer_auth(&keys[number % keys.len()]);
        told.hear(&Answer::of(request.body(fixture(images[number % images.len()]))).await);
    }
    told
}

/// Sends the thousand requests.
async fn mixed_run(gateway: &Arc<TestGateway>) -> Told {
    for fault in faults() {
        gateway.upstream().add_fault(fault);
    }
    let keys: Arc<[String]> = keys(gateway).await.into();
    let mut workers = JoinSet::new();
    for first in 0..WORKERS {
        workers.spawn(work(Arc::clone(gateway), Arc::clone(&keys), first));
    }
    workers.join_all().await.into_iter().fold(Told::default(), Told::plus)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_mixed_requests_leave_three_accounts_that_agree() {
    let gateway = Arc::new(TestGateway::start().await);
    let told = mixed_run(&gateway).await;
    let upstream = gateway.upstream();
    let (billed, lost) = (upstream.bill().total(), lost(&upstream));
    let spent = gateway.count("tokens_spent_total", &[]).await;
    let unverified = gateway.count("tokens_unverified_total", &[]).await;
    assert_eq!(told.answers + told.problems, REQUESTS as u64);
    assert!(told.problems > 20 && lost > 1000, "the run was not mixed: {told:?}, lost {lost}");
    assert_eq!(spent, told.tokens, "the metrics count what the answers say");
    assert_eq!(billed, spent + lost, "what was billed is counted, or its answer was lost");
    assert!(lost <= unverified, "what was lost is written off: {lost} > {unverified}");
    let cost = gateway.metric("cost_total", &[("currency", "CNY")]).await;
    assert_eq!(format!("{:.0}", cost * 1e9), told.nanos.to_string());
    assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 0);
    assert_eq!(gateway.count("tokens_above_bound_total", &[]).await, 0);
}

#[tokio::test]
async fn each_tenant_is_charged_its_own_and_nobody_else_s() {
    let gateway = TestGateway::start().await;
    let keys = keys(&gateway).await;
    for (name, key) in ["free", "capped", "tight"].into_iter().zip(&keys) {
        let request = gateway.post_as(key, "/ocr");
        let answer = Answer::of(request.body(fixture("hello.png"))).await;
        let total = answer.json["usage"]["total_tokens"].as_u64().unwrap();
        let spent = gateway.count("tokens_spent_total", &[("tenant", name)]).await;
        assert_eq!(spent, total, "{name}");
    }
    let mut saved = Vec::new();
    for name in ["free", "capped", "tight"] {
        saved.push(gateway.count("tokens_saved_total", &[("tenant", name)]).await);
    }
    assert!(saved[0] == 0 && saved[1] < saved[2], "{saved:?}");
}

#[tokio::test]
async fn each_kind_of_token_is_counted_as_the_upstream_billed_it() {
    let gateway = TestGateway::start().await;
    let answer = gateway.upload("/ocr?prompt=Read+what+it+says", fixture("hello.png")).await;
    let bill = gateway.upstream().bill();
    for (kind, billed) in [("image", bill.image), ("text", bill.text), ("output", bill.output)] {
        let spent = gateway.count("tokens_spent_total", &[("kind", kind)]).await;
        assert_eq!(spent, billed, "{kind}");
    }
    let usage = &answer.json["usage"];
    assert_eq!(usage["image_tokens"], bill.image);
    assert_eq!(usage["input_tokens"], bill.image + bill.text);
    assert_eq!(usage["output_tokens"], bill.output);
}

#[tokio::test]
async fn a_request_that_was_refused_before_it_was_sent_spends_nothing() {
    let gateway = TestGateway::start().await;
    for (route, file) in [("/ocr", "tiny.png"), ("/ocr?model=nobody", "hello.png")] {
        let answer = gateway.upload(route, fixture(file)).await;
        assert!(answer.status.is_client_error());
        assert_eq!(answer.json["usage"], Value::Null);
    }
    assert_eq!(gateway.upstream().bill().received, 0);
    assert_eq!(gateway.count("tokens_spent_total", &[]).await, 0);
    assert_eq!(gateway.count("upstream_attempts_total", &[]).await, 0);
}

/// A bitmap of 2,000 by 12 pixels. The documented formula gives 23 cells for it, the published code 62.
fn sliver() -> Vec<u8> {
    let sides = [2_000_i32, 12].map(i32::to_le_bytes);
    let header = [&b"BM"[..], &[0; 8], &[54, 0, 0, 0], &[40, 0, 0, 0], sides.as_flattened()];
    [&header.concat()[..], &[1, 0, 24, 0], &[0; 24], &vec![255; 2_000 * 12 * 3]].concat()
}

/// An answer with this number of billed image tokens, whatever was sent.
fn billed_for_the_image(image: u64) -> Fault {
    let details = json!({ "image_tokens": image, "text_tokens": 24 });
    let usage = json!({
        "prompt_tokens": image + 24, "completion_tokens": 5, "total_tokens": image + 29,
        "prompt_tokens_details": details,
    });
    let message = json!({ "role": "assistant", "content": "text" });
    let choices = json!([{ "index": 0, "message": message, "finish_reason": "stop" }]);
    let body = json!({ "id": "chatcmpl-1", "choices": choices, "usage": usage }).to_string();
    Fault::replay(200, "application/json", body)
}

#[tokio::test]
async fn an_upstream_that_ignores_the_cap_is_found_out_by_its_bill() {
    let gateway =
        TestGateway::with(|setup| setup.tenant.max_pixels = Some(Pixels::new(16_384))).await;
    let estimate = gateway.upload("/estimate", fixture("hello.png")).await.json;
    assert!(estimate["pages"][0]["image_tokens"].as_u64().unwrap() < 77, "{estimate}");
    gateway.upstream().add_fault(billed_for_the_image(77));
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    // The answer has the billed tokens.
    assert_eq!(answer.json["usage"]["image_tokens"], 77);
    let answer = Answer::of(gateway.post(CHAT).body(chat().to_string())).await;
    assert_eq!(answer.header("ocr-tokens-image"), "77");
    assert_eq!(gateway.count("tokens_spent_total", &[("kind", "image")]).await, 2 * 77);
    assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 2);
}

#[tokio::test]
async fn a_sliver_that_is_billed_by_the_published_code_is_within_its_bound_and_no_mismatch() {
    let gateway = TestGateway::start().await;
    let estimate = gateway.upload("/estimate", sliver()).await.json;
    assert_eq!(estimate["pages"][0]["image_tokens"], 25, "{estimate}");
    assert_eq!(estimate["bound"]["image_tokens"], 64, "{estimate}");
    let mut request = chat();
    let letters = base64_simd::STANDARD.encode_to_string(sliver());
    let url = format!("data:image/bmp;base64,{letters}");
    request["messages"][0]["content"][0]["image_url"]["url"] = url.into();
    for (image, mismatches) in [(25, 0), (64, 0), (63, 2)] {
        gateway.upstream().clear_faults();
        gateway.upstream().add_fault(billed_for_the_image(image));
        assert_eq!(gateway.upload("/ocr", sliver()).await.status, 200);
        let answer = Answer::of(gateway.post(CHAT).body(request.to_string())).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let counted = gateway.count("token_estimate_mismatch_total", &[]).await;
        assert_eq!(counted, mismatches, "billed {image}");
    }
}
