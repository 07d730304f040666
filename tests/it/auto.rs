//! `max_pixels=auto`: the fewest pixels at which the text of a page stays legible, without its margins, and no call for a
//! blank page.

use dashscope_emulator::EngineChoice;
use image::{ExtendedColorType, GrayImage, ImageEncoder as _};
use ocr_gateway::auth::tenant::OnExceed;
use ocr_gateway::document::page::Draw;
use ocr_gateway::document::pdf::PdfFile;
use ocr_gateway::document::pdf::fonts::Fonts;
use ocr_gateway::document::pdf::limits::Limits;
use ocr_gateway::image::Size;
use ocr_gateway::units::Pixels;
use serde_json::{Value, json};

use crate::harness::{Answer, SCRIPTED_TEXT, Setup, TestGateway, fixture, has_tesseract};
use crate::pdf::{PdfPage, pdf};

const AUTO: &str = "max_pixels=auto";

/// A page of text at the top, with wide margins at the right and at the bottom.
fn page() -> PdfPage {
    let lines = [
        "The ferry leaves the old harbour at noon",
        "and returns at night, when the lamps of",
        "the quay are lit and the cafes are full.",
        "Tickets are sold on board for 12.50 and",
        "children below 6 travel free of charge.",
    ];
    PdfPage::of_text(612, 792, &lines)
}

/// The page as a gray picture, drawn at 200 pixels for an inch.
fn picture() -> GrayImage {
    drawn(&pdf(&[page()]), 1_700, 2_200)
}

fn drawn(file: &[u8], width: u32, height: u32) -> GrayImage {
    let limits = Limits::of_pixels(Pixels::new(10_000_000));
    let file = PdfFile::open(file.to_vec().into(), &Fonts::default(), limits).unwrap();
    let drawn = file.draw(1, Draw::At(Size::new(width, height))).unwrap();
    image::load_from_memory(&drawn.bytes).unwrap().to_luma8()
}

fn blank() -> GrayImage {
    GrayImage::from_pixel(1_000, 1_400, image::Luma([250]))
}

fn jpeg(picture: &GrayImage) -> Vec<u8> {
    let mut file = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 90)
        .encode_image(picture)
        .unwrap();
    file
}

/// The picture in each format that is decoded here.
fn in_every_format(picture: &GrayImage) -> Vec<(&'static str, Vec<u8>)> {
    let (width, height) = picture.dimensions();
    let gray = ExtendedColorType::L8;
    let (mut webp, mut bmp) = (Vec::new(), Vec::new());
    image::codecs::webp::WebPEncoder::new_lossless(&mut webp)
        .write_image(picture, width, height, gray)
        .unwrap();
    image::codecs::bmp::BmpEncoder::new(&mut bmp)
        .write_image(picture, width, height, gray)
        .unwrap();
    vec![
        ("jpeg", jpeg(picture)),
        ("png", png(picture, gray)),
        ("webp", webp),
        ("bmp", bmp),
        ("tiff", tiff(&[picture])),
    ]
}

fn png<P>(picture: &image::ImageBuffer<P, Vec<u8>>, colours: ExtendedColorType) -> Vec<u8>
where
    P: image::Pixel<Subpixel = u8>,
{
    let (mut file, (width, height)) = (Vec::new(), picture.dimensions());
    image::codecs::png::PngEncoder::new(&mut file)
        .write_image(picture, width, height, colours)
        .unwrap();
    file
}

/// A TIFF with these pages.
fn tiff(pages: &[&GrayImage]) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut file).unwrap();
    for page in pages {
        let (width, height) = page.dimensions();
        encoder
            .write_image::<tiff::encoder::colortype::Gray8>(width, height, page.as_raw())
            .unwrap();
    }
    file.into_inner()
}

/// A JPEG that a viewer turns as this value of the EXIF tag says.
fn turned_by_exif(jpeg: &[u8], value: u8) -> Vec<u8> {
    let (start, rest) = jpeg.split_at(2);
    let mut orientation =
        b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x00\0\0\0\0\0\0\0"
            .to_vec();
    orientation[28] = value;
    [start, &orientation, rest].concat()
}

/// The picture as it is stored if a viewer turns it as this value says.
fn stored_for(value: u8, picture: &GrayImage) -> GrayImage {
    use image::imageops::{flip_horizontal, rotate90, rotate180, rotate270};
    match value {
        2 => flip_horizontal(picture),
        3 => rotate180(picture),
        6 => rotate270(picture),
        8 => rotate90(picture),
        _ => picture.clone(),
    }
}

/// Estimates the file and reads it, and checks that the bill is the estimate. Returns the pages of both answers.
async fn read(gateway: &TestGateway, options: &str, file: &[u8]) -> (Value, Value) {
    let estimate = gateway.upload(&format!("/estimate?{options}"), file.to_vec()).await;
    assert_eq!(estimate.status, 200, "{}", estimate.text);
    let before = gateway.upstream().bill().image;
    let answer = gateway.upload(&format!("/ocr?{options}"), file.to_vec()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let (estimated, pages) = (estimate.json["pages"].clone(), answer.json["pages"].clone());
    let mut billed = 0;
    for (estimated, read) in estimated.as_array().unwrap().iter().zip(pages.as_array().unwrap()) {
        assert_eq!(read["image_tokens"]["estimated"], estimated["image_tokens"], "{read}");
        assert_eq!(read["image_tokens"]["billed"], estimated["image_tokens"], "{read}");
        for member in ["sent", "source", "width", "height"] {
            assert_eq!(read[member], estimated[member]);
        }
        billed += read["image_tokens"]["billed"].as_u64().unwrap();
    }
    assert_eq!(gateway.upstream().bill().image - before, billed);
    (estimated, pages)
}

fn tokens(page: &Value) -> u64 {
    page["image_tokens"]["billed"].as_u64().unwrap()
}

/// Asserts that less of a page was sent than all of it, and that this is told. Returns the part that was sent.
fn assert_chosen(page: &Value, without: &Value) -> [u64; 4] {
    assert_eq!(page["sent"]["reason"], "auto", "{page}");
    assert!(tokens(page) < tokens(without) / 2, "{page} {without}");
    assert_eq!([&page["width"], &page["height"]], [&without["width"], &without["height"]]);
    assert!(page["sent"]["text_height"].as_f64().unwrap() > 0.0);
    let side = |name: &str| page["sent"][name].as_u64().unwrap();
    assert_eq!((side("width") % 32, side("height") % 32), (0, 0));
    assert_eq!(side("max_pixels"), side("width") * side("height"));
    assert_eq!(tokens(page), side("max_pixels") / 1024 + 2);
    serde_json::from_value(page["sent"]["crop"].clone()).unwrap()
}

fn data_url(jpeg: &[u8]) -> String {
    format!("data:image/jpeg;base64,{}", base64_simd::STANDARD.encode_to_string(jpeg))
}

fn reading(setup: &mut Setup) {
    setup.emulator.engine = EngineChoice::default();
}

// Pixels and bills.

#[tokio::test]
async fn a_picture_of_every_format_costs_what_was_estimated_and_less_than_without() {
    let gateway = TestGateway::start().await;
    let picture = picture();
    for (format, file) in in_every_format(&picture) {
        let (_, without) = read(&gateway, "", &file).await;
        assert_eq!(without[0]["sent"].get("text_height"), None, "{format}");
        let (_, with) = read(&gateway, AUTO, &file).await;
        let [left, top, right, bottom] = assert_chosen(&with[0], &without[0]);
        assert!(left < 120 && top < 200 && right < 1_400 && bottom < 700, "{format} {with}");
        assert_eq!(with[0]["source"], "image");
    }
    assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 0);
}

#[tokio::test]
async fn what_is_saved_is_told_and_counted_by_its_reason() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.max_pixels = Some(Pixels::new(1_048_576));
    })
    .await;
    let file = jpeg(&picture());
    let without = gateway.upload("/ocr", file.clone()).await.json;
    let by_cap = without["usage"]["tokens_saved"].as_u64().unwrap();
    assert!(by_cap > 0);
    let with = gateway.upload(&format!("/ocr?{AUTO}"), file).await.json;
    let by_choice = tokens(&without["pages"][0]) - tokens(&with["pages"][0]);
    assert_eq!(with["usage"]["tokens_saved"], by_cap + by_choice);
    assert_eq!(with["pages"][0]["sent"]["capped"], false);
    assert_eq!(with["pages"][0]["warnings"], json!([]));
    let saved = |reason| ("reason", reason);
    assert_eq!(gateway.count("tokens_saved_total", &[saved("auto")]).await, by_choice);
    assert_eq!(gateway.count("tokens_saved_total", &[saved("max_pixels")]).await, 2 * by_cap);
}

#[tokio::test]
async fn a_turned_picture_is_cut_in_the_pixels_of_the_upright_one() {
    let gateway = TestGateway::start().await;
    let upright = picture();
    let (_, plain) = read(&gateway, AUTO, &jpeg(&upright)).await;
    let expected: [u64; 4] = serde_json::from_value(plain[0]["sent"]["crop"].clone()).unwrap();
    for value in [2, 3, 6, 8] {
        let file = turned_by_exif(&jpeg(&stored_for(value, &upright)), value);
        let (_, pages) = read(&gateway, AUTO, &file).await;
        assert_eq!([&pages[0]["width"], &pages[0]["height"]], [&json!(1_700), &json!(2_200)]);
        let crop: [u64; 4] = serde_json::from_value(pages[0]["sent"]["crop"].clone()).unwrap();
        for (own, other) in crop.into_iter().zip(expected) {
            assert!(own.abs_diff(other) <= 24, "{value} {crop:?} {expected:?}");
        }
        let (sent, of_plain) = (&pages[0]["sent"], &plain[0]["sent"]);
        assert_eq!(sent["width"], of_plain["width"], "{value}");
        let lines = gateway.upload(&format!("/ocr?{AUTO}&detail=lines"), file).await;
        assert_eq!(lines.json["pages"][0]["warnings"], json!([]), "its boxes are certain");
    }
}

#[tokio::test]
async fn the_pages_of_a_pdf_and_of_a_tiff_are_chosen_one_by_one() {
    let gateway = TestGateway::start().await;
    let picture = picture();
    let scan = PdfPage::of_picture(612, 792, jpeg(&picture), [1_700, 2_200]);
    let document = pdf(&[page(), scan, PdfPage::of_text(612, 792, &[])]);
    let (_, without) = read(&gateway, "", &document).await;
    let (_, with) = read(&gateway, AUTO, &document).await;
    assert_eq!([0, 1, 2].map(|page| &with[page]["source"]), ["rendered", "image", "blank"]);
    for page in [0, 1] {
        assert_chosen(&with[page], &without[page]);
    }
    assert_eq!((&with[2]["text"], tokens(&with[2])), (&json!(""), 0));
    let document = tiff(&[&picture, &blank(), &picture]);
    let (_, without) = read(&gateway, "", &document).await;
    let (_, with) = read(&gateway, AUTO, &document).await;
    assert_eq!([0, 1, 2].map(|page| &with[page]["source"]), ["image", "blank", "image"]);
    for page in [0, 2] {
        assert_chosen(&with[page], &without[page]);
    }
}

#[tokio::test]
async fn the_original_is_sent_where_nothing_is_gained_or_it_must_not_be_made_smaller() {
    let gateway = TestGateway::start().await;
    // Small text without margins has no pixels to spare.
    let small = drawn(&pdf(&[page()]), 612, 792);
    let small = jpeg(&image::imageops::crop_imm(&small, 32, 36, 340, 112).to_image());
    let (_, with) = read(&gateway, AUTO, &small).await;
    let sent = &with[0]["sent"];
    assert_eq!((&sent["reason"], sent.get("crop")), (&json!("default"), None), "{sent}");
    assert!((5.0..14.0).contains(&sent["text_height"].as_f64().unwrap()), "{sent}");
    assert_eq!(gateway.upstream().calls().last().unwrap().images[0].bytes, small.len());
    let file = jpeg(&picture());
    let never = format!("{AUTO}&downscale=never");
    let (_, whole) = read(&gateway, &never, &file).await;
    assert_eq!((&whole[0]["sent"]["reason"], whole[0]["sent"].get("crop")), (&json!("auto"), None));
    let image = gateway.upstream().calls().last().unwrap().images[0].clone();
    assert_eq!((image.bytes, image.width), (file.len(), Some(1_700)), "it is the original");
    let side = |name: &str| whole[0]["sent"][name].as_u64().unwrap();
    assert!(side("width") * side("height") <= side("max_pixels"));
}

#[tokio::test]
async fn the_lines_of_a_cut_page_are_where_they_are_without() {
    if !has_tesseract() {
        return;
    }
    let gateway = TestGateway::with(reading).await;
    let picture = picture();
    let scan = PdfPage::of_picture(612, 792, jpeg(&picture), [1_700, 2_200]);
    for file in [jpeg(&picture), tiff(&[&picture]), pdf(&[page()]), pdf(&[scan])] {
        let without = gateway.upload("/ocr?detail=lines", file.clone()).await.json;
        let with = gateway.upload(&format!("/ocr?detail=lines&{AUTO}"), file).await.json;
        assert_chosen(&with["pages"][0], &without["pages"][0]);
        assert_eq!(with["text"], without["text"]);
        let [with, without] = [with, without].map(|answer| answer["pages"][0]["lines"].clone());
        let (with, without) = (with.as_array().unwrap(), without.as_array().unwrap());
        assert_eq!(with.len(), without.len());
        for (one, other) in with.iter().zip(without) {
            let corner = |line: &Value, at: usize| line["bbox"][at].as_u64().unwrap();
            for at in 0..4 {
                assert!(corner(one, at).abs_diff(corner(other, at)) <= 12, "{one} {other}");
            }
        }
    }
}

// Blank pages.

#[tokio::test]
async fn a_blank_page_is_answered_without_a_call() {
    let gateway = TestGateway::start().await;
    for (format, file) in in_every_format(&blank()) {
        let (estimated, pages) = read(&gateway, AUTO, &file).await;
        let page = &pages[0];
        assert_eq!((&page["source"], &page["text"]), (&json!("blank"), &json!("")), "{format}");
        assert_eq!((&page["sent"], &page["lines"]), (&Value::Null, &Value::Null));
        assert_eq!(page["image_tokens"], json!({ "estimated": 0, "billed": 0 }));
        assert_eq!(estimated[0]["image_tokens"], 0);
        let lines = gateway.upload(&format!("/ocr?detail=lines&{AUTO}"), file).await.json;
        assert_eq!(lines["pages"][0]["lines"], json!([]));
    }
    assert_eq!(gateway.upstream().bill().received, 0);
    let blank = jpeg(&blank());
    let answer = gateway.upload(&format!("/ocr?{AUTO}"), blank.clone()).await.json;
    assert_eq!(
        (&answer["status"], &answer["usage"]["total_tokens"]),
        (&"succeeded".into(), &0.into())
    );
    let without = gateway.upload("/estimate", blank).await.json;
    assert_eq!(answer["usage"]["tokens_saved"], without["pages"][0]["image_tokens"]);
    assert_eq!(gateway.count("pages_total", &[("source", "blank")]).await, 11);
    assert!(gateway.count("tokens_saved_total", &[("reason", "blank")]).await > 0);
}

#[tokio::test]
async fn a_blank_page_has_no_fields_and_is_read_where_the_prompt_is_the_callers() {
    let gateway = TestGateway::start().await;
    let blank = jpeg(&blank());
    for ground in ["", "&ground=true"] {
        let path = format!("/extract?template=receipt&{AUTO}{ground}");
        let answer = gateway.upload(&path, blank.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let data = answer.json["data"].as_object().unwrap();
        assert!(!data.is_empty() && data.values().all(Value::is_null), "{}", answer.text);
        assert_eq!(answer.json["pages"][0]["source"], "blank");
    }
    assert_eq!(gateway.upstream().bill().received, 0);
    for asked in ["prompt=Is%20it%20blank", "task=key_information_extraction"] {
        let (_, pages) = read(&gateway, &format!("{AUTO}&{asked}"), &blank).await;
        assert_eq!(pages[0]["source"], "image", "{asked}");
    }
    assert_eq!(gateway.upstream().bill().received, 2);
}

#[tokio::test]
async fn faint_marks_are_not_blank() {
    let gateway = TestGateway::start().await;
    let mut page = blank();
    for x in 480..520 {
        for y in 1_300..1_306 {
            page.put_pixel(x, y, image::Luma([228]));
        }
    }
    let (_, pages) = read(&gateway, AUTO, &jpeg(&page)).await;
    assert_eq!((&pages[0]["source"], &pages[0]["text"]), (&json!("image"), &json!(SCRIPTED_TEXT)));
    let crop: [u32; 4] = serde_json::from_value(pages[0]["sent"]["crop"].clone()).unwrap();
    assert!(crop[0] <= 480 && crop[1] <= 1_300 && crop[2] >= 520 && crop[3] >= 1_306, "{crop:?}");
}

#[tokio::test]
async fn text_as_bright_as_its_ground_is_not_blank() {
    let gateway = TestGateway::start().await;
    let page = image::RgbImage::from_fn(1_000, 1_400, |x, y| {
        let is_ink = (700..724).contains(&y) && x % 24 < 12 && x % 12 < 6 && x < 600;
        image::Rgb(if is_ink { [200, 220, 255] } else { [217; 3] })
    });
    let (_, pages) = read(&gateway, AUTO, &png(&page, ExtendedColorType::Rgb8)).await;
    assert_eq!((&pages[0]["source"], &pages[0]["text"]), (&json!("image"), &json!(SCRIPTED_TEXT)));
    let crop: [u32; 4] = serde_json::from_value(pages[0]["sent"]["crop"].clone()).unwrap();
    assert!(crop[1] <= 700 && crop[3] >= 724 && crop[3] < 1_400, "{crop:?}");
}

#[tokio::test]
async fn joined_writing_in_a_strip_is_not_blank() {
    let gateway = TestGateway::start().await;
    let strip = GrayImage::from_fn(800, 24, |x, y| {
        let is_ink = y.abs_diff(4 + (x % 28).abs_diff(14)) < 2;
        image::Luma([if is_ink { 60 } else { 255 }])
    });
    let (_, pages) = read(&gateway, AUTO, &png(&strip, ExtendedColorType::L8)).await;
    assert_eq!(pages[0]["text"], SCRIPTED_TEXT);
}

#[tokio::test]
async fn a_picture_with_transparent_pixels_is_sent_as_without() {
    let gateway = TestGateway::start().await;
    let drawn = |opacity: u8| {
        // White text, which only a dark ground shows.
        let page = image::RgbaImage::from_fn(1_000, 1_400, |x, y| {
            let is_ink = (700..724).contains(&y) && x % 24 < 12 && x % 12 < 6 && x < 600;
            image::Rgba([255, 255, 255, if is_ink { 255 } else { opacity }])
        });
        png(&page, ExtendedColorType::Rgba8)
    };
    let file = drawn(0);
    let (_, without) = read(&gateway, "", &file).await;
    let (_, with) = read(&gateway, AUTO, &file).await;
    assert_eq!((&with[0]["source"], &with[0]["text"]), (&json!("image"), &json!(SCRIPTED_TEXT)));
    assert_eq!(tokens(&with[0]), tokens(&without[0]));
    let image = gateway.upstream().calls().last().unwrap().images[0].clone();
    assert_eq!(image.bytes, file.len(), "it is the original");
    let (_, opaque) = read(&gateway, AUTO, &drawn(255)).await;
    assert_eq!(opaque[0]["source"], "blank");
}

// Who asks.

#[tokio::test]
async fn a_tenant_may_have_it_by_default_and_a_number_wins() {
    let gateway = TestGateway::with(|setup| setup.tenant.auto_pixels = true).await;
    let file = jpeg(&picture());
    let reason = async |options: &str| {
        let (_, pages) = read(&gateway, options, &file).await;
        pages[0]["sent"]["reason"].clone()
    };
    assert_eq!(reason("").await, "auto");
    assert_eq!(reason("min_pixels=10000").await, "auto");
    assert_eq!(reason("max_pixels=2000000").await, "asked");
    // A drop-in request has the pixels that its own protocol gives it.
    let url = data_url(&file);
    let content = json!([{ "type": "image_url", "image_url": { "url": url } }]);
    let body =
        json!({ "model": "qwen-vl-ocr", "messages": [{ "role": "user", "content": content }] });
    let before = gateway.upstream().bill().image;
    let answer = Answer::of(
        gateway
            .post("/v1/chat/completions")
            .header("content-type", "application/json")
            .body(body.to_string()),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let whole = gateway.upload("/estimate?max_pixels=8388608", file.clone()).await.json;
    let billed = gateway.upstream().bill().image - before;
    assert_eq!(whole["pages"][0]["image_tokens"], billed);
}

#[tokio::test]
async fn a_tenant_that_rejects_gets_what_is_legible_within_its_cap_and_a_refusal_otherwise() {
    let gateway = TestGateway::with(|setup| {
        setup.tenant.max_pixels = Some(Pixels::new(1_048_576));
        setup.tenant.on_exceed = OnExceed::Reject;
    })
    .await;
    let file = jpeg(&picture());
    let refused = gateway.upload("/ocr", file.clone()).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (413, "image_too_large"));
    let (_, pages) = read(&gateway, AUTO, &file).await;
    assert_eq!(
        (&pages[0]["sent"]["reason"], &pages[0]["sent"]["capped"]),
        (&"auto".into(), &false.into())
    );
    // Noise has no text that could be measured.
    let mut state = 1_u32;
    let noise = GrayImage::from_fn(1_600, 1_600, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        image::Luma([state.to_be_bytes()[0]])
    });
    let noise = jpeg(&noise);
    for route in ["/ocr", "/estimate"] {
        let with = gateway.upload(&format!("{route}?{AUTO}"), noise.clone()).await;
        let without = gateway.upload(route, noise.clone()).await;
        assert_eq!((with.status, with.code()), (without.status, without.code()), "{}", with.text);
    }
}

#[tokio::test]
async fn it_is_asked_for_in_the_query_in_a_form_and_in_json() {
    let gateway = TestGateway::start().await;
    let file = jpeg(&picture());
    let part = reqwest::multipart::Part::bytes(file.clone());
    let form = reqwest::multipart::Form::new().part("file", part).text("max_pixels", "auto");
    let data = data_url(&file);
    let body = json!({ "document": { "type": "base64", "data": data }, "max_pixels": "auto" });
    for request in [
        gateway.post("/ocr").multipart(form),
        gateway.post("/ocr").header("content-type", "application/json").body(body.to_string()),
    ] {
        let answer = Answer::of(request).await;
        assert_eq!(answer.json["pages"][0]["sent"]["reason"], "auto", "{}", answer.text);
    }
    let wrong = gateway.upload("/ocr?max_pixels=Auto", file.clone()).await;
    assert_eq!((wrong.status.as_u16(), wrong.code()), (400, "invalid_option"));
    let twice = gateway.upload("/ocr?max_pixels=auto&max_pixels=5000", file).await;
    assert_eq!((twice.status.as_u16(), twice.code()), (400, "invalid_option"));
}

#[tokio::test]
async fn streams_fields_and_searchable_files_are_chosen_alike() {
    let gateway = TestGateway::start().await;
    let file = jpeg(&picture());
    let (_, pages) = read(&gateway, AUTO, &file).await;
    let expected = tokens(&pages[0]);
    let events = gateway.post(&format!("/ocr?{AUTO}")).header("accept", "text/event-stream");
    let events = Answer::of(events.body(file.clone())).await;
    assert!(events.text.contains("\"reason\":\"auto\""), "{}", events.text);
    let fields = gateway.upload(&format!("/extract?template=receipt&{AUTO}"), file.clone()).await;
    assert_eq!(tokens(&fields.json["pages"][0]), expected, "{}", fields.text);
    let searchable = gateway.upload(&format!("/ocr?format=pdf&{AUTO}"), file.clone()).await;
    assert_eq!(searchable.header("ocr-tokens-image"), expected.to_string());
    let straightened = format!("{AUTO}&rotate=auto");
    let estimate = gateway.upload(&format!("/estimate?{straightened}"), file.clone()).await.json;
    let answer = gateway.upload(&format!("/ocr?{straightened}"), file).await.json;
    let billed = answer["usage"]["image_tokens"].as_u64().unwrap();
    assert!(billed <= estimate["bound"]["image_tokens"].as_u64().unwrap());
}

// Files that cannot be measured.

#[tokio::test]
async fn a_picture_that_cannot_be_decoded_is_sent_as_without() {
    let gateway = TestGateway::start().await;
    for name in ["hello.png", "hello.jpg", "hello.webp", "hello.tif", "sideways.jpg", "tiny.png"] {
        let whole = fixture(name);
        for length in [whole.len(), whole.len() * 9 / 10, whole.len() / 2, 200] {
            let file = whole[..length.min(whole.len())].to_vec();
            for route in ["/estimate", "/ocr"] {
                let without = gateway.upload(route, file.clone()).await;
                let with = gateway.upload(&format!("{route}?{AUTO}"), file.clone()).await;
                assert_eq!(with.status, without.status, "{name} {length} {route} {}", with.text);
            }
        }
    }
}

#[tokio::test]
async fn what_is_refused_without_a_choice_is_refused_with_it_also_if_it_is_blank() {
    let gateway = TestGateway::start().await;
    let white = |width, height| GrayImage::from_pixel(width, height, image::Luma([255]));
    let (tiny, thin, whole) = (white(10, 10), white(3_000, 12), white(300, 200));
    let cut = |file: Vec<u8>| file[..file.len() * 2 / 3].to_vec();
    let gray = ExtendedColorType::L8;
    for (what, file) in [
        ("a tiny PNG", png(&tiny, gray)),
        ("a tiny TIFF", tiff(&[&tiny])),
        ("a TIFF of tiny pages", tiff(&[&tiny, &tiny])),
        ("a thin PNG", png(&thin, gray)),
        ("a TIFF of thin pages", tiff(&[&thin, &thin])),
        ("a cut PNG", cut(png(&whole, gray))),
        ("a cut JPEG", cut(jpeg(&whole))),
        ("a cut TIFF", cut(tiff(&[&whole]))),
        ("a GIF", b"GIF89a\x01\0\x01\0\0\0\0;".to_vec()),
    ] {
        for route in ["/estimate", "/ocr"] {
            let without = gateway.upload(route, file.clone()).await;
            let with = gateway.upload(&format!("{route}?{AUTO}"), file.clone()).await;
            let told = |answer: &Answer| (answer.status, answer.json["code"].clone());
            assert_eq!(told(&with), told(&without), "{what}");
            assert!(!with.text.contains("\"blank\""), "{what}: {}", with.text);
        }
    }
}
