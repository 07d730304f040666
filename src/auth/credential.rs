//! The data that a presented key is checked against.

use std::sync::Arc;

use jiff::Timestamp;

use super::key::{KeyHash, KeyState};
use super::tenant::Tenant;

/// The data that a presented key is checked against, for tenants of the file and of the database.
#[derive(Debug)]
pub struct Credential {
    /// The hash of the key.
    pub(super) hash: KeyHash,
    /// The tenant that pays.
    pub(super) tenant: Arc<Tenant>,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl Credential {
    /// Why the key is not valid at `now`; none if it is.
    pub(super) fn lapse(&self, now: Timestamp) -> Option<Lapse> {
        match KeyState::of(self.expires_at, self.revoked_at, now) {
            KeyState::Revoked => Some(Lapse::Revoked),
            KeyState::Expired => Some(Lapse::Expired),
            KeyState::Active => self.tenant.disabled.then_some(Lapse::TenantDisabled),
        }
    }

    /// The credential of a key of `tenant` with the hash `hash`.
    pub(super) const fn new(
        hash: KeyHash,
        tenant: Arc<Tenant>,
        expires_at: Option<Timestamp>,
        revoked_at: Option<Timestamp>,
    ) -> Self {
        Self { hash, tenant, expires_at, revoked_at }
    }

    #[cfg(test)]
    pub(super) fn of_nobody() -> Self {
        let tenant = Arc::new(Tenant::new("nobody".parse().unwrap()));
        Self { hash: KeyHash::OF_NOBODY, tenant, expires_at: None, revoked_at: None }
    }
}

/// Why a key is no longer valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// It was revoked.
    Revoked,
    /// It has expired.
    Expired,
    /// Its tenant was disabled.
    TenantDisabled,
}
