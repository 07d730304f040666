//! The one parser of options, whether they came in the query, as form parts or as JSON members.
//!
//! An option has one name everywhere. The same one twice with different values is an error, and so is
//! an unknown one, so that a typo is not silently ignored. One error reports all flaws of a request.
//!
//! [`raw`] gathers what came, [`read`] holds it to the rules, [`value`] knows what each one looks like.

pub(super) mod raw;

mod read;
mod value;

use super::problem::{Flaw, Problem};
use crate::code::ErrorCode;
use crate::ocr::request::{Detail, OcrOptions};

/// The names of all options, as an error lists them.
const NAMES: [&str; 13] = [
    "detail",
    "format",
    "language",
    "max_pixels",
    "metadata",
    "min_pixels",
    "model",
    "pages",
    "prompt",
    "rotate",
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
    /// Only the text, as Markdown.
    Markdown,
    /// Events: the text while it is read, then the whole answer.
    Events,
}

/// The options of a request, read.
#[derive(Debug, Default)]
pub(super) struct ParsedOptions {
    /// How the image shall be read.
    pub(super) options: OcrOptions,
    /// How the answer shall be written; none leaves it to `Accept`.
    pub(super) format: Option<Format>,
}

/// Tells the options which format was agreed on, since the model is asked for Markdown.
///
/// # Errors
///
/// 400 where the format cannot hold what the options ask for.
pub(super) fn agree_on(format: Format, options: &mut OcrOptions) -> Result<(), Problem> {
    if format == Format::Markdown && options.detail == Detail::Lines {
        return Err(invalid("format", LINES_ARE_NO_MARKDOWN));
    }
    // Events are asked for by `Accept` alone, so the option may ask for Markdown beside them.
    if format != Format::Events {
        options.markdown = format == Format::Markdown;
    }
    Ok(())
}

/// Boxes are numbers beside each line. Markdown without them would be the text that was not asked
/// for, and paid for as boxes.
const LINES_ARE_NO_MARKDOWN: &str = "has no Markdown for lines: take json, or leave detail out";

/// 400 for an option that there is not.
pub(super) fn unknown(name: &str, known: &[&str]) -> Problem {
    let shown: String = name.chars().take(32).collect();
    let detail = format!("There is no option {shown:?}. Options: {}.", known.join(", "));
    let errors = [flaw(&shown, ErrorCode::UnknownOption, "is unknown")].into();
    Problem { errors, ..Problem::new(ErrorCode::UnknownOption, detail) }
}

/// 400 for a part of a form, or a member of JSON, that is neither the file nor an option. Most often it is the
/// file under another name, so `advice` says where that goes.
pub(super) fn misnamed(kind: &str, name: &str, advice: &str) -> Problem {
    let shown: String = name.chars().take(32).collect();
    let options = NAMES.join(", ");
    let detail = format!("The {kind} `{shown}` is unknown. {advice}. Options: {options}.");
    let errors = [flaw(&shown, ErrorCode::UnknownOption, "is unknown")].into();
    Problem { errors, ..Problem::new(ErrorCode::UnknownOption, detail) }
}

/// 400 for an option with a value that it cannot have.
pub(super) fn invalid(name: &str, why: &str) -> Problem {
    Problem::new(ErrorCode::InvalidOption, format!("{name} {why}.")).flaw(format!("/{name}"), why)
}

fn flaw(name: &str, code: ErrorCode, why: impl Into<String>) -> Flaw {
    Flaw::of(name, code, why)
}
