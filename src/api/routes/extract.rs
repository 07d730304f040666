//! `POST /extract`: the fields of an image or of one page of a document, by JSON Schema or template.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::{read_request, tell_spend};
use crate::api::accept;
use crate::api::entrance::enter_to_call;
use crate::api::options::Purpose;
use crate::api::problem::Problem;
use crate::gateway::Gateway;

/// Reads the fields of the uploaded image or page.
pub(in crate::api) async fn extract(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter_to_call(&gateway, &request).await?;
    accept::require_json(request.headers())?;
    let (request, _) = read_request(&gateway, &entered, request, Purpose::Fields).await?;
    // Only the use case holds the upload from here on.
    drop(entered);
    let answer = gateway.ocr.extract(request).await?;
    let mut response = Json(&answer).into_response();
    tell_spend(&mut response, &answer.facts, &answer.pages.iter().collect::<Vec<_>>());
    Ok(response)
}
