//! Reads one answer as a stream of events to its end.
//!
//! A stream counts only if it is complete: status 200, every event that the upstream sent, the bill
//! if one is expected, the final event, and the end of the body. An incomplete stream is an error
//! and makes the window void.

use std::io;
use std::time::Instant;

use clap::ValueEnum;

use crate::chunked::Chunked;
use crate::clock;
use crate::http::{Connection, broke_off, malformed};
use crate::script::{DIGITS, MARK};

/// The properties of a complete stream.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Whole {
    /// Number of events with text that the upstream sends
    #[arg(long)]
    pub(crate) events: usize,
    /// How to recognise the last event
    #[arg(long)]
    pub(crate) ending: Ending,
    /// A text that an event without the upstream's text must contain
    #[arg(long, default_value = "")]
    pub(crate) expect: String,
}

/// The last event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ending {
    /// The compatible protocol's.
    Done,
    /// That of `/ocr`.
    Answer,
}

impl Ending {
    /// The value on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Answer => "answer",
        }
    }

    const fn opening(self) -> &'static [u8] {
        match self {
            Self::Done => b"data: [DONE]",
            Self::Answer => b"event: answer\n",
        }
    }
}

/// Reads the next answer on `connection`, adds the delay of each event in nanoseconds to `late`,
/// and returns the time at which the first bytes of events arrived.
///
/// # Errors
///
/// The stream is not complete.
pub(crate) fn listen(
    connection: &mut Connection,
    whole: &Whole,
    mut late: impl FnMut(u64),
) -> io::Result<Instant> {
    let head = connection.head()?.ok_or_else(broke_off)?;
    if head.status() != Some(200) || !head.is_chunked() {
        let told = head.length().and_then(|length| connection.body(length)).unwrap_or_default();
        let told = String::from_utf8_lossy(&told);
        return Err(io::Error::other(format!("no stream: {}: {told}", head.first_line)));
    }
    let (mut chunked, mut hearing, mut first) = (Chunked::default(), Hearing::default(), None);
    while !chunked.is_over() {
        let received = connection.received()?;
        if received.is_empty() {
            return Err(broke_off());
        }
        let now = clock::now();
        chunked.push(received, &mut hearing.unheard)?;
        if first.is_none() && !hearing.unheard.is_empty() {
            first = Some(Instant::now());
        }
        hearing.hear(whole, |sent| late(now.saturating_sub(sent)));
    }
    hearing.verdict(whole)?;
    first.ok_or_else(|| malformed("a stream without events"))
}

/// The part of a stream received so far.
#[derive(Debug, Default)]
struct Hearing {
    /// The bytes of an incomplete event.
    unheard: Vec<u8>,
    /// Number of events that the upstream sent, counted by their timestamps.
    events: usize,
    /// Whether an event contained the expected value.
    has_told: bool,
    /// Whether the previous event was the last.
    has_ended: bool,
}

impl Hearing {
    /// Processes the complete events.
    fn hear(&mut self, whole: &Whole, mut sent: impl FnMut(u64)) {
        let mut heard = 0;
        while let Some(length) = end_of_event(&self.unheard[heard..]) {
            let event = &self.unheard[heard..heard + length];
            heard += length;
            self.has_ended = event.starts_with(whole.ending.opening());
            // The last event of `/ocr` repeats the whole text.
            let has_text = event.contains(&MARK) && !self.has_ended;
            if has_text {
                for moment in moments(event) {
                    sent(moment);
                    self.events += 1;
                }
            } else {
                self.has_told |= contains(event, whole.expect.as_bytes());
            }
        }
        self.unheard.drain(..heard);
    }

    fn verdict(&self, whole: &Whole) -> io::Result<()> {
        if !self.unheard.is_empty() || !self.has_ended {
            return Err(malformed("a stream that does not end"));
        }
        if self.events != whole.events {
            let (heard, sent) = (self.events, whole.events);
            return Err(malformed(&format!("{heard} events of {sent}")));
        }
        if !self.has_told {
            return Err(malformed(&format!("a stream without {}", whole.expect)));
        }
        Ok(())
    }
}

/// The length of the first event, including its blank line.
fn end_of_event(bytes: &[u8]) -> Option<usize> {
    // Line feeds are rare, so this is faster than comparing every two bytes.
    let mut breaks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    breaks.find(|(at, _)| bytes.get(at + 1) == Some(&b'\n')).map(|(at, _)| at + 2)
}

/// The timestamps in an event.
fn moments(event: &[u8]) -> impl Iterator<Item = u64> {
    event.split(|byte| *byte == MARK).skip(1).filter_map(|behind| {
        let digits = std::str::from_utf8(behind.get(..DIGITS)?).ok()?;
        digits.parse().ok()
    })
}

fn contains(event: &[u8], what: &[u8]) -> bool {
    what.is_empty() || event.windows(what.len()).any(|window| window == what)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::script::{Bill, Script};

    const BILL: Bill = Bill { image: 1442, text: 22, output: 300 };

    fn whole() -> Whole {
        let expect = r#""image_tokens":1442"#.to_owned();
        Whole { events: 3, ending: Ending::Done, expect }
    }

    /// The delays of the events in a stream of these bytes, each sent at second one.
    fn heard(wire: &[&[u8]]) -> io::Result<usize> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut here = Connection::open(listener.local_addr().unwrap()).unwrap();
        here.send(&wire.concat()).unwrap();
        drop(here);
        let mut there = Connection::over(listener.accept().unwrap().0).unwrap();
        let mut events = 0;
        listen(&mut there, &whole(), |_late| events += 1).map(|_first| events)
    }

    #[test]
    fn a_whole_stream_is_heard_event_by_event() {
        let script = Script::new(200, BILL);
        let begun = script.beginning(1);
        assert_eq!(heard(&[&begun, &script.events(2, 2), script.end(true)]).unwrap(), 3);
    }

    #[test]
    fn a_stream_that_lacks_anything_is_an_error() {
        let script = Script::new(200, BILL);
        let (begun, two) = (script.beginning(1), script.events(2, 2));
        let (end, unbilled) = (script.end(true), script.end(false));
        assert!(heard(&[&begun, &script.events(1, 2), end]).is_err());
        assert!(heard(&[&begun, &two, unbilled]).is_err());
        assert!(heard(&[&begun, &two, &end[..end.len() - 5]]).is_err());
        assert!(heard(&[&begun, &two, b"0\r\n\r\n"]).is_err());
        assert!(heard(&[b"HTTP/1.1 429 Too Many\r\ncontent-length: 2\r\n\r\n{}"]).is_err());
    }

    #[test]
    fn events_that_were_retold_together_are_counted_one_by_one() {
        let mut hearing = Hearing::default();
        let (one, two) = (format!("@{:020}xx", 7), format!("@{:020}xx", 9));
        let told =
            format!("event: text\ndata: {one}{two}\n\nevent: answer\ndata: {one}{two} bill\n\n");
        hearing.unheard = told.into_bytes();
        let whole = Whole { events: 2, ending: Ending::Answer, expect: "bill".to_owned() };
        let mut sent = Vec::new();
        hearing.hear(&whole, |moment| sent.push(moment));
        assert_eq!(sent, [7, 9]);
        hearing.verdict(&whole).unwrap();
    }
}
