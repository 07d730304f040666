//! The conditions of a measurement.

use std::fs;
use std::time::Duration;

/// The durations of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) windows: usize,
    pub(crate) seconds: f64,
    /// From the last answer until the settled memory is read.
    pub(crate) settle: Duration,
}

/// The conditions of a measurement.
#[derive(Debug)]
pub(crate) struct Circumstances {
    /// The command line.
    pub(crate) command: String,
    pub(crate) pace: Pace,
    /// Whether each process had its own core.
    pub(crate) pins: bool,
    /// The machine's load averages before and after.
    pub(crate) load: [String; 2],
}

/// The machine's load average over the last minute.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
