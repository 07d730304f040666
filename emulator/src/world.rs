//! What an emulator was told to do wrong and what it has seen: a test sets it up and reads it back.
//!
//! Calls are kept in a ring, so that a load test cannot fill the memory; the [`Bill`] counts every one
//! of them and is exact under any concurrency, since both change under one lock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::fault::Fault;
use crate::usage::Usage;

/// How many calls are remembered one by one.
const REMEMBERED_CALLS: usize = 10_000;

/// The state of one emulator.
#[derive(Debug, Default)]
pub struct World {
    state: Mutex<State>,
}

/// One call of an inference endpoint.
#[expect(clippy::struct_excessive_bools, reason = "a record of facts, not a state machine")]
#[derive(Debug, Clone, Default, Serialize)]
pub struct Call {
    /// Its number, from 1, in order of arrival.
    pub sequence: u64,
    /// The id that its answer carries.
    pub request_id: String,
    /// The path that was called.
    pub path: String,
    /// The last four characters of the API key.
    pub key_suffix: String,
    /// The names of the headers that came with it, in lower case.
    pub headers: Vec<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The built-in task that was asked for.
    pub task: Option<String>,
    /// Whether the answer was to be streamed.
    pub stream: bool,
    /// Whether a prompt that is not empty came with it.
    pub prompt: bool,
    /// The limit of output tokens that was asked for.
    pub max_tokens: Option<u64>,
    /// The images of all messages, in order.
    pub images: Vec<ImageSeen>,
    /// Whether a scripted fault hit it.
    pub faulted: bool,
    /// The status that was answered; none while it is under way, and where no head was sent.
    pub status: Option<u16>,
    /// What was billed for it.
    pub billed: Option<Usage>,
    /// Whether the answer was handed to the connection to its last byte.
    pub delivered: bool,
}

/// One image as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImageSeen {
    /// The media type that its data URL declared.
    pub media_type: Option<String>,
    /// Its size in bytes, decoded.
    pub bytes: usize,
    /// Its width in pixels as it is to be seen, where its header could be read.
    pub width: Option<u32>,
    /// Its height in pixels as it is to be seen, where its header could be read.
    pub height: Option<u32>,
    /// `min_pixels` inside `image_url`.
    pub min_pixels_inside: Option<i64>,
    /// `max_pixels` inside `image_url`.
    pub max_pixels_inside: Option<i64>,
    /// `min_pixels` beside `image_url` or `image`.
    pub min_pixels_beside: Option<i64>,
    /// `max_pixels` beside `image_url` or `image`.
    pub max_pixels_beside: Option<i64>,
}

/// Sums over all calls since the start or since they were cleared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Bill {
    /// Calls received, billed or not.
    pub received: u64,
    /// Calls billed.
    pub calls: u64,
    /// Image tokens billed.
    pub image: u64,
    /// Text tokens billed.
    pub text: u64,
    /// Output tokens billed.
    pub output: u64,
}

impl Bill {
    /// All tokens billed.
    pub const fn total(&self) -> u64 {
        self.image + self.text + self.output
    }
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Armed>,
    calls: VecDeque<Call>,
    last_sequence: u64,
    bill: Bill,
}

/// A fault and how often it has been looked at and has struck.
#[derive(Debug)]
struct Armed {
    fault: Fault,
    seen: u64,
    struck: u64,
}

impl World {
    /// Adds a fault behind those that are there. The first that matches a call strikes it.
    pub fn add_fault(&self, fault: Fault) {
        self.state().faults.push(Armed { fault, seen: 0, struck: 0 });
    }

    /// Forgets all faults.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// The faults, spent ones left out.
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

    /// The sums over all calls, also over those that are no longer remembered one by one.
    pub fn bill(&self) -> Bill {
        self.state().bill
    }

    /// Forgets the calls and starts the sums again.
    pub fn clear_calls(&self) {
        let mut state = self.state();
        state.calls.clear();
        state.bill = Bill::default();
    }

    /// Enters a call and tells which fault strikes it.
    pub(crate) fn receive(self: &Arc<Self>, mut call: Call) -> (Ticket, Option<Fault>) {
        let mut state = self.state();
        state.last_sequence += 1;
        let sequence = state.last_sequence;
        let fault = state.faults.iter_mut().find_map(Armed::strike);
        call.sequence = sequence;
        call.faulted = fault.is_some();
        if state.calls.len() == REMEMBERED_CALLS {
            state.calls.pop_front();
        }
        state.calls.push_back(call);
        state.bill.received += 1;
        (Ticket { world: Arc::clone(self), sequence }, fault)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The call of that number, while it is remembered.
    fn call(&mut self, sequence: u64) -> Option<&mut Call> {
        let first = self.calls.front()?.sequence;
        let index = usize::try_from(sequence.checked_sub(first)?).ok()?;
        self.calls.get_mut(index)
    }
}

impl Armed {
    fn spent(&self) -> bool {
        self.fault.schedule.times.is_some_and(|times| self.struck >= times)
    }

    /// Looks at one more call and gives the fault if it strikes that one.
    fn strike(&mut self) -> Option<Fault> {
        if self.spent() {
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

/// The right to add to one call's record.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    world: Arc<World>,
    sequence: u64,
}

impl Ticket {
    /// Puts the call on the bill.
    pub(crate) fn bill(&self, usage: Usage) {
        let mut state = self.world.state();
        state.bill.calls += 1;
        state.bill.image += usage.image;
        state.bill.text += usage.text;
        state.bill.output += usage.output;
        if let Some(call) = state.call(self.sequence) {
            call.billed = Some(usage);
        }
    }

    /// Notes the status that is answered.
    pub(crate) fn answered(&self, status: u16) {
        if let Some(call) = self.world.state().call(self.sequence) {
            call.status = Some(status);
        }
    }

    /// Notes that the answer went out whole.
    pub(crate) fn delivered(&self) {
        if let Some(call) = self.world.state().call(self.sequence) {
            call.delivered = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
