//! What an image is and what it costs, known without decoding it.
//!
//! DashScope bills an image by its size alone, so the price of a page is known before it is sent
//! and without decoding it: [`probe`](probe::probe) reads the sides from the header,
//! [`check`](limits::check) compares them with what the provider accepts, and
//! [`image_tokens`](resize::image_tokens) does the provider's own arithmetic. All of it is pure,
//! synchronous. Most files take microseconds; a JPEG is searched to its end for a second size, at about a
//! gigabyte a second.
//!
//! No pixel is ever looked at. A file without any picture data is refused; one whose pixels are damaged is
//! found out by the provider, which refuses it without billing.

pub mod as_stored;
pub mod data_url;
pub mod format;
pub mod limits;
pub mod probe;
pub mod resize;

mod bmp;
mod byte_order;
mod exif;
mod heic;
mod jpeg;
mod kind;
mod png;
mod polyglot;
mod second_size;
mod tagged;
mod tiff;
mod webp;

#[cfg(test)]
mod corpus;
#[cfg(test)]
pub(crate) mod samples;

use serde::Serialize;

use crate::units::Pixels;

/// Width and height, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
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

    /// Width and height exchanged.
    #[must_use]
    pub const fn turned(self) -> Self {
        Self { width: self.height, height: self.width }
    }
}

/// Writes `width x height` the way people do: `1654x2339`.
impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}
