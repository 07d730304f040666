//! The state that all requests of one emulator share.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::engine::Engine;
use crate::error::Refusal;
use crate::identifier::Identifiers;
use crate::options::Options;
use crate::throttle::Throttle;
use crate::world::World;

/// The state shared by the requests of one emulator.
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
    /// Inferences in progress. Each holds the service, so they outlive their callers and a stop.
    inferences: Mutex<JoinSet<()>>,
}

impl Service {
    /// A service with these options.
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

    /// Checks the API key of a call.
    ///
    /// # Errors
    ///
    /// The refusal of a key that is missing or not accepted.
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

    /// Runs work that continues when its caller disconnects: a model that has begun is not stopped, and is billed.
    /// `None` if the runtime ends before the work is done.
    pub(crate) async fn run_to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut inferences = self.inferences.lock().unwrap_or_else(PoisonError::into_inner);
            while inferences.try_join_next().is_some() {}
            inferences.spawn(async move {
                // The caller has disconnected and no longer needs the result.
                let _ = sender.send(work.await);
            });
        }
        receiver.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::EngineChoice;

    #[tokio::test]
    async fn work_goes_on_when_its_caller_hangs_up() {
        let options =
            Options { engine: EngineChoice::Scripted(String::new()), ..Options::default() };
        let engine = crate::engine::choice::open(&options.engine).await.unwrap();
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
