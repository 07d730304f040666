//! The verdict on a failure: the situation, whether to repeat the call, and the bill.
//!
//! DashScope's status is ambiguous. An unpaid bill is a 400 or a 429, a throttle is worded like an exhausted quota, and
//! one code covers both a broken backend and a malformed message. So the exact code decides first, then its family,
//! then the message, but only where the vendor's table makes a code ambiguous, and the status last. Codes are compared
//! without case and underscores, so that both protocols have one spelling (`limit_requests`, `LimitRequests`). The
//! table is section "Error messages" of Model Studio; each of its rows is a test at the end of this file.
//!
//! The bill of a failed call is not documented. An error from DashScope without usage counts as unbilled, unless a
//! model may have run to its end: after its own timeout, an *output* that moderation refused, or the error page of a
//! proxy that had forwarded the request.

use std::time::Duration;

use super::error::{CallError, CallFault, Code, Defect, ImageFault, Timeout, Verbatim};
use crate::units::Usage;

/// The first ceiling of the wait after a throttle without a `Retry-After`, and the wait that callers are given.
pub(crate) const THROTTLE_BASE: Duration = Duration::from_secs(2);

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The situation.
    pub(crate) fault: CallFault,
    /// Whether another attempt may help.
    pub(crate) repeat: Repeat,
    /// The bill of the attempt.
    pub(crate) bill: AttemptBill,
    /// The upstream's id of the attempt.
    pub(crate) request_id: Option<Code>,
    /// The upstream's `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
    /// The upstream's own error body, if a caller may see it.
    pub(crate) verbatim: Option<Box<Verbatim>>,
}

/// Whether another attempt may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// No: it would end the same way.
    Never,
    /// One, as the vendor's table advises.
    Once,
    /// After a short wait.
    Transient,
    /// After a wait that lets the account's rate recover.
    Throttled,
}

/// The bill of an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptBill {
    /// Certainly nothing.
    Nothing,
    /// Unknown; at most the permit's bound.
    Unknown,
    /// The upstream stated it.
    Known(Usage),
}

impl Failure {
    /// A failure that cost nothing, because nothing was sent.
    pub(crate) const fn unsent(fault: CallFault) -> Self {
        Self::new(fault, Repeat::Never, AttemptBill::Nothing)
    }

    pub(crate) const fn new(fault: CallFault, repeat: Repeat, bill: AttemptBill) -> Self {
        Self { fault, repeat, bill, request_id: None, retry_after: None, verbatim: None }
    }

    /// The failure with the bill that the upstream stated. Billed work would be billed again, so the call is not
    /// repeated.
    pub(crate) fn billed_as(self, stated: Option<Usage>) -> Self {
        match stated {
            Some(billed) => {
                Self { bill: AttemptBill::Known(billed), repeat: Repeat::Never, ..self }
            }
            None => self,
        }
    }

    /// Whether a retry could be billed twice, or is allowed only once.
    pub(crate) fn is_careful(&self) -> bool {
        self.repeat == Repeat::Once || self.bill != AttemptBill::Nothing
    }
}

/// The failure as a caller may see it. The loop of attempts adds their number.
impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        let Failure { fault, request_id, verbatim, .. } = failure;
        Self { request_id, verbatim, ..fault.into() }
    }
}

/// The upstream's error message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The HTTP status, or the one inside a stream of events.
    pub(crate) status: u16,
    /// The code, unchanged; `None` if the body is not an error of DashScope's.
    pub(crate) code: Option<String>,
    /// The message or, if the body is not JSON, its beginning. Used only to distinguish situations.
    pub(crate) message: String,
    /// The upstream's `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

/// The verdict on `complaint`.
pub(crate) fn judge(complaint: &Complaint) -> Failure {
    let code = complaint.code.as_deref().map(plain).unwrap_or_default();
    let message = complaint.message.to_ascii_lowercase();
    let situation = by_code(&code, &message)
        .or_else(|| by_account_status(complaint.status))
        .or_else(|| by_message(&code, &message).filter(|_| complaint.status < 500))
        .unwrap_or_else(|| by_status(complaint.status, &message));
    let shown = complaint.code.as_deref().and_then(Code::new);
    let (fault, repeat) = situation.outcome(complaint, shown);
    let bill = bill(situation, complaint, &message);
    Failure { retry_after: complaint.retry_after, ..Failure::new(fault, repeat, bill) }
}

/// A code without the differences between the two protocols.
pub(crate) fn plain(code: &str) -> String {
    code.chars().filter(|letter| *letter != '_').map(|letter| letter.to_ascii_lowercase()).collect()
}

/// The situations that the vendor's table distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Situation {
    Throttle,
    Account,
    Content,
    Image(ImageFault),
    /// The request is invalid in another way.
    Request,
    /// The upstream could not fetch something.
    Fetch,
    /// The upstream is temporarily broken.
    Service,
    /// The model timed out, and would do so again.
    ModelTimeout,
    /// A proxy of the upstream timed out.
    ProxyTimeout,
    /// An unknown error under a status that is no failure.
    Unknown,
}

impl Situation {
    fn outcome(self, complaint: &Complaint, code: Option<Code>) -> (CallFault, Repeat) {
        let status = complaint.status;
        let retry_after = complaint.retry_after.unwrap_or(THROTTLE_BASE);
        match self {
            Self::Throttle => (CallFault::Throttled { retry_after, code }, Repeat::Throttled),
            Self::Account => (CallFault::Account { code }, Repeat::Never),
            Self::Content => (CallFault::ContentRejected, Repeat::Never),
            Self::Image(fault) => (CallFault::ImageRejected(fault), Repeat::Never),
            Self::Request => (CallFault::Rejected { status, code }, Repeat::Never),
            Self::Fetch => (CallFault::Rejected { status, code }, Repeat::Once),
            Self::Service => (CallFault::Failed { status, code }, Repeat::Transient),
            Self::ModelTimeout => (CallFault::Timeout(Timeout::Upstream), Repeat::Never),
            Self::ProxyTimeout => (CallFault::Timeout(Timeout::Upstream), Repeat::Transient),
            Self::Unknown => (CallFault::Failed { status, code }, Repeat::Never),
        }
    }
}

fn by_code(code: &str, message: &str) -> Option<Situation> {
    let speaks_of = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let situation = match code {
        "arrearage"
        | "invalidapikey"
        | "commoditynotpurchased"
        | "prepaidbilloverdue"
        | "postpaidbilloverdue"
        | "allocationquota.freetieronly" => Situation::Account,
        "limitrequests" | "limitburstrate" | "insufficientquota" => throttle(message),
        "modelnotfound" | "model.notexist" | "modelnotsupported" | "workspacenotfound" => {
            Situation::Request
        }
        "requesttimeout" => Situation::ModelTimeout,
        "gatewaytimeout" => Situation::ProxyTimeout,
        "internalerror" | "internalerror.algo"
            if speaks_of(&["content-length of", "list index out of range"]) =>
        {
            Situation::Request
        }
        "internalerror.algo" => by_message(code, message).unwrap_or(Situation::Service),
        "invalidparameter" | "invalidparametererror" | "internalerror.algo.invalidparameter" => {
            by_message(code, message).unwrap_or(Situation::Request)
        }
        "apiconnectionerror" | "internalerror" | "systemerror" | "modelservicefailed"
        | "modelservingerror" | "modelunavailable" | "serviceunavailable" => Situation::Service,
        _ if code.starts_with("throttling") => throttle(message),
        _ if code.starts_with("accessdenied") || code.ends_with(".accessdenied") => {
            Situation::Account
        }
        // A picture must be readable before moderation looks at it; only moderation's own codes are about content.
        _ if code.starts_with("invalidparameter.datainspection") => {
            by_message(code, message).unwrap_or(Situation::Request)
        }
        _ if code.contains("datainspection") => {
            by_message(code, message).unwrap_or(Situation::Content)
        }
        _ => return None,
    };
    Some(situation)
}

/// A throttle, unless it reports that a *free* quota is used up: only a free quota does not refill.
///
/// The message of the vendor's ordinary throttle of tokens a minute also mentions plan and billing, so no other wording
/// may count (can1357/oh-my-pi#8476).
fn throttle(message: &str) -> Situation {
    let words = ["free allocated quota", "free quota", "free tier", "free-tier"];
    if words.iter().any(|word| message.contains(word)) {
        Situation::Account
    } else {
        Situation::Throttle
    }
}

const fn by_account_status(status: u16) -> Option<Situation> {
    match status {
        401 | 403 => Some(Situation::Account),
        _ => None,
    }
}

/// Distinguishes situations that share a code. Only for codes that mean no more than "wrong".
fn by_message(code: &str, message: &str) -> Option<Situation> {
    const SITUATIONS: [(&str, Situation); 22] = [
        ("aspect ratio", Situation::Image(ImageFault::AspectRatio)),
        ("must be larger than 10", Situation::Image(ImageFault::TooSmall)),
        ("length and width do not meet", Situation::Image(ImageFault::TooSmall)),
        ("failed to decode the image", Situation::Image(ImageFault::Undecodable)),
        ("failed to decode the media", Situation::Image(ImageFault::Undecodable)),
        ("media format is not supported", Situation::Image(ImageFault::Undecodable)),
        ("image format is not supported", Situation::Image(ImageFault::Undecodable)),
        ("unsupported image format", Situation::Image(ImageFault::Undecodable)),
        ("unsupported media format", Situation::Image(ImageFault::Undecodable)),
        ("invalid image format", Situation::Image(ImageFault::Undecodable)),
        ("cannot identify image", Situation::Image(ImageFault::Undecodable)),
        ("corrupted file", Situation::Image(ImageFault::Undecodable)),
        ("read image error", Situation::Image(ImageFault::Undecodable)),
        ("image format is illegal", Situation::Image(ImageFault::Undecodable)),
        ("max bytes per data-uri item", Situation::Image(ImageFault::TooLarge)),
        ("file size is too large", Situation::Image(ImageFault::TooLarge)),
        // About the file at an address; moderation's codes include this case.
        ("wrong content-type", Situation::Request),
        ("authorization to access the media", Situation::Request),
        ("failed to download", Situation::Fetch),
        ("media resource timed out", Situation::Fetch),
        ("unable to download", Situation::Fetch),
        ("may contain inappropriate content", Situation::Content),
    ];
    let found = SITUATIONS.iter().find(|(words, _)| message.contains(words));
    let vague = code.is_empty()
        || code.contains("datainspection")
        || ["invalid", "badrequest", "internalerror.algo"]
            .iter()
            .any(|start| code.starts_with(start));
    found.filter(|_| vague).map(|(_, situation)| *situation)
}

fn by_status(status: u16, message: &str) -> Situation {
    match status {
        408 => Situation::ModelTimeout,
        429 => throttle(message),
        504 => Situation::ProxyTimeout,
        300..500 => Situation::Request,
        500.. => Situation::Service,
        _ => Situation::Unknown,
    }
}

fn bill(situation: Situation, complaint: &Complaint, message: &str) -> AttemptBill {
    let may_have_run = match situation {
        Situation::ModelTimeout | Situation::ProxyTimeout => true,
        Situation::Content => message.contains("output"),
        Situation::Service => {
            complaint.code.is_none() && may_have_arrived(complaint.status, message)
        }
        _ => false,
    };
    if may_have_run { AttemptBill::Unknown } else { AttemptBill::Nothing }
}

/// Whether the request may have reached the model before a proxy returned its error page.
///
/// 503 means that it was not accepted (RFC 9110, section 15.6.4). But DashScope uses Envoy as its proxy (`server:
/// istio-envoy`). Envoy also answers 503 if a connection broke on the way, and its message then shows whether there had
/// been a connection.
fn may_have_arrived(status: u16, message: &str) -> bool {
    if !message.contains("reset before headers") {
        return status != 503;
    }
    ["connection failure", "connection timeout", "overflow"]
        .iter()
        .all(|reason| !message.contains(reason))
}

/// The failure of an answer with a successful status that cannot be used.
pub(crate) fn unusable(defect: Defect, usage: Option<Usage>) -> Failure {
    let bill = usage.map_or(AttemptBill::Unknown, AttemptBill::Known);
    Failure::new(CallFault::InvalidAnswer(defect), Repeat::Never, bill)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, code: &str, message: &str) -> Failure {
        judge(&Complaint {
            status,
            code: (!code.is_empty()).then(|| code.to_owned()),
            message: message.to_owned(),
            retry_after: None,
        })
    }

    /// The rows of the vendor's table: status, codes of both protocols, message; label and
    /// repetition.
    #[rustfmt::skip]
    const TABLE: [(u16, &[&str], &str, &str, Repeat); 44] = [
        (400, &["InvalidParameter", "invalid_parameter_error", "invalid_request_error", "invalid_value"], "Range of max_tokens should be [1, 8192]", "rejected", Repeat::Never),
        (400, &["InternalError.Algo.InvalidParameter"], "The content field is wrong", "rejected", Repeat::Never),
        (400, &["InvalidParameter"], "Range of input length should be [1, 30000]", "rejected", Repeat::Never),
        (400, &["InvalidParameter"], "Exceeded limit on max bytes per data-uri item : 10485760", "image_rejected", Repeat::Never),
        (400, &["InvalidParameter"], "Multimodal file size is too large", "image_rejected", Repeat::Never),
        (400, &["InvalidParameter"], "The provided URL does not appear to be valid", "rejected", Repeat::Never),
        (400, &["InvalidParameter"], "Failed to download multimodal content", "rejected", Repeat::Once),
        (400, &["InvalidParameter"], "Download the media resource timed out", "rejected", Repeat::Once),
        (400, &["InvalidParameter.DataInspection"], "Unable to download the media resource during the data inspection process.", "rejected", Repeat::Once),
        (400, &["InvalidParameter"], "Wrong Content-Type of multimodal url", "rejected", Repeat::Never),
        (400, &["InvalidParameter.DataInspection", "DataInspectionFailed"], "Failed to decode the image during the data inspection.", "image_rejected", Repeat::Never),
        (400, &["InvalidParameter.DataInspection"], "The media format is not supported or incorrect for the data inspection.", "image_rejected", Repeat::Never),
        (400, &["InvalidParameter.DataInspection"], "Wrong Content-Type of multimodal url", "rejected", Repeat::Never),
        (400, &["InvalidParameter.DataInspection"], "Something new about the media", "rejected", Repeat::Never),
        (400, &["InvalidParameter.DataInspection"], "Multimodal file size is too large", "image_rejected", Repeat::Never),
        (400, &["InvalidParameter"], "Invalid image format or corrupted file", "image_rejected", Repeat::Never),
        (400, &["InvalidParameter"], "read image error", "image_rejected", Repeat::Never),
        (400, &["InvalidParameter"], "Don't have authorization to access the media resource", "rejected", Repeat::Never),
        (400, &["Arrearage"], "Access denied, please make sure your account is in good standing.", "account", Repeat::Never),
        (400, &["DataInspectionFailed", "data_inspection_failed", "DataInspection"], "Input data may contain inappropriate content.", "content_rejected", Repeat::Never),
        (400, &["APIConnectionError"], "Connection error.", "failed", Repeat::Transient),
        (401, &["InvalidApiKey", "invalid_api_key"], "Incorrect API key provided.", "account", Repeat::Never),
        (401, &[""], "NOT AUTHORIZED", "account", Repeat::Never),
        (401, &["invalid_request_error"], "invalid access token or token expired", "account", Repeat::Never),
        (403, &["AccessDenied", "access_denied", "AccessDenied.Unpurchased", "Model.AccessDenied", "App.AccessDenied", "Workspace.AccessDenied"], "Access denied.", "account", Repeat::Never),
        (403, &["AllocationQuota.FreeTierOnly"], "The free tier of the model has been exhausted.", "account", Repeat::Never),
        (404, &["ModelNotFound", "model_not_found", "model_not_supported", "WorkSpaceNotFound", "NotFound"], "The model does not exist.", "rejected", Repeat::Never),
        (413, &["BadRequest.TooLarge", ""], "Payload Too Large", "rejected", Repeat::Never),
        (429, &["Throttling"], "Too many requests in route. Please try again later.", "throttled", Repeat::Throttled),
        (429, &["Throttling.RateQuota", "LimitRequests", "limit_requests"], "You have exceeded your current request limit.", "throttled", Repeat::Throttled),
        (429, &["Throttling.BurstRate", "limit_burst_rate"], "Request rate increased too quickly.", "throttled", Repeat::Throttled),
        (429, &["Throttling.AllocationQuota", "insufficient_quota"], "You exceeded your current quota, please check your plan and billing details.", "throttled", Repeat::Throttled),
        (429, &["Throttling.AllocationQuota", "insufficient_quota", ""], "Free allocated quota exceeded.", "account", Repeat::Never),
        (429, &["CommodityNotPurchased", "PrepaidBillOverdue", "PostpaidBillOverdue"], "Commodity has not purchased yet.", "account", Repeat::Never),
        (429, &["", "SomethingNew"], "slow down", "throttled", Repeat::Throttled),
        (500, &["InternalError", "internal_error", "SystemError", "ModelServiceFailed"], "An internal error has occured.", "failed", Repeat::Transient),
        (500, &["InternalError.Algo"], "inference internal error", "failed", Repeat::Transient),
        (500, &["InternalError.Algo"], "Receive batching backend response failed!", "failed", Repeat::Transient),
        (500, &["InternalError.Algo", "internal_error"], "Missing Content-Length of multimodal url", "rejected", Repeat::Never),
        (500, &["InternalError.Algo"], "list index out of range", "rejected", Repeat::Never),
        (500, &["RequestTimeOut", "request_timeout"], "Request timed out, please try again later.", "timeout", Repeat::Never),
        (503, &["ModelServingError", "ModelUnavailable", "ServiceUnavailable"], "Too many requests. Your requests are being throttled due to system capacity limits.", "failed", Repeat::Transient),
        (504, &["GatewayTimeout", ""], "stream timeout", "timeout", Repeat::Transient),
        (408, &["RequestTimeOut", ""], "", "timeout", Repeat::Never),
    ];

    #[test]
    fn every_row_of_the_vendor_s_table_is_understood() {
        for (status, codes, message, label, repeat) in TABLE {
            for code in codes {
                let failure = judged(status, code, message);
                let found = (failure.fault.label(), failure.repeat);
                assert_eq!(found, (label, repeat), "{status} {code} {message}");
            }
        }
    }

    #[test]
    fn a_code_decides_whatever_the_status_is() {
        assert_eq!(judged(200, "InvalidApiKey", "").fault.label(), "account");
        assert_eq!(judged(400, "Throttling.RateQuota", "").repeat, Repeat::Throttled);
        assert_eq!(judged(200, "SomethingNew", "").fault.label(), "failed");
        assert_eq!(judged(200, "SomethingNew", "").repeat, Repeat::Never);
    }

    #[test]
    fn what_is_wrong_with_a_picture_is_told_apart() {
        let prefix = "<400> InternalError.Algo.InvalidParameter: The image length and width do not meet the model restrictions.";
        for (message, expected) in [
            ("[height:1 or width:1 must be larger than 10]", ImageFault::TooSmall),
            ("[absolute aspect ratio must be smaller than 200, got 300]", ImageFault::AspectRatio),
        ] {
            let failure = judged(400, "invalid_parameter_error", &format!("{prefix} {message}"));
            assert_eq!(failure.fault, CallFault::ImageRejected(expected));
        }
    }

    #[test]
    fn a_code_that_says_enough_is_not_overruled_by_words() {
        let failure =
            judged(400, "Arrearage", "failed to download, read image error, aspect ratio");
        assert_eq!(failure.fault.label(), "account");
    }

    #[test]
    fn a_page_of_a_broken_proxy_is_not_read_for_clues_about_the_picture() {
        let failure = judged(502, "", "<html>read image error, unable to download</html>");
        assert_eq!(failure.fault, CallFault::Failed { status: 502, code: None });
    }

    #[test]
    fn errors_of_the_table_cost_nothing_unless_a_model_may_have_run() {
        let unknown = [
            (500, "RequestTimeOut", ""),
            (504, "", "stream timeout"),
            (400, "DataInspectionFailed", "Output data may contain inappropriate content."),
            (500, "", "<html>"),
            (502, "", ""),
            (
                503,
                "",
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            ),
        ];
        for (status, code, message) in unknown {
            assert_eq!(
                judged(status, code, message).bill,
                AttemptBill::Unknown,
                "{status} {code} {message}"
            );
        }
        let nothing = [
            (500, "InternalError", "An internal error has occured."),
            (400, "DataInspectionFailed", "Input data may contain inappropriate content."),
            (429, "", ""),
            (503, "", "no healthy upstream"),
            (
                503,
                "",
                "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
            ),
        ];
        for (status, code, message) in nothing {
            assert_eq!(
                judged(status, code, message).bill,
                AttemptBill::Nothing,
                "{status} {code} {message}"
            );
        }
    }

    #[test]
    fn a_code_that_is_not_fit_to_be_shown_is_not() {
        let failure = judged(500, "Oops: key sk-123 of acme", "");
        assert_eq!(failure.fault, CallFault::Failed { status: 500, code: None });
    }
}
