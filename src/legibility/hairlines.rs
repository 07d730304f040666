//! Hairlines: strokes that are too thin and too faint for the mean of a few pixels, such as faint pencil.

use super::grid::large_groups;
use super::sums::Sums;

/// A hairline has strokes in so many blocks that touch. Noise has them in few blocks, and in each by itself.
const LEAST_BLOCKS: usize = 10;

/// A stroke differs by more than so much: a line of one pixel by three and a half levels. The JPEG of a page that is
/// unevenly lit has strokes up to there.
const LEAST_STROKE: f32 = 27.0;
/// In a reduced picture, where the mean of some pixels has taken away most of what a JPEG adds, and of a hairline too.
const LEAST_REDUCED: f32 = 18.0;

/// A stroke that differs by more is no hairline: a line of one pixel by 16 levels, which can be seen in single pixels.
const MOST_STROKE: f32 = 128.0;

/// A stroke differs by more than so many times the strongest stroke of the median block: these are those of noise.
const STROKE_OF_NOISE: f32 = 1.8;

/// A JPEG has turned noise into strokes in some blocks and into none in the others. Then a stroke differs by more than
/// so many times what one in seven blocks has, ...
const STROKE_OF_FLICKER: f32 = 1.5;
const FLICKERING: usize = 7;
/// ... but that asks for no more than this: those blocks may also be a page of pencil.
const MOST_FLICKER: f32 = 40.0;

/// The blocks, of those that are not set, that hairlines cross.
pub(super) fn hairlines(sums: &Sums, set: &[bool], is_reduced: bool) -> Vec<usize> {
    let strokes = sums.strokes.iter().zip(set);
    let mut strokes: Vec<i16> =
        strokes.filter(|(_, is_set)| !**is_set).map(|(stroke, _)| *stroke).collect();
    let least = if is_reduced { LEAST_REDUCED } else { LEAST_STROKE }.max(noise(&mut strokes));
    // A hairline may be visible in some of its blocks only.
    let is_faint = |stroke: &i16| f32::from(*stroke) > least && f32::from(*stroke) <= MOST_STROKE;
    let marks: Vec<bool> = sums.strokes.iter().map(is_faint).collect();
    let crossed = large_groups(&marks, sums.across, LEAST_BLOCKS).into_iter();
    crossed.filter(|block| !set[*block]).collect()
}

/// The most that the strokes of noise differ by.
fn noise(strokes: &mut [i16]) -> f32 {
    if strokes.is_empty() {
        return 0.0;
    }
    let (_, median, higher) = strokes.select_nth_unstable(strokes.len() / 2);
    let noise = STROKE_OF_NOISE * f32::from(*median);
    let flickering = higher.len() * 2 / FLICKERING;
    let flicker = match flickering {
        0 => 0.0,
        count => f32::from(*higher.select_nth_unstable(higher.len() - count).1),
    };
    noise.max((STROKE_OF_FLICKER * flicker).min(MOST_FLICKER))
}
