//! The body of an answer on its way out: whole, or cut where a fault says.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::connection::Wire;
use crate::world::Ticket;

/// What is to be sent, and how it ends.
#[derive(Debug)]
pub(crate) struct Delivery {
    chunks: VecDeque<Bytes>,
    /// The length that the head promises; none for a stream.
    promised: Option<u64>,
    ending: Ending,
    ticket: Ticket,
}

/// How a delivery ends.
#[derive(Debug)]
enum Ending {
    /// With its last byte.
    Whole,
    /// With a reset, as soon as what was sent is out.
    Cut { wire: Wire, flushes: u64 },
}

impl Delivery {
    /// A body that is sent whole, its length in the head.
    pub(crate) fn sized(body: Bytes, ticket: Ticket) -> Self {
        let promised = Some(body.len() as u64);
        Self { chunks: chunks(vec![body]), promised, ending: Ending::Whole, ticket }
    }

    /// A stream that is sent whole.
    pub(crate) fn stream(events: Vec<Bytes>, ticket: Ticket) -> Self {
        Self { chunks: chunks(events), promised: None, ending: Ending::Whole, ticket }
    }

    /// Keeps the promised length and ends after `bytes`; a shorter body is sent whole.
    #[must_use]
    pub(crate) fn cut_at(mut self, bytes: u64, wire: &Wire) -> Self {
        let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut kept = VecDeque::new();
        for chunk in &self.chunks {
            let taken = chunk.slice(..left.min(chunk.len()));
            left -= taken.len();
            if taken.len() < chunk.len() {
                self.ending = Ending::Cut { wire: wire.clone(), flushes: wire.flushes() };
            }
            kept.push_back(taken);
        }
        kept.retain(|chunk| !chunk.is_empty());
        self.chunks = kept;
        self
    }

    /// The length of what is still to be sent.
    pub(crate) fn remaining(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// The length of the first `events` chunks.
    pub(crate) fn length_of(&self, events: u64) -> u64 {
        let events = usize::try_from(events).unwrap_or(usize::MAX);
        self.chunks.iter().take(events).map(|chunk| chunk.len() as u64).sum()
    }
}

/// The chunks that hold anything: an empty one would end a chunked body early.
fn chunks(chunks: Vec<Bytes>) -> VecDeque<Bytes> {
    chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect()
}

impl Body for Delivery {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if let Some(chunk) = this.chunks.pop_front() {
            match &mut this.ending {
                Ending::Whole if this.chunks.is_empty() => this.ticket.delivered(),
                Ending::Whole => {}
                Ending::Cut { wire, flushes } => *flushes = wire.flushes(),
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match &this.ending {
            Ending::Whole => Poll::Ready(None),
            Ending::Cut { wire, flushes } => {
                ready!(wire.poll_flushed_since(*flushes, context));
                wire.reset();
                Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && matches!(self.ending, Ending::Whole)
    }

    fn size_hint(&self) -> SizeHint {
        self.promised.map(SizeHint::with_exact).unwrap_or_default()
    }
}
