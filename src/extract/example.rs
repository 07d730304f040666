//! Detects the most common mistake: an example of the answer in place of its schema.
//!
//! Other services report "invalid schema" (run-llama/llama_cloud_services issue 570). Here the error shows the start of
//! the schema that the caller probably meant.

use serde_json::{Value, json};

use super::keywords::{Members, TYPES};

/// True for an object that has no keyword of a schema.
///
/// Receipts have a field `items` and documents have a field `type`. These two names therefore count as keywords only if
/// their values are valid in a schema.
pub(super) fn is_example(members: &Members) -> bool {
    const MARKS: [&str; 7] = ["properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "$schema"];
    let is_type = |name: &Value| {
        name.is_array() || name.as_str().is_some_and(|name| TYPES.contains(&name) || name == "null")
    };
    !members.is_empty()
        && !MARKS.iter().any(|mark| members.contains_key(*mark))
        && !members.get("items").is_some_and(Value::is_object)
        && !members.get("type").is_some_and(is_type)
}

/// The start of a schema derived from an example.
pub(super) fn sketch(example: &Members) -> String {
    const FIELDS: usize = 3;
    const NAME_CHARS: usize = 40;
    let fields = example.iter().take(FIELDS).map(|(name, value)| {
        let schema = match value {
            Value::Object(_) => json!({ "type": "object" }),
            Value::Array(_) => json!({ "type": "array" }),
            Value::Bool(_) => json!({ "type": "boolean" }),
            Value::Number(_) => json!({ "type": "number" }),
            Value::String(_) | Value::Null => json!({ "type": "string" }),
        };
        (name.chars().take(NAME_CHARS).collect(), schema)
    });
    json!({ "type": "object", "properties": fields.collect::<Members>() }).to_string()
}
