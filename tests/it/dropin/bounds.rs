//! Caps, budgets and limits hold on the drop-in paths as everywhere.

use std::num::NonZeroU64;

use ocr_gateway::auth::tenant::OnExceed;
use ocr_gateway::units::Pixels;
use serde_json::json;

use super::{CHAT, GENERATION, both, chat, code, data_url, generation, item, send, streamed};
use crate::harness::{Answer, TestGateway};

#[tokio::test]
async fn no_picture_leaves_with_more_pixels_than_the_cap_wherever_they_are_asked_for() {
    let gateway =
        TestGateway::with(|setup| setup.tenant.max_pixels = Some(Pixels::new(32_768))).await;
    for (path, body) in both() {
        for wish in [None, Some(8_000_000), Some(16_384), Some(0)] {
            let mut body = body.clone();
            if let Some(wish) = wish {
                item(path, &mut body)["max_pixels"] = wish.into();
            }
            let answer = send(&gateway, path, &body).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            let calls = gateway.upstream().calls();
            let image = &calls.last().unwrap().images[0];
            let expected = Some(i64::from(wish.unwrap_or(32_768).clamp(3_072, 32_768)));
            assert_eq!(image.max_pixels_beside, expected);
            if path == CHAT {
                assert_eq!(image.max_pixels_inside, expected);
            }
        }
    }
    assert!(gateway.count("tokens_saved_total", &[("reason", "max_pixels")]).await > 0);
    assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 0);
}

#[tokio::test]
async fn bounds_inside_the_address_are_read_and_two_that_differ_are_refused() {
    let gateway = TestGateway::start().await;
    let mut body = chat();
    item(CHAT, &mut body)["image_url"]["max_pixels"] = 16_384.into();
    assert_eq!(send(&gateway, CHAT, &body).await.status, 200);
    assert_eq!(gateway.upstream().calls()[0].images[0].max_pixels_beside, Some(16_384));
    item(CHAT, &mut body)["max_pixels"] = 16_385.into();
    let answer = send(&gateway, CHAT, &body).await;
    assert_eq!((answer.status.as_u16(), code(CHAT, &answer)), (400, "invalid_parameter_error"));
    assert_eq!(answer.json["error"]["param"], "/messages/0/content/0/max_pixels");
}

#[tokio::test]
async fn an_address_that_is_a_bare_text_is_bounded_too() {
    let gateway = TestGateway::start().await;
    let mut body = chat();
    item(CHAT, &mut body)["image_url"] = data_url("hello.png").into();
    let answer = send(&gateway, CHAT, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let image = &gateway.upstream().calls()[0].images[0];
    assert_eq!(
        (image.max_pixels_inside, image.max_pixels_beside),
        (Some(8_388_608), Some(8_388_608))
    );
}

#[tokio::test]
async fn a_tenant_that_rejects_is_told_which_picture_is_over_its_cap() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.max_pixels = Some(Pixels::new(32_768));
        setup.tenant.on_exceed = OnExceed::Reject;
    })
    .await;
    for (path, mut body) in both() {
        item(path, &mut body)["max_pixels"] = 8_000_000.into();
        let answer = send(&gateway, path, &body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains("content/0/image") && answer.text.contains("32768"));
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn an_answer_is_bounded_by_the_lowest_of_all_limits() {
    let gateway = TestGateway::with(|setup| setup.tenant.max_tokens = NonZeroU64::new(500)).await;
    for (path, body) in both() {
        for (asked, sent) in
            [(None, 500), (Some(100), 100), (Some(8_000), 500), (Some(99_999), 500)]
        {
            let mut body = body.clone();
            let parameters = if path == CHAT { &mut body } else { &mut body["parameters"] };
            parameters["max_tokens"] = json!(asked);
            assert_eq!(send(&gateway, path, &body).await.status, 200);
            assert_eq!(gateway.upstream().calls().last().unwrap().max_tokens, Some(sent));
        }
    }
    let mut body = chat();
    body["max_completion_tokens"] = 50.into();
    assert_eq!(send(&gateway, CHAT, &body).await.status, 200);
    assert_eq!(gateway.upstream().calls().last().unwrap().max_tokens, Some(50));
    let mut body = generation();
    body.as_object_mut().unwrap().remove("parameters");
    assert_eq!(send(&gateway, GENERATION, &body).await.status, 200);
    assert_eq!(gateway.upstream().calls().last().unwrap().max_tokens, Some(500));
}

#[tokio::test]
async fn a_budget_refuses_before_anything_is_sent_and_does_not_invite_a_retry() {
    let gateway = TestGateway::with(|setup| setup.tenant.daily_tokens = NonZeroU64::new(100)).await;
    for (path, body) in both() {
        for streams in [false, true] {
            let answer = if streams {
                Answer::of(streamed(&gateway, path, body.clone())).await
            } else {
                send(&gateway, path, &body).await
            };
            let expected =
                if path == CHAT { "insufficient_quota" } else { "Throttling.AllocationQuota" };
            assert_eq!((answer.status.as_u16(), code(path, &answer)), (429, expected));
            assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
            assert_eq!(answer.header("x-should-retry"), "false");
        }
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn several_answers_to_one_question_are_bounded_by_all_of_them() {
    let bound_of_one = 8_192 + 3_000;
    let gateway = TestGateway::with(|setup| {
        setup.tenant.daily_tokens = NonZeroU64::new(bound_of_one);
    })
    .await;
    let mut body = chat();
    assert_eq!(send(&gateway, CHAT, &body).await.status, 200);
    body["n"] = 2.into();
    assert_eq!(send(&gateway, CHAT, &body).await.status, 429);
}

#[tokio::test]
async fn a_picture_behind_an_address_is_bounded_by_the_cap_and_never_fetched() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.max_pixels = Some(Pixels::new(1_048_576));
        // One bound of 1,026 tokens with its answer fits, and not two.
        setup.tenant.daily_tokens = NonZeroU64::new(1_026 + 8_192 + 2_000);
    })
    .await;
    let mut body = chat();
    item(CHAT, &mut body)["image_url"]["url"] = "https://pictures.example/a.png".into();
    let answer = send(&gateway, CHAT, &body).await;
    // The upstream was asked, and failed to download it: that is its answer, and it costs nothing.
    assert_eq!((answer.status.as_u16(), code(CHAT, &answer)), (400, "invalid_parameter_error"));
    assert!(answer.text.contains("Failed to download multimodal content"));
    let call = &gateway.upstream().calls()[0];
    assert_eq!(call.images[0].max_pixels_beside, Some(1_048_576));
    assert_eq!(gateway.count("budget_tokens", &[("state", "settled"), ("period", "day")]).await, 0);
}
