//! `GET /api/v1/uploads` of the native protocol: the permission to upload a local file to the vendor's storage.
//!
//! The DashScope SDK requests it before a call with a local file. The answer of the vendor is passed on. The SDK then
//! uploads the file to the vendor's storage and not through the gateway. The call contains an `oss://` address of the
//! file, and its cost is bounded like that of any address.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::api::dialect::JSON;
use crate::api::entrance::enter_to_call;
use crate::api::problem::Problem;
use crate::api::spent;
use crate::code::ErrorCode;
use crate::gateway::Gateway;

/// Returns the vendor's permission to upload a file.
pub(in crate::api) async fn uploads(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter_to_call(&gateway, &request).await?;
    let tab = spent::tab_of(&request);
    let query = request.uri().query().unwrap_or_default();
    let (mut action, mut model) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "action" => action = Some(value.into_owned()),
            "model" => model = Some(value.into_owned()),
            _ => {}
        }
    }
    if action.as_deref() != Some("getPolicy") {
        let detail = "The only action is getPolicy: ?action=getPolicy&model=MODEL.";
        return Err(Problem::new(ErrorCode::InvalidOption, detail).flaw("/action", "is unknown"));
    }
    let (tenant, deadline) = (&entered.tenant, entered.deadline);
    let policy = gateway.dropin.upload_policy(tenant, model, deadline, &tab).await?;
    Ok(([(header::CONTENT_TYPE, JSON)], policy).into_response())
}
