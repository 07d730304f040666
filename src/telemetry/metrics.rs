//! Every metric of the service: its name, its help, its labels, and the event that changes it.
//!
//! Callers name events (`tokens_spent`, `refused`). Their label values are constants of closed sets, names from the
//! catalog, or a route's pattern. Only the label `tenant` is open: tenants past a bound are counted together as
//! `other`, so that a scrape stays small with any configuration. Prometheus counters are floats by format; the exact
//! amounts of money are in the ledger.
//!
//! Gauges that only a scrape reads are in [`levels`](super::levels).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    CounterVec, Encoder, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, TextEncoder,
};
use serde::Deserialize;

use super::levels::Levels;
use super::registrar::Registrar;
use crate::units::{Currency, Money, Share, Tokens, Usage};

/// The settings section `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    /// How many tenants get series of their own; the rest are counted as `other`. Default 200.
    pub max_tenants: usize,
}

/// The reason why tokens were saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saving {
    /// The tenant's cap made the image smaller than the model's default would have.
    MaxPixels,
    /// The page was answered from the text that it carries.
    TextLayer,
    /// The request was answered as an equal one.
    Cache,
    /// Fewer pixels than the cap allows were chosen for the page.
    Auto,
    /// The page is blank.
    Blank,
}

impl Saving {
    const fn label(self) -> &'static str {
        match self {
            Self::MaxPixels => "max_pixels",
            Self::TextLayer => "text_layer",
            Self::Cache => "cache",
            Self::Auto => "auto",
            Self::Blank => "blank",
        }
    }
}

/// What became of a page that was to be read a second time, to compare the two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    /// The texts agree by the tenant's aim or better.
    Agreed,
    /// They agree by less.
    BelowAim,
    /// The height of this tenant keeps the page at the cap, so there is nothing to compare.
    AtTheCap,
    /// The page was taken for blank and has text.
    BlankHadText,
    /// As many audits as may be were in flight.
    SkippedBusy,
    /// A budget or a limit of the tenant, or the memory of this process, had no room.
    SkippedRefused,
    /// The second call failed.
    SkippedFailed,
    /// One of the texts is in doubt, or the second is too short to compare.
    SkippedUnclear,
}

impl AuditOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::BelowAim => "below_aim",
            Self::AtTheCap => "at_the_cap",
            Self::BlankHadText => "blank_had_text",
            Self::SkippedBusy => "skipped_busy",
            Self::SkippedRefused => "skipped_refused",
            Self::SkippedFailed => "skipped_failed",
            Self::SkippedUnclear => "skipped_unclear",
        }
    }
}

/// The state of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// It receives calls.
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

/// A step in which a call waits for the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerStep {
    /// From the request for a reservation until it is held, including the wait for other calls.
    Reserve,
    /// From the end of a call until it is stored in the database.
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

/// A maintenance step of instances and of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerUpkeep {
    /// Sending a heartbeat, and reading those of the other instances.
    Heartbeat,
    /// Deleting an expired instance.
    Expire,
    /// Writing off the open entries of expired instances.
    WriteOff,
    /// Deleting old entries.
    Prune,
}

impl LedgerUpkeep {
    /// All of them.
    const ALL: [Self; 4] = [Self::Heartbeat, Self::Expire, Self::WriteOff, Self::Prune];

    /// The label of metrics and log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Heartbeat => "beat",
            Self::Expire => "bury",
            Self::WriteOff => "write_off",
            Self::Prune => "prune",
        }
    }
}

/// Why a document worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEnd {
    /// A page took more memory than it may.
    Memory,
    /// A step of a page took more CPU time than it may.
    CpuTime,
    /// A step of a page took longer than it may.
    Time,
    /// The reader failed on a page.
    Panic,
    /// It was killed from outside, or died without a known cause.
    Crash,
    /// It answered what no worker answers.
    Malformed,
    /// The caller left in the middle of a step.
    Abandoned,
    /// Memory of documents remained in it.
    Grown,
    /// It had nothing to do.
    Idle,
}

impl WorkerEnd {
    /// All of them.
    const ALL: [Self; 9] = [
        Self::Memory,
        Self::CpuTime,
        Self::Time,
        Self::Panic,
        Self::Crash,
        Self::Malformed,
        Self::Abandoned,
        Self::Grown,
        Self::Idle,
    ];

    /// The label of metrics and log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::CpuTime => "cpu_time",
            Self::Time => "time",
            Self::Panic => "panic",
            Self::Crash => "crash",
            Self::Malformed => "malformed",
            Self::Abandoned => "abandoned",
            Self::Grown => "grown",
            Self::Idle => "idle",
        }
    }
}

/// The tenant label of requests without a known caller.
pub const NO_TENANT: &str = "none";

/// The tenant label of all tenants after the first `metrics.max_tenants`.
const OTHER_TENANTS: &str = "other";

/// The reasons of `refused_total` that alerts watch: of tenants, and of unknown callers.
const ALARMING_REFUSALS: [&str; 3] = ["store_unavailable", "overloaded", "share"];
const ALARMING_REFUSALS_OF_UNKNOWN: [&str; 2] = ["store_unavailable", "unknown_connection"];

/// Buckets in seconds for calls of a model: most pages take 2 to 60 s.
const SLOW: [f64; 22] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0, 90.0, 120.0, 180.0, 300.0,
];

/// Buckets in seconds for work of this process and its database: from a tenth of a millisecond to a slow upload.
const QUICK: [f64; 18] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

/// Buckets for the agreement of two texts: finer where aims are.
const AGREEMENT: [f64; 12] = [0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 1.0];

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
    pages: IntCounterVec,
    cache_requests: IntCounterVec,
    agreement: HistogramVec,
    audits: IntCounterVec,
    escalations: IntCounterVec,
    kept_height_factor: GaugeVec,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    overhead: HistogramVec,
    refused: IntCounterVec,
    ledger_time_zone: IntGaugeVec,
    ledger_duration: HistogramVec,
    ledger_stuck: IntCounter,
    orphans_stuck: IntGauge,
    upkeep_failures: IntCounterVec,
    upstream_attempts: IntCounterVec,
    upstream_duration: HistogramVec,
    upstream_queue: HistogramVec,
    upstream_retries: IntCounterVec,
    endpoint_state: IntGaugeVec,
    streams: IntGauge,
    in_flight_bytes: IntGauge,
    document_workers: IntGauge,
    document_workers_in_use: IntGauge,
    document_worker_ends: IntCounterVec,
    document_worker_wait: HistogramVec,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    ///
    /// Two metrics have one name. A test of this module would show that.
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
            pages: new.counter("pages_total", "Pages of /ocr and /extract by how they were answered: image and rendered were read by a model, text_layer and cache were not, failed has an error.", &["tenant", "source"])?,
            cache_requests: new.counter("cache_requests_total", "Requests of tenants with a cache_ttl: hit was answered from the cache, shared by an equal request that was under way, miss was read.", &["tenant", "outcome"])?,
            agreement: new.histogram("auto_agreement", "Share of the text of a page at the cap that is also in its text at the pixels that were chosen for it, ten observations for each audit and fewer for a text of a few words.", &["tenant"], &AGREEMENT)?,
            audits: new.counter("auto_audits_total", "Pages with chosen pixels that were to be read a second time at the cap, to compare the two texts.", &["tenant", "outcome"])?,
            escalations: new.counter("escalations_total", "Pages with chosen pixels that were to be read again at the cap, by the doubt about their answer.", &["tenant", "reason"])?,
            kept_height_factor: new.amounts("auto_kept_height_factor", "By how much audits have raised the height that text keeps where the pixels of a page are chosen: 1 to 4.", &["tenant"])?,
            requests: new.counter("requests_total", "Requests answered.", &["route", "status", "tenant"])?,
            request_duration: new.histogram("request_duration_seconds", "Time from the end of a request's head to the head of its answer.", &["route"], &SLOW)?,
            overhead: new.histogram("overhead_seconds", "Of request_duration_seconds, the time in which a request waited neither for its turn at the upstream nor for the upstream: the upload, the ledger, and this process.", &["route"], &QUICK)?,
            refused: new.counter("refused_total", "Requests, and calls for pages of a request, refused before they were sent.", &["tenant", "reason"])?,
            ledger_time_zone: new.gauges("ledger_time_zone", "Always 1. The time zone whose days and months this replica counts budgets in.", &["time_zone"])?,
            ledger_duration: new.histogram("ledger_duration_seconds", "Time that a call waited for the ledger.", &["step"], &QUICK)?,
            ledger_stuck: new.count("ledger_stuck_ends_total", "Ends of calls that the ledger could not post: an amount or a row that it cannot count or read, or a reservation that the database has lost. Anything but zero is an alarm.")?,
            orphans_stuck: new.gauge("ledger_stuck_orphans", "Calls of processes that died whose bounds stay reserved, because their entries cannot be written off. Anything but zero is an alarm.")?,
            upkeep_failures: new.counter("ledger_keeper_failures_total", "Steps of looking after the ledger that failed.", &["step"])?,
            upstream_attempts: new.counter("upstream_attempts_total", "Calls made to the upstream.", &["endpoint", "outcome"])?,
            upstream_duration: new.histogram("upstream_duration_seconds", "Time of one call to the upstream.", &["endpoint"], &SLOW)?,
            upstream_queue: new.histogram("upstream_queue_seconds", "Time that a call waited before it was sent, all its attempts together: for its turn under the account's rate, and between two attempts.", &["model"], &SLOW)?,
            upstream_retries: new.counter("upstream_retries_total", "Calls repeated.", &["reason"])?,
            endpoint_state: new.gauges("endpoint_state", "How an endpoint stands: 0 it is asked, 1 it cools down after failures of several tenants or of the only one that calls, 2 its key is refused. Of one model, or of all where none is named.", &["endpoint", "model"])?,
            streams: new.gauge("streams", "Streams of the upstream that are read, also for callers who have left.")?,
            in_flight_bytes: new.gauge("in_flight_bytes", "Bytes of uploads, long answers and document workers held in memory.")?,
            document_workers: new.gauge("document_workers", "Processes that read documents.")?,
            document_workers_in_use: new.gauge("document_workers_in_use", "Processes that read a page now.")?,
            document_worker_ends: new.counter("document_worker_ends_total", "Processes for documents that ended. Normal are idle, grown and abandoned.", &["reason"])?,
            document_worker_wait: new.histogram("document_worker_wait_seconds", "Time that a page waited for a process and its memory.", &[], &QUICK)?,
            registry: registry.clone(),
        };
        new.gauges("build_info", "Always 1.", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        metrics.expect_alarms();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// Creates series at 0 whose labels are known from the start. Prometheus sees no increase in a counter that appears
    /// with its first event.
    fn expect_alarms(&self) {
        for step in LedgerUpkeep::ALL {
            self.upkeep_failures.with_label_values(&[step.label()]).inc_by(0);
        }
        for step in [LedgerStep::Reserve, LedgerStep::Settle] {
            let _ = self.ledger_duration.with_label_values(&[step.label()]);
        }
        for end in WorkerEnd::ALL {
            self.document_worker_ends.with_label_values(&[end.label()]).inc_by(0);
        }
        for reason in ALARMING_REFUSALS_OF_UNKNOWN {
            self.refused.with_label_values(&[NO_TENANT, reason]).inc_by(0);
        }
    }

    /// Creates the series of a known endpoint, one for each outcome of a call.
    pub fn expect_endpoint(&self, endpoint: &str, outcomes: &[&str]) {
        for outcome in outcomes {
            self.upstream_attempts.with_label_values(&[endpoint, outcome]).inc_by(0);
        }
        let _ = self.upstream_duration.with_label_values(&[endpoint]);
    }

    /// Creates the alarming series of a tenant's calls of a model before the first call fails.
    pub fn expect_call(&self, tenant: &str, model: &str) {
        let labels = [self.label(tenant), model];
        for counter in [&self.tokens_unverified, &self.tokens_above_bound, &self.bills_clamped] {
            counter.with_label_values(&labels).inc_by(0);
        }
    }

    /// The value of the label `tenant`. Creates the series of alarming refusals for a new value.
    fn label<'a>(&self, tenant: &'a str) -> &'a str {
        let (label, is_new) = self.tenants.label(tenant);
        if is_new {
            for reason in ALARMING_REFUSALS {
                self.refused.with_label_values(&[label, reason]).inc_by(0);
            }
        }
        label
    }

    /// Creates the series of a known model, so that an alert sees their first increase.
    pub fn expect_model(&self, model: &str) {
        self.estimate_mismatch.with_label_values(&[model]).inc_by(0);
        let _ = self.upstream_queue.with_label_values(&[model]);
    }

    /// The upstream billed `usage` at `cost`.
    pub fn tokens_spent(&self, tenant: &str, model: &str, usage: &Usage) {
        let tenant = self.label(tenant);
        for (kind, tokens) in
            [("image", usage.image), ("text", usage.text), ("output", usage.output)]
        {
            self.tokens_spent.with_label_values(&[tenant, model, kind]).inc_by(tokens.get());
        }
    }

    /// A call whose bill is unknown was settled at its bound.
    pub fn tokens_unverified(&self, tenant: &str, model: &str, bound: Tokens) {
        let tenant = self.label(tenant);
        self.tokens_unverified.with_label_values(&[tenant, model]).inc_by(bound.get());
    }

    /// The same call in money.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    pub fn cost_unverified(&self, tenant: &str, model: &str, currency: Currency, cost: Money) {
        let labels = [self.label(tenant), model, currency.code()];
        self.cost_unverified.with_label_values(&labels).inc_by(cost.nanos() as f64 / 1e9);
    }

    /// The cap or another rule made an image cheaper.
    pub fn tokens_saved(&self, tenant: &str, reason: Saving, saved: Tokens) {
        let tenant = self.label(tenant);
        self.tokens_saved.with_label_values(&[tenant, reason.label()]).inc_by(saved.get());
    }

    /// A page was answered.
    pub fn page(&self, tenant: &str, source: &'static str) {
        self.pages.with_label_values(&[self.label(tenant), source]).inc();
    }

    /// A page was to be read a second time, or was.
    pub fn audit(&self, tenant: &str, outcome: AuditOutcome) {
        self.audits.with_label_values(&[self.label(tenant), outcome.label()]).inc();
    }

    /// A page is to be read again. `reason` is from the closed set of doubts.
    pub fn escalation(&self, tenant: &str, reason: &'static str) {
        self.escalations.with_label_values(&[self.label(tenant), reason]).inc();
    }

    /// Two texts of a page agree by so much. Observed `weight` times, so that the mean is the one that the audits keep
    /// at their aim.
    pub fn agreement(&self, tenant: &str, agreement: Share, weight: u8) {
        let histogram = self.agreement.with_label_values(&[self.label(tenant)]);
        for _ in 0..weight {
            histogram.observe(agreement.into());
        }
    }

    /// The factor of the height that text of a tenant keeps, in thousandths. Tenants past the bound of series have
    /// none, because one gauge cannot show several.
    pub fn kept_height_factor(&self, tenant: &str, thousandths: u16) {
        let label = self.label(tenant);
        if label != OTHER_TENANTS {
            let factor = f64::from(thousandths) / 1000.0;
            self.kept_height_factor.with_label_values(&[label]).set(factor);
        }
    }

    /// A request that may be answered from the cache was answered.
    pub fn cache_request(&self, tenant: &str, outcome: &'static str) {
        self.cache_requests.with_label_values(&[self.label(tenant), outcome]).inc();
    }

    /// The upstream billed more than the bound.
    pub fn tokens_above_bound(&self, tenant: &str, model: &str, excess: Tokens) {
        let tenant = self.label(tenant);
        self.tokens_above_bound.with_label_values(&[tenant, model]).inc_by(excess.get());
    }

    /// A bill exceeded the maximum of a call.
    pub fn bill_clamped(&self, tenant: &str, model: &str) {
        self.bills_clamped.with_label_values(&[self.label(tenant), model]).inc();
    }

    /// Money was spent.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    pub fn cost(&self, tenant: &str, model: &str, currency: Currency, cost: Money) {
        let labels = [self.label(tenant), model, currency.code()];
        self.cost.with_label_values(&labels).inc_by(cost.nanos() as f64 / 1e9);
    }

    /// An answer's image tokens differ from the estimate.
    pub fn estimate_mismatch(&self, model: &str) {
        self.estimate_mismatch.with_label_values(&[model]).inc();
    }

    /// A request was answered. `overhead` is the part of `took` in which the request waited neither in the queue before
    /// the upstream nor for the upstream.
    pub fn request(
        &self,
        route: &str,
        status: u16,
        tenant: &str,
        took: Duration,
        overhead: Duration,
    ) {
        let labels = [route, &status.to_string(), self.label(tenant)];
        self.requests.with_label_values(&labels).inc();
        self.request_duration.with_label_values(&[route]).observe(took.as_secs_f64());
        self.overhead.with_label_values(&[route]).observe(overhead.as_secs_f64());
    }

    /// A request, or a call of one, was refused before it was sent. `reason` is from the closed set of the module that
    /// refuses.
    pub fn refused(&self, tenant: &str, reason: &'static str) {
        self.refused.with_label_values(&[self.label(tenant), reason]).inc();
    }

    /// The time zone of the budgets. The metric shows replicas with different settings.
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

    /// The number of calls of dead processes that cannot be written off.
    pub fn orphans_stuck(&self, calls: usize) {
        self.orphans_stuck.set(i64::try_from(calls).unwrap_or(i64::MAX));
    }

    /// A maintenance step of the ledger failed.
    pub fn upkeep_failed(&self, step: LedgerUpkeep) {
        self.upkeep_failures.with_label_values(&[step.label()]).inc();
    }

    /// A call to the upstream ended.
    pub fn upstream_attempt(&self, endpoint: &str, outcome: &'static str, took: Duration) {
        self.upstream_attempts.with_label_values(&[endpoint, outcome]).inc();
        self.upstream_duration.with_label_values(&[endpoint]).observe(took.as_secs_f64());
    }

    /// The total time that a call waited before its attempts.
    pub fn upstream_queue(&self, model: &str, waited: Duration) {
        self.upstream_queue.with_label_values(&[model]).observe(waited.as_secs_f64());
    }

    /// A call to the upstream is about to be repeated.
    pub fn upstream_retry(&self, reason: &'static str) {
        self.upstream_retries.with_label_values(&[reason]).inc();
    }

    /// The state of an endpoint has changed, for one model or, if `model` is empty, for all.
    pub fn endpoint_state(&self, endpoint: &str, model: &str, state: EndpointState) {
        self.endpoint_state.with_label_values(&[endpoint, model]).set(state.value());
    }

    /// A stream of the upstream has begun. It counts until the guard is dropped.
    pub fn stream(&self) -> Counted {
        Counted::new(&self.streams)
    }

    /// A process for documents runs. It counts until the guard is dropped.
    pub fn document_worker(&self) -> Counted {
        Counted::new(&self.document_workers)
    }

    /// A page has a process and its memory, after such a wait. It counts until the guard is dropped.
    pub fn document_worker_in_use(&self, waited: Duration) -> Counted {
        self.document_worker_wait.with_label_values::<&str>(&[]).observe(waited.as_secs_f64());
        Counted::new(&self.document_workers_in_use)
    }

    /// A process for documents has ended.
    pub fn document_worker_ended(&self, why: WorkerEnd) {
        self.document_worker_ends.with_label_values(&[why.label()]).inc();
    }

    /// The gauge of upload bytes held.
    pub const fn in_flight_bytes(&self) -> &IntGauge {
        &self.in_flight_bytes
    }

    /// Creates the gauge that is 1 while Redis answers and 0 otherwise. Without Redis the metric must not exist, since
    /// alerts watch it.
    ///
    /// # Errors
    ///
    /// A second call.
    pub fn redis_up(&self) -> Result<IntGauge, prometheus::Error> {
        let new = Registrar { registry: &self.registry };
        new.gauge("redis_up", "Whether the Redis of the rate limits answers.")
    }

    /// All metrics and `levels` in the Prometheus text format.
    ///
    /// # Errors
    ///
    /// A collector returned values that cannot be written.
    pub fn encode(&self, levels: &Levels) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(levels.families()?);
        let mut text = Vec::with_capacity(32 * 1024);
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

/// Counts one thing in a gauge until it is dropped.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The bounded set of values of the label `tenant`, in the order of first use.
#[derive(Debug)]
struct TenantLabels {
    known: Mutex<HashSet<String>>,
    most: usize,
}

impl TenantLabels {
    fn new(most: usize) -> Self {
        Self { known: Mutex::new(HashSet::new()), most }
    }

    /// The value for this tenant, and whether it is new.
    fn label<'a>(&self, tenant: &'a str) -> (&'a str, bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if tenant == NO_TENANT || known.contains(tenant) {
            return (tenant, false);
        }
        if known.len() >= self.most {
            return (OTHER_TENANTS, false);
        }
        known.insert(tenant.to_owned());
        (tenant, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(max_tenants: usize) -> Metrics {
        Metrics::new(&MetricsSettings { max_tenants }).unwrap()
    }

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.encode(&Levels::default()).unwrap()).unwrap()
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
        let series = text.lines().filter(|line| line.contains(r#"_refused_total{reason="rpm""#));
        assert_eq!(series.count(), 4);
        assert!(text.contains(r#"reason="rpm",tenant="other"} 99997"#));
    }

    #[test]
    fn what_an_alarm_counts_is_there_at_0_before_it_happens() {
        let metrics = metrics(1);
        metrics.expect_endpoint("beijing", &["ok", "throttled"]);
        metrics.expect_call("acme", "m");
        let text = text(&metrics);
        for series in [
            r#"refused_total{reason="store_unavailable",tenant="none"}"#,
            r#"refused_total{reason="unknown_connection",tenant="none"}"#,
            r#"refused_total{reason="overloaded",tenant="acme"}"#,
            r#"ledger_keeper_failures_total{step="write_off"}"#,
            r#"upstream_attempts_total{endpoint="beijing",outcome="throttled"}"#,
            r#"tokens_unverified_total{model="m",tenant="acme"}"#,
            r#"tokens_above_bound_total{model="m",tenant="acme"}"#,
            r#"bills_clamped_total{model="m",tenant="acme"}"#,
        ] {
            assert!(text.contains(&format!("ocr_gateway_{series} 0\n")), "{series} in {text}");
        }
    }

    #[test]
    fn the_process_and_the_build_are_described() {
        let text = text(&metrics(1));
        assert!(text.contains("ocr_gateway_build_info"));
        assert!(text.contains("process_resident_memory_bytes"));
    }
}
