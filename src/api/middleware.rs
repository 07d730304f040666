//! The middleware of all requests: request id, span, time limit, log line, metrics and the serialisation of errors.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::SetOnce;
use tracing::{Instrument, Span};

use super::dialect::Dialect;
use super::hangup::HalfClose;
use super::host;
use super::problem::Problem;
use crate::admission::tab::Tab;
use crate::auth::authenticator::Principal;
use crate::auth::tenant::Tenant;
use crate::capacity::places::Visit;
use crate::clock::Clock;
use crate::code::ErrorCode;
use crate::gateway::Gateway;
use crate::image::Size;
use crate::metering::spend::Spend;
use crate::random::new_id;
use crate::telemetry::metrics::{Metrics, NO_TENANT};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is accepted from a caller, in characters.
const REQUEST_ID_LENGTH: usize = 128;

/// The status in the log if the caller closed its connection before the answer (nginx's convention).
const CALLER_LEFT: u16 = 499;

/// The time from a request's deadline until the middleware cancels it. The layers below check the deadline themselves
/// and give more precise errors.
const GRACE: Duration = Duration::from_secs(5);

/// A route's values for the log line and the metrics. A response extension.
#[derive(Debug, Clone, Default)]
pub(super) struct Served {
    /// The image's size.
    pub(super) image: Option<Size>,
    /// The number of pages in the answer.
    pub(super) pages: usize,
    /// The number of pages that failed.
    pub(super) pages_failed: usize,
    /// The file's size in bytes.
    pub(super) upload_bytes: Option<usize>,
    /// How the result cache answered.
    pub(super) cache: Option<&'static str>,
}

/// The id of a request, for errors that are written before the middleware sees the response. A request extension.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    /// The id of this request.
    pub(super) fn of(request: &Request) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| Self("".into()))
    }

    /// Its text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The caller of a request, empty until the caller is authenticated. It is a request extension, so that the log also
/// has the tenant of a request that is refused or abandoned.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller {
    tenant: Arc<SetOnce<Arc<Tenant>>>,
    /// The connection that brought the request; none in tests without one.
    visit: Option<Visit>,
    tab: Tab,
}

impl Caller {
    /// A caller that is not authenticated yet.
    fn of_connection(request: &Request, tab: Tab) -> Self {
        Self { tenant: Arc::default(), visit: request.extensions().get().cloned(), tab }
    }

    /// The caller of this request.
    pub(super) fn of(request: &Request) -> Self {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Stores the tenant, and the key that the calls of the request are booked under.
    pub(super) fn is(&self, caller: &Principal) {
        if let Some(visit) = &self.visit {
            visit.is_known();
        }
        self.tab.opened_with(caller.key.as_str());
        // A request is authenticated once, so the cell is empty.
        let _ = self.tenant.set(Arc::clone(&caller.tenant));
    }

    /// Ready once the tenant is known.
    async fn known(&self) {
        self.tenant.wait().await;
    }

    /// The label of metrics and log lines.
    fn label(&self) -> &str {
        self.tenant.get().map_or(NO_TENANT, |tenant| tenant.name.as_str())
    }
}

/// Assigns the request id, checks the host, enforces the time limit, serialises errors and records the outcome.
pub(super) async fn observe(
    State(gateway): State<Arc<Gateway>>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let request_id = request_id(request.headers()).unwrap_or_else(|| {
        let id = new_id(&*gateway.clock, &*gateway.random).to_string();
        // A UUID is printable ASCII.
        HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    });
    let id = request_id.to_str().unwrap_or_default().to_owned();
    let instance = request.uri().path().to_owned();
    let route = path.map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", request_id = id);
    request.extensions_mut().insert(RequestId(id.as_str().into()));
    let tab = Tab::default();
    request.extensions_mut().insert(tab.clone());
    let caller = Caller::of_connection(&request, tab.clone());
    let half_close = HalfClose::of(&request);
    request.extensions_mut().insert(caller.clone());

    let mut recorder = OutcomeRecorder::start(&gateway, route, caller, span.clone());
    let work = async {
        match host::check(&request) {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    let work = work.instrument(span.clone());
    let answered = recorder.over(work, &half_close);
    let response = match tokio::time::timeout(gateway.bounds.request + GRACE, answered).await {
        Ok(response) => response,
        Err(_late) => deadline_exceeded().into_response(),
    };
    let mut response = written_out(response, &tab, &id, &instance);
    recorder.finish(&response);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if gateway.is_draining() {
        // Without this, the next request on this connection would reach a replica that is about to stop.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to a panic, without any detail.
pub(super) fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal().into_response()
}

/// The answer to a request that outlived its deadline.
pub(super) fn deadline_exceeded() -> Problem {
    Problem::new(
        ErrorCode::DeadlineExceeded,
        "The request was not answered in time. A larger `Prefer: wait` or a smaller image helps.",
    )
    .retryable()
}

/// The caller's id of the request, if it is at most 128 printable ASCII characters.
pub(super) fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let printable = id.as_bytes().iter().all(|byte| (0x20..0x7f).contains(byte));
    (printable && (1..=REQUEST_ID_LENGTH).contains(&id.len())).then(|| id.clone())
}

/// Serialises the problem in the response's extensions, or an error of axum. An upstream answer that is passed on
/// unchanged also has its problem in the extensions.
fn written_out(mut response: Response, tab: &Tab, request_id: &str, instance: &str) -> Response {
    let dialect = Dialect::of(instance);
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let problem = problem.charged(tab);
        let served = response.extensions_mut().remove::<Served>().unwrap_or_default();
        let mut written = dialect.response(&problem, request_id, instance);
        // The router sets `Allow` on a 405.
        if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
            written.headers_mut().insert(header::ALLOW, allow);
        }
        written.extensions_mut().insert(served);
        written.extensions_mut().insert(problem);
        return written;
    }
    if response.status().is_client_error() || response.status().is_server_error() {
        let status = response.status();
        let code =
            if status.is_client_error() { ErrorCode::BadRequest } else { ErrorCode::Internal };
        let detail = status.canonical_reason().unwrap_or("Error");
        let problem = Problem { status, ..Problem::new(code, detail) };
        return dialect.response(&problem, request_id, instance);
    }
    response
}

/// Records the outcome of one request. The caller counts as left if this is dropped before the answer, or if the
/// caller closes its side of the connection.
struct OutcomeRecorder {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    route: String,
    caller: Caller,
    span: Span,
    started: Instant,
    /// Whether the request is in the metrics already.
    counted: bool,
}

impl OutcomeRecorder {
    fn start(gateway: &Gateway, route: String, caller: Caller, span: Span) -> Self {
        Self {
            metrics: Arc::clone(&gateway.metrics),
            clock: Arc::clone(&gateway.clock),
            route,
            caller,
            span,
            started: gateway.clock.instant(),
            counted: false,
        }
    }

    /// Waits for the answer of `work`. If the caller closes its side, it counts as left once its tenant is known.
    /// Otherwise a client that closes its side right after its request would be recorded without a tenant.
    async fn over(
        &mut self,
        work: impl Future<Output = Response>,
        half_close: &HalfClose,
    ) -> Response {
        tokio::pin!(work);
        let caller = self.caller.clone();
        let leaving = async {
            half_close.noted().await;
            caller.known().await;
        };
        tokio::select! {
            biased;
            response = &mut work => return response,
            () = leaving => self.left(),
        }
        work.await
    }

    fn finish(mut self, response: &Response) {
        let span = self.span.clone();
        let _inside = span.enter();
        let served = response.extensions().get::<Served>().cloned().unwrap_or_default();
        let problem = response.extensions().get::<Problem>();
        let status = response.status().as_u16();
        let took = self.record(status);
        if is_quiet(&self.route) && problem.is_none() {
            return;
        }
        let (spend, names) = (self.spend(problem), self.caller.tab.names());
        tracing::info!(
            route = self.route,
            status,
            tenant = self.caller.label(),
            key.id = names.key.as_deref(),
            code = problem.map(|problem| problem.code.as_str()),
            model = names.model.as_deref(),
            endpoint = names.endpoint.as_deref(),
            // A u128 would be logged as a string.
            took.ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            upload.bytes = served.upload_bytes,
            cache = served.cache,
            image.width = served.image.map(|image| image.width),
            image.height = served.image.map(|image| image.height),
            pages.answered = (served.pages > 0).then_some(served.pages),
            pages.failed = (served.pages_failed > 0).then_some(served.pages_failed),
            tokens.image = spend.as_ref().map(|spend| spend.image_tokens.get()),
            tokens.input = spend.as_ref().map(|spend| spend.input_tokens.get()),
            tokens.output = spend.as_ref().map(|spend| spend.output_tokens.get()),
            tokens.unverified = spend.as_ref().map(|spend| spend.unverified_tokens.get()),
            cost.amount = spend.as_ref().map(|spend| spend.cost.amount.to_string()),
            cost.unverified = spend.as_ref().map(|spend| spend.unverified_cost.amount.to_string()),
            cost.currency = spend.as_ref().map(|spend| spend.cost.currency.code()),
            upstream.calls = spend.as_ref().map(|spend| spend.upstream_calls),
            upstream.request_id = names.request_ids,
            "request answered"
        );
    }

    /// The cost of the request; none if no call was sent, or if a stream is still open. The end of a stream is logged
    /// separately, with the cost.
    fn spend(&self, problem: Option<&Problem>) -> Option<Spend> {
        if let Some(spend) = problem.and_then(|problem| problem.usage.as_deref()) {
            return Some(spend.clone());
        }
        let tab = &self.caller.tab;
        if tab.is_open() { None } else { Spend::on_calls(&tab.ended()) }
    }

    /// Counts the request, unless it was counted when its caller left.
    fn record(&mut self, status: u16) -> Duration {
        let now = self.clock.instant();
        let took = now.saturating_duration_since(self.started);
        if !self.counted {
            let overhead = took.saturating_sub(self.caller.tab.waited(now).total());
            self.metrics.request(&self.route, status, self.caller.label(), took, overhead);
        }
        self.counted = true;
        took
    }

    /// Records that the caller has probably left.
    fn left(&mut self) {
        self.record(CALLER_LEFT);
        let _inside = self.span.enter();
        let tenant = self.caller.label();
        tracing::info!(route = self.route, status = CALLER_LEFT, tenant, "the caller left");
    }
}

impl Drop for OutcomeRecorder {
    fn drop(&mut self) {
        if !self.counted {
            self.left();
        }
    }
}

/// Whether successful requests of the route are not logged, as probes and scrapes are frequent.
fn is_quiet(route: &str) -> bool {
    matches!(route, "/livez" | "/readyz" | "/metrics")
}
