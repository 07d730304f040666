//! Parses the values of options. Each function returns one value or the flaw in it.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;

use super::{AnswerFormat, Purpose, flaw};
use crate::api::problem::Flaw;
use crate::auth::tenant::PdfText;
use crate::code::ErrorCode;
use crate::dashscope::Task;
use crate::document::range::PageRange;
use crate::extract::schema::Schema;
use crate::extract::templates::Templates;
use crate::json::count_values;
use crate::ocr::request::{Detail, Downscale, Rotate, TextBeside};
use crate::units::Pixels;

/// The most bytes of `metadata`, which the answer repeats.
const METADATA_BYTES: usize = 4096;

/// The most JSON values in an option other than a schema: as many as fit into `metadata`.
pub(super) const MOST_VALUES: u64 = METADATA_BYTES as u64 / 2;

/// The resolutions at which a PDF page can be drawn, in pixels for an inch.
const DPI: RangeInclusive<u32> = 50..=600;

/// The most characters of a language tag (RFC 5646, section 4.4.1, requires 35).
const LANGUAGE_LENGTH: usize = 35;

/// A scalar as text, so that `5` in JSON and `5` in a query are equal.
pub(super) fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn text(name: &'static str, value: &Value) -> Result<String, Flaw> {
    match value {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        _ => Err(flaw(name, ErrorCode::InvalidOption, "must be a text that is not empty")),
    }
}

pub(super) fn prompt(value: &Value) -> Result<String, Flaw> {
    let prompt = text("prompt", value)?;
    if prompt.trim().is_empty() {
        let why = "is blank: leave it out and the model uses its own";
        return Err(flaw("prompt", ErrorCode::InvalidOption, why));
    }
    Ok(prompt)
}

pub(super) fn language(value: &Value) -> Result<String, Flaw> {
    let tag = text("language", value)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if tag.len() > LANGUAGE_LENGTH || !tag.bytes().all(allowed) {
        let why = "must be a BCP 47 tag like `de` or `zh-Hans`";
        return Err(flaw("language", ErrorCode::InvalidOption, why));
    }
    Ok(tag)
}

pub(super) fn task(value: &Value) -> Result<Task, Flaw> {
    Task::named(&text("task", value)?).ok_or_else(|| {
        let why = "must be text_recognition, multi_lan, advanced_recognition, table_parsing, \
                   document_parsing, formula_recognition or key_information_extraction";
        flaw("task", ErrorCode::InvalidOption, why)
    })
}

pub(super) fn min_pixels(value: &Value) -> Result<Pixels, Flaw> {
    let why = "must be a whole number of pixels above 0";
    pixels(value).ok_or_else(|| flaw("min_pixels", ErrorCode::InvalidOption, why))
}

/// A number of pixels, or `None` for `auto`.
pub(super) fn max_pixels(value: &Value) -> Result<Option<Pixels>, Flaw> {
    if value.as_str() == Some("auto") {
        return Ok(None);
    }
    let why = "must be auto or a whole number of pixels above 0";
    pixels(value).map(Some).ok_or_else(|| flaw("max_pixels", ErrorCode::InvalidOption, why))
}

fn pixels(value: &Value) -> Option<Pixels> {
    let number = value.as_u64().or_else(|| number_of(value.as_str()?));
    number.filter(|&pixels| pixels > 0).map(Pixels::new)
}

/// Digits only: `u64::from_str` would also accept a plus sign.
fn number_of(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| u64::from_str(text).ok()).flatten()
}

pub(super) fn detail(value: &Value) -> Result<Detail, Flaw> {
    match value.as_str() {
        Some("text") => Ok(Detail::Text),
        Some("lines") => Ok(Detail::Lines),
        _ => Err(flaw("detail", ErrorCode::InvalidOption, "must be text or lines")),
    }
}

pub(super) fn ground(value: &Value) -> Result<TextBeside, Flaw> {
    match text_of(value).as_str() {
        "true" => Ok(TextBeside::Ground),
        "false" => Ok(TextBeside::None),
        _ => Err(flaw("ground", ErrorCode::InvalidOption, "must be true or false")),
    }
}

pub(super) fn rotate(value: &Value) -> Result<Rotate, Flaw> {
    match value.as_str() {
        Some("exif") => Ok(Rotate::Exif),
        Some("auto") => Ok(Rotate::Auto),
        Some("off") => Ok(Rotate::Off),
        _ => Err(flaw("rotate", ErrorCode::InvalidOption, "must be exif, auto or off")),
    }
}

pub(super) fn format(value: &Value, purpose: Purpose) -> Result<AnswerFormat, Flaw> {
    let format = match value.as_str() {
        Some("json") => AnswerFormat::Json,
        Some("text") => AnswerFormat::Text,
        Some("markdown") => AnswerFormat::Markdown,
        Some("pdf") => AnswerFormat::Pdf,
        _ => {
            let why = "must be json, text, markdown or pdf";
            return Err(flaw("format", ErrorCode::InvalidOption, why));
        }
    };
    if purpose == Purpose::Fields && format != AnswerFormat::Json {
        return Err(flaw(
            "format",
            ErrorCode::InvalidOption,
            "must be json where fields are wanted",
        ));
    }
    Ok(format)
}

pub(super) fn pages(value: &Value) -> Result<PageRange, Flaw> {
    let parsed = text_of(value).parse::<PageRange>();
    parsed.map_err(|error| flaw("pages", ErrorCode::InvalidPages, error.to_string()))
}

pub(super) fn dpi(value: &Value) -> Result<u32, Flaw> {
    let number = value.as_u64().or_else(|| number_of(value.as_str()?));
    let dpi = number.and_then(|number| u32::try_from(number).ok());
    dpi.filter(|dpi| DPI.contains(dpi)).ok_or_else(|| {
        let why = format!("must be a whole number from {} to {}", DPI.start(), DPI.end());
        flaw("dpi", ErrorCode::InvalidOption, why)
    })
}

pub(super) fn pdf_text(value: &Value) -> Result<PdfText, Flaw> {
    let parsed = value.as_str().and_then(|word| word.parse().ok());
    parsed.ok_or_else(|| flaw("pdf_text", ErrorCode::InvalidOption, "must be off or prefer"))
}

pub(super) fn downscale(value: &Value) -> Result<Downscale, Flaw> {
    match value.as_str() {
        Some("auto") => Ok(Downscale::Auto),
        Some("always") => Ok(Downscale::Always),
        Some("never") => Ok(Downscale::Never),
        _ => Err(flaw("downscale", ErrorCode::InvalidOption, "must be auto, always or never")),
    }
}

pub(super) fn metadata(value: &Value) -> Result<Value, Flaw> {
    let parsed = match value {
        Value::String(text) if count_values(text) <= MOST_VALUES => serde_json::from_str(text)
            .map_err(|_| flaw("metadata", ErrorCode::InvalidOption, "must be JSON"))?,
        other => other.clone(),
    };
    if !parsed.is_object() || parsed.to_string().len() > METADATA_BYTES {
        let why = format!("must be a JSON object of at most {METADATA_BYTES} bytes");
        return Err(flaw("metadata", ErrorCode::InvalidOption, why));
    }
    Ok(parsed)
}

pub(super) fn schema(value: &Value) -> Result<Schema, Flaw> {
    let read = match value {
        Value::String(text) => Schema::from_json(text),
        other => Schema::parse(other),
    };
    read.map_err(|error| Flaw {
        pointer: format!("/schema{}", error.pointer()),
        code: error.code(),
        detail: error.to_string(),
    })
}

pub(super) fn template(value: &Value, templates: &Templates) -> Result<Arc<Schema>, Flaw> {
    let name = text("template", value)?;
    let Some(template) = templates.find(&name) else {
        let why = "is unknown: GET /templates lists what there is";
        return Err(flaw("template", ErrorCode::UnknownTemplate, why));
    };
    Ok(Arc::clone(&template.parsed))
}
