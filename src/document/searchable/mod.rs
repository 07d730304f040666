//! Searchable PDFs: the lines that were read of a page lie over it as invisible text, which viewers find and copy.
//!
//! - [`object`] writes the syntax of PDF: objects, and the index of those that are appended to a file.
//! - [`font`] is the font of the invisible text. It has no glyphs, and says which characters each code stands for.
//! - [`layer`] places the lines of a page so that each fills its box.
//! - [`picture`] takes a JPEG or a PNG into a PDF without encoding it anew.
//! - [`album`] is a PDF of pictures, one a page.
//!
//! The modules are pure. They run in a worker, beside what reads the file (`document::pdf::update` adds a layer to a
//! PDF). docs/adr/0023-searchable-pdf.md argues the form of the file.

pub(super) mod album;
pub(super) mod font;
pub(super) mod layer;
pub(super) mod object;
pub(super) mod picture;

use serde::{Deserialize, Serialize};

use self::album::AlbumPage;
use super::page::PageLines;

/// What a worker is told to lay over the pages of a document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TextJob {
    /// The text of the pages that have some.
    pub(super) lines: Vec<PageLines>,
    /// The pages of a PDF of pictures; none if the document is a PDF.
    pub(super) album: Option<Vec<AlbumPage>>,
}
