//! The ledger in SQLite. The functions stand in the same order as in `../postgres/ledger.rs`.
//!
//! A batch is one transaction that takes the write lock at its start, so nothing can come between
//! reading the accounts and writing them.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::civil::Date;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::Sqlite;
use crate::ledger::account::{Account, AccountKey};
use crate::ledger::books::{Books, Entry, Operation, Outcome, accounts_of, reserving_tenants};
use crate::ledger::budget::Budgets;
use crate::ledger::usage::{Imbalance, UsageQuery, UsageRow};
use crate::ledger::window::{Period, Window};
use crate::ledger::{Beats, LedgerStore, LedgerStoreError};
use crate::store::rows::ledger::{
    self as rows, AccountRow, BeatRow, BudgetsRow, DailyUsageRow, EntryRow, IdRow, ImbalanceRow,
    failure,
};

impl LedgerStore for Sqlite {
    fn post<'a>(
        &'a self,
        batch: &'a [Operation],
        today: Date,
    ) -> BoxFuture<'a, Result<Vec<Outcome>, LedgerStoreError>> {
        Box::pin(async move {
            let begun = self.pool.begin_with("BEGIN IMMEDIATE").await;
            let mut transaction = begun.map_err(failure)?;
            let entries = entries(&mut transaction, batch).await?;
            let keys = accounts_of(batch, &entries, today);
            let accounts = accounts(&mut transaction, keys.iter()).await?;
            let budgets = budgets(&mut transaction, batch).await?;
            let mut books = Books::new(accounts, entries).with_budgets(budgets);
            let outcomes = batch.iter().map(|operation| books.post(operation, today)).collect();
            write(&mut transaction, &books).await?;
            transaction.commit().await.map_err(failure)?;
            Ok(outcomes)
        })
    }

    fn register(&self, holder: Uuid) -> BoxFuture<'_, Result<(), LedgerStoreError>> {
        Box::pin(async move {
            let insert = sqlx::query("INSERT INTO ledger_holders (id, beat) VALUES (?1, 0)");
            let done = insert.bind(holder.to_string()).execute(&self.pool).await;
            done.map(|_| ()).map_err(failure)
        })
    }

    fn beat(&self, holder: Uuid) -> BoxFuture<'_, Result<Option<Beats>, LedgerStoreError>> {
        Box::pin(async move {
            let update = sqlx::query("UPDATE ledger_holders SET beat = beat + 1 WHERE id = ?1");
            let done = update.bind(holder.to_string()).execute(&self.pool).await;
            if done.map_err(failure)?.rows_affected() == 0 {
                return Ok(None);
            }
            let select = sqlx::query_as("SELECT id, beat FROM ledger_holders");
            let found = select.fetch_all(&self.pool).await.map_err(failure)?;
            Ok(Some(found.into_iter().map(|BeatRow(id, beat)| (id, beat)).collect()))
        })
    }

    fn forget(&self, holder: Uuid) -> BoxFuture<'_, Result<(), LedgerStoreError>> {
        Box::pin(async move {
            let delete = sqlx::query("DELETE FROM ledger_holders WHERE id = ?1");
            let done = delete.bind(holder.to_string()).execute(&self.pool).await;
            done.map(|_| ()).map_err(failure)
        })
    }

    fn orphans(&self, at_most: u32) -> BoxFuture<'_, Result<Vec<Uuid>, LedgerStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT id FROM ledger_entries
                 WHERE state = 'open' AND holder NOT IN (SELECT id FROM ledger_holders)
                 LIMIT ?1",
            );
            let found = select.bind(at_most).fetch_all(&self.pool).await.map_err(failure)?;
            Ok(found.into_iter().map(|IdRow(id)| id).collect())
        })
    }

    fn accounts<'a>(
        &'a self,
        tenant: &'a str,
        day: Date,
    ) -> BoxFuture<'a, Result<Vec<(AccountKey, Account)>, LedgerStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT tenant, period, starts_on, unit,
                    granted, settled, released, excess, reserved
                 FROM ledger_accounts
                 WHERE tenant = ?1
                    AND (period = 'day' AND starts_on = ?2 OR period = 'month' AND starts_on = ?3)
                 ORDER BY period, unit",
            );
            let month = Window::of(Period::Month, day).starts_on;
            let select = select.bind(tenant).bind(day.to_string()).bind(month.to_string());
            let found = select.fetch_all(&self.pool).await.map_err(failure)?;
            Ok(found.into_iter().map(|AccountRow(key, account)| (key, account)).collect())
        })
    }

    fn usage<'a>(
        &'a self,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<Vec<UsageRow>, LedgerStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT day, tenant, model, currency, calls, unverified_calls, image_tokens,
                    text_tokens, output_tokens, unverified_tokens, cost_nanos
                 FROM ledger_usage
                 WHERE day BETWEEN ?1 AND ?2 AND (?3 IS NULL OR tenant = ?3) AND calls > 0
                 ORDER BY day, tenant, model, currency",
            );
            let select = select.bind(query.from.to_string()).bind(query.to.to_string());
            let found = select.bind(query.tenant.as_deref()).fetch_all(&self.pool).await;
            let found = found.map_err(failure)?;
            Ok(found.into_iter().map(|DailyUsageRow(row)| row).collect())
        })
    }

    fn audit(&self, from: Date) -> BoxFuture<'_, Result<Vec<Imbalance>, LedgerStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "WITH amounts AS (
                    SELECT tenant, day, state, 'tokens' AS unit,
                        bound_image + bound_text + bound_output AS bound,
                        billed_image + billed_text + billed_output AS billed
                    FROM ledger_entries WHERE day >= ?1
                    UNION ALL
                    SELECT tenant, day, state, currency, bound_cost_nanos, billed_cost_nanos
                    FROM ledger_entries WHERE day >= ?1
                 ), windows AS (
                    SELECT tenant, 'day' AS period, day AS starts_on, unit, state, bound, billed
                    FROM amounts
                    UNION ALL
                    SELECT tenant, 'month', substr(day, 1, 8) || '01', unit, state, bound, billed
                    FROM amounts WHERE substr(day, 1, 8) || '01' >= ?1
                 ), recounts AS (
                    SELECT tenant, period, starts_on, unit,
                        sum(bound) AS granted,
                        sum(billed) AS settled,
                        sum(CASE state WHEN 'open' THEN bound ELSE 0 END) AS reserved
                    FROM windows GROUP BY tenant, period, starts_on, unit
                 )
                 SELECT tenant, period, starts_on, unit,
                    coalesce(account.granted, 0) AS granted,
                    coalesce(account.settled, 0) AS settled,
                    coalesce(account.reserved, 0) AS reserved,
                    coalesce(recount.granted, 0) AS recounted_granted,
                    coalesce(recount.settled, 0) AS recounted_settled,
                    coalesce(recount.reserved, 0) AS recounted_reserved
                 FROM (SELECT * FROM ledger_accounts WHERE starts_on >= ?1) AS account
                 FULL JOIN recounts AS recount USING (tenant, period, starts_on, unit)
                 WHERE coalesce(account.granted, 0) <> coalesce(recount.granted, 0)
                    OR coalesce(account.settled, 0) <> coalesce(recount.settled, 0)
                    OR coalesce(account.reserved, 0) <> coalesce(recount.reserved, 0)
                 ORDER BY tenant, period, starts_on, unit",
            );
            let found = select.bind(from.to_string()).fetch_all(&self.pool).await;
            let found = found.map_err(failure)?;
            Ok(found.into_iter().map(|ImbalanceRow(imbalance)| imbalance).collect())
        })
    }

    fn prune(&self, before: Date, at_most: u32) -> BoxFuture<'_, Result<u64, LedgerStoreError>> {
        Box::pin(async move {
            let delete = sqlx::query(
                "DELETE FROM ledger_entries WHERE id IN (
                    SELECT id FROM ledger_entries
                    WHERE id < ?1 AND day < ?2 AND state <> 'open' ORDER BY id LIMIT ?3)",
            );
            let delete = delete.bind(rows::least_id_of(before).to_string());
            let done = delete.bind(before.to_string()).bind(at_most).execute(&self.pool).await;
            Ok(done.map_err(failure)?.rows_affected())
        })
    }
}

/// The entries of a batch that exist already.
async fn entries(
    connection: &mut SqliteConnection,
    batch: &[Operation],
) -> Result<Vec<Entry>, LedgerStoreError> {
    let ids: Vec<_> = batch.iter().map(Operation::id).collect();
    let select = sqlx::query_as(
        "SELECT id, holder, tenant, model, currency, day, state,
            bound_image, bound_text, bound_output, bound_cost_nanos,
            billed_image, billed_text, billed_output, billed_cost_nanos, request_id
         FROM ledger_entries WHERE id IN (SELECT value FROM json_each(?1))",
    );
    let select = select.bind(serde_json::json!(ids).to_string());
    let found = select.fetch_all(connection).await.map_err(failure)?;
    Ok(found.into_iter().map(|EntryRow(entry)| entry).collect())
}

async fn accounts(
    connection: &mut SqliteConnection,
    keys: impl Iterator<Item = &AccountKey>,
) -> Result<Vec<(AccountKey, Account)>, LedgerStoreError> {
    let select = sqlx::query_as(
        "WITH keys AS MATERIALIZED (SELECT value FROM json_each(?1))
         SELECT account.tenant, account.period, account.starts_on, account.unit,
            granted, settled, released, excess, reserved
         FROM keys AS key CROSS JOIN ledger_accounts AS account
            ON account.tenant = key.value->>'tenant' AND account.period = key.value->>'period'
                AND account.starts_on = key.value->>'starts_on'
                AND account.unit = key.value->>'unit'",
    );
    let select = select.bind(rows::account_keys_json(keys)?);
    let found = select.fetch_all(connection).await.map_err(failure)?;
    Ok(found.into_iter().map(|AccountRow(key, account)| (key, account)).collect())
}

/// The budgets, as they are now, of the tenants that are kept in the database.
async fn budgets(
    connection: &mut SqliteConnection,
    batch: &[Operation],
) -> Result<Vec<(Arc<str>, Budgets)>, LedgerStoreError> {
    let tenants = reserving_tenants(batch);
    if tenants.is_empty() {
        return Ok(Vec::new());
    }
    let select = sqlx::query_as(
        "SELECT name, daily_tokens, monthly_tokens, daily_cost_nanos, monthly_cost_nanos
         FROM tenants WHERE name IN (SELECT value FROM json_each(?1))",
    );
    let found = select
        .bind(serde_json::json!(tenants).to_string())
        .fetch_all(connection)
        .await
        .map_err(failure)?;
    Ok(found.into_iter().map(|BudgetsRow(tenant, budgets)| (tenant, budgets)).collect())
}

/// Writes what the books changed, in one go: each statement that the connection's thread is sent on its own
/// wakes two threads, which for a lone call cost more than the statements. Those that have nothing to write
/// are given an empty array.
async fn write(connection: &mut SqliteConnection, books: &Books) -> Result<(), LedgerStoreError> {
    let changes = books.changes();
    let write = sqlx::query(WRITE)
        .bind(rows::entries_json(&changes.new_entries)?)
        .bind(rows::entries_json(&changes.closed_entries)?)
        .bind(rows::accounts_json(&changes.accounts)?)
        .bind(rows::usage_json(&changes.usage)?);
    write.execute(connection).await.map_err(failure)?;
    Ok(())
}

/// The parameters have no numbers: sqlx counts through all statements for those that have none, and loses
/// those behind a gap that numbers leave.
///
/// The rows are materialized, because `json_each` writes a row out anew wherever its `value` is named, and
/// here that is once for each column.
const WRITE: &str = "
    WITH entries AS MATERIALIZED (SELECT value FROM json_each(?))
    INSERT INTO ledger_entries (id, holder, tenant, model, currency, day, state,
        bound_image, bound_text, bound_output, bound_cost_nanos,
        billed_image, billed_text, billed_output, billed_cost_nanos, request_id)
    SELECT value->>'id', value->>'holder', value->>'tenant', value->>'model', value->>'currency',
        value->>'day', value->>'state',
        value->>'bound_image', value->>'bound_text', value->>'bound_output',
        value->>'bound_cost_nanos', value->>'billed_image', value->>'billed_text',
        value->>'billed_output', value->>'billed_cost_nanos', value->>'request_id'
    FROM entries;

    WITH entries AS MATERIALIZED (SELECT value FROM json_each(?))
    UPDATE ledger_entries SET state = entry.value->>'state',
        billed_image = entry.value->>'billed_image', billed_text = entry.value->>'billed_text',
        billed_output = entry.value->>'billed_output',
        billed_cost_nanos = entry.value->>'billed_cost_nanos',
        request_id = entry.value->>'request_id'
    FROM entries AS entry WHERE ledger_entries.id = entry.value->>'id';

    WITH accounts AS MATERIALIZED (SELECT value FROM json_each(?))
    INSERT INTO ledger_accounts (tenant, period, starts_on, unit,
        granted, settled, released, excess, reserved)
    SELECT value->>'tenant', value->>'period', value->>'starts_on', value->>'unit',
        value->>'granted', value->>'settled', value->>'released', value->>'excess',
        value->>'reserved'
    FROM accounts WHERE true
    ON CONFLICT (tenant, period, starts_on, unit) DO UPDATE SET granted = excluded.granted,
        settled = excluded.settled, released = excluded.released, excess = excluded.excess,
        reserved = excluded.reserved;

    WITH added AS MATERIALIZED (SELECT value FROM json_each(?))
    INSERT INTO ledger_usage AS old (day, tenant, model, currency, calls, unverified_calls,
        image_tokens, text_tokens, output_tokens, unverified_tokens, cost_nanos)
    SELECT value->>'day', value->>'tenant', value->>'model', value->>'currency',
        value->>'calls', value->>'unverified_calls', value->>'image_tokens',
        value->>'text_tokens', value->>'output_tokens', value->>'unverified_tokens',
        value->>'cost_nanos'
    FROM added WHERE true
    ON CONFLICT (day, tenant, model, currency) DO UPDATE SET
        calls = old.calls + excluded.calls,
        unverified_calls = old.unverified_calls + excluded.unverified_calls,
        image_tokens = old.image_tokens + excluded.image_tokens,
        text_tokens = old.text_tokens + excluded.text_tokens,
        output_tokens = old.output_tokens + excluded.output_tokens,
        unverified_tokens = old.unverified_tokens + excluded.unverified_tokens,
        cost_nanos = old.cost_nanos + excluded.cost_nanos";
