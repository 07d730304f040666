//! The syntax of PDF (ISO 32000-2): numbers, names, strings, objects, and their index.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// The number and the generation of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::document) struct ObjectId {
    pub(in crate::document) number: u32,
    pub(in crate::document) generation: u16,
}

impl ObjectId {
    /// A new object.
    pub(in crate::document) const fn new(number: u32) -> Self {
        Self { number, generation: 0 }
    }
}

/// Writes a reference to the object.
impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} R", self.number, self.generation)
    }
}

/// The generation of object 0, which begins the list of free objects.
const FREE: u16 = u16::MAX;

/// How the index of a file is written. An update has one of the same kind as the file: readers need not take a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::document) enum IndexKind {
    /// A table in plain text.
    Table,
    /// A stream, from PDF 1.5.
    Stream,
}

/// Objects that are written to a file one after the other, from a position on.
#[derive(Debug)]
pub(in crate::document) struct Objects {
    /// The bytes of the file before the first of these.
    start: u64,
    bytes: Vec<u8>,
    /// Where each object begins in the file.
    places: BTreeMap<ObjectId, u64>,
}

impl Objects {
    /// Objects from byte `start` of a file.
    pub(in crate::document) fn from(start: u64) -> Self {
        Self { start, bytes: Vec::new(), places: BTreeMap::new() }
    }

    /// Objects of a new file, from its byte `start`.
    pub(in crate::document) fn of_new_file(start: u64) -> Self {
        let mut objects = Self::from(start);
        objects.note(ObjectId { number: 0, generation: FREE }, 0);
        objects
    }

    /// Notes an object that stands in the file before these.
    pub(super) fn note(&mut self, id: ObjectId, place: u64) {
        self.places.insert(id, place);
    }

    /// Whether the object was written.
    pub(in crate::document) fn has(&self, id: ObjectId) -> bool {
        self.places.contains_key(&id)
    }

    /// The number of bytes that were written.
    pub(in crate::document) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes that are no object: a header or a line feed.
    pub(in crate::document) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds an object.
    pub(in crate::document) fn add(&mut self, id: ObjectId, content: &[u8]) {
        self.begin(id);
        self.raw(content);
        self.raw(b"\nendobj\n");
    }

    /// Adds a stream. `entries` are those of its dictionary without the length.
    pub(in crate::document) fn add_stream(&mut self, id: ObjectId, entries: &[u8], data: &[u8]) {
        self.begin(id);
        self.raw(&stream(entries, data));
        self.raw(b"\nendobj\n");
    }

    /// Adds a stream that is compressed.
    pub(in crate::document) fn add_compressed(&mut self, id: ObjectId, entries: &str, data: &[u8]) {
        let entries = format!("{entries}/Filter/FlateDecode");
        self.add_stream(id, entries.as_bytes(), &deflated(data));
    }

    /// The objects alone, without an index.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn position(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    fn begin(&mut self, id: ObjectId) {
        self.places.insert(id, self.position());
        self.raw(format!("{} {} obj\n", id.number, id.generation).as_bytes());
    }

    /// Ends the file with its index. `entries` are those of the trailer without the size, and `next` is the number of
    /// an object that does not exist.
    pub(in crate::document) fn finish(
        mut self,
        kind: IndexKind,
        entries: &[u8],
        next: u32,
    ) -> Vec<u8> {
        let index = self.position();
        match kind {
            IndexKind::Table => self.table(entries, next),
            IndexKind::Stream => self.index_stream(entries, next),
        }
        self.raw(format!("startxref\n{index}\n%%EOF\n").as_bytes());
        self.bytes
    }

    fn table(&mut self, entries: &[u8], next: u32) {
        let mut table = "xref\n".to_owned();
        for (first, run) in self.runs() {
            let _ = writeln!(table, "{first} {}", run.len());
            for (generation, place) in run {
                let kind = if generation == FREE { 'f' } else { 'n' };
                // Each entry has 20 bytes, the blank before the line feed included.
                let _ = writeln!(table, "{place:010} {generation:05} {kind} ");
            }
        }
        self.raw(table.as_bytes());
        self.raw(format!("trailer\n<</Size {next}").as_bytes());
        self.raw(entries);
        self.raw(b">>\n");
    }

    fn index_stream(&mut self, entries: &[u8], next: u32) {
        let id = ObjectId::new(next);
        self.begin(id);
        let (mut sections, mut data) = (String::new(), Vec::new());
        for (first, run) in self.runs() {
            let _ = write!(sections, "{first} {} ", run.len());
            for (generation, place) in run {
                data.push(u8::from(generation != FREE));
                data.extend_from_slice(&place.to_be_bytes()[4..]);
                data.extend_from_slice(&generation.to_be_bytes());
            }
        }
        let size = next.saturating_add(1);
        let own = format!(
            "/Type/XRef/Size {size}/W[1 4 2]/Index[{}]/Filter/FlateDecode",
            sections.trim_end()
        );
        self.raw(&stream(&[own.as_bytes(), entries].concat(), &deflated(&data)));
        self.raw(b"\nendobj\n");
    }

    /// The runs of objects whose numbers follow each other: the first number, and the generation and place of each.
    fn runs(&self) -> Vec<(u32, Vec<(u16, u64)>)> {
        let mut runs: Vec<(u32, Vec<(u16, u64)>)> = Vec::new();
        let mut expected = None;
        for (id, place) in &self.places {
            match runs.last_mut().filter(|_| expected == Some(id.number)) {
                Some((_, run)) => run.push((id.generation, *place)),
                None => runs.push((id.number, vec![(id.generation, *place)])),
            }
            expected = id.number.checked_add(1);
        }
        runs
    }
}

/// A stream with its dictionary.
fn stream(entries: &[u8], data: &[u8]) -> Vec<u8> {
    let length = format!("/Length {}>>\nstream\n", data.len());
    [b"<<".as_slice(), entries, length.as_bytes(), data, b"\nendstream"].concat()
}

/// The data for the filter `FlateDecode`.
pub(in crate::document) fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let _ = encoder.write_all(data);
    encoder.finish().unwrap_or_default()
}

/// A number with six significant digits, or more in its integer part. PDF has no exponents.
pub(in crate::document) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor().clamp(-12.0, 5.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between 0 and 17"
    )]
    let decimals = (5.0 - magnitude) as usize;
    let text = format!("{value:.decimals$}");
    let is_fraction = text.contains('.');
    let text = if is_fraction { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if matches!(text, "" | "-0") { "0".to_owned() } else { text.to_owned() }
}

/// The operands of a transformation.
pub(in crate::document) fn matrix(coefficients: [f64; 6]) -> String {
    coefficients.map(number).join(" ")
}

/// A name. Bytes that are no regular characters are escaped.
pub(in crate::document) fn name(bytes: &[u8]) -> Vec<u8> {
    let mut written = b"/".to_vec();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"+-_.*:@!$&',;=?^`|~\"\\".contains(byte) {
            written.push(*byte);
        } else {
            written.extend_from_slice(format!("#{byte:02X}").as_bytes());
        }
    }
    written
}

/// A string in hexadecimal digits.
pub(in crate::document) fn string(bytes: &[u8]) -> Vec<u8> {
    let mut written = String::with_capacity(bytes.len().saturating_mul(2).saturating_add(2));
    written.push('<');
    for byte in bytes {
        let _ = write!(written, "{byte:02X}");
    }
    written.push('>');
    written.into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_has_no_exponent_and_no_needless_digits() {
        for (value, written) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-12.5, "-12.5"),
            (100.0, "100"),
            (123_456_789.0, "123456789"),
            (0.000_012_345_678, "0.0000123457"),
            (1e-30, "0"),
            (f64::NAN, "0"),
            (f64::INFINITY, "0"),
        ] {
            assert_eq!(number(value), written);
        }
    }

    #[test]
    fn a_name_escapes_what_would_end_it() {
        assert_eq!(name(b"A b#/"), b"/A#20b#23#2F");
        assert_eq!(string(&[0, 0xab]), b"<00AB>");
    }

    #[test]
    fn an_index_has_a_section_for_each_run_of_numbers() {
        let mut objects = Objects::from(100);
        for number in [9, 3, 4] {
            objects.add(ObjectId { number, generation: 0 }, b"null");
        }
        let file = String::from_utf8(objects.finish(IndexKind::Table, b"/Root 1 0 R", 10)).unwrap();
        let table =
            "xref\n3 2\n0000000120 00000 n \n0000000140 00000 n \n9 1\n0000000100 00000 n \n";
        assert!(file.contains(table), "{file}");
        assert!(file.contains("trailer\n<</Size 10/Root 1 0 R>>\nstartxref\n160\n%%EOF"), "{file}");
    }

    proptest! {
        #[test]
        fn a_number_is_read_again_with_six_digits(value in -1e9..1e9_f64) {
            let read: f64 = number(value).parse().unwrap();
            prop_assert!((read - value).abs() <= value.abs() * 1e-5 + 1e-12, "{value} {read}");
        }
    }
}
