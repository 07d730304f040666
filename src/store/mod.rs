//! The databases: SQLite in a file for one process, PostgreSQL for several replicas.
//!
//! All SQL of the service is in `sqlite/` and `postgres/`, with the same functions in the same
//! order, and `tests/it/store.rs` holds every promise against both. Queries are checked when they
//! run and not when they are compiled: sqlx's checking macros want one database for each crate, and
//! there are two here. Nobody outside of this module names sqlx, nor rusqlite, which posts to the ledger in
//! SQLite (docs/adr/0016-posting-on-sqlite.md).
//!
//! Errors never show the address of a database, because it may hold a password, and a mistyped one
//! may hold parts of it anywhere.

mod migrations;
mod postgres;
mod rows;
mod sqlite;

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;

use crate::auth::store::TenantStore;
use crate::lease::LeaseStore;
use crate::ledger::LedgerStore;
use postgres::Postgres;
use sqlite::Sqlite;

/// How a database is used, whichever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Connections at most; a database in memory has one.
    pub max_connections: NonZeroU32,
    /// How long a query waits for a free connection, and the first connection for the database.
    pub acquire_timeout: Duration,
    /// What becomes of a SQLite file that is not there.
    pub missing_file: MissingFile,
}

impl Default for Options {
    /// Ten connections, which is little beside the hundred of an untuned PostgreSQL, and ten seconds,
    /// in which a busy disk opens a SQLite file. Requests do not wait that long: a key look-up gives up
    /// after a second by itself. A missing file is made.
    fn default() -> Self {
        const TEN: NonZeroU32 = NonZeroU32::new(10).unwrap();
        Self {
            max_connections: TEN,
            acquire_timeout: Duration::from_secs(10),
            missing_file: MissingFile::Made,
        }
    }
}

/// The two engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file, or memory in tests.
    Sqlite,
    /// A server.
    Postgres,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}

/// What becomes of a SQLite file that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingFile {
    /// It is made, readable by its owner only; its folder must be there.
    Made,
    /// It is an error.
    Refused,
}

/// How the schema of a database compares with the one that this program makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schema {
    /// It lacks these migrations, in their order.
    Older(Vec<&'static str>),
    /// It is the same.
    Same,
    /// It has more migrations, and each of them says that this program runs on the schema after it.
    Newer {
        /// The last migration of the database.
        version: i64,
        /// The last that this program knows.
        known: i64,
    },
}

/// A connected database.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

#[derive(Debug, Clone)]
enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Connects to the database at `url`: `sqlite://PATH`, `sqlite::memory:` or `postgres://…`.
///
/// # Errors
///
/// [`StoreError`] where the address is not understood or nothing answers there.
pub async fn connect(url: &str, options: Options) -> Result<Store, StoreError> {
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

/// What to tell of a database at `url` whose connections may leave this machine unencrypted.
pub fn warning(url: &str) -> Option<String> {
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => postgres::warning(url),
        _ => None,
    }
}

impl Store {
    /// Which engine it is.
    pub const fn engine(&self) -> Engine {
        match self.database {
            Database::Sqlite(_) => Engine::Sqlite,
            Database::Postgres(_) => Engine::Postgres,
        }
    }

    /// The tenants and keys of the database.
    pub fn tenants(&self) -> Arc<dyn TenantStore> {
        match &self.database {
            Database::Sqlite(sqlite) => Arc::new(sqlite.clone()),
            Database::Postgres(postgres) => Arc::new(postgres.clone()),
        }
    }

    /// The instances of the database.
    pub fn leases(&self) -> Arc<dyn LeaseStore> {
        match &self.database {
            Database::Sqlite(sqlite) => Arc::new(sqlite.clone()),
            Database::Postgres(postgres) => Arc::new(postgres.clone()),
        }
    }

    /// The ledger of the database.
    pub fn ledger(&self) -> Arc<dyn LedgerStore> {
        match &self.database {
            Database::Sqlite(sqlite) => Arc::new(sqlite.clone()),
            Database::Postgres(postgres) => Arc::new(postgres.clone()),
        }
    }

    /// Applies the migrations that are missing, all or none. Replicas may call it at once. A database whose
    /// schema is newer is left as it is.
    ///
    /// # Errors
    ///
    /// As [`Store::schema`], and [`StoreError::Migration`] where a migration failed.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let migrated = match &self.database {
            Database::Sqlite(sqlite) => sqlite.migrate().await,
            Database::Postgres(postgres) => postgres.migrate().await,
        };
        migrated.map_err(|refused| refused.told_of(self.engine()))
    }

    /// How the schema of the database compares with the one that this program makes. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::NewerDatabase`] and [`StoreError::ChangedMigration`] where this program must not run on
    /// it, [`StoreError::Unreachable`] where the database does not answer.
    pub async fn schema(&self) -> Result<Schema, StoreError> {
        let (migrations, history) = match &self.database {
            Database::Sqlite(sqlite) => (sqlite::MIGRATIONS, sqlite.history().await),
            Database::Postgres(postgres) => (postgres::MIGRATIONS, postgres.history().await),
        };
        let unreachable = |source| StoreError::Unreachable { engine: self.engine(), source };
        let history = history.map_err(unreachable)?;
        migrations::schema(migrations, &history).map_err(|refused| refused.told_of(self.engine()))
    }

    /// Closes all connections, after the queries that run. SQLite tidies up its files then.
    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.close().await,
            Database::Postgres(postgres) => postgres.close().await,
        }
    }
}

/// Why a database cannot be used. Written for whoever sets `database.url`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address names no engine.
    #[error("database.url starts with \"sqlite://\" or \"postgres://\"")]
    UnknownScheme,
    /// The address does not have the form that its engine wants. What the driver says of it is left
    /// out, because it quotes what it could not read.
    #[error(
        "database.url is not an address of a {engine} database; its form is sqlite://PATH or \
         postgres://USER:PASSWORD@HOST:PORT/NAME, with %XX for special characters"
    )]
    Address {
        /// The engine that the address names.
        engine: Engine,
    },
    /// A parameter that would be passed over.
    #[error("database.url has a parameter after the '?' that {engine} does not know here")]
    UnknownParameter {
        /// The engine that the address names.
        engine: Engine,
    },
    /// The folder for the file is missing. It is not made: a typo would start an empty database.
    #[error("the folder {} for the SQLite file of database.url does not exist", .folder.display())]
    MissingFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The file is missing, and this is no command that makes it.
    #[error(
        "the SQLite file {} of database.url does not exist; `ocr-gateway migrate` makes it",
        .file.display()
    )]
    MissingFile {
        /// The file.
        file: PathBuf,
    },
    /// The file cannot be made.
    #[error("the SQLite file {} of database.url cannot be made: {source}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Nothing answers, or it refuses.
    #[error("the {engine} database of database.url cannot be used: {source}")]
    Unreachable {
        /// The engine.
        engine: Engine,
        /// What the driver says.
        source: sqlx::Error,
    },
    /// A limit that leaves somebody without a connection.
    #[error(
        "database.max_connections: {actual} is below {least}: the ledger's posts, look-ups and reports \
         need one each"
    )]
    TooFewConnections {
        /// The setting.
        actual: u32,
        /// The least that works.
        least: u32,
    },
    /// A newer version of this program changed the schema so that this one cannot run on it.
    #[error(
        "the database's schema is too new for this version of the program: migration {version} needs a \
         version that has migration {needed}, and this one has those up to {known}; run the version that \
         applied it, or a later one"
    )]
    NewerDatabase {
        /// The migration on whose schema this program does not run.
        version: i64,
        /// The migration that the oldest program that runs on it knows.
        needed: i64,
        /// The last migration that this program knows.
        known: i64,
    },
    /// An older version of this program was here, and this is no command that migrates.
    #[error("the database lacks migrations: run `ocr-gateway migrate` ({missing})")]
    OlderDatabase {
        /// This program's migrations that it lacks.
        missing: String,
    },
    /// Migrations of another line of versions were applied, and some of this program's were not.
    #[error(
        "the database has migration {version}, which this version of the program does not know, and lacks \
         {missing}: it was migrated by a build that is no release before or after this one"
    )]
    ForeignDatabase {
        /// The first unknown migration.
        version: i64,
        /// This program's migrations that it lacks.
        missing: String,
    },
    /// The database was made by a build that is not this one.
    #[error(
        "migration {version} was applied to the database with another text than this program has; \
         run a released version"
    )]
    ChangedMigration {
        /// The migration.
        version: i64,
    },
    /// A migration failed.
    #[error("the {engine} database cannot be migrated: {source}")]
    Migration {
        /// The engine.
        engine: Engine,
        /// What the driver says.
        source: Box<MigrateError>,
    },
}

impl StoreError {
    /// Whether it may pass by itself: the database does not answer, or does not work now. A refused password does
    /// not, nor does a schema of another version.
    pub fn is_outage(&self) -> bool {
        let (engine, source) = match self {
            Self::Unreachable { engine, source } => (engine, source),
            Self::Migration { engine, source } => match &**source {
                MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                    (engine, source)
                }
                _ => return false,
            },
            _ => return false,
        };
        match (engine, source) {
            (_, sqlx::Error::PoolTimedOut) => true,
            (Engine::Sqlite, source) => sqlite::is_outage(source),
            (Engine::Postgres, source) => postgres::is_outage(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(url: &str) -> StoreError {
        connect(url, Options::default()).await.unwrap_err()
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
