//! All SQL for PostgreSQL. The functions stand in the same order as in `sqlite/`.
//!
//! Columns are always listed: with `*`, a statement that another replica prepared before a column
//! was added fails until its connection ends ("cached plan must not change result type").

mod ledger;
mod tenants;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

use super::migrations::{self, Migration};
use super::{Engine, Options, StoreError};

/// The migrations of this engine.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "initial",
        sql: include_str!("../../../migrations/postgres/0001_initial.sql"),
    },
    Migration {
        version: 2,
        name: "budgets",
        sql: include_str!("../../../migrations/postgres/0002_budgets.sql"),
    },
    Migration {
        version: 3,
        name: "ledger",
        sql: include_str!("../../../migrations/postgres/0003_ledger.sql"),
    },
    Migration {
        version: 4,
        name: "regions",
        sql: include_str!("../../../migrations/postgres/0004_regions.sql"),
    },
    Migration {
        version: 5,
        name: "checks",
        sql: include_str!("../../../migrations/postgres/0005_checks.sql"),
    },
    Migration {
        version: 6,
        name: "entries_by_day",
        sql: include_str!("../../../migrations/postgres/0006_entries_by_day.sql"),
    },
];

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

fn has_known_parameters(url: &str) -> bool {
    let Some((_, parameters)) = url.split_once('?') else { return true };
    parameters.split('&').all(|parameter| {
        let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        PARAMETERS.contains(&name)
    })
}
