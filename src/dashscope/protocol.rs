//! The two protocols of DashScope, and the calls that are made in them.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use crate::units::Pixels;

/// The two protocols of DashScope (Model Studio, "Qwen-OCR API reference").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OpenAI's chat completions.
    Compatible,
    /// DashScope's own.
    Native,
}

impl Protocol {
    /// Its path below the endpoint's address.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Compatible => "/compatible-mode/v1/chat/completions",
            Self::Native => "/api/v1/services/aigc/multimodal-generation/generation",
        }
    }
}

/// One call to a model: the picture, how to read it, and the prompt.
///
/// It is made in the OpenAI-compatible protocol, unless it has a task or the picture is to be straightened: only
/// DashScope's own protocol has those (Model Studio, "Qwen-OCR API reference").
#[derive(Clone)]
pub struct Call {
    /// The picture.
    pub image: Image,
    /// The prompt; without one the model uses its own.
    pub prompt: Option<String>,
    /// The built-in task; models before qwen3.5-ocr ignore the prompt when one is set.
    pub task: Option<Task>,
}

/// A picture as sent: encoded bytes, and the bounds of the size at which the model reads it.
#[derive(Clone)]
pub struct Image {
    /// The media type of the bytes, like `image/png`.
    pub media_type: &'static str,
    /// The encoded picture. It becomes Base64 only while it is sent.
    pub bytes: Bytes,
    /// The minimum pixels at which the model reads it.
    pub min_pixels: Pixels,
    /// The maximum pixels at which the model reads it.
    pub max_pixels: Pixels,
    /// Whether the model straightens a tilted picture.
    pub rotate: bool,
}

/// A task for which the model has its own prompt (Model Studio, "Qwen-OCR API reference").
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
        /// The names of the values and hints for them, at most three levels deep; without a schema, the model returns
        /// all values.
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

    /// Whether its result can be streamed. Text can. Named values and positions come beside the text, and their place
    /// in a stream is not documented.
    pub const fn streams(&self) -> bool {
        !matches!(self, Self::AdvancedRecognition | Self::KeyInformationExtraction { .. })
    }

    /// DashScope's name of the task.
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

/// A request that a caller wrote in one of the protocols.
///
/// It is sent unchanged. The code that makes it must ensure that it costs no more than the permit's bound.
#[derive(Clone)]
pub struct DropinCall {
    /// The protocol.
    pub protocol: Protocol,
    /// The body, in pieces.
    pub body: Vec<Bytes>,
    /// Whether it requests a stream. In the compatible protocol the body states it, too.
    pub stream: bool,
    /// Whether the upstream resolves addresses of its own temporary storage.
    pub resolves_oss: bool,
}

/// Leaves the content out: a picture or a prompt must not reach a log through `{:?}`.
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
impl fmt::Debug for DropinCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DropinCall")
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
