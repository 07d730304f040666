//! Listeners, connections, and a stop that loses nothing.
//!
//! [`run`] is given its sockets and the signal to stop, so tests and the command use the same door.
//! Connections are served one by one instead of by `axum::serve`, because three things are needed
//! there: a limit of time for headers, a limit of connections, and what `connection` adds.
//!
//! A client may close its sending side once its request is whole, and is answered all the same
//! ([`HalfClose`]). One that resets its connection is gone, and its request is dropped.

mod connection;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::Service;

use self::connection::Connection;
use crate::api;
use crate::api::hangup::HalfClose;
use crate::capacity::CONNECTION_BYTES;
use crate::capacity::places::{Place, Places};
use crate::gateway::Gateway;
use crate::ledger::POST_TIMEOUT;
use crate::settings::ServerSettings;
use crate::supervisor::TaskEnded;
use crate::telemetry::metrics::{Metrics, NO_TENANT};

/// Connections of the metrics listener: a scraper and some probes.
const METRICS_CONNECTIONS: usize = 64;

/// Connections that the kernel keeps until they are taken, as tokio has it for a listener.
const WAITING_CONNECTIONS: u32 = 1024;

/// A pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long connections that came last may take to send their first request, once no more are taken: they
/// were made for one that is already on its way.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// How long a stop waits for the ends of the last calls to be in the ledger: longer than for one
/// transaction, so that there is time for a second.
const LAST_ENTRIES: Duration = Duration::from_secs(5);

const _: () = assert!(POST_TIMEOUT.as_millis() < LAST_ENTRIES.as_millis());

/// The two bound sockets.
#[derive(Debug)]
pub struct Listeners {
    /// The public API.
    pub public: TcpListener,
    /// Metrics and health.
    pub metrics: TcpListener,
}

/// The two addresses of a service that does not serve yet. The public one refuses connections meanwhile, so
/// that a proxy asks another replica and nobody waits.
#[derive(Debug)]
pub struct Reserved {
    public: TcpSocket,
    metrics: std::net::TcpListener,
    /// Both addresses, as the settings have them.
    addresses: [SocketAddr; 2],
}

impl Reserved {
    /// Binds both.
    ///
    /// # Errors
    ///
    /// The address that cannot be bound, and why.
    pub async fn bind(settings: &ServerSettings) -> Result<Self, BindError> {
        let addresses = [settings.listen, settings.metrics_listen];
        let metrics = TcpListener::bind(addresses[1]).await.and_then(TcpListener::into_std);
        let metrics = metrics.map_err(|cause| BindError::metrics(addresses, cause))?;
        let public = reserve(addresses[0]);
        let public = public.map_err(|cause| BindError::public(addresses, cause))?;
        Ok(Self { public, metrics, addresses })
    }

    /// Answers on the address of metrics and health with `router`, until what is given back is ended.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn answer_probes(
        &self,
        settings: &ServerSettings,
        router: Router,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Apart> {
        let listener = TcpListener::from_std(self.metrics.try_clone()?)?;
        let places = Arc::new(Places::of_strangers(METRICS_CONNECTIONS));
        let door = Door::new(settings, places, metrics);
        serve_apart(door, listener, router, ())
    }

    /// Takes connections on both from now on.
    ///
    /// # Errors
    ///
    /// The address that cannot be listened on, and why.
    pub fn listen(self) -> Result<Listeners, BindError> {
        let Self { public, metrics, addresses } = self;
        let public = public.listen(WAITING_CONNECTIONS);
        let public = public.map_err(|cause| BindError::public(addresses, cause))?;
        let metrics = TcpListener::from_std(metrics);
        let metrics = metrics.map_err(|cause| BindError::metrics(addresses, cause))?;
        Ok(Listeners { public, metrics })
    }
}

/// A socket that is bound to the address and does not listen.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As tokio does for a listener: the address of a process that has just ended can be used at once.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// An address that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {cause}")]
pub struct BindError {
    key: &'static str,
    address: SocketAddr,
    cause: io::Error,
}

impl BindError {
    const fn public([address, _]: [SocketAddr; 2], cause: io::Error) -> Self {
        Self { key: "server.listen", address, cause }
    }

    const fn metrics([_, address]: [SocketAddr; 2], cause: io::Error) -> Self {
        Self { key: "server.metrics_listen", address, cause }
    }
}

/// Serves until `stop` is ready, then drains
/// ([ADR 0012](../docs/adr/0012-a-stop-serves-until-nobody-asks.md)): readiness goes off, and requests are
/// taken for `server.drain_grace_ms` more, whose answers close their connections. Then no connection is
/// taken, idle ones are closed, and requests in flight and the calls they made are finished, within
/// `server.drain_timeout_ms`.
///
/// A background task that ends drains it likewise: what does not need the task can still be finished.
///
/// # Errors
///
/// [`TaskEnded`] where that was the reason: the process should end with an error, to be started again.
pub async fn run(
    gateway: Arc<Gateway>,
    listeners: Listeners,
    settings: &ServerSettings,
    stop: impl Future<Output = ()>,
) -> Result<(), TaskEnded> {
    let public = Door::new(settings, Arc::clone(&gateway.connections), &gateway.metrics);
    let metrics = Arc::new(Places::of_strangers(METRICS_CONNECTIONS));
    let metrics = Door::new(settings, metrics, &gateway.metrics);
    // Health stays visible while the rest drains, so this listener ends with this function.
    let watch = gateway.supervisor.watch("metrics and health");
    // Where it cannot be served, the watch is dropped, and this replica ends.
    let health = serve_apart(metrics, listeners.metrics, api::metrics_router(&gateway), watch)
        .inspect_err(|error| tracing::error!(%error, "metrics and health are not served"));
    let (draining, grace) = (Arc::clone(&gateway), settings.drain_grace());
    let stop = async move {
        tokio::select! {
            () = stop => {}
            () = draining.supervisor.one_ended() => {}
        }
        draining.drain();
        tracing::info!("stopping: taking requests until nobody sends them here");
        tokio::time::sleep(grace).await;
    };
    let in_flight = public.serve(listeners.public, api::router(&gateway), stop).await;
    tokio::time::sleep(grace.min(LAST_REQUESTS)).await;
    tracing::info!("stopping: finishing the requests in flight");
    gateway.close();
    gateway.tasks.close();
    public.closing.close();
    let drained = async {
        in_flight.shutdown().await;
        gateway.tasks.wait().await;
        // A client that still sends would lose the answer that it has not read yet.
        public.closing.wait().await;
    };
    if tokio::time::timeout(settings.drain_timeout(), drained).await.is_err() {
        tracing::warn!("stopped with requests unfinished: server.drain_timeout_ms passed");
    }
    let checked = gateway.supervisor.check();
    gateway.supervisor.let_end();
    // The other replicas write off the calls that were not waited for, or the next start does.
    let closed = async {
        gateway.ledger.close().await;
        gateway.instance.close().await;
    };
    if tokio::time::timeout(LAST_ENTRIES, closed).await.is_err() {
        tracing::warn!(
            "stopped before the last entries were in the ledger: they count at their bound"
        );
    }
    drop(health);
    checked
}

/// What is served on a thread of its own, until this is ended or dropped.
#[derive(Debug)]
pub struct Apart {
    over: DropGuard,
    ended: oneshot::Receiver<()>,
}

impl Apart {
    /// Ends it, once the answers that are under way are given.
    pub async fn end(self) {
        drop(self.over);
        // The sender is dropped with the thread.
        let _ = self.ended.await;
    }
}

/// Serves a listener on a thread of its own. Among the workers, who asks for health would wait behind each of the
/// thousand connections that a flood wakes at once. `held` is dropped where the thread ends or cannot be started.
fn serve_apart(
    door: Door,
    listener: TcpListener,
    router: Router,
    held: impl Send + 'static,
) -> io::Result<Apart> {
    let stop = CancellationToken::new();
    let (over, stopped) = (stop.clone().drop_guard(), stop);
    let (ending, ended) = oneshot::channel::<()>();
    let listener = listener.into_std()?;
    let serving = move || -> io::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            let open = door.serve(listener, router, stopped.cancelled_owned()).await;
            // A probe that is not answered would count as a failed one.
            let _ = tokio::time::timeout(LAST_REQUESTS, open.shutdown()).await;
            Ok(())
        })
    };
    let thread = std::thread::Builder::new().name("health".to_owned());
    thread.spawn(move || {
        let _held = (held, ending);
        if let Err(error) = serving() {
            tracing::error!(%error, "metrics and health are not served");
        }
    })?;
    Ok(Apart { over, ended })
}

/// Takes connections of one listener and serves them.
struct Door {
    http: http1::Builder,
    places: Arc<Places>,
    metrics: Arc<Metrics>,
    patience: Duration,
    /// Nobody waits for these: requests and calls are waited for by other names.
    connections: TaskTracker,
    /// Connections whose last answer is given.
    closing: TaskTracker,
}

impl Door {
    fn new(settings: &ServerSettings, places: Arc<Places>, metrics: &Arc<Metrics>) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(settings.keep_alive_timeout())
            .half_close(true)
            .max_buf_size(CONNECTION_BYTES);
        let metrics = Arc::clone(metrics);
        let (connections, closing) = (TaskTracker::new(), TaskTracker::new());
        Self { http, places, metrics, patience: settings.idle_timeout(), connections, closing }
    }

    /// Serves until `stop`; gives back what knows of the connections that are still open.
    async fn serve(
        &self,
        listener: TcpListener,
        router: Router,
        stop: impl Future<Output = ()>,
    ) -> GracefulShutdown {
        let graceful = GracefulShutdown::new();
        let mut accepted = None;
        let taking = async {
            loop {
                // Only for one that is there another may have to give way.
                accepted = Some(accept(&listener).await);
                let place = self.places.take().await;
                if let Some(stream) = accepted.take() {
                    self.serve_one(stream, place, &router, &graceful);
                }
            }
        };
        tokio::select! {
            () = stop => {}
            () = taking => {}
        }
        self.take_last(accepted, listener, &router, &graceful);
        graceful
    }

    /// Takes the connections that wait, the last of them in the kernel's queue, and closes the listener, at once,
    /// because what comes between the two is reset: a proxy that has sent its request by then must not repeat it.
    fn take_last(
        &self,
        mut accepted: Option<TcpStream>,
        listener: TcpListener,
        router: &Router,
        graceful: &GracefulShutdown,
    ) {
        let Ok(listener) = listener.into_std() else { return };
        let accept = || {
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        };
        while let Some(stream) = accepted.take().or_else(|| accept().ok())
            && let Ok(place) = self.places.try_take()
        {
            self.serve_one(stream, place, router, graceful);
        }
    }

    fn serve_one(
        &self,
        stream: TcpStream,
        place: Place,
        router: &Router,
        graceful: &GracefulShutdown,
    ) {
        let visit = place.visit();
        let connection = Connection::new(stream, place, self.patience, self.closing.clone());
        let (watched, half_close) = (connection.watched(), HalfClose::default());
        let (router, closed, visitor) = (router.clone(), half_close.clone(), visit.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(closed.clone());
            request.extensions_mut().insert(visitor.clone());
            router.clone().call(request)
        });
        let served = self.http.serve_connection(TokioIo::new(connection), service);
        let (served, metrics) = (graceful.watch(served), Arc::clone(&self.metrics));
        let watching = async move {
            let gone = async {
                let Some(watched) = watched else { return };
                watched.half_closed().await;
                half_close.note();
                watched.reset().await;
            };
            tokio::select! {
                () = gone => {}
                () = visit.gives_way() => metrics.refused(NO_TENANT, "unknown_connection"),
            }
        };
        // It has a task of its own, because the connection's task polls whatever it waits for again at each piece of a
        // body.
        let watching = AbortOnDropHandle::new(self.connections.spawn(watching));
        self.connections.spawn(async move {
            // A client that breaks off is its own affair and is logged with its request.
            tokio::select! {
                _ = served => {}
                _ = watching => {}
            }
        });
    }
}

/// The next connection, however many attempts fail before it.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
