//! One accepted connection: bounded in time where hyper is not, and closed only when the client has
//! heard the answer.
//!
//! Two things hyper leaves to its caller. A client that does not read its answer would hold the
//! connection for ever, so a write that makes no progress for a while is an error. And a request may be
//! refused before its body was read: to close a socket with unread data resets the connection, and a
//! client that is still sending then sees the reset instead of the refusal, so what it still sends is
//! read and dropped for a moment (as nginx's `lingering_close` does).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_util::task::TaskTracker;

/// How long what a client still sends is read after the answer was given. Longer than the round
/// trip that the answer needs, shorter than a slow client could use to hold resources.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes read at once while lingering.
const LINGER_BUFFER: usize = 8 * 1024;

/// An accepted connection with its place among all connections, kept until the socket is closed.
#[derive(Debug)]
pub(super) struct Connection {
    open: Option<(TcpStream, OwnedSemaphorePermit)>,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    closing: TaskTracker,
}

impl Connection {
    /// A connection whose client may leave a write waiting for `patience`; `closing` tracks the task
    /// that closes it.
    pub(super) fn new(
        stream: TcpStream,
        place: OwnedSemaphorePermit,
        patience: Duration,
        closing: TaskTracker,
    ) -> Self {
        // An answer is one write; waiting to fill a packet only delays it. Where the option is
        // refused the connection still works.
        let _ = stream.set_nodelay(true);
        Self { open: Some((stream, place)), patience, stalled: None, closing }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.open.as_mut().map(|(stream, _)| Pin::new(stream));
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Lets a write wait for as long as the client's patience is not used up.
    fn timed<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some((stream, place)) = self.open.take() else { return };
        if tokio::runtime::Handle::try_current().is_ok() {
            self.closing.spawn(linger(stream, place));
        }
    }
}

async fn linger(mut stream: TcpStream, place: OwnedSemaphorePermit) {
    let read_on = async {
        stream.shutdown().await?;
        let mut dropped = vec![0; LINGER_BUFFER];
        while stream.read(&mut dropped).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Either the client is done, or it has had its time.
    let _ = tokio::time::timeout(LINGER, read_on).await;
    drop(place);
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream()?.poll_write(context, data);
        this.timed(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream()?.poll_write_vectored(context, data);
        this.timed(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_shutdown(context)
    }
}
