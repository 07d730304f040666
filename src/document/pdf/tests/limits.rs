//! What a page may take is bounded before it is drawn.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::{Builder, LIMITS, open, plan};
use crate::document::error::{DocumentError, Resource};
use crate::document::page::Draw;
use crate::image::Size;

const HUGE: &str =
    "/Subtype /Image /Width 30000 /Height 30000 /BitsPerComponent 1 /ColorSpace /DeviceGray";

const TOO_LARGE: DocumentError =
    DocumentError::PageTooLarge { actual: 900_000_000, allowed: 1_000_000 };

/// A page that reaches a huge picture by `content`, which may use a form, a pattern, a mask and an annotation.
fn huge(attributes: &str, content: &[u8]) -> Bytes {
    let mut file = Builder::new();
    let picture = file.stream(HUGE, b"");
    let inner = format!("/Resources << /XObject << /P {picture} 0 R >> >>");
    let form = file.stream(&format!("/Subtype /Form /BBox [0 0 9 9] {inner}"), b"/P Do");
    let pattern = file.stream(
        &format!("/PatternType 1 /PaintType 1 /BBox [0 0 9 9] /XStep 9 /YStep 9 {inner}"),
        b"/P Do",
    );
    let masked = file.stream(
        &format!("/Subtype /Image /Width 9 /Height 9 /ColorSpace /DeviceGray /SMask {picture} 0 R"),
        &[0; 81],
    );
    let state = file.object(&format!("<< /SMask << /S /Alpha /G {form} 0 R >> >>"));
    let font = file.object(&format!(
        "<< /Type /Font /Subtype /Type3 /FontBBox [0 0 9 9] /FontMatrix [1 0 0 1 0 0] /FirstChar 65 \
         /LastChar 65 /Widths [9] /Encoding << /Differences [65 /A] >> /CharProcs << /A {form} 0 R >> >>"
    ));
    let resources = format!(
        "/Resources << /XObject << /P {picture} 0 R /Form {form} 0 R /Masked {masked} 0 R >> \
         /Pattern << /Tiles {pattern} 0 R >> /ExtGState << /State {state} 0 R >> \
         /Font << /Glyphs {font} 0 R >> >>"
    );
    let attributes = attributes.replace("FORM", &format!("{form} 0 R"));
    file.page(&format!("{attributes} {resources}"), content);
    file.bytes()
}

#[test]
fn a_picture_with_too_many_pixels_is_refused_wherever_it_is_drawn() {
    for content in [
        b"/P Do".as_slice(),
        b"/Form Do",
        b"/Masked Do",
        b"/Pattern cs /Tiles scn 0 0 9 9 re f",
        b"/State gs 0 0 9 9 re f",
        b"BT /Glyphs 9 Tf (A) Tj ET",
        b"BI /W 30000 /H 30000 /BPC 1 /CS /G ID x EI",
    ] {
        let error = plan(huge("", content)).unwrap_err();
        assert_eq!(error, TOO_LARGE, "{}", String::from_utf8_lossy(content));
    }
    let stamp = "/Annots [<< /Subtype /Stamp /Rect [0 0 9 9] /AP << /N FORM >> >>]";
    assert_eq!(plan(huge(stamp, b"")).unwrap_err(), TOO_LARGE);
}

#[test]
fn a_page_is_not_drawn_where_its_plan_is_refused() {
    let file = open(huge("", b"/P Do")).unwrap();
    assert_eq!(file.draw(1, Draw::At(Size::new(10, 10))).unwrap_err(), TOO_LARGE);
}

#[test]
fn a_huge_picture_that_is_not_drawn_does_no_harm() {
    assert!(plan(huge("", b"")).is_ok());
}

#[test]
fn a_page_is_not_drawn_with_more_pixels_than_the_limit() {
    let file = open(Builder::single("", b"")).unwrap();
    let error = file.draw(1, Draw::At(Size::new(1_001, 1_000))).unwrap_err();
    assert_eq!(error, DocumentError::PageTooLarge { actual: 1_001_000, allowed: 1_000_000 });
    let long = file.draw(1, Draw::At(Size::new(40_000, 1))).unwrap_err();
    assert_eq!(long, DocumentError::PageTooLarge { actual: 40_000, allowed: 32_767 });
}

fn too_many_operators(actual: Option<u64>) -> DocumentError {
    DocumentError::TooComplex { resource: Resource::Objects, actual, allowed: LIMITS.operators }
}

#[test]
fn a_page_with_too_many_operators_is_refused() {
    assert!(plan(Builder::single("", &b"0 g ".repeat(10_000))).is_ok());
    let error = plan(Builder::single("", &b"0 g ".repeat(10_001))).unwrap_err();
    assert_eq!(error, too_many_operators(None));
}

/// A page whose form draws another ten times, and so on, down to a line.
fn nested(levels: usize) -> Bytes {
    let mut file = Builder::new();
    let mut form = file.stream("/Subtype /Form /BBox [0 0 9 9]", b"0 0 m 9 9 l S");
    for _ in 0..levels {
        let resources = format!("/Resources << /XObject << /F {form} 0 R >> >>");
        let entries = format!("/Subtype /Form /BBox [0 0 9 9] {resources}");
        form = file.stream(&entries, &b"/F Do ".repeat(10));
    }
    file.page(&format!("/Resources << /XObject << /F {form} 0 R >> >>"), b"/F Do");
    file.bytes()
}

#[test]
fn operators_of_forms_count_as_often_as_they_are_drawn() {
    assert!(plan(nested(3)).is_ok());
    // The page, then 10 + 100 + 1,000 + 10,000 forms, then the lines.
    let drawn = 1 + 10 + 100 + 1_000 + 10_000 + 3 * 10_000;
    assert_eq!(plan(nested(4)).unwrap_err(), too_many_operators(Some(drawn)));
    assert!(matches!(plan(nested(40)), Err(DocumentError::TooComplex { .. })));
}

#[test]
fn forms_that_draw_each_other_in_a_circle_are_drawn_once() {
    let mut file = Builder::new();
    let first = file.next();
    for other in [first + 1, first] {
        let resources = format!("/Resources << /XObject << /F {other} 0 R >> >>");
        let entries = format!("/Subtype /Form /BBox [0 0 9 9] {resources}");
        file.stream(&entries, &b"/F Do ".repeat(10));
    }
    file.page(&format!("/Resources << /XObject << /F {first} 0 R >> >>"), b"/F Do");
    let file = open(file.bytes()).unwrap();
    assert!(file.plan(1, false).is_ok());
    assert!(file.draw(1, Draw::At(Size::new(20, 10))).is_ok());
}

#[test]
fn the_cells_of_a_pattern_count_as_operators() {
    let mut file = Builder::new();
    let entries =
        "/PatternType 1 /PaintType 1 /BBox [0 0 100 100] /XStep 0.1 /YStep 0.1 /Resources << >>";
    let pattern = file.stream(entries, b"0 0 9 9 re f");
    let resources = format!("/Resources << /Pattern << /T {pattern} 0 R >> >>");
    file.page(&resources, b"/Pattern cs /T scn 0 0 9 9 re f");
    let drawn = 4 + 1_000 * 1_000 * 2;
    assert_eq!(plan(file.bytes()).unwrap_err(), too_many_operators(Some(drawn)));
}

#[test]
fn the_dashes_of_a_line_count_as_operators() {
    let dashed =
        |end: &str| plan(Builder::single("", format!("[1 2] 0 d 0 0 m {end} 0 l S").as_bytes()));
    assert!(dashed("900").is_ok());
    for endless in ["[-9 2] 0 d 0 0 m 9 0 l S", "[1 2] 999999999 d 0 0 m 9 0 l S"] {
        let error = plan(Builder::single("", endless.as_bytes())).unwrap_err();
        assert_eq!(error, too_many_operators(None), "{endless}");
    }
    assert_eq!(dashed("99999999999999999999").unwrap_err(), too_many_operators(None));
}

#[test]
fn content_that_inflates_beyond_its_limit_is_refused_before_it_is_decoded() {
    let deflated = |data: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let bomb = deflated(&deflated(&vec![b' '; 65 << 20]));
    let mut file = Builder::new();
    let form =
        file.stream("/Subtype /Form /BBox [0 0 9 9] /Filter [/FlateDecode /FlateDecode]", &bomb);
    file.page(&format!("/Resources << /XObject << /F {form} 0 R >> >>"), b"/F Do");
    let error = plan(file.bytes()).unwrap_err();
    let limit =
        DocumentError::TooComplex { resource: Resource::Memory, actual: None, allowed: 64 << 20 };
    assert_eq!(error, limit);
}
