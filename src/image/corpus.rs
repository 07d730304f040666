//! Tests [`probe`] with real and broken files: the shared test data, for which manifests give the expected results, and
//! the files that `scripts/draw-two-sizes` draws.
//!
//! If the shared data is missing, its tests are skipped.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;

use super::format::Format;
use super::size::Size;
use crate::quote::limits::check;

use super::header::ImageHeader;
use super::probe::{ProbeError, probe};

/// One line of a manifest and the file that it describes.
struct Sample {
    name: String,
    bytes: Vec<u8>,
    manifest: Value,
}

impl Sample {
    fn text(&self, member: &str) -> &str {
        self.manifest[member].as_str().unwrap_or_default()
    }

    /// The gateway's result before anything is sent: the header of the image, or the reason for the refusal.
    fn verdict(&self) -> Result<ImageHeader, String> {
        let header = probe(&self.bytes).map_err(|error| error.to_string())?;
        let checked = check(&header, self.bytes.len());
        checked.map(|()| header).map_err(|violation| violation.to_string())
    }
}

/// The samples of a folder, both images and files that claim to be images. Empty if the folder is missing.
fn samples(folder: &str, file_member: &str) -> Vec<Sample> {
    let root = std::env::var("OCR_GATEWAY_TEST_DATA").map_or_else(
        |_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")),
        PathBuf::from,
    );
    let folder = root.join(folder);
    let Ok(manifest) = std::fs::read_to_string(folder.join("manifest.jsonl")) else {
        println!("skipped: there is no {}", folder.display());
        return Vec::new();
    };
    let lines = manifest.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let read = |manifest: Value| {
        let name = manifest[file_member].as_str()?.to_owned();
        let bytes = std::fs::read(folder.join(&name)).ok()?;
        Some(Sample { name, bytes, manifest })
    };
    lines.filter_map(read).collect()
}

fn side(value: &Value) -> u32 {
    value.as_u64().and_then(|number| number.try_into().ok()).unwrap_or(0)
}

#[test]
fn every_real_scan_is_accepted_with_the_sides_that_its_manifest_says() {
    for sample in samples("sroie", "image").into_iter().chain(samples("misc", "file")) {
        if super::kind::is_pdf(&sample.bytes) {
            continue;
        }
        let said = Size::new(side(&sample.manifest["width"]), side(&sample.manifest["height"]));
        let stored = sample.verdict().map(|header| header.stored);
        assert_eq!(stored, Ok(said), "{}", sample.name);
    }
}

#[test]
fn odd_images_have_the_sides_that_a_lenient_decoder_sees() {
    for sample in samples("odd", "file") {
        let oracle = &sample.manifest["oracle"];
        let Ok(header) = probe(&sample.bytes) else { continue };
        if oracle["w"].is_null() {
            continue;
        }
        // The oracle applies the orientation only to HEIC pictures.
        let seen = if header.format == Format::Heic { header.upright() } else { header.stored };
        assert_eq!(seen, Size::new(side(&oracle["w"]), side(&oracle["h"])), "{}", sample.name);
    }
}

#[test]
fn what_a_lenient_decoder_reads_whole_is_probed_too() {
    for sample in samples("odd", "file") {
        let oracle = &sample.manifest["oracle"];
        let is_accepted_format = matches!(
            oracle["format"].as_str(),
            Some("JPEG" | "MPO" | "PNG" | "WEBP" | "BMP" | "TIFF" | "HEIF")
        );
        if is_accepted_format && oracle["verdict"] == "ok" {
            assert!(probe(&sample.bytes).is_ok(), "{}: {:?}", sample.name, probe(&sample.bytes));
        }
    }
}

#[test]
fn odd_files_that_must_be_rejected_are_when_their_header_shows_it() {
    for sample in samples("odd", "file") {
        let verdict = sample.verdict();
        println!("{:18} {:55.55} {verdict:?}", sample.text("expect"), sample.name);
        if sample.text("expect") == "reject" {
            assert!(verdict.is_err(), "{}", sample.name);
        }
    }
}

#[test]
fn every_pdf_is_told_from_an_image() {
    for sample in samples("odd", "file") {
        if sample.name.starts_with("pdf/") && super::kind::is_pdf(&sample.bytes) {
            let seen = probe(&sample.bytes);
            assert_eq!(seen, Err(ProbeError::Unsupported { seen: "PDF" }), "{}", sample.name);
        }
    }
}

/// The drawn files in a folder, with their names.
fn drawn(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/").to_owned() + folder;
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.collect();
    // The order must not depend on the file system.
    paths.sort();
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

#[test]
fn every_drawn_file_with_two_sizes_is_refused() {
    let files = drawn("two-sizes");
    assert!(files.len() > 100);
    for (name, file) in files {
        let refused = probe(&file);
        let is_undecodable =
            matches!(refused, Err(ProbeError::SecondSize { .. } | ProbeError::Malformed { .. }));
        assert!(is_undecodable, "{name}: {refused:?}");
    }
}

#[test]
fn every_drawn_file_with_one_size_is_accepted_with_the_size_in_its_name() {
    for (name, file) in drawn("one-size") {
        let shown = probe(&file).map(|header| header.upright().to_string());
        let said = name.rsplit_once('-').unwrap().1;
        assert_eq!(shown, Ok(said.to_owned()), "{name}");
    }
}

/// The size that the decoders of the `image` crate read.
fn decoded(file: &[u8]) -> Option<Size> {
    let reader = image::ImageReader::new(std::io::Cursor::new(file)).with_guessed_format().ok()?;
    let (width, height) = reader.into_dimensions().ok()?;
    Some(Size::new(width, height))
}

/// A drawn file in which some bytes are replaced by bytes of another drawn file.
fn spliced() -> impl Strategy<Value = Vec<u8>> {
    let files: Vec<_> = ["one-size", "two-sizes"].into_iter().flat_map(drawn).collect();
    let file = prop::sample::select(files).prop_map(|(_, file)| file);
    let place = any::<prop::sample::Index>;
    let parts = (file.clone(), file, place(), place(), 0..200_usize, 0..200_usize);
    parts.prop_map(|(host, donor, at, from, length, replaced)| {
        let (at, from) = (at.index(host.len()), from.index(donor.len()));
        let part = &donor[from..donor.len().min(from + length)];
        let rest = host.get(at + replaced..).unwrap_or_default();
        [&host[..at], part, rest].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_decoder_sees_a_larger_picture_than_is_quoted(file in spliced()) {
        if let (Ok(header), Some(seen)) = (probe(&file), decoded(&file)) {
            prop_assert_eq!(seen, header.stored);
        }
    }
}
