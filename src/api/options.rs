//! The one parser of options, whether they came in the query, as form parts or as JSON members.
//!
//! An option has one name everywhere. The same one twice with different values is an error, and so is
//! an unknown one: a typo that is silently ignored works wrongly for ever. All flaws of a request are
//! told at once.

use std::str::FromStr;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::Value;

use super::problem::{Flaw, Problem};
use crate::dashscope::Task;
use crate::extract::schema::Schema;
use crate::extract::templates;
use crate::ocr::request::{Detail, Options};
use crate::quote::Wish;
use crate::units::Pixels;

/// Bytes of `metadata` at most: it is an echo, not a store.
const METADATA_BYTES: usize = 4096;

/// Characters of a language tag at most (RFC 5646, section 4.4.1, asks for 35).
const LANGUAGE_LENGTH: usize = 35;

/// The code of a template that there is not: the one flaw of an option that is 404, like the template's
/// own path.
const UNKNOWN_TEMPLATE: &str = "unknown_template";

/// Languages that can be hinted at; the task that reads most knows ten.
const MOST_LANGUAGES: usize = 16;

/// The longest option in bytes: a schema may have 64 KiB (`extract`), the rest is small.
pub(super) const OPTION_BYTES: usize = 64 * 1024;

/// The names of all options, as an error lists them.
const NAMES: [&str; 12] = [
    "detail",
    "format",
    "language",
    "max_pixels",
    "metadata",
    "min_pixels",
    "model",
    "pages",
    "prompt",
    "schema",
    "task",
    "template",
];

/// What the route is for; not every option makes sense everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// `/ocr`.
    Text,
    /// `/extract`.
    Fields,
    /// `/estimate`: whatever the other two take.
    Estimate,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// The whole answer.
    #[default]
    Json,
    /// Only the text.
    Text,
}

/// The options of a request, read.
#[derive(Debug, Default)]
pub(super) struct ParsedOptions {
    /// How the image shall be read.
    pub(super) options: Options,
    /// How the answer shall be written; none leaves it to `Accept`.
    pub(super) format: Option<Format>,
}

/// Options as they came: a value for each name, and the languages, which may be several.
#[derive(Debug, Default)]
pub(super) struct RawOptions {
    values: [Option<Value>; NAMES.len()],
    languages: Vec<Value>,
}

impl RawOptions {
    /// Adds the options of a query string.
    ///
    /// # Errors
    ///
    /// 400 for an unknown name or a second value.
    pub(super) fn add_query(&mut self, query: &str) -> Result<(), Problem> {
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            self.add(known(&name)?, Value::String(value.into_owned()))?;
        }
        Ok(())
    }

    /// Adds an option that came as a form part.
    ///
    /// # Errors
    ///
    /// 400 for an unknown name, a second value, or bytes that are not UTF-8.
    pub(super) fn add_part(&mut self, name: &str, value: &[u8]) -> Result<(), Problem> {
        let option = known(name)?;
        let Ok(text) = std::str::from_utf8(value) else {
            return Err(invalid(name, "must be UTF-8"));
        };
        self.add(option, Value::String(text.to_owned()))
    }

    /// Adds an option that came as a JSON member. Name and length are looked at before the value becomes a
    /// tree, because a tree takes many times the memory of its text.
    ///
    /// # Errors
    ///
    /// 400 for an unknown name, a second value, or a value that is too long.
    pub(super) fn add_member(&mut self, name: &str, json: &str) -> Result<(), Problem> {
        let option = known(name)?;
        if json.len() > OPTION_BYTES {
            return Err(invalid(name, &format!("is longer than {OPTION_BYTES} bytes")));
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

    /// Reads all options for a purpose. A schema is parsed away from the reactor: one with many
    /// patterns takes tens of milliseconds.
    ///
    /// # Errors
    ///
    /// 400 that lists every flaw, or 404 for a template that there is not.
    pub(super) async fn read(self, purpose: Purpose) -> Result<ParsedOptions, Problem> {
        if !self.has("schema") {
            return self.parse(purpose);
        }
        let parsing = tokio::task::spawn_blocking(move || self.parse(purpose));
        parsing.await.map_err(|_panicked| Problem::internal())?
    }

    fn parse(self, purpose: Purpose) -> Result<ParsedOptions, Problem> {
        let purpose = match purpose {
            Purpose::Estimate if self.has("schema") || self.has("template") => Purpose::Fields,
            Purpose::Estimate => Purpose::Text,
            other => other,
        };
        let mut reader = Reader { parsed: ParsedOptions::default(), flaws: Vec::new() };
        let languages = self.languages.iter().map(|tag| ("language", tag));
        let values = NAMES.iter().zip(&self.values);
        let given = values.filter_map(|(name, value)| Some((*name, value.as_ref()?)));
        for (name, value) in given.chain(languages) {
            if let Err(flaw) = reader.read(name, value, purpose) {
                reader.flaws.push(flaw);
            }
        }
        reader.check_together(&self, purpose);
        let Some(mut problem) = Problem::of_flaws(reader.flaws) else { return Ok(reader.parsed) };
        if problem.code == UNKNOWN_TEMPLATE {
            problem.status = StatusCode::NOT_FOUND;
        }
        Err(problem)
    }

    fn has(&self, name: &str) -> bool {
        NAMES.iter().zip(&self.values).any(|(given, value)| *given == name && value.is_some())
    }
}

/// Reads one option after the other into the parsed options.
struct Reader {
    parsed: ParsedOptions,
    flaws: Vec<Flaw>,
}

impl Reader {
    fn read(&mut self, name: &'static str, value: &Value, purpose: Purpose) -> Result<(), Flaw> {
        check_purpose(name, purpose)?;
        let options = &mut self.parsed.options;
        match name {
            "model" => options.model = Some(text(name, value)?),
            "prompt" => options.prompt = Some(prompt(value)?),
            "language" => options.languages.push(language(value)?),
            "task" => options.task = Some(task(value)?),
            "max_pixels" => options.wish.max_pixels = Some(pixels(name, value)?),
            "min_pixels" => options.wish.min_pixels = Some(pixels(name, value)?),
            "detail" => options.detail = detail(value)?,
            "format" => self.parsed.format = Some(format(value, purpose)?),
            "pages" => pages(value)?,
            "metadata" => options.metadata = Some(metadata(value)?),
            "schema" => options.schema = Some(Arc::new(schema(value)?)),
            "template" => options.schema = Some(template(value)?),
            other => return Err(flaw(other, "unknown_option", "is unknown")),
        }
        Ok(())
    }

    /// Rules that more than one option takes part in.
    fn check_together(&mut self, given: &RawOptions, purpose: Purpose) {
        let has = |name: &str| given.has(name);
        if has("prompt") && has("task") {
            let why = "only goes without a task: a task has its own prompt";
            self.flaws.push(flaw("prompt", "invalid_option", why));
        }
        if has("schema") && has("template") {
            let why = "only goes without a template: give exactly one of the two";
            self.flaws.push(flaw("schema", "invalid_option", why));
        }
        if purpose == Purpose::Fields && !has("schema") && !has("template") {
            let why = "is missing: give a JSON Schema, or a template (GET /templates lists them)";
            self.flaws.push(flaw("schema", "invalid_option", why));
        }
        let task_reads_lines = self.parsed.options.task == Some(Task::AdvancedRecognition);
        if self.parsed.options.detail == Detail::Lines
            && (has("prompt") || (has("task") && !task_reads_lines))
        {
            let why = "lines is the task advanced_recognition: leave prompt and other tasks out";
            self.flaws.push(flaw("detail", "invalid_option", why));
        }
        let Wish { min_pixels, max_pixels, .. } = self.parsed.options.wish;
        if min_pixels.zip(max_pixels).is_some_and(|(min, max)| min > max) {
            self.flaws.push(flaw("min_pixels", "invalid_option", "is above max_pixels"));
        }
    }
}

fn check_purpose(name: &'static str, purpose: Purpose) -> Result<(), Flaw> {
    let is_for_fields = matches!(name, "schema" | "template");
    let is_for_text = matches!(name, "prompt" | "task" | "detail" | "language");
    match purpose {
        Purpose::Text if is_for_fields => Err(flaw(name, "invalid_option", "belongs to /extract")),
        Purpose::Fields if is_for_text => Err(flaw(name, "invalid_option", "belongs to /ocr")),
        _ => Ok(()),
    }
}

/// The place of an option among [`NAMES`].
fn known(name: &str) -> Result<usize, Problem> {
    NAMES.iter().position(|known| *known == name).ok_or_else(|| unknown(name, &NAMES))
}

/// 400 for an option that there is not.
pub(super) fn unknown(name: &str, known: &[&str]) -> Problem {
    let shown: String = name.chars().take(32).collect();
    let detail = format!("There is no option {shown:?}. Options: {}.", known.join(", "));
    let errors = vec![flaw(&shown, "unknown_option", "is unknown")];
    Problem { errors, ..Problem::bad_request("unknown_option", detail) }
}

/// 400 for an option with a value that it cannot have.
pub(super) fn invalid(name: &str, why: &str) -> Problem {
    Problem::bad_request("invalid_option", format!("{name} {why}.")).flaw(format!("/{name}"), why)
}

fn flaw(name: &str, code: &'static str, why: impl Into<String>) -> Flaw {
    Flaw::of(name, code, why)
}

/// A scalar as text, so that `5` in JSON and `5` in a query are one value.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn text(name: &'static str, value: &Value) -> Result<String, Flaw> {
    match value {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        _ => Err(flaw(name, "invalid_option", "must be a text that is not empty")),
    }
}

fn prompt(value: &Value) -> Result<String, Flaw> {
    let prompt = text("prompt", value)?;
    if prompt.trim().is_empty() {
        let why = "is blank: leave it out and the model uses its own";
        return Err(flaw("prompt", "invalid_option", why));
    }
    Ok(prompt)
}

fn language(value: &Value) -> Result<String, Flaw> {
    let tag = text("language", value)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if tag.len() > LANGUAGE_LENGTH || !tag.bytes().all(allowed) {
        let why = "must be a BCP 47 tag like `de` or `zh-Hans`";
        return Err(flaw("language", "invalid_option", why));
    }
    Ok(tag)
}

fn task(value: &Value) -> Result<Task, Flaw> {
    match Task::named(&text("task", value)?) {
        Some(Task::KeyInformationExtraction { .. }) => {
            Err(flaw("task", "invalid_option", "key_information_extraction is /extract"))
        }
        Some(task) => Ok(task),
        None => {
            let why = "must be text_recognition, multi_lan, advanced_recognition, table_parsing, \
                       document_parsing or formula_recognition";
            Err(flaw("task", "invalid_option", why))
        }
    }
}

fn pixels(name: &'static str, value: &Value) -> Result<Pixels, Flaw> {
    let number = value.as_u64().or_else(|| number_of(value.as_str()?));
    number
        .filter(|&pixels| pixels > 0)
        .map(Pixels::new)
        .ok_or_else(|| flaw(name, "invalid_option", "must be a whole number of pixels above 0"))
}

/// Digits only: `u64::from_str` would also take a plus sign.
fn number_of(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| u64::from_str(text).ok()).flatten()
}

fn detail(value: &Value) -> Result<Detail, Flaw> {
    match value.as_str() {
        Some("text") => Ok(Detail::Text),
        Some("lines") => Ok(Detail::Lines),
        _ => Err(flaw("detail", "invalid_option", "must be text or lines")),
    }
}

fn format(value: &Value, purpose: Purpose) -> Result<Format, Flaw> {
    match value.as_str() {
        Some("json") => Ok(Format::Json),
        Some("text") if purpose == Purpose::Text => Ok(Format::Text),
        Some("text") => {
            Err(flaw("format", "invalid_option", "must be json where fields are wanted"))
        }
        _ => Err(flaw("format", "invalid_option", "must be json or text")),
    }
}

/// An image has one page, so `pages` may only select that one.
fn pages(value: &Value) -> Result<(), Flaw> {
    let text = text_of(value);
    let selects_first = text.split(',').all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let ends_there = last.is_empty() && part.ends_with('-') || number_of(last) == Some(1);
        number_of(first) == Some(1) && ends_there
    });
    if selects_first {
        return Ok(());
    }
    Err(flaw("pages", "invalid_pages", "must be 1: an image has one page"))
}

fn metadata(value: &Value) -> Result<Value, Flaw> {
    let parsed = json_of("metadata", value)?;
    if !parsed.is_object() || parsed.to_string().len() > METADATA_BYTES {
        let why = format!("must be a JSON object of at most {METADATA_BYTES} bytes");
        return Err(flaw("metadata", "invalid_option", why));
    }
    Ok(parsed)
}

fn schema(value: &Value) -> Result<Schema, Flaw> {
    let parsed = json_of("schema", value)?;
    Schema::parse(&parsed).map_err(|error| Flaw {
        pointer: format!("/schema{}", error.pointer()),
        code: error.code(),
        detail: error.to_string(),
    })
}

fn template(value: &Value) -> Result<Arc<Schema>, Flaw> {
    let name = text("template", value)?;
    let Some(template) = templates::find(&name) else {
        let why = "is unknown: GET /templates lists what there is";
        return Err(flaw("template", UNKNOWN_TEMPLATE, why));
    };
    Ok(Arc::clone(&template.parsed))
}

/// A JSON value, which in a query or a form part is written as text.
fn json_of(name: &'static str, value: &Value) -> Result<Value, Flaw> {
    match value {
        Value::String(text) => {
            serde_json::from_str(text).map_err(|_| flaw(name, "invalid_option", "must be JSON"))
        }
        other => Ok(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, purpose: Purpose) -> Result<ParsedOptions, Problem> {
        let mut raw = RawOptions::default();
        raw.add_query(query)?;
        raw.parse(purpose)
    }

    fn code_of(query: &str) -> &'static str {
        read(query, Purpose::Text).unwrap_err().code
    }

    #[test]
    fn an_option_is_the_same_from_the_query_a_part_or_a_member() {
        let mut from_part = RawOptions::default();
        from_part.add_part("max_pixels", b"4096").unwrap();
        let mut from_member = RawOptions::default();
        from_member.add_member("max_pixels", "4096").unwrap();
        for raw in [from_part, from_member] {
            let parsed = raw.parse(Purpose::Text).unwrap();
            assert_eq!(parsed.options.wish.max_pixels, Some(Pixels::new(4096)));
        }
    }

    #[test]
    fn an_unknown_option_is_refused_and_named() {
        assert_eq!(code_of("langauge=de"), "unknown_option");
        let problem = read("langauge=de", Purpose::Text).unwrap_err();
        assert_eq!(problem.errors[0].pointer, "/langauge");
    }

    #[test]
    fn the_same_option_twice_is_fine_with_one_value_and_refused_with_two() {
        let mut raw = RawOptions::default();
        raw.add_query("max_pixels=4096").unwrap();
        raw.add_member("max_pixels", "4096").unwrap();
        assert_eq!(raw.add_part("max_pixels", b"5000").unwrap_err().code, "invalid_option");
    }

    #[test]
    fn languages_add_up() {
        let parsed = read("language=de&language=zh-Hans", Purpose::Text).unwrap();
        assert_eq!(parsed.options.languages, ["de", "zh-Hans"]);
    }

    #[test]
    fn more_languages_than_can_be_hinted_at_are_refused_however_they_come() {
        let many = format!("[{}]", ["1"; 1_000].join(","));
        let mut raw = RawOptions::default();
        assert_eq!(raw.add_member("language", &many).unwrap_err().code, "invalid_option");
        assert_eq!(code_of(&"language=de&".repeat(MOST_LANGUAGES + 1)), "invalid_option");
    }

    #[test]
    fn a_member_is_judged_by_name_and_length_before_it_is_read() {
        let mut raw = RawOptions::default();
        assert_eq!(raw.add_member("bogus", "not even JSON").unwrap_err().code, "unknown_option");
        let long = format!("\"{}\"", "x".repeat(OPTION_BYTES));
        assert_eq!(raw.add_member("prompt", &long).unwrap_err().code, "invalid_option");
    }

    #[test]
    fn fields_have_no_plain_text_form() {
        let read = |query| read(query, Purpose::Fields).map_err(|problem| problem.code);
        assert_eq!(read("template=receipt&format=text").unwrap_err(), "invalid_option");
        assert!(read("template=receipt&format=json").is_ok());
    }

    #[test]
    fn an_estimate_takes_what_one_of_the_routes_would_take() {
        let read = |query| read(query, Purpose::Estimate).map_err(|problem| problem.code);
        assert!(read("task=multi_lan").is_ok() && read("template=receipt").is_ok());
        assert_eq!(read("template=receipt&task=multi_lan").unwrap_err(), "invalid_option");
    }

    #[test]
    fn wrong_values_are_refused() {
        for query in [
            "max_pixels=-1",
            "max_pixels=+1",
            "max_pixels=0",
            "max_pixels=1e6",
            "max_pixels=",
            "task=magic",
            "detail=all",
            "format=xml",
            "language=d_e",
            "prompt=%20",
            "metadata=[]",
            "prompt=x&task=multi_lan",
            "detail=lines&prompt=x",
            "min_pixels=9&max_pixels=8",
            "schema={}",
            "task=key_information_extraction",
        ] {
            assert_eq!(code_of(query), "invalid_option", "{query}");
        }
    }

    #[test]
    fn only_the_first_page_of_an_image_can_be_asked_for() {
        for pages in ["1", "1-1", "1-", "1,1"] {
            assert!(read(&format!("pages={pages}"), Purpose::Text).is_ok(), "{pages}");
        }
        for pages in ["2", "0", "1-3", "-1", "", "1,2", "x"] {
            assert_eq!(code_of(&format!("pages={pages}")), "invalid_pages", "{pages}");
        }
    }

    #[test]
    fn all_flaws_are_told_at_once() {
        let problem = read("max_pixels=x&detail=y&format=z", Purpose::Text).unwrap_err();
        assert_eq!(problem.errors.len(), 3);
    }

    #[test]
    fn fields_need_exactly_one_of_schema_and_template() {
        assert!(read("template=receipt", Purpose::Fields).is_ok());
        assert_eq!(read("", Purpose::Fields).unwrap_err().code, "invalid_option");
        assert_eq!(read("template=nope", Purpose::Fields).unwrap_err().code, "unknown_template");
    }
}
