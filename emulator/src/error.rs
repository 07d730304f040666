//! Refusals: the vendor's error codes with their statuses and messages.
//!
//! The codes, statuses and messages are those of the vendor's page "Error messages". The two protocols spell the same
//! situation differently; a [`Refusal`] has both spellings, and each protocol writes its own.

use std::borrow::Cow;

/// An error answer, independent of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// `code` of the native protocol.
    pub(crate) code: Cow<'static, str>,
    /// The code's line in the table.
    row: Option<&'static Row>,
    /// The message, if it differs from the table's.
    message: Option<Cow<'static, str>>,
}

impl Refusal {
    /// The refusal for a code of either protocol.
    ///
    /// A code that is not in the table keeps its name, with a status guessed from its prefix.
    pub(crate) fn of_code(code: &str) -> Self {
        let row = TABLE.iter().find(|row| row.code == code || row.compatible_code == code);
        match row {
            Some(row) => {
                Self { status: row.status, code: row.code.into(), row: Some(row), message: None }
            }
            None => Self {
                status: usual_status(code),
                code: code.to_owned().into(),
                row: None,
                message: None,
            },
        }
    }

    /// The usual refusal for an HTTP status.
    pub(crate) fn of_status(status: u16) -> Self {
        let code = match status {
            401 => "InvalidApiKey",
            403 => "AccessDenied",
            404 => "ModelNotFound",
            408 => "RequestTimeOut",
            413 => "BadRequest.TooLarge",
            429 => "Throttling",
            503 => "ModelUnavailable",
            504 => "GatewayTimeout",
            400..=499 => "InvalidParameter",
            _ => "InternalError",
        };
        Self { status, ..Self::of_code(code) }
    }

    /// A field, a range or the JSON is invalid.
    pub(crate) fn invalid_parameter(message: impl Into<Cow<'static, str>>) -> Self {
        Self::of_code("InvalidParameter").with_message(message)
    }

    /// An image or a content item is invalid, as reported by the model behind the endpoint.
    pub(crate) fn invalid_content(message: &str) -> Self {
        Self::invalid_parameter(format!("<400> InternalError.Algo.InvalidParameter: {message}"))
    }

    /// The same refusal with another message.
    #[must_use]
    pub(crate) fn with_message(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: Some(message.into()), ..self }
    }

    /// `message` of the native protocol.
    pub(crate) fn message(&self) -> &str {
        let usual = self.row.map_or("The request could not be served.", |row| row.message);
        self.message.as_deref().unwrap_or(usual)
    }

    /// `error.message` of the compatible protocol.
    pub(crate) fn compatible_message(&self) -> &str {
        let usual = self.row.and_then(|row| row.compatible_message);
        self.message.as_deref().or(usual).unwrap_or_else(|| self.message())
    }

    /// `error.code` of the compatible protocol.
    pub(crate) fn compatible_code(&self) -> &str {
        self.row.map_or(&*self.code, |row| row.compatible_code)
    }

    /// `error.type` of the compatible protocol.
    pub(crate) fn compatible_type(&self) -> &str {
        self.row.map_or(&*self.code, |row| row.compatible_type)
    }
}

/// The status of a code that is not in the table.
fn usual_status(code: &str) -> u16 {
    match code {
        throttled if throttled.starts_with("Throttling") => 429,
        internal if internal.starts_with("InternalError") => 500,
        denied if denied.contains("AccessDenied") => 403,
        _ => 400,
    }
}

/// One line of the vendor's table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    status: u16,
    code: &'static str,
    compatible_code: &'static str,
    compatible_type: &'static str,
    message: &'static str,
    compatible_message: Option<&'static str>,
}

/// A line whose compatible type equals its compatible code, the most common form.
const fn row(
    status: u16,
    code: &'static str,
    compatible_code: &'static str,
    message: &'static str,
) -> Row {
    let compatible_type = compatible_code;
    Row { status, code, compatible_code, compatible_type, message, compatible_message: None }
}

/// A line whose compatible type is `invalid_request_error`.
const fn invalid(
    status: u16,
    code: &'static str,
    compatible_code: &'static str,
    message: &'static str,
) -> Row {
    let compatible_type = "invalid_request_error";
    Row { status, code, compatible_code, compatible_type, message, compatible_message: None }
}

static TABLE: [Row; 33] = [
    invalid(
        400,
        "InvalidParameter",
        "invalid_parameter_error",
        "Required parameter(s) missing or invalid, please check the request parameters.",
    ),
    invalid(
        400,
        "InternalError.Algo.InvalidParameter",
        "invalid_parameter_error",
        "<400> InternalError.Algo.InvalidParameter: The request content is not valid.",
    ),
    row(
        400,
        "Arrearage",
        "Arrearage",
        "Access denied, please make sure your account is in good standing.",
    ),
    row(
        400,
        "DataInspectionFailed",
        "data_inspection_failed",
        "Input or output data may contain inappropriate content.",
    ),
    row(400, "APIConnectionError", "APIConnectionError", "Connection error."),
    Row {
        compatible_message: Some("Incorrect API key provided."),
        ..invalid(401, "InvalidApiKey", "invalid_api_key", "Invalid API-key provided.")
    },
    row(403, "AccessDenied", "access_denied", "Access denied."),
    row(
        403,
        "AccessDenied.Unpurchased",
        "access_denied",
        "Access to model denied. Please make sure you are eligible for using the model.",
    ),
    row(403, "Model.AccessDenied", "access_denied", "Model access denied."),
    row(403, "App.AccessDenied", "access_denied", "App access denied."),
    row(403, "Workspace.AccessDenied", "access_denied", "Workspace access denied."),
    row(
        403,
        "AllocationQuota.FreeTierOnly",
        "AllocationQuota.FreeTierOnly",
        "The free tier of the model has been exhausted. If you wish to continue access the model on a paid basis, please disable the \"use free tier only\" mode in the management console.",
    ),
    invalid(404, "ModelNotFound", "model_not_found", "Model not exist."),
    invalid(
        404,
        "model_not_supported",
        "model_not_supported",
        "Unsupported model for OpenAI compatibility mode.",
    ),
    row(404, "WorkSpaceNotFound", "WorkSpaceNotFound", "WorkSpace can not be found."),
    row(404, "NotFound", "NotFound", "Not found."),
    row(413, "BadRequest.TooLarge", "BadRequest.TooLarge", "Payload Too Large."),
    row(429, "Throttling", "Throttling", "Requests throttling triggered."),
    row(
        429,
        "Throttling.RateQuota",
        "limit_requests",
        "You have exceeded your current request limit. For details, see: https://help.aliyun.com/zh/model-studio/error-code#rate-limit",
    ),
    row(429, "LimitRequests", "limit_requests", "You exceeded your current requests list."),
    row(
        429,
        "Throttling.BurstRate",
        "limit_burst_rate",
        "Request rate increased too quickly. To ensure system stability, please adjust your client logic to scale requests more smoothly over time.",
    ),
    row(
        429,
        "Throttling.AllocationQuota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    row(429, "CommodityNotPurchased", "CommodityNotPurchased", "Commodity has not purchased yet."),
    row(429, "PrepaidBillOverdue", "PrepaidBillOverdue", "The prepaid bill is overdue."),
    row(429, "PostpaidBillOverdue", "PostpaidBillOverdue", "The postpaid bill is overdue."),
    row(
        500,
        "InternalError",
        "internal_error",
        "An internal error has occured, please try again later or contact service support.",
    ),
    row(500, "SystemError", "SystemError", "An system error has occured, please try again later."),
    row(500, "ModelServiceFailed", "ModelServiceFailed", "Failed to request model service."),
    row(500, "InternalError.Algo", "internal_error", "inference internal error"),
    row(500, "RequestTimeOut", "RequestTimeOut", "Request timed out, please try again later."),
    row(
        503,
        "ModelServingError",
        "ModelServingError",
        "Too many requests. Your requests are being throttled due to system capacity limits. Please try again later.",
    ),
    row(
        503,
        "ModelUnavailable",
        "ModelUnavailable",
        "Model is unavailable, please try again later.",
    ),
    row(504, "GatewayTimeout", "GatewayTimeout", "The gateway timed out."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_protocols_code_finds_the_same_refusal() {
        assert_eq!(Refusal::of_code("limit_requests"), Refusal::of_code("Throttling.RateQuota"));
        assert_eq!(Refusal::of_code("insufficient_quota").status, 429);
    }

    #[test]
    fn a_code_outside_the_table_keeps_its_name() {
        let refusal = Refusal::of_code("Throttling.Invented");
        assert_eq!((refusal.status, &*refusal.code), (429, "Throttling.Invented"));
    }

    #[test]
    fn every_line_of_the_table_is_found_by_its_native_code() {
        for row in &TABLE {
            assert_eq!(Refusal::of_code(row.code).code, row.code);
        }
    }
}
