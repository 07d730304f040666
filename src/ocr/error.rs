//! The errors of reading an image.

use crate::dashscope::error::CallFault;
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

impl OcrError {
    /// Whether each equal request fails in this way, whenever it comes: because of its file or of its options.
    pub(super) fn is_about_the_file(&self) -> bool {
        match self {
            Self::Image(_) | Self::Orientation(_) | Self::NoTasks { .. } => true,
            Self::Document(error) => {
                !matches!(error, DocumentError::Busy | DocumentError::Interrupted)
            }
            Self::Metering(MeteringError::Upstream(error)) => {
                matches!(error.fault, CallFault::ContentRejected | CallFault::ImageRejected(_))
            }
            // Another answer of the model may have usable fields, or lines.
            Self::UnusableFields(_)
            | Self::NoLines
            | Self::Metering(_)
            | Self::NotWritten
            | Self::NoSchema => false,
        }
    }
}
