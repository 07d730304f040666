//! The invisible text that is added to a file, read again by hayro.

use bytes::Bytes;
use hayro::hayro_interpret::hayro_cmap::BfString;
use proptest::prelude::*;

use super::super::marks::Mark;
use super::super::page_box::PageBox;
use super::super::survey::Survey;
use super::{Builder, PdfFile, drawn, is_dark, open};
use crate::document::error::DocumentError;
use crate::document::page::{PageLines, PlacedLine};
use crate::image::Size;

/// The pixels of the pages in these tests.
const SIZE: Size = Size::new(800, 400);

const fn upright([x0, y0, x1, y1]: [u32; 4]) -> [[u32; 2]; 4] {
    [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
}

fn line(text: &str, polygon: [[u32; 2]; 4]) -> PlacedLine {
    PlacedLine { text: text.to_owned(), polygon }
}

fn page(page: u32, lines: Vec<PlacedLine>) -> PageLines {
    PageLines { page, size: SIZE, lines }
}

/// The file with these lines over its pages.
fn searchable(file: &Bytes, pages: &[PageLines]) -> Bytes {
    let update = open(file.clone()).unwrap().update(pages).unwrap();
    [&file[..], &update].concat().into()
}

/// The glyphs of a page, in the order in which they are set.
fn marks(file: &PdfFile, number: u32) -> (Vec<Mark>, PageBox) {
    let page = file.page(number).unwrap();
    let sheet = PageBox::of(page).unwrap();
    let survey = Survey::of(page, &sheet, &file.settings);
    (survey.marks().glyphs.clone(), sheet)
}

fn text_of(mark: &Mark) -> String {
    match mark.text.as_ref().unwrap() {
        BfString::Char(character) => character.to_string(),
        BfString::String(text) => text.clone(),
    }
}

fn text(file: &Bytes, number: u32) -> String {
    marks(&open(file.clone()).unwrap(), number).0.iter().map(text_of).collect()
}

/// The first and the last point of the baseline of a page with one line, in pixels.
fn baseline(file: &Bytes) -> [[f64; 2]; 2] {
    let (marks, sheet) = marks(&open(file.clone()).unwrap(), 1);
    let (first, last) = (&marks[0], &marks[marks.len() - 1]);
    let end = last.at + last.along * last.advance;
    let (across, down) =
        (f64::from(SIZE.width) / sheet.width, f64::from(SIZE.height) / sheet.height);
    [first.at, end].map(|at| [at.x * across, at.y * down])
}

fn is_near(found: [[f64; 2]; 2], expected: [[u32; 2]; 2]) -> bool {
    let pairs = found.as_flattened().iter().zip(expected.as_flattened());
    pairs.into_iter().all(|(found, expected)| (found - f64::from(*expected)).abs() < 0.5)
}

#[test]
fn the_text_of_a_line_is_found_where_the_line_is() {
    let file = Builder::single("", b"0 0 200 100 re f");
    let lines = vec![line("Total 9,90", upright([100, 40, 300, 80]))];
    let file = searchable(&file, &[page(1, lines)]);
    assert_eq!(text(&file, 1), "Total 9,90");
    assert!(is_near(baseline(&file), [[100, 80], [300, 80]]), "{:?}", baseline(&file));
    assert!(is_dark(&drawn(file).0, 200, 100), "its content is drawn as before");
}

#[test]
fn all_scripts_are_kept_also_beyond_16_bits_and_with_marks() {
    let texts = ["漢字とかな", "𠮷野家 😀", "e\u{301}te\u{301}", "नमस्ते", "ไทย", "한국어"];
    let lines = (0_u32..).zip(texts);
    let lines = lines.map(|(at, text)| line(text, upright([10, at * 20, 300, at * 20 + 16])));
    let file = searchable(&Builder::single("", b""), &[page(1, lines.collect())]);
    assert_eq!(text(&file, 1), texts.concat());
}

#[test]
fn a_page_that_is_turned_cut_and_in_other_units_has_its_text_in_its_place() {
    for rotate in [0, 90, 180, 270] {
        let attributes = format!(
            "/MediaBox [-50 -20 350 380] /CropBox [30 40 230 140] /Rotate {rotate} /UserUnit 2"
        );
        let lines = vec![line("Somewhere", upright([96, 48, 300, 88]))];
        let file = searchable(&Builder::single(&attributes, b""), &[page(1, lines)]);
        assert_eq!(text(&file, 1), "Somewhere", "{rotate}");
        assert!(is_near(baseline(&file), [[96, 88], [300, 88]]), "{rotate} {:?}", baseline(&file));
    }
}

#[test]
fn a_line_that_leans_has_text_that_leans() {
    let polygon = [[100, 100], [300, 140], [292, 180], [92, 140]];
    let file = searchable(&Builder::single("", b""), &[page(1, vec![line("lean", polygon)])]);
    assert!(is_near(baseline(&file), [[92, 140], [292, 180]]), "{:?}", baseline(&file));
}

#[test]
fn a_file_keeps_its_bytes_and_pages_without_text_keep_their_objects() {
    let mut builder = Builder::new();
    builder.page("", b"");
    builder.page("", b"");
    let file = builder.bytes();
    let whole = searchable(&file, &[page(2, vec![line("two", upright([0, 0, 90, 20]))])]);
    assert!(whole.starts_with(&file));
    assert_eq!((text(&whole, 1), text(&whole, 2)), (String::new(), "two".to_owned()));
    let twice = searchable(&whole, &[page(1, vec![line("one", upright([0, 0, 90, 20]))])]);
    assert_eq!((text(&twice, 1), text(&twice, 2)), ("one".to_owned(), "two".to_owned()));
}

#[test]
fn a_file_without_lines_gets_no_update() {
    let file = open(Builder::single("", b"")).unwrap();
    assert_eq!(file.update(&[page(1, Vec::new())]), Ok(Vec::new()));
    assert_eq!(file.update(&[]), Ok(Vec::new()));
}

#[test]
fn resources_and_content_of_a_page_stay_also_where_they_are_inherited_or_shared() {
    let font = "/Type /Font /Subtype /Type1 /BaseFont /Helvetica";
    for resources in [
        format!("/Resources << /Font << /OcrText << {font} >> >> >>"),
        format!("/Resources << /Font << /F << {font} >> /OcrText << {font} >> >> /X [1 (a) /N] >>"),
    ] {
        let content = b"BT /OcrText 20 Tf 10 10 Td (Old) Tj ET";
        let file = Builder::single(&resources, content);
        let file = searchable(&file, &[page(1, vec![line("New", upright([0, 0, 90, 20]))])]);
        assert_eq!(text(&file, 1), "NewOld", "{resources}");
    }
}

#[test]
fn resources_that_a_page_inherits_are_kept() {
    let content = b"BT /Old 20 Tf 10 10 Td (Old) Tj ET";
    let file = String::from_utf8(Builder::single("", content).to_vec()).unwrap();
    let font = "/Type /Font /Subtype /Type1 /BaseFont /Helvetica";
    let tree = format!("/Type /Pages /Resources << /Font << /Old << {font} >> >> >>");
    let moved = Bytes::from(file.replace("/Type /Pages", &tree));
    let file = Bytes::from(open(moved).unwrap().made_updatable(10_000).unwrap().unwrap());
    let file = searchable(&file, &[page(1, vec![line("New", upright([0, 0, 90, 20]))])]);
    assert_eq!(text(&file, 1), "NewOld");
}

#[test]
fn a_page_that_is_listed_twice_gets_its_text_once() {
    let mut builder = Builder::new();
    let number = builder.page("", b"");
    builder.list(number);
    let lines = |number, text| page(number, vec![line(text, upright([0, 0, 90, 20]))]);
    let file = searchable(&builder.bytes(), &[lines(1, "one"), lines(2, "two")]);
    assert_eq!(text(&file, 1), "one");
}

#[test]
fn a_sound_file_needs_no_other_and_a_damaged_one_is_written_anew() {
    let file = Builder::single("", b"0 0 200 100 re f");
    assert_eq!(open(file.clone()).unwrap().made_updatable(10_000), Ok(None));
    let sound = String::from_utf8(file.to_vec()).unwrap();
    let damages = [
        sound.replace("startxref\n", "startxref\n9"),
        sound.replace("0000000009 ", "0000000019 "),
        sound.replace("trailer", "trailed"),
        format!("\n\n{sound}"),
        sound.split("xref").next().unwrap().to_owned(),
    ];
    for damaged in damages {
        assert_ne!(damaged, sound);
        let anew = open(damaged.clone().into()).unwrap().made_updatable(10_000).unwrap();
        let anew = Bytes::from(anew.unwrap_or_else(|| panic!("{damaged}")));
        assert_eq!(open(anew.clone()).unwrap().made_updatable(10_000), Ok(None));
        let lines = vec![line("found", upright([0, 0, 90, 20]))];
        let anew = searchable(&anew, &[page(1, lines)]);
        assert_eq!(text(&anew, 1), "found");
        assert!(is_dark(&drawn(anew).0, 200, 100));
    }
}

#[test]
fn a_damaged_file_that_would_be_too_long_is_refused() {
    let file = Builder::single("", b"0 0 200 100 re f").to_vec();
    let damaged = String::from_utf8(file).unwrap().replace("startxref\n", "startxref\n9");
    let refused = open(damaged.into()).unwrap().made_updatable(100).unwrap_err();
    assert!(matches!(refused, DocumentError::NotSearchable { .. }), "{refused}");
}

#[test]
fn a_file_whose_pages_are_in_no_tree_is_refused() {
    let file = Builder::single("", b"0 0 200 100 re f").to_vec();
    let file = String::from_utf8(file).unwrap().replace("/Kids [", "/Kiss [");
    let refused = open(file.into()).unwrap().made_updatable(10_000).unwrap_err();
    assert!(matches!(refused, DocumentError::NotSearchable { .. }), "{refused}");
}

#[test]
fn a_file_that_is_not_prepared_gets_no_update() {
    let file = Builder::single("", b"").to_vec();
    let damaged = String::from_utf8(file).unwrap().replace("startxref\n", "startxref\n9");
    let lines = page(1, vec![line("x", upright([0, 0, 9, 9]))]);
    let refused = open(damaged.into()).unwrap().update(&[lines]).unwrap_err();
    assert!(matches!(refused, DocumentError::NotSearchable { .. }), "{refused}");
}

/// Characters of several scripts that are read from left to right.
fn character() -> impl Strategy<Value = char> {
    prop_oneof![
        4 => prop::char::range('!', '~'),
        2 => Just(' '),
        1 => prop::char::range('à', 'ž'),
        1 => prop::char::range('Ѐ', 'я'),
        2 => prop::char::range('一', '鿿'),
        1 => prop::char::range('ぁ', 'ゖ'),
        1 => prop::char::range('\u{20000}', '\u{20fff}'),
        1 => prop::char::range('\u{300}', '\u{30f}'),
    ]
}

fn any_line() -> impl Strategy<Value = PlacedLine> {
    let text = prop::collection::vec(character(), 1..40);
    (text, 0_u32..700, 0_u32..350, 1_u32..100, 1_u32..50).prop_map(|(text, x, y, width, height)| {
        let polygon = upright([x, y, x + width, y + height]);
        PlacedLine { text: text.into_iter().collect(), polygon }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_line_on_any_page_is_read_again_with_its_text_and_its_place(
        placed in any_line(),
        rotate in 0_u32..4,
        corner in (-500_i32..500, -500_i32..500),
        sides in (20_i32..2000, 20_i32..2000),
    ) {
        let (x, y) = corner;
        let attributes = format!(
            "/MediaBox [{x} {y} {} {}] /Rotate {}", x + sides.0, y + sides.1, rotate * 90
        );
        let written = placed.text.trim().to_owned();
        prop_assume!(!written.is_empty());
        let polygon = placed.polygon;
        let file = searchable(&Builder::single(&attributes, b""), &[page(1, vec![placed])]);
        prop_assert_eq!(text(&file, 1), written);
        let [top_left, _, bottom_right, bottom_left] = polygon;
        let found = baseline(&file);
        let across = is_near(found, [bottom_left, bottom_right]);
        let down = is_near(found, [top_left, bottom_left]);
        prop_assert!(across || down, "{:?} in {:?}", found, polygon);
    }

    #[test]
    fn any_text_in_any_box_gives_a_file_that_can_be_read(
        lines in prop::collection::vec(("\\PC{0,30}", any::<[[u32; 2]; 4]>()), 0..5),
    ) {
        let lines: Vec<_> = lines.into_iter().map(|(text, at)| line(&text, at)).collect();
        let file = searchable(&Builder::single("", b"0 0 200 100 re f"), &[page(1, lines)]);
        let file = open(file).unwrap();
        prop_assert_eq!(file.page_count(), 1);
        prop_assert_eq!(file.made_updatable(100_000), Ok(None));
        prop_assert!(file.plan(1, true).is_ok());
    }
}
