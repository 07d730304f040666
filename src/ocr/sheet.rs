//! Makes a page ready to be sent: plans it, quotes it, and has it drawn.
//!
//! A page is quoted before it is drawn, at the size at which it will be drawn. What comes back is probed like an
//! upload: a picture of another size than was quoted is not sent.

mod chosen_pixels;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::error::OcrError;
use super::facts::{PageFacts, Source};
use super::intake::{self, Intake, Picture};
use super::request::{Downscale, OcrRequest, Reading, Rotate};
use crate::capacity::account::HeldBytes;
use crate::catalog::Model;
use crate::dashscope::{AnswerRoom, Call, Image};
use crate::document::error::{DocumentError, Resource};
use crate::document::page::{Draw, Drawn, PagePlan, PageSize, StoredPicture, TextLayer};
use crate::document::workers::{Document, PAGE_BYTES, Sheet};
use crate::image::Size;
use crate::image::format::{Format, Orientation};
use crate::image::header::ImageHeader;
use crate::metering::error::{ImageError, MeteringError};
use crate::quote::auto::LegibleHeights;
use crate::quote::drawn::{Paper, quote_page, quote_shrunk};
use crate::quote::limits;
use crate::quote::{self, CallTerms, Quote, QuoteError};
use crate::units::Pixels;

/// The format by whose limits a size is checked before a page is drawn: PNG and JPEG have the same.
const DRAWN_AS: Format = Format::Png;

/// How often a page is drawn whose file is too long to be sent, each time with half the pixels.
const ATTEMPTS_TO_DRAW: u32 = 4;

/// A page that can be sent.
pub(super) struct ReadyPage {
    pub(super) facts: PageFacts,
    media_type: &'static str,
    file: Bytes,
    /// The memory that counts for the file.
    memory: Option<Arc<HeldBytes>>,
    /// The memory of the call and of the result of a page of a document.
    pub(super) page_memory: Option<Arc<HeldBytes>>,
    /// Its own text, in place of a call for it.
    pub(super) text: Option<PageLayer>,
}

/// The call that reads one page, with the memory that counts for its file.
pub(super) struct PageCall {
    /// The number of the page.
    pub(super) page: u32,
    pub(super) call: Call,
    /// Room for the answer, if it was taken before.
    pub(super) room: Option<Arc<AnswerRoom>>,
    _memory: Option<Arc<HeldBytes>>,
}

/// A page whose worker waits for what is to be done with it.
pub(super) struct PlannedPage {
    pub(super) facts: PageFacts,
    /// Its own text, in place of a call for it.
    pub(super) text: Option<PageLayer>,
    sheet: Sheet,
    draw: Draw,
}

/// A picture that was planned.
pub(super) enum PlannedPicture {
    /// It is sent as it came.
    AsItCame(Box<PageFacts>),
    /// It is sent with fewer pixels, or not at all.
    Drawn(Box<PlannedPage>),
}

/// The text of a page.
pub(super) struct PageLayer {
    pub(super) layer: TextLayer,
    /// Width and height of the page, in points.
    pub(super) points: [f32; 2],
}

/// How a page may be drawn, after it was drawn in vain.
#[derive(Debug, Clone, Copy)]
struct Means {
    /// Whether a picture that the page consists of may be taken as it is stored.
    as_stored: bool,
    /// The most pixels.
    most: Pixels,
    /// How often it may be drawn with fewer pixels, because its file is too long.
    retries: u32,
}

impl Means {
    /// What is tried after a page of this size took too many bytes; none after the last attempt.
    fn halved(self, size: Size) -> Option<Self> {
        let retries = self.retries.checked_sub(1)?;
        Some(Self { as_stored: false, most: Pixels::new(size.pixels().get() / 2), retries })
    }
}

/// Makes the pages of one request ready.
#[derive(Clone, Copy)]
pub(super) struct Preparation<'a> {
    pub(super) intake: &'a Intake,
    pub(super) request: &'a OcrRequest,
    /// The model that reads them.
    pub(super) model: &'a Arc<Model>,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    /// The heights at which text stays legible, if pixels are chosen. Without them, a page has the pixels that its cap
    /// allows.
    pub(super) legible: Option<LegibleHeights>,
}

impl Preparation<'_> {
    /// Plans and quotes a page of a document, without drawing it.
    ///
    /// # Errors
    ///
    /// [`OcrError`] if the page cannot be read or sent.
    pub(super) async fn plan(
        &self,
        document: &Arc<Document>,
        number: u32,
    ) -> Result<PlannedPage, OcrError> {
        self.plan_by(document, number, self.any_means()).await
    }

    /// Draws a planned page.
    ///
    /// # Errors
    ///
    /// [`OcrError`] if the page cannot be drawn or sent.
    pub(super) async fn draw(
        &self,
        document: Arc<Document>,
        mut planned: PlannedPage,
    ) -> Result<ReadyPage, OcrError> {
        let mut means = self.any_means();
        loop {
            let PlannedPage { facts, text, mut sheet, draw } = planned;
            let page_memory = Some(Arc::new(sheet.keep(PAGE_BYTES)));
            match sheet.draw(draw).await {
                Ok((drawn, memory)) => {
                    let memory = Some(Arc::new(memory));
                    if let Some(media_type) = checked(&drawn, memory.as_ref(), &facts).await? {
                        let file = drawn.bytes;
                        return Ok(ReadyPage {
                            facts,
                            media_type,
                            file,
                            memory,
                            page_memory,
                            text,
                        });
                    }
                    if draw != Draw::AsStored {
                        return Err(MeteringError::Interrupted.into());
                    }
                    means.as_stored = false;
                }
                Err(error) => {
                    let may_shrink = is_too_long(&error) && !self.is_kept_whole(&facts);
                    let halved = may_shrink.then(|| means.halved(facts.quote.image.size));
                    means = halved.flatten().ok_or(error)?;
                }
            }
            // A page that waits for a worker must hold nothing that other pages wait for.
            drop(page_memory);
            planned = self.plan_by(&document, facts.number, means).await?;
        }
    }

    /// Decides whether a picture is sent as it came, and quotes it. It is if no pixels are chosen.
    ///
    /// # Errors
    ///
    /// [`OcrError`] if it is above the cap of a tenant that rejects, or if no worker was free to measure it in time.
    pub(super) async fn plan_picture(&self, picture: &Picture) -> Result<PlannedPicture, OcrError> {
        let mut facts = self.facts_of(picture);
        let (Some(document), Some(legible)) = (&picture.document, self.legible) else {
            if self.request.chooses_pixels() {
                self.check_cap(picture)?;
            }
            return Ok(PlannedPicture::AsItCame(Box::new(facts)));
        };
        let mut sheet = document.sheet(1, intake::latest(self.deadline)).await?;
        match self.choose(&mut facts, &mut sheet, legible).await? {
            None => self.check_cap(picture)?,
            Some(choice) => {
                if let Some(draw) = self.apply(&mut facts, choice) {
                    let planned = PlannedPage { facts, text: None, sheet, draw };
                    return Ok(PlannedPicture::Drawn(Box::new(planned)));
                }
            }
        }
        Ok(PlannedPicture::AsItCame(Box::new(facts)))
    }

    /// Refuses a picture whose pixels were not chosen if it is above the cap of a tenant that rejects.
    fn check_cap(&self, picture: &Picture) -> Result<(), OcrError> {
        quote::quote(&self.terms(), picture.header.upright()).map_err(ImageError::from)?;
        Ok(())
    }

    /// Makes a picture ready that is sent as it came.
    ///
    /// # Errors
    ///
    /// [`OcrError`] if its orientation could not be overwritten.
    pub(super) async fn ready_picture(
        &self,
        picture: Picture,
        facts: PageFacts,
    ) -> Result<ReadyPage, OcrError> {
        let media_type = picture.header.format.media_type();
        let (file, memory) = picture.file().await?;
        Ok(ReadyPage { facts, media_type, file, memory, page_memory: None, text: None })
    }

    /// What is known of a picture that is sent as it came.
    fn facts_of(&self, picture: &Picture) -> PageFacts {
        let quote = picture.quote.clone();
        PageFacts {
            is_turned: picture.header.orientation != Orientation::default(),
            ..self.quoted(1, Source::Image, quote.image.size, quote)
        }
    }

    /// What is known of a page that is sent with this quote, if nobody asked for its resolution.
    fn quoted(&self, number: u32, source: Source, shown: Size, quote: Quote) -> PageFacts {
        PageFacts {
            is_size_asked: self.is_size_asked(None),
            beside: self.beside(&quote),
            ..PageFacts::of(number, source, shown, quote)
        }
    }

    /// The terms of the first call for a page.
    fn terms(&self) -> CallTerms<'_> {
        self.request.terms(self.model)
    }

    /// The quote of the call that reads the text beside the fields, if the request asks for both.
    fn beside(&self, quote: &Quote) -> Option<Quote> {
        let prompt = || self.request.prompt_bytes_for(Reading::Text);
        self.request.reads_text_beside().then(|| quote.with_prompt(prompt()))
    }

    /// Whether a page must not have fewer pixels than it has in the document.
    fn is_kept_whole(&self, facts: &PageFacts) -> bool {
        self.request.options.downscale == Downscale::Never && facts.source == Source::Image
    }

    const fn any_means(&self) -> Means {
        let most = self.intake.limits().pixels;
        Means { as_stored: true, most, retries: ATTEMPTS_TO_DRAW - 1 }
    }

    async fn plan_by(
        &self,
        document: &Arc<Document>,
        number: u32,
        means: Means,
    ) -> Result<PlannedPage, OcrError> {
        let mut sheet = document.sheet(number, intake::latest(self.deadline)).await?;
        let plan = sheet.plan(self.request.prefers_page_text()).await?;
        let is_read = plan.text.is_none() || self.request.reading() == Reading::Fields;
        let (mut facts, draw) = match self.legible.filter(|_| is_read) {
            Some(legible) => {
                self.facts_by_choice(number, &plan, means, &mut sheet, legible).await?
            }
            None => self.facts(number, &plan, means, &self.terms()).map_err(ImageError::from)?,
        };
        let text = match plan.size {
            PageSize::Points { width, height } => plan
                .text
                .filter(|_| facts.source != Source::Blank)
                .map(|layer| PageLayer { layer, points: [width, height] }),
            PageSize::Pixels(_) => None,
        };
        if text.is_some() {
            facts.source = Source::TextLayer;
            facts.beside = None;
            facts.is_read = is_read;
        }
        if facts.is_read {
            check_drawn(&facts, draw)?;
        }
        Ok(PlannedPage { facts, text, sheet, draw })
    }

    /// Decides how the page is drawn with the fewest pixels, and quotes it.
    async fn facts_by_choice(
        &self,
        number: u32,
        plan: &PagePlan,
        means: Means,
        sheet: &mut Sheet,
        legible: LegibleHeights,
    ) -> Result<(PageFacts, Draw), OcrError> {
        let terms = self.terms();
        let by = |terms| self.facts(number, plan, means, &terms).map_err(ImageError::from);
        let (quoted, refusal) = match by(terms) {
            // It is refused unless fewer pixels are chosen.
            Err(refusal @ ImageError::Quote(QuoteError::OverCap { .. })) => {
                (by(terms.clamping())?, Some(refusal))
            }
            quoted => (quoted?, None),
        };
        let (mut facts, draw) = quoted;
        // A page that could not be sent for its size is refused even if it is blank. That it is above the cap of a tenant
        // that rejects is no reason: nothing is sent of a blank page.
        check_drawn(&facts, draw)?;
        match (self.choose(&mut facts, sheet, legible).await?, refusal) {
            (Some(choice), _) => {
                let draw = self.apply(&mut facts, choice).unwrap_or(draw);
                Ok((facts, draw))
            }
            (None, Some(refusal)) => Err(refusal.into()),
            (None, None) => Ok((facts, draw)),
        }
    }

    /// Decides how the page is drawn, and quotes it.
    fn facts(
        &self,
        number: u32,
        plan: &PagePlan,
        means: Means,
        terms: &CallTerms<'_>,
    ) -> Result<(PageFacts, Draw), QuoteError> {
        match plan.size {
            PageSize::Points { width, height } => {
                let paper = Paper { width, height, dpi: self.request.options.dpi };
                self.facts_of_paper(number, plan.stored, paper, means, terms)
            }
            // A picture has pixels of its own, so a resolution has no effect on it.
            PageSize::Pixels(size) => {
                let is_whole = self.request.options.downscale == Downscale::Never;
                let quote = if is_whole && means.as_stored {
                    quote::quote(terms, size)?
                } else {
                    quote_shrunk(terms, size, means.most)?
                };
                let draw = Draw::At(quote.image.size);
                Ok((self.quoted(number, Source::Image, size, quote), draw))
            }
        }
    }

    /// Decides how a page of a PDF is drawn, and quotes it. `stored` is the only thing on it, if that is a picture.
    fn facts_of_paper(
        &self,
        number: u32,
        stored: Option<StoredPicture>,
        paper: Paper,
        means: Means,
        terms: &CallTerms<'_>,
    ) -> Result<(PageFacts, Draw), QuoteError> {
        let as_stored = stored.and_then(|stored| self.as_stored(stored, paper, means, terms));
        let (source, quote, draw) = if let Some(quote) = as_stored {
            (Source::Image, quote, Draw::AsStored)
        } else {
            let quote = quote_page(terms, paper, means.most)?;
            let draw = Draw::At(quote.image.size);
            (Source::Rendered, quote, draw)
        };
        let shown = quote.image.size;
        let facts = PageFacts {
            dpi: Some(quote::drawn::dpi(shown.width, paper.width)),
            is_size_asked: self.is_size_asked(paper.dpi),
            ..self.quoted(number, source, shown, quote)
        };
        Ok((facts, draw))
    }

    /// The quote of the picture that a page of a PDF consists of, if it is sent as it is stored.
    fn as_stored(
        &self,
        StoredPicture { format, size, bytes }: StoredPicture,
        paper: Paper,
        means: Means,
        terms: &CallTerms<'_>,
    ) -> Option<Quote> {
        if !means.as_stored {
            return None;
        }
        let header = ImageHeader::new(format, size, Orientation::Upright);
        limits::check(&header, bytes).ok()?;
        // A page is not drawn at a finer resolution than that of its picture, which has no more detail.
        let is_finer = |dpi| {
            size.pixels() > Paper { dpi: Some(dpi), ..paper }.size_within(means.most).pixels()
        };
        if paper.dpi.is_some_and(is_finer) {
            return None;
        }
        // For a tenant that rejects pictures over its cap, the page is drawn to fit.
        let quote = quote::quote(terms, size).ok()?;
        let is_over = size.pixels() > quote.image.geometry.max_pixels;
        let shrinks = self.request.options.downscale == Downscale::Always && is_over;
        (!shrinks).then_some(quote)
    }

    const fn is_size_asked(&self, dpi: Option<u32>) -> bool {
        let wish = self.request.options.wish;
        wish.max_pixels.is_some() || wish.min_pixels.is_some() || dpi.is_some()
    }
}

impl PlannedPage {
    /// Splits off memory for the result of a page that is not drawn.
    pub(super) fn keep(&mut self, bytes: u64) -> HeldBytes {
        self.sheet.keep(bytes)
    }
}

impl ReadyPage {
    /// The last call for the page, which then alone holds the file. A stream drops it when it begins.
    pub(super) fn into_call(self, request: &OcrRequest, reading: Reading) -> (PageFacts, PageCall) {
        let call = self.call(request, reading);
        (self.facts, call)
    }

    /// A call for the page.
    pub(super) fn call(&self, request: &OcrRequest, reading: Reading) -> PageCall {
        let geometry = &self.facts.quote.image.geometry;
        let call = Call {
            image: Image {
                media_type: self.media_type,
                bytes: self.file.clone(),
                min_pixels: geometry.min_pixels,
                max_pixels: geometry.max_pixels,
                rotate: request.options.rotate == Rotate::Auto,
            },
            prompt: request.prompt_for(reading).map(str::to_owned),
            task: request.task_for(reading),
        };
        PageCall { page: self.facts.number, call, room: None, _memory: self.memory.clone() }
    }
}

impl PlannedPicture {
    /// The facts about it.
    pub(super) fn into_facts(self) -> PageFacts {
        match self {
            Self::AsItCame(facts) => *facts,
            Self::Drawn(planned) => planned.facts,
        }
    }
}

/// Checks the size at which a page is drawn by the upstream's limits.
fn check_drawn(facts: &PageFacts, draw: Draw) -> Result<(), ImageError> {
    if draw == Draw::AsStored {
        // It is checked as an upload is.
        return Ok(());
    }
    let header = ImageHeader::new(DRAWN_AS, facts.quote.image.size, Orientation::Upright);
    Ok(limits::check(&header, 0)?)
}

/// Whether a page takes too many bytes as a file. With fewer pixels it takes less.
const fn is_too_long(error: &DocumentError) -> bool {
    matches!(error, DocumentError::TooComplex { resource: Resource::EncodedBytes, .. })
}

/// Probes a drawn page as an upload is probed. Returns its media type if it is the picture that was quoted.
async fn checked(
    drawn: &Drawn,
    memory: Option<&Arc<HeldBytes>>,
    facts: &PageFacts,
) -> Result<Option<&'static str>, OcrError> {
    let quoted = facts.quote.image.size;
    match intake::header_of(&drawn.bytes, memory).await? {
        Ok(header) if header.stored == quoted && header.orientation == Orientation::Upright => {
            limits::check(&header, drawn.bytes.len()).map_err(ImageError::from)?;
            Ok(Some(header.format.media_type()))
        }
        other => {
            let seen = other.map(|header| header.stored);
            tracing::warn!(page = facts.number, %quoted, ?seen, "a page was not drawn as quoted");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_takes_too_many_bytes_is_drawn_four_times_with_half_the_pixels_each_time() {
        let mut means = Means { as_stored: true, most: Pixels::new(1000), retries: 3 };
        let mut drawn = vec![means.most.get()];
        while let Some(halved) =
            means.halved(Size { width: 1, height: u32::try_from(means.most.get()).unwrap() })
        {
            assert!(!halved.as_stored);
            drawn.push(halved.most.get());
            means = halved;
        }
        assert_eq!(drawn, [1000, 500, 250, 125]);
        assert_eq!(drawn.len(), usize::try_from(ATTEMPTS_TO_DRAW).unwrap());
    }
}
