//! `POST /v1/ocr`: Mistral's OCR API, for its SDKs and `LiteLLM` with a key of this service.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{kept, tell_spend, tell_warnings};
use crate::api::accept;
use crate::api::dialect::JSON;
use crate::api::entrance::enter_to_call;
use crate::api::mistral::answer::MistralAnswer;
use crate::api::mistral::error;
use crate::api::mistral::request::{MistralBody, MistralRequest};
use crate::api::problem::Problem;
use crate::api::{spent, upload};
use crate::auth::tenant::Tenant;
use crate::gateway::Gateway;
use crate::ocr::request::{OcrOptions, OcrRequest};
use crate::random::new_id;

/// Reads the pages of the document as Markdown.
pub(in crate::api) async fn ocr(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter_to_call(&gateway, &request).await?;
    accept::require_json(request.headers())?;
    let tab = spent::tab_of(&request);
    let (image, asked) = upload::read_json(&gateway, &entered, request, MistralBody).await?;
    let options = options(&gateway, &entered.tenant, &asked)?;
    let id = new_id(&*gateway.clock, &*gateway.random);
    let request = OcrRequest { id, image, options, context: entered.context(tab) };
    // Only the request holds the upload from here on.
    drop(entered);
    let mut answer = gateway.ocr.recognize(request).await.map_err(error::problem)?;
    let warnings = answer.warning_codes();
    let memory = std::mem::take(&mut answer.memory);
    let pages = error::all_read(answer.pages)?;
    let pages: Vec<_> = pages.iter().collect();
    let body = MistralAnswer::of(id, &pages, &answer.facts, &asked);
    // Structs of strings and numbers always serialise.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let mut response = ([(header::CONTENT_TYPE, JSON)], kept(body, memory)).into_response();
    tell_spend(&mut response, &answer.facts, &pages);
    tell_warnings(&mut response, &warnings);
    Ok(response)
}

/// How the pages are read.
///
/// # Errors
///
/// 404 if there is no such model.
fn options(
    gateway: &Gateway,
    tenant: &Tenant,
    asked: &MistralRequest,
) -> Result<OcrOptions, Problem> {
    let aliases = gateway.catalog.aliases();
    let model = asked.model.as_deref().and_then(|name| aliases.resolve(name));
    if gateway.catalog.find(model).is_none() {
        let sold = gateway.catalog.sold_in(&tenant.regions);
        let usable = sold.filter(|model| tenant.allows(&model.name));
        let models = usable.map(|model| model.name.clone());
        return Err(error::unknown_model(model.unwrap_or_default(), aliases.names(), models));
    }
    Ok(OcrOptions {
        model: model.map(str::to_owned),
        pages: asked.pages.clone(),
        markdown: true,
        is_all_or_nothing: true,
        ..OcrOptions::default()
    })
}
