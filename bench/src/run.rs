//! The measurement: every subject in turn, window after window, and the median of each.
//!
//! Within a cell (a size at a concurrency) the subjects take turns, the first of one window being
//! the last of the next, so that the machine's moods meet all of them alike. A window with an error
//! is void and said to be.

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs, thread};

use clap::Args;

use crate::load::Outcome;
use crate::process::{self, Process};
use crate::subject::{Rig, Subject};
use crate::upload::Upload;
use crate::{Failure, memory, say, table};

/// How long each subject is warmed up at the start of a cell, in seconds.
const WARM_UP: f64 = 0.5;

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The gateway's release binary
    #[arg(long)]
    gateway: PathBuf,
    /// nginx; left out where it cannot be run
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// Callers at once, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    connections: Vec<usize>,
    /// Windows of each cell
    #[arg(long, default_value_t = 5)]
    windows: usize,
    /// The length of a window
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How long after the last answer the settled memory is read, in seconds
    #[arg(long, default_value_t = 60.0)]
    settle: f64,
    /// The core of the gateway and of nginx
    #[arg(long, default_value_t = 0)]
    subject_core: usize,
    /// The core that load and upstream share
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// One short window of everything, to see that it works; the figures mean nothing
    #[arg(long)]
    quick: bool,
}

/// What one window showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) outcome: Outcome,
    /// CPU time of the subject for each request, in milliseconds; none without a process.
    pub(crate) cpu_ms: Option<f64>,
    /// The most resident bytes; none without a process.
    pub(crate) peak: Option<u64>,
}

/// What one subject showed at one size and concurrency.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) subject: &'static str,
    pub(crate) size: &'static str,
    pub(crate) connections: usize,
    pub(crate) windows: Vec<Window>,
    /// Windows with an error.
    pub(crate) void: usize,
}

/// Measures everything and prints the tables.
pub(crate) fn run(arguments: &RunArgs) -> Result<(), Failure> {
    let (windows, seconds, settle) = match arguments.quick {
        true => (1, 0.3, 1.0),
        false => (arguments.windows, arguments.seconds, arguments.settle),
    };
    let load_before = load_average();
    let uploads = Upload::all();
    let pins = process::can_pin(arguments.subject_core) && process::can_pin(arguments.load_core);
    let core = |core| pins.then_some(core);
    let rig = Rig::new(&uploads, core(arguments.subject_core), core(arguments.load_core))?;
    let mut rows = Vec::new();
    {
        let (_upstream, upstream) = rig.upstream(Duration::ZERO)?;
        let mut subjects = vec![rig.gateway(&arguments.gateway, upstream)?];
        let mut version = std::process::Command::new(&arguments.nginx);
        version.arg("-v");
        if process::succeeds(version) {
            subjects.push(rig.nginx(&arguments.nginx, upstream)?);
        } else {
            say("nginx cannot be run and is left out");
        }
        subjects.push(Rig::direct(upstream));
        for upload in &uploads {
            for connections in &arguments.connections {
                rows.extend(cell(&rig, &subjects, upload, *connections, windows, seconds)?);
            }
        }
    }
    say("memory");
    let settle = Duration::try_from_secs_f64(settle)?;
    let [.., large] = &uploads;
    let memory = memory::measure(&rig, &arguments.gateway, large, settle)?;
    let command: Vec<_> = env::args().collect();
    let circumstances = table::Circumstances {
        command: command.join(" "),
        windows,
        seconds,
        pins,
        load: [load_before, load_average()],
    };
    Ok(table::print(&circumstances, &rows, &memory, settle)?)
}
