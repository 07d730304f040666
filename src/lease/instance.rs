//! This process as an instance: its id, its heartbeat, and the end of both.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::expiry::{Expiry, MISSED_HEARTBEATS};
use super::{LeaseError, LeaseStore};
use crate::clock::Clock;
use crate::random::{Random, new_id};
use crate::supervisor::Supervisor;
use crate::telemetry::metrics::{LedgerUpkeep, Metrics};

/// How long one operation of the store may take: a connection that never answers would otherwise stop the heartbeats.
const TIMEOUT: Duration = Duration::from_secs(4);

/// This process as the other instances see it.
#[derive(Debug)]
pub struct Instance {
    store: Arc<dyn LeaseStore>,
    id: Mutex<Uuid>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
    /// The number of finished rounds.
    rounds: watch::Sender<u64>,
    /// Ends the heartbeats after the current round.
    stop: CancellationToken,
    /// The heartbeats have ended.
    stopped: CancellationToken,
}

impl Instance {
    /// Registers this process. Its heartbeats continue until it is closed or the process ends, and `supervisor` watches
    /// their task. The instance expires when it has sent no heartbeat for a `lease`.
    ///
    /// # Errors
    ///
    /// [`LeaseError`] if the store does not accept the registration.
    pub async fn open(
        store: Arc<dyn LeaseStore>,
        lease: Duration,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
        supervisor: &Supervisor,
    ) -> Result<Arc<Self>, LeaseError> {
        let instance = Arc::new(Self::new(store, clock, random, metrics));
        instance.store.register(instance.id()).await?;
        let stopped = instance.stopped.clone().drop_guard();
        let rounds = Arc::clone(&instance).run(lease / MISSED_HEARTBEATS, stopped);
        supervisor.spawn("heartbeat", rounds);
        Ok(instance)
    }

    /// An instance that is not registered and sends no heartbeats.
    pub(crate) fn new(
        store: Arc<dyn LeaseStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (id, rounds) = (Mutex::new(new_id(&*clock, &*random)), watch::Sender::new(0));
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        Self { store, id, clock, random, metrics, rounds, stop, stopped }
    }

    /// The id under which this process holds entries. It changes if the other instances considered the process dead.
    pub fn id(&self) -> Uuid {
        *self.id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a heartbeat outside of the rounds: its commit shows whether the database takes commits.
    ///
    /// # Errors
    ///
    /// [`LeaseError`] if it does not.
    pub async fn heartbeat(&self) -> Result<(), LeaseError> {
        self.store.heartbeat(self.id()).await.map(|_| ())
    }

    /// The rounds, for [`next_round`](Self::next_round).
    pub fn rounds(&self) -> watch::Receiver<u64> {
        let mut rounds = self.rounds.subscribe();
        if *rounds.borrow() > 0 {
            rounds.mark_changed();
        }
        rounds
    }

    /// Waits for the end of a round that `rounds` has not seen. Everything that expired instances held is orphaned
    /// then. `None` once the instance is closed.
    pub async fn next_round(&self, rounds: &mut watch::Receiver<u64>) -> Option<()> {
        self.stop.run_until_cancelled(rounds.changed()).await?.ok()
    }

    /// Whether the instance is being closed.
    pub fn is_closing(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends the heartbeats and deletes the instance, so that the others need not wait until it expires.
    pub async fn close(&self) {
        // A round in progress could register the process again after its instance was deleted.
        self.stop.cancel();
        self.stopped.cancelled().await;
        if let Err(error) = self.store.expire(self.id()).await {
            tracing::warn!(%error, "the instance could not be deleted: it expires by itself");
        }
    }

    async fn run(self: Arc<Self>, every: Duration, _stopped: DropGuard) {
        let (mut expiry, mut ticks) = (Expiry::default(), interval(every));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.round(&mut expiry).await;
            self.rounds.send_modify(|rounds| *rounds += 1);
        }
    }

    /// Sends one heartbeat, and then deletes the instances that have expired.
    pub(crate) async fn round(&self, expiry: &mut Expiry) {
        let own = self.id();
        match bounded(self.store.heartbeat(own)).await {
            Ok(Some(heartbeats)) => {
                for instance in expiry.observe(heartbeats, own) {
                    let expired = bounded(self.store.expire(instance)).await;
                    self.note(LedgerUpkeep::Expire, expired);
                }
            }
            Ok(None) => self.note(LedgerUpkeep::Heartbeat, self.register_anew().await),
            Err(error) => self.note(LedgerUpkeep::Heartbeat, Err(error)),
        }
    }

    /// The other instances considered this process dead. It continues under a new id.
    async fn register_anew(&self) -> Result<(), LeaseError> {
        let id = new_id(&*self.clock, &*self.random);
        bounded(self.store.register(id)).await?;
        *self.id.lock().unwrap_or_else(PoisonError::into_inner) = id;
        tracing::warn!("other replicas took this process for dead; calls in flight are unverified");
        Ok(())
    }

    /// Counts and logs a failed step. The ledger's writer logs an outage, which may be over by the next round. Any
    /// other failure is permanent.
    fn note(&self, step: LedgerUpkeep, done: Result<(), LeaseError>) {
        let Err(error) = done else { return };
        self.metrics.upkeep_failed(step);
        let step = step.label();
        match &error {
            LeaseError::Unavailable(cause) => {
                tracing::debug!(step, %cause, "the ledger could not be looked after");
            }
            LeaseError::Broken(cause) => {
                tracing::error!(step, %cause, "the ledger cannot be looked after");
            }
        }
    }
}

/// The store's answer, within the timeout.
async fn bounded<T>(
    question: impl Future<Output = Result<T, LeaseError>>,
) -> Result<T, LeaseError> {
    let answer = timeout(TIMEOUT, question).await;
    answer.unwrap_or_else(|late| Err(LeaseError::Unavailable(late.into())))
}
