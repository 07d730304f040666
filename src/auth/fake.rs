//! An in-memory store of tenants for the unit tests of this module. A test can make it fail, hang or answer slowly.
//!
//! It implements only the operations that those tests use. `tests/it/store.rs` tests the stores on real databases.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;

use super::key::{ApiKey, KeyHash, KeyId, KeyRecord};
use super::store::{BoxFuture, TenantStore, TenantStoreError};
use super::tenant::{Tenant, TenantName};

/// How the store answers.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) enum StoreBehaviour {
    /// With its rows.
    #[default]
    Normal,
    /// With an error.
    Failing,
    /// Never.
    Hanging,
    /// With its rows, after a delay.
    Slow(Duration),
}

#[derive(Debug, Default)]
struct Rows {
    behaviour: StoreBehaviour,
    lookups: usize,
    /// Running look-ups of keys.
    open_lookups: usize,
    /// The largest number of look-ups that ran concurrently.
    most_at_once: usize,
    tenants: BTreeMap<TenantName, Tenant>,
    keys: BTreeMap<KeyId, KeyRecord>,
}

/// A store that answers according to its [`StoreBehaviour`].
#[derive(Debug, Default)]
pub(super) struct FakeStore {
    rows: Mutex<Rows>,
}

impl FakeStore {
    pub(super) fn put_tenant(&self, tenant: Tenant) {
        self.rows().tenants.insert(tenant.name.clone(), tenant);
    }

    pub(super) fn put_key(&self, key: &ApiKey, hash: KeyHash, tenant: Tenant) {
        let record = KeyRecord::new(key, hash, tenant.name.clone(), Timestamp::UNIX_EPOCH);
        self.put_tenant(tenant);
        self.rows().keys.insert(record.id.clone(), record);
    }

    pub(super) fn change_key(&self, id: &KeyId, change: impl FnOnce(&mut KeyRecord)) {
        change(self.rows().keys.get_mut(id).unwrap());
    }

    pub(super) fn revoke(&self, id: &KeyId) {
        self.change_key(id, |key| key.revoked_at = Some(Timestamp::UNIX_EPOCH));
    }

    pub(super) fn change_tenant(&self, name: &str, change: impl FnOnce(&mut Tenant)) {
        change(self.rows().tenants.get_mut(&name.parse().unwrap()).unwrap());
    }

    pub(super) fn set_behaviour(&self, behaviour: StoreBehaviour) {
        self.rows().behaviour = behaviour;
    }

    /// The number of look-ups of keys so far.
    pub(super) fn lookups(&self) -> usize {
        self.rows().lookups
    }

    /// The largest number of look-ups that ran concurrently.
    pub(super) fn most_at_once(&self) -> usize {
        self.rows().most_at_once
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap()
    }

    async fn read<T>(&self, read: impl FnOnce(&Rows) -> T) -> Result<T, TenantStoreError> {
        let behaviour = self.rows().behaviour;
        if let StoreBehaviour::Slow(delay) = behaviour {
            tokio::time::sleep(delay).await;
        }
        match behaviour {
            StoreBehaviour::Normal | StoreBehaviour::Slow(_) => Ok(read(&self.rows())),
            StoreBehaviour::Failing => {
                Err(TenantStoreError::Unavailable("broken by the test".into()))
            }
            StoreBehaviour::Hanging => pending().await,
        }
    }
}

/// A running look-up of a key. It ends when this is dropped.
struct OpenLookup<'a>(&'a FakeStore);

impl Drop for OpenLookup<'_> {
    fn drop(&mut self) {
        self.0.rows().open_lookups -= 1;
    }
}

impl TenantStore for FakeStore {
    fn create_tenant<'a>(&'a self, _: &'a Tenant) -> BoxFuture<'a, Result<(), TenantStoreError>> {
        unreachable!("a test puts tenants in")
    }

    fn update_tenant<'a>(&'a self, _: &'a Tenant) -> BoxFuture<'a, Result<bool, TenantStoreError>> {
        unreachable!("a test changes tenants")
    }

    fn tenant<'a>(
        &'a self,
        name: &'a TenantName,
    ) -> BoxFuture<'a, Result<Option<Tenant>, TenantStoreError>> {
        Box::pin(self.read(|rows| rows.tenants.get(name).cloned()))
    }

    fn tenants(&self) -> BoxFuture<'_, Result<Vec<Tenant>, TenantStoreError>> {
        Box::pin(self.read(|rows| rows.tenants.values().cloned().collect()))
    }

    fn create_key<'a>(&'a self, _: &'a KeyRecord) -> BoxFuture<'a, Result<(), TenantStoreError>> {
        unreachable!("a test puts keys in")
    }

    fn key<'a>(
        &'a self,
        id: &'a KeyId,
    ) -> BoxFuture<'a, Result<Option<(KeyRecord, Tenant)>, TenantStoreError>> {
        {
            let mut rows = self.rows();
            rows.lookups += 1;
            rows.open_lookups += 1;
            rows.most_at_once = rows.most_at_once.max(rows.open_lookups);
        }
        let lookup = OpenLookup(self);
        Box::pin(async move {
            let _lookup = lookup;
            let find = |rows: &Rows| {
                let key = rows.keys.get(id)?.clone();
                let tenant = rows.tenants.get(&key.tenant)?.clone();
                Some((key, tenant))
            };
            self.read(find).await
        })
    }

    fn keys<'a>(
        &'a self,
        _: Option<&'a TenantName>,
    ) -> BoxFuture<'a, Result<Vec<KeyRecord>, TenantStoreError>> {
        Box::pin(self.read(|rows| rows.keys.values().cloned().collect()))
    }

    fn revoke_key<'a>(
        &'a self,
        _: &'a KeyId,
        _: Timestamp,
    ) -> BoxFuture<'a, Result<bool, TenantStoreError>> {
        unreachable!("a test revokes keys")
    }
}
