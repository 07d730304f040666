//! `ocr-gateway estimate`: the cost of images and documents. Needs no key, no database and no network.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use super::output::{Failure, say, write_json_line};
use crate::admission::presence::Watch;
use crate::admission::tab::Tab;
use crate::auth::tenant::Tenant;
use crate::clock::{Clock, SystemClock};
use crate::gateway;
use crate::label::shown;
use crate::metering::context::{Held, RequestContext};
use crate::ocr::estimate;
use crate::ocr::intake::Intake;
use crate::ocr::request::{OcrOptions, OcrRequest};
use crate::ocr::result::{Estimate, PageOutcome};
use crate::quote::Wish;
use crate::settings::Settings;
use crate::units::Pixels;

/// The images and the options of the estimate.
#[derive(Debug, Args)]
pub(super) struct EstimateArgs {
    /// Images and documents.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The model that would read them; by default the configured one.
    #[arg(long)]
    model: Option<String>,
    /// The most pixels at which an image may be read, or `auto`: the fewest at which its text stays legible.
    #[arg(long, value_name = "N|auto")]
    max_pixels: Option<MostPixels>,
    /// One JSON object for each file, as in the response of `POST /estimate`.
    #[arg(long)]
    json: bool,
}

/// The bound of the pixels of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MostPixels {
    Number(Pixels),
    /// Chosen by the text.
    Auto,
}

impl FromStr for MostPixels {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let number = text.parse().ok().filter(|pixels: &u64| *pixels > 0);
        let number = number.ok_or("must be auto or a whole number above 0")?;
        Ok(Self::Number(Pixels::new(number)))
    }
}

/// Longest time that one file may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// A page that cannot be read.
#[derive(Debug, Serialize)]
struct PageFault {
    detail: String,
}

/// Estimates one file after the other. A file that cannot be read does not stop the others.
///
/// # Errors
///
/// The configuration has no models, or standard output is closed.
pub(super) async fn run(
    arguments: &EstimateArgs,
    settings: &Settings,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let intake = gateway::estimator(settings)?;
    let mut code = ExitCode::SUCCESS;
    if !arguments.json {
        writeln!(
            out,
            "{:>7} {:>12} {:>12} {:>14}  FILE",
            "TOKENS", "SIZE", "SENT", "COST AT MOST"
        )?;
    }
    for file in &arguments.files {
        match estimate(&intake, arguments, file).await {
            Ok(estimate) if arguments.json => {
                write_json_line(out, &estimate)?;
            }
            Ok(estimate) => write_rows(out, &estimate, file)?,
            Err(failure) => {
                code = ExitCode::FAILURE;
                say(&format!("error: {}: {failure}", file.display()));
            }
        }
    }
    Ok(code)
}

async fn estimate(
    intake: &Intake,
    arguments: &EstimateArgs,
    file: &Path,
) -> Result<Estimate<PageFault>, Failure> {
    let max_pixels = match arguments.max_pixels {
        Some(MostPixels::Number(pixels)) => Some(pixels),
        Some(MostPixels::Auto) | None => None,
    };
    let options = OcrOptions {
        model: arguments.model.clone(),
        wish: Wish { max_pixels, ..Wish::default() },
        auto_pixels: arguments.max_pixels == Some(MostPixels::Auto),
        ..OcrOptions::default()
    };
    let context = RequestContext {
        tenant: Arc::new(Tenant::new("command-line".parse()?)),
        deadline: SystemClock.instant() + PATIENCE,
        watch: Watch::default(),
        tab: Tab::default(),
        held: Held::default(),
    };
    let request =
        OcrRequest { id: Uuid::nil(), image: Bytes::from(std::fs::read(file)?), options, context };
    let estimate = estimate::estimate(intake, &request).await?;
    Ok(estimate.map_errors(|error| PageFault { detail: error.to_string() }))
}

/// Writes a row for each page. The cost is that of the whole file, so only its first page has it.
fn write_rows(
    out: &mut dyn Write,
    estimate: &Estimate<PageFault>,
    file: &Path,
) -> std::io::Result<()> {
    let file = file.to_string_lossy();
    let file = shown(&file);
    let mut cost = format!("{} {}", estimate.bound.cost.amount, estimate.bound.cost.currency);
    let is_only = estimate.pages.len() == 1;
    for page in &estimate.pages {
        let (number, row) = match page {
            PageOutcome::Done(page) => {
                let size = format!("{}x{}", page.width, page.height);
                let sent = page.sent.as_ref();
                let sent = sent.map_or("-".to_owned(), |to| format!("{}x{}", to.width, to.height));
                (page.page, format!("{:>7} {size:>12} {sent:>12} {cost:>14}", page.image_tokens))
            }
            PageOutcome::Failed(page) => {
                say(&format!("error: {file}, page {}: {}", page.page, page.error.detail));
                (page.page, format!("{:>7} {:>12} {:>12} {cost:>14}", "-", "-", "-"))
            }
        };
        let place = if is_only { file.to_string() } else { format!("{file}, page {number}") };
        writeln!(out, "{row}  {place}")?;
        cost.clear();
    }
    Ok(())
}
