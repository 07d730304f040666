//! The connection to Redis: whether it is there, and never a wait without a bound.
//!
//! All calls share one connection. A call waits at most `redis.timeout_ms`; the first that gets no
//! answer notes that Redis is away, and from then on every call is told so at once, until a task of
//! the link's own has got through again. So an outage costs those that were under way one timeout, and
//! nobody after them. It is logged where it begins and where it ends, by whoever makes the change.
//!
//! A connection that was merely closed (an idle one by a proxy, all of them by a restart) is not yet an
//! outage: it is opened again while the calls wait, within the same bound.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, Script};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout, timeout_at};

use super::bucket::Call;
use super::{OnFailure, RedisLimitsError};

/// How long opening a connection may take, TLS and a login included. No request waits for it longer
/// than for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The least time between two attempts to open a connection.
const CONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// A Redis and whether it answers.
pub(super) struct Link {
    client: Client,
    scripts: Scripts,
    timeout: Duration,
    on_failure: OnFailure,
    up: IntGauge,
    state: watch::Sender<State>,
}

/// The scripts that run in Redis.
pub(super) struct Scripts {
    /// Takes from a bucket and gives back.
    pub(super) bucket: Script,
    /// Reads and replaces a value.
    pub(super) cell: Script,
}

/// One thing that Redis is asked.
pub(super) trait Ask: Sync {
    /// What it says.
    type Answer: Send;

    /// Whether doing it twice does no harm.
    fn may_repeat(&self) -> bool;

    /// Asks, loading the script first where Redis does not know it.
    fn invoke(
        &self,
        scripts: &Scripts,
        connection: &mut MultiplexedConnection,
    ) -> impl Future<Output = RedisResult<Self::Answer>> + Send;
}

struct State {
    /// Counts the changes: what happened to a connection says nothing of those after it.
    epoch: u64,
    reach: Reach,
}

enum Reach {
    /// It answers here.
    Up(MultiplexedConnection),
    /// The connection was closed and is being opened again; calls wait for it.
    Reconnecting,
    /// It does not answer; calls do not wait.
    Down,
}

/// What kept a call from being answered.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl fmt::Debug for Link {
    /// Without the client, whose address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Link {
    /// Connects, and makes sure that the script runs and may write.
    ///
    /// # Errors
    ///
    /// [`RedisLimitsError::Unreachable`] where it does not.
    pub(super) async fn open(
        client: Client,
        timeout: Duration,
        on_failure: OnFailure,
        up: IntGauge,
    ) -> Result<Self, RedisLimitsError> {
        let (state, _) = watch::channel(State { epoch: 0, reach: Reach::Down });
        let scripts = Scripts {
            bucket: Script::new(include_str!("bucket.lua")),
            cell: Script::new(include_str!("cell.lua")),
        };
        let link = Self { client, scripts, timeout, on_failure, up, state };
        let connection = link.connect().await.map_err(|cause| RedisLimitsError::Unreachable {
            address: link.address(),
            cause: cause.to_string(),
        })?;
        link.state.send_modify(|state| state.reach = Reach::Up(connection));
        link.up.set(1);
        Ok(link)
    }

    /// Where the Redis is, without name or password.
    pub(super) fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    /// Asks; `None` where Redis is away.
    ///
    /// Takes at most the timeout. A call that was not answered may have been counted all the same, so
    /// one that would do harm twice is never sent again.
    pub(super) async fn ask<A: Ask>(&self, call: &A) -> Option<A::Answer> {
        let deadline = tokio::time::Instant::now() + self.timeout;
        let mut may_repeat = call.may_repeat();
        loop {
            let Ok(reached) = timeout_at(deadline, self.reached()).await else {
                self.give_up_reconnecting(&CallError::Timeout(self.timeout));
                return None;
            };
            let (epoch, mut connection) = reached?;
            let answer = call.invoke(&self.scripts, &mut connection);
            let error = match timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => CallError::Redis(error),
                Err(_elapsed) => CallError::Timeout(self.timeout),
            };
            if !matches!(&error, CallError::Redis(error) if error.is_connection_dropped()) {
                self.lose(epoch, &error);
                return None;
            }
            self.reconnect(epoch);
            if !may_repeat {
                return None;
            }
            may_repeat = false;
        }
    }

    /// Opens the connection again whenever there is none. Never ends.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut states = self.state.subscribe();
        let mut attempts = interval(CONNECT_INTERVAL);
        attempts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_missing = |state: &State| !matches!(state.reach, Reach::Up(_));
            if states.wait_for(is_missing).await.is_err() {
                return;
            }
            attempts.tick().await;
            match self.connect().await {
                Ok(connection) => self.restore(connection),
                Err(error) => self.give_up_reconnecting(&error),
            }
        }
    }

    /// A connection over which the script was run and could write: a replica that only reads, a user
    /// without the right and a full memory show here and not at the next request.
    async fn connect(&self) -> Result<MultiplexedConnection, CallError> {
        // Every wait has its bound here; the library's own would end others earlier.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let opening = async {
            let client = &self.client;
            let mut connection =
                client.get_multiplexed_async_connection_with_config(&config).await?;
            self.scripts.bucket.prepare_invoke().load_async(&mut connection).await?;
            Ok::<_, RedisError>(connection)
        };
        let opened = timeout(CONNECT_TIMEOUT, opening).await;
        let mut connection = opened.map_err(|_| CallError::Timeout(CONNECT_TIMEOUT))??;
        let probe = Call::probe();
        let probing = probe.invoke(&self.scripts, &mut connection);
        let probed = timeout(self.timeout, probing).await;
        probed.map_err(|_| CallError::Timeout(self.timeout))??;
        Ok(connection)
    }

    /// The connection and its epoch, once it is no longer being opened again.
    async fn reached(&self) -> Option<(u64, MultiplexedConnection)> {
        let mut states = self.state.subscribe();
        let is_settled = |state: &State| !matches!(state.reach, Reach::Reconnecting);
        let state = states.wait_for(is_settled).await.ok()?;
        match &state.reach {
            Reach::Up(connection) => Some((state.epoch, connection.clone())),
            Reach::Reconnecting | Reach::Down => None,
        }
    }

    /// Notes that the connection of this epoch was closed.
    fn reconnect(&self, epoch: u64) {
        self.change(Reach::Reconnecting, |state| state.epoch == epoch);
    }

    /// Notes that over the connection of this epoch no answer comes.
    fn lose(&self, epoch: u64, error: &CallError) {
        if self.change(Reach::Down, |state| state.epoch == epoch) {
            self.tell_away(error);
        }
    }

    /// Notes that a closed connection cannot be opened again.
    fn give_up_reconnecting(&self, error: &CallError) {
        if self.change(Reach::Down, |state| matches!(state.reach, Reach::Reconnecting)) {
            self.tell_away(error);
        }
    }

    /// Notes that Redis answers.
    fn restore(&self, connection: MultiplexedConnection) {
        let mut was_away = false;
        self.change(Reach::Up(connection), |state| {
            was_away = matches!(state.reach, Reach::Down);
            true
        });
        if was_away {
            self.up.set(1);
            tracing::info!(
                redis.address = self.address(),
                "Redis answers again: the replicas share their rate limits"
            );
        }
    }

    fn tell_away(&self, error: &CallError) {
        self.up.set(0);
        let consequence = match self.on_failure {
            OnFailure::Closed => "requests under a rate limit are refused",
            OnFailure::Local => "this replica counts rate limits by itself",
        };
        tracing::warn!(
            redis.address = self.address(),
            %error,
            "Redis does not answer: until it does, {consequence}"
        );
    }

    /// Changes the state if it still is as `is_expected`; whether it was.
    fn change(&self, reach: Reach, is_expected: impl FnOnce(&State) -> bool) -> bool {
        self.state.send_if_modified(|state| {
            let changes = is_expected(state);
            if changes {
                *state = State { epoch: state.epoch + 1, reach };
            }
            changes
        })
    }
}
