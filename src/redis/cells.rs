//! Small values that replicas share and change by compare and set.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::link::Link;
use super::script::Script;

/// Reads and replaces a value.
static CELL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("cell.lua")));

/// A store of small values, each of which is changed by compare and set.
pub trait SharedCells: fmt::Debug + Send + Sync {
    /// The value under `key`, empty if there is none, and the store's time since 1970; `None` while the store is
    /// unavailable. Takes no longer than the store's own timeout.
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<(Vec<u8>, Duration)>>;

    /// Replaces `old` by `new` for the time `keep`. False if the value is no longer `old`, `None` while the store is
    /// unavailable.
    fn replace<'a>(
        &'a self,
        key: &'a str,
        old: &'a [u8],
        new: &'a [u8],
        keep: Duration,
    ) -> BoxFuture<'a, Option<bool>>;
}

impl SharedCells for Link {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<(Vec<u8>, Duration)>> {
        Box::pin(async move {
            let read = CELL.on(key).repeatable();
            let (value, seconds, micros) = self.run(&read).await?;
            let now = Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros));
            Some((value, now))
        })
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        old: &'a [u8],
        new: &'a [u8],
        keep: Duration,
    ) -> BoxFuture<'a, Option<bool>> {
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        // A repeated call would find its own value and mistake it for another replica's.
        let replace = CELL.on(key).arg(old).arg(new).arg(keep);
        Box::pin(async move { self.run(&replace).await })
    }
}
