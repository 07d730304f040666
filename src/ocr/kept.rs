//! An answer as it is kept for equal requests, and how it is written.
//!
//! What is kept is what the pages say. The id, the cost, the time and the caller's own object belong to one request.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::OcrError;
use super::facts::{DocumentFacts, Source};
use super::notation::Notation;
use super::result::{
    ExtractAnswer, Facts, FailedPage, ImageTokens, OcrAnswer, Page, PageOutcome, Status, text_of,
};
use super::warning::{DocumentWarning, NotReadAgain, OcrWarning, PageWarning, TextNotRead};
use crate::capacity::account::HeldBytes;
use crate::extract::Extraction;
use crate::units::Tokens;

/// The part of an answer that equal requests share.
#[derive(Debug, Clone)]
pub(super) struct KeptAnswer {
    pages: Vec<PageOutcome>,
    warnings: Vec<DocumentWarning>,
    extraction: Option<Extraction>,
    pub(super) document: DocumentFacts,
    /// Image tokens that the first request spent.
    pub(super) saved: Tokens,
    /// The memory of the pages, while they are shared.
    _memory: Vec<Arc<HeldBytes>>,
}

/// What may be done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    /// It is whole.
    Keep,
    /// It answers requests that wait for it now, but it is not whole, or its text may be wrong.
    Share,
    /// A part of it failed, and an equal request might succeed.
    Nothing,
}

/// An answer that can be kept.
pub(super) trait Reusable: Sized + Send + Sync + 'static {
    /// The part that equal requests share.
    fn kept(&self) -> KeptAnswer;

    /// The answer to an equal request; `None` if it is one of another kind. `memory` counts for it until it is written.
    fn of(kept: &KeptAnswer, id: Uuid, facts: Facts, memory: Vec<Arc<HeldBytes>>) -> Option<Self>;
}

impl Reusable for OcrAnswer {
    fn kept(&self) -> KeptAnswer {
        let Self { pages, warnings, facts, memory, .. } = self;
        KeptAnswer::new(pages, warnings.clone(), None, facts, memory)
    }

    fn of(kept: &KeptAnswer, id: Uuid, facts: Facts, memory: Vec<Arc<HeldBytes>>) -> Option<Self> {
        let KeptAnswer { pages, warnings, .. } = kept;
        Some(Self {
            id,
            status: Status::of(pages),
            text: text_of(pages),
            pages: pages.clone(),
            warnings: warnings.clone(),
            facts,
            memory,
            searchable: None,
        })
    }
}

impl Reusable for ExtractAnswer {
    fn kept(&self) -> KeptAnswer {
        let Self { pages, extraction, facts, memory, .. } = self;
        KeptAnswer::new(pages, Vec::new(), Some(extraction.clone()), facts, memory)
    }

    fn of(kept: &KeptAnswer, id: Uuid, facts: Facts, memory: Vec<Arc<HeldBytes>>) -> Option<Self> {
        let KeptAnswer { pages, extraction, .. } = kept;
        Some(Self {
            id,
            status: Status::of(pages),
            text: text_of(pages),
            extraction: extraction.clone()?,
            pages: pages.clone(),
            facts,
            memory,
        })
    }
}

impl KeptAnswer {
    fn new(
        pages: &[PageOutcome],
        warnings: Vec<DocumentWarning>,
        extraction: Option<Extraction>,
        facts: &Facts,
        memory: &[Arc<HeldBytes>],
    ) -> Self {
        let spent = |page: &Page| page.image_tokens.billed.unwrap_or(page.image_tokens.estimated);
        let saved = pages.iter().filter_map(PageOutcome::done).map(spent).sum();
        let pages = pages.iter().cloned().map(|outcome| match outcome {
            PageOutcome::Done(page) => PageOutcome::Done(reused(page)),
            failed @ PageOutcome::Failed(_) => failed,
        });
        let (pages, document) = (pages.collect(), facts.document.clone());
        Self { pages, warnings, extraction, document, saved, _memory: memory.to_vec() }
    }

    /// What may be done with it.
    pub(super) fn reuse(&self) -> Reuse {
        let unread = |page: &Page| page.warnings.iter().find_map(why_unread).cloned();
        let failures = self.pages.iter().filter_map(|outcome| match outcome {
            PageOutcome::Done(page) => unread(page),
            PageOutcome::Failed(FailedPage { error, .. }) => Some(error.clone()),
        });
        let failures: Vec<_> = failures.collect();
        let doubts = |page: &Page| page.warnings.iter().any(PageWarning::doubts_the_end);
        if !failures.iter().all(OcrError::is_about_the_file) {
            Reuse::Nothing
        } else if !failures.is_empty() || self.done().any(doubts) {
            Reuse::Share
        } else {
            Reuse::Keep
        }
    }

    /// Its pages.
    pub(super) fn pages(&self) -> &[PageOutcome] {
        &self.pages
    }

    fn done(&self) -> impl Iterator<Item = &Page> {
        self.pages.iter().filter_map(PageOutcome::done)
    }

    /// The memory that an answer takes until it is written, in bytes, by estimate.
    pub(super) fn bytes(&self) -> u64 {
        self.done().map(Page::bytes).sum()
    }

    /// Writes a whole answer.
    pub(super) fn written(&self) -> Bytes {
        let pages = self.done().map(|page| EntryPage {
            dpi: page.dpi,
            notation: page.notation,
            page: page.clone().map_error(|_| ()),
        });
        let entry = Entry {
            pages: pages.collect(),
            warnings: self.warnings.clone(),
            extraction: self.extraction.clone(),
            document: self.document.clone(),
            saved: self.saved,
        };
        // Structs of strings and numbers always serialise.
        serde_json::to_vec(&entry).unwrap_or_default().into()
    }

    /// Reads what was written; `None` if it is something else.
    pub(super) fn read(entry: &[u8]) -> Option<Self> {
        let entry: Entry<Page<Unfailing>> = serde_json::from_slice(entry).ok()?;
        let Entry { pages, warnings, extraction, document, saved } = entry;
        let pages = pages.into_iter().map(|EntryPage { page, dpi, notation }| {
            let page = Page { dpi, notation, ..page };
            PageOutcome::Done(page.map_error(|error| match error {}))
        });
        let pages = pages.collect();
        Some(Self { pages, warnings, extraction, document, saved, _memory: Vec::new() })
    }
}

/// The error of a page that has none: only whole answers are written.
#[derive(Debug, Clone, Deserialize)]
enum Unfailing {}

/// An answer as it is written.
#[derive(Serialize, Deserialize)]
struct Entry<P> {
    pages: Vec<EntryPage<P>>,
    warnings: Vec<DocumentWarning>,
    extraction: Option<Extraction>,
    document: DocumentFacts,
    saved: Tokens,
}

/// A page with what answers do not show of it.
#[derive(Serialize, Deserialize)]
struct EntryPage<P> {
    page: P,
    dpi: Option<u32>,
    notation: Notation,
}

/// The page as an equal request gets it: it cost nothing.
fn reused(mut page: Page) -> Page {
    let unverified =
        |warning: &PageWarning| matches!(warning, PageWarning::Plain(OcrWarning::UsageUnverified));
    page.warnings.retain(|warning| !unverified(warning));
    page.source = Source::Cache;
    page.image_tokens = ImageTokens { estimated: Tokens::ZERO, billed: Some(Tokens::ZERO) };
    page
}

fn why_unread(warning: &PageWarning) -> Option<&OcrError> {
    match warning {
        PageWarning::TextNotRead(TextNotRead { error })
        | PageWarning::NotReadAgain(NotReadAgain { error }) => Some(error),
        PageWarning::Plain(_) => None,
    }
}
