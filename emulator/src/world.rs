//! The faults of an emulator and the calls it has received: a test sets the first and reads the second.
//!
//! Calls are kept in a ring, and their bodies up to a number of bytes, so that a load test cannot fill the memory. The
//! [`Bill`] counts every call and is exact under any concurrency, since one lock protects all of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::call::{Bill, Call};
use crate::fault::Fault;
use crate::hosting::Hosting;
use crate::usage::Usage;

/// The number of calls that are kept individually.
const REMEMBERED_CALLS: usize = 10_000;

/// The most bytes of all kept bodies. The oldest are removed first.
const MOST_KEPT_BYTES: usize = 256 * 1024 * 1024;

/// The state of one emulator.
#[derive(Debug, Default)]
pub struct World {
    keeps_bodies: bool,
    pub(crate) hosting: Hosting,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Armed>,
    calls: VecDeque<Call>,
    last_sequence: u64,
    /// Bytes of the bodies in `calls`.
    kept_bytes: usize,
    bill: Bill,
}

/// A fault, and how many calls it has matched and affected.
#[derive(Debug)]
struct Armed {
    fault: Fault,
    seen: u64,
    struck: u64,
}

impl World {
    /// A world without faults or recorded calls.
    pub(crate) fn new(keeps_bodies: bool) -> Self {
        Self { keeps_bodies, ..Self::default() }
    }

    /// Appends a fault to the list. The first that matches a call affects it.
    pub fn add_fault(&self, fault: Fault) {
        self.state().faults.push(Armed { fault, seen: 0, struck: 0 });
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// The faults that are not used up.
    pub fn faults(&self) -> Vec<Fault> {
        let state = self.state();
        state
            .faults
            .iter()
            .filter(|armed| !armed.spent())
            .map(|armed| armed.fault.clone())
            .collect()
    }

    /// The latest calls, at most 10,000, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.iter().cloned().collect()
    }

    /// The sums over all calls, including those that are no longer kept individually.
    pub fn bill(&self) -> Bill {
        self.state().bill
    }

    /// Removes the calls and resets the sums.
    pub fn clear_calls(&self) {
        let mut state = self.state();
        state.calls.clear();
        state.kept_bytes = 0;
        state.bill = Bill::default();
    }

    /// Hosts a file at an `http`, `https` or `oss` address of an image, compared exactly as written. At most 1,000
    /// files and 256 MiB are kept; the oldest are removed first.
    pub fn host(&self, url: impl Into<String>, file: impl Into<Bytes>) {
        self.hosting.put(url.into(), file.into());
    }

    /// Removes all files, hosted and uploaded.
    pub fn clear_hosted(&self) {
        self.hosting.clear();
    }

    /// Records a call and returns the fault that affects it. Drops the bodies unless they are kept.
    pub(crate) fn receive(self: &Arc<Self>, mut call: Call) -> (Ticket, Option<Fault>) {
        let mut state = self.state();
        state.last_sequence += 1;
        let sequence = state.last_sequence;
        let fault = state.faults.iter_mut().find_map(|armed| armed.strike(&call));
        call.sequence = sequence;
        call.faulted = fault.is_some();
        call.keeps_bodies = self.keeps_bodies;
        if !self.keeps_bodies {
            call.request_body = Bytes::new();
        }
        if state.calls.len() == REMEMBERED_CALLS
            && let Some(mut oldest) = state.calls.pop_front()
        {
            state.kept_bytes -= oldest.forget_bodies();
        }
        state.kept_bytes += call.request_body.len();
        state.calls.push_back(call);
        state.make_room();
        state.bill.received += 1;
        (Ticket { world: Arc::clone(self), sequence }, fault)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The call with this number, while it is kept.
    fn call(&mut self, sequence: u64) -> Option<&mut Call> {
        let first = self.calls.front()?.sequence;
        let index = usize::try_from(sequence.checked_sub(first)?).ok()?;
        self.calls.get_mut(index)
    }

    /// Drops the oldest bodies until the rest is within the limit.
    fn make_room(&mut self) {
        let mut calls = self.calls.iter_mut();
        while self.kept_bytes > MOST_KEPT_BYTES
            && let Some(oldest) = calls.next()
        {
            self.kept_bytes -= oldest.forget_bodies();
        }
    }
}

impl Armed {
    fn spent(&self) -> bool {
        self.fault.schedule.times.is_some_and(|times| self.struck >= times)
    }

    /// Counts this call, and returns the fault if it affects it.
    fn strike(&mut self, call: &Call) -> Option<Fault> {
        if self.spent() || !self.fault.is_for(call) {
            return None;
        }
        self.seen += 1;
        let schedule = self.fault.schedule;
        let turn = self.seen.checked_sub(schedule.skip).filter(|turn| *turn > 0)?;
        if !turn.is_multiple_of(schedule.every.unwrap_or(1)) {
            return None;
        }
        self.struck += 1;
        Some(self.fault.clone())
    }
}

/// Adds to the record of one call.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    world: Arc<World>,
    sequence: u64,
}

impl Ticket {
    /// Adds the call to the bill.
    pub(crate) fn bill(&self, usage: Usage) {
        let mut state = self.world.state();
        state.bill.calls += 1;
        // A replayed answer may state any numbers.
        let bill = &mut state.bill;
        bill.image = bill.image.saturating_add(usage.image);
        bill.text = bill.text.saturating_add(usage.text);
        bill.output = bill.output.saturating_add(usage.output);
        if let Some(call) = state.call(self.sequence) {
            call.billed = Some(usage);
        }
    }

    /// Records the status of the answer.
    pub(crate) fn answered(&self, status: u16) {
        if let Some(call) = self.world.state().call(self.sequence) {
            call.status = Some(status);
        }
    }

    /// Records a part of the answer's body as it is passed to the connection.
    pub(crate) fn handed_over(&self, part: &[u8]) {
        if !self.world.keeps_bodies {
            return;
        }
        let mut state = self.world.state();
        if let Some(call) = state.call(self.sequence).filter(|call| call.keeps_bodies) {
            call.response_body.extend_from_slice(part);
            state.kept_bytes += part.len();
            state.make_room();
        }
    }

    /// Records that the answer was sent completely.
    pub(crate) fn delivered(&self) {
        if let Some(call) = self.world.state().call(self.sequence) {
            call.delivered = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::ImageSeen;

    fn struck(world: &Arc<World>, calls: usize) -> Vec<bool> {
        (0..calls).map(|_| world.receive(Call::default()).1.is_some()).collect()
    }

    #[test]
    fn a_fault_strikes_by_its_schedule_and_is_then_spent() {
        let world = Arc::new(World::default());
        world.add_fault(Fault::reset().skip(1).every(2).times(2));
        assert_eq!(struck(&world, 7), [false, false, true, false, true, false, false]);
        assert!(world.faults().is_empty());
    }

    #[test]
    fn a_fault_of_some_bodies_strikes_no_others() {
        let world = Arc::new(World::default());
        world.add_fault(Fault::reset().for_bodies_with("seed").times(1));
        let call = |body: &'static str| Call { request_body: body.into(), ..Call::default() };
        let struck =
            ["see", "{\"seed\":7}", "seed"].map(|body| world.receive(call(body)).1.is_some());
        assert_eq!(struck, [false, true, false]);
    }

    #[test]
    fn a_fault_of_some_images_strikes_no_others() {
        let world = Arc::new(World::default());
        world.add_fault(Fault::reset().for_images_as_wide_as(600));
        let call = |width| Call {
            images: vec![ImageSeen { width: Some(width), ..ImageSeen::default() }],
            ..Call::default()
        };
        let struck = [599, 600, 600].map(|width| world.receive(call(width)).1.is_some());
        assert_eq!(struck, [false, true, true]);
        assert!(world.receive(Call::default()).1.is_none());
    }

    #[test]
    fn the_first_of_several_faults_strikes() {
        let world = Arc::new(World::default());
        world.add_fault(Fault::reset().times(1));
        world.add_fault(Fault::hang());
        assert_eq!(world.receive(Call::default()).1, Some(Fault::reset().times(1)));
        assert_eq!(world.receive(Call::default()).1, Some(Fault::hang()));
    }

    #[test]
    fn the_bill_counts_calls_that_the_ring_has_dropped() {
        let world = Arc::new(World::default());
        for _ in 0..REMEMBERED_CALLS + 5 {
            world.receive(Call::default()).0.bill(Usage { image: 1, text: 2, output: 3 });
        }
        assert_eq!(world.calls().len(), REMEMBERED_CALLS);
        assert_eq!(world.bill().total(), 6 * (REMEMBERED_CALLS as u64 + 5));
    }

    #[test]
    fn a_ticket_writes_to_its_own_call_after_others_were_forgotten() {
        let world = Arc::new(World::default());
        world.receive(Call::default());
        let lost = world.receive(Call::default()).0;
        world.clear_calls();
        let kept = world.receive(Call::default()).0;
        lost.answered(500);
        kept.answered(200);
        assert_eq!(world.calls()[0].status, Some(200));
    }

    #[test]
    fn the_oldest_bodies_make_room_and_do_not_come_back_in_part() {
        let world = Arc::new(World::new(true));
        let half = || Call { request_body: vec![7; MOST_KEPT_BYTES / 2].into(), ..Call::default() };
        let oldest = world.receive(half()).0;
        let latest = world.receive(half()).0;
        latest.handed_over(b"x");
        oldest.handed_over(b"x");
        let calls = world.calls();
        assert_eq!((calls[0].request_body.len(), calls[0].response_body.len()), (0, 0));
        assert_eq!(calls[1].request_body.len(), MOST_KEPT_BYTES / 2);
        assert_eq!(calls[1].response_body, b"x");
    }
}
