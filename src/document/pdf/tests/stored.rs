//! A page that is nothing but one picture.

use bytes::Bytes;

use super::{Builder, jpeg, open, plan};
use crate::document::error::DocumentError;
use crate::document::page::{Draw, Part, StoredPicture};
use crate::document::sendable::encoded;
use crate::image::Size;
use crate::image::format::Format;
use crate::image::region::Region;

const PLACED: &str = "q 200 0 0 100 0 0 cm /P Do Q";
const RGB: &str = "/ColorSpace /DeviceRGB";

/// A page with a picture of 80 x 40 pixels.
struct Scan {
    picture: Vec<u8>,
    entries: String,
    attributes: String,
    content: String,
}

impl Scan {
    fn new() -> Self {
        Self {
            picture: jpeg(80, 40, jpeg_encoder::ColorType::Rgb),
            entries: RGB.to_owned(),
            attributes: String::new(),
            content: PLACED.to_owned(),
        }
    }

    fn content(content: &str) -> Self {
        Self { content: content.to_owned(), ..Self::new() }
    }

    fn entries(entries: &str) -> Self {
        Self { entries: entries.to_owned(), ..Self::new() }
    }

    fn attributes(attributes: &str) -> Self {
        Self { attributes: attributes.to_owned(), ..Self::new() }
    }

    fn bytes(&self) -> Bytes {
        let mut file = Builder::new();
        let entries = &self.entries;
        let picture = file.stream(
            &format!("/Subtype /Image /Width 80 /Height 40 /BitsPerComponent 8 /Filter /DCTDecode {entries}"),
            &self.picture,
        );
        let form = file.stream("/Subtype /Form /BBox [0 0 200 100]", PLACED.as_bytes());
        let font = file.object("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>");
        let faint = file.object("<< /Type /ExtGState /ca 0.5 >>");
        let resources = format!(
            "/Resources << /XObject << /P {picture} 0 R /Form {form} 0 R >> /Font << /F {font} 0 R >> \
             /ExtGState << /Faint {faint} 0 R >> >>"
        );
        file.page(&format!("{} {resources}", self.attributes), self.content.as_bytes());
        file.bytes()
    }

    fn is_stored(&self) -> bool {
        plan(self.bytes()).unwrap().stored.is_some()
    }
}

#[test]
fn a_page_that_is_one_jpeg_is_sent_as_it_is_stored() {
    let scan = Scan::new();
    let file = open(scan.bytes()).unwrap();
    let stored =
        StoredPicture { format: Format::Jpeg, size: Size::new(80, 40), bytes: scan.picture.len() };
    assert_eq!(file.plan(1, false).unwrap().stored, Some(stored));
    let sent = file.draw(1, Draw::AsStored).unwrap();
    assert_eq!((sent.format, sent.size), (stored.format, stored.size));
    assert_eq!(sent.bytes, scan.picture);
}

#[test]
fn what_a_viewer_does_not_show_leaves_the_picture_stored() {
    for content in [
        "q 199.5 0 0 99.5 0.2 0.3 cm /P Do Q",
        "0 0 200 100 re W n q 200 0 0 100 0 0 cm /P Do Q",
        "1 g 0 0 200 100 re f q 200 0 0 100 0 0 cm /P Do Q",
        "/Form Do",
        "q 200 0 0 100 0 0 cm /P Do Q BT 3 Tr /F 12 Tf 10 10 Td (recognized) Tj ET",
        "q 200 0 0 100 0 0 cm /P Do Q q 300 300 5 5 re f Q",
    ] {
        assert!(Scan::content(content).is_stored(), "{content}");
    }
    assert!(Scan::entries("/ColorSpace /DeviceRGB /Decode [0 1 0 1 0 1]").is_stored());
    assert!(Scan::attributes("/CropBox [0 0 200.4 99.6]").is_stored());
}

#[test]
fn a_gray_jpeg_is_sent_as_it_is_stored() {
    let picture = jpeg(80, 40, jpeg_encoder::ColorType::Luma);
    let scan = Scan { picture, entries: "/ColorSpace /DeviceGray".to_owned(), ..Scan::new() };
    assert!(scan.is_stored());
}

#[test]
fn a_page_that_shows_more_or_less_than_the_picture_is_drawn() {
    for content in [
        "q 200 0 0 -100 0 100 cm /P Do Q",
        "q -200 0 0 100 200 0 cm /P Do Q",
        "q 100 0 0 50 0 0 cm /P Do Q",
        "q 400 0 0 200 0 0 cm /P Do Q",
        "q 0 100 -200 0 200 0 cm /P Do Q",
        "q 200 20 0 100 0 0 cm /P Do Q",
        "q 200 0 0 100 0 0 cm /P Do Q 10 10 5 5 re f",
        "q 200 0 0 100 0 0 cm /P Do Q 1 g 10 10 5 5 re f",
        "q 200 0 0 100 0 0 cm /P Do Q BT /F 12 Tf 10 10 Td (seen) Tj ET",
        "20 20 100 50 re W n q 200 0 0 100 0 0 cm /P Do Q",
        "0 0 m 200 0 l 0 100 l h W n q 200 0 0 100 0 0 cm /P Do Q",
        "/Faint gs q 200 0 0 100 0 0 cm /P Do Q",
        "q 100 0 0 100 0 0 cm /P Do Q q 100 0 0 100 100 0 cm /P Do Q",
    ] {
        assert!(!Scan::content(content).is_stored(), "{content}");
    }
}

#[test]
fn a_turned_page_is_drawn_unless_the_picture_turns_back() {
    assert!(!Scan::attributes("/Rotate 180").is_stored());
    assert!(!Scan::attributes("/Rotate 90").is_stored());
    let upright = Scan {
        attributes: "/Rotate 180".to_owned(),
        ..Scan::content("q -200 0 0 -100 200 100 cm /P Do Q")
    };
    assert!(upright.is_stored());
}

#[test]
fn a_picture_that_is_changed_before_it_is_shown_is_drawn() {
    for entries in [
        "/ColorSpace /DeviceRGB /Decode [1 0 1 0 1 0]",
        "/ColorSpace /DeviceRGB /Mask [0 10 0 10 0 10]",
        "/ColorSpace /DeviceGray",
        "/ColorSpace /DeviceCMYK",
        "/ColorSpace [/Indexed /DeviceRGB 1 <000000ffffff>]",
        "/ColorSpace /DeviceRGB /DecodeParms << /ColorTransform 0 >>",
        "/ImageMask true",
    ] {
        assert!(!Scan::entries(entries).is_stored(), "{entries}");
    }
}

#[test]
fn a_jpeg_that_the_provider_refuses_or_turns_is_drawn() {
    let turned = turned_by_exif(&Scan::new().picture);
    assert!(!Scan { picture: turned, ..Scan::new() }.is_stored());
    let other_size = jpeg(64, 32, jpeg_encoder::ColorType::Rgb);
    assert!(!Scan { picture: other_size, ..Scan::new() }.is_stored());
    let four_colors = jpeg_of_four_colors();
    let scan = Scan { picture: four_colors, ..Scan::entries("/ColorSpace /DeviceCMYK") };
    assert!(!scan.is_stored());
}

/// Adds the orientation "half a turn" behind the start of a JPEG.
fn turned_by_exif(jpeg: &[u8]) -> Vec<u8> {
    let (start, rest) = jpeg.split_at(2);
    let orientation =
        b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0";
    [start, orientation, rest].concat()
}

fn jpeg_of_four_colors() -> Vec<u8> {
    let mut file = Vec::new();
    let samples = vec![9; 80 * 40 * 4];
    jpeg_encoder::Encoder::new(&mut file, 80)
        .encode(&samples, 80, 40, jpeg_encoder::ColorType::Cmyk)
        .unwrap();
    file
}

#[test]
fn an_annotation_over_the_picture_is_drawn() {
    let look = "<< /Subtype /Stamp /Rect [0 0 50 50] /AP << /N 4 0 R >> >>";
    assert!(!Scan::attributes(&format!("/Annots [{look}]")).is_stored());
}

#[test]
fn a_page_without_a_stored_picture_is_not_drawn_as_stored() {
    let file = open(Builder::single("", b"")).unwrap();
    let error = file.draw(1, Draw::AsStored).unwrap_err();
    assert!(matches!(error, DocumentError::PdfUndecodable { .. }), "{error}");
}

#[test]
fn a_page_that_is_one_jpeg_is_made_smaller_from_it_and_a_gray_one_stays_gray() {
    use crate::pixels::raster::Samples;

    for (colors, entries, samples) in [
        (jpeg_encoder::ColorType::Luma, "/ColorSpace /DeviceGray", Samples::Gray),
        (jpeg_encoder::ColorType::Rgb, RGB, Samples::Rgb),
    ] {
        let scan = Scan { picture: jpeg(80, 40, colors), ..Scan::entries(entries) };
        let file = open(scan.bytes()).unwrap();
        let picture = file.picture(1).unwrap();
        assert_eq!((picture.size(), picture.samples()), (Size::new(80, 40), samples));
        let small = Size::new(40, 20);
        let from_picture = file.draw(1, Draw::At(small)).unwrap();
        let expected = encoded(&picture.resized(small).without_empty_colour()).unwrap();
        assert_eq!(from_picture, expected);
        let large = file.draw(1, Draw::At(Size::new(160, 80))).unwrap();
        assert_eq!(large.size, Size::new(160, 80), "a larger one is drawn");
    }
}

#[test]
fn a_part_of_a_page_shows_what_is_there() {
    let file = open(Builder::single("", b"0 g 0 50 50 50 re f")).unwrap();
    let page = Size::new(400, 200);
    let region = Region { left: 0, top: 0, right: 200, bottom: 100 };
    let part = Part { page, region, size: Size::new(100, 50) };
    let drawn = file.draw(1, Draw::Part(part)).unwrap();
    let drawn = image::load_from_memory(&drawn.bytes).unwrap().to_luma8();
    assert_eq!(drawn.dimensions(), (100, 50));
    let level = |x, y| drawn.get_pixel(x, y).0[0];
    assert_eq!([level(10, 10), level(48, 48), level(60, 10)], [0, 0, 255]);
}
