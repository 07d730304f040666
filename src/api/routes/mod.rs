//! The routes, one file for each resource. A route that costs tokens has the steps enter, upload, options, use case,
//! answer.

pub(super) mod docs;
pub(super) mod dropin;
pub(super) mod estimate;
pub(super) mod extract;
pub(super) mod fallback;
pub(super) mod health;
pub(super) mod mistral;
pub(super) mod models;
pub(super) mod ocr;
mod ocr_stream;
pub(super) mod templates;
pub(super) mod uploads;
pub(super) mod usage;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;

use super::entrance::Entered;
use super::middleware::Served;
use super::options::{AnswerFormat, ParsedOptions, Purpose};
use super::problem::Problem;
use super::spent;
use super::upload::{self, Upload};
use crate::capacity::account::HeldBytes;
use crate::gateway::Gateway;
use crate::image::Size;
use crate::metering::spend::Spend;
use crate::ocr::request::OcrRequest;
use crate::ocr::result::{Facts, Page, PageOutcome};
use crate::random::new_id;
use crate::units::Pixels;

const MAX_PIXELS: HeaderName = HeaderName::from_static("ocr-max-pixels");

/// The codes of all warnings, for answers that have no other field for them.
const WARNINGS: HeaderName = HeaderName::from_static("ocr-warnings");

const PAGES_FAILED: HeaderName = HeaderName::from_static("ocr-pages-failed");

/// A comment between two events, which clients ignore (HTML standard, "Server-sent events"). It keeps proxies from
/// closing a silent stream.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Bytes of an answer, and the memory that counts for them until they are written.
struct CountedBytes {
    bytes: Bytes,
    _memory: Vec<Arc<HeldBytes>>,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The same bytes, for which `memory` counts until they are written.
fn counted(bytes: impl Into<Bytes>, memory: Vec<Arc<HeldBytes>>) -> Bytes {
    Bytes::from_owner(CountedBytes { bytes: bytes.into(), _memory: memory })
}

/// Reads the upload and its options into a request to the use cases.
async fn read_request(
    gateway: &Gateway,
    entered: &Entered,
    request: axum::extract::Request,
    purpose: Purpose,
) -> Result<(OcrRequest, Option<AnswerFormat>), Problem> {
    let tab = spent::tab_of(&request);
    let Upload { file, options } = upload::read(gateway, entered, request).await?;
    let ParsedOptions { options, format } =
        options.read(purpose, &gateway.scratch, &gateway.templates).await?;
    let request = OcrRequest {
        id: new_id(&*gateway.clock, &*gateway.random),
        image: file,
        options,
        context: entered.context(tab),
    };
    Ok((request, format))
}

/// Reports the spend and the number of failed pages in headers and in the log line. An answer in plain text has no
/// other field for them.
fn tell_pages<E>(response: &mut Response, facts: &Facts, outcomes: &[PageOutcome<Page<E>, E>]) {
    let pages: Vec<_> = outcomes.iter().filter_map(PageOutcome::done).collect();
    let failed = outcomes.len() - pages.len();
    tell_spend(response, facts, &pages);
    if failed > 0 {
        response.headers_mut().insert(PAGES_FAILED, HeaderValue::from(failed));
    }
    response.extensions_mut().get_or_insert_default::<Served>().pages_failed = failed;
}

/// Reports the spend on pages that were all read.
fn tell_spend<E>(response: &mut Response, facts: &Facts, pages: &[&Page<E>]) {
    let max_pixels = pages.iter().filter_map(|page| Some(page.sent.as_ref()?.max_pixels)).max();
    tell_tokens(response, &facts.usage, max_pixels.unwrap_or(facts.limits.max_pixels));
    let served = response.extensions_mut().get_or_insert_default::<Served>();
    served.image = pages.first().map(|page| Size::new(page.width, page.height));
    served.pages = pages.len();
    served.upload_bytes = Some(facts.document.bytes);
}

/// Reports the codes of warnings in a header. An answer in plain text has no other field for them.
fn tell_warnings(response: &mut Response, codes: &BTreeSet<&'static str>) {
    let codes = codes.iter().copied().collect::<Vec<_>>().join(", ");
    // Codes are ASCII.
    if let Some(codes) = HeaderValue::try_from(codes).ok().filter(|codes| !codes.is_empty()) {
        response.headers_mut().insert(WARNINGS, codes);
    }
}

/// Reports the tokens that were spent, in headers.
fn tell_tokens(response: &mut Response, spend: &Spend, max_pixels: Pixels) {
    response.headers_mut().insert(MAX_PIXELS, HeaderValue::from(max_pixels.get()));
    spent::tell(response.headers_mut(), spend);
}
