//! Connected parts of ink.

use super::bitmap::{Bitmap, edges};
use super::forest::Forest;

/// With more parts or runs than this a picture is texture or noise and no page of text. The limits bound time and memory.
const MOST_PARTS: usize = 50_000;
const MOST_LABELS: usize = 4 * MOST_PARTS;
const MOST_RUNS: usize = 800_000;

/// A connected part of ink, or several that were joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) left: u32,
    pub(super) top: u32,
    /// The column after the last.
    pub(super) right: u32,
    /// The row after the last.
    pub(super) bottom: u32,
    /// The number of pixels.
    pub(super) area: u32,
    /// The number of runs of ink in its rows.
    pub(super) row_runs: u32,
    /// The number of runs of ink in its columns: the strokes that its columns cross.
    pub(super) column_runs: u32,
}

impl Part {
    pub(super) fn width(&self) -> u32 {
        self.right - self.left
    }

    pub(super) fn height(&self) -> u32 {
        self.bottom - self.top
    }

    /// Both as one.
    pub(super) fn joined(&self, other: &Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
            area: self.area + other.area,
            row_runs: self.row_runs + other.row_runs,
            column_runs: self.column_runs + other.column_runs,
        }
    }

    /// The part with its columns and rows exchanged.
    pub(super) fn transposed(&self) -> Self {
        Self {
            left: self.top,
            top: self.left,
            right: self.bottom,
            bottom: self.right,
            area: self.area,
            row_runs: self.column_runs,
            column_runs: self.row_runs,
        }
    }
}

/// The connected parts of what is set, diagonal neighbours included. `None` if there are too many.
pub(super) fn components(bitmap: &Bitmap) -> Option<Vec<Part>> {
    let mut labels = Labels::default();
    let (mut above, mut row) = (Vec::new(), Vec::new());
    let mut runs = 0;
    for (y, words) in (0..).zip(bitmap.rows()) {
        labels.label_row(y, words, &above, &mut row);
        runs += row.len();
        if runs > MOST_RUNS || labels.live > MOST_PARTS || labels.parts.len() > MOST_LABELS {
            return None;
        }
        (above, row) = (row, above);
    }
    Some(labels.into_parts())
}

/// Ink side by side in a row.
struct Run {
    start: u32,
    /// The column after the last.
    end: u32,
    label: u32,
}

/// The parts that were found so far, by label. Labels of one part are united.
#[derive(Default)]
struct Labels {
    forest: Forest,
    parts: Vec<Part>,
    /// The number of labels that are roots.
    live: usize,
}

impl Labels {
    /// Gives the runs of a row the labels of the runs above that they touch.
    fn label_row(&mut self, y: u32, words: &[u64], above: &[Run], row: &mut Vec<Run>) {
        row.clear();
        let mut above = above;
        let mut edges = edges(words);
        while let (Some(start), Some(end)) = (edges.next(), edges.next()) {
            // What ends before the start touches no later run either.
            while let [first, rest @ ..] = above
                && first.end < start
            {
                above = rest;
            }
            let run = self.run(y, start, end, above);
            row.push(run);
        }
    }

    /// Adds a run to the parts of the runs above that it touches, and makes them one.
    fn run(&mut self, y: u32, start: u32, end: u32, above: &[Run]) -> Run {
        let mut label = None;
        let mut covered = 0;
        for run in above.iter().take_while(|run| run.start <= end) {
            covered += end.min(run.end).saturating_sub(start.max(run.start));
            let root = self.forest.root(run.label);
            label = Some(label.map_or(root, |label| self.united(label, root)));
        }
        let part = Part {
            left: start,
            top: y,
            right: end,
            bottom: y + 1,
            area: end - start,
            row_runs: 1,
            // A pixel without ink above starts a run of its column.
            column_runs: end - start - covered,
        };
        let Some(label) = label else {
            self.parts.push(part);
            self.live += 1;
            return Run { start, end, label: self.forest.add() };
        };
        self.parts[label as usize] = self.parts[label as usize].joined(&part);
        Run { start, end, label }
    }

    fn united(&mut self, label: u32, other: u32) -> u32 {
        if label != other {
            self.forest.unite(label, other);
            self.parts[label as usize] =
                self.parts[label as usize].joined(&self.parts[other as usize]);
            self.live -= 1;
        }
        label
    }

    fn into_parts(mut self) -> Vec<Part> {
        let labelled = (0..).zip(self.parts);
        labelled
            .filter(|(label, _)| self.forest.root(*label) == *label)
            .map(|(_, part)| part)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bitmap::{WORD, word_of};
    use super::*;

    const SIZE: (usize, usize) = (80, 16);

    fn bitmap((width, height): (usize, usize), is_set: impl Fn(usize, usize) -> bool) -> Bitmap {
        let mut bitmap = Bitmap::new(width, height);
        for (y, row) in bitmap.rows_mut().enumerate() {
            let bits: Vec<u8> = (0..width).map(|x| u8::from(is_set(x, y))).collect();
            for (word, bits) in row.iter_mut().zip(bits.chunks(WORD)) {
                *word = word_of(bits, bits, |bit, _| bit == 1);
            }
        }
        bitmap
    }

    /// The parts of what is set, by the definition: pixels that touch, one after the other.
    fn flooded(
        (width, height): (usize, usize),
        is_set: impl Fn(usize, usize) -> bool,
    ) -> Vec<Part> {
        let mut left: Vec<(usize, usize)> = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .filter(|(x, y)| is_set(*x, *y))
            .collect();
        let mut parts = Vec::new();
        while let Some(first) = left.pop() {
            let (mut part, mut next) = (vec![first], 0);
            while let Some((x, y)) = part.get(next).copied() {
                let touching =
                    left.extract_if(.., |(a, b)| a.abs_diff(x) <= 1 && b.abs_diff(y) <= 1);
                part.extend(touching.collect::<Vec<_>>());
                next += 1;
            }
            parts.push(described(&part));
        }
        parts
    }

    fn described(pixels: &[(usize, usize)]) -> Part {
        let number = |number: usize| u32::try_from(number).unwrap();
        let (xs, ys) = (pixels.iter().map(|(x, _)| *x), pixels.iter().map(|(_, y)| *y));
        let starts = |dx: usize, dy: usize| {
            let before = |x: usize, y: usize| Some((x.checked_sub(dx)?, y.checked_sub(dy)?));
            let is_start = |(x, y): &&(usize, usize)| {
                before(*x, *y).is_none_or(|before| !pixels.contains(&before))
            };
            number(pixels.iter().filter(is_start).count())
        };
        Part {
            left: number(xs.clone().min().unwrap()),
            top: number(ys.clone().min().unwrap()),
            right: number(xs.max().unwrap() + 1),
            bottom: number(ys.max().unwrap() + 1),
            area: number(pixels.len()),
            row_runs: starts(1, 0),
            column_runs: starts(0, 1),
        }
    }

    fn sorted(mut parts: Vec<Part>) -> Vec<Part> {
        parts.sort_by_key(|part| (part.left, part.top, part.right, part.bottom, part.area));
        parts
    }

    proptest! {
        #[test]
        fn parts_are_the_pixels_that_touch(
            bits in proptest::collection::vec(0_u32..100, SIZE.0 * SIZE.1), density in 5_u32..70,
        ) {
            let is_set = |x: usize, y: usize| bits[y * SIZE.0 + x] < density;
            let found = components(&bitmap(SIZE, is_set)).unwrap();
            prop_assert_eq!(sorted(found), sorted(flooded(SIZE, is_set)));
        }
    }

    #[test]
    fn more_parts_or_runs_than_text_has_are_given_up() {
        let dots = |side| components(&bitmap((side, side), |x, y| x % 2 < 1 && y % 2 < 1));
        assert_eq!(dots(446).map(|parts| parts.len()), Some(223 * 223));
        assert_eq!(dots(450), None);
        // One part of very many runs, and labels that are united again at once.
        let stripes = |x: usize, y: usize| x % 2 < 1 || y == 1_000;
        assert_eq!(components(&bitmap((1_700, 1_000), stripes)), None);
        let teeth = |x: usize, y: usize| y % 3 == 2 || y % 3 == 1 && x % 2 < 1;
        assert_eq!(components(&bitmap((2_000, 620), teeth)), None);
    }
}
