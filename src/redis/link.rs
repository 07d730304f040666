//! The Redis link of a process: one connection, and the task that opens it again.

use std::sync::Arc;

use prometheus::IntGauge;
use redis::FromRedisValue;
use tokio_util::task::AbortOnDropHandle;

use super::connection::RedisConnection;
use super::script::{Probe, ScriptCall};
use super::settings::{LinkError, OnFailure, RedisSettings};
use crate::supervisor::Supervisor;

/// A Redis that may be away.
#[derive(Debug)]
pub struct Link {
    connection: Arc<RedisConnection>,
    /// The reason why the process started without Redis.
    away: Option<LinkError>,
    _reconnecting: AbortOnDropHandle<()>,
}

impl Link {
    /// Connects. `probe` shows whether a new connection can be used, `up` shows whether Redis answers, and `supervisor`
    /// watches the task that opens the connection again.
    ///
    /// If `redis.on_failure` is `local`, an unreachable Redis is no error: the caller works without it until it is
    /// reachable. [`Self::log_if_away`] logs that.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if there is no usable Redis: a service whose limits cannot be counted should not start.
    pub async fn connect(
        settings: &RedisSettings,
        probe: Probe,
        up: IntGauge,
        supervisor: &Supervisor,
    ) -> Result<Self, LinkError> {
        let connection = Arc::new(RedisConnection::new(settings, probe, up)?);
        let away = match (connection.open().await, settings.on_failure) {
            (Err(error), OnFailure::Local) if error.is_outage() => Some(error),
            (opened, _) => {
                opened?;
                None
            }
        };
        // On shutdown the service need not wait for this task: it ends with the link.
        let keeping = supervisor.spawn("connection to Redis", Arc::clone(&connection).keep());
        Ok(Self { connection, away, _reconnecting: AbortOnDropHandle::new(keeping) })
    }

    /// Logs that Redis was away at the start, unless it has come back. This is separate from [`Self::connect`], because
    /// a start that waits for the database connects again and again.
    pub fn log_if_away(&self) {
        if let Some(error) = &self.away {
            self.connection.log_if_away(error);
        }
    }

    /// The handling of requests while Redis does not answer.
    pub fn on_failure(&self) -> OnFailure {
        self.connection.on_failure()
    }

    /// Runs a script; `None` while Redis is away. Takes `redis.timeout_ms` at most.
    pub async fn run<T: FromRedisValue>(&self, call: &ScriptCall<'_>) -> Option<T> {
        self.connection.run(call).await
    }
}

/// Connects once and returns the address; for `ocr-gateway check`.
///
/// # Errors
///
/// [`LinkError`] gives the reason and the remedy.
pub async fn check(settings: &RedisSettings, probe: Probe) -> Result<String, LinkError> {
    let unseen = IntGauge::new("unseen", "Not registered.");
    let unseen = unseen.map_err(|error| LinkError::Url(error.to_string()))?;
    let connection = RedisConnection::new(settings, probe, unseen)?;
    connection.open().await?;
    Ok(connection.address())
}
