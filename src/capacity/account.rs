//! Bytes of uploads, and of long answers, that are held in memory, and never more than may be.
//!
//! Bytes are taken before the memory is, and refused where they do not fit: waiting for room would hold
//! the connection of a client that could ask another replica instead. One number, changed at once, so
//! that no order of requests can bring it over the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntGauge;

/// All bytes that are held, and how many may be.
#[derive(Debug)]
pub struct ByteAccount {
    allowed: u64,
    held: AtomicU64,
    shown: IntGauge,
}

/// There is no room for so many bytes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{actual} bytes would be held, {allowed} may be")]
pub struct NoRoom {
    /// What would be held with them, in bytes.
    pub actual: u64,
    /// What may be held, in bytes.
    pub allowed: u64,
}

/// Bytes that count as held until this is dropped.
#[derive(Debug)]
#[must_use = "bytes that are dropped are no longer counted"]
pub struct HeldBytes {
    account: Arc<ByteAccount>,
    bytes: AtomicU64,
}

impl ByteAccount {
    /// An account of at most `allowed` bytes; `shown` is the gauge that tells what is held.
    pub const fn new(allowed: u64, shown: IntGauge) -> Self {
        Self { allowed, held: AtomicU64::new(0), shown }
    }

    /// Tells whether there is room for `bytes`, without taking it.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] where there is none.
    pub fn look_for(&self, bytes: u64) -> Result<(), NoRoom> {
        self.with(self.held.load(Ordering::Relaxed), bytes).map(|_| ())
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] where they do not fit.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Result<HeldBytes, NoRoom> {
        self.take(bytes)?;
        Ok(HeldBytes { account: Arc::clone(self), bytes: AtomicU64::new(bytes) })
    }

    /// Holds nothing yet, to take from as it is needed.
    pub fn hold_nothing(self: &Arc<Self>) -> HeldBytes {
        HeldBytes { account: Arc::clone(self), bytes: AtomicU64::new(0) }
    }

    /// Bytes that are held.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// What is held when `bytes` come to `held`.
    const fn with(&self, held: u64, bytes: u64) -> Result<u64, NoRoom> {
        let actual = held.saturating_add(bytes);
        if actual > self.allowed {
            return Err(NoRoom { actual, allowed: self.allowed });
        }
        Ok(actual)
    }

    fn take(&self, bytes: u64) -> Result<(), NoRoom> {
        // The number guards no other memory, so its own order is all that matters.
        let mut held = self.held.load(Ordering::Relaxed);
        loop {
            let actual = self.with(held, bytes)?;
            let swapped =
                self.held.compare_exchange_weak(held, actual, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => break,
                Err(meanwhile) => held = meanwhile,
            }
        }
        self.shown.add(signed(bytes));
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.shown.sub(signed(bytes));
    }
}

impl HeldBytes {
    /// Takes `more` bytes.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] where they do not fit; what was held stays held.
    pub fn take(&self, more: u64) -> Result<(), NoRoom> {
        self.account.take(more)?;
        self.bytes.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.account.give_back(*self.bytes.get_mut());
    }
}

/// No more than [`ByteAccount::allowed`], which is far below the largest number.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(allowed: u64) -> Arc<ByteAccount> {
        Arc::new(ByteAccount::new(allowed, IntGauge::new("held", "held").unwrap()))
    }

    fn held(account: &ByteAccount) -> u64 {
        let held = account.held.load(Ordering::Relaxed);
        assert_eq!(i64::try_from(held), Ok(account.shown.get()), "the gauge shows what is held");
        held
    }

    #[test]
    fn what_fits_to_the_byte_is_taken_and_one_byte_more_is_refused_with_both_numbers() {
        let account = account(100);
        let first = account.hold(60).unwrap();
        assert_eq!(account.hold(41).unwrap_err(), NoRoom { actual: 101, allowed: 100 });
        assert_eq!(account.look_for(41), Err(NoRoom { actual: 101, allowed: 100 }));
        assert_eq!(account.look_for(40), Ok(()));
        assert_eq!(first.take(41), Err(NoRoom { actual: 101, allowed: 100 }));
        first.take(40).unwrap();
        assert_eq!(held(&account), 100);
        drop(first);
        assert_eq!(held(&account), 0);
    }

    #[test]
    fn a_number_that_would_wrap_is_refused() {
        let account = account(100);
        let _held = account.hold(1).unwrap();
        assert!(account.hold(u64::MAX).is_err());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Hold(u64),
        Take(usize, u64),
        Drop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..60_u64).prop_map(Step::Hold),
            (any::<usize>(), 0..60_u64).prop_map(|(which, more)| Step::Take(which, more)),
            any::<usize>().prop_map(Step::Drop),
        ]
    }

    proptest! {
        #[test]
        fn no_order_of_steps_brings_it_over_the_limit_and_all_is_given_back(
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let account = account(100);
            let mut requests: Vec<(HeldBytes, u64)> = Vec::new();
            for step in steps {
                let before: u64 = requests.iter().map(|(_, bytes)| bytes).sum();
                match step {
                    Step::Hold(bytes) => match account.hold(bytes) {
                        Ok(held) => requests.push((held, bytes)),
                        Err(_) => prop_assert!(before + bytes > 100),
                    },
                    Step::Take(which, more) if !requests.is_empty() => {
                        let which = which % requests.len();
                        match requests[which].0.take(more) {
                            Ok(()) => requests[which].1 += more,
                            Err(_) => prop_assert!(before + more > 100),
                        }
                    }
                    Step::Drop(which) if !requests.is_empty() => {
                        drop(requests.swap_remove(which % requests.len()));
                    }
                    Step::Take(..) | Step::Drop(_) => {}
                }
                let sum: u64 = requests.iter().map(|(_, bytes)| bytes).sum();
                prop_assert!(sum <= 100);
                prop_assert_eq!(held(&account), sum);
            }
            drop(requests);
            prop_assert_eq!(held(&account), 0);
        }
    }

    #[test]
    fn threads_that_take_at_once_do_not_exceed_it_together() {
        let account = account(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for bytes in 1..2000 {
                        let _held = account.hold(bytes % 700);
                        assert!(account.held.load(Ordering::Relaxed) <= 1000);
                    }
                });
            }
        });
        assert_eq!(held(&account), 0);
    }
}
