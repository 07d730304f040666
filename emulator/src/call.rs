//! The record of one call, and the sums over all calls.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::usage::Usage;

/// One call of an inference endpoint.
#[expect(clippy::struct_excessive_bools, reason = "a record of facts, not a state machine")]
#[derive(Debug, Clone, Default, Serialize)]
pub struct Call {
    /// Its number, from 1, in order of arrival.
    pub sequence: u64,
    /// The id in its answer.
    pub request_id: String,
    /// The requested path.
    pub path: String,
    /// The last four characters of the API key.
    pub key_suffix: String,
    /// The names of the request's headers, in lower case.
    pub headers: Vec<String>,
    /// The values of the headers that select the form of the answer or identify the client, and are not secret:
    /// `accept`, `content-type`, `user-agent`, `x-dashscope-sse`, `x-dashscope-ossresourceresolve`.
    pub header_values: BTreeMap<String, String>,
    /// The requested model.
    pub model: Option<String>,
    /// The requested built-in task.
    pub task: Option<String>,
    /// Whether a stream was requested.
    pub stream: bool,
    /// Whether the request had a prompt that is not empty.
    pub prompt: bool,
    /// The requested limit of output tokens.
    pub max_tokens: Option<u64>,
    /// The images of all messages, in order.
    pub images: Vec<ImageSeen>,
    /// Whether a scripted fault hit it.
    pub faulted: bool,
    /// The status of the answer; `None` while the call is in progress, or if no head was sent.
    pub status: Option<u16>,
    /// The usage billed for it.
    pub billed: Option<Usage>,
    /// Whether the whole answer was passed to the connection.
    pub delivered: bool,
    /// The body of the request, byte for byte, if [`Options::keep_bodies`] is set. The bodies of all calls are kept up
    /// to 256 MiB. Beyond that, the oldest calls lose both bodies, which are then empty.
    ///
    /// [`Options::keep_bodies`]: crate::Options::keep_bodies
    #[serde(skip)]
    pub request_body: Bytes,
    /// The part of the answer's body that was passed to the connection, kept like that of the request.
    #[serde(skip)]
    pub response_body: Vec<u8>,
    /// Whether the bodies are still kept.
    #[serde(skip)]
    pub(crate) keeps_bodies: bool,
}

impl Call {
    /// Drops both bodies and returns their total size in bytes.
    pub(crate) fn forget_bodies(&mut self) -> usize {
        let bytes = self.request_body.len() + self.response_body.len();
        (self.request_body, self.response_body) = (Bytes::new(), Vec::new());
        self.keeps_bodies = false;
        bytes
    }
}

/// One image as it was received.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImageSeen {
    /// The media type in its data URL.
    pub media_type: Option<String>,
    /// Its decoded size in bytes; zero if its address is not hosted.
    pub bytes: usize,
    /// Its width in pixels after orientation, if its header could be read.
    pub width: Option<u32>,
    /// Its height in pixels after orientation, if its header could be read.
    pub height: Option<u32>,
    /// `min_pixels` inside `image_url`.
    pub min_pixels_inside: Option<i64>,
    /// `max_pixels` inside `image_url`.
    pub max_pixels_inside: Option<i64>,
    /// `min_pixels` beside `image_url` or `image`.
    pub min_pixels_beside: Option<i64>,
    /// `max_pixels` beside `image_url` or `image`.
    pub max_pixels_beside: Option<i64>,
    /// `enable_rotate` beside `image`.
    pub enable_rotate: Option<bool>,
}

/// Sums over all calls since the start or since they were cleared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Bill {
    /// Calls received, billed or not.
    pub received: u64,
    /// Calls billed.
    pub calls: u64,
    /// Image tokens billed.
    pub image: u64,
    /// Text tokens billed.
    pub text: u64,
    /// Output tokens billed.
    pub output: u64,
}

impl Bill {
    /// All tokens billed.
    pub const fn total(&self) -> u64 {
        self.image + self.text + self.output
    }
}
