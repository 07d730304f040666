//! Posting to the ledger in SQLite, on a connection of its own.
//!
//! Every request waits for this twice, so one visit to a blocking thread does all of it. sqlx sends each statement, and
//! each row that it finds, from one thread to another, which for a lone request costs several times the work of SQLite
//! (docs/adr/0016-posting-on-sqlite.md). For the same reason rows are written one by one through prepared statements,
//! and not as JSON as for PostgreSQL, which is reached over a network.
//!
//! A batch is one transaction that takes the write lock at its start, so no other write can come between reading the
//! accounts and writing them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::civil::Date;
use rusqlite::types::Type;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior,
    params,
};
use uuid::Uuid;

use crate::ledger::account::{Account, AccountKey, Unit};
use crate::ledger::books::{
    Bill, Books, Charge, Entry, EntryState, Operation, Outcome, UsageChange, UsageKey, accounts_of,
    reserving_tenants,
};
use crate::ledger::budget::Budgets;
use crate::ledger::{LedgerStoreError, PATIENCE, POST_TIMEOUT};
use crate::store::rows::number_column;
use crate::units::{Currency, Money, Tokens, Usage};

/// How long a batch waits for another writer of the file, which holds the lock for milliseconds.
///
/// It is shorter than the writer's wait for a batch and the callers' wait for the writer. So a locked file is reported
/// as such, and a batch is not posted again while it still waits for the lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

const _: () = assert!(
    BUSY_TIMEOUT.as_millis() < PATIENCE.as_millis()
        && PATIENCE.as_millis() < POST_TIMEOUT.as_millis()
);

/// The connection that posts. Only blocking threads take the lock.
#[derive(Clone)]
pub(super) struct Posting {
    /// `None` once it is closed.
    connection: Arc<Mutex<Option<Connection>>>,
}

impl fmt::Debug for Posting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posting").finish_non_exhaustive()
    }
}

/// The reason why posting is no longer possible.
#[derive(Debug, thiserror::Error)]
#[error("the database was closed")]
struct Closed;

/// The reason why a batch was not begun.
#[derive(Debug, thiserror::Error)]
#[error("nobody waits for it")]
struct Abandoned;

impl Posting {
    /// Opens an existing file in WAL mode, or an in-memory database through SQLite's `vfs`.
    pub(super) fn open(file: &Path, vfs: Option<&str>) -> Result<Self, rusqlite::Error> {
        // The mutex of this type suffices, so SQLite's own is off.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match vfs {
            None => Connection::open_with_flags(file, flags)?,
            Some(vfs) => Connection::open_with_flags_and_vfs(file, flags, vfs)?,
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(Self { connection: Arc::new(Mutex::new(Some(connection))) })
    }

    /// Posts a batch and returns the outcome of each operation. A batch whose caller has stopped waiting is not begun:
    /// it may have been posted again meanwhile, and a reservation that was refused then must not succeed now.
    pub(super) async fn post(
        &self,
        batch: &[Operation],
        today: Date,
    ) -> Result<Vec<Outcome>, LedgerStoreError> {
        let (batch, connection) = (batch.to_vec(), Arc::clone(&self.connection));
        let caller = Arc::new(());
        let asked = Arc::downgrade(&caller);
        let posted = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let connection = connection.as_mut().ok_or(LedgerStoreError::unavailable(Closed))?;
            // A repeat of the batch has to wait for the lock, so from here on the order is kept.
            if asked.strong_count() == 0 {
                return Err(LedgerStoreError::unavailable(Abandoned));
            }
            post(connection, &batch, today).map_err(failure)
        });
        let posted = posted.await.unwrap_or_else(|died| Err(LedgerStoreError::unavailable(died)));
        drop(caller);
        posted
    }

    /// Closes the connection, after the batch in progress.
    pub(super) async fn close(&self) {
        let connection = Arc::clone(&self.connection);
        let close = move || drop(connection.lock().unwrap_or_else(PoisonError::into_inner).take());
        // It fails only if closing panicked, and then the connection is closed too.
        let _ = tokio::task::spawn_blocking(close).await;
    }
}

fn post(
    connection: &mut Connection,
    batch: &[Operation],
    today: Date,
) -> Result<Vec<Outcome>, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let entries = entries(&transaction, batch)?;
    let accounts = accounts(&transaction, accounts_of(batch, &entries, today))?;
    let budgets = budgets(&transaction, reserving_tenants(batch))?;
    let mut books = Books::new(accounts, entries).with_budgets(budgets);
    let outcomes = batch.iter().map(|operation| books.post(operation, today)).collect();
    let changes = books.changes();
    insert_entries(&transaction, &changes.new_entries)?;
    update_entries(&transaction, &changes.closed_entries)?;
    upsert_accounts(&transaction, &changes.accounts)?;
    add_usage(&transaction, &changes.usage)?;
    transaction.commit()?;
    Ok(outcomes)
}

/// The entries of a batch that exist already.
fn entries(
    transaction: &Transaction<'_>,
    batch: &[Operation],
) -> Result<Vec<Entry>, rusqlite::Error> {
    let mut select = transaction.prepare_cached(
        "SELECT id, holder, tenant, model, currency, day, state,
            bound_image, bound_text, bound_output, bound_cost_nanos,
            billed_image, billed_text, billed_output, billed_cost_nanos, request_id,
            key_id, endpoint
         FROM ledger_entries WHERE id = ?1",
    )?;
    let ids: BTreeSet<Uuid> = batch.iter().map(Operation::id).collect();
    let found = ids.into_iter().map(|id| select.query_row([name(&id)], entry).optional());
    found.filter_map(Result::transpose).collect()
}

/// The accounts with these keys that have counted anything.
fn accounts(
    transaction: &Transaction<'_>,
    keys: BTreeSet<AccountKey>,
) -> Result<Vec<(AccountKey, Account)>, rusqlite::Error> {
    let mut select = transaction.prepare_cached(
        "SELECT granted, settled, released, excess, reserved FROM ledger_accounts
         WHERE tenant = ?1 AND period = ?2 AND starts_on = ?3 AND unit = ?4",
    )?;
    let found = keys.into_iter().map(|key| {
        let AccountKey { tenant, window, unit } = &key;
        let starts_on = window.starts_on.to_string();
        let named = params![&**tenant, window.period.as_str(), starts_on, unit.as_str()];
        let account = select.query_row(named, account).optional()?;
        Ok(account.map(|account| (key, account)))
    });
    found.filter_map(Result::transpose).collect()
}

/// The current budgets of those of these tenants that are stored in the database.
fn budgets(
    transaction: &Transaction<'_>,
    tenants: BTreeSet<&str>,
) -> Result<Vec<(Arc<str>, Budgets)>, rusqlite::Error> {
    let mut select = transaction.prepare_cached(
        "SELECT daily_tokens, monthly_tokens, daily_cost_nanos, monthly_cost_nanos, disabled
         FROM tenants WHERE name = ?1",
    )?;
    let found = tenants.into_iter().map(|tenant| {
        let budgets = select.query_row([tenant], budgets_of).optional()?;
        Ok(budgets.map(|budgets| (tenant.into(), budgets)))
    });
    found.filter_map(Result::transpose).collect()
}

fn insert_entries(
    transaction: &Transaction<'_>,
    entries: &[&Entry],
) -> Result<(), rusqlite::Error> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO ledger_entries (id, holder, tenant, model, currency, day, state,
            bound_image, bound_text, bound_output, bound_cost_nanos,
            billed_image, billed_text, billed_output, billed_cost_nanos, request_id,
            key_id, asked_at, endpoint)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
            ?17, ?18, ?19)",
    )?;
    for entry in entries {
        let Entry { id, instance, charge, day, state, bill } = entry;
        insert.execute(params![
            name(id),
            name(instance),
            &*charge.tenant,
            &*charge.model,
            charge.currency.code(),
            day.to_string(),
            state.as_str(),
            number_column(charge.bound.image.get()),
            number_column(charge.bound.text.get()),
            number_column(charge.bound.output.get()),
            number_column(charge.cost.nanos()),
            number_column(bill.usage.image.get()),
            number_column(bill.usage.text.get()),
            number_column(bill.usage.output.get()),
            number_column(bill.cost.nanos()),
            bill.request_id,
            charge.key.as_deref(),
            entry.asked_at(),
            bill.endpoint.as_deref(),
        ])?;
    }
    Ok(())
}

fn update_entries(
    transaction: &Transaction<'_>,
    entries: &[&Entry],
) -> Result<(), rusqlite::Error> {
    let mut update = transaction.prepare_cached(
        "UPDATE ledger_entries SET state = ?2, billed_image = ?3, billed_text = ?4,
            billed_output = ?5, billed_cost_nanos = ?6, request_id = ?7, endpoint = ?8
         WHERE id = ?1",
    )?;
    for Entry { id, state, bill, .. } in entries {
        update.execute(params![
            name(id),
            state.as_str(),
            number_column(bill.usage.image.get()),
            number_column(bill.usage.text.get()),
            number_column(bill.usage.output.get()),
            number_column(bill.cost.nanos()),
            bill.request_id,
            bill.endpoint.as_deref(),
        ])?;
    }
    Ok(())
}

fn upsert_accounts(
    transaction: &Transaction<'_>,
    accounts: &[(&AccountKey, &Account)],
) -> Result<(), rusqlite::Error> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO ledger_accounts (tenant, period, starts_on, unit,
            granted, settled, released, excess, reserved)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (tenant, period, starts_on, unit) DO UPDATE SET granted = excluded.granted,
            settled = excluded.settled, released = excluded.released, excess = excluded.excess,
            reserved = excluded.reserved",
    )?;
    for (AccountKey { tenant, window, unit }, account) in accounts {
        upsert.execute(params![
            &**tenant,
            window.period.as_str(),
            window.starts_on.to_string(),
            unit.as_str(),
            number_column(account.granted),
            number_column(account.settled),
            number_column(account.released),
            number_column(account.excess),
            number_column(account.reserved),
        ])?;
    }
    Ok(())
}

fn add_usage(
    transaction: &Transaction<'_>,
    usage: &[(&UsageKey, &UsageChange)],
) -> Result<(), rusqlite::Error> {
    let mut add = transaction.prepare_cached(
        "INSERT INTO ledger_usage AS old (day, tenant, model, currency, calls, unverified_calls,
            image_tokens, text_tokens, output_tokens, unverified_tokens, cost_nanos)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (day, tenant, model, currency) DO UPDATE SET
            calls = old.calls + excluded.calls,
            unverified_calls = old.unverified_calls + excluded.unverified_calls,
            image_tokens = old.image_tokens + excluded.image_tokens,
            text_tokens = old.text_tokens + excluded.text_tokens,
            output_tokens = old.output_tokens + excluded.output_tokens,
            unverified_tokens = old.unverified_tokens + excluded.unverified_tokens,
            cost_nanos = old.cost_nanos + excluded.cost_nanos",
    )?;
    for (key, change) in usage {
        add.execute(params![
            key.day.to_string(),
            &*key.tenant,
            &*key.model,
            key.currency.code(),
            change.calls,
            change.unverified_calls,
            change.image_tokens,
            change.text_tokens,
            change.output_tokens,
            change.unverified_tokens,
            change.cost_nanos,
        ])?;
    }
    Ok(())
}

/// An id as its column stores it.
fn name(id: &Uuid) -> String {
    id.hyphenated().to_string()
}

/// A row of [`entries`].
fn entry(row: &Row<'_>) -> Result<Entry, rusqlite::Error> {
    let usage = |first: usize| -> Result<Usage, rusqlite::Error> {
        Ok(Usage {
            image: Tokens::new(amount(row, first)?),
            text: Tokens::new(amount(row, first + 1)?),
            output: Tokens::new(amount(row, first + 2)?),
        })
    };
    Ok(Entry {
        id: parsed(row, 0)?,
        instance: parsed(row, 1)?,
        charge: Charge {
            tenant: row.get(2)?,
            key: row.get(16)?,
            model: row.get(3)?,
            bound: usage(7)?,
            cost: Money::from_nanos(amount(row, 10)?),
            currency: named(row, 4, currency)?,
        },
        day: parsed(row, 5)?,
        state: named(row, 6, EntryState::named)?,
        bill: Bill {
            usage: usage(11)?,
            cost: Money::from_nanos(amount(row, 14)?),
            request_id: row.get(15)?,
            endpoint: row.get(17)?,
        },
    })
}

/// A row of [`accounts`].
fn account(row: &Row<'_>) -> Result<Account, rusqlite::Error> {
    Ok(Account {
        granted: amount(row, 0)?,
        settled: amount(row, 1)?,
        released: amount(row, 2)?,
        excess: amount(row, 3)?,
        reserved: amount(row, 4)?,
    })
}

/// A row of [`budgets`].
fn budgets_of(row: &Row<'_>) -> Result<Budgets, rusqlite::Error> {
    let limit = |column| -> Result<Option<u64>, rusqlite::Error> {
        let number: Option<i64> = row.get(column)?;
        number.map(|number| unsigned(column, number)).transpose()
    };
    Ok(Budgets {
        daily_tokens: limit(0)?.map(Tokens::new),
        monthly_tokens: limit(1)?.map(Tokens::new),
        daily_cost: limit(2)?.map(Money::from_nanos),
        monthly_cost: limit(3)?.map(Money::from_nanos),
        disabled: row.get(4)?,
        of_file: false,
    })
}

fn currency(word: &str) -> Option<Currency> {
    match Unit::named(word) {
        Some(Unit::Money(currency)) => Some(currency),
        _ => None,
    }
}

fn amount(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    unsigned(column, row.get(column)?)
}

fn unsigned(column: usize, number: i64) -> Result<u64, rusqlite::Error> {
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn parsed<T>(row: &Row<'_>, column: usize) -> Result<T, rusqlite::Error>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error: T::Err| unread(column, error.into()))
}

fn named<T>(
    row: &Row<'_>,
    column: usize,
    named: impl FnOnce(&str) -> Option<T>,
) -> Result<T, rusqlite::Error> {
    let word = row.get_ref(column)?.as_str()?;
    named(word).ok_or_else(|| unread(column, format!("{word:?} is not known here").into()))
}

/// The error of a column with a value that this program does not write.
fn unread(
    column: usize,
    error: Box<dyn std::error::Error + Send + Sync + 'static>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
}

/// Converts a failure to an error of the ledger store: a row that breaks a rule, or cannot be read, fails again;
/// everything else may pass.
fn failure(error: rusqlite::Error) -> LedgerStoreError {
    use rusqlite::Error;
    let is_broken = match &error {
        Error::SqliteFailure(failure, _) => failure.code == ErrorCode::ConstraintViolation,
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..) => true,
        _ => false,
    };
    if is_broken {
        LedgerStoreError::Broken(error.into())
    } else {
        LedgerStoreError::unavailable(error)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::Sqlite;
    use super::*;
    use crate::ledger::LedgerStore;
    use crate::store::database::Database;
    use crate::store::options::StoreOptions;

    #[tokio::test]
    async fn what_is_posted_survives_a_power_cut_and_waits_for_other_writers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new.db");
        std::fs::write(&file, []).unwrap();
        let posting = Posting::open(&file, None).unwrap();
        let connection = posting.connection.lock().unwrap();
        let pragma = |name| -> i64 {
            connection.as_ref().unwrap().pragma_query_value(None, name, |row| row.get(0)).unwrap()
        };
        assert_eq!((pragma("synchronous"), pragma("busy_timeout")), (2, 2000));
    }

    #[tokio::test]
    async fn no_row_of_the_ledger_is_checked_against_a_table_that_is_made_for_it() {
        let sqlite = Sqlite::connect("sqlite::memory:", StoreOptions::default()).await.unwrap();
        sqlite.migrate().await.unwrap();
        let connection = sqlite.posting.connection.lock().unwrap();
        let connection = connection.as_ref().unwrap();
        let tables = ["ledger_entries", "ledger_accounts", "ledger_usage"];
        for statement in tables.map(|table| format!("EXPLAIN INSERT INTO {table} DEFAULT VALUES")) {
            let mut program = connection.prepare(&statement).unwrap();
            let steps = program.query_map([], |step| step.get::<_, String>("opcode")).unwrap();
            let steps: Vec<_> = steps.map(Result::unwrap).collect();
            assert!(steps.iter().any(|step| step == "Insert" || step == "IdxInsert"), "{steps:?}");
            assert!(!steps.iter().any(|step| step == "OpenEphemeral"), "{statement}: {steps:?}");
        }
    }

    #[tokio::test]
    async fn a_batch_that_was_given_up_before_its_turn_is_not_posted_behind_others() {
        let sqlite = Sqlite::connect("sqlite::memory:", StoreOptions::default()).await.unwrap();
        sqlite.migrate().await.unwrap();
        let charge = Charge {
            tenant: "acme".into(),
            key: None,
            model: "m".into(),
            bound: Usage { image: Tokens::new(1), ..Usage::default() },
            cost: Money::default(),
            currency: Currency::Cny,
        };
        let (id, instance, day) = (Uuid::nil(), Uuid::nil(), Date::constant(2026, 1, 31));
        let reserve = [Operation::Reserve { id, instance, charge, budgets: Budgets::default() }];
        let connection = Arc::clone(&sqlite.posting.connection);
        {
            let _other = connection.lock().unwrap();
            // The future is polled once, which sends the batch to a thread, and is then dropped.
            assert!(sqlite.posting.post(&reserve, day).now_or_never().is_none());
        }
        while Arc::strong_count(&connection) > 2 {
            tokio::task::yield_now().await;
        }
        let database = Database::Sqlite(sqlite.clone());
        assert_eq!(database.accounts(&["acme"], day).await.unwrap(), []);
        assert!(sqlite.posting.post(&reserve, day).await.is_ok());
        assert_eq!(database.accounts(&["acme"], day).await.unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_database_that_was_closed_may_be_back_and_one_that_breaks_its_rules_will_not() {
        let posting = Posting::open(Path::new("/of-a-test"), Some("memdb")).unwrap();
        let day = Date::constant(2026, 1, 31);
        let rules = "CREATE TABLE rules (number INTEGER CHECK (number > 0))";
        let broken = {
            let connection = posting.connection.lock().unwrap();
            let connection = connection.as_ref().unwrap();
            connection.execute(rules, []).unwrap();
            connection.execute("INSERT INTO rules VALUES (0)", []).unwrap_err()
        };
        assert!(matches!(failure(broken), LedgerStoreError::Broken(_)));
        posting.close().await;
        let closed = posting.post(&[], day).await;
        assert!(matches!(closed, Err(LedgerStoreError::Unavailable(_))), "{closed:?}");
    }
}
