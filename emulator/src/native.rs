//! DashScope's own protocol: multimodal generation, plain and streamed.
//!
//! Shapes and framing follow recorded answers: no space after a field's colon, a comment line with the status in each
//! event, `finish_reason` as the string `"null"` until the end, running totals of usage in every event, no closing
//! marker. If a stream was requested, an error that the model finds is an `error` event under status 200; an error that
//! the gateway in front finds (key, model, quota) has its own status.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::address::Addresses;
use crate::answer::{Answer, Reply, pieces};
use crate::error::Refusal;
use crate::request::{self, Ask, ImageItem, Item};
use crate::usage::{Usage, output_tokens};

/// Reads a request body. A header selects streaming.
pub(crate) fn read(body: &[u8], stream: bool, addresses: &Addresses) -> Ask {
    let body = match request::json(body) {
        Ok(body) => body,
        Err(problem) => return Ask { stream, ..Ask::refused(problem) },
    };
    let mut ask = Ask { stream, ..Ask::default() };
    let parameters = body.get("parameters").unwrap_or(&Value::Null);
    ask.read_common(&body, parameters);
    ask.incremental = parameters.get("incremental_output") == Some(&Value::Bool(true));
    if let Some(options) = parameters.get("ocr_options") {
        ask.take_options(options);
    }
    ask.read_messages(body.pointer("/input/messages"), item, addresses);
    ask
}

fn item(part: &Value) -> Result<Item, Refusal> {
    let member = |name: &str| part.get(name).and_then(Value::as_str).map(str::to_owned);
    if let Some(url) = member("image") {
        let beside = request::pixel_limits(part)?;
        let enable_rotate = part.get("enable_rotate").and_then(Value::as_bool);
        return Ok(Item::Image(ImageItem { url, beside, enable_rotate, ..ImageItem::default() }));
    }
    let unexpected = || Refusal::invalid_content("Unexpected item type in content.");
    member("text").map(Item::Text).ok_or_else(unexpected)
}

/// Writes an answer in the requested form.
pub(crate) fn reply(answer: &Answer, ask: &Ask, request_id: &str) -> Reply {
    if ask.stream {
        return Reply::events(events(answer, ask.incremental, request_id));
    }
    let mut content = Map::new();
    if let Some(result) = &answer.ocr_result {
        content.insert("ocr_result".to_owned(), result.clone());
    }
    content.insert("text".to_owned(), json!(answer.text));
    let choice = choice(&json!([content]), answer.finish_reason);
    let usage = answer.states_usage.then_some(&answer.usage);
    Reply::json(200, &body(&choice, usage, request_id))
}

/// Writes an error body.
pub(crate) fn error(refusal: &Refusal, request_id: &str) -> Value {
    json!({ "code": refusal.code, "message": refusal.message(), "request_id": request_id })
}

/// Writes the error event with this number, from 1, of a stream.
pub(crate) fn error_event(number: usize, refusal: &Refusal, request_id: &str) -> Bytes {
    event(number, "error", refusal.status, &error(refusal, request_id))
}

fn events(answer: &Answer, incremental: bool, request_id: &str) -> Vec<Bytes> {
    let mut events = Vec::new();
    let mut push = |content: &Value, finish_reason: &str, usage: &Usage| {
        let usage = answer.states_usage.then_some(usage);
        let body = body(&choice(content, finish_reason), usage, request_id);
        events.push(event(events.len() + 1, "result", 200, &body));
    };
    let pieces = pieces(&answer.text);
    let mut sent = 0;
    for (index, piece) in pieces.iter().enumerate() {
        sent += piece.len();
        let so_far = &answer.text[..sent];
        let usage = Usage { output: output_tokens(so_far), ..answer.usage };
        // Without increments, the event that ends the stream has the last text.
        if incremental {
            push(&json!([{ "text": piece }]), "null", &usage);
        } else if index + 1 < pieces.len() {
            push(&json!([{ "text": so_far }]), "null", &usage);
        }
    }
    let last = if incremental { json!([]) } else { json!([{ "text": answer.text }]) };
    push(&last, answer.finish_reason, &answer.usage);
    events
}

fn event(number: usize, kind: &str, status: u16, data: &Value) -> Bytes {
    format!("id:{number}\nevent:{kind}\n:HTTP_STATUS/{status}\ndata:{data}\n\n").into()
}

fn choice(content: &Value, finish_reason: &str) -> Value {
    json!({
        "message": { "content": content, "role": "assistant" },
        "finish_reason": finish_reason
    })
}

fn body(choice: &Value, usage: Option<&Usage>, request_id: &str) -> Value {
    let mut body = json!({ "output": { "choices": [choice] } });
    if let Some(usage) = usage {
        body["usage"] = json!({
            "total_tokens": usage.total(),
            "input_tokens_details": { "image_tokens": usage.image, "text_tokens": usage.text },
            "output_tokens": usage.output,
            "input_tokens": usage.input(),
            "output_tokens_details": { "text_tokens": usage.output },
            "image_tokens": usage.image
        });
    }
    body["request_id"] = json!(request_id);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        let usage = Usage { image: 947, text: 24, output: output_tokens(text) };
        let text = text.to_owned();
        Answer {
            model: "qwen-vl-ocr",
            text,
            ocr_result: None,
            finish_reason: "stop",
            usage,
            states_usage: true,
        }
    }

    fn texts(events: &[Bytes]) -> Vec<Value> {
        let data = |event: &Bytes| {
            let event = std::str::from_utf8(event).unwrap();
            let line = event.lines().find_map(|line| line.strip_prefix("data:")).unwrap();
            serde_json::from_str::<Value>(line).unwrap()
        };
        let content = |event| data(event)["output"]["choices"][0]["message"]["content"][0].clone();
        events.iter().map(|event| content(event)["text"].clone()).collect()
    }

    #[test]
    fn events_are_framed_as_recorded() {
        let events = events(&answer("abcd"), true, "r");
        let first = std::str::from_utf8(&events[0]).unwrap();
        assert!(
            first.starts_with("id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\""),
            "{first}"
        );
        assert!(
            first.contains("\"finish_reason\":\"null\"") && first.ends_with("}\n\n"),
            "{first}"
        );
        let last = std::str::from_utf8(&events[1]).unwrap();
        assert!(last.contains("\"content\":[]") && last.contains("\"finish_reason\":\"stop\""));
    }

    #[test]
    fn without_increments_each_event_holds_all_so_far() {
        assert_eq!(texts(&events(&answer("abcdefgh"), false, "r")), ["abcd", "abcdefgh"]);
        assert_eq!(texts(&events(&answer(""), false, "r")), [""]);
    }

    #[test]
    fn a_task_and_its_schema_are_read() {
        let ask = read(
            br#"{"model": "qwen-vl-ocr", "input": {"messages": [{"role": "user", "content": [{"image": "x", "enable_rotate": true}]}]},
            "parameters": {"ocr_options": {"task": "key_information_extraction",
            "task_config": {"result_schema": {"total": ""}}}}}"#,
            false,
            &Addresses::default(),
        );
        assert_eq!(ask.task, Some(request::Task::KeyInformation));
        assert!(ask.schema.unwrap().contains_key("total"));
        assert_eq!(ask.images[0].seen.enable_rotate, Some(true));
        assert_eq!(ask.problem, None);
    }
}
