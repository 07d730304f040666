//! An answer that is passed on while it arrives.
//!
//! The owner of a [`Streaming`] takes pieces until there are none, and then calls [`end`](Streaming::end). That settles
//! the permit: at the bill that the stream stated, or at the bound if it stated none or broke off, because the upstream
//! bills the text written until then and the amount is unknown. A stream is read to its end even if its caller has
//! left: the bill comes only at its end, and the cost of a broken connection is not documented.

use super::settle::UnsettledCall;
use crate::dashscope::completion::{FinishReason, Receipt};
use crate::dashscope::fault::error::CallError;
use crate::dashscope::fault::verdict::{AttemptBill, Failure};
use crate::dashscope::wire::incoming::Incoming;
pub use crate::dashscope::wire::incoming::Piece;
use crate::dashscope::wire::response::ReadError;
use crate::telemetry::metrics::Counted;
use crate::units::Usage;

/// An open stream, with the permit that pays for it. Dropping it writes the permit off.
#[derive(Debug)]
pub struct Streaming {
    incoming: Box<Incoming>,
    call: UnsettledCall,
    broken: Option<ReadError>,
    /// Counts it as an open stream.
    _open: Counted,
}

/// The end of a stream that is not complete.
#[derive(Debug)]
pub struct Break {
    /// The reason, and the amount spent.
    pub error: CallError,
    /// Whether an event of the stream itself already reported the error to the caller.
    pub told: bool,
}

impl Streaming {
    pub(crate) fn new(incoming: Box<Incoming>, call: UnsettledCall) -> Self {
        let open = call.recorder.stream();
        Self { incoming, call, broken: None, _open: open }
    }

    /// The next piece; `None` if the stream has ended or broke off.
    pub async fn next(&mut self) -> Option<Piece> {
        match self.incoming.next().await {
            Ok(piece) => piece,
            Err(broken) => {
                self.broken = Some(broken);
                None
            }
        }
    }

    /// Settles the permit and says how the stream ended.
    ///
    /// # Errors
    ///
    /// [`Break`] if it ended before it was complete.
    pub async fn end(self) -> Result<(FinishReason, Receipt), Break> {
        let Self { mut incoming, mut call, broken, _open } = self;
        if incoming.parser.is_damaged() {
            incoming.read_for_bill().await;
        }
        let parser = &incoming.parser;
        let bill = parser.bill();
        let told = !parser.is_damaged()
            && parser.failure().is_some_and(|failure| failure.fault.is_about_the_request());
        let unbilled = bill.map_or(AttemptBill::Unknown, AttemptBill::Known);
        let failure = match parser.failure() {
            _ if parser.is_damaged() => Some(ReadError::Unreadable.billed(unbilled)),
            Some(reported) => Some(Failure { bill: told_bill(reported, bill), ..reported.clone() }),
            None => broken.map(|broken| broken.billed(unbilled)),
        };
        let outcome = failure.as_ref().map_or("ok", |failure| failure.fault.label());
        call.recorder.ended(&call.permit, &mut call.progress, outcome);
        let request_id = parser.request_id().cloned();
        match failure {
            None => {
                call.placement.entrance.succeeded();
                Ok((parser.finish_reason(), call.pay(bill, request_id).await))
            }
            Some(failure) => {
                let error = call.fail(Failure { request_id, ..failure }).await;
                Err(Break { error, told })
            }
        }
    }
}

/// The bill of a stream with an error event: the stated one, or else unknown, since the model had begun.
fn told_bill(failure: &Failure, stated: Option<Usage>) -> AttemptBill {
    match (stated, failure.bill) {
        (Some(stated), _) => AttemptBill::Known(stated),
        (None, AttemptBill::Known(billed)) => AttemptBill::Known(billed),
        (None, _) => AttemptBill::Unknown,
    }
}
