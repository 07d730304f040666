//! Permits to spend: no call reaches the upstream without one.
//!
//! Only [`Admission`] makes a [`Permit`], the DashScope client requires one, and it must be settled. So types, and not
//! reviews, ensure that no code spends around the limits (docs/adr/0001-permit.md).
//!
//! A permit takes from the tenant's tokens a minute and, in the ledger, from its budgets. It ends in one of three ways,
//! and dropping it chooses the safe one:
//! - **settled** at the upstream's bill. A bill beyond the model's limits is a fault of the upstream or of a proxy: it
//!   is counted at those limits, never below the bound, and marked unverified;
//! - **written off** at its bound, marked unverified, if the call was sent and its bill is unknown: overstating a spend
//!   is safe, understating is not;
//! - **released** if nothing was sent or the upstream certainly billed nothing.
//!
//! The reservation is the bound at the maximum price of the regions that the model may be called in. Once a call is
//! placed in one of them, it is settled or written off at that region's price.
//!
//! The [`Tab`] of the request records the same end as the ledger.

pub mod presence;
pub mod refusal;
pub mod tab;
pub mod watch;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use self::presence::{LAST_WAIT, Presence};
use self::tab::{PricedBound, Tab};
use futures_util::future::Either;

use crate::auth::credential::Lapse;
use crate::auth::tenant::{Tenant, UnknownBill};
use crate::catalog::{Model, Price};
use crate::clock::Clock;
use crate::ledger::account::Balances;
use crate::ledger::books::{Bill, Charge};
use crate::ledger::budget::{Budgets, RemainingTokens};
use crate::ledger::{Ledger, Reservation, ReserveError};
use crate::rate_limit::{Quotas, RateLimiter, Taken};
use crate::telemetry::metrics::Metrics;
use crate::units::{Money, Tokens, Usage};

pub use self::refusal::{LEAST_TIME_FOR_AN_ATTEMPT, Refusal};

/// The latest moment at which a call with this deadline may be sent; `None` if that has passed.
pub fn latest_start(deadline: Instant, now: Instant) -> Option<Instant> {
    deadline.checked_sub(LEAST_TIME_FOR_AN_ATTEMPT).filter(|&latest| latest >= now)
}

/// Admits calls, and reports their spending.
#[derive(Debug, Clone)]
pub struct Admission {
    limiter: Arc<dyn RateLimiter>,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// The spending of a settled permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// The upstream's bill, or the amount that is counted instead.
    pub usage: Usage,
    /// Whether it is the upstream's bill.
    pub verified: bool,
    /// Its cost by the price list.
    pub cost: Money,
    /// The rest of the tenant's budgets after it.
    pub remaining: RemainingTokens,
}

/// The permit to make one billed call of at most `bound`.
///
/// Only [`Admission`] makes one, so that nothing can be spent without having been admitted:
///
/// ```compile_fail,E0451
/// # fn forge(admitted: ocr_gateway::admission::Permit) -> ocr_gateway::admission::Permit {
/// ocr_gateway::admission::Permit { bound: Default::default(), ..admitted }
/// # }
/// ```
///
/// And it is spent once:
///
/// ```compile_fail,E0382
/// # async fn spend_twice(permit: ocr_gateway::admission::Permit) {
/// permit.write_off().await;
/// permit.release();
/// # }
/// ```
#[must_use = "a permit that is dropped gives its tokens back or is written off"]
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
    tenant: Arc<Tenant>,
    model: Arc<Model>,
    /// The price at the endpoint of the call; the model's maximum price until the endpoint is known.
    price: Price,
    /// The endpoint of the call; `None` until it is known.
    endpoint: Option<Arc<str>>,
    bound: Usage,
    taken: Taken,
    /// `None` while the ledger is asked, and once the permit has ended.
    reservation: Option<Reservation>,
    deadline: Instant,
    presence: Presence,
    tab: Tab,
    state: PermitState,
    /// Whether an attempt failed before.
    is_repeat: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PermitState {
    Admitted,
    Sent,
    Closed,
}

impl Admission {
    /// An admission that uses `limiter` and `ledger` and reports to `metrics`.
    pub const fn new(
        limiter: Arc<dyn RateLimiter>,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { limiter, ledger, clock, metrics }
    }

    /// Admits one call of `model` with the maximum bill `bound`, and records it on `tab`. If only calls in flight keep
    /// it from fitting into a budget, it waits for them, but leaves [`LEAST_TIME_FOR_AN_ATTEMPT`] before `deadline`.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when a limit or a budget of the tenant has no room for the bound, or the deadline is too near;
    /// nothing is taken then.
    pub async fn admit_bound(
        &self,
        tenant: &Arc<Tenant>,
        model: &Arc<Model>,
        bound: Usage,
        deadline: Instant,
        tab: &Tab,
    ) -> Result<Permit, Refusal> {
        let name = tenant.name.as_str();
        tab.asks_for(&model.name);
        self.metrics.expect_call(name, &model.name);
        let now = self.clock.instant();
        let latest = latest_start(deadline, now)
            .ok_or_else(|| Refusal::TooLate { left: deadline.saturating_duration_since(now) })?;
        let taken = self.limiter.take_tokens(name, &quotas(tenant), bound.total()).await?;
        // Made before the reservation, so that a refusal or a caller that leaves returns the minute's tokens.
        let mut permit = Permit {
            admission: self.clone(),
            tenant: Arc::clone(tenant),
            model: Arc::clone(model),
            price: model.price,
            endpoint: None,
            bound,
            taken,
            reservation: None,
            deadline,
            presence: Presence::default(),
            tab: tab.clone(),
            state: PermitState::Admitted,
            is_repeat: false,
        };
        let charge = charge(tenant, tab.names().key, model, bound);
        let reserved = self.ledger.reserve(charge, budgets(tenant), latest).await;
        permit.reservation = Some(reserved.map_err(|error| self.refusal(error))?);
        Ok(permit)
    }

    /// Calls `admit` with the time until which it may wait for room in a budget: `deadline`, or one second after the
    /// caller may have left, whichever comes first. The permit then has the caller's `presence`.
    ///
    /// # Errors
    ///
    /// Those of `admit`.
    pub async fn until_left<F>(
        &self,
        presence: &Presence,
        deadline: Instant,
        admit: impl Fn(Instant) -> F,
    ) -> Result<Permit, Refusal>
    where
        F: Future<Output = Result<Permit, Refusal>>,
    {
        let left = presence.may_have_left();
        let admitted = tokio::select! {
            biased;
            () = left.noted() => None,
            admitted = admit(deadline) => Some(admitted),
        };
        let mut permit = match admitted {
            Some(admitted) => admitted?,
            None => admit(deadline.min(self.clock.instant() + LAST_WAIT)).await?,
        };
        // Only the wait is cut short. An admitted call runs, and is retried, like any other.
        permit.deadline = deadline;
        permit.presence = presence.clone();
        Ok(permit)
    }

    /// Counts a call of `model` that was not necessary, and records the model on `tab`. It needs no room in a budget.
    pub fn note(&self, tenant: &Tenant, model: &Model, tab: &Tab) {
        tab.asks_for(&model.name);
        self.ledger.note(charge(tenant, tab.names().key, model, Usage::default()));
    }

    /// The rest of a tenant's budgets.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`] if the ledger cannot be read.
    pub async fn remaining(&self, tenant: &Tenant) -> Result<RemainingTokens, Refusal> {
        let budgets = budgets(tenant);
        if !budgets.limit_tokens() {
            return Ok(RemainingTokens::default());
        }
        match self.ledger.balances(tenant.name.as_str()).await {
            Ok(balances) => Ok(budgets.remaining(&balances)),
            Err(_) => Err(Refusal::StoreUnavailable),
        }
    }

    fn refusal(&self, error: ReserveError) -> Refusal {
        match error {
            ReserveError::Exceeded(exceeded) => {
                let now = self.clock.timestamp();
                let retry_after = exceeded.retry_after(self.ledger.calendar(), now);
                Refusal::Budget { exceeded: Box::new(exceeded), retry_after }
            }
            ReserveError::Disabled => Refusal::Lapsed(Lapse::TenantDisabled),
            ReserveError::Unavailable => Refusal::StoreUnavailable,
        }
    }
}

impl Permit {
    /// The maximum bill of the call.
    pub const fn bound(&self) -> &Usage {
        &self.bound
    }

    /// The model that may be called.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The tenant that pays.
    pub fn tenant(&self) -> &str {
        self.tenant.name.as_str()
    }

    /// Whether the caller still waits for an answer.
    pub const fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Whether the caller's key is still valid. The answer is less than a second old. Must be called right before the
    /// call is sent, because the call may have waited for long.
    ///
    /// # Errors
    ///
    /// [`Refusal::Lapsed`], or [`Refusal::StoreUnavailable`] if the key cannot be looked up.
    pub async fn check_key(&self) -> Result<(), Refusal> {
        let checked = self.presence.check_key().await;
        let metrics = &self.admission.metrics;
        checked.inspect_err(|refusal| metrics.refused(self.tenant(), refusal.label()))
    }

    /// Whether the call may be repeated if its bill is unknown.
    pub fn repeats_unknown_bills(&self) -> bool {
        self.tenant.unknown_bill == UnknownBill::Repeat
    }

    /// The costs and waits of the request.
    pub const fn tab(&self) -> &Tab {
        &self.tab
    }

    /// Records the endpoint of the call, whose region's price applies to its settlement.
    pub fn place_at(&mut self, endpoint: &str, region: &str) {
        let endpoint = Arc::from(endpoint);
        self.tab.placed_at(&endpoint);
        self.endpoint = Some(endpoint);
        self.price = self.model.price_in(region);
    }

    /// Records that the call is about to be sent: a drop from now on means that its bill is unknown.
    pub fn mark_sent(&mut self) {
        self.state = PermitState::Sent;
        self.tab.sent(self.most(), self.price.currency, self.is_repeat);
        self.is_repeat = true;
    }

    /// Records that the call was certainly not billed, so that the permit may serve another attempt.
    pub fn mark_unbilled(&mut self) {
        if self.state == PermitState::Sent {
            self.tab.unbilled(self.most());
        }
        self.state = PermitState::Admitted;
    }

    /// Settles at the upstream's bill for `request_id`. The settlement is already queued when this returns; the future
    /// waits, within bounds, until it is in the ledger.
    pub fn settle(
        mut self,
        billed: Usage,
        request_id: Option<String>,
    ) -> impl Future<Output = Settlement> + Send + use<> {
        let counted = self.counted(&billed);
        let (verified, cost) = (counted == billed, self.price.of(&counted));
        self.state = PermitState::Closed;
        self.give_back_all_but(&counted);
        self.alarm_excess(&billed, &counted);
        let endpoint = self.endpoint.take();
        let bill = Bill { usage: counted, cost, request_id, endpoint };
        let reservation = self.reservation.take();
        let budgets = reservation.as_ref().map(Reservation::budgets);
        let settled = if verified {
            self.count_spent(&billed, cost);
            reservation.map(|reservation| Either::Left(reservation.settle(bill)))
        } else {
            self.count_unverified(PricedBound { tokens: counted.total(), cost });
            reservation.map(|reservation| Either::Right(reservation.clamp(bill)))
        };
        settlement(counted, verified, cost, budgets, settled)
    }

    /// The amount that is counted for a bill: the bill itself, unless it exceeds the maximum of the call.
    pub fn counted(&self, billed: &Usage) -> Usage {
        let most = self.model.most(&self.bound);
        let is_possible = billed.clamp(&Usage::default(), &most) == *billed;
        if is_possible { *billed } else { billed.clamp(&self.bound, &most) }
    }

    /// Settles at the bound, unverified, because the bill of a call that went out is unknown. Waits like
    /// [`settle`](Self::settle).
    pub fn write_off(mut self) -> impl Future<Output = Settlement> + Send + use<> {
        let (bound, cost) = (self.bound, self.most().cost);
        self.state = PermitState::Closed;
        self.count_unverified(self.most());
        let reservation = self.reservation.take();
        let budgets = reservation.as_ref().map(Reservation::budgets);
        let endpoint = self.endpoint.take();
        let written_off = reservation.map(|reservation| reservation.write_off(cost, endpoint));
        settlement(bound, false, cost, budgets, written_off)
    }

    /// Releases everything, because the call was not made or certainly not billed.
    pub fn release(mut self) {
        self.mark_unbilled();
    }

    /// Writes this permit off and asks for another of the same bound, for a retry after an attempt
    /// whose bill is unknown: even if both are billed, both are accounted for.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when a limit or a budget of the tenant has no room for a second bound.
    pub async fn renew(self) -> Result<Self, Refusal> {
        let (admission, bound, deadline) = (self.admission.clone(), self.bound, self.deadline);
        let (tenant, model) = (Arc::clone(&self.tenant), Arc::clone(&self.model));
        let (tab, presence) = (self.tab.clone(), self.presence.clone());
        drop(self.write_off());
        let admit = |until| admission.admit_bound(&tenant, &model, bound, until, &tab);
        let mut renewed = admission.until_left(&presence, deadline, admit).await?;
        renewed.is_repeat = true;
        Ok(renewed)
    }

    /// The bound at the price of the call's endpoint.
    const fn most(&self) -> PricedBound {
        PricedBound { tokens: self.bound.total(), cost: self.price.of(&self.bound) }
    }

    fn count_spent(&self, billed: &Usage, cost: Money) {
        self.tab.billed(self.most(), billed, cost);
        let (tenant, model) = (self.tenant.name.as_str(), self.model.name.as_str());
        let metrics = &self.admission.metrics;
        metrics.tokens_spent(tenant, model, billed);
        metrics.cost(tenant, model, self.price.currency, cost);
    }

    fn count_unverified(&self, counted: PricedBound) {
        self.tab.unverified(self.most(), counted);
        let (tenant, model) = (self.tenant.name.as_str(), self.model.name.as_str());
        let metrics = &self.admission.metrics;
        metrics.tokens_unverified(tenant, model, counted.tokens);
        metrics.cost_unverified(tenant, model, self.price.currency, counted.cost);
    }

    /// Logs and counts a bill above the bound, of which `counted` is counted.
    fn alarm_excess(&self, billed: &Usage, counted: &Usage) {
        let (tenant, model) = (self.tenant.name.as_str(), self.model.name.as_str());
        let metrics = &self.admission.metrics;
        let (bound, billed, counted) = (self.bound.total(), billed.total(), counted.total());
        let excess = counted.saturating_sub(bound);
        if excess > Tokens::ZERO {
            metrics.tokens_above_bound(tenant, model, excess);
            tracing::error!(
                tenant,
                model,
                bound.tokens = bound.get(),
                billed.tokens = billed.get(),
                "the upstream billed more than the bound: check the model's figures"
            );
        }
        if counted != billed {
            metrics.bill_clamped(tenant, model);
            tracing::error!(
                tenant,
                model,
                counted.tokens = counted.get(),
                billed.tokens = billed.get(),
                "the upstream billed more than a call of the model can cost: less is counted, \
                 unverified; check the vendor's invoice and the model's limits"
            );
        }
    }

    fn give_back_all_but(&self, billed: &Usage) {
        let (limiter, tenant) = (&self.admission.limiter, self.tenant.name.as_str());
        limiter.settle_tokens(tenant, &quotas(&self.tenant), self.taken, billed.total());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.state {
            // Dropping the reservation releases it.
            PermitState::Admitted => self.give_back_all_but(&Usage::default()),
            PermitState::Sent => {
                self.count_unverified(self.most());
                let cost = self.most().cost;
                let (reservation, endpoint) = (self.reservation.take(), self.endpoint.take());
                drop(reservation.map(|reservation| reservation.write_off(cost, endpoint)));
            }
            PermitState::Closed => {}
        }
    }
}

/// The spending, and the remaining budgets once the ledger has recorded it.
async fn settlement(
    usage: Usage,
    verified: bool,
    cost: Money,
    budgets: Option<Budgets>,
    settled: Option<impl Future<Output = Balances>>,
) -> Settlement {
    let remaining = match settled {
        Some(settled) => budgets.unwrap_or_default().remaining(&settled.await),
        None => RemainingTokens::default(),
    };
    Settlement { usage, verified, cost, remaining }
}

/// The tenant's limits for the limiter.
pub const fn quotas(tenant: &Tenant) -> Quotas {
    Quotas {
        requests_per_minute: tenant.requests_per_minute,
        tokens_per_minute: tenant.tokens_per_minute,
        concurrency: tenant.concurrency,
    }
}

/// The tenant's budgets for the ledger.
pub fn budgets(tenant: &Tenant) -> Budgets {
    let tokens = |limit: Option<NonZeroU64>| limit.map(|limit| Tokens::new(limit.get()));
    Budgets {
        daily_tokens: tokens(tenant.daily_tokens),
        monthly_tokens: tokens(tenant.monthly_tokens),
        daily_cost: tenant.daily_cost,
        monthly_cost: tenant.monthly_cost,
        disabled: tenant.disabled,
        of_file: tenant.of_file,
    }
}

/// The charge for a call of at most `bound`, for the ledger.
fn charge(tenant: &Tenant, key: Option<Arc<str>>, model: &Model, bound: Usage) -> Charge {
    Charge {
        tenant: tenant.name.as_str().into(),
        key,
        model: model.name.as_str().into(),
        bound,
        cost: model.price.of(&bound),
        currency: model.price.currency,
    }
}

#[cfg(test)]
mod tests;
