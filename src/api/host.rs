//! Checks the host of a request. HTTP/1.1 requires exactly one (RFC 9112, section 3.2).
//!
//! This service does not use the host, but a proxy in front of it may. With two hosts, two parsers could use different
//! ones.

use axum::extract::Request;
use axum::http::header;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Version};

use super::problem::Problem;
use crate::code::ErrorCode;

/// Refuses a request whose host is missing, repeated or invalid.
///
/// # Errors
///
/// 400. HTTP/1.0 may leave the host out.
pub(super) fn check(request: &Request) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let wrong = match (hosts.next(), hosts.count()) {
        (None, _) if request.version() != Version::HTTP_11 => return Ok(()),
        (None, _) => "The request has no Host header, which HTTP/1.1 demands.",
        (Some(_), 1..) => "The request has more than one Host header.",
        (Some(host), 0) if !is_host(host) => "The Host header is neither HOST nor HOST:PORT.",
        (Some(_), 0) => return Ok(()),
    };
    let detail = format!("{wrong} Send one, with the host that you connect to.");
    Err(Problem::new(ErrorCode::BadRequest, detail))
}

/// Whether a header is a host with or without a port, or empty. It is empty if the request target has no host.
fn is_host(host: &HeaderValue) -> bool {
    let Ok(text) = host.to_str() else { return false };
    if text.is_empty() {
        return true;
    }
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let port = &text[authority.host().len().min(text.len())..];
    let port = port.strip_prefix(':').unwrap_or(port);
    let is_port = port.is_empty() || port.parse::<u16>().is_ok() && !port.starts_with('+');
    // The grammar allows a comma, but a comma here separates two hosts that a proxy has joined.
    is_port && !authority.host().is_empty() && !text.contains(['@', ','])
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn is_taken(version: Version, hosts: &[&'static [u8]]) -> bool {
        let mut request = Request::new(Body::empty());
        *request.version_mut() = version;
        for host in hosts {
            request.headers_mut().append(header::HOST, HeaderValue::from_bytes(host).unwrap());
        }
        check(&request).is_ok()
    }

    #[test]
    fn one_host_is_taken_in_every_spelling() {
        for host in [
            "test",
            "ocr.example.com",
            "ocr_gateway:8080",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:8080",
            "a:",
            "xn--a.b.",
            "",
        ] {
            assert!(is_taken(Version::HTTP_11, &[host.as_bytes()]), "{host}");
        }
    }

    #[test]
    fn none_or_two_and_what_is_no_host_are_refused() {
        assert!(!is_taken(Version::HTTP_11, &[]));
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert!(!is_taken(version, &[b"a", b"b"]));
            assert!(!is_taken(version, &[b"a", b"a"]));
            for host in [
                "a b", "a/b", "a?b", "u@a", "u:p@a", "a,b", "a, b", "a:b", "a:99999", "a:+1",
                ":80", "[::1", "::1", "a\\b", "http://a", "\u{6587}",
            ] {
                assert!(!is_taken(version, &[host.as_bytes()]), "{host}");
            }
        }
        assert!(is_taken(Version::HTTP_10, &[]));
    }
}
