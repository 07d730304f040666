//! The size at which a model reads an image, and its image tokens, from the vendor's published formula alone.
//!
//! Image tokens follow the Python sample on the page "Text extraction (Qwen-OCR)" step by step: sides are rounded to
//! whole cells (half to even, as Python rounds), an image over `max_pixels` shrinks, one under `min_pixels` grows, and
//! each image costs two markers on top of its cells. One guard is added: a shrinking side keeps at least one cell, as
//! the open-source Qwen preprocessing does. The enlarging branch follows the documentation unchanged.

/// Vision markers around each image.
const MARKERS: u64 = 2;

/// The pixel limits in a request; `None` means the model's own limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PixelLimits {
    /// The area below which an image is enlarged.
    pub min_pixels: Option<i64>,
    /// The area above which an image is reduced.
    pub max_pixels: Option<i64>,
}

/// A model's measurement of an image: cells are squares with sides of `cell` pixels, areas are in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) cell: u32,
    pub(crate) min_pixels: u32,
    pub(crate) max_pixels: u32,
}

/// The size at which an image is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scaled {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Image tokens, markers included.
    pub(crate) tokens: u64,
}

impl Geometry {
    /// The size at which an image of these raw sides is read.
    pub(crate) fn scale(self, width: u32, height: u32) -> Scaled {
        let (cell, wide, high) = (f64::from(self.cell), f64::from(width), f64::from(height));
        let area_of = |(columns, rows): (u64, u64)| columns * rows * u64::from(self.cell).pow(2);

        let mut cells =
            (whole((wide / cell).round_ties_even()), whole((high / cell).round_ties_even()));
        let area = area_of(cells);
        if area > u64::from(self.max_pixels) {
            let shrink = (wide * high / f64::from(self.max_pixels)).sqrt();
            let side = |raw: f64| whole((raw / shrink / cell).floor()).max(1);
            cells = (side(wide), side(high));
        } else if area < u64::from(self.min_pixels) {
            let grow = (f64::from(self.min_pixels) / (wide * high)).sqrt();
            let side = |raw: f64| whole((raw * grow / cell).ceil());
            cells = (side(wide), side(high));
        }

        let pixels = |count: u64| u32::try_from(count * u64::from(self.cell)).unwrap_or(u32::MAX);
        Scaled {
            width: pixels(cells.0),
            height: pixels(cells.1),
            tokens: cells.0 * cells.1 + MARKERS,
        }
    }
}

/// A rounded, non-negative number of cells as an integer.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is rounded, not negative and far below 2^53"
)]
fn whole(cells: f64) -> u64 {
    cells as u64
}
