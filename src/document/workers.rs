//! The pool of worker processes.
//!
//! A page *leases* a worker: it waits for one of so many places, in turns with the pages of other tenants, then for the
//! memory that the worker may take, in the order of arrival. Processes are started when they are needed, used again,
//! and ended after a minute without work. A document stays open in the workers that read it, so that its next pages
//! find it there, and its memory stays held.
//!
//! The pool cannot deadlock, because what a page waits for is always freed:
//!
//! - Idle workers forget their documents when memory is short.
//! - A page that waits for memory holds a place and its part of the document's file. The files of all documents
//!   together leave room for a worker and for a drawn page; a document that does not is refused.
//! - A drawn page holds memory until its call has ended. Its call takes room for the answer, and does not leave that
//!   room to a page that waits (`capacity::account`).
//!
//! A worker whose caller leaves in the middle of a step is killed. The limits bound what a step costs, but an abandoned
//! step would keep others waiting until its end. A new process is ready in some milliseconds.

pub mod draft;

mod steps;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;

use super::error::DocumentError;
use super::page::{Draw, Drawn, Kind, PagePlan};
use super::process::{Process, in_time};
use super::settings::WorkerLimits;
use super::turns::{Place, Turns};
use super::wire::{Reply, Request};
use crate::capacity::account::{ByteAccount, HeldBytes, Reclaim};
use crate::image::Size;
use crate::legibility::{Legibility, TextHeight};
use crate::quote::limits::LARGEST_FILE;
use crate::telemetry::metrics::{Counted, Metrics, WorkerEnd};

/// Bytes that each page holds for its call beside its picture, and for its result: as many as a request is given for
/// one call.
pub const PAGE_BYTES: u64 = 256 * 1024;

/// How long a process may be idle before it is ended.
const LONGEST_IDLE: Duration = Duration::from_mins(1);

/// How many workers may be lost to one document. Another page of it would most likely take another one, at the cost of
/// all its limits.
const MOST_LOST_WORKERS: u32 = 3;

/// How often idle processes are looked at.
const IDLE_CHECK: Duration = Duration::from_secs(10);

/// The worker processes of this service.
#[derive(Debug)]
pub struct Workers {
    limits: WorkerLimits,
    account: Arc<ByteAccount>,
    places: Arc<Turns>,
    /// In the order of their last use, the latest last.
    idle: Mutex<Vec<Idle>>,
    /// The bytes of all files of documents.
    files: AtomicU64,
    documents: AtomicU64,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    runtime: Handle,
}

/// A process without work.
#[derive(Debug)]
struct Idle {
    process: Process,
    open: Option<Open>,
    since: Instant,
}

/// A document that is open in a process.
#[derive(Debug)]
struct Open {
    document: u64,
    /// The memory of the process, and room for a drawn page.
    memory: HeldBytes,
}

/// A document that the workers read. Its drop frees what workers hold of it.
#[derive(Debug)]
pub struct Document {
    workers: Arc<Workers>,
    number: u64,
    kind: Kind,
    file: Bytes,
    pages: OnceLock<u32>,
    /// The bytes of the file that are counted, once it is read.
    counted: OnceLock<u64>,
    /// The workers that were lost to it.
    lost_workers: AtomicU32,
    /// The error of all further pages, after too many of them.
    given_up: OnceLock<DocumentError>,
    /// The error of a page that cost a worker when it was measured: no further one is measured.
    unmeasurable: OnceLock<DocumentError>,
    /// Keeps the bytes of the upload counted.
    upload: Option<Arc<HeldBytes>>,
}

/// One page of a document, with the worker that reads it. The worker is free again when this is dropped.
#[derive(Debug)]
pub struct Sheet {
    lease: Lease,
    page: u32,
    until: Instant,
}

/// A process, the memory that it may take, and a place, for one document.
#[derive(Debug)]
struct Lease {
    document: Arc<Document>,
    /// `None` after it failed.
    process: Option<Process>,
    /// The number of the document that is open in the process.
    open: Option<u64>,
    memory: HeldBytes,
    place: Option<Place>,
    /// Whether a step has begun and not ended.
    is_busy: bool,
    _in_use: Counted,
}

/// One request to a worker.
#[derive(Clone, Copy)]
struct Step<'a> {
    request: Request,
    /// The bytes that go with the request.
    payload: &'a [u8],
    /// The most bytes that may come with the reply.
    most: u64,
}

impl Step<'_> {
    /// A request without a payload.
    const fn of(request: Request, most: u64) -> Self {
        Self { request, payload: &[], most }
    }
}

impl Workers {
    /// Workers that are started when the first document comes, and whose memory counts in `account`.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(
        limits: WorkerLimits,
        account: Arc<ByteAccount>,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let places = Arc::new(Turns::new(limits.workers));
        let workers = Arc::new(Self {
            limits,
            account,
            places,
            idle: Mutex::default(),
            files: AtomicU64::new(0),
            documents: AtomicU64::new(0),
            metrics,
            tasks,
            runtime: Handle::current(),
        });
        let reclaimable: Arc<dyn Reclaim> = workers.clone();
        workers.account.may_reclaim(Arc::downgrade(&reclaimable));
        workers
    }

    /// Ends processes that have been idle for a minute, for as long as there are workers.
    pub async fn end_idle(workers: Weak<Self>) {
        while let Some(own) = workers.upgrade() {
            let ended = own.take_idle_for_long();
            drop(own);
            for idle in ended {
                idle.process.end(WorkerEnd::Idle).await;
            }
            sleep(IDLE_CHECK).await;
        }
    }

    /// A document. Nothing is read yet. `upload` keeps the bytes of `file` held.
    pub fn open(
        self: &Arc<Self>,
        kind: Kind,
        file: Bytes,
        upload: Option<Arc<HeldBytes>>,
    ) -> Arc<Document> {
        Arc::new(Document {
            workers: Arc::clone(self),
            number: self.documents.fetch_add(1, Ordering::Relaxed),
            kind,
            file,
            pages: OnceLock::new(),
            counted: OnceLock::new(),
            lost_workers: AtomicU32::new(0),
            given_up: OnceLock::new(),
            unmeasurable: OnceLock::new(),
            upload,
        })
    }

    /// The bytes that an open document holds: of the process, and of a drawn page with its call. A page that has a
    /// worker has all memory that it needs until its answer, so it never waits for memory while others wait for what it
    /// holds.
    const fn memory(&self) -> u64 {
        self.limits.memory.saturating_add(LARGEST_FILE).saturating_add(PAGE_BYTES)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle_for_long(&self) -> Vec<Idle> {
        self.idle().extract_if(.., |idle| idle.since.elapsed() >= LONGEST_IDLE).collect()
    }

    /// The idle process that suits the document best: one that has it open, one that has none open, and only if no
    /// further process may be started, the one whose document was not read for the longest time.
    fn take_idle_for(&self, document: u64) -> Option<Idle> {
        let mut idle = self.idle();
        let with = |wanted: Option<u64>| {
            let number = |idle: &Idle| idle.open.as_ref().map(|open| open.document);
            idle.iter().rposition(|idle| number(idle) == wanted)
        };
        let best = with(Some(document)).or_else(|| with(None));
        let leased = self.limits.workers.saturating_sub(self.places.free());
        let is_full = idle.len().saturating_add(leased) > self.limits.workers;
        let best = best.or_else(|| (is_full && !idle.is_empty()).then_some(0))?;
        Some(idle.remove(best))
    }

    /// The idle process that suits the document best and has not ended.
    async fn take_alive_for(&self, document: u64) -> Option<Idle> {
        loop {
            let mut idle = self.take_idle_for(document)?;
            if idle.process.is_alive() {
                return Some(idle);
            }
            idle.process.kill(WorkerEnd::Crash).await;
        }
    }

    /// Lets idle processes forget their documents, because memory is short.
    async fn forget_documents(self: &Arc<Self>) {
        let taken: Vec<_> = self.idle().extract_if(.., |idle| idle.open.is_some()).collect();
        let forgetting = taken.into_iter().map(|Idle { process, open, .. }| {
            let own = Arc::clone(self);
            self.finish(async move {
                own.forget_and_keep(process, open.map(|open| open.memory)).await;
            })
        });
        // One that panicked has no process.
        let _ = join_all(forgetting).await;
    }

    /// Lets a process forget its document, and keeps it if it is small again. `memory` is held until then.
    async fn forget_and_keep(&self, mut process: Process, memory: Option<HeldBytes>) {
        let (step, until) = (self.limits.step, Instant::now() + self.limits.step);
        let closed = in_time(process.ask(&Request::Close, &[], 0), step, until).await;
        match closed {
            Ok(Ok((Reply::Closed { has_grown: false }, _))) => {
                self.idle().push(Idle { process, open: None, since: Instant::now() });
            }
            Ok(Ok((Reply::Closed { .. }, _))) => process.end(WorkerEnd::Grown).await,
            _ => process.kill(WorkerEnd::Crash).await,
        }
        drop(memory);
    }

    /// The memory for a process, as soon as there is room.
    async fn wait_for_memory(self: &Arc<Self>, until: Instant) -> Result<HeldBytes, DocumentError> {
        let held = self.account.hold_until(self.memory(), until).await;
        held.map_err(|_| DocumentError::Busy)
    }

    async fn start_process(&self) -> Result<Process, DocumentError> {
        Process::start(&self.limits, &self.metrics).await.map_err(|error| {
            tracing::error!("a document worker cannot be started: {error}");
            DocumentError::Interrupted
        })
    }

    /// Counts the file of a document, if the files of all leave room for a worker and for a page that was drawn before
    /// and is being read.
    fn count(&self, bytes: u64) -> Result<(), DocumentError> {
        let allowed = self.account.allowed().saturating_sub(self.limits.least_in_flight());
        let add = |files: u64| files.checked_add(bytes).filter(|files| *files <= allowed);
        self.files
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .map_err(|_| DocumentError::Busy)?;
        Ok(())
    }

    /// Runs `work` to its end, whatever becomes of the caller.
    fn finish(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.tasks.spawn_on(work, &self.runtime)
    }
}

impl Reclaim for Workers {
    fn reclaim(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move { self.forget_documents().await }.boxed()
    }
}

impl Document {
    /// Counts the pages.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the document cannot be opened, or no worker was free until `until`.
    pub async fn page_count(
        self: &Arc<Self>,
        until: std::time::Instant,
    ) -> Result<u32, DocumentError> {
        if let Some(pages) = self.pages.get() {
            return Ok(*pages);
        }
        let until = Instant::from_std(until);
        self.lease(until).await?.ask(None, until).await?;
        self.pages.get().copied().ok_or(DocumentError::Interrupted)
    }

    /// Waits for a worker that reads page `page`, counted from 1.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Busy`] if none was free until `until`; the error of the last page that cost a worker, if the
    /// document has cost too many.
    pub async fn sheet(
        self: &Arc<Self>,
        page: u32,
        until: std::time::Instant,
    ) -> Result<Sheet, DocumentError> {
        let until = Instant::from_std(until);
        Ok(Sheet { lease: self.lease(until).await?, page, until })
    }

    async fn lease(self: &Arc<Self>, until: Instant) -> Result<Lease, DocumentError> {
        self.check_losses()?;
        let lease = self.lease_despite_losses(until).await?;
        self.check_losses()?;
        Ok(lease)
    }

    /// A worker, also for a document whose pages have cost too many: to write what was read of the others.
    async fn lease_despite_losses(
        self: &Arc<Self>,
        until: Instant,
    ) -> Result<Lease, DocumentError> {
        let (workers, started) = (&self.workers, Instant::now());
        self.count()?;
        let place = workers.places.enter(self.tenant());
        let place = timeout_at(until, place).await.map_err(|_| DocumentError::Busy)?;
        let (process, open, memory) = self.process(until).await?;
        Ok(Lease {
            document: Arc::clone(self),
            process: Some(process),
            open,
            memory,
            place,
            is_busy: false,
            _in_use: workers.metrics.document_worker_in_use(started.elapsed()),
        })
    }

    /// The tenant whose turn the pages of this document take; none for a command without a service.
    fn tenant(&self) -> &str {
        self.upload.as_ref().and_then(|held| held.tenant()).unwrap_or_default()
    }

    /// The error of further pages, if too many workers were lost to this document.
    fn check_losses(&self) -> Result<(), DocumentError> {
        self.given_up.get().cloned().map_or(Ok(()), Err)
    }

    /// Remembers that a worker was lost to this document.
    fn lost_worker(&self, request: &Request, error: &DocumentError) {
        if matches!(request, Request::Measure { .. }) {
            // Its pages can be read without that.
            let _ = self.unmeasurable.set(error.clone());
            return;
        }
        let before = self.lost_workers.fetch_add(1, Ordering::Relaxed);
        if before.saturating_add(1) >= MOST_LOST_WORKERS {
            let _ = self.given_up.set(error.clone());
        }
    }

    /// Counts the file among those of all documents, once.
    fn count(&self) -> Result<(), DocumentError> {
        if self.counted.get().is_some() {
            return Ok(());
        }
        let bytes = self.upload.as_ref().map_or(self.file.len() as u64, |held| held.bytes());
        self.workers.count(bytes)?;
        if self.counted.set(bytes).is_err() {
            self.workers.files.fetch_sub(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A process, the number of the document that is open in it, and the memory that it may take. While this waits, it
    /// holds neither the process nor the memory.
    async fn process(
        &self,
        until: Instant,
    ) -> Result<(Process, Option<u64>, HeldBytes), DocumentError> {
        let workers = &self.workers;
        match workers.take_alive_for(self.number).await {
            Some(Idle { process, open: Some(Open { document, memory }), .. }) => {
                let lacking = workers.memory().saturating_sub(memory.bytes());
                if memory.take(lacking).is_ok() {
                    return Ok((process, Some(document), memory));
                }
                workers.forget_and_keep(process, Some(memory)).await;
            }
            Some(idle) => workers.idle().push(idle),
            None => {}
        }
        let memory = workers.wait_for_memory(until).await?;
        loop {
            match workers.take_alive_for(self.number).await {
                None => return Ok((workers.start_process().await?, None, memory)),
                Some(Idle { process, open: None, .. }) => return Ok((process, None, memory)),
                Some(Idle { process, open: Some(open), .. }) => {
                    workers.forget_and_keep(process, Some(open.memory)).await;
                }
            }
        }
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        let (workers, number) = (Arc::clone(&self.workers), self.number);
        let tenant = self.tenant().to_owned();
        if let Some(bytes) = self.counted.get() {
            workers.files.fetch_sub(*bytes, Ordering::Relaxed);
        }
        let is_its =
            move |idle: &mut Idle| idle.open.as_ref().is_some_and(|open| open.document == number);
        if !workers.idle().iter_mut().any(is_its) {
            return;
        }
        let own = Arc::clone(&workers);
        workers.finish(async move {
            // With a place, so that no other process is started beside this one.
            let _place = own.places.enter(&tenant).await;
            let taken: Vec<_> = own.idle().extract_if(.., is_its).collect();
            for Idle { process, open, .. } in taken {
                own.forget_and_keep(process, open.map(|open| open.memory)).await;
            }
        });
    }
}

impl Sheet {
    /// What is known of the page before it is drawn; with its text, if `text`.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the page cannot be read.
    pub async fn plan(&mut self, text: bool) -> Result<PagePlan, DocumentError> {
        let request = Request::Plan { page: self.page, text };
        match self.lease.ask(Some(Step::of(request, 0)), self.until).await? {
            Some((Reply::Planned(plan), _)) => {
                let text = plan.text.filter(|text| !text.is_too_long());
                Ok(PagePlan { text, ..plan })
            }
            _ => Err(self.lease.malformed()),
        }
    }

    /// How large the text of the page is, and where anything can be seen, in pixels of the page at this size.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the page cannot be measured. It may be possible to draw it.
    pub async fn measure(&mut self, size: Size) -> Result<Legibility, DocumentError> {
        if let Some(error) = self.lease.document.unmeasurable.get() {
            return Err(error.clone());
        }
        let request = Request::Measure { page: self.page, size };
        match self.lease.ask(Some(Step::of(request, 0)), self.until).await? {
            Some((Reply::Measured(found), _)) if is_possible(&found, size) => Ok(found),
            _ => Err(self.lease.malformed()),
        }
    }

    /// Bytes of the memory that was held for the page, for what is kept of it.
    pub fn keep(&mut self, bytes: u64) -> HeldBytes {
        self.lease.memory.split(bytes)
    }

    /// Draws the page. The bytes of the picture count as held until the second value is dropped.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] if the page cannot be drawn.
    pub async fn draw(mut self, draw: Draw) -> Result<(Drawn, HeldBytes), DocumentError> {
        let request = Request::Draw { page: self.page, draw };
        match self.lease.ask(Some(Step::of(request, LARGEST_FILE)), self.until).await? {
            Some((Reply::Drawn { format, size }, bytes)) => {
                let held = self.lease.memory.split(bytes.len() as u64);
                Ok((Drawn { bytes, format, size }, held))
            }
            _ => Err(self.lease.malformed()),
        }
    }
}

/// Whether this can be found in a page of this size.
pub(super) fn is_possible(found: &Legibility, size: Size) -> bool {
    let is_height =
        |text: TextHeight| text.height.is_finite() && text.height > 0.0 && text.strokes.is_finite();
    found.text.is_none_or(is_height) && found.content.is_none_or(|content| content.is_within(size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::document::wire;
    use crate::image::region::Region;

    #[test]
    fn what_cannot_be_found_in_a_page_is_not_believed() {
        let size = Size::new(100, 200);
        let found = |height, strokes| Legibility {
            text: Some(TextHeight { height, strokes }),
            content: Some(Region::of(size)),
        };
        assert!(is_possible(&found(12.5, 1.7), size));
        assert!(is_possible(&Legibility { text: None, content: None }, size));
        for (height, strokes) in
            [(0.0, 1.7), (-1.0, 1.7), (f32::NAN, 1.7), (f32::INFINITY, 1.7), (9.0, f32::NAN)]
        {
            assert!(!is_possible(&found(height, strokes), size), "{height} {strokes}");
        }
        assert!(!is_possible(&found(12.5, 1.7), Size::new(99, 200)));
    }

    proptest! {
        /// Any numbers, and any other bytes in their place, as a worker may send them that a document has taken over.
        #[test]
        fn what_a_worker_says_of_a_page_is_refused_or_lies_within_it(
            (height, strokes) in (any::<f32>(), any::<f32>()),
            [left, top, right, bottom] in prop::array::uniform4(any::<u32>()),
            is_near: bool,
            (width, lines) in (1_u32..20_000, 1_u32..20_000),
            changed in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let near = |at: u32| if is_near { at % 30_000 } else { at };
            let [left, top, right, bottom] = [left, top, right, bottom].map(near);
            let content = Some(Region { left, top, right, bottom });
            let said = Legibility { text: Some(TextHeight { height, strokes }), content };
            let mut message = Vec::new();
            wire::write_reply(&mut message, &Reply::Measured(said), &[]).unwrap();
            for (at, byte) in changed {
                *at.get_mut(&mut message) = byte;
            }
            let size = Size::new(width, lines);
            let received = wire::receive_reply(&mut &message[..], 0).now_or_never().unwrap();
            if let Ok((Reply::Measured(found), _)) = received && is_possible(&found, size) {
                prop_assert!(found.content.is_none_or(|part| part.is_within(size)));
                if let Some(text) = found.text {
                    prop_assert!(text.height.is_finite() && text.height > 0.0);
                    prop_assert!(text.strokes.is_finite());
                }
            }
        }
    }
}
