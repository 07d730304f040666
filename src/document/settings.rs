//! The settings section `[documents]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::capacity::Ceiling;

/// The settings section `[documents]`. `config/default.toml` has the meaning and default of each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentSettings {
    /// Pages that one request may read.
    pub max_pages: u32,
    /// Pixels that a page, or a picture on it, may have.
    pub max_page_pixels: u64,
    /// Pages of one document that are worked on at once.
    pub pages_at_once: usize,
    /// Worker processes at most.
    pub workers: Ceiling,
    /// Memory of one worker, in bytes.
    pub worker_memory_bytes: Ceiling,
    /// CPU time of one step of a page.
    pub page_cpu_seconds: u64,
    /// Longest step of a page.
    pub page_timeout_ms: u64,
    /// The font for CJK text whose font is not in the PDF; empty for the first that is found in the known places.
    pub fallback_font: PathBuf,
    /// The program of the workers: this program itself, except in tests that run the service in another one.
    #[serde(skip, default = "this_program")]
    pub program: PathBuf,
}

/// The running program, also after its file was replaced.
fn this_program() -> PathBuf {
    "/proc/self/exe".into()
}

/// What the workers may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Processes at once.
    pub workers: usize,
    /// Memory of one, in bytes, beyond what it has before it reads.
    pub memory: u64,
    /// CPU time of one step.
    pub cpu_seconds: u64,
    /// Longest step.
    pub step: Duration,
    /// Pixels that a page, or a picture on it, may have.
    pub page_pixels: u64,
}

/// Settings of documents that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentSettingsError {
    /// A worker would never find room.
    #[error(
        "documents.worker_memory_bytes: {memory} and a page of {drawn} bytes do not fit into \
         server.max_in_flight_bytes ({allowed}) beside an upload of server.max_body_bytes ({body}): lower it, or \
         raise server.max_in_flight_bytes"
    )]
    MemoryNeverFits {
        /// Memory of one worker.
        memory: u64,
        /// The largest drawn page.
        drawn: u64,
        /// Bytes in flight.
        allowed: u64,
        /// The largest upload.
        body: u64,
    },
    /// The machine would have more processes than make sense.
    #[error("documents.workers: {actual} is above {allowed}")]
    TooManyWorkers {
        /// The setting.
        actual: u64,
        /// The most.
        allowed: u64,
    },
}
