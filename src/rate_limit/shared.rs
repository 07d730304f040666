//! Counts requests and tokens per minute in a Redis that all replicas share.
//!
//! One script (`bucket.lua`) performs each operation on a bucket in one round trip, with the clock of Redis. Neither a
//! race nor a difference between the replicas' clocks can therefore exceed the quota
//! (docs/adr/0006-rate-limits-in-redis.md). The arithmetic is that of [`gcra`](super::gcra), to the microsecond.
//!
//! The settings decide what happens if Redis does not answer. `closed`: requests that cannot be counted are rejected.
//! `local`: this process counts on its own, so each replica allows a whole quota. In both cases no request waits longer
//! than `redis.timeout_ms`, and during an outage the link ([`redis`](crate::redis)) answers immediately. Tenants
//! without limits do not depend on Redis.
//!
//! Each key contains its tenant in braces, which is the hash tag of a Redis cluster.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::bucket::{Action, BucketAnswer, BucketCall, probe};
use super::local::LocalRateLimiter;
use super::{Counted, LimitExceeded, LimitName, Quotas, RateLimiter, TakeError, Taken};
use crate::clock::Clock;
use crate::redis::link::Link;
use crate::redis::script::ScriptCall;
use crate::redis::settings::OnFailure;
use crate::units::Tokens;

/// The largest number of concurrent settlements. A further one is dropped, and its tokens become available again with
/// time.
const MOST_SETTLEMENTS: usize = 1024;

/// The clock for the refill of buckets.
#[derive(Debug, Clone)]
pub enum TimeSource {
    /// The clock of the Redis server, shared by all replicas.
    Server,
    /// The wall clock of this `Clock`; for tests.
    Clock(Arc<dyn Clock>),
}

/// A limiter whose counts are shared by all users of one Redis.
#[derive(Debug)]
pub struct RedisRateLimiter {
    link: Arc<Link>,
    time: TimeSource,
    /// The limiter to use if Redis does not answer; with `None` requests are rejected.
    fallback: Option<LocalRateLimiter>,
    settlements: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Permits may be dropped in a context without a current runtime.
    runtime: Handle,
}

impl RedisRateLimiter {
    /// Creates a limiter on `link`, which must be set up with [`Self::probe`]. `tasks` tracks pending settlements, so
    /// that the shutdown can wait for them.
    pub fn new(
        link: Arc<Link>,
        time: TimeSource,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            fallback: match link.on_failure() {
                OnFailure::Closed => None,
                OnFailure::Local => Some(LocalRateLimiter::new(clock)),
            },
            link,
            time,
            settlements: Arc::new(Semaphore::new(MOST_SETTLEMENTS)),
            tasks,
            runtime: Handle::current(),
        }
    }

    /// A call that checks whether the limiter can count over a connection.
    pub fn probe() -> ScriptCall<'static> {
        probe()
    }

    /// Takes from the shared bucket; `None` if Redis is unavailable.
    async fn take(
        &self,
        limit: LimitName,
        tenant: &str,
        quota: NonZeroU64,
        amount: u64,
    ) -> Option<Result<(), LimitExceeded>> {
        let key = key(tenant, limit);
        let call = BucketCall::new(&key, quota.get(), Action::Take, amount, self.now_micros());
        let answer = call.run(&self.link).await?;
        Some(verdict(&answer, limit, quota, amount))
    }

    /// Corrects a bound that was too high or too low, in a separate task.
    fn settle(&self, tenant: &str, quota: NonZeroU64, action: Action, amount: u64) {
        let Ok(place) = Arc::clone(&self.settlements).try_acquire_owned() else {
            tracing::debug!("a settlement was dropped: too many are on their way to Redis");
            return;
        };
        let (link, now) = (Arc::clone(&self.link), self.now_micros());
        let key = key(tenant, LimitName::Tokens);
        let settling = async move {
            BucketCall::new(&key, quota.get(), action, amount, now).run(&link).await;
            drop(place);
        };
        self.tasks.spawn_on(settling, &self.runtime);
    }

    fn now_micros(&self) -> Option<u64> {
        let TimeSource::Clock(clock) = &self.time else { return None };
        let since = clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Some(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl RateLimiter for RedisRateLimiter {
    fn take_request<'a>(
        &'a self,
        tenant: &'a str,
        quotas: &'a Quotas,
    ) -> BoxFuture<'a, Result<(), TakeError>> {
        Box::pin(async move {
            let Some(quota) = quotas.requests_per_minute else {
                return Ok(());
            };
            if let Some(taken) = self.take(LimitName::Requests, tenant, quota, 1).await {
                return Ok(taken?);
            }
            let fallback = self.fallback.as_ref().ok_or(TakeError::Unavailable)?;
            Ok(fallback.take_request_now(tenant, quotas)?)
        })
    }

    fn take_tokens<'a>(
        &'a self,
        tenant: &'a str,
        quotas: &'a Quotas,
        bound: Tokens,
    ) -> BoxFuture<'a, Result<Taken, TakeError>> {
        Box::pin(async move {
            let taken = Taken { bound, counted: Counted::InStore };
            let Some(quota) = quotas.tokens_per_minute else {
                return Ok(taken);
            };
            if let Some(passed) = self.take(LimitName::Tokens, tenant, quota, bound.get()).await {
                return Ok(passed.map(|()| taken)?);
            }
            let fallback = self.fallback.as_ref().ok_or(TakeError::Unavailable)?;
            Ok(fallback.take_tokens_now(tenant, quotas, bound)?)
        })
    }

    fn settle_tokens(&self, tenant: &str, quotas: &Quotas, taken: Taken, billed: Tokens) {
        let Some(quota) = quotas.tokens_per_minute else {
            return;
        };
        if taken.counted == Counted::Here {
            if let Some(fallback) = &self.fallback {
                fallback.settle_tokens(tenant, quotas, taken, billed);
            }
            return;
        }
        let (rest, excess) =
            (taken.bound.saturating_sub(billed), billed.saturating_sub(taken.bound));
        if rest > Tokens::ZERO {
            self.settle(tenant, quota, Action::GiveBack, rest.get());
        } else if excess > Tokens::ZERO {
            self.settle(tenant, quota, Action::Charge, excess.get());
        }
    }
}

/// The key of a tenant's bucket. The braces put both buckets of a tenant into one cluster slot.
fn key(tenant: &str, limit: LimitName) -> String {
    format!("ocr-gateway:{{{tenant}}}:{limit}")
}

fn verdict(
    answer: &BucketAnswer,
    limit: LimitName,
    quota: NonZeroU64,
    amount: u64,
) -> Result<(), LimitExceeded> {
    if answer.passed {
        return Ok(());
    }
    Err(LimitExceeded {
        limit,
        actual: answer.in_use().saturating_add(amount),
        allowed: quota.get(),
        retry_after: Duration::from_micros(answer.wait_micros),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_buckets_of_a_tenant_are_named_after_it() {
        assert_eq!(key("acme", LimitName::Requests), "ocr-gateway:{acme}:rpm");
        assert_eq!(key("acme", LimitName::Tokens), "ocr-gateway:{acme}:tpm");
    }
}
