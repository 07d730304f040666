//! Why a request was not passed on.

use super::member::MemberFault;
use super::outline::OutlineError;
use crate::capacity::account::NoRoom;
use crate::metering::error::{ImageError, MeteringError};

/// Why a request was not passed on, or brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum DropinError {
    /// The body is no JSON, or none that two readers would read alike.
    #[error(transparent)]
    Outline(#[from] OutlineError),
    /// A member is wrong.
    #[error(transparent)]
    Member(#[from] MemberFault),
    /// One of the images cannot be sent.
    #[error("{pointer}: {cause}")]
    Image {
        /// The image, as a JSON Pointer.
        pointer: String,
        /// Why.
        #[source]
        cause: Box<ImageError>,
    },
    /// There is no memory to look at it with. Nothing was sent.
    #[error("there is no room to look at the request now: {0}")]
    NoRoom(NoRoom),
    /// The call was not made, or brought nothing.
    #[error(transparent)]
    Metering(#[from] MeteringError),
}

impl DropinError {
    pub(super) fn image(pointer: &str, cause: ImageError) -> Self {
        Self::Image { pointer: pointer.to_owned(), cause: Box::new(cause) }
    }
}
