//! Faults that a test, a flag or the control API scripts.
//!
//! A fault says what goes wrong, how often, and whether the model had already run when it did: that is
//! the difference between a lost answer that costs nothing and one that is on the bill, and the reason
//! these faults exist. On the wire a fault is one flat JSON object (`{"code": "Throttling.RateQuota",
//! "times": 2}`); in Rust it is built from a constructor and refinements.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Refusal;

/// One scripted fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Fault {
    pub(crate) effect: Effect,
    pub(crate) status: Option<u16>,
    pub(crate) message: Option<String>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) delay: Duration,
    pub(crate) schedule: Schedule,
    after_inference: Option<bool>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: the call is answered, though perhaps late.
    Nothing,
    /// An error answer; without a code, that of its status.
    Refuse { code: Option<String> },
    /// No answer, ever.
    Hang,
    /// The connection is reset before any byte.
    Reset,
    /// The connection is reset after so many bytes of the body.
    CutBodyAt(u64),
    /// The connection is reset after so many events of a stream.
    CutStreamAfter(u64),
    /// An HTML page, as a proxy in between would send.
    Garbage,
    /// Status 200 around an error body.
    OkWithErrorBody { code: String },
    /// Status 200 around nothing.
    EmptyBody,
    /// The right body under a wrong `Content-Type`.
    WrongContentType,
    /// The right usage around prose where a task's result should be.
    ProseForResult,
}

/// Which calls a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Schedule {
    /// How many it hits; none: until it is cleared.
    pub(crate) times: Option<u64>,
    /// How many pass first.
    pub(crate) skip: u64,
    /// Of the rest, each n-th is hit; none: each.
    pub(crate) every: Option<u64>,
}

impl Fault {
    /// The error answer that belongs to a DashScope code, such as `Throttling.RateQuota`.
    pub fn code(code: impl Into<String>) -> Self {
        Self::with_effect(Effect::Refuse { code: Some(code.into()) })
    }

    /// The error answer that usually comes with an HTTP status.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::with_effect(Effect::Refuse { code: None }) }
    }

    /// Resets the connection before any byte of an answer.
    pub fn reset() -> Self {
        Self::with_effect(Effect::Reset)
    }

    /// Resets the connection after `bytes` of the body; the head promised all of it.
    pub fn cut_body_at(bytes: u64) -> Self {
        Self::with_effect(Effect::CutBodyAt(bytes))
    }

    /// Resets the connection after `events` of a stream; an answer that is not one is cut in the middle.
    pub fn cut_stream_after(events: u64) -> Self {
        Self::with_effect(Effect::CutStreamAfter(events))
    }

    /// Never answers, and keeps the connection open.
    pub fn hang() -> Self {
        Self::with_effect(Effect::Hang)
    }

    /// Answers rightly, `millis` late.
    pub fn delay(millis: u64) -> Self {
        Self::with_effect(Effect::Nothing).delayed(millis)
    }

    /// Answers with an HTML page; status 200 unless [`with_status`](Self::with_status) says otherwise.
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

    /// Answers, and bills, prose where a task's result should be, as models now and then do.
    pub fn prose_for_result() -> Self {
        Self::with_effect(Effect::ProseForResult)
    }

    /// Hits `count` calls, then is spent.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.schedule.times = Some(count);
        self
    }

    /// Lets the first `count` calls pass.
    #[must_use]
    pub fn skip(mut self, count: u64) -> Self {
        self.schedule.skip = count;
        self
    }

    /// Hits only each `n`-th call of those that are not skipped.
    #[must_use]
    pub fn every(mut self, n: u64) -> Self {
        self.schedule.every = Some(n.max(1));
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

    /// Strikes after the model ran, so that the call is on the bill although its answer is lost.
    #[must_use]
    pub fn after_inference(mut self) -> Self {
        self.after_inference = Some(true);
        self
    }

    /// Keeps the call off the bill.
    #[must_use]
    pub fn unbilled(mut self) -> Self {
        self.after_inference = Some(false);
        self
    }

    /// Whether the call is billed. Unless said otherwise, a call whose answer is at least begun is.
    pub(crate) fn bills(&self) -> bool {
        self.after_inference.unwrap_or(self.needs_answer())
    }

    /// Whether the effect needs the right answer to spoil it.
    pub(crate) fn needs_answer(&self) -> bool {
        matches!(
            self.effect,
            Effect::Nothing
                | Effect::CutBodyAt(_)
                | Effect::CutStreamAfter(_)
                | Effect::WrongContentType
                | Effect::ProseForResult
        )
    }

    /// The error that the fault answers, where it answers one.
    pub(crate) fn refusal(&self) -> Refusal {
        let mut refusal = match (&self.effect, self.status) {
            (Effect::Refuse { code: Some(code) } | Effect::OkWithErrorBody { code }, _) => {
                Refusal::of_code(code)
            }
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
            schedule: Schedule::default(),
            after_inference: None,
        }
    }
}

/// Reads the flat JSON form. The error is a sentence for a person.
impl TryFrom<Map<String, Value>> for Fault {
    type Error = String;

    fn try_from(members: Map<String, Value>) -> Result<Self, Self::Error> {
        let mut fault = Self::with_effect(Effect::Nothing);
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            if fault.set(name, value)? {
                continue;
            }
            match (effect_named(name, value)?, &fault.effect) {
                (Effect::Nothing, _) => {}
                (effect, Effect::Nothing) => fault.effect = effect,
                _ => return Err("two effects in one fault".to_owned()),
            }
        }
        if fault.effect == Effect::Nothing && fault.status.is_some() {
            fault.effect = Effect::Refuse { code: None };
        }
        if fault.effect == Effect::Nothing && fault.delay.is_zero() {
            return Err("a fault without an effect".to_owned());
        }
        Ok(fault)
    }
}

impl Fault {
    /// Sets the refinement of that name; false where there is none.
    fn set(&mut self, name: &str, value: &Value) -> Result<bool, String> {
        match name {
            "status" => {
                let status = u16::try_from(number(name, value)?).unwrap_or(0);
                if !(200..=599).contains(&status) {
                    return Err("`status` is not an HTTP status from 200 to 599".into());
                }
                self.status = Some(status);
            }
            "message" => self.message = Some(text(name, value)?),
            "retry_after" => self.retry_after = Some(number(name, value)?),
            "delay_ms" => self.delay = Duration::from_millis(number(name, value)?),
            "times" => self.schedule.times = Some(number(name, value)?),
            "skip" => self.schedule.skip = number(name, value)?,
            "every" => self.schedule.every = Some(number(name, value)?.max(1)),
            "after_inference" => {
                let wanted = value.as_bool().ok_or("`after_inference` is not true or false")?;
                self.after_inference = Some(wanted);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn effect_named(name: &str, value: &Value) -> Result<Effect, String> {
    let effect = match name {
        "code" => Effect::Refuse { code: Some(text(name, value)?) },
        "cut_body_at" => Effect::CutBodyAt(number(name, value)?),
        "cut_stream_after" => Effect::CutStreamAfter(number(name, value)?),
        "ok_with_error_body" => Effect::OkWithErrorBody { code: text(name, value)? },
        "hang" => Effect::Hang,
        "reset" => Effect::Reset,
        "garbage" => Effect::Garbage,
        "empty_body" => Effect::EmptyBody,
        "wrong_content_type" => Effect::WrongContentType,
        "prose_for_result" => Effect::ProseForResult,
        _ => return Err(format!("`{name}` is not a member of a fault")),
    };
    let is_switch =
        !matches!(name, "code" | "cut_body_at" | "cut_stream_after" | "ok_with_error_body");
    match value {
        Value::Bool(true) => Ok(effect),
        Value::Bool(false) if is_switch => Ok(Effect::Nothing),
        _ if is_switch => Err(format!("`{name}` is not true or false")),
        _ => Ok(effect),
    }
}

fn number(name: &str, value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or_else(|| format!("`{name}` is not a whole number"))
}

fn text(name: &str, value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("`{name}` is not a string"))
}

/// Writes the flat JSON form.
impl From<Fault> for Map<String, Value> {
    fn from(fault: Fault) -> Self {
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                members.insert(name.to_owned(), value);
            }
        };
        match fault.effect {
            Effect::Nothing => {}
            Effect::Refuse { code } => put("code", json!(code)),
            Effect::Hang => put("hang", json!(true)),
            Effect::Reset => put("reset", json!(true)),
            Effect::CutBodyAt(bytes) => put("cut_body_at", json!(bytes)),
            Effect::CutStreamAfter(events) => put("cut_stream_after", json!(events)),
            Effect::Garbage => put("garbage", json!(true)),
            Effect::OkWithErrorBody { code } => put("ok_with_error_body", json!(code)),
            Effect::EmptyBody => put("empty_body", json!(true)),
            Effect::WrongContentType => put("wrong_content_type", json!(true)),
            Effect::ProseForResult => put("prose_for_result", json!(true)),
        }
        put("status", json!(fault.status));
        put("message", json!(fault.message));
        put("retry_after", json!(fault.retry_after));
        if !fault.delay.is_zero() {
            put("delay_ms", json!(u64::try_from(fault.delay.as_millis()).unwrap_or(u64::MAX)));
        }
        put("times", json!(fault.schedule.times));
        if fault.schedule.skip > 0 {
            put("skip", json!(fault.schedule.skip));
        }
        put("every", json!(fault.schedule.every));
        put("after_inference", json!(fault.after_inference));
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_its_json_form() {
        for fault in [
            Fault::code("Throttling.RateQuota").times(2).retry_after(1),
            Fault::status(500).every(3).skip(1).after_inference(),
            Fault::cut_body_at(100).unbilled(),
            Fault::garbage().with_status(502).delayed(20),
            Fault::delay(5),
            Fault::reset(),
        ] {
            let written = serde_json::to_value(&fault).unwrap();
            assert_eq!(serde_json::from_value::<Fault>(written).unwrap(), fault);
        }
    }

    #[test]
    fn a_misspelt_member_is_refused_by_name() {
        let error = serde_json::from_value::<Fault>(json!({"rest": true})).unwrap_err();
        assert!(error.to_string().contains("`rest`"), "{error}");
    }

    #[test]
    fn two_effects_in_one_fault_are_refused() {
        assert!(serde_json::from_value::<Fault>(json!({"reset": true, "hang": true})).is_err());
    }

    #[test]
    fn an_answer_that_is_cut_was_billed_unless_said_otherwise() {
        assert!(Fault::cut_body_at(1).bills());
        assert!(Fault::delay(1).bills());
        assert!(!Fault::cut_body_at(1).unbilled().bills());
        assert!(!Fault::reset().bills());
        assert!(Fault::reset().after_inference().bills());
    }
}
