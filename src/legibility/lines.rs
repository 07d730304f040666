//! Lines of text: parts of like height side by side.

use super::components::Part;
use super::forest::Forest;

/// The fewest parts of a line.
const LEAST_IN_LINE: usize = 3;

/// Lower parts are dots, dust or noise.
const LEAST_HEIGHT: u32 = 4;

/// A part that is wider by this factor than high is a rule.
const MOST_WIDE: u32 = 25;

/// The lines of text across. The parts of each are sorted from left to right.
pub(super) fn lines(parts: &[Part]) -> Vec<Vec<Part>> {
    let mut parts = stacked(parts);
    parts.retain(|part| part.height() >= LEAST_HEIGHT && part.width() <= MOST_WIDE * part.height());
    let grouped = grouped(parts, is_beside);
    let lines = groups(&grouped).filter(|line| line.len() >= LEAST_IN_LINE);
    lines.map(|line| line.iter().map(|(_, part)| *part).collect()).collect()
}

/// Joins fragments one above the other: of dot-matrix and broken thermal print, the dot of an i, what a CJK character is
/// composed of.
fn stacked(parts: &[Part]) -> Vec<Part> {
    let transposed = parts.iter().map(Part::transposed).collect();
    let grouped =
        grouped(transposed, |upper, lower| is_below(&upper.transposed(), &lower.transposed()));
    let parts = groups(&grouped).filter_map(|group| {
        group.iter().map(|(_, part)| *part).reduce(|one, other| one.joined(&other))
    });
    parts.map(|part| part.transposed()).collect()
}

/// Whether the lower part is a fragment of what the upper part is one of: near below, about as wide, and not wide.
fn is_below(upper: &Part, lower: &Part) -> bool {
    let height = upper.height().max(lower.height());
    let (narrow, wide) = min_max(upper.width(), lower.width());
    lower.top <= upper.bottom + 1 + height / 8
        && shares_half((upper.left, upper.right), (lower.left, lower.right), narrow)
        && wide <= 3 * height.max(LEAST_HEIGHT)
}

/// Whether the right part goes on with the line of the left one: near beside, about as high, at the same height.
fn is_beside(left: &Part, right: &Part) -> bool {
    let (low, high) = min_max(left.height(), right.height());
    5 * right.left <= 5 * left.right + 6 * high
        && high <= 2 * low + 1
        && shares_half((left.top, left.bottom), (right.top, right.bottom), low)
}

/// Whether two ranges overlap by half of a length.
fn shares_half(one: (u32, u32), other: (u32, u32), length: u32) -> bool {
    2 * one.1.min(other.1) >= length + 2 * one.0.max(other.0)
}

fn min_max(one: u32, other: u32) -> (u32, u32) {
    (one.min(other), one.max(other))
}

/// Groups parts by a sweep from left to right that remembers for each row the part that covered it last. A part is
/// compared with the last ones at its middle, at a quarter and at three quarters of its height.
///
/// Returns each part with the number of its group, sorted by group, and within it from left to right.
fn grouped(mut parts: Vec<Part>, is_next: impl Fn(&Part, &Part) -> bool) -> Vec<(u32, Part)> {
    parts.sort_unstable_by_key(|part| (part.left, part.top, part.right, part.bottom));
    let rows = parts.iter().map(|part| part.bottom).max().unwrap_or_default();
    let mut forest = Forest::default();
    let mut last = vec![u32::MAX; rows as usize];
    for part in &parts {
        let number = forest.add();
        let height = part.height();
        for row in [height / 4, height / 2, height * 3 / 4].map(|down| part.top + down) {
            let other = last[row as usize];
            if let Some(before) = parts.get(other as usize)
                && is_next(before, part)
            {
                let (root, other) = (forest.root(number), forest.root(other));
                forest.unite(other, root);
            }
        }
        last[part.top as usize..part.bottom as usize].fill(number);
    }
    let mut numbered: Vec<(u32, Part)> =
        (0..).zip(parts).map(|(number, part)| (forest.root(number), part)).collect();
    // A stable sort, which keeps the order from left to right.
    numbered.sort_by_key(|(root, _)| *root);
    numbered
}

/// The groups of parts that are sorted by group.
fn groups(grouped: &[(u32, Part)]) -> impl Iterator<Item = &[(u32, Part)]> {
    grouped.chunk_by(|(one, _), (other, _)| one == other)
}
