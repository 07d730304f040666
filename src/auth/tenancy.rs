//! Determines whether there are several tenants. If so, each tenant is limited to its share.
//!
//! The directory is queried only before a tenant is refused because of its share, and its answer is cached. Disabled
//! tenants do not count.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::store::TenantStoreError;
use crate::clock::Clock;

/// How long "there is only one tenant" is cached. It is short, because a new tenant may call within a second.
const ALONE_AGE: Duration = Duration::from_secs(1);

/// How long "there are several tenants" is cached. Tenants are rarely removed, and their list may be long.
const SEVERAL_AGE: Duration = Duration::from_mins(1);

/// The timeout of a query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// The cached answer, which is refreshed from the directory.
#[derive(Debug)]
pub struct Tenancy {
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// The time of the last query; none if the next request must query again.
    asked_at: Option<Instant>,
    has_several: bool,
}

impl Tenancy {
    /// Queries `directory` once. The first request queries it again.
    ///
    /// # Errors
    ///
    /// [`TenantStoreError`] if the store does not answer.
    pub async fn open(
        directory: Arc<Directory>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TenantStoreError> {
        let known = Known { asked_at: None, has_several: directory.has_several().await? };
        Ok(Self { directory, clock, known: Mutex::new(known) })
    }

    /// Returns the last known value and does not query the directory.
    pub fn had_several(&self) -> bool {
        self.known().has_several
    }

    /// Whether at least two tenants are not disabled. If the directory does not answer, this is the last known value.
    pub async fn has_several(&self) -> bool {
        let now = self.clock.instant();
        let before = {
            let mut known = self.known();
            if known.is_fresh(now) {
                return known.has_several;
            }
            // Other requests use the last known value, so that only one request queries.
            known.asked_at = Some(now);
            known.has_several
        };
        let asked = tokio::time::timeout(QUERY_TIMEOUT, self.directory.has_several()).await;
        let Ok(Ok(has_several)) = asked else { return before };
        *self.known() = Known { asked_at: Some(now), has_several };
        has_several
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is a single assignment, so the state is consistent after a panic in another thread.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_fresh(self, now: Instant) -> bool {
        let age = if self.has_several { SEVERAL_AGE } else { ALONE_AGE };
        self.asked_at.is_some_and(|asked_at| now.saturating_duration_since(asked_at) < age)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::super::fake::{FakeStore, StoreBehaviour};
    use super::*;
    use crate::auth::tenant::Tenant;
    use crate::clock::ManualClock;

    async fn tenancy(tenants: &[&str]) -> (Arc<FakeStore>, Arc<ManualClock>, Tenancy) {
        let store = Arc::new(FakeStore::default());
        for name in tenants {
            store.put_tenant(Tenant::new(name.parse().unwrap()));
        }
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
        let directory = Directory::open(BTreeMap::new(), store.clone()).await.unwrap();
        let tenancy = Tenancy::open(Arc::new(directory), clock.clone()).await.unwrap();
        (store, clock, tenancy)
    }

    #[tokio::test]
    async fn one_tenant_is_alone_until_a_second_one_is_a_second_old() {
        let (store, clock, tenancy) = tenancy(&["a"]).await;
        assert!(!tenancy.has_several().await);
        store.put_tenant(Tenant::new("b".parse().unwrap()));
        assert!(!tenancy.has_several().await);
        clock.advance(ALONE_AGE);
        assert!(tenancy.has_several().await);
    }

    #[tokio::test]
    async fn a_disabled_tenant_is_nobody_to_keep_room_for() {
        let (store, clock, tenancy) = tenancy(&["a", "b"]).await;
        assert!(tenancy.has_several().await);
        store.change_tenant("b", |tenant| tenant.disabled = true);
        assert!(tenancy.has_several().await);
        clock.advance(SEVERAL_AGE);
        assert!(!tenancy.has_several().await);
    }

    #[tokio::test]
    async fn without_an_answer_it_is_as_it_was() {
        for (tenants, several) in [(&["a"][..], false), (&["a", "b"], true)] {
            let (store, clock, tenancy) = tenancy(tenants).await;
            store.set_behaviour(StoreBehaviour::Failing);
            assert_eq!(tenancy.has_several().await, several);
            clock.advance(SEVERAL_AGE);
            assert_eq!(tenancy.has_several().await, several);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_one_asks_the_others_go_on_with_what_was_known() {
        let (store, _, tenancy) = tenancy(&["a"]).await;
        store.put_tenant(Tenant::new("b".parse().unwrap()));
        store.set_behaviour(StoreBehaviour::Slow(Duration::from_millis(10)));
        let told = tokio::join!(tenancy.has_several(), tenancy.has_several());
        assert_eq!(told, (true, false));
    }
}
