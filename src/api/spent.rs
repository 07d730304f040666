//! The cost of a request in its response, if the body has no field for it: in headers, or in trailers if the body is a
//! stream, because a stream's cost is known only at its end (RFC 9110, 6.5).

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::admission::tab::{Spent, Tab};
use crate::metering::spend::Spend;
use crate::units::Tokens;

const IMAGE: HeaderName = HeaderName::from_static("ocr-tokens-image");
const INPUT: HeaderName = HeaderName::from_static("ocr-tokens-input");
const OUTPUT: HeaderName = HeaderName::from_static("ocr-tokens-output");
const UNVERIFIED: HeaderName = HeaderName::from_static("ocr-tokens-unverified");

/// The tab that records the calls of this request. The middleware adds it to the request.
pub(super) fn tab_of(request: &Request) -> Tab {
    request.extensions().get().cloned().unwrap_or_default()
}

/// Reports all tokens in headers.
pub(super) fn tell(headers: &mut HeaderMap, spend: &Spend) {
    let tokens = [
        (IMAGE, spend.image_tokens),
        (INPUT, spend.input_tokens),
        (OUTPUT, spend.output_tokens),
        (UNVERIFIED, spend.unverified_tokens),
    ];
    for (name, tokens) in tokens {
        headers.insert(name, HeaderValue::from(tokens.get()));
    }
}

/// Reports in the headers of a stream the unverified tokens of attempts that failed before it began. The cost of the
/// stream itself is not known yet.
pub(super) fn tell_lost(headers: &mut HeaderMap, spent: &Spent) {
    if spent.unverified > Tokens::ZERO {
        headers.insert(UNVERIFIED, HeaderValue::from(spent.unverified.get()));
    }
}

/// Whether the caller accepts trailers. Other callers may merge them into the headers or drop them.
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    let listed = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    listed
        .flat_map(|list| list.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Announces the trailers of a stream.
pub(super) fn announce_trailers(headers: &mut HeaderMap) {
    let names = "ocr-tokens-image, ocr-tokens-input, ocr-tokens-output, ocr-tokens-unverified";
    headers.insert(header::TRAILER, HeaderValue::from_static(names));
}

/// The trailers of a stream: the whole cost of the request.
pub(super) fn trailers(tab: &Tab) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Some(spend) = Spend::on_calls(&tab.ended()) {
        tell(&mut trailers, &spend);
    }
    trailers
}
