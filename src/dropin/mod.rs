//! The drop-in paths: a request in the provider's own words, admitted, bounded and metered.
//!
//! What comes in goes out but for the changes that `plan` makes, and what comes back goes back byte for
//! byte. The steps are those of `ocr`: look, quote, and one call of `metering`. A body is read where it stands
//! (`outline`), never made into a tree, so that ten megabytes of picture stay the bytes that they were
//! received as.
//!
//! A stream's task outlives its caller: it reads on to learn the bill.

mod added_prompt;
mod asked;
mod compatible;
mod edits;
pub mod error;
pub mod member;
mod member_table;
mod native;
pub mod outline;
mod picture;
mod plan;
pub mod request;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use self::error::DropinError;
use self::plan::Plan;
use self::request::DropinRequest;
use crate::admission::tab::Tab;
use crate::auth::tenant::Tenant;
use crate::capacity::account::ByteAccount;
use crate::catalog::Catalog;
use crate::dashscope::error::CallError;
use crate::dashscope::stream::{Break, Piece, Streaming};
use crate::dashscope::{Client, Forward, Forwarded};
use crate::metering::access;
use crate::metering::error::MeteringError;
use crate::metering::read_on::{Listener, WAITING_MESSAGES};
use crate::metering::run::{Meter, Metering};
use crate::telemetry::metrics::Metrics;
use crate::units::Pixels;

/// Looking at a body that is longer may take longer than the reactor may be held: some thousand values in
/// as many bytes are a tenth of a millisecond.
const INLINE_BYTES: usize = 16 * 1024;

/// Large bodies that are looked at at the same time. More at once than there are cores are done no sooner.
const LOOKED_AT_ONCE: usize = 4;

/// Passes requests on: the use case behind the drop-in paths.
#[derive(Debug)]
pub struct Dropin {
    catalog: Arc<Catalog>,
    metering: Metering,
    client: Arc<Client>,
    metrics: Arc<Metrics>,
    looks: Arc<Semaphore>,
    memory: Arc<ByteAccount>,
}

/// What a request brought.
#[derive(Debug)]
pub enum DropinReply {
    /// A whole answer: JSON.
    Whole {
        /// The body as it came.
        body: Bytes,
        /// The largest `max_pixels` that was sent.
        max_pixels: Pixels,
    },
    /// A stream of events.
    Stream(mpsc::Receiver<DropinChunk>),
}

/// A piece of a stream on its way to the caller.
#[derive(Debug)]
pub enum DropinChunk {
    /// Whole events as they came.
    Bytes(Bytes),
    /// The stream broke off, between two events: there is no more, and that was not its end.
    Broken(Box<CallError>),
    /// The stream is over. Without this it is not, whatever became of the sender.
    End,
}

impl Dropin {
    /// The use case over these parts; `memory` counts what a look takes.
    pub fn new(
        catalog: Arc<Catalog>,
        metering: Metering,
        client: Arc<Client>,
        metrics: Arc<Metrics>,
        memory: Arc<ByteAccount>,
    ) -> Self {
        let looks = Arc::new(Semaphore::new(LOOKED_AT_ONCE));
        Self { catalog, metering, client, metrics, looks, memory }
    }

    /// Passes a request on.
    ///
    /// # Errors
    ///
    /// [`DropinError`]. Once a stream has begun, what happens to it is told in its [`DropinChunk`]s.
    pub async fn send(
        self: &Arc<Self>,
        request: DropinRequest,
    ) -> Result<DropinReply, DropinError> {
        let mut context = request.context.clone();
        let planned = self.plan(request).await;
        let (plan, forward) = planned.inspect_err(|error| {
            if matches!(error, DropinError::NoRoom(_)) {
                self.metrics.refused(context.tenant.name.as_str(), "overloaded");
            }
        })?;
        let Plan { forecast, max_pixels, hides_bill } = plan;
        let (client, metering) = (Arc::clone(&self.client), self.metering.clone());
        let (deadline, memory) = (context.deadline, context.held.memory.take());
        let work = move |permit, meter: Meter| async move {
            let forwarded = client.forward(permit, &forward, deadline).await;
            // A stream may go on for minutes, and needs its request no more.
            drop((forward, memory));
            match forwarded? {
                Forwarded::Whole { body, receipt } => {
                    meter.compare(&receipt);
                    Ok(DropinReply::Whole { body, max_pixels })
                }
                Forwarded::Stream(stream) => {
                    let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
                    metering.spawn(pass_on(stream, hides_bill, meter, Listener::new(sender)));
                    Ok(DropinReply::Stream(receiver))
                }
            }
        };
        Ok(self.metering.run(&context, forecast, work).await?)
    }

    /// Leave to put a file for `model` into the provider's temporary storage: the provider's own answer.
    ///
    /// # Errors
    ///
    /// [`DropinError`], also where the tenant may not use the model.
    pub async fn upload_policy(
        &self,
        tenant: &Tenant,
        model: Option<String>,
        deadline: Instant,
        tab: &Tab,
    ) -> Result<Bytes, DropinError> {
        let model = access::model_for(&self.catalog, tenant, model.as_deref())?;
        let policy = self.client.upload_policy(&model, tenant.name.as_str(), deadline, tab).await;
        Ok(policy.map_err(MeteringError::from)?)
    }

    /// Plans a request, away from the reactor where it is large.
    async fn plan(
        self: &Arc<Self>,
        request: DropinRequest,
    ) -> Result<(Plan, Forward), DropinError> {
        let unknown = self.client.unknown_members();
        if request.body.len() <= INLINE_BYTES {
            return plan::plan(&self.catalog, &request, unknown, &self.memory);
        }
        let this = Arc::clone(self);
        // Nothing closes the semaphore. The look is given back by the thread, since that goes on where the
        // caller leaves.
        let look = Arc::clone(&self.looks).acquire_owned().await;
        let planning = tokio::task::spawn_blocking(move || {
            let plan = plan::plan(&this.catalog, &request, unknown, &this.memory);
            drop(look);
            plan
        });
        planning.await.map_err(|_panicked| MeteringError::Interrupted)?
    }
}

/// Passes a stream on, and goes on where the caller does not.
async fn pass_on(
    mut stream: Box<Streaming>,
    hides_bill: bool,
    meter: Meter,
    mut listener: Listener<DropinChunk>,
) {
    let chunk = |piece: Piece| {
        let bytes = if hides_bill { piece.without_bill() } else { piece.bytes() };
        (!bytes.is_empty()).then_some(DropinChunk::Bytes(bytes))
    };
    listener.read_on(&mut stream, chunk).await;
    let last = match stream.end().await {
        Ok((_, receipt)) => {
            meter.compare(&receipt);
            DropinChunk::End
        }
        Err(Break { told: true, .. }) => DropinChunk::End,
        Err(Break { error, .. }) => DropinChunk::Broken(Box::new(error)),
    };
    meter.log_stream();
    listener.tell(last).await;
}
