//! A refusal that further calls of the same request would meet, too.
//!
//! Pages are drawn before their calls are admitted. After a budget has refused a call, pages whose calls are as large
//! would be drawn in vain.

use std::sync::{Mutex, PoisonError};

use crate::admission::Refusal;
use crate::metering::error::MeteringError;
use crate::ocr::error::OcrError;
use crate::units::Tokens;

/// Refuses calls of a request after an earlier one was refused.
#[derive(Debug, Default)]
pub(super) struct Barrier(Mutex<Option<Refused>>);

/// A refusal that holds for further calls.
#[derive(Debug)]
struct Refused {
    /// The least bound of the calls that it holds for.
    from: Tokens,
    refusal: Refusal,
}

impl Barrier {
    /// Refuses a call of at most `bound` tokens if an earlier refusal holds for it.
    ///
    /// # Errors
    ///
    /// The earlier refusal.
    pub(super) fn check(&self, bound: Tokens) -> Result<(), OcrError> {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match refused.as_ref().filter(|refused| bound >= refused.from) {
            Some(refused) => Err(MeteringError::Refused(refused.refusal.clone()).into()),
            None => Ok(()),
        }
    }

    /// Notes that a call of at most `bound` tokens failed with `error`.
    pub(super) fn note(&self, bound: Tokens, error: &OcrError) {
        let OcrError::Metering(MeteringError::Refused(refusal)) = error else { return };
        let from = match refusal {
            // It was refused although calls in flight may end, so a call of the same size does not fit either.
            Refusal::Budget { .. } => bound,
            Refusal::Lapsed(_) => Tokens::ZERO,
            Refusal::Limit(_) | Refusal::TooLate { .. } | Refusal::StoreUnavailable => return,
        };
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.as_ref().is_none_or(|refused| from < refused.from) {
            *refused = Some(Refused { from, refusal: refusal.clone() });
        }
    }
}
