//! Extracts fields: the pages are read as for text, each by a call for its fields, and the answers of all pages are
//! merged.
//!
//! If the merged fields are in doubt, the pages in question are read again at the cap, and the answers are merged anew.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::doubt::{self, Doubt};
use super::error::OcrError;
use super::fields;
use super::intake::Origin;
use super::progress::{Others, PagesRead, Progress, out_of_time};
use super::request::{OcrRequest, TextBeside};
use super::result::{ExtractAnswer, PageOutcome, Status, text_of};
use super::sheet::Preparation;
use super::{DocumentRead, Ocr, read_so_far};
use crate::extract::Extraction;
use crate::extract::schema::Schema;

impl Ocr {
    /// Extracts the fields of an image or a document, and reads its text beside them if that is asked for.
    ///
    /// A model sometimes writes fields that cannot be parsed. The gateway then calls it once more, and both calls
    /// count.
    ///
    /// # Errors
    ///
    /// [`OcrError`] if no page was read: that of the first page. The request's tab has the cost so far in any case.
    pub async fn extract(
        &self,
        mut request: OcrRequest,
        others: Option<Others>,
    ) -> Result<ExtractAnswer, OcrError> {
        let started = self.reader.clock.instant();
        let Some(schema) = request.options.schema.clone() else { return Err(OcrError::NoSchema) };
        let mut document = self.read(&mut request, None, others.clone()).await?;
        let mut extraction = self.filled(&request, &schema, &mut document.read.pages).await?;
        let escalating =
            self.escalate(&request, others.as_ref(), &schema, &extraction, &mut document);
        if let Some(better) = escalating.await? {
            extraction = better;
        }
        self.extracted(started, request, extraction, document).await
    }

    /// The fields of the pages that are read so far, for a request whose work goes on for others.
    ///
    /// # Errors
    ///
    /// As [`extract`](Self::extract).
    pub(super) async fn extract_so_far(
        &self,
        started: Instant,
        request: OcrRequest,
        progress: &Progress,
    ) -> Result<ExtractAnswer, OcrError> {
        let Some(schema) = request.options.schema.clone() else { return Err(OcrError::NoSchema) };
        let mut document = read_so_far(&request, progress)?;
        let extraction = self.filled(&request, &schema, &mut document.read.pages).await?;
        self.extracted(started, request, extraction, document).await
    }

    async fn extracted(
        &self,
        started: Instant,
        request: OcrRequest,
        extraction: Extraction,
        document: DocumentRead,
    ) -> Result<ExtractAnswer, OcrError> {
        let DocumentRead { model, document, read, .. } = document;
        let PagesRead { mut pages, tally, memory, .. } = read;
        for page in pages.iter_mut().filter_map(PageOutcome::done_mut) {
            page.fields = None;
        }
        Ok(ExtractAnswer {
            id: request.id,
            status: Status::of(&pages),
            text: text_of(&pages),
            extraction,
            pages,
            facts: self.facts(&model, document, tally, started, request).await?,
            memory,
        })
    }

    /// Merges the answers of the pages, and looks for the values in the texts if that is asked for.
    async fn filled(
        &self,
        request: &OcrRequest,
        schema: &Arc<Schema>,
        pages: &mut [PageOutcome],
    ) -> Result<Extraction, OcrError> {
        let done = pages.iter().filter_map(PageOutcome::done);
        let answers = done.filter_map(|page| page.fields.clone()).collect();
        let scratch = &self.reader.scratch;
        let extraction = fields::merged(scratch, Arc::clone(schema), answers).await?;
        if request.options.text_beside != TextBeside::Ground {
            return Ok(extraction);
        }
        Ok(fields::grounded(scratch, extraction, pages, request.options.detail).await?)
    }

    /// Reads the pages again whose fields are in doubt. Returns the fields with their new answers, if these have no
    /// more doubts; `document` then has the new pages.
    async fn escalate(
        &self,
        request: &OcrRequest,
        others: Option<&Others>,
        schema: &Arc<Schema>,
        first: &Extraction,
        document: &mut DocumentRead,
    ) -> Result<Option<Extraction>, OcrError> {
        let DocumentRead { model, read, deadline, .. } = document;
        let doubts = doubt::of_fields(first);
        let Some((doubt, _)) = doubts.first() else { return Ok(None) };
        let again = in_doubt(mem::take(&mut read.again), &doubts);
        if let Some(others) = others {
            note_first_readings(&others.progress, read, &again);
        }
        let (intake, deadline) = (&self.intake, *deadline);
        let preparation = Preparation { intake, request, model, deadline, legible: None };
        let replaced = read.replace(self.reader.read_again(preparation, again, *doubt).await);
        if replaced.is_empty() {
            return Ok(None);
        }
        let extraction = self.filled(request, schema, &mut read.pages).await?;
        if doubt::of_fields(&extraction).len() <= doubts.len() {
            return Ok(Some(extraction));
        }
        read.restore(replaced);
        Ok(None)
    }
}

/// The pages that `doubts` are about.
fn in_doubt(
    mut pages: Vec<(u32, Origin)>,
    doubts: &[(Doubt, BTreeSet<u32>)],
) -> Vec<(u32, Origin)> {
    pages.retain(|(number, _)| {
        doubts.iter().any(|(_, pages)| pages.is_empty() || pages.contains(number))
    });
    pages
}

/// Notes how the pages are answered if the caller's time ends before those of `again` are read once more.
fn note_first_readings(progress: &Progress, read: &PagesRead, again: &[(u32, Origin)]) {
    let mut pages = read.pages.clone();
    for page in pages.iter_mut().filter_map(PageOutcome::done_mut) {
        if again.iter().any(|(number, _)| *number == page.page) {
            page.not_read_again(out_of_time());
        }
    }
    let memory = read.memory.clone();
    progress.change(|so_far| (so_far.pages, so_far.memory) = (pages, memory));
}
