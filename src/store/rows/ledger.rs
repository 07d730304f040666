//! Rows of the ledger's tables.
//!
//! They are read like all rows. PostgreSQL is given those of a whole batch in one statement: as a JSON array,
//! which it takes apart into rows by itself. SQLite, which is next door, has them written one by one
//! (`../sqlite/posting.rs`).

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

use super::{is_unreadable, number_column, parsed, unread};
use crate::lease::LeaseError;
use crate::ledger::LedgerStoreError;
use crate::ledger::account::{Account, AccountKey, Unit};
use crate::ledger::books::{Bill, Charge, Entry, EntryState, UsageChange, UsageKey};
use crate::ledger::budget::Budgets;
use crate::ledger::usage::{
    Division, Imbalance, Part, PartRow, RECOUNTED, SUMMED, Spending, UsageRow,
};
use crate::ledger::window::{Calendar, Period, Window};
use crate::units::{Currency, Money, Tokens, Usage};

/// A row of `ledger_entries`.
pub(in crate::store) struct EntryRow(pub(in crate::store) Entry);

/// A row of `ledger_accounts`.
pub(in crate::store) struct AccountRow(
    pub(in crate::store) AccountKey,
    pub(in crate::store) Account,
);

/// The budgets of a row of `tenants`.
pub(in crate::store) struct BudgetsRow(pub(in crate::store) Arc<str>, pub(in crate::store) Budgets);

/// A row of `ledger_usage`.
pub(in crate::store) struct DailyUsageRow(pub(in crate::store) UsageRow);

/// A part of what the entries tell was spent.
pub(in crate::store) struct PartialUsageRow(pub(in crate::store) PartRow);

/// An account in an audit.
pub(in crate::store) struct AccountImbalanceRow(pub(in crate::store) Imbalance);

/// A daily sum in an audit.
pub(in crate::store) struct UsageImbalanceRow(pub(in crate::store) Imbalance);

/// An instance with its number.
pub(in crate::store) struct HeartbeatRow(pub(in crate::store) Uuid, pub(in crate::store) i64);

impl<'r, R> FromRow<'r, R> for EntryRow
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let optional = |column| -> Result<Option<Arc<str>>, sqlx::Error> {
            row.try_get::<Option<String>, _>(column).map(|text| text.map(Into::into))
        };
        Ok(Self(Entry {
            id: id(row, "id")?,
            instance: id(row, "holder")?,
            charge: Charge {
                tenant: text(row, "tenant")?,
                key: optional("key_id")?,
                model: text(row, "model")?,
                bound: Usage {
                    image: tokens(row, "bound_image")?,
                    text: tokens(row, "bound_text")?,
                    output: tokens(row, "bound_output")?,
                },
                cost: Money::from_nanos(amount(row, "bound_cost_nanos")?),
                currency: currency(row)?,
            },
            day: day(row, "day")?,
            state: parsed(row, "state", |word: String| {
                EntryState::named(&word).ok_or("is not a state of an entry")
            })?,
            bill: Bill {
                usage: Usage {
                    image: tokens(row, "billed_image")?,
                    text: tokens(row, "billed_text")?,
                    output: tokens(row, "billed_output")?,
                },
                cost: Money::from_nanos(amount(row, "billed_cost_nanos")?),
                request_id: row.try_get("request_id")?,
                endpoint: optional("endpoint")?,
            },
        }))
    }
}

impl<'r, R> FromRow<'r, R> for AccountRow
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let account = Account {
            granted: amount(row, "granted")?,
            settled: amount(row, "settled")?,
            released: amount(row, "released")?,
            excess: amount(row, "excess")?,
            reserved: amount(row, "reserved")?,
        };
        Ok(Self(account_key(row)?, account))
    }
}

impl<'r, R> FromRow<'r, R> for BudgetsRow
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let budgets = Budgets {
            daily_tokens: optional_amount(row, "daily_tokens")?.map(Tokens::new),
            monthly_tokens: optional_amount(row, "monthly_tokens")?.map(Tokens::new),
            daily_cost: optional_amount(row, "daily_cost_nanos")?.map(Money::from_nanos),
            monthly_cost: optional_amount(row, "monthly_cost_nanos")?.map(Money::from_nanos),
            disabled: row.try_get("disabled")?,
            of_file: false,
        };
        Ok(Self(text(row, "name")?, budgets))
    }
}

impl<'r, R> FromRow<'r, R> for DailyUsageRow
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let read = usage_row(row).map(Self);
        read.or_else(|error| {
            let name = named(row, ["day", "tenant", "model", "currency"])?;
            Err(sqlx::Error::Decode(format!("ledger_usage, row of {name}: {error}").into()))
        })
    }
}

fn usage_row<'r, R>(row: &'r R) -> Result<UsageRow, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(UsageRow {
        day: day(row, "day")?,
        tenant: row.try_get("tenant")?,
        model: row.try_get("model")?,
        spending: spending(row, amount)?,
    })
}

impl<'r, R> FromRow<'r, R> for PartialUsageRow
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let named: Option<String> = row.try_get("named")?;
        let hour: Option<i64> = row.try_get("hour")?;
        let hour = hour.map(|hour| Timestamp::from_second(hour.saturating_mul(3_600)));
        let hour = hour.transpose().map_err(|error| unread("hour", error))?;
        let part = named.map(Part::Named).or(hour.map(Part::Hour));
        let spending = spending(row, sum_in_text)?;
        Ok(Self(PartRow { part, tenant: row.try_get("tenant")?, spending }))
    }
}

/// What was spent, by columns that `amount` reads.
fn spending<'r, R>(
    row: &'r R,
    amount: impl Fn(&'r R, &'static str) -> Result<u64, sqlx::Error>,
) -> Result<Spending, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    let usage = Usage {
        image: Tokens::new(amount(row, "image_tokens")?),
        text: Tokens::new(amount(row, "text_tokens")?),
        output: Tokens::new(amount(row, "output_tokens")?),
    };
    // The accounts count the same calls, in one column.
    if usage.total().get() > i64::MAX.unsigned_abs() {
        let error = "is, with text_tokens and output_tokens, more than an account can count";
        return Err(unread("image_tokens", error));
    }
    Ok(Spending {
        calls: amount(row, "calls")?,
        unverified_calls: amount(row, "unverified_calls")?,
        usage,
        unverified_tokens: Tokens::new(amount(row, "unverified_tokens")?),
        cost: Money::from_nanos(amount(row, "cost_nanos")?),
        currency: currency(row)?,
    })
}

/// A sum of entries, as decimal text, where it is not more than a column holds.
fn sum_in_text<'r, R>(row: &'r R, column: &'static str) -> Result<u64, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    let sum: u64 = parsed(row, column, |text: String| text.parse::<u64>())?;
    let most = i64::MAX.unsigned_abs();
    if sum > most {
        let error =
            "adds up to more than can be counted; `ocr-gateway audit` names the sums it is in";
        return Err(unread(column, error));
    }
    Ok(sum)
}

impl<'r, R> FromRow<'r, R> for AccountImbalanceRow
where
    R: Row,
    for<'name> &'name str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let (counted, recounted) = (counted(row, RECOUNTED)?, recounted(row, RECOUNTED)?);
        let imbalance = match account_key(row) {
            Ok(account) => Imbalance::Account { account, counted, recounted },
            Err(error) => unreadable(row, ["tenant", "period", "starts_on", "unit"], &error)?,
        };
        Ok(Self(imbalance))
    }
}

impl<'r, R> FromRow<'r, R> for UsageImbalanceRow
where
    R: Row,
    for<'name> &'name str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let counted = Box::new(counted(row, SUMMED)?);
        let recounted = Box::new(recounted(row, SUMMED)?);
        let imbalance = match usage_key(row) {
            Ok(usage) => Imbalance::Usage { usage, counted, recounted },
            Err(error) => unreadable(row, ["tenant", "day", "model", "currency"], &error)?,
        };
        Ok(Self(imbalance))
    }
}

/// What a row of an audit holds in these columns.
fn counted<'r, R, const N: usize>(
    row: &'r R,
    columns: [&'static str; N],
) -> Result<[i128; N], sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let mut counted = [0; N];
    for (counted, column) in counted.iter_mut().zip(columns) {
        *counted = row.try_get::<i64, _>(column)?.into();
    }
    Ok(counted)
}

/// What its entries say of these columns, as decimal text, since no column holds every sum of columns.
fn recounted<'r, R, const N: usize>(
    row: &'r R,
    columns: [&'static str; N],
) -> Result<[i128; N], sqlx::Error>
where
    R: Row,
    for<'name> &'name str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    let mut recounted = [0; N];
    for (recounted, column) in recounted.iter_mut().zip(columns) {
        let sum: String = row.try_get(&*format!("recounted_{column}"))?;
        *recounted = sum.parse().map_err(|error| unread(column, error))?;
    }
    Ok(recounted)
}

/// An account or a daily sum whose name cannot be read because of `error`.
fn unreadable<'r, R, const N: usize>(
    row: &'r R,
    columns: [&'static str; N],
    error: &sqlx::Error,
) -> Result<Imbalance, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(Imbalance::Unreadable { name: named(row, columns)?, cause: error.to_string() })
}

/// The texts of these columns.
fn named<'r, R, const N: usize>(
    row: &'r R,
    columns: [&'static str; N],
) -> Result<String, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    let texts: Result<Vec<String>, _> =
        columns.into_iter().map(|column| row.try_get(column)).collect();
    texts.map(|texts| texts.join(", "))
}

impl<'r, R> FromRow<'r, R> for HeartbeatRow
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        Ok(Self(id(row, "id")?, row.try_get("beat")?))
    }
}

/// An entry as its statement takes it.
#[derive(Serialize)]
struct EntryJson<'a> {
    id: Uuid,
    holder: Uuid,
    tenant: &'a str,
    model: &'a str,
    currency: &'static str,
    day: Date,
    state: &'static str,
    bound_image: i64,
    bound_text: i64,
    bound_output: i64,
    bound_cost_nanos: i64,
    billed_image: i64,
    billed_text: i64,
    billed_output: i64,
    billed_cost_nanos: i64,
    request_id: Option<&'a str>,
    key_id: Option<&'a str>,
    asked_at: Option<i64>,
    endpoint: Option<&'a str>,
}

/// An account, or only its name, as its statement takes it.
#[derive(Serialize)]
struct AccountJson<'a> {
    tenant: &'a str,
    period: &'static str,
    starts_on: Date,
    unit: &'static str,
    #[serde(flatten)]
    counted: Option<CountedJson>,
}

/// What an account counts.
#[derive(Serialize)]
struct CountedJson {
    granted: i64,
    settled: i64,
    released: i64,
    excess: i64,
    reserved: i64,
}

/// A change of the daily usage as its statement takes it.
#[derive(Serialize)]
struct UsageJson<'a> {
    day: Date,
    tenant: &'a str,
    model: &'a str,
    currency: &'static str,
    calls: i64,
    unverified_calls: i64,
    image_tokens: i64,
    text_tokens: i64,
    output_tokens: i64,
    unverified_tokens: i64,
    cost_nanos: i64,
}

/// The rows of these entries.
pub(in crate::store) fn entries_json(entries: &[&Entry]) -> Result<String, LedgerStoreError> {
    let rows = entries.iter().map(|entry| EntryJson {
        id: entry.id,
        holder: entry.instance,
        tenant: &entry.charge.tenant,
        model: &entry.charge.model,
        currency: entry.charge.currency.code(),
        day: entry.day,
        state: entry.state.as_str(),
        bound_image: number_column(entry.charge.bound.image.get()),
        bound_text: number_column(entry.charge.bound.text.get()),
        bound_output: number_column(entry.charge.bound.output.get()),
        bound_cost_nanos: number_column(entry.charge.cost.nanos()),
        billed_image: number_column(entry.bill.usage.image.get()),
        billed_text: number_column(entry.bill.usage.text.get()),
        billed_output: number_column(entry.bill.usage.output.get()),
        billed_cost_nanos: number_column(entry.bill.cost.nanos()),
        request_id: entry.bill.request_id.as_deref(),
        key_id: entry.charge.key.as_deref(),
        asked_at: entry.asked_at(),
        endpoint: entry.bill.endpoint.as_deref(),
    });
    json(rows)
}

/// The names of these accounts.
pub(in crate::store) fn account_keys_json<'a>(
    keys: impl IntoIterator<Item = &'a AccountKey>,
) -> Result<String, LedgerStoreError> {
    json(keys.into_iter().map(|key| account_json(key, None)))
}

/// The rows of these accounts.
pub(in crate::store) fn accounts_json(
    accounts: &[(&AccountKey, &Account)],
) -> Result<String, LedgerStoreError> {
    let rows = accounts.iter().map(|(key, account)| {
        let counted = CountedJson {
            granted: number_column(account.granted),
            settled: number_column(account.settled),
            released: number_column(account.released),
            excess: number_column(account.excess),
            reserved: number_column(account.reserved),
        };
        account_json(key, Some(counted))
    });
    json(rows)
}

/// The columns of the entries that name a part, and number its hour.
pub(in crate::store) const fn parts_of(division: Division) -> [&'static str; 2] {
    match division {
        Division::Key => ["key_id", "NULL"],
        Division::Endpoint => ["endpoint", "NULL"],
        Division::Hour => ["NULL", "asked_at / 3600000"],
    }
}

/// What is to be added to the daily usage.
pub(in crate::store) fn usage_json(
    usage: &[(&UsageKey, &UsageChange)],
) -> Result<String, LedgerStoreError> {
    let rows = usage.iter().map(|(key, change)| UsageJson {
        day: key.day,
        tenant: &key.tenant,
        model: &key.model,
        currency: key.currency.code(),
        calls: change.calls,
        unverified_calls: change.unverified_calls,
        image_tokens: change.image_tokens,
        text_tokens: change.text_tokens,
        output_tokens: change.output_tokens,
        unverified_tokens: change.unverified_tokens,
        cost_nanos: change.cost_nanos,
    });
    json(rows)
}

/// These names as an array.
pub(in crate::store) fn names_json(names: &[&str]) -> Result<String, LedgerStoreError> {
    json(names.iter())
}

fn account_json(key: &AccountKey, counted: Option<CountedJson>) -> AccountJson<'_> {
    AccountJson {
        tenant: &key.tenant,
        period: key.window.period.as_str(),
        starts_on: key.window.starts_on,
        unit: key.unit.as_str(),
        counted,
    }
}

fn json<T: Serialize>(rows: impl Iterator<Item = T>) -> Result<String, LedgerStoreError> {
    let rows: Vec<T> = rows.collect();
    serde_json::to_string(&rows).map_err(|error| LedgerStoreError::Broken(error.into()))
}

/// The least id of an entry that was made on `day` in UTC: ids start with the time in milliseconds.
///
/// Pruning uses it to find old entries by the index of ids. Which entries are deleted is decided by
/// their day in the ledger's time zone. West of UTC the last entries of a day have larger ids than this
/// and are deleted one day later.
pub(in crate::store) fn least_id_of(day: Date) -> Uuid {
    let midnight = Calendar::UTC.starts_at(&Window::of(Period::Day, day)).as_millisecond();
    let millis = u64::try_from(midnight).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

/// The ids of these texts. One that cannot be read is told of and left out, so that it does not hide the
/// others.
pub(in crate::store) fn ids(texts: Vec<String>) -> Vec<Uuid> {
    let read = |text: String| {
        let id = text.parse();
        id.inspect_err(|_| tracing::error!(id = text, "an entry has an id that is none")).ok()
    };
    texts.into_iter().filter_map(read).collect()
}

/// A failed query as a store of the ledger reports it.
pub(in crate::store) fn failure(error: sqlx::Error) -> LedgerStoreError {
    if is_lasting(&error) {
        return LedgerStoreError::Broken(error.into());
    }
    LedgerStoreError::Unavailable(error.into())
}

/// A failed query as a store of instances reports it.
pub(in crate::store) fn lease_failure(error: sqlx::Error) -> LeaseError {
    if is_lasting(&error) {
        return LeaseError::Broken(error.into());
    }
    LeaseError::Unavailable(error.into())
}

/// Whether the same query would fail again.
fn is_lasting(error: &sqlx::Error) -> bool {
    let breaks_a_rule = error.as_database_error().is_some_and(|error| {
        // Out of range (SQLSTATE 22003) is PostgreSQL's word for a number that no column holds.
        error.is_check_violation() || error.code().is_some_and(|code| code == "22003")
    });
    breaks_a_rule || is_unreadable(error)
}

fn account_key<'r, R>(row: &'r R) -> Result<AccountKey, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    let period = parsed(row, "period", |word: String| {
        let found = Period::ALL.into_iter().find(|period| period.as_str() == word);
        found.ok_or("is not a period")
    })?;
    let window = Window { period, starts_on: day(row, "starts_on")? };
    let unit = parsed(row, "unit", |word: String| Unit::named(&word).ok_or("is not a unit"))?;
    Ok(AccountKey { tenant: text(row, "tenant")?, window, unit })
}

fn usage_key<'r, R>(row: &'r R) -> Result<UsageKey, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(UsageKey {
        day: day(row, "day")?,
        tenant: text(row, "tenant")?,
        model: text(row, "model")?,
        currency: currency(row)?,
    })
}

fn id<'r, R>(row: &'r R, column: &'static str) -> Result<Uuid, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    parsed(row, column, |text: String| text.parse::<Uuid>())
}

fn text<'r, R>(row: &'r R, column: &'static str) -> Result<Arc<str>, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    row.try_get::<String, _>(column).map(Into::into)
}

fn day<'r, R>(row: &'r R, column: &'static str) -> Result<Date, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    parsed(row, column, |text: String| text.parse::<Date>())
}

fn currency<'r, R>(row: &'r R) -> Result<Currency, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    parsed(row, "currency", |word: String| match Unit::named(&word) {
        Some(Unit::Money(currency)) => Ok(currency),
        _ => Err("is not a currency"),
    })
}

fn tokens<'r, R>(row: &'r R, column: &'static str) -> Result<Tokens, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    amount(row, column).map(Tokens::new)
}

fn amount<'r, R>(row: &'r R, column: &'static str) -> Result<u64, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|error| unread(column, error))
}

fn optional_amount<'r, R>(row: &'r R, column: &'static str) -> Result<Option<u64>, sqlx::Error>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let number: Option<i64> = row.try_get(column)?;
    number.map(u64::try_from).transpose().map_err(|error| unread(column, error))
}
