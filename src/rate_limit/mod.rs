//! Limits requests per minute, tokens per minute and concurrent requests for each tenant.
//!
//! The limits protect tenants from each other, and the upstream's quota from a loop in one tenant's client. They are
//! not a budget, which must survive a crash, so their counts may be lost. The counts are in the memory of this process
//! ([`local`]) or in a Redis that all replicas share ([`shared`]). Concurrent requests are always counted in the
//! process ([`concurrency`] gives the reasons).
//!
//! The quota of a whole minute may be used at once. Callers of OCR services expect that sixty requests a minute allow
//! sixty pages at once. A limiter with a spacing of one second would reject the second page of every document, and
//! clients would learn to ignore 429. The cost is that an idle tenant can use nearly twice its quota within one minute:
//! the saved quota, and the part that refills meanwhile. Calls to the upstream have a separate rate control, so this
//! burst does not reach the upstream.
//!
//! Quotas are arguments, and only the used part is stored, as a share of the minute. A changed quota therefore applies
//! from the next call, and a used-up minute refills at the new rate.

pub mod concurrency;
pub mod gcra;
pub mod local;
pub mod shared;

mod bucket;

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::units::Tokens;

/// Counts the use of each tenant per minute. There are implementations in the process and in Redis.
pub trait RateLimiter: fmt::Debug + Send + Sync {
    /// Counts one request against the tenant's requests per minute.
    ///
    /// # Errors
    ///
    /// [`TakeError::Exceeded`] if the minute's requests are used up, [`TakeError::Unavailable`] if this cannot be
    /// determined.
    fn take_request<'a>(
        &'a self,
        tenant: &'a str,
        quotas: &'a Quotas,
    ) -> BoxFuture<'a, Result<(), TakeError>>;

    /// Takes the upper bound of a request's bill from the tenant's tokens per minute.
    ///
    /// A bound above the whole quota passes when nothing is in use, and later minutes make up for it. Otherwise a
    /// document of many pages would be rejected forever.
    ///
    /// # Errors
    ///
    /// [`TakeError::Exceeded`] if the minute's tokens do not cover the bound, [`TakeError::Unavailable`] if this cannot
    /// be determined.
    fn take_tokens<'a>(
        &'a self,
        tenant: &'a str,
        quotas: &'a Quotas,
        bound: Tokens,
    ) -> BoxFuture<'a, Result<Taken, TakeError>>;

    /// Replaces a taken bound with the billed amount. Gives back the difference, or charges an amount above the bound
    /// unconditionally.
    ///
    /// Returns immediately, because it is called when a value is dropped; a shared limiter applies it a little later.
    /// If a settlement is lost, its tokens become available again with time.
    fn settle_tokens(&self, tenant: &str, quotas: &Quotas, taken: Taken, billed: Tokens);
}

/// Tokens that were taken and must be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "tokens that are not settled count as used in full"]
pub struct Taken {
    bound: Tokens,
    counted: Counted,
}

/// Where tokens were counted. They must be given back in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// In this process.
    Here,
    /// In the store that the replicas share.
    InStore,
}

/// The quotas of one tenant; `None` means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Requests per minute, all of which may come at once.
    pub requests_per_minute: Option<NonZeroU64>,
    /// Input and output tokens per minute, all of which may be taken at once.
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Concurrent requests.
    pub concurrency: Option<NonZeroU64>,
}

/// Which quota was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitName {
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
    /// Concurrent requests.
    Concurrency,
}

impl LimitName {
    /// The name of the tenant setting. Problem documents and metrics also use it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "rpm",
            Self::Tokens => "tpm",
            Self::Concurrency => "concurrency",
        }
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that exceeds a quota. Nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit {limit} is {allowed}, and this request would make it {actual}")]
pub struct LimitExceeded {
    /// The exceeded quota.
    pub limit: LimitName,
    /// The use including this request.
    pub actual: u64,
    /// The value of the quota.
    pub allowed: u64,
    /// The shortest time after which the same request can pass. For requests and tokens it does pass then, unless the
    /// tenant takes more in the meantime.
    pub retry_after: Duration,
}

/// Why a request is rejected now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// The request exceeds a quota.
    #[error(transparent)]
    Exceeded(#[from] LimitExceeded),
    /// The store of the counts is unavailable, and requests must not pass uncounted.
    #[error("the store of rate limits is not available")]
    Unavailable,
}
