//! Whether a caller may have left.
//!
//! A client that closes its connection looks at first like one that only closes its sending side, which it
//! may do once its request is whole (RFC 9112, section 9.6): both send a FIN. Only when something is written
//! to it does the first one answer with a reset. So a caller whose FIN came is answered, and hardly anything is
//! waited for on its behalf: a call is not sent unless a budget has room for it within the next second.
//! Meanwhile it counts as left (499), since most have.

use axum::extract::Request;
use tokio_util::sync::CancellationToken;

/// Whether the caller's side of a connection is closed. Rides on each request of the connection.
#[derive(Debug, Clone, Default)]
pub struct HalfClose(CancellationToken);

impl HalfClose {
    /// Notes that it is closed.
    pub fn note(&self) {
        self.0.cancel();
    }

    /// That of the connection which brought this request.
    pub(super) fn of(request: &Request) -> Self {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Ready once it is closed.
    pub(super) async fn noted(&self) {
        self.0.cancelled().await;
    }

    /// Cancelled once it is closed; for the use cases.
    pub(super) fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}
