//! Liveness, readiness and metrics of the process.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::api::problem::{Problem, sentence};
use crate::code::ErrorCode;
use crate::gateway::Gateway;

/// `GET /livez`: the process answers.
pub(in crate::api) async fn live() -> Response {
    Json(json!({ "status": "alive" })).into_response()
}

/// `GET /readyz`: requests can be served. Spends no token.
pub(in crate::api) async fn ready(
    State(gateway): State<Arc<Gateway>>,
) -> Result<Response, Problem> {
    match gateway.ready().await {
        Ok(()) => Ok(Json(json!({ "status": "ready" })).into_response()),
        Err(reason) => {
            let problem = Problem::new(ErrorCode::NotReady, sentence(&reason));
            Err(problem.after(Duration::from_secs(1)))
        }
    }
}

/// `GET /metrics`, in the Prometheus text format.
pub(in crate::api) async fn metrics(
    State(gateway): State<Arc<Gateway>>,
) -> Result<Response, Problem> {
    let levels = gateway.levels().await;
    let text = gateway.metrics.encode(&levels).map_err(|_| Problem::internal())?;
    let media_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, media_type)], text).into_response())
}
