//! Tasks that must run as long as the process.
//!
//! An example is the ledger's writer: without it every request is refused, and nothing else in the process would
//! notice. A supervised task that ends, by a panic or by itself, is logged with its name and makes the process not
//! ready. The server then drains, and the process ends with an error, so that its manager restarts it. The task itself
//! is not restarted: its state was lost with the panic, and a new process reads the true state from the database.
//!
//! Tasks of single requests are not supervised: each reports a panic to its own caller.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Watches tasks until it is dropped.
#[derive(Debug, Default)]
pub struct Supervisor {
    state: Arc<SupervisorState>,
}

#[derive(Debug, Default)]
struct SupervisorState {
    /// The first task that ended.
    ended: OnceLock<&'static str>,
    /// Cancelled when the first task ends.
    has_ended: CancellationToken,
    /// Whether tasks may end.
    may_end: AtomicBool,
}

/// A supervised task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the background task {0:?} has ended, without which nothing can be served")]
pub struct TaskEnded(&'static str);

/// Held by a supervised task or thread while it runs. Its drop reports the end.
#[derive(Debug)]
pub struct TaskGuard {
    name: &'static str,
    state: Arc<SupervisorState>,
}

impl Supervisor {
    /// Runs `work`, which must not end, as a task named `name` on the current runtime.
    pub fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let guard = self.watch(name);
        TaskTracker::new().spawn(async move {
            // Dropped with the future, also by a panic.
            let _guard = guard;
            work.await;
        })
    }

    /// Watches a thread, or anything else that holds the guard.
    pub fn watch(&self, name: &'static str) -> TaskGuard {
        TaskGuard { name, state: Arc::clone(&self.state) }
    }

    /// Checks that all tasks run.
    ///
    /// # Errors
    ///
    /// [`TaskEnded`] names the first task that ended.
    pub fn check(&self) -> Result<(), TaskEnded> {
        self.state.ended.get().map_or(Ok(()), |name| Err(TaskEnded(name)))
    }

    /// Completes when a task has ended.
    pub fn one_ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.state.has_ended.clone().cancelled_owned()
    }

    /// Allows tasks to end, because the service ends.
    pub fn let_end(&self) {
        self.state.may_end.store(true, Ordering::Release);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.let_end();
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        if self.state.may_end.load(Ordering::Acquire) {
            return;
        }
        tracing::error!(
            task = self.name,
            panicked = std::thread::panicking(),
            "a background task has ended: this process serves no more and ends"
        );
        // Only the first is kept: it may be the cause of the others.
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
