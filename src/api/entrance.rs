//! Who is calling, and whether there is room: decided before a byte of the body is read.
//!
//! The order is from the cheapest to the dearest, and none of it can be skipped by a large body: the
//! service's own room, then the key, then the tenant's requests a minute and at once. Room for the body
//! that is announced is looked for first and taken only when the caller is known: whoever has no key must
//! not keep others out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::OwnedSemaphorePermit;

use super::middleware::Served;
use super::problem::Problem;
use crate::admission::{self, Refusal};
use crate::auth::tenant::Tenant;
use crate::capacity::account::{HeldBytes, NoRoom};
use crate::gateway::Gateway;
use crate::rate_limit::concurrency::Slot;
use crate::telemetry::metrics::NO_TENANT;

/// The stable name of the refusal for want of room.
const OVERLOADED: &str = "overloaded";

/// A request that was let in.
#[derive(Debug)]
pub(super) struct Entered {
    /// Who is calling.
    pub(super) tenant: Arc<Tenant>,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    /// What the request takes up; its work keeps a clone.
    pub(super) places: Arc<Places>,
    /// Memory for its body, as far as that was announced.
    pub(super) memory: Arc<HeldBytes>,
}

/// A place among all requests and one among the tenant's, given back when dropped.
#[derive(Debug)]
pub(super) struct Places {
    _of_all: OwnedSemaphorePermit,
    _of_tenant: Slot,
}

/// Lets a request in.
///
/// # Errors
///
/// 401, 403, 429 or 503.
pub(super) async fn enter(gateway: &Gateway, headers: &HeaderMap) -> Result<Entered, Problem> {
    if gateway.is_closed() {
        gateway.metrics.refused(NO_TENANT, "shutting_down");
        return Err(shutting_down());
    }
    let deadline = gateway.clock.instant() + patience(headers, gateway.bounds.request);
    let Ok(place) = Arc::clone(&gateway.in_flight).try_acquire_owned() else {
        gateway.metrics.refused(NO_TENANT, OVERLOADED);
        return Err(too_many(gateway.capacity.requests as u64));
    };
    let announced = announced_bytes(headers, gateway.bounds.body_bytes);
    let fits = gateway.memory.look_for(announced);
    fits.map_err(|no_room| overloaded(gateway, NO_TENANT, no_room))?;
    let tenant = authenticate(gateway, headers).await?;
    let memory = gateway.memory.hold(announced);
    let memory = memory.map_err(|no_room| overloaded(gateway, tenant.name.as_str(), no_room))?;
    let slot = take_slot(gateway, &tenant).await?;
    let places = Arc::new(Places { _of_all: place, _of_tenant: slot });
    Ok(Entered { tenant, deadline, places, memory: Arc::new(memory) })
}

/// Tells who is calling.
///
/// # Errors
///
/// 401, 403 or 503.
pub(super) async fn authenticate(
    gateway: &Gateway,
    headers: &HeaderMap,
) -> Result<Arc<Tenant>, Problem> {
    let key = presented_key(headers).unwrap_or_default();
    match gateway.authenticator.authenticate(key).await {
        Ok(caller) => Ok(caller.tenant),
        Err(error) => {
            tracing::debug!(reason = error.reason(), "a key was refused");
            let problem = Problem::from(error);
            gateway.metrics.refused(NO_TENANT, problem.code);
            Err(problem)
        }
    }
}

impl Entered {
    /// The response of a route, with the caller's name for the log line and the metrics.
    pub(super) fn answer(&self, result: Result<Response, Problem>) -> Response {
        let mut response = result.unwrap_or_else(IntoResponse::into_response);
        let served = response.extensions_mut().get_or_insert_default::<Served>();
        served.tenant = Some(self.tenant.name.to_string());
        response
    }
}

/// Takes a place for the request to run in, and only then one of the tenant's requests a minute: a
/// client that retries while its places are taken does not use up its minute.
async fn take_slot(gateway: &Gateway, tenant: &Arc<Tenant>) -> Result<Slot, Problem> {
    let (name, quotas) = (tenant.name.as_str(), admission::quotas(tenant));
    let taken = async {
        let slot = gateway.concurrency.enter(name, &quotas)?;
        gateway.limiter.take_request(name, &quotas).await?;
        Ok::<_, Refusal>(slot)
    };
    taken.await.map_err(|refusal| {
        gateway.metrics.refused(name, refusal.label());
        Problem { tenant: Some(Arc::clone(tenant)), ..refusal.into() }
    })
}

/// The key as it is presented: `Authorization: Bearer KEY` or `X-API-Key: KEY`.
fn presented_key(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| key.trim());
    }
    headers.get("x-api-key")?.to_str().ok().map(str::trim)
}

/// How long the caller waits: `Prefer: wait=SECONDS` (RFC 7240), at most the service's own limit.
fn patience(headers: &HeaderMap, most: Duration) -> Duration {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let wait = preferences
        .flat_map(|value| value.split([',', ';']))
        .find_map(|preference| preference.trim().strip_prefix("wait="))
        .and_then(|seconds| seconds.trim_matches('"').parse().ok());
    wait.map_or(most, |seconds| Duration::from_secs(seconds).min(most))
}

/// The length of the body as its sender announced it, where it did.
pub(super) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The bytes that will be held of the announced body. None of one that is too long will be read.
fn announced_bytes(headers: &HeaderMap, limit: u64) -> u64 {
    announced_length(headers).filter(|&length| length <= limit).unwrap_or(0)
}

/// The refusal of a request for whose body there is no room.
pub(super) fn overloaded(gateway: &Gateway, tenant: &str, no_room: NoRoom) -> Problem {
    gateway.metrics.refused(tenant, OVERLOADED);
    let NoRoom { actual, allowed } = no_room;
    let detail = format!(
        "With this upload {actual} bytes would be held at once; the limit is {allowed}. Retry shortly."
    );
    busy(detail).limit("in_flight_bytes", actual, allowed)
}

fn too_many(allowed: u64) -> Problem {
    let detail =
        format!("{allowed} requests are being worked on, the most at once. Retry shortly.");
    busy(detail).limit("in_flight_requests", allowed.saturating_add(1), allowed)
}

/// Which place will be free, and when, nobody knows: uploads take moments and pages take seconds.
fn busy(detail: String) -> Problem {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Problem::new(status, OVERLOADED, "The gateway is busy", detail).after(Duration::from_secs(1))
}

fn shutting_down() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "shutting_down",
        "The gateway is stopping",
        "This replica finishes what it has and takes nothing new. Send the request again.",
    )
    .after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_key_is_taken_from_either_header() {
        assert_eq!(presented_key(&headers("authorization", "Bearer k")), Some("k"));
        assert_eq!(presented_key(&headers("authorization", "bearer  k")), Some("k"));
        assert_eq!(presented_key(&headers("x-api-key", "k")), Some("k"));
        assert_eq!(presented_key(&headers("authorization", "Basic k")), None);
        assert_eq!(presented_key(&HeaderMap::new()), None);
    }

    #[test]
    fn a_caller_may_wait_less_than_the_service_but_not_more() {
        let most = Duration::from_mins(1);
        assert_eq!(patience(&headers("prefer", "wait=5"), most), Duration::from_secs(5));
        assert_eq!(patience(&headers("prefer", "handling=strict, wait=5"), most).as_secs(), 5);
        assert_eq!(patience(&headers("prefer", "wait=999"), most), most);
        assert_eq!(patience(&headers("prefer", "wait=soon"), most), most);
    }
}
