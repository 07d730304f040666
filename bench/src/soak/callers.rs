//! Callers of all kinds: most wait for their answer, and some leave at each possible point.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::chance::Chance;
use crate::chunked::Chunked;
use crate::http::{self, Connection};
use crate::subject::{COMPATIBLE, Subject};
use crate::terminal::Failure;
use crate::upload::{Billing, Form, Upload};

/// The timeout after which the gateway counts as hanging.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long a silent caller waits: longer than the gateway's timeout.
const SILENCE: Duration = Duration::from_secs(3);

/// The results of callers: answers by status, and callers that left, by their point of leaving.
pub(crate) type Asked = BTreeMap<String, u64>;

/// All of them.
pub(crate) struct Callers(Vec<JoinHandle<io::Result<Asked>>>);

/// A request as sent, and whether its answer is a stream.
struct Prepared {
    message: Vec<u8>,
    size: usize,
}

/// The point at which a caller leaves.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    InHead,
    InBody,
    /// Silent in the body until the gateway's timeout.
    Silent,
    AfterRequest,
    InAnswer,
}

impl Leaving {
    fn by(chance: &mut Chance) -> Option<Self> {
        match chance.below(40) {
            0 | 1 => Some(Self::InHead),
            2 | 3 => Some(Self::InBody),
            4 => Some(Self::Silent),
            5..8 => Some(Self::AfterRequest),
            8..11 => Some(Self::InAnswer),
            _ => None,
        }
    }
}

impl Callers {
    /// Lets `count` callers send requests until `until`.
    pub(crate) fn start(
        gateway: &Subject,
        uploads: &[Upload],
        count: u64,
        seed: u64,
        until: Instant,
    ) -> Self {
        let prepared: Arc<Vec<_>> = Arc::new(
            uploads.iter().enumerate().flat_map(|(size, u)| all(gateway, u, size)).collect(),
        );
        let address = gateway.address;
        let start = |number| {
            let (prepared, chance) = (Arc::clone(&prepared), Chance::new(seed, number));
            thread::spawn(move || {
                Caller { address, chance, asked: Asked::new() }.ask(&prepared, until)
            })
        };
        Self((0..count).map(start).collect())
    }

    /// Waits for all callers.
    ///
    /// # Errors
    ///
    /// A caller could not be served at all.
    pub(crate) fn join(self) -> Result<Asked, Failure> {
        let mut all = Asked::new();
        for caller in self.0 {
            for (what, count) in caller.join().map_err(|_| "a caller panicked")?? {
                *all.entry(what).or_default() += count;
            }
        }
        Ok(all)
    }
}

/// An upload in every form, to every path that accepts it, whole and streamed.
fn all(gateway: &Subject, upload: &Upload, size: usize) -> Vec<Prepared> {
    let ask = |path, form: Form, accept: &str, body: &[u8]| {
        let headers = [
            gateway.authorization.clone(),
            format!("Content-Type: {}", form.media_type()),
            format!("Accept: {accept}"),
        ];
        Prepared { message: http::request(path, &headers, body), size }
    };
    let (json, stream) = ("application/json", "text/event-stream");
    vec![
        ask("/ocr", Form::File, json, &upload.file),
        ask("/ocr", Form::Multipart, json, &Form::Multipart.body(upload)),
        ask("/ocr", Form::File, stream, &upload.file),
        ask(COMPATIBLE, Form::Json, json, &upload.json()),
        ask(COMPATIBLE, Form::Json, stream, &upload.stream_json(Billing::Told)),
        ask(COMPATIBLE, Form::Json, stream, &upload.stream_json(Billing::Hidden)),
    ]
}

struct Caller {
    address: SocketAddr,
    chance: Chance,
    asked: Asked,
}

impl Caller {
    fn ask(mut self, prepared: &[Prepared], until: Instant) -> io::Result<Asked> {
        let mut kept = None;
        while Instant::now() < until {
            let (stream, mut connection) = match kept.take() {
                Some(kept) => kept,
                None => self.connect()?,
            };
            let message = self.choose(prepared);
            let told = match Leaving::by(&mut self.chance) {
                Some(leaving) => self.leave(leaving, &stream, &mut connection, message),
                None => exchange(&mut connection, message).map(|status| format!("{status}")),
            };
            // A connection with any fault is not used again: the answer to a request that was cut
            // or came too slowly ends it.
            let told = told.unwrap_or_else(|error| format!("broke off ({:?})", error.kind()));
            if told == "200" {
                kept = Some((stream, connection));
            }
            *self.asked.entry(told).or_default() += 1;
        }
        Ok(self.asked)
    }

    fn connect(&self) -> io::Result<(TcpStream, Connection)> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok((stream.try_clone()?, Connection::over(stream)?))
    }

    /// Six of ten are small, three middling, one large.
    fn choose<'a>(&mut self, prepared: &'a [Prepared]) -> &'a [u8] {
        let size = match self.chance.below(10) {
            0..6 => 0,
            6..9 => 1,
            _ => 2,
        };
        let of_size: Vec<_> = prepared.iter().filter(|prepared| prepared.size == size).collect();
        let index = usize::try_from(self.chance.below(of_size.len() as u64)).unwrap_or(0);
        of_size.get(index).map_or(&[], |prepared| &prepared.message)
    }

    fn leave(
        &mut self,
        leaving: Leaving,
        mut stream: &TcpStream,
        connection: &mut Connection,
        message: &[u8],
    ) -> io::Result<String> {
        let told = format!("left {leaving:?}");
        let within = |chance: &mut Chance, length: usize| {
            usize::try_from(chance.below(length as u64)).unwrap_or(0)
        };
        match leaving {
            Leaving::InHead => stream.write_all(&message[..within(&mut self.chance, 60)])?,
            Leaving::InBody => {
                let sent = message.len() / 8 + within(&mut self.chance, message.len() / 2);
                stream.write_all(&message[..sent])?;
            }
            Leaving::Silent => {
                stream.write_all(&message[..message.len() / 2])?;
                thread::sleep(SILENCE);
            }
            Leaving::AfterRequest => {
                connection.send(message)?;
                thread::sleep(Duration::from_millis(self.chance.below(40)));
            }
            Leaving::InAnswer => {
                connection.send(message)?;
                connection.received()?;
            }
        }
        // Half of them shut down their sending side first, the others only drop the connection.
        if self.chance.below(2) == 0 {
            let _ = stream.shutdown(Shutdown::Write);
        }
        Ok(told)
    }
}

/// Sends the request and reads the answer to its end. Returns its status.
fn exchange(connection: &mut Connection, message: &[u8]) -> io::Result<u16> {
    connection.send(message)?;
    let head = connection.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.status().ok_or(io::ErrorKind::InvalidData)?;
    if !head.is_chunked() {
        connection.body(head.length()?)?;
        return Ok(status);
    }
    let (mut chunked, mut body) = (Chunked::default(), Vec::new());
    while !chunked.is_over() {
        let received = connection.received()?;
        if received.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        chunked.push(received, &mut body)?;
        body.clear();
    }
    Ok(status)
}
