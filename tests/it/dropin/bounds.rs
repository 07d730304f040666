//! Caps, budgets and limits apply on the drop-in paths as on the others.

use std::num::NonZeroU64;

use ocr_gateway::auth::tenant::OnExceed;
use ocr_gateway::units::Pixels;
use serde_json::{Value, json};

use super::{
    CHAT, GENERATION, MODEL, both, chat, code, data_url, generation, item, send, streamed,
};
use crate::harness::{Answer, TestGateway, fixture, until};

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
async fn several_answers_and_answers_of_no_length_are_refused() {
    let gateway = TestGateway::start().await;
    for (path, body) in both() {
        for (name, value) in [("n", 2), ("n", 0), ("max_tokens", 0)] {
            let mut body = body.clone();
            let place = if path == CHAT { &mut body } else { &mut body["parameters"] };
            place[name] = value.into();
            let answer = send(&gateway, path, &body).await;
            assert_eq!((answer.status.as_u16(), answer.text.contains(name)), (400, true));
        }
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_picture_behind_an_address_is_bounded_by_the_cap_and_never_fetched() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.max_pixels = Some(Pixels::new(1_048_576));
        // One bound of 1,026 tokens plus its answer fits, two do not.
        setup.tenant.daily_tokens = NonZeroU64::new(1_026 + 8_192 + 2_000);
    })
    .await;
    let mut body = chat();
    item(CHAT, &mut body)["image_url"]["url"] = "https://pictures.example/a.png".into();
    let answer = send(&gateway, CHAT, &body).await;
    // The upstream was asked and failed to download the image. That is its answer, and it costs nothing.
    assert_eq!((answer.status.as_u16(), code(CHAT, &answer)), (400, "invalid_parameter_error"));
    assert!(answer.text.contains("Failed to download multimodal content"));
    let call = &gateway.upstream().calls()[0];
    assert_eq!(call.images[0].max_pixels_beside, Some(1_048_576));
    assert_eq!(gateway.count("budget_tokens", &[("state", "settled"), ("period", "day")]).await, 0);
}

#[tokio::test]
async fn nothing_passes_that_may_be_an_image_and_is_not_counted_as_one() {
    let gateway = TestGateway::start().await;
    let image = json!({ "type": "image_url", "image_url": { "url": data_url("hello.png") } });
    let content = |content: Value| json!([{ "role": "user", "content": content }]);
    let compatible = [
        json!({ "messages": content(image.clone()) }),
        json!({ "messages": content(json!([[image.clone()]])) }),
        json!({ "messages": content(json!(["https://a/b.png"])) }),
        json!({ "messages": content(json!([{ "type": "text", "text": [image.clone()] }])) }),
        json!({ "messages": content(json!([{ "type": "text", "text": { "image": "https://a" } }])) }),
        json!({ "messages": content(json!([{ "type": "image", "source": { "url": "https://a" } }])) }),
        json!({ "messages": content(json!([{ "type": "text", "text": "a", "image": "https://a" }])) }),
        json!({ "messages": [{ "role": "user", "content": "a", "images": ["https://a"] }] }),
        json!({ "messages": [{ "role": "System", "content": "a" }] }),
        json!({ "messages": [{ "role": "tool", "content": "a" }] }),
        json!({ "messages": content(json!("a")), "input": { "messages": content(json!("a")) } }),
        json!({ "messages": content(json!("a")), "image_url": "https://a" }),
    ];
    let native = [
        json!({ "input": { "messages": content(json!([image])) } }),
        json!({ "input": { "messages": content(json!("a")), "image": "https://a" } }),
        json!({ "input": { "messages": content(json!("a")) }, "messages": content(json!("a")) }),
        json!({ "input": { "messages": content(json!("a")) }, "parameters": { "images": ["https://a"] } }),
    ];
    let bodies = compatible.map(|body| (CHAT, body)).into_iter();
    for (path, mut body) in bodies.chain(native.map(|body| (GENERATION, body))) {
        body["model"] = MODEL.into();
        let answer = send(&gateway, path, &body).await;
        assert_eq!(answer.status, 400, "{body}");
        code(path, &answer);
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn switches_that_make_a_call_dearer_are_refused_on_both_protocols() {
    let gateway = TestGateway::start().await;
    for (path, body) in both() {
        for name in
            ["enable_thinking", "vl_high_resolution_images", "enable_search", "tools", "best_of"]
        {
            for value in [json!(true), json!(["x"]), json!(7)] {
                let mut body = body.clone();
                let place = if path == CHAT { &mut body } else { &mut body["parameters"] };
                place[name] = value;
                let answer = send(&gateway, path, &body).await;
                assert_eq!((answer.status.as_u16(), answer.text.contains(name)), (400, true));
            }
        }
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_bound_spelt_otherwise_is_refused_wherever_it_stands() {
    let gateway = TestGateway::start().await;
    for (path, mut body) in both() {
        item(path, &mut body)["maxPixels"] = 30_720_000.into();
        let answer = send(&gateway, path, &body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains("max_pixels"), "{}", answer.text);
    }
    let mut body = generation();
    body["parameters"]["Max-Tokens"] = 9.into();
    assert_eq!(send(&gateway, GENERATION, &body).await.status, 400);
}

#[tokio::test]
async fn a_picture_that_is_straightened_is_held_at_the_same_bound_on_both_protocols() {
    // The image costs a few hundred tokens unchanged, and up to 8,194 if it is straightened.
    let gateway =
        TestGateway::with(|setup| setup.tenant.daily_tokens = NonZeroU64::new(5_000)).await;
    for (path, mut body) in both() {
        let parameters = if path == CHAT { &mut body } else { &mut body["parameters"] };
        parameters["max_tokens"] = 1.into();
        for (asked, status) in [(json!(null), 200), (json!(false), 200), (json!(true), 429)] {
            item(path, &mut body)["enable_rotate"] = asked.clone();
            let answer = send(&gateway, path, &body).await;
            assert_eq!(answer.status, status, "{path} {asked}: {}", answer.text);
        }
    }
    let mut body = chat();
    item(CHAT, &mut body)["image_url"] = data_url("hello.png").into();
    item(CHAT, &mut body)["enable_rotate"] = true.into();
    assert_eq!(send(&gateway, CHAT, &body).await.status, 429);
    assert_eq!(gateway.upstream().bill().received, 4);
}

#[tokio::test]
async fn a_data_url_that_is_not_base64_as_a_whole_is_refused_wherever_it_breaks() {
    let gateway = TestGateway::start().await;
    let whole = long_data_url();
    let large = data_url("hello.jpg");
    let end = whole.len() - 16;
    for (path, mut body) in both() {
        for place in [90_000, end] {
            for letters in ["%", "==", "\0", "\n", "\u{e9}", ",", ",data:image/png;base64,"] {
                let mut url = whole.clone();
                url.insert_str(place, letters);
                let answer = send_url(&gateway, path, &mut body, &url).await;
                assert_eq!(answer.status, 400, "{path} {letters:?} at {place}: {}", answer.text);
                assert!(answer.text.contains("Base64"), "{}", answer.text);
            }
        }
        for url in [format!("{whole},{large}"), format!("{}A", whole.trim_end_matches('='))] {
            assert_eq!(send_url(&gateway, path, &mut body, &url).await.status, 400);
        }
        assert_eq!(gateway.upstream().bill().received, 0);
        assert_eq!(send_url(&gateway, path, &mut body, &whole).await.status, 200);
        gateway.upstream().clear_calls();
    }
}

#[tokio::test]
async fn a_data_url_that_is_written_with_escapes_is_read_as_what_it_says() {
    let gateway = TestGateway::start().await;
    for (path, mut body) in both() {
        set_url(path, &mut body, "?");
        // PHP escapes slashes, .NET the plus sign, Gson the equals sign.
        let url = long_data_url();
        let escaped = url.replace('/', "\\/").replace('+', "\\u002B").replace('=', "\\u003d");
        let text = body.to_string().replace("\"?\"", &format!("\"{escaped}\""));
        let answer = Answer::of(gateway.post(path).body(text)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        for spoilt in ["\\u0000", "\\n", "\\u002d"] {
            let escaped = format!("{}{spoilt}{}", &escaped[..95_001], &escaped[95_001..]);
            let text = body.to_string().replace("\"?\"", &format!("\"{escaped}\""));
            let answer = Answer::of(gateway.post(path).body(text)).await;
            assert_eq!(answer.status, 400, "{spoilt}: {}", answer.text);
        }
    }
}

/// An image in a data URL of about 130,000 characters.
fn long_data_url() -> String {
    let mut file = crate::harness::fixture("hello.jpg");
    // Two comments after the first marker of the file.
    let comment = [b"\xff\xfe\xc3\x52".to_vec(), vec![b'?'; 50_000]].concat();
    file.splice(2..2, [&comment[..], &comment].concat());
    format!("data:image/jpeg;base64,{}", base64_simd::STANDARD.encode_to_string(file))
}

fn set_url(path: &str, body: &mut Value, url: &str) {
    let item = item(path, body);
    if path == CHAT {
        item["image_url"]["url"] = url.into();
    } else {
        item["image"] = url.into();
    }
}

async fn send_url(gateway: &TestGateway, path: &str, body: &mut Value, url: &str) -> Answer {
    set_url(path, body, url);
    send(gateway, path, body).await
}

#[tokio::test]
async fn a_request_that_the_upstream_refuses_holds_nobody_else_up() {
    let gateway = TestGateway::with(|setup| {
        for model in setup.settings.models.values_mut() {
            model.tpm = 6_000_000;
        }
    })
    .await;
    let mut body = generation();
    let image = json!({ "image": "https://pictures.example/a.png" });
    body["input"]["messages"][0]["content"] = vec![image; 256].into();
    let refused = send(&gateway, GENERATION, &body).await;
    assert!(refused.text.contains("Failed to download"), "{}", refused.text);
    let other = gateway.upload("/ocr", crate::harness::fixture("hello.png")).await;
    assert_eq!(other.status, 200, "{}", other.text);
}

/// The fixture with three million more bytes: after the end of a PNG, and within the data of a JPEG.
fn large_picture(name: &str) -> String {
    const END_OF_JPEG: usize = 2;
    let mut file = fixture(name);
    let place = if name.ends_with("jpg") { file.len() - END_OF_JPEG } else { file.len() };
    file.splice(place..place, std::iter::repeat_n(0, 3_000_000));
    format!("data:image/*;base64,{}", base64_simd::STANDARD.encode_to_string(file))
}

#[tokio::test]
async fn a_picture_that_is_decoded_as_a_whole_needs_room_and_is_refused_where_there_is_none() {
    const ALLOWED: u64 = 6_000_000;
    let gateway = TestGateway::with(|setup| {
        setup.settings.server.max_body_bytes = 5_000_000;
        setup.settings.server.max_in_flight_bytes = ALLOWED.into();
    })
    .await;
    for (path, mut body) in both() {
        // The emulator refuses the JPEG for its content, after it was sent.
        for (name, is_sent) in [("hello.png", false), ("hello.jpg", true)] {
            let url: Value = large_picture(name).into();
            match path {
                CHAT => item(path, &mut body)["image_url"]["url"] = url,
                _ => item(path, &mut body)["image"] = url,
            }
            let received = gateway.upstream().bill().received;
            let answer = send(&gateway, path, &body).await;
            let sent = gateway.upstream().bill().received - received;
            assert_eq!(sent, u64::from(is_sent), "{path} {name}: {}", answer.text);
            assert_eq!(answer.status == 503, !is_sent, "{path} {name}: {}", answer.text);
            if !is_sent {
                assert!(answer.text.contains(&ALLOWED.to_string()), "{}", answer.text);
                assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            }
        }
        let labels = [("tenant", "test"), ("reason", "overloaded")];
        assert!(gateway.count("refused_total", &labels).await > 0);
    }
    until("nothing is held", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}
