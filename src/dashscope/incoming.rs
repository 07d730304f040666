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

use super::Protocol;
use super::answer;
use super::attempt::{Broken, Pieces};
use super::error::Timeout;
use super::events::{Events, Fields};
use super::memory::AnswerMemory;
use super::stream::Piece;
use super::tap::Tap;
use crate::units::Usage;

/// The longest beginning that is looked at; an event of a token is some hundred bytes.
const MOST_AHEAD: usize = 64 * 1024;

/// How long the upstream may take to close a stream that is over.
const CLOSING: Duration = Duration::from_secs(1);

/// A stream that began well.
#[derive(Debug)]
pub(super) struct Incoming {
    pieces: Pieces,
    /// What was read to see how the stream begins.
    ahead: VecDeque<Bytes>,
    events: Events,
    pub(super) tap: Tap,
    until: Instant,
    limits: Limits,
    memory: AnswerMemory,
    /// Bytes that the model wrote.
    written: usize,
}

/// What a stream may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From its first event to its last.
    pub(super) duration: Duration,
    /// Bytes of one event.
    pub(super) event: usize,
    /// Bytes of all that the model writes; none where nobody keeps it.
    pub(super) text: Option<usize>,
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
    pub(super) async fn open(
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
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, Broken> {
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
    pub(super) async fn read_for_bill(&mut self) {
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
