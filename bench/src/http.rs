//! The part of HTTP/1.1 that the two ends of a measurement need: heads, lengths and bodies.
//!
//! Both ends share one core, so the CPU time that they use reduces the throughput that can be
//! measured. That is why this is neither a library nor asynchronous: a thread that blocks in one
//! `recv` costs less than a poll, a wakeup and a read. A chunked body has no declared length. Only
//! `events` accepts one, since only streams are chunked; any other chunked body would be an error.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use rustix::net::RecvFlags;

/// Heads and small bodies are read in pieces of this many bytes.
const BUFFER: usize = 64 * 1024;

/// The largest piece of a body that is dropped with one call.
const DROPPED_AT_ONCE: usize = 1024 * 1024;

/// The first line of a message, and the length of its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The request line or the status line.
    pub(crate) first_line: String,
    /// The body's length in bytes; `None` if it is chunked.
    length: Option<usize>,
}

impl Head {
    /// Reads a head that ends with its empty line.
    fn parse(head: &[u8]) -> io::Result<Self> {
        let text = std::str::from_utf8(head).map_err(|_| malformed("a head that is not text"))?;
        let mut lines = text.split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let mut length = Some(0);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                let parsed = value.trim().parse();
                length = Some(parsed.map_err(|_| malformed("a length that is no number"))?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                length = None;
            }
        }
        Ok(Self { first_line, length })
    }

    /// The body's length in bytes.
    ///
    /// # Errors
    ///
    /// The body is chunked.
    pub(crate) fn length(&self) -> io::Result<usize> {
        self.length.ok_or_else(|| malformed("a chunked body"))
    }

    /// Whether the body is chunked.
    pub(crate) fn is_chunked(&self) -> bool {
        self.length.is_none()
    }

    /// The status, if this is the head of an answer.
    pub(crate) fn status(&self) -> Option<u16> {
        self.first_line.split(' ').nth(1)?.parse().ok()
    }

    /// The path, if this is the head of a request.
    pub(crate) fn path(&self) -> &str {
        self.first_line.split(' ').nth(1).unwrap_or_default()
    }
}

/// One connection, read message by message.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    /// The part of the buffer that was received and not yet used.
    unread: std::ops::Range<usize>,
    /// Passed to the kernel as a length only; its pages are never touched.
    dropped: Box<[u8]>,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    /// Uses an open connection.
    pub(crate) fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER].into(),
            unread: 0..0,
            dropped: vec![0; DROPPED_AT_ONCE].into(),
        })
    }

    /// The next message's head; `None` if the other end has closed.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            let unread = &self.buffer[self.unread.clone()];
            if let Some(length) = unread.windows(4).position(|end| end == b"\r\n\r\n") {
                let head = Head::parse(&unread[..length])?;
                self.unread.start += length + 4;
                return Ok(Some(head));
            }
            if self.unread.len() == BUFFER {
                return Err(malformed("a head without end"));
            }
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
            let read = self.stream.read(&mut self.buffer[self.unread.end..])?;
            if read == 0 {
                return if self.unread.is_empty() { Ok(None) } else { Err(broke_off()) };
            }
            self.unread.end += read;
        }
    }

    /// The body of `length` bytes.
    pub(crate) fn body(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut body = vec![0; length];
        let begun = self.take_unread(length);
        body[..begun.len()].copy_from_slice(&self.buffer[begun.clone()]);
        self.stream.read_exact(&mut body[begun.len()..])?;
        Ok(body)
    }

    /// Receives a body of `length` bytes and discards it: the kernel drops it without a copy
    /// (tcp(7), `MSG_TRUNC`).
    pub(crate) fn drop_body(&mut self, length: usize) -> io::Result<()> {
        let mut left = length - self.take_unread(length).len();
        while left > 0 {
            let piece = &mut self.dropped[..left.min(DROPPED_AT_ONCE)];
            let flags = RecvFlags::TRUNC | RecvFlags::WAITALL;
            let (_, received) = rustix::net::recv(&self.stream, piece, flags)?;
            if received == 0 {
                return Err(broke_off());
            }
            left -= received;
        }
        Ok(())
    }

    /// The received bytes; waits for some if there are none. Empty if the other end has closed.
    pub(crate) fn received(&mut self) -> io::Result<&[u8]> {
        if self.unread.is_empty() {
            self.unread = 0..self.stream.read(&mut self.buffer)?;
        }
        let received = self.take_unread(BUFFER);
        Ok(&self.buffer[received])
    }

    /// Sends the whole `message`.
    pub(crate) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message)
    }

    /// Uses up to `most` of the bytes already received.
    fn take_unread(&mut self, most: usize) -> std::ops::Range<usize> {
        let taken = self.unread.start..self.unread.end.min(self.unread.start + most);
        self.unread.start = taken.end;
        taken
    }
}

/// A request with its head, as sent.
pub(crate) fn request(path: &str, headers: &[String], body: &[u8]) -> Vec<u8> {
    let mut message = format!("POST {path} HTTP/1.1\r\nHost: bench\r\n");
    for header in headers {
        message.push_str(header);
        message.push_str("\r\n");
    }
    let length = format!("Content-Length: {}\r\n\r\n", body.len());
    [message.as_bytes(), length.as_bytes(), body].concat()
}

pub(crate) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other end sent {what}"))
}

pub(crate) fn broke_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the other end broke off")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Connection, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = Connection::open(listener.local_addr().unwrap()).unwrap();
        (here, Connection::over(listener.accept().unwrap().0).unwrap())
    }

    #[test]
    fn two_messages_in_one_piece_are_told_apart() {
        let (mut here, mut there) = pair();
        let one = request("/one", &["Accept: */*".to_owned()], b"first");
        here.send(&[one, request("/two", &[], b"second")].concat()).unwrap();
        let head = there.head().unwrap().unwrap();
        assert_eq!((head.path(), head.length().unwrap()), ("/one", 5));
        assert_eq!(there.body(5).unwrap(), b"first");
        assert_eq!(there.head().unwrap().unwrap().path(), "/two");
        there.drop_body(6).unwrap();
        drop(here);
        assert_eq!(there.head().unwrap(), None);
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        let (mut here, mut there) = pair();
        here.send(b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nshort").unwrap();
        drop(here);
        let head = there.head().unwrap().unwrap();
        assert!(there.drop_body(head.length().unwrap()).is_err());
    }

    #[test]
    fn a_chunked_body_has_no_length_to_ask_for() {
        let head = Head::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked").unwrap();
        assert!(head.is_chunked() && head.length().is_err());
    }

    #[test]
    fn what_came_with_a_head_is_received_before_what_comes_after() {
        let (mut here, mut there) = pair();
        here.send(b"HTTP/1.1 200 OK\r\n\r\nearly").unwrap();
        there.head().unwrap();
        assert_eq!(there.received().unwrap(), b"early");
        here.send(b"late").unwrap();
        assert_eq!(there.received().unwrap(), b"late");
        drop(here);
        assert_eq!(there.received().unwrap(), b"");
    }

    #[test]
    fn the_status_of_an_answer_is_read() {
        assert_eq!(Head::parse(b"HTTP/1.1 413 Too Large").unwrap().status(), Some(413));
    }
}
