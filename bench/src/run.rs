//! The measurement: every subject in turn, window after window, and the median of each.
//!
//! Within a cell (a size at a concurrency) the subjects take turns, the first of one window being
//! the last of the next, so that the machine's moods meet all of them alike. A window with an error
//! is void and said to be.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use clap::Args;

use crate::load::Outcome;
use crate::process;
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
    #[arg(long, default_value_t = 60)]
    settle_seconds: u64,
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
    let pace = Pace::of(arguments);
    let load_before = load_average();
    let uploads = Upload::all();
    let pins = process::can_pin(arguments.subject_core) && process::can_pin(arguments.load_core);
    let core = |core| pins.then_some(core);
    let rig = Rig::new(&uploads, core(arguments.subject_core), core(arguments.load_core))?;
    let rows = all_cells(&rig, arguments, &pace, &uploads)?;
    say("memory");
    let [.., large] = &uploads;
    let memory = memory::measure(&rig, &arguments.gateway, large, pace.settle)?;
    let circumstances = Circumstances {
        command: env::args().collect::<Vec<_>>().join(" "),
        pace,
        pins,
        load: [load_before, load_average()],
    };
    Ok(table::print(&circumstances, &rows, &memory)?)
}

/// How long it is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) windows: usize,
    pub(crate) seconds: f64,
    /// From the last answer until the settled memory is read.
    pub(crate) settle: Duration,
}

impl Pace {
    fn of(arguments: &RunArgs) -> Self {
        if arguments.quick {
            return Self { windows: 1, seconds: 0.3, settle: Duration::from_secs(1) };
        }
        let RunArgs { windows, seconds, .. } = *arguments;
        Self { windows, seconds, settle: Duration::from_secs(arguments.settle_seconds) }
    }
}

/// What the figures depend on.
#[derive(Debug)]
pub(crate) struct Circumstances {
    /// What was typed.
    pub(crate) command: String,
    pub(crate) pace: Pace,
    /// Whether everything had its core.
    pub(crate) pins: bool,
    /// The machine's load averages before and after.
    pub(crate) load: [String; 2],
}

fn all_cells(
    rig: &Rig,
    arguments: &RunArgs,
    pace: &Pace,
    uploads: &[Upload],
) -> Result<Vec<Row>, Failure> {
    let (_upstream, upstream) = rig.upstream(Duration::ZERO)?;
    let mut subjects = vec![rig.gateway(&arguments.gateway, upstream)?];
    if process::succeeds(Command::new(&arguments.nginx).arg("-v")) {
        subjects.push(rig.nginx(&arguments.nginx, upstream)?);
    } else {
        say("nginx cannot be run and is left out");
    }
    subjects.push(Rig::direct(upstream));
    let mut rows = Vec::new();
    for upload in uploads {
        for connections in &arguments.connections {
            say(&format!("{} from {connections}", upload.name));
            rows.extend(cell(rig, &subjects, upload, *connections, pace)?);
        }
    }
    Ok(rows)
}

/// All subjects at one size and concurrency.
fn cell(
    rig: &Rig,
    subjects: &[Subject],
    upload: &Upload,
    connections: usize,
    pace: &Pace,
) -> Result<Vec<Row>, Failure> {
    let (size, windows) = (upload.name, Vec::new());
    let mut rows: Vec<_> = subjects
        .iter()
        .map(|subject| Row {
            subject: subject.name,
            size,
            connections,
            windows: windows.clone(),
            void: 0,
        })
        .collect();
    for subject in subjects {
        rig.check(subject, upload)?;
        rig.load(subject, upload, connections, pace.seconds.min(WARM_UP))?;
    }
    for turn in 0..pace.windows {
        for place in 0..subjects.len() {
            let index = (turn + place) % subjects.len();
            match window(rig, &subjects[index], upload, connections, pace.seconds) {
                Ok(window) => rows[index].windows.push(window),
                Err(failure) => {
                    say(&format!("a window of {} is void: {failure}", subjects[index].name));
                    rows[index].void += 1;
                }
            }
        }
    }
    Ok(rows)
}

fn window(
    rig: &Rig,
    subject: &Subject,
    upload: &Upload,
    connections: usize,
    seconds: f64,
) -> Result<Window, Failure> {
    let Some(process) = &subject.process else {
        let outcome = rig.load(subject, upload, connections, seconds)?;
        return Ok(Window { outcome, cpu_ms: None, peak: None });
    };
    process.forget_peak();
    let before = process.cpu_time()?;
    let outcome = rig.load(subject, upload, connections, seconds)?;
    let spent = process.cpu_time()?.saturating_sub(before);
    let cpu_ms = spent.as_secs_f64() * 1e3 / f64::from(outcome.requests);
    Ok(Window { outcome, cpu_ms: Some(cpu_ms), peak: Some(process.peak()?) })
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
