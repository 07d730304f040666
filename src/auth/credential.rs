//! What a presented key is judged by.

use std::sync::Arc;

use jiff::Timestamp;

use super::key::{KeyHash, KeyState};
use super::tenant::Tenant;

/// What a presented key is judged by, whether its tenant is in a file or in the database.
#[derive(Debug)]
pub struct Credential {
    /// What the presented key is compared with.
    pub(super) hash: KeyHash,
    /// Who pays.
    pub(super) tenant: Arc<Tenant>,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl Credential {
    /// Why the key may not be used at `now`; none where it may.
    pub(super) fn lapse(&self, now: Timestamp) -> Option<Lapse> {
        match KeyState::of(self.expires_at, self.revoked_at, now) {
            KeyState::Revoked => Some(Lapse::Revoked),
            KeyState::Expired => Some(Lapse::Expired),
            KeyState::Active => self.tenant.disabled.then_some(Lapse::TenantDisabled),
        }
    }

    /// That of a key with the hash `hash`, which is charged to `tenant`.
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

/// Why a key that was good is good no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// It was taken back.
    Revoked,
    /// Its date has passed.
    Expired,
    /// Its tenant was switched off.
    TenantDisabled,
}
