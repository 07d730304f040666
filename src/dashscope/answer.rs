//! What came back: either what the model wrote, or what went wrong.
//!
//! Reading is lenient, because the vendor's samples differ from each other and from its recorded
//! traffic: both protocols are read by one reader that looks for each value where either puts it, a
//! member of the wrong type counts as absent, and only two things are demanded of a good answer:
//! something that the model wrote and no error beside it. An error is looked for under every
//! status, at the top level, inside `error`, and in the first event of a stream that nobody asked for;
//! the service sends the last with status 200.

use std::time::Duration;

use serde_json::Value;

use super::error::{Code, Defect};
use super::verdict::{self, Bill, Complaint, Failure, Repeat};
use super::{FinishReason, Word};
use crate::units::{Tokens, Usage};

/// Recorded bodies start with it; it carries no meaning.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How much of a body that is not JSON is looked at.
const PROSE_BYTES: usize = 512;

/// What the model wrote.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) processed_text: Option<String>,
    pub(super) words: Option<Vec<Word>>,
    pub(super) kv_result: Option<Value>,
    pub(super) finish_reason: FinishReason,
    /// What was billed; none where the answer does not say.
    pub(super) usage: Option<Usage>,
    pub(super) request_id: Option<Code>,
}

/// A response as it was received.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    pub(super) status: u16,
    /// The header `x-request-id`.
    pub(super) request_id: Option<Code>,
    /// The headers `retry-after-ms` and `retry-after`.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// Reads `received`. Image tokens that the bill does not tell apart are taken to be those of `bound`.
pub(super) fn read(received: &Received, bound: &Usage) -> Result<Answer, Failure> {
    let body = received.body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&received.body);
    let json = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
    let event = if json.is_none() { first_event(body) } else { None };
    let said = json.as_ref().or(event.as_ref().map(|event| &event.data));
    let request_id = said
        .and_then(|json| json["request_id"].as_str().and_then(Code::new))
        .or_else(|| received.request_id.clone());
    let good = (200..300).contains(&received.status);
    let outcome = match (json, event) {
        (Some(json), _) if good && !is_complaint(&json) => content(json, bound),
        (Some(json), _) => Err(judge(&json, received.status, received, bound)),
        (None, Some(Event { data, status })) if !good || is_complaint(&data) => {
            Err(judge(&data, status.unwrap_or(received.status), received, bound))
        }
        (None, _) if good => Err(verdict::unusable(Defect::NotJson, None)),
        (None, _) => Err(verdict::judge(&prose(received, body))),
    };
    match outcome {
        Ok(answer) => Ok(Answer { request_id, ..answer }),
        Err(failure) => Err(Failure { request_id, ..failure }),
    }
}

/// What the model wrote, in either protocol.
fn content(mut json: Value, bound: &Usage) -> Result<Answer, Failure> {
    let usage = usage(&json["usage"], bound);
    let pointer = if json["output"].is_object() { "/output/choices/0" } else { "/choices/0" };
    let unusable = verdict::unusable(Defect::NoContent, usage);
    let Some(choice) = json.pointer_mut(pointer) else { return Err(unusable) };
    let finish_reason = finish_reason(&choice["finish_reason"]);
    let answer = match choice.pointer_mut("/message/content").map(Value::take) {
        Some(text @ Value::String(_)) => written(vec![text]),
        Some(Value::Array(parts)) => written(parts),
        _ => return Err(unusable),
    };
    Ok(Answer { finish_reason, usage, ..answer })
}

/// Puts the parts of a message together. In practice there is one, or none for a blank page.
fn written(parts: Vec<Value>) -> Answer {
    let mut answer = Answer {
        text: String::new(),
        processed_text: None,
        words: None,
        kv_result: None,
        finish_reason: FinishReason::Other(None),
        usage: None,
        request_id: None,
    };
    for mut part in parts {
        if let Some(text) = part.as_str().or_else(|| part["text"].as_str()) {
            answer.text.push_str(text);
        }
        if let Some(text) = part["processed_text"].as_str() {
            answer.processed_text.get_or_insert_default().push_str(text);
        }
        let result = part.get_mut("ocr_result").map(Value::take).unwrap_or_default();
        if let Some(words) = result["words_info"].as_array() {
            answer.words.get_or_insert_default().extend(words.iter().filter_map(word));
        }
        if let Some(fields) = result.get("kv_result").filter(|fields| !fields.is_null()) {
            answer.kv_result = Some(fields.clone());
        }
    }
    answer
}

fn word(value: &Value) -> Option<Word> {
    Some(Word {
        text: value["text"].as_str()?.to_owned(),
        location: numbers(&value["location"]),
        rotate_rect: numbers(&value["rotate_rect"]),
    })
}

fn numbers<const N: usize>(value: &Value) -> Option<[f64; N]> {
    let numbers: Option<Vec<f64>> = value.as_array()?.iter().map(Value::as_f64).collect();
    numbers?.try_into().ok()
}

fn finish_reason(value: &Value) -> FinishReason {
    match value.as_str() {
        Some("stop") => FinishReason::Stop,
        Some("length") => FinishReason::Length,
        other => FinishReason::Other(other.and_then(Code::new)),
    }
}

/// The bill, in the words of either protocol; none where a total is missing.
///
/// An input of zero is no bill either: every call carries a picture, and none is free. The picture's
/// tokens are part of the input (Model Studio, "Qwen-OCR API reference"); should they ever be more,
/// both are believed, since that errs upwards.
fn usage(usage: &Value, bound: &Usage) -> Option<Usage> {
    let number = |pointers: &[&str]| {
        pointers.iter().find_map(|pointer| usage.pointer(pointer).and_then(Value::as_u64))
    };
    let input = number(&["/input_tokens", "/prompt_tokens"]).filter(|input| *input > 0)?;
    let output = number(&["/output_tokens", "/completion_tokens"])?;
    let image = number(&[
        "/image_tokens",
        "/input_tokens_details/image_tokens",
        "/prompt_tokens_details/image_tokens",
    ]);
    let image = image.unwrap_or_else(|| bound.image.get().min(input));
    Some(Usage {
        image: Tokens::new(image),
        text: Tokens::new(input.saturating_sub(image)),
        output: Tokens::new(output),
    })
}

/// Judges an error body.
fn judge(json: &Value, status: u16, received: &Received, bound: &Usage) -> Failure {
    let message = ["/message", "/msg", "/error/message", "/error"].iter().find_map(|pointer| {
        json.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
    });
    let failure = verdict::judge(&Complaint {
        status,
        code: complaint_code(json),
        message: message.unwrap_or_default().to_owned(),
        retry_after: received.retry_after,
    });
    match usage(&json["usage"], bound) {
        // Work that was billed would be billed again.
        Some(billed) => Failure { bill: Bill::Known(billed), repeat: Repeat::Never, ..failure },
        None => failure,
    }
}

/// Whether there is an error in a body, whatever the status says.
fn is_complaint(json: &Value) -> bool {
    let error = &json["error"];
    complaint_code(json).is_some()
        || error.is_object()
        || error.as_str().is_some_and(|text| !text.is_empty())
}

/// The code of an error body, wherever it stands. A number counts where it is a status of failure.
fn complaint_code(json: &Value) -> Option<String> {
    ["/code", "/error/code", "/error/type"].iter().find_map(|pointer| {
        match json.pointer(pointer)? {
            Value::String(code) if !code.is_empty() => Some(code.clone()),
            Value::Number(code) if code.as_u64().is_some_and(|code| code >= 400) => {
                Some(code.to_string())
            }
            _ => None,
        }
    })
}

/// An event of a stream.
struct Event {
    data: Value,
    /// The status that the service writes into the event, since the stream itself has 200.
    status: Option<u16>,
}

/// The first event of a stream of events that holds JSON (HTML standard, "Server-sent events").
fn first_event(body: &[u8]) -> Option<Event> {
    let text = std::str::from_utf8(body).ok()?;
    let mut status = None;
    for line in text.lines() {
        if let Some(number) =
            line.strip_prefix(":HTTP_STATUS/").or_else(|| line.strip_prefix("status:"))
        {
            status = number.trim().parse().ok();
        }
        let Some(data) = line.strip_prefix("data:") else { continue };
        let data =
            serde_json::from_str::<Value>(data.trim_start()).ok().filter(Value::is_object)?;
        return Some(Event { data, status });
    }
    None
}

/// A body that is not JSON: the page of a load balancer, or nothing.
fn prose(received: &Received, body: &[u8]) -> Complaint {
    let beginning = &body[..body.len().min(PROSE_BYTES)];
    Complaint {
        status: received.status,
        code: None,
        message: String::from_utf8_lossy(beginning).into_owned(),
        retry_after: received.retry_after,
    }
}
