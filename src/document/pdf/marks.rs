//! What is painted on a page, as far as it decides whether the page carries its text.

use hayro::hayro_interpret::Paint;
use hayro::hayro_interpret::font::{Glyph, GlyphRun};
use hayro::hayro_interpret::hayro_cmap::{BfString, WritingMode};
use hayro::kurbo::{Affine, Point, Rect, Vec2};

/// The most glyphs and covers that are kept. A page with more is not read from its text.
const MOST: usize = 100_000;

/// The least area that can hide a glyph, in units of the page.
const SMALLEST_COVER: f64 = 9.0;

/// The height of text, in units of the page. A filled shape of such a height may be the outline of a letter.
const TEXT_HEIGHT: std::ops::RangeInclusive<f64> = 2.5..=40.0;

/// A glyph as it lies on the upright page.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    /// The characters that it stands for, if the file says so.
    pub(super) text: Option<BfString>,
    /// Where it begins on its baseline.
    pub(super) at: Point,
    /// The direction of its baseline, of length 1.
    pub(super) along: Vec2,
    /// The height of its font.
    pub(super) em: f64,
    /// How far the next glyph is, without extra space.
    pub(super) advance: f64,
    /// How light it is, from 0 to 1. `None` if it is not painted.
    pub(super) lightness: Option<f32>,
}

impl Mark {
    /// Roughly its center.
    pub(super) fn center(&self) -> Point {
        let up = Vec2::new(self.along.y, -self.along.x);
        self.at + self.along * (self.advance / 2.0) + up * (self.em * 0.3)
    }

    /// Whether it leaves no ink.
    pub(super) fn is_space(&self) -> bool {
        match &self.text {
            Some(BfString::Char(character)) => character.is_whitespace(),
            Some(BfString::String(text)) => text.chars().all(char::is_whitespace),
            None => false,
        }
    }
}

/// Something opaque that is painted over an area.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cover {
    pub(super) area: Rect,
    /// How many glyphs were painted before it.
    pub(super) after: usize,
    pub(super) ground: Ground,
}

/// What lies under a glyph.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ground {
    /// One color, as light as this, from 0 to 1.
    Even(f32),
    /// A picture or a pattern.
    Mixed,
}

/// The marks of a page, in the order of painting.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) glyphs: Vec<Mark>,
    pub(super) covers: Vec<Cover>,
    /// The areas of pictures.
    pub(super) pictures: Vec<Rect>,
    /// Filled shapes that may be the outlines of letters.
    pub(super) outlines: usize,
    /// Whether text is written from top to bottom.
    pub(super) has_vertical_text: bool,
    /// Whether there is more than is kept.
    pub(super) is_cut: bool,
}

impl Marks {
    /// Notes the glyphs of a run whose centers are within `visible`.
    pub(super) fn run(
        &mut self,
        run: &GlyphRun<'_, '_>,
        transform: Affine,
        lightness: Option<f32>,
        visible: Rect,
    ) {
        self.has_vertical_text |= run.writing_mode() == WritingMode::Vertical;
        let placed: Vec<Affine> =
            run.glyphs().iter().map(|glyph| transform * glyph.transform()).collect();
        let stretch = stretch(&placed);
        for (glyph, placed) in run.glyphs().iter().zip(placed) {
            let mark = mark(glyph, placed, stretch, lightness);
            if !visible.contains(mark.center()) {
                continue;
            }
            if self.glyphs.len() >= MOST {
                self.is_cut = true;
                return;
            }
            self.glyphs.push(mark);
        }
    }

    /// Notes an opaque fill.
    pub(super) fn cover(&mut self, area: Rect, ground: Ground) {
        if area.area() < SMALLEST_COVER {
            return;
        }
        if self.covers.len() >= MOST {
            self.is_cut = true;
            return;
        }
        self.covers.push(Cover { area, after: self.glyphs.len(), ground });
    }

    pub(super) fn picture(&mut self, area: Rect) {
        if self.pictures.len() >= MOST {
            self.is_cut = true;
            return;
        }
        self.pictures.push(area);
    }

    /// Notes a filled shape of these bounds, with so many corners and curves.
    pub(super) fn shape(&mut self, bounds: Rect, elements: usize) {
        // A letter has a stem and an arm at least: six corners and the closing.
        if elements >= 7
            && TEXT_HEIGHT.contains(&bounds.height())
            && bounds.width() <= *TEXT_HEIGHT.end()
        {
            self.outlines = self.outlines.saturating_add(1);
        }
    }
}

/// How much wider than high a font is set: the median of a run. Single glyphs are also stretched to the width that the
/// file declares, which is no part of it.
fn stretch(placed: &[Affine]) -> f64 {
    let ratio = |placed: &Affine| {
        let [a, b, c, d, ..] = placed.as_coeffs();
        let ratio = a.hypot(b) / c.hypot(d);
        if ratio.is_finite() && ratio > 0.0 { ratio } else { 1.0 }
    };
    let mut ratios: Vec<f64> = placed.iter().map(ratio).collect();
    let middle = ratios.len() / 2;
    if ratios.is_empty() {
        return 1.0;
    }
    *ratios.select_nth_unstable_by(middle, f64::total_cmp).1
}

fn mark(glyph: &Glyph<'_>, placed: Affine, stretch: f64, lightness: Option<f32>) -> Mark {
    let [a, b, c, d, ..] = placed.as_coeffs();
    let em = c.hypot(d) * 1_000.0;
    let along = Vec2::new(a, b);
    let along = if along.hypot() > 0.0 { along / along.hypot() } else { Vec2::new(1.0, 0.0) };
    let (text, width) = match glyph {
        Glyph::Outline(glyph) => (glyph.as_unicode(), glyph.advance_width()),
        // Its glyphs are drawings in a space of their own, so their size is not known.
        Glyph::Type3(_) => (None, None),
    };
    let advance = f64::from(width.unwrap_or(500.0)) / 1_000.0 * em * stretch;
    Mark { text, at: placed * Point::ORIGIN, along, em, advance, lightness }
}

/// How light a paint is, from 0 to 1. A pattern counts as dark. `None` if it is not visible.
pub(super) fn lightness(paint: &Paint<'_>) -> Option<f32> {
    let Paint::Color(color) = paint else { return Some(0.0) };
    let [red, green, blue, opacity] = color.to_rgba().components();
    (opacity > 0.1).then_some(0.299 * red + 0.587 * green + 0.114 * blue)
}

/// What an opaque paint leaves. `None` if it is transparent.
pub(super) fn opaque(paint: &Paint<'_>) -> Option<Ground> {
    let Paint::Color(color) = paint else { return Some(Ground::Mixed) };
    let opacity = color.to_rgba().components()[3];
    let lightness = lightness(paint).filter(|_| opacity > 0.95);
    lightness.map(Ground::Even)
}
