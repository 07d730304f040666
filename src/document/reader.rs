//! Reads one document, in a worker.

use bytes::Bytes;

use super::error::{DocumentError, Resource};
use super::page::{Draw, Drawn, Kind, PagePlan, PageSize, Part, PicturePage, StoredPicture};
use super::pdf::PdfFile;
use super::pdf::fonts::Fonts;
use super::pdf::limits::Limits;
use super::searchable::{self, TextJob};
use super::sendable::encoded;
use super::upright;
use crate::image::Size;
use crate::image::format::{Format, Orientation};
use crate::image::header::ImageHeader;
use crate::image::probe::probe;
use crate::image::region::Region;
use crate::image::resolution;
use crate::legibility::{Legibility, legibility};
use crate::pixels::decode::{decode, decode_memory};
use crate::pixels::error::PixelsError;
use crate::pixels::raster::Raster;
use crate::pixels::resize::shrink_to;
use crate::pixels::tiff::TiffFile;
use crate::quote::limits::LARGEST_FILE;
use crate::units::Pixels;

/// What all documents of a worker are read with.
#[derive(Debug)]
pub(super) struct ReaderSettings {
    /// Pixels that a page, or a picture on it, may have.
    pub(super) page_pixels: Pixels,
    /// Memory that a step may take, in bytes.
    pub(super) memory: u64,
    /// Fonts for text whose font is not in the PDF.
    pub(super) fonts: Fonts,
}

/// A page of a PDF is measured at this many pixels at most. Text that is legible under any cap is found in them.
const MEASURED_PIXELS: Pixels = Pixels::new(2_400_000);

/// The memory that it takes to measure a decoded picture, in bytes: some copies of it in gray, of the pixels above.
const MEASURING_BYTES: u64 = 48 << 20;

/// An open document.
#[derive(Debug)]
pub(super) struct Reader {
    source: Source,
    page_pixels: Pixels,
    memory: u64,
    /// The decoded picture of the page that was measured last, until it is drawn or another page is asked for.
    measured: Option<(u32, Raster)>,
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
                let picture_bytes = most_decoding_bytes(settings.memory);
                let limits = Limits { picture_bytes, ..Limits::of_pixels(settings.page_pixels) };
                Source::Pdf(PdfFile::open(file, &settings.fonts, limits)?)
            }
        };
        let ReaderSettings { page_pixels, memory, .. } = *settings;
        Ok(Self { source, page_pixels, memory, measured: None })
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
    pub(super) fn plan(&mut self, page: u32, text: bool) -> Result<PagePlan, DocumentError> {
        self.measured = None;
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

    /// Measures the text of a page and finds its blank margins, in pixels of the upright page at `size`. The decoded
    /// picture is kept, so that drawing the page next does not decode it again. Of a picture that others may see
    /// otherwise nothing is found out: it has no text of a known height and no margins.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the page cannot be decoded or drawn, or if that may take more memory than there is.
    pub(super) fn measure(&mut self, page: u32, size: Size) -> Result<Legibility, DocumentError> {
        self.check_pixels(size)?;
        let (raster, orientation) = match &self.source {
            Source::Pdf(pdf) => {
                let Some(raster) = pdf.picture(page) else {
                    let small = shrink_to(size, MEASURED_PIXELS);
                    let found = legibility(&pdf.raster(page, small)?);
                    return Ok(upright::shown(found, small, Orientation::Upright, size));
                };
                (raster, Orientation::Upright)
            }
            Source::Tiff { tiff, .. } => {
                let (stored, orientation) = tiff_page(tiff, page)?;
                self.check_pixels(stored)?;
                self.check_memory(tiff.decode_memory(page, Size::new(1, 1))?)?;
                (tiff.decode(page)?, orientation)
            }
            Source::Picture { file, header } => {
                let (stored, orientation) = picture(header, page)?;
                self.check_pixels(stored)?;
                self.check_memory(decode_memory(file, header, Size::new(1, 1)))?;
                (decode(file, header)?, orientation)
            }
        };
        let found = if raster.is_uncertain() {
            // What can be seen depends on who looks at it.
            Legibility { text: None, content: Some(Region::of(raster.size())) }
        } else {
            legibility(&raster)
        };
        let found = upright::shown(found, raster.size(), orientation, size);
        self.measured = Some((page, raster));
        Ok(found)
    }

    /// Draws a page, upright.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the page cannot be drawn.
    pub(super) fn draw(&mut self, page: u32, draw: Draw) -> Result<Drawn, DocumentError> {
        let measured = self.measured.take().filter(|(of, _)| *of == page);
        let measured = measured.map(|(_, raster)| raster);
        let (file, format, (stored, orientation)) = match &self.source {
            Source::Pdf(pdf) => return pdf.draw_measured(page, draw, measured),
            Source::Tiff { file, tiff } => (file, Format::Tiff, tiff_page(tiff, page)?),
            Source::Picture { file, header } => (file, header.format, picture(header, page)?),
        };
        self.check_pixels(stored)?;
        let part = match draw {
            Draw::AsStored => return Ok(Drawn { bytes: file.clone(), format, size: stored }),
            Draw::At(size) => Part::whole(size),
            Draw::Part(part) => part,
        };
        self.check_pixels(part.size)?;
        let raster = measured.map_or_else(|| self.raster(page), Ok)?;
        encoded(&upright::drawn(raster, part, orientation))
    }

    /// Makes sure that the document can become searchable. A PDF that had to be written anew is given back.
    ///
    /// # Errors
    ///
    /// [`DocumentError::NotSearchable`].
    pub(super) fn made_updatable(&self) -> Result<Option<Vec<u8>>, DocumentError> {
        match &self.source {
            Source::Pdf(pdf) => pdf.made_updatable(LARGEST_FILE),
            Source::Tiff { .. } | Source::Picture { .. } => Ok(None),
        }
    }

    /// A page of a TIFF, or a picture, as the object of a PDF of pictures that has `index` others before it. It is
    /// encoded anew only if a PDF cannot have it as it is stored.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if it cannot be decoded.
    pub(super) fn enclose(
        &self,
        page: u32,
        index: u32,
    ) -> Result<(PicturePage, Vec<u8>), DocumentError> {
        let (stored, orientation, resolution) = match &self.source {
            Source::Pdf(_) => return Err(DocumentError::Interrupted),
            Source::Tiff { tiff, .. } => {
                let (stored, orientation) = tiff_page(tiff, page)?;
                (stored, orientation, tiff.resolution(page))
            }
            Source::Picture { file, header } => {
                let (stored, orientation) = picture(header, page)?;
                (stored, orientation, resolution::of(file, header.format))
            }
        };
        self.check_pixels(stored)?;
        let as_stored = match &self.source {
            Source::Picture { header: ImageHeader { format: Format::Heic, .. }, .. } => {
                let what = "a PDF cannot have a HEIC picture".to_owned();
                return Err(DocumentError::NotSearchable { what });
            }
            Source::Picture { file, header } => {
                searchable::picture::enclosed(file, header.format, stored)
            }
            Source::Tiff { .. } | Source::Pdf(_) => None,
        };
        let enclosed = if let Some(enclosed) = as_stored {
            enclosed
        } else {
            let Drawn { bytes, format, size } =
                encoded(&self.raster(page)?.without_empty_colour())?;
            let enclosed = searchable::picture::enclosed(&bytes, format, size);
            enclosed.ok_or(DocumentError::Interrupted)?
        };
        let page = searchable::picture::page_of(stored, orientation, resolution);
        Ok((page, searchable::album::picture(index, &enclosed)))
    }

    /// The rest of the searchable PDF: what is appended to a PDF, or what follows the pictures. `job` is a [`TextJob`].
    ///
    /// # Errors
    ///
    /// [`DocumentError::NotSearchable`] for a PDF that was not prepared.
    pub(super) fn with_text(&self, job: &[u8]) -> Result<Vec<u8>, DocumentError> {
        let job = serde_json::from_slice(job).map_err(|_| DocumentError::Interrupted)?;
        match (&self.source, job) {
            (Source::Pdf(pdf), TextJob { lines, album: None }) => pdf.update(&lines),
            (
                Source::Tiff { .. } | Source::Picture { .. },
                TextJob { lines, album: Some(pages) },
            ) => Ok(searchable::album::rest(&pages, &lines)),
            _ => Err(DocumentError::Interrupted),
        }
    }

    /// A picture as it is stored.
    fn raster(&self, page: u32) -> Result<Raster, DocumentError> {
        match &self.source {
            Source::Picture { file, header } => Ok(decode(file, header)?),
            Source::Tiff { tiff, .. } => Ok(tiff.decode(page)?),
            Source::Pdf(_) => Err(DocumentError::Interrupted),
        }
    }

    /// Refuses to measure a picture that may take more memory than there is. A process that ends for that would be
    /// counted against its document, and pages that are not measured can often be sent.
    const fn check_memory(&self, actual: u64) -> Result<(), DocumentError> {
        let allowed = most_decoding_bytes(self.memory);
        if actual > allowed {
            let (resource, actual) = (Resource::Memory, Some(actual));
            return Err(DocumentError::TooComplex { resource, actual, allowed });
        }
        Ok(())
    }

    fn check_pixels(&self, size: Size) -> Result<(), DocumentError> {
        let (actual, allowed) = (size.pixels().get(), self.page_pixels.get());
        if actual > allowed {
            return Err(DocumentError::PageTooLarge { actual, allowed });
        }
        Ok(())
    }
}

/// The memory that decoding a picture may take before it is measured, in bytes.
const fn most_decoding_bytes(memory: u64) -> u64 {
    memory.saturating_sub(MEASURING_BYTES)
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
    use proptest::prelude::*;

    use super::*;
    use crate::document::page::{PageLines, PlacedLine};
    use crate::document::searchable::album::AlbumPage;
    use crate::document::workers::is_possible;
    use crate::pixels::encode::{Encoding, encode};

    fn settings(page_pixels: u64) -> ReaderSettings {
        ReaderSettings {
            page_pixels: Pixels::new(page_pixels),
            memory: u64::MAX,
            fonts: Fonts::default(),
        }
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
            let mut reader = open(name);
            assert_eq!(reader.page_count(), 1, "{name}");
            let size = Size::new(40, 30);
            let drawn = reader.draw(1, Draw::At(size)).unwrap();
            let header = probe(&drawn.bytes).unwrap();
            assert_eq!((drawn.size, header.stored, header.format), (size, size, drawn.format));
        }
    }

    #[test]
    fn a_picture_that_lies_on_its_side_is_planned_and_drawn_upright() {
        let mut reader = open("sideways.jpg");
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
        let mut reader = Reader::open(Kind::Picture, file, &settings(10)).unwrap();
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

    /// A page with a black square in one corner, stored as this EXIF value says.
    fn marked(exif: u32) -> Reader {
        let size = Size::new(600, 400);
        let black = |at: u32| at % 600 < 90 && at / 600 < 60;
        let levels = (0..600 * 400).map(|at| if black(at) { 0 } else { 255 });
        let raster =
            Raster::new(size, crate::pixels::raster::Samples::Gray, levels.collect()).unwrap();
        let stored = raster.upright(Orientation::from_exif(exif).inverse());
        let file = encode(&stored, Encoding::Png).unwrap();
        let mut header = probe(&file).unwrap();
        header.orientation = Orientation::from_exif(exif);
        let mut reader = Reader::open(Kind::Picture, file, &settings(1_000_000)).unwrap();
        if let Source::Picture { header: own, .. } = &mut reader.source {
            *own = header;
        }
        reader
    }

    #[test]
    fn a_part_of_an_upright_page_is_drawn_whichever_way_it_is_stored() {
        for exif in 1..=8 {
            let (mut reader, page) = (marked(exif), Size::new(600, 400));
            let found = reader.measure(1, page).unwrap();
            let content = found.content.unwrap();
            assert!(content.left == 0 && content.top == 0, "{exif} {content:?}");
            assert!(content.right < 400 && content.bottom < 300, "{exif} {content:?}");
            let region = Region { left: 0, top: 0, right: 180, bottom: 120 };
            let part = Part { page, region, size: Size::new(90, 60) };
            let measured = reader.draw(1, Draw::Part(part)).unwrap();
            let anew = reader.draw(1, Draw::Part(part)).unwrap();
            assert_eq!(measured, anew, "the kept picture is the same");
            let drawn = image::load_from_memory(&measured.bytes).unwrap().to_luma8();
            assert_eq!(drawn.dimensions(), (90, 60));
            let level = |x, y| drawn.get_pixel(x, y).0[0];
            assert!(level(20, 10) < 20 && level(70, 10) > 235 && level(20, 50) > 235, "{exif}");
        }
    }

    #[test]
    fn a_picture_that_may_take_too_much_memory_to_measure_is_not_decoded() {
        let settings = ReaderSettings { memory: MEASURING_BYTES + 1_000, ..settings(1_000_000) };
        let mut reader = Reader::open(Kind::Picture, fixture("hello.png"), &settings).unwrap();
        let PageSize::Pixels(size) = reader.plan(1, false).unwrap().size else { panic!() };
        let refused = reader.measure(1, size).unwrap_err();
        let DocumentError::TooComplex { resource, allowed, .. } = refused else { panic!() };
        assert_eq!((resource, allowed), (Resource::Memory, 1_000));
        assert!(reader.draw(1, Draw::At(size)).is_ok(), "it can be drawn");
    }

    /// A PDF of these pictures, and of these lines over them.
    fn album(pictures: Vec<(PicturePage, Vec<u8>)>, lines: &[PageLines]) -> PdfFile {
        let numbered = (1..).zip(&pictures);
        let pages = numbered.map(|(number, (page, object))| AlbumPage {
            number,
            picture: Some((*page, object.len() as u64)),
        });
        let rest = searchable::album::rest(&pages.collect::<Vec<_>>(), lines);
        let mut file = searchable::album::HEADER.to_vec();
        file.extend(pictures.into_iter().flat_map(|(_, object)| object));
        file.extend(rest);
        let limits = Limits::of_pixels(Pixels::new(1_000_000));
        let pdf = PdfFile::open(file.into(), &Fonts::default(), limits).unwrap();
        assert_eq!(pdf.made_updatable(0), Ok(None), "its index is sound");
        pdf
    }

    /// The mean difference of the samples of two pictures.
    fn difference(one: &Drawn, other: &Drawn) -> u64 {
        let [one, other] =
            [one, other].map(|drawn| image::load_from_memory(&drawn.bytes).unwrap().to_rgb8());
        assert_eq!(one.dimensions(), other.dimensions());
        let pairs = one.as_raw().iter().zip(other.as_raw());
        let sum: u64 = pairs.map(|(one, other)| u64::from(one.abs_diff(*other))).sum();
        sum / one.as_raw().len() as u64
    }

    #[test]
    fn a_pdf_of_pictures_shows_each_as_the_picture_itself() {
        let names =
            ["hello.jpg", "hello.png", "hello.webp", "hello.bmp", "hello.tif", "sideways.jpg"];
        let mut readers = names.map(open);
        let pictures = (0..).zip(&readers).map(|(index, reader)| reader.enclose(1, index).unwrap());
        let pdf = album(pictures.collect(), &[]);
        for ((number, name), reader) in (1..).zip(names).zip(&mut readers) {
            let PageSize::Pixels(size) = reader.plan(1, false).unwrap().size else { panic!() };
            let shown = [pdf.draw(number, Draw::At(size)), reader.draw(1, Draw::At(size))];
            let [shown, original] = shown.map(Result::unwrap);
            assert!(difference(&shown, &original) < 8, "{name}");
            let PageSize::Points { width, .. } = pdf.plan(number, false).unwrap().size else {
                panic!()
            };
            assert!(width > 10.0 && width < 2_000.0, "{name} {width}");
        }
    }

    #[test]
    fn a_picture_is_turned_as_its_orientation_says() {
        let size = Size::new(60, 40);
        let samples = (0..60 * 40).map(|at: u32| u8::try_from((at % 60 + at / 60) * 2).unwrap());
        let raster =
            Raster::new(size, crate::pixels::raster::Samples::Gray, samples.collect()).unwrap();
        let file = encode(&raster, Encoding::Png).unwrap();
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif);
            let enclosed = searchable::picture::enclosed(&file, Format::Png, size).unwrap();
            let page = searchable::picture::page_of(size, orientation, Some([100.0, 200.0]));
            let pdf = album(vec![(page, searchable::album::picture(0, &enclosed))], &[]);
            let upright = raster.clone().upright(orientation);
            let shown = pdf.draw(1, Draw::At(upright.size())).unwrap();
            let bytes = encode(&upright, Encoding::Png).unwrap().into();
            let expected = Drawn { bytes, format: Format::Png, size: upright.size() };
            assert!(difference(&shown, &expected) < 4, "{exif}");
            let [width, height] =
                if orientation.swaps_sides() { [14.4, 43.2] } else { [43.2, 14.4] };
            let found = pdf.plan(1, false).unwrap().size;
            let PageSize::Points { width: w, height: h } = found else { panic!("{found:?}") };
            assert!((w - width).abs() < 0.01 && (h - height).abs() < 0.01, "{exif} {found:?}");
        }
    }

    #[test]
    fn a_jpeg_and_a_png_are_taken_in_byte_for_byte_and_transparency_is_not() {
        let jpeg = fixture("hello.jpg");
        let (_, object) = open("hello.jpg").enclose(1, 0).unwrap();
        assert!(memchr::memmem::find(&object, &jpeg).is_some());
        let file = |color: image::ExtendedColorType, samples: usize| {
            let mut file = std::io::Cursor::new(Vec::new());
            let pixels = vec![100; 16 * 16 * samples];
            let encoder = image::codecs::png::PngEncoder::new(&mut file);
            image::ImageEncoder::write_image(encoder, &pixels, 16, 16, color).unwrap();
            file.into_inner()
        };
        let size = Size::new(16, 16);
        for (color, samples, taken) in [
            (image::ExtendedColorType::Rgb8, 3, true),
            (image::ExtendedColorType::L8, 1, true),
            (image::ExtendedColorType::Rgba8, 4, false),
        ] {
            let file = file(color, samples);
            let enclosed = searchable::picture::enclosed(&file, Format::Png, size);
            assert_eq!(enclosed.is_some(), taken, "{color:?}");
            let reader = Reader::open(Kind::Picture, file, &settings(1_000_000)).unwrap();
            assert!(reader.enclose(1, 0).is_ok());
        }
    }

    #[test]
    fn a_page_whose_picture_is_missing_keeps_its_place() {
        let page = |number| AlbumPage { number, picture: None };
        let lines =
            vec![PlacedLine { text: "text".to_owned(), polygon: [[1, 1], [9, 1], [9, 5], [1, 5]] }];
        let lines = PageLines { page: 7, size: Size::new(10, 10), lines };
        let rest = searchable::album::rest(&[page(3), page(7)], &[lines]);
        let file = [searchable::album::HEADER, &rest].concat();
        let limits = Limits::of_pixels(Pixels::new(1_000_000));
        let pdf = PdfFile::open(file.into(), &Fonts::default(), limits).unwrap();
        assert_eq!((pdf.page_count(), pdf.made_updatable(0)), (2, Ok(None)));
    }

    /// A small picture with a few black squares, in each kind that is read.
    fn small(kind: Kind) -> Reader {
        let size = Size::new(61, 47);
        let is_black = |at: u32| at % 61 % 11 < 5 && at / 61 % 13 < 6 && at / 61 > 20;
        let levels = (0..61 * 47).map(|at| if is_black(at) { 0 } else { 255 }).collect::<Vec<_>>();
        let file = if kind == Kind::Tiff {
            let mut file = std::io::Cursor::new(Vec::new());
            let mut encoder = tiff::encoder::TiffEncoder::new(&mut file).unwrap();
            for _ in 0..2 {
                let gray = encoder.new_image::<tiff::encoder::colortype::Gray8>(61, 47);
                gray.unwrap().write_data(&levels).unwrap();
            }
            file.into_inner()
        } else {
            let raster = Raster::new(size, crate::pixels::raster::Samples::Gray, levels).unwrap();
            encode(&raster, Encoding::Png).unwrap()
        };
        Reader::open(kind, file, &settings(40_000)).unwrap()
    }

    fn any_size() -> impl Strategy<Value = Size> {
        let side = || prop_oneof![1_u32..4, 1_u32..300, 1..=u32::MAX];
        (side(), side()).prop_map(|(width, height)| Size::new(width, height))
    }

    fn any_part() -> impl Strategy<Value = Part> {
        let region = prop::array::uniform4(prop_oneof![0_u32..300, any::<u32>()]);
        (any_size(), region, any_size()).prop_map(|(page, [left, top, right, bottom], size)| Part {
            page,
            region: Region { left, top, right, bottom },
            size,
        })
    }

    proptest! {
        #[test]
        fn whatever_is_asked_of_a_page_is_refused_or_answered_as_the_service_believes(
            kind in prop::sample::select(vec![Kind::Picture, Kind::Tiff]),
            page in prop_oneof![0_u32..4, any::<u32>()],
            (size, part) in (any_size(), any_part()),
            is_measured: bool,
        ) {
            let mut reader = small(kind);
            if is_measured && let Ok(found) = reader.measure(page, size) {
                prop_assert!(is_possible(&found, size), "{found:?}");
            }
            if let Ok(drawn) = reader.draw(page, Draw::Part(part)) {
                let header = probe(&drawn.bytes).unwrap();
                prop_assert_eq!((drawn.size, header.stored), (part.size, part.size));
                prop_assert_eq!(header.orientation, Orientation::Upright);
            }
        }
    }
}
