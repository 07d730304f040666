//! `POST /ocr`: the text of an image or a document.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;

use super::{counted, ocr_stream, read_request, tell_pages, tell_warnings};
use crate::api::accept;
use crate::api::cache_control::{cache_use, tell_cache};
use crate::api::entrance::enter_to_call;
use crate::api::middleware::RequestId;
use crate::api::options::{self, AnswerFormat, Purpose};
use crate::api::page_problem::PageProblem;
use crate::api::problem::Problem;
use crate::document::workers::draft::SearchableFile;
use crate::gateway::Gateway;
use crate::ocr::markdown;
use crate::ocr::result::OcrAnswer;

/// A document with a longer text, in bytes, is joined outside the reactor.
const JOIN_INLINE_BYTES: usize = 128 * 1024;

/// Reads the text of the uploaded image or document.
pub(in crate::api) async fn ocr(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let entered = enter_to_call(&gateway, &request).await?;
    let (headers, id) = (request.headers().clone(), RequestId::of(&request));
    let cache_use = cache_use(&headers);
    let (mut request, format) = read_request(&gateway, &entered, request, Purpose::Text).await?;
    // Only the request holds the upload from here on.
    drop(entered);
    let format = accept::negotiate(format, &headers)?;
    options::agree_on(format, &mut request.options)?;
    if format == AnswerFormat::Events {
        return ocr_stream::answer(&gateway, request, id, cache_use).await;
    }
    let answer = gateway.answers.recognize(request, &cache_use).await?;
    let mut answer = answer.map_errors(|error| PageProblem::of(error, &id));
    let memory = std::mem::take(&mut answer.memory);
    let is_json = matches!(format, AnswerFormat::Json | AnswerFormat::Events);
    let (media_type, body) = match format {
        // Structs of strings and numbers always serialise.
        AnswerFormat::Json | AnswerFormat::Events => {
            ("application/json", Bytes::from(serde_json::to_vec(&answer).unwrap_or_default()))
        }
        AnswerFormat::Text => {
            ("text/plain; charset=utf-8", std::mem::take(&mut answer.text).into())
        }
        AnswerFormat::Markdown => {
            let markdown;
            (answer, markdown) = as_markdown(answer).await?;
            ("text/markdown; charset=utf-8", markdown.into())
        }
        AnswerFormat::Pdf => ("application/pdf", Bytes::new()),
    };
    let (length, body) = match answer.searchable.take() {
        Some(file) => (file.len(), in_pieces(file)),
        None => (body.len(), Body::from(counted(body, memory))),
    };
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    let mut response = (head, body).into_response();
    tell_cache(&mut response, &cache_use);
    tell_pages(&mut response, &answer.facts, &answer.pages);
    if !is_json {
        tell_warnings(&mut response, &answer.warning_codes());
    }
    Ok(response)
}

/// The answer and its Markdown.
async fn as_markdown(
    answer: OcrAnswer<PageProblem>,
) -> Result<(OcrAnswer<PageProblem>, String), Problem> {
    let join = |answer: OcrAnswer<PageProblem>| {
        let markdown = markdown::of_document(&answer, PageProblem::code);
        (answer, markdown)
    };
    if answer.text.len() <= JOIN_INLINE_BYTES {
        return Ok(join(answer));
    }
    let joining = tokio::task::spawn_blocking(move || join(answer)).await;
    joining.map_err(|_panicked| Problem::internal())
}

/// A searchable PDF. Its pieces are written one after the other and never joined, so that the upload within it is not
/// copied.
fn in_pieces(file: SearchableFile) -> Body {
    let SearchableFile { pieces, memory } = file;
    let pieces =
        pieces.into_iter().map(move |piece| Ok::<_, Infallible>(counted(piece, memory.clone())));
    Body::from_stream(stream::iter(pieces))
}
