//! What one page of a PDF file may take.

use crate::units::Pixels;

/// What one page may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The pixels of a picture on it, and of the page when it is drawn.
    pub pixels: Pixels,
    /// Bytes that it may take to decode the picture that the page consists of. A page of a larger one is drawn as any
    /// other.
    pub picture_bytes: u64,
    /// The operators that drawing it carries out.
    pub operators: u64,
}

impl Limits {
    /// Limits for the pixels, with the default for the rest.
    ///
    /// A million operators take hayro about a second of CPU time. Maps and plans have up to a few million.
    pub const fn of_pixels(pixels: Pixels) -> Self {
        Self { pixels, picture_bytes: u64::MAX, operators: 5_000_000 }
    }
}
