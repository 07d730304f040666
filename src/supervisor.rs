//! Tasks that must run for as long as the process does.
//!
//! The ledger's writer, for one: without it every request is refused, and nothing else in the process
//! would notice. A task that ends here, by a panic or by itself, is logged with its name and makes the
//! process not ready; the server then drains and the process ends with an error, so that whoever runs
//! it starts it again. A task is not started again by itself: what it held when it panicked is lost,
//! and a new process finds the truth in the database.
//!
//! Tasks of single requests are not supervised: each tells its own caller of its panic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Watches tasks. Dropped, it watches no more: what runs for a service ends with it.
#[derive(Debug, Default)]
pub struct Supervisor {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The first task that ended.
    ended: OnceLock<&'static str>,
    /// Cancelled once there is one.
    has_ended: CancellationToken,
    /// Whether tasks may end.
    is_off_duty: AtomicBool,
}

/// A task has ended that must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the background task {0:?} has ended, without which nothing can be served")]
pub struct TaskEnded(&'static str);

/// Held by a task or thread for as long as it runs; dropped, it tells that it has ended.
#[derive(Debug)]
pub struct Watch {
    name: &'static str,
    state: Arc<State>,
}

impl Supervisor {
    /// Runs `work`, which must not end, as a task of this name on the current runtime.
    pub fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let watch = self.watch(name);
        TaskTracker::new().spawn(async move {
            // Dropped with the future, also where that panics.
            let _watch = watch;
            work.await;
        })
    }

    /// Watches something that is not a task of the current runtime.
    pub fn watch(&self, name: &'static str) -> Watch {
        Watch { name, state: Arc::clone(&self.state) }
    }

    /// Whether all tasks run.
    ///
    /// # Errors
    ///
    /// [`TaskEnded`] names the first that does not.
    pub fn check(&self) -> Result<(), TaskEnded> {
        self.state.ended.get().map_or(Ok(()), |name| Err(TaskEnded(name)))
    }

    /// Ready when a task has ended.
    pub fn one_ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.state.has_ended.clone().cancelled_owned()
    }

    /// Lets tasks end from now on, because the service ends.
    pub fn let_end(&self) {
        self.state.is_off_duty.store(true, Ordering::Release);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.let_end();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.state.is_off_duty.load(Ordering::Acquire) {
            return;
        }
        tracing::error!(
            task = self.name,
            panicked = std::thread::panicking(),
            "a background task has ended: this process serves no more and ends"
        );
        // The first one is told of; it may be why the others end.
        let _ = self.state.ended.set(self.name);
        self.state.has_ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let supervisor = Supervisor::default();
        supervisor.spawn("runs", std::future::pending());
        assert_eq!(supervisor.check(), Ok(()));
        supervisor.spawn("panics", async { panic!("as the test wants") });
        supervisor.one_ended().await;
        assert_eq!(supervisor.check(), Err(TaskEnded("panics")));
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_named() {
        let supervisor = Supervisor::default();
        supervisor.spawn("ends", async {});
        supervisor.one_ended().await;
        assert!(supervisor.check().unwrap_err().to_string().contains("\"ends\""));
    }

    #[test]
    fn a_thread_that_panics_is_named() {
        let supervisor = Supervisor::default();
        let watch = supervisor.watch("thread");
        let panicked = std::thread::spawn(move || {
            let _watch = watch;
            panic!("as the test wants");
        });
        assert!(panicked.join().is_err());
        assert_eq!(supervisor.check(), Err(TaskEnded("thread")));
    }

    #[test]
    fn what_ends_with_the_service_is_no_failure() {
        let supervisor = Supervisor::default();
        let (watch, late) = (supervisor.watch("first"), supervisor.watch("late"));
        supervisor.let_end();
        drop(watch);
        assert_eq!(supervisor.check(), Ok(()));
        let ended = supervisor.one_ended();
        drop((supervisor, late));
        assert!(futures_util::FutureExt::now_or_never(ended).is_none());
    }
}
