//! Leases: which processes are alive, according to the database.
//!
//! A process that holds something until it ends, such as a reservation of the ledger, is an *instance* ([`instance`]):
//! a row with an id and a number. The process increments the number at regular intervals, its *heartbeat*, and each
//! instance reads the numbers of the others equally often. An instance whose number did not change for
//! [`expiry::MISSED_HEARTBEATS`] rounds *expires* ([`expiry`]): its row is deleted, and what it held is orphaned. The
//! owner of each kind of orphan, such as the ledger's reaper, ends them after each round.
//!
//! Clocks are never compared across processes, so clock skew does no harm. A round in which the database failed does
//! not count: missed heartbeats during an outage of the database expire no instance.
//!
//! A process that was only very slow loses its id and nothing else: it continues as a new instance.

pub mod expiry;
pub mod instance;

use std::fmt;

use futures_util::future::BoxFuture;
use uuid::Uuid;

/// Every instance with its number.
pub type Heartbeats = Vec<(Uuid, i64)>;

/// A database that stores the instances. Two implementations: SQLite and PostgreSQL.
pub trait LeaseStore: fmt::Debug + Send + Sync {
    /// Adds an instance.
    ///
    /// # Errors
    ///
    /// [`LeaseError`].
    fn register(&self, instance: Uuid) -> BoxFuture<'_, Result<(), LeaseError>>;

    /// Increments the number of `instance` and returns the numbers of all; `None` if the instance is not there, or no
    /// longer.
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

/// The reason why a store of instances failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The store cannot be reached, or the connection broke; the operation can be repeated.
    #[error("the database is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row cannot be read; repeating the operation would not help.
    #[error("the instances cannot be read or written")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}
