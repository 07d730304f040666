//! `ocr-gateway usage`: what all tenants spent, by day, tenant and model.

use std::io::Write;

use clap::{Args, ValueEnum};
use jiff::civil::Date;
use serde::Serialize;

use super::Failure;
use crate::auth::tenant::TenantName;
use crate::clock::Clock;
use crate::ledger::LedgerStore;
use crate::ledger::report::{DayReport, SpentReport, TotalReport};
use crate::ledger::usage::{UsageQuery, UsageRow};
use crate::ledger::window::day_of;

/// `ocr-gateway usage`
#[derive(Debug, Args)]
pub(super) struct UsageArgs {
    /// One tenant; all of them without it
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantName>,
    /// The first day (UTC), like 2026-01-31; the first of the last day's month without it
    #[arg(long, value_name = "DAY")]
    from: Option<Date>,
    /// The last day, included; today without it
    #[arg(long, value_name = "DAY")]
    to: Option<Date>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One object
    Json,
    /// With a line of names (RFC 4180)
    Csv,
}

/// What is written for a script.
#[derive(Debug, Serialize)]
struct Usage {
    from: Date,
    to: Date,
    rows: Vec<Row>,
    total: TotalReport,
}

#[derive(Debug, Serialize)]
struct Row {
    tenant: String,
    #[serde(flatten)]
    day: DayReport,
}

/// The names of the columns, in their order.
const COLUMNS: [&str; 12] = [
    "date",
    "tenant",
    "model",
    "calls",
    "unverified_calls",
    "image_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "unverified_tokens",
    "cost",
    "currency",
];

/// How many columns of the left are text.
const TEXTS: usize = 3;

/// Asks the ledger and writes what it says.
///
/// # Errors
///
/// Where the ledger cannot be read, or standard output is closed.
pub(super) async fn run(
    arguments: UsageArgs,
    ledger: &dyn LedgerStore,
    clock: &dyn Clock,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let to = arguments.to.unwrap_or_else(|| day_of(clock.timestamp()));
    let from = arguments.from.unwrap_or_else(|| to.first_of_month());
    if from > to {
        return Err(format!("--from {from} is after --to {to}").into());
    }
    let tenant = arguments.tenant.map(String::from);
    let rows = ledger.usage(&UsageQuery { tenant, from, to }).await?;
    let total = TotalReport::of(&rows);
    match arguments.format {
        Format::Table => table(&rows, &total, out)?,
        Format::Csv => csv(&rows, out)?,
        Format::Json => {
            let rows = rows.into_iter().map(|row| {
                let tenant = row.tenant.clone();
                Row { tenant, day: row.into() }
            });
            let usage = Usage { from, to, rows: rows.collect(), total };
            serde_json::to_writer_pretty(&mut *out, &usage)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

fn fields(row: &UsageRow) -> [String; COLUMNS.len()] {
    let numbers = numbers(&SpentReport::of(row));
    let [calls, unverified_calls, image, input, output, total, unverified] = numbers;
    [
        row.day.to_string(),
        row.tenant.clone(),
        row.model.clone(),
        calls,
        unverified_calls,
        image,
        input,
        output,
        total,
        unverified,
        row.cost.to_string(),
        row.currency.to_string(),
    ]
}

fn numbers(spent: &SpentReport) -> [String; 7] {
    [
        spent.calls,
        spent.unverified_calls,
        spent.image_tokens.get(),
        spent.input_tokens.get(),
        spent.output_tokens.get(),
        spent.total_tokens.get(),
        spent.unverified_tokens.get(),
    ]
    .map(|number| number.to_string())
}

/// No field can hold a comma, a quote or the end of a line: names of tenants and models are of letters,
/// digits and a few marks, and everything else is a number, a day or a code.
fn csv(rows: &[UsageRow], out: &mut dyn Write) -> std::io::Result<()> {
    write!(out, "{}\r\n", COLUMNS.join(","))?;
    for row in rows {
        write!(out, "{}\r\n", fields(row).join(","))?;
    }
    Ok(())
}

fn table(rows: &[UsageRow], total: &TotalReport, out: &mut dyn Write) -> std::io::Result<()> {
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    lines.extend(rows.iter().map(fields));
    for cost in &total.cost {
        let [calls, unverified_calls, image, input, output, all, unverified] =
            numbers(&total.spent);
        lines.push([
            "total".to_owned(),
            String::new(),
            String::new(),
            calls,
            unverified_calls,
            image,
            input,
            output,
            all,
            unverified,
            cost.amount.to_string(),
            cost.currency.to_string(),
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..COLUMNS.len()).map(width).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < TEXTS { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
