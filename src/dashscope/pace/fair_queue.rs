//! Chooses the next call: start-time fair queueing.
//!
//! Calls of one model wait in one queue, and a tenant with a thousand pages must not make one with a single page wait
//! for all of them. Each call has a *start*: the time, in the queue's own count, at which its tenant would be served if
//! all tenants were served side by side at the same rate. The lowest start is next (P. Goyal, H. Vin, H. Cheng,
//! "Start-time Fair Queuing", SIGCOMM 1996). The cost of a call is the time that it takes of the rate, so tenants share
//! time and not the number of calls.
//!
//! The calls of one tenant wait in one row: each starts where the one before it ends. Each call stores the total of its
//! row up to itself. So one binary search in each row finds the work before a position, and a call that leaves a row at
//! either end changes no other.
//!
//! The queue is bounded. A call that finds it full displaces the last call of the tenant that waits with most, and is
//! refused only if that tenant is its own.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::controller::Work;

/// A call in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(u64);

/// The order of service: the start of a call, and among equal starts the order of arrival.
type Rank = (Duration, Ticket);

/// A call that is to join the queue.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) tenant: Arc<str>,
    /// The time that the call takes of the rate.
    pub(crate) cost: Duration,
    /// The tokens that the call takes.
    pub(crate) tokens: u64,
    /// Notified when the call should look at its position.
    pub(crate) notify: Arc<Notify>,
}

/// The queue of waiting calls.
#[derive(Debug, Default)]
pub(crate) struct FairQueue {
    rows: HashMap<Arc<str>, TenantQueue>,
    /// The first call of each row that has one, in the order of service.
    heads: BTreeMap<Rank, Arc<str>>,
    /// The tenant of each call that waits.
    tenants: HashMap<Ticket, Arc<str>>,
    /// The lowest start when a call was served last. No call that waits starts before it.
    time: Duration,
    tickets: u64,
    /// Calls that were looked at, for tests of how the work grows.
    #[cfg(test)]
    pub(crate) steps: std::cell::Cell<u64>,
}

/// The calls of one tenant, in order.
#[derive(Debug, Default)]
struct TenantQueue {
    /// When the first call starts. Without calls, the earliest start of the next one.
    start: Duration,
    calls: VecDeque<QueuedCall>,
    /// The offset of the totals.
    origin: Amount,
}

/// A call that waits.
#[derive(Debug)]
struct QueuedCall {
    ticket: Ticket,
    takes: Amount,
    /// The offset plus the amounts of this call and all before it.
    total: Amount,
    notify: Arc<Notify>,
}

/// The amounts that calls take.
#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    time: Duration,
    tokens: u64,
}

impl FairQueue {
    /// Appends a call to its tenant's row.
    pub(crate) fn join(&mut self, arrival: Arrival) -> Ticket {
        let Arrival { tenant, cost, tokens, notify } = arrival;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let row = self.rows.entry(Arc::clone(&tenant)).or_default();
        if row.calls.is_empty() {
            row.start = row.start.max(self.time);
            row.origin = Amount::default();
            self.heads.insert((row.start, ticket), Arc::clone(&tenant));
        }
        let takes = Amount { time: cost, tokens };
        let total = row.total().plus(takes);
        row.calls.push_back(QueuedCall { ticket, takes, total, notify });
        self.tenants.insert(ticket, tenant);
        ticket
    }

    /// Makes room for a call of `tenant` if `most` wait already. Returns false if there is none for it.
    pub(crate) fn make_room(&mut self, tenant: &str, most: usize) -> bool {
        if self.tenants.len() < most {
            return true;
        }
        let own = self.rows.get(tenant).map_or(0, |row| row.calls.len());
        let longest = self.rows.values().max_by_key(|row| row.calls.len());
        let longest = longest.filter(|row| row.calls.len() > own + 1);
        let Some(last) = longest.and_then(|row| row.calls.back()) else { return false };
        self.leave(last.ticket);
        true
    }

    /// Whether the call is still queued.
    pub(crate) fn holds(&self, ticket: Ticket) -> bool {
        self.tenants.contains_key(&ticket)
    }

    /// Whether the call is next.
    pub(crate) fn is_first(&self, ticket: Ticket) -> bool {
        self.heads.first_key_value().is_some_and(|((_, first), _)| *first == ticket)
    }

    /// Removes a call that was served.
    pub(crate) fn serve(&mut self, ticket: Ticket) {
        // Not the start of this call: since it became the first, another call may have joined ahead of it.
        let lowest = self.heads.first_key_value().map(|((start, _), _)| *start);
        let Some((tenant, call)) = self.remove(ticket) else { return };
        self.time = self.time.max(lowest.unwrap_or_default());
        if self.tenants.is_empty() {
            // When the queue is empty, no tenant is ahead of another.
            self.rows.clear();
            return;
        }
        self.change(&tenant, |row| row.start = row.start.saturating_add(call.takes.time));
        // A row without calls is kept only until its tenant is no longer ahead of the others.
        self.rows.retain(|_, row| !row.calls.is_empty() || row.start > self.time);
    }

    /// Removes a call that was not served. The later calls of its tenant move up.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        if let Some((_, call)) = self.remove(ticket) {
            call.notify.notify_one();
        }
    }

    /// Removes and notifies all calls, in order, and resets the fairness between tenants.
    pub(crate) fn clear(&mut self) {
        self.notify_all();
        self.heads.clear();
        self.tenants.clear();
        self.rows.clear();
    }

    /// The calls that would be served before a new one of `tenant`.
    pub(crate) fn work_before(&self, tenant: &str) -> Work {
        let finish = self.rows.get(tenant).map_or(Duration::ZERO, TenantQueue::finish);
        self.work_before_rank((finish.max(self.time), Ticket(u64::MAX)))
    }

    /// The calls that will be served before this one.
    pub(crate) fn work_ahead_of(&self, ticket: Ticket) -> Work {
        self.rank_of(ticket).map_or_else(Work::default, |rank| self.work_before_rank(rank))
    }

    fn work_before_rank(&self, rank: Rank) -> Work {
        let mut work = Work::default();
        for row in self.heads.range(..rank).filter_map(|(_, tenant)| self.rows.get(tenant)) {
            let before = row.calls.partition_point(|call| {
                self.step();
                row.rank_of(call) < rank
            });
            let Some(last) = before.checked_sub(1).and_then(|last| row.calls.get(last)) else {
                continue;
            };
            work.requests += before as u64;
            work.tokens = work.tokens.saturating_add(last.total.minus(row.origin).tokens);
        }
        work
    }

    /// Notifies the call that is next.
    pub(crate) fn notify_first(&self) {
        let first = self.heads.values().next().and_then(|tenant| self.rows.get(tenant));
        if let Some(call) = first.and_then(|row| row.calls.front()) {
            call.notify.notify_one();
        }
    }

    /// Notifies all calls, in order.
    pub(crate) fn notify_all(&self) {
        let of_row = |row: &'_ TenantQueue| -> Vec<_> {
            row.calls.iter().map(|call| (row.rank_of(call), Arc::clone(&call.notify))).collect()
        };
        let mut calls: Vec<_> = self.rows.values().flat_map(of_row).collect();
        calls.sort_unstable_by_key(|(rank, _)| *rank);
        for (_, notify) in calls {
            notify.notify_one();
        }
    }

    fn rank_of(&self, ticket: Ticket) -> Option<Rank> {
        let row = self.rows.get(self.tenants.get(&ticket)?)?;
        Some(row.rank_of(row.calls.get(row.index_of(ticket)?)?))
    }

    fn remove(&mut self, ticket: Ticket) -> Option<(Arc<str>, QueuedCall)> {
        let tenant = self.tenants.remove(&ticket)?;
        let call = self.change(&tenant, |row| row.remove(row.index_of(ticket)?))??;
        Some((tenant, call))
    }

    /// Changes the row of a tenant, and keeps its first call among the heads.
    fn change<T>(
        &mut self,
        tenant: &Arc<str>,
        change: impl FnOnce(&mut TenantQueue) -> T,
    ) -> Option<T> {
        let row = self.rows.get_mut(tenant)?;
        if let Some(head) = row.calls.front() {
            self.heads.remove(&row.rank_of(head));
        }
        let changed = change(row);
        if let Some(head) = row.calls.front() {
            self.heads.insert(row.rank_of(head), Arc::clone(tenant));
        }
        Some(changed)
    }

    /// Counts a call as visited.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "only tests count"))]
    fn step(&self) {
        #[cfg(test)]
        self.steps.set(self.steps.get() + 1);
    }
}

impl TenantQueue {
    /// The offset plus the total of all calls.
    fn total(&self) -> Amount {
        self.calls.back().map_or(self.origin, |last| last.total)
    }

    /// When the last call ends.
    fn finish(&self) -> Duration {
        self.start.saturating_add(self.total().minus(self.origin).time)
    }

    fn rank_of(&self, call: &QueuedCall) -> Rank {
        let before = call.total.minus(call.takes).minus(self.origin);
        (self.start.saturating_add(before.time), call.ticket)
    }

    fn index_of(&self, ticket: Ticket) -> Option<usize> {
        self.calls.binary_search_by_key(&ticket, |call| call.ticket).ok()
    }

    /// Removes a call and corrects the totals on its shorter side.
    fn remove(&mut self, index: usize) -> Option<QueuedCall> {
        let call = self.calls.remove(index)?;
        if index <= self.calls.len() / 2 {
            self.origin = self.origin.plus(call.takes);
            for before in self.calls.iter_mut().take(index) {
                before.total = before.total.plus(call.takes);
            }
        } else {
            for behind in self.calls.iter_mut().skip(index) {
                behind.total = behind.total.minus(call.takes);
            }
        }
        Some(call)
    }
}

impl Amount {
    const fn plus(self, other: Self) -> Self {
        Self {
            time: self.time.saturating_add(other.time),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            time: self.time.saturating_sub(other.time),
            tokens: self.tokens.saturating_sub(other.tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arrival(tenant: &str, cost: u64) -> Arrival {
        let cost = Duration::from_millis(cost);
        Arrival { tenant: tenant.into(), cost, tokens: 1, notify: Arc::default() }
    }

    impl FairQueue {
        pub(in super::super) fn len(&self) -> usize {
            self.tenants.len()
        }

        fn serve_first(&mut self) -> Option<Arc<str>> {
            let ((_, ticket), tenant) = self.heads.first_key_value()?;
            let (ticket, tenant) = (*ticket, Arc::clone(tenant));
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
            [tickets[0], tickets[3]].map(|ticket| queue.rank_of(ticket).unwrap().0.as_millis())
        };
        assert_eq!(starts(&queue), [0, 50]);
        let next = queue.join(arrival("many", 50));
        assert_eq!(queue.rank_of(next).unwrap().0.as_millis(), 100);
        let order: Vec<_> = (0..3).filter_map(|_| queue.serve_first()).collect();
        assert_eq!(order, ["many".into(), "other".into(), "many".into()] as [Arc<str>; 3]);
    }

    #[test]
    fn a_call_that_is_served_out_of_turn_sets_no_newcomer_back() {
        let mut queue = FairQueue::default();
        queue.join(arrival("a", 50));
        let overtaken = queue.join(arrival("a", 50));
        let first = queue.join(arrival("b", 50));
        queue.serve_first();
        queue.serve(overtaken);
        assert!(queue.is_first(first));
        let next = [queue.join(arrival("c", 50)), queue.join(arrival("a", 50))];
        let starts = next.map(|ticket| queue.rank_of(ticket).unwrap().0.as_millis());
        assert_eq!(starts, [0, 100]);
    }

    #[test]
    fn a_full_queue_makes_room_at_the_cost_of_the_tenant_that_waits_with_most() {
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
        assert!(queue.rows.len() <= 1, "{}", queue.rows.len());
    }

    /// A reference implementation that stores every start and recomputes every sum.
    #[derive(Default)]
    struct Naive {
        calls: Vec<NaiveCall>,
        finishes: HashMap<&'static str, u64>,
        time: u64,
    }

    struct NaiveCall {
        tenant: &'static str,
        place: (u64, Ticket),
        cost: u64,
        tokens: u64,
    }

    impl Naive {
        fn start_of(&self, tenant: &str) -> u64 {
            self.finishes.get(tenant).copied().unwrap_or_default().max(self.time)
        }

        fn join(&mut self, tenant: &'static str, ticket: Ticket, cost: u64, tokens: u64) {
            let start = self.start_of(tenant);
            self.finishes.insert(tenant, start + cost);
            self.calls.push(NaiveCall { tenant, place: (start, ticket), cost, tokens });
        }

        fn serve(&mut self, index: usize) {
            self.time = self.time.max(self.calls.iter().map(|call| call.place.0).min().unwrap());
            self.calls.remove(index);
            if self.calls.is_empty() {
                self.finishes.clear();
            }
        }

        fn leave(&mut self, index: usize) {
            let gone = self.calls.remove(index);
            let of_tenant = self.calls.iter_mut().filter(|call| call.tenant == gone.tenant);
            for call in of_tenant.filter(|call| call.place > gone.place) {
                call.place.0 -= gone.cost;
            }
            *self.finishes.get_mut(gone.tenant).unwrap() -= gone.cost;
        }

        fn work_before(&self, place: (u64, Ticket)) -> Work {
            let before = self.calls.iter().filter(|call| call.place < place);
            before.fold(Work::default(), |work, call| Work {
                requests: work.requests + 1,
                tokens: work.tokens + call.tokens,
            })
        }

        fn first(&self) -> usize {
            let calls = self.calls.iter().enumerate();
            calls.min_by_key(|(_, call)| call.place).unwrap().0
        }
    }

    proptest! {
        #[test]
        fn the_work_before_a_place_is_the_sum_of_all_calls_before_it(
            steps in prop::collection::vec((0..4_usize, 0..6_u8, 0..400_u64, any::<prop::sample::Index>()), 1..200),
        ) {
            const TENANTS: [&str; 4] = ["a", "b", "c", "d"];
            let (mut queue, mut naive) = (FairQueue::default(), Naive::default());
            for (tenant, step, amount, any) in steps {
                match step {
                    4 if !naive.calls.is_empty() => {
                        let first = naive.first();
                        prop_assert!(queue.is_first(naive.calls[first].place.1));
                        queue.serve(naive.calls[first].place.1);
                        naive.serve(first);
                    }
                    5 if !naive.calls.is_empty() => {
                        let index = any.index(naive.calls.len());
                        queue.leave(naive.calls[index].place.1);
                        naive.leave(index);
                    }
                    _ => {
                        let (tenant, tokens) = (TENANTS[tenant], amount / 3);
                        let ticket = queue.join(Arrival { tokens, ..arrival(tenant, amount) });
                        naive.join(tenant, ticket, amount, tokens);
                    }
                }
                for call in &naive.calls {
                    let expected = naive.work_before(call.place);
                    prop_assert_eq!(queue.work_ahead_of(call.place.1), expected);
                }
                for tenant in TENANTS {
                    let place = (naive.start_of(tenant), Ticket(u64::MAX));
                    prop_assert_eq!(queue.work_before(tenant), naive.work_before(place));
                }
            }
        }

        #[test]
        fn however_calls_come_and_go_tenants_that_always_wait_get_the_same(
            costs in prop::collection::vec((1..500_u64, any::<bool>()), 400..600),
        ) {
            let mut queue = FairQueue::default();
            let mut served = HashMap::<Arc<str>, u64>::new();
            let tenants = ["a", "b", "c", "d"];
            let mut queued = HashMap::<Arc<str>, std::collections::VecDeque<u64>>::new();
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
