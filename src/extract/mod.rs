//! Extracts typed fields from a document according to a JSON Schema.
//!
//! DashScope's `key_information_extraction` takes a list of field names with hints and answers with strings. This
//! module makes such an answer safe to compute with. It reads the [schema](schema::Schema) and rejects one that it
//! cannot guarantee. It reads the [answer](answer::parse_answer) without guessing the meaning of a broken one.
//! [`Schema::fill_pages`](schema::Schema::fill_pages) converts strings to numbers and dates, and merges the answers for
//! the pages of a document. A value that cannot be converted becomes null and gets an error code, because a wrong
//! number in somebody's books costs more than a missing one.
//!
//! The module is pure: it uses no HTTP, no model and no clock. The size of the schema and of the answer bounds the cost
//! of a call.

pub mod answer;
pub mod error;
pub mod ground;
pub mod limits;
pub mod page_answer;
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
mod number_run;
mod pattern;
mod phrases;
mod reader;
pub mod result_schema;
pub mod sums;
mod text_token;
mod union;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The fields of one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extraction {
    /// An object with every property of the schema, in schema order. It validates against the schema with every
    /// property made nullable. A value that the document does not show is null.
    pub data: Value,
    /// The origin of each scalar and each null of `data`, keyed by JSON Pointer (RFC 6901) into `data`, in the order of
    /// `data`.
    #[serde(serialize_with = "as_map", deserialize_with = "of_map")]
    pub fields: Vec<(String, FieldOrigin)>,
    /// Where `data` violates the original schema.
    pub validation: Validation,
    /// The arithmetic of a receipt or an invoice; none if values were not looked for in the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<SumCheck>>,
    /// Events that concern the whole answer, each at most once, and then the fields on which pages disagree.
    pub warnings: Vec<ExtractionWarning>,
}

/// The origin of one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenOrigin")]
pub struct FieldOrigin {
    /// The model's text: its string unchanged, or the JSON text of any other value. Null if it wrote nothing.
    pub raw: Option<String>,
    /// The page whose answer contained the value, counted from 1; null if no page did.
    pub page: Option<u32>,
    /// Whether the value occurs in the text of its page; null means not checked. A field without `raw` is never found.
    pub grounded: Option<Grounded>,
    /// Where the page shows the value; none if that was not asked for.
    #[serde(flatten)]
    pub place: Option<Box<FieldPlace>>,
}

/// A [`FieldOrigin`] as it is written. It tells whether there is a place at all.
#[expect(clippy::option_option, reason = "a member that is missing differs from one that is null")]
#[derive(Deserialize)]
struct WrittenOrigin {
    raw: Option<String>,
    page: Option<u32>,
    grounded: Option<Grounded>,
    #[serde(default, deserialize_with = "present")]
    bbox: Option<Option<[u32; 4]>>,
    #[serde(default)]
    polygon: Option<[[u32; 2]; 4]>,
}

impl From<WrittenOrigin> for FieldOrigin {
    fn from(written: WrittenOrigin) -> Self {
        let WrittenOrigin { raw, page, grounded, bbox, polygon } = written;
        let place = bbox.map(|bbox| Box::new(FieldPlace { bbox, polygon }));
        Self { raw, page, grounded, place }
    }
}

/// Where a page shows a value, in its pixels. Both are null if the value was not found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FieldPlace {
    /// The upright box: `[x0, y0, x1, y1]`.
    pub bbox: Option<[u32; 4]>,
    /// Its four corners `[x, y]`. For a value within one line they are those of the line.
    pub polygon: Option<[[u32; 2]; 4]>,
}

/// How a value matches the text of its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grounded {
    /// The text contains it exactly.
    Exact,
    /// The text contains it in another spelling: of width, case and spaces, of a number, or of a date.
    Normalised,
    /// The text does not contain it.
    None,
}

/// Whether `data` validates against the original schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validation {
    /// True if there are no errors.
    pub valid: bool,
    /// Values that are missing, unreadable or in violation of a rule, in the order of `data`.
    pub errors: Vec<FieldError>,
}

/// One value that does not conform to the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The place in `data`. For an element that was removed from an array, this is the array, because the later
    /// elements have moved up.
    pub pointer: String,
    /// The stable error code.
    pub code: FieldErrorCode,
    /// A readable description. It never quotes the document.
    pub detail: String,
    /// The model's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// Why a value is null, as an API error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldErrorCode {
    /// The schema requires the value, and the document does not show it.
    RequiredMissing,
    /// A list or an object in place of text.
    NotAString,
    /// Not exactly one number, or a number with letters that are not a currency.
    NotANumber,
    /// More digits than a JSON number represents exactly.
    NumberTooLong,
    /// A number with a fraction in place of an integer.
    NotAnInteger,
    /// Neither yes nor no.
    NotABoolean,
    /// Not a valid date.
    NotADate,
    /// A date with more than one reading.
    AmbiguousDate,
    /// Not a date with a time of day.
    NotADateTime,
    /// Not a time of day.
    NotATime,
    /// Not a UUID of the requested version.
    NotAUuid,
    /// None of the values that the schema lists.
    NotInEnum,
    /// Not an object.
    NotAnObject,
    /// Violates a rule such as `pattern` or `maximum`.
    ConstraintViolated,
}

impl FieldErrorCode {
    /// A description of the error without the value.
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

/// A warning about the whole answer: a code, or an object with a code if there is more to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtractionWarning {
    /// The model returned fields that are not in the schema.
    UnexpectedFieldsDropped,
    /// Pages gave different values for one field; the value of the earliest page was kept. A field of a list cannot
    /// disagree, so there are at most as many of these warnings as a schema may have properties.
    PagesDisagree {
        /// The place in `data`.
        pointer: String,
        /// The page whose value was kept, and those with another value, in their order.
        pages: Vec<u32>,
    },
    /// The document has none of the fields: the page is blank, or it is not of the kind that the schema describes. A
    /// value that was found and then refused by a rule counts as found.
    NothingFound,
    /// The caller sent an example in place of a schema. Each field got the type of its value.
    SchemaFromExample,
}

impl ExtractionWarning {
    /// Its code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnexpectedFieldsDropped => "unexpected_fields_dropped",
            Self::PagesDisagree { .. } => "pages_disagree",
            Self::NothingFound => "nothing_found",
            Self::SchemaFromExample => "schema_from_example",
        }
    }
}

impl Serialize for ExtractionWarning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::UnexpectedFieldsDropped | Self::NothingFound | Self::SchemaFromExample => {
                serializer.serialize_str(self.code())
            }
            Self::PagesDisagree { pointer, pages } => {
                let mut warning = serializer.serialize_map(Some(3))?;
                warning.serialize_entry("code", self.code())?;
                warning.serialize_entry("pointer", pointer)?;
                warning.serialize_entry("pages", pages)?;
                warning.end()
            }
        }
    }
}

/// A warning as it is written.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenWarning {
    Code(String),
    Disagreement { pointer: String, pages: Vec<u32> },
}

impl<'de> Deserialize<'de> for ExtractionWarning {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let plain = [Self::UnexpectedFieldsDropped, Self::NothingFound, Self::SchemaFromExample];
        match WrittenWarning::deserialize(deserializer)? {
            WrittenWarning::Disagreement { pointer, pages } => {
                Ok(Self::PagesDisagree { pointer, pages })
            }
            WrittenWarning::Code(code) => {
                let warning = plain.into_iter().find(|warning| warning.code() == code);
                warning.ok_or_else(|| serde::de::Error::custom("no warning has this code"))
            }
        }
    }
}

/// One sum of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumCheck {
    /// What was checked.
    pub rule: SumRule,
    /// Whether it is right.
    pub holds: bool,
    /// How the parts were read.
    pub reading: SumReading,
    /// What the parts make, as a decimal number.
    pub expected: String,
    /// What the document says.
    pub actual: String,
    /// `actual` less `expected`.
    pub difference: String,
    /// The places of the parts in `data`, that of `actual` last.
    pub pointers: Vec<String>,
}

/// A rule of arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SumRule {
    /// Quantity times unit price is the amount.
    LineAmount,
    /// The amounts of all lines are the subtotal or the total.
    ItemsSum,
    /// Subtotal, tax, charges and discounts are the total.
    Total,
}

/// How the parts of a sum were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SumReading {
    /// Lines make the subtotal as they are; tax and charges are added to that, and discounts subtracted.
    Plain,
    /// Prices include the tax.
    TaxIncluded,
    /// The subtotal is the one after discounts.
    DiscountIncluded,
    /// Both.
    TaxAndDiscountIncluded,
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

/// The inverse of [`as_map`].
fn of_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, FieldOrigin)>, D::Error> {
    struct InOrder;
    impl<'de> Visitor<'de> for InOrder {
        type Value = Vec<(String, FieldOrigin)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of fields")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = Vec::new();
            while let Some(field) = map.next_entry()? {
                fields.push(field);
            }
            Ok(fields)
        }
    }
    deserializer.deserialize_map(InOrder)
}

/// A member that is there, also if it is null.
#[expect(clippy::option_option, reason = "a member that is missing differs from one that is null")]
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Appends one name to `pointer`, escaped as in RFC 6901 section 3.
fn child_pointer(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}
