//! Soft shapes, such as a watermark or a washed-out stamp: large, and little darker than the paper around.

use super::grid::large_groups;
use super::sums::{PARTS, Sums};

/// The blocks along either side of a cell.
const CELL: usize = 2;

/// How far away the paper on both sides is compared, in cells. An edge shows if it is no softer.
const DISTANCES: [usize; 3] = [2, 4, 8];

/// A shape differs by more from the mean of both sides, in parts of a level. Noise changes the mean of a cell by a
/// fraction of a level, and the rounding of a JPEG by one.
const LEAST_SHADE: i32 = 2 * PARTS;

/// A shape shows in so many cells that touch.
const LEAST_CELLS: usize = 4;

/// The blocks, of those that are not set, that are at the edge of a soft shape.
///
/// Light that falls off towards the edges of a page is no shape. It is much the same along each row or along each column,
/// so what is asked for is a difference that also remains when the medians of the columns and rows are taken away.
pub(super) fn shades(sums: &Sums, set: &[bool]) -> Vec<usize> {
    let (across, down) = (sums.across / CELL, sums.means.len() / sums.across / CELL);
    if across == 0 {
        return Vec::new();
    }
    let blocks = |x: usize, y: usize| {
        let first = (y * sums.across + x) * CELL;
        [first, first + 1, first + sums.across, first + sums.across + 1]
    };
    let places = (0..down).flat_map(|y| (0..across).map(move |x| (x, y)));
    let mean = |(x, y)| {
        let blocks = blocks(x, y);
        let is_ground = blocks.iter().all(|block| !set[*block]);
        is_ground.then(|| blocks.iter().map(|block| sums.means[*block]).sum::<i32>() / 4)
    };
    let cells = Cells { across, down, means: places.map(mean).collect() };
    let marks = cells.marks();
    let members = large_groups(&marks, across, LEAST_CELLS).into_iter();
    members
        .flat_map(|cell| blocks(cell % across, cell / across))
        .filter(|block| !set[*block])
        .collect()
}

/// The means of the paper; `None` where something else can be seen.
struct Cells {
    across: usize,
    down: usize,
    means: Vec<Option<i32>>,
}

impl Cells {
    /// Which differ from both sides.
    fn marks(&self) -> Vec<bool> {
        let flat = self.flattened();
        let mut marks = vec![false; self.means.len()];
        for far in DISTANCES {
            let down = far * self.across;
            for (dx, dy, by) in
                [(far, 0, far), (0, far, down), (far, far, down + far), (far, far, down - far)]
            {
                for y in dy..self.down.saturating_sub(dy) {
                    for x in dx..self.across.saturating_sub(dx) {
                        let at = y * self.across + x;
                        marks[at] |= self.differs(&flat, at, by);
                    }
                }
            }
        }
        marks
    }

    /// Whether a cell differs from those that are `by` before and behind.
    fn differs(&self, flat: &[Option<i32>], at: usize, by: usize) -> bool {
        let difference =
            |means: &[Option<i32>]| Some(2 * means[at]? - means[at - by]? - means[at + by]?);
        let Some((here, flat)) = difference(&self.means).zip(difference(flat)) else {
            return false;
        };
        here.min(flat) > 2 * LEAST_SHADE || here.max(flat) < -2 * LEAST_SHADE
    }

    /// The means without the medians of the columns, and then without those of the rows.
    fn flattened(&self) -> Vec<Option<i32>> {
        let mut means = self.means.clone();
        for x in 0..self.across {
            flatten(means.iter_mut().skip(x).step_by(self.across));
        }
        means.chunks_mut(self.across).for_each(|row| flatten(row.iter_mut()));
        means
    }
}

/// Takes away the median.
fn flatten<'a>(means: impl Iterator<Item = &'a mut Option<i32>>) {
    let means: Vec<&mut i32> = means.flatten().collect();
    let mut sorted: Vec<i32> = means.iter().map(|mean| **mean).collect();
    if !sorted.is_empty() {
        let half = sorted.len() / 2;
        let (_, median, _) = sorted.select_nth_unstable(half);
        for mean in means {
            *mean -= *median;
        }
    }
}
