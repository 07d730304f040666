//! Small values that replicas change one after the other, kept in Redis.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use super::link::{Ask, Link, Scripts};
use crate::rate_limit::shared::SharedCells;

/// The values in one Redis.
#[derive(Debug)]
pub(super) struct RedisCells {
    pub(super) link: Arc<Link>,
}

/// Asks for a value and the time.
struct Read<'a> {
    key: &'a str,
}

/// Replaces a value that is known.
struct Replace<'a> {
    key: &'a str,
    old: &'a [u8],
    new: &'a [u8],
    keep: Duration,
}

impl Ask for Read<'_> {
    type Answer = (Vec<u8>, u64, u64);

    fn may_repeat(&self) -> bool {
        true
    }

    async fn invoke(
        &self,
        scripts: &Scripts,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Self::Answer> {
        scripts.cell.key(self.key).invoke_async(connection).await
    }
}

impl Ask for Replace<'_> {
    type Answer = bool;

    /// Repeated, it would find its own value and say that it was another's.
    fn may_repeat(&self) -> bool {
        false
    }

    async fn invoke(
        &self,
        scripts: &Scripts,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<bool> {
        let mut invocation = scripts.cell.key(self.key);
        let keep = u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX);
        invocation.arg(self.old).arg(self.new).arg(keep);
        invocation.invoke_async(connection).await
    }
}

impl SharedCells for RedisCells {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Option<(Vec<u8>, Duration)>> {
        Box::pin(async move {
            let (value, seconds, micros) = self.link.ask(&Read { key }).await?;
            let now = Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros));
            Some((value, now))
        })
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        old: &'a [u8],
        new: &'a [u8],
        keep: Duration,
    ) -> BoxFuture<'a, Option<bool>> {
        Box::pin(async move { self.link.ask(&Replace { key, old, new, keep }).await })
    }
}
