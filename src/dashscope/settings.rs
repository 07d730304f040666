//! The settings section `[upstream]`: endpoints, keys, timeouts, retries and queues.
//!
//! All defaults are in `config/default.toml`. [`UpstreamSettings::check`] refuses a value that is invalid or has no
//! effect, and names the setting. The loader of the settings reads the API key from its file; this module reads no
//! file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::protocol::Protocol;
use super::proxy::ProxyVariables;
use crate::catalog::Outlet;
use crate::{host, label};

/// The vendor ends a call after this time: `x-dashscope-timeout: 298` in its recorded answers.
const VENDOR_TIMEOUT_MS: u64 = 298_000;

/// The settings section `[upstream]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// The name of the endpoint in metrics and answers. Default `beijing`.
    pub name: String,
    /// The region whose prices apply. Default `beijing`.
    pub region: String,
    /// Scheme, host and port; a protocol's path after them is removed. Default `https://dashscope.aliyuncs.com`.
    pub base_url: String,
    /// The API key; only from the environment. To serve, this or `api_key_file` must be set.
    #[serde(default)]
    pub api_key: Option<SecretString>,
    /// A file that holds only the key.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// Several endpoints, in place of the single one of the settings above.
    #[serde(default)]
    pub endpoints: Vec<EndpointSettings>,
    /// The model of a request that names none. Default `qwen-vl-ocr-2025-11-20`.
    pub model: String,
    /// Milliseconds from the start of an attempt to the answer's headers. Default 200,000: an answer that is not
    /// streamed begins only when the last token is written.
    pub first_byte_timeout_ms: u64,
    /// Milliseconds between two pieces of the answer. Default 60,000.
    pub idle_timeout_ms: u64,
    /// Milliseconds of one attempt as a whole. Default 230,000; below the vendor's own 298,000, so that the gateway can
    /// tell which side ended the call.
    pub total_timeout_ms: u64,
    /// Milliseconds from the beginning of a stream to its end. Default 600,000: the vendor ends a call that is not
    /// streamed after five minutes and advises to stream longer answers.
    pub stream_timeout_ms: u64,
    /// The largest answer that is read, in bytes, and the largest event of a stream. Default 2 MiB.
    pub max_response_bytes: usize,
    /// Attempts of one call, the first included. Default 3.
    pub max_attempts: u32,
    /// The longest wait before the first retry, in milliseconds; doubles with each retry. Default 500.
    pub backoff_base_ms: u64,
    /// The longest wait before any retry, in milliseconds. Default 8,000.
    pub backoff_cap_ms: u64,
    /// Retries a second that are allowed even if there are few calls. Default 5.
    pub retry_budget_floor_per_second: u64,
    /// Milliseconds that a call may wait for a slot under the account's rate. Default 10,000.
    pub queue_timeout_ms: u64,
    /// Calls of one model that may wait for a slot. Default 1,000.
    pub queue_length: usize,
    /// Failures in a row at which an endpoint is no longer asked for a model. Default 5.
    pub breaker_failures: u32,
    /// Milliseconds until one call tries such an endpoint again. Default 1,000.
    pub breaker_cool_down_ms: u64,
    /// Milliseconds until one call tries a refused key again. Default 10,000.
    pub key_cool_down_ms: u64,
    /// The handling of unknown members of a drop-in request. Default `refuse`.
    pub unknown_members: UnknownMembers,
    /// The proxies from the environment.
    #[serde(skip)]
    pub proxies: ProxyVariables,
}

/// The handling of an unknown member of a drop-in request, at the top of a body and in `parameters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownMembers {
    /// Refuse the request.
    Refuse,
    /// Send the member unchanged.
    Pass,
}

/// One endpoint of several: a table of `[[upstream.endpoints]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSettings {
    /// The name in metrics and answers. Unique.
    pub name: String,
    /// The region of the endpoint. Decides which prices apply and which tenants may be served there.
    pub region: String,
    /// Scheme, host and port; a protocol's path after them is removed.
    pub base_url: String,
    /// The API key.
    #[serde(default)]
    pub api_key: Option<SecretString>,
    /// A file that holds only the key.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// The vendor's account of the key, if several endpoints share one: the vendor limits accounts and not keys, so
    /// they share their rates, too. Defaults to the endpoint's name.
    #[serde(default)]
    pub account: Option<String>,
    /// The share of the load, relative to the other endpoints. Default 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// Requests a minute of each model here; defaults to the model's own figure.
    #[serde(default)]
    pub rpm: Option<u64>,
    /// Tokens a minute of each model here; defaults to the model's own figure.
    #[serde(default)]
    pub tpm: Option<u64>,
    /// The models to call here; if empty, all that have a price in the region.
    #[serde(default)]
    pub models: Vec<String>,
    /// Rates of single models, in place of `rpm` and `tpm`.
    #[serde(default)]
    pub limits: BTreeMap<String, LimitSettings>,
}

const fn one() -> u32 {
    1
}

/// The account's rates of one model at one endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// Requests a minute.
    #[serde(default)]
    pub rpm: Option<u64>,
    /// Tokens a minute.
    #[serde(default)]
    pub tpm: Option<u64>,
}

/// An invalid setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("upstream.{key}: {why}")]
pub struct UpstreamSettingsError {
    /// The key within the section.
    pub key: String,
    /// The reason, and a valid value. Never the value of a secret.
    pub why: String,
}

/// A path without slashes at its end and without a protocol's part; none if such a part remains.
fn without_protocol(path: &str) -> Option<&str> {
    let path = path.trim_end_matches('/');
    let suffixes = [Protocol::Compatible, Protocol::Native]
        .map(Protocol::path)
        .into_iter()
        .chain(["/compatible-mode/v1", "/api/v1"]);
    let mut suffixes = suffixes.filter_map(|suffix| path.strip_suffix(suffix));
    let rest = suffixes.next().unwrap_or(path).trim_end_matches('/');
    let has_more =
        rest.contains("/compatible-mode") || rest.ends_with("/api") || rest.contains("/api/v1");
    (!has_more).then_some(rest)
}

fn wrong<T>(key: impl Into<String>, why: impl Into<String>) -> Result<T, UpstreamSettingsError> {
    Err(UpstreamSettingsError { key: key.into(), why: why.into() })
}

impl UpstreamSettings {
    /// The listed endpoints, or the single one of the section's own settings.
    pub fn pool(&self) -> Vec<EndpointSettings> {
        if !self.endpoints.is_empty() {
            return self.endpoints.clone();
        }
        vec![EndpointSettings {
            name: self.name.clone(),
            region: self.region.clone(),
            base_url: self.base_url.clone(),
            api_key: self.api_key.clone(),
            api_key_file: self.api_key_file.clone(),
            account: None,
            weight: 1,
            rpm: None,
            tpm: None,
            models: Vec::new(),
            limits: BTreeMap::new(),
        }]
    }

    /// The endpoints as outlets of the catalog.
    pub fn outlets(&self) -> Vec<Outlet> {
        let outlet = |settings: EndpointSettings| Outlet {
            endpoint: settings.name,
            region: settings.region,
            models: settings.models,
            limits: settings.limits.into_keys().collect(),
        };
        self.pool().into_iter().map(outlet).collect()
    }

    /// Checks all settings.
    ///
    /// # Errors
    ///
    /// [`UpstreamSettingsError`] names the first invalid key.
    pub fn check(&self) -> Result<(), UpstreamSettingsError> {
        let pool = self.pool();
        for (index, endpoint) in pool.iter().enumerate() {
            // The section's own settings describe a single endpoint.
            let at = |key: &str| {
                let alone = self.endpoints.is_empty();
                if alone { key.to_owned() } else { format!("endpoints[{index}].{key}") }
            };
            endpoint
                .check()
                .map_err(|error| UpstreamSettingsError { key: at(&error.key), ..error })?;
            let before = &pool[..index];
            if before.iter().any(|other| other.name == endpoint.name) {
                let why = format!("{:?} is the name of two endpoints", endpoint.name);
                return wrong(at("name"), why);
            }
            if let Some(other) = before.iter().find(|other| endpoint.contradicts(other)) {
                let why = format!(
                    "{:?} and {:?} share an account, but not its rates (rpm, tpm, limits)",
                    other.name, endpoint.name
                );
                return wrong(at("account"), why);
            }
        }
        self.check_timeouts()?;
        self.check_retries()
    }

    /// Warnings about settings that work but should be changed: secrets that are sent unencrypted, and addresses that
    /// cannot be DashScope's. Addresses of this machine draw no warnings.
    pub fn warnings(&self) -> Vec<String> {
        let of_endpoint = |(index, endpoint): (usize, EndpointSettings)| {
            let alone = self.endpoints.is_empty();
            let key =
                if alone { "base_url".to_owned() } else { format!("endpoints[{index}].base_url") };
            // The service does not start if an address cannot be parsed.
            let base = endpoint.base().ok()?;
            let of_way = self.proxies.way_to(&base).ok().and_then(|way| way.warning());
            Some(warnings_of(&key, &base).chain(of_way).collect::<Vec<_>>())
        };
        let mut warnings: Vec<_> =
            self.pool().into_iter().enumerate().filter_map(of_endpoint).flatten().collect();
        // Endpoints share their proxies.
        warnings.dedup();
        warnings
    }

    fn check_timeouts(&self) -> Result<(), UpstreamSettingsError> {
        let positive = [
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
        for (key, milliseconds) in &positive[..2] {
            if *milliseconds > self.total_timeout_ms {
                let why = format!(
                    "{milliseconds} cannot bind: total_timeout_ms is {}",
                    self.total_timeout_ms
                );
                return wrong(*key, why);
            }
        }
        Ok(())
    }

    fn check_retries(&self) -> Result<(), UpstreamSettingsError> {
        if self.max_attempts == 0 {
            return wrong("max_attempts", "is 0; 1 means no retry");
        }
        if self.max_response_bytes == 0 {
            return wrong("max_response_bytes", "is 0; no answer would be read");
        }
        if self.queue_length == 0 {
            return wrong("queue_length", "is 0; no call would get its turn");
        }
        if self.breaker_failures == 0 {
            return wrong("breaker_failures", "is 0; an endpoint would never be asked");
        }
        for (key, milliseconds) in [
            ("breaker_cool_down_ms", self.breaker_cool_down_ms),
            ("key_cool_down_ms", self.key_cool_down_ms),
        ] {
            if milliseconds == 0 {
                return wrong(key, "is 0; an endpoint in trouble would be asked by every call");
            }
        }
        let (base, cap) = (self.backoff_base_ms, self.backoff_cap_ms);
        if base > cap {
            return wrong(
                "backoff_base_ms",
                format!("{base} is above backoff_cap_ms, which is {cap}"),
            );
        }
        Ok(())
    }

    /// All times of the section in milliseconds, with their settings.
    pub const fn times(&self) -> [(&'static str, u64); 9] {
        [
            ("upstream.first_byte_timeout_ms", self.first_byte_timeout_ms),
            ("upstream.idle_timeout_ms", self.idle_timeout_ms),
            ("upstream.total_timeout_ms", self.total_timeout_ms),
            ("upstream.stream_timeout_ms", self.stream_timeout_ms),
            ("upstream.backoff_base_ms", self.backoff_base_ms),
            ("upstream.backoff_cap_ms", self.backoff_cap_ms),
            ("upstream.queue_timeout_ms", self.queue_timeout_ms),
            ("upstream.breaker_cool_down_ms", self.breaker_cool_down_ms),
            ("upstream.key_cool_down_ms", self.key_cool_down_ms),
        ]
    }

    pub(crate) const fn first_byte_timeout(&self) -> Duration {
        Duration::from_millis(self.first_byte_timeout_ms)
    }

    pub(crate) const fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    pub(crate) const fn total_timeout(&self) -> Duration {
        Duration::from_millis(self.total_timeout_ms)
    }

    pub(crate) const fn stream_timeout(&self) -> Duration {
        Duration::from_millis(self.stream_timeout_ms)
    }

    pub(crate) const fn cool_down(&self) -> Duration {
        Duration::from_millis(self.breaker_cool_down_ms)
    }

    pub(crate) const fn key_cool_down(&self) -> Duration {
        Duration::from_millis(self.key_cool_down_ms)
    }

    pub(crate) const fn queue_timeout(&self) -> Duration {
        Duration::from_millis(self.queue_timeout_ms)
    }
}

impl EndpointSettings {
    /// The account whose rates apply here.
    pub fn account(&self) -> &str {
        self.account.as_deref().unwrap_or(&self.name)
    }

    /// Whether `model` may be asked for here.
    pub fn serves(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|served| served == model)
    }

    /// Whether both have one account but different rates for it.
    fn contradicts(&self, other: &Self) -> bool {
        let rates = |endpoint: &Self| (endpoint.rpm, endpoint.tpm, endpoint.limits.clone());
        self.account() == other.account() && rates(self) != rates(other)
    }

    fn check(&self) -> Result<(), UpstreamSettingsError> {
        self.base()?;
        self.authorization()?;
        // These names label metrics, log lines and answers.
        let account = self.account.as_ref().map(|account| ("account", account));
        for (key, text) in
            [("name", &self.name), ("region", &self.region)].into_iter().chain(account)
        {
            if let Err(fault) = label::check(text) {
                return wrong(key, format!("{text:?} {fault}"));
            }
        }
        if self.weight == 0 {
            return wrong("weight", "is 0; to take an endpoint out, remove it");
        }
        let of_models = self.limits.values().flat_map(|limits| [limits.rpm, limits.tpm]);
        if [self.rpm, self.tpm].into_iter().chain(of_models).any(|rate| rate == Some(0)) {
            return wrong("rpm", "a rate of 0 a minute lets nothing pass (rpm, tpm, limits)");
        }
        Ok(())
    }

    /// The address of the endpoint without trailing slashes, and without the path of a protocol, which the vendor's
    /// pages show as part of the address.
    ///
    /// User names, queries and fragments are refused: they would become part of the path of every call, or send the key
    /// to a host that only looks like the intended one.
    ///
    /// # Errors
    ///
    /// The address is not plain `http` or `https`.
    pub(crate) fn base(&self) -> Result<reqwest::Url, UpstreamSettingsError> {
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
        let Some(path) = without_protocol(url.path()) else {
            let why = format!(
                "{:?} holds a part of a protocol's path; write what stands before /compatible-mode or /api",
                url.path()
            );
            return wrong("base_url", why);
        };
        let mut base = url.clone();
        base.set_path(path);
        Ok(base)
    }

    /// The value of the `Authorization` header, marked as a secret.
    ///
    /// # Errors
    ///
    /// If there is no key, or it cannot be a header's value.
    pub(crate) fn authorization(
        &self,
    ) -> Result<reqwest::header::HeaderValue, UpstreamSettingsError> {
        let key = self.api_key.as_ref().map_or("", |key| key.expose_secret().trim());
        if key.is_empty() {
            let why = format!(
                "is missing: set DASHSCOPE_API_KEY (for one of several endpoints {}) or api_key_file",
                self.key_variable()
            );
            return wrong("api_key", why);
        }
        let printable = key.bytes().all(|byte| byte.is_ascii_graphic());
        let value = reqwest::header::HeaderValue::from_str(&format!("Bearer {key}"));
        let (true, Ok(mut value)) = (printable, value) else {
            return wrong("api_key", "holds characters that no key has");
        };
        value.set_sensitive(true);
        Ok(value)
    }

    /// The environment variable with the key of one of several endpoints.
    pub fn key_variable(&self) -> String {
        let letter = |letter: char| {
            if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' }
        };
        format!("DASHSCOPE_API_KEY_{}", self.name.chars().map(letter).collect::<String>())
    }
}

/// The warnings about an endpoint at `base`, which setting `key` holds.
fn warnings_of(key: &str, base: &reqwest::Url) -> impl Iterator<Item = String> {
    let host = base.host_str().unwrap_or_default();
    let is_open = base.scheme() == "http" && !host::is_loopback(host);
    let open = is_open.then(|| {
        format!(
            "upstream.{key}: the key and all pictures go to {host} unencrypted, and whoever is on the \
             way can read them; write https://"
        )
    });
    let strange = host::is_link_local(host).then(|| {
        format!(
            "upstream.{key}: at {host} a machine finds its own cloud or link, not DashScope, and the \
             key is sent there"
        )
    });
    open.into_iter().chain(strange)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashscope::tests::settings;

    fn wrong_key(change: impl FnOnce(&mut UpstreamSettings)) -> String {
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
    fn the_path_of_a_protocol_is_taken_off_an_address() {
        for path in [
            "",
            "/",
            "/compatible-mode/v1",
            "/compatible-mode/v1//",
            "/compatible-mode/v1/chat/completions",
            "/api/v1/",
            "/api/v1/services/aigc/multimodal-generation/generation",
        ] {
            for (host, expected) in
                [("http://a", "http://a/"), ("http://a:1/b/c", "http://a:1/b/c")]
            {
                let one = settings(&format!("{host}{path}")).pool().remove(0);
                assert_eq!(one.base().unwrap().as_str(), expected, "{host}{path}");
            }
        }
    }

    #[test]
    fn an_address_with_a_part_of_a_protocol_s_path_is_refused() {
        for path in [
            "/compatible-mode",
            "/compatible-mode/v1/chat",
            "/compatible-mode/v1/compatible-mode/v1",
            "/api",
            "/api/v1/services",
            "/api/v1/compatible-mode/v1",
        ] {
            let address = format!("https://dashscope.aliyuncs.com{path}");
            assert_eq!(wrong_key(|settings| settings.base_url = address), "base_url", "{path}");
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
        assert_eq!(settings.pool()[0].authorization().unwrap(), "Bearer sk-1");
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
    }

    #[test]
    fn a_name_that_would_mislead_in_a_table_is_refused_by_name() {
        for name in ["", "=1+1", "a\u{202e}b", "two\nlines", "a\u{2028}b", &"x".repeat(101)] {
            assert_eq!(wrong_key(|settings| settings.name = name.to_owned()), "name", "{name:?}");
            assert_eq!(wrong_key(|settings| settings.region = name.to_owned()), "region");
            let of_account = |settings: &mut UpstreamSettings| {
                let mut one = settings.pool().remove(0);
                one.account = Some(name.to_owned());
                settings.endpoints = vec![one];
            };
            assert_eq!(wrong_key(of_account), "endpoints[0].account", "{name:?}");
        }
        let mut settings = settings("https://dashscope.aliyuncs.com");
        settings.name = "北京 1 (main)".to_owned();
        assert_eq!(settings.check(), Ok(()));
    }

    #[test]
    fn a_key_that_leaves_the_machine_unencrypted_draws_a_warning() {
        for (address, expected) in [
            ("https://dashscope.aliyuncs.com", 0),
            ("https://10.0.0.1", 0),
            ("http://localhost:1", 0),
            ("http://127.0.0.1:1", 0),
            ("http://127.1:1", 0),
            ("http://[::1]:1", 0),
            ("http://dashscope.aliyuncs.com", 1),
            ("HTTP://emulator:9100", 1),
            ("http://10.1.2.3", 1),
            ("http://192.168.0.1", 1),
            ("http://0.0.0.0:1", 1),
            ("http://[fd00::1]", 1),
            ("http://169.254.169.254", 2),
            ("http://[fe80::1]", 2),
            ("http://[::ffff:169.254.169.254]", 2),
            ("http://100.100.100.200", 2),
            ("https://169.254.169.254", 1),
        ] {
            let warnings = settings(address).warnings();
            assert_eq!(warnings.len(), expected, "{address}: {warnings:?}");
            assert!(warnings.iter().all(|text| text.starts_with("upstream.base_url: ")));
        }
    }

    #[test]
    fn each_endpoint_is_warned_of_by_its_place_and_a_proxy_once() {
        let mut settings = settings("https://dashscope.aliyuncs.com");
        let one = settings.pool().remove(0);
        let open = "http://dashscope-intl.aliyuncs.com".to_owned();
        let second = EndpointSettings { name: "b".into(), base_url: open, ..one.clone() };
        let third = EndpointSettings { name: "c".into(), ..one.clone() };
        settings.endpoints = vec![one, third, second];
        let proxy = ("HTTPS_PROXY".to_owned(), "http://user:secret@p:1".to_owned());
        settings.proxies = ProxyVariables::of(&[proxy].into());
        let warnings = settings.warnings();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("HTTPS_PROXY: "), "{warnings:?}");
        assert!(warnings[1].starts_with("upstream.endpoints[2].base_url: "), "{warnings:?}");
    }

    #[test]
    fn several_endpoints_are_checked_one_by_one_and_named_by_their_place() {
        let wrong = |change: fn(&mut Vec<EndpointSettings>)| {
            wrong_key(|settings| {
                let one = settings.pool().remove(0);
                settings.endpoints =
                    vec![one.clone(), EndpointSettings { name: "b".into(), ..one }];
                change(&mut settings.endpoints);
            })
        };
        assert_eq!(wrong(|all| all[1].name = all[0].name.clone()), "endpoints[1].name");
        assert_eq!(wrong(|all| all[1].base_url.clear()), "endpoints[1].base_url");
        assert_eq!(wrong(|all| all[1].api_key = None), "endpoints[1].api_key");
        assert_eq!(wrong(|all| all[0].weight = 0), "endpoints[0].weight");
        assert_eq!(wrong(|all| all[0].rpm = Some(0)), "endpoints[0].rpm");
        let differing = |all: &mut Vec<EndpointSettings>| {
            all[1].account = Some(all[0].name.clone());
            all[1].rpm = Some(9);
        };
        assert_eq!(wrong(differing), "endpoints[1].account");
    }

    #[test]
    fn the_key_of_an_endpoint_has_a_variable_of_its_own() {
        let one = settings("http://localhost").pool().remove(0);
        let named = EndpointSettings { name: "eu-1.b".to_owned(), ..one };
        assert_eq!(named.key_variable(), "DASHSCOPE_API_KEY_EU_1_B");
    }
}
