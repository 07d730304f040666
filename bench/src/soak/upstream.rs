//! A faulty upstream that keeps its own books.
//!
//! Unlike the upstream of the measurements, it checks every picture and records what it billed: the
//! bills that it sent in full, and the costs that it could not report, since a model may already
//! have been at work.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::chance::Chance;
use crate::clock;
use crate::http::{Connection, Head};
use crate::script::{Bill, Script};
use crate::terminal::Failure;
use crate::upload;
use crate::upstream::{self, OUTPUT_TOKENS, TEXT_TOKENS};

/// How long a call hangs: longer than the gateway waits for a first byte.
const HANG: Duration = Duration::from_secs(8);

/// The number of events of a stream, and their distance in time.
const EVENTS: usize = 12;
const BETWEEN_EVENTS: Duration = Duration::from_millis(4);

const BILL: Bill = Bill { image: upload::IMAGE_TOKENS, text: TEXT_TOKENS, output: OUTPUT_TOKENS };

/// The outcomes of the calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Tokens of bills that were sent in full.
    told: AtomicU64,
    /// Tokens that were spent on answers which broke off before their bill.
    untold: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    hung: AtomicU64,
    garbled: AtomicU64,
}

/// A final [`Tally`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tallied {
    pub(crate) told: u64,
    pub(crate) untold: u64,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) broken: u64,
    pub(crate) hung: u64,
    /// Requests without a whole picture.
    pub(crate) garbled: u64,
}

/// The fate of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Throttled,
    Failed,
    /// The connection ends within the request.
    CutEarly,
    /// The connection ends where the answer would begin.
    CutBefore,
    /// The connection ends within the answer.
    CutWithin,
    Hung,
}

impl Tally {
    /// The totals so far.
    pub(crate) fn read(&self) -> Tallied {
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Tallied {
            told: read(&self.told),
            untold: read(&self.untold),
            answered: read(&self.answered),
            refused: read(&self.refused),
            broken: read(&self.broken),
            hung: read(&self.hung),
            garbled: read(&self.garbled),
        }
    }
}

impl Fate {
    fn by(chance: &mut Chance) -> Self {
        match chance.below(200) {
            0..10 => Self::Throttled,
            10..20 => Self::Failed,
            20..26 => Self::CutEarly,
            26..32 => Self::CutBefore,
            32..38 => Self::CutWithin,
            38 => Self::Hung,
            _ => Self::Answered,
        }
    }
}

/// Listens until the process ends: a thread for each connection.
pub(crate) fn start(seed: u64, tally: Arc<Tally>) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for (number, stream) in (0..).zip(listener.incoming().flatten()) {
            let (tally, chance) = (Arc::clone(&tally), Chance::new(seed ^ 0x5eed, number));
            // The other end finds out by itself where a connection breaks.
            thread::spawn(move || Serving::new(tally, chance).exchange(stream));
        }
    });
    Ok(address)
}

/// Serves one connection.
struct Serving {
    tally: Arc<Tally>,
    chance: Chance,
    script: Script,
    whole: Vec<u8>,
}

impl Serving {
    fn new(tally: Arc<Tally>, chance: Chance) -> Self {
        let whole = upstream::compatible_answer(BILL);
        Self { tally, chance, script: Script::new(200, BILL), whole }
    }

    fn exchange(mut self, stream: TcpStream) -> io::Result<()> {
        let mut connection = Connection::over(stream)?;
        while let Some(head) = connection.head()? {
            let fate = Fate::by(&mut self.chance);
            if fate == Fate::CutEarly {
                connection.drop_body(head.length()? / 2)?;
                count(&self.tally.broken, 1);
                return Ok(());
            }
            let Some(is_stream) = self.look(&mut connection, &head)? else { return Ok(()) };
            thread::sleep(Duration::from_millis(self.chance.below(30)));
            if !self.meet(&mut connection, fate, is_stream)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads the request and returns whether it asks for a stream; `None` if there is no picture.
    fn look(&self, connection: &mut Connection, head: &Head) -> io::Result<Option<bool>> {
        const END: usize = 200;
        let body = connection.body(head.length()?)?;
        if !upstream::holds_a_picture(&body) {
            count(&self.tally.garbled, 1);
            return Ok(None);
        }
        let end = String::from_utf8_lossy(&body[body.len().saturating_sub(END)..]);
        Ok(Some(end.contains(r#""stream":true"#)))
    }

    /// Applies a fate. Returns whether the connection stays open.
    fn meet(
        &mut self,
        connection: &mut Connection,
        fate: Fate,
        is_stream: bool,
    ) -> io::Result<bool> {
        let tokens = u64::from(BILL.image + BILL.text + BILL.output);
        match fate {
            Fate::Throttled => {
                count(&self.tally.refused, 1);
                connection.send(&refusal("429 Too Many Requests", "Throttling.BurstRate"))?;
                return Ok(true);
            }
            Fate::Failed => {
                count(&self.tally.refused, 1);
                connection.send(&refusal("500 Internal Server Error", "InternalError"))?;
                return Ok(true);
            }
            Fate::Hung => {
                count(&self.tally.hung, 1);
                count(&self.tally.untold, tokens);
                thread::sleep(HANG);
                return Ok(false);
            }
            _ => {}
        }
        if fate == Fate::Answered && self.answer(connection, is_stream).is_ok() {
            count(&self.tally.answered, 1);
            count(&self.tally.told, tokens);
            return Ok(true);
        }
        count(&self.tally.broken, 1);
        count(&self.tally.untold, tokens);
        if fate == Fate::CutWithin && is_stream {
            connection.send(&self.script.beginning(clock::now()))?;
            connection.send(&self.script.events(EVENTS / 2, clock::now()))?;
        } else if fate == Fate::CutWithin {
            connection.send(&self.whole[..self.whole.len() / 2])?;
        }
        Ok(false)
    }

    fn answer(&self, connection: &mut Connection, is_stream: bool) -> io::Result<()> {
        if !is_stream {
            return connection.send(&self.whole);
        }
        connection.send(&self.script.beginning(clock::now()))?;
        for _ in 1..EVENTS {
            thread::sleep(BETWEEN_EVENTS);
            connection.send(&self.script.events(1, clock::now()))?;
        }
        connection.send(self.script.end(true))
    }
}

fn refusal(status: &str, code: &str) -> Vec<u8> {
    let body = format!(r#"{{"error":{{"code":"{code}","type":"{code}","message":"not now"}}}}"#);
    upstream::answer(status, &body)
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::SeqCst);
}
