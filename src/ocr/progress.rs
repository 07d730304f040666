//! What is read so far for a request whose work may go on after its caller's deadline, because others wait for the
//! same.
//!
//! The caller then gets what is read by its own deadline, and the others get the whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{fmt, mem};

use tokio_util::sync::CancellationToken;

use super::error::OcrError;
use super::facts::DocumentFacts;
use super::intake::Origin;
use super::result::{Page, PageOutcome};
use crate::capacity::account::HeldBytes;
use crate::catalog::Model;
use crate::dashscope::error::{CallError, CallFault};
use crate::metering::error::MeteringError;
use crate::metering::spend::Tally;

/// Other callers who wait for the answer to a request, or who will ask for it.
#[derive(Debug, Clone)]
pub struct Others {
    /// Until when one of them may wait.
    pub(super) until: Instant,
    /// What is read so far.
    pub(super) progress: Arc<Progress>,
}

/// The pages of a request that are read so far.
#[derive(Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    /// Cancelled once the pages are read for others too, by calls that may end after the deadline of the caller.
    pub(super) is_for_others: CancellationToken,
}

#[derive(Default)]
struct State {
    begun: Option<Begun>,
    /// Pages for which a further call is made. They are answered like this if there is no time for it.
    partly: BTreeMap<u32, Page>,
    read: PagesRead,
}

/// What became of the pages of a request.
#[derive(Default)]
pub(super) struct PagesRead {
    /// The pages, in their order.
    pub(super) pages: Vec<PageOutcome>,
    /// Figures of their calls.
    pub(super) tally: Tally,
    /// The memory of the pages of a document.
    pub(super) memory: Vec<Arc<HeldBytes>>,
    /// The pages that may be read again at the cap, if their fields are in doubt.
    pub(super) again: Vec<(u32, Origin)>,
}

/// A request whose pages are being read.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub(super) model: Arc<Model>,
    pub(super) document: DocumentFacts,
    pub(super) pages: Vec<u32>,
}

impl Others {
    /// Others who may wait until then.
    pub(super) fn until(until: Instant) -> Self {
        Self { until, progress: Arc::default() }
    }
}

impl Progress {
    /// Notes that these pages are read, for others too.
    pub(super) fn begin(&self, begun: Begun) {
        self.lock().begun = Some(begun);
        self.is_for_others.cancel();
    }

    /// Changes what is read.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut PagesRead) -> T) -> T {
        change(&mut self.lock().read)
    }

    /// Takes out what is read.
    pub(super) fn take(&self) -> PagesRead {
        mem::take(&mut self.lock().read)
    }

    /// Notes how a page is answered if there is no time for a further call.
    pub(super) fn partly(&self, page: Page) {
        self.lock().partly.insert(page.page, page);
    }

    /// Whether a page is read.
    pub(super) fn has_page(&self) -> bool {
        let state = self.lock();
        !state.partly.is_empty() || state.read.pages.iter().any(|page| page.done().is_some())
    }

    /// What is read so far. Pages that are not have an error. None if no page is read.
    pub(super) fn so_far(&self) -> Option<(Begun, PagesRead)> {
        let state = self.lock();
        let begun = state.begun.clone()?;
        let read = &state.read;
        let outcome = |number: &u32| {
            let known = read.pages.iter().find(|page| page.number() == *number).cloned();
            let partly = || state.partly.get(number).cloned().map(PageOutcome::Done);
            known.or_else(partly).unwrap_or_else(|| PageOutcome::failed(*number, out_of_time()))
        };
        let pages: Vec<_> = begun.pages.iter().map(outcome).collect();
        pages.iter().any(|page| page.done().is_some()).then(|| {
            let (tally, memory) = (read.tally.clone(), read.memory.clone());
            (begun, PagesRead { pages, tally, memory, again: Vec::new() })
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves the pages out.
impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

/// The error of what was not read by the caller's deadline.
pub(super) fn out_of_time() -> OcrError {
    MeteringError::from(CallError::from(CallFault::DeadlineExceeded)).into()
}
