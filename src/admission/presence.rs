//! Whether the caller of a request still waits for its answer, and whether its key is still valid.
//!
//! An admitted call runs on a task of its own, which continues when its caller leaves: a call that was sent is paid and
//! recorded. A call that was not sent yet costs nothing, so until then the task checks whether the caller is still
//! there.
//!
//! There are two ways to leave. A caller that resets the connection has left, and no further call is sent for it. A
//! caller that closes the connection may have left, or may only have closed its sending side. That caller is answered,
//! but no call waits much longer for it.
//!
//! A key can be revoked, and a tenant disabled, while a call waits for a budget, a slot or a retry. So the key is
//! checked again right before each attempt.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::refusal::Refusal;
use crate::auth::authenticator::AdmittedKey;
use crate::departure::Departure;

/// How long a call still waits once its caller may have left. Zero would refuse it, because less time would be left
/// than an attempt needs, and a caller that only closed its sending side must be answered.
pub(super) const LAST_WAIT: Duration = Duration::from_secs(1);

/// Watches the caller of a request while its calls wait.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// The caller may have left. From then on no wait is longer than a second.
    pub may_have_left: Departure,
    /// The caller has left for certain, if anybody can tell before the work for it is dropped.
    pub has_left: Departure,
    /// The caller's key; `None` if the caller needs none.
    pub standing: Option<AdmittedKey>,
}

/// The presence of the caller of a request. By default the caller is there and its key valid.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    watch: Watch,
    /// Cancelled once the work for the caller is dropped.
    is_dropped: CancellationToken,
}

impl Presence {
    /// The presence of a caller that `watch` observes. Dropping the guard means that the caller has left for certain.
    pub fn of(watch: Watch) -> (Self, DropGuard) {
        let is_dropped = CancellationToken::new();
        let guard = is_dropped.clone().drop_guard();
        (Self { watch, is_dropped }, guard)
    }

    /// The caller may have left.
    pub(super) const fn may_have_left(&self) -> &Departure {
        &self.watch.may_have_left
    }

    /// Checks that the caller's key is still valid. The answer is less than a second old.
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
        self.is_dropped.is_cancelled() || self.watch.has_left.is_noted()
    }

    /// The result of `wait`; `None` if the caller leaves before, or if `wait` takes longer than a second after the
    /// caller may have left.
    pub async fn bears<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let patience = async {
            self.watch.may_have_left.noted().await;
            tokio::time::sleep(LAST_WAIT).await;
        };
        tokio::select! {
            biased;
            () = self.is_dropped.cancelled() => None,
            () = self.watch.has_left.noted() => None,
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
        let left = Departure::default();
        let watch = Watch { may_have_left: left.clone(), ..Watch::default() };
        let (presence, guard) = Presence::of(watch);
        assert!(bears(&presence, Duration::from_mins(1)).await);
        left.note();
        assert!(bears(&presence, LAST_WAIT / 2).await);
        assert!(!bears(&presence, LAST_WAIT * 2).await && !presence.has_left());
        drop(guard);
        assert!(!bears(&presence, Duration::ZERO).await && presence.has_left());
    }
}
