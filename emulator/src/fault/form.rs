//! The flat JSON form of a fault, for flags and the control API.
//!
//! It is parsed member by member and not by a derive, so that the error for a misspelt member names it, and a member
//! without effect (`null`, a switch that is `false`) counts as absent.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Effect, Fault};
use crate::replay::Replay;

/// The default code of an error event.
const USUAL_ERROR: &str = "InternalError";

/// Parses the flat JSON form. The error is a sentence for a person.
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
        fault.set_error_code(members.get("error_code"))?;
        if fault.effect == Effect::Nothing && fault.status.is_some() {
            fault.effect = Effect::Refuse { code: None };
        }
        if fault.effect == Effect::Nothing && fault.delay.is_zero() && fault.interval.is_zero() {
            return Err("a fault without an effect".to_owned());
        }
        Ok(fault)
    }
}

impl Fault {
    /// Sets the refinement with this name; false if there is none.
    fn set(&mut self, name: &str, value: &Value) -> Result<bool, String> {
        match name {
            "status" => self.status = Some(status(name, value)?),
            "message" => self.message = Some(text(name, value)?),
            "retry_after" => self.retry_after = Some(number(name, value)?),
            "delay_ms" => self.delay = Duration::from_millis(number(name, value)?),
            "interval_ms" => self.interval = Duration::from_millis(number(name, value)?),
            "times" => self.schedule.times = Some(number(name, value)?),
            "skip" => self.schedule.skip = number(name, value)?,
            "body_contains" => self.body_contains = Some(text(name, value)?),
            "image_width" => self.image_width = u32::try_from(number(name, value)?).ok(),
            "every" => self.schedule.every = Some(number(name, value)?.max(1)),
            "after_inference" => {
                let wanted = value.as_bool().ok_or("`after_inference` is not true or false")?;
                self.after_inference = Some(wanted);
            }
            // Applied once the effect that it belongs to is known, in either order of the members.
            "error_code" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Sets the code of an error event.
    fn set_error_code(&mut self, value: Option<&Value>) -> Result<(), String> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(()) };
        let Effect::ErrorEventAfter { code, .. } = &mut self.effect else {
            return Err("`error_code` without `error_event_after`".to_owned());
        };
        *code = text("error_code", value)?;
        Ok(())
    }
}

fn effect_named(name: &str, value: &Value) -> Result<Effect, String> {
    let switched = |effect| match value {
        Value::Bool(true) => Ok(effect),
        Value::Bool(false) => Ok(Effect::Nothing),
        _ => Err(format!("`{name}` is not true or false")),
    };
    match name {
        "code" => Ok(Effect::Refuse { code: Some(text(name, value)?) }),
        "cut_body_at" => Ok(Effect::CutBodyAt(number(name, value)?)),
        "cut_stream_after" => Ok(Effect::CutStreamAfter(number(name, value)?)),
        "stall_stream_after" => Ok(Effect::StallStreamAfter(number(name, value)?)),
        "end_stream_after" => Ok(Effect::EndStreamAfter(number(name, value)?)),
        "error_event_after" => {
            let (events, code) = (number(name, value)?, USUAL_ERROR.to_owned());
            Ok(Effect::ErrorEventAfter { events, code })
        }
        "replay" => Ok(Effect::Replay(replay(value)?)),
        "ok_with_error_body" => Ok(Effect::OkWithErrorBody { code: text(name, value)? }),
        "hang" => switched(Effect::Hang),
        "reset" => switched(Effect::Reset),
        "garbage" => switched(Effect::Garbage),
        "empty_body" => switched(Effect::EmptyBody),
        "wrong_content_type" => switched(Effect::WrongContentType),
        "prose_for_result" => switched(Effect::ProseForResult),
        "no_usage" => switched(Effect::NoUsage),
        _ => Err(format!("`{name}` is not a member of a fault")),
    }
}

/// Parses a recorded answer. The default of `status` is 200, and that of `content_type` is JSON's.
fn replay(value: &Value) -> Result<Replay, String> {
    let members = value.as_object().ok_or("`replay` is not an object")?;
    let mut replay =
        Replay { status: 200, content_type: "application/json".to_owned(), body: Bytes::new() };
    for (name, value) in members {
        match name.as_str() {
            "status" => replay.status = status(name, value)?,
            "content_type" => replay.content_type = text(name, value)?,
            "body" => replay.body = text(name, value)?.into(),
            _ => return Err(format!("`{name}` is not a member of a replay")),
        }
    }
    Ok(replay)
}

fn status(name: &str, value: &Value) -> Result<u16, String> {
    let status = u16::try_from(number(name, value)?).unwrap_or(0);
    let is_final = (200..=599).contains(&status);
    is_final
        .then_some(status)
        .ok_or_else(|| format!("`{name}` is not an HTTP status from 200 to 599"))
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
            Effect::StallStreamAfter(events) => put("stall_stream_after", json!(events)),
            Effect::EndStreamAfter(events) => put("end_stream_after", json!(events)),
            Effect::ErrorEventAfter { events, code } => {
                put("error_event_after", json!(events));
                put("error_code", json!(code));
            }
            Effect::NoUsage => put("no_usage", json!(true)),
            Effect::Garbage => put("garbage", json!(true)),
            Effect::OkWithErrorBody { code } => put("ok_with_error_body", json!(code)),
            Effect::EmptyBody => put("empty_body", json!(true)),
            Effect::WrongContentType => put("wrong_content_type", json!(true)),
            Effect::ProseForResult => put("prose_for_result", json!(true)),
            // JSON cannot hold bytes that are not text, so such a recording can only be made in Rust.
            Effect::Replay(Replay { status, content_type, body }) => {
                let body = String::from_utf8_lossy(&body);
                put(
                    "replay",
                    json!({"status": status, "content_type": content_type, "body": body}),
                );
            }
        }
        put("status", json!(fault.status));
        put("message", json!(fault.message));
        put("retry_after", json!(fault.retry_after));
        put("delay_ms", millis(fault.delay));
        put("interval_ms", millis(fault.interval));
        put("times", json!(fault.schedule.times));
        if fault.schedule.skip > 0 {
            put("skip", json!(fault.schedule.skip));
        }
        put("every", json!(fault.schedule.every));
        put("body_contains", json!(fault.body_contains));
        put("image_width", json!(fault.image_width));
        put("after_inference", json!(fault.after_inference));
        members
    }
}

/// A time in milliseconds; null if it is zero.
fn millis(time: Duration) -> Value {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 { Value::Null } else { json!(millis) }
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
            Fault::interval(5),
            Fault::reset().for_bodies_with("seed"),
            Fault::stall_stream_after(3).paced(2),
            Fault::end_stream_after(0),
            Fault::error_event_after(2, "DataInspectionFailed"),
            Fault::no_usage(),
            Fault::replay(429, "text/plain", "\u{feff}busy").every(2),
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
    fn an_error_event_has_its_own_code_or_the_usual_one() {
        let read = |members: Value| serde_json::from_value::<Fault>(members);
        let coded = read(json!({"error_code": "Throttling", "error_event_after": 1})).unwrap();
        assert_eq!(coded, Fault::error_event_after(1, "Throttling"));
        let usual = read(json!({"error_event_after": 1})).unwrap();
        assert_eq!(usual, Fault::error_event_after(1, "InternalError"));
        assert!(read(json!({"error_code": "Throttling", "reset": true})).is_err());
    }

    #[test]
    fn two_effects_in_one_fault_are_refused() {
        assert!(serde_json::from_value::<Fault>(json!({"reset": true, "hang": true})).is_err());
    }
}
