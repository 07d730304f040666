//! The main job: an image in, its text or its fields out, admitted, billed and counted.
//!
//! [`Ocr::recognize`] and [`Ocr::extract`] read as the recipe: look at the header, quote, admit, call,
//! compare the bill with the quote, answer. [`Ocr::estimate`] stops after the quote and therefore
//! foretells exactly what the other two send. Nothing here knows HTTP or SQL.
//!
//! From the moment a call is admitted it runs on a task of its own: a caller who hangs up, or a
//! service that is told to stop, does not interrupt the work between paying and recording. A call that was not
//! sent when its caller hung up is not made.

pub mod error;
pub mod lines;
pub mod prepare;
pub mod request;
pub mod result;

mod aloud;
mod extract;
mod fence;
mod markup;
mod notation;
mod reading;
mod repetition;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use self::error::OcrError;
use self::prepare::Prepared;
use self::request::{Detail, Held, Request};
use self::result::{
    DocumentFacts, Estimate, Facts, OcrAnswer, Page, Spend, Status, TenantLimits, Timing,
    UpstreamFacts,
};
use crate::admission::Admission;
use crate::admission::presence::{Presence, Watch};
use crate::admission::tab::Tab;
use crate::auth::tenant::Tenant;
use crate::capacity::scratch::Scratch;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::dashscope::completion::Completion;
use crate::dashscope::error::{CallError, Code};
use crate::dashscope::{Call, Client, Task};
use crate::ledger::budget::RemainingTokens;
use crate::quote::Quote;
use crate::telemetry::metrics::{Metrics, Saving};
use crate::units::Tokens;

/// Reads images: the use cases behind `/ocr`, `/extract` and `/estimate`.
#[derive(Debug)]
pub struct Ocr {
    catalog: Arc<Catalog>,
    admission: Admission,
    client: Arc<Client>,
    scratch: Arc<Scratch>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
}

/// What is told of the calls behind one answer, beside what they cost.
#[derive(Debug, Clone, Default)]
struct Tally {
    upstream_time: Duration,
    request_ids: Vec<String>,
    endpoint: String,
    remaining: RemainingTokens,
}

/// One call that is to be made, and who hears it.
struct Asking {
    call: Call,
    deadline: Instant,
    watch: Watch,
    places: Held,
    memory: Held,
    tab: Tab,
    /// Told what the model writes while it writes.
    listener: Option<mpsc::Sender<String>>,
}

impl Asking {
    fn of(call: Call, request: &Request) -> Self {
        let (places, memory) = (Arc::clone(&request.places), Arc::clone(&request.memory));
        let (deadline, watch) = (request.deadline, request.watch.clone());
        let tab = request.tab.clone();
        Self { call, deadline, watch, places, memory, tab, listener: None }
    }
}

impl Ocr {
    /// The use cases over these parts; `tasks` is what a stop waits for.
    #[expect(clippy::too_many_arguments, reason = "one for each part")]
    pub const fn new(
        catalog: Arc<Catalog>,
        admission: Admission,
        client: Arc<Client>,
        scratch: Arc<Scratch>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        Self { catalog, admission, client, scratch, metrics, clock, tasks }
    }

    /// What the request would cost. Sends nothing and spends nothing.
    ///
    /// # Errors
    ///
    /// [`OcrError`] for whatever would have the request refused before it is sent, but for limits and
    /// budgets that are used up.
    pub async fn estimate(&self, tenant: &Tenant, request: &Request) -> Result<Estimate, OcrError> {
        let mut estimate = prepare::estimate(&self.catalog, tenant, request).await?;
        let remaining = self.admission.remaining(tenant).await?;
        estimate.limits.tokens_remaining = remaining;
        Ok(estimate)
    }

    /// The text of the image.
    ///
    /// # Errors
    ///
    /// [`OcrError`]; what was spent all the same is on the request's tab.
    pub async fn recognize(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        request: Request,
    ) -> Result<OcrAnswer, OcrError> {
        self.recognize_to(tenant, request, None).await
    }

    /// The text of the image, told to `listener` while it is read and given whole in the end.
    ///
    /// What is told is what the model writes; the answer may differ from it as it does without listener.
    /// Lines and named values are not told, since they do not come as text. A listener that has gone
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// As [`recognize`](Self::recognize).
    pub async fn recognize_aloud(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        request: Request,
        listener: mpsc::Sender<String>,
    ) -> Result<OcrAnswer, OcrError> {
        self.recognize_to(tenant, request, Some(listener)).await
    }

    async fn recognize_to(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        mut request: Request,
        listener: Option<mpsc::Sender<String>>,
    ) -> Result<OcrAnswer, OcrError> {
        let started = self.clock.instant();
        let mut prepared = prepare::to_send(&self.catalog, tenant, &mut request).await?;
        let mut tally = Tally::default();
        let call = prepared.only_call(&request);
        let asking = Asking { listener, ..Asking::of(call, &request) };
        // From here on the call alone holds the file, and the memory that counts for it.
        request.memory = Arc::new(());
        let completion = self.read(tenant, &prepared.quote, asking, &mut tally).await?;
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
            facts: self.facts(tenant, &prepared, tally, started, request),
        })
    }

    /// Admits one call, makes it on a task of its own, and adds it to the tally.
    async fn read(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        quote: &Quote,
        asking: Asking,
        tally: &mut Tally,
    ) -> Result<Completion, OcrError> {
        let Asking { deadline, ref watch, ref tab, .. } = asking;
        let (presence, _until_left) = Presence::of(watch.clone());
        let admit = |until| self.admission.admit(tenant, quote, until, tab);
        let permit = self.admission.until_left(&presence, deadline, admit).await?;
        let (this, payer, foretold) = (Arc::clone(self), Arc::clone(tenant), quote.clone());
        let work = async move {
            let Asking { call, places: _places, memory, listener, tab, .. } = asking;
            let is_aloud = listener.is_some();
            let listener = listener.filter(|_| call.task.as_ref().is_none_or(Task::streams));
            let completed = match listener {
                None => this.client.call(permit, &call, deadline).await,
                Some(listener) => {
                    let what = (call, memory);
                    aloud::call(&this.client, permit, what, deadline, listener).await
                }
            };
            if is_aloud {
                // Here and not where the answer is told, since the caller may have left.
                tab.log_stream(payer.name.as_str());
            }
            let completion = completed?;
            this.compare(payer.name.as_str(), &tab, &foretold, &completion);
            Ok::<_, CallError>(completion)
        };
        match self.tasks.spawn(work.in_current_span()).await {
            Ok(Ok(completion)) => {
                tally.add(&completion);
                Ok(completion)
            }
            Ok(Err(failure)) => {
                if let Some(reason) = failure.fault.refusal() {
                    self.metrics.refused(tenant.name.as_str(), reason);
                }
                Err(failure.into())
            }
            Err(_panicked) => Err(OcrError::Interrupted),
        }
    }

    fn facts(
        &self,
        tenant: &Tenant,
        prepared: &Prepared,
        tally: Tally,
        started: Instant,
        request: Request,
    ) -> Facts {
        let took = self.clock.instant().saturating_duration_since(started);
        Facts {
            usage: Spend::of(&request.tab.ended(), prepared.quote.model.price.currency),
            limits: TenantLimits::of(&prepared.quote, tenant, tally.remaining),
            model: prepared.quote.model.name.clone(),
            document: DocumentFacts::of(prepared),
            upstream: UpstreamFacts { request_ids: tally.request_ids, endpoint: tally.endpoint },
            timing_ms: Timing::of(took, tally.upstream_time),
            metadata: request.options.metadata,
        }
    }

    /// Counts what the cap saved, and an image that was billed otherwise than quoted.
    fn compare(&self, tenant: &str, tab: &Tab, quote: &Quote, completion: &Completion) {
        let saved = quote.image.saved();
        if saved > Tokens::ZERO {
            tab.saved(saved);
            self.metrics.tokens_saved(tenant, Saving::MaxPixels, saved);
        }
        let (estimated, billed) = (quote.image.tokens, completion.receipt.settlement.usage.image);
        if quote.image.foretold(billed) || !completion.receipt.verified {
            return;
        }
        self.metrics.estimate_mismatch(&quote.model.name);
        tracing::warn!(
            tenant,
            model = quote.model.name,
            image.width = quote.image.size.width,
            image.height = quote.image.size.height,
            image.min_pixels = quote.image.geometry.min_pixels.get(),
            image.max_pixels = quote.image.geometry.max_pixels.get(),
            estimated.tokens = estimated.get(),
            billed.tokens = billed.get(),
            upstream.request_id = completion.receipt.request_id.as_ref().map(Code::as_str),
            "image tokens were billed otherwise than estimated"
        );
    }
}

/// Whether lines were asked for and text came instead: it would read like a blank page.
fn lacks_lines(request: &Request, completion: &Completion) -> bool {
    request.options.detail == Detail::Lines
        && completion.words.is_none()
        && !completion.text.trim().is_empty()
}

impl Tally {
    fn add(&mut self, completion: &Completion) {
        let receipt = &completion.receipt;
        self.remaining = receipt.settlement.remaining;
        self.endpoint.clone_from(&receipt.endpoint);
        self.upstream_time += receipt.upstream_time;
        self.request_ids.extend(receipt.request_id.as_ref().map(ToString::to_string));
    }
}
