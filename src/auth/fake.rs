//! A store of tenants in memory that can be made to fail, for the unit tests of this module.
//!
//! It keeps only what those tests ask for; the promises of a real store are proved in
//! `tests/it/store.rs`, on real databases.

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
pub(super) enum Mood {
    /// As it should.
    #[default]
    Well,
    /// With an error.
    Broken,
    /// Never.
    Silent,
    /// As it should, after a while.
    Slow(Duration),
}

#[derive(Debug, Default)]
struct Rows {
    mood: Mood,
    lookups: usize,
    /// Keys being asked for now, and the most that ever were.
    asking: usize,
    most_at_once: usize,
    tenants: BTreeMap<TenantName, Tenant>,
    keys: BTreeMap<KeyId, KeyRecord>,
}

/// A store that answers as its mood says.
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

    pub(super) fn become_of(&self, mood: Mood) {
        self.rows().mood = mood;
    }

    /// How often a key was asked for.
    pub(super) fn lookups(&self) -> usize {
        self.rows().lookups
    }

    /// The most keys that were asked for at the same time.
    pub(super) fn most_at_once(&self) -> usize {
        self.rows().most_at_once
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap()
    }

    async fn read<T>(&self, read: impl FnOnce(&Rows) -> T) -> Result<T, TenantStoreError> {
        let mood = self.rows().mood;
        if let Mood::Slow(delay) = mood {
            tokio::time::sleep(delay).await;
        }
        match mood {
            Mood::Well | Mood::Slow(_) => Ok(read(&self.rows())),
            Mood::Broken => Err(TenantStoreError::Unavailable("broken by the test".into())),
            Mood::Silent => pending().await,
        }
    }
}

/// A key is being asked for, until this is dropped.
struct Asking<'a>(&'a FakeStore);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.rows().asking -= 1;
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
            rows.asking += 1;
            rows.most_at_once = rows.most_at_once.max(rows.asking);
        }
        let asking = Asking(self);
        Box::pin(async move {
            let _asking = asking;
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
