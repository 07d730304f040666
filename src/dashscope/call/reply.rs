//! A reply that can be used, and what is still owed for it.
//!
//! Whatever form it has, it holds the permit that it was called with, and reading it to its end is how the
//! permit gets settled. Dropped before that, it writes the permit off, as any call whose bill is not
//! known.

use bytes::Bytes;

use super::settle::UnsettledCall;
use super::stream::Streaming;
use crate::dashscope::completion::{Completion, Receipt};
use crate::dashscope::fault::error::{CallError, Defect};
use crate::dashscope::fault::verdict::unusable;
use crate::dashscope::wire::transport::Reception;

/// What a forwarded request brought.
#[derive(Debug)]
pub enum Forwarded {
    /// A whole answer, as it came.
    Whole {
        /// The body: JSON.
        body: Bytes,
        /// What it cost.
        receipt: Receipt,
    },
    /// A stream that began.
    Stream(Box<Streaming>),
}

/// What a call brought that asked for a stream.
#[derive(Debug)]
pub enum Streamed {
    /// A whole answer, since the upstream did not stream it.
    Whole(Box<Completion>),
    /// A stream that began.
    Stream(Box<Streaming>),
}

/// A reply of the upstream with what is owed for it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) call: UnsettledCall,
    pub(crate) reception: Reception,
}

impl Reply {
    /// What the model wrote, paid.
    pub(crate) async fn completion(self) -> Result<Completion, CallError> {
        self.call.complete(self.reception).await
    }

    /// What the model writes, as far as it is streamed.
    pub(crate) async fn streamed(self) -> Result<Streamed, CallError> {
        let Self { call, reception } = self;
        match reception {
            Reception::Events(incoming) => {
                Ok(Streamed::Stream(Box::new(Streaming::new(incoming, call))))
            }
            whole => Ok(Streamed::Whole(Box::new(call.complete(whole).await?))),
        }
    }

    /// What came, whatever the model wrote; paid where it is whole.
    pub(crate) async fn forwarded(self) -> Result<Forwarded, CallError> {
        let Self { call, reception } = self;
        match reception {
            Reception::Events(incoming) => {
                Ok(Forwarded::Stream(Box::new(Streaming::new(incoming, call))))
            }
            Reception::Json(json) => {
                let receipt = call.pay(json.usage, json.request_id).await;
                Ok(Forwarded::Whole { body: json.received.into_bytes(), receipt })
            }
            Reception::Answer(_) => Err(call.fail(unusable(Defect::NotJson, None)).await),
        }
    }
}
