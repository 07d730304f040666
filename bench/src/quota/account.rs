//! An account with a quota for each second, at an endpoint that can go away.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Connection;
use crate::script::Bill;
use crate::upload;
use crate::upstream::{OUTPUT_TOKENS, TEXT_TOKENS, answer, compatible_answer};

const BILL: Bill = Bill { image: upload::IMAGE_TOKENS, text: TEXT_TOKENS, output: OUTPUT_TOKENS };

/// Requests sent before the `Retry-After` could arrive do not count as violations.
const HEARING: Duration = Duration::from_millis(100);

/// An account, served on a port of its own.
pub(super) struct Account {
    pub(super) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    quota: Option<(u64, u64)>,
    latency: Duration,
    ok: Vec<u8>,
    throttled: Vec<u8>,
    books: Mutex<Books>,
}

/// The counts so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) passed: u64,
    pub(super) throttled: u64,
    /// Requests before a `Retry-After` had ended.
    pub(super) early: u64,
    /// Requests while the endpoint was away.
    pub(super) refused: u64,
}

#[derive(Default)]
struct Books {
    seen: Seen,
    /// The start of the window, and the amount it has admitted.
    window: Option<(Instant, u64, u64)>,
    /// The interval in which no request should arrive.
    closed: Option<(Instant, Instant)>,
    in_flight: u64,
    is_away: bool,
}

/// The outcome of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    Throttled,
    Refused,
}

impl Account {
    /// An account that admits so many requests and tokens in each second, or all; windows begin
    /// with the first request after the last one.
    pub(super) fn start(quota: Option<(u64, u64)>, latency: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let complaint = r#"{"error":{"code":"limit_requests","message":"over the quota"}}"#;
        let throttled = answer("429 Too Many Requests\r\nretry-after: 1", complaint);
        let ok = compatible_answer(BILL);
        let state = Arc::new(State { quota, latency, ok, throttled, books: Mutex::default() });
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&serving);
                // The client handles a broken connection.
                thread::spawn(move || drop(state.serve(stream)));
            }
        });
        Ok(Self { address, state })
    }

    pub(super) fn seen(&self) -> Seen {
        self.state.books().seen
    }

    /// From now on closes every connection on which a request arrives. Returns the number of
    /// requests in progress.
    pub(super) fn go_away(&self) -> u64 {
        let mut books = self.state.books();
        books.is_away = true;
        books.in_flight
    }

    pub(super) fn come_back(&self) {
        self.state.books().is_away = false;
    }
}

impl State {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut connection = Connection::over(stream)?;
        while let Some(head) = connection.head()? {
            let fate = self.fate();
            if fate == Fate::Refused {
                return Ok(());
            }
            connection.drop_body(head.length()?)?;
            if fate == Fate::Throttled {
                connection.send(&self.throttled)?;
                continue;
            }
            thread::sleep(self.latency);
            let mut books = self.books();
            books.in_flight -= 1;
            if books.is_away {
                return Ok(());
            }
            drop(books);
            connection.send(&self.ok)?;
        }
        Ok(())
    }

    fn fate(&self) -> Fate {
        let now = Instant::now();
        let mut books = self.books();
        if books.is_away {
            books.seen.refused += 1;
            return Fate::Refused;
        }
        if books.closed.is_some_and(|(from, to)| now > from + HEARING && now < to) {
            books.seen.early += 1;
        }
        let tokens = u64::from(BILL.image + BILL.text + BILL.output);
        let (began, requests, all) = match books.window {
            Some(window) if window.0.elapsed() < Duration::from_secs(1) => window,
            _ => (now, 0, 0),
        };
        let fits = self.quota.is_none_or(|quota| requests < quota.0 && all + tokens <= quota.1);
        if fits {
            books.window = Some((began, requests + 1, all + tokens));
            books.seen.passed += 1;
            books.in_flight += 1;
            return Fate::Passes;
        }
        books.seen.throttled += 1;
        books.closed = Some((now, now + Duration::from_secs(1)));
        Fate::Throttled
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
