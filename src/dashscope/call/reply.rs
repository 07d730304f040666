//! A usable reply, and the call that it still has to settle.
//!
//! Each form holds the permit of the call. Reading it to its end settles the permit. Dropping it earlier writes the
//! permit off, as for any call whose bill is unknown.

use bytes::Bytes;

use super::settle::UnsettledCall;
use super::stream::Streaming;
use crate::dashscope::completion::{Completion, Receipt};
use crate::dashscope::fault::error::{CallError, Defect};
use crate::dashscope::fault::verdict::unusable;
use crate::dashscope::wire::transport::Reception;

/// The reply to a drop-in request.
#[derive(Debug)]
pub enum DropinAnswer {
    /// A whole answer, unchanged.
    Whole {
        /// The body: JSON.
        body: Bytes,
        /// The cost of the answer.
        receipt: Receipt,
    },
    /// A stream that began.
    Stream(Box<Streaming>),
}

/// The reply to a call that asked for a stream.
#[derive(Debug)]
pub enum Streamed {
    /// A whole answer: the upstream did not stream it.
    Whole(Box<Completion>),
    /// A stream that began.
    Stream(Box<Streaming>),
}

/// A reply of the upstream whose call is not settled yet.
#[derive(Debug)]
pub(crate) struct UpstreamReply {
    pub(crate) call: UnsettledCall,
    pub(crate) reception: Reception,
}

impl UpstreamReply {
    /// The whole answer, settled.
    pub(crate) async fn completion(self) -> Result<Completion, CallError> {
        self.call.complete(self.reception).await
    }

    /// The answer as a stream, if the upstream streams it.
    pub(crate) async fn streamed(self) -> Result<Streamed, CallError> {
        let Self { call, reception } = self;
        match reception {
            Reception::Events(incoming) => {
                Ok(Streamed::Stream(Box::new(Streaming::new(incoming, call))))
            }
            whole => Ok(Streamed::Whole(Box::new(call.complete(whole).await?))),
        }
    }

    /// The reply unchanged, whatever its content; settled if it is whole.
    pub(crate) async fn dropin(self) -> Result<DropinAnswer, CallError> {
        let Self { call, reception } = self;
        match reception {
            Reception::Events(incoming) => {
                Ok(DropinAnswer::Stream(Box::new(Streaming::new(incoming, call))))
            }
            Reception::Json(json) => {
                let receipt = call.pay(json.usage, json.request_id).await;
                Ok(DropinAnswer::Whole { body: json.received.into_bytes(), receipt })
            }
            Reception::Answer(_) => Err(call.fail(unusable(Defect::NotJson, None)).await),
        }
    }
}
