//! The rules for options: which route accepts which option, and which options exclude each other.

use std::sync::Arc;

use serde_json::Value;

use super::{
    AnswerFormat, LINES_ARE_NO_MARKDOWN, NO_LINES, ParsedOptions, Purpose, STRAIGHTENED, flaw,
    imply_lines, reads_no_lines, value,
};
use crate::api::problem::Flaw;
use crate::code::ErrorCode;
use crate::dashscope::Task;
use crate::extract::templates::Templates;
use crate::ocr::request::{Detail, Rotate, TextBeside};
use crate::quote::Wish;

/// Reads one option after the other into the parsed options.
#[derive(Debug)]
pub(super) struct OptionReader<'a> {
    /// The templates that there are.
    templates: &'a Templates,
    /// The options so far.
    pub(super) parsed: ParsedOptions,
    /// The flaws so far.
    pub(super) flaws: Vec<Flaw>,
}

impl<'a> OptionReader<'a> {
    /// A reader that has read nothing yet.
    pub(super) fn new(templates: &'a Templates) -> Self {
        Self { templates, parsed: ParsedOptions::default(), flaws: Vec::new() }
    }

    /// Reads one option.
    ///
    /// # Errors
    ///
    /// The flaw in its name or its value.
    pub(super) fn read(
        &mut self,
        name: &'static str,
        given: &Value,
        purpose: Purpose,
    ) -> Result<(), Flaw> {
        check_purpose(name, purpose)?;
        let options = &mut self.parsed.options;
        match name {
            "model" => options.model = Some(value::text(name, given)?),
            "prompt" => options.prompt = Some(value::prompt(given)?),
            "language" => options.languages.push(value::language(given)?),
            "task" => options.task = Some(value::task(given)?),
            "max_pixels" => {
                options.wish.max_pixels = value::max_pixels(given)?;
                options.auto_pixels = options.wish.max_pixels.is_none();
            }
            "min_pixels" => options.wish.min_pixels = Some(value::min_pixels(given)?),
            "rotate" => options.rotate = value::rotate(given)?,
            "detail" => options.detail = value::detail(given)?,
            "ground" => options.text_beside = value::ground(given)?,
            "format" => {
                let format = value::format(given, purpose)?;
                options.markdown = format == AnswerFormat::Markdown;
                self.parsed.format = Some(format);
            }
            "pages" => options.pages = Some(value::pages(given)?),
            "dpi" => options.dpi = Some(value::dpi(given)?),
            "pdf_text" => options.pdf_text = Some(value::pdf_text(given)?),
            "downscale" => options.downscale = value::downscale(given)?,
            "metadata" => options.metadata = Some(value::metadata(given)?),
            "schema" => options.schema = Some(Arc::new(value::schema(given)?)),
            "template" => options.schema = Some(value::template(given, self.templates)?),
            other => return Err(flaw(other, ErrorCode::UnknownOption, "is unknown")),
        }
        Ok(())
    }

    /// Rules about several options; `has` reports which options were given.
    pub(super) fn check_together(&mut self, has: impl Fn(&str) -> bool, purpose: Purpose) {
        if self.parsed.format == Some(AnswerFormat::Pdf) {
            imply_lines(&mut self.parsed.options);
        }
        let mut refuse = |name, why| self.flaws.push(flaw(name, ErrorCode::InvalidOption, why));
        let options = &self.parsed.options;
        if has("prompt") && has("task") {
            refuse("prompt", "only goes without a task: a task has its own prompt");
        }
        if has("schema") && has("template") {
            refuse("schema", "only goes without a template: give exactly one of the two");
        }
        if purpose == Purpose::Fields && !has("schema") && !has("template") {
            let why = "is missing: give a JSON Schema, or a template (GET /templates lists them)";
            refuse("schema", why);
        }
        if purpose == Purpose::Fields && options.text_beside == TextBeside::None {
            let why = "belongs to /ocr, or goes with ground=true";
            let given = [("detail", has("detail")), ("language", !options.languages.is_empty())];
            given
                .into_iter()
                .filter(|(_, is_given)| *is_given)
                .for_each(|(name, _)| refuse(name, why));
        }
        let wants_lines = options.detail == Detail::Lines;
        if wants_lines && reads_no_lines(options) {
            refuse("detail", NO_LINES);
        }
        if wants_lines && options.markdown {
            refuse("format", LINES_ARE_NO_MARKDOWN);
        }
        let task_reads_lines = options.task == Some(Task::AdvancedRecognition);
        if options.rotate == Rotate::Auto && (wants_lines || task_reads_lines) {
            refuse("rotate", STRAIGHTENED);
        }
        let Wish { min_pixels, max_pixels, .. } = options.wish;
        if min_pixels.zip(max_pixels).is_some_and(|(min, max)| min > max) {
            refuse("min_pixels", "is above max_pixels");
        }
    }
}

fn check_purpose(name: &'static str, purpose: Purpose) -> Result<(), Flaw> {
    let is_for_fields = matches!(name, "schema" | "template" | "ground");
    let is_for_text = matches!(name, "prompt" | "task");
    match purpose {
        Purpose::Text if is_for_fields => {
            Err(flaw(name, ErrorCode::InvalidOption, "belongs to /extract"))
        }
        Purpose::Fields if is_for_text => {
            Err(flaw(name, ErrorCode::InvalidOption, "belongs to /ocr"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::agree_on;
    use super::super::raw::RawOptions;
    use super::*;
    use crate::api::problem::Problem;
    use crate::auth::tenant::PdfText;
    use crate::ocr::request::Downscale;

    fn read(query: &str, purpose: Purpose) -> Result<ParsedOptions, Problem> {
        let mut raw = RawOptions::default();
        raw.add_query(query)?;
        raw.parse(purpose, &Templates::built_in())
    }

    fn code_of(query: &str) -> &'static str {
        read(query, Purpose::Text).unwrap_err().code.as_str()
    }

    #[test]
    fn fields_are_json_alone() {
        let read = |query| read(query, Purpose::Fields).map_err(|problem| problem.code.as_str());
        assert_eq!(read("template=receipt&format=text").unwrap_err(), "invalid_option");
        assert_eq!(read("template=receipt&format=markdown").unwrap_err(), "invalid_option");
        assert_eq!(read("template=receipt&format=pdf").unwrap_err(), "invalid_option");
        assert!(read("template=receipt&format=json").is_ok());
    }

    #[test]
    fn an_estimate_takes_what_one_of_the_routes_would_take() {
        let read = |query| read(query, Purpose::Estimate).map_err(|problem| problem.code.as_str());
        assert!(read("task=multi_lan").is_ok() && read("template=receipt").is_ok());
        assert_eq!(read("template=receipt&task=multi_lan").unwrap_err(), "invalid_option");
    }

    #[test]
    fn values_are_looked_for_if_asked_and_the_text_has_its_options_then() {
        let fields = |query: &str| read(&format!("template=receipt&{query}"), Purpose::Fields);
        let beside = |query| fields(query).unwrap().options.text_beside;
        assert_eq!([beside(""), beside("ground=false")], [TextBeside::None; 2]);
        assert_eq!(beside("ground=true&detail=lines&pdf_text=prefer"), TextBeside::Ground);
        assert_eq!(fields("ground=true&language=fr").unwrap().options.languages, ["fr"]);
        for wrong in [
            "ground=1",
            "ground=",
            "detail=lines",
            "language=fr",
            "ground=false&detail=text",
            "ground=true&task=multi_lan",
            "ground=true&prompt=x",
            "ground=true&detail=lines&rotate=auto",
            "ground=true&format=markdown",
        ] {
            assert_eq!(fields(wrong).unwrap_err().code.as_str(), "invalid_option", "{wrong}");
        }
        for purpose in [Purpose::Text, Purpose::Estimate] {
            let refused = read("ground=true", purpose).unwrap_err();
            assert_eq!(refused.errors[0].pointer, "/ground");
        }
        assert!(read("template=receipt&ground=true", Purpose::Estimate).is_ok());
        let mut raw = RawOptions::default();
        raw.add_member("ground", "true").unwrap();
        raw.add_part("template", "receipt".to_owned()).unwrap();
        let options = raw.parse(Purpose::Fields, &Templates::built_in()).unwrap().options;
        assert_eq!(options.text_beside, TextBeside::Ground);
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
            "rotate=90",
            "dpi=49",
            "dpi=601",
            "dpi=",
            "dpi=+300",
            "dpi=300.0",
            "dpi=4294967596",
            "pdf_text=on",
            "pdf_text=",
            "downscale=yes",
            "downscale=",
            "rotate=auto&detail=lines",
            "rotate=auto&task=advanced_recognition",
            "format=markdown&detail=lines",
            "format=pdf&rotate=auto",
            "format=pdf&prompt=x",
            "format=pdf&task=table_parsing",
        ] {
            assert_eq!(code_of(query), "invalid_option", "{query}");
        }
    }

    #[test]
    fn pages_are_asked_for_as_a_list_and_a_wrong_list_has_a_code_of_its_own() {
        let pages = |query| read(query, Purpose::Text).unwrap().options.pages;
        assert_eq!(pages(""), None);
        assert_eq!(pages("pages=1-3,5,8-"), Some("1-3,5,8-".parse().unwrap()));
        for wrong in ["0", "3-1", "", "--", "-1", "1,", "x", "4294967296"] {
            let problem = read(&format!("pages={wrong}"), Purpose::Text).unwrap_err();
            assert_eq!(problem.code.as_str(), "invalid_pages", "{wrong}");
            assert_eq!(problem.errors[0].pointer, "/pages");
        }
    }

    #[test]
    fn a_number_of_pages_is_the_same_from_json_and_an_array_is_refused() {
        let read = |json| {
            let mut raw = RawOptions::default();
            raw.add_member("pages", json).unwrap();
            raw.parse(Purpose::Text, &Templates::built_in()).map(|parsed| parsed.options.pages)
        };
        assert_eq!(read("3").unwrap(), Some("3".parse().unwrap()));
        assert_eq!(read("\"3-\"").unwrap(), Some("3-".parse().unwrap()));
        assert_eq!(read("[3]").unwrap_err().code.as_str(), "invalid_pages");
    }

    #[test]
    fn the_options_of_documents_are_read_on_every_route() {
        for (purpose, query) in
            [(Purpose::Text, ""), (Purpose::Fields, "template=receipt"), (Purpose::Estimate, "")]
        {
            let options = read(query, purpose).unwrap().options;
            assert_eq!((options.dpi, options.pdf_text), (None, None));
            assert_eq!(options.downscale, Downscale::Auto);
            let query = format!("dpi=300&pdf_text=prefer&downscale=always&pages=2-&{query}");
            let options = read(&query, purpose).unwrap().options;
            assert_eq!((options.dpi, options.pdf_text), (Some(300), Some(PdfText::Prefer)));
            assert_eq!(options.downscale, Downscale::Always);
            assert!(options.pages.is_some());
        }
    }

    #[test]
    fn all_flaws_are_told_at_once() {
        let problem =
            read("max_pixels=x&detail=lines&format=markdown&rotate=auto&prompt=x", Purpose::Text);
        assert_eq!(problem.unwrap_err().errors.len(), 4);
    }

    #[test]
    fn every_built_in_task_can_be_named() {
        for task in [
            "text_recognition",
            "multi_lan",
            "advanced_recognition",
            "table_parsing",
            "document_parsing",
            "formula_recognition",
            "key_information_extraction",
        ] {
            let parsed = read(&format!("task={task}"), Purpose::Text).unwrap();
            assert_eq!(parsed.options.task.unwrap().as_str(), task);
        }
    }

    #[test]
    fn an_image_is_turned_as_a_viewer_turns_it_unless_the_caller_says_otherwise() {
        let rotate = |query| read(query, Purpose::Text).unwrap().options.rotate;
        let given = ["", "rotate=exif", "rotate=auto", "rotate=off"].map(rotate);
        assert_eq!(given, [Rotate::Exif, Rotate::Exif, Rotate::Auto, Rotate::Off]);
        assert!(read("template=receipt&rotate=auto", Purpose::Fields).is_ok());
    }

    #[test]
    fn markdown_is_asked_of_the_model_too_and_agreed_on_by_accept_alike() {
        assert!(read("format=markdown", Purpose::Text).unwrap().options.markdown);
        let mut options = read("", Purpose::Text).unwrap().options;
        agree_on(AnswerFormat::Markdown, &mut options).unwrap();
        assert!(options.markdown);
        options.detail = Detail::Lines;
        assert_eq!(
            agree_on(AnswerFormat::Markdown, &mut options).unwrap_err().code.as_str(),
            "invalid_option"
        );
    }

    #[test]
    fn a_searchable_pdf_implies_lines_and_prefers_the_text_of_pages() {
        let options = read("format=pdf", Purpose::Estimate).unwrap().options;
        assert_eq!((options.detail, options.pdf_text), (Detail::Lines, Some(PdfText::Prefer)));
        let options = read("format=pdf&pdf_text=off&detail=text", Purpose::Text).unwrap().options;
        assert_eq!((options.detail, options.pdf_text), (Detail::Lines, Some(PdfText::Off)));
        let mut by_header = read("", Purpose::Text).unwrap().options;
        agree_on(AnswerFormat::Pdf, &mut by_header).unwrap();
        assert_eq!((by_header.detail, by_header.pdf_text), (Detail::Lines, Some(PdfText::Prefer)));
        assert!(by_header.searchable);
        let mut prompted = read("prompt=x", Purpose::Text).unwrap().options;
        let refused = agree_on(AnswerFormat::Pdf, &mut prompted).unwrap_err();
        assert_eq!(refused.code.as_str(), "invalid_option");
    }

    #[test]
    fn fields_need_exactly_one_of_schema_and_template() {
        assert!(read("template=receipt", Purpose::Fields).is_ok());
        assert_eq!(read("", Purpose::Fields).unwrap_err().code.as_str(), "invalid_option");
        assert_eq!(
            read("template=nope", Purpose::Fields).unwrap_err().code.as_str(),
            "unknown_template"
        );
    }
}
