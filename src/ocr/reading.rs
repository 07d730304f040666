//! Reads pages: each by one metered call, and those of a document side by side.
//!
//! A document has up to hundreds of pages. A few of them are worked on at once, in the order of their numbers: while
//! one is read by the model, the next is drawn. Each is admitted by itself, so a budget holds in the middle of a
//! document. A page that fails does not stop the others. If the caller leaves, the pages that were not sent yet are
//! not sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, future, stream};
use tokio::sync::mpsc;

use super::error::OcrError;
use super::facts::PageFacts;
use super::intake::{Origin, Pages};
use super::request::{Detail, OcrRequest};
use super::result::{Page, PageEvent, PageOutcome};
use super::sheet::{PageCall, PageLayer, Preparation, ReadyPage};
use super::stream as streamed;
use crate::admission::{self, Refusal};
use crate::clock::Clock;
use crate::dashscope::completion::{Completion, Receipt};
use crate::dashscope::error::{CallError, CallFault};
use crate::dashscope::{Client, Task};
use crate::document::error::DocumentError;
use crate::document::workers::Document;
use crate::metering::context::RequestContext;
use crate::metering::error::MeteringError;
use crate::metering::forecast::Forecast;
use crate::metering::read_on::Listener;
use crate::metering::run::{Meter, Metering, StreamLog};
use crate::metering::spend::Tally;
use crate::telemetry::metrics::Saving;
use crate::units::Tokens;

/// The label of pages that failed.
const FAILED: &str = "failed";

/// Shortest wait for tokens of the minute or for memory.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);

/// Reads pages by metered calls.
#[derive(Debug)]
pub(super) struct PageReader {
    pub(super) metering: Metering,
    pub(super) client: Arc<Client>,
    pub(super) clock: Arc<dyn Clock>,
}

/// A caller that follows the pages while they are read.
#[derive(Clone)]
pub(super) struct Follower {
    listener: Listener<PageEvent>,
    /// Written when the last call has ended.
    log: Arc<StreamLog>,
}

/// What became of the pages of a request.
pub(super) struct PagesRead {
    /// The pages, in their order.
    pub(super) pages: Vec<PageOutcome<Page, OcrError>>,
    /// Figures of their calls.
    pub(super) tally: Tally,
}

/// Reads the pages of one request.
struct Pass<'a> {
    reader: &'a PageReader,
    preparation: Preparation<'a>,
    follower: Option<Follower>,
    /// Whether there are other pages.
    is_one_of_several: bool,
    /// A refusal that further pages would meet too.
    barrier: Mutex<Option<Barrier>>,
}

/// A refusal of a call that holds for further calls.
#[derive(Debug, Clone)]
struct Barrier {
    /// For those of at least so many tokens.
    from: Tokens,
    refusal: Refusal,
}

impl Follower {
    /// A caller that receives from the other end of `sender`.
    pub(super) fn new(sender: mpsc::Sender<PageEvent>, context: &RequestContext) -> Self {
        Self { listener: Listener::new(sender), log: Arc::new(StreamLog::of(context)) }
    }
}

impl PageReader {
    /// Reads one page by one metered call. A follower gets the model's text while the model writes it.
    ///
    /// # Errors
    ///
    /// [`OcrError`]. The request's tab has the cost so far in any case.
    pub(super) async fn read(
        &self,
        context: &RequestContext,
        facts: &PageFacts,
        page: PageCall,
        follower: Option<Follower>,
    ) -> Result<Completion, OcrError> {
        let (client, deadline, number) = (Arc::clone(&self.client), context.deadline, facts.number);
        let (listener, log) = follower.map(|Follower { listener, log }| (listener, log)).unzip();
        let listener = listener.filter(|_| page.call.task.as_ref().is_none_or(Task::streams));
        let work = move |permit, meter: Meter| async move {
            let _log = log;
            let completion = match listener {
                None => client.call(permit, &page.call, deadline).await,
                Some(listener) => {
                    streamed::call(&client, permit, (number, page), deadline, listener).await
                }
            }?;
            meter.compare(&completion.receipt);
            Ok(completion)
        };
        Ok(self.metering.run(context, Forecast::from(&facts.quote), work).await?)
    }

    /// Reads all pages. A follower that does not listen holds up none of them.
    pub(super) async fn read_all(
        &self,
        preparation: Preparation<'_>,
        pages: Pages,
        follower: Option<Follower>,
    ) -> PagesRead {
        // There is room for every page, so that reading never waits for the follower.
        let (news, untold) = mpsc::channel(pages.count().max(1));
        let (news, telling) = match follower.as_ref().map(|follower| follower.listener.clone()) {
            Some(listener) => (Some(news), future::Either::Left(tell_all(untold, listener))),
            None => (None, future::Either::Right(future::ready(()))),
        };
        let pass = Pass {
            reader: self,
            preparation,
            follower,
            is_one_of_several: pages.count() > 1,
            barrier: Mutex::new(None),
        };
        let (read, ()) = future::join(pass.read_all(pages, news), telling).await;
        read
    }
}

/// Tells the listener each page. A request none of whose pages is read is answered by an error, so failed pages are not
/// told before another page is done.
async fn tell_all(
    mut untold: mpsc::Receiver<PageOutcome<Page, OcrError>>,
    mut listener: Listener<PageEvent>,
) {
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

impl Pass<'_> {
    /// Reads all pages. `news` gets each page when it is done.
    async fn read_all(
        &self,
        pages: Pages,
        news: Option<mpsc::Sender<PageOutcome<Page, OcrError>>>,
    ) -> PagesRead {
        let Preparation { intake, request, .. } = self.preparation;
        let reading = stream::iter(pages.each())
            .map(|(number, origin)| self.page(number, origin))
            .buffer_unordered(intake.limits().at_once);
        let mut reading = std::pin::pin!(reading);
        let mut read = PagesRead { pages: Vec::new(), tally: Tally::default() };
        while let Some((outcome, receipt)) = reading.next().await {
            if let Some(receipt) = &receipt {
                read.tally.add(receipt);
            }
            let source = outcome.done().map_or(FAILED, |page| page.source.as_str());
            self.reader.metering.answered_page(&request.context, source);
            if let Some(news) = &news {
                // The channel has room for every page.
                let _ = news.try_send(outcome.clone());
            }
            read.pages.push(outcome);
        }
        read.pages.sort_by_key(PageOutcome::number);
        read
    }

    /// Reads one page.
    async fn page(
        &self,
        number: u32,
        origin: Origin,
    ) -> (PageOutcome<Page, OcrError>, Option<Receipt>) {
        let read = match origin {
            Origin::Picture(picture) => match self.preparation.ready_picture(*picture).await {
                Ok(ready) => self.send(ready).await,
                Err(error) => Err(error),
            },
            Origin::In(document) => self.sheet(number, document).await,
        };
        match read {
            Ok((page, receipt)) => (PageOutcome::Done(page), receipt),
            Err(error) => (PageOutcome::failed(number, self.in_time(error)), None),
        }
    }

    /// Reads one page of a document.
    async fn sheet(
        &self,
        number: u32,
        document: Arc<Document>,
    ) -> Result<(Page, Option<Receipt>), OcrError> {
        self.check_is_awaited()?;
        let planned = self.preparation.plan(&document, number).await?;
        if let Some(PageLayer { layer, points }) = &planned.text {
            let request = self.preparation.request;
            let page = Page::of_layer(&planned.facts, layer, *points, request.options.detail);
            let spared = planned.facts.quote.image.tokens;
            self.reader.metering.spared(&request.context, Saving::TextLayer, spared);
            return Ok((page, None));
        }
        let bound = planned.facts.quote.bound.total();
        if let Some(refusal) = self.barred(bound) {
            return Err(MeteringError::Refused(refusal).into());
        }
        let ready = self.preparation.draw(document, planned).await?;
        self.check_is_awaited()?;
        self.send(ready).await.inspect_err(|error| self.bar(bound, error))
    }

    /// Sends a page, and makes the answer of its completion.
    async fn send(&self, ready: ReadyPage) -> Result<(Page, Option<Receipt>), OcrError> {
        let Preparation { request, deadline, .. } = self.preparation;
        let context = request.context.of_page(ready.facts.number, deadline);
        // From here on only the call holds the file.
        let (facts, call) = ready.into_call(request);
        let completion = self.read_patiently(&context, &facts, call).await?;
        if lacks_lines(request, &completion) {
            return Err(OcrError::NoLines);
        }
        let page = Page::of(&facts, &completion, request);
        Ok((page, Some(completion.receipt)))
    }

    /// Reads a page. If other pages have used up the tenant's tokens of the minute, or the memory for answers, it waits
    /// for more, but not beyond the deadline.
    async fn read_patiently(
        &self,
        context: &RequestContext,
        facts: &PageFacts,
        mut call: PageCall,
    ) -> Result<Completion, OcrError> {
        loop {
            let spare = self.is_one_of_several.then(|| call.clone());
            let read = self.reader.read(context, facts, call, self.follower.clone()).await;
            let wait = read.as_ref().err().and_then(wait_after);
            let Some((spare, wait)) = spare.zip(wait) else { return read };
            let again = self.reader.clock.instant() + wait;
            let has_left = context.watch.may_have_left.cancelled();
            if admission::latest_start(context.deadline, again).is_none()
                || tokio::time::timeout(wait, has_left).await.is_ok()
            {
                return read;
            }
            call = spare;
        }
    }

    /// The refusal that a call of at most `bound` tokens would meet too.
    fn barred(&self, bound: Tokens) -> Option<Refusal> {
        let barrier = self.barrier.lock().unwrap_or_else(PoisonError::into_inner);
        let barrier = barrier.as_ref().filter(|barrier| bound >= barrier.from)?;
        Some(barrier.refusal.clone())
    }

    /// Keeps further pages from being drawn in vain, after one of `bound` tokens was refused.
    fn bar(&self, bound: Tokens, error: &OcrError) {
        let OcrError::Metering(MeteringError::Refused(refusal)) = error else { return };
        let from = match refusal {
            // It was refused although calls in flight may end, so a call of the same size does not fit either.
            Refusal::Budget { .. } => bound,
            Refusal::Lapsed(_) => Tokens::ZERO,
            Refusal::Limit(_) | Refusal::TooLate { .. } | Refusal::StoreUnavailable => return,
        };
        let mut barrier = self.barrier.lock().unwrap_or_else(PoisonError::into_inner);
        if barrier.as_ref().is_none_or(|barrier| from < barrier.from) {
            *barrier = Some(Barrier { from, refusal: refusal.clone() });
        }
    }

    /// Whether the caller still waits for a page that was not sent yet.
    ///
    /// A caller that has closed its side may have left or may only have closed its sending side. A page of several is not
    /// sent for it, because hundreds more may follow.
    fn check_is_awaited(&self) -> Result<(), OcrError> {
        let watch = &self.preparation.request.context.watch;
        if self.is_one_of_several && watch.may_have_left.is_cancelled() {
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
        let left = deadline.saturating_duration_since(now);
        Some(MeteringError::Refused(Refusal::TooLate { left }).into())
    }
}

/// How long a page waits before it is tried again, if it was refused because of other calls.
fn wait_after(error: &OcrError) -> Option<Duration> {
    let OcrError::Metering(error) = error else { return None };
    match error {
        MeteringError::Refused(Refusal::Limit(exceeded)) => {
            Some(exceeded.retry_after.max(SHORTEST_WAIT))
        }
        MeteringError::Upstream(error) if matches!(error.fault, CallFault::NoRoom(_)) => {
            Some(SHORTEST_WAIT)
        }
        _ => None,
    }
}

/// Whether the answer is text instead of the requested lines. The page would look blank.
fn lacks_lines(request: &OcrRequest, completion: &Completion) -> bool {
    request.options.detail == Detail::Lines
        && completion.words.is_none()
        && !completion.text.trim().is_empty()
}
