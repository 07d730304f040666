//! Calibrates, for each tenant, how large text must stay, by readings of the tenant's own documents.
//!
//! The pixels of a page are chosen so that its text keeps a height that a reader needs. That height was found on other
//! documents, and possibly with another reader. So a share of the pages is read a second time at the cap, an *audit*.
//! The [`agreement`] of the two texts goes into a [`controller`], which raises the height of the tenant by a factor, or
//! lowers it again. [`heights`] holds the factors of all tenants.
//!
//! The replicas share the factors through the database. An audit multiplies the factor there by a step, and products do
//! not depend on their order, so replicas need no lock and lose no step.

pub mod agreement;
pub mod controller;
pub mod heights;

use std::fmt;

use futures_util::future::BoxFuture;

use self::controller::{HeightFactor, Step};

/// A database that stores the factors. Two implementations: SQLite and PostgreSQL.
pub trait HeightStore: fmt::Debug + Send + Sync {
    /// Multiplies the factor of the tenant by `step`, atomically, and returns the result. A tenant without a factor has
    /// [`HeightFactor::ONE`] before.
    ///
    /// # Errors
    ///
    /// [`HeightStoreError`].
    fn apply<'a>(
        &'a self,
        tenant: &'a str,
        step: Step,
    ) -> BoxFuture<'a, Result<HeightFactor, HeightStoreError>>;

    /// The factors of all tenants that have one.
    ///
    /// # Errors
    ///
    /// [`HeightStoreError`].
    fn factors(&self) -> BoxFuture<'_, Result<Vec<(String, HeightFactor)>, HeightStoreError>>;
}

/// The factors could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the heights of audits cannot be read or written")]
pub struct HeightStoreError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
