//! Why an image was not read.

use crate::extract::answer::AnswerError;
use crate::image::as_stored::FixedOrientation;
use crate::metering::error::{ImageError, MeteringError};

/// Why an image was not read.
#[derive(Debug, thiserror::Error)]
pub enum OcrError {
    /// The image cannot be sent.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image cannot be sent as its pixels are stored.
    #[error(transparent)]
    Orientation(#[from] FixedOrientation),
    /// The model has no built-in tasks.
    #[error("the model {model} has no built-in tasks")]
    NoTasks {
        /// The model that was asked for.
        model: String,
    },
    /// The call was not made, or brought nothing.
    #[error(transparent)]
    Metering(#[from] MeteringError),
    /// The model's fields could not be understood, twice.
    #[error("the model's answer could not be understood: {0}")]
    UnusableFields(AnswerError),
    /// The upstream gave text where lines were asked for.
    #[error("the model gave no lines")]
    NoLines,
    /// Fields are wanted, but there is no schema for them.
    #[error("there is no schema")]
    NoSchema,
}
