//! Log lines: JSON for machines, text for a person at a terminal, always on standard error.
//!
//! Standard output belongs to commands whose output a script reads, so it gets no log lines.

use std::io::IsTerminal;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// The settings section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// How a line is written. Default `json`.
    pub format: LogFormat,
    /// A filter in the syntax of `tracing_subscriber::EnvFilter`, such as `info` or
    /// `info,ocr_gateway=debug`. Default `info`.
    pub filter: String,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person.
    Text,
}

/// A log filter that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFilter(#[from] tracing_subscriber::filter::ParseError);

impl Default for LogSettings {
    /// As in `config/default.toml`, for a process whose settings cannot be read.
    fn default() -> Self {
        Self { format: LogFormat::Json, filter: "info".to_owned() }
    }
}

/// Refuses a filter that cannot be parsed.
///
/// # Errors
///
/// [`InvalidFilter`].
pub fn check(settings: &LogSettings) -> Result<(), InvalidFilter> {
    EnvFilter::builder().parse(&settings.filter)?;
    Ok(())
}

/// Installs the process-wide subscriber, and a panic hook that logs the location of a panic but not its message.
///
/// # Errors
///
/// [`InvalidFilter`] when the filter cannot be parsed. A second call in one process is harmless: the first subscriber
/// stays.
pub fn install(settings: &LogSettings) -> Result<(), InvalidFilter> {
    let filter = EnvFilter::builder().parse(&settings.filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(SystemTime)
        // Colours only for a person at a terminal.
        .with_ansi(std::io::stderr().is_terminal())
        // tracing-subscriber writes such errors to standard error, and panics if writing to standard error fails, as
        // after a terminal was closed or a log collector has ended.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let installed = match settings.format {
        LogFormat::Json => {
            // Spans are not nested, so a list of them would repeat the current one.
            lines.json().flatten_event(true).with_span_list(false).try_init()
        }
        LogFormat::Text => lines.try_init(),
    };
    if installed.is_ok() {
        // A panic message may quote data of a request, so only the location is logged.
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(panic.location = place, "a task panicked");
        }));
    }
    Ok(())
}
