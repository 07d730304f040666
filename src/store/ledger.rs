//! The ledger in a database, except posting, which differs between the engines (`posting`).

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::civil::Date;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::database::Database;
use super::rows::ledger as rows;
use super::rows::ledger::failure;
use super::sqlite;
use super::statement::{SqlValue, Workload};
use crate::ledger::account::{Account, AccountKey};
use crate::ledger::books::{Operation, Outcome};
use crate::ledger::usage::{Division, Imbalance, PartRow, UsageQuery, UsageRow};
use crate::ledger::window::{Calendar, Period, Window};
use crate::ledger::{LedgerStore, LedgerStoreError};

impl LedgerStore for Database {
    fn post<'a>(
        &'a self,
        batch: &'a [Operation],
        today: Date,
    ) -> BoxFuture<'a, Result<Vec<Outcome>, LedgerStoreError>> {
        match self {
            Self::Sqlite(sqlite) => Box::pin(sqlite.post(batch, today)),
            Self::Postgres(postgres) => Box::pin(postgres.post(batch, today)),
        }
    }

    fn linger(&self) -> Duration {
        match self {
            Self::Sqlite(_) => sqlite::LINGER,
            Self::Postgres(_) => Duration::ZERO,
        }
    }

    fn orphans(
        &self,
        after: Uuid,
        at_most: u32,
    ) -> BoxFuture<'_, Result<Vec<Uuid>, LedgerStoreError>> {
        Box::pin(async move {
            let select = self.statements().orphans;
            let values = vec![after.to_string().into(), i64::from(at_most).into()];
            let found = self.fetch(Workload::Post, select, values, rows::readable_id).await;
            Ok(found.map_err(failure)?.into_iter().flatten().collect())
        })
    }

    fn accounts<'a>(
        &'a self,
        tenants: &'a [&'a str],
        day: Date,
    ) -> BoxFuture<'a, Result<Vec<(AccountKey, Account)>, LedgerStoreError>> {
        Box::pin(async move {
            let select = self.statements().accounts;
            let month = Window::of(Period::Month, day).starts_on;
            let tenants = serde_json::Value::from(tenants).to_string();
            let values = vec![tenants.into(), day.to_string().into(), month.to_string().into()];
            self.fetch(Workload::LookUp, select, values, rows::account).await.map_err(failure)
        })
    }

    fn usage<'a>(
        &'a self,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<Vec<UsageRow>, LedgerStoreError>> {
        Box::pin(async move {
            let select =
                "SELECT day, tenant, model, currency, calls, unverified_calls, image_tokens,
                    text_tokens, output_tokens, unverified_tokens, cost_nanos
                 FROM ledger_usage
                 WHERE day BETWEEN $1 AND $2 AND (CAST($3 AS TEXT) IS NULL OR tenant = $3)
                    AND calls > 0
                 ORDER BY day, tenant, model, currency";
            let found =
                self.fetch(Workload::Report, select, values(query), rows::daily_usage).await;
            found.map_err(failure)
        })
    }

    fn usage_rows<'a>(
        &'a self,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<u64, LedgerStoreError>> {
        Box::pin(async move {
            let select = "SELECT count(*) AS count FROM ledger_usage
                 WHERE day BETWEEN $1 AND $2 AND (CAST($3 AS TEXT) IS NULL OR tenant = $3)
                    AND calls > 0";
            let found = self.fetch(Workload::Report, select, values(query), rows::count).await;
            Ok(found.map_err(failure)?.first().copied().unwrap_or(0))
        })
    }

    fn usage_by<'a>(
        &'a self,
        division: Division,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<Vec<PartRow>, LedgerStoreError>> {
        Box::pin(async move {
            let [named, hour] = columns_of(division);
            // Only names of columns are inserted into it.
            let select = AssertSqlSafe((self.statements().usage_by)(named, hour));
            let read = rows::partial_usage;
            self.fetch(Workload::Report, select, values(query), read).await.map_err(failure)
        })
    }

    fn audit(&self, from: Date) -> BoxFuture<'_, Result<Vec<Imbalance>, LedgerStoreError>> {
        Box::pin(async move {
            let from = || vec![from.to_string().into()];
            let accounts = self.statements().differing_accounts;
            let read = rows::account_imbalance;
            let accounts = self.fetch(Workload::Report, accounts, from(), read).await;
            let mut found = accounts.map_err(failure)?;
            let (usage, read) = (self.statements().differing_usage, rows::usage_imbalance);
            found.extend(self.fetch(Workload::Report, usage, from(), read).await.map_err(failure)?);
            Ok(found)
        })
    }

    fn prune(&self, before: Date, at_most: u32) -> BoxFuture<'_, Result<u64, LedgerStoreError>> {
        Box::pin(async move {
            let delete = self.statements().prune;
            let values = vec![
                least_id_of(before).to_string().into(),
                before.to_string().into(),
                i64::from(at_most).into(),
            ];
            self.execute(Workload::Post, delete, values).await.map_err(failure)
        })
    }
}

/// The parameters of a usage query.
fn values(query: &UsageQuery) -> Vec<SqlValue> {
    let (from, to) = (query.from.to_string(), query.to.to_string());
    vec![from.into(), to.into(), query.tenant.as_deref().into()]
}

/// The columns of the entries that name a part, and number its hour.
const fn columns_of(division: Division) -> [&'static str; 2] {
    match division {
        Division::Key => ["key_id", "NULL"],
        Division::Endpoint => ["endpoint", "NULL"],
        Division::Hour => ["NULL", "asked_at / 3600000"],
    }
}

/// The least id of an entry that was made on `day` in UTC: ids start with the time in milliseconds.
///
/// Pruning uses it to find old entries by the index of ids. Which entries are deleted is decided by
/// their day in the ledger's time zone. West of UTC the last entries of a day have larger ids than this
/// and are deleted one day later.
fn least_id_of(day: Date) -> Uuid {
    let midnight = Calendar::UTC.starts_at(&Window::of(Period::Day, day)).as_millisecond();
    let millis = u64::try_from(midnight).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}
