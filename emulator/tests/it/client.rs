//! A client that shows what a real one hides: how much of an answer arrived and how the connection ended.

use std::collections::HashMap;
use std::io::{Cursor, ErrorKind};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dashscope_emulator::{Emulator, EngineChoice, Options};
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const CHAT: &str = "/compatible-mode/v1/chat/completions";
pub(crate) const GENERATION: &str = "/api/v1/services/aigc/multimodal-generation/generation";
pub(crate) const MODEL: &str = "qwen-vl-ocr-2025-11-20";

/// The result of a request.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Zero if the connection ended before a head.
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
    /// Whether the body reached the end that its head declared.
    pub(crate) whole: bool,
    /// Whether the connection was reset instead of closed.
    pub(crate) reset: bool,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }

    /// The values of a field of all events, such as `data`.
    pub(crate) fn events(&self, field: &str) -> Vec<String> {
        let prefix = format!("{field}:");
        let values = self.body.lines().filter_map(|line| line.strip_prefix(&prefix));
        values.map(|value| value.trim_start().to_owned()).collect()
    }

    pub(crate) fn of(bytes: &[u8], reset: bool) -> Self {
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = split.map_or((&b""[..], bytes), |at| (&bytes[..at], &bytes[at + 4..]));
        let head = String::from_utf8_lossy(head).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let (body, whole) = if chunked {
            dechunked(body)
        } else {
            (body.to_vec(), length.is_none_or(|length: usize| length == body.len()))
        };
        let body = String::from_utf8_lossy(&body).into_owned();
        Self { status: status.unwrap_or(0), headers, body, whole, reset }
    }
}

/// An emulator that returns `text` for every image.
pub(crate) async fn scripted(text: &str) -> Emulator {
    let engine = EngineChoice::Scripted(text.to_owned());
    Emulator::start(Options { engine, ..Options::default() }).await.expect("the emulator starts")
}

/// Sends a request with a key and reads until the connection ends.
pub(crate) async fn send(emulator: &Emulator, line: &str, headers: &str, body: &str) -> Reply {
    let mut stream = open(emulator, line, headers, body.as_bytes()).await;
    let mut received = Vec::new();
    let ended = stream.read_to_end(&mut received).await;
    Reply::of(&received, ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset))
}

/// Sends a request and leaves the answer unread.
pub(crate) async fn open(emulator: &Emulator, line: &str, headers: &str, body: &[u8]) -> TcpStream {
    let address = emulator.base_url();
    let address = address.strip_prefix("http://").expect("the address is HTTP");
    let mut stream = TcpStream::connect(address).await.expect("the emulator listens");
    let length = body.len();
    let json = "content-type: application/json\r\n";
    let content_type = if headers.contains("content-type") { "" } else { json };
    let head = format!(
        "{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\
         {content_type}{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("the head is taken");
    // An emulator that refuses early stops reading.
    let _ = stream.write_all(body).await;
    stream
}

/// Posts JSON with the key `sk-test-1234`.
pub(crate) async fn post(emulator: &Emulator, path: &str, body: &Value) -> Reply {
    let headers = "authorization: Bearer sk-test-1234\r\n";
    send(emulator, &format!("POST {path}"), headers, &body.to_string()).await
}

/// Posts JSON with the key `sk-test-1234` and asks for server-sent events.
pub(crate) async fn stream(emulator: &Emulator, body: &Value) -> Reply {
    let headers = "authorization: Bearer sk-test-1234\r\nx-dashscope-sse: enable\r\n";
    send(emulator, &format!("POST {GENERATION}"), headers, &body.to_string()).await
}

/// A compatible request with one white image of 100 by 100 pixels.
pub(crate) fn chat() -> Value {
    chat_with(&json!({ "type": "image_url", "image_url": { "url": blank(100, 100) } }))
}

/// A compatible request with one content item.
pub(crate) fn chat_with(item: &Value) -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": [item] }] })
}

/// A native request with one white image of 100 by 100 pixels.
pub(crate) fn generation() -> Value {
    generation_with(&json!({ "image": blank(100, 100) }))
}

/// A native request with one content item.
pub(crate) fn generation_with(item: &Value) -> Value {
    let messages = json!([{ "role": "user", "content": [item] }]);
    json!({ "model": MODEL, "input": { "messages": messages }, "parameters": {} })
}

/// A white PNG as a data URL.
pub(crate) fn blank(width: u32, height: u32) -> String {
    data_url("image/png", &blank_png(width, height))
}

/// A white PNG.
pub(crate) fn blank_png(width: u32, height: u32) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    let page = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    page.write_to(&mut png, ImageFormat::Png).expect("PNG is written");
    png.into_inner()
}

/// Bytes as a data URL.
pub(crate) fn data_url(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
}

/// A file of the shared test data, if the data is there.
pub(crate) fn data(path: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let root = std::env::var("OCR_GATEWAY_TEST_DATA").unwrap_or_else(|_| beside.to_owned());
    let path = PathBuf::from(root).join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// An emulator with real OCR, if Tesseract is installed. Where programs are required, its absence is a failure.
pub(crate) async fn reader() -> Option<Emulator> {
    match Emulator::start(Options::default()).await {
        Ok(emulator) => Some(emulator),
        Err(error) => {
            let required =
                std::env::var("OCR_GATEWAY_REQUIRE_PROGRAMS").is_ok_and(|set| set == "1");
            assert!(!required, "{error}");
            println!("skipped: {error}");
            None
        }
    }
}

/// The chunks of a chunked body (RFC 9112, section 7.1) so far, and whether the last one has arrived.
fn dechunked(mut body: &[u8]) -> (Vec<u8>, bool) {
    let mut whole = Vec::new();
    while let Some(line) = body.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&body[..line]).ok();
        let Some(size) = size.and_then(|size| usize::from_str_radix(size, 16).ok()) else { break };
        let rest = &body[line + 2..];
        whole.extend_from_slice(&rest[..size.min(rest.len())]);
        if size == 0 {
            return (whole, true);
        }
        let Some(next) = rest.get(size + 2..) else { break };
        body = next;
    }
    (whole, false)
}
