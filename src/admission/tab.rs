//! The tab of a request: its costs so far, and the names of its calls.
//!
//! Each permit records the end of its call here when it posts that to the ledger: billed, or written off at its bound
//! because its bill is unknown. A dropped permit does so too. So an answer, an error or a panic at any point reports
//! the sums that the ledger counts. All amounts of one request are in one currency, because a tenant is sold each model
//! in one.
//!
//! The calls of a document's pages run side by side. Each has a line of the tab for its present wait, so that the
//! request is known to wait as long as one of its calls does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::units::{Currency, Money, Tokens, Usage};

/// The sums of a request's calls. Clones share the sums.
#[derive(Debug, Clone, Default)]
pub struct Tab {
    sums: Arc<Mutex<Sums>>,
    /// The line of the calls that are noted through this clone.
    line: u32,
}

/// The names of a request's calls, in logs and in the vendor's bills.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The id of the key that the request was made with.
    pub key: Option<Arc<str>>,
    /// The model of the last call.
    pub model: Option<Arc<str>>,
    /// The endpoint that was asked last.
    pub endpoint: Option<Arc<str>>,
    /// The upstream's own ids of its answers, separated by commas.
    pub request_ids: Option<String>,
}

/// The cause of a wait outside of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The call waits for a slot at the upstream, or pauses between two attempts.
    Turn,
    /// The upstream.
    Upstream,
}

/// How long a request has waited outside of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waited {
    /// Waiting for slots and between attempts.
    pub turn: Duration,
    /// Waiting for the upstream.
    pub upstream: Duration,
}

/// The costs of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// The upstream's bills.
    pub billed: Usage,
    /// Their cost.
    pub cost: Money,
    /// Bounds of the calls whose bill is unknown.
    pub unverified: Tokens,
    /// The cost of these bounds.
    pub unverified_cost: Money,
    /// The currency of both; none if no call was made.
    pub currency: Option<Currency>,
    /// Number of calls made to the upstream.
    pub calls: u32,
    /// Number of these calls that repeated a failed one.
    pub repeats: u32,
    /// Image tokens that were not spent: because of the tenant's cap, because a page has its own text, or because an
    /// equal request had spent them.
    pub saved: Tokens,
}

#[derive(Debug, Default)]
struct Sums {
    ended: Spent,
    /// Bounds of calls in flight.
    open: PricedBound,
    names: Names,
    waited: Waited,
    /// The present waits by their lines.
    waits: BTreeMap<u32, Wait>,
    /// Until when `waited` is counted.
    counted_until: Option<Instant>,
}

/// The maximum bill of a call, and its cost at the endpoint of the call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PricedBound {
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
    /// The same tab for calls that are made beside others. Calls of one line are made one after the other.
    #[must_use]
    pub fn line(&self, line: u32) -> Self {
        Self { line, ..self.clone() }
    }

    /// The costs of the calls that have ended.
    pub fn ended(&self) -> Spent {
        self.lock().ended
    }

    /// The most that the request can cost so far: a call in flight counts as unverified at its bound. The same as
    /// [`ended`](Self::ended) once all calls have ended.
    pub fn at_most(&self) -> Spent {
        let Sums { mut ended, open, .. } = *self.lock();
        ended.write_off(open);
        ended
    }

    /// Records the key of the request. The ledger enters its calls under this key.
    pub fn opened_with(&self, key: &str) {
        self.lock().names.key = Some(key.into());
    }

    /// The names of the calls.
    pub fn names(&self) -> Names {
        self.lock().names.clone()
    }

    /// Records the upstream's id of an answer.
    pub fn answered(&self, request_id: &str) {
        let ids = &mut self.lock().names.request_ids;
        match ids {
            Some(ids) => {
                ids.push(',');
                ids.push_str(request_id);
            }
            None => *ids = Some(request_id.to_owned()),
        }
    }

    /// Records that the calls of this line wait for `what` from `now` on; `None` ends the wait.
    pub fn waits_for(&self, what: Option<Wait>, now: Instant) {
        let mut sums = self.lock();
        sums.waited = sums.waited_until(now);
        sums.counted_until = Some(now);
        match what {
            Some(what) => sums.waits.insert(self.line, what),
            None => sums.waits.remove(&self.line),
        };
    }

    /// How long the request has waited until `now`.
    pub fn waited(&self, now: Instant) -> Waited {
        self.lock().waited_until(now)
    }

    /// Records that a call of this model is requested.
    pub(super) fn asks_for(&self, model: &str) {
        self.lock().names.model = Some(model.into());
    }

    /// Records that a call is made at this endpoint.
    pub(super) fn placed_at(&self, endpoint: &Arc<str>) {
        self.lock().names.endpoint = Some(Arc::clone(endpoint));
    }

    /// Whether a call is in flight, whose cost is not known yet.
    pub fn is_open(&self) -> bool {
        self.lock().open.tokens > Tokens::ZERO
    }

    /// Writes the log line of a stream that has ended. The request's log line was written with the head of the
    /// response, before its cost was known.
    pub fn log_stream(&self, tenant: &str) {
        let (spent, names) = (self.ended(), self.names());
        tracing::info!(
            tenant,
            key.id = names.key.as_deref(),
            model = names.model.as_deref(),
            endpoint = names.endpoint.as_deref(),
            tokens.image = spent.billed.image.get(),
            tokens.input = spent.billed.input().get(),
            tokens.output = spent.billed.output.get(),
            tokens.unverified = spent.unverified.get(),
            cost.amount = spent.cost.to_string(),
            cost.unverified = spent.unverified_cost.to_string(),
            cost.currency = spent.currency.map(Currency::code),
            upstream.calls = spent.calls,
            upstream.request_id = names.request_ids,
            "a stream ended"
        );
    }

    /// Records that so many tokens were not spent, in an answered call or because no call was needed.
    pub fn saved(&self, tokens: Tokens) {
        let mut sums = self.lock();
        sums.ended.saved = sums.ended.saved.saturating_add(tokens);
    }

    /// Records that a call is sent.
    pub(super) fn sent(&self, bound: PricedBound, currency: Currency, is_repeat: bool) {
        let mut sums = self.lock();
        sums.ended.currency = Some(currency);
        sums.ended.calls += 1;
        sums.ended.repeats += u32::from(is_repeat);
        sums.open.tokens = sums.open.tokens.saturating_add(bound.tokens);
        sums.open.cost = sums.open.cost.saturating_add(bound.cost);
    }

    /// Records that a sent call cost nothing.
    pub(super) fn unbilled(&self, bound: PricedBound) {
        self.lock().close(bound);
    }

    /// Records the bill of a sent call.
    pub(super) fn billed(&self, bound: PricedBound, usage: &Usage, cost: Money) {
        let mut sums = self.lock();
        sums.close(bound);
        sums.ended.billed = sums.ended.billed.plus(usage);
        sums.ended.cost = sums.ended.cost.saturating_add(cost);
    }

    /// Records a sent call whose bill is unknown or implausible, and the amount that is `counted` for it.
    pub(super) fn unverified(&self, bound: PricedBound, counted: PricedBound) {
        let mut sums = self.lock();
        sums.close(bound);
        sums.ended.write_off(counted);
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        // No code panics while it holds the lock.
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    fn waited_until(&self, now: Instant) -> Waited {
        let mut waited = self.waited;
        let Some(since) = self.counted_until else { return waited };
        let took = now.saturating_duration_since(since);
        // While one call is read, others may wait for their turn: the request is served by then.
        if self.waits.values().any(|wait| *wait == Wait::Upstream) {
            waited.upstream += took;
        } else if !self.waits.is_empty() {
            waited.turn += took;
        }
        waited
    }

    fn close(&mut self, bound: PricedBound) {
        self.open.tokens = self.open.tokens.saturating_sub(bound.tokens);
        self.open.cost = self.open.cost.saturating_sub(bound.cost);
    }
}

impl Waited {
    /// Takes the whole sum.
    pub fn total(&self) -> Duration {
        self.turn + self.upstream
    }
}

impl Spent {
    const fn write_off(&mut self, bound: PricedBound) {
        self.unverified = self.unverified.saturating_add(bound.tokens);
        self.unverified_cost = self.unverified_cost.saturating_add(bound.cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, SystemClock};

    #[test]
    fn a_request_waits_as_long_as_one_of_its_calls_does() {
        let (tab, start) = (Tab::default(), SystemClock.instant());
        let at = |seconds| start + Duration::from_secs(seconds);
        let [first, second] = [1, 2].map(|line| tab.line(line));
        first.waits_for(Some(Wait::Turn), at(0));
        second.waits_for(Some(Wait::Turn), at(1));
        first.waits_for(Some(Wait::Upstream), at(3));
        first.waits_for(None, at(7));
        second.waits_for(None, at(9));
        let [turn, upstream] = [5, 4].map(Duration::from_secs);
        assert_eq!(tab.waited(at(20)), Waited { turn, upstream });
    }
}
