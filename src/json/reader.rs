//! The parser for [`Tree`]. It makes one pass over the text and allows at most [`MAX_DEPTH`] nested values.

use std::borrow::Cow;

use super::tree::Tree;

/// The largest nesting depth, as in `serde_json`. Deeper text could exhaust the stack.
const MAX_DEPTH: usize = 128;

/// Replaces an invalid character.
const NO_CHARACTER: char = '\u{fffd}';

/// The permitted deviation from JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// JSON in which only characters may be damaged.
    Json,
    /// Also accepts Python syntax (`None`, `True`, single quotes, tuples), a trailing comma, comments, and numbers such
    /// as `007` and `.5`.
    Loose,
}

/// Why a text cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The text ends inside its JSON.
    #[error("the text ends before its JSON does")]
    CutOff,
    /// The text is not JSON.
    #[error("the text is no JSON at byte {at}")]
    NotJson {
        /// The byte offset in the text.
        at: usize,
    },
}

/// Decodes `bytes` after a byte order mark, with U+FFFD in place of invalid UTF-8.
pub(super) fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    simdutf8::basic::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Reads the value at the start of `text` and returns the number of bytes read.
///
/// # Errors
///
/// [`Damage`] if the text is truncated or not JSON.
pub fn prefix(text: &str, spelling: Spelling) -> Result<(Tree, usize), Damage> {
    let mut reader = JsonReader::new(text, spelling);
    reader.skip_blanks();
    let tree = reader.value()?;
    Ok((tree, reader.at))
}

/// Reads the string at the start of `text`, including its quotes, and returns the number of bytes read.
///
/// # Errors
///
/// [`Damage`] if there is no string or it does not end.
pub fn string_prefix(text: &str, spelling: Spelling) -> Result<(String, usize), Damage> {
    let mut reader = JsonReader::new(text, spelling);
    let string = reader.string()?;
    Ok((string, reader.at))
}

/// A position in a text.
pub(super) struct JsonReader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    spelling: Spelling,
}

impl<'a> JsonReader<'a> {
    pub(super) const fn new(text: &'a str, spelling: Spelling) -> Self {
        Self { text, at: 0, depth: 0, spelling }
    }

    /// See [`outermost_member`](super::outermost_member).
    pub(super) fn outermost_member(mut self, name: &str) -> Option<Tree> {
        let mut found = None;
        let mut open = Brackets::default();
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    let Ok(string) = self.string() else { return found };
                    self.skip_blanks();
                    if open.0.len() == 1 && string == name && self.accept(b':') {
                        self.skip_blanks();
                        let begin = self.at;
                        match self.value() {
                            Ok(value) => found = Some(value),
                            Err(_) => self.at = begin,
                        }
                    }
                    continue;
                }
                b'{' | b'[' => open.0.push(byte),
                b'}' => open.close(b'{'),
                b']' => open.close(b'['),
                _ => {}
            }
            self.at += 1;
        }
        found
    }

    fn value(&mut self) -> Result<Tree, Damage> {
        match self.peek().ok_or(Damage::CutOff)? {
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::array),
            b'"' => self.string().map(Tree::String),
            b'\'' if self.spelling == Spelling::Loose => self.string().map(Tree::String),
            b'(' if self.spelling == Spelling::Loose => self.nested(Self::tuple),
            _ => self.word(),
        }
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Tree, Damage>,
    ) -> Result<Tree, Damage> {
        if self.depth >= MAX_DEPTH {
            return Err(self.damage());
        }
        self.depth += 1;
        self.at += 1;
        let tree = read(self);
        self.depth -= 1;
        tree
    }

    fn object(&mut self) -> Result<Tree, Damage> {
        let mut members = Vec::new();
        self.elements(b'}', |reader| {
            let name = reader.string()?;
            reader.skip_blanks();
            reader.expect(b':')?;
            reader.skip_blanks();
            members.push((name, reader.value()?));
            Ok(())
        })?;
        Ok(Tree::Object(members))
    }

    fn array(&mut self) -> Result<Tree, Damage> {
        self.items(b']').map(Tree::Array)
    }

    /// Reads a Python tuple as a list. A single value without a comma is a parenthesised value, not a tuple.
    fn tuple(&mut self) -> Result<Tree, Damage> {
        let begin = self.at;
        let mut items = self.items(b')')?;
        let inside = self.text[begin..self.at - 1].trim_end();
        let is_alone = items.len() == 1 && !inside.ends_with(',');
        Ok(if is_alone { items.remove(0) } else { Tree::Array(items) })
    }

    fn items(&mut self, close: u8) -> Result<Vec<Tree>, Damage> {
        let mut items = Vec::new();
        self.elements(close, |reader| {
            items.push(reader.value()?);
            Ok(())
        })?;
        Ok(items)
    }

    /// Reads comma-separated elements up to `close`.
    fn elements(
        &mut self,
        close: u8,
        mut read: impl FnMut(&mut Self) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        self.skip_blanks();
        if self.accept(close) {
            return Ok(());
        }
        loop {
            read(self)?;
            self.skip_blanks();
            if self.accept(close) {
                return Ok(());
            }
            self.expect(b',')?;
            self.skip_blanks();
            if self.spelling == Spelling::Loose && self.accept(close) {
                return Ok(());
            }
        }
    }

    fn string(&mut self) -> Result<String, Damage> {
        let quote = match self.peek().ok_or(Damage::CutOff)? {
            b'\'' if self.spelling == Spelling::Loose => b'\'',
            b'"' => b'"',
            _ => return Err(self.damage()),
        };
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = &self.text[self.at..];
            let end = memchr::memchr2(quote, b'\\', rest.as_bytes()).ok_or(Damage::CutOff)?;
            string.push_str(&rest[..end]);
            self.at += end + 1;
            if rest.as_bytes()[end] == quote {
                return Ok(string);
            }
            self.escape(&mut string)?;
        }
    }

    /// Reads an escape after its backslash. In [`Spelling::Json`], U+FFFD replaces the backslash of an invalid escape.
    fn escape(&mut self, string: &mut String) -> Result<(), Damage> {
        let escaped = match self.peek().ok_or(Damage::CutOff)? {
            b'u' => return self.escaped_unit(string),
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            plain @ (b'"' | b'\\' | b'/') => char::from(plain),
            _ => return self.escape_of_python(string),
        };
        self.at += 1;
        string.push(escaped);
        Ok(())
    }

    fn escape_of_python(&mut self, string: &mut String) -> Result<(), Damage> {
        let rest = &self.text[self.at..];
        if self.spelling == Spelling::Json {
            string.push(NO_CHARACTER);
            return Ok(());
        }
        let (digits, character) = match rest.as_bytes() {
            [b'\'', ..] => (0, Some('\'')),
            [b'x', ..] => (2, hexadecimal(rest, 2).and_then(char::from_u32)),
            [b'U', ..] => (8, hexadecimal(rest, 8).and_then(char::from_u32)),
            // `\q` is two characters in Python and one in JavaScript.
            _ => (0, None),
        };
        string.push(character.ok_or_else(|| self.damage())?);
        self.at += 1 + digits;
        Ok(())
    }

    /// Reads `uXXXX`, and the second half if it is the first of a surrogate pair.
    fn escaped_unit(&mut self, string: &mut String) -> Result<(), Damage> {
        const LENGTH: usize = "uXXXX".len();
        let rest = &self.text[self.at..];
        let Some(unit) = hexadecimal(rest, 4) else {
            if self.spelling == Spelling::Loose {
                return Err(if rest.len() < LENGTH { Damage::CutOff } else { self.damage() });
            }
            string.push(NO_CHARACTER);
            return Ok(());
        };
        self.at += LENGTH;
        let second = rest[LENGTH..].strip_prefix('\\').filter(|second| second.starts_with('u'));
        let low = second.and_then(|second| hexadecimal(second, 4));
        match (unit, low) {
            (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                let code = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                string.push(char::from_u32(code).unwrap_or(NO_CHARACTER));
                self.at += 1 + LENGTH;
            }
            _ => string.push(char::from_u32(unit).unwrap_or(NO_CHARACTER)),
        }
        Ok(())
    }

    /// Reads a number or a word such as `true`.
    fn word(&mut self) -> Result<Tree, Damage> {
        const JSON: [(&str, Tree); 6] = [
            ("null", Tree::Null),
            ("true", Tree::Bool(true)),
            ("false", Tree::Bool(false)),
            ("NaN", Tree::Null),
            ("Infinity", Tree::Null),
            ("-Infinity", Tree::Null),
        ];
        const PYTHON: [(&str, Tree); 3] =
            [("None", Tree::Null), ("True", Tree::Bool(true)), ("False", Tree::Bool(false))];
        let rest = &self.text[self.at..];
        let python = if self.spelling == Spelling::Loose { &PYTHON[..] } else { &[] };
        for (word, tree) in JSON.iter().chain(python) {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(tree.clone());
            }
            if word.starts_with(rest) {
                return Err(Damage::CutOff);
            }
        }
        let length = self.number_length(rest)?;
        self.at += length;
        Ok(Tree::Number(rest[..length].to_owned()))
    }

    fn number_length(&self, rest: &str) -> Result<usize, Damage> {
        let bytes = rest.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let loose = self.spelling == Spelling::Loose;
        let mut at = usize::from(matches!(bytes, [b'-', ..]) || (loose && bytes.starts_with(b"+")));
        let whole = digits(at);
        let is_padded = whole > 1 && bytes[at] == b'0';
        at += whole;
        let mut fraction = 0;
        if bytes.get(at) == Some(&b'.') {
            fraction = digits(at + 1);
            if fraction == 0 && !loose {
                return Err(self.end_or_damage(rest, at + 1));
            }
            at += 1 + fraction;
        }
        let is_plain = whole > 0 && !is_padded;
        if !(is_plain || loose && whole + fraction > 0) {
            return Err(self.end_or_damage(rest, at));
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(at + 1 + sign);
            if exponent == 0 {
                return Err(self.end_or_damage(rest, at + 1 + sign));
            }
            at += 1 + sign + exponent;
        }
        Ok(at)
    }

    /// The error for a `rest` that is invalid at `at`.
    const fn end_or_damage(&self, rest: &str, at: usize) -> Damage {
        if at >= rest.len() { Damage::CutOff } else { Damage::NotJson { at: self.at + at } }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let accepted = self.peek() == Some(byte);
        self.at += usize::from(accepted);
        accepted
    }

    fn expect(&mut self, byte: u8) -> Result<(), Damage> {
        if self.accept(byte) { Ok(()) } else { Err(self.damage()) }
    }

    /// The error at the current position.
    const fn damage(&self) -> Damage {
        if self.at >= self.text.len() { Damage::CutOff } else { Damage::NotJson { at: self.at } }
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let blank = match self.spelling {
                Spelling::Json => rest.trim_start_matches([' ', '\n', '\r', '\t']),
                Spelling::Loose => rest.trim_start(),
            };
            self.at += rest.len() - blank.len();
            let comment = if self.spelling == Spelling::Loose { comment_length(blank) } else { 0 };
            if comment == 0 {
                return;
            }
            self.at += comment;
        }
    }
}

/// The open brackets of a text that may be broken.
#[derive(Default)]
struct Brackets(Vec<u8>);

impl Brackets {
    /// Closes the innermost bracket of a kind and any brackets left open inside it.
    fn close(&mut self, kind: u8) {
        // Only the outermost object matters, so a bracket without a nearby opening bracket is ignored.
        const NEAR: usize = 64;
        let near = self.0.iter().rev().take(NEAR).position(|open| *open == kind);
        if let Some(inside) = near {
            self.0.truncate(self.0.len() - inside - 1);
        }
    }
}

/// Bytes of the comment at the start of `text`.
fn comment_length(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + "*/".len());
    }
    0
}

/// Parses `digits` hexadecimal digits after a letter.
fn hexadecimal(text: &str, digits: usize) -> Option<u32> {
    let digits = text.get(1..=digits)?;
    let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_number.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}
