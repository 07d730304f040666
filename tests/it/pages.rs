//! Documents over HTTP: each page is drawn, admitted, read and billed by itself, and one page does not stop the others.

use std::num::NonZeroU64;
use std::sync::Arc;

use dashscope_emulator::{EngineChoice, Fault};
use futures_util::StreamExt as _;
use image::{ExtendedColorType, ImageEncoder as _, Rgb, RgbImage};
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::units::Pixels;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::budgets::accounts;
use crate::harness::{
    Answer, SCRIPTED_TEXT, Setup, TestGateway, fixture, has_tesseract, shared_data, until,
};
use crate::pdf::{PdfPage, pdf};
use crate::program::Installation;

/// Width in points of the first page of [`numbered`].
const FIRST_WIDTH: u32 = 384;

/// How much wider each page of [`numbered`] is. The model reads whole cells of this side, so no page is resized.
const STEP: u32 = 32;

/// At this resolution a point is a pixel.
const OCR: &str = "/ocr?dpi=72";

/// A PDF of so many pages. Each is wider than the one before, so that its width tells its number.
pub(crate) fn numbered(pages: u32) -> Vec<u8> {
    let pages: Vec<_> =
        (1..=pages).map(|page| PdfPage::of_text(width_of(page), 288, &["some text"])).collect();
    pdf(&pages)
}

/// Width of the page with this number.
pub(crate) const fn width_of(page: u32) -> u32 {
    FIRST_WIDTH + STEP * (page - 1)
}

/// The text that the emulator reads of the page with this number.
fn text_of(page: u32) -> String {
    format!("page {}", width_of(page))
}

/// Reads the width of each image.
fn telling_widths(setup: &mut Setup) {
    setup.emulator.engine = EngineChoice::Scripted("page {width}".to_owned());
}

async fn gateway() -> TestGateway {
    TestGateway::with(telling_widths).await
}

/// The status of each page.
pub(crate) fn statuses(answer: &Value) -> Vec<&str> {
    answer["pages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|page| page["status"].as_str().unwrap())
        .collect()
}

fn sum(pages: &Value, member: &str) -> u64 {
    pages
        .as_array()
        .unwrap()
        .iter()
        .map(|page| page["image_tokens"][member].as_u64().unwrap())
        .sum()
}

/// A PNG of one colour with some noise, so that it is not empty.
fn png(width: u32, height: u32) -> Vec<u8> {
    let image = RgbImage::from_fn(width, height, |x, y| {
        let shade = u8::try_from((x * 7 + y * 13) % 251).unwrap();
        Rgb([shade, shade / 2, 255 - shade])
    });
    let mut file = Vec::new();
    image::codecs::png::PngEncoder::new(&mut file)
        .write_image(&image, width, height, ExtendedColorType::Rgb8)
        .unwrap();
    file
}

/// A TIFF with a page of each of these sizes.
pub(crate) fn tiff(sizes: &[(u32, u32)]) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut file).unwrap();
    for (width, height) in sizes {
        let pixels = vec![200_u8; usize::try_from(width * height).unwrap()];
        encoder.write_image::<tiff::encoder::colortype::Gray8>(*width, *height, &pixels).unwrap();
    }
    file.into_inner()
}

// Order and bills.

#[tokio::test]
async fn the_pages_of_a_pdf_come_in_order_each_with_its_own_bill() {
    let gateway = gateway().await;
    let answer = gateway.upload(OCR, numbered(5)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["status"], "succeeded");
    let texts: Vec<_> = (1..=5).map(text_of).collect();
    assert_eq!(answer.json["text"], texts.join("\u{c}"));
    for (number, page) in (1..).zip(answer.json["pages"].as_array().unwrap()) {
        assert_eq!((&page["page"], &page["source"]), (&number.into(), &"rendered".into()));
        assert_eq!([&page["width"], &page["height"]], [&json!(width_of(number)), &json!(288)]);
        assert_eq!(page["image_tokens"]["estimated"], page["image_tokens"]["billed"]);
        assert_eq!(page["sent"]["reason"], "asked");
    }
    let bill = gateway.upstream().bill();
    assert_eq!((bill.received, sum(&answer.json["pages"], "billed")), (5, bill.image));
    assert_eq!(answer.json["usage"]["total_tokens"], bill.total());
    assert_eq!(answer.json["usage"]["upstream_calls"], 5);
    assert_eq!(answer.header("ocr-tokens-image"), bill.image.to_string());
    assert_eq!(answer.json["upstream"]["request_ids"].as_array().unwrap().len(), 5);
    let document = &answer.json["document"];
    assert_eq!(
        (&document["media_type"], &document["pages"]),
        (&"application/pdf".into(), &5.into())
    );
    assert_eq!(gateway.count("pages_total", &[("source", "rendered")]).await, 5);
    assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 0);
    assert_eq!(accounts(&gateway, "test").await, (bill.total(), 0));
}

#[tokio::test]
async fn an_estimate_of_a_document_is_the_sum_of_its_pages_and_sends_nothing() {
    let gateway = gateway().await;
    let estimate = gateway.upload("/estimate?dpi=72", numbered(5)).await;
    assert_eq!(estimate.status, 200, "{}", estimate.text);
    assert_eq!(gateway.upstream().bill().received, 0);
    let answer = gateway.upload(OCR, numbered(5)).await;
    let pages = estimate.json["pages"].as_array().unwrap();
    for (page, read) in pages.iter().zip(answer.json["pages"].as_array().unwrap()) {
        assert_eq!(page["image_tokens"], read["image_tokens"]["billed"]);
        assert_eq!((&page["sent"], &page["width"]), (&read["sent"], &read["width"]));
    }
    let bound = &estimate.json["bound"];
    assert_eq!(bound["image_tokens"], gateway.upstream().bill().image);
    let one = gateway.upload("/estimate?dpi=72&pages=3", numbered(5)).await.json["bound"].clone();
    assert_eq!(bound["output_tokens"], 5 * one["output_tokens"].as_u64().unwrap());
}

#[tokio::test]
async fn a_page_is_drawn_at_the_pixels_that_the_cap_allows_and_never_more() {
    for cap in [100_000_u64, 1_048_576, 3_000_000] {
        let gateway = TestGateway::with(|setup| {
            setup.tenant.max_pixels = Some(Pixels::new(cap));
        })
        .await;
        let file =
            pdf(&[PdfPage::of_text(595, 842, &["text"]), PdfPage::of_text(842, 595, &["x"])]);
        let answer = gateway.upload("/ocr", file).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        for (call, page) in gateway.upstream().calls().iter().zip(0..) {
            let image = &call.images[0];
            let [width, height] = [image.width, image.height].map(Option::unwrap);
            let pixels = u64::from(width) * u64::from(height);
            assert!(pixels <= cap && pixels * 100 > cap * 97, "{width}x{height} for {cap}");
            let answered = &answer.json["pages"][page];
            assert!(answered["width"] == width || answer.json["pages"][1 - page]["width"] == width);
            assert_eq!(answered["sent"]["reason"], "cap");
        }
        assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 0);
        assert!(gateway.count("tokens_saved_total", &[("reason", "max_pixels")]).await > 0);
    }
}

#[tokio::test]
async fn a_page_is_as_wide_and_high_as_a_viewer_shows_it() {
    let gateway = gateway().await;
    let file = pdf(&[PdfPage::of_text(384, 288, &["x"]).turned(90)]);
    let answer = gateway.upload(OCR, file).await;
    let page = &answer.json["pages"][0];
    assert_eq!((&page["width"], &page["height"]), (&288.into(), &384.into()), "{}", answer.text);
    assert_eq!(answer.json["text"], "page 288");
}

#[tokio::test]
async fn the_pages_of_a_tiff_are_read_one_by_one() {
    let gateway = gateway().await;
    let file = tiff(&[(384, 288), (416, 512), (448, 192)]);
    let answer = gateway.upload("/ocr", file).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["text"], "page 384\u{c}page 416\u{c}page 448");
    assert_eq!(answer.json["document"]["pages"], 3);
    assert_eq!(answer.json["pages"][1]["height"], 512);
    assert!(answer.json["pages"].as_array().unwrap().iter().all(|page| page["source"] == "image"));
    assert_eq!(answer.json["usage"]["total_tokens"], gateway.upstream().bill().total());
}

#[tokio::test]
async fn a_page_that_is_one_picture_is_sent_as_that_picture() {
    let gateway = TestGateway::start().await;
    let jpeg = fixture("hello.jpg");
    let size = gateway.upload("/estimate", jpeg.clone()).await.json["pages"][0].clone();
    let [width, height] =
        ["width", "height"].map(|side| u32::try_from(size[side].as_u64().unwrap()).unwrap());
    let file = pdf(&[PdfPage::of_picture(width, height, jpeg.clone(), [width, height])]);
    let answer = gateway.upload("/ocr", file).await;
    assert_eq!(answer.json["pages"][0]["source"], "image", "{}", answer.text);
    assert_eq!(gateway.upstream().calls()[0].images[0].bytes, jpeg.len());
}

// Selection.

#[tokio::test]
async fn the_pages_that_are_asked_for_are_read_and_no_others() {
    let gateway = gateway().await;
    for (pages, expected) in
        [("1-3,5,8-", &[1, 2, 3, 5, 8, 9, 10][..]), ("9-100", &[9, 10]), ("4,4,2", &[2, 4])]
    {
        let before = gateway.upstream().bill().received;
        let answer = gateway.upload(&format!("{OCR}&pages={pages}"), numbered(10)).await;
        assert_eq!(answer.status, 200, "{pages}: {}", answer.text);
        let texts: Vec<_> = expected.iter().map(|page| text_of(*page)).collect();
        assert_eq!(answer.json["text"], texts.join("\u{c}"), "{pages}");
        assert_eq!(answer.json["document"]["pages"], 10);
        assert_eq!(gateway.upstream().bill().received - before, expected.len() as u64);
    }
}

#[tokio::test]
async fn pages_that_do_not_exist_and_too_many_pages_are_refused_before_anything_is_sent() {
    let gateway = TestGateway::with(|setup| setup.settings.documents.max_pages = 4).await;
    for (file, pages, status, code) in [
        (numbered(3), "4", 422, "page_not_found"),
        (numbered(3), "1,7-9", 422, "page_not_found"),
        (fixture("hello.png"), "2", 422, "page_not_found"),
        (tiff(&[(100, 100), (100, 100)]), "3-", 422, "page_not_found"),
        (numbered(5), "1-", 413, "too_many_pages"),
        (numbered(5), "0", 400, "invalid_pages"),
    ] {
        for route in ["/ocr", "/estimate"] {
            let answer = gateway.upload(&format!("{route}?pages={pages}"), file.clone()).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{}", answer.text);
        }
    }
    let refused = gateway.upload("/ocr", numbered(5)).await;
    let limit = &refused.json["limit"];
    assert_eq!((&limit["actual"], &limit["allowed"]), (&5.into(), &4.into()));
    assert_eq!(gateway.upload("/ocr?pages=2-5", numbered(5)).await.status, 200);
    assert_eq!(gateway.upstream().bill().received, 4);
}

// Failures.

#[tokio::test]
async fn a_page_that_fails_has_its_own_problem_and_the_rest_comes() {
    let gateway = gateway().await;
    let refused = Fault::code("DataInspectionFailed").for_images_as_wide_as(width_of(2));
    gateway.upstream().add_fault(refused);
    let answer = gateway.upload(OCR, numbered(3)).await;
    assert_eq!((answer.status.as_u16(), &answer.json["status"]), (200, &"partial".into()));
    assert_eq!(statuses(&answer.json), ["succeeded", "failed", "succeeded"]);
    assert_eq!(answer.json["text"], format!("{}\u{c}\u{c}{}", text_of(1), text_of(3)));
    let failed = &answer.json["pages"][1];
    assert_eq!((&failed["page"], &failed["text"]), (&2.into(), &"".into()));
    let error = &failed["error"];
    assert_eq!(error["code"], "content_rejected", "{error}");
    assert_eq!((&error["retryable"], &error["status"]), (&false.into(), &422.into()));
    assert!(error["detail"].is_string() && error["instance"].is_null(), "{error}");
    assert_eq!(answer.header("ocr-pages-failed"), "1");
    assert_eq!(answer.json["usage"]["total_tokens"], gateway.upstream().bill().total());
    assert_eq!(gateway.count("pages_total", &[("source", "failed")]).await, 1);
    let text = gateway.upload(&format!("{OCR}&format=text"), numbered(3)).await;
    assert_eq!((text.status.as_u16(), text.header("ocr-pages-failed")), (200, "1"));
}

#[tokio::test]
async fn a_document_none_of_whose_pages_is_read_is_answered_by_the_problem_of_the_first() {
    let gateway = gateway().await;
    gateway.upstream().add_fault(Fault::cut_body_at(1));
    gateway.upstream().add_fault(Fault::code("DataInspectionFailed"));
    let answer = gateway.upload(OCR, numbered(3)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (502, "upstream_error"), "{}", answer.text);
    let unverified = gateway.count("tokens_unverified_total", &[]).await;
    assert!(unverified > 0);
    assert_eq!(answer.json["usage"]["unverified_tokens"], unverified);
    assert_eq!(accounts(&gateway, "test").await, (unverified, 0));
}

#[tokio::test]
async fn a_page_that_hangs_fails_in_time_and_holds_back_none_of_the_others() {
    let gateway = gateway().await;
    gateway.upstream().add_fault(Fault::hang().for_images_as_wide_as(width_of(1)));
    let request = gateway.post(OCR).header("prefer", "wait=4").body(numbered(12));
    let answer = Answer::of(request).await;
    assert_eq!((answer.status.as_u16(), &answer.json["status"]), (200, &"partial".into()));
    let [first, others @ ..] = &statuses(&answer.json)[..] else { panic!("{}", answer.text) };
    assert_eq!((*first, others), ("failed", &["succeeded"; 11][..]));
    let error = &answer.json["pages"][0]["error"];
    assert!(["deadline_exceeded", "upstream_timeout"].contains(&error["code"].as_str().unwrap()));
    assert_eq!(error["status"], 504);
    let counted = gateway.count("tokens_unverified_total", &[]).await;
    assert_eq!(answer.json["usage"]["unverified_tokens"], counted);
}

#[tokio::test]
async fn a_budget_that_ends_in_the_middle_of_a_document_is_used_and_not_exceeded() {
    let gateway = gateway().await;
    let tenant = |name: &str, daily_tokens| Tenant {
        daily_tokens: NonZeroU64::new(daily_tokens),
        max_tokens: NonZeroU64::new(300),
        ..Tenant::new(name.parse().unwrap())
    };
    // All pages have one size, so each costs the same.
    let file = |pages| pdf(&vec![PdfPage::of_text(400, 300, &["x"]); pages]);
    let probe = gateway.key_of(&tenant("probe", u64::MAX >> 1)).await;
    let estimate = gateway.post_as(&probe, "/estimate?dpi=72").body(file(1));
    let bound = Answer::of(estimate).await.json["bound"]["total_tokens"].as_u64().unwrap();
    let one = Answer::of(gateway.post_as(&probe, OCR).body(file(1))).await;
    let cost = one.json["usage"]["total_tokens"].as_u64().unwrap();
    let before = gateway.upstream().bill();
    // The third page fits after two were settled, and the fourth does not.
    let budget = bound + 2 * cost;
    let key = gateway.key_of(&tenant("acme", budget)).await;
    let answer = Answer::of(gateway.post_as(&key, OCR).body(file(6))).await;
    assert_eq!(answer.json["status"], "partial", "{}", answer.text);
    let read = statuses(&answer.json).iter().filter(|status| **status == "succeeded").count();
    let failed =
        answer.json["pages"].as_array().unwrap().iter().filter(|page| page["status"] == "failed");
    for page in failed {
        assert_eq!(page["error"]["code"], "budget_exhausted");
        assert!(page["error"]["limit"]["allowed"] == budget, "{page}");
    }
    let spent = gateway.upstream().bill().total() - before.total();
    assert_eq!((read, spent), (3, 3 * cost));
    assert_eq!(answer.json["usage"]["total_tokens"], spent);
    assert_eq!(accounts(&gateway, "acme").await, (spent, 0));
}

#[tokio::test]
async fn the_pages_that_were_not_sent_are_not_sent_for_a_caller_that_left() {
    let gateway = TestGateway::with(|setup| {
        telling_widths(setup);
        setup.settings.documents.pages_at_once = 2;
    })
    .await;
    gateway.upstream().add_fault(Fault::delay(500));
    let request = gateway.post(OCR).body(numbered(10));
    let asking = crate::harness::spawn(async move { Answer::of(request).await.status });
    gateway.until_upstream_has(2).await;
    asking.abort();
    until("all is given back", async || {
        gateway.count("in_flight_requests", &[]).await == 0
            && accounts(&gateway, "test").await.1 == 0
    })
    .await;
    let bill = gateway.upstream().bill();
    assert_eq!(bill.received, 2);
    // The pages that were sent are paid.
    assert_eq!(accounts(&gateway, "test").await, (bill.total(), 0));
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_documents_at_once_are_each_read_in_order() {
    let gateway = Arc::new(gateway().await);
    let mut documents = JoinSet::new();
    for _ in 0..20 {
        let gateway = Arc::clone(&gateway);
        documents.spawn(async move { gateway.upload(OCR, numbered(4)).await });
    }
    let expected = (1..=4).map(text_of).collect::<Vec<_>>().join("\u{c}");
    let mut spent = 0;
    for answer in documents.join_all().await {
        assert_eq!(answer.json["text"], expected, "{}", answer.text);
        spent += answer.json["usage"]["total_tokens"].as_u64().unwrap();
    }
    assert_eq!(gateway.upstream().bill().total(), spent);
    assert_eq!(accounts(&gateway, "test").await, (spent, 0));
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test]
async fn a_ledger_adds_up_after_a_kill_in_the_middle_of_a_document() {
    let installation = Installation::reading(SCRIPTED_TEXT).await;
    let mut service = installation.serve().await;
    let key = installation.key("acme").await;
    installation.upstream().add_fault(Fault::delay(30_000).skip(2));
    let request = service.post(&key, OCR).body(numbered(8));
    let asking = crate::harness::spawn(async move { request.send().await.is_ok() });
    until("sent", async || {
        let bill = installation.upstream().bill();
        bill.received > 3 && bill.calls >= 2
    })
    .await;
    service.signal("KILL").await;
    assert_eq!(service.ended().await, None);
    assert!(!asking.await.unwrap());
    let _again = installation.serve().await;
    let audit = installation.run("audit").await;
    assert_eq!(audit.code, 0, "{}{}", audit.out, audit.err);
}

// Streams.

#[tokio::test]
async fn a_stream_gives_the_text_of_each_page_each_page_and_then_the_answer() {
    let gateway = gateway().await;
    gateway
        .upstream()
        .add_fault(Fault::code("DataInspectionFailed").for_images_as_wide_as(width_of(1)));
    let request = gateway.post(OCR).header("accept", "text/event-stream").body(numbered(4));
    let answer = Answer::of(request).await;
    let events: Vec<(String, Value)> = answer
        .text
        .split_terminator("\n\n")
        .filter(|event| !event.starts_with(':'))
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data = data.strip_prefix("data: ").unwrap();
            (name.trim_start_matches("event: ").to_owned(), serde_json::from_str(data).unwrap())
        })
        .collect();
    let (last, whole) = events.last().unwrap();
    assert_eq!((last.as_str(), &whole["status"]), ("answer", &"partial".into()));
    let pages: Vec<_> = events.iter().filter(|(name, _)| name == "page").collect();
    assert_eq!(pages.len(), 4);
    for (_, page) in pages {
        let number = page["page"].as_u64().unwrap();
        assert_eq!(*page, whole["pages"][usize::try_from(number).unwrap() - 1]);
        let told: String = events
            .iter()
            .filter(|(name, data)| name == "text" && data["page"] == number)
            .map(|(_, data)| data["text"].as_str().unwrap())
            .collect();
        assert_eq!(page["text"], told);
        assert_eq!(page["status"] == "failed", number == 1);
    }
    assert_eq!(whole["usage"]["total_tokens"], gateway.upstream().bill().total());
}

#[tokio::test]
async fn a_stream_of_pages_none_of_which_is_read_has_a_status_of_its_own() {
    let gateway = gateway().await;
    gateway.upstream().add_fault(Fault::code("DataInspectionFailed"));
    let request = gateway.post(OCR).header("accept", "text/event-stream").body(numbered(3));
    let answer = Answer::of(request).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (422, "content_rejected"));
}

#[tokio::test]
async fn a_listener_that_leaves_a_document_is_charged_what_was_billed() {
    let gateway = gateway().await;
    let request = gateway.post(OCR).header("accept", "text/event-stream").body(numbered(12));
    request.send().await.unwrap().bytes_stream().next().await.unwrap().unwrap();
    until("the bill", async || {
        let bill = gateway.upstream().bill().total();
        bill > 0
            && gateway.count("tokens_spent_total", &[]).await == bill
            && accounts(&gateway, "test").await == (bill, 0)
    })
    .await;
    assert_eq!(gateway.count("tokens_unverified_total", &[]).await, 0);
}

// Text of the pages themselves.

/// A page with enough text to be answered from it.
pub(crate) fn letter(width: u32) -> PdfPage {
    let lines = [
        "Dear Sir or Madam, thank you for your order of the fourth of May.",
        "We have sent two boxes of paper and one printer to your office.",
        "Please pay the total of 412.50 within thirty days to our account.",
        "Do not hesitate to call us if you have any question about it.",
    ];
    PdfPage::of_text(width, 400, &lines)
}

#[tokio::test]
async fn a_page_with_text_of_its_own_costs_nothing_where_that_is_preferred() {
    let gateway = gateway().await;
    let scan = fixture("hello.jpg");
    let file = pdf(&[letter(700), PdfPage::of_picture(300, 200, scan, [300, 200]), letter(701)]);
    let off = gateway.upload("/ocr?dpi=72", file.clone()).await;
    let sources = |answer: &Answer| -> Vec<String> {
        let pages = answer.json["pages"].as_array().unwrap().iter();
        pages.map(|page| page["source"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(sources(&off)[0], "rendered", "{}", off.text);
    let before = gateway.upstream().bill();
    let answer = gateway.upload("/ocr?dpi=72&pdf_text=prefer&detail=lines", file.clone()).await;
    let found = sources(&answer);
    assert_eq!((&*found[0], &*found[2]), ("text_layer", "text_layer"), "{}", answer.text);
    assert_ne!(found[1], "text_layer");
    assert_eq!(gateway.upstream().bill().received - before.received, 1);
    let page = &answer.json["pages"][0];
    assert!(page["text"].as_str().unwrap().contains("total of 412.50"), "{page}");
    assert_eq!(page["image_tokens"], json!({ "estimated": 0, "billed": 0 }));
    assert!(page["sent"].is_null() && page["finish_reason"].is_null());
    for line in page["lines"].as_array().unwrap() {
        let bbox: Vec<u64> =
            line["bbox"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert!(
            bbox[0] < bbox[2] && bbox[2] <= 700 && bbox[1] < bbox[3] && bbox[3] <= 400,
            "{line}"
        );
    }
    let spared = off.json["pages"][0]["image_tokens"]["billed"].as_u64().unwrap()
        + off.json["pages"][2]["image_tokens"]["billed"].as_u64().unwrap();
    assert_eq!(gateway.count("tokens_saved_total", &[("reason", "text_layer")]).await, spared);
    assert_eq!(answer.json["usage"]["tokens_saved"], spared);
    let estimate = gateway.upload("/estimate?dpi=72&pdf_text=prefer&pages=1,3", file.clone()).await;
    assert_eq!(estimate.json["bound"]["total_tokens"], 0, "{}", estimate.text);
    let prompted = gateway.upload("/ocr?dpi=72&pdf_text=prefer&prompt=Read&pages=1", file).await;
    assert_eq!(sources(&prompted), ["rendered"]);
}

#[tokio::test]
async fn a_document_without_a_call_is_answered_without_a_budget() {
    let gateway = gateway().await;
    let tenant =
        Tenant { daily_tokens: NonZeroU64::new(1), ..Tenant::new("acme".parse().unwrap()) };
    let key = gateway.key_of(&tenant).await;
    let request = gateway.post_as(&key, "/ocr?pdf_text=prefer").body(pdf(&[letter(700)]));
    let answer = Answer::of(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["usage"]["total_tokens"], 0);
    assert_eq!(answer.json["limits"]["tokens_remaining"]["day"], 1);
    assert!(answer.json["upstream"]["endpoint"].is_null());
    assert_eq!(answer.header("ocr-tokens-image"), "0");
}

// Pictures that are made smaller.

#[tokio::test]
async fn a_picture_that_the_upstream_would_refuse_is_made_smaller_unless_that_is_forbidden() {
    let gateway = gateway().await;
    let wide = png(8_000, 300);
    let answer = gateway.upload("/ocr", wide.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let page = &answer.json["pages"][0];
    assert_eq!((&page["width"], &page["height"]), (&8_000.into(), &300.into()));
    assert_eq!((&page["source"], &page["page"]), (&"image".into(), &1.into()));
    let image = gateway.upstream().calls()[0].images[0].clone();
    assert!(image.width.unwrap() <= 7_680, "{image:?}");
    assert_eq!(page["image_tokens"]["estimated"], page["image_tokens"]["billed"]);
    let refused = gateway.upload("/ocr?downscale=never", wide).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (413, "image_too_large"));
    let gif =
        b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
    let gif = gateway.upload("/ocr", gif.to_vec()).await;
    assert_eq!((gif.status.as_u16(), gif.code()), (415, "unsupported_media_type"));
    assert!(gif.text.contains("GIF"));
    let thin = gateway.upload("/ocr", png(4_000, 12)).await;
    assert_eq!((thin.status.as_u16(), thin.code()), (422, "aspect_ratio"));
}

#[tokio::test]
async fn a_picture_over_the_cap_is_sent_with_no_more_pixels_than_are_allowed_if_asked() {
    let gateway = TestGateway::with(|setup| {
        telling_widths(setup);
        setup.tenant.max_pixels = Some(Pixels::new(500_000));
    })
    .await;
    let photo = png(1_600, 1_200);
    let whole = gateway.upload("/ocr?detail=lines", photo.clone()).await;
    let small = gateway.upload("/ocr?detail=lines&downscale=always", photo.clone()).await;
    assert_eq!(small.status, 200, "{}", small.text);
    let calls = gateway.upstream().calls();
    let [before, after] = [0, 1].map(|call: usize| calls[call].images[0].clone());
    assert_eq!((before.width, before.height), (Some(1_600), Some(1_200)));
    let [width, height] = [after.width, after.height].map(Option::unwrap);
    assert!(u64::from(width) * u64::from(height) <= 500_000, "{width}x{height}");
    assert!(after.bytes < before.bytes);
    let (whole, small) = (&whole.json["pages"][0], &small.json["pages"][0]);
    for member in ["width", "height", "sent", "image_tokens"] {
        assert_eq!(whole[member], small[member], "{member}");
    }
    let high = |page: &Value| page["lines"][0]["bbox"][3].as_u64().unwrap();
    assert!(high(whole).abs_diff(high(small)) <= 2, "{whole} {small}");
    assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 0);
    assert_eq!(gateway.upload("/ocr?downscale=always", png(300, 200)).await.status, 200);
    assert_eq!(gateway.upstream().calls()[2].images[0].width, Some(300));
}

// Text as it is drawn.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_of_a_drawn_page_is_what_is_written_on_it() {
    if !has_tesseract() {
        return;
    }
    let gateway = TestGateway::with(|setup| setup.emulator.engine = EngineChoice::default()).await;
    let file = pdf(&[letter(700), letter(720).turned(0)]);
    let answer = gateway.upload("/ocr?max_pixels=1500000", file).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    for page in answer.json["pages"].as_array().unwrap() {
        let text = page["text"].as_str().unwrap();
        assert!(text.contains("two boxes of paper") && text.contains("412.50"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_of_the_test_data_are_read_page_by_page() {
    let Some(data) = shared_data() else { return };
    let gateway = TestGateway::with(|setup| {
        telling_widths(setup);
        // A scan of 35 megapixels takes long in a worker that is not optimised.
        setup.settings.documents.page_timeout_ms = 120_000;
        setup.settings.documents.page_cpu_seconds = 60;
    })
    .await;
    for file in ["docling_scan_rot180.pdf", "paper_multipage.tiff", "tess_8071_093.tif"] {
        let bytes = std::fs::read(data.join("misc").join(file)).unwrap();
        let estimate = gateway.upload("/estimate", bytes.clone()).await;
        let before = gateway.upstream().bill();
        let answer = gateway.upload("/ocr", bytes).await;
        assert_eq!(answer.json["status"], "succeeded", "{file}: {}", answer.text);
        let read = answer.json["pages"].as_array().unwrap();
        assert_eq!(read.len(), estimate.json["pages"].as_array().unwrap().len(), "{file}");
        let billed = gateway.upstream().bill().image - before.image;
        assert_eq!(sum(&answer.json["pages"], "billed"), billed, "{file}");
        assert_eq!(estimate.json["bound"]["image_tokens"], billed, "{file}");
    }
    assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 0);
}
