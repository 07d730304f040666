//! Why an image was not read.

use crate::admission::Refusal;
use crate::dashscope::error::CallError;
use crate::extract::answer::AnswerError;
use crate::image::as_stored::FixedOrientation;
use crate::image::probe::ProbeError;
use crate::quote::QuoteError;
use crate::quote::limits::LimitViolation;

/// Why an image was not read.
#[derive(Debug, thiserror::Error)]
pub enum OcrError {
    /// The bytes are not an image that DashScope takes.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The image breaks one of DashScope's limits.
    #[error(transparent)]
    Limit(#[from] LimitViolation),
    /// The image cannot be sent as its pixels are stored.
    #[error(transparent)]
    Orientation(#[from] FixedOrientation),
    /// The request cannot be quoted.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// The model is not in the catalog.
    #[error("there is no model {model:?}")]
    UnknownModel {
        /// What was asked for.
        model: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The tenant may not use the model.
    #[error("this key may not use {model}")]
    ModelNotAllowed {
        /// What was asked for.
        model: String,
        /// What the tenant may use.
        allowed: Vec<String>,
    },
    /// The tenant may be served by the model nowhere where it is.
    #[error("the model {model} is not available in this key's regions ({allowed})", allowed = allowed.join(", "))]
    RegionNotAllowed {
        /// What was asked for.
        model: String,
        /// The regions in which the tenant may be served.
        allowed: Vec<String>,
        /// The regions in which the model is.
        available: Vec<String>,
    },
    /// The model has no built-in tasks.
    #[error("the model {model} has no built-in tasks")]
    NoTasks {
        /// What was asked for.
        model: String,
    },
    /// A limit of the tenant is used up.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The upstream did not answer, or not usably.
    #[error(transparent)]
    Upstream(Box<CallError>),
    /// The model's fields could not be understood, twice.
    #[error("the model's answer could not be understood: {0}")]
    UnusableFields(AnswerError),
    /// The upstream gave text where lines were asked for.
    #[error("the model gave no lines")]
    NoLines,
    /// Fields are wanted, but it was not said which.
    #[error("there is no schema")]
    NoSchema,
    /// The work was interrupted by a fault of our own.
    #[error("the work was interrupted")]
    Interrupted,
}

impl From<CallError> for OcrError {
    fn from(error: CallError) -> Self {
        Self::Upstream(Box::new(error))
    }
}
