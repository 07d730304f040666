//! Every metric of the service: its name, its help, its labels, and the event that moves it.
//!
//! Callers name events (`tokens_spent`, `refused`); the label values that they hand in are constants of
//! closed sets, names from the catalog, or a route's pattern. The one open label is `tenant`: it is bounded, and tenants past the bound are counted
//! together as `other`, so that a scrape stays small whatever is configured. Prometheus counters are
//! floats by format; the exact account of money is not kept here.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{
    CounterVec, Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use serde::Deserialize;

use crate::units::{Currency, Money, Tokens, Usage};

/// The settings section `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    /// How many tenants get series of their own; the rest are counted as `other`. Default 200.
    pub max_tenants: usize,
}

/// Why tokens were saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saving {
    /// The tenant's cap made the image smaller than the model's default would have.
    MaxPixels,
}

impl Saving {
    const fn label(self) -> &'static str {
        match self {
            Self::MaxPixels => "max_pixels",
        }
    }
}

/// How an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// It is asked.
    Closed,
    /// It failed and cools down.
    Open,
    /// Its key was refused.
    KeyRefused,
}

impl EndpointState {
    const fn value(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::KeyRefused => 2,
        }
    }
}

/// A step of a call that waits for the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerStep {
    /// From asking for a bound until it is held, waiting for other calls included.
    Reserve,
    /// From the end of a call until it is in the database.
    Settle,
}

impl LedgerStep {
    const fn label(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Settle => "settle",
        }
    }
}

/// A step of the task that looks after the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperStep {
    /// Telling the other replicas that this one lives, and reading what they tell.
    Beat,
    /// Forgetting a replica that died.
    Bury,
    /// Counting the calls at their bounds that it left open.
    WriteOff,
    /// Deleting old entries.
    Prune,
}

impl KeeperStep {
    /// The label of metrics and log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Beat => "beat",
            Self::Bury => "bury",
            Self::WriteOff => "write_off",
            Self::Prune => "prune",
        }
    }
}

/// The tenant label of a request whose caller is not known.
pub const NO_TENANT: &str = "none";

/// The tenant label of all who came after the first `metrics.max_tenants`.
const OTHER_TENANTS: &str = "other";

/// What the name of each metric of ours starts with; process metrics keep their customary names.
const NAMESPACE: &str = "ocr_gateway";

/// Seconds; from a refusal in memory to a page of several minutes.
const DURATION_BUCKETS: [f64; 14] =
    [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The figures of the budgets of tenants without series of their own, by period and state, then by tenant.
type OthersBudgets = HashMap<(String, &'static str), HashMap<String, i64>>;

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    tenants: TenantLabels,
    tokens_spent: IntCounterVec,
    tokens_unverified: IntCounterVec,
    tokens_saved: IntCounterVec,
    tokens_above_bound: IntCounterVec,
    bills_clamped: IntCounterVec,
    cost: CounterVec,
    cost_unverified: CounterVec,
    estimate_mismatch: IntCounterVec,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    refused: IntCounterVec,
    budget_tokens: IntGaugeVec,
    ledger_time_zone: IntGaugeVec,
    others_budgets: Mutex<OthersBudgets>,
    ledger_duration: HistogramVec,
    ledger_stuck: IntCounter,
    orphans_stuck: IntGauge,
    keeper_failures: IntCounterVec,
    upstream_attempts: IntCounterVec,
    upstream_duration: HistogramVec,
    upstream_retries: IntCounterVec,
    endpoint_state: IntGaugeVec,
    in_flight_requests: IntGauge,
    in_flight_bytes: IntGauge,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    ///
    /// When two metrics have one name, which a test of this module would have shown.
    pub fn new(settings: &MetricsSettings) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = Registrar { registry: &registry };
        let metrics = Self {
            tenants: TenantLabels::new(settings.max_tenants),
            tokens_spent: new.counter("tokens_spent_total", "Tokens that the upstream billed, as its usage says.", &["tenant", "model", "kind"])?,
            tokens_unverified: new.counter("tokens_unverified_total", "Tokens settled at the bound of a call whose bill is unknown.", &["tenant", "model"])?,
            tokens_saved: new.counter("tokens_saved_total", "Image tokens that were not spent.", &["tenant", "reason"])?,
            tokens_above_bound: new.counter("tokens_above_bound_total", "Tokens billed above the bound known before sending. Anything but zero is an alarm.", &["tenant", "model"])?,
            bills_clamped: new.counter("bills_clamped_total", "Bills beyond what a call of the model can cost, counted at that and marked unverified. Anything but zero is an alarm.", &["tenant", "model"])?,
            cost: new.money("cost_total", "Money spent by the price list, in units of the currency.", &["tenant", "model", "currency"])?,
            cost_unverified: new.money("cost_unverified_total", "Money settled at the bound of a call whose bill is unknown.", &["tenant", "model", "currency"])?,
                        estimate_mismatch: new.counter("token_estimate_mismatch_total", "Answers whose image tokens were billed otherwise than estimated.", &["model"])?,
            requests: new.counter("requests_total", "Requests answered.", &["route", "status", "tenant"])?,
            request_duration: new.histogram("request_duration_seconds", "Time from a request's first byte to its answer.", &["route"])?,
            refused: new.counter("refused_total", "Requests refused before anything was sent.", &["tenant", "reason"])?,
            budget_tokens: new.gauges("budget_tokens", "Tokens of the current window: the budget, what is settled, and what calls in flight hold. As last seen by this replica.", &["tenant", "period", "state"])?,
            ledger_time_zone: new.gauges("ledger_time_zone", "Always 1. The time zone whose days and months this replica counts budgets in.", &["time_zone"])?,
            others_budgets: Mutex::default(),
            ledger_duration: new.histogram("ledger_duration_seconds", "Time that a call waited for the ledger.", &["step"])?,
            ledger_stuck: new.count("ledger_stuck_ends_total", "Ends of calls that the ledger could not post: an amount or a row that it cannot count or read, or a reservation that the database has lost. Anything but zero is an alarm.")?,
            orphans_stuck: new.gauge("ledger_stuck_orphans", "Calls of processes that died whose bounds stay reserved, because their entries cannot be written off. Anything but zero is an alarm.")?,
            keeper_failures: new.counter("ledger_keeper_failures_total", "Steps of looking after the ledger that failed.", &["step"])?,
            upstream_attempts: new.counter("upstream_attempts_total", "Calls made to the upstream.", &["endpoint", "outcome"])?,
            upstream_duration: new.histogram("upstream_duration_seconds", "Time of one call to the upstream.", &["endpoint"])?,
            upstream_retries: new.counter("upstream_retries_total", "Calls repeated.", &["reason"])?,
            endpoint_state: new.gauges("endpoint_state", "How an endpoint stands: 0 it is asked, 1 it cools down after failures of several tenants or of the only one that calls, 2 its key is refused. Of one model, or of all where none is named.", &["endpoint", "model"])?,
            in_flight_requests: new.gauge("in_flight_requests", "Requests being worked on.")?,
            in_flight_bytes: new.gauge("in_flight_bytes", "Bytes of uploads and long answers held in memory.")?,
            registry: registry.clone(),
        };
        new.build_info()?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// Lets the series of a known model exist from the start, so that an alert can see them move.
    pub fn expect_model(&self, model: &str) {
        self.estimate_mismatch.with_label_values(&[model]).inc_by(0);
    }

    /// The upstream billed `usage` at `cost`.
    pub fn tokens_spent(&self, tenant: &str, model: &str, usage: &Usage) {
        let tenant = self.tenants.label(tenant);
        for (kind, tokens) in
            [("image", usage.image), ("text", usage.text), ("output", usage.output)]
        {
            self.tokens_spent.with_label_values(&[tenant, model, kind]).inc_by(tokens.get());
        }
    }

    /// A call whose bill is unknown was settled at its bound.
    pub fn tokens_unverified(&self, tenant: &str, model: &str, bound: Tokens) {
        let tenant = self.tenants.label(tenant);
        self.tokens_unverified.with_label_values(&[tenant, model]).inc_by(bound.get());
    }

    /// The same in money.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    pub fn cost_unverified(&self, tenant: &str, model: &str, currency: Currency, cost: Money) {
        let labels = [self.tenants.label(tenant), model, currency.code()];
        self.cost_unverified.with_label_values(&labels).inc_by(cost.nanos() as f64 / 1e9);
    }

    /// The cap or another rule made an image cheaper.
    pub fn tokens_saved(&self, tenant: &str, reason: Saving, saved: Tokens) {
        let tenant = self.tenants.label(tenant);
        self.tokens_saved.with_label_values(&[tenant, reason.label()]).inc_by(saved.get());
    }

    /// The upstream billed more than the bound.
    pub fn tokens_above_bound(&self, tenant: &str, model: &str, excess: Tokens) {
        let tenant = self.tenants.label(tenant);
        self.tokens_above_bound.with_label_values(&[tenant, model]).inc_by(excess.get());
    }

    /// A bill was beyond what a call can cost.
    pub fn bill_clamped(&self, tenant: &str, model: &str) {
        self.bills_clamped.with_label_values(&[self.tenants.label(tenant), model]).inc();
    }

    /// Money was spent.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    pub fn cost(&self, tenant: &str, model: &str, currency: Currency, cost: Money) {
        let labels = [self.tenants.label(tenant), model, currency.code()];
        self.cost.with_label_values(&labels).inc_by(cost.nanos() as f64 / 1e9);
    }

    /// An answer's image tokens differ from the estimate.
    pub fn estimate_mismatch(&self, model: &str) {
        self.estimate_mismatch.with_label_values(&[model]).inc();
    }

    /// A request was answered.
    pub fn request(&self, route: &str, status: u16, tenant: &str, took: Duration) {
        let labels = [route, &status.to_string(), self.tenants.label(tenant)];
        self.requests.with_label_values(&labels).inc();
        self.request_duration.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// A request was refused; `reason` is one of a closed set of the modules that refuse.
    pub fn refused(&self, tenant: &str, reason: &'static str) {
        self.refused.with_label_values(&[self.tenants.label(tenant), reason]).inc();
    }

    /// What is settled and reserved of a tenant's current window.
    pub fn budget_spent(&self, tenant: &str, period: &str, settled: Tokens, reserved: Tokens) {
        self.set_budget(tenant, period, "settled", Some(settled));
        self.set_budget(tenant, period, "reserved", Some(reserved));
    }

    /// What a tenant may spend in a window; none takes the series away.
    pub fn budget_limit(&self, tenant: &str, period: &str, limit: Option<Tokens>) {
        self.set_budget(tenant, period, "limit", limit);
    }

    /// A new day has begun: what is known of the budgets is of the one before.
    pub fn forget_budgets(&self) {
        self.others_budgets().clear();
        self.budget_tokens.reset();
    }

    /// Shows one figure of a tenant's budget; none takes it away. Of the tenants without series of their own
    /// the sum is shown, or they would overwrite each other.
    fn set_budget(&self, tenant: &str, period: &str, state: &'static str, tokens: Option<Tokens>) {
        let figure = tokens.map(|tokens| i64::try_from(tokens.get()).unwrap_or(i64::MAX));
        let label = self.tenants.label(tenant);
        let labels = [label, period, state];
        let shown = if label == OTHER_TENANTS {
            let mut others = self.others_budgets();
            let figures = others.entry((period.to_owned(), state)).or_default();
            match figure {
                Some(figure) => figures.insert(tenant.to_owned(), figure),
                None => figures.remove(tenant),
            };
            let sum = figures.values().copied().fold(0, i64::saturating_add);
            (!figures.is_empty()).then_some(sum)
        } else {
            figure
        };
        match shown {
            Some(shown) => self.budget_tokens.with_label_values(&labels).set(shown),
            // Fails only where there was no series.
            None => drop(self.budget_tokens.remove_label_values(&labels)),
        }
    }

    fn others_budgets(&self) -> MutexGuard<'_, OthersBudgets> {
        self.others_budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time zone of the budgets. Replicas that were given different ones are seen here.
    pub fn ledger_time_zone(&self, name: &str) {
        self.ledger_time_zone.with_label_values(&[name]).set(1);
    }

    /// A call waited for the ledger.
    pub fn ledger_step(&self, step: LedgerStep, took: Duration) {
        self.ledger_duration.with_label_values(&[step.label()]).observe(took.as_secs_f64());
    }

    /// The end of a call cannot be posted.
    pub fn ledger_stuck(&self) {
        self.ledger_stuck.inc();
    }

    /// So many calls of dead processes cannot be written off.
    pub fn orphans_stuck(&self, calls: usize) {
        self.orphans_stuck.set(i64::try_from(calls).unwrap_or(i64::MAX));
    }

    /// A step of looking after the ledger failed.
    pub fn keeper_failed(&self, step: KeeperStep) {
        self.keeper_failures.with_label_values(&[step.label()]).inc();
    }

    /// A call to the upstream ended.
    pub fn upstream_attempt(&self, endpoint: &str, outcome: &'static str, took: Duration) {
        self.upstream_attempts.with_label_values(&[endpoint, outcome]).inc();
        self.upstream_duration.with_label_values(&[endpoint]).observe(took.as_secs_f64());
    }

    /// A call to the upstream is about to be repeated.
    pub fn upstream_retry(&self, reason: &'static str) {
        self.upstream_retries.with_label_values(&[reason]).inc();
    }

    /// An endpoint has changed how it stands, for one model or, where that is empty, for all.
    pub fn endpoint_state(&self, endpoint: &str, model: &str, state: EndpointState) {
        self.endpoint_state.with_label_values(&[endpoint, model]).set(state.value());
    }

    /// The gauge of requests being worked on.
    pub const fn in_flight_requests(&self) -> &IntGauge {
        &self.in_flight_requests
    }

    /// The gauge of upload bytes held.
    pub const fn in_flight_bytes(&self) -> &IntGauge {
        &self.in_flight_bytes
    }

    /// The gauge of whether Redis answers, 1 or 0. It exists once it was asked for: without a Redis there
    /// is nothing to alert on.
    ///
    /// # Errors
    ///
    /// When it is asked for a second time.
    pub fn redis_up(&self) -> Result<IntGauge, prometheus::Error> {
        let new = Registrar { registry: &self.registry };
        new.gauge("redis_up", "Whether the Redis of the rate limits answers.")
    }

    /// All metrics in the Prometheus text format.
    ///
    /// # Errors
    ///
    /// When a collector gave something that cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Creates and registers metrics of one registry.
struct Registrar<'a> {
    registry: &'a Registry,
}

impl Registrar<'_> {
    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        let counter = IntCounterVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn count(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        let counter = IntCounter::with_opts(Opts::new(name, help).namespace(NAMESPACE))?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn money(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CounterVec> {
        let counter = CounterVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<HistogramVec> {
        let options =
            HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(DURATION_BUCKETS.to_vec());
        let histogram = HistogramVec::new(options, labels)?;
        self.registry.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let gauges = IntGaugeVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?;
        self.registry.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        let gauge = IntGauge::with_opts(Opts::new(name, help).namespace(NAMESPACE))?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn build_info(&self) -> prometheus::Result<()> {
        let info = IntGaugeVec::new(
            Opts::new("build_info", "Always 1.").namespace(NAMESPACE),
            &["version"],
        )?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        self.registry.register(Box::new(info))
    }
}

/// The bounded set of values of the label `tenant`: first come, first named.
#[derive(Debug)]
struct TenantLabels {
    known: Mutex<HashSet<String>>,
    most: usize,
}

impl TenantLabels {
    fn new(most: usize) -> Self {
        Self { known: Mutex::new(HashSet::new()), most }
    }

    fn label<'a>(&self, tenant: &'a str) -> &'a str {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if tenant == NO_TENANT || known.contains(tenant) {
            return tenant;
        }
        if known.len() >= self.most {
            return OTHER_TENANTS;
        }
        known.insert(tenant.to_owned());
        tenant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(max_tenants: usize) -> Metrics {
        Metrics::new(&MetricsSettings { max_tenants }).unwrap()
    }

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.encode().unwrap()).unwrap()
    }

    #[test]
    fn tokens_are_counted_by_kind() {
        let metrics = metrics(10);
        let usage = Usage { image: Tokens::new(7), text: Tokens::new(2), output: Tokens::new(1) };
        metrics.tokens_spent("acme", "m", &usage);
        let line = r#"ocr_gateway_tokens_spent_total{kind="image",model="m",tenant="acme"} 7"#;
        assert!(text(&metrics).contains(line));
    }

    #[test]
    fn a_hundred_thousand_tenants_make_no_more_series_than_the_bound() {
        let metrics = metrics(3);
        for tenant in 0..100_000 {
            metrics.refused(&format!("tenant-{tenant}"), "rpm");
        }
        let text = text(&metrics);
        let series = text.lines().filter(|line| line.starts_with("ocr_gateway_refused_total"));
        assert_eq!(series.count(), 4);
        assert!(text.contains(r#"reason="rpm",tenant="other"} 99997"#));
    }

    #[test]
    fn the_budgets_of_tenants_past_the_bound_are_added_up() {
        let metrics = metrics(1);
        for (tenant, limit) in [("a", 1), ("b", 20), ("c", 300), ("b", 40)] {
            metrics.budget_limit(tenant, "day", Some(Tokens::new(limit)));
            metrics.budget_spent(tenant, "day", Tokens::new(limit / 2), Tokens::ZERO);
        }
        let other = |state: &str| {
            let labels = format!(r#"{{period="day",state="{state}",tenant="other"}} "#);
            let text = text(&metrics);
            let line = text.lines().find_map(|line| line.split_once(&labels))?.1;
            line.parse::<i64>().ok()
        };
        assert_eq!(
            (other("limit"), other("settled"), other("reserved")),
            (Some(340), Some(170), Some(0))
        );
        metrics.budget_limit("b", "day", None);
        assert_eq!(other("limit"), Some(300));
        metrics.budget_limit("c", "day", None);
        assert_eq!(other("limit"), None);
        metrics.forget_budgets();
        metrics.budget_spent("c", "day", Tokens::new(5), Tokens::ZERO);
        assert_eq!(other("settled"), Some(5));
    }

    #[test]
    fn the_process_and_the_build_are_described() {
        let text = text(&metrics(1));
        assert!(text.contains("ocr_gateway_build_info"));
        assert!(text.contains("process_resident_memory_bytes"));
    }
}
