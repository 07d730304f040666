//! The databases: SQLite in a file for one process, PostgreSQL for several replicas.
//!
//! A statement exists once if both engines accept its text (`tenants`, `ledger`), and otherwise in
//! `sqlite/statements.rs` and `postgres/statements.rs`. `tests/it/store.rs` and `tests/it/ledger.rs` test every promise
//! on both. Queries are checked at run time and not at compile time: sqlx's checking macros need one database for each
//! crate, and there are two here. Only this module uses sqlx, and rusqlite, which posts to the ledger in SQLite
//! (docs/adr/0016-posting-on-sqlite.md).
//!
//! Errors never show the address of a database, because it may hold a password, and a mistyped one may hold parts of it
//! anywhere.

mod database;
mod error;
mod heights;
mod leases;
mod ledger;
mod migrations;
mod options;
mod postgres;
mod rows;
mod sqlite;
mod statement;
mod tenants;

use std::path::PathBuf;
use std::sync::Arc;

use self::database::Database;
use self::postgres::Postgres;
use self::sqlite::Sqlite;
use crate::auth::store::TenantStore;
use crate::calibration::HeightStore;
use crate::lease::LeaseStore;
use crate::ledger::LedgerStore;

pub use self::error::StoreError;
pub use self::migrations::SchemaState;
pub use self::options::{Engine, MissingFile, StoreOptions};

/// A connected database.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

/// Connects to the database at `url`: `sqlite://PATH`, `sqlite::memory:` or `postgres://…`.
///
/// # Errors
///
/// [`StoreError`] if the address is invalid or the database does not answer.
pub async fn connect(url: &str, options: StoreOptions) -> Result<Store, StoreError> {
    let database = match url.split_once(':') {
        Some(("sqlite", _)) => Database::Sqlite(Sqlite::connect(url, options).await?),
        Some(("postgres" | "postgresql", _)) => {
            Database::Postgres(Postgres::connect(url, options).await?)
        }
        _ => return Err(StoreError::UnknownScheme),
    };
    Ok(Store { database })
}

/// The file of the database at `url`, if it has one.
pub fn file(url: &str) -> Option<PathBuf> {
    match url.split_once(':') {
        Some(("sqlite", _)) => sqlite::file(url),
        _ => None,
    }
}

/// A warning if the connections of the database at `url` may leave this machine unencrypted.
pub fn warning(url: &str) -> Option<String> {
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => postgres::warning(url),
        _ => None,
    }
}

impl Store {
    /// The engine of the database.
    pub const fn engine(&self) -> Engine {
        match self.database {
            Database::Sqlite(_) => Engine::Sqlite,
            Database::Postgres(_) => Engine::Postgres,
        }
    }

    /// The tenants and keys of the database.
    pub fn tenants(&self) -> Arc<dyn TenantStore> {
        Arc::new(self.database.clone())
    }

    /// What audits have taught, in the database.
    pub fn heights(&self) -> Arc<dyn HeightStore> {
        Arc::new(self.database.clone())
    }

    /// The instances of the database.
    pub fn leases(&self) -> Arc<dyn LeaseStore> {
        Arc::new(self.database.clone())
    }

    /// The ledger of the database.
    pub fn ledger(&self) -> Arc<dyn LedgerStore> {
        Arc::new(self.database.clone())
    }

    /// Applies the missing migrations, all or none. Replicas may call it at once. A database whose schema is newer is
    /// left unchanged.
    ///
    /// # Errors
    ///
    /// As [`Store::schema`], and [`StoreError::Migration`] if a migration failed.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let migrated = match &self.database {
            Database::Sqlite(sqlite) => sqlite.migrate().await,
            Database::Postgres(postgres) => postgres.migrate().await,
        };
        migrated.map_err(|refused| refused.told_of(self.engine()))
    }

    /// How the schema of the database compares with the schema of this program. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::NewerDatabase`] and [`StoreError::ChangedMigration`] if this program must not use the database,
    /// [`StoreError::Unreachable`] if the database does not answer.
    pub async fn schema(&self) -> Result<SchemaState, StoreError> {
        let (migrations, history) = match &self.database {
            Database::Sqlite(sqlite) => (sqlite::MIGRATIONS, sqlite.history().await),
            Database::Postgres(postgres) => (postgres::MIGRATIONS, postgres.history().await),
        };
        let unreachable = |source| StoreError::Unreachable { engine: self.engine(), source };
        let history = history.map_err(unreachable)?;
        migrations::schema(migrations, &history).map_err(|refused| refused.told_of(self.engine()))
    }

    /// Closes all connections after the running queries. SQLite then cleans up its files.
    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.close().await,
            Database::Postgres(postgres) => postgres.close().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(url: &str) -> StoreError {
        connect(url, StoreOptions::default()).await.unwrap_err()
    }

    #[tokio::test]
    async fn an_address_of_no_known_engine_is_refused() {
        for wrong in ["", "ocr-gateway.db", "mysql://localhost/x", "sqlite3://x"] {
            assert!(matches!(refusal(wrong).await, StoreError::UnknownScheme), "{wrong}");
        }
    }

    #[tokio::test]
    async fn no_refusal_shows_any_part_of_a_password() {
        for url in [
            "postgres://gateway:hunter2@127.0.0.1:99999/x",
            "postgres://gateway:hunter2@127.0.0.1:1/x",
            "postgres://gateway:8/hunter2@127.0.0.1/x",
            "postgres://gateway:8#hunter2@127.0.0.1/x",
            "postgres://gateway:8?hunter2@127.0.0.1/x",
            "postgres://127.0.0.1:1/x?pasword=hunter2",
            "postgres://127.0.0.1:1/x?sslmode=hunter2",
            "postgres://127.0.0.1:1/x?port=hunter2",
            "mysql://gateway:hunter2@127.0.0.1/x",
            "hunter2",
        ] {
            let refusal = refusal(url).await;
            let shown = format!("{refusal} {refusal:?}");
            assert!(!shown.contains("hunter2"), "{url}: {shown}");
        }
    }

    #[tokio::test]
    async fn a_parameter_that_would_be_passed_over_is_refused() {
        for wrong in ["sqlite://x.db?mode=ro", "postgres://127.0.0.1:1/x?ssl=on"] {
            let refusal = refusal(wrong).await;
            assert!(matches!(refusal, StoreError::UnknownParameter { .. }), "{refusal}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_as_the_cause() {
        let refusal = refusal("postgres://127.0.0.1:1/x").await.to_string();
        assert!(refusal.contains("refused"), "{refusal}");
    }

    #[tokio::test]
    async fn a_missing_folder_is_named_and_not_made() {
        let refusal = refusal("sqlite:///missing-folder-of-a-test/gateway.db").await;
        let StoreError::MissingFolder { folder } = refusal else { panic!("{refusal}") };
        assert_eq!(folder.to_str(), Some("/missing-folder-of-a-test"));
        assert!(!folder.exists());
    }

    #[test]
    fn both_engines_have_the_same_migrations() {
        let names = |migrations: &[migrations::Migration]| -> Vec<_> {
            migrations.iter().map(|migration| (migration.version, migration.name)).collect()
        };
        assert_eq!(names(sqlite::MIGRATIONS), names(postgres::MIGRATIONS));
    }
}
