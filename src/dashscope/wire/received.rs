//! A response as it was received, before it is interpreted.

use std::time::Duration;

use bytes::Bytes;

use super::memory::AnswerMemory;
use crate::dashscope::fault::error::Code;

/// A response as it was received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) status: u16,
    /// The header `x-request-id`.
    pub(crate) request_id: Option<Code>,
    /// The headers `retry-after-ms` and `retry-after`.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
    /// The memory of the body; none if the body is certainly short.
    pub(crate) memory: Option<AnswerMemory>,
}

impl Received {
    /// Appends `piece` to the body, which may grow to `most` bytes, in memory that is counted as it grows.
    pub(crate) async fn append(&mut self, piece: &[u8], most: usize) {
        match &mut self.memory {
            Some(memory) => memory.append(&mut self.body, piece, most).await,
            None => self.body.extend_from_slice(piece),
        }
    }

    /// The body, with its memory.
    pub(crate) fn into_bytes(self) -> Bytes {
        /// Both are dropped after the last byte was sent.
        struct CountedBody(Vec<u8>, #[expect(dead_code, reason = "held")] AnswerMemory);
        impl AsRef<[u8]> for CountedBody {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        match self.memory {
            None => self.body.into(),
            Some(memory) => Bytes::from_owner(CountedBody(self.body, memory)),
        }
    }
}
