//! How a database is used.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// How a database is used, whichever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Connections at most; a database in memory has one.
    pub max_connections: NonZeroU32,
    /// How long a query waits for a free connection, and the first connection for the database.
    pub acquire_timeout: Duration,
    /// How a SQLite file that is not there is treated.
    pub missing_file: MissingFile,
}

impl Default for StoreOptions {
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

/// How a SQLite file that is not there is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingFile {
    /// It is made, readable by its owner only; its folder must be there.
    Made,
    /// It is an error.
    Refused,
}
