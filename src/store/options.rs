//! Options of a database connection.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// Options of a database connection, the same for both engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// The most connections; an in-memory database has one.
    pub max_connections: NonZeroU32,
    /// How long a query waits for a free connection, and the first connection for the database.
    pub acquire_timeout: Duration,
    /// The handling of a missing SQLite file.
    pub missing_file: MissingFile,
}

impl Default for StoreOptions {
    /// Ten connections, which is little beside the hundred of an untuned PostgreSQL, and ten seconds, in which a busy
    /// disk opens a SQLite file. Requests do not wait that long: a key look-up has a timeout of a second. A missing
    /// file is created.
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

/// The handling of a missing SQLite file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingFile {
    /// It is created, readable by its owner only; its folder must exist.
    Made,
    /// It is an error.
    Refused,
}
