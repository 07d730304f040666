//! The format of an error: RFC 9457, or the format of the protocol on the paths of other protocols.
//!
//! Clients of the drop-in paths distinguish errors by the status and by the vendor's code. So these paths use the
//! vendor's status and code, in the spelling of each protocol (Model Studio, "Error messages"). The stable code of this
//! service is added as `gateway_code`. The upstream's own error about the request is passed on unchanged.
//!
//! The path of Mistral's OCR API has this service's statuses, in the shape that Mistral's SDKs parse. The numbers that
//! Mistral has as codes are not documented, so `code` is the stable code of this service too.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::code::{ErrorCode, VendorWords};
use crate::dashscope::error::Verbatim;

/// JSON, as both protocols declare it.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A stream of events, as the vendor declares it.
pub(super) const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream;charset=UTF-8");

/// The path of Mistral's OCR API.
const MISTRAL_OCR: &str = "/v1/ocr";

/// The format of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// RFC 9457.
    Problem,
    /// OpenAI's, for the compatible protocol.
    OpenAi,
    /// DashScope's own.
    DashScope,
    /// That of Mistral's OCR API.
    Mistral,
}

/// The status and the codes of the vendor for a problem.
fn words(problem: &Problem) -> VendorWords {
    let words = problem.code.vendor();
    // This is about the type of an image in the body, not the type of the body.
    let is_of_image = problem.code == ErrorCode::UnsupportedMediaType && !problem.errors.is_empty();
    if is_of_image { VendorWords { status: 400, ..words } } else { words }
}

/// The same as HTTP's type.
fn status_of(words: VendorWords) -> StatusCode {
    StatusCode::from_u16(words.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl Dialect {
    /// The dialect of a path.
    pub(super) fn of(path: &str) -> Self {
        let below = |root: &str| {
            path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if path == MISTRAL_OCR {
            Self::Mistral
        } else if below("/compatible-mode/v1") || below("/v1") {
            Self::OpenAi
        } else if below("/api/v1") {
            Self::DashScope
        } else {
            Self::Problem
        }
    }

    /// The response that reports a problem with the request of this id and path.
    pub(super) fn response(self, problem: &Problem, request_id: &str, instance: &str) -> Response {
        if self == Self::Problem {
            return problem.response(request_id, instance);
        }
        let verbatim = problem.verbatim.as_ref().filter(|_| self != Self::Mistral);
        let mut response = if let Some(verbatim) = verbatim {
            said(verbatim)
        } else {
            let body = Body::from(self.error(problem, request_id).to_string());
            (self.status(problem), [(header::CONTENT_TYPE, JSON)], body).into_response()
        };
        let headers = response.headers_mut();
        problem.add_headers(headers);
        if !problem.invites_retry() {
            // The vendor's and OpenAI's clients retry after 5xx and 429 unless a header forbids it.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }

    /// The event that reports a problem in a stream that broke off.
    pub(super) fn event(self, problem: &Problem, request_id: &str) -> Bytes {
        let (error, status) = (self.error(problem, request_id), words(problem).status);
        match self {
            // Without exactly the line `event:error`, or without `status`, the vendor's SDK does not recognise the
            // error.
            Self::DashScope => format!(
                "id:0\nevent:error\n:HTTP_STATUS/{status}\nstatus:{status}\ndata:{error}\n\n"
            ),
            Self::OpenAi | Self::Problem | Self::Mistral => format!("data: {error}\n\n"),
        }
        .into()
    }

    fn status(self, problem: &Problem) -> StatusCode {
        match self {
            Self::Problem | Self::Mistral => problem.status,
            Self::OpenAi | Self::DashScope => status_of(words(problem)),
        }
    }

    fn error(self, problem: &Problem, request_id: &str) -> Value {
        let words = words(problem);
        let param = problem.errors.first().map(|flaw| flaw.pointer.as_str());
        let mut error = match self {
            Self::DashScope => json!({
                "code": words.native,
                "message": problem.detail,
                "request_id": request_id,
                "gateway_code": problem.code,
            }),
            Self::Mistral => mistral_error(problem, request_id),
            Self::OpenAi | Self::Problem => json!({
                "error": {
                    "message": problem.detail,
                    "type": kind(status_of(words)),
                    "param": param,
                    "code": words.compatible,
                    "gateway_code": problem.code,
                },
                "request_id": request_id,
            }),
        };
        if let Some(spend) = &problem.usage {
            error["usage"] = json!(spend);
        }
        error
    }
}

/// The error in the shape of Mistral's API. Its SDKs parse `detail`, but only that of a 422.
fn mistral_error(problem: &Problem, request_id: &str) -> Value {
    let place = |pointer: &str| -> Vec<String> {
        let unescaped = |part: &str| part.replace("~1", "/").replace("~0", "~");
        pointer.split('/').skip(1).map(unescaped).collect()
    };
    let param = problem.errors.first().map(|flaw| place(&flaw.pointer).join("."));
    let mut error = json!({
        "object": "error",
        "message": problem.detail,
        "type": kind(problem.status),
        "param": param,
        "code": problem.code,
        "raw_status_code": problem.status.as_u16(),
        "gateway_code": problem.code,
        "request_id": request_id,
    });
    if problem.status == StatusCode::UNPROCESSABLE_ENTITY {
        let flaw = |pointer: &str, text: &str| {
            let loc = ["body".to_owned()].into_iter().chain(place(pointer));
            json!({ "loc": loc.collect::<Vec<_>>(), "msg": text, "type": problem.code })
        };
        let flaws = problem.errors.iter().map(|error| flaw(&error.pointer, &error.detail));
        let flaws: Vec<_> = [flaw("", &problem.detail)].into_iter().chain(flaws).collect();
        error["detail"] = json!(flaws);
    }
    error
}

/// OpenAI's `type`, which Mistral has too.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    }
}

/// The upstream's own answer.
fn said(verbatim: &Verbatim) -> Response {
    let status = StatusCode::from_u16(verbatim.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = (status, Body::from(verbatim.body.clone())).into_response();
    let media_type = if verbatim.is_stream { EVENTS } else { JSON };
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::tab::Spent;
    use crate::metering::spend::Spend;
    use crate::units::Currency::Cny;
    use crate::units::Tokens;

    #[test]
    fn a_path_speaks_the_dialect_of_its_protocol() {
        for (path, dialect) in [
            ("/compatible-mode/v1/chat/completions", Dialect::OpenAi),
            ("/v1/models", Dialect::OpenAi),
            ("/v1", Dialect::OpenAi),
            ("/v1/ocr", Dialect::Mistral),
            ("/v1/ocr/", Dialect::OpenAi),
            ("/v1x", Dialect::Problem),
            ("/api/v1/services/aigc/multimodal-generation/generation", Dialect::DashScope),
            ("/ocr", Dialect::Problem),
        ] {
            assert_eq!(Dialect::of(path), dialect, "{path}");
        }
    }

    #[test]
    fn what_would_be_paid_twice_or_waits_for_hours_does_not_invite_a_retry() {
        let problem = Problem::new(ErrorCode::BudgetExhausted, "");
        let answered = |problem: &Problem| {
            let response = Dialect::OpenAi.response(problem, "r", "/v1");
            response.headers().contains_key("x-should-retry")
        };
        assert!(answered(&problem.clone().after(Duration::from_hours(3))));
        assert!(!answered(&problem.clone().after(Duration::from_secs(1))));
        let spent = Spend::of(&Spent { unverified: Tokens::new(1), ..Spent::default() }, Cny);
        let lost = Problem { usage: Some(spent.into()), ..problem.after(Duration::from_secs(1)) };
        assert!(answered(&lost));
    }

    #[test]
    fn an_error_event_is_one_that_the_vendors_sdk_knows() {
        let problem = Problem::new(ErrorCode::UpstreamError, "It broke.");
        let native = Dialect::DashScope.event(&problem, "r-1");
        let text = std::str::from_utf8(&native).unwrap();
        assert!(text.starts_with("id:0\nevent:error\n:HTTP_STATUS/502\nstatus:502\ndata:{"));
        assert!(text.contains(r#""code":"InternalError""#) && text.ends_with("}\n\n"), "{text}");
        let compatible = Dialect::OpenAi.event(&problem, "r-1");
        assert!(compatible.starts_with(b"data: {\"error\":{\"message\":\"It broke.\""));
    }
}
