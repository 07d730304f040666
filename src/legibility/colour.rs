//! Where a picture differs from its surroundings in colour. Text may be as bright as its ground.

use std::ops::Range;

use super::bitmap::BLOCK;
use crate::pixels::raster::{Raster, Samples};

/// Half the side of the surroundings of a block, in blocks.
const SURROUNDINGS: usize = 2;

/// A block is coloured if its mean differs by more levels from that of its surroundings. JPEG and the noise of a camera
/// change the mean of 64 pixels by less.
const COLOURED: i32 = 3;

/// The parts of a level in which means are compared.
const PARTS: i32 = 16;

/// The most rows whose sum fits 16 bits.
const MOST_ROWS: usize = 257;

/// Which blocks differ in colour from their surroundings, from left to right and from top to bottom. Empty if the picture
/// is gray.
///
/// A block has [`BLOCK`] by [`BLOCK`] pixels of the picture that was reduced by `factor`.
pub(super) fn coloured(picture: &Raster, factor: u16) -> Vec<bool> {
    if picture.samples() == Samples::Gray {
        return Vec::new();
    }
    let across = (picture.size().width as usize).div_ceil(BLOCK * usize::from(factor));
    let hues = hues(picture, usize::from(factor));
    let mut coloured = vec![false; hues.len()];
    for of in 0..2 {
        let hues: Vec<i32> = hues.iter().map(|hue| hue[of]).collect();
        mark(&hues, across, &mut coloured);
    }
    coloured
}

/// The means of red and of blue of each block, less that of green.
fn hues(picture: &Raster, factor: usize) -> Vec<[i32; 2]> {
    let (width, side) = (picture.size().width as usize, BLOCK * factor);
    let (pixels, _) = picture.data().as_chunks::<3>();
    let mut sums = vec![[0_u16; 3]; width];
    let mut hues = Vec::new();
    for band in pixels.chunks(width * side) {
        let mut blocks = vec![([0_u32; 3], 0_u32); width.div_ceil(side)];
        for rows in band.chunks(width * factor * MOST_ROWS) {
            sums.fill([0; 3]);
            let mut count = 0_u32;
            // Of the rows that became one, the first is enough.
            for row in rows.chunks_exact(width).step_by(factor) {
                for (sum, level) in sums.as_flattened_mut().iter_mut().zip(row.as_flattened()) {
                    *sum = sum.wrapping_add(u16::from(*level));
                }
                count += 1;
            }
            for ((block, pixels), sums) in blocks.iter_mut().zip(sums.chunks(side)) {
                for (total, sum) in sums.iter().flat_map(|sums| (0..3).zip(sums)) {
                    block[total] = block[total].wrapping_add(u32::from(*sum));
                }
                *pixels += count * u32::try_from(sums.len()).unwrap_or_default();
            }
        }
        hues.extend(blocks.iter().map(|([red, green, blue], pixels)| {
            let hue = |sum: u32| {
                let parts = i64::from(PARTS) * (i64::from(sum) - i64::from(*green));
                i32::try_from(parts / i64::from(*pixels)).unwrap_or_default()
            };
            [hue(*red), hue(*blue)]
        }));
    }
    hues
}

/// Marks what differs from the mean of its surroundings. There are `across` hues in a row.
fn mark(hues: &[i32], across: usize, marks: &mut [bool]) {
    let down = hues.len() / across;
    let mut columns = vec![0_i32; across];
    let rows = hues.chunks_exact(across).zip(marks.chunks_exact_mut(across));
    for (y, (row, marks)) in rows.enumerate() {
        let near_rows = near(y, down);
        columns.fill(0);
        for row in hues.chunks_exact(across).skip(near_rows.start).take(near_rows.len()) {
            for (sum, hue) in columns.iter_mut().zip(row) {
                *sum = sum.wrapping_add(*hue);
            }
        }
        for (x, (hue, mark)) in row.iter().zip(marks).enumerate() {
            let beside = &columns[near(x, across)];
            let sum = beside.iter().copied().fold(0, i32::wrapping_add);
            let count = i32::try_from(near_rows.len() * beside.len()).unwrap_or_default();
            *mark |= (hue * count - sum).abs() > COLOURED * PARTS * count;
        }
    }
}

/// The places of the surroundings that exist.
fn near(at: usize, length: usize) -> Range<usize> {
    at.saturating_sub(SURROUNDINGS)..(at + SURROUNDINGS + 1).min(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Size;

    /// The places of the coloured blocks of a picture of these colours.
    fn found(size: Size, factor: u16, colour: impl Fn(u32, u32) -> [u8; 3]) -> Vec<(usize, usize)> {
        let places = (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y)));
        let data = places.flat_map(|(x, y)| colour(x, y)).collect();
        let picture = Raster::new(size, Samples::Rgb, data).unwrap();
        let across = (size.width as usize).div_ceil(8 * usize::from(factor));
        let coloured = coloured(&picture, factor);
        let marked = coloured.iter().enumerate().filter(|(_, mark)| **mark);
        marked.map(|(at, _)| (at % across, at / across)).collect()
    }

    #[test]
    fn a_block_is_coloured_where_its_hue_differs_at_any_factor() {
        for factor in [1, 2, 3, 5, 40] {
            let side = 8 * u32::from(factor);
            let picture = Size::new(9 * side + 1, 6 * side + u32::from(factor));
            let gray = |_, _| [217; 3];
            assert_eq!(found(picture, factor, gray), [], "{factor}");
            let spot = |x: u32, y: u32| {
                let is_spot = (x / side, y / side) == (4, 3) && (y % side) < side / 2;
                if is_spot { [200, 220, 235] } else { [217; 3] }
            };
            assert_eq!(found(picture, factor, spot), [(4, 3)], "{factor}");
        }
    }

    #[test]
    fn brightness_and_slow_change_are_no_colour() {
        let size = Size::new(160, 160);
        let text = |x: u32, _| if x % 8 < 2 { [0; 3] } else { [255; 3] };
        assert_eq!(found(size, 1, text), []);
        let light = |x: u32, y: u32| {
            [200, 190, 140 + u8::try_from(x / 8).unwrap() - u8::try_from(y / 8).unwrap()]
        };
        assert_eq!(found(size, 1, light), []);
    }
}
