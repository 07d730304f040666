//! Bills that cannot be: counted at what a call of the model can cost, told of, and no obstacle to what
//! comes after them.

use dashscope_emulator::Fault;

use crate::budgets::accounts;
use crate::dropin::{CHAT, GENERATION, chat, generation, streamed};
use crate::harness::{Answer, TestGateway, fixture, today};

/// Tokens that no answer has.
const ABSURD: &str = "5000000000000000000";

/// The most that a call of the default model can cost, by its limits of input, for picture and text each,
/// and of output.
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

/// An error that states a bill.
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
        "aloud" => {
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
        ("aloud", 200, EVENTS, events()),
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
        // The pace towards the account and the tenant's rates know nothing of it.
        let next = ask(&gateway, "/ocr").await;
        assert_eq!(next.status, 200, "{path}: {}", next.text);
        let told = next.json["usage"]["total_tokens"].as_u64().unwrap();
        assert_eq!(accounts(&gateway, "test").await, (settled + told, 0), "{path}");
        assert_eq!(gateway.store.ledger().audit(today()).await.unwrap(), [], "{path}");
    }
}
