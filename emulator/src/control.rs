//! The control API: it takes faults and returns calls and the bill, for tests in other languages and for people.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use serde_json::{Value, json};

use crate::address;
use crate::call::{Bill, Call};
use crate::fault::Fault;
use crate::head::query_value;
use crate::service::Service;

/// The longest body in bytes: a hosted file, or a recorded answer in a fault.
const LONGEST_BODY: usize = 100 * 1024 * 1024;

/// The routes under `/__emulator`.
pub(crate) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/__emulator/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/__emulator/calls", get(calls).delete(clear_calls))
        .route("/__emulator/bill", get(bill))
        .route("/__emulator/urls", put(host).delete(clear_hosted))
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
}

async fn faults(State(service): State<Arc<Service>>) -> Json<Vec<Fault>> {
    Json(service.world.faults())
}

/// Takes one fault or a list of them; adds all or none.
async fn add_faults(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    let wanted: Result<Vec<Fault>, _> = match serde_json::from_slice(&body) {
        Ok(Value::Array(list)) => list.into_iter().map(serde_json::from_value).collect(),
        Ok(one) => serde_json::from_value(one).map(|fault| vec![fault]),
        Err(error) => Err(error),
    };
    match wanted {
        Ok(faults) => {
            for fault in faults {
                service.world.add_fault(fault);
            }
            (StatusCode::CREATED, Json(service.world.faults())).into_response()
        }
        Err(error) => refused(&error.to_string()),
    }
}

fn refused(why: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": why }))).into_response()
}

async fn clear_faults(State(service): State<Arc<Service>>) -> StatusCode {
    service.world.clear_faults();
    StatusCode::NO_CONTENT
}

async fn calls(State(service): State<Arc<Service>>) -> Json<Vec<Call>> {
    Json(service.world.calls())
}

async fn clear_calls(State(service): State<Arc<Service>>) -> StatusCode {
    service.world.clear_calls();
    StatusCode::NO_CONTENT
}

async fn bill(State(service): State<Arc<Service>>) -> Json<Bill> {
    Json(service.world.bill())
}

/// Hosts the body at the address in the query.
async fn host(
    State(service): State<Arc<Service>>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    match query_value(query.as_deref(), "url") {
        Some(url) if address::is_remote(&url) => {
            service.world.host(url, body);
            StatusCode::NO_CONTENT.into_response()
        }
        Some(_) => refused("`url` is not an http, https or oss address"),
        None => refused("no `url` in the query"),
    }
}

async fn clear_hosted(State(service): State<Arc<Service>>) -> StatusCode {
    service.world.clear_hosted();
    StatusCode::NO_CONTENT
}
