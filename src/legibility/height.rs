//! The height of the smallest body text.

use serde::{Deserialize, Serialize};

use super::components::Part;
use super::lines::lines;

/// The smallest body text of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TextHeight {
    /// The height of its characters in pixels of the picture: of the letter x or a digit, or of a whole CJK character.
    pub height: f32,
    /// The mean number of strokes that a column of its lines crosses: about 1.8 for Latin, 2.4 for CJK.
    pub strokes: f32,
}

/// With fewer characters in lines the height is not known.
const LEAST_CHARACTERS: usize = 40;

/// One in so many characters may be smaller than what decides. A higher share saves more and loses footnotes.
const SMALLER: usize = 10;

/// With more than so many parts for each character that are at least half as high, a few parts of a texture or a photo
/// are in line by chance. Drawn textures have 3 to 25, and receipts on a dirty ground 2.3.
const TEXTURE: usize = 3;

/// A part of a line that is wider than so many heights is letters that touch. Its height counts half, since it is that
/// of ascenders.
const TOUCHING: f32 = 1.8;

/// The strokes that a column of text crosses. Dashes and rows of dots have fewer, hatching and photos have more.
const STROKES: std::ops::RangeInclusive<f32> = 1.2..=3.5;

/// The median part of a line is no narrower in heights: words or rules that lie across the line are.
const LEAST_ASPECT: f32 = 0.35;

/// The strokes of text are those of the characters up to so many times its height.
const LIKE: f32 = 1.3;

/// A character of a line of text.
pub(super) struct Character {
    pub(super) part: Part,
    /// The height of the characters of its line.
    height: f32,
    /// The strokes that a column of its line crosses.
    strokes: f32,
}

/// The text of a picture. Heights are in pixels of the reduced picture.
pub(super) struct Text {
    /// All characters in lines, however few.
    pub(super) characters: Vec<Character>,
    /// What the smallest body text needs. `None` if there are too few characters to know.
    pub(super) body: Option<TextHeight>,
    /// The height of the smallest characters, or 0 if that is not known.
    pub(super) smallest: f32,
}

impl Text {
    /// Finds the text of a picture with these parts and this longer side.
    pub(super) fn of(mut parts: Vec<Part>, longer_side: u32) -> Self {
        parts.retain(|part| may_be_text(part, longer_side));
        let characters = characters(&parts);
        let mut heights: Vec<f32> = characters.iter().map(|character| character.height).collect();
        heights.sort_unstable_by(f32::total_cmp);
        if heights.len() < LEAST_CHARACTERS {
            return Self { characters, body: None, smallest: 0.0 };
        }
        let height = heights[heights.len() / SMALLER];
        let is_as_large = |part: &&Part| float(part.width().max(part.height())) >= height / 2.0;
        if TEXTURE * characters.len() < parts.iter().filter(is_as_large).count() {
            return Self { characters, body: None, smallest: 0.0 };
        }
        let like = characters.iter().filter(|character| character.height <= LIKE * height);
        let strokes = median(like.map(|character| character.strokes).collect());
        let smallest = heights[heights.len() / 20];
        Self { characters, body: Some(TextHeight { height, strokes }), smallest }
    }
}

/// Whether a part can be a character or a fragment of one, by its size, its shape and how much of its box is ink.
fn may_be_text(part: &Part, longer_side: u32) -> bool {
    let (width, height) = (part.width(), part.height());
    let (short, long) = (width.min(height), width.max(height));
    let (area, boxed) = (u64::from(part.area), u64::from(width) * u64::from(height));
    (2..=longer_side / 6).contains(&long)
        && long <= 40 * short
        && area >= 2
        && 12 * area >= boxed
        && 100 * area <= 97 * boxed + 300
}

/// The characters of the lines across, or of those down where these are longer.
fn characters(parts: &[Part]) -> Vec<Character> {
    let across = lines(parts);
    let transposed: Vec<Part> = parts.iter().map(Part::transposed).collect();
    let down = lines(&transposed);
    // Dense text has lines in both directions. Gaps along the line are narrower, so its true lines are longer.
    let score = |lines: &[Vec<Part>]| lines.iter().map(|line| line.len().pow(2)).sum::<usize>();
    let is_down = 2 * score(&down) > 3 * score(&across);
    let lines = if is_down { down } else { across };
    let mut characters: Vec<Character> =
        lines.iter().filter_map(|line| measured(line)).flatten().collect();
    if is_down {
        for character in &mut characters {
            character.part = character.part.transposed();
        }
    }
    characters
}

/// The characters of a line; `None` if it is no text.
fn measured(line: &[Part]) -> Option<impl Iterator<Item = Character>> {
    let strokes = strokes(line);
    let shape = median(line.iter().map(aspect).collect());
    if !STROKES.contains(&strokes) || shape < LEAST_ASPECT {
        return None;
    }
    let heights = line.iter().map(|part| {
        let height = float(part.height());
        if aspect(part) > TOUCHING { height / 2.0 } else { height }
    });
    let height = median(heights.collect());
    Some(line.iter().map(move |part| Character { part: *part, height, strokes }))
}

/// The runs of ink in the columns of a line, for each column that has ink.
fn strokes(line: &[Part]) -> f32 {
    let mut covered = 0;
    let mut end = 0;
    for part in line {
        covered += part.right.saturating_sub(part.left.max(end));
        end = end.max(part.right);
    }
    let runs = line.iter().map(|part| part.column_runs).sum::<u32>();
    float(runs) / float(covered.max(1))
}

/// Width by height.
fn aspect(part: &Part) -> f32 {
    float(part.width()) / float(part.height())
}

/// The median; the mean of both for an even number of values. Zero for none.
fn median(mut values: Vec<f32>) -> f32 {
    values.sort_unstable_by(f32::total_cmp);
    let middle = values.len() / 2;
    match &values[..] {
        [] => 0.0,
        values if values.len() % 2 == 1 => values[middle],
        values => f32::midpoint(values[middle - 1], values[middle]),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a line are below 2^24")]
fn float(count: u32) -> f32 {
    count as f32
}
