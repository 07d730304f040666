//! The options in the headers and the URL of a request.

use axum::http::HeaderMap;

/// The API key of the `Authorization` header.
pub(crate) fn api_key(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("authorization")?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

/// The first value with this name in the query of a URL, decoded.
pub(crate) fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

/// Whether one of the vendor's switches in the headers is on.
pub(crate) fn is_enabled(headers: &HeaderMap, name: &str) -> bool {
    headers.get(name).is_some_and(|value| value == "enable")
}
