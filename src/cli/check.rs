//! `ocr-gateway check`: tests the configuration and every connection, and reports how to repair each fault.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use super::database::connect;
use super::output::Failure;
use crate::auth::directory::Directory;
use crate::capacity::account::ByteAccount;
use crate::clock::SystemClock;
use crate::dashscope::Client;
use crate::dashscope::check::CheckError;
use crate::document::process::{self, CageReport};
use crate::extract::templates::TemplateOrigin;
use crate::gateway::{capacity, catalog, check_tenants};
use crate::label::shown;
use crate::random::SystemRandom;
use crate::rate_limit::shared::RedisRateLimiter;
use crate::redis::link;
use crate::redis::settings::RedisSettings;
use crate::settings::Settings;
use crate::store::{MissingFile, SchemaState, StoreError};
use crate::telemetry::metrics::Metrics;

/// Runs the checks one after the other and writes a line for each.
///
/// # Errors
///
/// Standard output is closed.
pub(super) async fn run(settings: &Settings, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    writeln!(out, "ok      configuration")?;
    for warning in settings.warnings() {
        writeln!(out, "warning {}", shown(&warning))?;
    }
    let (documents, warning) = match check_documents(settings).await {
        Ok((said, warning)) => (Ok(said), warning),
        Err(failure) => (Err(failure), None),
    };
    if let Some(warning) = warning {
        writeln!(out, "warning documents: {}", shown(&warning))?;
    }
    let findings = [
        ("capacity", capacity(settings).map(|limits| limits.to_string()).map_err(Into::into)),
        ("documents", documents),
        ("models", check_models(settings)),
        ("templates", check_templates(settings)),
        ("database", check_database(settings).await),
        ("redis", check_redis(&settings.redis).await),
        ("cache", check_cache(settings)),
    ];
    let upstream = check_upstream(settings).await;
    let mut code = ExitCode::SUCCESS;
    for (name, finding) in findings.into_iter().chain(upstream) {
        match finding {
            Ok(said) => writeln!(out, "ok      {name}: {}", shown(&said))?,
            Err(failure) => {
                code = ExitCode::FAILURE;
                writeln!(out, "failed  {name}: {}", shown(&failure.to_string()))?;
            }
        }
    }
    Ok(code)
}

/// Starts a worker that tries what it must not do. The second text is a warning.
async fn check_documents(settings: &Settings) -> Result<(String, Option<String>), Failure> {
    let capacity = capacity(settings)?;
    let limits = settings.documents.limits(capacity.bytes, settings.server.max_body_bytes)?;
    let CageReport { refused, possible } = process::try_worker(&limits).await?;
    let warning = (!possible.is_empty()).then(|| {
        let possible = possible.join(", ");
        format!("a worker can {possible}: this kernel does not filter system calls (seccomp)")
    });
    let refused = refused.join(", ");
    Ok((format!("{limits}; a worker cannot {refused}"), warning))
}

fn check_models(settings: &Settings) -> Result<String, Failure> {
    let catalog = catalog(settings)?;
    check_tenants(settings, &catalog)?;
    let regions: Vec<_> = catalog.regions().into_iter().collect();
    Ok(format!("{} with a price in {}", catalog.names().count(), regions.join(", ")))
}

fn check_templates(settings: &Settings) -> Result<String, Failure> {
    let templates = settings.templates.load()?;
    let of = |origin| templates.all().iter().filter(|template| template.origin == origin).count();
    let (built_in, own) = (of(TemplateOrigin::BuiltIn), of(TemplateOrigin::Operator));
    let folder = &settings.templates.dir;
    Ok(if folder.as_os_str().is_empty() {
        format!("{built_in} built in")
    } else {
        format!("{built_in} built in, {own} in {}", folder.display())
    })
}

async fn check_database(settings: &Settings) -> Result<String, Failure> {
    let store = match connect(&settings.database, MissingFile::Refused).await {
        Err(error @ StoreError::MissingFile { .. }) => {
            return to_migrate(settings, &error.to_string());
        }
        connected => connected?,
    };
    let engine = store.engine();
    let how = match store.schema().await? {
        SchemaState::Older(missing) => {
            let said =
                format!("{engine} answers; its schema is older and lacks {}", missing.join(", "));
            return to_migrate(settings, &said);
        }
        SchemaState::Same => "is up to date".to_owned(),
        SchemaState::Newer { version, known } => format!(
            "its schema is newer: it has migration {version}, this version of the program has those up to \
             {known} and runs on it"
        ),
    };
    Directory::open(settings.tenants.clone(), store.tenants()).await?;
    Ok(format!("{engine} answers and {how}"))
}

/// The finding for a database that must be migrated, with the command that does it.
fn to_migrate(settings: &Settings, said: &str) -> Result<String, Failure> {
    if settings.database.migrate {
        return Ok(format!("{said}; `serve` will migrate it"));
    }
    Err(format!("{said}; run `ocr-gateway migrate`, since database.migrate is false").into())
}

async fn check_redis(settings: &RedisSettings) -> Result<String, Failure> {
    if !settings.is_configured() {
        return Ok("not configured: rate limits count in this process".to_owned());
    }
    let address = link::check(settings, RedisRateLimiter::probe).await?;
    Ok(format!("{address} answers and can be written"))
}

/// Where answers are kept for tenants with a `cache_ttl`.
fn check_cache(settings: &Settings) -> Result<String, Failure> {
    let bytes = capacity(settings)?.cache;
    let has_key = settings.storage.key()?.is_some();
    Ok(match (settings.redis.is_configured(), has_key) {
        (true, true) => {
            format!("kept in Redis, encrypted; {bytes} bytes of memory while it is away")
        }
        (true, false) => format!(
            "kept in {bytes} bytes of this process's memory and not shared by replicas: set \
             storage.encryption_key to keep answers in Redis"
        ),
        (false, _) => format!("kept in {bytes} bytes of this process's memory"),
    })
}

/// Requests the list of models from each endpoint. That spends no tokens.
async fn check_upstream(settings: &Settings) -> Vec<(&'static str, Result<String, Failure>)> {
    let client = || {
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        let metrics = Arc::new(Metrics::new(&settings.metrics)?);
        let memory = Arc::new(ByteAccount::new(u64::MAX, metrics.in_flight_bytes().clone()));
        Ok::<_, Failure>(Client::new(&settings.upstream, None, memory, metrics, clock, random)?)
    };
    let client = match client() {
        Ok(client) => client,
        Err(failure) => return vec![("upstream", Err(failure))],
    };
    let found = client.check().await.into_iter().zip(client.ways());
    let of_endpoint =
        |((endpoint, found), (_, way)): ((_, Result<(), CheckError>), (_, String))| {
            let said = match found {
                Ok(()) => Ok(format!("{endpoint} answers and takes the key, {way}")),
                Err(error) => Err(Failure::from(format!("{error}; it was asked {way}"))),
            };
            ("upstream", said)
        };
    found.map(of_endpoint).collect()
}
