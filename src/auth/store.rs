//! Where tenants and their keys are kept, as the rest of the service sees it.

use std::fmt;
use std::pin::Pin;

use jiff::Timestamp;

use super::key::{KeyId, KeyRecord};
use super::tenant::{Tenant, TenantName};

/// A future of a trait that is used as `dyn`, where `async fn` is not allowed yet.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where tenants and their keys are kept. Implemented for SQLite and for PostgreSQL.
///
/// Times are kept in whole milliseconds. Lists are in the byte order of names, on every engine.
pub trait TenantStore: fmt::Debug + Send + Sync {
    /// Adds a tenant.
    ///
    /// # Errors
    ///
    /// [`TenantStoreError::TenantExists`] where the name is taken.
    fn create_tenant<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<(), TenantStoreError>>;

    /// Replaces the settings of the tenant of that name; `false` where there is none.
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
    /// [`TenantStoreError::KeyExists`] where the id is taken,
    /// [`TenantStoreError::NoSuchTenant`] where the tenant is not in this store.
    fn create_key<'a>(&'a self, key: &'a KeyRecord) -> BoxFuture<'a, Result<(), TenantStoreError>>;

    /// The key of that id, in whatever state, with its tenant as it is at the same moment.
    fn key<'a>(
        &'a self,
        id: &'a KeyId,
    ) -> BoxFuture<'a, Result<Option<(KeyRecord, Tenant)>, TenantStoreError>>;

    /// The keys of a tenant, or of all, in whatever state: by tenant, then by age, then by id.
    fn keys<'a>(
        &'a self,
        tenant: Option<&'a TenantName>,
    ) -> BoxFuture<'a, Result<Vec<KeyRecord>, TenantStoreError>>;

    /// Revokes a key; `false` where there is none of that id.
    ///
    /// Revoking twice is no error, and the first time stays.
    fn revoke_key<'a>(
        &'a self,
        id: &'a KeyId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<bool, TenantStoreError>>;
}

/// Why a store of tenants did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TenantStoreError {
    /// The name is taken.
    #[error("there is already a tenant {0}")]
    TenantExists(TenantName),
    /// The id is taken.
    #[error("there is already a key {0}")]
    KeyExists(KeyId),
    /// A key was to be added to a tenant that is not in the store.
    #[error("there is no tenant {0} in the database")]
    NoSuchTenant(TenantName),
    /// A row that this program did not write that way.
    #[error("the database holds a row that cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database did not answer, or not as databases do.
    #[error("the database is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}
