//! The model's answer poured into the schema.
//!
//! A tree of slots in the shape of the schema holds, for each place, the value, what the model wrote
//! and what went wrong. `data`, `fields` and the errors are all read off that tree at the end, so
//! that their pointers agree even after elements were left out. The tree is then checked by a real
//! validator, and whatever breaks a rule is emptied, until nothing does: each round empties at least
//! one slot, and a tree of nulls breaks no rule.

use jsonschema::paths::LocationSegment;
use serde_json::{Map, Value};

use super::coerce::{coerce, is_nothing};
use super::schema::{Kind, Leaf, Node, Property, Schema};
use super::{Extraction, Fault, Field, FieldError, Grounded, Validation, Warning, child_pointer};

impl Schema {
    /// Fills the schema from the answer for one page.
    ///
    /// A list's element that has no value is left out, since only properties may become null; an
    /// empty row that the model copied from the template disappears the same way.
    pub fn fill(&self, answer: &Value, page: u32) -> Extraction {
        self.fill_pages([(page, answer)])
    }

    /// Fills the schema from the answers for several pages of one document, in their order.
    ///
    /// A field is taken from the first page that has it, and lists are joined: rows of an invoice
    /// go on over the page.
    pub fn fill_pages<'a>(
        &self,
        answers: impl IntoIterator<Item = (u32, &'a Value)>,
    ) -> Extraction {
        let mut warnings = Vec::new();
        let mut root = Slot::empty_object(&self.root);
        for (page, answer) in answers {
            let mut reader = Reader { page, warnings: &mut warnings };
            let slot = reader.read(&self.root, answer);
            root.merge(slot, &mut warnings);
        }
        root.leave_out_nothings();
        self.empty_what_breaks_a_rule(&mut root);

        let mut report = Report::default();
        let data = report.take(root, "", false);
        let Report { fields, errors, found } = report;
        if !found {
            warn(&mut warnings, Warning::NothingFound);
        }
        let validation = Validation { valid: errors.is_empty(), errors };
        Extraction { data, fields, validation, warnings }
    }

    fn empty_what_breaks_a_rule(&self, root: &mut Slot<'_>) {
        loop {
            let data = root.value();
            let mut emptied = false;
            let mut broken = false;
            for violation in self.validator.iter_errors(&data) {
                broken = true;
                let slot = root.descend(violation.instance_path().segments());
                emptied |= slot.is_some_and(|slot| slot.reject(violation.kind().keyword()));
            }
            if !broken {
                return;
            }
            if !emptied {
                *root = Slot::empty_object(root.node);
                return;
            }
            root.leave_out_nothings();
        }
    }
}

/// One place of the answer.
struct Slot<'s> {
    node: &'s Node,
    page: Option<u32>,
    raw: Option<String>,
    mishaps: Vec<Mishap>,
    content: Content<'s>,
}

enum Content<'s> {
    Nothing,
    Scalar(Value),
    Object(Vec<(&'s Property, Slot<'s>)>),
    Array(Vec<Slot<'s>>),
}

/// A fault before its place in `data` is known.
struct Mishap {
    code: Fault,
    detail: String,
    raw: Option<String>,
}

impl Mishap {
    fn new(code: Fault, raw: Option<String>) -> Self {
        Self { code, detail: code.detail().to_owned(), raw }
    }
}

impl<'s> Slot<'s> {
    fn new(node: &'s Node, content: Content<'s>) -> Self {
        Self { node, page: None, raw: None, mishaps: Vec::new(), content }
    }

    /// An object of nothing but nulls, or nothing where the node is no object.
    fn empty_object(node: &'s Node) -> Self {
        let Kind::Object(properties) = &node.kind else {
            return Self::new(node, Content::Nothing);
        };
        let empty =
            |property: &'s Property| (property, Slot::new(&property.node, Content::Nothing));
        Self::new(node, Content::Object(properties.iter().map(empty).collect()))
    }

    fn value(&self) -> Value {
        match &self.content {
            Content::Nothing => Value::Null,
            Content::Scalar(value) => value.clone(),
            Content::Array(items) => items.iter().map(Slot::value).collect(),
            Content::Object(slots) => {
                let member = |(property, slot): &(&Property, Slot<'_>)| {
                    (property.name.clone(), slot.value())
                };
                slots.iter().map(member).collect::<Map<_, _>>().into()
            }
        }
    }

    /// Takes from a later page what is not here yet.
    fn merge(&mut self, later: Self, warnings: &mut Vec<Warning>) {
        let blank = self.is_blank();
        match (&mut self.content, later.content) {
            (Content::Object(slots), Content::Object(others)) => {
                self.mishaps.extend(later.mishaps);
                for ((_, slot), (_, other)) in slots.iter_mut().zip(others) {
                    slot.merge(other, warnings);
                }
            }
            (Content::Array(items), Content::Array(more)) => {
                self.mishaps.extend(later.mishaps);
                items.extend(more);
            }
            (Content::Scalar(value), Content::Scalar(other)) => {
                if *value != other {
                    warn(warnings, Warning::PagesDisagree);
                }
            }
            (Content::Nothing, content) => {
                let says_more = !matches!(content, Content::Nothing)
                    || (self.raw.is_none() && self.mishaps.is_empty());
                if says_more {
                    *self = Self { content, ..later };
                }
            }
            // Trouble on a later page matters only where no earlier one had the value.
            (_, Content::Nothing) if blank => self.mishaps.extend(later.mishaps),
            (_, _) => {}
        }
    }

    /// Drops the elements of lists that hold nothing; what went wrong in them stays on the list.
    fn leave_out_nothings(&mut self) {
        match &mut self.content {
            Content::Nothing | Content::Scalar(_) => {}
            Content::Object(slots) => {
                for (_, slot) in slots {
                    slot.leave_out_nothings();
                }
            }
            Content::Array(items) => {
                let mut kept = Vec::with_capacity(items.len());
                for mut item in items.drain(..) {
                    item.leave_out_nothings();
                    if item.may_be_an_element() {
                        kept.push(item);
                    } else {
                        self.mishaps.extend(item.mishaps.into_iter().map(Mishap::of_element));
                    }
                }
                let unreadable = kept.is_empty() && !self.mishaps.is_empty();
                self.content = if unreadable { Content::Nothing } else { Content::Array(kept) };
            }
        }
    }

    fn may_be_an_element(&self) -> bool {
        match &self.content {
            Content::Nothing => self.node.nullable && self.mishaps.is_empty(),
            Content::Scalar(_) | Content::Array(_) => true,
            Content::Object(slots) => slots.iter().any(|(_, slot)| !slot.is_blank()),
        }
    }

    /// True where there is neither a value nor anything that went wrong.
    fn is_blank(&self) -> bool {
        self.mishaps.is_empty()
            && match &self.content {
                Content::Nothing => true,
                Content::Scalar(_) => false,
                Content::Object(slots) => slots.iter().all(|(_, slot)| slot.is_blank()),
                Content::Array(items) => items.iter().all(Slot::is_blank),
            }
    }

    fn descend<'p>(
        &mut self,
        mut path: impl Iterator<Item = LocationSegment<'p>>,
    ) -> Option<&mut Self> {
        let Some(step) = path.next() else { return Some(self) };
        let next = match (&mut self.content, step) {
            (Content::Object(slots), LocationSegment::Property(name)) => {
                slots.iter_mut().find(|(property, _)| *property.name == *name).map(|(_, slot)| slot)
            }
            (Content::Array(items), LocationSegment::Index(index)) => items.get_mut(index),
            _ => None,
        };
        next?.descend(&mut path as &mut dyn Iterator<Item = LocationSegment<'p>>)
    }

    /// Empties the slot; false where it was empty already.
    fn reject(&mut self, keyword: &str) -> bool {
        if matches!(self.content, Content::Nothing) {
            return false;
        }
        self.content = Content::Nothing;
        self.mishaps.push(Mishap {
            code: Fault::ConstraintViolated,
            detail: format!("the value is against {keyword:?} of its schema"),
            raw: self.raw.clone(),
        });
        true
    }
}

impl Mishap {
    fn of_element(self) -> Self {
        Self { detail: format!("{}; the element was left out", self.detail), ..self }
    }
}

/// Reads one page's answer into slots.
struct Reader<'w> {
    page: u32,
    warnings: &'w mut Vec<Warning>,
}

impl Reader<'_> {
    fn read<'s>(&mut self, node: &'s Node, answer: &Value) -> Slot<'s> {
        let mut slot = match &node.kind {
            Kind::Leaf(leaf) => Self::leaf(node, leaf, answer),
            Kind::Object(properties) => self.object(node, properties, answer),
            Kind::Array(item) => self.array(node, item, answer),
        };
        slot.page = slot.raw.is_some().then_some(self.page);
        slot
    }

    fn leaf<'s>(node: &'s Node, leaf: &Leaf, answer: &Value) -> Slot<'s> {
        let raw = raw(answer);
        let (content, mishap) = match coerce(leaf, answer) {
            Ok(None) => (Content::Nothing, None),
            Ok(Some(value)) => (Content::Scalar(value), None),
            Err(code) => (Content::Nothing, Some(Mishap::new(code, raw.clone()))),
        };
        Slot { raw, mishaps: mishap.into_iter().collect(), ..Slot::new(node, content) }
    }

    fn object<'s>(
        &mut self,
        node: &'s Node,
        properties: &'s [Property],
        answer: &Value,
    ) -> Slot<'s> {
        let members = match answer {
            Value::Object(members) => members,
            // A list of one object where one was asked for has one reading.
            Value::Array(items) if items.len() == 1 => match items.first() {
                Some(Value::Object(members)) => members,
                _ => return Self::unreadable(node, answer),
            },
            answer if is_nothing(answer) => {
                return Slot { raw: raw(answer), ..Slot::new(node, Content::Nothing) };
            }
            _ => return Self::unreadable(node, answer),
        };
        if members.keys().any(|name| properties.iter().all(|property| property.name != *name)) {
            warn(self.warnings, Warning::UnexpectedFieldsDropped);
        }
        let slots = properties.iter().map(|property| {
            let member = members.get(&property.name).unwrap_or(&Value::Null);
            (property, self.read(&property.node, member))
        });
        let content = Content::Object(slots.collect());
        Slot::new(node, content)
    }

    fn unreadable<'s>(node: &'s Node, answer: &Value) -> Slot<'s> {
        let mishaps = vec![Mishap::new(Fault::NotAnObject, raw(answer))];
        Slot { raw: raw(answer), mishaps, ..Slot::new(node, Content::Nothing) }
    }

    fn array<'s>(&mut self, node: &'s Node, item: &'s Node, answer: &Value) -> Slot<'s> {
        if is_nothing(answer) {
            return Slot { raw: raw(answer), ..Slot::new(node, Content::Nothing) };
        }
        // One element that was not put in a list is still one element.
        let items = match answer {
            Value::Array(items) => items.as_slice(),
            single => std::slice::from_ref(single),
        };
        let slots = items.iter().map(|answer| self.read(item, answer)).collect();
        Slot::new(node, Content::Array(slots))
    }
}

/// The public face of the slots, in the order of `data`.
#[derive(Default)]
struct Report {
    fields: Vec<(String, Field)>,
    errors: Vec<FieldError>,
    /// Whether any value is there.
    found: bool,
}

impl Report {
    /// Writes a slot down and gives its value.
    fn take(&mut self, slot: Slot<'_>, pointer: &str, required: bool) -> Value {
        let missing = required
            && !slot.node.nullable
            && slot.mishaps.is_empty()
            && matches!(slot.content, Content::Nothing);
        let missing = missing.then(|| Mishap::new(Fault::RequiredMissing, slot.raw.clone()));
        let errors = slot.mishaps.into_iter().chain(missing).map(|mishap| FieldError {
            pointer: pointer.to_owned(),
            code: mishap.code,
            detail: mishap.detail,
            raw: mishap.raw,
        });
        self.errors.extend(errors);
        match slot.content {
            Content::Nothing => self.field(pointer, slot.raw, slot.page, Value::Null),
            Content::Scalar(value) => self.field(pointer, slot.raw, slot.page, value),
            Content::Array(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| self.take(item, &format!("{pointer}/{index}"), false))
                .collect(),
            Content::Object(slots) => slots
                .into_iter()
                .map(|(property, slot)| {
                    let pointer = child_pointer(pointer, &property.name);
                    (property.name.clone(), self.take(slot, &pointer, property.required))
                })
                .collect::<Map<_, _>>()
                .into(),
        }
    }

    fn field(
        &mut self,
        pointer: &str,
        raw: Option<String>,
        page: Option<u32>,
        value: Value,
    ) -> Value {
        self.found |= !value.is_null();
        let grounded = raw.is_none().then_some(Grounded::None);
        self.fields.push((pointer.to_owned(), Field { raw, page, grounded }));
        value
    }
}

/// What the model wrote; `None` where it wrote nothing.
fn raw(answer: &Value) -> Option<String> {
    match answer {
        Value::Null => None,
        Value::String(text) => (!text.trim().is_empty()).then(|| text.clone()),
        other => Some(other.to_string()),
    }
}

fn warn(warnings: &mut Vec<Warning>, warning: Warning) {
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::extract::answer::parse_answer;
    use crate::extract::templates;

    fn schema(properties: &Value) -> Schema {
        schema_requiring(properties, &[])
    }

    fn schema_requiring(properties: &Value, required: &[&str]) -> Schema {
        let schema = json!({ "type": "object", "properties": properties, "required": required });
        Schema::parse(&schema).expect("a schema")
    }

    /// Pointer, code and raw text of each error.
    fn errors(extraction: &Extraction) -> Vec<(&str, Fault, Option<&str>)> {
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
        let extraction = schema.fill(&json!({ "fare": "￥53.0元", "name": "N/A" }), 2);
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
        let extraction = schema(&json!({ "a": { "type": "string" } })).fill(&json!({}), 1);
        assert_eq!(extraction.data, json!({ "a": null }));
        let field = Field { raw: None, page: None, grounded: Some(Grounded::None) };
        assert_eq!(extraction.fields, [("/a".to_owned(), field)]);
        assert_eq!(extraction.warnings, [Warning::NothingFound]);
    }

    #[test]
    fn a_required_field_that_is_missing_makes_the_answer_invalid() {
        let field = json!({ "a": { "type": "string" }, "b": { "type": ["string", "null"] } });
        let extraction = schema_requiring(&field, &["a", "b"]).fill(&json!({}), 1);
        assert!(!extraction.validation.valid);
        assert_eq!(errors(&extraction), [("/a", Fault::RequiredMissing, None)]);
    }

    #[test]
    fn what_cannot_be_read_is_null_with_one_error_and_its_raw_text() {
        let fields =
            json!({ "sum": { "type": "number" }, "day": { "type": "string", "format": "date" } });
        let extraction = schema_requiring(&fields, &["sum"])
            .fill(&json!({ "sum": "about 5", "day": "03/04/2018" }), 1);
        assert_eq!(extraction.data, json!({ "sum": null, "day": null }));
        let expected = [
            ("/sum", Fault::NotANumber, Some("about 5")),
            ("/day", Fault::AmbiguousDate, Some("03/04/2018")),
        ];
        assert_eq!(errors(&extraction), expected);
    }

    #[test]
    fn keys_outside_the_schema_are_dropped_with_one_warning() {
        let answer = json!({ "rows": [{ "name": "a", "x": 1 }, { "name": "b", "y": 2 }], "z": 3 });
        let extraction = rows().fill(&answer, 1);
        assert_eq!(extraction.data["rows"][1], json!({ "name": "b", "sum": null }));
        assert_eq!(extraction.warnings, [Warning::UnexpectedFieldsDropped]);
        let written = serde_json::to_value(&extraction.warnings).expect("JSON");
        assert_eq!(written, json!(["unexpected_fields_dropped"]));
    }

    #[test]
    fn an_empty_row_copied_from_the_template_is_left_out() {
        let answer = json!({ "rows": [{ "name": "", "sum": null }, { "name": "b" }, {}] });
        let extraction = rows().fill(&answer, 1);
        assert_eq!(extraction.data, json!({ "rows": [{ "name": "b", "sum": null }] }));
        assert!(extraction.validation.valid);
    }

    #[test]
    fn an_error_in_a_row_points_to_where_the_row_stands_in_the_data() {
        let answer = json!({ "rows": [{}, { "name": "a" }, { "name": "b", "sum": "x" }] });
        let extraction = rows().fill(&answer, 1);
        assert_eq!(errors(&extraction), [("/rows/1/sum", Fault::NotANumber, Some("x"))]);
        assert!(extraction.data.pointer("/rows/1/sum").is_some_and(Value::is_null));
    }

    #[test]
    fn an_element_that_cannot_be_read_is_left_out_and_reported_at_the_list() {
        let schema = schema(&json!({ "sums": { "type": "array", "items": { "type": "number" } } }));
        let extraction = schema.fill(&json!({ "sums": ["1", "x", "3"] }), 1);
        assert_eq!(extraction.data, json!({ "sums": [1, 3] }));
        assert_eq!(errors(&extraction), [("/sums", Fault::NotANumber, Some("x"))]);
        let extraction = schema.fill(&json!({ "sums": "x" }), 1);
        assert_eq!(extraction.data, json!({ "sums": null }));
    }

    #[test]
    fn an_element_inside_a_row_is_left_out_of_its_own_list() {
        let sums = json!({ "type": "array", "items": { "type": "number" } });
        let row = json!({ "type": "object", "properties": { "sums": sums } });
        let schema = schema(&json!({ "rows": { "type": "array", "items": row } }));
        let extraction = schema.fill(&json!({ "rows": [{ "sums": ["x", "1"] }] }), 1);
        assert_eq!(extraction.data, json!({ "rows": [{ "sums": [1] }] }));
        assert_eq!(errors(&extraction), [("/rows/0/sums", Fault::NotANumber, Some("x"))]);
    }

    #[test]
    fn one_row_outside_a_list_is_a_list_of_one() {
        let extraction = rows().fill(&json!({ "rows": { "name": "a", "sum": "1,5" } }), 1);
        assert_eq!(extraction.data, json!({ "rows": [{ "name": "a", "sum": 1.5 }] }));
    }

    #[test]
    fn an_object_of_another_kind_is_null_with_an_error() {
        let inner = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
        let schema = schema(&json!({ "seller": inner }));
        let extraction = schema.fill(&json!({ "seller": "ACME" }), 1);
        assert_eq!(extraction.data, json!({ "seller": null }));
        assert_eq!(errors(&extraction), [("/seller", Fault::NotAnObject, Some("ACME"))]);
        assert_eq!(schema.fill(&json!(5), 1).data, json!({ "seller": null }));
    }

    #[test]
    fn a_value_against_a_rule_is_null_with_the_rule_in_the_error() {
        let schema = schema(&json!({ "code": { "type": "string", "pattern": "^[A-Z]{3}$" } }));
        let extraction = schema.fill(&json!({ "code": "EURO" }), 1);
        assert_eq!(extraction.data, json!({ "code": null }));
        assert_eq!(errors(&extraction), [("/code", Fault::ConstraintViolated, Some("EURO"))]);
        assert!(extraction.validation.errors[0].detail.contains("pattern"));
    }

    #[test]
    fn a_list_that_grows_too_short_by_a_rule_is_null() {
        let item = json!({ "type": "integer", "maximum": 9 });
        let list = json!({ "type": "array", "items": item, "minItems": 2 });
        let extraction = schema(&json!({ "l": list })).fill(&json!({ "l": ["1", "10"] }), 1);
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
        let extraction = schema(&fields).fill_pages([(1, &first), (2, &second)]);
        assert_eq!(extraction.data, json!({ "number": "7", "total": 5, "rows": ["a", "b"] }));
        let pages: Vec<_> = extraction.fields.iter().map(|(_, field)| field.page).collect();
        assert_eq!(pages, [Some(1), Some(2), Some(1), Some(2)]);
        assert!(extraction.validation.valid);
        assert_eq!(extraction.warnings, [Warning::PagesDisagree]);
    }

    #[test]
    fn names_with_slashes_and_tildes_are_escaped_in_pointers() {
        let extraction = schema(&json!({ "a/b~c": { "type": "string" } })).fill(&json!({}), 1);
        assert_eq!(extraction.fields[0].0, "/a~1b~0c");
    }

    #[test]
    fn the_recorded_answer_of_dashscope_fills_its_schema() {
        let folder = std::env::var_os("OCR_GATEWAY_TEST_DATA").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")),
            PathBuf::from,
        );
        let file =
            "multimodal-generation-vl-ocr-key-information-extraction-nosse.response.body.txt";
        let Ok(recorded) = std::fs::read_to_string(folder.join("dashscope_wire").join(file)) else {
            println!("skipped: no recordings at {}", folder.display());
            return;
        };
        let recorded: Value = serde_json::from_str(&recorded).expect("JSON");
        let message = &recorded["output"]["choices"][0]["message"]["content"][0];
        let text = message["text"].as_str().expect("a text");
        let kv_result = &message["ocr_result"]["kv_result"];
        let answer = parse_answer(Some(kv_result), text).expect("an answer");
        assert_eq!(parse_answer(None, text), Ok(answer.clone()));

        let invoice =
            json!({ "type": "object", "properties": { "发票号码": { "type": "integer" } } });
        let schema = schema(&json!({
            "乘车日期": { "type": "string", "format": "date" }, "发票": invoice }));
        let data = schema.fill(&answer, 1).data;
        assert_eq!(data, json!({ "乘车日期": "2013-06-29", "发票": { "发票号码": 10_283_819 } }));
    }

    /// Every property nullable and nothing else changed: the promise, written apart from the code.
    fn with_nullable_properties(schema: &mut Value) {
        let Some(members) = schema.as_object_mut() else { return };
        members.remove("required");
        if let Some(items) = members.get_mut("items") {
            with_nullable_properties(items);
        }
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

    proptest! {
        #[test]
        fn data_always_validates_against_the_schema_with_nullable_properties(answer in any_json()) {
            let mut promise = everything();
            let schema = Schema::parse(&promise).expect("a schema");
            with_nullable_properties(&mut promise);
            let extraction = schema.fill(&answer, 1);
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
            let data = schema.fill(&answer, 1).data;
            prop_assert_eq!(schema.fill(&data, 1).data, data);
        }

        #[test]
        fn a_valid_answer_keeps_the_schema_as_it_was_written(answer in any_json()) {
            let schema = Schema::parse(&everything()).expect("a schema");
            let extraction = schema.fill(&answer, 1);
            let missing = extraction.data["n"].is_null() || extraction.data["o"].is_null();
            prop_assert!(!(missing && extraction.validation.valid));
        }

        #[test]
        fn every_template_takes_any_answer(answer in any_json(), which in 0..4_usize) {
            let template = &templates::all()[which];
            let mut promise = template.schema.clone();
            with_nullable_properties(&mut promise);
            let extraction = template.parsed.fill(&answer, 1);
            prop_assert!(jsonschema::is_valid(&promise, &extraction.data));
        }
    }
}
