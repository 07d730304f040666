//! What differs from its surroundings: ink, and all that can be seen however faint.

use super::bitmap::{Bitmap, WORD, word_of};
use super::gray::Gray;
use super::ground::{TILE, dark_tiles, grain, noise};
use super::means::Means;
use super::near::Near;
use super::sums::Sums;

/// Half the side of the surroundings: more than a stroke, less than the distance of lines.
const SURROUNDINGS: usize = 12;

/// Ink differs from its surroundings by more levels than so many standard deviations of the noise, ...
const INK_OF_NOISE: f32 = 5.0;
/// ... but never less than the first and never more than the second of these.
const INK: (f32, f32) = (24.0, 64.0);

/// What is visible differs by more levels than so many times the grain of the paper, ...
const VISIBLE_OF_GRAIN: f32 = 4.0;
/// ... but never less than the first and never more than the second of these. The blank paper of a JPEG differs by one
/// or two levels. The second keeps a page of coarse grain from being taken for blank.
const VISIBLE: (f32, f32) = (3.0, 6.0);

/// The pixels that differ from their surroundings.
pub(super) struct Marks {
    /// Ink with the contrast of text: darker than its surroundings on light ground, lighter on dark ground.
    pub(super) ink: Bitmap,
    /// What can be seen at all.
    pub(super) visible: Bitmap,
    /// What is visible differs by more levels.
    pub(super) least_visible: u8,
}

impl Marks {
    pub(super) fn of(gray: &Gray, sums: &Sums) -> Self {
        let mut ink = Bitmap::new(gray.width, gray.height);
        let contrast = levels(noise(gray) * INK_OF_NOISE, INK);
        let darker = |level: u8, mean: u8| mean.saturating_sub(level) > contrast;
        let lighter = |level: u8, mean: u8| level.saturating_sub(mean) > contrast;
        let dark = dark_tiles(gray, sums);
        let (mut near, mut surroundings) = (Near::new(gray), Means::new(gray, SURROUNDINGS));
        let mut differences = Vec::with_capacity(gray.width * gray.height);
        let stride = ink.stride;
        for (y, ink) in ink.rows_mut().enumerate() {
            let mean = surroundings.next_row();
            let tiles = ink.iter_mut().zip(&dark[y / TILE * stride..]);
            let pixels = gray.row(y).chunks(TILE).zip(mean.chunks(TILE));
            for ((word, is_dark), (level, mean)) in tiles.zip(pixels) {
                *word = if *is_dark {
                    word_of(level, mean, lighter)
                } else {
                    word_of(level, mean, darker)
                };
            }
            let pairs = near.next_row().iter().zip(mean);
            differences.extend(pairs.map(|(near, mean)| near.abs_diff(*mean)));
        }
        // More than the grain of the paper.
        let least_visible = levels(grain(&differences, gray.width) * VISIBLE_OF_GRAIN, VISIBLE);
        Self { ink, visible: visible(&differences, gray, least_visible), least_visible }
    }
}

/// What differs by more than `least` levels.
fn visible(differences: &[u8], gray: &Gray, least: u8) -> Bitmap {
    let mut visible = Bitmap::new(gray.width, gray.height);
    for (row, differences) in visible.rows_mut().zip(differences.chunks_exact(gray.width)) {
        for (word, differences) in row.iter_mut().zip(differences.chunks(WORD)) {
            *word = word_of(differences, differences, |difference, _| difference > least);
        }
    }
    visible
}

/// A number of levels between two bounds, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the bounds are levels"
)]
fn levels(levels: f32, (least, most): (f32, f32)) -> u8 {
    levels.clamp(least, most) as u8
}
