//! The schema of a caller: what it may say, and what is made of it.
//!
//! A subset of JSON Schema 2020-12, chosen by one question: can the promise be kept that the answer
//! validates? Types, nesting, lists of values and formats can be coerced to; rules such as `pattern`
//! can be checked at the end. What cannot be kept (`if`, `patternProperties`, a choice between two objects)
//! is refused with the pointer to it. A choice between a number and text can: libraries write decimals so
//! (pydantic's `Decimal`). An unknown keyword is refused too, although JSON Schema says
//! to ignore it: a mistyped `requierd` would be a rule that silently never binds.
//!
//! What comes of it is small: the tree of the schema and the text of its patterns. The validator and the
//! patterns are compiled when there is an answer, since a request mostly waits for the upstream. So
//! everything that an answer is held to is checked here for being usable then.

use std::io;

use jsonschema::Validator;
use serde_json::{Map, Value};

use super::choices::{Choice, Index, Key};
use super::reader;
use crate::code::ErrorCode;
use crate::json;

/// The longest schema in bytes of compact JSON, as it is sent and with each use of a definition
/// counted; also the longest `result_schema` that it may become.
pub const MAX_BYTES: u64 = 64 * 1024;
/// The most JSON values in a schema, members and elements at all levels and each use of a definition counted.
/// A value takes up to 400 bytes while it is read, so the length of the text is no bound: `[[[[1]]]]` takes
/// fifty times its length. The longest lists in use (countries, currencies, the products of a shop) have some
/// 250 to 2,000 values.
pub const MAX_VALUES: u64 = 8_000;
/// The most bytes of a property's name. The answer repeats a name in each row and in the pointer to each value.
pub const MAX_NAME_BYTES: usize = 256;
/// The most properties of a schema, nested ones and each use of a `$ref` counted.
pub const MAX_PROPERTIES: usize = 100;
/// The most levels of field names, as DashScope's `result_schema` takes (API reference of
/// Qwen-OCR, "`task_config`"). A list adds no level: its elements are named by the fields in them.
pub const MAX_LEVELS: usize = 3;

/// What reading a schema, or holding an answer of moderate length to it, takes at most while it lasts, in bytes.
/// `benches/schema.rs` holds the worst schemas to it.
pub const WORKING_BYTES: u64 = 4 * 1024 * 1024;

/// The longest answer of moderate length, in bytes, and what each byte beyond it takes.
const MODERATE_ANSWER: u64 = 16 * 1024;
const BYTES_FOR_EACH: u64 = 96;

/// What reading an answer of so many bytes and holding it to a schema takes at most while it lasts, in bytes.
pub const fn filling_bytes(answer: u64) -> u64 {
    WORKING_BYTES + BYTES_FOR_EACH * answer.saturating_sub(MODERATE_ANSWER)
}

/// A schema that was read and found to be one whose promise can be kept.
#[derive(Debug)]
pub struct Schema {
    pub(super) root: Node,
}

impl Schema {
    /// Reads the text of a JSON Schema. What has too many values never becomes a tree.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), and [`SchemaError::NotJson`].
    pub fn from_json(text: &str) -> Result<Self, SchemaError> {
        refuse_more(json::count_values(text))?;
        let value = serde_json::from_str(text).map_err(|_| SchemaError::NotJson)?;
        Self::parse(&value)
    }

    /// Reads a JSON Schema.
    ///
    /// Takes a tenth of a millisecond for an invoice and some tens of them for the heaviest patterns: on a
    /// server, off the reactor. While it lasts it takes up to [`WORKING_BYTES`].
    ///
    /// # Errors
    ///
    /// [`SchemaError`], with the place in the schema and what to write instead.
    pub fn parse(value: &Value) -> Result<Self, SchemaError> {
        refuse_longer(byte_length(value))?;
        refuse_more(count_values(value))?;
        let root = reader::read(value)?;
        // The hints are seldom longer than the schema, but a list of digits is.
        refuse_longer(byte_length(&root.result_schema()))?;
        Ok(Self { root })
    }

    /// What `data` is checked by, patterns excepted. Each rule was checked when it was read, so that there is
    /// always one.
    pub(super) fn validator(&self) -> Option<Validator> {
        jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true)
            .offline()
            .build(&self.root.validated(Null::Refused))
            .ok()
    }
}

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The text is not JSON.
    #[error("must be JSON")]
    NotJson,
    /// An example of the wanted answer stands where its schema should.
    #[error("this is an example of an answer, not a JSON Schema; its schema would begin {sketch}")]
    Example {
        /// The beginning of the schema that the example suggests.
        sketch: String,
    },
    /// A keyword of JSON Schema with a value that it cannot have.
    #[error("{detail}")]
    Malformed {
        /// The place in the schema.
        pointer: String,
        /// What is wrong and what to write instead.
        detail: String,
    },
    /// Correct JSON Schema, outside the subset.
    #[error("{detail}")]
    Unsupported {
        /// The place in the schema.
        pointer: String,
        /// What is not supported and what to write instead.
        detail: String,
    },
    /// A keyword outside the subset, most often a typing error.
    #[error("{keyword:?} is not supported here; the keywords that are: {known}")]
    UnknownKeyword {
        /// The place in the schema.
        pointer: String,
        /// The keyword.
        keyword: String,
        /// The keywords that bind something at this place.
        known: String,
    },
    /// An object nested deeper than the model takes.
    #[error("fields nest more than {allowed} levels deep; take the inner object apart")]
    TooDeep {
        /// The innermost object.
        pointer: String,
        /// The most levels.
        allowed: usize,
    },
    /// More fields than one call can ask for.
    #[error("the schema has more than {allowed} properties; ask for them in several requests")]
    TooManyProperties {
        /// The first one too many.
        pointer: String,
        /// The most properties.
        allowed: usize,
    },
    /// A property with a longer name than is read.
    #[error(
        "the name of a field has {actual} bytes; the limit is {allowed}. Say the rest in its \"description\""
    )]
    NameTooLong {
        /// The object that has the field.
        pointer: String,
        /// Bytes of the name.
        actual: usize,
        /// The most bytes.
        allowed: usize,
    },
    /// More values than are read.
    #[error(
        "the schema has at least {actual} JSON values, members and elements of lists at all levels and each use \
         of a definition counted; the limit is {allowed}. Shorten its lists, or take a field with a long \
         \"enum\" as text and look it up"
    )]
    TooManyValues {
        /// Values up to where counting stopped.
        actual: u64,
        /// The most values.
        allowed: u64,
    },
    /// Patterns that are heavier together than one schema may have them.
    #[error(
        "with this pattern, those of the schema would take {actual} bytes to match; the limit for all is \
         {allowed}. Shorten them, lower their counts, or use one pattern for several fields: the same one \
         counts once"
    )]
    PatternsTooHeavy {
        /// The first pattern too many.
        pointer: String,
        /// Bytes with it.
        actual: u64,
        /// The most bytes.
        allowed: u64,
    },
    /// A longer schema than is read.
    #[error(
        "the schema is at least {actual} bytes long with each use of a definition counted; the \
         limit is {allowed}"
    )]
    TooLong {
        /// Bytes of compact JSON up to where counting stopped.
        actual: u64,
        /// The most bytes.
        allowed: u64,
    },
}

impl SchemaError {
    pub(super) fn malformed(pointer: &str, detail: String) -> Self {
        Self::Malformed { pointer: pointer.to_owned(), detail }
    }

    pub(super) fn unsupported(pointer: &str, detail: String) -> Self {
        Self::Unsupported { pointer: pointer.to_owned(), detail }
    }

    /// The stable code of the situation.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotJson => ErrorCode::InvalidOption,
            Self::Example { .. } | Self::Malformed { .. } => ErrorCode::SchemaInvalid,
            Self::TooDeep { .. } => ErrorCode::SchemaTooDeep,
            Self::Unsupported { .. }
            | Self::UnknownKeyword { .. }
            | Self::TooManyProperties { .. }
            | Self::NameTooLong { .. }
            | Self::TooManyValues { .. }
            | Self::PatternsTooHeavy { .. }
            | Self::TooLong { .. } => ErrorCode::SchemaUnsupported,
        }
    }

    /// The place in the schema, as a JSON Pointer; empty for the whole.
    pub fn pointer(&self) -> &str {
        match self {
            Self::NotJson
            | Self::Example { .. }
            | Self::TooLong { .. }
            | Self::TooManyValues { .. } => "",
            Self::Malformed { pointer, .. }
            | Self::Unsupported { pointer, .. }
            | Self::UnknownKeyword { pointer, .. }
            | Self::TooDeep { pointer, .. }
            | Self::TooManyProperties { pointer, .. }
            | Self::NameTooLong { pointer, .. }
            | Self::PatternsTooHeavy { pointer, .. } => pointer,
        }
    }
}

/// One place of the schema, references resolved.
#[derive(Debug)]
pub(super) struct Node {
    /// Whether the caller wrote that null is a value here, so that a required null is no error.
    pub(super) nullable: bool,
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
    pub(super) kind: Kind,
    /// Rules that are only checked: `pattern`, `maximum` and their like.
    pub(super) constraints: Map<String, Value>,
}

/// What a place holds.
#[derive(Debug)]
pub(super) enum Kind {
    Object(Vec<Property>),
    Array(Box<Node>),
    /// Boxed, since a place stands on the stack of its reader many times.
    Leaf(Box<Leaf>),
}

/// A named place of an object.
#[derive(Debug)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) node: Node,
}

/// A place of one value.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) scalar: Scalar,
    /// The values of `enum` without null, each once; empty where there is none.
    pub(super) choices: Vec<Choice>,
    index: Index,
}

impl Leaf {
    pub(super) fn of(scalar: Scalar, choices: Vec<Choice>) -> Self {
        Self { scalar, choices, index: Index::default() }
    }

    /// The listed values that have the key, and maybe others.
    pub(super) fn find<'v>(&'v self, key: &Key<'_>) -> impl Iterator<Item = &'v Choice> {
        self.index.find(&self.choices, key)
    }
}

/// The type of one value; the formats of a string are types of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Text,
    Date,
    DateTime,
    Time,
    /// Of one version, where the caller asks for one.
    Uuid(Option<usize>),
    /// The digits of a number, as text.
    Digits,
    Number,
    Integer,
    Boolean,
    /// A number where a double holds it, else its digits.
    Decimal,
    /// A number where the text is one, else the text.
    NumberOrText,
    /// A whole number where the text is one and nothing else, else the text.
    IntegerOrText,
}

/// Whether null may stand at a place of `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Null {
    Accepted,
    Refused,
}

/// The keyword of a regular expression.
const PATTERN: &str = "pattern";

impl Node {
    /// The schema that `data` is checked against: every property nullable, the elements of arrays
    /// only where the caller said so. Patterns are left out, since they are matched one by one, and lists of
    /// values, since a value is taken from them ([`coerce`](super::coerce)).
    fn validated(&self, null: Null) -> Value {
        let rules = self.constraints.iter().filter(|(rule, _)| *rule != PATTERN);
        let mut schema: Map<String, Value> =
            rules.map(|(rule, operand)| (rule.clone(), operand.clone())).collect();
        let null_allowed = null == Null::Accepted || self.nullable;
        let mut names = self.kind.type_names().to_vec();
        names.extend(null_allowed.then_some("null"));
        schema
            .insert("type".into(), if let [name] = names[..] { name.into() } else { names.into() });
        match &self.kind {
            Kind::Object(properties) => {
                let properties: Map<String, Value> = properties
                    .iter()
                    .map(|property| {
                        (property.name.clone(), property.node.validated(Null::Accepted))
                    })
                    .collect();
                schema.insert("properties".into(), properties.into());
                schema.insert("additionalProperties".into(), false.into());
            }
            Kind::Array(item) => {
                schema.insert("items".into(), item.validated(Null::Refused));
            }
            Kind::Leaf(_) => {}
        }
        schema.into()
    }

    /// The pattern of text that may stand here.
    pub(super) fn pattern(&self) -> Option<&str> {
        self.constraints.get(PATTERN)?.as_str()
    }
}

impl Kind {
    pub(super) fn leaf(scalar: Scalar, choices: Vec<Choice>) -> Self {
        Self::Leaf(Box::new(Leaf::of(scalar, choices)))
    }

    /// The types that JSON Schema has for it.
    pub(super) fn type_names(&self) -> &'static [&'static str] {
        match self {
            Self::Object(_) => &["object"],
            Self::Array(_) => &["array"],
            Self::Leaf(leaf) => leaf.scalar.type_names(),
        }
    }
}

impl Scalar {
    pub(super) const fn type_names(self) -> &'static [&'static str] {
        match self {
            Self::Text
            | Self::Date
            | Self::DateTime
            | Self::Time
            | Self::Uuid(_)
            | Self::Digits => &["string"],
            Self::Number => &["number"],
            Self::Integer => &["integer"],
            Self::Boolean => &["boolean"],
            Self::Decimal | Self::NumberOrText => &["number", "string"],
            Self::IntegerOrText => &["integer", "string"],
        }
    }

    /// What a place holds that may hold either; none where that has no single meaning.
    pub(super) fn or(self, other: Self) -> Option<Self> {
        match (self, other) {
            _ if self == other => Some(self),
            (Self::Integer, Self::Number) => Some(Self::Number),
            (Self::Digits | Self::Decimal, Self::Number | Self::Integer)
            | (Self::Digits, Self::Decimal) => Some(Self::Decimal),
            (Self::Text | Self::IntegerOrText, Self::Integer)
            | (Self::Text, Self::IntegerOrText) => Some(Self::IntegerOrText),
            (Self::Text | Self::IntegerOrText | Self::NumberOrText, Self::Number)
            | (Self::NumberOrText, Self::Integer | Self::Text | Self::IntegerOrText) => {
                Some(Self::NumberOrText)
            }
            _ => None,
        }
    }
}

pub(super) fn refuse_longer(actual: u64) -> Result<(), SchemaError> {
    if actual > MAX_BYTES {
        return Err(SchemaError::TooLong { actual, allowed: MAX_BYTES });
    }
    Ok(())
}

pub(super) fn refuse_more(actual: u64) -> Result<(), SchemaError> {
    if actual > MAX_VALUES {
        return Err(SchemaError::TooManyValues { actual, allowed: MAX_VALUES });
    }
    Ok(())
}

/// The values of a tree, at all levels, itself included.
pub(super) fn count_values(value: &Value) -> u64 {
    let inside: u64 = match value {
        Value::Array(items) => items.iter().map(count_values).sum(),
        Value::Object(members) => members.values().map(count_values).sum(),
        _ => 0,
    };
    1 + inside
}

/// Bytes of `value` as compact JSON, counted without writing them anywhere.
pub(super) fn byte_length(value: &Value) -> u64 {
    struct Count(u64);

    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len() as u64);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => u64::MAX,
    }
}

#[cfg(test)]
pub(super) mod tests;
