//! A stream of events as it arrives.
//!
//! Nothing is passed on before the first event is complete: DashScope reports a throttle or an invalid request in an
//! event under status 200, and a call can be repeated, or answered with its own status, only while the caller has seen
//! nothing. After that, each event is passed on when it is complete, so a stream can break off only between two events.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer;
use super::events::{Event, Events, Fields};
use super::memory::AnswerMemory;
use super::response::{ReadError, ResponseBody};
use super::stream_parser::{EventKind, Seen, StreamParser};
use crate::dashscope::fault::error::Timeout;
use crate::dashscope::protocol::Protocol;
use crate::units::Usage;

/// The longest beginning that is read ahead. The event of a token has some hundred bytes.
const MOST_AHEAD: usize = 64 * 1024;

/// How long the upstream may take to close a complete stream.
const CLOSING: Duration = Duration::from_secs(1);

/// The events that became complete together.
#[derive(Default)]
pub struct Piece {
    events: Vec<(EventKind, Bytes)>,
    text: String,
}

impl Piece {
    pub(crate) fn add(&mut self, seen: &Seen, event: Event) {
        self.text.push_str(&seen.text);
        self.events.push((seen.kind, event.into_bytes()));
    }

    pub(crate) const fn text_length(&self) -> usize {
        self.text.len()
    }

    /// The events for a caller, byte for byte.
    pub fn bytes(self) -> Bytes {
        self.of(&[EventKind::Content, EventKind::Bill])
    }

    /// The events for a caller, without those that only state the bill.
    pub fn without_bill(self) -> Bytes {
        self.of(&[EventKind::Content])
    }

    fn of(self, kinds: &[EventKind]) -> Bytes {
        let mut shown = self.events.into_iter().filter(|(kind, _)| kinds.contains(kind));
        let first = shown.next().map(|(_, bytes)| bytes).unwrap_or_default();
        let Some((_, second)) = shown.next() else { return first };
        let rest = shown.map(|(_, bytes)| bytes);
        let all: Vec<_> = [first, second].into_iter().chain(rest).collect();
        all.concat().into()
    }

    /// The model's text.
    pub fn text(self) -> String {
        self.text
    }
}

/// Leaves the text out.
impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece").field("events", &self.events.len()).finish_non_exhaustive()
    }
}

/// A stream that began successfully.
#[derive(Debug)]
pub(crate) struct Incoming {
    pieces: ResponseBody,
    /// The pieces that were read ahead.
    ahead: VecDeque<Bytes>,
    events: Events,
    pub(crate) parser: StreamParser,
    until: Instant,
    limits: StreamLimits,
    memory: AnswerMemory,
    /// Bytes of the model's text.
    written: usize,
}

/// The limits of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamLimits {
    /// From its first event to its last.
    pub(crate) duration: Duration,
    /// Bytes of one event.
    pub(crate) event: usize,
    /// Bytes of all text; none if the text is not kept.
    pub(crate) text: Option<usize>,
}

impl Incoming {
    /// Reads the beginning of a stream.
    ///
    /// Returns the whole body instead if the first event is an error, or if the body is no stream.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the connection ends or stalls before the first event is complete.
    pub(crate) async fn open(
        mut pieces: ResponseBody,
        protocol: Protocol,
        bound: Usage,
        limits: StreamLimits,
        memory: AnswerMemory,
    ) -> Result<Result<Self, Vec<u8>>, ReadError> {
        let mut events = Events::default();
        let mut ahead = VecDeque::new();
        let mut length = 0;
        let begins_well = loop {
            let mut fields = std::iter::from_fn(|| events.next()).map(|event| event.fields());
            if let Some(first) = fields.find(Fields::has_data) {
                let json = first.data.as_deref().and_then(answer::object);
                break !answer::is_error(&first, json.as_ref());
            }
            if length > MOST_AHEAD {
                break true;
            }
            let Some(piece) = pieces.next().await? else { break false };
            length += piece.len();
            events.push(&piece);
            ahead.push_back(piece);
        };
        if begins_well {
            let (parser, until) =
                (StreamParser::new(protocol, bound), Instant::now() + limits.duration);
            let events = Events::default();
            let written = 0;
            return Ok(Ok(Self { pieces, ahead, events, parser, until, limits, memory, written }));
        }
        let mut body = ahead.make_contiguous().concat();
        // The first event is enough, so errors do not matter here.
        let _ = timeout(CLOSING, pieces.fill(&mut body, MOST_AHEAD)).await;
        Ok(Err(body))
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the stream ends before it is complete, even if the connection is closed in order.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, ReadError> {
        if self.parser.is_damaged() {
            return Err(ReadError::Unreadable);
        }
        match self.read().await? {
            Some(raw) => self.take_in(&raw).await.map(Some),
            None => self.take_rest(),
        }
    }

    async fn take_in(&mut self, raw: &[u8]) -> Result<Piece, ReadError> {
        self.events.push(raw);
        let mut piece = Piece::default();
        // `read_for_bill` reads what follows an event that cannot be read.
        while !self.parser.is_damaged()
            && let Some(event) = self.events.next()
        {
            let seen = self.parser.see(&event);
            piece.add(&seen, event);
        }
        self.written = self.written.saturating_add(piece.text_length());
        let (unfinished, kept) = (self.events.unfinished(), self.limits.text.map(|_| self.written));
        if unfinished > self.limits.event || kept > self.limits.text {
            return Err(ReadError::TooLong);
        }
        let needed = unfinished.saturating_add(kept.unwrap_or_default());
        self.hold(needed).await?;
        Ok(piece)
    }

    /// Grows the memory to `bytes`, and waits for it until the stream must end.
    async fn hold(&mut self, bytes: usize) -> Result<(), ReadError> {
        let held = timeout_at(self.until, self.memory.hold(bytes)).await;
        held.map_err(|_| ReadError::Timeout(Timeout::Total))
    }

    /// Reads a stream to its end for its bill, when its caller gets no more of it.
    pub(crate) async fn read_for_bill(&mut self) {
        loop {
            while let Some(event) = self.events.next() {
                self.parser.see(&event);
            }
            if self.parser.is_complete() || self.events.unfinished() > self.limits.event {
                return;
            }
            let Ok(Some(raw)) = self.read().await else { break };
            self.events.push(&raw);
            if self.hold(self.events.unfinished()).await.is_err() {
                return;
            }
        }
        if let Some(event) = self.events.take_rest() {
            self.parser.see(&event);
        }
    }

    /// Handles the end of the connection, which may also end the last event.
    fn take_rest(&mut self) -> Result<Option<Piece>, ReadError> {
        let rest = self.events.take_rest().map(|event| {
            let mut piece = Piece::default();
            let seen = self.parser.see(&event);
            piece.add(&seen, event);
            piece
        });
        let is_over = self.parser.is_complete() || self.parser.failure().is_some();
        if is_over || self.parser.is_damaged() { Ok(rest) } else { Err(ReadError::Interrupted) }
    }

    /// The next bytes; none at the end of the connection.
    async fn read(&mut self) -> Result<Option<Bytes>, ReadError> {
        if let Some(piece) = self.ahead.pop_front() {
            return Ok(Some(piece));
        }
        if self.parser.is_complete() {
            // Reads on so that the connection can be used again. The stream is complete, so errors do not matter.
            let patience = self.until.min(Instant::now() + CLOSING);
            let rest = timeout_at(patience, self.pieces.next()).await;
            return Ok(rest.ok().and_then(Result::ok).flatten());
        }
        let next = timeout_at(self.until, self.pieces.next()).await;
        next.unwrap_or(Err(ReadError::Timeout(Timeout::Total)))
    }
}
