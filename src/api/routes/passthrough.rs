//! The drop-in paths: the vendor's two protocols as its SDKs speak them, with a key of this service.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::tell_tokens;
use crate::api::dialect::{Dialect, EVENTS, JSON};
use crate::api::entrance::{Entered, Places, authenticate, enter};
use crate::api::error;
use crate::api::middleware::{RequestId, Served};
use crate::api::problem::Problem;
use crate::api::upload;
use crate::auth::tenant::Tenant;
use crate::dashscope::Protocol;
use crate::gateway::Gateway;
use crate::passthrough::{self, Chunk, Reply};

/// `POST …/chat/completions`.
pub(in crate::api) async fn chat(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter(&gateway, request.headers()).await?;
    let result = forward(&gateway, &entered, request, Protocol::Compatible).await;
    Ok(entered.answer(result))
}

/// `POST /api/v1/services/aigc/multimodal-generation/generation`.
pub(in crate::api) async fn generation(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter(&gateway, request.headers()).await?;
    let result = forward(&gateway, &entered, request, Protocol::Native).await;
    Ok(entered.answer(result))
}

async fn forward(
    gateway: &Gateway,
    entered: &Entered,
    request: Request,
    protocol: Protocol,
) -> Result<Response, Problem> {
    let (headers, id) = (request.headers().clone(), RequestId::of(&request));
    if is_enabled(&headers, "x-dashscope-async") {
        let detail = "Asynchronous calls are not supported: leave X-DashScope-Async out.";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail));
    }
    let may_stream = request.version() >= Version::HTTP_11;
    let (body, held) = upload::read_whole(gateway, request).await?;
    let length = body.len();
    let request = passthrough::Request {
        protocol,
        body,
        stream: protocol == Protocol::Native && wants_events(&headers),
        may_stream,
        resolves_oss: is_enabled(&headers, "x-dashscope-ossresourceresolve"),
        deadline: entered.deadline,
        places: Arc::<Places>::clone(&entered.places),
        memory: Arc::new(held),
    };
    let mut response = match gateway.passthrough.forward(&entered.tenant, request).await? {
        Reply::Whole { body, spend, max_pixels } => {
            let mut response = ([(header::CONTENT_TYPE, JSON)], body).into_response();
            tell_tokens(&mut response, &spend, max_pixels);
            response
        }
        Reply::Stream(chunks) => {
            let dialect = match protocol {
                Protocol::Compatible => Dialect::OpenAi,
                Protocol::Native => Dialect::DashScope,
            };
            // nginx would hold events back until its buffer is full.
            let unbuffered = ("x-accel-buffering", HeaderValue::from_static("no"));
            let body = Body::from_stream(passed_on(chunks, dialect, id));
            ([(header::CONTENT_TYPE.as_str(), EVENTS), unbuffered], body).into_response()
        }
    };
    response.extensions_mut().get_or_insert_default::<Served>().upload_bytes = Some(length);
    Ok(response)
}

/// How far a stream has been passed on.
enum Passing {
    Open(mpsc::Receiver<Chunk>),
    /// All is said; what is left is to break the connection off.
    BreakOff,
}

/// The body of a stream. One that broke off ends with an event that says so and with a broken connection:
/// no client may take it for whole.
fn passed_on(
    chunks: mpsc::Receiver<Chunk>,
    dialect: Dialect,
    id: RequestId,
) -> impl stream::Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(Passing::Open(chunks), move |passing| {
        let id = id.clone();
        async move {
            let Passing::Open(mut chunks) = passing else {
                // hyper drops what it holds when a body fails; it writes it out when a body waits.
                tokio::task::yield_now().await;
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            match chunks.recv().await {
                None => Ok(None),
                Some(Chunk::Bytes(bytes)) => Ok(Some((bytes, Passing::Open(chunks)))),
                Some(Chunk::Broken(error)) => {
                    let event = dialect.event(&error::upstream(&error), id.as_str());
                    Ok(Some((event, Passing::BreakOff)))
                }
            }
        }
    })
}

/// `GET …/models`: the models that the key may use.
pub(in crate::api) async fn models(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let tenant = authenticate(&gateway, &headers).await?;
    let models: Vec<_> = allowed(&gateway, &tenant).map(described).collect();
    Ok(Json(json!({ "object": "list", "data": models })))
}

/// `GET …/models/{id}`.
pub(in crate::api) async fn model(
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

/// `GET /api/v1/uploads`: where the DashScope SDK may put a local file for the call that follows.
///
/// The vendor's answer is passed on: the file goes to its storage and not through here, and the call then
/// names it by an `oss://` address, bounded like any address.
pub(in crate::api) async fn uploads(
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let entered = enter(&gateway, &headers).await?;
    let result = upload_policy(&gateway, &entered, query.unwrap_or_default()).await;
    Ok(entered.answer(result))
}

async fn upload_policy(
    gateway: &Gateway,
    entered: &Entered,
    query: String,
) -> Result<Response, Problem> {
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
        return Err(Problem::bad_request("invalid_option", detail).flaw("/action", "is unknown"));
    }
    let policy =
        gateway.passthrough.upload_policy(&entered.tenant, model, entered.deadline).await?;
    Ok(([(header::CONTENT_TYPE, JSON)], policy).into_response())
}

/// Whether a header of DashScope's is set.
fn is_enabled(headers: &HeaderMap, name: &str) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"enable"))
}

/// Whether the native protocol is asked for a stream: by its own header or, as recorded requests do, by
/// `Accept` alone.
fn wants_events(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    is_enabled(headers, "x-dashscope-sse")
        || accepts.flat_map(|value| value.split(',')).any(|range| {
            let essence = range.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("text/event-stream")
        })
}
