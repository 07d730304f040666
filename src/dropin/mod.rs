//! The drop-in paths: a request in one of the vendor's protocols, bounded and metered.
//!
//! The body is sent unchanged, except for the changes of `plan`, and the reply is returned byte for byte. The steps are
//! those of `ocr`: read, quote, and one call of `metering`. `outline` reads the body in place. No tree is built from
//! it, so ten megabytes of picture are not copied.
//!
//! The task of a stream outlives its caller: it reads on to the end, where the bill is.

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
use crate::dashscope::{Client, DropinAnswer, DropinCall};
use crate::metering::access;
use crate::metering::error::MeteringError;
use crate::metering::read_on::{Listener, WAITING_MESSAGES};
use crate::metering::run::{Meter, Metering};
use crate::telemetry::metrics::Metrics;
use crate::units::Pixels;

/// Longest body that is planned on the reactor, in bytes. Some thousand values in as many bytes take a tenth of a
/// millisecond.
const INLINE_BYTES: usize = 16 * 1024;

/// Large bodies that are planned at once. More than the number of cores would not finish sooner.
const PLANNED_AT_ONCE: usize = 4;

/// The use case of the drop-in paths.
#[derive(Debug)]
pub struct Dropin {
    catalog: Arc<Catalog>,
    metering: Metering,
    client: Arc<Client>,
    metrics: Arc<Metrics>,
    planning: Arc<Semaphore>,
    memory: Arc<ByteAccount>,
}

/// The reply to a drop-in request.
#[derive(Debug)]
pub enum DropinReply {
    /// A whole answer, as JSON.
    Whole {
        /// The body as the upstream sent it.
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
    /// Whole events as the upstream sent them.
    Bytes(Bytes),
    /// The stream broke off between two events. Nothing follows.
    Broken(Box<CallError>),
    /// The stream has ended. If the sender is dropped without this message, the stream broke off.
    End,
}

impl Dropin {
    /// Builds the use case from these parts. `memory` counts the memory that planning takes.
    pub fn new(
        catalog: Arc<Catalog>,
        metering: Metering,
        client: Arc<Client>,
        metrics: Arc<Metrics>,
        memory: Arc<ByteAccount>,
    ) -> Self {
        let planning = Arc::new(Semaphore::new(PLANNED_AT_ONCE));
        Self { catalog, metering, client, metrics, planning, memory }
    }

    /// Sends a request and returns the reply.
    ///
    /// # Errors
    ///
    /// [`DropinError`]. Once a stream has begun, its [`DropinChunk`]s report an error.
    pub async fn send(
        self: &Arc<Self>,
        request: DropinRequest,
    ) -> Result<DropinReply, DropinError> {
        let mut context = request.context.clone();
        let planned = self.plan(request).await;
        let (plan, call) = planned.inspect_err(|error| {
            if matches!(error, DropinError::NoRoom(_)) {
                self.metrics.refused(context.tenant.name.as_str(), "overloaded");
            }
        })?;
        let Plan { forecast, max_pixels, hides_bill } = plan;
        let (client, metering) = (Arc::clone(&self.client), self.metering.clone());
        let (deadline, memory) = (context.deadline, context.held.memory.take());
        let work = move |permit, meter: Meter| async move {
            let answer = client.send_dropin(permit, &call, deadline).await;
            // A stream may take minutes and no longer needs the request.
            drop((call, memory));
            match answer? {
                DropinAnswer::Whole { body, receipt } => {
                    meter.compare(&receipt);
                    Ok(DropinReply::Whole { body, max_pixels })
                }
                DropinAnswer::Stream(stream) => {
                    let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
                    metering.spawn(pass_on(stream, hides_bill, meter, Listener::new(sender)));
                    Ok(DropinReply::Stream(receiver))
                }
            }
        };
        Ok(self.metering.run(&context, forecast, work).await?)
    }

    /// Requests permission to upload a file for `model` to the vendor's temporary storage, and returns the vendor's
    /// answer.
    ///
    /// # Errors
    ///
    /// [`DropinError`], also if the tenant may not use the model.
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

    /// Plans a request, on the blocking pool if it is large.
    async fn plan(
        self: &Arc<Self>,
        request: DropinRequest,
    ) -> Result<(Plan, DropinCall), DropinError> {
        let unknown = self.client.unknown_members();
        if request.body.len() <= INLINE_BYTES {
            return plan::plan(&self.catalog, &request, unknown, &self.memory);
        }
        let this = Arc::clone(self);
        // The semaphore is never closed. The thread returns the permit, because it continues after the caller has left.
        let permit = Arc::clone(&self.planning).acquire_owned().await;
        let planning = tokio::task::spawn_blocking(move || {
            let plan = plan::plan(&this.catalog, &request, unknown, &this.memory);
            drop(permit);
            plan
        });
        planning.await.map_err(|_panicked| MeteringError::Interrupted)?
    }
}

/// Passes a stream on to `listener` and reads it to its end, even after the caller has left.
async fn pass_on(
    mut stream: Box<Streaming>,
    hides_bill: bool,
    meter: Meter,
    mut listener: Listener<DropinChunk>,
) {
    let log = meter.stream_log();
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
    drop(log);
    listener.tell(last).await;
}
