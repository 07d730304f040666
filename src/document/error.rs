//! Errors of reading a document.

use serde::{Deserialize, Serialize};

use super::page::Kind;

/// The longest description of a fault, in bytes.
const LONGEST_FAULT: usize = 300;

/// Why a document, or one of its pages, cannot be read. It crosses the pipe from a worker to the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DocumentError {
    /// The PDF opens only with a password.
    #[error("the PDF is encrypted and opens only with a password")]
    PasswordRequired,
    /// The PDF cannot be parsed.
    #[error("the PDF {what}")]
    PdfUndecodable {
        /// The fault, as the predicate of a sentence about the PDF.
        what: String,
    },
    /// A picture or a page of a TIFF cannot be decoded.
    #[error("the picture {what}")]
    PictureUndecodable {
        /// The fault, as the predicate of a sentence about the picture.
        what: String,
    },
    /// The document has no pages.
    #[error("the document has no pages")]
    Empty,
    /// A requested page does not exist, or a requested range lies wholly past the end.
    #[error("page {asked} was asked for; the last page is {pages}")]
    PageNotFound {
        /// The first page that does not exist.
        asked: u32,
        /// The number of pages.
        pages: u32,
    },
    /// More pages are requested than one request may have.
    #[error("{actual} pages are asked for; one request may have {allowed}")]
    TooManyPages {
        /// Pages asked for.
        actual: u32,
        /// The limit.
        allowed: u32,
    },
    /// A page, or a picture on it, has more pixels than may be decoded or drawn.
    #[error("the page has {actual} pixels; {allowed} are accepted")]
    PageTooLarge {
        /// Its pixels.
        actual: u64,
        /// The limit.
        allowed: u64,
    },
    /// Reading the page takes more of something than one page may take.
    #[error("the page takes more than {allowed} {resource}")]
    TooComplex {
        /// What it takes, with its unit: `bytes of memory`, `ms of CPU time`.
        resource: Resource,
        /// What it took, where that is known.
        actual: Option<u64>,
        /// The limit.
        allowed: u64,
    },
    /// No searchable PDF can be made of the file. Its pages can be read.
    #[error("no searchable PDF can be made of the file: {what}")]
    NotSearchable {
        /// The reason, as a sentence.
        what: String,
    },
    /// No worker, no memory for one, or not enough of a processor became free in time.
    #[error("no worker for documents was free for long enough")]
    Busy,
    /// The worker failed without a fault of the document.
    #[error("the document worker failed")]
    Interrupted,
}

impl DocumentError {
    /// A document of this kind that cannot be decoded. `what` is the predicate of a sentence about it.
    pub fn undecodable(kind: Kind, what: impl Into<String>) -> Self {
        let what = what.into();
        match kind {
            Kind::Pdf => Self::PdfUndecodable { what },
            Kind::Tiff | Kind::Picture => Self::PictureUndecodable { what },
        }
    }

    /// Whether it is the fault of one page, so that others of the document may be read.
    pub const fn is_of_page(&self) -> bool {
        matches!(
            self,
            Self::PdfUndecodable { .. }
                | Self::PictureUndecodable { .. }
                | Self::PageTooLarge { .. }
                | Self::TooComplex { .. }
        )
    }

    /// The error with a text of at most `LONGEST_FAULT` bytes. Libraries may quote the document.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        if let Self::PdfUndecodable { what }
        | Self::PictureUndecodable { what }
        | Self::NotSearchable { what } = &mut self
        {
            what.truncate(what.floor_char_boundary(LONGEST_FAULT));
        }
        self
    }

    /// Whether it is what [`shortened`](Self::shortened) gives.
    pub fn is_short(&self) -> bool {
        match self {
            Self::PdfUndecodable { what }
            | Self::PictureUndecodable { what }
            | Self::NotSearchable { what } => what.len() <= LONGEST_FAULT,
            _ => true,
        }
    }
}

/// What a page may take a bounded amount of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// Memory of the worker.
    Memory,
    /// CPU time, in milliseconds.
    CpuTime,
    /// Elapsed time, in milliseconds.
    Time,
    /// Objects of the file.
    Objects,
    /// Bytes of the encoded picture.
    EncodedBytes,
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "bytes of memory",
            Self::CpuTime => "ms of CPU time",
            Self::Time => "ms",
            Self::Objects => "objects",
            Self::EncodedBytes => "bytes when it is encoded",
        })
    }
}
