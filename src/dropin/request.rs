//! A request in one of the vendor's protocols.

use std::fmt;

use bytes::Bytes;

use crate::dashscope::Protocol;
use crate::metering::context::RequestContext;

/// A request in one of the vendor's protocols.
pub struct DropinRequest {
    /// The protocol.
    pub protocol: Protocol,
    /// The body as it was received.
    pub body: Bytes,
    /// Whether a header asks for a stream, as in the native protocol.
    pub stream: bool,
    /// Whether the caller can distinguish a broken stream from a complete one, which requires HTTP/1.1.
    pub may_stream: bool,
    /// Whether the vendor resolves addresses of its temporary storage (`oss://`).
    pub resolves_oss: bool,
    /// The tenant, the deadline, and the resources that the request holds.
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
