//! One upload size at one concurrency.

use crate::upload::Upload;

/// The form of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell<'a> {
    /// The picture.
    pub(crate) upload: &'a Upload,
    /// Concurrent callers.
    pub(crate) connections: usize,
}
