//! Sums over the pixels of a block and along the strokes in it: they show what is fainter than the noise of a pixel.

use super::bitmap::BLOCK;
use super::gray::Gray;

/// The parts of a level in which means are given.
pub(super) const PARTS: i32 = 16;

/// The side of the square that shows strokes aslant.
const SQUARE: usize = BLOCK / 2;

/// The places that are compared across a stroke: four before it, up to four of it, and four behind.
const PLACES: usize = 12;

/// The first place of a stroke among them.
const STROKE: usize = 4;

/// What was summed in each block, from left to right and from top to bottom.
pub(super) struct Sums {
    /// The blocks of a row.
    pub(super) across: usize,
    /// The mean, in parts of a level.
    pub(super) means: Vec<i32>,
    /// How much its strongest stroke is darker, or lighter, than what is on both sides of it, as the difference of sums
    /// over 16 pixels: two by eight along rows or columns, or four by four aslant. Strokes a little aslant show in four by
    /// eight, which are brought to the same noise.
    pub(super) strokes: Vec<i16>,
}

impl Sums {
    pub(super) fn of(gray: &Gray) -> Self {
        // The sums of the columns of four rows each, and of eight pixels side by side.
        let mut columns = vec![0_i16; gray.width * gray.height.div_ceil(SQUARE)];
        let mut eights = Vec::with_capacity(gray.width / BLOCK * gray.height);
        for (y, row) in gray.rows().enumerate() {
            let columns = &mut columns[y / SQUARE * gray.width..][..gray.width];
            for (sum, level) in columns.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i16::from(*level));
            }
            eights.extend(row.as_chunks::<BLOCK>().0.iter().copied().map(sum_of_eight));
        }
        let across = gray.width.div_ceil(BLOCK);
        let means = means(gray, &columns);
        let mut sums = Self { across, strokes: vec![0; means.len()], means };
        sums.add_columns(gray, &columns);
        sums.add_rows(gray, &eights);
        sums
    }

    /// Finds the strokes that go down, and those aslant.
    fn add_columns(&mut self, gray: &Gray, columns: &[i16]) {
        let Some(places) = (gray.width + 1).checked_sub(PLACES) else { return };
        let (mut both, mut pairs) = (vec![0; gray.width], vec![0; gray.width]);
        let mut found = vec![0; gray.width];
        for (y, band) in columns.chunks_exact(2 * gray.width).enumerate().take(gray.height / BLOCK)
        {
            let (upper, lower) = band.split_at(gray.width);
            add_all(&mut both, upper, lower);
            pair(&mut pairs, &both, 1);
            compare(&pairs, 1, &mut found[STROKE..][..places]);
            self.add(y, &found);
        }
        // Sums of four by four pixels, of three rows of them.
        let mut squares = [vec![0; gray.width], vec![0; gray.width], vec![0; gray.width]];
        for (y, row) in columns.chunks_exact(gray.width).enumerate().take(gray.height / SQUARE) {
            squares.rotate_left(1);
            let [above, here, below] = &mut squares;
            pair(&mut pairs, row, 1);
            pair(below, &pairs, 2);
            if y >= 2 {
                compare_aslant([above, here, below], &mut found[STROKE..][..places]);
                self.add((y - 1) / 2, &found);
            }
        }
    }

    /// Takes what was found at the columns of a row of blocks.
    fn add(&mut self, y: usize, found: &[i16]) {
        let strokes = &mut self.strokes[y * self.across..];
        for (stroke, found) in strokes.iter_mut().zip(found.as_chunks::<BLOCK>().0) {
            *stroke = found.iter().copied().fold(*stroke, i16::max);
        }
    }

    /// Finds the strokes that go across.
    fn add_rows(&mut self, gray: &Gray, eights: &[i16]) {
        let whole = gray.width / BLOCK;
        let Some(places) = (gray.height + 1).checked_sub(PLACES) else { return };
        let mut pairs = vec![0; eights.len()];
        pair(&mut pairs, eights, whole);
        let mut found = vec![0; whole];
        for y in 0..places {
            compare(&pairs[y * whole..], whole, &mut found);
            let strokes = &mut self.strokes[(y + STROKE) / BLOCK * self.across..];
            for (stroke, found) in strokes.iter_mut().zip(&found) {
                *stroke = (*stroke).max(*found);
            }
        }
    }
}

/// The means of the blocks.
fn means(gray: &Gray, columns: &[i16]) -> Vec<i32> {
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let mut means = Vec::with_capacity(columns.len() / BLOCK);
    let mut both = vec![0; gray.width];
    for (y, band) in columns.chunks(2 * gray.width).enumerate() {
        let rows = number((gray.height - y * BLOCK).min(BLOCK));
        let (upper, lower) = band.split_at(gray.width);
        both.copy_from_slice(upper);
        for (sum, lower) in both.iter_mut().zip(lower) {
            *sum = sum.wrapping_add(*lower);
        }
        means.extend(both.chunks(BLOCK).map(|sums| {
            let sum = sums.iter().fold(0_i32, |sum, column| sum.wrapping_add(i32::from(*column)));
            PARTS * sum / (rows * number(sums.len()))
        }));
    }
    means
}

fn sum_of_eight(levels: [u8; BLOCK]) -> i16 {
    // Four sums of two in one word, which the multiplication adds up in its highest part.
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    let word = u64::from_le_bytes(levels);
    let pairs = (word & EVEN) + (word >> 8 & EVEN);
    let [.., low, high] = pairs.wrapping_mul(0x0001_0001_0001_0001).to_le_bytes();
    i16::from_le_bytes([low, high])
}

fn add_all(sums: &mut [i16], one: &[i16], other: &[i16]) {
    for (sum, (one, other)) in sums.iter_mut().zip(one.iter().zip(other)) {
        *sum = one.wrapping_add(*other);
    }
}

/// The sums of each place and the one that is `step` further, as far as there is one.
fn pair(pairs: &mut [i16], sums: &[i16], step: usize) {
    add_all(pairs, sums, sums.get(step..).unwrap_or_default());
}

/// Compares strokes of two and of four places with both their sides. The places are `step` apart in the pairs.
fn compare(pairs: &[i16], step: usize, found: &mut [i16]) {
    let count = found.len();
    let at = |place: usize| &pairs[place * step..][..count];
    let (first, second, third) = (at(0), at(1), at(2));
    let (stroke, rest) = (at(STROKE), at(STROKE + 2));
    let (seventh, eighth, tenth) = (at(STROKE + 3), at(STROKE + 4), at(STROKE + 6));
    for (x, found) in found.iter_mut().enumerate() {
        let narrow = difference(stroke[x], second[x], seventh[x]);
        let before = first[x].wrapping_add(third[x]);
        let behind = eighth[x].wrapping_add(tenth[x]);
        let wide = difference(stroke[x].wrapping_add(rest[x]), before, behind);
        // The noise of twice as many pixels is larger by the root of 2. Three quarters are near enough.
        *found = narrow.max((wide >> 1).wrapping_add(wide >> 2));
    }
}

/// Compares squares with those at their corners.
fn compare_aslant([above, here, below]: [&[i16]; 3], found: &mut [i16]) {
    let count = found.len();
    let (left, right) = (&above[..count], &above[2 * SQUARE..]);
    let (low_left, low_right) = (&below[..count], &below[2 * SQUARE..]);
    let here = &here[SQUARE..];
    let (right, low_right, here) = (&right[..count], &low_right[..count], &here[..count]);
    for (x, found) in found.iter_mut().enumerate() {
        let falling = difference(here[x], left[x], low_right[x]);
        let rising = difference(here[x], right[x], low_left[x]);
        *found = falling.max(rising);
    }
}

/// By how much a sum is less than both its sides, or more. Below zero if it lies between them.
fn difference(sum: i16, one: i16, other: i16) -> i16 {
    let darker = one.min(other).wrapping_sub(sum);
    let lighter = sum.wrapping_sub(one.max(other));
    darker.max(lighter)
}

#[cfg(test)]
mod tests {
    use super::super::drawn::Page;
    use super::*;

    fn sums(page: Page) -> Sums {
        Sums::of(&Gray::of(&page.raster()))
    }

    #[test]
    fn the_mean_of_a_block_is_that_of_the_pixels_that_exist() {
        for (width, height) in [(8, 8), (61, 43), (9, 50), (50, 9)] {
            let page = Page::white(width, height)
                .each(|x, y, _| u8::try_from((x * x + 3 * y) % 251).unwrap());
            let found = sums(page.clone()).means;
            let mut expected = Vec::new();
            for top in (0..height).step_by(BLOCK) {
                for left in (0..width).step_by(BLOCK) {
                    let levels: Vec<i32> = (top..(top + 8).min(height))
                        .flat_map(|y| (left..(left + 8).min(width)).map(move |x| (x, y)))
                        .map(|(x, y)| i32::from(page.levels[(y * width + x) as usize]))
                        .collect();
                    let count = i32::try_from(levels.len()).unwrap();
                    expected.push(PARTS * levels.iter().sum::<i32>() / count);
                }
            }
            assert_eq!(found, expected, "{width} x {height}");
        }
    }

    #[test]
    fn a_stroke_is_as_strong_as_its_pixels_in_each_direction() {
        let paper = || Page::of(200, 80, 80);
        let block = |x: usize, y: usize| y * 10 + x;
        let upright = sums(paper().filled([36, 0, 1, 80], 190));
        assert_eq!(upright.strokes[block(4, 4)], 8 * 10);
        assert_eq!(upright.strokes[block(7, 4)], 0);
        let across = sums(paper().filled([0, 36, 80, 1], 190));
        assert_eq!(across.strokes[block(4, 4)], 8 * 10);
        assert_eq!(across.strokes[block(4, 7)], 0);
        let aslant = sums(paper().each(|x, y, level| if x == y { 190 } else { level }));
        assert_eq!(aslant.strokes[block(4, 4)], 4 * 10);
        assert_eq!(aslant.strokes[block(7, 2)], 0);
        let lighter = sums(paper().filled([36, 0, 1, 80], 210));
        assert_eq!(lighter.strokes[block(4, 4)], 8 * 10);
    }

    #[test]
    fn an_edge_is_no_stroke() {
        let edge = Page::of(200, 80, 80).filled([36, 0, 44, 80], 100);
        assert!(sums(edge).strokes.iter().all(|stroke| *stroke <= 0));
    }
}
