//! Named schemas: built-in ones for the most common documents, and those of the operator.
//!
//! A template is only a named schema. The result of `GET /templates/{name}` can be copied, changed and sent as
//! `schema`, or put into the operator's folder. The built-in templates are JSON files, so that changes are easy to
//! review.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::error::SchemaError;
use super::schema::Schema;
use crate::label::{self, LabelFault};

/// Name and text of each built-in template, in listing order.
const BUILT_IN: [(&str, &str); 4] = [
    ("receipt", include_str!("../../templates/receipt.json")),
    ("invoice", include_str!("../../templates/invoice.json")),
    ("id_card", include_str!("../../templates/id_card.json")),
    ("train_ticket", include_str!("../../templates/train_ticket.json")),
];

/// A schema with a name.
#[derive(Debug, Serialize)]
pub struct Template {
    /// The value of `template` in a request.
    pub name: String,
    /// The title of the schema, or its name if it has none.
    pub title: String,
    /// The purpose of the template in one sentence; may be empty.
    pub description: String,
    /// Where it is from.
    pub origin: TemplateOrigin,
    /// The JSON Schema, as in the file.
    pub schema: Value,
    /// The parsed schema.
    #[serde(skip)]
    pub parsed: Arc<Schema>,
}

/// Where a template is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateOrigin {
    /// It is compiled in.
    BuiltIn,
    /// It is from the operator's folder.
    Operator,
}

/// The templates of a service.
#[derive(Debug)]
pub struct Templates {
    all: Vec<Template>,
}

/// A template that cannot be used. Each message is the predicate of a sentence about its file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Its name would be misleading in a list or a log line.
    #[error("has a name that cannot be used: it {0}")]
    Name(LabelFault),
    /// There is a template of this name.
    #[error("has the name of a built-in template; give it another name, such as my-{0}.json")]
    Taken(String),
    /// It is no JSON.
    #[error("is not JSON: {0}")]
    NotJson(String),
    /// It is an example of an answer.
    #[error("is an example of an answer; write a JSON Schema")]
    Example,
    /// It is no schema that is supported.
    #[error("is no schema that can be used, at {place}: {cause}")]
    Schema {
        /// The place in the schema.
        place: String,
        /// The reason.
        cause: SchemaError,
    },
}

impl Templates {
    /// The built-in templates.
    pub fn built_in() -> Self {
        let read = |(name, text): (&str, &str)| {
            Template::read(name.to_owned(), text, TemplateOrigin::BuiltIn).ok()
        };
        Self { all: BUILT_IN.into_iter().filter_map(read).collect() }
    }

    /// Adds a template of the operator.
    ///
    /// # Errors
    ///
    /// [`TemplateError`].
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), TemplateError> {
        label::check(name).map_err(TemplateError::Name)?;
        if self.find(name).is_some() {
            return Err(TemplateError::Taken(name.to_owned()));
        }
        self.all.push(Template::read(name.to_owned(), text, TemplateOrigin::Operator)?);
        Ok(())
    }

    /// All templates, the built-in ones first.
    pub fn all(&self) -> &[Template] {
        &self.all
    }

    /// The template of that name.
    pub fn find(&self, name: &str) -> Option<&Template> {
        self.all.iter().find(|template| template.name == name)
    }
}

impl Template {
    fn read(name: String, text: &str, origin: TemplateOrigin) -> Result<Self, TemplateError> {
        let schema: Value = serde_json::from_str(text)
            .map_err(|error| TemplateError::NotJson(error.to_string()))?;
        let parsed = Schema::parse(&schema).map_err(|cause| TemplateError::Schema {
            place: if cause.pointer().is_empty() {
                "its top".to_owned()
            } else {
                cause.pointer().to_owned()
            },
            cause,
        })?;
        if parsed.is_from_example {
            return Err(TemplateError::Example);
        }
        let said = |keyword: &str| schema.get(keyword)?.as_str().map(str::to_owned);
        let (title, description) = (said("title"), said("description").unwrap_or_default());
        let title = title.unwrap_or_else(|| name.clone());
        Ok(Self { name, title, description, origin, parsed: Arc::new(parsed), schema })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_template_is_a_schema_with_title_and_description() {
        let built_in = Templates::built_in();
        for (name, text) in BUILT_IN {
            let schema: Value = serde_json::from_str(text).expect(name);
            assert_eq!(Schema::parse(&schema).err(), None, "{name}");
            let template = built_in.find(name).expect(name);
            assert!(template.title != name && !template.description.is_empty(), "{name}");
        }
        assert_eq!(built_in.all().len(), BUILT_IN.len());
    }

    #[test]
    fn every_field_of_a_built_in_template_tells_the_model_what_it_means() {
        fn blank(hint: &Value) -> bool {
            match hint {
                Value::Object(fields) => fields.values().any(blank),
                Value::Array(items) => items.iter().any(blank),
                hint => hint.as_str().is_none_or(|hint| hint.len() < 10),
            }
        }
        for template in Templates::built_in().all() {
            assert!(!blank(&template.parsed.result_schema()), "{}", template.name);
        }
    }

    #[test]
    fn an_unknown_name_finds_nothing() {
        let templates = Templates::built_in();
        assert!(templates.find("passport_of_atlantis").is_none());
        assert!(templates.find("").is_none());
    }

    #[test]
    fn a_template_of_the_operator_is_found_beside_the_built_in_ones() {
        const SCHEMA: &str = r#"{"type": "object", "properties": {"a": {"type": "string"}}}"#;
        let mut templates = Templates::built_in();
        templates.add("delivery note", SCHEMA).unwrap();
        let added = templates.find("delivery note").unwrap();
        assert_eq!((added.title.as_str(), added.description.as_str()), ("delivery note", ""));
        assert_eq!(added.origin, TemplateOrigin::Operator);
        assert_eq!(templates.find("receipt").unwrap().origin, TemplateOrigin::BuiltIn);
    }

    #[test]
    fn a_template_that_cannot_be_used_says_why() {
        const SCHEMA: &str = r#"{"type": "object", "properties": {"a": {"type": "string"}}}"#;
        let mut templates = Templates::built_in();
        for (name, text, why) in [
            ("receipt", SCHEMA, "has the name of a built-in template"),
            ("=1+1", SCHEMA, "begins with '='"),
            ("a\nb", SCHEMA, "U+000A"),
            ("", SCHEMA, "has 0 characters"),
            ("note", "{", "is not JSON"),
            (
                "note",
                r#"{"type": "object", "properties": {"a": {"type": "text"}}}"#,
                "at /properties/a",
            ),
            ("note", r#"{"type": "string"}"#, "at its top"),
            ("note", r#"{"total": 1}"#, "is an example"),
        ] {
            let refused = templates.add(name, text).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        assert_eq!(templates.all().len(), BUILT_IN.len());
    }
}
