//! Decides for which tenants an endpoint is closed: for one, or for all.
//!
//! A call can fail because the endpoint is broken, or because of the request: a number that the server cannot read, a
//! picture that crashes it. The answer does not show which. If every failure counted against the endpoint, a tenant
//! whose calls always fail would close it for everybody. So a [`Gate`] has a breaker for each tenant and one for all. A
//! failed call counts in both. The breaker for all opens after failures of at least two tenants with no success in
//! between, or after failures that occur before a request is read.
//!
//! So the failures of one tenant close the gate for that tenant, which is right in both cases. In an outage the gate
//! closes for each tenant separately until two have failed, and then for all.
//!
//! While it is closed for all, one call probes after each cool-down. A probe whose request would fail anywhere shows
//! nothing about the endpoint. So a tenant whose probe did not succeed leaves the next probes to others for a while. A
//! slow probe and the cool-down after it take three cool-downs. So a tenant waits for three times as many cool-downs as
//! there are such tenants, less one: after one probe of each of them, there is one for another tenant. It waits for
//! twelve at most, because it must notice soon when the endpoint has recovered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::breaker::{Breaker, BreakerChange, Pass};

/// The breakers of one endpoint for its key, or for one model.
#[derive(Debug)]
pub(crate) struct Gate {
    failures: u32,
    cool_down: Duration,
    for_all: Arc<Breaker>,
    /// One for each tenant that has called.
    of_tenants: Mutex<HashMap<Arc<str>, Arc<Breaker>>>,
    /// Tenants that have probed since it was closed for all, and when each may probe again.
    probers: Mutex<HashMap<Arc<str>, Instant>>,
}

/// The longest wait of a tenant after a probe that did not succeed, in cool-downs.
const LONGEST_WAIT: u32 = 12;

/// The right to pass a gate once. If it is dropped before the call has an end, another call may be the probe.
#[derive(Debug)]
pub(crate) struct Passage {
    gate: Arc<Gate>,
    tenant: Arc<str>,
    own: Pass,
    for_all: Pass,
    /// Whether it is a probe for all tenants that has not ended.
    is_probing: bool,
}

/// The possible causes of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureCause {
    /// The endpoint alone: the request was not read.
    Endpoint,
    /// The endpoint or the request.
    Either,
}

/// The tenants for which a failure closed a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GateClosing {
    /// Whether it is closed for all tenants, and not only for the one whose call failed.
    pub(crate) for_all: bool,
    /// Whether it was open before.
    pub(crate) anew: bool,
    /// Whether no call of any tenant succeeded meanwhile.
    pub(crate) is_undisputed: bool,
}

impl Gate {
    /// A gate that closes after `failures` in a row, for `cool_down`.
    pub(crate) fn new(failures: u32, cool_down: Duration) -> Self {
        let for_all = Arc::new(Breaker::of_several(failures, cool_down));
        let (of_tenants, probers) = (Mutex::default(), Mutex::default());
        Self { failures, cool_down, for_all, of_tenants, probers }
    }

    /// Lets a call of `tenant` pass, unless the gate is closed to it.
    pub(crate) fn enter(self: &Arc<Self>, tenant: &str, now: Instant) -> Option<Passage> {
        let (tenant, own) = self.of(tenant);
        if !self.wait_to_probe(&tenant, now).is_zero() {
            return None;
        }
        let own = own.enter(now).ok()?;
        let for_all = self.for_all.enter(now).ok()?;
        let is_probing = for_all.is_probe();
        if is_probing {
            // If the probe takes too long, the next probe belongs to another tenant.
            self.hold_off(&tenant, now + self.for_all.patience());
        }
        Some(Passage { gate: Arc::clone(self), tenant, own, for_all, is_probing })
    }

    /// The least time until a call of `tenant` may pass.
    pub(crate) fn wait(&self, tenant: &str, now: Instant) -> Duration {
        let wait = self.of(tenant).1.wait(now).max(self.for_all.wait(now));
        wait.max(self.wait_to_probe(tenant, now))
    }

    /// Whether any number of calls of `tenant` may pass.
    pub(crate) fn is_open_to(&self, tenant: &str, now: Instant) -> bool {
        self.of(tenant).1.is_closed(now) && self.for_all.is_closed(now)
    }

    /// How long a tenant whose probe did not succeed leaves probes to others; zero once the gate is open again.
    fn wait_to_probe(&self, tenant: &str, now: Instant) -> Duration {
        let until = self.probers().get(tenant).copied();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Makes a tenant leave probes to others, from `start` on.
    fn hold_off(&self, tenant: &Arc<str>, start: Instant) {
        let mut probers = self.probers();
        let is_new = !probers.contains_key(tenant);
        let count = u32::try_from(probers.len()).unwrap_or(u32::MAX).saturating_add(is_new.into());
        let wait = count.saturating_mul(3).saturating_sub(1).min(LONGEST_WAIT);
        let until = start + self.cool_down * wait;
        probers.insert(Arc::clone(tenant), until);
    }

    fn probers(&self) -> MutexGuard<'_, HashMap<Arc<str>, Instant>> {
        self.probers.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// The tenant of the call.
    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The call succeeded, as far as the endpoint is concerned. Returns whether that opened the gate again, or showed
    /// that only one tenant's calls fail.
    pub(crate) fn succeeded(&mut self) -> bool {
        let changes = [self.own.succeeded(), self.for_all.succeeded()];
        self.opened(changes)
    }

    /// The call began successfully, and its end is not known yet. Returns whether that opened the gate again.
    pub(crate) fn began(&mut self) -> bool {
        let changes = [self.own.began(), self.for_all.began()];
        self.opened(changes)
    }

    /// Whether the gate was opened again, for the tenant or for all. Then every tenant may call.
    fn opened(&mut self, [own, for_all]: [Option<BreakerChange>; 2]) -> bool {
        self.is_probing = false;
        if for_all == Some(BreakerChange::Closed) {
            self.gate.probers().clear();
        }
        own == Some(BreakerChange::Closed) || for_all == Some(BreakerChange::Closed)
    }

    /// Lets the tenant probe again at once: its request did not cause the end of the probe.
    fn forget_probe(&mut self) {
        if std::mem::take(&mut self.is_probing) {
            self.gate.probers().remove(&self.tenant);
        }
    }

    /// The call ended and shows nothing about the endpoint.
    pub(crate) fn undecided(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_probing) && !self.gate.for_all.is_closed(now) {
            self.gate.hold_off(&self.tenant, now);
        }
    }

    /// The call failed. A `retry_after` that is longer than a cool-down closes the gate for the tenant at once.
    pub(crate) fn failed(
        &mut self,
        now: Instant,
        retry_after: Option<Duration>,
        cause: FailureCause,
    ) -> Option<GateClosing> {
        let at_least = retry_after.unwrap_or_default();
        match cause {
            FailureCause::Either => self.undecided(now),
            FailureCause::Endpoint => self.forget_probe(),
        }
        let whose = (cause == FailureCause::Either).then_some(&self.tenant);
        let for_all = self.for_all.failed(now, at_least, whose);
        let own = if at_least > self.gate.cool_down {
            self.own.refused(now, at_least)
        } else {
            self.own.failed(now, at_least, whose)
        };
        self.closing(for_all, own)
    }

    /// The endpoint refused the call for a reason that applies to every call. That closes the gate for all, for
    /// `cool_down` or longer.
    pub(crate) fn refused(&mut self, now: Instant, cool_down: Duration) -> Option<GateClosing> {
        let for_all = self.for_all.refused(now, cool_down);
        self.closing(for_all, None)
    }

    fn closing(
        &self,
        for_all: Option<BreakerChange>,
        own: Option<BreakerChange>,
    ) -> Option<GateClosing> {
        let is_undisputed = self.gate.for_all.is_suspect();
        match (for_all, own) {
            (Some(BreakerChange::Opened { anew }), _) => {
                Some(GateClosing { for_all: true, anew, is_undisputed })
            }
            (_, Some(BreakerChange::Opened { anew })) => {
                Some(GateClosing { for_all: false, anew, is_undisputed })
            }
            _ => None,
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        // A call without an end was not made.
        self.forget_probe();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock as _, SystemClock};

    const SECOND: Duration = Duration::from_secs(1);

    fn gate() -> (Arc<Gate>, Instant) {
        (Arc::new(Gate::new(5, SECOND)), SystemClock.instant())
    }

    fn fail(gate: &Arc<Gate>, tenant: &str, now: Instant) -> Option<GateClosing> {
        gate.enter(tenant, now).unwrap().failed(now, None, FailureCause::Either)
    }

    /// Lets calls of `tenant` fail until the gate refuses it, and returns their number.
    fn exhaust(gate: &Arc<Gate>, tenant: &str, now: Instant) -> usize {
        let calls = std::iter::from_fn(|| {
            gate.enter(tenant, now).map(|mut call| call.failed(now, None, FailureCause::Either))
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
            gate.enter("good", now).unwrap().succeeded();
        }
    }

    #[test]
    fn failures_of_two_tenants_close_it_for_all_unless_a_call_went_well_between() {
        let (gate, now) = gate();
        exhaust(&gate, "one", now);
        gate.enter("third", now).unwrap().succeeded();
        assert_eq!([fail(&gate, "other", now), fail(&gate, "other", now)], [None, None]);
        gate.enter("third", now).unwrap();
        for tenant in ["a", "b"] {
            assert_eq!(fail(&gate, tenant, now), None);
        }
        let closing = GateClosing { for_all: true, anew: true, is_undisputed: true };
        assert_eq!(fail(&gate, "c", now), Some(closing));
        assert!(gate.enter("third", now).is_none());
    }

    #[test]
    fn an_endpoint_that_cannot_be_reached_is_closed_for_all_by_one_tenant_s_calls() {
        let (gate, now) = gate();
        for _ in 0..5 {
            gate.enter("one", now).unwrap().failed(now, None, FailureCause::Endpoint);
        }
        assert!(gate.enter("other", now).is_none());
        let mut probe = gate.enter("other", now + SECOND).unwrap();
        probe.failed(now + SECOND, None, FailureCause::Endpoint);
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
        assert!(gate.enter("good", next).unwrap().succeeded());
        assert!(gate.enter("third", next).is_some());
    }

    #[test]
    fn tenants_whose_probes_failed_do_not_wait_once_a_call_went_well() {
        let (gate, now) = gate();
        exhaust(&gate, "bad", now);
        exhaust(&gate, "also", now);
        for (second, tenant) in [(1, "bad"), (2, "also"), (3, "bad")] {
            assert_eq!(exhaust(&gate, tenant, now + SECOND * second), 1);
        }
        let later = now + SECOND * 4;
        assert!(gate.enter("bad", later).is_none() && gate.enter("also", later).is_none());
        assert!(gate.enter("good", later).unwrap().succeeded());
        assert!(gate.wait("bad", later).is_zero() && gate.wait("also", later).is_zero());
    }

    #[test]
    fn a_probe_that_was_not_made_keeps_nobody_from_the_next() {
        let (gate, now) = gate();
        exhaust(&gate, "bad", now);
        exhaust(&gate, "also", now);
        drop(gate.enter("good", now + SECOND).unwrap());
        assert!(gate.enter("good", now + SECOND).is_some());
    }

    /// The end of a call that fails at any endpoint.
    #[derive(Debug, Clone, Copy)]
    enum End {
        Failed,
        Undecided,
    }

    /// Closes a gate for all by tenants whose calls always fail, and who always call before the others. Returns the
    /// longest time for which the gate refused a tenant whose calls succeed, and who calls every `good_every` tenths of
    /// a second.
    fn longest_outage(bad: u32, takes: Duration, end: End, good_every: u32) -> Duration {
        let (gate, start) = gate();
        let names: Vec<_> = (0..bad).map(|number| format!("bad{number}")).collect();
        for name in &names {
            exhaust(&gate, name, start);
        }
        assert!(gate.enter("good", start).is_none());
        let mut calls: Vec<(Instant, Passage)> = Vec::new();
        let (mut served, mut longest) = (start, Duration::ZERO);
        for step in 0..2_000_u32 {
            let now = start + SECOND / 10 * step;
            for (_, mut call) in calls.extract_if(.., |(ends, _)| *ends <= now) {
                match end {
                    End::Failed => drop(call.failed(now, None, FailureCause::Either)),
                    End::Undecided => call.undecided(now),
                }
            }
            for name in &names {
                let passing = std::iter::from_fn(|| gate.enter(name, now)).take(20);
                calls.extend(passing.map(|call| (now + takes, call)));
            }
            if step % good_every != 0 {
                continue;
            }
            if let Some(mut call) = gate.enter("good", now) {
                call.succeeded();
                served = now;
            }
            longest = longest.max(now.duration_since(served));
        }
        longest
    }

    proptest! {
        #[test]
        fn tenants_whose_calls_always_fail_take_some_of_the_probes_and_never_all(
            bad in 2_u32..=4,
            takes in 0_u64..6_000,
            end in prop_oneof![Just(End::Failed), Just(End::Undecided)],
            good_every in 1_u32..=5,
        ) {
            let longest = longest_outage(bad, Duration::from_millis(takes), end, good_every);
            prop_assert!(longest <= SECOND * 8 * bad, "turned away for {longest:?}");
        }
    }

    #[test]
    fn a_retry_after_binds_the_tenant_that_was_told() {
        let (gate, now) = gate();
        let wait = Some(SECOND * 600);
        let closing = gate.enter("told", now).unwrap().failed(now, wait, FailureCause::Either);
        assert_eq!(closing, Some(GateClosing { for_all: false, anew: true, is_undisputed: false }));
        assert_eq!(gate.wait("told", now), SECOND * 600);
        assert!(gate.wait("other", now).is_zero());
    }

    #[test]
    fn where_one_failure_is_enough_it_takes_two_tenants_to_close_it_for_all() {
        let (gate, now) = (Arc::new(Gate::new(1, SECOND)), gate().1);
        let closed = |closing: Option<GateClosing>| closing.map(|closing| closing.for_all);
        assert_eq!(closed(fail(&gate, "one", now)), Some(false));
        assert_eq!(closed(fail(&gate, "other", now)), Some(true));
    }
}
