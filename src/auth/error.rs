//! Errors of authentication.

use super::credential::Lapse;
use super::key::InvalidKey;
use super::store::TenantStoreError;

/// Why a caller is not authenticated.
///
/// The messages are for the caller: an unknown key and a revoked key have the same message.
/// [`reason`](Self::reason) is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No key was presented.
    #[error("an API key is required")]
    Missing,
    /// Two different keys were presented.
    #[error("two different API keys were presented")]
    Ambiguous,
    /// The credential cannot be a key.
    #[error("this is not an API key of this service: {0}")]
    Malformed(#[from] InvalidKey),
    /// No key has this id, or its secret is different.
    #[error("the API key is not valid")]
    Unknown,
    /// The key has expired.
    #[error("the API key has expired")]
    Expired,
    /// The key was revoked.
    #[error("the API key is not valid")]
    Revoked,
    /// The key is valid, but its tenant is disabled.
    #[error("the tenant of this API key is disabled")]
    TenantDisabled,
    /// The key cannot be checked now.
    #[error("API keys cannot be checked at the moment")]
    StoreUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AuthError {
    /// The reason as a label for logs and metrics, from a closed set.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ambiguous => "ambiguous",
            Self::Malformed(_) => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::TenantDisabled => "tenant_disabled",
            Self::StoreUnavailable(_) => "store_unavailable",
        }
    }
}

impl From<Lapse> for AuthError {
    fn from(lapse: Lapse) -> Self {
        match lapse {
            Lapse::Revoked => Self::Revoked,
            Lapse::Expired => Self::Expired,
            Lapse::TenantDisabled => Self::TenantDisabled,
        }
    }
}

impl From<TenantStoreError> for AuthError {
    fn from(error: TenantStoreError) -> Self {
        Self::StoreUnavailable(error.into())
    }
}
