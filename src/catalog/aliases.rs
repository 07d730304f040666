//! Other names of models, for programs that ask for a model of another vendor.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::label::{self, LabelFault};

/// The section `[mistral]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MistralSettings {
    /// The model behind each name that programs for Mistral's OCR API ask for. An empty one is the default model.
    pub models: BTreeMap<String, String>,
}

/// Other names of models.
#[derive(Debug, Clone, Default)]
pub struct ModelAliases {
    /// The model behind each name; none is the default model.
    targets: BTreeMap<String, Option<String>>,
}

/// A name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// It would be misleading in a list or a log line.
    #[error("mistral.models.{alias:?}: the name {fault}")]
    Name {
        /// The name.
        alias: String,
        /// The violated rule.
        fault: LabelFault,
    },
    /// It has a meaning already.
    #[error(
        "mistral.models.{alias:?}: there is a model of this name, and it passes as it is; take the line out"
    )]
    IsModel {
        /// The name.
        alias: String,
    },
    /// Its model is not listed, or has no price.
    #[error(
        "mistral.models.{alias:?}: there is no model {model:?} with a price; write \"\" for the default model, or \
         one of: {known}"
    )]
    NoModel {
        /// The name.
        alias: String,
        /// The model.
        model: String,
        /// The models that there are.
        known: String,
    },
}

impl ModelAliases {
    /// The names of `[mistral.models]`, for a catalog with these models.
    ///
    /// # Errors
    ///
    /// [`AliasError`].
    pub fn new(settings: &MistralSettings, known: &BTreeSet<&str>) -> Result<Self, AliasError> {
        let mut targets = BTreeMap::new();
        for (alias, model) in &settings.models {
            label::check(alias)
                .map_err(|fault| AliasError::Name { alias: alias.clone(), fault })?;
            if known.contains(alias.as_str()) && alias != model {
                return Err(AliasError::IsModel { alias: alias.clone() });
            }
            if !model.is_empty() && !known.contains(model.as_str()) {
                return Err(AliasError::NoModel {
                    alias: alias.clone(),
                    model: model.clone(),
                    known: known.iter().copied().collect::<Vec<_>>().join(", "),
                });
            }
            targets.insert(alias.clone(), (!model.is_empty()).then(|| model.clone()));
        }
        Ok(Self { targets })
    }

    /// The name in the catalog for a name that a caller gives; none for the default model.
    pub fn resolve<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.targets.get(name).map_or(Some(name), Option::as_deref)
    }

    /// All names, in sorted order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.targets.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(pairs: &[(&str, &str)]) -> Result<ModelAliases, String> {
        let models = pairs.iter().map(|(alias, model)| ((*alias).to_owned(), (*model).to_owned()));
        let settings = MistralSettings { models: models.collect() };
        let known = BTreeSet::from(["qwen-vl-ocr", "qwen-vl-ocr-latest"]);
        ModelAliases::new(&settings, &known).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_stands_for_its_model_and_every_other_for_itself() {
        let pairs = [("mistral-ocr-latest", ""), ("mistral-ocr-4", "qwen-vl-ocr")];
        let aliases = aliases(&pairs).unwrap();
        assert_eq!(aliases.resolve("mistral-ocr-latest"), None);
        assert_eq!(aliases.resolve("mistral-ocr-4"), Some("qwen-vl-ocr"));
        assert_eq!(aliases.resolve("other"), Some("other"));
        assert_eq!(aliases.names().collect::<Vec<_>>(), ["mistral-ocr-4", "mistral-ocr-latest"]);
    }

    #[test]
    fn a_name_without_a_model_or_with_two_meanings_is_refused() {
        for (alias, target, why) in [
            ("a", "b", "no model \"b\""),
            ("qwen-vl-ocr", "", "passes as it is"),
            ("", "", "the name"),
        ] {
            let refused = aliases(&[(alias, target)]).unwrap_err();
            assert!(refused.starts_with("mistral.models.") && refused.contains(why), "{refused}");
        }
        assert!(aliases(&[("qwen-vl-ocr", "qwen-vl-ocr")]).is_ok());
    }
}
