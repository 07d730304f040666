//! One size at one concurrency.

use crate::upload::Upload;

/// The request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell<'a> {
    /// The picture.
    pub(crate) upload: &'a Upload,
    /// Callers at once.
    pub(crate) connections: usize,
}
