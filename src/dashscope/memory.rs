//! Memory for what the upstream sends, counted with that of uploads.
//!
//! A page of text is some kilobytes long and has its place in what each request is given beside its upload. An
//! upstream that answers with megabytes, to hundreds of calls at once, must not end the process: what is
//! longer is taken from the same account as uploads are, before it is read, and the trees that long answers
//! are read into exist one at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::capacity::account::{ByteAccount, HeldBytes, NoRoom};

/// Bytes of an answer that count as nothing.
pub(super) const FREE_BYTES: usize = 64 * 1024;

/// What all answers share.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    account: Arc<ByteAccount>,
    trees: Arc<Semaphore>,
}

/// What one answer takes up, until this is dropped.
#[derive(Debug)]
pub(super) struct AnswerMemory {
    held: HeldBytes,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(account: Arc<ByteAccount>) -> Self {
        Self { account, trees: Arc::new(Semaphore::new(1)) }
    }

    /// Memory for an answer that has not come yet.
    pub(super) fn for_answer(&self) -> AnswerMemory {
        AnswerMemory { held: self.account.hold_nothing(), bytes: FREE_BYTES }
    }

    /// Leave to read a long answer into a tree, which may be many times as large; until it is dropped nobody
    /// else has it.
    pub(super) async fn tree(&self) -> Option<OwnedSemaphorePermit> {
        // Nothing closes the semaphore.
        Arc::clone(&self.trees).acquire_owned().await.ok()
    }
}

impl AnswerMemory {
    /// Sees to it that so many bytes are held in all.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] where they do not fit; what was held stays held.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|&more| more > 0) else {
            return Ok(());
        };
        // Not for each piece, of which some are a few bytes long.
        let more = more.next_multiple_of(FREE_BYTES);
        self.held.take(more as u64)?;
        self.bytes += more;
        Ok(())
    }

    /// Adds `piece` to `body`, which this is the memory of and which grows to `most` bytes at most.
    pub(super) fn append(
        &mut self,
        body: &mut Vec<u8>,
        piece: &[u8],
        most: usize,
    ) -> Result<(), NoRoom> {
        let length = body.len() + piece.len();
        if length > body.capacity() {
            // Doubling, so that a body is not copied for each of its pieces.
            let grown = body.capacity().saturating_mul(2).min(most).max(length);
            self.hold(grown)?;
            body.reserve_exact(grown - body.len());
        }
        body.extend_from_slice(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;

    use super::*;

    fn memory(allowed: u64) -> (Arc<ByteAccount>, Memory) {
        let account = ByteAccount::new(allowed, IntGauge::new("held", "held").unwrap());
        let account = Arc::new(account);
        (Arc::clone(&account), Memory::new(account))
    }

    #[test]
    fn an_answer_of_usual_length_takes_nothing_and_a_long_one_what_it_grows_to() {
        let (account, memory) = memory(10 << 20);
        let (mut answer, mut body) = (memory.for_answer(), Vec::new());
        answer.append(&mut body, &vec![7; FREE_BYTES], 1 << 20).unwrap();
        assert_eq!(account.held(), 0);
        for _ in 0..31 {
            answer.append(&mut body, &vec![7; 30_000], 1 << 20).unwrap();
            let counted = account.held() + FREE_BYTES as u64;
            assert!(body.capacity() as u64 <= counted, "{} of {counted}", body.capacity());
        }
        assert!(body.len() == FREE_BYTES + 930_000 && account.held() <= 1 << 20);
        drop(answer);
        assert_eq!(account.held(), 0);
    }

    #[test]
    fn an_answer_that_does_not_fit_is_refused_and_what_came_of_it_is_left_alone() {
        let (account, memory) = memory(200_000);
        let (mut answer, mut body) = (memory.for_answer(), Vec::new());
        answer.append(&mut body, &vec![7; 150_000], 1 << 20).unwrap();
        let no_room = answer.append(&mut body, &vec![7; 150_000], 1 << 20).unwrap_err();
        assert_eq!((no_room.allowed, body.len()), (200_000, 150_000));
        assert!(account.held() <= 200_000);
    }

    #[tokio::test]
    async fn trees_of_long_answers_exist_one_at_a_time() {
        use futures_util::FutureExt as _;
        let (_, memory) = memory(0);
        let tree = memory.tree().await.unwrap();
        assert!(memory.tree().now_or_never().is_none());
        drop(tree);
        assert!(memory.tree().now_or_never().is_some());
    }
}
