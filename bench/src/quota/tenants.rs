//! Tenants whose callers always have another page.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::http::{self, Connection};
use crate::subject::{Rig, Subject};
use crate::terminal::Failure;
use crate::upload::{Form, Upload};

/// How long an impatient caller waits after a refusal, regardless of its `Retry-After`.
const HURRY: Duration = Duration::from_millis(100);

/// The callers of all tenants.
pub(super) struct Tenants {
    callers: Vec<(usize, JoinHandle<Result<Served, Failure>>)>,
    count: usize,
    news: Arc<Mutex<News>>,
}

/// The results of one tenant, or of one caller.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Served {
    pub(super) answered: u64,
    /// Refused for now: 429 and 503.
    pub(super) refused: u64,
    /// Any other answer.
    pub(super) odd: u64,
}

#[derive(Default)]
struct News {
    failed: u64,
    answered_at: Option<Instant>,
}

/// One caller.
struct Caller {
    gateway: std::net::SocketAddr,
    message: Vec<u8>,
    news: Arc<Mutex<News>>,
    served: Served,
}

impl Tenants {
    /// Makes a tenant for each number, with that many callers, which send requests until `until`.
    pub(super) fn start(
        rig: &Rig,
        gateway: &Subject,
        program: &Path,
        upload: &Upload,
        numbers: &[u64],
        until: Instant,
    ) -> Result<Self, Failure> {
        let news = Arc::new(Mutex::new(News::default()));
        let mut callers = Vec::new();
        for (tenant, number) in numbers.iter().enumerate() {
            let key = rig.tenant(gateway, program, &format!("greedy-{tenant}"))?;
            let headers = [
                format!("Authorization: Bearer {key}"),
                format!("Content-Type: {}", Form::File.media_type()),
            ];
            let message = http::request("/ocr", &headers, &Form::File.body(upload));
            for _ in 0..*number {
                let caller = Caller {
                    gateway: gateway.address,
                    message: message.clone(),
                    news: Arc::clone(&news),
                    served: Served::default(),
                };
                callers.push((tenant, thread::spawn(move || caller.ask(until))));
            }
        }
        Ok(Self { callers, count: numbers.len(), news })
    }

    /// The number of requests without an answer of the model so far.
    pub(super) fn failed(&self) -> u64 {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).failed
    }

    /// The time of the model's next answer, if it came before `until`.
    pub(super) fn next_answer(&self, until: Instant) -> Option<Instant> {
        let now = Instant::now();
        while Instant::now() < until {
            let at = self.news.lock().unwrap_or_else(PoisonError::into_inner).answered_at;
            if let Some(at) = at.filter(|at| *at > now) {
                return Some(at);
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Waits for all callers and returns the results of each tenant.
    pub(super) fn join(self) -> Result<Vec<Served>, Failure> {
        let mut served = vec![Served::default(); self.count];
        for (tenant, caller) in self.callers {
            let of_caller = caller.join().map_err(|_panic| "a caller panicked")??;
            let sum = &mut served[tenant];
            sum.answered += of_caller.answered;
            sum.refused += of_caller.refused;
            sum.odd += of_caller.odd;
        }
        Ok(served)
    }
}

impl Caller {
    fn ask(mut self, until: Instant) -> Result<Served, Failure> {
        let mut connection = Connection::open(self.gateway)?;
        while Instant::now() < until {
            connection.send(&self.message)?;
            let Some(head) = connection.head()? else {
                connection = Connection::open(self.gateway)?;
                continue;
            };
            connection.drop_body(head.length()?)?;
            self.note(head.status());
            if head.status() != Some(200) {
                thread::sleep(HURRY);
                connection = Connection::open(self.gateway)?;
            }
        }
        Ok(self.served)
    }

    fn note(&mut self, status: Option<u16>) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            Some(200) => {
                self.served.answered += 1;
                news.answered_at = Some(Instant::now());
                return;
            }
            Some(429 | 503) => self.served.refused += 1,
            _ => self.served.odd += 1,
        }
        news.failed += 1;
    }
}
