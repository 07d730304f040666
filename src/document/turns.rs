//! Places that tenants take in turns.
//!
//! Each tenant has a line of its own, and a place that becomes free goes to the first of the next line. With a single
//! line, a document of a hundred pages would keep the one page of another tenant waiting for all of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// So many places.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// The lines of tenants who wait, the next one first. Nobody waits while a place is free.
    lines: VecDeque<Line>,
}

#[derive(Debug)]
struct Line {
    tenant: Box<str>,
    /// Never empty. Some may have left.
    waiting: VecDeque<oneshot::Sender<Place>>,
}

/// A place, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// `None` after the place was given back.
    turns: Option<Arc<Turns>>,
}

impl Turns {
    /// So many free places.
    pub(super) const fn new(places: usize) -> Self {
        Self { state: Mutex::new(State { free: places, lines: VecDeque::new() }) }
    }

    /// The places that nobody has.
    pub(super) fn free(&self) -> usize {
        self.state().free
    }

    /// Waits for a place, in the line of `tenant`. Whoever drops the future leaves the line.
    pub(super) async fn enter(self: &Arc<Self>, tenant: &str) -> Option<Place> {
        let place = {
            let mut state = self.state();
            if let Some(free) = state.free.checked_sub(1) {
                state.free = free;
                return Some(Place::of(self));
            }
            state.wait(tenant)
        };
        // A place is sent to each one who waits.
        place.await.ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the lines consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, tenant: &str) -> oneshot::Receiver<Place> {
        let (sender, place) = oneshot::channel();
        match self.lines.iter_mut().find(|line| *line.tenant == *tenant) {
            Some(line) => line.waiting.push_back(sender),
            None => self.lines.push_back(Line { tenant: tenant.into(), waiting: [sender].into() }),
        }
        place
    }

    /// The waiter whose turn it is. If nobody waits, the place becomes free.
    fn next_or_free(&mut self) -> Option<oneshot::Sender<Place>> {
        let Some(mut line) = self.lines.pop_front() else {
            self.free += 1;
            return None;
        };
        let next = line.waiting.pop_front();
        if !line.waiting.is_empty() {
            self.lines.push_back(line);
        }
        next
    }
}

impl Place {
    fn of(turns: &Arc<Turns>) -> Self {
        Self { turns: Some(Arc::clone(turns)) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(turns) = self.turns.take() else { return };
        loop {
            // The lock is not held while a place is sent, which may drop it.
            let next = turns.state().next_or_free();
            let Some(next) = next else { return };
            match next.send(Self::of(&turns)) {
                Ok(()) => return,
                // That one has left: the place goes to the next.
                Err(mut place) => place.turns = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn tenants_get_places_in_turns_and_each_in_its_order() {
        let turns = Arc::new(Turns::new(1));
        let mut place = turns.enter("a").now_or_never().unwrap();
        let mut waiting = Vec::new();
        for who in ["a1", "a2", "a3", "b1", "c1", "b2"] {
            let turns = Arc::clone(&turns);
            let mut enter = async move { turns.enter(&who[..1]).await }.boxed();
            assert!(enter.as_mut().now_or_never().is_none(), "{who}");
            waiting.push((who, enter));
        }
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(place);
            let mut all = waiting.iter_mut().enumerate();
            let next = all.find_map(|(at, (_, enter))| Some((at, enter.as_mut().now_or_never()?)));
            let (at, next) = next.unwrap();
            place = next;
            order.push(waiting.remove(at).0);
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert_eq!(turns.free(), 0);
        drop(place);
        assert_eq!(turns.free(), 1);
    }

    #[test]
    fn the_place_of_one_who_left_goes_to_the_next_before_and_after_it_was_sent() {
        let turns = Arc::new(Turns::new(1));
        let place = turns.enter("a").now_or_never().unwrap();
        let [mut first, mut second, mut third] = ["a", "b", "a"].map(|tenant| {
            let turns = Arc::clone(&turns);
            async move { turns.enter(tenant).await }.boxed()
        });
        for waiting in [&mut first, &mut second, &mut third] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(first);
        drop(place);
        assert!(third.as_mut().now_or_never().is_none(), "it was sent to the second");
        drop(second);
        let place = third.now_or_never().unwrap();
        assert_eq!(turns.free(), 0);
        drop(place);
        assert_eq!(turns.free(), 1);
    }
}
