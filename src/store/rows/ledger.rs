//! Rows of the ledger's tables.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use super::{amount, is_lasting, number, optional_amount, parsed, text, unread};
use crate::ledger::LedgerStoreError;
use crate::ledger::account::{Account, AccountKey, Unit};
use crate::ledger::books::{Bill, Charge, Entry, EntryState, UsageKey};
use crate::ledger::budget::Budgets;
use crate::ledger::usage::{Imbalance, Part, PartRow, RECOUNTED, SUMMED, Spending, UsageRow};
use crate::ledger::window::{Period, Window};
use crate::store::statement::Columns;
use crate::units::{Currency, Money, Tokens, Usage};

/// Converts a failed query to an error of the ledger store.
pub(in crate::store) fn failure(error: sqlx::Error) -> LedgerStoreError {
    if is_lasting(&error) {
        return LedgerStoreError::Broken(error.into());
    }
    LedgerStoreError::Unavailable(error.into())
}

/// A row of `ledger_entries`.
pub(in crate::store) fn entry(row: &dyn Columns) -> Result<Entry, sqlx::Error> {
    let optional = |column| row.text(column).map(|text| text.map(Arc::from));
    Ok(Entry {
        id: id(row, "id")?,
        instance: id(row, "holder")?,
        charge: Charge {
            tenant: text(row, "tenant")?.into(),
            key: optional("key_id")?,
            model: text(row, "model")?.into(),
            bound: Usage {
                image: tokens(row, "bound_image")?,
                text: tokens(row, "bound_text")?,
                output: tokens(row, "bound_output")?,
            },
            cost: Money::from_nanos(amount(row, "bound_cost_nanos")?),
            currency: currency(row)?,
        },
        day: day(row, "day")?,
        state: parsed(row, "state", |word| {
            EntryState::named(&word).ok_or("is not a state of an entry")
        })?,
        bill: Bill {
            usage: Usage {
                image: tokens(row, "billed_image")?,
                text: tokens(row, "billed_text")?,
                output: tokens(row, "billed_output")?,
            },
            cost: Money::from_nanos(amount(row, "billed_cost_nanos")?),
            request_id: row.text("request_id")?,
            endpoint: optional("endpoint")?,
        },
    })
}

/// A row of `ledger_accounts`.
pub(in crate::store) fn account(row: &dyn Columns) -> Result<(AccountKey, Account), sqlx::Error> {
    let account = Account {
        granted: amount(row, "granted")?,
        settled: amount(row, "settled")?,
        released: amount(row, "released")?,
        excess: amount(row, "excess")?,
        reserved: amount(row, "reserved")?,
    };
    Ok((account_key(row)?, account))
}

/// The budgets of a row of `tenants`.
pub(in crate::store) fn budgets(row: &dyn Columns) -> Result<(Arc<str>, Budgets), sqlx::Error> {
    let budgets = Budgets {
        daily_tokens: optional_amount(row, "daily_tokens")?.map(Tokens::new),
        monthly_tokens: optional_amount(row, "monthly_tokens")?.map(Tokens::new),
        daily_cost: optional_amount(row, "daily_cost_nanos")?.map(Money::from_nanos),
        monthly_cost: optional_amount(row, "monthly_cost_nanos")?.map(Money::from_nanos),
        disabled: row.flag("disabled")?,
        of_file: false,
    };
    Ok((text(row, "name")?.into(), budgets))
}

/// An instance with its number.
pub(in crate::store) fn heartbeat(row: &dyn Columns) -> Result<(Uuid, i64), sqlx::Error> {
    Ok((id(row, "id")?, number(row, "beat")?))
}

/// A count of rows.
pub(in crate::store) fn count(row: &dyn Columns) -> Result<u64, sqlx::Error> {
    amount(row, "count")
}

/// The id of an entry. An unreadable id is logged and `None`, so that it does not hide the others.
pub(in crate::store) fn readable_id(row: &dyn Columns) -> Result<Option<Uuid>, sqlx::Error> {
    let text = text(row, "id")?;
    let id = text.parse();
    Ok(id.inspect_err(|_| tracing::error!(id = text, "an entry has an id that is none")).ok())
}

/// A row of `ledger_usage`.
pub(in crate::store) fn daily_usage(row: &dyn Columns) -> Result<UsageRow, sqlx::Error> {
    let read = || {
        Ok(UsageRow {
            day: day(row, "day")?,
            tenant: text(row, "tenant")?,
            model: text(row, "model")?,
            spending: spending(row, amount)?,
        })
    };
    read().or_else(|error: sqlx::Error| {
        let name = named(row, ["day", "tenant", "model", "currency"])?;
        Err(sqlx::Error::Decode(format!("ledger_usage, row of {name}: {error}").into()))
    })
}

/// A part of the spending, computed from the entries.
pub(in crate::store) fn partial_usage(row: &dyn Columns) -> Result<PartRow, sqlx::Error> {
    let named = row.text("named")?;
    let hour = row.number("hour")?;
    let hour = hour.map(|hour| Timestamp::from_second(hour.saturating_mul(3_600)));
    let hour = hour.transpose().map_err(|error| unread("hour", error))?;
    let part = named.map(Part::Named).or(hour.map(Part::Hour));
    Ok(PartRow { part, tenant: text(row, "tenant")?, spending: spending(row, sum_in_text)? })
}

/// The spending in the columns that `amount` reads.
fn spending(
    row: &dyn Columns,
    amount: impl Fn(&dyn Columns, &str) -> Result<u64, sqlx::Error>,
) -> Result<Spending, sqlx::Error> {
    let usage = Usage {
        image: Tokens::new(amount(row, "image_tokens")?),
        text: Tokens::new(amount(row, "text_tokens")?),
        output: Tokens::new(amount(row, "output_tokens")?),
    };
    // An account stores the tokens of these calls in one column.
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

/// A sum of entries, given as decimal text, if it fits into a column.
fn sum_in_text(row: &dyn Columns, column: &str) -> Result<u64, sqlx::Error> {
    let sum: u64 = parsed(row, column, |text| text.parse::<u64>())?;
    let most = i64::MAX.unsigned_abs();
    if sum > most {
        let error =
            "adds up to more than can be counted; `ocr-gateway audit` names the sums it is in";
        return Err(unread(column, error));
    }
    Ok(sum)
}

/// An account in an audit.
pub(in crate::store) fn account_imbalance(row: &dyn Columns) -> Result<Imbalance, sqlx::Error> {
    let (counted, recounted) = (counted(row, RECOUNTED)?, recounted(row, RECOUNTED)?);
    match account_key(row) {
        Ok(account) => Ok(Imbalance::Account { account, counted, recounted }),
        Err(error) => unreadable(row, ["tenant", "period", "starts_on", "unit"], &error),
    }
}

/// A daily sum in an audit.
pub(in crate::store) fn usage_imbalance(row: &dyn Columns) -> Result<Imbalance, sqlx::Error> {
    let counted = Box::new(counted(row, SUMMED)?);
    let recounted = Box::new(recounted(row, SUMMED)?);
    match usage_key(row) {
        Ok(usage) => Ok(Imbalance::Usage { usage, counted, recounted }),
        Err(error) => unreadable(row, ["tenant", "day", "model", "currency"], &error),
    }
}

/// The numbers in these columns of an audit row.
fn counted<const N: usize>(
    row: &dyn Columns,
    columns: [&'static str; N],
) -> Result<[i128; N], sqlx::Error> {
    let mut counted = [0; N];
    for (counted, column) in counted.iter_mut().zip(columns) {
        *counted = number(row, column)?.into();
    }
    Ok(counted)
}

/// The sums of the entries for these columns, as decimal text, since no column holds every sum of columns.
fn recounted<const N: usize>(
    row: &dyn Columns,
    columns: [&'static str; N],
) -> Result<[i128; N], sqlx::Error> {
    let mut recounted = [0; N];
    for (recounted, column) in recounted.iter_mut().zip(columns) {
        let sum = text(row, &format!("recounted_{column}"))?;
        *recounted = sum.parse().map_err(|error| unread(column, error))?;
    }
    Ok(recounted)
}

/// An account or a daily sum whose name cannot be read because of `error`.
fn unreadable<const N: usize>(
    row: &dyn Columns,
    columns: [&'static str; N],
    error: &sqlx::Error,
) -> Result<Imbalance, sqlx::Error> {
    Ok(Imbalance::Unreadable { name: named(row, columns)?, cause: error.to_string() })
}

/// The texts of these columns.
fn named<const N: usize>(
    row: &dyn Columns,
    columns: [&'static str; N],
) -> Result<String, sqlx::Error> {
    let texts = columns.into_iter().map(|column| text(row, column));
    texts.collect::<Result<Vec<_>, _>>().map(|texts| texts.join(", "))
}

fn account_key(row: &dyn Columns) -> Result<AccountKey, sqlx::Error> {
    let period = parsed(row, "period", |word| {
        let found = Period::ALL.into_iter().find(|period| period.as_str() == word);
        found.ok_or("is not a period")
    })?;
    let window = Window { period, starts_on: day(row, "starts_on")? };
    let unit = parsed(row, "unit", |word| Unit::named(&word).ok_or("is not a unit"))?;
    Ok(AccountKey { tenant: text(row, "tenant")?.into(), window, unit })
}

fn usage_key(row: &dyn Columns) -> Result<UsageKey, sqlx::Error> {
    Ok(UsageKey {
        day: day(row, "day")?,
        tenant: text(row, "tenant")?.into(),
        model: text(row, "model")?.into(),
        currency: currency(row)?,
    })
}

fn id(row: &dyn Columns, column: &str) -> Result<Uuid, sqlx::Error> {
    parsed(row, column, |text| text.parse::<Uuid>())
}

fn day(row: &dyn Columns, column: &str) -> Result<Date, sqlx::Error> {
    parsed(row, column, |text| text.parse::<Date>())
}

fn currency(row: &dyn Columns) -> Result<Currency, sqlx::Error> {
    parsed(row, "currency", |word| match Unit::named(&word) {
        Some(Unit::Money(currency)) => Ok(currency),
        _ => Err("is not a currency"),
    })
}

fn tokens(row: &dyn Columns, column: &str) -> Result<Tokens, sqlx::Error> {
    amount(row, column).map(Tokens::new)
}
