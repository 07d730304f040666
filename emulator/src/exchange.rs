//! One call from its first byte to its last: read, recorded, answered, and spoilt if a fault says so.
//!
//! A fault strikes before anything else is judged, so that a test of faults needs no valid request. The
//! model runs only where the effect needs its answer or the fault says that the call was billed.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use crate::answer::{Answer, Reply, ReplyBody};
use crate::connection::{HangUp, Wire};
use crate::delivery::Delivery;
use crate::error::Refusal;
use crate::fault::{Effect, Fault};
use crate::request::{Ask, api_key};
use crate::service::{Service, created};
use crate::world::{Call, Ticket};
use crate::{clock, compatible, inference, native};

/// Bytes of the longest request body: several images, each at the limit of a data URL.
const LONGEST_BODY: usize = 64 * 1024 * 1024;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream;charset=UTF-8";

/// What a model writes when it forgets that a result was asked for.
const PROSE: &str = "The image shows a document.";

/// The page of a proxy that reached nobody.
const GARBAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

/// The protocol of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Compatible,
    Native,
}

/// A call that is being answered.
struct Exchange {
    service: Arc<Service>,
    protocol: Protocol,
    ask: Arc<Ask>,
    key: Option<String>,
    ticket: Ticket,
    wire: Wire,
    request_id: String,
    arrived: (Instant, u128),
}

/// Answers one call.
pub(crate) async fn answer(
    service: Arc<Service>,
    protocol: Protocol,
    request: Request,
) -> Response {
    let arrived = (clock::instant(), clock::unix_millis());
    let (parts, body) = request.into_parts();
    let ask = read(protocol, &parts.headers, body).await;
    let key = api_key(&parts.headers).map(str::to_owned);
    let request_id = service.identifiers.next();
    let call = Call { request_id: request_id.clone(), ..record(&parts, &ask, key.as_deref()) };
    let (ticket, fault) = service.world.receive(call);
    let exchange = Exchange {
        request_id,
        wire: parts.extensions.get().cloned().unwrap_or_default(),
        ask: Arc::new(ask),
        service,
        protocol,
        key,
        ticket,
        arrived,
    };
    match fault {
        None => exchange.serve().await,
        Some(fault) => exchange.spoil(fault).await,
    }
}

/// A JSON answer outside of any call.
pub(crate) fn plain(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, JSON)], value.to_string()).into_response()
}

async fn read(protocol: Protocol, headers: &HeaderMap, body: Body) -> Ask {
    let Ok(body) = axum::body::to_bytes(body, LONGEST_BODY).await else {
        return Ask::refused(Refusal::of_code("BadRequest.TooLarge"));
    };
    let enabled = |name: &str| headers.get(name).is_some_and(|value| value == "enable");
    let (streamed, asynchronous) = (enabled("x-dashscope-sse"), enabled("x-dashscope-async"));
    let parsed = tokio::task::spawn_blocking(move || match protocol {
        Protocol::Compatible => compatible::read(&body),
        Protocol::Native => native::read(&body, streamed),
    });
    let mut ask = parsed.await.unwrap_or_else(|_| Ask::refused(Refusal::of_code("InternalError")));
    if protocol == Protocol::Native && asynchronous {
        let denied = Refusal::of_code("AccessDenied");
        let message = "current user api does not support asynchronous calls.";
        ask.problem = Some(denied.with_message(message));
    }
    ask
}

fn record(parts: &Parts, ask: &Ask, key: Option<&str>) -> Call {
    let suffix = |key: &str| key[key.ceil_char_boundary(key.len().saturating_sub(4))..].to_owned();
    Call {
        path: parts.uri.path().to_owned(),
        key_suffix: key.map(suffix).unwrap_or_default(),
        headers: parts.headers.keys().map(|name| name.as_str().to_owned()).collect(),
        model: ask.model.clone(),
        task: ask.task_name.clone(),
        stream: ask.stream,
        prompt: !ask.prompt.is_empty(),
        max_tokens: ask.max_tokens.and_then(|tokens| u64::try_from(tokens).ok()),
        images: ask.images.iter().map(|image| image.seen.clone()).collect(),
        ..Call::default()
    }
}

impl Exchange {
    /// Answers as the service would.
    async fn serve(self) -> Response {
        match self.infer(true).await {
            Ok(answer) => {
                tokio::time::sleep(self.service.latency).await;
                let reply = self.write(&answer);
                self.send(reply)
            }
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// Answers as a fault says.
    async fn spoil(self, fault: Fault) -> Response {
        let answer = if fault.needs_answer() || fault.bills() {
            match self.infer(fault.bills()).await {
                Ok(answer) => Some(answer),
                Err(refusal) => return self.refuse(&refusal),
            }
        } else {
            None
        };
        tokio::time::sleep(self.service.latency + fault.delay).await;

        let reply = answer.map(|mut answer| {
            if fault.effect == Effect::ProseForResult {
                answer.ocr_result = None;
                PROSE.clone_into(&mut answer.text);
            }
            self.write(&answer)
        });
        let mut response = self.spoilt(&fault, reply).await;
        if let Some(seconds) = fault.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The answer with the fault's effect on it; `reply` is the right one, where the model ran.
    async fn spoilt(&self, fault: &Fault, reply: Option<Reply>) -> Response {
        match (&fault.effect, reply) {
            (Effect::Hang, _) => std::future::pending().await,
            (Effect::Reset, _) => self.hang_up(),
            (Effect::Garbage, _) => self.raw(fault, GARBAGE, "text/html"),
            (Effect::EmptyBody, _) => self.raw(fault, "", JSON),
            (Effect::OkWithErrorBody { .. }, _) => self.error_under_ok(fault),
            (Effect::Nothing | Effect::ProseForResult, Some(reply)) => self.send(reply),
            (Effect::WrongContentType, Some(reply)) => {
                let mut response = self.send(reply);
                let html = HeaderValue::from_static("text/html");
                response.headers_mut().insert(header::CONTENT_TYPE, html);
                response
            }
            (Effect::CutBodyAt(bytes), Some(reply)) => self.cut(reply, |_, _| *bytes),
            (Effect::CutStreamAfter(events), Some(reply)) => {
                self.cut(reply, |delivery, is_stream| {
                    if is_stream { delivery.length_of(*events) } else { delivery.remaining() / 2 }
                })
            }
            (Effect::Refuse { .. }, _) | (_, None) => self.refuse(&fault.refusal()),
        }
    }

    /// Lets the model run to its end, whether or not the caller waits.
    async fn infer(&self, billed: bool) -> Result<Answer, Refusal> {
        let service = Arc::clone(&self.service);
        let (ask, key) = (Arc::clone(&self.ask), self.key.clone());
        let ticket = billed.then(|| self.ticket.clone());
        let work = async move {
            let answer = inference::infer(&service, &ask, key.as_deref()).await?;
            if let Some(ticket) = ticket {
                ticket.bill(answer.usage);
            }
            Ok(answer)
        };
        let stopped = || Err(Refusal::of_code("InternalError"));
        self.service.run_to_its_end(work).await.unwrap_or_else(stopped)
    }

    fn write(&self, answer: &Answer) -> Reply {
        match self.protocol {
            Protocol::Compatible => {
                compatible::reply(answer, &self.ask, &self.request_id, created())
            }
            Protocol::Native => native::reply(answer, &self.ask, &self.request_id),
        }
    }

    fn error(&self, refusal: &Refusal) -> Value {
        match self.protocol {
            Protocol::Compatible => compatible::error(refusal, &self.request_id),
            Protocol::Native => native::error(refusal, &self.request_id),
        }
    }

    /// An error answer. A native stream was agreed on before the request was judged by the model's own
    /// front, so such a judgement comes as an event under status 200.
    fn refuse(&self, refusal: &Refusal) -> Response {
        let in_stream =
            self.protocol == Protocol::Native && self.ask.stream && refusal.status == 400;
        let reply = if in_stream {
            Reply::events(vec![native::error_event(refusal, &self.request_id)])
        } else {
            Reply::json(refusal.status, &self.error(refusal))
        };
        self.send(reply)
    }

    /// An error body under status 200, in a stream as its only event.
    fn error_under_ok(&self, fault: &Fault) -> Response {
        let refusal = fault.refusal();
        let reply = match (self.ask.stream, self.protocol) {
            (false, _) => Reply::json(200, &self.error(&refusal)),
            (true, Protocol::Compatible) => {
                Reply::events(vec![compatible::event(&self.error(&refusal))])
            }
            (true, Protocol::Native) => {
                Reply::events(vec![native::error_event(&refusal, &self.request_id)])
            }
        };
        self.send(Reply { status: fault.status.unwrap_or(200), ..reply })
    }

    fn raw(&self, fault: &Fault, text: &'static str, content_type: &'static str) -> Response {
        let body = ReplyBody::Json(Bytes::from_static(text.as_bytes()));
        let mut response = self.send(Reply { status: fault.status.unwrap_or(200), body });
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }

    /// Sends the head and the body up to the length that `length` decides, then resets.
    fn cut(&self, reply: Reply, length: impl FnOnce(&Delivery, bool) -> u64) -> Response {
        let is_stream = matches!(reply.body, ReplyBody::Events(_));
        let status = reply.status;
        let delivery = self.delivery(reply);
        let length = length(&delivery, is_stream);
        self.respond(status, is_stream, delivery.cut_at(length, &self.wire))
    }

    fn hang_up(&self) -> Response {
        self.wire.reset();
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(HangUp);
        response
    }

    fn send(&self, reply: Reply) -> Response {
        let is_stream = matches!(reply.body, ReplyBody::Events(_));
        let status = reply.status;
        self.respond(status, is_stream, self.delivery(reply))
    }

    fn delivery(&self, reply: Reply) -> Delivery {
        match reply.body {
            ReplyBody::Json(body) => Delivery::sized(body, self.ticket.clone()),
            ReplyBody::Events(events) => Delivery::stream(events, self.ticket.clone()),
        }
    }

    /// Puts the vendor's head on a body.
    fn respond(&self, status: u16, is_stream: bool, delivery: Delivery) -> Response {
        self.ticket.answered(status);
        let (began, arrived) = self.arrived;
        let cost = clock::instant().duration_since(began).as_millis();
        let head = [
            ("content-type", if is_stream { EVENTS } else { JSON }.to_owned()),
            ("x-request-id", self.request_id.clone()),
            ("x-dashscope-call-gateway", "true".to_owned()),
            ("x-dashscope-finished", (!is_stream).to_string()),
            ("x-dashscope-timeout", "298".to_owned()),
            ("req-cost-time", cost.to_string()),
            ("req-arrive-time", arrived.to_string()),
            ("resp-start-time", (arrived + cost).to_string()),
            ("x-envoy-upstream-service-time", cost.to_string()),
            ("server", "istio-envoy".to_owned()),
        ];
        let mut response = Response::new(Body::new(delivery));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        for (name, value) in head {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
