//! The measurement from end to end: start the programs, measure the cells, print.
//!
//! Throughput and CPU come first, with one gateway for all cells; memory comes last, with a gateway
//! of its own. If several gateways are compared, the memory of each is measured.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Args;

use crate::cell::Cell;
use crate::circumstances::{Circumstances, Pace, load_average};
use crate::subject::Rig;
use crate::terminal::{Failure, say};
use crate::upload::Upload;
use crate::upstream::Manner;
use crate::window::{Row, measure};
use crate::{memory, process, table};

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The gateway's release binary; repeatable, to compare another build
    #[arg(long, required = true, value_name = "PATH")]
    gateway: Vec<PathBuf>,
    /// nginx; omitted if it cannot be run
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// Concurrent callers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    connections: Vec<usize>,
    /// Only this upload of the table, such as "60 KB"; repeatable
    #[arg(long, value_name = "NAME")]
    upload: Vec<String>,
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
    /// One short window of each measurement, to test that it works; the figures mean nothing
    #[arg(long)]
    quick: bool,
}

/// Runs all measurements and prints the tables.
pub(crate) fn run(arguments: &RunArgs) -> Result<(), Failure> {
    let pace = pace_of(arguments);
    let load_before = load_average();
    let uploads = Upload::all();
    let pins = process::can_pin(arguments.subject_core) && process::can_pin(arguments.load_core);
    let core = |core| pins.then_some(core);
    let rig = Rig::new(&uploads, core(arguments.subject_core), core(arguments.load_core))?;
    let rows = all_cells(&rig, arguments, &pace, &uploads)?;
    let [small, .., large] = &uploads;
    let mut memories = Vec::new();
    let measured = arguments.upload.is_empty().then_some(&arguments.gateway);
    for gateway in measured.into_iter().flatten() {
        say(&format!("memory of {}", gateway.display()));
        memories.extend(memory::measure(&rig, gateway, [small, large], pace.settle)?);
    }
    let circumstances = Circumstances {
        command: env::args().collect::<Vec<_>>().join(" "),
        pace,
        pins,
        load: [load_before, load_average()],
    };
    Ok(table::print(&circumstances, &rows, &memories)?)
}

fn pace_of(arguments: &RunArgs) -> Pace {
    if arguments.quick {
        return Pace { windows: 1, seconds: 0.3, settle: Duration::from_secs(1) };
    }
    let RunArgs { windows, seconds, .. } = *arguments;
    Pace { windows, seconds, settle: Duration::from_secs(arguments.settle_seconds) }
}

fn all_cells(
    rig: &Rig,
    arguments: &RunArgs,
    pace: &Pace,
    uploads: &[Upload],
) -> Result<Vec<Row>, Failure> {
    let (_upstream, upstream) = rig.upstream(&Manner::PLAIN)?;
    let mut subjects = Vec::new();
    for path in &arguments.gateway {
        let gateway = rig.gateway(path, upstream)?;
        subjects.extend([gateway.asked_with_multipart(), gateway.asked_as_vendor()]);
        subjects.push(gateway);
    }
    if process::succeeds(Command::new(&arguments.nginx).arg("-v")) {
        subjects.push(rig.nginx(&arguments.nginx, upstream)?);
    } else {
        say("nginx cannot be run and is left out");
    }
    subjects.push(Rig::direct(upstream));
    let mut rows = Vec::new();
    let is_asked = |upload: &&Upload| {
        arguments.upload.is_empty() || arguments.upload.iter().any(|name| name == upload.name)
    };
    for upload in uploads.iter().filter(is_asked) {
        for connections in &arguments.connections {
            say(&format!("{} from {connections}", upload.name));
            let cell = Cell { upload, connections: *connections };
            rows.extend(measure(&cell, rig, &subjects, pace)?);
        }
    }
    Ok(rows)
}
