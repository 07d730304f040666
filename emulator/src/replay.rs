//! A recorded answer, sent again byte for byte.
//!
//! A real answer is better evidence than this crate's model of the service. A recording is sent unchanged,
//! a byte order mark at its start included; only the bill is read from it.

use bytes::Bytes;
use serde_json::Value;

use crate::answer::{Reply, ReplyBody};
use crate::usage::Usage;

/// A recorded answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replay {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

impl Replay {
    /// The answer to send: one chunk for each event of a stream, anything else at once.
    pub(crate) fn reply(&self) -> Reply {
        let body = if self.is_stream() {
            ReplyBody::Events(events(&self.body))
        } else {
            ReplyBody::Json(self.body.clone())
        };
        Reply { status: self.status, body }
    }

    /// The last usage in the body, with the names of either protocol.
    pub(crate) fn usage(&self) -> Option<Usage> {
        if !self.is_stream() {
            return stated(self.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.body));
        }
        let lines = self.body.split(|byte| *byte == b'\n');
        let data = lines.filter_map(|line| line.strip_prefix(b"data:"));
        data.filter_map(stated).next_back()
    }

    fn is_stream(&self) -> bool {
        self.content_type.starts_with("text/event-stream")
    }
}

/// The events of a stream, each with its blank line, and the rest after the last one.
fn events(body: &Bytes) -> Vec<Bytes> {
    let (mut events, mut begin, mut end) = (Vec::new(), 0, 0);
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        if matches!(line, b"\n" | b"\r\n") {
            events.push(body.slice(begin..end));
            begin = end;
        }
    }
    events.push(body.slice(begin..));
    events
}

/// The usage in one JSON value.
fn stated(json: &[u8]) -> Option<Usage> {
    let value: Value = serde_json::from_slice(json).ok()?;
    let usage = value.get("usage")?;
    let first = |places: &[&str]| places.iter().find_map(|place| usage.pointer(place)?.as_u64());
    let input = first(&["/input_tokens", "/prompt_tokens"])?;
    let image = first(&[
        "/image_tokens",
        "/input_tokens_details/image_tokens",
        "/prompt_tokens_details/image_tokens",
    ]);
    let image = image.unwrap_or(0).min(input);
    let output = first(&["/output_tokens", "/completion_tokens"]).unwrap_or(0);
    Some(Usage { image, text: input - image, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(content_type: &str, body: &'static str) -> Replay {
        Replay { status: 200, content_type: content_type.to_owned(), body: body.into() }
    }

    #[test]
    fn a_stream_is_split_behind_its_blank_lines_and_loses_no_byte() {
        let body = Bytes::from_static(b"\xef\xbb\xbfid:1\ndata:{}\n\n: x\r\n\r\n\ndata: open");
        let events = events(&body);
        assert_eq!(events.concat(), body);
        assert_eq!(events.len(), 4);
        assert_eq!(events[1], ": x\r\n\r\n");
    }

    #[test]
    fn the_last_usage_of_a_stream_that_is_not_null_is_the_bill() {
        let stream = "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\r\n\r\n\
            data: {\"usage\":{\"prompt_tokens\":30,\"completion_tokens\":10,\
            \"prompt_tokens_details\":{\"image_tokens\":20}}}\n\ndata: {\"usage\":null}\n\ndata: [DONE]\n\n";
        let usage = replay("text/event-stream;charset=UTF-8", stream).usage();
        assert_eq!(usage, Some(Usage { image: 20, text: 10, output: 10 }));
    }

    #[test]
    fn a_body_without_usage_has_no_bill() {
        assert_eq!(replay("application/json", "{\"code\":\"Throttling\"}").usage(), None);
        assert_eq!(replay("application/json", "{\"usage\":null}").usage(), None);
        assert_eq!(replay("text/html", "<html>").usage(), None);
    }
}
