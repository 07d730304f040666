//! The body of a response as it comes, and why there may be nothing to read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::timeout;

use super::body::Sending;
use super::received::Received;
use crate::dashscope::fault::error::{Defect, Fault, Timeout};
use crate::dashscope::fault::verdict::{Bill, Failure, Repeat, unusable};

/// The body of a response, piece by piece.
#[derive(Debug)]
pub(crate) struct Pieces {
    pub(crate) response: Response,
    pub(crate) idle: Duration,
    /// The request, which is sent on at most until the response is read.
    pub(crate) _sending: Option<Sending>,
}

impl Pieces {
    /// The next piece; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        match timeout(self.idle, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(_)) => Err(Broken::Interrupted),
            Err(_) => Err(Broken::Timeout(Timeout::Idle)),
        }
    }

    /// Adds what is left to `body`, up to `most` bytes in all.
    pub(crate) async fn fill(&mut self, body: &mut Vec<u8>, most: usize) -> Result<(), Broken> {
        while let Some(piece) = self.next().await? {
            if body.len() + piece.len() > most {
                return Err(Broken::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        Ok(())
    }

    /// The same for what may be long, in memory that is taken as it grows.
    pub(crate) async fn fill_with(
        &mut self,
        received: &mut Received,
        most: usize,
    ) -> Result<(), Broken> {
        while let Some(piece) = self.next().await? {
            if received.body.len() + piece.len() > most {
                return Err(Broken::TooLong);
            }
            received.append(&piece, most).await;
        }
        Ok(())
    }
}

/// Why there is nothing to read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Broken {
    Unreachable,
    Interrupted,
    TooLong,
    /// A part of it cannot be read.
    Unreadable,
    Timeout(Timeout),
    Deadline,
}

impl Broken {
    /// Why a request brought no head.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        if error.is_connect() { Self::Unreachable } else { Self::Interrupted }
    }

    /// What that means for the call, given whether the whole request had been handed over.
    pub(crate) fn failure(self, handed_over: &AtomicBool) -> Failure {
        // Without its last piece the upstream had no request that it could have worked on.
        let bill = if handed_over.load(Ordering::Acquire) { Bill::Unknown } else { Bill::Nothing };
        self.billed(bill)
    }

    /// What that means for a call of which this is known of the bill.
    pub(crate) fn billed(self, bill: Bill) -> Failure {
        match self {
            Self::Unreachable => Failure::new(Fault::Unreachable, Repeat::Transient, Bill::Nothing),
            Self::Interrupted => Failure::new(Fault::Interrupted, Repeat::Transient, bill),
            Self::TooLong => Failure { bill, ..unusable(Defect::TooLong, None) },
            Self::Unreadable => Failure { bill, ..unusable(Defect::Unreadable, None) },
            // A page that took minutes would take minutes again, and be paid for again.
            Self::Timeout(which) => Failure::new(Fault::Timeout(which), Repeat::Never, bill),
            Self::Deadline => Failure::new(Fault::DeadlineExceeded, Repeat::Never, bill),
        }
    }
}
