//! The errors of reading an image.

use crate::document::error::DocumentError;
use crate::extract::answer::AnswerError;
use crate::image::as_stored::FixedOrientation;
use crate::metering::error::{ImageError, MeteringError};

/// The reason why an image was not read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OcrError {
    /// The image cannot be sent.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The document, or a page of it, cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The caller asked for the image as its pixels are stored, and it cannot be sent that way.
    #[error(transparent)]
    Orientation(#[from] FixedOrientation),
    /// The model has no built-in tasks.
    #[error("the model {model} has no built-in tasks")]
    NoTasks {
        /// The requested model.
        model: String,
    },
    /// The call was not made, or has no answer.
    #[error(transparent)]
    Metering(#[from] MeteringError),
    /// The model wrote fields that cannot be parsed, twice.
    #[error("the model's answer could not be understood: {0}")]
    UnusableFields(AnswerError),
    /// The upstream returned text instead of the requested lines.
    #[error("the model gave no lines")]
    NoLines,
    /// The pages were read, but there was no time or no worker to write the searchable PDF.
    #[error("the pages were read, but no worker was free in time to write the searchable PDF")]
    NotWritten,
    /// Fields were requested without a schema.
    #[error("there is no schema")]
    NoSchema,
}
