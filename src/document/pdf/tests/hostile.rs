//! No bytes make the module panic: random ones, damaged files, and files that are known to be hostile.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Builder, jpeg, open};
use crate::document::page::Draw;
use crate::document::pdf::PdfFile;
use crate::document::pdf::fonts::Fonts;
use crate::document::pdf::limits::Limits;
use crate::image::Size;
use crate::units::Pixels;

/// Reads whatever can be read of a file's first pages, in few pixels.
fn read(file: Bytes) {
    let Ok(file) = open(file) else { return };
    for page in 1..=file.page_count().min(2) {
        let Ok(plan) = file.plan(page, true) else { continue };
        if plan.stored.is_some() {
            assert!(file.draw(page, Draw::AsStored).is_ok());
        }
        let _ = file.draw(page, Draw::At(Size::new(40, 30)));
    }
}

/// A file with a bit of everything: text, a picture, a form, a pattern, a mask, a shading and an annotation.
fn varied() -> Bytes {
    let mut file = Builder::new();
    let picture = jpeg(8, 8, jpeg_encoder::ColorType::Rgb);
    let entries = "/Subtype /Image /Width 8 /Height 8 /ColorSpace /DeviceRGB";
    let picture = file.stream(&format!("{entries} /Filter /DCTDecode"), &picture);
    let raw = file.stream(&format!("{entries} /BitsPerComponent 8 /SMask 3 0 R"), &[7; 192]);
    let form = file
        .stream("/Subtype /Form /BBox [0 0 9 9] /Group << /S /Transparency >>", b"0 0 9 9 re f");
    let tiles = file.stream(
        "/PatternType 1 /PaintType 1 /BBox [0 0 9 9] /XStep 9 /YStep 9 /Resources << >>",
        b"0 0 5 5 re f",
    );
    let shading = file.object(
        "<< /ShadingType 2 /ColorSpace /DeviceRGB /Coords [0 0 9 9] /Function << /FunctionType 2 \
         /Domain [0 1] /C0 [0 0 0] /C1 [1 1 1] /N 1 >> >>",
    );
    let state = file.object(&format!("<< /ca 0.5 /SMask << /S /Alpha /G {form} 0 R >> >>"));
    let resources = format!(
        "/Resources << /XObject << /P {picture} 0 R /Raw {raw} 0 R /Form {form} 0 R >> \
         /Pattern << /T {tiles} 0 R >> /Shading << /S {shading} 0 R >> /ExtGState << /G {state} 0 R >> \
         /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    );
    let stamp = format!("<< /Subtype /Stamp /Rect [0 0 50 50] /AP << /N {form} 0 R >> >>");
    file.page(
        &format!("{resources} /Annots [{stamp}] /Rotate 90 /UserUnit 2"),
        b"q 9 0 0 9 0 0 cm /P Do /Raw Do /Form Do /S sh Q BT /F 12 Tf 10 10 Td (text) Tj [(a) 20 (b)] TJ ET \
          /Pattern cs /T scn 0 0 50 50 re f /G gs 0 0 m 10 20 30 40 50 60 c S [1 2] 0 d 10 10 m 20 20 l B",
    );
    file.bytes()
}

/// Damage to a file.
#[derive(Debug, Clone)]
enum Damage {
    /// Another byte somewhere.
    Byte(prop::sample::Index, u8),
    /// The number there, if any, becomes another one.
    Number(prop::sample::Index, &'static str),
    /// The rest is missing.
    End(prop::sample::Index),
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>) {
        if file.is_empty() {
            return;
        }
        match self {
            Self::Byte(at, byte) => {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            Self::Number(at, number) => {
                let at = at.index(file.len());
                let Some(start) = file[at..].iter().position(u8::is_ascii_digit) else { return };
                let start = at + start;
                let digits = file[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                file.splice(start..start + digits, number.bytes());
            }
            Self::End(at) => file.truncate(at.index(file.len())),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let numbers =
        ["0", "-1", "1", "3", "7", "65536", "4294967295", "1e38", "99999999999999999999", "0.0001"];
    prop_oneof![
        6 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        6 => (any::<prop::sample::Index>(), prop::sample::select(numbers.to_vec()))
            .prop_map(|(at, number)| Damage::Number(at, number)),
        1 => any::<prop::sample::Index>().prop_map(Damage::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        read(bytes.into());
    }

    #[test]
    fn random_operators_do_no_harm(content in "[0-9 .qQcmreflhWnSBTETjdgGkKsSCNDo/()<>\\[\\]-]{0,400}") {
        read(Builder::single("", content.as_bytes()));
    }

    #[test]
    fn damaged_files_do_no_harm(damages in prop::collection::vec(damage(), 1..6)) {
        let mut file = varied().to_vec();
        for damage in &damages {
            damage.apply(&mut file);
        }
        read(file.into());
    }
}

#[test]
fn the_file_that_is_damaged_can_be_read_before() {
    let file = open(varied()).unwrap();
    assert!(file.plan(1, true).is_ok());
    assert!(file.draw(1, Draw::At(Size::new(40, 30))).is_ok());
}

/// The folder of other people's hostile files, if the machine has it.
fn corpus() -> Option<PathBuf> {
    let shared = std::env::var_os("OCR_GATEWAY_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")),
        PathBuf::from,
    );
    let folder = shared.join("odd");
    let found = folder.is_dir();
    if !found {
        println!("skipped: {} is missing", folder.display());
    }
    found.then_some(folder)
}

/// The outcome of a file: its pages, or why it or its first page cannot be read.
fn outcome(file: &Path) -> String {
    let limits = Limits { operators: 1_000_000, ..Limits::of_pixels(Pixels::new(100_000_000)) };
    let opened = PdfFile::open(fs::read(file).unwrap().into(), &Fonts::default(), limits);
    match opened.and_then(|file| file.plan(1, true).map(|_| file.page_count())) {
        Ok(pages) => format!("{pages} pages"),
        Err(error) => error.to_string(),
    }
}

const PASSWORD: &str = "the PDF is encrypted and opens only with a password";
const DAMAGED: &str = "the PDF is damaged: no pages can be found in it";
const EMPTY: &str = "the document has no pages";

#[test]
fn files_that_are_known_to_be_hostile_have_their_outcome() {
    let Some(folder) = corpus() else { return };
    for (file, expected) in [
        ("bomb/pdf_200000_pages.pdf", "200000 pages"),
        ("bomb/pdf_flate_bomb.pdf", "the page takes more than 67108864 bytes of memory"),
        ("bomb/pdf_page_tree_cycle.pdf", EMPTY),
        ("pdf/omp_hugemono.pdf", "the page has 1225000000 pixels; 100000000 are accepted"),
        ("pdf/omp_invalid.pdf", DAMAGED),
        ("pdf/pdfjs_pr6531_2.pdf", "1 pages"),
        ("pdf/pdfjs_xref_command_missing.pdf", "1 pages"),
        ("pdf/pypdf_libreoffice-writer-password.pdf", PASSWORD),
        ("pdf/qpdf_append-xref-loop.pdf", "30 pages"),
        ("pdf/qpdf_enc-XI-R6_V5_U_view_O_master.pdf", PASSWORD),
        ("pdf/tika_testPDF_jsActionOnPage.pdf", "1 pages"),
        ("pdf/tika_testUnicodePassword.pdf", PASSWORD),
        ("pdf/unst_failing-encrypted.pdf", PASSWORD),
        ("pdf/unst_failing-missing-root.pdf", DAMAGED),
        ("polyglot/pdf_garbage_before_header.pdf", "1 pages"),
        ("polyglot/zip_named.pdf", DAMAGED),
    ] {
        assert_eq!(outcome(&folder.join(file)), expected, "{file}");
    }
}

#[test]
fn no_hostile_file_does_harm() {
    let Some(folder) = corpus() else { return };
    let folders = ["bomb", "pdf"].map(|name| fs::read_dir(folder.join(name)).unwrap());
    let files = folders.into_iter().flatten().map(|entry| entry.unwrap().path());
    for file in files.filter(|file| file.extension().is_some_and(|it| it == "pdf")) {
        read(fs::read(file).unwrap().into());
    }
}
