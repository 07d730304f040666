//! Calls that ask for their bounds, in one line for each tenant.
//!
//! Within a tenant, calls are tried in the order of arrival, or small calls would overtake a large one for ever.
//! Tenants take turns, one call each, so a tenant with thousands of calls delays another by one call.
//!
//! A line is *ready* if trying its first call is worth a transaction. A line whose first call must wait is not ready
//! until it is woken.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The lines of all tenants.
#[derive(Debug)]
pub(super) struct Queue<T> {
    lines: BTreeMap<Arc<str>, TenantLine<T>>,
    /// Tenants whose lines are ready, each once, in the order of their turns.
    turns: VecDeque<Arc<str>>,
}

/// The calls of one tenant.
#[derive(Debug)]
struct TenantLine<T> {
    calls: VecDeque<T>,
    is_ready: bool,
}

impl<T> Queue<T> {
    pub(super) const fn new() -> Self {
        Self { lines: BTreeMap::new(), turns: VecDeque::new() }
    }

    /// Whether the queue has no call, ready or not.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether any line is ready.
    pub(super) fn is_ready(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whether any line waits without being ready.
    pub(super) fn is_waiting(&self) -> bool {
        self.lines.values().any(|line| !line.is_ready)
    }

    /// Appends a call to its tenant's line, which becomes ready.
    pub(super) fn push(&mut self, tenant: &Arc<str>, call: T) {
        let line = self.lines.entry(Arc::clone(tenant)).or_insert_with(TenantLine::new);
        line.calls.push_back(call);
        self.wake(tenant);
    }

    /// Puts calls that must wait back to the head of their tenant's line, in their order. The line is no longer ready.
    pub(super) fn put_back(&mut self, tenant: &Arc<str>, calls: impl IntoIterator<Item = T>) {
        let line = self.lines.entry(Arc::clone(tenant)).or_insert_with(TenantLine::new);
        let behind = std::mem::take(&mut line.calls);
        line.calls.extend(calls.into_iter().chain(behind));
        if std::mem::replace(&mut line.is_ready, false) {
            self.turns.retain(|ready| ready != tenant);
        }
    }

    /// Maps the calls of a tenant; `None` removes a call.
    pub(super) fn change(&mut self, tenant: &str, change: impl FnMut(T) -> Option<T>) {
        if let Some(line) = self.lines.get_mut(tenant) {
            line.calls = std::mem::take(&mut line.calls).into_iter().filter_map(change).collect();
        }
    }

    /// Makes a tenant's line ready, if there is one.
    pub(super) fn wake(&mut self, tenant: &str) {
        let Some((tenant, _)) = self.lines.get_key_value(tenant) else { return };
        let tenant = Arc::clone(tenant);
        let Some(line) = self.lines.get_mut(&tenant) else { return };
        if !std::mem::replace(&mut line.is_ready, true) {
            self.turns.push_back(tenant);
        }
    }

    /// Makes every line ready.
    pub(super) fn wake_all(&mut self) {
        let asleep = self.lines.iter_mut().filter(|(_, line)| !line.is_ready);
        for (tenant, line) in asleep {
            line.is_ready = true;
            self.turns.push_back(Arc::clone(tenant));
        }
    }

    /// Takes at most `most` calls of the ready lines, one of each tenant in turn. Drops calls whose callers have left.
    pub(super) fn take(&mut self, most: usize, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(tenant) = self.turns.pop_front() else { break };
            let Some(line) = self.lines.get_mut(&tenant) else { continue };
            while let Some(call) = line.calls.pop_front() {
                if is_wanted(&call) {
                    taken.push(call);
                    break;
                }
            }
            if line.calls.is_empty() {
                self.lines.remove(&tenant);
            } else {
                self.turns.push_back(tenant);
            }
        }
        taken
    }
}

impl<T> TenantLine<T> {
    const fn new() -> Self {
        Self { calls: VecDeque::new(), is_ready: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue of calls in this order of arrival: `z1` is the first of tenant `z`.
    fn queue(calls: &[&'static str]) -> Queue<&'static str> {
        let mut queue = Queue::new();
        for call in calls {
            queue.push(&tenant(call), *call);
        }
        queue
    }

    fn tenant(call: &str) -> Arc<str> {
        call[..1].into()
    }

    fn take(queue: &mut Queue<&'static str>, most: usize) -> Vec<&'static str> {
        queue.take(most, |call| !call.ends_with('x'))
    }

    #[test]
    fn tenants_take_turns_in_the_order_in_which_they_came_and_not_in_that_of_their_names() {
        let mut queue = queue(&["z1", "z2", "z3", "a1", "a2", "m1"]);
        assert_eq!(take(&mut queue, 9), ["z1", "a1", "m1", "z2", "a2", "z3"]);
        assert!(queue.is_empty() && !queue.is_ready());
    }

    #[test]
    fn a_batch_begins_where_the_one_before_ended() {
        let mut queue = queue(&["a1", "a2", "a3", "z1", "z2"]);
        assert_eq!(take(&mut queue, 1), ["a1"]);
        queue.push(&tenant("a4"), "a4");
        assert_eq!(take(&mut queue, 2), ["z1", "a2"]);
        assert_eq!(take(&mut queue, 9), ["z2", "a3", "a4"]);
    }

    #[test]
    fn calls_that_must_wait_keep_their_order_and_are_not_taken_before_they_are_woken() {
        let mut queue = queue(&["a1", "a2", "a3", "z1"]);
        assert_eq!(take(&mut queue, 3), ["a1", "z1", "a2"]);
        queue.put_back(&tenant("a"), ["a1", "a2"]);
        assert!(queue.is_waiting() && !queue.is_ready());
        assert_eq!(take(&mut queue, 9), [""; 0]);
        queue.wake("a");
        queue.wake("a");
        assert_eq!(take(&mut queue, 9), ["a1", "a2", "a3"]);
        queue.wake("a");
        assert!(!queue.is_ready(), "there is no line any more");
    }

    #[test]
    fn who_has_left_is_passed_over() {
        let mut queue = queue(&["a1x", "a2", "z1x"]);
        assert_eq!(take(&mut queue, 1), ["a2"]);
        assert_eq!(take(&mut queue, 9), [""; 0]);
        assert!(queue.is_empty());
    }
}
