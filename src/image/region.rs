//! A part of a picture.

use serde::{Deserialize, Serialize};

use super::format::Orientation;
use super::size::Size;

/// A rectangle of pixels, in pixels from the top left corner of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Region {
    /// The first column.
    pub left: u32,
    /// The first row.
    pub top: u32,
    /// The column after the last.
    pub right: u32,
    /// The row after the last.
    pub bottom: u32,
}

impl Region {
    /// All of a picture of this size.
    pub const fn of(size: Size) -> Self {
        Self { left: 0, top: 0, right: size.width, bottom: size.height }
    }

    /// Width and height.
    pub const fn size(self) -> Size {
        Size::new(self.right.saturating_sub(self.left), self.bottom.saturating_sub(self.top))
    }

    /// Whether the region has pixels, and all of them are pixels of a picture of this size.
    pub const fn is_within(self, size: Size) -> bool {
        self.left < self.right
            && self.right <= size.width
            && self.top < self.bottom
            && self.bottom <= size.height
    }

    /// The smallest region that shows the same in a copy of the picture of size `to`. `from` is the size of the
    /// picture, which has the region.
    #[must_use]
    pub fn scaled(self, from: Size, to: Size) -> Self {
        let scaled = |(start, end): (u32, u32), from: u32, to: u32| {
            let (from, to) = (u64::from(from.max(1)), u64::from(to));
            let start = (u64::from(start) * to / from).min(to.saturating_sub(1));
            let end = (u64::from(end) * to).div_ceil(from).min(to);
            // Both are at most `to`.
            [start, end].map(|at| u32::try_from(at).unwrap_or(u32::MAX))
        };
        let [left, right] = scaled((self.left, self.right), from.width, to.width);
        let [top, bottom] = scaled((self.top, self.bottom), from.height, to.height);
        Self { left, top, right, bottom }
    }

    /// The same pixels in the upright picture. `stored` is the size of the stored picture, which has the region.
    #[must_use]
    pub const fn turned(self, orientation: Orientation, stored: Size) -> Self {
        let (across, down) = ((self.left, self.right), (self.top, self.bottom));
        let (from_right, from_bottom) =
            (reversed(across, stored.width), reversed(down, stored.height));
        let ((left, right), (top, bottom)) = match orientation {
            Orientation::Upright => (across, down),
            Orientation::MirroredLeftRight => (from_right, down),
            Orientation::HalfTurn => (from_right, from_bottom),
            Orientation::MirroredTopBottom => (across, from_bottom),
            Orientation::Transposed => (down, across),
            Orientation::QuarterTurnClockwise => (from_bottom, across),
            Orientation::Transversed => (from_bottom, from_right),
            Orientation::QuarterTurnCounterClockwise => (down, from_right),
        };
        Self { left, top, right, bottom }
    }
}

/// Start and end of a range, counted from the other end of `length`.
const fn reversed((start, end): (u32, u32), length: u32) -> (u32, u32) {
    (length.saturating_sub(end), length.saturating_sub(start))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn orientations() -> impl Iterator<Item = Orientation> {
        (1..=8).map(Orientation::from_exif)
    }

    #[test]
    fn a_corner_comes_to_the_corner_that_the_orientation_defines() {
        // The first two columns of the first row of a picture of 10 by 20.
        let (region, stored) = (Region { left: 0, top: 0, right: 2, bottom: 1 }, Size::new(10, 20));
        let shown = [
            [0, 0, 2, 1],
            [8, 0, 10, 1],
            [8, 19, 10, 20],
            [0, 19, 2, 20],
            [0, 0, 1, 2],
            [19, 0, 20, 2],
            [19, 8, 20, 10],
            [0, 8, 1, 10],
        ];
        for (orientation, [left, top, right, bottom]) in orientations().zip(shown) {
            let turned = region.turned(orientation, stored);
            assert_eq!(turned, Region { left, top, right, bottom }, "{orientation:?}");
        }
    }

    #[test]
    fn a_region_without_pixels_or_past_an_edge_is_not_within_the_picture() {
        let size = Size::new(10, 20);
        let whole = Region::of(size);
        assert!(whole.is_within(size));
        for outside in [
            Region { left: 10, ..whole },
            Region { top: 20, ..whole },
            Region { right: 11, ..whole },
            Region { bottom: 21, ..whole },
            Region { left: 7, right: 3, ..whole },
        ] {
            assert!(!outside.is_within(size), "{outside:?}");
        }
    }

    proptest! {
        #[test]
        fn a_region_in_a_copy_of_another_size_is_within_it_and_covers_what_it_showed(
            left in 0_u32..500, top in 0_u32..500, width in 1_u32..500, height in 1_u32..500,
            beyond in (0_u32..50, 0_u32..50), to in (1_u32..2_000, 1_u32..2_000),
        ) {
            let region = Region { left, top, right: left + width, bottom: top + height };
            let from = Size::new(region.right + beyond.0, region.bottom + beyond.1);
            let to = Size::new(to.0, to.1);
            let scaled = region.scaled(from, to);
            prop_assert!(scaled.is_within(to), "{scaled:?}");
            let at = |at: u32, from: u32, to: u32| f64::from(at) * f64::from(to) / f64::from(from);
            prop_assert!(f64::from(scaled.left) <= at(left, from.width, to.width));
            prop_assert!(f64::from(scaled.bottom) + 1e-9 >= at(region.bottom, from.height, to.height));
            prop_assert_eq!(Region::of(from).scaled(from, to), Region::of(to));
            prop_assert_eq!(region.scaled(from, from), region);
        }

        #[test]
        fn a_turned_region_is_within_the_upright_picture_and_turns_back(
            left in 0_u32..50, top in 0_u32..50, width in 1_u32..50, height in 1_u32..50,
            beyond in (0_u32..50, 0_u32..50),
        ) {
            let region = Region { left, top, right: left + width, bottom: top + height };
            let stored = Size::new(region.right + beyond.0, region.bottom + beyond.1);
            for orientation in orientations() {
                let turned = region.turned(orientation, stored);
                let swaps = orientation.swaps_sides();
                let upright = if swaps { stored.turned() } else { stored };
                prop_assert!(turned.is_within(upright));
                let size = if swaps { region.size().turned() } else { region.size() };
                prop_assert_eq!(turned.size(), size);
                prop_assert_eq!(turned.turned(orientation.inverse(), upright), region);
            }
        }
    }
}
