//! The configuration: compiled-in defaults, then files, then the environment.
//!
//! `config/default.toml` is the only place of defaults, so the file that documents a setting also sets it. Each module
//! owns the section it reads; this module finds the sources and merges them. An unknown key or an invalid value is an
//! error that names the key: a limit without effect is worse than a service that does not start.

mod discreet;
pub mod template_folder;
mod trusted_file;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::builder::DefaultState;
use config::{Config, ConfigBuilder, ConfigError, Environment, File, FileFormat};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::auth::directory::TenantSection;
use crate::auth::tenant::TenantName;
use crate::capacity::{Ceiling, Wanted};
use crate::catalog::{MistralSettings, ModelSettings};
use crate::dashscope::proxy::ProxyVariables;
use crate::dashscope::settings::UpstreamSettings;
use crate::document::settings::{DocumentSettings, DocumentSettingsError};
use crate::ledger::settings::LedgerSettings;
use crate::ocr::fingerprint::{self, Digest};
use crate::quote::auto::{InvalidHeight, LegibleHeights};
use crate::redis::settings::{LinkError, RedisSettings};
use crate::result_cache::settings::{CacheSettings, StorageSettings};
use crate::store;
use crate::telemetry::logging::{self, LogSettings};
use crate::telemetry::metrics::MetricsSettings;

use self::template_folder::TemplateSettings;
use self::trusted_file::Others;

/// The defaults.
const DEFAULTS: &str = include_str!("../config/default.toml");

/// The prefix of our environment variables.
const ENVIRONMENT_PREFIX: &str = "OCR_GATEWAY";

/// The largest upload limit in bytes. Memory would run out before a larger limit takes effect.
const LARGEST_BODY: u64 = 1 << 30;

/// The largest limit of connections or requests at once: more than a machine has ports.
const MOST_AT_ONCE: u64 = 1_000_000;

/// The longest time that can be set, in milliseconds: a day, which no request takes. The sum of the clock and a larger
/// time could overflow.
const LONGEST_TIME_MS: u64 = 24 * 60 * 60 * 1000;

/// The shortest time limit of requests, in milliseconds. With less, too little time is left after an upload to call the
/// upstream.
const SHORTEST_REQUEST_MS: u64 = 1_000;

/// The longest retention that can be set, in days. A longer one could begin before the calendar.
const LONGEST_RETENTION_DAYS: u32 = 36_500;

/// The shortest lease in milliseconds. With a shorter one, a pause of the machine would look like a crash.
const SHORTEST_LEASE_MS: u64 = 300;

/// The sections that cannot change what a page is answered with: a request names the model, the schema and what the
/// tenant may ask for by itself. A section that is not here may change it.
const WITHOUT_EFFECT_ON_ANSWERS: [&str; 12] = [
    "server",
    "database",
    "redis",
    "ledger",
    "upstream",
    "log",
    "metrics",
    "tenants",
    "templates",
    "mistral",
    "cache",
    "storage",
];

/// The variable from which the vendor's own tools read the key.
const VENDOR_KEY_VARIABLE: &str = "DASHSCOPE_API_KEY";

/// All settings of one process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Listeners, bodies, limits of one request.
    pub server: ServerSettings,
    /// The database of tenants, keys and the ledger.
    pub database: DatabaseSettings,
    /// The Redis in which replicas share their rate limits.
    pub redis: RedisSettings,
    /// How the ledger counts, and for how long it keeps entries.
    pub ledger: LedgerSettings,
    /// What is kept for equal requests.
    pub cache: CacheSettings,
    /// How what is stored outside the process is encrypted.
    pub storage: StorageSettings,
    /// How documents are read.
    pub documents: DocumentSettings,
    /// How the pixels of a page are chosen.
    pub auto: LegibleHeights,
    /// DashScope.
    pub upstream: UpstreamSettings,
    /// Log lines.
    pub log: LogSettings,
    /// Metrics.
    pub metrics: MetricsSettings,
    /// Tenants kept in files, by name.
    #[serde(default)]
    pub tenants: BTreeMap<TenantName, TenantSection>,
    /// The operator's templates.
    pub templates: TemplateSettings,
    /// Mistral's OCR API.
    pub mistral: MistralSettings,
    /// Prices and limits of each model, by name.
    pub models: BTreeMap<String, ModelSettings>,
    /// Warnings about the files that the settings come from.
    #[serde(skip)]
    file_warnings: Vec<String>,
    /// Changes with each setting that may change an answer.
    #[serde(skip)]
    pub answer_digest: Digest,
}

/// The section `[server]`. `config/default.toml` has the meaning and default of each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Address of the public API.
    pub listen: SocketAddr,
    /// Address of metrics and health.
    pub metrics_listen: SocketAddr,
    /// Upload limit in bytes.
    pub max_body_bytes: u64,
    /// Longest time in which a client neither sends its body nor reads its answer.
    pub idle_timeout_ms: u64,
    /// Longest time for a request's headers, and for the next request on an open connection.
    pub keep_alive_timeout_ms: u64,
    /// Longest upload.
    pub body_timeout_ms: u64,
    /// Longest request.
    pub request_timeout_ms: u64,
    /// Longest silence within a streamed answer.
    pub stream_keep_alive_ms: u64,
    /// Bytes of uploads held in memory at once.
    pub max_in_flight_bytes: Ceiling,
    /// Requests processed at once.
    pub max_in_flight_requests: Ceiling,
    /// Open connections.
    pub max_connections: Ceiling,
    /// One tenant's largest share of the bytes and requests in flight, in percent.
    pub tenant_share_percent: u8,
    /// How long a stopping replica still accepts requests.
    pub drain_grace_ms: u64,
    /// Longest wait of a stop for requests in flight.
    pub drain_timeout_ms: u64,
}

impl ServerSettings {
    /// Longest time in which a client neither sends its body nor reads its answer.
    pub const fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    /// Longest time for a request's headers, and for the next request on an open connection.
    pub const fn keep_alive_timeout(&self) -> Duration {
        Duration::from_millis(self.keep_alive_timeout_ms)
    }

    /// See [`stream_keep_alive_ms`](Self::stream_keep_alive_ms).
    pub const fn stream_keep_alive(&self) -> Duration {
        Duration::from_millis(self.stream_keep_alive_ms)
    }

    /// Longest upload.
    pub const fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    /// Longest request.
    pub const fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// How long a stopping replica still accepts requests.
    pub const fn drain_grace(&self) -> Duration {
        Duration::from_millis(self.drain_grace_ms)
    }

    /// Longest wait of a stop for requests in flight.
    pub const fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    /// A warning if a stop does not wait for the longest request.
    fn drain_warning(&self) -> Option<String> {
        let (drain, request) = (self.drain_timeout_ms, self.request_timeout_ms);
        (drain < request).then(|| {
            format!(
                "server.drain_timeout_ms: {drain} is below server.request_timeout_ms ({request}): a stop cuts \
                 off pages that take longer, which are paid for and lost"
            )
        })
    }
}

/// The section `[database]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `sqlite://…` or `postgres://…`. May hold a password.
    pub url: SecretString,
    /// A file with the address, in place of `url`.
    pub url_file: Option<PathBuf>,
    /// Whether `serve` applies missing migrations.
    pub migrate: bool,
    /// The most connections.
    pub max_connections: NonZeroU32,
}

/// Invalid settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A key is unknown or its value has the wrong type.
    #[error("{key}: {cause}")]
    Key {
        /// The key as a path, `server.listen`.
        key: String,
        /// The fault.
        cause: String,
    },
    /// The section `[redis]` is invalid.
    #[error(transparent)]
    Redis(#[from] LinkError),
    /// The section `[auto]` is invalid.
    #[error(transparent)]
    Auto(#[from] InvalidHeight),
    /// The section `[documents]` is invalid.
    #[error(transparent)]
    Documents(#[from] DocumentSettingsError),
    /// A source cannot be read. The cause is a text, because the error of the parser quotes its input.
    #[error("{0}")]
    Source(String),
    /// A file named by a setting cannot be read.
    #[error("{key}: cannot read {}: {cause}", path.display())]
    File {
        /// The key of the setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: std::io::Error,
    },
}

impl From<ConfigError> for SettingsError {
    fn from(error: ConfigError) -> Self {
        Self::Source(discreet::told(&error))
    }
}

impl Settings {
    /// Reads the defaults, then `files` in their order, then this process's environment. Later values take precedence.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] names the key and its fault.
    pub fn load(files: &[&Path]) -> Result<Self, SettingsError> {
        Self::load_with(files.iter().copied(), unicode_environment())
    }

    /// Reads the defaults, then `files` in their order, then the given environment.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn load_with<'a>(
        files: impl IntoIterator<Item = &'a Path>,
        environment: HashMap<String, String>,
    ) -> Result<Self, SettingsError> {
        let proxies = ProxyVariables::of(&environment);
        let vendor_keys: HashMap<_, _> = environment
            .iter()
            .filter(|(name, _)| name.starts_with(VENDOR_KEY_VARIABLE))
            .map(|(name, key)| (name.clone(), SecretString::from(key.as_str())))
            .collect();
        let files: Vec<_> = files.into_iter().collect();
        let given = given(&files, environment).build()?;
        let all = over_defaults(given.clone())?;
        let answer_digest = answer_digest(all.clone())?;
        let mut settings: Self = serde_path_to_error::deserialize(all)
            .map_err(|error| key_error(error.path().to_string(), error.inner()))?;
        settings.answer_digest = answer_digest;
        settings.upstream.proxies = proxies;
        let warnings = files.iter().filter_map(|path| trusted_file::warning(path, Others::World));
        settings.file_warnings.extend(warnings);
        settings.resolve_upstream_keys(&vendor_keys)?;
        settings.resolve_addresses(&given)?;
        settings.resolve_encryption_key()?;
        settings.validate()?;
        Ok(settings)
    }

    /// The log settings for reporting that the settings are invalid: the section `[log]` if it is valid, or else the
    /// defaults.
    pub fn log_of_faulty(files: &[&Path]) -> LogSettings {
        let environment = unicode_environment();
        let sources = [given(files, environment.clone()), given(&[], environment)];
        let read = sources.into_iter().filter_map(|given| {
            let log = over_defaults(given.build().ok()?).ok()?.get::<LogSettings>("log").ok()?;
            logging::check(&log).is_ok().then_some(log)
        });
        read.chain([LogSettings::default()]).next().unwrap_or_default()
    }

    /// The configured limits of the work in flight.
    pub const fn wanted_capacity(&self) -> Wanted {
        Wanted {
            bytes: self.server.max_in_flight_bytes,
            requests: self.server.max_in_flight_requests,
            connections: self.server.max_connections,
            body_bytes: self.server.max_body_bytes,
            share_percent: self.server.tenant_share_percent,
            cache_bytes: self.cache.memory_bytes,
        }
    }

    /// Reads the key that encrypts what is stored outside the process from its file.
    fn resolve_encryption_key(&mut self) -> Result<(), SettingsError> {
        let (storage, warnings) = (&mut self.storage, &mut self.file_warnings);
        let file = storage.encryption_key_file.as_deref();
        let (file_key, no_variable) = ("storage.encryption_key_file", || None);
        resolve_key(&mut storage.encryption_key, file, file_key, no_variable, warnings)?;
        let checked = storage.key().map(|_| ());
        checked.map_err(|error| wrong("storage.encryption_key", &error.to_string()))
    }

    /// Reads the addresses of the database and of Redis from their files.
    fn resolve_addresses(&mut self, given: &Config) -> Result<(), SettingsError> {
        let warnings = &mut self.file_warnings;
        let (url, file) = (&mut self.database.url, self.database.url_file.as_deref());
        resolve_address(url, file, ["database.url", "database.url_file"], given, warnings)?;
        let (url, file) = (&mut self.redis.url, self.redis.url_file.as_deref());
        resolve_address(url, file, ["redis.url", "redis.url_file"], given, warnings)
    }

    /// Finds the upstream's keys. The sources of each, in order: our variable or the settings, a file, the variable of
    /// the vendor's own tools. For one of several endpoints that variable ends in the endpoint's name.
    fn resolve_upstream_keys(
        &mut self,
        vendor_keys: &HashMap<String, SecretString>,
    ) -> Result<(), SettingsError> {
        let (upstream, warnings) = (&mut self.upstream, &mut self.file_warnings);
        let vendor = || vendor_keys.get(VENDOR_KEY_VARIABLE).cloned();
        let key = "upstream.api_key_file";
        resolve_key(
            &mut upstream.api_key,
            upstream.api_key_file.as_deref(),
            key,
            vendor,
            warnings,
        )?;
        for endpoint in &mut upstream.endpoints {
            let variable = endpoint.key_variable();
            let own = || vendor_keys.get(&variable).cloned();
            let key = "upstream.endpoints.api_key_file";
            resolve_key(
                &mut endpoint.api_key,
                endpoint.api_key_file.as_deref(),
                key,
                own,
                warnings,
            )?;
        }
        Ok(())
    }

    /// Warnings for the operator about settings that work but should be corrected: files that others can write, secrets
    /// that leave this machine unencrypted, and stops that cut off pages.
    pub fn warnings(&self) -> Vec<String> {
        let url = self.database.url.expose_secret();
        let of_file = store::file(url).and_then(|file| trusted_file::warning(&file, Others::World));
        let of_file = of_file.map(|text| format!("database.url: {text}"));
        let files = self.file_warnings.iter().cloned().chain(of_file);
        let network = store::warning(url).into_iter().chain(self.redis.warning());
        let stop = self.server.drain_warning();
        files.chain(self.upstream.warnings()).chain(network).chain(stop).collect()
    }

    /// Checks all sections but the upstream's. The upstream's is checked when a client is made, because commands that
    /// only use the database or a file need no key.
    fn validate(&self) -> Result<(), SettingsError> {
        let positive = [
            ("server.max_body_bytes", self.server.max_body_bytes),
            ("server.idle_timeout_ms", self.server.idle_timeout_ms),
            ("server.keep_alive_timeout_ms", self.server.keep_alive_timeout_ms),
            ("server.body_timeout_ms", self.server.body_timeout_ms),
            ("server.request_timeout_ms", self.server.request_timeout_ms),
            ("server.stream_keep_alive_ms", self.server.stream_keep_alive_ms),
            ("ledger.retention_days", self.ledger.retention_days.into()),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(wrong(key, "must be above 0"));
            }
        }
        self.validate_longest()?;
        if self.ledger.lease_ms < SHORTEST_LEASE_MS {
            let why = format!("{} is below {SHORTEST_LEASE_MS}", self.ledger.lease_ms);
            return Err(wrong("ledger.lease_ms", &why));
        }
        self.validate_bounds()?;
        self.redis.validate()?;
        self.documents.validate()?;
        self.auto.validate()?;
        for (name, section) in &self.tenants {
            let key = format!("tenants.{name}");
            section.tenant(name.clone()).map_err(|error| wrong(&key, &error.to_string()))?;
        }
        logging::check(&self.log).map_err(|error| wrong("log.filter", &error.to_string()))
    }

    /// Refuses times whose sums could overflow.
    fn validate_longest(&self) -> Result<(), SettingsError> {
        let server = &self.server;
        let times = [
            ("server.idle_timeout_ms", server.idle_timeout_ms),
            ("server.keep_alive_timeout_ms", server.keep_alive_timeout_ms),
            ("server.body_timeout_ms", server.body_timeout_ms),
            ("server.request_timeout_ms", server.request_timeout_ms),
            ("server.stream_keep_alive_ms", server.stream_keep_alive_ms),
            ("server.drain_grace_ms", server.drain_grace_ms),
            ("server.drain_timeout_ms", server.drain_timeout_ms),
            ("redis.timeout_ms", self.redis.timeout_ms),
            ("ledger.lease_ms", self.ledger.lease_ms),
            ("documents.page_timeout_ms", self.documents.page_timeout_ms),
        ];
        for (key, milliseconds) in times.into_iter().chain(self.upstream.times()) {
            if milliseconds > LONGEST_TIME_MS {
                let why = format!("{milliseconds} is above {LONGEST_TIME_MS} (a day)");
                return Err(wrong(key, &why));
            }
        }
        if self.ledger.retention_days > LONGEST_RETENTION_DAYS {
            let days = self.ledger.retention_days;
            let why = format!("{days} is above {LONGEST_RETENTION_DAYS} (a hundred years)");
            return Err(wrong("ledger.retention_days", &why));
        }
        Ok(())
    }

    /// Refuses limits that can never take effect because of another limit.
    fn validate_bounds(&self) -> Result<(), SettingsError> {
        let server = &self.server;
        if server.max_body_bytes > LARGEST_BODY {
            let why = format!("{} is above {LARGEST_BODY} (1 GiB)", self.server.max_body_bytes);
            return Err(wrong("server.max_body_bytes", &why));
        }
        if self.server.listen == self.server.metrics_listen && self.server.listen.port() != 0 {
            return Err(wrong("server.metrics_listen", "must differ from server.listen"));
        }
        for (key, ceiling) in [
            ("server.max_connections", server.max_connections),
            ("server.max_in_flight_requests", server.max_in_flight_requests),
        ] {
            if let Ceiling::Fixed(number @ MOST_AT_ONCE..) = ceiling {
                return Err(wrong(key, &format!("{number} is not below {MOST_AT_ONCE}")));
            }
        }
        let percent = server.tenant_share_percent;
        if !(1..=100).contains(&percent) {
            let why = format!("{percent} is not between 1 and 100");
            return Err(wrong("server.tenant_share_percent", &why));
        }
        if server.request_timeout_ms < SHORTEST_REQUEST_MS {
            let why = format!(
                "{} is below {SHORTEST_REQUEST_MS}: no request could be answered in time",
                server.request_timeout_ms
            );
            return Err(wrong("server.request_timeout_ms", &why));
        }
        if server.body_timeout_ms > server.request_timeout_ms {
            let why = "is above server.request_timeout_ms, which would bind first";
            return Err(wrong("server.body_timeout_ms", why));
        }
        Ok(())
    }
}

/// The variables of this process. Variables of other programs that are not Unicode are skipped.
fn unicode_environment() -> HashMap<String, String> {
    let unicode = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        let value = match value.into_string() {
            Ok(value) => value,
            // Kept, so that it is reported as unreadable.
            Err(value) if ProxyVariables::is_one(&name) => value.to_string_lossy().into_owned(),
            Err(_) => return None,
        };
        Some((name, value))
    });
    unicode.collect()
}

/// The operator's settings: `files` in their order, then the environment.
fn given(files: &[&Path], environment: HashMap<String, String>) -> ConfigBuilder<DefaultState> {
    let mut sources = Config::builder();
    for path in files {
        sources = sources.add_source(File::from(*path).format(FileFormat::Toml));
    }
    let variables = Environment::with_prefix(ENVIRONMENT_PREFIX)
        .prefix_separator("__")
        .separator("__")
        .source(Some(environment));
    sources.add_source(variables)
}

/// The given settings over the defaults.
fn over_defaults(given: Config) -> Result<Config, ConfigError> {
    Config::builder()
        .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
        .add_source(given)
        .build()
}

/// The digest of the settings that may change an answer. A value from a file and the same one from the environment may
/// differ here: then an answer is merely not found.
fn answer_digest(all: Config) -> Result<Digest, ConfigError> {
    let mut sections: serde_json::Value = all.try_deserialize()?;
    if let Some(sections) = sections.as_object_mut() {
        sections.retain(|name, _| !WITHOUT_EFFECT_ON_ANSWERS.contains(&name.as_str()));
    }
    sections.sort_all_objects();
    Ok(fingerprint::sha256(sections.to_string().as_bytes()))
}

/// Reads an address from `path`, if that is set.
fn resolve_address(
    url: &mut SecretString,
    path: Option<&Path>,
    [url_key, file_key]: [&'static str; 2],
    given: &Config,
    warnings: &mut Vec<String>,
) -> Result<(), SettingsError> {
    let Some(path) = path else { return Ok(()) };
    if given.get_string(url_key).is_ok_and(|url| !url.is_empty()) {
        return Err(wrong(file_key, &format!("{url_key} is set, too; set one of the two")));
    }
    *url = read_secret(path, file_key, warnings)?;
    Ok(())
}

/// The secret in the file that `key` names.
fn read_secret(
    path: &Path,
    key: &'static str,
    warnings: &mut Vec<String>,
) -> Result<SecretString, SettingsError> {
    let unreadable = |cause| {
        let text = path.to_string_lossy();
        if discreet::is_address(&text) {
            return wrong(key, "it is an address and not the path of a file");
        }
        if discreet::may_be_secret(&text) {
            return wrong(
                key,
                "it is no file that can be read, and not shown, since it may be a key",
            );
        }
        SettingsError::File { key, path: path.to_owned(), cause }
    };
    let read = trusted_file::secret(path).map_err(unreadable)?;
    let warning = trusted_file::warning(path, Others::GroupAndWorld);
    warnings.extend(warning.map(|text| format!("{key}: {text}")));
    Ok(SecretString::from(read.trim()))
}

/// Sets a missing key from `path`, or else from `variable`.
fn resolve_key(
    api_key: &mut Option<SecretString>,
    path: Option<&Path>,
    key: &'static str,
    variable: impl FnOnce() -> Option<SecretString>,
    warnings: &mut Vec<String>,
) -> Result<(), SettingsError> {
    if api_key.as_ref().is_some_and(|key| !key.expose_secret().is_empty()) {
        return Ok(());
    }
    let Some(path) = path else {
        *api_key = variable();
        return Ok(());
    };
    *api_key = Some(read_secret(path, key, warnings)?);
    Ok(())
}

fn wrong(key: &str, cause: &str) -> SettingsError {
    SettingsError::Key { key: key.to_owned(), cause: cause.to_owned() }
}

/// The error for a key, with the name of an unknown field made part of the path.
fn key_error(path: String, cause: &ConfigError) -> SettingsError {
    let cause = discreet::told(cause);
    let key = if path == "." { "settings".to_owned() } else { path };
    SettingsError::Key { key, cause }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let environment: HashMap<_, _> =
            variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Settings::load_with(None, environment)
    }

    fn load_file(text: &str) -> Result<Settings, SettingsError> {
        let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Settings::load_with(Some(file.path()), HashMap::new())
    }

    #[test]
    fn the_defaults_are_complete_and_as_documented() {
        let settings = load(&[]).unwrap();
        assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.server.metrics_listen.to_string(), "127.0.0.1:9090");
        assert_eq!(settings.server.max_body_bytes, 20 * 1024 * 1024);
        assert_eq!(settings.database.url.expose_secret(), "sqlite://ocr-gateway.db");
        assert_eq!(settings.upstream.model, "qwen-vl-ocr-2025-11-20");
    }

    #[test]
    fn the_environment_overrules_the_defaults() {
        let settings = load(&[("OCR_GATEWAY__SERVER__MAX_BODY_BYTES", "1024")]).unwrap();
        assert_eq!(settings.server.max_body_bytes, 1024);
    }

    #[test]
    fn a_file_overrules_one_key_and_leaves_its_neighbours() {
        let settings = load_file("[models.qwen-vl-ocr]\nmax_tokens = 8192\n").unwrap();
        assert_eq!(settings.models["qwen-vl-ocr"].max_tokens.get(), 8192);
        assert_eq!(settings.models["qwen-vl-ocr"].cell, 32);
        assert_eq!(settings.models["qwen3.5-ocr"].max_tokens.get(), 32768);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = load_file("[server]\nmax_body_byte = 5\n").unwrap_err().to_string();
        assert!(error.contains("server") && error.contains("max_body_byte"), "{error}");
        let error = load(&[("OCR_GATEWAY__SERVER__LISTN", "x")]).unwrap_err().to_string();
        assert!(error.contains("listn"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_an_error_that_names_the_key() {
        let error = load_file("[server]\nlisten = \"here\"\n").unwrap_err().to_string();
        assert!(error.starts_with("server.listen"), "{error}");
    }

    /// A file that does not parse, its line, and the reported message.
    fn of_file_that_does_not_parse(text: &str) -> SettingsError {
        let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let error = Settings::load_with(Some(file.path()), HashMap::new()).unwrap_err();
        let name = file.path().file_name().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(name), "{error}");
        error
    }

    /// All texts of an error that a log could show.
    fn chain(error: &SettingsError) -> String {
        let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
        let texts: Vec<_> = causes.map(|cause| format!("{cause}\n{cause:?}\n")).collect();
        texts.concat()
    }

    #[test]
    fn no_value_that_may_be_a_secret_is_in_an_error_and_its_key_or_line_is() {
        const DATABASE: &str = "postgres://g:hunter2@h/x";
        let variables = [
            ("DATABASE", DATABASE, "database: "),
            ("DATABASE", "a\", expected hunter2 `", "database: "),
            ("REDIS", "redis://:hunter2@h", "redis: "),
            ("UPSTREAM", "sk-hunter2", "upstream: "),
            ("MODELS", "sk-hunter2", "models: "),
            ("DATABASE__MAX_CONNECTIONS", DATABASE, "database.max_connections: "),
            ("SERVER__MAX_CONNECTIONS", DATABASE, "server.max_connections: "),
            ("SERVER__LISTEN", DATABASE, "server.listen: "),
            ("REDIS__ON_FAILURE", "redis://:hunter2@h", "redis.on_failure: "),
            ("REDIS__TIMEOUT_MS", "redis://:hunter2@h", "redis.timeout_ms: "),
            ("LEDGER__TIME_ZONE", "sk-hunter2", "ledger.time_zone: "),
            ("DATABASE__URL_FILE", DATABASE, "database.url_file: "),
            ("REDIS__URL_FILE", "redis://:hunter2@h", "redis.url_file: "),
            ("UPSTREAM__API_KEY_FILE", DATABASE, "upstream.api_key_file: "),
            ("UPSTREAM__API_KEY_FILE", "sk-hunter2", "upstream.api_key_file: "),
        ];
        let variables = variables.map(|(name, value, key)| {
            let name = format!("OCR_GATEWAY__{name}");
            (load(&[(&name, value)]).unwrap_err(), key)
        });
        let endpoint = "name = \"a\"\nregion = \"beijing\"\nbase_url = \"https://a\"";
        let files = [
            (format!("database = \"{DATABASE}\""), "database: "),
            (format!("[database]\nmax_connections = \"{DATABASE}\""), "database.max_connections"),
            (format!("[redis]\nurl = [\"{DATABASE}\"]\n"), "redis.url: "),
            (format!("[tenants]\nacme = \"{DATABASE}\""), "tenants.acme: "),
            ("upstream = [\"sk-hunter2\"]".to_owned(), "upstream: "),
            (
                format!("[[upstream.endpoints]]\n{endpoint}\napi_key_file = \"{DATABASE}\""),
                "upstream.endpoints.api_key_file: ",
            ),
        ];
        let files = files.map(|(text, key)| (load_file(&text).unwrap_err(), key));
        for (error, key) in variables.into_iter().chain(files) {
            let chain = chain(&error);
            assert!(!chain.contains("hunter2"), "{key} {chain}");
            assert!(error.to_string().starts_with(key), "{key} {error}");
        }
        for text in [
            "[database]\nurl = \"postgres://gateway:hunter2@db/x\n",
            "[database]\nurl = postgres://gateway:hunter2@db/x\n",
            "[upstream]\r\napi_key = sk-hunter2\r\n",
            "[upstream]\napi_key = \"sk-hunter2\" hunter2\n",
            "[upstream]\n\"sk-hunter2\" = 1 \"sk-hunter2\" = 2",
            "[upstream]\napi_key = \"\\hunter2\"\n",
        ] {
            let error = of_file_that_does_not_parse(text);
            let chain = chain(&error);
            assert!(!chain.contains("hunter2"), "{text}: {chain}");
            assert!(chain.contains("line 2, column "), "{text}: {chain}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_kinds_and_by_the_parser_s_own_words() {
        let told = |name: &str, value| {
            load(&[(&format!("OCR_GATEWAY__{name}"), value)]).unwrap_err().to_string()
        };
        let error = told("DATABASE", "x");
        let of_kinds = "database: invalid type: string, expected struct DatabaseSettings";
        assert!(error.starts_with(of_kinds), "{error}");
        let error = told("DATABASE__MAX_CONNECTIONS", "x");
        assert!(error.contains("invalid type: string, expected an integer"), "{error}");
        let error = told("DATABASE__URL_FILE", "sqlite://x.db");
        assert!(error.ends_with("it is an address and not the path of a file"), "{error}");
        let error = of_file_that_does_not_parse("[database]\nurl = \"x\n").to_string();
        assert!(error.contains("line 2, column 9: invalid basic string, expected `\"`"), "{error}");
        // The message for a number out of range has no position.
        let error = of_file_that_does_not_parse("[server]\nx = 99999999999999999999\n").to_string();
        assert!(error.contains("number too large"), "{error}");
    }

    #[test]
    fn a_body_limit_that_cannot_bind_is_refused() {
        for limit in ["0", "99999999999"] {
            let error = load(&[("OCR_GATEWAY__SERVER__MAX_BODY_BYTES", limit)]).unwrap_err();
            assert!(error.to_string().starts_with("server.max_body_bytes"), "{error}");
        }
    }

    #[test]
    fn a_tenant_s_budget_of_money_is_a_text_and_never_a_number() {
        let budget = |value: &str| load_file(&format!("[tenants.acme]\ndaily_cost = {value}\n"));
        let cost = budget("\"12.50\"").unwrap().tenants.values().next().unwrap().daily_cost;
        assert_eq!(cost.map(|cost| cost.to_string()).as_deref(), Some("12.5"));
        for wrong in ["12.50", "12", "\"12,50\"", "\"0\""] {
            let error = budget(wrong).unwrap_err().to_string();
            assert!(error.contains("tenants.acme") && error.contains("daily_cost"), "{error}");
        }
        let variable = [("OCR_GATEWAY__TENANTS__ACME__DAILY_COST", "12.50")];
        assert_eq!(load(&variable).unwrap().tenants.values().next().unwrap().daily_cost, cost);
    }

    #[test]
    fn an_endpoint_of_several_has_its_key_from_the_variable_with_its_name() {
        let endpoint = "name = \"eu-1\"\nregion = \"singapore\"\nbase_url = \"https://a\"\n";
        let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        write!(file, "[[upstream.endpoints]]\n{endpoint}").unwrap();
        let environment = [("DASHSCOPE_API_KEY", "sk-all"), ("DASHSCOPE_API_KEY_EU_1", "sk-own")];
        let environment = environment.map(|(name, key)| (name.to_owned(), key.to_owned()));
        let settings = Settings::load_with(Some(file.path()), environment.into()).unwrap();
        let key = settings.upstream.pool()[0].api_key.clone().unwrap();
        assert_eq!(key.expose_secret(), "sk-own");
    }

    /// The settings with the address of the database or of Redis in a file.
    fn with_url_file(
        section: &str,
        text: &str,
        more: &[(&str, &str)],
    ) -> Result<Settings, SettingsError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let variable = format!("OCR_GATEWAY__{section}__URL_FILE");
        let mut variables = vec![(variable.as_str(), file.path().to_str().unwrap())];
        variables.extend(more);
        load(&variables)
    }

    #[test]
    fn the_addresses_of_database_and_redis_may_come_from_files() {
        let settings = with_url_file("DATABASE", "postgres://u:secret@h/x\n", &[]).unwrap();
        assert_eq!(settings.database.url.expose_secret(), "postgres://u:secret@h/x");
        assert!(!format!("{settings:?}").contains("secret"));
        let settings = with_url_file("REDIS", "redis://:secret@h\n", &[]).unwrap();
        assert_eq!(settings.redis.url.expose_secret(), "redis://:secret@h");
        assert!(!format!("{settings:?}").contains("secret"));
        let error = with_url_file("REDIS", "http://:secret@h", &[]).unwrap_err().to_string();
        assert!(error.starts_with("redis.url: ") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn an_address_and_a_file_with_one_are_an_error_that_names_both() {
        for (section, name, url) in
            [("DATABASE", "database", "sqlite://ocr-gateway.db"), ("REDIS", "redis", "redis://h")]
        {
            let variable = format!("OCR_GATEWAY__{section}__URL");
            let error = with_url_file(section, url, &[(&variable, url)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}.url_file: {name}.url is set")), "{error}");
            // An empty variable counts as not set.
            assert!(with_url_file(section, url, &[(&variable, "")]).is_ok());
        }
    }

    #[test]
    fn a_file_of_an_address_that_is_empty_too_large_or_missing_is_refused_by_its_key() {
        for section in ["DATABASE", "REDIS"] {
            let key = format!("{}.url_file: ", section.to_lowercase());
            for text in ["", " \n", &"x".repeat(65 * 1024)] {
                let error = with_url_file(section, text, &[]).unwrap_err().to_string();
                assert!(error.starts_with(&key), "{error}");
            }
            let missing = format!("OCR_GATEWAY__{section}__URL_FILE");
            let error = load(&[(&missing, "/no/such/file")]).unwrap_err().to_string();
            assert!(error.starts_with(&key) && error.contains("/no/such/file"), "{error}");
        }
    }

    #[test]
    fn a_stop_waits_for_the_longest_request_by_default_and_a_shorter_one_draws_a_warning() {
        let warnings = |drain| {
            let drain = [("OCR_GATEWAY__SERVER__DRAIN_TIMEOUT_MS", drain)];
            load(&drain)
                .unwrap()
                .warnings()
                .into_iter()
                .filter(|text| text.contains("drain"))
                .count()
        };
        let server = load(&[]).unwrap().server;
        assert!(server.drain_timeout() > server.request_timeout());
        assert_eq!([warnings("245000"), warnings("240000"), warnings("239999")], [0, 0, 1]);
    }

    #[test]
    fn the_vendor_s_variable_is_the_last_source_of_the_key() {
        let key =
            |settings: Settings| settings.upstream.api_key.unwrap().expose_secret().to_owned();
        let vendor = ("DASHSCOPE_API_KEY", "sk-vendor");
        let ours = ("OCR_GATEWAY__UPSTREAM__API_KEY", "0123");
        assert_eq!(key(load(&[vendor]).unwrap()), "sk-vendor");
        assert_eq!(key(load(&[vendor, ours]).unwrap()), "0123");
    }

    #[test]
    fn no_key_is_shown_when_settings_are_printed() {
        let settings = load(&[("DASHSCOPE_API_KEY", "sk-secret")]).unwrap();
        assert!(!format!("{settings:?}").contains("sk-secret"));
    }

    #[test]
    fn no_password_of_redis_is_shown_when_settings_are_printed() {
        let settings = load(&[("OCR_GATEWAY__REDIS__URL", "redis://:hidden@127.0.0.1")]).unwrap();
        assert!(!format!("{settings:?}").contains("hidden"));
    }

    #[test]
    fn a_time_in_which_no_request_can_be_answered_is_refused() {
        let of = |milliseconds| {
            load(&[
                ("OCR_GATEWAY__SERVER__REQUEST_TIMEOUT_MS", milliseconds),
                ("OCR_GATEWAY__SERVER__BODY_TIMEOUT_MS", milliseconds),
            ])
        };
        assert!(of("1000").is_ok());
        let error = of("499").unwrap_err().to_string();
        assert!(error.starts_with("server.request_timeout_ms: 499 is below 1000"), "{error}");
    }

    #[test]
    fn an_unknown_time_zone_is_an_error_that_names_the_key() {
        let zone = |name| load(&[("OCR_GATEWAY__LEDGER__TIME_ZONE", name)]);
        assert_eq!(zone("Asia/Shanghai").unwrap().ledger.time_zone.name(), "Asia/Shanghai");
        assert_eq!(load(&[]).unwrap().ledger.time_zone.name(), "UTC");
        for wrong in ["Asia/Bejing", "CST", "+08:00", "8", ""] {
            let error = zone(wrong).unwrap_err().to_string();
            let told = format!("ledger.time_zone: {wrong:?} is not a time zone");
            assert!(error.starts_with(&told), "{error}");
        }
    }

    #[test]
    fn a_time_that_is_too_long_is_an_error_that_names_key_value_and_limit() {
        let keys = DEFAULTS.lines().scan(String::new(), |section, line| {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(section);
            }
            Some((section.clone(), line.split_once(" = ").map_or("", |(key, _)| key)))
        });
        let times: Vec<_> = keys.filter(|(_, key)| key.ends_with("_ms")).collect();
        assert!(times.len() > 15, "{times:?}");
        for (section, key) in times {
            let variable = format!("OCR_GATEWAY__{section}__{key}").to_ascii_uppercase();
            for huge in ["86400001", "9223372036854775807", "18446744073709551615"] {
                let error = load(&[(&variable, huge)]).unwrap_err().to_string();
                let told = format!("{section}.{key}: {huge} is above 86400000");
                assert!(error.starts_with(&told), "{error}");
            }
        }
        let error = load(&[("OCR_GATEWAY__LEDGER__RETENTION_DAYS", "4294967295")]).unwrap_err();
        assert!(error.to_string().contains("4294967295 is above 36500"), "{error}");
    }

    #[test]
    fn an_unknown_answer_to_a_failing_redis_is_an_error_that_names_the_key() {
        let error = load(&[("OCR_GATEWAY__REDIS__ON_FAILURE", "open")]).unwrap_err().to_string();
        assert!(error.contains("redis.on_failure") && error.contains("closed"), "{error}");
    }

    #[test]
    fn settings_that_may_change_an_answer_make_another_digest_and_others_do_not() {
        let of = |variable, value| load(&[(variable, value)]).unwrap().answer_digest;
        let plain = load(&[]).unwrap().answer_digest;
        for other in ["OCR_GATEWAY__SERVER__MAX_BODY_BYTES", "OCR_GATEWAY__LEDGER__RETENTION_DAYS"]
        {
            assert_eq!(of(other, "100"), plain, "{other}");
        }
        assert_ne!(of("OCR_GATEWAY__DOCUMENTS__MAX_PAGE_PIXELS", "1000000"), plain);
        let model = "OCR_GATEWAY__MODELS__QWEN-VL-OCR-2024-10-28__MAX_TOKENS";
        assert_ne!(of(model, "100"), plain);
    }

    #[test]
    fn a_key_for_storage_that_is_none_is_an_error_that_names_the_setting_and_not_the_key() {
        let of = |key| load(&[("OCR_GATEWAY__STORAGE__ENCRYPTION_KEY", key)]);
        let error = of("c2VjcmV0").unwrap_err().to_string();
        assert!(error.starts_with("storage.encryption_key: has 6 bytes"), "{error}");
        assert!(!error.contains("c2VjcmV0"), "{error}");
        assert!(of("").unwrap().storage.key().unwrap().is_none());
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let settings = of(key).unwrap();
        assert!(settings.storage.key().unwrap().is_some());
        assert!(!format!("{settings:?}").contains("AAECAwQF"));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{key}").unwrap();
        let path = file.path().to_str().unwrap();
        let settings = load(&[("OCR_GATEWAY__STORAGE__ENCRYPTION_KEY_FILE", path)]).unwrap();
        assert!(settings.storage.key().unwrap().is_some());
    }

    #[test]
    fn the_example_files_are_valid() {
        for name in ["local.toml", "production.toml"] {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
            let environment = HashMap::from([("DASHSCOPE_API_KEY".to_owned(), "sk-x".to_owned())]);
            assert!(Settings::load_with(Some(file.as_path()), environment).is_ok(), "{name}");
        }
    }
}
