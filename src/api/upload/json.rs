//! An upload as JSON with Base64: in the form of this service, or in that of another protocol, which finds the file
//! itself ([`JsonBody`], [`Base64Text`]).
//!
//! Base64 is decoded in place, in the buffer of the body, because the decoded bytes are shorter. With a second buffer,
//! the most common form of upload would need the most memory.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Buf, Bytes};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::body::Room;
use super::error::UploadError;
use crate::api::options::misnamed;
use crate::api::options::raw::RawOptions;
use crate::api::problem::{Flaw, Problem};
use crate::code::ErrorCode;
use crate::image::data_url;

/// A body of more bytes is decoded on another thread, because that would block the reactor for too long.
const DECODE_INLINE_BYTES: usize = 128 * 1024;

/// The place of the file.
const DATA: &str = "/document/data";

/// The form of the body.
const EXPECTED: &str = "{\"document\":{\"type\":\"base64\",\"data\":\"…\"}, …options}";

/// The most members of an object: every option once, the document, and some repeated options.
const MOST_MEMBERS: usize = 64;

/// The longest name of a member that is kept, in characters.
const LONGEST_NAME: usize = 256;

/// The longest short text as it is written in JSON, in bytes.
const SHORT_BYTES: usize = 256;

/// The body of a JSON upload. It has the member `document`, an object, and every other member is an option.
#[derive(Debug)]
pub(in crate::api) struct JsonBody<'a> {
    /// The members of `document`.
    pub(in crate::api) document: Option<Members<'a>>,
    /// The other members.
    pub(in crate::api) options: Vec<Member<'a>>,
}

/// The members of a JSON object in the order of the text.
///
/// Names and values stay in the text. A derived deserialiser would copy a string that it does not expect into its
/// error, and such a string may be as long as the body.
#[derive(Debug)]
pub(in crate::api) struct Members<'a>(Vec<Member<'a>>);

/// The name of a member and its value.
type Member<'a> = (Cow<'a, str>, &'a RawValue);

/// A member that an object must not have.
#[derive(Debug)]
pub(in crate::api) struct UnfitMember {
    /// The start of its name.
    pub(in crate::api) name: String,
    /// What is wrong with it, as the predicate of a sentence.
    pub(in crate::api) why: &'static str,
}

/// The raw text of a JSON string that holds a file, without its quotation marks.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Base64Text<'a> {
    /// The text, a part of the body.
    pub(in crate::api) text: &'a str,
    /// Its place in the body, as a JSON Pointer.
    pub(in crate::api) pointer: &'static str,
}

/// Finds the file in a body, and reads what stands beside it.
pub(in crate::api) trait FileFinder: Send + 'static {
    /// What stands beside the file.
    type Beside: Send + 'static;

    /// Finds the file in `body`. `room` is the memory for what is kept of the body.
    fn find<'a>(
        self,
        body: &'a [u8],
        room: &Room,
    ) -> Result<(Base64Text<'a>, Self::Beside), UploadError>;
}

impl<'a> Members<'a> {
    /// The members of the object in `json`; `None` if it is no object.
    pub(in crate::api) fn of(json: &'a RawValue) -> Option<Self> {
        serde_json::from_str(json.get().strip_prefix('{').map(|_| json.get())?).ok()
    }

    /// The values of the members with these names, which are all that the object may have. The value is `None` for a
    /// member that is missing or null.
    ///
    /// # Errors
    ///
    /// [`UnfitMember`] for a member with another name, or one that is given twice.
    pub(in crate::api) fn only<const N: usize>(
        self,
        names: [&str; N],
    ) -> Result<[Option<&'a RawValue>; N], UnfitMember> {
        let mut values = [None; N];
        for (name, value) in self.0 {
            let place = names.iter().position(|known| *known == name);
            let unfit = |why| UnfitMember { name: name.chars().take(32).collect(), why };
            let place = place.ok_or_else(|| unfit("is unknown"))?;
            if values[place].replace(value).is_some() {
                return Err(unfit("is given twice"));
            }
        }
        Ok(values.map(|value| value.filter(|value| value.get() != "null")))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MemberVisitor;
        impl<'de> Visitor<'de> for MemberVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key()? {
                    require_few(members.len())?;
                    members.push((name_of(name), map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MemberVisitor)
    }
}

/// Reads a body from its text.
struct BodyVisitor<'a>(&'a [u8]);

impl<'de> Visitor<'de> for BodyVisitor<'de> {
    type Value = JsonBody<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with a member `document`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self(body) = self;
        let mut upload = JsonBody { document: None, options: Vec::new() };
        while let Some(written) = map.next_key::<&'de RawValue>()? {
            require_few(upload.options.len())?;
            let name = name_of(written);
            if name != "document" {
                upload.options.push((name, map.next_value()?));
                continue;
            }
            // Its members are read at once, because it is too long to be read twice.
            let end = written.get().as_ptr().addr() - body.as_ptr().addr() + written.get().len();
            let value = body[end..].iter().find(|byte| !b": \t\r\n".contains(byte));
            if value != Some(&b'{') {
                return Err(serde::de::Error::custom("the document is no object"));
            }
            if upload.document.replace(map.next_value()?).is_some() {
                return Err(serde::de::Error::duplicate_field("document"));
            }
        }
        Ok(upload)
    }
}

fn require_few<E: serde::de::Error>(members: usize) -> Result<(), E> {
    if members == MOST_MEMBERS {
        return Err(E::custom("too many members"));
    }
    Ok(())
}

/// The name of a member, cut if it is too long to be the name of a known one.
fn name_of(written: &RawValue) -> Cow<'_, str> {
    let name = raw_text(written).unwrap_or_default();
    match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => Cow::Borrowed(&name[..end]),
        None if name.contains('\\') => {
            let plain = serde_json::from_str(written.get());
            plain.map_or(Cow::Borrowed(name), Cow::Owned)
        }
        None => Cow::Borrowed(name),
    }
}

/// The form of this service, with the options that were given before the body.
pub(super) struct DocumentUpload {
    /// The options so far.
    pub(super) options: RawOptions,
}

impl FileFinder for DocumentUpload {
    type Beside = RawOptions;

    fn find<'a>(
        mut self,
        body: &'a [u8],
        room: &Room,
    ) -> Result<(Base64Text<'a>, RawOptions), UploadError> {
        let upload = parse(body, EXPECTED)?;
        for (name, value) in &upload.options {
            if upload.document.is_none() && !RawOptions::knows(name) {
                return Err(undocumented(name).into());
            }
            room.take_for_option(value.get().len())?;
            self.options.add_member(name, value.get())?;
        }
        let text = text_of(upload.document)?;
        Ok((Base64Text { text, pointer: DATA }, self.options))
    }
}

/// Decodes the file in a JSON body in place, so that the body becomes the file. A large one is decoded outside the
/// reactor.
pub(super) async fn decode<F: FileFinder>(
    body: Vec<u8>,
    room: Room,
    finder: F,
) -> Result<(Bytes, F::Beside), UploadError> {
    if body.len() <= DECODE_INLINE_BYTES {
        return decode_now(body, &room, finder);
    }
    let decoding = tokio::task::spawn_blocking(move || decode_now(body, &room, finder));
    decoding.await.map_err(|_panicked| Problem::internal())?
}

fn decode_now<F: FileFinder>(
    mut body: Vec<u8>,
    room: &Room,
    finder: F,
) -> Result<(Bytes, F::Beside), UploadError> {
    let (Base64Text { text, pointer }, beside) = finder.find(&body, room)?;
    let start = text.as_ptr().addr() - body.as_ptr().addr();
    let place = start..start + text.len();
    let file = in_place(&mut body, place, pointer)?;
    let mut body = Bytes::from(body);
    body.truncate(file.end);
    body.advance(file.start);
    Ok((body, beside))
}

/// Parses a body, whose form `expected` describes.
///
/// # Errors
///
/// 400 if it is not JSON, or has another form.
pub(in crate::api) fn parse<'a>(body: &'a [u8], expected: &str) -> Result<JsonBody<'a>, Problem> {
    let mut parser = serde_json::Deserializer::from_slice(body);
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    // The error for a string in place of an object would copy it.
    let parsed = if first == Some(&b'"') {
        Err(serde::de::Error::custom("the body is a text"))
    } else {
        parser.deserialize_map(BodyVisitor(body))
    };
    parsed.and_then(|upload| parser.end().map(|()| upload)).map_err(|error| {
        // The parser's message may quote the body; its position does not.
        let place = format!("line {}, column {}", error.line().max(1), error.column());
        let what = if error.is_data() { "has the wrong shape" } else { "is not JSON" };
        let detail = format!("The body {what} at {place}. Expected {expected}.");
        Problem::new(ErrorCode::InvalidJson, detail)
    })
}

/// The raw text of a document, without its quotation marks.
fn text_of(document: Option<Members<'_>>) -> Result<&str, Problem> {
    let missing = || {
        let detail =
            "There is no document. Send {\"document\":{\"type\":\"base64\",\"data\":\"…\"}}.";
        Problem::new(ErrorCode::MissingFile, detail)
    };
    let members = document.ok_or_else(missing)?.only(["type", "data", "url", "filename"]);
    let [kind, data, _url, _filename] = members.map_err(|UnfitMember { name, why }| {
        let detail = format!("The member `{name}` of document {why}. Expected {EXPECTED}.");
        let Flaw { pointer, .. } = Flaw::of(&name, ErrorCode::InvalidJson, why);
        Problem::new(ErrorCode::InvalidJson, detail).flaw(format!("/document{pointer}"), why)
    })?;
    match kind.and_then(short_text).as_deref() {
        Some("base64") => {}
        Some("url") => {
            let detail = "Documents by URL are switched off here. Send the bytes as Base64.";
            let problem = Problem::new(ErrorCode::InvalidOption, detail);
            return Err(problem.flaw("/document/type", detail));
        }
        _ => {
            let detail = format!("The type of the document must be base64. Expected {EXPECTED}.");
            let problem = Problem::new(ErrorCode::InvalidJson, detail);
            return Err(problem.flaw("/document/type", "must be base64"));
        }
    }
    let data = data.ok_or_else(missing)?;
    raw_text(data).ok_or_else(|| {
        let detail = "The data is no text.";
        Problem::new(ErrorCode::InvalidJson, detail).flaw(DATA, detail)
    })
}

/// A short text; `None` if the value is another one.
pub(in crate::api) fn short_text(value: &RawValue) -> Option<String> {
    let json = value.get();
    (json.len() <= SHORT_BYTES).then(|| serde_json::from_str(json).ok())?
}

/// A JSON string as it is written, without its quotation marks; `None` if the value is none.
pub(in crate::api) fn raw_text(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"')
}

/// Decodes the Base64 in a range of the body as a JSON string, with or without a `data:`
/// prefix, line breaks and padding. Returns the range that then holds the file.
fn in_place(body: &mut [u8], string: Range<usize>, pointer: &str) -> Result<Range<usize>, Problem> {
    let length = unescape(&mut body[string.clone()]).ok_or_else(|| not_base64(pointer))?;
    let text = &body[string.start..string.start + length];
    let skipped = if data_url::is_data_url(text) {
        let head = data_url::head(text).map_err(|error| {
            let detail = format!("The data {error}.");
            Problem::new(ErrorCode::InvalidBase64, detail.clone()).flaw(pointer, detail)
        })?;
        head.length
    } else {
        0
    };
    let (start, end) = (string.start + skipped, string.start + length);
    let decoded = base64_simd::forgiving_decode_inplace(&mut body[start..end]);
    let length = decoded.map_err(|_| not_base64(pointer))?.len();
    Ok(start..start + length)
}

/// The error for an unknown member if the document is missing: most often the document has another name.
fn undocumented(name: &str) -> Problem {
    misnamed(
        "member",
        name,
        "The file goes into the member `document`: \
         {\"document\":{\"type\":\"base64\",\"data\":\"…\"}}",
    )
}

fn not_base64(pointer: &str) -> Problem {
    let detail = "The data is not Base64 in the standard alphabet (A-Z a-z 0-9 + /).";
    Problem::new(ErrorCode::InvalidBase64, detail).flaw(pointer, detail)
}

/// Removes the escapes from a JSON string in place and returns the new length. PHP, for example, writes each slash as
/// `\/`. `None` for a character that is not ASCII, because Base64 has only ASCII.
fn unescape(string: &mut [u8]) -> Option<usize> {
    let Some(first) = memchr::memchr(b'\\', string) else { return Some(string.len()) };
    let (mut from, mut to) = (first, first);
    while let Some(&byte) = string.get(from) {
        let (character, length) = match (byte, string.get(from + 1)) {
            (b'\\', Some(b'u')) => {
                let digits = std::str::from_utf8(string.get(from + 2..from + 6)?).ok()?;
                (u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)?, 6)
            }
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b't')) => (b'\t', 2),
            (b'\\', Some(b'f')) => (0x0c, 2),
            (b'\\', Some(b'b')) => (0x08, 2),
            (b'\\', Some(&escaped)) => (escaped, 2),
            _ => (byte, 1),
        };
        string[to] = character;
        (from, to) = (from + length, to + 1);
    }
    Some(to)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::IntGauge;
    use proptest::prelude::*;

    use super::*;
    use crate::capacity::account::ByteAccount;

    fn file_of(json: &str) -> Result<Bytes, &'static str> {
        file_within(json, u64::MAX)
    }

    /// The file of an upload, with a limit on the memory in bytes.
    fn file_within(json: &str, allowed: u64) -> Result<Bytes, &'static str> {
        let gauge = IntGauge::new("held", "held").unwrap();
        let account = Arc::new(ByteAccount::new(allowed, gauge));
        let length = json.len() as u64;
        let room = Room::new(Some(length), length, Arc::new(account.hold(length).unwrap()));
        let finder = DocumentUpload { options: RawOptions::default() };
        let read = decode_now(json.as_bytes().to_vec(), &room, finder);
        read.map(|(file, _)| file).map_err(|fault| match fault {
            UploadError::Wrong(problem) => problem.code.as_str(),
            UploadError::NoRoom(_) => "overloaded",
        })
    }

    #[test]
    fn base64_is_taken_with_and_without_a_prefix_line_breaks_and_padding() {
        for data in [
            "aGVsbG8=",
            "data:image/png;base64,aGVsbG8=",
            "data:image/png;BASE64,aGVsbG8=",
            r"aGVs\nbG8=",
            "aGVsbG8",
            r"data:image\/png;base64,aGVs\r\nbG8\u003d",
        ] {
            let json = format!(r#"{{"document":{{"type":"base64","data":"{data}"}}}}"#);
            assert_eq!(file_of(&json).unwrap(), "hello", "{data}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_json_upload_has_a_code_of_its_own() {
        let cases = [
            ("{", "invalid_json"),
            ("[]", "invalid_json"),
            ("{}", "missing_file"),
            (r#"{"document":{"type":"base64"}}"#, "missing_file"),
            (r#"{"document":{"type":"base64","data":"a_-b"}}"#, "invalid_base64"),
            (r#"{"document":{"type":"base64","data":"data:image/png,AA"}}"#, "invalid_base64"),
            (r#"{"document":{"type":"base64","data":"data:x,AA;base64,AA"}}"#, "invalid_base64"),
            (
                r#"{"document":{"type":"base64","data":"data:a/b;base64,AAAA,data:a/b;base64,AAAA"}}"#,
                "invalid_base64",
            ),
            (r#"{"document":{"type":"base64","data":"AA==AA=="}}"#, "invalid_base64"),
            (r#"{"document":{"type":"base64","data":"AA\u0000A"}}"#, "invalid_base64"),
            (r#"{"document":{"type":"base64","data":"\u6587AAA"}}"#, "invalid_base64"),
            (r#"{"document":{"type":"base64","data":"\ud83d\ude00"}}"#, "invalid_base64"),
            (r#"{"document":{"type":"base64","data":"\xAAA"}}"#, "invalid_json"),
            (r#"{"document":{"type":"base64","data":17}}"#, "invalid_json"),
            (r#"{"document":{"type":"base64","data":null}}"#, "missing_file"),
            (r#"{"document":{"type":"url","url":"http://x"}}"#, "invalid_option"),
            (r#"{"document":{"type":"base64","data":"AA==","x":1}}"#, "invalid_json"),
            (r#"{"document":{"type":"base64","data":"AA=="},"document":{}}"#, "invalid_json"),
        ];
        for (json, code) in cases {
            assert_eq!(file_of(json), Err(code), "{json}");
        }
    }

    #[test]
    fn a_name_is_the_same_with_and_without_escapes() {
        let json = r#"{"\u0064ocument" : {"t\u0079pe":"\u0062ase64","data":"aGVsbG8="}}"#;
        assert_eq!(file_of(json).unwrap(), "hello");
        let twice = r#"{"document":{"type":"base64","data":"AA==","d\u0061ta":"AA=="}}"#;
        assert_eq!(file_of(twice), Err("invalid_json"));
    }

    #[test]
    fn a_long_text_in_the_wrong_place_is_not_copied() {
        const LENGTH: usize = 1 << 20;
        let gauge = IntGauge::new("held", "held").unwrap();
        let held = Arc::new(ByteAccount::new(u64::MAX, gauge)).hold(0).unwrap();
        let room = Room::new(None, 0, Arc::new(held));
        for text in ["A".repeat(LENGTH), "\\u0041".repeat(LENGTH / 6)] {
            for body in [
                format!(r#""{text}""#),
                format!(r#"{{"document":"{text}"}}"#),
                format!(r#"{{"document":{{"type":"{text}"}}}}"#),
                format!(r#"{{"document":{{"type":"base64","{text}":1}}}}"#),
                format!(r#"{{"{text}":1}}"#),
                format!(r#"{{"document":{{"type":"base64","data":"{text}"}}}}"#),
            ] {
                let allocated = allocation_counter::measure(|| {
                    let finder = DocumentUpload { options: RawOptions::default() };
                    let _ = std::hint::black_box(finder.find(body.as_bytes(), &room));
                });
                assert!(allocated.bytes_max < 64 * 1024, "{allocated:?}: {body:.40}");
            }
        }
    }

    #[test]
    fn members_beside_the_document_are_options() {
        let document = r#""document":{"type":"base64","data":"AA=="}"#;
        let json = |member: &str| format!("{{{member},{document}}}");
        assert!(file_of(&json(r#""max_pixels":5"#)).is_ok());
        assert_eq!(file_of(&json(r#""bogus":[0,0]"#)), Err("unknown_option"));
        assert_eq!(file_of(&json(&vec![r#""pages":1"#; 100].join(","))), Err("invalid_json"));
    }

    #[test]
    fn a_long_option_counts_as_the_tree_that_it_becomes_and_a_short_one_as_nothing() {
        let json = |digits: usize| {
            let metadata = vec!["0"; digits].join(",");
            format!(r#"{{"metadata":[{metadata}],"document":{{"type":"base64","data":"AA=="}}}}"#)
        };
        let (short, long) = (json(100), json(2000));
        assert!(file_within(&short, short.len() as u64).is_ok());
        assert_eq!(file_within(&long, long.len() as u64 + 100_000), Err("overloaded"));
        assert!(file_within(&long, long.len() as u64 + 200_000).is_ok());
    }

    proptest! {
        #[test]
        fn any_file_comes_out_as_it_went_in_however_its_text_is_escaped(
            file in prop::collection::vec(any::<u8>(), 1..400),
            escapes in prop::collection::vec(0..4_u8, 600),
            is_url in any::<bool>(),
        ) {
            let base64 = base64_simd::STANDARD.encode_to_string(&file);
            let text = if is_url { format!("data:image/png;base64,{base64}") } else { base64 };
            let escaped = text.chars().zip(&escapes).map(|(character, escape)| match escape {
                0 => format!("\\u{:04x}", u32::from(character)),
                1 if character == '/' => "\\/".to_owned(),
                _ => character.to_string(),
            });
            let escaped: String = escaped.collect();
            let json = format!(r#"{{"document":{{"data":"{escaped}","type":"base64"}}}}"#);
            prop_assert_eq!(file_of(&json), Ok(file.into()));
        }
    }
}
