//! What the header of an image says.

use super::format::{Format, Orientation};
use super::size::Size;

/// Why a header cannot be read: the file is shorter than its header.
pub(super) const TRUNCATED: &str = "ends before its width and height";

/// What an image's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHeader {
    /// The format, decided by the first bytes.
    pub format: Format,
    /// The sides of the stored pixels. Of a multi-page TIFF, those of the first page.
    pub stored: Size,
    /// What a viewer does to them.
    pub orientation: Orientation,
    /// How many pages a TIFF has, counted up to 1,000; one for every other format.
    pub pages: u32,
}

impl ImageHeader {
    /// The header of a file of one page.
    pub const fn new(format: Format, stored: Size, orientation: Orientation) -> Self {
        Self { format, stored, orientation, pages: 1 }
    }

    /// The sides as a viewer shows the image.
    pub const fn upright(&self) -> Size {
        if self.orientation.swaps_sides() { self.stored.turned() } else { self.stored }
    }
}
