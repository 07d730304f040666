//! JSON that somebody else wrote: read leniently, and kept as it was written.
//!
//! The upstream's answers carry what a model wrote, and a model writes anything: one half of a surrogate
//! pair, bytes that are no UTF-8, `NaN`, a number of twenty digits. `serde_json` refuses the first three
//! and rounds the last. Here a damaged character becomes U+FFFD, as in every lossy decoder, and the rest
//! of the text is delivered. Numbers keep their digits, and members keep their order and their repetitions,
//! so that the reader of the tree decides what they mean. Text that is JSON always reads as what it says.
//!
//! Two spellings are read. An answer of the upstream was printed by a program, so only its characters may
//! be damaged ([`read`]). An object that a model wrote itself may be spelt as Python prints it ([`Spelling::Loose`]).
//! Nothing else is repaired: a missing bracket or comma could stand in several places.

pub mod number;
mod reader;
mod tree;

use self::reader::Reader;
pub use self::reader::{Damage, Spelling, prefix, string_prefix};
pub use self::tree::Tree;

/// Reads a text that is one JSON value. A byte order mark before it and bytes after it that begin no
/// other object mean nothing.
///
/// # Errors
///
/// [`Damage`] where the text is cut off or no JSON.
pub fn read(bytes: &[u8]) -> Result<Tree, Damage> {
    let text = reader::text_of(bytes);
    let (tree, length) = prefix(&text, Spelling::Json)?;
    match text[length..].find(['{', '[']) {
        None => Ok(tree),
        Some(at) => Err(Damage::NotJson { at: length + at }),
    }
}

/// The last value of the member `name` of the outermost object, in a text that may be cut off or broken
/// elsewhere.
///
/// Strings are skipped as strings, so their content is never taken for a member.
pub fn outermost_member(bytes: &[u8], name: &str) -> Option<Tree> {
    let text = reader::text_of(bytes);
    Reader::new(&text, Spelling::Json).outermost_member(name)
}

/// The values that a JSON text holds, at all levels and itself included, counted without a tree of them. Of a
/// text that is not JSON the number means nothing.
pub fn count_values(text: &str) -> u64 {
    let mut bytes = text.bytes();
    let mut count = 1;
    let mut is_opened = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            b']' | b'}' => {}
            b',' => count += 1,
            // The first value of a list or an object.
            _ if is_opened => count += 1,
            _ => {}
        }
        if byte == b'"' {
            skip_string(&mut bytes);
        }
        is_opened = matches!(byte, b'[' | b'{');
    }
    count
}

/// Skips the rest of a string, whose first quote was read.
fn skip_string(bytes: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
