//! The header `Cache-Control` of a request, and the header `OCR-Cache` of its answer.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

use super::middleware::Served;
use crate::ocr::caching::{CacheDirective, CacheUse};

const OCR_CACHE: HeaderName = HeaderName::from_static("ocr-cache");

/// The strictest directive of `Cache-Control` (RFC 9111, 5.2.1). An answer of age zero is one that is made now, so
/// `max-age=0`, which browsers send on a reload, means `no-cache`. Other directives are about caches on the way.
pub(super) fn cache_use(headers: &HeaderMap) -> CacheUse {
    let texts = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|text| text.to_str().ok());
    let mut directive = CacheDirective::Use;
    for name in texts.flat_map(|text| text.split(',')).map(str::trim) {
        if name.eq_ignore_ascii_case("no-store") {
            directive = CacheDirective::Bypass;
        } else if directive == CacheDirective::Use && is_for_a_new_answer(name) {
            directive = CacheDirective::Renew;
        }
    }
    CacheUse::within(directive)
}

fn is_for_a_new_answer(directive: &str) -> bool {
    let [no_cache, max_age] = ["no-cache", "max-age=0"];
    directive.eq_ignore_ascii_case(no_cache) || directive.eq_ignore_ascii_case(max_age)
}

/// Reports how the request was answered, if it took part.
pub(super) fn tell_cache(response: &mut Response, cache_use: &CacheUse) {
    let Some(status) = cache_use.status() else { return };
    response.headers_mut().insert(OCR_CACHE, HeaderValue::from_static(status.as_str()));
    response.extensions_mut().get_or_insert_default::<Served>().cache = Some(status.as_str());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_directive_counts_in_any_order_and_spelling() {
        let of = |values: &[&'static str]| {
            let values = values.iter().map(|value| HeaderValue::from_static(value));
            let headers = values.map(|value| (header::CACHE_CONTROL, value)).collect();
            cache_use(&headers).directive()
        };
        for used in [&[][..], &["max-age=60"], &["only-if-cached, no-transform"], &["x no-store"]] {
            assert_eq!(of(used), CacheDirective::Use, "{used:?}");
        }
        for renewed in ["no-cache", "No-Cache", "max-age=0", "no-transform , NO-CACHE"] {
            assert_eq!(of(&[renewed]), CacheDirective::Renew, "{renewed}");
        }
        for bypassed in [&["no-store"][..], &["no-cache", "no-store"], &["No-Store, no-cache"]] {
            assert_eq!(of(bypassed), CacheDirective::Bypass, "{bypassed:?}");
        }
    }
}
