//! The reasons why a call to the upstream gave no completion.
//!
//! A [`CallError`] holds everything that callers of this module may see: a situation, a sanitised code and a request id
//! for the vendor's support. The upstream's messages serve only to distinguish situations (`verdict`) and are then
//! dropped: they quote keys, addresses and account names, and are written for the operator of an account, not for our
//! callers.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::admission::Refusal;
use crate::capacity::account::NoRoom;

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault} (attempts made: {attempts})")]
pub struct CallError {
    /// The situation at the last attempt.
    pub fault: CallFault,
    /// The number of attempts; zero if nothing was sent.
    pub attempts: u32,
    /// The upstream's id of the failure, if it gave one.
    pub request_id: Option<Code>,
    /// The upstream's own answer, if it is about the caller's request and nothing else.
    pub verbatim: Option<Box<Verbatim>>,
}

/// An error answer of the upstream, unchanged, for a caller that uses the upstream's protocol.
///
/// It is kept only if the upstream objects to the request: its messages about accounts, keys and limits were not
/// written for callers.
#[derive(Clone, PartialEq, Eq)]
pub struct Verbatim {
    /// The HTTP status.
    pub status: u16,
    /// Whether the body is a stream of events; JSON otherwise.
    pub is_stream: bool,
    /// The body.
    pub body: Bytes,
}

impl Verbatim {
    pub(crate) fn of(status: u16, body: &[u8]) -> Self {
        // JSON begins with a brace, apart from whitespace and byte order marks.
        let first = body.iter().find(|byte| byte.is_ascii_graphic());
        let is_stream = first != Some(&b'{');
        Self { status, is_stream, body: Bytes::copy_from_slice(body) }
    }
}

/// Leaves the body out.
impl fmt::Debug for Verbatim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verbatim").field("status", &self.status).finish_non_exhaustive()
    }
}

impl CallError {
    /// The number of retries.
    pub const fn retries(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }

    /// The error of a call that found no endpoint because of `fault`. If an earlier attempt failed, its error (`last`)
    /// says more. Of the two times at which another call makes sense, the later one applies.
    pub(crate) fn after(last: Option<Self>, fault: CallFault) -> Self {
        let Some(mut error) = last else { return fault.into() };
        if let CallFault::Throttled { retry_after, .. } = &mut error.fault {
            *retry_after = (*retry_after).max(fault.retry_after().unwrap_or_default());
        }
        error
    }
}

/// The error of a call that was not sent.
impl From<CallFault> for CallError {
    fn from(fault: CallFault) -> Self {
        Self { fault, attempts: 0, request_id: None, verbatim: None }
    }
}

/// The situations in which a call gives no completion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFault {
    /// The account exceeds its rate at the upstream, and retries did not succeed in time.
    #[error("the upstream throttles; it may be asked again in {} ms", retry_after.as_millis())]
    Throttled {
        /// The least time until another call makes sense.
        retry_after: Duration,
        /// The upstream's code.
        code: Option<Code>,
    },
    /// The upstream refuses the account: its key, its rights or its payments. The operator must act.
    #[error("the upstream refuses the account{}", with(code.as_ref()))]
    Account {
        /// The upstream's code.
        code: Option<Code>,
    },
    /// The upstream's moderation refused the picture, the prompt or the answer.
    #[error("the upstream refuses the content")]
    ContentRejected,
    /// The upstream cannot process the picture.
    #[error("the upstream refuses the image: {0}")]
    ImageRejected(ImageFault),
    /// The upstream refused the request for another reason, which this service must correct.
    #[error("the upstream refuses the request with {status}{}", with(code.as_ref()))]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The upstream's code.
        code: Option<Code>,
    },
    /// The upstream reported a failure of its own.
    #[error("the upstream failed with {status}{}", with(code.as_ref()))]
    Failed {
        /// The HTTP status.
        status: u16,
        /// The upstream's code.
        code: Option<Code>,
    },
    /// No connection could be made: the name, the port, or TLS failed.
    #[error("the upstream cannot be reached")]
    Unreachable,
    /// The connection broke before the answer was whole.
    #[error("the connection to the upstream broke")]
    Interrupted,
    /// A time limit ran out.
    #[error("the upstream took too long: {0}")]
    Timeout(Timeout),
    /// The caller's deadline passed.
    #[error("the deadline passed before the upstream had answered")]
    DeadlineExceeded,
    /// The caller left before the call was sent.
    #[error("the caller left before the call was sent")]
    Abandoned,
    /// The queue for the account's rate is too long for this call.
    #[error("too many calls wait for the upstream; room in {} ms", retry_after.as_millis())]
    Busy {
        /// The least time until a new call would get a slot.
        retry_after: Duration,
    },
    /// No endpoint may be asked now: all possible ones have failed and cool down.
    #[error("no endpoint can be asked; one may be in {} ms", retry_after.as_millis())]
    Unavailable {
        /// The least time until one is tried again.
        retry_after: Duration,
    },
    /// The upstream reported success, but its answer cannot be used.
    #[error("the upstream's answer cannot be used: {0}")]
    InvalidAnswer(Defect),
    /// There is no memory for an answer now, so nothing was sent.
    #[error("there is no room for an answer now: {0}")]
    NoRoom(NoRoom),
    /// The tenant's limits have no room for a retry beside an attempt whose bill is unknown, or its key has become
    /// invalid.
    #[error(transparent)]
    Refused(Box<Refusal>),
}

/// The metric labels of an attempt's end.
pub(crate) const OUTCOMES: [&str; 11] = [
    "ok",
    "throttled",
    "account",
    "content_rejected",
    "image_rejected",
    "rejected",
    "failed",
    "unreachable",
    "interrupted",
    "timeout",
    "invalid_answer",
];

impl CallFault {
    /// Whether the same call may succeed later.
    ///
    /// An unusable answer is not retried: the model's temperature is nearly zero, so it would most likely write, and
    /// bill, the same again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Throttled { .. }
            | Self::Account { .. }
            | Self::Failed { .. }
            | Self::Unreachable
            | Self::Interrupted
            | Self::Timeout(_)
            | Self::DeadlineExceeded
            | Self::Abandoned
            | Self::Busy { .. }
            | Self::Unavailable { .. }
            | Self::NoRoom(_) => true,
            Self::Refused(refusal) => !matches!(**refusal, Refusal::Lapsed(_)),
            Self::ContentRejected
            | Self::ImageRejected(_)
            | Self::Rejected { .. }
            | Self::InvalidAnswer(_) => false,
        }
    }

    /// The situation's label in metrics, from a closed set.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Throttled { .. } => "throttled",
            Self::Account { .. } => "account",
            Self::ContentRejected => "content_rejected",
            Self::ImageRejected(_) => "image_rejected",
            Self::Rejected { .. } => "rejected",
            Self::Failed { .. } => "failed",
            Self::Unreachable => "unreachable",
            Self::Interrupted => "interrupted",
            Self::Timeout(_) => "timeout",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Abandoned => "abandoned",
            Self::Busy { .. } => "busy",
            Self::Unavailable { .. } => "unavailable",
            Self::InvalidAnswer(_) => "invalid_answer",
            Self::NoRoom(_) => "no_room",
            Self::Refused(_) => "refused",
        }
    }

    /// The upstream's code, if it gave one that may be shown.
    pub const fn code(&self) -> Option<&Code> {
        match self {
            Self::Throttled { code, .. }
            | Self::Account { code }
            | Self::Rejected { code, .. }
            | Self::Failed { code, .. } => code.as_ref(),
            _ => None,
        }
    }

    /// The upstream's HTTP status, if it adds to the situation.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Rejected { status, .. } | Self::Failed { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The least time until the call makes sense again, if it is known.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after, .. }
            | Self::Busy { retry_after }
            | Self::Unavailable { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// The label in the metric of refusals, if the gateway itself refuses the call.
    pub const fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Busy { .. } => Some("upstream_queue"),
            Self::NoRoom(_) => Some("overloaded"),
            _ => None,
        }
    }

    /// Whether the upstream objects only to the caller's request.
    pub(crate) const fn is_about_the_request(&self) -> bool {
        matches!(self, Self::Rejected { .. } | Self::ImageRejected(_) | Self::ContentRejected)
    }
}

/// The reason why the upstream refuses a picture (Model Studio, "Error messages").
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageFault {
    /// A side is not above ten pixels.
    #[error("a side is too short")]
    TooSmall,
    /// One side is more than 200 times the other.
    #[error("the sides are too unequal")]
    AspectRatio,
    /// The bytes are no picture of a supported format.
    #[error("it cannot be decoded")]
    Undecodable,
    /// The encoded picture has too many bytes.
    #[error("it has too many bytes")]
    TooLarge,
}

/// The time limit that ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Timeout {
    /// The answer's headers did not come in time.
    #[error("no answer began")]
    FirstByte,
    /// The answer began and then stalled.
    #[error("the answer stalled")]
    Idle,
    /// The time of the attempt as a whole.
    #[error("the answer was not whole in time")]
    Total,
    /// The upstream ended the model's work.
    #[error("the model did not finish in time")]
    Upstream,
}

/// The reason why an answer with a successful status cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// It is not JSON: an error page of a device on the way, or nothing.
    #[error("it is not JSON")]
    NotJson,
    /// It begins as an answer and cannot be read to its end.
    #[error("it is damaged")]
    Unreadable,
    /// It is JSON without any output of the model.
    #[error("it holds no content")]
    NoContent,
    /// It is longer than `upstream.max_response_bytes`.
    #[error("it is too long")]
    TooLong,
}

/// A code or request id of the upstream that may be shown: at most 64 of `A-Z a-z 0-9 . _ -`.
///
/// DashScope has no other codes. Any other text could contain secrets, so it is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code(Box<str>);

impl Code {
    /// The code in `text`, if it is a valid one.
    pub fn new(text: &str) -> Option<Self> {
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        ((1..=64).contains(&text.len()) && text.bytes().all(fit)).then(|| Self(text.into()))
    }

    /// Its text.
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn with(code: Option<&Code>) -> String {
    code.map_or_else(String::new, |code| format!(" {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_could_carry_anything_else_is_dropped() {
        for wrong in ["", "a b", "<html>", "sk-\n", "Käse", &"x".repeat(65)] {
            assert_eq!(Code::new(wrong), None, "{wrong:?}");
        }
        assert_eq!(Code::new("Throttling.RateQuota").unwrap().as_str(), "Throttling.RateQuota");
        assert!(Code::new(&"x".repeat(64)).is_some());
    }

    #[test]
    fn an_error_tells_code_and_attempts() {
        let fault = CallFault::Failed { status: 500, code: Code::new("InternalError") };
        let error = CallError { fault, attempts: 3, request_id: None, verbatim: None };
        let text = "the upstream failed with 500 InternalError (attempts made: 3)";
        assert_eq!(error.to_string(), text);
    }
}
