//! One call from its first byte to its last: read, recorded, answered, and altered by a fault if one applies.

mod spoil;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use crate::address::Addresses;
use crate::answer::{Answer, Reply, ReplyBody};
use crate::call::Call;
use crate::connection::Wire;
use crate::delivery::Delivery;
use crate::error::Refusal;
use crate::head::{api_key, is_enabled};
use crate::request::Ask;
use crate::service::Service;
use crate::world::Ticket;
use crate::{clock, compatible, inference, native};

/// The longest request body in bytes: several images, each at the limit of a data URL.
const LONGEST_BODY: usize = 64 * 1024 * 1024;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream;charset=UTF-8";

/// The headers whose values are recorded. None of them is a secret.
const RECORDED_HEADERS: [&str; 5] =
    ["accept", "content-type", "user-agent", "x-dashscope-ossresourceresolve", "x-dashscope-sse"];

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
    /// Time between the events of a stream.
    interval: Duration,
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
    let body = axum::body::to_bytes(body, LONGEST_BODY).await.ok();
    let addresses = Addresses::of(&service.world, &parts.headers);
    let ask = read(protocol, &parts.headers, body.clone(), addresses).await;
    let key = api_key(&parts.headers).map(str::to_owned);
    let request_id = service.identifiers.next();
    let call = Call {
        request_id: request_id.clone(),
        request_body: body.unwrap_or_default(),
        ..record(&parts, &ask, key.as_deref())
    };
    let (ticket, fault) = service.world.receive(call);
    let paced = fault.as_ref().map(|fault| fault.interval).filter(|interval| !interval.is_zero());
    let exchange = Exchange {
        interval: paced.unwrap_or(service.stream_interval),
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

/// A JSON answer that belongs to no call.
pub(crate) fn plain(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, JSON)], value.to_string()).into_response()
}

/// Reads a request; `body` is `None` if it was too long.
async fn read(
    protocol: Protocol,
    headers: &HeaderMap,
    body: Option<Bytes>,
    addresses: Addresses,
) -> Ask {
    let Some(body) = body else {
        return Ask::refused(Refusal::of_code("BadRequest.TooLarge"));
    };
    let streamed = is_enabled(headers, "x-dashscope-sse");
    let asynchronous = is_enabled(headers, "x-dashscope-async");
    let parsed = tokio::task::spawn_blocking(move || match protocol {
        Protocol::Compatible => compatible::read(&body, &addresses),
        Protocol::Native => native::read(&body, streamed, &addresses),
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
        header_values: recorded_values(&parts.headers),
        model: ask.model.clone(),
        task: ask.task_name.clone(),
        stream: ask.stream,
        prompt: !ask.prompt.is_empty(),
        max_tokens: ask.max_tokens.and_then(|tokens| u64::try_from(tokens).ok()),
        images: ask.images.iter().map(|image| image.seen.clone()).collect(),
        ..Call::default()
    }
}

fn recorded_values(headers: &HeaderMap) -> BTreeMap<String, String> {
    let value = |name: &str| {
        let value = headers.get(name)?;
        Some((name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
    };
    RECORDED_HEADERS.into_iter().filter_map(value).collect()
}

impl Exchange {
    /// Answers like the service.
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

    /// Runs the model to its end, even if the caller no longer waits.
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
                compatible::reply(answer, &self.ask, &self.request_id, clock::unix_seconds())
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

    /// An error answer. If the request chose a native stream, an error that the model's own front end finds is sent as
    /// an event under status 200.
    fn refuse(&self, refusal: &Refusal) -> Response {
        let in_stream =
            self.protocol == Protocol::Native && self.ask.stream && refusal.status == 400;
        let reply = if in_stream {
            Reply::events(vec![native::error_event(1, refusal, &self.request_id)])
        } else {
            Reply::json(refusal.status, &self.error(refusal))
        };
        self.send(reply)
    }

    fn send(&self, reply: Reply) -> Response {
        let is_stream = matches!(reply.body, ReplyBody::Events(_));
        let status = reply.status;
        self.respond(status, is_stream, self.delivery(reply))
    }

    fn delivery(&self, reply: Reply) -> Delivery {
        match reply.body {
            ReplyBody::Json(body) => Delivery::sized(body, self.ticket.clone()),
            ReplyBody::Events(events) => {
                Delivery::stream(events, self.ticket.clone()).paced(self.interval)
            }
        }
    }

    /// Adds the vendor's headers to a body.
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
