//! Counts the memory, in bytes, that uploads and long answers hold, and enforces its limit.
//!
//! A request takes bytes before it allocates the memory. If they do not fit, it is refused at once: waiting would hold
//! the connection of a client that could try another replica. A single atomic counter holds the sum, so concurrent
//! requests cannot exceed the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntGauge;

use super::share::{TenantHolder, add};

pub use super::share::{NoRoom, Whose};

/// The number of bytes held, and its limit.
#[derive(Debug)]
pub struct ByteAccount {
    allowed: u64,
    held: AtomicU64,
    shown: IntGauge,
}

/// Bytes that count as held until this is dropped.
#[derive(Debug)]
#[must_use = "bytes that are dropped are no longer counted"]
pub struct HeldBytes {
    account: Arc<ByteAccount>,
    /// The tenant whose share the bytes count against, if any.
    holder: Option<Arc<TenantHolder>>,
    bytes: AtomicU64,
}

impl ByteAccount {
    /// An account of at most `allowed` bytes; `shown` is the gauge of the held bytes.
    pub const fn new(allowed: u64, shown: IntGauge) -> Self {
        Self { allowed, held: AtomicU64::new(0), shown }
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if they do not fit.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Result<HeldBytes, NoRoom> {
        let held = self.hold_nothing();
        held.take(bytes)?;
        Ok(held)
    }

    /// Takes `bytes` and counts them against a tenant's share.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if they do not fit into the tenant's share or into the account.
    pub fn hold_for(
        self: &Arc<Self>,
        holder: Arc<TenantHolder>,
        bytes: u64,
    ) -> Result<HeldBytes, NoRoom> {
        let account = Arc::clone(self);
        let held = HeldBytes { account, holder: Some(holder), bytes: AtomicU64::new(0) };
        held.take(bytes)?;
        Ok(held)
    }

    /// An empty reservation, which [`HeldBytes::take`] grows.
    pub fn hold_nothing(self: &Arc<Self>) -> HeldBytes {
        HeldBytes { account: Arc::clone(self), holder: None, bytes: AtomicU64::new(0) }
    }

    /// Takes `bytes` even if that exceeds the limit, for work that cannot be refused.
    pub(super) fn hold_beyond(self: &Arc<Self>, bytes: u64) -> HeldBytes {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.shown.add(signed(bytes));
        HeldBytes { account: Arc::clone(self), holder: None, bytes: AtomicU64::new(bytes) }
    }

    /// The number of bytes held.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), NoRoom> {
        add(&self.held, bytes, self.allowed).map_err(|(actual, allowed)| NoRoom {
            actual,
            allowed,
            whose: Whose::Process,
        })?;
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
    /// [`NoRoom`] if they do not fit; the bytes held before stay held.
    pub fn take(&self, more: u64) -> Result<(), NoRoom> {
        if let Some(holder) = &self.holder {
            holder.take(more)?;
        }
        self.account.take(more).inspect_err(|_| self.give_back_to_holder(more))?;
        self.bytes.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }

    fn give_back_to_holder(&self, bytes: u64) {
        if let Some(holder) = &self.holder {
            holder.give_back(bytes);
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.account.give_back(bytes);
        self.give_back_to_holder(bytes);
    }
}

/// No more than [`ByteAccount::allowed`], which is far below the largest number.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::share::{Share, Shares};
    use super::*;

    fn account(allowed: u64) -> Arc<ByteAccount> {
        Arc::new(ByteAccount::new(allowed, IntGauge::new("held", "held").unwrap()))
    }

    const fn no_room(actual: u64) -> NoRoom {
        NoRoom { actual, allowed: 100, whose: Whose::Process }
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
        assert_eq!(account.hold(41).unwrap_err(), no_room(101));
        assert_eq!(first.take(41), Err(no_room(101)));
        first.take(40).unwrap();
        assert_eq!(held(&account), 100);
        drop(first);
        assert_eq!(held(&account), 0);
    }

    #[test]
    fn what_does_not_fit_into_all_is_not_counted_against_a_tenant_either() {
        let account = account(100);
        let shares = Arc::new(Shares::new(Share { requests: 1, bytes: 60 }, true));
        let others = account.hold(50).unwrap();
        let held = account.hold_for(shares.of("a"), 20).unwrap();
        assert_eq!(held.take(31), Err(no_room(101)));
        drop(others);
        let refused = held.take(41).unwrap_err();
        assert_eq!((refused.whose, refused.actual, refused.allowed), (Whose::Tenant, 61, 60));
        held.take(40).unwrap();
        drop(held);
        assert!(account.hold_for(shares.of("a"), 60).is_ok());
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
