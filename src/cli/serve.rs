//! `ocr-gateway serve`: the service.

use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::database::open_to_serve;
use super::output::{Failure, failed, with_causes};
use crate::api::{self, starting::Starting};
use crate::clock::SystemClock;
use crate::gateway::{self, BuildError, Gateway};
use crate::random::SystemRandom;
use crate::server::{self, BoundAddresses};
use crate::settings::Settings;
use crate::store::{Store, StoreError};
use crate::telemetry::logging;
use crate::telemetry::metrics::Metrics;

/// How long a stop waits until the connections to the database are closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The exit code after a second signal.
const CUT_SHORT: i32 = 1;

/// The pause between attempts to reach the database or Redis at the start.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(1);

/// The least time between two log lines with the reason why the start waits.
const LOG_PAUSE: Duration = Duration::from_mins(1);

/// Runs the service until the process receives a stop signal. A failure is logged in the format of the log: a fault
/// that prevents the start, with the setting to correct, or a background task that ended, after which the process must
/// be restarted.
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
    // The log filter drops errors, so print this one without the log.
    failed(&*failure)
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    let mut stop = pin!(told_to_stop());
    note_hangups();
    let addresses = BoundAddresses::bind(&settings.server).await?;
    gateway::check(&settings, Arc::new(SystemClock), Arc::new(SystemRandom))?;
    let starting = Starting::default();
    // Used only for the probes: the service creates its own anew at each attempt.
    let metrics = Arc::new(Metrics::new(&settings.metrics)?);
    let router = api::starting::router(&starting);
    let probes = addresses.answer_probes(&settings.server, router, &metrics)?;
    let (store, gateway) = tokio::select! {
        started = start(&settings, &starting) => started?,
        () = &mut stop => {
            tracing::info!("stopped before it served");
            return Ok(());
        }
    };
    probes.end().await;
    let listeners = addresses.listen()?;
    tracing::info!(
        // The bound address, because the settings may have port 0.
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
    // A database that does not answer must not delay the end of the process further.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, store.close()).await;
    tracing::info!("stopped");
    Ok(served?)
}

/// Opens the database and builds the service. Waits while the database or Redis is unreachable; any other fault is an
/// error.
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

/// Repeats `attempt` until it succeeds or fails with an error that is not an outage.
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
            // An outage has several symptoms, which may alternate.
            *last == reason || at.elapsed() < LOG_PAUSE
        });
        if !is_known {
            tracing::warn!("the service waits to start: {reason}");
            told = Some((reason.clone(), Instant::now()));
        }
        starting.waits_for(reason);
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
}

/// Logs SIGHUP, which would otherwise end the process without a drain. `systemctl reload`, log rotation and a closed
/// terminal send it.
fn note_hangups() {
    #[cfg(unix)]
    if let Ok(mut hangups) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
    {
        // The task runs until the process ends.
        TaskTracker::new().spawn(async move {
            while hangups.recv().await.is_some() {
                tracing::info!(
                    "SIGHUP changes nothing: settings are read at the start, so restart the replicas one by one"
                );
            }
        });
    }
}

/// Completes when the process receives SIGTERM or SIGINT. From then on a second signal ends the process at once: its
/// sender does not want to wait for requests in flight.
pub(super) async fn told_to_stop() {
    let Ok(mut signals) = StopSignals::new() else { return std::future::pending().await };
    signals.next().await;
    // No task waits for this one: it ends the process, or ends with it.
    TaskTracker::new().spawn(async move {
        signals.next().await;
        cut_short();
    });
}

#[expect(clippy::exit, reason = "a second signal asks not to wait for tasks in flight")]
fn cut_short() -> ! {
    tracing::error!("stopped by a second signal: calls in flight count at their bound");
    std::process::exit(CUT_SHORT)
}

/// The signals that stop a process: SIGTERM and SIGINT, or Ctrl-C without Unix signals.
struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (terminate, interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
