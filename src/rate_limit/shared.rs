//! Requests and tokens a minute, counted in a Redis that all replicas share.
//!
//! One script does everything to one bucket in one round trip (`redis/bucket.lua`), with Redis's own
//! clock, so that neither a race nor a difference between the replicas' clocks can pass more than the
//! quota (docs/adr/0006-rate-limits-in-redis.md). It is the arithmetic of [`gcra`](super::gcra), to the
//! microsecond.
//!
//! Where Redis does not answer, the settings say what happens. `closed`: what cannot be counted is
//! refused. `local`: this process counts by itself, so that each replica allows a whole quota.
//! Either way nobody waits longer than `redis.timeout_ms`, and `redis/link.rs` sees to it that only
//! the first pay even that. A tenant without limits never depends on Redis at all.
//!
//! Needs Redis 5, Valkey, or what speaks their protocol and runs Lua; one primary, not a cluster, though
//! each key names its tenant in braces as a cluster would want it.

mod bucket;
mod cells;
mod link;

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use prometheus::IntGauge;
use redis::{Client, ConnectionAddr};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::bucket::{Action, Answer, Call};
use self::cells::RedisCells;
use self::link::Link;
use super::local::LocalRateLimiter;
use super::shared::SharedCells;
use super::{Counted, LimitExceeded, LimitName, Quotas, RateLimiter, TakeError, Taken};
use crate::clock::Clock;
use crate::host::is_loopback;
use crate::supervisor::Supervisor;
use crate::units::Tokens;

/// The longest answer time that can be asked for, in milliseconds: every request waits for Redis.
const LONGEST_TIMEOUT_MS: u64 = 10_000;

/// Settlements on their way to Redis at once. One more is dropped, and its tokens come back with time.
const MOST_SETTLEMENTS: usize = 1024;

/// The section `[redis]`. Each key's meaning and default stand in `config/default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://`, `rediss://` or `redis+unix://`; empty: no Redis. May hold a password.
    pub url: SecretString,
    /// A file with the address, in place of `url`. Whoever reads the settings has put it there.
    pub url_file: Option<PathBuf>,
    /// Longest wait for an answer.
    pub timeout_ms: u64,
    /// What happens to requests while Redis does not answer.
    pub on_failure: OnFailure,
}

/// What happens to requests under a rate limit while Redis does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum OnFailure {
    /// They are refused.
    Closed,
    /// This process counts them by itself: each replica allows a whole quota.
    Local,
}

impl TryFrom<String> for OnFailure {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "closed" => Ok(Self::Closed),
            "local" => Ok(Self::Local),
            _ => Err(format!("{name:?} is neither \"closed\" nor \"local\"")),
        }
    }
}

/// Whose clock says how much has come back.
#[derive(Debug, Clone)]
pub enum TimeSource {
    /// That of the Redis server, which is one for all replicas.
    Server,
    /// The wall time of this one; for tests.
    Clock(Arc<dyn Clock>),
}

/// A Redis that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RedisLimitsError {
    /// The address cannot be understood.
    #[error("redis.url: {0}; give redis://HOST:PORT, rediss://HOST:PORT or redis+unix:///SOCKET")]
    Url(String),
    /// The bound of an answer makes no sense.
    #[error("redis.timeout_ms: {0} is not between 1 and {LONGEST_TIMEOUT_MS}")]
    Timeout(u64),
    /// Nothing usable answers there.
    #[error(
        "redis.url: the Redis at {address} cannot be used: {cause}; start or mend it, or leave \
         redis.url empty to count rate limits in each process"
    )]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What happened, in its own words.
        cause: String,
        /// Whether it may pass by itself: nobody answers, or Redis takes no commands now. A refused password
        /// does not.
        is_outage: bool,
    },
}

impl RedisLimitsError {
    /// Whether it may pass by itself.
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { is_outage: true, .. })
    }
}

impl RedisSettings {
    /// Whether a Redis shall be used at all.
    pub fn is_configured(&self) -> bool {
        !self.url.expose_secret().is_empty()
    }

    /// Refuses values that cannot work, without connecting.
    ///
    /// # Errors
    ///
    /// [`RedisLimitsError`] names the key.
    pub fn validate(&self) -> Result<(), RedisLimitsError> {
        if !(1..=LONGEST_TIMEOUT_MS).contains(&self.timeout_ms) {
            return Err(RedisLimitsError::Timeout(self.timeout_ms));
        }
        if self.is_configured() {
            self.client()?;
        }
        Ok(())
    }

    /// What to tell of a password that goes to another machine unencrypted.
    pub fn warning(&self) -> Option<String> {
        let client = self.is_configured().then(|| self.client().ok())??;
        let information = client.get_connection_info();
        let ConnectionAddr::Tcp(host, _) = information.addr() else { return None };
        let is_open = information.redis_settings().password().is_some() && !is_loopback(host);
        is_open.then(|| {
            format!("redis.url: the password goes to {host} unencrypted; write rediss:// for TLS")
        })
    }

    const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The library's messages of an address do not repeat it, so no password can be in them.
    fn client(&self) -> Result<Client, RedisLimitsError> {
        Client::open(self.url.expose_secret())
            .map_err(|error| RedisLimitsError::Url(error.to_string()))
    }
}

/// Connects once and tells where; for `ocr-gateway check`.
///
/// # Errors
///
/// [`RedisLimitsError`] says what to mend.
pub async fn check(settings: &RedisSettings) -> Result<String, RedisLimitsError> {
    let unseen = IntGauge::new("unseen", "Not registered.");
    let unseen = unseen.map_err(|error| RedisLimitsError::Url(error.to_string()))?;
    let link = Link::new(settings.client()?, settings.timeout(), settings.on_failure, unseen);
    link.open().await?;
    Ok(link.address())
}

/// A limiter whose counts are shared by all that use the same Redis.
#[derive(Debug)]
pub struct RedisRateLimiter {
    link: Arc<Link>,
    time: TimeSource,
    /// Counts where Redis does not answer; `None` refuses then.
    fallback: Option<LocalRateLimiter>,
    /// Why it began without Redis.
    away: Option<RedisLimitsError>,
    settlements: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Permits are dropped anywhere, also where there is no current runtime.
    runtime: Handle,
    _keeper: AbortOnDropHandle<()>,
}

impl RedisRateLimiter {
    /// Connects. `up` is told whether Redis answers; `tasks` tracks the settlements under way, for
    /// which a stop shall wait; `supervisor` watches the task that opens the connection again.
    ///
    /// A Redis that is away does no harm where `redis.on_failure` is `local`: this process counts by itself
    /// until it is there. [`Self::tell_if_away`] logs that.
    ///
    /// # Errors
    ///
    /// [`RedisLimitsError`] where there is no usable Redis: a service whose limits cannot be counted
    /// should not start.
    pub async fn connect(
        settings: &RedisSettings,
        time: TimeSource,
        clock: Arc<dyn Clock>,
        up: IntGauge,
        tasks: TaskTracker,
        supervisor: &Supervisor,
    ) -> Result<Self, RedisLimitsError> {
        let client = settings.client()?;
        let link = Arc::new(Link::new(client, settings.timeout(), settings.on_failure, up));
        let away = match (link.open().await, settings.on_failure) {
            (Err(error), OnFailure::Local) if error.is_outage() => Some(error),
            (opened, _) => {
                opened?;
                None
            }
        };
        // A stop need not wait for this one: it ends with the limiter.
        let keeper = supervisor.spawn("connection to Redis", Arc::clone(&link).keep());
        Ok(Self {
            link,
            time,
            fallback: match settings.on_failure {
                OnFailure::Closed => None,
                OnFailure::Local => Some(LocalRateLimiter::new(clock)),
            },
            away,
            settlements: Arc::new(Semaphore::new(MOST_SETTLEMENTS)),
            tasks,
            runtime: Handle::current(),
            _keeper: AbortOnDropHandle::new(keeper),
        })
    }

    /// Logs that Redis was away from the start, unless it has come back. It is apart from [`Self::connect`], because
    /// a start that waits for something else connects again and again.
    pub fn tell_if_away(&self) {
        if let Some(error) = &self.away {
            self.link.tell_if_away(error);
        }
    }

    /// Other small values that the replicas share.
    pub fn cells(&self) -> Arc<dyn SharedCells> {
        Arc::new(RedisCells { link: Arc::clone(&self.link) })
    }

    /// Takes from the shared bucket; `None` where Redis is away.
    async fn take(
        &self,
        limit: LimitName,
        tenant: &str,
        quota: NonZeroU64,
        amount: u64,
    ) -> Option<Result<(), LimitExceeded>> {
        let key = key(tenant, limit);
        let call = Call::new(&key, quota.get(), Action::Take, amount, self.now_micros());
        let answer = self.link.ask(&call).await?;
        Some(verdict(&answer, limit, quota, amount))
    }

    /// Puts right, on a task of its own, what a bound took too much or too little.
    fn settle(&self, tenant: &str, quota: NonZeroU64, action: Action, amount: u64) {
        let Ok(place) = Arc::clone(&self.settlements).try_acquire_owned() else {
            tracing::debug!("a settlement was dropped: too many are on their way to Redis");
            return;
        };
        let (link, now) = (Arc::clone(&self.link), self.now_micros());
        let key = key(tenant, LimitName::Tokens);
        let settling = async move {
            link.ask(&Call::new(&key, quota.get(), action, amount, now)).await;
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

/// The name of a tenant's bucket. The braces keep both of a tenant's in one slot of a cluster.
fn key(tenant: &str, limit: LimitName) -> String {
    format!("ocr-gateway:{{{tenant}}}:{limit}")
}

fn verdict(
    answer: &Answer,
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

    fn settings(url: &str) -> RedisSettings {
        let url = url.into();
        RedisSettings { url, url_file: None, timeout_ms: 100, on_failure: OnFailure::Closed }
    }

    #[test]
    fn an_address_of_another_kind_is_refused_by_the_setting_s_name() {
        for url in ["localhost:6379", "http://localhost", "redis://:password@", "redis://h/x"] {
            let error = settings(url).validate().unwrap_err().to_string();
            assert!(error.starts_with("redis.url: "), "{error}");
            assert!(!error.contains("password"), "{error}");
        }
    }

    #[test]
    fn a_password_that_goes_to_another_machine_unencrypted_draws_a_warning_without_it() {
        for (url, is_warned) in [
            ("redis://:secret@redis", true),
            ("redis://user:secret@10.0.0.1:6379/2", true),
            ("rediss://user:secret@redis", false),
            ("redis://redis", false),
            ("redis://:secret@127.0.0.1", false),
            ("redis://:secret@[::1]:6379", false),
            ("redis+unix:///run/redis.sock?pass=secret", false),
            ("", false),
        ] {
            let warning = settings(url).warning();
            assert_eq!(warning.is_some(), is_warned, "{url}");
            assert!(!warning.unwrap_or_default().contains("secret"));
        }
    }

    #[test]
    fn addresses_with_and_without_tls_and_of_a_socket_are_taken() {
        for url in ["", "redis://h", "rediss://u:p@h:6380/2", "redis+unix:///run/redis.sock?db=1"] {
            assert!(settings(url).validate().is_ok(), "{url}");
        }
    }

    #[test]
    fn a_bound_that_is_none_is_refused() {
        for timeout_ms in [0, 10_001] {
            let error = RedisSettings { timeout_ms, ..settings("") }.validate().unwrap_err();
            assert!(error.to_string().starts_with("redis.timeout_ms: "), "{error}");
        }
    }

    #[test]
    fn both_buckets_of_a_tenant_are_named_after_it() {
        assert_eq!(key("acme", LimitName::Requests), "ocr-gateway:{acme}:rpm");
        assert_eq!(key("acme", LimitName::Tokens), "ocr-gateway:{acme}:tpm");
    }
}
