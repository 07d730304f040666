//! Finds the tenant of a presented key.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::credential::{Credential, Lapse};
use super::directory::Directory;
use super::error::AuthError;
use super::key::{ApiKey, KeyHash, KeyId, ParsedKey};
use super::recent::{Answer, MAX_AGE, Recent};
use super::tenant::Tenant;
use crate::clock::Clock;

/// The most concurrent look-ups of ids that were never found. It is small, so that invented keys leave most of the
/// database's connections free. A look-up takes a millisecond.
const UNKNOWN_IDS_AT_ONCE: usize = 2;

/// An authenticated caller: the tenant that pays, and the presented key.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The tenant, at most a second old.
    pub tenant: Arc<Tenant>,
    /// The public name of the key.
    pub key: KeyId,
}

/// The key of an admitted caller, to check later whether it is still valid.
#[derive(Debug, Clone)]
pub struct AdmittedKey {
    authenticator: Arc<Authenticator>,
    key: KeyId,
}

impl AdmittedKey {
    /// The admitted key `key` of `authenticator`.
    pub const fn new(authenticator: Arc<Authenticator>, key: KeyId) -> Self {
        Self { authenticator, key }
    }

    /// The reason why the key is no longer valid; `None` while it is valid. The result is at most a second old.
    ///
    /// This queries the store only if the cached answer has expired, so a call that is sent immediately needs no query.
    /// It takes at most a second.
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

/// Identifies the caller by a presented key.
#[derive(Debug)]
pub struct Authenticator {
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    recent: Mutex<Recent>,
    unknown_ids: Semaphore,
    timeout: Duration,
}

impl Authenticator {
    /// An authenticator of the tenants in `directory`.
    pub fn new(directory: Arc<Directory>, clock: Arc<dyn Clock>) -> Self {
        // A slower answer may be older than a second.
        let unknown_ids = Semaphore::new(UNKNOWN_IDS_AT_ONCE);
        Self { directory, clock, recent: Mutex::default(), unknown_ids, timeout: MAX_AGE }
    }

    /// The caller with the key `presented`.
    ///
    /// This takes at most a second, even if the store is slower. If the key is not cached, each concurrent request
    /// queries the store. If it is cached, at most one of them does.
    ///
    /// # Errors
    ///
    /// [`AuthError`], one variant for each reason.
    pub async fn authenticate(&self, presented: &str) -> Result<Principal, AuthError> {
        if presented.is_empty() {
            return Err(AuthError::Missing);
        }
        let key = ApiKey::parse(presented)?;
        let credential = self.credential(&key.id).await?;
        self.verify(key, credential)
    }

    async fn credential(&self, id: &KeyId) -> Result<Option<Arc<Credential>>, AuthError> {
        if let Some(credential) = self.directory.in_files(id) {
            return Ok(Some(credential));
        }
        if let Some(answer) = self.recent().answer(id, self.clock.instant()) {
            return Ok(answer.0);
        }
        let is_known = self.recent().was_found(id);
        let looking_up = async {
            if is_known { self.look_up(id).await } else { self.look_up_unknown(id).await }
        };
        match tokio::time::timeout(self.timeout, looking_up).await {
            Ok(found) => found,
            Err(late) => self.answer_without_store(id, AuthError::StoreUnavailable(late.into())),
        }
    }

    /// Looks up an id that may be invented, after all such ids that arrived earlier.
    async fn look_up_unknown(&self, id: &KeyId) -> Result<Option<Arc<Credential>>, AuthError> {
        let arrived_at = self.clock.instant();
        // Nothing closes the semaphore.
        let _permit = self.unknown_ids.acquire().await;
        // An earlier request in the queue may have looked up the same id.
        if let Some(answer) = self.recent().answer_since(id, arrived_at) {
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

    /// Uses the cached answer until it is a second old, even if the store just failed.
    fn answer_without_store(
        &self,
        id: &KeyId,
        failure: AuthError,
    ) -> Result<Option<Arc<Credential>>, AuthError> {
        self.recent().answer(id, self.clock.instant()).map(|answer| answer.0).ok_or(failure)
    }

    /// Compares the hash first, so that only the holder of a key learns its state. An unknown id is compared with a
    /// hash that no key has, which takes the same time.
    fn verify(
        &self,
        key: ParsedKey,
        credential: Option<Arc<Credential>>,
    ) -> Result<Principal, AuthError> {
        let expected = credential.as_ref().map_or(&KeyHash::OF_NOBODY, |known| &known.hash);
        let is_holder = expected.matches(&key.hash);
        let Some(credential) = credential.filter(|_| is_holder) else {
            return Err(AuthError::Unknown);
        };
        match credential.lapse(self.clock.timestamp()) {
            Some(lapse) => Err(lapse.into()),
            None => Ok(Principal { tenant: credential.tenant.clone(), key: key.id }),
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // After a panic in another thread, the cache lacks at most an answer.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use jiff::Timestamp;

    use super::*;
    use crate::auth::fake::{FakeStore, StoreBehaviour};
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

        async fn knock(&self) -> Result<Principal, AuthError> {
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

    /// Presents keys of these seeds concurrently, while the clock does not advance.
    async fn knock_with(door: &Door, seeds: std::ops::Range<u64>) -> Vec<&'static str> {
        let keys: Vec<_> = seeds.map(|seed| ApiKey::create(&SeededRandom::new(seed)).0).collect();
        futures_util::future::join_all(keys.iter().map(|key| door.reason_for(key.expose()))).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_made_up_keys_asks_the_store_for_few_at_once_and_keeps_no_tenant_out() {
        let door = Door::open().await;
        door.knock().await.unwrap();
        door.wait(2_000);
        door.store.set_behaviour(StoreBehaviour::Slow(Duration::from_millis(100)));
        let (refused, known) = tokio::join!(knock_with(&door, 10..110), door.knock());
        assert!(known.is_ok(), "a key that was good before waits for no stranger");
        let most = UNKNOWN_IDS_AT_ONCE + 1;
        assert!(door.store.most_at_once() <= most, "{} at once", door.store.most_at_once());
        let told = |reason| refused.iter().filter(|told| **told == reason).count();
        // Each of the two permits allows ten look-ups within the timeout of a second.
        assert_eq!(told("unknown") + told("store_unavailable"), 100);
        assert!((2..=20).contains(&told("unknown")), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_made_up_key_that_comes_many_times_at_once_is_looked_up_once_for_each_turn() {
        let door = Door::open().await;
        door.store.set_behaviour(StoreBehaviour::Slow(Duration::from_millis(10)));
        let before = door.store.lookups();
        let (stranger, _) = ApiKey::create(&SeededRandom::new(2));
        let knocking = (0..100).map(|_| door.reason_for(stranger.expose()));
        for reason in futures_util::future::join_all(knocking).await {
            assert_eq!(reason, "unknown");
        }
        assert!(door.store.lookups() - before <= UNKNOWN_IDS_AT_ONCE);
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
        door.store.set_behaviour(StoreBehaviour::Failing);
        assert_eq!(door.knock().await.unwrap_err().reason(), "store_unavailable");
    }

    #[tokio::test]
    async fn what_is_remembered_serves_for_a_second_while_the_store_is_broken() {
        let door = Door::open().await;
        door.knock().await.unwrap();
        door.store.set_behaviour(StoreBehaviour::Failing);
        door.wait(999);
        assert!(door.knock().await.is_ok());
        door.wait(1);
        assert_eq!(door.knock().await.unwrap_err().reason(), "store_unavailable");
    }

    #[tokio::test]
    async fn a_store_that_never_answers_does_not_hold_the_caller() {
        let mut door = Door::open().await;
        door.authenticator.timeout = Duration::ZERO;
        door.store.set_behaviour(StoreBehaviour::Hanging);
        assert_eq!(door.knock().await.unwrap_err().reason(), "store_unavailable");
    }
}
