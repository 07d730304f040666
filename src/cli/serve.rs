//! `ocr-gateway serve`: the service.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::{Failure, open_to_serve};
use crate::clock::SystemClock;
use crate::gateway::Gateway;
use crate::random::SystemRandom;
use crate::server::{self, Listeners};
use crate::settings::Settings;
use crate::telemetry::logging;

/// How long a stop waits for the database to take leave.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The exit code of a stop that was cut short by a second signal.
const CUT_SHORT: i32 = 1;

/// Runs the service until the process is told to stop.
///
/// # Errors
///
/// Whatever keeps it from starting, with the key to mend; and a background task that ended, after which
/// the process has to be started again.
pub(super) async fn run(settings: Settings) -> Result<(), Failure> {
    logging::install(&settings.log)?;
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    let store = open_to_serve(&settings.database).await?;
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

/// Ready when the process is told to stop, by SIGTERM or SIGINT. From then on another such signal ends the
/// process at once: who sends it does not want to wait for what is in flight.
pub(super) async fn told_to_stop() {
    let Ok(mut signals) = Signals::new() else { return std::future::pending().await };
    signals.next().await;
    // It is not waited for: it ends the process, or ends with it.
    TaskTracker::new().spawn(async move {
        signals.next().await;
        cut_short();
    });
}

#[expect(clippy::exit, reason = "what would have to end first is what is not waited for")]
fn cut_short() -> ! {
    tracing::error!("stopped by a second signal: calls in flight count at their bound");
    std::process::exit(CUT_SHORT)
}

/// The signals that tell a process to stop.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (terminate, interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The signal that tells a process to stop: Ctrl-C.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
