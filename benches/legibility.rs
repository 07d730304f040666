//! The CPU time of measuring the text of a picture, beside that of decoding it.
//!
//! ```text
//! bench/legibility
//! ```
//!
//! The pictures are drawn here: a clean page, and a photo of a page with uneven light and noise. Measuring may take 15 ms
//! of CPU for a page of 2 megapixels and 40 ms for one of 12. The exit code is 1 where it takes more. Noise and dots are
//! no pages. They show what a hostile picture takes.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::process::ExitCode;
use std::time::Duration;

use ocr_gateway::image::Size;
use ocr_gateway::image::probe::probe;
use ocr_gateway::legibility::{Legibility, legibility};
use ocr_gateway::pixels::decode::decode;
use ocr_gateway::pixels::encode::{Encoding, encode};
use ocr_gateway::pixels::raster::{Raster, Samples};
use rustix::time::{ClockId, clock_gettime};

/// How often a part is measured; the fastest counts.
const RUNS: usize = 15;

/// Two megapixels, and what they may take.
const PAGE: (Size, Duration) = (Size::new(1_240, 1_754), Duration::from_millis(15));
/// Twelve megapixels, and what they may take.
const PHOTO: (Size, Duration) = (Size::new(3_000, 4_000), Duration::from_millis(40));

fn main() -> ExitCode {
    println!("| picture | decode, ms | measure, ms | ratio | found |\n|---|---|---|---|---|");
    let mut is_fast = true;
    for (name, (size, most)) in [("2 megapixels", PAGE), ("12 megapixels", PHOTO)] {
        for (kind, samples, level) in [
            ("a clean page", Samples::Gray, clean as fn(u32, u32, u32) -> u8),
            ("a clean page in colour", Samples::Rgb, clean),
            ("a photo of a page", Samples::Rgb, photographed),
        ] {
            is_fast &= row(&format!("{kind}, {name}"), &drawn(size, samples, level)) <= most;
        }
        row(&format!("noise, {name}"), &drawn(size, Samples::Rgb, noise));
        row(&format!("dots, {name}"), &drawn(size, Samples::Gray, dots));
    }
    if is_fast { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints what a picture takes, and returns what measuring it does.
fn row(name: &str, picture: &Raster) -> Duration {
    let file = encode(picture, Encoding::Jpeg { quality: 90 }).unwrap();
    let header = probe(&file).unwrap();
    let (decoding, picture) = best(|| decode(&file, &header).unwrap());
    let (measuring, found) = best(|| legibility(&picture));
    let ratio = measuring.as_secs_f64() / decoding.as_secs_f64();
    let [decoding, in_ms] = [decoding, measuring].map(|time| time.as_secs_f64() * 1e3);
    println!("| {name} | {decoding:.1} | {in_ms:.1} | {ratio:.2} | {} |", told(&found));
    measuring
}

fn told(found: &Legibility) -> String {
    let text = found.text.map(|text| format!("{:.1} px, {:.1} strokes", text.height, text.strokes));
    text.unwrap_or_else(|| "no text".to_owned())
}

/// The least CPU time of this process over some runs, and the result of the last.
fn best<T>(mut run: impl FnMut() -> T) -> (Duration, T) {
    let mut timed = || {
        let before = cpu();
        let result = run();
        (cpu().saturating_sub(before), result)
    };
    let mut best = timed();
    for _ in 1..RUNS {
        let (time, result) = timed();
        best = (best.0.min(time), result);
    }
    best
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn drawn(size: Size, samples: Samples, level: impl Fn(u32, u32, u32) -> u8) -> Raster {
    let mut state = 0x2545_f491_u32;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let pixels = (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y)));
    let data = pixels.flat_map(|(x, y)| {
        let level = level(x, y, random());
        // Yellowish, so that the picture keeps its colour.
        let all = [level, level.saturating_sub(5), level.saturating_sub(20)];
        all.into_iter().take(samples.count())
    });
    Raster::new(size, samples, data.collect()).unwrap()
}

/// Squares of letters of five by seven: ink where a bit is set, from the top left.
const LETTERS: [u64; 6] = [
    0b01110_10001_10001_10001_10001_10001_01110,
    0b11110_10001_10001_11110_10000_10000_10000,
    0b10001_10001_10001_11111_10001_10001_10001,
    0b11111_10000_10000_11110_10000_10000_11111,
    0b10001_11001_10101_10101_10011_10001_10001,
    0b01110_10001_10000_01110_00001_10001_01110,
];

/// Whether a place has ink on a page of letters of 14 pixels, in words of up to seven, in lines of 28 pixels.
fn is_ink(x: u32, y: u32) -> bool {
    let (column, line) = (x / 14, y / 28);
    let (across, down) = (x % 14 / 2, y % 28 / 2);
    let letter = column.wrapping_mul(2_654_435_761).wrapping_add(line.wrapping_mul(40_503)) >> 13;
    let is_letter = !(letter.is_multiple_of(7)) && across < 5 && down < 7;
    is_letter && LETTERS[(letter % 6) as usize] >> (34 - (down * 5 + across)) & 1 == 1
}

fn clean(x: u32, y: u32, _: u32) -> u8 {
    if is_ink(x, y) { 0 } else { u8::MAX }
}

fn photographed(x: u32, y: u32, random: u32) -> u8 {
    let light = if is_ink(x, y) { 60 } else { 200 + x / 300 - y / 200 };
    u8::try_from(light + random % 25).unwrap_or(u8::MAX)
}

fn noise(_: u32, _: u32, random: u32) -> u8 {
    random.to_le_bytes()[0]
}

/// Dots in lines: as many parts as are not too many.
fn dots(x: u32, y: u32, _: u32) -> u8 {
    if x % 12 < 7 && y % 12 < 8 { 0 } else { u8::MAX }
}
