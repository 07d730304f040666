//! Takes a request in: finds the model, sees what the file is, and lists its pages.
//!
//! A picture that DashScope takes as it is goes the direct way: it is sent byte for byte, and no worker sees it. If its
//! pixels are chosen, a worker measures it, and draws it only if fewer pixels are sent. Everything else is a document,
//! whose pages are drawn by workers: a PDF, a TIFF of several pages, and a picture that is made smaller.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::error::OcrError;
use super::facts::DocumentFacts;
use super::request::{Downscale, OcrOptions, OcrRequest, Rotate};
use crate::admission;
use crate::auth::tenant::UnknownBill;
use crate::calibration::heights::HeightFactors;
use crate::capacity::account::HeldBytes;
use crate::catalog::{Catalog, Model};
use crate::document::page::Kind;
use crate::document::workers::draft::Draft;
use crate::document::workers::{Document, Workers};
use crate::image::as_stored::Patch;
use crate::image::format::{Format, Orientation};
use crate::image::header::ImageHeader;
use crate::image::probe::{self, ProbeError};
use crate::metering::access;
use crate::metering::error::{ImageError, MeteringError};
use crate::quote::auto::LegibleHeights;
use crate::quote::limits::{self, LimitViolation};
use crate::quote::{self, Quote, QuoteError};
use crate::units::Pixels;

/// Longest file that is read on the reactor, in bytes. A JPEG is read to its end, so a longer one takes too long.
const INLINE_BYTES: usize = 1024 * 1024;

/// The media type of a PDF (RFC 8118).
const PDF_TYPE: &str = "application/pdf";

/// Takes requests in.
#[derive(Debug, Clone)]
pub struct Intake {
    catalog: Arc<Catalog>,
    workers: Arc<Workers>,
    limits: PageLimits,
    heights: LegibleHeights,
    factors: Option<Arc<HeightFactors>>,
    /// Whether attempts are repeated.
    repeats: bool,
}

/// Limits of the pages of one request.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// Pages that one request may read.
    pub pages: u32,
    /// Pages that are worked on at once.
    pub at_once: usize,
    /// Pixels at which a page may be drawn.
    pub pixels: Pixels,
}

/// A request that was taken in.
pub(super) struct Job {
    /// The model that reads the pages.
    pub(super) model: Arc<Model>,
    /// The facts about the file in the answer.
    pub(super) document: DocumentFacts,
    /// The pages to read.
    pub(super) pages: Pages,
    /// The searchable PDF, if one is asked for.
    pub(super) draft: Option<Draft>,
}

/// The pages of a request.
pub(super) enum Pages {
    /// The only page, sent as it came.
    Picture(Box<Picture>),
    /// Pages of a document, by their numbers from 1.
    Of(Arc<Document>, Vec<u32>),
}

/// Where one page is.
pub(super) enum Origin {
    /// It is a picture that is sent as it came.
    Picture(Box<Picture>),
    /// In a document.
    In(Arc<Document>),
}

/// A picture that is sent as it came.
#[derive(Clone)]
pub(super) struct Picture {
    /// The file.
    file: Bytes,
    /// Keeps the bytes of the file counted.
    memory: Option<Arc<HeldBytes>>,
    /// The header of the file.
    pub(super) header: ImageHeader,
    /// Its quote.
    pub(super) quote: Quote,
    /// The bytes to overwrite before the file is sent.
    patch: Option<Patch>,
    /// The picture as a document, if its pixels are chosen.
    pub(super) document: Option<Arc<Document>>,
}

/// What a file is.
enum Seen {
    Pdf,
    Picture(ImageHeader),
}

impl Intake {
    /// An intake over these parts. Text stays legible at `heights` where pixels are chosen.
    pub const fn new(
        catalog: Arc<Catalog>,
        workers: Arc<Workers>,
        limits: PageLimits,
        heights: LegibleHeights,
    ) -> Self {
        Self { catalog, workers, limits, heights, factors: None, repeats: false }
    }

    /// The same intake, whose heights are raised by the factors of tenants.
    #[must_use]
    pub fn raised_by(self, factors: Arc<HeightFactors>) -> Self {
        Self { factors: Some(factors), ..self }
    }

    /// The same intake for calls of at most so many attempts.
    #[must_use]
    pub fn of_attempts(self, most: u32) -> Self {
        Self { repeats: most > 1, ..self }
    }

    /// Whether an attempt of a call for this request is repeated if its bill is unknown.
    pub(super) fn repeats_unknown_bills(&self, request: &OcrRequest) -> bool {
        self.repeats && request.context.tenant.unknown_bill == UnknownBill::Repeat
    }

    /// The heights at which the text of a request stays legible; none if the pixels of its pages are not chosen.
    pub(super) fn legible(&self, request: &OcrRequest) -> Option<LegibleHeights> {
        let tenant = request.context.tenant.name.as_str();
        let factor = self.factors.as_ref().map(|factors| factors.factor(tenant));
        let thousandths = factor.unwrap_or_default().thousandths();
        request.chooses_pixels().then(|| self.heights.times(f32::from(thousandths) / 1000.0))
    }

    /// The same heights without the factor of the tenant.
    pub(super) const fn legible_without_factor(&self) -> LegibleHeights {
        self.heights
    }

    /// The limits of the pages of one request.
    pub(super) const fn limits(&self) -> PageLimits {
        self.limits
    }

    /// Takes the request in. Afterwards only the job holds the file and the memory that counts for it.
    ///
    /// # Errors
    ///
    /// [`OcrError`] for each reason to refuse the request before one of its pages is read.
    pub(super) async fn open(
        &self,
        request: &mut OcrRequest,
        deadline: Instant,
    ) -> Result<Job, OcrError> {
        let model = self.model_of(request)?;
        if request.task_for(request.reading()).is_some() && !model.figures.builtin_tasks {
            return Err(OcrError::NoTasks { model: model.name.clone() });
        }
        let file = std::mem::take(&mut request.image);
        let upload = Upload { file, memory: request.context.held.memory.take() };
        let seen = upload.look().await?;
        let arrival = Arrival { intake: self, model, request, upload, deadline };
        match seen {
            Seen::Pdf => arrival.document(Kind::Pdf, PDF_TYPE).await,
            Seen::Picture(header) if header.pages > 1 => {
                arrival.document(Kind::Tiff, header.format.media_type()).await
            }
            Seen::Picture(header) => arrival.picture(header).await,
        }
    }

    /// The model that answers the request.
    ///
    /// # Errors
    ///
    /// As [`access::model_for`].
    pub(super) fn model_of(&self, request: &OcrRequest) -> Result<Arc<Model>, MeteringError> {
        let tenant = &request.context.tenant;
        access::model_for(&self.catalog, tenant, request.options.model.as_deref())
    }

    fn selected(&self, request: &OcrRequest, total: u32) -> Result<Vec<u32>, OcrError> {
        let range = request.options.pages.clone().unwrap_or_default();
        Ok(range.resolve(total, self.limits.pages)?)
    }
}

/// A request whose file was seen.
struct Arrival<'a> {
    intake: &'a Intake,
    model: Arc<Model>,
    request: &'a OcrRequest,
    upload: Upload,
    deadline: Instant,
}

impl Arrival<'_> {
    /// Lists the pages of a document.
    async fn document(self, kind: Kind, media_type: &'static str) -> Result<Job, OcrError> {
        let Self { intake, model, request, upload, deadline } = self;
        let bytes = upload.file.len();
        let document = intake.workers.open(kind, upload.file, upload.memory);
        let total = match kind {
            Kind::Picture => 1,
            Kind::Pdf | Kind::Tiff => document.page_count(latest(deadline)).await?,
        };
        let pages = intake.selected(request, total)?;
        let (document, draft) = if request.options.searchable {
            let draft = Draft::begin(document, &pages, latest(deadline)).await?;
            (Arc::clone(draft.document()), Some(draft))
        } else {
            (document, None)
        };
        let facts = DocumentFacts { media_type: media_type.into(), bytes, pages: total };
        Ok(Job { model, document: facts, pages: Pages::Of(document, pages), draft })
    }

    /// The direct way for a picture that is sent as it is, else a document of one page.
    async fn picture(mut self, mut header: ImageHeader) -> Result<Job, OcrError> {
        let options = &self.request.options;
        let violation = limits::check(&header, self.upload.file.len()).err();
        if let Some(violation) = violation.filter(|found| !may_shrink(found, &header, options)) {
            return Err(ImageError::from(violation).into());
        }
        let mut patch = None;
        if options.rotate == Rotate::Off {
            patch = Patch::of(&self.upload.file, &header)?;
            header.orientation = Orientation::Upright;
        }
        let chooses = self.request.chooses_pixels() && is_decoded(header.format);
        let quote = self.quote(&header, chooses).map_err(ImageError::from)?;
        let is_over = quote.image.size.pixels() > quote.image.geometry.max_pixels;
        let shrinks = options.downscale == Downscale::Always && is_over;
        if violation.is_some() || shrinks && is_decoded(header.format) {
            self.upload = self.upload.patched(patch).await?;
            return self.document(kind_of(header.format), header.format.media_type()).await;
        }
        self.intake.selected(self.request, 1)?;
        if chooses || options.searchable {
            // Before the file is shared, so that it is overwritten in place.
            self.upload = self.upload.patched(patch.take()).await?;
        }
        self.picture_as_it_came(header, quote, patch, chooses).await
    }

    /// A picture that is sent as it came. It is also a document, if its pixels are chosen or a searchable PDF is asked
    /// for.
    async fn picture_as_it_came(
        self,
        header: ImageHeader,
        quote: Quote,
        patch: Option<Patch>,
        chooses: bool,
    ) -> Result<Job, OcrError> {
        let Self { intake, model, request, upload: Upload { file, memory }, deadline } = self;
        let kind = kind_of(header.format);
        let open = || intake.workers.open(kind, file.clone(), memory.clone());
        let document = (chooses || request.options.searchable).then(open);
        let draft = match document.clone().filter(|_| request.options.searchable) {
            Some(document) => Some(Draft::begin(document, &[1], latest(deadline)).await?),
            None => None,
        };
        let media_type = header.format.media_type().into();
        let facts = DocumentFacts { media_type, bytes: file.len(), pages: 1 };
        let document = document.filter(|_| chooses);
        let picture = Picture { file, memory, header, quote, patch, document };
        Ok(Job { model, document: facts, pages: Pages::Picture(Box::new(picture)), draft })
    }

    /// Quotes a picture. If its pixels are chosen, it may be above the cap of a tenant that rejects: it is refused
    /// later, unless fewer are chosen.
    fn quote(&self, header: &ImageHeader, chooses: bool) -> Result<Quote, QuoteError> {
        let terms = self.request.terms(&self.model);
        match quote::quote(&terms, header.upright()) {
            Err(QuoteError::OverCap { .. }) if chooses => {
                quote::quote(&terms.clamping(), header.upright())
            }
            quote => quote,
        }
    }
}

impl Pages {
    /// The number of pages.
    pub(super) const fn count(&self) -> usize {
        match self {
            Self::Picture(_) => 1,
            Self::Of(_, numbers) => numbers.len(),
        }
    }

    /// Their numbers.
    pub(super) fn numbers(&self) -> Vec<u32> {
        match self {
            Self::Picture(_) => vec![1],
            Self::Of(_, numbers) => numbers.clone(),
        }
    }

    /// The pages by their numbers. The last one of a document owns it, so that its file is dropped once that page is
    /// drawn.
    pub(super) fn each(self) -> Vec<(u32, Origin)> {
        match self {
            Self::Picture(picture) => vec![(1, Origin::Picture(picture))],
            Self::Of(document, numbers) => {
                let documents = std::iter::repeat_n(document, numbers.len()).map(Origin::In);
                numbers.into_iter().zip(documents).collect()
            }
        }
    }
}

impl Origin {
    /// The same page, to be read at the cap.
    pub(super) fn again(&self) -> Self {
        match self {
            // At the cap, no worker measures a picture.
            Self::Picture(picture) => {
                Self::Picture(Box::new(Picture { document: None, ..Picture::clone(picture) }))
            }
            Self::In(document) => Self::In(Arc::clone(document)),
        }
    }
}

impl Picture {
    /// The file as it is sent, with the memory that counts for it.
    pub(super) async fn file(self) -> Result<(Bytes, Option<Arc<HeldBytes>>), OcrError> {
        let Self { file, memory, patch, .. } = self;
        let Upload { file, memory } = Upload { file, memory }.patched(patch).await?;
        Ok((file, memory))
    }
}

/// The latest time at which a page can be ready, if a call is to be made for it.
pub(super) fn latest(deadline: Instant) -> Instant {
    deadline.checked_sub(admission::LEAST_TIME_FOR_AN_ATTEMPT).unwrap_or(deadline)
}

/// Whether a picture with this violation is made smaller instead of refused.
fn may_shrink(violation: &LimitViolation, header: &ImageHeader, options: &OcrOptions) -> bool {
    let is_wanted = options.downscale != Downscale::Never;
    is_wanted && violation.is_of_size() && is_decoded(header.format)
}

/// The kind of document as which a worker reads a picture of this format.
const fn kind_of(format: Format) -> Kind {
    if matches!(format, Format::Tiff) { Kind::Tiff } else { Kind::Picture }
}

/// Whether pictures of the format are decoded here (docs/adr/0022-documents.md says why HEIC is not).
const fn is_decoded(format: Format) -> bool {
    !matches!(format, Format::Heic)
}

/// An uploaded file.
struct Upload {
    file: Bytes,
    /// Keeps the bytes of the file counted.
    memory: Option<Arc<HeldBytes>>,
}

impl Upload {
    /// Sees what the file is.
    async fn look(&self) -> Result<Seen, OcrError> {
        match header_of(&self.file, self.memory.as_ref()).await? {
            Ok(header) => Ok(Seen::Picture(header)),
            Err(ProbeError::Unsupported { seen: probe::PDF }) => Ok(Seen::Pdf),
            Err(error) => Err(ImageError::from(error).into()),
        }
    }

    /// Overwrites some bytes of the file, in place unless the file is shared.
    async fn patched(self, patch: Option<Patch>) -> Result<Self, OcrError> {
        let Some(patch) = patch else { return Ok(self) };
        // A checksum over several megabytes takes milliseconds.
        let patching = tokio::task::spawn_blocking(move || {
            let Self { file, memory } = self;
            let mut file = file.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            patch.apply(&mut file);
            Self { file: file.freeze(), memory }
        });
        Ok(patching.await.map_err(|_panicked| MeteringError::Interrupted)?)
    }
}

/// The header of a picture. A large file is read on the blocking pool.
///
/// # Errors
///
/// [`MeteringError::Interrupted`] if the reader panicked.
pub(super) async fn header_of(
    file: &Bytes,
    memory: Option<&Arc<HeldBytes>>,
) -> Result<Result<ImageHeader, ProbeError>, MeteringError> {
    if file.len() <= INLINE_BYTES {
        return Ok(probe::probe(file));
    }
    let (file, memory) = (file.clone(), memory.cloned());
    let looking = tokio::task::spawn_blocking(move || {
        let header = probe::probe(&file);
        // The memory counts until the file is dropped.
        drop((file, memory));
        header
    });
    looking.await.map_err(|_panicked| MeteringError::Interrupted)
}
