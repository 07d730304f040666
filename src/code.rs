//! The situations that are reported to a caller: one code each, with its status, its title and the vendor's words.
//!
//! The names are part of the API (`ProblemCode` in openapi.yaml) and never change their meaning. A new code needs a
//! row in `ErrorCode::entry`, or it does not compile, and a name in `ErrorCode::ALL`, which a test compares with
//! openapi.yaml. The vendor's words are those of Model Studio, "Error messages", in the spelling of its two protocols.

use std::fmt;

use serde::{Serialize, Serializer};

/// The stable name of a situation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request was refused before a route saw it, or its body broke off.
    BadRequest,
    /// The form cannot be read.
    MalformedMultipart,
    /// The body is no JSON, or not of the right form.
    InvalidJson,
    /// The file in the body is no Base64.
    InvalidBase64,
    /// The request has no file.
    MissingFile,
    /// The request has more than one file.
    MultipleFiles,
    /// The file has no bytes.
    EmptyFile,
    /// There is no such option.
    UnknownOption,
    /// The value of an option cannot be used.
    InvalidOption,
    /// The list of pages cannot be read.
    InvalidPages,
    /// The schema breaks a rule of JSON Schema.
    SchemaInvalid,
    /// The schema uses what is not supported, or too much of it.
    SchemaUnsupported,
    /// The schema is nested too deeply.
    SchemaTooDeep,
    /// The request has no valid key.
    Unauthorized,
    /// The tenant may not do this.
    Forbidden,
    /// The model is not served in the tenant's regions.
    RegionNotAllowed,
    /// There is no such path.
    NotFound,
    /// There is no such model.
    ModelNotFound,
    /// There is no such template.
    UnknownTemplate,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The answer does not exist in an accepted form.
    NotAcceptable,
    /// The body came too slowly.
    RequestTimeout,
    /// The body is longer than `server.max_body_bytes`.
    BodyTooLarge,
    /// The image is larger than the provider or the tenant's cap allows.
    ImageTooLarge,
    /// More pages are asked for than one request may have.
    TooManyPages,
    /// A page, or a picture on it, has more pixels than may be drawn or decoded.
    PageTooLarge,
    /// The file or the body has a type or a coding that is not supported.
    UnsupportedMediaType,
    /// The image is damaged or gives two sizes.
    ImageUndecodable,
    /// The PDF opens only with a password.
    PdfPasswordRequired,
    /// The PDF is damaged.
    PdfUndecodable,
    /// No searchable PDF can be made of the file.
    NotSearchable,
    /// The document has no pages.
    DocumentEmpty,
    /// The document does not have a page that is asked for.
    PageNotFound,
    /// A page takes more memory, time or objects than it may take.
    DocumentTooComplex,
    /// A side of the image is too short.
    ImageTooSmall,
    /// The image is too long for its width.
    AspectRatio,
    /// The orientation of this format cannot be turned off.
    OrientationFixed,
    /// The upstream's moderation refuses the content.
    ContentRejected,
    /// A limit on the rate or on requests at once is reached.
    RateLimited,
    /// The call does not fit into the tenant's budget.
    BudgetExhausted,
    /// The gateway failed.
    Internal,
    /// The upstream failed.
    UpstreamError,
    /// The upstream's answer cannot be used.
    UpstreamInvalidOutput,
    /// The database or Redis does not answer.
    StoreUnavailable,
    /// The gateway has no room for the request.
    Overloaded,
    /// No endpoint of the upstream works.
    UpstreamUnavailable,
    /// The upstream takes no more calls for the moment.
    UpstreamThrottled,
    /// The upstream refuses the gateway's account.
    UpstreamAccount,
    /// This replica is stopping.
    ShuttingDown,
    /// This replica cannot serve for the moment.
    NotReady,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The whole request took too long.
    DeadlineExceeded,
}

/// The name, status, title and vendor's words of a code.
struct CodeEntry {
    name: &'static str,
    status: u16,
    title: &'static str,
    vendor: VendorWords,
}

/// A situation as the vendor's protocols word it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VendorWords {
    /// The HTTP status.
    pub status: u16,
    /// The code of DashScope's own protocol.
    pub native: &'static str,
    /// The code of the protocol that is compatible with OpenAI's.
    pub compatible: &'static str,
}

// The vendor's codes: in its own protocol, and in the one that is compatible with OpenAI's.
const BAD_KEY: [&str; 2] = ["InvalidApiKey", "invalid_api_key"];
const DENIED: [&str; 2] = ["AccessDenied", "access_denied"];
const NO_PATH: [&str; 2] = ["NotFound", "not_found"];
const NO_MODEL: [&str; 2] = ["ModelNotFound", "model_not_found"];
const BAD_CALL: [&str; 2] = ["InvalidParameter", "invalid_request_error"];
const TOO_LARGE: [&str; 2] = ["BadRequest.TooLarge", "request_too_large"];
const INSPECTED: [&str; 2] = ["DataInspectionFailed", "data_inspection_failed"];
const TOO_FAST: [&str; 2] = ["Throttling.RateQuota", "limit_requests"];
const USED_UP: [&str; 2] = ["Throttling.AllocationQuota", "insufficient_quota"];
const TIMED_OUT: [&str; 2] = ["RequestTimeOut", "request_timeout"];
/// Any other error in a request, for which the vendor's status is 400.
const INVALID: [&str; 2] = ["InvalidParameter", "invalid_parameter_error"];
const UNAVAILABLE: [&str; 2] = ["ServiceUnavailable", "service_unavailable"];
const FAILED: [&str; 2] = ["InternalError", "internal_error"];

/// A situation for which the vendor's status is `vendor`.
const fn worded(
    name: &'static str,
    status: u16,
    title: &'static str,
    vendor: u16,
    [native, compatible]: [&'static str; 2],
) -> CodeEntry {
    CodeEntry { name, status, title, vendor: VendorWords { status: vendor, native, compatible } }
}

/// A situation for which the vendor has the same status.
const fn same(
    name: &'static str,
    status: u16,
    title: &'static str,
    words: [&'static str; 2],
) -> CodeEntry {
    worded(name, status, title, status, words)
}

/// A request that the caller must change.
const fn invalid(name: &'static str, status: u16, title: &'static str) -> CodeEntry {
    worded(name, status, title, 400, INVALID)
}

/// A request whose form is wrong.
const fn malformed(name: &'static str) -> CodeEntry {
    invalid(name, 400, "The request is malformed")
}

impl ErrorCode {
    /// All codes, in the order of their statuses.
    pub const ALL: [Self; 52] = [
        Self::BadRequest,
        Self::MalformedMultipart,
        Self::InvalidJson,
        Self::InvalidBase64,
        Self::MissingFile,
        Self::MultipleFiles,
        Self::EmptyFile,
        Self::UnknownOption,
        Self::InvalidOption,
        Self::InvalidPages,
        Self::SchemaInvalid,
        Self::SchemaUnsupported,
        Self::SchemaTooDeep,
        Self::Unauthorized,
        Self::Forbidden,
        Self::RegionNotAllowed,
        Self::NotFound,
        Self::ModelNotFound,
        Self::UnknownTemplate,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::ImageTooLarge,
        Self::TooManyPages,
        Self::PageTooLarge,
        Self::UnsupportedMediaType,
        Self::ImageUndecodable,
        Self::PdfPasswordRequired,
        Self::PdfUndecodable,
        Self::NotSearchable,
        Self::DocumentEmpty,
        Self::PageNotFound,
        Self::DocumentTooComplex,
        Self::ImageTooSmall,
        Self::AspectRatio,
        Self::OrientationFixed,
        Self::ContentRejected,
        Self::RateLimited,
        Self::BudgetExhausted,
        Self::Internal,
        Self::UpstreamError,
        Self::UpstreamInvalidOutput,
        Self::StoreUnavailable,
        Self::Overloaded,
        Self::UpstreamUnavailable,
        Self::UpstreamThrottled,
        Self::UpstreamAccount,
        Self::ShuttingDown,
        Self::NotReady,
        Self::UpstreamTimeout,
        Self::DeadlineExceeded,
    ];

    #[expect(clippy::too_many_lines, reason = "a table with one row a code")]
    const fn entry(self) -> CodeEntry {
        match self {
            Self::BadRequest => malformed("bad_request"),
            Self::MalformedMultipart => malformed("malformed_multipart"),
            Self::InvalidJson => malformed("invalid_json"),
            Self::InvalidBase64 => malformed("invalid_base64"),
            Self::MissingFile => malformed("missing_file"),
            Self::MultipleFiles => malformed("multiple_files"),
            Self::EmptyFile => malformed("empty_file"),
            Self::UnknownOption => malformed("unknown_option"),
            Self::InvalidOption => malformed("invalid_option"),
            Self::InvalidPages => malformed("invalid_pages"),
            Self::SchemaInvalid => malformed("schema_invalid"),
            Self::SchemaUnsupported => malformed("schema_unsupported"),
            Self::SchemaTooDeep => malformed("schema_too_deep"),
            Self::Unauthorized => same("unauthorized", 401, "An API key is needed", BAD_KEY),
            Self::Forbidden => same("forbidden", 403, "Not allowed", DENIED),
            Self::RegionNotAllowed => same("region_not_allowed", 403, "Not allowed", DENIED),
            Self::NotFound => same("not_found", 404, "Not found", NO_PATH),
            Self::ModelNotFound => same("model_not_found", 404, "No such model", NO_MODEL),
            Self::UnknownTemplate => invalid("unknown_template", 404, "Unknown template"),
            Self::MethodNotAllowed => {
                same("method_not_allowed", 405, "Method not allowed", BAD_CALL)
            }
            Self::NotAcceptable => invalid("not_acceptable", 406, "No such form of the answer"),
            Self::RequestTimeout => {
                same("request_timeout", 408, "The body came too slowly", BAD_CALL)
            }
            Self::BodyTooLarge => same("body_too_large", 413, "The body is too large", TOO_LARGE),
            Self::ImageTooLarge => invalid("image_too_large", 413, "The image is too large"),
            Self::TooManyPages => invalid("too_many_pages", 413, "Too many pages"),
            Self::PageTooLarge => invalid("page_too_large", 413, "A page is too large"),
            Self::UnsupportedMediaType => {
                same("unsupported_media_type", 415, "Not a supported type", INVALID)
            }
            Self::ImageUndecodable => invalid("image_undecodable", 422, "The image cannot be read"),
            Self::PdfPasswordRequired => {
                invalid("pdf_password_required", 422, "The PDF needs a password")
            }
            Self::PdfUndecodable => invalid("pdf_undecodable", 422, "The PDF cannot be read"),
            Self::NotSearchable => {
                invalid("not_searchable", 422, "No searchable PDF can be made of the file")
            }
            Self::DocumentEmpty => invalid("document_empty", 422, "The document has no pages"),
            Self::PageNotFound => invalid("page_not_found", 422, "There is no such page"),
            Self::DocumentTooComplex => {
                invalid("document_too_complex", 422, "The document is too complex")
            }
            Self::ImageTooSmall => invalid("image_too_small", 422, "The image is too small"),
            Self::AspectRatio => invalid("aspect_ratio", 422, "The image is too long and thin"),
            Self::OrientationFixed => invalid("orientation_fixed", 422, "The image stays turned"),
            Self::ContentRejected => {
                worded("content_rejected", 422, "The content is refused", 400, INSPECTED)
            }
            Self::RateLimited => same("rate_limited", 429, "Too many requests", TOO_FAST),
            Self::BudgetExhausted => {
                same("budget_exhausted", 429, "The budget is used up", USED_UP)
            }
            Self::Internal => same("internal", 500, "Internal error", FAILED),
            Self::UpstreamError => same("upstream_error", 502, "The upstream failed", FAILED),
            Self::UpstreamInvalidOutput => {
                same("upstream_invalid_output", 502, "The answer cannot be used", FAILED)
            }
            Self::StoreUnavailable => {
                same("store_unavailable", 503, "A store is away", UNAVAILABLE)
            }
            Self::Overloaded => same("overloaded", 503, "The gateway is busy", UNAVAILABLE),
            Self::UpstreamUnavailable => {
                same("upstream_unavailable", 503, "The upstream is unavailable", UNAVAILABLE)
            }
            Self::UpstreamThrottled => {
                same("upstream_throttled", 503, "The upstream is throttling", UNAVAILABLE)
            }
            Self::UpstreamAccount => {
                same("upstream_account", 503, "The gateway's account is refused", UNAVAILABLE)
            }
            Self::ShuttingDown => {
                same("shutting_down", 503, "The gateway is stopping", UNAVAILABLE)
            }
            Self::NotReady => same("not_ready", 503, "Not ready", UNAVAILABLE),
            Self::UpstreamTimeout => {
                same("upstream_timeout", 504, "The upstream took too long", TIMED_OUT)
            }
            Self::DeadlineExceeded => {
                same("deadline_exceeded", 504, "The deadline passed", TIMED_OUT)
            }
        }
    }

    /// The name as it is sent.
    pub const fn as_str(self) -> &'static str {
        self.entry().name
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        self.entry().status
    }

    /// The situation in a few words.
    pub const fn title(self) -> &'static str {
        self.entry().title
    }

    /// The words of the vendor's protocols.
    pub const fn vendor(self) -> VendorWords {
        self.entry().vendor
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_yaml_ng::Value;

    use super::*;

    fn documented() -> Value {
        let api: Value = serde_yaml_ng::from_str(include_str!("../openapi.yaml")).unwrap();
        api["components"]["schemas"]["ProblemCode"].clone()
    }

    #[test]
    fn the_codes_are_those_of_the_api_s_description_in_the_same_order() {
        let names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        let described = documented()["enum"].clone();
        assert_eq!(serde_yaml_ng::to_value(names).unwrap(), described);
    }

    #[test]
    fn a_code_has_the_status_that_the_api_s_description_explains_it_under() {
        let meanings = documented()["x-meanings"].clone();
        for code in ErrorCode::ALL {
            let explained = &meanings[code.status().to_string()][code.as_str()];
            assert!(explained.is_string(), "{code} under {}", code.status());
        }
    }
}
