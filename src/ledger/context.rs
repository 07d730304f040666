//! The state that the parts of a process's ledger share.

use std::sync::Arc;

use super::commits::Commits;
use super::store::LedgerStore;
use super::window::Calendar;
use crate::clock::Clock;
use crate::lease::instance::Instance;
use crate::random::Random;
use crate::telemetry::metrics::Metrics;

/// The state that the parts of a process's ledger share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) store: Arc<dyn LedgerStore>,
    /// The instance that holds the entries of this process.
    pub(super) instance: Arc<Instance>,
    pub(super) commits: Arc<Commits>,
    pub(super) calendar: Calendar,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) metrics: Arc<Metrics>,
}
