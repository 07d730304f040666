//! Scripts that Redis runs, each in one round trip and without another command in between.

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, ScriptInvocation, ToRedisArgs};

/// A Lua script.
#[derive(Debug)]
pub struct Script(redis::Script);

/// One run of a script on one key.
#[derive(Debug)]
pub struct ScriptCall<'a> {
    invocation: ScriptInvocation<'a>,
    may_repeat: bool,
}

/// A call that writes, with which the link tests a new connection.
pub type Probe = fn() -> ScriptCall<'static>;

impl Script {
    /// A script with this text.
    pub fn new(text: &str) -> Self {
        Self(redis::Script::new(text))
    }

    /// A run of the script on `key`.
    pub fn on(&self, key: &str) -> ScriptCall<'_> {
        ScriptCall { invocation: self.0.key(key), may_repeat: false }
    }
}

impl ScriptCall<'_> {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.invocation.arg(argument);
        self
    }

    /// Sends the call a second time if the connection closed before its answer came. Only for a call that Redis may run
    /// twice.
    #[must_use]
    pub const fn repeatable(mut self) -> Self {
        self.may_repeat = true;
        self
    }

    /// Whether the call may be sent twice.
    pub(super) const fn may_repeat(&self) -> bool {
        self.may_repeat
    }

    /// Loads the script into the server.
    pub(super) async fn load(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        self.invocation.load_async(connection).await.map(|_hash| ())
    }

    /// Runs the script, loading it first if Redis does not have it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<T> {
        self.invocation.invoke_async(connection).await
    }
}
