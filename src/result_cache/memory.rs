//! Entries in the memory of this process.
//!
//! The store is bounded in bytes: an entry that does not fit displaces those that are used least. An entry is removed
//! when its time has passed, also if nobody asks for it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use moka::Expiry;
use moka::sync::Cache;

use super::key::{EntryKey, KEY_BYTES};

/// What an entry takes beside its bytes: its name twice, its places in the lists and wheels of the store.
const ENTRY_OVERHEAD: usize = 256 + 2 * KEY_BYTES;

/// The largest entry, as a part of the whole store. A larger one would displace too many others.
const LARGEST_PART: u64 = 8;

/// Entries in memory.
#[derive(Debug)]
pub(super) struct MemoryEntries {
    entries: Cache<EntryKey, TimedEntry>,
    largest: u64,
}

#[derive(Debug, Clone)]
struct TimedEntry {
    bytes: Bytes,
    ttl: Duration,
}

/// Each entry expires after its own time.
struct OwnTime;

impl Expiry<EntryKey, TimedEntry> for OwnTime {
    fn expire_after_create(
        &self,
        _key: &EntryKey,
        entry: &TimedEntry,
        _created_at: Instant,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _key: &EntryKey,
        entry: &TimedEntry,
        _updated_at: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}

impl MemoryEntries {
    /// A store of at most `bytes`; none for 0.
    pub(super) fn of(bytes: u64) -> Option<Self> {
        let weigh = |_key: &EntryKey, entry: &TimedEntry| {
            u32::try_from(weight(entry.bytes.len())).unwrap_or(u32::MAX)
        };
        let entries =
            Cache::builder().max_capacity(bytes).weigher(weigh).expire_after(OwnTime).build();
        (bytes > 0).then_some(Self { entries, largest: bytes / LARGEST_PART })
    }

    pub(super) fn get(&self, key: &EntryKey) -> Option<Bytes> {
        self.entries.get(key).map(|entry| entry.bytes)
    }

    /// Stores an entry for the time `ttl`, unless it is too large.
    pub(super) fn put(&self, key: EntryKey, bytes: Bytes, ttl: Duration) {
        if weight(bytes.len()) as u64 > self.largest {
            self.remove(&key);
            return;
        }
        self.entries.insert(key, TimedEntry { bytes, ttl });
        // Makes room now. By default the store may exceed its bound until it is used again.
        self.tidy();
    }

    pub(super) fn remove(&self, key: &EntryKey) {
        self.entries.invalidate(key);
    }

    /// Removes what has expired.
    pub(super) fn tidy(&self) {
        self.entries.run_pending_tasks();
    }

    /// The bytes that the entries take.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.weighted_size()
    }

    /// The number of entries.
    pub(super) fn count(&self) -> u64 {
        self.entries.entry_count()
    }
}

const fn weight(bytes: usize) -> usize {
    bytes + ENTRY_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result_cache::key::KeyMaker;

    fn key(number: usize) -> EntryKey {
        KeyMaker::under(&[0; KEY_BYTES]).begin().part("", number.to_le_bytes()).finish()
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_store_never_takes_more_than_its_bytes() {
        let store = MemoryEntries::of(100_000).unwrap();
        for number in 0..1000 {
            store.put(key(number), Bytes::from(vec![0; 1000]), HOUR);
            assert!(store.bytes() <= 100_000, "{number}");
        }
        assert!(store.count() > 50, "{}", store.count());
    }

    #[test]
    fn an_entry_that_is_too_large_is_not_stored_and_replaces_none() {
        let store = MemoryEntries::of(100_000).unwrap();
        store.put(key(1), Bytes::from_static(b"old"), HOUR);
        store.put(key(2), Bytes::from_static(b"other"), HOUR);
        store.put(key(1), Bytes::from(vec![0; 13_000]), HOUR);
        assert_eq!(store.get(&key(1)), None);
        assert_eq!(store.get(&key(2)).unwrap(), "other");
    }

    #[test]
    fn an_entry_whose_time_has_passed_is_not_given_out() {
        let store = MemoryEntries::of(100_000).unwrap();
        store.put(key(1), Bytes::from_static(b"gone"), Duration::ZERO);
        assert_eq!(store.get(&key(1)), None);
    }

    #[test]
    fn a_store_of_no_bytes_is_none() {
        assert!(MemoryEntries::of(0).is_none());
    }
}
