//! Searchable PDFs over HTTP, looked at with the programs that people use: `qpdf` and poppler's `pdftotext`.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use dashscope_emulator::{EngineChoice, Fault};
use ocr_gateway::capacity::Ceiling;
use ocr_gateway::document::page::{PageLines, PlacedLine};
use ocr_gateway::document::pdf::PdfFile;
use ocr_gateway::document::pdf::fonts::Fonts;
use ocr_gateway::document::pdf::limits::Limits;
use ocr_gateway::image::Size;
use ocr_gateway::units::Pixels;
use reqwest::RequestBuilder;
use reqwest::multipart::{Form, Part};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization as _;

use crate::harness::{TestGateway, fixture, has_tesseract, shared_data, spawn, until};
use crate::pdf::{PdfPage, pdf};
use crate::workers::processes_with;

/// Lines of several scripts, beyond 16 bits and with marks.
const LINES: [&str; 6] = [
    "Harbour Street Books, 14 Harbour Street",
    "上海市浦东新区世纪大道一百号",
    "領収書を発行しました。ありがとうございます",
    "𠮷野家 𝒳 1,234.50",
    "cafe\u{301} nai\u{308}ve",
    "Total 9,90 EUR",
];

const OCR: &str = "/ocr?format=pdf";

/// An answer that is a file.
struct File {
    status: u16,
    media_type: String,
    pages_failed: Option<String>,
    tokens: Option<String>,
    bytes: Bytes,
}

impl File {
    async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        Self {
            status: response.status().as_u16(),
            media_type: header("content-type").unwrap_or_default(),
            pages_failed: header("ocr-pages-failed"),
            tokens: header("ocr-tokens-image"),
            bytes: response.bytes().await.unwrap(),
        }
    }

    /// The code of a problem; empty for a PDF.
    fn code(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.bytes).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The PDF.
    fn pdf(&self) -> &Bytes {
        let text = String::from_utf8_lossy(&self.bytes);
        assert_eq!((self.status, &*self.media_type), (200, "application/pdf"), "{text}");
        &self.bytes
    }
}

async fn searchable(gateway: &TestGateway, route: &str, file: impl Into<reqwest::Body>) -> File {
    File::of(gateway.post(route).body(file)).await
}

/// A gateway whose model reads [`LINES`] in every image.
async fn gateway() -> TestGateway {
    TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Scripted(LINES.join("\n"));
    })
    .await
}

/// Whether `qpdf` and poppler's programs are installed. A run that must not skip tests fails without them.
fn has_programs() -> bool {
    let is_there =
        |program: &str, argument: &str| Command::new(program).arg(argument).output().is_ok();
    let found = is_there("qpdf", "--version") && is_there("pdftotext", "-v");
    let required = std::env::var("OCR_GATEWAY_REQUIRE_PROGRAMS").is_ok_and(|value| value == "1");
    assert!(
        found || !required,
        "qpdf or pdftotext is missing and OCR_GATEWAY_REQUIRE_PROGRAMS is 1"
    );
    if !found {
        println!("skipped: qpdf or pdftotext is not installed");
    }
    found
}

/// Runs a program on a file, which takes the place of the argument `FILE`. `OUT` is a file that is read afterwards.
fn run(program: &str, arguments: &[&str], file: &[u8]) -> (Output, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("in.pdf"), folder.path().join("out.pdf"));
    std::fs::File::create(&path).unwrap().write_all(file).unwrap();
    let placed = arguments.iter().map(|argument| match *argument {
        "FILE" => path.as_os_str(),
        "OUT" => out.as_os_str(),
        other => other.as_ref(),
    });
    let output = Command::new(program).args(placed).stderr(Stdio::piped()).output().unwrap();
    (output, std::fs::read(&out).unwrap_or_default())
}

/// What `qpdf --check` finds in a file; nothing if it is sound.
fn faults(file: &[u8]) -> Option<String> {
    let (output, _) = run("qpdf", &["--check", "FILE"], file);
    let told = [output.stdout, output.stderr].concat();
    (!output.status.success()).then(|| String::from_utf8_lossy(&told).into_owned())
}

/// What `qpdf` makes of a file.
fn rewritten(arguments: &[&str], file: &[u8]) -> Vec<u8> {
    let (output, rewritten) = run("qpdf", &[arguments, &["FILE", "OUT"]].concat(), file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    rewritten
}

/// The lines that `pdftotext` finds on each page.
fn text(file: &[u8]) -> Vec<Vec<String>> {
    let (output, _) = run("pdftotext", &["FILE", "-"], file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let pages = text.trim_end_matches('\u{c}').split('\u{c}');
    let lines =
        |page: &str| page.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    pages.map(lines).collect()
}

/// A box on a page: left, top, right and bottom.
type Area = [f64; 4];

/// A word that `pdftotext` finds, with its box in points.
struct Word {
    text: String,
    area: Area,
}

/// The size of the first page in points, and its words.
fn words(file: &[u8]) -> ([f64; 2], Vec<Word>) {
    let (output, _) = run("pdftotext", &["-bbox", "-l", "1", "FILE", "-"], file);
    let html = String::from_utf8(output.stdout).unwrap();
    let value = |line: &str, name: &str| -> f64 {
        let start = line.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
        line[start..].split('"').next().unwrap().parse().unwrap()
    };
    let page = html.lines().find(|line| line.contains("<page ")).unwrap();
    let words = html.lines().filter(|line| line.contains("<word ")).map(|line| Word {
        text: line.split('>').nth(1).unwrap().trim_end_matches("</word").to_owned(),
        area: ["xMin", "yMin", "xMax", "yMax"].map(|name| value(line, name)),
    });
    ([value(page, "width"), value(page, "height")], words.collect())
}

/// Compares the words of the first page with the lines of an answer in JSON: the words of a line are as high as its box
/// and fill it from left to right.
fn assert_boxes(file: &[u8], answer: &Value) {
    const PIXELS: f64 = 3.0;
    let page = &answer["pages"][0];
    let ([width, height], words) = words(file);
    let side = |name: &str| page[name].as_f64().unwrap();
    // poppler tells the sides of a page before it is turned, and the places of its words after it.
    let is_turned = (side("width") > side("height")) != (width > height);
    let [width, height] = if is_turned { [height, width] } else { [width, height] };
    let (across, down) = (side("width") / width, side("height") / height);
    let words = words.into_iter().map(|Word { text, area: [left, top, right, bottom] }| Word {
        text,
        area: [left * across, top * down, right * across, bottom * down],
    });
    let words: Vec<_> = words.collect();
    for line in page["lines"].as_array().unwrap() {
        let [left, top, right, bottom]: Area =
            serde_json::from_value(line["bbox"].clone()).unwrap();
        let is_near = |found: f64, side: f64| (found - side).abs() <= PIXELS;
        let is_within = |word: &&Word| {
            let area = word.area;
            is_near(area[1], top)
                && is_near(area[3], bottom)
                && area[0] >= left - PIXELS
                && area[2] <= right + PIXELS
        };
        let mut of_line: Vec<_> = words.iter().filter(is_within).collect();
        of_line.sort_by(|one, other| one.area[0].total_cmp(&other.area[0]));
        let (first, last) = (of_line.first().unwrap(), of_line.last().unwrap());
        let found = [first.area[0], last.area[2]];
        assert!(is_near(found[0], left) && is_near(found[1], right), "{line}: {found:?}");
        let letters = |text: &str| text.split_whitespace().collect::<String>();
        let text: String = of_line.iter().map(|word| unescaped(&word.text)).collect();
        let expected = letters(line["text"].as_str().unwrap());
        assert_eq!(composed(&letters(&text)), composed(&expected));
    }
}

/// The text of an element of HTML.
fn unescaped(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, character)| text.replace(escaped, character))
}

/// The text with letters and their marks as one character: poppler composes them.
fn composed(text: &str) -> String {
    text.nfkc().collect()
}

/// A gray scan: a page that is nothing but a picture.
fn scan() -> PdfPage {
    let picture = image::load_from_memory(&fixture("hello.jpg")).unwrap().to_luma8();
    let mut jpeg = Vec::new();
    let sides = [picture.width(), picture.height()];
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&picture).unwrap();
    PdfPage::of_picture(600, 600 * sides[1] / sides[0], jpeg, sides)
}

/// A page of prose that carries its text.
fn prose() -> PdfPage {
    let line = "The ferry leaves the old harbour at noon and returns at night.";
    PdfPage::of_text(612, 792, &[line; 20])
}

// What is found.

#[tokio::test]
async fn the_lines_of_all_scripts_are_found_in_their_order_and_their_boxes() {
    if !has_programs() {
        return;
    }
    let gateway = gateway().await;
    let blank = || PdfPage::of_text(612, 792, &[]);
    for page in [scan(), blank(), blank().turned(90), blank().turned(180), blank().turned(270)] {
        let file = pdf(&[page]);
        let answer =
            searchable(&gateway, "/ocr?format=pdf&pdf_text=off&dpi=72", file.clone()).await;
        let found = answer.pdf();
        assert_eq!(faults(found), None);
        assert!(found.starts_with(&file), "the document keeps its bytes");
        let in_json = gateway.upload("/ocr?detail=lines&dpi=72", file).await.json;
        assert_boxes(found, &in_json);
    }
    let file = pdf(&[scan()]);
    let answer = searchable(&gateway, OCR, file).await;
    assert_eq!(text(answer.pdf()), [LINES]);
}

/// A blank page of 600 x 800 pixels and points with these lines over it.
fn over_a_blank_page(lines: Vec<PlacedLine>) -> Vec<u8> {
    let file = Bytes::from(pdf(&[PdfPage::of_text(600, 800, &[])]));
    let limits = Limits::of_pixels(Pixels::new(1_000_000));
    let opened = PdfFile::open(file.clone(), &Fonts::default(), limits).unwrap();
    let lines = PageLines { page: 1, size: Size::new(600, 800), lines };
    [&file[..], &opened.update(&[lines]).unwrap()].concat()
}

/// A line of 300 x 20 pixels whose end is so many pixels below its start.
fn leaning(text: &str, top: u32, drop: u32) -> PlacedLine {
    let corner = |x, y| [x, top + y];
    let polygon = [corner(50, 0), corner(350, drop), corner(350, drop + 20), corner(50, 20)];
    PlacedLine { text: text.to_owned(), polygon }
}

/// The emulator's lines are upright, so these are placed by hand.
#[test]
fn lines_that_lean_are_found_in_one_piece_each() {
    if !has_programs() {
        return;
    }
    let texts =
        ["Invoice 2024-07: Total 9,90 and more", "second line of text", "第三行：漢字とかな"];
    for drop in [0, 3, 16, 53, 170] {
        let lines = (0_u32..).zip(texts).map(|(row, text)| leaning(text, 50 + 40 * row, drop));
        let file = over_a_blank_page(lines.collect());
        assert_eq!(faults(&file), None);
        assert_eq!(text(&file), [texts], "{drop}");
    }
}

#[test]
fn text_that_runs_from_right_to_left_is_found_in_the_order_of_reading() {
    if !has_programs() {
        return;
    }
    let texts = ["שלום עולם", "مرحبا بالعالم"];
    let lines = (0_u32..).zip(texts).map(|(row, text)| leaning(text, 50 + 40 * row, 0));
    let found = text(&over_a_blank_page(lines.collect()));
    // poppler writes marks of the direction around it.
    let is_mark = |it: char| matches!(it, '\u{202a}'..='\u{202e}');
    let plain = found[0].iter().map(|line| line.replace(is_mark, ""));
    assert_eq!(plain.collect::<Vec<_>>(), texts);
}

#[tokio::test]
async fn a_pdf_of_each_kind_of_index_keeps_its_bytes_and_stays_sound() {
    if !has_programs() {
        return;
    }
    let gateway = gateway().await;
    let file = pdf(&[scan(), scan()]);
    for arguments in [
        ["--object-streams=generate", "--compress-streams=y"],
        ["--object-streams=disable", "--linearize"],
        ["--object-streams=generate", "--linearize"],
        ["--object-streams=disable", "--newline-before-endstream"],
    ] {
        let file = rewritten(&arguments, &file);
        let answer = searchable(&gateway, OCR, file.clone()).await;
        let found = answer.pdf();
        assert!(found.starts_with(&file), "{arguments:?}");
        assert_eq!(faults(found), None, "{arguments:?}");
        assert_eq!(text(found), [LINES, LINES], "{arguments:?}");
    }
}

#[tokio::test]
async fn a_searchable_pdf_can_be_made_searchable_again() {
    if !has_programs() {
        return;
    }
    let gateway = gateway().await;
    let first = searchable(&gateway, "/ocr?format=pdf&pages=1", pdf(&[scan(), scan()])).await;
    let second = searchable(&gateway, "/ocr?format=pdf&pages=2", first.pdf().clone()).await;
    assert_eq!(faults(second.pdf()), None);
    assert_eq!(text(second.pdf()), [LINES, LINES]);
}

#[tokio::test]
async fn pictures_become_pages_that_show_them_and_have_their_lines() {
    if !has_programs() {
        return;
    }
    let gateway = gateway().await;
    for name in ["hello.jpg", "hello.png", "hello.webp", "hello.bmp", "hello.tif", "sideways.jpg"] {
        let file = fixture(name);
        let answer = searchable(&gateway, OCR, file.clone()).await;
        let found = answer.pdf();
        assert_eq!(faults(found), None, "{name}");
        let in_json = gateway.upload("/ocr?detail=lines", file.clone()).await.json;
        assert_boxes(found, &in_json);
        let is_kept = memchr::memmem::find(found, &file).is_some();
        assert_eq!(is_kept, name.ends_with("jpg"), "{name}: a JPEG is kept byte for byte");
    }
}

#[tokio::test]
async fn a_picture_that_is_read_as_it_is_stored_is_shown_as_it_is_stored() {
    if !has_programs() {
        return;
    }
    let gateway = gateway().await;
    let file = fixture("sideways.jpg");
    let answer = searchable(&gateway, "/ocr?format=pdf&rotate=off", file.clone()).await;
    assert_eq!(faults(answer.pdf()), None);
    let in_json = gateway.upload("/ocr?detail=lines&rotate=off", file).await.json;
    assert_boxes(answer.pdf(), &in_json);
}

#[tokio::test]
async fn the_pages_of_a_tiff_that_are_asked_for_become_a_pdf() {
    if !has_programs() {
        return;
    }
    let gateway = gateway().await;
    let mut file = std::io::Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut file).unwrap();
    for width in [640, 720, 800] {
        let pixels = vec![200_u8; width as usize * 300];
        encoder.write_image::<tiff::encoder::colortype::Gray8>(width, 300, &pixels).unwrap();
    }
    let file = file.into_inner();
    let all = searchable(&gateway, OCR, file.clone()).await;
    assert_eq!((faults(all.pdf()), text(all.pdf()).len()), (None, 3));
    let some = searchable(&gateway, "/ocr?format=pdf&pages=2-", file).await;
    assert_eq!(text(some.pdf()), [LINES, LINES]);
}

// What is asked for, and what it costs.

#[tokio::test]
async fn a_searchable_pdf_is_asked_for_in_every_way_and_reports_its_cost() {
    let gateway = gateway().await;
    let file = pdf(&[scan()]);
    let in_json = json!({
        "document": { "type": "base64", "data": base64(&file) },
        "format": "pdf",
    });
    let form = Form::new().part("file", Part::bytes(file.clone())).text("format", "pdf");
    for request in [
        gateway.post(OCR).body(file.clone()),
        gateway.post("/ocr").header("accept", "application/pdf").body(file.clone()),
        gateway.post("/ocr").multipart(form),
        gateway.post("/ocr").header("content-type", "application/json").body(in_json.to_string()),
    ] {
        let answer = File::of(request).await;
        answer.pdf();
        assert!(answer.tokens.is_some_and(|tokens| tokens != "0"));
        assert_eq!(answer.pages_failed, None);
    }
}

fn base64(file: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(file)
}

#[tokio::test]
async fn a_searchable_pdf_is_refused_where_there_is_none() {
    let gateway = gateway().await;
    let file = pdf(&[scan()]);
    let events = gateway.post(OCR).header("accept", "text/event-stream").body(file.clone());
    assert_eq!(File::of(events).await.code(), "invalid_option");
    for route in ["/extract?template=receipt&format=pdf", "/ocr?format=pdf&prompt=x"] {
        let refused = searchable(&gateway, route, file.clone()).await;
        assert_eq!((refused.status, &*refused.code()), (400, "invalid_option"), "{route}");
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn an_estimate_takes_the_same_request_and_says_the_same_tokens() {
    let gateway = gateway().await;
    let file = pdf(&[prose(), scan()]);
    let estimate = gateway.upload("/estimate?format=pdf", file.clone()).await.json;
    assert_eq!(estimate["pages"][0]["source"], "text_layer");
    let answer = searchable(&gateway, OCR, file).await;
    answer.pdf();
    assert_eq!(answer.tokens.unwrap(), estimate["bound"]["image_tokens"].to_string());
}

#[tokio::test]
async fn a_page_that_carries_its_text_is_neither_read_nor_changed_unless_it_is_asked_for() {
    let gateway = gateway().await;
    let file = pdf(&[prose()]);
    let answer = searchable(&gateway, OCR, file.clone()).await;
    assert!(*answer.pdf() == file, "it is the same file");
    assert_eq!(gateway.upstream().bill().received, 0);
    let answer = searchable(&gateway, "/ocr?format=pdf&pdf_text=off", file.clone()).await;
    assert!(answer.pdf().len() > file.len());
    assert_eq!(gateway.upstream().bill().received, 1);
}

#[tokio::test]
async fn a_page_that_failed_keeps_its_picture_without_text_and_is_counted() {
    if !has_programs() {
        return;
    }
    let gateway = gateway().await;
    // At this resolution a point is a pixel.
    let route = "/ocr?format=pdf&dpi=72";
    let refuse = |width| {
        let refused = Fault::code("DataInspectionFailed").for_images_as_wide_as(width);
        gateway.upstream().add_fault(refused);
    };
    let file = pdf(&[640, 672].map(|width| PdfPage::of_text(width, 288, &[])));
    refuse(640);
    let answer = searchable(&gateway, route, file.clone()).await;
    assert_eq!(answer.pages_failed.as_deref(), Some("1"));
    assert_eq!(faults(answer.pdf()), None);
    let found = text(answer.pdf());
    assert_eq!(found[1], LINES);
    assert!(found[0].is_empty(), "{found:?}");
    refuse(640);
    refuse(672);
    let failed = searchable(&gateway, route, file).await;
    assert_eq!((failed.status, &*failed.code()), (422, "content_rejected"));
}

// What cannot be made searchable.

#[tokio::test]
async fn an_encrypted_pdf_is_refused_before_anything_is_spent_and_read_as_json() {
    if !has_programs() {
        return;
    }
    let gateway = gateway().await;
    let file = rewritten(&["--encrypt", "", "owner", "256", "--"], &pdf(&[scan()]));
    let refused = searchable(&gateway, OCR, file.clone()).await;
    assert_eq!((refused.status, &*refused.code()), (422, "not_searchable"));
    assert_eq!(gateway.upstream().bill().received, 0);
    assert_eq!(gateway.upload("/ocr", file).await.status, 200);
}

#[tokio::test]
async fn a_file_that_no_worker_can_write_in_time_is_told_with_what_to_do() {
    const MEMORY: u64 = (512 << 20) + 4096;
    let gateway = TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Scripted(LINES.join("\n"));
        setup.settings.documents.worker_memory_bytes = Ceiling::Fixed(MEMORY);
    })
    .await;
    gateway.upstream().add_fault(Fault::delay(2000));
    let request = gateway.post(OCR).header("prefer", "wait=5").body(pdf(&[scan()]));
    let asking = spawn(async move { File::of(request).await });
    gateway.until_upstream_has(1).await;
    for pid in processes_with(MEMORY) {
        kill_process(pid, Signal::STOP).unwrap();
    }
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, &*answer.code()), (503, "overloaded"));
    let problem: Value = serde_json::from_slice(&answer.bytes).unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("charged again"), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("format=json"), "{problem}");
    assert_ne!(problem["usage"]["total_tokens"], 0);
}

#[tokio::test]
async fn a_damaged_pdf_is_written_anew_with_the_pictures_as_they_were() {
    if !has_programs() {
        return;
    }
    let gateway = gateway().await;
    let sound = pdf(&[scan(), prose()]);
    let at = memchr::memmem::rfind(&sound, b"startxref\n").unwrap();
    let damaged = [&sound[..at], b"startxref\n7\n%%EOF"].concat();
    assert!(faults(&damaged).is_some());
    let answer = searchable(&gateway, OCR, damaged).await;
    assert_eq!(faults(answer.pdf()), None);
    assert_eq!(text(answer.pdf())[0], LINES);
    let start = memchr::memmem::find(&sound, b"\xff\xd8").unwrap();
    let end = start + memchr::memmem::find(&sound[start..], b"\nendstream").unwrap();
    assert!(memchr::memmem::find(answer.pdf(), &sound[start..end]).is_some());
}

#[tokio::test]
async fn odd_files_become_valid_pdfs_or_get_documented_answers() {
    // The first page alone, and drawn small: a worker that is not optimised draws the large pages for minutes. Left out
    // are the drawing of large pages, which `documents.rs` tests, and text over further pages of odd documents.
    const SMALL: &str = "/ocr?format=pdf&pages=1&dpi=72&max_pixels=100000";
    let Some(data) = shared_data().filter(|_| has_programs()) else { return };
    let gateway = TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Scripted(LINES.join("\n"));
        // On a busy machine a worker that is not optimised takes long for the largest pages.
        setup.settings.documents.page_timeout_ms = 120_000;
    })
    .await;
    let odd = data.join("odd");
    let manifest = std::fs::read_to_string(odd.join("manifest.jsonl")).unwrap();
    let mut wrong = Vec::new();
    for facts in manifest.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let name = facts["file"].as_str().unwrap();
        let file = std::fs::read(odd.join(name)).unwrap();
        let answer = searchable(&gateway, SMALL, file.clone()).await;
        let fault = match answer.status {
            200 => fault_of(&file, answer.pdf()),
            400 | 413 | 415 | 422 if !answer.code().is_empty() => None,
            status => Some(format!("{status} {}", answer.code())),
        };
        wrong.extend(fault.map(|fault| format!("{name}: {fault}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

/// Why a file is not valid: `pdftotext` does not read it, or `qpdf` finds a fault that the original does not have. An
/// original that `pdftotext` refuses, such as one that lists a page 200,000 times, may be kept, and so may damaged data of
/// a picture.
fn fault_of(original: &[u8], found: &[u8]) -> Option<String> {
    let read = |file: &[u8]| run("pdftotext", &["FILE", "-"], file).0;
    let is_kept = || found.starts_with(original) && !read(original).status.success();
    let output = read(found);
    if !output.status.success() && !is_kept() {
        return Some(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    if !original.starts_with(b"%PDF") {
        let (output, _) = run("qpdf", &["--stream-data=preserve", "FILE", "OUT"], found);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        return (!output.status.success()).then_some(told);
    }
    faults(found).filter(|_| faults(original).is_none())
}

// Real pages.

/// Receipts as they are scanned, bound into a PDF.
fn receipts(data: &Path, count: usize) -> Vec<PdfPage> {
    let manifest = std::fs::read_to_string(data.join("sroie/manifest.jsonl")).unwrap();
    let facts = manifest.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let receipts = facts.filter(|facts| facts["mode"] == "RGB").take(count).map(|facts| {
        let side = |name: &str| u32::try_from(facts[name].as_u64().unwrap()).unwrap();
        let [width, height] = ["width", "height"].map(side);
        let file =
            std::fs::read(data.join("sroie").join(facts["image"].as_str().unwrap())).unwrap();
        PdfPage::of_photo(width / 4, height / 4, file, [width, height])
    });
    receipts.collect()
}

#[tokio::test]
async fn scanned_receipts_grow_by_three_percent_at_most_and_have_their_words_in_place() {
    let Some(data) = shared_data().filter(|_| has_programs() && has_tesseract()) else { return };
    let gateway = TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::default();
    })
    .await;
    let file = pdf(&receipts(&data, 3));
    let answer = searchable(&gateway, OCR, file.clone()).await;
    let found = answer.pdf();
    let growth = found.len() - file.len();
    assert!(growth * 100 <= file.len() * 3, "{growth} bytes more than {}", file.len());
    assert_eq!(faults(found), None);
    let in_json = gateway.upload("/ocr?detail=lines", file).await.json;
    assert_boxes(found, &in_json);
    for (page, found) in in_json["pages"].as_array().unwrap().iter().zip(text(found)) {
        let letters = |text: &str| {
            let composed = composed(text);
            let mut letters: Vec<char> = composed.split_whitespace().flat_map(str::chars).collect();
            letters.sort_unstable();
            letters.into_iter().collect::<String>()
        };
        assert_eq!(letters(&found.join("\n")), letters(page["text"].as_str().unwrap()));
    }
}
