//! A reply that can be used, and what is still owed for it.
//!
//! Whatever form it has, it holds the permit that it was called with, and reading it to its end is how the
//! permit gets settled. Dropped before that, it writes the permit off, as any call whose bill is not
//! known.

use std::sync::Arc;

use super::answer::{self, Answer};
use super::attempt::Reception;
use super::completion::{Completion, Receipt};
use super::dispatch::{Dispatcher, give_up};
use super::error::{CallError, Code, Defect};
use super::pool::Placement;
use super::spending::{self, Progress};
use super::stream::Streaming;
use super::verdict::{Failure, unusable};
use super::{Forwarded, Streamed};
use crate::admission::Permit;
use crate::units::Usage;

/// A reply of the upstream with what is owed for it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) debt: Debt,
    pub(super) reception: Reception,
}

/// What a call owes: a permit that waits to be settled.
#[derive(Debug)]
pub(super) struct Debt {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) permit: Permit,
    pub(super) placement: Placement,
    pub(super) progress: Progress,
}

impl Reply {
    /// What the model wrote, paid.
    pub(super) async fn completion(self) -> Result<Completion, CallError> {
        self.debt.complete(self.reception).await
    }

    /// What the model writes, as far as it is streamed.
    pub(super) async fn streamed(self) -> Result<Streamed, CallError> {
        let Self { debt, reception } = self;
        match reception {
            Reception::Events(incoming) => {
                Ok(Streamed::Stream(Box::new(Streaming::new(incoming, debt))))
            }
            whole => Ok(Streamed::Whole(Box::new(debt.complete(whole).await?))),
        }
    }

    /// What came, whatever the model wrote; paid where it is whole.
    pub(super) async fn forwarded(self) -> Result<Forwarded, CallError> {
        let Self { debt, reception } = self;
        match reception {
            Reception::Events(incoming) => {
                Ok(Forwarded::Stream(Box::new(Streaming::new(incoming, debt))))
            }
            Reception::Json(json) => {
                let receipt = debt.pay(json.usage, json.request_id).await;
                Ok(Forwarded::Whole { body: json.received.into_bytes(), receipt })
            }
            Reception::Answer(_) => Err(debt.fail(unusable(Defect::NotJson, None)).await),
        }
    }
}

impl Debt {
    async fn complete(self, reception: Reception) -> Result<Completion, CallError> {
        let read = match reception {
            Reception::Answer(answer) => Ok(*answer),
            Reception::Json(json) => answer::content(*json),
            Reception::Events(_) => Err(unusable(Defect::NotJson, None)),
        };
        let answer = match read {
            Ok(answer) => answer,
            Err(failure) => return Err(self.fail(failure).await),
        };
        let Answer { text, processed_text, words, kv_result, finish_reason, usage, request_id } =
            answer;
        let receipt = self.pay(usage, request_id).await;
        Ok(Completion { text, processed_text, words, kv_result, finish_reason, receipt })
    }

    /// Settles at what was billed; at the bound, unverified, where the upstream did not say.
    pub(super) async fn pay(self, billed: Option<Usage>, request_id: Option<Code>) -> Receipt {
        let Self { permit, placement, progress, .. } = self;
        if let Some(id) = &request_id {
            permit.tab().answered(id.as_str());
        }
        let endpoint = placement.entrance.endpoint().name().to_owned();
        let settlement = if let Some(billed) = billed {
            // On its way to the ledger before anything else is waited for.
            let rated = permit.model().rated(&permit.counted(&billed));
            let settling = permit.settle(billed, request_id.as_ref().map(ToString::to_string));
            placement.turn.billed(rated).await;
            settling.await
        } else {
            let model = permit.model().name.as_str();
            tracing::warn!(endpoint, model, "the upstream's answer states no bill");
            permit.write_off().await
        };
        Receipt {
            settlement,
            endpoint,
            verified: settlement.verified,
            request_id,
            attempts: progress.attempts,
            upstream_time: progress.upstream_time,
        }
    }

    /// Ends the call without a usable reply.
    pub(super) async fn fail(self, failure: Failure) -> CallError {
        let Self { dispatcher, permit, mut placement, progress } = self;
        let model = permit.model().name.clone();
        if let Some(id) = &failure.request_id {
            permit.tab().answered(id.as_str());
        }
        dispatcher.learn(&mut placement, &failure).await;
        let stop = spending::close(permit, &placement.turn, failure).await;
        give_up(&model, &progress, stop)
    }
}
