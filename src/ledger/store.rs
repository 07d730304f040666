//! The store of the ledger in a database, and its errors.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::civil::Date;
use uuid::Uuid;

use super::account::{Account, AccountKey};
use super::books::{Operation, Outcome};
use super::usage::{Division, Imbalance, PartRow, UsageQuery, UsageRow};
use crate::lease::LeaseError;

/// A database that keeps the ledger. Two implementations: SQLite and PostgreSQL.
pub trait LedgerStore: fmt::Debug + Send + Sync {
    /// Posts a batch in order, in one transaction isolated from all others, and returns an outcome for each operation.
    /// Posting the same batch again changes nothing more.
    ///
    /// # Errors
    ///
    /// After [`LedgerStoreError::Unavailable`] it is unknown whether the batch was posted.
    fn post<'a>(
        &'a self,
        batch: &'a [Operation],
        today: Date,
    ) -> BoxFuture<'a, Result<Vec<Outcome>, LedgerStoreError>>;

    /// How long the ends of calls may wait to be posted together with later operations. Until then they are only in
    /// this process's memory: after a crash their bounds are counted, and other processes see them as open. Zero for a
    /// database that several processes share.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }

    /// Open entries whose instance has expired, in the order of their ids, `at_most` of those after
    /// `after`. An id that cannot be read is left out.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn orphans(
        &self,
        after: Uuid,
        at_most: u32,
    ) -> BoxFuture<'_, Result<Vec<Uuid>, LedgerStoreError>>;

    /// The accounts of these tenants for the day and for its month, by tenant, without empty accounts.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn accounts<'a>(
        &'a self,
        tenants: &'a [&'a str],
        day: Date,
    ) -> BoxFuture<'a, Result<Vec<(AccountKey, Account)>, LedgerStoreError>>;

    /// The spending by day, tenant and model, in that order.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn usage<'a>(
        &'a self,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<Vec<UsageRow>, LedgerStoreError>>;

    /// The number of rows that [`usage`](Self::usage) would return.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn usage_rows<'a>(
        &'a self,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<u64, LedgerStoreError>>;

    /// The spending by part, tenant and currency, in that order, unknown parts first. It is added up from the
    /// entries, so days whose entries were pruned are missing.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn usage_by<'a>(
        &'a self,
        division: Division,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<Vec<PartRow>, LedgerStoreError>>;

    /// Recounts the entries of all windows that began on `from` or later, and returns the accounts and daily sums that
    /// differ.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn audit(&self, from: Date) -> BoxFuture<'_, Result<Vec<Imbalance>, LedgerStoreError>>;

    /// Deletes at most `at_most` closed entries of days before `before`, and returns their number. Accounts and daily
    /// usage stay.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn prune(&self, before: Date, at_most: u32) -> BoxFuture<'_, Result<u64, LedgerStoreError>>;
}

/// The reason why a store of the ledger failed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerStoreError {
    /// The store cannot be reached, or the connection broke; the operation can be repeated.
    #[error("the database is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row violates a rule; repeating the operation would not help.
    #[error("the ledger cannot be read or written")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl LedgerStoreError {
    /// Makes an error that may pass.
    pub(crate) fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into())
    }
}

impl From<LeaseError> for LedgerStoreError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Unavailable(source) => Self::Unavailable(source),
            LeaseError::Broken(source) => Self::Broken(source),
        }
    }
}
