//! PDF files: their pages are measured, drawn and read by hayro. No type of hayro leaves this module.
//!
//! The code is pure and synchronous. It runs in a worker process, whose memory and time are bounded from outside.
//! Here, what a page takes is bounded before it is drawn, so that most hostile pages get an error that names the limit
//! instead of the end of the worker.

mod anew;
mod audit;
mod copied;
mod drawing;
pub mod fonts;
mod index;
pub mod limits;
mod marks;
mod page_box;
mod page_tree;
mod reading_order;
mod stored;
mod streams;
mod survey;
mod text_layer;
mod update;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use hayro::hayro_interpret::InterpreterSettings;
use hayro::hayro_syntax::page::Page;
use hayro::hayro_syntax::{DecryptionError, LoadPdfError, Pdf};
use memchr::memmem;

use self::fonts::Fonts;
use self::index::Fault;
use self::limits::Limits;
use self::page_box::PageBox;
use self::survey::Survey;
use super::error::DocumentError;
use super::page::{Draw, Drawn, Kind, PageLines, PagePlan, PageSize, Part, StoredPicture};
use super::sendable::encoded;
use super::upright;
use crate::image::Size;
use crate::image::format::Orientation;
use crate::image::header::ImageHeader;
use crate::pixels::decode::{decode, decode_memory};
use crate::pixels::raster::Raster;

/// An open PDF file.
pub struct PdfFile {
    pdf: Pdf,
    /// The pages in their order, where hayro does not have each of them.
    order: Option<Vec<usize>>,
    limits: Limits,
    settings: InterpreterSettings,
}

impl std::fmt::Debug for PdfFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PdfFile").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl PdfFile {
    /// Opens a file, with the empty password if it is encrypted. A damaged index of objects is built anew.
    ///
    /// # Errors
    ///
    /// [`DocumentError::PasswordRequired`], [`DocumentError::PdfUndecodable`], or [`DocumentError::Empty`].
    pub fn open(bytes: Bytes, fonts: &Fonts, limits: Limits) -> Result<Self, DocumentError> {
        let (pdf, order) = contained(|| {
            let file = bytes.clone();
            let pdf = Pdf::new(Arc::new(bytes)).map_err(|error| unreadable(error, &file))?;
            let order = page_tree::order(&pdf);
            Ok((pdf, order))
        })?;
        if pdf.pages().is_empty() {
            return Err(DocumentError::Empty);
        }
        let settings = InterpreterSettings {
            font_resolver: fonts.resolver(),
            ..InterpreterSettings::default()
        };
        Ok(Self { pdf, order, limits, settings })
    }

    /// The number of pages.
    pub fn page_count(&self) -> u32 {
        let pages = self.order.as_ref().map_or(self.pdf.pages().len(), Vec::len);
        u32::try_from(pages).unwrap_or(u32::MAX)
    }

    /// Reads what is known of a page before it is drawn. Pages are numbered from 1.
    ///
    /// # Errors
    ///
    /// [`DocumentError::PageNotFound`], [`DocumentError::PdfUndecodable`] for a page without an area,
    /// [`DocumentError::PageTooLarge`] for a picture with too many pixels, [`DocumentError::TooComplex`].
    pub fn plan(&self, page: u32, want_text: bool) -> Result<PagePlan, DocumentError> {
        let page = self.page(page)?;
        contained(|| {
            let sheet = PageBox::of(page)?;
            let audit = audit::audit(page, self.limits)?;
            let mut plan = PagePlan { size: points(&sheet), stored: None, text: None };
            if audit.has_jpeg || want_text {
                let survey = Survey::of(page, &sheet, &self.settings);
                if want_text {
                    plan.text = text_layer::text_layer(survey.marks(), sheet.area(), sheet.unit);
                }
                plan.stored = survey.stored_picture().map(|(picture, _)| picture);
            }
            Ok(plan)
        })
    }

    /// Draws a page. [`Draw::AsStored`] is for a page whose plan has a stored picture.
    ///
    /// # Errors
    ///
    /// The errors of [`Self::plan`], and [`DocumentError::TooComplex`] if it takes too many bytes as a file.
    pub fn draw(&self, page: u32, draw: Draw) -> Result<Drawn, DocumentError> {
        self.draw_measured(page, draw, None)
    }

    /// Draws a page, from `measured` if the [picture](Self::picture) that the page consists of is decoded already.
    pub(super) fn draw_measured(
        &self,
        page: u32,
        draw: Draw,
        measured: Option<Raster>,
    ) -> Result<Drawn, DocumentError> {
        let part = match draw {
            Draw::AsStored => return self.stored(page),
            Draw::At(size) => Part::whole(size),
            Draw::Part(part) => part,
        };
        // A smaller page is made from the picture, which takes a fraction of the time and memory of drawing.
        let picture = measured.or_else(|| self.picture(page));
        match picture.filter(|picture| upright::is_smaller(part, picture)) {
            Some(picture) => encoded(&upright::drawn(picture, part, Orientation::Upright)),
            None => encoded(&self.part(page, part)?),
        }
    }

    /// Draws a page so that it fills `size`, on white.
    ///
    /// # Errors
    ///
    /// The errors of [`Self::plan`].
    pub(super) fn raster(&self, page: u32, size: Size) -> Result<Raster, DocumentError> {
        self.part(page, Part::whole(size))
    }

    /// Draws a part of a page, on white.
    fn part(&self, page: u32, part: Part) -> Result<Raster, DocumentError> {
        let page = self.page(page)?;
        contained(|| {
            let sheet = PageBox::of(page)?;
            audit::audit(page, self.limits)?;
            let (actual, allowed) = (part.size.pixels().get(), self.limits.pixels.get());
            if actual > allowed {
                return Err(DocumentError::PageTooLarge { actual, allowed });
            }
            drawing::draw(page, &sheet, part, &self.settings)
        })
    }

    /// The file of the picture that a page consists of.
    fn stored(&self, page: u32) -> Result<Drawn, DocumentError> {
        let stored = self.stored_picture(page)?.map(|(picture, file)| Drawn {
            bytes: file.into(),
            format: picture.format,
            size: picture.size,
        });
        stored.ok_or_else(|| undecodable("has no stored picture on the page"))
    }

    /// The decoded picture that a page consists of. `None` if there is none, if a strict decoder refuses it, or if
    /// decoding it may take too much memory: the page is then drawn as any other.
    pub(super) fn picture(&self, page: u32) -> Option<Raster> {
        let (picture, file) = self.stored_picture(page).ok()??;
        let header = ImageHeader::new(picture.format, picture.size, Orientation::Upright);
        let is_within = picture.size.pixels() <= self.limits.pixels
            && decode_memory(&file, &header, Size::new(1, 1)) <= self.limits.picture_bytes;
        is_within.then(|| contained(|| Ok(decode(&file, &header)?)).ok()).flatten()
    }

    /// The picture that a page is nothing but, and its file.
    fn stored_picture(&self, page: u32) -> Result<Option<(StoredPicture, Vec<u8>)>, DocumentError> {
        let page = self.page(page)?;
        contained(|| {
            let sheet = PageBox::of(page)?;
            let audit = audit::audit(page, self.limits)?;
            if !audit.has_jpeg {
                return Ok(None);
            }
            Ok(Survey::of(page, &sheet, &self.settings).stored_picture())
        })
    }

    /// Makes sure that an update can be appended to the file. A file whose index is damaged is written anew, in at most
    /// `most` bytes, and given back.
    ///
    /// # Errors
    ///
    /// [`DocumentError::NotSearchable`] for an encrypted file, and for one that cannot be written anew.
    pub fn made_updatable(&self, most: u64) -> Result<Option<Vec<u8>>, DocumentError> {
        contained(|| match update::check(&self.pdf, self.pdf.pages().iter()) {
            Ok(()) => Ok(None),
            Err(Fault::Damaged) => {
                let anew = anew::written_anew(&self.pdf, most).filter(|file| self.is_same(file));
                anew.map(Some).ok_or_else(|| update::not_updatable(Fault::Damaged))
            }
            Err(fault) => Err(update::not_updatable(fault)),
        })
    }

    /// Whether a file that was written anew has the same pages and can be updated.
    fn is_same(&self, file: &[u8]) -> bool {
        let Ok(pdf) = Pdf::new(file.to_vec()) else { return false };
        let pages = page_tree::order(&pdf).map_or(pdf.pages().len(), |order| order.len());
        let boxes = |pdf: &Pdf| -> Vec<[f64; 4]> {
            let boxes = pdf.pages().iter().map(Page::intersected_crop_box);
            boxes.map(|it| [it.x0, it.y0, it.x1, it.y1]).collect()
        };
        u32::try_from(pages).is_ok_and(|pages| pages == self.page_count())
            && boxes(&pdf) == boxes(&self.pdf)
            && update::check(&pdf, pdf.pages().iter()).is_ok()
    }

    /// The update that lays `lines` over their pages, to be appended to the file. It is empty if there are no lines.
    ///
    /// # Errors
    ///
    /// [`DocumentError::NotSearchable`] for a file that [`made_updatable`](Self::made_updatable) refuses or changes,
    /// and the errors of [`Self::plan`].
    pub fn update(&self, lines: &[PageLines]) -> Result<Vec<u8>, DocumentError> {
        contained(|| update::update(&self.pdf, lines, |page| self.page(page)))
    }

    fn page(&self, page: u32) -> Result<&Page<'_>, DocumentError> {
        let missing = DocumentError::PageNotFound { asked: page, pages: self.page_count() };
        let index = page.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        let index = match &self.order {
            Some(order) => index.and_then(|index| order.get(index).copied()),
            None => index,
        };
        index.and_then(|index| self.pdf.pages().get(index)).ok_or(missing)
    }
}

fn undecodable(what: &str) -> DocumentError {
    DocumentError::undecodable(Kind::Pdf, what)
}

fn unreadable(error: LoadPdfError, file: &[u8]) -> DocumentError {
    match error {
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) => {
            DocumentError::PasswordRequired
        }
        // hayro also says this of files whose objects it cannot decrypt.
        LoadPdfError::Invalid if memmem::find(file, b"/Encrypt").is_some() => {
            DocumentError::PasswordRequired
        }
        LoadPdfError::Decryption(_) => undecodable("is encrypted in a way that cannot be read"),
        LoadPdfError::Invalid => undecodable("is damaged: no pages can be found in it"),
    }
}

/// The size of the page, in points.
#[expect(clippy::cast_possible_truncation, reason = "24 bits are enough for the size of a page")]
fn points(sheet: &PageBox) -> PageSize {
    let points = |side: f64| (side * sheet.unit) as f32;
    PageSize::Points { width: points(sheet.width), height: points(sheet.height) }
}

/// Runs hayro, and turns its panics into an error of the document.
///
/// Panics are bugs of hayro that only some files meet. The page or file is refused, and the worker stays: the caches of
/// a page are made anew for each call, and what is kept of the file is never left half written.
fn contained<T>(read: impl FnOnce() -> Result<T, DocumentError>) -> Result<T, DocumentError> {
    let broken = |_| undecodable("has a page that cannot be drawn");
    catch_unwind(AssertUnwindSafe(read)).map_err(broken).flatten()
}
