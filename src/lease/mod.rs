//! Leases: which processes live, as the database tells.
//!
//! A process that holds something until it ends, such as a reservation of the ledger, is an *instance*
//! ([`instance`]): a row with an id and a number. It raises the number again and again, its *heartbeat*, and all
//! instances read the numbers of the others equally often. An instance whose number stood still for
//! [`expiry::MISSED_HEARTBEATS`] rounds is gone, or as good as gone. It *expires* ([`expiry`]): its row is
//! deleted, and what it held belongs to nobody. The keepers of such things end them after each round.
//!
//! No clock is compared with another's, so none can be wrong. A round in which the database failed does not
//! count: missed heartbeats during an outage of the database expire no instance.
//!
//! A process that was only very slow loses its id and nothing else: it goes on as a new instance.

pub mod expiry;
pub mod instance;

use std::fmt;

use futures_util::future::BoxFuture;
use uuid::Uuid;

/// Every instance with its number.
pub type Heartbeats = Vec<(Uuid, i64)>;

/// A database that keeps the instances. Two implementations: SQLite and PostgreSQL.
pub trait LeaseStore: fmt::Debug + Send + Sync {
    /// Adds an instance.
    ///
    /// # Errors
    ///
    /// [`LeaseError`].
    fn register(&self, instance: Uuid) -> BoxFuture<'_, Result<(), LeaseError>>;

    /// Raises the number of `instance` and gives the numbers of all; `None` where it is not, or no longer,
    /// there.
    ///
    /// # Errors
    ///
    /// [`LeaseError`].
    fn heartbeat(&self, instance: Uuid) -> BoxFuture<'_, Result<Option<Heartbeats>, LeaseError>>;

    /// Deletes an instance.
    ///
    /// # Errors
    ///
    /// [`LeaseError`].
    fn expire(&self, instance: Uuid) -> BoxFuture<'_, Result<(), LeaseError>>;
}

/// Why a store of instances failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// It cannot be reached, or broke off; the operation can be repeated.
    #[error("the database is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row cannot be read; repeating the operation would not help.
    #[error("the instances cannot be read or written")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}
