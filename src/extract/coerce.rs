//! Converts one value of the model's answer to the type in the schema.
//!
//! The model answers with strings regardless of its instructions. A string is converted only if it has exactly one
//! reading. Otherwise the result is an error code, and the caller still receives the string. Coercion is idempotent.

use serde_json::Value;

use super::choices::{Choice, Key};
use super::fold::{fold, letters};
use super::node::{Leaf, Scalar};
use super::number::Decimal;
use super::{FieldErrorCode, date, number};
use crate::json::Tree;

/// Texts that models write if the document shows no value. `?` is not in the list: it marks a character that is present
/// but unreadable.
const NOTHING: &[&str] = &[
    "null",
    "none",
    "nil",
    "undefined",
    "n/a",
    "n.a.",
    "n/a.",
    "not available",
    "not applicable",
    "not found",
    "not provided",
    "not visible",
    "not specified",
    "无",
    "暂无",
    "未提供",
];

const YES: &[&str] =
    &["true", "yes", "y", "1", "on", "checked", "是", "对", "真", "✓", "✔", "☑", "√"];
const NO: &[&str] = &["false", "no", "n", "0", "off", "unchecked", "否", "不是", "假", "☐"];

/// True for a value that means "no value".
pub(super) fn is_nothing(value: &Tree) -> bool {
    match value {
        Tree::Null => true,
        Tree::String(text) => is_nothing_text(text),
        _ => false,
    }
}

/// Reads `value` as the type of the leaf; `None` if the model reports no value.
pub(super) fn coerce(leaf: &Leaf, value: &Tree) -> Result<Option<Value>, FieldErrorCode> {
    if !leaf.choices.is_empty() {
        return choose(leaf, value);
    }
    if is_nothing(value) {
        return Ok(None);
    }
    scalar(leaf.scalar, value).map(Some)
}

/// Looks up a listed value. This comes before the check for a missing value, because `N/A` may be a listed value.
fn choose(leaf: &Leaf, value: &Tree) -> Result<Option<Value>, FieldErrorCode> {
    let text = text(value).ok();
    let exact = text
        .as_deref()
        .and_then(|text| leaf.find(&Key::Text(text)).find(|choice| choice.as_str() == Some(text)));
    let of_number = |number: &Decimal| {
        leaf.find(&Key::Number(number.plain())).find(|choice| is_number(choice, number))
    };
    let found = exact.or_else(|| match leaf.scalar {
        Scalar::Number | Scalar::Integer => of_number(&decimal(value).ok()?),
        Scalar::Boolean => {
            let boolean = boolean(value).ok()?;
            leaf.choices.iter().find(|choice| **choice == Choice::Boolean(boolean))
        }
        _ => decimal(value).ok().and_then(|number| of_number(&number)).or_else(|| {
            let text = letters(text.as_deref()?);
            let alike =
                |choice: &&Choice| choice.as_str().is_some_and(|choice| letters(choice) == text);
            only(leaf.find(&Key::Letters(text.clone())).filter(alike))
        }),
    });
    match found {
        Some(choice) => Ok(Some(choice.value())),
        None if is_nothing(value) => Ok(None),
        None => Err(FieldErrorCode::NotInEnum),
    }
}

fn scalar(scalar: Scalar, value: &Tree) -> Result<Value, FieldErrorCode> {
    match scalar {
        Scalar::Text => text(value).map(Value::from),
        Scalar::Number => {
            decimal(value)?.to_number().map(Value::from).ok_or(FieldErrorCode::NumberTooLong)
        }
        Scalar::Integer => {
            let whole = decimal(value)?.whole().ok_or(FieldErrorCode::NotAnInteger)?;
            whole.to_number().map(Value::from).ok_or(FieldErrorCode::NumberTooLong)
        }
        Scalar::Boolean => boolean(value).map(Value::from),
        Scalar::Date => {
            let text = text(value).map_err(|_| FieldErrorCode::NotADate)?;
            date::date(&text).map(Value::from)
        }
        Scalar::DateTime => {
            let text = text(value).map_err(|_| FieldErrorCode::NotADateTime)?;
            date::date_time(&text).map(Value::from)
        }
        Scalar::Time => {
            let text = text(value).map_err(|_| FieldErrorCode::NotATime)?;
            date::time_of_day(&text).map(Value::from)
        }
        Scalar::Uuid(version) => uuid(version, value).map(Value::from),
        Scalar::Digits => decimal(value).map(|decimal| decimal.digits().into()),
        Scalar::Decimal => decimal(value).map(|decimal| number_or_digits(&decimal)),
        Scalar::NumberOrText => match decimal(value) {
            Ok(decimal) if !decimal.is_padded() => Ok(number_or_digits(&decimal)),
            _ => text(value).map(Value::from),
        },
        Scalar::IntegerOrText => {
            let text = text(value)?;
            let number = Decimal::of_json(&text).filter(|number| number.digits() == text);
            let number = number.and_then(|number| number.whole()?.to_number());
            Ok(number.map_or_else(|| text.into(), Value::from))
        }
    }
}

/// A number if a double holds it exactly, and its digits as text otherwise.
fn number_or_digits(decimal: &Decimal) -> Value {
    decimal.to_number().map_or_else(|| decimal.digits().into(), Value::from)
}

/// A UUID in lower case with hyphens (RFC 9562), of the requested version.
fn uuid(version: Option<usize>, value: &Tree) -> Result<String, FieldErrorCode> {
    let text = text(value).map_err(|_| FieldErrorCode::NotAUuid)?;
    let uuid = uuid::Uuid::try_parse(&fold(&text)).map_err(|_| FieldErrorCode::NotAUuid)?;
    let fits = version.is_none_or(|version| uuid.get_version_num() == version);
    fits.then(|| uuid.to_string()).ok_or(FieldErrorCode::NotAUuid)
}

/// Reads a value as text. A number becomes text with the digits that the model wrote.
fn text(value: &Tree) -> Result<String, FieldErrorCode> {
    match value {
        Tree::String(text) => Ok(text.trim().to_owned()),
        Tree::Number(_) | Tree::Bool(_) => Ok(value.to_string()),
        Tree::Null | Tree::Array(_) | Tree::Object(_) => Err(FieldErrorCode::NotAString),
    }
}

fn decimal(value: &Tree) -> Result<Decimal, FieldErrorCode> {
    match value {
        Tree::Number(digits) => Decimal::of_json(digits).ok_or(FieldErrorCode::NumberTooLong),
        Tree::String(text) => number::read(text).ok_or(FieldErrorCode::NotANumber),
        _ => Err(FieldErrorCode::NotANumber),
    }
}

fn boolean(value: &Tree) -> Result<bool, FieldErrorCode> {
    let text = match value {
        Tree::Bool(boolean) => return Ok(*boolean),
        Tree::Number(digits) => digits.clone(),
        Tree::String(text) => fold(text).trim().to_lowercase(),
        _ => return Err(FieldErrorCode::NotABoolean),
    };
    if YES.contains(&text.as_str()) {
        return Ok(true);
    }
    if NO.contains(&text.as_str()) {
        return Ok(false);
    }
    Err(FieldErrorCode::NotABoolean)
}

fn is_nothing_text(text: &str) -> bool {
    let text = fold(text).trim().to_lowercase();
    let only_dashes = text.chars().all(|character| matches!(character, '-' | '_' | ' '));
    only_dashes || NOTHING.contains(&text.as_str())
}

/// Whether a listed number equals this one: 1 equals 1.0.
fn is_number(choice: &Choice, decimal: &Decimal) -> bool {
    let Choice::Number(number) = choice else { return false };
    Decimal::of_json(&number.to_string()).is_some_and(|choice| choice.is(decimal))
}

/// Returns the element of an iterator that has exactly one.
fn only<'v>(mut choices: impl Iterator<Item = &'v Choice>) -> Option<&'v Choice> {
    let first = choices.next()?;
    choices.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const SCALARS: [Scalar; 12] = [
        Scalar::Text,
        Scalar::Date,
        Scalar::DateTime,
        Scalar::Time,
        Scalar::Uuid(None),
        Scalar::Digits,
        Scalar::Decimal,
        Scalar::NumberOrText,
        Scalar::IntegerOrText,
        Scalar::Number,
        Scalar::Integer,
        Scalar::Boolean,
    ];

    fn plain(scalar: Scalar, value: &Value) -> Result<Option<Value>, FieldErrorCode> {
        coerce(&Leaf::of(scalar, Vec::new()), &value.into())
    }

    /// Reads a number that the model wrote without quotes.
    fn bare(scalar: Scalar, digits: &str) -> Result<Option<Value>, FieldErrorCode> {
        coerce(&Leaf::of(scalar, Vec::new()), &Tree::Number(digits.to_owned()))
    }

    fn chosen(choices: &[Value], value: &Value) -> Result<Option<Value>, FieldErrorCode> {
        let scalar = if choices[0].is_string() { Scalar::Text } else { Scalar::Number };
        let choices = choices.iter().filter_map(Choice::of).collect();
        coerce(&Leaf::of(scalar, choices), &value.into())
    }

    #[test]
    fn what_says_that_there_is_nothing_is_null() {
        for nothing in ["", "  ", "null", "None", "N/A", "n.a.", "-", "--", "—", "无", "Not found"]
        {
            for scalar in SCALARS {
                assert_eq!(plain(scalar, &json!(nothing)), Ok(None), "{nothing:?} as {scalar:?}");
            }
        }
    }

    #[test]
    fn a_whole_number_may_have_a_fraction_of_zeros_and_no_other() {
        assert_eq!(plain(Scalar::Integer, &json!("53.00")), Ok(Some(json!(53))));
        assert_eq!(plain(Scalar::Integer, &json!(53.0)), Ok(Some(json!(53))));
        assert_eq!(plain(Scalar::Integer, &json!("1,234")), Ok(Some(json!(1234))));
        assert_eq!(plain(Scalar::Integer, &json!("53.5")), Err(FieldErrorCode::NotAnInteger));
        assert_eq!(plain(Scalar::Integer, &json!(53.5)), Err(FieldErrorCode::NotAnInteger));
    }

    #[test]
    fn a_boolean_is_said_in_several_ways() {
        for yes in [json!(true), json!("Yes"), json!("是"), json!("1"), json!(1), json!("TRUE ")] {
            assert_eq!(plain(Scalar::Boolean, &yes), Ok(Some(json!(true))), "{yes}");
        }
        for no in [json!(false), json!("no"), json!("否"), json!(0)] {
            assert_eq!(plain(Scalar::Boolean, &no), Ok(Some(json!(false))), "{no}");
        }
        for neither in [json!("maybe"), json!(2), json!([])] {
            assert_eq!(
                plain(Scalar::Boolean, &neither),
                Err(FieldErrorCode::NotABoolean),
                "{neither}"
            );
        }
    }

    #[test]
    fn a_text_keeps_its_letters_and_loses_the_space_around_it() {
        assert_eq!(plain(Scalar::Text, &json!(" 王?明 ")), Ok(Some(json!("王?明"))));
        assert_eq!(plain(Scalar::Text, &json!(3139)), Ok(Some(json!("3139"))));
        assert_eq!(plain(Scalar::Text, &json!(["a"])), Err(FieldErrorCode::NotAString));
    }

    #[test]
    fn a_number_without_quotes_is_text_in_the_digits_that_were_written() {
        for digits in ["24952000000010910141", "12.50", "1e5", "-0", "007", "0.10"] {
            assert_eq!(bare(Scalar::Text, digits), Ok(Some(json!(digits))));
        }
        let leaf =
            Leaf::of(Scalar::Text, ["7", "007"].map(|text| Choice::Text(text.into())).into());
        assert_eq!(coerce(&leaf, &Tree::Number("007".to_owned())), Ok(Some(json!("007"))));
    }

    #[test]
    fn a_number_that_a_double_does_not_hold_is_too_long_however_it_is_written() {
        for (digits, number) in [
            ("9007199254740991", json!(9_007_199_254_740_991_u64)),
            ("-9007199254740992", json!(-9_007_199_254_740_992_i64)),
            ("12.50", json!(12.5)),
            ("1e5", json!(100_000)),
            ("1.5e-3", json!(0.0015)),
            ("007", json!(7)),
            ("-0", json!(0)),
            ("100000000000000000000", json!(1e20)),
        ] {
            assert_eq!(bare(Scalar::Number, digits), Ok(Some(number)), "{digits}");
        }
        let long = [
            "24952000000010910141",
            "9007199254740993",
            "1234567890123456.78",
            "1e400",
            "1e-400",
            "1e99999999999",
            "1e9223372036854775807",
            "1e-9223372036854775808",
        ];
        for digits in long {
            assert_eq!(
                bare(Scalar::Number, digits),
                Err(FieldErrorCode::NumberTooLong),
                "{digits}"
            );
            assert!(bare(Scalar::Integer, digits).is_err(), "{digits}");
            if !digits.contains('e') {
                assert_eq!(
                    plain(Scalar::Number, &json!(digits)),
                    Err(FieldErrorCode::NumberTooLong)
                );
            }
        }
        assert_eq!(
            bare(Scalar::Integer, "24952000000010910141"),
            Err(FieldErrorCode::NumberTooLong)
        );
        assert_eq!(bare(Scalar::Integer, "12.50"), Err(FieldErrorCode::NotAnInteger));
    }

    #[test]
    fn a_time_of_day_is_in_iso_8601() {
        for (written, time) in
            [("14:05:33", "14:05:33"), ("2:05 PM", "14:05:00"), ("2024-01-05 09:30", "09:30:00")]
        {
            assert_eq!(plain(Scalar::Time, &json!(written)), Ok(Some(json!(time))), "{written}");
        }
        for none in
            [json!("noon"), json!("25:00"), json!(5), json!("abc 14:05"), json!("2024-01-05")]
        {
            assert_eq!(plain(Scalar::Time, &none), Err(FieldErrorCode::NotATime), "{none}");
        }
    }

    #[test]
    fn a_uuid_is_in_its_usual_form() {
        let usual = json!("67e55044-10b1-426f-9247-bb680e5fe0c8");
        for written in ["67E55044-10B1-426F-9247-BB680E5FE0C8", "67e5504410b1426f9247bb680e5fe0c8"]
        {
            assert_eq!(plain(Scalar::Uuid(None), &json!(written)), Ok(Some(usual.clone())));
            assert_eq!(plain(Scalar::Uuid(Some(4)), &json!(written)), Ok(Some(usual.clone())));
            assert_eq!(
                plain(Scalar::Uuid(Some(1)), &json!(written)),
                Err(FieldErrorCode::NotAUuid)
            );
        }
        assert_eq!(plain(Scalar::Uuid(None), &json!("67e5")), Err(FieldErrorCode::NotAUuid));
    }

    #[test]
    fn a_number_or_text_is_a_number_only_where_nothing_is_lost() {
        for (written, decimal, number, whole) in [
            ("RM 12.50", Some(json!(12.5)), json!(12.5), json!("RM 12.50")),
            ("5", Some(json!(5)), json!(5), json!(5)),
            ("007", Some(json!(7)), json!("007"), json!("007")),
            ("A-17", None, json!("A-17"), json!("A-17")),
            (
                "24952000000010910141",
                Some(json!("24952000000010910141")),
                json!("24952000000010910141"),
                json!("24952000000010910141"),
            ),
        ] {
            let value = json!(written);
            assert_eq!(plain(Scalar::Decimal, &value).ok().flatten(), decimal, "{written}");
            assert_eq!(plain(Scalar::NumberOrText, &value), Ok(Some(number)), "{written}");
            assert_eq!(plain(Scalar::IntegerOrText, &value), Ok(Some(whole)), "{written}");
        }
        assert_eq!(bare(Scalar::Digits, "12.50"), Ok(Some(json!("12.50"))));
        assert_eq!(plain(Scalar::Digits, &json!("€ 1.234,50")), Ok(Some(json!("1234.50"))));
    }

    #[test]
    fn a_choice_is_matched_exactly_before_case_is_ignored() {
        let sizes = [json!("S"), json!("s"), json!("Large")];
        assert_eq!(chosen(&sizes, &json!("s")), Ok(Some(json!("s"))));
        assert_eq!(chosen(&sizes, &json!(" LARGE ")), Ok(Some(json!("Large"))));
        assert_eq!(chosen(&sizes, &json!("huge")), Err(FieldErrorCode::NotInEnum));
    }

    #[test]
    fn a_choice_that_two_spellings_fit_is_not_guessed() {
        assert_eq!(
            chosen(&[json!("No"), json!("NO")], &json!("no")),
            Err(FieldErrorCode::NotInEnum)
        );
    }

    #[test]
    fn a_listed_word_for_nothing_is_a_value() {
        assert_eq!(
            chosen(&[json!("None"), json!("Some")], &json!("none")),
            Ok(Some(json!("None")))
        );
        assert_eq!(chosen(&[json!("Some")], &json!("none")), Ok(None));
    }

    #[test]
    fn a_listed_number_is_matched_by_its_value() {
        assert_eq!(chosen(&[json!(7), json!(19)], &json!("19.0 %")), Ok(Some(json!(19))));
        assert_eq!(chosen(&[json!(7), json!(19)], &json!("16%")), Err(FieldErrorCode::NotInEnum));
    }

    fn document_text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[-(]?[0-9０-９.,' ]{1,12}[-)元€%]?",
            "[0-9]{1,4}[-/. 年][0-9A-Za-z]{1,4}[-/. 月][0-9]{1,4}[日 T]?[0-9:Zz+]{0,8}",
        ]
    }

    proptest! {
        #[test]
        fn coercing_twice_is_coercing_once(text in document_text(), which in 0..SCALARS.len()) {
            let scalar = SCALARS[which];
            if let Ok(Some(once)) = plain(scalar, &json!(text)) {
                prop_assert_eq!(plain(scalar, &once), Ok(Some(once.clone())));
            }
        }

        #[test]
        fn an_amount_survives_every_way_of_printing_it(cents in -99_999_999_i64..99_999_999) {
            let (units, rest) = (cents.abs() / 100, cents.abs() % 100);
            let mut grouped = units.to_string();
            for at in (1..grouped.len()).rev().filter(|at| (units.to_string().len() - at) % 3 == 0) {
                grouped.insert(at, '|');
            }
            let sign = if cents < 0 { "-" } else { "" };
            let amount: f64 = format!("{sign}{units}.{rest:02}").parse().expect("a decimal");
            for (group, point) in [(",", "."), (".", ","), (" ", ","), ("'", "."), ("", ",")] {
                let printed = format!("{sign}€ {}{point}{rest:02}", grouped.replace('|', group));
                let number = plain(Scalar::Number, &json!(printed));
                let number = number.ok().flatten().and_then(|number| number.as_f64());
                prop_assert_eq!(number, Some(amount), "{}", printed);
            }
        }

        #[test]
        fn every_iso_date_is_itself(year in 1000_i16..=9999, month in 1_i8..=12, day in 1_i8..=28) {
            let text = json!(format!("{year:04}-{month:02}-{day:02}"));
            prop_assert_eq!(plain(Scalar::Date, &text), Ok(Some(text)));
        }
    }
}
