//! The supported keywords, where each is allowed and which values it takes.
//!
//! Rules that are checked only at the end (`pattern`, `maximum`) are validated here, so that an error points to the
//! caller's own schema and not to a normalised form.

use serde_json::{Map, Value};

use super::child_pointer;
use super::error::SchemaError;
use super::pattern::Patterns;
use super::pattern::weight::{MAX_PATTERN_BYTES, MAX_PATTERNS_BYTES, PatternError};

/// The keywords at one place of a schema.
pub(super) type Members = Map<String, Value>;

/// The types of the subset.
pub(super) const TYPES: [&str; 6] = ["object", "array", "string", "number", "integer", "boolean"];

/// Keywords without an effect here. `additionalProperties` is one of them because `data` never has any.
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

/// The keywords of a type: first those that shape the value, then those that are checked only at the end.
pub(super) fn keywords_of(type_name: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match type_name {
        "object" => (&["type", "properties", "required"], &[]),
        "array" => (&["type", "items", "prefixItems"], &["minItems", "maxItems", "uniqueItems"]),
        "string" => (&["type", "enum", "const", "format"], &["minLength", "maxLength", "pattern"]),
        "boolean" => (&["type", "enum", "const"], &[]),
        _ => (
            &["type", "enum", "const"],
            &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
        ),
    }
}

/// The largest number of characters of a keyword that an error repeats.
const LONGEST_ECHO: usize = 40;

/// String formats that the validator checks. The text is not changed and must conform.
pub(super) const CHECKED_FORMATS: [&str; 6] =
    ["email", "uri", "hostname", "ipv4", "ipv6", "duration"];

/// Rejects the first keyword that is neither known nor an annotation.
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
            // The length of an unknown keyword is not limited.
            keyword: keyword.chars().take(LONGEST_ECHO).collect(),
            known: known.join(", "),
        }),
    }
}

/// The rules of a place that are checked only at the end. Adds its pattern to `patterns`.
pub(super) fn constraints(
    members: &Members,
    at: &str,
    rules: &[&str],
    patterns: &mut Patterns,
) -> Result<Members, SchemaError> {
    let mut found = Members::new();
    for &rule in rules {
        let Some(value) = members.get(rule) else { continue };
        let decimals = value.as_str().filter(|_| rule == "pattern").and_then(pattern_of_decimals);
        let value = &decimals.map_or_else(|| value.clone(), Value::from);
        let expected = expected_operand(rule);
        if !takes(rule, value) {
            let detail = format!("{rule:?} takes {expected}");
            return Err(SchemaError::malformed(&child_pointer(at, rule), detail));
        }
        if let Some(pattern) = value.as_str() {
            let refused = |refusal| refused_pattern(refusal, child_pointer(at, rule));
            patterns.admit(pattern).map_err(refused)?;
        }
        found.insert(rule.to_owned(), value.clone());
    }
    Ok(found)
}

/// Rewrites pydantic's decimal patterns without lookaround, which no linear-time engine supports; `None` for other
/// patterns.
///
/// The rewrite loses nothing. Only text that contains a digit is checked against it, which covers the first lookahead.
/// The other lookaheads bound a length that the rest of the pattern bounds as well.
pub(super) fn pattern_of_decimals(pattern: &str) -> Option<String> {
    let mut rest = pattern.strip_prefix("^(?!^[-+.]*$)[+-]?0*")?.to_owned();
    while let Some(start) = rest.find("(?=") {
        let end = start + rest[start..].find(')')?;
        rest.replace_range(start..=end, "");
    }
    Some(format!("^[+-]?0*{rest}"))
}

/// Whether a rule of a leaf applies to numbers and not to text.
pub(super) fn binds_numbers(rule: &str) -> bool {
    keywords_of("number").1.contains(&rule)
}

/// The error for the rejected pattern at `pointer`.
fn refused_pattern(refusal: PatternError, pointer: String) -> SchemaError {
    let detail = match refusal {
        PatternError::NotRegular => format!("\"pattern\" takes {}", expected_operand("pattern")),
        PatternError::TooHeavy(actual) => format!(
            "this pattern would take at least {actual} bytes to match; the limit is {MAX_PATTERN_BYTES}. \
             Shorten it, or lower its counts: {{1,5}} of a class makes five classes"
        ),
        PatternError::TooHeavyTogether(actual) => {
            let allowed = MAX_PATTERNS_BYTES;
            return SchemaError::PatternsTooHeavy { pointer, actual, allowed };
        }
    };
    SchemaError::Malformed { pointer, detail }
}

fn takes(rule: &str, value: &Value) -> bool {
    match rule {
        "pattern" => value.is_string(),
        "uniqueItems" => value.is_boolean(),
        "multipleOf" => value.as_f64().is_some_and(|step| step > 0.0),
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
        _ => value.is_u64(),
    }
}

fn expected_operand(rule: &str) -> &'static str {
    match rule {
        "pattern" => "a regular expression without look-around or back-references",
        "uniqueItems" => "true or false",
        "multipleOf" => "a number above zero",
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => "a number",
        _ => "a whole number from zero",
    }
}
