//! `POST /v1/ocr`: Mistral's OCR API, for its SDKs and `LiteLLM` with a key of this service.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{counted, tell_spend, tell_warnings};
use crate::api::accept;
use crate::api::cache_control::{cache_use, tell_cache};
use crate::api::dialect::JSON;
use crate::api::entrance::enter_to_call;
use crate::api::middleware::RequestId;
use crate::api::mistral::answer::MistralAnswer;
use crate::api::mistral::error;
use crate::api::mistral::request::{MistralBody, MistralRequest};
use crate::api::page_problem::PageProblem;
use crate::api::problem::{Flaw, Problem};
use crate::api::{spent, upload};
use crate::auth::tenant::Tenant;
use crate::capacity::account::HeldBytes;
use crate::code::ErrorCode;
use crate::extract::Extraction;
use crate::gateway::Gateway;
use crate::ocr::caching::CacheUse;
use crate::ocr::error::OcrError;
use crate::ocr::request::{OcrOptions, OcrRequest, TextBeside};
use crate::ocr::result::{ExtractAnswer, Facts, OcrAnswer, PageOutcome};
use crate::random::new_id;

/// Reads the pages of the document as Markdown.
pub(in crate::api) async fn ocr(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter_to_call(&gateway, &request).await?;
    accept::require_json(request.headers())?;
    require_no_query(&request)?;
    let (tab, request_id) = (spent::tab_of(&request), RequestId::of(&request));
    let cache_use = cache_use(request.headers());
    let (image, mut asked) = upload::read_json(&gateway, &entered, request, MistralBody).await?;
    let schema = asked.read_schema(&gateway.scratch).await?;
    let options = OcrOptions { schema, ..options(&gateway, &entered.tenant, &asked)? };
    let id = new_id(&*gateway.clock, &*gateway.random);
    let request = OcrRequest { id, image, options, context: entered.context(tab) };
    // Only the request holds the upload from here on.
    drop(entered);
    let read = DocumentRead::of(&gateway, request, &cache_use).await.map_err(error::problem)?;
    let DocumentRead { pages, facts, extraction, warnings, memory } = read;
    let pages = error::all_read(pages, facts.document.pages)?.into_iter();
    let pages = pages.map(|page| page.map_error(|error| PageProblem::of(error, &request_id)));
    let pages: Vec<_> = pages.collect();
    let pages: Vec<_> = pages.iter().collect();
    let body = MistralAnswer::of(id, &pages, &facts, extraction.as_ref(), &asked);
    // Structs of strings and numbers always serialise.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let mut response = ([(header::CONTENT_TYPE, JSON)], counted(body, memory)).into_response();
    tell_cache(&mut response, &cache_use);
    tell_spend(&mut response, &facts, &pages);
    tell_warnings(&mut response, &warnings);
    Ok(response)
}

/// Refuses a query, because an option in it would be without effect.
///
/// # Errors
///
/// 400 that names the first option of the query.
fn require_no_query(request: &Request) -> Result<(), Problem> {
    let query = request.uri().query().unwrap_or_default();
    let Some((name, _)) = form_urlencoded::parse(query.as_bytes()).next() else { return Ok(()) };
    let shown: String = name.chars().take(32).collect();
    let why = "is unknown: this route takes its options as members of the body only";
    let flaw = Flaw::of(&shown, ErrorCode::UnknownOption, why);
    Problem::of_flaws(vec![flaw]).map_or(Ok(()), Err)
}

/// What was read of a document: its pages, and its fields if there is a schema.
struct DocumentRead {
    pages: Vec<PageOutcome>,
    facts: Facts,
    extraction: Option<Extraction>,
    /// The codes of all warnings.
    warnings: BTreeSet<&'static str>,
    memory: Vec<Arc<HeldBytes>>,
}

impl DocumentRead {
    async fn of(
        gateway: &Gateway,
        request: OcrRequest,
        cache_use: &CacheUse,
    ) -> Result<Self, OcrError> {
        if request.options.schema.is_some() {
            let answer = gateway.answers.extract(request, cache_use).await?;
            let warnings = answer.warning_codes();
            let ExtractAnswer { pages, facts, extraction, memory, .. } = answer;
            return Ok(Self { pages, facts, extraction: Some(extraction), warnings, memory });
        }
        let answer = gateway.answers.recognize(request, cache_use).await?;
        let warnings = answer.warning_codes();
        let OcrAnswer { pages, facts, memory, .. } = answer;
        Ok(Self { pages, facts, extraction: None, warnings, memory })
    }
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
        text_beside: TextBeside::Read,
        is_all_or_nothing: true,
        ..OcrOptions::default()
    })
}
