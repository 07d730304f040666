//! The transmission of an answer's body: at once, paced, or ended early by a fault.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::connection::Wire;
use crate::world::Ticket;

/// The data to send, and how the connection ends.
#[derive(Debug)]
pub(crate) struct Delivery {
    chunks: VecDeque<Bytes>,
    /// The length in the head; `None` for a stream.
    promised: Option<u64>,
    /// Time between two chunks.
    interval: Duration,
    /// The wait for the next chunk, if it is not due yet.
    pause: Option<Pin<Box<Sleep>>>,
    ending: Ending,
    ticket: Ticket,
}

/// How a delivery ends.
#[derive(Debug)]
enum Ending {
    /// After the last byte.
    Whole,
    /// In order, though not all data was sent.
    Early,
    /// Never: the connection stays open.
    Stalled,
    /// With a reset, once all written data has been sent.
    Cut { wire: Wire, flushes: u64 },
}

impl Delivery {
    /// A body that is sent at once, with its length in the head.
    pub(crate) fn sized(body: Bytes, ticket: Ticket) -> Self {
        let promised = Some(body.len() as u64);
        Self { promised, ..Self::stream(vec![body], ticket) }
    }

    /// A stream that is sent whole.
    pub(crate) fn stream(events: Vec<Bytes>, ticket: Ticket) -> Self {
        Self {
            // An empty chunk would end a chunked body early.
            chunks: events.into_iter().filter(|event| !event.is_empty()).collect(),
            promised: None,
            interval: Duration::ZERO,
            pause: None,
            ending: Ending::Whole,
            ticket,
        }
    }

    /// Waits between the events of a stream.
    #[must_use]
    pub(crate) fn paced(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Declares the full length and resets the connection after `bytes`; a shorter body is sent whole.
    #[must_use]
    pub(crate) fn cut_at(mut self, bytes: u64, wire: &Wire) -> Self {
        if self.shorten(bytes) {
            self.ending = Ending::Cut { wire: wire.clone(), flushes: wire.flushes() };
        }
        self
    }

    /// Declares the full length and sends nothing after `bytes`, not even the end of the body.
    #[must_use]
    pub(crate) fn stalled_at(mut self, bytes: u64) -> Self {
        self.shorten(bytes);
        self.ending = Ending::Stalled;
        self
    }

    /// Ends in order after `bytes`, without a declared length; a shorter body is sent whole.
    #[must_use]
    pub(crate) fn ended_at(mut self, bytes: u64) -> Self {
        if self.shorten(bytes) {
            self.promised = None;
            self.ending = Ending::Early;
        }
        self
    }

    /// The length of the first `events` of a stream; of anything else, half of its own.
    pub(crate) fn length_of(&self, events: u64) -> u64 {
        let events = usize::try_from(events).unwrap_or(usize::MAX);
        let length: u64 = self.chunks.iter().take(events).map(|chunk| chunk.len() as u64).sum();
        self.promised.map_or(length, |whole| whole / 2)
    }

    /// Drops the data after `bytes` and returns whether there was any.
    fn shorten(&mut self, bytes: u64) -> bool {
        let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut is_shorter = false;
        for chunk in &mut self.chunks {
            is_shorter |= chunk.len() > left;
            chunk.truncate(left);
            left -= chunk.len();
        }
        self.chunks.retain(|chunk| !chunk.is_empty());
        is_shorter
    }
}

impl Body for Delivery {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(context));
            this.pause = None;
        }
        if let Some(chunk) = this.chunks.pop_front() {
            let is_last = this.chunks.is_empty();
            this.ticket.handed_over(&chunk);
            match &mut this.ending {
                Ending::Whole if is_last => this.ticket.delivered(),
                Ending::Whole | Ending::Early | Ending::Stalled => {}
                Ending::Cut { wire, flushes } => *flushes = wire.flushes(),
            }
            if !is_last && !this.interval.is_zero() {
                this.pause = Some(Box::pin(sleep(this.interval)));
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match &this.ending {
            Ending::Whole | Ending::Early => Poll::Ready(None),
            // No waker is needed: the connection detects on its own that the client has disconnected.
            Ending::Stalled => Poll::Pending,
            Ending::Cut { wire, flushes } => {
                ready!(wire.poll_flushed_since(*flushes, context));
                wire.reset();
                Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && matches!(self.ending, Ending::Whole | Ending::Early)
    }

    fn size_hint(&self) -> SizeHint {
        self.promised.map(SizeHint::with_exact).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;
    use crate::call::Call;
    use crate::world::World;

    #[tokio::test(start_paused = true)]
    async fn events_are_an_interval_apart_and_the_end_is_not() {
        let ticket = Arc::new(World::default()).receive(Call::default()).0;
        let events = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let mut delivery = Delivery::stream(events, ticket).paced(Duration::from_secs(7));
        let began = tokio::time::Instant::now();
        let mut moments = Vec::new();
        while poll_fn(|context| Pin::new(&mut delivery).poll_frame(context)).await.is_some() {
            moments.push(began.elapsed().as_secs());
        }
        moments.push(began.elapsed().as_secs());
        assert_eq!(moments, [0, 7, 7]);
    }
}
