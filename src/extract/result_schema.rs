//! Writes the schema in the form of DashScope's `key_information_extraction`.
//!
//! `parameters.ocr_options.task_config.result_schema` is an object of field names whose values are hints for the model
//! (API reference of Qwen-OCR). It is nested like the answer, and a list has one template element. A hint states the
//! format as well as the meaning: a model that was asked for `YYYY-MM-DD` seldom returns an ambiguous date.

use serde_json::{Map, Value};

use super::choices::Choice;
use super::node::{Leaf, Node, NodeKind, Scalar};

/// The widest indent of common pretty printers (four spaces in Python and Java).
const INDENT: u64 = 4;

/// An upper bound on the bytes of a `result_schema` in the model's prompt, for any formatting by the provider.
///
/// Assumes the longest common form: each element on its own line with an indent of four spaces a level, and `\uXXXX`
/// for every non-ASCII character and for the characters that libraries escape for HTML. A byte-level tokeniser makes at
/// most one token from a byte, so this also bounds the tokens.
pub fn prompt_bytes_bound(result_schema: &Value) -> u64 {
    bytes_bound(result_schema, 0)
}

/// `inherited` is the description of the enclosing list, because a list cannot have a hint of its own.
fn template(node: &Node, inherited: Option<&str>) -> Value {
    match &node.kind {
        NodeKind::Object(properties) => properties
            .iter()
            .map(|property| (property.name.clone(), template(&property.node, None)))
            .collect::<Map<_, _>>()
            .into(),
        NodeKind::Array(item) => Value::Array(vec![template(item, node.meaning())]),
        NodeKind::Leaf(leaf) => hint(leaf, node.meaning().or(inherited)).into(),
    }
}

impl Node {
    /// The part of the `result_schema` for this place.
    pub(super) fn result_schema(&self) -> Value {
        template(self, None)
    }

    fn meaning(&self) -> Option<&str> {
        let said = |text: &'_ &str| !text.trim().is_empty();
        let description = self.description.as_deref().filter(said);
        description.or_else(|| self.title.as_deref().filter(said))
    }
}

fn hint(leaf: &Leaf, meaning: Option<&str>) -> String {
    let form = form(leaf);
    match (meaning, form.as_str()) {
        (None, _) => form,
        (Some(meaning), "") => meaning.to_owned(),
        (Some(meaning), form) => format!("{meaning} ({form})"),
    }
}

fn form(leaf: &Leaf) -> String {
    if !leaf.choices.is_empty() {
        let choices: Vec<String> = leaf.choices.iter().map(Choice::to_string).collect();
        return format!("one of: {}", choices.join(", "));
    }
    match leaf.scalar {
        Scalar::Text => "",
        Scalar::Date => "date as YYYY-MM-DD",
        Scalar::DateTime => "date and time as YYYY-MM-DDTHH:MM:SS",
        Scalar::Time => "time as HH:MM:SS",
        Scalar::Uuid(_) => "UUID",
        Scalar::IntegerOrText => "number or text",
        Scalar::Digits | Scalar::Decimal | Scalar::NumberOrText | Scalar::Number => "number",
        Scalar::Integer => "whole number",
        Scalar::Boolean => "true or false",
    }
    .to_owned()
}

fn bytes_bound(value: &Value, level: u64) -> u64 {
    // A newline and an indent before each element, and a comma after it.
    let around = |level: u64| 2 + INDENT * level;
    let brackets = 2 + around(level);
    match value {
        Value::Object(members) => members.iter().fold(brackets, |sum, (name, member)| {
            sum + around(level + 1)
                + text_bound(name)
                + " : ".len() as u64
                + bytes_bound(member, level + 1)
        }),
        Value::Array(items) => items
            .iter()
            .fold(brackets, |sum, item| sum + around(level + 1) + bytes_bound(item, level + 1)),
        Value::String(text) => text_bound(text),
        scalar => scalar.to_string().len() as u64,
    }
}

fn text_bound(text: &str) -> u64 {
    const ESCAPED: u64 = "\\uXXXX".len() as u64;
    let bound = |character: char| match character {
        '"' | '\\' | '/' => 2,
        '<' | '>' | '&' | '=' | '\'' => ESCAPED,
        ' '..='~' => 1,
        _ => ESCAPED * character.len_utf16() as u64,
    };
    2 + text.chars().map(bound).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::json;

    use super::*;
    use crate::extract::schema::Schema;

    fn schema(properties: &Value) -> Schema {
        let schema = json!({ "type": "object", "properties": properties });
        Schema::parse(&schema).expect("a schema")
    }

    #[test]
    fn a_leaf_becomes_its_meaning_and_its_form() {
        let schema = schema(&json!({
            "day": { "type": "string", "format": "date", "description": "Day of travel" },
            "fare": { "type": "number", "title": "Fare" },
            "kind": { "enum": ["A", "B", null] },
            "name": { "type": "string" },
            "seats": { "type": "integer", "description": " " },
            "paid": { "type": "boolean" },
        }));
        let expected = json!({
            "day": "Day of travel (date as YYYY-MM-DD)",
            "fare": "Fare (number)",
            "kind": "one of: A, B",
            "name": "",
            "seats": "whole number",
            "paid": "true or false",
        });
        assert_eq!(schema.result_schema().to_string(), expected.to_string());
    }

    #[test]
    fn a_list_becomes_one_element() {
        let schema = schema(&json!({
            "items": { "type": "array", "items": { "type": "object", "properties": {
                "sum": { "type": "number", "description": "Sum of the line" } } } },
            "tags": { "type": "array", "description": "Marks", "items": { "type": "string" } },
        }));
        let expected =
            json!({ "items": [{ "sum": "Sum of the line (number)" }], "tags": ["Marks"] });
        assert_eq!(schema.result_schema(), expected);
    }

    /// Formats like Python's `json.dumps(value, indent=4)`.
    fn printed(value: &Value) -> String {
        let mut bytes = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, format);
        value.serialize(&mut serializer).expect("memory");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let mut escaped = String::new();
        for character in text.chars() {
            match character {
                ' '..='~' | '\n' => escaped.push(character),
                wide => (0..wide.len_utf16()).for_each(|_| escaped.push_str("\\u0000")),
            }
        }
        escaped
    }

    #[test]
    fn the_bound_covers_a_printed_template() {
        for template in super::super::templates::Templates::built_in().all() {
            let printed = printed(&template.parsed.result_schema());
            let bound = template.parsed.prompt_bytes_bound();
            assert!(bound >= printed.len() as u64, "{}", template.name);
            assert!(bound <= 2 * printed.len() as u64, "{} is bounded loosely", template.name);
        }
    }

    proptest! {
        #[test]
        fn the_bound_covers_any_names_and_meanings(
            fields in proptest::collection::vec((any::<String>(), any::<String>()), 1..8),
        ) {
            let leaf = |(name, meaning)| (name, json!({ "type": "string", "description": meaning }));
            let properties: Map<String, Value> = fields.into_iter().map(leaf).collect();
            let inner = json!({ "type": "array", "items": {
                "type": "object", "properties": properties } });
            let schema = schema(&json!({ "list": inner }));
            prop_assert!(schema.prompt_bytes_bound() >= printed(&schema.result_schema()).len() as u64);
        }
    }
}
