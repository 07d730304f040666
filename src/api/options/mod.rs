//! Parses the options of a request, from the query, from form parts and from JSON members.
//!
//! An option has the same name everywhere. An option with two different values is an error. An unknown option is also
//! an error, so that a typo is not silently ignored. One error reports all flaws of a request.
//!
//! [`raw`] collects the options, [`read`] applies the rules, and [`value`] parses each value.

pub(super) mod raw;

mod read;
mod value;

use super::problem::{Flaw, Problem};
use crate::auth::tenant::PdfText;
use crate::code::ErrorCode;
use crate::dashscope::Task;
use crate::ocr::request::{Detail, OcrOptions, Rotate};

/// The names of all options, in the order of the error that lists them.
const NAMES: [&str; 17] = [
    "detail",
    "downscale",
    "dpi",
    "format",
    "ground",
    "language",
    "max_pixels",
    "metadata",
    "min_pixels",
    "model",
    "pages",
    "pdf_text",
    "prompt",
    "rotate",
    "schema",
    "task",
    "template",
];

/// The route, because some options are only valid on some routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// `/ocr`.
    Text,
    /// `/extract`.
    Fields,
    /// `/estimate`: the options of both other routes.
    Estimate,
}

/// The format of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum AnswerFormat {
    /// The whole answer.
    #[default]
    Json,
    /// Only the text.
    Text,
    /// Only the text, as Markdown.
    Markdown,
    /// The document with the text as an invisible layer.
    Pdf,
    /// Events: the text while the model writes it, then the whole answer.
    Events,
}

/// The parsed options of a request.
#[derive(Debug, Default)]
pub(super) struct ParsedOptions {
    /// How to read the image.
    pub(super) options: OcrOptions,
    /// The format of the answer; if none, `Accept` decides.
    pub(super) format: Option<AnswerFormat>,
}

/// Adds the negotiated format to the options, because the prompt differs for Markdown.
///
/// # Errors
///
/// 400 if the format cannot represent the requested result.
pub(super) fn agree_on(format: AnswerFormat, options: &mut OcrOptions) -> Result<(), Problem> {
    if format == AnswerFormat::Markdown && options.detail == Detail::Lines {
        return Err(invalid("format", LINES_ARE_NO_MARKDOWN));
    }
    if format == AnswerFormat::Pdf {
        imply_lines(options);
        if let Some((name, why)) = against_lines(options) {
            return Err(invalid(name, why));
        }
        options.searchable = true;
    }
    // Only `Accept` requests events, so the option may request Markdown in them.
    if format != AnswerFormat::Events {
        options.markdown = format == AnswerFormat::Markdown;
    }
    Ok(())
}

/// Adds to the options what a searchable PDF needs: lines, and the own text of pages that carry it.
fn imply_lines(options: &mut OcrOptions) {
    options.detail = Detail::Lines;
    options.pdf_text.get_or_insert(PdfText::Prefer);
}

const NO_LINES: &str = "lines, which format=pdf implies, does not go with a prompt or another task: \
                        leave them out";

const STRAIGHTENED: &str = "auto does not go with detail=lines, which format=pdf implies: it is not \
                            documented in which pixels the boxes of a straightened image are";

/// Whether the prompt or the task gives no lines.
fn reads_no_lines(options: &OcrOptions) -> bool {
    let is_other = |task: &Task| *task != Task::AdvancedRecognition;
    options.prompt.is_some() || options.task.as_ref().is_some_and(is_other)
}

/// The option that does not go with lines, and why.
fn against_lines(options: &OcrOptions) -> Option<(&'static str, &'static str)> {
    if reads_no_lines(options) {
        return Some(("detail", NO_LINES));
    }
    (options.rotate == Rotate::Auto).then_some(("rotate", STRAIGHTENED))
}

/// Boxes are coordinates of each line, which Markdown cannot represent. Without them, the tenant would pay for boxes
/// and get only text.
const LINES_ARE_NO_MARKDOWN: &str = "has no Markdown for lines: take json, or leave detail out";

/// 400 for an unknown option.
pub(super) fn unknown(name: &str, known: &[&str]) -> Problem {
    let shown: String = name.chars().take(32).collect();
    let detail = format!("There is no option {shown:?}. Options: {}.", known.join(", "));
    let errors = [flaw(&shown, ErrorCode::UnknownOption, "is unknown")].into();
    Problem { errors, ..Problem::new(ErrorCode::UnknownOption, detail) }
}

/// 400 for a form part or a JSON member that is neither the file nor an option. Most often it is the file under another
/// name, so `advice` gives the correct one.
pub(super) fn misnamed(kind: &str, name: &str, advice: &str) -> Problem {
    let shown: String = name.chars().take(32).collect();
    let options = NAMES.join(", ");
    let detail = format!("The {kind} `{shown}` is unknown. {advice}. Options: {options}.");
    let errors = [flaw(&shown, ErrorCode::UnknownOption, "is unknown")].into();
    Problem { errors, ..Problem::new(ErrorCode::UnknownOption, detail) }
}

/// 400 for an option with an invalid value.
pub(super) fn invalid(name: &str, why: &str) -> Problem {
    Problem::new(ErrorCode::InvalidOption, format!("{name} {why}.")).flaw(format!("/{name}"), why)
}

fn flaw(name: &str, code: ErrorCode, why: impl Into<String>) -> Flaw {
    Flaw::of(name, code, why)
}
