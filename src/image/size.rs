//! The dimensions of an image.

use serde::{Deserialize, Serialize};

use crate::units::Pixels;

/// Width and height, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// From left to right.
    pub width: u32,
    /// From top to bottom.
    pub height: u32,
}

impl Size {
    /// A size of `width` times `height` pixels.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// The area.
    pub const fn pixels(self) -> Pixels {
        // The product of two 32-bit numbers always fits.
        Pixels::new(self.width as u64 * self.height as u64)
    }

    /// The larger of the two sides.
    pub fn longer_side(self) -> u32 {
        self.width.max(self.height)
    }

    /// The smaller of the two sides.
    pub fn shorter_side(self) -> u32 {
        self.width.min(self.height)
    }

    /// The size with width and height swapped.
    #[must_use]
    pub const fn turned(self) -> Self {
        Self { width: self.height, height: self.width }
    }
}

/// Writes the size as `1654x2339`.
impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}
