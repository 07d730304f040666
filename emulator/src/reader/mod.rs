//! Key information by rules: a simple substitute for a model that understands documents.
//!
//! For each field of a schema it looks for a label (the field's key, or the names that receipts, invoices, tickets and
//! identity cards use for it, in English and Chinese) and takes the text to the right of it or below it, if that has
//! the form of the field. A few fields of a receipt or a train ticket need no label: they are recognised by form and
//! position. A field that is not found is null. No value is invented: every value is a piece of the page as printed (a
//! date is rewritten only where the field's description asks for ISO order).
//!
//! Limits: it supports no synonyms beyond its tables, no languages beyond those two and no tables without headings, and
//! it does not check the OCR output. It exists so that a gateway's extraction path can be run and tested end to end
//! without a key; it says nothing about the quality that the real model has.

mod concepts;
mod items;
mod lookup;
mod patterns;
mod position;
mod vocabulary;

use serde_json::{Map, Value};

use crate::sheet::{Sheet, text_of};
use concepts::{Concept, Unlabelled};
use lookup::{before_next_label, is_colon};
use vocabulary::{concept, guessed_kind, words_of_key};

/// Fills a schema from a sheet: leaves are strings or null.
pub(crate) fn fields(sheet: &Sheet, schema: &Map<String, Value>) -> Value {
    object(sheet, schema, "")
}

/// All pairs of a label and a value with a colon between them.
pub(crate) fn pairs(sheet: &Sheet) -> Value {
    let mut pairs = Map::new();
    for row in &sheet.rows {
        for segment in row.segments() {
            let mut rest = segment;
            while let Some(colon) = rest.iter().position(is_colon) {
                let value = before_next_label(&rest[colon + 1..]);
                let (label, text) = (text_of(&rest[..colon]), text_of(value));
                if !label.is_empty() && !text.is_empty() && label.contains(char::is_alphabetic) {
                    pairs.entry(label).or_insert(Value::String(text));
                }
                rest = &rest[colon + 1 + value.len()..];
            }
        }
    }
    Value::Object(pairs)
}

fn object(sheet: &Sheet, schema: &Map<String, Value>, parent: &str) -> Value {
    let fill = |(key, hint): (&String, &Value)| {
        let value = match hint {
            Value::Object(members) => object(sheet, members, &words_of_key(key)),
            Value::Array(elements) => match elements.first() {
                Some(Value::Object(template)) => items::items(sheet, template),
                _ => Value::Array(Vec::new()),
            },
            hint => leaf(sheet, key, hint.as_str().unwrap_or_default(), parent),
        };
        (key.clone(), value)
    };
    Value::Object(schema.iter().map(fill).collect())
}

fn leaf(sheet: &Sheet, key: &str, hint: &str, parent: &str) -> Value {
    let key = words_of_key(key);
    // `seller: {name}` asks for the seller's name.
    let nested = (!parent.is_empty()).then(|| concept(&format!("{parent} {key}"))).flatten();
    let known = nested.or_else(|| concept(&key));
    let found = match known {
        Some(concept) => known_field(sheet, &key, concept),
        None => lookup::labelled(sheet, &[&key], guessed_kind(&key, hint)),
    };
    let found = found.map(|text| as_hinted(text, hint));
    found.map_or(Value::Null, Value::String)
}

fn known_field(sheet: &Sheet, key: &str, concept: &Concept) -> Option<String> {
    // A receipt has many labels for its sum, so they are weighed instead of tried in turn.
    if concept.unlabelled == Unlabelled::Total
        && let Some(total) = position::total(sheet)
    {
        return Some(total);
    }
    let names: Vec<&str> = std::iter::once(key).chain(concept.names.iter().copied()).collect();
    lookup::labelled(sheet, &names, concept.kind)
        .or_else(|| position::unlabelled(sheet, concept.unlabelled, concept.kind))
}

/// A date in ISO order if the hint requests it; otherwise unchanged.
fn as_hinted(text: String, hint: &str) -> String {
    let hint = hint.to_lowercase();
    let wants_iso = ["yyyy-mm-dd", "iso 8601", "年-月-日"].iter().any(|form| hint.contains(form));
    match patterns::date(&text) {
        Some(date) if wants_iso => date.iso(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sheet::tests::typed;

    const INVOICE: &str = "ACME TRADING LTD\n12 Main Street\nInvoice No: INV-0042   Date: 17/01/2018\n\
        Bill To: Jane Doe\nWidget 20.00\nTax 2.00\nTotal $22.00";

    #[test]
    fn a_schema_is_filled_and_what_is_absent_is_null() {
        let schema = json!({
            "seller": {"name": "", "phone": ""},
            "invoiceNumber": "",
            "invoice_date": "as YYYY-MM-DD",
            "totals": {"tax": "", "total": "", "discount": ""},
            "currency": "",
            "passport_number": ""
        });
        let found = fields(&Sheet::of([&typed(INVOICE)]), schema.as_object().unwrap());
        assert_eq!(
            found,
            json!({
                "seller": {"name": "ACME TRADING LTD", "phone": null},
                "invoiceNumber": "INV-0042",
                "invoice_date": "2018-01-17",
                "totals": {"tax": "2.00", "total": "22.00", "discount": null},
                "currency": "$",
                "passport_number": null
            })
        );
    }

    #[test]
    fn without_a_schema_the_pairs_of_the_page_are_given() {
        let found = pairs(&Sheet::of([&typed(INVOICE)]));
        assert_eq!(
            found,
            json!({"Invoice No": "INV-0042", "Date": "17/01/2018", "Bill To": "Jane Doe"})
        );
    }

    #[test]
    fn a_blank_page_has_no_fields() {
        let schema = json!({"total": "", "items": [{"name": ""}], "seller": {"name": ""}});
        let found = fields(&Sheet::default(), schema.as_object().unwrap());
        assert_eq!(found, json!({"total": null, "items": [], "seller": {"name": null}}));
        assert_eq!(pairs(&Sheet::default()), json!({}));
    }
}
