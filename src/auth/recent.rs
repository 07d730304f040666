//! The cache of the store's answers for keys, for less than a second.
//!
//! There are two caches: one for keys that exist, and one for ids that do not. Anybody can invent ids. In a single
//! cache, many invented ids would evict the valid keys, and every request would need a query.
//!
//! Both caches are bounded and evict the oldest answer first, so an eviction costs the same at any size. This module
//! does not wait and does not query.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::credential::Credential;
use super::key::KeyId;

/// The age at which an answer expires. docs/promises.md: a change takes effect on all replicas within a second.
pub(super) const MAX_AGE: Duration = Duration::from_secs(1);

/// The age from which one request queries again while the others use the cached answer. Without it, all requests of a
/// busy key would query at the same time when its answer expires.
const REFRESH_AGE: Duration = Duration::from_millis(500);

/// The most cached keys that exist. If more keys are used in a second, there are more queries.
const KNOWN_AT_MOST: usize = 10_000;

/// The most cached ids that do not exist: enough for clients with an old key.
const UNKNOWN_AT_MOST: usize = 1_000;

/// The store's answer for an id: the credential, or that there is none.
#[derive(Debug, Clone)]
pub(super) struct Answer(pub(super) Option<Arc<Credential>>);

/// The answers of the last second, and the ids of keys that were found at any time.
#[derive(Debug)]
pub(super) struct Recent {
    known: BoundedCache,
    unknown: BoundedCache,
    /// Ids of keys that exist or existed. An invented id is never added.
    found: HashSet<KeyId>,
}

impl Default for Recent {
    fn default() -> Self {
        let (known, unknown) =
            (BoundedCache::new(KNOWN_AT_MOST), BoundedCache::new(UNKNOWN_AT_MOST));
        Self { known, unknown, found: HashSet::new() }
    }
}

impl Recent {
    /// The cached answer for `id`; `None` if the caller should query the store.
    ///
    /// Keys that exist are checked first: the other cache may still hold an answer from before the key was created.
    pub(super) fn answer(&mut self, id: &KeyId, now: Instant) -> Option<Answer> {
        self.known.answer(id, now).or_else(|| self.unknown.answer(id, now))
    }

    /// The cached answer for `id` until it expires. Unlike [`answer`](Self::answer), this never returns `None` for an
    /// early refresh.
    pub(super) fn remembered(&self, id: &KeyId, now: Instant) -> Option<Answer> {
        let entry = self.known.entry(id, now).or_else(|| self.unknown.entry(id, now))?;
        Some(entry.answer.clone())
    }

    /// The cached answer for `id`, if its query began at `moment` or later.
    pub(super) fn answer_since(&self, id: &KeyId, moment: Instant) -> Option<Answer> {
        let entries = [&self.known, &self.unknown].map(|cache| cache.entries.get(id));
        let young = entries.into_iter().flatten().find(|entry| entry.asked_at >= moment);
        young.map(|entry| entry.answer.clone())
    }

    /// Stores the answer of a query that began at `asked_at`.
    pub(super) fn remember(&mut self, id: KeyId, answer: Answer, asked_at: Instant) {
        let kind = if answer.0.is_some() { &mut self.known } else { &mut self.unknown };
        if answer.0.is_some() {
            if self.found.len() >= KNOWN_AT_MOST {
                // The next look-up of a key in use adds its id again.
                self.found.clear();
            }
            self.found.insert(id.clone());
        }
        kind.remember(id, answer, asked_at);
    }

    /// Whether the key of this id was found at any time, as far as the cache knows.
    pub(super) fn was_found(&self, id: &KeyId) -> bool {
        self.found.contains(id)
    }
}

/// Answers for at most `capacity` ids.
#[derive(Debug)]
struct BoundedCache {
    capacity: usize,
    entries: HashMap<KeyId, CachedAnswer>,
    /// All answers, oldest first, including replaced ones. Each key of `entries` is in here, so a limit on this also
    /// limits `entries`.
    order: VecDeque<(Instant, KeyId)>,
}

#[derive(Debug)]
struct CachedAnswer {
    answer: Answer,
    asked_at: Instant,
    /// Whether a request queries again. It is not reset if that request fails; the answer then expires at its full age.
    is_refreshing: bool,
}

impl BoundedCache {
    fn new(capacity: usize) -> Self {
        Self { capacity, entries: HashMap::new(), order: VecDeque::new() }
    }

    fn entry(&self, id: &KeyId, now: Instant) -> Option<&CachedAnswer> {
        let is_young =
            |entry: &&CachedAnswer| now.saturating_duration_since(entry.asked_at) < MAX_AGE;
        self.entries.get(id).filter(is_young)
    }

    fn answer(&mut self, id: &KeyId, now: Instant) -> Option<Answer> {
        let entry = self.entries.get_mut(id)?;
        let age = now.saturating_duration_since(entry.asked_at);
        if age >= MAX_AGE {
            return None;
        }
        if age >= REFRESH_AGE && !entry.is_refreshing {
            entry.is_refreshing = true;
            return None;
        }
        Some(entry.answer.clone())
    }

    fn remember(&mut self, id: KeyId, answer: Answer, asked_at: Instant) {
        let is_newer = |entry: &CachedAnswer| entry.asked_at >= asked_at;
        if self.entries.get(&id).is_some_and(is_newer) {
            return;
        }
        self.make_room(asked_at);
        self.order.push_back((asked_at, id.clone()));
        self.entries.insert(id, CachedAnswer { answer, asked_at, is_refreshing: false });
    }

    /// Removes the entries that have expired by `now`, and then the oldest, down to the limit.
    fn make_room(&mut self, now: Instant) {
        while let Some((asked_at, id)) = self.order.front() {
            let has_ended = now.saturating_duration_since(*asked_at) >= MAX_AGE;
            if !has_ended && self.order.len() < self.capacity {
                return;
            }
            if self.entries.get(id).is_some_and(|entry| entry.asked_at == *asked_at) {
                self.entries.remove(id);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};

    const NOTHING: Answer = Answer(None);

    fn id(number: usize) -> KeyId {
        format!("{number:012}").parse().unwrap()
    }

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn an_answer_expires_a_second_after_its_query_began() {
        let (mut cache, start) = (BoundedCache::new(2), SystemClock.instant());
        cache.remember(id(1), NOTHING, start);
        assert!(cache.answer(&id(1), after(start, 499)).is_some());
        assert!(cache.answer(&id(1), after(start, 1_000)).is_none());
    }

    #[test]
    fn only_one_request_refreshes_an_answer_of_middle_age() {
        let (mut cache, start) = (BoundedCache::new(2), SystemClock.instant());
        cache.remember(id(1), NOTHING, start);
        assert!(cache.answer(&id(1), after(start, 500)).is_none());
        assert!(cache.answer(&id(1), after(start, 500)).is_some());
        assert!(cache.answer(&id(1), after(start, 999)).is_some());
    }

    #[test]
    fn a_slow_answer_does_not_replace_one_that_was_asked_for_later() {
        let (mut cache, start) = (BoundedCache::new(2), SystemClock.instant());
        cache.remember(id(1), NOTHING, after(start, 400));
        cache.remember(id(1), NOTHING, start);
        assert!(cache.answer(&id(1), after(start, 899)).is_some());
        assert_eq!(cache.entries[&id(1)].asked_at, after(start, 400));
    }

    #[test]
    fn a_full_cache_evicts_its_oldest_answer() {
        let (mut cache, start) = (BoundedCache::new(2), SystemClock.instant());
        for number in 1..=3 {
            cache.remember(id(number), NOTHING, after(start, number as u64));
        }
        assert!(cache.answer(&id(1), after(start, 4)).is_none());
        assert!(cache.answer(&id(2), after(start, 4)).is_some());
        assert_eq!((cache.entries.len(), cache.order.len()), (2, 2));
    }

    #[test]
    fn a_cache_stays_bounded_when_one_key_is_answered_again_and_again() {
        let (mut cache, start) = (BoundedCache::new(3), SystemClock.instant());
        for millisecond in 0..1_000 {
            cache.remember(id(1), NOTHING, after(start, millisecond));
        }
        assert!(cache.order.len() <= 3);
        assert!(cache.answer(&id(1), after(start, 1_000)).is_some());
    }

    #[test]
    fn the_ids_of_found_keys_stay_bounded() {
        let (mut recent, start) = (Recent::default(), SystemClock.instant());
        let credential = Arc::new(Credential::of_nobody());
        for number in 0..=KNOWN_AT_MOST {
            recent.remember(id(number), Answer(Some(Arc::clone(&credential))), start);
        }
        assert!(recent.found.len() <= KNOWN_AT_MOST && recent.was_found(&id(KNOWN_AT_MOST)));
    }

    #[test]
    fn invented_ids_do_not_evict_a_key_that_exists() {
        let (mut recent, start) = (Recent::default(), SystemClock.instant());
        recent.remember(id(0), Answer(Some(Arc::new(Credential::of_nobody()))), start);
        for number in 1..=2 * KNOWN_AT_MOST {
            recent.remember(id(number), NOTHING, start);
        }
        assert!(recent.answer(&id(0), start).is_some());
        assert!(recent.unknown.entries.len() <= UNKNOWN_AT_MOST);
        assert!(recent.was_found(&id(0)) && !recent.was_found(&id(1)));
    }
}
