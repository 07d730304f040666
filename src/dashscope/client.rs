//! The client that the use cases call.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::call::dispatch::Dispatcher;
use super::call::reply::{Forwarded, Streamed};
use super::call::upload_policy::upload_policy;
use super::completion::Completion;
use super::fault::error::CallError;
use super::protocol::{Call, Forward};
use super::settings::{UnknownMembers, UpstreamSettings};
use super::wire::check::CheckError;
use super::wire::request::Request;
use super::wire::transport::ClientError;
use crate::admission::Permit;
use crate::admission::tab::Tab;
use crate::capacity::account::ByteAccount;
use crate::catalog::Model;
use crate::clock::Clock;
use crate::random::Random;
use crate::redis::cells::SharedCells;
use crate::telemetry::metrics::Metrics;

/// A client of DashScope's endpoints. Cloning it is cheap and shares its paces and its connections.
#[derive(Debug, Clone)]
pub struct Client {
    dispatcher: Arc<Dispatcher>,
    clock: Arc<dyn Clock>,
    unknown_members: UnknownMembers,
}

impl Client {
    /// A client of the endpoints that `settings` describe, whose keys must be there by now. The replicas
    /// that use one `shared` store share the accounts' rates. Long answers are counted in `memory`.
    ///
    /// # Errors
    ///
    /// [`ClientError`] names the setting that cannot work.
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

    /// What is done with members of a request in a caller's own words that are not known.
    pub const fn unknown_members(&self) -> UnknownMembers {
        self.unknown_members
    }

    /// Makes the call, repeating it where that is safe, until `deadline` by the client's clock.
    ///
    /// Dropping the future after the request went out writes the permit off.
    ///
    /// # Errors
    ///
    /// [`CallError`] says why there is no completion and what was spent nevertheless.
    pub async fn call(
        &self,
        permit: Permit,
        call: &Call,
        deadline: Instant,
    ) -> Result<Completion, CallError> {
        let request = Request::new(call, &permit.model().name, permit.bound().output);
        self.dispatcher.call(permit, &request, deadline).await?.completion().await
    }

    /// Makes the call for an answer that comes while it is written. The deadline holds until it begins;
    /// from then on `upstream.stream_timeout_ms`.
    ///
    /// # Errors
    ///
    /// [`CallError`] says why nothing began.
    pub async fn stream(
        &self,
        permit: Permit,
        call: &Call,
        deadline: Instant,
    ) -> Result<Streamed, CallError> {
        let request = Request::streamed(call, &permit.model().name, permit.bound().output);
        self.dispatcher.call(permit, &request, deadline).await?.streamed().await
    }

    /// Sends what a caller has put into words, and gives back what comes, byte for byte.
    ///
    /// # Errors
    ///
    /// [`CallError`]; where the upstream objects to the request itself, with its own words.
    pub async fn forward(
        &self,
        permit: Permit,
        forward: &Forward,
        deadline: Instant,
    ) -> Result<Forwarded, CallError> {
        let request = Request::forwarded(forward);
        self.dispatcher.call(permit, &request, deadline).await?.forwarded().await
    }

    /// Asks for leave to put a file of `tenant` for `model` into the provider's temporary storage. Spends
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`CallError`] says why there is none.
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

    /// How each endpoint is reached, by its name: `without a proxy`, or by which.
    pub fn ways(&self) -> Vec<(String, String)> {
        let endpoints = self.dispatcher.pool().endpoints().iter();
        endpoints
            .map(|endpoint| (endpoint.name().to_owned(), endpoint.transport().way().to_string()))
            .collect()
    }

    /// Asks every endpoint for its list of models, which spends nothing, to see whether the address
    /// answers and takes the key; gives back what came of it by the endpoint's name.
    /// [`CheckError`] tells an operator what to mend.
    pub async fn check(&self) -> Vec<(String, Result<(), CheckError>)> {
        let mut found = Vec::new();
        for endpoint in self.dispatcher.pool().endpoints() {
            found.push((endpoint.name().to_owned(), endpoint.check().await));
        }
        found
    }
}
