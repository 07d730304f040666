//! Maps each failure of the layers below to a status, a code and advice. No other file does that.
//!
//! An error that the caller can correct is 4xx and says how. An error of the upstream is 502, 503 or 504 and says
//! whether a retry may help. The answer contains the upstream's error code and request id, but not its message, which
//! describes an account and a request that the caller has never seen. Callers of the drop-in paths wrote that request
//! themselves, so they get the upstream's message about it (`verbatim`).

use std::time::Duration;

use super::entrance::busy;
use super::middleware::deadline_exceeded;
use super::problem::{Flaw, Problem, sentence};
use crate::admission::Refusal;
use crate::auth::error::AuthError;
use crate::capacity::account::NoRoom;
use crate::code::ErrorCode;
use crate::dashscope::error::{CallError, CallFault, ImageFault};
use crate::document::error::{DocumentError, Resource};
use crate::dropin::error::DropinError;
use crate::dropin::outline::OutlineError;
use crate::image::probe::ProbeError;
use crate::ledger::LedgerStoreError;
use crate::ledger::account::Unit;
use crate::ledger::budget::BudgetExceeded;
use crate::metering::error::{ImageError, MeteringError};
use crate::ocr::error::OcrError;
use crate::quote::QuoteError;
use crate::quote::limits::LimitViolation;
use crate::rate_limit::LimitExceeded;
use crate::units::Money;

/// The `Retry-After` for a failure that gives none itself.
const SOON: Duration = Duration::from_secs(5);

/// The `Retry-After` for a failure that an operator must repair.
const LATER: Duration = Duration::from_mins(1);

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let detail = sentence(&error);
        match error {
            AuthError::TenantDisabled => Self::new(ErrorCode::Forbidden, detail),
            AuthError::StoreUnavailable(_) => {
                Self::new(ErrorCode::StoreUnavailable, detail).after(SOON)
            }
            AuthError::Ambiguous => Self::new(
                ErrorCode::Unauthorized,
                format!("{detail} Send one, in `Authorization` or in `X-API-Key`."),
            ),
            _ => Self::new(
                ErrorCode::Unauthorized,
                format!("{detail} Send `Authorization: Bearer KEY` or `X-API-Key: KEY`."),
            ),
        }
    }
}

impl From<LimitExceeded> for Problem {
    fn from(exceeded: LimitExceeded) -> Self {
        let detail = sentence(&exceeded);
        Self::new(ErrorCode::RateLimited, detail)
            .limit(exceeded.limit.as_str(), exceeded.actual, exceeded.allowed)
            .after(exceeded.retry_after)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Limit(exceeded) => exceeded.into(),
            Refusal::Budget { ref exceeded, retry_after } => {
                let problem = over_budget(exceeded, &sentence(&refusal)).after(retry_after);
                Self { retryable: !exceeded.never_fits(), ..problem }
            }
            Refusal::Lapsed(lapse) => AuthError::from(lapse).into(),
            Refusal::TooLate { .. } => {
                let detail = format!(
                    "{} Nothing was sent. A larger `Prefer: wait` helps.",
                    sentence(&refusal)
                );
                Self { detail: detail.into(), ..deadline_exceeded() }
            }
            Refusal::StoreUnavailable => {
                Problem::new(ErrorCode::StoreUnavailable, sentence(&refusal)).after(SOON)
            }
        }
    }
}

/// An error while the ledger is read for a report.
impl From<LedgerStoreError> for Problem {
    fn from(error: LedgerStoreError) -> Self {
        match error {
            LedgerStoreError::Unavailable(_) => Problem::new(
                ErrorCode::StoreUnavailable,
                "What was spent is kept in a database that does not answer.".to_owned(),
            )
            .after(SOON),
            LedgerStoreError::Broken(cause) => {
                tracing::error!(cause, "the ledger cannot be read");
                Self::internal()
            }
        }
    }
}

/// 429 and not 402: the caller should retry later, and clients retry after a 429
/// (docs/adr/0008-budget-exhausted-is-429.md).
fn over_budget(exceeded: &BudgetExceeded, detail: &str) -> Problem {
    let advice = if exceeded.never_fits() {
        " No unused budget would cover it: ask for fewer max_pixels, or have the budget raised."
    } else if exceeded.is_held() {
        " It may fit as soon as one of them has ended."
    } else {
        ""
    };
    let detail = format!("{detail}{advice}");
    let problem = Problem::new(ErrorCode::BudgetExhausted, detail);
    let actual = exceeded.settled.saturating_add(exceeded.reserved).saturating_add(exceeded.asked);
    match exceeded.unit {
        Unit::Tokens => problem.limit(exceeded.setting(), actual, exceeded.limit),
        Unit::Money(_) => {
            let [actual, allowed] = [actual, exceeded.limit].map(Money::from_nanos);
            problem.limit(exceeded.setting(), actual, allowed)
        }
    }
}

impl From<DropinError> for Problem {
    fn from(error: DropinError) -> Self {
        let text = sentence(&error);
        match error {
            DropinError::Outline(OutlineError::Number { pointer, fault }) => {
                Self::new(ErrorCode::InvalidJson, text).flaw(pointer, fault.to_string())
            }
            DropinError::Outline(_) => Self::new(ErrorCode::InvalidJson, text),
            DropinError::Member(fault) => {
                Self::new(ErrorCode::InvalidOption, text).flaw(fault.pointer, fault.why)
            }
            DropinError::Image { pointer, cause } => {
                let problem = Self::from(*cause);
                let detail = format!("{pointer}: {}", problem.detail).into();
                let flaws = [Flaw { pointer, code: problem.code, detail: text }].into();
                Self { detail, errors: flaws, ..problem }
            }
            DropinError::NoRoom(NoRoom { actual, allowed, .. }) => busy(format!(
                "To look at the request {actual} bytes would be held at once; the limit is {allowed}. Nothing \
                 was sent. Retry shortly."
            ))
            .limit("in_flight_bytes", actual, allowed),
            DropinError::Metering(error @ MeteringError::UnknownModel { .. }) => {
                let problem = Self::from(error);
                Self { errors: problem.errors, ..no_such_model(problem.detail) }
            }
            DropinError::Metering(error) => error.into(),
        }
    }
}

/// 404 for an unknown model, on the drop-in paths: the vendor's protocols have that status for it.
pub(super) fn no_such_model(detail: impl Into<Box<str>>) -> Problem {
    Problem::new(ErrorCode::ModelNotFound, detail)
}

impl From<OcrError> for Problem {
    fn from(error: OcrError) -> Self {
        let text = sentence(&error);
        match error {
            OcrError::Image(error) => error.into(),
            OcrError::Document(error) => error.into(),
            OcrError::Orientation(_) => {
                let detail = format!("{text} Leave rotate out, or send the image as JPEG or PNG.");
                Self::new(ErrorCode::OrientationFixed, detail)
            }
            OcrError::NoTasks { .. } => {
                let detail = format!(
                    "{text} Name another model, or leave out the task, lines and languages."
                );
                Self::new(ErrorCode::InvalidOption, detail).flaw("/model", "has no built-in tasks")
            }
            OcrError::NoSchema => {
                Self::new(ErrorCode::InvalidOption, "Give a JSON Schema or a template.")
                    .flaw("/schema", "is missing")
            }
            OcrError::Metering(error) => error.into(),
            OcrError::UnusableFields(_) => Self::new(
                ErrorCode::UpstreamInvalidOutput,
                format!("{text} It was asked twice. A simpler schema or a clearer image helps."),
            ),
            OcrError::NotWritten => busy(format!(
                "{text} What was read is charged, and a retry is charged again. Ask for format=json or \
                 format=markdown, for fewer pages, or for more time (`Prefer: wait`)."
            )),
            OcrError::NoLines => Self::new(
                ErrorCode::UpstreamInvalidOutput,
                format!("{text} Ask for detail=text, or send the image again."),
            ),
        }
    }
}

impl From<ImageError> for Problem {
    fn from(error: ImageError) -> Self {
        let text = sentence(&error);
        match error {
            ImageError::Probe(error) => unreadable(&error, text),
            ImageError::Limit(violation) => over_limit(&violation, text),
            ImageError::Quote(error) => unquotable(&error, text),
        }
    }
}

impl From<DocumentError> for Problem {
    fn from(error: DocumentError) -> Self {
        let text = sentence(&error);
        match error {
            DocumentError::PasswordRequired => Self::new(
                ErrorCode::PdfPasswordRequired,
                format!("{text} Save it without a password, and send that."),
            ),
            DocumentError::PdfUndecodable { .. } => Self::new(
                ErrorCode::PdfUndecodable,
                format!("{text} If a viewer opens it, save it anew or print it to a PDF."),
            ),
            DocumentError::PictureUndecodable { .. } => undecodable(text),
            DocumentError::Empty => Self::new(ErrorCode::DocumentEmpty, text),
            DocumentError::PageNotFound { asked, pages } => {
                Self::new(ErrorCode::PageNotFound, text)
                    .flaw("/pages", format!("reaches only to page {pages}"))
                    .limit("pages", u64::from(asked), pages.into())
            }
            DocumentError::TooManyPages { actual, allowed } => Self::new(
                ErrorCode::TooManyPages,
                format!("{text} Read the document in parts, such as pages=1-{allowed}."),
            )
            .limit("documents.max_pages", u64::from(actual), allowed.into()),
            DocumentError::PageTooLarge { actual, allowed } => Self::new(
                ErrorCode::PageTooLarge,
                format!("{text} Save it with a smaller page or a lower resolution."),
            )
            .limit("documents.max_page_pixels", actual, allowed),
            DocumentError::TooComplex { resource, actual, allowed } => {
                too_complex(resource, actual, allowed, &text)
            }
            DocumentError::NotSearchable { .. } => Self::new(
                ErrorCode::NotSearchable,
                format!(
                    "{text} Nothing was sent. Save it anew as a PDF without encryption, or ask for format=json."
                ),
            ),
            DocumentError::Busy => busy(format!("{text} Nothing was sent for it. Retry shortly.")),
            DocumentError::Interrupted => Self::internal(),
        }
    }
}

fn too_complex(resource: Resource, actual: Option<u64>, allowed: u64, text: &str) -> Problem {
    let name = match resource {
        Resource::Memory => "documents.worker_memory_bytes",
        Resource::CpuTime => "page_cpu_ms",
        Resource::Time => "documents.page_timeout_ms",
        Resource::Objects => "document_objects",
        Resource::EncodedBytes => "image_bytes",
    };
    let took = actual.map(|actual| format!(" It took {actual}.")).unwrap_or_default();
    let advice = "Ask for the other pages with `pages`, or send this page as a picture.";
    let problem = Problem::new(ErrorCode::DocumentTooComplex, format!("{text}{took} {advice}"));
    // A reader that is stopped at a limit does not learn what it would have taken.
    match actual {
        Some(actual) => problem.limit(name, actual, allowed),
        None => problem,
    }
}

impl From<MeteringError> for Problem {
    fn from(error: MeteringError) -> Self {
        let text = sentence(&error);
        match error {
            MeteringError::UnknownModel { known, .. } => {
                let detail = format!("{text} Models: {}.", known.join(", "));
                Self::new(ErrorCode::InvalidOption, detail)
                    .flaw("/model", "is unknown or has no price here")
            }
            MeteringError::ModelNotAllowed { allowed, .. } => {
                let detail = format!("{text} It may use: {}.", allowed.join(", "));
                Self::new(ErrorCode::Forbidden, detail)
                    .flaw("/model", "is not among this key's models")
            }
            MeteringError::RegionNotAllowed { available, .. } => {
                let detail = format!(
                    "{text} It is available in: {}. Name a model that is in the key's regions, or have a \
                     region added to the tenant.",
                    available.join(", ")
                );
                Self::new(ErrorCode::RegionNotAllowed, detail)
                    .flaw("/model", "is not available in this key's regions")
            }
            MeteringError::Refused(refusal) => refusal.into(),
            MeteringError::Upstream(error) => upstream(&error),
            MeteringError::Interrupted => Self::internal(),
        }
    }
}

fn unreadable(error: &ProbeError, detail: String) -> Problem {
    match error {
        ProbeError::Empty => Problem::new(ErrorCode::EmptyFile, detail),
        ProbeError::Unsupported { seen } => Problem::new(
            ErrorCode::UnsupportedMediaType,
            match *seen {
                "gzip" | "ZIP" | "RAR" | "7-Zip" => {
                    format!("{detail} Send the image itself, not compressed and in no archive.")
                }
                "Office" => format!("{detail} Export the pages of the document as images."),
                _ => detail,
            },
        ),
        ProbeError::Malformed { .. } => undecodable(detail),
        ProbeError::SecondSize { .. } => undecodable(format!(
            "{detail}. Decoders differ about which one counts, so it has no certain price. Save the image anew."
        )),
    }
}

fn undecodable(detail: impl Into<Box<str>>) -> Problem {
    Problem::new(ErrorCode::ImageUndecodable, detail)
}

fn over_limit(violation: &LimitViolation, detail: String) -> Problem {
    match *violation {
        LimitViolation::SideTooSmall { actual, allowed } => {
            too_small(detail).limit("shorter_side", u64::from(actual), allowed.into())
        }
        LimitViolation::AspectRatio { actual, allowed } => {
            too_thin(detail).limit("aspect_ratio", actual, allowed)
        }
        LimitViolation::TooLargeForFormat { actual, allowed, .. } => {
            too_large(detail).limit("longer_side", u64::from(actual), allowed.into())
        }
        LimitViolation::DataUrlTooLong { actual, allowed } => {
            too_large(detail).limit("data_url_bytes", actual, allowed)
        }
    }
}

fn too_small(detail: impl Into<Box<str>>) -> Problem {
    Problem::new(ErrorCode::ImageTooSmall, detail)
}

fn too_thin(detail: impl Into<Box<str>>) -> Problem {
    Problem::new(ErrorCode::AspectRatio, detail)
}

fn too_large(detail: impl Into<Box<str>>) -> Problem {
    Problem::new(ErrorCode::ImageTooLarge, detail)
}

fn unquotable(error: &QuoteError, detail: String) -> Problem {
    match *error {
        QuoteError::MinAboveMax { .. } => {
            let advice = format!("{detail} Leave min_pixels out or ask for more max_pixels.");
            Problem::new(ErrorCode::InvalidOption, advice)
                .flaw("/min_pixels", "is above max_pixels")
        }
        QuoteError::OverCap { actual, allowed } => too_large(format!(
            "{detail} Ask for max_pixels={allowed} or less."
        ))
        .limit("max_pixels", actual.get(), allowed.get()),
        QuoteError::PromptTooLong { actual, allowed } => {
            Problem::new(ErrorCode::InvalidOption, detail)
                .flaw("/prompt", "is too long for the model")
                .limit("max_input_tokens", actual.get(), allowed.get())
        }
    }
}

/// The problem for a failed call to the upstream.
pub(super) fn upstream(error: &CallError) -> Problem {
    let mut problem = situation(error);
    problem.retryable = error.fault.is_retryable();
    problem.verbatim.clone_from(&error.verbatim);
    problem
}

fn situation(error: &CallError) -> Problem {
    let reference = reference(error);
    let told = |code, words: &str| Problem::new(code, format!("{words}{reference}"));
    match &error.fault {
        CallFault::Throttled { retry_after, .. } => {
            let words = "The upstream takes no more calls for the moment.";
            told(ErrorCode::UpstreamThrottled, words).after(*retry_after)
        }
        CallFault::Busy { retry_after } => {
            let detail = "The account's rate at the upstream is used up and the queue for it is full.";
            Problem::new(ErrorCode::RateLimited, detail).after(*retry_after)
        }
        CallFault::Account { .. } => {
            let words = "The upstream refuses the gateway's account; its operator must act.";
            told(ErrorCode::UpstreamAccount, words).after(LATER)
        }
        CallFault::Unreachable => {
            let words = "No connection to the upstream came about.";
            told(ErrorCode::UpstreamUnavailable, words).after(SOON)
        }
        CallFault::Unavailable { retry_after } => {
            let detail = "No endpoint of the upstream that could serve this works at the moment.";
            Problem::new(ErrorCode::UpstreamUnavailable, detail).after((*retry_after).max(SOON))
        }
        CallFault::Timeout(_) => {
            told(ErrorCode::UpstreamTimeout, "The upstream did not answer in time.")
        }
        // `Abandoned` means that the caller has left, so this answer is not delivered.
        CallFault::DeadlineExceeded | CallFault::Abandoned => deadline_exceeded(),
        CallFault::Refused(refusal) => (**refusal).clone().into(),
        CallFault::ContentRejected => {
            let words = "The upstream's content inspection refuses the image or its text.";
            told(ErrorCode::ContentRejected, words)
        }
        CallFault::ImageRejected(fault) => rejected_image(*fault, &reference),
        CallFault::InvalidAnswer(_) => failed(ErrorCode::UpstreamInvalidOutput, &reference),
        CallFault::NoRoom(NoRoom { actual, allowed, .. }) => busy(format!(
            "With room for the answer {actual} bytes would be held at once; the limit is {allowed}. Nothing \
             was sent. Retry shortly."
        ))
        .limit("in_flight_bytes", *actual, *allowed),
        CallFault::Rejected { .. } | CallFault::Failed { .. } | CallFault::Interrupted => {
            failed(ErrorCode::UpstreamError, &reference)
        }
    }
}

fn rejected_image(fault: ImageFault, reference: &str) -> Problem {
    let detail = format!("The upstream refuses the image: {fault}.{reference}");
    match fault {
        ImageFault::TooSmall => too_small(detail),
        ImageFault::AspectRatio => too_thin(detail),
        ImageFault::Undecodable => undecodable(detail),
        ImageFault::TooLarge => too_large(detail),
    }
}

fn failed(code: ErrorCode, reference: &str) -> Problem {
    Problem::new(code, format!("The upstream did not give a usable answer.{reference}"))
}

/// The facts for a support request to the vendor: its error code, its request id, the number of attempts.
fn reference(error: &CallError) -> String {
    let code = error.fault.code().map(|code| format!(" Its code: {code}."));
    let id = error.request_id.as_ref().map(|id| format!(" Its request id: {id}."));
    let attempts = (error.attempts > 1).then(|| format!(" Attempts: {}.", error.attempts));
    [code, id, attempts].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The members of the problem that depend on the error.
    fn told(error: DocumentError) -> Value {
        let Problem { code, status, detail, retryable, limit, .. } = error.into();
        json!({
            "code": code,
            "status": status.as_u16(),
            "detail": detail,
            "retryable": retryable,
            "limit": limit,
        })
    }

    #[test]
    fn each_error_of_a_document_has_its_code_and_its_advice() {
        let what = || "is cut off".to_owned();
        for (error, status, code, advice) in [
            (DocumentError::PasswordRequired, 422, "pdf_password_required", "without a password"),
            (
                DocumentError::PdfUndecodable { what: what() },
                422,
                "pdf_undecodable",
                "print it to a PDF",
            ),
            (
                DocumentError::PictureUndecodable { what: what() },
                422,
                "image_undecodable",
                "The picture is cut off.",
            ),
            (DocumentError::NotSearchable { what: what() }, 422, "not_searchable", "format=json"),
            (DocumentError::Empty, 422, "document_empty", "no pages"),
            (DocumentError::Busy, 503, "overloaded", "Retry shortly"),
            (DocumentError::Interrupted, 500, "internal", "request id"),
        ] {
            let told = told(error);
            assert_eq!((&told["status"], &told["code"]), (&json!(status), &json!(code)));
            let detail = told["detail"].as_str().unwrap();
            assert!(detail.contains(advice), "{code}: {detail}");
            assert_eq!(told["limit"], Value::Null, "{code}");
            assert_eq!(told["retryable"], status >= 500, "{code}");
        }
    }

    #[test]
    fn a_limit_of_a_document_is_told_with_both_numbers() {
        let too_complex = |resource| DocumentError::TooComplex {
            resource,
            actual: Some(7_000_000),
            allowed: 6_000_000,
        };
        for (error, code, limit, advice) in [
            (
                DocumentError::TooManyPages { actual: 7_000_000, allowed: 6_000_000 },
                "too_many_pages",
                "documents.max_pages",
                "pages=1-6000000",
            ),
            (
                DocumentError::PageTooLarge { actual: 7_000_000, allowed: 6_000_000 },
                "page_too_large",
                "documents.max_page_pixels",
                "smaller page",
            ),
            (
                DocumentError::PageNotFound { asked: 7_000_000, pages: 6_000_000 },
                "page_not_found",
                "pages",
                "last page is 6000000",
            ),
            (
                too_complex(Resource::Memory),
                "document_too_complex",
                "documents.worker_memory_bytes",
                "bytes of memory. It took 7000000.",
            ),
            (
                too_complex(Resource::Time),
                "document_too_complex",
                "documents.page_timeout_ms",
                "other pages",
            ),
        ] {
            let told = told(error);
            assert_eq!(told["code"], code);
            let limit = json!({ "name": limit, "actual": 7_000_000, "allowed": 6_000_000 });
            assert_eq!(told["limit"], limit);
            let detail = told["detail"].as_str().unwrap();
            assert!(detail.contains(advice) && detail.contains("6000000"), "{detail}");
            assert_eq!(told["retryable"], false);
        }
    }

    #[test]
    fn a_reader_that_was_stopped_at_a_limit_does_not_invent_what_it_would_have_taken() {
        let error = DocumentError::TooComplex {
            resource: Resource::CpuTime,
            actual: None,
            allowed: 10_000,
        };
        let told = told(error);
        assert_eq!(told["limit"], Value::Null);
        let detail = told["detail"].as_str().unwrap();
        assert!(detail.starts_with("The page takes more than 10000 ms of CPU time."), "{detail}");
    }
}
