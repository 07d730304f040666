//! The invisible text of a page, as a stream of operators.
//!
//! Each line is set so that its text fills its box exactly: the text matrix maps a square of one point to the height of
//! the box and to as much of its length as the advances of the characters ask for. A box that leans or lies on its side
//! turns the text with it.
//!
//! Text that runs from right to left is set in visual order, because readers of PDFs reverse it.
//!
//! poppler splits a line that leans, because its letters stand at different heights. Such a line also has its text as a
//! whole (`ActualText`).

use std::fmt::Write as _;
use std::ops::Range;

use unicode_bidi::BidiInfo;
use unicode_segmentation::UnicodeSegmentation as _;

use super::font::{GlyphlessFont, SPACE};
use super::object::matrix;
use crate::document::page::PlacedLine;

/// The least gap between words, as a share of the height of the text. Readers take less for a gap between letters:
/// poppler a tenth to 15 %.
const LEAST_GAP: f64 = 0.2;

/// The most of a line that its gaps take together.
const MOST_GAPS: f64 = 0.34;

/// How far the end of a line may be above or below its start, as a share of its height, before its text is said as a
/// whole.
const LEAN: f64 = 0.25;

/// How many times higher than wide a box is whose text may run from top to bottom.
const TALL: f64 = 1.5;

type Vector = [f64; 2];

/// Maps pixels from the top left corner of a page to its own units.
#[derive(Debug, Clone, Copy)]
pub(in crate::document) struct ToPage(pub(in crate::document) [f64; 6]);

impl ToPage {
    fn point(self, [x, y]: Vector) -> Vector {
        let ToPage([.., left, top]) = self;
        let [across, down] = self.vector([x, y]);
        [across + left, down + top]
    }

    fn vector(self, [x, y]: Vector) -> Vector {
        let ToPage([right_x, right_y, down_x, down_y, ..]) = self;
        [right_x * x + down_x * y, right_y * x + down_y * y]
    }
}

/// Where the text of a line stands: its first baseline point, and the vectors along the text and up to its top, in
/// pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Frame {
    origin: Vector,
    along: Vector,
    up: Vector,
}

/// One character with its marks.
struct Glyph {
    code: u16,
    /// In thousandths.
    advance: u16,
    is_space: bool,
}

/// The operators that set `lines`, with the font that the page knows by `font_name`.
pub(in crate::document) fn layer(
    lines: &[PlacedLine],
    to_page: ToPage,
    font: &mut GlyphlessFont,
    font_name: &str,
) -> Vec<u8> {
    let mut operators = format!("q BT 3 Tr/{font_name} 1 Tf\n");
    for line in lines {
        let text = cleaned(&line.text);
        let runs = runs(&text);
        let glyphs = glyphs(&text, &runs, font);
        if glyphs.is_empty() {
            continue;
        }
        // The whole is in the order of reading, and poppler would turn it around.
        let is_left_to_right = runs.iter().all(|(_, is_reversed)| !is_reversed);
        if is_left_to_right && leans(line.polygon) {
            operators.push_str("/Span<</ActualText<FEFF");
            for unit in text.encode_utf16() {
                let _ = write!(operators, "{unit:04X}");
            }
            operators.push_str(">>>BDC\n");
            set(&mut operators, &glyphs, line.polygon, to_page);
            operators.push_str("EMC\n");
        } else {
            set(&mut operators, &glyphs, line.polygon, to_page);
        }
    }
    operators.push_str("ET Q\n");
    operators.into_bytes()
}

/// The text as one line without controls. The end of a line would begin a paragraph for the algorithm of writing
/// directions.
fn cleaned(text: &str) -> String {
    let characters = text.chars().map(|it| if it.is_whitespace() { ' ' } else { it });
    let text: String = characters.filter(|it| !it.is_control()).collect();
    text.trim().to_owned()
}

/// The glyphs of a text in the order in which they stand from left to right.
fn glyphs(text: &str, runs: &[(Range<usize>, bool)], font: &mut GlyphlessFont) -> Vec<Glyph> {
    let mut glyphs = Vec::new();
    let mut push = |cluster: &str| {
        let (code, advance) = font.code(cluster);
        glyphs.push(Glyph { code, advance, is_space: cluster == " " });
    };
    for (run, is_reversed) in runs {
        let clusters = text.get(run.clone()).unwrap_or_default().graphemes(true);
        if *is_reversed {
            clusters.rev().for_each(&mut push);
        } else {
            clusters.for_each(&mut push);
        }
    }
    glyphs
}

/// The parts of a line in the order in which they are seen, and whether a part runs from right to left.
fn runs(text: &str) -> Vec<(Range<usize>, bool)> {
    if text.is_ascii() {
        return vec![(0..text.len(), false)];
    }
    let bidi = BidiInfo::new(text, None);
    if !bidi.has_rtl() {
        return vec![(0..text.len(), false)];
    }
    let mut parts = Vec::new();
    for paragraph in &bidi.paragraphs {
        let (levels, runs) = bidi.visual_runs(paragraph, paragraph.range.clone());
        parts.extend(runs.into_iter().map(|run| {
            let is_reversed = levels.get(run.start).is_some_and(unicode_bidi::Level::is_rtl);
            (run, is_reversed)
        }));
    }
    parts
}

/// Sets one line.
fn set(operators: &mut String, glyphs: &[Glyph], polygon: [[u32; 2]; 4], to_page: ToPage) {
    let sum = |is_space: bool| {
        let advances = glyphs.iter().filter(|glyph| glyph.is_space == is_space);
        advances.map(|glyph| f64::from(glyph.advance) / 1000.0).sum::<f64>()
    };
    let (letters, spaces) = (sum(false), sum(true));
    let frame = frame(polygon, letters + spaces);
    let [along, up] = [frame.along, frame.up].map(|vector| to_page.vector(vector));
    let origin = to_page.point(frame.origin);
    let gap = gap(letters, spaces, length(frame.along) / length(frame.up));
    let natural = f64::from(SPACE) / 1000.0;
    let widened = spaces / natural * gap;
    let scale = 1.0 / (letters + widened);
    let [a, b] = along.map(|part| part * scale);
    let _ = write!(operators, "{} Tm[<", matrix([a, b, up[0], up[1], origin[0], origin[1]]));
    for glyph in glyphs {
        let _ = write!(operators, "{:04X}", glyph.code);
        if glyph.is_space && gap > natural {
            let _ = write!(operators, ">{:.0}<", (natural - gap) * 1000.0);
        }
    }
    operators.push_str(">]TJ\n");
}

/// The advance of a space in a line whose letters and spaces have these advances, and whose box is `ratio` times as
/// long as high. It is more than the natural one where a narrow box would press words together.
fn gap(letters: f64, spaces: f64, ratio: f64) -> f64 {
    let natural = f64::from(SPACE) / 1000.0;
    let count = spaces / natural;
    if count < 0.5 || letters <= 0.0 {
        return natural;
    }
    let least = LEAST_GAP.min(ratio * MOST_GAPS / count);
    let set = natural * ratio / (letters + spaces);
    if set >= least { natural } else { least * letters / (ratio - least * count) }
}

/// Where text of this natural length, in units of its height, stands in a box.
///
/// The first edge of a box is the one that runs most to the right. For a column of Chinese or Japanese text that is its
/// short upper edge. Text that fits a tall box better from top to bottom is turned.
fn frame([top_left, top_right, bottom_right, bottom_left]: [[u32; 2]; 4], natural: f64) -> Frame {
    let corners = [top_left, top_right, bottom_right, bottom_left].map(|at| at.map(f64::from));
    let [top_left, top_right, bottom_right, bottom_left] = corners;
    let mean = |a: Vector, b: Vector| [f64::midpoint(a[0], b[0]), f64::midpoint(a[1], b[1])];
    let minus = |a: Vector, b: Vector| [a[0] - b[0], a[1] - b[1]];
    let across = mean(minus(top_right, top_left), minus(bottom_right, bottom_left));
    let down = mean(minus(bottom_left, top_left), minus(bottom_right, top_right));
    let across = if length(across) < 1.0 { perpendicular(down, -1.0) } else { across };
    let down = if length(down) < 1.0 { perpendicular(across, 1.0) } else { down };
    let ratio = length(down) / length(across);
    let stretch = |ratio: f64| (ratio / natural).ln().abs();
    if ratio > TALL && stretch(ratio) < stretch(1.0 / ratio) {
        return Frame { origin: top_left, along: down, up: across };
    }
    let up = down.map(|part| -part);
    Frame { origin: [top_left[0] + down[0], top_left[1] + down[1]], along: across, up }
}

/// Whether a box leans so much that its letters do not stand on one line of pixels.
fn leans(polygon: [[u32; 2]; 4]) -> bool {
    let Frame { along: [x, y], up, .. } = frame(polygon, 1.0);
    x.abs().min(y.abs()) > length(up) * LEAN
}

/// A vector of one pixel, a quarter turn from `vector`: clockwise if `turn` is 1. To the right and down for one without
/// a length.
fn perpendicular(vector: Vector, turn: f64) -> Vector {
    let length = length(vector);
    if length < 1.0 {
        return if turn > 0.0 { [0.0, 1.0] } else { [1.0, 0.0] };
    }
    [-vector[1] / length * turn, vector[0] / length * turn]
}

fn length([x, y]: Vector) -> f64 {
    x.hypot(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, polygon: [[u32; 2]; 4]) -> PlacedLine {
        PlacedLine { text: text.to_owned(), polygon }
    }

    const fn upright([x0, y0, x1, y1]: [u32; 4]) -> [[u32; 2]; 4] {
        [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    }

    /// A page of 100 x 100 pixels and points.
    const PAGE: ToPage = ToPage([1.0, 0.0, 0.0, -1.0, 0.0, 100.0]);

    fn set(text: &str, polygon: [[u32; 2]; 4]) -> String {
        let mut font = GlyphlessFont::default();
        String::from_utf8(layer(&[line(text, polygon)], PAGE, &mut font, "F")).unwrap()
    }

    #[test]
    fn a_line_fills_its_box_from_its_lower_left_corner() {
        // Two squares of 20 points in a box of 60 x 20.
        let operators = set("漢字", upright([10, 20, 70, 40]));
        assert!(operators.contains("30 0 0 20 10 60 Tm[<00010002>]TJ"), "{operators}");
        assert!(operators.starts_with("q BT 3 Tr/F 1 Tf\n") && operators.ends_with("ET Q\n"));
    }

    #[test]
    fn a_column_of_chinese_text_runs_from_top_to_bottom_and_a_narrow_word_does_not() {
        let column = set("漢字漢字", upright([10, 20, 30, 100]));
        assert!(column.contains("0 -20 20 0 10 80 Tm"), "{column}");
        let narrow = set("Il", upright([10, 20, 20, 40]));
        assert!(narrow.contains("0 0 20 10 60 Tm"), "{narrow}");
    }

    #[test]
    fn a_box_without_a_height_or_a_width_gets_one_of_a_pixel() {
        for polygon in [upright([5, 5, 5, 5]), upright([5, 5, 50, 5]), upright([5, 5, 5, 50])] {
            let frame = frame(polygon, 1.0);
            assert!(length(frame.along) >= 1.0 && length(frame.up) >= 1.0, "{frame:?}");
        }
    }

    #[test]
    fn words_in_a_narrow_box_keep_a_gap_that_readers_see() {
        let operators = set("a b", upright([0, 0, 10, 20]));
        // The gap is a third of the length at most: 0.17 of the height.
        assert!(operators.contains('>') && operators.contains("<0001000"), "{operators}");
        let (letters, spaces, ratio) = (1.112, 0.278, 0.8);
        let gap = gap(letters, spaces, ratio);
        assert!((gap * ratio / (letters + gap) - LEAST_GAP).abs() < 1e-9, "{gap}");
        assert!((super::gap(letters, spaces, 3.0) - 0.278).abs() < 1e-9);
    }

    #[test]
    fn a_right_to_left_text_is_set_as_it_is_seen() {
        let mut font = GlyphlessFont::default();
        let codes = |text: &str, font: &mut GlyphlessFont| {
            glyphs(text, &runs(text), font).iter().map(|glyph| glyph.code).collect::<Vec<_>>()
        };
        let logical = codes("אבג", &mut font);
        assert_eq!(logical, [1, 2, 3], "codes are given in the order of their places");
        let mixed = codes("אב 12", &mut font);
        let one = font.code("1").0;
        let two = font.code("2").0;
        let (alef, bet) = (font.code("א").0, font.code("ב").0);
        assert_eq!((mixed[0], mixed[1]), (one, two));
        assert_eq!((mixed[3], mixed[4]), (bet, alef));
    }

    #[test]
    fn a_line_that_leans_says_its_text_as_a_whole_unless_it_runs_from_right_to_left() {
        let leaning = [[10, 10], [90, 20], [88, 30], [8, 20]];
        let whole = set("a 𠮷", leaning);
        assert!(whole.contains("/Span<</ActualText<FEFF00610020D842DFB7>>>BDC\n"), "{whole}");
        assert!(whole.ends_with("TJ\nEMC\nET Q\n"), "{whole}");
        let barely = [[10, 10], [90, 12], [90, 22], [10, 20]];
        assert!(!set("a", barely).contains("Span"));
        assert!(!set("אב", leaning).contains("Span"));
        assert!(!set("漢字漢字", upright([10, 20, 30, 100])).contains("Span"), "it is turned");
    }

    #[test]
    fn controls_are_left_out_and_blanks_become_spaces() {
        assert_eq!(cleaned("\u{0}\n a\tb\u{7}\r\n"), "a b");
        assert_eq!(cleaned(" \n"), "");
        assert!(!set(" \n", upright([0, 0, 9, 9])).contains("Tm"));
    }
}
