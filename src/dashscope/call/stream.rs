//! An answer that is passed on while it comes.
//!
//! Whoever holds a [`Streaming`] takes pieces until there are none and then asks how it ended. That is
//! also when it is paid for: at the bill that the stream stated; at the bound where it stated none or
//! broke off, since what was written until then was billed and nobody knows how much. A caller that has
//! left does not end a stream: read on, it tells its bill, and what it would have cost to be broken off
//! is not documented.

use super::settle::UnsettledCall;
use crate::dashscope::completion::{FinishReason, Receipt};
use crate::dashscope::fault::error::CallError;
use crate::dashscope::fault::verdict::{Bill, Failure};
use crate::dashscope::wire::incoming::Incoming;
pub use crate::dashscope::wire::incoming::Piece;
use crate::dashscope::wire::pieces::Broken;
use crate::telemetry::metrics::OpenStream;
use crate::units::Usage;

/// A stream under way, with the permit that pays for it.
///
/// Dropping it writes the permit off.
#[derive(Debug)]
pub struct Streaming {
    incoming: Box<Incoming>,
    call: UnsettledCall,
    broken: Option<Broken>,
    /// Counts it among the open ones.
    _open: OpenStream,
}

/// How a stream ended before it was over.
#[derive(Debug)]
pub struct Break {
    /// Why, and what was spent.
    pub error: CallError,
    /// Whether the stream itself told the caller of it, in an event of its own.
    pub told: bool,
}

impl Streaming {
    pub(crate) fn new(incoming: Box<Incoming>, call: UnsettledCall) -> Self {
        let open = call.recorder.stream();
        Self { incoming, call, broken: None, _open: open }
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
        let Self { mut incoming, mut call, broken, _open } = self;
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
        call.recorder.ended(&call.permit, &mut call.progress, outcome);
        let request_id = tap.request_id().cloned();
        match failure {
            None => {
                call.placement.entrance.well();
                Ok((tap.finish_reason(), call.pay(bill, request_id).await))
            }
            Some(failure) => {
                let error = call.fail(Failure { request_id, ..failure }).await;
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
