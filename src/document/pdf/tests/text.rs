//! The text that a page carries, and the pages whose text is not what a viewer sees.

use std::fmt::Write as _;

use bytes::Bytes;

use super::{Builder, jpeg, open};
use crate::document::page::TextLayer;

const FONT: &str = "/F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>";
const PROSE: &str = "The ferry leaves the old harbour at noon and returns before the evening tide.";

/// A page of 600 x 800 points.
fn page(attributes: &str, resources: &str, content: &str) -> Bytes {
    let mut file = Builder::new();
    let picture = jpeg(60, 80, jpeg_encoder::ColorType::Rgb);
    let picture = file.stream(
        "/Subtype /Image /Width 60 /Height 80 /ColorSpace /DeviceRGB /Filter /DCTDecode",
        &picture,
    );
    let resources =
        format!("/Resources << /Font << {FONT} >> /XObject << /P {picture} 0 R >> {resources} >>");
    file.page(&format!("/MediaBox [0 0 600 800] {attributes} {resources}"), content.as_bytes());
    file.bytes()
}

fn layer(file: Bytes) -> Option<TextLayer> {
    open(file).unwrap().plan(1, true).unwrap().text
}

fn text(content: &str) -> Option<Vec<String>> {
    let layer = layer(page("", "", content))?;
    Some(layer.lines.into_iter().map(|line| line.text).collect())
}

/// Operators that write `text` at a place, in ten points.
fn at(x: u32, y: u32, text: &str) -> String {
    format!("BT /F 10 Tf {x} {y} Td ({text}) Tj ET\n")
}

/// Lines of prose from the top.
fn prose(x: u32, lines: u32, text: &str) -> String {
    (0..lines).fold(String::new(), |mut content, line| {
        let _ = write!(content, "{}", at(x, 750 - line * 12, &format!("{text} {line}")));
        content
    })
}

#[test]
fn a_page_of_prose_is_read_line_by_line() {
    let lines = text(&prose(50, 3, PROSE)).unwrap();
    assert_eq!(lines, [0, 1, 2].map(|line| format!("{PROSE} {line}")));
}

#[test]
fn text_is_only_read_where_it_is_asked_for() {
    let file = open(page("", "", &prose(50, 3, PROSE))).unwrap();
    assert_eq!(file.plan(1, false).unwrap().text, None);
}

#[test]
fn lines_have_boxes_on_the_upright_page_in_points() {
    let lines = layer(page("/UserUnit 2", "", &at(50, 700, PROSE))).unwrap().lines;
    let [left, top, right, bottom] = lines[0].bbox;
    assert!((left - 100.0).abs() < 1.0 && (right - 780.0).abs() < 40.0, "{left} to {right}");
    assert!((top - 184.0).abs() < 2.0 && (bottom - 204.4).abs() < 2.0, "{top} to {bottom}");
}

#[test]
fn text_on_a_turned_page_is_read_as_a_viewer_shows_it() {
    // Written upwards, on a page that is shown turned clockwise.
    let content = format!("BT /F 10 Tf 0 1 -1 0 100 50 Tm ({PROSE}) Tj ET");
    let lines = layer(page("/Rotate 90", "", &content)).unwrap().lines;
    assert_eq!(lines[0].text, PROSE);
    let [left, top, ..] = lines[0].bbox;
    assert!((left - 50.0).abs() < 1.0 && (top - 92.0).abs() < 1.0, "{left} {top}");
}

#[test]
fn gaps_become_spaces_and_kerning_does_not() {
    let content = "BT /F 10 Tf 50 700 Td [(The) -300 (fer) 30 (ry) -280 (leaves) -250 (the) -250 (harbour)] TJ ET";
    assert_eq!(text(content).unwrap(), ["The ferry leaves the harbour"]);
}

#[test]
fn columns_of_prose_are_read_one_after_the_other() {
    let column = "a line of prose in the column";
    let content = at(50, 780, "A heading that goes over both of the columns of this page")
        + &prose(50, 4, &format!("left {column}"))
        + &prose(320, 4, &format!("right {column}"));
    let lines = text(&content).unwrap();
    assert!(lines[0].starts_with("A heading"));
    assert!(lines[1..5].iter().all(|line| line.starts_with("left")), "{lines:?}");
    assert!(lines[5..].iter().all(|line| line.starts_with("right")), "{lines:?}");
    assert_eq!(lines.len(), 9);
}

#[test]
fn tables_are_read_row_by_row() {
    let content: String = (0..6)
        .map(|row| {
            at(50, 700 - row * 14, &format!("Item {row}")) + &at(400, 700 - row * 14, "12.50")
        })
        .collect();
    let lines = text(&content).unwrap();
    assert_eq!(lines[0], "Item 0  12.50");
    assert_eq!(lines.len(), 6);
}

#[test]
fn a_wider_distance_begins_a_paragraph() {
    let content = prose(50, 2, PROSE) + &at(50, 700, PROSE);
    let lines = layer(page("", "", &content)).unwrap().lines;
    let begins: Vec<bool> = lines.iter().map(|line| line.begins_paragraph).collect();
    assert_eq!(begins, [false, false, true]);
}

#[test]
fn text_that_is_set_wide_throughout_is_no_row_of_paragraphs() {
    let content: String = [760, 740, 720, 700, 660].map(|y| at(50, y, PROSE)).concat();
    let lines = layer(page("", "", &content)).unwrap().lines;
    let begins: Vec<bool> = lines.iter().map(|line| line.begins_paragraph).collect();
    assert_eq!(begins, [false, false, false, false, true]);
}

#[test]
fn letters_that_are_painted_twice_are_read_once() {
    let content = at(50, 700, PROSE) + &format!("BT /F 10 Tf 50.3 700 Td ({PROSE}) Tj ET");
    assert_eq!(text(&content).unwrap(), [PROSE]);
}

#[test]
fn white_text_on_a_dark_ground_is_read() {
    let content = format!("0 0 0.5 rg 40 690 500 30 re f 1 g {}", at(50, 700, PROSE));
    assert_eq!(text(&content).unwrap(), [PROSE]);
}

#[test]
fn text_outside_the_page_and_its_clips_is_not_read() {
    let content = at(50, 700, PROSE)
        + &at(700, 700, "outside")
        + &format!("q 0 0 10 10 re W n {} Q", at(50, 600, "clipped"));
    assert_eq!(text(&content).unwrap(), [PROSE]);
}

#[test]
fn a_page_whose_text_is_not_what_is_seen_is_not_read() {
    let many = prose(50, 10, PROSE);
    let scan = "q 600 0 0 800 0 0 cm /P Do Q";
    let watermark = "BT /F 60 Tf 0.7 0.7 -0.7 0.7 100 300 Tm (DRAFT) Tj ET";
    let outlines = "10 10 m 12 10 l 12 14 l 14 14 l 14 18 l 12 18 l 10 14 l h f\n".repeat(300);
    let sideways = format!("BT /F 10 Tf 0 1 -1 0 100 50 Tm ({PROSE}) Tj ET");
    for (why, content) in [
        ("invisible over a scan", format!("{scan} 3 Tr {many}")),
        ("a scan with some text over it", format!("{scan} {}", prose(50, 3, PROSE))),
        ("a scan of half the page", format!("q 600 0 0 400 0 0 cm /P Do Q {many}")),
        ("white on white", format!("1 g {many}")),
        ("under a black bar", format!("{many} 0 g 40 690 500 40 re f")),
        ("under a picture", format!("{many} q 500 0 0 100 40 660 cm /P Do Q")),
        ("a watermark at an angle", format!("{many} {watermark}")),
        ("letters as shapes", format!("{} {outlines}", prose(50, 3, PROSE))),
        ("sideways", sideways),
        ("a few letters", at(50, 700, "Page 1")),
        (
            "letters in other places than they say",
            prose(50, 10, "Wkh ihuub ohdyhv wkh rog kduerxu dw qrrq"),
        ),
        ("nothing", String::new()),
    ] {
        assert_eq!(text(&content), None, "{why}");
    }
}

/// A font whose characters are what `to_unicode` says, or nothing.
fn unembedded(to_unicode: Option<&str>) -> Bytes {
    let mut file = Builder::new();
    let map = to_unicode.map(|to| {
        let map = format!(
            "/CIDInit /ProcSet findresource begin begincmap 1 begincodespacerange <0000> <ffff> \
             endcodespacerange 1 beginbfrange <0041> <005a> <{to}> endbfrange endcmap"
        );
        file.stream("", map.as_bytes())
    });
    let map = map.map(|map| format!("/ToUnicode {map} 0 R")).unwrap_or_default();
    let font = file.object(&format!(
        "<< /Type /Font /Subtype /Type0 /BaseFont /None /Encoding /Identity-H {map} /DescendantFonts \
         [<< /Type /Font /Subtype /CIDFontType2 /BaseFont /None /DW 500 /CIDSystemInfo \
         << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>] >>"
    ));
    let codes = "0041004200430044004500460047".repeat(5);
    file.page(
        &format!("/MediaBox [0 0 600 800] /Resources << /Font << /F {font} 0 R >> >>"),
        format!("BT /F 10 Tf 50 700 Td <{codes}> Tj ET").as_bytes(),
    );
    file.bytes()
}

#[test]
fn glyphs_without_characters_are_not_read() {
    assert_eq!(layer(unembedded(None)), None);
    assert_eq!(layer(unembedded(Some("e000"))), None, "private characters");
    assert_eq!(layer(unembedded(Some("0001"))), None, "controls");
    let read = layer(unembedded(Some("0391"))).unwrap();
    assert!(read.lines[0].text.starts_with("ΑΒΓΔΕΖΗ"), "{read:?}");
}

#[test]
fn scripts_that_are_stored_by_their_look_are_not_read() {
    assert_eq!(layer(unembedded(Some("05d0"))), None, "Hebrew");
    assert_eq!(layer(unembedded(Some("0915"))), None, "Devanagari");
}
