//! Runs one metered call: admits it, makes it on a task of its own, and compares the bill with the forecast.
//!
//! A caller that leaves, or a service that stops, does not interrupt a call between sending it and posting its bill. A
//! call that still waits when its caller leaves is not sent, apart from the exception in `admission::presence`.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::context::{PageHold, RequestContext, RequestPlaces};
use super::error::MeteringError;
use super::forecast::Forecast;
use crate::admission::presence::Presence;
use crate::admission::tab::Tab;
use crate::admission::{Admission, Permit, Refusal};
use crate::auth::tenant::Tenant;
use crate::catalog::Model;
use crate::dashscope::completion::Receipt;
use crate::dashscope::error::{CallError, Code};
use crate::ledger::budget::RemainingTokens;
use crate::telemetry::metrics::{Metrics, Saving};
use crate::units::Tokens;

/// The label of pages that were answered from the cache.
const CACHE: &str = "cache";

/// Makes the calls of all use cases.
#[derive(Debug, Clone)]
pub struct Metering {
    admission: Admission,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
}

/// An admitted call that is not made yet.
#[derive(Debug)]
pub struct Admitted {
    permit: Permit,
    meter: Meter,
    /// Dropped when the caller leaves: the presence then counts the caller as left.
    left_on_drop: DropGuard,
}

/// An admitted call, to be compared with its forecast once it is answered. Keeps the places of the request and of the
/// page.
#[derive(Debug)]
pub struct Meter {
    metrics: Arc<Metrics>,
    tenant: Arc<Tenant>,
    tab: Tab,
    forecast: Forecast,
    _places: Option<Arc<RequestPlaces>>,
    _page: Option<PageHold>,
}

/// Writes the log line of a request's streams when it is dropped, after the last of their calls. The line of the
/// request was written with its head, before its cost was known, and the caller may have left.
#[derive(Debug)]
pub struct StreamLog {
    tab: Tab,
    tenant: Arc<Tenant>,
}

impl Metering {
    /// `tasks` tracks the spawned calls. On shutdown the service waits for them.
    pub const fn new(admission: Admission, metrics: Arc<Metrics>, tasks: TaskTracker) -> Self {
        Self { admission, metrics, tasks }
    }

    /// Admits one call and makes it by `work`, on a task that outlives the caller.
    ///
    /// `work` receives a permit to spend and a meter. It must call [`Meter::compare`] once the call is answered. `work`
    /// owns the body and the memory that counts for it, and drops both once no attempt needs them any more.
    ///
    /// # Errors
    ///
    /// [`MeteringError::Refused`] if nothing was sent, [`MeteringError::Upstream`] for the error of `work`,
    /// [`MeteringError::Interrupted`] if `work` panicked. In each case the request's tab has the cost so far.
    pub async fn run<A, W>(
        &self,
        context: &RequestContext,
        forecast: Forecast,
        work: impl FnOnce(Permit, Meter) -> W,
    ) -> Result<A, MeteringError>
    where
        A: Send + 'static,
        W: Future<Output = Result<A, CallError>> + Send + 'static,
    {
        let admitted = self.admit(context, forecast).await;
        self.make(admitted.inspect_err(|refusal| self.refused(context, refusal.label()))?, work)
            .await
    }

    /// Admits one call. A refusal is not counted, because the call may be admitted later: see
    /// [`refused`](Self::refused).
    ///
    /// # Errors
    ///
    /// [`Refusal`] if a limit or a budget of the tenant has no room for the call.
    pub async fn admit(
        &self,
        context: &RequestContext,
        forecast: Forecast,
    ) -> Result<Admitted, Refusal> {
        let RequestContext { tenant, deadline, tab, .. } = context;
        let (presence, left_on_drop) = Presence::of(context.watch.clone());
        let (model, bound) = (&forecast.model, forecast.bound);
        let admit = |until| self.admission.admit_bound(tenant, model, bound, until, tab);
        let permit = self.admission.until_left(&presence, *deadline, admit).await?;
        let meter = Meter {
            metrics: Arc::clone(&self.metrics),
            tenant: Arc::clone(tenant),
            tab: tab.clone(),
            forecast,
            _places: context.held.places.clone(),
            _page: context.held.page.clone(),
        };
        Ok(Admitted { permit, meter, left_on_drop })
    }

    /// Counts a call that was not made, by the reason.
    pub fn refused(&self, context: &RequestContext, reason: &'static str) {
        self.metrics.refused(context.tenant.name.as_str(), reason);
    }

    /// Makes an admitted call by `work`, as [`run`](Self::run) does.
    ///
    /// # Errors
    ///
    /// [`MeteringError::Upstream`] and [`MeteringError::Interrupted`] as [`run`](Self::run).
    pub async fn make<A, W>(
        &self,
        admitted: Admitted,
        work: impl FnOnce(Permit, Meter) -> W,
    ) -> Result<A, MeteringError>
    where
        A: Send + 'static,
        W: Future<Output = Result<A, CallError>> + Send + 'static,
    {
        // This future drops the guard when it ends or is cancelled.
        let Admitted { permit, meter, left_on_drop: _left_on_drop } = admitted;
        let (metrics, tenant) = (Arc::clone(&self.metrics), Arc::clone(&meter.tenant));
        let call = work(permit, meter);
        let counted = async move {
            call.await.inspect_err(|error| {
                if let Some(reason) = error.fault.refusal() {
                    metrics.refused(tenant.name.as_str(), reason);
                }
            })
        };
        Ok(self.spawn(counted).await.map_err(|_panicked| MeteringError::Interrupted)??)
    }

    /// Counts tokens that a request did not spend because no call was needed.
    pub fn spared(&self, context: &RequestContext, reason: Saving, tokens: Tokens) {
        context.tab.saved(tokens);
        self.metrics.tokens_saved(context.tenant.name.as_str(), reason, tokens);
    }

    /// Counts a page that is read again because its answer is in doubt, by the doubt.
    pub fn escalated(&self, context: &RequestContext, reason: &'static str) {
        self.metrics.escalation(context.tenant.name.as_str(), reason);
    }

    /// Counts a page by how it was answered.
    pub fn answered_page(&self, context: &RequestContext, source: &'static str) {
        self.metrics.page(context.tenant.name.as_str(), source);
    }

    /// Counts a request that is answered as an equal one, with so many pages. `tokens` are the image tokens that the
    /// equal one spent.
    pub fn reused(&self, context: &RequestContext, model: &Model, pages: usize, tokens: Tokens) {
        self.admission.note(&context.tenant, model, &context.tab);
        self.spared(context, Saving::Cache, tokens);
        for _ in 0..pages {
            self.answered_page(context, CACHE);
        }
    }

    /// Counts a request that may be answered from the cache, by how it was.
    pub fn cache_request(&self, context: &RequestContext, outcome: &'static str) {
        self.metrics.cache_request(context.tenant.name.as_str(), outcome);
    }

    /// The tokens that remain of a tenant's budgets.
    ///
    /// # Errors
    ///
    /// [`MeteringError::Refused`] if the ledger cannot be read.
    pub async fn remaining(&self, tenant: &Tenant) -> Result<RemainingTokens, MeteringError> {
        Ok(self.admission.remaining(tenant).await?)
    }

    /// Spawns a task in the current span. On shutdown the service waits for it.
    pub fn spawn<A: Send + 'static>(
        &self,
        work: impl Future<Output = A> + Send + 'static,
    ) -> JoinHandle<A> {
        self.tasks.spawn(work.in_current_span())
    }
}

impl StreamLog {
    /// The log line of the streams of this request.
    pub fn of(context: &RequestContext) -> Self {
        Self { tab: context.tab.clone(), tenant: Arc::clone(&context.tenant) }
    }
}

impl Drop for StreamLog {
    fn drop(&mut self) {
        self.tab.log_stream(self.tenant.name.as_str());
    }
}

impl Meter {
    /// Counts the tokens that the cap and the choice of pixels saved, and a mismatch between billed and forecast image
    /// tokens. Must be called once for each answered call.
    pub fn compare(&self, receipt: &Receipt) {
        let Forecast { ref model, saved, saved_by_choice, ref images, .. } = self.forecast;
        let tenant = self.tenant.name.as_str();
        for (reason, saved) in [(Saving::MaxPixels, saved), (Saving::Auto, saved_by_choice)] {
            if saved > Tokens::ZERO {
                self.tab.saved(saved);
                self.metrics.tokens_saved(tenant, reason, saved);
            }
        }
        let billed = receipt.settlement.usage.image;
        if !receipt.verified || images.matches(billed) {
            return;
        }
        self.metrics.estimate_mismatch(&model.name);
        let image = images.only();
        tracing::warn!(
            tenant,
            model = model.name,
            image.width = image.map(|image| image.size.width),
            image.height = image.map(|image| image.size.height),
            image.min_pixels = image.map(|image| image.geometry.min_pixels.get()),
            image.max_pixels = image.map(|image| image.geometry.max_pixels.get()),
            estimated.tokens = images.tokens().map(Tokens::get),
            billed.tokens = billed.get(),
            upstream.request_id = receipt.request_id.as_ref().map(Code::as_str),
            "image tokens were billed otherwise than estimated"
        );
    }

    /// The log line of this call's stream, to be dropped when the stream has ended.
    pub fn stream_log(&self) -> StreamLog {
        StreamLog { tab: self.tab.clone(), tenant: Arc::clone(&self.tenant) }
    }
}
