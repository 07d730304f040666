//! The conclusions from a failure about the endpoint, its key and its account, which affect later calls.
//!
//! `verdict` has the conclusions for the call itself.

use super::error::{CallFault, Code, Defect, Timeout};
use super::verdict::{Failure, Repeat, plain};

/// The quota that a throttle is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quota {
    /// Too many requests.
    Requests,
    /// Too many tokens.
    Tokens,
    /// The throttle names no quota.
    Unknown,
}

/// The conclusion from a failure about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It works: it objected to the request, or to the number of requests.
    Works,
    /// It cannot be reached, by any request.
    Unreachable,
    /// It is broken, or fails at this request.
    Failing,
    /// It refuses its key, for any request.
    KeyRefused,
    /// It refuses its key, or this request.
    Denied,
    /// It refuses the model to its key.
    ModelRefused,
    /// No conclusion: the fault was ours, the caller's, or the page's.
    Unknown,
}

impl Health {
    /// The conclusion from `failure`.
    ///
    /// A timeout of the model on a page shows nothing about the endpoint. Neither does a damaged or empty answer, since
    /// the model wrote it. A refused request proves that the endpoint reads requests.
    pub(crate) fn shown_by(failure: &Failure) -> Self {
        match &failure.fault {
            CallFault::Rejected { code, .. } if is_without_model(code.as_ref()) => {
                Self::ModelRefused
            }
            CallFault::Throttled { .. }
            | CallFault::ContentRejected
            | CallFault::ImageRejected(_)
            | CallFault::Rejected { .. } => Self::Works,
            CallFault::Unreachable => Self::Unreachable,
            CallFault::Interrupted
            | CallFault::Timeout(Timeout::FirstByte | Timeout::Idle)
            | CallFault::InvalidAnswer(Defect::NotJson) => Self::Failing,
            CallFault::Failed { .. } | CallFault::Timeout(Timeout::Upstream)
                if failure.repeat == Repeat::Transient =>
            {
                Self::Failing
            }
            CallFault::Account { code } => Self::of_account(code.as_ref()),
            CallFault::Failed { .. }
            | CallFault::Timeout(_)
            | CallFault::InvalidAnswer(_)
            | CallFault::NoRoom(_)
            | CallFault::DeadlineExceeded
            | CallFault::Abandoned
            | CallFault::Busy { .. }
            | CallFault::Unavailable { .. }
            | CallFault::Refused(_) => Self::Unknown,
        }
    }

    /// A key may lack the right to one model, or have used up its free quota of one, and still work for the others.
    /// "Access denied" may be about a file that the request names, and a refusal without a code may come from a device
    /// on the way that rejects the request.
    fn of_account(code: Option<&Code>) -> Self {
        let code = plain_code(code);
        if code.is_empty() || code == "accessdenied" {
            return Self::Denied;
        }
        let of_model = code.starts_with("model.")
            || code == "accessdenied.unpurchased"
            || code.starts_with("allocationquota")
            || code.starts_with("throttling")
            || code == "insufficientquota";
        if of_model { Self::ModelRefused } else { Self::KeyRefused }
    }
}

/// Whether the code says that the endpoint does not have the model. Its name comes from the catalog, so this is not the
/// caller's mistake.
fn is_without_model(code: Option<&Code>) -> bool {
    let codes = ["modelnotfound", "model.notexist", "modelnotsupported", "workspacenotfound"];
    codes.contains(&plain_code(code).as_str())
}

/// The account's quota that a throttle is about (Model Studio, "Error messages"); `None` if the service itself is
/// overloaded: "Too many requests in route".
pub(crate) fn quota(failure: &Failure) -> Option<Quota> {
    let quota = match plain_code(failure.fault.code()).as_str() {
        "throttling" => return None,
        "throttling.ratequota" | "limitrequests" | "throttling.burstrate" | "limitburstrate" => {
            Quota::Requests
        }
        "throttling.allocationquota" | "insufficientquota" => Quota::Tokens,
        _ => Quota::Unknown,
    };
    Some(quota)
}

fn plain_code(code: Option<&Code>) -> String {
    code.map(|code| plain(code.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::verdict::{AttemptBill, Complaint, judge};
    use super::*;

    fn judged(status: u16, code: &str) -> Failure {
        let code = (!code.is_empty()).then(|| code.to_owned());
        judge(&Complaint { status, code, message: "m".to_owned(), retry_after: None })
    }

    #[test]
    fn a_fault_is_laid_at_the_door_of_whose_it_is() {
        let of = |status, code| Health::shown_by(&judged(status, code));
        assert_eq!(of(429, "Throttling.RateQuota"), Health::Works);
        assert_eq!(of(400, "InvalidParameter"), Health::Works);
        assert_eq!(of(400, "DataInspectionFailed"), Health::Works);
        assert_eq!(of(500, "InternalError"), Health::Failing);
        assert_eq!(of(504, ""), Health::Failing);
        assert_eq!(of(408, "RequestTimeOut"), Health::Unknown);
        for code in ["InvalidApiKey", "Arrearage", "App.AccessDenied"] {
            assert_eq!(of(401, code), Health::KeyRefused, "{code}");
        }
        for code in ["AccessDenied", "access_denied", ""] {
            assert_eq!(of(403, code), Health::Denied, "{code}");
        }
        let unreachable =
            Failure::new(CallFault::Unreachable, Repeat::Transient, AttemptBill::Nothing);
        assert_eq!(Health::shown_by(&unreachable), Health::Unreachable);
        for code in
            ["Model.AccessDenied", "AccessDenied.Unpurchased", "AllocationQuota.FreeTierOnly"]
        {
            assert_eq!(of(403, code), Health::ModelRefused, "{code}");
        }
        assert_eq!(of(404, "model_not_found"), Health::ModelRefused);
        let gave_up =
            Failure::new(CallFault::DeadlineExceeded, Repeat::Never, AttemptBill::Unknown);
        assert_eq!(Health::shown_by(&gave_up), Health::Unknown);
    }

    #[test]
    fn a_throttle_says_which_quota_it_is_of_in_both_protocols_words() {
        let of = |code| quota(&judged(429, code));
        for code in ["Throttling.RateQuota", "limit_requests", "LimitRequests", "limit_burst_rate"]
        {
            assert_eq!(of(code), Some(Quota::Requests), "{code}");
        }
        for code in ["Throttling.AllocationQuota", "insufficient_quota"] {
            assert_eq!(of(code), Some(Quota::Tokens), "{code}");
        }
        assert_eq!(of("Throttling"), None, "the service is crowded");
        assert_eq!(of(""), Some(Quota::Unknown));
    }
}
