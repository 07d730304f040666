//! What differs from its surroundings: ink, and all that can be seen however faint.

use super::bitmap::{Bitmap, word_of};
use super::gray::Gray;
use super::ground::{TILE, dark_tiles, noise};
use super::means::Means;

/// Half the side of the surroundings: more than a stroke, less than the distance of lines.
const SURROUNDINGS: usize = 12;

/// Ink differs from its surroundings by more levels than so many standard deviations of the noise, ...
const INK_OF_NOISE: f32 = 5.0;
/// ... but never less than the first and never more than the second of these.
const INK: (f32, f32) = (24.0, 64.0);

/// The mean of 3 by 3 pixels is compared for what is faint: pencil may be fainter than the noise of a pixel.
const NEAR: usize = 1;
const VISIBLE_OF_NOISE: f32 = 1.6;
/// The blank paper of a JPEG differs by one or two levels. The second keeps a noisy page from being taken for blank.
const VISIBLE: (f32, f32) = (3.0, 8.0);

/// The pixels that differ from their surroundings.
pub(super) struct Marks {
    /// Ink with the contrast of text: darker than its surroundings on light ground, lighter on dark ground.
    pub(super) ink: Bitmap,
    /// What can be seen at all.
    pub(super) visible: Bitmap,
}

impl Marks {
    pub(super) fn of(gray: &Gray) -> Self {
        let noise = noise(gray);
        let contrast = levels(noise * INK_OF_NOISE, INK);
        let faint = levels(noise * VISIBLE_OF_NOISE, VISIBLE);
        let darker = |level: u8, mean: u8| mean.saturating_sub(level) > contrast;
        let lighter = |level: u8, mean: u8| level.saturating_sub(mean) > contrast;
        let differs = |near: u8, mean: u8| near.abs_diff(mean) > faint;
        let dark = dark_tiles(gray);
        let mut ink = Bitmap::new(gray.width, gray.height);
        let mut visible = Bitmap::new(gray.width, gray.height);
        let (mut near, mut surroundings) = (Means::new(gray, NEAR), Means::new(gray, SURROUNDINGS));
        let stride = ink.stride;
        for (y, (ink, visible)) in ink.rows_mut().zip(visible.rows_mut()).enumerate() {
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
            let pixels = near.next_row().chunks(TILE).zip(mean.chunks(TILE));
            for (word, (near, mean)) in visible.iter_mut().zip(pixels) {
                *word = word_of(near, mean, differs);
            }
        }
        Self { ink, visible }
    }
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
