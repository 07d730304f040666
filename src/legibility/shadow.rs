//! The shadow of an edge: a scanner shows beside a page what is below it.

use std::ops::Range;

use super::bitmap::BLOCK;
use super::gray::Gray;

/// The most blocks across a shadow, and how much longer than wide it is.
const THICKNESS: usize = 3;
const LENGTH: usize = 8;

/// A shadow takes no more than one in so many blocks from one side of the picture to the other.
const SHARE: usize = 8;

/// A shadow touches the edge along more than so many percent of its length.
const TOUCHING: usize = 90;

/// The side of a patch in pixels: more than a thin stroke, less than a character.
const PATCH: usize = 4;

/// A change by less than one in so many parts of the contrast of the strip is no turn: the page may lie a little askew.
const CHANGE: u32 = 8;

/// How often the patches of a shadow may turn from brighter to darker, or back. Each stroke of a pen turns twice.
const TURNS: usize = 2;

/// Marks in a strip along an edge of a picture.
pub(super) struct Strip {
    pub(super) columns: Range<usize>,
    pub(super) rows: Range<usize>,
    /// Whether the edge is the left or the right one.
    pub(super) is_upright: bool,
    /// The blocks across the strip, ...
    pub(super) thickness: usize,
    /// ... those across the whole picture, ...
    pub(super) of: usize,
    /// ... and those beside the edge that are not blank.
    pub(super) touching: usize,
}

impl Strip {
    /// Whether the strip is thin, long, beside the edge along its whole length, and smooth. Writing is not.
    pub(super) fn is_shadow(&self, gray: &Gray, least_visible: u8) -> bool {
        let along = if self.is_upright { &self.rows } else { &self.columns };
        let length = along.len() / BLOCK;
        self.thickness <= THICKNESS
            && SHARE * self.thickness <= self.of
            && length >= LENGTH * self.thickness
            && 100 * self.touching > TOUCHING * length
            && self.turns(gray, least_visible) <= TURNS
    }

    /// How often the levels turn along the strip.
    fn turns(&self, gray: &Gray, least_visible: u8) -> usize {
        let starts = |range: &Range<usize>, length: usize| {
            let end = range.end.min(length).saturating_sub(PATCH - 1);
            (range.start..end).step_by(PATCH)
        };
        let (xs, ys) = (starts(&self.columns, gray.width), starts(&self.rows, gray.height));
        // The mean of a patch, in 16ths of a level.
        let level = |x: usize, y: usize| -> u32 {
            let rows = (y..y + PATCH).map(|y| &gray.row(y)[x..x + PATCH]);
            rows.flatten().map(|level| u32::from(*level)).sum()
        };
        let lines: Vec<Vec<u32>> = if self.is_upright {
            xs.map(|x| ys.clone().map(|y| level(x, y)).collect()).collect()
        } else {
            ys.map(|y| xs.clone().map(|x| level(x, y)).collect()).collect()
        };
        let levels = || lines.iter().flatten().copied();
        let contrast = levels().max().unwrap_or_default() - levels().min().unwrap_or_default();
        let least = (16 * u32::from(least_visible)).max(contrast / CHANGE);
        lines.iter().map(|line| turns(line, least)).sum()
    }
}

/// How often levels turn that change by more than `least` before and after.
fn turns(levels: &[u32], least: u32) -> usize {
    let mut turns = 0;
    let mut is_rising = None;
    // Since the last turn.
    let (mut lowest, mut highest) = (u32::MAX, 0);
    for &level in levels {
        (lowest, highest) = (lowest.min(level), highest.max(level));
        let now_rises = match is_rising {
            Some(true) if level + least < highest => false,
            Some(false) if level > lowest + least => true,
            None if highest - lowest > least => level == highest,
            _ => continue,
        };
        turns += usize::from(is_rising.is_some());
        is_rising = Some(now_rises);
        (lowest, highest) = (level, level);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_turn_where_they_rise_and_fall_by_enough() {
        for (levels, expected) in [
            (&[][..], 0),
            (&[5, 5, 9, 5, 1], 0),
            (&[0, 3, 6, 9, 12, 40], 0),
            (&[40, 30, 35, 30, 10], 0),
            (&[0, 20, 0], 1),
            (&[0, 4, 8, 12, 8, 4, 0], 1),
            (&[20, 0, 20, 0, 20], 3),
            (&[20, 30, 0, 5, 10, 15, 20], 1),
        ] {
            assert_eq!(turns(levels, 10), expected, "{levels:?}");
        }
    }
}
