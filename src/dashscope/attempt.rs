//! One attempt: the request goes out, the answer comes in, nothing takes longer than it may.
//!
//! Four clocks run. The connection's is reqwest's; the headers', the silence between two pieces of
//! the answer and the attempt as a whole are kept here, the last cut short by the caller's
//! deadline. Which one ran out is part of the answer to "why", so they are not folded into one.
//!
//! Everything that reqwest would do by itself with a request that spends money is turned off: it
//! follows no redirect, which would carry the key to another host, and repeats nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Response, Url};
use tokio::time::timeout;

use super::ClientError;
use super::answer::{self, Answer, Received};
use super::error::{Code, Defect, Fault, Timeout};
use super::request::Request;
use super::settings::UpstreamSettings;
use super::verdict::{Bill, Failure, Repeat, unusable};
use crate::clock::Clock;
use crate::units::Usage;

/// How long an idle connection is kept. Shorter than servers keep theirs (Envoy: an hour, many load
/// balancers: a minute), so that a request rarely meets a connection that is just being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of an error's body is read: the vendor's are some hundred bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// The largest answer that is parsed on the reactor; about a tenth of a millisecond. Pages of text
/// are smaller, so the blocking pool sees only the odd one.
const INLINE_BYTES: usize = 64 * 1024;

/// The longest that a `Retry-After` is believed. The vendor says that recovery takes a minute; a
/// date that a wrong clock put into next year must not close a model until the next restart.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(10);

/// The HTTP side of one endpoint.
#[derive(Debug)]
pub(super) struct Transport {
    http: reqwest::Client,
    base: String,
    authorization: HeaderValue,
    first_byte: Duration,
    idle: Duration,
    total: Duration,
    max_response_bytes: usize,
    clock: Arc<dyn Clock>,
}

impl Transport {
    pub(super) fn new(
        settings: &UpstreamSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        let base = settings.base()?;
        // Without a process-wide provider reqwest panics. The binary installs one; a test or
        // another embedder may not have. Where there is one, it stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("ocr-gateway/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(settings.pool_max_idle)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false);
        if is_loopback(&base) {
            // A proxy from the environment is for the vendor's address; the emulator is next door.
            http = http.no_proxy();
        }
        Ok(Self {
            http: http.build().map_err(ClientError::Http)?,
            base: base.as_str().trim_end_matches('/').to_owned(),
            authorization: settings.authorization()?,
            first_byte: settings.first_byte_timeout(),
            idle: settings.idle_timeout(),
            total: settings.total_timeout(),
            max_response_bytes: settings.max_response_bytes,
            clock,
        })
    }

    /// Sends `request` and reads what comes back, within `left`.
    pub(super) async fn exchange(
        &self,
        request: &Request,
        left: Duration,
        bound: &Usage,
    ) -> Result<Answer, Failure> {
        let (body, handed_over) = request.document.body();
        let request = self
            .request(reqwest::Method::POST, request.path)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(reqwest::Body::wrap(body));
        let whole = self.total.min(left);
        let received = match timeout(whole, self.receive(request)).await {
            Ok(received) => received,
            Err(_) if left <= self.total => Err(Broken::Deadline),
            Err(_) => Err(Broken::Timeout(Timeout::Total)),
        };
        match received {
            Ok(received) => read(received, *bound).await,
            Err(broken) => Err(broken.failure(&handed_over)),
        }
    }

    /// A request to `path` below the endpoint's address, with the key.
    pub(super) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, self.address(path))
            .header(AUTHORIZATION, self.authorization.clone())
            .header(ACCEPT, HeaderValue::from_static("application/json"))
    }

    /// The address of `path` at the endpoint.
    pub(super) fn address(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn receive(&self, request: reqwest::RequestBuilder) -> Result<Received, Broken> {
        let mut response = match timeout(self.first_byte, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => return Err(Broken::Unreachable),
            Ok(Err(_)) => return Err(Broken::Interrupted),
            Err(_) => return Err(Broken::Timeout(Timeout::FirstByte)),
        };
        let (status, headers) = (response.status(), response.headers());
        let mut received = Received {
            status: status.as_u16(),
            request_id: text(headers, "x-request-id").and_then(Code::new),
            retry_after: self.retry_after(headers).map(|wait| wait.min(LONGEST_RETRY_AFTER)),
            body: Vec::new(),
        };
        if status.is_success() {
            self.fill(&mut response, &mut received.body, self.max_response_bytes).await?;
            return Ok(received);
        }
        // The status alone says enough, so an error's body may be cut, broken or slow.
        let _ = self.fill(&mut response, &mut received.body, MAX_ERROR_BYTES).await;
        Ok(received)
    }

    async fn fill(
        &self,
        response: &mut Response,
        body: &mut Vec<u8>,
        most: usize,
    ) -> Result<(), Broken> {
        loop {
            let piece = match timeout(self.idle, response.chunk()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(_)) => return Err(Broken::Interrupted),
                Err(_) => return Err(Broken::Timeout(Timeout::Idle)),
            };
            if body.len() + piece.len() > most {
                return Err(Broken::TooLong);
            }
            body.extend_from_slice(&piece);
        }
    }

    /// The vendor's SDK reads `retry-after-ms` and `retry-after`, the latter in both forms of RFC
    /// 9110, section 10.2.3.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let number = |name| text(headers, name).and_then(|value| value.trim().parse::<u64>().ok());
        if let Some(milliseconds) = number("retry-after-ms") {
            return Some(Duration::from_millis(milliseconds));
        }
        if let Some(seconds) = number("retry-after") {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(text(headers, "retry-after")?).ok()?;
        Some(date.duration_since(self.clock.now()).unwrap_or_default())
    }
}

/// Why there is nothing to read.
enum Broken {
    Unreachable,
    Interrupted,
    TooLong,
    Timeout(Timeout),
    Deadline,
}

impl Broken {
    /// What that means for the call, given whether the whole request had been handed over.
    fn failure(self, handed_over: &AtomicBool) -> Failure {
        // Without its last piece the upstream had no request that it could have worked on.
        let bill = if handed_over.load(Ordering::Acquire) { Bill::Unknown } else { Bill::Nothing };
        match self {
            Self::Unreachable => Failure::new(Fault::Unreachable, Repeat::Transient, Bill::Nothing),
            Self::Interrupted => Failure::new(Fault::Interrupted, Repeat::Transient, bill),
            Self::TooLong => unusable(Defect::TooLong, None),
            // A page that took minutes would take minutes again, and be paid for again.
            Self::Timeout(which) => Failure::new(Fault::Timeout(which), Repeat::Never, bill),
            Self::Deadline => Failure::new(Fault::DeadlineExceeded, Repeat::Never, bill),
        }
    }
}

async fn read(received: Received, bound: Usage) -> Result<Answer, Failure> {
    if received.body.len() <= INLINE_BYTES {
        return answer::read(&received, &bound);
    }
    let reading = tokio::task::spawn_blocking(move || answer::read(&received, &bound));
    // The pool refuses work only while the process ends; the answer was there, so it may be billed.
    reading.await.unwrap_or_else(|_| Err(unusable(Defect::NotJson, None)))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}
