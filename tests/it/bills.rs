//! Impossible bills count at the largest cost of a call of the model. They are reported, and they do not disturb later
//! calls.

use dashscope_emulator::Fault;
use ocr_gateway::redis::settings::OnFailure;

use crate::budgets::accounts;
use crate::dropin::{CHAT, GENERATION, chat, generation, streamed};
use crate::harness::{Answer, TestGateway, fixture, today};
use crate::redis::RedisDatabase;

/// More tokens than any answer has.
const ABSURD: &str = "5000000000000000000";

/// The largest cost of a call of the default model: its input limit for image and text each, and its output limit.
const MOST: u64 = 30_000 + 30_000 + 8_192;

fn compatible() -> String {
    format!(
        r#"{{"choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant",
        "content":"text"}}}}],"usage":{{"prompt_tokens":752,"completion_tokens":{ABSURD}}}}}"#
    )
}

fn native() -> String {
    format!(
        r#"{{"output":{{"choices":[{{"finish_reason":"stop","message":{{"role":"assistant",
        "content":[{{"text":"text"}}]}}}}]}},
        "usage":{{"input_tokens":{ABSURD},"output_tokens":3,"image_tokens":80}},"request_id":"r-1"}}"#
    )
}

fn events() -> String {
    format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"text\"}},\
         \"finish_reason\":\"stop\"}}]}}\n\n\
         data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":752,\"completion_tokens\":{ABSURD}}}}}\n\n\
         data: [DONE]\n\n"
    )
}

/// An error with a bill.
fn complaint() -> String {
    format!(
        r#"{{"error":{{"code":"x","message":"y"}},"usage":{{"prompt_tokens":{ABSURD},"completion_tokens":1}}}}"#
    )
}

async fn ask(gateway: &TestGateway, path: &str) -> Answer {
    let request = match path {
        CHAT => gateway.post(CHAT).body(chat().to_string()),
        "streamed" => streamed(gateway, CHAT, chat()),
        GENERATION => gateway.post(GENERATION).body(generation().to_string()),
        "stream" => {
            gateway.post("/ocr").header("accept", "text/event-stream").body(fixture("hello.png"))
        }
        path => gateway.post(path).body(fixture("hello.png")),
    };
    Answer::of(request).await
}

#[tokio::test]
async fn a_bill_that_cannot_be_is_clamped_told_of_and_marked_on_every_route() {
    const JSON: &str = "application/json";
    const EVENTS: &str = "text/event-stream;charset=UTF-8";
    for (path, status, media_type, body) in [
        ("/ocr", 200, JSON, compatible()),
        ("/ocr?task=text_recognition", 200, JSON, native()),
        ("stream", 200, EVENTS, events()),
        (CHAT, 200, JSON, compatible()),
        ("streamed", 200, EVENTS, events()),
        (GENERATION, 200, JSON, native()),
        ("/ocr", 500, JSON, complaint()),
    ] {
        let gateway = TestGateway::start().await;
        gateway.upstream().add_fault(Fault::replay(status, media_type, body).times(1));
        let answer = ask(&gateway, path).await;
        assert_eq!(answer.status == 200, status == 200, "{path}: {}", answer.text);
        let (settled, reserved) = accounts(&gateway, "test").await;
        assert!(reserved == 0 && settled > 8_192 && settled <= MOST, "{path}: {settled}");
        let clamped = gateway.count("bills_clamped_total", &[("tenant", "test")]).await;
        let unverified = gateway.count("tokens_unverified_total", &[]).await;
        assert_eq!((clamped, unverified), (1, settled), "{path}");
        if path.starts_with("/ocr") && status == 200 {
            assert_eq!(answer.json["usage"]["unverified_tokens"], settled, "{}", answer.text);
        }
        // The rate controller of the account and the tenant's rates ignore it.
        let next = ask(&gateway, "/ocr").await;
        assert_eq!(next.status, 200, "{path}: {}", next.text);
        let told = next.json["usage"]["total_tokens"].as_u64().unwrap();
        assert_eq!(accounts(&gateway, "test").await, (settled + told, 0), "{path}");
        assert_eq!(gateway.store.ledger().audit(today()).await.unwrap(), [], "{path}");
    }
}

/// Invalid numbers of a bill, and values that a JSON reader may accept as numbers.
const ABSURDITIES: [&str; 14] = [
    "30001",
    "2000000",
    "1000000000000",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e30",
    "-5",
    "152.5",
    "\"152\"",
    "null",
    "[152]",
    "99999999999999999999999999999999999999999999999999",
];

/// Answers with `number` for each kind of tokens in turn, and for all of them.
fn absurd_answers(number: &str) -> impl Iterator<Item = (&'static str, String)> {
    let compatible = |input: &str, image: &str, output: &str| {
        format!(
            r#"{{"choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant","content":"text"}}}}],
            "usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":7,
            "prompt_tokens_details":{{"image_tokens":{image}}}}}}}"#
        )
    };
    let native = format!(
        r#"{{"output":{{"choices":[{{"finish_reason":"stop","message":{{"role":"assistant","content":[{{"text":"text"}}]}}}}]}},
        "usage":{{"input_tokens":{number},"output_tokens":{number},"image_tokens":{number}}}}}"#
    );
    [
        ("/ocr", compatible(number, "80", "3")),
        (CHAT, compatible("152", number, "3")),
        ("/ocr", compatible("152", "80", number)),
        (CHAT, compatible(number, number, number)),
        (GENERATION, native),
    ]
    .into_iter()
}

#[tokio::test]
async fn no_bill_holds_up_the_account_for_longer_than_the_dearest_call() {
    for number in ABSURDITIES {
        let gateway = TestGateway::with(|setup| {
            for model in setup.settings.models.values_mut() {
                // With the vendor's limits, the largest call takes half a second of them.
                (model.rpm, model.tpm) = (1_200, 6_000_000);
            }
        })
        .await;
        let mut calls = 0;
        for (path, body) in absurd_answers(number) {
            let absurd = Fault::replay(200, "application/json", body).times(1);
            gateway.upstream().add_fault(absurd);
            assert_eq!(ask(&gateway, path).await.status, 200, "{path} {number}");
            let next = ask(&gateway, "/ocr").await;
            assert_eq!(next.status, 200, "{path} {number}: {}", next.text);
            calls += 2;
        }
        let (settled, reserved) = accounts(&gateway, "test").await;
        assert!(reserved == 0 && settled <= MOST * calls, "{number}: {settled}");
        assert_eq!(gateway.store.ledger().audit(today()).await.unwrap(), [], "{number}");
        let usage = Answer::of(gateway.get("/usage")).await;
        assert_eq!(usage.status, 200, "{number}: {}", usage.text);
        assert_eq!(gateway.count("upstream_attempts_total", &[]).await, calls, "{number}");
    }
}

#[tokio::test]
async fn no_bill_holds_up_the_account_of_other_replicas() {
    let Some(database) = RedisDatabase::new() else { return };
    let start = || {
        TestGateway::with(|setup| {
            setup.settings.redis = database.settings(OnFailure::Closed);
            for model in setup.settings.models.values_mut() {
                (model.rpm, model.tpm) = (1_200, 6_000_000);
            }
        })
    };
    let (one, other) = (start().await, start().await);
    for number in ["1000000000000", "9223372036854775807", "18446744073709551615"] {
        for (path, body) in absurd_answers(number) {
            one.upstream().add_fault(Fault::replay(200, "application/json", body).times(1));
            assert_eq!(ask(&one, path).await.status, 200, "{path} {number}");
            let next = ask(&other, "/ocr").await;
            assert_eq!(next.status, 200, "{path} {number}: {}", next.text);
        }
    }
}

/// A bound can exceed the model's input limit: the text of a drop-in request is bounded by its bytes.
#[tokio::test]
async fn a_bill_within_a_large_bound_holds_up_the_account_no_longer_than_one_call_can() {
    let gateway = TestGateway::with(|setup| {
        for model in setup.settings.models.values_mut() {
            (model.rpm, model.tpm) = (1_200, 6_000_000);
        }
    })
    .await;
    let mut long = chat();
    long["messages"][0]["content"][1]["text"] = "a".repeat(4_000_000).into();
    let billed = compatible().replace(ABSURD, "3").replace("752", "4000000");
    gateway.upstream().add_fault(Fault::replay(200, "application/json", billed).times(1));
    let answer = Answer::of(gateway.post(CHAT).body(long.to_string())).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(accounts(&gateway, "test").await.0 > 4_000_000, "the ledger counts all of it");
    let next = ask(&gateway, "/ocr").await;
    assert_eq!(next.status, 200, "{}", next.text);
}
