//! An example of the answer in place of its schema, the most common mistake. Other services report "invalid schema"
//! (run-llama/llama_cloud_services issue 570). Here the example becomes the schema that it suggests, and a warning says
//! so.
//!
//! Each field gets the type of its value. What has no clear type is refused with the start of a schema: an empty object
//! or list, a list of different things, a list in a list, and an object that has a keyword of a schema beside values.

use std::mem;

use serde_json::{Value, json};

use super::date;
use super::keywords::{Members, TYPES};
use super::limits::MAX_PROPERTIES;

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

/// The schema that an example suggests; none if a value has no clear type.
pub(super) fn schema_of(example: &Members) -> Option<Value> {
    Shape::of_members(example).map(Shape::into_schema)
}

/// The type that a value suggests.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// Null or an empty text, which fits a text and whatever else stands in its place.
    Nothing,
    Text,
    /// A text with this format.
    Formatted(&'static str),
    Number,
    Boolean,
    Object(Vec<(String, Self)>),
    List(Box<Self>),
}

impl Shape {
    fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Nothing,
            Value::Bool(_) => Self::Boolean,
            Value::Number(_) => Self::Number,
            Value::String(text) => Self::of_text(text),
            Value::Array(items) => Self::List(Box::new(Self::of_items(items)?)),
            Value::Object(members) => Self::of_members(members)?,
        })
    }

    fn of_members(members: &Members) -> Option<Self> {
        let fields = members.iter().map(|(name, value)| Some((name.clone(), Self::of(value)?)));
        is_example(members).then(|| fields.collect::<Option<_>>().map(Self::Object))?
    }

    /// The common type of the elements of a list.
    fn of_items(items: &[Value]) -> Option<Self> {
        let mut shapes = items.iter().map(Self::of);
        let first = shapes.next()??;
        let joined = shapes.try_fold(first, |joined, next| joined.joined(next?))?;
        (!matches!(joined, Self::List(_))).then_some(joined)
    }

    /// A date in the order of day and month that is not clear stays a text, because a schema for dates would refuse it.
    fn of_text(text: &str) -> Self {
        if text.trim().is_empty() {
            Self::Nothing
        } else if date::date_time(text).is_ok() {
            Self::Formatted("date-time")
        } else if date::date(text).is_ok() {
            Self::Formatted("date")
        } else {
            Self::Text
        }
    }

    /// The type of which both are; none if there is none.
    fn joined(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Nothing, shape) | (shape, Self::Nothing) => Some(shape),
            (one, other) if one == other => Some(one),
            (Self::Text | Self::Formatted(_), Self::Text | Self::Formatted(_)) => Some(Self::Text),
            (Self::List(one), Self::List(other)) => Some(Self::List(Box::new(one.joined(*other)?))),
            (Self::Object(mut fields), Self::Object(others)) => {
                for (name, other) in others {
                    // So many fields are refused in any case.
                    let is_refused = fields.len() > MAX_PROPERTIES;
                    let mut known = fields.iter_mut().filter(|_| !is_refused);
                    match known.find(|(known, _)| *known == name) {
                        Some((_, shape)) => {
                            *shape = mem::replace(shape, Self::Nothing).joined(other)?;
                        }
                        None => fields.push((name, other)),
                    }
                }
                Some(Self::Object(fields))
            }
            _ => None,
        }
    }

    fn into_schema(self) -> Value {
        match self {
            Self::Nothing | Self::Text => json!({ "type": "string" }),
            Self::Formatted(format) => json!({ "type": "string", "format": format }),
            Self::Number => json!({ "type": "number" }),
            Self::Boolean => json!({ "type": "boolean" }),
            Self::List(element) => json!({ "type": "array", "items": element.into_schema() }),
            Self::Object(fields) => {
                let fields = fields.into_iter().map(|(name, shape)| (name, shape.into_schema()));
                json!({ "type": "object", "properties": fields.collect::<Members>() })
            }
        }
    }
}

/// The start of a schema for an example without a clear type.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(example: &Value) -> Option<Value> {
        schema_of(example.as_object().unwrap())
    }

    #[test]
    fn each_field_gets_the_type_of_its_value() {
        let example = json!({
            "type": "receipt", "shop": "ACME", "phone": "", "note": null, "total": 12, "paid": true,
            "date": "2026-03-14", "printed": "14.03.2026", "at": "2026-03-14 10:30",
            "unclear": "03/04/2026",
            "seller": { "name": "x" },
            "tags": ["a", ""],
            "items": [{ "name": "a", "price": 1.5 }, { "name": null, "code": "7" }],
        });
        let text = json!({ "type": "string" });
        let date = json!({ "type": "string", "format": "date" });
        let object = |fields: Value| json!({ "type": "object", "properties": fields });
        let expected = object(json!({
            "type": text, "shop": text, "phone": text, "note": text,
            "total": { "type": "number" }, "paid": { "type": "boolean" },
            "date": date, "printed": date, "at": { "type": "string", "format": "date-time" },
            "unclear": text,
            "seller": object(json!({ "name": text })),
            "tags": { "type": "array", "items": text },
            "items": { "type": "array", "items": object(json!({
                "name": text, "price": { "type": "number" }, "code": text,
            })) },
        }));
        assert_eq!(of(&example), Some(expected));
    }

    #[test]
    fn what_has_no_clear_type_makes_no_schema() {
        for value in [
            json!({}),
            json!([]),
            json!([1, "a"]),
            json!([[1]]),
            json!([{ "a": 1 }, { "a": "x" }]),
            json!([{}]),
            json!({ "type": "string" }),
            json!({ "a": { "enum": ["x"] } }),
            json!([{ "properties": {} }]),
        ] {
            assert_eq!(of(&json!({ "a": value })), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn an_example_follows_the_schema_that_is_made_of_it(
            values in prop::collection::btree_map("[a-z]{1,4}", prop_oneof![
                any::<bool>().prop_map(Value::from),
                any::<i32>().prop_map(Value::from),
                "[a-z0-9 ./-]{1,10}".prop_map(Value::from),
                Just(json!([{ "x": 1 }, { "y": "z" }])),
            ], 1..6),
        ) {
            let example = json!(values);
            let Some(schema) = of(&example) else { return Ok(()) };
            prop_assert!(super::super::schema::Schema::parse(&schema).is_ok(), "{schema}");
            // Formats are annotations here, because a printed date is no RFC 3339 date.
            prop_assert!(jsonschema::is_valid(&schema, &example), "{schema}");
        }
    }
}
