//! Whether an endpoint may be asked: a circuit breaker.
//!
//! A *closed* breaker lets every call pass. Consecutive failures that are the endpoint's fault *open* it: no call
//! passes until it has cooled down. Then it is *half open*: one call passes as a probe, and its result decides. So an
//! endpoint that is down gets one call in a cool-down, and one that has recovered is used again after the first
//! successful call (M. Nygard, "Release It!").
//!
//! A call that left before the breaker last changed shows nothing about the time since, and its end is ignored. A
//! cool-down may be made longer, never shorter.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A breaker. The caller passes the time.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// Consecutive failures that open it.
    failures: u32,
    /// How many of these failures may come from one tenant.
    most_of_one: u32,
    /// The number of failures of any tenants that makes it suspect.
    suspicious: u32,
    cool_down: Duration,
    /// How long other calls wait for a probe before another probe is sent: a page may take minutes.
    patience: Duration,
    state: Mutex<BreakerState>,
}

/// The longest that other calls wait for a probe.
const LONGEST_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct BreakerState {
    phase: Phase,
    /// Counts the changes.
    epoch: u64,
    /// The epoch in which it last opened after having been closed.
    opened: u64,
}

#[derive(Debug)]
enum Phase {
    Closed(Run),
    Open { until: Instant },
    HalfOpen { since: Instant },
}

/// Consecutive failures.
#[derive(Debug, Default)]
struct Run {
    /// Failures that count against no tenant.
    of_nobody: u32,
    of_tenants: HashMap<Arc<str>, u32>,
}

impl Run {
    fn add(&mut self, whose: Option<&Arc<str>>) {
        let count = match whose {
            None => &mut self.of_nobody,
            Some(tenant) => self.of_tenants.entry(Arc::clone(tenant)).or_default(),
        };
        *count = count.saturating_add(1);
    }

    /// The number of failures, counting at most `most_of_one` of one tenant.
    fn count(&self, most_of_one: u32) -> u32 {
        let of_tenants = self.of_tenants.values().map(|&count| count.min(most_of_one));
        of_tenants.fold(self.of_nobody, u32::saturating_add)
    }
}

/// How a breaker treats the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerStanding {
    /// Every call passes.
    Closed,
    /// No call passes before this time is over.
    Open(Duration),
    /// The next call is the probe.
    Ready,
    /// A probe is in flight.
    Probing,
}

/// A change that is worth a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerChange {
    /// It opened, or opened again after a probe.
    Opened {
        /// Whether it had been closed before.
        anew: bool,
    },
    /// It closed.
    Closed,
}

/// The right to make one call. If it is dropped before the call has an end, another call may be the probe.
#[derive(Debug)]
pub(crate) struct Pass {
    breaker: Arc<Breaker>,
    epoch: u64,
    is_probe: bool,
}

impl Breaker {
    /// A closed breaker that opens after `failures` in a row, for `cool_down`.
    pub(crate) fn new(failures: u32, cool_down: Duration) -> Self {
        Self::of_failures(failures, failures, cool_down)
    }

    /// A breaker for calls of several tenants, of which none can open it alone: of the failures that count, at most
    /// half, rounded up, may come from one tenant.
    pub(crate) fn of_several(failures: u32, cool_down: Duration) -> Self {
        let several = Self::of_failures(failures.max(2), failures.div_ceil(2), cool_down);
        Self { suspicious: failures, ..several }
    }

    fn of_failures(failures: u32, most_of_one: u32, cool_down: Duration) -> Self {
        let state = BreakerState { phase: Phase::Closed(Run::default()), epoch: 0, opened: 0 };
        let patience = (cool_down * 2).min(LONGEST_PATIENCE);
        Self {
            failures,
            most_of_one,
            suspicious: failures,
            cool_down,
            patience,
            state: Mutex::new(state),
        }
    }

    /// Whether the consecutive failures would suffice to open it if they counted without regard to tenants.
    pub(crate) fn is_suspect(&self) -> bool {
        self.state().is_suspect(self.suspicious)
    }

    /// Lets a call pass.
    ///
    /// # Errors
    ///
    /// The breaker's state, if the call may not pass.
    pub(crate) fn enter(self: &Arc<Self>, now: Instant) -> Result<Pass, BreakerStanding> {
        let mut state = self.state();
        let standing = state.standing(now, self.patience);
        let is_probe = match standing {
            BreakerStanding::Closed => false,
            BreakerStanding::Ready => true,
            BreakerStanding::Open(_) | BreakerStanding::Probing => return Err(standing),
        };
        if is_probe {
            state.change(Phase::HalfOpen { since: now });
        }
        Ok(Pass { breaker: Arc::clone(self), epoch: state.epoch, is_probe })
    }

    /// How long other calls wait for a probe before another probe is sent.
    pub(crate) const fn patience(&self) -> Duration {
        self.patience
    }

    fn standing(&self, now: Instant) -> BreakerStanding {
        self.state().standing(now, self.patience)
    }

    /// Whether every call passes.
    pub(crate) fn is_closed(&self, now: Instant) -> bool {
        self.standing(now) == BreakerStanding::Closed
    }

    /// The least time until it may let a call pass.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        match self.standing(now) {
            BreakerStanding::Closed | BreakerStanding::Ready => Duration::ZERO,
            BreakerStanding::Open(left) => left,
            // If the probe has not ended by then, another one is sent.
            BreakerStanding::Probing => self.patience,
        }
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BreakerState {
    fn is_suspect(&self, suspicious: u32) -> bool {
        match &self.phase {
            Phase::Closed(run) => run.count(u32::MAX) >= suspicious,
            Phase::Open { .. } | Phase::HalfOpen { .. } => true,
        }
    }

    fn standing(&self, now: Instant, patience: Duration) -> BreakerStanding {
        match self.phase {
            Phase::Closed(_) => BreakerStanding::Closed,
            Phase::Open { until } if until > now => {
                BreakerStanding::Open(until.saturating_duration_since(now))
            }
            Phase::HalfOpen { since } if now.saturating_duration_since(since) < patience => {
                BreakerStanding::Probing
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerStanding::Ready,
        }
    }

    fn change(&mut self, phase: Phase) {
        self.phase = phase;
        self.epoch += 1;
    }
}

impl Pass {
    /// The call succeeded, as far as the endpoint is concerned. Also reports [`BreakerChange::Closed`] if the breaker
    /// was closed and suspect.
    pub(crate) fn succeeded(&mut self) -> Option<BreakerChange> {
        let mut state = self.breaker.state();
        let is_current = state.epoch == self.epoch;
        // A probe that was overtaken by another one also proves that the endpoint works.
        let is_late_probe = self.is_probe && self.epoch > state.opened;
        if !is_current && !is_late_probe {
            return None;
        }
        match state.phase {
            Phase::Closed(_) if !is_current => None,
            Phase::Closed(_) => {
                let was_suspect = state.is_suspect(self.breaker.suspicious);
                state.phase = Phase::Closed(Run::default());
                was_suspect.then_some(BreakerChange::Closed)
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => {
                state.change(Phase::Closed(Run::default()));
                (self.epoch, self.is_probe) = (state.epoch, false);
                Some(BreakerChange::Closed)
            }
        }
    }

    /// The call began successfully, and its end is not known yet. That closes the breaker, since a probe may take
    /// minutes to end, but on probation: the next failure opens it again, unless a call succeeded before. A breaker for
    /// several tenants has no probation, since the next failure may be due to one tenant.
    pub(crate) fn began(&mut self) -> Option<BreakerChange> {
        let mut state = self.breaker.state();
        if state.epoch != self.epoch || !matches!(state.phase, Phase::HalfOpen { .. }) {
            return None;
        }
        let Breaker { failures, most_of_one, .. } = *self.breaker;
        let is_for_several = most_of_one < failures;
        let of_nobody = if is_for_several { 0 } else { failures.saturating_sub(1) };
        state.change(Phase::Closed(Run { of_nobody, ..Run::default() }));
        (self.epoch, self.is_probe) = (state.epoch, false);
        Some(BreakerChange::Closed)
    }

    /// Whether other calls wait for the end of this one.
    pub(crate) const fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// The endpoint failed at the call. If that opens the breaker, it stays open for at least `at_least`. The failure
    /// counts against the tenant `whose` call it was, or against no tenant.
    pub(crate) fn failed(
        &mut self,
        now: Instant,
        at_least: Duration,
        whose: Option<&Arc<str>>,
    ) -> Option<BreakerChange> {
        let Breaker { failures, most_of_one, .. } = *self.breaker;
        self.fail(now, at_least, |run| {
            run.add(whose);
            run.count(most_of_one) >= failures
        })
    }

    /// The endpoint refused the call. That opens the breaker at once, for `cool_down` or longer.
    pub(crate) fn refused(&mut self, now: Instant, cool_down: Duration) -> Option<BreakerChange> {
        self.fail(now, cool_down, |_| true)
    }

    /// Opens the breaker if it is closed and `is_enough` holds for the run, or if it was half open.
    fn fail(
        &mut self,
        now: Instant,
        at_least: Duration,
        is_enough: impl FnOnce(&mut Run) -> bool,
    ) -> Option<BreakerChange> {
        let mut state = self.breaker.state();
        let until = now + self.breaker.cool_down.max(at_least);
        if state.epoch != self.epoch {
            // It has opened meanwhile. This can only extend the cool-down.
            if let Phase::Open { until: end } = state.phase {
                state.phase = Phase::Open { until: end.max(now + at_least) };
            }
            return None;
        }
        self.is_probe = false;
        if let Phase::Closed(run) = &mut state.phase
            && !is_enough(run)
        {
            return None;
        }
        let anew = matches!(state.phase, Phase::Closed(_));
        state.change(Phase::Open { until });
        if anew {
            state.opened = state.epoch;
        }
        Some(BreakerChange::Opened { anew })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.breaker.state();
        if let Phase::HalfOpen { since } = state.phase
            && self.is_probe
            && state.epoch == self.epoch
        {
            state.change(Phase::Open { until: since });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NONE: Duration = Duration::ZERO;

    fn breaker() -> (Arc<Breaker>, Instant) {
        let now = crate::clock::Clock::instant(&crate::clock::SystemClock);
        (Arc::new(Breaker::new(3, SECOND)), now)
    }

    fn fail(breaker: &Arc<Breaker>, now: Instant) -> Option<BreakerChange> {
        breaker.enter(now).unwrap().failed(now, NONE, None)
    }

    fn open(breaker: &Arc<Breaker>, now: Instant) {
        assert_eq!([fail(breaker, now), fail(breaker, now)], [None, None]);
        assert_eq!(fail(breaker, now), Some(BreakerChange::Opened { anew: true }));
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_starts_the_count_anew() {
        let (breaker, now) = breaker();
        assert_eq!([fail(&breaker, now), fail(&breaker, now)], [None, None]);
        assert_eq!(breaker.enter(now).unwrap().succeeded(), None);
        open(&breaker, now);
        assert_eq!(breaker.enter(now).unwrap_err(), BreakerStanding::Open(SECOND));
        assert_eq!(breaker.wait(now + SECOND / 4), SECOND * 3 / 4);
    }

    #[test]
    fn after_the_cool_down_one_call_probes_and_the_others_wait_for_it() {
        let (breaker, now) = breaker();
        open(&breaker, now);
        let later = now + SECOND;
        let mut probe = breaker.enter(later).unwrap();
        assert_eq!(breaker.enter(later).unwrap_err(), BreakerStanding::Probing);
        assert_eq!(probe.succeeded(), Some(BreakerChange::Closed));
        assert!(breaker.enter(later).is_ok() && breaker.enter(later).is_ok());
    }

    #[test]
    fn a_probe_that_fails_opens_it_for_another_cool_down() {
        let (breaker, now) = breaker();
        open(&breaker, now);
        let later = now + SECOND;
        let mut probe = breaker.enter(later).unwrap();
        assert_eq!(probe.failed(later, NONE, None), Some(BreakerChange::Opened { anew: false }));
        assert_eq!(breaker.enter(later).unwrap_err(), BreakerStanding::Open(SECOND));
    }

    #[test]
    fn a_probe_that_takes_long_is_followed_by_another_and_closes_it_when_it_is_back() {
        let (breaker, now) = breaker();
        open(&breaker, now);
        let later = now + SECOND;
        let mut slow = breaker.enter(later).unwrap();
        assert!(breaker.enter(later + SECOND).is_err());
        let mut hanging = breaker.enter(later + SECOND * 2).unwrap();
        assert_eq!(slow.succeeded(), Some(BreakerChange::Closed));
        assert!(breaker.enter(later + SECOND * 2).is_ok());
        assert_eq!(hanging.failed(later + SECOND * 9, NONE, None), None, "it was sent before that");
    }

    #[test]
    fn calls_that_begin_well_and_break_off_open_it_like_any_others() {
        let (breaker, now) = breaker();
        for outcome in [None, None, Some(BreakerChange::Opened { anew: true })] {
            let mut stream = breaker.enter(now).unwrap();
            assert_eq!(stream.began(), None);
            assert_eq!(stream.failed(now, NONE, None), outcome);
        }
    }

    #[test]
    fn a_probe_that_began_well_closes_it_until_the_next_failure() {
        let (breaker, now) = breaker();
        open(&breaker, now);
        let mut probe = breaker.enter(now + SECOND).unwrap();
        assert_eq!(probe.began(), Some(BreakerChange::Closed));
        let mut other = breaker.enter(now + SECOND).unwrap();
        assert_eq!(
            other.failed(now + SECOND, NONE, None),
            Some(BreakerChange::Opened { anew: true })
        );
        assert_eq!(probe.succeeded(), None, "it has opened since");
        let mut probe = breaker.enter(now + SECOND * 2).unwrap();
        assert_eq!((probe.began(), probe.succeeded()), (Some(BreakerChange::Closed), None));
        open(&breaker, now + SECOND * 2);
    }

    #[test]
    fn failures_of_one_tenant_do_not_open_a_breaker_of_several() {
        let now = crate::clock::Clock::instant(&crate::clock::SystemClock);
        for failures in 1..8 {
            let breaker = Arc::new(Breaker::of_several(failures, SECOND));
            let fail =
                |tenant: &str| breaker.enter(now).unwrap().failed(now, NONE, Some(&tenant.into()));
            for _ in 0..100 {
                assert_eq!(fail("one"), None, "{failures}");
            }
            assert!(breaker.is_suspect());
            let others = (1..100).find(|_| fail("other").is_some()).unwrap();
            assert_eq!(others, (failures / 2).max(1), "{failures}");
        }
    }

    #[test]
    fn failures_that_are_nobody_s_open_a_breaker_of_several() {
        let now = crate::clock::Clock::instant(&crate::clock::SystemClock);
        let breaker = Arc::new(Breaker::of_several(3, SECOND));
        open(&breaker, now);
        let mut probe = breaker.enter(now + SECOND).unwrap();
        assert_eq!(probe.began(), Some(BreakerChange::Closed));
        assert_eq!(fail(&breaker, now + SECOND), None, "it is not on probation");
    }

    #[test]
    fn a_probe_that_is_given_up_makes_way_for_another() {
        let (breaker, now) = breaker();
        open(&breaker, now);
        drop(breaker.enter(now + SECOND).unwrap());
        assert!(breaker.enter(now + SECOND).is_ok());
    }

    #[test]
    fn a_cool_down_becomes_longer_and_never_shorter() {
        let (breaker, now) = breaker();
        let mut late = [breaker.enter(now).unwrap(), breaker.enter(now).unwrap()];
        open(&breaker, now);
        assert_eq!(late[0].failed(now, SECOND * 60, None), None);
        assert_eq!(breaker.standing(now), BreakerStanding::Open(SECOND * 60));
        assert_eq!(late[1].failed(now, SECOND * 2, None), None);
        assert_eq!(breaker.standing(now), BreakerStanding::Open(SECOND * 60));
    }

    #[test]
    fn what_left_before_it_opened_does_not_close_it() {
        let (breaker, now) = breaker();
        let mut early = breaker.enter(now).unwrap();
        open(&breaker, now);
        assert_eq!(early.succeeded(), None);
        let mut probe = breaker.enter(now + SECOND).unwrap();
        assert_eq!(early.succeeded(), None);
        assert_eq!(breaker.standing(now + SECOND), BreakerStanding::Probing);
        assert_eq!(probe.succeeded(), Some(BreakerChange::Closed));
        assert_eq!(early.failed(now + SECOND, NONE, None), None, "nor does it count afterwards");
    }
}
