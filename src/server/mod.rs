//! Listeners, connections, and a graceful stop that loses no request.
//!
//! [`run`] takes its sockets and the stop signal as arguments, so tests and the command share it. It does not use
//! `axum::serve`, which has no time limit for headers, no limit of connections, and none of the features of
//! `connection`.
//!
//! A client may close its sending side after its request and is still answered ([`HalfClose`]). If a client resets its
//! connection, its request is dropped.

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
use crate::capacity::places::{ConnectionPlace, Places};
use crate::gateway::Gateway;
use crate::ledger::POST_TIMEOUT;
use crate::settings::ServerSettings;
use crate::supervisor::TaskEnded;
use crate::telemetry::metrics::{Metrics, NO_TENANT};

/// Connections of the metrics listener: a scraper and some probes.
const METRICS_CONNECTIONS: usize = 64;

/// Connections that the kernel queues until they are accepted; tokio's number for a listener.
const WAITING_CONNECTIONS: u32 = 1024;

/// The pause after a failed accept. Its usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// After the last accept, how long new connections may take to send their first request. Their clients opened them for
/// a request that is on its way.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// How long a stop waits until the ledger has the ends of the last calls: longer than one transaction may take, so that
/// there is time for a second.
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

/// The two bound addresses of a service that is starting. The public one refuses connections until
/// [`listen`](Self::listen), so that a proxy tries another replica at once.
#[derive(Debug)]
pub struct BoundAddresses {
    public: TcpSocket,
    metrics: std::net::TcpListener,
    /// Both configured addresses.
    addresses: [SocketAddr; 2],
}

impl BoundAddresses {
    /// Binds both.
    ///
    /// # Errors
    ///
    /// The address that cannot be bound, and the reason.
    pub async fn bind(settings: &ServerSettings) -> Result<Self, BindError> {
        let addresses = [settings.listen, settings.metrics_listen];
        let metrics = TcpListener::bind(addresses[1]).await.and_then(TcpListener::into_std);
        let metrics = metrics.map_err(|cause| BindError::metrics(addresses, cause))?;
        let public = reserve(addresses[0]);
        let public = public.map_err(|cause| BindError::public(addresses, cause))?;
        Ok(Self { public, metrics, addresses })
    }

    /// Serves `router` on the address of metrics and health until the returned server is ended.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn answer_probes(
        &self,
        settings: &ServerSettings,
        router: Router,
        metrics: &Arc<Metrics>,
    ) -> io::Result<ThreadServer> {
        let listener = TcpListener::from_std(self.metrics.try_clone()?)?;
        let places = Arc::new(Places::of_strangers(METRICS_CONNECTIONS));
        let acceptor = Acceptor::new(settings, places, metrics);
        serve_on_thread(acceptor, listener, router, ())
    }

    /// Starts to listen on both.
    ///
    /// # Errors
    ///
    /// The address that cannot be listened on, and the reason.
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
    // As tokio does for a listener: the address of a process that has just ended can be bound at once.
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
/// ([ADR 0012](../docs/adr/0012-a-stop-serves-until-nobody-asks.md)). `/readyz` fails from then on, and requests are
/// taken for `server.drain_grace_ms` more; their answers close their connections. Then it accepts no connections and
/// closes idle ones, and finishes requests in flight and their calls within `server.drain_timeout_ms`.
///
/// The end of a supervised task starts the same drain: requests that do not need the task can still be finished.
///
/// # Errors
///
/// [`TaskEnded`] if that was the reason. The process should then end with an error, to be restarted.
pub async fn run(
    gateway: Arc<Gateway>,
    listeners: Listeners,
    settings: &ServerSettings,
    stop: impl Future<Output = ()>,
) -> Result<(), TaskEnded> {
    let public = Acceptor::new(settings, Arc::clone(&gateway.connections), &gateway.metrics);
    let metrics = Arc::new(Places::of_strangers(METRICS_CONNECTIONS));
    let metrics = Acceptor::new(settings, metrics, &gateway.metrics);
    // Health stays visible while the rest drains, so this listener ends last, with this function.
    let watch = gateway.supervisor.watch("metrics and health");
    // If the listener cannot be served, the guard is dropped, and this replica stops.
    let health = serve_on_thread(metrics, listeners.metrics, api::metrics_router(&gateway), watch)
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
        // Otherwise a client that is still sending would lose its answer.
        public.closing.wait().await;
    };
    if tokio::time::timeout(settings.drain_timeout(), drained).await.is_err() {
        tracing::warn!("stopped with requests unfinished: server.drain_timeout_ms passed");
    }
    let checked = gateway.supervisor.check();
    gateway.supervisor.let_end();
    // The other replicas, or the next start, write off the calls that the stop did not wait for.
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

/// A server on a thread of its own. It stops on `end` or when this is dropped.
#[derive(Debug)]
pub struct ThreadServer {
    over: DropGuard,
    ended: oneshot::Receiver<()>,
}

impl ThreadServer {
    /// Stops it after the answers in progress.
    pub async fn end(self) {
        drop(self.over);
        // The sender is dropped with the thread.
        let _ = self.ended.await;
    }
}

/// Serves a listener on a thread of its own. On the worker threads, a health probe would wait for the thousand
/// connections that a flood wakes at once. `held` is dropped when the thread ends or cannot be started.
fn serve_on_thread(
    acceptor: Acceptor,
    listener: TcpListener,
    router: Router,
    held: impl Send + 'static,
) -> io::Result<ThreadServer> {
    let stop = CancellationToken::new();
    let (over, stopped) = (stop.clone().drop_guard(), stop);
    let (ending, ended) = oneshot::channel::<()>();
    let listener = listener.into_std()?;
    let serving = move || -> io::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            let open = acceptor.serve(listener, router, stopped.cancelled_owned()).await;
            // A probe without an answer would count as failed.
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
    Ok(ThreadServer { over, ended })
}

/// Accepts connections of one listener and serves them.
struct Acceptor {
    http: http1::Builder,
    places: Arc<Places>,
    metrics: Arc<Metrics>,
    patience: Duration,
    /// The tasks of connections. A stop waits not for these but for requests and calls.
    connections: TaskTracker,
    /// Connections that are closing after their last answer.
    closing: TaskTracker,
}

impl Acceptor {
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

    /// Serves until `stop`, and returns the handle of the connections that are still open.
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
                // Accept before a place is taken: taking may evict another connection.
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

    /// Accepts the waiting connections up to the last in the kernel's queue, and then closes the listener without a
    /// pause: a connection that arrives between the two is reset, and a proxy must not repeat a request that it sent.
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
        place: ConnectionPlace,
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
        // A task of its own, because the connection's task polls all its futures at each piece of a body.
        let watching = AbortOnDropHandle::new(self.connections.spawn(watching));
        self.connections.spawn(async move {
            // A broken connection is logged with its request.
            tokio::select! {
                _ = served => {}
                _ = watching => {}
            }
        });
    }
}

/// The next connection. Repeats failed attempts.
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
