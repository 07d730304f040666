//! One accepted connection: bounded in time where hyper is not, and closed only when the client has
//! heard the answer.
//!
//! Two things hyper leaves to its caller. A client that does not read its answer would hold the
//! connection for ever, so a write that makes no progress for a while is an error. And a request may be
//! refused before its body was read: to close a socket with unread data resets the connection, and a
//! client that is still sending then sees the reset instead of the refusal, so what it still sends is
//! read and dropped for a moment (as nginx's `lingering_close` does).
//!
//! A third is left to `server`: hyper does not look at a client while its request is worked on, so
//! [`Watched`] tells whether it has closed its side or reset the connection.

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
use crate::capacity::places::Place;

/// How long what a client still sends is read after the answer was given. Longer than the round
/// trip that the answer needs, shorter than a slow client could use to hold resources.
const LINGER: Duration = Duration::from_secs(2);

/// The most that is read after the answer was given, in bytes: more than the longest body has by default, so that
/// its sender hears why it is refused. What comes beyond waits in the kernel, and its sender with it.
const LINGER_BYTES: usize = 32 << 20;

/// Bytes read at once while lingering: as many as hyper's buffer had, which is gone by then.
const LINGER_BUFFER: usize = CONNECTION_BYTES;

/// An accepted connection with its place among all connections, kept until the socket is closed.
#[derive(Debug)]
pub(super) struct Connection {
    open: Option<Open>,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    closing: TaskTracker,
}

#[derive(Debug)]
struct Open {
    reading: Arc<OwnedReadHalf>,
    writing: OwnedWriteHalf,
    place: Place,
}

/// What a client does with its side of a connection while nobody reads.
#[derive(Debug)]
pub(super) struct Watched(Arc<OwnedReadHalf>);

impl Watched {
    /// Ready once the client sends nothing more, or has reset the connection.
    pub(super) async fn half_closed(&self) {
        // The interest in urgent data, which nobody sends, is one in the end of reading too, and none in what
        // may be read before it.
        self.until(Interest::PRIORITY).await;
    }

    /// Ready once the client has reset the connection.
    pub(super) async fn reset(&self) {
        self.until(Interest::ERROR).await;
    }

    async fn until(&self, interest: Interest) {
        let stream: &TcpStream = self.0.as_ref().as_ref();
        if stream.ready(interest).await.is_err() {
            // It cannot be told any more.
            std::future::pending::<()>().await;
        }
    }
}

impl Connection {
    /// A connection whose client may leave a write waiting for `patience`; `closing` tracks the task
    /// that closes it.
    pub(super) fn new(
        stream: TcpStream,
        place: Place,
        patience: Duration,
        closing: TaskTracker,
    ) -> Self {
        // An answer is one write; waiting to fill a packet only delays it. Where the option is
        // refused the connection still works.
        let _ = stream.set_nodelay(true);
        let (reading, writing) = stream.into_split();
        let open = Open { reading: Arc::new(reading), writing, place };
        Self { open: Some(open), patience, stalled: None, closing }
    }

    /// Tells what its client does.
    pub(super) fn watched(&self) -> Option<Watched> {
        self.open.as_ref().map(|open| Watched(Arc::clone(&open.reading)))
    }

    fn writing(&mut self) -> io::Result<Pin<&mut OwnedWriteHalf>> {
        let writing = self.open.as_mut().map(|open| Pin::new(&mut open.writing));
        writing.ok_or_else(|| io::ErrorKind::NotConnected.into())
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
        let Some(open) = self.open.take() else { return };
        if open.place.visit().must_give_way() {
            // Another connection has its place by now.
            return;
        }
        if tokio::runtime::Handle::try_current().is_ok() {
            self.closing.spawn(linger(open));
        }
    }
}

async fn linger(Open { reading, mut writing, place }: Open) {
    let read_on = async {
        writing.shutdown().await?;
        let (mut dropped, mut left) = (vec![0; LINGER_BUFFER], LINGER_BYTES);
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
        // To close now would reset the connection before the client has read the answer.
        std::future::pending::<io::Result<()>>().await
    };
    // Either the client is done, or it has had its time, or its place is another's.
    let visit = place.visit();
    tokio::select! {
        _ = tokio::time::timeout(LINGER, read_on) => {}
        () = visit.gives_way() => {}
    }
    drop(place);
}

/// Reads from a half that is shared with who watches it.
///
/// A read that leaves room in the buffer has emptied the socket, so it takes the readiness away with it, as
/// tokio's own `poll_read` does. Otherwise a large upload would cost a second, empty read for nearly every piece.
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
