//! The position of each value in a JSON document.
//!
//! A request may hold ten megabytes of picture in one string, and must reach the upstream unchanged: order, spacing,
//! spelling of numbers, unknown members. So no tree is built and serialised again. The outline lists the positions of
//! values. They are read in place, and a few spans are replaced.
//!
//! `serde_json` decides whether the text is JSON. It reads strings eight bytes at a time, which for a picture takes
//! longer than all other steps. So long strings without escapes are checked here, and `serde_json` gets the text
//! without their contents. On valid JSON, one pass over the structure finds the start and the end of each value; it
//! skips the contents of strings.
//!
//! Three things that JSON allows are refused:
//!
//! - A member that occurs twice, because the vendor might read the other one.
//! - So many values or levels that the outline would be larger than the text.
//! - Numbers that not every reader can hold.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use serde::de::IgnoredAny;

use crate::json::number::{self, NumberFault};

/// Some clients begin a body with this mark, and so do recorded requests.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The most values of one document. A request of a hundred pages with a large schema has a tenth of that.
const MOST_VALUES: usize = 65_536;

/// The most levels of one document, twice those of a request with tools and schemas.
const MOST_LEVELS: usize = 64;

/// Least length, in bytes, of a string that is checked here instead of by `serde_json`.
const LONG_STRING: usize = 4 * 1024;

/// The most memory that a value takes, in bytes: its entry and its name in the set of names, each while a growing table
/// still holds its old half.
const BYTES_PER_VALUE: usize = 192;

/// The same for each byte of the text. The shortest value is a digit with its comma, without a name.
const BYTES_PER_BYTE: usize = 36;

/// Longest part of a member's name that an error repeats, in characters.
const LONGEST_ECHO: usize = 64;

/// Text that cannot be outlined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutlineError {
    /// The text is not JSON.
    #[error("the body is not JSON at line {line}, column {column}")]
    NotJson {
        /// The line of the fault, from 1.
        line: usize,
        /// The column of the fault, from 1.
        column: usize,
    },
    /// The bytes are not UTF-8.
    #[error("the body is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// A member occurs twice.
    #[error("the member {0:?} is given twice in one object")]
    Duplicate(String),
    /// A member's name cannot be read.
    #[error("the name of a member is no text: it has half a surrogate pair")]
    Name,
    /// The text has too many values.
    #[error("the body has more than {MOST_VALUES} values")]
    TooManyValues,
    /// The text has too many levels.
    #[error("the body is nested more than {MOST_LEVELS} levels deep")]
    TooDeep,
    /// The text has a number that not every reader can hold.
    #[error("{pointer} {fault}")]
    Number {
        /// The number, as a JSON Pointer.
        pointer: String,
        /// The reason.
        fault: NumberFault,
    },
}

/// A document before its outline is made.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    text: &'a str,
    begins_at: usize,
    plain: PlainStrings,
}

/// The outline of one document.
#[derive(Debug)]
pub(super) struct Outline<'a> {
    text: &'a str,
    nodes: Vec<NodeEntry<'a>>,
    plain: PlainStrings,
}

/// One value: its span, its name, and the end of its descendants.
#[derive(Debug)]
struct NodeEntry<'a> {
    span: Range<usize>,
    name: Option<Cow<'a, str>>,
    /// The index after the last value below it.
    next: usize,
}

/// A value of an outline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutlineNode(usize);

impl OutlineNode {
    /// The whole document.
    pub(super) const ROOT: Self = Self(0);
}

impl<'a> Draft<'a> {
    /// The draft of a document.
    ///
    /// # Errors
    ///
    /// [`OutlineError::NotUtf8`].
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, OutlineError> {
        let text = simdutf8::compat::from_utf8(bytes)
            .map_err(|error| OutlineError::NotUtf8(error.valid_up_to()))?;
        let json = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let begins_at = text.len() - json.len();
        Ok(Self { text, begins_at, plain: PlainStrings::of(text, begins_at) })
    }

    /// The most memory, in bytes, that the outline takes, while it is made and afterwards, with a copy of one string
    /// that has escapes.
    pub(super) fn working_bytes(&self) -> u64 {
        let rest = self.text.len() - self.plain.found.iter().map(Range::len).sum::<usize>();
        let outline = (rest - self.plain.escaped).saturating_mul(BYTES_PER_BYTE);
        // Text outside of plain strings is copied: once for `serde_json`, or as a name and in the set of names.
        (2 * rest + outline.min(MOST_VALUES * BYTES_PER_VALUE)) as u64
    }

    /// Outlines the document.
    ///
    /// # Errors
    ///
    /// [`OutlineError`]. It quotes no more of the text than a member's name.
    pub(super) fn outline(self) -> Result<Outline<'a>, OutlineError> {
        let Self { text, begins_at, plain } = self;
        if !plain.is_json(text, begins_at) {
            // Only the whole text gives the right line and column.
            serde_json::from_str::<IgnoredAny>(&text[begins_at..]).map_err(|error| {
                OutlineError::NotJson { line: error.line(), column: error.column() }
            })?;
        }
        let mut outliner = Outliner {
            text,
            at: begins_at,
            nodes: Vec::new(),
            open: Vec::new(),
            names: HashSet::new(),
            name: None,
            plain: &plain,
        };
        outliner.run()?;
        let nodes = outliner.nodes;
        Ok(Outline { text, nodes, plain })
    }
}

impl<'a> Outline<'a> {
    /// Outlines a document.
    #[cfg(test)]
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, OutlineError> {
        Draft::of(bytes)?.outline()
    }

    /// Length of the document in bytes.
    pub(super) const fn length(&self) -> usize {
        self.text.len()
    }

    /// The text of a span.
    pub(super) fn text(&self, between: Range<usize>) -> &'a str {
        &self.text[between]
    }

    /// The text of the value.
    pub(super) fn json(&self, node: OutlineNode) -> &'a str {
        &self.text[self.span(node)]
    }

    /// The span of the value, in bytes.
    pub(super) fn span(&self, node: OutlineNode) -> Range<usize> {
        self.nodes[node.0].span.clone()
    }

    /// Whether the value is an object.
    pub(super) fn is_object(&self, node: OutlineNode) -> bool {
        self.json(node).starts_with('{')
    }

    /// Whether the value is an array.
    pub(super) fn is_array(&self, node: OutlineNode) -> bool {
        self.json(node).starts_with('[')
    }

    /// Whether the value is a text.
    pub(super) fn is_text(&self, node: OutlineNode) -> bool {
        self.json(node).starts_with('"')
    }

    /// Whether the value is `null`.
    pub(super) fn is_null(&self, node: OutlineNode) -> bool {
        self.json(node) == "null"
    }

    /// The values of an array or of an object's members; none for other values.
    pub(super) fn elements(&self, node: OutlineNode) -> impl Iterator<Item = OutlineNode> {
        let end = self.nodes[node.0].next;
        let mut next = node.0 + 1;
        std::iter::from_fn(move || {
            let element = (next < end).then_some(OutlineNode(next))?;
            next = self.nodes[next].next;
            Some(element)
        })
    }

    /// The values below this one, at all depths.
    pub(super) fn descendants(
        &self,
        node: OutlineNode,
    ) -> impl Iterator<Item = OutlineNode> + use<> {
        (node.0 + 1..self.nodes[node.0].next).map(OutlineNode)
    }

    /// The name of a member.
    pub(super) fn name(&self, node: OutlineNode) -> Option<&str> {
        self.nodes[node.0].name.as_deref()
    }

    /// The value of an object's member.
    pub(super) fn member(&self, node: OutlineNode, name: &str) -> Option<OutlineNode> {
        self.elements(node).find(|&member| self.name(member) == Some(name))
    }

    /// The content of a string; none if the value is not a string, or has half a surrogate pair.
    pub(super) fn string(&self, node: OutlineNode) -> Option<Cow<'a, str>> {
        let (json, start) = (self.json(node), self.span(node).start);
        match self.plain.end_of(start) {
            Some(end) => Some(Cow::Borrowed(&self.text[start + 1..end - 1])),
            None => unquoted(json),
        }
    }
}

/// Byte ranges, quotes included, of the long strings without escapes. The bytes between the quotes are the content, so
/// it can be borrowed. Valid only if the whole text is JSON.
#[derive(Debug)]
struct PlainStrings {
    found: Vec<Range<usize>>,
    /// Bytes of the long strings with escapes.
    escaped: usize,
}

impl PlainStrings {
    fn of(text: &str, begins_at: usize) -> Self {
        let bytes = text.as_bytes();
        let (mut found, mut escaped, mut at) = (Vec::new(), 0, begins_at);
        while let Some(quote) = memchr::memchr(b'"', &bytes[at..]) {
            let start = at + quote;
            let stop = memchr::memchr2(b'"', b'\\', &bytes[start + 1..]);
            let Some(stop) = stop.map(|stop| start + 1 + stop) else { break };
            if bytes[stop] == b'\\' {
                at = string_end(bytes, start);
                if at - start >= LONG_STRING {
                    escaped += at - start;
                }
                continue;
            }
            at = stop + 1;
            if at - start >= LONG_STRING && has_no_control(&bytes[start + 1..stop]) {
                found.push(start..at);
            }
        }
        Self { found, escaped }
    }

    /// Whether the text is JSON. By the rules of JSON, the contents of these strings make no difference, so
    /// `serde_json` gets the text without them.
    fn is_json(&self, text: &str, begins_at: usize) -> bool {
        let (mut rest, mut at) = (String::new(), begins_at);
        for Range { start, end } in &self.found {
            rest.push_str(&text[at..=*start]);
            at = end - 1;
        }
        if self.found.is_empty() {
            return serde_json::from_str::<IgnoredAny>(&text[begins_at..]).is_ok();
        }
        rest.push_str(&text[at..]);
        serde_json::from_str::<IgnoredAny>(&rest).is_ok()
    }

    /// The end of the string that begins at `start`.
    fn end_of(&self, start: usize) -> Option<usize> {
        let found = self.found.binary_search_by_key(&start, |string| string.start);
        found.ok().map(|index| self.found[index].end)
    }
}

/// Whether no byte is a control character, which JSON forbids in a string. Within a chunk the loop does not return
/// early, so that the compiler vectorises it.
fn has_no_control(bytes: &[u8]) -> bool {
    let least = |piece: &[u8]| piece.iter().fold(u8::MAX, |least, byte| least.min(*byte));
    bytes.chunks(LONG_STRING).all(|piece| least(piece) >= b' ')
}

/// The index after the string that begins at `start`; the end of the text if the string does not end.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

/// The content of a string.
fn unquoted(json: &str) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inside));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// Makes the outline of a text that is valid JSON.
struct Outliner<'a, 'p> {
    text: &'a str,
    at: usize,
    nodes: Vec<NodeEntry<'a>>,
    /// The arrays and objects that are still open.
    open: Vec<usize>,
    /// The names of the members of every object so far.
    names: HashSet<(usize, Cow<'a, str>)>,
    /// The name whose value comes next.
    name: Option<Cow<'a, str>>,
    plain: &'p PlainStrings,
}

impl Outliner<'_, '_> {
    fn run(&mut self) -> Result<(), OutlineError> {
        while let Some(&byte) = self.text.as_bytes().get(self.at) {
            match byte {
                b'{' | b'[' => {
                    let node = self.begin()?;
                    self.open.push(node);
                    if self.open.len() > MOST_LEVELS {
                        return Err(OutlineError::TooDeep);
                    }
                    self.at += 1;
                }
                b'}' | b']' => {
                    self.at += 1;
                    if let Some(node) = self.open.pop() {
                        self.end(node);
                    }
                }
                b'"' => self.string()?,
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                _ => {
                    let node = self.begin()?;
                    let rest = &self.text.as_bytes()[self.at..];
                    let ends = |byte: &u8| b",]} \t\n\r".contains(byte);
                    self.at += rest.iter().position(ends).unwrap_or(rest.len());
                    self.end(node);
                    self.check_number(node)?;
                }
            }
        }
        Ok(())
    }

    /// Refuses a number that not every reader can hold. `null`, `true` and `false` are not numbers.
    fn check_number(&self, node: usize) -> Result<(), OutlineError> {
        let word = &self.text[self.nodes[node].span.clone()];
        if word.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Ok(());
        }
        number::check(word)
            .map_err(|fault| OutlineError::Number { pointer: self.pointer(node), fault })
    }

    /// The JSON Pointer of the value that began last.
    fn pointer(&self, node: usize) -> String {
        let below = self.open.iter().skip(1).copied().chain([node]);
        let parents = self.open.iter().copied();
        let steps = parents.zip(below).map(|(parent, value)| match &self.nodes[value].name {
            Some(name) => format!("/{}", name.chars().take(LONGEST_ECHO).collect::<String>()),
            None => format!("/{}", self.siblings_before(parent, value)),
        });
        steps.collect()
    }

    /// The number of elements of the array `parent` before `value`.
    fn siblings_before(&self, parent: usize, value: usize) -> usize {
        let next = |&sibling: &usize| Some(self.nodes[sibling].next);
        std::iter::successors(Some(parent + 1), next).take_while(|&sibling| sibling < value).count()
    }

    /// Reads a string. It is the name of a member if the innermost open value is an object and no name is waiting for
    /// its value.
    fn string(&mut self) -> Result<(), OutlineError> {
        let object = self.open.last().copied().filter(|&node| {
            self.name.is_none() && self.text.as_bytes()[self.nodes[node].span.start] == b'{'
        });
        let Some(object) = object else {
            let node = self.begin()?;
            self.skip_string();
            self.end(node);
            return Ok(());
        };
        let start = self.at;
        self.skip_string();
        let name = unquoted(&self.text[start..self.at]).ok_or(OutlineError::Name)?;
        if !self.names.insert((object, name.clone())) {
            return Err(OutlineError::Duplicate(name.chars().take(LONGEST_ECHO).collect()));
        }
        self.name = Some(name);
        Ok(())
    }

    fn skip_string(&mut self) {
        let plain = self.plain.end_of(self.at);
        self.at = plain.unwrap_or_else(|| string_end(self.text.as_bytes(), self.at));
    }

    fn begin(&mut self) -> Result<usize, OutlineError> {
        let node = self.nodes.len();
        if node == MOST_VALUES {
            return Err(OutlineError::TooManyValues);
        }
        let (span, name) = (self.at..self.at, self.name.take());
        self.nodes.push(NodeEntry { span, name, next: node + 1 });
        Ok(node)
    }

    fn end(&mut self, node: usize) {
        let next = self.nodes.len();
        let entry = &mut self.nodes[node];
        (entry.span.end, entry.next) = (self.at, next);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn refused(text: &str) -> OutlineError {
        Outline::of(text.as_bytes()).unwrap_err()
    }

    /// Rebuilds the value from the outline alone.
    fn rebuilt(outline: &Outline<'_>, node: OutlineNode) -> Value {
        if outline.is_object(node) {
            let members = outline.elements(node);
            let member = |at| (outline.name(at).unwrap().to_owned(), rebuilt(outline, at));
            return Value::Object(members.map(member).collect());
        }
        if outline.is_array(node) {
            return outline.elements(node).map(|at| rebuilt(outline, at)).collect();
        }
        serde_json::from_str(outline.json(node)).unwrap()
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            Just(Value::from("\\\"]},:\u{1f600}")),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_outline_holds_the_whole_document(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { format!("\u{feff}{value:#}") } else { value.to_string() };
            let outline = Outline::of(text.as_bytes()).unwrap();
            prop_assert_eq!(rebuilt(&outline, OutlineNode::ROOT), value);
        }

        #[test]
        fn only_json_is_outlined_and_nothing_panics(text in r#"[\[\]{}:,"\\a1 ]{0,40}"#) {
            let outlined = Outline::of(text.as_bytes());
            match serde_json::from_str::<IgnoredAny>(&text) {
                Ok(_) => prop_assert!(matches!(outlined, Ok(_) | Err(OutlineError::Duplicate(_)))),
                Err(_) => prop_assert!(outlined.is_err()),
            }
        }
    }

    #[test]
    fn a_long_string_is_judged_as_a_short_one_would_be() {
        let (long, mut taken) = ("x".repeat(LONG_STRING), 0);
        for within in
            ["", "\\n", "\\", "\"", "\\\"", "\\\\", "\u{1}", "\n", "\u{7f}", "\u{e9}", "\",\""]
        {
            let forms = [r#"{"a":"?"}"#, r#"["?","?",1]"#, r#"{"?":"?"}"#, r#""?""?""#, r#"["?]"#];
            for (form, string) in forms.iter().flat_map(|form| {
                [
                    format!("{within}{long}"),
                    format!("{long}{within}{long}"),
                    format!("{long}{within}"),
                ]
                .map(|string| (form, string))
            }) {
                let text = form.replace('?', &string);
                let expected = serde_json::from_str::<Value>(&text);
                match (Outline::of(text.as_bytes()), expected) {
                    (Ok(outline), Ok(value)) => {
                        assert_eq!(
                            rebuilt(&outline, OutlineNode::ROOT),
                            value,
                            "{form} {within:?}"
                        );
                        taken += 1;
                    }
                    (Err(OutlineError::NotJson { line, column }), Err(_)) => {
                        let error = serde_json::from_str::<IgnoredAny>(&text).unwrap_err();
                        assert_eq!((line, column), (error.line(), error.column()));
                    }
                    (outlined, _) => panic!("{form} {within:?}: {}", outlined.is_ok()),
                }
            }
        }
        assert!(taken > 50, "{taken}");
    }

    #[test]
    fn a_long_string_is_read_where_it_stands() {
        let text = format!(r#"["short","{}"]"#, "x".repeat(LONG_STRING));
        let outline = Outline::of(text.as_bytes()).unwrap();
        for string in outline.elements(OutlineNode::ROOT) {
            assert!(matches!(outline.string(string), Some(Cow::Borrowed(_))));
        }
    }

    #[test]
    fn a_number_keeps_its_digits() {
        let text = r#"{"a": 123456789012345678901234567890, "b": 1e0300, "c": -0.0 }"#;
        let outline = Outline::of(text.as_bytes()).unwrap();
        let json = |name| outline.json(outline.member(OutlineNode::ROOT, name).unwrap());
        assert_eq!(json("a"), "123456789012345678901234567890");
        assert_eq!([json("b"), json("c")], ["1e0300", "-0.0"]);
    }

    #[test]
    fn a_number_that_not_every_reader_can_hold_is_refused_with_its_place() {
        let long = "7".repeat(4_301);
        for (text, place) in [
            (format!(r#"{{"seed":{long}}}"#), "/seed"),
            (format!(r#"{{"a":[[],{{"x":[1,[2]],"y":0.{long}}}]}}"#), "/a/1/y"),
            (r#"[{"a":{}},"b",[3,1e999]]"#.to_owned(), "/2/1"),
            ("1e999".to_owned(), ""),
        ] {
            let OutlineError::Number { pointer, .. } = refused(&text) else { panic!("{text}") };
            assert_eq!(pointer, place);
        }
    }

    #[test]
    fn a_member_that_is_there_twice_is_refused_however_it_is_spelt() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"[{"b":{"a":[],"a":{}}}]"#] {
            assert_eq!(refused(text), OutlineError::Duplicate("a".to_owned()), "{text}");
        }
        assert!(Outline::of(br#"[{"a":1},{"a":2,"b":{"a":3}}]"#).is_ok());
    }

    #[test]
    fn half_a_surrogate_is_passed_in_a_text_and_refused_in_a_name() {
        let outline = Outline::of(br#"["\ud800"]"#).unwrap();
        let text = outline.elements(OutlineNode::ROOT).next().unwrap();
        assert_eq!((outline.json(text), outline.string(text)), (r#""\ud800""#, None));
        assert_eq!(refused(r#"{"\ud800":1}"#), OutlineError::Name);
    }

    #[test]
    fn what_would_take_more_memory_than_its_text_is_refused() {
        assert_eq!(refused(&format!("[{}0]", "0,".repeat(70_000))), OutlineError::TooManyValues);
        assert_eq!(
            refused(&format!("{}{}", "[".repeat(65), "]".repeat(65))),
            OutlineError::TooDeep
        );
        assert!(Outline::of(format!("{}{}", "[".repeat(64), "]".repeat(64)).as_bytes()).is_ok());
    }

    #[test]
    fn what_an_outline_takes_is_told_before_it_is_made() {
        let working = |text: &str| Draft::of(text.as_bytes()).unwrap().working_bytes();
        let long = "x".repeat(1 << 20);
        assert!(working(&format!(r#"{{"a":"{long}"}}"#)) < 1_000, "it is read where it stands");
        let escaped = working(&format!(r#"{{"a":"\/{long}"}}"#));
        assert!((2 << 20..3 << 20).contains(&escaped), "{escaped}");
        let entry = size_of::<NodeEntry<'_>>();
        assert!(working(&format!("[{}0]", "0,".repeat(999))) >= 1_000 * 3 * entry as u64 / 2);
        let most = working(&format!("[{}0]", "0,".repeat(1_000_000)));
        assert_eq!(most, 2 * 2_000_003 + (MOST_VALUES * BYTES_PER_VALUE) as u64);
    }

    #[test]
    fn an_error_says_where() {
        assert_eq!(refused("{\n  x}"), OutlineError::NotJson { line: 2, column: 3 });
        assert_eq!(Outline::of(b"\"a\xff\"").unwrap_err(), OutlineError::NotUtf8(2));
    }
}
