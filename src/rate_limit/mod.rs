//! Requests a minute, tokens a minute and requests at once, for each tenant of one process.
//!
//! The limits protect the tenants from each other and the upstream's quota from one tenant's loop;
//! they are not a budget, which would have to survive a crash. So they live in memory
//! behind one plain mutex: a check is a lookup and some twenty integer operations, over before a
//! second thread could have been woken, and nothing here is async.
//!
//! A minute's whole quota may come at once. Callers of OCR services read sixty a minute as "I may
//! send my sixty pages"; a limiter that spaced them a second apart would refuse the second page of
//! every document and teach clients to ignore 429. The price is that a tenant that rested can pass
//! nearly twice its quota within some minute: what it saved up, and what comes back meanwhile. The
//! upstream does not see that burst, since calls to it are paced.
//!
//! The quotas are arguments and only what is used is kept, as a share of the minute; so a changed
//! quota holds from the next call on, and a used-up minute refills at the new pace. A tenant is
//! remembered while it has something running or something used; memory therefore follows the
//! tenants active within the last minutes, not those that exist.

pub mod gcra;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::units::Tokens;

use self::gcra::{Bucket, Rate};

/// When a caller over its concurrency should come back: pages take seconds, and the moment at which
/// one of them ends is not known.
const CONCURRENCY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// From how many remembered tenants on those with nothing used are looked for and forgotten.
const LEAST_TENANTS_TO_SWEEP: usize = 64;

/// What one tenant may use; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Requests a minute, all of which may come at once.
    pub requests_per_minute: Option<NonZeroU64>,
    /// Tokens a minute, in and out, all of which may be taken at once.
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Requests that may be worked on at the same time.
    pub concurrency: Option<NonZeroU64>,
}

/// Which quota was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitName {
    /// Requests a minute.
    Requests,
    /// Tokens a minute.
    Tokens,
    /// Requests at the same time.
    Concurrency,
}

impl LimitName {
    /// The tenant setting's name, which problem documents and metrics use too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "rpm",
            Self::Tokens => "tpm",
            Self::Concurrency => "concurrency",
        }
    }
}

impl std::fmt::Display for LimitName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that a quota has no room for; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit {limit} is {allowed}, and this request would make it {actual}")]
pub struct LimitExceeded {
    /// The quota.
    pub limit: LimitName,
    /// What would be in use with this request.
    pub actual: u64,
    /// What the quota allows.
    pub allowed: u64,
    /// The least time after which the same request can pass. For requests and tokens it passes then
    /// unless the tenant takes more meanwhile.
    pub retry_after: Duration,
}

/// Counts what each tenant uses.
#[derive(Debug)]
pub struct RateLimiter {
    clock: Arc<dyn Clock>,
    origin: Instant,
    accounts: Mutex<Accounts>,
}

/// One running request. Dropping it makes room for the next.
#[derive(Debug)]
#[must_use = "a slot that is dropped no longer counts as running"]
pub struct Slot {
    limiter: Arc<RateLimiter>,
    tenant: Box<str>,
}

#[derive(Debug)]
struct Accounts {
    by_tenant: HashMap<Box<str>, Account>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Account {
    requests: Bucket,
    tokens: Bucket,
    running: u64,
}

impl RateLimiter {
    /// A limiter with which no tenant has used anything yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let accounts = Accounts { by_tenant: HashMap::new(), sweep_at: LEAST_TENANTS_TO_SWEEP };
        Self { origin: clock.instant(), clock, accounts: Mutex::new(accounts) }
    }

    /// Counts one request against the tenant's requests a minute.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] where the minute's requests are used up.
    pub fn take_request(&self, tenant: &str, quotas: &Quotas) -> Result<(), LimitExceeded> {
        let Some(quota) = quotas.requests_per_minute else {
            return Ok(());
        };
        let now = self.now();
        let mut accounts = self.lock();
        let bucket = &mut accounts.of(tenant, now).requests;
        take(LimitName::Requests, quota, bucket, now, 1)
    }

    /// Counts one running request against the tenant's concurrency, until the slot is dropped.
    ///
    /// Tenants without the quota are counted as well, so that one given to them at run time sees
    /// what is running already.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] where as many are running as the quota allows.
    pub fn enter(self: &Arc<Self>, tenant: &str, quotas: &Quotas) -> Result<Slot, LimitExceeded> {
        let now = self.now();
        let mut accounts = self.lock();
        let running = &mut accounts.of(tenant, now).running;
        let allowed = quotas.concurrency.map_or(u64::MAX, NonZeroU64::get);
        if *running >= allowed {
            return Err(LimitExceeded {
                limit: LimitName::Concurrency,
                actual: running.saturating_add(1),
                allowed,
                retry_after: CONCURRENCY_RETRY_AFTER,
            });
        }
        *running += 1;
        Ok(Slot { limiter: Arc::clone(self), tenant: tenant.into() })
    }

    /// Takes the most that a request can be billed from the tenant's tokens a minute.
    ///
    /// A bound larger than the whole quota passes when nothing is in use, and is paid for by the
    /// minutes after it: a document of many pages must not be refused for ever.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] where the minute's tokens do not cover the bound.
    pub fn take_tokens(
        &self,
        tenant: &str,
        quotas: &Quotas,
        bound: Tokens,
    ) -> Result<(), LimitExceeded> {
        let Some(quota) = quotas.tokens_per_minute else {
            return Ok(());
        };
        let now = self.now();
        let mut accounts = self.lock();
        let bucket = &mut accounts.of(tenant, now).tokens;
        take(LimitName::Tokens, quota, bucket, now, bound.get())
    }

    /// Replaces a bound that was taken by what was billed: gives the rest back, or charges what was
    /// billed above it, which cannot be refused any more.
    pub fn settle_tokens(&self, tenant: &str, quotas: &Quotas, bound: Tokens, billed: Tokens) {
        let Some(quota) = quotas.tokens_per_minute else {
            return;
        };
        let (rate, now) = (Rate::per_minute(quota), self.now());
        let mut accounts = self.lock();
        let bucket = &mut accounts.of(tenant, now).tokens;
        rate.give_back(bucket, bound.saturating_sub(billed).get());
        rate.charge(bucket, now, billed.saturating_sub(bound).get());
    }

    fn now(&self) -> Duration {
        self.clock.instant().saturating_duration_since(self.origin)
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        // Every change is a single assignment, so a panic elsewhere leaves nothing half done.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(account) = self.limiter.lock().by_tenant.get_mut(&self.tenant) {
            account.running = account.running.saturating_sub(1);
        }
    }
}

impl Accounts {
    /// The tenant's account, opened where there is none.
    fn of(&mut self, tenant: &str, now: Duration) -> &mut Account {
        if !self.by_tenant.contains_key(tenant) {
            self.sweep(now);
        }
        self.by_tenant.entry(tenant.into()).or_default()
    }

    /// Forgets idle accounts, but only once there are twice as many as were left last time: so an
    /// opened account pays for looking at two, however many there are.
    fn sweep(&mut self, now: Duration) {
        if self.by_tenant.len() < self.sweep_at {
            return;
        }
        self.by_tenant.retain(|_, account| !account.is_idle(now));
        self.sweep_at = LEAST_TENANTS_TO_SWEEP.max(2 * self.by_tenant.len());
    }
}

impl Account {
    /// Whether a new account would say the same.
    fn is_idle(&self, now: Duration) -> bool {
        self.running == 0 && self.requests.full_by() <= now && self.tokens.full_by() <= now
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

    const BOUND: Tokens = Tokens::new(600);

    fn limiter() -> (Arc<RateLimiter>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
        (Arc::new(RateLimiter::new(clock.clone())), clock)
    }

    fn requests(per_minute: u64) -> Quotas {
        Quotas { requests_per_minute: NonZeroU64::new(per_minute), ..Quotas::default() }
    }

    fn tokens(per_minute: u64) -> Quotas {
        Quotas { tokens_per_minute: NonZeroU64::new(per_minute), ..Quotas::default() }
    }

    fn concurrency(at_once: u64) -> Quotas {
        Quotas { concurrency: NonZeroU64::new(at_once), ..Quotas::default() }
    }

    #[test]
    fn the_request_after_a_minutes_quota_is_refused_with_both_numbers_and_an_honest_wait() {
        let (limiter, clock) = limiter();
        let quotas = requests(3);
        for _ in 0..3 {
            assert_eq!(limiter.take_request("a", &quotas), Ok(()));
        }
        let refused = limiter.take_request("a", &quotas).unwrap_err();
        assert_eq!((refused.limit.as_str(), refused.actual, refused.allowed), ("rpm", 4, 3));
        assert_eq!(refused.retry_after, Duration::from_secs(20));
        clock.advance(refused.retry_after);
        assert_eq!(limiter.take_request("a", &quotas), Ok(()));
    }

    #[test]
    fn one_tenants_requests_do_not_count_against_another() {
        let (limiter, _) = limiter();
        assert_eq!(limiter.take_request("a", &requests(1)), Ok(()));
        assert_eq!(limiter.take_request("b", &requests(1)), Ok(()));
    }

    #[test]
    fn without_quotas_nothing_is_refused() {
        let (limiter, _) = limiter();
        let most = Tokens::new(u64::MAX);
        let none = Quotas::default();
        assert_eq!(limiter.take_request("a", &none), Ok(()));
        assert_eq!(limiter.take_tokens("a", &none, most), Ok(()));
        assert_eq!(limiter.take_tokens("a", &none, most), Ok(()));
        assert!(limiter.enter("a", &none).is_ok());
    }

    #[test]
    fn a_dropped_slot_makes_room_and_a_held_one_does_not() {
        let (limiter, _) = limiter();
        let held = limiter.enter("a", &concurrency(1)).unwrap();
        let refused = limiter.enter("a", &concurrency(1)).unwrap_err();
        assert_eq!((refused.limit, refused.actual), (LimitName::Concurrency, 2));
        assert_eq!(refused.retry_after, Duration::from_secs(1));
        drop(held);
        assert!(limiter.enter("a", &concurrency(1)).is_ok());
    }

    #[test]
    fn a_concurrency_given_at_run_time_sees_what_runs_already() {
        let (limiter, _) = limiter();
        let _held = limiter.enter("a", &Quotas::default()).unwrap();
        assert!(limiter.enter("a", &concurrency(1)).is_err());
    }

    #[test]
    fn what_was_not_billed_may_be_taken_again() {
        let (limiter, _) = limiter();
        let quotas = tokens(1_000);
        assert_eq!(limiter.take_tokens("a", &quotas, BOUND), Ok(()));
        assert!(limiter.take_tokens("a", &quotas, BOUND).is_err());
        limiter.settle_tokens("a", &quotas, BOUND, Tokens::new(400));
        assert_eq!(limiter.take_tokens("a", &quotas, BOUND), Ok(()));
    }

    #[test]
    fn what_was_billed_above_the_bound_is_charged() {
        let (limiter, _) = limiter();
        let quotas = tokens(1_000);
        assert_eq!(limiter.take_tokens("a", &quotas, Tokens::new(100)), Ok(()));
        limiter.settle_tokens("a", &quotas, Tokens::new(100), Tokens::new(1_500));
        let refused = limiter.take_tokens("a", &quotas, BOUND).unwrap_err();
        assert_eq!(
            (refused.limit.as_str(), refused.actual, refused.allowed),
            ("tpm", 2_100, 1_000)
        );
    }

    #[test]
    fn a_bound_over_the_whole_quota_passes_alone_and_is_paid_for() {
        let (limiter, clock) = limiter();
        let quotas = tokens(1_000);
        assert_eq!(limiter.take_tokens("a", &quotas, Tokens::new(3_000)), Ok(()));
        clock.advance(Duration::from_mins(2));
        assert!(limiter.take_tokens("a", &quotas, Tokens::new(1)).is_err());
        clock.advance(Duration::from_mins(1));
        assert_eq!(limiter.take_tokens("a", &quotas, Tokens::new(1_000)), Ok(()));
    }

    #[test]
    fn a_changed_quota_holds_from_the_next_call() {
        let (limiter, _) = limiter();
        assert_eq!(limiter.take_request("a", &requests(2)), Ok(()));
        assert_eq!(limiter.take_request("a", &requests(2)), Ok(()));
        assert!(limiter.take_request("a", &requests(2)).is_err());
        let refused = limiter.take_request("a", &requests(200)).unwrap_err();
        assert_eq!((refused.actual, refused.retry_after), (201, Duration::from_millis(300)));
    }

    #[test]
    fn tenants_that_used_something_a_minute_ago_are_forgotten() {
        let (limiter, clock) = limiter();
        for minute in 0..100 {
            for tenant in 0..50 {
                let name = format!("{minute}/{tenant}");
                assert_eq!(limiter.take_request(&name, &requests(1)), Ok(()));
            }
            clock.advance(Duration::from_mins(1));
        }
        assert!(limiter.lock().by_tenant.len() <= LEAST_TENANTS_TO_SWEEP.max(2 * 50));
    }

    #[test]
    fn a_tenant_with_something_running_is_not_forgotten() {
        let (limiter, clock) = limiter();
        let _held = limiter.enter("a", &concurrency(1)).unwrap();
        clock.advance(Duration::from_hours(1));
        limiter.lock().sweep_at = 0;
        assert_eq!(limiter.take_request("b", &requests(1)), Ok(()));
        assert!(limiter.enter("a", &concurrency(1)).is_err());
    }

    #[test]
    fn many_threads_together_pass_exactly_the_quota() {
        let (limiter, _) = limiter();
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let calls =
                        || (0..100).filter(|_| limiter.take_request("a", &requests(150)).is_ok());
                    scope.spawn(move || calls().count())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 150);
    }
}
