//! An answer that is passed on while it comes.
//!
//! Whoever holds a [`Streaming`] takes pieces until there are none and then asks how it ended. That is
//! also when it is paid for: at the bill that the stream stated; at the bound where it stated none or
//! broke off, since what was written until then was billed and nobody knows how much. A caller that has
//! left does not end a stream: read on, it tells its bill, and what it would have cost to be broken off
//! is not documented.

use bytes::Bytes;

use super::attempt::Broken;
use super::completion::{FinishReason, Receipt};
use super::error::CallError;
use super::events::Event;
use super::incoming::Incoming;
use super::reply::Debt;
use super::tap::{Kind, Seen};
use super::verdict::{Bill, Failure};
use crate::telemetry::metrics::OpenStream;
use crate::units::Usage;

/// A stream under way, with the permit that pays for it.
///
/// Dropping it writes the permit off.
#[derive(Debug)]
pub struct Streaming {
    incoming: Box<Incoming>,
    debt: Debt,
    broken: Option<Broken>,
    /// Counts it among the open ones.
    _open: OpenStream,
}

/// The events that became whole together.
#[derive(Default)]
pub struct Piece {
    events: Vec<(Kind, Bytes)>,
    text: String,
}

/// How a stream ended before it was over.
#[derive(Debug)]
pub struct Break {
    /// Why, and what was spent.
    pub error: CallError,
    /// Whether the stream itself told the caller of it, in an event of its own.
    pub told: bool,
}

impl Piece {
    pub(super) fn add(&mut self, seen: &Seen, event: Event) {
        self.text.push_str(&seen.text);
        self.events.push((seen.kind, event.into_bytes()));
    }

    pub(super) const fn text_length(&self) -> usize {
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

impl Streaming {
    pub(super) fn new(incoming: Box<Incoming>, debt: Debt) -> Self {
        let open = debt.dispatcher.stream();
        Self { incoming, debt, broken: None, _open: open }
    }

    /// The next piece; none when the stream is over or broke off.
    pub async fn next(&mut self) -> Option<Piece> {
        match self.incoming.next().await {
            Ok(piece) => piece,
            Err(broken) => {
                self.broken = Some(broken);
                None
            }
        }
    }

    /// Pays for the stream and tells how it ended.
    ///
    /// # Errors
    ///
    /// [`Break`] where it ended before it was over.
    pub async fn end(self) -> Result<(FinishReason, Receipt), Break> {
        let Self { mut incoming, mut debt, broken, _open } = self;
        if incoming.tap.is_damaged() {
            incoming.read_for_bill().await;
        }
        let tap = &incoming.tap;
        let bill = tap.bill();
        let told = !tap.is_damaged()
            && tap.failure().is_some_and(|failure| failure.fault.is_about_the_request());
        let unbilled = bill.map_or(Bill::Unknown, Bill::Known);
        let broken = if tap.is_damaged() { Some(Broken::Unreadable) } else { broken };
        let failure = match (tap.failure(), broken) {
            (_, Some(Broken::Unreadable)) => Some(Broken::Unreadable.billed(unbilled)),
            (Some(failure), _) => {
                Some(Failure { bill: told_bill(failure, bill), ..failure.clone() })
            }
            (None, Some(broken)) => Some(broken.billed(unbilled)),
            (None, None) => None,
        };
        let outcome = failure.as_ref().map_or("ok", |failure| failure.fault.label());
        debt.dispatcher.ended(&debt.permit, &mut debt.progress, outcome);
        let request_id = tap.request_id().cloned();
        match failure {
            None => {
                debt.placement.entrance.well();
                Ok((tap.finish_reason(), debt.pay(bill, request_id).await))
            }
            Some(failure) => {
                let error = debt.fail(Failure { request_id, ..failure }).await;
                Err(Break { error, told })
            }
        }
    }
}

/// What a stream that told of an error cost: what it stated; else nobody knows, since the model had begun.
fn told_bill(failure: &Failure, stated: Option<Usage>) -> Bill {
    match (stated, failure.bill) {
        (Some(stated), _) => Bill::Known(stated),
        (None, Bill::Known(billed)) => Bill::Known(billed),
        (None, _) => Bill::Unknown,
    }
}

/// Leaves out what the model wrote.
impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece").field("events", &self.events.len()).finish_non_exhaustive()
    }
}
