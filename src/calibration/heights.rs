//! The factors of all tenants in this process.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::agreement::Agreement;
use super::controller::{HeightFactor, Step};
use super::{HeightStore, HeightStoreError};
use crate::supervisor::Supervisor;
use crate::telemetry::metrics::Metrics;
use crate::units::Share;

/// How often the factors are read, so that a replica follows what the audits of others have taught.
const READ_EVERY: Duration = Duration::from_secs(5);

/// How long one operation of the store may take.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The factor of each tenant that was audited, as the database had it a few seconds ago.
#[derive(Debug)]
pub struct HeightFactors {
    store: Arc<dyn HeightStore>,
    metrics: Arc<Metrics>,
    factors: RwLock<HashMap<String, HeightFactor>>,
}

impl HeightFactors {
    /// Reads the factors, and reads them again every few seconds in a task that `supervisor` watches. Without an answer
    /// of the store, the last factors apply: pages can be read without it.
    pub async fn open(
        store: Arc<dyn HeightStore>,
        metrics: Arc<Metrics>,
        supervisor: &Supervisor,
    ) -> Arc<Self> {
        let heights = Arc::new(Self { store, metrics, factors: RwLock::default() });
        let mut is_known = heights.read(true).await;
        let own = Arc::clone(&heights);
        supervisor.spawn("kept heights", async move {
            let mut ticks = interval(READ_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                is_known = own.read(is_known).await;
            }
        });
        heights
    }

    /// The factor of a tenant.
    pub fn factor(&self, tenant: &str) -> HeightFactor {
        let factors = self.factors.read().unwrap_or_else(PoisonError::into_inner);
        factors.get(tenant).copied().unwrap_or_default()
    }

    /// Changes the factor of a tenant by what an audit found, where `aim` is wanted.
    pub async fn learn(&self, tenant: &str, agreement: Agreement, aim: Share) {
        match bounded(self.store.apply(tenant, Step::after(agreement, aim))).await {
            Ok(factor) => {
                let mut factors = self.factors.write().unwrap_or_else(PoisonError::into_inner);
                factors.insert(tenant.to_owned(), factor);
                drop(factors);
                self.metrics.kept_height_factor(tenant, factor.thousandths());
            }
            Err(error) => {
                tracing::warn!(
                    tenant,
                    error = &error as &dyn std::error::Error,
                    "the height of an audit was not stored, so the audit changes nothing"
                );
            }
        }
    }

    /// Reads the factors. Returns whether that succeeded; `was_known` is the result of the last time.
    async fn read(&self, was_known: bool) -> bool {
        let read = match bounded(self.store.factors()).await {
            Ok(read) => read,
            Err(error) => {
                if was_known {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "the heights of audits cannot be read; the last ones apply"
                    );
                }
                return false;
            }
        };
        for (tenant, factor) in &read {
            self.metrics.kept_height_factor(tenant, factor.thousandths());
        }
        *self.factors.write().unwrap_or_else(PoisonError::into_inner) = read.into_iter().collect();
        true
    }
}

/// The store's answer, within the timeout.
async fn bounded<T>(
    question: impl Future<Output = Result<T, HeightStoreError>>,
) -> Result<T, HeightStoreError> {
    let answer = timeout(TIMEOUT, question).await;
    answer.unwrap_or_else(|late| Err(HeightStoreError(late.into())))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::calibration::agreement::Weight;
    use crate::telemetry::metrics::MetricsSettings;

    /// A store whose factors a test sets. `None`: it does not answer.
    #[derive(Debug, Default)]
    struct FakeHeights(Mutex<Option<HashMap<String, HeightFactor>>>);

    impl FakeHeights {
        fn set(&self, factors: Option<&[(&str, i64)]>) {
            let known = |(tenant, factor): &(&str, i64)| {
                ((*tenant).to_owned(), HeightFactor::from_thousandths(*factor))
            };
            *self.0.lock().unwrap() = factors.map(|factors| factors.iter().map(known).collect());
        }
    }

    impl HeightStore for FakeHeights {
        fn apply<'a>(
            &'a self,
            tenant: &'a str,
            step: Step,
        ) -> BoxFuture<'a, Result<HeightFactor, HeightStoreError>> {
            Box::pin(async move {
                let mut factors = self.0.lock().unwrap();
                let factors = factors.as_mut().ok_or_else(|| HeightStoreError("away".into()))?;
                let factor = factors.entry(tenant.to_owned()).or_default();
                *factor = factor.after(step);
                Ok(*factor)
            })
        }

        fn factors(&self) -> BoxFuture<'_, Result<Vec<(String, HeightFactor)>, HeightStoreError>> {
            Box::pin(async move {
                let factors = self.0.lock().unwrap();
                let factors = factors.clone().ok_or_else(|| HeightStoreError("away".into()))?;
                Ok(factors.into_iter().collect())
            })
        }
    }

    /// An audit of a long text that was lost.
    const LOST: Agreement = Agreement { share: Share::NONE, weight: Weight::FULL };

    async fn open(store: &Arc<FakeHeights>) -> (Arc<HeightFactors>, Supervisor) {
        let (metrics, supervisor) =
            (Metrics::new(&MetricsSettings { max_tenants: 9 }).unwrap(), Supervisor::default());
        let store = Arc::clone(store) as Arc<dyn HeightStore>;
        (HeightFactors::open(store, Arc::new(metrics), &supervisor).await, supervisor)
    }

    fn factor(heights: &HeightFactors, tenant: &str) -> u16 {
        heights.factor(tenant).thousandths()
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_has_the_factors_from_its_start_on_and_follows_those_of_others() {
        let store = Arc::new(FakeHeights::default());
        store.set(Some(&[("acme", 1500)]));
        let (heights, _supervisor) = open(&store).await;
        assert_eq!((factor(&heights, "acme"), factor(&heights, "other")), (1500, 1000));
        store.set(Some(&[("acme", 1400), ("other", 2000)]));
        tokio::time::sleep(READ_EVERY + Duration::from_millis(1)).await;
        assert_eq!((factor(&heights, "acme"), factor(&heights, "other")), (1400, 2000));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_factors_apply_while_the_database_is_away() {
        let store = Arc::new(FakeHeights::default());
        store.set(Some(&[("acme", 1500)]));
        let (heights, supervisor) = open(&store).await;
        store.set(None);
        tokio::time::sleep(READ_EVERY * 3).await;
        heights.learn("acme", LOST, Share::ALL).await;
        assert_eq!(factor(&heights, "acme"), 1500);
        assert!(supervisor.check().is_ok());
        store.set(Some(&[("acme", 1600)]));
        tokio::time::sleep(READ_EVERY).await;
        assert_eq!(factor(&heights, "acme"), 1600);
    }

    #[tokio::test]
    async fn what_an_audit_teaches_applies_here_at_once() {
        let store = Arc::new(FakeHeights::default());
        store.set(Some(&[]));
        let (heights, _supervisor) = open(&store).await;
        heights.learn("acme", LOST, Share::ALL).await;
        assert_eq!(factor(&heights, "acme"), 1250);
    }
}
