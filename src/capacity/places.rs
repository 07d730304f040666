//! Limits the number of open connections, and selects the connection to close when the limit is reached.
//!
//! A connection is a *stranger* until a request on it has brought a valid key. Behind an ingress all connections come
//! from one address, so callers cannot be told apart before they send a key. Strangers may take a part of the places.
//! If that part or all places are taken, the oldest stranger is closed in favour of the new connection. So a client
//! that holds connections open without a key locks nobody out. Refusing the new connection instead would also refuse
//! callers with a key, because their connections begin as strangers too.
//!
//! A stranger keeps its place for at least one second, so that the connections of a burst do not close one another
//! before their requests arrive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The minimum lifetime of a stranger's connection: some round trips of a slow network.
const GRACE: Duration = Duration::from_secs(1);

/// All places of one listener.
#[derive(Debug)]
pub struct Places {
    most: usize,
    most_strangers: usize,
    state: Mutex<PlacesState>,
    /// Notifies that a place is free or that a stranger became known.
    changed: Notify,
}

#[derive(Debug, Default)]
struct PlacesState {
    taken: usize,
    /// Keyed by number, so that the oldest is first.
    strangers: BTreeMap<u64, Stranger>,
    next: u64,
}

#[derive(Debug)]
struct Stranger {
    since: Instant,
    gives_way: CancellationToken,
}

/// The place of one connection. Dropping it frees the place.
#[derive(Debug)]
pub struct ConnectionPlace(Visit);

/// A handle on the connection for its requests.
#[derive(Debug, Clone)]
pub struct Visit {
    places: Arc<Places>,
    number: u64,
    gives_way: CancellationToken,
}

impl Places {
    /// `most` places, of which strangers may take half.
    pub fn new(most: usize) -> Self {
        Self::of(most, most.div_ceil(2))
    }

    /// `most` places for a listener without keys: strangers may take all of them.
    pub fn of_strangers(most: usize) -> Self {
        Self::of(most, most)
    }

    fn of(most: usize, most_strangers: usize) -> Self {
        Self { most, most_strangers, state: Mutex::default(), changed: Notify::new() }
    }

    /// Takes a place for a new connection as soon as one is free. Only one task may wait at a time.
    pub async fn take(self: &Arc<Self>) -> ConnectionPlace {
        loop {
            let until = match self.try_take() {
                Ok(place) => return place,
                Err(until) => until,
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = at(until) => {}
            }
        }
    }

    /// Takes a place for a new connection.
    ///
    /// # Errors
    ///
    /// No place is free. The error is the time from which the oldest stranger can be closed; `None` if there are no
    /// strangers.
    pub fn try_take(self: &Arc<Self>) -> Result<ConnectionPlace, Option<Instant>> {
        let mut state = self.state();
        let now = Instant::now();
        if state.taken >= self.most || state.strangers.len() >= self.most_strangers {
            let oldest = state.strangers.first_entry().ok_or(None)?;
            let until = oldest.get().since + GRACE;
            if now < until {
                return Err(Some(until));
            }
            // The new connection takes over its place.
            oldest.remove().gives_way.cancel();
        } else {
            state.taken += 1;
        }
        let (number, gives_way) = (state.next, CancellationToken::new());
        state.next += 1;
        let stranger = Stranger { since: now, gives_way: gives_way.clone() };
        state.strangers.insert(number, stranger);
        Ok(ConnectionPlace(Visit { places: Arc::clone(self), number, gives_way }))
    }

    /// The number of taken places.
    pub fn taken(&self) -> usize {
        self.state().taken
    }

    fn state(&self) -> MutexGuard<'_, PlacesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl ConnectionPlace {
    /// A handle on the connection for its requests.
    pub fn visit(&self) -> Visit {
        self.0.clone()
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let Visit { places, number, gives_way } = &self.0;
        let mut state = places.state();
        state.strangers.remove(number);
        if !gives_way.is_cancelled() {
            state.taken -= 1;
            places.changed.notify_one();
        }
    }
}

impl Visit {
    /// Marks the connection as known, because a request on it brought a valid key. It is never closed in favour of
    /// another.
    pub fn is_known(&self) {
        if self.places.state().strangers.remove(&self.number).is_some() {
            self.places.changed.notify_one();
        }
    }

    /// Completes when the connection must close in favour of another.
    pub async fn gives_way(&self) {
        self.gives_way.cancelled().await;
    }

    /// Whether the connection must close in favour of another.
    pub fn must_give_way(&self) -> bool {
        self.gives_way.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(most: usize) -> Arc<Places> {
        Arc::new(Places::new(most))
    }

    fn is_free(places: &Arc<Places>) -> bool {
        places.try_take().is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_have_half_and_the_oldest_gives_way_after_its_grace() {
        let places = places(4);
        let first = places.try_take().unwrap();
        tokio::time::advance(GRACE / 2).await;
        let second = places.try_take().unwrap();
        assert_eq!(places.try_take().unwrap_err(), Some(Instant::now() + GRACE / 2));
        tokio::time::advance(GRACE / 2).await;
        let third = places.try_take().unwrap();
        let gave_way = [&first, &second, &third].map(|place| place.0.must_give_way());
        assert_eq!(gave_way, [true, false, false]);
        drop(first);
        assert!(!is_free(&places), "its place was the third's already");
        drop(third);
        assert!(is_free(&places));
    }

    #[tokio::test(start_paused = true)]
    async fn the_known_may_have_every_place_and_never_give_way() {
        let places = places(3);
        let known: Vec<_> = (0..3)
            .map(|_| {
                let place = places.try_take().unwrap();
                place.visit().is_known();
                place
            })
            .collect();
        tokio::time::advance(GRACE).await;
        assert_eq!(places.try_take().unwrap_err(), None);
        assert!(known.iter().all(|place| !place.0.must_give_way()));
        drop(known);
        assert_eq!(places.state().taken, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_known_have_nearly_all_places_strangers_take_turns_at_the_rest() {
        let places = places(3);
        let known = [(); 2].map(|()| places.try_take().unwrap());
        for place in &known {
            place.visit().is_known();
        }
        let stranger = places.try_take().unwrap();
        let next = places.take().await;
        assert!(stranger.0.must_give_way() && !next.0.must_give_way());
    }

    #[tokio::test]
    async fn who_waits_is_given_the_place_that_becomes_free_and_that_of_who_becomes_known() {
        let places = places(2);
        let first = places.try_take().unwrap();
        let (second, ()) = tokio::join!(places.take(), async { first.visit().is_known() });
        let (_third, ()) = tokio::join!(places.take(), async { drop(second) });
        assert!(!first.0.must_give_way());
    }
}
