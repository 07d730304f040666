//! What a process answers before it serves: that it is alive, and what it waits for.
//!
//! Kubernetes restarts a pod that does not answer at `/livez`. A database that is away would not come back by
//! that, and a migration would be cut off and begin anew. So a process answers before it has either.

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

/// How far a start has come.
#[derive(Debug, Clone, Default)]
pub struct Starting {
    /// What it waits for; empty at first.
    reason: Arc<Mutex<String>>,
}

impl Starting {
    /// Notes what the start waits for.
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

/// What is answered on the listener of metrics and health while the service starts.
pub fn router(starting: &Starting) -> Router {
    Router::new()
        .route("/livez", get(health::live))
        .fallback(not_ready)
        .with_state(starting.clone())
}

/// `GET /readyz`, and what else is not there yet.
async fn not_ready(State(starting): State<Starting>, request: Request) -> Response {
    let problem = Problem::new(ErrorCode::NotReady, starting.detail());
    let id = middleware::request_id(request.headers());
    let id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("none");
    problem.after(Duration::from_secs(1)).response(id, request.uri().path())
}
