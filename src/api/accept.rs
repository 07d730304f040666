//! Which form of the answer the caller takes, by `Accept` (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, StatusCode, header};

use super::options::Format;
use super::problem::Problem;

/// The format that `wish` names, or else the best that `Accept` allows.
///
/// # Errors
///
/// 406 where the caller takes neither JSON nor plain text.
pub(super) fn negotiate(wish: Option<Format>, headers: &HeaderMap) -> Result<Format, Problem> {
    if let Some(format) = wish {
        return Ok(format);
    }
    match weights(headers) {
        (0, 0) => Err(not_acceptable(
            "Answers are application/json or text/plain; Accept allows neither.",
        )),
        (json, text) if text > json => Ok(Format::Text),
        _ => Ok(Format::Json),
    }
}

/// For routes that answer JSON alone.
///
/// # Errors
///
/// 406 where the caller takes no JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    match weights(headers) {
        (0, _) => Err(not_acceptable("Answers are application/json; Accept does not allow it.")),
        _ => Ok(()),
    }
}

fn not_acceptable(detail: &str) -> Problem {
    let status = StatusCode::NOT_ACCEPTABLE;
    Problem::new(status, "not_acceptable", "No such form of the answer", detail)
}

/// How much the caller likes JSON and plain text, in thousandths. Who says nothing likes JSON.
fn weights(headers: &HeaderMap) -> (u32, u32) {
    let accepts = headers.get_all(header::ACCEPT);
    let mut ranges = accepts.iter().filter_map(|value| value.to_str().ok()).peekable();
    if ranges.peek().is_none() {
        return (1000, 0);
    }
    let ranges = ranges.flat_map(|value| value.split(','));
    ranges.map(weigh).fold((0, 0), |best, weight| (best.0.max(weight.0), best.1.max(weight.1)))
}

/// How much a media range likes JSON and plain text, in thousandths.
fn weigh(range: &str) -> (u32, u32) {
    let mut parts = range.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
    match essence.as_str() {
        "*/*" | "application/json" | "application/*" => (quality, 0),
        "text/plain" | "text/*" => (0, quality),
        _ => (0, 0),
    }
}

/// A quality value, which has at most three decimals.
fn thousandths(quality: &str) -> u32 {
    let (units, decimals) = quality.split_once('.').unwrap_or((quality, ""));
    format!("{units}{decimals:0<3}").parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(accept: &'static str) -> Result<Format, &'static str> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        negotiate(None, &headers).map_err(|problem| problem.code)
    }

    #[test]
    fn json_is_the_answer_unless_plain_text_is_liked_better() {
        assert_eq!(negotiated("*/*"), Ok(Format::Json));
        assert_eq!(negotiated("application/json"), Ok(Format::Json));
        assert_eq!(negotiated("text/plain"), Ok(Format::Text));
        assert_eq!(negotiated("text/plain;q=0.5, application/json"), Ok(Format::Json));
        assert_eq!(negotiated("text/plain, */*;q=0.1"), Ok(Format::Text));
    }

    #[test]
    fn a_caller_who_takes_neither_is_told() {
        assert_eq!(negotiated("image/png"), Err("not_acceptable"));
        assert_eq!(negotiated("application/json;q=0"), Err("not_acceptable"));
    }

    #[test]
    fn the_option_overrules_the_header() {
        let headers = HeaderMap::from_iter([(header::ACCEPT, "image/png".parse().unwrap())]);
        assert_eq!(negotiate(Some(Format::Text), &headers).unwrap(), Format::Text);
    }
}
