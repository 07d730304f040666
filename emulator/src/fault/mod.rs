//! Faults that a test, a flag or the control API scripts.
//!
//! A fault defines an effect, how often it applies, and whether the model had already run: that is the difference
//! between a lost answer that costs nothing and one that is billed. On the wire a fault is one flat JSON object
//! (`{"code": "Throttling.RateQuota", "times": 2}`); in Rust it is built from a constructor and refinements.

mod form;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::call::Call;
use crate::error::Refusal;
use crate::replay::Replay;

/// One scripted fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Fault {
    pub(crate) effect: Effect,
    pub(crate) status: Option<u16>,
    pub(crate) message: Option<String>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) delay: Duration,
    /// Time between the events of a stream; zero means the time in the options.
    pub(crate) interval: Duration,
    pub(crate) schedule: Schedule,
    /// Text that a matching request must contain. `None` matches any request.
    pub(crate) body_contains: Option<String>,
    /// The width in pixels of the first image of the requests to hit. `None` hits any request.
    pub(crate) image_width: Option<u32>,
    after_inference: Option<bool>,
}

/// The effect of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// None: the call is answered, though perhaps late or slowly.
    Nothing,
    /// An error answer; without a code, the usual one of its status.
    Refuse { code: Option<String> },
    /// No answer, ever.
    Hang,
    /// The connection is reset before any byte.
    Reset,
    /// The connection is reset after so many bytes of the body.
    CutBodyAt(u64),
    /// The connection is reset after so many events of a stream.
    CutStreamAfter(u64),
    /// The stream stalls after this many events, and the connection stays open.
    StallStreamAfter(u64),
    /// The body ends in order after so many events of a stream, without the final event.
    EndStreamAfter(u64),
    /// An error event comes after so many events of a stream.
    ErrorEventAfter { events: u64, code: String },
    /// The right answer without its usage.
    NoUsage,
    /// An HTML page, as from a proxy.
    Garbage,
    /// Status 200 around an error body.
    OkWithErrorBody { code: String },
    /// Status 200 with an empty body.
    EmptyBody,
    /// The right body under a wrong `Content-Type`.
    WrongContentType,
    /// The right usage around prose where a task's result should be.
    ProseForResult,
    /// A recorded answer in place of the right one.
    Replay(Replay),
}

/// The calls that a fault matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Schedule {
    /// The number of calls that it affects; `None`: until it is cleared.
    pub(crate) times: Option<u64>,
    /// The number of calls that it skips first.
    pub(crate) skip: u64,
    /// Of the rest, each n-th is affected; `None`: each.
    pub(crate) every: Option<u64>,
}

impl Fault {
    /// The error answer for a DashScope code, such as `Throttling.RateQuota`.
    pub fn code(code: impl Into<String>) -> Self {
        Self::with_effect(Effect::Refuse { code: Some(code.into()) })
    }

    /// The usual error answer of an HTTP status.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::with_effect(Effect::Refuse { code: None }) }
    }

    /// Resets the connection before any byte of an answer.
    pub fn reset() -> Self {
        Self::with_effect(Effect::Reset)
    }

    /// Resets the connection after `bytes` of the body; the head declares the full length.
    pub fn cut_body_at(bytes: u64) -> Self {
        Self::with_effect(Effect::CutBodyAt(bytes))
    }

    /// Resets the connection after `events` of a stream; an answer that is not a stream is cut in the middle.
    pub fn cut_stream_after(events: u64) -> Self {
        Self::with_effect(Effect::CutStreamAfter(events))
    }

    /// Sends `events` of a stream and then nothing more, and keeps the connection open; an answer that is
    /// not a stream stalls in the middle.
    pub fn stall_stream_after(events: u64) -> Self {
        Self::with_effect(Effect::StallStreamAfter(events))
    }

    /// Sends `events` of a stream and ends the body in order, like a proxy that gives up; an answer that is not a
    /// stream ends in the middle, without a declared length.
    pub fn end_stream_after(events: u64) -> Self {
        Self::with_effect(Effect::EndStreamAfter(events))
    }

    /// Sends `events` of a stream, then the error of a code as an event in the form of the protocol; an answer that is
    /// not a stream is the error alone, under its own status. Billed in both cases.
    pub fn error_event_after(events: u64, code: impl Into<String>) -> Self {
        Self::with_effect(Effect::ErrorEventAfter { events, code: code.into() })
    }

    /// Answers correctly, and bills, but states no usage.
    pub fn no_usage() -> Self {
        Self::with_effect(Effect::NoUsage)
    }

    /// Answers correctly, with `millis` between the events of a stream.
    pub fn interval(millis: u64) -> Self {
        Self::with_effect(Effect::Nothing).paced(millis)
    }

    /// Never answers, and keeps the connection open.
    pub fn hang() -> Self {
        Self::with_effect(Effect::Hang)
    }

    /// Answers correctly, `millis` late.
    pub fn delay(millis: u64) -> Self {
        Self::with_effect(Effect::Nothing).delayed(millis)
    }

    /// Answers with an HTML page, under status 200 unless [`with_status`](Self::with_status) sets another.
    pub fn garbage() -> Self {
        Self::with_effect(Effect::Garbage)
    }

    /// Answers status 200 around an error body; an error event on a stream.
    pub fn ok_with_error_body(code: impl Into<String>) -> Self {
        Self::with_effect(Effect::OkWithErrorBody { code: code.into() })
    }

    /// Answers status 200 with an empty body.
    pub fn empty_body() -> Self {
        Self::with_effect(Effect::EmptyBody)
    }

    /// Answers the right body as `text/html`.
    pub fn wrong_content_type() -> Self {
        Self::with_effect(Effect::WrongContentType)
    }

    /// Answers, and bills, prose instead of a task's result, which models sometimes do.
    pub fn prose_for_result() -> Self {
        Self::with_effect(Effect::ProseForResult)
    }

    /// Answers with exactly these bytes, for any request; an event stream has one chunk for each event. The model does
    /// not run. The last usage in the body, if any, is billed.
    pub fn replay(status: u16, content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let (content_type, body) = (content_type.into(), body.into());
        Self::with_effect(Effect::Replay(Replay { status, content_type, body }))
    }

    /// Affects only the first `count` calls.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.schedule.times = Some(count);
        self
    }

    /// Skips the first `count` calls.
    #[must_use]
    pub fn skip(mut self, count: u64) -> Self {
        self.schedule.skip = count;
        self
    }

    /// Affects only each `n`-th call of those that are not skipped.
    #[must_use]
    pub fn every(mut self, n: u64) -> Self {
        self.schedule.every = Some(n.max(1));
        self
    }

    /// Affects only requests whose body contains `text`, like a server that fails on certain inputs.
    #[must_use]
    pub fn for_bodies_with(mut self, text: impl Into<String>) -> Self {
        self.body_contains = Some(text.into());
        self
    }

    /// Hits only requests whose first image has this width in pixels, like a server that fails on one page of a
    /// document.
    #[must_use]
    pub fn for_images_as_wide_as(mut self, width: u32) -> Self {
        self.image_width = Some(width);
        self
    }

    /// Adds a `Retry-After` header of so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Waits so many milliseconds before the effect.
    #[must_use]
    pub fn delayed(mut self, millis: u64) -> Self {
        self.delay = Duration::from_millis(millis);
        self
    }

    /// Waits so many milliseconds between the events of a stream.
    #[must_use]
    pub fn paced(mut self, millis: u64) -> Self {
        self.interval = Duration::from_millis(millis);
        self
    }

    /// Replaces the HTTP status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Replaces the message.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Applies after the model ran, so that the call is billed although its answer is lost.
    #[must_use]
    pub fn after_inference(mut self) -> Self {
        self.after_inference = Some(true);
        self
    }

    /// Leaves the call unbilled.
    #[must_use]
    pub fn unbilled(mut self) -> Self {
        self.after_inference = Some(false);
        self
    }

    /// Whether it can affect this call.
    pub(crate) fn is_for(&self, call: &Call) -> bool {
        let width = call.images.first().and_then(|image| image.width);
        let is_as_wide = self.image_width.is_none() || self.image_width == width;
        let body = &call.request_body;
        let text = self.body_contains.as_deref().unwrap_or_default().as_bytes();
        is_as_wide && (text.is_empty() || body.windows(text.len()).any(|window| window == text))
    }

    /// Whether the call is billed. By default, a call whose answer is begun is billed.
    pub(crate) fn bills(&self) -> bool {
        let begins_answer = self.needs_answer() || matches!(self.effect, Effect::Replay(_));
        self.after_inference.unwrap_or(begins_answer)
    }

    /// Whether the effect alters the right answer and so needs it.
    pub(crate) fn needs_answer(&self) -> bool {
        matches!(
            self.effect,
            Effect::Nothing
                | Effect::CutBodyAt(_)
                | Effect::CutStreamAfter(_)
                | Effect::StallStreamAfter(_)
                | Effect::EndStreamAfter(_)
                | Effect::ErrorEventAfter { .. }
                | Effect::NoUsage
                | Effect::WrongContentType
                | Effect::ProseForResult
        )
    }

    /// The error of the fault's answer, if it answers with one.
    pub(crate) fn refusal(&self) -> Refusal {
        let mut refusal = match (&self.effect, self.status) {
            (
                Effect::Refuse { code: Some(code) }
                | Effect::OkWithErrorBody { code }
                | Effect::ErrorEventAfter { code, .. },
                _,
            ) => Refusal::of_code(code),
            (_, status) => Refusal::of_status(status.unwrap_or(500)),
        };
        if let Some(status) = self.status {
            refusal.status = status;
        }
        match &self.message {
            Some(message) => refusal.with_message(Cow::Owned(message.clone())),
            None => refusal,
        }
    }

    fn with_effect(effect: Effect) -> Self {
        Self {
            effect,
            status: None,
            message: None,
            retry_after: None,
            delay: Duration::ZERO,
            interval: Duration::ZERO,
            schedule: Schedule::default(),
            body_contains: None,
            image_width: None,
            after_inference: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_cut_was_billed_unless_said_otherwise() {
        assert!(Fault::cut_body_at(1).bills());
        assert!(Fault::delay(1).bills());
        assert!(Fault::end_stream_after(1).bills());
        assert!(!Fault::cut_body_at(1).unbilled().bills());
        assert!(!Fault::reset().bills());
        assert!(Fault::reset().after_inference().bills());
    }
}
