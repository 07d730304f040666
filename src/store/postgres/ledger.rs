//! The ledger in PostgreSQL. The functions stand in the same order as in `../sqlite/ledger.rs`.
//!
//! A batch is one transaction that locks the rows it read, entries before accounts and each in the
//! order of their keys, so that replicas wait for one another and never in a ring. An account can be
//! locked only once it is there; so a missing one is opened, empty, in a transaction of its own.
//! What is locked is read as it was last committed (READ COMMITTED), which is all that posting needs.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::civil::Date;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::Postgres;
use super::sessions::Session;
use crate::lease::{Heartbeats, LeaseError, LeaseStore};
use crate::ledger::account::{Account, AccountKey};
use crate::ledger::books::{Books, Entry, Operation, Outcome, accounts_of, reserving_tenants};
use crate::ledger::budget::Budgets;
use crate::ledger::usage::{Division, Imbalance, PartRow, UsageQuery, UsageRow};
use crate::ledger::window::{Period, Window};
use crate::ledger::{LedgerStore, LedgerStoreError};
use crate::store::rows::ledger::{
    self as rows, AccountImbalanceRow, AccountRow, BudgetsRow, DailyUsageRow, EntryRow,
    HeartbeatRow, PartialUsageRow, UsageImbalanceRow, failure, lease_failure,
};

impl LeaseStore for Postgres {
    fn register(&self, instance: Uuid) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(async move {
            let insert = sqlx::query("INSERT INTO ledger_holders (id, beat) VALUES ($1::uuid, 0)");
            let done = self.execute(&self.posts, insert.bind(instance.to_string())).await;
            done.map(|_| ()).map_err(lease_failure)
        })
    }

    fn heartbeat(&self, instance: Uuid) -> BoxFuture<'_, Result<Option<Heartbeats>, LeaseError>> {
        Box::pin(async move {
            let update =
                sqlx::query("UPDATE ledger_holders SET beat = beat + 1 WHERE id = $1::uuid");
            let done = self.execute(&self.posts, update.bind(instance.to_string())).await;
            if done.map_err(lease_failure)?.rows_affected() == 0 {
                return Ok(None);
            }
            let select = sqlx::query_as("SELECT id::text, beat FROM ledger_holders");
            let found = self.fetch_all(&self.posts, select).await.map_err(lease_failure)?;
            Ok(Some(found.into_iter().map(|HeartbeatRow(id, beat)| (id, beat)).collect()))
        })
    }

    fn expire(&self, instance: Uuid) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(async move {
            let delete = sqlx::query("DELETE FROM ledger_holders WHERE id = $1::uuid");
            let done = self.execute(&self.posts, delete.bind(instance.to_string())).await;
            done.map(|_| ()).map_err(lease_failure)
        })
    }
}

impl LedgerStore for Postgres {
    fn post<'a>(
        &'a self,
        batch: &'a [Operation],
        today: Date,
    ) -> BoxFuture<'a, Result<Vec<Outcome>, LedgerStoreError>> {
        Box::pin(async move {
            loop {
                let mut session =
                    Session::begin(&self.posts, self.pooling).await.map_err(failure)?;
                let entries = entries(&mut session, batch).await?;
                let keys = accounts_of(batch, &entries, today);
                let accounts = accounts(&mut session, keys.iter()).await?;
                if accounts.len() < keys.len() {
                    session.roll_back().await.map_err(failure)?;
                    self.open_accounts(keys.iter()).await?;
                    continue;
                }
                let budgets = budgets(&mut session, batch).await?;
                let mut books = Books::new(accounts, entries).with_budgets(budgets);
                let outcomes = batch.iter().map(|operation| books.post(operation, today)).collect();
                write(&mut session, &books).await?;
                session.end().await.map_err(failure)?;
                return Ok(outcomes);
            }
        })
    }

    fn orphans(
        &self,
        after: Uuid,
        at_most: u32,
    ) -> BoxFuture<'_, Result<Vec<Uuid>, LedgerStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT id::text FROM ledger_entries
                 WHERE state = 'open' AND holder NOT IN (SELECT id FROM ledger_holders)
                    AND id > $1::uuid
                 ORDER BY ledger_entries.id LIMIT $2",
            );
            let select = select.bind(after.to_string()).bind(i64::from(at_most));
            let found = self.fetch_all(&self.posts, select).await.map_err(failure)?;
            Ok(rows::ids(found.into_iter().map(|(id,)| id).collect()))
        })
    }

    fn accounts<'a>(
        &'a self,
        tenants: &'a [&'a str],
        day: Date,
    ) -> BoxFuture<'a, Result<Vec<(AccountKey, Account)>, LedgerStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT tenant, period, starts_on, unit,
                    granted, settled, released, excess, reserved
                 FROM ledger_accounts
                 WHERE tenant = ANY($1::text[])
                    AND period IN ('day', 'month') AND starts_on IN ($2, $3)
                    AND (period = 'day' AND starts_on = $2 OR period = 'month' AND starts_on = $3)
                 ORDER BY tenant, period, unit",
            );
            let month = Window::of(Period::Month, day).starts_on;
            let select = select.bind(tenants).bind(day.to_string()).bind(month.to_string());
            let found = self.fetch_all(&self.lookups, select).await.map_err(failure)?;
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
                 WHERE day BETWEEN $1 AND $2 AND ($3::text IS NULL OR tenant = $3) AND calls > 0
                 ORDER BY day, tenant, model, currency",
            );
            let select = select.bind(query.from.to_string()).bind(query.to.to_string());
            let found = self.fetch_all(&self.reports, select.bind(query.tenant.as_deref())).await;
            let found = found.map_err(failure)?;
            Ok(found.into_iter().map(|DailyUsageRow(row)| row).collect())
        })
    }

    fn usage_rows<'a>(
        &'a self,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<u64, LedgerStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT count(*) FROM ledger_usage
                 WHERE day BETWEEN $1 AND $2 AND ($3::text IS NULL OR tenant = $3) AND calls > 0",
            );
            let select = select.bind(query.from.to_string()).bind(query.to.to_string());
            let select = select.bind(query.tenant.as_deref());
            let found = self.fetch_all(&self.reports, select).await.map_err(failure)?;
            let rows: i64 = found.first().map_or(0, |(rows,)| *rows);
            Ok(u64::try_from(rows).unwrap_or(0))
        })
    }

    /// Sums are numerics, as for [`audit`](Self::audit).
    fn usage_by<'a>(
        &'a self,
        division: Division,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<Vec<PartRow>, LedgerStoreError>> {
        Box::pin(async move {
            let [named, hour] = rows::parts_of(division);
            let select = format!(
                "SELECT CAST({named} AS TEXT) COLLATE \"C\" AS named,
                    CAST({hour} AS BIGINT) AS hour, tenant, currency,
                    count(*)::text AS calls,
                    (count(*) FILTER (WHERE state = 'unverified'))::text AS unverified_calls,
                    sum(billed_image)::text AS image_tokens, sum(billed_text)::text AS text_tokens,
                    sum(billed_output)::text AS output_tokens,
                    coalesce(sum(billed_image::numeric + billed_text + billed_output)
                        FILTER (WHERE state = 'unverified'), 0)::text AS unverified_tokens,
                    sum(billed_cost_nanos)::text AS cost_nanos
                 FROM ledger_entries
                 WHERE day BETWEEN $1 AND $2 AND ($3::text IS NULL OR tenant = $3)
                    AND state IN ('settled', 'unverified')
                 GROUP BY 1, 2, tenant, currency
                 ORDER BY 1 NULLS FIRST, 2 NULLS FIRST, tenant, currency"
            );
            // Only names of columns stand in it.
            let select = sqlx::query_as(AssertSqlSafe(select));
            let select = select.bind(query.from.to_string()).bind(query.to.to_string());
            let select = select.bind(query.tenant.as_deref());
            let found = self.fetch_all(&self.reports, select).await.map_err(failure)?;
            Ok(found.into_iter().map(|PartialUsageRow(row)| row).collect())
        })
    }

    /// The sums of entries are numerics, which hold more than any column, and are read as text.
    fn audit(&self, from: Date) -> BoxFuture<'_, Result<Vec<Imbalance>, LedgerStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "WITH amounts AS (
                    SELECT tenant, day, state, 'tokens' AS unit,
                        bound_image::numeric + bound_text + bound_output AS bound,
                        billed_image::numeric + billed_text + billed_output AS billed
                    FROM ledger_entries WHERE day >= $1
                    UNION ALL
                    SELECT tenant, day, state, currency, bound_cost_nanos, billed_cost_nanos
                    FROM ledger_entries WHERE day >= $1
                 ), windows AS (
                    SELECT tenant, 'day' AS period, day AS starts_on, unit, state, bound, billed
                    FROM amounts
                    UNION ALL
                    SELECT tenant, 'month', substr(day, 1, 8) || '01', unit, state, bound, billed
                    FROM amounts WHERE substr(day, 1, 8) || '01' >= $1
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
                    coalesce(recount.granted, 0)::text AS recounted_granted,
                    coalesce(recount.settled, 0)::text AS recounted_settled,
                    coalesce(recount.reserved, 0)::text AS recounted_reserved
                 FROM (SELECT * FROM ledger_accounts WHERE starts_on >= $1) AS account
                 FULL JOIN recounts AS recount USING (tenant, period, starts_on, unit)
                 WHERE coalesce(account.granted, 0) <> coalesce(recount.granted, 0)
                    OR coalesce(account.settled, 0) <> coalesce(recount.settled, 0)
                    OR coalesce(account.reserved, 0) <> coalesce(recount.reserved, 0)
                 ORDER BY tenant, period, starts_on, unit",
            );
            let select = select.bind(from.to_string());
            let accounts = self.fetch_all(&self.reports, select).await.map_err(failure)?;
            let accounts = accounts.into_iter().map(|AccountImbalanceRow(row)| row);
            let select = sqlx::query_as(DIFFERING_USAGE).bind(from.to_string());
            let usage = self.fetch_all(&self.reports, select).await.map_err(failure)?;
            Ok(accounts.chain(usage.into_iter().map(|UsageImbalanceRow(row)| row)).collect())
        })
    }

    fn prune(&self, before: Date, at_most: u32) -> BoxFuture<'_, Result<u64, LedgerStoreError>> {
        Box::pin(async move {
            let delete = sqlx::query(
                "DELETE FROM ledger_entries WHERE id IN (
                    SELECT id FROM ledger_entries
                    WHERE id < $1::uuid AND day < $2 AND state <> 'open' ORDER BY id LIMIT $3)",
            );
            let delete = delete.bind(rows::least_id_of(before).to_string());
            let done = self
                .execute(&self.posts, delete.bind(before.to_string()).bind(i64::from(at_most)))
                .await;
            Ok(done.map_err(failure)?.rows_affected())
        })
    }
}

impl Postgres {
    /// Opens the accounts that are not there yet.
    async fn open_accounts(
        &self,
        keys: impl Iterator<Item = &AccountKey>,
    ) -> Result<(), LedgerStoreError> {
        let insert = sqlx::query(
            "INSERT INTO ledger_accounts (tenant, period, starts_on, unit,
                granted, settled, released, excess, reserved)
             SELECT tenant, period, starts_on, unit, 0, 0, 0, 0, 0
             FROM json_to_recordset($1::json)
                AS key (tenant text, period text, starts_on text, unit text)
             ORDER BY tenant, period, starts_on, unit
             ON CONFLICT DO NOTHING",
        );
        let insert = insert.bind(rows::account_keys_json(keys)?);
        self.execute(&self.posts, insert).await.map(|_| ()).map_err(failure)
    }
}

/// The entries of a batch that exist already, locked.
async fn entries(
    session: &mut Session,
    batch: &[Operation],
) -> Result<Vec<Entry>, LedgerStoreError> {
    let ids: Vec<_> = batch.iter().map(|operation| operation.id().to_string()).collect();
    let select = sqlx::query_as(
        "SELECT id::text, holder::text, tenant, model, currency, day, state,
            bound_image, bound_text, bound_output, bound_cost_nanos,
            billed_image, billed_text, billed_output, billed_cost_nanos, request_id,
            key_id, endpoint
         FROM ledger_entries WHERE id = ANY($1::text[]::uuid[])
         ORDER BY ledger_entries.id FOR UPDATE",
    );
    let found = select
        .bind(ids)
        .persistent(session.keeps_statements())
        .fetch_all(&mut **session)
        .await
        .map_err(failure)?;
    Ok(found.into_iter().map(|EntryRow(entry)| entry).collect())
}

/// Those of the accounts that are there, locked.
async fn accounts(
    session: &mut Session,
    keys: impl Iterator<Item = &AccountKey>,
) -> Result<Vec<(AccountKey, Account)>, LedgerStoreError> {
    let select = sqlx::query_as(
        "SELECT account.tenant, account.period, account.starts_on, account.unit,
            granted, settled, released, excess, reserved
         FROM json_to_recordset($1::json)
            AS key (tenant text, period text, starts_on text, unit text)
         JOIN ledger_accounts AS account ON account.tenant = key.tenant
            AND account.period = key.period AND account.starts_on = key.starts_on
            AND account.unit = key.unit
         ORDER BY account.tenant, account.period, account.starts_on, account.unit
         FOR UPDATE OF account",
    );
    let select = select.bind(rows::account_keys_json(keys)?);
    let found = select
        .persistent(session.keeps_statements())
        .fetch_all(&mut **session)
        .await
        .map_err(failure)?;
    Ok(found.into_iter().map(|AccountRow(key, account)| (key, account)).collect())
}

/// The budgets, as they are now, of the tenants that are kept in the database.
async fn budgets(
    session: &mut Session,
    batch: &[Operation],
) -> Result<Vec<(Arc<str>, Budgets)>, LedgerStoreError> {
    let tenants: Vec<_> = reserving_tenants(batch).into_iter().collect();
    let select = sqlx::query_as(
        "SELECT name, daily_tokens, monthly_tokens, daily_cost_nanos, monthly_cost_nanos, disabled
         FROM tenants WHERE name = ANY($1::text[])",
    );
    let found = select
        .bind(tenants)
        .persistent(session.keeps_statements())
        .fetch_all(&mut **session)
        .await
        .map_err(failure)?;
    Ok(found.into_iter().map(|BudgetsRow(tenant, budgets)| (tenant, budgets)).collect())
}

/// Writes what the books changed.
async fn write(session: &mut Session, books: &Books) -> Result<(), LedgerStoreError> {
    let changes = books.changes();
    let statements = [
        (changes.new_entries.is_empty(), INSERT_ENTRIES, rows::entries_json(&changes.new_entries)?),
        (
            changes.closed_entries.is_empty(),
            CLOSE_ENTRIES,
            rows::entries_json(&changes.closed_entries)?,
        ),
        (changes.accounts.is_empty(), WRITE_ACCOUNTS, rows::accounts_json(&changes.accounts)?),
        (changes.usage.is_empty(), ADD_USAGE, rows::usage_json(&changes.usage)?),
    ];
    for (is_needless, statement, values) in statements {
        if !is_needless {
            let statement =
                sqlx::query(statement).bind(values).persistent(session.keeps_statements());
            statement.execute(&mut **session).await.map_err(failure)?;
        }
    }
    Ok(())
}

const INSERT_ENTRIES: &str = "
    INSERT INTO ledger_entries (id, holder, tenant, model, currency, day, state,
        bound_image, bound_text, bound_output, bound_cost_nanos,
        billed_image, billed_text, billed_output, billed_cost_nanos, request_id,
        key_id, asked_at, endpoint)
    SELECT id, holder, tenant, model, currency, day, state,
        bound_image, bound_text, bound_output, bound_cost_nanos,
        billed_image, billed_text, billed_output, billed_cost_nanos, request_id,
        key_id, asked_at, endpoint
    FROM json_to_recordset($1::json)
        AS entry (id uuid, holder uuid, tenant text, model text, currency text, day text,
            state text, bound_image bigint, bound_text bigint, bound_output bigint,
            bound_cost_nanos bigint, billed_image bigint, billed_text bigint, billed_output bigint,
            billed_cost_nanos bigint, request_id text, key_id text, asked_at bigint,
            endpoint text)";

const CLOSE_ENTRIES: &str = "
    UPDATE ledger_entries SET state = entry.state,
        billed_image = entry.billed_image, billed_text = entry.billed_text,
        billed_output = entry.billed_output, billed_cost_nanos = entry.billed_cost_nanos,
        request_id = entry.request_id, endpoint = entry.endpoint
    FROM json_to_recordset($1::json)
        AS entry (id uuid, state text, billed_image bigint, billed_text bigint,
            billed_output bigint, billed_cost_nanos bigint, request_id text, endpoint text)
    WHERE ledger_entries.id = entry.id";

const WRITE_ACCOUNTS: &str = "
    UPDATE ledger_accounts AS account SET granted = new.granted, settled = new.settled,
        released = new.released, excess = new.excess, reserved = new.reserved
    FROM json_to_recordset($1::json)
        AS new (tenant text, period text, starts_on text, unit text, granted bigint,
            settled bigint, released bigint, excess bigint, reserved bigint)
    WHERE account.tenant = new.tenant AND account.period = new.period
        AND account.starts_on = new.starts_on AND account.unit = new.unit";

const ADD_USAGE: &str = "
    INSERT INTO ledger_usage AS old (day, tenant, model, currency, calls, unverified_calls,
        image_tokens, text_tokens, output_tokens, unverified_tokens, cost_nanos)
    SELECT day, tenant, model, currency, calls, unverified_calls,
        image_tokens, text_tokens, output_tokens, unverified_tokens, cost_nanos
    FROM json_to_recordset($1::json)
        AS change (day text, tenant text, model text, currency text, calls bigint,
            unverified_calls bigint, image_tokens bigint, text_tokens bigint,
            output_tokens bigint, unverified_tokens bigint, cost_nanos bigint)
    ON CONFLICT (day, tenant, model, currency) DO UPDATE SET
        calls = old.calls + excluded.calls,
        unverified_calls = old.unverified_calls + excluded.unverified_calls,
        image_tokens = old.image_tokens + excluded.image_tokens,
        text_tokens = old.text_tokens + excluded.text_tokens,
        output_tokens = old.output_tokens + excluded.output_tokens,
        unverified_tokens = old.unverified_tokens + excluded.unverified_tokens,
        cost_nanos = old.cost_nanos + excluded.cost_nanos";

/// The daily sums from a day on that do not count what their entries say.
const DIFFERING_USAGE: &str = "WITH recounts AS (
        SELECT day, tenant, model, currency, count(*) AS calls,
            sum(CASE state WHEN 'unverified' THEN 1 ELSE 0 END) AS unverified_calls,
            sum(billed_image) AS image_tokens, sum(billed_text) AS text_tokens,
            sum(billed_output) AS output_tokens,
            sum(CASE state WHEN 'unverified'
                THEN billed_image::numeric + billed_text + billed_output ELSE 0 END)
                AS unverified_tokens,
            sum(billed_cost_nanos) AS cost_nanos
        FROM ledger_entries
        WHERE day >= $1 AND state IN ('settled', 'unverified')
        GROUP BY day, tenant, model, currency
     )
     SELECT day, tenant, model, currency,
        coalesce(usage.calls, 0) AS calls,
        coalesce(usage.unverified_calls, 0) AS unverified_calls,
        coalesce(usage.image_tokens, 0) AS image_tokens,
        coalesce(usage.text_tokens, 0) AS text_tokens,
        coalesce(usage.output_tokens, 0) AS output_tokens,
        coalesce(usage.unverified_tokens, 0) AS unverified_tokens,
        coalesce(usage.cost_nanos, 0) AS cost_nanos,
        coalesce(recount.calls, 0)::text AS recounted_calls,
        coalesce(recount.unverified_calls, 0)::text AS recounted_unverified_calls,
        coalesce(recount.image_tokens, 0)::text AS recounted_image_tokens,
        coalesce(recount.text_tokens, 0)::text AS recounted_text_tokens,
        coalesce(recount.output_tokens, 0)::text AS recounted_output_tokens,
        coalesce(recount.unverified_tokens, 0)::text AS recounted_unverified_tokens,
        coalesce(recount.cost_nanos, 0)::text AS recounted_cost_nanos
     FROM (SELECT * FROM ledger_usage WHERE day >= $1) AS usage
     FULL JOIN recounts AS recount USING (day, tenant, model, currency)
     WHERE coalesce(usage.calls, 0) <> coalesce(recount.calls, 0)
        OR coalesce(usage.unverified_calls, 0) <> coalesce(recount.unverified_calls, 0)
        OR coalesce(usage.image_tokens, 0) <> coalesce(recount.image_tokens, 0)
        OR coalesce(usage.text_tokens, 0) <> coalesce(recount.text_tokens, 0)
        OR coalesce(usage.output_tokens, 0) <> coalesce(recount.output_tokens, 0)
        OR coalesce(usage.unverified_tokens, 0) <> coalesce(recount.unverified_tokens, 0)
        OR coalesce(usage.cost_nanos, 0) <> coalesce(recount.cost_nanos, 0)
     ORDER BY day, tenant, model, currency";
