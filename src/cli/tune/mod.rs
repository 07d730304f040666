//! `ocr-gateway tune`: reads samples at several sizes, and shows what each size costs and what it loses.
//!
//! The command reads through a running gateway, as a caller would, so the figures are those of the real model and of
//! the tenant's settings. The reference is the same page at the tenant's cap. Sizes that would send the same picture
//! are read once.

mod caller;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt, future, stream};

use self::caller::{Caller, Estimate, Refused, SentSizes};
use self::report::{Reading, Rung, Sample, Tuning};
use super::output::{Failure, WRONG_USAGE, say, write_json};
use crate::label::shown;
use crate::units::{Cost, Money, Pixels, Tokens};

/// The environment variable with the key.
const KEY_VARIABLE: &str = "OCR_GATEWAY_KEY";

/// How often the largest size is halved.
const HALVINGS: u32 = 6;

/// The fewest pixels that are tried. No document is legible with fewer.
const LEAST_PIXELS: u64 = 65_536;

/// The samples, and the gateway that reads them.
#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// Images and documents like those that will be read
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A folder with the true text of samples: NAME.txt for NAME.jpg
    #[arg(long, value_name = "DIR")]
    truth: Option<PathBuf>,
    /// The address of the gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: reqwest::Url,
    /// A file with the key of the tenant that pays; otherwise the environment variable `OCR_GATEWAY_KEY` has it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The model that reads; by default the gateway's
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    concurrency: u8,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A file, and what each size would send of it.
struct PlannedSample {
    path: PathBuf,
    truth: Option<String>,
    /// For each rung, the first rung that sends the same.
    read_as: Vec<usize>,
    /// One for each reading.
    estimates: Vec<Estimate>,
}

/// The most that all readings can cost.
#[derive(Default)]
struct Bound {
    samples: usize,
    calls: usize,
    tokens: Tokens,
    /// In the currency of the first sample. All samples have one tenant and one model, so they have one currency.
    cost: Option<Cost>,
}

/// Reads the samples and prints the figures of each size. A file that cannot be read is reported and does not stop the
/// others.
///
/// # Errors
///
/// The gateway cannot be reached or refuses the key, or standard output is closed.
pub(super) async fn run(arguments: TuneArgs, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let Some(key) = key(arguments.key_file.as_deref())? else {
        say(&format!("error: no key: set {KEY_VARIABLE}, or give --key-file"));
        return Ok(ExitCode::from(WRONG_USAGE));
    };
    let caller = Caller::new(&arguments.server, key, arguments.model.clone())?;
    let rungs = ladder(cap(&caller, &arguments.files).await?);
    let planned = plan_all(&caller, &rungs, &arguments).await;
    Bound::of(&planned).tell();
    let samples = read_all(&caller, &rungs, planned, &arguments).await;
    let Some(tuning) = Tuning::of(&rungs, &samples) else { return Ok(ExitCode::FAILURE) };
    if arguments.json {
        write_json(out, &tuning)?;
    } else {
        tuning.write(out)?;
    }
    let are_all_read = samples.len() == arguments.files.len();
    Ok(if are_all_read { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Estimates all files.
async fn plan_all(caller: &Caller, rungs: &[Rung], arguments: &TuneArgs) -> Vec<PlannedSample> {
    let truth = arguments.truth.as_deref();
    let plans = stream::iter(&arguments.files).map(|path| async move {
        plan(caller, rungs, path, truth).await.map_err(|failure| tell(path, &failure)).ok()
    });
    let plans = plans.buffered(arguments.concurrency.into());
    plans.filter_map(future::ready).collect().await
}

/// Reads all files.
async fn read_all(
    caller: &Caller,
    rungs: &[Rung],
    planned: Vec<PlannedSample>,
    arguments: &TuneArgs,
) -> Vec<Sample> {
    let readings = stream::iter(planned).map(|sample| async move {
        let read = read(caller, rungs, &sample).await;
        read.map_err(|failure| tell(&sample.path, &failure)).ok()
    });
    let readings = readings.buffered(arguments.concurrency.into());
    readings.filter_map(future::ready).collect().await
}

/// The key in the file or in the environment.
///
/// # Errors
///
/// The file cannot be read.
fn key(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let key = match file {
        Some(file) => Some(std::fs::read_to_string(file).map_err(|error| of_file(file, &error))?),
        None => std::env::var(KEY_VARIABLE).ok(),
    };
    Ok(key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()))
}

/// The tenant's cap, by an estimate of the first file that can be read.
///
/// # Errors
///
/// The failure of the last file, or of the first that is not about the file.
async fn cap(caller: &Caller, files: &[PathBuf]) -> Result<Pixels, Failure> {
    let mut failure = Failure::from("there are no files");
    for path in files {
        let asked = match std::fs::read(path) {
            Ok(file) => caller.cap(file.into()).await,
            Err(error) => Err(error.into()),
        };
        failure = match asked {
            Ok(cap) => return Ok(cap),
            Err(other) => other,
        };
        let refused = failure.downcast_ref::<Refused>();
        if !failure.is::<std::io::Error>() && !refused.is_some_and(Refused::is_about_the_file) {
            break;
        }
    }
    Err(failure)
}

/// The sizes that are tried: the cap and its halves, and the size that the gateway chooses.
fn ladder(cap: Pixels) -> Vec<Rung> {
    let halves = (0..=HALVINGS).map(|times| cap.get() >> times);
    let halves = halves.filter(|pixels| *pixels >= LEAST_PIXELS || *pixels == cap.get());
    halves.map(|pixels| Rung::Pixels(Pixels::new(pixels))).chain([Rung::Auto]).collect()
}

/// Estimates one file at each size.
async fn plan(
    caller: &Caller,
    rungs: &[Rung],
    path: &Path,
    truth: Option<&Path>,
) -> Result<PlannedSample, Failure> {
    let file = Bytes::from(std::fs::read(path)?);
    let truth = truth.map(|folder| true_text(folder, path)).transpose()?.flatten();
    let (mut sizes, mut read_as, mut estimates) = (Vec::<SentSizes>::new(), Vec::new(), Vec::new());
    for (rung, size) in rungs.iter().enumerate() {
        let estimate = caller.estimate(file.clone(), *size).await?;
        let sent = estimate.sent();
        let same = sizes.iter().position(|other| *other == sent);
        read_as.push(same.unwrap_or(rung));
        sizes.push(sent);
        if same.is_none() {
            estimates.push(estimate);
        }
    }
    Ok(PlannedSample { path: path.to_owned(), truth, read_as, estimates })
}

/// The true text of a sample, if the folder has it.
fn true_text(folder: &Path, sample: &Path) -> Result<Option<String>, Failure> {
    let Some(name) = sample.file_stem() else { return Ok(None) };
    let path = folder.join(name).with_added_extension("txt");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(of_file(&path, &error)),
    }
}

/// Reads one file at each size.
async fn read(caller: &Caller, rungs: &[Rung], sample: &PlannedSample) -> Result<Sample, Failure> {
    let PlannedSample { path, truth, read_as, .. } = sample;
    // The files of all samples together may be larger than memory.
    let file = Bytes::from(std::fs::read(path)?);
    let mut readings = Vec::<Reading>::new();
    for (rung, same) in rungs.iter().zip(read_as) {
        let reading = match readings.get(*same) {
            Some(reading) => reading.clone(),
            None => caller.read(file.clone(), *rung).await?,
        };
        readings.push(reading);
    }
    let name = path.to_string_lossy().into_owned();
    Ok(Sample { name, readings, truth: truth.clone() })
}

impl Bound {
    /// The most that these samples can cost.
    fn of(planned: &[PlannedSample]) -> Self {
        let mut sum = Self { samples: planned.len(), ..Self::default() };
        for Estimate { pages, bound, .. } in planned.iter().flat_map(|sample| &sample.estimates) {
            sum.calls += pages.iter().filter(|page| !page["sent"].is_null()).count();
            sum.tokens = sum.tokens.saturating_add(bound.total_tokens);
            let so_far = sum.cost.map_or(Money::ZERO, |cost| cost.amount);
            let Cost { amount, currency, .. } = bound.cost;
            sum.cost = Some(Cost::of(so_far.saturating_add(amount), currency));
        }
        sum
    }

    fn tell(&self) {
        let Self { samples, calls, tokens, cost } = self;
        if let Some(Cost { amount, currency, .. }) = cost {
            say(&format!(
                "reading {samples} samples by {calls} calls: at most {tokens} tokens, {amount} {currency}"
            ));
        }
    }
}

/// Tells that a file failed.
fn tell(file: &Path, failure: &Failure) {
    say(&format!("error: {}: {failure}", shown(&file.to_string_lossy())));
}

fn of_file(file: &Path, error: &std::io::Error) -> Failure {
    format!("{}: {error}", shown(&file.to_string_lossy())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(rungs: &[Rung]) -> Vec<u64> {
        let pixels = |rung: &Rung| match rung {
            Rung::Pixels(pixels) => pixels.get(),
            Rung::Auto => 0,
        };
        rungs.iter().map(pixels).collect()
    }

    #[test]
    fn the_ladder_begins_at_the_cap_is_halved_down_to_the_floor_and_ends_with_the_chosen_size() {
        let cap = Pixels::new(1 << 20);
        assert_eq!(pixels(&ladder(cap)), [1 << 20, 1 << 19, 1 << 18, 1 << 17, 1 << 16, 0]);
        assert_eq!(pixels(&ladder(Pixels::new(30_000))), [30_000, 0]);
        assert_eq!(pixels(&ladder(Pixels::new(23_520_000))).len(), 8);
    }
}
