//! Sessions with the server: which may be used, and what lasts in them.
//!
//! A session is used only if its server takes writes. After a failover a connection may still lead to
//! the old primary, which is a standby now, or hangs; and an address may lead to a standby before it is
//! moved. Such a session would refuse every post and answer look-ups of keys from the past. So each
//! session is asked before each use, in the one round trip in which sqlx would test whether it is
//! alive, and is closed if it refuses or does not answer. The next one resolves the address anew.
//!
//! A pooler such as PgBouncer in transaction mode lends a server's session for one transaction. Behind
//! it nothing may outlive a transaction: no prepared statement, no lock, no setting. Then each statement
//! is unnamed and stands in a transaction, within which its parts reach the same server.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres, Row, Transaction};
use tokio::time::timeout;

use crate::store::error::ReadOnly;

/// How long a server may take to say that it is there. One that needs longer is taken for gone: after
/// the loss of a host, connections to it hang and nothing closes them.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// How often two connections compare the servers that serve them.
const COMPARISONS: usize = 5;

/// How the server serves the session of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    /// A session of its own.
    Sessions,
    /// A session of the server for each transaction, which other clients had before and will have
    /// afterwards.
    Transactions,
}

/// A server that does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the server did not answer within {ANSWER_PATIENCE:?}")]
struct Silent;

impl Pooling {
    /// Finds out by which processes of the server two connections are served. One process that serves
    /// both, or another one for the same connection, is lent by a pooler.
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

/// The process of the server that serves a connection.
async fn process(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?.try_get_unchecked(0)
}

/// Connections of which each is checked before it is used.
pub(super) fn pool(address: &PgConnectOptions, most: u32, acquire_timeout: Duration) -> PgPool {
    let is_refused = Arc::new(AtomicBool::new(false));
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, _| {
            Box::pin(async move { Ok(check(connection).await.is_ok()) })
        })
        // The pool closes a connection that fails here and tries again until the time is up.
        .after_connect(move |connection, _| {
            let is_refused = Arc::clone(&is_refused);
            Box::pin(async move { report(&is_refused, check(connection).await) })
        })
        // The pool waits without end for what a connection still owes when it is given back.
        .after_release(|connection, _| {
            Box::pin(async move {
                let is_there = timeout(ANSWER_PATIENCE, connection.ping()).await;
                is_there.unwrap_or_else(|_| Err(silent())).map(|()| true)
            })
        })
        .connect_lazy_with(address.clone())
}

/// Whether the session's server answers and takes writes.
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
    /// A session in which each statement stands for itself.
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

    /// Gives the connection back, after committing the transaction.
    pub(super) async fn end(self) -> Result<(), sqlx::Error> {
        match self.lent {
            Lent::Alone(_) => Ok(()),
            Lent::InTransaction(transaction) => transaction.commit().await,
        }
    }

    /// Gives the connection back, and takes back what the transaction did.
    pub(super) async fn roll_back(self) -> Result<(), sqlx::Error> {
        match self.lent {
            Lent::Alone(_) => Ok(()),
            Lent::InTransaction(transaction) => transaction.rollback().await,
        }
    }

    /// Whether a statement that is prepared in this session can be used again.
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
