//! The cost of streams, from end to end: start the programs, measure, print.
//!
//! There are three measurements, each with an upstream of its own: the added delay of the first
//! byte, the cost of passing an event on, and the memory of a thousand slow streams at once. The
//! first two measure all subjects in turn, the third one process after the other.

mod crowd;
mod flow;
mod table;
mod target;

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use clap::Args;

use self::crowd::Gathering;
use self::flow::{Flow, Row};
use self::target::{Form, Hops, Programs, Target};
use crate::circumstances::{Circumstances, Pace, load_average};
use crate::process;
use crate::subject::Rig;
use crate::terminal::{Failure, say};
use crate::upload::{Billing, Upload};
use crate::upstream::Manner;

/// Events with such pauses that sixteen callers leave every subject idle most of the time: the time
/// to first byte then measures the hop, not a queue before it.
const LEISURELY: Manner = Manner { events: 10, interval_ms: 2, ..Manner::PLAIN };

/// At full speed, each event in a write of its own, as tokens arrive.
const SINGLY: Manner = Manner { events: 1000, ..Manner::PLAIN };

/// At full speed, fifty events in a write: the cost of an event without a wakeup.
const IN_HEAPS: Manner = Manner { together: 50, ..SINGLY };

#[derive(Debug, Args)]
pub(crate) struct StreamsArgs {
    /// The gateway's release binary
    #[arg(long, value_name = "PATH")]
    gateway: PathBuf,
    /// nginx; omitted if it cannot be run
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// Concurrent callers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    connections: Vec<usize>,
    /// Windows of each cell
    #[arg(long, default_value_t = 5)]
    windows: usize,
    /// The length of a window
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How long after the last end the settled memory is read, in seconds
    #[arg(long, default_value_t = 20)]
    settle_seconds: u64,
    /// The core of the gateway and of nginx
    #[arg(long, default_value_t = 0)]
    subject_core: usize,
    /// The core that listeners and upstream share
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// One short window of each measurement, to test that it works; the figures mean nothing
    #[arg(long)]
    quick: bool,
}

/// Runs all measurements and prints the tables.
pub(crate) fn run(arguments: &StreamsArgs) -> Result<(), Failure> {
    let pace = arguments.pace();
    let load_before = load_average();
    let uploads = Upload::all();
    let pins = process::can_pin(arguments.subject_core) && process::can_pin(arguments.load_core);
    let core = |core| pins.then_some(core);
    let rig = Rig::new(&uploads, core(arguments.subject_core), core(arguments.load_core))?;
    for upload in &uploads {
        for billing in [Billing::Told, Billing::Hidden] {
            fs::write(Form::Json(billing).file(&rig, upload), upload.stream_json(billing))?;
        }
    }
    let programs = Programs::new(&arguments.gateway, &arguments.nginx);
    let measuring = Measuring { rig: &rig, programs: &programs, arguments, pace: &pace };
    let [small, middle, _] = &uploads;
    let first = measuring.first_bytes(&[small, middle])?;
    let passing = [(SINGLY, "1"), (IN_HEAPS, "50")];
    let mut events = Vec::new();
    for (manner, name) in passing {
        events.extend(measuring.events(small, manner, name)?);
    }
    let crowds = crowd::measure(&rig, &programs, Gathering::all(arguments.quick), small, &pace)?;
    let circumstances = Circumstances {
        command: env::args().collect::<Vec<_>>().join(" "),
        pace,
        pins,
        load: [load_before, load_average()],
    };
    Ok(table::print(&circumstances, &first, &events, &crowds)?)
}

impl StreamsArgs {
    fn pace(&self) -> Pace {
        if self.quick {
            return Pace { windows: 1, seconds: 0.3, settle: Duration::from_secs(1) };
        }
        let Self { windows, seconds, settle_seconds, .. } = *self;
        Pace { windows, seconds, settle: Duration::from_secs(settle_seconds) }
    }
}

/// The parameters of the measurements.
struct Measuring<'a> {
    rig: &'a Rig,
    programs: &'a Programs<'a>,
    arguments: &'a StreamsArgs,
    pace: &'a Pace,
}

impl Measuring<'_> {
    /// The time to the first byte, through each interface and directly.
    fn first_bytes(&self, uploads: &[&Upload]) -> Result<Vec<Row>, Failure> {
        let hops = Hops::start(self.rig, self.programs, LEISURELY)?;
        let mut targets = vec![
            Target::compatible("gateway", &hops.gateway, Billing::Told),
            Target::aloud("gateway, `/ocr`", &hops.gateway),
        ];
        targets.extend(hops.beside());
        let mut rows = Vec::new();
        for upload in uploads {
            rows.extend(self.in_turn(&targets, upload, LEISURELY, upload.name)?);
        }
        Ok(rows)
    }

    /// The cost of passing an event on.
    fn events(
        &self,
        upload: &Upload,
        manner: Manner,
        name: &'static str,
    ) -> Result<Vec<Row>, Failure> {
        let hops = Hops::start(self.rig, self.programs, manner)?;
        let mut targets = vec![
            Target::compatible("gateway", &hops.gateway, Billing::Told),
            Target::compatible("gateway, bill hidden", &hops.gateway, Billing::Hidden),
            Target::aloud("gateway, `/ocr`", &hops.gateway),
        ];
        targets.extend(hops.beside());
        self.in_turn(&targets, upload, manner, name)
    }

    fn in_turn(
        &self,
        targets: &[Target<'_>],
        upload: &Upload,
        manner: Manner,
        name: &'static str,
    ) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        for &connections in &self.arguments.connections {
            say(&format!("{name} from {connections}"));
            let flow = Flow { name, upload, connections, events: manner.events };
            rows.extend(flow.measure(self.rig, targets, self.pace)?);
        }
        Ok(rows)
    }
}
