//! Equal requests that are under way share one piece of work (single-flight).
//!
//! The requests for one key have seats in a flight. One of them leads: it does the work. The others wait in the order
//! of their arrival. If the work ends with an outcome that is theirs too, they all get it. Otherwise the next one
//! leads. A semaphore with one permit is the turn, so a leader that disappears in any way hands it on.
//!
//! The work runs on a task of its own, so it outlives the request that began it. It learns by [`Audience`] when nobody
//! waits any more, and that somebody waits again.
//!
//! A waiting request needs no file of its own, because that of any other one is equal. So the flight keeps one spare
//! file for the next leader, however many requests wait.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::key::EntryKey;
use crate::departure::Departure;

/// The flights of a process. `T` is an outcome, and `U` a spare file. Both are cheap to clone.
pub struct Flights<T, U> {
    open: Mutex<HashMap<EntryKey, Arc<Flight<T, U>>>>,
}

/// The requests for one key.
struct Flight<T, U> {
    /// The turn to lead. Closed once there is an outcome.
    turn: Arc<Semaphore>,
    state: Mutex<FlightState<T, U>>,
}

struct FlightState<T, U> {
    /// Requests that wait, the leading one included.
    seats: usize,
    /// The seats whose callers are certainly still connected.
    attentive: usize,
    /// Whether one leads.
    is_led: bool,
    /// Tells the work of the present leader who waits for it.
    audience: Audience,
    spare: Option<U>,
    outcome: Option<T>,
}

/// Whether anybody waits for a piece of work.
#[derive(Debug, Clone, Default)]
pub struct Audience {
    /// Each caller has left or may have left.
    pub may_have_left: Departure,
    /// Each caller has left for certain.
    pub has_left: Departure,
}

/// The place of one request in a flight. Dropping it means that its caller has left, or is answered.
pub struct Seat<T, U> {
    flights: Arc<Flights<T, U>>,
    flight: Arc<Flight<T, U>>,
    key: EntryKey,
    /// The caller may have left.
    may_have_left: Departure,
    /// Whether `attentive` no longer counts this seat.
    is_noted: bool,
}

/// The turn of one request. Dropping it without an outcome hands the turn on.
pub struct Lead<T, U> {
    flights: Arc<Flights<T, U>>,
    flight: Arc<Flight<T, U>>,
    key: EntryKey,
    _turn: OwnedSemaphorePermit,
}

/// What a waiting request gets.
#[derive(Debug)]
pub enum Turn<T, U> {
    /// It leads.
    Lead(Lead<T, U>),
    /// The outcome of another one.
    Outcome(T),
}

impl<T: Clone, U: Clone> Flights<T, U> {
    /// No flights.
    pub(super) fn new() -> Self {
        Self { open: Mutex::default() }
    }

    /// Takes a seat among the requests for `key`, for a caller that may leave. Work that is still under way goes on for it.
    pub fn join(self: &Arc<Self>, key: EntryKey, may_have_left: Departure) -> Seat<T, U> {
        let mut open = self.lock();
        let flight = Arc::clone(open.entry(key).or_insert_with(|| Arc::new(Flight::new())));
        flight.change(|state| {
            state.seats += 1;
            state.attentive += 1;
            state.audience.may_have_left.take_back();
            state.audience.has_left.take_back();
        });
        drop(open);
        Seat { flights: Arc::clone(self), flight, key, may_have_left, is_noted: false }
    }

    /// The number of flights.
    pub fn count(&self) -> usize {
        self.lock().len()
    }
}

impl<T, U> Flights<T, U> {
    fn lock(&self) -> MutexGuard<'_, HashMap<EntryKey, Arc<Flight<T, U>>>> {
        // No code panics while it holds the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state of a flight, and removes the flight if nobody can use it any more.
    fn change(
        &self,
        key: &EntryKey,
        flight: &Arc<Flight<T, U>>,
        change: impl FnOnce(&mut FlightState<T, U>),
    ) {
        let mut open = self.lock();
        let is_over = flight.change(|state| {
            change(state);
            state.outcome.is_some() || state.seats == 0 && !state.is_led
        });
        if is_over && open.get(key).is_some_and(|other| Arc::ptr_eq(other, flight)) {
            open.remove(key);
        }
    }
}

impl<T, U> Flight<T, U> {
    fn new() -> Self {
        let state = FlightState {
            seats: 0,
            attentive: 0,
            is_led: false,
            audience: Audience::default(),
            spare: None,
            outcome: None,
        };
        Self { turn: Arc::new(Semaphore::new(1)), state: Mutex::new(state) }
    }

    fn change<R>(&self, change: impl FnOnce(&mut FlightState<T, U>) -> R) -> R {
        // No code panics while it holds the lock.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        state.tell();
        result
    }
}

impl<T, U> FlightState<T, U> {
    /// Tells the work who waits for it.
    fn tell(&self) {
        if self.attentive == 0 {
            self.audience.may_have_left.note();
        }
        if self.seats == 0 {
            self.audience.has_left.note();
        }
    }
}

impl<T: Clone, U: Clone> Seat<T, U> {
    /// Leads, if nobody else does.
    pub fn try_lead(&self) -> Option<Lead<T, U>> {
        match Arc::clone(&self.flight.turn).try_acquire_owned() {
            Ok(turn) => Some(self.lead(turn)),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => None,
        }
    }

    /// Leaves a file for the next leader, if there is none.
    pub fn leave_spare(&self, spare: U) {
        // A spare that is not needed is dropped outside the lock.
        let mut spare = Some(spare);
        self.flight.change(|state| {
            if state.spare.is_none() && state.outcome.is_none() {
                state.spare = spare.take();
            }
        });
    }

    /// The file that was left.
    pub fn spare(&self) -> Option<U> {
        self.flight.change(|state| state.spare.clone())
    }

    /// Waits for the outcome, or until it is this request's turn to lead.
    pub async fn turn(&mut self) -> Turn<T, U> {
        loop {
            let turn = Arc::clone(&self.flight.turn).acquire_owned();
            if let Ok(turn) = self.attend(turn).await {
                return Turn::Lead(self.lead(turn));
            }
            // It is closed after there is an outcome.
            if let Some(outcome) = self.flight.change(|state| state.outcome.clone()) {
                return Turn::Outcome(outcome);
            }
        }
    }

    /// Waits for `waited`, and notes meanwhile if the caller may have left.
    pub async fn attend<R>(&mut self, waited: impl Future<Output = R>) -> R {
        let mut waited = pin!(waited);
        if !self.is_noted {
            tokio::select! {
                biased;
                done = &mut waited => return done,
                () = self.may_have_left.noted() => {}
            }
            self.is_noted = true;
            self.flight.change(|state| state.attentive -= 1);
        }
        waited.await
    }

    fn lead(&self, turn: OwnedSemaphorePermit) -> Lead<T, U> {
        self.flight.change(|state| {
            state.is_led = true;
            state.audience = Audience::default();
        });
        let (flights, flight) = (Arc::clone(&self.flights), Arc::clone(&self.flight));
        Lead { flights, flight, key: self.key, _turn: turn }
    }
}

impl<T, U> Drop for Seat<T, U> {
    fn drop(&mut self) {
        self.flights.change(&self.key, &self.flight, |state| {
            state.seats -= 1;
            state.attentive -= usize::from(!self.is_noted);
        });
    }
}

impl<T, U> Lead<T, U> {
    /// Who waits for the work.
    pub fn audience(&self) -> Audience {
        self.flight.change(|state| state.audience.clone())
    }

    /// Gives `outcome` to all who wait.
    pub fn finish(self, outcome: T) {
        let mut spare = None;
        self.flights.change(&self.key, &self.flight, |state| {
            state.outcome = Some(outcome);
            spare = state.spare.take();
        });
        self.flight.turn.close();
    }
}

impl<T, U> Drop for Lead<T, U> {
    /// Runs before the turn is handed on.
    fn drop(&mut self) {
        self.flights.change(&self.key, &self.flight, |state| state.is_led = false);
    }
}

impl<T, U> fmt::Debug for Flights<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("open", &self.lock().len()).finish()
    }
}

impl<T, U> fmt::Debug for Seat<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<T, U> fmt::Debug for Lead<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::result_cache::key::{KEY_BYTES, KeyMaker};

    type TestFlights = Arc<Flights<u32, &'static str>>;

    fn key() -> EntryKey {
        KeyMaker::under(&[0; KEY_BYTES]).begin().finish()
    }

    fn flights() -> TestFlights {
        Arc::new(Flights::new())
    }

    fn join(flights: &TestFlights) -> Seat<u32, &'static str> {
        flights.join(key(), Departure::default())
    }

    /// What the request has by now.
    fn now(seat: &mut Seat<u32, &'static str>) -> Option<Turn<u32, &'static str>> {
        seat.turn().now_or_never()
    }

    #[test]
    fn one_request_leads_and_all_others_get_its_outcome() {
        let flights = flights();
        let mut seats: Vec<_> = (0..5).map(|_| join(&flights)).collect();
        let lead = seats[0].try_lead().unwrap();
        assert!(seats[1..].iter_mut().all(|seat| now(seat).is_none() && seat.try_lead().is_none()));
        lead.finish(7);
        assert!(seats.iter_mut().all(|seat| matches!(now(seat), Some(Turn::Outcome(7)))));
        assert_eq!(flights.count(), 0);
        let other = join(&flights);
        assert!(other.try_lead().is_some(), "an outcome is only for those who were there");
    }

    #[tokio::test]
    async fn a_leader_without_an_outcome_hands_its_turn_to_the_next_in_order() {
        let flights = flights();
        let mut seats: Vec<_> = (0..3).map(|_| join(&flights)).collect();
        let lead = seats[0].try_lead().unwrap();
        let [_, second, third] = &mut seats[..] else { unreachable!() };
        let mut waiting = [Box::pin(second.turn()), Box::pin(third.turn())];
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        drop(lead);
        let [second, third] = &mut waiting;
        assert!(third.now_or_never().is_none());
        let Turn::Lead(next) = second.await else { panic!("it has an outcome") };
        next.finish(8);
        assert!(matches!(third.await, Turn::Outcome(8)));
    }

    #[test]
    fn a_flight_ends_with_its_last_user() {
        let flights = flights();
        let seat = join(&flights);
        let lead = seat.try_lead().unwrap();
        drop(seat);
        assert_eq!(flights.count(), 1, "others may join the work");
        drop(lead);
        assert_eq!(flights.count(), 0);
        drop(join(&flights));
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn the_work_learns_that_nobody_waits_only_when_the_last_caller_has_left() {
        let flights = flights();
        let (first, second) = (join(&flights), join(&flights));
        let lead = first.try_lead().unwrap();
        let audience = lead.audience();
        drop(first);
        assert!(!audience.may_have_left.is_noted() && !audience.has_left.is_noted());
        drop(second);
        assert!(audience.may_have_left.is_noted() && audience.has_left.is_noted());
        let next = join(&flights);
        assert!(!audience.may_have_left.is_noted() && !audience.has_left.is_noted());
        drop(next);
        assert!(audience.may_have_left.is_noted() && audience.has_left.is_noted());
        let next = join(&flights);
        drop(lead);
        let next = next.try_lead().unwrap().audience();
        assert!(!next.may_have_left.is_noted() && !next.has_left.is_noted());
    }

    #[tokio::test]
    async fn callers_who_may_have_left_count_as_there_until_they_are_dropped() {
        let flights = flights();
        let (departures, mut seats): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| Departure::default())
            .map(|departure| (departure.clone(), flights.join(key(), departure)))
            .unzip();
        let lead = seats[0].try_lead().unwrap();
        let audience = lead.audience();
        for (departure, seat) in departures.iter().zip(&mut seats) {
            assert!(!audience.may_have_left.is_noted());
            departure.note();
            assert!(now(seat).is_none());
        }
        assert!(audience.may_have_left.is_noted() && !audience.has_left.is_noted());
        drop(seats);
        assert!(audience.has_left.is_noted());
    }

    #[test]
    fn a_flight_keeps_one_spare_file_until_it_has_an_outcome() {
        let flights = flights();
        let (first, second, third) = (join(&flights), join(&flights), join(&flights));
        let lead = first.try_lead().unwrap();
        assert_eq!(second.spare(), None);
        second.leave_spare("of the second");
        third.leave_spare("of the third");
        assert_eq!(third.spare(), Some("of the second"));
        lead.finish(1);
        third.leave_spare("too late");
        assert_eq!(third.spare(), None);
    }
}
