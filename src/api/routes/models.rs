//! `GET …/models` of the compatible protocol: the models that a key may use.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::api::entrance::authenticate;
use crate::api::error;
use crate::api::problem::Problem;
use crate::auth::tenant::Tenant;
use crate::gateway::Gateway;

/// All of them.
pub(in crate::api) async fn list(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let tenant = authenticate(&gateway, &headers).await?;
    let models: Vec<_> = allowed(&gateway, &tenant).map(described).collect();
    Ok(Json(json!({ "object": "list", "data": models })))
}

/// One of them.
pub(in crate::api) async fn show(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let tenant = authenticate(&gateway, &headers).await?;
    let found = allowed(&gateway, &tenant).find(|name| *name == id);
    let missing = || error::no_such_model("There is no such model, or this key may not use it.");
    found.map(|name| Json(described(name))).ok_or_else(missing)
}

fn allowed<'a>(gateway: &'a Gateway, tenant: &'a Tenant) -> impl Iterator<Item = &'a str> {
    gateway.catalog.names().filter(|name| tenant.allows(name))
}

fn described(name: &str) -> Value {
    // When the vendor made it is not known here, and no client may rely on it.
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "system" })
}
