//! One worker process, as the service sees it: how it is started, asked and ended, and what its end means.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{DocumentError, Resource};
use super::page::Kind;
use super::settings::WorkerLimits;
use super::wire::{self, Reply, Request};
use crate::telemetry::metrics::{Counted, Metrics, WorkerEnd};

/// How long a worker may take from its start until it is ready. It takes some milliseconds.
const LONGEST_START: Duration = Duration::from_secs(10);

/// How long a process that was told to end, or has closed its pipes, may take to be gone.
const LONGEST_END: Duration = Duration::from_secs(1);

/// How many bytes of a worker's standard error are read after its end.
const LONGEST_ERRORS: u64 = 4096;

/// The unit of times in `/proc`: Linux tells them to all programs in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// The exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

/// The allocators of the C library and of `jemalloc` would keep what a document took, or map more than is used. Both
/// give it back at once.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
    ("_RJEM_MALLOC_CONF", "retain:false,dirty_decay_ms:0,muzzy_decay_ms:0,narenas:1"),
];

/// A worker process. It is killed if this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    errors: ChildStderr,
    metrics: Arc<Metrics>,
    _running: Counted,
}

/// A step that did not end with a reply.
#[derive(Debug)]
pub(super) enum Lost {
    /// The step exceeds a limit, or the reader fails on the document. A repeat would end in the same way.
    Document(DocumentError),
    /// The process was killed by somebody else, or died without a cause in the document.
    Accident,
    /// The process sent a reply that no worker sends.
    Malformed,
    /// The step exceeded its time limit. It took this long.
    Late(Duration),
    /// The caller's time is over, or the host had no processor for the worker.
    Busy,
}

/// The forbidden actions that a worker tried, by whether its cage refused them.
#[derive(Debug)]
pub struct CageReport {
    /// The actions that were refused.
    pub refused: Vec<String>,
    /// The actions that were possible.
    pub possible: Vec<String>,
}

/// Starts a worker that tries what it must not do.
///
/// # Errors
///
/// If it cannot be started.
pub async fn try_worker(limits: &WorkerLimits) -> io::Result<CageReport> {
    let trying = command(limits).arg("--check").output();
    let tried = timeout(LONGEST_START, trying).await??;
    let told = String::from_utf8_lossy(&tried.stdout);
    let lines = |start: &str| {
        let lines = told.lines().filter_map(|line| line.strip_prefix(start));
        let attempts = lines.filter_map(|line| line.split(':').next().map(str::to_owned));
        attempts.collect::<Vec<_>>()
    };
    let (refused, possible) = (lines("refused  "), lines("possible "));
    if refused.is_empty() {
        let told = String::from_utf8_lossy(&tried.stderr);
        return Err(io::Error::other(format!("a worker cannot be started: {}", told.trim())));
    }
    Ok(CageReport { refused, possible })
}

/// The command that starts a worker.
fn command(limits: &WorkerLimits) -> Command {
    let mut command = Command::new(&limits.program);
    command
        .arg("document-worker")
        .arg(format!("--memory={}", limits.memory))
        .arg(format!("--cpu-seconds={}", limits.cpu_seconds))
        .arg(format!("--page-pixels={}", limits.page_pixels))
        .args(limits.font.iter().flat_map(|font| ["--font".as_ref(), font.as_os_str()]))
        .env_clear()
        .envs(ALLOCATOR)
        .current_dir("/")
        // Ctrl-C in a terminal goes to the service alone, which finishes its pages.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Process {
    /// Starts a process and waits until it can be asked.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or its cage cannot be closed.
    pub(super) async fn start(limits: &WorkerLimits, metrics: &Arc<Metrics>) -> io::Result<Self> {
        let mut child = command(limits).spawn()?;
        let running = metrics.document_worker();
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else {
            return Err(io::Error::other("the process has no pipes"));
        };
        let metrics = Arc::clone(metrics);
        let mut process = Self { child, input, output, errors, metrics, _running: running };
        match timeout(LONGEST_START, wire::receive_reply(&mut process.output, 0)).await {
            Ok(Ok((Reply::Ready { unfiltered }, _))) => {
                if let Some(reason) = unfiltered {
                    warn_of_filter(&reason);
                }
                Ok(process)
            }
            Ok(Ok(_)) => Err(io::Error::other("the process is no document worker")),
            Ok(Err(_)) => {
                let (_, errors) = process.exit_and_errors().await;
                Err(io::Error::other(format!("the process ended at its start: {errors}")))
            }
            Err(_) => Err(io::Error::other("the process is not ready in time")),
        }
    }

    /// Whether the process has not ended.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The CPU time that the process has taken; zero if the system does not tell it.
    pub(super) fn cpu_time(&self) -> Duration {
        let stat = self.child.id().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")));
        let ticks = stat.and_then(Result::ok).and_then(|stat| cpu_ticks(&stat));
        TICK.saturating_mul(ticks.unwrap_or(0))
    }

    /// Has a step done, with a payload of at most `most` bytes in the reply. After an error the process must be ended.
    pub(super) async fn ask(
        &mut self,
        request: &Request,
        payload: &[u8],
        most: u64,
    ) -> io::Result<(Reply, Bytes)> {
        wire::send_request(&mut self.input, request, payload).await?;
        wire::receive_reply(&mut self.output, most).await
    }

    /// Ends an idle process.
    pub(super) async fn end(self, why: WorkerEnd) {
        let Self { mut child, input, metrics, _running, .. } = self;
        drop(input);
        if timeout(LONGEST_END, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
        metrics.document_worker_ended(why);
    }

    /// Kills the process and waits until it is gone.
    pub(super) async fn kill(mut self, why: WorkerEnd) {
        let _ = self.child.kill().await;
        self.metrics.document_worker_ended(why);
    }

    /// Finds out why the process failed, in a step on a document of this kind, and makes sure that it is gone.
    pub(super) async fn cause_of_failure(
        mut self,
        failure: &io::Error,
        kind: Kind,
        limits: &WorkerLimits,
    ) -> Lost {
        let metrics = Arc::clone(&self.metrics);
        let (end, lost) = if failure.kind() == io::ErrorKind::InvalidData {
            let _ = self.child.kill().await;
            (WorkerEnd::Malformed, Lost::Malformed)
        } else {
            let (status, errors) = self.exit_and_errors().await;
            verdict(status, &errors, kind, limits)
        };
        metrics.document_worker_ended(end);
        tracing::warn!(reason = end.label(), "a document worker ended");
        lost
    }

    /// The exit status of the process, and its standard error.
    async fn exit_and_errors(&mut self) -> (Option<ExitStatus>, String) {
        let mut written = Vec::new();
        let mut errors = (&mut self.errors).take(LONGEST_ERRORS);
        let _ = timeout(LONGEST_END, errors.read_to_end(&mut written)).await;
        let status = timeout(LONGEST_END, self.child.wait()).await;
        let status = status.ok().and_then(Result::ok);
        if status.is_none() {
            let _ = self.child.kill().await;
        }
        (status, String::from_utf8_lossy(&written).into_owned())
    }
}

/// The cause of a process that ended with `status` and wrote `errors`.
///
/// The standard library ends the process with SIGABRT both when an allocation fails and when the stack is full, and
/// tells them apart in a line. A stack that cannot grow for lack of memory is a SIGSEGV.
fn verdict(
    status: Option<ExitStatus>,
    errors: &str,
    kind: Kind,
    limits: &WorkerLimits,
) -> (WorkerEnd, Lost) {
    let too_complex = |resource, allowed| {
        Lost::Document(DocumentError::TooComplex { resource, actual: None, allowed })
    };
    let undecodable = |what: &str| Lost::Document(DocumentError::undecodable(kind, what));
    let signal = status.and_then(|status| status.signal());
    let code = status.and_then(|status| status.code());
    let has_overflowed = errors.contains("has overflowed its stack");
    let lacks_memory = errors.contains("memory allocation of") || signal == Some(libc::SIGSEGV);
    match (signal, code) {
        (Some(libc::SIGXCPU), _) => {
            let allowed = limits.cpu_seconds.saturating_mul(1000);
            (WorkerEnd::CpuTime, too_complex(Resource::CpuTime, allowed))
        }
        (Some(_), _) if has_overflowed => {
            (WorkerEnd::Panic, undecodable("is nested too deeply to be read"))
        }
        (Some(_), _) if lacks_memory => {
            (WorkerEnd::Memory, too_complex(Resource::Memory, limits.memory))
        }
        (Some(libc::SIGABRT | libc::SIGBUS | libc::SIGILL), _) | (_, Some(PANICKED)) => {
            (WorkerEnd::Panic, undecodable("is damaged in a way that the reader cannot handle"))
        }
        _ => (WorkerEnd::Crash, Lost::Accident),
    }
}

/// Why a step was not done after `waited`. The process had a processor for `computed` of that time.
///
/// A worker that got a processor for most of the time has a page that takes too long. Another one was kept waiting by
/// the load of the host, so its page may be tried again.
pub(super) fn verdict_of_late(waited: Duration, computed: Duration, limits: &WorkerLimits) -> Lost {
    let cpu_time = Duration::from_secs(limits.cpu_seconds);
    if computed < cpu_time.min(limits.step) * 9 / 10 {
        tracing::warn!(?waited, ?computed, "a document worker did not get enough CPU time");
        return Lost::Busy;
    }
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Lost::Document(DocumentError::TooComplex {
        resource: Resource::Time,
        actual: Some(milliseconds(waited)),
        allowed: milliseconds(limits.step),
    })
}

/// The CPU time in `/proc/PID/stat`: the sum of its fields 14 and 15 (proc(5)), in ticks. The second field is the name
/// of the program in parentheses, which may have spaces.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some(user.saturating_add(system))
}

/// Warns once that documents are read without the filter of system calls.
fn warn_of_filter(reason: &str) {
    static WARNED: std::sync::Once = std::sync::Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            reason,
            "this system does not filter the system calls of document workers: their memory and time are limited, \
             their access to files and network is not"
        );
    });
}

/// The result of `step`, unless it takes longer than it may or than until `until`.
pub(super) async fn in_time<T>(
    step: impl Future<Output = T>,
    longest: Duration,
    until: Instant,
) -> Result<T, Lost> {
    let started = Instant::now();
    let own = started + longest;
    let Ok(done) = timeout_at(own.min(until), step).await else {
        return Err(if until < own { Lost::Busy } else { Lost::Late(started.elapsed()) });
    };
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> WorkerLimits {
        WorkerLimits {
            workers: 1,
            memory: 1000,
            cpu_seconds: 2,
            step: Duration::from_secs(1),
            page_pixels: 10,
            font: None,
            program: "/proc/self/exe".into(),
        }
    }

    /// The reason and the error of an end by this wait status, as wait(2) encodes it.
    fn judged(status: i32, words: &str) -> (WorkerEnd, Option<DocumentError>) {
        let status = Some(ExitStatus::from_raw(status));
        let (end, lost) = verdict(status, words, Kind::Pdf, &limits());
        let error = match lost {
            Lost::Document(error) => Some(error),
            Lost::Accident => None,
            lost => panic!("{lost:?}"),
        };
        (end, error)
    }

    const fn too_complex(resource: Resource, allowed: u64) -> DocumentError {
        DocumentError::TooComplex { resource, actual: None, allowed }
    }

    #[test]
    fn an_end_for_lack_of_memory_or_cpu_time_is_told_with_the_limit() {
        let words = "memory allocation of 4096 bytes failed\n";
        assert_eq!(
            judged(libc::SIGABRT, words),
            (WorkerEnd::Memory, Some(too_complex(Resource::Memory, 1000)))
        );
        assert_eq!(
            judged(libc::SIGXCPU, ""),
            (WorkerEnd::CpuTime, Some(too_complex(Resource::CpuTime, 2000)))
        );
    }

    #[test]
    fn a_panic_and_a_full_stack_are_faults_of_the_document() {
        let words = "\nthread 'main' (7) has overflowed its stack\n";
        for (status, words) in [(PANICKED << 8, ""), (libc::SIGABRT, ""), (libc::SIGABRT, words)] {
            let (end, error) = judged(status, words);
            assert_eq!(end, WorkerEnd::Panic);
            assert!(matches!(error, Some(DocumentError::PdfUndecodable { .. })), "{error:?}");
        }
    }

    #[test]
    fn a_late_step_is_the_page_s_fault_only_if_it_computed_for_most_of_the_time_that_it_may() {
        let waited = Duration::from_millis(1001);
        let judged = |computed, cpu_seconds| {
            let limits = WorkerLimits { cpu_seconds, ..limits() };
            verdict_of_late(waited, Duration::from_millis(computed), &limits)
        };
        let expected = DocumentError::TooComplex {
            resource: Resource::Time,
            actual: Some(1001),
            allowed: 1000,
        };
        for computed in [900, 1001] {
            let lost = judged(computed, 2);
            assert!(matches!(&lost, Lost::Document(error) if *error == expected), "{lost:?}");
        }
        for computed in [0, 899] {
            assert!(matches!(judged(computed, 2), Lost::Busy));
            assert!(matches!(judged(computed, 1), Lost::Busy));
        }
    }

    #[test]
    fn the_cpu_time_of_a_process_is_read_whatever_its_name() {
        let stat = "7 (a) b ) S 1 7 7 0 -1 4194560 99 0 0 0 120 34 5 6 20 0 1 0 12 99 9";
        assert_eq!(cpu_ticks(stat), Some(154));
        assert_eq!(cpu_ticks("7 (a) S"), None);
        assert!(cpu_ticks(&std::fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }

    #[test]
    fn a_kill_by_somebody_else_and_an_end_without_cause_are_accidents() {
        for status in [libc::SIGKILL, libc::SIGTERM, 0, 1 << 8] {
            assert_eq!(judged(status, ""), (WorkerEnd::Crash, None));
        }
    }
}
