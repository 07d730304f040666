//! The ground on which there may be ink: how noisy it is, and where it is dark.

use super::bitmap::{BLOCK, WORD};
use super::gray::Gray;
use super::sums::{PARTS, Sums};

/// The side of a tile. The ground is dark or light by tile.
pub(super) const TILE: usize = WORD;

/// Noise is measured in one of so many rows.
const NOISE_ROWS: usize = 4;

/// A tile with less contrast has no ink of its own.
const TILE_CONTRAST: u8 = 48;

/// The standard deviation of the noise, in levels.
///
/// It is taken from the median difference between a pixel and the mean of its two neighbours. Paper is flat and is most
/// of a page, so text does not change the median.
pub(super) fn noise(gray: &Gray) -> f32 {
    let mut counts = [0_u32; 2 * 255 + 1];
    for row in gray.rows().step_by(NOISE_ROWS) {
        let neighbours = row.iter().zip(row.iter().skip(2));
        for (here, (left, right)) in row.iter().skip(1).zip(neighbours) {
            let sides = u16::from(*left) + u16::from(*right);
            counts[usize::from((2 * u16::from(*here)).abs_diff(sides))] += 1;
        }
    }
    let half = counts.iter().sum::<u32>().div_ceil(2);
    let mut up_to = 0;
    let median = counts.iter().position(|count| {
        up_to += count;
        up_to >= half
    });
    // The second difference of noise has a deviation of the square root of 6 times that of the noise, and its median
    // is 0.6745 times its deviation.
    0.605 * f32::from(u16::try_from(median.unwrap_or_default()).unwrap_or_default())
}

/// The mean of the differences in flat paper: in the tile of which a tenth of the tiles has less.
pub(super) fn grain(differences: &[u8], width: usize) -> f32 {
    let mut tiles = Vec::new();
    for band in differences.chunks(width * TILE) {
        let mut sums = vec![(0_u32, 0_u32); width.div_ceil(TILE)];
        for row in band.chunks_exact(width) {
            for ((sum, count), levels) in sums.iter_mut().zip(row.chunks(TILE)) {
                *sum = levels.iter().fold(*sum, |sum, level| sum.wrapping_add(u32::from(*level)));
                *count += u32::try_from(levels.len()).unwrap_or_default();
            }
        }
        tiles.extend(sums.iter().map(|(sum, count)| 256 * sum / count));
    }
    tiles.sort_unstable();
    let mean = tiles.get(tiles.len() / 10).copied().unwrap_or_default();
    f32::from(u16::try_from(mean).unwrap_or(u16::MAX)) / 256.0
}

/// For each tile whether its ground is dark, from left to right and from top to bottom.
pub(super) fn dark_tiles(gray: &Gray, sums: &Sums) -> Vec<bool> {
    let across = gray.width.div_ceil(TILE);
    let mut tiles = Vec::with_capacity(across * gray.height.div_ceil(TILE));
    let mut row = vec![Levels::default(); across];
    // A tile has whole blocks, so the means of these tell its mean.
    let mut means = sums.means.chunks(sums.across);
    for y in 0..gray.height {
        for (tile, levels) in row.iter_mut().zip(gray.row(y).chunks(TILE)) {
            tile.add(levels);
        }
        if (y + 1) % TILE == 0 || y + 1 == gray.height {
            for means in means.by_ref().take(TILE / BLOCK) {
                for (tile, means) in row.iter_mut().zip(means.chunks(TILE / BLOCK)) {
                    tile.add_means(means);
                }
            }
            tiles.extend(row.iter().map(Levels::is_dark));
            row.fill(Levels::default());
        }
    }
    tiles
}

/// The levels of a tile.
#[derive(Clone)]
struct Levels {
    least: u8,
    most: u8,
    /// Of the means of its blocks, in parts of a level, ...
    sum: i32,
    /// ... and their number.
    count: i32,
}

impl Default for Levels {
    fn default() -> Self {
        Self { least: u8::MAX, most: 0, sum: 0, count: 0 }
    }
}

impl Levels {
    fn add(&mut self, levels: &[u8]) {
        self.least = levels.iter().copied().fold(self.least, u8::min);
        self.most = levels.iter().copied().fold(self.most, u8::max);
    }

    fn add_means(&mut self, means: &[i32]) {
        self.sum += means.iter().sum::<i32>();
        self.count += i32::try_from(means.len()).unwrap_or_default();
    }

    /// Whether most of the tile is dark: the mean is nearer to the darkest level, by two fifths of the contrast.
    fn is_dark(&self) -> bool {
        let contrast = self.most.saturating_sub(self.least);
        let mean = PARTS * (2 * i32::from(contrast) + 5 * i32::from(self.least));
        contrast >= TILE_CONTRAST && 5 * self.sum < mean * self.count
    }
}
