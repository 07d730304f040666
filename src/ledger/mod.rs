//! The ledger: what every tenant may still spend, and what became of each call.
//!
//! A call is *reserved* at its bound, in one step with the check of all budgets, before it is sent;
//! then it is *settled* at what the upstream billed, *released* where nothing was billed, or *written
//! off* at its bound where the bill is unknown. Because the bound is known before and is never below
//! the bill, what is settled and reserved together can never exceed a budget, whatever the number of
//! calls, replicas and crashes (docs/adr/0007-ledger.md).
//!
//! The truth is in the database and nowhere else: nothing that a replica remembers can let it spend
//! more. What is kept in memory is a queue. All operations of a process go through one `writer`,
//! which posts whatever has come together as one transaction, so that a hot tenant costs one
//! commit for many calls; `books` holds the rules of posting, for every database the same lines.
//! `keeper` writes off what processes left open that died. Where one process has the database for itself, ends
//! wait a moment for the next reservation and share its commit (docs/adr/0016-posting-on-sqlite.md).
//!
//! When the database is slow, callers wait; when it is gone, they are refused: a gateway that went on
//! without it would spend what nobody counts.

pub mod account;
pub mod books;
pub mod budget;
pub mod report;
pub mod settings;
pub mod usage;
pub mod window;

mod commits;
mod keeper;
mod queue;
mod reservation;
mod writer;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use jiff::civil::Date;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::account::{Account, AccountKey, Unit};
use self::books::{Balances, Charge, Operation, Outcome};
use self::budget::{BudgetExceeded, Budgets};
use self::commits::Commits;
use self::keeper::Keeper;
use self::settings::LedgerSettings;
use self::usage::{Division, Imbalance, PartRow, UsageQuery, UsageRow};
use self::window::{Calendar, Period};
use self::writer::{Message, Reply, Request, Writer};
use crate::clock::Clock;
use crate::random::{Random, new_id};
use crate::supervisor::Supervisor;
use crate::telemetry::metrics::{LedgerStep, Metrics};

pub use self::reservation::Reservation;
pub(crate) use self::writer::POST_TIMEOUT;

/// How long a caller waits for the database before it is refused.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// How long a reader waits for the ends of calls that are still to be posted.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// The most calls that a process has reserved or is about to reserve. Each has at most one operation
/// in the writer's queue, so this bounds the queue, however long the database is gone.
const CAPACITY: usize = 4096;

/// Every holder, with how often it has beaten.
pub type Beats = Vec<(Uuid, i64)>;

/// A database that keeps the ledger. Two implementations: SQLite and PostgreSQL.
pub trait LedgerStore: fmt::Debug + Send + Sync {
    /// Posts a batch in its order, in one transaction that no other can interleave with, and gives
    /// an outcome for each operation. Posting the same batch again changes nothing more.
    ///
    /// # Errors
    ///
    /// After [`LedgerStoreError::Unavailable`] it is unknown whether the batch was posted.
    fn post<'a>(
        &'a self,
        batch: &'a [Operation],
        today: Date,
    ) -> BoxFuture<'a, Result<Vec<Outcome>, LedgerStoreError>>;

    /// How long the ends of calls may wait to be posted together with what comes after them. Until then,
    /// only this process knows of them: after a crash their bounds are counted, and other processes see
    /// them as open. Nothing, where others read the ledger at the same time.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }

    /// Makes a holder known, whose open entries are left alone while it beats.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn register(&self, holder: Uuid) -> BoxFuture<'_, Result<(), LedgerStoreError>>;

    /// Counts one beat of `holder` and gives the beats of all holders; nothing where it is not, or
    /// no longer, known.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn beat(&self, holder: Uuid) -> BoxFuture<'_, Result<Option<Beats>, LedgerStoreError>>;

    /// Forgets a holder, which makes its open entries orphans.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn forget(&self, holder: Uuid) -> BoxFuture<'_, Result<(), LedgerStoreError>>;

    /// Open entries whose holder is not known, in the order of their ids, `at_most` of those after
    /// `after`. An id that cannot be read is left out.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn orphans(
        &self,
        after: Uuid,
        at_most: u32,
    ) -> BoxFuture<'_, Result<Vec<Uuid>, LedgerStoreError>>;

    /// The accounts of these tenants for the day and for its month, by tenant; those that counted nothing yet
    /// are left out.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn accounts<'a>(
        &'a self,
        tenants: &'a [&'a str],
        day: Date,
    ) -> BoxFuture<'a, Result<Vec<(AccountKey, Account)>, LedgerStoreError>>;

    /// What was spent, by day, tenant and model, in that order.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn usage<'a>(
        &'a self,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<Vec<UsageRow>, LedgerStoreError>>;

    /// How many rows [`usage`](Self::usage) would give.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn usage_rows<'a>(
        &'a self,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<u64, LedgerStoreError>>;

    /// What was spent, by part, tenant and currency, in that order and what is not known first. It is added up
    /// from the entries, so days whose entries were pruned are missing.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn usage_by<'a>(
        &'a self,
        division: Division,
        query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<Vec<PartRow>, LedgerStoreError>>;

    /// Recounts the entries of all windows that began on `from` or later, and gives the accounts and the
    /// daily sums that count otherwise.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn audit(&self, from: Date) -> BoxFuture<'_, Result<Vec<Imbalance>, LedgerStoreError>>;

    /// Deletes closed entries of days before `before`, `at_most` of them, and tells how many. Accounts
    /// and daily usage stay.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    fn prune(&self, before: Date, at_most: u32) -> BoxFuture<'_, Result<u64, LedgerStoreError>>;
}

/// Why a store of the ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerStoreError {
    /// It cannot be reached, or broke off; to be asked again.
    #[error("the database is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It holds, or was given, what breaks its rules; asking again would not help.
    #[error("the ledger cannot be read or written")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl LedgerStoreError {
    /// An error that may pass.
    pub(crate) fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into())
    }
}

/// Why a call was not reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// A budget has no room for it.
    #[error(transparent)]
    Exceeded(#[from] BudgetExceeded),
    /// The tenant was disabled, possibly while the call waited.
    #[error("the tenant is disabled")]
    Disabled,
    /// The database does not answer. Nothing is spent without it.
    #[error("the ledger is not available")]
    Unavailable,
}

/// The ledger as one process uses it. Cloning it is cheap and shares the queue.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Arc<dyn LedgerStore>,
    inbox: mpsc::UnboundedSender<Message>,
    room: Arc<Semaphore>,
    holder: Arc<Holder>,
    commits: Arc<Commits>,
    calendar: Calendar,
    keeping: Keeping,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
}

/// The end of the keeper: a process that takes leave must not beat, and so register, any more.
#[derive(Debug, Clone, Default)]
struct Keeping {
    /// Ends it after the look under way.
    stop: CancellationToken,
    /// It has ended.
    over: CancellationToken,
}

/// The name under which this process holds entries. It changes when others took it for dead.
#[derive(Debug)]
struct Holder(Mutex<Uuid>);

impl Holder {
    fn id(&self) -> Uuid {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rename(&self, id: Uuid) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }
}

impl Ledger {
    /// Opens the ledger of this process. Its tasks run until the process ends, and `supervisor` watches
    /// them.
    ///
    /// # Errors
    ///
    /// Where the database does not take the process as a holder.
    pub async fn open(
        store: Arc<dyn LedgerStore>,
        settings: &LedgerSettings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
        supervisor: &Supervisor,
    ) -> Result<Self, LedgerStoreError> {
        let (ledger, writer, keeper) = Self::assemble(store, settings, clock, random, metrics);
        ledger.store.register(ledger.holder.id()).await?;
        ledger.metrics.ledger_time_zone(ledger.calendar.name());
        supervisor.spawn("ledger writer", writer.run());
        supervisor.spawn("ledger keeper", keeper.run());
        let beating = Arc::clone(&ledger.commits).beat_when_wanted(
            Arc::clone(&ledger.store),
            Arc::clone(&ledger.holder),
            Arc::clone(&ledger.clock),
        );
        supervisor.spawn("ledger beat", beating);
        Ok(ledger)
    }

    /// The parts, of which nothing runs yet.
    fn assemble(
        store: Arc<dyn LedgerStore>,
        settings: &LedgerSettings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
    ) -> (Self, Writer, Keeper) {
        let holder = Arc::new(Holder(Mutex::new(new_id(&*clock, &*random))));
        let (inbox, messages) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(CAPACITY));
        let (calendar, keeping) = (settings.time_zone.clone(), Keeping::default());
        let commits = Arc::new(Commits::new(clock.instant()));
        let ledger =
            Self { store, inbox, room, holder, commits, calendar, keeping, clock, random, metrics };
        let (writer, keeper) = (Writer::new(&ledger, messages), Keeper::new(&ledger, settings));
        (ledger, writer, keeper)
    }

    /// Holds the bound of one call, if the tenant's budgets have room for it.
    ///
    /// Where only calls in flight are in the way, it waits for them until `deadline` by the ledger's
    /// clock: most of them will cost less than they hold. Callers of a tenant are served in their
    /// order. Dropping the future, or the reservation, gives the bound back.
    ///
    /// # Errors
    ///
    /// [`ReserveError`]; nothing is held then.
    pub async fn reserve(
        &self,
        charge: Charge,
        budgets: Budgets,
        deadline: Instant,
    ) -> Result<Reservation, ReserveError> {
        let asked_at = self.clock.instant();
        let room = timeout(PATIENCE, Arc::clone(&self.room).acquire_owned()).await;
        let Ok(Ok(room)) = room else { return Err(ReserveError::Unavailable) };
        let (reply, answer) = oneshot::channel();
        let id = new_id(&*self.clock, &*self.random);
        let request = Request::new(id, charge, budgets, room, reply);
        // Fails only where the writer has gone, which drops the request and with it the reply.
        let _ = self.inbox.send(Message::Reserve(Box::new(request)));
        let Ok(Ok(mut reply)) = timeout(PATIENCE, answer).await else {
            return Err(ReserveError::Unavailable);
        };
        if let Reply::Waiting(exceeded, answer) = reply {
            let left = deadline.saturating_duration_since(self.clock.instant());
            let Ok(answer) = timeout(left, answer).await else { return Err(exceeded.into()) };
            reply = answer.map_err(|_| ReserveError::Unavailable)?;
        }
        let took = self.clock.instant().saturating_duration_since(asked_at);
        self.metrics.ledger_step(LedgerStep::Reserve, took);
        match reply {
            Reply::Reserved(reservation) => Ok(*reservation),
            Reply::Refused(error) => Err(error),
            Reply::Waiting(exceeded, _) => Err(exceeded.into()),
        }
    }

    /// The days that budgets are given for.
    pub const fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// The day on which a call that is reserved now is counted.
    pub fn today(&self) -> Date {
        self.calendar.day_of(self.clock.timestamp())
    }

    /// Whether the database takes commits, as far as the last second tells. May be asked from any
    /// runtime, and as often as anybody likes.
    pub async fn takes_commits(&self) -> bool {
        self.commits.are_taken(self.clock.instant()).await
    }

    /// A tenant's token accounts of today and this month.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    pub async fn balances(&self, tenant: &str) -> Result<Balances, LedgerStoreError> {
        let day = self.today();
        let accounts = self.ask(self.store.accounts(&[tenant], day)).await?;
        let of = |period| {
            let found = accounts
                .iter()
                .find(|(key, _)| key.unit == Unit::Tokens && key.window.period == period);
            found.map(|(_, account)| *account).unwrap_or_default()
        };
        Ok(Balances { day, daily: of(Period::Day), monthly: of(Period::Month) })
    }

    /// A tenant's accounts of today and this month that have counted anything.
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

    /// The accounts of these tenants of today and this month that have counted anything.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    pub async fn accounts_of(
        &self,
        tenants: &[&str],
    ) -> Result<Vec<(AccountKey, Account)>, LedgerStoreError> {
        let day = self.today();
        self.ask(self.store.accounts(tenants, day)).await
    }

    /// What was spent, by day, tenant and model.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    pub async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, LedgerStoreError> {
        self.ask(self.store.usage(query)).await
    }

    /// How many rows [`usage`](Self::usage) would give.
    ///
    /// # Errors
    ///
    /// [`LedgerStoreError`].
    pub async fn usage_rows(&self, query: &UsageQuery) -> Result<u64, LedgerStoreError> {
        self.ask(self.store.usage_rows(query)).await
    }

    /// Waits until the calls that have ended are posted, so that who reads after an answer reads of it.
    /// Gives up soon where the database does not take them: it may still be read.
    pub async fn flush(&self) {
        if self.store.linger().is_zero() {
            return;
        }
        let (done, written) = oneshot::channel();
        let _ = self.inbox.send(Message::Flush(done));
        let _ = timeout(FLUSH_PATIENCE, written).await;
    }

    /// Asks the store something that changes nothing, with a caller's patience.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, LedgerStoreError>>,
    ) -> Result<T, LedgerStoreError> {
        self.flush().await;
        let answer = timeout(PATIENCE, question).await;
        answer.unwrap_or_else(|late| Err(LedgerStoreError::Unavailable(late.into())))
    }

    /// Waits until all that was settled or given back so far is in the database, and takes leave of
    /// it: what is still open belongs to calls that will never be heard of, and the other replicas
    /// need not wait to write it off.
    pub async fn close(&self) {
        let (done, written) = oneshot::channel();
        let _ = self.inbox.send(Message::Flush(done));
        let _ = written.await;
        // A look that is under way could register the process again after it has taken leave.
        self.keeping.stop.cancel();
        self.keeping.over.cancelled().await;
        if let Err(error) = self.store.forget(self.holder.id()).await {
            tracing::warn!(%error, "the ledger was left without taking leave");
        }
    }
}
