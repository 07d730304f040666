//! Why a picture cannot be decoded.

use crate::image::Size;
use crate::image::format::Format;

/// Why a picture cannot be decoded. The message is the predicate of a sentence about the picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PixelsError {
    /// The file is valid, but uses a part of its format that is not decoded here.
    #[error("is {what}, which is not decoded here")]
    Unsupported {
        /// What it uses, with an article: `a JPEG with arithmetic coding`.
        what: &'static str,
    },
    /// The file violates its format.
    #[error("is a damaged {format} file ({reason})")]
    Damaged {
        /// The format.
        format: Format,
        /// What the decoder found.
        reason: String,
    },
    /// The decoder found another size than the header that was probed, so a price for that header would be wrong.
    #[error("has {header} pixels by its header and {decoded} by its data")]
    SizeDiffers {
        /// The size by the header.
        header: Size,
        /// The size by the decoder.
        decoded: Size,
    },
    /// The file has no page with this number.
    #[error("has no page {page}; it has {pages}")]
    PageMissing {
        /// The number, from 1.
        page: u32,
        /// The number of pages.
        pages: u32,
    },
}

/// Refuses a picture that the decoder finds to have another size than its header.
pub(super) fn check_size(header: Size, decoded: Size) -> Result<(), PixelsError> {
    if decoded == header { Ok(()) } else { Err(PixelsError::SizeDiffers { header, decoded }) }
}

impl PixelsError {
    pub(super) fn damaged(format: Format, reason: impl std::fmt::Display) -> Self {
        Self::Damaged { format, reason: reason.to_string() }
    }
}
