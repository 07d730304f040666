//! Decides whether the text that a page carries is what a viewer sees.
//!
//! A reader of the answer cannot tell text of the file from text that was recognized, so each rule refuses where it is
//! in doubt: the page is then read from its picture.

use hayro::hayro_interpret::hayro_cmap::BfString;
use hayro::kurbo::{Point, Rect};

use super::marks::{Ground, Mark, Marks};
use super::reading_order::{self, Glyph};
use crate::document::page::TextLayer;

/// The fewest letters and digits of a page that is read from its text.
const FEWEST_LETTERS: usize = 20;

/// The most glyphs that stand for no character, in percent.
const MOST_UNMAPPED: usize = 2;

/// The most glyphs that are not visible, in percent: more are the traces of an earlier recognition or of a redaction.
const MOST_HIDDEN: usize = 5;

/// The most glyphs that lie sideways or upside down, in percent.
const MOST_TURNED: usize = 10;

/// The most of the page that pictures without text over them may cover, in percent: more may be a scan.
const MOST_PICTURES: usize = 15;

/// The most shapes that may be outlined letters, in percent of the glyphs.
const MOST_OUTLINES: usize = 25;

/// Outlined shapes that any page may have: bullets and logos.
const FEW_OUTLINES: usize = 30;

/// The smallest difference in lightness at which text can be seen on its ground.
const CONTRAST: f32 = 0.06;

/// The most comparisons of glyphs with covers.
const MOST_COMPARISONS: usize = 50_000_000;

/// The cells across and down in which pictures and text are compared.
const GRID: usize = 48;

/// How often the letters A to Z occur in English, in parts of ten thousand.
const FREQUENCIES: [u64; 26] = [
    817, 149, 278, 425, 1270, 223, 202, 609, 697, 15, 77, 403, 241, 675, 751, 193, 10, 599, 633,
    906, 276, 98, 236, 15, 197, 7,
];

/// The least mean of the frequencies of a text's letters. English, German, French, Spanish, Polish, Turkish, Finnish,
/// Indonesian, Swahili and Pinyin have 549 to 728. Permuted letters have 385 on average. So this
/// finds a font that states wrong characters for its glyphs.
const LEAST_FREQUENCY: u64 = 520;

/// The fewest letters of a text that is compared with [`LEAST_FREQUENCY`].
const LETTERS_FOR_FREQUENCY: u64 = 150;

/// The text of a page, if it is sound. `unit` is that of the page, in points.
pub(super) fn text_layer(marks: &Marks, area: Rect, unit: f64) -> Option<TextLayer> {
    let comparisons = marks.glyphs.len().saturating_mul(marks.covers.len());
    if marks.is_cut || marks.has_vertical_text || comparisons > MOST_COMPARISONS {
        return None;
    }
    let inked: Vec<(usize, &Mark)> =
        marks.glyphs.iter().enumerate().filter(|(_, mark)| !mark.is_space()).collect();
    let visible = inked.iter().filter(|(index, mark)| is_visible(*index, mark, marks)).count();
    let hidden = inked.len().saturating_sub(visible);
    let spaces = marks.glyphs.iter().enumerate().filter(|(_, mark)| mark.is_space());
    let shown = inked.iter().copied().filter(|(index, mark)| is_visible(*index, mark, marks));
    let mut shown: Vec<(usize, &Mark)> = shown.chain(spaces).collect();
    shown.sort_unstable_by_key(|(index, _)| *index);

    let mut tally = Tally::default();
    let mut glyphs = Vec::new();
    for (_, mark) in shown {
        let Some(text) = characters(mark) else {
            tally.unmapped += 1;
            continue;
        };
        tally.count(&text);
        let quarter = quarter_turns(mark)?;
        tally.turned += usize::from(quarter != 0 && !mark.is_space());
        glyphs.push(Glyph { text, at: mark.at, em: mark.em, advance: mark.advance, quarter });
    }
    let share = |part: usize, most: usize| part.saturating_mul(100) <= visible.saturating_mul(most);
    let sound = share(hidden, MOST_HIDDEN)
        && share(tally.unmapped, MOST_UNMAPPED)
        && share(tally.turned, MOST_TURNED)
        && (marks.outlines <= FEW_OUTLINES || share(marks.outlines, MOST_OUTLINES))
        && tally.is_readable()
        && uncovered_pictures(marks, area) <= MOST_PICTURES;
    sound.then(|| TextLayer { lines: reading_order::lines(glyphs, area, unit) })
}

/// The characters of a glyph. `None` where the file does not say them, or says what is none.
fn characters(mark: &Mark) -> Option<String> {
    let text = match mark.text.as_ref()? {
        BfString::Char(character) => character.to_string(),
        BfString::String(text) => text.clone(),
    };
    let sound = !text.is_empty() && text.chars().all(|it| it.is_whitespace() || is_character(it));
    sound.then_some(text)
}

/// Whether it is a character that text consists of: not private, not a control and not the replacement.
fn is_character(character: char) -> bool {
    let private = matches!(character, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..);
    !private
        && !character.is_control()
        && !matches!(character, '\u{fffd}' | '\u{fff0}'..='\u{ffff}')
}

/// How often the baseline is turned clockwise by a quarter. `None` for another angle, as of a watermark.
fn quarter_turns(mark: &Mark) -> Option<u8> {
    const STRAIGHT: f64 = 0.999;
    match mark.along {
        along if along.x > STRAIGHT => Some(0),
        along if along.y > STRAIGHT => Some(1),
        along if along.x < -STRAIGHT => Some(2),
        along if along.y < -STRAIGHT => Some(3),
        _ => None,
    }
}

/// Whether a glyph can be seen: it is painted, in another color than its ground, and nothing lies over it.
fn is_visible(index: usize, mark: &Mark, marks: &Marks) -> bool {
    let Some(lightness) = mark.lightness else { return false };
    let center = mark.center();
    let mut ground = Ground::Even(1.0);
    for cover in marks.covers.iter().filter(|cover| cover.area.contains(center)) {
        if cover.after > index {
            return false;
        }
        ground = cover.ground;
    }
    match ground {
        Ground::Even(ground) => (ground - lightness).abs() >= CONTRAST,
        Ground::Mixed => true,
    }
}

/// What the characters of a page are.
#[derive(Default)]
struct Tally {
    letters: usize,
    latin: u64,
    /// The sum of the frequencies of the letters A to Z.
    frequency: u64,
    unmapped: usize,
    turned: usize,
    /// Characters of scripts whose order in the file is not that of reading.
    reordered: usize,
}

impl Tally {
    fn count(&mut self, text: &str) {
        for character in text.chars() {
            self.letters += usize::from(character.is_alphanumeric());
            if let Some(letter) = letter(character) {
                self.latin += 1;
                self.frequency += FREQUENCIES[letter];
            }
            self.reordered += usize::from(is_reordered(character));
        }
    }

    fn is_readable(&self) -> bool {
        self.letters >= FEWEST_LETTERS
            && self.reordered == 0
            && (self.latin < LETTERS_FOR_FREQUENCY
                || self.frequency >= self.latin.saturating_mul(LEAST_FREQUENCY))
    }
}

/// The place of a letter in the alphabet of 26.
fn letter(character: char) -> Option<usize> {
    let byte = u8::try_from(character).ok().filter(u8::is_ascii_alphabetic)?;
    Some(usize::from(byte.to_ascii_lowercase() - b'a'))
}

/// Whether files store the script by its look: from right to left, or with vowels that stand before their consonant.
fn is_reordered(character: char) -> bool {
    matches!(
        character,
        // Hebrew to Arabic Extended-A, their presentation forms, and their marks of direction.
        '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefe}' | '\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}'
        // Scripts of India, Myanmar and Khmer.
        | '\u{900}'..='\u{dff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
    )
}

/// The share of the page that pictures cover without text over them, in percent.
fn uncovered_pictures(marks: &Marks, area: Rect) -> usize {
    if marks.pictures.is_empty() {
        return 0;
    }
    let mut cells = vec![false; GRID * GRID];
    for picture in &marks.pictures {
        let (first, last) =
            (cell(picture.origin(), area), cell(Point::new(picture.x1, picture.y1), area));
        for row in first.1..=last.1 {
            cells[row * GRID + first.0..=row * GRID + last.0].fill(true);
        }
    }
    for mark in &marks.glyphs {
        let (column, row) = cell(mark.center(), area);
        cells[row * GRID + column] = false;
    }
    cells.iter().filter(|covered| **covered).count() * 100 / (GRID * GRID)
}

/// The column and row of a point.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the result is clamped to the grid"
)]
fn cell(at: Point, area: Rect) -> (usize, usize) {
    let index = |at: f64, side: f64| ((at / side * GRID as f64).max(0.0) as usize).min(GRID - 1);
    (index(at.x, area.width()), index(at.y, area.height()))
}
