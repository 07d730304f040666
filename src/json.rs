//! A lenient reader for JSON from other programs. It keeps values as they were written.
//!
//! The upstream's answers contain model output, which may hold a lone surrogate, invalid UTF-8, `NaN` or a number of
//! twenty digits. `serde_json` rejects the first three and rounds the last. This reader replaces an invalid character
//! with U+FFFD, as lossy decoders do, and keeps the rest of the text. Numbers keep their digits. Members keep their
//! order and their duplicates, so the caller can decide how to handle duplicates. Valid JSON is always read with its
//! standard meaning.
//!
//! There are two modes. The upstream's answer is serialised by a program, so only its characters may be damaged
//! ([`read`]). An object written by the model itself may use Python syntax ([`Spelling::Loose`]). Other errors are not
//! repaired, because a missing bracket or comma could belong in several places.

pub mod number;
mod reader;
mod tree;

use self::reader::JsonReader;
pub use self::reader::{Damage, Spelling, prefix, string_prefix};
pub use self::tree::Tree;

/// Reads a text that is one JSON value. Ignores a byte order mark before it, and bytes after it that do not start
/// another object or list.
///
/// # Errors
///
/// [`Damage`] if the text is truncated or not JSON.
pub fn read(bytes: &[u8]) -> Result<Tree, Damage> {
    let text = reader::text_of(bytes);
    let (tree, length) = prefix(&text, Spelling::Json)?;
    match text[length..].find(['{', '[']) {
        None => Ok(tree),
        Some(at) => Err(Damage::NotJson { at: length + at }),
    }
}

/// Returns the last value of the member `name` of the outermost object. The rest of the text may be truncated or
/// broken.
///
/// Strings are skipped as a whole, so their content is never mistaken for a member.
pub fn outermost_member(bytes: &[u8], name: &str) -> Option<Tree> {
    let text = reader::text_of(bytes);
    JsonReader::new(&text, Spelling::Json).outermost_member(name)
}

/// Counts the values of a JSON text at all levels, including the root, without building a tree. The result is
/// meaningless for a text that is not JSON.
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

/// Skips the rest of a string after its opening quote.
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
