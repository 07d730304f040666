//! An answer in a protocol-independent form, and the parts of a stream.

use bytes::Bytes;
use serde_json::Value;

use crate::usage::Usage;

/// The fewest bytes of text in one event of a stream.
const SMALLEST_PIECE: usize = 4;

/// The approximate maximum number of events into which a text is split.
const MOST_PIECES: usize = 200;

/// The model's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) model: &'static str,
    pub(crate) text: String,
    /// The result of a built-in task, native protocol only.
    pub(crate) ocr_result: Option<Value>,
    pub(crate) finish_reason: &'static str,
    pub(crate) usage: Usage,
    /// Whether the answer reports the usage to the caller.
    pub(crate) states_usage: bool,
}

/// An answer in its protocol, ready to be sent.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: ReplyBody,
}

/// The body of a reply.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// A whole body, with its length in the head.
    Json(Bytes),
    /// Server-sent events, each with its blank line.
    Events(Vec<Bytes>),
}

impl Reply {
    /// A reply of one JSON value.
    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self { status, body: ReplyBody::Json(value.to_string().into()) }
    }

    /// A reply of events.
    pub(crate) fn events(events: Vec<Bytes>) -> Self {
        Self { status: 200, body: ReplyBody::Events(events) }
    }
}

/// The text in the pieces in which a stream sends it. The service sends a token at a time; here a long text has larger
/// pieces, so that cumulative events do not grow quadratically.
pub(crate) fn pieces(text: &str) -> Vec<&str> {
    let size = SMALLEST_PIECE.max(text.len() / MOST_PIECES);
    let mut rest = text;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.ceil_char_boundary(size));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_text_make_the_text() {
        for text in ["", "a", "列车时刻表, and more", &"long ".repeat(2000)] {
            assert_eq!(pieces(text).concat(), text);
        }
        assert!(pieces(&"long ".repeat(2000)).len() <= MOST_PIECES + 1);
    }
}
