//! The models that a tenant may use, and the ceilings of its calls.

use std::sync::Arc;

use super::error::MeteringError;
use crate::auth::tenant::{OnExceed, Tenant};
use crate::catalog::{Catalog, Model};
use crate::quote::Cap;
use crate::units::Tokens;

/// Longest part of an unknown model's name that an error repeats, in characters.
const LONGEST_ECHO: usize = 64;

/// The tenant's ceilings for pixels and output tokens.
pub fn cap(tenant: &Tenant) -> Cap {
    Cap {
        max_pixels: tenant.max_pixels,
        reject: matches!(tenant.on_exceed, OnExceed::Reject),
        max_tokens: tenant.max_tokens.map(|most| Tokens::new(most.get())),
    }
}

/// Finds the model by name, or the default model if no name is given, and restricts it to the tenant's regions.
///
/// The returned model lists only regions that the tenant may use, so that a call cannot reach another region
/// (docs/adr/0014-regions.md).
///
/// # Errors
///
/// [`MeteringError::UnknownModel`], [`MeteringError::ModelNotAllowed`] and [`MeteringError::RegionNotAllowed`].
pub fn model_for(
    catalog: &Catalog,
    tenant: &Tenant,
    name: Option<&str>,
) -> Result<Arc<Model>, MeteringError> {
    let Some(listing) = catalog.find(name) else {
        return Err(MeteringError::UnknownModel {
            model: name.unwrap_or_default().chars().take(LONGEST_ECHO).collect(),
            known: catalog.sold_in(&tenant.regions).map(|model| model.name.clone()).collect(),
        });
    };
    let model = || listing.name().to_owned();
    if !tenant.allows(listing.name()) {
        return Err(MeteringError::ModelNotAllowed {
            model: model(),
            allowed: tenant.models.clone(),
        });
    }
    listing.sold_in(&tenant.regions).ok_or_else(|| MeteringError::RegionNotAllowed {
        model: model(),
        allowed: tenant.regions.clone(),
        available: listing.regions().map(str::to_owned).collect(),
    })
}
