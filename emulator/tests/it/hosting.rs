//! Only hosted addresses resolve.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::client::{
    CHAT, GENERATION, Reply, blank_png, chat_with, generation_with, open, post, scripted, send,
};

const PAGE: &str = "https://files.example/page.png?version=2&part=1";

fn pointing_at(url: &str) -> Value {
    generation_with(&json!({ "image": url }))
}

#[tokio::test]
async fn a_hosted_image_is_read_in_both_protocols() {
    let emulator = scripted("read at {width}x{height}").await;
    emulator.world().host(PAGE, blank_png(100, 100));
    let native = post(&emulator, GENERATION, &pointing_at(PAGE)).await.json();
    let content = &native["output"]["choices"][0]["message"]["content"];
    assert_eq!(content, &json!([{ "text": "read at 96x96" }]));
    let item = json!({ "type": "image_url", "image_url": { "url": PAGE } });
    let compatible = post(&emulator, CHAT, &chat_with(&item)).await.json();
    assert_eq!(compatible["choices"][0]["message"]["content"], "read at 96x96");
    let seen = &emulator.world().calls()[1].images[0];
    assert_eq!(
        (&seen.media_type, seen.bytes, seen.width),
        (&None, blank_png(100, 100).len(), Some(100))
    );
}

#[tokio::test]
async fn an_address_that_is_not_hosted_is_a_failed_download() {
    let emulator = scripted("x").await;
    emulator.world().host(PAGE, blank_png(100, 100));
    for url in ["https://files.example/page.png", "http://127.0.0.1/page.png"] {
        let reply = post(&emulator, GENERATION, &pointing_at(url)).await;
        assert_eq!(reply.status, 400);
        assert!(reply.body.contains("Failed to download multimodal content"), "{}", reply.body);
    }
    assert_eq!(emulator.world().bill().calls, 0);
}

#[tokio::test]
async fn what_is_hosted_is_judged_like_any_image() {
    let emulator = scripted("x").await;
    // A valid header before more bytes than a model downloads, and one before fewer.
    let mut large = blank_png(100, 100);
    large.resize(10 * 1024 * 1024 + 1, 0);
    emulator.world().host("http://a/large.png", large);
    emulator.world().host("http://a/page.html", "<html>");
    let refusal = async |url| post(&emulator, GENERATION, &pointing_at(url)).await.body;
    assert!(refusal("http://a/large.png").await.contains("too large"));
    assert!(refusal("http://a/page.html").await.contains("Failed to decode the image"));
    let mut request = pointing_at("http://a/large.png");
    request["model"] = json!("qwen3.5-ocr");
    assert_eq!(post(&emulator, GENERATION, &request).await.status, 200);
}

#[tokio::test]
async fn an_oss_address_is_resolved_only_where_the_header_asks_for_it() {
    let emulator = scripted("x").await;
    emulator.world().host("oss://bucket/page.png", blank_png(100, 100));
    let request = pointing_at("oss://bucket/page.png").to_string();
    let line = format!("POST {GENERATION}");
    let plain = send(&emulator, &line, "authorization: Bearer k\r\n", &request).await;
    assert!(plain.status == 400 && plain.body.contains("does not appear to be valid"), "{plain:?}");
    let headers = "authorization: Bearer k\r\nX-DashScope-OssResourceResolve: enable\r\n";
    assert_eq!(send(&emulator, &line, headers, &request).await.status, 200);
}

#[tokio::test]
async fn images_are_hosted_and_forgotten_over_http() {
    let emulator = scripted("x").await;
    let encoded = "https%3A%2F%2Ffiles.example%2Fpage.png%3Fversion%3D2%26part%3D1";
    let line = format!("PUT /__emulator/urls?url={encoded}");
    let mut stream = open(&emulator, &line, "", &blank_png(100, 100)).await;
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert_eq!(Reply::of(&received, false).status, 204);
    assert_eq!(post(&emulator, GENERATION, &pointing_at(PAGE)).await.status, 200);
    assert_eq!(send(&emulator, "DELETE /__emulator/urls", "", "").await.status, 204);
    assert_eq!(post(&emulator, GENERATION, &pointing_at(PAGE)).await.status, 400);
    for query in ["", "?url=", "?url=file%3A%2F%2F%2Fetc%2Fpasswd"] {
        let line = format!("PUT /__emulator/urls{query}");
        assert_eq!(send(&emulator, &line, "", "x").await.status, 400, "{query}");
    }
}
