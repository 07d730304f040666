//! Calls the gateway as a caller does.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CACHE_CONTROL, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use super::report::{Reading, Rung};
use crate::cli::output::Failure;
use crate::units::{Cost, Pixels, Tokens};

/// Longest time that one request may take: that of a long document at a busy upstream.
const PATIENCE: Duration = Duration::from_mins(15);

/// How often a request is made that the gateway has no room for at the moment.
const ATTEMPTS: u32 = 5;

/// The longest wait that is worth waiting for. After a used-up budget it is hours.
const LONGEST_WAIT: Duration = Duration::from_mins(2);

/// A caller with a key.
pub(super) struct Caller {
    http: reqwest::Client,
    server: Url,
    key: String,
    model: Option<String>,
}

/// The size of each page as it is sent, and the part of the page; null for a page that is not sent.
pub(super) type SentSizes = Vec<[Value; 4]>;

/// An answer of `/estimate`.
#[derive(Debug, Deserialize)]
pub(super) struct Estimate {
    /// The pages.
    pub(super) pages: Vec<Value>,
    /// The most that the request can cost.
    pub(super) bound: RequestCost,
    limits: Limits,
}

/// The gateway refused a request.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {words}")]
pub(super) struct Refused {
    status: StatusCode,
    words: String,
}

/// The most that a request can cost.
#[derive(Debug, Deserialize)]
pub(super) struct RequestCost {
    pub(super) total_tokens: Tokens,
    pub(super) cost: Cost,
}

#[derive(Debug, Deserialize)]
struct Limits {
    max_pixels: Pixels,
}

/// An answer of `/ocr`.
#[derive(Debug, Deserialize)]
struct Answer {
    text: String,
    pages: Vec<Value>,
    usage: GivenUsage,
}

#[derive(Debug, Deserialize)]
struct GivenUsage {
    image_tokens: Tokens,
    total_tokens: Tokens,
    unverified_tokens: Tokens,
    cost: Cost,
}

impl Refused {
    /// Whether the gateway may accept another file.
    pub(super) const fn is_about_the_file(&self) -> bool {
        matches!(
            self.status,
            StatusCode::PAYLOAD_TOO_LARGE
                | StatusCode::UNSUPPORTED_MEDIA_TYPE
                | StatusCode::UNPROCESSABLE_ENTITY
        )
    }
}

impl Estimate {
    /// What is sent of each page.
    pub(super) fn sent(&self) -> SentSizes {
        let of_page = |page: &Value| {
            ["width", "height", "crop", "escalated"].map(|member| page["sent"][member].clone())
        };
        self.pages.iter().map(of_page).collect()
    }
}

impl Caller {
    /// A caller of the gateway at `server`.
    ///
    /// # Errors
    ///
    /// The address cannot have paths, or the HTTP client cannot be built.
    pub(super) fn new(server: &Url, key: String, model: Option<String>) -> Result<Self, Failure> {
        if server.cannot_be_a_base() {
            return Err(format!("{server} is no address of a server").into());
        }
        // Answers that the gateway keeps would cost nothing, and say nothing of the size.
        let cache = HeaderValue::from_static("no-cache, no-store");
        let headers = HeaderMap::from_iter([(CACHE_CONTROL, cache)]);
        let http = reqwest::Client::builder().timeout(PATIENCE).default_headers(headers);
        Ok(Self { http: http.no_proxy().build()?, server: server.clone(), key, model })
    }

    /// The tenant's cap, which an estimate of any file tells.
    ///
    /// # Errors
    ///
    /// The gateway cannot be reached, or refuses the key or the file.
    pub(super) async fn cap(&self, file: Bytes) -> Result<Pixels, Failure> {
        let answer = self.post("estimate", file, None).await?;
        let Estimate { limits, .. } = serde_json::from_slice(&answer)?;
        Ok(limits.max_pixels)
    }

    /// What reading the file at this size costs at most.
    ///
    /// # Errors
    ///
    /// The gateway refuses the request.
    pub(super) async fn estimate(&self, file: Bytes, size: Rung) -> Result<Estimate, Failure> {
        let answer = self.post("estimate", file, Some(size)).await?;
        let estimate: Estimate = serde_json::from_slice(&answer)?;
        whole(&estimate.pages)?;
        Ok(estimate)
    }

    /// Reads the file at this size.
    ///
    /// # Errors
    ///
    /// The gateway refuses the request, or a page was not read.
    pub(super) async fn read(&self, file: Bytes, size: Rung) -> Result<Reading, Failure> {
        let Answer { text, pages, usage } =
            serde_json::from_slice(&self.post("ocr", file, Some(size)).await?)?;
        whole(&pages)?;
        let pixels = |page: &Value| {
            ["width", "height"].map(|side| page["sent"][side].as_u64().unwrap_or_default())
        };
        Ok(Reading {
            pixels: pages.iter().map(pixels).map(|[width, height]| width * height).sum(),
            image_tokens: usage.image_tokens,
            tokens: usage.total_tokens.saturating_add(usage.unverified_tokens),
            cost: usage.cost,
            text,
        })
    }

    /// Sends a file. Waits and tries again if the gateway says that there is room in a moment.
    async fn post(&self, route: &str, file: Bytes, size: Option<Rung>) -> Result<Bytes, Failure> {
        let mut url = self.server.join(route)?;
        let mut query = url.query_pairs_mut();
        query.append_pair("pdf_text", "off");
        if let Some(size) = size {
            query.append_pair("max_pixels", &size.to_string());
        }
        if let Some(model) = &self.model {
            query.append_pair("model", model);
        }
        drop(query);
        let mut attempts = 0;
        loop {
            let request = self.http.post(url.clone()).bearer_auth(&self.key).body(file.clone());
            let response = request.send().await?;
            attempts += 1;
            match wait_asked_by(&response).filter(|_| attempts < ATTEMPTS) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return body_of(response).await,
            }
        }
    }
}

/// How long the gateway asks to wait, if that is not too long.
fn wait_asked_by(response: &Response) -> Option<Duration> {
    let is_full = matches!(
        response.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let seconds = response.headers().get(RETRY_AFTER).filter(|_| is_full)?;
    let wait = Duration::from_secs(seconds.to_str().ok()?.parse().ok()?);
    (wait <= LONGEST_WAIT).then_some(wait)
}

/// The body of a success.
///
/// # Errors
///
/// What the gateway says about any other answer.
async fn body_of(response: Response) -> Result<Bytes, Failure> {
    let status = response.status();
    let body = response.bytes().await?;
    if status.is_success() {
        return Ok(body);
    }
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let words = [&problem["title"], &problem["detail"]].map(|word| word.as_str().unwrap_or("-"));
    Err(Refused { status, words: words.join(": ") }.into())
}

/// Refuses an answer with a failed page, because its figures could not be compared with those of other sizes.
fn whole(pages: &[Value]) -> Result<(), Failure> {
    let Some(failed) = pages.iter().find(|page| page["error"].is_object()) else { return Ok(()) };
    let detail = failed["error"]["detail"].as_str().unwrap_or("-");
    Err(format!("page {}: {detail}", failed["page"]).into())
}
