//! Lines with boxes in the caller's pixels.
//!
//! The vendor's boxes vary. Corners run clockwise but start anywhere (a recorded line that leans to the right starts
//! at its bottom left). Words at the edge have negative coordinates. Newer answers have only a rectangle with an
//! angle, and upright text has an angle of 90 degrees and its sides swapped. So the corners are taken, or computed
//! from the rectangle, clamped to the page, and rotated until they start at the reading direction's top left. There
//! is no confidence, because the vendor gives none.
//!
//! Boxes are in pixels of the picture that was sent. If that was made from a larger one, or from a part of it, they are
//! placed in the larger one, which is the one that the caller has.

use serde::{Deserialize, Serialize};

use crate::dashscope::completion::Word;
use crate::document::page::{LayerLine, TextLayer};
use crate::extract::FieldPlace;
use crate::image::Size;
use crate::image::region::Region;

/// One line of text and its position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextLine {
    /// The text.
    pub text: String,
    /// Four corners `[x, y]`, from the reading direction's top left, clockwise, in pixels of the page
    /// as a viewer shows it.
    pub polygon: [[u32; 2]; 4],
    /// The upright box around them: `[x0, y0, x1, y1]`.
    pub bbox: [u32; 4],
}

/// The sizes of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// The size of the picture that was sent.
    pub(super) sent: Size,
    /// The part of the page that the picture shows, in pixels of the page.
    pub(super) part: Region,
    /// The size of the page in the answer.
    pub(super) shown: Size,
}

/// The lines of an answer, except those without a position.
pub(super) fn of(words: &[Word], frame: Frame) -> Vec<TextLine> {
    words.iter().filter_map(|word| line(word, frame)).collect()
}

/// The lines of a page's own text. The page has `points` points from left to right and from top to bottom, and `shown`
/// pixels.
pub(super) fn of_layer(layer: &TextLayer, points: [f32; 2], shown: Size) -> Vec<TextLine> {
    let scale = [(shown.width, points[0]), (shown.height, points[1])]
        .map(|(pixels, points)| f64::from(pixels) / f64::from(points));
    let lines = layer.lines.iter().map(|LayerLine { text, bbox, .. }| {
        let [left, top, right, bottom] = bbox.map(f64::from);
        let corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
        placed(text, scaled(corners, scale), shown)
    });
    lines.collect()
}

/// The text of an answer, including words without a position.
pub(super) fn text(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// The place of some lines together: that of the only one, or the upright box around all. Both members are null if
/// there is none.
pub(super) fn place_of(lines: &[TextLine]) -> FieldPlace {
    let around = match lines {
        [TextLine { bbox, polygon, .. }] => Some((*bbox, *polygon)),
        lines => around(lines),
    };
    let (bbox, polygon) = around.unzip();
    FieldPlace { bbox, polygon }
}

/// The upright box around some lines, and its corners.
fn around(lines: &[TextLine]) -> Option<([u32; 4], [[u32; 2]; 4])> {
    let of_all = |side: usize| lines.iter().map(move |line| line.bbox[side]);
    let (left, top) = (of_all(0).min()?, of_all(1).min()?);
    let (right, bottom) = (of_all(2).max()?, of_all(3).max()?);
    let polygon = [[left, top], [right, top], [right, bottom], [left, bottom]];
    Some(([left, top, right, bottom], polygon))
}

fn line(word: &Word, Frame { sent, part, shown }: Frame) -> Option<TextLine> {
    let corners = match (word.location, word.rotate_rect) {
        (Some(location), _) => corners_of_location(location),
        (None, Some(rectangle)) => corners_of_rectangle(rectangle),
        (None, None) => return None,
    };
    let corners = from_reading_start(clockwise(corners));
    let scale = [(part.size().width, sent.width), (part.size().height, sent.height)]
        .map(|(part, sent)| f64::from(part) / f64::from(sent));
    let [left, top] = [part.left, part.top].map(f64::from);
    let corners = scaled(corners, scale).map(|[x, y]| [left + x, top + y]);
    Some(placed(&word.text, corners, shown))
}

fn scaled(corners: [[f64; 2]; 4], [across, down]: [f64; 2]) -> [[f64; 2]; 4] {
    corners.map(|[x, y]| [x * across, y * down])
}

fn placed(text: &str, corners: [[f64; 2]; 4], page: Size) -> TextLine {
    let polygon = corners.map(|[x, y]| [clamp(x, page.width), clamp(y, page.height)]);
    let [xs, ys] = [0, 1].map(|axis| polygon.map(|corner| corner[axis]));
    let bbox = [least(xs), least(ys), most(xs), most(ys)];
    TextLine { text: text.to_owned(), polygon, bbox }
}

fn corners_of_location(location: [f64; 8]) -> [[f64; 2]; 4] {
    let [x0, y0, x1, y1, x2, y2, x3, y3] = location;
    [[x0, y0], [x1, y1], [x2, y2], [x3, y3]]
}

/// The corners, clockwise, of `[center_x, center_y, width, height, angle]` with the angle in degrees,
/// clockwise as the y axis points down.
fn corners_of_rectangle([x, y, width, height, angle]: [f64; 5]) -> [[f64; 2]; 4] {
    let (sin, cos) = angle.to_radians().sin_cos();
    [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)].map(|(across, down)| {
        let (across, down) = (across * width, down * height);
        [x + across * cos - down * sin, y + across * sin + down * cos]
    })
}

/// The corners in clockwise order.
fn clockwise(corners: [[f64; 2]; 4]) -> [[f64; 2]; 4] {
    let [a, b, c, d] = corners;
    // The cross product of the diagonals; the y axis points down.
    let turn = (c[0] - a[0]) * (d[1] - b[1]) - (c[1] - a[1]) * (d[0] - b[0]);
    if turn < 0.0 { [a, d, c, b] } else { corners }
}

/// Rotates the corners until the first edge is the one that runs most to the right. That is the top of text that is
/// turned by less than 45 degrees; more cannot be known without reading the text.
fn from_reading_start(corners: [[f64; 2]; 4]) -> [[f64; 2]; 4] {
    let rightward = |start: usize| {
        let ([x0, y0], [x1, y1]) = (corners[start], corners[(start + 1) % 4]);
        let length = (x1 - x0).hypot(y1 - y0);
        if length == 0.0 { -1.0 } else { (x1 - x0) / length }
    };
    let start = (0..4).max_by(|&a, &b| rightward(a).total_cmp(&rightward(b))).unwrap_or(0);
    [0, 1, 2, 3].map(|corner| corners[(start + corner) % 4])
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value was clamped to the side of an image"
)]
fn clamp(value: f64, side: u32) -> u32 {
    if value.is_nan() { 0 } else { value.round().clamp(0.0, f64::from(side)) as u32 }
}

fn least(values: [u32; 4]) -> u32 {
    values.into_iter().fold(u32::MAX, u32::min)
}

fn most(values: [u32; 4]) -> u32 {
    values.into_iter().fold(0, u32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size::new(6000, 3000);

    const PAGE: Frame = Frame { sent: SIZE, part: Region::of(SIZE), shown: SIZE };

    fn word(location: Option<[f64; 8]>, rotate_rect: Option<[f64; 5]>) -> Word {
        Word { text: "x".to_owned(), location, rotate_rect }
    }

    #[test]
    fn an_upright_line_keeps_its_corners() {
        let location = [1704.0, 390.0, 4314.0, 390.0, 4314.0, 675.0, 1704.0, 675.0];
        let line = line(&word(Some(location), None), PAGE).unwrap();
        assert_eq!(line.polygon, [[1704, 390], [4314, 390], [4314, 675], [1704, 675]]);
        assert_eq!(line.bbox, [1704, 390, 4314, 675]);
    }

    #[test]
    fn a_line_that_starts_elsewhere_is_turned_to_its_reading_start() {
        let location = [24.0, 936.0, 198.0, 780.0, 930.0, 981.0, 756.0, 1137.0];
        let line = line(&word(Some(location), None), PAGE).unwrap();
        assert_eq!(line.polygon[0], [198, 780]);
        assert_eq!(line.polygon[1], [930, 981]);
    }

    #[test]
    fn corners_that_run_the_other_way_are_put_in_order() {
        let location = [10.0, 10.0, 10.0, 20.0, 90.0, 20.0, 90.0, 10.0];
        let line = line(&word(Some(location), None), PAGE).unwrap();
        assert_eq!(line.polygon, [[10, 10], [90, 10], [90, 20], [10, 20]]);
    }

    /// Recorded boxes of a picture of [`SIZE`]: slanted ones, and one that begins left of it.
    #[test]
    fn recorded_lines_lie_on_their_page_clockwise_from_where_they_are_read() {
        let name = "multimodal-generation-vl-ocr-advanced-recognition-nosse";
        let Some(words) = crate::dashscope::recorded_words(name) else { return };
        let lines = of(&words, PAGE);
        assert_eq!(lines.len(), 12);
        for TextLine { text, polygon, bbox: [left, top, right, bottom] } in &lines {
            assert!(left < right && *right <= SIZE.width, "{text}");
            assert!(top < bottom && *bottom <= SIZE.height, "{text}");
            let [xs, ys] = [0, 1].map(|axis| polygon.map(|corner| corner[axis]));
            assert_eq!([least(xs), least(ys), most(xs), most(ys)], [*left, *top, *right, *bottom]);
            let [a, b, c, d] = polygon.map(|corner| corner.map(f64::from));
            assert_eq!(clockwise([a, b, c, d]), [a, b, c, d], "{text}");
            let [along, down] =
                [[b, a], [d, a]].map(|[to, from]| [to[0] - from[0], to[1] - from[1]]);
            assert!(along[0] > along[1].abs() && down[1] > 0.0, "{text} starts at {a:?}");
            assert!(
                along[0].hypot(along[1]) > down[0].hypot(down[1]),
                "{text} runs along {along:?}"
            );
        }
        assert_eq!(lines[6].polygon, [[114, 2112], [846, 2313], [696, 2445], [0, 2244]]);
    }

    #[test]
    fn a_corner_outside_the_page_is_clamped_to_it() {
        let location = [-30.0, 2244.0, 114.0, 2112.0, 846.0, 2313.0, 696.0, 9999.0];
        let line = line(&word(Some(location), None), PAGE).unwrap();
        assert_eq!(line.bbox[0], 0);
        assert_eq!(line.bbox[3], 3000);
    }

    #[test]
    fn a_rectangle_at_ninety_degrees_is_an_upright_line() {
        let line = line(&word(None, Some([3009.0, 532.0, 284.0, 2610.0, 90.0])), PAGE).unwrap();
        assert_eq!(line.bbox, [1704, 390, 4314, 674]);
        assert_eq!(line.polygon[0], [1704, 390]);
        assert_eq!(line.polygon[1], [4314, 390]);
    }

    #[test]
    fn a_word_without_a_place_is_left_out_and_nothing_panics() {
        assert_eq!(of(&[word(None, None)], PAGE), Vec::new());
        let nonsense = word(Some([f64::NAN, f64::INFINITY, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), None);
        assert_eq!(of(&[nonsense], PAGE).len(), 1);
    }

    #[test]
    fn lines_together_have_the_upright_box_around_them_and_one_has_its_own() {
        let slanted = TextLine {
            text: "x".to_owned(),
            polygon: [[10, 22], [90, 20], [90, 30], [10, 32]],
            bbox: [10, 20, 90, 32],
        };
        let below = TextLine { bbox: [5, 40, 60, 50], ..slanted.clone() };
        assert_eq!(place_of(&[]), FieldPlace::default());
        let own = FieldPlace { bbox: Some(slanted.bbox), polygon: Some(slanted.polygon) };
        assert_eq!(place_of(std::slice::from_ref(&slanted)), own);
        let both = place_of(&[slanted, below]);
        assert_eq!(both.bbox, Some([5, 20, 90, 50]));
        assert_eq!(both.polygon, Some([[5, 20], [90, 20], [90, 50], [5, 50]]));
    }

    #[test]
    fn a_box_in_a_picture_that_was_shrunk_is_a_box_in_the_original() {
        let location = [150.0, 75.0, 300.0, 75.0, 300.0, 150.0, 150.0, 150.0];
        let shrunk = Frame { sent: Size::new(1_500, 1_000), ..PAGE };
        let line = line(&word(Some(location), None), shrunk).unwrap();
        assert_eq!(line.bbox, [600, 225, 1_200, 450]);
    }

    #[test]
    fn a_box_in_a_part_of_a_page_is_a_box_in_the_page() {
        let location = [150.0, 75.0, 300.0, 75.0, 300.0, 150.0, 150.0, 150.0];
        let part = Region { left: 1_000, top: 500, right: 4_000, bottom: 2_500 };
        let line = line(
            &word(Some(location), None),
            Frame { sent: Size::new(1_500, 1_000), part, ..PAGE },
        );
        assert_eq!(line.unwrap().bbox, [1_300, 650, 1_600, 800]);
    }

    #[test]
    fn a_line_of_a_pages_own_text_is_placed_in_pixels() {
        let line = LayerLine {
            text: "Total".to_owned(),
            bbox: [72.0, 36.0, 144.0, 48.0],
            begins_paragraph: false,
        };
        let layer = TextLayer { lines: vec![line] };
        let lines = of_layer(&layer, [612.0, 792.0], Size::new(1_275, 1_650));
        assert_eq!((lines[0].text.as_str(), lines[0].bbox), ("Total", [150, 75, 300, 100]));
        assert_eq!(lines[0].polygon, [[150, 75], [300, 75], [300, 100], [150, 100]]);
    }
}
