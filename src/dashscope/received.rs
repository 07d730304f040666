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
    /// What a long body takes up.
    pub(super) memory: Option<AnswerMemory>,
}

impl Received {
    /// Whether there is any of it.
    pub(super) const fn has_begun(&self) -> bool {
        self.status != 0
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
