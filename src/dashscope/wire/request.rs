//! The request of a call, in one of DashScope's two protocols.
//!
//! The picture's address comes first and is empty, so that everything before it is written by the gateway and no prompt
//! can be mistaken for it ([`RequestDocument`]). `max_tokens` is always sent, since it bounds the bill. A system
//! message is never sent, since the models have their own. A prompt is sent only if the caller has one: without it the
//! model uses its own. Sampling has the vendor's defaults, as the vendor advises (Model Studio, "Qwen-OCR API
//! reference").

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::body::RequestDocument;
use super::memory::AnswerRoom;
use crate::dashscope::protocol::{Call, DropinCall, Protocol, Task};
use crate::units::{Pixels, Tokens};

/// A call that is ready to be sent any number of times.
#[derive(Clone)]
pub(crate) struct UpstreamRequest {
    /// The protocol that it is written in.
    pub(crate) protocol: Protocol,
    /// The body.
    pub(crate) document: RequestDocument,
    /// The expected reply.
    pub(crate) expects: Expects,
    /// Whether the upstream resolves addresses of its own temporary storage.
    pub(crate) resolves_oss: bool,
    /// Room for the answer, if it was taken before.
    pub(crate) room: Option<Arc<AnswerRoom>>,
}

/// The reply that a request expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expects {
    /// A whole answer of the model.
    Answer,
    /// JSON with any content, or a stream if the upstream streams anyway.
    Json,
    /// A stream of events, or JSON if the upstream does not stream.
    Events,
    /// The same with the model's text, which may be as long as that of a whole answer.
    Text,
}

impl Expects {
    /// Whether a stream is requested.
    pub(crate) const fn is_stream(self) -> bool {
        matches!(self, Self::Events | Self::Text)
    }
}

impl UpstreamRequest {
    /// Writes `call` in the protocol that supports it.
    pub(crate) fn new(call: &Call, model: &str, max_tokens: Tokens) -> Self {
        Self::of(call, model, max_tokens, Expects::Answer)
    }

    /// Writes `call`, to be answered by a stream.
    pub(crate) fn streamed(call: &Call, model: &str, max_tokens: Tokens) -> Self {
        Self::of(call, model, max_tokens, Expects::Text)
    }

    /// A request that a caller wrote.
    pub(crate) fn dropin(call: &DropinCall) -> Self {
        Self {
            protocol: call.protocol,
            document: RequestDocument::verbatim(call.body.iter().cloned()),
            expects: if call.stream { Expects::Events } else { Expects::Json },
            resolves_oss: call.resolves_oss,
            room: None,
        }
    }

    fn of(call: &Call, model: &str, max_tokens: Tokens, expects: Expects) -> Self {
        let stream = expects.is_stream();
        let (protocol, json) = if call.task.is_some() || call.image.rotate {
            (Protocol::Native, written(&native(call, model, max_tokens, stream)))
        } else {
            (Protocol::Compatible, written(&compatible(call, model, max_tokens, stream)))
        };
        let document = RequestDocument::new(json, call.image.bytes.clone());
        Self { protocol, document, expects, resolves_oss: false, room: None }
    }
}

/// A request of the compatible protocol.
#[derive(Serialize)]
struct ChatCompletion<'a> {
    messages: [ChatMessage<ChatPart<'a>>; 1],
    model: &'a str,
    max_tokens: Tokens,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// The bounds are written twice, in `image_url` and beside it: the vendor's pages differ on their place, and a bound
/// that the service does not read has no effect.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ChatPart<'a> {
    ImageUrl { image_url: ImageUrl, min_pixels: Pixels, max_pixels: Pixels },
    Text { text: &'a str },
}

#[derive(Serialize)]
struct ImageUrl {
    url: String,
    min_pixels: Pixels,
    max_pixels: Pixels,
}

/// A request of the native protocol.
#[derive(Serialize)]
struct Generation<'a> {
    input: Input<'a>,
    model: &'a str,
    parameters: Parameters<'a>,
}

#[derive(Serialize)]
struct Input<'a> {
    messages: [ChatMessage<NativePart<'a>>; 1],
}

#[derive(Serialize)]
#[serde(untagged)]
enum NativePart<'a> {
    Image {
        image: String,
        min_pixels: Pixels,
        max_pixels: Pixels,
        #[serde(skip_serializing_if = "Option::is_none")]
        enable_rotate: Option<bool>,
    },
    Text {
        text: &'a str,
    },
}

#[derive(Serialize)]
struct Parameters<'a> {
    max_tokens: Tokens,
    #[serde(skip_serializing_if = "Option::is_none")]
    ocr_options: Option<TaskOptions<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incremental_output: Option<bool>,
}

#[derive(Serialize)]
struct TaskOptions<'a> {
    task: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_config: Option<TaskConfig<'a>>,
}

#[derive(Serialize)]
struct TaskConfig<'a> {
    result_schema: &'a Value,
}

/// The only message of a call.
#[derive(Serialize)]
struct ChatMessage<Part> {
    role: &'static str,
    content: Vec<Part>,
}

impl<Part> ChatMessage<Part> {
    /// The picture, and the prompt if there is one.
    fn of(image: Part, text: Option<Part>) -> [Self; 1] {
        [Self { role: "user", content: [image].into_iter().chain(text).collect() }]
    }
}

fn compatible<'a>(
    call: &'a Call,
    model: &'a str,
    max_tokens: Tokens,
    stream: bool,
) -> ChatCompletion<'a> {
    let (min_pixels, max_pixels) = (call.image.min_pixels, call.image.max_pixels);
    let image_url = ImageUrl { url: address(call), min_pixels, max_pixels };
    let image = ChatPart::ImageUrl { image_url, min_pixels, max_pixels };
    ChatCompletion {
        messages: ChatMessage::of(
            image,
            call.prompt.as_deref().map(|text| ChatPart::Text { text }),
        ),
        model,
        max_tokens,
        stream: stream.then_some(true),
        stream_options: stream.then_some(StreamOptions { include_usage: true }),
    }
}

fn native<'a>(call: &'a Call, model: &'a str, max_tokens: Tokens, stream: bool) -> Generation<'a> {
    let image = NativePart::Image {
        image: address(call),
        min_pixels: call.image.min_pixels,
        max_pixels: call.image.max_pixels,
        enable_rotate: call.image.rotate.then_some(true),
    };
    let text = call.prompt.as_deref().map(|text| NativePart::Text { text });
    Generation {
        input: Input { messages: ChatMessage::of(image, text) },
        model,
        parameters: Parameters {
            max_tokens,
            ocr_options: call.task.as_ref().map(ocr_options),
            incremental_output: stream.then_some(true),
        },
    }
}

fn ocr_options(task: &Task) -> TaskOptions<'_> {
    let result_schema = match task {
        Task::KeyInformationExtraction { result_schema } => result_schema.as_ref(),
        _ => None,
    };
    let task_config = result_schema.map(|result_schema| TaskConfig { result_schema });
    TaskOptions { task: task.as_str(), task_config }
}

/// The data URL with nothing after its comma.
fn address(call: &Call) -> String {
    format!("data:{};base64,", call.image.media_type)
}

#[expect(
    clippy::expect_used,
    reason = "only keys that are no strings could fail, and there are none"
)]
fn written(words: &impl Serialize) -> String {
    serde_json::to_string(words).expect("keys are strings")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use serde_json::json;

    use super::*;
    use crate::dashscope::protocol::Image;

    fn call(prompt: Option<&str>, task: Option<Task>) -> Call {
        let image = Image {
            media_type: "image/png",
            bytes: Bytes::from_static(b"picture"),
            min_pixels: Pixels::new(3072),
            max_pixels: Pixels::new(786_432),
            rotate: false,
        };
        Call { image, prompt: prompt.map(str::to_owned), task }
    }

    /// The JSON as sent. The body never waits, so no runtime is needed.
    fn sent(call: &Call) -> Value {
        let request = UpstreamRequest::new(call, "qwen-vl-ocr", Tokens::new(4096));
        let (body, _sending) = request.document.body();
        let collected = futures_util::FutureExt::now_or_never(body.collect()).unwrap().unwrap();
        serde_json::from_slice(&collected.to_bytes()).unwrap()
    }

    #[test]
    fn the_compatible_protocol_carries_the_bounds_twice_and_no_text_unless_asked() {
        let expected = json!({
            "model": "qwen-vl-ocr",
            "messages": [{"role": "user", "content": [{
                "type": "image_url",
                "image_url": {
                    "url": "data:image/png;base64,cGljdHVyZQ==",
                    "min_pixels": 3072,
                    "max_pixels": 786_432,
                },
                "min_pixels": 3072,
                "max_pixels": 786_432,
            }]}],
            "max_tokens": 4096,
        });
        assert_eq!(sent(&call(None, None)), expected);
    }

    #[test]
    fn the_native_protocol_carries_task_and_schema() {
        let schema = json!({"b": "", "a": {"c": "a hint"}});
        let task = Task::KeyInformationExtraction { result_schema: Some(schema.clone()) };
        let expected = json!({
            "model": "qwen-vl-ocr",
            "input": {"messages": [{"role": "user", "content": [{
                "image": "data:image/png;base64,cGljdHVyZQ==",
                "min_pixels": 3072,
                "max_pixels": 786_432,
            }]}]},
            "parameters": {
                "ocr_options": {
                    "task": "key_information_extraction",
                    "task_config": {"result_schema": schema},
                },
                "max_tokens": 4096,
            },
        });
        assert_eq!(sent(&call(None, Some(task))), expected);
    }

    #[test]
    fn rotation_is_asked_for_by_the_native_protocol_with_a_task_and_without() {
        for task in [Some(Task::TextRecognition), None] {
            let mut call = call(Some("read"), task.clone());
            call.image.rotate = true;
            let sent = sent(&call);
            let content = &sent["input"]["messages"][0]["content"];
            assert_eq!(content[0]["enable_rotate"], true);
            assert_eq!(content[1]["text"], "read");
            assert_eq!(sent["parameters"].get("ocr_options").is_some(), task.is_some());
        }
    }

    proptest! {
        #[test]
        fn a_prompt_arrives_whatever_it_says(
            prompt in prop_oneof![any::<String>(), Just("data:image/png;base64,\"".to_owned())],
        ) {
            let compatible = sent(&call(Some(&prompt), None));
            prop_assert_eq!(&compatible["messages"][0]["content"][1]["text"], prompt.as_str());
            let native = sent(&call(Some(&prompt), Some(Task::TextRecognition)));
            prop_assert_eq!(&native["input"]["messages"][0]["content"][1]["text"], prompt.as_str());
        }
    }
}
