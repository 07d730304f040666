//! Extracts fields: the pages are read as for text, each by a call for its fields, and the answers of all pages are
//! merged.

use super::error::OcrError;
use super::fields;
use super::reading::PagesRead;
use super::request::{OcrRequest, TextBeside};
use super::result::{ExtractAnswer, PageOutcome, Status, text_of};
use super::{DocumentRead, Ocr};

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
    ) -> Result<ExtractAnswer<OcrError>, OcrError> {
        let started = self.reader.clock.instant();
        let Some(schema) = request.options.schema.clone() else { return Err(OcrError::NoSchema) };
        let DocumentRead { model, document, read, .. } = self.read(&mut request, None).await?;
        let PagesRead { mut pages, tally, memory } = read;
        let done = pages.iter_mut().filter_map(PageOutcome::done_mut);
        let answers = done.filter_map(|page| page.fields.take()).collect();
        let scratch = &self.reader.scratch;
        let mut extraction = fields::merged(scratch, schema, answers).await?;
        if request.options.text_beside == TextBeside::Ground {
            let detail = request.options.detail;
            extraction = fields::grounded(scratch, extraction, &mut pages, detail).await?;
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
}
