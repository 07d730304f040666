//! The routes of the emulator.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use crate::error::Refusal;
use crate::exchange::{self, Protocol};
use crate::head::api_key;
use crate::service::Service;
use crate::{clock, compatible, control, native, uploads};

/// All routes of an emulator.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let chat = |State(service): State<Arc<Service>>, request: Request| {
        exchange::answer(service, Protocol::Compatible, request)
    };
    let generation = |State(service): State<Arc<Service>>, request: Request| {
        exchange::answer(service, Protocol::Native, request)
    };
    Router::new()
        .route("/compatible-mode/v1/chat/completions", post(chat))
        .route("/compatible-mode/v1/models", get(models))
        .route("/api/v1/services/aigc/multimodal-generation/generation", post(generation))
        .merge(uploads::routes())
        .merge(control::routes())
        .fallback(unknown_path)
        .with_state(service)
}

async fn models(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let request_id = service.identifiers.next();
    match service.authenticate(api_key(&headers)) {
        Ok(()) => axum::Json(compatible::models(clock::unix_seconds())).into_response(),
        Err(refusal) => exchange::plain(refusal.status, &compatible::error(&refusal, &request_id)),
    }
}

/// A path without an endpoint. Under the native prefix the service's error is about the URL.
async fn unknown_path(State(service): State<Arc<Service>>, request: Request) -> Response {
    let request_id = service.identifiers.next();
    if request.uri().path().starts_with("/api/v1/services/") {
        let refusal = Refusal::invalid_parameter("url error, please check url！");
        return exchange::plain(refusal.status, &native::error(&refusal, &request_id));
    }
    let refusal = Refusal::of_code("NotFound");
    exchange::plain(refusal.status, &compatible::error(&refusal, &request_id))
}
