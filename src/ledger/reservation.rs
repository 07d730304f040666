//! A bound that is held for one call, until its end is posted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use super::books::{Balances, Bill, Operation};
use super::writer::{End, Message};
use crate::clock::Clock;
use crate::telemetry::metrics::{LedgerStep, Metrics};
use crate::units::Money;

/// How long the end of a call waits to be in the database before the caller is answered. It is posted
/// all the same; were it lost in a crash, the bound would be counted.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// A bound that is held for one call. Dropping it gives the bound back.
#[derive(Debug)]
#[must_use = "a reservation that is dropped is given back"]
pub struct Reservation {
    id: Uuid,
    balances: Balances,
    /// Given up with the operation that ends the reservation.
    room: Option<OwnedSemaphorePermit>,
    inbox: mpsc::UnboundedSender<Message>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Reservation {
    pub(super) fn new(
        id: Uuid,
        balances: Balances,
        room: OwnedSemaphorePermit,
        inbox: mpsc::UnboundedSender<Message>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { id, balances, room: Some(room), inbox, clock, metrics }
    }

    /// Names the entry.
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Settles at what was billed. That is on its way when this returns; the future gives the accounts
    /// after it, or those of the reservation where the database takes its time.
    pub fn settle(self, bill: Bill) -> impl Future<Output = Balances> + Send + use<> {
        let id = self.id;
        self.end(Operation::Settle { id, bill })
    }

    /// Counts the bound as spent, at what it costs where the call was made, because the bill is
    /// unknown. Otherwise like [`settle`](Self::settle).
    pub fn write_off(self, cost: Money) -> impl Future<Output = Balances> + Send + use<> {
        let (id, cost) = (self.id, Some(cost));
        self.end(Operation::WriteOff { id, cost })
    }

    /// Gives the bound back, because nothing was billed.
    pub fn release(self) {
        drop(self);
    }

    fn end(mut self, operation: Operation) -> impl Future<Output = Balances> + Send + use<> {
        let asked_at = self.clock.instant();
        let (reply, answer) = oneshot::channel();
        self.post(operation, Some(reply));
        async move {
            let Ok(Ok(balances)) = timeout(SETTLE_PATIENCE, answer).await else {
                return self.balances;
            };
            let took = self.clock.instant().saturating_duration_since(asked_at);
            self.metrics.ledger_step(LedgerStep::Settle, took);
            balances
        }
    }

    fn post(&mut self, operation: Operation, reply: Option<oneshot::Sender<Balances>>) {
        let Some(room) = self.room.take() else { return };
        // Fails only at the end of the process; then the entry is written off by others.
        let _ = self.inbox.send(Message::End(End { operation, reply, _room: room }));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let id = self.id;
        self.post(Operation::Release { id }, None);
    }
}
