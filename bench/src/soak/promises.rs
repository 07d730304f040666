//! The conditions that must hold at the end, and the report of them.

use std::io::{self, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::callers::Asked;
use super::samples::{Sample, Samples};
use super::upstream::Tallied;
use crate::subject::{Rig, Subject};
use crate::terminal::Failure;
use crate::{metrics, table};

/// Files that the ledger's connections may have opened meanwhile: three for each of eight.
const MORE_FILES: usize = 24;

/// Threads of those connections, and of the pool for blocking work.
const MORE_THREADS: usize = 10;

/// The gateway's own figures at the end.
#[derive(Debug)]
pub(crate) struct Found {
    in_flight_requests: u64,
    in_flight_bytes: u64,
    /// Tokens that are reserved in all windows of the tenant.
    reserved: u64,
    /// Tokens charged to the tenant's month.
    settled: u64,
    /// Tokens of all days together, billed and at their bounds.
    summed: u64,
    spent: u64,
    unverified: u64,
    above_bound: u64,
    mismatches: u64,
    /// The output of `ocr-gateway audit`.
    audit: Result<String, String>,
}

/// The complete results.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) asked: Asked,
    pub(crate) tally: Tallied,
    pub(crate) samples: Samples,
    pub(crate) before: Sample,
    pub(crate) after: Sample,
    pub(crate) found: Found,
}

/// Waits until no request is in flight.
pub(crate) fn wait_for_the_last(gateway: &Subject, patience: Duration) -> Result<(), Failure> {
    let until = Instant::now() + patience;
    while in_flight(gateway)? > 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn in_flight(gateway: &Subject) -> Result<u64, Failure> {
    metrics::total(gateway, "in_flight_requests")
}

impl Found {
    /// Queries the gateway, its ledger, and the audit command.
    pub(crate) fn gather(rig: &Rig, gateway: &Subject, program: &Path) -> Result<Self, Failure> {
        let usage = Rig::get(gateway, "/usage")?;
        let month = usage.split_once("\"month\":").ok_or("no month in the usage")?.1;
        let sums = usage.rsplit_once("\"total\":").ok_or("no total in the usage")?.1;
        let total = |name| metrics::total(gateway, name);
        Ok(Self {
            in_flight_requests: in_flight(gateway)?,
            in_flight_bytes: total("in_flight_bytes")?,
            reserved: figures(&usage, "\"reserved\":").sum(),
            settled: figures(month, "\"settled\":").next().unwrap_or_default(),
            summed: figures(sums, "\"total_tokens\":").next().unwrap_or_default(),
            spent: total("tokens_spent_total")?,
            unverified: total("tokens_unverified_total")?,
            above_bound: total("tokens_above_bound_total")?,
            mismatches: total("token_estimate_mismatch_total")?,
            audit: rig.audit(gateway, program).map_err(|failure| failure.to_string()),
        })
    }
}

/// The integers after each `name` in JSON, in order. Money is written in quotes.
fn figures<'a>(json: &'a str, name: &'a str) -> impl Iterator<Item = u64> + 'a {
    json.split(name).skip(1).filter_map(|rest| {
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse().ok()
    })
}

impl Report {
    /// Prints the report.
    ///
    /// # Errors
    ///
    /// A promise is broken.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        let Self { asked, tally, samples, before, after, found } = self;
        let mut out = io::stdout().lock();
        writeln!(out, "| what callers saw | times |\n|---|---|")?;
        for (what, times) in asked {
            writeln!(out, "| {what} | {times} |")?;
        }
        let Tallied { answered, refused, broken, hung, told, untold, .. } = tally;
        writeln!(
            out,
            "\nThe upstream answered {answered} calls, refused {refused}, broke off {broken}, hung at {hung}. \
             It billed {told} tokens, and spent up to {untold} on what it could not tell."
        )?;
        writeln!(
            out,
            "The ledger: {} tokens settled, of which {} billed and {} unverified bounds; {} reserved.",
            found.settled, found.spent, found.unverified, found.reserved
        )?;
        writeln!(out, "\n| | start | most | end |\n|---|---|---|---|")?;
        let most = |figure: fn(&Sample) -> usize| samples.most(figure).unwrap_or_default();
        let resident = samples.most(|sample| sample.resident).unwrap_or_default();
        let [start, resident, end] =
            [before.resident, resident, after.resident].map(table::megabytes);
        writeln!(out, "| resident MB | {start:.1} | {resident:.1} | {end:.1} |")?;
        for (name, figure) in [
            ("open files", (|sample| sample.files) as fn(&Sample) -> usize),
            ("sockets", |sample| sample.sockets),
            ("threads", |sample| sample.threads),
        ] {
            let (start, most, end) = (figure(before), most(figure), figure(after));
            writeln!(out, "| {name} | {start} | {most} | {end} |")?;
        }
        if let Some(slope) = samples.slope() {
            writeln!(
                out,
                "\nResident memory in the second half: {:+.0} KB/min, give or take {:.0} (standard error), \
                 of {:.0} KB.",
                slope.per_minute, slope.error, slope.mean
            )?;
        }
        self.judge(&mut out)
    }

    fn judge(&self, out: &mut impl io::Write) -> Result<(), Failure> {
        let Self { asked, tally, samples, before, after, found } = self;
        let audit = found.audit.as_deref().unwrap_or_else(|told| told).trim();
        let wrong: u64 =
            asked.iter().filter(|(what, _)| !is_expected(what)).map(|(_, times)| times).sum();
        let promises = [
            ("no request is in flight", found.in_flight_requests == 0),
            ("no byte is held", found.in_flight_bytes == 0),
            ("nothing is reserved", found.reserved == 0),
            ("the ledger holds what the upstream billed", found.spent == tally.told),
            ("bounds cover what the upstream could not tell", found.unverified >= tally.untold),
            ("accounts are bills and bounds", found.settled == found.spent + found.unverified),
            ("daily sums are, too", found.summed == found.settled),
            ("nothing was billed above its bound", found.above_bound == 0),
            ("images were billed as estimated", found.mismatches == 0),
            ("accounts are what their entries say", found.audit.is_ok()),
            ("every picture arrived whole", tally.garbled == 0),
            ("callers saw only what was to be expected", wrong == 0),
            ("no socket is left", after.sockets <= before.sockets),
            ("no file is left", after.files <= before.files + MORE_FILES),
            ("no thread is left", after.threads <= before.threads + MORE_THREADS),
            ("memory does not grow", !samples.slope().is_some_and(|slope| slope.grows())),
        ];
        writeln!(out, "\n| promise | |\n|---|---|")?;
        for (promise, holds) in promises {
            writeln!(out, "| {promise} | {} |", if holds { "kept" } else { "BROKEN" })?;
        }
        writeln!(out, "\naudit: {audit}")?;
        let broken = promises.iter().filter(|(_, holds)| !holds).count();
        if broken > 0 {
            return Err(format!("{broken} promises are broken").into());
        }
        Ok(())
    }
}

/// Whether the outcome is allowed: an answer, an error that reports an upstream failure, or an aborted answer
/// that the upstream aborted.
fn is_expected(what: &str) -> bool {
    let is_status = ["200", "408", "429", "500", "502", "503", "504"].contains(&what);
    is_status || what.starts_with("left") || what.starts_with("broke off (UnexpectedEof)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_money_is_not() {
        let json = r#"{"reserved":12,"cost":[{"reserved":"0.5"}],"month":{"reserved":3}}"#;
        assert_eq!(figures(json, "\"reserved\":").collect::<Vec<_>>(), [12, 3]);
    }

    #[test]
    fn a_caller_that_is_refused_wrongly_is_noticed() {
        assert!(is_expected("200") && is_expected("left InBody"));
        assert!(!is_expected("401") && !is_expected("broke off (TimedOut)"));
    }
}
