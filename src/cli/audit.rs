//! `ocr-gateway audit`: recounts the ledger's entries and compares them with its accounts.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use jiff::ToSpan;
use jiff::civil::Date;

use super::Failure;
use crate::clock::Clock;
use crate::ledger::LedgerStore;
use crate::ledger::settings::LedgerSettings;
use crate::ledger::window::day_of;

/// How far an audit looks back when it is not told: to the start of the month before.
const DAYS_BACK: i64 = 31;

/// `ocr-gateway audit`
#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// The first day (UTC) of the windows to recount; about a month ago without it
    #[arg(long, value_name = "DAY")]
    from: Option<Date>,
}

/// Recounts, and tells of each account that counts otherwise than its entries.
///
/// # Errors
///
/// Where the ledger cannot be read, or standard output is closed.
pub(super) async fn run(
    arguments: &AuditArgs,
    ledger: &dyn LedgerStore,
    settings: &LedgerSettings,
    clock: &dyn Clock,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let today = day_of(clock.timestamp());
    let kept = today.saturating_sub(i64::from(settings.retention_days).days());
    let from = arguments.from.unwrap_or_else(|| today.saturating_sub(DAYS_BACK.days()));
    if from < kept {
        return Err(format!(
            "--from {from} is before {kept}, the first day whose entries are all kept \
             (ledger.retention_days)"
        )
        .into());
    }
    let imbalances = ledger.audit(from).await?;
    for found in &imbalances {
        let (key, window) = (&found.account, &found.account.window);
        writeln!(
            out,
            "{} {} {} {}: counted {:?}, by its entries {:?} (granted, settled, reserved)",
            key.tenant,
            window.period.as_str(),
            window.starts_on,
            key.unit,
            found.counted,
            found.recounted,
        )?;
    }
    if imbalances.is_empty() {
        writeln!(out, "balanced: every account since {from} counts what its entries say")?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}
