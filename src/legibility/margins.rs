//! The margins of a page: everything round what can be seen.

use super::bitmap::{BLOCK, Bitmap};
use super::components::{Part, components};
use super::gray::Gray;
use super::grid;
use super::hairlines::hairlines;
use super::height::Text;
use super::marks::Marks;
use super::shades::shades;
use super::shadow::Strip;
use super::sums::Sums;
use crate::image::Size;
use crate::image::region::Region;

/// A block with fewer visible pixels is blank.
const LEAST_VISIBLE: u8 = 4;

/// With more groups of blocks than this none is taken for dust. Bounds the work.
const MOST_GROUPS: usize = 2_000;

/// The most blocks of a speck of dust along either side.
const DUST_BLOCKS: usize = 3;
/// The most specks of a group of blocks that is dust.
const DUST_SPECKS: usize = 4;
/// A speck is dust below this side in pixels, two of which it was widened by. A character is larger.
const DUST: u32 = 6;
/// On a page with so many specks, a speck is dust also below this share of the height of the smallest characters, and
/// those two pixels. A few specks may be a page number, or the numbers of a list.
const MANY_SPECKS: usize = 24;
const DUST_OF_TEXT: f32 = 0.6;
const WIDENED: f32 = 2.0;

/// The margin that is kept, in heights of the text: Tesseract loses lines at the edge with one.
const MARGIN_OF_TEXT: f32 = 2.0;

/// The margin where that height is not known, and the least, in reduced pixels.
const MARGIN: f32 = 32.0;
const LEAST_MARGIN: f32 = 8.0;

/// No side of the content is shorter, in pixels of the picture, unless the picture is.
const LEAST_SIDE: u32 = 256;

/// What can be seen of a picture.
pub(super) struct Seen<'a> {
    pub(super) marks: &'a Marks,
    pub(super) gray: &'a Gray<'a>,
    /// The blocks that differ in colour ([`coloured`](super::colour::coloured)).
    pub(super) coloured: Vec<bool>,
    pub(super) sums: &'a Sums,
}

/// The part of the picture that holds all that can be seen, with a margin. `None` if nothing can be seen.
///
/// Dust and the shadow of an edge do not count. Characters in lines always count, and so does what no single pixels show:
/// what differs in nothing but its colour, hairlines and soft shapes.
pub(super) fn content(seen: &Seen, text: &Text, size: Size) -> Option<Region> {
    let (visible, factor) = (&seen.marks.visible, u32::from(seen.gray.factor));
    let mut blocks = Blocks::of(visible, seen);
    let mut groups = blocks.groups().unwrap_or_default();
    let has_text = blocks.places(text.characters.iter().map(|character| &character.part));
    groups.retain(|group| !group.members.iter().any(|member| has_text[*member]));
    let specks: Vec<_> = groups.iter().map(|group| group.speck(&blocks, visible)).collect();
    let dust = dust(&specks, text.smallest);
    for (group, speck) in groups.iter().zip(specks) {
        let is_dust = speck.is_some_and(|side| side < dust);
        if is_dust || group.is_shadow(&blocks, seen) {
            group.members.iter().for_each(|member| blocks.set[*member] = false);
        }
    }
    let margin = text.body.map_or(MARGIN, |body| MARGIN_OF_TEXT * body.height);
    let part = blocks.bounds()?.pixels(whole(margin.max(LEAST_MARGIN)) as usize);
    let (left, right) = side(part.left, part.right, factor, size.width);
    let (top, bottom) = side(part.top, part.bottom, factor, size.height);
    Some(Region { left, top, right, bottom })
}

/// The side below which a speck is dust. `smallest` is the height of the smallest characters.
fn dust(specks: &[Option<u32>], smallest: f32) -> u32 {
    let dust = whole(DUST_OF_TEXT * smallest + WIDENED).max(DUST);
    let count = specks.iter().flatten().filter(|side| **side < dust).count();
    if count < MANY_SPECKS { DUST } else { dust }
}

/// Start and end in pixels of the picture, moved apart and into the picture as far as a side needs.
fn side(start: usize, end: usize, factor: u32, length: u32) -> (u32, u32) {
    let scaled =
        |at: usize| u32::try_from(at).unwrap_or(u32::MAX).saturating_mul(factor).min(length);
    let (start, end) = (scaled(start), scaled(end));
    let least = LEAST_SIDE.min(length);
    let lacking = least.saturating_sub(end - start);
    let start = start.saturating_sub(lacking / 2).min(length - (end - start) - lacking);
    (start, end.max(start + least))
}

/// The blocks of a page, from left to right and from top to bottom.
struct Blocks {
    across: usize,
    down: usize,
    /// Which are not blank.
    set: Vec<bool>,
    /// Which of them have no visible pixels, but differ as a whole.
    as_a_whole: Vec<bool>,
}

impl Blocks {
    fn of(visible: &Bitmap, seen: &Seen) -> Self {
        let across = visible.width.div_ceil(BLOCK);
        let mut set = Vec::new();
        let mut rows = visible.rows().peekable();
        while rows.peek().is_some() {
            let mut counts = vec![0_u64; visible.stride];
            for row in rows.by_ref().take(BLOCK) {
                for (count, word) in counts.iter_mut().zip(row) {
                    *count += ones(*word);
                }
            }
            let counts = counts.iter().flat_map(|count| count.to_le_bytes());
            set.extend(counts.take(across).map(|count| count >= LEAST_VISIBLE));
        }
        let mut as_a_whole = vec![false; set.len()];
        let coloured = seen.coloured.iter().enumerate().filter(|(_, is_coloured)| **is_coloured);
        let coloured = coloured.map(|(block, _)| block).filter(|block| !set[*block]);
        let faint =
            [hairlines(seen.sums, &set, seen.gray.factor > 1), shades(seen.sums, &set)].concat();
        coloured.chain(faint).for_each(|block| as_a_whole[block] = true);
        for (is_set, as_a_whole) in set.iter_mut().zip(&as_a_whole) {
            *is_set |= *as_a_whole;
        }
        Self { across, down: set.len() / across, set, as_a_whole }
    }

    /// The blocks that have the middle of a part.
    fn places<'a>(&self, parts: impl Iterator<Item = &'a Part>) -> Vec<bool> {
        let mut places = vec![false; self.set.len()];
        for part in parts {
            let middle = |start: u32, length: u32| (start + length / 2) as usize / BLOCK;
            let (x, y) = (middle(part.left, part.width()), middle(part.top, part.height()));
            places[y * self.across + x] = true;
        }
        places
    }

    /// Groups of blocks that touch, corners included. `None` if there are too many.
    fn groups(&self) -> Option<Vec<Group>> {
        let groups = grid::groups(&self.set, self.across);
        let group = |members: Vec<usize>| Some(Group { bounds: self.around(&members)?, members });
        (groups.len() <= MOST_GROUPS).then(|| groups.into_iter().filter_map(group).collect())
    }

    /// The bounds of what is not blank.
    fn bounds(&self) -> Option<Bounds> {
        let set: Vec<usize> = (0..self.set.len()).filter(|block| self.set[*block]).collect();
        self.around(&set)
    }

    /// The bounds of some blocks.
    fn around(&self, blocks: &[usize]) -> Option<Bounds> {
        let mut places = blocks.iter().map(|block| (block % self.across, block / self.across));
        let (x, y) = places.next()?;
        let mut bounds = Bounds::of(x, y);
        places.for_each(|(x, y)| bounds.extend(x, y));
        Some(bounds)
    }
}

/// Blocks that touch.
struct Group {
    members: Vec<usize>,
    bounds: Bounds,
}

impl Group {
    /// The longest side of the specks of the group in pixels. `None` if it is more than a few specks.
    fn speck(&self, page: &Blocks, visible: &Bitmap) -> Option<u32> {
        let Bounds { left, top, right, bottom } = self.bounds;
        let is_small = right - left <= DUST_BLOCKS && bottom - top <= DUST_BLOCKS;
        if !is_small || self.members.iter().all(|member| page.as_a_whole[*member]) {
            return None;
        }
        let around = self.bounds.pixels(2);
        let width = around.right - around.left;
        let mut window = Bitmap::new(width, around.bottom - around.top);
        for (y, row) in (around.top..).zip(window.rows_mut()) {
            row.fill(visible.word(y, around.left) & ((1 << width) - 1));
        }
        let specks = components(&window).unwrap_or_default();
        let specks = specks.iter().filter(|speck| speck.area >= 2);
        let side = |speck: &Part| speck.width().max(speck.height());
        let is_few = specks.clone().count() <= DUST_SPECKS;
        is_few.then(|| specks.map(side).max().unwrap_or_default())
    }

    /// Whether the group is the shadow of an edge of the page.
    fn is_shadow(&self, page: &Blocks, seen: &Seen) -> bool {
        if self.members.iter().any(|member| page.as_a_whole[*member]) {
            return false;
        }
        let Bounds { left, top, right, bottom } = self.bounds;
        let set = |x: usize, y: usize| page.set[y * page.across + x];
        let down = |x: usize| (top..bottom).filter(|y| set(x, *y)).count();
        let across = |y: usize| (left..right).filter(|x| set(*x, y)).count();
        let place = self.bounds.pixels(0);
        let strip = |is_upright, thickness, of, touching| Strip {
            columns: place.left..place.right,
            rows: place.top..place.bottom,
            is_upright,
            thickness,
            of,
            touching,
        };
        let (width, height) = (right - left, bottom - top);
        [
            (left == 0).then(|| strip(true, width, page.across, down(0))),
            (right == page.across).then(|| strip(true, width, page.across, down(right - 1))),
            (top == 0).then(|| strip(false, height, page.down, across(0))),
            (bottom == page.down).then(|| strip(false, height, page.down, across(bottom - 1))),
        ]
        .into_iter()
        .flatten()
        .any(|strip| strip.is_shadow(seen.gray, seen.marks.least_visible))
    }
}

/// The edges of some blocks or pixels. The right and the bottom ones are exclusive.
#[derive(Clone, Copy)]
struct Bounds {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

impl Bounds {
    fn of(x: usize, y: usize) -> Self {
        Self { left: x, top: y, right: x + 1, bottom: y + 1 }
    }

    fn extend(&mut self, x: usize, y: usize) {
        self.left = self.left.min(x);
        self.top = self.top.min(y);
        self.right = self.right.max(x + 1);
        self.bottom = self.bottom.max(y + 1);
    }

    /// The pixels of these blocks, with a margin.
    fn pixels(self, margin: usize) -> Self {
        Self {
            left: (self.left * BLOCK).saturating_sub(margin),
            top: (self.top * BLOCK).saturating_sub(margin),
            right: self.right * BLOCK + margin,
            bottom: self.bottom * BLOCK + margin,
        }
    }
}

/// For each byte the number of its bits that are set (Warren, "Hacker's Delight", figure 5-2).
fn ones(word: u64) -> u64 {
    let pairs = word - (word >> 1 & 0x5555_5555_5555_5555);
    let nibbles = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    (nibbles + (nibbles >> 4)) & 0x0f0f_0f0f_0f0f_0f0f
}

/// A length in whole pixels, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "heights are positive and below 2^32"
)]
fn whole(length: f32) -> u32 {
    length.ceil() as u32
}
