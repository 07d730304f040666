//! `ocr-gateway audit`: recounts the ledger's entries and compares them with its accounts and daily sums.
//!
//! It only reads, accounts in one statement and daily sums in another, so it may run beside the service. It repairs
//! nothing: an account that differs from its entries indicates a bug or a manual change of the database, and an
//! operator should find out which.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use jiff::ToSpan;
use jiff::civil::Date;

use super::output::Failure;
use crate::clock::Clock;
use crate::label::shown;
use crate::ledger::LedgerStore;
use crate::ledger::account::{AccountKey, Unit};
use crate::ledger::books::UsageKey;
use crate::ledger::settings::LedgerSettings;
use crate::ledger::usage::{Imbalance, RECOUNTED, SUMMED, day_named};
use crate::units::Money;

/// How many days an audit looks back by default: the days of the longest month, so that the whole current month is
/// included.
const DAYS_BACK: i64 = 31;

/// `ocr-gateway audit`
#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// The first day of the windows to recount, like 2026-01-31; about a month ago without it
    #[arg(long, value_name = "DAY", value_parser = day_named)]
    from: Option<Date>,
}

/// Recounts, and lists each account and daily sum that differs from its entries.
///
/// # Errors
///
/// The ledger cannot be read, or standard output is closed.
pub(super) async fn run(
    arguments: &AuditArgs,
    ledger: &dyn LedgerStore,
    settings: &LedgerSettings,
    clock: &dyn Clock,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let from = first_day(arguments, settings, settings.time_zone.day_of(clock.timestamp()))?;
    let imbalances = ledger.audit(from).await?;
    if imbalances.is_empty() {
        writeln!(
            out,
            "balanced: every account since {from}, and every daily sum, counts what its entries say"
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    for imbalance in &imbalances {
        writeln!(out, "{}", shown(&told(imbalance)))?;
    }
    Ok(ExitCode::FAILURE)
}

/// The first day to recount. Entries older than the retention are deleted, so every account of such a window would
/// appear to count too much.
fn first_day(
    arguments: &AuditArgs,
    settings: &LedgerSettings,
    today: Date,
) -> Result<Date, String> {
    let kept = today.saturating_sub(i64::from(settings.retention_days).days());
    match arguments.from {
        Some(from) if from < kept => Err(format!(
            "--from {from} is before {kept}, the first day whose entries are all kept \
             (ledger.retention_days)"
        )),
        Some(from) => Ok(from),
        None => Ok(kept.max(today.saturating_sub(DAYS_BACK.days()))),
    }
}

/// One difference as a line: `acme, day of 2026-01-31, tokens: settled is 900, by its entries 800`.
fn told(imbalance: &Imbalance) -> String {
    match imbalance {
        Imbalance::Account { account, counted, recounted } => {
            let AccountKey { tenant, window, unit } = account;
            let amount = |amount: i128| match (unit, u64::try_from(amount)) {
                (Unit::Tokens, _) => amount.to_string(),
                (Unit::Money(_), Ok(nanos)) => Money::from_nanos(nanos).to_string(),
                (Unit::Money(_), Err(_)) => format!("{amount} billionths"),
            };
            let (period, day) = (window.period.as_str(), window.starts_on);
            let subject = format!("{tenant}, {period} of {day}, {unit}");
            differences(&subject, RECOUNTED.iter().zip(counted).zip(recounted), amount)
        }
        Imbalance::Usage { usage, counted, recounted } => {
            let UsageKey { day, tenant, model, currency } = usage;
            let subject = format!("{tenant}, sum of {day}, {model}, {currency}");
            let columns = SUMMED.iter().zip(&**counted).zip(&**recounted);
            differences(&subject, columns, |amount| amount.to_string())
        }
        Imbalance::Unreadable { name, cause } => format!("{name}: {cause}"),
    }
}

/// The columns of `subject` that differ, with both of their amounts.
fn differences<'a>(
    subject: &str,
    columns: impl Iterator<Item = ((&'a &'static str, &'a i128), &'a i128)>,
    amount: impl Fn(i128) -> String,
) -> String {
    let differing = columns.filter(|((_, is), entries)| is != entries);
    let told = differing.map(|((column, is), entries)| {
        format!("{column} is {}, by its entries {}", amount(*is), amount(*entries))
    });
    format!("{subject}: {}", told.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use clap::Parser;
    use jiff::civil::date;

    use super::*;
    use crate::clock::ManualClock;
    use crate::ledger::window::{Calendar, Period, Window};
    use crate::store;
    use crate::units::Currency;

    const TODAY: Date = date(2026, 5, 14);

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: AuditArgs,
    }

    fn parse(line: &str) -> Result<AuditArgs, clap::Error> {
        let words = std::iter::once("audit").chain(line.split_whitespace());
        CommandLine::try_parse_from(words).map(|parsed| parsed.arguments)
    }

    fn settings(retention_days: u32) -> LedgerSettings {
        LedgerSettings { lease_ms: 30_000, retention_days, time_zone: Calendar::UTC }
    }

    fn first(line: &str, retention_days: u32) -> Result<Date, String> {
        let settings = settings(retention_days);
        first_day(&parse(line).unwrap(), &settings, TODAY)
    }

    #[test]
    fn an_audit_looks_back_a_month_and_no_further_than_entries_are_kept() {
        assert_eq!(first("", 400), Ok(date(2026, 4, 13)));
        assert_eq!(first("", 10), Ok(date(2026, 5, 4)));
        assert_eq!(first("--from 2025-06-01", 400), Ok(date(2025, 6, 1)));
    }

    #[test]
    fn days_whose_entries_are_deleted_cannot_be_recounted() {
        assert_eq!(first("--from 2026-05-04", 10), Ok(date(2026, 5, 4)));
        let refusal = first("--from 2026-05-03", 10).unwrap_err();
        assert!(refusal.contains("before 2026-05-04") && refusal.contains("ledger.retention_days"));
    }

    #[test]
    fn what_is_no_day_is_wrong_usage() {
        for wrong in ["--from soon", "--from 20260501", "--from 2026-02-30", "--from"] {
            assert!(parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn an_imbalance_names_the_account_and_what_differs_in_its_unit() {
        let of = |unit, counted, recounted| {
            let window = Window::of(Period::Month, TODAY);
            let account = AccountKey { tenant: "acme".into(), window, unit };
            told(&Imbalance::Account { account, counted, recounted })
        };
        assert_eq!(
            of(Unit::Tokens, [9, 5, 0], [9, 4, 1]),
            "acme, month of 2026-05-01, tokens: settled is 5, by its entries 4; \
             reserved is 0, by its entries 1"
        );
        assert_eq!(
            of(Unit::Money(Currency::Cny), [1_500_000_000, 0, 0], [1, 0, 0]),
            "acme, month of 2026-05-01, CNY: granted is 1.5, by its entries 0.000000001"
        );
        assert_eq!(
            of(Unit::Money(Currency::Cny), [1 << 64, 0, 0], [0, 0, 0]),
            "acme, month of 2026-05-01, CNY: granted is 18446744073709551616 billionths, by its \
             entries 0"
        );
    }

    #[tokio::test]
    async fn the_days_of_an_audit_are_those_of_the_ledger_s_time_zone() {
        let store =
            store::connect("sqlite::memory:", store::StoreOptions::default()).await.unwrap();
        store.migrate().await.unwrap();
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365));
        let time_zone = Calendar::named("America/New_York").unwrap();
        let settings = LedgerSettings { time_zone, ..settings(1) };
        let (arguments, mut out) = (parse("").unwrap(), Vec::new());
        run(&arguments, &*store.ledger(), &settings, &clock, &mut out).await.unwrap();
        let told = String::from_utf8(out).unwrap();
        assert!(told.starts_with("balanced: every account since 1970-12-30"), "{told}");
    }

    #[test]
    fn a_daily_sum_is_named_with_what_differs() {
        let (tenant, model, currency) = ("acme".into(), "m".into(), Currency::Cny);
        let usage = UsageKey { day: TODAY, tenant, model, currency };
        let counted = Box::new([2, 0, -5, 0, 0, 0, 0]);
        let recounted = Box::new([2, 0, 0, 0, 0, 0, 7]);
        assert_eq!(
            told(&Imbalance::Usage { usage, counted, recounted }),
            "acme, sum of 2026-05-14, m, CNY: image_tokens is -5, by its entries 0; \
             cost_nanos is 0, by its entries 7"
        );
    }

    #[tokio::test]
    async fn an_empty_ledger_is_balanced() {
        let store =
            store::connect("sqlite::memory:", store::StoreOptions::default()).await.unwrap();
        store.migrate().await.unwrap();
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365));
        let settings = settings(400);
        let (arguments, mut out) = (parse("").unwrap(), Vec::new());
        let code = run(&arguments, &*store.ledger(), &settings, &clock, &mut out).await.unwrap();
        assert_eq!(code, ExitCode::SUCCESS);
        assert!(
            String::from_utf8(out).unwrap().starts_with("balanced: every account since 1970-12")
        );
    }
}
