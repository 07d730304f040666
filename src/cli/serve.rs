//! `ocr-gateway serve`: the service.

use std::sync::Arc;
use std::time::Duration;

use super::{Failure, open};
use crate::clock::SystemClock;
use crate::gateway::Gateway;
use crate::random::SystemRandom;
use crate::server::{self, Listeners};
use crate::settings::Settings;
use crate::telemetry::logging;

/// How long a stop waits for the database to take leave.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs the service until the process is told to stop.
///
/// # Errors
///
/// Whatever keeps it from starting, with the key to mend; and a background task that ended, after which
/// the process has to be started again.
pub(super) async fn run(settings: Settings) -> Result<(), Failure> {
    logging::install(&settings.log)?;
    let store = open(&settings.database).await?;
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let gateway = Gateway::build(&settings, store.clone(), clock, random).await?;
    let listeners = Listeners::bind(&settings.server).await?;
    tracing::info!(
        // As bound: the settings may say port 0.
        listen = %listeners.public.local_addr()?,
        metrics.listen = %listeners.metrics.local_addr()?,
        database = %store.engine(),
        upstream = settings.upstream.base_url,
        in_flight.bytes = gateway.capacity.bytes,
        in_flight.requests = gateway.capacity.requests,
        connections = gateway.capacity.connections,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    let served = server::run(gateway, listeners, &settings.server, told_to_stop()).await;
    // A database that does not answer must not keep the process from ending.
    let _ = tokio::time::timeout(LAST_WORDS, store.close()).await;
    tracing::info!("stopped");
    Ok(served?)
}

/// Ready when the process gets SIGTERM or SIGINT.
#[cfg(unix)]
pub(super) async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Ready when the process gets Ctrl-C.
#[cfg(not(unix))]
pub(super) async fn told_to_stop() {
    let _ = tokio::signal::ctrl_c().await;
}
