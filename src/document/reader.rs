//! Reads one document, in a worker.

use bytes::Bytes;

use super::error::DocumentError;
use super::page::{Draw, Drawn, Kind, PagePlan, PageSize, StoredPicture};
use crate::image::format::Orientation;
use crate::image::header::ImageHeader;
use crate::image::probe;

/// What all documents of a worker are read with.
#[derive(Debug)]
pub(super) struct ReaderSettings {
    /// Pixels that a page, or a picture on it, may have.
    pub(super) page_pixels: u64,
}

/// An open document.
#[derive(Debug)]
pub(super) enum Reader {
    /// A picture.
    Picture(Picture),
}

/// A picture, which is a document of one page.
#[derive(Debug)]
pub(super) struct Picture {
    file: Bytes,
    header: ImageHeader,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if it cannot be read.
    pub(super) fn open(
        kind: Kind,
        file: Vec<u8>,
        settings: &ReaderSettings,
    ) -> Result<Self, DocumentError> {
        match kind {
            Kind::Picture | Kind::Tiff => Picture::open(file, settings).map(Self::Picture),
            Kind::Pdf => Err(DocumentError::PdfUndecodable { what: "cannot be read".to_owned() }),
        }
    }

    /// The number of pages.
    pub(super) fn page_count(&self) -> u32 {
        match self {
            Self::Picture(_) => 1,
        }
    }

    /// What is known of a page before it is drawn.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the page cannot be read.
    pub(super) fn plan(&self, page: u32, _text: bool) -> Result<PagePlan, DocumentError> {
        self.check_page(page)?;
        match self {
            Self::Picture(picture) => Ok(picture.plan()),
        }
    }

    /// Draws a page.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the page cannot be drawn.
    pub(super) fn draw(&self, page: u32, draw: Draw) -> Result<Drawn, DocumentError> {
        self.check_page(page)?;
        match self {
            Self::Picture(picture) => picture.draw(draw),
        }
    }
}

impl Reader {
    fn check_page(&self, asked: u32) -> Result<(), DocumentError> {
        let pages = self.page_count();
        if (1..=pages).contains(&asked) {
            return Ok(());
        }
        Err(DocumentError::PageNotFound { asked, pages })
    }
}

impl Picture {
    fn open(file: Vec<u8>, settings: &ReaderSettings) -> Result<Self, DocumentError> {
        let header = probe::probe(&file)
            .map_err(|error| DocumentError::PictureUndecodable { what: error.to_string() })?;
        let (actual, allowed) = (header.stored.pixels().get(), settings.page_pixels);
        if actual > allowed {
            return Err(DocumentError::PageTooLarge { actual, allowed });
        }
        Ok(Self { file: file.into(), header })
    }

    fn plan(&self) -> PagePlan {
        let ImageHeader { format, stored: size, .. } = self.header;
        let is_upright = self.header.orientation == Orientation::Upright;
        let stored = StoredPicture { format, size, bytes: self.file.len() };
        let stored = is_upright.then_some(stored);
        PagePlan { size: PageSize::Pixels(self.header.upright()), stored, text: None }
    }

    fn draw(&self, draw: Draw) -> Result<Drawn, DocumentError> {
        let ImageHeader { format, stored: size, .. } = self.header;
        match draw {
            Draw::AsStored => Ok(Drawn { bytes: self.file.clone(), format, size }),
            Draw::At(_) => {
                Err(DocumentError::PictureUndecodable { what: "cannot be drawn".to_owned() })
            }
        }
    }
}
