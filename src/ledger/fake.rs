//! An in-memory ledger with injected failures. It posts by the same rules as the databases.
//!
//! A commit that lands late behaves as in PostgreSQL: while it is in flight it holds the locks of its accounts. A later
//! batch reads its entries before it waits for these locks. If an entry that was missing then exists afterwards, the
//! batch violates the primary key.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::civil::Date;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::account::{Account, AccountKey};
use super::books::{Books, Entry, EntryState, Operation, Outcome, accounts_of, reserving_tenants};
use super::budget::Budgets;
use super::settings::LedgerSettings;
use super::usage::{Division, Imbalance, PartRow, UsageQuery, UsageRow};
use super::window::{Calendar, Period, Window};
use super::{Ledger, LedgerStore, LedgerStoreError};
use crate::clock::Clock;
use crate::lease::instance::Instance;
use crate::lease::{Heartbeats, LeaseError, LeaseStore};
use crate::random::{Random, SeededRandom};
use crate::supervisor::Supervisor;
use crate::telemetry::metrics::Metrics;

/// The injected fate of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The batch is posted and answered.
    Posted,
    /// The batch is posted, and the answer gets lost.
    AnswerLost,
    /// The batch is not posted.
    Lost,
    /// The batch is posted after this time, and never answered.
    Late(Duration),
}

/// Decides the fate of the next batch.
type Fates = Box<dyn FnMut() -> Fate + Send>;

/// An in-memory ledger.
#[derive(Default)]
pub(crate) struct FakeLedgerStore {
    tables: Arc<Mutex<Tables>>,
    fates: Mutex<Option<Fates>>,
    /// Commits that are in flight.
    late: Mutex<Vec<CancellationToken>>,
    linger: Duration,
    heartbeat_on: Mutex<Option<ThreadId>>,
}

/// The content of the database.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) accounts: BTreeMap<AccountKey, Account>,
    pub(crate) entries: BTreeMap<Uuid, Entry>,
    pub(crate) instances: BTreeMap<Uuid, i64>,
    /// Budgets of the tenants that the store keeps.
    pub(crate) budgets: HashMap<Arc<str>, Budgets>,
    /// Entries that violate a rule of the database whenever they are posted.
    pub(crate) broken: HashSet<Uuid>,
    /// Batches that were posted.
    pub(crate) batches: u32,
}

impl std::fmt::Debug for FakeLedgerStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeLedgerStore").finish_non_exhaustive()
    }
}

impl FakeLedgerStore {
    /// A ledger in which ends linger.
    pub(crate) fn with_linger(linger: Duration) -> Self {
        Self { linger, ..Self::default() }
    }

    /// The thread of the last heartbeat.
    pub(crate) fn heartbeat_on(&self) -> Option<ThreadId> {
        *self.heartbeat_on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content of the ledger.
    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `fates` decide every query from now on.
    pub(crate) fn let_decide(&self, fates: impl FnMut() -> Fate + Send + 'static) {
        *self.fates.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(fates));
    }

    /// Runs `work` and answers, as far as the next fate lets it.
    fn by_fate<T>(&self, work: impl FnOnce(&mut Tables) -> T) -> Result<T, LedgerStoreError> {
        let lost = || Err(LedgerStoreError::unavailable("lost on the way"));
        match self.next_fate() {
            Fate::Posted => Ok(work(&mut self.tables())),
            Fate::AnswerLost => {
                work(&mut self.tables());
                lost()
            }
            Fate::Lost | Fate::Late(_) => lost(),
        }
    }

    /// The fate of the next batch.
    fn next_fate(&self) -> Fate {
        let mut fates = self.fates.lock().unwrap_or_else(PoisonError::into_inner);
        fates.as_mut().map_or(Fate::Posted, |next| next())
    }

    /// Commits a batch after `delay`, even if no caller waits for it.
    fn commit_late(&self, batch: &[Operation], today: Date, delay: Duration) {
        let landed = CancellationToken::new();
        self.late.lock().unwrap_or_else(PoisonError::into_inner).push(landed.clone());
        let (tables, batch) = (Arc::clone(&self.tables), batch.to_vec());
        TaskTracker::new().spawn(async move {
            tokio::time::sleep(delay).await;
            let mut tables = tables.lock().unwrap_or_else(PoisonError::into_inner);
            let known = tables.known(&batch);
            // A commit that violates a rule by then is rolled back.
            let _ = tables.post(&batch, today, &known);
            landed.cancel();
        });
    }

    /// Waits for the locks of the commits that are in flight.
    async fn lock(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        for landed in &late {
            landed.cancelled().await;
        }
    }
}

/// The primary key of an entry exists already.
#[derive(Debug, thiserror::Error)]
#[error("an entry of this name is there already")]
struct Taken;

impl Tables {
    /// The entries of a batch that exist.
    fn known(&self, batch: &[Operation]) -> HashSet<Uuid> {
        let ids = batch.iter().map(Operation::id);
        ids.filter(|id| self.entries.contains_key(id)).collect()
    }

    /// Posts a batch, given those of its entries that existed when it was begun.
    fn post(
        &mut self,
        batch: &[Operation],
        today: Date,
        known: &HashSet<Uuid>,
    ) -> Result<Vec<Outcome>, Taken> {
        let known: Vec<_> = known.iter().filter_map(|id| self.entries.get(id).cloned()).collect();
        let keys = accounts_of(batch, &known, today);
        let accounts = keys.into_iter().map(|key| {
            let account = self.accounts.get(&key).copied().unwrap_or_default();
            (key, account)
        });
        let tenants = reserving_tenants(batch);
        let budgets = self.budgets.iter().filter(|(tenant, _)| tenants.contains(&***tenant));
        let budgets = budgets.map(|(tenant, budgets)| (Arc::clone(tenant), *budgets));
        let mut books = Books::new(accounts, known).with_budgets(budgets);
        let outcomes = batch.iter().map(|operation| books.post(operation, today)).collect();
        let changes = books.changes();
        if changes.new_entries.iter().any(|entry| self.entries.contains_key(&entry.id)) {
            return Err(Taken);
        }
        self.batches += 1;
        for (key, account) in changes.accounts {
            self.accounts.insert(key.clone(), *account);
        }
        for entry in changes.new_entries.into_iter().chain(changes.closed_entries) {
            self.entries.insert(entry.id, entry.clone());
        }
        Ok(outcomes)
    }
}

impl LeaseStore for FakeLedgerStore {
    fn register(&self, instance: Uuid) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(async move {
            let done = self.by_fate(|tables| {
                tables.instances.insert(instance, 0);
            });
            done.map_err(away)
        })
    }

    fn heartbeat(&self, instance: Uuid) -> BoxFuture<'_, Result<Option<Heartbeats>, LeaseError>> {
        Box::pin(async move {
            let thread = std::thread::current().id();
            *self.heartbeat_on.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
            let done = self.by_fate(|tables| {
                *tables.instances.get_mut(&instance)? += 1;
                Some(tables.instances.iter().map(|(id, number)| (*id, *number)).collect())
            });
            done.map_err(away)
        })
    }

    fn expire(&self, instance: Uuid) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(async move {
            let done = self.by_fate(|tables| {
                tables.instances.remove(&instance);
            });
            done.map_err(away)
        })
    }
}

fn away(error: LedgerStoreError) -> LeaseError {
    LeaseError::Unavailable(error.into())
}

impl LedgerStore for FakeLedgerStore {
    fn post<'a>(
        &'a self,
        batch: &'a [Operation],
        today: Date,
    ) -> BoxFuture<'a, Result<Vec<Outcome>, LedgerStoreError>> {
        Box::pin(async move {
            // A database takes its time, in which other tasks run.
            tokio::task::yield_now().await;
            let fate = self.next_fate();
            if let Fate::Late(delay) = fate {
                self.commit_late(batch, today, delay);
                return std::future::pending().await;
            }
            if fate == Fate::Lost {
                return Err(LedgerStoreError::unavailable("lost on the way"));
            }
            if batch.iter().any(|operation| self.tables().broken.contains(&operation.id())) {
                return Err(LedgerStoreError::Broken("a row breaks a rule".into()));
            }
            let known = self.tables().known(batch);
            self.lock().await;
            let posted = self.tables().post(batch, today, &known);
            let outcomes = posted.map_err(LedgerStoreError::unavailable)?;
            if fate == Fate::AnswerLost {
                return Err(LedgerStoreError::unavailable("lost on the way"));
            }
            Ok(outcomes)
        })
    }

    fn linger(&self) -> Duration {
        self.linger
    }

    fn orphans(
        &self,
        after: Uuid,
        at_most: u32,
    ) -> BoxFuture<'_, Result<Vec<Uuid>, LedgerStoreError>> {
        Box::pin(async move {
            self.by_fate(|tables| {
                let entries = tables.entries.values();
                let orphans = entries.filter(|entry| {
                    entry.id > after
                        && entry.state == EntryState::Open
                        && !tables.instances.contains_key(&entry.instance)
                });
                orphans.take(at_most as usize).map(|entry| entry.id).collect()
            })
        })
    }

    fn accounts<'a>(
        &'a self,
        tenants: &'a [&'a str],
        day: Date,
    ) -> BoxFuture<'a, Result<Vec<(AccountKey, Account)>, LedgerStoreError>> {
        Box::pin(async move {
            self.by_fate(|tables| {
                let windows = Period::ALL.map(|period| Window::of(period, day));
                let accounts = tables.accounts.iter().filter(|(key, _)| {
                    tenants.contains(&&*key.tenant) && windows.contains(&key.window)
                });
                accounts.map(|(key, account)| (key.clone(), *account)).collect()
            })
        })
    }

    fn usage<'a>(
        &'a self,
        _query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<Vec<UsageRow>, LedgerStoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn usage_rows<'a>(
        &'a self,
        _query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<u64, LedgerStoreError>> {
        Box::pin(async { Ok(0) })
    }

    fn usage_by<'a>(
        &'a self,
        _division: Division,
        _query: &'a UsageQuery,
    ) -> BoxFuture<'a, Result<Vec<PartRow>, LedgerStoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn audit(&self, _from: Date) -> BoxFuture<'_, Result<Vec<Imbalance>, LedgerStoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn prune(&self, _before: Date, _at_most: u32) -> BoxFuture<'_, Result<u64, LedgerStoreError>> {
        Box::pin(async { Ok(0) })
    }
}

/// A registered instance whose heartbeats do not run.
pub(crate) async fn instance(
    store: Arc<dyn LeaseStore>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
) -> Arc<Instance> {
    let instance = Instance::new(Arc::clone(&store), clock, random, metrics);
    // Repeats until the store answers.
    while store.register(instance.id()).await.is_err() {}
    Arc::new(instance)
}

/// A ledger for tests of other modules, as a process of its own.
pub(crate) async fn ledger(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Ledger {
    let (store, random) = (Arc::new(FakeLedgerStore::default()), Arc::new(SeededRandom::new(1)));
    let time_zone = Calendar::UTC;
    let settings = LedgerSettings { lease_ms: 30_000, retention_days: 400, time_zone };
    let (shared, chance) = (Arc::clone(&metrics), Arc::clone(&random));
    let instance = instance(store.clone(), Arc::clone(&clock), chance, shared).await;
    let supervisor = Supervisor::default();
    Ledger::open(store, instance, &settings, clock, random, metrics, &supervisor)
}
