//! Audits: a share of the pages with chosen pixels is read a second time at the cap, and the two texts are compared.
//!
//! The comparison proves on the tenant's own documents and by the real model that the chosen pixels suffice, and
//! calibrates how large text must stay ([`calibration`](crate::calibration)). The second call is metered like any
//! other, so it never exceeds a budget; where one has no room, the audit is skipped. The caller does not wait for it,
//! and it is not in the usage of the answer.
//!
//! What is compared is what is delivered: the text, or the values of the fields. If an answer in doubt was read again,
//! the two texts are there already. A page that was taken for blank is read in the same way. If it has text, that is
//! counted, and changes no height, because the height does not decide what is blank.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::doubt;
use super::result::Page;
use crate::auth::tenant::Tenant;
use crate::calibration::agreement::{Agreement, agreement};
use crate::calibration::heights::HeightFactors;
use crate::random::Random;
use crate::telemetry::metrics::{AuditOutcome, Metrics};
use crate::units::Share;

/// Audits in a process at once. Each holds a file and may hold a document worker, so they must not crowd out requests.
const AT_ONCE: usize = 2;

/// Starts audits and learns from them.
#[derive(Debug)]
pub struct Auditor {
    factors: Arc<HeightFactors>,
    metrics: Arc<Metrics>,
    random: Arc<dyn Random>,
    places: Arc<Semaphore>,
    /// Cancelled when the service stops.
    stop: CancellationToken,
    /// Nobody waits for these tasks. A call that was sent runs on a task of its own, which a stop waits for.
    tasks: TaskTracker,
}

/// What a page was read as at the cap.
#[derive(Debug)]
pub(super) struct ReferenceText {
    text: String,
    /// Whether it shows doubt, such as a loop.
    is_in_doubt: bool,
}

impl ReferenceText {
    /// What is compared of a page that was read at the cap.
    pub(super) fn of(page: &Page) -> Self {
        Self { text: page.text_to_compare(), is_in_doubt: !doubt::of_page(page).is_empty() }
    }
}

impl Auditor {
    /// An auditor that teaches `factors`.
    pub fn new(
        factors: Arc<HeightFactors>,
        metrics: Arc<Metrics>,
        random: Arc<dyn Random>,
    ) -> Arc<Self> {
        Arc::new(Self {
            factors,
            metrics,
            random,
            places: Arc::new(Semaphore::new(AT_ONCE)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Ends the audits whose call was not sent. Starts no more.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Decides by chance whether a page of this tenant is audited.
    pub(super) fn draws(&self, tenant: &Tenant) -> bool {
        let drawn = self.random.next_u64() % u64::from(Share::ALL.millionths());
        drawn < tenant.auto_audit.millionths().into()
    }

    /// Reads a page again by `reading` in the background, and compares the result with its `text`.
    pub(super) fn audit(
        self: &Arc<Self>,
        tenant: Arc<Tenant>,
        text: String,
        reading: impl Future<Output = Result<ReferenceText, AuditOutcome>> + Send + 'static,
    ) {
        let own = Arc::clone(self);
        self.begin(&Arc::clone(&tenant), async move {
            match own.stop.run_until_cancelled(reading).await {
                Some(Ok(reference)) => own.compare(&tenant, reference, text).await,
                Some(Err(outcome)) => own.metrics.audit(tenant.name.as_str(), outcome),
                None => {}
            }
        });
    }

    /// Reads a page that was taken for blank by `reading` in the background.
    pub(super) fn audit_blank(
        self: &Arc<Self>,
        tenant: Arc<Tenant>,
        reading: impl Future<Output = Result<ReferenceText, AuditOutcome>> + Send + 'static,
    ) {
        let own = Arc::clone(self);
        self.begin(&Arc::clone(&tenant), async move {
            let Some(read) = own.stop.run_until_cancelled(reading).await else { return };
            let has_text = |read: &ReferenceText| read.text.contains(char::is_alphanumeric);
            let outcome = match read {
                Ok(read) if read.is_in_doubt => AuditOutcome::SkippedUnclear,
                Ok(read) if has_text(&read) => AuditOutcome::BlankHadText,
                Ok(_) => AuditOutcome::Agreed,
                Err(outcome) => outcome,
            };
            own.metrics.audit(tenant.name.as_str(), outcome);
        });
    }

    /// Does this in the background, unless as much is done as may be.
    fn begin(self: &Arc<Self>, tenant: &Tenant, audit: impl Future<Output = ()> + Send + 'static) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.audit(tenant.name.as_str(), AuditOutcome::SkippedBusy);
            return;
        };
        let audit = async move {
            let _place = place;
            audit.await;
        };
        self.tasks.spawn(audit.in_current_span());
    }

    /// Compares two texts of a page: `reference` was read at the cap, `text` at the chosen pixels.
    async fn compare(&self, tenant: &Tenant, reference: ReferenceText, text: String) {
        let name = tenant.name.as_str();
        let found = if reference.is_in_doubt { None } else { compared(reference.text, text).await };
        let Some(agreement) = found else {
            self.metrics.audit(name, AuditOutcome::SkippedUnclear);
            return;
        };
        let is_met = agreement.share >= tenant.auto_aim;
        self.metrics.agreement(name, agreement.share, agreement.weight.tenths());
        self.factors.learn(name, agreement, tenant.auto_aim).await;
        // Last, so that the factor has changed once this is counted.
        let outcome = if is_met { AuditOutcome::Agreed } else { AuditOutcome::BelowAim };
        self.metrics.audit(name, outcome);
    }

    /// Lowers the factor that alone keeps a page at the cap, in the background.
    ///
    /// The page was read at the cap, so a second reading would agree, and no call is made. `text` gives the weight.
    /// Without this, a factor at which no page is sent with fewer pixels would never be lowered, because only such pages
    /// are compared.
    pub(super) fn held_at_the_cap(self: &Arc<Self>, tenant: Arc<Tenant>, text: String) {
        let own = Arc::clone(self);
        self.begin(&Arc::clone(&tenant), async move {
            let name = tenant.name.as_str();
            if let Some(agreement) = compared(text.clone(), text).await {
                own.factors.learn(name, agreement, tenant.auto_aim).await;
            }
            own.metrics.audit(name, AuditOutcome::AtTheCap);
        });
    }
}

/// How far two texts agree. Sorting the runs of a long text takes milliseconds, so the reactor does not do it.
async fn compared(reference: String, text: String) -> Option<Agreement> {
    let comparing = tokio::task::spawn_blocking(move || agreement(&reference, &text));
    comparing.await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use futures_util::future;

    use super::*;
    use crate::calibration::controller::{HeightFactor, Step};
    use crate::calibration::{HeightStore, HeightStoreError};
    use crate::random::SeededRandom;
    use crate::supervisor::Supervisor;
    use crate::telemetry::levels::Levels;
    use crate::telemetry::metrics::MetricsSettings;

    /// A store that keeps nothing.
    #[derive(Debug)]
    struct NoHeights;

    impl HeightStore for NoHeights {
        fn apply<'a>(
            &'a self,
            _tenant: &'a str,
            step: Step,
        ) -> future::BoxFuture<'a, Result<HeightFactor, HeightStoreError>> {
            Box::pin(future::ready(Ok(HeightFactor::ONE.after(step))))
        }

        fn factors(
            &self,
        ) -> future::BoxFuture<'_, Result<Vec<(String, HeightFactor)>, HeightStoreError>> {
            Box::pin(future::ready(Ok(Vec::new())))
        }
    }

    async fn auditor() -> (Arc<Auditor>, Supervisor) {
        let metrics = Arc::new(Metrics::new(&MetricsSettings { max_tenants: 9 }).unwrap());
        let supervisor = Supervisor::default();
        let factors =
            HeightFactors::open(Arc::new(NoHeights), Arc::clone(&metrics), &supervisor).await;
        (Auditor::new(factors, metrics, Arc::new(SeededRandom::new(1))), supervisor)
    }

    fn tenant(auto_audit: u32) -> Arc<Tenant> {
        let auto_audit = Share::from_millionths(auto_audit).unwrap();
        Arc::new(Tenant { auto_audit, ..Tenant::new("acme".parse().unwrap()) })
    }

    fn count(auditor: &Auditor, outcome: &str) -> usize {
        let text = auditor.metrics.encode(&Levels::default()).unwrap();
        let series = format!("auto_audits_total{{outcome=\"{outcome}\",tenant=\"acme\"}} ");
        let text = String::from_utf8(text).unwrap();
        text.split(&series).nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap())
    }

    #[tokio::test]
    async fn about_the_share_of_pages_is_drawn() {
        let (auditor, _supervisor) = auditor().await;
        let drawn = |share| (0..10_000).filter(|_| auditor.draws(&tenant(share))).count();
        assert_eq!((drawn(0), drawn(1_000_000)), (0, 10_000));
        let few = drawn(10_000);
        assert!((60..140).contains(&few), "{few}");
    }

    #[tokio::test]
    async fn no_more_than_two_audits_are_made_at_once() {
        let (auditor, _supervisor) = auditor().await;
        for _ in 0..3 {
            auditor.audit(tenant(1), String::new(), future::pending());
        }
        assert_eq!(count(&auditor, "skipped_busy"), 1);
    }

    #[tokio::test]
    async fn what_is_learnt_without_a_call_has_the_same_bound() {
        let (auditor, _supervisor) = auditor().await;
        for _ in 0..3 {
            auditor.held_at_the_cap(tenant(1), String::new());
        }
        assert_eq!(count(&auditor, "skipped_busy"), 1);
    }

    #[tokio::test]
    async fn a_stop_drops_what_was_not_sent_and_starts_no_more() {
        let (auditor, _supervisor) = auditor().await;
        auditor.audit(tenant(1), String::new(), future::pending());
        auditor.stop();
        auditor.audit(tenant(1), String::new(), async { panic!("it was started") });
        auditor.tasks.close();
        auditor.tasks.wait().await;
    }

    #[tokio::test]
    async fn a_reference_in_doubt_or_without_text_teaches_nothing() {
        let (auditor, _supervisor) = auditor().await;
        let long = "a text that is long enough".to_owned();
        for (text, is_in_doubt) in [(long.clone(), true), (String::new(), false)] {
            let reference = ReferenceText { text, is_in_doubt };
            auditor.compare(&tenant(1), reference, String::new()).await;
        }
        assert_eq!(count(&auditor, "skipped_unclear"), 2);
        let reference = ReferenceText { text: long, is_in_doubt: false };
        auditor.compare(&tenant(1), reference, String::new()).await;
        assert_eq!(count(&auditor, "below_aim"), 1);
        assert!(auditor.factors.factor("acme") > HeightFactor::ONE);
    }
}
