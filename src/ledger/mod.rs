//! The ledger: the budgets of all tenants, and every call that counts against them.
//!
//! One step checks all budgets and *reserves* a call at its bound before the call is sent. The call is then *settled*
//! at its bill, *released* if nothing was billed, or *written off* at its bound if the bill is unknown. The bound is
//! computed beforehand and the bill never exceeds it. So the settled and the reserved amounts together never exceed a
//! budget, whatever the number of calls, replicas and crashes (docs/adr/0007-ledger.md).
//!
//! The database is the only source of truth: no state in a replica's memory permits additional spending. Memory holds a
//! queue. One `writer` posts all operations of a process. It posts the operations that have gathered as one
//! transaction, so that many calls of a busy tenant cost one commit. `books` has the rules of posting, the same for
//! both databases. `reaper` writes off the open entries of dead processes. If one process has the database for itself,
//! ends wait a moment for the next reservation and share its commit (docs/adr/0016-posting-on-sqlite.md).
//!
//! If the database is slow, callers wait. If it is unavailable, they are refused, because uncounted spending cannot be
//! held to a budget.

pub mod account;
pub mod books;
pub mod budget;
pub mod report;
pub mod settings;
pub mod usage;
pub mod window;

mod commits;
mod context;
mod queue;
mod reaper;
mod reservation;
mod store;
mod writer;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use self::account::{Account, AccountKey, Balances, Unit};
use self::books::{Charge, Operation};
use self::budget::Budgets;
use self::commits::Commits;
use self::context::Context;
use self::reaper::Reaper;
use self::reservation::{CallEnd, ReserveReply, ReserveRequest, WriterMessage};
use self::settings::LedgerSettings;
use self::usage::{UsageQuery, UsageRow};
use self::window::{Calendar, Period};
use self::writer::Writer;
use crate::clock::Clock;
use crate::lease::instance::Instance;
use crate::random::{Random, new_id};
use crate::supervisor::Supervisor;
use crate::telemetry::metrics::{LedgerStep, Metrics};

pub use self::reservation::{Reservation, ReserveError};
pub use self::store::{LedgerStore, LedgerStoreError};
pub(crate) use self::writer::POST_TIMEOUT;

/// How long a caller waits for the database before it is refused.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// How long a reader waits for the ends of calls that are still to be posted.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// The most calls that a process has reserved or is about to reserve. Each has at most one operation in the writer's
/// queue, so this bounds the queue during an outage of the database.
const CAPACITY: usize = 4096;

/// The ledger as one process uses it. Cloning it is cheap and shares the queue.
#[derive(Debug, Clone)]
pub struct Ledger {
    context: Arc<Context>,
    inbox: mpsc::UnboundedSender<WriterMessage>,
    room: Arc<Semaphore>,
}

impl Ledger {
    /// Opens the ledger of this process, which owns its entries as `instance`. Its tasks run until the instance is
    /// closed or the process ends, and `supervisor` watches them.
    #[expect(clippy::too_many_arguments, reason = "one for each part")]
    pub fn open(
        store: Arc<dyn LedgerStore>,
        instance: Arc<Instance>,
        settings: &LedgerSettings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
        supervisor: &Supervisor,
    ) -> Self {
        let (ledger, writer, reaper) =
            Self::assemble(store, instance, settings, clock, random, metrics);
        let context = &ledger.context;
        context.metrics.ledger_time_zone(context.calendar.name());
        supervisor.spawn("ledger writer", writer.run());
        supervisor.spawn("ledger reaper", reaper.run(context.instance.rounds()));
        let (instance, clock) = (Arc::clone(&context.instance), Arc::clone(&context.clock));
        supervisor.spawn(
            "ledger readiness",
            Arc::clone(&context.commits).try_when_wanted(instance, clock),
        );
        ledger
    }

    /// Builds the parts. None of them runs yet.
    fn assemble(
        store: Arc<dyn LedgerStore>,
        instance: Arc<Instance>,
        settings: &LedgerSettings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
    ) -> (Self, Writer, Reaper) {
        let commits = Arc::new(Commits::new(clock.instant()));
        let calendar = settings.time_zone.clone();
        let context = Context { store, instance, commits, calendar, clock, random, metrics };
        let context = Arc::new(context);
        let (inbox, messages) = mpsc::unbounded_channel();
        let writer = Writer::new(Arc::clone(&context), inbox.downgrade(), messages);
        let reaper = Reaper::new(Arc::clone(&context), settings.retention_days);
        let room = Arc::new(Semaphore::new(CAPACITY));
        (Self { context, inbox, room }, writer, reaper)
    }

    /// Reserves the bound of one call, if the tenant's budgets have room for it.
    ///
    /// If only calls in flight keep it from fitting, it waits for them until `deadline` by the ledger's clock, since
    /// most of them will cost less than their bounds. Callers of a tenant are served in order. Dropping the future, or
    /// the reservation, releases the bound.
    ///
    /// # Errors
    ///
    /// [`ReserveError`]; nothing is reserved then.
    pub async fn reserve(
        &self,
        charge: Charge,
        budgets: Budgets,
        deadline: Instant,
    ) -> Result<Reservation, ReserveError> {
        let asked_at = self.context.clock.instant();
        let room = timeout(PATIENCE, Arc::clone(&self.room).acquire_owned()).await;
        let Ok(Ok(room)) = room else { return Err(ReserveError::Unavailable) };
        let (reply, answer) = oneshot::channel();
        let id = new_id(&*self.context.clock, &*self.context.random);
        let request = ReserveRequest::new(id, charge, budgets, room, reply);
        // Fails only if the writer has ended. It then drops the request together with the reply channel.
        let _ = self.inbox.send(WriterMessage::Reserve(Box::new(request)));
        let Ok(Ok(mut reply)) = timeout(PATIENCE, answer).await else {
            return Err(ReserveError::Unavailable);
        };
        if let ReserveReply::Waiting(exceeded, answer) = reply {
            let left = deadline.saturating_duration_since(self.context.clock.instant());
            let Ok(answer) = timeout(left, answer).await else { return Err(exceeded.into()) };
            reply = answer.map_err(|_| ReserveError::Unavailable)?;
        }
        let took = self.context.clock.instant().saturating_duration_since(asked_at);
        self.context.metrics.ledger_step(LedgerStep::Reserve, took);
        match reply {
            ReserveReply::Reserved(reservation) => Ok(*reservation),
            ReserveReply::Refused(error) => Err(error),
            ReserveReply::Waiting(exceeded, _) => Err(exceeded.into()),
        }
    }

    /// Counts a call that was not necessary, at no tokens and no cost. Nobody waits for it. It is left out if the queue
    /// is full, which it is only during an outage of the database.
    pub fn note(&self, charge: Charge) {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else { return };
        let Context { clock, random, instance, .. } = &*self.context;
        let (id, instance) = (new_id(&**clock, &**random), instance.id());
        let operation = Operation::Note { id, instance, charge };
        let end = CallEnd { operation, reply: None, at: clock.instant(), _room: Some(room) };
        let _ = self.inbox.send(WriterMessage::End(Box::new(end)));
    }

    /// The calendar of the budget windows.
    pub fn calendar(&self) -> &Calendar {
        &self.context.calendar
    }

    /// The day on which a call that is reserved now is counted.
    pub fn today(&self) -> Date {
        self.context.calendar.day_of(self.context.clock.timestamp())
    }

    /// Whether the database took a commit within the last second. May be called from any runtime at any rate.
    pub async fn takes_commits(&self) -> bool {
        self.context.commits.are_taken(self.context.clock.instant()).await
    }

    /// A tenant's token accounts of today and this month.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    pub async fn balances(&self, tenant: &str) -> Result<Balances, LedgerStoreError> {
        let day = self.today();
        let accounts = self.ask(self.context.store.accounts(&[tenant], day)).await?;
        let of = |period| {
            let found = accounts
                .iter()
                .find(|(key, _)| key.unit == Unit::Tokens && key.window.period == period);
            found.map(|(_, account)| *account).unwrap_or_default()
        };
        Ok(Balances { day, daily: of(Period::Day), monthly: of(Period::Month) })
    }

    /// A tenant's accounts of today and this month that are not empty.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    pub async fn accounts(
        &self,
        tenant: &str,
    ) -> Result<Vec<(AccountKey, Account)>, LedgerStoreError> {
        self.accounts_of(&[tenant]).await
    }

    /// The accounts of these tenants of today and this month that are not empty.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    pub async fn accounts_of(
        &self,
        tenants: &[&str],
    ) -> Result<Vec<(AccountKey, Account)>, LedgerStoreError> {
        let day = self.today();
        self.ask(self.context.store.accounts(tenants, day)).await
    }

    /// The spending, by day, tenant and model.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    pub async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, LedgerStoreError> {
        self.ask(self.context.store.usage(query)).await
    }

    /// The number of rows that [`usage`](Self::usage) would return.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    pub async fn usage_rows(&self, query: &UsageQuery) -> Result<u64, LedgerStoreError> {
        self.ask(self.context.store.usage_rows(query)).await
    }

    /// Waits until the ended calls are posted, so that a reader finds a call once it was answered. Gives up soon if the
    /// database does not take them: it may still be readable.
    pub async fn flush(&self) {
        if self.context.store.linger().is_zero() {
            return;
        }
        let (done, written) = oneshot::channel();
        let _ = self.inbox.send(WriterMessage::Flush(done));
        let _ = timeout(FLUSH_PATIENCE, written).await;
    }

    /// The store's answer to a read-only query, within the time that callers wait.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, LedgerStoreError>>,
    ) -> Result<T, LedgerStoreError> {
        self.flush().await;
        let answer = timeout(PATIENCE, question).await;
        answer.unwrap_or_else(|late| Err(LedgerStoreError::Unavailable(late.into())))
    }

    /// Waits until everything that was settled or released so far is in the database. Entries that are still open then
    /// belong to calls whose end will never be posted. Other replicas write them off once the instance is closed.
    pub async fn close(&self) {
        let (done, written) = oneshot::channel();
        let _ = self.inbox.send(WriterMessage::Flush(done));
        let _ = written.await;
    }
}
