//! Reads one document, in a worker.

use bytes::Bytes;

use super::error::DocumentError;
use super::page::{Draw, Drawn, Kind, PagePlan, PageSize, StoredPicture};
use super::pdf::PdfFile;
use super::pdf::fonts::Fonts;
use super::pdf::limits::Limits;
use super::sendable::encoded;
use crate::image::Size;
use crate::image::format::{Format, Orientation};
use crate::image::header::ImageHeader;
use crate::image::probe::probe;
use crate::pixels::decode::decode;
use crate::pixels::error::PixelsError;
use crate::pixels::tiff::TiffFile;
use crate::units::Pixels;

/// What all documents of a worker are read with.
#[derive(Debug)]
pub(super) struct ReaderSettings {
    /// Pixels that a page, or a picture on it, may have.
    pub(super) page_pixels: Pixels,
    /// Fonts for text whose font is not in the PDF.
    pub(super) fonts: Fonts,
}

/// An open document.
#[derive(Debug)]
pub(super) struct Reader {
    source: Source,
    page_pixels: Pixels,
}

#[derive(Debug)]
enum Source {
    Pdf(PdfFile),
    Tiff { file: Bytes, tiff: TiffFile },
    Picture { file: Bytes, header: ImageHeader },
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
        let file = Bytes::from(file);
        let source = match kind {
            Kind::Tiff => Source::Tiff { tiff: TiffFile::open(file.clone())?, file },
            Kind::Picture => {
                let header = probe(&file)
                    .map_err(|error| DocumentError::undecodable(kind, error.to_string()))?;
                Source::Picture { file, header }
            }
            Kind::Pdf => {
                let limits = Limits::of_pixels(settings.page_pixels);
                Source::Pdf(PdfFile::open(file, &settings.fonts, limits)?)
            }
        };
        Ok(Self { source, page_pixels: settings.page_pixels })
    }

    /// The number of pages.
    pub(super) fn page_count(&self) -> u32 {
        match &self.source {
            Source::Pdf(pdf) => pdf.page_count(),
            Source::Tiff { tiff, .. } => tiff.pages(),
            Source::Picture { .. } => 1,
        }
    }

    /// Finds out what is known of a page before it is drawn; with its text, if `text`.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the page cannot be read.
    pub(super) fn plan(&self, page: u32, text: bool) -> Result<PagePlan, DocumentError> {
        let (file, format, (size, orientation)) = match &self.source {
            Source::Pdf(pdf) => return pdf.plan(page, text),
            Source::Tiff { file, tiff } => (file, Format::Tiff, tiff_page(tiff, page)?),
            Source::Picture { file, header } => (file, header.format, picture(header, page)?),
        };
        self.check_pixels(size)?;
        let upright = if orientation.swaps_sides() { size.turned() } else { size };
        let is_upright = orientation == Orientation::Upright && self.page_count() == 1;
        let stored = StoredPicture { format, size, bytes: file.len() };
        let stored = is_upright.then_some(stored);
        Ok(PagePlan { size: PageSize::Pixels(upright), stored, text: None })
    }

    /// Draws a page, upright.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the page cannot be drawn.
    pub(super) fn draw(&self, page: u32, draw: Draw) -> Result<Drawn, DocumentError> {
        let (file, format, (stored, orientation)) = match &self.source {
            Source::Pdf(pdf) => return pdf.draw(page, draw),
            Source::Tiff { file, tiff } => (file, Format::Tiff, tiff_page(tiff, page)?),
            Source::Picture { file, header } => (file, header.format, picture(header, page)?),
        };
        self.check_pixels(stored)?;
        let Draw::At(size) = draw else {
            return Ok(Drawn { bytes: file.clone(), format, size: stored });
        };
        self.check_pixels(size)?;
        let raster = match &self.source {
            Source::Picture { header, .. } => decode(file, header)?,
            Source::Tiff { tiff, .. } => tiff.decode(page)?,
            Source::Pdf(_) => return Err(DocumentError::Interrupted),
        };
        // It is turned when it is small.
        let size = if orientation.swaps_sides() { size.turned() } else { size };
        encoded(&raster.resized(size).upright(orientation).without_empty_colour())
    }

    fn check_pixels(&self, size: Size) -> Result<(), DocumentError> {
        let (actual, allowed) = (size.pixels().get(), self.page_pixels.get());
        if actual > allowed {
            return Err(DocumentError::PageTooLarge { actual, allowed });
        }
        Ok(())
    }
}

/// The size of a page of a TIFF as it is stored, and how a viewer turns it.
fn tiff_page(tiff: &TiffFile, page: u32) -> Result<(Size, Orientation), DocumentError> {
    let page = tiff.page(page)?;
    Ok((page.stored, page.orientation))
}

/// The same of a picture, which has one page.
const fn picture(header: &ImageHeader, page: u32) -> Result<(Size, Orientation), DocumentError> {
    if page != 1 {
        return Err(DocumentError::PageNotFound { asked: page, pages: 1 });
    }
    Ok((header.stored, header.orientation))
}

impl From<PixelsError> for DocumentError {
    fn from(error: PixelsError) -> Self {
        match error {
            PixelsError::PageMissing { page: asked, pages } => Self::PageNotFound { asked, pages },
            _ => Self::PictureUndecodable { what: error.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(page_pixels: u64) -> ReaderSettings {
        ReaderSettings { page_pixels: Pixels::new(page_pixels), fonts: Fonts::default() }
    }

    fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn open(name: &str) -> Reader {
        let kind = if name == "hello.tif" { Kind::Tiff } else { Kind::Picture };
        Reader::open(kind, fixture(name), &settings(1_000_000)).unwrap()
    }

    #[test]
    fn a_picture_of_each_format_is_drawn_at_another_size() {
        for name in ["hello.jpg", "hello.png", "hello.webp", "hello.bmp", "hello.tif"] {
            let reader = open(name);
            assert_eq!(reader.page_count(), 1, "{name}");
            let size = Size::new(40, 30);
            let drawn = reader.draw(1, Draw::At(size)).unwrap();
            let header = probe(&drawn.bytes).unwrap();
            assert_eq!((drawn.size, header.stored, header.format), (size, size, drawn.format));
        }
    }

    #[test]
    fn a_picture_that_lies_on_its_side_is_planned_and_drawn_upright() {
        let reader = open("sideways.jpg");
        let header = probe(&fixture("sideways.jpg")).unwrap();
        let plan = reader.plan(1, false).unwrap();
        assert_eq!(plan.size, PageSize::Pixels(header.upright()));
        assert_eq!(plan.stored, None, "its file is not upright");
        let size = header.upright();
        let drawn = reader.draw(1, Draw::At(size)).unwrap();
        let drawn = probe(&drawn.bytes).unwrap();
        assert_eq!((drawn.stored, drawn.orientation), (size, Orientation::Upright));
    }

    #[test]
    fn a_picture_with_more_pixels_than_allowed_is_refused_with_both_numbers() {
        let file = fixture("hello.png");
        let reader = Reader::open(Kind::Picture, file, &settings(10)).unwrap();
        let actual = probe(&fixture("hello.png")).unwrap().stored.pixels().get();
        let too_large = DocumentError::PageTooLarge { actual, allowed: 10 };
        assert_eq!(reader.plan(1, false), Err(too_large.clone()));
        assert_eq!(reader.draw(1, Draw::AsStored), Err(too_large));
    }

    #[test]
    fn a_page_that_there_is_not_is_refused_with_both_numbers() {
        for name in ["hello.png", "hello.tif"] {
            let missing = DocumentError::PageNotFound { asked: 2, pages: 1 };
            assert_eq!(open(name).plan(2, false), Err(missing), "{name}");
        }
    }
}
