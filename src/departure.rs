//! Whether the caller for whom work is done has left.
//!
//! Work that several callers share goes on as long as one of them waits. After the last has left, another may still come
//! before the work has noticed. So a departure can be taken back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The departure of a caller, or of all who share a piece of work. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Departure {
    /// Cancelled once the caller has left; another one after that is taken back.
    token: Arc<Mutex<CancellationToken>>,
}

impl Departure {
    /// The departure that `token` tells by its cancellation.
    pub fn told_by(token: CancellationToken) -> Self {
        Self { token: Arc::new(Mutex::new(token)) }
    }

    /// Notes that the caller has left.
    pub fn note(&self) {
        self.token().cancel();
    }

    /// Notes that somebody is there again. What has ended because of the departure stays ended.
    pub fn take_back(&self) {
        let mut token = self.lock();
        if token.is_cancelled() {
            *token = CancellationToken::new();
        }
    }

    /// Whether the caller has left.
    pub fn is_noted(&self) -> bool {
        self.lock().is_cancelled()
    }

    /// Waits until the caller has left.
    pub async fn noted(&self) {
        self.token().cancelled().await;
    }

    fn token(&self) -> CancellationToken {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, CancellationToken> {
        // No code panics while it holds the lock.
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_departure_that_is_taken_back_can_be_noted_again() {
        let departure = Departure::default();
        let same = departure.clone();
        departure.take_back();
        assert!(!same.is_noted() && same.noted().now_or_never().is_none());
        departure.note();
        assert!(same.is_noted() && same.noted().now_or_never().is_some());
        departure.take_back();
        assert!(!same.is_noted() && same.noted().now_or_never().is_none());
        same.note();
        assert!(departure.is_noted());
    }

    #[test]
    fn a_token_tells_a_departure() {
        let token = CancellationToken::new();
        let departure = Departure::told_by(token.clone());
        assert!(!departure.is_noted());
        token.cancel();
        assert!(departure.is_noted());
    }
}
