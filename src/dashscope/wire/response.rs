//! The body of a response as it arrives, and the reasons why reading it may end early.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::timeout;

use super::body::Sending;
use super::received::Received;
use crate::dashscope::fault::error::{CallFault, Defect, Timeout};
use crate::dashscope::fault::verdict::{AttemptBill, Failure, Repeat, unusable};

/// The body of a response, piece by piece.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    pub(crate) response: Response,
    pub(crate) idle: Duration,
    /// The request. Its sending ends at the latest when the response was read.
    pub(crate) _sending: Option<Sending>,
}

impl ResponseBody {
    /// The next piece; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        match timeout(self.idle, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(_)) => Err(ReadError::Interrupted),
            Err(_) => Err(ReadError::Timeout(Timeout::Idle)),
        }
    }

    /// Appends the rest to `body`, up to `most` bytes in total.
    pub(crate) async fn fill(&mut self, body: &mut Vec<u8>, most: usize) -> Result<(), ReadError> {
        while let Some(piece) = self.next().await? {
            if body.len() + piece.len() > most {
                return Err(ReadError::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        Ok(())
    }

    /// The same for a body that may be long, in memory that is counted as it grows.
    pub(crate) async fn fill_with(
        &mut self,
        received: &mut Received,
        most: usize,
    ) -> Result<(), ReadError> {
        while let Some(piece) = self.next().await? {
            if received.body.len() + piece.len() > most {
                return Err(ReadError::TooLong);
            }
            received.append(&piece, most).await;
        }
        Ok(())
    }
}

/// The reason why reading ended early.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReadError {
    Unreachable,
    Interrupted,
    TooLong,
    /// A part of it is damaged.
    Unreadable,
    Timeout(Timeout),
    Deadline,
}

impl ReadError {
    /// The reason why a request got no head.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        if error.is_connect() { Self::Unreachable } else { Self::Interrupted }
    }

    /// The failure of the attempt, given whether the whole request had been handed over.
    pub(crate) fn failure(self, handed_over: &AtomicBool) -> Failure {
        // Without the last piece, the upstream had no complete request to process.
        let bill = if handed_over.load(Ordering::Acquire) {
            AttemptBill::Unknown
        } else {
            AttemptBill::Nothing
        };
        self.billed(bill)
    }

    /// The failure of an attempt with this bill.
    pub(crate) fn billed(self, bill: AttemptBill) -> Failure {
        match self {
            Self::Unreachable => {
                Failure::new(CallFault::Unreachable, Repeat::Transient, AttemptBill::Nothing)
            }
            Self::Interrupted => Failure::new(CallFault::Interrupted, Repeat::Transient, bill),
            Self::TooLong => Failure { bill, ..unusable(Defect::TooLong, None) },
            Self::Unreadable => Failure { bill, ..unusable(Defect::Unreadable, None) },
            // A page that took minutes would take minutes again, and would be paid for again.
            Self::Timeout(which) => Failure::new(CallFault::Timeout(which), Repeat::Never, bill),
            Self::Deadline => Failure::new(CallFault::DeadlineExceeded, Repeat::Never, bill),
        }
    }
}
