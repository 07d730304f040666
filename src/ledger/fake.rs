//! A ledger in memory that can be told to fail. It posts by the same books as the databases.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::civil::Date;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::account::{Account, AccountKey};
use super::books::{Books, Entry, EntryState, Operation, Outcome, accounts_of};
use super::settings::LedgerSettings;
use super::usage::{Imbalance, UsageQuery, UsageRow};
use super::window::{Calendar, Period, Window};
use super::{Beats, Ledger, LedgerStore, LedgerStoreError};
use crate::clock::Clock;
use crate::random::SeededRandom;
use crate::telemetry::metrics::Metrics;

/// What happens to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is posted and answered.
    Posted,
    /// It is posted, and the answer gets lost.
    AnswerLost,
    /// It is not posted.
    Lost,
}

/// Decides what happens to the next batch.
type Fates = Box<dyn FnMut() -> Fate + Send>;

/// A ledger in memory.
#[derive(Default)]
pub(crate) struct FakeLedgerStore {
    tables: Mutex<Tables>,
    fates: Mutex<Option<Fates>>,
    linger: Duration,
}

/// What a database would hold.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) accounts: BTreeMap<AccountKey, Account>,
    pub(crate) entries: BTreeMap<Uuid, Entry>,
    pub(crate) holders: BTreeMap<Uuid, i64>,
    /// Batches that were posted.
    pub(crate) batches: u32,
}

impl std::fmt::Debug for FakeLedgerStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeLedgerStore").finish_non_exhaustive()
    }
}

impl FakeLedgerStore {
    /// One that lets ends linger.
    pub(crate) fn with_linger(linger: Duration) -> Self {
        Self { linger, ..Self::default() }
    }

    /// What it holds.
    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `fates` decide about every question from now on.
    pub(crate) fn let_decide(&self, fates: impl FnMut() -> Fate + Send + 'static) {
        *self.fates.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(fates));
    }

    /// Does the work, if that is its fate, and answers, if that is its fate.
    fn by_fate<T>(&self, work: impl FnOnce(&mut Tables) -> T) -> Result<T, LedgerStoreError> {
        let fate = self.fates.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(|f| f());
        let lost = || Err(LedgerStoreError::Unavailable("lost on the way".into()));
        match fate.unwrap_or(Fate::Posted) {
            Fate::Posted => Ok(work(&mut self.tables())),
            Fate::AnswerLost => {
                work(&mut self.tables());
                lost()
            }
            Fate::Lost => lost(),
        }
    }
}

impl Tables {
    fn post(&mut self, batch: &[Operation], today: Date) -> Vec<Outcome> {
        let known = batch.iter().filter_map(|operation| self.entries.get(&operation.id()).cloned());
        let known: Vec<_> = known.collect();
        let keys = accounts_of(batch, &known, today);
        let accounts = keys.into_iter().map(|key| {
            let account = self.accounts.get(&key).copied().unwrap_or_default();
            (key, account)
        });
        self.batches += 1;
        let mut books = Books::new(accounts, known);
        let outcomes = batch.iter().map(|operation| books.post(operation, today)).collect();
        let changes = books.changes();
        for (key, account) in changes.accounts {
            self.accounts.insert(key.clone(), *account);
        }
        for entry in changes.new_entries.into_iter().chain(changes.closed_entries) {
            self.entries.insert(entry.id, entry.clone());
        }
        outcomes
    }
}

impl LedgerStore for FakeLedgerStore {
    fn post<'a>(
        &'a self,
        batch: &'a [Operation],
        today: Date,
    ) -> BoxFuture<'a, Result<Vec<Outcome>, LedgerStoreError>> {
        Box::pin(async move {
            // A database takes its time, in which others have their turn.
            tokio::task::yield_now().await;
            self.by_fate(|tables| tables.post(batch, today))
        })
    }

    fn linger(&self) -> Duration {
        self.linger
    }

    fn register(&self, holder: Uuid) -> BoxFuture<'_, Result<(), LedgerStoreError>> {
        Box::pin(async move {
            self.by_fate(|tables| {
                tables.holders.insert(holder, 0);
            })
        })
    }

    fn beat(&self, holder: Uuid) -> BoxFuture<'_, Result<Option<Beats>, LedgerStoreError>> {
        Box::pin(async move {
            self.by_fate(|tables| {
                *tables.holders.get_mut(&holder)? += 1;
                Some(tables.holders.iter().map(|(holder, beat)| (*holder, *beat)).collect())
            })
        })
    }

    fn forget(&self, holder: Uuid) -> BoxFuture<'_, Result<(), LedgerStoreError>> {
        Box::pin(async move {
            self.by_fate(|tables| {
                tables.holders.remove(&holder);
            })
        })
    }

    fn orphans(&self, at_most: u32) -> BoxFuture<'_, Result<Vec<Uuid>, LedgerStoreError>> {
        Box::pin(async move {
            self.by_fate(|tables| {
                let entries = tables.entries.values();
                let orphans = entries.filter(|entry| {
                    entry.state == EntryState::Open && !tables.holders.contains_key(&entry.holder)
                });
                orphans.take(at_most as usize).map(|entry| entry.id).collect()
            })
        })
    }

    fn accounts<'a>(
        &'a self,
        tenant: &'a str,
        day: Date,
    ) -> BoxFuture<'a, Result<Vec<(AccountKey, Account)>, LedgerStoreError>> {
        Box::pin(async move {
            self.by_fate(|tables| {
                let windows = Period::ALL.map(|period| Window::of(period, day));
                let accounts = tables
                    .accounts
                    .iter()
                    .filter(|(key, _)| &*key.tenant == tenant && windows.contains(&key.window));
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

    fn audit(&self, _from: Date) -> BoxFuture<'_, Result<Vec<Imbalance>, LedgerStoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn prune(&self, _before: Date, _at_most: u32) -> BoxFuture<'_, Result<u64, LedgerStoreError>> {
        Box::pin(async { Ok(0) })
    }
}

/// A ledger of a process of its own, for tests of what stands above it.
pub(crate) async fn ledger(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Ledger {
    let store = Arc::new(FakeLedgerStore::default());
    let time_zone = Calendar::UTC;
    let settings = LedgerSettings { lease_ms: 30_000, retention_days: 400, time_zone };
    let random = Arc::new(SeededRandom::new(1));
    Ledger::open(store, &settings, clock, random, metrics, &TaskTracker::new()).await.unwrap()
}
