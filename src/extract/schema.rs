//! The schema of a caller: what it may say, and what is made of it.
//!
//! A subset of JSON Schema 2020-12, chosen by one question: can the promise be kept that the answer
//! validates? Types, nesting, lists of values and formats can be coerced to; rules such as `pattern`
//! can be checked at the end. What cannot be kept (`if`, `patternProperties`, a union of two types)
//! is refused with the pointer to it. An unknown keyword is refused too, although JSON Schema says
//! to ignore it: a mistyped `requierd` would be a rule that silently never binds.
//!
//! The validator is built here, once, so that filling an answer never compiles anything. Patterns
//! run on an engine of linear time, with a cap on what one may compile to, because they come from
//! outside.

use std::io;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::reader;

/// The longest schema in bytes of compact JSON, as it is sent and with each use of a definition
/// counted; also the longest `result_schema` that it may become.
pub const MAX_BYTES: u64 = 64 * 1024;
/// The most properties of a schema, nested ones and each use of a `$ref` counted.
pub const MAX_PROPERTIES: usize = 100;
/// The most levels of field names, as DashScope's `result_schema` takes (API reference of
/// Qwen-OCR, "`task_config`"). A list adds no level: its elements are named by the fields in them.
pub const MAX_LEVELS: usize = 3;

/// What the program of one `pattern` may weigh, in bytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// A schema that was read and found to be one whose promise can be kept.
#[derive(Debug)]
pub struct Schema {
    pub(super) root: Node,
    pub(super) validator: Validator,
}

impl Schema {
    /// Reads a JSON Schema.
    ///
    /// Takes a tenth of a millisecond for an invoice and up to a tenth of a second for a hundred of
    /// the heaviest patterns: on a server, off the reactor.
    ///
    /// # Errors
    ///
    /// [`SchemaError`], with the place in the schema and what to write instead.
    pub fn parse(value: &Value) -> Result<Self, SchemaError> {
        refuse_longer(byte_length(value))?;
        let root = reader::read(value)?;
        // The hints are seldom longer than the schema, but a list of digits is.
        refuse_longer(byte_length(&root.result_schema()))?;
        let validator = compile(&root.validated(Null::Refused))
            .map_err(|_| SchemaError::malformed("", "the schema contradicts itself".into()))?;
        Ok(Self { root, validator })
    }
}

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
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
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Example { .. } | Self::Malformed { .. } => "schema_invalid",
            Self::TooDeep { .. } => "schema_too_deep",
            Self::Unsupported { .. }
            | Self::UnknownKeyword { .. }
            | Self::TooManyProperties { .. }
            | Self::TooLong { .. } => "schema_unsupported",
        }
    }

    /// The place in the schema, as a JSON Pointer; empty for the whole.
    pub fn pointer(&self) -> &str {
        match self {
            Self::Example { .. } | Self::TooLong { .. } => "",
            Self::Malformed { pointer, .. }
            | Self::Unsupported { pointer, .. }
            | Self::UnknownKeyword { pointer, .. }
            | Self::TooDeep { pointer, .. }
            | Self::TooManyProperties { pointer, .. } => pointer,
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
    Leaf(Leaf),
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
    /// The values of `enum` without null; empty where there is none.
    pub(super) choices: Vec<Value>,
}

/// The type of one value; the formats of a string are types of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Text,
    Date,
    DateTime,
    Number,
    Integer,
    Boolean,
}

/// Whether null may stand at a place of `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Null {
    Accepted,
    Refused,
}

impl Node {
    /// The schema that `data` is checked against: every property nullable, the elements of arrays
    /// only where the caller said so.
    fn validated(&self, null: Null) -> Value {
        let mut schema = self.constraints.clone();
        let null_allowed = null == Null::Accepted || self.nullable;
        let name = self.kind.type_name();
        schema
            .insert("type".into(), if null_allowed { json!([name, "null"]) } else { json!(name) });
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
            Kind::Leaf(leaf) if !leaf.choices.is_empty() => {
                let null = null_allowed.then_some(Value::Null);
                schema.insert("enum".into(), leaf.choices.iter().cloned().chain(null).collect());
            }
            Kind::Leaf(_) => {}
        }
        schema.into()
    }
}

impl Kind {
    /// The name that JSON Schema has for it.
    pub(super) const fn type_name(&self) -> &'static str {
        match self {
            Self::Object(_) => "object",
            Self::Array(_) => "array",
            Self::Leaf(leaf) => leaf.scalar.type_name(),
        }
    }
}

impl Scalar {
    const fn type_name(self) -> &'static str {
        match self {
            Self::Text | Self::Date | Self::DateTime => "string",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
        }
    }
}

/// True for a regular expression that the validator takes.
pub(super) fn is_pattern(pattern: &str) -> bool {
    compile(&json!({ "pattern": pattern })).is_ok()
}

fn compile(schema: &Value) -> Result<Validator, jsonschema::ValidationError<'static>> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN_BYTES))
        .offline()
        .build(schema)
}

pub(super) fn refuse_longer(actual: u64) -> Result<(), SchemaError> {
    if actual > MAX_BYTES {
        return Err(SchemaError::TooLong { actual, allowed: MAX_BYTES });
    }
    Ok(())
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
mod tests {
    use super::*;

    fn object(properties: &Value) -> Value {
        json!({ "type": "object", "properties": properties })
    }

    fn refused(schema: &Value) -> SchemaError {
        Schema::parse(schema).err().unwrap_or_else(|| panic!("accepted: {schema}"))
    }

    /// The code and the pointer of a refused schema whose one field is `a`.
    fn refused_field(field: &Value) -> (&'static str, String) {
        let error = refused(&object(&json!({ "a": field })));
        (error.code(), error.pointer().to_owned())
    }

    fn nested(levels: usize) -> Value {
        let leaf = json!({ "type": "string" });
        (0..levels).fold(leaf, |inner, _| object(&json!({ "a": inner })))
    }

    #[test]
    fn every_rule_and_annotation_of_the_subset_is_accepted() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "x", "title": "T",
            "$comment": "c", "type": "object", "additionalProperties": false, "required": ["s"],
            "examples": [{}], "x-order": 1,
            "properties": {
                "s": { "type": "string", "minLength": 1, "maxLength": 9, "pattern": "^[A-Z]+$" },
                "n": { "type": "number", "minimum": 0, "exclusiveMaximum": 9.5, "multipleOf": 0.5 },
                "i": { "type": "integer", "enum": [1, 2], "default": 1 },
                "b": { "type": "boolean", "description": "Paid?" },
                "d": { "type": "string", "format": "date-time" },
                "l": { "type": "array", "items": { "type": "string" }, "minItems": 1,
                       "maxItems": 4, "uniqueItems": true },
            },
        });
        assert_eq!(Schema::parse(&schema).err(), None);
    }

    #[test]
    fn nullable_is_read_in_its_spellings() {
        for field in [
            json!({ "type": ["string", "null"] }),
            json!({ "type": ["null", "string"] }),
            json!({ "type": "string", "nullable": true }),
            json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] }),
            json!({ "oneOf": [{ "type": "null" }, { "type": "string" }], "title": "A" }),
            json!({ "enum": ["x", null] }),
        ] {
            let schema = Schema::parse(&object(&json!({ "a": field }))).expect("a schema");
            let Kind::Object(properties) = &schema.root.kind else { panic!("no object") };
            assert!(properties[0].node.nullable, "{field}");
        }
    }

    #[test]
    fn a_local_reference_is_resolved_and_may_be_described_anew() {
        let mut schema = object(&json!({ "a": { "$ref": "#/$defs/m", "description": "Fee" } }));
        schema["$defs"] = json!({ "m": { "type": "number", "description": "Money" } });
        let schema = Schema::parse(&schema).expect("a schema");
        assert_eq!(schema.result_schema(), json!({ "a": "Fee (number)" }));
    }

    #[test]
    fn a_reference_to_itself_to_nothing_or_outside_is_refused() {
        let mut schema = object(&json!({ "a": { "$ref": "#/definitions/x" } }));
        schema["definitions"] = json!({ "x": { "anyOf": [{ "$ref": "#/definitions/x" }] } });
        assert_eq!(refused(&schema).code(), "schema_unsupported");
        let at = "/properties/a/$ref".to_owned();
        assert_eq!(refused_field(&json!({ "$ref": "#/$defs/x" })), ("schema_invalid", at.clone()));
        for outside in ["https://example.org/x.json", "#", "#/properties/a"] {
            let found = refused_field(&json!({ "$ref": outside }));
            assert_eq!(found, ("schema_unsupported", at.clone()), "{outside}");
        }
    }

    #[test]
    fn a_keyword_outside_the_subset_is_named_by_its_pointer() {
        for (field, keyword) in [
            (json!({ "type": "string", "requierd": true }), "requierd"),
            (json!({ "type": "string", "const": "x" }), "const"),
            (json!({ "type": "number", "maxLength": 3 }), "maxLength"),
            (json!({ "type": "object", "patternProperties": {} }), "patternProperties"),
            (json!({ "type": "string", "a/b": 1 }), "a~1b"),
            (json!({ "type": "string", "format": "email" }), "format"),
            (json!({ "type": ["string", "number"] }), "type"),
            (json!({ "type": "null" }), "type"),
            (json!({ "anyOf": [{ "type": "string" }, { "type": "number" }] }), "anyOf"),
        ] {
            let expected = ("schema_unsupported", format!("/properties/a/{keyword}"));
            assert_eq!(refused_field(&field), expected, "{field}");
        }
    }

    #[test]
    fn a_keyword_with_a_value_it_cannot_have_is_invalid() {
        for (field, place) in [
            (json!("number"), ""),
            (json!({}), ""),
            (json!({ "type": "text" }), "/type"),
            (json!({ "type": "string", "minLength": -1 }), "/minLength"),
            (json!({ "type": "string", "pattern": "(" }), "/pattern"),
            (json!({ "type": "string", "pattern": "(?=x)" }), "/pattern"),
            (json!({ "type": "string", "pattern": "((a{99}){99}){99}" }), "/pattern"),
            (json!({ "type": "number", "multipleOf": 0 }), "/multipleOf"),
            (json!({ "type": "number", "exclusiveMinimum": true }), "/exclusiveMinimum"),
            (json!({ "type": "string", "enum": [] }), "/enum"),
            (json!({ "type": "string", "enum": ["a", 1] }), "/enum"),
            (json!({ "type": "string", "description": 1 }), "/description"),
            (json!({ "type": "array" }), ""),
            (json!({ "type": "object" }), ""),
            (
                json!({ "properties": { "b": { "type": "string" } }, "required": ["c"] }),
                "/required/0",
            ),
            (json!({ "properties": { "b": { "type": "string" } }, "required": true }), "/required"),
        ] {
            let expected = ("schema_invalid", format!("/properties/a{place}"));
            assert_eq!(refused_field(&field), expected, "{field}");
        }
    }

    #[test]
    fn an_example_instead_of_a_schema_is_told_its_schema() {
        let example =
            json!({ "type": "receipt", "items": [{ "sum": 1 }], "total": 1, "more": "x" });
        let error = refused(&example);
        assert_eq!(error.code(), "schema_invalid");
        let sketch = "{\"type\":\"object\",\"properties\":{\"type\":{\"type\":\"string\"},\
                      \"items\":{\"type\":\"array\"},\"total\":{\"type\":\"number\"}}}";
        assert!(error.to_string().ends_with(sketch), "{error}");
    }

    #[test]
    fn what_is_no_object_at_the_top_is_refused() {
        for schema in [json!(1), json!([]), json!(true), json!({}), json!({ "type": "string" })] {
            assert_eq!(refused(&schema).code(), "schema_invalid", "{schema}");
        }
    }

    #[test]
    fn three_levels_are_taken_and_a_list_is_none() {
        assert_eq!(Schema::parse(&nested(3)).err(), None);
        let rows = object(&json!({ "rows": { "type": "array", "items": nested(2) } }));
        assert_eq!(Schema::parse(&rows).err(), None);
        let error = refused(&nested(4));
        assert_eq!(error.code(), "schema_too_deep");
        assert_eq!(error.pointer(), "/properties/a/properties/a/properties/a");
    }

    #[test]
    fn a_list_of_lists_is_refused() {
        let inner = json!({ "type": "array", "items": { "type": "string" } });
        let found = refused_field(&json!({ "type": "array", "items": inner }));
        assert_eq!(found, ("schema_unsupported", "/properties/a/items".to_owned()));
    }

    #[test]
    fn the_hundred_and_first_property_is_too_many() {
        let fields = |count: usize| -> Value {
            (0..count).map(|index| (index.to_string(), json!({ "type": "string" }))).collect()
        };
        assert_eq!(Schema::parse(&object(&fields(MAX_PROPERTIES))).err(), None);
        let error = refused(&object(&fields(MAX_PROPERTIES + 1)));
        assert_eq!((error.code(), error.pointer()), ("schema_unsupported", "/properties/100"));
    }

    /// The error where a runaway recursion would end the process.
    fn refused_on_a_small_stack(schema: Value) -> SchemaError {
        let reading =
            std::thread::Builder::new().stack_size(256 * 1024).spawn(move || refused(&schema));
        reading.expect("a thread").join().expect("an error")
    }

    /// Definitions `d0`, `d1`, …, each the next one in `wrap`, the last a text, and a field of `d0`.
    fn chain(count: usize, wrap: impl Fn(Value) -> Value) -> Value {
        let link = |index| {
            (format!("d{index}"), wrap(json!({ "$ref": format!("#/$defs/d{}", index + 1) })))
        };
        let end = (format!("d{count}"), json!({ "type": "string" }));
        let mut schema = object(&json!({ "a": { "$ref": "#/$defs/d0" } }));
        schema["$defs"] = (0..count).map(link).chain([end]).collect();
        schema
    }

    #[test]
    fn a_long_chain_of_references_is_refused() {
        assert_eq!(Schema::parse(&chain(29, |next| next)).err(), None);
        assert_eq!(refused(&chain(30, |next| next)).pointer(), "/$defs/d30");
        let error = refused_on_a_small_stack(chain(500, |next| next));
        assert_eq!(error.code(), "schema_unsupported");
        assert!(error.pointer().starts_with("/$defs/d"), "{}", error.pointer());
    }

    #[test]
    fn a_long_chain_of_choices_is_refused() {
        let choice = |next| (0..60).fold(next, |inner, _| json!({ "anyOf": [inner] }));
        let error = refused_on_a_small_stack(chain(50, choice));
        assert_eq!(error.code(), "schema_unsupported");
        assert!(error.pointer().starts_with("/$defs/d0/anyOf/0/anyOf/0"), "{}", error.pointer());
    }

    #[test]
    fn lists_in_lists_are_refused_at_the_second_one() {
        let lists = |next| (0..115).fold(next, |inner, _| json!({ "items": inner }));
        let error = refused_on_a_small_stack(chain(50, lists));
        assert_eq!((error.code(), error.pointer()), ("schema_unsupported", "/$defs/d0/items"));
    }

    #[test]
    fn a_list_of_lists_is_refused_behind_a_reference_too() {
        let mut schema = object(&json!({ "a": { "items": { "$ref": "#/$defs/l" } } }));
        schema["$defs"] = json!({ "l": { "type": "array", "items": { "type": "string" } } });
        let error = refused(&schema);
        assert_eq!((error.code(), error.pointer()), ("schema_unsupported", "/properties/a/items"));
    }

    #[test]
    fn a_schema_is_measured_before_its_references() {
        let plain = object(&json!({ "a": { "type": "string", "title": "x".repeat(80 * 1024) } }));
        assert!(matches!(refused(&plain), SchemaError::TooLong { actual: 81_000.., .. }));
    }

    #[test]
    fn a_definition_counts_once_for_each_use() {
        let mut schema = object(&json!({ "a": { "$ref": "#/$defs/l" } }));
        let long = "x".repeat(40 * 1024);
        schema["$defs"] = json!({ "l": { "type": "string", "description": long } });
        assert_eq!(Schema::parse(&schema).err(), None);
        schema["properties"]["b"] = json!({ "$ref": "#/$defs/l" });
        assert!(matches!(refused(&schema), SchemaError::TooLong { allowed: MAX_BYTES, .. }));
    }

    #[test]
    fn reading_stops_at_the_use_that_makes_the_schema_too_long() {
        let words: Vec<String> = (0..8_500).map(|index| index.to_string()).collect();
        let fields: Map<String, Value> =
            (0..100).map(|index| (index.to_string(), json!({ "$ref": "#/$defs/w" }))).collect();
        let mut schema = object(&fields.into());
        schema["$defs"] = json!({ "w": { "enum": words } });
        let error = refused(&schema);
        let at_the_second_use = 2 * MAX_BYTES;
        let SchemaError::TooLong { actual, .. } = error else { panic!("{error}") };
        assert!(actual < at_the_second_use, "{actual} bytes were counted");
    }

    #[test]
    fn a_definition_is_measured_before_it_is_read() {
        let long = "x".repeat(20 * 1024);
        let uses = [("a", "l"), ("b", "l"), ("c", "l"), ("d", "bad")];
        let field = |(name, definition): (&str, &str)| {
            (name.to_owned(), json!({ "$ref": format!("#/$defs/{definition}") }))
        };
        let mut schema = object(&uses.into_iter().map(field).collect());
        schema["$defs"] = json!({
            "l": { "type": "string", "description": long },
            "bad": { "type": "string", "pattern": "(", "$comment": long },
        });
        assert!(matches!(refused(&schema), SchemaError::TooLong { .. }));
    }
}
