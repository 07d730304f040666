//! What a caller asks for, once it is known to make sense.
//!
//! The API layer builds a [`OcrRequest`]; past that point a wrong option cannot be represented.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::dashscope::Task;
use crate::extract::schema::Schema;
use crate::metering::context::RequestContext;
use crate::metering::prompt;
use crate::quote::{self, Wish};

/// One image and what shall be done with it.
#[derive(Clone)]
pub struct OcrRequest {
    /// Names the answer.
    pub id: Uuid,
    /// The file as it was uploaded.
    pub image: Bytes,
    /// How it shall be read.
    pub options: OcrOptions,
    /// For whom it is read, until when, and what the request holds.
    pub context: RequestContext,
}

/// How an image shall be read.
#[derive(Debug, Clone, Default)]
pub struct OcrOptions {
    /// The model; none means the configured default.
    pub model: Option<String>,
    /// The caller's own prompt. Excludes a task.
    pub prompt: Option<String>,
    /// Languages that the caller expects, as BCP 47 tags. A hint.
    pub languages: Vec<String>,
    /// One of DashScope's built-in tasks.
    pub task: Option<Task>,
    /// Bounds of the image's size that the caller wishes.
    pub wish: Wish,
    /// Which way up the image is read.
    pub rotate: Rotate,
    /// Whether the text is wanted as Markdown.
    pub markdown: bool,
    /// Whether lines with boxes are wanted.
    pub detail: Detail,
    /// The fields to extract; none means text.
    pub schema: Option<Arc<Schema>>,
    /// The caller's own object, echoed.
    pub metadata: Option<serde_json::Value>,
}

/// How much the answer tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Detail {
    /// The text.
    #[default]
    Text,
    /// The text and its lines with boxes.
    Lines,
}

/// Which way up an image is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rotate {
    /// As a viewer shows it: the image is sent as it came.
    #[default]
    Exif,
    /// As the provider straightens it. That changes its size in a way that is not documented, so that
    /// its tokens are no longer known, but bounded.
    Auto,
    /// As its pixels are stored.
    Off,
}

/// What the model is asked where Markdown is wanted and nothing else was said: none of the built-in
/// tasks writes it.
const MARKDOWN_PROMPT: &str = "Transcribe the image as Markdown. Keep headings, lists and tables. \
                               Output only the Markdown.";

/// Languages of the task `multi_lan` (Qwen-OCR API reference), as ISO 639-1 codes.
const MULTI_LAN_LANGUAGES: [&str; 10] =
    ["ar", "fr", "de", "it", "ja", "ko", "pt", "ru", "es", "vi"];

impl OcrRequest {
    /// The built-in task that serves the request; none means the compatible protocol.
    ///
    /// A language that only `multi_lan` reads chooses that task where the caller chose nothing; it is a
    /// hint, so that Markdown goes before it.
    pub(super) fn dashscope_task(&self) -> Option<Task> {
        let options = &self.options;
        if let Some(schema) = &options.schema {
            let result_schema = Some(schema.result_schema());
            return Some(Task::KeyInformationExtraction { result_schema });
        }
        if options.detail == Detail::Lines {
            return Some(Task::AdvancedRecognition);
        }
        if options.task.is_some() || self.prompt().is_some() {
            return options.task.clone();
        }
        let needs_multi_lan = options.languages.iter().any(|tag| {
            let primary = tag.split('-').next().unwrap_or_default().to_ascii_lowercase();
            MULTI_LAN_LANGUAGES.contains(&primary.as_str())
        });
        needs_multi_lan.then_some(Task::MultiLan)
    }

    /// What is asked of the model; none leaves it its own prompt or that of its task.
    pub(super) fn prompt(&self) -> Option<&str> {
        let options = &self.options;
        let of_ours = options.markdown && options.task.is_none() && options.schema.is_none();
        options.prompt.as_deref().or_else(|| of_ours.then_some(MARKDOWN_PROMPT))
    }

    /// The bounds that the image is quoted within.
    pub(super) fn wish(&self) -> Wish {
        Wish { straighten: self.options.rotate == Rotate::Auto, ..self.options.wish }
    }

    /// An upper bound of the bytes, and so of the tokens, of the prompt that the model will see.
    pub(super) fn prompt_bytes(&self) -> u64 {
        let Some(task) = self.dashscope_task() else {
            return self.prompt().map_or(prompt::DEFAULT_BYTES, quote::prompt_bytes);
        };
        let schema = self.options.schema.as_ref().map_or(0, |schema| schema.prompt_bytes_bound());
        prompt::task_bytes(&task) + schema
    }
}

/// Leaves the content out: an image or a prompt must not reach a log by way of `{:?}`.
impl fmt::Debug for OcrRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OcrRequest")
            .field("id", &self.id)
            .field("image", &self.image.len())
            .finish_non_exhaustive()
    }
}
