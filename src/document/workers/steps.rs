//! The steps of a leased worker: it opens the document and does what it is asked.
//!
//! The process is killed if the caller leaves in the middle of a step, and is idle again otherwise.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Idle, Lease, Open, Step};
use crate::document::error::DocumentError;
use crate::document::process::{Lost, in_time, verdict_of_late};
use crate::document::wire::{Reply, Request};
use crate::telemetry::metrics::WorkerEnd;

impl Lease {
    /// Opens the document in the process if it is not, and has a step done if there is one. A process that ends by
    /// accident is replaced once: the kernel's OOM killer or a person may have ended it.
    pub(super) async fn ask(
        &mut self,
        step: Option<Step<'_>>,
        until: Instant,
    ) -> Result<Option<(Reply, Bytes)>, DocumentError> {
        let mut is_repeated = false;
        loop {
            match self.attempt(step, until).await {
                Ok(answer) => return Ok(answer),
                Err(Lost::Accident) if !is_repeated => is_repeated = true,
                Err(Lost::Document(error)) => return Err(error),
                Err(Lost::Busy | Lost::Late(_)) => return Err(DocumentError::Busy),
                Err(Lost::Accident | Lost::Malformed) => return Err(DocumentError::Interrupted),
            }
        }
    }

    async fn attempt(
        &mut self,
        step: Option<Step<'_>>,
        until: Instant,
    ) -> Result<Option<(Reply, Bytes)>, Lost> {
        if self.process.is_none() {
            let process = self.document.workers.start_process().await;
            self.process = Some(process.map_err(Lost::Document)?);
        }
        if self.open != Some(self.document.number) {
            self.open = None;
            let (request, file) =
                (Request::Open { kind: self.document.kind }, self.document.file.clone());
            let opening = Step { request, payload: &file, most: 0 };
            let (Reply::Opened { pages }, _) = self.step(opening, until).await? else {
                self.malformed();
                return Err(Lost::Malformed);
            };
            self.open = Some(self.document.number);
            let _ = self.document.pages.set(pages);
        }
        let Some(step) = step else { return Ok(None) };
        self.step(step, until).await.map(Some)
    }

    async fn step(
        &mut self,
        Step { request, payload, most }: Step<'_>,
        until: Instant,
    ) -> Result<(Reply, Bytes), Lost> {
        let workers = Arc::clone(&self.document.workers);
        let Some(process) = &mut self.process else { return Err(Lost::Accident) };
        let computed_before = process.cpu_time();
        self.is_busy = true;
        let asked = in_time(process.ask(&request, payload, most), workers.limits.step, until).await;
        self.is_busy = false;
        let failed = match asked {
            Ok(Ok((Reply::Failed(error), _))) if error.is_short() => {
                return Err(Lost::Document(error));
            }
            Ok(Ok((Reply::Failed(_), _))) => {
                self.malformed();
                return Err(Lost::Malformed);
            }
            Ok(Ok(answer)) => return Ok(answer),
            failed => failed,
        };
        self.open = None;
        let Some(process) = self.process.take() else { return Err(Lost::Accident) };
        let lost = match failed {
            Ok(Err(failure)) => {
                Err(process.cause_of_failure(&failure, self.document.kind, &workers.limits).await)
            }
            Err(Lost::Late(waited)) => {
                let computed = process.cpu_time().saturating_sub(computed_before);
                process.kill(WorkerEnd::Time).await;
                Err(verdict_of_late(waited, computed, &workers.limits))
            }
            Err(lost) => {
                process.kill(WorkerEnd::Abandoned).await;
                Err(lost)
            }
            Ok(Ok(_)) => Err(Lost::Accident),
        };
        if let Err(Lost::Document(error)) = &lost {
            self.document.lost_worker(&request, error);
        }
        lost
    }

    /// Ends a process that answers what no worker answers.
    pub(super) fn malformed(&mut self) -> DocumentError {
        self.open = None;
        if let Some(process) = self.process.take() {
            tracing::error!("a document worker gave an answer that no worker gives: it is ended");
            self.document.workers.finish(process.kill(WorkerEnd::Malformed));
        }
        DocumentError::Interrupted
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let workers = Arc::clone(&self.document.workers);
        let Some(process) = self.process.take() else { return };
        let all = self.memory.bytes();
        let (memory, place) = (self.memory.split(all), self.place.take());
        if self.is_busy {
            workers.finish(async move {
                process.kill(WorkerEnd::Abandoned).await;
                drop((memory, place));
            });
            return;
        }
        if let Some(document) = self.open {
            let mut idle = workers.idle();
            // Under the lock: either this sees that somebody waits, or who waits finds the process.
            if !workers.account.is_waited_for() {
                let open = Some(Open { document, memory });
                idle.push(Idle { process, open, since: Instant::now() });
                return;
            }
        }
        let own = Arc::clone(&workers);
        workers.finish(async move {
            own.forget_and_keep(process, Some(memory)).await;
            drop(place);
        });
    }
}
