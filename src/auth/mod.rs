//! Who is calling: from the text of a key to a tenant.
//!
//! A key is looked up on every request, so an answer of the store is remembered, for less than a
//! second: a change or a revocation binds within a second on every replica (docs/promises.md)
//! without the replicas telling each other. The age of a remembered answer counts from when the
//! store was *asked*; an answer that came slowly is not young, and a request that was in flight
//! during a revocation cannot bring the old answer back.
//!
//! Anybody can make up ids of keys, and each one that is new is a query. So look-ups of ids that nobody has
//! been let in with are few at once, and what the store says of them is remembered too: a flood of made-up
//! keys cannot take the database from the tenants, whose keys are looked up beside it.
//!
//! [`directory`] knows where tenants come from, `recent` remembers answers, [`tenancy`] whether there are several
//! tenants, [`key`] and [`tenant`]
//! are the vocabulary. Nothing here knows HTTP or SQL, and nothing enforces a limit.

pub mod directory;
pub mod key;
pub mod tenancy;
pub mod tenant;

mod recent;

#[cfg(test)]
mod fake;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use directory::{Credential, Directory};
use key::{ApiKey, InvalidKey, KeyHash, KeyId, KeyRecord, ParsedKey};
use recent::{Answer, MAX_AGE, Recent};
use tenant::{Tenant, TenantName};

/// Look-ups of ids that are not known to exist, at once. Few, so that however many keys are made up most of
/// the database's connections are left to others; a look-up takes a millisecond.
const STRANGERS_AT_ONCE: usize = 2;

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

/// Who makes a request: the account that pays, and the key that was shown.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account, as it was at most a second ago.
    pub tenant: Arc<Tenant>,
    /// The public name of the key.
    pub key: KeyId,
}

/// Why a key that was good is good no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// It was taken back.
    Revoked,
    /// Its date has passed.
    Expired,
    /// Its tenant was switched off.
    TenantDisabled,
}

/// The key of a caller who was let in, for asking later whether it is still good.
#[derive(Debug, Clone)]
pub struct Standing {
    authenticator: Arc<Authenticator>,
    key: KeyId,
}

impl Standing {
    /// That of the key `key`, which `authenticator` has let in.
    pub const fn new(authenticator: Arc<Authenticator>, key: KeyId) -> Self {
        Self { authenticator, key }
    }

    /// Why the key is good no more, as of less than a second ago; none while it is good.
    ///
    /// The store is asked only where nothing younger than a second is remembered, so not by a call that is
    /// sent as soon as it has come. It takes at most a second.
    ///
    /// # Errors
    ///
    /// [`AuthError::StoreUnavailable`].
    pub async fn lapse(&self) -> Result<Option<Lapse>, AuthError> {
        let Authenticator { clock, .. } = &*self.authenticator;
        let remembered = self.authenticator.recent().remembered(&self.key, clock.instant());
        let credential = match remembered {
            Some(Answer(credential)) => credential,
            None => self.authenticator.credential(&self.key).await?,
        };
        let is_gone = Some(Lapse::Revoked);
        Ok(credential.map_or(is_gone, |credential| credential.lapse(clock.timestamp())))
    }
}

/// Tells from a presented key who is calling.
#[derive(Debug)]
pub struct Authenticator {
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    recent: Mutex<Recent>,
    strangers: Semaphore,
    patience: Duration,
}

impl Authenticator {
    /// An authenticator of the tenants in `directory`.
    pub fn new(directory: Arc<Directory>, clock: Arc<dyn Clock>) -> Self {
        // A store that needs longer answers with what may be older than a second.
        let strangers = Semaphore::new(STRANGERS_AT_ONCE);
        Self { directory, clock, recent: Mutex::default(), strangers, patience: MAX_AGE }
    }

    /// The caller that `presented` is the key of.
    ///
    /// Takes at most a second, however long the store takes. Concurrent requests with a key that is
    /// not remembered each ask the store; with one that is, at most one of them does.
    ///
    /// # Errors
    ///
    /// [`AuthError`], one variant for each reason.
    pub async fn authenticate(&self, presented: &str) -> Result<Caller, AuthError> {
        if presented.is_empty() {
            return Err(AuthError::Missing);
        }
        let key = ApiKey::parse(presented)?;
        let credential = self.credential(&key.id).await?;
        self.judge(key, credential)
    }

    async fn credential(&self, id: &KeyId) -> Result<Option<Arc<Credential>>, AuthError> {
        if let Some(credential) = self.directory.in_files(id) {
            return Ok(Some(credential));
        }
        if let Some(answer) = self.recent().answer(id, self.clock.instant()) {
            return Ok(answer.0);
        }
        let is_known = self.recent().has_met(id);
        let looking_up = async {
            if is_known { self.look_up(id).await } else { self.look_up_stranger(id).await }
        };
        match tokio::time::timeout(self.patience, looking_up).await {
            Ok(found) => found,
            Err(late) => self.answer_without_store(id, AuthError::StoreUnavailable(late.into())),
        }
    }

    /// Looks up an id that may be made up, in its turn among all such.
    async fn look_up_stranger(&self, id: &KeyId) -> Result<Option<Arc<Credential>>, AuthError> {
        let came_at = self.clock.instant();
        // Nothing closes the semaphore.
        let _turn = self.strangers.acquire().await;
        // Somebody before may have asked for the same id.
        if let Some(answer) = self.recent().answer_since(id, came_at) {
            return Ok(answer.0);
        }
        self.look_up(id).await
    }

    async fn look_up(&self, id: &KeyId) -> Result<Option<Arc<Credential>>, AuthError> {
        let asked_at = self.clock.instant();
        match self.directory.in_database(id).await {
            Ok(credential) => {
                self.recent().remember(id.clone(), Answer(credential.clone()), asked_at);
                Ok(credential)
            }
            Err(error) => self.answer_without_store(id, error.into()),
        }
    }

    /// What is remembered serves until it is a second old, also where the store just failed.
    fn answer_without_store(
        &self,
        id: &KeyId,
        failure: AuthError,
    ) -> Result<Option<Arc<Credential>>, AuthError> {
        self.recent().answer(id, self.clock.instant()).map(|answer| answer.0).ok_or(failure)
    }

    /// Compares the secret before anything else, so that the state of a key is told to its holder
    /// only; an unknown id is compared with a hash that nothing has, and takes as long.
    fn judge(
        &self,
        key: ParsedKey,
        credential: Option<Arc<Credential>>,
    ) -> Result<Caller, AuthError> {
        let expected = credential.as_ref().map_or(&KeyHash::OF_NOBODY, |known| &known.hash);
        let is_holder = expected.matches(&key.hash);
        let Some(credential) = credential.filter(|_| is_holder) else {
            return Err(AuthError::Unknown);
        };
        match credential.lapse(self.clock.timestamp()) {
            Some(lapse) => Err(lapse.into()),
            None => Ok(Caller { tenant: credential.tenant.clone(), key: key.id }),
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // A panic elsewhere leaves at worst a forgotten answer.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why nobody is let in.
///
/// The messages are for the caller: an unknown key and a revoked one read alike.
/// [`reason`](Self::reason) is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No key was presented.
    #[error("an API key is required")]
    Missing,
    /// Two keys were presented, and only one can be meant.
    #[error("two different API keys were presented")]
    Ambiguous,
    /// What was presented cannot be a key.
    #[error("this is not an API key of this service: {0}")]
    Malformed(#[from] InvalidKey),
    /// No key has this id, or its secret is another.
    #[error("the API key is not valid")]
    Unknown,
    /// The date of the key has passed.
    #[error("the API key has expired")]
    Expired,
    /// The key was taken back.
    #[error("the API key is not valid")]
    Revoked,
    /// The key is good, but its tenant is switched off.
    #[error("the tenant of this API key is disabled")]
    TenantDisabled,
    /// Whether the key is good cannot be told now.
    #[error("API keys cannot be checked at the moment")]
    StoreUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AuthError {
    /// The reason as a log or metric label says it, from a closed set.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ambiguous => "ambiguous",
            Self::Malformed(_) => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::TenantDisabled => "tenant_disabled",
            Self::StoreUnavailable(_) => "store_unavailable",
        }
    }
}

impl From<Lapse> for AuthError {
    fn from(lapse: Lapse) -> Self {
        match lapse {
            Lapse::Revoked => Self::Revoked,
            Lapse::Expired => Self::Expired,
            Lapse::TenantDisabled => Self::TenantDisabled,
        }
    }
}

impl From<TenantStoreError> for AuthError {
    fn from(error: TenantStoreError) -> Self {
        Self::StoreUnavailable(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::fake::{FakeStore, Mood};
    use super::*;
    use crate::clock::ManualClock;
    use crate::random::SeededRandom;

    /// An authenticator over a store with one tenant, `acme`, that has one key.
    struct Door {
        store: Arc<FakeStore>,
        clock: Arc<ManualClock>,
        authenticator: Authenticator,
        key: ApiKey,
    }

    impl Door {
        async fn open() -> Self {
            let store = Arc::new(FakeStore::default());
            let (key, hash) = ApiKey::create(&SeededRandom::new(1));
            let acme = Tenant::new("acme".parse().unwrap());
            store.put_key(&key, hash, acme);
            let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
            let directory = Directory::open(BTreeMap::new(), store.clone()).await.unwrap();
            let authenticator = Authenticator::new(Arc::new(directory), clock.clone());
            Self { store, clock, authenticator, key }
        }

        async fn knock(&self) -> Result<Caller, AuthError> {
            self.authenticator.authenticate(self.key.expose()).await
        }

        async fn reason_for(&self, presented: &str) -> &'static str {
            self.authenticator.authenticate(presented).await.unwrap_err().reason()
        }

        fn wait(&self, milliseconds: u64) {
            self.clock.advance(Duration::from_millis(milliseconds));
        }
    }

    #[tokio::test]
    async fn a_good_key_names_its_tenant() {
        let door = Door::open().await;
        let caller = door.knock().await.unwrap();
        assert_eq!(caller.tenant.name.as_str(), "acme");
        assert_eq!(&caller.key, door.key.id());
    }

    /// Presents keys of these seeds at once, for as long as the clock stands.
    async fn knock_with(door: &Door, seeds: std::ops::Range<u64>) -> Vec<&'static str> {
        let keys: Vec<_> = seeds.map(|seed| ApiKey::create(&SeededRandom::new(seed)).0).collect();
        futures_util::future::join_all(keys.iter().map(|key| door.reason_for(key.expose()))).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_made_up_keys_asks_the_store_for_few_at_once_and_keeps_no_tenant_out() {
        let door = Door::open().await;
        door.knock().await.unwrap();
        door.wait(2_000);
        door.store.become_of(Mood::Slow(Duration::from_millis(100)));
        let (refused, known) = tokio::join!(knock_with(&door, 10..110), door.knock());
        assert!(known.is_ok(), "a key that was good before waits for no stranger");
        let most = STRANGERS_AT_ONCE + 1;
        assert!(door.store.most_at_once() <= most, "{} at once", door.store.most_at_once());
        let told = |reason| refused.iter().filter(|told| **told == reason).count();
        // In a second each of the two asks ten times.
        assert_eq!(told("unknown") + told("store_unavailable"), 100);
        assert!((2..=20).contains(&told("unknown")), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_made_up_key_that_comes_many_times_at_once_is_looked_up_once_for_each_turn() {
        let door = Door::open().await;
        door.store.become_of(Mood::Slow(Duration::from_millis(10)));
        let before = door.store.lookups();
        let (stranger, _) = ApiKey::create(&SeededRandom::new(2));
        let knocking = (0..100).map(|_| door.reason_for(stranger.expose()));
        for reason in futures_util::future::join_all(knocking).await {
            assert_eq!(reason, "unknown");
        }
        assert!(door.store.lookups() - before <= STRANGERS_AT_ONCE);
    }

    #[tokio::test]
    async fn a_key_that_was_just_made_opens_within_a_second_though_it_was_tried_before() {
        let door = Door::open().await;
        let (key, hash) = ApiKey::create(&SeededRandom::new(2));
        assert_eq!(door.reason_for(key.expose()).await, "unknown");
        door.store.put_key(&key, hash, Tenant::new("new".parse().unwrap()));
        door.wait(999);
        let caller = door.authenticator.authenticate(key.expose()).await.unwrap();
        assert_eq!(caller.tenant.name.as_str(), "new");
    }

    #[tokio::test]
    async fn each_bad_key_is_refused_for_its_own_reason() {
        let door = Door::open().await;
        let (stranger, _) = ApiKey::create(&SeededRandom::new(2));
        assert_eq!(door.reason_for("").await, "missing");
        assert_eq!(door.reason_for("sk-123").await, "malformed");
        assert_eq!(door.reason_for(stranger.expose()).await, "unknown");
    }

    #[tokio::test]
    async fn the_right_id_with_another_secret_is_unknown_whatever_the_keys_state() {
        let door = Door::open().await;
        let (_, another) = ApiKey::create(&SeededRandom::new(2));
        door.store.change_key(door.key.id(), |key| {
            key.hash = another;
            key.revoked_at = Some(Timestamp::UNIX_EPOCH);
        });
        assert_eq!(door.knock().await.unwrap_err().reason(), "unknown");
    }

    #[tokio::test]
    async fn an_unknown_key_and_a_revoked_one_read_alike() {
        let (unknown, revoked) = (AuthError::Unknown, AuthError::Revoked);
        assert_eq!(unknown.to_string(), revoked.to_string());
    }

    #[tokio::test]
    async fn a_revocation_binds_within_a_second_under_steady_use() {
        let door = Door::open().await;
        door.knock().await.unwrap();
        door.store.revoke(door.key.id());
        for _ in 0..9 {
            door.wait(100);
            let _ = door.knock().await;
        }
        door.wait(100);
        assert_eq!(door.knock().await.unwrap_err().reason(), "revoked");
    }

    #[tokio::test]
    async fn a_disabled_tenant_is_refused_within_a_second() {
        let door = Door::open().await;
        door.knock().await.unwrap();
        door.store.change_tenant("acme", |tenant| tenant.disabled = true);
        door.wait(1_000);
        assert_eq!(door.knock().await.unwrap_err().reason(), "tenant_disabled");
    }

    #[tokio::test]
    async fn a_key_expires_at_its_date_although_it_is_remembered() {
        let door = Door::open().await;
        let soon = Timestamp::from_millisecond(100).unwrap();
        door.store.change_key(door.key.id(), |key| key.expires_at = Some(soon));
        door.knock().await.unwrap();
        door.wait(100);
        assert_eq!(door.knock().await.unwrap_err().reason(), "expired");
    }

    #[tokio::test]
    async fn a_hot_key_asks_the_store_once_in_half_a_second() {
        let door = Door::open().await;
        for _ in 0..1_000 {
            door.knock().await.unwrap();
            door.wait(1);
        }
        assert_eq!(door.store.lookups(), 2);
    }

    #[tokio::test]
    async fn an_unknown_key_does_not_ask_the_store_each_time() {
        let door = Door::open().await;
        let (stranger, _) = ApiKey::create(&SeededRandom::new(2));
        for _ in 0..100 {
            assert_eq!(door.reason_for(stranger.expose()).await, "unknown");
        }
        assert_eq!(door.store.lookups(), 1);
    }

    #[tokio::test]
    async fn a_broken_store_is_told_from_a_bad_key() {
        let door = Door::open().await;
        door.store.become_of(Mood::Broken);
        assert_eq!(door.knock().await.unwrap_err().reason(), "store_unavailable");
    }

    #[tokio::test]
    async fn what_is_remembered_serves_for_a_second_while_the_store_is_broken() {
        let door = Door::open().await;
        door.knock().await.unwrap();
        door.store.become_of(Mood::Broken);
        door.wait(999);
        assert!(door.knock().await.is_ok());
        door.wait(1);
        assert_eq!(door.knock().await.unwrap_err().reason(), "store_unavailable");
    }

    #[tokio::test]
    async fn a_store_that_never_answers_does_not_hold_the_caller() {
        let mut door = Door::open().await;
        door.authenticator.patience = Duration::ZERO;
        door.store.become_of(Mood::Silent);
        assert_eq!(door.knock().await.unwrap_err().reason(), "store_unavailable");
    }
}
