//! Counts requests and tokens per minute in this process.
//!
//! This limiter serves a single replica. It is also the fallback if Redis is unavailable and the settings allow it. It
//! uses one plain mutex: a check is a lookup and some twenty integer operations, which take less time than waking a
//! second thread. Its futures never wait.
//!
//! A tenant is kept in memory while it has something in use. Memory therefore depends on the tenants active within the
//! last minutes and not on the total number of tenants.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::gcra::{Bucket, Rate};
use super::{Counted, LimitExceeded, LimitName, Quotas, RateLimiter, TakeError, Taken};
use crate::clock::Clock;
use crate::units::Tokens;

/// The number of tenants in memory from which idle ones are removed.
const LEAST_TENANTS_TO_SWEEP: usize = 64;

/// A rate limiter for one process.
#[derive(Debug)]
pub struct LocalRateLimiter {
    clock: Arc<dyn Clock>,
    origin: Instant,
    accounts: Mutex<Accounts>,
}

#[derive(Debug)]
struct Accounts {
    by_tenant: HashMap<Box<str>, TenantBuckets>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct TenantBuckets {
    requests: Bucket,
    tokens: Bucket,
}

impl LocalRateLimiter {
    /// Creates a limiter in which nothing is in use.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let accounts = Accounts { by_tenant: HashMap::new(), sweep_at: LEAST_TENANTS_TO_SWEEP };
        Self { origin: clock.instant(), clock, accounts: Mutex::new(accounts) }
    }

    /// The synchronous form of [`RateLimiter::take_request`].
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] if the minute's requests are used up.
    pub fn take_request_now(&self, tenant: &str, quotas: &Quotas) -> Result<(), LimitExceeded> {
        let Some(quota) = quotas.requests_per_minute else {
            return Ok(());
        };
        let now = self.now();
        let mut accounts = self.lock();
        let bucket = &mut accounts.of(tenant, now).requests;
        take(LimitName::Requests, quota, bucket, now, 1)
    }

    /// The synchronous form of [`RateLimiter::take_tokens`].
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] if the minute's tokens do not cover the bound.
    pub fn take_tokens_now(
        &self,
        tenant: &str,
        quotas: &Quotas,
        bound: Tokens,
    ) -> Result<Taken, LimitExceeded> {
        let taken = Taken { bound, counted: Counted::Here };
        let Some(quota) = quotas.tokens_per_minute else {
            return Ok(taken);
        };
        let now = self.now();
        let mut accounts = self.lock();
        let bucket = &mut accounts.of(tenant, now).tokens;
        take(LimitName::Tokens, quota, bucket, now, bound.get())?;
        Ok(taken)
    }

    fn now(&self) -> Duration {
        self.clock.instant().saturating_duration_since(self.origin)
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        // Every change is a single assignment, so a panic elsewhere cannot leave a partial update.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateLimiter for LocalRateLimiter {
    fn take_request<'a>(
        &'a self,
        tenant: &'a str,
        quotas: &'a Quotas,
    ) -> BoxFuture<'a, Result<(), TakeError>> {
        Box::pin(async move { Ok(self.take_request_now(tenant, quotas)?) })
    }

    fn take_tokens<'a>(
        &'a self,
        tenant: &'a str,
        quotas: &'a Quotas,
        bound: Tokens,
    ) -> BoxFuture<'a, Result<Taken, TakeError>> {
        Box::pin(async move { Ok(self.take_tokens_now(tenant, quotas, bound)?) })
    }

    fn settle_tokens(&self, tenant: &str, quotas: &Quotas, taken: Taken, billed: Tokens) {
        let Some(quota) = quotas.tokens_per_minute else {
            return;
        };
        let (rate, now) = (Rate::per_minute(quota), self.now());
        let mut accounts = self.lock();
        let bucket = &mut accounts.of(tenant, now).tokens;
        rate.give_back(bucket, taken.bound.saturating_sub(billed).get());
        rate.charge(bucket, now, billed.saturating_sub(taken.bound).get());
    }
}

impl Accounts {
    /// Returns the tenant's account, and creates it if there is none.
    fn of(&mut self, tenant: &str, now: Duration) -> &mut TenantBuckets {
        if !self.by_tenant.contains_key(tenant) {
            self.sweep(now);
        }
        self.by_tenant.entry(tenant.into()).or_default()
    }

    /// Removes idle accounts, but only when the number of accounts has doubled since the last sweep. The amortised cost
    /// of a new account is then two visits, independent of the number of accounts.
    fn sweep(&mut self, now: Duration) {
        if self.by_tenant.len() < self.sweep_at {
            return;
        }
        self.by_tenant.retain(|_, account| !account.is_idle(now));
        self.sweep_at = LEAST_TENANTS_TO_SWEEP.max(2 * self.by_tenant.len());
    }
}

impl TenantBuckets {
    /// Whether the account is equivalent to a new one.
    fn is_idle(&self, now: Duration) -> bool {
        self.requests.full_by() <= now && self.tokens.full_by() <= now
    }
}

fn take(
    limit: LimitName,
    quota: NonZeroU64,
    bucket: &mut Bucket,
    now: Duration,
    amount: u64,
) -> Result<(), LimitExceeded> {
    let rate = Rate::per_minute(quota);
    rate.take(bucket, now, amount).map_err(|retry_after| LimitExceeded {
        limit,
        actual: rate.in_use(bucket, now).saturating_add(amount),
        allowed: quota.get(),
        retry_after,
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::clock::ManualClock;

    fn limiter() -> (LocalRateLimiter, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
        (LocalRateLimiter::new(clock.clone()), clock)
    }

    fn requests(per_minute: u64) -> Quotas {
        Quotas { requests_per_minute: NonZeroU64::new(per_minute), ..Quotas::default() }
    }

    #[test]
    fn tenants_that_used_something_a_minute_ago_are_forgotten() {
        let (limiter, clock) = limiter();
        for minute in 0..100 {
            for tenant in 0..50 {
                let name = format!("{minute}/{tenant}");
                assert_eq!(limiter.take_request_now(&name, &requests(1)), Ok(()));
            }
            clock.advance(Duration::from_mins(1));
        }
        assert!(limiter.lock().by_tenant.len() <= LEAST_TENANTS_TO_SWEEP.max(2 * 50));
    }

    #[test]
    fn many_threads_together_pass_exactly_the_quota() {
        let (limiter, _) = limiter();
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let take = |_: &_| limiter.take_request_now("a", &requests(150)).is_ok();
                    scope.spawn(move || (0..100).filter(take).count())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 150);
    }
}
