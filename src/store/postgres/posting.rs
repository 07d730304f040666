//! Posting to the ledger in PostgreSQL.
//!
//! A batch is one transaction that locks the rows it read, entries before accounts and each in the order of their keys,
//! so that replicas wait for one another without deadlocks. Only an existing account can be locked, so a transaction of
//! its own first creates a missing account, empty. Locked rows are read as last committed (READ COMMITTED), which
//! suffices for posting.

use std::sync::Arc;

use jiff::civil::Date;
use sqlx::postgres::PgRow;

use super::sessions::Session;
use super::{Postgres, json};
use crate::ledger::LedgerStoreError;
use crate::ledger::account::{Account, AccountKey};
use crate::ledger::books::{Books, Entry, Operation, Outcome, accounts_of, reserving_tenants};
use crate::ledger::budget::Budgets;
use crate::store::rows::ledger::{self, failure};
use crate::store::statement::Workload;

impl Postgres {
    /// See [`LedgerStore::post`](crate::ledger::LedgerStore::post).
    pub(in crate::store) async fn post(
        &self,
        batch: &[Operation],
        today: Date,
    ) -> Result<Vec<Outcome>, LedgerStoreError> {
        loop {
            let mut session = self.begin(Workload::Post).await.map_err(failure)?;
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
    }

    /// Creates the missing accounts.
    async fn open_accounts(
        &self,
        keys: impl Iterator<Item = &AccountKey>,
    ) -> Result<(), LedgerStoreError> {
        let insert = "INSERT INTO ledger_accounts (tenant, period, starts_on, unit,
                granted, settled, released, excess, reserved)
             SELECT tenant, period, starts_on, unit, 0, 0, 0, 0, 0
             FROM json_to_recordset($1::json)
                AS key (tenant text, period text, starts_on text, unit text)
             ORDER BY tenant, period, starts_on, unit
             ON CONFLICT DO NOTHING";
        let values = vec![json::account_keys(keys)?.into()];
        self.execute(Workload::Post, insert, values).await.map(|_| ()).map_err(failure)
    }
}

/// The entries of a batch that exist already, locked.
async fn entries(
    session: &mut Session,
    batch: &[Operation],
) -> Result<Vec<Entry>, LedgerStoreError> {
    let ids: Vec<_> = batch.iter().map(|operation| operation.id().to_string()).collect();
    let select = sqlx::query(
        "SELECT id::text, holder::text, tenant, model, currency, day, state,
            bound_image, bound_text, bound_output, bound_cost_nanos,
            billed_image, billed_text, billed_output, billed_cost_nanos, request_id,
            key_id, endpoint
         FROM ledger_entries WHERE id = ANY($1::text[]::uuid[])
         ORDER BY ledger_entries.id FOR UPDATE",
    );
    select
        .bind(ids)
        .persistent(session.keeps_statements())
        .try_map(|row: PgRow| ledger::entry(&row))
        .fetch_all(&mut **session)
        .await
        .map_err(failure)
}

/// Those of the accounts that exist, locked.
async fn accounts(
    session: &mut Session,
    keys: impl Iterator<Item = &AccountKey>,
) -> Result<Vec<(AccountKey, Account)>, LedgerStoreError> {
    let select = sqlx::query(
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
    let select = select.bind(json::account_keys(keys)?);
    select
        .persistent(session.keeps_statements())
        .try_map(|row: PgRow| ledger::account(&row))
        .fetch_all(&mut **session)
        .await
        .map_err(failure)
}

/// The current budgets of those tenants that are stored in the database.
async fn budgets(
    session: &mut Session,
    batch: &[Operation],
) -> Result<Vec<(Arc<str>, Budgets)>, LedgerStoreError> {
    let tenants: Vec<_> = reserving_tenants(batch).into_iter().collect();
    let select = sqlx::query(
        "SELECT name, daily_tokens, monthly_tokens, daily_cost_nanos, monthly_cost_nanos, disabled
         FROM tenants WHERE name = ANY($1::text[])",
    );
    select
        .bind(tenants)
        .persistent(session.keeps_statements())
        .try_map(|row: PgRow| ledger::budgets(&row))
        .fetch_all(&mut **session)
        .await
        .map_err(failure)
}

/// Writes the changes of the books.
async fn write(session: &mut Session, books: &Books) -> Result<(), LedgerStoreError> {
    let changes = books.changes();
    let statements = [
        (changes.new_entries.is_empty(), INSERT_ENTRIES, json::entries(&changes.new_entries)?),
        (changes.closed_entries.is_empty(), CLOSE_ENTRIES, json::entries(&changes.closed_entries)?),
        (changes.accounts.is_empty(), WRITE_ACCOUNTS, json::accounts(&changes.accounts)?),
        (changes.usage.is_empty(), ADD_USAGE, json::usage(&changes.usage)?),
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
