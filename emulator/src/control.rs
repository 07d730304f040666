//! The control API: faults in, calls and the bill out, for tests in other languages and for people.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::call::{Bill, Call};
use crate::fault::Fault;
use crate::service::Service;

/// The routes under `/__emulator`.
pub(crate) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/__emulator/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/__emulator/calls", get(calls).delete(clear_calls))
        .route("/__emulator/bill", get(bill))
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
        Err(error) => {
            (StatusCode::BAD_REQUEST, Json(json!({ "error": error.to_string() }))).into_response()
        }
    }
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
