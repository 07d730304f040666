//! Entries in the Redis that all replicas share, and the leases of those that are being made.
//!
//! The key of an entry in Redis holds either the sealed entry or the lease of the replica that works on it. So one
//! script call finds an entry or takes the lease. A lease ends by itself soon after its holder has died. Both expire in
//! Redis, so nothing is left there.
//!
//! No call waits longer than `redis.timeout_ms`, and none waits while Redis is away: the caller then works without it.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;

use super::key::EntryKey;
use super::seal::Sealer;
use crate::random::Random;
use crate::redis::link::Link;
use crate::redis::script::{Script, ScriptCall};

/// Finds, stores and leases.
static ENTRY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("entry.lua")));

/// How long a lease lasts without being renewed. If its holder dies, others wait this long.
const LEASE: Duration = Duration::from_secs(5);

/// How often a lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// The longest sealed entry in bytes. A longer one would hold up the rate limits, which use the same connection.
const LONGEST: usize = 1024 * 1024;

/// Entries and leases in Redis.
#[derive(Debug)]
pub(super) struct SharedEntries {
    link: Arc<Link>,
    sealer: Sealer,
    random: Arc<dyn Random>,
}

/// The right to make an entry, among the replicas. It expires unless it is renewed.
#[derive(Debug, Clone)]
pub struct Lease {
    name: Arc<str>,
    token: [u8; 16],
}

/// The answer to a claim.
#[derive(Debug)]
pub(super) enum Claim {
    /// There is an entry.
    Entry(Bytes),
    /// The caller is to make it.
    Granted(Lease),
    /// Another replica makes it.
    Held,
    /// Redis does not answer.
    Away,
}

impl SharedEntries {
    pub(super) fn new(link: Arc<Link>, sealer: Sealer, random: Arc<dyn Random>) -> Self {
        Self { link, sealer, random }
    }

    /// A lease of this caller that is not granted yet.
    pub(super) fn lease(&self, key: &EntryKey) -> Lease {
        let mut token = [0; 16];
        self.random.fill(&mut token);
        Lease { name: name_of(key).into(), token }
    }

    /// Finds an entry, or else takes the lease.
    pub(super) async fn claim(&self, key: &EntryKey, lease: &Lease) -> Claim {
        let claim = ENTRY.on(&lease.name).arg("claim").arg(&lease.token).arg(millis(LEASE));
        match self.run(claim).await {
            None => Claim::Away,
            Some((kind, sealed)) if kind == b"E" => match self.sealer.open(key, &sealed) {
                Some(entry) => Claim::Entry(entry.into()),
                // It was damaged. The caller makes the entry anew and replaces it.
                None => Claim::Granted(lease.clone()),
            },
            Some((kind, _)) if kind == b"L" => Claim::Held,
            Some(_) => Claim::Granted(lease.clone()),
        }
    }

    /// Renews a lease until this is dropped. Never ends.
    pub(super) async fn keep(&self, lease: &Lease) -> Infallible {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let renew = ENTRY.on(&lease.name).arg("renew").arg(&lease.token).arg(millis(LEASE));
            let _ = self.run(renew).await;
        }
    }

    /// Gives up a lease, if it is still held.
    pub(super) async fn release(&self, lease: &Lease) {
        let release = ENTRY.on(&lease.name).arg("release").arg(&lease.token);
        let _ = self.run(release).await;
    }

    /// Stores an entry for the time `ttl`, in place of any lease. Returns whether it did.
    pub(super) async fn store(&self, key: &EntryKey, entry: &[u8], ttl: Duration) -> bool {
        let sealed = self.sealer.seal(key, entry, &*self.random);
        let Some(sealed) = sealed.filter(|sealed| sealed.len() <= LONGEST) else { return false };
        let name = name_of(key);
        let store = ENTRY.on(&name).arg("store").arg(&sealed[..]).arg(millis(ttl));
        self.run(store).await.is_some()
    }

    /// Runs the script. Each of its calls may be sent twice.
    async fn run(&self, call: ScriptCall<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
        self.link.run(&call.repeatable()).await
    }
}

fn name_of(key: &EntryKey) -> String {
    format!("ocr-gateway:result:1:{key}")
}

/// Redis takes no time of zero.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
