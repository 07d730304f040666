//! Extracts fields of one page: the same steps as for text, with the answer fitted to the caller's schema.

use std::sync::Arc;

use super::Ocr;
use super::error::OcrError;
use super::intake::{Job, Origin, Pages};
use super::request::OcrRequest;
use super::result::{ExtractAnswer, Page, Status};
use super::sheet::Preparation;
use crate::dashscope::completion::Completion;
use crate::extract::Extraction;
use crate::extract::answer::{AnswerError, parse_answer};
use crate::extract::schema::{Schema, filling_bytes};
use crate::json::Tree;
use crate::metering::error::MeteringError;
use crate::metering::spend::Tally;

/// The most calls for one answer: if the fields of the first cannot be parsed, a second is made.
const ATTEMPTS: u32 = 2;

impl Ocr {
    /// Extracts the fields of an image, or of one page of a document.
    ///
    /// A model sometimes writes fields that cannot be parsed. The gateway then calls it once more, and both calls
    /// count.
    ///
    /// # Errors
    ///
    /// [`OcrError`]. The request's tab has the cost so far in any case.
    pub async fn extract(&self, mut request: OcrRequest) -> Result<ExtractAnswer, OcrError> {
        let started = self.reader.clock.instant();
        let Some(schema) = request.options.schema.clone() else { return Err(OcrError::NoSchema) };
        let deadline = request.context.deadline;
        let Job { model, document, pages } = self.intake.open(&mut request, deadline).await?;
        let (number, origin) = only(pages)?;
        let preparation =
            Preparation { intake: &self.intake, request: &request, model: &model, deadline };
        let ready = preparation.ready(number, origin).await?;
        let mut tally = Tally::default();
        let mut unusable = AnswerError::NoObject;
        for _ in 0..ATTEMPTS {
            let call = ready.call(&request);
            let completion = self.reader.read(&request.context, &ready.facts, call, None).await?;
            tally.add(&completion.receipt);
            let (completion, understood) = self.understand(&schema, number, completion).await?;
            let extraction = match understood {
                Ok(extraction) => extraction,
                Err(error) => {
                    unusable = error;
                    continue;
                }
            };
            let page = Page::of(&ready.facts, &completion, &request);
            self.reader.metering.answered_page(&request.context, page.source.as_str());
            return Ok(ExtractAnswer {
                id: request.id,
                status: Status::Succeeded,
                text: page.text.clone(),
                extraction,
                pages: vec![page],
                facts: self.facts(&model, document, tally, started, request).await?,
            });
        }
        Err(OcrError::UnusableFields(unusable))
    }

    /// Fits the answer to the schema, and returns both. This runs on the blocking pool, because an answer may have
    /// thousands of fields and because this step compiles the schema's patterns.
    async fn understand(
        &self,
        schema: &Arc<Schema>,
        page: u32,
        completion: Completion,
    ) -> Result<(Completion, Result<Extraction, AnswerError>), OcrError> {
        let bytes = answer_bytes(&completion.text, completion.kv_result.as_ref());
        let memory = self.scratch.take(filling_bytes(bytes)).await;
        let schema = Arc::clone(schema);
        let understanding = tokio::task::spawn_blocking(move || {
            let answer = parse_answer(completion.kv_result.as_ref(), &completion.text);
            let extraction = answer.map(|answer| schema.fill(&answer, page));
            // The thread continues after the caller has left.
            drop(memory);
            (completion, extraction)
        });
        Ok(understanding.await.map_err(|_panicked| MeteringError::Interrupted)?)
    }
}

/// The only page.
///
/// # Errors
///
/// [`OcrError::SeveralPages`] if there are more.
fn only(pages: Pages) -> Result<(u32, Origin), OcrError> {
    let actual = pages.count();
    let mut pages = pages.each().into_iter();
    match (pages.next(), pages.next()) {
        (Some(page), None) => Ok(page),
        _ => Err(OcrError::SeveralPages { actual }),
    }
}

/// Size, in bytes, of the answer that is validated against the schema. DashScope may return many values beside a short
/// text.
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
