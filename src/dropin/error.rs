//! The errors of the drop-in paths.

use super::member::MemberFault;
use super::outline::OutlineError;
use crate::capacity::account::NoRoom;
use crate::metering::error::{ImageError, MeteringError};

/// The reason why a request was not sent, or has no reply.
#[derive(Debug, thiserror::Error)]
pub enum DropinError {
    /// The body is not JSON, or two readers could read it differently.
    #[error(transparent)]
    Outline(#[from] OutlineError),
    /// A member is invalid.
    #[error(transparent)]
    Member(#[from] MemberFault),
    /// One of the images cannot be sent.
    #[error("{pointer}: {cause}")]
    Image {
        /// The position of the image, as a JSON Pointer.
        pointer: String,
        /// The reason.
        #[source]
        cause: Box<ImageError>,
    },
    /// There is no memory to plan the request. Nothing was sent.
    #[error("there is no room to look at the request now: {0}")]
    NoRoom(NoRoom),
    /// The call was not made, or has no answer.
    #[error(transparent)]
    Metering(#[from] MeteringError),
}

impl DropinError {
    pub(super) fn image(pointer: &str, cause: ImageError) -> Self {
        Self::Image { pointer: pointer.to_owned(), cause: Box::new(cause) }
    }
}
