//! The answer to a call, and its cost.

use std::fmt;
use std::time::Duration;

use super::fault::error::Code;
use crate::admission::Settlement;
use crate::json::Tree;

/// The model's answer and its cost.
#[derive(Clone, PartialEq)]
pub struct Completion {
    /// What the model wrote. Empty for a blank page.
    pub text: String,
    /// The text without fragments that the model repeated. Only DashScope's own protocol has it, and not always.
    pub processed_text: Option<String>,
    /// Text lines with their places: the result of the task `advanced_recognition`.
    pub words: Option<Vec<Word>>,
    /// Named values: the result of the task `key_information_extraction`.
    pub kv_result: Option<Tree>,
    /// Why the model stopped.
    pub finish_reason: FinishReason,
    /// What the answer cost.
    pub receipt: Receipt,
}

/// What an answer cost and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// What the answer cost.
    pub settlement: Settlement,
    /// The endpoint that answered.
    pub endpoint: String,
    /// Whether the upstream stated a possible bill. If not, `settlement` is the permit's bound, or more, marked
    /// unverified: the answer was paid for, so it is delivered, and the ledger errs upwards.
    pub verified: bool,
    /// The upstream's id of the answer, for its support.
    pub request_id: Option<Code>,
    /// The number of attempts, that of this answer included.
    pub attempts: u32,
    /// Time spent waiting for the upstream, over all attempts; queueing and backoff not included.
    pub upstream_time: Duration,
}

impl Receipt {
    /// How often the call was repeated.
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

/// Why the model stopped writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// It had no more to say.
    Stop,
    /// It reached `max_tokens`: the text is cut.
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
