//! A request in the words of one of the provider's protocols.

use std::fmt;

use bytes::Bytes;

use crate::dashscope::Protocol;
use crate::metering::context::RequestContext;

/// A request in the words of one of the provider's protocols.
pub struct DropinRequest {
    /// The protocol.
    pub protocol: Protocol,
    /// The body as it was received.
    pub body: Bytes,
    /// Whether the request's head asks for a stream; only the native protocol's does.
    pub stream: bool,
    /// Whether a stream that breaks off can be told from one that ends, as since HTTP/1.1 it can.
    pub may_stream: bool,
    /// Whether the provider shall look up addresses of its own temporary storage.
    pub resolves_oss: bool,
    /// For whom it is sent, until when, and what it holds.
    pub context: RequestContext,
}

/// Leaves the body out.
impl fmt::Debug for DropinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DropinRequest")
            .field("protocol", &self.protocol)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}
