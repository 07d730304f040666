//! The task that posts to the ledger, one for each process.
//!
//! While one transaction runs, operations gather, and the writer posts them as the next one (group commit): a lone call
//! waits for one commit, a thousand concurrent calls share a few. Ends come before new reservations, since they make
//! room for them. If the store lets ends linger, they wait a moment for a reservation, because no caller waits for
//! them.
//!
//! The writer posts a batch without an answer again, unchanged, until an answer comes: every operation may be posted
//! twice, and no spending is ever given up. Meanwhile callers wait, and are refused once their patience ends.
//!
//! A commit whose answer did not come may still land, even after its repeat was answered. A call that the repeat
//! refused could then hold a bound that is never ended. So the writer voids the entry of each such call: a late commit
//! finds the id taken and is rolled back. If the call continues to wait, it does so under a new id.
//!
//! If only calls in flight keep a call from fitting, the writer puts it back to the head of its tenant's line
//! (`queue.rs`). It tries the call again when a call of the tenant ends here, and every 50 ms in any case: a call may
//! have ended on another replica, a new day may have begun, a budget may have been raised, or the tenant may have been
//! disabled, which ends the wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::account::Balances;
use super::books::{Operation, Outcome};
use super::budget::{BudgetExceeded, Budgets};
use super::context::Context;
use super::queue::Queue;
use super::reservation::{
    CallEnd, Reservation, ReserveError, ReserveReply, ReserveRequest, WriterMessage,
};
use super::store::LedgerStoreError;
use crate::random::new_id;
use crate::telemetry::metrics::LedgerStep;

/// The most operations of one transaction.
const LARGEST_BATCH: usize = 256;

/// How often waiting calls are tried if no call has ended here.
const TRY_AGAIN_EVERY: Duration = Duration::from_millis(50);

/// How long a transaction may take before it is given up and posted anew.
///
/// It is longer than SQLite's wait for its lock, so that a file that is only busy answers. It is longer than callers
/// wait, because a second try would come too late for them. It is shorter than the wait of a stop for the last entries,
/// so that a stop has time for a second try.
pub(crate) const POST_TIMEOUT: Duration = Duration::from_secs(4);

/// The first and the longest pause between tries during an outage of the database. Each pause is twice as long as the
/// one before.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// The state of the task.
#[derive(Debug)]
pub(super) struct Writer {
    context: Arc<Context>,
    messages: mpsc::UnboundedReceiver<WriterMessage>,
    /// The sender through which reservations post their ends. Weak, so that the task ends with its last user.
    inbox: mpsc::WeakUnboundedSender<WriterMessage>,
    ends: VecDeque<CallEnd>,
    requests: Queue<ReserveRequest>,
    /// The time of the next try of waiting calls. Set while there are any.
    next_try: Option<Instant>,
    /// Callers that wait for ends, each with the number of `ends` before it.
    flushes: VecDeque<(usize, oneshot::Sender<()>)>,
    is_down: bool,
}

/// Operations that are posted together.
#[derive(Debug, Default)]
struct Batch {
    operations: Vec<Operation>,
    ends: Vec<CallEnd>,
    requests: Vec<ReserveRequest>,
}

/// The outcomes of a batch.
#[derive(Debug)]
struct Posted {
    outcomes: Vec<Result<Outcome, BrokenOperation>>,
    /// Whether the first try was answered, so that no other commit of the batch can be in flight.
    at_once: bool,
}

/// An operation that the store will never accept.
#[derive(Debug, Clone, Copy)]
struct BrokenOperation;

impl Writer {
    pub(super) fn new(
        context: Arc<Context>,
        inbox: mpsc::WeakUnboundedSender<WriterMessage>,
        messages: mpsc::UnboundedReceiver<WriterMessage>,
    ) -> Self {
        Self {
            context,
            messages,
            inbox,
            ends: VecDeque::new(),
            requests: Queue::new(),
            next_try: None,
            flushes: VecDeque::new(),
            is_down: false,
        }
    }

    /// Posts until the last sender of messages is gone.
    pub(super) async fn run(mut self) {
        while self.gather().await {
            let batch = self.compose();
            if !batch.operations.is_empty() {
                let posted = self.post(&batch.operations).await;
                self.deliver(batch, posted);
            }
            self.answer_flushes();
        }
    }

    /// Waits for messages and receives all that have arrived.
    async fn gather(&mut self) -> bool {
        self.plan_next_try();
        if self.ends.is_empty() && !self.requests.is_ready() {
            let heard = match self.next_try {
                None => Ok(self.messages.recv().await),
                Some(due) => timeout_at(due, self.messages.recv()).await,
            };
            match heard {
                Ok(Some(message)) => self.accept(message),
                Ok(None) => return false,
                Err(_) => {}
            }
        }
        self.take_in().await;
        self.linger().await;
        if self.next_try.is_some_and(|due| due <= Instant::now()) {
            self.next_try = None;
            self.requests.wake_all();
        }
        true
    }

    /// Sets the time of the next try if calls wait. Messages that arrive meanwhile do not move it, or a busy
    /// process would never try.
    fn plan_next_try(&mut self) {
        if !self.requests.is_waiting() {
            self.next_try = None;
        } else if self.next_try.is_none() {
            self.next_try = Some(Instant::now() + TRY_AGAIN_EVERY);
        }
    }

    /// Receives all messages, including those of tasks that can run now. Under load, this turns many small transactions
    /// into a few large ones. A lone call is not delayed.
    async fn take_in(&mut self) {
        tokio::task::yield_now().await;
        while let Ok(message) = self.messages.try_recv() {
            self.accept(message);
        }
    }

    /// Waits for a reservation while there are only ends, which no caller waits for.
    async fn linger(&mut self) {
        let until = Instant::now() + self.context.store.linger();
        while self.requests.is_empty() && self.flushes.is_empty() && self.ends.len() < LARGEST_BATCH
        {
            match timeout_at(until, self.messages.recv()).await {
                Ok(Some(message)) => {
                    self.accept(message);
                    self.take_in().await;
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn accept(&mut self, message: WriterMessage) {
        match message {
            WriterMessage::Reserve(request) => {
                let tenant = Arc::clone(&request.charge.tenant);
                self.requests.push(&tenant, *request);
            }
            WriterMessage::End(end) => self.ends.push_back(*end),
            WriterMessage::Flush(done) => self.flushes.push_back((self.ends.len(), done)),
        }
    }

    /// Answers the callers whose ends are posted by now. Ends that came later do not delay the answer.
    fn answer_flushes(&mut self) {
        while let Some((0, _)) = self.flushes.front()
            && let Some((_, done)) = self.flushes.pop_front()
        {
            let _ = done.send(());
        }
    }

    /// Builds the next batch: ends first, then requests of the ready tenants in turn.
    fn compose(&mut self) -> Batch {
        let mut batch = Batch::default();
        let ends = self.ends.len().min(LARGEST_BATCH);
        batch.ends = self.ends.drain(..ends).collect();
        for (before, _) in &mut self.flushes {
            *before = before.saturating_sub(ends);
        }
        let instance = self.context.instance.id();
        // Nothing was reserved for a caller that left while it waited.
        let is_wanted = |request: &ReserveRequest| !request.reply.is_closed();
        batch.requests = self.requests.take(LARGEST_BATCH - ends, is_wanted);
        batch.operations.extend(batch.ends.iter().map(|end| end.operation.clone()));
        batch.operations.extend(batch.requests.iter().map(|request| Operation::Reserve {
            id: request.id,
            instance,
            charge: request.charge.clone(),
            budgets: request.budgets,
        }));
        batch
    }

    /// Posts a batch until the store has accepted it. If the store never will, each operation is posted alone, so that
    /// one that breaks a rule does not stop the others.
    async fn post(&mut self, operations: &[Operation]) -> Posted {
        let mut posted = self.post_whole(operations).await;
        if operations.len() > 1 && matches!(posted.outcomes[..], [Err(BrokenOperation)]) {
            posted.outcomes.clear();
            for operation in operations {
                let Posted { outcomes, at_once } =
                    self.post_whole(std::slice::from_ref(operation)).await;
                posted.outcomes.extend(outcomes);
                posted.at_once &= at_once;
            }
        }
        posted
    }

    /// Posts operations together until the store has answered. Returns the single outcome `BrokenOperation` if the
    /// store will never accept them.
    async fn post_whole(&mut self, operations: &[Operation]) -> Posted {
        let [mut pause, longest] = PAUSES;
        let mut at_once = true;
        loop {
            let today = self.context.calendar.day_of(self.context.clock.timestamp());
            let cause = match timeout(POST_TIMEOUT, self.context.store.post(operations, today))
                .await
            {
                Ok(Ok(outcomes)) => {
                    self.report_up();
                    return Posted { outcomes: outcomes.into_iter().map(Ok).collect(), at_once };
                }
                Ok(Err(error @ LedgerStoreError::Broken(_))) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the ledger does not take what it was given");
                    return Posted { outcomes: vec![Err(BrokenOperation)], at_once };
                }
                Ok(Err(LedgerStoreError::Unavailable(cause))) => cause.to_string(),
                Err(late) => late.to_string(),
            };
            at_once = false;
            self.report_down(&cause);
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    /// Sends each caller its outcome.
    fn deliver(&mut self, batch: Batch, posted: Posted) {
        let now = self.context.clock.instant();
        let mut outcomes = posted.outcomes.into_iter();
        for end in batch.ends {
            let Some(outcome) = outcomes.next() else { break };
            self.context
                .metrics
                .ledger_step(LedgerStep::Settle, now.saturating_duration_since(end.at));
            match outcome {
                Ok(Outcome::Closed(entry, balances)) => {
                    self.requests.wake(&entry.charge.tenant);
                    if let Some(reply) = end.reply {
                        let _ = reply.send(balances);
                    }
                }
                Ok(Outcome::Uncountable) | Err(BrokenOperation) => self.give_up(end),
                Ok(Outcome::Unknown) => self.report_lost(&end.operation),
                Ok(_) => {}
            }
        }
        let mut waiting: Vec<(ReserveRequest, BudgetExceeded)> = Vec::new();
        for (mut request, outcome) in batch.requests.into_iter().zip(outcomes) {
            if let Ok(Outcome::Reserved(balances, budgets)) = outcome {
                self.hand_over(request, balances, budgets);
                continue;
            }
            if !posted.at_once {
                self.void(&mut request);
            }
            let error = match outcome {
                Ok(Outcome::Refused(exceeded)) if exceeded.is_held() => {
                    waiting.push((request, exceeded));
                    continue;
                }
                Ok(Outcome::Refused(exceeded)) => exceeded.into(),
                Ok(Outcome::Disabled) => ReserveError::Disabled,
                _ => ReserveError::Unavailable,
            };
            let _ = request.reply.send(ReserveReply::Refused(error));
        }
        self.put_back(waiting);
    }

    /// Puts calls that must wait back to the heads of their lines, and informs all calls of these lines that they wait:
    /// a later call is not tried before the first one fits.
    fn put_back(&mut self, waiting: Vec<(ReserveRequest, BudgetExceeded)>) {
        let mut lines: Vec<(Arc<str>, BudgetExceeded, Vec<ReserveRequest>)> = Vec::new();
        for (request, exceeded) in waiting {
            let tenant = Arc::clone(&request.charge.tenant);
            let request = request.wait(exceeded);
            match lines.iter_mut().find(|(other, ..)| *other == tenant) {
                Some((.., line)) => line.push(request),
                None => lines.push((tenant, exceeded, vec![request])),
            }
        }
        for (tenant, exceeded, line) in lines {
            self.requests.put_back(&tenant, line);
            self.requests.change(&tenant, |request| request.wait_behind(exceeded));
        }
    }

    /// Voids the entry of a call whose reservation was not answered at the first try and refused at a later one, so
    /// that no late commit can reserve anything for it. The call gets a new id, in case it continues to wait.
    fn void(&mut self, request: &mut ReserveRequest) {
        let new = new_id(&*self.context.clock, &*self.context.random);
        let id = std::mem::replace(&mut request.id, new);
        let (instance, charge) = (self.context.instance.id(), request.charge.clone());
        let operation = Operation::Void { id, instance, charge };
        let at = self.context.clock.instant();
        self.ends.push_back(CallEnd { operation, reply: None, at, _room: None });
    }

    /// Counts a call at its bound if the ledger cannot accept its end. If even that fails, the bound stays reserved,
    /// and an operator must resolve it.
    fn give_up(&mut self, end: CallEnd) {
        let id = end.operation.id();
        self.context.metrics.ledger_stuck();
        if matches!(end.operation, Operation::WriteOff { cost: None, .. }) {
            tracing::error!(entry = %id, "the bound of a call stays reserved: its end cannot be posted");
            return;
        }
        tracing::error!(entry = %id, "a call is counted at its bound: its end cannot be posted");
        let operation = Operation::WriteOff { id, cost: None, endpoint: None };
        self.ends.push_back(CallEnd { operation, reply: None, ..end });
    }

    /// Reports a call whose end cannot be counted because its entry and its reservation are gone: a standby without
    /// them replaced the primary, or a backup was restored.
    fn report_lost(&self, operation: &Operation) {
        let tokens = match operation {
            Operation::Settle { bill, .. } | Operation::Clamp { bill, .. } => {
                Some(bill.usage.total().get())
            }
            Operation::WriteOff { .. } => None,
            // The call cost nothing.
            Operation::Release { .. }
            | Operation::Void { .. }
            | Operation::Note { .. }
            | Operation::Reserve { .. } => return,
        };
        self.context.metrics.ledger_stuck();
        tracing::error!(
            entry = %operation.id(),
            tokens,
            "a call is not counted: the database has lost its reservation"
        );
    }

    /// Hands a reservation to its caller. If the caller has left, the reservation is dropped, which releases it.
    fn hand_over(&self, request: ReserveRequest, balances: Balances, budgets: Budgets) {
        let Some(inbox) = self.inbox.upgrade() else { return };
        let ReserveRequest { id, charge, room, reply, .. } = request;
        let clock = Arc::clone(&self.context.clock);
        let (bound, is_awaited) = (charge.bound.total(), self.context.store.linger().is_zero());
        let room = Some(room);
        let reservation =
            Reservation { id, bound, balances, budgets, is_awaited, room, inbox, clock };
        let _ = reply.send(ReserveReply::Reserved(Box::new(reservation)));
    }

    fn report_down(&mut self, cause: &str) {
        self.context.commits.note(false, self.context.clock.instant());
        if !std::mem::replace(&mut self.is_down, true) {
            tracing::error!(
                cause,
                "the ledger's database is away: nothing is spent until it is back"
            );
        }
    }

    fn report_up(&mut self) {
        self.context.commits.note(true, self.context.clock.instant());
        if std::mem::replace(&mut self.is_down, false) {
            tracing::info!("the ledger's database is back");
        }
    }
}
