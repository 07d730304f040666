//! The client that the use cases call.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::call::dispatch::Dispatcher;
use super::call::reply::{DropinAnswer, Streamed};
use super::call::upload_policy::upload_policy;
use super::completion::Completion;
use super::fault::error::CallError;
use super::protocol::{Call, DropinCall};
use super::settings::{UnknownMembers, UpstreamSettings};
use super::wire::check::CheckError;
use super::wire::memory::AnswerRoom;
use super::wire::request::UpstreamRequest;
use super::wire::transport::ClientError;
use crate::admission::Permit;
use crate::admission::tab::Tab;
use crate::capacity::account::{ByteAccount, NoRoom};
use crate::catalog::Model;
use crate::clock::Clock;
use crate::random::Random;
use crate::redis::cells::SharedCells;
use crate::telemetry::metrics::Metrics;
use crate::units::Tokens;

/// A client of DashScope's endpoints. Clones share queues and connections.
#[derive(Debug, Clone)]
pub struct Client {
    dispatcher: Arc<Dispatcher>,
    clock: Arc<dyn Clock>,
    unknown_members: UnknownMembers,
}

impl Client {
    /// A client of the endpoints in `settings`, which must hold their keys. Replicas that use one `shared` store share
    /// the accounts' rates. Long answers are counted in `memory`.
    ///
    /// # Errors
    ///
    /// [`ClientError`] names the invalid setting.
    pub fn new(
        settings: &UpstreamSettings,
        shared: Option<Arc<dyn SharedCells>>,
        memory: Arc<ByteAccount>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ClientError> {
        if settings.unknown_members == UnknownMembers::Pass {
            tracing::warn!(
                "upstream.unknown_members is \"pass\": what an unknown member of a drop-in request costs \
                 is in no bound, so a budget may be overspent by it"
            );
        }
        let own = Arc::clone(&clock);
        let dispatcher = Dispatcher::new(settings, shared, memory, metrics, own, random)?;
        let unknown_members = settings.unknown_members;
        Ok(Self { dispatcher: Arc::new(dispatcher), clock, unknown_members })
    }

    /// The handling of unknown members of a drop-in request.
    pub const fn unknown_members(&self) -> UnknownMembers {
        self.unknown_members
    }

    /// Takes room for an answer of at most `written` tokens, for a call that is made later.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if it does not fit.
    pub(crate) async fn room_for(&self, written: Tokens) -> Result<Arc<AnswerRoom>, NoRoom> {
        self.dispatcher.room_for(written).await
    }

    /// Makes the call, and repeats it where that is safe, until `deadline` by the client's clock.
    ///
    /// Dropping the future after the request was sent writes the permit off.
    ///
    /// # Errors
    ///
    /// [`CallError`] says why there is no completion.
    pub async fn call(
        &self,
        permit: Permit,
        call: &Call,
        deadline: Instant,
    ) -> Result<Completion, CallError> {
        self.call_in(None, permit, call, deadline).await
    }

    /// As [`call`](Self::call), with room for the answer that was taken before, if any.
    pub(crate) async fn call_in(
        &self,
        room: Option<Arc<AnswerRoom>>,
        permit: Permit,
        call: &Call,
        deadline: Instant,
    ) -> Result<Completion, CallError> {
        let request = UpstreamRequest::new(call, &permit.model().name, permit.bound().output);
        let request = UpstreamRequest { room, ..request };
        self.dispatcher.call(permit, &request, deadline).await?.completion().await
    }

    /// Makes the call for a streamed answer. `deadline` limits the time until the answer begins; from then on
    /// `upstream.stream_timeout_ms` does.
    ///
    /// # Errors
    ///
    /// [`CallError`] gives the reason why no answer began.
    pub async fn stream(
        &self,
        permit: Permit,
        call: &Call,
        deadline: Instant,
    ) -> Result<Streamed, CallError> {
        self.stream_in(None, permit, call, deadline).await
    }

    /// As [`stream`](Self::stream), with room for the answer that was taken before, if any.
    pub(crate) async fn stream_in(
        &self,
        room: Option<Arc<AnswerRoom>>,
        permit: Permit,
        call: &Call,
        deadline: Instant,
    ) -> Result<Streamed, CallError> {
        let request = UpstreamRequest::streamed(call, &permit.model().name, permit.bound().output);
        let request = UpstreamRequest { room, ..request };
        self.dispatcher.call(permit, &request, deadline).await?.streamed().await
    }

    /// Sends a request that a caller wrote, and returns the reply byte for byte.
    ///
    /// # Errors
    ///
    /// [`CallError`], with the upstream's own error body if it objects to the request itself.
    pub async fn send_dropin(
        &self,
        permit: Permit,
        call: &DropinCall,
        deadline: Instant,
    ) -> Result<DropinAnswer, CallError> {
        let request = UpstreamRequest::dropin(call);
        self.dispatcher.call(permit, &request, deadline).await?.dropin().await
    }

    /// Requests a policy for the upload of a file of `tenant` for `model` to the provider's temporary storage. This
    /// spends nothing.
    ///
    /// # Errors
    ///
    /// [`CallError`] gives the reason why there is none.
    pub async fn upload_policy(
        &self,
        model: &Model,
        tenant: &str,
        deadline: Instant,
        tab: &Tab,
    ) -> Result<Bytes, CallError> {
        let pool = self.dispatcher.pool();
        upload_policy(pool, self.clock.as_ref(), (model, tenant), deadline, tab).await
    }

    /// How each endpoint is reached, by its name: `without a proxy`, or through which one.
    pub fn ways(&self) -> Vec<(String, String)> {
        let endpoints = self.dispatcher.pool().endpoints().iter();
        endpoints
            .map(|endpoint| (endpoint.name().to_owned(), endpoint.transport().way().to_string()))
            .collect()
    }

    /// Requests the list of models from every endpoint, which spends nothing, to check that the address answers and
    /// accepts the key. Returns the result by the endpoint's name. [`CheckError`] says what an operator must correct.
    pub async fn check(&self) -> Vec<(String, Result<(), CheckError>)> {
        let mut found = Vec::new();
        for endpoint in self.dispatcher.pool().endpoints() {
            found.push((endpoint.name().to_owned(), endpoint.check().await));
        }
        found
    }
}
