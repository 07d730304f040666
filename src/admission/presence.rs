//! Whether the caller of a request still waits for its answer, and may still have it.
//!
//! An admitted call runs on a task of its own, which a caller who leaves does not end: what was sent is paid and
//! recorded. A call that was not sent yet costs nothing, so until then the task looks whether anybody waits.
//!
//! There are two ways to leave. A caller that resets the connection has left, and no call is sent any more. A caller
//! that closes it may have left, or may only have closed the sending side. That caller is answered, but no call waits
//! much longer for it.
//!
//! A key can be revoked, and a tenant disabled, while a call waits for a budget, its turn or a retry. So the key is
//! judged again right before each attempt.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::refusal::Refusal;
use crate::auth::authenticator::AdmittedKey;

/// How long a call still waits once its caller may have left. Zero would refuse it, because less time would be
/// left than an attempt needs, and a caller that only closed its sending side must be answered.
pub(super) const LAST_WAIT: Duration = Duration::from_secs(1);

/// What is known of the caller of a request while its calls wait.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// Cancelled once the caller may have left: then nothing is waited for longer than a second.
    pub may_have_left: CancellationToken,
    /// Its key; none for a caller that needs none.
    pub standing: Option<AdmittedKey>,
}

/// Whether the caller of a request still waits for its answer, and may have it. By default it does and may.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    watch: Watch,
    has_left: CancellationToken,
}

impl Presence {
    /// The presence of a caller of whom `watch` tells, and who has left for certain once the guard is dropped.
    pub fn of(watch: Watch) -> (Self, DropGuard) {
        let has_left = CancellationToken::new();
        let guard = has_left.clone().drop_guard();
        (Self { watch, has_left }, guard)
    }

    /// Cancelled once the caller may have left.
    pub(super) const fn may_have_left(&self) -> &CancellationToken {
        &self.watch.may_have_left
    }

    /// Whether the caller's key is still good, as of less than a second ago.
    pub(super) async fn check_key(&self) -> Result<(), Refusal> {
        let Some(standing) = &self.watch.standing else { return Ok(()) };
        match standing.lapse().await {
            Ok(None) => Ok(()),
            Ok(Some(lapse)) => Err(Refusal::Lapsed(lapse)),
            Err(_) => Err(Refusal::StoreUnavailable),
        }
    }

    /// Whether the caller has left for certain.
    pub fn has_left(&self) -> bool {
        self.has_left.is_cancelled()
    }

    /// What comes of `wait`; none where the caller leaves before, or where it lasts longer than a second once the
    /// caller may have left.
    pub async fn bears<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let patience = async {
            self.watch.may_have_left.cancelled().await;
            tokio::time::sleep(LAST_WAIT).await;
        };
        tokio::select! {
            biased;
            () = self.has_left.cancelled() => None,
            done = wait => Some(done),
            () = patience => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bears(presence: &Presence, wait: Duration) -> bool {
        presence.bears(tokio::time::sleep(wait)).await.is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_once_where_the_caller_has_left_and_soon_where_it_may_have() {
        let left = CancellationToken::new();
        let watch = Watch { may_have_left: left.clone(), standing: None };
        let (presence, guard) = Presence::of(watch);
        assert!(bears(&presence, Duration::from_mins(1)).await);
        left.cancel();
        assert!(bears(&presence, LAST_WAIT / 2).await);
        assert!(!bears(&presence, LAST_WAIT * 2).await && !presence.has_left());
        drop(guard);
        assert!(!bears(&presence, Duration::ZERO).await && presence.has_left());
    }
}
