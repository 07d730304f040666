//! The state that all requests of one emulator share, and its routes.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::engine::Engine;
use crate::error::Refusal;
use crate::exchange::{self, Protocol};
use crate::identifier::Identifiers;
use crate::options::Options;
use crate::throttle::Throttle;
use crate::world::World;
use crate::{clock, compatible, control, native, request, uploads};

/// What the requests of one emulator share.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) world: Arc<World>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) latency: Duration,
    pub(crate) stream_interval: Duration,
    pub(crate) identifiers: Identifiers,
    /// Bounds the images that are decoded at one time, since each may take a lot of memory.
    pub(crate) decoders: Semaphore,
    api_keys: Vec<String>,
    throttle: Mutex<Throttle>,
    /// Inferences under way. Each holds the service, so they outlive their callers and a stop.
    inferences: Mutex<JoinSet<()>>,
}

impl Service {
    /// A service as `options` say.
    pub(crate) fn new(options: &Options, engine: Arc<dyn Engine>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            world: Arc::new(World::new(options.keep_bodies)),
            engine,
            latency: options.latency,
            stream_interval: options.stream_interval,
            throttle: Mutex::new(Throttle::new(options.rpm, options.tpm)),
            identifiers: Identifiers::default(),
            decoders: Semaphore::new(cores),
            api_keys: options.api_keys.clone(),
            inferences: Mutex::default(),
        }
    }

    /// Judges the API key of a call.
    ///
    /// # Errors
    ///
    /// The refusal of a key that is missing or not among those accepted.
    pub(crate) fn authenticate(&self, key: Option<&str>) -> Result<(), Refusal> {
        let invalid = || Refusal::of_code("InvalidApiKey");
        let key = key.ok_or_else(|| invalid().with_message("No API-key provided."))?;
        let accepted = self.api_keys.is_empty() || self.api_keys.iter().any(|known| known == key);
        accepted.then_some(()).ok_or_else(invalid)
    }

    /// The counts of requests and tokens.
    pub(crate) fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work that goes on when its caller hangs up: a model that has begun is not stopped, and is
    /// billed. None where the runtime ends before it is done.
    pub(crate) async fn run_to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut inferences = self.inferences.lock().unwrap_or_else(PoisonError::into_inner);
            while inferences.try_join_next().is_some() {}
            inferences.spawn(async move {
                // A caller that hung up does not want it any more.
                let _ = sender.send(work.await);
            });
        }
        receiver.await.ok()
    }
}

/// All routes of an emulator.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let chat = |State(service): State<Arc<Service>>, request: Request| {
        exchange::answer(service, Protocol::Compatible, request)
    };
    let generation = |State(service): State<Arc<Service>>, request: Request| {
        exchange::answer(service, Protocol::Native, request)
    };
    Router::new()
        .route("/compatible-mode/v1/chat/completions", post(chat))
        .route("/compatible-mode/v1/models", get(models))
        .route("/api/v1/services/aigc/multimodal-generation/generation", post(generation))
        .merge(uploads::routes())
        .merge(control::routes())
        .fallback(unknown_path)
        .with_state(service)
}

async fn models(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let request_id = service.identifiers.next();
    match service.authenticate(request::api_key(&headers)) {
        Ok(()) => axum::Json(compatible::models(created())).into_response(),
        Err(refusal) => exchange::plain(refusal.status, &compatible::error(&refusal, &request_id)),
    }
}

/// A path that no endpoint has. Under the native prefix the service answers a complaint about the URL.
async fn unknown_path(State(service): State<Arc<Service>>, request: Request) -> Response {
    let request_id = service.identifiers.next();
    if request.uri().path().starts_with("/api/v1/services/") {
        let refusal = Refusal::invalid_parameter("url error, please check url！");
        return exchange::plain(refusal.status, &native::error(&refusal, &request_id));
    }
    let refusal = Refusal::of_code("NotFound");
    exchange::plain(refusal.status, &compatible::error(&refusal, &request_id))
}

/// Seconds since 1970, for `created`.
pub(crate) fn created() -> u64 {
    u64::try_from(clock::unix_millis() / 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::EngineChoice;

    #[tokio::test]
    async fn work_goes_on_when_its_caller_hangs_up() {
        let options =
            Options { engine: EngineChoice::Scripted(String::new()), ..Options::default() };
        let engine = crate::engine::open(&options.engine).await.unwrap();
        let service = Service::new(&options, engine);
        let ((start, started), (finish, finished)) = (oneshot::channel(), oneshot::channel());
        let work = async move {
            started.await.unwrap();
            finish.send("done").unwrap();
        };
        {
            let mut caller = Box::pin(service.run_to_its_end(work));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(caller.as_mut().poll(&mut context).is_pending());
        }
        start.send(()).unwrap();
        assert_eq!(finished.await, Ok("done"));
    }
}
