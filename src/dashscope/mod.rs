//! The one place that speaks to DashScope.
//!
//! [`Client::call`] takes a [`Permit`] and gives back a [`Completion`] together with what it cost.
//! Model, `max_tokens` and the tokens that the pacer reckons with are read from the permit and not
//! from the [`Call`], so that what is sent can never be dearer than what was admitted.
//!
//! What happens within a call reads top to bottom in `dispatch`: where it goes is decided in `pool`, among
//! endpoints that stand as their `gate`s say for the tenant; when it may leave in `pacer`, by the order of `queue` and
//! the speed of `pace`; what an answer means in `answer` and `verdict`, whose fault a failure is in `health`,
//! when it is repeated in `retry`, and what it costs the tenant in `spending`. A reply is whole or a stream of
//! events (`reply`, `stream`), and what is held of it counts in `memory`.
//! reqwest appears below this module and nowhere else.
//!
//! [`Client::call`] asks for a whole answer, [`Client::stream`] for one that comes while it is written,
//! and [`Client::forward`] sends what a caller has put into the words of either protocol itself. No word
//! of the upstream's prose leaves this module but to callers of the last: others see codes and request
//! ids.

mod answer;
mod attempt;
mod body;
mod breaker;
mod cell;
pub mod check;
pub mod completion;
mod dispatch;
mod endpoint;
pub mod error;
mod events;
mod gate;
mod health;
mod incoming;
mod memory;
mod pace;
mod pacer;
mod pool;
pub mod proxy;
mod queue;
mod received;
mod reply;
mod request;
mod retry;
pub mod settings;
mod spending;
pub mod stream;
mod tap;
mod uploads;
mod verdict;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;

use self::check::CheckError;
#[cfg(test)]
use self::completion::Word;
use self::completion::{Completion, Receipt};
use self::dispatch::Dispatcher;
use self::error::CallError;
use self::proxy::ProxyError;
use self::request::Request;
use self::settings::{SettingsError, UnknownMembers, UpstreamSettings};
use self::stream::Streaming;
use crate::admission::Permit;
use crate::admission::tab::Tab;
use crate::capacity::account::ByteAccount;
use crate::catalog::Model;
use crate::clock::Clock;
use crate::random::Random;
use crate::rate_limit::shared::SharedCells;
use crate::telemetry::metrics::Metrics;
use crate::units::Pixels;

/// The two protocols that DashScope speaks (Model Studio, "Qwen-OCR API reference").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OpenAI's chat completions.
    Compatible,
    /// DashScope's own.
    Native,
}

impl Protocol {
    /// Its path below the endpoint's address.
    pub(self) const fn path(self) -> &'static str {
        match self {
            Self::Compatible => "/compatible-mode/v1/chat/completions",
            Self::Native => "/api/v1/services/aigc/multimodal-generation/generation",
        }
    }
}

/// A request that a caller has put into the words of a protocol.
///
/// It is sent as it is. That it costs no more than the permit's bound is for whoever makes it to see to.
#[derive(Clone)]
pub struct Forward {
    /// The protocol.
    pub protocol: Protocol,
    /// The body, in pieces.
    pub body: Vec<Bytes>,
    /// Whether a stream is asked for. The compatible protocol says so in the body, too.
    pub stream: bool,
    /// Whether the upstream shall look up addresses of its own temporary storage.
    pub resolves_oss: bool,
}

/// What a forwarded request brought.
#[derive(Debug)]
pub enum Forwarded {
    /// A whole answer, as it came.
    Whole {
        /// The body: JSON.
        body: Bytes,
        /// What it cost.
        receipt: Receipt,
    },
    /// A stream that began.
    Stream(Box<Streaming>),
}

/// What a call brought that asked for a stream.
#[derive(Debug)]
pub enum Streamed {
    /// A whole answer, since the upstream did not stream it.
    Whole(Box<Completion>),
    /// A stream that began.
    Stream(Box<Streaming>),
}

/// One call to a model: the picture, how it is to be read, and what is asked of it.
///
/// The OpenAI-compatible protocol is spoken, unless there is a task or the picture shall be
/// straightened: those only DashScope's own knows (Model Studio, "Qwen-OCR API reference").
#[derive(Clone)]
pub struct Call {
    /// The picture.
    pub image: Image,
    /// What is asked; none leaves the model its own prompt.
    pub prompt: Option<String>,
    /// The built-in task; models before qwen3.5-ocr ignore the prompt when one is set.
    pub task: Option<Task>,
}

/// A picture as it is sent: encoded bytes, and the bounds within which the model reads it.
#[derive(Clone)]
pub struct Image {
    /// The media type that the bytes are of, like `image/png`.
    pub media_type: &'static str,
    /// The encoded picture; Base64 is made of it only while it is sent.
    pub bytes: Bytes,
    /// The least pixels that the model reads it at.
    pub min_pixels: Pixels,
    /// The most pixels that the model reads it at.
    pub max_pixels: Pixels,
    /// Whether the model shall straighten a tilted picture.
    pub rotate: bool,
}

/// A task that the model has a prompt of its own for (Model Studio, "Qwen-OCR API reference").
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Plain text, Chinese and English.
    TextRecognition,
    /// Plain text of other languages.
    MultiLan,
    /// Text lines with their places.
    AdvancedRecognition,
    /// Tables as HTML.
    TableParsing,
    /// A whole page as LaTeX.
    DocumentParsing,
    /// A formula as LaTeX.
    FormulaRecognition,
    /// Named values.
    KeyInformationExtraction {
        /// The names and hints of what is wanted, at most three levels deep; none asks for all
        /// there is.
        result_schema: Option<Value>,
    },
}

impl Task {
    /// The task of this name; key information extraction comes without a schema.
    pub fn named(name: &str) -> Option<Self> {
        let tasks = [
            Self::TextRecognition,
            Self::MultiLan,
            Self::AdvancedRecognition,
            Self::TableParsing,
            Self::DocumentParsing,
            Self::FormulaRecognition,
            Self::KeyInformationExtraction { result_schema: None },
        ];
        tasks.into_iter().find(|task| task.as_str() == name)
    }

    /// Whether its result can be streamed: text can; named values and places come beside the text, and
    /// where they stand in a stream, if anywhere, is not documented.
    pub const fn streams(&self) -> bool {
        !matches!(self, Self::AdvancedRecognition | Self::KeyInformationExtraction { .. })
    }

    /// The name that DashScope knows the task by.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::TextRecognition => "text_recognition",
            Self::MultiLan => "multi_lan",
            Self::AdvancedRecognition => "advanced_recognition",
            Self::TableParsing => "table_parsing",
            Self::DocumentParsing => "document_parsing",
            Self::FormulaRecognition => "formula_recognition",
            Self::KeyInformationExtraction { .. } => "key_information_extraction",
        }
    }
}

/// A client of DashScope's endpoints. Cloning it is cheap and shares its paces and its connections.
#[derive(Debug, Clone)]
pub struct Client {
    dispatcher: Arc<Dispatcher>,
    unknown_members: UnknownMembers,
}

/// A client that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A setting that cannot work.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A variable of the environment that names no proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The machine's TLS roots or resolver cannot be used.
    #[error("the HTTP client cannot be made: {0}")]
    Http(#[source] reqwest::Error),
}

impl Client {
    /// A client of the endpoints that `settings` describe, whose keys must be there by now. The replicas
    /// that use one `shared` store share the accounts' rates. Long answers are counted in `memory`.
    ///
    /// # Errors
    ///
    /// [`ClientError`] names the setting that cannot work.
    pub fn new(
        settings: &UpstreamSettings,
        shared: Option<Arc<dyn SharedCells>>,
        memory: Arc<ByteAccount>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ClientError> {
        if settings.unknown_members == UnknownMembers::Pass {
            tracing::warn!(
                "upstream.unknown_members is \"pass\": what an unknown member of a drop-in request costs \
                 is in no bound, so a budget may be overspent by it"
            );
        }
        let dispatcher = Dispatcher::new(settings, shared, memory, metrics, clock, random)?;
        Ok(Self { dispatcher: Arc::new(dispatcher), unknown_members: settings.unknown_members })
    }

    /// What is done with members of a request in a caller's own words that are not known.
    pub const fn unknown_members(&self) -> UnknownMembers {
        self.unknown_members
    }

    /// Makes the call, repeating it where that is safe, until `deadline` by the client's clock.
    ///
    /// Dropping the future after the request went out writes the permit off.
    ///
    /// # Errors
    ///
    /// [`CallError`] says why there is no completion and what was spent nevertheless.
    pub async fn call(
        &self,
        permit: Permit,
        call: &Call,
        deadline: Instant,
    ) -> Result<Completion, CallError> {
        let request = Request::new(call, &permit.model().name, permit.bound().output);
        self.dispatcher.call(permit, &request, deadline).await?.completion().await
    }

    /// Makes the call for an answer that comes while it is written. The deadline holds until it begins;
    /// from then on `upstream.stream_timeout_ms`.
    ///
    /// # Errors
    ///
    /// [`CallError`] says why nothing began.
    pub async fn stream(
        &self,
        permit: Permit,
        call: &Call,
        deadline: Instant,
    ) -> Result<Streamed, CallError> {
        let request = Request::streamed(call, &permit.model().name, permit.bound().output);
        self.dispatcher.call(permit, &request, deadline).await?.streamed().await
    }

    /// Sends what a caller has put into words, and gives back what comes, byte for byte.
    ///
    /// # Errors
    ///
    /// [`CallError`]; where the upstream objects to the request itself, with its own words.
    pub async fn forward(
        &self,
        permit: Permit,
        forward: &Forward,
        deadline: Instant,
    ) -> Result<Forwarded, CallError> {
        let request = Request::forwarded(forward);
        self.dispatcher.call(permit, &request, deadline).await?.forwarded().await
    }

    /// Asks for leave to put a file of `tenant` for `model` into the provider's temporary storage. Spends
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`CallError`] says why there is none.
    pub async fn upload_policy(
        &self,
        model: &Model,
        tenant: &str,
        deadline: Instant,
        tab: &Tab,
    ) -> Result<Bytes, CallError> {
        self.dispatcher.upload_policy(model, tenant, deadline, tab).await
    }

    /// How each endpoint is reached, by its name: `without a proxy`, or by which.
    pub fn ways(&self) -> Vec<(String, String)> {
        self.dispatcher.ways()
    }

    /// Asks every endpoint for its list of models, which spends nothing, to see whether the address
    /// answers and takes the key; gives back what came of it by the endpoint's name.
    /// [`CheckError`] tells an operator what to mend.
    pub async fn check(&self) -> Vec<(String, Result<(), CheckError>)> {
        self.dispatcher.check().await
    }
}

/// Leaves the content out: a picture or a prompt must not reach a log by way of `{:?}`.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = self.task.as_ref().map(Task::as_str);
        f.debug_struct("Call")
            .field("image", &self.image)
            .field("task", &task)
            .finish_non_exhaustive()
    }
}

/// Leaves the body out.
impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward")
            .field("protocol", &self.protocol)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// Leaves the bytes out.
impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("media_type", &self.media_type)
            .field("bytes", &self.bytes.len())
            .field("max_pixels", &self.max_pixels)
            .finish_non_exhaustive()
    }
}

/// The words of a recorded answer, for tests; none where the recordings are not at hand.
#[cfg(test)]
pub(crate) fn recorded_words(name: &str) -> Option<Vec<Word>> {
    answer::recorded(200, name)?.ok()?.words
}

#[cfg(test)]
mod tests;
