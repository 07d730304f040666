//! The errors of a metered call.

use crate::admission::Refusal;
use crate::dashscope::error::CallError;
use crate::image::probe::ProbeError;
use crate::quote::QuoteError;
use crate::quote::limits::LimitViolation;

/// The reason why a call was not made, or why it failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MeteringError {
    /// The model is not in the catalog.
    #[error("there is no model {model:?}")]
    UnknownModel {
        /// The model that was asked for.
        model: String,
        /// The models in the tenant's regions.
        known: Vec<String>,
    },
    /// The tenant may not use the model.
    #[error("this key may not use {model}")]
    ModelNotAllowed {
        /// The model that was asked for.
        model: String,
        /// The models that the tenant may use.
        allowed: Vec<String>,
    },
    /// The model is in none of the tenant's regions.
    #[error("the model {model} is not available in this key's regions ({allowed})", allowed = allowed.join(", "))]
    RegionNotAllowed {
        /// The model that was asked for.
        model: String,
        /// The tenant's regions.
        allowed: Vec<String>,
        /// The model's regions.
        available: Vec<String>,
    },
    /// The call was not admitted: a limit of the tenant is used up, the ledger cannot be read, the caller has left, or
    /// its key is no longer valid.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The call was admitted and failed, before it was sent or at the upstream.
    #[error(transparent)]
    Upstream(Box<CallError>),
    /// An internal error interrupted the work.
    #[error("the work was interrupted")]
    Interrupted,
}

/// The reason why an image cannot be sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// The bytes are not an image that DashScope takes.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The image breaks one of DashScope's limits.
    #[error(transparent)]
    Limit(#[from] LimitViolation),
    /// The image cannot be quoted.
    #[error(transparent)]
    Quote(#[from] QuoteError),
}

impl From<CallError> for MeteringError {
    fn from(error: CallError) -> Self {
        Self::Upstream(Box::new(error))
    }
}
