//! Fields of real receipts are found often enough to exercise a gateway's extraction.
//!
//! The rules were developed on these very receipts, so the share of correct fields shows that the rules work, but not
//! how well they generalise.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{GENERATION, data, data_url, generation_with, post, reader};

/// Large enough to read a receipt, and a fifth of the size of the largest scans.
const MAX_PIXELS: u32 = 2_000_000;

/// The fields that are scored.
const FIELDS: [&str; 2] = ["total", "date"];

#[tokio::test]
async fn total_and_date_of_half_the_receipts_are_right() {
    let (Some(emulator), Some(manifest)) = (reader().await, data("sroie/manifest.jsonl")) else {
        return;
    };
    let emulator = Arc::new(emulator);
    let mut readings = JoinSet::new();
    for (request, truth) in receipts(&manifest) {
        let emulator = Arc::clone(&emulator);
        readings.spawn(async move {
            let answer = post(&emulator, GENERATION, &request).await.json();
            let result = &answer["output"]["choices"][0]["message"]["content"][0]["ocr_result"];
            FIELDS.map(|field| normal(&result["kv_result"][field]) == normal(&truth[field]))
        });
    }
    let scores = readings.join_all().await;
    let right = |field: usize| scores.iter().filter(|score| score[field]).count();
    println!("of {} receipts: {} totals and {} dates right", scores.len(), right(0), right(1));
    assert!(right(0) * 2 >= scores.len() && right(1) * 2 >= scores.len());
}

/// A request and the true fields for each receipt of the development split.
fn receipts(manifest: &Path) -> Vec<(Value, Value)> {
    let folder = manifest.parent().unwrap();
    let rows = std::fs::read_to_string(manifest).unwrap();
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let file = |row: &Value, member: &str| {
        std::fs::read(folder.join(row[member].as_str().unwrap())).unwrap()
    };
    rows.filter(|row| row["split"] == "dev")
        .map(|row| {
            let image = data_url("image/jpeg", &file(&row, "image"));
            let mut request = generation_with(&json!({"image": image, "max_pixels": MAX_PIXELS}));
            let schema = json!({"company": "", "date": "", "address": "", "total": ""});
            request["parameters"]["ocr_options"] = json!({
                "task": "key_information_extraction", "task_config": {"result_schema": schema}
            });
            (request, serde_json::from_slice(&file(&row, "fields")).unwrap())
        })
        .collect()
}

/// Letters and digits in lower case.
fn normal(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default().to_lowercase();
    text.chars().filter(|character| character.is_alphanumeric()).collect()
}
