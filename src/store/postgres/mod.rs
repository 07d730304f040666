//! PostgreSQL: its connections, its posting and its own statements.
//!
//! Columns are always listed: with `*`, a statement that another replica prepared before a column was added fails until
//! its connection ends ("cached plan must not change result type").

pub(super) mod statements;

mod json;
mod posting;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, SqlSafeStr};

use self::sessions::{Pooling, Session};
use super::error::StoreError;
use super::migrations::{self, History, Migration, Refused, SchemaState};
use super::options::{Engine, StoreOptions};
use super::statement::{ReadRow, SqlValue, Workload, query};
use crate::host::is_loopback;

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
    Migration {
        version: 7,
        name: "unknown_bills",
        sql: include_str!("../../../migrations/postgres/0007_unknown_bills.sql"),
    },
    Migration {
        version: 8,
        name: "schema_compatibility",
        sql: include_str!("../../../migrations/postgres/0008_schema_compatibility.sql"),
    },
    Migration {
        version: 9,
        name: "entry_origins",
        sql: include_str!("../../../migrations/postgres/0009_entry_origins.sql"),
    },
    Migration {
        version: 10,
        name: "pdf_text",
        sql: include_str!("../../../migrations/postgres/0010_pdf_text.sql"),
    },
    Migration {
        version: 11,
        name: "fewer_tokens",
        sql: include_str!("../../../migrations/postgres/0011_fewer_tokens.sql"),
    },
];

/// One connection each for posts, look-ups and reports.
const FEWEST_CONNECTIONS: u32 = 3;

/// The key of the advisory lock under which migrations are applied; any number that no other program uses.
const MIGRATION_LOCK: i64 = 0x6f63_725f_6d69_6772;

/// How long a replica waits while another one migrates. Then it logs that and tries again.
const LONGEST_TURN: &str = "60s";

/// How long a migration waits for a table that is in use, by a dump for example. All other statements on the table wait
/// for the migration meanwhile, so this is shorter than their timeout.
const LONGEST_LOCK: &str = "2s";

/// The address parameters that sqlx 0.9 supports. sqlx ignores any other and logs its value, which may be a password
/// under a mistyped name.
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

/// See [`store::warning`](super::warning).
pub(super) fn warning(url: &str) -> Option<String> {
    // sqlx must not parse an address with parameters outside of `PARAMETERS`; such an address keeps the service from
    // starting.
    let address: PgConnectOptions = has_known_parameters(url).then(|| url.parse().ok())??;
    let (host, mode) = (address.get_host(), address.get_ssl_mode());
    let is_encrypted =
        matches!(mode, PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    // A Unix socket does not leave the machine either.
    if is_encrypted || address.get_socket().is_some() || host.starts_with('/') || is_loopback(host)
    {
        return None;
    }
    Some(format!(
        "database.url: what is sent to {host} may be unencrypted, since sslmode does not require TLS; add \
         ?sslmode=verify-full"
    ))
}

/// A PostgreSQL database, with connections for each [`Workload`].
#[derive(Debug, Clone)]
pub(super) struct Postgres {
    address: Arc<PgConnectOptions>,
    posts: PgPool,
    lookups: PgPool,
    reports: PgPool,
    pooling: Pooling,
    /// How long opening a connection may take.
    patience: Duration,
}

impl Postgres {
    pub(super) async fn connect(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let engine = Engine::Postgres;
        if !has_known_parameters(url) {
            return Err(StoreError::UnknownParameter { engine });
        }
        let address: PgConnectOptions = url.parse().map_err(|_| StoreError::Address { engine })?;
        // PgBouncer refuses this parameter, and no column holds a fraction.
        let address = address.extra_float_digits(None);
        let [posts, lookups, reports] = shares(options.max_connections.get())?;
        let pooling = first_contact(&address, options.acquire_timeout).await?;
        if pooling == Pooling::Transactions {
            tracing::info!(
                "the database is behind a pooler that lends a server's session for one transaction: \
                 statements are not kept prepared"
            );
        }
        let pool = |most| sessions::pool(&address, most, options.acquire_timeout);
        let (posts, lookups, reports) = (pool(posts), pool(lookups), pool(reports));
        let address = Arc::new(address);
        Ok(Self { address, posts, lookups, reports, pooling, patience: options.acquire_timeout })
    }

    /// Applies the migrations in one transaction, on a connection that is closed afterwards. The transaction holds the
    /// lock, and not the session as with sqlx's own lock, because through a pooler the next statement may run in
    /// another session.
    pub(super) async fn migrate(&self) -> Result<(), Refused> {
        let connecting = tokio::time::timeout(self.patience, self.address.connect()).await;
        let mut connection = connecting.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        let mut transaction = connection.begin().await?;
        // Each statement after the lock sees the data that the previous holder of the lock committed.
        let lock = format!(
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{LONGEST_TURN}'; \
             SELECT pg_advisory_xact_lock({MIGRATION_LOCK}); SET LOCAL lock_timeout = '{LONGEST_LOCK}'"
        );
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *transaction).await?;
        self.forget_statements(&mut transaction).await?;
        if let SchemaState::Older(_) =
            migrations::schema(MIGRATIONS, &history(&mut transaction).await?)?
        {
            migrations::apply(MIGRATIONS, &mut *transaction).await?;
        }
        self.forget_statements(&mut transaction).await?;
        transaction.commit().await?;
        // The migrations are committed, so an error while closing does not matter.
        let _ = connection.close().await;
        Ok(())
    }

    /// sqlx numbers its prepared statements anew in each connection, so the names of two clients collide in a session
    /// that a pooler shares between them.
    async fn forget_statements(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.pooling == Pooling::Transactions {
            sqlx::raw_sql("DEALLOCATE ALL").execute(connection).await?;
        }
        Ok(())
    }

    pub(super) async fn history(&self) -> Result<History, sqlx::Error> {
        let mut session = self.begin(Workload::LookUp).await?;
        let history = history(&mut session).await?;
        session.end().await?;
        Ok(history)
    }

    pub(super) async fn close(&self) {
        for pool in [&self.posts, &self.lookups, &self.reports] {
            pool.close().await;
        }
    }

    /// Runs a statement and gives the number of rows that it changed.
    pub(super) async fn execute(
        &self,
        purpose: Workload,
        sql: &'static str,
        values: Vec<SqlValue>,
    ) -> Result<u64, sqlx::Error> {
        let mut session = Session::open(self.pool(purpose), self.pooling).await?;
        let statement = query(sql, values).persistent(session.keeps_statements());
        let done = statement.execute(&mut *session).await?;
        session.end().await?;
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
        let mut session = Session::open(self.pool(purpose), self.pooling).await?;
        let select = query(sql, values).persistent(session.keeps_statements());
        let rows = select.try_map(|row: PgRow| read(&row)).fetch_all(&mut *session).await?;
        session.end().await?;
        Ok(rows)
    }

    /// A session in a transaction.
    async fn begin(&self, purpose: Workload) -> Result<Session, sqlx::Error> {
        Session::begin(self.pool(purpose), self.pooling).await
    }

    const fn pool(&self, purpose: Workload) -> &PgPool {
        match purpose {
            Workload::Post => &self.posts,
            Workload::LookUp => &self.lookups,
            Workload::Report => &self.reports,
        }
    }
}

/// The migrations of the database. No statement stays prepared: through a pooler its name could be taken.
async fn history(connection: &mut PgConnection) -> Result<History, sqlx::Error> {
    let mut history = History::default();
    if is_there(connection, migrations::APPLIED).await? {
        let applied = sqlx::query_as(migrations::SELECT_APPLIED).persistent(false);
        history.applied = applied.fetch_all(&mut *connection).await?;
    }
    let is_newer = migrations::are_unknown(MIGRATIONS, &history.applied);
    if is_newer && is_there(connection, migrations::COMPATIBILITY).await? {
        let compatible = sqlx::query_as(migrations::SELECT_COMPATIBILITY).persistent(false);
        history.oldest_compatible = compatible.fetch_all(connection).await?.into_iter().collect();
    }
    Ok(history)
}

async fn is_there(connection: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(table);
    found.persistent(false).fetch_one(connection).await
}

/// The numbers of connections for posts, look-ups and reports out of `most`.
fn shares(most: u32) -> Result<[u32; 3], StoreError> {
    if most < FEWEST_CONNECTIONS {
        return Err(StoreError::TooFewConnections { actual: most, least: FEWEST_CONNECTIONS });
    }
    // Connections for the writer, the reaper, and one that is being returned.
    let posts = (most / 3).clamp(1, 3);
    let reports = (most / 4).max(1);
    Ok([posts, most - posts - reports, reports])
}

/// Connects in the same way as the pools, and returns the cause if that fails: a pool would retry until its timeout and
/// then report only the timeout. Detects a pooler.
async fn first_contact(
    address: &PgConnectOptions,
    patience: Duration,
) -> Result<Pooling, StoreError> {
    let engine = Engine::Postgres;
    let contact = async {
        let (mut one, mut other) = (address.connect().await?, address.connect().await?);
        sessions::check(&mut one).await?;
        let pooling = Pooling::between(&mut one, &mut other).await?;
        // They are no longer needed, so an error while closing does not matter.
        let _ = (one.close().await, other.close().await);
        Ok(pooling)
    };
    let contact = tokio::time::timeout(patience, contact).await;
    contact
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(|source| StoreError::Unreachable { engine, source })
}

fn has_known_parameters(url: &str) -> bool {
    let Some((_, parameters)) = url.split_once('?') else { return true };
    parameters.split('&').all(|parameter| {
        let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        PARAMETERS.contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_on_another_machine_that_need_not_be_encrypted_draws_a_warning() {
        for (url, is_warned) in [
            ("postgres://u:secret@db/x", true),
            ("postgres://u:secret@10.0.0.1/x?sslmode=prefer", true),
            ("postgres://u:secret@db/x?sslmode=disable", true),
            ("postgres://u:secret@db/x?sslmode=require", false),
            ("postgres://u:secret@db/x?ssl-mode=verify-full", false),
            ("postgres://u:secret@127.0.0.1/x", false),
            ("postgres://u:secret@[::1]/x", false),
            ("postgres:///x?host=/var/run/postgresql", false),
            ("postgres://u@db/x?passwrd=secret", false),
        ] {
            let warning = warning(url);
            assert_eq!(warning.is_some(), is_warned, "{url}");
            assert!(!warning.unwrap_or_default().contains("secret"));
        }
    }

    #[test]
    fn connections_are_shared_out_whole_and_everybody_has_one() {
        for most in FEWEST_CONNECTIONS..100 {
            let shares = shares(most).unwrap();
            assert!(shares.iter().sum::<u32>() == most && !shares.contains(&0), "{shares:?}");
        }
        assert_eq!(shares(8).unwrap(), [2, 4, 2]);
        let refusal = shares(2).unwrap_err().to_string();
        assert!(refusal.starts_with("database.max_connections: 2 is below 3"), "{refusal}");
    }
}
