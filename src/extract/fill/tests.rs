use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::extract::answer::parse_answer;
use crate::extract::schema::tests::of_pydantic;
use crate::extract::templates::Templates;

fn schema(properties: &Value) -> Schema {
    schema_requiring(properties, &[])
}

fn schema_requiring(properties: &Value, required: &[&str]) -> Schema {
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    Schema::parse(&schema).expect("a schema")
}

impl Schema {
    /// The result for an answer.
    fn filled(&self, answer: &Value, page: u32) -> Extraction {
        self.filled_pages(&[(page, answer)])
    }

    /// The result for the answers for several pages.
    fn filled_pages(&self, answers: &[(u32, &Value)]) -> Extraction {
        let answers = answers.iter().map(|(page, answer)| PageAnswer::of(*page, &(*answer).into()));
        self.fill_pages(answers.collect())
    }

    /// The result for an answer as it was parsed.
    fn filled_tree(&self, answer: &Tree) -> Extraction {
        self.fill_pages(vec![PageAnswer::of(1, answer)])
    }
}

/// Pointer, code and raw text of each error.
fn errors(extraction: &Extraction) -> Vec<(&str, FieldErrorCode, Option<&str>)> {
    let errors = extraction.validation.errors.iter();
    errors.map(|error| (error.pointer.as_str(), error.code, error.raw.as_deref())).collect()
}

fn rows() -> Schema {
    schema(&json!({ "rows": { "type": "array", "items": { "type": "object", "properties": {
        "name": { "type": "string" }, "sum": { "type": "number" } } } } }))
}

#[test]
fn the_fare_of_the_documentation_is_a_number_with_its_raw_text() {
    let schema = schema(&json!({ "fare": { "type": "number" }, "name": { "type": "string" } }));
    let extraction = schema.filled(&json!({ "fare": "￥53.0元", "name": "N/A" }), 2);
    let expected = json!({
        "data": { "fare": 53.0, "name": null },
        "fields": {
            "/fare": { "raw": "￥53.0元", "page": 2, "grounded": null },
            "/name": { "raw": "N/A", "page": 2, "grounded": null },
        },
        "validation": { "valid": true, "errors": [] },
        "warnings": [],
    });
    assert_eq!(serde_json::to_value(&extraction).expect("JSON"), expected);
}

#[test]
fn what_the_answer_lacks_is_null_and_has_no_page() {
    let extraction = schema(&json!({ "a": { "type": "string" } })).filled(&json!({}), 1);
    assert_eq!(extraction.data, json!({ "a": null }));
    let field = FieldOrigin { raw: None, page: None, grounded: Some(Grounded::None), place: None };
    assert_eq!(extraction.fields, [("/a".to_owned(), field)]);
    assert_eq!(extraction.warnings, [ExtractionWarning::NothingFound]);
}

#[test]
fn a_value_that_a_rule_refuses_was_found() {
    for rule in
        [json!({ "type": "number", "maximum": 4 }), json!({ "type": "string", "pattern": "x" })]
    {
        let extraction = schema(&json!({ "a": rule })).filled(&json!({ "a": "5" }), 1);
        assert_eq!((&extraction.data, &*extraction.warnings), (&json!({ "a": null }), &[][..]));
    }
}

#[test]
fn a_required_field_that_is_missing_makes_the_answer_invalid() {
    let field = json!({ "a": { "type": "string" }, "b": { "type": ["string", "null"] } });
    let extraction = schema_requiring(&field, &["a", "b"]).filled(&json!({}), 1);
    assert!(!extraction.validation.valid);
    assert_eq!(errors(&extraction), [("/a", FieldErrorCode::RequiredMissing, None)]);
}

#[test]
fn what_cannot_be_read_is_null_with_one_error_and_its_raw_text() {
    let fields =
        json!({ "sum": { "type": "number" }, "day": { "type": "string", "format": "date" } });
    let extraction = schema_requiring(&fields, &["sum"])
        .filled(&json!({ "sum": "about 5", "day": "03/04/2018" }), 1);
    assert_eq!(extraction.data, json!({ "sum": null, "day": null }));
    let expected = [
        ("/sum", FieldErrorCode::NotANumber, Some("about 5")),
        ("/day", FieldErrorCode::AmbiguousDate, Some("03/04/2018")),
    ];
    assert_eq!(errors(&extraction), expected);
}

#[test]
fn keys_outside_the_schema_are_dropped_with_one_warning() {
    let answer = json!({ "rows": [{ "name": "a", "x": 1 }, { "name": "b", "y": 2 }], "z": 3 });
    let extraction = rows().filled(&answer, 1);
    assert_eq!(extraction.data["rows"][1], json!({ "name": "b", "sum": null }));
    assert_eq!(extraction.warnings, [ExtractionWarning::UnexpectedFieldsDropped]);
    let written = serde_json::to_value(&extraction.warnings).expect("JSON");
    assert_eq!(written, json!(["unexpected_fields_dropped"]));
}

#[test]
fn an_empty_row_copied_from_the_template_is_left_out() {
    let answer = json!({ "rows": [{ "name": "", "sum": null }, { "name": "b" }, {}] });
    let extraction = rows().filled(&answer, 1);
    assert_eq!(extraction.data, json!({ "rows": [{ "name": "b", "sum": null }] }));
    assert!(extraction.validation.valid);
}

#[test]
fn an_error_in_a_row_points_to_where_the_row_stands_in_the_data() {
    let answer = json!({ "rows": [{}, { "name": "a" }, { "name": "b", "sum": "x" }] });
    let extraction = rows().filled(&answer, 1);
    assert_eq!(errors(&extraction), [("/rows/1/sum", FieldErrorCode::NotANumber, Some("x"))]);
    assert!(extraction.data.pointer("/rows/1/sum").is_some_and(Value::is_null));
}

#[test]
fn an_element_that_cannot_be_read_is_left_out_and_reported_at_the_list() {
    let schema = schema(&json!({ "sums": { "type": "array", "items": { "type": "number" } } }));
    let extraction = schema.filled(&json!({ "sums": ["1", "x", "3"] }), 1);
    assert_eq!(extraction.data, json!({ "sums": [1, 3] }));
    assert_eq!(errors(&extraction), [("/sums", FieldErrorCode::NotANumber, Some("x"))]);
    let extraction = schema.filled(&json!({ "sums": "x" }), 1);
    assert_eq!(extraction.data, json!({ "sums": null }));
}

#[test]
fn an_element_inside_a_row_is_left_out_of_its_own_list() {
    let sums = json!({ "type": "array", "items": { "type": "number" } });
    let row = json!({ "type": "object", "properties": { "sums": sums } });
    let schema = schema(&json!({ "rows": { "type": "array", "items": row } }));
    let extraction = schema.filled(&json!({ "rows": [{ "sums": ["x", "1"] }] }), 1);
    assert_eq!(extraction.data, json!({ "rows": [{ "sums": [1] }] }));
    assert_eq!(errors(&extraction), [("/rows/0/sums", FieldErrorCode::NotANumber, Some("x"))]);
}

#[test]
fn one_row_outside_a_list_is_a_list_of_one() {
    let extraction = rows().filled(&json!({ "rows": { "name": "a", "sum": "1,5" } }), 1);
    assert_eq!(extraction.data, json!({ "rows": [{ "name": "a", "sum": 1.5 }] }));
}

#[test]
fn an_object_of_another_kind_is_null_with_an_error() {
    let inner = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    let schema = schema(&json!({ "seller": inner }));
    let extraction = schema.filled(&json!({ "seller": "ACME" }), 1);
    assert_eq!(extraction.data, json!({ "seller": null }));
    assert_eq!(errors(&extraction), [("/seller", FieldErrorCode::NotAnObject, Some("ACME"))]);
    assert_eq!(schema.filled(&json!(5), 1).data, json!({ "seller": null }));
}

#[test]
fn an_object_or_a_list_in_a_string_is_what_the_string_says() {
    let extraction = rows().filled(&json!({ "rows": "[{\"name\": \"a\", 'sum': 12.50}]" }), 1);
    assert_eq!(extraction.data, json!({ "rows": [{ "name": "a", "sum": 12.5 }] }));
    assert_eq!(extraction.fields[1].1.raw.as_deref(), Some("12.50"));
    let row = rows().filled(&json!({ "rows": "{\"name\": \"a\"}" }), 1);
    assert_eq!(row.data["rows"][0]["name"], "a");
}

#[test]
fn a_long_number_is_kept_in_a_text_and_null_in_a_number() {
    let fields = json!({ "s": { "type": "string" }, "n": { "type": "number" },
        "l": { "type": "array", "items": { "type": "string" } } });
    let written = "{\"s\": 24952000000010910141, \"n\": 24952000000010910141, \"l\": [12.50, 007]}";
    let answer = parse_answer(None, written).expect("an answer");
    let extraction = schema(&fields).filled_tree(&answer);
    let expected = json!({ "s": "24952000000010910141", "n": null, "l": ["12.50", "007"] });
    assert_eq!(extraction.data, expected);
    let raw: Vec<_> = extraction.fields.iter().map(|(_, field)| field.raw.as_deref()).collect();
    let number = Some("24952000000010910141");
    assert_eq!(raw, [number, number, Some("12.50"), Some("007")]);
    assert_eq!(errors(&extraction), [("/n", FieldErrorCode::NumberTooLong, number)]);
}

#[test]
fn a_value_against_a_rule_is_null_with_the_rule_in_the_error() {
    let schema = schema(&json!({ "code": { "type": "string", "pattern": "^[A-Z]{3}$" } }));
    let extraction = schema.filled(&json!({ "code": "EURO" }), 1);
    assert_eq!(extraction.data, json!({ "code": null }));
    assert_eq!(errors(&extraction), [("/code", FieldErrorCode::ConstraintViolated, Some("EURO"))]);
    assert!(extraction.validation.errors[0].detail.contains("pattern"));
}

#[test]
fn a_list_that_grows_too_short_by_a_rule_is_null() {
    let item = json!({ "type": "integer", "maximum": 9 });
    let list = json!({ "type": "array", "items": item, "minItems": 2 });
    let extraction = schema(&json!({ "l": list })).filled(&json!({ "l": ["1", "10"] }), 1);
    assert_eq!(extraction.data, json!({ "l": null }));
    assert_eq!(errors(&extraction).len(), 2);
}

#[test]
fn pages_complete_each_other_and_lists_go_on() {
    let fields = json!({
        "number": { "type": "string" }, "total": { "type": "number" },
        "rows": { "type": "array", "items": { "type": "string" } },
    });
    let first = json!({ "number": "7", "total": "x", "rows": ["a"] });
    let second = json!({ "number": "8", "total": "5", "rows": ["b"] });
    let extraction = schema(&fields).filled_pages(&[(1, &first), (2, &second)]);
    assert_eq!(extraction.data, json!({ "number": "7", "total": 5, "rows": ["a", "b"] }));
    let pages: Vec<_> = extraction.fields.iter().map(|(_, field)| field.page).collect();
    assert_eq!(pages, [Some(1), Some(2), Some(1), Some(2)]);
    assert!(extraction.validation.valid);
    let told = serde_json::to_value(&extraction.warnings).expect("JSON");
    let disagree = json!({ "code": "pages_disagree", "pointer": "/number", "pages": [1, 2] });
    assert_eq!(told, json!([disagree]));
}

#[test]
fn pages_that_disagree_are_told_by_field_with_the_page_that_counts_first() {
    let total = json!({ "type": "object", "properties": { "sum": { "type": "number" } } });
    let schema = schema(&json!({ "name": { "type": "string" }, "to/tal": total }));
    let page = |name: &str, sum: &str| json!({ "name": name, "to/tal": { "sum": sum } });
    let pages = [page("", "5"), page("A", "6"), page("A", "5.00"), page("B", "7"), page("C", "")];
    let pages: Vec<_> = (1..).zip(&pages).collect();
    let extraction = schema.filled_pages(&pages);
    assert_eq!(extraction.data, json!({ "name": "A", "to/tal": { "sum": 5 } }));
    let disagree = |pointer: &str, pages: &[u32]| ExtractionWarning::PagesDisagree {
        pointer: pointer.to_owned(),
        pages: pages.to_vec(),
    };
    assert_eq!(
        extraction.warnings,
        [disagree("/to~1tal/sum", &[1, 2, 4]), disagree("/name", &[2, 4, 5])]
    );
}

#[test]
fn pages_that_write_the_same_differently_do_not_disagree() {
    let fields = json!({ "a": { "type": "string" }, "b": { "type": "number" } });
    let first = json!({ "a": "ACME Sdn Bhd", "b": "12.50" });
    let second = json!({ "a": " Acme  SDN\nＢＨＤ", "b": "RM 12.5" });
    let third = json!({ "a": "acme sdn bhd", "b": "12,500" });
    let schema = schema(&fields);
    let same = schema.filled_pages(&[(1, &first), (2, &second)]);
    assert_eq!((same.data, same.warnings), (json!({ "a": "ACME Sdn Bhd", "b": 12.5 }), vec![]));
    assert_eq!(schema.filled_pages(&[(1, &first), (2, &third)]).warnings.len(), 1);
}

#[test]
fn an_unreadable_value_gives_way_to_a_later_page_and_is_told_where_there_is_none() {
    let schema = schema_requiring(&json!({ "sum": { "type": "number" } }), &["sum"]);
    let (unreadable, none) = (json!({ "sum": "x" }), json!({}));
    let found = schema.filled_pages(&[(1, &unreadable), (2, &json!({ "sum": "3" }))]);
    assert!(found.validation.valid);
    assert_eq!(found.fields[0].1.page, Some(2));
    let lost = schema.filled_pages(&[(1, &none), (2, &unreadable), (3, &none)]);
    assert_eq!(errors(&lost), [("/sum", FieldErrorCode::NotANumber, Some("x"))]);
    assert_eq!(lost.fields[0].1.page, Some(2));
}

#[test]
fn the_lists_of_all_pages_have_one_limit_and_their_end_is_told_once() {
    let list = schema(&json!({
        "name": { "type": "string" }, "rows": { "type": "array", "items": { "type": "string" } } }));
    let page = json!({ "name": "a", "rows": vec!["a"; 2_000] });
    let pages: Vec<_> = (1..=5).map(|number| (number, &page)).collect();
    let extraction = list.filled_pages(&pages);
    let (rows, errors) = kept(&extraction);
    // The answer, the name and the list are places of each page, but only those in lists add up.
    assert_eq!((rows, errors.len()), (MAX_PLACES - 3, 1));
    let told = format!("ends after {} of its 2000 elements on page 3", MAX_PLACES - 3 - 4_000);
    assert!(errors[0].1.contains(&told), "{}", errors[0].1);
    assert!(extraction.fields.len() <= MAX_PLACES);
}

#[test]
fn fields_outside_of_lists_leave_room_for_the_lists_of_a_hundred_pages() {
    let mut fields: Map<String, Value> =
        (0..90).map(|index| (format!("f{index}"), json!({ "type": "string" }))).collect();
    fields.insert("rows".into(), json!({ "type": "array", "items": { "type": "string" } }));
    let page = json!({ "rows": vec!["a"; 40] });
    let pages: Vec<_> = (1..=100).map(|number| (number, &page)).collect();
    let extraction = schema(&fields.into()).filled_pages(&pages);
    assert_eq!(kept(&extraction), (4_000, vec![]));
}

#[test]
fn names_with_slashes_and_tildes_are_escaped_in_pointers() {
    let extraction = schema(&json!({ "a/b~c": { "type": "string" } })).filled(&json!({}), 1);
    assert_eq!(extraction.fields[0].0, "/a~1b~0c");
}

#[test]
fn the_recorded_answer_of_dashscope_fills_its_schema() {
    let folder = std::env::var_os("OCR_GATEWAY_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")),
        PathBuf::from,
    );
    let file = "multimodal-generation-vl-ocr-key-information-extraction-nosse.response.body.txt";
    let Ok(recorded) = std::fs::read_to_string(folder.join("dashscope_wire").join(file)) else {
        println!("skipped: no recordings at {}", folder.display());
        return;
    };
    let recorded: Value = serde_json::from_str(&recorded).expect("JSON");
    let message = &recorded["output"]["choices"][0]["message"]["content"][0];
    let text = message["text"].as_str().expect("a text");
    let kv_result = &message["ocr_result"]["kv_result"];
    let answer = parse_answer(Some(&kv_result.into()), text).expect("an answer");
    assert_eq!(parse_answer(None, text), Ok(answer.clone()));

    let invoice = json!({ "type": "object", "properties": { "发票号码": { "type": "integer" } } });
    let schema = schema(&json!({
        "乘车日期": { "type": "string", "format": "date" }, "发票": invoice }));
    let data = schema.filled_tree(&answer).data;
    assert_eq!(data, json!({ "乘车日期": "2013-06-29", "发票": { "发票号码": 10_283_819 } }));
}

/// Makes every property of the schema nullable and changes nothing else. This is independent of the code under test.
fn with_nullable_properties(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    members.remove("required");
    if let Some(items) = members.get_mut("items") {
        with_nullable_properties(items);
    }
    for list in ["anyOf", "oneOf", "allOf", "prefixItems"] {
        let list = members.get_mut(list).and_then(Value::as_array_mut);
        list.into_iter().flatten().for_each(with_nullable_properties);
    }
    let definitions = members.get_mut("$defs").and_then(Value::as_object_mut);
    definitions.into_iter().flatten().for_each(|(_, schema)| with_nullable_properties(schema));
    for (_, property) in
        members.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
    {
        with_nullable_properties(property);
        *property = json!({ "anyOf": [{ "type": "null" }, property.take()] });
    }
}

fn everything() -> Value {
    json!({ "type": "object", "required": ["n", "o"], "properties": {
        "s": { "type": "string", "minLength": 2, "pattern": "^[^x]*$" },
        "d": { "type": "string", "format": "date" },
        "t": { "type": "string", "format": "date-time" },
        "n": { "type": "number", "minimum": 0, "multipleOf": 0.5 },
        "i": { "type": "integer", "maximum": 1000 },
        "b": { "type": "boolean" },
        "e": { "type": "string", "enum": ["A", "b", "N/A"] },
        "l": { "type": "array", "items": { "type": "integer", "exclusiveMinimum": 3 },
               "minItems": 1, "maxItems": 3, "uniqueItems": true },
        "o": { "type": "object", "required": ["k"], "properties": {
            "k": { "type": "string", "maxLength": 3 },
            "r": { "type": "array", "minItems": 2, "items": {
                "type": "object", "properties": { "n": { "type": "number" } } } } } },
    } })
}

fn any_json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[-0-9.,]{1,6}|[A-Za-z ]{0,4}|[0-9]{4}-0[1-9]-[0-9]{2}( 1[0-9]:[0-5]0)?"
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec(("[sdtnibelokrx]", inner), 0..9)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// Replaces hints by values, as a model does.
fn write_into<'v>(answer: &mut Value, values: &mut impl Iterator<Item = &'v Value>) {
    match answer {
        Value::Object(members) => {
            members.iter_mut().for_each(|(_, member)| write_into(member, values));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| write_into(item, values)),
        hint => *hint = values.next().cloned().unwrap_or_default(),
    }
}

#[test]
fn a_model_of_pydantic_is_filled_as_its_types_say() {
    let filled = |name: &str, answer: &Value| {
        let schema = Schema::parse(&of_pydantic()[name]).expect("a schema");
        let extraction = schema.filled(answer, 1);
        assert!(extraction.validation.valid, "{name}: {:?}", extraction.validation);
        extraction.data
    };
    let total = filled("Newer", &json!({ "total": "RM 12.50", "tax": "1.20", "written": "12.50" }));
    assert_eq!(total, json!({ "total": 12.5, "tax": 1.2, "written": "12.50" }));
    let measure = filled("Measure", &json!({ "weight": "5", "length": "1.25" }));
    assert_eq!(measure, json!({ "weight": 5, "length": 1.25 }));
    let kind = filled("Kind", &json!({ "kind": "Invoice", "version": "1", "is_copy": "no" }));
    assert_eq!(kind, json!({ "kind": "invoice", "version": 1, "is_copy": false }));
    let choice = filled("Choice", &json!({ "state": null, "size": "12", "rate": "7 %" }));
    assert_eq!(choice, json!({ "state": null, "size": 12, "rate": 7 }));
    let contact =
        json!({ "email": "a@example.org", "site": "https://example.org/", "since": 2020 });
    assert_eq!(filled("Contact", &contact), contact);
    let broken = Schema::parse(&of_pydantic()["Contact"]).expect("a schema");
    let broken = broken.filled(&json!({ "email": "at home", "since": 1 }), 1);
    assert_eq!(errors(&broken), [("/email", FieldErrorCode::ConstraintViolated, Some("at home"))]);
}

proptest! {
    #[test]
    fn data_always_validates_against_the_schema_with_nullable_properties(answer in any_json()) {
        let mut promise = everything();
        let schema = Schema::parse(&promise).expect("a schema");
        with_nullable_properties(&mut promise);
        let extraction = schema.filled(&answer, 1);
        prop_assert!(jsonschema::is_valid(&promise, &extraction.data), "{}", extraction.data);
        for (pointer, _) in &extraction.fields {
            prop_assert!(extraction.data.pointer(pointer).is_some(), "{} dangles", pointer);
        }
        for error in &extraction.validation.errors {
            prop_assert!(extraction.data.pointer(&error.pointer).is_some());
        }
    }

    #[test]
    fn filling_with_its_own_data_gives_the_same_data(answer in any_json()) {
        let schema = Schema::parse(&everything()).expect("a schema");
        let data = schema.filled(&answer, 1).data;
        prop_assert_eq!(schema.filled(&data, 1).data, data);
    }

    #[test]
    fn a_valid_answer_keeps_the_schema_as_it_was_written(answer in any_json()) {
        let schema = Schema::parse(&everything()).expect("a schema");
        let extraction = schema.filled(&answer, 1);
        let missing = extraction.data["n"].is_null() || extraction.data["o"].is_null();
        prop_assert!(!(missing && extraction.validation.valid));
    }

    #[test]
    fn every_template_takes_any_answer(answer in any_json(), which in 0..4_usize) {
        let templates = Templates::built_in();
        let template = &templates.all()[which];
        let mut promise = template.schema.clone();
        with_nullable_properties(&mut promise);
        let extraction = template.parsed.filled(&answer, 1);
        prop_assert!(jsonschema::is_valid(&promise, &extraction.data));
    }
}

/// Answers for some pages, with numbers that grow and have gaps.
fn any_pages() -> impl Strategy<Value = Vec<(u32, Value)>> {
    prop::collection::vec((1..4_u32, any_json()), 1..5).prop_map(|pages| {
        let mut number = 0;
        let numbered = pages.into_iter().map(|(gap, answer)| {
            number += gap;
            (number, answer)
        });
        numbered.collect()
    })
}

proptest! {
    #[test]
    fn data_of_several_pages_validates_or_the_answer_says_why_not(pages in any_pages()) {
        let given = everything();
        let mut promise = given.clone();
        with_nullable_properties(&mut promise);
        let schema = Schema::parse(&given).expect("a schema");
        let pages: Vec<_> = pages.iter().map(|(page, answer)| (*page, answer)).collect();
        let extraction = schema.filled_pages(&pages);
        prop_assert!(jsonschema::is_valid(&promise, &extraction.data), "{}", extraction.data);
        // A property without a value has none of its rules checked.
        let is_whole = ["n", "o"].iter().all(|name| !extraction.data[*name].is_null());
        prop_assert!(is_whole || !extraction.validation.valid);
        for (pointer, origin) in &extraction.fields {
            let value = extraction.data.pointer(pointer);
            prop_assert!(value.is_some(), "{} dangles", pointer);
            let is_from_a_page = origin.page.is_some_and(|page| {
                pages.iter().any(|(known, _)| *known == page)
            });
            let has_raw = origin.raw.is_some();
            prop_assert_eq!(is_from_a_page, has_raw, "{}", pointer);
            prop_assert!(has_raw || value.is_some_and(Value::is_null), "{} is made up", pointer);
        }
        for error in &extraction.validation.errors {
            prop_assert!(extraction.data.pointer(&error.pointer).is_some());
        }
    }

    #[test]
    fn the_order_in_which_pages_arrive_does_not_matter(
        (pages, arrived) in any_pages().prop_flat_map(|pages| {
            (Just(pages.clone()), Just(pages).prop_shuffle())
        }),
    ) {
        let schema = Schema::parse(&everything()).expect("a schema");
        let filled = |pages: &[(u32, Value)]| {
            let pages: Vec<_> = pages.iter().map(|(page, answer)| (*page, answer)).collect();
            schema.filled_pages(&pages)
        };
        prop_assert_eq!(filled(&pages), filled(&arrived));
    }
}

proptest! {
    // Each case fills all models.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn data_validates_against_a_model_of_pydantic_with_nullable_properties(
        scalars in prop::collection::vec(any_json(), 64),
    ) {
        for (name, mut promise) in of_pydantic() {
            let Ok(schema) = Schema::parse(&promise) else { continue };
            let mut scalars = scalars.iter().cycle();
            let mut answer = schema.result_schema();
            write_into(&mut answer, &mut scalars);
            with_nullable_properties(&mut promise);
            let data = schema.filled(&answer, 1).data;
            prop_assert!(jsonschema::is_valid(&promise, &data), "{}: {} of {}", name, data, answer);
        }
    }
}

#[test]
fn a_pattern_binds_each_place_that_has_it() {
    let code = json!({ "type": "string", "pattern": "^[A-Z]{3}[0-9]$" });
    let number = json!({ "type": ["number", "string"], "pattern": "^x" });
    let row = json!({ "type": "object", "properties": { "code": code.clone(), "n": number } });
    let schema = schema(&json!({ "code": code, "rows": { "type": "array", "items": row } }));
    let rows =
        json!([{ "code": "ABC2", "n": "7" }, { "code": "no", "n": "x" }, { "code": "XYZ3" }]);
    let extraction = schema.filled(&json!({ "code": "ABC1", "rows": rows }), 1);
    let expected = json!([{ "code": "ABC2", "n": 7 }, { "code": null, "n": "x" },
        { "code": "XYZ3", "n": null }]);
    assert_eq!(extraction.data, json!({ "code": "ABC1", "rows": expected }));
    let errors: Vec<_> =
        extraction.validation.errors.iter().map(|error| (&*error.pointer, error.code)).collect();
    assert_eq!(errors, [("/rows/1/code", FieldErrorCode::ConstraintViolated)]);
}

#[test]
fn a_list_that_a_pattern_makes_too_short_is_against_its_length() {
    let words = json!({ "type": "array", "minItems": 2,
        "items": { "type": "string", "pattern": "^a" } });
    let extraction = schema(&json!({ "words": words })).filled(&json!({ "words": ["a", "b"] }), 1);
    assert_eq!(extraction.data, json!({ "words": null }));
    assert!(!extraction.validation.valid);
}

#[test]
fn a_text_that_takes_too_much_work_to_check_is_null_and_says_so() {
    let fields: Map<String, Value> = (0..15)
        .map(|index| {
            let pattern = format!("(a?){{500}}a{{500}}z{index}");
            (index.to_string(), json!({ "type": "string", "pattern": pattern }))
        })
        .collect();
    let answer: Map<String, Value> =
        fields.keys().map(|name| (name.clone(), "a".repeat(3_000).into())).collect();
    let extraction = schema(&fields.into()).filled(&answer.into(), 1);
    let details: Vec<_> =
        extraction.validation.errors.iter().map(|error| error.detail.as_str()).collect();
    assert!(details.contains(&TOO_MUCH_WORK), "{details:?}");
    assert_eq!(details.len(), 15);
}

#[test]
fn each_row_is_found_in_a_long_list_of_values() {
    let words: Vec<Value> = (0..7_000).map(|index| format!("w{index}").into()).collect();
    let rows = json!({ "type": "array", "items": { "enum": words } });
    let written: Vec<String> = (0..2_000).map(|index| format!(" W{index}")).collect();
    let extraction = schema(&json!({ "rows": rows })).filled(&json!({ "rows": written }), 1);
    assert_eq!(extraction.data["rows"].as_array().map(Vec::len), Some(2_000));
    assert_eq!(extraction.data["rows"][1_999], "w1999");
}

/// A list of rows with 99 fields each.
fn wide_rows(prefix: &str) -> Schema {
    let fields: Map<String, Value> =
        (0..99).map(|index| (format!("{prefix}{index}"), json!({ "type": "string" }))).collect();
    schema(&json!({ "rows": { "type": "array", "items": {
        "type": "object", "properties": fields } } }))
}

/// The number of kept rows, and the pointer and detail of each error.
fn kept(extraction: &Extraction) -> (usize, Vec<(&str, &str)>) {
    let errors = extraction.validation.errors.iter();
    let errors = errors.map(|error| (error.pointer.as_str(), error.detail.as_str())).collect();
    (extraction.data["rows"].as_array().map_or(0, Vec::len), errors)
}

#[test]
fn a_list_is_whole_up_to_the_limit_and_ends_there_with_an_error() {
    let list = schema(&json!({ "rows": { "type": "array", "items": { "type": "string" } } }));
    // The answer and its list are places too.
    let most = MAX_PLACES - 2;
    let whole = list.filled(&json!({ "rows": vec!["a"; most] }), 1);
    assert_eq!(kept(&whole), (most, vec![]));
    let ended = list.filled(&json!({ "rows": vec!["a"; most + 2] }), 1);
    let (rows, errors) = kept(&ended);
    assert_eq!((rows, errors.len(), errors[0].0), (most, 1, "/rows"));
    let told = format!(
        "the limit of {MAX_PLACES}, nulls counted; this one ends after {most} of its {} ",
        most + 2
    );
    assert!(errors[0].1.contains(&told), "{}", errors[0].1);
}

#[test]
fn fields_that_rows_leave_out_count_as_those_that_are_there() {
    for row in [json!({ "0": "a" }), json!({})] {
        let extraction = wide_rows("").filled(&json!({ "rows": vec![row.clone(); 4_000] }), 1);
        assert!(extraction.fields.len() <= MAX_PLACES, "{} fields", extraction.fields.len());
        let (rows, errors) = kept(&extraction);
        assert_eq!(errors.len(), 1, "{row}");
        assert!(errors[0].1.contains("after 49 of its 4000"), "{}", errors[0].1);
        assert!(rows == 49 || row == json!({}), "{rows}");
    }
}

#[test]
fn a_place_behind_long_names_counts_more() {
    let row = json!({ "rows": vec![json!({}); 100] });
    let extraction = wide_rows(&"n".repeat(254)).filled(&row, 1);
    assert!(kept(&extraction).1[0].1.contains("after 16 of its 100"), "{extraction:?}");
}

#[test]
fn a_long_table_of_many_fields_is_whole() {
    let row: Map<String, Value> = (0..99).map(|index| (index.to_string(), json!("a"))).collect();
    let extraction = wide_rows("").filled(&json!({ "rows": vec![row; 49] }), 1);
    assert_eq!(kept(&extraction), (49, vec![]));
}
