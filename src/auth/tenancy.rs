//! Whether there is more than one tenant to keep room for.
//!
//! The directory is asked only when it matters, by whoever would refuse a tenant for the sake of others,
//! and what it said is remembered. Disabled tenants are nobody to keep room for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::directory::Directory;
use crate::clock::Clock;

/// How long "there is only one" is believed: a new tenant may call within a second.
const ALONE_AGE: Duration = Duration::from_secs(1);

/// How long "there are several" is believed. Tenants are seldom taken away, and their list may be long.
const SEVERAL_AGE: Duration = Duration::from_mins(1);

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the number of tenants.
#[derive(Debug)]
pub struct Tenancy {
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    known: Mutex<Option<Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    asked_at: Instant,
    has_several: bool,
}

impl Tenancy {
    /// Knows nothing yet of the tenants in `directory`.
    pub fn new(directory: Arc<Directory>, clock: Arc<dyn Clock>) -> Self {
        Self { directory, clock, known: Mutex::new(None) }
    }

    /// Whether at least two tenants are not disabled. Where the directory does not answer, it is as it was
    /// before, or else several.
    pub async fn has_several(&self) -> bool {
        let now = self.clock.instant();
        let before = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let before = known.as_ref().is_none_or(|known| known.has_several);
            if known.is_some_and(|known| known.is_fresh(now)) {
                return before;
            }
            // Others go on with what was known, so that one request asks and not all of a flood.
            *known = Some(Known { asked_at: now, has_several: before });
            before
        };
        let asked = tokio::time::timeout(PATIENCE, self.directory.has_several()).await;
        let Ok(Ok(has_several)) = asked else { return before };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Known { asked_at: now, has_several });
        has_several
    }
}

impl Known {
    fn is_fresh(self, now: Instant) -> bool {
        let age = if self.has_several { SEVERAL_AGE } else { ALONE_AGE };
        now.saturating_duration_since(self.asked_at) < age
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::super::fake::{FakeStore, Mood};
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
        let tenancy = Tenancy::new(Arc::new(directory), clock.clone());
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
    async fn without_an_answer_it_is_as_it_was_and_at_first_several() {
        let (store, clock, tenancy) = tenancy(&["a"]).await;
        store.become_of(Mood::Broken);
        assert!(tenancy.has_several().await);
        clock.advance(SEVERAL_AGE);
        store.become_of(Mood::Well);
        assert!(!tenancy.has_several().await);
        clock.advance(ALONE_AGE);
        store.become_of(Mood::Broken);
        assert!(!tenancy.has_several().await);
    }
}
