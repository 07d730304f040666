//! Limits the concurrent requests of each tenant in this process.
//!
//! A request releases its slot when it ends. Slots must not remain taken after a process crashes. Slots in the memory
//! of the process end with it, whereas a shared store would need leases with renewal and expiry. The limit also
//! protects resources of a single replica: memory and open calls. Concurrency is therefore counted for each replica,
//! even if requests and tokens per minute are shared.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{LimitExceeded, LimitName, Quotas};

/// When a rejected caller should retry. A page takes seconds, and the time at which a request ends is unknown.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Counts the running requests of each tenant.
#[derive(Debug, Default)]
pub struct Concurrency {
    /// Tenants with running requests; other tenants have no entry.
    running: Mutex<HashMap<Box<str>, u64>>,
    /// Told each time that a slot is given back.
    freed: Notify,
}

/// One running request. Dropping it makes room for the next.
#[derive(Debug)]
#[must_use = "a slot that is dropped no longer counts as running"]
pub struct Slot {
    concurrency: Arc<Concurrency>,
    tenant: Box<str>,
}

impl Concurrency {
    /// Counts one running request against the tenant's concurrency, until the slot is dropped.
    ///
    /// Tenants without a limit are counted as well, so that a limit added at run time includes the requests already
    /// running.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] if the tenant already has as many running requests as the quota allows.
    pub fn enter(self: &Arc<Self>, tenant: &str, quotas: &Quotas) -> Result<Slot, LimitExceeded> {
        let mut all = self.lock();
        let running = all.get(tenant).copied().unwrap_or(0);
        let allowed = quotas.concurrency.map_or(u64::MAX, NonZeroU64::get);
        if running >= allowed {
            return Err(LimitExceeded {
                limit: LimitName::Concurrency,
                actual: running.saturating_add(1),
                allowed,
                retry_after: RETRY_AFTER,
            });
        }
        all.insert(tenant.into(), running + 1);
        Ok(Slot { concurrency: Arc::clone(self), tenant: tenant.into() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, u64>> {
        // Every change is a single assignment, so a panic elsewhere cannot leave a partial update.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// One more slot of the same tenant, as soon as its quota allows one: for work that a running request does beside
    /// its other work.
    pub async fn another(&self, quotas: &Quotas) -> Self {
        loop {
            let mut freed = pin!(self.concurrency.freed.notified());
            // From here on no slot that is given back is missed.
            freed.as_mut().enable();
            if let Ok(slot) = self.concurrency.enter(&self.tenant, quotas) {
                return slot;
            }
            freed.await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut all = self.concurrency.lock();
        match all.get_mut(&self.tenant) {
            Some(running) if *running > 1 => *running -= 1,
            _ => {
                all.remove(&self.tenant);
            }
        }
        drop(all);
        self.concurrency.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn at_once(requests: u64) -> Quotas {
        Quotas { concurrency: NonZeroU64::new(requests), ..Quotas::default() }
    }

    #[test]
    fn a_dropped_slot_makes_room_and_a_held_one_does_not() {
        let concurrency = Arc::new(Concurrency::default());
        let held = concurrency.enter("a", &at_once(1)).unwrap();
        let refused = concurrency.enter("a", &at_once(1)).unwrap_err();
        assert_eq!((refused.limit, refused.actual), (LimitName::Concurrency, 2));
        assert_eq!(refused.retry_after, Duration::from_secs(1));
        drop(held);
        assert!(concurrency.enter("a", &at_once(1)).is_ok());
    }

    #[test]
    fn a_running_request_gets_another_slot_when_one_is_given_back() {
        let concurrency = Arc::new(Concurrency::default());
        let quotas = at_once(2);
        let request = concurrency.enter("a", &quotas).unwrap();
        let other = concurrency.enter("a", &quotas).unwrap();
        let mut waiting = Box::pin(request.another(&quotas));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(other);
        let _another = waiting.now_or_never().unwrap();
        assert!(concurrency.enter("a", &quotas).is_err());
    }

    #[test]
    fn one_tenants_slots_do_not_count_against_another() {
        let concurrency = Arc::new(Concurrency::default());
        let _held = concurrency.enter("a", &at_once(1)).unwrap();
        assert!(concurrency.enter("b", &at_once(1)).is_ok());
    }

    #[test]
    fn a_concurrency_given_at_run_time_sees_what_runs_already() {
        let concurrency = Arc::new(Concurrency::default());
        let _held = concurrency.enter("a", &Quotas::default()).unwrap();
        assert!(concurrency.enter("a", &at_once(1)).is_err());
    }

    #[test]
    fn a_tenant_with_nothing_running_is_forgotten() {
        let concurrency = Arc::new(Concurrency::default());
        let held: Vec<_> =
            (0..3).map(|_| concurrency.enter("a", &Quotas::default()).unwrap()).collect();
        assert_eq!(concurrency.lock().get("a"), Some(&3));
        drop(held);
        assert!(concurrency.lock().is_empty());
    }
}
