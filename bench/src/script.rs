//! The content of an emulated stream. It is built in advance, except for the timestamp that each
//! event carries in its text.
//!
//! Every hop passes the text on, either byte for byte or in events of the gateway's own. So the
//! timestamp can always be read from it, and counting the timestamps counts the upstream's events.
//! Each event is a chunk of its own, as from a server that writes tokens.

use crate::upload;

/// The text before each timestamp; it occurs nowhere else in a stream.
pub(crate) const MARK: u8 = b'@';

/// Digits of a timestamp: those of the largest `u64`.
pub(crate) const DIGITS: usize = 20;

/// nginx treats the last line like the setting `proxy_buffering off`.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    x-request-id: bench\r\ntransfer-encoding: chunked\r\nx-accel-buffering: no\r\n\r\n";

/// The bill of a stream, in tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bill {
    pub(crate) image: u32,
    pub(crate) text: u32,
    pub(crate) output: u32,
}

/// A stream in pieces.
#[derive(Debug)]
pub(crate) struct Script {
    event: Vec<u8>,
    /// The position of the event's timestamp.
    moment: std::ops::Range<usize>,
    end_with_bill: Vec<u8>,
    end: Vec<u8>,
}

impl Script {
    /// A stream of the compatible protocol whose events have `length` bytes, or as few as possible,
    /// and that ends with `bill` if it is requested.
    pub(crate) fn new(length: usize, bill: Bill) -> Self {
        let opening = format!(
            r#"{{"id":"chatcmpl-bench","object":"chat.completion.chunk","model":"{}","choices":"#,
            upload::MODEL
        );
        let told = |text: &str, reason: &str| {
            let delta = format!(r#""delta":{{"content":"{text}"}}"#);
            format!(r#"{opening}[{{"index":0,"finish_reason":{reason},{delta}}}]}}"#)
        };
        let digits = format!("{}{:0DIGITS$}", char::from(MARK), 0);
        let bare = event(&told(&digits, "null")).len();
        let words = "x".repeat(length.saturating_sub(bare));
        let event = framed(&told(&format!("{digits}{words}"), "null"));
        let moment = event.iter().position(|byte| *byte == MARK).map_or(0, |mark| mark + 1);
        let Bill { image, text, output } = bill;
        let usage = format!(
            r#"{opening}[],"usage":{{"prompt_tokens":{},"completion_tokens":{output},"total_tokens":{},"prompt_tokens_details":{{"image_tokens":{image},"text_tokens":{text}}}}}}}"#,
            image + text,
            image + text + output,
        );
        let (stop, usage, done) =
            (framed(&told("", r#""stop""#)), framed(&usage), framed("[DONE]"));
        let last: &[u8] = b"0\r\n\r\n";
        Self {
            event,
            moment: moment..moment + DIGITS,
            end_with_bill: [&stop[..], &usage, &done, last].concat(),
            end: [&stop[..], &done, last].concat(),
        }
    }

    /// The beginning of a stream: its head and its first event, sent at `now`.
    pub(crate) fn beginning(&self, now: u64) -> Vec<u8> {
        [HEAD, &self.events(1, now)].concat()
    }

    /// `count` events that are sent at `now`.
    pub(crate) fn events(&self, count: usize, now: u64) -> Vec<u8> {
        let mut event = self.event.clone();
        event[self.moment.clone()].copy_from_slice(format!("{now:0DIGITS$}").as_bytes());
        event.repeat(count)
    }

    /// The end of a stream.
    pub(crate) fn end(&self, tells_bill: bool) -> &[u8] {
        if tells_bill { &self.end_with_bill } else { &self.end }
    }
}

fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// An event as a chunk.
fn framed(data: &str) -> Vec<u8> {
    let event = event(data);
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunked::Chunked;

    const BILL: Bill = Bill { image: 1442, text: 22, output: 300 };

    #[test]
    fn an_event_has_its_length_and_its_moment() {
        let mut body = Vec::new();
        let script = Script::new(200, BILL);
        Chunked::default().push(&script.events(3, 4711), &mut body).unwrap();
        assert_eq!(body.len(), 3 * 200);
        let text = String::from_utf8(body).unwrap();
        assert_eq!(text.matches("\"@00000000000000004711x").count(), 3);
    }

    #[test]
    fn a_stream_ends_with_its_bill_only_where_it_is_asked_for() {
        let script = Script::new(200, BILL);
        for tells_bill in [true, false] {
            let (mut chunked, mut body) = (Chunked::default(), Vec::new());
            chunked.push(script.end(tells_bill), &mut body).unwrap();
            let text = String::from_utf8(body).unwrap();
            assert!(chunked.is_over() && text.ends_with("data: [DONE]\n\n"));
            assert_eq!(text.contains(r#""image_tokens":1442"#), tells_bill);
        }
    }
}
