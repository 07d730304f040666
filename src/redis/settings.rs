//! The section `[redis]`.

use std::path::PathBuf;
use std::time::Duration;

use redis::{Client, ConnectionAddr};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::host::is_loopback;

/// The longest timeout that can be set, in milliseconds: every request waits for Redis.
const LONGEST_TIMEOUT_MS: u64 = 10_000;

/// The section `[redis]`. `config/default.toml` has the meaning and default of each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://`, `rediss://` or `redis+unix://`; empty: no Redis. May hold a password.
    pub url: SecretString,
    /// A file with the address, in place of `url`. The settings reader replaces it by its content.
    pub url_file: Option<PathBuf>,
    /// Longest wait for an answer.
    pub timeout_ms: u64,
    /// The handling of requests while Redis does not answer.
    pub on_failure: OnFailure,
}

/// The handling of requests under a rate limit while Redis does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum OnFailure {
    /// Refuse them.
    Closed,
    /// Count them in this process alone: each replica allows a whole quota.
    Local,
}

impl TryFrom<String> for OnFailure {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "closed" => Ok(Self::Closed),
            "local" => Ok(Self::Local),
            _ => Err(format!("{name:?} is neither \"closed\" nor \"local\"")),
        }
    }
}

/// A Redis that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address is invalid.
    #[error("redis.url: {0}; give redis://HOST:PORT, rediss://HOST:PORT or redis+unix:///SOCKET")]
    Url(String),
    /// The timeout is invalid.
    #[error("redis.timeout_ms: {0} is not between 1 and {LONGEST_TIMEOUT_MS}")]
    Timeout(u64),
    /// No usable server answers there.
    #[error(
        "redis.url: the Redis at {address} cannot be used: {cause}; start or mend it, or leave \
         redis.url empty to count rate limits in each process"
    )]
    Unreachable {
        /// The address.
        address: String,
        /// The error message.
        cause: String,
        /// Whether the error may pass by itself: no answer, or Redis accepts no commands now. A refused password does
        /// not pass.
        is_outage: bool,
    },
}

impl LinkError {
    /// Whether the error may pass by itself.
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { is_outage: true, .. })
    }
}

impl RedisSettings {
    /// Whether Redis is configured.
    pub fn is_configured(&self) -> bool {
        !self.url.expose_secret().is_empty()
    }

    /// Checks the values without connecting.
    ///
    /// # Errors
    ///
    /// [`LinkError`] names the invalid key.
    pub fn validate(&self) -> Result<(), LinkError> {
        if !(1..=LONGEST_TIMEOUT_MS).contains(&self.timeout_ms) {
            return Err(LinkError::Timeout(self.timeout_ms));
        }
        if self.is_configured() {
            self.client()?;
        }
        Ok(())
    }

    /// A warning if a password is sent unencrypted to another machine.
    pub fn warning(&self) -> Option<String> {
        let client = self.is_configured().then(|| self.client().ok())??;
        let information = client.get_connection_info();
        let ConnectionAddr::Tcp(host, _) = information.addr() else { return None };
        let is_open = information.redis_settings().password().is_some() && !is_loopback(host);
        is_open.then(|| {
            format!("redis.url: the password goes to {host} unencrypted; write rediss:// for TLS")
        })
    }

    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The library's messages do not repeat the address, so they contain no password.
    pub(super) fn client(&self) -> Result<Client, LinkError> {
        Client::open(self.url.expose_secret()).map_err(|error| LinkError::Url(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> RedisSettings {
        let url = url.into();
        RedisSettings { url, url_file: None, timeout_ms: 100, on_failure: OnFailure::Closed }
    }

    #[test]
    fn an_address_of_another_kind_is_refused_by_the_setting_s_name() {
        for url in ["localhost:6379", "http://localhost", "redis://:password@", "redis://h/x"] {
            let error = settings(url).validate().unwrap_err().to_string();
            assert!(error.starts_with("redis.url: "), "{error}");
            assert!(!error.contains("password"), "{error}");
        }
    }

    #[test]
    fn a_password_that_goes_to_another_machine_unencrypted_draws_a_warning_without_it() {
        for (url, is_warned) in [
            ("redis://:secret@redis", true),
            ("redis://user:secret@10.0.0.1:6379/2", true),
            ("rediss://user:secret@redis", false),
            ("redis://redis", false),
            ("redis://:secret@127.0.0.1", false),
            ("redis://:secret@[::1]:6379", false),
            ("redis+unix:///run/redis.sock?pass=secret", false),
            ("", false),
        ] {
            let warning = settings(url).warning();
            assert_eq!(warning.is_some(), is_warned, "{url}");
            assert!(!warning.unwrap_or_default().contains("secret"));
        }
    }

    #[test]
    fn addresses_with_and_without_tls_and_of_a_socket_are_taken() {
        for url in ["", "redis://h", "rediss://u:p@h:6380/2", "redis+unix:///run/redis.sock?db=1"] {
            assert!(settings(url).validate().is_ok(), "{url}");
        }
    }

    #[test]
    fn a_bound_that_is_none_is_refused() {
        for timeout_ms in [0, 10_001] {
            let error = RedisSettings { timeout_ms, ..settings("") }.validate().unwrap_err();
            assert!(error.to_string().starts_with("redis.timeout_ms: "), "{error}");
        }
    }
}
