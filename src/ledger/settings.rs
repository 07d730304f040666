//! The section `[ledger]`.

use std::time::Duration;

use serde::Deserialize;

use super::window::Calendar;

/// The section `[ledger]`. `config/default.toml` has the meaning and default of each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerSettings {
    /// The time without a heartbeat after which the open calls of a replica are written off.
    pub lease_ms: u64,
    /// The number of days for which the entries of single calls are kept.
    pub retention_days: u32,
    /// The time zone of the budgets' days and months.
    pub time_zone: Calendar,
}

impl LedgerSettings {
    /// The lease as a duration.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}
