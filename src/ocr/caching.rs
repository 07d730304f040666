//! Answers equal requests once: from the cache, or together with one that is under way.
//!
//! [`CachingOcr`] stands in front of [`Ocr`]. A tenant without a `cache_ttl` passes through. Otherwise the requests
//! with one [`fingerprint`] have seats in a flight ([`flight`](crate::result_cache::flight)). The one that leads looks
//! into the cache, and reads the file if nothing is there. What it reads is kept if it is whole. All who wait get it
//! without paying. A failure is theirs too only if it is about the file. Otherwise the next of them leads, within its
//! own deadline.
//!
//! A request that is answered in this way has passed the key, the requests a minute and the concurrency of its tenant.
//! It is not admitted to spend, because it spends nothing.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout_at};

use super::error::OcrError;
use super::fingerprint::{self, Digest};
use super::kept::{KeptAnswer, Reusable, Reuse};
use super::progress::{Others, Progress};
use super::request::OcrRequest;
use super::result::{ExtractAnswer, OcrAnswer, PageEvent};
use super::{Ocr, TIME_TO_ANSWER};
use crate::admission::Refusal;
use crate::capacity::account::{ByteAccount, HeldBytes};
use crate::catalog::Model;
use crate::clock::Clock;
use crate::dashscope::error::{CallError, CallFault};
use crate::metering::error::MeteringError;
use crate::metering::run::Metering;
use crate::metering::spend::Tally;
use crate::result_cache::flight::{Lead, Seat, Turn};
use crate::result_cache::key::EntryKey;
use crate::result_cache::{Found, Lease, MemoryUse, ResultCache};

/// An answer whose pages take no more bytes has them from what each request may take beside its file.
const UNCOUNTED_BYTES: u64 = 128 * 1024;

/// A longer entry, in bytes, is read and written outside the reactor.
const INLINE_ENTRY_BYTES: usize = 64 * 1024;

/// What a request allows the cache to do (`Cache-Control`, RFC 9111, 5.2.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheDirective {
    /// All.
    #[default]
    Use,
    /// `no-cache`: the file is read for this request. The answer is kept.
    Renew,
    /// `no-store`: the file is read for this request, and the answer is not kept.
    Bypass,
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// From the cache.
    Hit,
    /// Its file was read.
    Miss,
    /// By an equal request that was under way.
    Shared,
}

impl CacheStatus {
    /// The word in answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Shared => "shared",
        }
    }
}

/// What a request allows the cache to do, and what it did.
#[derive(Debug, Clone, Default)]
pub struct CacheUse {
    directive: CacheDirective,
    status: Arc<OnceLock<CacheStatus>>,
}

impl CacheUse {
    /// A use within `directive`.
    pub fn within(directive: CacheDirective) -> Self {
        Self { directive, status: Arc::default() }
    }

    /// What the request allows.
    pub const fn directive(&self) -> CacheDirective {
        self.directive
    }

    /// How the request was answered. None until that is known, and for a request that has no part in the cache.
    pub fn status(&self) -> Option<CacheStatus> {
        self.status.get().copied()
    }
}

/// An uploaded file that a waiting request leaves for the next leader.
#[derive(Debug, Clone)]
pub struct SpareFile {
    file: Bytes,
    memory: Option<Arc<HeldBytes>>,
}

/// What a leader gives to those who wait.
#[derive(Debug, Clone)]
pub struct Outcome {
    answer: Result<Arc<KeptAnswer>, OcrError>,
    status: CacheStatus,
}

/// The cache of these use cases.
pub type AnswerCache = ResultCache<Outcome, SpareFile>;

/// Reads images and documents, each once: the use cases of `/ocr` and `/extract`.
#[derive(Debug)]
pub struct CachingOcr {
    ocr: Arc<Ocr>,
    cache: Arc<AnswerCache>,
    memory: Arc<ByteAccount>,
    /// The longest time that a request may take. A call for several requests has this time.
    patience: Duration,
    /// Of the settings that may change an answer.
    configuration: Digest,
}

/// A request that takes part.
struct Participant {
    request: OcrRequest,
    model: Arc<Model>,
    place: EntryPlace,
    started: Instant,
    cache_use: CacheUse,
}

/// Where an answer is kept, and how long.
#[derive(Clone, Copy)]
struct EntryPlace {
    key: EntryKey,
    ttl: Duration,
}

/// What a leader needs to publish the outcome of its work.
struct Publisher {
    cache: Arc<AnswerCache>,
    lead: Lead<Outcome, SpareFile>,
    /// Keeps other replicas from reading the same file.
    lease: Option<Lease>,
    place: EntryPlace,
}

impl CachingOcr {
    /// Puts `cache` in front of `ocr`. `configuration` changes with each setting that may change an answer. No request
    /// takes longer than `patience`.
    pub const fn new(
        ocr: Arc<Ocr>,
        cache: Arc<AnswerCache>,
        memory: Arc<ByteAccount>,
        configuration: Digest,
        patience: Duration,
    ) -> Self {
        Self { ocr, cache, memory, patience, configuration }
    }

    /// What is kept in memory.
    pub fn memory_use(&self) -> MemoryUse {
        self.cache.memory_use()
    }

    /// Reads the text of the pages, as [`Ocr::recognize`].
    ///
    /// # Errors
    ///
    /// As [`Ocr::recognize`].
    pub async fn recognize(
        &self,
        request: OcrRequest,
        cache_use: &CacheUse,
    ) -> Result<OcrAnswer, OcrError> {
        let read =
            |ocr: Arc<Ocr>, request, others| async move { ocr.recognize(request, others).await };
        self.answer(request, cache_use, read).await
    }

    /// Reads the fields of the pages, as [`Ocr::extract`].
    ///
    /// # Errors
    ///
    /// As [`Ocr::extract`].
    pub async fn extract(
        &self,
        request: OcrRequest,
        cache_use: &CacheUse,
    ) -> Result<ExtractAnswer, OcrError> {
        let read =
            |ocr: Arc<Ocr>, request, others| async move { ocr.extract(request, others).await };
        self.answer(request, cache_use, read).await
    }

    /// Reads the text of the pages, as [`Ocr::recognize_streamed`]. If they are not read for this request, `listener`
    /// gets each page as a whole.
    ///
    /// # Errors
    ///
    /// As [`Ocr::recognize`].
    pub async fn recognize_streamed(
        &self,
        request: OcrRequest,
        cache_use: &CacheUse,
        listener: mpsc::Sender<PageEvent>,
    ) -> Result<OcrAnswer, OcrError> {
        let follower = listener.clone();
        let read = |ocr: Arc<Ocr>, request, others| async move {
            ocr.recognize_streamed(request, others, follower).await
        };
        let answer: OcrAnswer = self.answer(request, cache_use, read).await?;
        if matches!(cache_use.status(), Some(CacheStatus::Hit | CacheStatus::Shared)) {
            for page in &answer.pages {
                if listener.send(PageEvent::Done(Box::new(page.clone()))).await.is_err() {
                    break;
                }
            }
        }
        Ok(answer)
    }

    /// Answers a request, if possible without `read`.
    async fn answer<A, W>(
        &self,
        request: OcrRequest,
        cache_use: &CacheUse,
        read: impl FnOnce(Arc<Ocr>, OcrRequest, Option<Others>) -> W + Send + 'static,
    ) -> Result<A, OcrError>
    where
        A: Reusable + Partial,
        W: Future<Output = Result<A, OcrError>> + Send + 'static,
    {
        let is_on = request.context.tenant.cache_ttl > 0 && !request.options.searchable;
        if !is_on || cache_use.directive == CacheDirective::Bypass {
            return read(Arc::clone(&self.ocr), request, None).await;
        }
        let participant = self.participant(request, cache_use.clone()).await?;
        if cache_use.directive == CacheDirective::Renew {
            return self.renew(participant, read).await;
        }
        Box::pin(self.take_part(participant, read)).await
    }

    /// The request with its fingerprint.
    async fn participant(
        &self,
        request: OcrRequest,
        cache_use: CacheUse,
    ) -> Result<Participant, OcrError> {
        let started = self.clock().instant();
        let model = self.ocr.model_of(&request)?;
        let file = fingerprint::digest_of(&request.image, request.context.held.memory.clone());
        let file = file.await?;
        let parts = self.cache.keys().begin();
        let key = fingerprint::of(parts, &self.configuration, &request, &model.name, &file);
        let ttl = Duration::from_secs(request.context.tenant.cache_ttl);
        Ok(Participant { request, model, place: EntryPlace { key, ttl }, started, cache_use })
    }

    /// Reads the file for this request alone, and keeps the answer.
    async fn renew<A, W>(
        &self,
        participant: Participant,
        read: impl FnOnce(Arc<Ocr>, OcrRequest, Option<Others>) -> W,
    ) -> Result<A, OcrError>
    where
        A: Reusable,
        W: Future<Output = Result<A, OcrError>>,
    {
        self.note(&participant, CacheStatus::Miss);
        let answer = read(Arc::clone(&self.ocr), participant.request, None).await?;
        let kept = Arc::new(answer.kept());
        if kept.reuse() == Reuse::Keep {
            keep(&self.cache, &kept, participant.place).await;
        }
        Ok(answer)
    }

    /// Answers a request together with equal ones.
    async fn take_part<A, W>(
        &self,
        mut participant: Participant,
        read: impl FnOnce(Arc<Ocr>, OcrRequest, Option<Others>) -> W,
    ) -> Result<A, OcrError>
    where
        A: Reusable + Partial,
        W: Future<Output = Result<A, OcrError>> + Send + 'static,
    {
        let (place, watch) = (participant.place, &participant.request.context.watch);
        let mut seat = self.cache.flights().join(place.key, watch.may_have_left.clone());
        let lead = match self.turn(&mut seat, &mut participant).await? {
            Turn::Lead(lead) => lead,
            Turn::Outcome(outcome) => return self.reused(participant, outcome).await,
        };
        let lease = match self.find(&participant).await? {
            Known::Nothing(lease) => lease,
            Known::Answer(kept) => {
                let outcome = Outcome { answer: Ok(kept), status: CacheStatus::Hit };
                lead.finish(outcome.clone());
                return self.reused(participant, outcome).await;
            }
        };
        self.note(&participant, CacheStatus::Miss);
        let publisher = Publisher { cache: Arc::clone(&self.cache), lead, lease, place };
        self.read_for_all(participant, seat, publisher, read).await
    }

    /// Leads if nobody else does. Otherwise waits for the outcome of another request, or for the turn to lead.
    ///
    /// The file of a waiting request is dropped, unless it is the only one that is left for a next leader.
    async fn turn(
        &self,
        seat: &mut Seat<Outcome, SpareFile>,
        Participant { request, .. }: &mut Participant,
    ) -> Result<Turn<Outcome, SpareFile>, OcrError> {
        if let Some(lead) = seat.try_lead() {
            return Ok(Turn::Lead(lead));
        }
        let (deadline, held) = (request.context.deadline, &mut request.context.held);
        let file = std::mem::take(&mut request.image);
        seat.leave_spare(SpareFile { file, memory: held.memory.take() });
        let turn = timeout_at(deadline.into(), seat.turn()).await;
        let turn = turn.map_err(|_elapsed| self.late(deadline))?;
        if let (Turn::Lead(_), Some(spare)) = (&turn, seat.spare()) {
            request.image = spare.file;
            request.context.held.memory = spare.memory;
        }
        Ok(turn)
    }

    /// Looks into the cache.
    async fn find(&self, participant: &Participant) -> Result<Known, OcrError> {
        let deadline = participant.request.context.deadline;
        match self.cache.find(&participant.place.key, deadline).await {
            Found::TooLate => Err(self.late(deadline)),
            Found::Nothing(lease) => Ok(Known::Nothing(lease)),
            Found::Entry(entry) => {
                let kept = read_entry(entry).await?.map(Arc::new);
                Ok(kept.map_or(Known::Nothing(None), Known::Answer))
            }
        }
    }

    /// Reads the file for all who wait, on a task that goes on after the request's own time. The request itself then
    /// gets what is read so far.
    async fn read_for_all<A, W>(
        &self,
        participant: Participant,
        mut seat: Seat<Outcome, SpareFile>,
        publisher: Publisher,
        read: impl FnOnce(Arc<Ocr>, OcrRequest, Option<Others>) -> W,
    ) -> Result<A, OcrError>
    where
        A: Reusable + Partial,
        W: Future<Output = Result<A, OcrError>> + Send + 'static,
    {
        let Participant { mut request, started, .. } = participant;
        let deadline = request.context.deadline;
        let mut own = request.clone();
        (own.image, own.context.held.memory) = (Bytes::new(), None);
        let audience = publisher.lead.audience();
        request.context.watch.may_have_left = audience.may_have_left;
        request.context.watch.has_left = audience.has_left;
        let others = Others::until(self.clock().instant() + self.patience);
        let progress = Arc::clone(&others.progress);
        let reading = read(Arc::clone(&self.ocr), request, Some(others));
        let work = self.metering().spawn(publisher.publish(reading));
        tokio::select! {
            biased;
            done = seat.attend(work) => {
                done.unwrap_or_else(|_panicked| Err(MeteringError::Interrupted.into()))
            }
            () = end_of_time(&progress, deadline) => {
                A::so_far(&self.ocr, started, own, &progress).await
            }
        }
    }

    /// Answers a request with the outcome of another one.
    async fn reused<A: Reusable>(
        &self,
        participant: Participant,
        outcome: Outcome,
    ) -> Result<A, OcrError> {
        let Outcome { answer, status } = outcome;
        self.note(&participant, status);
        let Participant { mut request, model, started, .. } = participant;
        let kept = answer?;
        // Given back first, because others may wait for it.
        request.image = Bytes::new();
        request.context.held.memory = None;
        let memory = self.room_for(kept.bytes(), request.context.deadline).await?;
        self.metering().reused(&request.context, &model, kept.pages().len(), kept.saved);
        let id = request.id;
        let document = kept.document.clone();
        let facts = self.ocr.facts(&model, document, Tally::default(), started, request).await?;
        A::of(&kept, id, facts, memory).ok_or_else(|| MeteringError::Interrupted.into())
    }

    /// Memory for an answer of so many bytes, as soon as there is some.
    async fn room_for(
        &self,
        bytes: u64,
        deadline: Instant,
    ) -> Result<Vec<Arc<HeldBytes>>, OcrError> {
        if bytes <= UNCOUNTED_BYTES {
            return Ok(Vec::new());
        }
        let room = self.memory.hold_until(bytes, deadline.into()).await;
        let no_room = |full| MeteringError::from(CallError::from(CallFault::NoRoom(full)));
        Ok(vec![Arc::new(room.map_err(no_room)?)])
    }

    /// Notes how a request is answered, once.
    fn note(&self, Participant { request, cache_use, .. }: &Participant, status: CacheStatus) {
        let is_new = cache_use.status.set(status).is_ok();
        if is_new {
            self.metering().cache_request(&request.context, status.as_str());
        }
    }

    fn late(&self, deadline: Instant) -> OcrError {
        let left = deadline.saturating_duration_since(self.clock().instant());
        MeteringError::Refused(Refusal::TooLate { left }).into()
    }

    fn metering(&self) -> &Metering {
        &self.ocr.reader.metering
    }

    fn clock(&self) -> &dyn Clock {
        &*self.ocr.reader.clock
    }
}

/// What the cache has for a request.
enum Known {
    Answer(Arc<KeptAnswer>),
    /// Nothing, with the lease of this replica if there are others.
    Nothing(Option<Lease>),
}

/// An answer that can be made of what is read so far.
trait Partial: Sized {
    /// The answer to a request whose work goes on for others.
    fn so_far(
        ocr: &Ocr,
        started: Instant,
        request: OcrRequest,
        progress: &Progress,
    ) -> impl Future<Output = Result<Self, OcrError>> + Send;
}

impl Partial for OcrAnswer {
    async fn so_far(
        ocr: &Ocr,
        started: Instant,
        request: OcrRequest,
        progress: &Progress,
    ) -> Result<Self, OcrError> {
        ocr.recognize_so_far(started, request, progress).await
    }
}

impl Partial for ExtractAnswer {
    async fn so_far(
        ocr: &Ocr,
        started: Instant,
        request: OcrRequest,
        progress: &Progress,
    ) -> Result<Self, OcrError> {
        ocr.extract_so_far(started, request, progress).await
    }
}

/// Waits until a request must be answered whose work goes on for others: with what is read, while there is time to
/// answer, or with an error at its deadline.
async fn end_of_time(progress: &Progress, deadline: Instant) {
    progress.is_for_others.cancelled().await;
    let to_answer = deadline.checked_sub(TIME_TO_ANSWER).unwrap_or(deadline);
    sleep_until(to_answer.into()).await;
    if !progress.has_page() {
        sleep_until(deadline.into()).await;
    }
}

impl Publisher {
    /// Awaits `reading`. Keeps its answer if that is whole, and gives the answer or the failure to those who wait if it
    /// is theirs too.
    async fn publish<A: Reusable>(
        self,
        reading: impl Future<Output = Result<A, OcrError>>,
    ) -> Result<A, OcrError> {
        let Self { cache, lead, lease, place } = self;
        let answer = cache.while_leased(lease.as_ref(), Box::pin(reading)).await;
        let shared = match &answer {
            Ok(answer) => {
                let kept = Arc::new(answer.kept());
                let reuse = kept.reuse();
                if reuse == Reuse::Keep {
                    keep(&cache, &kept, place).await;
                }
                (reuse != Reuse::Nothing).then_some(Ok(kept))
            }
            Err(error) => error.is_about_the_file().then(|| Err(error.clone())),
        };
        // Without effect once the entry stands in the place of the lease.
        cache.release(lease).await;
        if let Some(answer) = shared {
            lead.finish(Outcome { answer, status: CacheStatus::Shared });
        }
        answer
    }
}

/// Stores an answer. Nothing is stored if the writer panicked.
async fn keep(cache: &AnswerCache, kept: &Arc<KeptAnswer>, place: EntryPlace) {
    let entry = if kept.bytes() <= INLINE_ENTRY_BYTES as u64 {
        Ok(kept.written())
    } else {
        let kept = Arc::clone(kept);
        tokio::task::spawn_blocking(move || kept.written()).await
    };
    if let Ok(entry) = entry {
        cache.store(place.key, entry, place.ttl).await;
    }
}

/// Reads an entry; `None` if another program wrote it.
async fn read_entry(entry: Bytes) -> Result<Option<KeptAnswer>, MeteringError> {
    if entry.len() <= INLINE_ENTRY_BYTES {
        return Ok(KeptAnswer::read(&entry));
    }
    let reading = tokio::task::spawn_blocking(move || KeptAnswer::read(&entry)).await;
    reading.map_err(|_panicked| MeteringError::Interrupted)
}
