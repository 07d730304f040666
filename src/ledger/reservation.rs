//! A bound that is reserved for one call: the request, the reservation and its end. All three go to the writer as
//! messages.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use super::account::{Account, Balances};
use super::books::{Bill, Charge, Operation, amount};
use super::budget::{BudgetExceeded, Budgets};
use crate::clock::Clock;
use crate::units::{Money, Tokens};

/// How long a caller waits for its answer while the end of its call is being written to the database. The end is posted
/// in any case; if a crash loses it, the bound is counted.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// The reason why a call was not reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// A budget has no room for it.
    #[error(transparent)]
    Exceeded(#[from] BudgetExceeded),
    /// The tenant was disabled, possibly while the call waited.
    #[error("the tenant is disabled")]
    Disabled,
    /// The database does not answer. Without it, nothing may be spent.
    #[error("the ledger is not available")]
    Unavailable,
}

/// A message to the writer.
#[derive(Debug)]
pub(super) enum WriterMessage {
    /// A call asks for its bound.
    Reserve(Box<ReserveRequest>),
    /// A call has ended.
    End(Box<CallEnd>),
    /// A caller waits until all messages before it are in the database.
    Flush(oneshot::Sender<()>),
}

/// A call that asks for its bound.
#[derive(Debug)]
pub(super) struct ReserveRequest {
    pub(super) id: Uuid,
    pub(super) charge: Charge,
    pub(super) budgets: Budgets,
    pub(super) room: OwnedSemaphorePermit,
    pub(super) reply: oneshot::Sender<ReserveReply>,
    /// Whether the caller was informed that it waits for calls in flight.
    is_waiting: bool,
}

/// The reply to a call that asked for its bound.
#[derive(Debug)]
pub(super) enum ReserveReply {
    /// The bound is reserved.
    Reserved(Box<Reservation>),
    /// The bound is not reserved.
    Refused(ReserveError),
    /// The bound may fit when calls in flight have ended. The final reply comes over this channel.
    Waiting(BudgetExceeded, oneshot::Receiver<Self>),
}

/// The end of a call.
#[derive(Debug)]
pub(super) struct CallEnd {
    pub(super) operation: Operation,
    pub(super) reply: Option<oneshot::Sender<Balances>>,
    /// The time of the end, by the ledger's clock.
    pub(super) at: std::time::Instant,
    /// The place in the queue, which is freed once the end is posted. A voided call keeps its own.
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// A bound that is reserved for one call. Dropping it releases the bound.
#[derive(Debug)]
#[must_use = "a reservation that is dropped is given back"]
pub struct Reservation {
    pub(super) id: Uuid,
    pub(super) bound: Tokens,
    /// The accounts as they were when it was reserved.
    pub(super) balances: Balances,
    /// The tenant's budgets when it was reserved.
    pub(super) budgets: Budgets,
    /// Whether a caller waits until the end is posted.
    pub(super) is_awaited: bool,
    /// Moves into the message with the end of the reservation.
    pub(super) room: Option<OwnedSemaphorePermit>,
    pub(super) inbox: mpsc::UnboundedSender<WriterMessage>,
    pub(super) clock: Arc<dyn Clock>,
}

impl ReserveRequest {
    pub(super) const fn new(
        id: Uuid,
        charge: Charge,
        budgets: Budgets,
        room: OwnedSemaphorePermit,
        reply: oneshot::Sender<ReserveReply>,
    ) -> Self {
        Self { id, charge, budgets, room, reply, is_waiting: false }
    }

    /// Informs the caller that it waits, unless it was informed before.
    pub(super) fn wait(mut self, exceeded: BudgetExceeded) -> Self {
        if !self.is_waiting {
            let (reply, answer) = oneshot::channel();
            let first = std::mem::replace(&mut self.reply, reply);
            // From now on, the closed new channel shows that the caller has left.
            let _ = first.send(ReserveReply::Waiting(exceeded, answer));
            self.is_waiting = true;
        }
        self
    }

    /// Informs the caller that an earlier call of its tenant waits for room in a budget. `None` if the call cannot fit
    /// into that budget before its window ends: then it is refused.
    pub(super) fn wait_behind(self, first: BudgetExceeded) -> Option<Self> {
        if self.is_waiting {
            return Some(self);
        }
        let asked = amount(&self.charge.bound, self.charge.cost, first.unit);
        let exceeded = BudgetExceeded { asked, ..first };
        if exceeded.is_held() {
            return Some(self.wait(exceeded));
        }
        let _ = self.reply.send(ReserveReply::Refused(exceeded.into()));
        None
    }
}

impl Reservation {
    /// The id of the entry.
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// The budgets that the reservation was checked against.
    pub const fn budgets(&self) -> Budgets {
        self.budgets
    }

    /// Settles at the bill. The settlement is already queued when this returns; the future returns the accounts after
    /// it. If ends linger or the database is slow, it returns the accounts of the reservation with this call settled.
    pub fn settle(self, bill: Bill) -> impl Future<Output = Balances> + Send + use<> {
        let (id, spent) = (self.id, bill.usage.total());
        self.end(Operation::Settle { id, bill }, spent)
    }

    /// Counts an implausible bill at a clamped amount, and marks it unverified. Otherwise like
    /// [`settle`](Self::settle).
    pub fn clamp(self, bill: Bill) -> impl Future<Output = Balances> + Send + use<> {
        let (id, spent) = (self.id, bill.usage.total());
        self.end(Operation::Clamp { id, bill }, spent)
    }

    /// Counts the bound as spent, because the bill is unknown, at its cost at the `endpoint` of the call. Otherwise
    /// like [`settle`](Self::settle).
    pub fn write_off(
        self,
        cost: Money,
        endpoint: Option<Arc<str>>,
    ) -> impl Future<Output = Balances> + Send + use<> {
        let (id, cost, spent) = (self.id, Some(cost), self.bound);
        self.end(Operation::WriteOff { id, cost, endpoint }, spent)
    }

    /// Releases the bound, because nothing was billed.
    pub fn release(self) {
        drop(self);
    }

    fn end(
        mut self,
        operation: Operation,
        spent: Tokens,
    ) -> impl Future<Output = Balances> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        self.post(operation, self.is_awaited.then_some(reply));
        async move {
            if let Ok(Ok(balances)) = timeout(SETTLE_PATIENCE, answer).await {
                return balances;
            }
            let Balances { day, daily, monthly } = self.balances;
            let (bound, spent) = (self.bound.get(), spent.get());
            let closed = |account: Account| account.closed(bound, spent).unwrap_or(account);
            Balances { day, daily: closed(daily), monthly: closed(monthly) }
        }
    }

    fn post(&mut self, operation: Operation, reply: Option<oneshot::Sender<Balances>>) {
        let room @ Some(_) = self.room.take() else { return };
        let at = self.clock.instant();
        // Fails only at the end of the process. Another instance then writes the entry off.
        let _ = self.inbox.send(WriterMessage::End(Box::new(CallEnd {
            operation,
            reply,
            at,
            _room: room,
        })));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let id = self.id;
        self.post(Operation::Release { id }, None);
    }
}
