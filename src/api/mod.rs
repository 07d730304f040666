//! The HTTP API: routes, bodies, options, errors.
//!
//! Only this module uses axum and status codes. A route authenticates the caller, reads the upload and the options,
//! calls the use case and writes the answer. `middleware` has what all routes share: request id, log line, metrics,
//! panics, time limit and the format of errors.

mod accept;
mod cache_control;
mod dialect;
mod entrance;
mod error;
pub mod hangup;
mod host;
mod middleware;
mod mistral;
mod options;
mod page_problem;
mod problem;
mod routes;
mod spent;
pub mod starting;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use self::routes::{
    docs, dropin, estimate, extract, fallback, health, mistral as mistral_ocr, models, ocr,
    templates, uploads, usage,
};
use crate::gateway::Gateway;

/// The public API.
pub fn router(gateway: &Arc<Gateway>) -> Router {
    // An upload may also be a PUT, because that is what `curl -T page.jpg` sends.
    let routes = Router::new()
        .route("/ocr", post(ocr::ocr).put(ocr::ocr))
        .route("/extract", post(extract::extract).put(extract::extract))
        .route("/estimate", post(estimate::estimate).put(estimate::estimate))
        .route("/usage", get(usage::usage))
        .route("/compatible-mode/v1/chat/completions", post(dropin::chat))
        .route("/compatible-mode/v1/models", get(models::list))
        .route("/compatible-mode/v1/models/{id}", get(models::show))
        .route("/v1/chat/completions", post(dropin::chat))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::show))
        .route("/v1/ocr", post(mistral_ocr::ocr))
        .route("/api/v1/services/aigc/multimodal-generation/generation", post(dropin::generation))
        .route("/api/v1/uploads", get(uploads::uploads))
        .route("/templates", get(templates::list))
        .route("/templates/{name}", get(templates::show))
        .route("/openapi.yaml", get(docs::openapi))
        .route("/docs", get(docs::page))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready));
    finish(routes, gateway)
}

/// The health and metrics routes for the cluster, on a separate listener.
pub fn metrics_router(gateway: &Arc<Gateway>) -> Router {
    let routes = Router::new()
        .route("/metrics", get(health::metrics))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready));
    finish(routes, gateway)
}

/// Adds the shared middleware. `observe` is the outermost layer, so it sees every answer, also after a panic.
fn finish(routes: Router<Arc<Gateway>>, gateway: &Arc<Gateway>) -> Router {
    let shared = ServiceBuilder::new()
        .layer(axum::middleware::from_fn_with_state(Arc::clone(gateway), middleware::observe))
        .layer(CatchPanicLayer::custom(middleware::panicked))
        // The upload code limits bodies, with an error of this service. axum's limit of 2 MB would apply first.
        .layer(DefaultBodyLimit::disable());
    routes
        .fallback(fallback::not_found)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .layer(shared)
        .with_state(Arc::clone(gateway))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::clock::SystemClock;
    use crate::random::SystemRandom;
    use crate::settings::Settings;
    use crate::store;

    async fn panicking() -> &'static str {
        panic!("the secret that a panic must not tell")
    }

    async fn gateway() -> Arc<Gateway> {
        let variables = [("DASHSCOPE_API_KEY", "sk-x")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::load_with(None, HashMap::from(variables)).unwrap();
        let store =
            store::connect("sqlite::memory:", store::StoreOptions::default()).await.unwrap();
        store.migrate().await.unwrap();
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        Gateway::build(&settings, store, clock, random).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_a_500_problem_that_tells_nothing_and_the_service_goes_on() {
        let routes =
            Router::new().route("/panic", get(panicking)).route("/livez", get(health::live));
        let service = finish(routes, &gateway().await);
        let ask = |path: &str| {
            let request = Request::get(path).header("host", "test").body(Body::empty());
            service.clone().oneshot(request.unwrap())
        };
        let response = ask("/panic").await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains(r#""code":"internal""#) && !text.contains("secret"), "{text}");
        assert_eq!(ask("/livez").await.unwrap().status(), StatusCode::OK);
    }
}
