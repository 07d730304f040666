//! The settings section `[upstream]`: which endpoint, whose key, and how patient to be with it.
//!
//! Every key has its default in `config/default.toml`, so there is none here.
//! [`UpstreamSettings::check`] refuses what could not work, or would not do what its name says, and
//! names the key. Reading the key from its file is left to the loader of the settings; this module
//! never touches the disk.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// What the vendor gives a call before it ends it: `x-dashscope-timeout: 298` in its recorded
/// answers.
const VENDOR_TIMEOUT_MS: u64 = 298_000;

/// The settings section `[upstream]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// What metrics and answers call the endpoint. Default `beijing`.
    pub name: String,
    /// The region whose prices apply. Default `beijing`.
    pub region: String,
    /// Scheme, host and port, without the protocol's path. Default
    /// `https://dashscope.aliyuncs.com`.
    pub base_url: String,
    /// The key; only from the environment. One of this and `api_key_file` must be there to serve.
    #[serde(default)]
    pub api_key: Option<SecretString>,
    /// A file that holds the key and nothing else.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// The model of a request that names none. Default `qwen-vl-ocr-2025-11-20`.
    pub model: String,
    /// Milliseconds to a connection, TLS included. Default 5,000.
    pub connect_timeout_ms: u64,
    /// Milliseconds from the start of an attempt to the answer's headers. Default 200,000: of an
    /// answer that is not streamed nothing comes before the last token is written.
    pub first_byte_timeout_ms: u64,
    /// Milliseconds between two pieces of the answer. Default 60,000.
    pub idle_timeout_ms: u64,
    /// Milliseconds of one attempt as a whole. Default 230,000; below the vendor's own 298,000, so
    /// that it is known here which side gave up.
    pub total_timeout_ms: u64,
    /// Milliseconds that a stream may take in all once it began. Default 600,000: the vendor ends a call
    /// that is not streamed after five minutes and advises to stream what takes longer.
    pub stream_timeout_ms: u64,
    /// The largest answer that is read, in bytes, and the largest event of a stream. Default 8 MiB.
    pub max_response_bytes: usize,
    /// Attempts of one call, the first included. Default 3.
    pub max_attempts: u32,
    /// Milliseconds that the wait before the first retry is drawn from; doubles each time. Default
    /// 500.
    pub backoff_base_ms: u64,
    /// The most milliseconds that such a wait is drawn from. Default 8,000.
    pub backoff_cap_ms: u64,
    /// Retries allowed for each hundred calls, over time. Default 20.
    pub retry_budget_percent: u64,
    /// Retries a second that are allowed however few calls there are. Default 5.
    pub retry_budget_floor_per_second: u64,
    /// Milliseconds that a call may wait for its turn under the account's rate. Default 10,000.
    pub queue_timeout_ms: u64,
    /// Calls of one model that may wait for their turn. Default 1,000.
    pub queue_length: usize,
    /// Idle connections that are kept. Default 64.
    pub pool_max_idle: usize,
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("upstream.{key}: {why}")]
pub struct SettingsError {
    /// The key within the section.
    pub key: &'static str,
    /// What is wrong and what would be right. Never the value of a secret.
    pub why: String,
}

fn wrong<T>(key: &'static str, why: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError { key, why: why.into() })
}

impl UpstreamSettings {
    /// Refuses what could not work.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] names the first key that is wrong.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.base()?;
        self.authorization()?;
        for (key, text) in [("name", &self.name), ("region", &self.region)] {
            if text.is_empty() {
                return wrong(key, "is empty; it labels metrics and picks prices");
            }
        }
        self.check_timeouts()?;
        self.check_retries()
    }

    /// The address of the endpoint without a slash at its end.
    ///
    /// User names, queries and fragments are refused: they would end up inside the path of every
    /// call, or send the key to a host that only looks like the one meant.
    ///
    /// # Errors
    ///
    /// When the address is not plain `http` or `https`.
    pub(super) fn base(&self) -> Result<reqwest::Url, SettingsError> {
        let url = match reqwest::Url::parse(&self.base_url) {
            Ok(url) => url,
            Err(error) => return wrong("base_url", format!("{:?}: {error}", self.base_url)),
        };
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return wrong("base_url", "must start with https:// or http:// and name a host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return wrong("base_url", "must not carry a user name; the key belongs in api_key");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return wrong("base_url", "must not carry a query or a fragment");
        }
        Ok(url)
    }

    /// The value of the `Authorization` header, marked as a secret.
    ///
    /// # Errors
    ///
    /// When there is no key, or it cannot be a header's value.
    pub(super) fn authorization(&self) -> Result<reqwest::header::HeaderValue, SettingsError> {
        let key = self.api_key.as_ref().map_or("", |key| key.expose_secret().trim());
        if key.is_empty() {
            return wrong("api_key", "is missing: set DASHSCOPE_API_KEY or upstream.api_key_file");
        }
        let printable = key.bytes().all(|byte| byte.is_ascii_graphic());
        let value = reqwest::header::HeaderValue::from_str(&format!("Bearer {key}"));
        let (true, Ok(mut value)) = (printable, value) else {
            return wrong("api_key", "holds characters that no key has");
        };
        value.set_sensitive(true);
        Ok(value)
    }

    fn check_timeouts(&self) -> Result<(), SettingsError> {
        let positive = [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("first_byte_timeout_ms", self.first_byte_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("total_timeout_ms", self.total_timeout_ms),
            ("stream_timeout_ms", self.stream_timeout_ms),
        ];
        for (key, milliseconds) in positive {
            if milliseconds == 0 {
                return wrong(key, "is 0, which no call can keep; write milliseconds");
            }
        }
        if self.total_timeout_ms >= VENDOR_TIMEOUT_MS {
            let why =
                format!("{} is not below the vendor's {VENDOR_TIMEOUT_MS}", self.total_timeout_ms);
            return wrong("total_timeout_ms", why);
        }
        for (key, milliseconds) in &positive[..3] {
            if *milliseconds > self.total_timeout_ms {
                let why = format!(
                    "{milliseconds} cannot bind: total_timeout_ms is {}",
                    self.total_timeout_ms
                );
                return wrong(key, why);
            }
        }
        Ok(())
    }

    fn check_retries(&self) -> Result<(), SettingsError> {
        if self.max_attempts == 0 {
            return wrong("max_attempts", "is 0; 1 means no retry");
        }
        if self.max_response_bytes == 0 {
            return wrong("max_response_bytes", "is 0; no answer would be read");
        }
        if self.queue_length == 0 {
            return wrong("queue_length", "is 0; no call would get its turn");
        }
        let (base, cap) = (self.backoff_base_ms, self.backoff_cap_ms);
        if base > cap {
            return wrong(
                "backoff_base_ms",
                format!("{base} is above backoff_cap_ms, which is {cap}"),
            );
        }
        if self.retry_budget_percent > 100 {
            return wrong("retry_budget_percent", "is above 100: retries would outnumber calls");
        }
        Ok(())
    }

    pub(super) const fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(super) const fn first_byte_timeout(&self) -> Duration {
        Duration::from_millis(self.first_byte_timeout_ms)
    }

    pub(super) const fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    pub(super) const fn total_timeout(&self) -> Duration {
        Duration::from_millis(self.total_timeout_ms)
    }

    pub(super) const fn stream_timeout(&self) -> Duration {
        Duration::from_millis(self.stream_timeout_ms)
    }

    pub(super) const fn queue_timeout(&self) -> Duration {
        Duration::from_millis(self.queue_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    fn wrong_key(change: impl FnOnce(&mut UpstreamSettings)) -> &'static str {
        let mut settings = settings("https://dashscope.aliyuncs.com");
        assert_eq!(settings.check(), Ok(()));
        change(&mut settings);
        settings.check().unwrap_err().key
    }

    #[test]
    fn an_address_that_could_lead_elsewhere_is_refused() {
        let addresses = [
            "",
            "dashscope",
            "ftp://a",
            "https://a@b",
            "https://:p@b",
            "https://a?b=c",
            "https://a#b",
        ];
        for address in addresses {
            assert_eq!(wrong_key(|settings| settings.base_url = address.to_owned()), "base_url");
        }
    }

    #[test]
    fn a_missing_or_impossible_key_is_refused_and_not_shown() {
        for key in [None, Some(" "), Some("sk-a b"), Some("sk-\u{e9}")] {
            let mut settings = settings("http://localhost");
            settings.api_key = key.map(SecretString::from);
            let error = settings.check().unwrap_err();
            assert_eq!(error.key, "api_key");
            assert!(!error.to_string().contains("sk-"));
        }
    }

    #[test]
    fn a_key_from_a_file_may_end_in_a_line_break() {
        let mut settings = settings("http://localhost");
        settings.api_key = Some("sk-1\n".into());
        assert_eq!(settings.authorization().unwrap(), "Bearer sk-1");
    }

    #[test]
    fn a_limit_that_cannot_bind_is_refused_by_name() {
        assert_eq!(wrong_key(|settings| settings.total_timeout_ms = 298_000), "total_timeout_ms");
        assert_eq!(wrong_key(|settings| settings.idle_timeout_ms = 0), "idle_timeout_ms");
        assert_eq!(
            wrong_key(|settings| settings.first_byte_timeout_ms = settings.total_timeout_ms + 1),
            "first_byte_timeout_ms"
        );
        assert_eq!(wrong_key(|settings| settings.max_attempts = 0), "max_attempts");
        assert_eq!(wrong_key(|settings| settings.queue_length = 0), "queue_length");
        assert_eq!(wrong_key(|settings| settings.backoff_cap_ms = 0), "backoff_base_ms");
        assert_eq!(wrong_key(|settings| settings.name.clear()), "name");
    }
}
