//! `POST /ocr` with `Accept: text/event-stream`: the text while the model writes it, each page when it is done, then
//! the usual answer.
//!
//! An event `text` has new text of a page, and an event `page` a page as in the answer. Pages are read side by side, so
//! their texts come mixed. The last event is `answer`, with the whole answer as JSON, or `error`, with the
//! problem document. The head is sent with the first event, or with the first comment that prevents a timeout of
//! proxies. A request that is refused earlier gets an error status.
//!
//! The pages are read on a task of their own. So a client that does not read its answer holds up neither the workers
//! nor the places in queues that its pages have. The task ends with the response, so that no further page is sent for
//! a client that has left.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{KEEP_ALIVE, counted};
use crate::admission::tab::Tab;
use crate::api::cache_control::tell_cache;
use crate::api::middleware::RequestId;
use crate::api::page_problem::PageProblem;
use crate::api::problem::Problem;
use crate::api::spent;
use crate::gateway::Gateway;
use crate::metering::error::MeteringError;
use crate::metering::read_on::WAITING_MESSAGES;
use crate::ocr::caching::CacheUse;
use crate::ocr::error::OcrError;
use crate::ocr::request::OcrRequest;
use crate::ocr::result::{OcrAnswer, PageEvent};

/// Streams the text of an image or a document.
pub(super) async fn answer(
    gateway: &Gateway,
    request: OcrRequest,
    id: RequestId,
    cache_use: CacheUse,
) -> Result<Response, Problem> {
    let (sender, events) = mpsc::channel(WAITING_MESSAGES);
    let (ocr, of_cache) = (Arc::clone(&gateway.answers), cache_use.clone());
    let (tab, silence) = (request.context.tab.clone(), gateway.bounds.stream_silence);
    let answering = async move { ocr.recognize_streamed(request, &of_cache, sender).await };
    let answering = gateway.tasks.spawn(answering.in_current_span());
    let answering = AbortOnDropHandle::new(answering);
    let mut reading =
        OcrStream { events, answering: Some(answering), answer: None, id, tab, silence };
    let first = match reading.next_or_nothing().await {
        Some(OcrEvent::Answer(answer)) => Some(OcrEvent::Answer(Box::new(Ok((*answer)?)))),
        told => told,
    };
    let lost = reading.tab.ended();
    let told = stream::iter(first.map(|told| reading.event(told)))
        .chain(stream::unfold(reading, OcrStream::next_event))
        .map(Ok::<_, Infallible>);
    let unbuffered = ("x-accel-buffering", HeaderValue::from_static("no"));
    let media_type = HeaderValue::from_static("text/event-stream");
    let head = [(header::CONTENT_TYPE.as_str(), media_type), unbuffered];
    let mut response = (head, Body::from_stream(told)).into_response();
    tell_cache(&mut response, &cache_use);
    spent::tell_lost(response.headers_mut(), &lost);
    Ok(response)
}

type Answered = Result<OcrAnswer, OcrError>;

/// An answer that is streamed.
struct OcrStream {
    events: mpsc::Receiver<PageEvent>,
    /// None once there is an answer.
    answering: Option<AbortOnDropHandle<Answered>>,
    answer: Option<Box<Answered>>,
    id: RequestId,
    tab: Tab,
    /// The longest silence. A page may wait in a queue, and a task whose result is not text streams nothing for
    /// minutes.
    silence: Duration,
}

/// One event of the stream.
enum OcrEvent {
    Page(PageEvent),
    Nothing,
    Answer(Box<Answered>),
}

impl OcrStream {
    /// The next event: all texts and pages come before the answer.
    async fn next(&mut self) -> Option<OcrEvent> {
        if let Some(answering) = &mut self.answering {
            tokio::select! {
                Some(event) = self.events.recv() => return Some(OcrEvent::Page(event)),
                answer = answering => {
                    let interrupted = |_panicked| Err(MeteringError::Interrupted.into());
                    self.answer = Some(Box::new(answer.unwrap_or_else(interrupted)));
                }
            }
            self.answering = None;
            // The file may still be read for others.
            self.events.close();
        }
        // This is the rest.
        match self.events.recv().await {
            Some(event) => Some(OcrEvent::Page(event)),
            None => self.answer.take().map(OcrEvent::Answer),
        }
    }

    async fn next_or_nothing(&mut self) -> Option<OcrEvent> {
        let told = tokio::time::timeout(self.silence, self.next()).await;
        told.unwrap_or(Some(OcrEvent::Nothing))
    }

    async fn next_event(mut self) -> Option<(Bytes, Self)> {
        let told = self.next_or_nothing().await?;
        Some((self.event(told), self))
    }

    fn event(&self, told: OcrEvent) -> Bytes {
        match told {
            OcrEvent::Nothing => KEEP_ALIVE,
            OcrEvent::Page(PageEvent::Text { page, text }) => {
                event("text", &json!({ "page": page, "text": text }))
            }
            OcrEvent::Page(PageEvent::Done(page)) => {
                event("page", &page.map_error(|error| PageProblem::of(error, &self.id)))
            }
            OcrEvent::Answer(answer) => match *answer {
                Ok(mut answer) => {
                    let memory = std::mem::take(&mut answer.memory);
                    let answer = answer.map_errors(|error| PageProblem::of(error, &self.id));
                    counted(event("answer", &answer), memory)
                }
                Err(error) => {
                    let problem = Problem::from(error).charged(&self.tab);
                    event("error", &problem.document(self.id.as_str(), Some("/ocr")))
                }
            },
        }
    }
}

fn event(name: &str, data: &impl Serialize) -> Bytes {
    // Structs of strings and numbers always serialise, and compact JSON has no line break.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into()
}
