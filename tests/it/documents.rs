//! Real documents and broken ones: the bill matches the quote, the text is the one in the picture, and an unreadable
//! file is refused with a clear error.

use std::path::{Path, PathBuf};

use dashscope_emulator::{EngineChoice, PixelLimits, transcribe};
use ocr_gateway::auth::tenant::Tenant;
use ocr_gateway::units::Pixels;
use serde_json::Value;

use crate::harness::{
    Answer, SCRIPTED_TEXT, TestGateway, fixture, has_tesseract, shared_data, until,
};

/// One line of a manifest of the test data.
struct Document {
    name: String,
    bytes: Vec<u8>,
    facts: Value,
}

/// The documents of a folder's manifest. `member` is the member with the file name.
fn documents(folder: &Path, member: &str) -> Vec<Document> {
    let manifest = std::fs::read_to_string(folder.join("manifest.jsonl")).unwrap();
    let lines = manifest.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|facts| {
            let name = facts[member].as_str().unwrap().to_owned();
            Document { bytes: std::fs::read(folder.join(&name)).unwrap(), name, facts }
        })
        .collect()
}

/// The receipts and the other images and documents.
fn images(data: &Path) -> Vec<Document> {
    let mut images = documents(&data.join("sroie"), "image");
    images.extend(documents(&data.join("misc"), "file"));
    images
}

// Malformed and odd files.

/// The answers that are allowed for any file.
fn is_documented(answer: &Answer) -> bool {
    match answer.status.as_u16() {
        200 => answer.json.is_object(),
        400 | 413 | 415 | 422 => !answer.code().is_empty(),
        _ => false,
    }
}

async fn odd_files_get_documented_answers(route: &str, reject_is_4xx: bool) {
    let Some(data) = shared_data() else { return };
    let gateway = TestGateway::with(|setup| {
        // On a busy machine a worker that is not optimised takes long for the largest pages.
        setup.settings.documents.page_timeout_ms = 120_000;
    })
    .await;
    for odd in documents(&data.join("odd"), "file") {
        let answer = gateway.upload(route, odd.bytes).await;
        let said = format!("{route} {}: {} {}", odd.name, answer.status, answer.text);
        assert!(is_documented(&answer), "{said}");
        // Its owner's password is empty, which opens it here as in poppler. PDFium takes only the user's.
        let opens = odd.name == "pdf/pdfjs_pr6531_2.pdf";
        let must_fail = reject_is_4xx && odd.facts["expect"] == "reject" && !opens;
        assert!(!must_fail || answer.status.is_client_error(), "{said}");
        assert!(odd.facts["expect"] != "ok" || answer.status == 200, "{said}");
    }
    // The emulator decodes images in this process, so the memory of the process says nothing about the gateway. The
    // gateway's own count must be back at 0.
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
    let good = gateway.upload("/ocr", fixture("hello.png")).await;
    assert_eq!(good.json["text"], SCRIPTED_TEXT);
}

#[tokio::test]
async fn odd_files_get_documented_answers_from_ocr() {
    odd_files_get_documented_answers("/ocr", true).await;
}

#[tokio::test]
async fn odd_files_get_documented_answers_from_extract() {
    // Pages of this size are drawn and read in a tenth of the time. Large ones are drawn for `/ocr`.
    odd_files_get_documented_answers("/extract?template=receipt&max_pixels=262144", true).await;
}

/// An estimate reads only the header, so it can succeed for a file that is broken after it.
#[tokio::test]
async fn odd_files_get_documented_answers_from_estimate() {
    odd_files_get_documented_answers("/estimate", false).await;
}

/// With chosen pixels an estimate decodes or draws what it measures. It fails only for what it fails without.
#[tokio::test]
async fn odd_files_get_documented_answers_from_estimate_with_chosen_pixels() {
    let Some(data) = shared_data() else { return };
    let gateway = TestGateway::with(|setup| {
        setup.settings.documents.page_timeout_ms = 120_000;
    })
    .await;
    for odd in documents(&data.join("odd"), "file") {
        let without = gateway.upload("/estimate", odd.bytes.clone()).await;
        let with = gateway.upload("/estimate?max_pixels=auto", odd.bytes).await;
        let said = format!("{}: {} {}", odd.name, with.status, with.text);
        assert!(is_documented(&with), "{said}");
        assert_eq!(with.status, without.status, "{said}");
    }
    until("memory", async || gateway.count("in_flight_bytes", &[]).await == 0).await;
}

#[tokio::test]
async fn a_truncated_file_of_every_length_gets_a_documented_answer() {
    let gateway = TestGateway::start().await;
    for file in ["hello.png", "hello.jpg", "hello.webp", "hello.tif", "sideways.jpg"] {
        let whole = fixture(file);
        for length in (1..64).chain((64..whole.len()).step_by(701)) {
            let answer = gateway.upload("/estimate", whole[..length].to_vec()).await;
            assert!(is_documented(&answer), "{file} {length} {}", answer.text);
        }
    }
}

// Tokens.

/// Limits of a model, from the vendor's pages.
#[derive(Clone, Copy)]
struct Family {
    model: &'static str,
    cell: u64,
    min_pixels: u64,
    max_pixels: u64,
}

const FAMILIES: [Family; 3] = [
    Family { model: "qwen-vl-ocr-2025-11-20", cell: 32, min_pixels: 3_072, max_pixels: 8_388_608 },
    Family { model: "qwen-vl-ocr-2025-08-28", cell: 28, min_pixels: 3_136, max_pixels: 6_422_528 },
    Family { model: "qwen3.5-ocr", cell: 32, min_pixels: 3_072, max_pixels: 8_388_608 },
];

/// Caps of the tenants of the estimates.
const CAPS: [Option<u64>; 3] = [None, Some(1_048_576), Some(200_000)];

impl Family {
    /// The vendor's formula in another form, without scale and floats: for each side the largest (or smallest) number
    /// of cells whose square fits, because `k · cell ≤ side · √(max / area)` is `k² · cell² · other ≤ side · max`.
    fn tokens(self, width: u64, height: u64, cap: Option<u64>) -> u64 {
        let most = cap.map_or(self.max_pixels, |cap| cap.min(self.max_pixels));
        let (wide, high) = (self.nearest(width), self.nearest(height));
        let area = wide * high * self.cell.pow(2);
        let cells = if area > most {
            self.fitting(width, height, most).max(1) * self.fitting(height, width, most).max(1)
        } else if area < self.min_pixels {
            self.filling(width, height) * self.filling(height, width)
        } else {
            wide * high
        };
        cells + 2
    }

    /// The side in cells, rounded half to even.
    fn nearest(self, side: u64) -> u64 {
        let (whole, rest) = (side / self.cell, side % self.cell);
        let up = rest * 2 > self.cell || (rest * 2 == self.cell && whole % 2 == 1);
        whole + u64::from(up)
    }

    fn fitting(self, side: u64, other: u64, most: u64) -> u64 {
        (side * most / (other * self.cell.pow(2))).isqrt()
    }

    fn filling(self, side: u64, other: u64) -> u64 {
        let square = (side * self.min_pixels).div_ceil(other * self.cell.pow(2));
        let root = square.isqrt();
        root + u64::from(root.pow(2) < square)
    }
}

#[test]
fn the_independent_formula_gives_the_vendor_s_documented_examples() {
    let [new, old, _] = FAMILIES;
    assert_eq!(new.tokens(689, 487, None), 332);
    assert_eq!(old.tokens(689, 487, None), 427);
    assert_eq!(old.tokens(1500, 1734, None), 3350);
    assert_eq!(new.tokens(6000, 3000, None), 8194);
}

/// A key for each cap.
async fn keys(gateway: &TestGateway) -> Vec<(Option<u64>, String)> {
    let mut keys = Vec::new();
    for cap in CAPS {
        let name = format!("cap-{}", cap.unwrap_or(0)).parse().unwrap();
        let tenant = Tenant { max_pixels: cap.map(Pixels::new), ..Tenant::new(name) };
        keys.push((cap, gateway.key_of(&tenant).await));
    }
    keys
}

async fn post(gateway: &TestGateway, key: &str, route: &str, file: &[u8]) -> Answer {
    let request = gateway.post_as(key, route);
    Answer::of(request.body(file.to_vec())).await
}

#[tokio::test]
async fn every_estimate_is_the_independent_figure_for_every_model_and_cap() {
    let Some(data) = shared_data() else { return };
    let gateway = TestGateway::start().await;
    let keys = keys(&gateway).await;
    for image in images(&data) {
        for family in FAMILIES {
            for (cap, key) in &keys {
                let route = format!("/estimate?model={}", family.model);
                let answer = post(&gateway, key, &route, &image.bytes).await;
                for page in answer.json["pages"].as_array().unwrap() {
                    let [width, height] =
                        ["width", "height"].map(|side| page[side].as_u64().unwrap());
                    let expected = family.tokens(width, height, *cap);
                    assert_eq!(page["image_tokens"], expected, "{} {route} {cap:?}", image.name);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bill_is_its_estimate_to_the_token() {
    let Some(data) = shared_data() else { return };
    let gateway = TestGateway::start().await;
    let keys = keys(&gateway).await;
    for (number, image) in images(&data).iter().enumerate() {
        // Each image is sent once. The combinations of model and cap alternate.
        let (family, (cap, key)) = (FAMILIES[number % 3], &keys[number / 3 % 3]);
        let query = format!("?model={}", family.model);
        let estimate = post(&gateway, key, &format!("/estimate{query}"), &image.bytes).await;
        let answer = post(&gateway, key, &format!("/ocr{query}"), &image.bytes).await;
        let told = answer.json["pages"].as_array().unwrap();
        let calls = gateway.upstream().calls();
        // The calls of a document's pages may come in any order.
        let mut billed: Vec<_> = calls[calls.len() - told.len()..]
            .iter()
            .map(|call| call.billed.unwrap().image)
            .collect();
        let tokens = |member: &str| {
            let pages = told.iter().map(|page| page["image_tokens"][member].as_u64().unwrap());
            let mut pages: Vec<_> = pages.collect();
            pages.sort_unstable();
            pages
        };
        billed.sort_unstable();
        assert_eq!((&tokens("estimated"), &tokens("billed")), (&billed, &billed), "{}", image.name);
        for (page, estimated) in told.iter().zip(estimate.json["pages"].as_array().unwrap()) {
            assert_eq!(page["image_tokens"]["billed"], estimated["image_tokens"], "{cap:?}");
        }
        let bound = estimate.json["bound"]["total_tokens"].as_u64();
        assert!(bound >= answer.json["usage"]["total_tokens"].as_u64(), "{}", image.name);
    }
    assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 0);
}

#[tokio::test]
async fn a_size_in_the_manifest_is_the_size_in_the_answer() {
    let Some(data) = shared_data() else { return };
    let gateway = TestGateway::start().await;
    for image in documents(&data.join("sroie"), "image") {
        let answer = gateway.upload("/estimate", image.bytes).await;
        let page = &answer.json["pages"][0];
        assert_eq!(page["width"], image.facts["width"], "{}", image.name);
        assert_eq!(page["height"], image.facts["height"], "{}", image.name);
    }
}

// Text.

/// The images for real OCR. They are small, because Tesseract reads each of them four times.
fn readable() -> Vec<(PathBuf, Vec<u8>)> {
    let mut images: Vec<_> = ["hello.png", "hello.jpg", "hello.webp", "sideways.jpg"]
        .map(|name| (PathBuf::from(name), fixture(name)))
        .into();
    if let Some(data) = shared_data() {
        let mut receipts = documents(&data.join("sroie"), "image");
        receipts.sort_by_key(|receipt| receipt.bytes.len());
        receipts.truncate(4);
        images.extend(receipts.into_iter().map(|receipt| (receipt.name.into(), receipt.bytes)));
    }
    images
}

/// The text that the engine reads from the same bytes, within the limits that were sent.
async fn read_directly(answer: &Answer, file: Vec<u8>) -> String {
    let sent = &answer.json["pages"][0]["sent"];
    let limits = PixelLimits {
        min_pixels: sent["min_pixels"].as_i64(),
        max_pixels: sent["max_pixels"].as_i64(),
    };
    let model = answer.json["model"].as_str().unwrap();
    transcribe(&EngineChoice::default(), model, file, limits).await.unwrap()
}

async fn the_text_is_what_the_engine_reads(cap: Option<u64>) {
    if !has_tesseract() {
        return;
    }
    let gateway = TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::default();
        setup.tenant.max_pixels = cap.map(Pixels::new);
    })
    .await;
    for (name, file) in readable() {
        let answer = gateway.upload("/ocr", file.clone()).await;
        assert_eq!(answer.status, 200, "{} {}", name.display(), answer.text);
        let sent = answer.json["pages"][0]["sent"]["max_pixels"].as_u64().unwrap();
        assert!(cap.is_none_or(|cap| sent <= cap));
        assert_eq!(answer.json["text"], read_directly(&answer, file).await, "{}", name.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_is_word_for_word_what_the_engine_reads() {
    the_text_is_what_the_engine_reads(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_under_a_cap_is_word_for_word_what_the_engine_reads_of_the_smaller_image() {
    the_text_is_what_the_engine_reads(Some(400_000)).await;
}
