//! For whom calls are made, until when, and what the request holds meanwhile.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use crate::admission::presence::Watch;
use crate::admission::tab::Tab;
use crate::auth::tenant::Tenant;
use crate::capacity::account::HeldBytes;
use crate::capacity::share::TenantPlace;
use crate::rate_limit::concurrency::Slot;

/// What all calls of one request have in common.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Who pays.
    pub tenant: Arc<Tenant>,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// Tells, while calls wait, whether the caller is still there and its key still valid.
    pub watch: Watch,
    /// Where calls note what they cost.
    pub tab: Tab,
    /// What the request takes up.
    pub held: Held,
}

/// What a request takes up while it is worked on. Each part is given back when its last clone is dropped.
///
/// A request that takes nothing from others, such as an estimate on the command line, holds nothing.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Its places. The task that makes the call keeps them until it ends, even after the caller has left, so that the
    /// number of requests in flight stays bounded.
    pub places: Option<Arc<RequestPlaces>>,
    /// The memory of its body. The task keeps it as long as the body: until a stream begins, or until no attempt is left.
    pub memory: Option<Arc<HeldBytes>>,
}

/// The three places of a request.
#[derive(Debug)]
pub struct RequestPlaces {
    /// In the tenant's share.
    pub share: TenantPlace,
    /// Among all requests in flight.
    pub service: OwnedSemaphorePermit,
    /// Among the tenant's requests at once.
    pub concurrency: Slot,
}
