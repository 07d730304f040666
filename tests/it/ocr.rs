//! `/ocr`: an image is read, capped, billed to the token, and counted.

use ocr_gateway::auth::tenant::OnExceed;
use ocr_gateway::units::Pixels;
use serde_json::json;

use crate::harness::{Answer, SCRIPTED_TEXT, TestGateway, fixture};

#[tokio::test]
async fn an_image_in_gives_its_text_and_what_it_cost() {
    let gateway = TestGateway::start().await;
    let answer = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["text"], SCRIPTED_TEXT);
    assert_eq!(answer.json["status"], "succeeded");
    let tokens = &answer.json["pages"][0]["image_tokens"];
    assert_eq!(tokens["estimated"], tokens["billed"]);
    assert_eq!(answer.json["document"]["media_type"], "image/png");
    assert_eq!(answer.json["usage"]["upstream_calls"], 1);
    assert_eq!(answer.header("ocr-tokens-image"), tokens["billed"].to_string());
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn the_three_ways_of_uploading_give_the_same_answer() {
    let gateway = TestGateway::start().await;
    let file = fixture("hello.png");
    let part = reqwest::multipart::Part::bytes(file.clone()).file_name("../../etc/passwd\u{202e}");
    let form = reqwest::multipart::Form::new().part("file", part).text("max_pixels", "65536");
    let as_form = Answer::of(gateway.post("/ocr").multipart(form)).await;
    let as_body = gateway.upload("/ocr?max_pixels=65536", file.clone()).await;
    let data = base64_simd::STANDARD.encode_to_string(&file);
    let body = json!({ "max_pixels": 65536, "document": { "type": "base64", "data": data } });
    let request = gateway.post("/ocr").header("content-type", "application/json");
    let as_json = Answer::of(request.body(body.to_string())).await;
    for answer in [&as_form, &as_body, &as_json] {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json["pages"][0]["sent"], as_body.json["pages"][0]["sent"]);
    }
}

#[tokio::test]
async fn a_wish_above_the_cap_is_clamped_and_says_so() {
    let cap = Pixels::new(32_768);
    let gateway = TestGateway::with(|setup| setup.tenant.max_pixels = Some(cap)).await;
    let answer = gateway.upload("/ocr?max_pixels=8000000", fixture("hello.png")).await;
    let sent = &answer.json["pages"][0]["sent"];
    assert_eq!(sent["max_pixels"], cap.get());
    assert_eq!(sent["capped"], true);
    assert!(answer.json["usage"]["tokens_saved"].as_u64().unwrap() > 0);
    assert_eq!(answer.json["limits"]["max_pixels"], cap.get());
    let image = &gateway.upstream().calls()[0].images[0];
    assert_eq!(image.max_pixels_inside, Some(32_768));
    assert_eq!(image.max_pixels_beside, Some(32_768));
    let saved = gateway.count("tokens_saved_total", &[("reason", "max_pixels")]).await;
    assert_eq!(json!(saved), answer.json["usage"]["tokens_saved"]);
}

#[tokio::test]
async fn a_tenant_that_rejects_is_told_both_numbers_and_nothing_is_sent() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.max_pixels = Some(Pixels::new(32_768));
        setup.tenant.on_exceed = OnExceed::Reject;
    })
    .await;
    let answer = gateway.upload("/ocr?max_pixels=8000000", fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "image_too_large"));
    let limit = json!({ "name": "max_pixels", "actual": 8_000_000, "allowed": 32_768 });
    assert_eq!(answer.json["limit"], limit);
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn an_estimate_foretells_the_bill_and_sends_nothing() {
    let gateway = TestGateway::start().await;
    let estimate = gateway.upload("/estimate", fixture("hello.jpg")).await;
    assert_eq!(gateway.upstream().bill().received, 0);
    let answer = gateway.upload("/ocr", fixture("hello.jpg")).await;
    let billed = &answer.json["pages"][0]["image_tokens"]["billed"];
    assert_eq!(&estimate.json["pages"][0]["image_tokens"], billed);
    let bound = &estimate.json["bound"];
    assert!(bound["total_tokens"].as_u64() >= answer.json["usage"]["total_tokens"].as_u64());
}

#[tokio::test]
async fn plain_text_is_given_to_who_asks_for_it_with_the_cost_in_headers() {
    let gateway = TestGateway::start().await;
    let request = gateway.post("/ocr").header("accept", "text/plain").body(fixture("hello.png"));
    let answer = Answer::of(request).await;
    assert_eq!(answer.text, SCRIPTED_TEXT);
    assert!(answer.header("content-type").starts_with("text/plain"));
    assert!(answer.header("ocr-tokens-output").parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn what_the_metrics_count_is_what_the_answers_say_and_the_upstream_billed() {
    let gateway = TestGateway::start().await;
    let mut total = 0;
    for _ in 0..5 {
        let answer = gateway.upload("/ocr", fixture("hello.png")).await;
        total += answer.json["usage"]["total_tokens"].as_u64().unwrap();
    }
    assert_eq!(gateway.upstream().bill().total(), total);
    assert_eq!(gateway.count("tokens_spent_total", &[("tenant", "test")]).await, total);
}
