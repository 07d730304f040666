//! Small values that replicas share and change one after the other.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

/// A store of small values, each changed only by whoever knows what it is: compare and set.
pub trait SharedCells: fmt::Debug + Send + Sync {
    /// What is kept under `key`, nothing being an empty value, and the store's time since 1970; `None`
    /// while the store is away. Takes no longer than the store's own timeout.
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<(Vec<u8>, Duration)>>;

    /// Puts `new` in the place of `old` for as long as `keep` says; false where something else is there
    /// by now, `None` while the store is away.
    fn replace<'a>(
        &'a self,
        key: &'a str,
        old: &'a [u8],
        new: &'a [u8],
        keep: Duration,
    ) -> BoxFuture<'a, Option<bool>>;
}
