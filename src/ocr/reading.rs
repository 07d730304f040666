//! Reads pages: each by metered calls, and those of a document side by side.
//!
//! A document has up to hundreds of pages. A few of them are worked on at once, in the order of their numbers: while
//! one is read by the model, the next is drawn. Each call is admitted by itself, so a budget holds in the middle of a
//! document. A page that fails does not stop the others. If the caller leaves, the pages that were not sent yet are
//! not sent.
//!
//! The text of a page is read by one call. Its fields are read by one or two, because the first answer may not be
//! parseable. A text that is asked for beside the fields is read after them, from the same drawn picture, unless it is
//! taken from the page itself. If it cannot be read, the page has its fields alone, or fails if the text is what
//! matters.

mod barrier;
mod calls;
mod second_reading;

use std::sync::Arc;

use futures_util::{StreamExt, future, stream};
use tokio::sync::{Semaphore, mpsc};

use self::barrier::Barrier;
use super::audit::Auditor;
use super::doubt::Doubt;
use super::error::OcrError;
use super::facts::{PageFacts, Source};
use super::fields;
use super::intake::{self, Origin, Pages, Picture};
use super::progress::{Others, PagesRead, out_of_time};
use super::request::{Detail, OcrRequest, Reading};
use super::result::{ImageTokens, Page, PageEvent, PageOutcome};
use super::sheet::{PageCall, PageLayer, PlannedPage, PlannedPicture, Preparation, ReadyPage};
use crate::admission::{self, Refusal};
use crate::capacity::account::HeldBytes;
use crate::capacity::scratch::Scratch;
use crate::clock::Clock;
use crate::dashscope::Client;
use crate::dashscope::completion::{Completion, Receipt};
use crate::dashscope::error::{CallError, CallFault};
use crate::document::error::DocumentError;
use crate::document::workers::{Document, PAGE_BYTES};
use crate::extract::answer::AnswerError;
use crate::extract::page_answer::PageAnswer;
use crate::metering::context::{PageHold, PagePlace, RequestContext};
use crate::metering::error::MeteringError;
use crate::metering::forecast::Forecast;
use crate::metering::read_on::Listener;
use crate::metering::run::{Metering, StreamLog};
use crate::quote::Quote;
use crate::telemetry::metrics::Saving;
use crate::units::Tokens;

/// The label of pages that failed.
const FAILED: &str = "failed";

/// Bytes of a page's first result that are part of [`PAGE_BYTES`] while a second call is made.
const FIRST_RESULT_BYTES: u64 = PAGE_BYTES / 4;

/// Reads pages by metered calls.
#[derive(Debug, Clone)]
pub(super) struct PageReader {
    pub(super) metering: Metering,
    pub(super) client: Arc<Client>,
    pub(super) scratch: Arc<Scratch>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) auditor: Arc<Auditor>,
}

/// A caller that follows the pages while they are read.
#[derive(Clone)]
pub(super) struct Follower {
    listener: Listener<PageEvent>,
    /// Written when the last call has ended.
    log: Arc<StreamLog>,
}

/// What became of one page.
pub(super) struct PageRead {
    pub(super) outcome: PageOutcome,
    /// The receipts of its calls.
    pub(super) receipts: Vec<Receipt>,
    /// The memory of a page that was read.
    pub(super) memory: Option<Arc<HeldBytes>>,
    /// Where it comes from, if it may be read again at the cap.
    pub(super) again: Option<Origin>,
}

/// A page that was read.
struct ReadPage {
    page: Page,
    /// The memory of the page of a document.
    memory: Option<Arc<HeldBytes>>,
}

/// One call for a page, with its quote.
struct QuotedCall<'a> {
    quote: &'a Quote,
    call: PageCall,
    /// Whether the page is read again.
    is_second: bool,
    /// Gets the model's text while the model writes it.
    follower: Option<Follower>,
}

/// Reads the pages of one request.
struct Pass<'a> {
    reader: &'a PageReader,
    preparation: Preparation<'a>,
    follower: Option<Follower>,
    /// Whether there are other pages.
    is_one_of_several: bool,
    /// Whether its pages were read before.
    is_second: bool,
    /// Other callers who may wait for the same pages.
    others: Option<Others>,
    /// The place of the request under the tenant's concurrency limit. One page at a time has it.
    place: Arc<Semaphore>,
    /// A refusal that further pages would meet too.
    barrier: Arc<Barrier>,
}

impl PagesRead {
    fn add(&mut self, page: PageRead) {
        let PageRead { outcome, receipts, memory, again } = page;
        self.memory.extend(memory);
        self.again.extend(again.map(|origin| (outcome.number(), origin)));
        for receipt in &receipts {
            self.tally.add(receipt);
        }
        self.pages.push(outcome);
    }
}

impl QuotedCall<'_> {
    /// What it costs, and what it saves. What a first reading has saved is not saved again by a second one.
    fn forecast(&self) -> Forecast {
        let forecast = Forecast::from(self.quote);
        if self.is_second { forecast.without_savings() } else { forecast }
    }
}

impl Follower {
    /// A caller that receives from the other end of `sender`.
    pub(super) fn new(sender: mpsc::Sender<PageEvent>, context: &RequestContext) -> Self {
        Self { listener: Listener::new(sender), log: Arc::new(StreamLog::of(context)) }
    }
}

impl PageReader {
    /// Reads all pages. A follower that does not listen holds up none of them.
    pub(super) async fn read_all(
        &self,
        preparation: Preparation<'_>,
        pages: Pages,
        follower: Option<Follower>,
        others: Option<Others>,
    ) -> PagesRead {
        // There is room for every page, so that reading never waits for the follower.
        let (news, untold) = mpsc::channel(pages.count().max(1));
        let (news, telling) = match follower.as_ref().map(|follower| follower.listener.clone()) {
            Some(listener) => (Some(news), future::Either::Left(tell_all(untold, listener))),
            None => (None, future::Either::Right(future::ready(()))),
        };
        let pass = Pass::over(self, preparation, follower, pages.count() > 1);
        let pass = Pass { others, ..pass };
        let (read, ()) = future::join(pass.read_all(pages, news), telling).await;
        read
    }

    /// Reads pages of one request again at the cap, because of `doubt` about the fields of their document.
    pub(super) async fn read_again(
        &self,
        preparation: Preparation<'_>,
        pages: Vec<(u32, Origin)>,
        doubt: Doubt,
    ) -> Vec<PageRead> {
        Pass::over(self, preparation, None, pages.len() > 1).read_all_again(pages, doubt).await
    }
}

/// Sends each page to the listener. If no page is read, the request is answered by an error, so failed pages are held
/// back until another page is done.
async fn tell_all(mut untold: mpsc::Receiver<PageOutcome>, mut listener: Listener<PageEvent>) {
    let mut held_back = Vec::new();
    let mut is_one_done = false;
    while let Some(outcome) = untold.recv().await {
        is_one_done |= outcome.done().is_some();
        held_back.push(outcome);
        if is_one_done {
            for outcome in held_back.drain(..) {
                listener.tell(PageEvent::Done(Box::new(outcome))).await;
            }
        }
    }
}

impl<'a> Pass<'a> {
    /// A pass over the pages of one request.
    fn over(
        reader: &'a PageReader,
        preparation: Preparation<'a>,
        follower: Option<Follower>,
        is_one_of_several: bool,
    ) -> Self {
        let (place, barrier) = (Arc::new(Semaphore::new(1)), Arc::default());
        let is_second = false;
        Self {
            reader,
            preparation,
            follower,
            is_one_of_several,
            is_second,
            others: None,
            place,
            barrier,
        }
    }
}

impl Pass<'_> {
    /// Reads all pages. `news` gets each page when it is done.
    async fn read_all(&self, pages: Pages, news: Option<mpsc::Sender<PageOutcome>>) -> PagesRead {
        let Preparation { intake, request, .. } = self.preparation;
        let reading = stream::iter(pages.each())
            .map(|(number, origin)| self.page(number, origin))
            .buffer_unordered(intake.limits().at_once);
        let mut reading = std::pin::pin!(reading);
        let others = self.others.as_ref();
        let progress = others.map(|others| Arc::clone(&others.progress)).unwrap_or_default();
        while let Some(page) = reading.next().await {
            let outcome = page.outcome.clone();
            progress.change(|read| read.add(page));
            let source = outcome.done().map_or(FAILED, |page| page.source.as_str());
            self.reader.metering.answered_page(&request.context, source);
            if let Some(news) = &news {
                // The channel has room for every page.
                let _ = news.try_send(outcome.clone());
            }
            if outcome.done().is_none() && request.options.is_all_or_nothing {
                // A call that was sent continues on its own task, so its bill is not lost.
                break;
            }
        }
        let mut read = progress.take();
        read.pages.sort_by_key(PageOutcome::number);
        read
    }

    /// Notes how a page is answered if the caller's time ends before a further call for it, while others wait longer.
    fn partly(&self, page: impl FnOnce() -> Option<Page>) {
        if let Some(others) = &self.others
            && let Some(page) = page()
        {
            others.progress.partly(page);
        }
    }

    /// Reads one page.
    async fn read_page(&self, number: u32, origin: Origin) -> PageRead {
        let mut receipts = Vec::new();
        let read = match origin {
            Origin::Picture(picture) => self.read_picture(*picture, &mut receipts).await,
            Origin::In(document) => self.read_sheet(number, document, &mut receipts).await,
        };
        let (outcome, memory) = match read {
            Ok(ReadPage { page, memory }) => (PageOutcome::Done(page), memory),
            Err(error) => (PageOutcome::failed(number, self.in_time(error)), None),
        };
        PageRead { outcome, receipts, memory, again: None }
    }

    /// Reads a picture.
    async fn read_picture(
        &self,
        mut picture: Picture,
        receipts: &mut Vec<Receipt>,
    ) -> Result<ReadPage, OcrError> {
        let facts = match self.preparation.plan_picture(&picture).await? {
            PlannedPicture::AsItCame(facts) => *facts,
            PlannedPicture::Drawn(planned) => {
                let Some(document) = picture.document.take() else {
                    return Err(MeteringError::Interrupted.into());
                };
                drop(picture);
                return self.read_planned(document, *planned, receipts).await;
            }
        };
        // The worker that measured the picture is given back.
        picture.document = None;
        let ready = self.preparation.ready_picture(picture, facts).await?;
        self.send(ready, None, receipts).await
    }

    /// Reads one page of a document.
    async fn read_sheet(
        &self,
        number: u32,
        document: Arc<Document>,
        receipts: &mut Vec<Receipt>,
    ) -> Result<ReadPage, OcrError> {
        self.check_is_awaited()?;
        let planned = self.preparation.plan(&document, number).await?;
        self.read_planned(document, planned, receipts).await
    }

    /// Reads a planned page.
    async fn read_planned(
        &self,
        document: Arc<Document>,
        mut planned: PlannedPage,
        receipts: &mut Vec<Receipt>,
    ) -> Result<ReadPage, OcrError> {
        if planned.facts.source == Source::Blank {
            let page = self.blank_page(&planned.facts);
            let memory = Some(Arc::new(planned.keep(page.bytes())));
            return Ok(ReadPage { page, memory });
        }
        if let Some(layer) = planned.text.take_if(|_| !planned.facts.is_read) {
            let page = self.page_of_layer(&planned.facts, &layer);
            let memory = Some(Arc::new(planned.keep(page.bytes())));
            return Ok(ReadPage { page, memory });
        }
        self.barrier.check(planned.facts.quote.bound.total())?;
        let ready = self.preparation.draw(document, planned).await?;
        let held = match ready.page_memory.clone() {
            Some(memory) => Some(PageHold { memory, place: self.take_place().await? }),
            None => None,
        };
        self.check_is_awaited()?;
        self.send(ready, held, receipts).await
    }

    /// The page as its own text has it.
    fn page_of_layer(&self, facts: &PageFacts, PageLayer { layer, points }: &PageLayer) -> Page {
        let request = self.preparation.request;
        if !self.is_second {
            let spared = facts.quote.image.tokens;
            self.reader.metering.spared(&request.context, Saving::TextLayer, spared);
        }
        Page::of_layer(facts, layer, *points, request.options.detail)
    }

    /// A page that is blank.
    fn blank_page(&self, facts: &PageFacts) -> Page {
        let request = self.preparation.request;
        let spared_calls = if request.reads_text_beside() { 2 } else { 1 };
        let spared = Tokens::new(spared_calls * facts.quote.image.tokens.get());
        self.reader.metering.spared(&request.context, Saving::Blank, spared);
        Page::blank(facts, request.options.detail)
    }

    /// Waits for a place under the tenant's concurrency limit, if there are other pages.
    async fn take_place(&self) -> Result<Option<Arc<PagePlace>>, OcrError> {
        let Preparation { request, deadline, .. } = self.preparation;
        let RequestContext { tenant, held, .. } = &request.context;
        let places = held.places.as_ref().filter(|_| self.is_one_of_several);
        let Some(places) = places else { return Ok(None) };
        let quotas = admission::quotas(tenant);
        let waiting = async {
            tokio::select! {
                biased;
                // The semaphore is never closed.
                Ok(own) = Arc::clone(&self.place).acquire_owned() => PagePlace::OfRequest(own),
                further = places.concurrency.another(&quotas) => PagePlace::Further(further),
            }
        };
        let place = tokio::time::timeout_at(intake::latest(deadline).into(), waiting).await;
        place.map(|place| Some(Arc::new(place))).map_err(|_| self.late())
    }

    /// Sends a page, and makes its result of what the model writes.
    async fn send(
        &self,
        ready: ReadyPage,
        held: Option<PageHold>,
        receipts: &mut Vec<Receipt>,
    ) -> Result<ReadPage, OcrError> {
        let Preparation { request, deadline, .. } = self.preparation;
        let memory = held.as_ref().map(|held| Arc::clone(&held.memory));
        let context = request.context.of_page(ready.facts.number, deadline, held);
        let page = match request.reading() {
            Reading::Text => self.read_text(&context, ready, receipts).await?,
            Reading::Fields => self.read_fields(&context, ready, receipts).await?,
        };
        // The page's place is free from here on.
        drop(context);
        if let Some(memory) = &memory {
            let bytes = page.bytes();
            memory.shrink_to(bytes);
            self.hold(memory, bytes).await;
        }
        Ok(ReadPage { page, memory })
    }

    /// Reads the text of a page. This is the last call for it.
    async fn read_text(
        &self,
        context: &RequestContext,
        ready: ReadyPage,
        receipts: &mut Vec<Receipt>,
    ) -> Result<Page, OcrError> {
        let request = self.preparation.request;
        // From here on only the call holds the file, unless the page may be read again.
        let (facts, call) = ready.into_call(request, Reading::Text);
        let quote = facts.beside.as_ref().unwrap_or(&facts.quote);
        let follower = self.follower.clone();
        let call = QuotedCall { quote, call, is_second: self.is_second, follower };
        let completion = self.call(context, call, receipts).await?;
        let page = if lacks_lines(request, &completion) {
            Err(OcrError::NoLines)
        } else {
            Ok(Page::of(&facts, &completion, request, Reading::Text))
        };
        receipts.push(completion.receipt);
        page
    }

    /// Reads the fields of a page, and its text if that is asked for.
    async fn read_fields(
        &self,
        context: &RequestContext,
        ready: ReadyPage,
        receipts: &mut Vec<Receipt>,
    ) -> Result<Page, OcrError> {
        let request = self.preparation.request;
        let waiting = ready.text.as_ref().map_or(0, |text| text.layer.bytes() as u64);
        self.hold_result(context, waiting).await;
        let (completion, answer) = self.ask_for_fields(context, &ready, receipts).await?;
        let facts = &ready.facts;
        let estimated = facts.image_tokens();
        let fields = Page::of(facts, &completion, request, Reading::Fields);
        drop(completion);
        let page = if let Some(layer) = &ready.text {
            fields.with_text(self.page_of_layer(facts, layer))
        } else if facts.beside.is_some() {
            self.hold_result(context, fields.bytes() + answer.bytes()).await;
            self.partly(|| {
                let page = fields.clone().without_text(out_of_time());
                request.may_lack_text().then(|| Page { fields: Some(answer.clone()), ..page })
            });
            match self.read_text(context, ready, receipts).await {
                Ok(text) => fields.with_text(text),
                Err(error) if request.may_lack_text() => fields.without_text(error),
                Err(error) => return Err(error),
            }
        } else {
            fields
        };
        let image_tokens = ImageTokens::of(estimated, &*receipts);
        Ok(Page { fields: Some(answer), image_tokens, ..page })
    }

    /// What the model writes for the fields of a page. If it cannot be parsed, the model is asked once more.
    async fn ask_for_fields(
        &self,
        context: &RequestContext,
        ready: &ReadyPage,
        receipts: &mut Vec<Receipt>,
    ) -> Result<(Completion, PageAnswer), OcrError> {
        let (facts, request) = (&ready.facts, self.preparation.request);
        let mut unusable = AnswerError::NoObject;
        for _ in 0..Reading::Fields.most_calls() {
            let call = ready.call(request, Reading::Fields);
            let (quote, is_second) = (&facts.quote, self.is_second);
            let call = QuotedCall { quote, call, is_second, follower: None };
            let completion = self.call(context, call, receipts).await?;
            receipts.push(completion.receipt.clone());
            match fields::parsed(&self.reader.scratch, facts.number, completion).await? {
                (completion, Ok(answer)) => return Ok((completion, answer)),
                (_, Err(error)) => unusable = error,
            }
        }
        Err(OcrError::UnusableFields(unusable))
    }

    /// Holds memory for a result of `bytes` that waits for a further call for its page.
    async fn hold_result(&self, context: &RequestContext, bytes: u64) {
        let more = bytes.saturating_sub(FIRST_RESULT_BYTES);
        if let Some(PageHold { memory, .. }) = context.held.page.as_ref().filter(|_| more > 0) {
            self.hold(memory, PAGE_BYTES + more).await;
        }
    }

    /// Grows `memory` to `bytes`, beyond the limit if there is no room in time: a result that is paid for is delivered
    /// in any case, and freed soon.
    async fn hold(&self, memory: &HeldBytes, bytes: u64) {
        let more = bytes.saturating_sub(memory.bytes());
        if more > 0 {
            let taken = memory.take_until(more, self.preparation.deadline.into()).await;
            taken.unwrap_or_else(|_| memory.take_beyond(more));
        }
    }

    /// Whether the caller still waits for a page that was not sent yet.
    ///
    /// A caller that has closed its side may have left or may only have closed its sending side. A page of several is
    /// not sent for it, because hundreds more may follow.
    fn check_is_awaited(&self) -> Result<(), OcrError> {
        let watch = &self.preparation.request.context.watch;
        if self.is_one_of_several && watch.may_have_left.is_noted() {
            let abandoned = CallError::from(CallFault::Abandoned);
            return Err(MeteringError::from(abandoned).into());
        }
        self.too_late().map_or(Ok(()), Err)
    }

    /// The error of a page that waited for a worker until the caller's deadline.
    fn in_time(&self, error: OcrError) -> OcrError {
        let is_busy = matches!(error, OcrError::Document(DocumentError::Busy));
        self.too_late().filter(|_| is_busy).unwrap_or(error)
    }

    /// The refusal of a page that cannot be answered before the caller's deadline.
    fn too_late(&self) -> Option<OcrError> {
        let (now, deadline) = (self.reader.clock.instant(), self.preparation.deadline);
        if admission::latest_start(deadline, now).is_some() {
            return None;
        }
        Some(self.late())
    }

    fn late(&self) -> OcrError {
        let left = self.preparation.deadline.saturating_duration_since(self.reader.clock.instant());
        MeteringError::Refused(Refusal::TooLate { left }).into()
    }
}

/// Whether the answer is text instead of the requested lines. The page would look blank.
fn lacks_lines(request: &OcrRequest, completion: &Completion) -> bool {
    request.options.detail == Detail::Lines
        && completion.words.is_none()
        && !completion.text.trim().is_empty()
}
