//! Errors, where this API words them differently: its pages count from 0, and it has no partial answers.

use crate::api::problem::Problem;
use crate::code::ErrorCode;
use crate::document::error::DocumentError;
use crate::ocr::error::OcrError;
use crate::ocr::result::{FailedPage, Page, PageOutcome};

/// The problem of a request whose pages cannot be read.
pub(in crate::api) fn problem(error: OcrError) -> Problem {
    let detail = match &error {
        OcrError::Document(DocumentError::PageNotFound { asked, pages }) => format!(
            "Page {} was asked for; the document has {pages} pages, which count from 0.",
            asked.saturating_sub(1)
        ),
        OcrError::Document(DocumentError::TooManyPages { actual, allowed }) => format!(
            "{actual} pages are asked for; one request may have {allowed}. Read the document in parts, such as \
             \"pages\": \"0-{}\".",
            allowed.saturating_sub(1)
        ),
        _ => return error.into(),
    };
    Problem { detail: detail.into(), ..error.into() }
}

/// All pages that were asked for, of a document of `total`.
///
/// # Errors
///
/// The problem of the first page that failed, with its number: a page that is missing from the answer would not be
/// noticed.
pub(in crate::api) fn all_read(pages: Vec<PageOutcome>, total: u32) -> Result<Vec<Page>, Problem> {
    let read = pages.into_iter().map(|page| match page {
        PageOutcome::Done(page) => Ok(page),
        PageOutcome::Failed(FailedPage { error, .. }) if total == 1 => Err(error.into()),
        PageOutcome::Failed(FailedPage { page, error, .. }) => Err(unread(page, error)),
    });
    read.collect()
}

fn unread(number: u32, error: OcrError) -> Problem {
    let problem = Problem::from(error);
    let index = number.saturating_sub(1);
    let detail = format!(
        "Page {index} (from 0) was not read, and this API has no answer without it: {}",
        problem.detail
    );
    Problem { detail: detail.into(), ..problem }
}

/// 404 for a model that is in no table.
pub(in crate::api) fn unknown_model<'a>(
    model: &str,
    aliases: impl Iterator<Item = &'a str>,
    models: impl Iterator<Item = String>,
) -> Problem {
    let shown: String = model.chars().take(64).collect();
    let known: Vec<_> = aliases.map(str::to_owned).chain(models).collect();
    let detail = format!("There is no model {shown:?} here. Models: {}.", known.join(", "));
    Problem::new(ErrorCode::ModelNotFound, detail).flaw("/model", "is unknown")
}
