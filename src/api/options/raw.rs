//! The options of all three sources, before their values are parsed.

use std::sync::Arc;

use serde_json::Value;

use super::read::OptionReader;
use super::value::{MOST_VALUES, text_of};
use super::{NAMES, ParsedOptions, Purpose, invalid, unknown};
use crate::api::problem::Problem;
use crate::capacity::scratch::Scratch;
use crate::extract::schema::WORKING_BYTES;
use crate::extract::templates::Templates;
use crate::json::count_values;

/// The most languages in the hint. No task supports more than ten.
const MOST_LANGUAGES: usize = 16;

/// The longest option in bytes: a schema may have 64 KiB (`extract`), and the other options are small.
pub(in crate::api) const OPTION_BYTES: usize = 64 * 1024;

/// Options before parsing: one value for each name, and a list of languages.
#[derive(Debug, Default)]
pub(in crate::api) struct RawOptions {
    values: [Option<Value>; NAMES.len()],
    languages: Vec<Value>,
}

impl RawOptions {
    /// Whether there is an option of this name.
    pub(in crate::api) fn knows(name: &str) -> bool {
        known(name).is_ok()
    }

    /// Adds the options of a query string.
    ///
    /// # Errors
    ///
    /// 400 for an unknown name or a second value.
    pub(in crate::api) fn add_query(&mut self, query: &str) -> Result<(), Problem> {
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            self.add(known(&name)?, Value::String(value.into_owned()))?;
        }
        Ok(())
    }

    /// Adds an option from a form part.
    ///
    /// # Errors
    ///
    /// 400 for an unknown name or a second value.
    pub(in crate::api) fn add_part(&mut self, name: &str, text: String) -> Result<(), Problem> {
        self.add(known(name)?, Value::String(text))
    }

    /// Adds an option from a JSON member. The name and the length are checked before the value is parsed into a tree,
    /// because a tree needs many times the memory of its text.
    ///
    /// # Errors
    ///
    /// 400 for an unknown name, a second value, or a value that is too long.
    pub(in crate::api) fn add_member(&mut self, name: &str, json: &str) -> Result<(), Problem> {
        let option = known(name)?;
        if json.len() > OPTION_BYTES {
            return Err(invalid(name, &format!("is longer than {OPTION_BYTES} bytes")));
        }
        if NAMES[option] == "schema" && !json.trim_start().starts_with('"') {
            // It is parsed into a tree once the memory for that is reserved.
            return self.add(option, Value::String(json.to_owned()));
        }
        if count_values(json) > MOST_VALUES {
            return Err(invalid(name, &format!("has more than {MOST_VALUES} JSON values")));
        }
        let value = serde_json::from_str(json).map_err(|_| invalid(name, "must be JSON"))?;
        self.add(option, value)
    }

    fn add(&mut self, option: usize, value: Value) -> Result<(), Problem> {
        if NAMES[option] == "language" {
            let tags = if let Value::Array(tags) = value { tags } else { vec![value] };
            if self.languages.len() + tags.len() > MOST_LANGUAGES {
                return Err(invalid(
                    "language",
                    &format!("is given more than {MOST_LANGUAGES} times"),
                ));
            }
            self.languages.extend(tags);
            return Ok(());
        }
        match &self.values[option] {
            Some(before) if text_of(before) == text_of(&value) => {}
            Some(_) => return Err(invalid(NAMES[option], "was given twice with different values")),
            None => self.values[option] = Some(value),
        }
        Ok(())
    }

    /// Parses all options for a purpose. Schemas are parsed outside the reactor, and only a few at once: a schema with
    /// many patterns takes tens of milliseconds and some megabytes of `scratch`.
    ///
    /// # Errors
    ///
    /// 400 that lists every flaw, or 404 for an unknown template.
    pub(in crate::api) async fn read(
        self,
        purpose: Purpose,
        scratch: &Scratch,
        templates: &Arc<Templates>,
    ) -> Result<ParsedOptions, Problem> {
        if !self.has("schema") {
            return self.parse(purpose, templates);
        }
        let memory = scratch.take(WORKING_BYTES).await;
        let templates = Arc::clone(templates);
        let parsing = tokio::task::spawn_blocking(move || {
            let parsed = self.parse(purpose, &templates);
            // The thread continues if the caller leaves.
            drop(memory);
            parsed
        });
        parsing.await.map_err(|_panicked| Problem::internal())?
    }

    /// Parses all options on the current thread.
    pub(super) fn parse(
        self,
        purpose: Purpose,
        templates: &Templates,
    ) -> Result<ParsedOptions, Problem> {
        let purpose = match purpose {
            Purpose::Estimate if self.has("schema") || self.has("template") => Purpose::Fields,
            Purpose::Estimate => Purpose::Text,
            other => other,
        };
        let mut reader = OptionReader::new(templates);
        let languages = self.languages.iter().map(|tag| ("language", tag));
        let values = NAMES.iter().zip(&self.values);
        let given = values.filter_map(|(name, value)| Some((*name, value.as_ref()?)));
        for (name, value) in given.chain(languages) {
            if let Err(flaw) = reader.read(name, value, purpose) {
                reader.flaws.push(flaw);
            }
        }
        reader.check_together(|name| self.has(name), purpose);
        Problem::of_flaws(reader.flaws).map_or(Ok(reader.parsed), Err)
    }

    fn has(&self, name: &str) -> bool {
        NAMES.iter().zip(&self.values).any(|(given, value)| *given == name && value.is_some())
    }
}

/// The index of an option in [`NAMES`].
fn known(name: &str) -> Result<usize, Problem> {
    NAMES.iter().position(|known| *known == name).ok_or_else(|| unknown(name, &NAMES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Pixels;

    fn read(query: &str) -> Result<ParsedOptions, Problem> {
        let mut raw = RawOptions::default();
        raw.add_query(query)?;
        raw.parse(Purpose::Text, &Templates::built_in())
    }

    fn code_of(query: &str) -> &'static str {
        read(query).unwrap_err().code.as_str()
    }

    #[test]
    fn an_option_is_the_same_from_the_query_a_part_or_a_member() {
        let mut from_part = RawOptions::default();
        from_part.add_part("max_pixels", "4096".to_owned()).unwrap();
        let mut from_member = RawOptions::default();
        from_member.add_member("max_pixels", "4096").unwrap();
        for raw in [from_part, from_member] {
            let parsed = raw.parse(Purpose::Text, &Templates::built_in()).unwrap();
            assert_eq!(parsed.options.wish.max_pixels, Some(Pixels::new(4096)));
        }
    }

    #[test]
    fn an_unknown_option_is_refused_and_named() {
        assert_eq!(code_of("langauge=de"), "unknown_option");
        let problem = read("langauge=de").unwrap_err();
        assert_eq!(problem.errors[0].pointer, "/langauge");
    }

    #[test]
    fn the_same_option_twice_is_fine_with_one_value_and_refused_with_two() {
        let mut raw = RawOptions::default();
        raw.add_query("max_pixels=4096").unwrap();
        raw.add_member("max_pixels", "4096").unwrap();
        assert_eq!(
            raw.add_part("max_pixels", "5000".to_owned()).unwrap_err().code.as_str(),
            "invalid_option"
        );
    }

    #[test]
    fn languages_add_up() {
        let parsed = read("language=de&language=zh-Hans").unwrap();
        assert_eq!(parsed.options.languages, ["de", "zh-Hans"]);
    }

    #[test]
    fn more_languages_than_can_be_hinted_at_are_refused_however_they_come() {
        let many = format!("[{}]", ["1"; 1_000].join(","));
        let mut raw = RawOptions::default();
        assert_eq!(raw.add_member("language", &many).unwrap_err().code.as_str(), "invalid_option");
        assert_eq!(code_of(&"language=de&".repeat(MOST_LANGUAGES + 1)), "invalid_option");
    }

    #[test]
    fn a_member_of_many_values_never_becomes_a_tree() {
        let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let many = format!("[{}]", vec![nested; 300].join(","));
        for name in ["metadata", "prompt", "pages"] {
            let mut raw = RawOptions::default();
            assert_eq!(
                raw.add_member(name, &many).unwrap_err().code.as_str(),
                "invalid_option",
                "{name}"
            );
        }
        let mut raw = RawOptions::default();
        raw.add_member("schema", &format!("{{\"x-a\":{many}}}")).unwrap();
        let held = raw.values.iter().flatten().next();
        assert!(matches!(held, Some(Value::String(_))), "a schema waits as text");
        assert_eq!(
            raw.parse(Purpose::Fields, &Templates::built_in()).unwrap_err().errors[0].code.as_str(),
            "schema_unsupported"
        );
    }

    #[test]
    fn a_schema_is_the_same_as_a_member_and_as_text_in_one() {
        const SCHEMA: &str = r#"{"type": "object", "properties": {"a": {"type": "string"}}}"#;
        for json in [SCHEMA.to_owned(), Value::from(SCHEMA).to_string()] {
            let mut raw = RawOptions::default();
            raw.add_member("schema", &json).unwrap();
            assert!(
                raw.parse(Purpose::Fields, &Templates::built_in())
                    .unwrap()
                    .options
                    .schema
                    .is_some(),
                "{json}"
            );
        }
    }

    #[test]
    fn a_member_is_judged_by_name_and_length_before_it_is_read() {
        let mut raw = RawOptions::default();
        assert_eq!(
            raw.add_member("bogus", "not even JSON").unwrap_err().code.as_str(),
            "unknown_option"
        );
        let long = format!("\"{}\"", "x".repeat(OPTION_BYTES));
        assert_eq!(raw.add_member("prompt", &long).unwrap_err().code.as_str(), "invalid_option");
    }
}
