//! Many uploads at once, each on a connection of its own.
//!
//! One thread writes and another reads, because the answer to a refused upload arrives while it is
//! still being sent. It is no failure if the writer is cut off then, but it is one if the reader
//! gets no answer.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Connection;
use crate::terminal::Failure;

/// The stack of a thread that only waits.
const STACK: usize = 128 * 1024;

/// The timeout of an answer: longer than the gateway may take.
const PATIENCE: Duration = Duration::from_secs(250);

/// The result of one upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The status.
    pub(crate) status: u16,
    /// From before the first byte was sent until the head of the answer arrived.
    pub(crate) took: Duration,
}

/// The lowest priority of a thread (setpriority(2)).
const LEAST_URGENT: i32 = 19;

/// Sends so many uploads at once, of these messages in turn. Returns the result of each, or the
/// reason why it got no answer.
pub(crate) fn fire(
    address: SocketAddr,
    messages: &[Arc<Vec<u8>>],
    uploads: usize,
) -> Result<Vec<Result<Heard, String>>, Failure> {
    let start = Arc::new(Barrier::new(uploads));
    let mut senders = Vec::new();
    for message in messages.iter().cycle().take(uploads) {
        let (message, start) = (Arc::clone(message), Arc::clone(&start));
        let sending = move || {
            let stream = TcpStream::connect(address);
            yield_to_others();
            start.wait();
            let stream = stream.map_err(|error| format!("connecting: {error}"))?;
            upload(stream, message).map_err(|error| error.to_string())
        };
        senders.push(thread::Builder::new().stack_size(STACK).spawn(sending)?);
    }
    let heard = senders
        .into_iter()
        .map(|sender| sender.join().unwrap_or_else(|_panic| Err("the sender panicked".to_owned())));
    Ok(heard.collect())
}

fn upload(stream: TcpStream, message: Arc<Vec<u8>>) -> Result<Heard, Failure> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut sending = stream.try_clone()?;
    let last = stream.try_clone()?;
    let started = Instant::now();
    let writing = move || {
        yield_to_others();
        // The connection of a refused upload is closed sooner or later.
        let _ = sending.write_all(&message);
    };
    let writer = thread::Builder::new().stack_size(STACK).spawn(writing)?;
    let mut connection = Connection::over(stream)?;
    let head = connection.head();
    let took = started.elapsed();
    // A client that has its answer closes the connection.
    let _ = last.shutdown(Shutdown::Both);
    let _ = writer.join();
    let head = head?.ok_or("the connection was closed without an answer")?;
    Ok(Heard { status: head.status().ok_or("no status")?, took })
}

/// Thousands of threads on the machine's few cores would delay the gateway and the health probe. A
/// crowd of clients on other machines would not.
fn yield_to_others() {
    // If the priority cannot be lowered, the figures get worse but stay correct.
    let _ = rustix::process::setpriority_process(None, LEAST_URGENT);
}
