//! An upload as JSON with Base64: in the form of this service, or in that of another protocol, which finds the file
//! itself ([`JsonBody`], [`Base64Text`]).
//!
//! Base64 is decoded in place, in the buffer of the body, because the decoded bytes are shorter. With a second buffer,
//! the most common form of upload would need the most memory.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::Range;

use bytes::{Buf, Bytes};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::Room;
use super::error::UploadError;
use crate::api::options::misnamed;
use crate::api::options::raw::RawOptions;
use crate::api::problem::Problem;
use crate::code::ErrorCode;
use crate::image::data_url;

/// A body of more bytes is decoded on another thread, because that would block the reactor for too long.
const DECODE_INLINE_BYTES: usize = 128 * 1024;

/// The place of the file.
const DATA: &str = "/document/data";

/// The form of the body.
const EXPECTED: &str = "{\"document\":{\"type\":\"base64\",\"data\":\"…\"}, …options}";

/// The most members of a JSON upload: every option once, the document, and some repeated options.
const MOST_MEMBERS: usize = 64;

/// The body of a JSON upload. It has the member `document` of the form `D`, and every other member is an option.
///
/// The deserialiser is not derived, so that the document's Base64 stays in the body and is not copied into a tree, and
/// so that a repeated option is detected.
pub(in crate::api) struct JsonBody<'a, D> {
    /// The member `document`.
    pub(in crate::api) document: Option<D>,
    /// The other members.
    pub(in crate::api) options: Vec<(Cow<'a, str>, &'a RawValue)>,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonDocument<'a> {
    r#type: JsonDocumentType,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default, rename = "url")]
    _url: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "filename")]
    _filename: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum JsonDocumentType {
    Base64,
    Url,
}

impl<'de, D: Deserialize<'de>> Deserialize<'de> for JsonBody<'de, D> {
    fn deserialize<S: serde::Deserializer<'de>>(deserializer: S) -> Result<Self, S::Error> {
        struct Members<D>(PhantomData<D>);
        impl<'de, D: Deserialize<'de>> serde::de::Visitor<'de> for Members<D> {
            type Value = JsonBody<'de, D>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with a member `document`")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut members: A,
            ) -> Result<Self::Value, A::Error> {
                let mut upload = JsonBody { document: None, options: Vec::new() };
                while let Some(name) = members.next_key::<Cow<'de, str>>()? {
                    if upload.options.len() == MOST_MEMBERS {
                        return Err(serde::de::Error::custom("too many members"));
                    }
                    if name != "document" {
                        upload.options.push((name, members.next_value()?));
                    } else if upload.document.replace(members.next_value()?).is_some() {
                        return Err(serde::de::Error::duplicate_field("document"));
                    }
                }
                Ok(upload)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
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
        let upload: JsonBody<'a, JsonDocument<'a>> = parse(body, EXPECTED)?;
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
pub(in crate::api) fn parse<'a, D: Deserialize<'a>>(
    body: &'a [u8],
    expected: &str,
) -> Result<JsonBody<'a, D>, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        // The parser's message may quote the body; its position does not.
        let place = format!("line {}, column {}", error.line(), error.column());
        let what = if error.is_data() { "has the wrong shape" } else { "is not JSON" };
        let detail = format!("The body {what} at {place}. Expected {expected}.");
        Problem::new(ErrorCode::InvalidJson, detail)
    })
}

/// The raw text of a document, without its quotation marks.
fn text_of(document: Option<JsonDocument<'_>>) -> Result<&str, Problem> {
    let missing = || {
        let detail =
            "There is no document. Send {\"document\":{\"type\":\"base64\",\"data\":\"…\"}}.";
        Problem::new(ErrorCode::MissingFile, detail)
    };
    let document = document.ok_or_else(missing)?;
    if document.r#type == JsonDocumentType::Url {
        let detail = "Documents by URL are switched off here. Send the bytes as Base64.";
        return Err(Problem::new(ErrorCode::InvalidOption, detail).flaw("/document/type", detail));
    }
    let data = document.data.ok_or_else(missing)?;
    raw_text(data).ok_or_else(|| {
        let detail = "The data is no text.";
        Problem::new(ErrorCode::InvalidJson, detail).flaw(DATA, detail)
    })
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
