//! How much the gateway holds: idle, with many large uploads in flight, and after.
//!
//! A process of its own, so that no earlier window has grown its heap, in front of an upstream that
//! waits long enough for all uploads to be held at once.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::Failure;
use crate::cell::Cell;
use crate::subject::Rig;
use crate::upload::Upload;
use crate::upstream::Manner;

/// How many uploads are held at once.
pub(crate) const IN_FLIGHT: usize = 64;

/// How long the upstream takes. All uploads must be in by then, or they are not held at once.
const UPSTREAM_DELAY: Duration = Duration::from_secs(3);

/// How long a process is left alone before its idle memory is read.
const REST: Duration = Duration::from_secs(1);

/// Resident bytes of one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Started, with nothing asked yet.
    pub(crate) idle: u64,
    /// The most while uploads were in flight.
    pub(crate) peak: u64,
    /// Some time after the last answer.
    pub(crate) settled: u64,
    /// The bytes of all files in flight.
    pub(crate) raw: u64,
}

/// Holds `upload` [`IN_FLIGHT`] times in a new gateway and reads its memory before, at the worst
/// moment, and `settle` later.
pub(crate) fn measure(
    rig: &Rig,
    gateway: &Path,
    upload: &Upload,
    settle: Duration,
) -> Result<Memory, Failure> {
    let delay_ms = UPSTREAM_DELAY.as_secs() * 1000;
    let (_upstream, address) = rig.upstream(&Manner { delay_ms, ..Manner::PLAIN })?;
    let subject = rig.gateway(gateway, address)?;
    let process = subject.process.as_ref().ok_or("the gateway is a process")?;
    thread::sleep(REST);
    let idle = process.resident()?;
    process.forget_peak();
    let cell = Cell { upload, connections: IN_FLIGHT };
    rig.load(&subject, &cell, UPSTREAM_DELAY.as_secs_f64())?;
    let peak = process.peak()?;
    thread::sleep(settle);
    let raw = u64::try_from(upload.file.len() * IN_FLIGHT)?;
    Ok(Memory { idle, peak, settled: process.resident()?, raw })
}
