//! The CPU time of shrinking a large picture: whole, beside libvips, and by its parts.
//!
//! ```text
//! bench/pixels
//! ```
//!
//! The picture is a photo of a page of 12 megapixels, drawn here: strokes as of text, uneven light and noise. Shrinking
//! it to a megapixel, from file to file and with the start of the program, may take [`MOST`] percent of what
//! `vipsthumbnail` takes (Debian: `libvips-tools`). The exit code is 1 where it takes more.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use ocr_gateway::image::Size;
use ocr_gateway::image::format::Orientation;
use ocr_gateway::image::probe::probe;
use ocr_gateway::pixels::decode::{decode, decode_memory};
use ocr_gateway::pixels::encode::{Encoding, QUALITY, encode};
use ocr_gateway::pixels::raster::{Raster, Samples};
use ocr_gateway::pixels::resize::shrink_to;
use ocr_gateway::units::Pixels;
use rustix::time::{ClockId, clock_gettime};

/// The most CPU time that shrinking the photo may take, in percent of what libvips takes.
const MOST: u32 = 150;

const PHOTO: Size = Size::new(4_000, 3_000);
const CAP: Pixels = Pixels::new(1_000_000);

/// How often a part is measured; the fastest counts.
const RUNS: usize = 9;

/// How often a program is run; the mean counts, since the kernel counts the time of children in hundredths of a second.
const PROGRAM_RUNS: u32 = 20;

/// The first argument with which this program only shrinks the file of the second into the third.
const SHRINK: &str = "shrink";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, what, from, to] = &arguments[..]
        && what == SHRINK
    {
        fs::write(to, shrink(&fs::read(from).unwrap())).unwrap();
        return ExitCode::SUCCESS;
    }
    let photo = encode(&photo(), Encoding::Jpeg { quality: 92 }).unwrap();
    parts(&photo);
    if beside_vips(&photo) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A file with no more pixels than the cap, upright.
fn shrink(file: &[u8]) -> Vec<u8> {
    let header = probe(file).unwrap();
    let picture = decode(file, &header).unwrap().resized(shrink_to(header.stored, CAP));
    let picture = picture.upright(header.orientation);
    encode(&picture, Encoding::fitting(&picture)).unwrap()
}

/// Prints what each part takes, and in percent of decoding the photo.
fn parts(photo: &[u8]) {
    let header = probe(photo).unwrap();
    let to = shrink_to(header.stored, CAP);
    println!("| part | ms of CPU | % of decoding | bytes |\n|---|---|---|---|");
    let (whole, large) = best(|| decode(photo, &header).unwrap());
    let row = |name: &str, time: Duration, bytes: u64| {
        let share = time.as_secs_f64() / whole.as_secs_f64() * 100.0;
        println!("| {name} | {:.1} | {share:.0} | {bytes} |", time.as_secs_f64() * 1e3);
    };
    row("decode a JPEG of 12 megapixels", whole, photo.len() as u64);
    row("the bound of its memory", Duration::ZERO, decode_memory(photo, &header, to));
    // The copy is made since a picture is resized in place of itself.
    let (copy, _) = best(|| large.clone());
    let (time, small) = best(|| large.clone().resized(to));
    row("resize it to 1 megapixel", time.saturating_sub(copy), small.data().len() as u64);
    let (time, turned) = best(|| large.clone().upright(Orientation::QuarterTurnClockwise));
    row(
        "turn it by a quarter, at 12 megapixels",
        time.saturating_sub(copy),
        turned.data().len() as u64,
    );
    for (name, encoding) in [("JPEG", Encoding::Jpeg { quality: QUALITY }), ("PNG", Encoding::Png)]
    {
        let (time, file) = best(|| encode(&small, encoding).unwrap());
        row(&format!("encode 1 megapixel of it as {name}"), time, file.len() as u64);
    }
    let page = page();
    for (name, encoding) in [("JPEG", Encoding::Jpeg { quality: QUALITY }), ("PNG", Encoding::Png)]
    {
        let (time, file) = best(|| encode(&page, encoding).unwrap());
        row(&format!("encode a drawn page of 2 megapixels as {name}"), time, file.len() as u64);
        let header = probe(&file).unwrap();
        let (time, again) = best(|| decode(&file, &header).unwrap());
        row(
            &format!("decode a drawn page of 2 megapixels from {name}"),
            time,
            again.data().len() as u64,
        );
    }
    let (time, _) = best(|| Encoding::fitting(&page));
    row("choose the encoding of a page of 2 megapixels", time, page.data().len() as u64);
}

/// Compares programs that shrink the photo. True if this one is fast enough, or if there is no other.
fn beside_vips(photo: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("photo.jpg"), folder.path().join("small.jpg"));
    fs::write(&from, photo).unwrap();
    let size = shrink_to(PHOTO, CAP);
    let mut vips = Command::new("vipsthumbnail");
    vips.arg("--size").arg(format!("{}x{}", size.width, size.height));
    vips.arg(&from).arg("-o").arg(format!("{}[Q={QUALITY}]", to.display()));
    if vips.stderr(Stdio::null()).status().is_err() {
        println!(
            "\nNo comparison: there is no vipsthumbnail (Debian: apt-get install libvips-tools)."
        );
        return true;
    }
    let theirs = cpu_of(&mut vips);
    let mut this = Command::new(std::env::current_exe().unwrap());
    let ours = cpu_of(this.arg(SHRINK).arg(&from).arg(&to));
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!("\n| 12 megapixels to 1, file to file | ms of CPU | ratio |\n|---|---|---|");
    println!("| vipsthumbnail | {:.0} | 1 |", theirs.as_secs_f64() * 1e3);
    println!("| this service | {:.0} | {ratio:.2} |", ours.as_secs_f64() * 1e3);
    ratio * 100.0 <= f64::from(MOST)
}

/// The mean CPU time of runs of a program, which must succeed.
fn cpu_of(program: &mut Command) -> Duration {
    let before = cpu_of_children();
    for _ in 0..PROGRAM_RUNS {
        assert!(program.status().unwrap().success());
    }
    cpu_of_children().saturating_sub(before) / PROGRAM_RUNS
}

/// The CPU time of all children that have ended (proc(5): `cutime` and `cstime`, in hundredths of a second).
fn cpu_of_children() -> Duration {
    let line = fs::read_to_string(Path::new("/proc/self/stat")).unwrap();
    let (_, fields) = line.rsplit_once(')').unwrap();
    let ticks =
        fields.split_whitespace().skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
    Duration::from_millis(10 * ticks.sum::<u64>())
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

/// Whether there is ink at a place of a page: lines of strokes of 3 to 5 pixels, in words.
fn is_ink(x: u32, y: u32) -> bool {
    let (line, within) = (y / 64, y % 64);
    let (letter, place) = (x / 28, x % 28);
    let shape = letter.wrapping_mul(2_654_435_761).wrapping_add(line.wrapping_mul(40_503)) >> 13;
    let is_space = shape.is_multiple_of(6);
    let (upright, bar) = (shape % 20 + 2, shape / 32 % 28 + 8);
    let is_stroke = (upright..upright + 4).contains(&place) || (bar..bar + 3).contains(&within);
    !is_space && (8..48).contains(&within) && (2..26).contains(&place) && is_stroke
}

fn photo() -> Raster {
    let mut state = 0x2545_f491_u32;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % 25
    };
    let pixels = (0..PHOTO.height).flat_map(|y| (0..PHOTO.width).map(move |x| (x, y)));
    let data = pixels.flat_map(|(x, y)| {
        let light = 200 + 30 * x / PHOTO.width - 50 * y / PHOTO.height;
        let levels = if is_ink(x, y) { [40, 40, 60] } else { [light, light - 5, light - 20] };
        levels.map(|level| u8::try_from(level + noise()).unwrap_or(u8::MAX))
    });
    Raster::new(PHOTO, Samples::Rgb, data.collect()).unwrap()
}

fn page() -> Raster {
    let size = Size::new(1_240, 1_754);
    let pixels = (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y)));
    let data = pixels.map(|(x, y)| if is_ink(x, y) { 0 } else { u8::MAX });
    Raster::new(size, Samples::Gray, data.collect()).unwrap()
}
