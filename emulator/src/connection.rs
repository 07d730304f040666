//! Connections, served without a framework so that a scripted fault can reset one.
//!
//! A close marks a regular end. A reset marks a failure: a client sees one when a machine dies. The kernel sends a
//! reset when a socket with a linger time of zero is dropped. A [`Wire`] requests this, and the [`Line`] under the HTTP
//! connection sets the linger time when it is dropped. The wire also reports when all data written so far has been
//! flushed: a cut body must be sent up to the cut first.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A marker among a response's extensions: send nothing, reset the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HangUp;

/// A handle on the connection that a request came through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire {
    state: Arc<Mutex<WireState>>,
}

#[derive(Debug, Default)]
struct WireState {
    reset: bool,
    flushes: u64,
    waiting: Option<Waker>,
}

impl Wire {
    /// Requests that the connection ends with a reset.
    pub(crate) fn reset(&self) {
        self.state().reset = true;
    }

    /// The number of complete flushes.
    pub(crate) fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// Completes when there were more flushes than `before`.
    pub(crate) fn poll_flushed_since(&self, before: u64, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.flushes > before {
            return Poll::Ready(());
        }
        state.waiting = Some(context.waker().clone());
        Poll::Pending
    }

    fn flushed(&self) {
        let mut state = self.state();
        state.flushes += 1;
        if let Some(waiting) = state.waiting.take() {
            waiting.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, WireState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections until it is dropped; the connections are then dropped too.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, router.clone()));
                }
                // Most likely there are no file descriptors left. Some are freed as calls end.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Binds the listener of an emulator and returns its address.
///
/// # Errors
///
/// The system's error if the address cannot be bound.
pub(crate) async fn bind(listen: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn converse(stream: TcpStream, router: Router) {
    // Small events must not wait for the next one (Nagle's algorithm).
    let _ = stream.set_nodelay(true);
    let wire = Wire::default();
    let line = Line { stream, wire: wire.clone() };
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(wire.clone());
        let answer = router.call(request);
        async move {
            let response = match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if response.extensions().get::<HangUp>().is_some() {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            Ok(response)
        }
    });
    // A connection that breaks, by a fault or by its client, needs no handling.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(line), service).await;
}

/// A TCP stream that ends as its wire requests.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    wire: Wire,
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.wire.state().reset {
            // If even this fails, the socket is already closed.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// HTTP flushes only when its own buffer is empty, so a flush means that all data was sent.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.wire.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
