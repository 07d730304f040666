//! What the pages of a document may hold, and whom they hold up.

use dashscope_emulator::{EngineChoice, Fault};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Answer, TestGateway, fixture, spawn, until};

/// A TIFF of so many small pages.
fn tiff(pages: u32) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut file).unwrap();
    for _ in 0..pages {
        let pixels = [200; 64 * 64];
        encoder.write_image::<tiff::encoder::colortype::Gray8>(64, 64, &pixels).unwrap();
    }
    file.into_inner()
}

/// Asks for a stream and never reads from the connection, which is returned.
async fn ask_and_read_nothing(gateway: &TestGateway, path: &str, file: &[u8]) -> TcpStream {
    let address = gateway.address.trim_start_matches("http://");
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut connection = socket.connect(address.parse().unwrap()).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         accept: text/event-stream\r\ncontent-length: {}\r\n\r\n",
        gateway.key,
        file.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(file).await.unwrap();
    connection
}

#[tokio::test]
async fn a_tenant_with_a_concurrency_of_one_has_its_pages_read_one_after_the_other() {
    let gateway = TestGateway::with(|setup| setup.tenant.concurrency = 1.try_into().ok()).await;
    // Each call takes long enough that another one beside it would be seen.
    gateway.upstream().add_fault(Fault::delay(100));
    let request = gateway.post("/ocr").body(tiff(6));
    let asking = spawn(async move { Answer::of(request).await });
    while !asking.is_finished() {
        let sent = gateway.upstream().bill().received;
        let ended = gateway.count("upstream_attempts_total", &[]).await;
        assert!(sent <= ended + 1, "{sent} calls were sent, {ended} had ended later");
    }
    let answer = asking.await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.json["status"]), (200, &"succeeded".into()));
    assert_eq!(gateway.upstream().bill().received, 6);
}

#[tokio::test]
async fn the_pages_of_a_document_take_places_of_its_tenant_and_give_them_back() {
    let gateway = TestGateway::with(|setup| setup.tenant.concurrency = 3.try_into().ok()).await;
    gateway.upstream().add_fault(Fault::delay(30_000).times(3));
    let request = gateway.post("/ocr").body(tiff(6));
    let asking = spawn(async move { Answer::of(request).await.status });
    gateway.until_upstream_has(3).await;
    let refused = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(
        (refused.code(), &refused.json["limit"]["name"]),
        ("rate_limited", &"concurrency".into())
    );
    assert_eq!(gateway.upstream().bill().received, 3);
    asking.abort();
    gateway.upstream().clear_faults();
}

#[tokio::test]
async fn the_memory_of_a_document_is_given_back_when_its_answer_is_written() {
    let gateway = TestGateway::start().await;
    let answer = gateway.upload("/ocr", tiff(20)).await;
    assert_eq!(answer.json["status"], "succeeded", "{}", answer.text);
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_stream_holds_up_neither_its_pages_nor_other_documents() {
    let gateway = TestGateway::with(|setup| {
        // The events of all pages take more than the buffers of the connection.
        setup.emulator.engine = EngineChoice::Scripted("word ".repeat(5000));
    })
    .await;
    let connection = ask_and_read_nothing(&gateway, "/ocr?detail=lines", &tiff(100)).await;
    gateway.until_metric("pages_total", &[], 100.0).await;
    let key = gateway.another_key(|_| {}).await;
    let answer = Answer::of(gateway.post_as(&key, "/ocr").body(tiff(3))).await;
    assert_eq!((answer.status.as_u16(), answer.json["pages"].as_array().unwrap().len()), (200, 3));
    drop(connection);
}
