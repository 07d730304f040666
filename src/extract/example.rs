//! The most common mistake: an example of the wanted answer where its schema should stand.
//!
//! Other services answer it with "invalid schema" (run-llama/llama_cloud_services issue 570). Here it
//! is recognised, and the error shows the schema that was meant.

use serde_json::{Value, json};

use super::keywords::{Members, TYPES};

/// True for an object without any mark of a schema.
///
/// Receipts have `items` and documents have a `type`, so these two words are a mark only with a
/// value that a schema would give them.
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

/// The beginning of the schema that an example suggests.
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
