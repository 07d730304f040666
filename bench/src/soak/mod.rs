//! Half an hour of mixed load with faults, and a check for leaks.
//!
//! Uploads of all sizes, in every form, streamed and whole, meet an upstream that throttles, fails,
//! breaks off and hangs; a quarter of the callers leave, at every possible point. Meanwhile memory
//! is sampled. Afterwards nothing may be left: no request, no byte, no socket, no thread, nothing
//! reserved; and the ledger must match the upstream's bill to the token. Calls that the upstream
//! may have billed without reporting it count at their bound in the ledger, and are listed
//! separately.

mod callers;
mod promises;
mod samples;
mod upstream;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use self::callers::Callers;
use self::samples::{Sample, Samples};
use self::upstream::Tally;
use crate::subject::Rig;
use crate::terminal::{Failure, say};
use crate::upload::Upload;

/// The gateway's settings for a soak: timeouts that expire within it, and retries that do not slow
/// it.
const SETTINGS: [(&str, &str); 8] = [
    ("OCR_GATEWAY__SERVER__IDLE_TIMEOUT_MS", "2000"),
    ("OCR_GATEWAY__SERVER__KEEP_ALIVE_TIMEOUT_MS", "20000"),
    ("OCR_GATEWAY__UPSTREAM__FIRST_BYTE_TIMEOUT_MS", "6000"),
    ("OCR_GATEWAY__UPSTREAM__IDLE_TIMEOUT_MS", "6000"),
    ("OCR_GATEWAY__UPSTREAM__TOTAL_TIMEOUT_MS", "12000"),
    ("OCR_GATEWAY__UPSTREAM__BACKOFF_BASE_MS", "20"),
    ("OCR_GATEWAY__UPSTREAM__BACKOFF_CAP_MS", "200"),
    ("OCR_GATEWAY__UPSTREAM__RETRY_BUDGET_FLOOR_PER_SECOND", "1000"),
];

/// Longer than the gateway keeps an idle connection. For callers that is 20 s here; for the
/// upstream it is 30 s, and hyper-util checks for idle connections only once in that time, so it
/// can be twice as long.
const QUIET: Duration = Duration::from_secs(65);

/// The time limit of the last requests.
const LAST_REQUESTS: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// The gateway's release binary
    #[arg(long, value_name = "PATH")]
    gateway: PathBuf,
    /// How long the load lasts
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Callers at once
    #[arg(long, default_value_t = 12)]
    callers: u64,
    /// Seed of all random choices; the same seed makes the same choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Soaks the gateway and prints the result.
///
/// # Errors
///
/// A promise is broken or cannot be checked.
pub(crate) fn run(arguments: &SoakArgs) -> Result<(), Failure> {
    let uploads = Upload::all();
    // Without cores of their own, so that all programs disturb each other.
    let rig = Rig::new(&uploads, None, None)?;
    let tally = Arc::new(Tally::default());
    let upstream = upstream::start(arguments.seed, Arc::clone(&tally))?;
    let gateway = rig.gateway_with(&arguments.gateway, upstream, &SETTINGS)?;
    let process = gateway.process.as_ref().ok_or("the gateway is a process")?;
    // The first request opens the connections and files that are kept open.
    rig.check(&gateway, &uploads[0])?;
    thread::sleep(Duration::from_secs(1));
    let before = Sample::of(process)?;

    let duration = Duration::try_from_secs_f64(arguments.minutes * 60.0)?;
    let until = Instant::now() + duration;
    let callers = Callers::start(&gateway, &uploads, arguments.callers, arguments.seed, until);
    let mut samples = Samples::default();
    while Instant::now() < until {
        thread::sleep(samples::pause(duration).min(until - Instant::now().min(until)));
        samples.add(Sample::of(process)?);
    }
    say("no new requests; waiting for the last");
    let asked = callers.join()?;
    promises::wait_for_the_last(&gateway, LAST_REQUESTS)?;
    thread::sleep(QUIET);
    let after = Sample::of(process)?;

    let found = promises::Found::gather(&rig, &gateway, &arguments.gateway)?;
    let report = promises::Report { asked, tally: tally.read(), samples, before, after, found };
    report.print()
}
