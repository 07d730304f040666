//! One accepted connection, with the time limits and the graceful close that hyper leaves to its caller.
//!
//! A client that does not read its answer would hold the connection for ever, so a write without progress for some time
//! is an error. A request may be refused before its body is read. Closing a socket with unread data resets the
//! connection, and a client that is still sending sees the reset instead of the refusal. So the connection is drained
//! for a moment before it is closed, as with nginx's `lingering_close`.
//!
//! hyper does not watch a client while its request is processed. [`ClientWatch`] reports whether the client has closed
//! its side or reset the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Sleep;
use tokio_util::task::TaskTracker;

use crate::capacity::CONNECTION_BYTES;
use crate::capacity::places::ConnectionPlace;

/// How long a connection is drained after the answer: longer than the round trip of the answer, and too short for a
/// slow client to hold resources.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// How many bytes are drained after the answer: more than the longest body has by default, so that its sender reads the
/// refusal. Further bytes stay in the kernel, which stops the sender.
const DRAIN_BYTES: usize = 32 << 20;

/// Bytes read at once while draining: the size of hyper's buffer, which is freed by then.
const DRAIN_BUFFER: usize = CONNECTION_BYTES;

/// An accepted connection with its place among all connections, kept until the socket is closed.
#[derive(Debug)]
pub(super) struct Connection {
    open: Option<OpenSocket>,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    closing: TaskTracker,
}

#[derive(Debug)]
struct OpenSocket {
    reading: Arc<OwnedReadHalf>,
    writing: OwnedWriteHalf,
    place: ConnectionPlace,
}

/// Watches the client's side of a connection while nobody reads from it.
#[derive(Debug)]
pub(super) struct ClientWatch(Arc<OwnedReadHalf>);

impl ClientWatch {
    /// Completes when the client has closed its sending side or reset the connection.
    pub(super) async fn half_closed(&self) {
        // The interest in urgent data, which no client sends, includes the end of reading and excludes readable data
        // before it.
        self.until(Interest::PRIORITY).await;
    }

    /// Completes when the client has reset the connection.
    pub(super) async fn reset(&self) {
        self.until(Interest::ERROR).await;
    }

    async fn until(&self, interest: Interest) {
        let stream: &TcpStream = self.0.as_ref().as_ref();
        if stream.ready(interest).await.is_err() {
            // The socket can no longer be watched.
            std::future::pending::<()>().await;
        }
    }
}

impl Connection {
    /// A connection whose writes may wait for the client for `patience`. `closing` tracks the task that closes it.
    pub(super) fn new(
        stream: TcpStream,
        place: ConnectionPlace,
        patience: Duration,
        closing: TaskTracker,
    ) -> Self {
        // An answer is one write, so waiting to fill a packet would only delay it. The connection works without the
        // option.
        let _ = stream.set_nodelay(true);
        let (reading, writing) = stream.into_split();
        let open = OpenSocket { reading: Arc::new(reading), writing, place };
        Self { open: Some(open), patience, stalled: None, closing }
    }

    /// A watch on its client.
    pub(super) fn watched(&self) -> Option<ClientWatch> {
        self.open.as_ref().map(|open| ClientWatch(Arc::clone(&open.reading)))
    }

    fn writing(&mut self) -> io::Result<Pin<&mut OwnedWriteHalf>> {
        let writing = self.open.as_mut().map(|open| Pin::new(&mut open.writing));
        writing.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Fails a write that waits longer than `patience`.
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
        let Some(open) = self.open.take() else { return };
        if open.place.visit().must_give_way() {
            // Another connection has taken its place.
            return;
        }
        if tokio::runtime::Handle::try_current().is_ok() {
            self.closing.spawn(drain(open));
        }
    }
}

async fn drain(OpenSocket { reading, mut writing, place }: OpenSocket) {
    let read_on = async {
        writing.shutdown().await?;
        let (mut dropped, mut left) = (vec![0; DRAIN_BUFFER], DRAIN_BYTES);
        while left > 0 {
            reading.readable().await?;
            match reading.try_read(&mut dropped) {
                Ok(0) => return Ok(()),
                Ok(bytes) => left = left.saturating_sub(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        drop(dropped);
        // Closing now would reset the connection before the client has read the answer.
        std::future::pending::<io::Result<()>>().await
    };
    // Drains until the client closes, the time is over, or another connection takes the place.
    let visit = place.visit();
    tokio::select! {
        _ = tokio::time::timeout(DRAIN_TIME, read_on) => {}
        () = visit.gives_way() => {}
    }
    drop(place);
}

/// Reads from the half that is shared with [`ClientWatch`].
///
/// A read that does not fill the buffer has emptied the socket, so it clears the readiness, as tokio's own `poll_read`
/// does. Otherwise a large upload would cost an empty second read for nearly every piece.
fn poll_read(
    reading: &OwnedReadHalf,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let stream: &TcpStream = reading.as_ref();
    loop {
        ready!(stream.poll_read_ready(context))?;
        let room = buffer.remaining();
        let mut bytes = 0;
        let read = stream.try_io(Interest::READABLE, || {
            bytes = stream.try_read_buf(buffer)?;
            let is_emptied = (1..room).contains(&bytes);
            if is_emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match read {
            Err(error) if bytes == 0 && error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if bytes == 0 => return Poll::Ready(Err(error)),
            _ => return Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(open) = &self.open else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        poll_read(&open.reading, context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.writing()?.poll_write(context, data);
        this.timed(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.writing()?.poll_write_vectored(context, data);
        this.timed(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().writing()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().writing()?.poll_shutdown(context)
    }
}
