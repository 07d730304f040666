//! A health probe like an orchestrator's, with a new connection for each request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::http::Connection;
use crate::terminal::Failure;

/// The time between two requests.
const PAUSE: Duration = Duration::from_millis(5);

/// Probes until it is stopped.
#[derive(Debug)]
pub(crate) struct Probe {
    is_over: Arc<AtomicBool>,
    asking: JoinHandle<Vec<Result<Duration, String>>>,
}

impl Probe {
    /// Starts to probe `metrics`.
    pub(crate) fn start(metrics: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let asking = thread::spawn(move || {
            let mut took = Vec::new();
            for path in ["/readyz", "/livez"].iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                took.push(ask(metrics, path).map_err(|error| format!("{path}: {error}")));
                thread::sleep(PAUSE);
            }
            took
        });
        Self { is_over, asking }
    }

    /// The duration of each answer, including the connection, or the reason why there was none.
    pub(crate) fn stop(self) -> Result<Vec<Result<Duration, String>>, Failure> {
        self.is_over.store(true, Ordering::Relaxed);
        self.asking.join().map_err(|_panic| "the probe panicked".into())
    }
}

fn ask(metrics: SocketAddr, path: &str) -> Result<Duration, Failure> {
    let started = Instant::now();
    let mut connection = Connection::open(metrics)?;
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes())?;
    let head = connection.head()?.ok_or("closed without an answer")?;
    match head.status() {
        Some(200) => Ok(started.elapsed()),
        _ => Err(head.first_line.into()),
    }
}
