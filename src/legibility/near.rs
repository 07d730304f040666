//! The mean of each pixel and its neighbours: pencil may be fainter than the noise of a pixel.

use super::gray::Gray;

/// The means over squares of three pixels a side, row by row. At the edges a square has the pixels that exist.
pub(super) struct Near<'a> {
    gray: &'a Gray<'a>,
    /// The row that comes next.
    y: usize,
    /// For each column the sum of three rows, between two zeros.
    columns: Vec<u16>,
    row: Vec<u8>,
}

impl<'a> Near<'a> {
    /// Starts before the first row.
    pub(super) fn new(gray: &'a Gray<'a>) -> Self {
        Self { gray, y: 0, columns: vec![0; gray.width + 2], row: vec![0; gray.width] }
    }

    /// The means of the next row, rounded down. All rows have been given once this was called for each.
    pub(super) fn next_row(&mut self) -> &[u8] {
        let Self { gray, y, columns, row } = self;
        let rows = y.saturating_sub(1)..(*y + 2).min(gray.height);
        *y += 1;
        columns.fill(0);
        for y in rows.clone() {
            for (sum, level) in columns[1..].iter_mut().zip(gray.row(y)) {
                *sum = sum.wrapping_add(u16::from(*level));
            }
        }
        let inner = Division::by(3 * rows.len());
        let sums = columns.iter().zip(&columns[1..]).zip(&columns[2..]);
        for (level, ((left, here), right)) in row.iter_mut().zip(sums.clone()) {
            *level = inner.of(left.wrapping_add(*here).wrapping_add(*right));
        }
        let outer = Division::by(gray.width.min(2) * rows.len());
        for x in [0, gray.width - 1] {
            let sum = columns[x..x + 3].iter().copied().fold(0, u16::wrapping_add);
            row[x] = outer.of(sum);
        }
        row
    }
}

/// Divides by a number of pixels, at most nine, by a multiplication.
struct Division {
    /// 2^16 divided by the number, rounded up: right for all sums of so many levels.
    inverse: u32,
}

impl Division {
    fn by(count: usize) -> Self {
        Self { inverse: (1_u32 << 16).div_ceil(u32::try_from(count).unwrap_or(u32::MAX)) }
    }

    /// The quotient, rounded down.
    fn of(&self, sum: u16) -> u8 {
        u32::from(sum).wrapping_mul(self.inverse).to_le_bytes()[2]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::drawn::Page;
    use super::super::means::Means;
    use super::*;

    proptest! {
        #[test]
        fn a_mean_is_that_of_a_pixel_and_its_neighbours(
            width in 1_u32..40, height in 1_u32..40,
            levels in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let level = |x: u32, y: u32, _| levels[(x * x + 3 * y) as usize % levels.len()];
            let picture = Page::white(width, height).each(level).raster();
            let gray = Gray::of(&picture);
            let (mut near, mut means) = (Near::new(&gray), Means::new(&gray, 1));
            for _ in 0..gray.height {
                prop_assert_eq!(near.next_row(), means.next_row());
            }
        }
    }
}
