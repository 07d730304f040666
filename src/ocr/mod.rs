//! The main use cases: read the text or the fields of an image.
//!
//! [`Ocr::recognize`] and [`Ocr::extract`] have the same steps: read the header, quote, make one call of `metering`,
//! answer. [`Ocr::estimate`] stops after the quote, so it gives exactly the quote of the other two. This module depends
//! on neither HTTP nor SQL.

pub mod error;
pub mod estimate;
pub mod lines;
pub mod request;
pub mod result;
pub mod warning;

mod extract;
mod fence;
mod markup;
mod notation;
mod page_text;
mod prepare;
mod repetition;
mod stream;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use self::error::OcrError;
use self::prepare::{PageCall, Prepared};
use self::request::{Detail, OcrRequest};
use self::result::{
    DocumentFacts, Estimate, Facts, OcrAnswer, Page, Status, TenantLimits, Timing, UpstreamFacts,
};
use crate::capacity::scratch::Scratch;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::dashscope::completion::Completion;
use crate::dashscope::{Client, Task};
use crate::metering::context::RequestContext;
use crate::metering::forecast::Forecast;
use crate::metering::read_on::Listener;
use crate::metering::run::{Meter, Metering};
use crate::metering::spend::{Spend, Tally};
use crate::quote::Quote;

/// Reads images: the use cases of `/ocr`, `/extract` and `/estimate`.
#[derive(Debug)]
pub struct Ocr {
    catalog: Arc<Catalog>,
    metering: Metering,
    client: Arc<Client>,
    scratch: Arc<Scratch>,
    clock: Arc<dyn Clock>,
}

impl Ocr {
    /// Builds the use cases from these parts.
    pub const fn new(
        catalog: Arc<Catalog>,
        metering: Metering,
        client: Arc<Client>,
        scratch: Arc<Scratch>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { catalog, metering, client, scratch, clock }
    }

    /// Estimates the cost of the request. This sends nothing and spends nothing.
    ///
    /// # Errors
    ///
    /// [`OcrError`] for each reason to refuse the request before it is sent, except exhausted limits and budgets.
    pub async fn estimate(&self, request: &OcrRequest) -> Result<Estimate, OcrError> {
        let mut estimate = estimate::estimate(&self.catalog, request).await?;
        estimate.limits.tokens_remaining = self.metering.remaining(&request.context.tenant).await?;
        Ok(estimate)
    }

    /// Reads the text of the image.
    ///
    /// # Errors
    ///
    /// [`OcrError`]. The request's tab has the cost so far in any case.
    pub async fn recognize(&self, request: OcrRequest) -> Result<OcrAnswer, OcrError> {
        self.recognize_to(request, None).await
    }

    /// Reads the text of the image. `listener` gets the model's text while the model writes it.
    ///
    /// The answer may differ from that text, as it may without a listener. Lines and named values are not streamed,
    /// because they do not come as text. The call continues if the listener leaves.
    ///
    /// # Errors
    ///
    /// As [`recognize`](Self::recognize).
    pub async fn recognize_streamed(
        &self,
        request: OcrRequest,
        listener: mpsc::Sender<String>,
    ) -> Result<OcrAnswer, OcrError> {
        self.recognize_to(request, Some(listener)).await
    }

    async fn recognize_to(
        &self,
        mut request: OcrRequest,
        listener: Option<mpsc::Sender<String>>,
    ) -> Result<OcrAnswer, OcrError> {
        let started = self.clock.instant();
        let mut prepared = prepare::to_send(&self.catalog, &mut request).await?;
        let mut tally = Tally::default();
        let page = prepared.only_call(&mut request);
        let completion =
            self.read(&request.context, &prepared.quote, page, listener, &mut tally).await?;
        if lacks_lines(&request, &completion) {
            return Err(OcrError::NoLines);
        }
        let page = Page::of(&prepared, &completion, &request);
        Ok(OcrAnswer {
            id: request.id,
            status: Status::Succeeded,
            text: page.text.clone(),
            pages: vec![page],
            warnings: Vec::new(),
            facts: self.facts(&prepared, tally, started, request),
        })
    }

    /// Reads one page by one metered call, and adds it to the tally.
    async fn read(
        &self,
        context: &RequestContext,
        quote: &Quote,
        page: PageCall,
        listener: Option<mpsc::Sender<String>>,
        tally: &mut Tally,
    ) -> Result<Completion, OcrError> {
        let (client, deadline) = (Arc::clone(&self.client), context.deadline);
        let is_streamed = listener.is_some();
        let listener = listener.filter(|_| page.call.task.as_ref().is_none_or(Task::streams));
        let work = move |permit, meter: Meter| async move {
            let completed = match listener.map(Listener::new) {
                None => client.call(permit, &page.call, deadline).await,
                Some(listener) => stream::call(&client, permit, page, deadline, listener).await,
            };
            if is_streamed {
                meter.log_stream();
            }
            let completion = completed?;
            meter.compare(&completion.receipt);
            Ok(completion)
        };
        let completion = self.metering.run(context, Forecast::from(quote), work).await?;
        tally.add(&completion.receipt);
        Ok(completion)
    }

    fn facts(
        &self,
        prepared: &Prepared,
        tally: Tally,
        started: Instant,
        request: OcrRequest,
    ) -> Facts {
        let RequestContext { tenant, tab, .. } = &request.context;
        let took = self.clock.instant().saturating_duration_since(started);
        Facts {
            usage: Spend::of(&tab.ended(), prepared.quote.model.price.currency),
            limits: TenantLimits::of(&prepared.quote, tenant, tally.remaining),
            model: prepared.quote.model.name.clone(),
            document: DocumentFacts::of(prepared),
            upstream: UpstreamFacts { request_ids: tally.request_ids, endpoint: tally.endpoint },
            timing_ms: Timing::of(took, tally.upstream_time),
            metadata: request.options.metadata,
        }
    }
}

/// Whether the answer is text instead of the requested lines. The page would look blank.
fn lacks_lines(request: &OcrRequest, completion: &Completion) -> bool {
    request.options.detail == Detail::Lines
        && completion.words.is_none()
        && !completion.text.trim().is_empty()
}
