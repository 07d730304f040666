//! The section `[ledger]`.

use std::time::Duration;

use serde::Deserialize;

use super::window::Calendar;

/// The section `[ledger]`. Each key's meaning and default stand in `config/default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerSettings {
    /// After which silence of a replica its open calls are written off.
    pub lease_ms: u64,
    /// For how many days the entries of single calls are kept.
    pub retention_days: u32,
    /// The time zone whose days and months budgets are given for.
    pub time_zone: Calendar,
}

impl LedgerSettings {
    /// The lease as a duration.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}
