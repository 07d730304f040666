//! A response as it came, before anybody has read it.

use std::time::Duration;

use bytes::Bytes;

use super::error::Code;
use super::memory::AnswerMemory;

/// A response as it was received.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) status: u16,
    /// The header `x-request-id`.
    pub(super) request_id: Option<Code>,
    /// The headers `retry-after-ms` and `retry-after`.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
    /// What the body takes up; none where it is short for certain.
    pub(super) memory: Option<AnswerMemory>,
}

impl Received {
    /// Adds `piece` to the body, which grows to `most` bytes at most, in memory that is taken as it grows.
    pub(super) async fn append(&mut self, piece: &[u8], most: usize) {
        match &mut self.memory {
            Some(memory) => memory.append(&mut self.body, piece, most).await,
            None => self.body.extend_from_slice(piece),
        }
    }

    /// The body, with the memory that it takes up.
    pub(super) fn into_bytes(self) -> Bytes {
        /// Both are dropped when the last of it was sent.
        struct Counted(Vec<u8>, #[expect(dead_code, reason = "held")] AnswerMemory);
        impl AsRef<[u8]> for Counted {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        match self.memory {
            None => self.body.into(),
            Some(memory) => Bytes::from_owner(Counted(self.body, memory)),
        }
    }
}
