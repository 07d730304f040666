//! `GET …/models` of the compatible protocol: the models that a key may use.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use serde_json::{Value, json};

use crate::api::entrance::enter;
use crate::api::error;
use crate::api::problem::Problem;
use crate::auth::tenant::Tenant;
use crate::catalog::Model;
use crate::gateway::Gateway;

/// All models that the key may use.
pub(in crate::api) async fn list(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let tenant = enter(&gateway, &request).await?.tenant;
    let models: Vec<_> = allowed(&gateway, &tenant).map(|model| described(&model.name)).collect();
    Ok(Json(json!({ "object": "list", "data": models })))
}

/// One of these models.
pub(in crate::api) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let tenant = enter(&gateway, &request).await?.tenant;
    let found = allowed(&gateway, &tenant).find(|model| model.name == id);
    let missing = || error::no_such_model("There is no such model, or this key may not use it.");
    found.map(|model| Json(described(&model.name))).ok_or_else(missing)
}

/// The models that the tenant may use in its regions.
fn allowed<'a>(gateway: &'a Gateway, tenant: &'a Tenant) -> impl Iterator<Item = Arc<Model>> + 'a {
    gateway.catalog.sold_in(&tenant.regions).filter(|model| tenant.allows(&model.name))
}

fn described(name: &str) -> Value {
    // The real date is not known here, and clients do not rely on it.
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "system" })
}
