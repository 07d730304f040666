//! The text of a page, made from the model's output, with warnings.
//!
//! The text comes from the best available source: lines are joined, named values come from the vendor's own parsing,
//! and everything else is the model's text without the code fence around it. If that text ends in a loop and the vendor
//! has a version without it, the caller gets that version. The warning stays, because the part that the model did not
//! read is still missing.

use super::fence::{self, Unfenced};
use super::lines::{self, Frame, TextLine};
use super::notation::Notation;
use super::repetition;
use super::request::Detail;
use super::warning::OcrWarning;
use crate::dashscope::Task;
use crate::dashscope::completion::{Completion, FinishReason};
use crate::extract::answer::as_written;
use crate::json::Tree;

/// The text of one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageText {
    /// The text, in its notation.
    pub(super) text: String,
    /// The lines, if they were requested.
    pub(super) lines: Option<Vec<TextLine>>,
    /// The notation of the text.
    pub(super) notation: Notation,
    /// Warnings about the text.
    pub(super) warnings: Vec<OcrWarning>,
}

impl PageText {
    /// Makes the text of a page of these sizes that was read by `task`.
    pub(super) fn of(
        completion: &Completion,
        task: Option<&Task>,
        detail: Detail,
        frame: Frame,
    ) -> Self {
        let notation = Notation::of(task);
        let written = ModelText::of(completion, task, detail);
        let suspicions = [
            (is_cut(completion), OcrWarning::Truncated),
            (written.looped, OcrWarning::RepetitionSuspected),
            (
                !notation.is_whole(&written.text) || (written.open && notation != Notation::Text),
                OcrWarning::UnbalancedMarkup,
            ),
        ];
        let words = completion.words.as_deref().unwrap_or_default();
        Self {
            text: written.text,
            lines: (detail == Detail::Lines).then(|| lines::of(words, frame)),
            notation,
            warnings: OcrWarning::those(suspicions),
        }
    }
}

/// The text, and what its end shows.
struct ModelText {
    text: String,
    /// Whether it ends in a loop.
    looped: bool,
    /// Whether the fence around it was not closed.
    open: bool,
}

impl ModelText {
    fn of(completion: &Completion, task: Option<&Task>, detail: Detail) -> Self {
        let reads_lines = task == Some(&Task::AdvancedRecognition);
        match (&completion.words, &completion.kv_result) {
            // The model's text is then a list of boxes on a scale of its own, which the caller did not request.
            (Some(words), _) if reads_lines => {
                let text = lines::text(words);
                let looped = repetition::is_suspected(&text, is_cut(completion));
                Self { text, looped, open: false }
            }
            (None, _) if detail == Detail::Lines => Self::whole(String::new()),
            (_, Some(pairs)) if asks_for_all_pairs(task) && !is_empty(pairs) => {
                let written = as_written(pairs, &completion.text);
                Self::whole(format!("{:#}", written.as_ref().unwrap_or(pairs)))
            }
            _ => Self::by_the_model(completion, Notation::of(task)),
        }
    }

    const fn whole(text: String) -> Self {
        Self { text, looped: false, open: false }
    }

    fn by_the_model(completion: &Completion, notation: Notation) -> Self {
        // A page of text may show the beginning of a fence. An open fence is the model's own only if the answer was
        // cut.
        let is_the_pages = |open| open && notation == Notation::Text && !is_cut(completion);
        let strip = |text| match fence::strip(text) {
            unfenced if is_the_pages(unfenced.open) => Unfenced { text, open: false },
            unfenced => unfenced,
        };
        let written = strip(&completion.text);
        let looped = repetition::is_suspected(written.text, is_cut(completion));
        let processed = completion.processed_text.as_deref().filter(|text| !text.trim().is_empty());
        let given = processed.filter(|_| looped).map_or(written, strip);
        Self { text: given.text.to_owned(), looped, open: given.open }
    }
}

fn is_cut(completion: &Completion) -> bool {
    completion.finish_reason == FinishReason::Length
}

/// Whether the task was to find all named values, and not those of a schema.
const fn asks_for_all_pairs(task: Option<&Task>) -> bool {
    matches!(task, Some(Task::KeyInformationExtraction { result_schema: None }))
}

/// The vendor may return an empty result together with a text that it could not parse.
fn is_empty(pairs: &Tree) -> bool {
    match pairs {
        Tree::Object(members) => members.is_empty(),
        Tree::Array(items) => items.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::admission::Settlement;
    use crate::dashscope::completion::{Receipt, Word};
    use crate::image::Size;
    use crate::image::region::Region;
    use crate::ledger::budget::RemainingTokens;
    use crate::units::{Money, Usage};

    const SIZE: Size = Size::new(100, 100);
    const FRAME: Frame = Frame { sent: SIZE, part: Region::of(SIZE), shown: SIZE };

    fn completion(text: &str) -> Completion {
        Completion {
            text: text.to_owned(),
            processed_text: None,
            words: None,
            kv_result: None,
            finish_reason: FinishReason::Stop,
            receipt: Receipt {
                endpoint: String::new(),
                settlement: Settlement {
                    verified: true,
                    usage: Usage::default(),
                    cost: Money::ZERO,
                    remaining: RemainingTokens::default(),
                },
                verified: true,
                request_id: None,
                attempts: 1,
                upstream_time: Duration::ZERO,
            },
        }
    }

    fn read(completion: &Completion, task: &Task) -> PageText {
        PageText::of(completion, Some(task), Detail::Text, FRAME)
    }

    #[test]
    fn the_fence_of_a_table_is_no_part_of_it() {
        let reading = read(&completion("```html\n<table></table>\n```"), &Task::TableParsing);
        assert_eq!(reading.text, "<table></table>");
        assert_eq!((reading.notation, reading.warnings), (Notation::Html, Vec::new()));
    }

    #[test]
    fn an_answer_that_was_cut_inside_its_markup_says_both() {
        let cut = Completion {
            finish_reason: FinishReason::Length,
            ..completion("```html\n<table><tr><td>1</td>")
        };
        let reading = read(&cut, &Task::TableParsing);
        assert_eq!(reading.text, "<table><tr><td>1</td>");
        assert_eq!(reading.warnings, [OcrWarning::Truncated, OcrWarning::UnbalancedMarkup]);
    }

    #[test]
    fn a_fence_that_was_not_closed_is_told_even_where_all_inside_is_whole() {
        let reading = read(&completion("```html\n<table></table>"), &Task::TableParsing);
        assert_eq!(reading.warnings, [OcrWarning::UnbalancedMarkup]);
    }

    #[test]
    fn a_page_that_begins_like_a_fence_loses_nothing_of_it() {
        let page = |completion: &Completion| PageText::of(completion, None, Detail::Text, FRAME);
        for text in ["```sh\nls", "`````"] {
            let reading = page(&completion(text));
            assert_eq!((reading.text.as_str(), reading.warnings), (text, Vec::new()));
        }
        let finish_reason = FinishReason::Length;
        let cut = page(&Completion { finish_reason, ..completion("```markdown\n# a") });
        assert_eq!((cut.text.as_str(), cut.warnings), ("# a", vec![OcrWarning::Truncated]));
    }

    #[test]
    fn a_loop_gives_way_to_the_providers_text_and_is_told() {
        let looped = Completion {
            finish_reason: FinishReason::Length,
            processed_text: Some("Total\n0".to_owned()),
            ..completion(&format!("Total\n{}", "0.00 EUR\n".repeat(400)))
        };
        let reading = read(&looped, &Task::TextRecognition);
        assert_eq!(reading.text, "Total\n0");
        assert_eq!(reading.warnings, [OcrWarning::Truncated, OcrWarning::RepetitionSuspected]);
        let honest =
            Completion { processed_text: looped.processed_text, ..completion("Total\n0\n0") };
        assert_eq!(read(&honest, &Task::TextRecognition).text, "Total\n0\n0");
    }

    #[test]
    fn the_providers_text_in_place_of_a_loop_is_freed_of_its_fence_and_never_blank() {
        let looped = |processed: &str| Completion {
            processed_text: Some(processed.to_owned()),
            ..completion(&format!("<table>{}", "<tr><td></td></tr>\n".repeat(600)))
        };
        let reading = read(&looped("```html\n<table></table>\n```"), &Task::TableParsing);
        assert_eq!(reading.text, "<table></table>");
        assert!(!read(&looped(" \n"), &Task::TableParsing).text.trim().is_empty());
    }

    #[test]
    fn lines_that_repeat_until_the_cut_are_a_loop_too() {
        let word = Word { text: "the same line".to_owned(), location: None, rotate_rect: None };
        let looped = Completion {
            finish_reason: FinishReason::Length,
            words: Some(vec![word; 150]),
            ..completion("[]")
        };
        let reading = read(&looped, &Task::AdvancedRecognition);
        assert_eq!(reading.warnings, [OcrWarning::Truncated, OcrWarning::RepetitionSuspected]);
    }

    #[test]
    fn all_pairs_are_the_json_that_the_provider_parsed_or_else_the_models_text() {
        let all = &Task::KeyInformationExtraction { result_schema: None };
        let text = "```json\n{\"b\": \"1\"}\n```";
        let parsed =
            Completion { kv_result: Some(json!({"b": "1", "a": "2"}).into()), ..completion(text) };
        assert_eq!(read(&parsed, all).text, "{\n  \"b\": \"1\",\n  \"a\": \"2\"\n}");
        let text = "```json\n{\"n\": 24952000000010910141, \"p\": 12.50}\n```";
        let rounded = json!({"n": 2.495_200_000_001_091e19, "p": 12.5});
        let rounded = Completion { kv_result: Some(rounded.into()), ..completion(text) };
        let digits = "{\n  \"n\": 24952000000010910141,\n  \"p\": 12.50\n}";
        assert_eq!(read(&rounded, all).text, digits);
        let text = "```json\n{\"b\": \"1\"}\n```";
        let empty = Completion { kv_result: Some(json!({}).into()), ..completion(text) };
        assert_eq!(read(&empty, all).text, "{\"b\": \"1\"}");
        let prose = read(&completion("I see a cat."), all);
        assert_eq!(
            (prose.text.as_str(), prose.warnings),
            ("I see a cat.", vec![OcrWarning::UnbalancedMarkup])
        );
    }

    #[test]
    fn the_text_of_lines_is_what_they_say_and_not_their_list() {
        let word = |text: &str| Word { text: text.to_owned(), location: None, rotate_rect: None };
        let lines = Completion {
            words: Some(vec![word("one"), word("two")]),
            ..completion("```json\n[{\"rotate_rect\": []}]\n```")
        };
        let reading = read(&lines, &Task::AdvancedRecognition);
        assert_eq!((reading.text.as_str(), reading.lines), ("one\ntwo", None));
    }
}
