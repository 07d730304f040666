//! Authenticates a caller and takes room for its request, before a byte of the body is read.
//!
//! The key is checked first, so that unknown callers take no resources from known ones: a request holds no place and
//! no memory while its key is looked up, and `auth` bounds the look-ups. The tenant's share and the limits of the
//! service are checked next, for the request and for the declared length of its body. The tenant's limits of
//! concurrency and of requests a minute are checked last, so that they do not count a request that the service had no
//! room for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderMap, header};

use super::hangup::HalfClose;
use super::middleware::{Caller, deadline_exceeded};
use super::problem::Problem;
use crate::admission::presence::Watch;
use crate::admission::tab::Tab;
use crate::admission::{self, LEAST_TIME_FOR_AN_ATTEMPT, Refusal};
use crate::auth::authenticator::{AdmittedKey, Principal};
use crate::auth::error::AuthError;
use crate::auth::key::ApiKey;
use crate::auth::tenant::Tenant;
use crate::capacity::account::{HeldBytes, NoRoom, Whose};
use crate::capacity::share::NoPlace;
use crate::code::ErrorCode;
use crate::departure::Departure;
use crate::gateway::Gateway;
use crate::metering::context::{Held, RequestContext, RequestPlaces};
use crate::rate_limit::concurrency::Slot;
use crate::telemetry::metrics::NO_TENANT;

/// The metric label of refusals because the tenant's share is used up.
const SHARE: &str = "share";

/// An admitted request.
#[derive(Debug)]
pub(super) struct Entered {
    /// The tenant of the key.
    pub(super) tenant: Arc<Tenant>,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    /// Signals during a wait that the caller may have left or its key is no longer valid.
    pub(super) watch: Watch,
    /// The places that the request occupies. Its work keeps a clone.
    pub(super) places: Arc<RequestPlaces>,
    /// Memory for the declared length of its body.
    pub(super) memory: Arc<HeldBytes>,
}

impl Entered {
    /// The context of the request's calls. They record their cost in `tab`.
    pub(super) fn context(&self, tab: Tab) -> RequestContext {
        RequestContext {
            tenant: Arc::clone(&self.tenant),
            deadline: self.deadline,
            watch: self.watch.clone(),
            tab,
            held: Held {
                places: Some(Arc::clone(&self.places)),
                memory: Some(Arc::clone(&self.memory)),
                page: None,
            },
        }
    }
}

/// Admits a request. Every route that needs a key calls this first.
///
/// # Errors
///
/// 401, 403, 429 or 503.
pub(super) fn enter<'a>(
    gateway: &'a Gateway,
    request: &'a Request,
) -> impl Future<Output = Result<Entered, Problem>> + Send + use<'a> {
    // The body is not `Sync`, so a `Send` future cannot hold a reference to the whole request.
    let caller = (Caller::of(request), HalfClose::of(request));
    let_in(gateway, request.headers(), caller)
}

async fn let_in(
    gateway: &Gateway,
    headers: &HeaderMap,
    (caller, half_close): (Caller, HalfClose),
) -> Result<Entered, Problem> {
    if gateway.is_closed() {
        gateway.metrics.refused(NO_TENANT, ErrorCode::ShuttingDown.as_str());
        return Err(shutting_down());
    }
    let deadline = gateway.clock.instant() + patience(headers, gateway.bounds.request);
    let authenticated = authenticate(gateway, headers).await?;
    caller.is(&authenticated);
    let Principal { tenant, key } = authenticated;
    let name = tenant.name.as_str();
    let announced = announced_bytes(headers, gateway.bounds.body_bytes);
    let holder = gateway.shares.of(name);
    if holder.is_over_with(announced) {
        gateway.shares.bind(gateway.tenancy.has_several().await);
    }
    let share = holder.enter().map_err(|no_place| over_share(gateway, name, no_place))?;
    let Ok(service) = Arc::clone(&gateway.in_flight).try_acquire_owned() else {
        gateway.metrics.refused(name, ErrorCode::Overloaded.as_str());
        return Err(too_many(gateway.capacity.requests as u64));
    };
    let memory = gateway.memory.begin_upload(holder);
    let taken = memory.take_or_reclaim(announced).await;
    taken.map_err(|no_room| overloaded(gateway, name, no_room))?;
    let concurrency = take_slot(gateway, &tenant).await?;
    let places = Arc::new(RequestPlaces { share, service, concurrency });
    let standing = AdmittedKey::new(Arc::clone(&gateway.authenticator), key);
    let may_have_left = Departure::told_by(half_close.token());
    let watch = Watch { may_have_left, standing: Some(standing), ..Watch::default() };
    Ok(Entered { tenant, deadline, watch, places, memory: Arc::new(memory) })
}

/// Admits a request that needs a call to the upstream.
///
/// # Errors
///
/// As [`enter`], or 504 if the caller waits for less than [`LEAST_TIME_FOR_AN_ATTEMPT`].
pub(super) fn enter_to_call<'a>(
    gateway: &'a Gateway,
    request: &'a Request,
) -> impl Future<Output = Result<Entered, Problem>> + Send + use<'a> {
    let asked = patience(request.headers(), gateway.bounds.request);
    let entering = enter(gateway, request);
    async move {
        let entered = entering.await?;
        if asked < LEAST_TIME_FOR_AN_ATTEMPT {
            return Err(too_impatient(asked));
        }
        Ok(entered)
    }
}

/// Identifies the caller.
///
/// # Errors
///
/// 401, 403 or 503.
async fn authenticate(gateway: &Gateway, headers: &HeaderMap) -> Result<Principal, Problem> {
    let authenticated = async {
        let key = presented_key(headers)?;
        gateway.authenticator.authenticate(key).await
    };
    match authenticated.await {
        Ok(caller) => Ok(caller),
        Err(error) => {
            tracing::debug!(reason = error.reason(), "a key was refused");
            let problem = Problem::from(error);
            gateway.metrics.refused(NO_TENANT, problem.code.as_str());
            Err(problem)
        }
    }
}

/// Takes one of the tenant's concurrent requests first and one of its requests a minute second. So a client that
/// retries while its concurrency limit is reached does not use up its rate limit.
async fn take_slot(gateway: &Gateway, tenant: &Tenant) -> Result<Slot, Problem> {
    let (name, quotas) = (tenant.name.as_str(), admission::quotas(tenant));
    let taken = async {
        let slot = gateway.concurrency.enter(name, &quotas)?;
        gateway.limiter.take_request(name, &quotas).await?;
        Ok::<_, Refusal>(slot)
    };
    taken.await.map_err(|refusal| {
        gateway.metrics.refused(name, refusal.label());
        refusal.into()
    })
}

/// The presented key, from `Authorization: Bearer KEY` or `X-API-Key: KEY`.
///
/// Proxies and service meshes put their own credentials into `Authorization`. So if one header has a key of this
/// service, credentials of another form are ignored.
///
/// # Errors
///
/// [`AuthError::Missing`] for no key, [`AuthError::Ambiguous`] for two different keys: the choice of one could charge
/// the wrong tenant.
fn presented_key(headers: &HeaderMap) -> Result<&str, AuthError> {
    let texts = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let tokens = texts(header::AUTHORIZATION.as_str()).filter_map(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let presented = tokens.chain(texts("x-api-key")).map(str::trim);
    let presented: Vec<_> = presented.filter(|key| !key.is_empty()).collect();
    let mut ours = presented.iter().filter(|key| ApiKey::looks_like(key));
    match (ours.next(), presented.first()) {
        (Some(key), _) if ours.any(|other| other != key) => Err(AuthError::Ambiguous),
        (Some(key), _) | (None, Some(key)) => Ok(key),
        (None, None) => Err(AuthError::Missing),
    }
}

/// How long the caller waits: `Prefer: wait=SECONDS` (RFC 7240), but at most `most`.
fn patience(headers: &HeaderMap, most: Duration) -> Duration {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let wait = preferences
        .flat_map(|value| value.split([',', ';']))
        .find_map(|preference| preference.trim().strip_prefix("wait="))
        .and_then(|seconds| seconds.trim_matches('"').parse().ok());
    wait.map_or(most, |seconds| Duration::from_secs(seconds).min(most))
}

/// The declared length of the body.
pub(super) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The memory to reserve for the body, in bytes. It is 0 for a body over the limit, which is not read.
fn announced_bytes(headers: &HeaderMap, limit: u64) -> u64 {
    announced_length(headers).filter(|&length| length <= limit).unwrap_or(0)
}

/// The refusal of a request if there is no memory for its body.
pub(super) fn overloaded(gateway: &Gateway, tenant: &str, no_room: NoRoom) -> Problem {
    let NoRoom { actual, allowed, whose } = no_room;
    let detail = format!("With this upload {actual} bytes would be held at once");
    match whose {
        Whose::Process => {
            gateway.metrics.refused(tenant, ErrorCode::Overloaded.as_str());
            busy(format!("{detail}; the limit is {allowed}. Retry shortly.")).limit(
                "in_flight_bytes",
                actual,
                allowed,
            )
        }
        Whose::Tenant => {
            gateway.metrics.refused(tenant, SHARE);
            let detail = format!("{detail} for this tenant; its share is {allowed}.");
            beyond_share(&detail).limit("tenant_in_flight_bytes", actual, allowed)
        }
    }
}

fn over_share(gateway: &Gateway, tenant: &str, NoPlace { actual, allowed }: NoPlace) -> Problem {
    gateway.metrics.refused(tenant, SHARE);
    let detail =
        format!("This tenant has {allowed} requests in flight, which is its share of the service.");
    beyond_share(&detail).limit("tenant_in_flight_requests", actual, allowed)
}

/// 429 and not 503: the service has room, but this tenant must send fewer requests at once.
fn beyond_share(detail: &str) -> Problem {
    let detail = format!(
        "{detail} Send fewer at once, or retry shortly. An operator can raise \
         server.tenant_share_percent."
    );
    Problem::new(ErrorCode::RateLimited, detail).after(Duration::from_secs(1))
}

fn too_many(allowed: u64) -> Problem {
    let detail =
        format!("{allowed} requests are being worked on, the most at once. Retry shortly.");
    busy(detail).limit("in_flight_requests", allowed.saturating_add(1), allowed)
}

/// The wait is an estimate: an upload takes less than a second, and a page takes seconds.
pub(super) fn busy(detail: String) -> Problem {
    Problem::new(ErrorCode::Overloaded, detail).after(Duration::from_secs(1))
}

/// Not retryable, because the same `Prefer: wait` would be too short again.
fn too_impatient(asked: Duration) -> Problem {
    let (asked, least) = (asked.as_millis(), LEAST_TIME_FOR_AN_ATTEMPT.as_millis());
    let detail = format!(
        "The request waits {asked} ms for its answer; a call to the upstream is made where at least {least} \
         ms are left. Nothing was sent. Ask for a longer `Prefer: wait`, in seconds."
    );
    Problem { detail: detail.into(), retryable: false, ..deadline_exceeded() }
}

fn shutting_down() -> Problem {
    Problem::new(
        ErrorCode::ShuttingDown,
        "This replica finishes what it has and takes nothing new. Send the request again.",
    )
    .after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    /// The key from these headers, or the reason for the refusal.
    fn taken(given: &[(&'static str, &'static str)]) -> Result<String, &'static str> {
        let headers = given
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
        let headers = headers.collect();
        presented_key(&headers).map(str::to_owned).map_err(|error| error.reason())
    }

    #[test]
    fn a_key_is_taken_from_either_header() {
        let key = Ok("ocrgw_k".to_owned());
        assert_eq!(taken(&[("authorization", "Bearer ocrgw_k")]), key);
        assert_eq!(taken(&[("authorization", "bearer  ocrgw_k ")]), key);
        assert_eq!(taken(&[("x-api-key", " ocrgw_k")]), key);
        assert_eq!(taken(&[("authorization", "Basic ocrgw_k")]), Err("missing"));
        assert_eq!(taken(&[]), Err("missing"));
    }

    #[test]
    fn what_is_no_key_of_ours_is_passed_over_where_one_is_and_told_where_none_is() {
        let key = Ok("ocrgw_k".to_owned());
        for foreign in ["", "Basic eA==", "Bearer", "Bearer eyJ.x.y", "Bearer  ", "x"] {
            assert_eq!(taken(&[("authorization", foreign), ("x-api-key", "ocrgw_k")]), key);
        }
        assert_eq!(taken(&[("authorization", "Bearer ocrgw_k"), ("x-api-key", "other")]), key);
        let twice = [("authorization", "Basic eA=="), ("authorization", "Bearer ocrgw_k")];
        assert_eq!(taken(&twice), key);
        let foreign = [("authorization", "Bearer eyJ.x.y"), ("x-api-key", "other")];
        assert_eq!(taken(&foreign), Ok("eyJ.x.y".to_owned()));
    }

    #[test]
    fn one_key_twice_is_one_key_and_two_keys_are_refused() {
        let with = |other| taken(&[("authorization", "Bearer ocrgw_k"), ("x-api-key", other)]);
        assert_eq!(with("ocrgw_k"), Ok("ocrgw_k".to_owned()));
        assert_eq!(with("ocrgw_other"), Err("ambiguous"));
    }

    #[test]
    fn a_caller_may_wait_less_than_the_service_but_not_more() {
        let most = Duration::from_mins(1);
        assert_eq!(patience(&headers("prefer", "wait=5"), most), Duration::from_secs(5));
        assert_eq!(patience(&headers("prefer", "handling=strict, wait=5"), most).as_secs(), 5);
        for huge in ["wait=999", "wait=18446744073709551615", "wait=99999999999999999999"] {
            assert_eq!(patience(&headers("prefer", huge), most), most, "{huge}");
        }
        assert_eq!(patience(&headers("prefer", "wait=soon"), most), most);
    }
}
