//! The reasons why a database cannot be used.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;

use super::options::Engine;

/// The reason why a database cannot be used. The messages address the person who sets `database.url`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address names no engine.
    #[error("database.url starts with \"sqlite://\" or \"postgres://\"")]
    UnknownScheme,
    /// The address does not have the form of its engine. The driver's message is left out, because it quotes the
    /// address.
    #[error(
        "database.url is not an address of a {engine} database; its form is sqlite://PATH or \
         postgres://USER:PASSWORD@HOST:PORT/NAME, with %XX for special characters"
    )]
    Address {
        /// The engine that the address names.
        engine: Engine,
    },
    /// A parameter that the driver would ignore.
    #[error("database.url has a parameter after the '?' that {engine} does not know here")]
    UnknownParameter {
        /// The engine that the address names.
        engine: Engine,
    },
    /// The folder for the file is missing. The program does not create it: after a typo, an empty database would start.
    #[error("the folder {} for the SQLite file of database.url does not exist", .folder.display())]
    MissingFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The file is missing, and this command does not create it.
    #[error(
        "the SQLite file {} of database.url does not exist; `ocr-gateway migrate` makes it",
        .file.display()
    )]
    MissingFile {
        /// The file.
        file: PathBuf,
    },
    /// The file cannot be created.
    #[error("the SQLite file {} of database.url cannot be made: {source}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The message of the operating system.
        source: std::io::Error,
    },
    /// No server answers, or the server refuses the connection.
    #[error("the {engine} database of database.url cannot be used: {source}")]
    Unreachable {
        /// The engine.
        engine: Engine,
        /// The message of the driver.
        source: sqlx::Error,
    },
    /// A limit of connections that leaves one kind of statement without any.
    #[error(
        "database.max_connections: {actual} is below {least}: the ledger's posts, look-ups and reports \
         need one each"
    )]
    TooFewConnections {
        /// The setting.
        actual: u32,
        /// The least valid number.
        least: u32,
    },
    /// A newer version of this program changed the schema, and this version does not support it.
    #[error(
        "the database's schema is too new for this version of the program: migration {version} needs a \
         version that has migration {needed}, and this one has those up to {known}; run the version that \
         applied it, or a later one"
    )]
    NewerDatabase {
        /// The migration whose schema this program does not support.
        version: i64,
        /// The last migration of the oldest program that supports that schema.
        needed: i64,
        /// The last migration of this program.
        known: i64,
    },
    /// The schema is from an older version of this program, and this command does not migrate.
    #[error("the database lacks migrations: run `ocr-gateway migrate` ({missing})")]
    OlderDatabase {
        /// This program's migrations that the database lacks.
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
        /// This program's migrations that the database lacks.
        missing: String,
    },
    /// A build with another text of the migration created the database.
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
        /// The message of the driver.
        source: Box<MigrateError>,
    },
}

impl StoreError {
    /// Whether the error may pass by itself: the database does not answer, or does not work now. A refused password
    /// does not pass, nor does a schema of another version.
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
            (Engine::Sqlite, source) => is_locked(source),
            (Engine::Postgres, source) => is_away(source),
        }
    }
}

/// A session that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server takes no writes: it is a standby, or default_transaction_read_only is on; the \
     address must lead to the primary"
)]
pub(super) struct ReadOnly;

/// Whether the server is unavailable, a standby, or accepts no statements now.
fn is_away(error: &sqlx::Error) -> bool {
    // https://www.postgresql.org/docs/current/errcodes-appendix.html: connections, rolled back transactions, resources,
    // objects in use, an operator who stops or starts the server, the system. PgBouncer reports 08P01 for a server that
    // it cannot reach.
    const PASSING: [&str; 6] = ["08", "40", "53", "55", "57", "58"];
    match error {
        // TLS reports this kind of error for a certificate that is not trusted. That does not pass by itself.
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::InvalidData,
        sqlx::Error::Database(error) => {
            let code = error.code();
            code.is_some_and(|code| code.get(..2).is_some_and(|class| PASSING.contains(&class)))
        }
        // A proxy closes the connection if the server that it forwards to is unavailable.
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::Configuration(error) => error.is::<ReadOnly>(),
        _ => false,
    }
}

/// Whether another program has locked the database. No other fault of a file passes by itself.
fn is_locked(error: &sqlx::Error) -> bool {
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    // The other bits of the code only refine the same error.
    code.is_some_and(|code| [BUSY, LOCKED].contains(&(code & 0xff)))
}
