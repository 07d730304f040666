//! A stand-in for DashScope that costs as little as can be.
//!
//! Both protocols are answered with a fixed text and a fixed bill, and bodies are dropped by the
//! kernel unread, since every cycle spent here is one less for the load on the same core. Only the
//! first body of each length is looked at: it must hold a whole JPEG in Base64, or the answer is
//! 400 and the measurement ends. A gateway that loses or garbles pictures cannot look fast here.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Args;

use crate::Failure;
use crate::http::Connection;
use crate::upload;

/// What the native protocol's path begins with; every other path is the compatible protocol's.
const NATIVE: &str = "/api/v1/services/";

/// About a page of text, as tokens go: 300 for some 1,200 characters.
const LINE: &str = "Line of a scanned page, 4711, with words and figures: 12.50 EUR. ";

#[derive(Debug, Args)]
pub(crate) struct UpstreamArgs {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// How long to wait before each answer, in milliseconds
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Tokens billed for the picture
    #[arg(long, default_value_t = upload::IMAGE_TOKENS)]
    image_tokens: u32,
    /// Tokens billed for the prompt around it
    #[arg(long, default_value_t = 22)]
    text_tokens: u32,
    /// Tokens billed for the answer
    #[arg(long, default_value_t = 300)]
    output_tokens: u32,
}

/// Serves until the process is ended: a thread for each connection.
pub(crate) fn run(arguments: &UpstreamArgs) -> Result<(), Failure> {
    let listener = TcpListener::bind(arguments.listen)?;
    let upstream = Arc::new(Upstream::new(arguments));
    for stream in listener.incoming() {
        let (stream, upstream) = (stream?, Arc::clone(&upstream));
        thread::spawn(move || upstream.serve(stream));
    }
    Ok(())
}

/// The answers, made beforehand.
struct Upstream {
    compatible: Vec<u8>,
    native: Vec<u8>,
    delay: Duration,
    /// The lengths of which a body was found to be in order.
    seen: Mutex<HashSet<usize>>,
}

impl Upstream {
    fn new(arguments: &UpstreamArgs) -> Self {
        let UpstreamArgs { image_tokens: image, text_tokens: text, output_tokens: output, .. } =
            arguments;
        let (input, words) = (image + text, LINE.repeat(18));
        let compatible = format!(
            r#"{{"id":"chatcmpl-bench","object":"chat.completion","model":"{}","choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant","content":"{words}"}}}}],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{},"prompt_tokens_details":{{"image_tokens":{image},"text_tokens":{text}}}}}}}"#,
            upload::MODEL,
            input + output,
        );
        let native = format!(
            r#"{{"request_id":"bench","output":{{"choices":[{{"finish_reason":"stop","message":{{"role":"assistant","content":[{{"text":"{words}"}}]}}}}]}},"usage":{{"input_tokens":{input},"output_tokens":{output},"total_tokens":{},"image_tokens":{image}}}}}"#,
            input + output,
        );
        Self {
            compatible: answer("200 OK", &compatible),
            native: answer("200 OK", &native),
            delay: Duration::from_millis(arguments.delay_ms),
            seen: Mutex::default(),
        }
    }

    fn serve(&self, stream: TcpStream) {
        // A connection that breaks is the affair of whoever measures at the other end.
        let _ = self.exchange(stream);
    }

    fn exchange(&self, stream: TcpStream) -> io::Result<()> {
        let mut connection = Connection::over(stream)?;
        while let Some(head) = connection.head()? {
            if self.is_known(head.length) {
                connection.drop_body(head.length)?;
            } else {
                let body = connection.body(head.length)?;
                if !holds_a_picture(&body) {
                    let wrong = r#"{"error":{"code":"InvalidParameter","message":"no picture"}}"#;
                    return connection.send(&answer("400 Bad Request", wrong));
                }
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(head.length);
            }
            if !self.delay.is_zero() {
                thread::sleep(self.delay);
            }
            let is_native = head.path().starts_with(NATIVE);
            connection.send(if is_native { &self.native } else { &self.compatible })?;
        }
        Ok(())
    }

    fn is_known(&self, length: usize) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(&length)
    }
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-request-id: bench\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Whether a body holds a JPEG, from its first byte to its last, in a data URL.
fn holds_a_picture(body: &[u8]) -> bool {
    const BEFORE: &[u8] = b";base64,";
    let Some(at) = body.windows(BEFORE.len()).position(|window| window == BEFORE) else {
        return false;
    };
    let data = &body[at + BEFORE.len()..];
    let Some(end) = data.iter().position(|byte| *byte == b'"') else { return false };
    let picture = base64_simd::STANDARD.decode_to_vec(&data[..end]).unwrap_or_default();
    picture.starts_with(b"\xff\xd8") && picture.ends_with(b"\xff\xd9")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::Upload;

    #[test]
    fn a_whole_picture_is_told_from_a_cut_one() {
        let [small, ..] = Upload::all();
        assert!(holds_a_picture(&small.json()));
        let cut = Upload { name: "", file: small.file[..30_000].to_vec() };
        assert!(!holds_a_picture(&cut.json()));
        assert!(!holds_a_picture(b"{}"));
    }
}
