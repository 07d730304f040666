//! Errors as RFC 9457 problem details.
//!
//! A route returns a [`Problem`], which is stored in the response's extensions. The middleware serialises it and adds
//! the request id and the path. So every error contains them, also the errors of the router, of a timeout and of a
//! panic.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::spent;
use crate::admission::tab::Tab;
use crate::code::ErrorCode;
use crate::dashscope::error::Verbatim;
use crate::metering::spend::Spend;
use crate::units::Money;

/// The longest wait before an automatic retry. OpenAI's JavaScript library ignores a longer `Retry-After`.
const LONGEST_CLIENT_WAIT: Duration = Duration::from_mins(1);

/// An error as a caller sees it.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    /// The stable error code.
    pub(super) code: ErrorCode,
    /// The HTTP status: the code's, unless axum refused the request with one of its own.
    pub(super) status: StatusCode,
    /// A description of the failure and of the caller's remedy.
    pub(super) detail: Box<str>,
    /// Whether the same request may succeed later.
    pub(super) retryable: bool,
    /// The exceeded limit.
    pub(super) limit: Option<Box<Limit>>,
    /// The flaws, each with its place in the request.
    pub(super) errors: Box<[Flaw]>,
    /// The least time to wait before a retry.
    pub(super) retry_after: Option<Duration>,
    /// The tenant's charge for the failed request; none if it is zero.
    pub(super) usage: Option<Box<Spend>>,
    /// The upstream's own answer, for callers that use its protocol.
    pub(super) verbatim: Option<Box<Verbatim>>,
}

/// An exceeded limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Limit {
    /// Its name, as in settings or in the provider's documentation.
    pub(super) name: &'static str,
    /// The value in the request.
    pub(super) actual: Quantity,
    /// The allowed value.
    pub(super) allowed: Quantity,
}

/// A quantity that is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Quantity {
    /// A number, in the unit of the limit.
    Count(u64),
    /// An amount of money: a decimal string.
    Money(Money),
}

impl From<u64> for Quantity {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<Money> for Quantity {
    fn from(amount: Money) -> Self {
        Self::Money(amount)
    }
}

/// One flaw of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Flaw {
    /// The place: a JSON Pointer into the options.
    pub(super) pointer: String,
    /// The stable error code.
    pub(super) code: ErrorCode,
    /// A description of the flaw and of the valid values.
    pub(super) detail: String,
}

impl Flaw {
    /// A flaw of the option `name`.
    pub(super) fn of(name: &str, code: ErrorCode, detail: impl Into<String>) -> Self {
        // RFC 6901, section 3.
        let pointer = name.replace('~', "~0").replace('/', "~1");
        Self { pointer: format!("/{pointer}"), code, detail: detail.into() }
    }
}

/// The problem document in an error response.
#[derive(Serialize)]
pub(super) struct ProblemDocument<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    code: ErrorCode,
    request_id: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a Limit>,
    #[serde(skip_serializing_if = "<[Flaw]>::is_empty")]
    errors: &'a [Flaw],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a Spend>,
}

impl Problem {
    /// A problem that a retry of the same request does not solve.
    pub(super) fn new(code: ErrorCode, detail: impl Into<Box<str>>) -> Self {
        Self {
            code,
            // Each code has a valid HTTP status.
            status: StatusCode::from_u16(code.status())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            detail: detail.into(),
            retryable: false,
            limit: None,
            errors: Box::default(),
            retry_after: None,
            usage: None,
            verbatim: None,
        }
    }

    /// A problem that lists all flaws; none if there is no flaw. Its code and its detail are those of the first flaw.
    pub(super) fn of_flaws(flaws: Vec<Flaw>) -> Option<Self> {
        let Flaw { pointer, code, detail } = flaws.first()?;
        let detail = format!("{} {detail}.", pointer.trim_start_matches('/'));
        let problem = Self::new(*code, detail);
        Some(Self { errors: flaws.into(), ..problem })
    }

    /// 500: an internal error. The answer gives no detail.
    pub(super) fn internal() -> Self {
        Self::new(
            ErrorCode::Internal,
            "The gateway failed on this request. Quote the request id when you report it.",
        )
        .retryable()
    }

    /// Marks the problem as retryable: the same request may succeed later.
    #[must_use]
    pub(super) const fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Marks the problem as retryable after `wait` at the earliest.
    #[must_use]
    pub(super) const fn after(mut self, wait: Duration) -> Self {
        self.retryable = true;
        self.retry_after = Some(wait);
        self
    }

    /// Adds the tenant's charge. A call that is still in progress counts at its upper bound.
    #[must_use]
    pub(super) fn charged(mut self, tab: &Tab) -> Self {
        let sums = tab.at_most();
        let usage = if sums.is_nothing() { None } else { Spend::on_calls(&sums) };
        self.usage = usage.map(Box::new);
        self
    }

    /// Adds the exceeded limit.
    #[must_use]
    pub(super) fn limit<Q: Into<Quantity>>(
        mut self,
        name: &'static str,
        actual: Q,
        allowed: Q,
    ) -> Self {
        let (actual, allowed) = (actual.into(), allowed.into());
        self.limit = Some(Box::new(Limit { name, actual, allowed }));
        self
    }

    /// Adds a flaw.
    #[must_use]
    pub(super) fn flaw(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let flaw = Flaw { pointer: pointer.into(), code: self.code, detail: detail.into() };
        let flaws = self.errors.into_iter().chain([flaw]);
        self.errors = flaws.collect();
        self
    }

    /// The document about the request of this id, and of this path unless it is about a part of the request.
    pub(super) fn document<'a>(
        &'a self,
        request_id: &'a str,
        instance: Option<&'a str>,
    ) -> ProblemDocument<'a> {
        ProblemDocument {
            r#type: format!("/docs#{}", self.code),
            title: self.code.title(),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance,
            code: self.code,
            request_id,
            retryable: self.retryable,
            limit: self.limit.as_deref(),
            errors: &self.errors,
            usage: self.usage.as_deref(),
        }
    }

    /// The response to the request of this id and path.
    pub(super) fn response(&self, request_id: &str, instance: &str) -> Response {
        // A struct of strings and numbers always serialises.
        let body =
            serde_json::to_vec(&self.document(request_id, Some(instance))).unwrap_or_default();
        let mut response = (self.status, Body::from(body)).into_response();
        let headers = response.headers_mut();
        let media_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, media_type);
        self.add_headers(headers);
        response
    }

    /// Adds the problem's headers, which do not depend on the form of the body.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(spend) = &self.usage {
            spent::tell(headers, spend);
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            // RFC 9110, section 15.5.16: the codings that are accepted.
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"ocr-gateway\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
    }

    /// Whether a client should retry automatically: the wait is short, and the failed request cost nothing.
    pub(super) fn invites_retry(&self) -> bool {
        let soon = self.retry_after.unwrap_or_default() <= LONGEST_CLIENT_WAIT;
        self.retryable && soon && self.usage.is_none()
    }
}

/// An error's message as a sentence.
pub(super) fn sentence(error: &dyn std::error::Error) -> String {
    let message = error.to_string();
    let mut letters = message.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).chain(['.']).collect()
}

/// The wait in seconds. It is rounded up, so that `Retry-After` is never too early. It is at least 1, because clients
/// would retry in a loop after a 0.
fn whole_seconds(wait: Duration) -> u64 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds.max(1)
}

/// A response that carries the problem for the middleware to write out.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up_and_never_zero() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_seconds(Duration::from_mins(1)), 60);
    }
}
