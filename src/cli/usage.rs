//! `ocr-gateway usage`: the spending of all tenants by day, tenant and model, or by key, endpoint or hour.
//!
//! Days come from the daily sums of the ledger. These include tenants of the database and of the configuration, also
//! deleted ones. Keys, endpoints and hours are summed from the entries of single calls, which are kept for
//! `ledger.retention_days`; notes on standard error list what these entries lack. The command only reads, so it may run
//! beside the service.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::ToSpan;
use jiff::civil::Date;
use serde::Serialize;

use super::output::{Failure, WRONG_USAGE, cell, say, write_json, write_table};
use crate::auth::tenant::TenantName;
use crate::clock::Clock;
use crate::label::{shown, starts_formula};
use crate::ledger::LedgerStore;
use crate::ledger::report::{DayReport, SpentReport, TotalReport};
use crate::ledger::settings::LedgerSettings;
use crate::ledger::usage::{Division, Part, PartRow, Spending, UsageQuery, UsageRow, day_named};
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
    /// Divide by this in place of day and model; from the calls of the last `ledger.retention_days`
    #[arg(long, value_enum)]
    by: Option<By>,
    /// The output format
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// The id of the calls' key
    Key,
    /// The endpoint of the upstream
    Endpoint,
    /// The hour in which the calls were requested
    Hour,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OutputFormat {
    /// A table for people
    Table,
    /// One JSON object
    Json,
    /// CSV with a header line (RFC 4180)
    Csv,
}

/// The output for scripts.
#[derive(Debug, Serialize)]
struct SpendingReport<T> {
    from: Date,
    to: Date,
    rows: Vec<T>,
    total: TotalReport,
}

#[derive(Debug, Serialize)]
struct DayRow {
    tenant: String,
    #[serde(flatten)]
    day: DayReport,
}

#[derive(Debug, Serialize)]
struct PartReport {
    /// The key, endpoint or hour, under that name; null if it is unknown.
    #[serde(flatten)]
    part: BTreeMap<&'static str, Option<String>>,
    tenant: String,
    #[serde(flatten)]
    spent: SpentReport,
    cost: Cost,
}

/// The names of the number columns.
const NUMBERS: [&str; 7] = [
    "calls",
    "unverified_calls",
    "image_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "unverified_tokens",
];

/// A table: text columns, number columns, cost.
struct UsageTable {
    /// The names of the text columns.
    texts: &'static [&'static str],
    lines: Vec<UsageLine>,
}

/// One line. `None` is an unknown text.
struct UsageLine {
    texts: Vec<Option<String>>,
    spending: Spending,
}

/// Reads the spending from the ledger and writes it.
///
/// # Errors
///
/// The ledger cannot be read or summed, or standard output is closed.
pub(super) async fn run(
    arguments: UsageArgs,
    ledger: &dyn LedgerStore,
    settings: &LedgerSettings,
    clock: &dyn Clock,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let UsageArgs { tenant, from, to, by, format } = arguments;
    let calendar = &settings.time_zone;
    let today = calendar.day_of(clock.timestamp());
    let query = match UsageQuery::of(tenant.map(String::from), from, to, today) {
        Ok(query) => query,
        Err(error) => {
            say(&format!("error: --from {error}"));
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    let Some(by) = by else {
        let rows = ledger.usage(&query).await?;
        let total = TotalReport::of(&rows)?;
        match format {
            OutputFormat::Table => UsageTable::of_days(rows).write(out, &total)?,
            OutputFormat::Csv => UsageTable::of_days(rows).write_csv(out)?,
            OutputFormat::Json => {
                write_report(out, &query, rows.into_iter().map(DayRow::from).collect(), total)?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    let rows = ledger.usage_by(by.division(), &query).await?;
    for note in by.notes(&rows, &query, settings, today) {
        say(&note);
    }
    let total = TotalReport::of_parts(&rows)?;
    match format {
        OutputFormat::Table => by.table(rows, calendar).write(out, &total)?,
        OutputFormat::Csv => by.table(rows, calendar).write_csv(out)?,
        OutputFormat::Json => {
            let parts = rows.into_iter().map(|row| by.report(row, calendar)).collect();
            write_report(out, &query, parts, total)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_report<T: Serialize>(
    out: &mut dyn Write,
    query: &UsageQuery,
    rows: Vec<T>,
    total: TotalReport,
) -> io::Result<()> {
    write_json(out, &SpendingReport { from: query.from, to: query.to, rows, total })
}

impl By {
    const fn division(self) -> Division {
        match self {
            Self::Key => Division::Key,
            Self::Endpoint => Division::Endpoint,
            Self::Hour => Division::Hour,
        }
    }

    /// The names of the text columns.
    const fn texts(self) -> &'static [&'static str; 2] {
        match self {
            Self::Key => &["key", "tenant"],
            Self::Endpoint => &["endpoint", "tenant"],
            Self::Hour => &["hour", "tenant"],
        }
    }

    fn table(self, rows: Vec<PartRow>, calendar: &Calendar) -> UsageTable {
        let lines = rows.into_iter().map(|PartRow { part, tenant, spending }| {
            let texts = vec![part.map(|part| text_of(part, calendar)), Some(tenant)];
            UsageLine { texts, spending }
        });
        UsageTable { texts: self.texts(), lines: lines.collect() }
    }

    fn report(self, row: PartRow, calendar: &Calendar) -> PartReport {
        let PartRow { part, tenant, spending } = row;
        let part = BTreeMap::from([(self.texts()[0], part.map(|part| text_of(part, calendar)))]);
        let spent = SpentReport::of(&spending);
        PartReport { part, tenant, spent, cost: Cost::of(spending.cost, spending.currency) }
    }

    /// Notes on data that the rows lack.
    fn notes(
        self,
        rows: &[PartRow],
        query: &UsageQuery,
        settings: &LedgerSettings,
        today: Date,
    ) -> Vec<String> {
        let name = self.texts()[0];
        let mut notes = Vec::new();
        if rows.iter().any(|row| row.part.is_none()) {
            let also = match self {
                Self::Endpoint => ", and calls whose process died before they ended",
                Self::Key | Self::Hour => "",
            };
            notes.push(format!(
                "note: the rows without {name} hold calls of older versions of the program, which did \
                 not note it{also}"
            ));
        }
        let kept = today.saturating_sub(i64::from(settings.retention_days).days());
        if query.from < kept {
            notes.push(format!(
                "note: calls before {kept} are deleted (ledger.retention_days = {}) and missing here; `usage` without \
                 --by counts them",
                settings.retention_days
            ));
        }
        notes
    }
}

fn text_of(part: Part, calendar: &Calendar) -> String {
    match part {
        Part::Named(name) => name,
        Part::Hour(begins_at) => calendar.hour_text(begins_at),
    }
}

impl From<UsageRow> for DayRow {
    fn from(row: UsageRow) -> Self {
        Self { tenant: row.tenant.clone(), day: row.into() }
    }
}

impl UsageTable {
    fn of_days(rows: Vec<UsageRow>) -> Self {
        let lines = rows.into_iter().map(|UsageRow { day, tenant, model, spending }| {
            let texts = vec![Some(day.to_string()), Some(tenant), Some(model)];
            UsageLine { texts, spending }
        });
        Self { texts: &["date", "tenant", "model"], lines: lines.collect() }
    }

    /// The names of all columns.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.texts.iter().copied().chain(NUMBERS).chain(["cost", "currency"])
    }

    fn write_csv(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}\r\n", self.names().collect::<Vec<_>>().join(","))?;
        for line in &self.lines {
            let texts = line.texts.iter().map(|text| text.clone().unwrap_or_default());
            let cells = texts.chain(line.cells());
            let fields: Vec<_> = cells.map(|cell| csv_field(&cell).into_owned()).collect();
            write!(out, "{}\r\n", fields.join(","))?;
        }
        Ok(())
    }

    fn write(&self, out: &mut dyn Write, total: &TotalReport) -> io::Result<()> {
        let mut lines: Vec<Vec<String>> = vec![self.names().map(str::to_uppercase).collect()];
        for line in &self.lines {
            lines.push(
                line.texts.iter().map(|text| cell(text.as_ref())).chain(line.cells()).collect(),
            );
        }
        lines.extend(self.total_lines(total));
        write_table(out, &lines, self.texts.len())
    }

    /// The last lines: one for each currency, because amounts of different currencies cannot be added. The first has
    /// the tokens of all currencies.
    fn total_lines(&self, total: &TotalReport) -> Vec<Vec<String>> {
        let line = |name: &str, numbers: [String; NUMBERS.len()], cost: Option<&Cost>| {
            let blank = std::iter::repeat_n(String::new(), self.texts.len() - 1);
            let texts = [name.to_owned()].into_iter().chain(blank);
            texts.chain(numbers).chain(cost_cells(cost)).collect()
        };
        let mut lines = vec![line("total", numbers(&total.spent), total.cost.first())];
        let further = total.cost.iter().skip(1);
        lines.extend(further.map(|cost| line("", Default::default(), Some(cost))));
        lines
    }
}

impl UsageLine {
    /// The cells after the text columns.
    fn cells(&self) -> impl Iterator<Item = String> {
        let Spending { cost, currency, .. } = self.spending;
        let numbers = numbers(&SpentReport::of(&self.spending));
        numbers.into_iter().chain(cost_cells(Some(&Cost::of(cost, currency))))
    }
}

fn numbers(spent: &SpentReport) -> [String; NUMBERS.len()] {
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

fn cost_cells(cost: Option<&Cost>) -> [String; 2] {
    [cell(cost.map(|cost| cost.amount)), cell(cost.map(|cost| cost.currency))]
}

/// A field of RFC 4180. Only names accepted by an older version can need quotes, or the apostrophe that keeps a
/// spreadsheet from reading the cell as a formula.
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
            spending: Spending {
                calls: 3,
                unverified_calls: 1,
                usage: Spent {
                    image: Tokens::new(70),
                    text: Tokens::new(20),
                    output: Tokens::new(10),
                },
                unverified_tokens: Tokens::new(50),
                cost: Money::from_nanos(12_500_000),
                currency,
            },
        }
    }

    fn table(rows: &[UsageRow]) -> String {
        let mut out = Vec::new();
        UsageTable::of_days(rows.to_vec())
            .write(&mut out, &TotalReport::of(rows).unwrap())
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    fn csv(rows: &[UsageRow]) -> String {
        let mut out = Vec::new();
        UsageTable::of_days(rows.to_vec()).write_csv(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Runs `line` on an empty ledger, at midnight UTC before the 14th of May 2026.
    async fn run_on_nothing(line: &str) -> (ExitCode, String) {
        run_in(&Calendar::UTC, line).await
    }

    async fn run_in(calendar: &Calendar, line: &str) -> (ExitCode, String) {
        let store =
            store::connect("sqlite::memory:", store::StoreOptions::default()).await.unwrap();
        store.migrate().await.unwrap();
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_hours(494_088));
        let mut out = Vec::new();
        let time_zone = calendar.clone();
        let settings = LedgerSettings { lease_ms: 30_000, retention_days: 400, time_zone };
        let code =
            run(parse(line).unwrap(), &*store.ledger(), &settings, &clock, &mut out).await.unwrap();
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

    fn part(part: Option<Part>) -> PartRow {
        let UsageRow { tenant, spending, .. } = row("acme", "m", Currency::Cny);
        PartRow { part, tenant, spending }
    }

    #[test]
    fn a_part_that_is_not_known_is_a_dash_in_a_table_an_empty_field_and_null() {
        let rows = vec![part(None), part(Some(Part::Named("4t0w9x2k7c1m".into())))];
        let table = By::Key.table(rows.clone(), &Calendar::UTC);
        let (mut text, mut csv) = (Vec::new(), Vec::new());
        table.write(&mut text, &TotalReport::of_parts(&rows).unwrap()).unwrap();
        table.write_csv(&mut csv).unwrap();
        let (text, csv) = (String::from_utf8(text).unwrap(), String::from_utf8(csv).unwrap());
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("-             acme"), "{text}");
        assert!(csv.starts_with("key,tenant,calls,") && csv.contains("\r\n,acme,3,1,"), "{csv}");
        let json = serde_json::to_value(By::Key.report(rows[0].clone(), &Calendar::UTC)).unwrap();
        assert_eq!((&json["key"], &json["tenant"]), (&Value::Null, &"acme".into()));
        assert_eq!(json["cost"]["amount"], "0.0125");
    }

    #[test]
    fn an_hour_is_shown_by_the_clocks_of_the_ledger() {
        let begins_at = "2026-10-25T00:00:00Z".parse().unwrap();
        let shown = |zone: &str, at| Calendar::named(zone).unwrap().hour_text(at);
        assert_eq!(shown("Asia/Shanghai", begins_at), "2026-10-25T08:00+08:00");
        assert_eq!(shown("Asia/Kathmandu", begins_at), "2026-10-25T05:45+05:45");
        // Clocks are set back: the hour occurs twice.
        let next = "2026-10-25T01:00:00Z".parse().unwrap();
        assert_eq!(shown("Europe/Berlin", begins_at), "2026-10-25T02:00+02:00");
        assert_eq!(shown("Europe/Berlin", next), "2026-10-25T02:00+01:00");
    }

    #[test]
    fn what_the_rows_cannot_tell_is_said() {
        let settings =
            LedgerSettings { lease_ms: 30_000, retention_days: 30, time_zone: Calendar::UTC };
        let today = date(2026, 5, 14);
        let query = |from| UsageQuery { tenant: None, from, to: today };
        let notes = |rows: &[PartRow], from| By::Key.notes(rows, &query(from), &settings, today);
        let known = part(Some(Part::Named("k".into())));
        assert!(notes(std::slice::from_ref(&known), date(2026, 4, 14)).is_empty());
        let told = notes(&[part(None), known], date(2026, 4, 13));
        assert!(
            told[0].contains("without key") && told[1].contains("before 2026-04-14"),
            "{told:?}"
        );
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
        for wrong in [
            "--by day",
            "--from soon",
            "--to 2026-02-30",
            "--from 20260501",
            "--format xml",
            "acme",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
