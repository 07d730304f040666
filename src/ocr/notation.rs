//! The notation of an answer, which depends on its task, and its conversion to Markdown.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::fence;
use super::markup;
use crate::dashscope::Task;

/// The notation that a task writes (Model Studio, "Qwen-OCR API reference", built-in tasks).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Notation {
    /// Text, or the notation that the caller's own prompt asks for.
    #[default]
    Text,
    /// Tables as HTML.
    Html,
    /// A page as LaTeX.
    Latex,
    /// A formula as LaTeX between double dollars.
    Formula,
    /// All named values, as JSON.
    Json,
}

impl Notation {
    /// The notation of `task`.
    ///
    /// The fields of a schema count as text here: `extract` reads them, tolerates extra commas, and has warnings of its
    /// own.
    pub(super) const fn of(task: Option<&Task>) -> Self {
        match task {
            Some(Task::TableParsing) => Self::Html,
            Some(Task::DocumentParsing) => Self::Latex,
            Some(Task::FormulaRecognition) => Self::Formula,
            Some(Task::KeyInformationExtraction { result_schema: None }) => Self::Json,
            _ => Self::Text,
        }
    }

    /// Whether `text` is complete in this notation. A blank page is complete.
    pub(super) fn is_whole(self, text: &str) -> bool {
        match self {
            _ if text.trim().is_empty() => true,
            Self::Text => true,
            Self::Html => markup::is_whole_html(text),
            Self::Latex | Self::Formula => markup::is_whole_latex(text),
            Self::Json => markup::is_whole_json(text),
        }
    }

    /// Converts `text` to Markdown. HTML is unchanged, and other notations get a fence with their name.
    pub(super) fn markdown(self, text: &str) -> Cow<'_, str> {
        match self {
            _ if text.trim().is_empty() => "".into(),
            Self::Text | Self::Html => text.into(),
            Self::Latex => fence::put_around(text, "latex").into(),
            Self::Json => fence::put_around(text, "json").into(),
            Self::Formula if text.contains("$$") => text.into(),
            Self::Formula => without_delimiters(text.trim())
                .map_or_else(|| text.into(), |formula| format!("$${formula}$$").into()),
        }
    }
}

/// A formula without LaTeX's other delimiters; `None` if there are several formulas, each with delimiters of its own.
fn without_delimiters(formula: &str) -> Option<&str> {
    let within = |(start, end)| Some((formula.strip_prefix(start)?.strip_suffix(end)?, end));
    match [("\\[", "\\]"), ("\\(", "\\)"), ("$", "$")].into_iter().find_map(within) {
        None => Some(formula),
        Some((inside, end)) => (!inside.contains(end)).then_some(inside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_shows_each_notation_the_way_it_can() {
        for (notation, text, markdown) in [
            (Notation::Text, "a\n# b", "a\n# b"),
            (Notation::Html, "<table></table>", "<table></table>"),
            (Notation::Latex, "\\section{a}", "```latex\n\\section{a}\n```"),
            (Notation::Json, "{\"a\": 1}", "```json\n{\"a\": 1}\n```"),
            (Notation::Formula, "x^2", "$$x^2$$"),
            (Notation::Formula, "$$x^2$$", "$$x^2$$"),
            (Notation::Formula, "\\[x^2\\]", "$$x^2$$"),
            (Notation::Formula, "$x^2$\n", "$$x^2$$"),
            (Notation::Formula, "$a$\n$b$", "$a$\n$b$"),
            (Notation::Formula, "\\[a\\]\n\\[b\\]", "\\[a\\]\n\\[b\\]"),
            (Notation::Latex, "\n", ""),
        ] {
            assert_eq!(notation.markdown(text), markdown);
        }
    }

    #[test]
    fn only_the_notation_that_the_task_writes_is_judged() {
        let broken = "<table><tr> {\"a\": $$x \\begin{a}";
        assert!(Notation::Text.is_whole(broken));
        for notation in [Notation::Html, Notation::Latex, Notation::Formula, Notation::Json] {
            assert!(!notation.is_whole(broken) && notation.is_whole(" \n"), "{notation:?}");
        }
    }
}
