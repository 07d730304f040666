//! Writes the lines that were read over the pages of the document, as invisible text.

use std::time::Instant;

use super::error::OcrError;
use super::facts::Source;
use super::lines::TextLine;
use super::result::{Page, PageOutcome};
use crate::document::error::DocumentError;
use crate::document::page::{PageLines, PlacedLine};
use crate::document::workers::draft::{Draft, SearchableFile};
use crate::image::Size;

/// Finishes the draft with the lines of `pages`, which lose them. A page that carries its own text keeps that alone,
/// and one that failed has none.
///
/// # Errors
///
/// [`OcrError::NotWritten`] if no worker was free until `deadline` or two were lost, or the error of writing the text.
pub(super) async fn finish(
    draft: Draft,
    pages: &mut [PageOutcome],
    deadline: Instant,
) -> Result<SearchableFile, OcrError> {
    let read = pages.iter_mut().filter_map(|page| match page {
        PageOutcome::Done(page) if page.source != Source::TextLayer => Some(lines_of(page)),
        PageOutcome::Done(_) | PageOutcome::Failed(_) => None,
    });
    let finished = draft.finish(read.collect(), deadline).await;
    finished.map_err(|error| match error {
        DocumentError::Busy | DocumentError::Interrupted => OcrError::NotWritten,
        error => error.into(),
    })
}

fn lines_of(page: &mut Page) -> PageLines {
    let lines = page.lines.take().unwrap_or_default();
    let placed = |TextLine { text, polygon, .. }| PlacedLine { text, polygon };
    PageLines {
        page: page.page,
        size: Size::new(page.width, page.height),
        lines: lines.into_iter().map(placed).collect(),
    }
}
