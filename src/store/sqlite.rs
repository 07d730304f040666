//! All SQL for SQLite. The functions stand in the same order as in `postgres.rs`.
//!
//! The file is in WAL mode, where readers do not wait for the writer. `synchronous` is FULL: with
//! NORMAL, the last commits before a power cut are lost, and a revocation that a power cut undoes would
//! let a stolen key in again. The price is one fsync for each commit. A second writer waits up to
//! five seconds for the first, which holds the lock for milliseconds.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::SqlitePool;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::migrations::{self, Migration};
use super::rows::{self, KeyAndTenantRow, KeyRow, TenantRow};
use super::{Engine, Options, StoreError};
use crate::auth::key::{KeyId, KeyLabel, KeyRecord};
use crate::auth::tenant::{Tenant, TenantName};
use crate::auth::{BoxFuture, TenantStore, TenantStoreError};
use crate::units::Pixels;

/// The migrations of this engine.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "initial",
    sql: include_str!("../../migrations/sqlite/0001_initial.sql"),
}];

/// How long a writer waits for another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A SQLite database.
#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    pool: SqlitePool,
}

impl Sqlite {
    pub(super) async fn connect(url: &str, options: Options) -> Result<Self, StoreError> {
        let engine = Engine::Sqlite;
        if url.contains('?') {
            return Err(StoreError::UnknownParameter { engine });
        }
        let address: SqliteConnectOptions =
            url.parse().map_err(|_| StoreError::Address { engine })?;
        let pool = if is_in_memory(url) {
            // The database lives as long as its connection, so there is one and it never ends.
            SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None)
        } else {
            make_file(address.get_filename()).await?;
            SqlitePoolOptions::new().max_connections(options.max_connections.get())
        };
        let address = address
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = pool.acquire_timeout(options.acquire_timeout).connect_with(address).await;
        let pool = pool.map_err(|source| StoreError::Unreachable { engine, source })?;
        Ok(Self { pool })
    }

    /// Applies the migrations in one transaction that takes the write lock at its start: sqlx does
    /// not lock SQLite for migrations, and two processes that start together would collide.
    pub(super) async fn migrate(&self) -> Result<(), MigrateError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        migrations::apply(MIGRATIONS, &mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn applied_migrations(&self) -> Result<Vec<i64>, sqlx::Error> {
        let table = "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
        let tables: i64 = sqlx::query_scalar(table).fetch_one(&self.pool).await?;
        if tables == 0 {
            return Ok(Vec::new());
        }
        sqlx::query_scalar("SELECT version FROM _sqlx_migrations").fetch_all(&self.pool).await
    }

    pub(super) async fn ping(&self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT 1").execute(&self.pool).await.map(|_| ())
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

impl TenantStore for Sqlite {
    fn create_tenant<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<(), TenantStoreError>> {
        Box::pin(async move {
            let insert = sqlx::query(
                "INSERT INTO tenants (name, max_pixels, on_exceed, requests_per_minute,
                    tokens_per_minute, concurrency, models, disabled)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            );
            match bind_tenant(insert, tenant).execute(&self.pool).await {
                Ok(_) => Ok(()),
                Err(error) if rows::is_taken(&error) => {
                    Err(TenantStoreError::TenantExists(tenant.name.clone()))
                }
                Err(error) => Err(rows::failure(error)),
            }
        })
    }

    fn update_tenant<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<bool, TenantStoreError>> {
        Box::pin(async move {
            let update = sqlx::query(
                "UPDATE tenants SET max_pixels = ?2, on_exceed = ?3, requests_per_minute = ?4,
                    tokens_per_minute = ?5, concurrency = ?6, models = ?7, disabled = ?8
                 WHERE name = ?1",
            );
            let done = bind_tenant(update, tenant).execute(&self.pool).await;
            Ok(done.map_err(rows::failure)?.rows_affected() > 0)
        })
    }

    fn tenant<'a>(
        &'a self,
        name: &'a TenantName,
    ) -> BoxFuture<'a, Result<Option<Tenant>, TenantStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT name, max_pixels, on_exceed, requests_per_minute, tokens_per_minute,
                    concurrency, models, disabled
                 FROM tenants WHERE name = ?1",
            );
            let row = select.bind(name.as_str()).fetch_optional(&self.pool).await;
            Ok(row.map_err(rows::failure)?.map(|TenantRow(tenant)| tenant))
        })
    }

    fn tenants(&self) -> BoxFuture<'_, Result<Vec<Tenant>, TenantStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT name, max_pixels, on_exceed, requests_per_minute, tokens_per_minute,
                    concurrency, models, disabled
                 FROM tenants ORDER BY name",
            );
            let found = select.fetch_all(&self.pool).await.map_err(rows::failure)?;
            Ok(found.into_iter().map(|TenantRow(tenant)| tenant).collect())
        })
    }

    fn create_key<'a>(&'a self, key: &'a KeyRecord) -> BoxFuture<'a, Result<(), TenantStoreError>> {
        Box::pin(async move {
            let insert = sqlx::query(
                "INSERT INTO api_keys (id, tenant, hash, created_at, expires_at, revoked_at, label)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            );
            let insert = insert
                .bind(key.id.as_str())
                .bind(key.tenant.as_str())
                .bind(key.hash.as_bytes().as_slice())
                .bind(key.created_at.as_millisecond())
                .bind(rows::moment_column(key.expires_at))
                .bind(rows::moment_column(key.revoked_at))
                .bind(key.label.as_ref().map(KeyLabel::as_str));
            match insert.execute(&self.pool).await {
                Ok(_) => Ok(()),
                Err(error) if rows::is_taken(&error) => {
                    Err(TenantStoreError::KeyExists(key.id.clone()))
                }
                Err(error) if rows::is_orphan(&error) => {
                    Err(TenantStoreError::NoSuchTenant(key.tenant.clone()))
                }
                Err(error) => Err(rows::failure(error)),
            }
        })
    }

    fn key<'a>(
        &'a self,
        id: &'a KeyId,
    ) -> BoxFuture<'a, Result<Option<(KeyRecord, Tenant)>, TenantStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT id, tenant, hash, created_at, expires_at, revoked_at, label,
                    name, max_pixels, on_exceed, requests_per_minute, tokens_per_minute,
                    concurrency, models, disabled
                 FROM api_keys JOIN tenants ON tenants.name = api_keys.tenant
                 WHERE id = ?1",
            );
            let row = select.bind(id.as_str()).fetch_optional(&self.pool).await;
            Ok(row.map_err(rows::failure)?.map(|KeyAndTenantRow(key, tenant)| (key, tenant)))
        })
    }

    fn keys<'a>(
        &'a self,
        tenant: Option<&'a TenantName>,
    ) -> BoxFuture<'a, Result<Vec<KeyRecord>, TenantStoreError>> {
        Box::pin(async move {
            let select = sqlx::query_as(
                "SELECT id, tenant, hash, created_at, expires_at, revoked_at, label
                 FROM api_keys WHERE ?1 IS NULL OR tenant = ?1
                 ORDER BY tenant, created_at, id",
            );
            let select = select.bind(tenant.map(TenantName::as_str));
            let found = select.fetch_all(&self.pool).await.map_err(rows::failure)?;
            Ok(found.into_iter().map(|KeyRow(key)| key).collect())
        })
    }

    fn revoke_key<'a>(
        &'a self,
        id: &'a KeyId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<bool, TenantStoreError>> {
        Box::pin(async move {
            let update = sqlx::query(
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1",
            );
            let update = update.bind(id.as_str()).bind(at.as_millisecond());
            let done = update.execute(&self.pool).await.map_err(rows::failure)?;
            Ok(done.rows_affected() > 0)
        })
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// Binds a tenant's columns in the order of the table.
fn bind_tenant<'q>(query: Query<'q>, tenant: &'q Tenant) -> Query<'q> {
    query
        .bind(tenant.name.as_str())
        .bind(tenant.max_pixels.map(|cap| rows::number_column(Pixels::get(cap))))
        .bind(tenant.on_exceed.as_str())
        .bind(rows::limit_column(tenant.requests_per_minute))
        .bind(rows::limit_column(tenant.tokens_per_minute))
        .bind(rows::limit_column(tenant.concurrency))
        .bind(rows::models_column(tenant))
        .bind(tenant.disabled)
}

fn is_in_memory(url: &str) -> bool {
    matches!(url, "sqlite::memory:" | "sqlite://:memory:")
}

/// Makes the file before SQLite does, which would let everybody read it. The files beside it (WAL
/// and shared memory) take over its mode.
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

    async fn in_memory() -> Sqlite {
        Sqlite::connect("sqlite::memory:", Options::default()).await.unwrap()
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
        let sqlite = Sqlite::connect(&url, Options::default()).await.unwrap();
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
        let sqlite = Sqlite::connect(&url, Options::default()).await.unwrap();
        assert_eq!(pragma(&sqlite, "PRAGMA journal_mode").await, "wal");
        assert_eq!(pragma(&sqlite, "PRAGMA synchronous").await, "2");
        assert_eq!(pragma(&sqlite, "PRAGMA foreign_keys").await, "1");
        assert_eq!(pragma(&sqlite, "PRAGMA busy_timeout").await, "5000");
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_read_is_an_error_and_not_a_tenant_without_limits() {
        let sqlite = in_memory().await;
        sqlite.migrate().await.unwrap();
        let row = "INSERT INTO tenants VALUES ('a', NULL, 'clamp', NULL, NULL, NULL, 'x', 0)";
        sqlx::query(row).execute(&sqlite.pool).await.unwrap();
        let error = sqlite.tenant(&"a".parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, TenantStoreError::Unreadable(_)), "{error:?}");
    }

    #[tokio::test]
    async fn two_databases_in_memory_share_nothing() {
        let (one, other) = (in_memory().await, in_memory().await);
        one.migrate().await.unwrap();
        assert_eq!(one.applied_migrations().await.unwrap(), [1]);
        assert!(other.applied_migrations().await.unwrap().is_empty());
    }
}
