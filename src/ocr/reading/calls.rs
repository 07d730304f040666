//! The calls for a page, each admitted by itself.
//!
//! The first call for a single page is refused at once if it does not fit. Any other call waits for tokens of the
//! minute and for memory, because the request has paid for others by then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Follower, PageReader, Pass, QuotedCall};
use crate::admission::{self, Permit, Refusal};
use crate::capacity::account::NoRoom;
use crate::dashscope::completion::{Completion, Receipt};
use crate::dashscope::error::{CallError, CallFault};
use crate::dashscope::{Client, Task};
use crate::metering::context::RequestContext;
use crate::metering::error::MeteringError;
use crate::metering::run::Meter;
use crate::ocr::error::OcrError;
use crate::ocr::sheet::PageCall;
use crate::ocr::stream as streamed;

/// The label of refusals for lack of memory.
const OVERLOADED: &str = "overloaded";

/// Shortest wait for tokens of the minute or for memory.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);

/// What the task of a call owns.
struct CallTask {
    client: Arc<Client>,
    call: PageCall,
    follower: Option<Follower>,
    deadline: Instant,
}

impl CallTask {
    /// Makes the admitted call. The file is dropped when the call no longer needs it.
    async fn run(self, permit: Permit, meter: Meter) -> Result<Completion, CallError> {
        let Self { client, mut call, follower, deadline } = self;
        // The log line is written when the last call has ended.
        let (listener, _log) = follower.map(|Follower { listener, log }| (listener, log)).unzip();
        let listener = listener.filter(|_| call.call.task.as_ref().is_none_or(Task::streams));
        let completion = match listener {
            None => client.call_in(call.room.take(), permit, &call.call, deadline).await?,
            Some(listener) => streamed::call(&client, permit, call, deadline, listener).await?,
        };
        meter.compare(&completion.receipt);
        Ok(completion)
    }
}

impl Pass<'_> {
    /// Makes one call for a page. `receipts` are those of its earlier calls.
    pub(super) async fn call(
        &self,
        context: &RequestContext,
        call: QuotedCall<'_>,
        receipts: &[Receipt],
    ) -> Result<Completion, OcrError> {
        if !self.is_one_of_several && receipts.is_empty() {
            return self.reader.call_at_once(context, call).await;
        }
        let bound = call.quote.bound.total();
        self.check_is_awaited()?;
        self.barrier.check(bound)?;
        let called = self.reader.call_patiently(context, call).await;
        called.inspect_err(|error| self.barrier.note(bound, error))
    }
}

impl PageReader {
    /// Makes a call, or fails at once if it is not admitted.
    async fn call_at_once(
        &self,
        context: &RequestContext,
        call: QuotedCall<'_>,
    ) -> Result<Completion, OcrError> {
        let forecast = call.forecast();
        let task = self.task_of(call, context);
        Ok(self.metering.run(context, forecast, |permit, meter| task.run(permit, meter)).await?)
    }

    /// Makes a call. If other calls have used up the tenant's tokens of the minute, or the memory for answers, this
    /// waits for more, but not beyond the deadline.
    async fn call_patiently(
        &self,
        context: &RequestContext,
        mut call: QuotedCall<'_>,
    ) -> Result<Completion, OcrError> {
        let Self { metering, client, .. } = self;
        call.call.room = loop {
            match client.room_for(call.quote.bound.output).await {
                Ok(room) => break Some(room),
                Err(_) if self.waits(context, SHORTEST_WAIT).await => {}
                Err(full) => {
                    metering.refused(context, OVERLOADED);
                    return Err(no_room(full));
                }
            }
        };
        let admitted = loop {
            let refusal = match metering.admit(context, call.forecast()).await {
                Ok(admitted) => break admitted,
                Err(refusal) => refusal,
            };
            let may_be_repeated = match wait_after(&refusal) {
                Some(wait) => self.waits(context, wait).await,
                None => false,
            };
            if !may_be_repeated {
                metering.refused(context, refusal.label());
                return Err(MeteringError::from(refusal).into());
            }
        };
        let task = self.task_of(call, context);
        Ok(metering.make(admitted, |permit, meter| task.run(permit, meter)).await?)
    }

    fn task_of(&self, call: QuotedCall<'_>, context: &RequestContext) -> CallTask {
        let QuotedCall { call, follower, .. } = call;
        CallTask { client: Arc::clone(&self.client), call, follower, deadline: context.deadline }
    }

    /// Waits, and returns whether the caller is still there and there is time for a call.
    async fn waits(&self, context: &RequestContext, wait: Duration) -> bool {
        let again = self.clock.instant() + wait;
        let has_left = context.watch.may_have_left.noted();
        admission::latest_start(context.deadline, again).is_some()
            && tokio::time::timeout(wait, has_left).await.is_err()
    }
}

/// How long a call waits before it is tried again, if it was refused because of other calls.
fn wait_after(refusal: &Refusal) -> Option<Duration> {
    match refusal {
        Refusal::Limit(exceeded) => Some(exceeded.retry_after.max(SHORTEST_WAIT)),
        _ => None,
    }
}

/// The error of a call that found no memory for its answer in time.
fn no_room(full: NoRoom) -> OcrError {
    MeteringError::from(CallError::from(CallFault::NoRoom(full))).into()
}
