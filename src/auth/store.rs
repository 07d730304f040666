//! The interface of the store of tenants and keys.

use std::fmt;
use std::pin::Pin;

use jiff::Timestamp;

use super::key::{KeyId, KeyRecord};
use super::tenant::{Tenant, TenantName};

/// A future of a trait that is used as `dyn`, where `async fn` is not allowed yet.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The store of tenants and keys, implemented for SQLite and for PostgreSQL.
///
/// Times are kept in whole milliseconds. Lists are in the byte order of names, on every engine.
pub trait TenantStore: fmt::Debug + Send + Sync {
    /// Adds a tenant.
    ///
    /// # Errors
    ///
    /// [`TenantStoreError::TenantExists`] if the name is taken.
    fn create_tenant<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<(), TenantStoreError>>;

    /// Replaces the settings of the tenant of that name; `false` if there is none.
    ///
    /// The last of two concurrent changes wins.
    fn update_tenant<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<bool, TenantStoreError>>;

    /// The tenant of that name.
    fn tenant<'a>(
        &'a self,
        name: &'a TenantName,
    ) -> BoxFuture<'a, Result<Option<Tenant>, TenantStoreError>>;

    /// All tenants, by name.
    fn tenants(&self) -> BoxFuture<'_, Result<Vec<Tenant>, TenantStoreError>>;

    /// Adds a key to its tenant.
    ///
    /// # Errors
    ///
    /// [`TenantStoreError::KeyExists`] if the id is taken, [`TenantStoreError::NoSuchTenant`] if the tenant is not in
    /// this store.
    fn create_key<'a>(&'a self, key: &'a KeyRecord) -> BoxFuture<'a, Result<(), TenantStoreError>>;

    /// The key of that id, in any state, and its tenant, both from one consistent read.
    fn key<'a>(
        &'a self,
        id: &'a KeyId,
    ) -> BoxFuture<'a, Result<Option<(KeyRecord, Tenant)>, TenantStoreError>>;

    /// The keys of a tenant, or of all tenants, in any state, ordered by tenant, age and id.
    fn keys<'a>(
        &'a self,
        tenant: Option<&'a TenantName>,
    ) -> BoxFuture<'a, Result<Vec<KeyRecord>, TenantStoreError>>;

    /// Revokes a key; `false` if there is none of that id.
    ///
    /// A second revocation is not an error and does not change the time of the first.
    fn revoke_key<'a>(
        &'a self,
        id: &'a KeyId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<bool, TenantStoreError>>;
}

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum TenantStoreError {
    /// The name is taken.
    #[error("there is already a tenant {0}")]
    TenantExists(TenantName),
    /// The id is taken.
    #[error("there is already a key {0}")]
    KeyExists(KeyId),
    /// The tenant of a new key is not in the store.
    #[error("there is no tenant {0} in the database")]
    NoSuchTenant(TenantName),
    /// A row that this program could not have written.
    #[error("the database holds a row that cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database did not answer, or its answer is an unexpected error.
    #[error("the database is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}
