//! Invalid requests are refused with the vendor's code in the shape of its protocol.

use serde_json::{Value, json};

use crate::client::{
    CHAT, GENERATION, Reply, blank, chat, chat_with, data_url, generation, generation_with, post,
    scripted, send, stream,
};

async fn refused(item: &Value) -> Reply {
    let emulator = scripted("x").await;
    let reply = post(&emulator, GENERATION, &generation_with(item)).await;
    assert_eq!(emulator.world().bill().calls, 0, "a refused call was billed");
    reply
}

async fn message(item: &Value) -> String {
    let reply = refused(item).await;
    assert_eq!((reply.status, &reply.json()["code"]), (400, &json!("InvalidParameter")));
    reply.json()["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_call_without_a_key_is_unauthorized_in_both_protocols() {
    let emulator = scripted("x").await;
    let native =
        send(&emulator, &format!("POST {GENERATION}"), "", &generation().to_string()).await;
    assert_eq!((native.status, &native.json()["code"]), (401, &json!("InvalidApiKey")));
    let compatible = send(&emulator, &format!("POST {CHAT}"), "", &chat().to_string()).await;
    let error = &compatible.json()["error"];
    assert_eq!((compatible.status, &error["code"]), (401, &json!("invalid_api_key")));
    assert_eq!(error["type"], "invalid_request_error");
}

#[tokio::test]
async fn an_unknown_model_is_not_found() {
    let emulator = scripted("x").await;
    let mut request = chat();
    request["model"] = json!("qwen-of-tomorrow");
    let reply = post(&emulator, CHAT, &request).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert!(reply.json()["request_id"].is_string());
}

#[tokio::test]
async fn images_outside_the_limits_are_refused_with_the_limit() {
    assert!(message(&json!({"image": blank(10, 50)})).await.contains("must be larger than 10"));
    assert!(message(&json!({"image": blank(12, 2412)})).await.contains("aspect ratio"));
}

#[tokio::test]
async fn what_is_no_image_is_refused_as_undecodable() {
    let gif = data_url("image/gif", b"GIF89a\x10\x00\x10\x00\x00\x00\x00;");
    let heic = data_url("image/heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic");
    for image in [gif, heic, data_url("image/png", b"<html>")] {
        assert!(message(&json!({ "image": image })).await.contains("Failed to decode the image"));
    }
}

#[tokio::test]
async fn a_header_that_promises_too_many_pixels_is_refused_before_decoding() {
    // A PNG signature and a header of 60000 by 60000 pixels, with its checksum.
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
    png.extend(crc32(&png[12..]).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
    let refused = message(&json!({ "image": data_url("image/png", &png) })).await;
    assert!(refused.contains("too large"), "{refused}");
}

#[tokio::test]
async fn a_media_type_that_belies_the_bytes_is_refused() {
    let image = blank(100, 100).replace("image/png", "image/jpeg");
    assert!(message(&json!({ "image": image })).await.contains("Invalid image format"));
}

#[tokio::test]
async fn a_bad_request_of_a_stream_is_an_event_under_status_200() {
    let emulator = scripted("x").await;
    let reply = stream(&emulator, &generation_with(&json!({"image": "http://127.0.0.1/a"}))).await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.body.starts_with(
            "id:1\nevent:error\n:HTTP_STATUS/400\ndata:{\"code\":\"InvalidParameter\""
        )
    );
}

#[tokio::test]
async fn a_bad_request_of_a_compatible_stream_keeps_its_status_and_is_json() {
    let emulator = scripted("x").await;
    let item = json!({"type": "image_url", "image_url": {"url": "http://127.0.0.1/a"}});
    let mut request = chat_with(&item);
    request["stream"] = json!(true);
    let reply = post(&emulator, CHAT, &request).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (400, &json!("invalid_parameter_error"))
    );
    assert_eq!(reply.headers["content-type"], "application/json");
}

#[tokio::test]
async fn more_input_than_the_model_takes_is_refused() {
    let item = json!({"type": "image_url", "image_url": {"url": blank(100, 100)}, "min_pixels": 8_000_000});
    let mut request = chat_with(&item);
    request["messages"][0]["content"] = json!([item, item, item, item]);
    let reply = post(&scripted("x").await, CHAT, &request).await;
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(
        (reply.status, message.as_str()),
        (400, "Range of input length should be [1, 30000]")
    );
}

#[tokio::test]
async fn max_tokens_beyond_the_model_is_refused_with_its_range() {
    let emulator = scripted("x").await;
    for tokens in [0, 8193] {
        let mut request = generation();
        request["parameters"] = json!({ "max_tokens": tokens });
        let reply = post(&emulator, GENERATION, &request).await;
        assert_eq!(reply.json()["message"], "Range of max_tokens should be [1, 8192]");
    }
}

#[tokio::test]
async fn a_body_of_forty_megabytes_is_read() {
    let long = format!("data:image/png;base64,{}", "A".repeat(40 * 1024 * 1024));
    assert!(
        message(&json!({ "image": long })).await.contains("max bytes per data-uri item : 10485760")
    );
}

#[tokio::test]
async fn a_wrong_path_under_the_native_prefix_is_a_url_error() {
    let emulator = scripted("x").await;
    let path = "/api/v1/services/aigc/text-generation/generation";
    let reply = post(&emulator, path, &generation()).await;
    assert_eq!(reply.status, 400);
    assert!(reply.json()["message"].as_str().unwrap().contains("url error"));
}

#[tokio::test]
async fn an_asynchronous_call_is_denied() {
    let emulator = scripted("x").await;
    let headers = "authorization: Bearer k\r\nx-dashscope-async: enable\r\n";
    let reply =
        send(&emulator, &format!("POST {GENERATION}"), headers, &generation().to_string()).await;
    assert_eq!((reply.status, &reply.json()["code"]), (403, &json!("AccessDenied")));
}

/// The checksum of a PNG chunk (PNG specification, annex D).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 }
        })
    })
}
