//! `GET /templates`: the documents that `/extract` reads without a schema from the caller.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::api::entrance::enter;
use crate::api::problem::Problem;
use crate::code::ErrorCode;
use crate::extract::templates::Template;
use crate::gateway::Gateway;

/// All templates, without their schemas.
pub(in crate::api) async fn list(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    enter(&gateway, &request).await?;
    let templates: Vec<_> = gateway.templates.all().iter().map(summary).collect();
    Ok(Json(json!({ "templates": templates })).into_response())
}

/// One template with its schema.
pub(in crate::api) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    enter(&gateway, &request).await?;
    let Some(template) = gateway.templates.find(&name) else {
        let known: Vec<_> =
            gateway.templates.all().iter().map(|template| template.name.as_str()).collect();
        let detail = format!("There is no such template. Templates: {}.", known.join(", "));
        return Err(Problem::new(ErrorCode::UnknownTemplate, detail));
    };
    Ok(Json(template).into_response())
}

fn summary(template: &Template) -> Value {
    json!({
        "name": template.name,
        "title": template.title,
        "description": template.description,
        "origin": template.origin,
    })
}
