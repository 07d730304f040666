//! `ocr-gateway estimate`: the cost of images. Needs no key, no database and no network.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use uuid::Uuid;

use super::output::{Failure, say, write_json_line};
use crate::admission::presence::Watch;
use crate::admission::tab::Tab;
use crate::auth::tenant::Tenant;
use crate::catalog::Catalog;
use crate::clock::{Clock, SystemClock};
use crate::gateway;
use crate::label::shown;
use crate::metering::context::{Held, RequestContext};
use crate::ocr::estimate;
use crate::ocr::request::{OcrOptions, OcrRequest};
use crate::ocr::result::Estimate;
use crate::quote::Wish;
use crate::settings::Settings;
use crate::units::Pixels;

/// The images and the options of the estimate.
#[derive(Debug, Args)]
pub(super) struct EstimateArgs {
    /// Image files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The model that would read them; by default the configured one.
    #[arg(long)]
    model: Option<String>,
    /// The most pixels at which an image may be read.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_pixels: Option<u64>,
    /// One JSON object for each file, as in the response of `POST /estimate`.
    #[arg(long)]
    json: bool,
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
    let catalog = gateway::catalog(settings)?;
    let mut code = ExitCode::SUCCESS;
    if !arguments.json {
        writeln!(
            out,
            "{:>7} {:>12} {:>12} {:>14}  FILE",
            "TOKENS", "SIZE", "SENT", "COST AT MOST"
        )?;
    }
    for file in &arguments.files {
        match estimate(&catalog, arguments, file).await {
            Ok(estimate) if arguments.json => {
                write_json_line(out, &estimate)?;
            }
            Ok(estimate) => write_row(out, &estimate, file)?,
            Err(failure) => {
                code = ExitCode::FAILURE;
                say(&format!("error: {}: {failure}", file.display()));
            }
        }
    }
    Ok(code)
}

async fn estimate(
    catalog: &Catalog,
    arguments: &EstimateArgs,
    file: &Path,
) -> Result<Estimate, Failure> {
    let wish = Wish { max_pixels: arguments.max_pixels.map(Pixels::new), ..Wish::default() };
    let context = RequestContext {
        tenant: Arc::new(Tenant::new("command-line".parse()?)),
        deadline: SystemClock.instant(),
        watch: Watch::default(),
        tab: Tab::default(),
        held: Held::default(),
    };
    let request = OcrRequest {
        id: Uuid::nil(),
        image: Bytes::from(std::fs::read(file)?),
        options: OcrOptions { model: arguments.model.clone(), wish, ..OcrOptions::default() },
        context,
    };
    Ok(estimate::estimate(catalog, &request).await?)
}

fn write_row(out: &mut dyn Write, estimate: &Estimate, file: &Path) -> std::io::Result<()> {
    for page in &estimate.pages {
        let size = format!("{}x{}", page.width, page.height);
        let sent = format!("{}x{}", page.sent.width, page.sent.height);
        let cost = format!("{} {}", estimate.bound.cost.amount, estimate.bound.cost.currency);
        let file = file.to_string_lossy();
        let file = shown(&file);
        writeln!(out, "{:>7} {size:>12} {sent:>12} {cost:>14}  {file}", page.image_tokens)?;
    }
    Ok(())
}
