//! The context of a request's calls: tenant, deadline, and the resources that the request holds.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use crate::admission::presence::Watch;
use crate::admission::tab::Tab;
use crate::auth::tenant::Tenant;
use crate::capacity::account::HeldBytes;
use crate::capacity::share::TenantPlace;
use crate::rate_limit::concurrency::Slot;

/// The context that all calls of one request share.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The tenant that pays.
    pub tenant: Arc<Tenant>,
    /// The time at which the caller stops waiting.
    pub deadline: Instant,
    /// Reports, while calls wait, whether the caller is still connected and its key still valid.
    pub watch: Watch,
    /// Collects the cost of the calls.
    pub tab: Tab,
    /// The resources that the request holds.
    pub held: Held,
}

impl RequestContext {
    /// The context of the calls that read page `page` beside those of other pages.
    #[must_use]
    pub fn of_page(&self, page: u32, deadline: Instant, held: Option<PageHold>) -> Self {
        let held = Held { page: held, ..self.held.clone() };
        Self { tab: self.tab.line(page), deadline, held, ..self.clone() }
    }
}

/// The resources that a request holds while it is processed. Each is released when its last clone is dropped.
///
/// A request that needs no shared resource, such as an estimate on the command line, holds nothing.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// The request's places. The task that makes the call keeps them until it ends, even after the caller has left, so
    /// that the number of requests in flight stays bounded.
    pub places: Option<Arc<RequestPlaces>>,
    /// The memory of the request's body. The task keeps it as long as the body: until a stream begins, or until no
    /// attempt is left.
    pub memory: Option<Arc<HeldBytes>>,
    /// What one page of a document holds beside its request.
    pub page: Option<PageHold>,
}

/// What a page of a document holds beside its request. The task that makes its call keeps it until it ends.
#[derive(Debug, Clone)]
pub struct PageHold {
    /// Memory of the call, and afterwards of the page's result.
    pub memory: Arc<HeldBytes>,
    /// The place of one of several pages.
    pub place: Option<Arc<PagePlace>>,
}

/// The place of a page under the tenant's concurrency limit.
#[derive(Debug)]
pub enum PagePlace {
    /// The place of its request. One page at a time has it.
    OfRequest(OwnedSemaphorePermit),
    /// A further place.
    Further(Slot),
}

/// The request's places under three limits.
#[derive(Debug)]
pub struct RequestPlaces {
    /// Under the tenant's share of requests in flight.
    pub share: TenantPlace,
    /// Under the limit of all requests in flight.
    pub service: OwnedSemaphorePermit,
    /// Under the tenant's concurrency limit.
    pub concurrency: Slot,
}
