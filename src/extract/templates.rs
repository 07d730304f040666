//! Built-in schemas for the most common documents.
//!
//! A template is only a named schema. The result of `GET /templates/{name}` can be copied, changed and sent as
//! `schema`. The templates are JSON files, so that changes are easy to review.

use std::sync::{Arc, LazyLock};

use serde::Serialize;
use serde_json::Value;

use super::schema::Schema;

/// Name and text of each template, in listing order.
const SOURCES: [(&str, &str); 4] = [
    ("receipt", include_str!("../../templates/receipt.json")),
    ("invoice", include_str!("../../templates/invoice.json")),
    ("id_card", include_str!("../../templates/id_card.json")),
    ("train_ticket", include_str!("../../templates/train_ticket.json")),
];

/// A schema with a name.
#[derive(Debug, Serialize)]
pub struct Template {
    /// The value of `template` in a request.
    pub name: &'static str,
    /// The title of the schema.
    pub title: String,
    /// The purpose of the template in one sentence.
    pub description: String,
    /// The JSON Schema, as in the file.
    pub schema: Value,
    /// The parsed schema.
    #[serde(skip)]
    pub parsed: Arc<Schema>,
}

static TEMPLATES: LazyLock<Vec<Template>> = LazyLock::new(|| {
    SOURCES.into_iter().filter_map(|(name, text)| Template::read(name, text)).collect()
});

/// All templates.
pub fn all() -> &'static [Template] {
    &TEMPLATES
}

/// The template of that name.
pub fn find(name: &str) -> Option<&'static Template> {
    all().iter().find(|template| template.name == name)
}

impl Template {
    /// `None` if the text is not a schema with a title and a description. A test reads each file.
    fn read(name: &'static str, text: &str) -> Option<Self> {
        let schema: Value = serde_json::from_str(text).ok()?;
        let said = |keyword: &str| schema.get(keyword)?.as_str().map(str::to_owned);
        let (title, description) = (said("title")?, said("description")?);
        let parsed = Arc::new(Schema::parse(&schema).ok()?);
        Some(Self { name, title, description, schema, parsed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_a_schema_with_title_and_description() {
        for (name, text) in SOURCES {
            let schema: Value = serde_json::from_str(text).expect(name);
            assert_eq!(Schema::parse(&schema).err(), None, "{name}");
            assert!(find(name).is_some(), "{name} lacks a title or a description");
        }
        assert_eq!(all().len(), SOURCES.len());
    }

    #[test]
    fn every_field_of_a_template_tells_the_model_what_it_means() {
        fn blank(hint: &Value) -> bool {
            match hint {
                Value::Object(fields) => fields.values().any(blank),
                Value::Array(items) => items.iter().any(blank),
                hint => hint.as_str().is_none_or(|hint| hint.len() < 10),
            }
        }
        for template in all() {
            assert!(!blank(&template.parsed.result_schema()), "{}", template.name);
        }
    }

    #[test]
    fn an_unknown_name_finds_nothing() {
        assert!(find("passport_of_atlantis").is_none());
        assert!(find("").is_none());
    }
}
