//! Errors have the shape, the status and the code that clients of each protocol know.

use std::num::NonZeroU64;

use dashscope_emulator::Fault;
use ocr_gateway::auth::tenant::Tenant;
use serde_json::{Value, json};

use super::{
    CHAT, GENERATION, MODEL, both, chat, code, data_url, generation, item, send, streamed,
};
use crate::harness::{Answer, TestGateway, jpeg_of};

/// A text in the upstream's messages about an account that no answer may contain.
const SECRET: &str = "sk-7f3a9c for account 1188 of Example Ltd";

#[tokio::test]
async fn a_wrong_key_is_the_vendors_401() {
    let gateway = TestGateway::start().await;
    for (path, body) in both() {
        let request = gateway.post_as("sk-wrong", path).body(body.to_string());
        let answer = Answer::of(request).await;
        let expected = if path == CHAT { "invalid_api_key" } else { "InvalidApiKey" };
        assert_eq!((answer.status.as_u16(), code(path, &answer)), (401, expected));
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"ocr-gateway\"");
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

/// Makes a request for the path invalid.
type Change = fn(&str, &mut Value);

#[tokio::test]
async fn what_cannot_be_sent_is_a_400_that_names_the_member() {
    let gateway = TestGateway::start().await;
    let changes: [(&str, Change, &str); 9] = [
        ("a GIF", |path, body| url(path, body, &data_url("plain.gif")), "seen: GIF"),
        ("a picture that is too small", |path, body| url(path, body, &data_url("tiny.png")), "px"),
        ("no picture", |path, body| url(path, body, "data:image/png;base64,aGVsbG8="), "seen"),
        ("no Base64", |path, body| url(path, body, "data:image/png;base64,%%%"), "Base64"),
        ("a file of the client", |path, body| url(path, body, "/etc/passwd"), "address"),
        ("half a pixel", |path, body| item(path, body)["max_pixels"] = 0.5.into(), "whole number"),
        ("another medium", |path, body| item(path, body)["video"] = "https://a/b".into(), "video"),
        ("no messages", |path, body| *messages(path, body) = json!([]), "at least one"),
        (
            "a system message",
            |path, body| messages(path, body)[0]["role"] = "system".into(),
            "user's message",
        ),
    ];
    for (path, body) in both() {
        for (what, change, words) in changes {
            let mut body = body.clone();
            change(path, &mut body);
            let answer = send(&gateway, path, &body).await;
            let expected =
                if path == CHAT { "invalid_parameter_error" } else { "InvalidParameter" };
            assert_eq!((answer.status.as_u16(), code(path, &answer)), (400, expected), "{what}");
            assert!(answer.text.contains(words), "{what}: {}", answer.text);
            assert!(answer.text.contains("messages"), "{what}: {}", answer.text);
        }
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

fn messages<'a>(path: &str, body: &'a mut Value) -> &'a mut Value {
    if path == CHAT { &mut body["messages"] } else { &mut body["input"]["messages"] }
}

fn url(path: &str, body: &mut Value, url: &str) {
    let item = item(path, body);
    if path == CHAT {
        item["image_url"]["url"] = url.into();
    } else {
        item["image"] = url.into();
    }
}

#[tokio::test]
async fn a_body_that_two_readers_may_read_differently_is_refused() {
    let gateway = TestGateway::start().await;
    for path in [CHAT, GENERATION] {
        for body in [
            "",
            "{",
            "[]",
            "\u{0}",
            r#"{"model":"a","model":"b"}"#,
            r#"{"x":{"a":1,"\u0061":1}}"#,
            &format!("{{\"x\":{}{}}}", "[".repeat(70), "]".repeat(70)),
        ] {
            let answer = Answer::of(gateway.post(path).body(body.to_owned())).await;
            assert_eq!(answer.status, 400, "{body}: {}", answer.text);
            code(path, &answer);
        }
        let broken = gateway.post(path).body(&b"{\"model\":\"\xff\"}"[..]);
        assert_eq!(Answer::of(broken).await.status, 400);
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

/// Python reads no integer of more than 4,300 digits, and reads `1e400` as infinity.
#[tokio::test]
async fn a_number_that_some_readers_cannot_hold_is_refused_with_its_place() {
    let gateway = TestGateway::start().await;
    let long = "7".repeat(4_301);
    for (number, words) in [
        (long.as_str(), ["4301", "40"]),
        (&format!("-0.{long}"), ["4304", "40"]),
        (&format!("1e{long}"), ["4303", "40"]),
        ("1e400", ["largest double", "e308"]),
        ("1e-9999", ["exponent has 4 digits", "3"]),
    ] {
        for (path, body) in both() {
            for (member, place) in [
                (format!("\"seed\":{number},"), "/seed"),
                (format!("\"x\":[[0],{{\"y\":{number}}}],"), "/x/1/y"),
            ] {
                let body = body.to_string().replacen('{', &format!("{{{member}"), 1);
                let answer = Answer::of(gateway.post(path).body(body)).await;
                assert_eq!(answer.status, 400, "{path} {number}: {}", answer.text);
                for words in words.into_iter().chain([place]) {
                    assert!(answer.text.contains(words), "{path} {number}: {}", answer.text);
                }
                code(path, &answer);
            }
        }
    }
    for none in ["NaN", "Infinity", "-Infinity", "007", "+1", "0x7"] {
        for (path, body) in both() {
            let body = body.to_string().replacen('{', &format!("{{\"seed\":{none},"), 1);
            let answer = Answer::of(gateway.post(path).body(body)).await;
            assert_eq!(answer.status, 400, "{path} {none}: {}", answer.text);
        }
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_model_that_there_is_not_or_may_not_be_used_is_told_apart() {
    let gateway = TestGateway::start().await;
    let mut tenant = Tenant::new("one-model".parse().unwrap());
    tenant.models = vec!["qwen-vl-ocr-latest".to_owned()];
    let key = gateway.key_of(&tenant).await;
    for (path, mut body) in both() {
        let denied = Answer::of(gateway.post_as(&key, path).body(body.to_string())).await;
        let expected = if path == CHAT { "access_denied" } else { "AccessDenied" };
        assert_eq!((denied.status.as_u16(), code(path, &denied)), (403, expected));
        body["model"] = "qwen-max".into();
        let missing = send(&gateway, path, &body).await;
        let expected = if path == CHAT { "model_not_found" } else { "ModelNotFound" };
        assert_eq!((missing.status.as_u16(), code(path, &missing)), (404, expected));
    }
}

#[tokio::test]
async fn paths_and_methods_that_there_are_not_answer_in_the_protocols_shape() {
    let gateway = TestGateway::start().await;
    for path in ["/v1/embeddings", "/compatible-mode/v1/responses", "/api/v1/tasks/1"] {
        let answer = send(&gateway, path, &chat()).await;
        let dialect = if path.starts_with("/api") { GENERATION } else { CHAT };
        assert_eq!(answer.status, 404);
        assert!(code(dialect, &answer).to_ascii_lowercase().contains("found"));
    }
    for path in [CHAT, GENERATION] {
        let answer = Answer::of(gateway.get(path)).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
        code(path, &answer);
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_that_names_both_numbers() {
    let gateway = TestGateway::with_limit(50_000).await;
    let letters = base64_simd::STANDARD.encode_to_string(jpeg_of(60_000));
    for (path, mut body) in both() {
        url(path, &mut body, &format!("data:image/jpeg;base64,{letters}"));
        let answer = send(&gateway, path, &body).await;
        assert_eq!(answer.status, 413, "{}", answer.text);
        assert!(answer.text.contains("50000"), "{}", answer.text);
        code(path, &answer);
    }
}

#[tokio::test]
async fn a_tenants_own_rate_is_the_vendors_throttle_with_a_time_to_wait() {
    let gateway =
        TestGateway::with(|setup| setup.tenant.requests_per_minute = NonZeroU64::new(1)).await;
    assert_eq!(send(&gateway, CHAT, &chat()).await.status, 200);
    for (path, body) in both() {
        let answer = send(&gateway, path, &body).await;
        let expected = if path == CHAT { "limit_requests" } else { "Throttling.RateQuota" };
        assert_eq!((answer.status.as_u16(), code(path, &answer)), (429, expected));
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
        assert_eq!(answer.header("x-should-retry"), "");
    }
}

#[tokio::test]
async fn what_the_upstream_says_of_the_request_is_passed_on_to_the_letter() {
    let told = "Range of top_p should be (0.0, 1.0] in \u{4e00} request";
    for (path, body) in both() {
        for streams in [false, true] {
            let gateway = TestGateway::with(|setup| setup.emulator.keep_bodies = true).await;
            gateway.upstream().add_fault(Fault::code("InvalidParameter").with_message(told));
            let answer = if streams {
                Answer::of(streamed(&gateway, path, body.clone())).await
            } else {
                send(&gateway, path, &body).await
            };
            let call = gateway.upstream().calls().remove(0);
            assert_eq!(answer.text.as_bytes(), call.response_body, "{path}");
            assert_eq!(Some(answer.status.as_u16()), call.status);
            assert!(answer.text.contains(told));
            assert_eq!(gateway.upstream().bill().received, 1);
        }
    }
}

#[tokio::test]
async fn what_the_upstream_says_of_the_account_is_not() {
    let faults = [
        ("InvalidApiKey", "invalid_api_key"),
        ("Arrearage", "Arrearage"),
        ("AccessDenied", "access_denied"),
        ("Throttling.RateQuota", "limit_requests"),
        ("InternalError", "internal_error"),
    ];
    for (fault, compatible) in faults {
        for (path, body) in both() {
            let gateway = TestGateway::start().await;
            gateway.upstream().add_fault(Fault::code(fault).with_message(SECRET));
            let answer = send(&gateway, path, &body).await;
            assert!(answer.status.is_server_error(), "{fault}: {}", answer.text);
            assert!(!answer.text.contains("sk-7f3a9c"), "{}", answer.text);
            // The code is passed on, because a complaint to the vendor needs it.
            let told = if path == CHAT { compatible } else { fault };
            assert!(answer.text.contains(&format!("Its code: {told}.")), "{}", answer.text);
            code(path, &answer);
        }
    }
}

#[tokio::test]
async fn a_lost_answer_that_may_be_billed_does_not_invite_the_sdk_to_pay_again() {
    for (path, body) in both() {
        let gateway = TestGateway::start().await;
        gateway.upstream().add_fault(Fault::reset().after_inference());
        let answer = send(&gateway, path, &body).await;
        assert_eq!(answer.status, 502, "{}", answer.text);
        assert_eq!(answer.header("x-should-retry"), "false");
        assert!(gateway.count("tokens_unverified_total", &[]).await > 0);
    }
}

#[tokio::test]
async fn a_throttle_told_in_a_stream_is_waited_out_and_never_seen() {
    for (path, body) in both() {
        let gateway = TestGateway::start().await;
        gateway.upstream().add_fault(Fault::ok_with_error_body("Throttling.RateQuota").times(2));
        let answer = Answer::of(streamed(&gateway, path, body)).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.text.contains("Throttling") && !answer.text.contains("limit_requests"));
        assert_eq!(gateway.upstream().bill().received, 3);
    }
}

#[tokio::test]
async fn asynchronous_calls_are_refused_as_the_vendor_refuses_them() {
    let gateway = TestGateway::start().await;
    let request = gateway.post(GENERATION).header("X-DashScope-Async", "enable");
    let answer = Answer::of(request.body(generation().to_string())).await;
    assert_eq!((answer.status.as_u16(), code(GENERATION, &answer)), (403, "AccessDenied"));
}

#[tokio::test]
async fn two_hundred_around_something_that_is_no_answer_is_a_502() {
    for fault in [Fault::garbage(), Fault::empty_body()] {
        for (path, body) in both() {
            let gateway = TestGateway::start().await;
            gateway.upstream().add_fault(fault.clone());
            let answer = send(&gateway, path, &body).await;
            assert_eq!(answer.status, 502, "{}", answer.text);
            code(path, &answer);
        }
    }
}

#[tokio::test]
async fn the_gateways_own_code_stands_beside_the_vendors() {
    let gateway = TestGateway::start().await;
    let mut body = chat();
    body["model"] = json!(7);
    let answer = send(&gateway, CHAT, &body).await;
    assert_eq!(answer.json["error"]["gateway_code"], "invalid_option");
    assert_eq!(answer.json["error"]["param"], "/model");
    body["model"] = json!(MODEL);
    body["enable_thinking"] = json!(true);
    assert_eq!(send(&gateway, CHAT, &body).await.status, 400);
}
