//! What a call owes until its bill is known.

use std::sync::Arc;

use super::record::{Recorder, give_up};
use super::spending;
use super::spending::Progress;
use crate::admission::Permit;
use crate::dashscope::completion::{Completion, Receipt};
use crate::dashscope::fault::error::{CallError, Code, Defect};
use crate::dashscope::fault::verdict::{Failure, unusable};
use crate::dashscope::pool::Placement;
use crate::dashscope::wire::answer::{self, Answer};
use crate::dashscope::wire::transport::Reception;
use crate::units::Usage;

/// What a call owes: a permit that waits to be settled.
#[derive(Debug)]
pub(crate) struct Debt {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) permit: Permit,
    pub(crate) placement: Placement,
    pub(crate) progress: Progress,
}

impl Debt {
    pub(crate) async fn complete(self, reception: Reception) -> Result<Completion, CallError> {
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
    pub(crate) async fn pay(self, billed: Option<Usage>, request_id: Option<Code>) -> Receipt {
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
    pub(crate) async fn fail(self, failure: Failure) -> CallError {
        let Self { recorder, permit, mut placement, progress } = self;
        let model = permit.model().name.clone();
        if let Some(id) = &failure.request_id {
            permit.tab().answered(id.as_str());
        }
        recorder.learn(&mut placement, &failure).await;
        let stop = spending::close(permit, &placement.turn, failure).await;
        give_up(&model, &progress, stop)
    }
}
