//! Health routes of a process during its start: the process is alive but not ready.
//!
//! Kubernetes restarts a pod if `/livez` does not answer. A restart does not help if the database is down, and it would
//! abort a migration, which would then start again. So `/livez` answers before the database is reached and migrated.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;

use super::middleware;
use super::problem::Problem;
use super::routes::health;
use crate::code::ErrorCode;

/// The progress of a start.
#[derive(Debug, Clone, Default)]
pub struct Starting {
    /// A description of the step that the start waits for; empty at first.
    reason: Arc<Mutex<String>>,
}

impl Starting {
    /// Sets the step that the start waits for.
    pub fn waits_for(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn detail(&self) -> String {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if reason.is_empty() {
            return "This replica is starting.".to_owned();
        }
        format!("This replica waits to start: {reason}.")
    }
}

/// The routes of the metrics and health listener while the service starts.
pub fn router(starting: &Starting) -> Router {
    Router::new()
        .route("/livez", get(health::live))
        .fallback(not_ready)
        .with_state(starting.clone())
}

/// `GET /readyz`, and all paths that are not served yet.
async fn not_ready(State(starting): State<Starting>, request: Request) -> Response {
    let problem = Problem::new(ErrorCode::NotReady, starting.detail());
    let id = middleware::request_id(request.headers());
    let id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("none");
    problem.after(Duration::from_secs(1)).response(id, request.uri().path())
}
