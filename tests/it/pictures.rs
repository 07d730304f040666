//! A file that starts like an image but contains none, or that has two sizes, is refused on each route before anything
//! is sent.

use std::num::NonZeroU64;

use serde_json::Value;

use crate::dropin::{CHAT, GENERATION, chat, generation};
use crate::harness::{Answer, TestGateway, fixture};

/// The first position of the bytes.
fn position(file: &[u8], bytes: &[u8]) -> usize {
    file.windows(bytes.len()).position(|window| window == bytes).unwrap()
}

/// A PNG whose data chunk has another name.
fn png_without_data() -> Vec<u8> {
    let mut file = fixture("hello.png");
    while let Some(at) = file.windows(4).position(|window| window == b"IDAT") {
        file[at] = b'x';
    }
    file
}

fn cut_behind(name: &str, marker: &[u8], length: usize) -> Vec<u8> {
    let mut file = fixture(name);
    let at = position(&file, marker);
    file.truncate(at + length);
    file
}

/// A JPEG that ends where the data of its scan would start.
fn jpeg_without_scan() -> Vec<u8> {
    let file = fixture("hello.jpg");
    let at = position(&file, &[0xff, 0xda]);
    let header = u16::from_be_bytes([file[at + 2], file[at + 3]]);
    file[..at + 2 + usize::from(header)].to_vec()
}

/// A TIFF whose only strip is past the end of the file.
fn tiff_with_strips_elsewhere() -> Vec<u8> {
    let mut file = fixture("hello.tif");
    let at = position(&file, &[0x11, 0x01, 0x04, 0x00]);
    file[at + 4..at + 8].copy_from_slice(&1_u32.to_le_bytes());
    file[at + 8..at + 12].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    file
}

/// An animation that has only its canvas.
fn webp_without_frame() -> Vec<u8> {
    [&b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0"[..], &[99, 0, 0, 99, 0, 0]].concat()
}

fn without_picture() -> [(&'static str, Vec<u8>); 8] {
    [
        ("PNG without IDAT", png_without_data()),
        ("PNG cut before its data", cut_behind("hello.png", b"IDAT", 4)),
        ("JPEG cut before its scan", cut_behind("hello.jpg", &[0xff, 0xda], 0)),
        ("JPEG cut behind its scan's header", jpeg_without_scan()),
        ("WebP cut behind its header", cut_behind("hello.webp", b"VP8L", 13)),
        ("WebP without frame", webp_without_frame()),
        ("BMP cut before its pixels", fixture("hello.bmp")[..54].to_vec()),
        ("TIFF with its strips elsewhere", tiff_with_strips_elsewhere()),
    ]
}

fn data_url(file: &[u8]) -> Value {
    format!("data:image/png;base64,{}", base64_simd::STANDARD.encode_to_string(file)).into()
}

/// Requests with a file, for each route that accepts one.
fn requests(gateway: &TestGateway, file: &[u8]) -> Vec<(&'static str, reqwest::RequestBuilder)> {
    let mut compatible = chat();
    compatible["messages"][0]["content"][0]["image_url"]["url"] = data_url(file);
    let mut native = generation();
    native["input"]["messages"][0]["content"][0]["image"] = data_url(file);
    let raw = ["/ocr", "/estimate", "/extract?template=receipt", "/ocr?rotate=off"];
    let raw = raw.map(|path| (path, gateway.post(path).body(file.to_vec())));
    let dropin = [(CHAT, compatible), (GENERATION, native)];
    let dropin = dropin.map(|(path, body)| (path, gateway.post(path).body(body.to_string())));
    raw.into_iter().chain(dropin).collect()
}

/// Sends the file to each route and checks that all refuse it.
async fn assert_refused(gateway: &TestGateway, what: &str, file: &[u8]) {
    for (path, request) in requests(gateway, file) {
        let answer = Answer::of(request).await;
        let what = format!("{what} at {path}: {}", answer.text);
        if [CHAT, GENERATION].contains(&path) {
            assert_eq!(answer.status, 400, "{what}");
            assert!(answer.text.contains(r#""gateway_code":"image_undecodable""#), "{what}");
        } else {
            let refused = (answer.status.as_u16(), answer.code());
            assert_eq!(refused, (422, "image_undecodable"), "{what}");
        }
    }
}

#[tokio::test]
async fn a_file_without_any_picture_data_is_refused_and_costs_nothing() {
    let gateway = TestGateway::start().await;
    for (what, file) in without_picture() {
        assert_refused(&gateway, what, &file).await;
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

/// A PNG of 2,000 by 2,000 pixels with another header before its own, which has 64 by 64.
fn png_with_two_headers() -> Vec<u8> {
    fixture("two-sizes/png-header-first.png")
}

#[tokio::test]
async fn a_png_with_two_headers_spends_nothing_of_a_budget_however_often_it_is_sent() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.daily_tokens = NonZeroU64::new(5_000);
        setup.tenant.max_tokens = NonZeroU64::new(300);
    })
    .await;
    for _ in 0..8 {
        assert_refused(&gateway, "two headers", &png_with_two_headers()).await;
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_picture_of_two_sizes_is_refused_in_every_format_and_told_both() {
    let gateway = TestGateway::start().await;
    for name in [
        "png-header-first.png",
        "jpeg-frame-first.jpg",
        "webp-canvas-small.webp",
        "tiff-width-twice-II.tif",
    ] {
        let file = fixture(&format!("two-sizes/{name}"));
        assert_refused(&gateway, name, &file).await;
        let answer = Answer::of(gateway.post("/estimate").body(file)).await;
        let told = answer.text.contains("two sizes") && answer.text.contains("2000");
        assert!(told, "{name}: {}", answer.text);
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_second_header_at_the_end_of_a_long_data_url_is_found() {
    let gateway = TestGateway::start().await;
    let mut file = png_with_two_headers();
    let second = file[33..58].to_vec();
    file.drain(33..58);
    file.truncate(position(&file, b"IEND") - 4);
    let text = [&300_000_u32.to_be_bytes()[..], b"tEXt", &vec![0; 300_004]].concat();
    file.extend([&text[..], &second].concat());
    assert_refused(&gateway, "second header behind 300 KB", &file).await;
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_picture_that_is_cut_but_can_be_read_in_part_is_sent() {
    let gateway = TestGateway::start().await;
    for name in ["hello.png", "hello.jpg", "hello.webp", "hello.bmp"] {
        let mut file = fixture(name);
        file.truncate(file.len() * 9 / 10);
        let before = gateway.upstream().bill().received;
        for (_, request) in requests(&gateway, &file) {
            Answer::of(request).await;
        }
        // The upstream decides whether it can read the file. Only the estimate does not ask it.
        assert_eq!(gateway.upstream().bill().received - before, 5, "{name}");
    }
}
