//! Real receipts through `/extract`: one picture each, and bound into a PDF.
//!
//! The emulator reads with Tesseract and finds fields by simple rules, so these tests say how the gateway merges and grounds
//! what it gets. They say nothing of the quality of a model.

use std::path::{Path, PathBuf};

use dashscope_emulator::EngineChoice;
use serde_json::{Value, json};

use crate::harness::{Answer, TestGateway, has_tesseract, shared_data};
use crate::pdf::{PdfPage, pdf};

/// The fields, and their names in the receipts' truth.
const FIELDS: [&str; 4] = ["merchant_name", "date", "merchant_address", "total"];
const TRUE_FIELDS: [&str; 4] = ["company", "date", "address", "total"];

/// The day is asked for as it is printed, like in the truth.
const EXTRACT: &str = r#"/extract?ground=true&detail=lines&max_pixels=2000000&schema={"type":"object","properties":{
    "merchant_name":{"type":"string"},"date":{"type":"string"},"merchant_address":{"type":"string"},
    "total":{"type":"number"}}}"#;

/// How many receipts are read, of the smallest ones.
const RECEIPTS: usize = 6;

/// A receipt of the test data.
struct Receipt {
    folder: PathBuf,
    id: String,
    size: [u32; 2],
}

impl Receipt {
    fn image(&self) -> Vec<u8> {
        std::fs::read(self.folder.join(format!("img/{}.jpg", self.id))).unwrap()
    }

    fn truth(&self) -> Value {
        let file = std::fs::read(self.folder.join(format!("key/{}.json", self.id))).unwrap();
        serde_json::from_slice(&file).unwrap()
    }

    /// Text and box of each line.
    fn lines(&self) -> Vec<(String, [u64; 4])> {
        let file = std::fs::read(self.folder.join(format!("box/{}.csv", self.id))).unwrap();
        let file = String::from_utf8_lossy(&file).into_owned();
        let rows = file.lines().filter_map(|row| {
            let columns: Vec<&str> = row.splitn(9, ',').collect();
            let corner = |index: usize| columns.get(index)?.trim().parse::<u64>().ok();
            let place = [corner(0)?, corner(1)?, corner(4)?, corner(5)?];
            Some((bare(columns.get(8)?), place))
        });
        rows.collect()
    }

    fn page(&self) -> PdfPage {
        let [width, height] = self.size;
        PdfPage::of_photo(width, height, self.image(), self.size)
    }
}

/// The smallest receipts with colours.
fn receipts(data: &Path) -> Vec<Receipt> {
    let folder = data.join("sroie");
    let manifest = std::fs::read_to_string(folder.join("manifest.jsonl")).unwrap();
    let rows = manifest.lines().map(|row| serde_json::from_str::<Value>(row).unwrap());
    let side = |row: &Value, name: &str| u32::try_from(row[name].as_u64().unwrap()).unwrap();
    let mut receipts: Vec<Receipt> = rows
        .filter(|row| row["mode"] == "RGB" && row["missing_fields"] == json!([]))
        .map(|row| Receipt {
            folder: folder.clone(),
            id: row["id"].as_str().unwrap().to_owned(),
            size: ["width", "height"].map(|name| side(&row, name)),
        })
        .collect();
    receipts.sort_by_key(|receipt| receipt.size[0] * receipt.size[1]);
    receipts.truncate(RECEIPTS);
    receipts
}

/// A text without case, spaces and signs.
fn bare(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The model's text of a field.
fn raw<'a>(answer: &'a Answer, field: &str) -> &'a str {
    answer.json["fields"][format!("/{field}")]["raw"].as_str().unwrap_or_default()
}

/// The gateway with the emulator's real reader, and some receipts.
async fn with_receipts() -> Option<(TestGateway, Vec<Receipt>)> {
    let data = shared_data()?;
    if !has_tesseract() {
        return None;
    }
    let gateway = TestGateway::with(|setup| setup.emulator.engine = EngineChoice::default()).await;
    Some((gateway, receipts(&data)))
}

/// Whether both boxes have the same sides, up to the height of a line.
fn are_near([left, top, right, bottom]: [u64; 4], truth: [u64; 4]) -> bool {
    let height = truth[3] - truth[1];
    let pairs = [left, top, right, bottom].into_iter().zip(truth);
    pairs.into_iter().all(|(side, truth)| side.abs_diff(truth) <= height)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_values_of_real_receipts_are_grounded_where_they_stand() {
    let Some((gateway, receipts)) = with_receipts().await else { return };
    let (mut right, mut looked_at) = ([0; FIELDS.len()], 0);
    for receipt in &receipts {
        let answer = gateway.upload(EXTRACT, receipt.image()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let (truth, truth_lines) = (receipt.truth(), receipt.lines());
        let page = &answer.json["pages"][0];
        for (index, field) in FIELDS.iter().enumerate() {
            let origin = &answer.json["fields"][format!("/{field}")];
            let value = bare(raw(&answer, field));
            let true_value = bare(truth[TRUE_FIELDS[index]].as_str().unwrap());
            // The reader takes the whole line of a name, with the number of its registration.
            let is_right = value == true_value || index == 0 && value.starts_with(&true_value);
            right[index] += usize::from(is_right);
            if value.is_empty() {
                continue;
            }
            if origin["grounded"] == "none" {
                // The emulator joins an address from rows, which go over the columns of the page.
                assert!(field.starts_with("merchant"), "{}: {origin}", receipt.id);
                continue;
            }
            let place: [u64; 4] =
                std::array::from_fn(|side| origin["bbox"][side].as_u64().unwrap());
            let [left, top, right, bottom] = place;
            assert!(left < right && top < bottom, "{origin}");
            assert!(page["width"].as_u64().unwrap() >= right, "{origin}");
            // One line that is the value and nothing else, in the page and in the truth.
            let lines = page["lines"].as_array().unwrap();
            let is_one = lines.iter().any(|line| {
                line["bbox"] == origin["bbox"] && bare(line["text"].as_str().unwrap()) == value
            });
            let truths = truth_lines.iter().filter(|(text, _)| *text == value);
            let truths: Vec<_> = truths.map(|(_, place)| *place).collect();
            if is_one && !truths.is_empty() {
                looked_at += 1;
                let is_near = truths.iter().any(|truth| are_near(place, *truth));
                assert!(is_near, "{}: {field} at {place:?}, not at {truths:?}", receipt.id);
            }
        }
    }
    println!(
        "of {RECEIPTS} receipts, right are {right:?} of {FIELDS:?}; {looked_at} boxes compared"
    );
    assert!(looked_at >= 3, "{looked_at} boxes");
    assert!(right[1] * 2 >= receipts.len() && right[3] * 2 >= receipts.len(), "{right:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_that_are_bound_into_a_pdf_are_merged_from_what_each_says_alone() {
    let Some((gateway, receipts)) = with_receipts().await else { return };
    let receipts = &receipts[..3];
    let mut alone = Vec::new();
    for receipt in receipts {
        alone.push(gateway.upload(EXTRACT, receipt.image()).await);
    }
    let file = pdf(&receipts.iter().map(Receipt::page).collect::<Vec<_>>());
    let before = gateway.upstream().bill();
    let bound = gateway.upload(EXTRACT, file).await;
    assert_eq!(bound.json["status"], "succeeded", "{}", bound.text);
    let mut disagreeing = Vec::new();
    for field in FIELDS {
        let pages: Vec<(u64, &Answer)> =
            (1..).zip(&alone).filter(|(_, answer)| !answer.json["data"][field].is_null()).collect();
        let origin = &bound.json["fields"][format!("/{field}")];
        let Some((page, first)) = pages.first() else {
            assert!(bound.json["data"][field].is_null());
            continue;
        };
        assert_eq!(bound.json["data"][field], first.json["data"][field], "{field}");
        assert_eq!(origin["page"], *page, "{field}");
        let alone = &first.json["fields"][format!("/{field}")];
        for member in ["raw", "grounded", "bbox", "polygon"] {
            assert_eq!(origin[member], alone[member], "{member} of {field}");
        }
        let value = |answer: &Answer| {
            let text = answer.json["data"][field].to_string().to_lowercase();
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let others = pages.iter().filter(|(_, answer)| value(answer) != value(first));
        let others: Vec<u64> = others.map(|(page, _)| *page).collect();
        if !others.is_empty() {
            let pages: Vec<u64> = std::iter::once(*page).chain(others).collect();
            let pointer = format!("/{field}");
            disagreeing
                .push(json!({ "code": "pages_disagree", "pointer": pointer, "pages": pages }));
        }
    }
    assert_eq!(bound.json["warnings"], Value::from(disagreeing));
    let spent = gateway.upstream().bill().total() - before.total();
    assert_eq!(bound.json["usage"]["total_tokens"], spent);
    let sum = |member: &str| -> u64 {
        alone.iter().map(|answer| answer.json["usage"][member].as_u64().unwrap()).sum()
    };
    assert_eq!(sum("image_tokens"), bound.json["usage"]["image_tokens"]);
}
