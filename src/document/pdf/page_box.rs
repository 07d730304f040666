//! The visible box of a page: its size, and the transformation that shows it upright.

use hayro::hayro_interpret::TransformExt;
use hayro::hayro_syntax::page::{Page, Rotation};
use hayro::kurbo::{Affine, Rect};

use crate::document::error::DocumentError;

/// The shortest side that is read, in units of the page. hayro widens a narrower page, so that its picture would not
/// have the sides of the page.
const SHORTEST_SIDE: f64 = 1.0;

/// The longest side that is read, in units of the page. Coordinates are stored with 24 bits, so a larger page has no
/// exact positions. It is a thousand times the longest side that PDF 1.7 recommends.
const LONGEST_SIDE: f64 = 14_400_000.0;

/// The largest unit of a page that is read, as in Acrobat, in points.
const LARGEST_UNIT: f32 = 75_000.0;

/// The visible box of a page: the crop box within the media box, turned as the page says.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageBox {
    /// From left to right, in units of the page.
    pub(super) width: f64,
    /// From top to bottom, in units of the page.
    pub(super) height: f64,
    /// The unit of the page, in points.
    pub(super) unit: f64,
    /// Maps the page's coordinates to units from the top left corner of the upright page.
    pub(super) upright: Affine,
}

impl PageBox {
    /// The visible box of `page`.
    ///
    /// # Errors
    ///
    /// [`DocumentError::PdfUndecodable`] for a page without an area, and for one that is too large to have positions.
    pub(super) fn of(page: &Page<'_>) -> Result<Self, DocumentError> {
        let visible = page.intersected_crop_box();
        let (width, height) = (visible.width(), visible.height());
        let shown = |side: &f64| (SHORTEST_SIDE..=LONGEST_SIDE).contains(side);
        let corner = |at: &f64| at.abs() <= LONGEST_SIDE;
        if ![width, height].iter().all(shown) || ![visible.x0, visible.y0].iter().all(corner) {
            let what = format!(
                "has a page of {width} x {height} units; sides from {SHORTEST_SIDE} to {LONGEST_SIDE} are read"
            );
            return Err(DocumentError::PdfUndecodable { what });
        }
        let turned = matches!(page.rotation(), Rotation::Horizontal | Rotation::FlippedHorizontal);
        let (width, height) = if turned { (height, width) } else { (width, height) };
        let unit = page.raw().get::<f32>(b"UserUnit").unwrap_or(1.0);
        let unit = if unit > 0.0 && unit <= LARGEST_UNIT { unit } else { 1.0 };
        let upright = page.initial_transform(true).to_kurbo();
        Ok(Self { width, height, unit: unit.into(), upright })
    }

    /// The upright page, in units from its top left corner.
    pub(super) const fn area(&self) -> Rect {
        Rect::new(0.0, 0.0, self.width, self.height)
    }
}
