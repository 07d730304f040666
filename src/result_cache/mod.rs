//! Keeps answers for equal requests, and shares the work of equal requests that are under way.
//!
//! The module does not depend on what it keeps: an entry is bytes under a [name](key), and an outcome is any value.
//!
//! - `key`: names of entries, which reveal nothing.
//! - `memory`: entries in this process, bounded in bytes.
//! - `shared`: entries in Redis for several replicas, sealed by `seal`, and leases of those that are being made.
//! - `flight`: equal requests in this process share one piece of work.
//! - `settings`: the sections of the configuration.
//!
//! With Redis and an encryption key, entries are in Redis. They are in memory while Redis is away, or without a key,
//! or if an entry is too long for Redis. Each store removes an entry when its time has passed (docs/cache.md,
//! docs/adr/0025-result-cache.md).

pub mod flight;
pub mod key;
pub mod settings;

mod memory;
mod seal;
mod shared;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::flight::Flights;
use self::key::{EntryKey, KeyMaker};
use self::memory::MemoryEntries;
use self::seal::Sealer;
use self::settings::{CacheSettings, EncryptionKey};
use self::shared::{Claim, SharedEntries};
use crate::clock::Clock;
use crate::random::Random;
use crate::redis::link::Link;

pub use self::shared::Lease;

/// How often a request asks whether another replica has finished.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// How often in a row Redis may fail to answer while another replica works, before this one works itself.
const POLLS_WITHOUT_ANSWER: u32 = 3;

/// How often expired entries are removed from memory.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Answers that are kept, and those that are being made. `T` is an outcome and `U` a file, as for [`Flights`].
#[derive(Debug)]
pub struct ResultCache<T, U> {
    keys: KeyMaker,
    stores: Arc<Stores>,
    flights: Arc<Flights<T, U>>,
    clock: Arc<dyn Clock>,
}

/// Where entries are kept.
#[derive(Debug)]
struct Stores {
    memory: Option<MemoryEntries>,
    shared: Option<SharedEntries>,
}

/// The result of a look-up.
#[derive(Debug)]
pub enum Found {
    /// The entry.
    Entry(Bytes),
    /// There is none, and the caller must make it. With the lease among the replicas, if Redis answered.
    Nothing(Option<Lease>),
    /// Another replica was still making it when the caller's deadline came.
    TooLate,
}

/// The size of what is kept in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

impl<T: Clone, U: Clone> ResultCache<T, U> {
    /// A cache in memory, and in the Redis of `link` if there is a key to encrypt entries with.
    pub fn new(
        settings: CacheSettings,
        shared: Option<(Arc<Link>, EncryptionKey)>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let memory = MemoryEntries::of(settings.memory_bytes);
        let (keys, shared) = match shared {
            None => (KeyMaker::of_process(&*random), None),
            Some((link, key)) => {
                let sealer = Sealer::under(&key);
                (sealer.key_maker(), Some(SharedEntries::new(link, sealer, random)))
            }
        };
        let stores = Arc::new(Stores { memory, shared });
        Self { keys, stores, flights: Arc::new(Flights::new()), clock }
    }

    /// Makes names of entries.
    pub const fn keys(&self) -> &KeyMaker {
        &self.keys
    }

    /// The requests that are under way.
    pub const fn flights(&self) -> &Arc<Flights<T, U>> {
        &self.flights
    }

    /// Looks an entry up. If another replica makes it, waits for it until `deadline`.
    pub async fn find(&self, key: &EntryKey, deadline: Instant) -> Found {
        let Stores { memory, shared } = &*self.stores;
        if let Some(entry) = memory.as_ref().and_then(|memory| memory.get(key)) {
            return Found::Entry(entry);
        }
        let Some(shared) = shared else { return Found::Nothing(None) };
        let lease = shared.lease(key);
        // At the first call, nothing is known of another replica.
        let mut patience = 0;
        loop {
            match shared.claim(key, &lease).await {
                Claim::Entry(entry) => return Found::Entry(entry),
                Claim::Granted(lease) => return Found::Nothing(Some(lease)),
                Claim::Held => patience = POLLS_WITHOUT_ANSWER,
                Claim::Away if patience == 0 => return Found::Nothing(None),
                Claim::Away => patience -= 1,
            }
            if self.clock.instant() + POLL_EVERY >= deadline {
                return Found::TooLate;
            }
            sleep(POLL_EVERY).await;
        }
    }

    /// The result of `work`. The lease is renewed meanwhile.
    pub async fn while_leased<R>(&self, lease: Option<&Lease>, work: impl Future<Output = R>) -> R {
        let (Some(shared), Some(lease)) = (&self.stores.shared, lease) else { return work.await };
        tokio::select! {
            biased;
            done = work => done,
            never = shared.keep(lease) => match never {},
        }
    }

    /// Stores an entry for the time `ttl`, in place of an older one.
    pub async fn store(&self, key: EntryKey, entry: Bytes, ttl: Duration) {
        let Stores { memory, shared } = &*self.stores;
        let is_shared = match shared {
            Some(shared) => shared.store(&key, &entry, ttl).await,
            None => false,
        };
        match memory {
            Some(memory) if is_shared => memory.remove(&key),
            Some(memory) => memory.put(key, entry, ttl),
            None => {}
        }
    }

    /// Lets another replica make the entry.
    pub async fn release(&self, lease: Option<Lease>) {
        if let (Some(shared), Some(lease)) = (&self.stores.shared, lease) {
            shared.release(&lease).await;
        }
    }

    /// What is kept in memory.
    pub fn memory_use(&self) -> MemoryUse {
        let memory = self.stores.memory.as_ref();
        memory
            .map(|memory| MemoryUse { bytes: memory.bytes(), entries: memory.count() })
            .unwrap_or_default()
    }

    /// Removes expired entries from memory while the cache is in use.
    pub fn tidying(&self) -> impl Future<Output = ()> + Send + use<T, U> {
        let stores = Arc::downgrade(&self.stores);
        async move {
            let mut ticks = interval(TIDY_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(stores) = Weak::upgrade(&stores) else { return };
                stores.memory.iter().for_each(MemoryEntries::tidy);
            }
        }
    }
}
