//! What is known of a document and of its pages before they are read.

use serde::Serialize;

use crate::image::Size;
use crate::quote::Quote;

/// The uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DocumentFacts {
    /// Its type, by its bytes.
    pub media_type: &'static str,
    /// Its size in bytes.
    pub bytes: usize,
    /// The number of its pages, also of those that were not asked for.
    pub pages: u32,
}

/// What the text of a page comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A picture of the document, as it is stored or made smaller.
    Image,
    /// A picture that was drawn of the page.
    Rendered,
    /// The text that the page carries. No model reads it.
    TextLayer,
}

/// A page that was quoted.
#[derive(Debug, Clone)]
pub(super) struct PageFacts {
    /// Its number, from 1.
    pub(super) number: u32,
    /// What its text comes from.
    pub(super) source: Source,
    /// Its size in the answer: that of the drawn page, and that of a picture before it was made smaller.
    pub(super) shown: Size,
    /// Its resolution in pixels for an inch, if it is a page of a PDF.
    pub(super) dpi: Option<u32>,
    /// Whether its file is turned by an orientation tag.
    pub(super) is_turned: bool,
    /// Whether the caller asked for a size.
    pub(super) is_size_asked: bool,
    /// Its quote. If no model reads the page, it is what a call would have cost.
    pub(super) quote: Quote,
}

impl Source {
    /// The name in answers and metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Rendered => "rendered",
            Self::TextLayer => "text_layer",
        }
    }

    /// Whether a model reads the page.
    pub(super) const fn is_read(self) -> bool {
        !matches!(self, Self::TextLayer)
    }
}
