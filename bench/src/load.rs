//! A closed loop of callers: each posts, waits for the answer, and posts again.
//!
//! Each connection has a thread, since a blocked thread is the cheapest caller. Requests in
//! progress at the end of the time are finished and counted, so that the other end has done exactly
//! the requested work in the window. The first answer that is not 200 ends the load, because a
//! window with an error is void anyway.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::figures::{number, percentile};
use crate::http::{self, Connection};
use crate::terminal::Failure;

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Address to post to
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
    /// Concurrent callers
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// How long new requests are sent
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// The result of a load. `load` prints its text form and `run` reads it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    /// Requests answered with 200.
    pub(crate) requests: u32,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// The median duration of an answer.
    pub(crate) p50: Duration,
    /// The 99th percentile of the duration.
    pub(crate) p99: Duration,
}

/// Runs the load and prints the result.
pub(crate) fn run(arguments: &LoadArgs) -> Result<(), Failure> {
    let body = fs::read(&arguments.body)?;
    let request = http::request(&arguments.path, &arguments.headers, &body);
    drop(body);
    let duration = Duration::try_from_secs_f64(arguments.seconds)?;
    let started = Instant::now();
    let mut latencies = thread::scope(|scope| {
        let callers: Vec<_> = (0..arguments.connections)
            .map(|_| scope.spawn(|| ask(arguments.address, &request, started + duration)))
            .collect();
        let mut latencies = Vec::new();
        for caller in callers {
            latencies.extend(caller.join().map_err(|_| "a caller panicked")??);
        }
        Ok::<_, Failure>(latencies)
    })?;
    let outcome = Outcome::of(&mut latencies, started.elapsed())?;
    writeln!(io::stdout(), "{outcome}")?;
    Ok(())
}

/// One caller, until `end`. Returns the duration of each answer.
fn ask(address: SocketAddr, request: &[u8], end: Instant) -> io::Result<Vec<Duration>> {
    let mut connection = Connection::open(address)?;
    let mut latencies = Vec::new();
    loop {
        let asked = Instant::now();
        if asked >= end {
            return Ok(latencies);
        }
        connection.send(request)?;
        let head = connection.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let answer = connection.body(head.length()?)?;
        if head.status() != Some(200) {
            let told = String::from_utf8_lossy(&answer);
            return Err(io::Error::other(format!("{}: {told}", head.first_line)));
        }
        latencies.push(asked.elapsed());
    }
}

impl Outcome {
    fn of(latencies: &mut [Duration], elapsed: Duration) -> Result<Self, Failure> {
        latencies.sort_unstable();
        let (Some(p50), Some(p99)) = (percentile(latencies, 50), percentile(latencies, 99)) else {
            return Err("no request was answered in the time given".into());
        };
        Ok(Self { requests: latencies.len().try_into()?, elapsed, p50, p99 })
    }

    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(self.requests) / self.elapsed.as_secs_f64()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, elapsed, p50, p99 } = self;
        let [elapsed, p50, p99] = [elapsed, p50, p99].map(Duration::as_micros);
        write!(f, "requests={requests} elapsed_us={elapsed} p50_us={p50} p99_us={p99}")
    }
}

impl FromStr for Outcome {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Self, Failure> {
        let duration = |name| number(line, name).map(Duration::from_micros);
        Ok(Self {
            requests: number(line, "requests")?.try_into()?,
            elapsed: duration("elapsed_us")?,
            p50: duration("p50_us")?,
            p99: duration("p99_us")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentiles_are_those_of_the_sorted_latencies() {
        let mut latencies: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        let outcome = Outcome::of(&mut latencies, Duration::from_secs(2)).unwrap();
        assert_eq!((outcome.p50.as_millis(), outcome.p99.as_millis()), (101, 199));
        assert!((outcome.rate() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn an_outcome_survives_its_text_form() {
        let outcome =
            Outcome::of(&mut [Duration::from_micros(7); 3], Duration::from_secs(1)).unwrap();
        assert_eq!(outcome.to_string().parse::<Outcome>().unwrap(), outcome);
        assert!("requests=1".parse::<Outcome>().is_err());
    }

    #[test]
    fn a_window_without_an_answer_has_no_outcome() {
        assert!(Outcome::of(&mut [], Duration::from_secs(1)).is_err());
    }
}
