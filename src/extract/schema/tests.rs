use serde_json::{Map, json};

use super::*;
use crate::extract::limits::{MAX_BYTES, MAX_NAME_BYTES, MAX_PROPERTIES, MAX_VALUES};
use crate::extract::node::{NodeKind, Scalar};
use crate::extract::pattern::weight::{MAX_PATTERN_BYTES, MAX_PATTERNS_BYTES};

fn object(properties: &Value) -> Value {
    json!({ "type": "object", "properties": properties })
}

fn refused(schema: &Value) -> SchemaError {
    Schema::parse(schema).err().unwrap_or_else(|| panic!("accepted: {schema}"))
}

/// The code and the pointer of the error for a schema with the single field `a`.
fn refused_field(field: &Value) -> (&'static str, String) {
    let error = refused(&object(&json!({ "a": field })));
    (error.code().as_str(), error.pointer().to_owned())
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
        let NodeKind::Object(properties) = &schema.root.kind else { panic!("no object") };
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
    assert_eq!(refused(&schema).code().as_str(), "schema_unsupported");
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
        (json!({ "type": "string", "not": {} }), "not"),
        (json!({ "type": "number", "maxLength": 3 }), "maxLength"),
        (json!({ "type": "object", "patternProperties": {} }), "patternProperties"),
        (json!({ "type": "string", "a/b": 1 }), "a~1b"),
        (json!({ "type": "string", "format": "binary" }), "format"),
        (json!({ "type": ["string", "boolean"] }), "type"),
        (json!({ "oneOf": [{ "type": "integer" }, { "type": "number" }] }), "oneOf"),
        (json!({ "oneOf": [{ "const": 1 }, { "enum": [1, 2] }] }), "oneOf"),
        (json!({ "type": "null" }), "type"),
        (json!({ "anyOf": [{ "type": "string" }, { "type": "boolean" }] }), "anyOf"),
        (json!({ "allOf": [{ "type": "string" }, { "type": "string" }] }), "allOf"),
        (json!({ "type": "object", "additionalProperties": {} }), "additionalProperties"),
        (json!({ "type": "array", "prefixItems": [{}, { "type": "string" }] }), "prefixItems"),
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
        (json!({ "properties": { "b": { "type": "string" } }, "required": ["c"] }), "/required/0"),
        (json!({ "properties": { "b": { "type": "string" } }, "required": true }), "/required"),
    ] {
        let expected = ("schema_invalid", format!("/properties/a{place}"));
        assert_eq!(refused_field(&field), expected, "{field}");
    }
}

#[test]
fn an_example_instead_of_a_schema_becomes_one() {
    let example = json!({ "type": "receipt", "items": [{ "sum": 1 }], "paid": "2026-03-14" });
    let schema = Schema::parse(&example).unwrap();
    assert!(schema.is_from_example);
    let date = json!({ "type": "string", "format": "date" });
    let row = json!({ "type": "object", "properties": { "sum": { "type": "number" } } });
    let written = json!({ "type": "object", "properties": {
        "type": { "type": "string" }, "items": { "type": "array", "items": row }, "paid": date,
    } });
    let written = Schema::parse(&written).unwrap();
    assert!(!written.is_from_example);
    assert_eq!(schema.result_schema(), written.result_schema());
}

#[test]
fn an_example_without_a_clear_type_is_told_the_start_of_its_schema() {
    let example = json!({ "type": "receipt", "items": [], "total": 1, "more": "x" });
    let error = refused(&example);
    assert_eq!(error.code().as_str(), "schema_invalid");
    let sketch = "{\"type\":\"object\",\"properties\":{\"type\":{\"type\":\"string\"},\
                  \"items\":{\"type\":\"array\"},\"total\":{\"type\":\"number\"}}}";
    assert!(error.to_string().ends_with(sketch), "{error}");
}

#[test]
fn what_is_no_object_at_the_top_is_refused() {
    for schema in [json!(1), json!([]), json!(true), json!({}), json!({ "type": "string" })] {
        assert_eq!(refused(&schema).code().as_str(), "schema_invalid", "{schema}");
    }
}

#[test]
fn three_levels_are_taken_and_a_list_is_none() {
    assert_eq!(Schema::parse(&nested(3)).err(), None);
    let rows = object(&json!({ "rows": { "type": "array", "items": nested(2) } }));
    assert_eq!(Schema::parse(&rows).err(), None);
    let error = refused(&nested(4));
    assert_eq!(error.code().as_str(), "schema_too_deep");
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
    assert_eq!((error.code().as_str(), error.pointer()), ("schema_unsupported", "/properties/100"));
}

/// The error for a schema, read on a stack that unlimited recursion would overflow.
fn refused_on_a_small_stack(schema: Value) -> SchemaError {
    let reading =
        std::thread::Builder::new().stack_size(256 * 1024).spawn(move || refused(&schema));
    reading.expect("a thread").join().expect("an error")
}

/// A schema with a field of type `d0`. Each definition `d0`, `d1`, … wraps the next one in `wrap`, and the last is a
/// text.
fn chain(count: usize, wrap: impl Fn(Value) -> Value) -> Value {
    let link =
        |index| (format!("d{index}"), wrap(json!({ "$ref": format!("#/$defs/d{}", index + 1) })));
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
    assert_eq!(error.code().as_str(), "schema_unsupported");
    assert!(error.pointer().starts_with("/$defs/d"), "{}", error.pointer());
}

#[test]
fn a_long_chain_of_choices_is_refused() {
    let choice = |next| (0..60).fold(next, |inner, _| json!({ "anyOf": [inner] }));
    let error = refused_on_a_small_stack(chain(50, choice));
    assert_eq!(error.code().as_str(), "schema_unsupported");
    assert!(error.pointer().starts_with("/$defs/d0/anyOf/0/anyOf/0"), "{}", error.pointer());
}

#[test]
fn lists_in_lists_are_refused_at_the_second_one() {
    let lists = |next| (0..115).fold(next, |inner, _| json!({ "items": inner }));
    let error = refused_on_a_small_stack(chain(50, lists));
    assert_eq!((error.code().as_str(), error.pointer()), ("schema_unsupported", "/$defs/d0/items"));
}

#[test]
fn a_list_of_lists_is_refused_behind_a_reference_too() {
    let mut schema = object(&json!({ "a": { "items": { "$ref": "#/$defs/l" } } }));
    schema["$defs"] = json!({ "l": { "type": "array", "items": { "type": "string" } } });
    let error = refused(&schema);
    assert_eq!(
        (error.code().as_str(), error.pointer()),
        ("schema_unsupported", "/properties/a/items")
    );
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
    let words: Vec<String> = (0..1_000).map(|index| format!("{index:038}")).collect();
    let fields: Map<String, Value> =
        (0..100).map(|index| (index.to_string(), json!({ "$ref": "#/$defs/w" }))).collect();
    let mut schema = object(&fields.into());
    schema["$defs"] = json!({ "w": { "enum": words } });
    let error = refused(&schema);
    let at_the_second_use = 2 * MAX_BYTES;
    let SchemaError::TooLong { actual, .. } = error else { panic!("{error}") };
    assert!(actual < at_the_second_use, "{actual} bytes were counted");
}

/// A field with `count` listed values.
fn listing(count: u64) -> Value {
    json!({ "enum": (0..count).map(|index| format!("P{index}")).collect::<Vec<_>>() })
}

#[test]
fn lists_of_all_products_countries_and_currencies_are_taken() {
    let mut schema = object(&json!({ "product": listing(4_000) }));
    schema["$defs"] = json!({ "country": listing(250), "currency": listing(180) });
    for index in 0..5 {
        for name in ["country", "currency"] {
            let reference = json!({ "$ref": format!("#/$defs/{name}") });
            schema["properties"][format!("{name}{index}")] = reference;
        }
    }
    assert_eq!(Schema::parse(&schema).err(), None);
}

#[test]
fn as_many_values_as_may_be_are_taken_and_one_more_is_refused() {
    // The schema, its type, its fields, the field and its list.
    let around = 5;
    let schema = object(&json!({ "a": listing(MAX_VALUES - around) }));
    assert_eq!(count_values(&schema), MAX_VALUES);
    assert_eq!(Schema::from_json(&schema.to_string()).err(), None);
    let schema = object(&json!({ "a": listing(MAX_VALUES - around + 1) }));
    let too_many = SchemaError::TooManyValues { actual: MAX_VALUES + 1, allowed: MAX_VALUES };
    assert_eq!(Schema::from_json(&schema.to_string()).err(), Some(too_many));
}

#[test]
fn more_values_than_are_read_are_refused_with_their_number_wherever_they_stand() {
    let nested = (0..100).fold(json!([]), |inner, _| json!([inner]));
    let places = [
        listing(MAX_VALUES),
        json!({ "type": "string", "examples": vec![nested; 100] }),
        json!({ "type": "string", "x-rows": vec![json!({ "": {} }); 4_000] }),
        json!({ "anyOf": vec![json!({ "const": "a" }); 4_000] }),
    ];
    for place in places {
        let schema = object(&json!({ "a": place }));
        for error in [refused(&schema), Schema::from_json(&schema.to_string()).unwrap_err()] {
            let SchemaError::TooManyValues { actual, allowed } = error else { panic!("{error}") };
            assert_eq!(
                (error.code().as_str(), actual),
                ("schema_unsupported", count_values(&schema))
            );
            assert!(error.to_string().contains(&format!("{allowed}")), "{error}");
        }
    }
}

#[test]
fn values_of_a_definition_count_once_for_each_use() {
    let mut schema = object(&json!({ "a": { "$ref": "#/$defs/l" } }));
    schema["$defs"] = json!({ "l": { "enum": vec![7; 3_000] } });
    assert_eq!(Schema::parse(&schema).err(), None);
    schema["properties"]["b"] = json!({ "$ref": "#/$defs/l" });
    schema["properties"]["c"] = json!({ "$ref": "#/$defs/l" });
    assert!(matches!(refused(&schema), SchemaError::TooManyValues { .. }));
}

#[test]
fn a_name_is_as_long_as_a_question_of_a_form_and_no_longer() {
    let named = |bytes| object(&json!({ "x".repeat(bytes): { "type": "string" } }));
    assert_eq!(Schema::parse(&named(MAX_NAME_BYTES)).err(), None);
    let error = refused(&named(MAX_NAME_BYTES + 1));
    assert_eq!((error.code().as_str(), error.pointer()), ("schema_unsupported", "/properties"));
    assert!(error.to_string().contains("257"), "{error}");
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

/// The schemas of `tests/fixtures/pydantic_models.py`.
pub(in crate::extract) fn of_pydantic() -> Map<String, Value> {
    let schemas = include_str!("../../../tests/fixtures/pydantic.json");
    serde_json::from_str(schemas).expect("JSON")
}

#[test]
fn a_model_of_pydantic_is_taken_where_it_has_one_meaning_and_refused_by_its_pointer_elsewhere() {
    let refused = [
        ("Anything", "/properties/extra"),
        ("Mixed", "/properties/pair/prefixItems"),
        ("Moment", "/properties/when/anyOf"),
        ("Payment", "/properties/paid/oneOf"),
        ("Rates", "/properties/rates/additionalProperties"),
        ("Tree", "/$defs/Tree/properties/child/anyOf/0/$ref"),
    ];
    for (name, schema) in of_pydantic() {
        let error = Schema::parse(&schema).err();
        let expected = refused.iter().find(|(refused, _)| *refused == name);
        let pointer = error.as_ref().map(SchemaError::pointer);
        assert_eq!(pointer, expected.map(|(_, pointer)| *pointer), "{name}: {error:?}");
    }
}

#[test]
fn a_choice_that_is_one_kind_of_value_is_read_as_that_kind() {
    for (field, scalar) in [
        (json!({ "anyOf": [{ "type": "number" }, { "type": "string" }] }), Scalar::NumberOrText),
        (json!({ "type": ["string", "number", "null"] }), Scalar::NumberOrText),
        (json!({ "oneOf": [{ "type": "string" }, { "type": "integer" }] }), Scalar::IntegerOrText),
        (json!({ "anyOf": [{ "type": "integer" }, { "type": "number" }] }), Scalar::Number),
        (
            json!({ "anyOf": [{ "anyOf": [{ "type": "number" }, { "type": "integer" }] },
            { "type": "string" }, { "type": "null" }] }),
            Scalar::NumberOrText,
        ),
        (json!({ "allOf": [{ "type": "string", "format": "time" }] }), Scalar::Time),
        (json!({ "const": 5 }), Scalar::Integer),
        (json!({ "const": 5.5 }), Scalar::Number),
        (json!({ "const": "a", "enum": ["a"] }), Scalar::Text),
        (json!({ "enum": ["a", 1, null] }), Scalar::IntegerOrText),
        (json!({ "oneOf": [{ "const": "a" }, { "const": "b", "title": "B" }] }), Scalar::Text),
        (json!({ "type": "string", "format": "uuid4" }), Scalar::Uuid(Some(4))),
    ] {
        let schema = Schema::parse(&object(&json!({ "a": field }))).expect("a schema");
        let NodeKind::Object(properties) = &schema.root.kind else { panic!("no object") };
        let NodeKind::Leaf(leaf) = &properties[0].node.kind else { panic!("no leaf") };
        assert_eq!(leaf.scalar, scalar, "{field}");
    }
}

#[test]
fn of_the_rules_of_a_choice_those_that_bind_are_kept() {
    let rules = |field: Value| {
        let schema = Schema::parse(&object(&json!({ "a": field }))).ok()?;
        let NodeKind::Object(properties) = &schema.root.kind else { panic!("no object") };
        Some(Value::from(properties[0].node.constraints.clone()))
    };
    let positive = json!({ "type": "integer", "exclusiveMinimum": 0 });
    let text = json!({ "type": "string", "maxLength": 3 });
    let choice = |one: &Value, other: &Value| rules(json!({ "anyOf": [one, other] }));
    assert_eq!(choice(&positive, &json!({ "type": "number" })), Some(json!({})));
    let both = json!({ "exclusiveMinimum": 0, "maxLength": 3 });
    assert_eq!(choice(&positive, &text), Some(both.clone()));
    assert_eq!(choice(&text, &positive).map(|rules| rules == both), Some(true));
    assert_eq!(choice(&text, &json!({ "type": "string" })), None);
}

/// A schema with `count` fields, each with a pattern.
fn with_patterns(count: usize, pattern: impl Fn(usize) -> String) -> Value {
    let field =
        |index| (format!("f{index}"), json!({ "type": "string", "pattern": pattern(index) }));
    object(&(0..count).map(field).collect())
}

/// A pattern, different for each `index`. A schema of ten kilobytes with such patterns would compile to thirty
/// megabytes.
fn heavy_pattern(index: usize) -> String {
    format!("^([\\p{{L}}\\p{{N}}\\p{{M}}]{{1,5}}7)$|x{index}")
}

#[test]
fn patterns_that_are_heavy_together_are_refused_at_the_first_too_many() {
    assert_eq!(Schema::parse(&with_patterns(15, heavy_pattern)).err(), None);
    let error = refused(&with_patterns(100, heavy_pattern));
    assert_eq!(error.code().as_str(), "schema_unsupported");
    assert!(error.pointer().ends_with("/pattern"), "{}", error.pointer());
    let SchemaError::PatternsTooHeavy { actual, allowed, .. } = error else { panic!("{error}") };
    assert_eq!(allowed, MAX_PATTERNS_BYTES);
    assert!(actual > allowed && error.to_string().contains(&actual.to_string()), "{error}");
}

#[test]
fn one_pattern_in_every_field_counts_once() {
    assert_eq!(Schema::parse(&with_patterns(100, |_| heavy_pattern(0))).err(), None);
}

#[test]
fn a_pattern_that_is_too_heavy_is_told_the_limit() {
    let error = refused(&with_patterns(1, |_| "((a{99}){99}){99}".to_owned()));
    assert_eq!(
        (error.code().as_str(), error.pointer()),
        ("schema_invalid", "/properties/f0/pattern")
    );
    assert!(error.to_string().contains(&MAX_PATTERN_BYTES.to_string()), "{error}");
}

#[test]
fn patterns_of_definitions_and_choices_count_too() {
    let field = |index| {
        let text = json!({ "type": "string", "pattern": heavy_pattern(index) });
        (
            format!("f{index}"),
            json!({ "anyOf": [{ "type": "array", "items": text }, { "type": "null" }] }),
        )
    };
    let error = refused(&object(&(0..100).map(field).collect()));
    assert!(matches!(error, SchemaError::PatternsTooHeavy { .. }), "{error}");
}

#[test]
fn a_long_choice_of_constants_is_one_list() {
    let constants: Vec<Value> =
        (0..3_500).map(|index| json!({ "const": index.to_string() })).collect();
    for keyword in ["anyOf", "oneOf"] {
        let schema =
            Schema::parse(&object(&json!({ "a": { keyword: constants } }))).expect("a schema");
        let NodeKind::Object(properties) = &schema.root.kind else { panic!("no object") };
        let NodeKind::Leaf(leaf) = &properties[0].node.kind else { panic!("no leaf") };
        assert_eq!(leaf.choices.len(), constants.len(), "{keyword}");
    }
    let twice = [&constants[..], &constants[..1]].concat();
    assert_eq!(refused_field(&json!({ "oneOf": twice })).0, "schema_unsupported");
    assert_eq!(Schema::parse(&object(&json!({ "a": { "anyOf": twice } }))).err(), None);
}

#[test]
fn an_error_repeats_a_long_keyword_in_part() {
    let field = json!({ "type": "string", "\u{1}".repeat(10_000): 1 });
    let error = refused(&object(&json!({ "a": field })));
    assert!(error.to_string().len() < 1_000, "{} bytes", error.to_string().len());
}

#[test]
fn every_schema_that_is_taken_has_a_validator() {
    for (name, schema) in of_pydantic() {
        if let Ok(schema) = Schema::parse(&schema) {
            assert!(schema.validator().is_some(), "{name}");
        }
    }
    let rules = json!({
        "s": { "type": "string", "minLength": 18_446_744_073_709_551_615_u64, "maxLength": 0 },
        "n": { "type": "number", "minimum": 1e308, "maximum": -1e308, "multipleOf": 5e-324 },
        "i": { "type": "integer", "exclusiveMinimum": 18_446_744_073_709_551_615_u64 },
        "l": { "type": "array", "items": { "type": "string" }, "minItems": 9, "maxItems": 1 },
    });
    let schema = Schema::parse(&object(&rules)).expect("a schema");
    assert!(schema.validator().is_some());
}
