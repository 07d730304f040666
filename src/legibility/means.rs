//! The mean of the surroundings of each pixel.

use super::gray::Gray;

/// The means over squares of `2 radius + 1` pixels a side, row by row. At the edges a square has the pixels that exist.
///
/// The sums of columns are kept from row to row, and a square is the difference of two sums of columns: the cost does
/// not depend on the radius.
pub(super) struct Means<'a> {
    gray: &'a Gray<'a>,
    radius: usize,
    /// The row that comes next.
    y: usize,
    /// For each column, the sum of the rows within the radius.
    columns: Vec<u16>,
    /// Entry `i` is the sum of the columns before `i - radius`.
    before: Vec<u32>,
    /// One divided by the number of columns of each square.
    across: Vec<f32>,
    row: Vec<u8>,
}

impl<'a> Means<'a> {
    /// Starts before the first row. The radius is at most 128, so that the sum of a column fits 16 bits.
    pub(super) fn new(gray: &'a Gray<'a>, radius: usize) -> Self {
        let width = gray.width;
        let mut columns = vec![0; width];
        for row in gray.rows().take(radius) {
            add(&mut columns, row);
        }
        let across = (0..width).map(|x| inverse(within(x, radius, width))).collect();
        let before = vec![0; width + 2 * radius + 1];
        Self { gray, radius, y: 0, columns, before, across, row: vec![0; width] }
    }

    /// The means of the next row, rounded down. All rows have been given once this was called for each.
    pub(super) fn next_row(&mut self) -> &[u8] {
        let Self { gray, radius, y, columns, .. } = self;
        if *y + *radius < gray.height {
            add(columns, gray.row(*y + *radius));
        }
        if *y > *radius {
            subtract(columns, gray.row(*y - *radius - 1));
        }
        let down = inverse(within(*y, *radius, gray.height));
        *y += 1;
        self.fill_row(down);
        &self.row
    }

    fn fill_row(&mut self, down: f32) {
        let mut sum = 0_u32;
        let (inner, after) = self.before[self.radius + 1..].split_at_mut(self.columns.len());
        for (before, column) in inner.iter_mut().zip(&self.columns) {
            sum = sum.wrapping_add(u32::from(*column));
            *before = sum;
        }
        after.fill(sum);
        let ends = self.before[2 * self.radius + 1..].iter().zip(&self.before);
        for ((level, (end, start)), across) in self.row.iter_mut().zip(ends).zip(&self.across) {
            *level = quotient(end.wrapping_sub(*start), across * down);
        }
    }
}

/// A sum of levels multiplied by the inverse of their number, rounded down.
#[expect(clippy::cast_precision_loss, reason = "a sum of 257 by 257 levels is below 2^24")]
fn quotient(sum: u32, inverse: f32) -> u8 {
    // Among floats from 2^23 to 2^24 only whole numbers exist, so the addition rounds, and the lowest bits are the whole
    // number. The compiler makes vector code of this, but not of the cast of a float.
    const WHOLE: f32 = 12_582_912.0;
    // The first half keeps a quotient that is whole from falling below itself. The second turns rounding into rounding
    // down.
    let quotient = (sum.cast_signed() as f32 + 0.5) * inverse - 0.5;
    (quotient + WHOLE).to_bits().to_le_bytes()[0]
}

/// The number of places from `at - radius` to `at + radius` that exist.
fn within(at: usize, radius: usize, length: usize) -> usize {
    (at + radius + 1).min(length) - at.saturating_sub(radius)
}

#[expect(clippy::cast_precision_loss, reason = "a side of a square is below 2^24")]
fn inverse(count: usize) -> f32 {
    1.0 / count as f32
}

fn add(columns: &mut [u16], row: &[u8]) {
    for (column, level) in columns.iter_mut().zip(row) {
        *column = column.wrapping_add(u16::from(*level));
    }
}

fn subtract(columns: &mut [u16], row: &[u8]) {
    for (column, level) in columns.iter_mut().zip(row) {
        *column = column.wrapping_sub(u16::from(*level));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::drawn::Page;
    use super::*;

    proptest! {
        #[test]
        fn a_mean_is_that_of_the_pixels_within_the_radius(
            width in 1_u32..40, height in 1_u32..40, radius in 0_usize..15,
            levels in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let level = |x: u32, y: u32, _| levels[(x * x + 3 * y) as usize % levels.len()];
            let picture = Page::white(width, height).each(level).raster();
            let gray = Gray::of(&picture);
            let mut means = Means::new(&gray, radius);
            for y in 0..gray.height {
                let row = means.next_row().to_vec();
                for (x, mean) in row.into_iter().enumerate() {
                    let near = |at: usize, length: usize| {
                        at.saturating_sub(radius)..(at + radius + 1).min(length)
                    };
                    let rows = near(y, gray.height).map(|y| &gray.row(y)[near(x, gray.width)]);
                    let levels: Vec<u32> = rows.flatten().copied().map(u32::from).collect();
                    let sum = levels.iter().sum::<u32>();
                    prop_assert_eq!(u32::from(mean), sum / u32::try_from(levels.len()).unwrap());
                }
            }
        }
    }
}
