//! Applies a fault to an answer: it alters the right answer, or replaces it.
//!
//! A fault is applied before any validation, so that a test of faults needs no valid request. The model runs only if
//! the effect needs its answer or the fault says that the call was billed.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::{Exchange, JSON, Protocol};
use crate::answer::{Reply, ReplyBody};
use crate::connection::HangUp;
use crate::delivery::Delivery;
use crate::error::Refusal;
use crate::fault::{Effect, Fault};
use crate::replay::Replay;
use crate::{compatible, native};

/// Model output that is not the requested result.
const PROSE: &str = "The image shows a document.";

/// The error page of a proxy that could not reach its upstream.
const GARBAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

impl Exchange {
    /// Answers according to a fault.
    pub(super) async fn spoil(self, fault: Fault) -> Response {
        let answer = match &fault.effect {
            Effect::Replay(replay) => {
                if fault.bills()
                    && let Some(usage) = replay.usage()
                {
                    self.ticket.bill(usage);
                }
                None
            }
            _ if fault.needs_answer() || fault.bills() => match self.infer(fault.bills()).await {
                Ok(answer) => Some(answer),
                Err(refusal) => return self.refuse(&refusal),
            },
            _ => None,
        };
        tokio::time::sleep(self.service.latency + fault.delay).await;

        let reply = answer.map(|mut answer| {
            answer.states_usage = fault.effect != Effect::NoUsage;
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

    /// The answer with the fault's effect; `reply` is the right one, if the model ran.
    async fn spoilt(&self, fault: &Fault, reply: Option<Reply>) -> Response {
        match (&fault.effect, reply) {
            (Effect::Hang, _) => std::future::pending().await,
            (Effect::Reset, _) => self.hang_up(),
            (Effect::Garbage, _) => self.raw(fault, GARBAGE, "text/html"),
            (Effect::EmptyBody, _) => self.raw(fault, "", JSON),
            (Effect::OkWithErrorBody { .. }, _) => self.error_under_ok(fault),
            (Effect::Nothing | Effect::ProseForResult | Effect::NoUsage, Some(reply)) => {
                self.send(reply)
            }
            (Effect::Replay(recording), _) => self.replay(recording, fault.status),
            (Effect::WrongContentType, Some(reply)) => self.labelled(reply, "text/html"),
            (Effect::CutBodyAt(bytes), Some(reply)) => {
                self.shortened(reply, |delivery| delivery.cut_at(*bytes, &self.wire))
            }
            (Effect::CutStreamAfter(events), Some(reply)) => self.shortened(reply, |delivery| {
                let length = delivery.length_of(*events);
                delivery.cut_at(length, &self.wire)
            }),
            (Effect::StallStreamAfter(events), Some(reply)) => self.shortened(reply, |delivery| {
                let length = delivery.length_of(*events);
                delivery.stalled_at(length)
            }),
            (Effect::EndStreamAfter(events), Some(reply)) => self.shortened(reply, |delivery| {
                let length = delivery.length_of(*events);
                delivery.ended_at(length)
            }),
            (
                Effect::ErrorEventAfter { events, .. },
                Some(Reply { body: ReplyBody::Events(all), .. }),
            ) => self.broken_off(all, *events, &fault.refusal()),
            (Effect::Refuse { .. } | Effect::ErrorEventAfter { .. }, _) | (_, None) => {
                self.refuse(&fault.refusal())
            }
        }
    }

    /// An error body under status 200; in a stream it is the only event.
    fn error_under_ok(&self, fault: &Fault) -> Response {
        let refusal = fault.refusal();
        let reply = if self.ask.stream {
            Reply::events(vec![self.error_event(1, &refusal)])
        } else {
            Reply::json(200, &self.error(&refusal))
        };
        self.send(Reply { status: fault.status.unwrap_or(200), ..reply })
    }

    /// The first events of a stream, and then an error as one more event.
    fn broken_off(&self, mut all: Vec<Bytes>, events: u64, refusal: &Refusal) -> Response {
        all.truncate(usize::try_from(events).unwrap_or(usize::MAX));
        all.push(self.error_event(all.len() + 1, refusal));
        self.send(Reply::events(all))
    }

    /// An error as an event with this number, from 1.
    fn error_event(&self, number: usize, refusal: &Refusal) -> Bytes {
        match self.protocol {
            Protocol::Compatible => compatible::error_event(refusal, &self.request_id),
            Protocol::Native => native::error_event(number, refusal, &self.request_id),
        }
    }

    /// A recorded answer, under its own status unless the fault has another.
    fn replay(&self, replay: &Replay, status: Option<u16>) -> Response {
        let status = status.unwrap_or(replay.status);
        self.labelled(Reply { status, ..replay.reply() }, &replay.content_type)
    }

    fn raw(&self, fault: &Fault, text: &'static str, content_type: &str) -> Response {
        let body = ReplyBody::Json(Bytes::from_static(text.as_bytes()));
        self.labelled(Reply { status: fault.status.unwrap_or(200), body }, content_type)
    }

    /// Sends a reply under another content type. A content type that is no valid header value is omitted.
    fn labelled(&self, reply: Reply, content_type: &str) -> Response {
        let mut response = self.send(reply);
        response.headers_mut().remove(header::CONTENT_TYPE);
        if let Ok(content_type) = HeaderValue::from_str(content_type) {
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        }
        response
    }

    /// Sends the head and the part of the body that `shorten` leaves.
    fn shortened(&self, reply: Reply, shorten: impl FnOnce(Delivery) -> Delivery) -> Response {
        let is_stream = matches!(reply.body, ReplyBody::Events(_));
        let status = reply.status;
        self.respond(status, is_stream, shorten(self.delivery(reply)))
    }

    fn hang_up(&self) -> Response {
        self.wire.reset();
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(HangUp);
        response
    }
}
