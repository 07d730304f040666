//! The reasons why a request may not spend.

use std::time::Duration;

use crate::auth::credential::Lapse;
use crate::auth::error::AuthError;
use crate::ledger::budget::BudgetExceeded;
use crate::rate_limit::{LimitExceeded, TakeError};

/// The least time before a caller's deadline at which a call is still sent. With less, the call would be paid for and
/// its answer would come too late: the fastest pages take most of a second. The shortest timeout that a caller can set
/// is one second, of which the upload and the ledger may take a half.
pub const LEAST_TIME_FOR_AN_ATTEMPT: Duration = Duration::from_millis(500);

/// The reason why a request may not spend now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A limit of the tenant is used up for the moment.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// A budget of the tenant has no room for the request.
    #[error("{exceeded}")]
    Budget {
        /// The budget, and the amounts that block the request.
        exceeded: Box<BudgetExceeded>,
        /// The least time after which the same request can pass.
        retry_after: Duration,
    },
    /// The caller's key was revoked or expired, or its tenant was disabled, while the call waited.
    #[error("{}", AuthError::from(*.0))]
    Lapsed(Lapse),
    /// The caller's deadline is too near for an answer.
    #[error(
        "{} ms are left until the deadline; a call is sent where at least {} ms are",
        left.as_millis(), LEAST_TIME_FOR_AN_ATTEMPT.as_millis()
    )]
    TooLate {
        /// The time until the deadline.
        left: Duration,
    },
    /// The store of keys, limits and budgets does not answer.
    #[error("the store of keys, limits and budgets is not available")]
    StoreUnavailable,
}

impl Refusal {
    /// The label in metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Limit(exceeded) => exceeded.limit.as_str(),
            Self::Budget { .. } => "budget",
            Self::Lapsed(Lapse::TenantDisabled) => "forbidden",
            Self::Lapsed(Lapse::Revoked | Lapse::Expired) => "unauthorized",
            Self::TooLate { .. } => "deadline",
            Self::StoreUnavailable => "store_unavailable",
        }
    }
}

impl From<TakeError> for Refusal {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Exceeded(exceeded) => Self::Limit(exceeded),
            TakeError::Unavailable => Self::StoreUnavailable,
        }
    }
}
