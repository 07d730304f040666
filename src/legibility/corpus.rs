//! Real receipts. The shared data are skipped where they are not there.

use std::path::{Path, PathBuf};

use super::legibility;
use crate::image::probe::probe;
use crate::pixels::decode::decode;
use crate::units::Pixels;

/// Larger receipts take too long in a build that is not optimised.
const MOST_PIXELS: Pixels = Pixels::new(1_000_000);

/// Receipts whose lines have boxes that were drawn by hand.
fn receipts() -> Vec<(PathBuf, PathBuf)> {
    let root = std::env::var("OCR_GATEWAY_TEST_DATA").map_or_else(
        |_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")),
        PathBuf::from,
    );
    let folder = root.join("sroie");
    let Ok(entries) = std::fs::read_dir(folder.join("img")) else {
        println!("skipped: there is no {}", folder.display());
        return Vec::new();
    };
    let images = entries.map(|entry| entry.unwrap().path());
    let pairs = images.map(|image| {
        let boxes = folder.join("box").join(image.file_name().unwrap()).with_extension("csv");
        (image, boxes)
    });
    pairs.filter(|(_, boxes)| boxes.exists()).collect()
}

/// The height of which a fifth of the boxes is lower. A row has four corners and the text.
fn height_of_boxes(file: &Path) -> f32 {
    let text = std::fs::read_to_string(file).unwrap();
    let height = |line: &str| {
        let numbers = line.split(',').map_while(|number| number.trim().parse::<u16>().ok());
        let rows: Vec<u16> = numbers.take(8).skip(1).step_by(2).collect();
        Some(rows.iter().max()? - rows.iter().min()?)
    };
    let mut heights: Vec<u16> = text.lines().filter_map(height).collect();
    heights.sort_unstable();
    f32::from(heights[heights.len() / 5])
}

/// A box is drawn round capitals and descenders, so it is higher than the letter x and than a digit.
#[test]
fn the_height_of_a_receipt_fits_the_boxes_of_its_lines() {
    for (image, boxes) in receipts() {
        let file = std::fs::read(&image).unwrap();
        let header = probe(&file).unwrap();
        if header.stored.pixels() > MOST_PIXELS {
            continue;
        }
        let found = legibility(&decode(&file, &header).unwrap());
        let text = found.text.unwrap_or_else(|| panic!("{}: no text", image.display()));
        let share = text.height / height_of_boxes(&boxes);
        assert!((0.5..0.9).contains(&share), "{}: {text:?}, {share}", image.display());
        assert!((1.4..2.2).contains(&text.strokes), "{}: {text:?}", image.display());
    }
}
