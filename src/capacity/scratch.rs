//! Memory that work takes for a moment, and gives back before anything is waited for.
//!
//! A schema of some kilobytes takes megabytes while it is read or while an answer is held to it. Few such works
//! run at once, and what they take counts as held meanwhile. None is refused for want of memory, because the
//! answer may be paid for already: a work that finds the account full goes over its limit. So memory exceeds
//! the limit by [`WORKS_AT_ONCE`] works at most.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::account::{ByteAccount, HeldBytes};

/// Works at once. More would not be done sooner by the processors of a small replica.
pub const WORKS_AT_ONCE: usize = 2;

/// Where such works get their memory.
#[derive(Debug)]
pub struct Scratch {
    account: Arc<ByteAccount>,
    places: Arc<Semaphore>,
}

/// The memory of one work, until this is dropped.
#[derive(Debug)]
#[must_use = "memory that is dropped is no longer counted"]
pub struct ScratchMemory {
    _held: HeldBytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl Scratch {
    /// Scratch memory that is counted in `account`.
    pub fn new(account: Arc<ByteAccount>) -> Self {
        Self { account, places: Arc::new(Semaphore::new(WORKS_AT_ONCE)) }
    }

    /// Waits for the turn of a work and counts its `bytes` as held.
    pub async fn take(&self, bytes: u64) -> ScratchMemory {
        // Nothing closes the semaphore.
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
