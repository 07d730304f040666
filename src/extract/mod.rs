//! Fields of a document: a JSON Schema in, checked values out.
//!
//! DashScope's `key_information_extraction` takes a list of field names with hints and answers with
//! strings. Everything that makes such an answer safe to compute with happens here: the
//! [schema](schema::Schema) is read and refused where its promise could not be kept, the
//! [answer](answer::parse_answer) is read without guessing what a broken one meant, and
//! [`Schema::fill`](schema::Schema::fill) turns strings into numbers and dates. What cannot be
//! turned becomes null with a named error beside it, because a wrong number in somebody's books
//! costs more than a missing one.
//!
//! All of it is pure. It knows no HTTP, no model and no clock, and the cost of a call is bounded by
//! the size of the schema and of the answer.

pub mod answer;
pub mod error;
pub mod limits;
pub mod schema;
pub mod templates;

mod choices;
mod coerce;
mod date;
mod example;
mod fill;
mod fold;
mod keywords;
mod node;
mod number;
mod pattern;
mod reader;
pub mod result_schema;
mod union;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

/// The fields of one document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Extraction {
    /// An object with every property of the schema, in the schema's order. It validates against
    /// the schema with every property made nullable; what the document does not say is null.
    pub data: Value,
    /// Where each scalar and each null of `data` comes from, by JSON Pointer (RFC 6901) into
    /// `data`, in the order of `data`.
    #[serde(serialize_with = "as_map")]
    pub fields: Vec<(String, FieldOrigin)>,
    /// What stands between `data` and the schema as it was given.
    pub validation: Validation,
    /// Events that concern the whole answer; each at most once.
    pub warnings: Vec<ExtractionWarning>,
}

/// The origin of one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldOrigin {
    /// What the model wrote: its string unchanged, or the JSON text of anything else; null where it
    /// wrote nothing.
    pub raw: Option<String>,
    /// The page whose answer held it, counted from 1; null where no page did.
    pub page: Option<u32>,
    /// Whether the value was found in the text of its page; null means that nobody looked. Only
    /// [`Grounded::None`] is decided here, for a field without `raw`: there is nothing to find.
    pub grounded: Option<Grounded>,
}

/// How a value compares with the text of its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grounded {
    /// The text holds it letter for letter.
    Exact,
    /// The text holds it after folding width, case and spaces.
    Normalised,
    /// The text does not hold it.
    None,
}

/// Whether `data` keeps the schema as the caller wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Validation {
    /// True where there is no error.
    pub valid: bool,
    /// Values that are missing, unreadable or against a rule, in the order of `data`.
    pub errors: Vec<FieldError>,
}

/// One value that is not what the schema asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The place in `data`. An element that was left out of an array is reported at the array,
    /// since the elements behind it have moved up.
    pub pointer: String,
    /// The situation, stable.
    pub code: FieldErrorCode,
    /// The situation for a person; never quotes the document.
    pub detail: String,
    /// What the model wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// Why a value is null, in the words of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldErrorCode {
    /// The schema requires it and the document does not show it.
    RequiredMissing,
    /// A list or an object where text was asked for.
    NotAString,
    /// Not one number, or one with letters that are no currency.
    NotANumber,
    /// More digits than a JSON number carries exactly.
    NumberTooLong,
    /// A number with a fraction where a whole one was asked for.
    NotAnInteger,
    /// Neither yes nor no.
    NotABoolean,
    /// Not a date of the calendar.
    NotADate,
    /// A date that can be read in more than one way.
    AmbiguousDate,
    /// Not a date with a time of day.
    NotADateTime,
    /// Not a time of day.
    NotATime,
    /// Not a UUID of the version that was asked for.
    NotAUuid,
    /// None of the values that the schema lists.
    NotInEnum,
    /// Not an object.
    NotAnObject,
    /// Against a rule such as `pattern` or `maximum`.
    ConstraintViolated,
}

impl FieldErrorCode {
    /// The situation in a sentence without the value.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::RequiredMissing => "the schema requires this field and the document has none",
            Self::NotAString => "a text was asked for",
            Self::NotANumber => "this cannot be read as one number",
            Self::NumberTooLong => {
                "the number has more digits than JSON carries exactly; ask for a string"
            }
            Self::NotAnInteger => "a whole number was asked for",
            Self::NotABoolean => "this is neither yes nor no",
            Self::NotADate => "this cannot be read as a date",
            Self::AmbiguousDate => {
                "the order of day and month, or the century, is not clear from the text"
            }
            Self::NotADateTime => "this cannot be read as a date with a time of day",
            Self::NotATime => "this cannot be read as a time of day",
            Self::NotAUuid => "this is no UUID of the kind that was asked for",
            Self::NotInEnum => "this is none of the values that the schema lists",
            Self::NotAnObject => "an object was asked for",
            Self::ConstraintViolated => "the value is against a rule of the schema",
        }
    }
}

/// Something about an answer that no single field tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtractionWarning {
    /// The model answered fields that the schema does not have.
    UnexpectedFieldsDropped,
    /// Two pages gave different values for one field; the earlier page was kept.
    PagesDisagree,
    /// Every field is null: a blank page, or a document of another kind than the schema's.
    NothingFound,
}

fn as_map<S: Serializer>(
    fields: &[(String, FieldOrigin)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(fields.len()))?;
    for (pointer, field) in fields {
        map.serialize_entry(pointer, field)?;
    }
    map.end()
}

/// `pointer` extended by one name, escaped after RFC 6901 section 3.
fn child_pointer(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}
