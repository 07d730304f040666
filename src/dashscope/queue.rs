//! Whose call is next: start-time fair queueing.
//!
//! Calls of one model wait in one queue, and a tenant with a thousand pages must not make one with a
//! single page wait for all of them. Each call gets a *start*: the time, in the queue's own reckoning, at
//! which its tenant would be served if all that wait were served side by side at the same pace. The
//! lowest start is next (P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996). What a call
//! costs is the time that it takes of the way, so tenants share that and not the number of calls.
//!
//! The queue is bounded. A newcomer who finds it full takes the place of the last call of whoever waits
//! with most, and is refused only if that is itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::pace::Work;

/// Tenants with nothing waiting are forgotten when they are more than these and those that wait.
const IDLE_FLOWS: usize = 64;

/// A call in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(u64);

/// Its place, in the order of service.
type Place = (Duration, Ticket);

/// A call that wants to wait.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// Whose it is.
    pub(super) tenant: Box<str>,
    /// The time that it takes of the way.
    pub(super) cost: Duration,
    /// The tokens that it takes.
    pub(super) tokens: u64,
    /// Rung when the call should look where it stands.
    pub(super) bell: Arc<Notify>,
}

/// Calls that wait.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    waiting: BTreeMap<Place, Arrival>,
    starts: HashMap<Ticket, Duration>,
    flows: HashMap<Box<str>, Flow>,
    /// The start of the call that was served last.
    time: Duration,
    tickets: u64,
}

/// What is known of one tenant.
#[derive(Debug, Default)]
struct Flow {
    /// When its last call would have been served.
    finish: Duration,
    waiting: usize,
}

impl FairQueue {
    /// Puts a call where it belongs.
    pub(super) fn join(&mut self, arrival: Arrival) -> Ticket {
        let start = self.start_of(&arrival.tenant);
        let flow = self.flows.entry(arrival.tenant.clone()).or_default();
        flow.finish = start.saturating_add(arrival.cost);
        flow.waiting += 1;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.starts.insert(ticket, start);
        self.waiting.insert((start, ticket), arrival);
        ticket
    }

    /// Makes room for a call of `tenant` where `most` wait already; false where there is none for it.
    pub(super) fn make_room(&mut self, tenant: &str, most: usize) -> bool {
        if self.waiting.len() < most {
            return true;
        }
        let own = self.flows.get(tenant).map_or(0, |flow| flow.waiting);
        let longest = self.flows.iter().max_by_key(|(_, flow)| flow.waiting);
        let Some((longest, _)) = longest.filter(|(_, flow)| flow.waiting > own + 1) else {
            return false;
        };
        let mut from_the_end = self.waiting.iter().rev();
        let last = from_the_end.find(|(_, arrival)| arrival.tenant == *longest);
        let Some(ticket) = last.map(|((_, ticket), _)| *ticket) else { return false };
        self.leave(ticket);
        true
    }

    /// Whether the call waits still.
    pub(super) fn holds(&self, ticket: Ticket) -> bool {
        self.starts.contains_key(&ticket)
    }

    /// Whether the call is next.
    pub(super) fn is_first(&self, ticket: Ticket) -> bool {
        self.waiting.first_key_value().is_some_and(|((_, first), _)| *first == ticket)
    }

    /// Takes out a call that was served.
    pub(super) fn serve(&mut self, ticket: Ticket) {
        let Some((start, arrival)) = self.take_out(ticket) else { return };
        self.time = self.time.max(start);
        if self.waiting.is_empty() {
            // Where nobody waits, nobody is owed anything.
            self.flows.clear();
            return;
        }
        let idle = |flow: &Flow| flow.waiting == 0 && flow.finish <= self.time;
        if self.flows.get(&arrival.tenant).is_some_and(idle) {
            self.flows.remove(&arrival.tenant);
        }
        if self.flows.len() > self.waiting.len() + IDLE_FLOWS {
            self.flows.retain(|_, flow| !idle(flow));
        }
    }

    /// Takes out a call that was not: those of its tenant that stand behind it move up.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        let Some((start, arrival)) = self.take_out(ticket) else { return };
        arrival.bell.notify_one();
        let Arrival { tenant, cost, .. } = arrival;
        let mut end = start.saturating_add(cost);
        let mut moved = Vec::new();
        for ((start, ticket), behind) in self.waiting.range((start, ticket)..) {
            if behind.tenant != tenant {
                continue;
            }
            if *start != end {
                // It came after a rest, and owes nothing to those before it.
                break;
            }
            end = start.saturating_add(behind.cost);
            moved.push((*start, *ticket));
        }
        for place in moved {
            let Some(behind) = self.waiting.remove(&place) else { continue };
            let start = place.0.saturating_sub(cost);
            self.starts.insert(place.1, start);
            self.waiting.insert((start, place.1), behind);
        }
        if let Some(flow) = self.flows.get_mut(&tenant)
            && flow.finish == end
        {
            flow.finish = end.saturating_sub(cost);
        }
    }

    /// Sends all away, in order, and forgets who was owed what.
    pub(super) fn clear(&mut self) {
        for arrival in std::mem::take(&mut self.waiting).into_values() {
            arrival.bell.notify_one();
        }
        self.starts.clear();
        self.flows.clear();
    }

    /// The calls that would be served before a new one of `tenant`.
    pub(super) fn work_before(&self, tenant: &str) -> Work {
        self.work_before_place((self.start_of(tenant), Ticket(u64::MAX)))
    }

    /// The calls that will be served before this one.
    pub(super) fn work_ahead_of(&self, ticket: Ticket) -> Work {
        let start = self.starts.get(&ticket).copied().unwrap_or_default();
        self.work_before_place((start, ticket))
    }

    fn work_before_place(&self, place: Place) -> Work {
        let before = self.waiting.range(..place);
        before.fold(Work::default(), |work, (_, arrival)| Work {
            requests: work.requests + 1,
            tokens: work.tokens.saturating_add(arrival.tokens),
        })
    }

    /// Rings for the call that is next.
    pub(super) fn ring_first(&self) {
        if let Some((_, arrival)) = self.waiting.first_key_value() {
            arrival.bell.notify_one();
        }
    }

    /// Rings for all.
    pub(super) fn ring_all(&self) {
        for arrival in self.waiting.values() {
            arrival.bell.notify_one();
        }
    }

    fn start_of(&self, tenant: &str) -> Duration {
        let finish = self.flows.get(tenant).map_or(Duration::ZERO, |flow| flow.finish);
        finish.max(self.time)
    }

    fn take_out(&mut self, ticket: Ticket) -> Option<(Duration, Arrival)> {
        let start = self.starts.remove(&ticket)?;
        let arrival = self.waiting.remove(&(start, ticket))?;
        if let Some(flow) = self.flows.get_mut(&arrival.tenant) {
            flow.waiting -= 1;
        }
        Some((start, arrival))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arrival(tenant: &str, cost: u64) -> Arrival {
        let cost = Duration::from_millis(cost);
        Arrival { tenant: tenant.into(), cost, tokens: 1, bell: Arc::default() }
    }

    impl FairQueue {
        fn serve_first(&mut self) -> Option<Box<str>> {
            let ((_, ticket), arrival) = self.waiting.first_key_value()?;
            let (ticket, tenant) = (*ticket, arrival.tenant.clone());
            assert!(self.is_first(ticket));
            self.serve(ticket);
            Some(tenant)
        }
    }

    #[test]
    fn one_page_does_not_wait_for_another_tenant_s_thousand() {
        let mut queue = FairQueue::default();
        for _ in 0..1_000 {
            queue.join(arrival("many", 50));
        }
        queue.serve_first();
        queue.join(arrival("one", 50));
        assert_eq!(queue.work_before("other").requests, 1, "only the one page");
        let order: Vec<_> = (0..2).filter_map(|_| queue.serve_first()).collect();
        assert!(order.contains(&"one".into()), "{order:?}");
    }

    #[test]
    fn tenants_share_time_and_not_the_number_of_calls() {
        let mut queue = FairQueue::default();
        for _ in 0..100 {
            queue.join(arrival("dear", 300));
            queue.join(arrival("cheap", 100));
        }
        let served: Vec<_> = (0..100).filter_map(|_| queue.serve_first()).collect();
        let dear = served.iter().filter(|tenant| &***tenant == "dear").count();
        assert!((24..=26).contains(&dear), "{dear} of 100 calls, at three times the cost");
    }

    #[test]
    fn a_tenant_that_rested_saves_nothing_up() {
        let mut queue = FairQueue::default();
        for _ in 0..50 {
            queue.join(arrival("busy", 10));
            queue.serve_first();
        }
        for _ in 0..10 {
            queue.join(arrival("busy", 10));
            queue.join(arrival("rested", 10));
        }
        let served: Vec<_> = (0..10).filter_map(|_| queue.serve_first()).collect();
        assert!(served.iter().filter(|tenant| &***tenant == "rested").count() <= 6, "{served:?}");
    }

    #[test]
    fn who_is_sent_away_and_comes_back_finds_the_queue_as_fair_as_before() {
        let mut queue = FairQueue::default();
        for tenant in ["many", "some"] {
            for _ in 0..if tenant == "many" { 90 } else { 10 } {
                queue.join(arrival(tenant, 50));
            }
        }
        queue.serve_first();
        queue.clear();
        for _ in 0..89 {
            queue.join(arrival("many", 50));
        }
        for _ in 0..10 {
            queue.join(arrival("some", 50));
        }
        let served: Vec<_> = (0..10).filter_map(|_| queue.serve_first()).collect();
        assert_eq!(served.iter().filter(|tenant| &***tenant == "some").count(), 5, "{served:?}");
        queue.join(arrival("one", 50));
        let next: Vec<_> = (0..3).filter_map(|_| queue.serve_first()).collect();
        assert!(next.contains(&"one".into()), "{next:?}");
    }

    #[test]
    fn those_behind_a_call_that_leaves_move_up_in_order() {
        let mut queue = FairQueue::default();
        let tickets: Vec<_> = (0..4).map(|_| queue.join(arrival("many", 50))).collect();
        queue.join(arrival("other", 50));
        queue.leave(tickets[1]);
        queue.leave(tickets[2]);
        let starts = |queue: &FairQueue| {
            [tickets[0], tickets[3]].map(|ticket| queue.starts[&ticket].as_millis())
        };
        assert_eq!(starts(&queue), [0, 50]);
        let next = queue.join(arrival("many", 50));
        assert_eq!(queue.starts[&next].as_millis(), 100);
        let order: Vec<_> = (0..3).filter_map(|_| queue.serve_first()).collect();
        assert_eq!(order, ["many".into(), "other".into(), "many".into()] as [Box<str>; 3]);
    }

    #[test]
    fn a_full_queue_makes_room_at_the_cost_of_whoever_waits_with_most() {
        let mut queue = FairQueue::default();
        let places: Vec<_> = (0..4).map(|_| queue.join(arrival("many", 1))).collect();
        assert!(!queue.make_room("many", 4), "its own last call would have to go");
        assert!(queue.make_room("one", 4));
        assert!(!queue.holds(places[3]) && queue.holds(places[2]));
        queue.join(arrival("one", 1));
        assert!(queue.make_room("one", 4));
        queue.join(arrival("one", 1));
        assert!(!queue.make_room("one", 4) && !queue.make_room("many", 4), "two and two");
    }

    #[test]
    fn tenants_that_left_are_forgotten() {
        let mut queue = FairQueue::default();
        for tenant in 0..10_000 {
            queue.join(arrival(&format!("t{tenant}"), 1));
            queue.serve_first();
        }
        assert!(queue.flows.len() <= IDLE_FLOWS + 1, "{}", queue.flows.len());
    }

    proptest! {
        #[test]
        fn however_calls_come_and_go_tenants_that_always_wait_get_the_same(
            costs in prop::collection::vec((1..500_u64, any::<bool>()), 400..600),
        ) {
            let mut queue = FairQueue::default();
            let mut served = HashMap::<Box<str>, u64>::new();
            let tenants = ["a", "b", "c", "d"];
            let mut queued = HashMap::<Box<str>, std::collections::VecDeque<u64>>::new();
            let mut costs = costs.into_iter();
            for tenant in tenants {
                for (cost, _) in costs.by_ref().take(3) {
                    queue.join(arrival(tenant, cost));
                    queued.entry(tenant.into()).or_default().push_back(cost);
                }
            }
            for (cost, leaves) in costs {
                let tenant = queue.serve_first().unwrap();
                let of_tenant = queued.get_mut(&tenant).unwrap();
                *served.entry(tenant.clone()).or_default() += of_tenant.pop_front().unwrap();
                if leaves {
                    let place = queue.join(arrival(&tenant, cost));
                    queue.leave(place);
                }
                queue.join(arrival(&tenant, cost));
                of_tenant.push_back(cost);
            }
            let (most, least) = (served.values().max().unwrap(), served.values().min().unwrap());
            prop_assert!(most - least <= 2 * 500, "{served:?}");
        }
    }
}
