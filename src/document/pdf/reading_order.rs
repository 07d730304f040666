//! Puts the glyphs of a page into lines, and the lines into the order of reading.
//!
//! Files paint glyphs in any order and often without spaces. Glyphs on one baseline make a row; a gap in it begins a
//! new segment: a column of prose, or a cell of a table. Prose on both sides of a gutter is read column by column.
//! Other segments are read row by row, as people read a table or a form.

use hayro::kurbo::{Point, Rect};

use crate::document::page::LayerLine;

/// The gap between words, in heights of the font.
const WORD_GAP: f64 = 0.17;

/// The gap between words of scripts that are set without spaces.
const IDEOGRAPHIC_GAP: f64 = 0.6;

/// The gap that begins a new segment.
const SEGMENT_GAP: f64 = 1.3;

/// The distance of baselines from which a paragraph begins, in heights of the font.
const PARAGRAPH_GAP: f64 = 1.75;

/// The same in usual distances of the page, for text that is set wide throughout.
const PARAGRAPH_STEP: f64 = 1.3;

/// How near two equal glyphs lie that are one, painted twice to look bold.
const TWICE: f64 = 0.12;

/// The fewest characters of a line of prose.
const PROSE: usize = 15;

/// The fewest lines of a column.
const FEWEST_LINES: usize = 3;

/// The most of all segments that may cross the gutter of columns, as a divisor.
const CROSSING: usize = 4;

/// How finely gutters are looked for.
const STRIPS: usize = 240;

/// How often columns are split again.
const DEEPEST: usize = 6;

/// A glyph, on the upright page.
#[derive(Debug, Clone)]
pub(super) struct Glyph {
    pub(super) text: String,
    /// Where it begins on its baseline, in units of the page.
    pub(super) at: Point,
    /// The height of its font.
    pub(super) em: f64,
    /// How far the next glyph is.
    pub(super) advance: f64,
    /// How often its baseline is turned clockwise by a quarter.
    pub(super) quarter: u8,
}

/// The lines of a page, in the order of reading. Upright lines come first, then those that lie sideways.
pub(super) fn lines(glyphs: Vec<Glyph>, area: Rect, unit: f64) -> Vec<LayerLine> {
    let mut turned: [Vec<Glyph>; 4] = Default::default();
    for mut glyph in glyphs {
        glyph.at = straightened(glyph.at, glyph.quarter);
        turned[usize::from(glyph.quarter % 4)].push(glyph);
    }
    let mut lines = Vec::new();
    for (quarter, glyphs) in (0..).zip(turned) {
        let mut ordered = Vec::new();
        arrange(&rows(glyphs), 0, &mut ordered);
        let usual = usual_step(&ordered);
        let mut above: Option<&Line> = None;
        for line in &ordered {
            let begins_paragraph = match above {
                Some(above) => line.begins_paragraph(above, usual),
                None => !lines.is_empty(),
            };
            lines.push(LayerLine {
                text: line.text.clone(),
                bbox: line.bbox(quarter, area, unit),
                begins_paragraph,
            });
            above = Some(line);
        }
    }
    lines
}

/// The median distance from a baseline down to the next one; 0 for a page of one line.
fn usual_step(lines: &[Line]) -> f64 {
    let steps = lines.windows(2).map(|pair| pair[1].baseline - pair[0].baseline);
    let mut steps: Vec<f64> = steps.filter(|step| *step > 0.0).collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// The page turned so that a baseline goes to the right.
fn straightened(at: Point, quarter: u8) -> Point {
    match quarter {
        1 => Point::new(at.y, -at.x),
        2 => Point::new(-at.x, -at.y),
        3 => Point::new(-at.y, at.x),
        _ => at,
    }
}

/// The inverse of [`straightened`].
fn turned(at: Point, quarter: u8) -> Point {
    straightened(at, (4 - quarter) % 4)
}

/// Characters without a wide gap, on one baseline.
#[derive(Debug, Clone)]
struct Line {
    text: String,
    left: f64,
    right: f64,
    baseline: f64,
    em: f64,
}

impl Line {
    fn begins_paragraph(&self, above: &Self, usual_step: f64) -> bool {
        let step = self.baseline - above.baseline;
        let wide = (self.em.max(above.em) * PARAGRAPH_GAP).max(usual_step * PARAGRAPH_STEP);
        step < 0.0 || step > wide
    }

    fn is_prose(&self) -> bool {
        self.text.chars().count() >= PROSE
    }

    /// Adds a segment to the right.
    fn join(&mut self, right: &Self) {
        self.text.push_str("  ");
        self.text.push_str(&right.text);
        self.left = self.left.min(right.left);
        self.right = self.right.max(right.right);
        self.em = self.em.max(right.em);
    }

    /// Left, top, right and bottom on the upright page, in points.
    #[expect(clippy::cast_possible_truncation, reason = "24 bits are enough for a place on a page")]
    fn bbox(&self, quarter: u8, area: Rect, unit: f64) -> [f32; 4] {
        let top = Point::new(self.left, self.baseline - self.em * 0.8);
        let bottom = Point::new(self.right, self.baseline + self.em * 0.22);
        let placed =
            Rect::from_points(turned(top, quarter), turned(bottom, quarter)).intersect(area);
        [placed.x0, placed.y0, placed.x1, placed.y1].map(|at| (at * unit) as f32)
    }
}

/// The segments of each baseline, from top to bottom.
fn rows(mut glyphs: Vec<Glyph>) -> Vec<Vec<Line>> {
    glyphs.sort_by(|a, b| a.at.y.total_cmp(&b.at.y));
    let mut rows: Vec<Vec<Glyph>> = Vec::new();
    let mut anchor = (0.0, 0.0);
    for glyph in glyphs {
        let (smaller, larger) = (glyph.em.min(anchor.1), glyph.em.max(anchor.1));
        // Raised and lowered digits have a smaller font, and belong to the line.
        let is_script = smaller < larger * 0.85 && smaller > larger * 0.5;
        let near = if is_script { larger * 0.45 } else { smaller * 0.4 };
        match rows.last_mut() {
            Some(row) if glyph.at.y - anchor.0 <= near => {
                if glyph.em > anchor.1 && !glyph.text.trim().is_empty() {
                    anchor.1 = glyph.em;
                }
                row.push(glyph);
            }
            _ => {
                anchor = (glyph.at.y, glyph.em);
                rows.push(vec![glyph]);
            }
        }
    }
    rows.into_iter().map(segments).filter(|row| !row.is_empty()).collect()
}

/// The segments of a row, from left to right.
fn segments(mut row: Vec<Glyph>) -> Vec<Line> {
    row.sort_by(|a, b| a.at.x.total_cmp(&b.at.x));
    let mut segments: Vec<Line> = Vec::new();
    let mut last: Option<Glyph> = None;
    let mut is_spaced = false;
    for glyph in row {
        if glyph.text.trim().is_empty() {
            is_spaced = true;
            continue;
        }
        if last.as_ref().is_some_and(|last| is_same(last, &glyph)) {
            continue;
        }
        let gap = last.as_ref().map(|last| glyph.at.x - (last.at.x + last.advance));
        let em = last.as_ref().map_or(glyph.em, |last| last.em.min(glyph.em));
        match (segments.last_mut(), gap) {
            (Some(segment), Some(gap)) if gap <= em * SEGMENT_GAP => {
                let ideographic = is_ideographic(&segment.text) && is_ideographic(&glyph.text);
                let word = if ideographic { IDEOGRAPHIC_GAP } else { WORD_GAP };
                if gap > em * word || is_spaced && !(ideographic && gap < em * word) {
                    segment.text.push(' ');
                }
                segment.text.push_str(&glyph.text);
                segment.right = segment.right.max(glyph.at.x + glyph.advance);
                if glyph.em > segment.em {
                    (segment.em, segment.baseline) = (glyph.em, glyph.at.y);
                }
            }
            _ => segments.push(Line {
                text: glyph.text.clone(),
                left: glyph.at.x,
                right: glyph.at.x + glyph.advance,
                baseline: glyph.at.y,
                em: glyph.em,
            }),
        }
        is_spaced = false;
        last = Some(glyph);
    }
    segments
}

/// Whether two glyphs are one that is painted twice.
fn is_same(a: &Glyph, b: &Glyph) -> bool {
    let near = a.em * TWICE;
    a.text == b.text && (a.at.x - b.at.x).abs() < near && (a.at.y - b.at.y).abs() < near
}

/// Whether the last character is of a script that is set without spaces.
fn is_ideographic(text: &str) -> bool {
    text.chars().next_back().is_some_and(|last| {
        matches!(last, '\u{2e80}'..='\u{a4cf}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}' | '\u{20000}'..='\u{3ffff}')
    })
}

/// Adds the lines of a region in the order of reading.
fn arrange(rows: &[Vec<Line>], depth: usize, lines: &mut Vec<Line>) {
    let gutter = if depth < DEEPEST { gutter(rows) } else { None };
    let Some(gutter) = gutter else {
        lines.extend(rows.iter().filter_map(|row| joined(row)));
        return;
    };
    let crosses =
        |row: &Vec<Line>| row.iter().any(|segment| segment.left < gutter && segment.right > gutter);
    for group in rows.chunk_by(|a, b| crosses(a) == crosses(b)) {
        if group.first().is_some_and(crosses) {
            lines.extend(group.iter().filter_map(|row| joined(row)));
            continue;
        }
        let side = |is_left: bool| -> Vec<Vec<Line>> {
            let of = |row: &Vec<Line>| {
                let segments = row.iter().filter(|segment| (segment.right <= gutter) == is_left);
                segments.cloned().collect::<Vec<_>>()
            };
            group.iter().map(of).filter(|row| !row.is_empty()).collect()
        };
        arrange(&side(true), depth + 1, lines);
        arrange(&side(false), depth + 1, lines);
    }
}

/// The segments of a row as one line.
fn joined(row: &[Line]) -> Option<Line> {
    let (first, rest) = row.split_first()?;
    let mut line = first.clone();
    for segment in rest {
        line.join(segment);
    }
    Some(line)
}

/// Where a gutter separates columns of prose.
fn gutter(rows: &[Vec<Line>]) -> Option<f64> {
    let segments: Vec<&Line> = rows.iter().flatten().collect();
    let left = segments.iter().map(|it| it.left).min_by(f64::total_cmp)?;
    let right = segments.iter().map(|it| it.right).max_by(f64::total_cmp)?;
    let strips: Vec<(f64, usize)> = (1..STRIPS)
        .filter_map(|strip| {
            let at = left + (right - left) * fraction(strip);
            let crossing = crossing(&segments, at)?;
            Some((at, crossing))
        })
        .collect();
    let fewest = strips.iter().map(|(_, crossing)| *crossing).min()?;
    let best = strips.chunk_by(|a, b| a.1 == b.1).filter(|strips| strips[0].1 == fewest);
    let widest = best.max_by_key(|strips| strips.len())?;
    widest.get(widest.len() / 2).map(|(at, _)| *at)
}

/// How many segments cross `at`. `None` if there are no columns of prose on its sides.
fn crossing(segments: &[&Line], at: f64) -> Option<usize> {
    let mut crossing = 0_usize;
    let mut sides = [(0_usize, 0_usize); 2];
    for segment in segments {
        let side = match (segment.right <= at, segment.left >= at) {
            (true, _) => 0,
            (_, true) => 1,
            _ => {
                crossing += 1;
                continue;
            }
        };
        sides[side].0 += 1;
        sides[side].1 += usize::from(segment.is_prose());
    }
    let is_column = |(lines, prose): &(usize, usize)| *prose >= FEWEST_LINES && prose * 2 > *lines;
    let few = crossing.saturating_mul(CROSSING) <= segments.len();
    (few && sides.iter().all(is_column)).then_some(crossing)
}

#[expect(clippy::cast_precision_loss, reason = "both are small")]
fn fraction(strip: usize) -> f64 {
    strip as f64 / STRIPS as f64
}
