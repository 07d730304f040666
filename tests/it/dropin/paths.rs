//! The drop-in paths work like DashScope's own.

use ocr_gateway::auth::tenant::Tenant;
use serde_json::json;

use super::{CHAT, GENERATION, MODEL, both, chat, code, data_url, generation, send, streamed};
use crate::harness::{Answer, SCRIPTED_TEXT, TestGateway};

#[tokio::test]
async fn both_protocols_answer_as_the_upstream_does_and_the_bill_is_counted() {
    let gateway = TestGateway::start().await;
    for (path, body) in both() {
        let answer = send(&gateway, path, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(answer.text.contains(SCRIPTED_TEXT));
        assert!(!answer.header("ocr-tokens-image").is_empty());
        assert!(!answer.header("x-request-id").is_empty());
    }
    let spent = gateway.count("tokens_spent_total", &[("tenant", "test")]).await;
    assert_eq!(spent, gateway.upstream().bill().total());
    assert_eq!(gateway.upstream().bill().calls, 2);
    assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 0);
}

#[tokio::test]
async fn the_short_path_of_the_compatible_protocol_is_the_same() {
    let gateway = TestGateway::start().await;
    let answer = send(&gateway, "/v1/chat/completions", &chat()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(gateway.upstream().calls()[0].path, CHAT);
}

#[tokio::test]
async fn a_key_sees_the_models_that_it_may_use() {
    let gateway = TestGateway::start().await;
    for path in ["/compatible-mode/v1/models", "/v1/models"] {
        let answer = Answer::of(gateway.get(path)).await;
        assert_eq!(answer.json["object"], "list");
        let names = answer.json["data"].as_array().unwrap().iter().map(|model| &model["id"]);
        assert!(names.clone().any(|name| name == MODEL) && names.count() > 3, "{}", answer.text);
    }
    let mut tenant = Tenant::new("one-model".parse().unwrap());
    tenant.models = vec![MODEL.to_owned()];
    let key = gateway.key_of(&tenant).await;
    let ask = |path: &str| gateway.http.get(format!("{}{path}", gateway.address)).bearer_auth(&key);
    let list = Answer::of(ask("/v1/models")).await;
    assert_eq!(list.json["data"].as_array().unwrap().len(), 1, "{}", list.text);
    let one = Answer::of(ask(&format!("/compatible-mode/v1/models/{MODEL}"))).await;
    assert_eq!(one.json["id"], MODEL);
    let other = Answer::of(ask("/v1/models/qwen-vl-ocr-latest")).await;
    assert_eq!((other.status.as_u16(), code(CHAT, &other)), (404, "model_not_found"));
}

#[tokio::test]
async fn every_task_of_the_native_protocol_passes() {
    let gateway = TestGateway::start().await;
    let tasks = [
        "text_recognition",
        "multi_lan",
        "advanced_recognition",
        "key_information_extraction",
        "table_parsing",
        "document_parsing",
        "formula_recognition",
    ];
    for task in tasks {
        let mut body = generation();
        body["parameters"]["ocr_options"] = json!({ "task": task });
        if task == "key_information_extraction" {
            let schema = json!({ "日期": "", "总额": { "数": "a number" } });
            body["parameters"]["ocr_options"]["task_config"] = json!({ "result_schema": schema });
        }
        let answer = send(&gateway, GENERATION, &body).await;
        assert_eq!(answer.status, 200, "{task}: {}", answer.text);
        assert_eq!(gateway.upstream().calls().last().unwrap().task.as_deref(), Some(task));
    }
    let (bill, above) =
        (gateway.upstream().bill(), gateway.count("tokens_above_bound_total", &[]).await);
    assert_eq!(above, 0, "a bound was too low");
    assert_eq!(gateway.count("tokens_spent_total", &[]).await, bill.total());
}

#[tokio::test]
async fn several_pictures_and_earlier_turns_are_bounded_and_pass() {
    let gateway = TestGateway::start().await;
    let mut body = chat();
    body["model"] = "qwen3.5-ocr".into();
    let picture =
        |name: &str| json!({ "type": "image_url", "image_url": { "url": data_url(name) } });
    body["messages"] = json!([
        { "role": "user", "content": [picture("hello.png"), picture("hello.jpg")] },
        { "role": "assistant", "content": "Two pages." },
        { "role": "user", "content": [picture("hello.webp"), { "type": "text", "text": "And this?" }] },
    ]);
    let answer = send(&gateway, CHAT, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let call = &gateway.upstream().calls()[0];
    assert_eq!(call.images.len(), 3);
    assert!(call.images.iter().all(|image| image.max_pixels_beside == Some(8_388_608)));
    assert_eq!(gateway.count("tokens_above_bound_total", &[]).await, 0);
}

#[tokio::test]
async fn a_stream_is_given_in_both_protocols_and_its_bill_counted() {
    let gateway = TestGateway::start().await;
    for (path, body) in both() {
        let answer = Answer::of(streamed(&gateway, path, body)).await;
        assert_eq!(answer.header("content-type"), "text/event-stream;charset=UTF-8");
        assert_eq!(answer.header("x-accel-buffering"), "no");
        assert!(answer.text.contains("data:"), "{}", answer.text);
    }
    let spent = gateway.count("tokens_spent_total", &[("tenant", "test")]).await;
    assert_eq!(spent, gateway.upstream().bill().total());
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
}

#[tokio::test]
async fn accept_alone_asks_the_native_protocol_for_a_stream() {
    let gateway = TestGateway::start().await;
    let request = gateway.post(GENERATION).header("accept", "text/event-stream");
    let answer = Answer::of(request.body(generation().to_string())).await;
    assert!(answer.text.starts_with("id:1\nevent:result\n"), "{}", answer.text);
    assert!(gateway.upstream().calls()[0].stream);
}
