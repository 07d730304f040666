//! Memory for short blocking work, held only while the work runs.
//!
//! A schema of some kilobytes takes megabytes while it is parsed or while an answer is validated against it. Only a few
//! such jobs run at once, and their memory counts as held meanwhile. A job is never refused for lack of memory, because
//! the answer may already be paid for: if the account is full, the job exceeds its limit. So memory exceeds the limit
//! by at most [`WORKS_AT_ONCE`] jobs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::account::{ByteAccount, HeldBytes};

/// Jobs at once. The processors of a small replica would not finish more of them sooner.
pub const WORKS_AT_ONCE: usize = 2;

/// Provides the memory of such jobs.
#[derive(Debug)]
pub struct Scratch {
    account: Arc<ByteAccount>,
    places: Arc<Semaphore>,
}

/// The memory of one job, held until this is dropped.
#[derive(Debug)]
#[must_use = "memory that is dropped is no longer counted"]
pub struct ScratchMemory {
    _held: HeldBytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl Scratch {
    /// Scratch memory that counts in `account`.
    pub fn new(account: Arc<ByteAccount>) -> Self {
        Self { account, places: Arc::new(Semaphore::new(WORKS_AT_ONCE)) }
    }

    /// Waits until the job may run, and counts its `bytes` as held.
    pub async fn take(&self, bytes: u64) -> ScratchMemory {
        // The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        ScratchMemory { _held: self.account.hold_beyond(bytes), _place: place }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use prometheus::IntGauge;

    use super::*;

    fn account(allowed: u64) -> Arc<ByteAccount> {
        Arc::new(ByteAccount::new(allowed, IntGauge::new("held", "held").unwrap()))
    }

    #[test]
    fn what_a_work_takes_is_held_until_it_ends() {
        let account = account(100);
        let scratch = Scratch::new(Arc::clone(&account));
        let memory = scratch.take(60).now_or_never().unwrap();
        assert_eq!(account.held(), 60);
        assert!(account.hold(41).is_err());
        drop(memory);
        assert_eq!(account.held(), 0);
    }

    #[test]
    fn a_work_that_finds_no_room_goes_on_and_nobody_else_gets_any() {
        let account = account(100);
        let upload = account.hold(100).unwrap();
        let scratch = Scratch::new(Arc::clone(&account));
        let memory = scratch.take(60).now_or_never().unwrap();
        assert_eq!(account.held(), 160);
        drop(upload);
        assert!(account.hold(41).is_err());
        drop(memory);
        assert!(account.hold(100).is_ok());
    }

    #[test]
    fn one_work_too_many_waits_until_another_ends() {
        let scratch = Scratch::new(account(100));
        let mut works: Vec<_> =
            (0..WORKS_AT_ONCE).map(|_| scratch.take(1).now_or_never().unwrap()).collect();
        assert!(scratch.take(1).now_or_never().is_none());
        works.pop();
        assert!(scratch.take(1).now_or_never().is_some());
    }
}
