//! Errors of uploads.

use crate::api::entrance::{Entered, overloaded};
use crate::api::problem::Problem;
use crate::capacity::account::NoRoom;
use crate::gateway::Gateway;

/// Why an upload cannot be read.
#[derive(Debug)]
pub(in crate::api) enum UploadError {
    /// The upload is invalid.
    Wrong(Problem),
    /// There is no memory for the upload.
    NoRoom(NoRoom),
}

impl From<Problem> for UploadError {
    fn from(problem: Problem) -> Self {
        Self::Wrong(problem)
    }
}

impl From<NoRoom> for UploadError {
    fn from(no_room: NoRoom) -> Self {
        Self::NoRoom(no_room)
    }
}

impl UploadError {
    /// The answer to the caller.
    pub(super) fn told(self, gateway: &Gateway, entered: &Entered) -> Problem {
        match self {
            Self::Wrong(problem) => problem,
            Self::NoRoom(no_room) => overloaded(gateway, entered.tenant.name.as_str(), no_room),
        }
    }
}
