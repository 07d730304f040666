//! For whom an endpoint is closed: for one tenant, or for all.
//!
//! A call can fail because the endpoint is broken, or because of what the call says: a number that the server
//! cannot read, a picture that its process dies of. The answer does not tell which. If any failure counted against
//! the endpoint, a tenant whose calls always fail would close it for everybody. So a [`Gate`] has a breaker for each
//! tenant and one for all. A failed call counts in both, and the latter is opened by the failures of at least two tenants
//! with no success in between, or by failures that come before a request is read.
//!
//! So one tenant's failures close the gate for that tenant, which is right in both cases. In an outage each tenant
//! finds out by itself until two have, and then it is closed for all.
//!
//! Once it is closed for all, one call probes after each cool-down. Should that be one of those that fail wherever
//! they are sent, it says nothing to the others. So a tenant whose probe failed waits twice as long, and another
//! tenant's call is the next probe, if there is any.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::breaker::{Breaker, Change, Pass};

/// The breakers of one endpoint for one of the things that it is asked for.
#[derive(Debug)]
pub(super) struct Gate {
    failures: u32,
    cool_down: Duration,
    for_all: Arc<Breaker>,
    /// One for each tenant that came here.
    of_tenants: Mutex<HashMap<Arc<str>, Arc<Breaker>>>,
}

/// Leave to pass a gate once. Dropped without a verdict, it lets another call be the probe.
#[derive(Debug)]
pub(super) struct Passage {
    gate: Arc<Gate>,
    tenant: Arc<str>,
    own: Pass,
    for_all: Pass,
}

/// What can have caused a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The endpoint alone: the request was not read.
    Endpoint,
    /// The endpoint or the request.
    Either,
}

/// For whom a failure closed a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closing {
    /// Whether it is closed for all tenants, and not for the one whose call failed alone.
    pub(super) for_all: bool,
    /// Whether it was open before.
    pub(super) anew: bool,
    /// Whether no call of anybody went well meanwhile.
    pub(super) is_undisputed: bool,
}

impl Gate {
    /// A gate that so many `failures` in a row close for `cool_down`.
    pub(super) fn new(failures: u32, cool_down: Duration) -> Self {
        let for_all = Arc::new(Breaker::of_several(failures, cool_down));
        Self { failures, cool_down, for_all, of_tenants: Mutex::default() }
    }

    /// Lets a call of `tenant` pass, if it is not closed.
    pub(super) fn enter(self: &Arc<Self>, tenant: &str, now: Instant) -> Option<Passage> {
        let (tenant, own) = self.of(tenant);
        let own = own.enter(now).ok()?;
        let for_all = self.for_all.enter(now).ok()?;
        Some(Passage { gate: Arc::clone(self), tenant, own, for_all })
    }

    /// The least time until a call of `tenant` may pass.
    pub(super) fn wait(&self, tenant: &str, now: Instant) -> Duration {
        self.of(tenant).1.wait(now).max(self.for_all.wait(now))
    }

    /// Whether any number of calls of `tenant` may pass.
    pub(super) fn is_open_to(&self, tenant: &str, now: Instant) -> bool {
        self.of(tenant).1.is_closed(now) && self.for_all.is_closed(now)
    }

    fn of(&self, tenant: &str) -> (Arc<str>, Arc<Breaker>) {
        let mut of_tenants = self.of_tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((name, breaker)) = of_tenants.get_key_value(tenant) {
            return (Arc::clone(name), Arc::clone(breaker));
        }
        let name: Arc<str> = tenant.into();
        let breaker = Arc::new(Breaker::new(self.failures, self.cool_down));
        of_tenants.insert(Arc::clone(&name), Arc::clone(&breaker));
        (name, breaker)
    }
}

impl Passage {
    /// Whose call it is.
    pub(super) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The call went well, as far as the endpoint is concerned; whether that opened the gate again, or showed that
    /// failures were one tenant's alone.
    pub(super) fn well(&mut self) -> bool {
        let changes = [self.own.well(), self.for_all.well()];
        changes.contains(&Some(Change::Closed))
    }

    /// The call began well, and how it ends is not known yet; whether that opened the gate again.
    pub(super) fn begun(&mut self) -> bool {
        let changes = [self.own.begun(), self.for_all.begun()];
        changes.contains(&Some(Change::Closed))
    }

    /// The call failed. The endpoint asks not to be asked again before `retry_after`. That closes the gate for the
    /// tenant at once where it is longer than a cool-down.
    pub(super) fn badly(
        &mut self,
        now: Instant,
        retry_after: Option<Duration>,
        cause: Cause,
    ) -> Option<Closing> {
        let at_least = retry_after.unwrap_or_default();
        let is_probe = self.for_all.is_probe();
        let whose = (cause == Cause::Either).then_some(&self.tenant);
        let for_all = self.for_all.badly(now, at_least, whose);
        let own = if is_probe && cause == Cause::Either {
            self.own.refused(now, at_least.max(self.gate.cool_down * 2))
        } else if at_least > self.gate.cool_down {
            self.own.refused(now, at_least)
        } else {
            self.own.badly(now, at_least, whose)
        };
        self.closing(for_all, own)
    }

    /// The endpoint refused the call for a reason that every call has: that closes the gate for all, for
    /// `cool_down` or longer.
    pub(super) fn refused(&mut self, now: Instant, cool_down: Duration) -> Option<Closing> {
        let for_all = self.for_all.refused(now, cool_down);
        self.closing(for_all, None)
    }

    fn closing(&self, for_all: Option<Change>, own: Option<Change>) -> Option<Closing> {
        let is_undisputed = self.gate.for_all.is_suspect();
        match (for_all, own) {
            (Some(Change::Opened { anew }), _) => {
                Some(Closing { for_all: true, anew, is_undisputed })
            }
            (_, Some(Change::Opened { anew })) => {
                Some(Closing { for_all: false, anew, is_undisputed })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, SystemClock};

    const SECOND: Duration = Duration::from_secs(1);

    fn gate() -> (Arc<Gate>, Instant) {
        (Arc::new(Gate::new(5, SECOND)), SystemClock.instant())
    }

    fn fail(gate: &Arc<Gate>, tenant: &str, now: Instant) -> Option<Closing> {
        gate.enter(tenant, now).unwrap().badly(now, None, Cause::Either)
    }

    /// Lets calls of `tenant` fail until it is turned away; how many that took.
    fn exhaust(gate: &Arc<Gate>, tenant: &str, now: Instant) -> usize {
        let calls = std::iter::from_fn(|| {
            gate.enter(tenant, now).map(|mut call| call.badly(now, None, Cause::Either))
        });
        calls.take(100).count()
    }

    #[test]
    fn a_tenant_whose_calls_fail_is_turned_away_alone() {
        let (gate, now) = gate();
        assert_eq!(exhaust(&gate, "bad", now), 5);
        assert_eq!(gate.wait("bad", now), SECOND);
        assert!(gate.enter("good", now).is_some() && gate.wait("good", now).is_zero());
        for second in 1..100 {
            let now = now + SECOND * second;
            assert_eq!(exhaust(&gate, "bad", now), 1, "a probe for itself");
            gate.enter("good", now).unwrap().well();
        }
    }

    #[test]
    fn failures_of_two_tenants_close_it_for_all_unless_a_call_went_well_between() {
        let (gate, now) = gate();
        exhaust(&gate, "one", now);
        gate.enter("third", now).unwrap().well();
        assert_eq!([fail(&gate, "other", now), fail(&gate, "other", now)], [None, None]);
        gate.enter("third", now).unwrap();
        for tenant in ["a", "b"] {
            assert_eq!(fail(&gate, tenant, now), None);
        }
        let closing = Closing { for_all: true, anew: true, is_undisputed: true };
        assert_eq!(fail(&gate, "c", now), Some(closing));
        assert!(gate.enter("third", now).is_none());
    }

    #[test]
    fn an_endpoint_that_cannot_be_reached_is_closed_for_all_by_one_tenant_s_calls() {
        let (gate, now) = gate();
        for _ in 0..5 {
            gate.enter("one", now).unwrap().badly(now, None, Cause::Endpoint);
        }
        assert!(gate.enter("other", now).is_none());
        let mut probe = gate.enter("other", now + SECOND).unwrap();
        probe.badly(now + SECOND, None, Cause::Endpoint);
        assert_eq!(gate.wait("other", now + SECOND), SECOND, "its request has no part in it");
    }

    #[test]
    fn a_tenant_whose_probe_failed_leaves_the_next_one_to_another() {
        let (gate, now) = gate();
        exhaust(&gate, "bad", now);
        exhaust(&gate, "also", now);
        assert!(gate.enter("good", now).is_none());
        let probing = now + SECOND;
        assert_eq!(exhaust(&gate, "bad", probing), 1);
        let next = probing + SECOND;
        assert!(gate.enter("bad", next).is_none());
        assert!(gate.enter("good", next).unwrap().well());
        assert!(gate.enter("third", next).is_some());
    }

    #[test]
    fn a_retry_after_binds_the_tenant_that_was_told() {
        let (gate, now) = gate();
        let wait = Some(SECOND * 600);
        let closing = gate.enter("told", now).unwrap().badly(now, wait, Cause::Either);
        assert_eq!(closing, Some(Closing { for_all: false, anew: true, is_undisputed: false }));
        assert_eq!(gate.wait("told", now), SECOND * 600);
        assert!(gate.wait("other", now).is_zero());
    }

    #[test]
    fn where_one_failure_is_enough_it_takes_two_tenants_to_close_it_for_all() {
        let (gate, now) = (Arc::new(Gate::new(1, SECOND)), gate().1);
        let closed = |closing: Option<Closing>| closing.map(|closing| closing.for_all);
        assert_eq!(closed(fail(&gate, "one", now)), Some(false));
        assert_eq!(closed(fail(&gate, "other", now)), Some(true));
    }
}
