//! One file a resource. A route that spends reads: enter, upload, wishes, use case, answer.

pub(super) mod docs;
pub(super) mod estimate;
pub(super) mod extract;
pub(super) mod fallback;
pub(super) mod health;
pub(super) mod ocr;
pub(super) mod templates;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;

use super::entrance::Entered;
use super::middleware::{Served, new_id};
use crate::gateway::Gateway;
use crate::ocr::request::{Options, Request};
use crate::ocr::result::{Page, Spend};

/// The request that the use cases understand.
fn ocr_request(gateway: &Gateway, entered: &Entered, image: Bytes, options: Options) -> Request {
    let id = new_id(&*gateway.clock, &*gateway.random);
    Request { id, image, options, deadline: entered.deadline }
}

/// Tells what was spent: in headers, so that the plain-text answer says it too, and to the log line.
fn tell_spend(response: &mut Response, spend: &Spend, pages: &[Page]) {
    let headers = response.headers_mut();
    tell(headers, "ocr-tokens-image", spend.image_tokens.get());
    tell(headers, "ocr-tokens-input", spend.input_tokens.get());
    tell(headers, "ocr-tokens-output", spend.output_tokens.get());
    let max_pixels = pages.iter().map(|page| page.sent.max_pixels.get()).max();
    tell(headers, "ocr-max-pixels", max_pixels.unwrap_or_default());
    let served = response.extensions_mut().get_or_insert_default::<Served>();
    served.usage = Some(spend.clone());
}

fn tell(headers: &mut HeaderMap, name: &'static str, value: u64) {
    headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
}
