//! Requests a policy for an upload to the provider's temporary storage. This spends nothing.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::progress::Progress;
use super::record::give_up;
use crate::admission;
use crate::admission::tab::{Tab, Wait};
use crate::catalog::Model;
use crate::clock::Clock;
use crate::dashscope::fault::error::{CallError, CallFault};
use crate::dashscope::pool::Pool;
use crate::dashscope::wire::uploads;

/// Asks the first endpoint that serves `model` for a policy for a file of `tenant`.
pub(crate) async fn upload_policy(
    pool: &Pool,
    clock: &dyn Clock,
    (model, tenant): (&Model, &str),
    deadline: Instant,
    tab: &Tab,
) -> Result<Bytes, CallError> {
    let (now, mut progress) = (clock.instant(), Progress::default());
    if admission::latest_start(deadline, now).is_none() {
        return Err(give_up(&model.name, &progress, CallFault::DeadlineExceeded.into()));
    }
    let left = deadline.saturating_duration_since(now);
    let mut entrance = match pool.enter_first(model, tenant) {
        Ok(entrance) => entrance,
        Err(fault) => return Err(give_up(&model.name, &progress, fault.into())),
    };
    let endpoint = Arc::clone(entrance.endpoint());
    progress.begin(endpoint.name(), now);
    tab.waits_for(Some(Wait::Upstream), now);
    let answered = uploads::policy(endpoint.transport(), &model.name, left).await;
    tab.waits_for(None, clock.instant());
    match answered {
        Ok(policy) => {
            // The endpoint accepted the key. The answer does not show whether it serves the model.
            entrance.began();
            Ok(policy)
        }
        Err(failure) => {
            if entrance.failed(&failure, clock.instant()) {
                pool.send_away(&endpoint, model);
            }
            Err(give_up(&model.name, &progress, failure.into()))
        }
    }
}
