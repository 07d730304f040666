//! Failures of the upstream as a caller sees them: status, code, whether to retry, and the cost.
//!
//! The emulator replays each row of the error table and each code that DashScope documents, once for `/ocr`, which uses
//! the compatible protocol, and once for `/extract`, which uses the native one.

use dashscope_emulator::{Fault, World};
use futures_util::future::join_all;
use serde_json::Value;

use crate::dropin::{CHAT, chat, streamed};
use crate::harness::{Answer, Setup, TestGateway, fixture, jpeg_of, spawn, until};

/// The two routes that spend, and the upstream's path that each of them calls.
const ROUTES: [(&str, &str); 2] = [
    ("/ocr", "/compatible-mode/v1/chat/completions"),
    ("/extract?template=receipt", "/api/v1/services/aigc/multimodal-generation/generation"),
];

/// A text in the upstream's messages that no answer may contain.
const SECRET: &str = "sk-7f3a9c for account 1188 of Example Ltd";

/// The expected outcome of a fault.
#[derive(Clone, Copy)]
struct Verdict {
    status: u16,
    code: &'static str,
    retryable: bool,
    /// Attempts at the upstream.
    attempts: u64,
    /// The outcome of each attempt in the metrics.
    outcome: &'static str,
    /// Whether the upstream may have billed the call without reporting it.
    unverified: bool,
}

const THROTTLED: Verdict = Verdict {
    status: 503,
    code: "upstream_throttled",
    retryable: true,
    attempts: 3,
    outcome: "throttled",
    unverified: false,
};

const ACCOUNT: Verdict = Verdict {
    status: 503,
    code: "upstream_account",
    retryable: true,
    attempts: 1,
    outcome: "account",
    unverified: false,
};

const REJECTED: Verdict = Verdict {
    status: 502,
    code: "upstream_error",
    retryable: false,
    attempts: 1,
    outcome: "rejected",
    unverified: false,
};

const FAILED: Verdict = Verdict {
    status: 502,
    code: "upstream_error",
    retryable: true,
    attempts: 3,
    outcome: "failed",
    unverified: false,
};

const INTERRUPTED: Verdict =
    Verdict { attempts: 2, outcome: "interrupted", unverified: true, ..FAILED };

const CONTENT: Verdict = Verdict {
    status: 422,
    code: "content_rejected",
    retryable: false,
    attempts: 1,
    outcome: "content_rejected",
    unverified: false,
};

const IMAGE: Verdict = Verdict { code: "image_undecodable", outcome: "image_rejected", ..CONTENT };

const TIMEOUT: Verdict = Verdict {
    status: 504,
    code: "upstream_timeout",
    retryable: true,
    attempts: 1,
    outcome: "timeout",
    unverified: true,
};

const UNUSABLE: Verdict = Verdict {
    status: 502,
    code: "upstream_invalid_output",
    retryable: false,
    attempts: 1,
    outcome: "invalid_answer",
    unverified: true,
};

/// Checks that each of the faults has the verdict, on both routes.
async fn expect(faults: impl IntoIterator<Item = Fault>, verdict: Verdict) {
    expect_with(|_| {}, faults, verdict).await;
}

/// The same with other settings.
async fn expect_with(
    change: impl Fn(&mut Setup),
    faults: impl IntoIterator<Item = Fault>,
    verdict: Verdict,
) {
    for fault in faults {
        for (route, path) in ROUTES {
            let gateway = TestGateway::with(&change).await;
            gateway.upstream().add_fault(fault.clone());
            let answer = gateway.upload(route, fixture("hello.png")).await;
            let what = format!("{route} {fault:?} {}", answer.text);
            check_answer(&answer, verdict, &what);
            check_calls(&gateway.upstream(), verdict, path, &what);
            check_metrics(&gateway, verdict, &what).await;
        }
    }
}

fn check_answer(answer: &Answer, verdict: Verdict, what: &str) {
    assert_eq!((answer.status.as_u16(), answer.code()), (verdict.status, verdict.code), "{what}");
    assert_eq!(answer.json["retryable"], verdict.retryable, "{what}");
    let wait = answer.header("retry-after").parse::<u64>();
    assert_eq!(wait.is_ok_and(|wait| wait > 0), verdict.status == 503, "{what}");
}

fn check_calls(upstream: &World, verdict: Verdict, path: &str, what: &str) {
    let calls = upstream.calls();
    assert_eq!(calls.len() as u64, verdict.attempts, "{what}");
    assert!(calls.iter().all(|call| call.path == path), "{what}");
}

async fn check_metrics(gateway: &TestGateway, verdict: Verdict, what: &str) {
    let outcome = [("endpoint", "beijing"), ("outcome", verdict.outcome)];
    let attempts = gateway.count("upstream_attempts_total", &outcome).await;
    assert_eq!(attempts, verdict.attempts, "{what}");
    assert_eq!(gateway.count("upstream_attempts_total", &[]).await, attempts, "{what}");
    let reason = [("reason", verdict.outcome)];
    let retries = gateway.count("upstream_retries_total", &reason).await;
    assert_eq!(retries, verdict.attempts - 1, "{what}");
    let unverified = gateway.count("tokens_unverified_total", &[("tenant", "test")]).await;
    assert_eq!(unverified > 0, verdict.unverified, "{what}");
    assert!(unverified >= gateway.upstream().bill().total(), "{what}");
    assert_eq!(gateway.count("tokens_spent_total", &[]).await, 0, "{what}");
}

#[tokio::test]
async fn a_throttle_is_retried_and_then_passed_on_with_a_wait() {
    let codes = [
        "Throttling",
        "Throttling.RateQuota",
        "LimitRequests",
        "limit_requests",
        "Throttling.BurstRate",
        "limit_burst_rate",
        "Throttling.AllocationQuota",
        "insufficient_quota",
    ];
    expect(codes.map(Fault::code), THROTTLED).await;
    let route = Fault::code("Throttling").with_message("Too many requests in route");
    expect([route, Fault::status(429)], THROTTLED).await;
}

#[tokio::test]
async fn a_free_quota_that_is_gone_is_no_throttle() {
    let gone = |code| Fault::code(code).with_message("Free allocated quota exceeded.");
    expect(["Throttling.AllocationQuota", "insufficient_quota"].map(gone), ACCOUNT).await;
}

#[tokio::test]
async fn a_bill_that_is_due_is_not_retried_whatever_its_status() {
    let codes = [
        "CommodityNotPurchased",
        "PrepaidBillOverdue",
        "PostpaidBillOverdue",
        "Arrearage",
        "AllocationQuota.FreeTierOnly",
    ];
    expect(codes.map(Fault::code), ACCOUNT).await;
}

#[tokio::test]
async fn a_key_or_a_right_that_is_missing_is_the_operator_s_affair() {
    let codes = [
        "InvalidApiKey",
        "invalid_api_key",
        "AccessDenied",
        "access_denied",
        "AccessDenied.Unpurchased",
        "Model.AccessDenied",
        "App.AccessDenied",
        "Workspace.AccessDenied",
    ];
    expect(codes.map(Fault::code), ACCOUNT).await;
    let expired = Fault::status(401).with_message("invalid access token or token expired");
    expect([expired, Fault::status(401), Fault::status(403)], ACCOUNT).await;
}

#[tokio::test]
async fn a_request_that_the_upstream_finds_wrong_is_ours_to_mend_and_not_retried() {
    let codes = [
        "InvalidParameter",
        "invalid_parameter_error",
        "invalid_request_error",
        "invalid_value",
        "InternalError.Algo.InvalidParameter",
        "ModelNotFound",
        "model_not_found",
        "model_not_supported",
        "WorkSpaceNotFound",
        "NotFound",
        "BadRequest.TooLarge",
    ];
    expect(codes.map(Fault::code), REJECTED).await;
    expect([400, 404, 413].map(Fault::status), REJECTED).await;
}

#[tokio::test]
async fn a_parameter_that_is_wrong_for_another_reason_is_not_retried() {
    let messages = [
        "Range of input length should be [1, 30000]",
        "The provided URL does not appear to be valid",
        "Wrong Content-Type of multimodal url",
        "Don't have authorization to access the media resource",
    ];
    let said = |message| Fault::code("InvalidParameter").with_message(message);
    expect(messages.map(said), REJECTED).await;
    let unmendable = ["Missing Content-Length of multimodal url", "list index out of range"];
    let said = |message| Fault::code("InternalError.Algo").with_message(message);
    expect(unmendable.map(said), REJECTED).await;
}

#[tokio::test]
async fn a_download_that_failed_upstream_is_tried_once_more() {
    let messages = [
        "Failed to download multimodal content",
        "Download the media resource timed out",
        "Unable to download",
    ];
    let said = |message| Fault::code("InvalidParameter").with_message(message);
    expect(messages.map(said), Verdict { attempts: 2, ..REJECTED }).await;
}

#[tokio::test]
async fn an_image_that_the_upstream_cannot_decode_is_the_caller_s_to_mend() {
    let messages = [
        "Failed to decode the image during the data inspection",
        "Invalid image format or corrupted file",
        "read image error",
    ];
    let said = |message| Fault::code("InvalidParameter").with_message(message);
    expect(messages.map(said), IMAGE).await;
}

#[tokio::test]
async fn an_image_of_a_size_that_the_upstream_refuses_is_named_as_such() {
    let algo = "<400> InternalError.Algo.InvalidParameter: ";
    let said =
        |message: &str| Fault::code("InvalidParameter").with_message(format!("{algo}{message}"));
    let small = [said("[height:1 or width:1 must be larger than 10]")];
    expect(small, Verdict { code: "image_too_small", ..IMAGE }).await;
    let thin = [said("absolute aspect ratio must be smaller than 200, got 2000 / 1")];
    expect(thin, Verdict { code: "aspect_ratio", ..IMAGE }).await;
    let large = [
        said("Exceeded limit on max bytes per data-uri item : 10485760"),
        said("Multimodal file size is too large"),
    ];
    expect(large, Verdict { status: 413, code: "image_too_large", ..IMAGE }).await;
}

#[tokio::test]
async fn content_that_moderation_refuses_is_not_retried() {
    let codes =
        ["DataInspectionFailed", "data_inspection_failed", "InvalidParameter.DataInspection"];
    let said =
        |code| Fault::code(code).with_message("Input data may contain inappropriate content.");
    expect(codes.map(said), CONTENT).await;
}

#[tokio::test]
async fn an_output_that_moderation_refuses_may_have_been_billed() {
    let output = "Output data may contain inappropriate content.";
    let refused = Fault::code("DataInspectionFailed").with_message(output).after_inference();
    expect([refused], Verdict { unverified: true, ..CONTENT }).await;
}

#[tokio::test]
async fn a_service_in_trouble_is_asked_again() {
    let codes = [
        "APIConnectionError",
        "InternalError",
        "internal_error",
        "SystemError",
        "ModelServiceFailed",
        "InternalError.Algo",
        "ModelServingError",
        "ModelUnavailable",
        "ServiceUnavailable",
    ];
    expect(codes.map(Fault::code), FAILED).await;
    let backend = "Receive batching backend response failed";
    expect([Fault::code("InternalError.Algo").with_message(backend)], FAILED).await;
    expect([500, 502, 503].map(Fault::status), FAILED).await;
}

#[tokio::test]
async fn the_page_of_a_proxy_that_reached_nobody_is_retried_in_full() {
    expect([Fault::garbage().with_status(503)], FAILED).await;
}

#[tokio::test]
async fn the_page_of_a_proxy_that_may_have_reached_somebody_is_retried_once() {
    let pages = [500, 502].map(|status| Fault::garbage().with_status(status).after_inference());
    expect(pages, Verdict { attempts: 2, unverified: true, ..FAILED }).await;
}

#[tokio::test]
async fn a_model_that_took_too_long_is_not_asked_again() {
    expect([Fault::code("RequestTimeOut"), Fault::status(408)], TIMEOUT).await;
}

#[tokio::test]
async fn a_gateway_of_the_upstream_that_gave_up_is_asked_once_more() {
    let gave_up = [Fault::code("GatewayTimeout"), Fault::status(504).after_inference()];
    expect(gave_up, Verdict { attempts: 2, ..TIMEOUT }).await;
}

#[tokio::test]
async fn an_answer_that_never_begins_is_given_up_and_written_off() {
    let short = |setup: &mut Setup| setup.settings.upstream.first_byte_timeout_ms = 50;
    expect_with(short, [Fault::hang(), Fault::hang().after_inference()], TIMEOUT).await;
}

#[tokio::test]
async fn a_connection_that_breaks_before_its_answer_is_tried_once_more_and_written_off() {
    let resets = [Fault::reset(), Fault::reset().after_inference()];
    expect(resets, INTERRUPTED).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_tried_once_more_and_written_off() {
    let cuts = [0, 1, 100].map(Fault::cut_body_at);
    expect(cuts, INTERRUPTED).await;
}

#[tokio::test]
async fn a_good_status_around_no_answer_is_502_and_not_asked_again() {
    let nothing = [Fault::garbage(), Fault::empty_body()];
    expect(nothing.clone(), UNUSABLE).await;
    expect(nothing.map(Fault::after_inference), UNUSABLE).await;
}

/// Less memory than a long answer needs.
fn with_little_memory(setup: &mut Setup) {
    setup.settings.server.max_body_bytes = 500_000;
    setup.settings.server.max_in_flight_bytes = 500_000.into();
}

#[tokio::test]
async fn an_answer_that_was_paid_for_is_delivered_whatever_memory_there_is() {
    let gateway = TestGateway::with(with_little_memory).await;
    let text = "x".repeat(1_500_000);
    let long = format!(
        r#"{{"choices":[{{"finish_reason":"stop","message":{{"content":"{text}"}}}}],
        "usage":{{"prompt_tokens":752,"completion_tokens":432}}}}"#
    );
    gateway.upstream().add_fault(Fault::replay(200, "application/json", long));
    let requests = || {
        [
            gateway.post("/ocr").body(fixture("hello.png")),
            gateway.post(CHAT).body(chat().to_string()),
            streamed(&gateway, CHAT, chat()),
        ]
    };
    // All at once, so that none finds enough memory.
    let answers = join_all((0..4).flat_map(|_| requests()).map(Answer::of)).await;
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", &answer.text[..answer.text.len().min(500)]);
        assert!(answer.text.len() >= text.len());
    }
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
    until("nothing is held", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test]
async fn a_call_without_room_for_its_answer_is_refused_before_it_costs_anything() {
    let gateway = TestGateway::with(with_little_memory).await;
    gateway.upstream().add_fault(Fault::hang().times(1));
    let request = gateway.post("/ocr").body(jpeg_of(200_000)).send();
    let hanging = spawn(request);
    gateway.until_upstream_has(1).await;
    // Up to 32,768 tokens; most models write at most 8,192.
    let answer = gateway.upload("/ocr?model=qwen3.5-ocr", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "overloaded"), "{}", answer.text);
    assert_eq!(answer.json["limit"]["name"], "in_flight_bytes");
    assert_eq!(answer.json["retryable"], true);
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(gateway.upstream().bill().received, 1);
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
    hanging.abort();
}

#[tokio::test]
async fn a_picture_that_moderation_cannot_read_is_undecodable_and_not_refused_content() {
    for message in [
        "The media format is not supported or incorrect for the data inspection.",
        "Failed to decode the image during the data inspection.",
    ] {
        let fault = Fault::code("InvalidParameter.DataInspection").with_message(message);
        expect([fault.with_status(400)], IMAGE).await;
    }
}

#[tokio::test]
async fn an_error_under_a_good_status_is_the_error_that_it_says() {
    expect([Fault::ok_with_error_body("Throttling.RateQuota")], THROTTLED).await;
    expect([Fault::ok_with_error_body("InvalidApiKey")], ACCOUNT).await;
    expect([Fault::ok_with_error_body("InvalidParameter")], REJECTED).await;
    expect([Fault::ok_with_error_body("InternalError")], FAILED).await;
}

#[tokio::test]
async fn an_address_that_nobody_answers_at_is_unavailable_and_costs_nothing() {
    let gateway = TestGateway::with(|setup| {
        setup.settings.upstream.base_url = "http://127.0.0.1:9".to_owned();
    })
    .await;
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "upstream_unavailable"));
    assert!(!answer.header("retry-after").is_empty());
    let unreachable = [("outcome", "unreachable")];
    assert_eq!(gateway.count("upstream_attempts_total", &unreachable).await, 3);
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
}

#[tokio::test]
async fn a_wrong_content_type_around_a_right_answer_does_no_harm() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::wrong_content_type());
    for (route, _) in ROUTES {
        let answer = gateway.upload(route, fixture("hello.png")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_throttle_that_passes_costs_a_retry_and_nothing_else() {
    for (route, _) in ROUTES {
        let gateway = TestGateway::start().await;
        gateway.upstream().add_fault(Fault::code("Throttling.RateQuota").times(1));
        let answer = gateway.upload(route, fixture("hello.png")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json["usage"]["retries"], 1);
        assert_eq!(answer.json["usage"]["upstream_calls"], 2);
        let total = answer.json["usage"]["total_tokens"].as_u64().unwrap();
        assert_eq!(gateway.upstream().bill().total(), total);
        assert_eq!(gateway.count("upstream_attempts_total", &[("outcome", "ok")]).await, 1);
        assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_once_is_written_off_beside_the_one_that_came() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::cut_body_at(9).times(1));
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let told = answer.json["usage"]["total_tokens"].as_u64().unwrap();
    let spent = gateway.count("tokens_spent_total", &[]).await;
    let unverified = gateway.count("tokens_unverified_total", &[]).await;
    assert_eq!(spent, told);
    assert!(spent + unverified >= gateway.upstream().bill().total());
    assert_eq!(gateway.upstream().bill().calls, 2);
}

#[tokio::test]
async fn a_wait_that_the_upstream_asks_for_and_the_caller_has_not_is_passed_on() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::code("Throttling").retry_after(120));
    let request = gateway.post("/ocr").header("prefer", "wait=20").body(fixture("hello.png"));
    let answer = Answer::of(request).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "upstream_throttled"));
    assert_eq!(answer.header("retry-after"), "120");
    assert_eq!(gateway.upstream().bill().received, 1);
}

#[tokio::test]
async fn a_wait_that_the_upstream_asks_for_holds_back_every_other_call() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::code("Throttling").retry_after(120).times(1));
    let request = gateway.post("/ocr").header("prefer", "wait=20").body(fixture("hello.png"));
    Answer::of(request).await;
    let other = gateway.upload("/ocr", fixture("hello.jpg")).await;
    assert_eq!((other.status.as_u16(), other.code()), (503, "upstream_throttled"));
    let wait: u64 = other.header("retry-after").parse().unwrap();
    assert!((90..=120).contains(&wait), "{wait}");
    assert_eq!(gateway.upstream().bill().received, 1);
}

#[tokio::test]
async fn a_short_wait_that_the_upstream_asks_for_is_waited_for() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::code("Throttling").retry_after(1).times(1));
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let timing = &answer.json["timing_ms"];
    let waited = timing["total"].as_u64().unwrap() - timing["upstream"].as_u64().unwrap();
    assert!(
        waited >= 1000,
        "the wait is part of the whole and not of the upstream's time: {timing}"
    );
}

#[tokio::test]
async fn a_caller_s_deadline_ends_the_call_and_its_bill_is_written_off() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::hang().after_inference());
    let request = gateway.post("/ocr").header("prefer", "wait=2").body(fixture("hello.png"));
    let answer = Answer::of(request).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (504, "deadline_exceeded"));
    assert_eq!(answer.json["retryable"], true);
    let unverified = gateway.count("tokens_unverified_total", &[]).await;
    assert!(unverified >= gateway.upstream().bill().total());
    assert_eq!(gateway.upstream().bill().calls, 1);
}

#[tokio::test]
async fn the_upstream_s_words_never_reach_a_caller_but_its_code_and_request_id_do() {
    for code in ["Throttling", "Arrearage", "InvalidParameter", "InternalError", "AccessDenied"] {
        for (route, _) in ROUTES {
            let gateway = TestGateway::start().await;
            gateway.upstream().add_fault(Fault::code(code).with_message(SECRET));
            let answer = gateway.upload(route, fixture("hello.png")).await;
            let detail = answer.json["detail"].as_str().unwrap();
            assert!(
                !answer.text.contains("7f3a9c") && !answer.text.contains("Example"),
                "{detail}"
            );
            assert!(!answer.text.contains("sk-test"), "{detail}");
            assert!(detail.contains("Its code: "), "{detail}");
            assert!(detail.contains("Its request id: "), "{detail}");
        }
    }
}

#[tokio::test]
async fn an_estimate_asks_the_upstream_nothing_even_while_it_fails() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::status(500));
    let answer = gateway.upload("/estimate", fixture("hello.png")).await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.json["bound"], Value::Null);
    assert_eq!(gateway.upstream().bill().received, 0);
}
