//! One address with one key: its connection, its breakers, and its load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::gate::{FailureCause, Gate, GateClosing, Passage};
use crate::catalog::Model;
use crate::dashscope::fault::error::{CallFault, Code, OUTCOMES};
use crate::dashscope::fault::health::Health;
use crate::dashscope::fault::verdict::Failure;
use crate::dashscope::pace::controller::RateLimits;
use crate::dashscope::pace::queue::{CallQueue, CallQueues};
use crate::dashscope::settings::{EndpointSettings, UpstreamSettings};
use crate::dashscope::wire::check;
use crate::dashscope::wire::check::CheckError;
use crate::dashscope::wire::transport::Transport;
use crate::telemetry::metrics::{EndpointState, Metrics};

/// One address with one key.
#[derive(Debug)]
pub(crate) struct Endpoint {
    settings: EndpointSettings,
    transport: Transport,
    /// Closed after a single refusal of the key.
    key: Arc<Gate>,
    /// The upstream's code when it last refused the key.
    refusal: Mutex<Option<Code>>,
    /// One gate for each model that was requested here; at most as many as the catalog has.
    models: Mutex<HashMap<String, Arc<Gate>>>,
    failures: u32,
    cool_down: Duration,
    key_cool_down: Duration,
    in_flight: AtomicU64,
    chosen: AtomicU64,
    metrics: Arc<Metrics>,
}

/// The right to make one call to an endpoint. The call counts in the endpoint's load until this is dropped.
#[derive(Debug)]
pub(crate) struct Entrance {
    endpoint: Arc<Endpoint>,
    key: Passage,
    model: Passage,
    model_name: String,
}

impl Endpoint {
    pub(crate) fn new(
        settings: EndpointSettings,
        upstream: &UpstreamSettings,
        transport: Transport,
        metrics: Arc<Metrics>,
    ) -> Self {
        let key_cool_down = upstream.key_cool_down();
        metrics.endpoint_state(&settings.name, "", EndpointState::Closed);
        metrics.expect_endpoint(&settings.name, &OUTCOMES);
        Self {
            transport,
            settings,
            key: Arc::new(Gate::new(1, key_cool_down)),
            refusal: Mutex::default(),
            models: Mutex::default(),
            failures: upstream.breaker_failures,
            cool_down: upstream.cool_down(),
            key_cool_down,
            in_flight: AtomicU64::new(0),
            chosen: AtomicU64::new(0),
            metrics,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(crate) fn region(&self) -> &str {
        &self.settings.region
    }

    pub(crate) const fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Whether it may be asked for `model`, in a region where the model is sold to the tenant.
    pub(crate) fn serves(&self, model: &Model) -> bool {
        model.is_sold_in(self.region()) && self.settings.serves(&model.name)
    }

    /// The queue that calls of `model` wait in.
    pub(crate) fn queue(&self, queues: &CallQueues, model: &Model) -> Arc<CallQueue> {
        let own = self.settings.limits.get(&model.name).copied().unwrap_or_default();
        let (figures, here) = (&model.figures, &self.settings);
        let limits = RateLimits::per_minute(
            own.rpm.or(here.rpm).unwrap_or(figures.rpm),
            own.tpm.or(here.tpm).unwrap_or(figures.tpm),
        );
        queues.queue(self.settings.account(), &model.name, limits)
    }

    /// The least time until `tenant` may use it for `model`; `None` if it may now.
    pub(crate) fn closed_for(&self, model: &str, tenant: &str, now: Instant) -> Option<Duration> {
        let wait = self.key.wait(tenant, now).max(self.gate(model).wait(tenant, now));
        (!wait.is_zero()).then_some(wait)
    }

    /// The fault, if a refused key keeps `tenant` from using it.
    pub(crate) fn key_refused(&self, tenant: &str, now: Instant) -> Option<CallFault> {
        let code = || self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (!self.key.is_open_to(tenant, now)).then(|| CallFault::Account { code: code() })
    }

    /// Lets a call in, if `tenant` may ask the endpoint for `model`.
    pub(crate) fn enter(
        self: &Arc<Self>,
        model: &str,
        tenant: &str,
        now: Instant,
    ) -> Option<Entrance> {
        let key = self.key.enter(tenant, now)?;
        let passage = self.gate(model).enter(tenant, now)?;
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.chosen.fetch_add(1, Ordering::Relaxed);
        Some(Entrance {
            endpoint: Arc::clone(self),
            key,
            model: passage,
            model_name: model.to_owned(),
        })
    }

    /// Its share of the load, relative to the other endpoints.
    pub(crate) const fn weight(&self) -> u32 {
        self.settings.weight
    }

    /// Its calls in flight and all calls so far, each divided by its weight, to compare endpoints.
    pub(crate) fn load(&self) -> (u64, u64) {
        /// Keeps three decimals of the quotients.
        const PARTS: u64 = 1_000;
        let of_weight = |count: &AtomicU64| {
            count.load(Ordering::Relaxed).saturating_mul(PARTS) / u64::from(self.settings.weight)
        };
        (of_weight(&self.in_flight), of_weight(&self.chosen))
    }

    pub(crate) async fn check(&self) -> Result<(), CheckError> {
        check::check(&self.transport).await
    }

    fn gate(&self, model: &str) -> Arc<Gate> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = models.get(model) {
            return Arc::clone(gate);
        }
        let gate = Arc::new(Gate::new(self.failures, self.cool_down));
        models.insert(model.to_owned(), Arc::clone(&gate));
        gate
    }
}

impl Entrance {
    pub(crate) const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Records a success.
    pub(crate) fn succeeded(&mut self) {
        let (key, model) = (self.key.succeeded(), self.model.succeeded());
        self.tell_of_return(key, model);
    }

    /// Records that an answer began: the endpoint accepts the key, and the answer may still break off.
    pub(crate) fn began(&mut self) {
        let (key, model) = (self.key.succeeded(), self.model.began());
        self.tell_of_return(key, model);
    }

    fn tell_of_return(&self, key: bool, model: bool) {
        let (name, model_name) = (self.endpoint.name(), self.model_name.as_str());
        if key {
            tracing::info!(endpoint = name, "the upstream takes the account again");
            self.endpoint.metrics.endpoint_state(name, "", EndpointState::Closed);
        }
        if model {
            tracing::info!(endpoint = name, model = model_name, "the endpoint works again");
            self.endpoint.metrics.endpoint_state(name, model_name, EndpointState::Closed);
        }
    }

    /// Records a failure of any cause. Returns whether it closed the endpoint to all tenants.
    pub(crate) fn failed(&mut self, failure: &Failure, now: Instant) -> bool {
        let (wait, key_cool_down) = (failure.retry_after, self.endpoint.key_cool_down);
        let longest = key_cool_down.max(wait.unwrap_or_default());
        match Health::shown_by(failure) {
            Health::Works => {
                self.succeeded();
                false
            }
            Health::Unknown => {
                self.key.undecided(now);
                self.model.undecided(now);
                false
            }
            Health::Unreachable => {
                let closing = self.model.failed(now, wait, FailureCause::Endpoint);
                self.tell_of_model(closing, &failure.fault)
            }
            Health::Failing => {
                let closing = self.model.failed(now, wait, FailureCause::Either);
                self.tell_of_model(closing, &failure.fault)
            }
            Health::ModelRefused => {
                let closing = self.model.refused(now, longest);
                self.tell_of_model(closing, &failure.fault)
            }
            Health::KeyRefused => {
                let closing = self.key.refused(now, longest);
                self.tell_of_key(closing, &failure.fault)
            }
            Health::Denied => {
                let closing = self.key.failed(now, wait, FailureCause::Either);
                self.tell_of_key(closing, &failure.fault)
            }
        }
    }

    fn tell_of_key(&self, closing: Option<GateClosing>, fault: &CallFault) -> bool {
        *self.endpoint.refusal.lock().unwrap_or_else(PoisonError::into_inner) =
            fault.code().cloned();
        let Some(GateClosing { for_all, anew, is_undisputed }) = closing else { return false };
        let name = self.endpoint.name();
        if for_all || is_undisputed {
            self.endpoint.metrics.endpoint_state(name, "", EndpointState::KeyRefused);
        }
        let upstream_code = fault.code().map(Code::as_str);
        if anew && for_all {
            tracing::error!(
                endpoint = name,
                upstream.code = upstream_code,
                "the upstream refuses the account: check its key, its rights and its bills"
            );
        } else if anew {
            tracing::error!(
                endpoint = name,
                tenant = self.key.tenant(),
                upstream.code = upstream_code,
                "the upstream refuses the account, or what the tenant asks: check the account's rights"
            );
        }
        for_all
    }

    fn tell_of_model(&self, closing: Option<GateClosing>, fault: &CallFault) -> bool {
        let Some(GateClosing { for_all, anew, is_undisputed }) = closing else { return false };
        let (endpoint, model) = (self.endpoint.name(), self.model_name.as_str());
        if for_all || is_undisputed {
            self.endpoint.metrics.endpoint_state(endpoint, model, EndpointState::Open);
        }
        let outcome = fault.label();
        if anew && for_all {
            tracing::warn!(
                endpoint,
                model,
                outcome,
                "the endpoint is not asked for the model until it has cooled down"
            );
        } else if anew {
            tracing::warn!(
                endpoint,
                model,
                outcome,
                tenant = self.model.tenant(),
                "the endpoint is not asked for the model by the tenant, whose calls failed, until it has cooled down"
            );
        }
        for_all
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
