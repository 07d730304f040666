//! Tests whether the gateway survives more uploads than its memory holds: a thousand uploads of ten
//! megabytes at once, to a process that may use half a gigabyte.

mod burst;
mod cage;
mod probe;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use self::burst::Heard;
use self::cage::Cage;
use self::probe::Probe;
use crate::circumstances::load_average;
use crate::figures::percentile;
use crate::http;
use crate::process;
use crate::subject::{COMPATIBLE, Rig, Subject};
use crate::terminal::{Failure, say};
use crate::upload::{self, Upload};
use crate::upstream::Manner;

#[derive(Debug, Args)]
pub(crate) struct FloodArgs {
    /// The gateway
    #[arg(long, value_name = "PATH")]
    gateway: PathBuf,
    /// Uploads at once
    #[arg(long, default_value_t = 1000)]
    uploads: usize,
    /// Number of floods, one after the other
    #[arg(long, default_value_t = 3)]
    floods: usize,
    /// Bytes of each body
    #[arg(long, default_value_t = 10_000_000)]
    bytes: usize,
    /// Memory that the gateway may use, in bytes
    #[arg(long, default_value_t = 512_000_000)]
    memory: u64,
    /// Time that the upstream takes for a page, in milliseconds
    #[arg(long, default_value_t = 500)]
    delay_ms: u64,
    /// The core of the gateway; all cores by default
    #[arg(long)]
    subject_core: Option<usize>,
    /// The core of callers and upstream; all cores by default
    #[arg(long)]
    load_core: Option<usize>,
}

/// The result of one flood.
#[derive(Debug)]
struct Flood {
    heard: Vec<Result<Heard, String>>,
    health: Vec<Result<Duration, String>>,
    /// The duration of each refusal, as logged by the gateway.
    refused: Vec<Duration>,
    /// The most resident memory of the process, in bytes.
    peak: u64,
}

/// Floods a gateway and prints the result.
///
/// # Errors
///
/// The process died, or a request was not answered 200, 429 or 503, or health was not 200.
pub(crate) fn run(arguments: &FloodArgs) -> Result<(), Failure> {
    let load_before = load_average();
    let cage = Cage::of(arguments.memory);
    let core = |core: Option<usize>| core.filter(|&core| process::can_pin(core));
    let rig = Rig::new(&[], core(arguments.subject_core), core(arguments.load_core))?;
    let delay_ms = arguments.delay_ms;
    let (_upstream, upstream) = rig.upstream(&Manner { delay_ms, ..Manner::PLAIN })?;
    let settings = cage.settings();
    let around = |command| cage.around(&command);
    let mut subject = rig.gateway_in(&arguments.gateway, upstream, [&settings, ""], around)?;
    let messages = messages(&subject, arguments.bytes);
    let mut floods = Vec::new();
    let mut died = false;
    for number in 1..=arguments.floods {
        say(&format!("flood {number} of {}", arguments.floods));
        floods.push(flood(&rig, &subject, &messages, arguments.uploads)?);
        let process = subject.process.as_mut().and_then(Rc::get_mut);
        died = process.is_none_or(process::Process::has_ended);
        if died {
            break;
        }
    }
    print(arguments, &cage, &floods, [load_before, load_average()], died)?;
    let wrong = floods.iter().flat_map(Flood::wrong).take(5).collect::<Vec<_>>();
    match (died, wrong.is_empty()) {
        (true, _) => Err("the gateway died".into()),
        (false, false) => Err(wrong.join("; ").into()),
        (false, true) => Ok(()),
    }
}

/// A JSON upload for `/ocr` and a drop-in request, each with a body of about so many bytes.
fn messages(subject: &Subject, bytes: usize) -> [Arc<Vec<u8>>; 2] {
    // The body without the picture's Base64 is smaller than this.
    let picture = Upload::of(bytes.saturating_sub(1000) / 4 * 3);
    let data = picture.base64();
    let document = format!(r#"{{"document":{{"type":"base64","data":"{data}"}}}}"#);
    let headers = [subject.authorization.clone(), format!("Content-Type: {}", upload::JSON)];
    [
        Arc::new(http::request("/ocr", &headers, document.as_bytes())),
        Arc::new(http::request(COMPATIBLE, &headers, &picture.json())),
    ]
}

fn flood(
    rig: &Rig,
    subject: &Subject,
    messages: &[Arc<Vec<u8>>],
    uploads: usize,
) -> Result<Flood, Failure> {
    let process = subject.process.as_ref().ok_or("the gateway is a process")?;
    let log = rig.file("gateway.log");
    let logged = fs::read_to_string(&log)?.len();
    process.forget_peak();
    let probe = Probe::start(subject.metrics.ok_or("the gateway has metrics")?);
    let heard = burst::fire(subject.address, messages, uploads)?;
    let health = probe.stop()?;
    let peak = process.peak().unwrap_or_default();
    let refused = refusals(&fs::read_to_string(&log)?[logged..]);
    Ok(Flood { heard, health, refused, peak })
}

/// The duration of each refusal, from the gateway's log, in whole milliseconds.
fn refusals(log: &str) -> Vec<Duration> {
    let lines = log.lines().filter(|line| line.contains(r#""code":"overloaded""#));
    let took =
        lines.filter_map(|line| line.split_once(r#""took.ms":"#)?.1.split([',', '}']).next());
    let took = took.filter_map(|number| number.parse().ok().map(Duration::from_millis));
    sorted(took.collect())
}

fn sorted(mut figures: Vec<Duration>) -> Vec<Duration> {
    figures.sort_unstable();
    figures
}

impl Flood {
    /// The violations of the requirements.
    fn wrong(&self) -> Vec<String> {
        let heard = self.heard.iter().filter_map(|heard| match heard {
            Ok(Heard { status: 200 | 429 | 503, .. }) => None,
            Ok(Heard { status, .. }) => Some(format!("answered {status}")),
            Err(error) => Some(format!("not answered: {error}")),
        });
        let health = self.health.iter().filter_map(|health| health.as_ref().err().cloned());
        heard.chain(health).collect()
    }

    fn answers(&self) -> String {
        let mut counted = BTreeMap::new();
        for heard in &self.heard {
            let name = heard.as_ref().map_or("none".to_owned(), |heard| heard.status.to_string());
            *counted.entry(name).or_insert(0) += 1;
        }
        let counted = counted.iter().map(|(status, count)| format!("{count} × {status}"));
        counted.collect::<Vec<_>>().join(", ")
    }

    fn row(&self) -> String {
        let refused = self.heard.iter().flatten().filter(|heard| heard.status == 503);
        let refused = sorted(refused.map(|heard| heard.took).collect());
        let health = sorted(self.health.iter().flatten().copied().collect());
        let mut row = format!("| {} |", self.answers());
        for (figures, percent) in [
            (&self.refused, 50),
            (&self.refused, 99),
            (&refused, 50),
            (&refused, 99),
            (&health, 50),
            (&health, 99),
        ] {
            let figure = percentile(figures, percent);
            let figure = figure.map_or_else(String::new, millis);
            // Writing into a string cannot fail.
            let _ = write!(row, " {figure} |");
        }
        let most = health.last().map_or_else(String::new, |took| millis(*took));
        format!("{row} {most} | {} | {} |", health.len(), self.peak / 1_000_000)
    }
}

fn millis(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64() * 1000.0)
}

fn print(
    arguments: &FloodArgs,
    cage: &Cage,
    floods: &[Flood],
    load: [String; 2],
    died: bool,
) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let FloodArgs { uploads, bytes, memory, delay_ms, .. } = arguments;
    let [before, after] = load;
    writeln!(
        out,
        "{uploads} uploads of {bytes} bytes at once; the gateway may use {memory} bytes of memory \
         ({}); the upstream takes {delay_ms} ms; load average {before} before, {after} after.\n",
        cage.name()
    )?;
    writeln!(
        out,
        "| answers | 503 by its log p50 ms | p99 ms | 503 at the caller p50 ms | p99 ms | health p50 ms \
         | p99 ms | most ms | probes | peak RSS MB |\n|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for flood in floods {
        writeln!(out, "{}", flood.row())?;
    }
    let life = if died { "died" } else { "lived" };
    let peak = cage.peak().map_or_else(String::new, |peak| {
        format!("; its group's most memory was {} MB", peak / 1_000_000)
    });
    writeln!(out, "\nThe process {life}{peak}.")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_from_the_log_and_nothing_else_is() {
        let log = concat!(
            r#"{"status":200,"took.ms":900,"message":"request answered"}"#,
            "\n",
            r#"{"status":503,"code":"overloaded","took.ms":12,"message":"request answered"}"#,
            "\n",
            r#"{"status":503,"code":"overloaded","took.ms":3}"#,
        );
        assert_eq!(refusals(log), [3, 12].map(Duration::from_millis));
    }

    #[test]
    fn whatever_is_no_answer_of_ours_is_wrong() {
        let heard = |status| Ok(Heard { status, took: Duration::ZERO });
        let flood = Flood {
            heard: vec![heard(200), heard(503), heard(500), Err("reset".to_owned())],
            health: vec![Ok(Duration::ZERO), Err("/livez: late".to_owned())],
            refused: Vec::new(),
            peak: 0,
        };
        assert_eq!(flood.wrong(), ["answered 500", "not answered: reset", "/livez: late"]);
        assert_eq!(flood.answers(), "1 × 200, 1 × 500, 1 × 503, 1 × none");
    }
}
