//! A bound that is held for one call, until its end is posted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use super::account::Account;
use super::books::{Balances, Bill, Operation};
use super::budget::Budgets;
use super::writer::{End, Message};
use crate::clock::Clock;
use crate::units::{Money, Tokens};

/// How long the end of a call waits to be in the database before the caller is answered. It is posted
/// all the same; were it lost in a crash, the bound would be counted.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// A bound that is held for one call. Dropping it gives the bound back.
#[derive(Debug)]
#[must_use = "a reservation that is dropped is given back"]
pub struct Reservation {
    pub(super) id: Uuid,
    pub(super) bound: Tokens,
    /// The accounts as they were when it was reserved.
    pub(super) balances: Balances,
    /// What the tenant might spend when it was reserved.
    pub(super) budgets: Budgets,
    /// Whether a caller waits until the end is posted.
    pub(super) is_awaited: bool,
    /// Given up with the operation that ends the reservation.
    pub(super) room: Option<OwnedSemaphorePermit>,
    pub(super) inbox: mpsc::UnboundedSender<Message>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Reservation {
    /// Names the entry.
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// The budgets that it was held against.
    pub const fn budgets(&self) -> Budgets {
        self.budgets
    }

    /// Settles at what was billed. That is on its way when this returns; the future gives the accounts
    /// after it. Where ends linger, or the database takes its time, these are the accounts as they were
    /// when it was reserved, with this call settled.
    pub fn settle(self, bill: Bill) -> impl Future<Output = Balances> + Send + use<> {
        let (id, spent) = (self.id, bill.usage.total());
        self.end(Operation::Settle { id, bill }, spent)
    }

    /// Counts a bill that is not to be believed, as far as it is, and marks it unverified. Otherwise like
    /// [`settle`](Self::settle).
    pub fn clamp(self, bill: Bill) -> impl Future<Output = Balances> + Send + use<> {
        let (id, spent) = (self.id, bill.usage.total());
        self.end(Operation::Clamp { id, bill }, spent)
    }

    /// Counts the bound as spent, at what it costs at the `endpoint` where the call was made, because the bill
    /// is unknown. Otherwise like [`settle`](Self::settle).
    pub fn write_off(
        self,
        cost: Money,
        endpoint: Option<Arc<str>>,
    ) -> impl Future<Output = Balances> + Send + use<> {
        let (id, cost, spent) = (self.id, Some(cost), self.bound);
        self.end(Operation::WriteOff { id, cost, endpoint }, spent)
    }

    /// Gives the bound back, because nothing was billed.
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
        // Fails only at the end of the process; then the entry is written off by others.
        let _ = self.inbox.send(Message::End(Box::new(End { operation, reply, at, _room: room })));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let id = self.id;
        self.post(Operation::Release { id }, None);
    }
}
