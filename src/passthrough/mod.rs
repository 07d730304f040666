//! The drop-in paths: a request in the provider's own words, admitted, bounded and metered.
//!
//! What comes in goes out but for the changes that `plan` makes, and what comes back goes back byte for
//! byte. The way is that of `ocr`: look, quote, admit, call, compare. A body is read where it stands
//! (`outline`), never made into a tree, so that ten megabytes of picture stay the bytes that they were
//! received as.
//!
//! From the moment a call is admitted it runs on a task of its own. A stream's task outlives its caller:
//! it reads on to learn the bill.

mod asked;
mod compatible;
mod edits;
pub mod error;
pub mod form;
mod members;
mod native;
pub mod outline;
mod picture;
mod plan;
mod prompt;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub use self::error::PassthroughError;
use self::plan::Plan;
use crate::admission::Admission;
use crate::admission::presence::{Presence, Watch};
use crate::admission::tab::Tab;
use crate::auth::tenant::Tenant;
use crate::capacity::account::ByteAccount;
use crate::catalog::Catalog;
use crate::dashscope::completion::Receipt;
use crate::dashscope::error::{CallError, Code};
use crate::dashscope::stream::{Break, Streaming};
use crate::dashscope::{Client, Forward, Forwarded, Protocol};
use crate::ocr::error::OcrError;
use crate::ocr::prepare;
use crate::ocr::request::Held;
use crate::telemetry::metrics::{Metrics, Saving};
use crate::units::{Pixels, Tokens};

/// Looking at a body that is longer may take longer than the reactor may be held: some thousand values in
/// as many bytes are a tenth of a millisecond.
const INLINE_BYTES: usize = 16 * 1024;

/// Large bodies that are looked at at the same time. More at once than there are cores are done no sooner.
const LOOKED_AT_ONCE: usize = 4;

/// How long a caller may leave a piece of a stream waiting. Longer, and the upstream would be kept waiting,
/// or give up, for the sake of a caller who reads too slowly.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pieces of a stream that wait for a slow caller: enough that neither side waits for the other to be
/// woken, few enough that what a slow caller holds is mostly the connections' own buffers.
const WAITING_PIECES: usize = 2;

/// Passes requests on: the use case behind the drop-in paths.
#[derive(Debug)]
pub struct Passthrough {
    catalog: Arc<Catalog>,
    admission: Admission,
    client: Arc<Client>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    looks: Arc<Semaphore>,
    memory: Arc<ByteAccount>,
}

/// A request in the words of one of the provider's protocols.
#[derive(Clone)]
pub struct Request {
    /// The protocol.
    pub protocol: Protocol,
    /// The body as it was received.
    pub body: Bytes,
    /// Whether the request's head asks for a stream; only the native protocol's does.
    pub stream: bool,
    /// Whether a stream that breaks off can be told from one that ends, as since HTTP/1.1 it can.
    pub may_stream: bool,
    /// Whether the provider shall look up addresses of its own temporary storage.
    pub resolves_oss: bool,
    /// When the caller stops waiting for an answer to begin.
    pub deadline: Instant,
    /// What is known of the caller while its calls wait.
    pub watch: Watch,
    /// Places that the work takes up, held until it is done.
    pub places: Held,
    /// Memory that the body takes up, held until it is sent.
    pub memory: Held,
    /// Where the call notes what it costs.
    pub tab: Tab,
}

/// What a request brought.
#[derive(Debug)]
pub enum Reply {
    /// A whole answer: JSON.
    Whole {
        /// The body as it came.
        body: Bytes,
        /// The largest `max_pixels` that was sent.
        max_pixels: Pixels,
    },
    /// A stream of events.
    Stream(mpsc::Receiver<Chunk>),
}

/// A piece of a stream on its way to the caller.
#[derive(Debug)]
pub enum Chunk {
    /// Whole events as they came.
    Bytes(Bytes),
    /// The stream broke off, between two events: there is no more, and that was not its end.
    Broken(Box<CallError>),
    /// The stream is over. Without this it is not, whatever became of the sender.
    End,
}

impl Passthrough {
    /// The use case over these parts; `tasks` is what a stop waits for, `memory` counts what a look takes.
    pub fn new(
        catalog: Arc<Catalog>,
        admission: Admission,
        client: Arc<Client>,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        memory: Arc<ByteAccount>,
    ) -> Self {
        let looks = Arc::new(Semaphore::new(LOOKED_AT_ONCE));
        Self { catalog, admission, client, metrics, tasks, looks, memory }
    }

    /// Passes a request on.
    ///
    /// # Errors
    ///
    /// [`PassthroughError`]. Once a stream has begun, what happens to it is told in its [`Chunk`]s.
    pub async fn forward(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        request: Request,
    ) -> Result<Reply, PassthroughError> {
        let (deadline, places) = (request.deadline, Arc::clone(&request.places));
        let (memory, tab) = (Arc::clone(&request.memory), request.tab.clone());
        let (presence, _until_left) = Presence::of(request.watch.clone());
        let planned = self.plan(tenant, request).await;
        let (plan, forward) = planned.inspect_err(|error| {
            if matches!(error, PassthroughError::NoRoom(_)) {
                self.metrics.refused(tenant.name.as_str(), "overloaded");
            }
        })?;
        let (model, bound) = (&plan.model, plan.bound);
        let admit = |until| self.admission.admit_bound(tenant, model, bound, until, &tab);
        let admitted = self.admission.until_left(&presence, deadline, admit).await;
        let permit = admitted.map_err(OcrError::from)?;
        let (this, tenant) = (Arc::clone(self), Arc::clone(tenant));
        let call = Call { this, tenant, plan, tab, _places: places };
        let work = async move {
            let forwarded = call.this.client.forward(permit, &forward, deadline).await;
            // A stream may go on for minutes, and needs its request no more.
            drop((forward, memory));
            match forwarded {
                Ok(Forwarded::Whole { body, receipt }) => Ok(call.whole(body, &receipt)),
                Ok(Forwarded::Stream(stream)) => Ok(call.begin(stream)),
                Err(error) => Err(call.failed(error)),
            }
        };
        match self.tasks.spawn(work.in_current_span()).await {
            Ok(replied) => replied.map_err(|error| OcrError::from(error).into()),
            Err(_panicked) => Err(OcrError::Interrupted.into()),
        }
    }

    /// Leave to put a file for `model` into the provider's temporary storage: the provider's own answer.
    ///
    /// # Errors
    ///
    /// [`PassthroughError`], also where the tenant may not use the model.
    pub async fn upload_policy(
        &self,
        tenant: &Tenant,
        model: Option<String>,
        deadline: Instant,
        tab: &Tab,
    ) -> Result<Bytes, PassthroughError> {
        let model = prepare::model_for(&self.catalog, tenant, model.as_deref())?;
        let policy = self.client.upload_policy(&model, tenant.name.as_str(), deadline, tab).await;
        policy.map_err(|error| OcrError::from(error).into())
    }

    /// Plans a request, away from the reactor where it is large.
    async fn plan(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        request: Request,
    ) -> Result<(Plan, Forward), PassthroughError> {
        let unknown = self.client.unknown_members();
        if request.body.len() <= INLINE_BYTES {
            return plan::plan(&self.catalog, tenant, &request, unknown, &self.memory);
        }
        let (this, tenant) = (Arc::clone(self), Arc::clone(tenant));
        // Nothing closes the semaphore. The look is given back by the thread, since that goes on where the
        // caller leaves.
        let look = Arc::clone(&self.looks).acquire_owned().await;
        let planning = tokio::task::spawn_blocking(move || {
            let plan = plan::plan(&this.catalog, &tenant, &request, unknown, &this.memory);
            drop(look);
            plan
        });
        planning.await.unwrap_or_else(|_panicked| Err(OcrError::Interrupted.into()))
    }
}

/// A call that was admitted, with all that its end has to be told to.
struct Call {
    this: Arc<Passthrough>,
    tenant: Arc<Tenant>,
    plan: Plan,
    tab: Tab,
    _places: Held,
}

impl Call {
    fn whole(&self, body: Bytes, receipt: &Receipt) -> Reply {
        self.compare(receipt);
        Reply::Whole { body, max_pixels: self.plan.max_pixels }
    }

    /// Passes a stream on, on a task that goes on where the caller does not.
    fn begin(self, stream: Box<Streaming>) -> Reply {
        let (sender, receiver) = mpsc::channel(WAITING_PIECES);
        let tasks = self.this.tasks.clone();
        tasks.spawn(self.pass(stream, sender).in_current_span());
        Reply::Stream(receiver)
    }

    async fn pass(self, mut stream: Box<Streaming>, sender: mpsc::Sender<Chunk>) {
        let mut caller = Some(sender);
        while let Some(piece) = stream.next().await {
            let bytes = if self.plan.hides_bill { piece.without_bill() } else { piece.bytes() };
            if bytes.is_empty() {
                continue;
            }
            let Some(listening) = &caller else { continue };
            let taken = listening.send_timeout(Chunk::Bytes(bytes), PATIENCE).await;
            if taken.is_err() {
                tracing::debug!("the caller left a stream; it is read on for its bill");
                caller = None;
            }
        }
        let last = match stream.end().await {
            Ok((_, receipt)) => {
                self.compare(&receipt);
                Chunk::End
            }
            Err(Break { told: true, .. }) => Chunk::End,
            Err(Break { error, .. }) => Chunk::Broken(Box::new(error)),
        };
        self.tab.log_stream(self.tenant.name.as_str());
        if let Some(listening) = caller {
            // Who has left meanwhile need not be told.
            let _ = listening.send_timeout(last, PATIENCE).await;
        }
    }

    fn failed(&self, error: CallError) -> CallError {
        if let Some(reason) = error.fault.refusal() {
            self.this.metrics.refused(self.tenant.name.as_str(), reason);
        }
        error
    }

    /// Counts what the cap saved, and images that were billed otherwise than quoted.
    fn compare(&self, receipt: &Receipt) {
        let (tenant, metrics) = (self.tenant.name.as_str(), &self.this.metrics);
        if self.plan.saved > Tokens::ZERO {
            self.tab.saved(self.plan.saved);
            metrics.tokens_saved(tenant, Saving::MaxPixels, self.plan.saved);
        }
        let billed = receipt.settlement.usage.image;
        let foretold = self.plan.image_tokens.filter(|foretold| !foretold.contains(&billed));
        let Some([estimated, _]) = foretold else {
            return;
        };
        if receipt.verified {
            metrics.estimate_mismatch(&self.plan.model.name);
            tracing::warn!(
                tenant,
                model = self.plan.model.name,
                estimated.tokens = estimated.get(),
                billed.tokens = billed.get(),
                upstream.request_id = receipt.request_id.as_ref().map(Code::as_str),
                "image tokens were billed otherwise than estimated"
            );
        }
    }
}

/// Leaves the body out.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("protocol", &self.protocol)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}
