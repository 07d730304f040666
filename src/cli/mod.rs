//! The command line.
//!
//! Output for scripts goes to standard output, everything else to standard error. Exit codes: 0 fine, 1 failed, 2 wrong
//! usage.

mod audit;
mod check;
mod database;
#[cfg(feature = "demo")]
mod demo;
mod document_worker;
mod estimate;
mod healthcheck;
mod key;
mod output;
mod serve;
mod tenant;
mod tune;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

use self::database::{migrate, open};
use self::output::{Failure, WRONG_USAGE, failed, say};
use crate::clock::SystemClock;
use crate::random::SystemRandom;
use crate::settings::Settings;

/// A gateway to DashScope's Qwen-OCR models that computes the cost of an image before sending it.
#[derive(Debug, Parser)]
#[command(name = "ocr-gateway", version = VERSION.as_str(), about)]
pub struct Cli {
    /// Configuration file (TOML); config/default.toml documents its keys.
    #[arg(long, global = true, env = "OCR_GATEWAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Defaults of an image or a package (TOML), which the configuration file overrides.
    #[arg(long, global = true, env = "OCR_GATEWAY_DEFAULTS", value_name = "FILE")]
    defaults: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve,
    /// Demonstrate the gateway on this machine: no key, no server, no configuration needed.
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Apply the database's migrations. Only this command and `serve` change the tables.
    Migrate,
    /// Check the configuration and every connection, and report how to fix each fault.
    Check,
    /// Exit with 0 if the running service is ready.
    Healthcheck,
    /// Create, change, list, show or disable tenants.
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Create, list or revoke keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Report the spending by day, tenant and model, or by key, endpoint or hour.
    Usage(usage::UsageArgs),
    /// Recount the ledger and compare it with its accounts.
    Audit(audit::AuditArgs),
    /// Estimate the cost of images and documents, without sending anything.
    Estimate(estimate::EstimateArgs),
    /// Read samples at several sizes through a running gateway, to choose caps: tokens, cost and lost text of each.
    Tune(tune::TuneArgs),
    /// Read documents for the service, which starts this.
    #[command(hide = true)]
    DocumentWorker(document_worker::WorkerArgs),
}

/// The version, and the git commit if it was set at build time.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    match option_env!("OCR_GATEWAY_REVISION") {
        Some(revision) if !revision.is_empty() => format!("{version} ({revision})"),
        _ => version.to_owned(),
    }
});

/// Reads the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => return print_refusal(&refusal),
    };
    if let Command::DocumentWorker(arguments) = cli.command {
        return document_worker::run(arguments);
    }
    // Fails only if a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(failure) => failed(&*failure),
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let files = [cli.defaults.as_deref(), cli.config.as_deref()];
    // Later files take precedence.
    let files: Vec<_> = files.into_iter().flatten().collect();
    let settings = || Settings::load(&files);
    let mut out = std::io::stdout();
    match cli.command {
        Command::DocumentWorker(arguments) => return Ok(document_worker::run(arguments)),
        Command::Serve => return Ok(Box::pin(serve::run(&files)).await),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => return Box::pin(demo::run(arguments)).await,
        Command::Migrate => migrate(&settings()?.database).await?,
        Command::Check => return Box::pin(check::run(&settings()?, &mut out)).await,
        Command::Healthcheck => return healthcheck::run(&settings()?).await,
        Command::Estimate(arguments) => {
            return estimate::run(&arguments, &settings()?, &mut out).await;
        }
        Command::Tune(arguments) => return Box::pin(tune::run(arguments, &mut out)).await,
        Command::Usage(arguments) => {
            let settings = settings()?;
            let store = open(&settings.database).await?;
            let (ledger, settings) = (store.ledger(), &settings.ledger);
            return usage::run(arguments, &*ledger, settings, &SystemClock, &mut out).await;
        }
        Command::Audit(arguments) => {
            let settings = settings()?;
            let store = open(&settings.database).await?;
            let (ledger, settings) = (store.ledger(), &settings.ledger);
            return audit::run(&arguments, &*ledger, settings, &SystemClock, &mut out).await;
        }
        Command::Tenant(command) => {
            let settings = settings()?;
            let store = open(&settings.database).await?;
            let is_in_file = |name: &_| settings.tenants.contains_key(name);
            let regions = settings.upstream.pool().into_iter().map(|endpoint| endpoint.region);
            let warning = command.warning(&regions.collect());
            command.run(&*store.tenants(), &is_in_file, &mut out).await?;
            if let Some(warning) = warning {
                say(&warning);
            }
        }
        Command::Key(command) => {
            let settings = settings()?;
            let store = open(&settings.database).await?;
            let is_in_file = |name: &_| settings.tenants.contains_key(name);
            command
                .run(&*store.tenants(), &is_in_file, &SystemClock, &SystemRandom, &mut out)
                .await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints clap's output in place of a command: the help, or an error that quotes an argument as it was typed.
fn print_refusal(refusal: &clap::Error) -> ExitCode {
    if refusal.use_stderr() {
        say(refusal.to_string().trim_end());
        return ExitCode::from(WRONG_USAGE);
    }
    // Nobody reads the help if standard output is closed.
    let _ = refusal.print();
    ExitCode::SUCCESS
}
