//! From what the model wrote to a JSON object.
//!
//! DashScope parses the answer itself and gives it as `kv_result`; where it could not, there is only
//! the text. The text is read leniently in form (a fence, prose around it, a comma too many, a line
//! break inside a string) and strictly in meaning: an answer that was cut off, two objects or one
//! field with two values are refused, since every repair would be a guess about somebody's document.
//! The caller asks the model once more.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why an answer holds no fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// There is no JSON object in the text, or nothing at all.
    #[error("the answer holds no JSON object")]
    NoObject,
    /// The text ends inside the object: the model ran into its limit of output tokens.
    #[error("the answer ends before its JSON does")]
    CutOff,
    /// Text in the form of JSON that is none.
    #[error("the answer is not JSON, at line {line}, column {column}")]
    NotJson {
        /// Counted from 1, from the beginning of the JSON.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// One field with two different values.
    #[error("the answer gives one field twice, with different values")]
    Contradiction,
    /// More than one object where one was asked for.
    #[error("the answer holds several JSON objects")]
    SeveralObjects,
}

/// Reads the model's answer: `kv_result` where it holds something, else the text.
///
/// A list of one object is taken for the object. The literals `NaN` and `Infinity` are null.
///
/// # Errors
///
/// [`AnswerError`]; none of them quotes the answer.
pub fn parse_answer(kv_result: Option<&Value>, text: &str) -> Result<Value, AnswerError> {
    match kv_result {
        Some(Value::Object(fields)) if !fields.is_empty() => Ok(Value::Object(fields.clone())),
        Some(Value::Array(items)) if !items.is_empty() => single(items.clone()),
        Some(Value::String(inner)) if !inner.trim().is_empty() => parse_text(inner),
        // The provider found no field: that is an answer, unless the text says otherwise.
        Some(Value::Object(empty)) if text.trim().is_empty() => Ok(Value::Object(empty.clone())),
        _ => parse_text(text),
    }
}

fn parse_text(text: &str) -> Result<Value, AnswerError> {
    let start = object_start(text).ok_or(AnswerError::NoObject)?;
    let json = strict_json(&text[start..]);
    let mut values = serde_json::Deserializer::from_str(&json).into_iter::<Unequivocal>();
    let value = match values.next() {
        Some(Ok(Unequivocal(value))) => value,
        Some(Err(error)) => return Err(error.into()),
        None => return Err(AnswerError::NoObject),
    };
    if object_start(&json[values.byte_offset()..]).is_some() {
        return Err(AnswerError::SeveralObjects);
    }
    match value {
        Value::Array(items) => single(items),
        value => Ok(value),
    }
}

fn single(items: Vec<Value>) -> Result<Value, AnswerError> {
    let mut objects = items.into_iter();
    match (objects.next(), objects.next()) {
        (Some(object @ Value::Object(_)), None) => Ok(object),
        (Some(Value::Object(_)), Some(_)) => Err(AnswerError::SeveralObjects),
        _ => Err(AnswerError::NoObject),
    }
}

/// Where an object or a list of objects begins; a brace in prose, such as `{total}`, is none.
///
/// Nothing behind a first beginning is tried: inside a broken object stand whole ones, and one of
/// those would pass for the answer.
fn object_start(text: &str) -> Option<usize> {
    let begins = |at: usize| {
        let mut inside = text[at + 1..].trim_start().chars();
        matches!(
            (text.as_bytes()[at], inside.next()),
            (b'{', Some('"' | '}') | None) | (b'[', Some('{'))
        )
    };
    text.match_indices(['{', '[']).map(|(at, _)| at).find(|at| begins(*at))
}

/// Rewrites what models write beside the rules of JSON; strings keep their meaning.
fn strict_json(text: &str) -> String {
    let mut json = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = match character {
            '"' => copy_string(rest, &mut json),
            ',' if closes(&rest[1..]) => 1,
            _ => copy_outside_string(rest, character, &mut json),
        };
        rest = &rest[length..];
    }
    json
}

/// Copies one character, or null for a number that JSON does not have; gives the length read.
fn copy_outside_string(text: &str, first: char, json: &mut String) -> usize {
    for not_finite in ["-Infinity", "Infinity", "NaN"] {
        if text.starts_with(not_finite) {
            json.push_str("null");
            return not_finite.len();
        }
    }
    json.push(first);
    first.len_utf8()
}

/// True where nothing stands before the end of the object or list: the comma was one too many.
fn closes(text: &str) -> bool {
    text.trim_start().starts_with(['}', ']'])
}

/// Copies the string that `text` begins with, its control characters escaped; gives its length.
fn copy_string(text: &str, json: &mut String) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            '\u{0}'..='\u{1f}' => push_escaped(character, json),
            character => json.push(character),
        }
        if character == '"' && at > 0 && !escaped {
            return at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    text.len()
}

fn push_escaped(control: char, json: &mut String) {
    let escaped = Value::from(control.to_string()).to_string();
    json.push_str(escaped.trim_matches('"'));
}

/// A JSON value whose objects give no name two values.
struct Unequivocal(Value);

/// What [`Unequivocal`] says inside serde's error, which carries nothing but text.
const CONTRADICTION: &str = "one name with two values";

impl From<serde_json::Error> for AnswerError {
    fn from(error: serde_json::Error) -> Self {
        if error.is_eof() {
            return Self::CutOff;
        }
        if error.is_data() && error.to_string().starts_with(CONTRADICTION) {
            return Self::Contradiction;
        }
        Self::NotJson { line: error.line(), column: error.column() }
    }
}

impl<'de> Deserialize<'de> for Unequivocal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnequivocalVisitor).map(Self)
    }
}

struct UnequivocalVisitor;

impl<'de> Visitor<'de> for UnequivocalVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unequivocal(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unequivocal(value))) = members.next_entry::<String, Unequivocal>()? {
            if object.get(&name).is_some_and(|known| *known != value) {
                return Err(A::Error::custom(CONTRADICTION));
            }
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(text: &str) -> Result<Value, AnswerError> {
        parse_answer(None, text)
    }

    #[test]
    fn the_fields_that_the_provider_parsed_go_before_the_text() {
        let parsed = json!({ "total": "5" });
        assert_eq!(parse_answer(Some(&parsed), "{\"total\": \"6\"}"), Ok(parsed.clone()));
        assert_eq!(parse_answer(Some(&json!([parsed])), "{"), Ok(parsed));
    }

    #[test]
    fn no_fields_and_no_text_is_an_empty_answer() {
        assert_eq!(parse_answer(Some(&json!({})), " "), Ok(json!({})));
    }

    #[test]
    fn no_fields_because_the_text_was_cut_off_is_an_error() {
        assert_eq!(parse_answer(Some(&json!({})), "```json\n{\"a\": 1"), Err(AnswerError::CutOff));
    }

    #[test]
    fn fences_prose_and_a_byte_order_mark_are_no_part_of_the_answer() {
        let answer = Ok(json!({ "a": "{1}" }));
        for written in [
            "{\"a\": \"{1}\"}",
            "\u{feff}{\"a\": \"{1}\"}",
            "```json\n{\"a\": \"{1}\"}\n```",
            "```\n{\"a\": \"{1}\"}\n```\nThat is all.",
            "The {fields} [1] are:\n{\"a\": \"{1}\"} as you said \"here",
            "[{\"a\": \"{1}\"}]",
        ] {
            assert_eq!(text(written), answer, "{written}");
        }
    }

    #[test]
    fn a_comma_too_many_is_overlooked() {
        assert_eq!(
            text("{\"a\": [1, 2, ], \"b\": \",}\",\n}"),
            Ok(json!({ "a": [1, 2], "b": ",}" }))
        );
        assert!(matches!(text("{\"a\": 1,,}"), Err(AnswerError::NotJson { .. })));
    }

    #[test]
    fn numbers_that_json_does_not_have_are_null() {
        let written = "{\"a\": NaN, \"b\": -Infinity, \"c\": [Infinity], \"d\": \"NaN\"}";
        assert_eq!(text(written), Ok(json!({ "a": null, "b": null, "c": [null], "d": "NaN" })));
    }

    #[test]
    fn a_line_break_inside_a_string_is_kept() {
        assert_eq!(text("{\"a\": \"1\n2\t3\\\"4\"}"), Ok(json!({ "a": "1\n2\t3\"4" })));
    }

    #[test]
    fn an_answer_that_was_cut_off_is_never_repaired() {
        let whole =
            "{\"items\": [{\"name\": \"a\", \"sum\": \"1\"}, {\"name\": \"b\"}], \"total\": \"2\"}";
        for end in 2..whole.len() {
            assert_eq!(text(&whole[..end]), Err(AnswerError::CutOff), "{}", &whole[..end]);
        }
    }

    #[test]
    fn a_whole_object_inside_a_broken_one_is_not_the_answer() {
        let broken = text("{\"a\" 1, \"b\": {\"c\": 2}}");
        assert_eq!(broken, Err(AnswerError::NotJson { line: 1, column: 6 }));
    }

    #[test]
    fn one_field_with_two_values_is_refused() {
        assert_eq!(text("{\"a\": 1, \"a\": 2}"), Err(AnswerError::Contradiction));
        assert_eq!(text("{\"a\": 1, \"a\": 1}"), Ok(json!({ "a": 1 })));
    }

    #[test]
    fn two_objects_are_refused() {
        assert_eq!(text("{\"a\": 1}\n{\"a\": 2}"), Err(AnswerError::SeveralObjects));
        assert_eq!(text("[{\"a\": 1}, {\"a\": 2}]"), Err(AnswerError::SeveralObjects));
    }

    #[test]
    fn a_text_without_an_object_is_refused() {
        for none in ["", "null", "I see a cat.", "[1, 2]", "{total}", "{'a': 1}"] {
            assert_eq!(text(none).err(), Some(AnswerError::NoObject), "{none:?}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_is_spent() {
        let deep = "{\"a\":".repeat(100_000);
        assert!(matches!(text(&deep), Err(AnswerError::NotJson { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(written in any::<String>()) {
            if let Ok(answer) = text(&written) {
                prop_assert!(answer.is_object());
            }
        }

        #[test]
        fn what_serde_writes_is_read_back(name in any::<String>(), value in any::<String>()) {
            let object = json!({ name: { "x": [value, 1.5, null, true] } });
            let fenced = format!("```json\n{object:#}\n```");
            prop_assert_eq!(text(&fenced), Ok(object));
        }
    }
}
