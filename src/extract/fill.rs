//! Fills the schema with the model's answer.
//!
//! A tree of slots mirrors the schema. Each slot holds the value, the model's text and the errors. `data`, `fields` and
//! the errors are all derived from this tree at the end, so their pointers agree even after elements were removed.
//!
//! The slots of several pages are merged, in the order of the pages: the first page that has a value for a field is
//! the one that counts, and lists are joined. A later page with another value is told in a warning.
//!
//! A JSON Schema validator checks the tree, and every value that violates a rule is replaced by null. This is repeated
//! until there is no violation. The loop ends because each round empties at least one slot and a tree of nulls violates
//! no rule. Patterns are checked last. Each is compiled once and dropped before the next.

use std::{mem, ptr};

use jsonschema::Validator;
use jsonschema::paths::LocationSegment;
use serde_json::{Map, Value};

use super::coerce::{coerce, is_nothing};
use super::fold::letters;
use super::limits::MAX_PROPERTIES;
use super::node::{Leaf, Node, NodeKind, Property};
use super::number::Decimal;
use super::page_answer::PageAnswer;
use super::pattern::{Effort, Matcher};
use super::schema::Schema;
use super::{
    Extraction, ExtractionWarning, FieldError, FieldErrorCode, FieldOrigin, Grounded, Validation,
    answer, child_pointer,
};
use crate::json::Tree;

impl Schema {
    /// Fills the schema from the answers for the pages of a document. The order of `answers` does not matter.
    ///
    /// A field is taken from the first page that has it. Lists are concatenated, because rows of an invoice continue on
    /// the next page. List elements without a value are dropped, because only properties may become null. This also
    /// removes an empty row that the model copied from the template.
    ///
    /// Takes up to some tens of milliseconds for the heaviest patterns, and as long as parsing takes for each answer,
    /// so a server must not call it on the reactor thread. Uses up to [`merging_bytes`](super::schema::merging_bytes)
    /// of memory while it runs.
    pub fn fill_pages(&self, mut answers: Vec<PageAnswer>) -> Extraction {
        answers.sort_by_key(|answer| answer.page);
        let (mut warnings, mut conflicts, mut listed) = (Vec::new(), Vec::new(), 0);
        let mut root = ValueSlot::empty_object(&self.root);
        for answer in answers {
            let mut reader = AnswerReader::new(answer.page, listed, &mut warnings);
            let slot = reader.read(&self.root, &answer.tree());
            listed += reader.listed;
            root.merge(slot, "", &mut conflicts);
        }
        root.remove_empty_items();
        let has_value = root.has_value();
        self.empty_invalid_values(&mut root);

        let places = listed + MAX_PROPERTIES;
        let mut report = Report { fields: Vec::with_capacity(places), ..Report::default() };
        let data = report.take(root, "", false);
        let Report { fields, errors } = report;
        if self.is_from_example {
            warn(&mut warnings, ExtractionWarning::SchemaFromExample);
        }
        if !has_value {
            warn(&mut warnings, ExtractionWarning::NothingFound);
        }
        warnings.extend(conflicts);
        let validation = Validation { valid: errors.is_empty(), errors };
        Extraction { data, fields, validation, checks: None, warnings }
    }

    fn empty_invalid_values(&self, root: &mut ValueSlot<'_>) {
        let Some(validator) = self.validator() else {
            // Without a validator nothing was checked, so no value is returned.
            *root = ValueSlot::empty_object(root.node);
            return;
        };
        root.empty_invalid(&validator);
        if root.empty_unmatched_texts() {
            root.remove_empty_items();
            root.empty_invalid(&validator);
        }
    }
}

/// The maximum number of places in the answers for all pages, if there are lists. Each field, element, list and object
/// is a place, also if it is null. A field outside of lists is one place, also if several pages have it.
///
/// A model writes a row in a few bytes, but each of up to a hundred omitted fields becomes a null in `data` and an
/// entry of some hundred bytes in `fields`. A page of small print has some thousand words.
pub(super) const MAX_PLACES: usize = 5000;

/// The bytes of field names in the path to a place that count as one more place, because `fields` and the error repeat
/// the pointer.
const NAMES_BYTES: usize = 128;

/// The detail for a text whose pattern was not checked.
const TOO_MUCH_WORK: &str =
    "to check the value by the \"pattern\" of its schema takes more work than an answer may";

/// The state of one place of the answer.
struct ValueSlot<'s> {
    node: &'s Node,
    page: Option<u32>,
    raw: Option<String>,
    mishaps: Vec<Mishap>,
    content: Content<'s>,
}

enum Content<'s> {
    Nothing,
    Scalar(Value),
    Object(Vec<(&'s Property, ValueSlot<'s>)>),
    Array(Vec<ValueSlot<'s>>),
}

/// An error whose place in `data` is not yet known.
struct Mishap {
    code: FieldErrorCode,
    detail: String,
    raw: Option<String>,
}

impl Mishap {
    fn new(code: FieldErrorCode, raw: Option<String>) -> Self {
        Self { code, detail: code.detail().to_owned(), raw }
    }

    /// The error for a truncated list.
    fn too_many(kept: usize, actual: usize, page: u32) -> Self {
        let detail = format!(
            "the lists of the answer have more fields and elements than the limit of {MAX_PLACES}, nulls counted; \
             this one ends after {kept} of its {actual} elements on page {page}. Ask for fewer fields, for fewer \
             pages or for a smaller part of the page"
        );
        Self { code: FieldErrorCode::ConstraintViolated, detail, raw: None }
    }
}

impl<'s> ValueSlot<'s> {
    fn new(node: &'s Node, content: Content<'s>) -> Self {
        Self { node, page: None, raw: None, mishaps: Vec::new(), content }
    }

    /// An object with only nulls, or an empty slot if the node is not an object.
    fn empty_object(node: &'s Node) -> Self {
        let NodeKind::Object(properties) = &node.kind else {
            return Self::new(node, Content::Nothing);
        };
        let empty =
            |property: &'s Property| (property, ValueSlot::new(&property.node, Content::Nothing));
        Self::new(node, Content::Object(properties.iter().map(empty).collect()))
    }

    fn value(&self) -> Value {
        match &self.content {
            Content::Nothing => Value::Null,
            Content::Scalar(value) => value.clone(),
            Content::Array(items) => items.iter().map(ValueSlot::value).collect(),
            Content::Object(slots) => {
                let member = |(property, slot): &(&Property, ValueSlot<'_>)| {
                    (property.name.clone(), slot.value())
                };
                slots.iter().map(member).collect::<Map<_, _>>().into()
            }
        }
    }

    /// Adds the values of a later page that are still missing.
    fn merge(&mut self, later: Self, pointer: &str, conflicts: &mut Vec<ExtractionWarning>) {
        let blank = self.is_blank();
        match (&mut self.content, later.content) {
            (Content::Object(slots), Content::Object(others)) => {
                self.mishaps.extend(later.mishaps);
                for ((property, slot), (_, other)) in slots.iter_mut().zip(others) {
                    slot.merge(other, &child_pointer(pointer, &property.name), conflicts);
                }
            }
            (Content::Array(items), Content::Array(more)) => {
                // Where a list ends is told once.
                let is_ended = self.mishaps.iter().any(Mishap::ends_a_list);
                let others = later.mishaps.into_iter();
                self.mishaps.extend(others.filter(|other| !(is_ended && other.ends_a_list())));
                items.extend(more);
            }
            (Content::Scalar(value), Content::Scalar(other)) => {
                if !says_the_same(value, &other) {
                    add_conflict(conflicts, pointer, [self.page, later.page]);
                }
            }
            (Content::Nothing, content) => {
                let says_more = !matches!(content, Content::Nothing)
                    || (self.raw.is_none() && self.mishaps.is_empty());
                if says_more {
                    *self = Self { content, ..later };
                }
            }
            // Errors on a later page matter only if no earlier page had the value.
            (_, Content::Nothing) if blank => self.mishaps.extend(later.mishaps),
            (_, _) => {}
        }
    }

    /// Removes empty list elements. Their errors move to the list.
    fn remove_empty_items(&mut self) {
        match &mut self.content {
            Content::Nothing | Content::Scalar(_) => {}
            Content::Object(slots) => {
                for (_, slot) in slots {
                    slot.remove_empty_items();
                }
            }
            Content::Array(items) => {
                items.retain_mut(|item| {
                    item.remove_empty_items();
                    let is_kept = item.may_be_an_element();
                    if !is_kept {
                        let mishaps = mem::take(&mut item.mishaps);
                        self.mishaps.extend(mishaps.into_iter().map(Mishap::of_element));
                    }
                    is_kept
                });
                if items.is_empty() && !self.mishaps.is_empty() {
                    self.content = Content::Nothing;
                }
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

    /// True if there is neither a value nor an error.
    fn is_blank(&self) -> bool {
        self.mishaps.is_empty()
            && match &self.content {
                Content::Nothing => true,
                Content::Scalar(_) => false,
                Content::Object(slots) => slots.iter().all(|(_, slot)| slot.is_blank()),
                Content::Array(items) => items.iter().all(ValueSlot::is_blank),
            }
    }

    fn has_value(&self) -> bool {
        match &self.content {
            Content::Nothing => false,
            Content::Scalar(_) => true,
            Content::Object(slots) => slots.iter().any(|(_, slot)| slot.has_value()),
            Content::Array(items) => items.iter().any(Self::has_value),
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

    /// Empties values that violate a rule of the validator, until there is no violation.
    fn empty_invalid(&mut self, validator: &Validator) {
        loop {
            let data = self.value();
            let mut emptied = false;
            let mut broken = false;
            for violation in validator.iter_errors(&data) {
                broken = true;
                let slot = self.descend(violation.instance_path().segments());
                emptied |= slot.is_some_and(|slot| slot.reject(violation.kind().keyword()));
            }
            if !broken {
                return;
            }
            if !emptied {
                *self = Self::empty_object(self.node);
                return;
            }
            self.remove_empty_items();
        }
    }

    /// Empties texts that do not match their patterns; returns whether there were any.
    fn empty_unmatched_texts(&mut self) -> bool {
        let mut texts = Vec::new();
        self.add_texts_with_pattern(&mut texts);
        // All texts of one place share a pattern, and several places may have the same pattern.
        texts.sort_by_key(|(pattern, _)| pattern.as_ptr());
        let mut places: Vec<_> =
            texts.chunk_by_mut(|(one, _), (other, _)| ptr::eq(*one, *other)).collect();
        places.sort_by(|one, other| one[0].0.cmp(other[0].0));
        let (mut effort, mut emptied) = (Effort::default(), false);
        for places in places.chunk_by_mut(|one, other| one[0].0 == other[0].0) {
            let mut matcher = Matcher::of(places[0][0].0);
            for (_, slot) in places.iter_mut().flat_map(|place| place.iter_mut()) {
                let Content::Scalar(Value::String(text)) = &slot.content else { continue };
                let verdict =
                    matcher.as_mut().and_then(|matcher| matcher.is_match(text, &mut effort));
                emptied |= match verdict {
                    Some(true) => false,
                    Some(false) => slot.reject("pattern"),
                    None => slot.empty(TOO_MUCH_WORK.to_owned()),
                };
            }
        }
        emptied
    }

    /// Collects the text slots that have a pattern, each with its pattern.
    fn add_texts_with_pattern<'a>(&'a mut self, found: &mut Vec<(&'s str, &'a mut Self)>) {
        let is_text = matches!(self.content, Content::Scalar(Value::String(_)));
        if let Some(pattern) = self.node.pattern().filter(|_| is_text) {
            found.push((pattern, self));
            return;
        }
        match &mut self.content {
            Content::Nothing | Content::Scalar(_) => {}
            Content::Array(items) => {
                for item in items {
                    item.add_texts_with_pattern(found);
                }
            }
            Content::Object(slots) => {
                for (_, slot) in slots {
                    slot.add_texts_with_pattern(found);
                }
            }
        }
    }

    /// Empties the slot because of a rule; false if it was already empty.
    fn reject(&mut self, keyword: &str) -> bool {
        self.empty(format!("the value is against {keyword:?} of its schema"))
    }

    /// Empties the slot; false if it was already empty.
    fn empty(&mut self, detail: String) -> bool {
        if matches!(self.content, Content::Nothing) {
            return false;
        }
        self.content = Content::Nothing;
        let raw = self.raw.clone();
        self.mishaps.reserve_exact(1);
        self.mishaps.push(Mishap { code: FieldErrorCode::ConstraintViolated, detail, raw });
        true
    }
}

impl Mishap {
    /// Whether it is the one for a truncated list. No other rule is checked before all pages are merged.
    fn ends_a_list(&self) -> bool {
        self.code == FieldErrorCode::ConstraintViolated
    }

    fn of_element(self) -> Self {
        Self { detail: format!("{}; the element was left out", self.detail), ..self }
    }
}

/// Reads one page's answer into slots.
struct AnswerReader<'w> {
    page: u32,
    warnings: &'w mut Vec<ExtractionWarning>,
    /// Number of places so far: all of this page, and those in lists of the pages before.
    places: usize,
    /// Number of places in lists of this page.
    listed: usize,
    /// Whether the current place is in a list.
    is_in_list: bool,
    /// Bytes of field names in the path to the current place.
    names: usize,
}

impl<'w> AnswerReader<'w> {
    const fn new(page: u32, places: usize, warnings: &'w mut Vec<ExtractionWarning>) -> Self {
        Self { page, warnings, places, listed: 0, is_in_list: false, names: 0 }
    }

    fn read<'s>(&mut self, node: &'s Node, answer: &Tree) -> ValueSlot<'s> {
        let places = 1 + self.names / NAMES_BYTES;
        self.places += places;
        if self.is_in_list {
            self.listed += places;
        }
        let mut slot = match &node.kind {
            NodeKind::Leaf(leaf) => Self::leaf(node, leaf, answer),
            NodeKind::Object(properties) => self.object(node, properties, answer),
            NodeKind::Array(item) => self.array(node, item, answer),
        };
        slot.page = slot.raw.is_some().then_some(self.page);
        slot
    }

    fn leaf<'s>(node: &'s Node, leaf: &Leaf, answer: &Tree) -> ValueSlot<'s> {
        let raw = raw(answer);
        let (content, mishap) = match coerce(leaf, answer) {
            Ok(None) => (Content::Nothing, None),
            Ok(Some(value)) => (Content::Scalar(value), None),
            Err(code) => (Content::Nothing, Some(Mishap::new(code, raw.clone()))),
        };
        ValueSlot { raw, mishaps: mishap.into_iter().collect(), ..ValueSlot::new(node, content) }
    }

    fn object<'s>(
        &mut self,
        node: &'s Node,
        properties: &'s [Property],
        answer: &Tree,
    ) -> ValueSlot<'s> {
        let inside = inside_string(answer);
        let members = match inside.as_ref().unwrap_or(answer) {
            Tree::Object(members) => members,
            // A list of one object is read as that object.
            Tree::Array(items) if items.len() == 1 => match items.first() {
                Some(Tree::Object(members)) => members,
                _ => return Self::unreadable(node, answer),
            },
            answer if is_nothing(answer) => {
                return ValueSlot { raw: raw(answer), ..ValueSlot::new(node, Content::Nothing) };
            }
            _ => return Self::unreadable(node, answer),
        };
        let is_asked_for = |name: &String| properties.iter().any(|property| property.name == *name);
        if !members.iter().all(|(name, _)| is_asked_for(name)) {
            warn(self.warnings, ExtractionWarning::UnexpectedFieldsDropped);
        }
        let slots = properties.iter().map(|property| {
            let member = members.iter().find(|(name, _)| *name == property.name);
            self.names += property.name.len();
            let slot = self.read(&property.node, member.map_or(&Tree::Null, |(_, value)| value));
            self.names -= property.name.len();
            (property, slot)
        });
        let content = Content::Object(slots.collect());
        ValueSlot::new(node, content)
    }

    fn unreadable<'s>(node: &'s Node, answer: &Tree) -> ValueSlot<'s> {
        let mishaps = vec![Mishap::new(FieldErrorCode::NotAnObject, raw(answer))];
        ValueSlot { raw: raw(answer), mishaps, ..ValueSlot::new(node, Content::Nothing) }
    }

    fn array<'s>(&mut self, node: &'s Node, item: &'s Node, answer: &Tree) -> ValueSlot<'s> {
        if is_nothing(answer) {
            return ValueSlot { raw: raw(answer), ..ValueSlot::new(node, Content::Nothing) };
        }
        // A single element outside a list is read as a list of one element.
        let inside = inside_string(answer);
        let items = match inside.as_ref().unwrap_or(answer) {
            Tree::Array(items) => items.as_slice(),
            _ => std::slice::from_ref(answer),
        };
        // The number of object elements is far below the limit.
        let is_leaf = matches!(item.kind, NodeKind::Leaf(_));
        let expected = if is_leaf { items.len().min(MAX_PLACES) } else { 0 };
        let (mut slots, mut mishaps) = (Vec::with_capacity(expected), Vec::new());
        let is_in_list = mem::replace(&mut self.is_in_list, true);
        for answer in items {
            let slot = self.read(item, answer);
            if self.places > MAX_PLACES {
                mishaps.push(Mishap::too_many(slots.len(), items.len(), self.page));
                break;
            }
            slots.push(slot);
        }
        self.is_in_list = is_in_list;
        ValueSlot { mishaps, ..ValueSlot::new(node, Content::Array(slots)) }
    }
}

/// The public form of the slots, in the order of `data`.
#[derive(Default)]
struct Report {
    fields: Vec<(String, FieldOrigin)>,
    errors: Vec<FieldError>,
}

impl Report {
    /// Adds a slot to the report and returns its value.
    fn take(&mut self, slot: ValueSlot<'_>, pointer: &str, required: bool) -> Value {
        let missing = required
            && !slot.node.nullable
            && slot.mishaps.is_empty()
            && matches!(slot.content, Content::Nothing);
        let missing =
            missing.then(|| Mishap::new(FieldErrorCode::RequiredMissing, slot.raw.clone()));
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
        let grounded = raw.is_none().then_some(Grounded::None);
        self.fields.push((pointer.to_owned(), FieldOrigin { raw, page, grounded, place: None }));
        value
    }
}

/// The object or list that the model wrote as a string.
fn inside_string(answer: &Tree) -> Option<Tree> {
    answer.as_str().and_then(answer::inside_string)
}

/// The model's text; `None` if it wrote nothing.
fn raw(answer: &Tree) -> Option<String> {
    match answer {
        Tree::Null => None,
        Tree::String(text) => (!text.trim().is_empty()).then(|| text.clone()),
        other => Some(other.to_string()),
    }
}

/// Whether two pages have the same value: the same number, or the same words apart from case and width.
fn says_the_same(value: &Value, other: &Value) -> bool {
    match (value, other) {
        (Value::Number(one), Value::Number(other)) => {
            let [one, other] = [one, other].map(|number| Decimal::of_json(&number.to_string()));
            one.zip(other).is_some_and(|(one, other)| one.is(&other))
        }
        (Value::String(one), Value::String(other)) => {
            letters(one).split_whitespace().eq(letters(other).split_whitespace())
        }
        _ => value == other,
    }
}

/// Adds that the second page disagrees with the first.
fn add_conflict(conflicts: &mut Vec<ExtractionWarning>, place: &str, found_on: [Option<u32>; 2]) {
    let [first, second] = found_on;
    for conflict in conflicts.iter_mut() {
        if let ExtractionWarning::PagesDisagree { pointer, pages } = conflict
            && *pointer == place
        {
            pages.extend(second);
            return;
        }
    }
    let pages = first.into_iter().chain(second).collect();
    conflicts.push(ExtractionWarning::PagesDisagree { pointer: place.to_owned(), pages });
}

fn warn(warnings: &mut Vec<ExtractionWarning>, warning: ExtractionWarning) {
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
}

#[cfg(test)]
mod tests;
