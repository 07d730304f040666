//! A validated request to read an image.
//!
//! The API layer builds an [`OcrRequest`]. Its types cannot represent an invalid option.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::auth::tenant::PdfText;
use crate::catalog::Model;
use crate::dashscope::Task;
use crate::document::range::PageRange;
use crate::extract::schema::Schema;
use crate::metering::access;
use crate::metering::context::RequestContext;
use crate::metering::prompt;
use crate::quote::{self, CallTerms, Wish};

/// One image and how to read it.
#[derive(Clone)]
pub struct OcrRequest {
    /// The id of the answer.
    pub id: Uuid,
    /// The file as it was uploaded.
    pub image: Bytes,
    /// How to read it.
    pub options: OcrOptions,
    /// The tenant, the deadline, and the resources that the request holds.
    pub context: RequestContext,
}

/// How to read an image.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "options that a caller sets one by one")]
pub struct OcrOptions {
    /// The model; the configured default if none.
    pub model: Option<String>,
    /// The caller's own prompt. It excludes a task.
    pub prompt: Option<String>,
    /// Languages that the caller expects, as BCP 47 tags. They are a hint.
    pub languages: Vec<String>,
    /// One of DashScope's built-in tasks.
    pub task: Option<Task>,
    /// The caller's bounds of the image's size.
    pub wish: Wish,
    /// Whether the pixels of each page are chosen by its text, below those bounds. If not, the tenant's setting says so
    /// where the request has no bound above.
    pub auto_pixels: bool,
    /// Which way up the image is read.
    pub rotate: Rotate,
    /// The pages to read; all if none.
    pub pages: Option<PageRange>,
    /// The resolution at which PDF pages are drawn, in pixels for an inch. If none, a page is drawn at the size that
    /// its cap allows. Pictures have no other resolution than their own.
    pub dpi: Option<u32>,
    /// Whether PDF pages are answered from their own text; the tenant's setting if none.
    pub pdf_text: Option<PdfText>,
    /// When a picture is made smaller before it is sent.
    pub downscale: Downscale,
    /// Whether the text is requested as Markdown.
    pub markdown: bool,
    /// Whether lines with boxes are requested.
    pub detail: Detail,
    /// Whether the document is requested with the lines as invisible text.
    pub searchable: bool,
    /// The fields to extract; text if none.
    pub schema: Option<Arc<Schema>>,
    /// Whether the text is read beside the fields. Without a schema it has no effect.
    pub text_beside: TextBeside,
    /// Whether the caller can use the answer only if all pages are read. After a page has failed, no further one is
    /// sent. The answer has the failed page then, also if no page was read.
    pub is_all_or_nothing: bool,
    /// The caller's own object, which the answer repeats.
    pub metadata: Option<serde_json::Value>,
}

/// Whether the text of a page is read beside its fields. It is read as without a schema: its options are those of text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TextBeside {
    /// Only the fields are read.
    #[default]
    None,
    /// The text is read, too. A page is read if both are.
    Read,
    /// The text is read, too, and the values are looked for in it. If it cannot be read, the fields are answered
    /// without it.
    Ground,
}

/// What a call reads of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The fields of the schema.
    Fields,
    /// The text.
    Text,
}

impl Reading {
    /// The most calls for it. If fields cannot be parsed, they are asked for once more.
    pub(super) const fn most_calls(self) -> usize {
        match self {
            Self::Fields => 2,
            Self::Text => 1,
        }
    }
}

/// The detail of the answer.
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
    /// As a viewer shows it: the image is sent unchanged.
    #[default]
    Exif,
    /// As the vendor straightens it. The effect on the size is not documented, so the tokens are bounded and not exact.
    Auto,
    /// As its pixels are stored.
    Off,
}

/// When a picture is made smaller here, before it is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Downscale {
    /// If the upstream would refuse it as it is.
    #[default]
    Auto,
    /// If it has more pixels than the model reads of it.
    Always,
    /// Never: a picture that the upstream would refuse is refused.
    Never,
}

/// The prompt for Markdown, if the request has no other. No built-in task writes Markdown.
const MARKDOWN_PROMPT: &str = "Transcribe the image as Markdown. Keep headings, lists and tables. \
                               Output only the Markdown.";

/// Languages of the task `multi_lan` (Qwen-OCR API reference), as ISO 639-1 codes.
const MULTI_LAN_LANGUAGES: [&str; 10] =
    ["ar", "fr", "de", "it", "ja", "ko", "pt", "ru", "es", "vi"];

impl OcrRequest {
    /// What the first call for a page reads: the fields if there is a schema.
    pub(super) const fn reading(&self) -> Reading {
        if self.options.schema.is_some() { Reading::Fields } else { Reading::Text }
    }

    /// Whether a page is read twice: its fields, and then its text.
    pub(super) fn reads_text_beside(&self) -> bool {
        self.reading() == Reading::Fields && self.options.text_beside != TextBeside::None
    }

    /// Whether a page is answered with its fields alone if its text cannot be read beside them.
    pub(super) fn may_lack_text(&self) -> bool {
        self.reads_text_beside() && self.options.text_beside == TextBeside::Ground
    }

    /// Whether a page may be read again at the cap, because its answer is in doubt.
    pub(super) fn may_escalate(&self) -> bool {
        self.context.tenant.escalate && self.chooses_pixels()
    }

    /// Whether an answer may be delivered although a further call for it failed. There must be time left for that.
    pub(super) fn may_deliver_less(&self) -> bool {
        self.may_lack_text() || self.may_escalate()
    }

    /// The built-in task of a call; if `None`, the compatible protocol serves it.
    ///
    /// A language that only `multi_lan` reads selects that task if the caller selected none. The language is a hint, so
    /// Markdown has precedence.
    pub(super) fn task_for(&self, reading: Reading) -> Option<Task> {
        let options = &self.options;
        if let (Reading::Fields, Some(schema)) = (reading, &options.schema) {
            let result_schema = Some(schema.result_schema());
            return Some(Task::KeyInformationExtraction { result_schema });
        }
        if options.detail == Detail::Lines {
            return Some(Task::AdvancedRecognition);
        }
        if options.task.is_some() || self.prompt_for(reading).is_some() {
            return options.task.clone();
        }
        let needs_multi_lan = options.languages.iter().any(|tag| {
            let primary = tag.split('-').next().unwrap_or_default().to_ascii_lowercase();
            MULTI_LAN_LANGUAGES.contains(&primary.as_str())
        });
        needs_multi_lan.then_some(Task::MultiLan)
    }

    /// The prompt of a call; without one, the model uses its own or that of its task.
    pub(super) fn prompt_for(&self, reading: Reading) -> Option<&str> {
        let options = &self.options;
        let of_ours = options.markdown && options.task.is_none() && reading == Reading::Text;
        options.prompt.as_deref().or_else(|| of_ours.then_some(MARKDOWN_PROMPT))
    }

    /// Whether a page may be answered from its own text instead of from its image.
    ///
    /// The text of a page is no Markdown, it follows no prompt, and it has no fields. So a request for one of these, or
    /// for a task that does more than recognise text, is served from the image also where the caller or the tenant
    /// prefers the text. A text that is read beside fields may come from the page.
    pub fn prefers_page_text(&self) -> bool {
        let options = &self.options;
        let recognises = |task: &Task| {
            matches!(task, Task::TextRecognition | Task::AdvancedRecognition | Task::MultiLan)
        };
        options.pdf_text.unwrap_or(self.context.tenant.pdf_text) == PdfText::Prefer
            && options.prompt.is_none()
            && (self.reading() == Reading::Text || self.reads_text_beside())
            && !options.markdown
            && options.task.as_ref().is_none_or(recognises)
    }

    /// Whether the pixels of each page are chosen by its text.
    pub fn chooses_pixels(&self) -> bool {
        let is_default = self.context.tenant.auto_pixels && self.options.wish.max_pixels.is_none();
        self.options.auto_pixels || is_default
    }

    /// Whether nothing is what a call would answer for a blank page, so that none is made.
    ///
    /// All that the built-in tasks and the fields of a schema ask for is to be seen on the page. A prompt of the caller
    /// may ask for anything. The task of key information answers with a JSON object, which an empty text is not.
    pub(super) fn knows_blank_pages(&self) -> bool {
        let is_object = |task: &Task| matches!(task, Task::KeyInformationExtraction { .. });
        self.options.prompt.is_none() && !self.options.task.as_ref().is_some_and(is_object)
    }

    /// The terms of the first call for a page.
    pub(super) fn terms<'a>(&self, model: &'a Arc<Model>) -> CallTerms<'a> {
        let wish = Wish { straighten: self.options.rotate == Rotate::Auto, ..self.options.wish };
        let cap = access::cap(&self.context.tenant);
        CallTerms::of_prompt(model, self.prompt_bytes(), wish, cap)
    }

    /// An upper bound of the bytes, and so of the tokens, of the prompt that the model reads in a call.
    pub(super) fn prompt_bytes_for(&self, reading: Reading) -> u64 {
        let Some(task) = self.task_for(reading) else {
            return self.prompt_for(reading).map_or(prompt::DEFAULT_BYTES, quote::prompt_bytes);
        };
        let schema = self.options.schema.as_ref().filter(|_| reading == Reading::Fields);
        prompt::task_bytes(&task) + schema.map_or(0, |schema| schema.prompt_bytes_bound())
    }

    /// An upper bound of the bytes of the prompt in the first call for a page. No other call has a longer one.
    pub(super) fn prompt_bytes(&self) -> u64 {
        self.prompt_bytes_for(self.reading())
    }
}

/// Leaves the content out: an image or a prompt must not reach a log through `{:?}`.
impl fmt::Debug for OcrRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OcrRequest")
            .field("id", &self.id)
            .field("image", &self.image.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::admission::presence::Watch;
    use crate::admission::tab::Tab;
    use crate::metering::context::Held;

    /// A request of `tenant` without a file.
    pub(in crate::ocr) fn request(tenant: Value, options: OcrOptions) -> OcrRequest {
        let context = RequestContext {
            tenant: Arc::new(serde_json::from_value(tenant).unwrap()),
            deadline: tokio::time::Instant::now().into_std(),
            watch: Watch::default(),
            tab: Tab::default(),
            held: Held::default(),
        };
        OcrRequest { id: Uuid::nil(), image: Bytes::new(), options, context }
    }

    fn prefers_page_text(options: OcrOptions) -> bool {
        let options = OcrOptions { pdf_text: Some(PdfText::Prefer), ..options };
        request(json!({ "name": "acme" }), options).prefers_page_text()
    }

    #[test]
    fn the_text_of_a_page_is_preferred_as_the_tenant_says_unless_the_request_says_otherwise() {
        let of = |tenant: Value, pdf_text| {
            request(tenant, OcrOptions { pdf_text, ..OcrOptions::default() }).prefers_page_text()
        };
        let willing = json!({ "name": "acme", "pdf_text": "prefer" });
        let other = json!({ "name": "acme" });
        assert!(of(willing.clone(), None) && !of(other.clone(), None));
        assert!(of(other, Some(PdfText::Prefer)) && !of(willing, Some(PdfText::Off)));
    }

    #[test]
    fn the_text_of_a_page_serves_only_requests_for_text() {
        let text = OcrOptions::default;
        let task = |name| OcrOptions { task: Task::named(name), ..text() };
        assert!(prefers_page_text(text()));
        assert!(prefers_page_text(OcrOptions { detail: Detail::Lines, ..text() }));
        for name in ["text_recognition", "multi_lan", "advanced_recognition"] {
            assert!(prefers_page_text(task(name)), "{name}");
        }
        for name in [
            "table_parsing",
            "document_parsing",
            "formula_recognition",
            "key_information_extraction",
        ] {
            assert!(!prefers_page_text(task(name)), "{name}");
        }
        assert!(!prefers_page_text(OcrOptions { markdown: true, ..text() }));
        assert!(!prefers_page_text(OcrOptions { prompt: Some("x".into()), ..text() }));
        let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
        let schema = Some(Arc::new(Schema::parse(&schema).unwrap()));
        let fields = OcrOptions { schema, ..text() };
        assert!(!prefers_page_text(fields.clone()));
        let fields = OcrOptions { text_beside: TextBeside::Read, ..fields };
        assert!(prefers_page_text(fields.clone()));
        assert!(!prefers_page_text(OcrOptions { markdown: true, ..fields }));
    }

    #[test]
    fn a_text_beside_fields_is_read_as_without_them_by_a_prompt_that_is_not_longer() {
        let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
        let schema = Some(Arc::new(Schema::parse(&schema).unwrap()));
        for options in [
            OcrOptions::default(),
            OcrOptions { detail: Detail::Lines, ..OcrOptions::default() },
            OcrOptions { markdown: true, ..OcrOptions::default() },
            OcrOptions { languages: vec!["fr".to_owned()], ..OcrOptions::default() },
        ] {
            let alone = request(json!({ "name": "acme" }), options.clone());
            let schema = schema.clone();
            let beside = OcrOptions { schema, text_beside: TextBeside::Read, ..options };
            let beside = request(json!({ "name": "acme" }), beside);
            let text = Reading::Text;
            assert_eq!(alone.task_for(text), beside.task_for(text));
            assert_eq!(alone.prompt_for(text), beside.prompt_for(text));
            assert_eq!(alone.prompt_bytes(), beside.prompt_bytes_for(text));
            assert!(beside.prompt_bytes_for(text) <= beside.prompt_bytes());
            assert_eq!(beside.prompt_for(Reading::Fields), None);
        }
    }
}
