//! Real and broken files, and files that are broken here: all are decoded or refused, and none panics.
//!
//! `PROPTEST_CASES` sets the number of broken files. The shared data are skipped where they are not there.

use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::decode::{decode, decode_memory};
use super::error::PixelsError;
use super::raster::Raster;
use super::resize::shrink_to;
use super::tiff::TiffFile;
use crate::image::format::Format;
use crate::image::probe::probe;
use crate::units::Pixels;

/// The pixels that are decoded at most, as a caller would refuse larger pictures.
const MAX_PIXELS: u64 = 40_000_000;

/// All files below a folder of the shared data; none where it is missing.
fn shared(folder: &str) -> Vec<(String, Vec<u8>)> {
    let root = std::env::var("OCR_GATEWAY_TEST_DATA").map_or_else(
        |_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")),
        PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(root.join(folder)) else {
        println!("skipped: there is no {}", root.join(folder).display());
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let name = |path: &PathBuf| format!("{folder}/{}", path.file_name().unwrap().display());
    let mut files: Vec<_> = paths.map(|path| (name(&path), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

/// What the whole room makes of a file: every page that is not too large, decoded.
fn outcome(file: &[u8]) -> Vec<Result<Raster, PixelsError>> {
    let Ok(header) = probe(file) else { return Vec::new() };
    let is_small = |pixels: Pixels| pixels.get() <= MAX_PIXELS;
    if header.format == Format::Tiff {
        let Ok(tiff) = TiffFile::open(file.to_vec().into()) else { return Vec::new() };
        let pages = (1..=tiff.pages().min(5)).filter(|&number| {
            let page = tiff.page(number);
            page.is_ok_and(|page| is_small(page.stored.pixels()))
        });
        return pages.map(|number| tiff.decode(number)).collect();
    }
    if !is_small(header.stored.pixels()) {
        return Vec::new();
    }
    assert!(header.format == Format::Heic || decode_memory(file, &header, header.stored) > 0);
    vec![decode(file, &header)]
}

#[test]
fn odd_files_are_decoded_or_refused() {
    for folder in ["odd/jpeg", "odd/png", "odd/tiff", "odd/bomb", "odd/truncated", "odd/other"] {
        for (name, file) in shared(folder) {
            println!("{name:70.70} {:?}", outcome(&file));
        }
    }
}

#[test]
fn every_real_picture_is_decoded_and_shrunk() {
    for (name, file) in shared("misc") {
        for page in outcome(&file) {
            let page = page.unwrap_or_else(|error| panic!("{name}: {error}"));
            let to = shrink_to(page.size(), Pixels::new(250_000));
            assert_eq!(page.resized(to).size(), to, "{name}");
        }
    }
}

/// One small file of each format, which the next tests break.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let names = ["hello.bmp", "hello.jpg", "hello.png", "hello.tif", "hello.webp"];
    let bundled = names.map(|name| std::fs::read(format!("{folder}/{name}")).unwrap());
    let odd = ["odd/jpeg", "odd/png", "odd/tiff", "odd/other"].map(shared).concat();
    let odd = odd.into_iter().map(|(_, file)| file).filter(|file| file.len() < 64 << 10);
    bundled.into_iter().chain(odd).collect()
});

proptest! {
    #[test]
    fn a_file_with_changed_bytes_is_decoded_or_refused(
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        keep in prop_oneof![9 => Just(100), 1 => 0_usize..100],
        place in any::<prop::sample::Index>(),
        inserted in prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 1..9)],
    ) {
        let mut file = seed.get(&SEEDS).clone();
        for (index, byte) in changes {
            // Half of the changes are in the header, where they mean most.
            let length = if byte % 2 == 0 { file.len() } else { file.len().min(256) };
            file[index.index(length)] = byte;
        }
        let place = place.index(file.len());
        file.splice(place..place, inserted);
        file.truncate((file.len() * keep).div_ceil(100));
        for page in outcome(&file).into_iter().flatten() {
            let to = shrink_to(page.size(), Pixels::new(10_000));
            prop_assert_eq!(page.resized(to).size(), to);
        }
    }
}
