//! `ocr-gateway document-worker`: a process that reads documents for the service, which starts it.
//!
//! It runs before anything that only a service needs: no runtime, no settings, no TLS.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::{Failure, failed};
use crate::document::cage::{self, Attempt, CageLimits};
use crate::document::worker::{self, WorkerSetup};

/// What the service tells a worker at its start.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// Memory beyond that of the start, in bytes.
    #[arg(long, value_name = "BYTES")]
    memory: u64,
    /// CPU time of one step.
    #[arg(long, value_name = "SECONDS")]
    cpu_seconds: u64,
    /// Pixels that a page, or a picture on it, may have.
    #[arg(long, value_name = "N", default_value_t = 0)]
    page_pixels: u64,
    /// The font for CJK text whose font is not in the PDF.
    #[arg(long, value_name = "FILE")]
    font: Option<PathBuf>,
    /// Try what a worker must not do, say what was refused, and end.
    #[arg(long)]
    check: bool,
}

/// Answers requests on standard input until it ends.
pub(super) fn run(arguments: WorkerArgs) -> ExitCode {
    let WorkerArgs { memory, cpu_seconds, page_pixels, font, check } = arguments;
    let limits = CageLimits { memory, cpu_seconds };
    let done = if check {
        try_cage(limits)
    } else {
        worker::run(&WorkerSetup { limits, page_pixels, font }).map_err(Into::into)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

/// Writes a line for each attempt, and fails if one succeeded.
fn try_cage(limits: CageLimits) -> Result<(), Failure> {
    let attempts = cage::try_cage(limits)?;
    let mut out = std::io::stdout();
    for Attempt { what, refusal } in &attempts {
        match refusal {
            Some(refusal) => writeln!(out, "refused  {what}: {refusal}")?,
            None => writeln!(out, "possible {what}")?,
        }
    }
    let possible: Vec<_> = attempts.iter().filter(|attempt| attempt.refusal.is_none()).collect();
    if possible.is_empty() {
        return Ok(());
    }
    let what: Vec<_> = possible.iter().map(|attempt| attempt.what).collect();
    Err(format!("a worker could {}", what.join(", ")).into())
}
