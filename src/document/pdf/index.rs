//! The index of a file's objects (ISO 32000-2, 7.5): whether it is sound, and what an update of the file needs of it.
//!
//! hayro reads files whose index is broken, by a search for objects. Other readers do the same in other ways, so an
//! update is only appended where none of them has to search: each section of the index is there, and each object stands
//! where it says.

use std::collections::{HashMap, HashSet};

use hayro::hayro_syntax::object::{Array, Dict, FromBytes, Name, ObjectIdentifier, Stream};
use memchr::memmem;

use crate::document::searchable::object::IndexKind;

/// The most sections that are followed, as in hayro.
const MOST_SECTIONS: usize = 256;

/// The bytes of an entry of a table.
const ENTRY: usize = 20;

/// A sound index.
pub(super) struct Index<'a> {
    /// How its last section is written.
    pub(super) kind: IndexKind,
    /// Where that begins.
    pub(super) start: usize,
    /// The trailer.
    pub(super) trailer: Dict<'a>,
    /// The least number that no object has.
    pub(super) next: u32,
}

/// Why a file cannot be updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its index is not sound.
    Damaged,
    /// It is encrypted.
    Encrypted,
}

/// Where an object stands.
#[derive(Clone, Copy)]
enum Place {
    Free,
    At(usize),
    /// In a stream of objects.
    Within(u32),
}

/// Reads the index of a file whose catalog is `root`.
///
/// # Errors
///
/// The [`Fault`] for which the file cannot be updated.
pub(super) fn read(file: &[u8], root: ObjectIdentifier) -> Result<Index<'_>, Fault> {
    let index = walk(file, root).ok_or(Fault::Damaged);
    let is_encrypted = match &index {
        Ok(index) => index.trailer.contains_key(b"Encrypt"),
        // The trailer may be anywhere.
        Err(_) => memmem::find(file, b"/Encrypt").is_some(),
    };
    if is_encrypted { Err(Fault::Encrypted) } else { index }
}

fn walk(file: &[u8], root: ObjectIdentifier) -> Option<Index<'_>> {
    if !file.starts_with(b"%PDF-") {
        return None;
    }
    let marker = memmem::rfind(file, b"startxref")?;
    let start = Cursor { file, at: marker + b"startxref".len() }.number()?;
    let mut sections = Sections { file, places: HashMap::new(), seen: HashSet::new() };
    let (kind, trailer) = sections.section(start)?;
    let mut earliest = trailer.clone();
    while earliest.contains_key(b"Prev") {
        let before = usize::try_from(earliest.get::<u32>(b"Prev")?).ok()?;
        earliest = sections.section(before)?.1;
    }
    let is_root = trailer.get_ref(b"Root").is_some_and(|id| ObjectIdentifier::from(id) == root);
    if !is_root || !sections.are_right() {
        return None;
    }
    let last = sections.places.keys().copied().max()?;
    let size = trailer.get::<u32>(b"Size")?;
    let next = last.checked_add(1)?.max(size);
    // Room for a few objects for each page.
    (next < 1 << 23).then_some(Index { kind, start, trailer, next })
}

struct Sections<'a> {
    file: &'a [u8],
    /// The objects, each as the latest section has it.
    places: HashMap<u32, Place>,
    seen: HashSet<usize>,
}

impl<'a> Sections<'a> {
    /// Reads the section that begins at `start`.
    fn section(&mut self, start: usize) -> Option<(IndexKind, Dict<'a>)> {
        if self.seen.len() >= MOST_SECTIONS || !self.seen.insert(start) {
            return None;
        }
        let mut cursor = Cursor { file: self.file, at: start };
        if cursor.word(b"xref").is_some() {
            return Some((IndexKind::Table, self.table(cursor)?));
        }
        cursor.object()?;
        let stream = Stream::from_bytes(cursor.rest())?;
        self.stream(&stream)?;
        Some((IndexKind::Stream, stream.dict().clone()))
    }

    fn table(&mut self, mut cursor: Cursor<'a>) -> Option<Dict<'a>> {
        let mut found = Vec::new();
        while cursor.word(b"trailer").is_none() {
            let (first, count) = (cursor.number()?, cursor.number()?);
            cursor.skip_blanks();
            for number in first..first.checked_add(count)? {
                let entry = self.file.get(cursor.at..)?.get(..ENTRY)?;
                cursor.at += ENTRY;
                let place = match entry.get(17)? {
                    b'n' => Place::At(decimal(entry.get(..10)?)?),
                    b'f' => Place::Free,
                    _ => return None,
                };
                found.push((u32::try_from(number).ok()?, place));
            }
        }
        cursor.skip_blanks();
        let trailer = Dict::from_bytes(cursor.rest())?;
        for (number, place) in found {
            self.places.entry(number).or_insert(place);
        }
        // Objects that only readers of streams know, in a file for both kinds of readers.
        if trailer.contains_key(b"XRefStm") {
            self.section(usize::try_from(trailer.get::<u32>(b"XRefStm")?).ok()?)?;
        }
        Some(trailer)
    }

    fn stream(&mut self, stream: &Stream<'_>) -> Option<()> {
        let dict = stream.dict();
        if dict.get::<Name<'_>>(b"Type")?.as_ref() != b"XRef" {
            return None;
        }
        let size = dict.get::<u32>(b"Size")?;
        let widths = dict.get::<[u8; 3]>(b"W")?.map(usize::from);
        let data = stream.decoded_data().ok()?;
        let sections = match dict.get::<Array<'_>>(b"Index") {
            Some(index) => index.iter::<(u32, u32)>().collect(),
            None => vec![(0, size)],
        };
        let mut rest = &data[..];
        for (first, count) in sections {
            for number in first..first.checked_add(count)? {
                let [kind, place, _] = fields(&mut rest, widths)?;
                let place = match (kind, widths[0]) {
                    (Some(0), _) => Place::Free,
                    (Some(1), _) | (_, 0) => Place::At(usize::try_from(place?).ok()?),
                    (Some(2), _) => Place::Within(u32::try_from(place?).ok()?),
                    _ => return None,
                };
                self.places.entry(number).or_insert(place);
            }
        }
        Some(())
    }

    /// Whether each object stands where the index says.
    fn are_right(&self) -> bool {
        self.places.iter().all(|(number, place)| match place {
            Place::Free => true,
            Place::At(at) => Cursor { file: self.file, at: *at }.object() == Some(*number),
            Place::Within(stream) => matches!(self.places.get(stream), Some(Place::At(_))),
        })
    }
}

/// Takes the three fields of an entry from the front of `data`. One without a width is absent.
fn fields(data: &mut &[u8], widths: [usize; 3]) -> Option<[Option<u64>; 3]> {
    let mut fields = [None; 3];
    for (field, width) in fields.iter_mut().zip(widths) {
        let (bytes, rest) = data.split_at_checked(width)?;
        *data = rest;
        let number = |bytes: &[u8]| {
            bytes.iter().try_fold(0_u64, |sum, byte| Some(sum.checked_mul(256)? + u64::from(*byte)))
        };
        if width > 0 {
            *field = Some(number(bytes)?);
        }
    }
    Some(fields)
}

/// A place in a file.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(self) -> &'a [u8] {
        self.file.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        let blanks = self.rest().iter().take_while(|byte| b" \t\r\n\x0c\0".contains(byte));
        self.at += blanks.count();
    }

    /// Passes a word, after blanks.
    fn word(&mut self, word: &[u8]) -> Option<()> {
        let mut after = *self;
        after.skip_blanks();
        after.rest().starts_with(word).then(|| self.at = after.at + word.len())
    }

    /// Passes a number, after blanks.
    fn number(&mut self) -> Option<usize> {
        self.skip_blanks();
        let length = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = decimal(self.rest().get(..length)?)?;
        self.at += length;
        Some(number)
    }

    /// Passes the start of an object, and gives its number.
    fn object(&mut self) -> Option<u32> {
        let number = u32::try_from(self.number()?).ok()?;
        self.number()?;
        self.word(b"obj")?;
        self.skip_blanks();
        Some(number)
    }
}

/// A number of ten digits at most.
fn decimal(digits: &[u8]) -> Option<usize> {
    let is_number = (1..=10).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    text.parse().ok()
}
