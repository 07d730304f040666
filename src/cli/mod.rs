//! The command line: what an operator types.
//!
//! What a script may read goes to standard output, everything else to standard error. Exit codes: 0
//! fine, 1 failed, 2 wrong usage.

mod audit;
mod check;
#[cfg(feature = "demo")]
mod demo;
mod estimate;
mod healthcheck;
mod key;
mod output;
mod serve;
mod tenant;
mod usage;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};
use secrecy::ExposeSecret;

use crate::clock::SystemClock;
use crate::random::SystemRandom;
use crate::settings::{DatabaseSettings, Settings};
use crate::store::{self, MissingFile, Schema, Store, StoreError};

/// A gateway to DashScope's Qwen-OCR models that knows what an image costs before it is sent.
#[derive(Debug, Parser)]
#[command(name = "ocr-gateway", version = VERSION.as_str(), about)]
pub struct Cli {
    /// Configuration file (TOML); its keys stand in config/default.toml.
    #[arg(long, global = true, env = "OCR_GATEWAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Defaults of an image or a package (TOML), which the configuration file overrules.
    #[arg(long, global = true, env = "OCR_GATEWAY_DEFAULTS", value_name = "FILE")]
    defaults: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve,
    /// Show the main job on this machine: no key, no server, no configuration needed.
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Apply the database's migrations. Only this command and `serve` change the tables.
    Migrate,
    /// Check the configuration and every connection, and say what to mend.
    Check,
    /// Exit with 0 if the running service is ready.
    Healthcheck,
    /// Make, change, list, show or disable tenants.
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Make, list or revoke keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Tell what was spent, by day, tenant and model, or by key, endpoint or hour.
    Usage(usage::UsageArgs),
    /// Recount the ledger and compare it with its accounts.
    Audit(audit::AuditArgs),
    /// Tell what images would cost, without sending anything.
    Estimate(estimate::EstimateArgs),
}

/// The version, and the git commit where the build was told it.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    match option_env!("OCR_GATEWAY_REVISION") {
        Some(revision) if !revision.is_empty() => format!("{version} ({revision})"),
        _ => version.to_owned(),
    }
});

/// The exit code of wrong usage, as clap has it.
const WRONG_USAGE: u8 = 2;

/// What a command fails with: told to the person who typed it, so the chain of causes is enough.
type Failure = Box<dyn Error + Send + Sync>;

/// Reads the command line, runs the command and tells how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => return told(&refusal),
    };
    // Fails only if a provider was installed before, and then one is there.
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
    // What is read later wins.
    let files: Vec<_> = files.into_iter().flatten().collect();
    let settings = || Settings::load(&files);
    let mut out = std::io::stdout();
    match cli.command {
        Command::Serve => return Ok(Box::pin(serve::run(&files)).await),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => return Box::pin(demo::run(arguments)).await,
        Command::Migrate => migrate(&settings()?.database).await?,
        Command::Check => return Box::pin(check::run(&settings()?, &mut out)).await,
        Command::Healthcheck => return healthcheck::run(&settings()?).await,
        Command::Estimate(arguments) => {
            return estimate::run(&arguments, &settings()?, &mut out).await;
        }
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

/// Connects to a database on whose schema this program runs, and leaves the schema as it is.
async fn open(settings: &DatabaseSettings) -> Result<Store, StoreError> {
    let store = connect(settings, MissingFile::Refused).await?;
    match store.schema().await? {
        Schema::Same | Schema::Newer { .. } => Ok(store),
        Schema::Older(missing) => Err(StoreError::OlderDatabase { missing: missing.join(", ") }),
    }
}

/// Connects to the database and applies the migrations that are missing, if `database.migrate` says so.
async fn open_to_serve(settings: &DatabaseSettings) -> Result<Store, StoreError> {
    if settings.migrate { open_migrated(settings).await } else { open(settings).await }
}

/// Connects to the database and applies the migrations that are missing.
async fn open_migrated(settings: &DatabaseSettings) -> Result<Store, StoreError> {
    let store = connect(settings, MissingFile::Made).await?;
    store.migrate().await?;
    Ok(store)
}

async fn connect(
    settings: &DatabaseSettings,
    missing_file: MissingFile,
) -> Result<Store, StoreError> {
    let options = store::Options {
        max_connections: settings.max_connections,
        missing_file,
        ..store::Options::default()
    };
    store::connect(settings.url.expose_secret(), options).await
}

async fn migrate(settings: &DatabaseSettings) -> Result<(), Failure> {
    let store = open_migrated(settings).await?;
    match store.schema().await? {
        Schema::Newer { version, known } => say(&format!(
            "the database is newer than this version of the program, which runs on it: it has migration \
             {version}, and the program has those up to {known}"
        )),
        Schema::Same | Schema::Older(_) => say("the database is up to date"),
    }
    Ok(())
}

/// Tells the person at the terminal something that no script reads.
fn say(text: &str) {
    // Where standard error is closed, there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{}", output::shown_lines(text));
}

/// Tells what clap has to say in place of a command: help, or what is wrong with an argument, which it
/// quotes as it was typed.
fn told(refusal: &clap::Error) -> ExitCode {
    if refusal.use_stderr() {
        say(refusal.to_string().trim_end());
        return ExitCode::from(WRONG_USAGE);
    }
    // Where standard output is closed, nobody reads the help.
    let _ = refusal.print();
    ExitCode::SUCCESS
}

fn failed(error: &(dyn Error + 'static)) -> ExitCode {
    say(&format!("error: {}", with_causes(error)));
    ExitCode::FAILURE
}

/// An error and what caused it, in one line.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors repeat their cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
