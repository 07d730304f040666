//! Callers that each request a stream, read it to its end, and repeat.
//!
//! Each has a thread, as in `load` and for the same reason, even for a thousand: their stacks are
//! small, and one that waits costs nothing. Streams in progress at the end of the time are read to
//! their end and counted. The first incomplete stream ends the run.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::events::{self, Whole};
use crate::figures::{number, percentile};
use crate::http::{self, Connection};
use crate::terminal::Failure;

/// Bytes of a caller's stack.
const STACK: usize = 256 * 1024;

#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// Address to send requests to
    #[arg(long)]
    address: SocketAddr,
    /// Path to post to
    #[arg(long)]
    path: String,
    /// A header, 'Name: value'; repeatable
    #[arg(long = "header")]
    headers: Vec<String>,
    /// File with the body
    #[arg(long)]
    body: PathBuf,
    #[command(flatten)]
    whole: Whole,
    #[command(flatten)]
    crowd: Crowd,
}

/// The number of callers and their behaviour.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Crowd {
    /// Concurrent callers
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// How long new streams are requested; each caller requests at least one
    #[arg(long, default_value_t = 0.0)]
    pub(crate) seconds: f64,
    /// Milliseconds over which the callers' first requests are spread
    #[arg(long, default_value_t = 0)]
    pub(crate) spread_ms: u64,
    /// Milliseconds for which a caller reads nothing after its request
    #[arg(long, default_value_t = 0)]
    pub(crate) deaf_ms: u64,
}

impl Crowd {
    /// The crowd as command-line arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { connections, seconds, spread_ms, deaf_ms } = self;
        vec![
            format!("--connections={connections}"),
            format!("--seconds={seconds}"),
            format!("--spread-ms={spread_ms}"),
            format!("--deaf-ms={deaf_ms}"),
        ]
    }
}

/// The measurements. `listen` prints their text form and `streams` reads it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Heard {
    /// Number of complete streams.
    pub(crate) streams: u64,
    /// Number of the upstream's events in them.
    pub(crate) events: u64,
    /// From the first request to the last end.
    pub(crate) elapsed: Duration,
    /// From the last byte of a request to the first byte of events.
    pub(crate) first: Spread,
    /// From the sending of an event to its receipt.
    pub(crate) late: Spread,
}

/// The median and the 99th percentile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// The measurements of one caller, or of all callers.
#[derive(Debug, Default)]
struct Notes {
    first: Vec<Duration>,
    /// In nanoseconds.
    late: Vec<u64>,
}

/// Runs the callers and prints the measurements.
pub(crate) fn run(arguments: &ListenArgs) -> Result<(), Failure> {
    let body = fs::read(&arguments.body)?;
    let request = http::request(&arguments.path, &arguments.headers, &body);
    drop(body);
    let Crowd { connections, seconds, spread_ms, .. } = arguments.crowd;
    let (started, spread) = (Instant::now(), Duration::from_millis(spread_ms));
    let end = started + Duration::try_from_secs_f64(seconds)?;
    let notes = thread::scope(|scope| {
        let callers = (0..connections).map(|number| {
            let start = started + spread.mul_f64(share(number, connections));
            let request = &request;
            let caller = thread::Builder::new().stack_size(STACK);
            caller.spawn_scoped(scope, move || call(arguments, request, start, end))
        });
        // All are started before the first is awaited.
        let callers = callers.collect::<io::Result<Vec<_>>>()?;
        let mut notes = Notes::default();
        for caller in callers {
            notes.add(caller.join().map_err(|_| "a caller panicked")??);
        }
        Ok::<_, Failure>(notes)
    })?;
    writeln!(io::stdout(), "{}", Heard::of(notes, started.elapsed())?)?;
    Ok(())
}

/// One caller: begins at `start` and sends no new request after `end`.
fn call(arguments: &ListenArgs, request: &[u8], start: Instant, end: Instant) -> io::Result<Notes> {
    thread::sleep(start.saturating_duration_since(Instant::now()));
    let mut connection = Connection::open(arguments.address)?;
    let mut notes = Notes::default();
    // The last byte is sent separately: timing begins with it, so the upload of half a megabyte is
    // not included.
    let (most, last) = request.split_at(request.len() - 1);
    loop {
        connection.send(most)?;
        let asked = Instant::now();
        connection.send(last)?;
        thread::sleep(Duration::from_millis(arguments.crowd.deaf_ms));
        let late = |late| notes.late.push(late);
        let first = events::listen(&mut connection, &arguments.whole, late)?;
        notes.first.push(first.saturating_duration_since(asked));
        if Instant::now() >= end {
            return Ok(notes);
        }
    }
}

/// The part of the spread after which the caller with this number begins.
#[expect(clippy::cast_precision_loss, reason = "there are far fewer callers than 2^52")]
fn share(number: usize, connections: usize) -> f64 {
    number as f64 / connections as f64
}

impl Notes {
    fn add(&mut self, other: Self) {
        self.first.extend(other.first);
        self.late.extend(other.late);
    }
}

impl Heard {
    fn of(notes: Notes, elapsed: Duration) -> Result<Self, Failure> {
        let Notes { mut first, late } = notes;
        let mut late: Vec<_> = late.into_iter().map(Duration::from_nanos).collect();
        let (streams, events) = (first.len().try_into()?, late.len().try_into()?);
        let (first, late) = (Spread::of(&mut first)?, Spread::of(&mut late)?);
        Ok(Self { streams, events, elapsed, first, late })
    }

    /// Events a second.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 events are heard")]
    pub(crate) fn rate(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }
}

impl Spread {
    fn of(figures: &mut [Duration]) -> Result<Self, Failure> {
        figures.sort_unstable();
        let (p50, p99) = (percentile(figures, 50), percentile(figures, 99));
        Ok(Self { p50: p50.ok_or("nothing was heard")?, p99: p99.ok_or("nothing was heard")? })
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { streams, events, elapsed, first, late } = self;
        let elapsed = elapsed.as_micros();
        write!(f, "streams={streams} events={events} elapsed_us={elapsed}")?;
        for (name, spread) in [("first", first), ("late", late)] {
            let [p50, p99] = [spread.p50, spread.p99].map(|figure| figure.as_micros());
            write!(f, " {name}_p50_us={p50} {name}_p99_us={p99}")?;
        }
        Ok(())
    }
}

impl FromStr for Heard {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Self, Failure> {
        let duration = |name: &str| number(line, name).map(Duration::from_micros);
        let spread = |name: &str| {
            let at = |percent| duration(&format!("{name}_p{percent}_us"));
            Ok::<_, Failure>(Spread { p50: at(50)?, p99: at(99)? })
        };
        Ok(Self {
            streams: number(line, "streams")?,
            events: number(line, "events")?,
            elapsed: duration("elapsed_us")?,
            first: spread("first")?,
            late: spread("late")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> Notes {
        let first = [3, 1, 2].map(Duration::from_millis).to_vec();
        Notes { first, late: vec![5_000, 7_000, 6_000, 9_000] }
    }

    #[test]
    fn what_all_callers_noted_is_counted_and_spread() {
        let mut all = notes();
        all.add(notes());
        let heard = Heard::of(all, Duration::from_secs(2)).unwrap();
        assert_eq!((heard.streams, heard.events), (6, 8));
        assert!((heard.rate() - 4.0).abs() < 1e-9);
        assert_eq!((heard.first.p50.as_millis(), heard.first.p99.as_millis()), (2, 3));
        assert_eq!((heard.late.p50.as_micros(), heard.late.p99.as_micros()), (7, 9));
    }

    #[test]
    fn what_was_heard_survives_its_text_form() {
        let heard = Heard::of(notes(), Duration::from_secs(1)).unwrap();
        assert_eq!(heard.to_string().parse::<Heard>().unwrap(), heard);
        assert!("streams=1".parse::<Heard>().is_err());
    }

    #[test]
    fn without_a_stream_nothing_was_heard() {
        assert!(Heard::of(Notes::default(), Duration::from_secs(1)).is_err());
    }
}
