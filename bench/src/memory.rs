//! The memory of the gateway: idle, with many large uploads in flight, and afterwards.
//!
//! Each form of upload has a process of its own, so that no earlier window has grown its heap. The
//! upstream waits long enough for all uploads to be held at once.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::cell::Cell;
use crate::subject::{Rig, Subject};
use crate::terminal::Failure;
use crate::upload::Upload;
use crate::upstream::Manner;

/// Number of uploads in flight.
pub(crate) const IN_FLIGHT: usize = 64;

/// The upstream's delay. All uploads must arrive within it, or they are not held at once.
const UPSTREAM_DELAY: Duration = Duration::from_secs(3);

/// The idle time of a process before its memory is read.
const REST: Duration = Duration::from_secs(3);

/// Resident bytes of one process.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The request, and how it was sent.
    pub(crate) subject: String,
    /// After the start, with one small upload answered, which loads the code for it into memory.
    pub(crate) idle: u64,
    /// The peak while uploads were in flight.
    pub(crate) peak: u64,
    /// Some time after the last answer.
    pub(crate) settled: u64,
    /// The total bytes of all bodies in flight.
    pub(crate) raw: u64,
}

/// Holds `upload` [`IN_FLIGHT`] times in a new gateway for each form, and reads its memory before,
/// at the peak, and `settle` later.
pub(crate) fn measure(
    rig: &Rig,
    gateway: &Path,
    [small, upload]: [&Upload; 2],
    settle: Duration,
) -> Result<Vec<Memory>, Failure> {
    let ways: [fn(&Subject) -> Subject; 3] =
        [Subject::asked_with_file, Subject::asked_with_multipart, Subject::asked_as_vendor];
    let delay_ms = UPSTREAM_DELAY.as_secs() * 1000;
    let (_upstream, address) = rig.upstream(&Manner { delay_ms, ..Manner::PLAIN })?;
    let mut memories = Vec::new();
    for way in ways {
        let subject = way(&rig.gateway(gateway, address)?);
        memories.push(hold(rig, &subject, [small, upload], settle)?);
    }
    Ok(memories)
}

fn hold(
    rig: &Rig,
    subject: &Subject,
    [small, upload]: [&Upload; 2],
    settle: Duration,
) -> Result<Memory, Failure> {
    let process = subject.process.as_ref().ok_or("the gateway is a process")?;
    rig.check(subject, small)?;
    thread::sleep(REST);
    let idle = process.resident()?;
    process.forget_peak();
    let cell = Cell { upload, connections: IN_FLIGHT };
    rig.load(subject, &cell, UPSTREAM_DELAY.as_secs_f64())?;
    let peak = process.peak()?;
    thread::sleep(settle);
    let raw = u64::try_from(subject.form.body(upload).len() * IN_FLIGHT)?;
    Ok(Memory { subject: subject.name.clone(), idle, peak, settled: process.resident()?, raw })
}
