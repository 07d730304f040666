//! Requests a minute, tokens a minute and requests at once, for each tenant.
//!
//! The limits protect the tenants from each other and the upstream's quota from one tenant's loop;
//! they are not a budget, which would have to survive a crash. So what is counted may be lost: it
//! lives in memory, of this process ([`local`]) or of a Redis that all replicas share ([`shared`]).
//! Requests at once are counted in the process in either case ([`concurrency`] says why).
//!
//! A minute's whole quota may come at once. Callers of OCR services read sixty a minute as "I may
//! send my sixty pages"; a limiter that spaced them a second apart would refuse the second page of
//! every document and teach clients to ignore 429. The price is that a tenant that rested can pass
//! nearly twice its quota within some minute: what it saved up, and what comes back meanwhile. The
//! upstream does not see that burst, since calls to it are paced.
//!
//! The quotas are arguments and only what is used is kept, as a share of the minute; so a changed
//! quota holds from the next call on, and a used-up minute refills at the new pace.

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

/// Counts the use of each tenant in a minute. Implemented in the process and in Redis.
pub trait RateLimiter: fmt::Debug + Send + Sync {
    /// Counts one request against the tenant's requests a minute.
    ///
    /// # Errors
    ///
    /// [`TakeError::Exceeded`] where the minute's requests are used up,
    /// [`TakeError::Unavailable`] where that cannot be known.
    fn take_request<'a>(
        &'a self,
        tenant: &'a str,
        quotas: &'a Quotas,
    ) -> BoxFuture<'a, Result<(), TakeError>>;

    /// Takes the most that a request can be billed from the tenant's tokens a minute.
    ///
    /// A bound larger than the whole quota passes when nothing is in use, and is paid for by the
    /// minutes after it: a document of many pages must not be refused for ever.
    ///
    /// # Errors
    ///
    /// [`TakeError::Exceeded`] where the minute's tokens do not cover the bound,
    /// [`TakeError::Unavailable`] where that cannot be known.
    fn take_tokens<'a>(
        &'a self,
        tenant: &'a str,
        quotas: &'a Quotas,
        bound: Tokens,
    ) -> BoxFuture<'a, Result<Taken, TakeError>>;

    /// Replaces a bound that was taken by the bill: gives the rest back, or charges what was
    /// billed above it, which cannot be refused any more.
    ///
    /// Returns at once, because it is called where something is dropped; a shared limiter acts on it
    /// a little later. Tokens whose settlement gets lost come back with time.
    fn settle_tokens(&self, tenant: &str, quotas: &Quotas, taken: Taken, billed: Tokens);
}

/// Tokens that were taken and are to be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "tokens that are not settled count as used in full"]
pub struct Taken {
    bound: Tokens,
    counted: Counted,
}

/// The place of a count: tokens must not be given back where they were never taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// In this process.
    Here,
    /// In the store that the replicas share.
    InStore,
}

/// The quotas of one tenant; `None` is no limit.
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

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that a quota has no room for; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit {limit} is {allowed}, and this request would make it {actual}")]
pub struct LimitExceeded {
    /// The quota.
    pub limit: LimitName,
    /// The use with this request.
    pub actual: u64,
    /// The quota.
    pub allowed: u64,
    /// The least time after which the same request can pass. For requests and tokens it passes then
    /// unless the tenant takes more meanwhile.
    pub retry_after: Duration,
}

/// Why a request may not be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// A quota has no room for it.
    #[error(transparent)]
    Exceeded(#[from] LimitExceeded),
    /// The store of the counts does not answer, and no request may pass uncounted.
    #[error("the store of rate limits is not available")]
    Unavailable,
}
