//! The main use cases: read the text or the fields of an image or a document.
//!
//! [`Ocr::recognize`] and [`Ocr::extract`] have the same steps: take the file in, list its pages, and for each page
//! plan, quote, draw and make its calls of `metering`; then answer. [`Ocr::estimate`] stops after the quotes, so it
//! gives exactly the quotes of the other two. This module depends on neither HTTP nor SQL.
//!
//! - `intake`: finds the model, sees what the file is, and lists its pages. A picture that DashScope takes as it is
//!   goes the direct way.
//! - `sheet`: makes a page ready to be sent.
//! - `reading`: reads pages side by side, each by metered calls, and again where an answer is in doubt.
//! - `doubt`: what shows in an answer that it may be wrong.
//! - `audit`: compares chosen pixels with the cap on a share of the pages.
//! - `fields`: parses the fields of a page, and merges those of all pages.
//! - `searchable`: writes the lines over the pages of the document.
//! - `estimate`, `extract`: the other two use cases.
//! - `markdown`: joins the pages of a document as Markdown.
//! - `caching`: answers equal requests once. `fingerprint` says which are equal, `kept` what they share, and `progress`
//!   what is read by the deadline of one of them.

pub mod audit;
pub mod caching;
pub mod error;
pub mod estimate;
pub mod facts;
pub mod fingerprint;
pub mod intake;
pub mod lines;
pub mod markdown;
pub mod progress;
pub mod request;
pub mod result;
pub mod sent;
pub mod warning;

mod doubt;
mod extract;
mod fence;
mod fields;
mod kept;
mod markup;
mod notation;
mod page_text;
mod reading;
mod repetition;
mod searchable;
mod sheet;
mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::audit::Auditor;
use self::error::OcrError;
use self::facts::DocumentFacts;
use self::intake::{Intake, Job};
use self::progress::{Begun, Others, PagesRead, Progress, out_of_time};
use self::reading::{Follower, PageReader};
use self::request::OcrRequest;
use self::result::{
    Estimate, Facts, OcrAnswer, PageEvent, PageOutcome, Status, TenantLimits, Timing, UpstreamFacts,
};
use self::sheet::Preparation;
use crate::admission;
use crate::capacity::scratch::Scratch;
use crate::catalog::Model;
use crate::clock::Clock;
use crate::dashscope::Client;
use crate::document::error::DocumentError;
use crate::document::workers::draft::SearchableFile;
use crate::metering::context::RequestContext;
use crate::metering::error::MeteringError;
use crate::metering::run::Metering;
use crate::metering::spend::{Spend, Tally};

/// The time before the caller's deadline at which a request is answered with what is read by then.
const TIME_TO_ANSWER: Duration = Duration::from_millis(200);

/// The least and the most of the same time for a searchable PDF, which a worker has to write when one is free.
const TIME_TO_WRITE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// The share of the time that is left which is kept for writing, as its divisor.
const SHARE_TO_WRITE: u32 = 10;

/// A request whose pages were read.
struct DocumentRead {
    model: Arc<Model>,
    document: DocumentFacts,
    read: PagesRead,
    /// The time until which pages may be read.
    deadline: Instant,
    /// The document with the lines of its pages, if it was requested.
    searchable: Option<SearchableFile>,
}

/// Reads images and documents: the use cases of `/ocr`, `/extract` and `/estimate`.
#[derive(Debug)]
pub struct Ocr {
    intake: Intake,
    reader: PageReader,
}

impl Ocr {
    /// Builds the use cases from these parts.
    pub fn new(
        intake: Intake,
        metering: Metering,
        client: Arc<Client>,
        scratch: Arc<Scratch>,
        clock: Arc<dyn Clock>,
        auditor: Arc<Auditor>,
    ) -> Self {
        Self { intake, reader: PageReader { metering, client, scratch, clock, auditor } }
    }

    /// Ends the audits whose call was not sent, and starts no more, because the service stops.
    pub fn stop_audits(&self) {
        self.reader.auditor.stop();
    }

    /// Estimates the cost of the request. This sends nothing and spends nothing.
    ///
    /// # Errors
    ///
    /// [`OcrError`] for each reason to refuse the request before it is sent, except exhausted limits and budgets.
    pub async fn estimate(&self, request: &OcrRequest) -> Result<Estimate, OcrError> {
        let mut estimate = estimate::estimate(&self.intake, request).await?;
        let remaining = self.reader.metering.remaining(&request.context.tenant).await?;
        estimate.limits.tokens_remaining = remaining;
        Ok(estimate)
    }

    /// Reads the text of the pages; for `others`, too, if there may be some.
    ///
    /// # Errors
    ///
    /// [`OcrError`] if no page was read: that of the first page. The request's tab has the cost so far in any case.
    pub async fn recognize(
        &self,
        request: OcrRequest,
        others: Option<Others>,
    ) -> Result<OcrAnswer, OcrError> {
        self.recognize_to(request, None, others).await
    }

    /// Reads the text of the pages. `listener` gets the model's text while the model writes it, and each page when it
    /// is done.
    ///
    /// The answer may differ from that text, as it may without a listener. Lines and named values are not streamed,
    /// because they do not come as text. A call that was sent continues if the listener leaves.
    ///
    /// # Errors
    ///
    /// As [`recognize`](Self::recognize).
    pub async fn recognize_streamed(
        &self,
        request: OcrRequest,
        others: Option<Others>,
        listener: mpsc::Sender<PageEvent>,
    ) -> Result<OcrAnswer, OcrError> {
        let follower = Follower::new(listener, &request.context);
        self.recognize_to(request, Some(follower), others).await
    }

    async fn recognize_to(
        &self,
        mut request: OcrRequest,
        follower: Option<Follower>,
        others: Option<Others>,
    ) -> Result<OcrAnswer, OcrError> {
        let started = self.reader.clock.instant();
        let read = self.read(&mut request, follower, others).await?;
        self.recognized(started, request, read).await
    }

    /// The text of the pages that are read so far, for a request whose work goes on for others.
    ///
    /// # Errors
    ///
    /// As [`recognize`](Self::recognize).
    async fn recognize_so_far(
        &self,
        started: Instant,
        request: OcrRequest,
        progress: &Progress,
    ) -> Result<OcrAnswer, OcrError> {
        let read = read_so_far(&request, progress)?;
        self.recognized(started, request, read).await
    }

    async fn recognized(
        &self,
        started: Instant,
        request: OcrRequest,
        read: DocumentRead,
    ) -> Result<OcrAnswer, OcrError> {
        let DocumentRead { model, document, read, searchable, .. } = read;
        let PagesRead { pages, tally, memory, .. } = read;
        Ok(OcrAnswer {
            id: request.id,
            status: Status::of(&pages),
            text: result::text_of(&pages),
            warnings: if request.options.markdown {
                markdown::repeated(&pages)
            } else {
                Vec::new()
            },
            pages,
            facts: self.facts(&model, document, tally, started, request).await?,
            memory,
            searchable,
        })
    }

    /// The model that answers the request.
    ///
    /// # Errors
    ///
    /// As [`model_for`](crate::metering::access::model_for).
    fn model_of(&self, request: &OcrRequest) -> Result<Arc<Model>, MeteringError> {
        self.intake.model_of(request)
    }

    /// Takes the request in and reads its pages.
    ///
    /// # Errors
    ///
    /// [`OcrError`] if no page was read: that of the first page. [`OcrError::NotWritten`].
    async fn read(
        &self,
        request: &mut OcrRequest,
        follower: Option<Follower>,
        others: Option<Others>,
    ) -> Result<DocumentRead, OcrError> {
        let asked = request.context.deadline;
        let Job { model, document, pages, draft } = self.intake.open(request, asked).await?;
        let left = asked.saturating_duration_since(self.reader.clock.instant());
        let may_be_part = pages.count() > 1 || request.may_deliver_less();
        let before = time_to_end(may_be_part, draft.is_some(), left);
        let begun = || Begun {
            model: Arc::clone(&model),
            document: document.clone(),
            pages: pages.numbers(),
        };
        let until = self.time_of_others(asked, others.as_ref(), begun).unwrap_or(asked);
        let deadline = until.checked_sub(before).unwrap_or(until);
        let (intake, request) = (&self.intake, &*request);
        let legible = intake.legible(request);
        let preparation = Preparation { intake, request, model: &model, deadline, legible };
        let mut read = self.reader.read_all(preparation, pages, follower, others).await;
        if !request.options.is_all_or_nothing {
            read.pages = some_done(read.pages)?;
        }
        let searchable = match draft {
            Some(draft) => {
                let until = asked.checked_sub(TIME_TO_ANSWER).unwrap_or(asked);
                Some(searchable::finish(draft, &mut read.pages, until).await?)
            }
            None => None,
        };
        Ok(DocumentRead { model, document, read, deadline, searchable })
    }

    /// The time until which the pages of a request with this deadline may be read, if others may wait for its answer.
    ///
    /// A call that is cut is paid at its bound and answers nobody. At its own deadline the caller gets what is read by
    /// then. If it leaves no time for a call, its deadline stays.
    fn time_of_others(
        &self,
        deadline: Instant,
        others: Option<&Others>,
        begun: impl FnOnce() -> Begun,
    ) -> Option<Instant> {
        let others = others?;
        admission::latest_start(deadline, self.reader.clock.instant())?;
        others.progress.begin(begun());
        Some(others.until.max(deadline))
    }

    async fn facts(
        &self,
        model: &Model,
        document: DocumentFacts,
        tally: Tally,
        started: Instant,
        request: OcrRequest,
    ) -> Result<Facts, MeteringError> {
        let RequestContext { tenant, tab, .. } = &request.context;
        let now = self.reader.clock.instant();
        let remaining = match tally.remaining {
            Some(remaining) => remaining,
            None => self.reader.metering.remaining(tenant).await?,
        };
        Ok(Facts {
            // Calls for others may be under way.
            usage: Spend::of(&tab.at_most(), model.price.currency),
            limits: TenantLimits::of(model, tenant, remaining),
            model: model.name.clone(),
            document,
            upstream: UpstreamFacts { request_ids: tally.request_ids, endpoint: tally.endpoint },
            timing_ms: Timing::of(now.saturating_duration_since(started), tab.waited(now).upstream),
            metadata: request.options.metadata,
        })
    }
}

/// What is read so far, as if the time had ended for all pages.
///
/// # Errors
///
/// [`CallFault::DeadlineExceeded`](crate::dashscope::error::CallFault::DeadlineExceeded) if no page is read.
fn read_so_far(request: &OcrRequest, progress: &Progress) -> Result<DocumentRead, OcrError> {
    let (Begun { model, document, .. }, read) = progress.so_far().ok_or_else(out_of_time)?;
    let deadline = request.context.deadline;
    Ok(DocumentRead { model, document, read, deadline, searchable: None })
}

/// The pages, if one was read.
///
/// # Errors
///
/// The error of the first page, if all failed.
fn some_done(pages: Vec<PageOutcome>) -> Result<Vec<PageOutcome>, OcrError> {
    if pages.iter().any(|page| page.done().is_some()) {
        return Ok(pages);
    }
    match pages.into_iter().next() {
        Some(PageOutcome::Failed(first)) => Err(first.error),
        // A range of pages is never empty.
        _ => Err(DocumentError::Empty.into()),
    }
}

/// How long before the caller's deadline the calls end: long enough to answer with what is read by then, where that may
/// be a part, and to write a searchable PDF. `left` is the time until that deadline.
fn time_to_end(may_be_part: bool, is_written: bool, left: Duration) -> Duration {
    let [least, most] = TIME_TO_WRITE;
    match (is_written, may_be_part) {
        (true, _) => (left / SHARE_TO_WRITE).clamp(least, most),
        (false, true) => TIME_TO_ANSWER,
        (false, false) => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_searchable_pdf_has_a_tenth_of_the_time_within_one_and_five_seconds() {
        for (left, expected) in [(2, 1000), (10, 1000), (30, 3000), (50, 5000), (600, 5000)] {
            let before = time_to_end(false, true, Duration::from_secs(left));
            assert_eq!(before, Duration::from_millis(expected), "{left}");
        }
        assert_eq!(time_to_end(false, false, Duration::from_mins(1)), Duration::ZERO);
        assert_eq!(time_to_end(true, false, Duration::from_mins(1)), TIME_TO_ANSWER);
    }
}
