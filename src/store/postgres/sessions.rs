//! Sessions with the server: which ones may be used, and which state may persist in them.
//!
//! A session is used only if its server accepts writes. After a failover a connection may still lead to the old
//! primary, which is a standby now, or hangs; and an address may lead to a standby before it is moved. Such a session
//! would refuse every post and answer look-ups of keys with old data. So each session is checked before each use, in
//! the one round trip in which sqlx would test whether it is alive, and is closed if the check fails or gets no answer.
//! The next one resolves the address anew.
//!
//! A pooler such as PgBouncer in transaction mode lends a server's session for one transaction. Through a pooler no
//! state may outlive a transaction: no prepared statement, no lock, no setting. Each statement is then unnamed and runs
//! in a transaction, within which its parts reach the same server.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres, Row, Transaction};
use tokio::time::timeout;

use crate::store::error::ReadOnly;

/// How long a server may take to answer the check. A slower one counts as gone: after the loss of a host, connections
/// to it hang and are never closed.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// How often two connections compare their server processes.
const COMPARISONS: usize = 5;

/// How the server provides the session of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    /// A session of its own.
    Sessions,
    /// A server session for each transaction, shared with other clients.
    Transactions,
}

/// The server does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the server did not answer within {ANSWER_PATIENCE:?}")]
struct Silent;

impl Pooling {
    /// Compares the server processes of two connections. If one process serves both, or another one serves the same
    /// connection later, a pooler lends them.
    pub(super) async fn between(
        one: &mut PgConnection,
        other: &mut PgConnection,
    ) -> Result<Self, sqlx::Error> {
        let first = [process(one).await?, process(other).await?];
        for _ in 0..COMPARISONS {
            let now = [process(one).await?, process(other).await?];
            if now != first || now[0] == now[1] {
                return Ok(Self::Transactions);
            }
        }
        Ok(Self::Sessions)
    }
}

/// The server process of a connection.
async fn process(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?.try_get_unchecked(0)
}

/// A pool that checks each connection before use.
pub(super) fn pool(address: &PgConnectOptions, most: u32, acquire_timeout: Duration) -> PgPool {
    let is_refused = Arc::new(AtomicBool::new(false));
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, _| {
            Box::pin(async move { Ok(check(connection).await.is_ok()) })
        })
        // The pool closes a connection that fails here and tries again until its timeout.
        .after_connect(move |connection, _| {
            let is_refused = Arc::clone(&is_refused);
            Box::pin(async move { report(&is_refused, check(connection).await) })
        })
        // Without this, the pool waits without limit for unread results of a returned connection.
        .after_release(|connection, _| {
            Box::pin(async move {
                let is_there = timeout(ANSWER_PATIENCE, connection.ping()).await;
                is_there.unwrap_or_else(|_| Err(silent())).map(|()| true)
            })
        })
        .connect_lazy_with(address.clone())
}

/// Checks that the session's server answers and accepts writes.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let question = sqlx::raw_sql("SHOW transaction_read_only").fetch_one(connection);
    let answer = timeout(ANSWER_PATIENCE, question).await.unwrap_or_else(|_| Err(silent()))?;
    match answer.try_get_unchecked::<&str, _>(0)? {
        "off" => Ok(()),
        _ => Err(sqlx::Error::Configuration(ReadOnly.into())),
    }
}

/// Logs the first of several refused servers in a row.
fn report(is_refused: &AtomicBool, checked: Result<(), sqlx::Error>) -> Result<(), sqlx::Error> {
    let was_refused = is_refused.swap(checked.is_err(), Ordering::Relaxed);
    if let Err(error) = &checked
        && !was_refused
    {
        tracing::warn!(%error, "a connection to the database is not used");
    }
    checked
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, Silent))
}

/// A connection of a pool while it is used.
pub(super) struct Session {
    lent: Lent,
    pooling: Pooling,
}

enum Lent {
    Alone(PoolConnection<Postgres>),
    InTransaction(Transaction<'static, Postgres>),
}

impl Session {
    /// A session in which each statement is its own transaction.
    pub(super) async fn open(pool: &PgPool, pooling: Pooling) -> Result<Self, sqlx::Error> {
        match pooling {
            Pooling::Sessions => Ok(Self { lent: Lent::Alone(pool.acquire().await?), pooling }),
            Pooling::Transactions => Self::begin(pool, pooling).await,
        }
    }

    /// A session in a transaction, which is rolled back if it is dropped.
    pub(super) async fn begin(pool: &PgPool, pooling: Pooling) -> Result<Self, sqlx::Error> {
        Ok(Self { lent: Lent::InTransaction(pool.begin().await?), pooling })
    }

    /// Commits the transaction and returns the connection.
    pub(super) async fn end(self) -> Result<(), sqlx::Error> {
        match self.lent {
            Lent::Alone(_) => Ok(()),
            Lent::InTransaction(transaction) => transaction.commit().await,
        }
    }

    /// Rolls the transaction back and returns the connection.
    pub(super) async fn roll_back(self) -> Result<(), sqlx::Error> {
        match self.lent {
            Lent::Alone(_) => Ok(()),
            Lent::InTransaction(transaction) => transaction.rollback().await,
        }
    }

    /// Whether a statement that is prepared in this session can be reused.
    pub(super) fn keeps_statements(&self) -> bool {
        self.pooling == Pooling::Sessions
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match &self.lent {
            Lent::Alone(connection) => connection,
            Lent::InTransaction(transaction) => transaction,
        }
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match &mut self.lent {
            Lent::Alone(connection) => connection,
            Lent::InTransaction(transaction) => transaction,
        }
    }
}
