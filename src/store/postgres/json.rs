//! Rows of the ledger as JSON arrays. PostgreSQL receives the rows of a whole batch in one statement and unpacks them
//! itself. SQLite runs in the process, so its rows are written one by one (`../sqlite/posting.rs`).

use jiff::civil::Date;
use serde::Serialize;
use uuid::Uuid;

use crate::ledger::LedgerStoreError;
use crate::ledger::account::{Account, AccountKey};
use crate::ledger::books::{Entry, UsageChange, UsageKey};
use crate::store::rows::number_column;

/// An entry as a parameter of its statement.
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

/// An account, or only its key, as a parameter of its statement.
#[derive(Serialize)]
struct AccountJson<'a> {
    tenant: &'a str,
    period: &'static str,
    starts_on: Date,
    unit: &'static str,
    #[serde(flatten)]
    counted: Option<CountedJson>,
}

/// The counts of an account.
#[derive(Serialize)]
struct CountedJson {
    granted: i64,
    settled: i64,
    released: i64,
    excess: i64,
    reserved: i64,
}

/// A change of the daily usage as a parameter of its statement.
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
pub(super) fn entries(entries: &[&Entry]) -> Result<String, LedgerStoreError> {
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
pub(super) fn account_keys<'a>(
    keys: impl IntoIterator<Item = &'a AccountKey>,
) -> Result<String, LedgerStoreError> {
    json(keys.into_iter().map(|key| account_row(key, None)))
}

/// The rows of these accounts.
pub(super) fn accounts(accounts: &[(&AccountKey, &Account)]) -> Result<String, LedgerStoreError> {
    let rows = accounts.iter().map(|(key, account)| {
        let counted = CountedJson {
            granted: number_column(account.granted),
            settled: number_column(account.settled),
            released: number_column(account.released),
            excess: number_column(account.excess),
            reserved: number_column(account.reserved),
        };
        account_row(key, Some(counted))
    });
    json(rows)
}

/// The amounts to add to the daily usage.
pub(super) fn usage(usage: &[(&UsageKey, &UsageChange)]) -> Result<String, LedgerStoreError> {
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

fn account_row(key: &AccountKey, counted: Option<CountedJson>) -> AccountJson<'_> {
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
