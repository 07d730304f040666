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
use crate::units::{Money, Tokens, Usage};

/// Decides who may spend, and reports what was spent.
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
        if excess > Tokens::ZERO {
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
    pub fn write_off(mut self) -> Settlement {
        self.state = State::Sent;
        self.close();
        Settlement { usage: self.bound, cost: self.model.price.of(&self.bound) }
    }

    /// Gives everything back, because the call was not made or surely not billed.
    pub fn release(mut self) {
        self.state = State::Admitted;
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
                let price = &self.model.price;
                let metrics = &self.admission.metrics;
                metrics.tokens_unverified(tenant, model, self.bound.total());
                metrics.cost_unverified(tenant, model, price.currency, price.of(&self.bound));
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::SystemTime;

    use super::*;
    use crate::clock::ManualClock;
    use crate::telemetry::metrics::MetricsSettings;

    const BOUND: Usage =
        Usage { image: Tokens::new(600), text: Tokens::new(100), output: Tokens::new(300) };

    /// An admission and a tenant of 1,000 tokens a minute, which is one bound.
    fn admission() -> (Admission, Arc<Tenant>) {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
        let metrics = Metrics::new(&MetricsSettings { max_tenants: 10 }).unwrap();
        let admission = Admission::new(Arc::new(RateLimiter::new(clock)), Arc::new(metrics));
        let mut tenant = Tenant::new("acme".parse().unwrap());
        tenant.tokens_per_minute = NonZeroU64::new(1_000);
        (admission, Arc::new(tenant))
    }

    fn admit(admission: &Admission, tenant: &Arc<Tenant>) -> Result<Permit, Refusal> {
        admission.permit(tenant, &Model::sample(), BOUND)
    }

    fn unverified(admission: &Admission) -> bool {
        let metrics = String::from_utf8(admission.metrics.encode().unwrap()).unwrap();
        metrics.contains(r#"tokens_unverified_total{model="sample",tenant="acme"} 1000"#)
    }

    #[test]
    fn a_second_bound_is_refused_while_the_first_is_out() {
        let (admission, tenant) = admission();
        let first = admit(&admission, &tenant).unwrap();
        assert!(admit(&admission, &tenant).is_err());
        first.release();
        assert!(admit(&admission, &tenant).is_ok());
    }

    #[test]
    fn a_permit_dropped_before_it_was_sent_gives_everything_back() {
        let (admission, tenant) = admission();
        drop(admit(&admission, &tenant).unwrap());
        assert!(!unverified(&admission));
        assert!(admit(&admission, &tenant).is_ok());
    }

    #[test]
    fn a_permit_dropped_after_it_was_sent_is_written_off() {
        let (admission, tenant) = admission();
        let mut permit = admit(&admission, &tenant).unwrap();
        permit.mark_sent();
        drop(permit);
        assert!(unverified(&admission));
        assert!(admit(&admission, &tenant).is_err());
    }

    #[test]
    fn a_settled_permit_gives_back_what_was_not_billed() {
        let (admission, tenant) = admission();
        let mut permit = admit(&admission, &tenant).unwrap();
        permit.mark_sent();
        permit.settle(Usage::default());
        assert!(admit(&admission, &tenant).is_ok());
    }

    #[test]
    fn a_bill_above_the_bound_is_counted_in_full_and_alarmed() {
        let (admission, tenant) = admission();
        let permit = admit(&admission, &tenant).unwrap();
        let billed = Usage { output: Tokens::new(400), ..BOUND };
        assert_eq!(permit.settle(billed).usage, billed);
        let metrics = String::from_utf8(admission.metrics.encode().unwrap()).unwrap();
        assert!(metrics.contains(r#"tokens_above_bound_total{model="sample",tenant="acme"} 100"#));
    }

    #[test]
    fn a_renewed_permit_needs_room_for_a_second_bound() {
        let (admission, tenant) = admission();
        let mut permit = admit(&admission, &tenant).unwrap();
        permit.mark_sent();
        assert!(permit.renew().is_err());
        assert!(unverified(&admission));
    }
}
