//! One attempt: sends the request and receives the answer, each within its time limit.
//!
//! An attempt at a stream ends when the first event shows that the stream began successfully: until then nothing was
//! passed on, and the call can be repeated.
//!
//! There are several timeouts. reqwest enforces the one of the connection. This module enforces those of the headers,
//! of the time between two pieces of the answer, and of the attempt as a whole. The caller's deadline shortens the
//! last; once a stream began, the stream's own replaces it. The error says which timeout ran out, so they are kept
//! apart.
//!
//! reqwest does not resend a request that spends money: redirects, which would send the key to another host, and
//! retries are disabled.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Response, Url};
use tokio::time::timeout;

use super::answer::{Json, ModelAnswer};
use super::body::Sending;
use super::incoming::{Incoming, StreamLimits};
use super::memory::{AnswerMemory, AnswerPool, AnswerRoom};
use super::received::Received;
use super::request::{Expects, UpstreamRequest};
use super::response::{ReadError, ResponseBody};
use super::{answer, body};
use crate::clock::Clock;
use crate::dashscope::fault::error::{Code, Defect, Timeout};
use crate::dashscope::fault::verdict::{AttemptBill, Failure, unusable};
use crate::dashscope::protocol::Protocol;
use crate::dashscope::proxy::{ProxyError, Way};
use crate::dashscope::settings::{EndpointSettings, UpstreamSettings, UpstreamSettingsError};
use crate::units::Usage;

/// The reason why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// An invalid setting.
    #[error(transparent)]
    Settings(#[from] UpstreamSettingsError),
    /// A variable of the environment that holds no valid proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The machine's TLS roots or resolver cannot be used.
    #[error("the HTTP client cannot be made: {0}")]
    Http(#[source] reqwest::Error),
}

/// The time limit for a connection, TLS included: enough to resend a lost packet twice, and short compared with the
/// time of a page.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections that are kept: more than the calls that usually run at the same time.
const POOL_MAX_IDLE: usize = 64;

/// How long an idle connection is kept. Servers keep theirs longer (Envoy: an hour, many load balancers: a minute), so
/// a request rarely uses a connection that is just being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of bytes that are read of an error's body. The vendor's have some hundred bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// The largest answer that is parsed on the reactor, which takes about a tenth of a millisecond. Most pages of text are
/// smaller, so few use the blocking pool.
const INLINE_BYTES: usize = 64 * 1024;

/// The longest `Retry-After` that counts. The vendor says that recovery takes a minute, and a date in the next year
/// from a wrong clock must not close a model until the next restart.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(10);

/// The HTTP side of one endpoint.
#[derive(Debug)]
pub(crate) struct Transport {
    http: reqwest::Client,
    way: Way,
    base: String,
    /// The address of each protocol, parsed once: parsing costs as much as the rest of a request's head.
    compatible: Url,
    native: Url,
    authorization: HeaderValue,
    first_byte: Duration,
    idle: Duration,
    total: Duration,
    stream: Duration,
    max_response_bytes: usize,
    memory: AnswerPool,
    clock: Arc<dyn Clock>,
}

/// The reply to an attempt.
#[derive(Debug)]
pub(crate) enum Reception {
    /// The model's answer.
    Answer(Box<ModelAnswer>),
    /// JSON.
    Json(Box<Json>),
    /// A stream that began successfully.
    Events(Box<Incoming>),
}

impl Transport {
    pub(crate) fn new(
        settings: &UpstreamSettings,
        endpoint: &EndpointSettings,
        memory: AnswerPool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        let base = endpoint.base()?;
        let below = |protocol: Protocol| {
            let mut url = base.clone();
            url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), protocol.path()));
            url
        };
        // Without a process-wide provider reqwest panics. The binary installs one; a test or another embedder may not.
        // An installed one is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("ocr-gateway/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(POOL_MAX_IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // Over HTTP/2, uploads of megabytes share one connection and its flow-control window
            // (docs/adr/0013-build-and-allocator.md).
            .http1_only();
        #[cfg(target_os = "linux")]
        let http = http.tcp_user_timeout(body::STALLED);
        let way = settings.proxies.way_to(&base)?;
        let http = way.of(http).map_err(ClientError::Http)?;
        Ok(Self {
            way,
            http: http.build().map_err(ClientError::Http)?,
            base: base.as_str().trim_end_matches('/').to_owned(),
            compatible: below(Protocol::Compatible),
            native: below(Protocol::Native),
            authorization: endpoint.authorization()?,
            first_byte: settings.first_byte_timeout(),
            idle: settings.idle_timeout(),
            total: settings.total_timeout(),
            stream: settings.stream_timeout(),
            max_response_bytes: settings.max_response_bytes,
            memory,
            clock,
        })
    }

    /// How the endpoint is reached.
    pub(crate) const fn way(&self) -> &Way {
        &self.way
    }

    /// Sends `request` and reads the reply into `room`, within `left`. A stream that began may take longer.
    pub(crate) async fn exchange(
        &self,
        request: &UpstreamRequest,
        left: Duration,
        bound: &Usage,
        room: &Arc<AnswerRoom>,
    ) -> Result<Reception, Failure> {
        let (body, sending) = request.document.body();
        let handed_over = sending.handed_over();
        let sent = self.post(request).body(reqwest::Body::wrap(body));
        // Outside of the future that fills it: the part received before a timeout may state the bill.
        let mut received = Received::default();
        let memory = self.memory.for_answer(room);
        let receiving = self.receive((sent, sending), request, bound, memory, &mut received);
        let arrived = match timeout(self.total.min(left), receiving).await {
            Ok(arrived) => arrived,
            // A caller's deadline shows nothing about the endpoint.
            Err(_) if left <= self.total => Err(ReadError::Deadline),
            Err(_) => Err(ReadError::Timeout(Timeout::Total)),
        };
        match arrived {
            Ok(None) => self.read(received, request.expects, *bound).await,
            Ok(Some(incoming)) => Ok(Reception::Events(incoming)),
            Err(broken) => {
                let stated = Self::stated(received, *bound).await;
                Err(broken.failure(&handed_over).billed_as(stated))
            }
        }
    }

    /// The head of `request`.
    fn post(&self, request: &UpstreamRequest) -> reqwest::RequestBuilder {
        let enable = HeaderValue::from_static("enable");
        let url = match request.protocol {
            Protocol::Compatible => &self.compatible,
            Protocol::Native => &self.native,
        };
        let mut post = self
            .request(reqwest::Method::POST, url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if request.resolves_oss {
            post = post.header("x-dashscope-ossresourceresolve", enable.clone());
        }
        if !request.expects.is_stream() {
            return post.header(ACCEPT, HeaderValue::from_static("application/json"));
        }
        if request.protocol == Protocol::Native {
            post = post.header("x-dashscope-sse", enable);
        }
        post.header(ACCEPT, HeaderValue::from_static("text/event-stream"))
    }

    /// A request to an address of the endpoint, with the key.
    pub(crate) fn request(
        &self,
        method: reqwest::Method,
        url: impl reqwest::IntoUrl,
    ) -> reqwest::RequestBuilder {
        self.http.request(method, url).header(AUTHORIZATION, self.authorization.clone())
    }

    /// Gets `path` from the endpoint, at most `most` bytes. Only for requests that spend nothing.
    pub(crate) async fn get(&self, path: &str, most: usize) -> Result<Received, Failure> {
        let asked = self.request(reqwest::Method::GET, self.address(path)).send();
        let response = match timeout(self.first_byte, asked).await {
            Ok(sent) => sent.map_err(|error| ReadError::of(&error).billed(AttemptBill::Nothing))?,
            Err(_) => {
                return Err(ReadError::Timeout(Timeout::FirstByte).billed(AttemptBill::Nothing));
            }
        };
        let mut received = self.head(&response);
        let mut pieces = ResponseBody { response, idle: self.idle, _sending: None };
        let filled = pieces.fill(&mut received.body, most).await;
        filled.map_err(|broken| broken.billed(AttemptBill::Nothing))?;
        Ok(received)
    }

    /// The address of `path` at the endpoint.
    pub(crate) fn address(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Fills `received` with the reply, or returns a stream that began.
    async fn receive(
        &self,
        (sent, sending): (reqwest::RequestBuilder, Sending),
        request: &UpstreamRequest,
        bound: &Usage,
        memory: AnswerMemory,
        received: &mut Received,
    ) -> Result<Option<Box<Incoming>>, ReadError> {
        let response = match timeout(self.first_byte, sent.send()).await {
            Ok(sent) => sent.map_err(|error| ReadError::of(&error))?,
            Err(_) => return Err(ReadError::Timeout(Timeout::FirstByte)),
        };
        *received = self.head(&response);
        let (status, headers) = (response.status(), response.headers());
        let is_stream = text(headers, "content-type").is_some_and(is_event_stream);
        let mut pieces = ResponseBody { response, idle: self.idle, _sending: Some(sending) };
        if !status.is_success() {
            // The status alone is enough, so an error's body may be cut, damaged or slow.
            let _ = pieces.fill(&mut received.body, MAX_ERROR_BYTES).await;
            return Ok(None);
        }
        if request.expects != Expects::Answer && is_stream {
            let limits = StreamLimits {
                duration: self.stream,
                event: self.max_response_bytes,
                text: match request.expects {
                    Expects::Text => Some(self.max_response_bytes),
                    _ => None,
                },
            };
            let opened = Incoming::open(pieces, request.protocol, *bound, limits, memory).await?;
            return Ok(match opened {
                Ok(mut incoming) => {
                    incoming.parser.note_head(received.request_id.take());
                    Some(Box::new(incoming))
                }
                Err(body) => {
                    received.body = body;
                    None
                }
            });
        }
        received.memory = Some(memory);
        pieces.fill_with(received, self.max_response_bytes).await?;
        Ok(None)
    }

    /// The bill in a partial answer.
    async fn stated(received: Received, bound: Usage) -> Option<Usage> {
        let inline = received.body.len() <= INLINE_BYTES;
        let stated = move || answer::stated_in_part(&received.body, &bound);
        if inline {
            return stated();
        }
        tokio::task::spawn_blocking(stated).await.ok().flatten()
    }

    /// Parses the reply, off the reactor if it is long.
    async fn read(
        &self,
        received: Received,
        expects: Expects,
        bound: Usage,
    ) -> Result<Reception, Failure> {
        let inline = received.body.len() <= INLINE_BYTES;
        let read = move || match expects {
            Expects::Answer => {
                answer::read(received, &bound).map(|answer| Reception::Answer(Box::new(answer)))
            }
            Expects::Json | Expects::Events | Expects::Text => {
                answer::json(received, &bound).map(|json| Reception::Json(Box::new(json)))
            }
        };
        if inline {
            return read();
        }
        let tree = self.memory.tree().await;
        let reading = tokio::task::spawn_blocking(move || {
            let read = read();
            drop(tree);
            read
        });
        // The pool refuses work only while the process ends. The answer had arrived, so it may be billed.
        reading.await.unwrap_or_else(|_| Err(unusable(Defect::NotJson, None)))
    }

    /// The facts in the head of a response.
    fn head(&self, response: &Response) -> Received {
        let headers = response.headers();
        Received {
            status: response.status().as_u16(),
            request_id: text(headers, "x-request-id").and_then(Code::new),
            retry_after: self.retry_after(headers).map(|wait| wait.min(LONGEST_RETRY_AFTER)),
            ..Received::default()
        }
    }

    /// The vendor's SDK reads `retry-after-ms` and `retry-after`, the latter in both forms of RFC
    /// 9110, section 10.2.3.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let number = |name| text(headers, name).and_then(whole_number);
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

/// `text` as a number; the largest one if it does not fit.
fn whole_number(text: &str) -> Option<u64> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

fn is_event_stream(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("text/event-stream")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use rustls::server::Acceptor;

    use super::*;
    use crate::capacity::account::ByteAccount;
    use crate::dashscope::tests::{RuntimeClock, settings};

    /// The protocols that the first client offers.
    fn offered_to(listener: &std::net::TcpListener) -> Vec<String> {
        let (mut stream, _) = listener.accept().unwrap();
        let mut acceptor = Acceptor::default();
        loop {
            acceptor.read_tls(&mut stream).unwrap();
            let Ok(accepted) = acceptor.accept() else { panic!("no TLS") };
            let Some(accepted) = accepted else { continue };
            let hello = accepted.client_hello();
            let names = hello.alpn().into_iter().flatten();
            return names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
        }
    }

    #[tokio::test]
    async fn over_tls_http_1_is_offered_and_nothing_else() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = settings(&format!("https://{}", listener.local_addr().unwrap()));
        let gauge = prometheus::IntGauge::new("held", "held").unwrap();
        let memory = AnswerPool::new(Arc::new(ByteAccount::new(0, gauge)), 0);
        let endpoint = &settings.pool()[0];
        let transport = Transport::new(&settings, endpoint, memory, RuntimeClock::new()).unwrap();
        let offered = tokio::task::spawn_blocking(move || offered_to(&listener));
        assert!(transport.get("/models", 1024).await.is_err());
        assert_eq!(offered.await.unwrap(), ["http/1.1"]);
    }
}
