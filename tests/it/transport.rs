//! The framing of requests, and the connection to the upstream: its address, its proxy, timeouts, and an upstream that
//! answers before it has read the request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashscope_emulator::Fault;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::dropin::{CHAT, GENERATION};
use crate::harness::{Answer, SCRIPTED_TEXT, TestGateway, jpeg_of, spawn, until};
use crate::program::Installation;
use crate::wire::Wire;

/// Size of an image that exceeds the buffers of a connection on this machine.
const UPLOAD: usize = 7 << 20;

/// Answers each request as soon as its head has arrived, and keeps the connection open without reading on.
struct Early {
    address: String,
    /// Connections that the other side closed before it had sent the whole request.
    ended: Arc<AtomicUsize>,
    /// Lets the upstream check whether connections have ended. Until then it reads nothing.
    look: tokio::sync::watch::Sender<bool>,
}

impl Early {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (ended, (look, may_look)) = (Arc::default(), tokio::sync::watch::channel(false));
        let count = Arc::clone(&ended);
        spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                spawn(answer_early(connection, may_look.clone(), Arc::clone(&count)));
            }
        });
        Self { address, ended, look }
    }
}

async fn answer_early(
    mut connection: TcpStream,
    mut look: tokio::sync::watch::Receiver<bool>,
    ended: Arc<AtomicUsize>,
) {
    const BODY: &str = r#"{"error":{"code":"invalid_parameter_error","message":"m"}}"#;
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        connection.read_buf(&mut head).await.unwrap();
    }
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    connection.write_all(answer.as_bytes()).await.unwrap();
    look.wait_for(|may| *may).await.unwrap();
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest).await;
    assert!(rest.len() < UPLOAD, "{} bytes were sent after the answer", rest.len());
    ended.fetch_add(1, Ordering::Release);
}

#[tokio::test]
async fn an_answer_before_the_upload_was_read_closes_its_connection() {
    const CALLS: usize = 5;
    let early = Early::start().await;
    let gateway = TestGateway::with(|setup| {
        setup.settings.upstream.base_url.clone_from(&early.address);
    })
    .await;
    for _ in 0..CALLS {
        let answer = gateway.upload("/ocr", jpeg_of(UPLOAD)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (502, "upstream_error"));
    }
    early.look.send(true).unwrap();
    until("all connections end", async || early.ended.load(Ordering::Acquire) == CALLS).await;
    assert_eq!(gateway.count("in_flight_bytes", &[]).await, 0);
}

#[tokio::test]
async fn the_path_that_the_vendor_publishes_with_its_address_is_taken_off() {
    for suffix in ["/compatible-mode/v1", "/compatible-mode/v1/", "/api/v1", "//"] {
        let mut installation = Installation::reading(SCRIPTED_TEXT).await;
        let address = format!("{}{suffix}", installation.upstream_address());
        installation.set("UPSTREAM__BASE_URL", address);
        let check = installation.run("check").await;
        assert_eq!(check.code, 0, "{suffix} {}", check.out);
    }
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("UPSTREAM__BASE_URL", "https://dashscope.aliyuncs.com/compatible-mode");
    for command in ["check", "serve"] {
        let ended = installation.run(command).await;
        assert_eq!(ended.code, 1);
        let told = format!("{}{}", ended.out, ended.err);
        assert!(told.contains("upstream.base_url") && told.contains("/compatible-mode"), "{told}");
    }
}

#[tokio::test]
async fn the_proxy_is_told_and_one_that_cannot_be_read_keeps_the_service_from_starting() {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    let check = installation.run("check").await;
    assert!(check.out.contains("takes the key, without a proxy"), "{}", check.out);
    let service = installation.serve().await;
    assert!(service.log().contains("\"proxy\":\"without a proxy\""), "{}", service.log());

    installation.set("UPSTREAM__BASE_URL", "http://dashscope.invalid");
    installation
        .variable("http_proxy", &installation.upstream_address().replace("//", "//u:secret@"));
    let check = installation.run("check").await;
    let told = format!("by the proxy {} (http_proxy)", installation.upstream_address());
    assert!(check.out.contains(&told) && !check.out.contains("secret"), "{}", check.out);
    installation.variable("NO_PROXY", "dashscope.invalid");
    let check = installation.run("check").await;
    assert!(check.out.contains("it was asked without a proxy"), "{}", check.out);

    for (name, value) in [("HTTPS_PROXY", "http://"), ("all_proxy", "socks5://secret:1080")] {
        let mut installation = Installation::reading(SCRIPTED_TEXT).await;
        installation.variable(name, value);
        for command in ["check", "serve"] {
            let ended = installation.run(command).await;
            assert_eq!(ended.code, 1, "{name} {command}");
            let told = format!("{}{}", ended.out, ended.err);
            assert!(told.contains(&format!("{name}: ")) && !told.contains("secret"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_time_that_would_overflow_keeps_the_service_from_starting_by_its_name() {
    for key in ["SERVER__REQUEST_TIMEOUT_MS", "UPSTREAM__QUEUE_TIMEOUT_MS", "LEDGER__LEASE_MS"] {
        let mut installation = Installation::reading(SCRIPTED_TEXT).await;
        installation.set(key, u64::MAX.to_string());
        let ended = installation.run("serve").await;
        let named = key.to_ascii_lowercase().replace("__", ".");
        let told = format!("{named}: {} is above 86400000", u64::MAX);
        assert!(ended.code == 1 && ended.err.contains(&told), "{}", ended.err);
    }
}

#[tokio::test]
async fn a_huge_wait_of_caller_or_upstream_does_no_harm() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::code("Throttling").retry_after(u64::MAX));
    let request = gateway.post("/ocr").header("prefer", format!("wait={}", u64::MAX));
    let answer = Answer::of(request.body(jpeg_of(9_000))).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "upstream_throttled"));
    assert_eq!(answer.header("retry-after"), "600");
}

#[tokio::test]
async fn a_refused_client_hears_why_and_little_of_what_it_sends_then_is_read() {
    const BLOCK: usize = 1 << 20;
    const BLOCKS: usize = 512;
    let gateway = TestGateway::start().await;
    let address = gateway.address.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.unwrap();
    let (key, length) = (&gateway.key, BLOCK * BLOCKS);
    let head = format!(
        "POST /ocr HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\nContent-Length: {length}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; "HTTP/1.1 413".len()];
    connection.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    let (block, mut sent) = (vec![0; BLOCK], 0);
    while sent < BLOCKS && connection.write_all(&block).await.is_ok() {
        sent += 1;
    }
    // The buffers of both sockets accept some more than is read.
    assert!((20..64).contains(&sent), "{sent} MiB were taken after the answer");
}

/// The answer to a request with only these headers and a key.
async fn framed(gateway: &TestGateway, start: &str, lines: &[&str]) -> Answer {
    let mut wire = Wire::to(gateway).await;
    let lines: Vec<_> = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let lines = lines.concat();
    let key = &gateway.key;
    wire.send(format!("{start}\r\n{lines}X-API-Key: {key}\r\n\r\n")).await;
    wire.answer().await
}

#[tokio::test]
async fn a_request_that_names_no_host_or_two_is_refused_in_its_protocol_s_shape() {
    let gateway = TestGateway::start().await;
    let hosts: [&[&str]; 7] = [
        &[],
        &["Host: a", "Host: b"],
        &["Host: a", "host: a"],
        &["Host: a, b"],
        &["Host: a b"],
        &["Host: user@a"],
        &["Host: a:port"],
    ];
    for hosts in hosts {
        for target in ["/usage", "http://test/usage", "/livez", "/nowhere"] {
            let answer = framed(&gateway, &format!("GET {target} HTTP/1.1"), hosts).await;
            let told = (answer.status.as_u16(), answer.code());
            assert_eq!(told, (400, "bad_request"), "{target} {hosts:?}");
            assert!(answer.json["detail"].as_str().unwrap().contains("Host"), "{}", answer.text);
        }
        for (path, pointer) in [(CHAT, "/error/gateway_code"), (GENERATION, "/gateway_code")] {
            let answer = framed(&gateway, &format!("POST {path} HTTP/1.1"), hosts).await;
            assert_eq!(answer.status, 400, "{path} {hosts:?}: {}", answer.text);
            assert_eq!(answer.json.pointer(pointer).unwrap(), "bad_request", "{}", answer.text);
        }
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_request_that_names_one_host_is_answered_and_http_1_0_need_not_name_one() {
    let gateway = TestGateway::start().await;
    let one: [(&str, &[&str]); 6] = [
        ("GET /usage HTTP/1.1", &["Host: test"]),
        ("GET /usage HTTP/1.1", &["Host: [::1]:8080"]),
        ("GET /usage HTTP/1.1", &["Host:"]),
        ("GET http://other.example/usage HTTP/1.1", &["Host: test"]),
        ("GET /usage HTTP/1.0", &[]),
        ("GET /usage HTTP/1.0", &["Host: test:80"]),
    ];
    for (start, hosts) in one {
        let answer = framed(&gateway, start, hosts).await;
        assert_eq!(answer.status, 200, "{start} {hosts:?}: {}", answer.text);
    }
    let two = framed(&gateway, "GET /usage HTTP/1.0", &["Host: a", "Host: b"]).await;
    assert_eq!(two.status, 400, "{}", two.text);
}
