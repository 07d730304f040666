//! Checks address and key of an endpoint without spending anything.
//!
//! Only the list of models needs the key and costs nothing. So it distinguishes a wrong address, a wrong key and a
//! working endpoint. It cannot show whether a model may be called: missing rights and unpaid bills show only in a
//! billed call.

use std::time::Duration;

use super::transport::Transport;
use crate::dashscope::fault::error::Code;

/// The list of models of the OpenAI-compatible protocol.
const MODELS: &str = "/compatible-mode/v1/models";

/// A person waits for this check, so it is short.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// A fault that an operator must correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// There was no connection, or no answer.
    #[error("{url} cannot be reached ({cause}): check upstream.base_url and the way there")]
    Unreachable {
        /// The requested address.
        url: String,
        /// The root cause.
        cause: String,
    },
    /// The key is wrong, or belongs to another region.
    #[error(
        "{url} refuses the key with {status}: check upstream.api_key; keys are valid in one region only"
    )]
    Key {
        /// The requested address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The answer is not one of DashScope's.
    #[error("{url} answers with {status}: is upstream.base_url the address of DashScope?")]
    Unexpected {
        /// The requested address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The upstream's id of the answer.
        request_id: Option<Code>,
    },
}

/// Requests the list of models.
pub(crate) async fn check(transport: &Transport) -> Result<(), CheckError> {
    let url = transport.address(MODELS);
    let request = transport.request(reqwest::Method::GET, &*url).timeout(CHECK_TIMEOUT);
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Err(CheckError::Unreachable { url, cause: innermost(&error) }),
    };
    match response.status().as_u16() {
        200..300 => Ok(()),
        status @ (401 | 403) => Err(CheckError::Key { url, status }),
        status => {
            let header = response.headers().get("x-request-id").and_then(|id| id.to_str().ok());
            let request_id = header.and_then(Code::new);
            Err(CheckError::Unexpected { url, status, request_id })
        }
    }
}

/// The root cause: "connection refused" says more than "error sending request".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
