//! `ocr-gateway usage`: what all tenants spent, by day, tenant and model.
//!
//! Read from the daily sums of the ledger, which hold tenants of the database and of the configuration
//! alike, also those that are gone. It only reads, so it may run at any time beside the service.

use std::borrow::Cow;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::civil::Date;
use serde::Serialize;

use super::output::{cell, write_json};
use super::{Failure, WRONG_USAGE, say};
use crate::auth::tenant::TenantName;
use crate::clock::Clock;
use crate::label::{shown, starts_formula};
use crate::ledger::LedgerStore;
use crate::ledger::report::{DayReport, SpentReport, TotalReport};
use crate::ledger::usage::{UsageQuery, UsageRow, day_named};
use crate::ledger::window::Calendar;
use crate::units::Cost;

/// `ocr-gateway usage`
#[derive(Debug, Args)]
pub(super) struct UsageArgs {
    /// One tenant; all of them without it
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantName>,
    /// The first day in the ledger's time zone, like 2026-01-31; the first of the last day's month without it
    #[arg(long, value_name = "DAY", value_parser = day_named)]
    from: Option<Date>,
    /// The last day, included; today without it
    #[arg(long, value_name = "DAY", value_parser = day_named)]
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

/// One line of a table.
type Cells = [String; COLUMNS.len()];

/// How many columns of the left are text.
const TEXTS: usize = 3;

/// Asks the ledger and writes what it says.
///
/// # Errors
///
/// Where the ledger cannot be read or added up, or standard output is closed.
pub(super) async fn run(
    arguments: UsageArgs,
    ledger: &dyn LedgerStore,
    calendar: &Calendar,
    clock: &dyn Clock,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let UsageArgs { tenant, from, to, format } = arguments;
    let today = calendar.day_of(clock.timestamp());
    let query = match UsageQuery::of(tenant.map(String::from), from, to, today) {
        Ok(query) => query,
        Err(error) => {
            say(&format!("error: --from {error}"));
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    let rows = ledger.usage(&query).await?;
    let total = TotalReport::of(&rows)?;
    match format {
        Format::Table => write_table(out, &rows, &total)?,
        Format::Csv => write_csv(out, &rows)?,
        Format::Json => {
            let UsageQuery { from, to, .. } = query;
            write_json(
                out,
                &Usage { from, to, rows: rows.into_iter().map(Row::from).collect(), total },
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl From<UsageRow> for Row {
    fn from(row: UsageRow) -> Self {
        Self { tenant: row.tenant.clone(), day: row.into() }
    }
}

fn cells(row: &UsageRow) -> Cells {
    let texts = [row.day.to_string(), row.tenant.clone(), row.model.clone()];
    join(texts, numbers(&SpentReport::of(row)), Some(&Cost::of(row.cost, row.currency)))
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

fn join(texts: [String; TEXTS], numbers: [String; 7], cost: Option<&Cost>) -> Cells {
    let [date, tenant, model] = texts;
    let [calls, unverified_calls, image, input, output, total, unverified] = numbers;
    let (amount, currency) =
        (cell(cost.map(|cost| cost.amount)), cell(cost.map(|cost| cost.currency)));
    [
        date,
        tenant,
        model,
        calls,
        unverified_calls,
        image,
        input,
        output,
        total,
        unverified,
        amount,
        currency,
    ]
}

fn write_csv(out: &mut dyn Write, rows: &[UsageRow]) -> io::Result<()> {
    write!(out, "{}\r\n", COLUMNS.join(","))?;
    for row in rows {
        let cells = cells(row);
        let fields: Vec<_> = cells.iter().map(|cell| csv_field(cell)).collect();
        write!(out, "{}\r\n", fields.join(","))?;
    }
    Ok(())
}

/// A field of RFC 4180. Only names that an older version took can need quotes, or an apostrophe, which
/// keeps a spreadsheet from taking the cell for a formula.
fn csv_field(text: &str) -> Cow<'_, str> {
    let text = shown(text);
    if text.starts_with(starts_formula) {
        return quoted(&format!("'{text}")).into();
    }
    if text.contains([',', '"']) { quoted(&text).into() } else { text }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn write_table(out: &mut dyn Write, rows: &[UsageRow], total: &TotalReport) -> io::Result<()> {
    let mut lines = vec![COLUMNS.map(str::to_uppercase)];
    lines.extend(rows.iter().map(cells));
    lines.extend(total_lines(total));
    let width = |column: usize| lines.iter().map(|line| shown(&line[column]).chars().count()).max();
    let widths: Vec<_> = (0..COLUMNS.len()).map(|column| width(column).unwrap_or(0)).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            let cell = shown(cell);
            if column < TEXTS { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// The last lines: one, and a further one for each further currency, whose amounts cannot be added. The
/// tokens are of all currencies and stand only once.
fn total_lines(total: &TotalReport) -> Vec<Cells> {
    let texts = ["total".to_owned(), String::new(), String::new()];
    let mut lines = vec![join(texts, numbers(&total.spent), total.cost.first())];
    let further = total.cost.iter().skip(1);
    lines.extend(further.map(|cost| join(Default::default(), Default::default(), Some(cost))));
    lines
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use clap::Parser;
    use jiff::civil::date;
    use serde_json::Value;

    use super::*;
    use crate::clock::ManualClock;
    use crate::store;
    use crate::units::{Currency, Money, Tokens, Usage as Spent};

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: UsageArgs,
    }

    fn parse(line: &str) -> Result<UsageArgs, clap::Error> {
        let words = std::iter::once("usage").chain(line.split_whitespace());
        CommandLine::try_parse_from(words).map(|parsed| parsed.arguments)
    }

    fn row(tenant: &str, model: &str, currency: Currency) -> UsageRow {
        UsageRow {
            day: date(2026, 5, 4),
            tenant: tenant.into(),
            model: model.into(),
            calls: 3,
            unverified_calls: 1,
            usage: Spent { image: Tokens::new(70), text: Tokens::new(20), output: Tokens::new(10) },
            unverified_tokens: Tokens::new(50),
            cost: Money::from_nanos(12_500_000),
            currency,
        }
    }

    fn table(rows: &[UsageRow]) -> String {
        let mut out = Vec::new();
        write_table(&mut out, rows, &TotalReport::of(rows).unwrap()).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn csv(rows: &[UsageRow]) -> String {
        let mut out = Vec::new();
        write_csv(&mut out, rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Runs `line` on an empty ledger, at midnight UTC before the 14th of May 2026.
    async fn run_on_nothing(line: &str) -> (ExitCode, String) {
        run_in(&Calendar::UTC, line).await
    }

    async fn run_in(calendar: &Calendar, line: &str) -> (ExitCode, String) {
        let store = store::connect("sqlite::memory:", store::Options::default()).await.unwrap();
        store.migrate().await.unwrap();
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_hours(494_088));
        let mut out = Vec::new();
        let code =
            run(parse(line).unwrap(), &*store.ledger(), calendar, &clock, &mut out).await.unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_table_is_aligned_and_ends_with_its_total() {
        let rows = [row("acme", "qwen-vl-ocr", Currency::Cny), row("b", "q", Currency::Cny)];
        let table = table(&rows);
        let lines: Vec<Vec<_>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        let numbers = ["3", "1", "70", "90", "10", "100", "50", "0.0125", "CNY"];
        assert_eq!(lines[1][..3], ["2026-05-04", "acme", "qwen-vl-ocr"]);
        assert_eq!(lines[2][3..], numbers);
        let total = ["total", "6", "2", "140", "180", "20", "200", "100", "0.025", "CNY"];
        assert_eq!(lines[3], total);
        let ends: Vec<_> = table.lines().map(str::len).collect();
        assert_eq!(ends[1], ends[2], "{table}");
    }

    #[test]
    fn currencies_are_not_added_and_tokens_are_told_once() {
        let rows = [row("a", "m", Currency::Cny), row("a", "n", Currency::Usd)];
        let table = table(&rows);
        let last: Vec<Vec<_>> =
            table.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(last[0], ["total", "6", "2", "140", "180", "20", "200", "100", "0.0125", "CNY"]);
        assert_eq!(last[1], ["0.0125", "USD"]);
    }

    #[test]
    fn a_table_of_nothing_has_a_total_of_nothing() {
        let table = table(&[]);
        let last: Vec<_> = table.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last, ["total", "0", "0", "0", "0", "0", "0", "0", "-", "-"]);
    }

    #[test]
    fn a_name_that_an_older_version_took_cannot_break_a_line_of_csv_or_be_a_formula() {
        for (model, field) in [
            ("a \"large\", slow\nmodel", r#""a ""large"", slow\u{a}model""#),
            ("a\u{202e}b\u{2028}c", r"a\u{202e}b\u{2028}c"),
            ("=1+1", r#""'=1+1""#),
            ("@SUM(1,\"2\")", r#""'@SUM(1,""2"")""#),
            ("＋1", r#""'＋1""#),
            ("\t=1", r"\u{9}=1"),
            ("qwen-vl-ocr", "qwen-vl-ocr"),
        ] {
            let csv = csv(&[row("acme", model, Currency::Cny)]);
            let line = csv.split_once("\r\n").unwrap().1;
            let numbers = "3,1,70,90,10,100,50,0.0125,CNY";
            assert_eq!(line, format!("2026-05-04,acme,{field},{numbers}\r\n"));
        }
    }

    #[test]
    fn a_name_that_an_older_version_took_cannot_break_a_table() {
        let table = table(&[row("acme", "a\u{1b}[2J\nb", Currency::Cny)]);
        assert_eq!(table.lines().count(), 3);
        assert!(table.contains(r"a\u{1b}[2J\u{a}b  "), "{table}");
    }

    #[tokio::test]
    async fn json_tells_which_days_were_asked_for() {
        let (code, json) = run_on_nothing("--format json").await;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(code, ExitCode::SUCCESS);
        assert_eq!((&json["from"], &json["to"]), (&"2026-05-01".into(), &"2026-05-14".into()));
        assert_eq!((&json["rows"], &json["total"]["calls"]), (&serde_json::json!([]), &0.into()));
    }

    #[tokio::test]
    async fn today_is_the_day_in_the_time_zone_of_the_ledger() {
        let new_york = Calendar::named("America/New_York").unwrap();
        let (_, json) = run_in(&new_york, "--format json").await;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["to"], "2026-05-13");
    }

    #[tokio::test]
    async fn days_the_wrong_way_round_are_wrong_usage() {
        let ran = run_on_nothing("--from 2026-02-02 --to 2026-02-01").await;
        assert_eq!(ran, (ExitCode::from(2), String::new()));
        assert_eq!(run_on_nothing("--from 2026-05-15").await.0, ExitCode::from(2));
    }

    #[test]
    fn wrong_usage_is_told_before_anything_is_done() {
        for wrong in ["--from soon", "--to 2026-02-30", "--from 20260501", "--format xml", "acme"] {
            assert!(parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
