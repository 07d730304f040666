//! SQLite: its file, its posting and its own statements.
//!
//! The file is in WAL mode, where readers do not wait for the writer. `synchronous` is FULL: with NORMAL, a power cut
//! loses the last commits, and if one of them was a revocation, the stolen key works again. The price is a wait for the
//! disk at each commit. A second writer waits up to five seconds for the first, which holds the lock for milliseconds.

pub(super) mod statements;

mod posting;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::civil::Date;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{SqlSafeStr, SqliteConnection, SqlitePool};

use self::posting::Posting;
use super::error::StoreError;
use super::migrations::{self, History, Migration, Refused, SchemaState};
use super::options::{Engine, MissingFile, StoreOptions};
use super::statement::{ReadRow, SqlValue, Workload, query};
use crate::ledger::LedgerStoreError;
use crate::ledger::books::{Operation, Outcome};

/// The migrations of this engine.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "initial",
        sql: include_str!("../../../migrations/sqlite/0001_initial.sql"),
    },
    Migration {
        version: 2,
        name: "budgets",
        sql: include_str!("../../../migrations/sqlite/0002_budgets.sql"),
    },
    Migration {
        version: 3,
        name: "ledger",
        sql: include_str!("../../../migrations/sqlite/0003_ledger.sql"),
    },
    Migration {
        version: 4,
        name: "regions",
        sql: include_str!("../../../migrations/sqlite/0004_regions.sql"),
    },
    Migration {
        version: 5,
        name: "checks",
        sql: include_str!("../../../migrations/sqlite/0005_checks.sql"),
    },
    Migration {
        version: 6,
        name: "entries_by_day",
        sql: include_str!("../../../migrations/sqlite/0006_entries_by_day.sql"),
    },
    Migration {
        version: 7,
        name: "unknown_bills",
        sql: include_str!("../../../migrations/sqlite/0007_unknown_bills.sql"),
    },
    Migration {
        version: 8,
        name: "schema_compatibility",
        sql: include_str!("../../../migrations/sqlite/0008_schema_compatibility.sql"),
    },
    Migration {
        version: 9,
        name: "entry_origins",
        sql: include_str!("../../../migrations/sqlite/0009_entry_origins.sql"),
    },
    Migration {
        version: 10,
        name: "pdf_text",
        sql: include_str!("../../../migrations/sqlite/0010_pdf_text.sql"),
    },
    Migration {
        version: 11,
        name: "fewer_tokens",
        sql: include_str!("../../../migrations/sqlite/0011_fewer_tokens.sql"),
    },
];

/// SQLite's in-memory file system, in which the connections of one process share a database whose name begins with a
/// slash (<https://www.sqlite.org/inmemorydb.html>, "memdb" in its source).
const MEMORY: &str = "memdb";

/// How long the ends of calls linger. This is longer than a caller on the same machine takes from one answer to its
/// next request, whose reservation then carries the end without a commit of its own. It is too short for anybody to
/// notice.
pub(super) const LINGER: Duration = Duration::from_millis(2);

/// How long a writer waits for another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of connections for reports. A report uses one processor fully, so more connections would not be faster.
const REPORT_CONNECTIONS: u32 = 2;

/// A SQLite database.
#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    pool: SqlitePool,
    /// Connections for [`Workload::Report`].
    reports: SqlitePool,
    posting: Posting,
}

impl Sqlite {
    pub(super) async fn connect(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let engine = Engine::Sqlite;
        if url.contains('?') {
            return Err(StoreError::UnknownParameter { engine });
        }
        let address: SqliteConnectOptions =
            url.parse().map_err(|_| StoreError::Address { engine })?;
        let (address, pool, vfs) = if is_in_memory(url) {
            // The database lives as long as it has a connection, so the pool keeps its one for ever.
            let pool = SqlitePoolOptions::new().max_connections(1);
            let pool = pool.idle_timeout(None).max_lifetime(None);
            (SqliteConnectOptions::new().filename(name_in_memory()).vfs(MEMORY), pool, Some(MEMORY))
        } else {
            match options.missing_file {
                MissingFile::Made => make_file(address.get_filename()).await?,
                MissingFile::Refused => find_file(address.get_filename())?,
            }
            let others = options.max_connections.get().saturating_sub(REPORT_CONNECTIONS).max(1);
            (address, SqlitePoolOptions::new().max_connections(others), None)
        };
        let file = address.get_filename().to_owned();
        let address = address
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        // A connection to a file does not break while idle, and testing it costs as much as a statement.
        let pool = pool.test_before_acquire(false);
        let pool = pool.acquire_timeout(options.acquire_timeout);
        let reports = pool.clone().max_connections(REPORT_CONNECTIONS);
        let reports = reports.connect_lazy_with(address.clone());
        let pool = pool.connect_with(address).await;
        let pool = pool.map_err(|source| StoreError::Unreachable { engine, source })?;
        let posting = tokio::task::spawn_blocking(move || Posting::open(&file, vfs)).await;
        let posting = posting.map_err(std::io::Error::from).map_err(sqlx::Error::from);
        let posting = posting
            .and_then(|opened| opened.map_err(|error| sqlx::Error::Configuration(error.into())));
        let posting = posting.map_err(|source| StoreError::Unreachable { engine, source })?;
        Ok(Self { pool, reports, posting })
    }

    /// Applies the migrations in one transaction that takes the write lock at its start: sqlx does not lock SQLite for
    /// migrations, and two processes that start together would conflict.
    pub(super) async fn migrate(&self) -> Result<(), Refused> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        if let SchemaState::Older(_) =
            migrations::schema(MIGRATIONS, &history(&mut transaction).await?)?
        {
            migrations::apply(MIGRATIONS, &mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn history(&self) -> Result<History, sqlx::Error> {
        history(&mut *self.pool.acquire().await?).await
    }

    /// Runs a statement and gives the number of rows that it changed.
    pub(super) async fn execute(
        &self,
        purpose: Workload,
        sql: &'static str,
        values: Vec<SqlValue>,
    ) -> Result<u64, sqlx::Error> {
        let done = query(sql, values).execute(self.pool(purpose)).await?;
        Ok(done.rows_affected())
    }

    /// The rows of a statement.
    pub(super) async fn fetch<T: Send + Unpin>(
        &self,
        purpose: Workload,
        sql: impl SqlSafeStr,
        values: Vec<SqlValue>,
        read: ReadRow<T>,
    ) -> Result<Vec<T>, sqlx::Error> {
        let select = query(sql, values).try_map(|row: SqliteRow| read(&row));
        select.fetch_all(self.pool(purpose)).await
    }

    /// See [`LedgerStore::post`](crate::ledger::LedgerStore::post).
    pub(super) async fn post(
        &self,
        batch: &[Operation],
        today: Date,
    ) -> Result<Vec<Outcome>, LedgerStoreError> {
        self.posting.post(batch, today).await
    }

    const fn pool(&self, purpose: Workload) -> &SqlitePool {
        match purpose {
            Workload::Post | Workload::LookUp => &self.pool,
            Workload::Report => &self.reports,
        }
    }

    pub(super) async fn close(&self) {
        self.posting.close().await;
        self.reports.close().await;
        self.pool.close().await;
    }
}

/// The migrations of the database.
async fn history(connection: &mut SqliteConnection) -> Result<History, sqlx::Error> {
    let mut history = History::default();
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut *connection).await?;
    let is_there = |table: &str| tables.iter().any(|name| name == table);
    if is_there(migrations::APPLIED) {
        let applied = sqlx::query_as(migrations::SELECT_APPLIED);
        history.applied = applied.fetch_all(&mut *connection).await?;
    }
    let is_newer = migrations::are_unknown(MIGRATIONS, &history.applied);
    if is_newer && is_there(migrations::COMPATIBILITY) {
        let compatible = sqlx::query_as(migrations::SELECT_COMPATIBILITY);
        history.oldest_compatible = compatible.fetch_all(connection).await?.into_iter().collect();
    }
    Ok(history)
}

/// See [`store::file`](super::file).
pub(super) fn file(url: &str) -> Option<PathBuf> {
    let address: SqliteConnectOptions = url.parse().ok()?;
    (!is_in_memory(url)).then(|| address.get_filename().to_owned())
}

fn is_in_memory(url: &str) -> bool {
    matches!(url, "sqlite::memory:" | "sqlite://:memory:")
}

/// A name that no other database in this process's memory has.
fn name_in_memory() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("/{}", COUNT.fetch_add(1, Ordering::Relaxed)).into()
}

/// Refuses a missing file.
fn find_file(file: &Path) -> Result<(), StoreError> {
    match file.try_exists() {
        Ok(false) => Err(StoreError::MissingFile { file: file.to_owned() }),
        // SQLite reports other faults of the file.
        Ok(true) | Err(_) => Ok(()),
    }
}

/// Creates the file before SQLite does, which would make it readable for everybody. The files beside it (WAL and shared
/// memory) take over its mode.
async fn make_file(file: &Path) -> Result<(), StoreError> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(StoreError::MissingFolder { folder: folder.to_owned() });
    }
    let owner_only = 0o600;
    let mut options = tokio::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(owner_only).open(file).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(StoreError::File { file: file.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::auth::store::{TenantStore, TenantStoreError};
    use crate::store::database::Database;

    async fn in_memory() -> Sqlite {
        Sqlite::connect("sqlite::memory:", StoreOptions::default()).await.unwrap()
    }

    async fn pragma(sqlite: &Sqlite, pragma: &'static str) -> String {
        let value = sqlx::query_scalar::<_, i64>(pragma).fetch_one(&sqlite.pool).await;
        match value {
            Ok(number) => number.to_string(),
            Err(_) => sqlx::query_scalar(pragma).fetch_one(&sqlite.pool).await.unwrap(),
        }
    }

    #[tokio::test]
    async fn a_new_file_and_those_beside_it_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/new.db", folder.path().display());
        let sqlite = Sqlite::connect(&url, StoreOptions::default()).await.unwrap();
        sqlite.migrate().await.unwrap();
        for name in ["new.db", "new.db-wal", "new.db-shm"] {
            let mode = folder.path().join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[tokio::test]
    async fn a_file_is_opened_so_that_commits_survive_a_power_cut() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/new.db", folder.path().display());
        let sqlite = Sqlite::connect(&url, StoreOptions::default()).await.unwrap();
        assert_eq!(pragma(&sqlite, "PRAGMA journal_mode").await, "wal");
        assert_eq!(pragma(&sqlite, "PRAGMA synchronous").await, "2");
        assert_eq!(pragma(&sqlite, "PRAGMA foreign_keys").await, "1");
        assert_eq!(pragma(&sqlite, "PRAGMA busy_timeout").await, "5000");
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_read_is_an_error_and_not_a_tenant_without_limits() {
        let sqlite = in_memory().await;
        sqlite.migrate().await.unwrap();
        let row = "INSERT INTO tenants (name, on_exceed, models, disabled)
            VALUES ('a', 'clamp', 'x', 0)";
        sqlx::query(row).execute(&sqlite.pool).await.unwrap();
        let tenants = Database::Sqlite(sqlite);
        let error = tenants.tenant(&"a".parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, TenantStoreError::Unreadable(_)), "{error:?}");
    }

    #[tokio::test]
    async fn two_databases_in_memory_share_nothing() {
        let (one, other) = (in_memory().await, in_memory().await);
        one.migrate().await.unwrap();
        assert_eq!(one.history().await.unwrap().applied.len(), MIGRATIONS.len());
        assert!(other.history().await.unwrap().applied.is_empty());
    }
}
