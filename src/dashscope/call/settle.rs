//! The effect of an attempt's or a call's end on its permit.
//!
//! This module has all rules of docs/adr/0001-permit.md. A known bill is settled. A failure that certainly cost nothing
//! leaves the permit unchanged. A failure whose bill is unknown writes the permit off at its bound. If the call
//! continues, it does so on a second permit, so that both bills are covered should both arrive.

use std::sync::Arc;

use super::progress::Progress;
use super::record::{Recorder, give_up};
use crate::admission::{Permit, Settlement};
use crate::dashscope::completion::{Completion, Receipt};
use crate::dashscope::fault::error::{CallError, CallFault, Code, Defect};
use crate::dashscope::fault::verdict::{AttemptBill, Failure, unusable};
use crate::dashscope::pace::queue::SendSlot;
use crate::dashscope::pool::Placement;
use crate::dashscope::wire::answer::{self, ModelAnswer};
use crate::dashscope::wire::transport::Reception;
use crate::units::Usage;

/// A call that was answered, and whose permit is not settled yet. Dropping it writes the permit off.
#[derive(Debug)]
pub(crate) struct UnsettledCall {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) permit: Permit,
    pub(crate) placement: Placement,
    pub(crate) progress: Progress,
}

impl UnsettledCall {
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
        let ModelAnswer {
            text,
            processed_text,
            words,
            kv_result,
            finish_reason,
            usage,
            request_id,
        } = answer;
        let receipt = self.pay(usage, request_id).await;
        Ok(Completion { text, processed_text, words, kv_result, finish_reason, receipt })
    }

    /// Settles at the billed amount, or at the bound, unverified, if the upstream stated no bill.
    pub(crate) async fn pay(self, billed: Option<Usage>, request_id: Option<Code>) -> Receipt {
        let Self { permit, placement, progress, .. } = self;
        if let Some(id) = &request_id {
            permit.tab().answered(id.as_str());
        }
        let endpoint = placement.entrance.endpoint().name().to_owned();
        let settlement = if let Some(billed) = billed {
            settle(permit, &placement.slot, billed, request_id.as_ref()).await
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
        let error = close(permit, &placement.slot, failure).await;
        give_up(&model, &progress, error)
    }
}

/// Ends the permit of a call that finally failed.
pub(crate) async fn close(permit: Permit, slot: &SendSlot, failure: Failure) -> CallError {
    let bill = failure.bill;
    let error = CallError::from(failure);
    match bill {
        AttemptBill::Nothing => {
            slot.unbilled().await;
            permit.release();
        }
        AttemptBill::Unknown => {
            permit.write_off().await;
        }
        AttemptBill::Known(billed) => {
            settle(permit, slot, billed, error.request_id.as_ref()).await;
        }
    }
    error
}

/// The permit for the attempt after `failure`.
///
/// # Errors
///
/// The tenant's limits have no room for a second permit beside the one written off.
pub(crate) async fn carry_over(
    mut permit: Permit,
    slot: &SendSlot,
    failure: &Failure,
) -> Result<Permit, CallError> {
    if failure.bill == AttemptBill::Nothing {
        slot.unbilled().await;
        permit.mark_unbilled();
        return Ok(permit);
    }
    permit.renew().await.map_err(|refusal| CallError {
        request_id: failure.request_id.clone(),
        ..CallFault::Refused(Box::new(refusal)).into()
    })
}

/// Settles the permit at the billed amount, and corrects the amount that the call took from the account's rate.
async fn settle(
    permit: Permit,
    slot: &SendSlot,
    billed: Usage,
    request_id: Option<&Code>,
) -> Settlement {
    let rated = permit.model().rated(&permit.counted(&billed));
    // The ledger comes first: it must not wait for the rate.
    let settling = permit.settle(billed, request_id.map(ToString::to_string));
    slot.billed(rated).await;
    settling.await
}
