//! Leave to spend: the only door between a caller and the upstream.
//!
//! A [`Permit`] can be made by [`Admission`] alone, the DashScope client asks for one, and it must be
//! settled. That nobody spends around the limits is therefore a matter of types and not of review
//! (docs/adr/0001-permit.md).
//!
//! A permit ends in one of three ways, and dropping it picks the safe one:
//! - **settled** at what the upstream billed;
//! - **written off** at its bound, marked unverified, when the call went out and its bill is unknown:
//!   overstating a spend is safe, understating is not;
//! - **released** when nothing was sent or the upstream surely billed nothing.

use std::sync::Arc;

use crate::auth::tenant::Tenant;
use crate::catalog::Model;
use crate::quote::Quote;
use crate::rate_limit::{LimitExceeded, Quotas, RateLimiter};
use crate::telemetry::metrics::Metrics;
use crate::units::{Money, Usage};

/// Decides who may spend, and keeps the account of what was spent.
#[derive(Debug, Clone)]
pub struct Admission {
    limiter: Arc<RateLimiter>,
    metrics: Arc<Metrics>,
}

/// Why a request may not spend now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A limit of the tenant is used up for the moment.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

/// What a settled permit spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// What the upstream billed.
    pub usage: Usage,
    /// What that costs by the price list.
    pub cost: Money,
}

/// Leave to make one billed call of at most `bound`.
#[must_use = "a permit that is dropped gives its tokens back or is written off"]
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
    tenant: Arc<Tenant>,
    model: Arc<Model>,
    bound: Usage,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Admitted,
    Sent,
    Closed,
}

impl Admission {
    /// An admission that draws on `limiter` and reports to `metrics`.
    pub const fn new(limiter: Arc<RateLimiter>, metrics: Arc<Metrics>) -> Self {
        Self { limiter, metrics }
    }

    /// Admits one call of at most the quote's bound.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when the tenant's limit has no room for the bound now; nothing is taken then.
    pub fn admit(&self, tenant: &Arc<Tenant>, quote: &Quote) -> Result<Permit, Refusal> {
        self.permit(tenant, &quote.model, quote.bound)
    }

    fn permit(
        &self,
        tenant: &Arc<Tenant>,
        model: &Arc<Model>,
        bound: Usage,
    ) -> Result<Permit, Refusal> {
        let name = tenant.name.as_str();
        if let Err(exceeded) = self.limiter.take_tokens(name, &quotas(tenant), bound.total()) {
            self.metrics.refused(name, exceeded.limit.as_str());
            return Err(exceeded.into());
        }
        Ok(Permit {
            admission: self.clone(),
            tenant: Arc::clone(tenant),
            model: Arc::clone(model),
            bound,
            state: State::Admitted,
        })
    }
}

impl Permit {
    /// The most that the call may be billed.
    pub const fn bound(&self) -> &Usage {
        &self.bound
    }

    /// The model that may be called.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The tenant that spends.
    pub fn tenant(&self) -> &str {
        self.tenant.name.as_str()
    }

    /// Notes that the call is about to leave: from here on a drop means that its bill is unknown.
    pub const fn mark_sent(&mut self) {
        self.state = State::Sent;
    }

    /// Notes that the call surely was not billed, so that the permit may serve another attempt.
    pub const fn mark_unbilled(&mut self) {
        self.state = State::Admitted;
    }

    /// Settles at what the upstream billed.
    pub fn settle(mut self, billed: Usage) -> Settlement {
        let (tenant, model) = (self.tenant.name.as_str(), self.model.name.as_str());
        let cost = self.model.price.of(&billed);
        let metrics = &self.admission.metrics;
        metrics.tokens_spent(tenant, model, &billed);
        metrics.cost(tenant, model, self.model.price.currency, cost);
        let excess = billed.total().saturating_sub(self.bound.total());
        if excess > crate::units::Tokens::ZERO {
            metrics.tokens_above_bound(tenant, model, excess);
            tracing::error!(
                tenant,
                model,
                bound.tokens = self.bound.total().get(),
                billed.tokens = billed.total().get(),
                "the upstream billed more than the bound: check the model's figures"
            );
        }
        self.give_back_all_but(&billed);
        self.state = State::Closed;
        Settlement { usage: billed, cost }
    }

    /// Settles at the bound, unverified, because the bill of a call that went out is unknown.
    pub fn write_off(mut self) {
        self.close();
    }

    /// Writes this permit off and asks for another of the same bound, for a retry after an attempt
    /// whose bill is unknown: even if both are billed, both are accounted for.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when the tenant's limit has no room for a second bound.
    pub fn renew(mut self) -> Result<Self, Refusal> {
        self.close();
        self.admission.permit(&self.tenant, &self.model, self.bound)
    }

    fn close(&mut self) {
        match self.state {
            State::Admitted => self.give_back_all_but(&Usage::default()),
            State::Sent => {
                let (tenant, model) = (self.tenant.name.as_str(), self.model.name.as_str());
                self.admission.metrics.tokens_unverified(tenant, model, self.bound.total());
            }
            State::Closed => {}
        }
        self.state = State::Closed;
    }

    fn give_back_all_but(&self, billed: &Usage) {
        let (limiter, tenant) = (&self.admission.limiter, self.tenant.name.as_str());
        limiter.settle_tokens(tenant, &quotas(&self.tenant), self.bound.total(), billed.total());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.close();
    }
}

/// The tenant's limits in the limiter's words.
pub const fn quotas(tenant: &Tenant) -> Quotas {
    Quotas {
        requests_per_minute: tenant.requests_per_minute,
        tokens_per_minute: tenant.tokens_per_minute,
        concurrency: tenant.concurrency,
    }
}
