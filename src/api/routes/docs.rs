//! The contract as OpenAPI and as a page.

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

const OPENAPI: &str = include_str!("../../../openapi.yaml");
const PAGE: &str = include_str!("../docs.html");

/// The page needs no scripts and no external resources, so they are forbidden.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

/// `GET /openapi.yaml`.
pub(in crate::api) async fn openapi() -> Response {
    let media_type = HeaderValue::from_static("application/yaml; charset=utf-8");
    ([(header::CONTENT_TYPE, media_type)], OPENAPI).into_response()
}

/// `GET /docs`: the contract as a page, which `scripts/build-docs` makes from it.
pub(in crate::api) async fn page() -> Response {
    let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE)).into_response()
}
