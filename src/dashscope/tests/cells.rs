//! A store of shared cells in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::RuntimeClock;
use crate::clock::Clock;
use crate::redis::cells::SharedCells;

/// An in-memory store that another replica changes between a read and a write.
#[derive(Debug)]
pub(crate) struct MemoryCells {
    pub(crate) values: Mutex<HashMap<String, Vec<u8>>>,
    pub(crate) is_away: AtomicBool,
    clock: Arc<RuntimeClock>,
}

impl MemoryCells {
    pub(crate) fn new() -> Arc<Self> {
        let (values, is_away) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { values, is_away, clock: RuntimeClock::new() })
    }

    fn is_here(&self) -> Option<()> {
        (!self.is_away.load(Ordering::Relaxed)).then_some(())
    }
}

impl SharedCells for MemoryCells {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<(Vec<u8>, Duration)>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.is_here()?;
            let value = self.values.lock().unwrap().get(key).cloned().unwrap_or_default();
            // The store's time, not that of its callers.
            let now = self.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap();
            Some((value, now + Duration::from_hours(1)))
        })
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        old: &'a [u8],
        new: &'a [u8],
        _: Duration,
    ) -> BoxFuture<'a, Option<bool>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.is_here()?;
            let mut values = self.values.lock().unwrap();
            let is_same = values.get(key).map_or(&b""[..], |value| value) == old;
            if is_same {
                values.insert(key.to_owned(), new.to_vec());
            }
            Some(is_same)
        })
    }
}
