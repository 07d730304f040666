//! `ocr-gateway serve`: the service.

use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{Failure, failed, open_to_serve, with_causes};
use crate::api::{self, starting::Starting};
use crate::clock::SystemClock;
use crate::gateway::{self, BuildError, Gateway};
use crate::random::SystemRandom;
use crate::server::{self, Reserved};
use crate::settings::Settings;
use crate::store::{Store, StoreError};
use crate::telemetry::logging;
use crate::telemetry::metrics::Metrics;

/// How long a stop waits for the database to take leave.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The exit code of a stop that was cut short by a second signal.
const CUT_SHORT: i32 = 1;

/// How long a start waits before it tries again what was away: whatever comes back is used within seconds.
const NEXT_ATTEMPT: Duration = Duration::from_secs(1);

/// The least time between two lines of the log that say why a start waits.
const NEXT_REASON: Duration = Duration::from_mins(1);

/// Runs the service until the process is told to stop, and tells in the format of the log what ended it
/// otherwise: whatever keeps it from starting, with the key to mend, or a background task that ended, after which
/// the process has to be started again.
pub(super) async fn run(files: &[&Path]) -> ExitCode {
    let settings = Settings::load(files);
    let log = match &settings {
        Ok(settings) => settings.log.clone(),
        Err(_) => Settings::log_of_faulty(files),
    };
    let serving = async {
        logging::install(&log)?;
        serve(settings?).await
    };
    let Err(failure) = serving.await else { return ExitCode::SUCCESS };
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("the service cannot run: {}", with_causes(&*failure));
        return ExitCode::FAILURE;
    }
    // The filter lets no error through, and nobody would know.
    failed(&*failure)
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    let mut stop = pin!(told_to_stop());
    note_hangups();
    let reserved = Reserved::bind(&settings.server).await?;
    gateway::check(&settings, Arc::new(SystemClock), Arc::new(SystemRandom))?;
    let starting = Starting::default();
    // Those of the service are made with it, anew at each attempt.
    let metrics = Arc::new(Metrics::new(&settings.metrics)?);
    let router = api::starting::router(&starting);
    let probes = reserved.answer_probes(&settings.server, router, &metrics)?;
    let (store, gateway) = tokio::select! {
        started = start(&settings, &starting) => started?,
        () = &mut stop => {
            tracing::info!("stopped before it served");
            return Ok(());
        }
    };
    probes.end().await;
    let listeners = reserved.listen()?;
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
    let served = server::run(gateway, listeners, &settings.server, stop).await;
    // A database that does not answer must not keep the process from ending.
    let _ = tokio::time::timeout(LAST_WORDS, store.close()).await;
    tracing::info!("stopped");
    Ok(served?)
}

/// Opens the database and builds the service. A database or a Redis that is away is waited for; what would not
/// pass by itself is an error.
async fn start(settings: &Settings, starting: &Starting) -> Result<(Store, Arc<Gateway>), Failure> {
    let open = async || open_to_serve(&settings.database).await;
    let store = patiently(starting, open, StoreError::is_outage).await?;
    let build = async || {
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        Gateway::build(settings, store.clone(), clock, random).await
    };
    let gateway = patiently(starting, build, BuildError::is_outage).await?;
    Ok((store, gateway))
}

/// What comes of `attempt` once nothing that it needs is away.
async fn patiently<T, E: Error + 'static>(
    starting: &Starting,
    attempt: impl AsyncFn() -> Result<T, E>,
    is_outage: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let mut told: Option<(String, Instant)> = None;
    loop {
        let error = match attempt().await {
            Err(error) if is_outage(&error) => error,
            finished => return finished,
        };
        let reason = with_causes(&error);
        let is_known = told.as_ref().is_some_and(|(last, at)| {
            // An outage shows itself in several ways, by turns.
            *last == reason || at.elapsed() < NEXT_REASON
        });
        if !is_known {
            tracing::warn!("the service waits to start: {reason}");
            told = Some((reason.clone(), Instant::now()));
        }
        starting.waits_for(reason);
        tokio::time::sleep(NEXT_ATTEMPT).await;
    }
}

/// Tells of SIGHUP, which would otherwise end the process without a drain: it is what `systemctl reload`, a
/// log rotation and a terminal that is closed send.
fn note_hangups() {
    #[cfg(unix)]
    if let Ok(mut hangups) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
    {
        // It ends with the process.
        TaskTracker::new().spawn(async move {
            while hangups.recv().await.is_some() {
                tracing::info!(
                    "SIGHUP changes nothing: settings are read at the start, so restart the replicas one by one"
                );
            }
        });
    }
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
