//! The drop-in paths that cost tokens: the vendor's two protocols as its SDKs use them, with a key of this service.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::mpsc;

use super::{KEEP_ALIVE, tell_tokens};
use crate::admission::tab::Tab;
use crate::api::accept;
use crate::api::dialect::{Dialect, EVENTS, JSON};
use crate::api::entrance::{Entered, enter_to_call};
use crate::api::error;
use crate::api::middleware::{RequestId, Served};
use crate::api::problem::Problem;
use crate::api::spent;
use crate::api::upload;
use crate::capacity::account::HeldBytes;
use crate::code::ErrorCode;
use crate::dashscope::Protocol;
use crate::dropin::request::DropinRequest;
use crate::dropin::{DropinChunk, DropinReply};
use crate::gateway::Gateway;
use crate::metering::spend::Spend;

/// `POST …/chat/completions`.
pub(in crate::api) async fn chat(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter_to_call(&gateway, &request).await?;
    send(&gateway, &entered, request, Protocol::Compatible).await
}

/// `POST /api/v1/services/aigc/multimodal-generation/generation`.
pub(in crate::api) async fn generation(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter_to_call(&gateway, &request).await?;
    send(&gateway, &entered, request, Protocol::Native).await
}

async fn send(
    gateway: &Gateway,
    entered: &Entered,
    request: Request,
    protocol: Protocol,
) -> Result<Response, Problem> {
    let (headers, id) = (request.headers().clone(), RequestId::of(&request));
    if is_enabled(&headers, "x-dashscope-async") {
        let detail = "Asynchronous calls are not supported: leave X-DashScope-Async out.";
        return Err(Problem::new(ErrorCode::Forbidden, detail));
    }
    let may_stream = request.version() >= Version::HTTP_11;
    let tab = spent::tab_of(&request);
    let body = upload::read_whole(gateway, entered, request).await?;
    let length = body.len();
    let request = DropinRequest {
        protocol,
        body,
        stream: protocol == Protocol::Native && wants_events(&headers),
        may_stream,
        resolves_oss: is_enabled(&headers, "x-dashscope-ossresourceresolve"),
        context: entered.context(tab.clone()),
    };
    let mut response = match gateway.dropin.send(request).await? {
        DropinReply::Whole { body, max_pixels } => {
            let mut response = ([(header::CONTENT_TYPE, JSON)], body).into_response();
            if let Some(spend) = Spend::on_calls(&tab.ended()) {
                tell_tokens(&mut response, &spend, max_pixels);
            }
            response
        }
        DropinReply::Stream(mut chunks) => {
            // The upstream may stream without a request for it, and an HTTP/1.0 client cannot distinguish a broken
            // stream from a complete one.
            let (begun, is_whole) = if may_stream {
                (Vec::new(), false)
            } else {
                gather(&mut chunks, &entered.memory).await?
            };
            if is_whole {
                let mut response = ([(header::CONTENT_TYPE, EVENTS)], begun).into_response();
                if let Some(spend) = Spend::on_calls(&tab.ended()) {
                    spent::tell(response.headers_mut(), &spend);
                }
                response
            } else {
                let dialect = match protocol {
                    Protocol::Compatible => Dialect::OpenAi,
                    Protocol::Native => Dialect::DashScope,
                };
                let silence = gateway.bounds.stream_silence;
                let begun = (!begun.is_empty()).then(|| Ok(Frame::data(begun.into())));
                let rest = passed_on(chunks, dialect, id, tab.clone(), silence);
                let body = Body::new(StreamBody::new(stream::iter(begun).chain(rest)));
                streamed(body, &headers, &tab)
            }
        }
    };
    response.extensions_mut().get_or_insert_default::<Served>().upload_bytes = Some(length);
    Ok(response)
}

/// The answer with a streamed body to a request with these headers.
fn streamed(body: Body, headers: &HeaderMap, tab: &Tab) -> Response {
    // Otherwise nginx holds events back until its buffer is full.
    let unbuffered = ("x-accel-buffering", HeaderValue::from_static("no"));
    let head = [(header::CONTENT_TYPE.as_str(), EVENTS), unbuffered];
    let mut response = (head, body).into_response();
    if spent::takes_trailers(headers) {
        spent::announce_trailers(response.headers_mut());
    } else {
        spent::tell_lost(response.headers_mut(), &tab.ended());
    }
    response
}

/// Collects a stream into one answer; also returns whether the answer is complete. The bytes count against the memory
/// of the request. If memory runs out, the answer is incomplete. The caller then gets the rest as a stream, because the
/// tokens are already billed.
async fn gather(
    chunks: &mut mpsc::Receiver<DropinChunk>,
    memory: &HeldBytes,
) -> Result<(Vec<u8>, bool), Problem> {
    let mut gathered = Vec::new();
    loop {
        match chunks.recv().await {
            Some(DropinChunk::Bytes(bytes)) => {
                let is_counted = memory.take(bytes.len() as u64).is_ok();
                gathered.extend_from_slice(&bytes);
                if !is_counted {
                    return Ok((gathered, false));
                }
            }
            Some(DropinChunk::End) => return Ok((gathered, true)),
            Some(DropinChunk::Broken(error)) => return Err(error::upstream(&error)),
            None => return Err(Problem::internal()),
        }
    }
}

/// The state of a stream to the caller.
enum StreamState {
    Open(mpsc::Receiver<DropinChunk>),
    Over,
    /// The error was written, and the connection must be aborted.
    BreakOff,
}

/// The body of a stream, with trailers that report its cost.
///
/// If the stream breaks off, an event reports the error and the connection is aborted, so that no client takes the
/// stream for complete. A comment is sent after each `silence`. Chunks are whole events, so a comment is never inside
/// an event.
fn passed_on(
    chunks: mpsc::Receiver<DropinChunk>,
    dialect: Dialect,
    id: RequestId,
    tab: Tab,
    silence: Duration,
) -> impl stream::Stream<Item = io::Result<Frame<Bytes>>> {
    stream::try_unfold(StreamState::Open(chunks), move |passing| {
        let (id, tab) = (id.clone(), tab.clone());
        async move {
            let mut chunks = match passing {
                StreamState::Open(chunks) => chunks,
                StreamState::Over => return Ok(None),
                StreamState::BreakOff => return break_off().await,
            };
            let Ok(chunk) = tokio::time::timeout(silence, chunks.recv()).await else {
                return Ok(Some((Frame::data(KEEP_ALIVE), StreamState::Open(chunks))));
            };
            match chunk {
                None => break_off().await,
                // hyper sends trailers only to a caller who accepts them.
                Some(DropinChunk::End) => {
                    Ok(Some((Frame::trailers(spent::trailers(&tab)), StreamState::Over)))
                }
                Some(DropinChunk::Bytes(bytes)) => {
                    Ok(Some((Frame::data(bytes), StreamState::Open(chunks))))
                }
                Some(DropinChunk::Broken(error)) => {
                    let problem = error::upstream(&error).charged(&tab);
                    let event = dialect.event(&problem, id.as_str());
                    Ok(Some((Frame::data(event), StreamState::BreakOff)))
                }
            }
        }
    })
}

/// Aborts the connection after hyper had time to write its buffer. hyper drops the buffer when a body fails, and writes
/// it when a body is pending.
async fn break_off<T>() -> io::Result<Option<T>> {
    tokio::task::yield_now().await;
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Whether a DashScope header is set.
fn is_enabled(headers: &HeaderMap, name: &str) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"enable"))
}

/// Whether a request in the native protocol asks for a stream: by the protocol's own header or, as recorded requests
/// do, by `Accept` alone.
fn wants_events(headers: &HeaderMap) -> bool {
    is_enabled(headers, "x-dashscope-sse") || accept::accepts_events(headers)
}
