//! Listeners, connections, and a stop that loses nothing.
//!
//! [`run`] is given its sockets and the signal to stop, so tests and the command use the same door.
//! Connections are served one by one instead of by `axum::serve`, because three things are needed
//! there: a limit of time for headers, a limit of connections, and a lingering close.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::gateway::Gateway;
use crate::settings::ServerSettings;

/// Connections of the metrics listener: a scraper and some probes.
const METRICS_CONNECTIONS: usize = 64;

/// How long what a client still sends is read after the answer was given. Longer than the round
/// trip that the answer needs, shorter than a slow client could use to hold resources.
const LINGER: Duration = Duration::from_secs(2);

/// A pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The two bound sockets.
#[derive(Debug)]
pub struct Listeners {
    /// The public API.
    pub public: TcpListener,
    /// Metrics and health.
    pub metrics: TcpListener,
}

impl Listeners {
    /// Binds both.
    ///
    /// # Errors
    ///
    /// The address that cannot be bound, and why.
    pub async fn bind(settings: &ServerSettings) -> Result<Self, BindError> {
        Ok(Self {
            public: bind("server.listen", settings.listen).await?,
            metrics: bind("server.metrics_listen", settings.metrics_listen).await?,
        })
    }
}

/// An address that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {cause}")]
pub struct BindError {
    key: &'static str,
    address: SocketAddr,
    cause: io::Error,
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|cause| BindError { key, address, cause })
}

/// Serves until `stop` is ready, then drains: readiness goes off, no connection is taken, requests in
/// flight and the calls they made are finished, within `server.drain_timeout_ms`.
pub async fn run(
    gateway: Arc<Gateway>,
    listeners: Listeners,
    settings: &ServerSettings,
    stop: impl Future<Output = ()>,
) {
    // Nobody waits for these: what must not be lost is waited for by name below.
    let connections = TaskTracker::new();
    let public = Door::new(settings, settings.max_connections, connections.clone());
    let metrics = Door::new(settings, METRICS_CONNECTIONS, connections.clone());
    let metrics_router = api::metrics_router(&gateway);
    // Health stays visible while the rest drains, so this listener ends with the process.
    let health = connections.spawn(async move {
        metrics.serve(listeners.metrics, metrics_router, std::future::pending()).await;
    });
    let draining = Arc::clone(&gateway);
    let stop = async move {
        stop.await;
        draining.drain();
        tracing::info!("stopping: finishing the requests in flight");
    };
    let in_flight = public.serve(listeners.public, api::router(&gateway), stop).await;
    gateway.tasks.close();
    let drained = async {
        in_flight.shutdown().await;
        gateway.tasks.wait().await;
    };
    if tokio::time::timeout(settings.drain_timeout(), drained).await.is_err() {
        tracing::warn!("stopped with requests unfinished: server.drain_timeout_ms passed");
    }
    health.abort();
}

/// Takes connections of one listener and serves them.
struct Door {
    http: http1::Builder,
    places: Arc<Semaphore>,
    connections: TaskTracker,
}

impl Door {
    fn new(settings: &ServerSettings, most: usize, connections: TaskTracker) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(settings.idle_timeout());
        Self { http, places: Arc::new(Semaphore::new(most)), connections }
    }

    /// Serves until `stop`; gives back what knows of the connections that are still open.
    async fn serve(
        &self,
        listener: TcpListener,
        router: Router,
        stop: impl Future<Output = ()>,
    ) -> GracefulShutdown {
        let graceful = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let place = tokio::select! {
                () = &mut stop => return graceful,
                place = Arc::clone(&self.places).acquire_owned() => place,
            };
            let stream = tokio::select! {
                () = &mut stop => return graceful,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            // An answer is one write; waiting to fill a packet only delays it. Where the option is
            // refused the connection still works.
            let _ = stream.set_nodelay(true);
            let stream = Lingering { stream: Some(stream), tasks: self.connections.clone() };
            let service = TowerToHyperService::new(router.clone());
            let connection = self.http.serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            self.connections.spawn(async move {
                // A client that breaks off is its own affair and is logged with its request.
                let _ = connection.await;
                drop(place);
            });
        }
    }
}

/// A connection that is closed only when the client has heard the answer.
///
/// A request may be refused before its body was read. To close a socket with unread data resets the
/// connection, and a client that is still sending then sees the reset instead of the refusal. So what
/// it still sends is read and dropped for a moment (as nginx's `lingering_close` does).
struct Lingering {
    stream: Option<TcpStream>,
    tasks: TaskTracker,
}

impl Lingering {
    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.get_mut().stream.as_mut().map(Pin::new);
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        if tokio::runtime::Handle::try_current().is_ok() {
            self.tasks.spawn(linger(stream));
        }
    }
}

async fn linger(mut stream: TcpStream) {
    let read_on = async {
        stream.shutdown().await?;
        let mut dropped = vec![0; 64 * 1024];
        while stream.read(&mut dropped).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Either the client is done, or it has had its time.
    let _ = tokio::time::timeout(LINGER, read_on).await;
}

impl AsyncRead for Lingering {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }
}
