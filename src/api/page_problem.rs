//! The problem of one page, within an answer whose other pages were read.

use serde::{Serialize, Serializer};

use super::middleware::RequestId;
use super::problem::Problem;

/// The problem of a page: the usual document, but without a path of its own.
#[derive(Debug)]
pub(super) struct PageProblem {
    problem: Problem,
    request_id: RequestId,
}

impl PageProblem {
    /// Its code.
    pub(super) fn code(&self) -> &'static str {
        self.problem.code.as_str()
    }

    /// The problem of a page of the request with this id.
    pub(super) fn of(error: impl Into<Problem>, request_id: &RequestId) -> Self {
        Self { problem: error.into(), request_id: request_id.clone() }
    }
}

impl Serialize for PageProblem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.problem.document(self.request_id.as_str(), None).serialize(serializer)
    }
}
