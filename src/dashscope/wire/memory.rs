//! Memory for the upstream's answers, counted with that of uploads.
//!
//! An answer that was paid for must be delivered, so room for it is held before its call is sent: an [`AnswerRoom`] of
//! as many bytes as `max_tokens` usually take, at most `upstream.max_response_bytes`. A call that finds no room is
//! refused before it costs anything.
//!
//! An answer may outgrow its room: JSON escapes take space, and models repeat long tokens. It then takes more of the
//! account. If the account is used up, it waits for the *spare* room, of which there is one, and nothing is read from
//! the upstream meanwhile. So long answers pass one after the other, and memory exceeds the account by at most one
//! answer. Only one long answer at a time is parsed into a tree.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::capacity::account::{ByteAccount, HeldBytes, NoRoom};
use crate::units::Tokens;

/// Bytes of an answer that are not counted, since each request's fixed memory includes them. They suffice for 8,192
/// tokens, the most that most models write.
const FREE_BYTES: usize = 128 * 1024;

/// Bytes of room for each token. By estimate, not by measurement, text takes three to six, JSON around it included.
const TOKEN_BYTES: u64 = 16;

/// Bytes that are taken at once, so that a small piece does not change the account.
const STEP: usize = 64 * 1024;

/// The memory that all answers share.
#[derive(Debug, Clone)]
pub(crate) struct AnswerPool {
    account: Arc<ByteAccount>,
    trees: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    longest_answer: usize,
}

/// Room for the answer of one call, held until this is dropped.
#[derive(Debug)]
pub(crate) struct AnswerRoom {
    _held: HeldBytes,
    bytes: usize,
}

/// The memory of one answer, until this is dropped.
#[derive(Debug)]
pub(crate) struct AnswerMemory {
    room: Arc<AnswerRoom>,
    /// Bytes taken beyond the room.
    more: HeldBytes,
    more_bytes: usize,
    spare: Arc<Semaphore>,
    /// The spare room, if this answer has it.
    has_spare: Option<OwnedSemaphorePermit>,
}

impl AnswerPool {
    /// Memory of `account` for answers of at most `longest_answer` bytes.
    pub(crate) fn new(account: Arc<ByteAccount>, longest_answer: usize) -> Self {
        let (trees, spare) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        Self { account, trees, spare, longest_answer }
    }

    /// Holds room for an answer of at most `written` tokens.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if it does not fit.
    pub(crate) async fn room_for(&self, written: Tokens) -> Result<Arc<AnswerRoom>, NoRoom> {
        let bytes = written.get().saturating_mul(TOKEN_BYTES);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.longest_answer);
        let counted = bytes.saturating_sub(FREE_BYTES);
        let held = self.account.begin_answer();
        held.take_or_reclaim(counted as u64).await?;
        Ok(Arc::new(AnswerRoom { _held: held, bytes: counted + FREE_BYTES }))
    }

    /// Memory for an answer that has not arrived yet, with this room.
    pub(crate) fn for_answer(&self, room: &Arc<AnswerRoom>) -> AnswerMemory {
        AnswerMemory {
            room: Arc::clone(room),
            more: self.account.begin_answer(),
            more_bytes: 0,
            spare: Arc::clone(&self.spare),
            has_spare: None,
        }
    }

    /// Permission to parse a long answer into a tree, which may be many times as large. Only one exists at a time.
    pub(crate) async fn tree(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.trees).acquire_owned().await.ok()
    }
}

impl AnswerMemory {
    /// Grows the memory to `bytes`. Waits for the spare room if the account is used up, and returns it when it is no
    /// longer needed.
    pub(crate) async fn hold(&mut self, bytes: usize) {
        let held = self.room.bytes + self.more_bytes;
        let Some(more) = bytes.checked_sub(held).filter(|&more| more > 0) else {
            self.has_spare = None;
            return;
        };
        if self.has_spare.is_some() {
            return;
        }
        let more = more.next_multiple_of(STEP);
        if self.more.take_or_reclaim(more as u64).await.is_ok() {
            self.more_bytes += more;
            return;
        }
        // The semaphore is never closed.
        self.has_spare = Arc::clone(&self.spare).acquire_owned().await.ok();
    }

    /// Appends `piece` to `body`, whose memory this is and which may grow to `most` bytes.
    pub(crate) async fn append(&mut self, body: &mut Vec<u8>, piece: &[u8], most: usize) {
        let length = body.len() + piece.len();
        if length > body.capacity() {
            // Doubling avoids a copy for each piece, but must not leave the room.
            let doubled = body.capacity().saturating_mul(2).min(most);
            let grown =
                if length <= self.room.bytes { doubled.min(self.room.bytes) } else { doubled };
            let grown = grown.max(length);
            self.hold(grown).await;
            body.reserve_exact(grown - body.len());
        }
        body.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use prometheus::IntGauge;

    use super::*;

    const LONGEST: usize = 2 << 20;

    fn memory(allowed: u64) -> (Arc<ByteAccount>, AnswerPool) {
        let account = ByteAccount::new(allowed, IntGauge::new("held", "held").unwrap());
        let account = Arc::new(account);
        (Arc::clone(&account), AnswerPool::new(account, LONGEST))
    }

    #[tokio::test]
    async fn room_is_held_for_what_a_call_may_write_and_for_most_models_it_costs_nothing() {
        let (account, memory) = memory(10 << 20);
        for (tokens, counted) in [
            (0, 0),
            (8_192, 0),
            (32_768, 32_768 * TOKEN_BYTES - FREE_BYTES as u64),
            (u64::MAX, (LONGEST - FREE_BYTES) as u64),
        ] {
            let room = memory.room_for(Tokens::new(tokens)).await.unwrap();
            assert_eq!(account.held(), counted, "{tokens}");
            drop(room);
            assert_eq!(account.held(), 0);
        }
    }

    #[tokio::test]
    async fn a_call_without_room_for_its_answer_is_refused() {
        let (account, memory) = memory(600_000);
        let _room = memory.room_for(Tokens::new(32_768)).await.unwrap();
        let no_room = memory.room_for(Tokens::new(32_768)).await.unwrap_err();
        assert_eq!((no_room.actual, no_room.allowed), (2 * account.held(), 600_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_waits_for_a_worker_s_memory_keeps_no_call_from_its_room() {
        let (account, memory) = memory(1 << 20);
        let drawn_pages = account.hold(100_000).unwrap();
        let later = tokio::time::Instant::now() + std::time::Duration::from_secs(1);
        let mut waiting = Box::pin(account.hold_until(1 << 20, later));
        assert!(waiting.as_mut().now_or_never().is_none());
        let small = memory.room_for(Tokens::new(8_192)).await.unwrap();
        let large = memory.room_for(Tokens::new(32_768)).await.unwrap();
        drop((small, large, drawn_pages));
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn an_answer_takes_nothing_within_its_room_and_what_it_grows_to_beyond() {
        let (account, memory) = memory(10 << 20);
        let room = memory.room_for(Tokens::new(32_768)).await.unwrap();
        let (mut answer, mut body) = (memory.for_answer(&room), Vec::new());
        drop(room);
        let in_room = account.held();
        answer.append(&mut body, &vec![7; 32_768 * 16], LONGEST).await;
        assert_eq!(account.held(), in_room);
        for _ in 0..31 {
            answer.append(&mut body, &vec![7; 30_000], LONGEST).await;
            let counted = account.held() + FREE_BYTES as u64;
            assert!(body.capacity() as u64 <= counted, "{} of {counted}", body.capacity());
        }
        assert!(body.len() == 32_768 * 16 + 930_000 && account.held() <= LONGEST as u64);
        drop(answer);
        assert_eq!(account.held(), 0);
    }

    #[tokio::test]
    async fn answers_that_find_no_room_are_read_one_after_the_other() {
        let (account, memory) = memory(0);
        let room = memory.room_for(Tokens::new(1)).await.unwrap();
        let (mut first, mut second) = (memory.for_answer(&room), memory.for_answer(&room));
        let (mut one, mut two) = (Vec::new(), Vec::new());
        first.append(&mut one, &vec![7; 1 << 20], LONGEST).await;
        assert!(second.append(&mut two, &vec![7; FREE_BYTES], LONGEST).now_or_never().is_some());
        assert!(second.append(&mut two, b"x", LONGEST).now_or_never().is_none());
        drop(first);
        second.append(&mut two, &vec![7; 1 << 20], LONGEST).await;
        assert_eq!((one.len(), two.len()), (1 << 20, FREE_BYTES + (1 << 20)));
        assert_eq!(account.held(), 0);
    }

    #[tokio::test]
    async fn trees_of_long_answers_exist_one_at_a_time() {
        let (_, memory) = memory(0);
        let tree = memory.tree().await.unwrap();
        assert!(memory.tree().now_or_never().is_none());
        drop(tree);
        assert!(memory.tree().now_or_never().is_some());
    }
}
