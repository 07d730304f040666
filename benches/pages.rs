//! The cost of drawing pages of PDF files, beside the programs of other projects at the same pixels.
//!
//! Documents are drawn here: text, scans alone and with a line of text over them, and drawings. Ours is the whole way of a page:
//! plan, draw, and encode for the wire. `pdftoppm` writes pixels that are not encoded; `mutool draw` writes PNG.
//!
//! ```text
//! bench/pages
//! bench/pages FILE.pdf...
//! ```
//!
//! Files that are named are drawn, too, and stretched to the same sizes.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::print_stdout, reason = "the figures are the result")]
#![expect(clippy::disallowed_methods, reason = "what is measured is the machine's own time")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ocr_gateway::document::page::Draw;
use ocr_gateway::document::pdf::PdfFile;
use ocr_gateway::document::pdf::fonts::Fonts;
use ocr_gateway::document::pdf::limits::Limits;
use ocr_gateway::image::Size;
use ocr_gateway::units::Pixels;
use rustix::time::{ClockId, clock_gettime};

/// The allocator of the command.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Pages of each document.
const PAGES: u32 = 20;

/// Runs of each measurement; the cheapest counts.
const RUNS: usize = 3;

/// The sizes of a drawn A4 page: one and two million pixels.
const SIZES: [Size; 2] = [Size::new(841, 1_189), Size::new(1_189, 1_682)];

const WORDS: [&str; 16] = [
    "ferry", "harbour", "noon", "tide", "lamp", "paper", "receipt", "street", "ink", "map",
    "order", "total", "thank", "return", "ruled", "blue",
];

/// A document: pages of content, each with resources of its own.
struct Document {
    objects: Vec<Vec<u8>>,
    pages: Vec<usize>,
}

impl Document {
    fn new() -> Self {
        Self { objects: vec![Vec::new(), Vec::new()], pages: Vec::new() }
    }

    fn stream(&mut self, entries: &str, data: &[u8]) -> usize {
        let head = format!("<< {entries} /Length {} >>\nstream\n", data.len());
        self.objects.push([head.as_bytes(), data, b"\nendstream"].concat());
        self.objects.len()
    }

    fn page(&mut self, resources: &str, content: &str) {
        let content = self.stream("", content.as_bytes());
        let page = format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {content} 0 R \
             /Resources << /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> {resources} >> >>"
        );
        self.objects.push(page.into_bytes());
        self.pages.push(self.objects.len());
    }

    fn bytes(mut self) -> Vec<u8> {
        let kids = self.pages.iter().fold(String::new(), |mut kids, page| {
            let _ = write!(kids, "{page} 0 R ");
            kids
        });
        self.objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>".to_vec();
        let tree = format!("<< /Type /Pages /Count {} /Kids [{kids}] >>", self.pages.len());
        self.objects[1] = tree.into_bytes();
        let mut file = b"%PDF-1.7\n".to_vec();
        let mut index = format!("xref\n0 {}\n0000000000 65535 f \n", self.objects.len() + 1);
        for (number, object) in (1..).zip(&self.objects) {
            let _ = writeln!(index, "{:010} 00000 n ", file.len());
            file.extend([format!("{number} 0 obj\n").as_bytes(), object, b"\nendobj\n"].concat());
        }
        let (start, size) = (file.len(), self.objects.len() + 1);
        let trailer = format!("trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF");
        file.extend([index.as_bytes(), trailer.as_bytes()].concat());
        file
    }
}

/// Numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn line(&mut self) -> String {
        (0..14)
            .map(|_| WORDS[usize::try_from(self.below(16)).unwrap()])
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn text() -> Vec<u8> {
    let (mut document, mut numbers) = (Document::new(), Numbers(1));
    for _ in 0..PAGES {
        let mut content = "BT /F 10 Tf 12 TL 50 800 Td\n".to_owned();
        for _ in 0..62 {
            let _ = writeln!(content, "({}) '", numbers.line());
        }
        document.page("", &(content + "ET"));
    }
    document.bytes()
}

/// Pages that are nothing but a scan, or have a line of text over it if `is_stamped`.
fn scans(is_stamped: bool) -> Vec<u8> {
    const SIDES: (u16, u16) = (1_654, 2_339);
    let (mut document, mut numbers) = (Document::new(), Numbers(2));
    for page in 0..PAGES {
        let mut samples = Vec::new();
        for row in 0..u64::from(SIDES.1) {
            for column in 0..u64::from(SIDES.0) {
                // Strokes of about the width and distance of text at 200 dots per inch, amid the noise of a scanner.
                let ink = row % 36 < 20 && (column * 7 + row / 36 * 13) % 17 < 5;
                let level = if ink { 40 } else { 225 } + numbers.below(24);
                samples.extend([u8::try_from(level).unwrap_or(u8::MAX); 3]);
            }
        }
        let mut jpeg = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 80);
        encoder.encode(&samples, SIDES.0, SIDES.1, jpeg_encoder::ColorType::Rgb).unwrap();
        let picture = document.stream(
            "/Type /XObject /Subtype /Image /Width 1654 /Height 2339 /BitsPerComponent 8 \
             /ColorSpace /DeviceRGB /Filter /DCTDecode",
            &jpeg,
        );
        let stamp = format!(" BT /F 8 Tf 20 20 Td (page {page}) Tj ET");
        let stamp = if is_stamped { &stamp } else { "" };
        let content = format!("q 595 0 0 842 0 0 cm /P Do Q{stamp}");
        document.page(&format!("/XObject << /P {picture} 0 R >>"), &content);
    }
    document.bytes()
}

fn drawings() -> Vec<u8> {
    let (mut document, mut numbers) = (Document::new(), Numbers(3));
    for _ in 0..PAGES {
        let mut content = String::new();
        for shape in 0..3_000 {
            let (x, y) = (numbers.below(550), numbers.below(800));
            let (across, up) = (numbers.below(60), numbers.below(60));
            let colour = numbers.below(10);
            let _ = match shape % 3 {
                0 => writeln!(content, "0.{colour} 0 0 RG {x} {y} m {} {} l S", x + across, y + up),
                1 => writeln!(content, "0 0.{colour} 0 rg {x} {y} {} {} re f", across / 4, up / 4),
                _ => writeln!(
                    content,
                    "0 0 0.{colour} RG {x} {y} m {} {} {} {} {} {} c S",
                    x + 20,
                    y + 30,
                    x + across,
                    y + 40,
                    x + 40,
                    y + up
                ),
            };
        }
        document.page("", &content);
    }
    document.bytes()
}

/// CPU and wall time of a page.
#[derive(Clone, Copy)]
struct Cost {
    cpu: Duration,
    wall: Duration,
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

/// The CPU time of all programs that were run.
fn cpu_of_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields.skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn measured(clock: fn() -> Duration, pages: u32, mut run: impl FnMut()) -> Cost {
    let cost = || {
        let (cpu, wall) = (clock(), Instant::now());
        run();
        Cost { cpu: clock().saturating_sub(cpu) / pages, wall: wall.elapsed() / pages }
    };
    std::iter::repeat_with(cost).take(RUNS).min_by_key(|cost| cost.cpu).unwrap()
}

fn open(file: &[u8]) -> PdfFile {
    let limits = Limits::of_pixels(Pixels::new(100_000_000));
    PdfFile::open(file.to_vec().into(), &Fonts::default(), limits).unwrap()
}

/// Ours, and the bytes of a page.
fn ours(file: &[u8], pages: u32, size: Size) -> (Cost, usize) {
    let mut bytes = 0;
    let cost = measured(cpu, pages, || {
        let pdf = open(file);
        bytes = (1..=pages)
            .map(|page| {
                pdf.plan(page, false).unwrap();
                pdf.draw(page, Draw::At(size)).unwrap().bytes.len()
            })
            .sum();
    });
    (cost, bytes / pages as usize)
}

/// A program that draws all pages, if it is installed.
fn peer(program: &str, pages: u32, arguments: &[&str]) -> Option<Cost> {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().ok()?;
    Some(measured(cpu_of_children, pages, || assert!(command.status().unwrap().success())))
}

fn cell(cost: Option<Cost>) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    cost.map_or("not installed".to_owned(), |cost| {
        format!("{:.1} · {:.1}", ms(cost.cpu), ms(cost.wall))
    })
}

fn row(name: &str, file: &[u8], size: Size, folder: &Path) {
    let (path, out) = (folder.join("document.pdf"), folder.join("page"));
    fs::write(&path, file).unwrap();
    let (path, out) = (path.to_str().unwrap(), out.to_str().unwrap());
    let (width, height) = (size.width.to_string(), size.height.to_string());
    let pages = open(file).page_count();
    let (ours, bytes) = ours(file, pages, size);
    let scale = ["-scale-to-x", &width, "-scale-to-y", &height, path, out];
    let poppler = peer("pdftoppm", pages, &scale);
    let png = format!("{out}%d.png");
    let draw = ["draw", "-q", "-o", &png, "-w", &width, "-h", &height, path];
    let mupdf = peer("mutool", pages, &draw);
    let ratio = poppler.map_or(f64::NAN, |it| ours.cpu.as_secs_f64() / it.cpu.as_secs_f64());
    println!(
        "| {name} | {width} x {height} | {} | {} KB | {} | {} | {ratio:.2} |",
        cell(Some(ours)),
        bytes / 1_024,
        cell(poppler),
        cell(mupdf)
    );
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let drawn = [
        ("text", text()),
        ("scans", scans(false)),
        ("scans, stamped", scans(true)),
        ("drawings", drawings()),
    ];
    let drawn = drawn.map(|(name, file)| (name.to_owned(), file));
    // cargo adds an argument of its own.
    let named = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let named = named.map(|path| (path.clone(), fs::read(path).unwrap()));
    println!("CPU and wall time of a page, in ms; the cheapest of {RUNS} runs.\n");
    println!(
        "| document | pixels | ours, encoded | file | pdftoppm, not encoded | mutool, PNG | CPU / pdftoppm |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, file) in drawn.into_iter().chain(named) {
        for size in SIZES {
            row(&name, &file, size, folder.path());
        }
    }
}
