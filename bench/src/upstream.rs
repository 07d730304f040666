//! An emulation of DashScope with minimal cost.
//!
//! Both protocols are answered with a fixed text and a fixed bill, and the kernel drops bodies
//! unread, since every cycle spent here is one less for the load on the same core. Only the first
//! body of each length is checked: it must hold a whole JPEG in Base64, or the answer is 400 and
//! the measurement ends. So a gateway that loses or damages pictures cannot appear fast. That check
//! also determines whether a stream is requested, which is equal for all bodies of one length.
//!
//! Each connection has a thread, even for a thousand slow streams: a sleeping thread costs a stack
//! of a few pages, and waking it costs as much as any timer.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::http::Connection;
use crate::script::{Bill, Script};
use crate::terminal::Failure;
use crate::{clock, upload};

/// The prefix of the native protocol's path; every other path is the compatible protocol's.
const NATIVE: &str = "/api/v1/services/";

/// Tokens billed for the prompt around a picture.
pub(crate) const TEXT_TOKENS: u32 = 22;

/// Tokens billed for an answer.
pub(crate) const OUTPUT_TOKENS: u32 = 300;

/// About a page of text: 300 tokens for some 1,200 characters.
const LINE: &str = "Line of a scanned page, 4711, with words and figures: 12.50 EUR. ";

#[derive(Debug, Args)]
pub(crate) struct UpstreamArgs {
    /// Address to listen on
    #[arg(long)]
    listen: SocketAddr,
    #[command(flatten)]
    manner: Manner,
    /// Tokens billed for the picture
    #[arg(long, default_value_t = upload::IMAGE_TOKENS)]
    image_tokens: u32,
    /// Tokens billed for the prompt around it
    #[arg(long, default_value_t = TEXT_TOKENS)]
    text_tokens: u32,
    /// Tokens billed for the answer
    #[arg(long, default_value_t = OUTPUT_TOKENS)]
    output_tokens: u32,
}

/// The behaviour of its answers.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Manner {
    /// Delay of each answer, in milliseconds
    #[arg(long, default_value_t = Self::PLAIN.delay_ms)]
    pub(crate) delay_ms: u64,
    /// Events with text in a stream
    #[arg(long, default_value_t = Self::PLAIN.events)]
    pub(crate) events: usize,
    /// Bytes of each event
    #[arg(long, default_value_t = Self::PLAIN.event_bytes)]
    pub(crate) event_bytes: usize,
    /// Events that are sent at once, except for the first, which is sent alone
    #[arg(long, default_value_t = Self::PLAIN.together)]
    pub(crate) together: usize,
    /// Time between two sendings, in milliseconds
    #[arg(long, default_value_t = Self::PLAIN.interval_ms)]
    pub(crate) interval_ms: u64,
}

impl Manner {
    /// Immediately, and a stream event by event at full speed. An event is about as long as
    /// DashScope's of one token.
    pub(crate) const PLAIN: Self =
        Self { delay_ms: 0, events: 20, event_bytes: 200, together: 1, interval_ms: 0 };

    /// The behaviour as command-line arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { delay_ms, events, event_bytes, together, interval_ms } = self;
        vec![
            format!("--delay-ms={delay_ms}"),
            format!("--events={events}"),
            format!("--event-bytes={event_bytes}"),
            format!("--together={together}"),
            format!("--interval-ms={interval_ms}"),
        ]
    }
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

/// The prepared answers.
struct Upstream {
    compatible: Vec<u8>,
    native: Vec<u8>,
    script: Script,
    manner: Manner,
    /// The request form of bodies of one length, of which one was checked.
    seen: Mutex<HashMap<usize, Wanted>>,
}

/// The request form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Whole,
    Stream { tells_bill: bool },
}

impl Upstream {
    fn new(arguments: &UpstreamArgs) -> Self {
        let UpstreamArgs { image_tokens: image, text_tokens: text, output_tokens: output, .. } =
            arguments;
        let (input, words) = (image + text, words());
        let native = format!(
            r#"{{"request_id":"bench","output":{{"choices":[{{"finish_reason":"stop","message":{{"role":"assistant","content":[{{"text":"{words}"}}]}}}}]}},"usage":{{"input_tokens":{input},"output_tokens":{output},"total_tokens":{},"image_tokens":{image}}}}}"#,
            input + output,
        );
        let bill = Bill { image: *image, text: *text, output: *output };
        Self {
            compatible: compatible_answer(bill),
            native: answer("200 OK", &native),
            script: Script::new(arguments.manner.event_bytes, bill),
            manner: arguments.manner,
            seen: Mutex::default(),
        }
    }

    fn serve(&self, stream: TcpStream) {
        // The measuring side handles a broken connection.
        let _ = self.exchange(stream);
    }

    fn exchange(&self, stream: TcpStream) -> io::Result<()> {
        let mut connection = Connection::over(stream)?;
        while let Some(head) = connection.head()? {
            let Some(wanted) = self.look(&mut connection, head.length()?)? else {
                let wrong = r#"{"error":{"code":"InvalidParameter","message":"no picture"}}"#;
                return connection.send(&answer("400 Bad Request", wrong));
            };
            if self.manner.delay_ms > 0 {
                thread::sleep(Duration::from_millis(self.manner.delay_ms));
            }
            let is_native = head.path().starts_with(NATIVE);
            match wanted {
                Wanted::Stream { tells_bill } => self.stream(&mut connection, tells_bill)?,
                Wanted::Whole if is_native => connection.send(&self.native)?,
                Wanted::Whole => connection.send(&self.compatible)?,
            }
        }
        Ok(())
    }

    /// Receives a body; `None` if it is invalid.
    fn look(&self, connection: &mut Connection, length: usize) -> io::Result<Option<Wanted>> {
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&length).copied();
        if known.is_some() {
            connection.drop_body(length)?;
            return Ok(known);
        }
        let body = connection.body(length)?;
        let wanted = holds_a_picture(&body).then(|| Wanted::by(&body));
        if let Some(wanted) = wanted {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(length, wanted);
        }
        Ok(wanted)
    }

    /// Sends a stream, its first event with the head and alone.
    fn stream(&self, connection: &mut Connection, tells_bill: bool) -> io::Result<()> {
        let Manner { events, together, interval_ms, .. } = self.manner;
        let interval = Duration::from_millis(interval_ms);
        let mut due = Instant::now();
        connection.send(&self.script.beginning(clock::now()))?;
        let mut left = events.saturating_sub(1);
        while left > 0 {
            if !interval.is_zero() {
                // A late event does not make the next one late.
                due += interval;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let count = left.min(together.max(1));
            connection.send(&self.script.events(count, clock::now()))?;
            left -= count;
        }
        connection.send(self.script.end(tells_bill))
    }
}

impl Wanted {
    fn by(body: &[u8]) -> Self {
        // Base64 has no quotes, so no picture contains this.
        let says = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
        if says(r#""stream":true"#) {
            Self::Stream { tells_bill: says(r#""include_usage":true"#) }
        } else {
            Self::Whole
        }
    }
}

/// About a page.
fn words() -> String {
    LINE.repeat(18)
}

/// A whole answer of the compatible protocol.
pub(crate) fn compatible_answer(Bill { image, text, output }: Bill) -> Vec<u8> {
    let (input, words) = (image + text, words());
    let body = format!(
        r#"{{"id":"chatcmpl-bench","object":"chat.completion","model":"{}","choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant","content":"{words}"}}}}],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{},"prompt_tokens_details":{{"image_tokens":{image},"text_tokens":{text}}}}}}}"#,
        upload::MODEL,
        input + output,
    );
    answer("200 OK", &body)
}

/// An answer with JSON.
pub(crate) fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-request-id: bench\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Whether a body holds a JPEG, from its first byte to its last, in a data URL.
pub(crate) fn holds_a_picture(body: &[u8]) -> bool {
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

    #[test]
    fn a_stream_and_its_bill_are_sent_only_where_they_are_asked_for() {
        let [small, ..] = Upload::all();
        assert_eq!(Wanted::by(&small.json()), Wanted::Whole);
        let wanted = |bill| Wanted::by(&small.stream_json(bill));
        assert_eq!(wanted(upload::Billing::Hidden), Wanted::Stream { tells_bill: false });
        assert_eq!(wanted(upload::Billing::Told), Wanted::Stream { tells_bill: true });
    }
}
