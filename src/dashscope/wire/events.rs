//! Splits the bytes of a connection into server-sent events (HTML standard, section "Server-sent events").
//!
//! An event ends with a blank line. Its bytes are kept, so that it can be passed on unchanged; its fields are parsed on
//! demand. The vendor writes no space after a colon, and adds a comment line with an HTTP status, because the stream's
//! own status is already sent.

use bytes::{Bytes, BytesMut};

/// A byte order mark without meaning, with which recorded bodies start.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes that become events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    buffer: BytesMut,
    /// The start of the unfinished line.
    line: usize,
    /// There is no line break before this byte.
    searched: usize,
}

/// One event with the blank line that ends it, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event(Bytes);

/// The fields of an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fields {
    /// The lines of data, joined by line breaks; none if there are none.
    pub(crate) data: Option<Vec<u8>>,
    /// The status that DashScope writes into an event.
    pub(crate) status: Option<u16>,
    /// Whether the event has the name `error`.
    names_error: bool,
    /// Whether there is a line that is no field of the standard or of DashScope, and no comment.
    has_unknown_line: bool,
}

impl Events {
    /// Adds received bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete event.
    pub(crate) fn next(&mut self) -> Option<Event> {
        while let Some((end, length)) = self.line_end() {
            let is_blank = end == self.line;
            (self.line, self.searched) = (end + length, end + length);
            if is_blank {
                (self.line, self.searched) = (0, 0);
                return Some(Event(self.buffer.split_to(end + length).freeze()));
            }
        }
        None
    }

    /// The end of the current line, and the length of its line break: the standard allows three.
    fn line_end(&mut self) -> Option<(usize, usize)> {
        let rest = &self.buffer[self.searched..];
        let Some(found) = memchr::memchr2(b'\n', b'\r', rest) else {
            self.searched = self.buffer.len();
            return None;
        };
        let end = self.searched + found;
        match &rest[found..] {
            [b'\r'] => {
                // Only the next byte shows whether the line break includes a line feed.
                self.searched = end;
                None
            }
            [b'\r', b'\n', ..] => Some((end, 2)),
            _ => Some((end, 1)),
        }
    }

    /// Bytes of an unfinished event.
    pub(crate) fn unfinished(&self) -> usize {
        self.buffer.len()
    }

    /// The bytes after the last complete event. Some servers end the last event with the connection.
    pub(crate) fn take_rest(&mut self) -> Option<Event> {
        (self.line, self.searched) = (0, 0);
        let rest = self.buffer.split();
        (!rest.is_empty()).then(|| Event(rest.freeze()))
    }
}

impl Event {
    /// The event, byte for byte.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The fields of the event.
    pub(crate) fn fields(&self) -> Fields {
        Fields::of(&self.0)
    }
}

impl Fields {
    /// The fields of the lines in `text`.
    pub(crate) fn of(text: &[u8]) -> Self {
        let mut fields = Self::default();
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
            if let Some(value) = line.strip_prefix(b"data:") {
                let value = value.strip_prefix(b" ").unwrap_or(value);
                match &mut fields.data {
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                    none => *none = Some(value.to_vec()),
                }
            } else if let Some(status) =
                line.strip_prefix(b":HTTP_STATUS/").or_else(|| line.strip_prefix(b"status:"))
            {
                let status = std::str::from_utf8(status).ok();
                fields.status = status.and_then(|status| status.trim().parse().ok());
            } else if let Some(name) = line.strip_prefix(b"event:") {
                fields.names_error = name.trim_ascii() == b"error";
            } else if !line.is_empty() {
                let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
                fields.has_unknown_line |=
                    !matches!(name, b"" | b"data" | b"event" | b"id" | b"retry");
            }
        }
        fields
    }

    /// Whether the data is more than blanks, which some servers send to keep a connection open.
    pub(crate) fn has_data(&self) -> bool {
        self.data.as_ref().is_some_and(|data| !data.trim_ascii().is_empty())
    }

    /// Whether the event has an unknown line and no data.
    pub(crate) fn is_stray(&self) -> bool {
        self.has_unknown_line && !self.has_data()
    }

    /// The status of an error; 500 if the event has none.
    pub(crate) fn error_status(&self) -> u16 {
        self.status.filter(|status| *status >= 400).unwrap_or(500)
    }

    /// Whether the event is marked as an error, regardless of its data.
    pub(crate) fn is_named_error(&self) -> bool {
        self.names_error || self.status.is_some_and(|status| status >= 400)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(events: &mut Events) -> Vec<Bytes> {
        std::iter::from_fn(|| events.next()).map(|event| event.0).collect()
    }

    const STREAM: &[u8] = b"\xef\xbb\xbfid:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"a\":1}\n\n\
        data: one\r\ndata: two\r\n\r\n\n: keep-alive\n\ndata: [DONE]\n\ndata: cut";

    proptest! {
        #[test]
        fn events_are_the_same_wherever_the_bytes_were_split(
            splits in prop::collection::vec(0..STREAM.len(), 0..8),
        ) {
            let mut splits = splits;
            splits.sort_unstable();
            let mut events = Events::default();
            let mut seen = Vec::new();
            let mut start = 0;
            for end in splits.into_iter().chain([STREAM.len()]) {
                events.push(&STREAM[start..end]);
                seen.extend(all(&mut events));
                start = end;
            }
            prop_assert_eq!(seen.len(), 5);
            let rest = events.unfinished();
            prop_assert_eq!(rest, "data: cut".len());
            prop_assert_eq!(seen.concat(), &STREAM[..STREAM.len() - rest]);
        }
    }

    #[test]
    fn fields_are_read_with_and_without_a_space() {
        let mut events = Events::default();
        events.push(STREAM);
        let fields: Vec<_> =
            std::iter::from_fn(|| events.next()).map(|event| event.fields()).collect();
        let data = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!((&fields[0].data, fields[0].status), (&data("{\"a\":1}"), Some(200)));
        assert_eq!((&fields[1].data, fields[1].status), (&data("one\ntwo"), None));
        assert_eq!(fields[2], Fields::default());
        assert_eq!(fields[3], Fields::default());
        assert_eq!(fields[4].data, data("[DONE]"));
        assert_eq!(events.take_rest().unwrap().fields().data, data("cut"));
        assert_eq!(events.take_rest(), None);
        // As the gateway's own error events say it beside the comment.
        assert_eq!(Fields::of(b"event:error\nstatus:429\ndata:{}").status, Some(429));
    }

    #[test]
    fn each_end_of_a_line_that_the_standard_allows_ends_one() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = "data: 1\n\n: x\n\ndata: 2\ndata: 3\n\ndata: 4\n\n".replace('\n', end);
            let mut events = Events::default();
            let mut seen: Vec<Event> = Vec::new();
            for byte in stream.bytes() {
                events.push(&[byte]);
                seen.extend(std::iter::from_fn(|| events.next()));
            }
            seen.extend(events.take_rest());
            let data =
                |event: &Event| event.fields().data.map(|data| String::from_utf8(data).unwrap());
            let data: Vec<_> = seen.iter().filter_map(data).collect();
            assert_eq!(data, ["1", "2\n3", "4"], "{end:?}");
        }
    }

    #[test]
    fn an_event_says_by_its_name_or_its_status_that_it_is_an_error() {
        for text in ["event: error", "event:error\r", ":HTTP_STATUS/400", "status:503"] {
            assert!(Fields::of(text.as_bytes()).is_named_error(), "{text}");
        }
        for text in ["event: result", ":HTTP_STATUS/200", "data: error", ""] {
            assert!(!Fields::of(text.as_bytes()).is_named_error(), "{text}");
        }
    }
}
