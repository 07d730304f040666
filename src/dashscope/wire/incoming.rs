//! A stream of events as it comes in, and what is learnt of it on the way.
//!
//! A stream is looked at until its first event is whole, before any of it is passed on: DashScope tells
//! of a throttle or a wrong request in an event under status 200, and only as long as the caller has
//! seen nothing can the call be made again or be answered with a status of its own. After that, each event
//! passes when it is whole, so that a stream which breaks off does so between two of them.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer;
use super::events::{Event, Events, Fields};
use super::memory::AnswerMemory;
use super::pieces::{Broken, Pieces};
use super::tap::{Kind, Seen, Tap};
use crate::dashscope::fault::error::Timeout;
use crate::dashscope::protocol::Protocol;
use crate::units::Usage;

/// The longest beginning that is looked at; an event of a token is some hundred bytes.
const MOST_AHEAD: usize = 64 * 1024;

/// How long the upstream may take to close a stream that is over.
const CLOSING: Duration = Duration::from_secs(1);

/// The events that became whole together.
#[derive(Default)]
pub struct Piece {
    events: Vec<(Kind, Bytes)>,
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
        self.of(&[Kind::Content, Kind::Bill])
    }

    /// The events for a caller, but for those that are there for the bill alone.
    pub fn without_bill(self) -> Bytes {
        self.of(&[Kind::Content])
    }

    fn of(self, kinds: &[Kind]) -> Bytes {
        let mut shown = self.events.into_iter().filter(|(kind, _)| kinds.contains(kind));
        let first = shown.next().map(|(_, bytes)| bytes).unwrap_or_default();
        let Some((_, second)) = shown.next() else { return first };
        let rest = shown.map(|(_, bytes)| bytes);
        let all: Vec<_> = [first, second].into_iter().chain(rest).collect();
        all.concat().into()
    }

    /// What the model wrote.
    pub fn text(self) -> String {
        self.text
    }
}

/// Leaves out what the model wrote.
impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece").field("events", &self.events.len()).finish_non_exhaustive()
    }
}

/// A stream that began well.
#[derive(Debug)]
pub(crate) struct Incoming {
    pieces: Pieces,
    /// What was read to see how the stream begins.
    ahead: VecDeque<Bytes>,
    events: Events,
    pub(crate) tap: Tap,
    until: Instant,
    limits: Limits,
    memory: AnswerMemory,
    /// Bytes that the model wrote.
    written: usize,
}

/// What a stream may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From its first event to its last.
    pub(crate) duration: Duration,
    /// Bytes of one event.
    pub(crate) event: usize,
    /// Bytes of all that the model writes; none where nobody keeps it.
    pub(crate) text: Option<usize>,
}

impl Incoming {
    /// Reads the beginning of a stream.
    ///
    /// What comes back instead of a stream is the whole body of one that tells of an error before
    /// anything else, or of something that is no stream.
    ///
    /// # Errors
    ///
    /// [`Broken`] where the connection ends or stalls before the first event is whole.
    pub(crate) async fn open(
        mut pieces: Pieces,
        protocol: Protocol,
        bound: Usage,
        limits: Limits,
        memory: AnswerMemory,
    ) -> Result<Result<Self, Vec<u8>>, Broken> {
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
            let (tap, until) = (Tap::new(protocol, bound), Instant::now() + limits.duration);
            let events = Events::default();
            let written = 0;
            return Ok(Ok(Self { pieces, ahead, events, tap, until, limits, memory, written }));
        }
        let mut body = ahead.make_contiguous().concat();
        // What was said first says enough.
        let _ = timeout(CLOSING, pieces.fill(&mut body, MOST_AHEAD)).await;
        Ok(Err(body))
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    ///
    /// [`Broken`] where the stream ends before it is over, however politely.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Broken> {
        if self.tap.is_damaged() {
            return Err(Broken::Unreadable);
        }
        match self.read().await? {
            Some(raw) => self.take_in(&raw).await.map(Some),
            None => self.take_rest(),
        }
    }

    async fn take_in(&mut self, raw: &[u8]) -> Result<Piece, Broken> {
        self.events.push(raw);
        let mut piece = Piece::default();
        // What stands behind an event that cannot be read is left to `read_for_bill`.
        while !self.tap.is_damaged()
            && let Some(event) = self.events.next()
        {
            let seen = self.tap.see(&event);
            piece.add(&seen, event);
        }
        self.written = self.written.saturating_add(piece.text_length());
        let (unfinished, kept) = (self.events.unfinished(), self.limits.text.map(|_| self.written));
        if unfinished > self.limits.event || kept > self.limits.text {
            return Err(Broken::TooLong);
        }
        let needed = unfinished.saturating_add(kept.unwrap_or_default());
        self.hold(needed).await?;
        Ok(piece)
    }

    /// Sees to it that there is memory for so many bytes, however long that takes.
    async fn hold(&mut self, bytes: usize) -> Result<(), Broken> {
        let held = timeout_at(self.until, self.memory.hold(bytes)).await;
        held.map_err(|_| Broken::Timeout(Timeout::Total))
    }

    /// Reads on to the end of a stream that nobody is told of any more, for its bill.
    pub(crate) async fn read_for_bill(&mut self) {
        loop {
            while let Some(event) = self.events.next() {
                self.tap.see(&event);
            }
            if self.tap.is_complete() || self.events.unfinished() > self.limits.event {
                return;
            }
            let Ok(Some(raw)) = self.read().await else { break };
            self.events.push(&raw);
            if self.hold(self.events.unfinished()).await.is_err() {
                return;
            }
        }
        if let Some(event) = self.events.take_rest() {
            self.tap.see(&event);
        }
    }

    /// The end of the connection, which may be that of the last event, too.
    fn take_rest(&mut self) -> Result<Option<Piece>, Broken> {
        let rest = self.events.take_rest().map(|event| {
            let mut piece = Piece::default();
            let seen = self.tap.see(&event);
            piece.add(&seen, event);
            piece
        });
        let is_over = self.tap.is_complete() || self.tap.failure().is_some();
        if is_over || self.tap.is_damaged() { Ok(rest) } else { Err(Broken::Interrupted) }
    }

    /// What came next; none at the end of the connection.
    async fn read(&mut self) -> Result<Option<Bytes>, Broken> {
        if let Some(piece) = self.ahead.pop_front() {
            return Ok(Some(piece));
        }
        if self.tap.is_complete() {
            // Read on so that the connection can be used again; whatever it brings, nothing is missing.
            let patience = self.until.min(Instant::now() + CLOSING);
            let rest = timeout_at(patience, self.pieces.next()).await;
            return Ok(rest.ok().and_then(Result::ok).flatten());
        }
        let next = timeout_at(self.until, self.pieces.next()).await;
        next.unwrap_or(Err(Broken::Timeout(Timeout::Total)))
    }
}
