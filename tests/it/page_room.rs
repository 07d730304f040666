//! What the pages of a document may hold, and whom they hold up.

use dashscope_emulator::EngineChoice;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Answer, TestGateway};

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
