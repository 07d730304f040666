//! An upload as JSON with Base64.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::options::raw::RawOptions;
use crate::api::problem::Problem;

/// Decoding more than this many bytes takes longer than the reactor may be held.
const DECODE_INLINE_BYTES: usize = 128 * 1024;

/// Members of a JSON upload at most: every option once and the document, with room for repeats.
const MOST_MEMBERS: usize = 64;

/// The body of a JSON upload: the document, and every other member an option.
///
/// Read by hand instead of derived, so that the document's Base64 is borrowed from the body instead of
/// becoming part of a tree, and an option given twice is noticed.
struct JsonUpload<'a> {
    document: Option<JsonDocument<'a>>,
    options: Vec<(Cow<'a, str>, &'a RawValue)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonDocument<'a> {
    r#type: JsonDocumentType,
    #[serde(borrow, default)]
    data: Option<Cow<'a, str>>,
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

impl<'de> Deserialize<'de> for JsonUpload<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = JsonUpload<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with a member `document`")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut members: A,
            ) -> Result<Self::Value, A::Error> {
                let mut upload = JsonUpload { document: None, options: Vec::new() };
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
        deserializer.deserialize_map(Members)
    }
}

/// Decodes a JSON upload, away from the reactor where it is large.
pub(super) async fn read_json(body: Bytes, options: &mut RawOptions) -> Result<Bytes, Problem> {
    if body.len() <= DECODE_INLINE_BYTES {
        return decode_json(&body, options);
    }
    let mut given = std::mem::take(options);
    let decoding = tokio::task::spawn_blocking(move || {
        let file = decode_json(&body, &mut given)?;
        Ok::<_, Problem>((file, given))
    });
    let (file, given) = decoding.await.map_err(|_panicked| Problem::internal())??;
    *options = given;
    Ok(file)
}

fn decode_json(body: &[u8], options: &mut RawOptions) -> Result<Bytes, Problem> {
    let upload: JsonUpload<'_> = serde_json::from_slice(body).map_err(|error| {
        // The parser's message may quote the body; its position does not.
        let place = format!("line {}, column {}", error.line(), error.column());
        let what = if error.is_data() { "has the wrong shape" } else { "is not JSON" };
        let detail = format!(
            "The body {what} at {place}. Expected \
             {{\"document\":{{\"type\":\"base64\",\"data\":\"…\"}}, …options}}."
        );
        Problem::bad_request("invalid_json", detail)
    })?;
    let missing = || {
        let detail =
            "There is no document. Send {\"document\":{\"type\":\"base64\",\"data\":\"…\"}}.";
        Problem::bad_request("missing_file", detail)
    };
    let document = upload.document.ok_or_else(missing)?;
    if document.r#type == JsonDocumentType::Url {
        let detail = "Documents by URL are switched off here. Send the bytes as Base64.";
        return Err(Problem::bad_request("invalid_option", detail).flaw("/document/type", detail));
    }
    let data = document.data.ok_or_else(missing)?;
    for (name, value) in upload.options {
        options.add_member(&name, value.get())?;
    }
    decode_base64(&data)
}

/// Decodes Base64 with or without a `data:` prefix, line breaks and padding.
fn decode_base64(data: &str) -> Result<Bytes, Problem> {
    let encoded = match data.strip_prefix("data:") {
        None => data,
        Some(url) => url.split_once(";base64,").map(|(_, encoded)| encoded).ok_or_else(|| {
            let detail = "The data URL does not say `;base64,`.";
            Problem::bad_request("invalid_base64", detail).flaw("/document/data", detail)
        })?,
    };
    let decoded = base64_simd::forgiving_decode_to_vec(encoded.as_bytes());
    decoded.map(Bytes::from).map_err(|_| {
        let detail = "The data is not Base64 in the standard alphabet (A-Z a-z 0-9 + /).";
        Problem::bad_request("invalid_base64", detail).flaw("/document/data", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(json: &str) -> Result<Bytes, &'static str> {
        decode_json(json.as_bytes(), &mut RawOptions::default()).map_err(|problem| problem.code)
    }

    #[test]
    fn base64_is_taken_with_and_without_a_prefix_line_breaks_and_padding() {
        for data in ["aGVsbG8=", "data:image/png;base64,aGVsbG8=", r"aGVs\nbG8=", "aGVsbG8"] {
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
}
