//! The one task of a process that posts to the ledger.
//!
//! It takes whatever has come together while the last transaction ran and posts it as the next one
//! (group commit): a lone call waits for one commit, a thousand at once share a few. Ends come
//! before new reservations, since they make room for them; where the store lets them linger, they wait a
//! moment for one, because nobody waits for them.
//!
//! A batch whose answer does not come is posted again, unchanged, until it does: every operation
//! may be posted twice, and nothing that was spent is ever given up. Meanwhile callers wait and are
//! refused by their own patience.
//!
//! A call that only calls in flight keep from fitting is put back to the head of its tenant's queue,
//! and tried again when a call of the tenant has ended here, or a little later, as one may have ended
//! on another replica.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::books::{Balances, Charge, Operation, Outcome};
use super::budget::{BudgetExceeded, Budgets};
use super::reservation::Reservation;
use super::window::Calendar;
use super::{Holder, Ledger, LedgerStore, LedgerStoreError, show_balances, show_budgets};
use crate::clock::Clock;
use crate::telemetry::metrics::{LedgerStep, Metrics};

/// The most operations of one transaction.
const LARGEST_BATCH: usize = 256;

/// How often calls that wait for others are tried although none has ended here.
const TRY_AGAIN_EVERY: Duration = Duration::from_millis(50);

/// How long a transaction may take before it is given up and posted anew.
const POST_TIMEOUT: Duration = Duration::from_secs(5);

/// The pauses between tries at a database that is gone double from the first to the last of these.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A call asks for its bound.
    Reserve(Box<Request>),
    /// A call has ended.
    End(Box<End>),
    /// Somebody wants to know when all of the above is in the database.
    Flush(oneshot::Sender<()>),
}

/// A call that asks for its bound.
#[derive(Debug)]
pub(super) struct Request {
    id: Uuid,
    charge: Charge,
    budgets: Budgets,
    room: OwnedSemaphorePermit,
    reply: oneshot::Sender<Reply>,
    /// Whether the caller knows that it waits for calls in flight.
    is_waiting: bool,
}

/// What a call that asked for its bound is told.
#[derive(Debug)]
pub(super) enum Reply {
    /// It is held.
    Reserved(Box<Reservation>),
    /// It does not fit.
    Refused(BudgetExceeded),
    /// It may fit when calls in flight have ended; the rest will be told there.
    Waiting(BudgetExceeded, oneshot::Receiver<Self>),
    /// The ledger cannot take it.
    Failed,
}

/// The end of a call.
#[derive(Debug)]
pub(super) struct End {
    pub(super) operation: Operation,
    pub(super) reply: Option<oneshot::Sender<Balances>>,
    /// When it was, by the ledger's clock.
    pub(super) at: std::time::Instant,
    /// The place in the queue, which is free once the end is posted.
    pub(super) _room: OwnedSemaphorePermit,
}

/// The task.
#[derive(Debug)]
pub(super) struct Writer {
    store: Arc<dyn LedgerStore>,
    holder: Arc<Holder>,
    calendar: Calendar,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    messages: mpsc::UnboundedReceiver<Message>,
    /// What reservations post their ends to. Weak, so that the task ends with its last user.
    inbox: mpsc::WeakUnboundedSender<Message>,
    ends: VecDeque<End>,
    requests: BTreeMap<Arc<str>, VecDeque<Request>>,
    /// Tenants whose first request is worth a try.
    ready: BTreeSet<Arc<str>>,
    flushes: Vec<oneshot::Sender<()>>,
    is_down: bool,
}

/// What is posted together.
#[derive(Debug, Default)]
struct Batch {
    operations: Vec<Operation>,
    ends: Vec<End>,
    requests: Vec<Request>,
}

/// An operation that the store will never take.
#[derive(Debug, Clone, Copy)]
struct Broken;

impl Request {
    pub(super) const fn new(
        id: Uuid,
        charge: Charge,
        budgets: Budgets,
        room: OwnedSemaphorePermit,
        reply: oneshot::Sender<Reply>,
    ) -> Self {
        Self { id, charge, budgets, room, reply, is_waiting: false }
    }

    /// Lets the caller know that it waits, if it does not yet.
    fn wait(mut self, exceeded: BudgetExceeded) -> Self {
        if !self.is_waiting {
            let (reply, answer) = oneshot::channel();
            let first = std::mem::replace(&mut self.reply, reply);
            // A caller that has left is noticed by the new channel, which is closed then.
            let _ = first.send(Reply::Waiting(exceeded, answer));
            self.is_waiting = true;
        }
        self
    }
}

impl Writer {
    pub(super) fn new(ledger: &Ledger, messages: mpsc::UnboundedReceiver<Message>) -> Self {
        Self {
            store: Arc::clone(&ledger.store),
            holder: Arc::clone(&ledger.holder),
            calendar: ledger.calendar.clone(),
            clock: Arc::clone(&ledger.clock),
            metrics: Arc::clone(&ledger.metrics),
            messages,
            inbox: ledger.inbox.downgrade(),
            ends: VecDeque::new(),
            requests: BTreeMap::new(),
            ready: BTreeSet::new(),
            flushes: Vec::new(),
            is_down: false,
        }
    }

    /// Posts until nobody is left who could ask for anything.
    pub(super) async fn run(mut self) {
        while self.gather().await {
            let batch = self.compose();
            if !batch.operations.is_empty() {
                let outcomes = self.post(&batch.operations).await;
                self.deliver(batch, outcomes);
            }
            if self.ends.is_empty() {
                for done in self.flushes.drain(..) {
                    let _ = done.send(());
                }
            }
        }
    }

    /// Waits for something to do, and takes in all that is there.
    async fn gather(&mut self) -> bool {
        let has_work = !self.ends.is_empty() || !self.ready.is_empty();
        if !has_work {
            let heard = if self.requests.is_empty() {
                Ok(self.messages.recv().await)
            } else {
                timeout(TRY_AGAIN_EVERY, self.messages.recv()).await
            };
            match heard {
                Ok(Some(message)) => self.accept(message),
                Ok(None) => return false,
                Err(_) => self.ready = self.requests.keys().cloned().collect(),
            }
        }
        self.take_in().await;
        self.linger().await;
        true
    }

    /// Takes in all that is there, and what those ask who can run now: under load that makes few large
    /// transactions out of many small ones, and a lone call waits for nobody.
    async fn take_in(&mut self) {
        tokio::task::yield_now().await;
        while let Ok(message) = self.messages.try_recv() {
            self.accept(message);
        }
    }

    /// Waits for company, where there are only ends for which nobody waits.
    async fn linger(&mut self) {
        let until = Instant::now() + self.store.linger();
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

    fn accept(&mut self, message: Message) {
        match message {
            Message::Reserve(request) => {
                let tenant = Arc::clone(&request.charge.tenant);
                self.ready.insert(Arc::clone(&tenant));
                self.requests.entry(tenant).or_default().push_back(*request);
            }
            Message::End(end) => self.ends.push_back(*end),
            Message::Flush(done) => self.flushes.push(done),
        }
    }

    /// Puts the next batch together: ends first, then requests of one ready tenant after the other.
    fn compose(&mut self) -> Batch {
        let mut batch = Batch::default();
        let ends = self.ends.len().min(LARGEST_BATCH);
        batch.ends = self.ends.drain(..ends).collect();
        let holder = self.holder.id();
        let mut space = LARGEST_BATCH - ends;
        while space > 0 {
            let Some(tenant) = self.ready.pop_first() else { break };
            let Some(queue) = self.requests.get_mut(&tenant) else { continue };
            // Nothing was reserved for a caller that left while it waited.
            queue.retain(|request| !request.reply.is_closed());
            let taken = queue.len().min(space);
            batch.requests.extend(queue.drain(..taken));
            space -= taken;
            if queue.is_empty() {
                self.requests.remove(&tenant);
            } else {
                self.ready.insert(tenant);
            }
        }
        batch.operations.extend(batch.ends.iter().map(|end| end.operation.clone()));
        batch.operations.extend(batch.requests.iter().map(|request| Operation::Reserve {
            id: request.id,
            holder,
            charge: request.charge.clone(),
            budgets: request.budgets,
        }));
        batch
    }

    /// Posts a batch until the store has taken it. If the store never will, each operation is posted
    /// alone, so that one that breaks a rule does not stop the others.
    async fn post(&mut self, operations: &[Operation]) -> Vec<Result<Outcome, Broken>> {
        match self.post_whole(operations).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(Broken) if operations.len() == 1 => vec![Err(Broken)],
            Err(Broken) => {
                let mut outcomes = Vec::with_capacity(operations.len());
                for operation in operations {
                    let posted = self.post_whole(std::slice::from_ref(operation)).await;
                    outcomes.push(posted.and_then(|mut outcome| outcome.pop().ok_or(Broken)));
                }
                outcomes
            }
        }
    }

    async fn post_whole(&mut self, operations: &[Operation]) -> Result<Vec<Outcome>, Broken> {
        let [mut pause, longest] = PAUSES;
        loop {
            let today = self.calendar.day_of(self.clock.timestamp());
            let cause = match timeout(POST_TIMEOUT, self.store.post(operations, today)).await {
                Ok(Ok(outcomes)) => {
                    self.report_up();
                    return Ok(outcomes);
                }
                Ok(Err(error @ LedgerStoreError::Broken(_))) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the ledger does not take what it was given");
                    return Err(Broken);
                }
                Ok(Err(LedgerStoreError::Unavailable(cause))) => cause.to_string(),
                Err(late) => late.to_string(),
            };
            self.report_down(&cause);
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    /// Tells everybody what became of what they asked.
    fn deliver(&mut self, batch: Batch, outcomes: Vec<Result<Outcome, Broken>>) {
        let today = self.calendar.day_of(self.clock.timestamp());
        let now = self.clock.instant();
        let mut outcomes = outcomes.into_iter();
        for end in batch.ends {
            self.metrics.ledger_step(LedgerStep::Settle, now.saturating_duration_since(end.at));
            let Some(Ok(Outcome::Closed(entry, balances))) = outcomes.next() else { continue };
            let tenant = &entry.charge.tenant;
            show_balances(&self.metrics, tenant, &balances, today);
            if self.requests.contains_key(tenant) {
                self.ready.insert(Arc::clone(tenant));
            }
            if let Some(reply) = end.reply {
                let _ = reply.send(balances);
            }
        }
        let mut waiting = Vec::new();
        for (request, outcome) in batch.requests.into_iter().zip(outcomes) {
            match outcome {
                Ok(Outcome::Reserved(balances)) => {
                    show_balances(&self.metrics, &request.charge.tenant, &balances, today);
                    self.hand_over(request, balances);
                }
                Ok(Outcome::Refused(exceeded)) if exceeded.is_held() => {
                    waiting.push(request.wait(exceeded));
                }
                Ok(Outcome::Refused(exceeded)) => {
                    let _ = request.reply.send(Reply::Refused(exceeded));
                }
                _ => {
                    let _ = request.reply.send(Reply::Failed);
                }
            }
        }
        // Backwards, so that each queue keeps its order.
        for request in waiting.into_iter().rev() {
            let tenant = Arc::clone(&request.charge.tenant);
            // Nothing is worth a try before something has ended.
            self.ready.remove(&tenant);
            self.requests.entry(tenant).or_default().push_front(request);
        }
    }

    /// Hands a reservation to its caller. One who has left leaves it to be dropped, which releases it.
    fn hand_over(&self, request: Request, balances: Balances) {
        let Some(inbox) = self.inbox.upgrade() else { return };
        let Request { id, charge, budgets, room, reply, .. } = request;
        show_budgets(&self.metrics, &charge.tenant, &budgets);
        let clock = Arc::clone(&self.clock);
        let (bound, is_awaited) = (charge.bound.total(), self.store.linger().is_zero());
        let room = Some(room);
        let reservation = Reservation { id, bound, balances, is_awaited, room, inbox, clock };
        let _ = reply.send(Reply::Reserved(Box::new(reservation)));
    }

    fn report_down(&mut self, cause: &str) {
        if !std::mem::replace(&mut self.is_down, true) {
            tracing::error!(
                cause,
                "the ledger's database is away: nothing is spent until it is back"
            );
        }
    }

    fn report_up(&mut self) {
        if std::mem::replace(&mut self.is_down, false) {
            tracing::info!("the ledger's database is back");
        }
    }
}
