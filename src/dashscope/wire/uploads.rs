//! Policies for uploads to the provider's temporary storage.
//!
//! The DashScope SDK uploads a local file before the call that reads it: it requests a policy with its key, posts the
//! file to the storage with that policy, and names the file by an `oss://` address (Model Studio, "Upload local files
//! to get temporary URLs"). The policy costs nothing. The file does not pass through the gateway.

use std::time::Duration;

use bytes::Bytes;

use super::answer;
use super::received::Received;
use super::transport::Transport;
use crate::dashscope::fault::error::{CallFault, Defect};
use crate::dashscope::fault::verdict::{Failure, unusable};
use crate::units::Usage;

/// The path of policies.
const UPLOADS: &str = "/api/v1/uploads";

/// A policy has some hundred bytes.
const MOST_BYTES: usize = 64 * 1024;

/// Requests the policy of a file for `model`, within `left`.
pub(crate) async fn policy(
    transport: &Transport,
    model: &str,
    left: Duration,
) -> Result<Bytes, Failure> {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("action", "getPolicy")
        .append_pair("model", model)
        .finish();
    let path = format!("{UPLOADS}?{query}");
    let asked = tokio::time::timeout(left, transport.get(&path, MOST_BYTES)).await;
    match asked {
        Ok(Ok(received)) => read(received),
        Ok(Err(failure)) => Err(failure),
        Err(_late) => Err(Failure::unsent(CallFault::DeadlineExceeded)),
    }
}

fn read(received: Received) -> Result<Bytes, Failure> {
    let json = answer::json(received, &Usage::default())?;
    if json.value["data"].is_object() {
        return Ok(json.received.body.into());
    }
    Err(unusable(Defect::NoContent, None))
}
