//! The request: a document as a data URL, and how to read it.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;

use crate::api::options::raw::OPTION_BYTES;
use crate::api::problem::{Flaw, Problem};
use crate::api::upload::body::Room;
use crate::api::upload::error::UploadError;
use crate::api::upload::json::{self, Base64Text, FileFinder, JsonBody, Members, UnfitMember};
use crate::capacity::scratch::Scratch;
use crate::code::ErrorCode;
use crate::document::range::PageRange;
use crate::extract::schema::{Schema, WORKING_BYTES};
use crate::image::data_url;

/// The form of the body.
const EXPECTED: &str = "{\"model\":\"…\",\"document\":{\"type\":\"document_url\",\
                        \"document_url\":\"data:application/pdf;base64,…\"}}";

/// The place of the schema of a document's annotation.
const SCHEMA: &str = "/document_annotation_format/json_schema/schema";

/// The members that the body may have beside the document.
const MEMBERS: [&str; 14] = [
    "bbox_annotation_format",
    "confidence_scores_granularity",
    "document_annotation_format",
    "document_annotation_prompt",
    "extract_footer",
    "extract_header",
    "id",
    "image_limit",
    "image_min_size",
    "include_blocks",
    "include_image_base64",
    "model",
    "pages",
    "table_format",
];

/// What a request wants, beside its document.
#[derive(Debug, Default)]
pub(in crate::api) struct MistralRequest {
    /// The name of the model; the default model if none.
    pub(in crate::api) model: Option<String>,
    /// The pages; all if none.
    pub(in crate::api) pages: Option<PageRange>,
    /// The JSON of a schema whose fields are wanted of the whole document.
    annotation: Option<String>,
    /// Whether repeated headers are wanted apart from the text.
    pub(in crate::api) extract_header: bool,
    /// Whether repeated footers are wanted apart from the text.
    pub(in crate::api) extract_footer: bool,
}

impl MistralRequest {
    /// Reads the schema whose fields are wanted of the whole document, outside the reactor.
    ///
    /// # Errors
    ///
    /// 400 if it is no schema that is supported.
    pub(in crate::api) async fn read_schema(
        &mut self,
        scratch: &Scratch,
    ) -> Result<Option<Arc<Schema>>, Problem> {
        let Some(json) = self.annotation.take() else { return Ok(None) };
        let memory = scratch.take(WORKING_BYTES).await;
        let reading = tokio::task::spawn_blocking(move || {
            let schema = Schema::from_json(&json);
            // The thread continues if the caller leaves.
            drop(memory);
            schema
        });
        let schema = reading.await.map_err(|_panicked| Problem::internal())?;
        schema.map(|schema| Some(Arc::new(schema))).map_err(|error| {
            let pointer = format!("{SCHEMA}{}", error.pointer());
            let detail = format!("{pointer}: {error}.");
            Problem::new(error.code(), detail).flaw(pointer, error.to_string())
        })
    }
}

/// Finds the document in the body of a request.
#[derive(Debug)]
pub(in crate::api) struct MistralBody;

impl FileFinder for MistralBody {
    type Beside = MistralRequest;

    fn find<'a>(
        self,
        body: &'a [u8],
        room: &Room,
    ) -> Result<(Base64Text<'a>, MistralRequest), UploadError> {
        let JsonBody { document, options } = json::parse(body, EXPECTED)?;
        let mut reader = MemberReader::default();
        for (name, value) in &options {
            room.take_for_option(value.get().len())?;
            reader.read(name, value);
        }
        let Some(document) = document else {
            let detail = format!("There is no document. Send {EXPECTED}.");
            return Err(Problem::new(ErrorCode::MissingFile, detail).into());
        };
        let text = text_of(document);
        let text = text.map_err(|flaw| reader.flaws.insert(0, flaw)).ok();
        match (Problem::of_flaws(reader.flaws), text) {
            (None, Some(text)) => Ok((text, reader.request)),
            (problem, _) => Err(problem.unwrap_or_else(Problem::internal).into()),
        }
    }
}

/// The data URL in a document.
fn text_of(document: Members<'_>) -> Result<Base64Text<'_>, Flaw> {
    let names = ["type", "document_url", "image_url", "file_id", "document_name"];
    let [kind, document_url, image_url, file_id, _name] = only(document, names, "/document")?;
    let written = kind;
    let kind = kind.and_then(json::short_text);
    if kind.as_deref() == Some("file") || file_id.is_some() {
        return Err(invalid(
            "/document/file_id",
            "names a file, and no files are kept here: send the document itself, as a data URL",
        ));
    }
    if !matches!(kind.as_deref(), Some("document_url" | "image_url")) && written.is_some() {
        let shown: String = written.map_or("", RawValue::get).chars().take(32).collect();
        let why = format!("is {shown}; it must be document_url or image_url");
        return Err(invalid("/document/type", &why));
    }
    match (document_url, image_url) {
        (Some(url), None) if kind.as_deref() != Some("image_url") => {
            of_url(url, "/document/document_url")
        }
        (None, Some(url)) if kind.as_deref() != Some("document_url") => match Members::of(url) {
            Some(object) => {
                let [url, _detail] = only(object, ["url", "detail"], "/document/image_url")?;
                let missing = || invalid("/document/image_url/url", "is missing");
                of_url(url.ok_or_else(missing)?, "/document/image_url/url")
            }
            None => of_url(url, "/document/image_url"),
        },
        _ => Err(invalid(
            "/document",
            "must have a type, document_url or image_url, and exactly the member of that name",
        )),
    }
}

/// The values of the only members that the object at `pointer` may have.
fn only<'a, const N: usize>(
    object: Members<'a>,
    names: [&str; N],
    pointer: &str,
) -> Result<[Option<&'a RawValue>; N], Flaw> {
    object.only(names).map_err(|UnfitMember { name, why }| {
        let why = format!("{why}. Members: {}", names.join(", "));
        let flaw = Flaw::of(&name, ErrorCode::UnknownOption, why);
        Flaw { pointer: format!("{pointer}{}", flaw.pointer), ..flaw }
    })
}

fn of_url<'a>(url: &'a RawValue, pointer: &'static str) -> Result<Base64Text<'a>, Flaw> {
    let text = json::raw_text(url).filter(|text| data_url::is_data_url(text.as_bytes()));
    let text = text.ok_or_else(|| {
        invalid(
            pointer,
            "must be a data URL, such as data:application/pdf;base64,…: nothing is fetched from other addresses here",
        )
    })?;
    Ok(Base64Text { text, pointer })
}

/// Reads one member after the other.
#[derive(Debug, Default)]
struct MemberReader {
    request: MistralRequest,
    seen: Vec<String>,
    flaws: Vec<Flaw>,
}

impl MemberReader {
    fn read(&mut self, name: &str, value: &RawValue) {
        if let Err(flaw) = self.try_read(name, value.get()) {
            self.flaws.push(flaw);
        }
    }

    fn try_read(&mut self, name: &str, json: &str) -> Result<(), Flaw> {
        let Some(name) = MEMBERS.into_iter().find(|member| *member == name) else {
            let shown: String = name.chars().take(32).collect();
            let why = format!("is unknown. Members: document, {}", MEMBERS.join(", "));
            return Err(Flaw::of(&shown, ErrorCode::UnknownOption, why));
        };
        if self.seen.iter().any(|seen| seen == name) {
            return Err(wrong(name, "is given twice"));
        }
        self.seen.push(name.to_owned());
        if json.len() > OPTION_BYTES {
            return Err(wrong(name, &format!("is longer than {OPTION_BYTES} bytes")));
        }
        let request = &mut self.request;
        match name {
            "model" => request.model = value(name, json, "a name or null")?,
            "pages" => request.pages = pages(json)?,
            "document_annotation_format" => request.annotation = annotation(json)?,
            "extract_header" => request.extract_header = switch(name, json)?,
            "extract_footer" => request.extract_footer = switch(name, json)?,
            // Without effect: answers have no pictures, and no boxes of blocks. Mistral's API allows both to be
            // missing, and its SDKs ask for blocks unless they are told otherwise.
            "include_image_base64" | "include_blocks" => _ = switch(name, json)?,
            "image_limit" | "image_min_size" => {
                _ = value::<u64>(name, json, "a whole number or null")?;
            }
            "id" => _ = value::<String>(name, json, "a text or null")?,
            _ if json == "null" => {}
            other => return Err(wrong(other, refusal(other))),
        }
        Ok(())
    }
}

/// Why a member is refused that has no counterpart here.
fn refusal(member: &str) -> &'static str {
    match member {
        "bbox_annotation_format" => {
            "has no counterpart here: pictures on a page are not found and annotated. Leave it out"
        }
        "confidence_scores_granularity" => {
            "has no counterpart here: the models give no confidence, and none is invented. Leave it out"
        }
        "table_format" => {
            "has no counterpart here: tables stand in the Markdown of their page. Leave it out"
        }
        _ => {
            "has no counterpart here: say what a field means in the \"description\" of its schema, and leave this out"
        }
    }
}

/// A value of this form, or none for null.
fn value<T: DeserializeOwned>(
    name: &'static str,
    json: &str,
    expected: &str,
) -> Result<Option<T>, Flaw> {
    let parsed = serde_json::from_str::<Option<T>>(json);
    parsed.map_err(|_| wrong(name, &format!("must be {expected}")))
}

fn switch(name: &'static str, json: &str) -> Result<bool, Flaw> {
    Ok(value(name, json, "true, false or null")?.unwrap_or_default())
}

/// The schema of a `response_format`.
fn annotation(json: &str) -> Result<Option<String>, Flaw> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Format<'a> {
        #[serde(borrow, default)]
        r#type: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        json_schema: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NamedSchema<'a> {
        #[serde(borrow)]
        schema: &'a RawValue,
        #[serde(default, rename = "name")]
        _name: Option<IgnoredAny>,
        #[serde(default, rename = "description")]
        _description: Option<IgnoredAny>,
        #[serde(default, rename = "strict")]
        _strict: Option<IgnoredAny>,
    }
    const SHAPE: &str =
        "must be {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"…\", \"schema\": {…}}}";
    let wrong = || wrong("document_annotation_format", SHAPE);
    let format = serde_json::from_str::<Option<Format<'_>>>(json).map_err(|_| wrong())?;
    let Some(Format { r#type, json_schema }) = format else { return Ok(None) };
    if r#type.is_some_and(|kind| kind != "json_schema") {
        return Err(wrong());
    }
    let named = json_schema.and_then(|named| serde_json::from_str(named.get()).ok());
    let NamedSchema { schema, .. } = named.ok_or_else(wrong)?;
    Ok(Some(schema.get().to_owned()))
}

/// The pages, which count from 0 in this API.
fn pages(json: &str) -> Result<Option<PageRange>, Flaw> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Pages {
        List(Vec<u32>),
        Text(String),
    }
    let wrong = || {
        let why = "must be a list of pages from 0, such as [0, 2], or a text such as 0-2,5";
        Flaw::of("pages", ErrorCode::InvalidPages, why)
    };
    let parsed = serde_json::from_str::<Option<Pages>>(json).map_err(|_| wrong())?;
    let from_one = |page: u32| Some(page.checked_add(1)?.to_string());
    let parts: Option<Vec<_>> = match parsed {
        None => return Ok(None),
        Some(Pages::List(pages)) => pages.into_iter().map(from_one).collect(),
        Some(Pages::Text(text)) => text
            .split(',')
            .map(|part| {
                let ends = part.split('-').map(|page| from_one(number(page.trim())?));
                Some(ends.collect::<Option<Vec<_>>>()?.join("-"))
            })
            .collect(),
    };
    let range = parts.and_then(|parts| parts.join(",").parse().ok());
    range.map(Some).ok_or_else(wrong)
}

/// Parses digits: `u32::from_str` would also accept a plus sign.
fn number(digits: &str) -> Option<u32> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn wrong(member: &str, why: &str) -> Flaw {
    Flaw::of(member, ErrorCode::InvalidOption, why)
}

fn invalid(pointer: &str, why: &str) -> Flaw {
    Flaw { pointer: pointer.to_owned(), code: ErrorCode::InvalidOption, detail: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::IntGauge;
    use serde_json::{Value, json};

    use super::*;
    use crate::capacity::account::ByteAccount;

    /// What a body asks for, or the code and the places of its flaws.
    fn read(body: &Value) -> Result<(String, MistralRequest), (&'static str, Vec<String>)> {
        let gauge = IntGauge::new("held", "held").unwrap();
        let account = Arc::new(ByteAccount::new(1 << 20, gauge));
        let room = Room::new(None, 1 << 20, Arc::new(account.hold(0).unwrap()));
        let text = body.to_string();
        match MistralBody.find(text.as_bytes(), &room) {
            Ok((found, request)) => Ok((found.text.to_owned(), request)),
            Err(UploadError::Wrong(problem)) => {
                let places = problem.errors.iter().map(|flaw| flaw.pointer.clone()).collect();
                Err((problem.code.as_str(), places))
            }
            Err(UploadError::NoRoom(_)) => Err(("overloaded", Vec::new())),
        }
    }

    fn with(member: &str, value: &Value) -> Value {
        let url = "data:application/pdf;base64,AAAA";
        json!({ "document": { "type": "document_url", "document_url": url }, member: value })
    }

    #[test]
    fn a_document_is_found_in_every_form_that_holds_its_bytes() {
        let url = "data:image/png;base64,AAAA";
        for document in [
            json!({ "type": "document_url", "document_url": url }),
            json!({ "type": "document_url", "document_url": url, "document_name": "a.pdf" }),
            json!({ "document_url": url }),
            json!({ "type": "image_url", "image_url": url }),
            json!({ "type": "image_url", "image_url": { "url": url, "detail": "high" } }),
            json!({ "image_url": { "url": url } }),
            json!({ "type": "image_url", "image_url": url, "document_url": null }),
        ] {
            let found = read(&json!({ "model": "m", "document": document }));
            assert_eq!(found.unwrap().0, url, "{document}");
        }
    }

    #[test]
    fn a_document_that_is_elsewhere_is_refused_by_name() {
        let url = "data:image/png;base64,AAAA";
        for (document, place) in [
            (json!({ "type": "file", "file_id": "f" }), "/document/file_id"),
            (json!({ "file_id": "f" }), "/document/file_id"),
            (
                json!({ "type": "document_url", "document_url": "https://x/a.pdf" }),
                "/document/document_url",
            ),
            (json!({ "type": "document_url", "document_url": "AAAA" }), "/document/document_url"),
            (json!({ "type": "document_url", "document_url": 7 }), "/document/document_url"),
            (
                json!({ "type": "image_url", "image_url": { "url": "http://x" } }),
                "/document/image_url/url",
            ),
            (
                json!({ "type": "image_url", "image_url": { "detail": "low" } }),
                "/document/image_url/url",
            ),
            (json!({ "type": 7, "document_url": url }), "/document/type"),
            (json!({ "type": "audio_url", "document_url": url }), "/document/type"),
            (json!({ "type": "image_url", "document_url": url }), "/document"),
            (json!({ "document_url": url, "image_url": url }), "/document"),
            (json!({}), "/document"),
        ] {
            let refused = read(&json!({ "document": document })).unwrap_err();
            assert_eq!(refused, ("invalid_option", vec![place.to_owned()]), "{document}");
        }
        for (document, place) in [
            (json!({ "document_url": url, "x": 1 }), "/document/x"),
            (json!({ "image_url": { "url": url, "x": 1 } }), "/document/image_url/x"),
        ] {
            let refused = read(&json!({ "document": document })).unwrap_err();
            assert_eq!(refused, ("unknown_option", vec![place.to_owned()]), "{document}");
        }
        assert_eq!(read(&json!({ "model": "m" })).unwrap_err().0, "missing_file");
        assert_eq!(read(&json!([])).unwrap_err().0, "invalid_json");
        assert_eq!(read(&json!({ "document": "data:x" })).unwrap_err().0, "invalid_json");
    }

    #[test]
    fn a_long_text_is_not_copied() {
        const LENGTH: usize = 1 << 20;
        let gauge = IntGauge::new("held", "held").unwrap();
        let held = Arc::new(ByteAccount::new(u64::MAX, gauge)).hold(0).unwrap();
        let room = Room::new(None, 0, Arc::new(held));
        for text in ["A".repeat(LENGTH), "\\u0041".repeat(LENGTH / 6)] {
            let url = format!("data:image/png;base64,{text}");
            for body in [
                format!(r#"{{"document":{{"document_url":"{url}"}}}}"#),
                format!(r#"{{"document":{{"image_url":"{url}"}}}}"#),
                format!(r#"{{"document":{{"image_url":{{"url":"{url}"}}}}}}"#),
                format!(r#"{{"document":{{"image_url":{{"{text}":1}}}}}}"#),
                format!(r#"{{"document":{{"image_url":"{text}"}}}}"#),
                format!(r#"{{"document":{{"type":"{text}","image_url":"{url}"}}}}"#),
                format!(r#"{{"document":{{"{text}":1}}}}"#),
                format!(r#"{{"document":"{url}"}}"#),
                format!(r#"{{"{text}":1}}"#),
            ] {
                let allocated = allocation_counter::measure(|| {
                    let _ = std::hint::black_box(MistralBody.find(body.as_bytes(), &room));
                });
                assert!(allocated.bytes_max < 64 * 1024, "{allocated:?}: {body:.60}");
            }
        }
    }

    #[test]
    fn pages_count_from_0_in_a_list_and_in_a_text() {
        let pages = |value| read(&with("pages", &value)).unwrap().1.pages;
        let expected = Some("1-3,6".parse().unwrap());
        assert_eq!(pages(json!("0-2,5")), expected);
        assert_eq!(pages(json!(" 0 - 2 , 5 ")), expected);
        assert_eq!(pages(json!([2, 0])), Some("3,1".parse().unwrap()));
        assert_eq!(pages(Value::Null), None);
        for wrong in [
            json!([]),
            json!([-1]),
            json!([0.5]),
            json!([u32::MAX]),
            json!(["0"]),
            json!(""),
            json!("2-1"),
            json!("1-"),
            json!("+0"),
            json!("-1"),
            json!("1-2-3"),
            json!("x"),
            json!(3),
            json!({}),
        ] {
            let refused = read(&with("pages", &wrong)).unwrap_err();
            assert_eq!(refused, ("invalid_pages", vec!["/pages".to_owned()]), "{wrong}");
        }
    }

    #[test]
    fn a_member_is_served_without_effect_or_refused_by_name() {
        for (member, value) in [
            ("model", json!("m")),
            ("model", Value::Null),
            ("id", json!("x")),
            ("include_image_base64", json!(true)),
            ("include_blocks", json!(true)),
            ("image_limit", json!(0)),
            ("image_min_size", Value::Null),
            ("extract_header", json!(true)),
            ("extract_footer", Value::Null),
            ("table_format", Value::Null),
            ("bbox_annotation_format", Value::Null),
            ("document_annotation_format", Value::Null),
            (
                "document_annotation_format",
                json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": {}, "strict": true } }),
            ),
        ] {
            assert!(read(&with(member, &value)).is_ok(), "{member}");
        }
        for (member, value, code) in [
            ("model", json!(7), "invalid_option"),
            ("include_blocks", json!("yes"), "invalid_option"),
            ("image_limit", json!(-1), "invalid_option"),
            ("table_format", json!("html"), "invalid_option"),
            ("bbox_annotation_format", json!({ "type": "json_schema" }), "invalid_option"),
            ("confidence_scores_granularity", json!("page"), "invalid_option"),
            ("document_annotation_prompt", json!("x"), "invalid_option"),
            ("document_annotation_format", json!({ "type": "text" }), "invalid_option"),
            ("document_annotation_format", json!({ "type": "json_schema" }), "invalid_option"),
            ("document_annotation_format", json!("json_schema"), "invalid_option"),
            ("max_pixels", json!(1), "unknown_option"),
        ] {
            let refused = read(&with(member, &value)).unwrap_err();
            assert_eq!(refused, (code, vec![format!("/{member}")]));
        }
    }

    #[test]
    fn all_flaws_are_told_at_once() {
        let body = json!({ "document": { "type": "file" }, "pages": [-1], "table_format": "html" });
        let (code, places) = read(&body).unwrap_err();
        assert_eq!(code, "invalid_option");
        assert_eq!(places, ["/document/file_id", "/pages", "/table_format"]);
    }
}
