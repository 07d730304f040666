//! Worker processes: what a document can do to its worker, and what becomes of both.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join4;
use ocr_gateway::capacity::account::ByteAccount;
use ocr_gateway::capacity::share::{Share, Shares};
use ocr_gateway::document::error::{DocumentError, Resource};
use ocr_gateway::document::page::{Draw, Drawn, Kind, PageLines, PageSize, PlacedLine};
use ocr_gateway::document::settings::WorkerLimits;
use ocr_gateway::document::workers::draft::Draft;
use ocr_gateway::document::workers::{Document, PAGE_BYTES, Workers};
use ocr_gateway::image::Size;
use ocr_gateway::image::probe::probe;
use ocr_gateway::quote::limits::LARGEST_FILE;
use ocr_gateway::telemetry::levels::Levels;
use ocr_gateway::telemetry::metrics::{Metrics, MetricsSettings};
use prometheus::IntGauge;
use rustix::process::{Pid, Signal, kill_process};
use tokio_util::task::TaskTracker;

use crate::harness::{LONGEST_WAIT, fixture, spawn, until};
use crate::pdf::{self, PdfPage};

const MIB: u64 = 1 << 20;

/// What all pools and their files may hold.
const ACCOUNT: u64 = 256 * MIB;

/// Workers of this program, with the changes of `change`.
struct Pool {
    workers: Arc<Workers>,
    account: Arc<ByteAccount>,
    metrics: Arc<Metrics>,
    memory: u64,
}

fn limits() -> WorkerLimits {
    WorkerLimits {
        workers: 2,
        memory: 64 * MIB,
        cpu_seconds: 10,
        step: 10 * LONGEST_WAIT,
        page_pixels: 100_000_000,
        font: None,
        program: env!("CARGO_BIN_EXE_ocr-gateway").into(),
    }
}

impl Pool {
    fn new(number: u64) -> Self {
        Self::with(number, |_| {})
    }

    /// The pool of a test with this number.
    fn with(number: u64, change: impl FnOnce(&mut WorkerLimits)) -> Self {
        let mut limits = limits();
        limits.memory += number;
        change(&mut limits);
        let memory = limits.memory;
        let account = ByteAccount::new(ACCOUNT, IntGauge::new("held", "held").unwrap());
        let (account, tasks) = (Arc::new(account), TaskTracker::new());
        let metrics = Arc::new(Metrics::new(&MetricsSettings { max_tenants: 1 }).unwrap());
        let workers = Workers::new(limits, Arc::clone(&account), Arc::clone(&metrics), tasks);
        Self { workers, account, metrics, memory }
    }

    fn open(&self, kind: Kind, file: impl Into<Bytes>) -> Arc<Document> {
        self.workers.open(kind, file.into(), None)
    }

    /// The sum of the series of a metric whose line contains `labels`.
    fn count(&self, name: &str, labels: &str) -> u64 {
        let text = self.metrics.encode(&Levels::default()).unwrap();
        let text = String::from_utf8(text).unwrap();
        let name = format!("ocr_gateway_{name}");
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(&name).unwrap_or_default();
            rest.starts_with([' ', '{']) && rest.contains(labels)
        });
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    fn ends(&self, reason: &str) -> u64 {
        self.count("document_worker_ends_total", reason)
    }

    /// The processes of this pool, which differs from those of other tests in its memory.
    fn pids(&self) -> Vec<Pid> {
        processes_with(self.memory)
    }

    /// Sends a signal to the only process.
    fn signal(&self, signal: Signal) {
        let pids = self.pids();
        assert_eq!(pids.len(), 1);
        kill_process(pids[0], signal).unwrap();
    }

    async fn until_all_is_free(&self) {
        until("all memory is given back", async || self.account.held() == 0).await;
    }
}

/// The workers of this machine that may take so many bytes of memory.
pub(crate) fn processes_with(memory: u64) -> Vec<Pid> {
    let own = format!("--memory={memory}");
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        line.split('\0').any(|argument| argument == own).then(|| Pid::from_raw(pid))?
    });
    processes.collect()
}

fn soon() -> Instant {
    // On a busy machine a worker gets little of the processors.
    tokio::time::Instant::now().into_std() + 10 * LONGEST_WAIT
}

/// Reads the picture that is the document, and returns its bytes.
async fn read(document: &Arc<Document>) -> Result<Bytes, DocumentError> {
    let sheet = document.sheet(1, soon()).await?;
    Ok(sheet.draw(Draw::AsStored).await?.0.bytes)
}

fn picture() -> Bytes {
    fixture("hello.jpg").into()
}

#[tokio::test]
async fn a_picture_comes_back_from_its_worker_as_it_was() {
    let pool = Pool::new(1);
    let document = pool.open(Kind::Picture, picture());
    assert_eq!(document.page_count(soon()).await, Ok(1));
    let mut sheet = document.sheet(1, soon()).await.unwrap();
    let plan = sheet.plan(false).await.unwrap();
    assert!(matches!(plan.size, PageSize::Pixels(_)), "{plan:?}");
    let (drawn, held) = sheet.draw(Draw::AsStored).await.unwrap();
    assert_eq!(drawn.bytes, picture());
    assert_eq!(held.bytes(), drawn.bytes.len() as u64);
    assert_eq!(pool.count("document_workers", ""), 1, "one process did it all");
    drop((document, held));
    pool.until_all_is_free().await;
}

#[tokio::test]
async fn twenty_documents_at_once_are_read_by_no_more_processes_than_allowed() {
    let pool = Pool::new(2);
    let documents: Vec<_> = (0..20).map(|_| pool.open(Kind::Picture, picture())).collect();
    let read = futures_util::future::join_all(documents.iter().map(read)).await;
    assert!(read.into_iter().all(|file| file == Ok(picture())));
    assert!(pool.pids().len() <= 2, "{:?}", pool.pids());
    drop(documents);
    pool.until_all_is_free().await;
}

#[tokio::test]
async fn documents_are_read_one_after_the_other_where_memory_is_short() {
    let pool = Pool::with(3, |limits| limits.workers = 4);
    let _others = pool.account.hold(ACCOUNT - pool.memory - LARGEST_FILE - PAGE_BYTES).unwrap();
    let documents: Vec<_> = (0..8).map(|_| pool.open(Kind::Picture, picture())).collect();
    let read = futures_util::future::join_all(documents.iter().map(read)).await;
    assert!(read.into_iter().all(|file| file == Ok(picture())));
}

#[tokio::test]
async fn a_page_waits_for_one_page_of_another_tenant_and_not_for_all_of_its_document() {
    let pool = Pool::with(22, |limits| limits.workers = 1);
    let shares = Share { requests: Share::ALL, bytes: Share::ALL };
    let shares = Arc::new(Shares::new(shares, false));
    let open = |tenant| {
        let upload = Arc::new(pool.account.begin_upload(shares.of(tenant)));
        pool.workers.open(Kind::Picture, picture(), Some(upload))
    };
    let (long, short) = (open("long"), open("short"));
    let in_use = long.sheet(1, soon()).await.unwrap();
    let order = std::sync::Mutex::new(Vec::new());
    let page = async |document, name| {
        read(document).await.unwrap();
        order.lock().unwrap().push(name);
    };
    let (first, second) = (page(&long, "long"), page(&long, "long"));
    join4(first, second, page(&short, "short"), async { drop(in_use) }).await;
    assert_eq!(order.into_inner().unwrap(), ["long", "short", "long"]);
}

#[tokio::test]
async fn a_page_that_finds_no_memory_until_its_deadline_is_told_so() {
    let pool = Pool::new(4);
    let _others = pool.account.hold(ACCOUNT - pool.memory).unwrap();
    let document = pool.open(Kind::Picture, picture());
    let now = tokio::time::Instant::now().into_std();
    let busy = document.sheet(1, now + Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(busy, DocumentError::Busy);
    assert!(pool.account.hold(pool.memory).is_ok());
}

#[tokio::test]
async fn a_file_that_leaves_no_room_for_a_worker_is_refused_at_once() {
    let pool = Pool::new(5);
    let upload = Arc::new(pool.account.hold(ACCOUNT - pool.memory).unwrap());
    let document = pool.workers.open(Kind::Picture, picture(), Some(upload));
    assert_eq!(document.page_count(soon()).await, Err(DocumentError::Busy));
}

#[tokio::test]
async fn an_upload_gets_the_memory_of_workers_that_are_idle() {
    let pool = Pool::new(21);
    let document = pool.open(Kind::Picture, picture());
    assert_eq!(read(&document).await, Ok(picture()));
    let upload = pool.account.hold(0).unwrap();
    assert!(upload.take(ACCOUNT).is_err(), "the worker has the document open");
    upload.take_or_reclaim(ACCOUNT).await.unwrap();
    drop(upload);
    assert_eq!(read(&document).await, Ok(picture()), "it is opened again");
    assert_eq!(pool.count("document_workers", ""), 1);
}

#[tokio::test]
async fn the_files_of_all_documents_leave_room_for_a_worker_and_for_pages_that_are_being_read() {
    let pool = Pool::new(19);
    let documents = (0..9).map(|_| {
        let upload = Arc::new(pool.account.hold(20 * MIB).unwrap());
        pool.workers.open(Kind::Picture, picture(), Some(upload))
    });
    let mut documents: Vec<_> = documents.collect();
    for document in &documents[..8] {
        assert_eq!(document.page_count(soon()).await, Ok(1));
    }
    assert_eq!(documents[8].page_count(soon()).await, Err(DocumentError::Busy));
    documents.pop();
    let _being_read: Vec<_> = (0..4).map(|_| pool.account.hold(3 * MIB / 2).unwrap()).collect();
    assert_eq!(read(&documents[0]).await, Ok(picture()));
}

#[tokio::test]
async fn a_worker_that_is_killed_while_it_is_idle_is_replaced() {
    let pool = Pool::new(6);
    let document = pool.open(Kind::Picture, picture());
    assert_eq!(read(&document).await, Ok(picture()));
    let before = pool.pids();
    pool.signal(Signal::KILL);
    until("it is gone", async || pool.pids().is_empty()).await;
    assert_eq!(read(&document).await, Ok(picture()));
    assert_ne!(pool.pids(), before);
    assert_eq!(pool.ends("crash"), 1);
}

#[tokio::test]
async fn a_worker_that_is_killed_between_two_steps_of_a_page_is_replaced_and_the_page_is_drawn() {
    let pool = Pool::new(7);
    let document = pool.open(Kind::Picture, picture());
    let mut sheet = document.sheet(1, soon()).await.unwrap();
    sheet.plan(false).await.unwrap();
    pool.signal(Signal::KILL);
    assert_eq!(sheet.draw(Draw::AsStored).await.unwrap().0.bytes, picture());
    assert_eq!(pool.ends("crash"), 1);
}

#[tokio::test]
async fn a_step_that_ends_too_late_for_lack_of_cpu_time_may_be_repeated() {
    let pool = Pool::with(8, |limits| limits.step = Duration::from_millis(200));
    let document = pool.open(Kind::Picture, picture());
    let mut sheet = document.sheet(1, soon()).await.unwrap();
    sheet.plan(false).await.unwrap();
    pool.signal(Signal::STOP);
    assert_eq!(sheet.plan(false).await, Err(DocumentError::Busy));
    assert_eq!(pool.pids(), [], "it was killed");
    assert_eq!(pool.ends("\"time\""), 1);
    assert_eq!(read(&document).await, Ok(picture()));
}

/// A draft of a blank page, and a line for it.
async fn draft(pool: &Pool) -> (Draft, Vec<PageLines>) {
    let file = pdf::pdf(&[PdfPage::of_text(600, 800, &[])]);
    let draft = Draft::begin(pool.open(Kind::Pdf, file), &[1], soon()).await.unwrap();
    let polygon = [[50, 50], [350, 50], [350, 70], [50, 70]];
    let lines = vec![PlacedLine { text: "one line".to_owned(), polygon }];
    (draft, vec![PageLines { page: 1, size: Size::new(600, 800), lines }])
}

#[tokio::test]
async fn a_draft_whose_worker_is_lost_is_finished_by_another_one() {
    let pool = Pool::with(31, |limits| limits.step = Duration::from_secs(5));
    let (draft, lines) = draft(&pool).await;
    let begun = draft.document().clone();
    pool.signal(Signal::STOP);
    let file = draft.finish(lines, soon()).await.unwrap();
    assert!(file.len() > 1000);
    assert_eq!(pool.ends("\"time\""), 1);
    drop((begun, file));
    pool.until_all_is_free().await;
}

#[tokio::test]
async fn a_draft_is_not_finished_if_no_worker_becomes_free_in_time() {
    let pool = Pool::with(32, |limits| limits.workers = 1);
    let (draft, lines) = draft(&pool).await;
    let other = pool.open(Kind::Picture, picture());
    let busy = other.sheet(1, soon()).await.unwrap();
    let now = tokio::time::Instant::now().into_std();
    let finished = draft.finish(lines, now + Duration::from_millis(20)).await;
    assert_eq!(finished.map(|file| file.len()), Err(DocumentError::Busy));
    drop(busy);
    assert_eq!(read(&other).await, Ok(picture()), "the worker is free for others");
}

#[tokio::test]
async fn a_caller_who_leaves_in_the_middle_of_a_step_frees_its_worker_and_its_memory() {
    let pool = Pool::with(9, |limits| limits.workers = 1);
    let document = pool.open(Kind::Picture, picture());
    let mut sheet = document.sheet(1, soon()).await.unwrap();
    sheet.plan(false).await.unwrap();
    pool.signal(Signal::STOP);
    let left = tokio::time::timeout(Duration::from_millis(20), sheet.plan(false)).await;
    assert!(left.is_err());
    drop(sheet);
    assert_eq!(read(&document).await, Ok(picture()), "the only place is free again");
    assert_eq!(pool.ends("abandoned"), 1);
    drop(document);
    pool.until_all_is_free().await;
}

/// A BMP of 24 bits a pixel with so many pixels, and next to no data.
fn hollow(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"BM".to_vec();
    for field in [1054, 0, 54, 40, width, height, 1 | 24 << 16, 0, 1000, 0, 0, 0, 0_u32] {
        file.extend(field.to_le_bytes());
    }
    file.resize(1054, 0);
    file
}

async fn drawn(document: &Arc<Document>, size: Size) -> Result<Drawn, DocumentError> {
    let sheet = document.sheet(1, soon()).await?;
    Ok(sheet.draw(Draw::At(size)).await?.0)
}

#[tokio::test]
async fn a_picture_that_takes_more_memory_than_a_worker_has_is_told_the_limit() {
    let pool = Pool::new(15);
    let document = pool.open(Kind::Picture, hollow(9_000, 9_000));
    let told = drawn(&document, Size::new(10, 10)).await.unwrap_err();
    let allowed = pool.memory;
    let limit = DocumentError::TooComplex { resource: Resource::Memory, actual: None, allowed };
    assert_eq!((told, pool.ends("memory")), (limit, 1));
    let document = pool.open(Kind::Picture, picture());
    assert!(drawn(&document, Size::new(10, 10)).await.is_ok(), "the next one is drawn");
}

#[tokio::test]
async fn a_document_that_has_cost_three_workers_costs_no_further_one() {
    let pool = Pool::new(20);
    let document = pool.open(Kind::Picture, hollow(9_000, 9_000));
    let allowed = pool.memory;
    let limit = DocumentError::TooComplex { resource: Resource::Memory, actual: None, allowed };
    for lost in 1..=3 {
        let told = drawn(&document, Size::new(10, 10)).await;
        assert_eq!((told, pool.ends("memory")), (Err(limit.clone()), lost));
    }
    assert_eq!(document.sheet(1, soon()).await.unwrap_err(), limit);
    let other = pool.open(Kind::Picture, picture());
    assert_eq!(read(&other).await, Ok(picture()));
}

#[tokio::test]
async fn a_picture_with_more_pixels_than_allowed_is_refused_by_a_worker_that_goes_on() {
    let pool = Pool::new(16);
    let document = pool.open(Kind::Picture, hollow(30_000, 30_000));
    let too_large = DocumentError::PageTooLarge { actual: 900_000_000, allowed: 100_000_000 };
    assert_eq!(drawn(&document, Size::new(10, 10)).await, Err(too_large));
    assert_eq!(pool.pids().len(), 1);
}

/// A PDF of one page that narrows the area in which it draws, so often in a form that is drawn so many `times`. That takes
/// much time and little memory.
fn pdf(clips: usize, times: usize) -> Vec<u8> {
    let page = "/F Do\n".repeat(times);
    let form = "q 0 0 m 600 800 l 9 9 l W n Q\n".repeat(clips);
    let (page_length, form_length) = (page.len(), form.len());
    format!(
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n\
         2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n\
         3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R\
         /Resources<</XObject<</F 5 0 R>>>>>>endobj\n\
         4 0 obj<</Length {page_length}>>stream\n{page}endstream endobj\n\
         5 0 obj<</Type/XObject/Subtype/Form/BBox[0 0 600 800]/Length {form_length}>>stream\n\
         {form}endstream endobj\ntrailer<</Root 1 0 R>>\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn a_page_of_a_pdf_is_planned_in_points_and_drawn_in_pixels() {
    let pool = Pool::new(17);
    let document = pool.open(Kind::Pdf, pdf(1, 1));
    let mut sheet = document.sheet(1, soon()).await.unwrap();
    let plan = sheet.plan(false).await.unwrap();
    assert_eq!(plan.size, PageSize::Points { width: 600.0, height: 800.0 });
    let (drawn, _held) = sheet.draw(Draw::At(Size::new(60, 80))).await.unwrap();
    assert_eq!(probe(&drawn.bytes).unwrap().stored, Size::new(60, 80));
}

#[tokio::test]
async fn a_page_that_takes_more_memory_or_cpu_time_than_a_worker_has_is_told_the_limit() {
    let pool = Pool::with(18, |limits| limits.cpu_seconds = 1);
    for (file, size, limit) in [
        (pdf(1, 1), Size::new(9_000, 11_000), (Resource::Memory, pool.memory)),
        (pdf(2_000, 300), Size::new(600, 800), (Resource::CpuTime, 1_000)),
    ] {
        let document = pool.open(Kind::Pdf, file);
        let told = drawn(&document, size).await.unwrap_err();
        let (resource, allowed) = limit;
        assert_eq!(told, DocumentError::TooComplex { resource, actual: None, allowed });
    }
    assert_eq!((pool.ends("memory"), pool.ends("cpu_time")), (1, 1));
    let document = pool.open(Kind::Pdf, pdf(1, 1));
    assert!(drawn(&document, Size::new(60, 80)).await.is_ok(), "the next one is drawn");
}

#[tokio::test]
async fn an_idle_worker_is_ended_after_a_minute() {
    let pool = Pool::new(10);
    let document = pool.open(Kind::Picture, picture());
    assert_eq!(read(&document).await, Ok(picture()));
    drop(document);
    pool.until_all_is_free().await;
    tokio::time::pause();
    spawn(Workers::end_idle(Arc::downgrade(&pool.workers)));
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(pool.count("document_workers", ""), 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    tokio::time::resume();
    until("it has ended", async || pool.ends("idle") == 1).await;
    assert_eq!(pool.count("document_workers", ""), 0);
}

#[tokio::test]
async fn an_answer_that_no_worker_gives_ends_the_worker_before_it_takes_memory() {
    let hostile = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hostile-worker");
    let pool = Pool::with(11, |limits| limits.program = hostile.into());
    let document = pool.open(Kind::Picture, picture());
    assert_eq!(read(&document).await, Err(DocumentError::Interrupted));
    assert_eq!((pool.ends("malformed"), pool.pids()), (1, vec![]));
}

#[tokio::test]
async fn a_program_that_is_no_worker_is_our_fault_and_leaves_nothing() {
    for program in ["/bin/true", "/nowhere"] {
        let pool = Pool::with(12, |limits| limits.program = program.into());
        let document = pool.open(Kind::Picture, picture());
        assert_eq!(read(&document).await, Err(DocumentError::Interrupted), "{program}");
        pool.until_all_is_free().await;
    }
}

#[tokio::test]
async fn workers_end_with_the_pool() {
    let pool = Pool::new(13);
    let document = pool.open(Kind::Picture, picture());
    assert_eq!(read(&document).await, Ok(picture()));
    let Pool { workers, account, metrics, memory } = pool;
    let pool = Pool { workers: Pool::new(14).workers, account, metrics, memory };
    drop((document, workers));
    until("it is gone", async || pool.pids().is_empty()).await;
}

/// The command line of a worker.
fn worker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocr-gateway"));
    command.args(["document-worker", "--memory=67108864", "--cpu-seconds=10"]).env_clear();
    command
}

#[test]
fn a_worker_can_open_no_file_and_no_socket_start_nothing_and_take_no_more_memory() {
    let checked = worker().arg("--check").output().unwrap();
    let told = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(0), "{told}");
    assert_eq!(told.lines().filter(|line| line.starts_with("refused ")).count(), 5, "{told}");
}

#[test]
fn a_worker_dies_with_a_service_that_is_killed() {
    // The test holds the other end of the worker's input, so that its end does not end the worker.
    let line = format!(
        "exec 3<&0; {:?} document-worker --memory=67108864 --cpu-seconds=10 <&3 & wait",
        env!("CARGO_BIN_EXE_ocr-gateway")
    );
    let mut service = Command::new("/bin/sh")
        .args(["-c", &line])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _input = service.stdin.take();
    let mut output = service.stdout.take().unwrap();
    output.read_exact(&mut [0; 8]).expect("it is ready");
    service.kill().unwrap();
    service.wait().unwrap();
    output.read_to_end(&mut Vec::new()).expect("its output is closed, since it is gone");
}

#[test]
fn a_worker_ends_at_the_end_of_its_input() {
    let ended = worker().stdin(Stdio::null()).output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
}
