mod builder;
mod hostile;
mod limits;
mod searchable;
mod stored;
mod text;

use ::image::DynamicImage;
use bytes::Bytes;

pub(super) use self::builder::{Builder, jpeg};
use super::PdfFile;
use super::fonts::Fonts;
use super::limits::Limits;
use crate::document::error::DocumentError;
use crate::document::page::{Draw, PagePlan, PageSize};
use crate::image::Size;
use crate::image::format::Format;
use crate::units::Pixels;

pub(super) const LIMITS: Limits =
    Limits { operators: 10_000, ..Limits::of_pixels(Pixels::new(1_000_000)) };

pub(super) fn open(file: Bytes) -> Result<PdfFile, DocumentError> {
    PdfFile::open(file, &Fonts::default(), LIMITS)
}

pub(super) fn plan(file: Bytes) -> Result<PagePlan, DocumentError> {
    open(file)?.plan(1, false)
}

/// The first page, drawn at two pixels to a point of the builder's page.
fn drawn(file: Bytes) -> (DynamicImage, Format) {
    let drawn = open(file).unwrap().draw(1, Draw::At(Size::new(400, 200))).unwrap();
    (::image::load_from_memory(&drawn.bytes).unwrap(), drawn.format)
}

fn is_dark(picture: &DynamicImage, x: u32, y: u32) -> bool {
    picture.to_luma8().get_pixel(x, y).0[0] < 64
}

fn points(file: Bytes) -> (f32, f32) {
    let PageSize::Points { width, height } = plan(file).unwrap().size else {
        panic!("a page of a PDF is measured in points")
    };
    (width, height)
}

#[test]
fn a_page_is_as_large_as_its_media_box() {
    assert_eq!(points(Builder::single("", b"")), (200.0, 100.0));
}

#[test]
fn a_page_is_as_large_as_the_part_of_its_crop_box_within_its_media_box() {
    assert_eq!(points(Builder::single("/CropBox [150 10 900 60]", b"")), (50.0, 50.0));
}

#[test]
fn a_turned_page_is_measured_upright() {
    for rotate in [90, -90, 270, 450] {
        assert_eq!(points(Builder::single(&format!("/Rotate {rotate}"), b"")), (100.0, 200.0));
    }
    assert_eq!(points(Builder::single("/Rotate 180", b"")), (200.0, 100.0));
}

#[test]
fn the_unit_of_a_page_scales_its_size() {
    assert_eq!(points(Builder::single("/UserUnit 2.5", b"")), (500.0, 250.0));
    assert_eq!(points(Builder::single("/UserUnit -1", b"")), (200.0, 100.0));
}

#[test]
fn a_page_without_an_area_is_refused_with_its_sides() {
    let error = plan(Builder::single("/MediaBox [5 5 5 300]", b"")).unwrap_err();
    assert!(error.to_string().contains("0 x 295 units"), "{error}");
}

#[test]
fn a_page_too_large_for_exact_positions_is_refused() {
    for side in ["99999999", "99999999999999999999999999999999999999999999"] {
        let error = plan(Builder::single(&format!("/MediaBox [0 0 {side} 10]"), b"")).unwrap_err();
        assert!(matches!(error, DocumentError::PdfUndecodable { .. }), "{error}");
    }
}

#[test]
fn pages_are_counted_and_one_behind_the_last_is_not_found() {
    let mut file = Builder::new();
    file.page("", b"");
    file.page("/MediaBox [0 0 10 10]", b"");
    let file = open(file.bytes()).unwrap();
    assert_eq!(file.page_count(), 2);
    let missing = Err(DocumentError::PageNotFound { asked: 3, pages: 2 });
    assert_eq!(file.plan(3, false), missing);
    let before = Err(DocumentError::PageNotFound { asked: 0, pages: 2 });
    assert_eq!(file.plan(0, false), before);
}

#[test]
fn a_page_that_is_listed_often_counts_each_time() {
    let mut file = Builder::new();
    let first = file.page("", b"");
    file.page("/MediaBox [0 0 10 10]", b"");
    for _ in 0..1_000 {
        file.list(first);
    }
    let file = open(file.bytes()).unwrap();
    assert_eq!(file.page_count(), 1_002);
    assert_eq!(file.plan(1_002, false), file.plan(1, false));
    assert_ne!(file.plan(2, false), file.plan(1, false));
}

#[test]
fn what_is_no_pdf_is_refused() {
    for bytes in [b"".as_slice(), b"%PDF-1.7", b"PK\x03\x04", &[0; 4096]] {
        let error = open(Bytes::copy_from_slice(bytes)).unwrap_err();
        assert!(matches!(error, DocumentError::PdfUndecodable { .. }), "{error}");
    }
}

#[test]
fn an_encrypted_file_that_cannot_be_opened_is_told_to_need_its_password() {
    let file = b"%PDF-1.4\ntrailer << /Root 1 0 R /Encrypt 2 0 R >>\n%%EOF";
    let error = open(Bytes::from_static(file)).unwrap_err();
    assert!(matches!(error, DocumentError::PasswordRequired), "{error}");
}

#[test]
fn a_file_without_pages_is_empty() {
    assert_eq!(open(Builder::new().bytes()).unwrap_err(), DocumentError::Empty);
}

#[test]
fn a_file_with_a_broken_index_is_read() {
    let file = Builder::single("", b"0 0 200 100 re f");
    let text = String::from_utf8(file.to_vec()).unwrap();
    let broken = text.replace("startxref\n", "startxref\n9");
    assert_ne!(text, broken);
    assert!(is_dark(&drawn(broken.into()).0, 200, 100));
}

#[test]
fn a_page_is_drawn_in_exactly_the_pixels_that_are_asked_for() {
    let file = open(Builder::single("", b"")).unwrap();
    for (width, height) in [(1, 1), (13, 400), (400, 200), (999, 1)] {
        let drawn = file.draw(1, Draw::At(Size::new(width, height))).unwrap();
        assert_eq!(drawn.size, Size::new(width, height));
        let picture = ::image::load_from_memory(&drawn.bytes).unwrap();
        assert_eq!((picture.width(), picture.height()), (width, height));
    }
}

#[test]
fn a_page_is_drawn_upright_on_white() {
    // A square in the lower left corner of the page as it is stored.
    let square = b"0 0 50 50 re f";
    let (picture, _) = drawn(Builder::single("", square));
    assert!(is_dark(&picture, 50, 150) && !is_dark(&picture, 50, 50));
    assert_eq!(picture.to_luma8().get_pixel(399, 0).0, [255]);
    // Turned clockwise, it is in the upper left corner.
    let (picture, _) = drawn(Builder::single("/Rotate 90", square));
    assert!(is_dark(&picture, 100, 20) && !is_dark(&picture, 100, 180));
}

#[test]
fn a_page_without_colors_is_encoded_as_gray() {
    let (gray, _) = drawn(Builder::single("", b"0.5 g 0 0 50 50 re f"));
    assert!(matches!(gray, DynamicImage::ImageLuma8(_)));
    let (colored, _) = drawn(Builder::single("", b"1 0 0 rg 0 0 50 50 re f"));
    assert!(matches!(colored, DynamicImage::ImageRgb8(_)));
}

#[test]
fn lines_become_png_and_photographs_become_jpeg() {
    assert_eq!(drawn(Builder::single("", b"0 0 50 50 re f")).1, Format::Png);
    let mut file = Builder::new();
    let photograph = jpeg(400, 200, jpeg_encoder::ColorType::Rgb);
    let photograph = file.stream(
        "/Subtype /Image /Width 400 /Height 200 /ColorSpace /DeviceRGB /Filter /DCTDecode",
        &photograph,
    );
    let resources = format!("/Resources << /XObject << /P {photograph} 0 R >> >>");
    file.page(&resources, b"200 0 0 100 0 0 cm /P Do");
    assert_eq!(drawn(file.bytes()).1, Format::Jpeg);
}

#[test]
fn annotations_and_form_fields_are_drawn_as_a_viewer_shows_them() {
    let mut file = Builder::new();
    let look = file.stream("/Subtype /Form /BBox [0 0 10 10]", b"0 0 10 10 re f");
    let shown = format!("<< /Subtype /Widget /FT /Tx /Rect [0 0 50 50] /AP << /N {look} 0 R >> >>");
    let hidden = format!("<< /Subtype /Stamp /F 2 /Rect [100 0 150 50] /AP << /N {look} 0 R >> >>");
    file.page(&format!("/Annots [{shown} {hidden}]"), b"");
    let (picture, _) = drawn(file.bytes());
    assert!(is_dark(&picture, 50, 150) && !is_dark(&picture, 250, 150));
}

#[test]
fn text_in_a_chinese_font_that_is_not_embedded_is_drawn() {
    let Some(font) = Fonts::installed() else {
        println!("skipped: no font with Chinese characters is installed (fonts-droid-fallback)");
        return;
    };
    let mut file = Builder::new();
    let font_object = file.object(
        "<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H \
         /DescendantFonts [<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light \
         /CIDSystemInfo << /Registry (Adobe) /Ordering (GB1) /Supplement 4 >> >>] >>",
    );
    let resources = format!("/Resources << /Font << /F {font_object} 0 R >> >>");
    file.page(&resources, b"BT /F 60 Tf 10 20 Td <4E2D6587> Tj ET");
    let file = file.bytes();
    let ink = |fonts: &Fonts| {
        let file = PdfFile::open(file.clone(), fonts, LIMITS).unwrap();
        let drawn = file.draw(1, Draw::At(Size::new(400, 200))).unwrap();
        let picture = ::image::load_from_memory(&drawn.bytes).unwrap().to_luma8();
        picture.pixels().filter(|pixel| pixel.0[0] < 128).count()
    };
    let with_font = ink(&Fonts::load(&font).unwrap());
    assert!(with_font > 2_000, "{with_font} dark pixels");
    assert_eq!(
        ink(&Fonts::default()),
        0,
        "hayro draws such text without a font: drop the fallback"
    );
}
