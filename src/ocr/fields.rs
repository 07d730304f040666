//! Fields of pages: parses what the model wrote of each page, merges the answers of all pages, and looks for the values
//! in the texts.
//!
//! All run on the blocking pool, because an answer may have thousands of fields, a text may have many words, and the
//! second step compiles the schema's patterns. Their memory counts as scratch memory meanwhile.

use std::mem;
use std::sync::Arc;

use super::lines::{self, TextLine};
use super::request::Detail;
use super::result::PageOutcome;
use super::warning::PageWarning;
use crate::capacity::scratch::Scratch;
use crate::dashscope::completion::Completion;
use crate::extract::Extraction;
use crate::extract::answer::{AnswerError, parse_answer};
use crate::extract::ground::FieldLines;
use crate::extract::page_answer::PageAnswer;
use crate::extract::schema::{Schema, WORKING_BYTES, filling_bytes, merging_bytes};
use crate::json::Tree;
use crate::metering::error::MeteringError;

/// Parses the answer for page `page`. Returns the completion, too.
///
/// # Errors
///
/// [`MeteringError::Interrupted`] if the parser panicked. The inner error says why the answer has no fields.
pub(super) async fn parsed(
    scratch: &Scratch,
    page: u32,
    completion: Completion,
) -> Result<(Completion, Result<PageAnswer, AnswerError>), MeteringError> {
    let bytes = answer_bytes(&completion.text, completion.kv_result.as_ref());
    let memory = scratch.take(filling_bytes(bytes)).await;
    let parsing = tokio::task::spawn_blocking(move || {
        let answer = parse_answer(completion.kv_result.as_ref(), &completion.text);
        let answer = answer.map(|answer| PageAnswer::of(page, &answer));
        // The thread continues after the caller has left.
        drop(memory);
        (completion, answer)
    });
    parsing.await.map_err(|_panicked| MeteringError::Interrupted)
}

/// Fills the schema from the answers for the pages.
///
/// # Errors
///
/// [`MeteringError::Interrupted`] if that panicked.
pub(super) async fn merged(
    scratch: &Scratch,
    schema: Arc<Schema>,
    answers: Vec<PageAnswer>,
) -> Result<Extraction, MeteringError> {
    let memory = scratch.take(merging_bytes(&answers)).await;
    let merging = tokio::task::spawn_blocking(move || {
        let extraction = schema.fill_pages(answers);
        drop(memory);
        extraction
    });
    merging.await.map_err(|_panicked| MeteringError::Interrupted)
}

/// Looks for the values of each page in its text, and checks the sums of the document. The values of a page whose text
/// was not read are not looked for. A page is looked at by itself, so that other requests get their turns between two.
///
/// # Errors
///
/// [`MeteringError::Interrupted`] if that panicked.
pub(super) async fn grounded(
    scratch: &Scratch,
    mut extraction: Extraction,
    pages: &mut [PageOutcome],
    detail: Detail,
) -> Result<Extraction, MeteringError> {
    if detail == Detail::Lines {
        for (_, origin) in &mut extraction.fields {
            origin.place.get_or_insert_default();
        }
    }
    let read = pages.iter_mut().filter_map(PageOutcome::done_mut);
    for page in read.filter(|page| !page.lacks_text()) {
        let (number, text, lines) = (page.page, mem::take(&mut page.text), page.lines.take());
        let memory = scratch.take(extraction.grounding_bytes(number, &text)).await;
        let looking = tokio::task::spawn_blocking(move || {
            ground(&mut extraction, number, &text, lines.as_deref());
            drop(memory);
            (extraction, text, lines)
        });
        let looked = looking.await.map_err(|_panicked| MeteringError::Interrupted)?;
        (extraction, page.text, page.lines) = looked;
    }
    let is_whole = |page: &PageOutcome| match page {
        PageOutcome::Done(page) => !page.warnings.iter().any(PageWarning::doubts_the_end),
        PageOutcome::Failed(_) => false,
    };
    let are_whole = pages.iter().all(is_whole);
    let memory = scratch.take(WORKING_BYTES).await;
    let checking = tokio::task::spawn_blocking(move || {
        extraction.check_sums(are_whole);
        drop(memory);
        extraction
    });
    checking.await.map_err(|_panicked| MeteringError::Interrupted)
}

/// Looks for the values of a page. If the page has lines, each value gets the place of those that hold it.
fn ground(extraction: &mut Extraction, page: u32, text: &str, lines: Option<&[TextLine]>) {
    let texts = lines.unwrap_or_default().iter().map(|line| line.text.as_str());
    let found = extraction.ground(page, text, &texts.collect::<Vec<_>>());
    let Some(lines) = lines else { return };
    for FieldLines { field, lines: of_field } in found {
        extraction.fields[field].1.place = Some(Box::new(lines::place_of(&lines[of_field])));
    }
}

/// Size, in bytes, of the answer. DashScope may return many values beside a short text.
fn answer_bytes(text: &str, values: Option<&Tree>) -> u64 {
    text.len().max(values.map_or(0, Tree::unescaped_bytes)) as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn many_values_beside_a_short_text_count_by_their_own_length() {
        let values = Tree::from(&json!({ "rows": ["x".repeat(40_000)] }));
        assert!(answer_bytes("{}", Some(&values)) > 40_000);
        assert_eq!(answer_bytes("a long text", Some(&Tree::Null)), 11);
        assert_eq!(answer_bytes("text", None), 4);
    }
}
