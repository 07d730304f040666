//! Hand-written HTTP, for requests that no client library would send.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Answer, LONGEST_WAIT, TestGateway};

/// One connection to the public API.
pub(crate) struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
    key: String,
}

impl Wire {
    /// Connects to the service.
    pub(crate) async fn to(gateway: &TestGateway) -> Self {
        Self::of(gateway, &gateway.key).await
    }

    /// Connects to the service with another key.
    pub(crate) async fn of(gateway: &TestGateway, key: &str) -> Self {
        let address = gateway.address.trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream, received: Vec::new(), key: key.to_owned() }
    }

    /// Sends the head of a request: `"POST /ocr"` and further headers, one per line.
    pub(crate) async fn head(&mut self, request: &str, headers: &str) {
        let key = &self.key;
        let mut head = format!("{request} HTTP/1.1\r\nHost: test\r\nX-API-Key: {key}\r\n");
        for line in headers.lines() {
            head.push_str(line.trim());
            head.push_str("\r\n");
        }
        self.send(format!("{head}\r\n")).await;
    }

    /// Sends bytes unchanged.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends one chunk of a chunked body.
    pub(crate) async fn chunk(&mut self, bytes: &[u8]) {
        self.send(format!("{:x}\r\n", bytes.len())).await;
        self.send(bytes).await;
        self.send("\r\n").await;
    }

    /// Closes the sending side, and still reads.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Resets the connection, as the system does for a program that dies.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// Reads one answer. An interim answer, such as 100, is a separate one.
    pub(crate) async fn answer(&mut self) -> Answer {
        let answer = tokio::time::timeout(LONGEST_WAIT, self.read_answer()).await;
        answer.expect("the service answers")
    }

    /// Reads until the service closes the connection.
    pub(crate) async fn everything(&mut self) -> String {
        let reading = self.stream.read_to_end(&mut self.received);
        tokio::time::timeout(LONGEST_WAIT, reading).await.expect("the service closes").unwrap();
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }

    async fn read_answer(&mut self) -> Answer {
        let end = loop {
            let found = self.received.windows(4).position(|window| window == b"\r\n\r\n");
            match found {
                Some(at) => break at + 4,
                None => self.read_more().await,
            }
        };
        let head: Vec<u8> = self.received.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let (status, headers) = parse(&head);
        let length = headers.get("content-length").map_or("0", |length| length.to_str().unwrap());
        let length = length.parse().unwrap();
        while self.received.len() < length {
            self.read_more().await;
        }
        let text = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, json, text }
    }

    async fn read_more(&mut self) {
        let read = self.stream.read_buf(&mut self.received).await.unwrap();
        assert!(read > 0, "the connection ended before its answer");
    }
}

fn parse(head: &str) -> (StatusCode, HeaderMap) {
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        let name: HeaderName = name.parse().unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    });
    (status, headers.collect())
}
