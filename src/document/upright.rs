//! From stored pictures to the upright pages that they are.

use super::page::Part;
use crate::image::Size;
use crate::image::format::Orientation;
use crate::image::region::Region;
use crate::legibility::{Legibility, TextHeight};
use crate::pixels::raster::Raster;

/// What was found in a stored picture of size `from`, in pixels of the upright page at size `to`.
pub(super) fn shown(
    found: Legibility,
    from: Size,
    orientation: Orientation,
    to: Size,
) -> Legibility {
    let upright = if orientation.swaps_sides() { from.turned() } else { from };
    let place = |content: Region| content.turned(orientation, from).scaled(upright, to);
    // The page has the shape of the picture.
    #[expect(clippy::cast_possible_truncation, reason = "a height of text has a few digits")]
    let scale = (f64::from(to.height) / f64::from(upright.height)) as f32;
    let scaled = |text: TextHeight| TextHeight { height: text.height * scale, ..text };
    Legibility { text: found.text.map(scaled), content: found.content.map(place) }
}

/// A part of a stored picture, upright.
pub(super) fn drawn(picture: Raster, part: Part, orientation: Orientation) -> Raster {
    let stored = picture.size();
    let upright = if orientation.swaps_sides() { stored.turned() } else { stored };
    let region = part.region.scaled(part.page, upright).turned(orientation.inverse(), upright);
    // It is turned when it is small.
    let size = if orientation.swaps_sides() { part.size.turned() } else { part.size };
    picture.part_resized(region, size).upright(orientation).without_empty_colour()
}

/// Whether a part of a page has no more pixels than the picture that the page consists of has there.
pub(super) fn is_smaller(part: Part, picture: &Raster) -> bool {
    let own = part.region.scaled(part.page, picture.size()).size();
    part.size.width <= own.width && part.size.height <= own.height
}
