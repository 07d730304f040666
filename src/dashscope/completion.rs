//! The answer to a call, and its cost.

use std::fmt;
use std::time::Duration;

use super::fault::error::Code;
use crate::admission::Settlement;
use crate::json::Tree;

/// The model's answer and its cost.
#[derive(Clone, PartialEq)]
pub struct Completion {
    /// The text that the model wrote. Empty for a blank page.
    pub text: String,
    /// The text without fragments that the model repeated. Only DashScope's own protocol can have it.
    pub processed_text: Option<String>,
    /// Text lines with their positions: the result of the task `advanced_recognition`.
    pub words: Option<Vec<Word>>,
    /// Named values: the result of the task `key_information_extraction`.
    pub kv_result: Option<Tree>,
    /// The reason why the model stopped.
    pub finish_reason: FinishReason,
    /// The cost of the answer.
    pub receipt: Receipt,
}

/// The cost of an answer, and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// The cost of the answer.
    pub settlement: Settlement,
    /// The endpoint that answered.
    pub endpoint: String,
    /// Whether the upstream stated a possible bill. If not, `settlement` is the permit's bound, or more, marked
    /// unverified: the answer was paid for, so it is delivered, and the ledger counts the higher amount.
    pub verified: bool,
    /// The upstream's id of the answer, for the vendor's support.
    pub request_id: Option<Code>,
    /// The number of attempts, that of this answer included.
    pub attempts: u32,
    /// Time spent waiting for the upstream, over all attempts; queueing and backoff not included.
    pub upstream_time: Duration,
}

impl Receipt {
    /// The number of retries.
    pub const fn retries(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }
}

/// One text line of the task `advanced_recognition`.
#[derive(Clone, PartialEq)]
pub struct Word {
    /// The text of the line.
    pub text: String,
    /// `x1, y1, … x4, y4`, clockwise from the top left, in pixels of the image as sent. They may lie outside of it.
    pub location: Option<[f64; 8]>,
    /// Centre x, centre y, width, height, angle in degrees; upright lines come with sides swapped.
    pub rotate_rect: Option<[f64; 5]>,
}

/// The reason why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The text is complete.
    Stop,
    /// The text reached `max_tokens` and is cut.
    Length,
    /// An undocumented reason, or none.
    Other(Option<Code>),
}

/// Leaves the text out.
impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Word").field("location", &self.location).finish_non_exhaustive()
    }
}

/// Leaves the answer out.
impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("finish_reason", &self.finish_reason)
            .field("receipt", &self.receipt)
            .finish_non_exhaustive()
    }
}
