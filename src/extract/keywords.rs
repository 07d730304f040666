//! The keywords of the subset: which may stand where, and with what value.
//!
//! A rule that is only checked at the end (`pattern`, `maximum`) is checked here for being a rule at
//! all, so that an error has the pointer that the caller wrote and not one into some normal form.

use serde_json::Value;

use super::child_pointer;
use super::reader::Members;
use super::schema::{SchemaError, is_pattern};

/// Keywords that bind nothing here. `additionalProperties` is among them since `data` never has any.
const ANNOTATIONS: [&str; 15] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "example",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "nullable",
    "additionalProperties",
];

/// The keywords of a type: those that shape it, and those that are only checked at the end.
pub(super) fn keywords_of(type_name: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match type_name {
        "object" => (&["type", "properties", "required"], &[]),
        "array" => (&["type", "items"], &["minItems", "maxItems", "uniqueItems"]),
        "string" => (&["type", "enum", "format"], &["minLength", "maxLength", "pattern"]),
        "boolean" => (&["type", "enum"], &[]),
        _ => (
            &["type", "enum"],
            &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
        ),
    }
}

/// Refuses the first keyword that is neither known nor an annotation.
pub(super) fn known_keywords(
    members: &Members,
    at: &str,
    known: &[&str],
) -> Result<(), SchemaError> {
    let is_known = |keyword: &str| {
        known.contains(&keyword) || ANNOTATIONS.contains(&keyword) || keyword.starts_with("x-")
    };
    match members.keys().find(|keyword| !is_known(keyword)) {
        None => Ok(()),
        Some(keyword) => Err(SchemaError::UnknownKeyword {
            pointer: child_pointer(at, keyword),
            keyword: keyword.clone(),
            known: known.join(", "),
        }),
    }
}

/// The rules of a place that are only checked at the end.
pub(super) fn constraints(
    members: &Members,
    at: &str,
    rules: &[&str],
) -> Result<Members, SchemaError> {
    let mut found = Members::new();
    for &rule in rules {
        let Some(value) = members.get(rule) else { continue };
        let expected = expected_operand(rule);
        if !takes(rule, value) {
            let detail = format!("{rule:?} takes {expected}");
            return Err(SchemaError::malformed(&child_pointer(at, rule), detail));
        }
        found.insert(rule.to_owned(), value.clone());
    }
    Ok(found)
}

fn takes(rule: &str, value: &Value) -> bool {
    match rule {
        "pattern" => value.as_str().is_some_and(is_pattern),
        "uniqueItems" => value.is_boolean(),
        "multipleOf" => value.as_f64().is_some_and(|step| step > 0.0),
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
        _ => value.is_u64(),
    }
}

fn expected_operand(rule: &str) -> &'static str {
    match rule {
        "pattern" => "a regular expression of moderate size without look-around or back-references",
        "uniqueItems" => "true or false",
        "multipleOf" => "a number above zero",
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => "a number",
        _ => "a whole number from zero",
    }
}
