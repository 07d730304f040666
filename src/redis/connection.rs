//! The connection to Redis: every wait for it has a limit, and no call waits while Redis counts as away.
//!
//! All calls share one connection. A call waits at most `redis.timeout_ms`. A late answer is lost for its call and
//! predicts little about the next one: Redis may have saved its data, or run one slow command. Redis counts as away
//! after [`LATE_IN_A_ROW`] late answers without a timely one between them, and at once if it refuses a connection or a
//! command. From then on calls do not wait, until a task has connected again. So an outage costs timeouts only at its
//! beginning. The start and the end of an outage are logged.
//!
//! A connection that was merely closed (an idle one by a proxy, all of them by a restart) is no outage yet: it is
//! opened again while the calls wait, within the same limit.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use prometheus::IntGauge;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, RedisError};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::script::{Probe, ScriptCall};
use super::settings::{LinkError, OnFailure, RedisSettings};

/// How long opening a connection may take, TLS and a login included. A request waits for it no longer than for an
/// answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The least time between two attempts to open a connection.
const CONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// Late answers in a row after which Redis counts as away. Concurrent calls wait for the same event and count once.
const LATE_IN_A_ROW: u32 = 3;

/// A Redis, and whether it answers.
pub(super) struct RedisConnection {
    client: Client,
    probe: Probe,
    timeout: Duration,
    on_failure: OnFailure,
    up: IntGauge,
    state: watch::Sender<LinkState>,
    lateness: Mutex<Lateness>,
}

/// The number of late answers in a row.
#[derive(Debug, Default)]
struct Lateness {
    in_a_row: u32,
    /// The time at which the last of them was given up.
    noted_at: Option<Instant>,
}

impl Lateness {
    /// Records that a call of `asked_at` was given up at `now`. Returns whether Redis counts as away now.
    fn note(&mut self, asked_at: Instant, now: Instant) -> bool {
        if self.noted_at.is_some_and(|noted_at| asked_at < noted_at) {
            return false;
        }
        self.in_a_row += 1;
        self.noted_at = Some(now);
        self.in_a_row >= LATE_IN_A_ROW
    }
}

struct LinkState {
    /// Counts the changes: an event on one connection must not affect later ones.
    epoch: u64,
    reach: Reach,
}

enum Reach {
    /// Redis answers over this connection.
    Up(MultiplexedConnection),
    /// The connection was closed and is being opened again; calls wait for it.
    Reconnecting,
    /// Redis does not answer; calls do not wait.
    Down,
}

/// The reason why a call was not answered.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl CommandError {
    /// Whether the error may pass by itself. Some error codes of Redis, and a certificate that is not trusted, mean
    /// that its settings and ours do not match, which does not pass.
    fn is_outage(&self) -> bool {
        const FAULTS: [&str; 4] = ["ERR", "NOAUTH", "NOPERM", "WRONGPASS"];
        let Self::Redis(error) = self else { return true };
        match error.kind() {
            ErrorKind::Io => !is_invalid(error),
            ErrorKind::Extension | ErrorKind::Server(_) => {
                error.code().is_none_or(|code| !FAULTS.contains(&code))
            }
            _ => false,
        }
    }
}

/// Whether the received data is not as expected, such as an untrusted certificate or plain text instead of TLS.
fn is_invalid(error: &RedisError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

impl fmt::Debug for RedisConnection {
    /// Omits the client, whose address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl RedisConnection {
    /// A connection that is not opened yet.
    ///
    /// # Errors
    ///
    /// [`LinkError::Url`] if the address is invalid.
    pub(super) fn new(
        settings: &RedisSettings,
        probe: Probe,
        up: IntGauge,
    ) -> Result<Self, LinkError> {
        let (state, _) = watch::channel(LinkState { epoch: 0, reach: Reach::Down });
        Ok(Self {
            client: settings.client()?,
            probe,
            timeout: settings.timeout(),
            on_failure: settings.on_failure,
            up,
            state,
            lateness: Mutex::default(),
        })
    }

    /// Connects for the first time, and verifies that scripts run and may write.
    ///
    /// # Errors
    ///
    /// [`LinkError::Unreachable`] if they do not.
    pub(super) async fn open(&self) -> Result<(), LinkError> {
        let opened = self.connect().await;
        let connection = opened.map_err(|error| LinkError::Unreachable {
            address: self.address(),
            cause: error.to_string(),
            is_outage: error.is_outage(),
        })?;
        self.state.send_modify(|state| state.reach = Reach::Up(connection));
        self.up.set(1);
        Ok(())
    }

    pub(super) const fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// Logs that Redis is away from the start, if it still is.
    pub(super) fn log_if_away(&self, error: &LinkError) {
        // The borrow keeps the state from changing, so that the gauge is not set after a restoration.
        let state = self.state.borrow();
        if matches!(state.reach, Reach::Down) {
            self.log_away(error);
        }
    }

    /// The address of the Redis, without name or password.
    pub(super) fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    /// Runs a script; `None` while Redis is away.
    ///
    /// Takes at most the timeout. Redis may have counted a call that was not answered, so a call that must not run
    /// twice is never sent again.
    pub(super) async fn run<T: FromRedisValue>(&self, call: &ScriptCall<'_>) -> Option<T> {
        let asked_at = Instant::now();
        let deadline = asked_at + self.timeout;
        let mut may_repeat = call.may_repeat();
        loop {
            let Ok(reached) = timeout_at(deadline, self.reached()).await else {
                self.give_up_reconnecting(&CommandError::Timeout(self.timeout));
                return None;
            };
            let (epoch, mut connection) = reached?;
            let answer = call.run(&mut connection);
            let error = match timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => {
                    *self.lateness() = Lateness::default();
                    return Some(answer);
                }
                Ok(Err(error)) => CommandError::Redis(error),
                Err(_elapsed) => {
                    self.late(epoch, asked_at);
                    return None;
                }
            };
            if !matches!(&error, CommandError::Redis(error) if error.is_connection_dropped()) {
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

    /// Opens the connection again whenever it is closed. Never ends.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut states = self.state.subscribe();
        let mut attempts = interval(CONNECT_INTERVAL);
        attempts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_missing = |state: &LinkState| !matches!(state.reach, Reach::Up(_));
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

    /// A connection over which the script ran and wrote: a read-only replica, a user without the permission and a full
    /// memory show here and not at the next request.
    async fn connect(&self) -> Result<MultiplexedConnection, CommandError> {
        // Every wait has its limit here; the library's own limit would end calls earlier.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let probe = (self.probe)();
        let opening = async {
            let client = &self.client;
            let mut connection =
                client.get_multiplexed_async_connection_with_config(&config).await?;
            probe.load(&mut connection).await?;
            Ok::<_, RedisError>(connection)
        };
        let opened = timeout(CONNECT_TIMEOUT, opening).await;
        let mut connection = opened.map_err(|_| CommandError::Timeout(CONNECT_TIMEOUT))??;
        let probed = timeout(self.timeout, probe.run::<()>(&mut connection)).await;
        probed.map_err(|_| CommandError::Timeout(self.timeout))??;
        Ok(connection)
    }

    /// The connection and its epoch, once it is no longer being opened again.
    async fn reached(&self) -> Option<(u64, MultiplexedConnection)> {
        let mut states = self.state.subscribe();
        let is_settled = |state: &LinkState| !matches!(state.reach, Reach::Reconnecting);
        let state = states.wait_for(is_settled).await.ok()?;
        match &state.reach {
            Reach::Up(connection) => Some((state.epoch, connection.clone())),
            Reach::Reconnecting | Reach::Down => None,
        }
    }

    /// Records that the connection of this epoch was closed.
    fn reconnect(&self, epoch: u64) {
        self.change(Reach::Reconnecting, |state| state.epoch == epoch);
    }

    /// Records that a call of `asked_at` got no answer in time over the connection of this epoch.
    fn late(&self, epoch: u64, asked_at: Instant) {
        let is_away = self.lateness().note(asked_at, Instant::now());
        if is_away {
            self.lose(epoch, &CommandError::Timeout(self.timeout));
        }
    }

    fn lateness(&self) -> MutexGuard<'_, Lateness> {
        // After a panic elsewhere, at worst the number of late answers is wrong.
        self.lateness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the connection of this epoch gives no answer, or a refusal.
    fn lose(&self, epoch: u64, error: &CommandError) {
        if self.change(Reach::Down, |state| state.epoch == epoch) {
            self.log_away(error);
        }
    }

    /// Records that a closed connection cannot be opened again.
    fn give_up_reconnecting(&self, error: &CommandError) {
        if self.change(Reach::Down, |state| matches!(state.reach, Reach::Reconnecting)) {
            self.log_away(error);
        }
    }

    /// Records that Redis answers.
    fn restore(&self, connection: MultiplexedConnection) {
        *self.lateness() = Lateness::default();
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

    fn log_away(&self, error: &dyn Error) {
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

    /// Changes the state if `is_expected` accepts the current one. Returns whether it did.
    fn change(&self, reach: Reach, is_expected: impl FnOnce(&LinkState) -> bool) -> bool {
        self.state.send_if_modified(|state| {
            let changes = is_expected(state);
            if changes {
                *state = LinkState { epoch: state.epoch + 1, reach };
            }
            changes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_answers_in_a_row_make_redis_away_and_those_of_one_moment_are_one() {
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut lateness = Lateness::default();
        for asked_at in 0..100 {
            assert!(!lateness.note(after(asked_at), after(100)));
        }
        assert_eq!(lateness.in_a_row, 1);
        assert!(!lateness.note(after(100), after(200)));
        assert!(!lateness.note(after(199), after(299)));
        assert!(lateness.note(after(200), after(300)));
    }
}
