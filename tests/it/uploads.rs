//! Each upload gets a documented answer, with any content and in any form.
//!
//! The bytes decide the type of a file, limits have both numbers, and an error is a problem document. A client that
//! lies, stalls or leaves harms only itself.

use dashscope_emulator::Fault;
use ocr_gateway::units::Pixels;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::harness::{Answer, SCRIPTED_TEXT, TestGateway, fixture, jpeg_of, until};
use crate::wire::Wire;

/// Sends a form that no library would write.
async fn send_form(gateway: &TestGateway, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = gateway.post("/ocr").header("content-type", content_type);
    Answer::of(request.body(body.into())).await
}

/// A form of parts with the boundary `b`. Each part has header lines and content.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut form = Vec::new();
    for (head, content) in parts {
        form.extend(format!("--b\r\n{head}\r\n\r\n").into_bytes());
        form.extend_from_slice(content);
        form.extend(b"\r\n");
    }
    form.extend(b"--b--\r\n");
    form
}

const FORM: &str = "multipart/form-data; boundary=b";
const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.png\"";

async fn send_json(gateway: &TestGateway, body: impl Into<String>) -> Answer {
    let request = gateway.post("/ocr").header("content-type", "application/json");
    Answer::of(request.body(body.into())).await
}

fn base64(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

// Sizes.

#[tokio::test]
async fn a_body_up_to_the_limit_is_read_and_one_byte_more_is_not() {
    let gateway = TestGateway::with_limit(20_000).await;
    for (length, status) in [(19_999, 200), (20_000, 200), (20_001, 413)] {
        let declared = gateway.upload("/ocr", jpeg_of(length)).await;
        assert_eq!(declared.status, status, "{}", declared.text);
        let mut wire = Wire::to(&gateway).await;
        wire.head("POST /ocr", "Transfer-Encoding: chunked").await;
        wire.chunk(&jpeg_of(length)).await;
        wire.send("0\r\n\r\n").await;
        assert_eq!(wire.answer().await.status, status);
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_declared_length_alone() {
    let gateway = TestGateway::with_limit(20_000).await;
    let mut wire = Wire::to(&gateway).await;
    wire.head("POST /ocr", "Content-Length: 2000000000").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "body_too_large"));
    let limit = json!({
        "name": "server.max_body_bytes", "actual": 2_000_000_000_u64, "allowed": 20_000,
    });
    assert_eq!(answer.json["limit"], limit);
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_while_the_client_still_sends() {
    let gateway = TestGateway::with_limit(20_000).await;
    let mut wire = Wire::to(&gateway).await;
    wire.head("POST /ocr", "Transfer-Encoding: chunked").await;
    wire.chunk(&jpeg_of(20_001)).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "body_too_large"));
    assert!(answer.json["limit"]["actual"].as_u64() > Some(20_000), "{}", answer.text);
    assert_eq!(answer.json["limit"]["allowed"], 20_000);
}

#[tokio::test]
async fn a_client_that_sends_megabytes_over_the_limit_still_hears_the_refusal() {
    let gateway = TestGateway::with_limit(20_000).await;
    for _ in 0..5 {
        let answer = gateway.upload("/ocr", vec![0; 4_000_000]).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (413, "body_too_large"));
    }
}

#[tokio::test]
async fn every_form_of_upload_is_held_to_the_limit() {
    let gateway = TestGateway::with_limit(20_000).await;
    let long = jpeg_of(20_001);
    let as_form = Form::new().part("file", Part::bytes(long.clone()));
    let as_form = Answer::of(gateway.post("/ocr").multipart(as_form)).await;
    let data = base64(&long);
    let body = json!({ "document": { "type": "base64", "data": data } });
    let as_json = send_json(&gateway, body.to_string()).await;
    for answer in [as_form, as_json] {
        assert_eq!((answer.status.as_u16(), answer.code()), (413, "body_too_large"));
    }
}

#[tokio::test]
async fn three_megabytes_pass_in_every_form() {
    let gateway = TestGateway::start().await;
    let large = jpeg_of(3_000_000);
    let as_form = Form::new().part("file", Part::bytes(large.clone()));
    let as_form = Answer::of(gateway.post("/ocr").multipart(as_form)).await;
    let body = json!({ "document": { "type": "base64", "data": base64(&large) } });
    let as_json = send_json(&gateway, body.to_string()).await;
    for answer in [as_form, as_json, gateway.upload("/ocr", large).await] {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json["document"]["bytes"], 3_000_000);
    }
}

#[tokio::test]
async fn a_large_photo_counts_by_its_pixels_and_not_by_its_bytes() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.tokens_per_minute = 20_000.try_into().ok();
    })
    .await;
    let answer = gateway.upload("/ocr", jpeg_of(5_000_000)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let small = gateway.upload("/ocr", fixture("hello.jpg")).await;
    assert_eq!(small.json["usage"]["image_tokens"], answer.json["usage"]["image_tokens"]);
}

#[tokio::test]
async fn an_image_too_long_for_a_data_url_is_refused_here_with_both_numbers_if_it_may_not_shrink() {
    let gateway = TestGateway::start().await;
    let answer = gateway.upload("/ocr?downscale=never", jpeg_of(8_000_000)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "image_too_large"));
    assert_eq!(answer.json["limit"]["name"], "data_url_bytes");
    assert!(answer.json["limit"]["actual"].as_u64() > answer.json["limit"]["allowed"].as_u64());
    assert_eq!(gateway.upstream().bill().received, 0);
    let shrunk = gateway.upload("/ocr", jpeg_of(8_000_000)).await;
    assert_eq!(shrunk.status, 200, "{}", shrunk.text);
    assert!(gateway.upstream().calls()[0].images[0].bytes < 1_000_000);
}

// Clients that stall, send wrong lengths or leave.

#[tokio::test]
async fn a_body_that_stalls_is_a_timeout() {
    let gateway = TestGateway::with(|setup| setup.settings.server.idle_timeout_ms = 50).await;
    let mut wire = Wire::to(&gateway).await;
    wire.head("POST /ocr", "Content-Length: 9000").await;
    wire.send(&fixture("hello.jpg")[..100]).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status.as_u16(), answer.code()), (408, "request_timeout"));
    assert_eq!(answer.json["retryable"], true);
}

#[tokio::test]
async fn a_body_that_trickles_is_a_timeout_too() {
    let gateway = TestGateway::with(|setup| setup.settings.server.body_timeout_ms = 50).await;
    let mut wire = Wire::to(&gateway).await;
    wire.head("POST /ocr", "Transfer-Encoding: chunked").await;
    let mut trickle = Wire::to(&gateway).await;
    trickle.head("POST /ocr", "Content-Length: 9000").await;
    wire.chunk(b"x").await;
    for mut wire in [wire, trickle] {
        let answer = wire.answer().await;
        assert_eq!((answer.status.as_u16(), answer.code()), (408, "request_timeout"));
    }
}

#[tokio::test]
async fn a_body_that_ends_early_harms_nobody() {
    let gateway = TestGateway::start().await;
    for headers in ["Content-Length: 9000", "Transfer-Encoding: chunked"] {
        let mut wire = Wire::to(&gateway).await;
        wire.head("POST /ocr", headers).await;
        wire.send("5\r\nhello").await;
        wire.finish().await;
    }
    let gone = [("status", "499"), ("route", "/ocr")];
    let broken = [("status", "400"), ("route", "/ocr")];
    until("both are over", async || {
        gateway.metric("requests_total", &gone).await
            + gateway.metric("requests_total", &broken).await
            >= 2.0
    })
    .await;
    assert_eq!(gateway.count("in_flight_bytes", &[]).await, 0);
    assert_eq!(gateway.upload("/ocr", fixture("hello.png")).await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_is_still_charged_what_the_upstream_bills() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::delay(100).times(1));
    let mut wire = Wire::to(&gateway).await;
    let file = fixture("hello.png");
    wire.head("POST /ocr", &format!("Content-Length: {}", file.len())).await;
    wire.send(&file).await;
    gateway.until_upstream_has(1).await;
    drop(wire);
    gateway.until_metric("requests_total", &[("status", "499")], 1.0).await;
    gateway.until_metric("tokens_spent_total", &[("tenant", "test")], 1.0).await;
    let spent = gateway.count("tokens_spent_total", &[("tenant", "test")]).await;
    assert_eq!(spent, gateway.upstream().bill().total());
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
    assert_eq!(gateway.upload("/ocr", file).await.status, 200);
}

// Forms.

#[tokio::test]
async fn a_form_that_is_malformed_is_400_and_says_how() {
    let gateway = TestGateway::start().await;
    let file = fixture("hello.png");
    let whole = form(&[(FILE, &file)]);
    let nameless = "Content-Disposition: form-data";
    let pixels = "Content-Disposition: form-data; name=\"maxpixels\"";
    let twice = "Content-Disposition: form-data; name=\"detail\"; name=\"format\"";
    for (content_type, body, code) in [
        ("multipart/form-data", whole.clone(), "malformed_multipart"),
        ("multipart/form-data; boundary=other", whole.clone(), "malformed_multipart"),
        ("multipart/form-data; boundary=b; boundary=c", whole.clone(), "malformed_multipart"),
        ("multipart/form-data; boundary=\"\"", whole.clone(), "malformed_multipart"),
        (FORM, whole[..whole.len() / 2].to_vec(), "malformed_multipart"),
        (FORM, b"no boundary anywhere".to_vec(), "malformed_multipart"),
        (FORM, Vec::new(), "malformed_multipart"),
        (FORM, [&whole, &b"x".repeat(9_000)[..]].concat(), "malformed_multipart"),
        (FORM, [&b"x".repeat(9_000)[..], &whole].concat(), "malformed_multipart"),
        (FORM, form(&[(FILE, &file), (FILE, &file)]), "multiple_files"),
        (FORM, form(&[(FILE, &file), (twice, b"1")]), "unknown_option"),
        (FORM, form(&[(FILE, b"")]), "empty_file"),
        (FORM, form(&[(FILE, &file), (pixels, b"1")]), "unknown_option"),
        (FORM, form(&[(FILE, &file), (nameless, b"1")]), "unknown_option"),
    ] {
        let answer = send_form(&gateway, content_type, body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, code), "{}", answer.text);
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_form_without_a_file_says_that_it_is_missing() {
    let gateway = TestGateway::start().await;
    let option = "Content-Disposition: form-data; name=\"detail\"";
    for body in [form(&[]), form(&[(option, b"text")])] {
        let answer = send_form(&gateway, FORM, body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "missing_file"));
    }
}

#[tokio::test]
async fn a_file_may_have_any_name() {
    let gateway = TestGateway::start().await;
    let long = "n".repeat(300);
    for parameter in [
        format!("filename=\"{long}.png\""),
        "filename=\"收据.png\"".to_owned(),
        "filename=\"../../../etc/passwd\"".to_owned(),
        "filename=\"..\\\\..\\\\win.ini\"".to_owned(),
        "filename=\"a.png\"; filename*=UTF-8''%e6%94%b6%e6%8d%ae.png".to_owned(),
        "filename*=UTF-8''%ff%fe".to_owned(),
        "filename=\"\"".to_owned(),
        "filename=\"<script>.png;.exe\"".to_owned(),
    ] {
        let head = format!("Content-Disposition: form-data; name=\"file\"; {parameter}");
        let answer = send_form(&gateway, FORM, form(&[(&head, &fixture("hello.png"))])).await;
        assert_eq!(answer.status, 200, "{parameter}: {}", answer.text);
        assert_eq!(answer.json["document"]["media_type"], "image/png");
    }
}

#[tokio::test]
async fn a_part_with_a_hostile_name_is_an_unknown_option_and_is_quoted_briefly() {
    let gateway = TestGateway::start().await;
    let long = "n".repeat(3000);
    for name in [&long, "__proto__", "../file", "file[]", "FILE", "文件", "<b>"] {
        let head = format!("Content-Disposition: form-data; name=\"{name}\"");
        let parts = [(FILE, fixture("hello.png")), (&head, b"1".to_vec())];
        let parts = parts.each_ref().map(|(head, content)| (*head, content.as_slice()));
        let answer = send_form(&gateway, FORM, form(&parts)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "unknown_option"), "{name}");
        assert!(answer.text.len() < 1000, "{}", answer.text);
    }
}

#[tokio::test]
async fn an_option_in_a_form_is_bounded() {
    let gateway = TestGateway::start().await;
    let prompt = "Content-Disposition: form-data; name=\"prompt\"";
    let long = vec![b'p'; 70_000];
    let answer =
        send_form(&gateway, FORM, form(&[(FILE, &fixture("hello.png")), (prompt, &long)])).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_option"), "{}", answer.text);
    let not_text = [(FILE, fixture("hello.png")), (prompt, vec![0xff, 0xfe])];
    let parts = not_text.each_ref().map(|(head, content)| (*head, content.as_slice()));
    let answer = send_form(&gateway, FORM, form(&parts)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_option"), "{}", answer.text);
}

#[tokio::test]
async fn the_type_is_decided_by_the_bytes_whatever_is_declared() {
    let gateway = TestGateway::start().await;
    let names = [None, Some("a.png"), Some("a.pdf"), Some("a")];
    for declared in ["image/png", "application/octet-stream", "", "application/pdf", "text/html"] {
        let request = gateway.post("/ocr").body(fixture("hello.png"));
        let raw =
            if declared.is_empty() { request } else { request.header("content-type", declared) };
        assert_eq!(Answer::of(raw).await.json["document"]["media_type"], "image/png");
        for name in names {
            let name = name.map_or_else(String::new, |name| format!("; filename=\"{name}\""));
            let declared = Some(declared).filter(|declared| !declared.is_empty());
            let kind =
                declared.map_or_else(String::new, |kind| format!("\r\nContent-Type: {kind}"));
            let head = format!("Content-Disposition: form-data; name=\"file\"{name}{kind}");
            let answer = send_form(&gateway, FORM, form(&[(&head, &fixture("hello.png"))])).await;
            assert_eq!(answer.json["document"]["media_type"], "image/png", "{head}");
        }
    }
}

#[tokio::test]
async fn every_format_is_told_by_its_bytes_and_sent_as_what_it_is() {
    let gateway = TestGateway::start().await;
    for (file, media_type) in [
        ("hello.png", "image/png"),
        ("hello.jpg", "image/jpeg"),
        ("hello.webp", "image/webp"),
        ("hello.bmp", "image/bmp"),
        ("hello.tif", "image/tiff"),
    ] {
        let request = gateway.post("/ocr").header("content-type", "image/gif");
        let answer = Answer::of(request.body(fixture(file))).await;
        assert_eq!(answer.json["document"]["media_type"], media_type, "{}", answer.text);
        let call = gateway.upstream().calls().pop().unwrap();
        assert_eq!(call.images[0].media_type.as_deref(), Some(media_type));
        assert_eq!(call.images[0].bytes, fixture(file).len());
    }
}

#[tokio::test]
async fn what_is_no_image_of_ours_is_refused_before_it_is_sent() {
    let gateway = TestGateway::start().await;
    for (file, status, code) in [
        (fixture("plain.gif"), 415, "unsupported_media_type"),
        (b"%PDF-1.7\n%".to_vec(), 422, "pdf_undecodable"),
        (b"hello".to_vec(), 415, "unsupported_media_type"),
        (fixture("hello.png")[..20].to_vec(), 422, "image_undecodable"),
        (fixture("tiny.png"), 422, "image_too_small"),
        (fixture("sliver.png"), 422, "image_too_small"),
        (Vec::new(), 400, "empty_file"),
    ] {
        for route in ["/ocr", "/extract?template=receipt", "/estimate"] {
            let answer = gateway.upload(route, file.clone()).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{}", answer.text);
        }
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

// JSON.

#[tokio::test]
async fn base64_is_taken_in_every_common_spelling() {
    let gateway = TestGateway::start().await;
    let data = base64(&fixture("hello.png"));
    let broken: Vec<_> =
        data.as_bytes().chunks(76).map(|line| str::from_utf8(line).unwrap()).collect();
    for spelling in [
        data.clone(),
        data.trim_end_matches('=').to_owned(),
        broken.join("\r\n"),
        format!("data:image/png;base64,{data}"),
        format!("data:;base64,{data}"),
    ] {
        let body = json!({ "document": { "type": "base64", "data": spelling, "filename": "x" } });
        let answer = send_json(&gateway, body.to_string()).await;
        assert_eq!(answer.json["text"], SCRIPTED_TEXT, "{}", answer.text);
    }
}

#[tokio::test]
async fn json_that_is_no_upload_is_400_and_says_why() {
    let gateway = TestGateway::start().await;
    for (body, code) in [
        ("{".to_owned(), "invalid_json"),
        (String::new(), "invalid_json"),
        ("[]".to_owned(), "invalid_json"),
        ("[".repeat(100_000), "invalid_json"),
        ("{}".to_owned(), "missing_file"),
        (r#"{"document":{"type":"base64"}}"#.to_owned(), "missing_file"),
        (r#"{"document":{"type":"path","data":""}}"#.to_owned(), "invalid_json"),
        (r#"{"document":{"type":"base64","data":"","pages":1}}"#.to_owned(), "invalid_json"),
        (
            r#"{"document":{"type":"url","url":"http://169.254.169.254/"}}"#.to_owned(),
            "invalid_option",
        ),
    ] {
        let answer = send_json(&gateway, body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, code), "{}", answer.text);
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn data_that_is_no_base64_or_has_strange_company_is_400() {
    let gateway = TestGateway::start().await;
    let data = base64(&fixture("hello.png"));
    let document =
        |data: &str| json!({ "document": { "type": "base64", "data": data } }).to_string();
    for (body, code) in [
        (document(""), "empty_file"),
        (document("_-_-"), "invalid_base64"),
        (document("data:image/png,abc"), "invalid_base64"),
        (document(&data).replacen('{', r#"{"maxpixels":1,"#, 1), "unknown_option"),
    ] {
        let answer = send_json(&gateway, body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, code), "{}", answer.text);
    }
}

#[tokio::test]
async fn an_oversized_body_skips_neither_the_key_nor_the_limits() {
    let gateway = TestGateway::with(|setup| {
        setup.settings.server.max_body_bytes = 20_000;
        setup.tenant.requests_per_minute = 1.try_into().ok();
        setup.tenant.max_pixels = Some(Pixels::new(65_536));
    })
    .await;
    let url = format!("{}/ocr", gateway.address);
    let stranger = Answer::of(gateway.http.post(url).body(jpeg_of(20_001))).await;
    assert_eq!(stranger.code(), "unauthorized");
    assert_eq!(gateway.upload("/ocr", jpeg_of(20_001)).await.code(), "body_too_large");
    assert_eq!(gateway.upload("/ocr", jpeg_of(20_001)).await.code(), "rate_limited");
}

// Common mistakes.

#[tokio::test]
async fn a_file_in_a_part_of_another_name_is_told_where_it_goes_whatever_its_size() {
    let gateway = TestGateway::start().await;
    for length in [9_000, 65_537, 300_000] {
        for head in [
            "Content-Disposition: form-data; name=\"image\"; filename=\"page.jpg\"",
            "Content-Disposition: form-data; name=\"image\"\r\nContent-Type: image/jpeg",
            "Content-Disposition: form-data; name=\"image\"; filename*=UTF-8''page.jpg",
            "Content-Disposition: form-data; name=\"image\"\r\nContent-Type: application/pdf",
            "Content-Disposition: form-data; name=\"image\"",
        ] {
            let answer = send_form(&gateway, FORM, form(&[(head, &jpeg_of(length))])).await;
            let told = (answer.status.as_u16(), answer.code());
            assert_eq!(told, (400, "unknown_option"), "{head}: {}", answer.text);
            let detail = answer.json["detail"].as_str().unwrap();
            assert!(detail.contains("`image`"), "{length} {head}: {detail}");
            assert!(detail.contains("into the part `file`"), "{length} {head}: {detail}");
            assert_eq!(answer.json["errors"][0]["pointer"], "/image");
        }
    }
}

#[tokio::test]
async fn a_picture_in_the_part_of_an_option_is_told_where_it_goes() {
    let gateway = TestGateway::start().await;
    for length in [9_000, 70_000] {
        for head in [
            "Content-Disposition: form-data; name=\"prompt\"; filename=\"page.jpg\"",
            "Content-Disposition: form-data; name=\"prompt\"\r\nContent-Type: image/jpeg",
        ] {
            let answer = send_form(&gateway, FORM, form(&[(head, &jpeg_of(length))])).await;
            let told = (answer.status.as_u16(), answer.code());
            assert_eq!(told, (400, "invalid_option"), "{head}: {}", answer.text);
            let detail = answer.json["detail"].as_str().unwrap();
            assert!(detail.contains("`prompt`") && detail.contains("part `file`"), "{detail}");
        }
    }
    // A schema can be a file.
    let schema = "Content-Disposition: form-data; name=\"schema\"; filename=\"s.json\"\r\n\
                  Content-Type: application/json";
    let content = br#"{"type":"object","properties":{"total":{"type":"string"}}}"#;
    let file = fixture("hello.png");
    let request = gateway.post("/estimate").header("content-type", FORM);
    let answer = Answer::of(request.body(form(&[(FILE, &file), (schema, content)]))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn a_part_whose_name_cannot_be_read_is_told_so() {
    let gateway = TestGateway::start().await;
    let file = fixture("hello.png");
    for head in [
        &b"Content-Disposition: form-data; name=\"\xff\xfe\""[..],
        b"Content-Disposition: form-data; name=\"\xff\xfe\"; filename=\"a.png\"",
        b"Content-Disposition: form-data",
        b"Content-Disposition: form-data; filename=\"page.jpg\"",
        b"Content-Type: image/png",
    ] {
        let body = [b"--b\r\n", head, b"\r\n\r\n", &file, b"\r\n--b--\r\n"].concat();
        let answer = send_form(&gateway, "multipart/form-data; boundary=b", body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "unknown_option"));
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(detail.contains("name of a part cannot be read"), "{detail}");
    }
}

#[tokio::test]
async fn a_file_in_another_member_of_json_is_told_where_it_goes() {
    let gateway = TestGateway::start().await;
    let data = base64(&jpeg_of(70_000));
    for member in ["image", "file", "base64", "image_url"] {
        let answer = send_json(&gateway, format!(r#"{{"{member}":"{data}"}}"#)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "unknown_option"));
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(detail.contains(member) && detail.contains("`document`"), "{detail}");
    }
}

#[tokio::test]
async fn a_compressed_body_is_415_and_says_what_to_do() {
    let gateway = TestGateway::start().await;
    let (chat, json) = (crate::dropin::chat().to_string(), r#"{"document":{}}"#.to_owned());
    let generation = crate::dropin::generation().to_string();
    let sent: [(&str, &str, Vec<u8>); 5] = [
        ("/ocr", "image/png", fixture("hello.png")),
        ("/ocr", "application/json", json.into_bytes()),
        ("/estimate", FORM, form(&[(FILE, &fixture("hello.png"))])),
        (crate::dropin::CHAT, "application/json", chat.into_bytes()),
        (crate::dropin::GENERATION, "application/json", generation.into_bytes()),
    ];
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".repeat(10);
    for (path, content_type, body) in sent {
        let request = || gateway.post(path).header("content-type", content_type);
        for coding in ["gzip", "br", "deflate", "zstd", "identity, GZIP"] {
            let request = request().header("content-encoding", coding);
            let answer = Answer::of(request.body(body.clone())).await;
            assert_eq!(answer.status, 415, "{path} {coding}: {}", answer.text);
            assert!(answer.text.contains("Content-Encoding"), "{path}: {}", answer.text);
            assert_eq!(answer.header("accept-encoding"), "identity", "{path}");
        }
        let answer = Answer::of(request().body(gzip.clone())).await;
        assert_eq!(answer.status, 415, "{path}: {}", answer.text);
        assert!(answer.text.contains("gzip"), "{path}: {}", answer.text);
    }
    let identity = gateway.post("/ocr").header("content-encoding", "identity");
    assert_eq!(Answer::of(identity.body(fixture("hello.png"))).await.status, 200);
    assert_eq!(gateway.upstream().bill().received, 1);
}

// Forms without an end.

#[tokio::test]
async fn a_part_s_head_without_end_is_refused_before_it_is_all_there() {
    let gateway = TestGateway::start().await;
    let boundary = "Content-Type: multipart/form-data; boundary=b";
    for start in [
        "--b\r\nContent-Disposition: form-data; name=\"file\"\r\nX-Padding: ",
        "--b",
        "no boundary",
        "--b\r\nContent-Disposition: form-data; name=\"detail\"\r\n\r\ntext\r\n--b\r\nX: ",
        "--b\r\nContent-Disposition: form-data; name=\"detail\"\r\n\r\ntext\r\n--b",
    ] {
        for piece in [1_000, 20_000] {
            let mut wire = Wire::to(&gateway).await;
            wire.head("POST /ocr", &format!("{boundary}\nTransfer-Encoding: chunked")).await;
            wire.chunk(start.as_bytes()).await;
            for _ in 0..40_000 / piece {
                wire.chunk(&vec![b' '; piece]).await;
            }
            let answer = wire.answer().await;
            let told = (answer.status.as_u16(), answer.code());
            assert_eq!(told, (400, "malformed_multipart"), "{start:?}: {}", answer.text);
            let detail = answer.json["detail"].as_str().unwrap();
            assert!(detail.contains("8192 bytes"), "{start:?}: {detail}");
        }
    }
}

#[tokio::test]
async fn a_form_is_read_however_it_is_cut() {
    let gateway = TestGateway::start().await;
    let option = "Content-Disposition: form-data; name=\"detail\"";
    let body = form(&[(option, b"text"), (FILE, &fixture("hello.png"))]);
    for piece in [1, 2, 3, 7, 64] {
        let mut wire = Wire::to(&gateway).await;
        let headers = format!("Content-Type: {FORM}\nTransfer-Encoding: chunked");
        wire.head("POST /estimate", &headers).await;
        for piece in body.chunks(piece) {
            wire.chunk(piece).await;
        }
        wire.send("0\r\n\r\n").await;
        assert_eq!(wire.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_form_may_have_a_long_boundary_padding_a_preamble_and_an_epilogue() {
    let gateway = TestGateway::start().await;
    let (file, boundary) = (fixture("hello.png"), "'()+_,-./:=? ".repeat(5) + "12345");
    let frame = |line: &str| line.replace("BOUNDARY", &boundary).into_bytes();
    let body = [
        frame("This is a message with multiple parts in MIME format.\r\n--BOUNDARY  \r\n"),
        b"content-disposition: form-data; filename=\"name=x; \\\"\"; Name=file\r\n".to_vec(),
        b"Content-Length: 7\r\nContent-Transfer-Encoding: Binary\r\n\r\n".to_vec(),
        file.clone(),
        frame("\r\n--BOUNDARY\t\r\nContent-Disposition: form-data; name=detail\r\n\r\ntext"),
        frame("\r\n--BOUNDARY--\r\nThis is the epilogue. It is to be ignored."),
    ]
    .concat();
    let content_type = format!("Multipart/Form-Data; charset=utf-8; Boundary=\"{boundary}\"");
    let answer = send_form(&gateway, &content_type, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["document"]["bytes"], file.len());
}

#[tokio::test]
async fn a_form_is_bounded_in_its_boundary_its_parts_their_headers_and_their_encodings() {
    let gateway = TestGateway::start().await;
    let (file, detail) = (fixture("hello.png"), "Content-Disposition: form-data; name=\"detail\"");
    let parts = |number: usize| {
        let mut parts = vec![(FILE, file.as_slice())];
        parts.resize(number, (detail, b"text".as_slice()));
        form(&parts)
    };
    let with_lines =
        |lines: usize| form(&[(&format!("{FILE}{}", "\r\nX-A: b".repeat(lines)), &file)]);
    let boundary = |length: usize| {
        let boundary = "b".repeat(length);
        let body = format!("--{boundary}\r\n{FILE}\r\n\r\n").into_bytes();
        let end = format!("\r\n--{boundary}--").into_bytes();
        (format!("multipart/form-data; boundary={boundary}"), [body, file.clone(), end].concat())
    };
    let encoded = |encoding: &str| {
        form(&[(&format!("{FILE}\r\nContent-Transfer-Encoding: {encoding}"), &file)])
    };
    let in_form = |body| (FORM.to_owned(), body);
    for ((content_type, body), told) in [
        (in_form(parts(64)), None),
        (in_form(parts(65)), Some("64 parts")),
        (in_form(parts(10_000)), Some("64 parts")),
        (in_form(with_lines(31)), None),
        (in_form(with_lines(32)), Some("32 lines")),
        (boundary(70), None),
        (boundary(71), Some("71 bytes; the limit is 70")),
        (boundary(20_000), Some("20000 bytes; the limit is 70")),
        (in_form(encoded("8bit")), None),
        (in_form(encoded("base64")), Some("Content-Transfer-Encoding")),
        (in_form(encoded("quoted-printable")), Some("Content-Transfer-Encoding")),
    ] {
        let answer = send_form(&gateway, &content_type, body).await;
        let Some(told) = told else {
            assert_eq!(answer.status, 200, "{}", answer.text);
            continue;
        };
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "malformed_multipart"), "{told}");
        assert!(answer.json["detail"].as_str().unwrap().contains(told), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_file_is_read_whatever_nearly_is_a_boundary_in_it() {
    let gateway = TestGateway::start().await;
    let picture = fixture("hello.jpg");
    for nearly in ["\r\n--", "\r\n-b", "\r", "--b--", "\n--b\r\n"] {
        let file = [picture.clone(), nearly.repeat(100_000).into_bytes()].concat();
        let answer = send_form(&gateway, FORM, form(&[(FILE, &file)])).await;
        assert_eq!(answer.status, 200, "{nearly:?}: {}", answer.text);
        assert_eq!(answer.json["document"]["bytes"], file.len());
    }
}

#[tokio::test]
async fn a_body_of_two_types_is_refused_and_of_one_type_named_twice_is_read() {
    let gateway = TestGateway::start().await;
    let form = form(&[(FILE, &fixture("hello.png"))]);
    let chat = crate::dropin::CHAT;
    let cases: [(&str, &[&str], u16); 10] = [
        ("/estimate", &[r#"multipart/form-data; x="a,\",b"; boundary=b"#], 200),
        ("/estimate", &["application/json; charset=utf-8, multipart/form-data; boundary=b"], 400),
        ("/estimate", &[FORM], 200),
        ("/estimate", &[FORM, FORM], 200),
        ("/estimate", &[FORM, "multipart/form-data; boundary=other"], 400),
        ("/estimate", &[FORM, "application/json"], 400),
        ("/ocr", &["image/png", FORM], 400),
        ("/estimate", &[&format!("{FORM}, application/json"), FORM], 400),
        ("/estimate", &["application/json, multipart/form-data; boundary=b"], 400),
        (chat, &["application/json", "text/plain"], 400),
    ];
    for (path, types, status) in cases {
        let mut wire = Wire::to(&gateway).await;
        let types: Vec<_> = types.iter().map(|one| format!("Content-Type: {one}")).collect();
        let length = form.len();
        let headers = format!("{}\nContent-Length: {length}", types.join("\n"));
        wire.head(&format!("POST {path}"), &headers).await;
        wire.send(&form).await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, status, "{path} {types:?}: {}", answer.text);
        let is_told = answer.text.contains("more than one Content-Type");
        assert_eq!(is_told, status == 400, "{path} {types:?}: {}", answer.text);
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

// Bodies in small pieces.

#[tokio::test]
async fn a_body_in_too_many_pieces_is_refused_while_it_comes() {
    let gateway = TestGateway::start().await;
    for (path, content_type) in [
        ("/ocr", "image/jpeg"),
        ("/ocr", "application/json"),
        ("/estimate", FORM),
        (crate::dropin::CHAT, "application/json"),
        (crate::dropin::GENERATION, "application/json"),
    ] {
        let mut wire = Wire::to(&gateway).await;
        let headers = format!("Content-Type: {content_type}\nTransfer-Encoding: chunked");
        wire.head(&format!("POST {path}"), &headers).await;
        let begin =
            if content_type == FORM { format!("--b\r\n{FILE}\r\n\r\n") } else { String::new() };
        if !begin.is_empty() {
            wire.chunk(begin.as_bytes()).await;
        }
        wire.send(b"1\r\nx\r\n".repeat(16_500)).await;
        let answer = wire.answer().await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
        assert!(
            answer.text.contains("pieces") && answer.text.contains("2048 bytes"),
            "{}",
            answer.text
        );
    }
    assert_eq!(gateway.count("in_flight_bytes", &[]).await, 0);
}

#[tokio::test]
async fn a_body_in_small_pieces_is_read_up_to_a_number_and_in_chunks_of_a_kilobyte_always() {
    let gateway = TestGateway::start().await;
    for (length, chunk) in [(12_000, 1), (1_000_000, 76), (15_000_000, 1024)] {
        let mut wire = Wire::to(&gateway).await;
        wire.head("POST /estimate", "Transfer-Encoding: chunked").await;
        let mut chunked = Vec::new();
        for piece in jpeg_of(length).chunks(chunk) {
            chunked.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend(b"\r\n");
        }
        chunked.extend(b"0\r\n\r\n");
        wire.send(chunked).await;
        let answer = wire.answer().await;
        let is_read = answer.status == 200 || answer.text.contains("data_url_bytes");
        assert!(is_read, "{length} in {chunk}: {}", answer.text);
    }
}
