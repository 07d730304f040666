//! What one request has cost its tenant so far.
//!
//! Every call that a request makes notes here how it ended, at the moment when that is posted to the ledger:
//! billed, or written off at its bound because its bill is unknown. Permits do so also where they are
//! dropped, so that an answer, an error or a panic at any point can tell the same sums that the ledger
//! counts. The amounts of one request are in one currency, because a tenant is sold each model in one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::units::{Currency, Money, Tokens, Usage};

/// The calls of one request, added up. Clones share the sums.
#[derive(Debug, Clone, Default)]
pub struct Tab {
    sums: Arc<Mutex<Sums>>,
}

/// What a request has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// What the upstream billed.
    pub billed: Usage,
    /// What that costs.
    pub cost: Money,
    /// Bounds of the calls whose bill is unknown.
    pub unverified: Tokens,
    /// What these bounds cost.
    pub unverified_cost: Money,
    /// The currency of both; none where no call was made.
    pub currency: Option<Currency>,
    /// How often the upstream was asked.
    pub calls: u32,
    /// How many of these calls repeated one that had failed.
    pub repeats: u32,
    /// Image tokens that the tenant's cap saved.
    pub saved: Tokens,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    ended: Spent,
    /// Bounds of calls under way.
    open: Bound,
}

/// The most that a call can be billed, and what that costs where the call is made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bound {
    pub(super) tokens: Tokens,
    pub(super) cost: Money,
}

impl Spent {
    /// Whether the tenant was charged anything.
    pub const fn is_nothing(&self) -> bool {
        self.billed.total().get() == 0 && self.unverified.get() == 0
    }
}

impl Tab {
    /// What the calls that have ended cost.
    pub fn ended(&self) -> Spent {
        self.lock().ended
    }

    /// What the request can cost at most by now: a call that is still under way counts as unverified at
    /// its bound. The same as [`ended`](Self::ended) once all calls have ended.
    pub fn at_most(&self) -> Spent {
        let Sums { mut ended, open } = *self.lock();
        ended.write_off(open);
        ended
    }

    /// The tenant's cap saved so many tokens in a call that was answered.
    pub fn saved(&self, tokens: Tokens) {
        let mut sums = self.lock();
        sums.ended.saved = sums.ended.saved.saturating_add(tokens);
    }

    /// A call leaves.
    pub(super) fn sent(&self, bound: Bound, currency: Currency, is_repeat: bool) {
        let mut sums = self.lock();
        sums.ended.currency = Some(currency);
        sums.ended.calls += 1;
        sums.ended.repeats += u32::from(is_repeat);
        sums.open.tokens = sums.open.tokens.saturating_add(bound.tokens);
        sums.open.cost = sums.open.cost.saturating_add(bound.cost);
    }

    /// A call that was sent cost nothing.
    pub(super) fn unbilled(&self, bound: Bound) {
        self.lock().close(bound);
    }

    /// A call that was sent was billed.
    pub(super) fn billed(&self, bound: Bound, usage: &Usage, cost: Money) {
        let mut sums = self.lock();
        sums.close(bound);
        sums.ended.billed = sums.ended.billed.plus(usage);
        sums.ended.cost = sums.ended.cost.saturating_add(cost);
    }

    /// The bill of a call that was sent is unknown, or not to be believed; so much is counted.
    pub(super) fn unverified(&self, bound: Bound, counted: Bound) {
        let mut sums = self.lock();
        sums.close(bound);
        sums.ended.write_off(counted);
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        // Nothing panics while it is held.
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    fn close(&mut self, bound: Bound) {
        self.open.tokens = self.open.tokens.saturating_sub(bound.tokens);
        self.open.cost = self.open.cost.saturating_sub(bound.cost);
    }
}

impl Spent {
    const fn write_off(&mut self, bound: Bound) {
        self.unverified = self.unverified.saturating_add(bound.tokens);
        self.unverified_cost = self.unverified_cost.saturating_add(bound.cost);
    }
}
