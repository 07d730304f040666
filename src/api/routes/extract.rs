//! `POST /extract`: the fields of an image or a document, by JSON Schema or template.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::{counted, read_request, tell_pages};
use crate::api::accept;
use crate::api::cache_control::{cache_use, tell_cache};
use crate::api::entrance::enter_to_call;
use crate::api::middleware::RequestId;
use crate::api::options::Purpose;
use crate::api::page_problem::PageProblem;
use crate::api::problem::Problem;
use crate::gateway::Gateway;

/// Reads the fields of the uploaded image or document.
pub(in crate::api) async fn extract(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter_to_call(&gateway, &request).await?;
    accept::require_json(request.headers())?;
    let (id, cache_use) = (RequestId::of(&request), cache_use(request.headers()));
    let (request, _) = read_request(&gateway, &entered, request, Purpose::Fields).await?;
    // Only the use case holds the upload from here on.
    drop(entered);
    let answer = gateway.answers.extract(request, &cache_use).await?;
    let mut answer = answer.map_errors(|error| PageProblem::of(error, &id));
    let memory = std::mem::take(&mut answer.memory);
    // Structs of strings and numbers always serialise.
    let body = serde_json::to_vec(&answer).unwrap_or_default();
    let media_type = HeaderValue::from_static("application/json");
    let mut response =
        ([(header::CONTENT_TYPE, media_type)], counted(body, memory)).into_response();
    tell_cache(&mut response, &cache_use);
    tell_pages(&mut response, &answer.facts, &answer.pages);
    Ok(response)
}
