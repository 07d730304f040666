//! Reads the JSON object from a model's answer.
//!
//! DashScope parses the answer and returns the result as `kv_result`. If its parser fails, only the text is available.
//! This module is lenient about the form of the text and strict about its meaning. Code fences, prose or reasoning
//! before the object, Python syntax, an object inside a string and a repeated object are accepted, because each has
//! only one meaning. A truncated answer, two different objects and one field with two values are errors: a repair would
//! have to guess the contents of the document. The caller retries the model once.

use std::collections::HashMap;

use crate::json::{self, Damage, Spelling, Tree};

/// Prefixes of the tags that open and close a model's reasoning: `<think>`, `<thinking>`.
const THOUGHT: [&str; 2] = ["<think", "</think"];

/// Why an answer yields no fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The text contains no JSON object, or is empty.
    #[error("the answer holds no JSON object")]
    NoObject,
    /// The text ends inside the object: the model reached its limit of output tokens.
    #[error("the answer ends before its JSON does")]
    CutOff,
    /// The text looks like JSON but does not parse.
    #[error("the answer is not JSON, at line {line}, column {column}")]
    NotJson {
        /// Counted from 1, from the beginning of the JSON.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// One field has two different values.
    #[error("the answer gives one field twice, with different values")]
    Contradiction,
    /// The answer contains several objects; one was requested.
    #[error("the answer holds several JSON objects")]
    SeveralObjects,
}

/// Reads the model's answer from `kv_result` if it has content, and from the text otherwise.
///
/// A list that contains one object is read as that object. The literals `NaN` and `Infinity` are read as null.
///
/// # Errors
///
/// [`AnswerError`]. No variant quotes the answer.
pub fn parse_answer(kv_result: Option<&Tree>, text: &str) -> Result<Tree, AnswerError> {
    match kv_result {
        Some(object @ Tree::Object(members)) if !members.is_empty() => parsed(object, text),
        Some(list @ Tree::Array(items)) if !items.is_empty() => parsed(list, text),
        Some(Tree::String(inner)) if !inner.trim().is_empty() => parse_text(inner),
        // An empty object means that the provider found no fields. That is an answer unless the text holds one.
        Some(empty @ Tree::Object(_)) if text.trim().is_empty() => Ok(empty.clone()),
        _ => parse_text(text),
    }
}

/// The object that the provider parsed.
fn parsed(kv_result: &Tree, text: &str) -> Result<Tree, AnswerError> {
    let parsed = single(kv_result.clone())?;
    Ok(as_written(&parsed, text).unwrap_or(parsed))
}

/// Returns the tree from the text if it equals `parsed`, and `None` otherwise. The text has every digit of a number
/// that the model wrote; the provider's parser may have rounded it.
pub fn as_written(parsed: &Tree, text: &str) -> Option<Tree> {
    let written = parse_text(text).ok()?;
    is_same(&written, parsed, Numbers::Rounded).then_some(written)
}

/// Parses the object or list that a string contains as JSON.
pub(super) fn inside_string(text: &str) -> Option<Tree> {
    let text = text.trim();
    if !text.starts_with(['{', '[']) {
        return None;
    }
    let (tree, length) = json::prefix(text, Spelling::Loose).ok()?;
    (length == text.len()).then(|| unequivocal(tree).ok()).flatten()
}

fn parse_text(text: &str) -> Result<Tree, AnswerError> {
    match parse_objects(text) {
        Err(AnswerError::NoObject) => {
            let string = first_string(text).ok_or(AnswerError::NoObject)?;
            parse_objects(&string)
        }
        answered => answered,
    }
}

/// Returns the first string of a text if it may contain an object.
fn first_string(text: &str) -> Option<String> {
    let (string, _) = json::string_prefix(&text[text.find('"')?..], Spelling::Loose).ok()?;
    string.trim_start().starts_with(['{', '[']).then_some(string)
}

/// Returns the only object in a text. Identical repetitions are allowed.
fn parse_objects(text: &str) -> Result<Tree, AnswerError> {
    let [open, close] = THOUGHT;
    if text.trim_start().starts_with(open) && !text.contains(close) {
        return Err(AnswerError::CutOff);
    }
    let mut found: Result<Tree, AnswerError> = Err(AnswerError::NoObject);
    let mut at = 0;
    while let Some(mark) = next_mark(&text[at..]) {
        at += mark;
        if text[at..].starts_with(close) {
            // Objects inside the reasoning are not part of the answer.
            found = Err(AnswerError::NoObject);
            at += close.len();
            continue;
        }
        match object_at(text, at) {
            Ok((object, length)) => {
                at += length;
                found = with_another(found, object);
            }
            Err(error) => {
                let end_of_thought = text[at..].find(close);
                at += end_of_thought.ok_or(error)?;
            }
        }
    }
    found
}

fn object_at(text: &str, at: usize) -> Result<(Tree, usize), AnswerError> {
    let text = &text[at..];
    let (tree, length) =
        json::prefix(text, Spelling::Loose).map_err(|damage| AnswerError::of(damage, text))?;
    Ok((single(tree)?, length))
}

/// Combines the previous result with another object. An empty object does not conflict with a non-empty one.
fn with_another(found: Result<Tree, AnswerError>, object: Tree) -> Result<Tree, AnswerError> {
    let is_empty = |tree: &Tree| *tree == Tree::Object(Vec::new());
    match found {
        Ok(known) if is_empty(&object) || is_same(&known, &object, Numbers::AsWritten) => Ok(known),
        Ok(known) if !is_empty(&known) => Err(AnswerError::SeveralObjects),
        Err(AnswerError::SeveralObjects) => Err(AnswerError::SeveralObjects),
        _ => Ok(object),
    }
}

/// Returns `tree` if it is an object, or the object in a list whose elements all equal it.
fn single(tree: Tree) -> Result<Tree, AnswerError> {
    match unequivocal(tree)? {
        object @ Tree::Object(_) => Ok(object),
        Tree::Array(items) => {
            let mut items = items.into_iter();
            let Some(object @ Tree::Object(_)) = items.next() else {
                return Err(AnswerError::NoObject);
            };
            let is_repeated = |item: Tree| is_same(&item, &object, Numbers::AsWritten);
            if items.all(is_repeated) { Ok(object) } else { Err(AnswerError::SeveralObjects) }
        }
        _ => Err(AnswerError::NoObject),
    }
}

/// Finds the next start of an object or of a list of objects, or the next end of reasoning. A brace in prose, such as
/// `{total}`, does not match.
///
/// The search does not continue inside a broken object. Objects nested in it are complete and would be mistaken for the
/// answer.
fn next_mark(text: &str) -> Option<usize> {
    let begins = |at: usize| {
        let mut inside = text[at + 1..].trim_start().chars();
        match text.as_bytes()[at] {
            b'{' => matches!(inside.next(), Some('"' | '\'' | '}') | None),
            b'[' => inside.next() == Some('{'),
            _ => text[at..].starts_with(THOUGHT[1]),
        }
    };
    text.match_indices(['{', '[', '<']).map(|(at, _)| at).find(|at| begins(*at))
}

/// Returns the tree with duplicate names merged in each object.
fn unequivocal(tree: Tree) -> Result<Tree, AnswerError> {
    match tree {
        Tree::Array(items) => {
            items.into_iter().map(unequivocal).collect::<Result<_, _>>().map(Tree::Array)
        }
        Tree::Object(members) => {
            let mut kept: Vec<(String, Tree)> = Vec::with_capacity(members.len());
            let mut places = HashMap::with_capacity(members.len());
            for (name, value) in members {
                let value = unequivocal(value)?;
                let place = *places.entry(name.clone()).or_insert(kept.len());
                match kept.get(place) {
                    None => kept.push((name, value)),
                    Some((_, known)) if is_same(known, &value, Numbers::AsWritten) => {}
                    Some(_) => return Err(AnswerError::Contradiction),
                }
            }
            Ok(Tree::Object(kept))
        }
        scalar => Ok(scalar),
    }
}

/// How two numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// Equal if their characters are equal.
    AsWritten,
    /// Equal if they round to the same double.
    Rounded,
}

/// Whether two trees are equal. The order of members is ignored; each name must occur once.
fn is_same(one: &Tree, other: &Tree, numbers: Numbers) -> bool {
    match (one, other) {
        (Tree::Number(_), Tree::Number(_)) if numbers == Numbers::Rounded => {
            one.as_f64() == other.as_f64()
        }
        (Tree::Array(items), Tree::Array(others)) => {
            items.len() == others.len()
                && items.iter().zip(others).all(|(one, other)| is_same(one, other, numbers))
        }
        (Tree::Object(members), Tree::Object(others)) => {
            let (members, others) = (sorted(members), sorted(others));
            members.len() == others.len()
                && members.iter().zip(others).all(|((name, one), (other_name, other))| {
                    name == other_name && is_same(one, other, numbers)
                })
        }
        _ => one == other,
    }
}

fn sorted(members: &[(String, Tree)]) -> Vec<&(String, Tree)> {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    sorted
}

impl AnswerError {
    fn of(damage: Damage, text: &str) -> Self {
        let Damage::NotJson { at } = damage else { return Self::CutOff };
        let before = &text[..at];
        let line = before.rfind('\n').map_or(0, |end| end + 1);
        Self::NotJson {
            line: before.matches('\n').count() + 1,
            column: before[line..].chars().count() + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn text(text: &str) -> Result<Tree, AnswerError> {
        parse_answer(None, text)
    }

    /// The expected result for an answer.
    #[expect(clippy::unnecessary_wraps, reason = "an answer is compared with it")]
    fn tree(value: &Value) -> Result<Tree, AnswerError> {
        Ok(Tree::from(value))
    }

    #[test]
    fn the_fields_that_the_provider_parsed_go_before_the_text() {
        let parsed = Tree::from(json!({ "total": "5" }));
        assert_eq!(parse_answer(Some(&parsed), "{\"total\": \"6\"}"), Ok(parsed.clone()));
        assert_eq!(parse_answer(Some(&Tree::Array(vec![parsed.clone()])), "{"), Ok(parsed));
    }

    #[test]
    fn no_fields_and_no_text_is_an_empty_answer() {
        assert_eq!(parse_answer(Some(&json!({}).into()), " "), tree(&json!({})));
    }

    #[test]
    fn no_fields_because_the_text_was_cut_off_is_an_error() {
        let answer = parse_answer(Some(&json!({}).into()), "```json\n{\"a\": 1");
        assert_eq!(answer, Err(AnswerError::CutOff));
    }

    #[test]
    fn fences_prose_and_a_byte_order_mark_are_no_part_of_the_answer() {
        let answer = tree(&json!({ "a": "{1}" }));
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
            tree(&json!({ "a": [1, 2], "b": ",}" }))
        );
        assert!(matches!(text("{\"a\": 1,,}"), Err(AnswerError::NotJson { .. })));
    }

    #[test]
    fn numbers_that_json_does_not_have_are_null() {
        let written = "{\"a\": NaN, \"b\": -Infinity, \"c\": [Infinity], \"d\": \"NaN\"}";
        assert_eq!(text(written), tree(&json!({ "a": null, "b": null, "c": [null], "d": "NaN" })));
    }

    #[test]
    fn a_line_break_inside_a_string_is_kept() {
        assert_eq!(text("{\"a\": \"1\n2\t3\\\"4\"}"), tree(&json!({ "a": "1\n2\t3\"4" })));
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
        assert_eq!(text("{\"a\": 1, \"a\": 1}"), tree(&json!({ "a": 1 })));
    }

    #[test]
    fn two_objects_are_refused() {
        assert_eq!(text("{\"a\": 1}\n{\"a\": 2}"), Err(AnswerError::SeveralObjects));
        assert_eq!(text("[{\"a\": 1}, {\"a\": 2}]"), Err(AnswerError::SeveralObjects));
    }

    #[test]
    fn what_has_one_meaning_is_taken() {
        let answer = tree(&json!({ "a": "b", "n": null, "t": true, "f": false }));
        let object = r#"{"a": "b", "n": null, "t": true, "f": false}"#;
        let python = "{'a': 'b', 'n': None, 't': True, 'f': False,}";
        let string = Value::from(object).to_string();
        for written in [
            python.to_owned(),
            string.clone(),
            format!("```json\n{string}\n```"),
            format!("{object}\n{object}"),
            format!("[{object}, {object}]"),
            format!("Draft: {object}\n```json\n{object}\n```"),
            format!("{python}\n{object}"),
            format!(r#"{object} {{"f":false,"t":true,"n":null,"a":"b"}} {{}}"#),
            format!("<think>Is it {{\"a\": 5 or {{'x'}}?</think>\n{object}"),
            format!("<think>\n{{\"a\": \"x\"}} is wrong.\n</think>\n\n```json\n{object}\n```"),
            format!("<thinking>{{\"a\": 1}}</thinking>{object}"),
            format!("it may be {{\"a\": 1}}</think>{object}"),
        ] {
            assert_eq!(text(&written), answer, "{written}");
        }
        assert_eq!(
            parse_answer(Some(&Tree::String(object.to_owned())), ""),
            answer,
            "the provider may give the object as a string"
        );
    }

    #[test]
    fn what_has_two_meanings_is_not() {
        for (written, error) in [
            ("{\"a\": 1} {\"a\": 1.0}", AnswerError::SeveralObjects),
            ("{\"a\": 1} {\"a\": 1, \"b\": 2}", AnswerError::SeveralObjects),
            ("{\"a\": 1} {\"a\": 2} {\"a\": 1}", AnswerError::SeveralObjects),
            ("<think>{\"a\": 1}", AnswerError::CutOff),
            ("<think>x</think>{\"a\": ", AnswerError::CutOff),
            ("{\"a\": {\"b\": 1, \"b\": \"1\"}}", AnswerError::Contradiction),
        ] {
            assert_eq!(text(written), Err(error), "{written}");
        }
        let note = "{\"note\": \"</think>{'a': 1}\"}";
        assert_eq!(text(note), tree(&json!({ "note": "</think>{'a': 1}" })), "it is content");
    }

    #[test]
    fn numbers_that_the_provider_rounded_are_taken_from_the_text() {
        let parsed = Tree::from(json!({ "n": 2.495_200_000_001_091e19, "p": [12.5] }));
        let written = "```json\n{\"n\": 24952000000010910141, \"p\": [12.50]}\n```";
        let answer = parse_answer(Some(&parsed), written).unwrap();
        assert_eq!(answer.to_string(), "{\"n\":24952000000010910141,\"p\":[12.50]}");
        let other = parse_answer(Some(&parsed), "{\"n\": 5, \"p\": [12.50]}").unwrap();
        assert_eq!(other, parsed);
    }

    #[test]
    fn a_text_without_an_object_is_refused() {
        for none in ["", "null", "I see a cat.", "[1, 2]", "{total}"] {
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
        fn any_text_of_braces_quotes_and_thoughts_is_answered(
            written in r#"(\{|\}|\[|\]|"|'|:|,|\\|<think>|</think>|a|1|None| ){0,24}"#,
        ) {
            if let Ok(answer) = text(&written) {
                prop_assert!(answer.is_object());
            }
        }

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
            prop_assert_eq!(text(&fenced), tree(&object));
        }
    }
}
