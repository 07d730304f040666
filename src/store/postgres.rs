//! All SQL for PostgreSQL. The functions stand in the same order as in `sqlite.rs`.
//!
//! Columns are always listed: with `*`, a statement that another replica prepared before a column
//! was added fails until its connection ends ("cached plan must not change result type").

use jiff::Timestamp;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

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
    sql: include_str!("../../migrations/postgres/0001_initial.sql"),
}];

/// The parameters of an address that sqlx 0.9 knows. It passes over any other and logs its value,
/// which may be a password under a mistyped name.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// A PostgreSQL database.
#[derive(Debug, Clone)]
pub(super) struct Postgres {
    pool: PgPool,
}

impl Postgres {
    pub(super) async fn connect(url: &str, options: Options) -> Result<Self, StoreError> {
        let engine = Engine::Postgres;
        if !has_known_parameters(url) {
            return Err(StoreError::UnknownParameter { engine });
        }
        let address: PgConnectOptions = url.parse().map_err(|_| StoreError::Address { engine })?;
        // The pool would try again until its time is up and then blame the time. One connection
        // of its own tells the cause.
        let first = tokio::time::timeout(options.acquire_timeout, address.connect()).await;
        let first = first.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let first = first.map_err(|source| StoreError::Unreachable { engine, source })?;
        // It has told what it was for; how it parts does not matter.
        let _ = first.close().await;
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections.get())
            .acquire_timeout(options.acquire_timeout)
            .connect_lazy_with(address);
        Ok(Self { pool })
    }

    /// Applies the migrations under sqlx's advisory lock. It is held by the session, so a
    /// connection on which something failed is closed and not given back.
    pub(super) async fn migrate(&self) -> Result<(), MigrateError> {
        let mut connection = self.pool.acquire().await?;
        let migrated = migrations::apply(MIGRATIONS, &mut *connection).await;
        if migrated.is_err() {
            connection.close_on_drop();
        }
        migrated
    }

    pub(super) async fn applied_migrations(&self) -> Result<Vec<i64>, sqlx::Error> {
        let table = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
        let is_there: bool = sqlx::query_scalar(table).fetch_one(&self.pool).await?;
        if !is_there {
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

impl TenantStore for Postgres {
    fn create_tenant<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<(), TenantStoreError>> {
        Box::pin(async move {
            let insert = sqlx::query(
                "INSERT INTO tenants (name, max_pixels, on_exceed, requests_per_minute,
                    tokens_per_minute, concurrency, models, disabled)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
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
                "UPDATE tenants SET max_pixels = $2, on_exceed = $3, requests_per_minute = $4,
                    tokens_per_minute = $5, concurrency = $6, models = $7, disabled = $8
                 WHERE name = $1",
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
                 FROM tenants WHERE name = $1",
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
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
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
                 WHERE id = $1",
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
                 FROM api_keys WHERE $1::text IS NULL OR tenant = $1
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
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1",
            );
            let update = update.bind(id.as_str()).bind(at.as_millisecond());
            let done = update.execute(&self.pool).await.map_err(rows::failure)?;
            Ok(done.rows_affected() > 0)
        })
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

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

fn has_known_parameters(url: &str) -> bool {
    let Some((_, parameters)) = url.split_once('?') else { return true };
    parameters.split('&').all(|parameter| {
        let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        PARAMETERS.contains(&name)
    })
}
