//! Negotiates the format of the answer by `Accept` (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};

use super::options::{self, AnswerFormat};
use super::problem::Problem;
use crate::code::ErrorCode;

/// The formats of an answer with their media types, the most useful first. If the caller has no preference between two,
/// the first is used.
const FORMS: [(AnswerFormat, &str); 5] = [
    (AnswerFormat::Json, "application/json"),
    (AnswerFormat::Text, "text/plain"),
    (AnswerFormat::Markdown, "text/markdown"),
    (AnswerFormat::Pdf, "application/pdf"),
    (AnswerFormat::Events, "text/event-stream"),
];

/// Selects events if `Accept` requests them. Otherwise selects `wish`, or without a `wish` the format that `Accept`
/// prefers.
///
/// # Errors
///
/// 406 if the caller accepts none of them, and 400 if events of a PDF are requested, which has none.
pub(super) fn negotiate(
    wish: Option<AnswerFormat>,
    headers: &HeaderMap,
) -> Result<AnswerFormat, Problem> {
    match (wish, best(headers, &FORMS)) {
        (Some(AnswerFormat::Pdf), Some(AnswerFormat::Events)) => Err(options::invalid(
            "format",
            "pdf is not streamed: leave text/event-stream out of Accept",
        )),
        (_, Some(AnswerFormat::Events)) => Ok(AnswerFormat::Events),
        (Some(format), _) | (None, Some(format)) => Ok(format),
        (None, None) => Err(not_acceptable(&FORMS)),
    }
}

/// For routes that answer JSON alone.
///
/// # Errors
///
/// 406 if the caller does not accept JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let json = &FORMS[..1];
    best(headers, json).map(|_| ()).ok_or_else(|| not_acceptable(json))
}

/// Whether `Accept` names a stream of events and does not refuse it.
pub(super) fn accepts_events(headers: &HeaderMap) -> bool {
    ranges(headers).any(|range| range.essence == "text/event-stream" && range.quality > 0)
}

fn not_acceptable(forms: &[(AnswerFormat, &str)]) -> Problem {
    let media_types: Vec<_> = forms.iter().map(|(_, media_type)| *media_type).collect();
    let detail = format!("Answers are {}; Accept allows none.", media_types.join(" or "));
    Problem::new(ErrorCode::NotAcceptable, detail)
}

/// The form that the caller prefers; the first one, if the caller states no preference.
fn best(headers: &HeaderMap, forms: &[(AnswerFormat, &str)]) -> Option<AnswerFormat> {
    let ranges: Vec<_> = ranges(headers).collect();
    if ranges.is_empty() {
        return forms.first().map(|(format, _)| *format);
    }
    let liking = |media_type| {
        let fitting = ranges.iter().filter(|range| range.covers(media_type));
        fitting.max_by_key(|range| range.precision()).map_or(0, |range| range.quality)
    };
    // `max_by_key` returns the last of equal elements.
    let liked = forms.iter().rev().map(|(format, media_type)| (*format, liking(media_type)));
    liked.max_by_key(|(_, liking)| *liking).filter(|(_, liking)| *liking > 0).map(|best| best.0)
}

/// The media ranges of `Accept`.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = MediaRange> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = values.flat_map(|value| value.split(',')).filter(|range| !range.trim().is_empty());
    ranges.map(MediaRange::read)
}

/// One media range and its weight.
#[derive(Debug)]
struct MediaRange {
    essence: String,
    /// The weight in thousandths. Zero means that the range is not acceptable.
    quality: u32,
}

impl MediaRange {
    fn read(range: &str) -> Self {
        let mut parts = range.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        // RFC 9110 does not allow blanks around the sign, but people write them.
        let quality = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim_end().eq_ignore_ascii_case("q").then(|| value.trim_start())
        });
        Self { essence, quality: quality.map_or(1000, thousandths) }
    }

    fn covers(&self, media_type: &str) -> bool {
        let all_of_a_type = self.essence.strip_suffix('*');
        self.essence == "*/*"
            || self.essence == media_type
            || all_of_a_type.is_some_and(|start| media_type.starts_with(start))
    }

    /// The more specific of two ranges applies, in any order.
    fn precision(&self) -> u8 {
        match self.essence.as_str() {
            "*/*" | "*" => 0,
            range if range.ends_with("/*") => 1,
            _ => 2,
        }
    }
}

/// A quality value, which has at most three decimals.
fn thousandths(quality: &str) -> u32 {
    let (units, decimals) = quality.split_once('.').unwrap_or((quality, ""));
    format!("{units}{decimals:0<3.3}").parse().unwrap_or(0).min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(accept: &'static str) -> Result<AnswerFormat, &'static str> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        negotiate(None, &headers).map_err(|problem| problem.code.as_str())
    }

    #[test]
    fn json_is_the_answer_unless_plain_text_is_liked_better() {
        assert_eq!(negotiated("*/*"), Ok(AnswerFormat::Json));
        assert_eq!(negotiated("application/json"), Ok(AnswerFormat::Json));
        assert_eq!(negotiated("text/plain"), Ok(AnswerFormat::Text));
        assert_eq!(negotiated("text/plain;q=0.5, application/json"), Ok(AnswerFormat::Json));
        assert_eq!(negotiated("text/plain, */*;q=0.1"), Ok(AnswerFormat::Text));
    }

    #[test]
    fn markdown_is_the_answer_where_it_is_liked_best() {
        assert_eq!(negotiated("text/markdown"), Ok(AnswerFormat::Markdown));
        assert_eq!(negotiated("text/plain;q=0.9, text/markdown"), Ok(AnswerFormat::Markdown));
        assert_eq!(negotiated("text/markdown;q=0.2, text/*;q=0.5"), Ok(AnswerFormat::Text));
        assert_eq!(negotiated("text/markdown, */*;q=0.1"), Ok(AnswerFormat::Markdown));
    }

    #[test]
    fn of_two_forms_liked_alike_the_more_useful_is_given() {
        assert_eq!(
            negotiated("text/markdown, text/plain, application/json"),
            Ok(AnswerFormat::Json)
        );
        assert_eq!(negotiated("text/*"), Ok(AnswerFormat::Text));
        assert_eq!(negotiated(""), Ok(AnswerFormat::Json));
    }

    #[test]
    fn the_more_precise_range_decides_wherever_it_stands() {
        assert_eq!(negotiated("application/json;q=0, */*"), Ok(AnswerFormat::Text));
        assert_eq!(
            negotiated("*/*, application/*;q=0.5, text/plain;q=0.7"),
            Ok(AnswerFormat::Markdown)
        );
        assert_eq!(negotiated("*/*;q=0.1234, text/plain;q=0.124"), Ok(AnswerFormat::Text));
        // Old Java clients send a bare star for "anything".
        assert_eq!(negotiated("text/plain, *;q=0.2, */*;q=0.1"), Ok(AnswerFormat::Text));
        assert_eq!(negotiated("text/plain, application/json;q=9"), Ok(AnswerFormat::Json));
    }

    #[test]
    fn a_caller_who_takes_none_is_told() {
        assert_eq!(negotiated("image/png"), Err("not_acceptable"));
        assert_eq!(negotiated("application/json;q=0"), Err("not_acceptable"));
    }

    #[test]
    fn a_quality_counts_whatever_blanks_are_around_it() {
        for refused in ["q=0", "q = 0", "q =0", "q= 0.0", "Q\t=\t0", " q=0 "] {
            let accept = format!("application/json;{refused}, text/plain; q = 0.5");
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(negotiate(None, &headers).unwrap(), AnswerFormat::Text, "{refused}");
            let accept = format!("text/event-stream;{refused}, */*");
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert!(!accepts_events(&headers), "{refused}");
        }
    }

    #[test]
    fn a_stream_is_accepted_by_name_and_not_by_a_range_that_covers_it() {
        for (accept, accepts) in [
            ("text/event-stream", true),
            ("Text/Event-Stream ; q = 0.1", true),
            ("application/json, text/event-stream", true),
            ("*/*", false),
            ("text/*", false),
            ("text/event-stream;q=0.000", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(accepts_events(&headers), accepts, "{accept}");
        }
    }

    #[test]
    fn events_are_given_to_who_asks_for_them_by_name() {
        assert_eq!(negotiated("text/event-stream"), Ok(AnswerFormat::Events));
        assert_eq!(
            negotiated("text/event-stream, application/json;q=0.9"),
            Ok(AnswerFormat::Events)
        );
        assert_eq!(negotiated("text/event-stream;q=0.9, */*"), Ok(AnswerFormat::Json));
        let headers =
            HeaderMap::from_iter([(header::ACCEPT, "text/event-stream".parse().unwrap())]);
        assert_eq!(
            negotiate(Some(AnswerFormat::Markdown), &headers).unwrap(),
            AnswerFormat::Events
        );
    }

    #[test]
    fn a_searchable_pdf_is_given_to_who_names_it_and_is_not_streamed() {
        assert_eq!(negotiated("application/pdf"), Ok(AnswerFormat::Pdf));
        assert_eq!(negotiated("application/pdf, application/json;q=0.5"), Ok(AnswerFormat::Pdf));
        assert_eq!(negotiated("application/*"), Ok(AnswerFormat::Json));
        let headers =
            HeaderMap::from_iter([(header::ACCEPT, "text/event-stream".parse().unwrap())]);
        let refused = negotiate(Some(AnswerFormat::Pdf), &headers).unwrap_err();
        assert_eq!(refused.code.as_str(), "invalid_option");
    }

    #[test]
    fn the_option_overrules_the_header() {
        let headers = HeaderMap::from_iter([(header::ACCEPT, "image/png".parse().unwrap())]);
        assert_eq!(negotiate(Some(AnswerFormat::Text), &headers).unwrap(), AnswerFormat::Text);
    }
}
