//! The composition root: builds every part once, in the order of their dependencies.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::admission::watch::BudgetWatch;
use crate::auth::authenticator::Authenticator;
use crate::auth::directory::{Directory, DirectoryError};
use crate::auth::store::TenantStoreError;
use crate::auth::tenancy::Tenancy;
use crate::auth::tenant::TenantName;
use crate::calibration::heights::HeightFactors;
use crate::capacity::account::ByteAccount;
use crate::capacity::memory::MemoryLimit;
use crate::capacity::places::Places;
use crate::capacity::scratch::Scratch;
use crate::capacity::share::Shares;
use crate::capacity::{Capacity, CapacityError};
use crate::catalog::{Catalog, CatalogError, LeftOut};
use crate::clock::Clock;
use crate::dashscope::{Client, ClientError};
use crate::document::settings::{DocumentSettingsError, WorkerLimits};
use crate::document::workers::Workers;
use crate::dropin::Dropin;
use crate::extract::templates::Templates;
use crate::lease::instance::Instance;
use crate::ledger::{Ledger, LedgerStoreError};
use crate::metering::run::Metering;
use crate::ocr::Ocr;
use crate::ocr::audit::Auditor;
use crate::ocr::caching::{AnswerCache, CachingOcr};
use crate::ocr::intake::{Intake, PageLimits};
use crate::random::Random;
use crate::rate_limit::RateLimiter;
use crate::rate_limit::concurrency::Concurrency;
use crate::rate_limit::local::LocalRateLimiter;
use crate::rate_limit::shared::{RedisRateLimiter, TimeSource};
use crate::redis::cells::SharedCells;
use crate::redis::link::Link;
use crate::redis::settings::LinkError;
use crate::result_cache::ResultCache;
use crate::result_cache::settings::{CacheSettings, InvalidEncryptionKey};
use crate::settings::template_folder::TemplateFolderError;
use crate::settings::{ServerSettings, Settings};
use crate::store::Store;
use crate::supervisor::{Supervisor, TaskEnded};
use crate::telemetry::levels::{Level, Levels};
use crate::telemetry::metrics::Metrics;
use crate::units::Pixels;

/// The running service without its listeners.
#[derive(Debug)]
pub struct Gateway {
    /// Watches the tasks that must not end. It is dropped first, because they end with the other parts.
    pub supervisor: Supervisor,
    /// Finds the tenant of a key.
    pub authenticator: Arc<Authenticator>,
    /// Whether there are several tenants.
    pub tenancy: Tenancy,
    /// Requests and tokens a minute, by tenant.
    pub limiter: Arc<dyn RateLimiter>,
    /// Requests at once, by tenant.
    pub concurrency: Arc<Concurrency>,
    /// This process among the replicas.
    pub instance: Arc<Instance>,
    /// What tenants spent and may still spend.
    pub ledger: Ledger,
    /// The models and their prices.
    pub catalog: Arc<Catalog>,
    /// The templates for fields.
    pub templates: Arc<Templates>,
    /// The use cases of pages and fields.
    pub ocr: Arc<Ocr>,
    /// The same use cases behind the cache, except estimates.
    pub answers: Arc<CachingOcr>,
    /// The processes that read documents.
    pub workers: Arc<Workers>,
    /// The use case of the drop-in paths.
    pub dropin: Arc<Dropin>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
    /// Bounds of one request.
    pub bounds: RequestBounds,
    /// The limits of what is in flight.
    pub capacity: Capacity,
    /// The places of requests in flight.
    pub in_flight: Arc<Semaphore>,
    /// The share of each tenant of these places and of the bytes.
    pub shares: Arc<Shares>,
    /// The places of connections of the public listener.
    pub connections: Arc<Places>,
    /// The state of budgets, for the metrics.
    pub budgets: Arc<BudgetWatch>,
    /// Counts the bytes of uploads and of long answers in memory.
    pub memory: Arc<ByteAccount>,
    /// The same account, for work that takes much memory for a moment.
    pub scratch: Arc<Scratch>,
    /// The tasks that a stop waits for.
    pub tasks: TaskTracker,
    stop: StopProgress,
}

/// How far a stop has come.
#[derive(Debug, Default)]
struct StopProgress {
    draining: AtomicBool,
    closed: AtomicBool,
}

/// Bounds of one request.
#[derive(Debug, Clone, Copy)]
pub struct RequestBounds {
    /// Upload limit in bytes.
    pub body_bytes: u64,
    /// Longest silence while a body is read.
    pub body_idle: Duration,
    /// Longest upload.
    pub body_total: Duration,
    /// Longest request.
    pub request: Duration,
    /// Longest silence of a stream to a caller.
    pub stream_silence: Duration,
}

impl RequestBounds {
    const fn of(settings: &ServerSettings) -> Self {
        Self {
            body_bytes: settings.max_body_bytes,
            body_idle: settings.idle_timeout(),
            body_total: settings.body_timeout(),
            request: settings.request_timeout(),
            stream_silence: settings.stream_keep_alive(),
        }
    }
}

/// A gateway that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The limits of what is in flight contradict each other.
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    /// The section `[documents]`.
    #[error(transparent)]
    Documents(#[from] DocumentSettingsError),
    /// The models.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The operator's templates.
    #[error(transparent)]
    Templates(#[from] TemplateFolderError),
    /// The upstream.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The tenants.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The configuration allows a tenant a model that does not exist, or that has no price in the tenant's regions.
    #[error(
        "tenants.{tenant}.models: there is no model {model:?} with a price in the tenant's regions; \
         models: {known}"
    )]
    TenantModel {
        /// The tenant.
        tenant: TenantName,
        /// The model.
        model: String,
        /// The models with a price in its regions.
        known: String,
    },
    /// The configuration allows a tenant a region that has no endpoint.
    #[error("tenants.{tenant}.regions: no endpoint is in region {region:?}; regions: {known}")]
    TenantRegion {
        /// The tenant.
        tenant: TenantName,
        /// The region.
        region: String,
        /// The regions of the endpoints.
        known: String,
    },
    /// The Redis of the rate limits.
    #[error(transparent)]
    Redis(#[from] LinkError),
    /// The key that encrypts what is stored outside the process.
    #[error("storage.encryption_key: {0}")]
    EncryptionKey(#[from] InvalidEncryptionKey),
    /// The ledger.
    #[error("the ledger cannot be opened: {0}")]
    Ledger(#[from] LedgerStoreError),
    /// The metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl BuildError {
    /// Whether the cause may pass by itself: the database or Redis is away.
    pub const fn is_outage(&self) -> bool {
        match self {
            Self::Redis(error) => error.is_outage(),
            Self::Ledger(LedgerStoreError::Unavailable(_))
            | Self::Directory(DirectoryError::Store(TenantStoreError::Unavailable(_))) => true,
            _ => false,
        }
    }
}

/// Why the service should get no requests now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It was told to stop and finishes what it has.
    #[error("this replica is stopping")]
    Draining,
    /// A task that must run as long as the process has ended. The process ends too, to be started again.
    #[error("{0}; this replica ends, to be started again")]
    TaskEnded(#[from] TaskEnded),
    /// The database takes no commits: it is away, locked, full or read-only.
    #[error("the database takes no commits")]
    Database,
}

impl Gateway {
    /// Builds every part over an open store.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the setting that cannot work.
    pub async fn build(
        settings: &Settings,
        store: Store,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Arc<Self>, BuildError> {
        let base = Foundation::of(settings, clock, random)?;
        let worker_limits = base.worker_limits()?;
        let catalog = Arc::new(base.checked_catalog()?);
        let templates = Arc::new(settings.templates.load()?);
        let (limiter, link) = base.limiter().await?;
        let client = base.client(link.as_ref())?;
        let cache = base.answer_cache(link.as_ref())?;
        let directory = Arc::new(Directory::open(settings.tenants.clone(), store.tenants()).await?);
        let tenancy = Tenancy::open(Arc::clone(&directory), Arc::clone(&base.clock)).await;
        let tenancy = tenancy.map_err(DirectoryError::from)?;
        // This is the last step that may fail, because the ledger's tasks run from here on.
        let (instance, ledger) = base.ledger(&store).await?;
        tell(&catalog, &client, link.as_deref());
        let metering = base.metering(Arc::clone(&limiter), ledger.clone());
        let dropin = base.dropin(&catalog, &metering, &client);
        let workers = base.workers(worker_limits);
        let scratch = Arc::new(Scratch::new(Arc::clone(&base.memory)));
        let intake = intake(settings, &catalog, &workers);
        let ocr = base.ocr(&store, intake, metering, client, Arc::clone(&scratch)).await;
        let answers = base.caching(&ocr, cache);
        let budgets = base.budget_watch(&directory, &ledger, &catalog);
        let Foundation { capacity, clock, random, metrics, memory, tasks, supervisor, .. } = base;
        Ok(Arc::new(Self {
            authenticator: Arc::new(Authenticator::new(directory, Arc::clone(&clock))),
            shares: Arc::new(Shares::new(capacity.share, tenancy.had_several())),
            concurrency: Arc::default(),
            bounds: RequestBounds::of(&settings.server),
            in_flight: Arc::new(Semaphore::new(capacity.requests)),
            connections: Arc::new(Places::new(capacity.connections)),
            stop: StopProgress::default(),
            supervisor,
            tenancy,
            limiter,
            instance,
            ledger,
            catalog,
            templates,
            ocr,
            answers,
            workers,
            dropin,
            metrics,
            clock,
            random,
            capacity,
            budgets,
            memory,
            scratch,
            tasks,
        }))
    }

    /// Whether requests can be served. This spends nothing and does not ask the upstream.
    ///
    /// # Errors
    ///
    /// [`NotReady`] says why not.
    pub async fn ready(&self) -> Result<(), NotReady> {
        self.supervisor.check()?;
        if self.is_draining() {
            return Err(NotReady::Draining);
        }
        if self.ledger.takes_commits().await { Ok(()) } else { Err(NotReady::Database) }
    }

    /// What is in use, for a scrape, as the parts themselves count it.
    pub async fn levels(&self) -> Levels {
        let budgets = self.budgets.levels().await;
        let Capacity { bytes, requests, connections, .. } = self.capacity;
        let in_flight = requests.saturating_sub(self.in_flight.available_permits());
        let cache = self.answers.memory_use();
        Levels {
            cache_bytes: cache.bytes,
            cache_entries: cache.entries,
            in_flight_requests: Level { used: in_flight, limit: requests },
            in_flight_bytes_limit: bytes,
            connections: Level { used: self.connections.taken(), limit: connections },
            budgets,
        }
    }

    /// Whether the service was told to stop.
    pub fn is_draining(&self) -> bool {
        self.stop.draining.load(Ordering::Acquire)
    }

    /// Turns readiness off, so that soon no new requests are routed here. Requests that still come are served.
    pub fn drain(&self) {
        self.stop.draining.store(true, Ordering::Release);
    }

    /// Whether new requests are refused.
    pub fn is_closed(&self) -> bool {
        self.stop.closed.load(Ordering::Acquire)
    }

    /// Refuses new requests from now on.
    pub fn close(&self) {
        self.stop.closed.store(true, Ordering::Release);
        self.ocr.stop_audits();
    }
}

/// Refuses settings that cannot work. This needs neither the database nor Redis, so a start with wrong settings fails
/// at once instead of waiting for them.
///
/// # Errors
///
/// [`BuildError`] names the setting.
pub fn check(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<(), BuildError> {
    let base = Foundation::of(settings, clock, random)?;
    base.checked_catalog()?;
    settings.templates.load()?;
    base.worker_limits()?;
    base.client(None)?;
    Ok(())
}

/// The limits of what is in flight, from the settings and the memory of this process.
///
/// # Errors
///
/// [`CapacityError`] names the settings that contradict each other.
pub fn capacity(settings: &Settings) -> Result<Capacity, CapacityError> {
    Capacity::of(&settings.wanted_capacity(), MemoryLimit::read(Path::new("/")).as_ref())
}

/// What estimates need, for a command without a service.
///
/// # Errors
///
/// [`BuildError`] names the setting that cannot work.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn estimator(settings: &Settings) -> Result<Intake, BuildError> {
    let capacity = capacity(settings)?;
    let limits = settings.documents.limits(capacity.bytes, settings.server.max_body_bytes)?;
    let metrics = Arc::new(Metrics::new(&settings.metrics)?);
    let memory = account(capacity, &metrics);
    let workers = Workers::new(limits, memory, metrics, TaskTracker::new());
    Ok(intake(settings, &Arc::new(catalog(settings)?), &workers))
}

/// Takes documents in within the limits of the settings.
fn intake(settings: &Settings, catalog: &Arc<Catalog>, workers: &Arc<Workers>) -> Intake {
    let limits = PageLimits {
        pages: settings.documents.max_pages,
        at_once: settings.documents.pages_at_once,
        pixels: Pixels::new(settings.documents.max_page_pixels),
    };
    Intake::new(Arc::clone(catalog), Arc::clone(workers), limits, settings.auto)
        .of_attempts(settings.upstream.max_attempts)
}

/// The account of the bytes of uploads and long answers, with its gauge.
fn account(capacity: Capacity, metrics: &Metrics) -> Arc<ByteAccount> {
    Arc::new(ByteAccount::new(capacity.bytes, metrics.in_flight_bytes().clone()))
}

/// The parts that nearly all others are built on.
struct Foundation<'a> {
    settings: &'a Settings,
    capacity: Capacity,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
    memory: Arc<ByteAccount>,
    tasks: TaskTracker,
    supervisor: Supervisor,
}

impl<'a> Foundation<'a> {
    fn of(
        settings: &'a Settings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, BuildError> {
        let capacity = capacity(settings)?;
        let metrics = Arc::new(Metrics::new(&settings.metrics)?);
        let memory = account(capacity, &metrics);
        let (tasks, supervisor) = (TaskTracker::new(), Supervisor::default());
        Ok(Self { settings, capacity, clock, random, metrics, memory, tasks, supervisor })
    }

    /// The limits of the processes that read documents.
    fn worker_limits(&self) -> Result<WorkerLimits, DocumentSettingsError> {
        let Settings { documents, server, .. } = self.settings;
        documents.limits(self.capacity.bytes, server.max_body_bytes)
    }

    /// The catalog, checked against the tenants of the settings, with its models in the metrics.
    fn checked_catalog(&self) -> Result<Catalog, BuildError> {
        let catalog = catalog(self.settings)?;
        // Metrics count known models by name.
        catalog.names().for_each(|model| self.metrics.expect_model(model));
        check_tenants(self.settings, &catalog)?;
        Ok(catalog)
    }

    /// The limiter of requests and tokens a minute, which counts in this process or over a link to the Redis of the
    /// settings. The link is given back too, because the replicas share more than limits.
    async fn limiter(&self) -> Result<(Arc<dyn RateLimiter>, Option<Arc<Link>>), BuildError> {
        let shared = &self.settings.redis;
        let (clock, tasks) = (Arc::clone(&self.clock), self.tasks.clone());
        if !shared.is_configured() {
            return Ok((Arc::new(LocalRateLimiter::new(clock)), None));
        }
        let up = self.metrics.redis_up()?;
        let link = Link::connect(shared, RedisRateLimiter::probe, up, &self.supervisor).await?;
        let link = Arc::new(link);
        let limiter = RedisRateLimiter::new(Arc::clone(&link), TimeSource::Server, clock, tasks);
        Ok((Arc::new(limiter), Some(link)))
    }

    /// The client of the upstream. Replicas share what they learn of it over the link.
    fn client(&self, link: Option<&Arc<Link>>) -> Result<Arc<Client>, ClientError> {
        let client = Client::new(
            &self.settings.upstream,
            link.cloned().map(|link| link as Arc<dyn SharedCells>),
            Arc::clone(&self.memory),
            Arc::clone(&self.metrics),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )?;
        Ok(Arc::new(client))
    }

    /// The cache of answers, with the task that removes expired ones.
    fn answer_cache(
        &self,
        link: Option<&Arc<Link>>,
    ) -> Result<Arc<AnswerCache>, InvalidEncryptionKey> {
        let in_memory = CacheSettings { memory_bytes: self.capacity.cache };
        let shared = link.cloned().zip(self.settings.storage.key()?);
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        let cache = ResultCache::new(in_memory, shared, clock, random);
        self.supervisor.spawn("result cache", cache.tidying());
        Ok(Arc::new(cache))
    }

    /// The ledger, and the instance that holds its entries, with their tasks.
    async fn ledger(&self, store: &Store) -> Result<(Arc<Instance>, Ledger), LedgerStoreError> {
        let Self { settings, clock, random, metrics, supervisor, .. } = self;
        let (settings, parts) =
            (&settings.ledger, || (clock.clone(), random.clone(), metrics.clone()));
        let (own_clock, chance, shown) = parts();
        let lease = settings.lease();
        let instance =
            Instance::open(store.leases(), lease, own_clock, chance, shown, supervisor).await?;
        let (own_clock, chance, shown) = parts();
        let holder = Arc::clone(&instance);
        let ledger =
            Ledger::open(store.ledger(), holder, settings, own_clock, chance, shown, supervisor);
        Ok((instance, ledger))
    }

    /// What admits and counts the calls of all use cases.
    fn metering(&self, limiter: Arc<dyn RateLimiter>, ledger: Ledger) -> Metering {
        let (clock, metrics) = (Arc::clone(&self.clock), Arc::clone(&self.metrics));
        let admission = Admission::new(limiter, ledger, clock, Arc::clone(&metrics));
        Metering::new(admission, metrics, self.tasks.clone())
    }

    /// The use case of the drop-in paths.
    fn dropin(
        &self,
        catalog: &Arc<Catalog>,
        metering: &Metering,
        client: &Arc<Client>,
    ) -> Arc<Dropin> {
        Arc::new(Dropin::new(
            Arc::clone(catalog),
            metering.clone(),
            Arc::clone(client),
            Arc::clone(&self.metrics),
            Arc::clone(&self.memory),
        ))
    }

    /// The processes that read documents, with the task that ends idle ones.
    fn workers(&self, limits: WorkerLimits) -> Arc<Workers> {
        let (memory, metrics) = (Arc::clone(&self.memory), Arc::clone(&self.metrics));
        let workers = Workers::new(limits, memory, metrics, self.tasks.clone());
        self.supervisor.spawn("document workers", Workers::end_idle(Arc::downgrade(&workers)));
        workers
    }

    /// The use cases of pages and fields. The heights of their text are raised by what audits teach.
    async fn ocr(
        &self,
        store: &Store,
        intake: Intake,
        metering: Metering,
        client: Arc<Client>,
        scratch: Arc<Scratch>,
    ) -> Arc<Ocr> {
        let metrics = || Arc::clone(&self.metrics);
        let factors = HeightFactors::open(store.heights(), metrics(), &self.supervisor).await;
        let auditor = Auditor::new(Arc::clone(&factors), metrics(), Arc::clone(&self.random));
        let (intake, clock) = (intake.raised_by(factors), Arc::clone(&self.clock));
        Arc::new(Ocr::new(intake, metering, client, scratch, clock, auditor))
    }

    /// The use cases of pages and fields behind the cache.
    fn caching(&self, ocr: &Arc<Ocr>, cache: Arc<AnswerCache>) -> Arc<CachingOcr> {
        let Settings { answer_digest, server, .. } = self.settings;
        let (ocr, memory) = (Arc::clone(ocr), Arc::clone(&self.memory));
        Arc::new(CachingOcr::new(ocr, cache, memory, *answer_digest, server.request_timeout()))
    }

    /// The reader of budgets for the metrics, with its task.
    fn budget_watch(
        &self,
        directory: &Arc<Directory>,
        ledger: &Ledger,
        catalog: &Arc<Catalog>,
    ) -> Arc<BudgetWatch> {
        let watch = Arc::new(BudgetWatch::new(
            Arc::clone(directory),
            ledger.clone(),
            Arc::clone(catalog),
            Arc::clone(&self.clock),
            self.settings.metrics.max_tenants,
        ));
        self.supervisor.spawn("budget watch", Arc::clone(&watch).read_when_wanted());
        watch
    }
}

/// Logs what an operator should know of a service that starts. It comes after all steps that may fail, because a
/// start that waits builds the parts anew each second.
fn tell(catalog: &Catalog, client: &Client, link: Option<&Link>) {
    warn_of_currencies(catalog);
    for (endpoint, way) in client.ways() {
        tracing::info!(endpoint, proxy = way, "the endpoint is asked {way}");
    }
    if let Some(link) = link {
        link.log_if_away();
    }
}

/// The models that can be called, from the settings of models and of endpoints.
///
/// # Errors
///
/// [`CatalogError`], as [`Catalog::new`].
pub fn catalog(settings: &Settings) -> Result<Catalog, CatalogError> {
    let upstream = &settings.upstream;
    let catalog = Catalog::new(&settings.models, upstream.outlets(), &upstream.model)?;
    catalog.with_aliases(&settings.mistral)
}

/// Logs each endpoint that never serves tenants without regions of their own, because it is paid in another currency
/// than the endpoints before it.
fn warn_of_currencies(catalog: &Catalog) {
    for LeftOut { model, endpoint, region, currency, sold_in } in catalog.left_out() {
        tracing::warn!(
            model,
            endpoint,
            region,
            currency = currency.code(),
            sold_in = sold_in.code(),
            "an endpoint is used only for tenants whose regions are all paid in its currency: give \
             tenants `regions`, or the model's prices one currency"
        );
    }
}

/// Refuses a tenant of the settings whose models or regions are not in the catalog. Each of its requests would be
/// refused, so the start fails instead.
///
/// # Errors
///
/// [`BuildError::TenantRegion`] and [`BuildError::TenantModel`] for the first.
pub fn check_tenants(settings: &Settings, catalog: &Catalog) -> Result<(), BuildError> {
    let regions = catalog.regions();
    for (tenant, section) in &settings.tenants {
        let tenant = tenant.clone();
        if let Some(region) = section.regions.iter().find(|region| !regions.contains(&***region)) {
            let known = regions.into_iter().collect::<Vec<_>>().join(", ");
            return Err(BuildError::TenantRegion { tenant, region: region.clone(), known });
        }
        let sold: Vec<_> = catalog.sold_in(&section.regions).collect();
        let is_sold = |name: &String| sold.iter().any(|model| model.name == *name);
        if let Some(model) = section.models.iter().find(|model| !is_sold(model)) {
            let known: Vec<_> = sold.iter().map(|model| model.name.as_str()).collect();
            let (model, known) = (model.clone(), known.join(", "));
            return Err(BuildError::TenantModel { tenant, model, known });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// What the settings say of the tenants in them, with endpoints in two regions.
    fn checked(tenant: &str) -> Result<(), BuildError> {
        use std::io::Write;
        let endpoint = |name: &str, region: &str| {
            format!(
                "[[upstream.endpoints]]\nname = \"{name}\"\nregion = \"{region}\"\n\
                 base_url = \"https://a\"\n"
            )
        };
        let pool = [endpoint("cn", "beijing"), endpoint("us", "virginia")].concat();
        let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        write!(file, "{pool}[tenants.acme]\n{tenant}\n").unwrap();
        let settings = Settings::load_with(Some(file.path()), HashMap::new()).unwrap();
        check_tenants(&settings, &catalog(&settings).unwrap())
    }

    #[test]
    fn a_tenant_in_a_file_may_name_what_endpoints_sell_in_its_regions() {
        assert!(checked("").is_ok());
        assert!(checked("models = [\"qwen3.5-ocr\"]\nregions = [\"beijing\"]").is_ok());
        assert!(checked("regions = [\"virginia\", \"beijing\"]").is_ok());
    }

    #[test]
    fn a_tenant_in_a_file_with_a_region_that_no_endpoint_is_in_is_an_error_that_names_the_key() {
        let error = checked("regions = [\"beijing\", \"mars\"]").unwrap_err().to_string();
        assert!(
            error.starts_with("tenants.acme.regions: no endpoint is in region \"mars\""),
            "{error}"
        );
        assert!(error.ends_with("regions: beijing, virginia"), "{error}");
    }

    #[test]
    fn a_tenant_in_a_file_with_a_model_that_is_not_sold_in_its_regions_is_an_error_that_names_the_key()
     {
        let wrong = "models = [\"qwen3.5-ocr\"]\nregions = [\"virginia\"]";
        let error = checked(wrong).unwrap_err().to_string();
        assert!(error.starts_with("tenants.acme.models: there is no model"), "{error}");
        assert!(error.contains("qwen-vl-ocr") && !error.contains("latest"), "{error}");
    }
}
