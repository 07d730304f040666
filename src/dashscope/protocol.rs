//! The two protocols that DashScope speaks, and what is asked in them.

use std::fmt;

use bytes::Bytes;
use serde_json::Value;

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
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Compatible => "/compatible-mode/v1/chat/completions",
            Self::Native => "/api/v1/services/aigc/multimodal-generation/generation",
        }
    }
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
