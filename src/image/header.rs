//! The data in the header of an image.

use super::format::{Format, Orientation};
use super::size::Size;

/// The error for a file that is shorter than its header.
pub(super) const TRUNCATED: &str = "ends before its width and height";

/// The data in the header of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHeader {
    /// The format, decided by the first bytes.
    pub format: Format,
    /// The dimensions of the stored pixels. For a multi-page TIFF, those of the first page.
    pub stored: Size,
    /// The transformation that a viewer applies to the pixels.
    pub orientation: Orientation,
    /// The number of pages of a TIFF, counted up to 1,000; 1 for every other format.
    pub pages: u32,
}

impl ImageHeader {
    /// The header of a file with one page.
    pub const fn new(format: Format, stored: Size, orientation: Orientation) -> Self {
        Self { format, stored, orientation, pages: 1 }
    }

    /// The dimensions at which a viewer shows the image.
    pub const fn upright(&self) -> Size {
        if self.orientation.swaps_sides() { self.stored.turned() } else { self.stored }
    }
}
