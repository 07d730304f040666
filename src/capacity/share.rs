//! Limits one tenant's share of the requests and bytes in flight, so that other tenants find room.
//!
//! A tenant that exceeds its share is refused even while the service as a whole has room. The share is a ceiling and
//! not a reservation: all others may use its unused part. [`Shares::bind`] switches the limit on and off: it applies
//! only while there are other tenants to keep room for (docs/adr/0017-tenant-share.md).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The most that one tenant may hold. A member that equals the limit of the whole service is [`Share::ALL`]: the limit
/// of the service applies first, and a refusal names that limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Number of requests.
    pub requests: u64,
    /// Bytes of uploads.
    pub bytes: u64,
}

impl Share {
    /// No limit besides that of the service.
    pub const ALL: u64 = u64::MAX;

    /// `percent` of `whole`, and at least `least`; [`ALL`](Self::ALL) if that is the whole.
    pub fn of(whole: u64, percent: u8, least: u64) -> u64 {
        let part = u128::from(whole) * u128::from(percent) / 100;
        let part = u64::try_from(part).unwrap_or(whole).max(least);
        if part < whole { part } else { Self::ALL }
    }
}

/// The requests and bytes in flight of each tenant.
#[derive(Debug)]
pub struct Shares {
    most: Share,
    binds: AtomicBool,
    /// A holder removes its entry when it is dropped.
    holders: Mutex<HashMap<Box<str>, Weak<TenantHolder>>>,
}

/// The counts of one tenant that holds something, or is about to.
#[derive(Debug)]
pub struct TenantHolder {
    tenant: Box<str>,
    requests: AtomicU64,
    bytes: AtomicU64,
    shares: Arc<Shares>,
}

/// The place of one request of a tenant, until this is dropped.
#[derive(Debug)]
#[must_use = "a place that is dropped is free again"]
pub struct TenantPlace(Arc<TenantHolder>);

/// The tenant already has as many requests in flight as its share allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "with this request the tenant would have {actual} requests in flight; its share is {allowed}"
)]
pub struct NoPlace {
    /// Requests in flight, including this one.
    pub actual: u64,
    /// Requests in flight that the share allows.
    pub allowed: u64,
}

/// The bytes do not fit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{actual} bytes would be held, {allowed} may be")]
pub struct NoRoom {
    /// The bytes that would be held, including the new ones.
    pub actual: u64,
    /// The bytes that may be held.
    pub allowed: u64,
    /// The limit that was exceeded.
    pub whose: Whose,
}

/// The limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The limit of the process.
    Process,
    /// The share of one tenant.
    Tenant,
}

impl Shares {
    /// Empty counts. While `binds`, no tenant may hold more than `most`.
    pub fn new(most: Share, binds: bool) -> Self {
        Self { most, binds: AtomicBool::new(binds), holders: Mutex::default() }
    }

    /// Sets whether the share is enforced.
    pub fn bind(&self, binds: bool) {
        self.binds.store(binds, Ordering::Relaxed);
    }

    /// The counts of `tenant`.
    pub fn of(self: &Arc<Self>, tenant: &str) -> Arc<TenantHolder> {
        let mut holders = self.holders();
        if let Some(holder) = holders.get(tenant).and_then(Weak::upgrade) {
            return holder;
        }
        let holder = Arc::new(TenantHolder {
            tenant: tenant.into(),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            shares: Arc::clone(self),
        });
        holders.insert(tenant.into(), Arc::downgrade(&holder));
        holder
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<Box<str>, Weak<TenantHolder>>> {
        // Every change is a single insertion or removal, so a panic elsewhere leaves the map consistent.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allowed(&self) -> Share {
        if self.binds.load(Ordering::Relaxed) {
            return self.most;
        }
        Share { requests: Share::ALL, bytes: Share::ALL }
    }
}

impl TenantHolder {
    /// The name of the tenant.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Whether one more request with so many bytes would exceed the share, even if the share is not enforced.
    pub fn is_over_with(&self, bytes: u64) -> bool {
        let most = self.shares.most;
        self.requests.load(Ordering::Relaxed) >= most.requests
            || self.bytes.load(Ordering::Relaxed).saturating_add(bytes) > most.bytes
    }

    /// Takes a place for one request.
    ///
    /// # Errors
    ///
    /// [`NoPlace`] if the share is used up.
    pub fn enter(self: &Arc<Self>) -> Result<TenantPlace, NoPlace> {
        match add(&self.requests, 1, self.shares.allowed().requests) {
            Ok(()) => Ok(TenantPlace(Arc::clone(self))),
            Err((actual, allowed)) => Err(NoPlace { actual, allowed }),
        }
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if the share has no room for them.
    pub(super) fn take(&self, bytes: u64) -> Result<(), NoRoom> {
        add(&self.bytes, bytes, self.shares.allowed().bytes).map_err(|(actual, allowed)| NoRoom {
            actual,
            allowed,
            whose: Whose::Tenant,
        })
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for TenantHolder {
    fn drop(&mut self) {
        let mut holders = self.shares.holders();
        // A new holder of the tenant may have replaced this one in the map.
        if holders.get(&self.tenant).is_some_and(|holder| holder.strong_count() == 0) {
            holders.remove(&self.tenant);
        }
    }
}

impl Drop for TenantPlace {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds `more` to `held`, unless the sum exceeds `allowed`: then the error is the sum and `allowed`. Nothing can always
/// be added.
///
/// The counters protect no other memory, so relaxed ordering suffices.
pub(super) fn add(held: &AtomicU64, more: u64, allowed: u64) -> Result<(), (u64, u64)> {
    let sum = |held: u64| held.saturating_add(more);
    let added = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
        Some(sum(held)).filter(|&sum| sum <= allowed || more == 0)
    });
    added.map(|_before| ()).map_err(|held| (sum(held), allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares() -> Arc<Shares> {
        Arc::new(Shares::new(Share { requests: 2, bytes: 100 }, true))
    }

    #[test]
    fn a_tenant_gets_its_share_and_another_tenant_its_own() {
        let shares = shares();
        let (a, b) = (shares.of("a"), shares.of("b"));
        let held = [a.enter().unwrap(), a.enter().unwrap()];
        assert_eq!(a.enter().unwrap_err(), NoPlace { actual: 3, allowed: 2 });
        assert!(b.enter().is_ok());
        drop(held);
        assert!(a.enter().is_ok());
    }

    #[test]
    fn a_share_that_does_not_bind_is_counted_all_the_same() {
        let shares = shares();
        shares.bind(false);
        let tenant = shares.of("a");
        let _held: Vec<_> = (0..5).map(|_| tenant.enter().unwrap()).collect();
        tenant.take(1_000).unwrap();
        shares.bind(true);
        assert_eq!(tenant.enter().unwrap_err(), NoPlace { actual: 6, allowed: 2 });
        let refused = tenant.take(1).unwrap_err();
        assert_eq!((refused.actual, refused.allowed, refused.whose), (1_001, 100, Whose::Tenant));
    }

    #[test]
    fn a_tenant_is_over_its_share_with_one_request_or_one_byte_too_many() {
        let tenant = shares().of("a");
        assert!(!tenant.is_over_with(100) && tenant.is_over_with(101));
        let _held = [tenant.enter().unwrap(), tenant.enter().unwrap()];
        assert!(tenant.is_over_with(0));
    }

    #[test]
    fn a_tenant_that_holds_nothing_is_forgotten_and_one_that_does_is_not() {
        let shares = shares();
        let held = shares.of("a").enter().unwrap();
        assert_eq!(shares.of("a").requests.load(Ordering::Relaxed), 1);
        drop(held);
        assert!(shares.holders().is_empty());
    }
}
