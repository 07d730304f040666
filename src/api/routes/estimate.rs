//! `POST /estimate`: what the same request to `/ocr` or `/extract` would cost. Nothing is sent or spent.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::read_request;
use crate::api::accept;
use crate::api::entrance::enter;
use crate::api::middleware::RequestId;
use crate::api::options::Purpose;
use crate::api::page_problem::PageProblem;
use crate::api::problem::Problem;
use crate::gateway::Gateway;

/// Estimates the cost of the uploaded image or document.
pub(in crate::api) async fn estimate(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter(&gateway, &request).await?;
    accept::require_json(request.headers())?;
    let id = RequestId::of(&request);
    let (request, _) = read_request(&gateway, &entered, request, Purpose::Estimate).await?;
    let estimate = gateway.ocr.estimate(&request).await?;
    let estimate = estimate.map_errors(|error| PageProblem::of(error, &id));
    Ok(Json(estimate).into_response())
}
