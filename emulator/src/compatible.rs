//! The OpenAI-compatible protocol: chat completions, plain and streamed.
//!
//! Shapes follow the vendor's page "Qwen-OCR API reference". This protocol has no built-in tasks, so `ocr_options` is
//! not read. `min_pixels` and `max_pixels` are read both beside `image_url`, their place in the reference, and inside
//! it, their place in other pages of the vendor.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::address::Addresses;
use crate::answer::{Answer, Reply, pieces};
use crate::error::Refusal;
use crate::geometry::PixelLimits;
use crate::models::MODELS;
use crate::request::{self, Ask, ImageItem, Item};

/// Reads a request body.
pub(crate) fn read(body: &[u8], addresses: &Addresses) -> Ask {
    let body = match request::json(body) {
        Ok(body) => body,
        Err(problem) => return Ask::refused(problem),
    };
    let mut ask = Ask::default();
    ask.read_common(&body, &body);
    ask.stream = body.get("stream") == Some(&Value::Bool(true));
    ask.include_usage = body.pointer("/stream_options/include_usage") == Some(&Value::Bool(true));
    ask.read_messages(body.get("messages"), item, addresses);
    ask
}

fn item(part: &Value) -> Result<Item, Refusal> {
    match part.get("type").and_then(Value::as_str) {
        Some("text") => {
            let text = part.get("text").and_then(Value::as_str);
            text.map(|text| Item::Text(text.to_owned())).ok_or_else(unexpected_item)
        }
        Some("image_url") => {
            let image = part.get("image_url").ok_or_else(unexpected_item)?;
            let url = image.get("url").unwrap_or(image).as_str().ok_or_else(unexpected_item)?;
            let inside = if image.is_object() {
                request::pixel_limits(image)?
            } else {
                PixelLimits::default()
            };
            let beside = request::pixel_limits(part)?;
            let url = url.to_owned();
            Ok(Item::Image(ImageItem { url, inside, beside, ..ImageItem::default() }))
        }
        _ => Err(unexpected_item()),
    }
}

fn unexpected_item() -> Refusal {
    Refusal::invalid_content("Unexpected item type in content.")
}

/// Writes an answer in the requested form.
pub(crate) fn reply(answer: &Answer, ask: &Ask, id: &str, created: u64) -> Reply {
    let head = Head { id, created, model: answer.model };
    if ask.stream {
        return Reply::events(events(answer, &head, ask.include_usage));
    }
    let value = json!({
        "choices": [{
            "message": { "content": answer.text, "role": "assistant" },
            "finish_reason": answer.finish_reason,
            "index": 0,
            "logprobs": null
        }],
        "object": "chat.completion",
        "usage": usage(answer),
        "created": created,
        "system_fingerprint": null,
        "model": answer.model,
        "id": format!("chatcmpl-{id}")
    });
    Reply::json(200, &value)
}

/// Writes an error body.
pub(crate) fn error(refusal: &Refusal, request_id: &str) -> Value {
    json!({
        "error": {
            "message": refusal.compatible_message(),
            "type": refusal.compatible_type(),
            "param": null,
            "code": refusal.compatible_code()
        },
        "request_id": request_id
    })
}

/// Writes an error in a stream.
pub(crate) fn error_event(refusal: &Refusal, request_id: &str) -> Bytes {
    event(&error(refusal, request_id))
}

fn event(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

/// The list of models.
pub(crate) fn models(created: u64) -> Value {
    let entry = |name: &str| json!({ "id": name, "object": "model", "created": created, "owned_by": "system" });
    let list: Vec<Value> = MODELS.iter().map(|model| entry(model.name)).collect();
    json!({ "object": "list", "data": list })
}

/// The members that every chunk of a stream repeats.
struct Head<'a> {
    id: &'a str,
    created: u64,
    model: &'a str,
}

impl Head<'_> {
    fn chunk(&self, choices: &Value, usage: &Value) -> Bytes {
        event(&json!({
            "choices": choices,
            "object": "chat.completion.chunk",
            "usage": usage,
            "created": self.created,
            "system_fingerprint": null,
            "model": self.model,
            "id": format!("chatcmpl-{}", self.id)
        }))
    }

    fn delta(&self, delta: &Value, finish_reason: Option<&str>) -> Bytes {
        let choices = json!([{
            "delta": delta, "finish_reason": finish_reason, "index": 0, "logprobs": null
        }]);
        self.chunk(&choices, &Value::Null)
    }
}

fn events(answer: &Answer, head: &Head<'_>, include_usage: bool) -> Vec<Bytes> {
    let mut events = vec![head.delta(&json!({"content": "", "role": "assistant"}), None)];
    for piece in pieces(&answer.text) {
        events.push(head.delta(&json!({ "content": piece }), None));
    }
    events.push(head.delta(&json!({"content": ""}), Some(answer.finish_reason)));
    if include_usage && answer.states_usage {
        events.push(head.chunk(&json!([]), &usage(answer)));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

fn usage(answer: &Answer) -> Value {
    if !answer.states_usage {
        return Value::Null;
    }
    let usage = &answer.usage;
    json!({
        "prompt_tokens": usage.input(),
        "completion_tokens": usage.output,
        "total_tokens": usage.total(),
        "prompt_tokens_details": {
            "image_tokens": usage.image,
            "text_tokens": usage.text,
            "cached_tokens": null,
            "audio_tokens": null
        },
        "completion_tokens_details": {
            "text_tokens": usage.output,
            "reasoning_tokens": null,
            "audio_tokens": null,
            "accepted_prediction_tokens": null,
            "rejected_prediction_tokens": null
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Ask {
        super::read(body, &Addresses::default())
    }

    #[test]
    fn limits_are_read_in_both_places() {
        let body = br#"{"model": "qwen-vl-ocr", "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:x", "max_pixels": 5}, "max_pixels": 6},
            {"type": "text", "text": "read"}]}]}"#;
        let ask = read(body);
        assert_eq!(ask.images[0].seen.max_pixels_inside, Some(5));
        assert_eq!(ask.images[0].seen.max_pixels_beside, Some(6));
        assert_eq!(ask.prompt, "read");
        assert_eq!(ask.problem, None);
    }

    #[test]
    fn a_body_that_is_not_json_is_an_invalid_parameter() {
        assert_eq!(read(b"{").problem.unwrap().compatible_code(), "invalid_parameter_error");
    }

    #[test]
    fn only_the_newest_message_counts_for_models_without_a_memory() {
        let body = |model: &str| {
            let messages = json!([
                {"role": "user", "content": "before"},
                {"role": "assistant", "content": "between"},
                {"role": "user", "content": "now"}
            ]);
            json!({"model": model, "messages": messages}).to_string()
        };
        assert_eq!(read(body("qwen-vl-ocr").as_bytes()).prompt, "now");
        assert_eq!(read(body("qwen3.5-ocr").as_bytes()).prompt, "before\nbetween\nnow");
    }
}
