//! Whether a caller may have left.
//!
//! A client sends a FIN when it closes its connection, and also when it closes only its sending side after a complete
//! request (RFC 9112, section 9.6). The server cannot distinguish the two until it writes: a closed connection then
//! answers with a reset. So a caller still gets its answer after its FIN, but its calls no longer wait for long: a call
//! is sent only if a budget has room for it within the next second. The metrics count the caller as left (499), because
//! most such callers have left.

use axum::extract::Request;
use tokio_util::sync::CancellationToken;

/// Whether the caller has closed its side of a connection. An extension of each request on the connection.
#[derive(Debug, Clone, Default)]
pub struct HalfClose(CancellationToken);

impl HalfClose {
    /// Records that the side is closed.
    pub fn note(&self) {
        self.0.cancel();
    }

    /// The state of this request's connection.
    pub(super) fn of(request: &Request) -> Self {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Ready once the side is closed.
    pub(super) async fn noted(&self) {
        self.0.cancelled().await;
    }

    /// A token for the use cases, which is cancelled once the side is closed.
    pub(super) fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}
