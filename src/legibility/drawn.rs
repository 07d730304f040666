//! Pages for the tests of this module.

use crate::image::Size;
use crate::pixels::raster::{Raster, Samples};

/// Letters of five by seven squares, about as dense as Latin text.
pub(super) const LATIN: [[&str; 7]; 4] = [
    [" ### ", "#   #", "#   #", "#   #", "#   #", "#   #", " ### "],
    ["#### ", "#   #", "#   #", "#### ", "#    ", "#    ", "#    "],
    ["#   #", "#   #", "#   #", "#####", "#   #", "#   #", "#   #"],
    ["#####", "#    ", "#    ", "#### ", "#    ", "#    ", "#####"],
];

/// Characters of seven by seven squares, about as dense as Chinese text.
pub(super) const CHINESE: [[&str; 7]; 2] = [
    ["#######", "#     #", "#     #", "#######", "#     #", "#     #", "#######"],
    ["#######", "   #   ", " ##### ", "   #   ", "#######", "   #   ", "#######"],
];

/// A gray page.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) levels: Vec<u8>,
}

impl Page {
    /// A page of one level.
    pub(super) fn of(level: u8, width: u32, height: u32) -> Self {
        Self { width, height, levels: vec![level; (width * height) as usize] }
    }

    /// White paper.
    pub(super) fn white(width: u32, height: u32) -> Self {
        Self::of(255, width, height)
    }

    /// Changes each level by what is computed from its place and itself.
    pub(super) fn each(mut self, level: impl Fn(u32, u32, u8) -> u8) -> Self {
        let places = (0..self.height).flat_map(|y| (0..self.width).map(move |x| (x, y)));
        for (old, (x, y)) in self.levels.iter_mut().zip(places) {
            *old = level(x, y, *old);
        }
        self
    }

    /// Fills a rectangle.
    pub(super) fn filled(mut self, [left, top, width, height]: [u32; 4], level: u8) -> Self {
        for y in top..top + height {
            let start = (y * self.width + left) as usize;
            self.levels[start..start + width as usize].fill(level);
        }
        self
    }

    /// Draws a line of so many characters in ink of a level, whose squares have sides of `scale` pixels.
    pub(super) fn line(
        mut self,
        font: &[[&str; 7]],
        (left, top): (u32, u32),
        (scale, count): (u32, u32),
        ink: u8,
    ) -> Self {
        let mut x = left;
        for glyph in font.iter().cycle().take(count as usize) {
            for (y, row) in (top..).step_by(scale as usize).zip(glyph) {
                let inked = row.bytes().zip((x..).step_by(scale as usize));
                for (_, x) in inked.filter(|(square, _)| *square == b'#') {
                    self = self.filled([x, y, scale, scale], ink);
                }
            }
            x += scale * (u32::try_from(glyph[0].len()).unwrap() + 2);
        }
        self
    }

    /// Draws lines of 20 characters until so many characters are drawn.
    pub(super) fn text(self, font: &[[&str; 7]], top: u32, scale: u32, count: u32) -> Self {
        let lines = 0..count.div_ceil(20);
        lines.fold(self, |page, line| {
            let place = (8, top + line * 14 * scale);
            page.line(font, place, (scale, (count - line * 20).min(20)), 0)
        })
    }

    /// Darkens a disc by so many levels at its middle. Its edge is so many pixels wide.
    pub(super) fn disc(self, (x, y): (u32, u32), radius: u32, softness: u32, depth: u32) -> Self {
        self.each(|at_x, at_y, level| {
            let from = (at_x.abs_diff(x).pow(2) + at_y.abs_diff(y).pow(2)).isqrt();
            let inside = (radius + softness / 2).saturating_sub(from).min(softness);
            level - u8::try_from(depth * inside / softness).unwrap()
        })
    }

    /// Darkens a line one pixel wide, so many pixels long and down by so many rows for eight columns.
    pub(super) fn hairline(
        self,
        (left, top): (u32, u32),
        length: u32,
        slope: u32,
        depth: u8,
    ) -> Self {
        self.each(|x, y, level| {
            let along = x.wrapping_sub(left);
            if along < length && y == top + along * slope / 8 { level - depth } else { level }
        })
    }

    /// Adds noise between the negative and the positive number of levels.
    pub(super) fn noisy(self, levels: u8) -> Self {
        let mut state = 0x2545_f491_u32;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        let mut page = self;
        for level in &mut page.levels {
            let raised = u32::from(*level) + random() % (2 * u32::from(levels) + 1);
            *level = u8::try_from(raised.saturating_sub(u32::from(levels)).min(255)).unwrap();
        }
        page
    }

    /// The page on yellowish paper.
    pub(super) fn on_yellow(self) -> Raster {
        let colour = |level: u8| [level, level.saturating_sub(3), level.saturating_sub(14)];
        let data = self.levels.into_iter().flat_map(colour).collect();
        Raster::new(Size::new(self.width, self.height), Samples::Rgb, data).unwrap()
    }

    pub(super) fn raster(self) -> Raster {
        Raster::new(Size::new(self.width, self.height), Samples::Gray, self.levels).unwrap()
    }
}
